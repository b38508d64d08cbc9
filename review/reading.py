"""What a review asks of Prometheus: a question for all SLOs at once, whatever their number.

The events come from the coarse recordings of the rules (`slo:*_events:avg5m_rate5m`): a sample every five minutes, in
which every event weighs the same. Such a sample is made of rates that look back for five minutes, so its events lie
some minutes before it; the readings are moved to where they belong.
"""

from __future__ import annotations

import contextlib
import math
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import groupby, pairwise
from typing import TypeAlias

from review.budget import Period, period_of
from review.errors import ReviewError
from review.incidents import CauseFiring, RawFiring
from review.model import Cause, EventWindows, Firing, Incident, Span
from review.prometheus import POINTS_MAX, Prometheus, Series
from slo import conventions as names
from slo import promql
from slo.causes import Component
from slo.compile import CompiledSlo
from slo.model import Events, Latency
from slo.windows import Policy

Progress: TypeAlias = Callable[[str, int, int], None]
"""Called with what is read, how many parts are done, and of how many."""

_ID = "sloth_id"
_STEPS_AFTER = 2  # a window is whole in the samples of the two intervals after it
_CHUNK_POINTS = 2_880  # ten days: some megabytes for a hundred SLOs, and a step of progress
_HOLES_MAX = 20
_CAUSES_MAX = 5
_CAUSES_SPAN_MAX = timedelta(days=1)
_CAUSE_SHARE_MIN = 0.01
assert _CHUNK_POINTS < POINTS_MAX


@dataclass(frozen=True, slots=True)
class Before:
    """The events of the period before.

    Attributes:
        all_events: All of them.
        bad_events: Bad ones.
        recorded: Share of the period for which there is data.
    """

    all_events: float
    bad_events: float
    recorded: float


@dataclass(frozen=True, slots=True)
class Reading:
    """What was read of one SLO."""

    compiled: CompiledSlo
    period: Period
    windows: EventWindows
    before: Before
    firings: tuple[RawFiring, ...]


@dataclass(frozen=True, slots=True)
class _Grid:
    """The windows of several SLOs that share a resolution: `points` of them, the last one ends at `end`."""

    policy: Policy
    end: float
    points: int

    @property
    def step(self) -> float:
        return self.policy.coarse_interval.total_seconds()

    def chunks(self) -> list[range]:
        return [range(first, min(first + _CHUNK_POINTS, self.points)) for first in range(0, self.points, _CHUNK_POINTS)]

    def at(self, index: int) -> float:
        """The end of a window."""
        return self.end - (self.points - 1 - index) * self.step


def latest(compiled: Sequence[CompiledSlo], now: float) -> float:
    """The newest moment up to which everything is recorded already."""
    step = max(one.policy.coarse_interval.total_seconds() for one in compiled)
    return (math.floor(now / step) - _STEPS_AFTER) * step


class Reader:
    """Asks the questions of a review.

    Args:
        prometheus: Whom.
        where: Labels that the recorded series must have besides, when one Prometheus holds several copies of an SLO.
        progress: Told of each part that is read.
    """

    def __init__(
        self, prometheus: Prometheus, where: Mapping[str, str] | None = None, progress: Progress | None = None
    ) -> None:
        self._prometheus = prometheus
        self._where = dict(where or {})
        self._progress = progress or (lambda *_: None)
        self._unanswered: list[str] = []

    @contextlib.contextmanager
    def optional(self, what: str) -> Iterator[None]:
        """Warn of what cannot be had, of all that a review can do without, and go on."""
        try:
            yield
        except ReviewError as error:
            self._unanswered.append(f"not known is {what}: {error}")

    @property
    def source(self) -> str:
        """Where the figures come from."""
        return self._prometheus.url

    @property
    def warnings(self) -> Sequence[str]:
        """What the server said about its own answers so far, and what it did not answer."""
        return (*self._prometheus.warnings, *self._unanswered)

    @property
    def queries(self) -> int:
        """How many questions were asked so far."""
        return self._prometheus.queries

    # -- for all SLOs at once ----------------------------------------------------------------------------------------

    def read(
        self, compiled: Sequence[CompiledSlo], at: float, window: timedelta | None, *, whole: bool = True
    ) -> list[Reading]:
        """Everything about the given SLOs at a moment.

        Args:
            compiled: The SLOs.
            at: The moment; it is moved back to the last end of a window.
            window: The period; by default each SLO's own.
            whole: Whether the period before and the alerts are read as well, which a budget does not need.

        Raises:
            ReviewError: There is no usable answer.
        """
        readings: list[Reading] = []
        for _, some in groupby(sorted(compiled, key=_resolution), key=_resolution):
            readings += self._read(list(some), at, window, whole=whole)
        return sorted(readings, key=lambda reading: reading.compiled.slo.id)

    def _read(
        self, compiled: Sequence[CompiledSlo], at: float, window: timedelta | None, *, whole: bool
    ) -> list[Reading]:
        policy = compiled[0].policy
        step = policy.coarse_interval.total_seconds()
        end = math.floor(at / step) * step
        periods = {one.slo.id: period_of(one, end, window) for one in compiled}
        longest = max(period.past.seconds for period in periods.values())
        grid = _Grid(policy, end, max(1, round(longest / step)))
        every, bad = (
            self._coarse_filled(what, record, grid, compiled)
            for what, record in (("events", names.ALL_EVENTS), ("bad events", names.BAD_EVENTS))
        )
        sharp_expr = self._one(f"{self._base(names.BAD_EVENTS, policy, compiled)} > 0")
        sharp = self._filled("when they were", sharp_expr, grid, compiled)
        before: Mapping[str, Before] = {}
        firings: Mapping[str, Sequence[RawFiring]] = {}
        if whole:
            with self.optional("the period before"):
                before = self._before(compiled, grid, periods)
            with self.optional("which alerts fired"):
                firings = self._firings(compiled, grid)
        return [
            Reading(
                one,
                periods[one.slo.id],
                _windows(every[one.slo.id], bad[one.slo.id], sharp[one.slo.id], grid, periods[one.slo.id].past),
                before.get(one.slo.id, Before(0.0, 0.0, 0.0)),
                tuple(firings.get(one.slo.id, ())),
            )
            for one in compiled
        ]

    def copies(self, compiled: Sequence[CompiledSlo], at: float) -> list[str]:
        """The SLOs of which there are several series at once: replicas, or clusters that share a store."""
        policy = compiled[0].policy
        series = self._base(names.ALL_EVENTS, policy, compiled)
        found = self._prometheus.instant(f"count by ({_ID}) ({series}) > 1", at)
        return sorted(sample.labels[_ID] for sample in found)

    def _selector(self, record: str, compiled: Sequence[CompiledSlo]) -> str:
        ids = sorted(one.slo.id for one in compiled)
        return record + promql.matchers({**self._where, _ID: ids})

    def _base(self, record: str, policy: Policy, compiled: Sequence[CompiledSlo]) -> str:
        return self._selector(record + names.duration(policy.base), compiled)

    def _coarse_series(self, record: str, policy: Policy, compiled: Sequence[CompiledSlo]) -> str:
        return self._selector(names.coarse(record, policy.coarse_interval, policy.base), compiled)

    def _coarse(self, record: str, policy: Policy, compiled: Sequence[CompiledSlo]) -> str:
        # The newest sample of each interval: exactly one, however far the server looks back by itself.
        series = self._coarse_series(record, policy, compiled)
        return self._one(promql.over_time("last", series, policy.coarse_interval))

    def _one(self, expr: str) -> str:
        """One series an SLO; of replicas, the one that missed least."""
        return f"max by ({_ID}) ({expr})"

    def _coarse_filled(
        self, what: str, record: str, grid: _Grid, compiled: Sequence[CompiledSlo]
    ) -> dict[str, array[float]]:
        """Events of each window by SLO id, from the samples that are recorded after it, moved to where they belong."""
        after = _Grid(grid.policy, grid.end + _STEPS_AFTER * grid.step, grid.points + _STEPS_AFTER)
        shifts: Mapping[str, float] = {}
        with self.optional("when in their interval the rules run, which moves events by minutes"):
            shifts = self._shifts(record, after, compiled)
        found = self._filled(what, self._coarse(record, grid.policy, compiled), after, compiled)
        with self.optional(f"what was between recordings of {what}"):
            self._fill_holes(found, record, after, compiled)
        return {key: _moved(values, shifts.get(key, 1.0), grid.points) for key, values in found.items()}

    def _fill_holes(
        self, found: Mapping[str, array[float]], record: str, grid: _Grid, compiled: Sequence[CompiledSlo]
    ) -> None:
        """Fill windows without a coarse sample from the fine ones, where there are any.

        A rule that ran late leaves such a hole, and Thanos where it goes on with another replica. Nothing is filled
        before the first sample of an SLO or after its last one.
        """
        base = self._base(record, grid.policy, compiled)
        expr = self._one(promql.over_time("avg", base, grid.policy.coarse_interval))
        for hole in _stretches({index for values in found.values() for index in _holes(values)})[:_HOLES_MAX]:
            for series in self._range(expr, grid.at(hole[0]), grid.at(hole[-1]), grid.step):
                values = found.get(series.labels.get(_ID, ""), array("d"))
                for at, value in series.points:
                    index = round((at - grid.at(0)) / grid.step)
                    if index < len(values) and math.isnan(values[index]):
                        values[index] = float(value) * grid.step

    def _shifts(self, record: str, grid: _Grid, compiled: Sequence[CompiledSlo]) -> dict[str, float]:
        """How many steps after a window's end the sample would be read that is centred on it, by SLO id.

        A sample is a mean over an interval of rates that look back, and its rule runs at a moment of its own. Of both
        lengths, the first evaluation's step is not seen.
        """
        policy = grid.policy
        back = ((policy.base + policy.coarse_interval) / 2 - policy.evaluation_interval).total_seconds()
        series = self._coarse_series(record, policy, compiled)
        recorded = self._by_id(f"max by ({_ID}) (timestamp({series}))", grid.end)
        return {key: (back + (grid.end - at) % grid.step) / grid.step - 0.5 for key, at in recorded.items()}

    def _filled(self, what: str, expr: str, grid: _Grid, compiled: Sequence[CompiledSlo]) -> dict[str, array[float]]:
        """Events of each window by SLO id, NaN where there is no sample, from a rate at each window's end."""
        found = {one.slo.id: array("d", [math.nan]) * grid.points for one in compiled}
        chunks = grid.chunks()
        self._progress(what, 0, len(chunks))
        for done, chunk in enumerate(chunks, start=1):
            for series in self._range(expr, grid.at(chunk[0]), grid.at(chunk[-1]), grid.step):
                values = found.get(series.labels.get(_ID, ""))
                if values is not None:
                    _fill(values, series, grid.at(0), grid.step)
            self._progress(what, done, len(chunks))
        return found

    def _range(self, expr: str, first: float, last: float, step: float) -> Iterable[Series]:
        for part in self._prometheus.range(expr, first, last, step):
            yield from part

    def _before(self, compiled: Sequence[CompiledSlo], grid: _Grid, periods: Mapping[str, Period]) -> dict[str, Before]:
        found: dict[str, Before] = {}
        for before in sorted({period.before for period in periods.values()}):
            some = [one for one in compiled if periods[one.slo.id].before == before]
            length = timedelta(seconds=before.seconds)
            every, bad, count = (
                self._by_id(self._one(promql.over_time(function, series, length)), before.end + grid.step)
                for function, series in (
                    ("sum", self._coarse_series(names.ALL_EVENTS, grid.policy, some)),
                    ("sum", self._coarse_series(names.BAD_EVENTS, grid.policy, some)),
                    ("count", self._coarse_series(names.ALL_EVENTS, grid.policy, some)),
                )
            )
            for key in every:
                recorded = count.get(key, 0.0) * grid.step / before.seconds
                found[key] = Before(every[key] * grid.step, bad.get(key, 0.0) * grid.step, recorded)
        return found

    def _by_id(self, expr: str, at: float) -> dict[str, float]:
        return {sample.labels.get(_ID, ""): sample.value for sample in self._prometheus.instant(expr, at)}

    def _firings(self, compiled: Sequence[CompiledSlo], grid: _Grid) -> dict[str, list[RawFiring]]:
        """The alerts that fired, by SLO id."""
        of_slos = {_ID: sorted(one.slo.id for one in compiled)}
        found: dict[str, list[RawFiring]] = {}
        by = (_ID, "alertname", names.SEVERITY_LABEL)
        for (slo, alert, severity), moments in self._fired("alerts", of_slos, by, grid):
            for span in _runs(moments, grid):
                found.setdefault(slo, []).append(RawFiring(alert, severity, span, still_firing=span.end == grid.end))
        return found

    def causes_fired(self, compiled: Sequence[CompiledSlo], span: Span) -> list[CauseFiring]:
        """The alerts of causes that fired, whatever they are causes of."""
        policy = compiled[0].policy
        step = policy.coarse_interval.total_seconds()
        grid = _Grid(policy, span.end, max(1, round(span.seconds / step)))
        by = ("alertname", "component", "cause")
        return [
            CauseFiring(alert, component, run)
            for (alert, component, cause), moments in self._fired("causes", {"component": list(Component)}, by, grid)
            if cause
            for run in _runs(moments, grid)
        ]

    def _fired(
        self, what: str, labels: Mapping[str, str | Sequence[str]], by: tuple[str, str, str], grid: _Grid
    ) -> list[tuple[tuple[str, str, str], dict[int, Span]]]:
        """Alerts by three labels, each with the first and last moment of every window in which it fired."""
        alerts = f"timestamp(ALERTS{promql.matchers({**self._where, **labels, 'alertstate': 'firing'})})"
        moments: dict[tuple[str, str, str], dict[int, Span]] = {}
        chunks = grid.chunks()
        for done, chunk in enumerate(chunks, start=1):
            first, last = (self._edges(edge, alerts, by, grid, chunk) for edge in ("min", "max"))
            for key, points in first.items():
                ends = last.get(key, points)
                for at, begin in points.items():
                    index = round((at - grid.at(0)) / grid.step)
                    moments.setdefault(key, {})[index] = Span(begin, ends.get(at, begin))
            self._progress(what, done, len(chunks))
        return sorted(moments.items())

    def _edges(
        self, edge: str, expr: str, by: tuple[str, str, str], grid: _Grid, chunk: range
    ) -> dict[tuple[str, str, str], dict[float, float]]:
        """The first or last value of an expression within each window, by three labels and the window's end."""
        over = promql.over_time(edge, expr, timedelta(seconds=grid.step), grid.policy.evaluation_interval)
        labelled = f"{edge} by ({', '.join(by)}) ({over})"
        found = {}
        for series in self._range(labelled, grid.at(chunk[0]), grid.at(chunk[-1]), grid.step):
            first, second, third = (series.labels.get(name, "") for name in by)
            found[first, second, third] = {at: float(value) for at, value in series.points}
        return found

    # -- for one incident --------------------------------------------------------------------------------------------

    def causes(self, compiled: CompiledSlo, incident: Incident) -> tuple[Cause, ...]:
        """The kinds of bad events of an incident, most first; empty when its raw series are not known or not there.

        Of an incident of more than a day, those of the day around its peak.
        """
        span = incident.span
        if span.seconds > _CAUSES_SPAN_MAX.total_seconds():
            half = _CAUSES_SPAN_MAX.total_seconds() / 2
            span = Span(max(span.begin, incident.peak_at - half), min(span.end, incident.peak_at + half))
        # A scrape before and after, so that the counters' first and last step are inside.
        pad = 2 * compiled.policy.evaluation_interval.total_seconds()
        expr = _bad_by_kind(compiled, timedelta(seconds=math.ceil(span.seconds + 2 * pad)))
        if expr is None:
            return ()
        found = [(one.labels, one.value) for one in self._prometheus.instant(expr, span.end + pad) if one.value > 0]
        total = math.fsum(value for _, value in found)
        found.sort(key=lambda one: (-one[1], sorted(one[0].items())))
        return tuple(
            Cause(labels=labels, bad_events=value, share=value / total)
            for labels, value in found[:_CAUSES_MAX]
            if value >= _CAUSE_SHARE_MIN * total
        )

    def gone_before(self, compiled: CompiledSlo, firing: Firing, incident: Incident) -> float | None:
        """Bad events of an incident up to the moment at which an alert fired; None where nothing is recorded."""
        policy = compiled.policy
        base = policy.base.total_seconds()
        until = min(firing.span.begin, incident.span.end)
        count = max(1, min(math.ceil((until - incident.span.begin) / base), POINTS_MAX))
        expr = self._one(self._base(names.BAD_EVENTS, policy, [compiled]))
        events = {
            at: float(value) * base
            for series in self._range(expr, until - (count - 1) * base, until, base)
            for at, value in series.points
        }
        if not events:
            return None
        # A rate extrapolates by a scrape interval, which in the first window lies before the incident.
        events[min(events)] *= 1 - policy.evaluation_interval / policy.base
        return math.fsum(events.values())


def _resolution(compiled: CompiledSlo) -> tuple[timedelta, timedelta, timedelta]:
    policy = compiled.policy
    return policy.coarse_interval, policy.base, policy.evaluation_interval


def _fill(values: array[float], series: Series, first: float, step: float) -> None:
    begin, end = (round((at - first) / step) for at, _ in (series.points[0], series.points[-1]))
    if not 0 <= begin <= end < len(values):
        raise ReviewError(f"an answer holds samples from {series.points[0][0]:.0f} on, outside of what was asked for")
    if end - begin + 1 == len(series.points):  # without a gap, as nearly always
        values[begin : end + 1] = array("d", [float(value) * step for _, value in series.points])
        return
    for at, value in series.points:
        values[round((at - first) / step)] = float(value) * step


def _holes(values: array[float]) -> Iterator[int]:
    """The windows without a value that lie between two with one."""
    if not math.isnan(math.fsum(values)):
        return
    known = [index for index, value in enumerate(values) if not math.isnan(value)]
    for before, after in pairwise(known):
        yield from range(before + 1, after)


def _stretches(indices: Iterable[int]) -> list[range]:
    """Numbers as stretches without a gap, the shortest first: in a long one there is rarely anything to find."""
    found: list[range] = []
    for index in sorted(indices):
        if found and index == found[-1].stop:
            found[-1] = range(found[-1].start, index + 1)
        else:
            found.append(range(index, index + 1))
    return sorted(found, key=len)


def _moved(values: array[float], shift: float, points: int) -> array[float]:
    """The values of a number of windows, from samples that come a number of steps after them; no event gets lost."""
    whole = min(int(shift), _STEPS_AFTER - 1)
    part = min(1.0, shift - whole)
    near, far = values[whole : whole + points], values[whole + 1 : whole + 1 + points]
    rest = 1 - part
    if math.isnan(math.fsum(near) + math.fsum(far)):
        return array("d", [_blend(one, other, part) for one, other in zip(near, far, strict=True)])
    return array("d", [rest * one + part * other for one, other in zip(near, far, strict=True)])


def _blend(one: float, other: float, part: float) -> float:
    """The parts of two neighbours that belong to a window; where one is not recorded, that of the other alone."""
    if math.isnan(one):
        return part * other if part else math.nan
    return (1 - part) * one + (0.0 if math.isnan(other) else part * other)


def _windows(every: array[float], bad: array[float], sharp: array[float], grid: _Grid, period: Span) -> EventWindows:
    """The windows of one SLO's own period, the end of the grid."""
    points = max(1, min(round(period.seconds / grid.step), grid.points))
    every, bad, sharp = every[-points:], bad[-points:], sharp[-points:]
    for index in range(points):
        if math.isnan(every[index]) or math.isnan(bad[index]):
            every[index] = bad[index] = math.nan
        if math.isnan(sharp[index]):
            sharp[index] = 0.0
    return EventWindows(grid.end - points * grid.step, grid.step, every, bad, sharp)


def _runs(moments: Mapping[int, Span], grid: _Grid) -> Iterator[Span]:
    """The moments of an alert as stretches; a window without it ends one. What fires in the last window still fires."""
    for _, run in groupby(enumerate(sorted(moments)), key=lambda pair: pair[1] - pair[0]):
        indices = [index for _, index in run]
        still_firing = indices[-1] == grid.points - 1
        yield Span(moments[indices[0]].begin, grid.end if still_firing else moments[indices[-1]].end)


def _bad_by_kind(compiled: CompiledSlo, window: timedelta) -> str | None:
    """Bad events in a window by the labels that the metric declares; None when the SLI has no such metric."""

    def increase(selector: str, labels: Iterable[str]) -> str:
        return f"sum by ({', '.join(sorted(labels))}) (increase({selector}[{names.duration(window)}]))"

    match compiled.slo.sli:
        case Events(bad=bad):
            return increase(promql.series(bad), bad.metric.labels)
        case Latency(requests=requests, threshold_seconds=threshold):
            labels = requests.metric.labels
            every = increase(promql.series(requests, "_count"), labels)
            fast = increase(promql.series(requests, "_bucket", le=names.le(threshold)), labels)
            return f"{every} - {fast}"
        case _:
            return None
