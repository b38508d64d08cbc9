"""What to ask CloudWatch, and what its answers mean. Pure: no clock, no network, no AWS library.

A series is planned from the catalogue's addresses and a resource that was found. Its queries go into batches of as
many as one GetMetricData call takes; the points that come back become the value of a gauge, the newest complete
minute, or are added to a counter, each minute once, however late or often it arrives.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Final

from exporters.readings import Key, Reading
from slo.metrics import CloudWatch, Counter, Metric

QUERIES_MAX: Final = 500
"""Of one call: API reference of GetMetricData."""

STATISTICS_BILLED_AS_ONE: Final = 5
"""Of one metric in one call; every further one is billed as a metric: https://aws.amazon.com/cloudwatch/pricing/."""

LOOKBACK_SECONDS: Final = 900
"""How late a point may come and still be added."""

OUTAGE_SECONDS_MAX: Final = 3 * 3600 - LOOKBACK_SECONDS
"""How long CloudWatch may be out of reach without a minute being lost: 500 queries of 180 minutes are 90,000 points.

A call answers 100,800 at most, and AWS limits the rate of older points more (API reference of GetMetricData).
"""


@dataclass(frozen=True, slots=True)
class Query:
    """One statistic of one of AWS's metrics."""

    region: str
    namespace: str
    name: str
    dimensions: tuple[tuple[str, str], ...]
    statistic: str
    period_seconds: int

    @property
    def metric(self) -> tuple[object, ...]:
        """What AWS bills: the metric, whichever its statistics."""
        return (self.region, self.namespace, self.name, self.dimensions)


@dataclass(frozen=True, slots=True)
class Addend:
    """A part of a series' value: `query`, or that share of it that `percent_rank` tells in percent, times a factor."""

    query: Query
    percent_rank: Query | None
    factor: Decimal


@dataclass(frozen=True, slots=True)
class Series:
    """A series of ours, and what it is the sum of."""

    key: Key
    addends: tuple[Addend, ...]

    @property
    def queries(self) -> Iterator[Query]:
        """All that must be asked for it."""
        for addend in self.addends:
            yield addend.query
            if addend.percent_rank:
                yield addend.percent_rank


@dataclass(slots=True, kw_only=True)
class Answer:
    """What CloudWatch has of a query.

    Attributes:
        start: Unix time from which it was asked for.
        end: Until when, not included.
        points: Unix time at which a period begins -> its value.
        complete: Whether that is all that there is.
    """

    start: int
    end: int
    points: dict[int, float] = field(default_factory=dict)
    complete: bool = False


def plan(metrics: Iterable[Metric], resources: Iterable[Mapping[str, str]], region: str) -> tuple[Series, ...]:
    """The series of these metrics that these resources have.

    Args:
        metrics: Those without an address in CloudWatch are passed over.
        resources: Each by the values of labels. It has those series whose open labels it knows all; where it says a
            label with listed values as well, the role of a queue say, those of that value alone.
        region: Where the resources are; an address may say another.
    """
    addends: dict[Key, dict[Addend, None]] = defaultdict(dict)
    found = list(resources)
    for metric in metrics:
        opened = set(metric.open_labels)
        having = [one for one in found if opened <= one.keys()]
        for address in metric.cloudwatch:
            for one in having:
                if all(one.get(label, value) == value for label, value in address.labels.items()):
                    key = Key.of(metric, **address.labels, **{label: one[label] for label in metric.open_labels})
                    addends[key][_addend(address, one, region)] = None
    return tuple(Series(key, tuple(parts)) for key, parts in addends.items())


def _addend(address: CloudWatch, labels: Mapping[str, str], region: str) -> Addend:
    dimensions = tuple(sorted((name, labels[label]) for name, label in address.dimensions.items()))
    where = (address.region or region, address.namespace, address.name, dimensions)
    query = Query(*where, address.statistic, address.period_seconds)
    rank = Query(*where, address.percent_rank, address.period_seconds) if address.percent_rank else None
    return Addend(query, rank, address.factor)


# --- what is asked ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Batch:
    """What one call asks for.

    Attributes:
        region: Where.
        queries: At most `QUERIES_MAX`, each once, all of one period.
        start: Unix time, a whole number of periods.
        end: The same, not included; points of periods that end later are not complete.
    """

    region: str
    queries: tuple[Query, ...]
    start: int
    end: int

    @property
    def billed(self) -> int:
        """How many metrics AWS bills for it."""
        statistics: dict[tuple[object, ...], int] = defaultdict(int)
        for query in self.queries:
            statistics[query.metric] += 1
        return sum(-(-count // STATISTICS_BILLED_AS_ONE) for count in statistics.values())


def batches(
    series: Iterable[Series], now: float, answered: Mapping[tuple[str, int], int], *, delay_seconds: float
) -> Iterator[Batch]:
    """Everything that is due, in as few calls as possible.

    A period longer than a cycle is asked for only when a new one is complete. After an outage the minutes since then
    are asked for as well.

    Args:
        series: What is wanted; a query of several is asked once.
        now: Unix time.
        answered: Region and period -> the end of the last window that was answered in full.
        delay_seconds: How old a period must be.
    """
    wanted: dict[tuple[str, int], dict[Query, None]] = defaultdict(dict)
    for one in series:
        for query in one.queries:
            wanted[query.region, query.period_seconds][query] = None
    for (region, period), queries in wanted.items():
        end = window_end(now, period, delay_seconds)
        known = answered.get((region, period), end - period)
        if end <= known:
            continue
        outage = min(end - period - known, OUTAGE_SECONDS_MAX)
        start = end - max(-(-(LOOKBACK_SECONDS + outage) // period), 2) * period
        # A metric's statistics beside each other, so that hardly one is split between two calls and billed twice.
        ordered = sorted(queries, key=lambda query: (query.namespace, query.name, query.dimensions, query.statistic))
        for first in range(0, len(ordered), QUERIES_MAX):
            yield Batch(region, tuple(ordered[first : first + QUERIES_MAX]), start, end)


def window_end(now: float, period_seconds: int, delay_seconds: float) -> int:
    """The end of the newest period that is old enough."""
    return int((now - delay_seconds) // period_seconds) * period_seconds


# --- what is answered -------------------------------------------------------------------------------------------------


class Values:
    """The newest value of every planned series, from one cycle to the next."""

    def __init__(self) -> None:
        self._totals: dict[Key, _Total] = {}
        self._readings: dict[Key, Reading] = {}

    def keep(self, series: Sequence[Series]) -> None:
        """Forget all but these: what a resource that is gone had."""
        keys = {one.key for one in series}
        self._totals = {key: total for key, total in self._totals.items() if key in keys}
        self._readings = {key: reading for key, reading in self._readings.items() if key in keys}

    def take(self, series: Iterable[Series], answers: Mapping[Query, Answer]) -> None:
        """Take in the answers of a cycle.

        A series that misses an answer stays as it is, with its age. A gauge is as old as the newest period that all
        its addends have. A counter begins at 0 when it is first answered; when AWS answered it in full it is up to
        date even without points: nothing happened.
        """
        for one in series:
            found = [answers[query] for query in one.queries if query in answers]
            if len(found) < sum(1 for _ in one.queries):
                continue
            if isinstance(one.key.metric, Counter):
                end = min(answer.end for answer in found)
                total = self._totals.setdefault(one.key, _Total(end))
                total.add(_combined(one, answers, of_all=False), min(answer.start for answer in found))
                before = self._readings.get(one.key)
                at = end if before is None or all(answer.complete for answer in found) else before.at
                self._readings[one.key] = Reading(one.key, total.value, at)
            else:
                points = _combined(one, answers, of_all=True)
                if points:
                    begin = max(points)
                    self._readings[one.key] = Reading(one.key, points[begin], begin + _period(one))

    def __iter__(self) -> Iterator[Reading]:
        return iter(self._readings.values())


def _combined(series: Series, answers: Mapping[Query, Answer], *, of_all: bool) -> dict[int, float]:
    """The sum of a series' addends for each period, of those that all of them have, or that any has."""
    parts = [_scaled(addend, answers) for addend in series.addends]
    times = set.intersection(*map(set, parts)) if of_all else set().union(*parts)
    return {at: sum(part.get(at, 0.0) for part in parts) for at in times}


def _scaled(addend: Addend, answers: Mapping[Query, Answer]) -> dict[int, float]:
    points = answers[addend.query].points
    if addend.percent_rank:
        ranks = answers[addend.percent_rank].points
        points = {at: value * ranks[at] / 100 for at, value in points.items() if at in ranks}
    if addend.factor == 1:
        return points
    # In decimals: 29 % is 0.29 then, and not 0.28999999999999998.
    return {at: float(Decimal(str(value)) * addend.factor) for at, value in points.items()}


def _period(series: Series) -> int:
    return max(addend.query.period_seconds for addend in series.addends)


class _Total:
    """A counter out of periods that arrive late, in any order, often, or with a value that still changes.

    Each period counts once, with its newest value. The counter itself never falls: where AWS corrects a value
    downwards it stands still until the truth has caught up.
    """

    __slots__ = ("_known", "_old", "_since", "value")

    def __init__(self, since: int) -> None:
        self._since = since
        self._old = 0.0  # of periods that are asked for no more
        self._known: dict[int, float] = {}
        self.value = 0.0

    def add(self, points: Mapping[int, float], start: int) -> None:
        """Add points of a window that begins at `start`; later windows begin no earlier."""
        self._known |= {at: value for at, value in points.items() if at >= self._since}
        self.value = max(self.value, self._old + sum(self._known.values()))
        for at in [at for at in self._known if at < start]:
            self._old += self._known.pop(at)
