"""What kube-state-metrics cannot know: how pods are spread over zones, and how much of the cluster is idle.

Two lists of the Kubernetes API, nodes and pods, in pages; nothing is watched and nothing is written. It needs the verb
`list` on both, and nothing else.
"""

from __future__ import annotations

import re
import ssl
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any, Final

import httpx

from exporters.calls import CallError, Calls, Reason
from exporters.readings import Key, Reading
from exporters.settings import Kubernetes
from exporters.sources import Collected
from slo.metrics import Metric
from slo.metrics.eks import (
    EKS_IDLE_HEADROOM,
    EKS_METRICS,
    EKS_WORKLOAD_ZONE_PODS,
    EKS_WORKLOAD_ZONE_SKEW,
    EKS_WORKLOAD_ZONE_SKEW_LIMIT,
    EKS_ZONE_READY_NODES,
)

_ZONE: Final = "topology.kubernetes.io/zone"
_HASH: Final = "pod-template-hash"
_PAGE: Final = 500
_PAGES_MAX: Final = 1000
_LIVING: Final = "status.phase!=Succeeded,status.phase!=Failed"
_RESOURCES: Final = ("cpu", "memory")

# https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/
_QUANTITY = re.compile(r"([+-]?[0-9.]+(?:[eE][+-]?[0-9]+)?)(n|u|m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei)?")
_FACTORS: Final = {"n": Decimal("1e-9"), "u": Decimal("1e-6"), "m": Decimal("1e-3")} | {
    unit: Decimal(base) ** power
    for base, units in ((1000, ("k", "M", "G", "T", "P", "E")), (1024, ("Ki", "Mi", "Gi", "Ti", "Pi", "Ei")))
    for power, unit in enumerate(units, 1)
}


@dataclass(frozen=True, slots=True)
class Node:
    """A node that is ready."""

    name: str
    zone: str
    takes_pods: bool
    allocatable: Mapping[str, Decimal]


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod that has not ended.

    Attributes:
        workload: Namespace and name of the Deployment or StatefulSet that it is of; None for any other.
        node: Where it runs; empty while it is pending.
        ready: Whether it may be sent requests.
        requests: What the scheduler counts for it.
        skew_limit: The smallest `maxSkew` over zones that it asks for, if it does.
    """

    workload: tuple[str, str] | None
    node: str
    ready: bool
    requests: Mapping[str, Decimal]
    skew_limit: int | None


class Eks:
    """A source: one cluster.

    Args:
        settings: Where it is, and who asks.
        calls: Counts and repeats.
        timeout_seconds: Time for one answer.
    """

    metrics = EKS_METRICS

    def __init__(self, settings: Kubernetes, calls: Calls, *, timeout_seconds: float = 10.0) -> None:
        self._settings = settings
        self._calls = calls
        self._timeout_seconds = timeout_seconds
        self._zones: set[str] = set()

    def collect(self) -> Collected:
        """List nodes and pods, and count.

        Raises:
            CallError: One of the lists is not whole.
        """
        now = self._calls.clock.now()
        with self._client() as http:
            nodes = {node.name: node for node in map(_node, self._list(http, "nodes")) if node}
            pods = [_pod(one) for one in self._list(http, "pods", fieldSelector=_LIVING)]
        self._zones |= {node.zone for node in nodes.values()}
        values = (*_of_zones(nodes, self._zones), *_of_workloads(nodes, pods), *_headroom(nodes, pods))
        cluster = {"eks_cluster": self._settings.cluster}
        return Collected([Reading(Key.of(metric, **cluster, **labels), value, now) for metric, labels, value in values])

    def _client(self) -> httpx.Client:
        try:
            token = self._settings.token_file.read_text().strip()
            trust = ssl.create_default_context(cafile=str(self._settings.ca_file))
        except OSError as error:  # ssl.SSLError is one
            raise self._calls.failed(
                "credentials", CallError(Reason.DENIED, f"{type(error).__name__}: {error}")
            ) from error
        return httpx.Client(
            base_url=self._settings.url,
            verify=trust,
            headers={"authorization": f"Bearer {token}"},
            timeout=self._timeout_seconds,
            trust_env=False,
        )

    def _list(self, http: httpx.Client, things: str, **parameters: str) -> Iterator[Mapping[str, Any]]:
        parameters = {"limit": str(_PAGE), **parameters}
        for _ in range(_PAGES_MAX):
            page = self._calls(f"LIST {things}", lambda: _get(http, f"/api/v1/{things}", parameters))
            yield from page["items"]
            token = page["metadata"].get("continue")
            if not token:
                return
            parameters["continue"] = token
        raise self._calls.failed(f"LIST {things}", CallError(Reason.PARTIAL, f"more than {_PAGES_MAX} pages"))


def _get(http: httpx.Client, path: str, parameters: Mapping[str, str]) -> dict[str, Any]:
    try:
        response = http.get(path, params=parameters)
        if response.is_success:
            found: dict[str, Any] = response.json()
            return found
    except httpx.TimeoutException as error:
        raise CallError(Reason.TIMEOUT, type(error).__name__, repeatable=True) from error
    except (httpx.HTTPError, ValueError) as error:
        raise CallError(Reason.OTHER, f"{type(error).__name__}: {error}"[:300], repeatable=True) from error
    text = f"{path} answered {response.status_code}"
    match response.status_code:
        case httpx.codes.UNAUTHORIZED | httpx.codes.FORBIDDEN:
            raise CallError(Reason.DENIED, text)
        case httpx.codes.TOO_MANY_REQUESTS:
            raise CallError(Reason.THROTTLED, text, repeatable=True)
        case httpx.codes.GONE:  # the list grew too old between two pages
            raise CallError(Reason.PARTIAL, text)
        case status:
            raise CallError(Reason.OTHER, text, repeatable=status >= httpx.codes.INTERNAL_SERVER_ERROR)


# --- what the lists say -----------------------------------------------------------------------------------------------


def _node(one: Mapping[str, Any]) -> Node | None:
    if not _ready(one):
        return None
    metadata, spec = one["metadata"], one.get("spec", {})
    allocatable = _amounts(one.get("status", {}).get("allocatable", {}))
    zone = metadata.get("labels", {}).get(_ZONE, "")
    return Node(metadata["name"], zone, not spec.get("unschedulable", False), allocatable)


def _pod(one: Mapping[str, Any]) -> Pod:
    spec = one["spec"]
    limits = [
        constraint["maxSkew"]
        for constraint in spec.get("topologySpreadConstraints", ())
        if constraint["topologyKey"] == _ZONE
    ]
    leaving = "deletionTimestamp" in one["metadata"]
    return Pod(
        _workload(one["metadata"]),
        spec.get("nodeName", ""),
        _ready(one) and not leaving,
        _requests(spec),
        min(limits, default=None),
    )


def _ready(one: Mapping[str, Any]) -> bool:
    conditions = one.get("status", {}).get("conditions") or ()  # null in a new node
    return any(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions)


def _workload(metadata: Mapping[str, Any]) -> tuple[str, str] | None:
    """Whose pod it is; a ReplicaSet that has no Deployment, a DaemonSet or a Job is spread by nobody's wish."""
    owner = next((one for one in metadata.get("ownerReferences", ()) if one.get("controller")), None)
    revision = metadata.get("labels", {}).get(_HASH)
    match owner:
        case {"kind": "StatefulSet", "name": str(name)}:
            return metadata["namespace"], name
        case {"kind": "ReplicaSet", "name": str(name)} if revision and name.endswith(f"-{revision}"):
            return metadata["namespace"], name.removesuffix(f"-{revision}")
    return None


def _requests(spec: Mapping[str, Any]) -> dict[str, Decimal]:
    """What the scheduler counts: all containers and sidecars together, or the largest step of the start, and overhead.

    https://kubernetes.io/docs/concepts/workloads/pods/sidecar-containers/#resource-sharing-within-containers
    """
    together: Mapping[str, Decimal] = {}
    largest: Mapping[str, Decimal] = {}
    for one in spec.get("initContainers", ()):
        asked = _amounts(one.get("resources", {}).get("requests", {}))
        if one.get("restartPolicy") == "Always":
            together = _sum(together, asked)
            largest = _most(largest, together)
        else:
            largest = _most(largest, _sum(together, asked))
    for one in spec["containers"]:
        together = _sum(together, _amounts(one.get("resources", {}).get("requests", {})))
    return _sum(_most(together, largest), _amounts(spec.get("overhead", {})))


def _sum(one: Mapping[str, Decimal], other: Mapping[str, Decimal]) -> dict[str, Decimal]:
    return {name: one.get(name, Decimal()) + other.get(name, Decimal()) for name in _RESOURCES}


def _most(one: Mapping[str, Decimal], other: Mapping[str, Decimal]) -> dict[str, Decimal]:
    return {name: max(one.get(name, Decimal()), other.get(name, Decimal())) for name in _RESOURCES}


def _amounts(quantities: Mapping[str, str]) -> dict[str, Decimal]:
    return {name: quantity(quantities[name]) for name in _RESOURCES if name in quantities}


def quantity(text: str) -> Decimal:
    """An amount as Kubernetes writes it, `1500m` or `2Gi` say.

    Raises:
        ValueError: It is none.
    """
    found = _QUANTITY.fullmatch(text)
    try:
        return Decimal(found[1]) * _FACTORS.get(found[2], Decimal(1)) if found else Decimal(text)
    except InvalidOperation:
        raise ValueError(f"{text!r} is no quantity; '1500m' or '2Gi' would be") from None


# --- what follows from them -------------------------------------------------------------------------------------------

_Value = tuple[Metric, dict[str, str], float]


def _of_zones(nodes: Mapping[str, Node], zones: Iterable[str]) -> Iterator[_Value]:
    ready = Counter(node.zone for node in nodes.values())
    for zone in sorted(zones):
        yield EKS_ZONE_READY_NODES, {"availability_zone": zone}, float(ready[zone])


def _of_workloads(nodes: Mapping[str, Node], pods: Iterable[Pod]) -> Iterator[_Value]:
    zones = {node.zone for node in nodes.values()}
    ready: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    limits: dict[tuple[str, str], int] = {}
    for pod in pods:
        if pod.workload is None:
            continue
        counted = ready[pod.workload]
        if pod.ready and pod.node in nodes:
            counted[nodes[pod.node].zone] += 1
        if pod.skew_limit is not None:
            limits[pod.workload] = min(pod.skew_limit, limits.get(pod.workload, pod.skew_limit))
    for (namespace, name), counted in sorted(ready.items()):
        labels = {"namespace": namespace, "workload": name}
        for zone in sorted(zones):
            yield EKS_WORKLOAD_ZONE_PODS, labels | {"availability_zone": zone}, float(counted[zone])
        if zones:
            spread = [counted[zone] for zone in zones]
            yield EKS_WORKLOAD_ZONE_SKEW, labels, float(max(spread) - min(spread))
        if (namespace, name) in limits:
            yield EKS_WORKLOAD_ZONE_SKEW_LIMIT, labels, float(limits[namespace, name])


def _headroom(nodes: Mapping[str, Node], pods: Iterable[Pod]) -> Iterator[_Value]:
    """What could still be given, on nodes that take pods."""
    taking = {name: node for name, node in nodes.items() if node.takes_pods}
    asked = [pod.requests for pod in pods if pod.node in taking]
    for resource in _RESOURCES:
        whole = sum((node.allocatable.get(resource, Decimal()) for node in taking.values()), Decimal())
        used = sum((one[resource] for one in asked), Decimal())
        if whole:
            yield EKS_IDLE_HEADROOM, {"resource": resource}, float(max(whole - used, Decimal()) / whole)
