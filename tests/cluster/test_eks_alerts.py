"""From a real cluster to whoever is told: what happens there is seen in the metrics, the rules and the tickets.

Everything is real: the control plane, kube-state-metrics, Karpenter, the process `exporters run`, Prometheus with our
rules, Alertmanager with our configuration. Only time is shorter: the exporter asks each second instead of each minute,
the promises' windows are divided by 60, and causes hold for seconds.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import alerts.alertmanager
import alerts.prometheus
from alerts.alertmanager import Receivers, Timings, Webhook
from drills.harness import (
    Cluster,
    Notification,
    Process,
    Prometheus,
    WebhookReceiver,
    alertmanager,
    karpenter,
    kube_state_metrics,
    kubernetes,
    prometheus,
    running,
    webhook_receiver,
)
from drills.harness.http import answers, client
from drills.harness.karpenter import NODE_CLASS
from slo import Slo
from slo.causes import Cause, Query
from slo.compile import CompiledSlo, compile_slo
from slo.definitions import eks
from slo.metrics.eks import (
    EKS_METRICS,
    KARPENTER_CLOUD_ERRORS,
    KARPENTER_METRICS,
    KUBE_METRICS,
)
from slo.settings import Links
from slo.windows import policy
from tests.cluster.test_eks_exporter import reader_token
from tests.cluster.test_kubernetes import _autoscaler, _budget, _deployment

pytestmark = pytest.mark.cluster

_TIMES_FASTER = 60
_HOLD = timedelta(seconds=2)
_SCRAPE = timedelta(milliseconds=500)
_SECONDS_MAX = 90.0
_LINKS = Links(
    grafana="https://grafana.example.com",
    runbooks="https://runbooks.example.com",
    traces="https://traces.example.com",
    logs="https://logs.example.com",
)
_RANGE = re.compile(r"\[(\d+)m\]")

# `exporters run`, but for one number: a file may not ask for less than a minute.
_EVERY_SECOND = """
from dataclasses import replace
from exporters import settings
load = settings.load
settings.load = lambda file: replace(load(file), period_seconds=1)
from exporters.__main__ import main
main()
"""

# What Prometheus' discovery in Kubernetes puts on every target: of the exporter's own pod.
_TARGET_LABELS = {"namespace": "monitoring", "pod": "exporter-0", "container": "exporter"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """What runs."""

    cluster: Cluster
    metrics: Prometheus
    people: WebhookReceiver

    def until(self, expr: str, value: float | None) -> None:
        """Wait until a query has this one value, or none."""
        self.cluster.wait_until(f"{expr} is {value}", lambda: self.metrics.value(expr) == value, _SECONDS_MAX)

    def told(self, name: str, status: str = "firing", **labels: str) -> dict[str, Any]:
        """The alert with these labels, once a ticket about it has arrived.

        Raises:
            TimeoutError: None arrives.
        """
        notification = self.people.wait_for(lambda one: _alerts(one, name, status, labels), _SECONDS_MAX)
        assert notification.path == "/ticket"
        return _alerts(notification, name, status, labels)[0]


def _alerts(notification: Notification, name: str, status: str, labels: Mapping[str, str]) -> list[dict[str, Any]]:
    wanted = {"alertname": name, **labels}.items()
    return [one for one in notification.alerts if one["status"] == status and wanted <= one["labels"].items()]


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """A cluster with a node in each of three zones, and all that watches it."""
    folder = tmp_path_factory.mktemp("stage")
    with ExitStack() as stack:
        start = stack.enter_context
        cluster = start(kubernetes())
        for zone in cluster.zones:
            cluster.node(f"node-{zone}", zone, cpu="4", memory="16Gi")
        cluster.wait_until("three nodes are Ready", lambda: len(cluster.ready_nodes()) == 3, _SECONDS_MAX)
        shown = start(kube_state_metrics(cluster))
        provisioner = start(karpenter(cluster))
        exporter = start(_exporters(cluster, reader_token(cluster, folder)))
        people = start(webhook_receiver())
        compiled = [_faster(eks.zones), _faster(eks.headroom)]
        pager = start(alertmanager(_routes(compiled, people)))
        jobs = {
            "kube-state-metrics": shown.url.removeprefix("http://"),
            "karpenter": provisioner.url.removeprefix("http://"),
            "exporters": f"127.0.0.1:{exporter.ports[0]}",
        }
        metrics = start(
            prometheus(
                rules=[_rules(folder, compiled)],
                targets={job: [address] for job, address in jobs.items()},
                alertmanager_url=pager.url,
                scrape_interval=_SCRAPE,
                evaluation_interval=_SCRAPE,
                config={"scrape_configs": [_scrape(job, address) for job, address in jobs.items()]},
            )
        )
        yield Stage(cluster=cluster, metrics=metrics, people=people)


@contextmanager
def _exporters(cluster: Cluster, token_file: Path) -> Iterator[Process]:
    """The exporters' process, of the source `eks` alone."""

    def command(ports: Sequence[int], folder: Path) -> list[str | Path]:
        file = folder / "exporters.toml"
        settings = {"url": cluster.url, "token_file": str(token_file), "ca_file": str(cluster.ca_file)}
        lines = "\n".join(f"{key} = {json.dumps(value)}" for key, value in settings.items())
        file.write_text(
            f'listen = "127.0.0.1:{ports[0]}"\nsources = ["eks"]\n[kubernetes]\ncluster = "drill"\n{lines}\n'
        )
        return [sys.executable, "-c", _EVERY_SECOND, "run", "--config", file]

    def ready(ports: Sequence[int]) -> bool:
        with client(f"http://127.0.0.1:{ports[0]}") as http:
            return answers(http, "/readyz")

    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    with running("exporters", command, ready, environment=environment) as process:
        yield process


def _scrape(job: str, address: str) -> dict[str, Any]:
    """How docs/exporters.md says that they are scraped: labels of what is described win over those of who tells."""
    return {
        "job_name": job,
        "honor_labels": True,
        "static_configs": [{"targets": [address], "labels": _TARGET_LABELS}],
    }


def _faster(slo: Slo) -> CompiledSlo:
    """A promise in which a second stands for a minute; its short windows are shorter still, as tickets end by them."""
    fast = policy(slo.window).scaled(_TIMES_FASTER)
    return compile_slo(slo, replace(fast, pairs=tuple(replace(pair, short=2 * fast.base) for pair in fast.pairs)))


def _cause(cause: Cause) -> Cause:
    """A cause that holds for seconds, and looks back over as many as there were minutes."""
    condition = cause.condition
    if isinstance(condition, Query):
        condition = replace(condition, promql=_RANGE.sub(r"[\1s]", condition.promql))
    return replace(cause, condition=condition, hold=_HOLD)


def _rules(folder: Path, compiled: Sequence[CompiledSlo]) -> Path:
    """The rules of the promises and the causes."""
    groups = [group for one in compiled for group in alerts.prometheus.rule_groups(one, _LINKS)]
    causes = [alerts.prometheus.cause_rule(_cause(one), _LINKS) for one in eks.causes]
    file = folder / "rules.json"
    file.write_text(json.dumps({"groups": [*groups, {"name": "causes", "interval": "500ms", "rules": causes}]}))
    return file


def _routes(compiled: Sequence[CompiledSlo], people: WebhookReceiver) -> str:
    """Alertmanager's configuration, with receivers that are here and the shortest waits."""
    page, ticket, watchdog = (Webhook(url=f"{people.url}/{name}") for name in ("page", "ticket", "watchdog"))
    receivers = Receivers(page=page, ticket=ticket, watchdog=watchdog)
    rendered = alerts.alertmanager.render(compiled, receivers, Timings().scaled(300))
    return next(one.text for one in rendered if one.path == alerts.alertmanager.PATH)


@contextmanager
def _lost(cluster: Cluster, zone: str) -> Iterator[None]:
    cluster.lose_zone(zone)
    try:
        yield
    finally:
        cluster.restore_zone(zone)


def test_a_zone_is_lost_and_a_budget_with_it(stage: Stage) -> None:
    """A promise, a node, a budget, a replica and a pod without a place are told, each by its name, until it is back."""
    cluster = stage.cluster
    lost = cluster.zones[0]
    node, budget = f"node-{lost}", 'kube_poddisruptionbudget_status_pod_disruptions_allowed{poddisruptionbudget="even"}'
    expected = {
        "EksZonesTicket": {"slo": "zones"},
        "EksNodeNotReady": {"node": node},
        "EksBudgetSpent": {"poddisruptionbudget": "even", "namespace": "default"},
        "EksReplicasMissing": {"deployment": "even", "namespace": "default"},
        "EksPodsUnschedulable": {"namespace": "default"},
    }
    with _deployment(cluster, "even", 3) as name:
        cluster.apply(_budget(name, 2))
        stage.until(budget, 1)
        stage.until(f'eks_zone_ready_nodes{{availability_zone="{lost}"}}', 1)
        cluster.wait_until("nothing is wrong", lambda: not stage.metrics.alerts(), _SECONDS_MAX)

        with _lost(cluster, lost):
            stage.until(f'eks_zone_ready_nodes{{availability_zone="{lost}"}}', 0)
            stage.until(budget, 0)
            for alert, labels in expected.items():
                told = stage.told(alert, **labels)
                assert told["labels"]["severity"] == "ticket"
                assert told["annotations"]["runbook_url"].endswith(f"/{alert}.md")
        for alert, labels in expected.items():
            stage.told(alert, "resolved", **labels)


def test_an_autoscaler_sits_at_its_maximum_and_takes_the_headroom(stage: Stage) -> None:
    """Nine pods of a core are all that it may make, and three quarters of the cluster; with less to do both end."""
    cluster = stage.cluster
    with _deployment(cluster, "busy", 3, cpu="1") as name:
        autoscaler = _autoscaler(name, 3, 9, 60)
        at_once = {"stabilizationWindowSeconds": 0, "policies": [{"type": "Pods", "value": 20, "periodSeconds": 1}]}
        autoscaler["spec"]["behavior"] = {"scaleUp": at_once, "scaleDown": at_once}
        stage.until(f'kube_deployment_status_replicas_available{{deployment="{name}"}}', 3)
        cluster.apply(autoscaler)
        cluster.report_cpu("default", {"app": name}, 4.0)

        current = f'kube_horizontalpodautoscaler_status_current_replicas{{horizontalpodautoscaler="{name}"}}'
        stage.until(current, 9)
        stage.until('eks_idle_headroom_ratio{resource="cpu"}', 0.25)
        stage.told("EksAutoscalerAtMaximum", horizontalpodautoscaler=name, namespace="default")
        stage.told("EksHeadroomTicket", slo="headroom")

        cluster.report_cpu("default", {"app": name}, 0.05)
        stage.until(current, 3)
        stage.until('eks_idle_headroom_ratio{resource="cpu"}', 0.75)
        stage.told("EksAutoscalerAtMaximum", "resolved", horizontalpodautoscaler=name)
        stage.told("EksHeadroomTicket", "resolved", slo="headroom")


def test_a_container_that_is_ended_for_its_memory_again_and_again(stage: Stage) -> None:
    """Two causes tell of it by the pod's own name, and not by the names of who scraped it."""
    cluster = stage.cluster
    with _deployment(cluster, "greedy", 1) as name:
        restarts = f'kube_pod_container_status_restarts_total{{pod=~"{name}-.*"}}'
        stage.until(restarts, 0)
        [pod] = {one.labels["pod"] for one in stage.metrics.query(restarts)}
        # No container runs here, so its kubelet's words are ours.
        status = {
            "name": "service",
            "image": "redemption",
            "imageID": "",
            "ready": False,
            "restartCount": 3,
            "state": {"waiting": {"reason": "CrashLoopBackOff"}},
            "lastState": {"terminated": {"reason": "OOMKilled", "exitCode": 137}},
        }
        patch = json.dumps({"status": {"containerStatuses": [status]}})
        cluster.kubectl("patch", "pod", pod, "--subresource=status", "--type=merge", f"--patch={patch}")

        labels = {"pod": pod, "container": "service", "namespace": "default"}
        stage.told("EksOutOfMemory", **labels)
        stage.told("EksContainersCrash", **labels)
    stage.told("EksContainersCrash", "resolved", **labels)


def test_karpenter_makes_nodes_for_pods_that_wait(stage: Stage) -> None:
    """Pods too large for every node are told until a pool makes nodes; a full pool is, until more is allowed."""
    cluster = stage.cluster
    pool = {
        "apiVersion": "karpenter.sh/v1",
        "kind": "NodePool",
        "metadata": {"name": "large"},
        "spec": {
            "template": {
                "spec": {
                    "nodeClassRef": NODE_CLASS,
                    "requirements": [{"key": "kubernetes.io/arch", "operator": "In", "values": ["amd64"]}],
                }
            },
            "limits": {"cpu": "24"},
        },
    }
    with _deployment(cluster, "large", 3, cpu="6") as name:
        stage.until("count(kube_pod_status_unschedulable)", 3)
        [pod] = {stage.told("EksPodsUnschedulable", pod=one)["labels"]["pod"] for one in _pods(stage, name)[:1]}

        cluster.apply(pool)
        stage.until(f'kube_deployment_status_replicas_available{{deployment="{name}"}}', 3)
        stage.told("EksPodsUnschedulable", "resolved", pod=pod)
        stage.until('karpenter_nodepools_usage{nodepool="large", resource_type="cpu"}', 24)
        stage.until("sum(eks_zone_ready_nodes)", 6)
        stage.until("sum(karpenter_nodeclaims_created_total)", 3)
        stage.told("EksPoolNearlyFull", nodepool="large", resource_type="cpu")

        pool["spec"]["limits"]["cpu"] = "64"  # type: ignore[index]
        cluster.apply(pool)
        stage.told("EksPoolNearlyFull", "resolved", nodepool="large", resource_type="cpu")
        cluster.kubectl("delete", "nodeclaims", "--all", "--wait=false")
        stage.until("sum(karpenter_nodeclaims_terminated_total) > bool 2", 1)


def _pods(stage: Stage, name: str) -> list[str]:
    found = stage.metrics.query("kube_pod_status_unschedulable")
    return sorted(one.labels["pod"] for one in found if one.labels["pod"].startswith(f"{name}-"))


def test_what_the_definitions_read_is_there_with_its_labels(stage: Stage) -> None:
    """Every metric of the catalogue has series here with the declared labels, and no rule has failed. Runs last.

    Not here: errors of the cloud, as this one never refuses.
    """
    for metric in (*EKS_METRICS, *KUBE_METRICS, *KARPENTER_METRICS):
        if metric is KARPENTER_CLOUD_ERRORS:
            continue
        series = stage.metrics.api("series", **{"match[]": metric.name})
        assert series, metric.name
        declared = {*metric.labels, *metric.open_labels}
        added = {"__name__", "job", "instance", *_TARGET_LABELS}
        assert {frozenset(one.keys() - (added - declared)) for one in series} == {frozenset(declared)}, metric.name
        for label, values in metric.labels.items():
            assert {one[label] for one in series} <= set(values), metric.name
        if "namespace" in declared:
            assert {one["namespace"] for one in series} <= {"default", "kube-system"}, metric.name
    rules = stage.metrics.rules()
    assert [rule["lastError"] for rule in rules if rule["health"] != "ok"] == []
    assert {one.path for one in stage.people.notifications} == {"/ticket"}, "nobody is woken by any of it"
