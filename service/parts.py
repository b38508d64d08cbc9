"""The parts that both processes, the service and its worker, make from their settings."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Callable, Iterable
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass
from typing import BinaryIO, Final

from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.trace import Tracer

from service import tracing
from service.database import Database
from service.emf import EmbeddedMetrics
from service.ledger import Ledger, Told
from service.logs import LineBuffer, Log, create_log
from service.queue import DeferralQueue
from service.security import Anonymous, Authentication, Authenticator, KeyRing
from service.settings import Settings
from service.telemetry import Instruments
from service.valkey import Valkey
from slo import Slo
from slo.definitions import redemption
from slo.metrics import Metric

PROMISES: Final = tuple(value for value in vars(redemption).values() if isinstance(value, Slo))
"""What is promised for the service and its worker."""

_BATCHES_IN_FLIGHT_MAX = 2  # one waits for its commit while the other is computed; more make each smaller
_QUEUED_MAX = 10_000  # redemptions that wait for a batch; the admission lets fewer in


@dataclass(frozen=True, slots=True)
class Telemetry:
    """Where what happens is told.

    Attributes:
        instruments: Metrics.
        spans: Makes tracers, and sends what they record.
        tracer: The service's own.
        lines: What log lines are written to.
        log: Writes them.
    """

    instruments: Instruments
    spans: TracerProvider
    tracer: Tracer
    lines: LineBuffer
    log: Log


def telemetry(catalogue: Iterable[Metric], stream: BinaryIO | None, processors: Iterable[SpanProcessor]) -> Telemetry:
    """What is told, and to whom; log lines go to standard output if no stream is given, which gets each at once."""
    instruments = Instruments(catalogue)
    spans = tracing.tracer_provider(processors)
    lines = LineBuffer(sys.stdout.buffer) if stream is None else LineBuffer(stream, bytes_max=0)
    return Telemetry(instruments, spans, spans.get_tracer(tracing.TRACER_NAME), lines, create_log(lines))


def embedded_metrics(
    settings: Settings, slos: Iterable[Slo], catalogue: Iterable[Metric], told: Telemetry
) -> AbstractAsyncContextManager[None]:
    """Counts the promises for CloudWatch while it is entered, if the settings say so."""
    if not settings.embedded_metrics:
        return nullcontext()
    return EmbeddedMetrics(slos, catalogue, told.instruments, told.lines, told.log).opened()


def ledger(settings: Settings, tracer: Tracer, told: Told) -> Ledger:
    """The ledger of the settings.

    Raises:
        ValueError: They name no database.
    """
    if settings.database_url is None:
        raise ValueError("settings without a database_url; embedded_postgres() starts a database")
    database = Database(
        settings.database_url,
        tracer,
        pool_max=settings.pool_max,
        abandon_seconds=settings.abandon_seconds,
        ca_file=settings.database_ca_file,
    )
    return Ledger(
        database,
        told,
        batch_max=settings.batch_max,
        batches_in_flight_max=min(_BATCHES_IN_FLIGHT_MAX, settings.pool_max),
        queue_max=_QUEUED_MAX,
        # Two connections are left for batches, and what is over for reads.
        waiting_max=max(1, (settings.pool_max - _BATCHES_IN_FLIGHT_MAX) // 2 - 1),
    )


def valkey(
    settings: Settings,
    tracer: Tracer,
    on_call: Callable[[float, str | None], None] = lambda _seconds, _error: None,
    on_dropped: Callable[[int], None] = lambda _count: None,
) -> Valkey | None:
    """The Valkey of the settings, if they name one."""
    if settings.valkey_url is None:
        return None
    return Valkey(
        settings.valkey_url, ca_file=settings.valkey_ca_file, tracer=tracer, on_call=on_call, on_dropped=on_dropped
    )


def queue(settings: Settings, tracer: Tracer) -> DeferralQueue | None:
    """The queue of the settings, if they name one."""
    if settings.queue_url is None:
        return None
    return DeferralQueue(
        settings.queue_url,
        tracer,
        endpoint_url=settings.queue_endpoint_url,
        dead_letter_url=settings.dead_letter_queue_url,
    )


def authentication(settings: Settings, log: Log) -> Authentication:
    """Who knows the callers; nobody, when the settings name no keys (`refusals_to_serve` says when that may be).

    Args:
        settings: Where the keys are.
        log: Hears when they cannot be read anew, and those of before are used on.
    """
    source = settings.key_source()
    if source is None:
        return Anonymous()
    return Authenticator(
        KeyRing(
            source,
            algorithms=settings.jwt_algorithms,
            on_refresh_failed=lambda error: log.warning("keys not refreshed", error=type(_origin(error)).__name__),
        ),
        issuer=settings.jwt_issuer or "",
        audience=settings.jwt_audience or "",
    )


def _origin(error: BaseException) -> BaseException:
    """What an error began with: a refused connection says more than the errors that it was wrapped in."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def signing_key(settings: Settings) -> bytes:
    """The key that signs cursors and references; a random one when none is set."""
    return settings.signing_key or secrets.token_bytes(32)
