"""The way of a redemption: decided by the ledger, found as a hint, or put into the queue when the ledger is away."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal
from uuid import UUID

import orjson

from service import tracing
from service.database import LedgerBusyError, LedgerTimeoutError, LedgerUnavailableError
from service.deferral import BurstSeal, Deferred
from service.domain import Decision, KeyReusedError, Redemption
from service.ledger import Ledger, Wanted
from service.queue import DeferralQueue, QueueError
from service.valkey import Hint, Valkey

Reason = Literal["unreachable", "slow", "overloaded"]

_SIGNATURE_BYTES: Final = 16
_SEND_SECONDS_MAX: Final = 1.0
_SEND_SHARE_MAX: Final = 0.5  # of the time for an answer, kept for the queue
_FAILURES_MAX: Final = 3  # in a row; one alone may be a connection that the server closed
_ACCOUNTS_MIN: Final = 2  # whose redemptions time out; one alone may be locked by somebody
_PROBE_SECONDS: Final = 0.5
# To look into Valkey costs a seventh of a redemption: worth it where the ledger is slow, not where only many come.
_HINT_WAIT_SECONDS: Final = 0.2  # within the quarter of a second that a guest should wait at most
_COPY_SECONDS: Final = 30  # the burst stream is through by then, and the queue's copy finds it settled


@dataclass(frozen=True, slots=True)
class Accepted:
    """A redemption that is in the queue.

    Attributes:
        accepted_at: Since when.
        valid_until: When it is rejected if it was not settled by then.
    """

    accepted_at: datetime
    valid_until: datetime


class HintSeal:
    """Signs what is remembered in Valkey: whoever can write there may be anybody, and a hint is told as an answer.

    Args:
        signing_key: The secret, at least 32 bytes. Hints of processes with another one are as if they were not there.
    """

    def __init__(self, signing_key: bytes) -> None:
        # BLAKE2b with a key is a MAC (RFC 7693, 2.9), at a third of what HMAC costs; its key has 64 bytes at most.
        key = hashlib.blake2b(signing_key).digest()
        self._keyed = hashlib.blake2b(key=key, digest_size=_SIGNATURE_BYTES, person=b"hint 2")  # 3 when hints change

    def close(self, wanted: Wanted, redemption: Redemption) -> bytes:
        """The decision with its signature before it, good for this request alone."""
        facts = orjson.dumps(redemption)
        return self._signature(wanted, facts) + facts

    def open(self, wanted: Wanted, sealed: bytes) -> Redemption | None:
        """The decision, if it was signed here for this request."""
        signature, facts = sealed[:_SIGNATURE_BYTES], sealed[_SIGNATURE_BYTES:]
        if not hmac.compare_digest(signature, self._signature(wanted, facts)):
            return None
        fields = orjson.loads(facts)
        fields["redemption_id"] = UUID(fields["redemption_id"])
        for name in ("hold_expires_at", "created_at"):
            fields[name] = None if fields[name] is None else datetime.fromisoformat(fields[name])
        return Redemption(**fields)

    def _signature(self, wanted: Wanted, facts: bytes) -> bytes:
        keyed = self._keyed.copy()
        keyed.update(b"%b %b %b%b" % (wanted.client_id.encode(), wanted.key.encode(), wanted.fingerprint, facts))
        return keyed.digest()


class Outage:
    """Whether the ledger is away: after some failures in a row, until a probe gets through.

    Args:
        probe: Asks the ledger something cheap; raises when there is no answer.
    """

    def __init__(self, probe: Callable[[], Awaitable[object]]) -> None:
        self._probe = probe
        self._failures = 0
        self._silent: set[str] = set()  # accounts whose redemptions timed out
        self._probing: asyncio.Task[None] | None = None

    @property
    def lasts(self) -> bool:
        """Whether it is away now."""
        return self._probing is not None

    def unreachable(self) -> None:
        """A call did not get through."""
        self._count()

    def silent(self, account_id: str) -> None:
        """A call for this account got no answer in time."""
        if len(self._silent) < _ACCOUNTS_MIN:
            self._silent.add(account_id)
        if len(self._silent) >= _ACCOUNTS_MIN:
            self._count()

    def answered(self) -> None:
        """A call got one."""
        self._failures = 0
        self._silent.clear()

    def _count(self) -> None:
        self._failures += 1
        if self._failures >= _FAILURES_MAX and self._probing is None:
            self._probing = asyncio.create_task(self._until_it_answers())

    async def close(self) -> None:
        """Stop probing."""
        if self._probing is not None:
            self._probing.cancel()
            with suppress(asyncio.CancelledError):
                await self._probing

    async def _until_it_answers(self) -> None:
        while True:
            await asyncio.sleep(_PROBE_SECONDS * random.uniform(0.75, 1.25))  # noqa: S311 - no secret: out of step
            try:
                await self._probe()
            except Exception:  # noqa: BLE001, S112 - whatever it is, it is not an answer
                continue
            self.answered()
            self._probing = None
            return


class Redeeming:
    """Redeems.

    Args:
        ledger: Decides.
        queue: Takes what the ledger cannot; without it that fails.
        valkey: Knows recent answers, and hands a burst to the workers; speed only.
        deferred_seconds: Time in which a deferred redemption is settled, or else rejected.
        signing_key: Signs what Valkey is told.
        on_deferred: Told the reason of each that goes to the queue.
    """

    def __init__(  # noqa: PLR0913 - each is one part of the way
        self,
        ledger: Ledger,
        *,
        queue: DeferralQueue | None,
        valkey: Valkey | None,
        deferred_seconds: float,
        signing_key: bytes,
        on_deferred: Callable[[Reason], None],
    ) -> None:
        self._ledger = ledger
        self._queue = queue
        self._valkey = valkey
        self._valid = timedelta(seconds=deferred_seconds)
        self._hints = HintSeal(signing_key)
        self._burst = BurstSeal(signing_key)
        self._on_deferred = on_deferred
        self._outage = Outage(lambda: ledger.schema_version(deadline=_now() + _PROBE_SECONDS))

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """While the block runs; ledger, queue and Valkey are opened by whoever made them."""
        try:
            yield
        finally:
            await self._outage.close()

    @property
    def falls_back(self) -> bool:
        """Whether redemptions go to the queue now, because the ledger does not answer."""
        return self._queue is not None and self._outage.lasts

    @property
    def can_defer(self) -> bool:
        """Whether there is a queue."""
        return self._queue is not None

    async def redeem(self, wanted: Wanted) -> tuple[Decision, Literal["ledger", "hint"]] | Accepted:
        """Decide, or accept for later; raises as `Ledger.redeem` does when neither can be done.

        Args:
            wanted: With the deadline of the answer, of which a part is kept for the queue.

        Returns:
            The decision and where it was found, or that it waits in the queue.
        """
        if self._queue is None:
            return await self._decide(wanted)
        # The same for the ledger and the queue: what was begun here, and waits there for a lock say, ends in time too.
        wanted = replace(wanted, valid_until=datetime.now(UTC) + self._valid)
        if self._outage.lasts:
            return await self.defer(wanted, "unreachable")
        left = max(0.0, wanted.deadline - _now())
        early = replace(wanted, deadline=wanted.deadline - min(_SEND_SECONDS_MAX, left * _SEND_SHARE_MAX))
        try:
            return await self._decide(early)
        except LedgerBusyError:
            return await self.defer(wanted, "overloaded")
        except LedgerUnavailableError:
            self._outage.unreachable()
            return await self.defer(wanted, "unreachable")
        except LedgerTimeoutError:
            self._outage.silent(wanted.request.account_id)
            return await self.defer(wanted, "slow")

    async def defer(self, wanted: Wanted, reason: Reason) -> Accepted:
        """Put it into the queue. What the ledger may have begun all the same is found there by its key later.

        Raises:
            LedgerUnavailableError: The queue did not take it: nothing is promised.
        """
        if self._queue is None:
            raise LedgerUnavailableError("there is no queue")
        accepted_at = datetime.now(UTC)
        valid_until = wanted.valid_until or accepted_at + self._valid
        request = wanted.request
        deferred = Deferred(
            client_id=wanted.client_id,
            key=wanted.key,
            fingerprint=wanted.fingerprint,
            account_id=request.account_id,
            points=request.points,
            mode=request.mode,
            hold_seconds=request.hold_seconds,
            accepted_at=accepted_at,
            deadline=max(valid_until, accepted_at),
            traceparent=tracing.outgoing_headers().get("traceparent"),
        )
        by_stream = reason == "overloaded" and self._valkey is not None and self._valkey.available_ratio > 0
        try:
            await self._queue.send(deferred, deadline=wanted.deadline, delay_seconds=_COPY_SECONDS if by_stream else 0)
        except QueueError as error:
            raise LedgerUnavailableError from error
        if by_stream and self._valkey is not None:  # after the queue has it: what is promised may not hang on a stream
            self._valkey.buffer(self._burst.close(deferred))
        self._on_deferred(reason)
        return Accepted(accepted_at, deferred.deadline)

    async def _decide(self, wanted: Wanted) -> tuple[Decision, Literal["ledger", "hint"]]:
        valkey = self._valkey
        if valkey is not None and self._ledger.wait_seconds >= _HINT_WAIT_SECONDS:
            found = valkey.look_up(wanted.client_id, wanted.key)
            if not found.done():
                return await self._whichever_is_first(wanted, found)
        return await self._from_ledger(wanted), "ledger"

    async def _from_ledger(self, wanted: Wanted) -> Decision:
        try:
            decision = await self._ledger.redeem(wanted)
        except KeyReusedError:
            self._outage.answered()
            raise
        self._outage.answered()
        if self._valkey is not None:
            sealed = self._hints.close(wanted, decision.redemption)
            self._valkey.remember(wanted.client_id, wanted.key, wanted.fingerprint, sealed)
        return decision

    async def _whichever_is_first(
        self, wanted: Wanted, found: asyncio.Future[Hint | None]
    ) -> tuple[Decision, Literal["ledger", "hint"]]:
        asked = asyncio.create_task(self._from_ledger(wanted))
        try:
            either: list[asyncio.Future[Any]] = [asked, found]
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            hint = found.result() if found.done() else None
            known = None if asked.done() or hint is None else self._hints.open(wanted, hint.facts)
            if known is None:  # also when it is another request's: the ledger says so
                return await asked, "ledger"
            return Decision(known, replayed=True), "hint"
        finally:
            if not asked.done():  # while it waits it is taken back; what runs goes on, and finds the same
                asked.cancel()
            asked.add_done_callback(_heard)


def _heard(task: asyncio.Task[Any]) -> None:
    """Fetch what nobody waits for any more, or asyncio complains."""
    if not task.cancelled():
        task.exception()


def _now() -> float:
    return asyncio.get_running_loop().time()
