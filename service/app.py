"""`create_app`: the one place that joins the parts."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import BinaryIO

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from opentelemetry.sdk.trace import SpanProcessor
from starlette.exceptions import HTTPException

from service import problems, tracing
from service.ledger import Ledger
from service.logs import account_hash, create_log
from service.middleware import Observer, RequestMiddleware, note_of
from service.problems import ProblemError
from service.routes import Routes
from service.settings import Settings
from service.telemetry import Instruments
from slo.metrics import (
    REDEMPTION_DATABASE_CONNECTIONS,
    REDEMPTION_DEFERRED_OLDEST_ACCEPTED,
    REDEMPTION_METRICS,
    REDEMPTION_POINTS_REDEEMED,
)

_FLUSH_SECONDS_MAX = 3.0  # for the last spans; the rest of the shutdown belongs to the callers


def create_app(
    settings: Settings, *, log_stream: BinaryIO | None = None, span_processors: Iterable[SpanProcessor] = ()
) -> FastAPI:
    """The application.

    Args:
        settings: With a database URL.
        log_stream: Where log lines go; standard output if not given.
        span_processors: Further receivers of spans.

    Raises:
        ValueError: The settings name no database.
    """
    if settings.database_url is None:
        raise ValueError("create_app needs settings with a database_url; embedded_postgres() starts a database")
    log = create_log(log_stream or sys.stdout.buffer)
    instruments = Instruments(REDEMPTION_METRICS)
    instruments.set(REDEMPTION_DEFERRED_OLDEST_ACCEPTED, 0)  # nothing is deferred yet
    spans = tracing.tracer_provider(span_processors)
    tracer = spans.get_tracer(tracing.TRACER_NAME)

    def on_deducted(points: int) -> None:
        instruments.count(REDEMPTION_POINTS_REDEEMED, points, trace_id=tracing.sampled_trace_id())

    ledger = Ledger(
        settings.database_url,
        tracer,
        pool_max=settings.pool_max,
        abandon_seconds=settings.abandon_seconds,
        on_deducted=on_deducted,
    )
    instruments.read(REDEMPTION_DATABASE_CONNECTIONS, lambda: ledger.connections("idle"), state="idle")
    instruments.read(REDEMPTION_DATABASE_CONNECTIONS, lambda: ledger.connections("busy"), state="busy")

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        try:
            async with ledger.opened(close_seconds=settings.shutdown_seconds):
                yield
        finally:
            await asyncio.to_thread(tracing.shut_down, spans, _FLUSH_SECONDS_MAX)

    app = FastAPI(title="Redemption service", lifespan=lifespan, docs_url=None, redoc_url=None, redirect_slashes=False)
    app.include_router(Routes(ledger, instruments, settings.deadline_seconds).router())
    app.add_exception_handler(ProblemError, _problem)
    app.add_exception_handler(HTTPException, _framework_problem)
    app.add_exception_handler(RequestValidationError, _validation_problem)
    observer = Observer(instruments, tracer, log, account_hash(settings.log_hash_key))
    app.add_middleware(RequestMiddleware, observer=observer, in_flight_max=settings.in_flight_max)
    return app


async def _problem(request: Request, error: Exception) -> Response:
    if not isinstance(error, ProblemError):
        raise error
    note = note_of(request.scope)
    if note is None:
        return problems.response(error, None)
    note.outcome, note.code = error.kind.outcome, error.kind.code
    return problems.response(error, note.trace_id)


async def _framework_problem(request: Request, error: Exception) -> Response:
    status = getattr(error, "status_code", 500)
    kind = {404: problems.NOT_FOUND, 405: problems.METHOD_NOT_ALLOWED}.get(status, problems.MALFORMED)
    return await _problem(request, ProblemError(kind, headers=getattr(error, "headers", None)))


async def _validation_problem(request: Request, error: Exception) -> Response:
    if not isinstance(error, RequestValidationError):
        raise error
    # Never the value that was sent: it may be an account id or worse.
    faults = [f"{'.'.join(str(part) for part in fault['loc'])}: {fault['msg']}" for fault in error.errors()]
    return await _problem(request, ProblemError(problems.MALFORMED, "; ".join(faults)))
