"""What the database itself holds to, whoever asks it."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import httpx
import pytest

from service import administration
from tests.service.conftest import Database, Serve, Service, unused

pytestmark = pytest.mark.anyio

_REDEEM = "SELECT * FROM ledger.redeem('client-a', $1, $2, $3, $4)"
_PRINT = b"f" * 32


async def _redeem(connection: Any, account: str, points: int, key: str) -> Any:  # noqa: ANN401 - asyncpg has no types
    return await connection.fetchrow(_REDEEM, key, _PRINT, account, points)


@pytest.mark.parametrize("table", ["entries", "redemptions", "accruals"])
@pytest.mark.parametrize(
    "change", ["UPDATE ledger.{} SET account_id = 'x'", "DELETE FROM ledger.{}", "TRUNCATE ledger.{}"]
)
async def test_what_was_written_stays(service: Service, database: Database, table: str, change: str) -> None:
    """Not even the superuser changes or removes a row by an ordinary statement."""
    await service.redeem(await database.account(10), 3)
    async with database.connection() as connection:
        with pytest.raises(asyncpg.RestrictViolationError, match="append-only"):
            await connection.execute(change.format(table))


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO ledger.entries VALUES (gen_random_uuid(), 'system:burn', 1)",
        "UPDATE ledger.accounts SET balance = 1000000",
        "DELETE FROM ledger.redemptions",
        "TRUNCATE ledger.entries",
        "SELECT * FROM ledger.accounts",
        "SELECT * FROM ledger.redemptions",
        "SELECT * FROM ledger.migrations",
        "SELECT ledger.accrue('mine', 'mine', 1000000)",
        "SELECT ledger.new_id()",
        "DROP TRIGGER append_only ON ledger.entries",
        "CREATE TABLE ledger.mine ()",
        "SET ROLE redemption_owner",
        "UPDATE ledger.balances SET balance = 1000000",
    ],
)
async def test_the_service_may_do_nothing_else(database: Database, statement: str) -> None:
    """The service's login calls its functions and reads its views; all else is forbidden."""
    async with database.connection(database.app) as connection:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute(statement)


async def test_functions_run_as_an_owner_without_power(database: Database) -> None:
    """The functions' owner can neither log in nor rule the server, and their search path is fixed."""
    async with database.connection() as connection:
        owner = await connection.fetchrow("SELECT * FROM pg_roles WHERE rolname = 'redemption_owner'")
        definers = await connection.fetch(
            "SELECT proname, proconfig FROM pg_proc WHERE pronamespace = 'ledger'::regnamespace AND prosecdef"
        )
    assert not any(owner[power] for power in ("rolsuper", "rolcanlogin", "rolcreaterole", "rolcreatedb"))
    assert {"redeem", "redeem_batch", "resolve", "accrue_batch", "seal"} <= {row["proname"] for row in definers}
    assert {row["proconfig"][0] for row in definers} == {"search_path=pg_catalog, pg_temp"}


async def test_the_burn_side_is_an_entry_and_no_row_to_update(database: Database) -> None:
    """Two redemptions of different accounts do not wait for each other: the burn account has no row to lock."""
    first, second = [await database.account(10) for _ in range(2)]
    async with database.connection() as one, database.connection() as two:
        held = one.transaction()
        await held.start()
        await _redeem(one, first, 3, secrets.token_hex(16))
        row = await asyncio.wait_for(_redeem(two, second, 3, secrets.token_hex(16)), 5)
        await held.rollback()
        assert row["result"] == "decided"
        assert await two.fetchval("SELECT count(*) FROM ledger.accounts WHERE account_id LIKE 'system%'") == 0


async def test_a_key_belongs_to_its_client(database: Database) -> None:
    """Two clients may use the same key; neither sees the other's redemption."""
    account, key = await database.account(10), secrets.token_hex(16)
    async with database.connection(database.app) as connection:
        one = await _redeem(connection, account, 3, key)
        other = await connection.fetchrow(_REDEEM.replace("client-a", "client-b"), key, _PRINT, account, 3)
    assert (one["result"], other["result"]) == ("decided", "decided")
    assert one["redemption_id"] != other["redemption_id"]


async def test_an_accrual_counts_once_for_its_reference(database: Database) -> None:
    """Granting twice for one reference grants once; the same reference for something else raises."""
    account, reference = unused("guest"), unused("stay")
    for _ in range(2):
        assert await administration.accrue(database.owner, account, 50, reference=reference) == 50
    with pytest.raises(asyncpg.UniqueViolationError, match="another accrual"):
        await administration.accrue(database.owner, account, 51, reference=reference)


async def test_points_stay_whole_numbers_for_json(database: Database) -> None:
    """No balance grows beyond 2^53-1."""
    account = await database.account(2**53 - 1)
    with pytest.raises(asyncpg.CheckViolationError):
        await administration.accrue(database.owner, account, 1)


# --- an acknowledgement is durable ----------------------------------------------------------------------------------


@pytest.mark.parametrize("account_exists", [True, False])
async def test_a_replay_writes_to_the_log(service: Service, database: Database, *, account_exists: bool) -> None:
    """The second answer, and a read, make a log record and a commit, so that they wait for the standby as well."""
    account, key = (await database.account(10) if account_exists else unused("nobody")), secrets.token_hex(16)
    made = await service.redeem(account, 3, key)
    location = made.headers.get("Location") or made.json()["instance"]
    async with database.connection() as connection:
        await connection.execute("CREATE EXTENSION IF NOT EXISTS pg_walinspect")
        for again in (service.redeem(account, 3, key), service.client.get(location)):
            before = await connection.fetchval("SELECT pg_current_wal_insert_lsn()")
            await again
            records = await connection.fetch(
                "SELECT resource_manager, record_type FROM pg_get_wal_records_info($1, pg_current_wal_insert_lsn())",
                before,
            )
            found = [(row["resource_manager"], row["record_type"]) for row in records]
            assert ("LogicalMessage", "MESSAGE") in found
            assert ("Transaction", "COMMIT") in found


async def test_no_acknowledgement_while_the_standby_lacks_it(serve: Serve, database: Database) -> None:
    """With synchronous replication a redemption whose wait was cancelled is not acknowledged by a retry.

    It is committed here and maybe nowhere else. A retry that answered 201 now would lie after a failover.
    """
    key = secrets.token_hex(16)
    account = unused("nobody")  # a rejection locks no account: the replay alone decides whether the commit waits
    async with serve(deadline_seconds=1, pool_max=2) as service, database.connection() as owner:
        await asyncio.gather(*(service.redeem(account, 3) for _ in range(2)))  # connects and prepares
        async with _absent_standby(owner):
            first = await service.redeem(account, 3, key)
            assert (first.status_code, first.json()["code"]) == (504, "ledger-timeout")
            assert await owner.fetch(
                "SELECT pg_cancel_backend(pid) FROM pg_stat_activity"
                " WHERE wait_event = 'SyncRep' AND query LIKE '%ledger.redeem_batch%'"
            )
            committed = "SELECT count(*) FROM ledger.redemptions WHERE idempotency_key = $1"
            async with asyncio.timeout(10):
                while await owner.fetchval(committed, key) != 1:
                    pass
            second = await _once_it_is_over(service, account, key)
            assert (second.status_code, second.json()["code"]) == (504, "ledger-timeout")
        third = await _once_it_is_over(service, account, key)
    assert (third.status_code, third.headers["Idempotent-Replayed"]) == (422, "true")


async def _once_it_is_over(service: Service, account: str, key: str) -> httpx.Response:
    """The answer to the key once the call before, which goes on to its end, is no longer in the way."""
    async with asyncio.timeout(20):
        while (answer := await service.redeem(account, 3, key)).status_code == 409:
            await asyncio.sleep(0.05)
        return answer


@asynccontextmanager
async def _absent_standby(owner: Any) -> AsyncIterator[None]:  # noqa: ANN401 - asyncpg has no types
    """While the block runs commits wait for a standby that is not there."""

    async def commits_wait() -> bool:
        try:
            await owner.execute("SELECT pg_logical_emit_message(true, 'probe', '')", timeout=0.2)
        except TimeoutError:
            return True
        return False

    async def standby(name: str) -> None:
        await owner.execute(f"ALTER SYSTEM SET synchronous_standby_names = '{name}'")
        await owner.execute("SELECT pg_reload_conf()")
        async with asyncio.timeout(10):
            while await commits_wait() != bool(name):
                pass

    await standby("absent")
    try:
        yield
    finally:
        await standby("")


async def test_connections_keep_no_session_state(service: Service, database: Database) -> None:
    """Connections are not reset between requests, so none may keep a lock, a setting or a temporary table."""
    account = await database.account(100)
    await asyncio.gather(*(service.redeem(account, 1) for _ in range(20)))
    async with database.connection() as owner:
        assert not await owner.fetch(
            "SELECT 1 FROM pg_locks JOIN pg_stat_activity USING (pid) WHERE usename = 'redemption_service'"
        )
        assert not await owner.fetch("SELECT 1 FROM pg_class WHERE relpersistence = 't'")
        assert not await owner.fetch(
            "SELECT 1 FROM pg_stat_activity WHERE usename = 'redemption_service' AND state <> 'idle'"
        )
