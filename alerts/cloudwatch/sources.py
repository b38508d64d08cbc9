"""Where CloudWatch has the events of an SLO, or the series that a cause judges.

A process publishes the events of its own SLOs, two metrics each: `slo.conventions.event_dimensions`. What AWS measures
itself stands in the catalogue of metrics, as a sum of AWS's metrics for each set of labels.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import product
from typing import TypeAlias

from slo import conventions as names
from slo.cloudwatch import CloudWatchSettings
from slo.errors import SloError
from slo.metrics import CloudWatch, Selection
from slo.model import Events, Latency, Slo, TimeSlice

_MINUTE_SECONDS = 60  # the shortest period that AWS's own metrics have
_COUNTED = ("Sum", "SampleCount")  # the statistics that count: over an hour they are the sum of sixty minutes
_REGION_DIMENSION = "Region"


@dataclass(frozen=True, slots=True)
class Series:
    """One metric of one resource, and how it is read."""

    namespace: str
    name: str
    dimensions: tuple[tuple[str, str], ...]
    statistic: str


@dataclass(frozen=True, slots=True)
class Term:
    """A series times a number; with a percent rank, times the percent that this statistic of it gives."""

    coefficient: Decimal
    series: Series
    percent_rank: str | None = None


Total: TypeAlias = tuple[Term, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """Bad events among all.

    Attributes:
        bad: Bad events.
        all: All events.
        region: Which region has the metrics.
        published: By our own process, each minute, so that silence means that it is gone.
        of_people: An event is somebody's request; else a stretch of time.
    """

    bad: Total
    all: Total
    region: str
    published: bool
    of_people: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """Gauges that must keep to a limit.

    Attributes:
        gauges: Each by itself.
        limit: The limit.
        above: Beyond means above it; else below.
        period_seconds: How often it is judged.
        region: Which region has the metrics.
    """

    gauges: tuple[Total, ...]
    limit: Decimal
    above: bool
    period_seconds: int
    region: str


Source: TypeAlias = Counted | Judged


def source_of(slo: Slo, settings: CloudWatchSettings) -> Source | None:
    """Where CloudWatch has the events of an SLO; None when it has them nowhere.

    Raises:
        SloError: The settings do not say which resources the SLO is about, or its metrics are no counts.
    """
    sli = slo.sli
    if {slo.service, slo.id} & set(settings.services):
        return _published(slo, settings)
    if isinstance(sli, Events) and sli.all.metric.cloudwatch:
        bad, every = ([*_addresses(of)] for of in (sli.bad, sli.all))
        faults = [
            f"{a.namespace} {a.name} has the statistic {a.statistic}; a count needs Sum or SampleCount"
            for a in every
            if a.statistic not in _COUNTED
        ]
        if faults:
            raise SloError(f"SLO {slo.id_path}", faults)
        return Counted(
            bad=_total(bad, settings),
            all=_total(every, settings),
            region=_region(every, settings),
            published=False,
            of_people=True,
        )
    if isinstance(sli, TimeSlice) and sli.gauge.metric.cloudwatch:
        limit, above = (sli.bad_above, True) if sli.bad_above is not None else (sli.bad_below, False)
        assert limit is not None, "TimeSlice.problems() allows no slice without a limit"
        return judged(sli.gauge, limit, settings, above=above, slice_seconds=sli.slice_seconds)
    return None


def judged(
    gauge: Selection,
    limit: Decimal,
    settings: CloudWatchSettings,
    *,
    above: bool,
    slice_seconds: int = _MINUTE_SECONDS,
) -> Judged:
    """The series of a gauge, each with its resource.

    Raises:
        SloError: The settings do not say which resources there are.
    """
    addresses = list(_addresses(gauge))
    return Judged(
        gauges=tuple(_gauges(addresses, settings)),
        limit=limit,
        above=above,
        period_seconds=max(_MINUTE_SECONDS, slice_seconds, *(address.period_seconds for address in addresses)),
        region=_region(addresses, settings),
    )


def _published(slo: Slo, settings: CloudWatchSettings) -> Counted:
    dimensions = tuple(names.event_dimensions(slo).items())

    def total(metric: str) -> Total:
        return (Term(Decimal(1), Series(names.EVENTS_NAMESPACE, metric, dimensions, "Sum")),)

    return Counted(
        bad=total(names.BAD_EVENTS_METRIC),
        all=total(names.ALL_EVENTS_METRIC),
        region=settings.region,
        published=True,
        of_people=isinstance(slo.sli, Events | Latency),
    )


def _addresses(selection: Selection) -> Iterator[CloudWatch]:
    """The addresses of the series that a selection takes."""
    for address in selection.metric.cloudwatch:
        if all(address.labels[label] in values for label, values in selection.values.items()):
            yield address


def _total(addresses: Iterable[CloudWatch], settings: CloudWatchSettings) -> Total:
    """The sum over all addresses and resources; what is added and taken away again is gone."""
    coefficients: defaultdict[tuple[Series, str | None], Decimal] = defaultdict(Decimal)
    for address in addresses:
        for dimensions in _resources(address, settings):
            coefficients[_series(address, dimensions), address.percent_rank] += address.factor
    return tuple(Term(factor, series, rank) for (series, rank), factor in coefficients.items() if factor)


def _gauges(addresses: Sequence[CloudWatch], settings: CloudWatchSettings) -> Iterator[Total]:
    """The sum for each set of labels and resource."""
    by_labels: defaultdict[tuple[tuple[str, str], ...], list[CloudWatch]] = defaultdict(list)
    for address in addresses:
        by_labels[tuple(address.labels.items())].append(address)
    for parts in by_labels.values():
        for dimensions in _resources(parts[0], settings):
            yield tuple(Term(part.factor, _series(part, dimensions), part.percent_rank) for part in parts)


def _series(address: CloudWatch, dimensions: tuple[tuple[str, str], ...]) -> Series:
    return Series(address.namespace, address.name, dimensions, address.statistic)


def _resources(address: CloudWatch, settings: CloudWatchSettings) -> Iterator[tuple[tuple[str, str], ...]]:
    """The dimensions of each resource."""
    of_each = [[(name, value) for value in _values(name, address, settings)] for name in address.dimensions]
    yield from product(*of_each)


def _values(dimension: str, address: CloudWatch, settings: CloudWatchSettings) -> Sequence[str]:
    keys = [f"{dimension}.{value}" for value in address.labels.values()]
    for key in (*keys, dimension):
        if key in settings.dimensions:
            return settings.dimensions[key]
    if dimension == _REGION_DIMENSION:
        return [settings.region]
    wanted = " or ".join((dimension, *keys))
    raise SloError("[tool.slo.cloudwatch.dimensions]", [f"{address.namespace} {address.name} needs {wanted}"])


def _region(addresses: Sequence[CloudWatch], settings: CloudWatchSettings) -> str:
    regions = {address.region or settings.region for address in addresses}
    if len(regions) > 1:
        metrics = ", ".join(f"{address.namespace} {address.name}" for address in addresses)
        raise SloError(
            "CloudWatch", [f"no alarm reads metrics of several regions ({', '.join(sorted(regions))}): {metrics}"]
        )
    return regions.pop()
