"""`python -m benchmarks.review`: how long a review of many SLOs takes, and how many questions it asks."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil

from benchmarks.flash_sale.recording import serving
from benchmarks.generate.slos import definitions
from benchmarks.measure import arguments, machine, report, say, summary, table, verdict
from benchmarks.review import history
from drills.harness import Prometheus as Server
from review import html
from review.connection import Connection
from review.prometheus import Prometheus
from review.reading import Reader
from review.review import budgets_of, review
from slo import CompiledSlo, compile_slo
from slo.windows import DAY

README = Path(__file__).with_name("README.md")

_END = 1_769_904_000
_AT = _END - 600  # as a review now does: by then everything up to it is recorded
_SLOS, _WINDOW, _ROUNDS = (10, 100, 200), 30 * DAY, 3
_SLOS_QUICK, _WINDOW_QUICK, _ROUNDS_QUICK = (2, 10, 20), 2 * DAY, 1
_BEFORE = DAY  # so that the period before is known in part, and the first windows have something before them
_SLOS_CLAIMED, _SECONDS_MAX = 100, 10.0


def main() -> None:
    """Measure, and tell."""
    given = arguments("Seconds and questions of a review, by the number of SLOs.")
    slos, window, rounds = (_SLOS_QUICK, _WINDOW_QUICK, _ROUNDS_QUICK) if given.quick else (_SLOS, _WINDOW, _ROUNDS)
    compiled = [compile_slo(slo) for slo in definitions(max(slos))]
    with tempfile.TemporaryDirectory(prefix="benchmark-review-") as path:
        say(f"writing {(window + _BEFORE).days} days of {len(compiled)} SLOs")
        samples = history.write(Path(path) / "data", compiled, _END, window + _BEFORE)
        with serving(Path(path) / "data") as server:
            found = {count: _measured(server, compiled[:count], window, rounds) for count in slos}
    figures = {
        "days": window.days,
        "samples_stored": samples,
        "rounds": rounds,
        "slos": found,
        "machine": machine("prometheus"),
    }
    report(given, figures, _tables(figures), README)


def _measured(server: Server, compiled: Sequence[CompiledSlo], window: timedelta, rounds: int) -> dict[str, Any]:
    """Some reviews and gates of the same SLOs, one after another."""
    url, process = server.url, psutil.Process(server.process.pid)
    reviews, pages, gates, cpu = [], [], [], []
    for number in range(rounds):
        say(f"{len(compiled)} SLOs, round {number + 1} of {rounds}")
        before = _cpu_seconds(process)
        with Prometheus(Connection(url=url)) as client:
            made, seconds = _timed(lambda: review(compiled, Reader(client), _AT, window=window))
        reviews.append(seconds)
        cpu.append(_cpu_seconds(process) - before)
        _, seconds = _timed(lambda: html.page(made))  # noqa: B023 - at once
        pages.append(seconds)
        with Prometheus(Connection(url=url)) as client:
            _, seconds = _timed(lambda: budgets_of(compiled, Reader(client), _AT, window=window))
            asked = client.queries
        gates.append(seconds)
    return {
        "review_seconds": summary(reviews),
        "review_cpu_seconds": summary(cpu),
        "page_seconds": summary(pages),
        "gate_seconds": summary(gates),
        "review_queries": made.queries,
        "gate_queries": asked,
        "incidents": sum(len(one.incidents) for one in made.slos),
    }


def _cpu_seconds(server: psutil.Process) -> float:
    """What this process and the server have used so far; on a busy machine it tells more than the time that went by."""
    times = server.cpu_times()
    return time.process_time() + float(times.user + times.system)


def _timed(work: Callable[[], Any]) -> tuple[Any, float]:
    started = time.perf_counter()
    result = work()
    return result, time.perf_counter() - started


def _tables(figures: Mapping[str, Any]) -> str:
    found: Mapping[int, Mapping[str, Any]] = figures["slos"]
    rows = [
        [
            f"{count:,}",
            f"{one['review_seconds']['median']:.1f}",
            f"{one['review_seconds']['min']:.1f} to {one['review_seconds']['max']:.1f}",
            f"{one['review_cpu_seconds']['median']:.1f}",
            f"{one['page_seconds']['median']:.1f}",
            f"{one['gate_seconds']['median']:.1f}",
            f"{one['incidents']:,}",
            f"{one['review_queries']}",
            f"{one['gate_queries']}",
        ]
        for count, one in found.items()
    ]
    header = [
        "SLOs",
        "review, s",
        "fastest to slowest",
        "CPU, s",
        "page, s",
        "gate, s",
        "incidents",
        "questions",
        "of the gate",
    ]
    least, most = min(found), max(found)
    slos, questions = most / least, found[most]["review_queries"] / found[least]["review_queries"]
    text = (
        f"{figures['days']} days, {figures['samples_stored']:,} samples, medians of {figures['rounds']}:\n\n"
        f"{table(header, rows)}\n\n"
        f"{slos:g} times as many SLOs are {questions:.1f} times as many questions: {verdict(met=questions <= slos)}."
    )
    claimed = found.get(_SLOS_CLAIMED)
    if claimed is None:
        return text
    seconds = claimed["review_seconds"]["median"]
    return f"{text} {_SLOS_CLAIMED} SLOs take {seconds:.1f} s: {verdict(met=seconds < _SECONDS_MAX)}."


if __name__ == "__main__":
    main()
