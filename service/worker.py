"""The worker: settles what was deferred, keeps the ledger in order, and verifies it.

Any number of workers may run. Each thing that they do can be done twice: the ledger decides a key once, a hold ends
once, and one sealer waits for the other.
"""

from __future__ import annotations

import asyncio
import os
import random
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, BinaryIO, Final, Literal

import asyncpg
from fastapi import FastAPI, Request, Response
from opentelemetry.sdk.trace import SpanProcessor
from opentelemetry.trace import Tracer

from service import parts, tracing, verification
from service.admission import Priority
from service.database import Call, LedgerTimeoutError, LedgerUnavailableError
from service.deferral import BurstSeal, Deferred
from service.domain import KeyReusedError, RedemptionRequest
from service.ledger import Ledger, Told, Wanted
from service.logs import Log
from service.queue import DeferralQueue
from service.settings import Settings
from service.telemetry import Instruments
from service.valkey import Valkey
from slo import Slo
from slo.metrics import (
    REDEMPTION_CHAIN_BACKLOG,
    REDEMPTION_CHAIN_SEALED,
    REDEMPTION_DEFERRED_OLDEST_ACCEPTED,
    REDEMPTION_HOLDS_EXPIRED,
    REDEMPTION_LEDGER_MISMATCHES,
    REDEMPTION_LEDGER_VERIFICATION_DURATION,
    REDEMPTION_LEDGER_VERIFIED,
    REDEMPTION_POINTS_EXPIRED,
    REDEMPTION_POINTS_SETTLED,
    REDEMPTION_QUEUE_MESSAGES,
    REDEMPTION_SETTLED,
    REDEMPTION_WORKER_METRICS,
)

Source = Literal["queue", "stream"]
Outcome = Literal["decided", "replayed", "late", "reused", "unreadable", "failed"]

_PROBE_SECONDS_MAX: Final = 2.0
_SETTLE_SECONDS_MAX: Final = 20.0  # within the queue's visibility timeout, 30 s
_RECEIVERS: Final = 4  # each has ten messages at most; together they make one batch of the ledger
_RECEIVE_SECONDS: Final = 5
_HAND_BACK_SECONDS: Final = (5, 15)  # by chance, so that workers do not come back in step
_PAUSE_SECONDS: Final = 1.0
_PAUSE_SECONDS_MAX: Final = 30.0
_CALL_SECONDS_MAX: Final = 60.0

_UPKEEP_SECONDS: Final = 1.0
_HOLDS_MAX: Final = 200  # in one transaction, as the next two
_ACCOUNTS_MAX: Final = 200
_ROWS_MAX: Final = 10_000
_DEPTH_SECONDS: Final = 15.0
_WAITING_MAX: Final = 100_000  # deferred redemptions that are remembered for the gauge of the oldest
_FORGOTTEN_SECONDS: Final = 300.0  # after this time without a sight of it somebody else has settled it

_EXPIRE_HOLDS: Final = Call("SELECT ledger.expire_holds($1) AS ended", "ledger.expire_holds", Priority.BULK)
_EXPIRE_LOTS: Final = Call("SELECT * FROM ledger.expire_lots($1)", "ledger.expire_lots", Priority.BULK)
_COUNT_LOTS: Final = Call("SELECT ledger.count_lots($1, $2) AS last", "ledger.count_lots", Priority.BULK)
_SEAL: Final = Call("SELECT * FROM ledger.seal($1)", "ledger.seal", Priority.BULK)


def create_worker(
    settings: Settings,
    *,
    slos: Iterable[Slo] = parts.PROMISES,
    log_stream: BinaryIO | None = None,
    span_processors: Iterable[SpanProcessor] = (),
) -> FastAPI:
    """The worker, as an application that answers probes and shows metrics while it works.

    Args:
        settings: With a database URL, of a login of the roles redemption_app, redemption_upkeep and redemption_auditor.
        slos: What is promised; the log tells CloudWatch of it.
        log_stream: Where log lines go; standard output if not given.
        span_processors: Further receivers of spans.

    Raises:
        ValueError: The settings name no database.
    """
    told = parts.telemetry(REDEMPTION_WORKER_METRICS, log_stream, span_processors)
    ledger = parts.ledger(
        settings, told.tracer, Told(redeemed=lambda points: told.instruments.count(REDEMPTION_POINTS_SETTLED, points))
    )
    valkey = parts.valkey(settings, told.tracer)
    queue = parts.queue(settings, told.tracer)
    settling = Settling(ledger, told.instruments, told.tracer)
    told.instruments.read(REDEMPTION_DEFERRED_OLDEST_ACCEPTED, settling.oldest_accepted)
    upkeep = Upkeep(ledger, told.instruments)
    burst = BurstSeal(settings.signing_key) if settings.signing_key else None
    loops: list[Callable[[], Awaitable[None]]] = [
        upkeep.count_lots,
        _again(upkeep.end_holds, _UPKEEP_SECONDS, told.log),
        _again(upkeep.end_lots, _UPKEEP_SECONDS, told.log),
        _again(upkeep.seal, _UPKEEP_SECONDS, told.log),
        _again(Verifying(settings, told.instruments, told.log).once, settings.verify_seconds, told.log),
    ]
    if queue is not None:
        loops += [_again(lambda: settling.from_queue(queue), 0.0, told.log)] * _RECEIVERS
        loops.append(_again(lambda: settling.measure(queue), _DEPTH_SECONDS, told.log))
    if valkey is not None and burst is not None:
        loops.append(_again(lambda: settling.from_stream(valkey, burst), 0.0, told.log))

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        try:
            async with AsyncExitStack() as opened:
                # First, as it ends last: what the others still do counts.
                await opened.enter_async_context(
                    parts.embedded_metrics(settings, slos, REDEMPTION_WORKER_METRICS, told)
                )
                if valkey is not None:
                    await opened.enter_async_context(valkey.opened())
                if queue is not None:
                    await opened.enter_async_context(queue.opened(close_seconds=settings.shutdown_seconds))
                await opened.enter_async_context(ledger.opened(close_seconds=settings.shutdown_seconds))
                await opened.enter_async_context(_running(loops))
                yield
        finally:
            await asyncio.to_thread(tracing.shut_down, told.spans, settings.shutdown_seconds)
            told.lines.flush()

    app = FastAPI(title="Redemption worker", lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)

    async def metrics(request: Request) -> Response:
        text, content_type = told.instruments.exposition(request.headers.get("accept", ""))
        return Response(text, headers={"Content-Type": content_type})

    async def live(_: Request) -> Response:
        return Response(b'{"status":"live"}', media_type="application/json")

    app.add_api_route("/metrics", metrics)
    app.add_api_route("/livez", live)
    app.add_api_route("/readyz", live)  # nobody sends it anything, so there is nothing to be ready for
    return app


@asynccontextmanager
async def _running(loops: Sequence[Callable[[], Awaitable[None]]]) -> AsyncIterator[None]:
    async def run(loop: Callable[[], Awaitable[None]]) -> None:
        await loop()

    tasks = [asyncio.create_task(run(loop)) for loop in loops]
    try:
        yield
    finally:
        # What the ledger was asked goes on in tasks of its own, and what was not acknowledged comes again.
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _again(step: Callable[[], Awaitable[None]], seconds: float, log: Log) -> Callable[[], Awaitable[None]]:
    """A step for ever, with pauses by chance; after a failure longer ones, up to half a minute."""

    async def loop() -> None:
        pause = _PAUSE_SECONDS
        while True:
            try:
                await step()
            except Exception as error:  # noqa: BLE001 - whatever it is, the next round may work
                log.warning("worker", error=type(error.__cause__ or error).__name__)
                await asyncio.sleep(pause * random.uniform(0.5, 1.5))  # noqa: S311 - no secret
                pause = min(pause * 2, _PAUSE_SECONDS_MAX)
            else:
                pause = _PAUSE_SECONDS
                if seconds:
                    await asyncio.sleep(seconds * random.uniform(0.9, 1.1))  # noqa: S311 - as above

    return loop


# --- what was deferred ------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Waiting:
    accepted_at: datetime
    seen_at: float


class Settling:
    """Settles deferred redemptions, through the same path as any other.

    Args:
        ledger: Decides.
        instruments: Counts.
        tracer: Makes the span of each.
    """

    def __init__(self, ledger: Ledger, instruments: Instruments, tracer: Tracer) -> None:
        self._ledger = ledger
        self._instruments = instruments
        self._tracer = tracer
        self._waiting: dict[tuple[str, str], _Waiting] = {}
        self._is_receiving = True
        self._unread_since = 0.0  # Unix time since when messages lie there that nobody receives; 0 when none do

    def oldest_accepted(self) -> float:
        """When the oldest that waits was accepted, as far as this worker knows; 0 when none does."""
        if self._is_receiving:
            limit = time.monotonic() - _FORGOTTEN_SECONDS
            self._waiting = {name: one for name, one in self._waiting.items() if one.seen_at > limit}
        known = [one.accepted_at.timestamp() for one in self._waiting.values()]
        return min([*known, *filter(None, [self._unread_since])], default=0.0)

    async def measure(self, queue: DeferralQueue) -> None:
        """Look at how much waits.

        While the ledger is away nothing is received, so what lies in the queue has lain there since it was first seen.
        """
        depth = await queue.depth()
        visible = depth.visible + depth.delayed
        self._instruments.set(REDEMPTION_QUEUE_MESSAGES, visible, state="visible")
        self._instruments.set(REDEMPTION_QUEUE_MESSAGES, depth.in_flight, state="in_flight")
        self._instruments.set(REDEMPTION_QUEUE_MESSAGES, depth.dead_letter_visible or 0, state="dead_letter")
        if self._is_receiving or not visible:
            self._unread_since = 0.0
        elif not self._unread_since:
            self._unread_since = time.time()

    async def from_queue(self, queue: DeferralQueue) -> None:
        """Receive some messages and settle them.

        A message that is received too often becomes a dead letter, so while the ledger is away nothing is received.

        Raises:
            LedgerTimeoutError, LedgerUnavailableError: The ledger is away.
            QueueError: The queue is.
        """
        await self._probe()
        received = await queue.receive(_RECEIVE_SECONDS)
        outcomes = await asyncio.gather(*(self.settle(one.message, "queue") for one in received))
        done = [one.receipt for one, outcome in zip(received, outcomes, strict=True) if outcome in _DONE]
        if done:
            await queue.delete(done)
        failed = [one for one, outcome in zip(received, outcomes, strict=True) if outcome == "failed"]
        for one in failed:
            await queue.extend(one.receipt, random.randint(*_HAND_BACK_SECONDS))  # noqa: S311 - no secret
        if failed:
            raise LedgerUnavailableError  # a pause, and one line for all of them

    async def _probe(self) -> None:
        try:
            await self._ledger.schema_version(deadline=asyncio.get_running_loop().time() + _PROBE_SECONDS_MAX)
        except Exception:
            self._is_receiving = False
            raise
        if not self._is_receiving:
            self._is_receiving = True
            for one in self._waiting.values():  # they come again soon
                one.seen_at = time.monotonic()

    async def from_stream(self, valkey: Valkey, burst: BurstSeal) -> None:
        """Settle what the burst stream has, for ever. What fails there waits in the queue as well."""
        async with aclosing(valkey.consume(f"{os.uname().nodename}-{secrets.token_hex(4)}")) as portions:
            async for portion in portions:
                await asyncio.gather(*(self.settle(burst.open(one.body), "stream") for one in portion))
                valkey.acknowledge(portion)

    async def settle(self, message: Deferred | None, source: Source) -> Outcome:
        """Decide one; counted, and never raises."""
        outcome = "unreadable" if message is None else await self._settle(message)
        self._instruments.count(REDEMPTION_SETTLED, 1, source=source, outcome=outcome)
        return outcome

    async def _settle(self, message: Deferred) -> Outcome:
        name = (message.client_id, message.key)
        if len(self._waiting) < _WAITING_MAX:
            self._waiting[name] = _Waiting(message.accepted_at, time.monotonic())
        with tracing.continued(self._tracer, "process redemption", message.traceparent):
            wanted = Wanted(
                message.client_id,
                message.key,
                RedemptionRequest(
                    account_id=message.account_id, points=message.points, hold_seconds=message.hold_seconds
                ),
                message.fingerprint,
                asyncio.get_running_loop().time() + _SETTLE_SECONDS_MAX,
                accepted_at=message.accepted_at,
                valid_until=message.deadline,
                span=tracing.recorded_span(),
            )
            try:
                decision = await self._ledger.redeem(wanted)
            except KeyReusedError:
                outcome: Outcome = "reused"
            except Exception:  # noqa: BLE001 - it comes again, and at last goes to the dead letters
                return "failed"
            else:
                if decision.replayed:
                    outcome = "replayed"
                else:
                    outcome = "late" if decision.redemption.rejection == "deadline-passed" else "decided"
        self._waiting.pop(name, None)
        return outcome


_DONE: Final = frozenset({"decided", "replayed", "late", "reused"})  # an unreadable one is left to become a dead letter


# --- the ledger in order ----------------------------------------------------------------------------------------------


class Upkeep:
    """Ends holds and lots, and seals the hash chain.

    Args:
        ledger: Whose database.
        instruments: Counts.
    """

    def __init__(self, ledger: Ledger, instruments: Instruments) -> None:
        self._database = ledger.database
        self._instruments = instruments

    async def end_holds(self) -> None:
        """End all holds that are due."""
        while ended := (await self._ask(_EXPIRE_HOLDS, _HOLDS_MAX))["ended"]:
            self._instruments.count(REDEMPTION_HOLDS_EXPIRED, ended)

    async def end_lots(self) -> None:
        """Take away the points of all lots that are due."""
        while (expired := await self._ask(_EXPIRE_LOTS, _ACCOUNTS_MAX))["accounts"]:
            self._instruments.count(REDEMPTION_POINTS_EXPIRED, expired["points"])

    async def seal(self) -> None:
        """Extend the hash chain over all that can be sealed."""
        while True:
            chain = await self._ask(_SEAL, _ROWS_MAX)
            self._instruments.set(REDEMPTION_CHAIN_BACKLOG, chain["backlog"])
            self._instruments.set(REDEMPTION_CHAIN_SEALED, chain["complete"].timestamp())
            if not chain["sealed"]:
                return

    async def count_lots(self) -> None:
        """Give a lot to the points of every account that has none yet, once; accounts in use do so by themselves."""
        last: str | None = ""
        while last is not None:
            try:
                last = (await self._ask(_COUNT_LOTS, last, _ACCOUNTS_MAX))["last"]
            except (LedgerUnavailableError, LedgerTimeoutError, asyncpg.PostgresError):
                await asyncio.sleep(_PAUSE_SECONDS_MAX)

    async def _ask(self, call: Call, *arguments: Any) -> Any:  # noqa: ANN401 - asyncpg ships no types
        deadline = asyncio.get_running_loop().time() + _CALL_SECONDS_MAX
        return (await self._database.ask(call, arguments, deadline=deadline))[0]


class Verifying:
    """Verifies the ledger from time to time.

    Args:
        settings: Whose ledger.
        instruments: Shows what was found.
        log: Hears of mismatches.
    """

    def __init__(self, settings: Settings, instruments: Instruments, log: Log) -> None:
        self._settings = settings
        self._instruments = instruments
        self._log = log

    async def once(self) -> None:
        """Verify all of it, on a connection of its own."""
        report = await verification.verify(self._settings.database_url or "", ca_file=self._settings.database_ca_file)
        for result in report.results:
            self._instruments.set(REDEMPTION_LEDGER_MISMATCHES, result.mismatches, check=result.check)
            if result.mismatches:
                self._log.error("ledger mismatch", check=result.check, count=result.mismatches)
        self._instruments.set(REDEMPTION_LEDGER_VERIFICATION_DURATION, report.seconds)
        self._instruments.set(REDEMPTION_LEDGER_VERIFIED, report.began_at.timestamp())
        if report.head is not None:
            # Written down outside of the database, it proves later that the chain was not cut off or written anew.
            self._log.info("ledger verified", head=str(report.head))
