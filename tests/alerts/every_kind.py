"""SLOs of every SLI kind and every option that an export carries; shared by the tests of Sloth and OpenSLO."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from slo import (
    Alert,
    CalendarMonth,
    Counter,
    Events,
    Freshness,
    Gauge,
    Histogram,
    Latency,
    Queries,
    RatioQuery,
    Recency,
    Rolling,
    Severity,
    Slo,
    TimeSlice,
)

REQUESTS = Counter("shop_requests_total", "Requests.", labels={"code": ("ok", "error", "4.x")})
DURATION = Histogram("shop_duration_seconds", "Duration.", labels={"code": ("ok", "error")}, buckets=(0.5, 1.0, 2.5))
BUSY = Gauge("shop_pool_busy_ratio", "Busy share.", labels={"pool": ("read", "write")})
DONE = Gauge("shop_done_timestamp_seconds", "Last done.", labels={"batch": ("a", "b")})
OLDEST = Gauge("shop_oldest_timestamp_seconds", "Oldest that waits.", labels={"queue": ("a", "b")})

EVENTS = Events(bad=REQUESTS.where(code=("error", "4.x")), all=REQUESTS.where())


def promise(name: str, **changes: Any) -> Slo:  # noqa: ANN401 - any field of any type
    """A promise of the shop."""
    values: dict[str, Any] = {
        "service": "shop",
        "name": name,
        "description": f"The {name} of the shop: it holds.",
        "objective": Decimal("99.9"),
        "sli": EVENTS,
        "owner": "shop-team",
    }
    return Slo(**{**values, **changes})


EVERY_KIND = (
    promise("events"),
    promise("latency", sli=Latency(DURATION.where(code="ok"), threshold_seconds=1.0), objective=Decimal("98.7")),
    promise("slice-above", sli=TimeSlice(BUSY.where(), bad_above=Decimal("0.9"))),
    promise("slice-below", sli=TimeSlice(BUSY.where(pool="read"), bad_below=Decimal("0.2"), slice_seconds=30)),
    promise("freshness", sli=Freshness(OLDEST.where(), age_max_seconds=300)),
    promise("recency", sli=Recency(DONE.where(), age_max_seconds=600)),
    promise(
        "queries",
        sli=Queries(
            bad='\n  sum by (pod) (rate(shop_requests_total{code=~"error|4.x"}[{{.window}}]))\n',
            all="sum by (pod) (rate(shop_requests_total[{{ .window }}]))",
        ),
    ),
    promise("ratio", sli=RatioQuery("avg(avg_over_time(shop_pool_busy_ratio[{{.window}}]))"), burn="ratio"),
)

EVERY_OPTION = (
    promise("silent", alerts=()),
    promise("ticket-only", alerts=(Alert(Severity.TICKET),)),
    promise(
        "Labelled_v1.2",
        objective=Decimal("99.999"),
        alert_name="ShopBurns",
        labels={"cluster": "eu-1", "tier": "1", "_private": "yes"},
        annotations={"summary": 'It\'s {{ $labels.sloth_slo }}: "burning"\n\tvery fast'},
        alerts=(
            Alert(Severity.PAGE, {"routing_key": "shop", "cluster": "all"}, {"call": "+49 30 1"}),
            Alert(Severity.TICKET, {"board": "SHOP"}),
        ),
    ),
)

OTHER_PERIODS = {
    "28d": promise("four-weeks", window=Rolling(days=28)),
    "7d": promise("week", window=Rolling(days=7)),
    "month": promise("month", window=CalendarMonth()),
}
