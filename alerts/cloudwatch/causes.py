"""Causes as alarms: a gauge of AWS beyond its limit for a while, each resource by itself, to the ticket's topic."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from alerts.cloudwatch import queries
from alerts.cloudwatch.burn import COMPONENT_TAG, MANAGED_BY, Place, described
from alerts.cloudwatch.model import MetricAlarm
from alerts.cloudwatch.sources import Judged, Total, judged
from alerts.links import cause_links
from slo.causes import Cause, Threshold
from slo.windows import Severity


def has_alarms(cause: Cause) -> bool:
    """Whether CloudWatch can judge it: a threshold on a gauge that AWS itself measures."""
    return isinstance(cause.condition, Threshold) and bool(cause.condition.gauge.metric.cloudwatch)


def cause_alarms(cause: Cause, place: Place) -> tuple[MetricAlarm, ...]:
    """The alarms of a cause, one for each of its series; none where CloudWatch cannot judge it.

    Raises:
        SloError: The settings do not say which resources there are.
    """
    condition = cause.condition
    if not isinstance(condition, Threshold) or not condition.gauge.metric.cloudwatch:
        return ()
    above = condition.above is not None
    limit = condition.above if condition.above is not None else condition.below
    assert limit is not None, "Threshold.problems() allows no threshold without a limit"
    return tuple(_alarms(cause, judged(condition.gauge, limit, place.settings, above=above), place))


def _alarms(cause: Cause, source: Judged, place: Place) -> Iterator[MetricAlarm]:
    stem = f"{place.settings.prefix}{cause.alert_name}"
    named = {_resource(gauge): gauge for gauge in source.gauges}
    for resource, gauge in named.items():
        read, threshold, comparison = queries.worst([gauge], source)
        periods = -(-cause.hold // timedelta(seconds=source.period_seconds))
        yield MetricAlarm(
            name=f"{stem}-{resource}",
            description=described(
                f"{cause.summary} ({resource})", cause_links(cause, place.links), cause.reason, f"Owner: {cause.owner}."
            ),
            queries=read,
            threshold=threshold,
            comparison=comparison,
            evaluation_periods=periods,
            datapoints_to_alarm=periods,
            actions=(place.topic(Severity.TICKET, source.region),),
            tags={**MANAGED_BY, COMPONENT_TAG: str(cause.component), "cause": cause.id, "owner": cause.owner},
            region=source.region,
        )


def _resource(gauge: Total) -> str:
    """What tells the series of a cause apart: AWS's name of the metric, and the values of its dimensions."""
    series = gauge[0].series
    return "-".join((series.name, *(value for _, value in series.dimensions)))
