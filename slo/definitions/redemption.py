"""What the redemption service promises to the guests who spend their points."""

from decimal import Decimal

from slo import Alert, Events, Freshness, Latency, Recency, Rolling, Severity, Slo, TimeSlice
from slo.metrics import (
    BAD_OUTCOMES,
    FOLLOW_UP_ROUTES,
    REDEEM_ROUTE,
    REDEMPTION_CHAIN_SEALED,
    REDEMPTION_DEFERRED_OLDEST_ACCEPTED,
    REDEMPTION_LEDGER_MISMATCHES,
    REDEMPTION_LEDGER_VERIFIED,
    REDEMPTION_REQUEST_DURATION,
    REDEMPTION_REQUESTS,
)

OWNER = "loyalty-sre"
MONTH = Rolling(days=30)

# `deferred` is good: the guest has our word, and `settlement` watches that it is kept. `limited` is good: the client
# asked for more than it agreed to. `shed` is bad: whoever is turned away had every right to ask.
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

capture_and_refund = Slo(
    service="redemption",
    name="capture-and-refund",
    description="What follows on promised points works: the stay is charged, the hold released, the points given back.",
    objective=Decimal("99.99"),
    window=MONTH,
    # A promise of its own, as these are so few that among all requests nobody would see them fail.
    sli=Events(
        bad=REDEMPTION_REQUESTS.where(route=FOLLOW_UP_ROUTES, outcome=BAD_OUTCOMES),
        all=REDEMPTION_REQUESTS.where(route=FOLLOW_UP_ROUTES),
    ),
    owner=OWNER,
    expected_events_per_second=Decimal(1),
)

# Only what went the way of a redemption counts. A request that failed is already a bad event of the availability, and
# failing fast is not speed. Nor is turning away at the door: one client that sends beyond its rate (`limited`), or
# nonsense (`invalid`), would hide the slow answers of all others behind its thousands of quick ones. Who gets a
# `deferred` has waited just the same.
_REDEMPTIONS_ANSWERED = REDEMPTION_REQUEST_DURATION.where(route=REDEEM_ROUTE, outcome=("ok", "deferred", "refused"))

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

integrity = Slo(
    service="redemption",
    name="integrity",
    description="No point is lost, doubled or made from nothing: whenever the ledger is checked, it adds up.",
    # Zero tolerance. 30 days have 43,200 slices of a minute and 0.001 % of them are 0.43, so one bad slice breaks the
    # promise. It pages by itself: 1 of the 5 slices of the short window is 0.2 of it, and 1 of the 60 of the long one
    # 0.017, both far above 14.4 x 0.00001; and the minimum is one bad event. A slice ends within 60 s of the scrape
    # that brings the mismatch, and the rules run every 30 s, so the page fires within 90 s.
    objective=Decimal("99.999"),
    window=MONTH,
    sli=TimeSlice(REDEMPTION_LEDGER_MISMATCHES.where(), bad_above=Decimal(0)),
    owner=OWNER,
    # There is no slow burn of this: no ticket.
    alerts=(Alert(Severity.PAGE),),
    budget_bad_events_min=1,
    links={"What each check means, and what to do": "https://runbooks.example.com/docs/ledger-mismatch.md"},
)

# That nobody looks harms no guest yet, so it can wait for working hours; a ticket comes after about three quarters of
# an hour of it (1 % of three days). Never is late as well.
verification = Slo(
    service="redemption",
    name="verification",
    description="We find a mistake in the ledger before a guest does: all of it is checked every half hour.",
    objective=Decimal(99),
    window=MONTH,
    sli=Recency(REDEMPTION_LEDGER_VERIFIED.where(), age_max_seconds=1800),
    owner=OWNER,
    alerts=(Alert(Severity.TICKET),),
)

sealing = Slo(
    service="redemption",
    name="sealing",
    description="What was booked cannot be changed unseen: within ten minutes it is sealed into the hash chain.",
    objective=Decimal(99),
    window=MONTH,
    sli=Recency(REDEMPTION_CHAIN_SEALED.where(), age_max_seconds=600),
    owner=OWNER,
    alerts=(Alert(Severity.TICKET),),
)
