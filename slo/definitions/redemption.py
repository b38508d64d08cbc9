"""What the redemption service promises to the guests who spend their points."""

from decimal import Decimal

from slo import Events, Freshness, Latency, Rolling, Slo
from slo.metrics import (
    BAD_OUTCOMES,
    GOOD_OUTCOMES,
    REDEEM_ROUTE,
    REDEMPTION_DEFERRED_OLDEST_ACCEPTED,
    REDEMPTION_REQUEST_DURATION,
    REDEMPTION_REQUESTS,
)

OWNER = "loyalty-sre"
MONTH = Rolling(days=30)

availability = Slo(
    service="redemption",
    name="availability",
    description="A guest who spends or looks up points gets an answer; a refusal for a good reason is an answer.",
    objective=Decimal("99.99"),
    window=MONTH,
    sli=Events(
        bad=REDEMPTION_REQUESTS.where(outcome=BAD_OUTCOMES),
        all=REDEMPTION_REQUESTS.where(),
    ),
    owner=OWNER,
    expected_events_per_second=Decimal(27),
)

# Only answers count: a request that failed is already a bad event of the availability, and failing fast is not speed.
_REDEMPTIONS_ANSWERED = REDEMPTION_REQUEST_DURATION.where(route=REDEEM_ROUTE, outcome=GOOD_OUTCOMES)

latency_fast = Slo(
    service="redemption",
    name="latency-fast",
    description="Spending points feels instant: 99 in 100 are done in a quarter of a second.",
    objective=Decimal(99),
    window=MONTH,
    sli=Latency(_REDEMPTIONS_ANSWERED, threshold_seconds=0.25),
    owner=OWNER,
    expected_events_per_second=Decimal(9),
)

latency_slow = Slo(
    service="redemption",
    name="latency-slow",
    description="Hardly anybody who spends points waits for more than a second.",
    objective=Decimal("99.9"),
    window=MONTH,
    sli=Latency(_REDEMPTIONS_ANSWERED, threshold_seconds=1.0),
    owner=OWNER,
    expected_events_per_second=Decimal(9),
)

settlement = Slo(
    service="redemption",
    name="settlement",
    description="A redemption that was accepted for later is settled within five minutes.",
    objective=Decimal("99.9"),
    window=MONTH,
    sli=Freshness(REDEMPTION_DEFERRED_OLDEST_ACCEPTED.where(), age_max_seconds=300),
    owner=OWNER,
)
