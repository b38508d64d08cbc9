"""The pair loses nothing that it confirmed, and the server with TLS is who it says it is."""

from __future__ import annotations

import asyncio
import os
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest

from drills.harness import HarnessError, postgres
from drills.harness.postgres import PostgresPair, postgres_pair, postgres_tls
from service import administration
from tests.drills.processes import alive, descendants


@pytest.fixture
def pair() -> Iterator[PostgresPair]:
    """A fresh one: these tests break it."""
    with postgres_pair() as running:
        yield running


def ask(url: str, query: str, *arguments: object, seconds: float = 10) -> Any:  # noqa: ANN401 - asyncpg ships no types
    """One value."""

    async def run() -> Any:  # noqa: ANN401 - as above
        connection = await asyncpg.connect(url, timeout=seconds)
        try:
            return await connection.fetchval(query, *arguments)
        finally:
            connection.terminate()

    return asyncio.run(run())


def where(url: str) -> int:
    """The port of the server that a URL leads to."""
    port: int = ask(url, "SELECT inet_server_port()")
    return port


def balance(url: str) -> int:
    """The one account's points."""
    points: int = ask(url, "SELECT balance FROM ledger.balances")
    return points


def test_both_urls_lead_to_whoever_can_be_written_to(pair: PostgresPair) -> None:
    """First the primary; after a failover the standby, with all that was confirmed, and it takes writes."""
    ports = [urlsplit(url).port for url in (pair.primary_url, pair.standby_url)]
    assert ask(pair.primary_url, "SELECT sync_state FROM pg_stat_replication") == "sync"
    assert where(pair.url) == where(pair.owner_url) == ports[0]
    assert ask(pair.standby_url, "SELECT pg_is_in_recovery()")
    pair.database.accrue(["guest"], 100)
    assert balance(pair.url) == 100

    pair.kill_primary()
    for url in (pair.url, pair.owner_url):  # between the two nobody can be written to, and a client is told so
        with pytest.raises((ConnectionRefusedError, asyncpg.TargetServerAttributeNotMatched)):
            ask(url, "SELECT 1")
    pair.promote()
    assert where(pair.url) == where(pair.owner_url) == ports[1]
    assert balance(pair.url) == 100
    pair.database.accrue(["guest"], 1)
    assert balance(pair.url) == 101


def test_a_killed_server_is_gone_with_all_its_children() -> None:
    """No process of it does anything any more, though each child has a session of its own, nor is memory left over."""
    before = descendants(os.getpid())
    with postgres_pair(durable=True) as pair:
        assert [ask(url, "SHOW fsync") for url in (pair.primary_url, pair.standby_url)] == ["on", "on"]
        servers = (pair._primary, pair._standby)
        segments = {_segment(server.place.cluster) for server in servers}
        assert segments <= _segments()
        family = descendants(os.getpid()) - before
        pair.kill_primary()
        assert any(alive(pid) for pid in family)
        pair.kill_standby()
        assert not any(alive(pid) for pid in family)
        assert not segments & _segments()
    assert not any(server.place.base.exists() for server in servers)


def _segment(cluster: Path) -> str:
    return (cluster / "postmaster.pid").read_text().splitlines()[6].split()[1]


def _segments() -> set[str]:
    """The ids of all System V shared memory."""
    return {line.split()[1] for line in Path("/proc/sysvipc/shm").read_text().splitlines()[1:]}


def test_a_commit_waits_for_the_standby(pair: PostgresPair) -> None:
    """Without one it does not return, until there is one again."""
    pair.database.accrue(["guest"], 100)
    pair.kill_standby()
    accruing = threading.Thread(target=pair.database.accrue, args=(["guest"], 1))
    accruing.start()
    accruing.join(0.5)
    assert accruing.is_alive()
    assert balance(pair.owner_url) == 100  # it is not told to anybody
    pair.restart_standby()
    accruing.join(30)
    assert not accruing.is_alive()
    assert balance(pair.owner_url) == 101
    assert 0 < pair.fail_over() < 60  # the standby that came back has it too
    assert balance(pair.owner_url) == 101


def test_no_orphan_is_left(tmp_path: Path) -> None:
    """When whoever uses the pair is killed, both servers end, and their folders go."""
    script = (
        "import time; from drills.harness.postgres import postgres_pair\n"
        "with postgres_pair() as pair:\n"
        "    print(pair._primary.place.base, pair._standby.place.base, flush=True); time.sleep(60)"
    )
    output = tmp_path / "folders"
    with output.open("wb") as stream:
        user = subprocess.Popen([sys.executable, "-c", script], stdout=stream)
    _wait_for(lambda: output.read_text().endswith("\n"))
    folders = [Path(text) for text in output.read_text().split()]
    family = descendants(user.pid)
    assert all(folder.is_dir() for folder in folders)
    user.kill()
    user.wait(20)
    _wait_for(lambda: not any(alive(pid) for pid in family) and not any(folder.exists() for folder in folders))


def _wait_for(condition: Any, seconds: float = 40) -> None:  # noqa: ANN401 - a lambda
    give_up = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.05)


def test_a_copy_that_fails_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    """The program's own words are in the error, and nothing is left."""
    before = descendants(os.getpid())
    folders = set(Path(tempfile.gettempdir()).glob("drill-postgres-*"))
    monkeypatch.setattr(postgres, "STANDBY", "no such 'name")
    with pytest.raises(HarnessError, match="pg_basebackup failed"), postgres_pair():
        pass
    assert not descendants(os.getpid()) - before
    assert set(Path(tempfile.gettempdir()).glob("drill-postgres-*")) == folders


# --- TLS --------------------------------------------------------------------------------------------------------------

needs_debian = pytest.mark.e2e  # as the other tests that need more than pip installs


@pytest.fixture(scope="module")
def secured() -> Iterator[postgres.PostgresTls]:
    """A server with TLS."""
    with postgres_tls() as running:
        yield running


@needs_debian
def test_its_certificate_is_checked_and_right(secured: postgres.PostgresTls) -> None:
    """For both names of this machine, by its own authority alone."""
    for url in (secured.verified_url, secured.verified_url.replace("127.0.0.1", "localhost", 1)):
        assert ask(url, "SELECT version FROM pg_stat_ssl WHERE pid = pg_backend_pid()").startswith("TLSv1.")
    with pytest.raises(ssl.SSLCertVerificationError):
        ask(f"{secured.owner_url}?sslmode=verify-full&sslrootcert={ssl.get_default_verify_paths().cafile}", "SELECT 1")


@needs_debian
def test_nobody_gets_in_without_tls_or_the_password(secured: postgres.PostgresTls) -> None:
    """Plain connections and wrong passwords are refused."""
    with pytest.raises(asyncpg.InvalidAuthorizationSpecificationError, match="no encryption"):
        ask(f"{secured.owner_url}?sslmode=disable", "SELECT 1")
    password = str(urlsplit(secured.owner_url).password)
    with pytest.raises(asyncpg.InvalidPasswordError):
        ask(secured.verified_url.replace(password, "wrong"), "SELECT 1")


@needs_debian
def test_it_takes_the_ledger(secured: postgres.PostgresTls) -> None:
    """The schema goes into Debian's Postgres too, and the service's login is made by TLS."""
    url = asyncio.run(administration.provision(secured.verified_url))
    asyncio.run(administration.accrue(secured.verified_url, "guest", 5))
    assert "sslmode=verify-full" in url
    assert balance(url) == 5


def test_a_missing_postgres_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the package that has it."""
    monkeypatch.setattr(postgres, "_DEBIAN", tmp_path)
    with pytest.raises(HarnessError, match="apt-get install postgresql-15"), postgres_tls():
        pass
