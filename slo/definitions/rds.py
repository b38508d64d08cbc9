"""What we expect of the database that keeps the ledger (RDS for PostgreSQL), and what may soon hurt it.

Nobody is woken by these: when guests are hurt, the promises of the redemption and of the edge page. Limits are those
of AWS's recommended alarms (Amazon CloudWatch User Guide, "Recommended alarms: Amazon RDS") unless another source is
named.
"""

from datetime import timedelta
from decimal import Decimal

from slo import Alert, Rolling, Severity, Slo, TimeSlice
from slo.causes import Cause, Component, Query, Signal, Source, Threshold
from slo.metrics.rds import (
    RDS_AVAILABLE,
    RDS_BURST_BALANCE,
    RDS_CONNECTIONS_USED,
    RDS_CPU_UTILIZATION,
    RDS_DISK_LATENCY,
    RDS_DISK_OPERATIONS,
    RDS_DISK_QUEUE_DEPTH,
    RDS_FAILOVERS,
    RDS_LOAD_RELATIVE,
    RDS_MEMORY_FREEABLE_RATIO,
    RDS_METRICS,
    RDS_MULTI_AZ,
    RDS_REPLICA_LAG,
    RDS_REPLICATION_SLOT_LAG,
    RDS_STORAGE_FREE,
    RDS_STORAGE_FREE_RATIO,
    RDS_TRANSACTION_IDS_USED,
    RDS_WAL_DISK,
)
from slo.runbook import Runbook, Step

OWNER = "loyalty-sre"
MONTH = Rolling(days=30)
MINUTE = timedelta(minutes=1)
_GIB = 1024**3

sources = (Source(component=Component.RDS, process="exporters", metrics=RDS_METRICS),)

_ACTIVITY = (
    'psql "$LEDGER_URL" --command "select state, wait_event_type, count(*) from pg_stat_activity group by 1, 2'
    ' order by 3 desc"'
    "  # who works, who waits, and for what"
)
_LONGEST = (
    'psql "$LEDGER_URL" --command "select pid, now() - xact_start as open, left(query, 80) from pg_stat_activity'
    ' where xact_start is not null order by 2 desc limit 10"  # the longest transactions'
)
_INSTANCE = (
    'aws rds describe-db-instances --db-instance-identifier "$INSTANCE" '
    "--query 'DBInstances[0].[DBInstanceStatus,MultiAZ,AllocatedStorage,DBInstanceClass]'  # as RDS sees it"
)
_EVENTS = (
    'aws rds describe-events --source-type db-instance --source-identifier "$INSTANCE" --duration 1440  # what happened'
)

# --- promises -------------------------------------------------------------------------------------------------------

availability = Slo(
    service="rds",
    name="availability",
    component=Component.RDS,
    signals=(Signal.ERRORS,),
    description="The database takes connections.",
    objective=Decimal("99.95"),
    window=MONTH,
    sli=TimeSlice(RDS_AVAILABLE.where(), bad_below=Decimal(1)),
    reason=(
        "AWS promises 99.95 % a month for Multi-AZ instances (aws.amazon.com/rds/sla). That is 21 minutes, "
        "or about ten failovers of two minutes each."
    ),
    owner=OWNER,
    alerts=(Alert(Severity.TICKET),),
    absent_after=15 * MINUTE,
    runbook=Runbook(
        impact=(
            "Redemptions go to the queue: guests are told that their points are settled soon. Balances and statements "
            "fail. After five minutes the first guests wait longer than we promise, and the redemption's own "
            "alerts page."
        ),
        diagnosis=(_INSTANCE, _EVENTS, _ACTIVITY),
        mitigation=(
            Step(
                "Wait two minutes",
                "RDS says that it fails over or restarts",
                "none: the queue takes the redemptions",
            ),
            Step(
                "`aws rds reboot-db-instance --force-failover --db-instance-identifier NAME`",
                "it is `available` for RDS, takes no connections, and has a standby",
                "one or two minutes more without a database",
            ),
            Step(
                "Restore to a point in time, beside the old instance",
                "storage or instance are lost in both zones",
                (
                    "hours; what was booked after that point is missing, and must be settled again from the queue and "
                    "the logs"
                ),
            ),
        ),
        escalation=(
            "When a redemption pages as well: call the database's on-call. No failover within five minutes: open a "
            "case with AWS as production system down."
        ),
    ),
)

disk_latency = Slo(
    service="rds",
    name="disk-latency",
    component=Component.RDS,
    signals=(Signal.LATENCY,),
    description="Nine of ten disk operations are done within 20 ms.",
    objective=Decimal(99),
    window=MONTH,
    sli=TimeSlice(RDS_DISK_LATENCY.where(), bad_above=Decimal("0.02")),
    reason=(
        "20 ms is AWS's recommended alarm; gp3 and io2 volumes answer within single milliseconds. 1 % of a month is "
        "7 hours, which backups and maintenance may take."
    ),
    owner=OWNER,
    alerts=(Alert(Severity.TICKET),),
    absent_after=15 * MINUTE,
    runbook=Runbook(
        impact=(
            "Every redemption waits for its commit to reach the disk, so guests feel it first as slowness at the desk."
        ),
        diagnosis=(
            _ACTIVITY,
            _LONGEST,
            _INSTANCE,
        ),
        mitigation=(
            Step(
                "End the query that reads most: `select pg_cancel_backend(PID)`",
                "a report or an export runs on the writer",
                "whoever runs it must ask again, of the reader",
            ),
            Step(
                "Raise the volume's IOPS or throughput",
                "the volume is at its limit",
                "costs; AWS allows the next change of it only after six hours",
            ),
            Step(
                "Wait",
                "a backup or AWS's maintenance is under way, and no redemption pages",
                "it may take an hour",
            ),
        ),
        escalation="Call the database's on-call when `RedemptionLatencyFastPage` fires as well. Else working hours.",
    ),
)

# --- causes ---------------------------------------------------------------------------------------------------------

_OLDEST_TABLES = (
    'psql "$LEDGER_URL" --command "select relname, age(relfrozenxid) from pg_class where relkind = \'r\''
    ' order by 2 desc limit 10"  # the tables that need vacuum most'
)
_SLOTS = (
    'psql "$LEDGER_URL" --command "select slot_name, active, pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)'
    ' from pg_replication_slots"'
    "  # who holds the log back, by how many bytes"
)
causes = (
    Cause(
        component=Component.RDS,
        signal=Signal.LATENCY,
        name="disk-queue-deep",
        summary="Disk operations of the database queue up.",
        condition=Threshold(gauge=RDS_DISK_QUEUE_DEPTH.where(), above=Decimal(64)),
        hold=15 * MINUTE,
        reason=(
            "AWS's own default for the alarm on DiskQueueDepth is 64, and a quarter of an hour lets a checkpoint or a "
            "backup pass."
        ),
        owner=OWNER,
        diagnosis=(_ACTIVITY, _LONGEST),
        mitigation="End the query that reads most, or raise the volume's IOPS: that takes effect within the hour.",
    ),
    Cause(
        component=Component.RDS,
        signal=Signal.TRAFFIC,
        name="writes-stopped",
        summary="Hardly anything is written to the database any more.",
        condition=Threshold(gauge=RDS_DISK_OPERATIONS.where(operation="write"), below=Decimal(1)),
        hold=15 * MINUTE,
        reason=(
            "Each batch of redemptions flushes the log, so 9 redemptions a second are several writes a second even in "
            "full batches; under 1 for a quarter of an hour nobody reaches the database, or nobody redeems."
        ),
        owner=OWNER,
        diagnosis=(_ACTIVITY, _INSTANCE),
        mitigation="Look at the redemption's board first: if guests are served, the figures are late, not the guests.",
    ),
    Cause(
        component=Component.RDS,
        signal=Signal.ERRORS,
        name="replica-behind",
        summary="A read replica is more than a minute behind.",
        condition=Threshold(gauge=RDS_REPLICA_LAG.where(), above=Decimal(60)),
        hold=10 * MINUTE,
        reason="AWS recommends 60 s for 10 minutes; an idle source alone makes up to 5 minutes of apparent lag.",
        owner=OWNER,
        diagnosis=(_LONGEST, _EVENTS),
        mitigation=(
            "End long queries on the replica: they hold back what it may apply. Reads from it are old meanwhile."
        ),
    ),
    Cause(
        component=Component.RDS,
        signal=Signal.ERRORS,
        name="replication-broken",
        summary="A read replica no longer follows.",
        condition=Threshold(gauge=RDS_REPLICA_LAG.where(), below=Decimal(0)),
        hold=5 * MINUTE,
        reason="RDS reports -1 while the replication is broken (Amazon RDS User Guide, monitoring read replicas).",
        owner=OWNER,
        diagnosis=(_EVENTS, _SLOTS),
        mitigation="Make the replica anew. Until then its slot may fill the source's disk: delete it if that is near.",
    ),
    Cause(
        component=Component.RDS,
        signal=Signal.ERRORS,
        name="no-standby",
        summary="The database has no standby in another zone.",
        condition=Query(
            promql=(
                "rds_multi_az_enabled < 1\nunless on (aws_account_id, aws_region, db_instance)\nrds_replica_lag_seconds"
            ),
            metrics=(RDS_MULTI_AZ, RDS_REPLICA_LAG),
            fires={'rds_multi_az_enabled{db_instance="ledger"}': "0"},
            near_miss={
                'rds_multi_az_enabled{db_instance="replica"}': "0",
                'rds_replica_lag_seconds{db_instance="replica"}': "0",
            },
        ),
        hold=15 * MINUTE,
        reason=(
            "99.95 % is promised for Multi-AZ only, and without a standby the loss of a zone is a restore of hours. "
            "A read replica needs none of its own."
        ),
        owner=OWNER,
        diagnosis=(_INSTANCE,),
        mitigation="Switch Multi-AZ on; it copies the volume, so do it outside of the busy hours.",
    ),
    Cause(
        component=Component.RDS,
        signal=Signal.ERRORS,
        name="failed-over",
        summary="The database failed over to its standby.",
        condition=Query(
            promql="increase(rds_failovers_total[15m]) > 0",
            metrics=(RDS_FAILOVERS,),
            fires={'rds_failovers_total{db_instance="ledger"}': "0+1"},
            near_miss={'rds_failovers_total{db_instance="ledger"}': "3"},
        ),
        hold=MINUTE,
        reason=(
            "One is too many not to know why: connections break for one or two minutes "
            "(Amazon RDS User Guide, Multi-AZ failover), and the next is the budget of a month's fifth."
        ),
        owner=OWNER,
        diagnosis=(_EVENTS, _INSTANCE),
        mitigation=(
            "Nothing, if the service is well again. Otherwise restart what still holds connections to the old one."
        ),
    ),
    Cause(
        component=Component.RDS,
        signal=Signal.SATURATION,
        name="load-high",
        summary="More sessions are active than the database has processors.",
        condition=Threshold(gauge=RDS_LOAD_RELATIVE.where(), above=Decimal(1)),
        hold=15 * MINUTE,
        reason=(
            "Above one session for each processor somebody waits (Amazon RDS User Guide, database load); "
            "15 of 15 minutes, as in AWS's recommended alarm."
        ),
        owner=OWNER,
        diagnosis=(_ACTIVITY, _LONGEST),
        mitigation="End what blocks others, or take a larger class: that is a failover.",
    ),
    Cause(
        component=Component.RDS,
        signal=Signal.SATURATION,
        name="cpu-high",
        summary="The database's processors are nearly all in use.",
        condition=Threshold(gauge=RDS_CPU_UTILIZATION.where(), above=Decimal("0.9")),
        hold=5 * MINUTE,
        reason="AWS recommends 90 % for 5 minutes.",
        owner=OWNER,
        diagnosis=(_ACTIVITY, _LONGEST),
        mitigation="End the query that computes most, or take a larger class: that is a failover.",
    ),
    Cause(
        component=Component.RDS,
        signal=Signal.SATURATION,
        name="connections-high",
        summary="The database has hardly any connection left to give.",
        condition=Threshold(gauge=RDS_CONNECTIONS_USED.where(), above=Decimal("0.9")),
        hold=5 * MINUTE,
        reason="AWS recommends 90 to 95 % of max_connections for 5 minutes; at 100 % new pods get none.",
        owner=OWNER,
        diagnosis=(_ACTIVITY,),
        mitigation="Close idle ones of people and tools first; then make the service's pools smaller.",
    ),
    Cause(
        component=Component.RDS,
        signal=Signal.SATURATION,
        name="memory-low",
        summary="The database is short of memory.",
        condition=Threshold(gauge=RDS_MEMORY_FREEABLE_RATIO.where(), below=Decimal("0.1")),
        hold=15 * MINUTE,
        reason=(
            "AWS warns under 25 % for long; PostgreSQL's cache uses what is free on purpose, so a ticket "
            "waits for 10 %, from where on instances begin to swap."
        ),
        owner=OWNER,
        diagnosis=(_ACTIVITY, _INSTANCE),
        mitigation="Fewer connections, each takes memory of its own; or a larger class: that is a failover.",
    ),
    Cause(
        component=Component.RDS,
        signal=Signal.SATURATION,
        name="storage-low",
        summary="The database's disk is nearly full.",
        condition=Threshold(gauge=RDS_STORAGE_FREE_RATIO.where(), below=Decimal("0.1")),
        hold=5 * MINUTE,
        reason="AWS recommends 10 % of what is allocated, for 5 minutes; a full disk stops every write.",
        owner=OWNER,
        diagnosis=(_INSTANCE, _SLOTS),
        mitigation="Grow the volume; it cannot shrink again, nor grow a second time within six hours.",
    ),
    Cause(
        component=Component.RDS,
        signal=Signal.SATURATION,
        name="storage-fills",
        summary="At its pace the database's disk is full within four days.",
        condition=Query(
            promql=("predict_linear(rds_storage_free_bytes[6h], 4 * 86400) < 0\nand\nrds_storage_free_ratio < 0.4"),
            metrics=(RDS_STORAGE_FREE, RDS_STORAGE_FREE_RATIO),
            fires={
                # 400 GiB that lose one in ten minutes are gone in 2.8 days.
                'rds_storage_free_bytes{db_instance="ledger"}': f"{400 * _GIB}-{_GIB // 10}",
                'rds_storage_free_ratio{db_instance="ledger"}': "0.35",
            },
            near_miss={
                'rds_storage_free_bytes{db_instance="ledger"}': f"{400 * _GIB}-{_GIB // 20}",
                'rds_storage_free_ratio{db_instance="ledger"}': "0.35",
            },
        ),
        hold=timedelta(hours=1),
        reason=(
            "Four days are a long weekend. Six hours see a trend and not one backup; above 40 % free a burst of the "
            "day is not worth a ticket (after node_exporter's filesystem rules)."
        ),
        owner=OWNER,
        diagnosis=(_INSTANCE, _SLOTS),
        mitigation="Find what grows; grow the volume in working hours, it cannot shrink again.",
    ),
    Cause(
        component=Component.RDS,
        signal=Signal.SATURATION,
        name="burst-balance-low",
        summary="The database lives on burst credits that are nearly used up.",
        condition=Threshold(gauge=RDS_BURST_BALANCE.where(), below=Decimal("0.2")),
        hold=5 * MINUTE,
        reason=(
            "AWS recommends alarms at 20 % for volumes and 10 % for instances; at nothing the disk is several "
            "times slower."
        ),
        owner=OWNER,
        diagnosis=(_ACTIVITY, _INSTANCE),
        mitigation="Move to gp3, whose IOPS do not burst, or to a larger class.",
    ),
    Cause(
        component=Component.RDS,
        signal=Signal.SATURATION,
        name="transaction-ids-high",
        summary="Vacuum does not keep up with the transaction ids.",
        condition=Threshold(gauge=RDS_TRANSACTION_IDS_USED.where(), above=Decimal(1_000_000_000)),
        hold=5 * MINUTE,
        reason=(
            "AWS recommends 1 billion; autovacuum should hold it near 200 million (autovacuum_freeze_max_age), "
            "and at 2.1 billion PostgreSQL stops writing."
        ),
        owner=OWNER,
        diagnosis=(_OLDEST_TABLES, _LONGEST),
        mitigation="End the oldest transaction and drop abandoned slots, then vacuum (freeze) the oldest tables.",
    ),
    Cause(
        component=Component.RDS,
        signal=Signal.SATURATION,
        name="slot-behind",
        summary="A replication slot keeps the database from deleting its log.",
        condition=Threshold(gauge=RDS_REPLICATION_SLOT_LAG.where(), above=Decimal(5 * _GIB)),
        hold=15 * MINUTE,
        reason="Nothing of ours is 5 GiB behind for a quarter of an hour, unless nobody reads that slot any more.",
        owner=OWNER,
        diagnosis=(_SLOTS,),
        mitigation="Start its reader, or drop the slot: then that reader must begin anew.",
    ),
    Cause(
        component=Component.RDS,
        signal=Signal.SATURATION,
        name="wal-large",
        summary="The write-ahead log takes more than a fifth of the database's disk.",
        condition=Query(
            promql="rds_wal_disk_bytes / (rds_storage_free_bytes / rds_storage_free_ratio) > 0.2",
            metrics=(RDS_WAL_DISK, RDS_STORAGE_FREE, RDS_STORAGE_FREE_RATIO),
            fires={
                'rds_wal_disk_bytes{db_instance="ledger"}': "210",
                'rds_storage_free_bytes{db_instance="ledger"}': "500",
                'rds_storage_free_ratio{db_instance="ledger"}': "0.5",
            },
            near_miss={
                'rds_wal_disk_bytes{db_instance="ledger"}': "190",
                'rds_storage_free_bytes{db_instance="ledger"}': "500",
                'rds_storage_free_ratio{db_instance="ledger"}': "0.5",
            },
        ),
        hold=15 * MINUTE,
        reason="The log is a few GiB between two checkpoints; a fifth of the disk means that something holds it back.",
        owner=OWNER,
        diagnosis=(_SLOTS, _LONGEST),
        mitigation="Drop the slot that is behind; its reader must begin anew.",
    ),
)
