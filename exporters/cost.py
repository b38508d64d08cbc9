"""What GetMetricData will cost in a month, from what is planned and what AWS asks for it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from exporters.cloudwatch import Series, batches
from exporters.settings import Prices

MONTH_SECONDS: Final = 30 * 24 * 3600


@dataclass(frozen=True, slots=True)
class Cost:
    """Of some series.

    Attributes:
        series: How many.
        queries: Statistics that are asked for in a cycle in which all of them are due.
        calls: Calls that take them.
        metrics: What AWS bills for in such a cycle.
        metrics_a_month: What AWS bills for in 30 days.
        usd_a_month: The price of that.
    """

    series: int
    queries: int
    calls: int
    metrics: int
    metrics_a_month: int
    usd_a_month: Decimal

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.series + other.series,
            self.queries + other.queries,
            self.calls + other.calls,
            self.metrics + other.metrics,
            self.metrics_a_month + other.metrics_a_month,
            self.usd_a_month + other.usd_a_month,
        )


NOTHING: Final = Cost(0, 0, 0, 0, 0, Decimal(0))


def estimate(series: Iterable[Series], prices: Prices, *, period_seconds: int) -> Cost:
    """The cost of series that are asked for once a period; those with a longer period of their own, once in that."""
    planned = tuple(series)
    # At the end of the longest period everything is due.
    whole = list(batches(planned, 0.0, {}, delay_seconds=0.0))
    a_month = sum(one.billed * (MONTH_SECONDS // max(one.queries[0].period_seconds, period_seconds)) for one in whole)
    return Cost(
        series=len(planned),
        queries=sum(len(one.queries) for one in whole),
        calls=len(whole),
        metrics=sum(one.billed for one in whole),
        metrics_a_month=a_month,
        usd_a_month=a_month * prices.get_metric_data_usd / 1000,
    )
