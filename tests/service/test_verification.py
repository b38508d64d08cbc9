"""The verification finds nothing in a ledger that is in order, and everything in one that is not."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import secrets
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias
from uuid import UUID

import asyncpg
import pytest

from service import administration, verification
from service.embedded_postgres import embedded_postgres
from service.verification import CHECKS, HEAD_PRESENT, SEALED, Head, as_json, describe, verify
from slo.metrics import REDEMPTION_LEDGER_MISMATCHES

pytestmark = pytest.mark.anyio

Connection: TypeAlias = Any  # asyncpg ships no types

_CLIENT = "partner-a"
_SECRET = "secret-key-of-a-client"


@dataclass(frozen=True, slots=True)
class Lived:
    """A ledger in which everything has happened.

    Attributes:
        owner: URL of the superuser.
        app: URL of a login that may redeem, and not read.
        worker: URL of a login that may read everything, and change nothing.
    """

    owner: str
    app: str
    worker: str


@pytest.fixture(scope="module")
def lived() -> Iterator[Lived]:
    """A server of its own: the verification looks at all that there is."""
    with embedded_postgres(durable=False) as owner:
        yield asyncio.run(_live(owner))


@pytest.fixture
async def connection(lived: Lived) -> AsyncIterator[Connection]:
    """A superuser's connection, in a transaction that is undone, without triggers and foreign keys."""
    connection = await asyncpg.connect(lived.owner)
    transaction = connection.transaction(isolation="repeatable_read")
    await transaction.start()
    await connection.execute("SET LOCAL session_replication_role = replica")
    await connection.execute(_NAMES)
    yield connection
    await transaction.rollback()
    await connection.close()


# Names for some rows, so that the corruptions below are short.
_NAMES = """
    CREATE FUNCTION pg_temp.done(text) RETURNS uuid STABLE LANGUAGE sql AS
    'SELECT min(redemption_id::text)::uuid FROM ledger.redemptions
     WHERE kind = $1 AND rejection IS NULL AND transaction_number IS NOT NULL';
    CREATE FUNCTION pg_temp.last() RETURNS bigint STABLE LANGUAGE sql AS
    'SELECT max(account_version) FROM ledger.entries WHERE account_id = $$guest$$';
    CREATE FUNCTION pg_temp.newest() RETURNS uuid STABLE LANGUAGE sql AS
    'SELECT max(transaction_id::text)::uuid FROM ledger.entries WHERE transaction_id IN (
        SELECT redemption_id FROM ledger.redemptions)';
    CREATE FUNCTION pg_temp.other_lot() RETURNS uuid STABLE LANGUAGE sql AS
    'SELECT lot_id FROM ledger.lots WHERE account_id = $$guest$$ AND expires_at IS NULL';
    CREATE FUNCTION pg_temp.count_lot() RETURNS uuid STABLE LANGUAGE sql AS
    'SELECT lot_id FROM ledger.lots WHERE account_id = $$old-counted$$';
"""


# --- the life of a ledger ---------------------------------------------------------------------------------------------


async def _live(owner: str) -> Lived:
    connection = await asyncpg.connect(owner)
    first = administration.migrations()[0]
    await connection.execute((administration.MIGRATIONS / "bootstrap.sql").read_text("utf-8"))
    async with connection.transaction():
        await administration._apply(connection, first)
    await connection.execute("RESET ROLE")

    for account in ("old-refunded", "old-counted", "old-untouched"):
        await connection.execute("SELECT ledger.accrue($1, $1, 100)", account)
    spent = await _redeem_under_0001(connection, "old-refunded", 30, "ledger.redeem")
    await _redeem_under_0001(connection, "old-refunded", 1_000, "ledger.redeem")
    await _redeem_under_0001(connection, "nobody", 1, "ledger.redeem")

    app, worker = await administration.provision(owner), await administration.provision_worker(owner)
    # A call of 0001 that waited for the migration ends in the old body.
    body = first.sql[first.sql.index("CREATE FUNCTION ledger.redeem(") :]
    body = body[: body.index("$$;") + 3].replace("ledger.redeem(", "ledger.redeem_0001(", 1)
    await connection.execute(body)

    await _live_through_the_change(connection, spent)
    await _live_until_lots_end(connection)
    while (await connection.fetchrow("SELECT * FROM ledger.seal(10)"))["sealed"]:
        pass
    await _live_on(connection)
    await connection.execute("SELECT ledger.seal(1000)")
    await _redeem(connection, "guest", 2)  # not sealed yet
    await connection.close()
    return Lived(owner, app, worker)


async def _live_through_the_change(connection: Connection, spent: UUID) -> None:
    await _resolve(connection, spent, "refund", 10)  # of points that came from no lot
    await _resolve(connection, spent, "refund", None)
    await _redeem(connection, "old-counted", 5)
    for account in ("old-moved-later", "old-moved-last"):
        await _accrue(connection, account, 100)
        await _redeem_under_0001(connection, account, 25, "ledger.redeem_0001")
    await _redeem(connection, "old-moved-later", 5)


async def _live_until_lots_end(connection: Connection) -> None:
    hour = timedelta(hours=1)
    soon = datetime.now(UTC) + timedelta(seconds=0.3)
    for points, expires_at in ((100, soon + hour), (50, None), (30, soon + 2 * hour), (70, soon)):
        await _accrue(connection, "guest", points, expires_at)
    await _accrue(connection, "guest-ended", 40, soon)
    await _accrue(connection, "guest-new", 10, soon + hour)
    given_back = await _redeem(connection, "guest", 20)
    voided_late = await _redeem(connection, "guest-ended", 15, hold_seconds=600)
    await asyncio.sleep(max(0.0, (soon - datetime.now(UTC)).total_seconds()) + 0.01)
    await connection.execute("SELECT ledger.expire_lots(100)")
    await _resolve(connection, given_back, "refund", 5)  # to a lot that has ended
    await _resolve(connection, voided_late, "void", None)
    await connection.execute("SELECT ledger.expire_lots(100)")


async def _live_on(connection: Connection) -> None:
    several = await _redeem(connection, "guest", 120)
    await _resolve(connection, several, "refund", 40)
    await _resolve(connection, several, "refund", None)
    await _resolve(connection, several, "refund", 1)  # rejected
    captured, voided = [await _redeem(connection, "guest", 20, hold_seconds=600) for _ in range(2)]
    await _resolve(connection, captured, "capture", 21)  # rejected
    await _resolve(connection, captured, "capture", 5)
    await _resolve(connection, captured, "refund", 3)
    await _resolve(connection, captured, "void", None)  # rejected
    await _resolve(connection, voided, "void", None)
    await _redeem(connection, "guest", 15, hold_seconds=0)
    await connection.execute("SELECT ledger.expire_holds(100)")
    await _redeem(connection, "guest", 25, hold_seconds=600)  # stays open
    whole = await _redeem(connection, "guest", 5, hold_seconds=600)
    await _resolve(connection, whole, "capture", None)
    await _redeem(connection, "guest", 1_000)  # rejected
    await _redeem(connection, "nobody", 1)  # rejected
    await _redeem(connection, "guest", 1, deadline=datetime.now(UTC))  # rejected


def _key() -> str:
    return f"{_SECRET}-{secrets.token_hex(8)}"


async def _redeem_under_0001(connection: Connection, account: str, points: int, function: str) -> UUID:
    row = await connection.fetchrow(
        f"SELECT * FROM {function}($1, $2, $3, $4, $5)",  # noqa: S608 - of constants
        *(_CLIENT, _key(), b"f" * 32, account, points),
    )
    made: UUID = row["redemption_id"]
    return made


async def _accrue(connection: Connection, account: str, points: int, expires_at: datetime | None = None) -> None:
    await connection.fetch(
        "SELECT * FROM ledger.accrue_batch($1, $2, $3, $4)",
        *([secrets.token_hex(8)], [account], [points], [expires_at]),
    )


async def _redeem(
    connection: Connection,
    account: str,
    points: int,
    *,
    hold_seconds: int | None = None,
    deadline: datetime | None = None,
) -> UUID:
    row = await connection.fetchrow(
        "SELECT * FROM ledger.redeem_batch($1, $2, $3, $4, $5, $6, $7, $8, true)",
        *([_CLIENT], [_key()], [b"f" * 32], [account], [points], [hold_seconds], [deadline], [deadline]),
    )
    made: UUID = row["redemption_id"]
    return made


async def _resolve(connection: Connection, redemption_id: UUID, kind: str, points: int | None) -> None:
    row = await connection.fetchrow(
        "SELECT * FROM ledger.resolve($1, $2, $3, $4, $5, $6)",
        *(_CLIENT, _key(), b"f" * 32, redemption_id, kind, points),
    )
    assert row["result"] == "decided"


# --- in order ---------------------------------------------------------------------------------------------------------


async def test_the_ledger_of_these_tests_has_seen_everything(connection: Connection) -> None:
    """Every kind of decision, rejection and end is there, sealed and not, so that nothing is verified in vain."""

    async def values(query: str) -> set[Any]:
        return {row[0] for row in await connection.fetch(query)}

    assert await values("SELECT kind FROM ledger.redemptions WHERE rejection IS NULL") == {
        *("redeem", "reserve", "capture", "void", "expire", "refund")
    }
    assert await values("SELECT rejection FROM ledger.redemptions") == {
        None,
        *("insufficient-points", "unknown-account", "deadline-passed"),
        *("hold-closed", "exceeds-hold", "exceeds-redeemed"),
    }
    for there in (
        "SELECT FROM ledger.seals WHERE number >= 3",
        "SELECT FROM ledger.holds",
        "SELECT FROM ledger.expirations",
        "SELECT FROM ledger.entries WHERE transaction_number > (SELECT max(through) FROM ledger.seals)",
        "SELECT FROM ledger.accounts WHERE version > 0 AND lots_version = -1",
        "SELECT FROM ledger.accounts WHERE lots_version > 0 AND lots_version < version",
        # a count that took points
        (
            "SELECT FROM ledger.lot_postings AS p WHERE amount < 0"
            " AND NOT EXISTS (SELECT FROM ledger.redemptions WHERE redemption_id = p.transaction_id)"
            " AND NOT EXISTS (SELECT FROM ledger.expirations WHERE expiration_id = p.transaction_id)"
        ),
    ):
        assert await connection.fetch(there), there


async def test_a_ledger_in_order_has_no_mismatch(lived: Lived) -> None:
    """Whatever may happen in a ledger contradicts nothing; the head is the last seal."""
    turns: list[tuple[str, str]] = []
    report = await verify(lived.worker, progress=lambda check, fact: turns.append((check, fact)))
    assert report.ok, describe(report)
    assert report.complete
    assert turns == [(name, fact.sentence) for name, check in CHECKS.items() for fact in check.facts] + [
        ("chain", SEALED)
    ]
    connection = await asyncpg.connect(lived.owner)
    seal = await connection.fetchrow("SELECT * FROM ledger.seals ORDER BY number DESC LIMIT 1")
    await connection.close()
    assert report.head == (seal["number"], seal["sha256"])


async def test_an_empty_ledger_is_in_order(lived: Lived) -> None:
    """Where nothing has happened nothing is wrong, and the chain has no head."""
    connection = await asyncpg.connect(lived.owner)
    try:
        await connection.execute("CREATE DATABASE empty")
        empty = lived.owner.removesuffix("postgres") + "empty"
        await administration.migrate(empty)
        report = await verify(empty)
        assert (report.ok, report.head) == (True, None)
    finally:
        await connection.execute("DROP DATABASE empty WITH (FORCE)")
        await connection.close()


async def test_the_checks_are_those_of_the_metric() -> None:
    """What the metric counts by is what is checked."""
    assert tuple(CHECKS) == REDEMPTION_LEDGER_MISMATCHES.labels["check"]


async def test_the_verification_cannot_write(lived: Lived) -> None:
    """Its transaction is read-only and sees one moment, whoever runs it."""
    connection = await asyncpg.connect(lived.owner)
    states: set[tuple[str, str]] = set()

    class Watched:
        def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever a connection has
            return getattr(connection, name)

        async def fetch(self, query: str) -> list[Any]:
            states.add(
                tuple(
                    await connection.fetchrow(
                        "SELECT current_setting('transaction_read_only'), current_setting('transaction_isolation')"
                    )
                )
            )
            rows: list[Any] = await connection.fetch(query)
            return rows

    assert (await verify(Watched())).ok
    await connection.close()
    assert states == {("on", "repeatable read")}


async def test_who_may_not_read_may_not_verify(lived: Lived) -> None:
    """The service's own login cannot read the tables; that is an error and no clean report."""
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await verify(lived.app)


# --- not in order -----------------------------------------------------------------------------------------------------


def _sentence(beginning: str) -> str:
    [found] = [
        fact.sentence for check in CHECKS.values() for fact in check.facts if fact.sentence.startswith(beginning)
    ]
    return found


# (check, how the fact's sentence begins, what is done to the ledger)
_CORRUPTIONS = [
    (
        "versions",
        "The entries of an account",
        "UPDATE ledger.entries SET account_version = 99 WHERE account_version = pg_temp.last()",
    ),
    (
        "versions",
        "The entries of an account",
        "DELETE FROM ledger.entries WHERE account_id = 'guest' AND account_version = 1",
    ),
    ("versions", "An account's version", "UPDATE ledger.accounts SET version = version + 1 WHERE account_id = 'guest'"),
    ("versions", "An account's version", "DELETE FROM ledger.accounts WHERE account_id = 'guest'"),
    (
        "versions",
        "An account's version",
        "DELETE FROM ledger.entries WHERE account_version = pg_temp.last() AND account_id = 'guest'",
    ),
    (
        "balances",
        "The balance after an entry",
        "UPDATE ledger.entries SET balance_after = 1 WHERE account_id = 'guest' AND account_version = 1",
    ),
    (
        "balances",
        "An account's balance is the balance",
        "UPDATE ledger.accounts SET balance = balance + 1 WHERE account_id = 'guest'",
    ),
    (
        "balances",
        "An account's balance is the sum",
        "UPDATE ledger.entries SET amount = amount + 1 WHERE account_id = 'guest' AND account_version = 1",
    ),
    ("balances", "An account's balance is the sum", "DELETE FROM ledger.accounts WHERE account_id = 'guest'"),
    (
        "sums",
        "A transaction has two entries",
        "DELETE FROM ledger.entries WHERE account_id = 'system:burn' AND transaction_id = pg_temp.done('redeem')",
    ),
    (
        "sums",
        "A transaction has two entries",
        "UPDATE ledger.entries SET amount = amount + 1 WHERE account_id = 'system:burn' AND amount = 5",
    ),
    (
        "sums",
        "A transaction has two entries",
        (
            "INSERT INTO ledger.entries SELECT pg_temp.done('redeem'), *"
            " FROM (VALUES ('system:issuance', 1), ('system:expiry', -1)) AS v"
        ),
    ),
    (
        "sums",
        "A transaction has two entries",
        (
            "UPDATE ledger.entries SET account_id = 'system:expiry', account_version = NULL, balance_after = NULL"
            " WHERE account_id = 'guest-new'"
        ),
    ),
    ("sums", "All entries", "DELETE FROM ledger.entries WHERE account_id = 'system:expiry'"),
    (
        "sums",
        "The other side",
        "UPDATE ledger.entries SET account_id = 'system:issuance' WHERE account_id = 'system:burn' AND amount < 10",
    ),
    (
        "redemptions",
        "A client's key",
        (
            "ALTER TABLE ledger.redemptions DROP CONSTRAINT redemptions_client_id_idempotency_key_key;"
            " INSERT INTO ledger.redemptions ("
            "redemption_id, client_id, idempotency_key, fingerprint, account_id, points, rejection)"
            " SELECT gen_random_uuid(), client_id, idempotency_key, fingerprint, account_id, points, 'unknown-account'"
            " FROM ledger.redemptions WHERE redemption_id = pg_temp.done('redeem')"
        ),
    ),
    (
        "redemptions",
        "An accrual's reference",
        (
            "ALTER TABLE ledger.accruals DROP CONSTRAINT accruals_reference_key;"
            " INSERT INTO ledger.accruals SELECT gen_random_uuid(), reference, account_id, points FROM ledger.accruals"
        ),
    ),
    (
        "redemptions",
        "What moves points",
        "UPDATE ledger.redemptions SET points = points + 1 WHERE redemption_id = pg_temp.done('redeem')",
    ),
    (
        "redemptions",
        "What moves points",
        "UPDATE ledger.redemptions SET balance = balance + 1 WHERE redemption_id = pg_temp.done('capture')",
    ),
    (
        "redemptions",
        "What moves points",
        "UPDATE ledger.redemptions SET account_id = 'guest-new' WHERE redemption_id = pg_temp.done('refund')",
    ),
    ("redemptions", "What moves points", "DELETE FROM ledger.entries WHERE transaction_id = pg_temp.done('redeem')"),
    ("redemptions", "What moves points", "UPDATE ledger.accruals SET points = points + 1"),
    ("redemptions", "What moves points", "UPDATE ledger.expirations SET points = points + 1"),
    (
        "redemptions",
        "Nothing else has one",
        "INSERT INTO ledger.entries VALUES (pg_temp.done('redeem'), 'guest-new', -1, 99, 0)",
    ),
    (
        "redemptions",
        "Nothing else has one",
        "DELETE FROM ledger.redemptions WHERE redemption_id = pg_temp.done('redeem')",
    ),
    (
        "redemptions",
        "Nothing else has one",
        "UPDATE ledger.redemptions SET rejection = 'deadline-passed' WHERE redemption_id = pg_temp.done('redeem')",
    ),
    ("redemptions", "Nothing else has one", "DELETE FROM ledger.accruals WHERE account_id = 'guest-new'"),
    ("redemptions", "Nothing else has one", "DELETE FROM ledger.expirations"),
    *(
        (
            "redemptions",
            "Nothing else has one",
            f"INSERT INTO ledger.entries VALUES (pg_temp.done('{kind}'), 'guest', -1, 99, 0)",  # noqa: S608 - of constants
        )
        for kind in ("reserve", "void", "expire")
    ),
    (
        "redemptions",
        "Available points",
        "UPDATE ledger.redemptions SET available = balance + 1 WHERE redemption_id = pg_temp.done('redeem')",
    ),
    (
        "redemptions",
        "Available points",
        "UPDATE ledger.redemptions SET available = -1 WHERE redemption_id = pg_temp.done('redeem')",
    ),
    (
        "redemptions",
        "Available points",
        (
            "ALTER TABLE ledger.redemptions DROP CONSTRAINT redemptions_insufficient_check;"
            " UPDATE ledger.redemptions SET points = 1 WHERE rejection = 'insufficient-points' AND available IS NULL"
        ),
    ),
    (
        "redemptions",
        "Available points",
        (
            "ALTER TABLE ledger.redemptions DROP CONSTRAINT redemptions_insufficient_check;"
            " UPDATE ledger.redemptions SET points = 1 WHERE rejection = 'insufficient-points' AND available > 0"
        ),
    ),
    (
        "redemptions",
        "A follow-up",
        "UPDATE ledger.redemptions SET origin_id = gen_random_uuid() WHERE redemption_id = pg_temp.done('capture')",
    ),
    (
        "redemptions",
        "A follow-up",
        "UPDATE ledger.redemptions SET origin_id = gen_random_uuid() WHERE rejection = 'exceeds-hold'",
    ),
    (
        "redemptions",
        "A follow-up",
        "UPDATE ledger.redemptions SET origin_id = pg_temp.done('capture') WHERE kind = 'refund'",
    ),
    (
        "redemptions",
        "A follow-up",
        "UPDATE ledger.redemptions SET origin_id = pg_temp.done('redeem') WHERE redemption_id = pg_temp.done('void')",
    ),
    (
        "redemptions",
        "A follow-up",
        "UPDATE ledger.redemptions SET client_id = 'partner-b' WHERE redemption_id = pg_temp.done('void')",
    ),
    (
        "redemptions",
        "A follow-up",
        """ALTER TABLE ledger.redemptions DROP CONSTRAINT redemptions_texts_check;
        UPDATE ledger.redemptions SET client_id = 'partner-a' WHERE redemption_id = pg_temp.done('expire')""",
    ),
    (
        "redemptions",
        "A follow-up",
        "UPDATE ledger.redemptions SET account_id = 'guest-new' WHERE redemption_id = pg_temp.done('refund')",
    ),
    (
        "redemptions",
        "A follow-up",
        "UPDATE ledger.redemptions SET rejection = 'deadline-passed', hold_expires_at = NULL WHERE kind = 'reserve'",
    ),
    (
        "redemptions",
        "A hold ends once",
        "UPDATE ledger.redemptions SET rejection = NULL WHERE rejection = 'hold-closed'",
    ),
    (
        "redemptions",
        "A hold ends once",
        "UPDATE ledger.redemptions SET points = 1000 WHERE redemption_id = pg_temp.done('capture')",
    ),
    (
        "redemptions",
        "A hold ends once",
        "UPDATE ledger.redemptions SET points = 1 WHERE redemption_id = pg_temp.done('void')",
    ),
    (
        "redemptions",
        "A hold ends once",
        "UPDATE ledger.redemptions SET points = 1 WHERE redemption_id = pg_temp.done('expire')",
    ),
    (
        "redemptions",
        "No more is given back",
        "UPDATE ledger.redemptions SET points = 1000 WHERE redemption_id = pg_temp.done('refund')",
    ),
    (
        "redemptions",
        "No more is given back",
        "UPDATE ledger.redemptions SET rejection = NULL WHERE rejection = 'exceeds-redeemed'",
    ),
    (
        "redemptions",
        "No more is given back",
        "UPDATE ledger.redemptions SET origin_id = pg_temp.done('reserve') WHERE kind = 'refund'",
    ),
    ("lots", "What remains of a lot", "UPDATE ledger.lots SET remaining = remaining - 1 WHERE remaining > 1"),
    ("lots", "What remains of a lot", "DELETE FROM ledger.lot_postings WHERE transaction_id = pg_temp.done('redeem')"),
    ("lots", "What remains of a lot", "DELETE FROM ledger.lot_postings WHERE lot_id = transaction_id"),
    (
        "lots",
        "What remains of a lot",
        "ALTER TABLE ledger.lots DROP CONSTRAINT lots_check1; UPDATE ledger.lots SET open = NOT open",
    ),
    ("lots", "A lot begins", "UPDATE ledger.lots SET points = points + 1 WHERE account_id = 'guest'"),
    ("lots", "A lot begins", "UPDATE ledger.lots SET expires_at = 'infinity' WHERE account_id = 'guest-new'"),
    ("lots", "A lot begins", "UPDATE ledger.accruals SET expires_at = NULL WHERE account_id = 'guest-new'"),
    ("lots", "A lot begins", "UPDATE ledger.lots SET account_id = 'guest' WHERE account_id = 'guest-new'"),
    ("lots", "A lot begins", "UPDATE ledger.lots SET expires_at = 'infinity' WHERE account_id = 'old-refunded'"),
    ("lots", "A lot begins", "UPDATE ledger.lots SET expires_at = 'infinity' WHERE lot_id = pg_temp.count_lot()"),
    (
        "lots",
        "A lot begins",
        "UPDATE ledger.redemptions SET available = balance WHERE available IS NULL AND rejection IS NULL",
    ),
    (
        "lots",
        "A lot begins",
        (
            "INSERT INTO ledger.lots VALUES (pg_temp.done('void'), 'guest', 1, 1);"
            " INSERT INTO ledger.lot_postings VALUES (pg_temp.done('void'), pg_temp.done('void'), 1)"
        ),
    ),
    (
        "lots",
        "A posting is",
        "UPDATE ledger.lot_postings SET lot_id = gen_random_uuid() WHERE transaction_id = pg_temp.done('redeem')",
    ),
    (
        "lots",
        "A posting is",
        "UPDATE ledger.redemptions SET account_id = 'guest-new' WHERE redemption_id = pg_temp.done('redeem')",
    ),
    ("lots", "A posting is", "UPDATE ledger.accruals SET account_id = 'guest' WHERE account_id = 'guest-new'"),
    ("lots", "A posting is", "UPDATE ledger.expirations SET account_id = 'guest-new'"),
    (
        "lots",
        "Lots are counted only",
        (
            "WITH fresh AS (INSERT INTO ledger.lots SELECT gen_random_uuid(), 'guest', 5, 5 RETURNING lot_id)"
            " INSERT INTO ledger.lot_postings SELECT lot_id, lot_id, 5 FROM fresh"
        ),
    ),
    ("lots", "A decision takes", "DELETE FROM ledger.lot_postings WHERE transaction_id = pg_temp.done('redeem')"),
    *(
        (
            "lots",
            "A decision takes",
            f"UPDATE ledger.lot_postings SET amount = 99 WHERE transaction_id = pg_temp.done('{kind}')",  # noqa: S608 - of constants
        )
        for kind in ("redeem", "reserve", "capture", "void", "expire", "refund")
    ),
    ("lots", "A decision takes", "UPDATE ledger.accruals SET points = points + 1 WHERE account_id = 'guest-new'"),
    ("lots", "A decision takes", "UPDATE ledger.expirations SET points = points + 1"),
    ("lots", "A decision takes", "UPDATE ledger.redemptions SET available = NULL WHERE available IS NOT NULL"),
    (
        "lots",
        "A decision takes",
        (
            "INSERT INTO ledger.lot_postings"
            " SELECT redemption_id, pg_temp.other_lot(), -1 FROM ledger.redemptions WHERE rejection = 'deadline-passed'"
        ),
    ),
    (
        "lots",
        "Points go back",
        "UPDATE ledger.lot_postings SET lot_id = pg_temp.other_lot() WHERE transaction_id = pg_temp.done('refund')",
    ),
    ("lots", "Nothing is spent", "UPDATE ledger.lots SET expires_at = '2000-01-01' WHERE account_id = 'guest'"),
    ("lots", "Nothing is spent", "UPDATE ledger.lots SET expires_at = NULL WHERE account_id = 'guest-ended'"),
    ("lots", "Nothing is spent", "UPDATE ledger.lots SET expires_at = 'infinity' WHERE account_id = 'guest-ended'"),
    ("lots", "The open lots", "UPDATE ledger.accounts SET held = held + 1 WHERE account_id = 'guest'"),
    ("lots", "The open lots", "UPDATE ledger.accounts SET lots_version = version + 1 WHERE account_id = 'guest'"),
    ("lots", "The open lots", "UPDATE ledger.accounts SET lots_version = version WHERE account_id = 'old-moved-last'"),
    ("lots", "An account is looked at", "UPDATE ledger.accounts SET next_expiry = NULL WHERE account_id = 'guest-new'"),
    ("lots", "An account is looked at", "UPDATE ledger.accounts SET next_expiry = next_expiry + '1 s'"),
    (
        "holds",
        "What an account has set aside",
        "UPDATE ledger.accounts SET held = held + 1 WHERE account_id = 'guest-new'",
    ),
    ("holds", "What an account has set aside", "DELETE FROM ledger.accounts WHERE account_id = 'guest'"),
    ("holds", "An open hold", "UPDATE ledger.holds SET points = points + 1"),
    ("holds", "An open hold", "UPDATE ledger.holds SET account_id = 'guest-new'"),
    ("holds", "An open hold", "UPDATE ledger.holds SET expires_at = expires_at + '1 s'"),
    ("holds", "An open hold", "INSERT INTO ledger.holds VALUES (gen_random_uuid(), 'guest', 1, now())"),
    (
        "holds",
        "An open hold",
        "UPDATE ledger.redemptions SET rejection = 'deadline-passed', hold_expires_at = NULL WHERE kind = 'reserve'",
    ),
    (
        "holds",
        "An open hold",
        (
            "INSERT INTO ledger.holds SELECT o.redemption_id, o.account_id, o.points, o.hold_expires_at"
            " FROM ledger.redemptions AS o WHERE o.kind = 'reserve' AND o.hold_expires_at IS NOT NULL"
            " ON CONFLICT DO NOTHING"
        ),
    ),
    (
        "holds",
        "An open hold",
        (
            "ALTER TABLE ledger.redemptions DROP CONSTRAINT redemptions_hold_check;"
            " UPDATE ledger.redemptions SET rejection = 'deadline-passed' WHERE kind = 'reserve'"
        ),
    ),
    ("holds", "A reserve that nothing", "DELETE FROM ledger.holds"),
    ("holds", "A reserve that nothing", "DELETE FROM ledger.redemptions WHERE kind = 'void'"),
    ("chain", "Seals are numbered", "DELETE FROM ledger.seals WHERE number = 1"),
    ("chain", "Seals are numbered", "DELETE FROM ledger.seals WHERE number = 2"),
    ("chain", "Seals are numbered", "UPDATE ledger.seals SET through = 0 WHERE number = 2"),
    ("chain", "Every row", "DELETE FROM ledger.entries WHERE transaction_number IS NULL"),
    (
        "chain",
        "Every row",
        "UPDATE ledger.entries SET transaction_number = -5 WHERE transaction_id = pg_temp.newest()",
    ),
    ("chain", "Every row", "UPDATE ledger.seals SET rows = rows + 1 WHERE number = 1"),
    (
        "chain",
        "No row is ahead",
        "UPDATE ledger.entries SET transaction_number = 1000000000 WHERE transaction_id = pg_temp.newest()",
    ),
    (
        "chain",
        "No row is ahead",
        "UPDATE ledger.redemptions SET transaction_number = 1000000000 WHERE redemption_id = pg_temp.newest()",
    ),
]


def test_every_fact_is_broken_here() -> None:
    """No fact is only believed: each is contradicted by one of the corruptions, under the check that it belongs to."""
    broken = {(check, _sentence(beginning)) for check, beginning, _ in _CORRUPTIONS}
    assert broken == {(name, fact.sentence) for name, check in CHECKS.items() for fact in check.facts}


@pytest.mark.parametrize(("check", "beginning", "corruption"), _CORRUPTIONS)
async def test_a_corruption_is_found(connection: Connection, check: str, beginning: str, corruption: str) -> None:
    """What contradicts a fact is found, counted, and told without a client's key."""
    fact = next(fact for fact in CHECKS[check].facts if fact.sentence.startswith(beginning))
    assert not await verification._contradicted(connection, fact)
    await connection.execute(corruption)
    [finding] = await verification._contradicted(connection, fact)
    assert finding.fact == fact.sentence
    assert finding.mismatches >= len(finding.examples) >= 1
    assert _SECRET not in "".join(finding.examples)


async def test_a_mismatch_is_in_the_report(connection: Connection) -> None:
    """A fact that does not hold is counted and told under its check, and the checks after it are made all the same."""
    await connection.execute("UPDATE ledger.accounts SET version = version + 1 WHERE account_id LIKE 'guest%'")
    report = await verify(connection)
    assert (report.ok, report.complete) == (False, True)
    assert {result.check: result.mismatches for result in report.results if result.findings} == {
        "versions": 3,
        "balances": 2,  # the last entry is looked for by the version; the third has no points
    }
    told = describe(report)
    assert "MISMATCH  versions" in told
    assert "3 against: An account's version is the number of its entries." in told
    assert "account guest-new: version 2, entries 1" in told
    assert "ok        chain" in told
    assert told.endswith(f"Head of the chain: {report.head}")
    asked = json.loads(json.dumps(as_json(report)))
    assert (asked["ok"], asked["complete"], asked["checks"]["versions"]["mismatches"]) == (False, True, 3)
    assert asked["checks"]["chain"] == {"mismatches": 0, "seconds": report.results[-1].seconds, "findings": []}
    assert report.head
    assert asked["head"] == {"number": report.head.number, "sha256": report.head.sha256.hex()}


async def test_it_can_stop_at_the_first(connection: Connection) -> None:
    """Then no other fact is looked at, and the report says so."""
    await connection.execute("UPDATE ledger.accounts SET version = version + 1 WHERE account_id LIKE 'guest%'")
    report = await verify(connection, first_only=True)
    assert [(result.check, result.mismatches) for result in report.results] == [("versions", 3)]
    assert (report.ok, report.complete, report.head) == (False, False, None)
    assert "the rest was not looked at" in describe(report)


async def test_examples_are_few(connection: Connection) -> None:
    """However much is wrong, all of it is counted and some of it is told."""
    await connection.execute(
        "INSERT INTO ledger.accounts (account_id, version) SELECT n, 1 FROM generate_series(1, 500) AS n"
    )
    report = await verify(connection, first_only=True)
    [finding] = report.results[0].findings
    assert (finding.mismatches, len(finding.examples)) == (500, 20)
    assert "and 480 more" in describe(report)


# --- the hash chain ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE ledger.entries SET created_at = created_at + '1 s' WHERE account_version = 1",
        "UPDATE ledger.redemptions SET idempotency_key = idempotency_key || 'x' WHERE kind = 'void'",
        "UPDATE ledger.redemptions SET fingerprint = sha256('') WHERE kind = 'void'",
        "UPDATE ledger.redemptions SET client_id = 'partner-b' WHERE transaction_number IS NULL",
        "DELETE FROM ledger.entries WHERE account_id = 'old-untouched'",
        "UPDATE ledger.redemptions SET transaction_number = 0 WHERE kind = 'void'",
        "UPDATE ledger.seals SET sha256 = sha256('') WHERE number = 2",
        "UPDATE ledger.seals SET rows = rows + 1 WHERE number = 2",
        "UPDATE ledger.seals SET through = through - 1 WHERE number = 1",
        "DELETE FROM ledger.seals WHERE number = 2",
    ],
)
async def test_a_changed_past_breaks_the_chain(connection: Connection, change: str) -> None:
    """No sealed row can change or go, and no seal, without a hash that is wrong."""
    assert (await connection.execute(change)).split()[1] != "0"
    report = await verify(connection)
    assert SEALED in {finding.fact for finding in report.results[-1].findings}


async def test_one_fault_is_one_mismatch(connection: Connection) -> None:
    """The seals after a broken one are not broken for it: the example names the place."""
    await connection.execute("UPDATE ledger.entries SET created_at = 'epoch' WHERE account_id = 'old-untouched'")
    [finding] = (await verify(connection)).results[-1].findings
    assert finding.mismatches == 1
    assert finding.examples[0].startswith("seal 1 through 0:")


async def test_a_chain_that_was_cut_off_is_found_by_its_head(connection: Connection) -> None:
    """Without its last seal a chain is in order; only a head that was noted elsewhere tells."""
    head = (await verify(connection)).head
    assert head
    assert (await verify(connection, expect_head=head)).ok
    await connection.execute("DELETE FROM ledger.seals WHERE number = (SELECT max(number) FROM ledger.seals)")
    assert (await verify(connection)).ok
    [finding] = (await verify(connection, expect_head=head)).results[-1].findings
    assert finding.fact == HEAD_PRESENT
    # And so it is when it was sealed anew, with something left out.
    await connection.execute("DELETE FROM ledger.entries WHERE account_id = 'guest' AND account_version > 5")
    await connection.execute("DELETE FROM ledger.seals WHERE number > 1; SELECT ledger.seal(1000000)")
    assert HEAD_PRESENT in {
        finding.fact for finding in (await verify(connection, expect_head=head)).results[-1].findings
    }


async def test_an_earlier_head_stays_in_the_chain(connection: Connection) -> None:
    """A head that was noted long ago is found among the seals."""
    seal = await connection.fetchrow("SELECT number, sha256 FROM ledger.seals WHERE number = 1")
    assert (await verify(connection, expect_head=(seal["number"], seal["sha256"]))).ok


def test_a_head_is_noted_as_text() -> None:
    """What a report tells as the head can be given back as the head to expect."""
    head = Head(17, hashlib.sha256(b"").digest())
    assert Head.parse(str(head)) == head
    for text in ("", "17", "17:", "x:" + "0" * 64, "0:" + "0" * 64, "1:" + "0" * 63, "1:" + "0" * 66):
        with pytest.raises(ValueError, match=r"."):
            Head.parse(text)


# --- when it is interrupted -------------------------------------------------------------------------------------------


@asynccontextmanager
async def _held_up(lived: Lived, seconds_max: float) -> AsyncIterator[tuple[asyncio.Task[Any], Connection, int]]:
    """A verification that waits for a lock; an owner's connection; and the process of the server that serves it."""
    owner, watching = await asyncpg.connect(lived.owner), await asyncpg.connect(lived.owner)
    transaction = owner.transaction()
    await transaction.start()
    await owner.execute("LOCK TABLE ledger.accounts")
    verifying = asyncio.create_task(verify(lived.worker, seconds_max=seconds_max))
    try:
        async with asyncio.timeout(30):
            while not (waiting := await watching.fetch(_WAITING)):
                await asyncio.sleep(0.01)
        yield verifying, watching, waiting[0]["pid"]
    finally:
        verifying.cancel()
        await transaction.rollback()
        await owner.close()
        await watching.close()


_VERIFYING = "SELECT pid FROM pg_stat_activity WHERE application_name = 'redemption-verification'"
_WAITING = f"{_VERIFYING} AND wait_event_type = 'Lock'"


async def test_it_takes_a_bounded_time(lived: Lived, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that has fallen silent is left, and the error says why."""
    monkeypatch.setattr(verification, "_END_SECONDS_MAX", 0.2)
    async with _held_up(lived, 2) as (verifying, _, server):
        os.kill(server, signal.SIGSTOP)
        try:
            with pytest.raises(TimeoutError, match="the verification took longer than 2 s and was given up"):
                await asyncio.wait_for(asyncio.shield(verifying), 30)
        finally:
            os.kill(server, signal.SIGCONT)


async def test_who_cancels_it_does_not_wait_for_the_server(lived: Lived, monkeypatch: pytest.MonkeyPatch) -> None:
    """However silent the server is, a process that is told to stop can."""
    monkeypatch.setattr(verification, "_END_SECONDS_MAX", 0.2)
    async with _held_up(lived, 600) as (verifying, _, server):
        os.kill(server, signal.SIGSTOP)
        try:
            verifying.cancel()
            done, _ = await asyncio.wait({verifying}, timeout=30)
            assert done
            assert verifying.cancelled()
        finally:
            os.kill(server, signal.SIGCONT)


async def test_what_is_given_up_ends_on_the_server_too(lived: Lived) -> None:
    """A server that answers does not go on with a query, and the row versions it needs, for nobody."""
    async with _held_up(lived, 600) as (verifying, watching, _):
        verifying.cancel()
        async with asyncio.timeout(30):
            while await watching.fetch(_VERIFYING):
                await asyncio.sleep(0.01)


# --- while the service writes -----------------------------------------------------------------------------------------


async def test_it_may_run_while_the_service_writes(lived: Lived) -> None:
    """Redemptions, holds, refunds, grants, upkeep and seals in between look like a mismatch at no moment."""
    stopped = asyncio.Event()
    accounts = [f"busy-{number}" for number in range(5)]

    async def writing(number: int) -> int:
        connection = await asyncpg.connect(lived.worker)
        decided = 0
        while not stopped.is_set():
            await _accrue(connection, accounts[decided % 5], 9, datetime.now(UTC) + timedelta(seconds=0.1 * number))
            rows = await connection.fetch(
                "SELECT * FROM ledger.redeem_batch($1, $2, $3, $4, $5, $6, $7, $8, false)",
                [_CLIENT] * 10,
                [_key() for _ in range(10)],
                [b"f" * 32] * 10,
                accounts * 2,
                [3] * 10,
                [None] * 5 + [0, 600, 600, 600, None],
                *([None] * 10, [None] * 10),
            )
            done = [row for row in rows if row["result"] == "decided" and row["rejection"] is None]
            for row, kind in zip(done, ("refund", "capture", "void") * 4, strict=False):
                await _resolve(connection, row["redemption_id"], kind, 2 if kind != "void" else None)
            await connection.execute("SELECT ledger.expire_holds(10)")
            await connection.execute("SELECT ledger.expire_lots(10)")
            await connection.execute("SELECT ledger.seal(200)")
            decided += len(done)
        await connection.close()
        return decided

    writers = [asyncio.create_task(writing(number)) for number in range(3)]
    heads: list[Head | None] = []
    for _ in range(4):
        report = await verify(lived.worker, expect_head=heads[-1] if heads else None)
        assert report.ok, describe(report)
        heads.append(report.head)
    stopped.set()
    assert all([await writer > 0 for writer in writers])
    assert (await verify(lived.worker, expect_head=heads[-1])).ok
    assert len(set(heads)) > 1
