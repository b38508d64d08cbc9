"""Connections to Postgres and Redis by TLS: the servers must prove their names, or nothing is sent to them."""

from __future__ import annotations

import asyncio
import os
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import pytest

from drills.harness import HarnessError, PostgresTls, ValkeyCluster, postgres_tls, valkey_cluster
from service import administration, verification
from tests.service.conftest import Serve

pytestmark = [pytest.mark.anyio, pytest.mark.e2e]


def _or_skip(error: HarnessError) -> None:
    """Where a package of the system is missing: CI installs it, elsewhere the message says which it is."""
    if os.environ.get("CI"):
        pytest.fail(str(error))
    pytest.skip(str(error))


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresTls]:
    """Debian's Postgres, which takes TLS only."""
    try:
        with postgres_tls() as server:
            yield server
    except HarnessError as error:
        _or_skip(error)


@pytest.fixture(scope="module")
def app_url(postgres: PostgresTls) -> str:
    """The service's login there."""
    url = asyncio.run(administration.provision(postgres.verified_url))
    return urlunsplit(urlsplit(url)._replace(query=""))


@pytest.fixture(scope="module")
def redis() -> Iterator[ValkeyCluster]:
    """Debian's Redis as a cluster, which takes TLS only."""
    try:
        with valkey_cluster(tls=True) as cluster:
            yield cluster
    except HarnessError as error:
        _or_skip(error)


async def test_a_database_that_proves_its_name_is_used(serve: Serve, postgres: PostgresTls, app_url: str) -> None:
    """With the authority's certificate the ledger answers; every statement works on this older server too."""
    account = "tls-guest"
    await administration.accrue(postgres.verified_url, account, 100)
    async with serve(database_url=app_url, database_ca_file=postgres.ca_file) as service:
        assert (await service.client.get("/readyz")).status_code == 200
        assert (await service.redeem(account, 30)).status_code == 201
        assert await service.balance(account) == 70


async def test_a_database_that_cannot_is_not(serve: Serve, app_url: str, redis: ValkeyCluster) -> None:
    """Another authority's certificate, or another name: nothing is sent, and the service is not ready."""
    assert redis.ca_file is not None
    async with serve(database_url=app_url, database_ca_file=redis.ca_file) as service:
        assert (await service.client.get("/readyz")).status_code == 503
        assert (await service.redeem("tls-guest", 1)).json()["code"] == "ledger-unavailable"


async def test_the_owner_and_the_verification_ask_for_the_name_too(postgres: PostgresTls, redis: ValkeyCluster) -> None:
    """With a CA file whatever connects to the database verifies it, though the URL says nothing of TLS."""
    url, trusted = postgres.owner_url, postgres.ca_file
    await administration.provision_worker(url, ca_file=trusted)
    await administration.accrue(url, "tls-granted", 5, ca_file=trusted)
    assert (await verification.verify(url, ca_file=trusted)).ok
    for call in (
        administration.migrate(url, ca_file=redis.ca_file),
        administration.provision(url, ca_file=redis.ca_file),
        administration.provision_worker(url, ca_file=redis.ca_file),
        administration.accrue(url, "tls-granted", 5, ca_file=redis.ca_file),
        verification.verify(url, ca_file=redis.ca_file),
    ):
        with pytest.raises(ssl.SSLCertVerificationError):
            await call


@pytest.mark.parametrize("command", ["migrate", "verify"])
def test_commands_read_the_ca_file(postgres: PostgresTls, redis: ValkeyCluster, app_url: str, command: str) -> None:
    """`REDEMPTION_DATABASE_CA_FILE` is for every command; one that the server was not signed by ends with 1."""
    assert app_url, "the schema is there"

    def run(ca_file: Path | None) -> subprocess.CompletedProcess[str]:
        names = ("REDEMPTION_DATABASE_URL", "REDEMPTION_MIGRATION_DATABASE_URL")
        return subprocess.run(
            [sys.executable, "-m", "service", command],
            env={**os.environ, **dict.fromkeys(names, postgres.owner_url), "REDEMPTION_DATABASE_CA_FILE": str(ca_file)},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    assert run(postgres.ca_file).returncode == 0
    refused = run(redis.ca_file)
    assert refused.returncode == 1
    assert "certificate verify failed" in refused.stderr


async def test_redis_that_proves_its_name_is_used(serve: Serve, redis: ValkeyCluster) -> None:
    """Hints and quotas go to a cluster by TLS."""
    async with serve(valkey_url=redis.url, valkey_ca_file=redis.ca_file) as service:
        async with asyncio.timeout(20):
            while not await service.sample("redemption_valkey_calls_total", outcome="ok"):
                await service.redeem("nobody", 1)
                await asyncio.sleep(0.05)


async def test_redis_that_cannot_is_not(serve: Serve, redis: ValkeyCluster, postgres: PostgresTls) -> None:
    """With another authority no call goes through, and redemptions are served all the same."""
    ca_file: Path = postgres.ca_file
    async with serve(valkey_url=redis.url, valkey_ca_file=ca_file) as service:
        for _ in range(10):
            assert (await service.redeem("nobody", 1)).status_code == 422
            await asyncio.sleep(0.05)
        assert await service.sample("redemption_valkey_calls_total", outcome="ok") == 0
