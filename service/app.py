"""`create_app`: the one place that joins the parts of the service."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import BinaryIO

from fastapi import FastAPI, Request, Response
from opentelemetry.sdk.trace import SpanProcessor
from starlette.exceptions import HTTPException

from service import openapi, parts, problems, tracing
from service.admission import AdaptiveLimit, Admission
from service.ledger import Told
from service.logs import account_hash
from service.middleware import Observer, RequestMiddleware, problem_response
from service.problems import ProblemError
from service.protocol import Gate
from service.rate_limits import RateLimiter
from service.redeeming import Redeeming
from service.routes import Routes
from service.settings import Settings
from service.telemetry import Instruments
from slo import Slo
from slo.metrics import (
    REDEMPTION_BATCH_DURATION,
    REDEMPTION_BATCH_SIZE,
    REDEMPTION_BATCH_WAIT,
    REDEMPTION_DATABASE_CONNECTIONS,
    REDEMPTION_DEFERRED,
    REDEMPTION_FALLBACK_ACTIVE,
    REDEMPTION_METRICS,
    REDEMPTION_POINTS_REDEEMED,
    REDEMPTION_POINTS_REFUNDED,
    REDEMPTION_VALKEY_CALLS,
    REDEMPTION_VALKEY_DROPPED,
)

_FLUSH_SECONDS_MAX = 3.0  # for the last spans; the rest of the shutdown belongs to the callers

# Of requests in flight. The floor is a few batches; from there the limit finds its place within seconds. The target is
# far below the slowest answer that a guest should get, so that a short queue, which makes good batches, sheds nobody.
_LIMIT_FLOOR = 32
_LIMIT_START = 128
_LIMIT_TARGET_SECONDS = 0.03


def create_app(
    settings: Settings,
    *,
    slos: Iterable[Slo] = parts.PROMISES,
    log_stream: BinaryIO | None = None,
    span_processors: Iterable[SpanProcessor] = (),
) -> FastAPI:
    """The application; its `state.gate` is for the server's protocol (`service.protocol`).

    Args:
        settings: With a database URL.
        slos: What is promised; the log tells CloudWatch of it.
        log_stream: Where log lines go; standard output if not given.
        span_processors: Further receivers of spans.

    Raises:
        ValueError: The settings name no database.
    """
    told = parts.telemetry(REDEMPTION_METRICS, log_stream, span_processors)
    ledger = parts.ledger(settings, told.tracer, _heard_by(told.instruments))
    valkey = parts.valkey(
        settings,
        told.tracer,
        _valkey_heard_by(told.instruments),
        lambda count: told.instruments.count(REDEMPTION_VALKEY_DROPPED, count),
    )
    queue = parts.queue(settings, told.tracer)
    authentication = parts.authentication(settings, told.log)
    signing_key = parts.signing_key(settings)
    redeeming = Redeeming(
        ledger,
        queue=queue,
        valkey=valkey,
        deferred_seconds=settings.deferred_seconds,
        signing_key=signing_key,
        on_deferred=lambda reason: told.instruments.count(REDEMPTION_DEFERRED, 1, reason=reason),
    )
    told.instruments.read(REDEMPTION_DATABASE_CONNECTIONS, lambda: ledger.database.connections("idle"), state="idle")
    told.instruments.read(REDEMPTION_DATABASE_CONNECTIONS, lambda: ledger.database.connections("busy"), state="busy")
    told.instruments.read(REDEMPTION_FALLBACK_ACTIVE, lambda: redeeming.falls_back)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        try:
            async with AsyncExitStack() as opened:
                # First, as it ends last: what the others still do counts.
                await opened.enter_async_context(parts.embedded_metrics(settings, slos, REDEMPTION_METRICS, told))
                await opened.enter_async_context(authentication.opened())
                if valkey is not None:
                    await opened.enter_async_context(valkey.opened())
                if queue is not None:
                    await opened.enter_async_context(queue.opened(close_seconds=settings.shutdown_seconds))
                await opened.enter_async_context(ledger.opened(close_seconds=settings.shutdown_seconds))
                await opened.enter_async_context(redeeming.opened())
                yield
        finally:
            await asyncio.to_thread(tracing.shut_down, told.spans, _FLUSH_SECONDS_MAX)
            told.lines.flush()

    app = FastAPI(
        title="Redemption service",
        summary="Guests spend points, and every request spends them exactly once.",
        version="1",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        telemetry={"tracing": False, "metrics": False, "logs": False},  # ours is in the middleware
    )
    routes = Routes(
        ledger=ledger,
        redeeming=redeeming,
        authentication=authentication,
        limiter=RateLimiter(settings.client_requests_per_second, settings.client_burst, valkey),
        instruments=told.instruments,
        signing_key=signing_key,
        deadline_seconds=settings.deadline_seconds,
    )
    app.include_router(routes.router())
    app.openapi = lambda: openapi.document(app)  # type: ignore[method-assign] # FastAPI's own way
    app.add_exception_handler(ProblemError, _problem)
    app.add_exception_handler(HTTPException, _framework_problem)
    admission = Admission(_limit(settings.in_flight_max), time.monotonic)
    observer = Observer(
        told.instruments, tracing.RequestTracer(told.spans), told.log, account_hash(settings.log_hash_key)
    )

    def defers() -> bool:
        return redeeming.can_defer

    app.state.gate = Gate(admission, observer, defers)
    # Around everything of the framework's: a direct route passes none of its layers.
    app.middleware_stack = RequestMiddleware(
        app.build_middleware_stack(), observer, admission, direct=routes.direct(), defers=defers
    )
    return app


def _limit(ceiling: int) -> AdaptiveLimit:
    return AdaptiveLimit(
        floor=min(_LIMIT_FLOOR, ceiling),
        ceiling=ceiling,
        target_seconds=_LIMIT_TARGET_SECONDS,
        limit=min(_LIMIT_START, ceiling),
    )


def _heard_by(instruments: Instruments) -> Told:
    size = instruments.histogram(REDEMPTION_BATCH_SIZE)
    wait = instruments.histogram(REDEMPTION_BATCH_WAIT)
    duration = instruments.histogram(REDEMPTION_BATCH_DURATION)
    redeemed = instruments.counter(REDEMPTION_POINTS_REDEEMED)

    def batched(count: int, waited_seconds: float, took_seconds: float) -> None:
        size.observe(count)
        wait.observe(waited_seconds)
        duration.observe(took_seconds)

    return Told(
        redeemed=redeemed.inc,
        refunded=lambda points: instruments.count(REDEMPTION_POINTS_REFUNDED, points),
        batched=batched,
    )


def _valkey_heard_by(instruments: Instruments) -> Callable[[float, str | None], None]:
    series = {
        outcome: instruments.counter(REDEMPTION_VALKEY_CALLS, outcome=outcome)
        for outcome in REDEMPTION_VALKEY_CALLS.labels["outcome"]
    }

    def called(_seconds: float, error: str | None) -> None:
        series["ok" if error is None else "timeout" if "Timeout" in error else "error"].inc()

    return called


async def _problem(request: Request, error: Exception) -> Response:
    if not isinstance(error, ProblemError):
        raise error
    return problem_response(request.scope, error)


async def _framework_problem(request: Request, error: Exception) -> Response:
    status = getattr(error, "status_code", 500)
    kind = {404: problems.NOT_FOUND, 405: problems.METHOD_NOT_ALLOWED}.get(status, problems.MALFORMED)
    return problem_response(request.scope, ProblemError(kind, headers=getattr(error, "headers", None)))
