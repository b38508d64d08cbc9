"""A real kube-state-metrics: what a cluster's API holds, as metrics."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from drills.harness.http import answers, client
from drills.harness.kubelets import ZONE_LABEL
from drills.harness.kubernetes import Cluster
from drills.harness.process import Process, cluster_tool, running

# Without this flag nodes have no zone, and no rule can tell one zone's pods from another's.
_LABELS: Final = f"--metric-labels-allowlist=nodes=[{ZONE_LABEL}]"


@dataclass(frozen=True, slots=True)
class KubeStateMetrics:
    """A kube-state-metrics that runs.

    Attributes:
        url: Its base URL; the metrics are below `/metrics`.
        process: Its process.
    """

    url: str
    process: Process


@contextmanager
def kube_state_metrics(cluster: Cluster) -> Iterator[KubeStateMetrics]:
    """Run a kube-state-metrics for a cluster while the block runs.

    Raises:
        HarnessError: It is not built, or does not start.
    """
    program = cluster_tool("kube-state-metrics")

    def command(ports: Sequence[int], _: Path) -> list[str | Path]:
        metrics, own = ports
        return [
            program,
            f"--kubeconfig={cluster.kubeconfig}",
            "--host=127.0.0.1",
            f"--port={metrics}",
            "--telemetry-host=127.0.0.1",
            f"--telemetry-port={own}",
            _LABELS,
        ]

    def ready(ports: Sequence[int]) -> bool:
        with client(f"http://127.0.0.1:{ports[0]}") as http:
            return answers(http, "/healthz")

    with running("kube-state-metrics", command, ready, ports=2) as process:
        yield KubeStateMetrics(f"http://127.0.0.1:{process.ports[0]}", process)
