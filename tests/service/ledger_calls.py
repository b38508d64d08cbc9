"""The ledger's functions, called directly, for tests that need no service in between."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeAlias
from uuid import UUID

import asyncpg

from service import administration

Connection: TypeAlias = Any  # asyncpg has no types
Row: TypeAlias = Any

CLIENT = "client-a"
PRINT = b"f" * 32


def key() -> str:
    """An idempotency key that nobody has used."""
    return secrets.token_hex(16)


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One redemption of a batch, as `ledger.redeem_batch` takes it."""

    account: str
    points: int
    key: str = field(default_factory=key)
    hold_seconds: int | None = None
    client: str = CLIENT
    fingerprint: bytes = PRINT
    deadline: datetime | None = None


async def redeem_batch(connection: Connection, items: Sequence[Item], *, wait: bool = False) -> list[Row]:
    """The answers, in the order of the items."""
    rows = await connection.fetch(
        "SELECT * FROM ledger.redeem_batch($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        [one.client for one in items],
        [one.key for one in items],
        [one.fingerprint for one in items],
        [one.account for one in items],
        [one.points for one in items],
        [one.hold_seconds for one in items],
        [one.deadline for one in items],
        [one.deadline for one in items],
        wait,
    )
    assert sorted(row["place"] for row in rows) == list(range(1, len(items) + 1))
    return sorted(rows, key=lambda row: row["place"])


async def redeem(connection: Connection, account: str, points: int, **other: Any) -> Row:  # noqa: ANN401 - see Item
    """One redemption, that waits for its account."""
    return (await redeem_batch(connection, [Item(account=account, points=points, **other)], wait=True))[0]


async def reserve(connection: Connection, account: str, points: int) -> UUID:
    """Points held for an hour; the redemption's id."""
    made: UUID = (await redeem(connection, account, points, hold_seconds=3600))["redemption_id"]
    return made


async def resolve(  # noqa: PLR0913 - as the function in the database
    connection: Connection,
    redemption_id: UUID,
    kind: str,
    points: int | None = None,
    *,
    key: str | None = None,
    client: str = CLIENT,
    fingerprint: bytes = PRINT,
) -> Row:
    """Capture, void or refund."""
    return await connection.fetchrow(
        "SELECT * FROM ledger.resolve($1, $2, $3, $4, $5, $6)",
        *(client, key or secrets.token_hex(16), fingerprint, redemption_id, kind, points),
    )


async def accrue(
    connection: Connection,
    account: str,
    points: int,
    expires_at: datetime | None = None,
    *,
    reference: str | None = None,
) -> Row:
    """Grant points."""
    return await connection.fetchrow(
        "SELECT * FROM ledger.accrue_batch($1, $2, $3, $4)",
        *([reference or secrets.token_hex(16)], [account], [points], [expires_at]),
    )


async def remember_0001(connection: Connection) -> None:
    """Make what 0001 did callable again, for this connection: `pg_temp.redeem` and `pg_temp.accrue`.

    A call that began before the migration and waited for it ends in these bodies.
    """
    sql = administration.migrations()[0].sql
    for name in ("redeem", "accrue"):
        body = sql[sql.index(f"CREATE FUNCTION ledger.{name}(") :]
        body = body[: body.index("$$;") + 3]
        await connection.execute(body.replace(f"ledger.{name}(", f"pg_temp.{name}(", 1))


async def begin_with_0001(url: str) -> None:
    """Bring an empty database to the first migration, and no further."""
    connection = await asyncpg.connect(url)
    try:
        await connection.execute((administration.MIGRATIONS / "bootstrap.sql").read_text("utf-8"))
        async with connection.transaction():
            await administration._apply(connection, administration.migrations()[0])
    finally:
        await connection.close()
