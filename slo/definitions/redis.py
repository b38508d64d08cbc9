"""What we expect of Valkey on ElastiCache, which answers replays and counts quotas, and what may soon hurt it.

No redemption waits for it, so nobody is woken. Limits are those of AWS's recommended alarms (Amazon CloudWatch User
Guide, "Recommended alarms: Amazon ElastiCache") unless another source is named.
"""

from datetime import timedelta
from decimal import Decimal

from slo import Alert, Rolling, Severity, Slo, TimeSlice
from slo.causes import Cause, Component, Query, Signal, Source, Threshold
from slo.metrics import REDEMPTION_VALKEY_CALLS
from slo.metrics.redis import (
    ELASTICACHE_ALLOWANCE_EXCEEDED,
    ELASTICACHE_AUTOMATIC_FAILOVER,
    ELASTICACHE_COMMANDS,
    ELASTICACHE_CONNECTIONS,
    ELASTICACHE_ENGINE_CPU_UTILIZATION,
    ELASTICACHE_EVICTIONS,
    ELASTICACHE_FAILOVERS,
    ELASTICACHE_MEMORY_USED,
    ELASTICACHE_METRICS,
    ELASTICACHE_REPLICATION_LAG,
    ELASTICACHE_REQUEST_LATENCY,
    ELASTICACHE_TRAFFIC_MANAGEMENT,
    REDIS_CLUSTER_CONNECTED_REPLICAS,
    REDIS_CLUSTER_MASTER_LINK_UP,
    REDIS_CLUSTER_METRICS,
    REDIS_CLUSTER_REJECTED_CONNECTIONS,
    REDIS_CLUSTER_SLOTS_OK,
    REDIS_CLUSTER_STATE_OK,
    REDIS_EXPORTER_NAMES,
)
from slo.runbook import Runbook, Step

OWNER = "loyalty-sre"
MONTH = Rolling(days=30)
MINUTE = timedelta(minutes=1)

sources = (
    Source(component=Component.REDIS, process="exporters", metrics=ELASTICACHE_METRICS),
    Source(
        component=Component.REDIS,
        process="exporters",
        metrics=REDIS_CLUSTER_METRICS,
        other_names=REDIS_EXPORTER_NAMES,
        other="redis_exporter",
    ),
)

_GROUP = (
    'aws elasticache describe-replication-groups --replication-group-id "$GROUP" '
    "--query 'ReplicationGroups[0].[Status,AutomaticFailover,NodeGroups]'  # as ElastiCache sees it"
)
_EVENTS = "aws elasticache describe-events --duration 1440  # what happened in a day"
_SLOW = 'valkey-cli -h "$NODE" --tls slowlog get 20  # the slowest commands of that node'
_CLUSTER = 'valkey-cli -h "$NODE" --tls cluster nodes  # who has which slots, and who is down'

# --- promises -------------------------------------------------------------------------------------------------------

availability = Slo(
    service="redis",
    name="availability",
    component=Component.REDIS,
    signals=(Signal.ERRORS,),
    description="The cluster takes commands for every key.",
    objective=Decimal("99.9"),
    window=MONTH,
    sli=TimeSlice(REDIS_CLUSTER_STATE_OK.where(), bad_below=Decimal(1)),
    reason=(
        "No redemption waits for it: without it a replay asks the ledger. So less than AWS's own 99.99 % for Multi-AZ "
        "(aws.amazon.com/elasticache/sla); 43 minutes a month are the failovers of all shards, many times over."
    ),
    owner=OWNER,
    alerts=(Alert(Severity.TICKET),),
    absent_after=15 * MINUTE,
    runbook=Runbook(
        impact=(
            "Guests notice nothing: no redemption waits for Valkey. Replays ask the ledger, which is more load, and "
            "limits of clients are counted by each pod for itself, so a client may send more than it agreed to."
        ),
        diagnosis=(_CLUSTER, _GROUP, _EVENTS),
        mitigation=(
            Step(
                "Wait a minute",
                "a failover is under way",
                "none",
            ),
            Step(
                "`aws elasticache test-failover --replication-group-id NAME --node-group-id SHARD`",
                "a shard has no primary, and a replica lives",
                "writes of the last moment are lost: hints and counts, no points",
            ),
            Step(
                "Run without it: unset `REDEMPTION_VALKEY_URL`, and roll the pods",
                "it hurts more than it helps, as calls hang",
                "no shared limits: watch the load on the ledger",
            ),
        ),
        escalation="Working hours, unless a promise of the redemption pages as well: then tell whoever works on that.",
    ),
)

latency = Slo(
    service="redis",
    name="latency",
    component=Component.REDIS,
    signals=(Signal.LATENCY,),
    description="99 in 100 requests take less than 5 ms in the server.",
    objective=Decimal(99),
    window=MONTH,
    sli=TimeSlice(ELASTICACHE_REQUEST_LATENCY.where(), bad_above=Decimal("0.005")),
    reason=(
        "Commands take microseconds (Amazon ElastiCache User Guide: below one millisecond); 5 ms are a "
        "node that is busy. "
        "The service gives up long before a guest could notice, so 1 % of a month may be so."
    ),
    owner=OWNER,
    alerts=(Alert(Severity.TICKET),),
    absent_after=15 * MINUTE,
    runbook=Runbook(
        impact=(
            "Guests notice nothing: the service gives up on Valkey long before they could. More replays go to the "
            "ledger."
        ),
        diagnosis=(_SLOW, _CLUSTER, _GROUP),
        mitigation=(
            Step(
                "Stop what sends the slowest commands",
                "the slow log shows commands that are not the service's",
                "whoever needs them must find another way",
            ),
            Step(
                "Add a shard",
                "one engine's processor is busy",
                "keys move for half an hour, which is load itself",
            ),
            Step(
                "Take a larger node type",
                "the network of a node is at its limit",
                "a failover for each shard",
            ),
        ),
        escalation="Working hours.",
    ),
)

# --- causes ---------------------------------------------------------------------------------------------------------

_BIG = 'valkey-cli -h "$NODE" --tls --bigkeys  # the largest keys; it scans all of them, slowly'

causes = (
    Cause(
        component=Component.REDIS,
        signal=Signal.TRAFFIC,
        name="shard-hot",
        summary="A shard has more than twice the commands of the others.",
        condition=Query(
            promql=(
                "sum by (replication_group, shard) (rate(elasticache_commands_total[5m]))\n"
                "> on (replication_group) group_left\n"
                "2 * avg by (replication_group) (\n"
                "  sum by (replication_group, shard) (rate(elasticache_commands_total[5m]))\n"
                ")\n"
                "and\n"
                "sum by (replication_group, shard) (rate(elasticache_commands_total[5m])) > 1000"
            ),
            metrics=(ELASTICACHE_COMMANDS,),
            fires={
                'elasticache_commands_total{node="a", operation="write", replication_group="r", shard="1"}': "0+120000",
                'elasticache_commands_total{node="b", operation="write", replication_group="r", shard="2"}': "0+6000",
                'elasticache_commands_total{node="c", operation="write", replication_group="r", shard="3"}': "0+6000",
            },
            near_miss={
                'elasticache_commands_total{node="a", operation="write", replication_group="r", shard="1"}': "0+120000",
                'elasticache_commands_total{node="b", operation="write", replication_group="r", shard="2"}': "0+60000",
                'elasticache_commands_total{node="c", operation="write", replication_group="r", shard="3"}': "0+60000",
            },
        ),
        hold=30 * MINUTE,
        reason=(
            "Keys are spread by their hash, so shards are within a few percent of each other; twice the "
            "mean is one key, "
            "and more nodes do not help. Under 1,000 a second even one key is no load."
        ),
        owner=OWNER,
        diagnosis=('valkey-cli -h "$NODE" --tls --hotkeys  # which key it is; needs an LFU policy', _SLOW),
        mitigation=(
            "Find the client or the account behind the key, and limit it; splitting the shard does not split a key."
        ),
    ),
    Cause(
        component=Component.REDIS,
        signal=Signal.TRAFFIC,
        name="traffic-managed",
        summary="ElastiCache slows the traffic to a node down.",
        condition=Threshold(gauge=ELASTICACHE_TRAFFIC_MANAGEMENT.where(), above=Decimal(0)),
        hold=5 * MINUTE,
        reason="AWS: active for 5 of 10 minutes means that the node is too small for what is asked of it.",
        owner=OWNER,
        diagnosis=(_SLOW, _GROUP),
        mitigation="Take a larger node type, or more shards; both work online, and move keys for a while.",
    ),
    Cause(
        component=Component.REDIS,
        signal=Signal.ERRORS,
        name="slots-missing",
        summary="Some slots of the cluster have no node that answers.",
        condition=Threshold(gauge=REDIS_CLUSTER_SLOTS_OK.where(), below=Decimal(16_384)),
        hold=2 * MINUTE,
        reason="All slots are 16,384 (Valkey cluster specification); a failover of a shard takes well under a minute.",
        owner=OWNER,
        diagnosis=(_CLUSTER, _EVENTS),
        mitigation="If no replica took over, start a failover of that shard; writes of the last moment may be lost.",
    ),
    Cause(
        component=Component.REDIS,
        signal=Signal.ERRORS,
        name="calls-fail",
        summary="One in twenty of the service's calls to Valkey fails.",
        condition=Query(
            promql=(
                'sum(rate(redemption_valkey_calls_total{outcome=~"error|timeout"}[10m]))\n'
                "> 0.05 * sum(rate(redemption_valkey_calls_total[10m]))"
            ),
            metrics=(REDEMPTION_VALKEY_CALLS,),
            fires={
                'redemption_valkey_calls_total{outcome="timeout"}': "0+60",
                'redemption_valkey_calls_total{outcome="ok"}': "0+1000",
            },
            near_miss={
                'redemption_valkey_calls_total{outcome="timeout"}': "0+50",
                'redemption_valkey_calls_total{outcome="ok"}': "0+1000",
            },
        ),
        hold=10 * MINUTE,
        reason=(
            "As the service sees it, with the network between. A call that fails costs no redemption, but "
            "a twentieth for "
            "ten minutes is more than a failover: rate limits and hints are no longer shared."
        ),
        owner=OWNER,
        diagnosis=(_CLUSTER, _SLOW),
        mitigation="Look whether one node or one pod has all of them; restart that pod. Redemptions go on meanwhile.",
    ),
    Cause(
        component=Component.REDIS,
        signal=Signal.ERRORS,
        name="failed-over",
        summary="Another node became the primary of a shard.",
        condition=Query(
            promql="increase(elasticache_failovers_total[15m]) > 0",
            metrics=(ELASTICACHE_FAILOVERS,),
            fires={'elasticache_failovers_total{shard="1"}': "0+1"},
            near_miss={'elasticache_failovers_total{shard="1"}': "3"},
        ),
        hold=MINUTE,
        reason="One is too many not to know why: what was written in its last moment may be lost.",
        owner=OWNER,
        diagnosis=(_EVENTS, _GROUP),
        mitigation="Nothing, if the service is well; hints that are lost are asked of the ledger.",
    ),
    Cause(
        component=Component.REDIS,
        signal=Signal.ERRORS,
        name="failover-off",
        summary="No replica takes over by itself.",
        condition=Threshold(gauge=ELASTICACHE_AUTOMATIC_FAILOVER.where(), below=Decimal(1)),
        hold=15 * MINUTE,
        reason="AWS's 99.99 % holds only with automatic failover; a change of the group switches it off for minutes.",
        owner=OWNER,
        diagnosis=(_GROUP,),
        mitigation="Switch it on; a group needs a replica in each shard for it.",
    ),
    Cause(
        component=Component.REDIS,
        signal=Signal.ERRORS,
        name="primary-alone",
        summary="A primary has no replica.",
        condition=Query(
            promql="redis_cluster_connected_replicas < 1\nunless on (name, node)\nredis_cluster_master_link_up",
            metrics=(REDIS_CLUSTER_CONNECTED_REPLICAS, REDIS_CLUSTER_MASTER_LINK_UP),
            fires={'redis_cluster_connected_replicas{name="main", node="10.0.0.1:6379"}': "0"},
            near_miss={
                'redis_cluster_connected_replicas{name="main", node="10.0.0.2:6379"}': "0",
                'redis_cluster_master_link_up{name="main", node="10.0.0.2:6379"}': "1",
            },
        ),
        hold=15 * MINUTE,
        reason=(
            "Its end would be the end of its keys. ElastiCache replaces a node within minutes; a quarter of "
            "an hour is stuck."
        ),
        owner=OWNER,
        diagnosis=(_CLUSTER, _GROUP),
        mitigation="Add a replica to the shard; the copy takes memory on the primary for a while.",
    ),
    Cause(
        component=Component.REDIS,
        signal=Signal.ERRORS,
        name="replica-behind",
        summary="A replica is more than five seconds behind.",
        condition=Threshold(gauge=ELASTICACHE_REPLICATION_LAG.where(), above=Decimal(5)),
        hold=15 * MINUTE,
        reason=(
            "AWS recommends an alarm for 15 of 15 minutes; replicas are milliseconds behind, at 5 s a "
            "failover loses that."
        ),
        owner=OWNER,
        diagnosis=(_SLOW, _GROUP),
        mitigation="Find the writes that are too many or too large for the network of the node.",
    ),
    Cause(
        component=Component.REDIS,
        signal=Signal.SATURATION,
        name="engine-busy",
        summary="The engine's one thread is busy for most of the time.",
        condition=Threshold(gauge=ELASTICACHE_ENGINE_CPU_UTILIZATION.where(), above=Decimal("0.7")),
        hold=15 * MINUTE,
        reason=(
            "AWS recommends an alarm at 90 % for 5 minutes; from 70 % on waiting grows faster than load, "
            "and a shard more takes half an hour to move its keys."
        ),
        owner=OWNER,
        diagnosis=(_SLOW,),
        mitigation="Add shards; end what sends the slowest commands.",
    ),
    Cause(
        component=Component.REDIS,
        signal=Signal.SATURATION,
        name="memory-high",
        summary="A node's memory is four fifths full.",
        condition=Threshold(gauge=ELASTICACHE_MEMORY_USED.where(), above=Decimal("0.8")),
        hold=15 * MINUTE,
        reason=(
            "Above it a copy for a replica or a backup may not find room (a fork keeps what changes twice), "
            "and at 100 % keys are evicted or writes refused."
        ),
        owner=OWNER,
        diagnosis=(_BIG,),
        mitigation="Add shards, or shorten the time that keys live.",
    ),
    Cause(
        component=Component.REDIS,
        signal=Signal.SATURATION,
        name="evicting",
        summary="Keys are thrown away for want of memory.",
        condition=Query(
            promql="increase(elasticache_evictions_total[5m]) > 0",
            metrics=(ELASTICACHE_EVICTIONS,),
            fires={'elasticache_evictions_total{node="redemption-0001-001"}': "0+1"},
            near_miss={'elasticache_evictions_total{node="redemption-0001-001"}': "9"},
        ),
        hold=10 * MINUTE,
        reason=(
            "All our keys have an end of their own, so a node that evicts has lost hints and quotas before their time."
        ),
        owner=OWNER,
        diagnosis=(_BIG, _GROUP),
        mitigation="Add shards. A quota that is lost begins anew; a hint that is lost is asked of the ledger.",
    ),
    Cause(
        component=Component.REDIS,
        signal=Signal.SATURATION,
        name="network-throttled",
        summary="A node is beyond what its size may send or receive.",
        condition=Query(
            promql="increase(elasticache_network_allowance_exceeded_total[5m]) > 0",
            metrics=(ELASTICACHE_ALLOWANCE_EXCEEDED,),
            fires={
                'elasticache_network_allowance_exceeded_total{allowance="bandwidth_out", node="redemption-0001-001"}': (
                    "0+1"
                )
            },
            near_miss={
                'elasticache_network_allowance_exceeded_total{allowance="bandwidth_out", node="redemption-0001-001"}': (
                    "9"
                )
            },
        ),
        hold=5 * MINUTE,
        reason=(
            "AWS queues and drops packets in silence: slow answers beside idle processors. Any for five "
            "minutes is real."
        ),
        owner=OWNER,
        diagnosis=(_BIG, _SLOW),
        mitigation="Take a node type with more network, or read less at once.",
    ),
    Cause(
        component=Component.REDIS,
        signal=Signal.SATURATION,
        name="connections-high",
        summary="A node has most of the connections that it may have.",
        condition=Threshold(gauge=ELASTICACHE_CONNECTIONS.where(), above=Decimal(52_000)),
        hold=5 * MINUTE,
        reason="80 % of the 65,000 that a node takes (Amazon ElastiCache User Guide, quotas).",
        owner=OWNER,
        diagnosis=(
            'valkey-cli -h "$NODE" --tls client list | cut -d" " -f2 | sort | uniq -c | sort -rn  # from where',
        ),
        mitigation="Restart the clients that leave connections open.",
    ),
    Cause(
        component=Component.REDIS,
        signal=Signal.SATURATION,
        name="connections-refused",
        summary="A node refuses connections.",
        condition=Query(
            promql="increase(redis_cluster_rejected_connections_total[5m]) > 0",
            metrics=(REDIS_CLUSTER_REJECTED_CONNECTIONS,),
            fires={'redis_cluster_rejected_connections_total{name="main", node="10.0.0.1:6379"}': "0+1"},
            near_miss={'redis_cluster_rejected_connections_total{name="main", node="10.0.0.1:6379"}': "9"},
        ),
        hold=2 * MINUTE,
        reason="It refuses only when it has maxclients already; each refusal is a pod without a part of its keys.",
        owner=OWNER,
        diagnosis=('valkey-cli -h "$NODE" --tls info clients  # how many, and of how many',),
        mitigation="Restart the clients that leave connections open.",
    ),
)
