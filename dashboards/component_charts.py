"""What is shown of each component, by golden signal: beside what its causes judge, every metric that there is of it."""

from __future__ import annotations

from collections.abc import Mapping

from dashboards.charts import Chart, Choice, Look
from slo.causes import Component, Signal
from slo.metrics import edge, eks, queue, rds, redis
from slo.metrics import redemption as service

Charts = Mapping[Signal, tuple[Chart, ...]]

CHOICES: Mapping[Component, Choice] = {
    Component.SERVICE: Choice("instance", "Pod", service.REDEMPTION_REQUESTS_IN_FLIGHT),
    Component.RDS: Choice("db_instance", "Instance", rds.RDS_AVAILABLE),
    Component.REDIS: Choice("replication_group", "Replication group", redis.ELASTICACHE_AVAILABLE),
    Component.EKS: Choice("namespace", "Namespace", eks.KUBE_DEPLOYMENT_REPLICAS),
    Component.EDGE: Choice("load_balancer", "Load balancer", edge.ALB_REQUESTS),
    Component.QUEUE: Choice("queue", "Queue", queue.SQS_MESSAGES_VISIBLE),
}

# The requests that the promises of latency judge.
_ANSWERED = service.REDEMPTION_REQUEST_DURATION.where(route=service.REDEEM_ROUTE, outcome=("ok", "deferred", "refused"))

_SERVICE: Charts = {
    Signal.LATENCY: (
        Chart("Redemptions", _ANSWERED, more="A point is the trace of one redemption; a click opens it."),
        Chart("Spread of redemptions", _ANSWERED, Look.SPREAD, more="Two bands are two kinds of redemptions."),
        Chart("Slowest in a hundred, by route", service.REDEMPTION_REQUEST_DURATION, by=("route",)),
        Chart("Waiting of a batch", service.REDEMPTION_BATCH_WAIT),
        Chart("Calls of the ledger", service.REDEMPTION_BATCH_DURATION, more="Slow here is slow in the database."),
        Chart("Oldest deferred redemption", service.REDEMPTION_DEFERRED_OLDEST_ACCEPTED, Look.AGE, fold="max"),
        Chart("Verification of the ledger", service.REDEMPTION_LEDGER_VERIFICATION_DURATION, fold="max"),
    ),
    Signal.TRAFFIC: (
        Chart("Requests by route", service.REDEMPTION_REQUESTS, by=("route",)),
        Chart("Requests by outcome", service.REDEMPTION_REQUESTS, by=("outcome",)),
        Chart(
            "Points",
            {
                "redeemed": service.REDEMPTION_POINTS_REDEEMED,
                "settled": service.REDEMPTION_POINTS_SETTLED,
                "refunded": service.REDEMPTION_POINTS_REFUNDED,
                "expired": service.REDEMPTION_POINTS_EXPIRED,
            },
        ),
        Chart("Replays", service.REDEMPTION_REPLAYS, more="Many are clients that did not see our answer."),
        Chart("Deferred and settled", {"settled": service.REDEMPTION_SETTLED, "deferred": service.REDEMPTION_DEFERRED}),
        Chart("Holds that expired", service.REDEMPTION_HOLDS_EXPIRED),
    ),
    Signal.ERRORS: (
        Chart("Bad answers", service.REDEMPTION_REQUESTS.where(outcome=service.BAD_OUTCOMES), by=("outcome", "route")),
        Chart("Turned away", service.REDEMPTION_SHED),
        Chart("Goes to the queue", service.REDEMPTION_FALLBACK_ACTIVE, Look.STATES),
        Chart("Mismatches of the ledger", service.REDEMPTION_LEDGER_MISMATCHES, fold="max"),
        Chart("Last verification", service.REDEMPTION_LEDGER_VERIFIED, Look.AGE, fold="min"),
        Chart("Last seal", service.REDEMPTION_CHAIN_SEALED, Look.AGE, fold="min"),
        Chart("Calls to Valkey", service.REDEMPTION_VALKEY_CALLS),
        Chart("Given up without Valkey", service.REDEMPTION_VALKEY_DROPPED),
    ),
    Signal.SATURATION: (
        Chart(
            "In work, and the limit",
            {"limit": service.REDEMPTION_ADMISSION_LIMIT, "in work": service.REDEMPTION_REQUESTS_IN_FLIGHT},
            fold="sum",
        ),
        Chart("Connections to the ledger", service.REDEMPTION_DATABASE_CONNECTIONS, fold="sum"),
        Chart("Size of a batch", service.REDEMPTION_BATCH_SIZE),
        Chart("Messages of the queue", service.REDEMPTION_QUEUE_MESSAGES, fold="max"),
        Chart("Rows that are not sealed", service.REDEMPTION_CHAIN_BACKLOG, fold="max"),
    ),
}

_RDS: Charts = {
    Signal.LATENCY: (
        Chart("Disk latency", rds.RDS_DISK_LATENCY),
        Chart("Disk queue", rds.RDS_DISK_QUEUE_DEPTH),
    ),
    Signal.TRAFFIC: (
        Chart("Disk reads", rds.RDS_DISK_OPERATIONS.where(operation="read")),
        Chart("Disk writes", rds.RDS_DISK_OPERATIONS.where(operation="write")),
        Chart("Connections", rds.RDS_CONNECTIONS),
    ),
    Signal.ERRORS: (
        Chart("Available", rds.RDS_AVAILABLE, Look.STATES),
        Chart("Lag of replicas", rds.RDS_REPLICA_LAG, more="No replica, no line."),
        Chart("What there is", rds.RDS_INFO, Look.STATES, by=("db_instance", "instance_class", "engine_version")),
    ),
    Signal.SATURATION: (
        Chart("Load per processor", rds.RDS_LOAD_RELATIVE),
        Chart("Load: working and waiting", rds.RDS_LOAD, more="Much waiting beside little work is a lock or a disk."),
        Chart("What sessions wait for", rds.RDS_LOAD_BY_WAIT, more="CPU are sessions that work."),
        Chart("Processors", rds.RDS_CPU_UTILIZATION),
        Chart("Connections in use", rds.RDS_CONNECTIONS_USED),
        Chart("Memory that is free", rds.RDS_MEMORY_FREEABLE_RATIO),
        Chart("Memory in bytes", rds.RDS_MEMORY_FREEABLE),
        Chart("Disk that is free", rds.RDS_STORAGE_FREE_RATIO),
        Chart("Disk in bytes", rds.RDS_STORAGE_FREE),
        Chart("Burst credits", rds.RDS_BURST_BALANCE),
        Chart("Transaction ids", rds.RDS_TRANSACTION_IDS_USED),
        Chart("Lag of replication slots", rds.RDS_REPLICATION_SLOT_LAG),
        Chart("Write-ahead log in bytes", rds.RDS_WAL_DISK),
    ),
}

_REDIS: Charts = {
    Signal.LATENCY: (Chart("Slowest in a hundred", redis.ELASTICACHE_REQUEST_LATENCY),),
    Signal.TRAFFIC: (
        Chart("Commands by shard", redis.ELASTICACHE_COMMANDS, by=("replication_group", "shard", "operation")),
        Chart("Connections opened", redis.ELASTICACHE_CONNECTIONS_OPENED, more="Many are clients that do not pool."),
        Chart("Slowed down by AWS", redis.ELASTICACHE_TRAFFIC_MANAGEMENT, Look.STATES),
    ),
    Signal.ERRORS: (
        Chart("Available", redis.ELASTICACHE_AVAILABLE, Look.STATES),
        Chart("Takes commands", redis.REDIS_CLUSTER_STATE_OK, Look.STATES),
        Chart("Failover by itself", redis.ELASTICACHE_AUTOMATIC_FAILOVER, Look.STATES),
        Chart("Primaries", redis.ELASTICACHE_PRIMARY, Look.STATES),
        Chart("Nodes that answer", redis.REDIS_CLUSTER_NODE_UP, Look.STATES),
        Chart("Replicas that hear their primary", redis.REDIS_CLUSTER_MASTER_LINK_UP, Look.STATES),
        Chart("Slots that answer", redis.REDIS_CLUSTER_SLOTS_OK),
        Chart(
            "Slots assigned and failed",
            {
                "assigned": redis.REDIS_CLUSTER_SLOTS_ASSIGNED,
                "failed": redis.REDIS_CLUSTER_SLOTS_FAIL,
            },
        ),
        Chart("Nodes known", redis.REDIS_CLUSTER_KNOWN_NODES),
        Chart("Lag of replicas", redis.ELASTICACHE_REPLICATION_LAG),
        Chart("Commands that failed", redis.ELASTICACHE_ERRORS),
    ),
    Signal.SATURATION: (
        Chart("The engine's thread", redis.ELASTICACHE_ENGINE_CPU_UTILIZATION),
        Chart("Processors", redis.ELASTICACHE_CPU_UTILIZATION),
        Chart("Memory", redis.ELASTICACHE_MEMORY_USED),
        Chart("Memory of nodes", {"used": redis.REDIS_CLUSTER_MEMORY_USED, "limit": redis.REDIS_CLUSTER_MEMORY_MAX}),
        Chart("Connections", redis.ELASTICACHE_CONNECTIONS),
    ),
}

_EKS: Charts = {
    Signal.LATENCY: (Chart("Pods that wait to run", eks.KARPENTER_POD_UNSTARTED),),
    Signal.TRAFFIC: (
        Chart("Pods wanted", eks.KUBE_DEPLOYMENT_REPLICAS),
        Chart("Restarts of containers", eks.KUBE_CONTAINER_RESTARTS, by=("namespace",)),
    ),
    Signal.ERRORS: (
        Chart("Nodes that are ready", eks.KUBE_NODE_CONDITION.where(condition="Ready", status="true"), Look.STATES),
        Chart("Nodes ready, by zone", eks.EKS_ZONE_READY_NODES),
        Chart("Pods, by zone", eks.EKS_WORKLOAD_ZONE_PODS, more="Even is good: the loss of a zone takes its share."),
        Chart("Karpenter sees the cluster", eks.KARPENTER_SYNCED, Look.STATES),
        Chart("Containers that wait", eks.KUBE_CONTAINER_WAITING, fold="sum"),
        Chart("How containers ended the last time", eks.KUBE_CONTAINER_TERMINATED, fold="sum"),
    ),
    Signal.SATURATION: (
        Chart("Idle headroom", eks.EKS_IDLE_HEADROOM, more="For the first minutes of a sale, or the loss of a zone."),
        Chart("Pods that fit on no node", eks.KUBE_POD_STATUS_UNSCHEDULABLE, by=("namespace", "pod")),
        Chart("Pods that may be moved", eks.KUBE_PDB_ALLOWED),
    ),
}

_EDGE: Charts = {
    Signal.LATENCY: (Chart("Fast and slow answers", edge.ALB_REQUEST_DURATIONS, by=("load_balancer", "speed")),),
    Signal.TRAFFIC: (
        Chart("Requests", edge.ALB_REQUESTS, by=("load_balancer", "outcome")),
        Chart("Web ACL", edge.WAF_REQUESTS.where(), by=("web_acl", "rule", "action")),
    ),
    Signal.ERRORS: (
        Chart("Reached from outside", edge.ROUTE53_HEALTH_CHECK_HEALTHY, Look.STATES),
        Chart("Failed answers", edge.ALB_REQUESTS.where(outcome=("target_error", "elb_error")), by=("outcome",)),
        Chart("Unhealthy targets", edge.ALB_UNHEALTHY_HOSTS, by=("target_group",)),
    ),
    Signal.SATURATION: (Chart("Healthy targets", edge.ALB_HEALTHY_HOSTS, by=("target_group",)),),
}

_QUEUE: Charts = {
    Signal.LATENCY: (
        Chart("Oldest message", queue.SQS_OLDEST_MESSAGE_AGE.where(role="work")),
        Chart("Oldest dead letter", queue.SQS_OLDEST_MESSAGE_AGE.where(role="dead_letter")),
    ),
    Signal.TRAFFIC: (
        Chart(
            "Sent and dealt with",
            {
                "sent": queue.SQS_MESSAGES_SENT.where(role="work"),
                "dealt with": queue.SQS_MESSAGES_DELETED.where(role="work"),
            },
        ),
    ),
    Signal.ERRORS: (Chart("Dead letters", queue.SQS_MESSAGES_VISIBLE.where(role="dead_letter")),),
    Signal.SATURATION: (
        Chart("Messages that wait", queue.SQS_MESSAGES_VISIBLE.where(role="work")),
        Chart("Messages in flight", queue.SQS_MESSAGES_IN_FLIGHT.where(role="work")),
    ),
}

CHARTS: Mapping[Component, Charts] = {
    Component.SERVICE: _SERVICE,
    Component.RDS: _RDS,
    Component.REDIS: _REDIS,
    Component.EKS: _EKS,
    Component.EDGE: _EDGE,
    Component.QUEUE: _QUEUE,
}
