"""Every metric that we emit or read, declared once.

Services and exporters make their instruments from these values; objectives, dashboards and alarms select from them.
A label or a value that is not declared here raises where it is used, so names cannot drift apart.

Names follow https://prometheus.io/docs/practices/naming/: base units, the unit last, `_total` for counters.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from types import MappingProxyType
from typing import TypeAlias

from slo.errors import raise_if_any

Labels: TypeAlias = Mapping[str, Sequence[str]]
"""Label name -> every value that the label can take."""

_METRIC_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
_LABEL_NAME = re.compile(r"(?!__)[a-zA-Z_][a-zA-Z0-9_]*")

# From here on clients write an edge with an exponent, each in its own way, and no selector would match them all.
_EDGE_LIMIT = 1_000_000

# https://prometheus.io/docs/instrumenting/writing_exporters/#labels and the ids that our rules set themselves.
_RESERVED_LABELS = frozenset({"le", "quantile", "service", "slo", "severity"})


@dataclass(frozen=True)
class Metric:
    """A metric family.

    Attributes:
        name: Name as exposed, with its unit (`_seconds`, `_total`) last.
        help: One sentence for people who see it for the first time.
        labels: Label name -> every value it can take. Bounded by construction: an account or a key is never a label.
    """

    name: str
    help: str
    labels: Mapping[str, tuple[str, ...]] = field(default_factory=dict, hash=False, kw_only=True)

    def __post_init__(self) -> None:
        labels = {name: (v,) if isinstance(v, str) else tuple(v) for name, v in self.labels.items()}
        object.__setattr__(self, "labels", MappingProxyType(labels))
        raise_if_any(f"metric {self.name}", self._problems())

    def where(self, **values: str | Sequence[str]) -> Selection:
        """Select the series whose labels have one of the given values; no argument selects all."""
        return Selection(
            self,
            {name: (v,) if isinstance(v, str) else tuple(v) for name, v in values.items()},
        )

    def label_sets(self) -> Iterator[dict[str, str]]:
        """Every combination of label values, in declared order: what a process exports at 0 from its start."""
        for values in product(*self.labels.values()):
            yield dict(zip(self.labels, values, strict=True))

    def _problems(self) -> Iterator[str]:
        if not _METRIC_NAME.fullmatch(self.name):
            yield "the name is not a Prometheus metric name; allowed are letters, digits and _"
        if not self.help.endswith("."):
            yield "the help text must be a sentence that ends with a full stop"
        for label, values in self.labels.items():
            if not _LABEL_NAME.fullmatch(label) or label in _RESERVED_LABELS:
                reserved = ", ".join(sorted(_RESERVED_LABELS))
                yield f"label {label!r} is not allowed; letters, digits and _, none of: {reserved}"
            if not values:
                yield f"label {label!r} declares no value; list every value that it can take"
            if len(set(values)) != len(values):
                yield f"label {label!r} declares a value twice"


@dataclass(frozen=True)
class Counter(Metric):
    """A number that only grows; the name ends in `_total`."""

    def _problems(self) -> Iterator[str]:
        yield from super()._problems()
        if not self.name.endswith("_total"):
            yield "a counter's name ends in _total"


@dataclass(frozen=True)
class Gauge(Metric):
    """A number that goes up and down."""

    def _problems(self) -> Iterator[str]:
        yield from super()._problems()
        if self.name.endswith("_total"):
            yield "only a counter's name ends in _total"


@dataclass(frozen=True)
class Histogram(Metric):
    """Observations counted in buckets.

    Attributes:
        buckets: Upper bucket edges in the metric's unit, ascending, without +Inf.
    """

    buckets: tuple[float, ...] = field(kw_only=True)

    def _problems(self) -> Iterator[str]:
        yield from super()._problems()
        if not self.buckets or list(self.buckets) != sorted(set(self.buckets)):
            yield "bucket edges must be given, ascending and without repeats"
        for edge in self.buckets:
            if not math.isfinite(edge) or edge >= _EDGE_LIMIT:
                yield f"the bucket edge {edge} is not allowed; use finite numbers below {_EDGE_LIMIT:,}"


@dataclass(frozen=True)
class Selection:
    """Some series of one metric: those whose labels have one of the given values."""

    metric: Metric
    values: Mapping[str, tuple[str, ...]] = field(hash=False)

    def __post_init__(self) -> None:
        ordered = {name: tuple(sorted(set(self.values[name]))) for name in sorted(self.values)}
        object.__setattr__(self, "values", MappingProxyType(ordered))
        raise_if_any(f"selection from {self.metric.name}", self._problems())

    def _problems(self) -> Iterator[str]:
        for label, values in self.values.items():
            declared = self.metric.labels.get(label)
            if declared is None:
                yield f"unknown label {label!r}; the metric has {_listed(self.metric.labels)}"
                continue
            if not values:
                yield f"label {label!r} selects nothing; give at least one of {_listed(declared)}"
            for value in values:
                if value not in declared:
                    yield f"label {label!r} never has the value {value!r}; it has {_listed(declared)}"


def _listed(names: Sequence[str] | Mapping[str, object]) -> str:
    return ", ".join(repr(name) for name in names) or "no labels"


# --- the redemption service -----------------------------------------------------------------------------------------

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
