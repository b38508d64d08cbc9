"""What is marked on every panel with a time axis: when something was deployed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dashboards import board
from slo.matrix import Definitions
from slo.metrics.eks import KUBE_CONTAINER_RESTARTS

# A pod is called after its replica set, and each release makes a new one. So a release is a replica set that has pods
# now and had none two minutes ago; of every container there is a series, also when it never restarted.
_PODS = KUBE_CONTAINER_RESTARTS.name
_RELEASE = 'label_replace({pods}, "release", "$1", "pod", "(.+-[0-9a-z]{{6,10}})-[0-9a-z]{{5}}")'
_NOW, _BEFORE = (
    f"group by (namespace, release) ({_RELEASE.format(pods=pods)})" for pods in (_PODS, f"{_PODS} offset 2m")
)
_NEW_RELEASE = f"{_NOW}\nunless\n{_BEFORE}"


def deployments(defined: Definitions) -> list[Mapping[str, Any]]:
    """The mark of releases; none where nothing tells of pods."""
    if not any(KUBE_CONTAINER_RESTARTS in source.metrics for source in defined.sources):
        return []
    return [board.annotation("Deployments", _NEW_RELEASE, "{{namespace}}/{{release}}", "blue")]
