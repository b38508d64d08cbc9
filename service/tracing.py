"""OpenTelemetry traces, made by hand: a span for the request, one for its database call.

Names follow the semantic conventions for HTTP and PostgreSQL (https://opentelemetry.io/docs/specs/semconv/).
Account ids stand in no span: paths are given as templates.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Mapping
from typing import Final

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, format_trace_id, get_current_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

SERVICE_NAME: Final = "redemption"
TRACER_NAME: Final = "service"

_W3C = TraceContextTextMapPropagator()


def tracer_provider(processors: Iterable[SpanProcessor] = ()) -> TracerProvider:
    """Spans go out by OTLP/HTTP if `OTEL_EXPORTER_OTLP_ENDPOINT` is set, and to the given processors.

    The other `OTEL_` variables (sampler, headers, resource attributes ...) are read by the SDK itself.
    """
    name = os.environ.get("OTEL_SERVICE_NAME") or SERVICE_NAME
    provider = TracerProvider(resource=Resource.create({"service.name": name}), shutdown_on_exit=False)
    if os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT"):
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    for processor in processors:
        provider.add_span_processor(processor)
    return provider


def shut_down(provider: TracerProvider, seconds: float) -> None:
    """Send what is left, for at most this long: a collector that is away must not hold up the end."""
    sending = threading.Thread(target=provider.shutdown, name="traces-flush", daemon=True)
    sending.start()
    sending.join(seconds)


def incoming_context(headers: Mapping[str, str]) -> Context:
    """The caller's trace, from the W3C header `traceparent`."""
    return _W3C.extract(headers, context=Context())


def trace_id(span: Span) -> str:
    """32 hexadecimal digits."""
    return format_trace_id(span.get_span_context().trace_id)


def sampled_trace_id() -> str | None:
    """The trace id for an exemplar: only a trace that is kept is worth a link."""
    span = get_current_span()
    return trace_id(span) if span.get_span_context().trace_flags.sampled else None
