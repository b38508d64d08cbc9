"""Every source of AWS against moto's server over HTTP: what is found, and what comes of its metrics.

Where moto is lax or lacks something it says so here: it cannot compute percentiles (a call that asks for one fails as
a whole), so those come from a table; it looks at no namespace; tags of Route 53 and WAF are not in its tagging API.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import boto3  # type: ignore[import-untyped]
import httpx
import pytest

import exporters.aws
from exporters.aws import Aws
from exporters.calls import CallError, Calls
from exporters.cloudwatch import Answer, Batch
from exporters.settings import Account, Requests
from exporters.sources.alb import Alb
from exporters.sources.elasticache import ElastiCache
from exporters.sources.rds import Rds
from exporters.sources.resources import Kind
from exporters.sources.route53 import Route53
from exporters.sources.sqs import Sqs
from exporters.sources.waf import Waf
from exporters.unit import Unit
from tests.exporters.fakes import ACCOUNT, REGION, Clock, unit
from tests.exporters.test_units import scraped

TAG = [{"Key": "team", "Value": "loyalty"}]
TAGS = {"team": ("loyalty",)}
HERE = f"{ACCOUNT},{REGION}"
RANK = 98.0


class Percentiles(Aws):
    """moto's AWS; percentiles and ranks are always `RANK`, for each minute that has samples."""

    def metric_data(self, calls: Calls, batch: Batch) -> tuple[list[Answer | None], list[CallError]]:
        """Ask moto for all that it knows."""
        known = tuple(query for query in batch.queries if not query.statistic.startswith(("p", "PR")))
        answers, errors = super().metric_data(calls, Batch(batch.region, known, batch.start, batch.end))
        told = dict(zip(known, answers, strict=True))
        ranks = {at: RANK for answer in answers if answer for at in answer.points}
        other = Answer(start=batch.start, end=batch.end, points=ranks, complete=True)
        return [told.get(query, other) for query in batch.queries], errors


@pytest.fixture
def moto_url(moto: str) -> str:
    """An AWS without anything in it."""
    httpx.post(f"{moto}/moto-api/reset", trust_env=False)
    return moto


@pytest.fixture
def client(moto_url: str) -> Callable[..., Any]:
    """Clients of it."""

    def make(service: str, region: str = REGION) -> Any:  # noqa: ANN401 - boto3 ships no types
        return boto3.client(service, region_name=region, endpoint_url=moto_url)

    return make


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """A clock that stands: at half of this minute, however long the test takes."""
    monkeypatch.setattr(exporters.aws, "CLOCK_SKEW_SECONDS_MAX", 3600)
    return Clock(time.time() // 60 * 60 + 30)


def put(client: Any, clock: Clock, namespace: str, dimensions: dict[str, str], **values: float) -> None:  # noqa: ANN401 - boto3's
    """Put one value of each metric into every minute of the last ten.

    To moto, unlike to AWS, the order of the dimensions matters, and ours is sorted.
    """
    names = [{"Name": name, "Value": value} for name, value in sorted(dimensions.items())]
    for name, value in values.items():
        client.put_metric_data(
            Namespace=namespace,
            MetricData=[
                {
                    "MetricName": name,
                    "Dimensions": names,
                    "Timestamp": datetime.fromtimestamp(clock.now() - 60 * minute, UTC),
                    "Value": value,
                }
                for minute in range(10)
            ],
        )


def collected(kind: Kind, url: str, clock: Clock, *, tags: Mapping[str, tuple[str, ...]] | None = None) -> Unit:
    """A unit after a cycle a minute ago, as what counts begins at 0 there, and one now."""
    asking = Clock(clock.now() - 60)
    aws = Percentiles(Account(id=ACCOUNT), Requests(endpoint_url=url, timeout_seconds=60), tags or {})
    one = unit("rds", kind, aws, asking)
    for _ in range(2):
        one.cycle()
        assert one.status.up, one.calls.tally.errors
        asking.at += 60
    return one


def test_rds(client: Any, moto_url: str, clock: Clock) -> None:  # noqa: ANN401 - boto3's
    """Instances with the tag, their state, what follows from their class, and their metrics."""
    for name, tags in (("ledger", TAG), ("strange", [])):
        client("rds").create_db_instance(
            DBInstanceIdentifier=name,
            DBInstanceClass="db.r6g.large",
            Engine="postgres",
            AllocatedStorage=100,
            MaxAllocatedStorage=200,
            MultiAZ=True,
            MasterUsername="owner",
            MasterUserPassword="made-up-password",
            Tags=tags,
        )
    dimensions = {"DBInstanceIdentifier": "ledger"}
    put(client("cloudwatch"), clock, "AWS/RDS", dimensions, CPUUtilization=42, DatabaseConnections=180, DBLoadCPU=1.5)

    found = scraped([collected(Rds(), moto_url, clock, tags=TAGS)], clock)

    assert found[f"rds_cpu_utilization_ratio{{{HERE},ledger}}"] == pytest.approx(0.42)
    assert found[f"rds_load_sessions{{cpu,{HERE},ledger}}"] == 1.5
    assert found[f"rds_connections_used_ratio{{{HERE},ledger}}"] == pytest.approx(180 / 1802, rel=1e-3)
    assert found[f"rds_available{{{HERE},ledger}}"] == 1.0
    assert found[f"rds_multi_az_enabled{{{HERE},ledger}}"] == 1.0
    assert found[f"rds_failovers_total{{{HERE},ledger}}"] == 0.0
    assert not [name for name in found if "strange" in name]


def test_elasticache(client: Any, moto_url: str, clock: Clock) -> None:  # noqa: ANN401 - boto3's
    """Groups, shards and nodes; a command counts since the first cycle."""
    client("elasticache").create_replication_group(
        ReplicationGroupId="redemption",
        ReplicationGroupDescription="balances",
        NumNodeGroups=2,
        ReplicasPerNodeGroup=1,
        AutomaticFailoverEnabled=True,
        Engine="valkey",
        CacheNodeType="cache.r6g.large",
        Tags=TAG,
    )
    values = {"EngineCPUUtilization": 12.5, "GetTypeCmds": 300, "IsMaster": 1}
    put(client("cloudwatch"), clock, "AWS/ElastiCache", {"CacheClusterId": "redemption-001"}, **values)

    found = scraped([collected(ElastiCache(), moto_url, clock, tags=TAGS)], clock)

    node = f"{HERE},redemption,0001,redemption-001"
    assert found[f"elasticache_engine_cpu_utilization_ratio{{{node}}}"] == 0.125
    assert found[f"elasticache_commands_total{{read,{node}}}"] == 300
    assert found[f"elasticache_commands_total{{write,{node}}}"] == 0, "nothing came, and that is known"
    assert found[f"elasticache_automatic_failover_enabled{{{HERE},redemption}}"] == 1.0
    assert found[f"elasticache_failovers_total{{{HERE},redemption,0001}}"] == 0.0


def test_sqs(client: Any, moto_url: str, clock: Clock) -> None:  # noqa: ANN401 - boto3's
    """A queue that another one's redrive policy names takes dead letters."""
    sqs = client("sqs")
    dead = sqs.create_queue(QueueName="deferred-dead", tags={"team": "loyalty"})["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=dead, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    policy = json.dumps({"deadLetterTargetArn": arn, "maxReceiveCount": 5})
    sqs.create_queue(QueueName="deferred", Attributes={"RedrivePolicy": policy}, tags={"team": "loyalty"})
    sqs.create_queue(QueueName="strange")
    for name, value in (("deferred", 17), ("deferred-dead", 2)):
        put(client("cloudwatch"), clock, "AWS/SQS", {"QueueName": name}, ApproximateNumberOfMessagesVisible=value)

    found = scraped([collected(Sqs(), moto_url, clock, tags=TAGS)], clock)

    visible = {name: value for name, value in found.items() if name.startswith("sqs_messages_visible")}
    assert visible == {
        f"sqs_messages_visible{{work,{HERE},deferred}}": 17,
        f"sqs_messages_visible{{dead_letter,{HERE},deferred-dead}}": 2,
    }
    assert not [name for name in found if "strange" in name], "it would have counters at 0"


def test_alb(client: Any, moto_url: str, clock: Clock) -> None:  # noqa: ANN401 - boto3's
    """Requests by outcome and speed, of the balancer; hosts, of its target groups. Network balancers are left out."""
    ec2, elbv2 = client("ec2"), client("elbv2")
    subnets = [one["SubnetId"] for one in ec2.describe_subnets()["Subnets"]][:2]
    vpc = ec2.describe_vpcs()["Vpcs"][0]["VpcId"]
    made = elbv2.create_load_balancer(Name="edge", Subnets=subnets, Type="application", Tags=TAG)["LoadBalancers"][0]
    elbv2.create_load_balancer(Name="other", Subnets=subnets, Type="network", Tags=TAG)
    group = elbv2.create_target_group(Name="pods", Protocol="HTTP", Port=80, VpcId=vpc)["TargetGroups"][0]
    action = {"Type": "forward", "TargetGroupArn": group["TargetGroupArn"]}
    elbv2.create_listener(LoadBalancerArn=made["LoadBalancerArn"], Protocol="HTTP", Port=80, DefaultActions=[action])
    balancer = made["LoadBalancerArn"].partition("loadbalancer/")[2]
    targets = group["TargetGroupArn"].rpartition(":")[2]
    dimensions = {"LoadBalancer": balancer}
    requests = {"RequestCount": 1000, "HTTPCode_Target_5XX_Count": 10, "HTTPCode_ELB_5XX_Count": 3}
    put(client("cloudwatch"), clock, "AWS/ApplicationELB", dimensions, TargetResponseTime=0.1, **requests)
    put(
        client("cloudwatch"),
        clock,
        "AWS/ApplicationELB",
        dimensions | {"TargetGroup": targets},
        HealthyHostCount=3,
        UnHealthyHostCount=1,
    )

    found = scraped([collected(Alb(), moto_url, clock, tags=TAGS)], clock)

    assert {
        outcome: found[f"alb_requests_total{{{outcome},{HERE},{balancer}}}"]
        for outcome in ("ok", "target_error", "elb_error")
    } == {"ok": 990, "target_error": 10, "elb_error": 3}
    assert found[f"alb_request_durations_total{{fast,{HERE},{balancer}}}"] == pytest.approx(RANK / 100)
    assert found[f"alb_request_durations_total{{slow,{HERE},{balancer}}}"] == pytest.approx(1 - RANK / 100)
    assert found[f"alb_healthy_hosts{{{HERE},{balancer},{targets}}}"] == 3
    assert found[f"alb_unhealthy_hosts{{{HERE},{balancer},{targets}}}"] == 1
    assert not [name for name in found if "net/other" in name]


def test_route53(client: Any, moto_url: str, clock: Clock) -> None:  # noqa: ANN401 - boto3's
    """Health checks, whose metrics are in us-east-1."""
    check = client("route53").create_health_check(
        CallerReference="one",
        HealthCheckConfig={"Type": "HTTPS", "FullyQualifiedDomainName": "api.example.com", "Port": 443},
    )["HealthCheck"]["Id"]
    put(client("cloudwatch", "us-east-1"), clock, "AWS/Route53", {"HealthCheckId": check}, HealthCheckStatus=1)

    found = scraped([collected(Route53(), moto_url, clock)], clock)

    assert found[f"route53_health_check_healthy{{{ACCOUNT},us-east-1,{check}}}"] == 1


def test_waf(client: Any, moto_url: str, clock: Clock) -> None:  # noqa: ANN401 - boto3's
    """Web ACLs, by the name that their metrics have."""
    visible = {"SampledRequestsEnabled": False, "CloudWatchMetricsEnabled": True, "MetricName": "edge-metric"}
    client("wafv2").create_web_acl(
        Name="edge", Scope="REGIONAL", DefaultAction={"Allow": {}}, VisibilityConfig=visible, Tags=TAG
    )
    dimensions = {"WebACL": "edge-metric", "Rule": "ALL", "Region": REGION}
    put(client("cloudwatch"), clock, "AWS/WAFV2", dimensions, BlockedRequests=5)

    found = scraped([collected(Waf(), moto_url, clock)], clock)

    assert found[f"waf_requests_total{{blocked,{HERE},edge-metric,ALL}}"] == 5
    assert found[f"waf_requests_total{{allowed,{HERE},edge-metric,ALL}}"] == 0
