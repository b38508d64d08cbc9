"""Connections to Postgres and Redis by TLS: the servers must prove their names, or nothing is sent to them."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import pytest

from drills.harness import HarnessError, PostgresTls, ValkeyCluster, postgres_tls, valkey_cluster
from service import administration
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
