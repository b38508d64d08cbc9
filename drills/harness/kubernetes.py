"""A real Kubernetes control plane whose nodes and pods cost nothing: kwok plays every kubelet, one kwok a zone.

API server, controllers, scheduler and what they decide are the real ones: topology spread, disruption budgets,
autoscaling, eviction. No container runs, and what is a cloud's own (how long a node boots, its limits) is not here.
Three times are shorter than Kubernetes' defaults, so that what happens shows within seconds: `NODE_GRACE_SECONDS`
(default 40), `TOLERATION_SECONDS` (default 300), and the autoscaler's period (default 15 s, here 1).
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import ssl
import subprocess
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Final

import httpx
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from drills.harness.http import answers, checked, client, wait_until
from drills.harness.kubelets import ZONE_LABEL, kubelets_of
from drills.harness.process import HarnessError, Process, cluster_tool, running

HOST_LABEL: Final = "kubernetes.io/hostname"

NODE_GRACE_SECONDS: Final = 8
"""A node whose kubelet is silent for so long is no longer Ready."""
TOLERATION_SECONDS: Final = 3
"""A pod that does not say otherwise stays so long on a node that is not Ready; then it is evicted."""

_HEALTH_SECONDS_MAX = 60.0
_KUBECTL_SECONDS_MAX = 60.0
_READY_SECONDS_MAX = 30.0
_LOG_LINES = 8

# Whom the API server knows; what the last two may do, Kubernetes itself says.
_ADMIN, _CONTROLLERS, _SCHEDULER = "admin", "system:kube-controller-manager", "system:kube-scheduler"
_GROUPS = {_ADMIN: "system:masters", _CONTROLLERS: "", _SCHEDULER: ""}

# The metrics API is served here from objects, and not by a server that asks kubelets: there are none to ask.
_POD_METRICS: Final[Mapping[str, Any]] = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {
        "name": "pods.metrics.k8s.io",
        "annotations": {"api-approved.kubernetes.io": "unapproved, for tests"},
    },
    "spec": {
        "group": "metrics.k8s.io",
        "scope": "Namespaced",
        "names": {"plural": "pods", "singular": "podmetrics", "kind": "PodMetrics", "listKind": "PodMetricsList"},
        "versions": [
            {
                "name": "v1beta1",
                "served": True,
                "storage": True,
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}},
            }
        ],
    },
}


@dataclass(frozen=True, slots=True)
class Cluster:
    """A Kubernetes that runs.

    Attributes:
        url: The API server's base URL, HTTPS on loopback.
        token_file: A bearer token that may do anything; for one that may do less, make a service account and ask
            `kubectl("create", "token", name)`.
        ca_file: Certificates, in PEM, that the API server's is checked with.
        kubeconfig: The three together, as a file that every client of Kubernetes reads.
        zones: Its zones.
    """

    url: str
    token_file: Path
    ca_file: Path
    kubeconfig: Path
    zones: tuple[str, ...]
    _processes: Sequence[Process] = field(repr=False)
    _kubelets: Mapping[str, Process] = field(repr=False)
    _http: httpx.Client = field(repr=False)

    @property
    def environment(self) -> dict[str, str]:
        """What a client of Kubernetes runs with to get to this one."""
        return _environment(self.kubeconfig)

    def get(self, path: str, **parameters: str) -> Any:  # noqa: ANN401 - JSON is what the path makes it
        """What a path of the API answers, `/api/v1/nodes` say.

        Raises:
            HarnessError: It refuses.
        """
        return checked(self._http.get(path, params=parameters)).json()

    def kubectl(self, *arguments: str, text: str | None = None) -> str:
        """What `kubectl` prints, given a text to read as `-`.

        Raises:
            HarnessError: It fails; the message holds what it said.
        """
        done = subprocess.run(
            [cluster_tool("kubectl"), *arguments],
            env=self.environment,
            input=text or "",
            capture_output=True,
            text=True,
            check=False,
            timeout=_KUBECTL_SECONDS_MAX,
        )
        if done.returncode != 0:
            raise HarnessError(f"kubectl {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout

    def apply(self, *manifests: Mapping[str, Any] | str) -> None:
        """Make or change objects; a text may hold several, in YAML or JSON.

        Raises:
            HarnessError: The API server refuses one.
        """
        texts = [one if isinstance(one, str) else json.dumps(one) for one in manifests]  # JSON is YAML
        # Not by the client: Karpenter's types are too long for the annotation that it would add.
        self.kubectl("apply", "--server-side", "--force-conflicts", "--filename=-", text="\n---\n".join(texts))

    def node(self, name: str, zone: str, *, cpu: str = "8", memory: str = "32Gi", pods: int = 110) -> None:
        """Add a node; its kubelet makes it Ready in a moment.

        Raises:
            HarnessError: There is no such zone, or there is a node of this name.
        """
        self._check(zone)
        room = {"cpu": cpu, "memory": memory, "pods": str(pods)}
        manifest = {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": name, "labels": {ZONE_LABEL: zone, HOST_LABEL: name}},
            "status": {"capacity": room, "allocatable": room},
        }
        checked(self._http.post("/api/v1/nodes", json=manifest))

    def ready_nodes(self) -> dict[str, str]:
        """The zone of every node that is Ready, by name."""
        return {
            node["metadata"]["name"]: node["metadata"]["labels"].get(ZONE_LABEL, "")
            for node in self.get("/api/v1/nodes")["items"]
            if condition(node, "Ready") == "True"
        }

    def lose_zone(self, zone: str) -> None:
        """Cut off every kubelet of a zone: its nodes are unknown `NODE_GRACE_SECONDS` later, and nothing there ends.

        Raises:
            HarnessError: There is no such zone.
        """
        self._signal(zone, signal.SIGSTOP)

    def restore_zone(self, zone: str) -> None:
        """Let the kubelets of a zone be heard again; pods that were evicted meanwhile end now.

        Raises:
            HarnessError: There is no such zone.
        """
        self._signal(zone, signal.SIGCONT)

    def report_cpu(self, namespace: str, labels: Mapping[str, str], cores: float) -> None:
        """Say how many cores each pod with these labels uses now: what an autoscaler of theirs goes by."""
        selector = ",".join(f"{name}={value}" for name, value in labels.items())
        pods = self.get(f"/api/v1/namespaces/{namespace}/pods", labelSelector=selector)["items"]
        usage = {"cpu": f"{round(cores * 1000)}m", "memory": "64Mi"}
        self.apply(
            *(
                {
                    "apiVersion": "metrics.k8s.io/v1beta1",
                    "kind": "PodMetrics",
                    "metadata": {name: pod["metadata"][name] for name in ("name", "namespace", "labels")},
                    "timestamp": datetime.now(UTC).isoformat(),
                    "window": "15s",
                    "containers": [{"name": one["name"], "usage": usage} for one in pod["spec"]["containers"]],
                }
                for pod in pods
            )
        )

    def wait_until(self, what: str, holds: Callable[[], bool], timeout_seconds: float) -> None:
        """Wait until something holds.

        Raises:
            TimeoutError: It does not hold in time; the end of every server's log is with it.
        """
        try:
            wait_until(what, holds, timeout_seconds)
        except TimeoutError as error:
            for process in self._processes:
                error.add_note(f"--- the end of the log of {process.name}:\n{process.tail(_LOG_LINES)}")
            raise

    def _signal(self, zone: str, number: signal.Signals) -> None:
        self._check(zone)
        os.killpg(self._kubelets[zone].pid, number)

    def _check(self, zone: str) -> None:
        if zone not in self.zones:
            raise HarnessError(f"there is no zone {zone}; there are {', '.join(self.zones)}")


def condition(thing: Mapping[str, Any], kind: str) -> str | None:
    """The status of an object's condition, `True`, `False` or `Unknown`; None when it has no such condition."""
    conditions = thing.get("status", {}).get("conditions") or ()  # which is null in a new node
    return next((str(one["status"]) for one in conditions if one["type"] == kind), None)


@contextmanager
def kubernetes(*, zones: Sequence[str] = ("eu-central-1a", "eu-central-1b", "eu-central-1c")) -> Iterator[Cluster]:
    """Run a Kubernetes without nodes while the block runs.

    Args:
        zones: Its zones; a node in no zone has no kubelet.

    Raises:
        HarnessError: A part is not built, or does not start.
    """
    with ExitStack() as stack:
        etcd = stack.enter_context(_etcd())
        api = stack.enter_context(_api_server(f"http://127.0.0.1:{etcd.ports[0]}"))
        url, ca_file = f"https://127.0.0.1:{api.ports[0]}", _certificate(api.folder, "apiserver")
        kubeconfigs = {user: _kubeconfig(api.folder, user, url, ca_file) for user in _GROUPS}
        controllers = stack.enter_context(_controllers(kubeconfigs[_CONTROLLERS]))
        scheduler = stack.enter_context(_scheduler(kubeconfigs[_SCHEDULER]))
        kubelets = {
            zone: stack.enter_context(kubelets_of(zone, number, kubeconfigs[_ADMIN], _environment(kubeconfigs[_ADMIN])))
            for number, zone in enumerate(zones)
        }
        stack.callback(_wake, kubelets.values())
        token_file = _token_file(api.folder, _ADMIN)
        http = stack.enter_context(
            httpx.Client(
                base_url=url,
                verify=ssl.create_default_context(cafile=str(ca_file)),
                headers={"authorization": f"Bearer {token_file.read_text()}"},
                trust_env=False,
                timeout=30,
            )
        )
        processes = (etcd, api, controllers, scheduler, *kubelets.values())
        cluster = Cluster(url, token_file, ca_file, kubeconfigs[_ADMIN], tuple(zones), processes, kubelets, http)
        checked(http.post("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", json=_POD_METRICS))
        cluster.wait_until("pods may be made", partial(_takes_pods, http), _READY_SECONDS_MAX)
        yield cluster


# --- its parts --------------------------------------------------------------------------------------------------------


@contextmanager
def _etcd() -> Iterator[Process]:
    program = cluster_tool("etcd")

    def command(ports: Sequence[int], folder: Path) -> list[str | Path]:
        clients, peers = (f"http://127.0.0.1:{port}" for port in ports)
        return [
            program,
            f"--data-dir={folder / 'data'}",
            f"--listen-client-urls={clients}",
            f"--advertise-client-urls={clients}",
            f"--listen-peer-urls={peers}",
            f"--initial-advertise-peer-urls={peers}",
            f"--initial-cluster=default={peers}",
            "--unsafe-no-fsync",
            "--log-level=warn",
        ]

    def ready(ports: Sequence[int]) -> bool:
        with client(f"http://127.0.0.1:{ports[0]}") as http:
            return answers(http, "/health")

    with running("etcd", command, ready, ports=2) as process:
        yield process


@contextmanager
def _api_server(etcd_url: str) -> Iterator[Process]:
    program = cluster_tool("kube-apiserver")

    def command(ports: Sequence[int], folder: Path) -> list[str | Path]:
        key = folder / "service-accounts.pem"
        _write_key(key)
        return [
            program,
            f"--etcd-servers={etcd_url}",
            "--bind-address=127.0.0.1",
            f"--secure-port={ports[0]}",
            f"--cert-dir={folder}",
            # Only pods would dial it, and none runs: an address that leads nowhere, and nothing announces it.
            "--advertise-address=192.0.2.1",
            "--endpoint-reconciler-type=none",
            "--service-cluster-ip-range=10.96.0.0/16",
            "--authorization-mode=RBAC",
            f"--token-auth-file={_write_tokens(folder)}",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={key}",
            f"--service-account-signing-key-file={key}",
            f"--default-not-ready-toleration-seconds={TOLERATION_SECONDS}",
            f"--default-unreachable-toleration-seconds={TOLERATION_SECONDS}",
            "--profiling=false",
        ]

    with _healthy("kube-apiserver", "apiserver", "/readyz", command) as process:
        yield process


@contextmanager
def _controllers(kubeconfig: Path) -> Iterator[Process]:
    program = cluster_tool("kube-controller-manager")

    def command(ports: Sequence[int], folder: Path) -> list[str | Path]:
        return [
            *_component(program, kubeconfig, ports, folder),
            "--use-service-account-credentials=true",
            "--kube-api-content-type=application/json",  # which is all that a metrics API made of objects speaks
            "--node-monitor-period=500ms",
            f"--node-monitor-grace-period={NODE_GRACE_SECONDS}s",
            "--node-eviction-rate=100",
            "--secondary-node-eviction-rate=100",
            "--horizontal-pod-autoscaler-sync-period=1s",
            "--horizontal-pod-autoscaler-cpu-initialization-period=0s",
            "--horizontal-pod-autoscaler-initial-readiness-delay=0s",
        ]

    with _healthy("kube-controller-manager", "kube-controller-manager", "/healthz", command) as process:
        yield process


@contextmanager
def _scheduler(kubeconfig: Path) -> Iterator[Process]:
    program = cluster_tool("kube-scheduler")

    def command(ports: Sequence[int], folder: Path) -> list[str | Path]:
        return _component(program, kubeconfig, ports, folder)

    with _healthy("kube-scheduler", "kube-scheduler", "/readyz", command) as process:
        yield process


def _component(program: Path, kubeconfig: Path, ports: Sequence[int], folder: Path) -> list[str | Path]:
    return [
        program,
        f"--kubeconfig={kubeconfig}",
        "--bind-address=127.0.0.1",
        f"--secure-port={ports[0]}",
        f"--cert-dir={folder}",
        "--leader-elect=false",
        "--profiling=false",
    ]


def _wake(kubelets: Collection[Process]) -> None:
    for process in kubelets:  # one that is stopped would not hear that it shall end
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGCONT)


@contextmanager
def _healthy(
    name: str, certificate: str, health: str, command: Callable[[Sequence[int], Path], Sequence[str | Path]]
) -> Iterator[Process]:
    """Run a server that makes its own certificate in its folder, and wait until it says that it is ready."""
    folders: list[Path] = []

    def noted(ports: Sequence[int], folder: Path) -> Sequence[str | Path]:
        folders[:] = [folder]
        return command(ports, folder)

    def ready(ports: Sequence[int]) -> bool:
        file = _certificate(folders[0], certificate)
        try:
            trust = ssl.create_default_context(cafile=str(file))
        except (FileNotFoundError, ssl.SSLError):  # not there yet, or not whole
            return False
        with httpx.Client(base_url=f"https://127.0.0.1:{ports[0]}", verify=trust, trust_env=False) as http:
            return answers(http, health)

    with running(name, noted, ready, start_seconds_max=_HEALTH_SECONDS_MAX) as process:
        yield process


def _certificate(folder: Path, name: str) -> Path:
    return folder / f"{name}.crt"


def _token_file(folder: Path, user: str) -> Path:
    return folder / f"{user.rpartition(':')[2]}.token"


def _write_tokens(folder: Path) -> Path:
    """A file of users as the API server reads it, and a file for each of them."""
    lines = []
    for user, group in _GROUPS.items():
        token = secrets.token_urlsafe(24)
        _token_file(folder, user).write_text(token)
        lines.append(f'{token},{user},{user},"{group}"\n')
    file = folder / "tokens.csv"
    file.write_text("".join(lines))
    return file


def _write_key(file: Path) -> None:
    private = ec.generate_private_key(ec.SECP256R1())
    encoding = serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL
    file.write_bytes(private.private_bytes(*encoding, serialization.NoEncryption()))


def _kubeconfig(folder: Path, user: str, url: str, ca_file: Path) -> Path:
    token_file = _token_file(folder, user)
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "drill", "cluster": {"server": url, "certificate-authority": str(ca_file)}}],
        "users": [{"name": "user", "user": {"tokenFile": str(token_file)}}],
        "contexts": [{"name": "drill", "context": {"cluster": "drill", "user": "user"}}],
        "current-context": "drill",
    }
    file = token_file.with_suffix(".kubeconfig")
    file.write_text(json.dumps(content))  # JSON is YAML
    return file


def _environment(kubeconfig: Path) -> dict[str, str]:
    """Ours, but with a home of its own: these programs keep caches there, and read settings."""
    return os.environ | {"HOME": str(kubeconfig.parent), "KUBECONFIG": str(kubeconfig)}


def _takes_pods(http: httpx.Client) -> bool:
    accounts = answers(http, "/api/v1/namespaces/default/serviceaccounts/default")
    return accounts and answers(http, "/apis/metrics.k8s.io/v1beta1/pods")
