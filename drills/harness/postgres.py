"""Postgres as production has it: a primary with a synchronous standby, and a server that speaks TLS."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import asyncpg
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from drills.harness.http import wait_until
from drills.harness.process import HarnessError, unwinding_on_sigterm
from drills.harness.redemption import LedgerDatabase, provisioned

# The embedded server's own steps, so that both start, end and leave nothing behind in the same way.
from service.embedded_postgres import (
    _becomes_ready,
    _give,
    _initialise,
    _launch,
    _Place,
    _programs,
    _server_user,
    _settings,
    _start,
    _stop,
    _tail,
    _temporary_folder,
)

STANDBY: Final = "standby"

_DEBIAN: Final = Path("/usr/lib/postgresql")
_STANDBY_SECONDS_MAX = 30.0
_PROMOTION_SECONDS_MAX = 30
_CONNECT_SECONDS_MAX = 5
_DEATH_SECONDS_MAX = 10.0
_PROGRAM_SECONDS_MAX = 60
_MESSAGE_CHARACTERS_MAX = 2000
_POLL_SECONDS = 0.01
_CERTIFICATE_DAYS = 1
_SHARED_MEMORY_LINE = 6  # of postmaster.pid: the key and the id of the System V segment

_REPLICA_SETTINGS: Final = {
    "wal_level": "replica",
    # A few connections for the tools, a few senders; the service's pool is small.
    "max_connections": "50",
    "max_wal_senders": "4",
    # Files in the data folder and not in /dev/shm: a server that is killed leaves nothing outside of it.
    "dynamic_shared_memory_type": "mmap",
    # A standby that comes back tries again soon, a dead one is noticed soon.
    "wal_retrieve_retry_interval": "200ms",
    "wal_sender_timeout": "5s",
    "wal_receiver_timeout": "5s",
}


@dataclass(slots=True)
class _Server:
    """One of the two: where it lies, what it is told, and its process while it runs."""

    place: _Place
    settings: Mapping[str, str]
    process: subprocess.Popen[bytes] | None = None
    port: int = 0

    def start(self) -> None:
        """On a free port at first, and on the same one ever after."""
        if self.port == 0:
            self.process, self.port = _start(self.place, self.settings)
            return
        self.process = _launch(self.place, {**self.settings, "port": str(self.port)})
        if not _becomes_ready(self.process, self.place.cluster, self.port):
            raise HarnessError(f"Postgres did not start again:\n{_tail(self.place.log)}")

    def stop(self) -> None:
        if self.process is not None:
            _stop(self.process)
            self.process = None

    def kill(self) -> None:
        """End it as a power cut would: no process of it does anything any more."""
        if self.process is None:
            return
        lock = self.place.cluster / "postmaster.pid"
        lines = lock.read_text("utf-8").splitlines()
        postmaster = int(lines[0])
        # Frozen first, so that it starts no child while we look. Children have sessions of their own.
        os.kill(postmaster, signal.SIGSTOP)
        family = (postmaster, *_children(postmaster))
        for pid in family:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        wait_until("the killed Postgres is gone", lambda: not any(_alive(pid) for pid in family), _DEATH_SECONDS_MAX)
        self.stop()
        lock.unlink()  # it would say "ready" to whoever starts it again
        _remove_segment(lines[_SHARED_MEMORY_LINE].split())


@dataclass(frozen=True, slots=True)
class PostgresPair:
    """A primary and its synchronous standby, with the ledger's schema.

    The two URLs of each login name both servers, and lead to the one that can be written to:
    `postgresql://USER:PASSWORD@/postgres?host=H1,H2&port=P1,P2&target_session_attrs=read-write`. The hosts stand in the
    query, which libpq and asyncpg read as well as a list before the path, because `urlsplit().port` refuses such a
    list.

    Attributes:
        url: As the service logs in, wherever the primary is.
        owner_url: As the owner logs in, likewise.
        worker_url: As the worker logs in, likewise.
        primary_url: The owner at the server that was the primary at the start.
        standby_url: The owner at the server that was the standby at the start.
    """

    url: str = field(repr=False)
    owner_url: str = field(repr=False)
    worker_url: str = field(repr=False)
    primary_url: str = field(repr=False)
    standby_url: str = field(repr=False)
    _primary: _Server = field(repr=False)
    _standby: _Server = field(repr=False)

    @property
    def database(self) -> LedgerDatabase:
        """The pair as one ledger database."""
        return LedgerDatabase(self.url, self.owner_url, self.worker_url)

    def kill_primary(self) -> None:
        """End the primary and all its children at once, as a power cut would. It never comes back."""
        self._primary.kill()

    def kill_standby(self) -> None:
        """End the standby likewise. From now on no commit of the primary returns until there is a standby again."""
        self._standby.kill()

    def restart_standby(self) -> None:
        """Start the killed standby again, and wait until the primary's commits wait for it.

        Raises:
            HarnessError: It does not start.
            TimeoutError: It does not catch up in time.
        """
        self._standby.start()
        _wait_for_standby(self.primary_url)

    def promote(self) -> None:
        """Make the standby the primary, and wait until it can be written to; kill the old one first.

        Its own commits wait for nobody: `synchronous_standby_names` was set on the old primary alone.

        Raises:
            HarnessError: It does not become one in time.
        """
        if not _ask(self.standby_url, f"SELECT pg_promote(true, {_PROMOTION_SECONDS_MAX})"):
            raise HarnessError(f"the standby was not promoted:\n{_tail(self._standby.place.log)}")
        read_only = "SELECT pg_is_in_recovery() OR current_setting('transaction_read_only')::boolean"
        wait_until("the new primary can be written to", lambda: not _ask(self.standby_url, read_only), 10)

    def fail_over(self) -> float:
        """Kill the primary and promote the standby; returns the seconds from one to the other's end."""
        started = time.monotonic()
        self.kill_primary()
        self.promote()
        return time.monotonic() - started


@contextmanager
def postgres_pair(*, durable: bool = False) -> Iterator[PostgresPair]:
    """Run a primary and a synchronous standby while the block runs, on free loopback ports.

    A commit on the primary returns once the standby has it too (`synchronous_commit=on`).

    Args:
        durable: Whether a commit survives a power cut of the machine; it survives ours of a server either way.

    Raises:
        EmbeddedPostgresError: A server cannot be started.
        HarnessError: The standby cannot be made.
        TimeoutError: The standby does not catch up.
    """
    with unwinding_on_sigterm(), ExitStack() as stack:
        places = [stack.enter_context(_place()) for _ in range(2)]
        settings = _settings(durable=durable) | _REPLICA_SETTINGS
        password = _initialise(places[0], durable=durable)
        primary = stack.enter_context(_running(_Server(places[0], settings)))
        primary_url = _owner_url(password, primary)
        _copy(primary, password, places[1], durable=durable)
        standby = stack.enter_context(_running(_Server(places[1], settings | {"cluster_name": STANDBY})))
        # After the copy was made: so the standby, once promoted, waits for nobody.
        _ask(primary_url, f"ALTER SYSTEM SET synchronous_standby_names = '{STANDBY}'")
        _ask(primary_url, "SELECT pg_reload_conf()")
        _wait_for_standby(primary_url)
        database = provisioned(primary_url)
        yield PostgresPair(
            _either_url(database.url, primary, standby),
            _either_url(database.owner_url, primary, standby),
            _either_url(database.worker_url, primary, standby),
            primary_url,
            _owner_url(password, standby),
            primary,
            standby,
        )


@contextmanager
def _place() -> Iterator[_Place]:
    user = _server_user()
    base = Path(tempfile.mkdtemp(prefix="drill-postgres-", dir=_temporary_folder(user)))
    try:
        _give(base, user)
        yield _Place(base=base, cluster=base / "data", programs=_programs(base, user), user=user)
    finally:
        shutil.rmtree(base, ignore_errors=True)


@contextmanager
def _running(server: _Server) -> Iterator[_Server]:
    server.start()
    try:
        yield server
    finally:
        server.stop()


def _copy(primary: _Server, password: str, place: _Place, *, durable: bool) -> None:
    """Make the standby's data from the running primary, with the settings by which it follows it."""
    source = f"host=127.0.0.1 port={primary.port} user=postgres application_name={STANDBY}"
    options = ["-X", "stream", "--checkpoint=fast", "--write-recovery-conf", *(() if durable else ("--no-sync",))]
    command = ["pg_basebackup", "-D", place.cluster, "-d", source, *options]
    _run(place, command, {"PGPASSWORD": password})  # not as an argument, which everybody on this machine can read


def _run(place: _Place, command: Sequence[str | Path], environment: Mapping[str, str]) -> None:
    done = subprocess.run(
        [place.programs / command[0], *command[1:]],
        cwd=place.base,
        env={**place.environment, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=_PROGRAM_SECONDS_MAX,
        start_new_session=True,
        user=place.user.uid,
        group=place.user.gid,
        extra_groups=place.user.groups,
    )
    if done.returncode != 0:
        raise HarnessError(f"{command[0]} failed:\n{done.stdout}{done.stderr}"[-_MESSAGE_CHARACTERS_MAX:])


def _wait_for_standby(primary_url: str) -> None:
    # It reads `async` for the first moments, and then a commit does not wait yet.
    query = "SELECT sync_state FROM pg_stat_replication WHERE state = 'streaming'"
    wait_until("the standby is synchronous", lambda: _ask(primary_url, query) == "sync", _STANDBY_SECONDS_MAX)


def _owner_url(password: str, server: _Server) -> str:
    return f"postgresql://postgres:{password}@127.0.0.1:{server.port}/postgres"


def _either_url(url: str, primary: _Server, standby: _Server) -> str:
    login = urlsplit(url).netloc.rpartition("@")[0]
    hosts = f"host=127.0.0.1,127.0.0.1&port={primary.port},{standby.port}"
    return f"postgresql://{login}@/postgres?{hosts}&target_session_attrs=read-write"


def _ask(url: str, query: str) -> Any:  # noqa: ANN401 - asyncpg ships no types
    async def ask() -> Any:  # noqa: ANN401 - as above
        connection = await asyncpg.connect(url, timeout=_CONNECT_SECONDS_MAX)
        try:
            return await connection.fetchval(query)
        finally:
            await connection.close()

    return asyncio.run(ask())


def _children(pid: int) -> list[int]:
    found = {int(entry.name): _stat(int(entry.name)) for entry in Path("/proc").glob("[0-9]*")}
    return [child for child, stat in found.items() if stat is not None and stat[1] == str(pid)]


def _alive(pid: int) -> bool:
    found = _stat(pid)
    return found is not None and found[0] != "Z"  # a zombie only waits for its parent to notice


def _stat(pid: int) -> list[str] | None:
    """State, parent and so on: what follows the name, which may hold anything."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None


def _remove_segment(key_and_id: Sequence[str]) -> None:
    """The few bytes of System V memory by which a postmaster knows of another one; a killed one leaves them."""
    subprocess.run(["ipcrm", "-m", key_and_id[1]], check=False, capture_output=True)


# --- TLS --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PostgresTls:
    """An empty Postgres that takes connections by TLS alone.

    Attributes:
        owner_url: Its superuser at 127.0.0.1; append `?sslmode=verify-full&sslrootcert=CA_FILE` to trust nobody else.
        ca_file: The authority, in PEM, that signed its certificate, which is for `localhost` and `127.0.0.1`.
    """

    owner_url: str = field(repr=False)
    ca_file: Path

    @property
    def verified_url(self) -> str:
        """The superuser, with the server's certificate checked."""
        return f"{self.owner_url}?sslmode=verify-full&sslrootcert={self.ca_file}"


@contextmanager
def postgres_tls() -> Iterator[PostgresTls]:
    """Run a Postgres with TLS while the block runs: Debian's, since no wheel of a Postgres has it.

    Raises:
        HarnessError: Debian's Postgres is not installed; the message names the package.
        EmbeddedPostgresError: It cannot be started.
    """
    programs = _debian_programs()
    user = _server_user()
    with unwinding_on_sigterm(), tempfile.TemporaryDirectory(prefix="drill-ca-") as authority, ExitStack() as stack:
        base = Path(tempfile.mkdtemp(prefix="drill-postgres-tls-", dir=_temporary_folder(user)))
        stack.callback(shutil.rmtree, base, ignore_errors=True)
        _give(base, user)
        place = _Place(base=base, cluster=base / "data", programs=programs, user=user)
        ca_file = Path(authority) / "ca.pem"
        _write_certificates(place, ca_file)
        password = os.urandom(18).hex()
        _secret(place, "password", password.encode())
        options = ["--auth=scram-sha-256", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync"]
        login = ["-U", "postgres", f"--pwfile={base / 'password'}"]
        _run(place, ["initdb", "-D", place.cluster, *login, *options], {})
        _secret(place, "hba.conf", b"hostssl all all 127.0.0.1/32 scram-sha-256\n")
        server = stack.enter_context(_running(_Server(place, _settings(durable=False) | _tls_settings(base))))
        yield PostgresTls(_owner_url(password, server), ca_file)


def _debian_programs() -> Path:
    found = sorted(_DEBIAN.glob("*/bin/postgres"), key=lambda path: float(path.parts[-3]))
    if not found:
        raise HarnessError(
            f"there is no Postgres with TLS below {_DEBIAN}; install one with `apt-get install postgresql-15`"
        )
    return found[-1].parent


def _tls_settings(base: Path) -> dict[str, str]:
    return {
        "ssl": "on",
        "ssl_cert_file": str(base / "server.pem"),
        "ssl_key_file": str(base / "server.key"),
        "ssl_min_protocol_version": "TLSv1.2",
        "hba_file": str(base / "hba.conf"),
    }


def _write_certificates(place: _Place, ca_file: Path) -> None:
    ca_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    ca_name, name = _name("drill authority"), _name("localhost")
    authority = (
        _certificate(ca_name, ca_name, ca_key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(ca_key.public_key()), critical=False)
        .add_extension(_KEY_CERT_SIGN, critical=True)
        .sign(ca_key, hashes.SHA256())
    )
    names = x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1"))])
    server = (
        _certificate(name, ca_name, key.public_key())
        .add_extension(names, critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    ca_file.write_bytes(authority.public_bytes(serialization.Encoding.PEM))
    _secret(place, "server.pem", server.public_bytes(serialization.Encoding.PEM))
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    _secret(place, "server.key", private)


_KEY_CERT_SIGN: Final = x509.KeyUsage(
    digital_signature=False,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=True,
    crl_sign=True,
    encipher_only=False,
    decipher_only=False,
)


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _certificate(
    subject: x509.Name, issuer: x509.Name, public_key: ec.EllipticCurvePublicKey
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=_CERTIFICATE_DAYS))
    )


def _secret(place: _Place, name: str, content: bytes) -> None:
    """A file that only the server's user may read."""
    file = place.base / name
    file.touch(mode=0o600)
    file.write_bytes(content)
    _give(file, place.user)
