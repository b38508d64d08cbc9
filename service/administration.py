"""What the owner of the database does and the service never: apply migrations, make a login, grant points."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit

import asyncpg

from service.database import tls

MIGRATIONS = Path(__file__).parent / "migrations"

_LOCK = 7_164_051_263  # any number; whoever migrates this ledger takes the same one
_POLL_SECONDS = 0.2
_ALONE_SECONDS_MAX = 1800.0  # longer than any migration should take
_CONNECT_SECONDS_MAX = 10.0
_END_SECONDS_MAX = 5.0  # an answer to a good-bye; without one the connection is dropped
# Long enough to slip in between the ledger's calls, and for a cleaning of Postgres's own to give way (deadlock_timeout,
# 1 s); short enough that nobody who waits behind it times out.
_LOCK_MILLISECONDS_MAX = 1200
_CONCURRENT_MILLISECONDS_MAX = 10_000  # nobody waits behind those
_LOCK_ATTEMPTS_MAX = 30
_OUTSIDE = "-- outside a transaction"


class MigrationError(Exception):
    """The database's schema is not one that these migrations lead to, or is not to be changed now."""


@dataclass(frozen=True, slots=True)
class Migration:
    """One step of the schema.

    Attributes:
        number: Its place in the order, from 1.
        name: Its file's name.
        sql: What it does.
    """

    number: int
    name: str
    sql: str

    @property
    def transactional(self) -> bool:
        """Whether it is one transaction, as it is unless its first line says otherwise."""
        return not self.sql.startswith(_OUTSIDE)

    @property
    def sha256(self) -> bytes:
        """Recorded with it, so that a step that was applied and then changed is found out."""
        return hashlib.sha256(self.sql.encode()).digest()


@cache
def migrations() -> tuple[Migration, ...]:
    """Every step, in order."""
    files = sorted(MIGRATIONS.glob("[0-9][0-9][0-9][0-9]_*.sql"))
    return tuple(Migration(int(file.name[:4]), file.name, file.read_text("utf-8")) for file in files)


async def migrate(url: str, *, ca_file: Path | None = None) -> tuple[str, ...]:
    """Bring a database to the newest schema, while the service goes on; returns the names of the applied steps.

    Each step is one transaction, recorded in it. A step whose first line says so runs outside a transaction, statement
    by statement, and can be run again when it was interrupted. Forward only: a wrong step is corrected by a new one.

    Args:
        url: A login that may create roles and a schema.
        ca_file: Whom to trust; with it the server must prove its name by TLS (verify-full).

    Raises:
        MigrationError: An applied step was changed since, the database is newer than this program, somebody else
            migrates it for too long, or the ledger is so busy that a step found no moment for itself.
    """
    async with _connection(url, ca_file) as connection:
        await _alone(connection)
        await connection.execute((MIGRATIONS / "bootstrap.sql").read_text("utf-8"))
        rows = await connection.fetch("SELECT number, name, sha256 FROM ledger.migrations ORDER BY number")
        applied = {row["number"]: row for row in rows}
        _check(applied)
        fresh = [step for step in migrations() if step.number not in applied]
        for step in fresh:
            await _patiently(connection, step)
        return tuple(step.name for step in fresh)


async def _alone(connection: Any) -> None:  # noqa: ANN401 - asyncpg has no types
    """Take the lock of migrations, which is held until the connection ends.

    Not by waiting in the database: an index that is built concurrently waits for everybody who waits there.
    """
    deadline = asyncio.get_running_loop().time() + _ALONE_SECONDS_MAX
    while not await connection.fetchval("SELECT pg_try_advisory_lock($1)", _LOCK):
        if asyncio.get_running_loop().time() >= deadline:
            raise MigrationError(
                f"another migration has gone on for more than {_ALONE_SECONDS_MAX:g} s; nothing was applied by this one"
            )
        await asyncio.sleep(_pause_seconds(1))


async def _patiently(connection: Any, step: Migration) -> None:  # noqa: ANN401 - as above
    """Apply a step. It asks for its locks for a moment only: behind a lock that waits, all the ledger's calls wait."""
    await connection.execute(f"SET lock_timeout = '{_LOCK_MILLISECONDS_MAX}ms'")
    for attempt in range(1, _LOCK_ATTEMPTS_MAX + 1):
        try:
            await _apply(connection, step)
        except (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError):
            await asyncio.sleep(_pause_seconds(attempt))
        else:
            return
    left = "nothing of it was applied" if step.transactional else "a part of it may be applied; it can be run again"
    raise MigrationError(f"migration {step.name} found no moment without a long transaction; {left}")


def _pause_seconds(attempt: int) -> float:
    """By chance, so as not to keep step with whatever holds the lock."""
    return _POLL_SECONDS * attempt * (1 + secrets.randbelow(100) / 100)


async def _apply(connection: Any, step: Migration) -> None:  # noqa: ANN401 - as above
    if step.transactional:
        async with connection.transaction():
            await connection.execute(step.sql)
            await _record(connection, step)
        return
    await connection.execute(f"SET lock_timeout = '{_CONCURRENT_MILLISECONDS_MAX}ms'")
    for statement in step.sql.split(";\n"):
        if statement.strip():
            await connection.execute(statement)
    await _record(connection, step)


async def _record(connection: Any, step: Migration) -> None:  # noqa: ANN401 - as above
    await connection.execute(
        "INSERT INTO ledger.migrations (number, name, sha256) VALUES ($1, $2, $3)", step.number, step.name, step.sha256
    )


async def provision(url: str, *, ca_file: Path | None = None) -> str:
    """Migrate, make a login for the service with a fresh password, and return its URL."""
    await migrate(url, ca_file=ca_file)
    return await _login(url, ca_file, "redemption_service", ("redemption_app",))


async def provision_worker(url: str, *, ca_file: Path | None = None) -> str:
    """The same for the worker, which also keeps the ledger in order and verifies it."""
    await migrate(url, ca_file=ca_file)
    return await _login(
        url, ca_file, "redemption_worker", ("redemption_app", "redemption_upkeep", "redemption_auditor")
    )


async def _login(url: str, ca_file: Path | None, name: str, roles: Sequence[str]) -> str:
    password = secrets.token_urlsafe(24)
    async with _connection(url, ca_file) as connection:
        if not await connection.fetchval("SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1)", name):
            await connection.execute(f"CREATE ROLE {name} LOGIN IN ROLE {', '.join(roles)}")
        # A password cannot be a parameter; this one is made of letters, digits, _ and - only.
        await connection.execute(f"ALTER ROLE {name} PASSWORD '{password}'")
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"{name}:{quote(password)}@{host}"))


async def accrue(
    url: str, account_id: str, points: int, *, reference: str | None = None, ca_file: Path | None = None
) -> int:
    """Grant points, once for each reference, opening a new account; returns the account's balance.

    Args:
        url: A login that may act as redemption_owner, the one that migrated say.
        account_id: Whose points.
        points: How many, 1 to 2^53-1.
        reference: What the points are for; without it each call grants anew.
        ca_file: As for `migrate`.
    """
    async with _connection(url, ca_file) as connection:
        balance: int = await connection.fetchval(
            "SELECT ledger.accrue($1, $2, $3)", reference or secrets.token_hex(16), account_id, points
        )
        return balance


async def accrue_many(url: str, points: Mapping[str, int]) -> None:
    """Grant each of these accounts so many points, once more with each call.

    Args:
        url: As that of `accrue`.
        points: By account.
    """
    references = [secrets.token_hex(16) for _ in points]
    ends = [None] * len(points)
    async with _connection(url, None) as connection:
        await connection.fetch(
            "SELECT ledger.accrue_batch($1, $2, $3, $4)", references, list(points), list(points.values()), ends
        )


def _check(applied: dict[int, Any]) -> None:
    known = {step.number: step for step in migrations()}
    for number, row in applied.items():
        step = known.get(number)
        if step is None:
            raise MigrationError(f"the database has migration {row['name']}, unknown to this program; run a newer one")
        if step.sha256 != row["sha256"]:
            raise MigrationError(
                f"migration {step.name} was changed after it was applied; undo that and write a new one"
            )


@asynccontextmanager
async def _connection(url: str, ca_file: Path | None) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(url, timeout=_CONNECT_SECONDS_MAX, ssl=tls(ca_file))
    try:
        yield connection
    finally:
        # After an interruption it first asks the server to end what is under way, and waits for that without a bound.
        with suppress(Exception):
            async with asyncio.timeout(_END_SECONDS_MAX):
                await connection.close()
