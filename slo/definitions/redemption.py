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
from slo.runbook import Runbook, Step

OWNER = "loyalty-sre"
MONTH = Rolling(days=30)

sources = (
    Source(component=Component.SERVICE, process="service", metrics=REDEMPTION_METRICS),
    Source(component=Component.SERVICE, process="worker", metrics=REDEMPTION_WORKER_METRICS),
)

_PODS = "kubectl get pods -l app.kubernetes.io/name=redemption -o wide  # are they all there?"
_SLOWEST = (
    'psql "$LEDGER_URL" --command "select pid, state, wait_event, now() - query_start as runs, left(query, 60)'
    ' from pg_stat_activity order by 4 desc limit 10"  # what the ledger works on'
)

_ROLLOUT = "kubectl rollout history deployment/redemption  # was something released just before?"
_WORKERS = "kubectl get pods -l app.kubernetes.io/component=worker -o wide  # are there workers, and do they restart?"
_WORKER_LOG = "kubectl logs -l app.kubernetes.io/component=worker --since 30m --tail 200  # what they say of themselves"
_LOCKS = (
    'psql "$LEDGER_URL" --command "select pid, pg_blocking_pids(pid) as waits_for, now() - xact_start as open,'
    ' left(query, 60) from pg_stat_activity where cardinality(pg_blocking_pids(pid)) > 0"  # who holds up whom'
)
_UNDO_RELEASE = Step(
    "`kubectl rollout undo deployment/redemption`",
    "a release was made in the hour before the first bad event",
    "its fixes go too; every schema fits the release before it, so the database needs nothing",
)
_UNDO_WORKER = Step(
    "`kubectl rollout undo deployment/redemption-worker`",
    "a release was made just before",
    "its fixes go too",
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
    runbook=Runbook(
        impact=(
            "Guests at a desk or in the app get an error, or none at all, instead of their points or their balance. "
            "A redemption that ends in a timeout may have been booked all the same: whoever repeats it with the same "
            "key gets the first answer, and points never move twice."
        ),
        diagnosis=(_PODS, _ROLLOUT, _SLOWEST, _LOCKS),
        mitigation=(
            _UNDO_RELEASE,
            Step(
                "Let it shed, and add pods: `kubectl scale deployment/redemption --replicas N`",
                '`outcome="shed"` leads, and the database has free connections and processor',
                "each pod brings connections; with a busy database more pods make it worse",
            ),
            Step(
                "End the session that holds the others up: `select pg_terminate_backend(PID)`",
                '`outcome="timeout"` leads, and one session blocks many',
                "its transaction is undone; never end one of a migration without its author",
            ),
            Step(
                "Fail the database over: `aws rds reboot-db-instance --force-failover --db-instance-identifier NAME`",
                "the database does not answer at all, and RDS has not begun by itself after two minutes",
                "one or two minutes in which redemptions go to the queue",
            ),
        ),
        escalation=(
            "Not better 15 minutes after your first step: call the database's on-call as well. Tell the hotels' "
            "service desk at once when guests are turned away; they hand out points by hand, and must write down whom."
        ),
    ),
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
    runbook=Runbook(
        impact=(
            "Guests see points that stay set aside: a stay is not charged, a cancelled one is not given back. "
            "Partners' "
            "bookings fail at their last step. Nothing is lost: a hold ends by itself, and every call can be repeated "
            "with its key."
        ),
        diagnosis=(_PODS, _ROLLOUT, _LOCKS, _SLOWEST),
        mitigation=(
            _UNDO_RELEASE,
            Step(
                "Ask the partner to pause their batch, and to repeat it later with the same keys",
                "one `client` in the logs has most of the failures",
                "their settlement comes later; nothing is booked twice",
            ),
            Step(
                "Treat it as `RedemptionAvailabilityPage`",
                "redemptions fail as well",
                "none: these calls are the last that are shed, so all else fails before them",
            ),
        ),
        escalation=(
            "Call partner support when captures of one partner fail for more than half an hour: holds end after the "
            "time that the partner asked for, and then the guest's points are free although the stay was promised."
        ),
    ),
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
    runbook=Runbook(
        impact=(
            "Spending points feels slow. Guests wait, some press again; the second press is answered like the "
            "first, so "
            "no points move twice, but it is more load."
        ),
        diagnosis=(_SLOWEST, _LOCKS, _PODS, _ROLLOUT),
        mitigation=(
            _UNDO_RELEASE,
            Step(
                "End the query that takes the database's time: `select pg_cancel_backend(PID)`",
                "one statement that is not the ledger's runs for seconds, a report say",
                "whoever runs it must ask again, of the reader",
            ),
            Step(
                "Add pods: `kubectl scale deployment/redemption --replicas N`",
                "all pods are busy, and the database is not",
                "more connections to the database",
            ),
        ),
        escalation=(
            "Call the database's on-call when the slow part is in the database and no query of ours stands out. Slow "
            "alone is no reason to wake the hotels."
        ),
    ),
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
    runbook=Runbook(
        impact=(
            "Some guests wait for more than a second at the desk. Beyond two seconds they are told that their points "
            "are accepted and settled soon, so the queue grows."
        ),
        diagnosis=(_LOCKS, _SLOWEST, _PODS, _ROLLOUT),
        mitigation=(
            _UNDO_RELEASE,
            Step(
                "End the session that holds the others up: `select pg_terminate_backend(PID)`",
                "one session blocks many, or has been `idle in transaction` for minutes",
                "its transaction is undone; never end one of a migration without its author",
            ),
            Step(
                "Ask the client to spread its calls",
                "one account or one partner is in most of the slow traces: calls on one account go one by one",
                "the partner is slower meanwhile",
            ),
        ),
        escalation=(
            "Call the database's on-call when waits are for the disk or for a standby (`wait_event` says which)."
        ),
    ),
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
    runbook=Runbook(
        impact=(
            "Guests were told that their points are on the way, and they are not: balances look too high, and whoever "
            "asks the desk is told to wait. What is not settled in time is refused in the end, after the guest "
            "has left."
        ),
        diagnosis=(
            _WORKERS,
            _WORKER_LOG,
            (
                'aws sqs get-queue-attributes --queue-url "$QUEUE_URL" --attribute-names All  # how many wait, are '
                "in flight"
            ),
            _LOCKS,
        ),
        mitigation=(
            _UNDO_WORKER,
            Step(
                "Add workers: `kubectl scale deployment/redemption-worker --replicas N`",
                "the ledger answers, and the queue shrinks too slowly or grows",
                "more load on the ledger; guests at the desk come first, so stop when their latency moves",
            ),
            Step(
                "Mend the ledger first, and leave the queue alone",
                "the ledger does not answer: then no worker can settle anything",
                "none: messages are kept for days",
            ),
            Step(
                "`redemption-service redrive`",
                "there are dead letters, and what killed them is mended",
                "settling twice settles once, so none",
            ),
        ),
        escalation=(
            "Tell guest support when the oldest has waited for more than 15 minutes: they will be asked. Call the "
            "owner before `REDEMPTION_DEFERRED_SECONDS` have passed for the oldest, as then refusals begin."
        ),
    ),
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
    runbook=Runbook(
        impact=(
            "Somebody's points are wrong: lost, doubled or made from nothing. Guests notice nothing yet, or a balance "
            "that they do not recognise. Every further minute may make it more, and wrong points that are spent "
            "are gone."
        ),
        diagnosis=(
            (
                'REDEMPTION_DATABASE_URL="$READER_URL" redemption-service verify --all --json  # which rows, by '
                "which check"
            ),
            _WORKER_LOG,
            _ROLLOUT,
            (
                'psql "$LEDGER_URL" --command "select number, name from ledger.migrations order by 1 desc limit 5"  '
                "# the last ones"
            ),
        ),
        mitigation=(
            Step(
                "Snapshot: `aws rds create-db-snapshot --db-instance-identifier NAME --db-snapshot-identifier NAME`",
                "always, and before anything is changed",
                "none; a restart of the worker instead would end the alert, and the fault would stay",
            ),
            Step(
                "`kubectl rollout undo deployment/redemption deployment/redemption-worker`",
                "the number grows, and a release or a migration was made since it was 0",
                "its fixes go too; the undone release may be the evidence, so note its image first",
            ),
            Step(
                "Take the service out of traffic: `kubectl scale deployment/redemption --replicas 0`",
                "the number grows, and there is no release to undo",
                "a whole outage, which pages by itself; it is over when it ends, wrong points that are spent are not",
            ),
        ),
        escalation=(
            "Call the owner at once, whatever the hour; with the check `chain` call security as well, as somebody has "
            "changed history. Corrections are new postings by two people: none by you alone."
        ),
    ),
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
    runbook=Runbook(
        impact=(
            "Guests notice nothing. But nobody has looked whether their points add up, so a fault would be found by "
            "them before us."
        ),
        diagnosis=(_WORKERS, _WORKER_LOG, _SLOWEST),
        mitigation=(
            _UNDO_WORKER,
            Step(
                "`redemption-service verify --all` by hand, against a reader",
                "the worker cannot be mended soon",
                "it reads the whole ledger: never against the writer in the busy hours",
            ),
            Step(
                "Give the verification a reader of its own, or more time",
                "it begins, and is given up after an hour",
                "costs an instance",
            ),
        ),
        escalation=(
            "Working hours are soon enough, unless `RedemptionIntegrityPage` was seen in the last day: then call."
        ),
    ),
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
    runbook=Runbook(
        impact=(
            "Guests notice nothing. For as long as it lasts, whoever has the rights of an owner could change a booking "
            "and leave no trace, and an auditor will ask about that time."
        ),
        diagnosis=(_WORKERS, _WORKER_LOG, _LOCKS),
        mitigation=(
            _UNDO_WORKER,
            Step(
                "End the transaction that has been open longest: `select pg_terminate_backend(PID)`",
                "one has been open for more than ten minutes: rows are sealed only up to the oldest that still runs",
                "it is undone; look whose it is first, a backup's or a migration's must end by itself",
            ),
            Step(
                "Restart the worker: `kubectl rollout restart deployment/redemption-worker`",
                "it runs, its log is silent, and nothing is open",
                "a few seconds without settlement; the next worker begins where this one ended",
            ),
        ),
        escalation="Working hours. Note begin and end for the auditors; tell security when nobody can say why it was.",
    ),
)

# --- causes ---------------------------------------------------------------------------------------------------------

MINUTE = timedelta(minutes=1)


causes = (
    Cause(
        component=Component.SERVICE,
        signal=Signal.ERRORS,
        name="requests-invalid",
        summary="A fifth of all requests is answered as the caller's mistake.",
        condition=Query(
            promql=(
                'sum(rate(redemption_requests_total{outcome="invalid"}[10m]))\n'
                "> 0.2 * sum(rate(redemption_requests_total[10m]))"
            ),
            metrics=(REDEMPTION_REQUESTS,),
            fires={
                'redemption_requests_total{outcome="invalid", route="POST /v1/redemptions"}': "0+21",
                'redemption_requests_total{outcome="ok", route="POST /v1/redemptions"}': "0+79",
            },
            near_miss={
                'redemption_requests_total{outcome="invalid", route="POST /v1/redemptions"}': "0+19",
                'redemption_requests_total{outcome="ok", route="POST /v1/redemptions"}': "0+81",
            },
        ),
        hold=10 * MINUTE,
        reason=(
            "Callers are programs, so hardly any request is malformed. A fifth for ten minutes is a deployment, ours "
            "or theirs, after which the two no longer agree on tokens or bodies; the availability takes such answers "
            "for good, so nothing else tells of it."
        ),
        owner=OWNER,
        service="redemption",
        diagnosis=(
            _PODS,
            "kubectl logs --selector app=redemption --since 10m | grep invalid | head  # code says why, client whose",
        ),
        mitigation=(
            "If all clients have it, roll the last deployment of the service back, or its settings of tokens (issuer, "
            "audience, keys). If one client has it, tell its owner; nobody else is hurt."
        ),
    ),
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
