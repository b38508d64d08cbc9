"""Connections to the ledger database, and calls on them that are never cancelled.

A write that has begun is never cancelled. A cancelled commit may be durable on one server only, and whoever then told
the caller "done" would have lied after a failover (see `ledger.promise` in the migrations). So a call runs in a task of
its own; a caller who has waited long enough goes, the call goes on, and a retry with the same key finds what it did.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, TypeVar
from urllib.parse import urlsplit

import asyncpg
from opentelemetry.semconv.attributes import db_attributes, error_attributes, server_attributes
from opentelemetry.trace import Span, SpanContext, Status, StatusCode, Tracer, get_current_span

from service import tracing
from service.admission import GateFullError, Priority, PriorityGate

Answer = TypeVar("Answer")

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

_CONNECT_SECONDS_MAX: Final = 2.0
_IDLE_SECONDS_MAX: Final = 60  # soon after a failover nobody holds on to the old server
_DROPPED_SECONDS_MAX: Final = 1  # a call whose connection is gone ends at once
_WAITING_MAX: Final = 10_000  # for a connection; the admission lets fewer in


class LedgerTimeoutError(Exception):
    """No answer within the deadline.

    Attributes:
        begun: Whether the call had begun: then it goes on, with an unknown end.
    """

    def __init__(self, *, begun: bool) -> None:
        super().__init__("begun" if begun else "not begun")
        self.begun = begun


class LedgerUnavailableError(Exception):
    """The database cannot serve now; whether a write happened is unknown until it is retried."""


class LedgerBusyError(LedgerUnavailableError):
    """It could serve, but too many wait for it already; nothing was begun."""


class _Connection(asyncpg.Connection):  # type: ignore[misc] # asyncpg ships no types
    """Without asyncpg's reset at each release, a round trip of its own: so these keep no session state."""

    def get_reset_query(self) -> str:
        return ""


@dataclass(frozen=True, slots=True)
class Call:
    """A statement, and what a span says of it.

    Attributes:
        query: SQL.
        target: The function or view that it asks, `ledger.account` say.
        priority: Whose turn it is when connections are short.
    """

    query: str
    target: str
    priority: Priority


class Database:
    """A pool of connections.

    Args:
        url: `postgresql://...`, a login of the role redemption_app.
        tracer: Makes the span of each call.
        pool_max: Connections at most.
        abandon_seconds: After this time a silent connection is dropped.
        ca_file: Whom to trust; with it the server must prove its name by TLS (verify-full).
    """

    def __init__(
        self, url: str, tracer: Tracer, *, pool_max: int, abandon_seconds: float, ca_file: Path | None = None
    ) -> None:
        self._url = url
        self._tracer = tracer
        self._span_attributes = _span_attributes(url)
        self._pool_max = pool_max
        self._abandon_seconds = abandon_seconds
        self._ca_file = ca_file
        self._pool: asyncpg.Pool | None = None
        self._gate = PriorityGate(pool_max, waiting_max=_WAITING_MAX)
        self._calls: set[asyncio.Task[Any]] = set()

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """Between these two points questions can be asked.

        Connects when first asked, so that a service starts while its database is away. At the end connections are
        dropped, and nothing is cancelled: `finish` waits for calls in flight.

        Raises:
            OSError: The file of `ca_file` cannot be read, or holds no certificate.
        """
        self._pool = asyncpg.create_pool(
            self._url,
            min_size=0,
            max_size=self._pool_max,
            max_inactive_connection_lifetime=_IDLE_SECONDS_MAX,
            connection_class=_Connection,
            timeout=_CONNECT_SECONDS_MAX,
            # Compiled queries pay off in reports, not in calls of a millisecond.
            server_settings={"application_name": "redemption-service", "jit": "off"},
            ssl=tls(self._ca_file),
        )
        await self._pool
        try:
            yield
        finally:
            self._pool.terminate()
            if self._calls:
                await asyncio.wait(self._calls, timeout=_DROPPED_SECONDS_MAX)

    async def finish(self, seconds: float) -> None:
        """Wait for calls in flight, at most this long."""
        if self._calls:
            await asyncio.wait(self._calls, timeout=seconds)

    def connections(self, state: Literal["idle", "busy"]) -> int:
        """How many connections do this now."""
        if self._pool is None:
            return 0
        idle: int = self._pool.get_idle_size()
        return idle if state == "idle" else self._pool.get_size() - idle

    async def ask(self, call: Call, arguments: Sequence[Any], *, deadline: float) -> list[Any]:
        """The rows of a call, if they come before the deadline.

        Args:
            call: What to ask.
            arguments: Of the statement.
            deadline: When to stop waiting, in the event loop's time.

        Raises:
            LedgerTimeoutError: They do not.
            LedgerUnavailableError: The database cannot serve now.
        """
        return await self.in_time(self.run(call, arguments, deadline=deadline), deadline)

    async def run(
        self,
        call: Call,
        arguments: Sequence[Any],
        *,
        deadline: float,
        size: int = 1,
        links: Sequence[SpanContext] | None = None,
    ) -> list[Any]:
        """The rows of a call, however long they take once it has begun. Only for tasks that nobody cancels.

        Args:
            call: What to ask.
            arguments: Of the statement.
            deadline: When to stop waiting for a connection.
            size: How many requests it is for.
            links: Their spans, as far as they are recorded; the current one if not given.

        Raises:
            LedgerTimeoutError: There was no connection in time; nothing was begun.
            LedgerUnavailableError: The database cannot serve now.
        """
        attributes = self._attributes(call)
        if size > 1:  # the convention: of one there is no batch
            attributes[db_attributes.DB_OPERATION_BATCH_SIZE] = size
        spans = [get_current_span().get_span_context()] if links is None else links
        with tracing.batch_span(self._tracer, f"SELECT {call.target}", attributes, spans, alone=size == 1) as span:
            try:
                async with self._gate.entered(call.priority, deadline), self._connection(deadline) as connection:
                    rows: list[Any] = await connection.fetch(call.query, *arguments)
                    return rows
            except Exception as error:
                _record(span, error)
                if isinstance(error, TimeoutError | GateFullError):
                    raise LedgerTimeoutError(begun=False) from error
                if is_unavailable(error):
                    raise LedgerUnavailableError from error
                raise

    async def in_time(self, call: Coroutine[Any, Any, Answer], deadline: float | None) -> Answer:
        """What a call gives, in a task of its own: it goes on when nobody waits any more.

        Raises:
            LedgerTimeoutError: There was no answer by the deadline.
        """
        task = self._begin(call)
        # Not wait_for: it would cancel the task, and asyncpg the query with it.
        done, _ = await asyncio.wait({task}, timeout=None if deadline is None else max(0.0, deadline - _now()))
        if not done:
            raise LedgerTimeoutError(begun=True)
        return task.result()

    def _begin(self, call: Coroutine[Any, Any, Answer]) -> asyncio.Task[Answer]:
        task = asyncio.create_task(call)
        self._calls.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._calls.discard(task)
        if not task.cancelled():
            task.exception()  # fetched, or asyncio complains when nobody waits any more; the span has it

    @asynccontextmanager
    async def _connection(self, deadline: float) -> AsyncIterator[Any]:
        """A connection, if there is one before the deadline: a call that nobody waits for is not begun."""
        if self._pool is None:
            raise LedgerUnavailableError("the ledger is not opened")
        # With a time-out it takes a task, and so some turns of the loop, also for a connection that is there.
        timeout = None if self._pool.get_idle_size() else max(0.0, deadline - _now())
        connection = await self._pool.acquire(timeout=timeout)
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
            self._begin(self._pool.release(connection))  # takes some turns as well; nobody need wait for them

    def _attributes(self, call: Call) -> dict[str, str | int]:
        return self._span_attributes | {
            db_attributes.DB_OPERATION_NAME: "SELECT",
            db_attributes.DB_STORED_PROCEDURE_NAME: call.target,
            db_attributes.DB_QUERY_SUMMARY: f"SELECT {call.target}",
        }


def tls(ca_file: Path | None) -> ssl.SSLContext | None:
    """How a database must prove its name (verify-full); None without a file: as its URL says.

    Args:
        ca_file: Whom to trust.

    Raises:
        OSError: The file cannot be read, or holds no certificate.
    """
    return None if ca_file is None else ssl.create_default_context(cafile=ca_file)


def is_unavailable(error: Exception) -> bool:
    """Whether an error passes without a change of the program."""
    if isinstance(error, asyncpg.PostgresError):
        state: str = error.sqlstate or ""
        return state[:2] in _UNAVAILABLE_CLASSES or state in _UNAVAILABLE_STATES
    # InternalClientError: a connection that breaks in the middle of a call, or no host that can be written to.
    broken = (LedgerUnavailableError, OSError, asyncpg.InterfaceError, asyncpg.InternalClientError)
    return isinstance(error, broken)


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
    # Of several hosts the first: which of them is the primary is not known before a call.
    first = urlsplit(f"//{parts.netloc.rpartition('@')[2].partition(',')[0]}")
    if first.hostname:
        attributes[server_attributes.SERVER_ADDRESS] = first.hostname
        if first.port is not None:  # the convention: without one it is the usual
            attributes[server_attributes.SERVER_PORT] = first.port
    return attributes


def _now() -> float:
    return asyncio.get_running_loop().time()
