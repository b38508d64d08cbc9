"""What a scrape is told: the last snapshot of every unit, and how each of them is. Nobody is asked during a scrape."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain

import prometheus_client
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric as Family

from exporters.calls import Clock, Reason
from exporters.readings import Key, Reading, label_names
from exporters.unit import Unit
from slo.metrics import Counter, Metric
from slo.metrics.exporters import (
    EXPORTERS_API_CALLS,
    EXPORTERS_API_ERRORS,
    EXPORTERS_CYCLE_DURATION,
    EXPORTERS_DATA_AGE,
    EXPORTERS_LAST_SUCCESS,
    EXPORTERS_METRICS,
    EXPORTERS_METRICS_REQUESTED,
    EXPORTERS_SERIES,
    EXPORTERS_UP,
)


class Snapshots:
    """A collector for prometheus_client.

    Args:
        units: Whose last snapshots are served.
        clock: Tells how old they are.
        max_staleness_seconds: A series older than this vanishes.
    """

    def __init__(self, units: Sequence[Unit], clock: Clock, *, max_staleness_seconds: float) -> None:
        self._units = units
        self._clock = clock
        self._max_staleness_seconds = max_staleness_seconds
        self._metrics = (*{metric: None for unit in units for metric in unit.source.metrics}, *EXPORTERS_METRICS)

    def describe(self) -> list[Family]:
        """Every family, without series; prometheus_client would collect at registration else."""
        return [_family(metric) for metric in self._metrics]

    def collect(self) -> Iterator[Family]:
        """Every series that is not too old, as new metrics."""
        now = self._clock.now()
        oldest = now - self._max_staleness_seconds
        found: dict[Metric, list[Reading]] = defaultdict(list)
        for unit in self._units:
            status = unit.status
            served = {
                metric: [reading for reading in readings if reading.at >= oldest]
                for metric, readings in status.readings.items()
            }
            for metric, readings in chain(served.items(), _of(unit, served, now)):
                found[metric].extend(readings)
        for metric in self._metrics:
            if found[metric]:
                family = _family(metric)
                for reading in found[metric]:
                    family.add_metric(reading.key.values, reading.value)
                yield family


def registry(snapshots: Snapshots) -> prometheus_client.CollectorRegistry:
    """A registry that has nothing else."""
    made = prometheus_client.CollectorRegistry()
    made.register(snapshots)
    return made


def _family(metric: Metric) -> GaugeMetricFamily | CounterMetricFamily:
    kind = CounterMetricFamily if isinstance(metric, Counter) else GaugeMetricFamily
    return kind(metric.name, _help(metric), labels=label_names(metric))


def _help(metric: Metric) -> str:
    """The metric's help; where it is AWS's own, with AWS's names, and that it is not of this moment."""
    names = sorted({f"{address.namespace} {address.name}" for address in metric.cloudwatch})
    return f"{metric.help} From CloudWatch, minutes old: {', '.join(names)}." if names else metric.help


def _of(
    unit: Unit, served: Mapping[Metric, Sequence[Reading]], now: float
) -> Iterator[tuple[Metric, Iterable[Reading]]]:
    """What a unit says of itself."""
    status, tally = unit.status, unit.calls.tally

    def one(metric: Metric, value: float, **labels: str) -> Reading:
        return Reading(Key.of(metric, **unit.name, **labels), value, now)

    yield EXPORTERS_UP, [one(EXPORTERS_UP, float(status.up))]
    yield EXPORTERS_LAST_SUCCESS, [one(EXPORTERS_LAST_SUCCESS, status.last_success)]
    newest = _newest(served)
    if newest is not None:
        yield EXPORTERS_DATA_AGE, [one(EXPORTERS_DATA_AGE, now - newest)]
    yield EXPORTERS_CYCLE_DURATION, [one(EXPORTERS_CYCLE_DURATION, status.duration_seconds)]
    yield EXPORTERS_SERIES, [one(EXPORTERS_SERIES, float(sum(map(len, served.values()))))]
    yield EXPORTERS_METRICS_REQUESTED, [one(EXPORTERS_METRICS_REQUESTED, float(tally.metrics))]
    counts, errors = dict(tally.calls), dict(tally.errors)  # copies: the unit counts on meanwhile
    yield EXPORTERS_API_CALLS, [one(EXPORTERS_API_CALLS, float(n), call=call) for call, n in sorted(counts.items())]
    calls = sorted(counts.keys() | {call for call, _ in errors})
    yield (
        EXPORTERS_API_ERRORS,
        [
            one(EXPORTERS_API_ERRORS, float(errors.get((call, reason), 0)), call=call, reason=reason)
            for call in calls
            for reason in Reason
        ],
    )


def _newest(served: Mapping[Metric, Sequence[Reading]]) -> float | None:
    """The time of the newest point; where there are AWS's own metrics, of those, as facts are always new."""
    of_aws = {metric: readings for metric, readings in served.items() if metric.cloudwatch}
    return max((reading.at for readings in (of_aws or served).values() for reading in readings), default=None)
