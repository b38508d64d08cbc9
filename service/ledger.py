"""The ledger: the domain's questions, asked of Postgres. One question is one statement is one transaction.

A write that has begun is never cancelled. A cancelled commit may be durable on one server only, and whoever
then told the caller "done" would have lied after a failover (see `ledger.redeem` in the migrations). So each
call runs in a task of its own; a caller who has waited long enough goes, the call goes on, and a retry with
the same key finds what it did.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, asynccontextmanager
from typing import Any, Final, Literal
from urllib.parse import urlsplit
from uuid import UUID

import asyncpg
from opentelemetry.semconv.attributes import db_attributes, error_attributes, server_attributes
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer

from service.domain import (
    Balance,
    Decision,
    KeyReusedError,
    Redemption,
    RedemptionRequest,
    Rejection,
    fingerprint,
)

_REDEEM = "SELECT * FROM ledger.redeem($1, $2, $3, $4, $5)"
_FIND_REDEMPTION = "SELECT * FROM ledger.find_redemption($1)"
_BALANCE = "SELECT account_id, balance, version FROM ledger.balances WHERE account_id = $1"
_SCHEMA_VERSION = "SELECT version FROM ledger.schema_version"

# Classes of SQLSTATE (https://www.postgresql.org/docs/current/errcodes-appendix.html) of a server that cannot
# serve now; the same question may work later. Everything else is a fault of ours.
_UNAVAILABLE_CLASSES: Final = (
    "08",  # connection
    "28",  # authorization: a password that is being rotated
    "40",  # transaction rollback: deadlock
    "53",  # insufficient resources: connections, disk
    "57",  # operator intervention: shutdown, start-up
    "58",  # system error
)
_UNAVAILABLE_STATES: Final = ("25006", "3D000")  # read-only after a failover; no such database yet


_IDLE_SECONDS_MAX = 60  # soon after a failover nobody holds on to the old server
_DROPPED_SECONDS_MAX = 1  # a call whose connection is gone ends at once


class LedgerTimeoutError(Exception):
    """No answer within the deadline; a write that had begun goes on."""


class LedgerUnavailableError(Exception):
    """The database cannot serve now; whether a write happened is unknown until it is retried."""


class _Connection(asyncpg.Connection):  # type: ignore[misc] # asyncpg ships no types
    """Without asyncpg's reset at each release, a round trip of its own: so these keep no session state."""

    def get_reset_query(self) -> str:
        return ""


class Ledger:
    """The ledger database, through a pool of connections.

    Args:
        url: `postgresql://...`, a login of the role redemption_app.
        tracer: Makes the span of each call.
        pool_max: Connections at most.
        abandon_seconds: After this time a silent connection is dropped.
        on_deducted: Told the points of each new redemption, once.
    """

    def __init__(
        self,
        url: str,
        tracer: Tracer,
        *,
        pool_max: int,
        abandon_seconds: float,
        on_deducted: Callable[[int], None],
    ) -> None:
        self._url = url
        self._tracer = tracer
        self._span_attributes = _span_attributes(url)
        self._pool_max = pool_max
        self._abandon_seconds = abandon_seconds
        self._on_deducted = on_deducted
        self._pool: asyncpg.Pool | None = None
        self._calls: set[asyncio.Task[Any]] = set()

    @asynccontextmanager
    async def opened(self, *, close_seconds: float) -> AsyncIterator[None]:
        """Between these two points questions can be asked.

        Connects when first asked, so that a service starts while its database is away. At the end calls in
        flight get this long; then their connections are dropped, and nothing is cancelled.
        """
        self._pool = asyncpg.create_pool(
            self._url,
            min_size=0,
            max_size=self._pool_max,
            max_inactive_connection_lifetime=_IDLE_SECONDS_MAX,
            connection_class=_Connection,
            server_settings={"application_name": "redemption-service"},
        )
        await self._pool
        try:
            yield
            if self._calls:
                await asyncio.wait(self._calls, timeout=close_seconds)
        finally:
            self._pool.terminate()
            if self._calls:
                await asyncio.wait(self._calls, timeout=_DROPPED_SECONDS_MAX)

    async def redeem(self, client_id: str, key: str, request: RedemptionRequest, *, deadline: float) -> Decision:
        """Spend points exactly once for this client's key.

        Args:
            client_id: Whose key it is.
            key: The idempotency key.
            request: What is asked for.
            deadline: When to stop waiting, in the event loop's time.

        Raises:
            KeyReusedError: The key belongs to another request.
            LedgerTimeoutError: The deadline is over; the write may still happen.
            LedgerUnavailableError: The database cannot serve; the write may have happened.
        """
        arguments = (client_id, key, fingerprint(request), request.account_id, request.points)
        decision: Decision = await self._in_time(self._redeem(arguments, deadline), deadline)
        return decision

    async def find_redemption(self, redemption_id: UUID, *, deadline: float) -> Redemption | None:
        """One redemption, or None; raises as `redeem` does."""
        rows = await self._in_time(
            self._call(_FIND_REDEMPTION, (redemption_id,), deadline, procedure="ledger.find_redemption"),
            deadline,
        )
        return _redemption(rows[0]) if rows else None

    async def balance(self, account_id: str, *, deadline: float) -> Balance | None:
        """An account's points, or None when there is no such account; raises as `redeem` does."""
        rows = await self._in_time(
            self._call(_BALANCE, (account_id,), deadline, collection="ledger.balances"), deadline
        )
        return Balance(**dict(rows[0])) if rows else None

    async def schema_version(self, *, deadline: float) -> int:
        """The number of the newest migration that the database has; raises as `redeem` does."""
        rows = await self._in_time(
            self._call(_SCHEMA_VERSION, (), deadline, collection="ledger.schema_version"), deadline
        )
        version: int = rows[0]["version"]
        return version

    def connections(self, state: Literal["idle", "busy"]) -> int:
        """How many connections do this now."""
        if self._pool is None:
            return 0
        idle: int = self._pool.get_idle_size()
        return idle if state == "idle" else self._pool.get_size() - idle

    async def _redeem(self, arguments: tuple[Any, ...], deadline: float) -> Decision:
        row = (await self._call(_REDEEM, arguments, deadline, procedure="ledger.redeem"))[0]
        if row["result"] == "key-reused":
            raise KeyReusedError
        decision = Decision(_redemption(row), replayed=row["result"] == "replayed")
        if not decision.replayed and decision.redemption.status == "redeemed":
            self._on_deducted(decision.redemption.points)  # here: also when nobody waits for the answer any more
        return decision

    async def _in_time(self, call: Any, deadline: float) -> Any:  # noqa: ANN401 - returns what the call returns
        task = asyncio.create_task(call)
        self._calls.add(task)
        task.add_done_callback(self._ended)
        # Not wait_for: it would cancel the task, and asyncpg the query with it.
        done, _ = await asyncio.wait({task}, timeout=max(0.0, deadline - _now()))
        if not done:
            raise LedgerTimeoutError
        return task.result()

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._calls.discard(task)
        if not task.cancelled():
            task.exception()  # fetched, or asyncio complains when nobody waits any more; the span has it

    async def _call(
        self,
        query: str,
        arguments: tuple[Any, ...],
        deadline: float,
        *,
        procedure: str | None = None,
        collection: str | None = None,
    ) -> list[Any]:
        with self._span(procedure, collection) as span:
            try:
                async with self._connection(deadline) as connection:
                    rows: list[Any] = await connection.fetch(query, *arguments)
                    return rows
            except Exception as error:
                _record(span, error)
                if isinstance(error, TimeoutError):
                    raise LedgerTimeoutError from error
                if _is_unavailable(error):
                    raise LedgerUnavailableError from error
                raise

    @asynccontextmanager
    async def _connection(self, deadline: float) -> AsyncIterator[Any]:
        """A connection, if there is one before the deadline: a call that nobody waits for is not begun."""
        if self._pool is None:
            raise LedgerUnavailableError("the ledger is not opened")
        connection = await self._pool.acquire(timeout=max(0.0, deadline - _now()))
        try:
            if _now() >= deadline:
                raise TimeoutError
            # A silent server would keep the connection for ever. To drop the socket cancels nothing.
            giving_up = asyncio.get_running_loop().call_later(self._abandon_seconds, connection.terminate)
            try:
                yield connection
            finally:
                giving_up.cancel()
        finally:
            await self._pool.release(connection)

    def _span(self, procedure: str | None, collection: str | None) -> AbstractContextManager[Span]:
        attributes = self._span_attributes | {db_attributes.DB_OPERATION_NAME: "SELECT"}
        if procedure:
            attributes[db_attributes.DB_STORED_PROCEDURE_NAME] = procedure
        if collection:
            attributes[db_attributes.DB_COLLECTION_NAME] = collection
        summary = f"SELECT {procedure or collection}"
        return self._tracer.start_as_current_span(
            summary,
            kind=SpanKind.CLIENT,
            attributes=attributes | {db_attributes.DB_QUERY_SUMMARY: summary},
            record_exception=False,  # its message may hold data
            set_status_on_exception=False,
        )


def _redemption(row: Any) -> Redemption:  # noqa: ANN401 - asyncpg ships no types
    rejection: Rejection | None = row["rejection"]
    return Redemption(
        redemption_id=UUID(int=row["redemption_id"].int),  # the standard library's type, not asyncpg's
        account_id=row["account_id"],
        points=row["points"],
        status="rejected" if rejection else "redeemed",
        rejection=rejection,
        balance=row["balance"],
        created_at=row["created_at"],
    )


def _is_unavailable(error: Exception) -> bool:
    if isinstance(error, asyncpg.PostgresError):
        state: str = error.sqlstate or ""
        return state[:2] in _UNAVAILABLE_CLASSES or state in _UNAVAILABLE_STATES
    return isinstance(error, LedgerUnavailableError | OSError | asyncpg.InterfaceError)


def _record(span: Span, error: Exception) -> None:
    state = getattr(error, "sqlstate", None)
    if state:
        span.set_attribute(db_attributes.DB_RESPONSE_STATUS_CODE, state)
    span.set_attribute(error_attributes.ERROR_TYPE, state or type(error).__qualname__)
    span.set_status(Status(StatusCode.ERROR))


def _span_attributes(url: str) -> dict[str, str | int]:
    parts = urlsplit(url)
    attributes: dict[str, str | int] = {
        db_attributes.DB_SYSTEM_NAME: db_attributes.DbSystemNameValues.POSTGRESQL.value,
        db_attributes.DB_NAMESPACE: f"{parts.path.strip('/') or parts.username or 'postgres'}|ledger",
    }
    if parts.hostname:
        attributes[server_attributes.SERVER_ADDRESS] = parts.hostname
        attributes[server_attributes.SERVER_PORT] = parts.port or 5432
    return attributes


def _now() -> float:
    return asyncio.get_running_loop().time()
