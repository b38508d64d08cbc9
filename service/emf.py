"""The second way to an alert: what was promised, counted by the process itself, as metrics of CloudWatch.

Losing Prometheus must blind nobody. So once a minute, and a last time at the end, each promise gets a line on standard
output with its bad and all events since the line before, in CloudWatch's embedded metric format: CloudWatch Logs makes
metrics of it by itself.
https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html

What counts as bad is what `slo.sli` says in PromQL. One thing differs: PromQL sees all processes at once, and this one
only itself. Events add up all the same. Of slices of time each process has its own: among three workers a slice that is
bad for one of them is a third of the slices, not all of them.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Final, TypeAlias

import orjson

from service.logs import LineBuffer, Log
from service.telemetry import Instruments
from slo import Events, Freshness, Latency, Recency, Slo, TimeSlice
from slo import conventions as names
from slo.embedded import document
from slo.metrics import Metric, Selection
from slo.model import Queries, RatioQuery, Slices

_MINUTE_SECONDS: Final = 60
_LOOK_SECONDS: Final = 15.0  # at gauges: as often as a scrape, or a short violation would be seen there and not here
_LATE_SECONDS: Final = 0.05  # after the full minute, as a timer may be a little early by the clock

_Own: TypeAlias = Events | Latency | Slices
"""What says which metrics it reads; of foreign queries we don't know."""


class EmbeddedMetrics:
    """Counts the events of promises, and writes them.

    Args:
        slos: Promises; those that read none of the process's metrics are left to whoever has them.
        catalogue: The process's metrics.
        instruments: Where these are.
        lines: Written to.
        log: Hears when something cannot be counted.
        clock: The Unix time in seconds.
    """

    def __init__(  # noqa: PLR0913 - each is a part of its own
        self,
        slos: Iterable[Slo],
        catalogue: Iterable[Metric],
        instruments: Instruments,
        lines: LineBuffer,
        log: Log,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._lines = lines
        self._log = log
        self._clock = clock
        began = clock()
        self._minute = _minute(began)
        own = {metric.name for metric in catalogue}
        self._counts = [
            (slo, _count(slo.sli, instruments, began))
            for slo in slos
            if not isinstance(slo.sli, Queries | RatioQuery) and _selection(slo.sli).metric.name in own
        ]

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """Between these two points lines are written; the last ones at the end, for what is left of a minute."""
        task = asyncio.create_task(self._run())
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            self.look()
            self._write()

    def look(self) -> None:
        """Look at the gauges, and write if a minute is over. To be called every few seconds."""
        now = self._clock()
        for _, count in self._counts:
            count.look(now)
        if _minute(now) != self._minute:
            self._write()
            self._minute = _minute(now)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_SECONDS - (self._clock() - _LATE_SECONDS) % _LOOK_SECONDS)
            try:
                self.look()
            except Exception as error:  # noqa: BLE001 - whatever it is, the next minute may work
                self._log.error("promises not counted", error=type(error).__name__)

    def _write(self) -> None:
        """Lines for the minute that began last: CloudWatch sorts its numbers by the time in it."""
        for slo, count in self._counts:
            bad, every = count.take()
            self._lines.info(line(slo, bad, every, self._minute))


def line(slo: Slo, bad: float, every: float, timestamp_seconds: int) -> bytes:
    """One promise's events as a line in the embedded metric format."""
    return orjson.dumps(document(slo, bad, every, timestamp_seconds), option=orjson.OPT_APPEND_NEWLINE)


def _minute(now: float) -> int:
    """The begin of a time's minute."""
    return int(now // _MINUTE_SECONDS) * _MINUTE_SECONDS


# --- what is counted --------------------------------------------------------------------------------------------------


class _Counted:
    """Events that the process counts itself.

    Args:
        total: Bad and all events since the process began.
    """

    def __init__(self, total: Callable[[], tuple[float, float]]) -> None:
        self._total = total
        self._taken = (0.0, 0.0)

    def look(self, now: float) -> None:
        """A counter forgets nothing between two lines."""

    def take(self) -> tuple[float, float]:
        """Bad and all events since they were taken last."""
        (bad_before, every_before), self._taken = self._taken, self._total()
        bad, every = self._taken
        return bad - bad_before, every - every_before


class _Sliced:
    """Slices of time, each judged when it is over; they begin when PromQL's do, at whole multiples of their length.

    Args:
        sli: What makes a slice bad.
        values: The values of its gauge now.
        began: The Unix time in seconds.
    """

    def __init__(self, sli: Slices, values: Callable[[], list[float]], began: float) -> None:
        self._sli = sli
        self._values = values
        self._slice = began // sli.slice_seconds
        self._seen: list[float] = []
        self._bad = self._every = 0

    def look(self, now: float) -> None:
        """Look at the gauge; at the end of a slice, judge it."""
        values = self._values()
        self._seen += values
        if self._slice != now // self._sli.slice_seconds:
            self._slice = now // self._sli.slice_seconds
            self._bad += _is_bad(self._sli, self._seen, values, now)
            self._every += 1
            self._seen = []

    def take(self) -> tuple[float, float]:
        """Bad and all slices since they were taken last."""
        taken = self._bad, self._every
        self._bad = self._every = 0
        return taken


def _is_bad(sli: Slices, seen: Sequence[float], values: Sequence[float], now: float) -> bool:
    """Whether a slice is bad, from all values in it, or from those at its end."""
    match sli:
        case TimeSlice():
            above, below = sli.bad_above, sli.bad_below
            return (above is not None and max(seen) > above) or (below is not None and min(seen) < below)
        case Freshness():
            return any(now - value > sli.age_max_seconds for value in values if value > 0)  # 0: nothing waits
        case Recency():
            return now - max(values) > sli.age_max_seconds


def _count(sli: _Own, instruments: Instruments, began: float) -> _Counted | _Sliced:
    def values(selection: Selection) -> list[float]:
        return [sample.value for sample in instruments.samples(selection) if sample.name == selection.metric.name]

    def slow() -> tuple[float, float]:
        assert isinstance(sli, Latency), "asked for such alone"
        every = fast = 0.0
        for sample in instruments.samples(sli.requests):
            if sample.name.endswith("_count"):
                every += sample.value
            elif sample.labels.get("le") == names.le(sli.threshold_seconds):
                fast += sample.value
        return every - fast, every

    match sli:
        case Events():
            return _Counted(lambda: (sum(values(sli.bad)), sum(values(sli.all))))
        case Latency():
            return _Counted(slow)
        case TimeSlice() | Freshness() | Recency():
            return _Sliced(sli, lambda: values(_selection(sli)), began)


def _selection(sli: _Own) -> Selection:
    """The series that an SLI reads."""
    match sli:
        case Events():
            return sli.all
        case Latency():
            return sli.requests
        case TimeSlice():
            return sli.gauge
        case Freshness():
            return sli.oldest
        case Recency():
            return sli.last
