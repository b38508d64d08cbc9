"""ElastiCache for Valkey or Redis in cluster mode, by CloudWatch (`elasticache_`), and what the cluster says itself.

CloudWatch's names: Amazon ElastiCache User Guide, "Metrics for Valkey and Redis OSS". A node of a cluster is a
`CacheClusterId` of its own.

The `redis_cluster_` metrics come from `CLUSTER INFO` and `INFO` of any cluster. redis_exporter knows the same: where it
runs, definitions may read its names by `REDIS_EXPORTER_NAMES`, and ours need not be collected.
"""

from collections.abc import Mapping
from types import MappingProxyType

from slo.metrics.aws import AWS_LABELS, MICROSECONDS, PERCENT
from slo.metrics.kinds import CloudWatch, Counter, Gauge, Metric

ELASTICACHE_GROUP_LABELS = (*AWS_LABELS, "replication_group")
ELASTICACHE_NODE_LABELS = (*ELASTICACHE_GROUP_LABELS, "shard", "node")
_NODE = {"CacheClusterId": "node"}

# --- latency --------------------------------------------------------------------------------------------------------

ELASTICACHE_REQUEST_LATENCY = Gauge(
    "elasticache_request_latency_seconds",
    "Time in the server that one of a hundred requests exceeds (99th percentile), waiting included.",
    labels={"operation": ("read", "write")},
    open_labels=ELASTICACHE_NODE_LABELS,
    cloudwatch=(
        CloudWatch(
            namespace="AWS/ElastiCache",
            name="SuccessfulReadRequestLatency",
            statistic="p99",
            dimensions=_NODE,
            factor=MICROSECONDS,
            labels={"operation": "read"},
        ),
        CloudWatch(
            namespace="AWS/ElastiCache",
            name="SuccessfulWriteRequestLatency",
            statistic="p99",
            dimensions=_NODE,
            factor=MICROSECONDS,
            labels={"operation": "write"},
        ),
    ),
)

# --- traffic --------------------------------------------------------------------------------------------------------

ELASTICACHE_COMMANDS = Counter(
    "elasticache_commands_total",
    "Commands that read or write keys; a script counts as a write.",
    labels={"operation": ("read", "write")},
    open_labels=ELASTICACHE_NODE_LABELS,
    cloudwatch=(
        CloudWatch(
            namespace="AWS/ElastiCache",
            name="GetTypeCmds",
            statistic="Sum",
            dimensions=_NODE,
            labels={"operation": "read"},
        ),
        CloudWatch(
            namespace="AWS/ElastiCache",
            name="SetTypeCmds",
            statistic="Sum",
            dimensions=_NODE,
            labels={"operation": "write"},
        ),
        CloudWatch(
            namespace="AWS/ElastiCache",
            name="EvalBasedCmds",
            statistic="Sum",
            dimensions=_NODE,
            labels={"operation": "write"},
        ),
    ),
)

ELASTICACHE_CONNECTIONS = Gauge(
    "elasticache_connections",
    "Client connections that are open.",
    open_labels=ELASTICACHE_NODE_LABELS,
    cloudwatch=(
        CloudWatch(namespace="AWS/ElastiCache", name="CurrConnections", statistic="Maximum", dimensions=_NODE),
    ),
)

ELASTICACHE_CONNECTIONS_OPENED = Counter(
    "elasticache_connections_opened_total",
    "Connections that clients opened; each costs a TLS handshake.",
    open_labels=ELASTICACHE_NODE_LABELS,
    cloudwatch=(CloudWatch(namespace="AWS/ElastiCache", name="NewConnections", statistic="Sum", dimensions=_NODE),),
)

# --- errors ---------------------------------------------------------------------------------------------------------

ELASTICACHE_AVAILABLE = Gauge(
    "elasticache_available",
    "1 while ElastiCache calls the replication group available, 0 in any other state.",
    open_labels=ELASTICACHE_GROUP_LABELS,
)

ELASTICACHE_AUTOMATIC_FAILOVER = Gauge(
    "elasticache_automatic_failover_enabled",
    "1 when a replica takes over by itself, 0 when not.",
    open_labels=ELASTICACHE_GROUP_LABELS,
)

ELASTICACHE_PRIMARY = Gauge(
    "elasticache_primary",
    "1 while the node is the primary of its shard, 0 while it is a replica.",
    open_labels=ELASTICACHE_NODE_LABELS,
    cloudwatch=(CloudWatch(namespace="AWS/ElastiCache", name="IsMaster", statistic="Maximum", dimensions=_NODE),),
)

ELASTICACHE_FAILOVERS = Counter(
    "elasticache_failovers_total",
    "Times that another node became the primary of a shard.",
    open_labels=(*ELASTICACHE_GROUP_LABELS, "shard"),
)

ELASTICACHE_ERRORS = Counter(
    "elasticache_command_errors_total",
    "Commands that failed.",
    open_labels=ELASTICACHE_NODE_LABELS,
    cloudwatch=(CloudWatch(namespace="AWS/ElastiCache", name="ErrorCount", statistic="Sum", dimensions=_NODE),),
)

ELASTICACHE_REPLICATION_LAG = Gauge(
    "elasticache_replication_lag_seconds",
    "How far a replica is behind its primary, at most.",
    open_labels=ELASTICACHE_NODE_LABELS,
    cloudwatch=(CloudWatch(namespace="AWS/ElastiCache", name="ReplicationLag", statistic="Maximum", dimensions=_NODE),),
)

# --- saturation -----------------------------------------------------------------------------------------------------

ELASTICACHE_ENGINE_CPU_UTILIZATION = Gauge(
    "elasticache_engine_cpu_utilization_ratio",
    "Part of the engine's one thread that is used, 0 to 1.",
    open_labels=ELASTICACHE_NODE_LABELS,
    cloudwatch=(
        CloudWatch(
            namespace="AWS/ElastiCache",
            name="EngineCPUUtilization",
            statistic="Average",
            dimensions=_NODE,
            factor=PERCENT,
        ),
    ),
)

ELASTICACHE_CPU_UTILIZATION = Gauge(
    "elasticache_cpu_utilization_ratio",
    "Part of all processors of the node that is used, 0 to 1.",
    open_labels=ELASTICACHE_NODE_LABELS,
    cloudwatch=(
        CloudWatch(
            namespace="AWS/ElastiCache",
            name="CPUUtilization",
            statistic="Average",
            dimensions=_NODE,
            factor=PERCENT,
        ),
    ),
)

ELASTICACHE_MEMORY_USED = Gauge(
    "elasticache_memory_used_ratio",
    "Memory in use among all that data may use, 0 to 1.",
    open_labels=ELASTICACHE_NODE_LABELS,
    cloudwatch=(
        CloudWatch(
            namespace="AWS/ElastiCache",
            name="DatabaseMemoryUsagePercentage",
            statistic="Maximum",
            dimensions=_NODE,
            factor=PERCENT,
        ),
    ),
)

ELASTICACHE_EVICTIONS = Counter(
    "elasticache_evictions_total",
    "Keys that were thrown away as there was no memory left.",
    open_labels=ELASTICACHE_NODE_LABELS,
    cloudwatch=(CloudWatch(namespace="AWS/ElastiCache", name="Evictions", statistic="Sum", dimensions=_NODE),),
)

_ALLOWANCES = {
    "bandwidth_in": "NetworkBandwidthInAllowanceExceeded",
    "bandwidth_out": "NetworkBandwidthOutAllowanceExceeded",
    "packets": "NetworkPacketsPerSecondAllowanceExceeded",
    "connections": "NetworkConntrackAllowanceExceeded",
}

ELASTICACHE_ALLOWANCE_EXCEEDED = Counter(
    "elasticache_network_allowance_exceeded_total",
    "Packets that were queued or dropped as the node was beyond what its size may send, receive or track.",
    labels={"allowance": tuple(_ALLOWANCES)},
    open_labels=ELASTICACHE_NODE_LABELS,
    cloudwatch=tuple(
        CloudWatch(
            namespace="AWS/ElastiCache",
            name=name,
            statistic="Sum",
            dimensions=_NODE,
            labels={"allowance": allowance},
        )
        for allowance, name in _ALLOWANCES.items()
    ),
)

ELASTICACHE_TRAFFIC_MANAGEMENT = Gauge(
    "elasticache_traffic_management_active",
    "1 while ElastiCache slows the traffic down as more commands come in than the node can work on.",
    open_labels=ELASTICACHE_NODE_LABELS,
    cloudwatch=(
        CloudWatch(namespace="AWS/ElastiCache", name="TrafficManagementActive", statistic="Maximum", dimensions=_NODE),
    ),
)

ELASTICACHE_METRICS = (
    ELASTICACHE_REQUEST_LATENCY,
    ELASTICACHE_COMMANDS,
    ELASTICACHE_CONNECTIONS,
    ELASTICACHE_CONNECTIONS_OPENED,
    ELASTICACHE_AVAILABLE,
    ELASTICACHE_AUTOMATIC_FAILOVER,
    ELASTICACHE_PRIMARY,
    ELASTICACHE_FAILOVERS,
    ELASTICACHE_ERRORS,
    ELASTICACHE_REPLICATION_LAG,
    ELASTICACHE_ENGINE_CPU_UTILIZATION,
    ELASTICACHE_CPU_UTILIZATION,
    ELASTICACHE_MEMORY_USED,
    ELASTICACHE_EVICTIONS,
    ELASTICACHE_ALLOWANCE_EXCEEDED,
    ELASTICACHE_TRAFFIC_MANAGEMENT,
)

# --- the cluster's own words ----------------------------------------------------------------------------------------

REDIS_CLUSTER_LABELS = ("name",)  # of the cluster, as the exporter's file calls it
REDIS_CLUSTER_NODE_LABELS = ("name", "node")  # host:port

REDIS_CLUSTER_STATE_OK = Gauge(
    "redis_cluster_state_ok",
    "1 while the cluster takes commands (cluster_state:ok), 0 when not.",
    open_labels=REDIS_CLUSTER_LABELS,
)
REDIS_CLUSTER_SLOTS_ASSIGNED = Gauge(
    "redis_cluster_slots_assigned",
    "Slots that belong to a node; all are 16,384.",
    open_labels=REDIS_CLUSTER_LABELS,
)
REDIS_CLUSTER_SLOTS_OK = Gauge(
    "redis_cluster_slots_ok",
    "Slots whose node answers.",
    open_labels=REDIS_CLUSTER_LABELS,
)
REDIS_CLUSTER_SLOTS_FAIL = Gauge(
    "redis_cluster_slots_fail",
    "Slots whose node is known to have failed.",
    open_labels=REDIS_CLUSTER_LABELS,
)
REDIS_CLUSTER_KNOWN_NODES = Gauge(
    "redis_cluster_known_nodes",
    "Nodes that the cluster knows, those that failed included.",
    open_labels=REDIS_CLUSTER_LABELS,
)
REDIS_CLUSTER_NODE_UP = Gauge(
    "redis_cluster_node_up",
    "1 when the node answered the exporter, 0 when not.",
    open_labels=REDIS_CLUSTER_NODE_LABELS,
)
REDIS_CLUSTER_MEMORY_USED = Gauge(
    "redis_cluster_memory_used_bytes",
    "Memory that the node's data and buffers take (used_memory).",
    open_labels=REDIS_CLUSTER_NODE_LABELS,
)
REDIS_CLUSTER_MEMORY_MAX = Gauge(
    "redis_cluster_memory_max_bytes",
    "Memory that the node may take (maxmemory); 0 for no limit.",
    open_labels=REDIS_CLUSTER_NODE_LABELS,
)
REDIS_CLUSTER_REJECTED_CONNECTIONS = Counter(
    "redis_cluster_rejected_connections_total",
    "Connections that the node refused as it had its maximum (maxclients).",
    open_labels=REDIS_CLUSTER_NODE_LABELS,
)
REDIS_CLUSTER_CONNECTED_REPLICAS = Gauge(
    "redis_cluster_connected_replicas",
    "Replicas that are connected to this primary; a replica has none.",
    open_labels=REDIS_CLUSTER_NODE_LABELS,
)
REDIS_CLUSTER_MASTER_LINK_UP = Gauge(
    "redis_cluster_master_link_up",
    "1 while a replica hears its primary, 0 when not; a primary has no such series.",
    open_labels=REDIS_CLUSTER_NODE_LABELS,
)

REDIS_CLUSTER_METRICS = (
    REDIS_CLUSTER_STATE_OK,
    REDIS_CLUSTER_SLOTS_ASSIGNED,
    REDIS_CLUSTER_SLOTS_OK,
    REDIS_CLUSTER_SLOTS_FAIL,
    REDIS_CLUSTER_KNOWN_NODES,
    REDIS_CLUSTER_NODE_UP,
    REDIS_CLUSTER_MEMORY_USED,
    REDIS_CLUSTER_MEMORY_MAX,
    REDIS_CLUSTER_REJECTED_CONNECTIONS,
    REDIS_CLUSTER_CONNECTED_REPLICAS,
    REDIS_CLUSTER_MASTER_LINK_UP,
)

REDIS_METRICS = ELASTICACHE_METRICS + REDIS_CLUSTER_METRICS

REDIS_EXPORTER_NAMES: Mapping[Metric, str] = MappingProxyType(
    {
        REDIS_CLUSTER_STATE_OK: "redis_cluster_state",
        REDIS_CLUSTER_SLOTS_ASSIGNED: "redis_cluster_slots_assigned",
        REDIS_CLUSTER_SLOTS_OK: "redis_cluster_slots_ok",
        REDIS_CLUSTER_SLOTS_FAIL: "redis_cluster_slots_fail",
        REDIS_CLUSTER_KNOWN_NODES: "redis_cluster_known_nodes",
        REDIS_CLUSTER_NODE_UP: "redis_up",
        REDIS_CLUSTER_MEMORY_USED: "redis_memory_used_bytes",
        REDIS_CLUSTER_MEMORY_MAX: "redis_memory_max_bytes",
        REDIS_CLUSTER_REJECTED_CONNECTIONS: "redis_rejected_connections_total",
        REDIS_CLUSTER_CONNECTED_REPLICAS: "redis_connected_slaves",
        REDIS_CLUSTER_MASTER_LINK_UP: "redis_master_link_up",
    }
)
"""Our metric -> the same in redis_exporter (v1.88); its series carry the node's address as `instance`."""
