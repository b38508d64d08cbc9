"""The rules of what the service stands on, in a real Prometheus, on what the exporters say of moto and a real cluster.

Percentiles come from a table, as moto computes none; all else goes the way of production, over HTTP both times.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from datetime import timedelta
from typing import Any

import boto3  # type: ignore[import-untyped]
import httpx
import pytest

import alerts.prometheus
from drills.harness import Prometheus, prometheus, valkey_cluster, wait_until
from exporters.calls import Calls
from exporters.collector import Snapshots, registry
from exporters.runner import KINDS, Runner
from exporters.settings import Account, Redis, Requests, Settings
from exporters.sources.redis_info import RedisCluster
from exporters.unit import Unit
from exporters.web import application, serving
from slo import Slo
from slo import conventions as names
from slo.compile import compile_slo
from slo.definitions import edge, queue, rds, redis
from slo.definitions import exporters as of_exporters
from slo.settings import Links
from slo.windows import policy
from tests.exporters.fakes import ACCOUNT, REGION, Clock, log, unit
from tests.exporters.test_moto import Percentiles, put

DEFINITIONS = (rds, redis, queue, edge)
PROMISES = [
    compile_slo(slo, policy(slo.window).scaled(60))
    for definition in DEFINITIONS
    for slo in vars(definition).values()
    if isinstance(slo, Slo)
]
CAUSES = [
    replace(cause, hold=timedelta(seconds=1))
    for definition in (*DEFINITIONS, of_exporters)
    for cause in definition.causes
]
EVERY_HALF_SECOND = timedelta(milliseconds=500)
LINKS = Links(
    grafana="https://grafana.example.com",
    runbooks="https://runbooks.example.com",
    traces="https://traces.example.com",
    logs="https://logs.example.com",
)
GIB = 1024**3


def made(url: str) -> dict[str, dict[str, str]]:
    """One resource of each kind in moto; namespace of CloudWatch -> its dimensions."""

    def client(service: str) -> Any:  # noqa: ANN401 - boto3 ships no types
        return boto3.client(service, region_name=REGION, endpoint_url=url)

    client("rds").create_db_instance(
        DBInstanceIdentifier="ledger",
        DBInstanceClass="db.r6g.large",
        Engine="postgres",
        AllocatedStorage=100,
        MultiAZ=True,
        MasterUsername="owner",
        MasterUserPassword="made-up-password",
    )
    client("elasticache").create_replication_group(
        ReplicationGroupId="redemption",
        ReplicationGroupDescription="balances",
        NumNodeGroups=1,
        ReplicasPerNodeGroup=1,
        AutomaticFailoverEnabled=True,
        Engine="valkey",
        CacheNodeType="cache.r6g.large",
    )
    client("sqs").create_queue(QueueName="deferred")
    subnets = [one["SubnetId"] for one in client("ec2").describe_subnets()["Subnets"]][:2]
    balancer = client("elbv2").create_load_balancer(Name="edge", Subnets=subnets, Type="application")
    check = client("route53").create_health_check(
        CallerReference="one",
        HealthCheckConfig={"Type": "HTTPS", "FullyQualifiedDomainName": "api.example.com", "Port": 443},
    )
    arn = balancer["LoadBalancers"][0]["LoadBalancerArn"]
    return {
        "AWS/RDS": {"DBInstanceIdentifier": "ledger"},
        "AWS/ElastiCache": {"CacheClusterId": "redemption-001"},
        "AWS/SQS": {"QueueName": "deferred"},
        "AWS/ApplicationELB": {"LoadBalancer": arn.partition("loadbalancer/")[2]},
        "AWS/Route53": {"HealthCheckId": check["HealthCheck"]["Id"]},
    }


VALUES: dict[str, dict[str, float]] = {
    "AWS/RDS": {"FreeStorageSpace": 5 * GIB, "FreeableMemory": 8 * GIB, "CPUUtilization": 42, "DatabaseConnections": 9},
    "AWS/ElastiCache": {"EngineCPUUtilization": 12.5, "IsMaster": 1},
    "AWS/SQS": {"ApproximateNumberOfMessagesVisible": 0, "ApproximateAgeOfOldestMessage": 0},
    "AWS/ApplicationELB": {"RequestCount": 1000, "TargetResponseTime": 0.1},
    "AWS/Route53": {"HealthCheckStatus": 1},
}


@pytest.fixture(scope="module")
def metrics(moto: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """A Prometheus with all our rules of RDS, Redis, SQS and the edge; a database whose disk is nearly full."""
    httpx.post(f"{moto}/moto-api/reset", trust_env=False)
    clock = Clock(time.time())
    for namespace, dimensions in made(moto).items():
        region = "us-east-1" if namespace == "AWS/Route53" else REGION
        put(boto3.client("cloudwatch", region, endpoint_url=moto), clock, namespace, dimensions, **VALUES[namespace])
    rules = tmp_path_factory.mktemp("rules") / "rules.json"
    groups = [group for one in PROMISES for group in alerts.prometheus.rule_groups(one, LINKS)]
    of_causes = [alerts.prometheus.cause_rule(cause, LINKS) for cause in CAUSES]
    rules.write_text(json.dumps({"groups": [*groups, {"name": "causes", "interval": "500ms", "rules": of_causes}]}))
    with ExitStack() as stack:
        cluster = stack.enter_context(valkey_cluster(masters=1, replicas=1))
        units = _units(moto, cluster.nodes[0].ports[0], clock)
        for one in units:
            one.cycle()
            assert one.status.up, one.calls.tally.errors
        runner = Runner(units, Settings(), log()[0])
        app = application(registry(Snapshots(units, clock, max_staleness_seconds=600)), runner, units)
        url = stack.enter_context(serving(("127.0.0.1", 0), app))
        yield stack.enter_context(
            prometheus(
                rules=[rules],
                targets={"exporters": [url.removeprefix("http://")]},
                scrape_interval=EVERY_HALF_SECOND,
                evaluation_interval=EVERY_HALF_SECOND,
            )
        )


def _units(url: str, redis_port: int, clock: Clock) -> list[Unit]:
    """A unit of every source but EKS and WAF, of which nobody promises anything; none begins by itself."""
    aws = Percentiles(Account(id=ACCOUNT), Requests(endpoint_url=url, timeout_seconds=60), {})
    units = [unit(name, kind(), aws, clock) for name, kind in KINDS.items() if name != "waf"]
    calls = Calls(clock, attempts_max=2, retries_max=4)
    of_cluster = RedisCluster(
        Redis(cluster="redemption", seeds=(("127.0.0.1", redis_port),), tls=False, timeout_seconds=20), calls
    )
    name = {"source": "redis", "aws_account_id": "", "aws_region": "", "name": "redemption"}
    return [*units, Unit(name, of_cluster, calls, log()[0], period_seconds=60)]


@pytest.mark.e2e
def test_every_promise_is_recorded(metrics: Prometheus) -> None:
    """Event rates, errors and what is left of the budget, of each promise; no rule fails on what the exporters say."""
    assert len(PROMISES) == 8
    for one in PROMISES:
        recorded = [
            one.named(names.ALL_EVENTS, one.policy.base),
            one.named(names.BAD_EVENTS, one.policy.base),
            one.named(names.SLI_ERROR, one.policy.base),
            one.named(names.ERROR_BUDGET_REMAINING),
        ]
        for series in recorded:
            wait_until(f"{series} is recorded", lambda series=series: bool(metrics.query(series)), 30)  # type: ignore[misc]
    good = [rds.availability, redis.availability, queue.waiting, edge.reachability]
    for one in PROMISES:
        if one.slo in good:
            assert metrics.value(one.named(names.SLI_ERROR, one.policy.base)) == 0, one.slo.id
    assert [rule["lastError"] for rule in metrics.rules() if rule["health"] != "ok"] == []


@pytest.mark.e2e
def test_a_full_disk_is_told_and_nothing_that_is_well(metrics: Prometheus) -> None:
    """CloudWatch's FreeStorageSpace becomes a ticket of the database that it is of; no other cause has a reason."""

    def firing() -> set[str]:
        return {one.name for one in metrics.alerts() if one.state == "firing" and "cause" in one.labels}

    wait_until("the disk is told", lambda: "RdsStorageLow" in firing(), 30)
    (alert,) = [one for one in metrics.alerts() if one.name == "RdsStorageLow"]
    assert (alert.labels["db_instance"], alert.labels["aws_account_id"]) == ("ledger", ACCOUNT)
    assert (alert.labels["service"], alert.labels["severity"]) == ("rds", "ticket")
    assert "`rds_storage_free_ratio` is 5%" in alert.annotations["description"]
    assert metrics.value("rds_storage_free_ratio") == pytest.approx(0.05)
    assert firing() == {"RdsStorageLow"}
