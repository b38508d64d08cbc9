"""`python -m benchmarks.flash_sale`: a month with a flash sale in a Prometheus data folder, and the truth beside it."""

from __future__ import annotations

import argparse
import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from benchmarks.flash_sale import incidents, recording
from benchmarks.flash_sale.count import SLOS
from benchmarks.flash_sale.data import write
from benchmarks.flash_sale.events import Plan
from benchmarks.flash_sale.incidents import SALE
from benchmarks.flash_sale.truth import Truth
from benchmarks.measure import machine, report, say, table, verdict
from drills.harness import Prometheus
from slo import CompiledSlo, Events, Slo, compile_slo, promql
from slo import conventions as names
from slo.definitions.redemption import availability
from slo.errors import SloError
from slo.windows import MINUTE

README = Path(__file__).with_name("README.md")

_END = datetime(2026, 2, 1, tzinfo=UTC)
_DAYS_MAX = 366
_PODS_MAX = 100
_SCALE_MAX = 1_000.0


def main() -> None:
    """Make the data set, and say what it is or what it shows."""
    parser = _parser()
    given = parser.parse_args()
    try:
        plan = _plan(given)
    except (SloError, ValueError, OSError) as error:
        parser.error(str(error))
    end = int(given.end.timestamp())
    if given.out is not None:
        truth = make(given.out, plan, end, () if given.no_rules else SLOS)
        print(_made(given.out, truth))
        return
    months = {_ALL: plan}
    if given.incidents is None:
        months = {_ALONE: replace(plan, incidents=[one for one in plan.incidents if one.name in SALE]), **months}
    found = {name: _month(one, end) for name, one in months.items()}
    figures = {"objective": str(availability.objective), "months": found, "machine": machine("prometheus")}
    report(given, figures, _tables(figures), README)


def make(folder: Path, plan: Plan, end: int, recorded: Sequence[Slo]) -> Truth:
    """Make the data set in a new folder; what really happened.

    Args:
        folder: A Prometheus data folder, with `truth.json` in it, and `traffic/<id>.csv` for `slo simulate`.
        plan: What to make.
        end: The last scrape, Unix time in seconds.
        recorded: The SLOs whose rules run over it.
    """
    count = write(folder, plan, end - int(plan.length.total_seconds()), say)
    truth = count.truth()
    truth.write(folder)
    count.write_traffic(folder / "traffic")
    if recorded:
        recording.record(folder, [compile_slo(slo) for slo in recorded], (truth.begin, truth.end), say)
    return truth


# --- options --------------------------------------------------------------------------------------------------------


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.flash_sale",
        description=(
            "A seeded month of the redemption service with a flash sale, as a Prometheus data folder, with what really "
            "happened in truth.json. Without --out: measure what ways to read the budget say of it."
        ),
    )
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="make the data set here, with all that rules record")
    parser.add_argument("--no-rules", action="store_true", help="only what is scraped; no recorded series, no alerts")
    parser.add_argument("--days", type=int, default=incidents.MONTH_DAYS, help="length; default %(default)s")
    parser.add_argument("--end", type=_moment, default=_END, help="the last scrape; default 2026-02-01T00:00Z, or now")
    parser.add_argument("--seed", type=int, default=1, help="of the generator; default %(default)s")
    parser.add_argument("--scale", type=float, default=1.0, help="factor of all traffic; default %(default)s")
    parser.add_argument("--pods", type=int, default=10, help="default %(default)s")
    parser.add_argument("--scrape-interval", type=int, default=30, metavar="SECONDS", help="default %(default)s")
    parser.add_argument("--incidents", type=Path, metavar="FILE", help="JSON: other incidents than the default ones")
    parser.add_argument("--json", action="store_true", help="print every figure as JSON instead of the tables")
    parser.add_argument("--update", action="store_true", help="also write the tables into this folder's README.md")
    return parser


def _plan(given: argparse.Namespace) -> Plan:
    """What the options ask for.

    Raises:
        ValueError: They ask for something that is not possible.
        SloError: The file of incidents is wrong.
    """
    if given.out is not None and given.out.exists():
        raise ValueError(f"{given.out} exists; name a new folder")
    for what, value, low, high in (
        ("--days", given.days, 1, _DAYS_MAX),
        ("--pods", given.pods, 1, _PODS_MAX),
        ("--scale", given.scale, 0.0, _SCALE_MAX),
    ):
        if not low <= value <= high:
            raise ValueError(f"{what} {value} is not possible; use {low} to {high}")
    if given.scrape_interval not in (10, 15, 30, 60):
        raise ValueError(f"--scrape-interval {given.scrape_interval} is not possible; use 10, 15, 30 or 60")
    if given.update and (given.out is not None or given.days != incidents.MONTH_DAYS):
        raise ValueError("--update writes the figures of the whole month; leave out --out and --days")
    happens = incidents.of_days(given.days)
    if given.incidents is not None:
        happens = incidents.parse(given.incidents.read_text(), str(given.incidents))
    return Plan(
        days=given.days,
        scrape_interval=timedelta(seconds=given.scrape_interval),
        pods=given.pods,
        seed=given.seed,
        scale=given.scale,
        incidents=happens,
    )


def _moment(text: str) -> datetime:
    """A time, in UTC unless it says otherwise, at the whole five minutes before it."""
    moment = datetime.now(UTC) if text == "now" else datetime.fromisoformat(text)
    at = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    whole = int(5 * MINUTE.total_seconds())
    return datetime.fromtimestamp(int(at.timestamp()) // whole * whole, UTC)


def _made(folder: Path, truth: Truth) -> str:
    end = datetime.fromtimestamp(truth.end, UTC)
    return (
        f"{truth.requests:,} requests up to {end:%Y-%m-%d %H:%M} UTC, in {folder}\n"
        f"serve it:  prometheus --config.file=/dev/null --storage.tsdb.path={folder} --storage.tsdb.retention.time=2y "
        "--web.listen-address=127.0.0.1:9090"
    )


# --- figures --------------------------------------------------------------------------------------------------------

_WATCHED = compile_slo(availability)
_ROUNDS_FOR_FIGURES = 6  # all that the ratios below read


_ALONE, _ALL = "with nothing but the flash sale and its failure", "with all that happens"


def _month(plan: Plan, end: int) -> dict[str, Any]:
    """The error ratio of a month's last 30 days, read in every way."""
    with tempfile.TemporaryDirectory(prefix="benchmark-flash-sale-") as path:
        folder = Path(path) / "data"
        truth = make(folder, plan, end, ())
        recording.record(folder, [_WATCHED], (truth.begin, truth.end), say, until=_ROUNDS_FOR_FIGURES)
        with recording.serving(folder) as server:
            return _figures(server, truth)


def _figures(server: Prometheus, truth: Truth) -> dict[str, Any]:
    counted = truth.slos[availability.id]
    ways = {"truth": {"ratio": counted.bad / counted.all, "samples": None}}
    for name, expr in _expressions(_WATCHED).items():
        answer = server.api("query", query=expr, time=truth.end, stats="all")
        value = float(answer["result"][0]["value"][1])
        ways[name] = {"ratio": value, "samples": answer["stats"]["samples"]["totalQueryableSamples"]}
    return {"requests": truth.requests, "ways": ways}


_RAW, _AVERAGE, _WEIGHTED, _COARSE = "raw", "average of ratios", "weighted", "recorded"


def _expressions(compiled: CompiledSlo) -> dict[str, str]:
    sli = compiled.slo.sli
    assert isinstance(sli, Events), "the redemption service's availability counts events"
    base, coarse, period = (compiled.policy.base, compiled.policy.coarse_interval, compiled.policy.period)
    bad, every = (f"sum(increase({promql.series(some)}[{names.duration(period)}]))" for some in (sli.bad, sli.all))

    def mean(series: str) -> str:
        return promql.over_time("avg", compiled.named(series), period)

    fine = [mean(record + names.duration(base)) for record in (names.BAD_EVENTS, names.ALL_EVENTS)]
    read = [mean(names.coarse(record, coarse, base)) for record in (names.BAD_EVENTS, names.ALL_EVENTS)]
    return {
        _RAW: f"{bad} / {every}",
        _AVERAGE: mean(names.SLI_ERROR + names.duration(base)),
        _WEIGHTED: " / ".join(fine),
        _COARSE: " / ".join(read),
    }


_WORDS = {
    "truth": "truth, counted from the events",
    _RAW: "`sum(increase(bad[30d])) / sum(increase(all[30d]))` on raw series",
    _AVERAGE: "average of 5-minute ratios (Sloth's period rule)",
    _WEIGHTED: "event-weighted, from two recorded 5-minute rates",
    _COARSE: "the same, read every 5 minutes: what our rules record",
}
_POINTS_OFF_MAX = 0.1  # percentage points of the budget


def _tables(figures: Mapping[str, Any]) -> str:
    return "\n\n".join(_table(name, month) for name, month in figures["months"].items())


def _table(name: str, month: Mapping[str, Any]) -> str:
    budget = float(availability.budget_ratio)
    ways = month["ways"]
    rows = [
        [
            words,
            f"{ways[way]['ratio']:.8f}",
            f"{100 * ways[way]['ratio'] / budget:.2f} %",
            f"{ways[way]['samples']:,}" if ways[way]["samples"] else "",
        ]
        for way, words in _WORDS.items()
    ]
    truth = ways["truth"]["ratio"]
    off, under = 100 * math.fabs(ways[_COARSE]["ratio"] - truth) / budget, truth / ways[_AVERAGE]["ratio"]
    return (
        f"{month['requests']:,} requests, {name}:\n\n"
        + table(["the 30-day error ratio", "value", "of the budget at 99.99 %", "samples touched"], rows)
        + f"\n\nOurs is {off:.2f} percentage points of the budget off the truth: "
        f"{verdict(met=off <= _POINTS_OFF_MAX)}. The average of ratios says 1/{under:.1f} of it."
    )


if __name__ == "__main__":
    main()
