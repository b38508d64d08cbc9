"""Spread, budgets, autoscaling, a lost zone and new nodes: decided by a real control plane, seen in real metrics."""

from __future__ import annotations

import json
import ssl
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from drills.harness import Cluster, HarnessError, KubeStateMetrics, karpenter, kube_state_metrics, kubernetes, process
from drills.harness.karpenter import NODE_CLASS
from drills.harness.kubelets import ZONE_LABEL
from drills.harness.kubernetes import condition

pytestmark = pytest.mark.cluster

_SECONDS_MAX = 60.0
_NAMESPACE = "default"
_KSM_ZONE = "label_topology_kubernetes_io_zone"


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A cluster with two small nodes in each of three zones."""
    with kubernetes() as running:
        for zone in running.zones:
            for number in (1, 2):
                running.node(f"{zone}-{number}", zone, cpu="4", memory="16Gi")
        running.wait_until("six nodes are Ready", lambda: len(running.ready_nodes()) == 6, _SECONDS_MAX)
        yield running


@pytest.fixture(scope="module")
def metrics(cluster: Cluster) -> Iterator[KubeStateMetrics]:
    """What shows the cluster."""
    with kube_state_metrics(cluster) as running:
        yield running


def _samples(url: str, name: str, **labels: str) -> list[tuple[Mapping[str, str], float]]:
    """The samples of a metric that have these labels, as an exporter shows them now."""
    text = httpx.get(f"{url}/metrics", trust_env=False).raise_for_status().text
    return [
        (sample.labels, sample.value)
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    ]


def _value(url: str, name: str, **labels: str) -> float | None:
    found = _samples(url, name, **labels)
    return found[0][1] if len(found) == 1 else None


@contextmanager
def _deployment(cluster: Cluster, name: str, replicas: int, *, cpu: str = "200m", **spread: str) -> Iterator[str]:
    """A deployment that is spread over zones, until the block ends."""
    labels = {"app": name}
    constraint = {
        "topologyKey": ZONE_LABEL,
        "maxSkew": 1,
        "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": labels},
        **spread,
    }
    container = {"name": "service", "image": "redemption", "resources": {"requests": {"cpu": cpu}}}
    template = {
        "metadata": {"labels": labels},
        "spec": {"containers": [container], "topologySpreadConstraints": [constraint]},
    }
    spec = {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template}
    cluster.apply(_object("apps/v1", "Deployment", name, spec))
    try:
        yield name
    finally:
        cluster.kubectl("delete", "deployment,poddisruptionbudget,horizontalpodautoscaler", "--all")
        cluster.wait_until("the pods are gone", lambda: not _pods(cluster, name), _SECONDS_MAX)


def _budget(name: str, least: int) -> dict[str, Any]:
    spec = {"minAvailable": least, "selector": {"matchLabels": {"app": name}}}
    return _object("policy/v1", "PodDisruptionBudget", name, spec)


def _autoscaler(name: str, least: int, most: int, percent: int) -> dict[str, Any]:
    cpu = {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": percent}}
    spec = {
        "minReplicas": least,
        "maxReplicas": most,
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name},
        "metrics": [{"type": "Resource", "resource": cpu}],
    }
    return _object("autoscaling/v2", "HorizontalPodAutoscaler", name, spec)


def _object(version: str, kind: str, name: str, spec: Mapping[str, Any]) -> dict[str, Any]:
    return {"apiVersion": version, "kind": kind, "metadata": {"name": name, "namespace": _NAMESPACE}, "spec": spec}


def _pods(cluster: Cluster, name: str) -> list[dict[str, Any]]:
    found = cluster.get(f"/api/v1/namespaces/{_NAMESPACE}/pods", labelSelector=f"app={name}")
    return list(found["items"])


def _zones(cluster: Cluster, name: str) -> Counter[str]:
    """How many pods are in each zone, without those that are to end."""
    nodes = {node["metadata"]["name"]: node["metadata"]["labels"] for node in cluster.get("/api/v1/nodes")["items"]}
    return Counter(
        nodes[pod["spec"]["nodeName"]][ZONE_LABEL]
        for pod in _pods(cluster, name)
        if pod["spec"].get("nodeName") and "deletionTimestamp" not in pod["metadata"]
    )


def _available(cluster: Cluster, name: str) -> int:
    found = cluster.get(f"/apis/apps/v1/namespaces/{_NAMESPACE}/deployments/{name}")
    return int(found["status"].get("availableReplicas", 0))


def _until_available(cluster: Cluster, name: str, count: int) -> None:
    _until(cluster, f"{count} are available", lambda: _available(cluster, name), count)


def _until(cluster: Cluster, what: str, read: Callable[[], object], value: object) -> None:
    cluster.wait_until(what, lambda: read() == value, _SECONDS_MAX)


@contextmanager
def _lost(cluster: Cluster, zone: str) -> Iterator[None]:
    """A zone whose kubelets are not heard while the block runs."""
    cluster.lose_zone(zone)
    try:
        yield
    finally:
        cluster.restore_zone(zone)
        _until(cluster, "its nodes are back", lambda: len(cluster.ready_nodes()), 6)


def test_a_program_that_is_not_built_is_named_with_the_word_that_builds_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without etcd there is no cluster, and the message says what to do."""
    monkeypatch.setattr(process, "TOOLS", tmp_path)
    with pytest.raises(HarnessError, match=r"etcd is missing.*`make tools-cluster`"), kubernetes():
        pass


def test_who_has_no_role_may_read_nothing(cluster: Cluster) -> None:
    """The API server checks roles: a service account reads pods once it is bound to `view`, and secrets never."""
    cluster.kubectl("create", "serviceaccount", "reader")
    token = cluster.kubectl("create", "token", "reader").strip()
    trust = ssl.create_default_context(cafile=str(cluster.ca_file))

    def asked(kind: str) -> int:
        path = f"{cluster.url}/api/v1/namespaces/{_NAMESPACE}/{kind}"
        headers = {"authorization": f"Bearer {token}"}
        return httpx.get(path, headers=headers, verify=trust, trust_env=False).status_code

    assert asked("pods") == 403
    cluster.kubectl("create", "clusterrolebinding", "reader", "--clusterrole=view", "--serviceaccount=default:reader")
    _until(cluster, "the role counts", lambda: asked("pods"), 200)
    assert asked("secrets") == 403


def test_nodes_are_ready_in_their_zones(cluster: Cluster, metrics: KubeStateMetrics) -> None:
    """Six nodes, two a zone, in the API and in the metrics that rules take zones from."""
    nodes = cluster.ready_nodes()
    assert Counter(nodes.values()) == dict.fromkeys(cluster.zones, 2)

    def ready() -> dict[str, float]:
        found = _samples(metrics.url, "kube_node_status_condition", condition="Ready", status="true")
        return {labels["node"]: value for labels, value in found}

    _until(cluster, "the metrics show it", ready, dict.fromkeys(nodes, 1))
    assert {labels["node"]: labels[_KSM_ZONE] for labels, _ in _samples(metrics.url, "kube_node_labels")} == nodes


def test_a_spread_deployment_goes_evenly_over_zones(cluster: Cluster, metrics: KubeStateMetrics) -> None:
    """Nine pods with a spread constraint are three a zone, and each pod's node is in the metrics."""
    with _deployment(cluster, "even", 9) as name:
        _until_available(cluster, name, 9)
        assert _zones(cluster, name) == dict.fromkeys(cluster.zones, 3)
        zone = cluster.ready_nodes()

        def shown() -> Counter[str]:
            infos = [labels for labels, _ in _samples(metrics.url, "kube_pod_info")]
            return Counter(zone[labels["node"]] for labels in infos if labels["pod"].startswith(f"{name}-"))

        _until(cluster, "the metrics show it", shown, dict.fromkeys(cluster.zones, 3))


def test_a_budget_allows_one_disruption_or_none(cluster: Cluster, metrics: KubeStateMetrics) -> None:
    """With eight of nine to be kept one may go; with nine to be kept none, and an eviction is refused."""
    with _deployment(cluster, "budget", 9) as name:

        def allowed() -> float | None:
            shown = "kube_poddisruptionbudget_status_pod_disruptions_allowed"
            return _value(metrics.url, shown, poddisruptionbudget=name)

        cluster.apply(_budget(name, 8))
        _until(cluster, "one may go", allowed, 1)

        cluster.apply(_budget(name, 9))
        _until(cluster, "none may go", allowed, 0)
        pod = _pods(cluster, name)[0]["metadata"]["name"]
        eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod, "namespace": _NAMESPACE}}
        path = f"/api/v1/namespaces/{_NAMESPACE}/pods/{pod}/eviction"
        with pytest.raises(HarnessError, match="disruption budget"):
            cluster.kubectl("create", f"--raw={path}", "--filename=-", text=json.dumps(eviction))


def test_an_autoscaler_stops_at_its_most(cluster: Cluster, metrics: KubeStateMetrics) -> None:
    """Nine pods at twice the target would have to be eighteen; twelve may be, and it says that this limits it."""
    with _deployment(cluster, "busy", 9, cpu="200m") as name:
        _until_available(cluster, name, 9)
        cluster.apply(_autoscaler(name, 9, 12, 60))
        cluster.report_cpu(_NAMESPACE, {"app": name}, 0.24)  # of 0.2 asked for: 120 %
        _until_available(cluster, name, 12)

        def shown(metric: str, **labels: str) -> float | None:
            found = f"kube_horizontalpodautoscaler_{metric}"
            return _value(metrics.url, found, horizontalpodautoscaler=name, **labels)

        _until(cluster, "it shows twelve", lambda: shown("status_current_replicas"), 12)
        assert shown("spec_max_replicas") == 12
        _until(
            cluster,
            "it shows a limit",
            lambda: shown("status_condition", condition="ScalingLimited", status="true"),
            1,
        )
        found = cluster.get(f"/apis/autoscaling/v2/namespaces/{_NAMESPACE}/horizontalpodautoscalers/{name}")
        reasons = {one["type"]: one["reason"] for one in found["status"]["conditions"]}
        assert reasons["ScalingLimited"] == "TooManyReplicas"


def test_a_lost_zone_shows_in_nodes_pods_and_budgets(cluster: Cluster, metrics: KubeStateMetrics) -> None:
    """Its nodes are unknown, six of nine pods healthy; a constraint that counts lost nodes keeps three from moving."""
    zone = cluster.zones[0]
    with _deployment(cluster, "stuck", 9, nodeTaintsPolicy="Ignore") as name:  # which is the default
        _until_available(cluster, name, 9)
        cluster.apply(_budget(name, 8))

        def unknown() -> set[str]:
            found = _samples(metrics.url, "kube_node_status_condition", condition="Ready", status="unknown")
            return {labels["node"] for labels, value in found if value == 1}

        def healthy() -> float | None:
            return _value(metrics.url, "kube_poddisruptionbudget_status_current_healthy", poddisruptionbudget=name)

        with _lost(cluster, zone):
            _until(cluster, "its nodes are unknown", unknown, {f"{zone}-1", f"{zone}-2"})
            _until(cluster, "six are healthy", healthy, 6)
            _until(cluster, "three have no place", lambda: _without_place(metrics), 3)
            assert _zones(cluster, name) == dict.fromkeys(cluster.zones[1:], 3)
        _until_available(cluster, name, 9)


def test_pods_of_a_lost_zone_move_when_their_constraint_honours_taints(cluster: Cluster) -> None:
    """With `nodeTaintsPolicy: Honor` a zone whose nodes are all lost counts no more, and the rest takes its pods."""
    zone = cluster.zones[0]
    with _deployment(cluster, "moving", 9, nodeTaintsPolicy="Honor") as name:
        _until_available(cluster, name, 9)
        with _lost(cluster, zone):
            _until(cluster, "it is empty", lambda: zone in _zones(cluster, name), False)  # noqa: FBT003 - the value
            _until_available(cluster, name, 9)
            assert sorted(_zones(cluster, name).values()) == [4, 5]


def test_karpenter_makes_nodes_for_pods_without_a_place(cluster: Cluster, metrics: KubeStateMetrics) -> None:
    """Three pods too large for every node get a node each, one a zone, and run there."""
    requirement = {"key": "kubernetes.io/arch", "operator": "In", "values": ["amd64"]}
    template = {"spec": {"nodeClassRef": NODE_CLASS, "requirements": [requirement]}}
    pool = {
        "apiVersion": "karpenter.sh/v1",
        "kind": "NodePool",
        "metadata": {"name": "redemption"},
        "spec": {"template": template, "limits": {"cpu": "64"}},
    }
    with _deployment(cluster, "large", 3, cpu="6") as name:
        _until(cluster, "they have no place", lambda: _without_place(metrics), 3)
        with karpenter(cluster) as provisioner:
            cluster.apply(pool)
            _until_available(cluster, name, 3)

            claims = cluster.get("/apis/karpenter.sh/v1/nodeclaims")["items"]
            assert [condition(claim, "Launched") for claim in claims] == ["True"] * 3
            nodes = cluster.ready_nodes()
            assert {nodes[claim["status"]["nodeName"]] for claim in claims} == set(cluster.zones)
            created = _samples(provisioner.url, "karpenter_nodeclaims_created_total", nodepool="redemption")
            assert sum(value for _, value in created) == 3


def _without_place(metrics: KubeStateMetrics) -> int:
    return len(_samples(metrics.url, "kube_pod_status_unschedulable"))
