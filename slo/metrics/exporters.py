"""What the exporters say of themselves: whether they are to be believed, and what they cost."""

from slo.metrics.kinds import Counter, Gauge

EXPORTER_SOURCES = ("rds", "elasticache", "redis", "eks", "alb", "route53", "waf", "sqs")
EXPORTER_LABELS = ("aws_account_id", "aws_region", "name")
"""`name` is a cluster's, as the exporter's file calls it. Empty where a source has no such thing."""

_SOURCE = {"source": EXPORTER_SOURCES}

EXPORTERS_UP = Gauge(
    "exporters_up",
    "1 when the last cycle of the source had an answer to every question, 0 when not.",
    labels=_SOURCE,
    open_labels=EXPORTER_LABELS,
)

EXPORTERS_LAST_SUCCESS = Gauge(
    "exporters_last_success_timestamp_seconds",
    "When the last cycle without a fault ended; 0 for never.",
    labels=_SOURCE,
    open_labels=EXPORTER_LABELS,
)

EXPORTERS_DATA_AGE = Gauge(
    "exporters_data_age_seconds",
    "Age of the newest point of data that the source serves.",
    labels=_SOURCE,
    open_labels=EXPORTER_LABELS,
)

EXPORTERS_CYCLE_DURATION = Gauge(
    "exporters_cycle_duration_seconds",
    "How long the last cycle took.",
    labels=_SOURCE,
    open_labels=EXPORTER_LABELS,
)

EXPORTERS_SERIES = Gauge(
    "exporters_series",
    "Series that the source serves now.",
    labels=_SOURCE,
    open_labels=EXPORTER_LABELS,
)

EXPORTERS_METRICS_REQUESTED = Counter(
    "exporters_cloudwatch_metrics_requested_total",
    "Metrics that were asked of CloudWatch as AWS bills them: up to five statistics of one metric in a call are one.",
    labels=_SOURCE,
    open_labels=EXPORTER_LABELS,
)

EXPORTERS_API_CALLS = Counter(
    "exporters_api_calls_total",
    "Calls to AWS, Kubernetes and the clusters, by what was called.",
    labels=_SOURCE,
    open_labels=(*EXPORTER_LABELS, "call"),
)

EXPORTERS_API_ERRORS = Counter(
    "exporters_api_errors_total",
    "Calls that failed after all their repeats, by why.",
    labels=_SOURCE | {"reason": ("throttled", "denied", "timeout", "partial", "clock_skew", "other")},
    open_labels=(*EXPORTER_LABELS, "call"),
)

EXPORTERS_METRICS = (
    EXPORTERS_UP,
    EXPORTERS_LAST_SUCCESS,
    EXPORTERS_DATA_AGE,
    EXPORTERS_CYCLE_DURATION,
    EXPORTERS_SERIES,
    EXPORTERS_METRICS_REQUESTED,
    EXPORTERS_API_CALLS,
    EXPORTERS_API_ERRORS,
)
