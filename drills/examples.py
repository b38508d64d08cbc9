"""Made-up values of the whole catalogue: a quiet day with a sale in it, for tests and pictures of boards.

They are plausible, related to each other only by the hour of the sale, and the same in each run.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from itertools import product
from urllib.parse import urlsplit

from drills.harness.http import serving
from slo.conventions import le
from slo.metrics import BAD_OUTCOMES, Counter, Gauge, Histogram, Metric

_TEXT = "text/plain; version=0.0.4; charset=utf-8"

# --- which series there are -----------------------------------------------------------------------------------------

_ZONES = ("eu-central-1a", "eu-central-1b", "eu-central-1c")
_NODES = tuple(f"ip-10-0-{number}-17" for number in (1, 2, 3))
_PODS = tuple(f"redemption-7d9f8b6c5d-{end}" for end in ("x2kqp", "l9wzt", "m4vbn"))
_GROUP = "redemption"

# Labels that belong together -> every combination that there is.
_OPEN: Mapping[tuple[str, ...], tuple[tuple[str, ...], ...]] = {
    ("replication_group", "shard", "node"): tuple(
        (_GROUP, f"000{shard}", f"redemption-000{shard}-00{node}") for shard in (1, 2) for node in (1, 2)
    ),
    ("replication_group", "shard"): ((_GROUP, "0001"), (_GROUP, "0002")),
    ("replication_group",): ((_GROUP,),),
    ("name", "node"): tuple(("main", f"10.0.{number}.5:6379") for number in (1, 2, 3)),
    ("eks_cluster", "namespace", "workload", "availability_zone"): tuple(
        ("redemption", "redemption", "redemption", zone) for zone in _ZONES
    ),
    ("eks_cluster", "availability_zone"): tuple(("redemption", zone) for zone in _ZONES),
    ("namespace", "pod", "uid", "container"): tuple(("redemption", pod, pod[-5:], "service") for pod in _PODS),
    ("namespace", "pod", "uid"): (("redemption", _PODS[0], _PODS[0][-5:]),),
    ("name", "namespace"): ((_PODS[0], "redemption"),),
    ("nodepool", "resource_type"): (("default", "cpu"), ("default", "memory")),
    ("db_instance", "wait_event_type"): tuple(("redemption", kind) for kind in ("CPU", "IO", "Lock", "LWLock")),
    ("node",): tuple((node,) for node in _NODES),
    ("job", "instance"): (
        ("redemption", "10.0.1.17:8080"),
        ("redemption", "10.0.2.17:8080"),
        ("worker", "10.0.1.18:8080"),
        ("exporters", "10.0.3.17:9750"),
    ),
    ("rule_group",): tuple(
        (f"/etc/prometheus/rules/{name}.yaml;slo-{name}",)
        for name in ("redemption-availability", "redemption-settlement", "edge-availability", "causes-rds")
    ),
}
_ONE: Mapping[str, str] = {
    "aws_account_id": "123456789012",
    "aws_region": "eu-central-1",
    "db_instance": "redemption",
    "instance_class": "db.r7g.xlarge",
    "engine_version": "17.4",
    "availability_zone": _ZONES[0],
    "eks_cluster": "redemption",
    "namespace": "redemption",
    "workload": "redemption",
    "deployment": "redemption",
    "horizontalpodautoscaler": "redemption",
    "poddisruptionbudget": "redemption",
    "nodepool": "default",
    "capacity_type": "on-demand",
    "load_balancer": "app/redemption/0123456789abcdef",
    "target_group": "targetgroup/redemption/0123456789abcdef",
    "health_check": "11111111-2222-3333-4444-555555555555",
    "web_acl": "redemption",
    "rule": "ALL",
    "job": "redemption",
    "instance": "10.0.1.17:8080",
    "alertmanager": "http://alertmanager:9093/api/v2/alerts",
    "rule_group": "/etc/prometheus/rules/redemption-availability.yaml;slo-redemption-availability",
    "name": "main",
    "queue": "",
    "call": "GetMetricData",
    "controller": "nodeclaim.lifecycle",
    "method": "Create",
    "provider": "aws",
    "error": "InsufficientCapacityError",
}


def label_sets(metric: Metric) -> Iterator[dict[str, str]]:
    """The labels of each example series of a metric."""
    for closed, opened in product(metric.label_sets(), _open_sets(metric)):
        labels = {**opened, **closed}
        if "queue" in labels:
            labels["queue"] = {"work": "redemption-deferred", "dead_letter": "redemption-deferred-dead"}[labels["role"]]
        if _exists(metric, labels):
            yield labels


def _open_sets(metric: Metric) -> list[dict[str, str]]:
    left = tuple(label for label in metric.open_labels if not label.startswith("aws_"))
    together = next((labels for labels in _OPEN if left[: len(labels)] == labels), ())
    fixed = {label: _ONE.get(label, f"some-{label}") for label in metric.open_labels if label not in together}
    return [{**dict(zip(together, row, strict=True)), **fixed} for row in _OPEN.get(together, ((),))]


def _exists(metric: Metric, labels: Mapping[str, str]) -> bool:
    """Whether such a series is anywhere to be seen."""
    replica = labels.get("node", "").endswith(("-002", "3.5:6379"))
    match metric.name:
        case "elasticache_replication_lag_seconds" | "redis_cluster_master_link_up":
            return replica
        case "kube_node_status_condition":
            return labels["status"] == "true" and labels["condition"] == "Ready"
        case "kube_pod_container_status_waiting_reason":
            return labels["reason"] in ("ContainerCreating", "CrashLoopBackOff")
        case "kube_pod_container_status_last_terminated_reason":
            return labels["reason"] in ("Completed", "OOMKilled")
    return True


# --- which values they have -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Level:
    """A value on a quiet day, and at the height of a sale; of a counter, how much comes each second."""

    quiet: float
    sale: float


_STATES_THAT_HOLD = _Level(1, 1)
_STATES_THAT_DO_NOT = _Level(0, 0)
_MIB, _GIB = 1024.0**2, 1024.0**3

_LEVELS: Mapping[str, _Level] = {
    "alb_healthy_hosts": _Level(6, 12),
    "alb_unhealthy_hosts": _Level(0, 1),
    "alb_requests_total": _Level(27, 120),
    "alb_request_durations_total": _Level(26, 116),
    "alb_fail_open_requests_total": _STATES_THAT_DO_NOT,
    "alb_target_connection_errors_total": _Level(0, 0.02),
    "alb_rejected_connections_total": _STATES_THAT_DO_NOT,
    "alb_tls_negotiation_errors_total": _Level(0.2, 0.6),
    "eks_idle_headroom_ratio": _Level(0.38, 0.21),
    "eks_workload_zone_pods": _Level(2, 4),
    "eks_workload_zone_skew_limit_pods": _STATES_THAT_HOLD,
    "eks_workload_zone_skew_pods": _Level(0, 1),
    "eks_zone_ready_nodes": _Level(2, 3),
    "elasticache_commands_total": _Level(300, 1400),
    "elasticache_connections": _Level(120, 240),
    "elasticache_connections_opened_total": _Level(0.2, 2),
    "elasticache_command_errors_total": _Level(0.01, 0.1),
    "elasticache_evictions_total": _STATES_THAT_DO_NOT,
    "elasticache_failovers_total": _STATES_THAT_DO_NOT,
    "elasticache_network_allowance_exceeded_total": _STATES_THAT_DO_NOT,
    "elasticache_replication_lag_seconds": _Level(0.01, 0.4),
    "elasticache_request_latency_seconds": _Level(0.0006, 0.003),
    "elasticache_traffic_management_active": _STATES_THAT_DO_NOT,
    "exporters_api_calls_total": _Level(0.2, 0.2),
    "exporters_api_errors_total": _Level(0.001, 0.004),
    "exporters_cloudwatch_metrics_requested_total": _Level(0.8, 0.8),
    "exporters_cycle_duration_seconds": _Level(2.5, 4),
    "exporters_data_age_seconds": _Level(110, 160),
    "exporters_series": _Level(60, 60),
    "karpenter_cloudprovider_errors_total": _Level(0, 0.005),
    "karpenter_nodeclaims_terminated_total": _Level(0.0002, 0.0004),
    "karpenter_nodepools_limit": _Level(200, 200),
    "karpenter_nodepools_usage": _Level(48, 96),
    "karpenter_pods_unstarted_time_seconds": _Level(12, 70),
    "kube_deployment_spec_replicas": _Level(6, 12),
    "kube_deployment_status_replicas_available": _Level(6, 11),
    "kube_horizontalpodautoscaler_spec_max_replicas": _Level(30, 30),
    "kube_horizontalpodautoscaler_spec_min_replicas": _Level(6, 6),
    "kube_horizontalpodautoscaler_status_current_replicas": _Level(6, 12),
    "kube_pod_container_status_last_terminated_reason": _Level(0, 1),
    "kube_pod_container_status_restarts_total": _Level(0.00002, 0.0005),
    "kube_pod_container_status_waiting_reason": _Level(0, 1),
    "kube_pod_status_unschedulable": _Level(0, 1),
    "kube_poddisruptionbudget_status_current_healthy": _Level(6, 12),
    "kube_poddisruptionbudget_status_desired_healthy": _Level(5, 10),
    "kube_poddisruptionbudget_status_pod_disruptions_allowed": _Level(1, 2),
    "prometheus_notifications_dropped_total": _STATES_THAT_DO_NOT,
    "prometheus_notifications_queue_length": _Level(0, 1),
    "prometheus_rule_evaluation_failures_total": _STATES_THAT_DO_NOT,
    "prometheus_rule_group_interval_seconds": _Level(30, 30),
    "prometheus_rule_group_iterations_missed_total": _STATES_THAT_DO_NOT,
    "prometheus_rule_group_last_duration_seconds": _Level(0.02, 0.05),
    "prometheus_tsdb_head_series": _Level(11_400, 11_400),
    "rds_burst_balance_ratio": _Level(0.98, 0.7),
    "rds_connections": _Level(52, 100),
    "rds_connections_used_ratio": _Level(0.03, 0.06),
    "rds_cpu_utilization_ratio": _Level(0.22, 0.74),
    "rds_disk_latency_seconds": _Level(0.0015, 0.006),
    "rds_disk_operations_per_second": _Level(140, 900),
    "rds_disk_queue_operations": _Level(0.4, 6),
    "rds_failovers_total": _STATES_THAT_DO_NOT,
    "rds_load_by_wait_sessions": _Level(0.2, 0.9),
    "rds_load_per_vcpu_ratio": _Level(0.2, 0.85),
    "rds_load_sessions": _Level(0.6, 2.6),
    "rds_memory_freeable_bytes": _Level(14 * _GIB, 11 * _GIB),
    "rds_memory_freeable_ratio": _Level(0.44, 0.34),
    "rds_replica_lag_seconds": _Level(0.4, 8),
    "rds_replication_slot_lag_bytes": _Level(20 * _MIB, 300 * _MIB),
    "rds_storage_free_bytes": _Level(340 * _GIB, 338 * _GIB),
    "rds_storage_free_ratio": _Level(0.68, 0.67),
    "rds_transaction_ids_used": _Level(1.9e8, 1.95e8),
    "rds_wal_disk_bytes": _Level(4 * _GIB, 7 * _GIB),
    "redemption_admission_limit": _Level(160, 110),
    "redemption_chain_unsealed_rows": _Level(40, 900),
    "redemption_database_connections": _Level(3, 6),
    "redemption_deferred_total": _Level(0, 0.5),
    "redemption_fallback_active": _STATES_THAT_DO_NOT,
    "redemption_holds_expired_total": _Level(0.01, 0.02),
    "redemption_ledger_mismatches": _STATES_THAT_DO_NOT,
    "redemption_ledger_verification_duration_seconds": _Level(21, 34),
    "redemption_points_expired_total": _Level(3, 3),
    "redemption_points_redeemed_total": _Level(4200, 26000),
    "redemption_points_refunded_total": _Level(120, 160),
    "redemption_points_settled_total": _Level(0, 900),
    "redemption_queue_messages": _Level(0, 12),
    "redemption_replays_total": _Level(0.1, 1.2),
    "redemption_requests_total": _Level(1, 4.5),
    "redemption_requests_in_flight": _Level(3, 96),
    "redemption_settled_total": _Level(0, 0.1),
    "redemption_shed_total": _Level(0, 0.6),
    "redemption_valkey_calls_total": _Level(10, 60),
    "redemption_valkey_dropped_total": _Level(0, 0.02),
    "redis_cluster_connected_replicas": _STATES_THAT_HOLD,
    "redis_cluster_known_nodes": _Level(4, 4),
    "redis_cluster_memory_max_bytes": _Level(6 * _GIB, 6 * _GIB),
    "redis_cluster_memory_used_bytes": _Level(1.4 * _GIB, 2.6 * _GIB),
    "redis_cluster_rejected_connections_total": _STATES_THAT_DO_NOT,
    "redis_cluster_slots_assigned": _Level(16_384, 16_384),
    "redis_cluster_slots_fail": _STATES_THAT_DO_NOT,
    "redis_cluster_slots_ok": _Level(16_384, 16_384),
    "scrape_duration_seconds": _Level(0.012, 0.05),
    "scrape_samples_scraped": _Level(2_900, 2_900),
    "sqs_messages_deleted_total": _Level(0.01, 1.4),
    "sqs_messages_in_flight": _Level(0, 14),
    "sqs_messages_sent_total": _Level(0.01, 1.5),
    "sqs_messages_visible": _Level(0, 40),
    "sqs_oldest_message_age_seconds": _Level(0, 38),
    "waf_requests_total": _Level(27, 124),
}

_DEFAULTS: Mapping[str, _Level] = {"_ratio": _Level(0.3, 0.55), "_seconds": _Level(0.002, 0.004)}

# Of a metric's values, the share that a label's value has.
_SHARES: Mapping[str, float] = {
    "target_error": 0.0003,
    "elb_error": 0.0001,
    "slow": 0.004,
    "blocked": 0.02,
    "counted": 0.01,
    "bulk": 1.0,
    "read": 0.7,
    "critical": 0.0,
    "draining": 0.0,
    "busy": 1.0,
    "idle": 0.6,
    "timeout": 0.002,
    "error": 0.0005,
    "dead_letter": 0.0,
    "wait": 0.4,
    "IO": 0.3,
    "Lock": 0.1,
    "LWLock": 0.05,
    "OOMKilled": 0.0,
    "CrashLoopBackOff": 0.0,
}

# Median and requests a second of a histogram.
_HISTOGRAMS: Mapping[str, tuple[_Level, _Level]] = {
    "redemption_request_duration_seconds": (_Level(0.022, 0.13), _Level(1, 5)),
    "redemption_batch_wait_seconds": (_Level(0.002, 0.02), _Level(6, 9)),
    "redemption_batch_duration_seconds": (_Level(0.007, 0.03), _Level(6, 9)),
    "redemption_batch_size": (_Level(1.5, 12), _Level(6, 9)),
}
_SPREAD = 0.55  # standard deviation of the logarithm

# What is done again and again, and after how many seconds.
_DONE_EVERY: Mapping[str, int] = {"ledger_verified": 1_200, "chain_sealed": 360}

_UNDER_WAY = 0.1  # from here on the sale is felt
_WHOLE_MAX = 60  # more, and nobody sees a fraction


def _sale(now: float, sale: float) -> float:
    """How much of a sale there is, 0 to 1: it comes within minutes and goes within half an hour."""
    passed = now - sale
    if passed < 0:
        return math.exp(-((passed / 400) ** 2))
    return math.exp(-((passed / 1500) ** 2))


def _value(metric: Metric, labels: Mapping[str, str], now: float, sale: float) -> float:
    """A gauge's value, or what a counter gets each second."""
    if metric.name.endswith("_timestamp_seconds"):
        if "oldest" in metric.name:
            return now - 60 * _sale(now, sale) if _sale(now, sale) > _UNDER_WAY else 0.0
        every = next((seconds for name, seconds in _DONE_EVERY.items() if name in metric.name), 30)
        return now - every / 10 - now % every
    level = _LEVELS.get(metric.name) or next(
        (level for end, level in _DEFAULTS.items() if metric.name.endswith(end)), _STATES_THAT_HOLD
    )
    value = level.quiet + (level.sale - level.quiet) * _sale(now, sale)
    if isinstance(metric, Gauge) and metric.name in _WHOLE:
        return float(round(value * _share(metric, labels)))
    # What a sale hardly moves is steady by itself too.
    moves = min(1.0, abs(level.sale - level.quiet) / (level.quiet or 1.0))
    wave = 0.06 * math.sin(now / 700 + len(str(sorted(labels.items())))) + 0.03 * math.sin(now / 97)
    return value * _share(metric, labels) * (1 + moves * wave)


_WHOLE = frozenset(
    name for name, level in _LEVELS.items() if level.quiet in (0, 1, 2, 4, 5, 6) and level.sale < _WHOLE_MAX
)


def _share(metric: Metric, labels: Mapping[str, str]) -> float:
    if metric.name == "elasticache_primary":
        return 0.0 if labels["node"].endswith("-002") else 1.0
    if metric.name == "redemption_requests_total":
        return _requests_share(labels)
    if metric.name == "redemption_ledger_mismatches":
        return 0.0
    return math.prod(_SHARES.get(value, 1.0) for value in labels.values())


def _requests_share(labels: Mapping[str, str]) -> float:
    """Nine redemptions each second, as many looks at a balance, and little else."""
    route = {"POST /v1/redemptions": 9.0, "GET /v1/accounts/{account_id}/balance": 14.0}.get(labels["route"], 0.5)
    if labels["outcome"] in BAD_OUTCOMES:
        return route * 0.0004
    return route * {"ok": 1.0, "refused": 0.04, "limited": 0.01, "invalid": 0.005}.get(labels["outcome"], 0.002)


# --- as text --------------------------------------------------------------------------------------------------------


class Examples:
    """Example series of metrics, which go on from call to call; a sale has its height at a time."""

    def __init__(self, metrics: Iterable[Metric], *, sale: float) -> None:
        self._series = [(metric, labels) for metric in metrics for labels in label_sets(metric)]
        self._sale = sale
        self._counted: dict[tuple[str, ...], float] = {}
        self._at: float | None = None

    def samples(self, now: float) -> Iterator[tuple[str, str, float]]:
        """Metric, series as text, and its value; times must not go back."""
        passed = 60.0 if self._at is None else now - self._at
        self._at = now
        for metric, labels in self._series:
            if isinstance(metric, Histogram):
                yield from self._histogram(metric, labels, now, passed)
            elif isinstance(metric, Counter):
                rate = _value(metric, labels, now, self._sale)
                yield metric.name, _text(metric.name, labels), self._count(metric.name, labels, rate * passed)
            else:
                yield metric.name, _text(metric.name, labels), _value(metric, labels, now, self._sale)

    def _histogram(
        self, metric: Histogram, labels: Mapping[str, str], now: float, passed: float
    ) -> Iterator[tuple[str, str, float]]:
        median, rate = (
            level.quiet + (level.sale - level.quiet) * _sale(now, self._sale) for level in _HISTOGRAMS[metric.name]
        )
        if "outcome" in labels:
            rate *= _requests_share(labels)
        for edge in (*metric.buckets, math.inf):
            below = 1.0 if edge == math.inf else 0.5 * (1 + math.erf(math.log(edge / median) / _SPREAD / math.sqrt(2)))
            own = {**labels, "le": "+Inf" if edge == math.inf else le(edge)}
            name = f"{metric.name}_bucket"
            yield metric.name, _text(name, own), self._count(name, own, rate * passed * below)
        for end, more in (("_count", rate * passed), ("_sum", rate * passed * median)):
            name = metric.name + end
            yield metric.name, _text(name, labels), self._count(name, labels, more)

    def _count(self, name: str, labels: Mapping[str, str], more: float) -> float:
        key = (name, *labels.values())
        self._counted[key] = self._counted.get(key, 0.0) + more
        return self._counted[key]


def _text(name: str, labels: Mapping[str, str]) -> str:
    inner = ",".join(f'{label}="{value}"' for label, value in labels.items())
    return f"{name}{{{inner}}}" if inner else name


@contextmanager
def exposition(metrics: Iterable[Metric], clock: Callable[[], float] = time.time) -> Iterator[str]:
    """Serve example values of metrics while the block runs, and yield the address; the sale is now."""
    examples = Examples(metrics, sale=clock())

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = "".join(f"{series} {value!r}\n" for _, series, value in examples.samples(clock())).encode()
            self.send_response(HTTPStatus.OK)
            self.send_header("Content-Type", _TEXT)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with serving(Handler) as url:
        yield urlsplit(url).netloc
