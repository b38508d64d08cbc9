"""Service level objectives as Python values: what we promise, and what that means.

A definition is written with these names and nothing else::

    from decimal import Decimal
    from slo import Counter, Events, Slo

    REQUESTS = Counter("shop_requests_total", "Requests.", labels={"code": ("ok", "error")})

    availability = Slo(
        service="shop",
        name="availability",
        description="Shoppers get an answer.",
        objective=Decimal("99.9"),
        sli=Events(bad=REQUESTS.where(code="error"), all=REQUESTS.where()),
        owner="shop-team",
    )

Invalid values raise `SloError` where they are written. `compile_slo` turns a value into the names, thresholds and
expressions that every renderer reads. This package uses the standard library only.
"""

from slo.artefacts import Artefact
from slo.compile import CompiledSlo, compile_slo
from slo.errors import SloError
from slo.metrics import Counter, Gauge, Histogram, Metric, Selection
from slo.model import (
    Alert,
    Events,
    Freshness,
    Latency,
    Queries,
    RatioQuery,
    Recency,
    Severity,
    Sli,
    Slo,
    TimeSlice,
)
from slo.windows import CalendarMonth, Rolling, Window

__all__ = [
    "Alert",
    "Artefact",
    "CalendarMonth",
    "CompiledSlo",
    "Counter",
    "Events",
    "Freshness",
    "Gauge",
    "Histogram",
    "Latency",
    "Metric",
    "Queries",
    "RatioQuery",
    "Recency",
    "Rolling",
    "Selection",
    "Severity",
    "Sli",
    "Slo",
    "SloError",
    "TimeSlice",
    "Window",
    "compile_slo",
]
