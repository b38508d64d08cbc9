"""Cycles: what a fault of one source does, and does not; how time and memory pass."""

from __future__ import annotations

import gc
import sys
import threading
from datetime import UTC, datetime
from decimal import Decimal

import pytest

import exporters.calls
from exporters.calls import CallError, Calls, Reason
from exporters.collector import Snapshots, registry
from exporters.runner import Runner
from exporters.settings import Settings
from exporters.sources import Collected
from exporters.sources.elasticache import ElastiCache
from exporters.sources.rds import Rds
from exporters.sources.sqs import Sqs
from exporters.unit import Unit, offsets
from slo.metrics import Metric
from slo.metrics.rds import RDS_METRICS
from slo.metrics.redis import ELASTICACHE_FAILOVERS, ELASTICACHE_PRIMARY
from tests.exporters.fakes import ACCOUNT, NOON, REGION, Clock, PlainAws, instances, log, rds, unit

GROUP = {
    "ReplicationGroupId": "redemption",
    "ARN": f"arn:aws:elasticache:{REGION}:{ACCOUNT}:replicationgroup:redemption",
    "Status": "available",
    "AutomaticFailover": "enabled",
    "NodeGroups": [{"NodeGroupId": "0001", "NodeGroupMembers": [{"CacheClusterId": "r-1"}, {"CacheClusterId": "r-2"}]}],
}


def scraped(units: list[Unit], clock: exporters.calls.Clock, *, max_staleness_seconds: float = 600) -> dict[str, float]:
    """What a scrape has now: name and labels, as `name{a,b}` in order, and value."""
    families = registry(Snapshots(units, clock, max_staleness_seconds=max_staleness_seconds)).collect()
    return {
        f"{sample.name}{{{','.join(value for value in sample.labels.values() if value)}}}": sample.value
        for family in families
        for sample in family.samples
    }


BILLED = len({(address.namespace, address.name) for metric in RDS_METRICS for address in metric.cloudwatch})
CPU = f"rds_cpu_utilization_ratio{{{ACCOUNT},{REGION},a}}"
UP = f"exporters_up{{rds,{ACCOUNT},{REGION}}}"
AGE = f"exporters_data_age_seconds{{rds,{ACCOUNT},{REGION}}}"


def error_count(of: dict[str, float], reason: str) -> dict[str, float]:
    """Which calls failed for this reason, and how often."""
    return {
        name: value
        for name, value in of.items()
        if name.startswith("exporters_api_errors") and reason in name and value
    }


def test_a_cycle_asks_each_minute_once_and_tells_how_it_went() -> None:
    """The newest value, its age of the delay, up, and what AWS bills."""
    clock, aws = Clock(NOON + 30), rds("a")
    one = unit("rds", Rds(), aws, clock)

    one.cycle()

    found = scraped([one], clock)
    assert found[CPU] == 0.01
    assert found[UP] == 1.0
    assert found[AGE] == 150.0, "the minute that ended two minutes before the last full one"
    assert found[f"exporters_cloudwatch_metrics_requested_total{{rds,{ACCOUNT},{REGION}}}"] == BILLED
    assert found[f"exporters_last_success_timestamp_seconds{{rds,{ACCOUNT},{REGION}}}"] == clock.now()
    assert not error_count(found, "")


@pytest.mark.parametrize("reason", list(Reason))
def test_a_dead_source_leaves_all_others_fresh(reason: Reason) -> None:
    """Whatever RDS fails by is counted and logged in one line a cycle; SQS goes on as if nothing were."""
    clock, (told, lines) = Clock(), log()
    broken = rds("a")
    broken.faults["rds:DescribeDBInstances"] = CallError(reason, "so it is")
    sqs = PlainAws(
        {"sqs:ListQueues": ["q"], "sqs:GetQueueAttributes": {"Attributes": {"QueueArn": f"arn:aws:sqs:{REGION}:1:q"}}}
    )
    units = [unit("rds", Rds(), broken, clock, told), unit("sqs", Sqs(), sqs, clock, told)]

    for one in units:
        one.cycle()

    found = scraped(units, clock)
    assert found[UP] == 0.0
    assert found[f"exporters_up{{sqs,{ACCOUNT},{REGION}}}"] == 1.0
    assert found[f"sqs_messages_visible{{work,{ACCOUNT},{REGION},q}}"] == 1.0
    assert error_count(found, "") == {
        f"exporters_api_errors_total{{rds,{reason},{ACCOUNT},{REGION},rds:DescribeDBInstances}}": 1.0
    }
    (line,) = lines()
    assert (
        line.items()
        >= {
            "level": "error",
            "event": "call failed",
            "source": "rds",
            "aws_account_id": ACCOUNT,
            "aws_region": REGION,
            "call": "rds:DescribeDBInstances",
            "reason": reason,
            "error": "so it is",
        }.items()
    )


def test_what_is_stale_vanishes() -> None:
    """A source that fails keeps its last values for as long as they may be old, tells their age, and then has none."""
    clock, aws = Clock(), rds("a")
    one = unit("rds", Rds(), aws, clock)
    one.cycle()
    aws.faults = dict.fromkeys(
        ("rds:DescribeDBInstances", "cloudwatch:GetMetricData"), CallError(Reason.DENIED, "no more")
    )
    ages = []
    for _ in range(15):
        found = scraped([one], clock)
        if CPU in found:
            ages.append(found[AGE])
        clock.at += 60
        one.cycle()

    assert ages == [120.0 + 60 * minute for minute in range(9)], "and not one of more than 600 s"
    assert found[UP] == 0.0
    assert not [name for name in found if name.startswith("rds_")], "facts of the last look for resources as well"


def test_a_deleted_instance_is_gone_with_the_next_look() -> None:
    """Its last values would stay for ten minutes else, and alerts with them; the others stay."""
    clock, aws = Clock(), rds("a", "b")
    one = unit("rds", Rds(), aws, clock)
    one.cycle()
    assert [name for name in scraped([one], clock) if name.endswith(",b}")]

    aws.lists["rds:DescribeDBInstances"] = instances("a")
    clock.at += 60
    one.cycle()

    found = scraped([one], clock)
    assert not [name for name in found if name.endswith(",b}")]
    assert CPU in found


def test_a_throttled_call_is_repeated_within_the_budget_of_the_cycle() -> None:
    """Pauses double and are drawn; after four attempts a call fails, and after the budget no other is repeated."""
    clock = Clock()
    calls = Calls(clock, attempts_max=4, retries_max=5, draw=lambda: 0.5)
    asked: list[str] = []

    def throttled(name: str) -> None:
        asked.append(name)
        raise CallError(Reason.THROTTLED, "Rate exceeded", repeatable=True)

    for name in ("first", "second", "third"):
        with pytest.raises(CallError, match="Rate exceeded"):
            calls(name, lambda name=name: throttled(name))  # type: ignore[misc]

    assert asked == ["first"] * 4 + ["second"] * 3 + ["third"]
    assert clock.waits == [0.5, 1.0, 2.0, 0.5, 1.0]
    assert calls.tally.errors["first", Reason.THROTTLED] == 1, "a call that failed for good is one"
    calls.begin_cycle()
    with pytest.raises(CallError):
        calls("next", lambda: throttled("next"))
    assert asked[8:] == ["next"] * 4


def test_a_call_that_succeeds_at_last_is_no_error() -> None:
    """Attempts are counted, and nothing else is told."""
    calls = Calls(Clock(), attempts_max=3, retries_max=3)
    answers = iter([CallError(Reason.TIMEOUT, "late", repeatable=True), None])

    def ask() -> str:
        if fault := next(answers):
            raise fault
        return "yes"

    assert calls("ask", ask) == "yes"
    assert calls.tally.calls["ask"] == 2
    assert not calls.tally.errors


@pytest.mark.parametrize(("status", "reason"), [("Forbidden", "denied"), ("InternalError", "other")])
def test_a_metric_without_an_answer_ages_alone(status: str, reason: str) -> None:
    """One metric's status code is told and makes that one old; the others of the same call are fresh."""
    clock, aws, (told, lines) = Clock(), rds("a"), log()
    one = unit("rds", Rds(), aws, clock, told)
    aws.value = lambda _query, at: float(at)
    one.cycle()
    aws.status = lambda query: status if query.name == "CPUUtilization" else "Complete"

    clock.at += 60
    one.cycle()

    found = scraped([one], clock)
    assert found[CPU] == (NOON - 180) * 0.01, "as it was"
    assert found[f"rds_disk_queue_operations{{{ACCOUNT},{REGION},a}}"] == NOON - 120
    assert found[UP] == 0.0
    assert list(error_count(found, reason).values()) == [1.0]
    assert lines()[0]["error"] == f"1 of {BILLED} metrics, AWS/RDS CPUUtilization: {status} for one"


def test_partial_data_is_used_and_told() -> None:
    """The points that came are true; that others are missing is an error."""
    clock, aws = Clock(), rds("a")
    aws.status = lambda _query: "PartialData"
    one = unit("rds", Rds(), aws, clock)

    one.cycle()

    found = scraped([one], clock)
    assert found[CPU] == 0.01
    assert found[UP] == 0.0
    assert list(error_count(found, "partial").values()) == [1.0]


def test_a_defect_ends_no_source() -> None:
    """An exception that nobody thought of is counted and logged by its class and place, without its message."""

    class Broken:
        metrics: tuple[Metric, ...] = ()

        def collect(self) -> Collected:
            raise KeyError("AKIASECRET")

    clock, (told, lines) = Clock(), log()
    name = {"source": "eks", "aws_account_id": "", "aws_region": "", "name": "main"}
    one = Unit(name, Broken(), Calls(clock, attempts_max=1, retries_max=0), told, period_seconds=60)

    one.cycle()

    assert not one.status.up
    (line,) = lines()
    assert line["error"] == "KeyError"
    assert line["stack"][-1].endswith("collect")
    assert "AKIASECRET" not in str(line)


def test_cycles_begin_with_the_minute() -> None:
    """The clock is aligned to the period, each unit a little later than the one before, and misses are not made up."""
    clock = Clock(NOON + 61)
    one = unit("rds", Rds(), rds("a"), clock)

    assert one.pause_seconds() == 59
    assert one.pause_seconds(offset_seconds=5) == 4
    assert offsets(4, 60) == [0, 2.5, 5, 7.5]


def test_failovers_are_counted_by_the_change_of_the_primary() -> None:
    """With cluster mode only IsMaster tells: another node is 1, a minute with two primaries is passed over."""
    kind = ElastiCache()
    clock, aws = Clock(), PlainAws({"elasticache:DescribeReplicationGroups": [GROUP]})
    one = unit("elasticache", kind, aws, clock)
    shown = []
    now_primary: set[str] = set()
    aws.value = lambda query, _at: float(query.dimensions[0][1] in now_primary) if query.name == "IsMaster" else None

    for primaries in ({"r-1"}, {"r-1", "r-2"}, {"r-2"}, {"r-1", "r-2"}, {"r-2"}, {"r-1"}):
        now_primary.clear()
        now_primary.update(primaries)
        one.cycle()
        clock.at += 60
        (failovers,) = one.status.readings[ELASTICACHE_FAILOVERS]
        shown.append(failovers.value)

    assert shown == [0, 0, 1, 1, 1, 2]
    assert len(one.status.readings[ELASTICACHE_PRIMARY]) == 2


def test_a_failover_of_rds_is_counted_once() -> None:
    """An event that RDS tells in every answer for an hour is one; what was before the start is none."""
    clock, aws = Clock(), rds("a")
    one = unit("rds", Rds(), aws, clock)

    def event(at: float, message: str) -> dict[str, object]:
        return {"SourceIdentifier": "a", "Date": datetime.fromtimestamp(at, UTC), "Message": message}

    completed = "Multi-AZ instance failover completed"
    aws.lists["rds:DescribeEvents"] = [event(NOON - 60, completed)]
    one.cycle()
    aws.lists["rds:DescribeEvents"].append(event(NOON + 20, "Multi-AZ instance failover started"))
    aws.lists["rds:DescribeEvents"].append(event(NOON + 50, completed))
    shown = []
    for _ in range(3):
        clock.at += 60
        one.cycle()
        shown.append(scraped([one], clock)[f"rds_failovers_total{{{ACCOUNT},{REGION},a}}"])

    assert shown == [1, 1, 1]


def test_ratios_are_of_what_the_instance_has() -> None:
    """Memory of the class from EC2, connections by RDS's default formula, storage up to where it may grow."""
    clock, aws = Clock(), rds("a")
    values = {"DatabaseConnections": 180.0, "FreeableMemory": 4 * 1024**3, "FreeStorageSpace": 50 * 1024**3}
    aws.value = lambda query, _at: values.get(query.name)
    one = unit("rds", Rds(), aws, clock)

    one.cycle()

    found = scraped([one], clock)
    assert found[f"rds_connections_used_ratio{{{ACCOUNT},{REGION},a}}"] == 180 / (16 * 1024**3 // 9_531_392)
    assert found[f"rds_memory_freeable_ratio{{{ACCOUNT},{REGION},a}}"] == 0.25
    assert found[f"rds_storage_free_ratio{{{ACCOUNT},{REGION},a}}"] == 0.75


def test_without_ec2_all_but_the_ratios_is_there() -> None:
    """A look that is not needed may fail: it is told, and only what follows from it is missing."""
    clock, aws = Clock(), rds("a")
    aws.faults["ec2:DescribeInstanceTypes"] = CallError(Reason.DENIED, "ec2:DescribeInstanceTypes is not allowed")
    one = unit("rds", Rds(), aws, clock)

    one.cycle()

    found = scraped([one], clock)
    assert CPU in found
    assert found[UP] == 0.0
    assert f"rds_storage_free_ratio{{{ACCOUNT},{REGION},a}}" in found
    assert f"rds_memory_freeable_ratio{{{ACCOUNT},{REGION},a}}" not in found


def test_the_runner_is_ready_after_the_first_cycle_and_tells_the_cost() -> None:
    """Every unit in a thread of its own; once all have looked, one line says what they cost a month."""
    (told, lines), stopped = log(), threading.Event()

    class Waiting(Clock):
        def wait(self, seconds: float) -> bool:
            return stopped.wait(seconds)

    units = [unit("rds", Rds(), rds("a"), Waiting(), told) for _ in range(2)]
    runner = Runner(units, Settings(), told)
    assert not runner.ready
    runner.start()
    for _ in range(200):
        if lines():
            break
        stopped.wait(0.05)

    assert runner.ready
    assert runner.alive
    (line,) = lines()
    assert line["event"] == "estimated cost"
    assert line["cloudwatch_metrics"] == 2 * BILLED
    assert Decimal(line["usd_a_month"]) == round(2 * BILLED * 43_200 * Decimal("0.00001"), 2)
    assert line["price_source"].startswith("https://aws.amazon.com/cloudwatch/pricing/")
    stopped.set()
    runner.join(5)
    assert not runner.alive


@pytest.mark.slow
def test_memory_is_flat_over_a_day() -> None:
    """A day of minutes with failures among them, and instances that come and go: nothing is kept of any of it."""
    clock, aws = Clock(), rds("a")
    cache = PlainAws({"elasticache:DescribeReplicationGroups": [GROUP]})
    units = [unit("rds", Rds(), aws, clock), unit("elasticache", ElastiCache(), cache, clock)]
    held: list[int] = []
    cycles = 0

    for hour in range(24):
        for minute in range(60):
            names = ("a", f"young-{hour}-{minute}")
            aws.lists["rds:DescribeDBInstances"] = instances(*names)
            fault = CallError(Reason.THROTTLED, "slow down")
            aws.faults = {"cloudwatch:GetMetricData": fault} if minute in (7, 8, 30) else {}
            aws.batches.clear()
            cache.batches.clear()
            for one in units:
                one.cycle()
                cycles += 1
            clock.at += 60
        scraped(units, clock)
        gc.collect()
        held.append(sys.getallocatedblocks())  # tracemalloc would take minutes for as much

    assert cycles == 2880
    assert held[-1] - held[3] < 20 * 60, f"less than one piece of memory a minute is kept: {held}"
