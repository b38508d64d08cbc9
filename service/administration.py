"""What the owner of the database does and the service never: apply migrations, make a login, grant points."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit

import asyncpg

MIGRATIONS = Path(__file__).parent / "migrations"

_LOCK = 7_164_051_263  # any number; whoever migrates this ledger takes the same one
_LOGIN = "redemption_service"


class MigrationError(Exception):
    """The database's schema is not one that these migrations lead to."""


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
    def sha256(self) -> bytes:
        """Recorded with it, so that a step that was applied and then changed is found out."""
        return hashlib.sha256(self.sql.encode()).digest()


@cache
def migrations() -> tuple[Migration, ...]:
    """Every step, in order."""
    files = sorted(MIGRATIONS.glob("[0-9][0-9][0-9][0-9]_*.sql"))
    return tuple(Migration(int(file.name[:4]), file.name, file.read_text("utf-8")) for file in files)


async def migrate(url: str) -> tuple[str, ...]:
    """Bring a database to the newest schema; returns the names of the steps that were applied.

    Each step is one transaction, recorded in it. Forward only: a wrong step is corrected by a new one.

    Args:
        url: A login that may create roles and a schema.

    Raises:
        MigrationError: An applied step was changed since, or the database is newer than this program.
    """
    async with _connection(url) as connection:
        await connection.execute("SELECT pg_advisory_lock($1)", _LOCK)  # held until the connection ends
        await connection.execute((MIGRATIONS / "bootstrap.sql").read_text("utf-8"))
        rows = await connection.fetch("SELECT number, name, sha256 FROM ledger.migrations ORDER BY number")
        applied = {row["number"]: row for row in rows}
        _check(applied)
        fresh = [step for step in migrations() if step.number not in applied]
        for step in fresh:
            async with connection.transaction():
                await connection.execute(step.sql)
                await connection.execute(
                    "INSERT INTO ledger.migrations (number, name, sha256) VALUES ($1, $2, $3)",
                    step.number,
                    step.name,
                    step.sha256,
                )
        return tuple(step.name for step in fresh)


async def provision(url: str) -> str:
    """Migrate, make a login for the service with a fresh password, and return its URL."""
    await migrate(url)
    password = secrets.token_urlsafe(24)
    async with _connection(url) as connection:
        if not await connection.fetchval("SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1)", _LOGIN):
            await connection.execute(f"CREATE ROLE {_LOGIN} LOGIN IN ROLE redemption_app")
        # A password cannot be a parameter; this one is made of letters, digits, _ and - only.
        await connection.execute(f"ALTER ROLE {_LOGIN} PASSWORD '{password}'")
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"{_LOGIN}:{quote(password)}@{host}"))


async def accrue(url: str, account_id: str, points: int, *, reference: str | None = None) -> int:
    """Grant points, once for each reference, opening a new account; returns the account's balance.

    Args:
        url: A login that may act as redemption_owner, the one that migrated say.
        account_id: Whose points.
        points: How many, 1 to 2^53-1.
        reference: What the points are for; without it each call grants anew.
    """
    async with _connection(url) as connection:
        balance: int = await connection.fetchval(
            "SELECT ledger.accrue($1, $2, $3)", reference or secrets.token_hex(16), account_id, points
        )
        return balance


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
async def _connection(url: str) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(url, timeout=10)
    try:
        yield connection
    finally:
        await connection.close()
