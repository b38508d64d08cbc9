"""The kubelets of a cluster without machines, played by kwok: nodes are Ready and pods run, and nothing is there."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from drills.harness.http import answers, client
from drills.harness.process import Process, cluster_tool, running

ZONE_LABEL: Final = "topology.kubernetes.io/zone"

_LEASE_SECONDS = 2  # they renew theirs four times as often, so that none is late while its node is well

# What they do for a pod. Unlike kwok by itself, they also find one ready again whose node was given up for a while.
_IS_READY = '.status.conditions.[] | select( .type == "Ready" ) | .status'
_RUNS = """
{{ $now := Now | Quote }}
phase: Running
podIP: {{ or .status.podIP (PodIPWith .spec.nodeName false .metadata.uid .metadata.name .metadata.namespace) | Quote }}
startTime: {{ or .status.startTime Now | Quote }}
conditions:
- {type: Initialized, status: "True", lastTransitionTime: {{ $now }}}
- {type: ContainersReady, status: "True", lastTransitionTime: {{ $now }}}
- {type: Ready, status: "True", lastTransitionTime: {{ $now }}}
containerStatuses:
{{ range .spec.containers }}
- name: {{ .name | Quote }}
  image: {{ .image | Quote }}
  ready: true
  restartCount: 0
  state: {running: {startedAt: {{ $now }}}}
{{ end }}
"""


def _stage(name: str, expressions: Sequence[Mapping[str, Any]], following: Mapping[str, Any]) -> str:
    pods = {"apiGroup": "v1", "kind": "Pod"}
    spec = {"resourceRef": pods, "selector": {"matchExpressions": expressions}, "next": following}
    return json.dumps(
        {"apiVersion": "kwok.x-k8s.io/v1alpha1", "kind": "Stage", "metadata": {"name": name}, "spec": spec}
    )


_STAGES = (
    _stage(
        "run",
        (
            {"key": ".metadata.deletionTimestamp", "operator": "DoesNotExist"},
            {"key": _IS_READY, "operator": "NotIn", "values": ["True"]},
        ),
        {"statusTemplate": _RUNS},
    ),
    _stage(
        "end",
        ({"key": ".metadata.deletionTimestamp", "operator": "Exists"},),
        {"finalizers": {"empty": True}, "delete": True},
    ),
)


@contextmanager
def kubelets_of(zone: str, number: int, kubeconfig: Path, environment: Mapping[str, str]) -> Iterator[Process]:
    """Run the kubelets of a zone, all in one process, while the block runs.

    Args:
        zone: Its name; theirs are all nodes that it labels.
        number: Which zone it is, from 0: its pods have addresses below `10.<number>`.
        kubeconfig: How to get to the API server.
        environment: As `running` takes it.

    Raises:
        HarnessError: kwok is not built, or does not start.
    """
    program = cluster_tool("kwok")

    def command(ports: Sequence[int], folder: Path) -> list[str | Path]:
        stages = folder / "stages.yaml"
        stages.write_text("\n---\n".join(_STAGES))  # JSON is YAML
        return [
            program,
            f"--config={stages}",
            f"--kubeconfig={kubeconfig}",
            f"--manage-nodes-with-label-selector={ZONE_LABEL}={zone}",
            f"--node-lease-duration-seconds={_LEASE_SECONDS}",
            f"--cidr=10.{number}.0.1/16",
            f"--server-address=127.0.0.1:{ports[0]}",
        ]

    def ready(ports: Sequence[int]) -> bool:
        with client(f"http://127.0.0.1:{ports[0]}") as http:
            return answers(http, "/healthz")

    with running(f"kwok-{zone}", command, ready, environment=environment) as process:
        yield process
