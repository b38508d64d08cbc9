"""The ledger: the domain's questions, asked of Postgres. One question is one statement is one transaction.

Redemptions that wait at the same time are decided by one call (`service.batching`); the rest is asked one by one.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import asyncpg
import orjson
from opentelemetry.trace import SpanContext

from service.admission import GateFullError, Priority, PriorityGate
from service.batching import (
    BUSY,
    BatcherClosedError,
    BatcherFullError,
    Bounds,
    Busy,
    Calls,
    DeadlineQueuedError,
    DeadlineRunningError,
    MicroBatcher,
)
from service.database import Call, Database, LedgerBusyError, LedgerTimeoutError, LedgerUnavailableError
from service.domain import (
    Accrual,
    Balance,
    Decision,
    Entry,
    Expiry,
    Granted,
    InFlightError,
    KeyReusedError,
    Redemption,
    RedemptionRequest,
    Resolution,
    Resolved,
    Status,
)

_REDEEM: Final = Call(
    "SELECT * FROM ledger.redeem_batch($1, $2, $3, $4, $5, $6, $7, $8, $9)", "ledger.redeem_batch", Priority.REDEEM
)
_RESOLVE: Final = Call("SELECT * FROM ledger.resolve($1, $2, $3, $4, $5, $6)", "ledger.resolve", Priority.CRITICAL)
_ACCRUE: Final = Call("SELECT * FROM ledger.accrue_batch($1, $2, $3, $4, $5)", "ledger.accrue_batch", Priority.BULK)
_REDEMPTION: Final = Call("SELECT * FROM ledger.redemption_of($1, $2)", "ledger.redemption_of", Priority.READ)
_OF_KEY: Final = Call("SELECT * FROM ledger.redemption_of_key($1, $2)", "ledger.redemption_of_key", Priority.READ)
_PAGE: Final = Call("SELECT * FROM ledger.redemptions_page($1, $2, $3)", "ledger.redemptions_page", Priority.READ)
_ACCOUNT: Final = Call("SELECT * FROM ledger.account($1, $2)", "ledger.account", Priority.READ)
_ENTRIES: Final = Call("SELECT * FROM ledger.entries_page($1, $2, $3)", "ledger.entries_page", Priority.READ)
_SCHEMA_VERSION: Final = Call("SELECT version FROM ledger.schema_version", "ledger.schema_version", Priority.READ)

_EXPIRIES_MAX: Final = 5


@dataclass(frozen=True, slots=True)
class Wanted:
    """A redemption that somebody wants.

    Attributes:
        client_id: Whose key it is.
        key: The idempotency key.
        request: What is asked for.
        fingerprint: Of the request.
        deadline: When nobody waits any more, in the event loop's time.
        accepted_at, valid_until: Of a deferred one: when the queue took it, and the time after which nothing may be
            deducted any more.
        span: Of the request, if it is recorded.
    """

    client_id: str
    key: str
    request: RedemptionRequest
    fingerprint: bytes
    deadline: float
    accepted_at: datetime | None = None
    valid_until: datetime | None = None
    span: SpanContext | None = None


@dataclass(frozen=True, slots=True)
class Told:
    """Who hears what happened, also when nobody waits for the answer any more.

    Attributes:
        redeemed: Points that left an account, once for each redemption or capture.
        refunded: Points that came back, once for each refund.
        batched: Size of a batch, seconds that its oldest waited, seconds that the call took.
    """

    redeemed: Callable[[int], None] = field(default=lambda _points: None)
    refunded: Callable[[int], None] = field(default=lambda _points: None)
    batched: Callable[[int, float, float], None] = field(default=lambda _size, _waited, _took: None)


class Ledger:
    """The ledger.

    Args:
        database: Where it is; opened and closed with it.
        told: Hears what happened.
        batch_max: Redemptions in one call.
        batches_in_flight_max: Such calls at once.
        queue_max: Redemptions that may wait.
        waiting_max: Calls at once that may wait for somebody else's lock, each with a connection: so many redemptions
            alone, and so many captures, voids and refunds.
    """

    def __init__(  # noqa: PLR0913 - each is one bound
        self,
        database: Database,
        told: Told,
        *,
        batch_max: int,
        batches_in_flight_max: int,
        queue_max: int,
        waiting_max: int,
    ) -> None:
        self.database = database
        self._told = told
        self._in_flight: set[tuple[str, str]] = set()  # keys that somebody waits for, or that run
        self._running: set[tuple[str, str]] = set()  # keys of calls that have begun
        self._resolving = PriorityGate(waiting_max, waiting_max=queue_max)
        self._batcher: MicroBatcher[Wanted, Decision] = MicroBatcher(
            Calls(
                run=self._decide,
                run_alone=self._decide_alone,
                lane=lambda wanted: wanted.request.account_id,
                is_fault_of_item=_is_fault_of_item,
                on_batch=told.batched,
            ),
            Bounds(
                batch_max=batch_max,
                batches_in_flight_max=batches_in_flight_max,
                alone_in_flight_max=waiting_max,
                queue_max=queue_max,
            ),
        )

    @asynccontextmanager
    async def opened(self, *, close_seconds: float) -> AsyncIterator[None]:
        """Between these two points questions can be asked; at the end calls in flight get this long."""
        loop = asyncio.get_running_loop()
        async with self.database.opened():
            yield
            end = loop.time() + close_seconds
            await self._batcher.close(close_seconds)
            await self.database.finish(max(0.0, end - loop.time()))

    @property
    def wait_seconds(self) -> float:
        """How long redemptions wait for their batch to begin."""
        return self._batcher.wait_seconds

    async def redeem(self, wanted: Wanted) -> Decision:
        """Spend or reserve points exactly once for this client's key.

        Raises:
            KeyReusedError: The key belongs to another request.
            InFlightError: A request with this key is being worked on.
            LedgerTimeoutError: No answer by the deadline; a retry with the same key tells what was decided.
            LedgerUnavailableError: The database cannot serve now; as above.
        """
        name = (wanted.client_id, wanted.key)
        if name in self._in_flight:
            raise InFlightError
        self._in_flight.add(name)
        try:
            return await self._batcher.submit(wanted, wanted.deadline)
        except DeadlineQueuedError as error:
            raise LedgerTimeoutError(begun=False) from error
        except DeadlineRunningError as error:
            raise LedgerTimeoutError(begun=True) from error
        except (BatcherFullError, BatcherClosedError) as error:
            raise LedgerBusyError from error
        finally:
            if name not in self._running:  # else it goes on, and its end says so
                self._in_flight.discard(name)

    async def resolve(
        self, client_id: str, key: str, resolution: Resolution, *, deadline: float
    ) -> tuple[Resolved, bool] | None:
        """Capture, void or refund exactly once for this client's key; raises as `redeem` does.

        Returns:
            What is on record, and whether an earlier request put it there; None when there is no such redemption.
        """
        name = (client_id, key)
        if name in self._in_flight:
            raise InFlightError
        self._in_flight.add(name)
        arguments = (
            client_id,
            key,
            resolution.fingerprint(),
            resolution.redemption_id,
            resolution.kind,
            resolution.points,
        )
        return await self.database.in_time(self._resolve(name, arguments, deadline), deadline)

    async def accrue(self, client_id: str, accruals: Sequence[Accrual], *, deadline: float) -> list[Granted]:
        """Grant points, each accrual once for the client's reference; raises as `redeem` does, but for its key.

        Accounts that somebody else has locked are waited for afterwards, one by one, with no other lock in hand.
        """
        granted = await self._accrue(client_id, accruals, deadline, wait=False)
        for place, one in enumerate(accruals):
            if granted[place] is None:
                [granted[place]] = await self._accrue(client_id, [one], deadline, wait=True)
        return [one for one in granted if one is not None]

    async def _accrue(
        self, client_id: str, accruals: Sequence[Accrual], deadline: float, *, wait: bool
    ) -> list[Granted | None]:
        arguments = (
            [f"{client_id}:{one.reference}" for one in accruals],
            [one.account_id for one in accruals],
            [one.points for one in accruals],
            [one.expires_at for one in accruals],
            wait,
        )
        rows = await self.database.ask(_ACCRUE, arguments, deadline=deadline)
        return [
            None
            if row["result"] == "busy"
            else Granted(
                reference=accruals[row["place"] - 1].reference,
                result=row["result"],
                accrual_id=_id(row["accrual_id"]),
                balance=row["balance"],
            )
            for row in sorted(rows, key=lambda row: row["place"])
        ]

    async def redemption(self, client_id: str, redemption_id: UUID, *, deadline: float) -> Redemption | None:
        """One redemption of a client as it stands; raises LedgerTimeoutError and LedgerUnavailableError."""
        rows = await self.database.ask(_REDEMPTION, (client_id, redemption_id), deadline=deadline)
        return _standing(rows[0]) if rows else None

    async def redemption_of_key(self, client_id: str, key: str, *, deadline: float) -> tuple[Redemption, bytes] | None:
        """The same by its idempotency key, with the fingerprint of the request that it was decided for."""
        rows = await self.database.ask(_OF_KEY, (client_id, key), deadline=deadline)
        return (_standing(rows[0]), rows[0]["fingerprint"]) if rows else None

    async def redemptions(
        self, client_id: str, before: UUID | None, count_max: int, *, deadline: float
    ) -> list[Redemption]:
        """A client's redemptions, the newest first, from before one; raises as `redemption` does."""
        rows = await self.database.ask(_PAGE, (client_id, before, count_max), deadline=deadline)
        return [_standing(row) for row in rows]

    async def balance(self, account_id: str, *, deadline: float) -> Balance | None:
        """An account's points, or None when there is no such account; raises as `redemption` does."""
        rows = await self.database.ask(_ACCOUNT, (account_id, _EXPIRIES_MAX), deadline=deadline)
        if not rows:
            return None
        fields = dict(rows[0])
        expiries = orjson.loads(fields.pop("expiries"))
        return Balance(
            **fields,
            next_expiries=tuple(
                Expiry(expires_at=datetime.fromisoformat(one["expires_at"]), points=one["points"]) for one in expiries
            ),
        )

    async def entries(self, account_id: str, before: int | None, count_max: int, *, deadline: float) -> list[Entry]:
        """An account's entries, the newest first, from before a version; raises as `redemption` does."""
        rows = await self.database.ask(_ENTRIES, (account_id, before, count_max), deadline=deadline)
        return [Entry(**{**row, "transaction_id": _known_id(row["transaction_id"])}) for row in rows]

    async def schema_version(self, *, deadline: float) -> int:
        """The number of the newest migration that the database has; raises as `redemption` does."""
        version: int = (await self.database.ask(_SCHEMA_VERSION, (), deadline=deadline))[0]["version"]
        return version

    # --- redemptions, many in a call ----------------------------------------------------------------------------------

    async def _decide(self, batch: Sequence[Wanted]) -> Sequence[Decision | Exception | Busy]:
        return await self._call(batch, wait=False)

    async def _decide_alone(self, wanted: Wanted) -> Decision | Exception:
        [decision] = await self._call([wanted], wait=True)
        # It waits for the account's lock, so only a twin that was just rolled back elsewhere leaves it undecided.
        return LedgerBusyError() if isinstance(decision, Busy) else decision

    async def _call(self, batch: Sequence[Wanted], *, wait: bool) -> list[Decision | Exception | Busy]:
        arguments = (
            [one.client_id for one in batch],
            [one.key for one in batch],
            [one.fingerprint for one in batch],
            [one.request.account_id for one in batch],
            [one.request.points for one in batch],
            [one.request.hold_seconds for one in batch],
            [one.accepted_at for one in batch],
            [one.valid_until for one in batch],
            wait,
        )
        names = {(one.client_id, one.key) for one in batch}
        self._running |= names
        try:
            rows = await self._decided(arguments, batch)
        except LedgerUnavailableError as error:
            # Somebody took one of the keys at the very moment: it is visible now, and the others need not go alone.
            if len(batch) == 1 or not _is_rolled_back(error):
                raise
            rows = await self._decided(arguments, batch)
        finally:
            self._running -= names
            self._in_flight -= names
        decisions: list[Decision | Exception | Busy] = [BUSY] * len(batch)
        for row in rows:
            decisions[row["place"] - 1] = self._decision(row)
        return decisions

    async def _decided(self, arguments: tuple[Any, ...], batch: Sequence[Wanted]) -> list[Any]:
        return await self.database.run(
            _REDEEM,
            arguments,
            deadline=max(one.deadline for one in batch),
            size=len(batch),
            links=[one.span for one in batch if one.span],
        )

    def _decision(self, row: Any) -> Decision | Exception | Busy:  # noqa: ANN401 - asyncpg ships no types
        result = row["result"]
        if result == "busy":
            return BUSY
        if result == "key-reused":
            return KeyReusedError()
        redemption = _decided(row)
        if result == "decided" and redemption.status == "redeemed":
            self._told.redeemed(redemption.points)  # here: also when nobody waits for the answer any more
        return Decision(redemption, replayed=result == "replayed")

    # --- the rest, one by one -----------------------------------------------------------------------------------------

    async def _resolve(
        self, name: tuple[str, str], arguments: tuple[Any, ...], deadline: float
    ) -> tuple[Resolved, bool] | None:
        try:
            async with self._resolving.entered(Priority.CRITICAL, deadline):
                row = (await self.database.run(_RESOLVE, arguments, deadline=deadline))[0]
        except (TimeoutError, GateFullError) as error:
            raise LedgerTimeoutError(begun=False) from error
        except asyncpg.UniqueViolationError as error:
            raise InFlightError from error  # somebody else took the key at this very moment
        finally:
            self._in_flight.discard(name)
        if row["result"] == "not-found":
            return None
        if row["result"] == "key-reused":
            raise KeyReusedError
        resolved = Resolved(
            resolution_id=_known_id(row["redemption_id"]),
            redemption_id=_known_id(row["origin_id"]),
            kind=row["kind"],
            points=row["points"],
            rejection=row["rejection"],
            balance=row["balance"],
            available=row["available"],
            created_at=row["created_at"],
        )
        if row["result"] == "decided" and resolved.rejection is None:
            if resolved.kind == "capture":
                self._told.redeemed(resolved.points)
            elif resolved.kind == "refund":
                self._told.refunded(resolved.points)
        return resolved, row["result"] == "replayed"


def _is_fault_of_item(error: Exception) -> bool:
    """Whether each of a batch may go through alone: the database has undone all of it, and can serve."""
    if isinstance(error, LedgerUnavailableError):
        return _is_rolled_back(error)
    # What the program or the schema is at fault for (class 42), or the server itself (XX), is the same for each.
    return isinstance(error, asyncpg.PostgresError) and (error.sqlstate or "")[:2] not in ("42", "XX")


def _is_rolled_back(error: LedgerUnavailableError) -> bool:
    return isinstance(error.__cause__, asyncpg.exceptions.TransactionRollbackError)


def _decided(row: Any) -> Redemption:  # noqa: ANN401 - asyncpg ships no types
    """As it is right after the decision."""
    if row["rejection"] is not None:
        return _redemption(row, "rejected", captured=0, refunded=0)
    if row["kind"] == "redeem":
        return _redemption(row, "redeemed", captured=row["points"], refunded=0)
    return _redemption(row, "reserved", captured=0, refunded=0)


def _standing(row: Any) -> Redemption:  # noqa: ANN401 - as above
    """As it stands now."""
    return _redemption(row, row["status"], captured=row["captured"], refunded=row["refunded"])


def _redemption(row: Any, status: Status, *, captured: int, refunded: int) -> Redemption:  # noqa: ANN401 - as above
    return Redemption(
        redemption_id=_known_id(row["redemption_id"]),
        account_id=row["account_id"],
        mode="immediate" if row["kind"] == "redeem" else "reserve",
        points=row["points"],
        status=status,
        rejection=row["rejection"],
        captured_points=captured,
        refunded_points=refunded,
        balance=row["balance"],
        available=row["available"],
        hold_expires_at=row["hold_expires_at"],
        created_at=row["created_at"],
    )


def _known_id(found: Any) -> UUID:  # noqa: ANN401 - as above
    return UUID(int=found.int)  # the standard library's type, not asyncpg's


def _id(found: Any) -> UUID | None:  # noqa: ANN401 - as above
    return None if found is None else _known_id(found)
