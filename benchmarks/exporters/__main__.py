"""`python -m benchmarks.exporters`: a scrape of 500 resources x 20 metrics over HTTP, and the arithmetic of a cycle."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import httpx

from benchmarks.measure import alternating, arguments, machine, report, say, summary, table, verdict
from exporters.calls import Calls, SystemClock
from exporters.cloudwatch import Answer, Series, Values, batches, plan
from exporters.collector import Snapshots, registry
from exporters.readings import Key, Reading
from exporters.runner import Runner
from exporters.settings import Settings
from exporters.sources import Collected
from exporters.unit import Unit, create_log
from exporters.web import application, serving
from slo.metrics.rds import RDS_AVAILABLE, RDS_METRICS

README: Final = Path(__file__).with_name("README.md")

RESOURCES, ROUNDS = 500, 15
RESOURCES_QUICK, ROUNDS_QUICK = 20, 2

SCRAPE_SECONDS_MAX: Final = 0.1
_REGION: Final = "eu-central-1"


_AS_PROMETHEUS: Final = "OpenMetrics, gzip"
_ACCEPTS: Final = {
    "text": {"accept": "text/plain", "accept-encoding": "identity"},
    "OpenMetrics": {"accept": "application/openmetrics-text; version=1.0.0", "accept-encoding": "identity"},
    _AS_PROMETHEUS: {"accept": "application/openmetrics-text; version=1.0.0", "accept-encoding": "gzip"},
}


class Known:
    """A source that knows everything already."""

    metrics = RDS_METRICS

    def __init__(self, readings: Sequence[Reading]) -> None:
        self._readings = readings

    def collect(self) -> Collected:
        """The same each time."""
        return Collected(self._readings)


def main() -> None:
    """Measure, and tell."""
    given = arguments("A scrape of 500 resources x 20 metrics, and the arithmetic of a cycle.")
    resources, rounds = (RESOURCES_QUICK, ROUNDS_QUICK) if given.quick else (RESOURCES, ROUNDS)
    instances = [_labels(number) for number in range(resources)]
    cycles = [_cycle(instances) for _ in range(3)]
    series, calls, _ = cycles[0]
    say(f"{len(series):,} series are planned, {calls} calls")
    scrapes, sizes, served = _scrapes(series, instances, rounds)
    figures = {
        "resources": resources,
        "series": served,
        "rounds": rounds,
        "scrape_seconds": {name: summary(values) for name, values in scrapes.items()},
        "scrape_bytes": sizes,
        "queries": sum(1 for one in series for _ in one.queries),
        "calls": calls,
        "cycle_seconds": summary([seconds for *_, seconds in cycles]),
        "machine": machine(),
    }
    report(given, figures, _tables(figures), README)


def _labels(number: int) -> dict[str, str]:
    return {"aws_account_id": "123456789012", "aws_region": _REGION, "db_instance": f"ledger-{number:03}"}


def _cycle(instances: Sequence[Mapping[str, str]]) -> tuple[Sequence[Series], int, float]:
    """Plan, split into calls, and take in answers of a quarter of an hour; without the network's own time."""
    now = time.time()
    started = time.perf_counter()
    series = plan(RDS_METRICS, instances, _REGION)
    calls = list(batches(series, now, {}, delay_seconds=120))
    answers = {query: answer for call in calls for query, answer in _answers(call.queries, call.start, call.end)}
    Values().take(series, answers)
    return series, len(calls), time.perf_counter() - started


def _answers(queries: Sequence[Any], start: int, end: int) -> Iterator[tuple[Any, Answer]]:
    for number, query in enumerate(queries):
        points = dict.fromkeys(range(start, end, 60), 1234.5 + number)
        yield query, Answer(start=start, end=end, points=points, complete=True)


def _scrapes(
    series: Sequence[Series], instances: Sequence[Mapping[str, str]], rounds: int
) -> tuple[dict[str, list[float]], dict[str, int], int]:
    """Seconds of each scrape, bytes of an answer by what was asked for, and how many series it has."""
    clock, log = SystemClock(threading.Event()), create_log(io.StringIO())
    now = clock.now()
    readings = [Reading(one.key, 1234.5 + number, now) for number, one in enumerate(series)]
    readings += [Reading(Key.of(RDS_AVAILABLE, **labels), 1.0, now) for labels in instances]
    calls = Calls(clock, attempts_max=1, retries_max=0)
    name = {"source": "rds", "aws_account_id": "123456789012", "aws_region": _REGION, "name": ""}
    unit = Unit(name, Known(readings), calls, log, period_seconds=60)
    unit.cycle()
    metrics = registry(Snapshots([unit], clock, max_staleness_seconds=3600))
    sizes: dict[str, int] = {}

    def scrape(http: httpx.Client, kind: str) -> float:
        started = time.perf_counter()
        with http.stream("GET", "/metrics", headers=_ACCEPTS[kind]) as answer:
            sizes[kind] = sum(map(len, answer.iter_raw()))
        return time.perf_counter() - started

    runner = Runner([unit], Settings(), log)
    with (
        serving(("127.0.0.1", 0), application(metrics, runner, [unit])) as url,
        httpx.Client(base_url=url, trust_env=False, timeout=60) as http,
    ):
        scrape(http, "text")  # the first one imports and allocates
        seconds = alternating({kind: partial(scrape, http, kind) for kind in _ACCEPTS}, rounds)
    return seconds, sizes, len(readings)


def _tables(figures: Mapping[str, Any]) -> str:
    scrapes, sizes = figures["scrape_seconds"], figures["scrape_bytes"]
    rows = [
        [kind, *(f"{found[one] * 1000:.0f}" for one in ("median", "min", "max")), f"{sizes[kind]:,}"]
        for kind, found in scrapes.items()
    ]
    asked = scrapes[_AS_PROMETHEUS]["median"]
    many = f"{figures['series']:,} series of {figures['resources']} databases"
    head = f"{many}; {figures['rounds']} scrapes of each kind, ms:"
    told = f"As Prometheus asks it takes **{asked * 1000:.0f} ms**: {verdict(met=asked < SCRAPE_SECONDS_MAX)}."
    cycle = (
        f"{figures['queries']:,} metrics are **{figures['calls']} calls** a cycle; to plan them and to take in the "
        f"answers takes {figures['cycle_seconds']['median'] * 1000:.0f} ms, without the time of AWS."
    )
    return "\n\n".join((head, table(["scrape", "median", "fastest", "slowest", "bytes"], rows), told, cycle))


if __name__ == "__main__":
    main()
