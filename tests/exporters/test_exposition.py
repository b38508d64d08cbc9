"""The whole text that a scrape reads, held word for word in exposition.txt.

`python -m tests.exporters.test_exposition` writes it anew; read the difference before you commit it.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from prometheus_client.exposition import choose_encoder
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from exporters.calls import CallError, Calls, Reason
from exporters.cloudwatch import Query
from exporters.collector import Snapshots, registry
from exporters.readings import label_names
from exporters.runner import KINDS
from exporters.settings import Redis
from exporters.sources.redis_info import RedisCluster
from exporters.unit import Unit
from slo.metrics import Metric
from slo.metrics.edge import EDGE_METRICS
from slo.metrics.eks import EKS_METRICS
from slo.metrics.exporters import EXPORTERS_METRICS, EXPORTERS_METRICS_REQUESTED
from slo.metrics.queue import QUEUE_METRICS
from slo.metrics.rds import RDS_METRICS
from slo.metrics.redis import REDIS_METRICS
from tests.exporters.fakes import ACCOUNT, NOON, REGION, Clock, PlainAws, instances, log, rds, unit
from tests.exporters.test_eks import NODES, PODS, Listed, node, pod
from tests.exporters.test_units import GROUP

GOLDEN = Path(__file__).with_name("exposition.txt")
CATALOGUE: tuple[Metric, ...] = (
    *RDS_METRICS, *REDIS_METRICS, *EKS_METRICS, *EDGE_METRICS, *QUEUE_METRICS, *EXPORTERS_METRICS
)  # fmt: skip

_ELB = f"arn:aws:elasticloadbalancing:{REGION}:{ACCOUNT}"
_BALANCER = {"LoadBalancerArn": f"{_ELB}:loadbalancer/app/edge/50dc", "Type": "application"}
_TARGETS = {"TargetGroupArn": f"{_ELB}:targetgroup/pods/73e2", "LoadBalancerArns": [_BALANCER["LoadBalancerArn"]]}
_ACL = {"Name": "edge", "Id": "1", "ARN": f"arn:aws:wafv2:{REGION}:{ACCOUNT}:regional/webacl/edge/1"}

_WAITING = {
    "Key": {"Metric": "db.load.avg", "Dimensions": {"db.wait_event_type.name": "IO"}},
    "DataPoints": [{"Timestamp": datetime.fromtimestamp(NOON, UTC), "Value": 0.5}],
}

LISTS: dict[str, Any] = rds("ledger").lists | {
    "rds:DescribeDBInstances": [{**one, "PerformanceInsightsEnabled": True} for one in instances("ledger")],
    "pi:GetResourceMetrics": {"MetricList": [_WAITING]},
    "elasticache:DescribeReplicationGroups": [GROUP],
    "sqs:ListQueues": ["https://sqs.example.com/deferred"],
    "sqs:GetQueueAttributes": {"Attributes": {"QueueArn": f"arn:aws:sqs:{REGION}:{ACCOUNT}:deferred"}},
    "elbv2:DescribeLoadBalancers": [_BALANCER],
    "elbv2:DescribeTargetGroups": [_TARGETS],
    "route53:ListHealthChecks": [{"Id": "abcd"}],
    "wafv2:ListWebACLs": [_ACL],
    "wafv2:GetWebACL": {"WebACL": {"VisibilityConfig": {"MetricName": "edge"}}},
}


class Told(RedisCluster):
    """A cluster of a primary and its replica, in its own words."""

    def _run(self, address: tuple[str, int], command: str) -> Any:  # noqa: ANN401 - as the source's
        if command == "CLUSTER INFO":
            counts = {"assigned": "16384", "ok": "16384", "fail": "0"}
            slots = {f"cluster_slots_{name}": count for name, count in counts.items()}
            return {"cluster_state": "ok", "cluster_known_nodes": "2", **slots}
        if command == "CLUSTER NODES":
            return {"10.0.0.1:6379": {"flags": "master"}, "10.0.0.2:6379": {"flags": "myself,slave"}}
        info = {"used_memory": 1_048_576, "maxmemory": 8_388_608, "rejected_connections": 0}
        if address[0] == "10.0.0.1":
            return info | {"role": "master", "connected_slaves": 1}
        return info | {"role": "slave", "connected_slaves": 0, "master_link_status": "up"}


def value(query: Query, _at: int) -> float:
    """What this CloudWatch has of every minute."""
    return {"Sum": 60.0, "SampleCount": 200.0}.get(query.statistic, 95.0 if query.statistic[0] in "pP" else 42.0)


def exposition(accept: str = "") -> str:
    """Every source, after two cycles; SQS fails in the second."""
    clock, aws = Clock(), PlainAws(LISTS, value)
    units = [unit(name, kind(), aws, clock) for name, kind in KINDS.items()]
    for name, source in (
        ("redis", lambda calls: Told(Redis(cluster="redemption", seeds=(("10.0.0.1", 6379),)), calls)),
        ("eks", _eks),
    ):
        calls = Calls(clock, attempts_max=1, retries_max=0)
        labels = {"source": name, "aws_account_id": "", "aws_region": "", "name": "redemption"}
        units.append(Unit(labels, source(calls), calls, log()[0], period_seconds=60))
    for _ in range(2):
        for one in units:
            failing = one.name["source"] == "sqs" and one.status.cycles == 1
            aws.faults = {"sqs:ListQueues": CallError(Reason.THROTTLED, "no")} if failing else {}
            one.cycle()
        clock.at += 60
    encode, _ = choose_encoder(accept)
    text: bytes = encode(registry(Snapshots(units, clock, max_staleness_seconds=600)))
    return text.decode()


def _eks(calls: Calls) -> Listed:
    spread = [{"topologyKey": "topology.kubernetes.io/zone", "maxSkew": 1}]
    nodes = [node(f"n-{zone}", f"{REGION}{zone}") for zone in "ab"]
    return Listed({NODES: nodes, PODS: [pod("n-a", topologySpreadConstraints=spread), pod("n-b")]}, calls)


def test_the_exposition_is_as_it_was_agreed() -> None:
    """Names, help, labels and values of everything; a change here is one for whoever has a rule or a board on it."""
    assert exposition() == GOLDEN.read_text(), "python -m tests.exporters.test_exposition writes it anew"


def test_every_metric_of_the_catalogue_is_exposed_with_its_labels_and_values_alone() -> None:
    """Nothing that a rule may read is missing, and nothing is exposed that no catalogue declares."""
    declared = {metric.name: metric for metric in CATALOGUE}
    shown: dict[str, set[tuple[str, ...]]] = {}
    for line in GOLDEN.read_text().splitlines():
        found = re.match(r"(\w+)\{(.*)\} ", line)
        if found:
            labels = dict(re.findall(r'(\w+)="([^"]*)"', found[2]))
            shown.setdefault(found[1], set()).add(tuple(sorted(labels)))
            for label, values in declared[found[1]].labels.items():
                assert labels[label] in values, line

    assert shown == {name: {tuple(sorted(label_names(metric)))} for name, metric in declared.items()}


def test_openmetrics_is_served_to_who_asks() -> None:
    """The same in OpenMetrics, which its own parser reads."""
    text = exposition("application/openmetrics-text; version=1.0.0")

    assert text.endswith("# EOF\n")
    families = list(text_string_to_metric_families(text))  # type: ignore[no-untyped-call]
    assert {family.name for family in families} == {metric.name.removesuffix("_total") for metric in CATALOGUE}


def test_a_registry_asks_nobody() -> None:
    """prometheus_client collects at registration unless it is told the names; nothing may be asked there."""
    aws = PlainAws(LISTS, value)
    units = [unit(name, kind(), aws, Clock()) for name, kind in KINDS.items()]

    made = registry(Snapshots(units, Clock(), max_staleness_seconds=600))

    assert not any(one.calls.tally.calls for one in units)
    families = list(made.collect())
    assert not any(one.calls.tally.calls for one in units), "and a scrape asks nobody either"
    assert EXPORTERS_METRICS_REQUESTED.name.removesuffix("_total") in {family.name for family in families}


if __name__ == "__main__":
    GOLDEN.write_text(exposition())
