"""What the redemption service exposes, and the worker behind it."""

from slo.metrics.kinds import Counter, Gauge, Histogram, Metric

REDEEM_ROUTE = "POST /v1/redemptions"
# What follows on a redemption that was promised already: a room is booked on it, or a stay was cancelled.
FOLLOW_UP_ROUTES = (
    "POST /v1/redemptions/{redemption_id}/capture",
    "POST /v1/redemptions/{redemption_id}/void",
    "POST /v1/redemptions/{redemption_id}/refunds",
)
REDEMPTION_ROUTES = (
    REDEEM_ROUTE,
    "GET /v1/redemptions",
    "GET /v1/redemptions/{redemption_id}",
    "GET /v1/redemptions/{reference}/status",
    *FOLLOW_UP_ROUTES,
    "GET /v1/accounts/{account_id}/balance",
    "GET /v1/accounts/{account_id}/entries",
    "POST /v1/accruals:batch",
)

# What became of a request, from the caller's point of view.
GOOD_OUTCOMES = (
    "ok",  # done, or replayed from an earlier request with the same key
    "deferred",  # accepted into the queue, to be settled soon
    "refused",  # refused for a business reason: not enough points, unknown account, key used for something else
    "invalid",  # the caller's mistake: malformed, incomplete or not allowed
    "limited",  # beyond the rate that the client agreed to
)
BAD_OUTCOMES = (
    "shed",  # turned away to protect the rest
    "timeout",  # no answer from the ledger in time; whether the points moved is unknown until the retry
    "error",  # any other failure of ours
)

REDEMPTION_REQUESTS = Counter(
    "redemption_requests_total",
    "Requests answered, by route template and outcome.",
    labels={"route": REDEMPTION_ROUTES, "outcome": GOOD_OUTCOMES + BAD_OUTCOMES},
)

REDEMPTION_REQUEST_DURATION = Histogram(
    "redemption_request_duration_seconds",
    "Time from the first byte of a request to the last byte of its answer.",
    labels={"route": REDEMPTION_ROUTES, "outcome": GOOD_OUTCOMES + BAD_OUTCOMES},
    # The edges advised by OpenTelemetry's HTTP conventions (v1.44), closer around the objectives' 0.25 s and 1 s.
    buckets=(
        0.005,
        0.01,
        0.025,
        0.05,
        0.075,
        0.1,
        0.15,
        0.2,
        0.25,
        0.3,
        0.5,
        0.75,
        1.0,
        1.5,
        2.5,
        5.0,
        10.0,
    ),
)

REDEMPTION_REQUESTS_IN_FLIGHT = Gauge(
    "redemption_requests_in_flight",
    "Requests that are being worked on now.",
)

REDEMPTION_ADMISSION_LIMIT = Gauge(
    "redemption_admission_limit",
    "Requests that may be worked on at once, as the adaptive limit has it now.",
)

REDEMPTION_SHED = Counter(
    "redemption_shed_total",
    "Requests turned away, by their priority and the reason.",
    labels={
        "priority": ("critical", "redeem", "read", "bulk"),
        "reason": ("overloaded", "deadline", "draining"),
    },
)

REDEMPTION_POINTS_REDEEMED = Counter(
    "redemption_points_redeemed_total",
    "Points deducted by the service itself, at once or by a capture; a replay deducts none.",
)

REDEMPTION_POINTS_REFUNDED = Counter(
    "redemption_points_refunded_total",
    "Points given back by refunds; a replay gives none.",
)

REDEMPTION_REPLAYS = Counter(
    "redemption_replays_total",
    "Requests answered from an earlier request with the same idempotency key, by where its answer was found.",
    labels={"source": ("ledger", "hint")},
)

REDEMPTION_BATCH_SIZE = Histogram(
    "redemption_batch_size",
    "Redemptions decided by one call of the ledger.",
    buckets=(1, 2, 5, 10, 20, 50, 100, 200),
)

REDEMPTION_BATCH_WAIT = Histogram(
    "redemption_batch_wait_seconds",
    "How long the oldest redemption of a batch waited for its call to begin.",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5),
)

REDEMPTION_BATCH_DURATION = Histogram(
    "redemption_batch_duration_seconds",
    "Time of one call of the ledger for a batch of redemptions.",
    # OpenTelemetry's advice for database calls (v1.44), closer where a flash sale lives.
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 10.0),
)

REDEMPTION_DEFERRED = Counter(
    "redemption_deferred_total",
    "Redemptions accepted into the queue, by the reason.",
    labels={"reason": ("unreachable", "slow", "overloaded")},
)

REDEMPTION_FALLBACK_ACTIVE = Gauge(
    "redemption_fallback_active",
    "1 while redemptions go to the queue because the ledger does not answer, else 0.",
)

REDEMPTION_VALKEY_CALLS = Counter(
    "redemption_valkey_calls_total",
    "Script calls to Valkey, by what became of them; none of them holds a redemption up.",
    labels={"outcome": ("ok", "timeout", "error")},
)

REDEMPTION_VALKEY_DROPPED = Counter(
    "redemption_valkey_dropped_total",
    "Hints, quota charges and burst messages that were given up because Valkey was away or too busy.",
)

REDEMPTION_DATABASE_CONNECTIONS = Gauge(
    "redemption_database_connections",
    "Connections to the ledger database in this process's pool, by what they do.",
    labels={"state": ("idle", "busy")},
)

REDEMPTION_METRICS: tuple[Metric, ...] = (
    REDEMPTION_REQUESTS,
    REDEMPTION_REQUEST_DURATION,
    REDEMPTION_REQUESTS_IN_FLIGHT,
    REDEMPTION_ADMISSION_LIMIT,
    REDEMPTION_SHED,
    REDEMPTION_POINTS_REDEEMED,
    REDEMPTION_POINTS_REFUNDED,
    REDEMPTION_REPLAYS,
    REDEMPTION_BATCH_SIZE,
    REDEMPTION_BATCH_WAIT,
    REDEMPTION_BATCH_DURATION,
    REDEMPTION_DEFERRED,
    REDEMPTION_FALLBACK_ACTIVE,
    REDEMPTION_VALKEY_CALLS,
    REDEMPTION_VALKEY_DROPPED,
    REDEMPTION_DATABASE_CONNECTIONS,
)

# --- the worker behind it: settles what was deferred, keeps the ledger in order, verifies it --------------------------

REDEMPTION_DEFERRED_OLDEST_ACCEPTED = Gauge(
    "redemption_deferred_oldest_accepted_timestamp_seconds",
    "When the oldest redemption that was accepted and is not settled yet was accepted; 0 when none waits.",
)

REDEMPTION_SETTLED = Counter(
    "redemption_settled_total",
    "Deferred redemptions taken from the queue or the burst stream, by what became of them.",
    labels={
        "source": ("queue", "stream"),
        # reused: its key was decided for another request; late: refused, as its time was over
        "outcome": ("decided", "replayed", "late", "reused", "unreadable", "failed"),
    },
)

REDEMPTION_POINTS_SETTLED = Counter(
    "redemption_points_settled_total",
    "Points deducted by settling what was deferred.",
)

REDEMPTION_QUEUE_MESSAGES = Gauge(
    "redemption_queue_messages",
    "Messages of the fallback queue, as the queue itself counts them.",
    labels={"state": ("visible", "in_flight", "dead_letter")},
)

REDEMPTION_LEDGER_MISMATCHES = Gauge(
    "redemption_ledger_mismatches",
    "Mismatches that the last verification of the ledger found, by what was checked; any but 0 is an emergency.",
    labels={"check": ("versions", "balances", "sums", "redemptions", "lots", "holds", "chain")},
)

REDEMPTION_LEDGER_VERIFIED = Gauge(
    "redemption_ledger_verified_timestamp_seconds",
    "When the last whole verification of the ledger began; 0 when there was none yet.",
)

REDEMPTION_LEDGER_VERIFICATION_DURATION = Gauge(
    "redemption_ledger_verification_duration_seconds",
    "How long the last whole verification of the ledger took.",
)

REDEMPTION_CHAIN_SEALED = Gauge(
    "redemption_chain_sealed_timestamp_seconds",
    "Everything that was written before this time is covered by the hash chain; 0 when never.",
)

REDEMPTION_CHAIN_BACKLOG = Gauge(
    "redemption_chain_unsealed_rows",
    "Rows of the ledger that the hash chain did not cover yet when it was last extended.",
)

REDEMPTION_HOLDS_EXPIRED = Counter(
    "redemption_holds_expired_total",
    "Holds that ended without a capture or a void.",
)

REDEMPTION_POINTS_EXPIRED = Counter(
    "redemption_points_expired_total",
    "Points whose lot reached its end before anybody spent them.",
)

REDEMPTION_WORKER_METRICS: tuple[Metric, ...] = (
    REDEMPTION_DEFERRED_OLDEST_ACCEPTED,
    REDEMPTION_SETTLED,
    REDEMPTION_POINTS_SETTLED,
    REDEMPTION_QUEUE_MESSAGES,
    REDEMPTION_LEDGER_MISMATCHES,
    REDEMPTION_LEDGER_VERIFIED,
    REDEMPTION_LEDGER_VERIFICATION_DURATION,
    REDEMPTION_CHAIN_SEALED,
    REDEMPTION_CHAIN_BACKLOG,
    REDEMPTION_HOLDS_EXPIRED,
    REDEMPTION_POINTS_EXPIRED,
)
