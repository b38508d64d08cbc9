"""The exporter's EKS source on a real control plane: spread, a lost zone, headroom, and what it may do there."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import certifi
import pytest

from drills.harness import Cluster, kubernetes
from drills.harness.kubelets import ZONE_LABEL
from exporters.calls import Calls, SystemClock
from exporters.settings import Kubernetes
from exporters.sources.eks import Eks
from exporters.unit import Unit
from tests.exporters.fakes import log
from tests.exporters.test_units import scraped

pytestmark = pytest.mark.cluster

_SECONDS_MAX = 60.0

# All that it may do: what docs/exporters.md asks for.
_ROLE = {
    "apiVersion": "rbac.authorization.k8s.io/v1",
    "kind": "ClusterRole",
    "metadata": {"name": "exporters"},
    "rules": [{"apiGroups": [""], "resources": ["nodes", "pods"], "verbs": ["list"]}],
}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A cluster with a node of four cores and 16 GiB in each of three zones."""
    with kubernetes() as running:
        for zone in running.zones:
            running.node(f"node-{zone}", zone, cpu="4", memory="16Gi")
        running.wait_until("three nodes are Ready", lambda: len(running.ready_nodes()) == 3, _SECONDS_MAX)
        yield running


@pytest.fixture(scope="module")
def token_file(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The token of a service account that may do as little as that."""
    return reader_token(cluster, tmp_path_factory.mktemp("token"))


def reader_token(cluster: Cluster, folder: Path) -> Path:
    """The token of a service account that may list nodes and pods, and nothing else."""
    cluster.apply(_ROLE)
    cluster.kubectl("create", "serviceaccount", "exporters")
    cluster.kubectl(
        "create", "clusterrolebinding", "exporters", "--clusterrole=exporters", "--serviceaccount=default:exporters"
    )
    file = folder / "token"
    file.write_text(cluster.kubectl("create", "token", "exporters"))
    return file


def unit(cluster: Cluster, token_file: Path) -> Unit:
    """A unit that asks this cluster with this token."""
    calls = Calls(SystemClock(threading.Event()), attempts_max=3, retries_max=10)
    settings = Kubernetes(cluster="drill", url=cluster.url, token_file=token_file, ca_file=cluster.ca_file)
    name = {"source": "eks", "aws_account_id": "", "aws_region": "", "name": "drill"}
    return Unit(name, Eks(settings, calls), calls, log()[0], period_seconds=60)


def asked(one: Unit) -> dict[str, float]:
    """What a cycle brings."""
    one.cycle()
    assert one.status.up, one.calls.tally.errors
    return scraped([one], one.calls.clock)


def deployment(name: str, replicas: int) -> dict[str, object]:
    """A deployment that is spread over zones, each pod a core and 1 GiB."""
    labels = {"app": name}
    spread = {
        "topologyKey": ZONE_LABEL,
        "maxSkew": 1,
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": labels},
    }
    container = {"name": "c", "image": "c", "resources": {"requests": {"cpu": "1", "memory": "1Gi"}}}
    template = {
        "metadata": {"labels": labels},
        "spec": {"containers": [container], "topologySpreadConstraints": [spread]},
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template},
    }


def test_spread_headroom_and_a_lost_zone(cluster: Cluster, token_file: Path) -> None:
    """Three pods, one a zone; a quarter of the processors is asked for; a lost zone has no nodes and no pods."""
    one = unit(cluster, token_file)
    pods = {zone: f"eks_workload_zone_pods{{drill,default,redemption,{zone}}}" for zone in cluster.zones}
    nodes = {zone: f"eks_zone_ready_nodes{{drill,{zone}}}" for zone in cluster.zones}
    cluster.apply(deployment("redemption", 3))

    cluster.wait_until(
        "a pod is ready in each zone",
        lambda: asked(one).items() >= dict.fromkeys(pods.values(), 1.0).items(),
        _SECONDS_MAX,
    )
    found = asked(one)
    assert [found[name] for name in nodes.values()] == [1, 1, 1]
    assert found["eks_workload_zone_skew_pods{drill,default,redemption}"] == 0
    assert found["eks_workload_zone_skew_limit_pods{drill,default,redemption}"] == 1
    assert found["eks_idle_headroom_ratio{cpu,drill}"] == pytest.approx(0.75)
    assert found["eks_idle_headroom_ratio{memory,drill}"] == pytest.approx(1 - 3 / 48)

    lost = cluster.zones[0]
    cluster.lose_zone(lost)
    try:
        # The pod of the lost zone is made anew in another: two there, one in the third.
        left = [pods[zone] for zone in cluster.zones[1:]]
        cluster.wait_until(
            "it is ready there",
            lambda: sorted(asked(one).get(name, 0) for name in left) == [1, 2],
            _SECONDS_MAX,
        )
        found = asked(one)
        assert found["eks_workload_zone_skew_pods{drill,default,redemption}"] == 1
        assert found[nodes[lost]] == 0
        assert pods[lost] not in found
        assert found["eks_idle_headroom_ratio{cpu,drill}"] == pytest.approx(1 - 3 / 8)
    finally:
        cluster.restore_zone(lost)


def test_a_token_without_rights_is_denied(cluster: Cluster, tmp_path: Path) -> None:
    """Who may not list is told so, and no series is made up."""
    file = tmp_path / "token"
    file.write_text(cluster.kubectl("create", "token", "default"))
    one = unit(cluster, file)

    one.cycle()

    assert not one.status.up
    assert dict(one.calls.tally.errors) == {("LIST nodes", "denied"): 1}
    assert not one.status.readings


def test_a_stranger_at_the_address_is_not_believed(cluster: Cluster, token_file: Path) -> None:
    """The server's certificate is checked: with another authority nobody gets the token."""
    calls = Calls(SystemClock(threading.Event()), attempts_max=1, retries_max=0)
    settings = Kubernetes(cluster="drill", url=cluster.url, token_file=token_file, ca_file=Path(certifi.where()))
    name = {"source": "eks", "aws_account_id": "", "aws_region": "", "name": "drill"}
    told, lines = log()
    one = Unit(name, Eks(settings, calls), calls, told, period_seconds=60)

    one.cycle()

    assert not one.status.up
    assert "CERTIFICATE_VERIFY_FAILED" in lines()[0]["error"]
