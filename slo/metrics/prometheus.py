"""What Prometheus says of itself: whether its rules run, and whether what it scrapes is there.

Names of Prometheus 3.x (rules/group.go, notifier/, scrape/, tsdb/head.go). `job` and `instance` are the target's, which
Prometheus itself puts on every series; here they are the only labels that tell one from the other.
"""

from slo.metrics.kinds import Counter, Gauge, Metric

_TARGET = ("job", "instance")
_ALERTMANAGER = ("alertmanager",)  # its address
_GROUP = ("rule_group",)  # the file and the name of the group, with a semicolon between

SCRAPE_UP = Gauge("up", "1 when the last scrape of the target had an answer, 0 when not.", open_labels=_TARGET)
SCRAPE_DURATION = Gauge("scrape_duration_seconds", "How long the last scrape took.", open_labels=_TARGET)
SCRAPE_SAMPLES = Gauge("scrape_samples_scraped", "Samples that the last scrape had.", open_labels=_TARGET)

RULE_GROUP_DURATION = Gauge(
    "prometheus_rule_group_last_duration_seconds",
    "How long the last evaluation of a group of rules took; longer than its interval, and the next is missed.",
    open_labels=_GROUP,
)
RULE_GROUP_INTERVAL = Gauge(
    "prometheus_rule_group_interval_seconds",
    "How often a group of rules is evaluated.",
    open_labels=_GROUP,
)
RULE_GROUP_LAST = Gauge(
    "prometheus_rule_group_last_evaluation_timestamp_seconds",
    "When a group of rules was evaluated the last time.",
    open_labels=_GROUP,
)
RULE_GROUP_MISSED = Counter(
    "prometheus_rule_group_iterations_missed_total",
    "Evaluations that did not happen as the one before was not done.",
    open_labels=_GROUP,
)
RULE_FAILURES = Counter(
    "prometheus_rule_evaluation_failures_total",
    "Evaluations of a rule that failed; what it records is missing, and what it watches is not watched.",
    open_labels=_GROUP,
)
NOTIFICATIONS_QUEUED = Gauge(
    "prometheus_notifications_queue_length",
    "Alerts that wait to be sent to an Alertmanager.",
    open_labels=_ALERTMANAGER,
)
NOTIFICATIONS_DROPPED = Counter(
    "prometheus_notifications_dropped_total",
    "Alerts that were given up, as the Alertmanager did not take them.",
    open_labels=_ALERTMANAGER,
)
HEAD_SERIES = Gauge("prometheus_tsdb_head_series", "Series in memory.")

PROMETHEUS_METRICS: tuple[Metric, ...] = (
    SCRAPE_UP,
    SCRAPE_DURATION,
    SCRAPE_SAMPLES,
    RULE_GROUP_DURATION,
    RULE_GROUP_INTERVAL,
    RULE_GROUP_LAST,
    RULE_GROUP_MISSED,
    RULE_FAILURES,
    NOTIFICATIONS_QUEUED,
    NOTIFICATIONS_DROPPED,
    HEAD_SERIES,
)
