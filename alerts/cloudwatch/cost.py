"""What the alarms cost a month.

Prices: https://aws.amazon.com/cloudwatch/pricing/, us-east-1, first tier, in US dollars, without the free tier. They
differ by region and change: read the price list of your region before you promise anything.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal

from alerts.cloudwatch.model import Alarm, MetricAlarm, MetricStat
from slo import conventions as names

# Billed for each metric that an alarm reads, not for the alarm.
ALARM_METRIC_DOLLARS = Decimal("0.10")
HIGH_RESOLUTION_METRIC_DOLLARS = Decimal("0.30")
COMPOSITE_DOLLARS = Decimal("0.50")
CUSTOM_METRIC_DOLLARS = Decimal("0.30")
_HIGH_RESOLUTION_BELOW_SECONDS = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What some alarms cost.

    Attributes:
        alarm_metrics: Metrics that they read, as AWS counts them: one that is read by two alarms is two.
        composites: Composite alarms.
        custom_metrics: Metrics that exist only for them, as our processes publish them.
        dollars: A month.
    """

    alarm_metrics: int
    composites: int
    custom_metrics: int
    dollars: Decimal

    @property
    def text(self) -> str:
        """As a catalogue says it."""
        published = f", {self.custom_metrics} published metrics" if self.custom_metrics else ""
        return (
            f"${self.dollars:.2f} a month: {self.alarm_metrics} alarm metrics, {self.composites} composites{published}"
        )


def of_alarms(alarms: Iterable[Alarm]) -> Cost:
    """The cost of alarms; of those of one SLO, select by the tag `slo`."""
    found = list(alarms)
    metrics = [metric for alarm in found if isinstance(alarm, MetricAlarm) for metric in alarm.metrics]
    composites = sum(not isinstance(alarm, MetricAlarm) for alarm in found)
    custom = {
        (metric.name, tuple(metric.dimensions.items()))
        for metric in metrics
        if metric.namespace == names.EVENTS_NAMESPACE
    }
    dollars = sum(map(_price, metrics), composites * COMPOSITE_DOLLARS + len(custom) * CUSTOM_METRIC_DOLLARS)
    return Cost(alarm_metrics=len(metrics), composites=composites, custom_metrics=len(custom), dollars=dollars)


def of_slo(slo_id: str, alarms: Iterable[Alarm]) -> Cost:
    """The cost of one SLO's alarms; roll-ups of many SLOs are nobody's."""
    return of_alarms(alarm for alarm in alarms if alarm.tags.get("slo") == slo_id)


def _price(metric: MetricStat) -> Decimal:
    high = metric.period_seconds < _HIGH_RESOLUTION_BELOW_SECONDS
    return HIGH_RESOLUTION_METRIC_DOLLARS if high else ALARM_METRIC_DOLLARS
