"""What is counted of nodes and pods; a real cluster is asked in tests/cluster."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest

from exporters.calls import CallError, Calls, Reason
from exporters.settings import Kubernetes
from exporters.sources.eks import Eks, quantity
from exporters.unit import Unit
from tests.exporters.fakes import Clock, log
from tests.exporters.test_units import scraped

NODES = "/api/v1/nodes"
PODS = "/api/v1/pods"


def node(name: str, zone: str, *, ready: str = "True", unschedulable: bool = False) -> dict[str, Any]:
    """A node of four cores and 16 GiB."""
    return {
        "metadata": {"name": name, "labels": {"topology.kubernetes.io/zone": zone}},
        "spec": {"unschedulable": unschedulable},
        "status": {
            "allocatable": {"cpu": "4", "memory": "16Gi", "pods": "110"},
            "conditions": [{"type": "Ready", "status": ready}],
        },
    }


def pod(
    node: str, *, ready: bool = True, owner: tuple[str, str] = ("ReplicaSet", "redemption-5d9f"), **spec: object
) -> dict[str, Any]:
    """A pod of the Deployment `redemption` that asks for one core and 1 GiB."""
    requests = {"requests": {"cpu": "1", "memory": "1Gi"}}
    return {
        "metadata": {
            "namespace": "loyalty",
            "labels": {"pod-template-hash": "5d9f"},
            "ownerReferences": [{"kind": owner[0], "name": owner[1], "controller": True}],
        },
        "spec": {"nodeName": node, "containers": [{"resources": requests}], **spec},
        "status": {"conditions": [{"type": "Ready", "status": str(ready)}]},
    }


class Listed(Eks):
    """The source with lists of plain values, in pages of two."""

    def __init__(self, lists: Mapping[str, list[dict[str, Any]]], calls: Calls) -> None:
        super().__init__(Kubernetes(cluster="main"), calls)
        self.lists = dict(lists)
        self.status = 200

    def _client(self) -> httpx.Client:
        return httpx.Client(base_url="https://kubernetes", transport=httpx.MockTransport(self._answer))

    def _answer(self, request: httpx.Request) -> httpx.Response:
        if self.status != httpx.codes.OK:
            return httpx.Response(self.status)
        first = int(request.url.params.get("continue", "0"))
        things = self.lists[request.url.path]
        more = str(first + 2) if first + 2 < len(things) else ""
        return httpx.Response(200, json={"metadata": {"continue": more}, "items": things[first : first + 2]})


def source(nodes: list[dict[str, Any]], pods: list[dict[str, Any]]) -> tuple[Unit, Listed]:
    """A unit of such a source."""
    calls = Calls(Clock(), attempts_max=2, retries_max=2, draw=lambda: 0.0)
    listed = Listed({NODES: nodes, PODS: pods}, calls)
    name = {"source": "eks", "aws_account_id": "", "aws_region": "", "name": "main"}
    return Unit(name, listed, calls, log()[0], period_seconds=60), listed


def cycled(unit: Unit) -> dict[str, float]:
    """What a cycle brings."""
    unit.cycle()
    assert unit.status.up
    return scraped([unit], Clock())


@pytest.fixture
def three_zones() -> list[dict[str, Any]]:
    """A node in each of three zones."""
    return [node(f"n-{zone}", zone) for zone in "abc"]


def test_ready_pods_are_counted_in_each_zone(three_zones: list[dict[str, Any]]) -> None:
    """Fullest less emptiest zone; a zone with nodes and no pod is 0; who is not ready or leaves does not count."""
    leaving = pod("n-c")
    leaving["metadata"]["deletionTimestamp"] = "2026-11-26T00:00:00Z"
    spread: dict[str, Any] = {
        "topologySpreadConstraints": [{"topologyKey": "topology.kubernetes.io/zone", "maxSkew": 1}]
    }
    pods = [pod("n-a", **spread), pod("n-a"), pod("n-b"), pod("n-c", ready=False), leaving, pod("")]

    found = cycled(source(three_zones, pods)[0])

    assert {zone: found[f"eks_workload_zone_pods{{main,loyalty,redemption,{zone}}}"] for zone in "abc"} == {
        "a": 2,
        "b": 1,
        "c": 0,
    }
    assert found["eks_workload_zone_skew_pods{main,loyalty,redemption}"] == 2
    assert found["eks_workload_zone_skew_limit_pods{main,loyalty,redemption}"] == 1


def test_a_lost_zone_is_zero_and_no_skew(three_zones: list[dict[str, Any]]) -> None:
    """Its nodes are told as 0 for as long as the exporter runs; pods cannot be where no node is."""
    unit, listed = source(three_zones, [pod("n-a"), pod("n-b"), pod("n-c")])
    cycled(unit)
    listed.lists[NODES] = [node("n-a", "a"), node("n-b", "b"), node("n-c", "c", ready="Unknown")]

    found = cycled(unit)

    assert {zone: found[f"eks_zone_ready_nodes{{main,{zone}}}"] for zone in "abc"} == {"a": 1, "b": 1, "c": 0}
    assert found["eks_workload_zone_skew_pods{main,loyalty,redemption}"] == 0
    assert "eks_workload_zone_pods{main,loyalty,redemption,c}" not in found


def test_headroom_is_what_nobody_asked_for(three_zones: list[dict[str, Any]]) -> None:
    """Of ready nodes that take pods: all containers and sidecars, or the largest step of the start, and overhead."""
    start = [
        {"restartPolicy": "Always", "resources": {"requests": {"cpu": "500m"}}},
        {"resources": {"requests": {"cpu": "2", "memory": "512Mi"}}},
    ]
    nodes = [*three_zones, node("cordoned", "a", unschedulable=True), node("lost", "b", ready="False")]
    pods = [
        pod("n-a", initContainers=start, overhead={"cpu": "250m"}),
        pod("n-b"),
        pod("cordoned"),
        pod("lost"),
        pod(""),
    ]

    found = cycled(source(nodes, pods)[0])

    assert found["eks_idle_headroom_ratio{cpu,main}"] == pytest.approx(1 - (2.75 + 1) / 12)
    assert found["eks_idle_headroom_ratio{memory,main}"] == pytest.approx(1 - 2 / 48)


def test_only_what_is_meant_to_be_spread_is_a_workload(three_zones: list[dict[str, Any]]) -> None:
    """Deployments and StatefulSets; not the pods of a DaemonSet, a Job, a bare ReplicaSet, or nobody."""
    owners = [("StatefulSet", "store"), ("DaemonSet", "agent"), ("Job", "once"), ("ReplicaSet", "bare")]

    found = cycled(source(three_zones, [pod("n-a", owner=owner) for owner in owners])[0])

    skews = [name for name in found if name.startswith("eks_workload_zone_skew")]
    assert skews == ["eks_workload_zone_skew_pods{main,loyalty,store}"]


@pytest.mark.parametrize(
    ("status", "reason"), [(401, "denied"), (403, "denied"), (429, "throttled"), (410, "partial"), (500, "other")]
)
def test_a_refusal_has_a_reason(three_zones: list[dict[str, Any]], status: int, reason: str) -> None:
    """What the API server answers becomes one of our reasons; half a list is none."""
    unit, listed = source(three_zones, [])
    listed.status = status

    unit.cycle()

    assert not unit.status.up
    assert unit.calls.tally.errors == {("LIST nodes", Reason(reason)): 1}
    assert not unit.status.readings


def test_the_token_is_read_for_every_cycle_and_the_server_is_checked(tmp_path: Path) -> None:
    """A missing token or a broken certificate is told, and nobody is asked."""
    settings = Kubernetes(cluster="main", token_file=tmp_path / "token", ca_file=tmp_path / "ca.crt")
    calls = Calls(Clock(), attempts_max=1, retries_max=0)

    with pytest.raises(CallError, match="FileNotFoundError") as caught:
        Eks(settings, calls).collect()
    assert caught.value.reason == Reason.DENIED

    settings.token_file.write_text("made-up-token")
    settings.ca_file.write_text("no certificate")
    with pytest.raises(CallError, match="SSLError"):
        Eks(settings, calls).collect()


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("100m", "0.1"),
        ("2", "2"),
        ("1.5", "1.5"),
        ("2Gi", "2147483648"),
        ("128974848", "128974848"),
        ("129e6", "129e6"),
    ],
)
def test_quantities_are_read_as_kubernetes_writes_them(text: str, amount: str) -> None:
    """Cores, bytes, and their units."""
    assert quantity(text) == Decimal(amount)


def test_what_is_no_quantity_is_refused() -> None:
    """And named."""
    with pytest.raises(ValueError, match="'many' is no quantity"):
        quantity("many")
