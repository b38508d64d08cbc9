"""From events to a Prometheus data folder: what ten pods and a worker would have exposed at each scrape."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path

from benchmarks.flash_sale.count import Count
from benchmarks.flash_sale.events import Interval, Plan, Requests
from benchmarks.flash_sale.incidents import Kind, at
from drills.harness import tool
from slo import conventions as names
from slo import promql
from slo.metrics import (
    FOLLOW_UP_ROUTES,
    REDEEM_ROUTE,
    REDEMPTION_CHAIN_SEALED,
    REDEMPTION_DEFERRED_OLDEST_ACCEPTED,
    REDEMPTION_LEDGER_MISMATCHES,
    REDEMPTION_LEDGER_VERIFIED,
    REDEMPTION_REQUEST_DURATION,
    REDEMPTION_REQUESTS,
)
from slo.windows import DAY

_READ_ROUTE = "GET /v1/accounts/{account_id}/balance"
_CAPTURE_ROUTE = FOLLOW_UP_ROUTES[0]
_JOB = {"job": "redemption"}

_Part = Callable[[Requests], int]

_REQUESTS: Mapping[tuple[str, str], _Part] = {
    (REDEEM_ROUTE, "ok"): lambda some: some.redeem_ok,
    (REDEEM_ROUTE, "error"): lambda some: some.redeem_error,
    (REDEEM_ROUTE, "shed"): lambda some: some.redeem_shed,
    (_READ_ROUTE, "ok"): lambda some: some.read_ok,
    (_READ_ROUTE, "error"): lambda some: some.read_error,
    (_CAPTURE_ROUTE, "ok"): lambda some: some.capture_ok,
    (_CAPTURE_ROUTE, "timeout"): lambda some: some.capture_timeout,
}
# The edges that an objective reads, and the last; of all the service's buckets these are enough for its SLOs.
_BUCKETS: Mapping[str, _Part] = {
    names.le(0.25): lambda some: some.redeem_ok - some.slow_quarter,
    names.le(1.0): lambda some: some.redeem_ok - some.slow_second,
    "+Inf": lambda some: some.redeem_ok,
}

# What a counter of a pod stands at when the data begin: the pods have run for weeks. `rate` does not extrapolate a
# counter below zero, so from a new counter's first burst it would take up to half a scrape interval's events.
_COUNTED_BEFORE = 20_000

_DAYS_A_PART = 3  # so that no file grows large: 250 MB at ten pods and 30 s
_IMPORT = ("tsdb", "create-blocks-from", "openmetrics", "--quiet", "--max-block-duration=31d")


def write(folder: Path, plan: Plan, begin: int, tell: Callable[[str], None]) -> Count:
    """Write the data of a plan into a new data folder; what really happened.

    Args:
        folder: The data folder to make.
        plan: What to write.
        begin: The first scrape, Unix time in seconds.
        tell: Is told how far it is.

    Raises:
        RuntimeError: promtool refuses.
    """
    folder.mkdir(parents=True)
    count, pods, samples = Count(plan, begin), _Pods(plan, begin), 0
    part: list[str] = pods.lines_at_begin()
    steps = plan.length // plan.scrape_interval
    steps_a_part = _DAYS_A_PART * DAY // plan.scrape_interval
    text = folder.with_suffix(".openmetrics")
    file = text.open("w")
    for number, interval in enumerate(plan.intervals(), 1):
        count.add(interval)
        part += pods.lines(interval)
        if number % steps_a_part == 0 or number == steps:
            samples += len(part)
            file.writelines(part)
            file.close()
            import_text(text, folder)
            tell(f"day {interval.end // DAY} of {plan.days}: {samples:,} samples")
            part, file = [], text.open("w")
        elif len(part) > _LINES_BUFFERED:
            samples += len(part)
            file.writelines(part)
            part = []
    file.close()
    text.unlink()
    return count


_LINES_BUFFERED = 100_000


def import_text(text: Path, folder: Path) -> None:
    """Import an OpenMetrics file into a data folder; the end-of-file mark is added.

    Raises:
        RuntimeError: promtool refuses.
    """
    with text.open("a") as file:
        file.write("# EOF\n")
    done = subprocess.run([tool("promtool"), *_IMPORT, text, folder], check=False, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"promtool imported nothing: {done.stdout}{done.stderr}".strip())


class _Pod:
    """One pod's counters, by the text of their series."""

    def __init__(self, name: str, counted_before: int) -> None:
        labels = {**_JOB, "pod": name}
        self.requests = [
            _series(REDEMPTION_REQUESTS.name, {**labels, "route": route, "outcome": outcome})
            for route, outcome in _REQUESTS
        ]
        timed = {**labels, "route": REDEEM_ROUTE, "outcome": "ok"}
        duration = REDEMPTION_REQUEST_DURATION.name
        self.buckets = [_series(f"{duration}_bucket", {**timed, "le": le}) for le in _BUCKETS]
        self.count = _series(f"{duration}_count", timed)
        self.counted = [counted_before] * (len(_REQUESTS) + len(_BUCKETS))

    def add(self, events: Iterable[int]) -> None:
        self.counted = [before + more for before, more in zip(self.counted, events, strict=True)]

    def restart(self) -> None:
        self.counted = [0] * len(self.counted)

    def lines(self, at_second: int) -> Iterator[str]:
        for series, value in zip((*self.requests, *self.buckets), self.counted, strict=True):
            yield f"{series} {value} {at_second}\n"
        yield f"{self.count} {self.counted[-1]} {at_second}\n"


class _Pods:
    """All pods and the worker, as Prometheus sees them."""

    def __init__(self, plan: Plan, begin: int) -> None:
        self._plan, self._begin = plan, begin
        self._pods = [_Pod(f"redemption-{number:02d}", _COUNTED_BEFORE) for number in range(plan.pods)]
        self._parts = (*_REQUESTS.values(), *_BUCKETS.values())
        self._worker = [
            _series(REDEMPTION_DEFERRED_OLDEST_ACCEPTED.name, _JOB),
            _series(REDEMPTION_LEDGER_VERIFIED.name, _JOB),
            _series(REDEMPTION_CHAIN_SEALED.name, _JOB),
            _series(REDEMPTION_LEDGER_MISMATCHES.name, {**_JOB, "check": "sums"}),
        ]
        self._was_dead = False

    def lines_at_begin(self) -> list[str]:
        """The first scrape, before any event of the data set; the worker has just done all its work."""
        done = [f"{self._worker[0]} 0", *(f"{one} {self._begin}" for one in self._worker[1:3]), f"{self._worker[3]} 0"]
        return [
            *(line for pod in self._pods for line in pod.lines(self._begin)),
            *(f"{one} {self._begin}\n" for one in done),
        ]

    def lines(self, interval: Interval) -> Iterator[str]:
        """What the scrape at the end of an interval sees."""
        plan, end = self._plan, interval.end
        dead = bool(at(plan.incidents, Kind.DEAD_POD, end)) and len(self._pods) > 1
        if self._was_dead and not dead:
            # A new one, with a name of its own and counters that begin at 0.
            self._pods[0] = _Pod(f"redemption-{plan.pods:02d}", 0)
        self._was_dead = dead
        alive = self._pods[1:] if dead else self._pods
        self._count(interval, alive)
        for one in plan.incidents:
            if one.kind is Kind.RESTARTS and one.covers(end):
                restarting = (end - one.begin) / one.length * plan.pods
                before = (end - one.begin - plan.scrape_interval) / one.length * plan.pods
                for number in range(int(before), min(int(restarting), plan.pods)):
                    self._pods[number].restart()
        if not at(plan.incidents, Kind.MISSED_SCRAPES, end):
            yield from self._seen(interval, alive)

    def _count(self, interval: Interval, alive: Sequence[_Pod]) -> None:
        """Spread the events over the pods; what does not divide goes to one more each, in turn.

        All parts begin with the same pod, so that none has more slow answers than answers.
        """
        totals = [part(interval.requests) for part in self._parts]
        turn, pods = interval.end // self._plan.scrape_interval, len(alive)
        for number, pod in enumerate(alive):
            place = (number + turn) % pods
            pod.add(total // pods + (place < total % pods) for total in totals)

    def _seen(self, interval: Interval, alive: Sequence[_Pod]) -> Iterator[str]:
        now = self._begin + int(interval.end.total_seconds())
        for pod in alive:
            yield from pod.lines(now)
        worker = interval.worker
        oldest = 0 if worker.oldest_accepted is None else self._unix(worker.oldest_accepted)
        values = (oldest, self._unix(worker.verified), self._unix(worker.sealed), 0)
        for series, value in zip(self._worker, values, strict=True):
            yield f"{series} {value} {now}\n"

    def _unix(self, moment: timedelta) -> int:
        return self._begin + int(moment.total_seconds())


def _series(name: str, labels: Mapping[str, str]) -> str:
    return f"{name}{{{','.join(f'{label}={promql.quoted(text)}' for label, text in labels.items())}}}"
