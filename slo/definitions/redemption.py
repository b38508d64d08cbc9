"""What the redemption service promises to the guests who spend their points."""

from datetime import timedelta
from decimal import Decimal

from slo import Alert, Events, Freshness, Latency, Recency, Rolling, Severity, Slo, TimeSlice
from slo.causes import Cause, Component, Query, Signal, Source, Threshold
from slo.metrics import (
    BAD_OUTCOMES,
    FOLLOW_UP_ROUTES,
    REDEEM_ROUTE,
    REDEMPTION_ADMISSION_LIMIT,
    REDEMPTION_CHAIN_SEALED,
    REDEMPTION_DATABASE_CONNECTIONS,
    REDEMPTION_DEFERRED_OLDEST_ACCEPTED,
    REDEMPTION_FALLBACK_ACTIVE,
    REDEMPTION_LEDGER_MISMATCHES,
    REDEMPTION_LEDGER_VERIFIED,
    REDEMPTION_METRICS,
    REDEMPTION_REQUEST_DURATION,
    REDEMPTION_REQUESTS,
    REDEMPTION_REQUESTS_IN_FLIGHT,
    REDEMPTION_WORKER_METRICS,
)

OWNER = "loyalty-sre"
MONTH = Rolling(days=30)

sources = (
    Source(component=Component.SERVICE, process="service", metrics=REDEMPTION_METRICS),
    Source(component=Component.SERVICE, process="worker", metrics=REDEMPTION_WORKER_METRICS),
)

# --- promises -------------------------------------------------------------------------------------------------------

# `deferred` is good: the guest has our word, and `settlement` watches that it is kept. `limited` is good: the client
# asked for more than it agreed to. `shed` is bad: whoever is turned away had every right to ask.
availability = Slo(
    service="redemption",
    name="availability",
    component=Component.SERVICE,
    signals=(Signal.ERRORS,),
    reason=(
        "99.99 % is 4 minutes of outage a month: a guest whose points are refused at the desk of a hotel does "
        "not come back."
    ),
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
    component=Component.SERVICE,
    signals=(Signal.ERRORS,),
    reason="As for the redemption itself: whoever was promised points must get them booked, or get them back.",
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
    component=Component.SERVICE,
    signals=(Signal.LATENCY,),
    reason=(
        "A quarter of a second still feels instant to who waits (limits of attention: 0.1 s and 1 s, J. Nielsen 1993)."
    ),
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
    component=Component.SERVICE,
    signals=(Signal.LATENCY,),
    reason="After a second people notice that they wait, and press again (J. Nielsen, Usability Engineering, 1993).",
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
    component=Component.SERVICE,
    signals=(Signal.LATENCY,),
    reason=(
        "What was accepted is told to the guest as done; five minutes are less than the way from the desk to the room."
    ),
    description="A redemption that was accepted for later is settled within five minutes.",
    objective=Decimal("99.9"),
    window=MONTH,
    sli=Freshness(REDEMPTION_DEFERRED_OLDEST_ACCEPTED.where(), age_max_seconds=300),
    owner=OWNER,
)

integrity = Slo(
    service="redemption",
    name="integrity",
    component=Component.SERVICE,
    signals=(Signal.ERRORS,),
    reason="No wrong point is acceptable: 0.001 % of 43,200 slices is less than one.",
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
    component=Component.SERVICE,
    signals=(Signal.ERRORS,),
    reason="Half an hour is well within the day after which books are closed; one in a hundred slices may be late.",
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
    component=Component.SERVICE,
    signals=(Signal.ERRORS,),
    reason="Ten minutes are the longest time in which a change of a row would leave no trace.",
    description="What was booked cannot be changed unseen: within ten minutes it is sealed into the hash chain.",
    objective=Decimal(99),
    window=MONTH,
    sli=Recency(REDEMPTION_CHAIN_SEALED.where(), age_max_seconds=600),
    owner=OWNER,
    alerts=(Alert(Severity.TICKET),),
)

# --- causes ---------------------------------------------------------------------------------------------------------

MINUTE = timedelta(minutes=1)

_PODS = "kubectl get pods -l app.kubernetes.io/name=redemption -o wide  # are they all there?"
_SLOWEST = (
    'psql "$LEDGER_URL" --command "select pid, state, wait_event, now() - query_start as runs, left(query, 60)'
    ' from pg_stat_activity order by 4 desc limit 10"  # what the ledger works on'
)

causes = (
    Cause(
        component=Component.SERVICE,
        signal=Signal.TRAFFIC,
        name="no-redemptions",
        summary="Nobody has redeemed points for a quarter of an hour.",
        condition=Query(
            promql='sum(rate(redemption_requests_total{route="POST /v1/redemptions"}[15m])) == 0',
            metrics=(REDEMPTION_REQUESTS,),
            fires={'redemption_requests_total{outcome="ok", route="POST /v1/redemptions"}': "5"},
            near_miss={'redemption_requests_total{outcome="refused", route="POST /v1/redemptions"}': "0+1"},
        ),
        hold=15 * MINUTE,
        reason=(
            "9 a second are expected. At a hundredth of that 81 come in a quarter of an hour, "
            "so none by chance has a probability of e^-81."
        ),
        owner=OWNER,
        service="redemption",
        diagnosis=(
            _PODS,
            'curl --fail --silent --show-error "$REDEMPTION_URL/healthz"  # does it answer from outside?',
        ),
        mitigation=(
            "Follow the way of a request from outside: DNS, WAF, load balancer, pods; the edge's board shows each."
        ),
    ),
    Cause(
        component=Component.SERVICE,
        signal=Signal.ERRORS,
        name="fallback-active",
        summary="Redemptions go to the queue, as the ledger does not answer.",
        condition=Threshold(gauge=REDEMPTION_FALLBACK_ACTIVE.where(), above=Decimal(0)),
        hold=5 * MINUTE,
        reason=(
            "A failover of the database takes one or two minutes and is what the queue is for; after five "
            "the first guests "
            "wait longer than the settlement promises."
        ),
        owner=OWNER,
        service="redemption",
        diagnosis=(_SLOWEST, _PODS),
        mitigation="Look at the database. Guests are served meanwhile; their points move once it is back.",
    ),
    Cause(
        component=Component.SERVICE,
        signal=Signal.SATURATION,
        name="connections-busy",
        summary="Nearly all connections of a pod to the database are busy.",
        condition=Query(
            promql=(
                'sum without (state) (redemption_database_connections{state="busy"})\n'
                "/ sum without (state) (redemption_database_connections) > 0.9"
            ),
            metrics=(REDEMPTION_DATABASE_CONNECTIONS,),
            fires={
                'redemption_database_connections{state="busy"}': "19",
                'redemption_database_connections{state="idle"}': "1",
            },
            near_miss={
                'redemption_database_connections{state="busy"}': "17",
                'redemption_database_connections{state="idle"}': "3",
            },
        ),
        hold=10 * MINUTE,
        reason=(
            "Above nine in ten a request that comes waits for another to end, and the wait grows without bound "
            "(an M/M/c queue); in ten minutes the autoscaler has added pods if the load is what it measures."
        ),
        owner=OWNER,
        service="redemption",
        diagnosis=(_SLOWEST, _PODS),
        mitigation="End what holds the connections; add pods only if the database has room for their connections.",
    ),
    Cause(
        component=Component.SERVICE,
        signal=Signal.SATURATION,
        name="admission-full",
        summary="A pod works on nearly as many requests as it admits.",
        condition=Query(
            promql="redemption_requests_in_flight / redemption_admission_limit > 0.9",
            metrics=(REDEMPTION_REQUESTS_IN_FLIGHT, REDEMPTION_ADMISSION_LIMIT),
            fires={"redemption_requests_in_flight": "95", "redemption_admission_limit": "100"},
            near_miss={"redemption_requests_in_flight": "85", "redemption_admission_limit": "100"},
        ),
        hold=10 * MINUTE,
        reason=(
            "At the limit it sheds, least important first, and what it sheds is a bad event of the availability; "
            "ten minutes are enough for the autoscaler to add pods."
        ),
        owner=OWNER,
        service="redemption",
        diagnosis=(_PODS, _SLOWEST),
        mitigation="Add pods, if the database has room; look whether one client sends most of it.",
    ),
)
