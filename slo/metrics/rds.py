"""RDS for PostgreSQL: CloudWatch, and what RDS says of its instances and their events.

CloudWatch's names and dimensions: Amazon RDS User Guide, "Amazon CloudWatch metrics for Amazon RDS". The `DBLoad` ones
come from Performance Insights, and only while there is load: a series that is missing is a database that rests. What
sessions wait for is asked of Performance Insights itself; its types are PostgreSQL's, and CPU for sessions that work.
"""

from slo.metrics.aws import AWS_LABELS, PERCENT
from slo.metrics.kinds import CloudWatch, Counter, Gauge

RDS_LABELS = (*AWS_LABELS, "db_instance")
_INSTANCE = {"DBInstanceIdentifier": "db_instance"}

# --- latency --------------------------------------------------------------------------------------------------------

RDS_DISK_LATENCY = Gauge(
    "rds_disk_latency_seconds",
    "Time that one of ten disk operations exceeds (90th percentile).",
    labels={"operation": ("read", "write")},
    open_labels=RDS_LABELS,
    cloudwatch=(
        CloudWatch(
            namespace="AWS/RDS",
            name="ReadLatency",
            statistic="p90",
            dimensions=_INSTANCE,
            labels={"operation": "read"},
        ),
        CloudWatch(
            namespace="AWS/RDS",
            name="WriteLatency",
            statistic="p90",
            dimensions=_INSTANCE,
            labels={"operation": "write"},
        ),
    ),
)

# --- traffic --------------------------------------------------------------------------------------------------------

RDS_DISK_OPERATIONS = Gauge(
    "rds_disk_operations_per_second",
    "Mean disk operations a second; AWS counts no queries.",
    labels={"operation": ("read", "write")},
    open_labels=RDS_LABELS,
    cloudwatch=(
        CloudWatch(
            namespace="AWS/RDS",
            name="ReadIOPS",
            statistic="Average",
            dimensions=_INSTANCE,
            labels={"operation": "read"},
        ),
        CloudWatch(
            namespace="AWS/RDS",
            name="WriteIOPS",
            statistic="Average",
            dimensions=_INSTANCE,
            labels={"operation": "write"},
        ),
    ),
)

RDS_CONNECTIONS = Gauge(
    "rds_connections",
    "Client connections that are open.",
    open_labels=RDS_LABELS,
    cloudwatch=(
        CloudWatch(namespace="AWS/RDS", name="DatabaseConnections", statistic="Maximum", dimensions=_INSTANCE),
    ),
)

# --- errors ---------------------------------------------------------------------------------------------------------

RDS_AVAILABLE = Gauge(
    "rds_available",
    "1 while RDS calls the instance available (or backing up, or optimizing its storage), 0 in any other state.",
    open_labels=RDS_LABELS,
)

RDS_MULTI_AZ = Gauge(
    "rds_multi_az_enabled",
    "1 when the instance has a standby in another availability zone, 0 when not.",
    open_labels=RDS_LABELS,
)

RDS_FAILOVERS = Counter(
    "rds_failovers_total",
    "Failovers to the standby that were completed, by the events of RDS (RDS-EVENT-0049).",
    open_labels=RDS_LABELS,
)

RDS_REPLICA_LAG = Gauge(
    "rds_replica_lag_seconds",
    "How far a read replica is behind its source, at most; -1 when the replication is broken.",
    open_labels=RDS_LABELS,
    cloudwatch=(CloudWatch(namespace="AWS/RDS", name="ReplicaLag", statistic="Maximum", dimensions=_INSTANCE),),
)

# --- saturation -----------------------------------------------------------------------------------------------------

RDS_CPU_UTILIZATION = Gauge(
    "rds_cpu_utilization_ratio",
    "Part of the processors that is used, 0 to 1.",
    open_labels=RDS_LABELS,
    cloudwatch=(
        CloudWatch(
            namespace="AWS/RDS",
            name="CPUUtilization",
            statistic="Average",
            dimensions=_INSTANCE,
            factor=PERCENT,
        ),
    ),
)

RDS_LOAD_RELATIVE = Gauge(
    "rds_load_per_vcpu_ratio",
    "Sessions that work or wait, for each virtual processor; above 1 somebody waits.",
    open_labels=RDS_LABELS,
    cloudwatch=(
        CloudWatch(
            namespace="AWS/RDS",
            name="DBLoadRelativeToNumVCPUs",
            statistic="Average",
            dimensions=_INSTANCE,
        ),
    ),
)

RDS_LOAD = Gauge(
    "rds_load_sessions",
    "Sessions that are active on average: on a processor, or waiting for something else, a lock or a disk say.",
    labels={"on": ("cpu", "wait")},
    open_labels=RDS_LABELS,
    cloudwatch=(
        CloudWatch(
            namespace="AWS/RDS", name="DBLoadCPU", statistic="Average", dimensions=_INSTANCE, labels={"on": "cpu"}
        ),
        CloudWatch(
            namespace="AWS/RDS", name="DBLoadNonCPU", statistic="Average", dimensions=_INSTANCE, labels={"on": "wait"}
        ),
    ),
)

RDS_LOAD_BY_WAIT = Gauge(
    "rds_load_by_wait_sessions",
    "Sessions that are active on average, by the type of what they wait for, where Performance Insights is on.",
    open_labels=(*RDS_LABELS, "wait_event_type"),
)

RDS_CONNECTIONS_USED = Gauge(
    "rds_connections_used_ratio",
    "Open connections among those that the instance class allows by default, 0 to 1.",
    open_labels=RDS_LABELS,
)

RDS_MEMORY_FREEABLE = Gauge(
    "rds_memory_freeable_bytes",
    "Memory that could be given to something else.",
    open_labels=RDS_LABELS,
    cloudwatch=(CloudWatch(namespace="AWS/RDS", name="FreeableMemory", statistic="Average", dimensions=_INSTANCE),),
)

RDS_MEMORY_FREEABLE_RATIO = Gauge(
    "rds_memory_freeable_ratio",
    "Freeable memory among all that the instance class has, 0 to 1.",
    open_labels=RDS_LABELS,
)

RDS_STORAGE_FREE = Gauge(
    "rds_storage_free_bytes",
    "Disk space that is free.",
    open_labels=RDS_LABELS,
    cloudwatch=(CloudWatch(namespace="AWS/RDS", name="FreeStorageSpace", statistic="Minimum", dimensions=_INSTANCE),),
)

RDS_STORAGE_FREE_RATIO = Gauge(
    "rds_storage_free_ratio",
    "Free disk space among all that is allocated, or may be where storage grows by itself, 0 to 1.",
    open_labels=RDS_LABELS,
)

RDS_DISK_QUEUE_DEPTH = Gauge(
    "rds_disk_queue_operations",
    "Disk operations that wait.",
    open_labels=RDS_LABELS,
    cloudwatch=(CloudWatch(namespace="AWS/RDS", name="DiskQueueDepth", statistic="Average", dimensions=_INSTANCE),),
)

RDS_BURST_BALANCE = Gauge(
    "rds_burst_balance_ratio",
    "What is left of a burst bucket, 0 to 1: a gp2 volume's, or the instance's own towards its disks.",
    labels={"bucket": ("volume", "instance_operations", "instance_bytes")},
    open_labels=RDS_LABELS,
    cloudwatch=(
        CloudWatch(
            namespace="AWS/RDS",
            name="BurstBalance",
            statistic="Minimum",
            dimensions=_INSTANCE,
            factor=PERCENT,
            labels={"bucket": "volume"},
        ),
        CloudWatch(
            namespace="AWS/RDS",
            name="EBSIOBalance%",
            statistic="Minimum",
            dimensions=_INSTANCE,
            factor=PERCENT,
            labels={"bucket": "instance_operations"},
        ),
        CloudWatch(
            namespace="AWS/RDS",
            name="EBSByteBalance%",
            statistic="Minimum",
            dimensions=_INSTANCE,
            factor=PERCENT,
            labels={"bucket": "instance_bytes"},
        ),
    ),
)

RDS_TRANSACTION_IDS_USED = Gauge(
    "rds_transaction_ids_used",
    "Transaction ids since the oldest that is still needed; PostgreSQL stops writing before 2,147,483,648.",
    open_labels=RDS_LABELS,
    cloudwatch=(
        CloudWatch(namespace="AWS/RDS", name="MaximumUsedTransactionIDs", statistic="Maximum", dimensions=_INSTANCE),
    ),
)

RDS_REPLICATION_SLOT_LAG = Gauge(
    "rds_replication_slot_lag_bytes",
    "Write-ahead log that the slot furthest behind keeps on the disk.",
    open_labels=RDS_LABELS,
    cloudwatch=(
        CloudWatch(namespace="AWS/RDS", name="OldestReplicationSlotLag", statistic="Maximum", dimensions=_INSTANCE),
    ),
)

RDS_WAL_DISK = Gauge(
    "rds_wal_disk_bytes",
    "Disk space that the write-ahead log takes.",
    open_labels=RDS_LABELS,
    cloudwatch=(
        CloudWatch(namespace="AWS/RDS", name="TransactionLogsDiskUsage", statistic="Maximum", dimensions=_INSTANCE),
    ),
)

RDS_INFO = Gauge(
    "rds_info",
    "1, with what the instance is.",
    open_labels=(*RDS_LABELS, "instance_class", "engine_version", "availability_zone"),
)

RDS_METRICS = (
    RDS_DISK_LATENCY,
    RDS_DISK_OPERATIONS,
    RDS_CONNECTIONS,
    RDS_AVAILABLE,
    RDS_MULTI_AZ,
    RDS_FAILOVERS,
    RDS_REPLICA_LAG,
    RDS_CPU_UTILIZATION,
    RDS_LOAD_RELATIVE,
    RDS_LOAD,
    RDS_LOAD_BY_WAIT,
    RDS_CONNECTIONS_USED,
    RDS_MEMORY_FREEABLE,
    RDS_MEMORY_FREEABLE_RATIO,
    RDS_STORAGE_FREE,
    RDS_STORAGE_FREE_RATIO,
    RDS_DISK_QUEUE_DEPTH,
    RDS_BURST_BALANCE,
    RDS_TRANSACTION_IDS_USED,
    RDS_REPLICATION_SLOT_LAG,
    RDS_WAL_DISK,
    RDS_INFO,
)
