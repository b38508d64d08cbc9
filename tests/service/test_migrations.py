"""The schema's steps: applied once, as a whole or not at all, and while the service goes on."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import pytest

from service import administration
from service.embedded_postgres import embedded_postgres
from tests.service.conftest import Database, unused
from tests.service.ledger_calls import CLIENT, PRINT, Connection, begin_with_0001, key, redeem, remember_0001, reserve

pytestmark = pytest.mark.anyio

_NAMES = tuple(step.name for step in administration.migrations())


@pytest.fixture
async def fresh(database: Database) -> AsyncIterator[str]:
    """The URL of an empty database, with a login that may create roles and is no superuser, as a managed one gives."""
    name, password = unused("fresh").replace("-", "_"), secrets.token_hex(8)
    async with database.connection() as owner:
        await owner.execute(f"CREATE ROLE {name} LOGIN CREATEROLE PASSWORD '{password}'")
        await owner.execute(f"GRANT redemption_owner, redemption_app TO {name} WITH ADMIN OPTION")
        await owner.execute(f"CREATE DATABASE {name} OWNER {name}")
        yield (
            database.owner.removesuffix("postgres").replace(
                database.owner.split("//")[1].split("@")[0], f"{name}:{password}"
            )
            + name
        )
        await owner.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with a copy of every step, which the test may change before it migrates."""
    for file in administration.MIGRATIONS.glob("*.sql"):
        (tmp_path / file.name).write_text(file.read_text())
    monkeypatch.setattr(administration, "MIGRATIONS", tmp_path)
    administration.migrations.cache_clear()
    yield tmp_path
    administration.migrations.cache_clear()


@asynccontextmanager
async def _connected(url: str, role: str | None = None) -> AsyncIterator[Connection]:
    connection = await asyncpg.connect(url, server_settings={} if role is None else {"role": role})
    try:
        yield connection
    finally:
        await connection.close()


# --- once, and whole --------------------------------------------------------------------------------------------------


async def test_a_master_user_who_is_no_superuser_can_begin() -> None:
    """On a server that knows none of our roles, a managed database's master user makes all that is needed."""
    with embedded_postgres(durable=False) as superuser:
        async with _connected(superuser) as connection:
            await connection.execute("CREATE ROLE master LOGIN CREATEROLE PASSWORD 'secret'")
            await connection.execute("CREATE DATABASE redemption OWNER master")
        master = f"postgresql://master:secret@{superuser.split('@')[1].removesuffix('postgres')}redemption"
        async with _connected(await administration.provision(master)) as service:
            assert await service.fetchval("SELECT version FROM ledger.schema_version") == len(_NAMES)
        async with _connected(await administration.provision_worker(master)) as worker:
            assert await worker.fetchval("SELECT count(*) FROM ledger.lots") == 0
        assert await administration.accrue(master, "guest", 5) == 5


async def test_migrating_twice_changes_nothing(fresh: str) -> None:
    """The first run applies every step, the second none."""
    assert await administration.migrate(fresh) == _NAMES
    assert await administration.migrate(fresh) == ()


async def test_two_who_migrate_at_once_do_not_collide(fresh: str) -> None:
    """One applies the steps while the others wait, and then find nothing to do."""
    done = await asyncio.gather(*(administration.migrate(fresh) for _ in range(4)))
    assert sorted(len(names) for names in done) == [0, 0, 0, len(_NAMES)]


async def test_who_waits_for_another_migration_gives_up(fresh: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody who migrates for ever, or hangs, is not waited for without a bound."""
    monkeypatch.setattr(administration, "_ALONE_SECONDS_MAX", 0.3)
    async with _connected(fresh) as other:
        await other.execute("SELECT pg_advisory_lock($1)", administration._LOCK)
        with pytest.raises(administration.MigrationError, match=r"another migration .* more than 0\.3 s"):
            await asyncio.wait_for(administration.migrate(fresh), 30)
        assert await other.fetchval("SELECT to_regclass('ledger.migrations')") is None


async def test_a_changed_step_is_found_out(fresh: str, steps: Path) -> None:
    """A step that was applied and then edited stops the migration, before anything is changed."""
    await administration.migrate(fresh)
    first = steps / "0001_ledger.sql"
    first.write_text(first.read_text() + "-- an edit\n")
    administration.migrations.cache_clear()
    with pytest.raises(administration.MigrationError, match=r"0001_ledger\.sql was changed"):
        await administration.migrate(fresh)
    first.unlink()
    administration.migrations.cache_clear()
    with pytest.raises(administration.MigrationError, match="unknown to this program"):
        await administration.migrate(fresh)


@pytest.mark.parametrize(
    "fault",
    [
        "SELECT 1 / 0;",  # in the step
        f"ALTER TABLE ledger.migrations ADD CHECK (number <= {len(_NAMES)});",  # in recording it
    ],
)
async def test_a_step_that_fails_leaves_nothing(fresh: str, steps: Path, fault: str) -> None:
    """A step is applied and recorded as a whole, or not at all; the steps before it stay."""
    (steps / f"{len(_NAMES) + 1:04}_broken.sql").write_text(f"CREATE TABLE ledger.half (); {fault}")
    with pytest.raises((asyncpg.DivisionByZeroError, asyncpg.CheckViolationError)):
        await administration.migrate(fresh)
    async with _connected(fresh) as connection:
        assert await connection.fetchval("SELECT max(number) FROM ledger.migrations") == len(_NAMES)
        assert await connection.fetchval("SELECT to_regclass('ledger.half')") is None


async def test_a_step_outside_a_transaction_can_be_run_again(fresh: str, steps: Path) -> None:
    """What was interrupted, an index that is not valid say, is made anew the next time."""
    indexes = steps / "0003_indexes.sql"
    whole = indexes.read_text()
    indexes.write_text(whole + "SELECT 1 / 0;\n")
    with pytest.raises(asyncpg.DivisionByZeroError):
        await administration.migrate(fresh)
    async with _connected(fresh) as connection:
        assert await connection.fetchval("SELECT max(number) FROM ledger.migrations") == 2
        before = await connection.fetchval("SELECT 'ledger.redemptions_origin'::regclass::oid")
    indexes.write_text(whole)
    administration.migrations.cache_clear()
    assert await administration.migrate(fresh) == _NAMES[2:]
    async with _connected(fresh) as connection:
        assert await connection.fetchval("SELECT 'ledger.redemptions_origin'::regclass::oid") != before
        assert await connection.fetchval("SELECT bool_and(indisvalid) FROM pg_index") is True


async def test_a_step_outside_a_transaction_that_gives_up_says_so(
    fresh: str, steps: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unlike others it may be applied in part: whoever reads that it gave up reads that it can be run again."""
    await administration.migrate(fresh)
    monkeypatch.setattr(administration, "_LOCK_ATTEMPTS_MAX", 2)
    monkeypatch.setattr(administration, "_CONCURRENT_MILLISECONDS_MAX", 100)
    step = steps / f"{len(_NAMES) + 1:04}_outside.sql"
    step.write_text("-- outside a transaction\nSELECT 1;\nALTER TABLE ledger.accounts SET (fillfactor = 70);\n")
    administration.migrations.cache_clear()
    async with _connected(fresh) as long, long.transaction():
        await long.execute("SET ROLE redemption_owner")
        await long.execute("LOCK TABLE ledger.accounts")
        with pytest.raises(administration.MigrationError, match="a part of it may be applied; it can be run again"):
            await administration.migrate(fresh)
    assert await administration.migrate(fresh) == (step.name,)


# --- while the service goes on ----------------------------------------------------------------------------------------

_ACCOUNTS = [f"guest-{number}" for number in range(6)]
_GRANTED = 100_000
_OPENED = 3  # points that each account spent before the migration


@pytest.fixture
async def old(fresh: str, database: Database) -> str:
    """The superuser's URL of a database at 0001, with accounts that have spent some points."""
    await begin_with_0001(fresh)
    url = database.owner.removesuffix("postgres") + fresh.rpartition("/")[2]
    async with _connected(url) as connection:
        for account in _ACCOUNTS:
            await connection.execute("SELECT ledger.accrue($1, $1, $2)", account, _GRANTED)
            await _old_call(connection, account, _OPENED)
    return url


async def _old_call(connection: Connection, account: str, points: int) -> None:
    """All that a program of 0001 asks for; what it hears must fit."""
    made = await connection.fetchrow(
        "SELECT * FROM ledger.redeem($1, $2, $3, $4, $5)", CLIENT, key(), PRINT, account, points
    )
    assert (made["result"], made["rejection"], made["points"]) == ("decided", None, points)
    found = await connection.fetchrow("SELECT * FROM ledger.find_redemption($1)", made["redemption_id"])
    assert tuple(found) == tuple(made)[1:]
    balance = await connection.fetchrow("SELECT balance, version FROM ledger.balances WHERE account_id = $1", account)
    assert balance["balance"] <= made["balance"]


async def _new_call(connection: Connection, account: str, points: int) -> None:
    made = await redeem(connection, account, points)
    assert (made["result"], made["rejection"]) == ("decided", None)


Ask = Callable[[Connection, str, int], Awaitable[None]]


@asynccontextmanager
async def _load(url: str, asks: list[Ask]) -> AsyncIterator[dict[str, int]]:
    """Callers that ask all the time while the block runs, each on a connection; yields what was spent of each account.

    The end of the block raises what any of their calls raised.
    """
    spent = dict.fromkeys(_ACCOUNTS, 0)
    over = asyncio.Event()

    async def caller(ask: Ask) -> None:
        async with _connected(url, "redemption_app") as connection:
            while not over.is_set():
                account = secrets.choice(_ACCOUNTS)
                await asyncio.wait_for(ask(connection, account, 1), 30)
                spent[account] += 1

    async with asyncio.TaskGroup() as callers:
        for ask in asks:
            callers.create_task(caller(ask))
        try:
            for _ in range(3_000):
                if all(spent.values()):
                    break
                await asyncio.sleep(0.01)
            yield spent
        finally:
            over.set()


async def _fits(url: str, spent: dict[str, int]) -> None:
    """Every account has what it should, and its lots say the same once they were counted."""
    async with _connected(url) as connection:
        await connection.execute("SELECT ledger.count_lots('', 1000)")
        rows = await connection.fetch(
            """
            SELECT
                a.account_id, a.balance,
                (SELECT sum(e.amount) FROM ledger.entries AS e WHERE e.account_id = a.account_id) AS entries,
                (SELECT count(*) FROM ledger.entries AS e WHERE e.account_id = a.account_id) = a.version AS dense,
                (SELECT sum(l.remaining) FROM ledger.lots AS l WHERE l.account_id = a.account_id) + a.held AS in_lots
            FROM ledger.accounts AS a
            """
        )
        assert await connection.fetchval("SELECT sum(amount) FROM ledger.entries") == 0
    expected = {account: _GRANTED - _OPENED - points for account, points in spent.items()}
    assert {row["account_id"]: row["balance"] for row in rows} == expected
    assert {row["account_id"]: row["entries"] for row in rows} == expected
    assert {row["account_id"]: row["in_lots"] for row in rows} == expected
    assert all(row["dense"] for row in rows)


async def test_the_service_goes_on_while_the_schema_changes(old: str) -> None:
    """No call of a program of 0001 fails at any time; then old and new programs work side by side."""
    async with _load(old, [_old_call] * 6) as spent:
        assert await administration.migrate(old) == _NAMES[1:]
    await _fits(old, spent)
    async with _load(old, [_old_call, _new_call] * 3) as more:
        await asyncio.sleep(0.3)
    await _fits(old, {account: spent[account] + more[account] for account in _ACCOUNTS})


async def test_a_step_takes_its_locks_in_the_order_of_the_callers(old: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """First the redemptions, then the accounts: else it has what a caller wants next, and wants what the caller has.

    Then a moment without a caller is the only one that a step can use, however short its locks are.
    """
    monkeypatch.setattr(administration, "_LOCK_MILLISECONDS_MAX", 20_000)
    async with _connected(old) as caller, _connected(old) as watching:
        transaction = caller.transaction()
        await transaction.start()
        await caller.fetch("SELECT FROM ledger.redemptions LIMIT 1")
        migrating = asyncio.create_task(administration.migrate(old))
        await _until_waiting(watching)
        await caller.fetch("SELECT FROM ledger.accounts FOR UPDATE")
        await transaction.commit()
        assert await asyncio.wait_for(migrating, 60) == _NAMES[1:]


async def _until_waiting(watching: Connection) -> None:
    """Until somebody waits for a lock of this database."""
    for _ in range(3_000):
        if await watching.fetchval(
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        ):
            return
        await asyncio.sleep(0.01)
    raise AssertionError("nobody waits")


async def test_a_call_that_waited_for_the_migration_is_counted(old: str) -> None:
    """It ends in the body of 0001, which knows no lots: the next one to come finds that, and counts them anew."""
    await administration.migrate(old)
    async with _connected(old) as connection:
        await remember_0001(connection)
        account = _ACCOUNTS[0]
        await reserve(connection, account, 10)
        await connection.fetchrow("SELECT * FROM pg_temp.redeem($1, $2, $3, $4, 7)", CLIENT, key(), PRINT, account)
        await connection.execute("SELECT pg_temp.accrue($1, $2, 5)", unused("stay"), account)
        assert (await redeem(connection, account, 1))["available"] == _GRANTED - _OPENED - 10 - 7 + 5 - 1
    await _fits(old, {**dict.fromkeys(_ACCOUNTS, 0), account: 7 - 5 + 1})


async def test_no_moment_for_a_step(old: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind somebody's long transaction it gives up and leaves nothing; callers wait for moments only."""
    monkeypatch.setattr(administration, "_LOCK_ATTEMPTS_MAX", 3)
    monkeypatch.setattr(administration, "_LOCK_MILLISECONDS_MAX", 100)
    async with _connected(old) as long, long.transaction():
        await long.fetch("SELECT FROM ledger.accounts LIMIT 1")
        async with _load(old, [_old_call] * 2) as spent:
            before = sum(spent.values())
            with pytest.raises(administration.MigrationError, match=r"0002_lots_and_holds\.sql found no moment"):
                await administration.migrate(old)
            assert sum(spent.values()) > before  # they went on beside the long transaction
    async with _connected(old) as connection:
        assert await connection.fetchval("SELECT max(number) FROM ledger.migrations") == 1
        assert await connection.fetchval("SELECT to_regclass('ledger.lots')") is None
    assert await administration.migrate(old) == _NAMES[1:]
    await _fits(old, spent)
