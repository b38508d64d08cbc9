"""A real Karpenter whose nodes cost nothing: its provider for tests makes Node objects; kwok plays their kubelets."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from drills.harness.http import answers, client
from drills.harness.kubelets import ZONE_LABEL
from drills.harness.kubernetes import Cluster, condition
from drills.harness.process import TOOLS, HarnessError, Process, cluster_tool, running

NODE_CLASS: Final = {"group": "karpenter.kwok.sh", "kind": "KWOKNodeClass", "name": "default"}
"""What a NodePool's `nodeClassRef` says here; on AWS it is an EC2NodeClass."""

_TYPES = TOOLS.parent / "share" / "karpenter"
_TYPES_SECONDS_MAX = 30.0
# Made up: 4 GiB a core, as AWS's m family has it, at a price that grows with the cores; in every zone, on demand.
_CORES = (2, 4, 8, 16)


@dataclass(frozen=True, slots=True)
class Karpenter:
    """A Karpenter that runs.

    Attributes:
        url: Its base URL; the metrics are below `/metrics`.
        process: Its process.
    """

    url: str
    process: Process


@contextmanager
def karpenter(cluster: Cluster, *, boot_seconds: int = 1) -> Iterator[Karpenter]:
    """Run a Karpenter for a cluster while the block runs; it does nothing until there is a NodePool with `NODE_CLASS`.

    It knows no flag for an address, so that it listens on all of them.

    Args:
        cluster: Where it finds pods without a node, and makes nodes.
        boot_seconds: How long a node takes from its launch until its kubelet is there.

    Raises:
        HarnessError: It is not built, or does not start.
    """
    program = cluster_tool("karpenter")
    types = sorted(_TYPES.glob("*.yaml"))
    if not types:
        raise HarnessError(
            f"Karpenter's types are missing: there is no file in {_TYPES}; get them by `make tools-cluster`"
        )
    cluster.apply(*(file.read_text() for file in types))
    cluster.wait_until("Karpenter's types are served", lambda: _established(cluster, len(types)), _TYPES_SECONDS_MAX)
    cluster.apply(
        {
            "apiVersion": f"{NODE_CLASS['group']}/v1alpha1",
            "kind": NODE_CLASS["kind"],
            "metadata": {"name": NODE_CLASS["name"]},
            "spec": {"nodeRegistrationDelay": f"{boot_seconds}s"},
        }
    )

    def command(ports: Sequence[int], folder: Path) -> list[str | Path]:
        metrics, health = ports
        offered = folder / "instance-types.json"
        offered.write_text(json.dumps([_instance_type(cores, cluster.zones) for cores in _CORES]))
        return [
            program,
            f"-metrics-port={metrics}",
            f"-health-probe-port={health}",
            f"-instance-types-file-path={offered}",
            "-disable-leader-election=true",
        ]

    def ready(ports: Sequence[int]) -> bool:
        with client(f"http://127.0.0.1:{ports[1]}") as http:
            return answers(http, "/readyz")

    with running("karpenter", command, ready, ports=2, environment=cluster.environment) as process:
        yield Karpenter(f"http://127.0.0.1:{process.ports[0]}", process)


def _established(cluster: Cluster, count: int) -> bool:
    found = cluster.get("/apis/apiextensions.k8s.io/v1/customresourcedefinitions")["items"]
    return (
        sum("karpenter" in one["spec"]["group"] and condition(one, "Established") == "True" for one in found) == count
    )


def _instance_type(cores: int, zones: Sequence[str]) -> dict[str, Any]:
    return {
        "name": f"m.{cores}-cores",
        "architecture": "amd64",
        "operatingSystems": ["linux"],
        "resources": {"cpu": str(cores), "memory": f"{4 * cores}Gi"},
        "offerings": [
            {
                "Price": 0.05 * cores,
                "Available": True,
                "Requirements": [
                    {"key": "karpenter.sh/capacity-type", "operator": "In", "values": ["on-demand"]},
                    {"key": ZONE_LABEL, "operator": "In", "values": [zone]},
                ],
            }
            for zone in zones
        ],
    }
