"""A slow, broken or missing database: what the caller is told, and that no points go astray."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import httpx
import pytest
from opentelemetry.trace import StatusCode

from service.database import is_unavailable
from slo.metrics import REDEEM_ROUTE
from tests.service.conftest import TOOLS, Database, Serve, Service, free_ports, tool, wait_for

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def _held(database: Database, account: str) -> AsyncIterator[None]:
    """Somebody else keeps the account's row locked: every redemption of it waits."""
    async with database.connection() as owner, owner.transaction():
        await owner.execute("SELECT 1 FROM ledger.accounts WHERE account_id = $1 FOR UPDATE", account)
        yield


async def _waiting(database: Database, count: int = 1) -> None:
    """So many calls of the ledger wait for a lock."""
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%redeem_batch%'"
    async with database.connection() as owner, asyncio.timeout(10):
        while await owner.fetchval(waiting) != count:
            await asyncio.sleep(0.02)


async def _settled(service: Service, account: str, balance: int) -> None:
    async with asyncio.timeout(10):
        while await service.balance(account) != balance:
            await asyncio.sleep(0.02)


async def test_a_timeout_leaves_the_write_running(serve: Serve, database: Database) -> None:
    """The caller is told 504 at the deadline; the write goes on, counts once, and a retry tells what it did."""
    account, key = await database.account(100), secrets.token_hex(16)
    async with serve(deadline_seconds=0.3) as service:
        async with _held(database, account):
            answer = await service.redeem(account, 30, key)
            assert (answer.status_code, answer.json()["code"]) == (504, "ledger-timeout")
            assert answer.json()["retryable"] is True
            assert "same Idempotency-Key" in answer.json()["detail"]
            assert await service.sample("redemption_requests_total", route=REDEEM_ROUTE, outcome="timeout") == 1
            assert await service.sample("redemption_database_connections", state="busy") == 1
            assert await service.sample("redemption_points_redeemed_total") == 0
        await _settled(service, account, 70)
        retry = await service.redeem(account, 30, key)
        assert (retry.status_code, retry.headers["Idempotent-Replayed"]) == (201, "true")
        assert await service.balance(account) == 70
        assert await service.sample("redemption_points_redeemed_total") == 30


async def test_a_write_whose_caller_has_gone_is_not_cancelled(serve: Serve, database: Database) -> None:
    """The database never gets a cancel request: the waiting call is still there after the caller has gone."""
    account = await database.account(100)
    async with serve(deadline_seconds=5) as service:
        async with _held(database, account):
            request = asyncio.create_task(service.redeem(account, 30))
            await _waiting(database)
            request.cancel()  # the caller hangs up
            await asyncio.gather(request, return_exceptions=True)
            await asyncio.sleep(0.3)
            await _waiting(database)
        await _settled(service, account, 70)


async def test_a_call_that_nobody_waits_for_is_not_begun(serve: Serve, database: Database) -> None:
    """A request that spends its whole time in the queue for a connection writes nothing later."""
    account, other = await database.account(100), await database.account(100)
    async with serve(deadline_seconds=0.5, pool_max=1) as service:
        async with _held(database, account):
            first = asyncio.create_task(service.redeem(account, 30))
            await _waiting(database)  # on the only connection
            second = await service.redeem(other, 30)
            assert ((await first).status_code, second.status_code) == (504, 504)
        await _settled(service, account, 70)
        await asyncio.sleep(0.2)
        assert await service.balance(other) == 100


async def test_an_account_in_use_elsewhere_does_not_hold_up_others(serve: Serve, database: Database) -> None:
    """While somebody else keeps an account's lock, redemptions of other accounts are decided as ever."""
    account, other = await database.account(100), await database.account(100)
    async with serve(deadline_seconds=10) as service:
        async with _held(database, account):
            stuck = [asyncio.create_task(service.redeem(account, 1)) for _ in range(5)]
            await _waiting(database)
            answers = [await service.redeem(other, 1) for _ in range(20)]
            assert {answer.status_code for answer in answers} == {201}
            assert not any(task.done() for task in stuck)
        assert {task.status_code for task in await asyncio.gather(*stuck)} == {201}
        assert (await service.balance(account), await service.balance(other)) == (95, 80)


async def test_the_end_waits_for_a_write_in_flight(serve: Serve, database: Database) -> None:
    """A service that is told to stop lets the database finish what it was asked."""
    account = await database.account(100)
    async with serve(deadline_seconds=0.2, shutdown_seconds=10) as service:
        lock = _held(database, account)
        await lock.__aenter__()
        assert (await service.redeem(account, 30)).status_code == 504
        releasing = asyncio.get_running_loop().call_later(
            0.3, lambda: asyncio.ensure_future(lock.__aexit__(None, None, None))
        )
    assert releasing.when() < asyncio.get_running_loop().time()
    async with serve() as again:
        assert await again.balance(account) == 70


async def test_an_unreachable_database_is_an_error_of_ours(serve: Serve) -> None:
    """Nobody listens there: 503, retryable, outcome error, and the span of the call tells why."""
    async with serve(database_url=f"postgresql://nobody@127.0.0.1:{free_ports(1)[0]}/none") as service:
        answer = await service.redeem("somebody", 1)
        assert (answer.status_code, answer.json()["code"]) == (503, "ledger-unavailable")
        assert (answer.json()["retryable"], answer.headers["Retry-After"]) == (True, "1")
        assert await service.sample("redemption_requests_total", route=REDEEM_ROUTE, outcome="error") == 1
        call = next(span for span in service.finished() if span.name == "SELECT ledger.redeem_batch")
        assert (call.attributes or {})["error.type"] == "ConnectionRefusedError"
        assert call.status.status_code is StatusCode.ERROR
        assert (await service.client.get("/v1/accounts/a/balance")).status_code == 503
        assert (await service.client.get(f"/v1/redemptions/{'0' * 32}")).status_code == 503


async def test_sessions_that_the_server_ends_are_replaced(service: Service, database: Database) -> None:
    """After the server has ended every session, as in a restart, at most one request each notices."""
    account, key = await database.account(100), secrets.token_hex(16)
    assert (await service.redeem(account, 1)).status_code == 201
    async with database.connection() as owner:
        await owner.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = 'redemption_service'"
        )
    first = await service.redeem(account, 30, key)
    assert first.status_code in (201, 503)
    second = await service.redeem(account, 30, key)
    assert second.status_code == 201
    assert await service.balance(account) == 69


@pytest.mark.parametrize(
    ("error", "unavailable"),
    [
        (asyncpg.ConnectionDoesNotExistError(), True),
        (asyncpg.InvalidPasswordError(), True),
        (asyncpg.DeadlockDetectedError(), True),
        (asyncpg.TooManyConnectionsError(), True),
        (asyncpg.DiskFullError(), True),
        (asyncpg.AdminShutdownError(), True),
        (asyncpg.CannotConnectNowError(), True),
        (asyncpg.ReadOnlySQLTransactionError(), True),
        (asyncpg.InterfaceError("connection is closed"), True),
        (asyncpg.InternalClientError("got result for unknown protocol state"), True),
        (asyncpg.TargetServerAttributeNotMatched("no host can be written to"), True),
        (ConnectionResetError(), True),
        (asyncpg.CheckViolationError(), False),
        (asyncpg.UndefinedFunctionError(), False),
        (asyncpg.InsufficientPrivilegeError(), False),
        (ValueError(), False),
    ],
)
async def test_a_server_that_cannot_serve_is_told_from_a_fault_of_ours(error: Exception, *, unavailable: bool) -> None:
    """What passes without a change of the program is `ledger-unavailable`; the rest is an internal error."""
    assert is_unavailable(error) is unavailable


# --- a network between the service and its database that misbehaves --------------------------------------------------


class _Network:
    """A toxiproxy between service and database."""

    def __init__(self, api: str, url: str) -> None:
        self._api = api
        self.url = url

    async def enabled(self, *, enabled: bool) -> None:
        await self._ask("POST", "/proxies/database", {"enabled": enabled})

    async def toxic(self, kind: str, stream: str, **attributes: int) -> None:
        body = {"name": kind, "type": kind, "stream": stream, "attributes": attributes}
        await self._ask("POST", "/proxies/database/toxics", body)

    async def heal(self) -> None:
        await self._ask("POST", "/reset", {})

    async def _ask(self, method: str, path: str, body: dict[str, Any]) -> None:
        async with httpx.AsyncClient(base_url=self._api) as client:
            (await client.request(method, path, json=body)).raise_for_status()


@pytest.fixture
def network(database: Database) -> Iterator[_Network]:
    """The way to the database, to be disturbed."""
    if not (TOOLS / "toxiproxy-server").exists():
        pytest.fail("this test needs .tools/bin/toxiproxy-server: make tools")
    api_port, port = free_ports(2)
    api, address = f"http://127.0.0.1:{api_port}", database.app.split("@")[1].split("/")[0]
    with tool("toxiproxy-server", "-host", "127.0.0.1", "-port", str(api_port)):

        def created() -> bool:
            body = {"name": "database", "listen": f"127.0.0.1:{port}", "upstream": address}
            try:
                return httpx.post(f"{api}/proxies", json=body).is_success
            except httpx.TransportError:
                return False

        wait_for(created)
        yield _Network(api, database.app.replace(address, f"127.0.0.1:{port}"))


@pytest.mark.e2e
async def test_an_outage_and_its_end(serve: Serve, database: Database, network: _Network) -> None:
    """While the way is cut every request fails fast and retryably; when it is back the service needs no restart."""
    account, key = await database.account(100), secrets.token_hex(16)
    async with serve(database_url=network.url) as service:
        assert (await service.redeem(account, 10)).status_code == 201
        await network.enabled(enabled=False)
        for _ in range(3):
            answer = await asyncio.wait_for(service.redeem(account, 30, key), 5)
            assert (answer.status_code, answer.json()["retryable"]) == (503, True)
        assert (await service.client.get("/readyz")).status_code == 503
        await network.enabled(enabled=True)
        assert (await service.redeem(account, 30, key)).status_code == 201
        async with asyncio.timeout(10):
            while (await service.client.get("/readyz")).status_code != 200:  # it is asked once a second
                await asyncio.sleep(0.1)
        assert await service.balance(account) == 60


@pytest.mark.e2e
async def test_an_answer_that_is_lost_on_the_way(serve: Serve, database: Database, network: _Network) -> None:
    """The write happened, its answer was lost: the caller is told to retry, and the retry deducts nothing."""
    account, key = await database.account(100), secrets.token_hex(16)
    async with serve(database_url=network.url) as service:
        await service.redeem(account, 1)  # this connection has the statement prepared now
        await network.toxic("limit_data", "downstream", bytes=1)  # the connection ends when the answer begins
        lost = await service.redeem(account, 30, key)
        assert (lost.status_code, lost.json()["code"]) == (503, "ledger-unavailable")
        await network.heal()
        retry = await service.redeem(account, 30, key)
        assert (retry.status_code, retry.headers.get("Idempotent-Replayed")) == (201, "true")
        assert await service.balance(account) == 69


@pytest.mark.e2e
async def test_a_silent_network_gives_the_connections_back(serve: Serve, database: Database, network: _Network) -> None:
    """Connections on which nothing comes back are given up after a time, so that the pool is not lost with them."""
    account, key = await database.account(100), secrets.token_hex(16)
    async with serve(database_url=network.url, deadline_seconds=0.3, abandon_seconds=0.8, pool_max=1) as service:
        await service.redeem(account, 1)  # this connection has the statement prepared now
        await network.toxic("timeout", "downstream", timeout=0)  # data is dropped, the connection stays
        silent = await service.redeem(account, 30, key)
        assert (silent.status_code, silent.json()["code"]) == (504, "ledger-timeout")
        assert await service.sample("redemption_database_connections", state="busy") == 1
        await asyncio.sleep(0.8)
        assert await service.sample("redemption_database_connections", state="busy") == 0
        await network.heal()
        retry = await service.redeem(account, 30, key)
        assert (retry.status_code, retry.headers.get("Idempotent-Replayed")) == (201, "true")
        assert await service.balance(account) == 69
