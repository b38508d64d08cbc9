"""OpenTelemetry traces, made by hand: a span for the request, one for its database call or for that of its batch.

Names follow the semantic conventions for HTTP and PostgreSQL (https://opentelemetry.io/docs/specs/semconv/).
Account ids stand in no span: paths are given as templates. The sampler is asked before a span is paid for: most
requests are not kept, and need an id alone.
"""

from __future__ import annotations

import os
import random
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Final

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.environment_variables import OTEL_TRACES_SAMPLER, OTEL_TRACES_SAMPLER_ARG
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import Decision, ParentBased, Sampler, SamplingResult, TraceIdRatioBased
from opentelemetry.trace import (
    INVALID_SPAN,
    INVALID_SPAN_CONTEXT,
    Link,
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    TraceFlags,
    Tracer,
    TraceState,
    format_span_id,
    format_trace_id,
    get_current_span,
    set_span_in_context,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import Attributes

SERVICE_NAME: Final = "redemption"
TRACER_NAME: Final = "service"

TRACEPARENT: Final = b"traceparent"
TRACESTATE: Final = b"tracestate"
XRAY_HEADER: Final = b"x-amzn-trace-id"
CARRIER_HEADERS: Final = frozenset({TRACEPARENT, TRACESTATE, XRAY_HEADER})

_W3C = TraceContextTextMapPropagator()
_NOTHING: Final = Context()

# What most callers who send the header at all send: a trace that is not kept. Any other form is left to the library.
_NOT_KEPT = re.compile(rb"00-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-0[02]")

# https://docs.aws.amazon.com/xray/latest/devguide/xray-concepts.html#xray-concepts-tracingheader
_XRAY_ROOT = re.compile(r"1-([0-9a-f]{8})-([0-9a-f]{24})")
_XRAY_PARENT = re.compile(r"(?!0{16})[0-9a-f]{16}")
_XRAY_FIELDS_MAX: Final = 16
_NO_TRACE: Final = "0" * 32

_FRESH: Final = TraceFlags(TraceFlags.RANDOM_TRACE_ID)  # not sampled
_PASSED_ON: Final = TraceFlags(TraceFlags.DEFAULT)


def tracer_provider(processors: Iterable[SpanProcessor] = ()) -> TracerProvider:
    """Spans go out by OTLP/HTTP if `OTEL_EXPORTER_OTLP_ENDPOINT` is set, and to the given processors.

    The other `OTEL_` variables (sampler, headers, resource attributes ...) are read by the SDK itself.
    """
    name = os.environ.get("OTEL_SERVICE_NAME") or SERVICE_NAME
    provider = TracerProvider(
        resource=Resource.create({"service.name": name}), id_generator=_IdGenerator(), shutdown_on_exit=False
    )
    provider.sampler = _LinkSampler(provider.sampler)
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


@dataclass(slots=True)  # not frozen: that would double what it costs to make one
class RequestTrace:
    """The trace of one request.

    Attributes:
        trace: Its number: the caller's, or a new one.
        own: The number of the request's span.
        span: What children and outgoing calls see; it records nothing when the trace is not kept.
        kept: The trace is sampled, so it is worth an exemplar.
        context: Holds the span.
    """

    trace: int
    own: int
    span: Span
    kept: bool
    context: Context

    @property
    def trace_id(self) -> str:
        """32 hexadecimal digits."""
        return f"{self.trace:032x}"

    @property
    def span_id(self) -> str:
        """16 hexadecimal digits."""
        return f"{self.own:016x}"


class RequestTracer:
    """Begins the trace of each request.

    Args:
        provider: One of `tracer_provider`.
    """

    def __init__(self, provider: TracerProvider) -> None:
        self._tracer = provider.get_tracer(TRACER_NAME)
        self._sampler = _environment_sampler(provider)
        self._follows_callers = isinstance(self._sampler, ParentBased)
        self._bound = _ratio_bound()

    def begin(
        self, carrier: Mapping[bytes, bytes], name: str, attributes: Callable[..., Attributes], *of: object
    ) -> RequestTrace:
        """Begin a trace, or continue the caller's; `span.end()` ends it.

        Args:
            carrier: The request's headers among `CARRIER_HEADERS`.
            name: Of the span.
            attributes: Asked only if the span is recorded.
            *of: What it is asked with.
        """
        parent, trace_id = _NOTHING, 0
        if carrier:
            found = _NOT_KEPT.fullmatch(carrier.get(TRACEPARENT, b"")) if self._follows_callers else None
            if found and TRACESTATE not in carrier:
                return self._not_kept(int(found[1], 16), _PASSED_ON)
            parent, trace_id = incoming(carrier)
        trace_id = trace_id or random.getrandbits(128) or 1
        if parent is _NOTHING and trace_id & TraceIdRatioBased.TRACE_ID_LIMIT >= self._bound:
            return self._not_kept(trace_id, _FRESH)
        if self._sampler.should_sample(parent, trace_id, name, SpanKind.SERVER).decision is Decision.DROP:
            return self._not_kept(trace_id, _PASSED_ON, get_current_span(parent).get_span_context().trace_state)
        with _decided(trace_id):
            span = self._tracer.start_span(
                name,
                context=parent,
                kind=SpanKind.SERVER,
                attributes=attributes(*of),
                record_exception=False,  # its message may hold data
                set_status_on_exception=False,
            )
        own = span.get_span_context()
        context = set_span_in_context(span, _NOTHING)
        return RequestTrace(own.trace_id, own.span_id, span, own.trace_flags.sampled, context)

    def _not_kept(self, trace_id: int, flags: TraceFlags, state: TraceState | None = None) -> RequestTrace:
        span_id = random.getrandbits(64) or 1
        span = _SilentSpan(trace_id, span_id, flags, state)
        return RequestTrace(trace_id, span_id, span, False, set_span_in_context(span, _NOTHING))  # noqa: FBT003 - by keyword it costs more


class _SilentSpan(NonRecordingSpan):
    """The span of a trace that is not kept; most of them are asked by nobody, so its context is made when it is."""

    def __init__(self, trace_id: int, span_id: int, flags: TraceFlags, state: TraceState | None) -> None:
        super().__init__(INVALID_SPAN_CONTEXT)
        self._ids = (trace_id, span_id)
        self._flags = flags
        self._state = state

    def get_span_context(self) -> SpanContext:
        return SpanContext(*self._ids, is_remote=False, trace_flags=self._flags, trace_state=self._state)


def incoming(carrier: Mapping[bytes, bytes]) -> tuple[Context, int]:
    """The caller's span and its trace id, from `traceparent` or else from `X-Amzn-Trace-Id`; nothing and 0 if none.

    A load balancer of AWS names a trace without a span: then there is an id, but no parent.
    """
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in carrier.items()}
    context = _W3C.extract(headers, context=_NOTHING)
    if context is not _NOTHING:
        return context, get_current_span(context).get_span_context().trace_id
    return xray_context(headers.get("x-amzn-trace-id", ""))


def xray_context(header: str) -> tuple[Context, int]:
    """Read `Root=1-8hex-24hex;Parent=16hex;Sampled=0|1`, in any order; other fields are passed over.

    Without `Parent`, or without a decision in `Sampled`, the sampling is ours to decide: there is an id, but no
    parent. Whatever is malformed is as if it were not there.
    """
    fields: dict[str, str] = {}
    for part in header.split(";", _XRAY_FIELDS_MAX):
        name, _, value = part.strip().partition("=")
        if name in fields:
            return _NOTHING, 0
        fields[name] = value
    root = _XRAY_ROOT.fullmatch(fields.get("Root", ""))
    if root is None or root[1] + root[2] == _NO_TRACE:
        return _NOTHING, 0
    trace_id = int(root[1] + root[2], 16)
    parent, sampled = fields.get("Parent", ""), fields.get("Sampled", "")
    if not _XRAY_PARENT.fullmatch(parent) or sampled not in ("0", "1"):
        return _NOTHING, trace_id
    remote = SpanContext(trace_id, int(parent, 16), is_remote=True, trace_flags=TraceFlags(int(sampled)))
    return set_span_in_context(NonRecordingSpan(remote), _NOTHING), trace_id


def outgoing_headers(context: SpanContext | None = None) -> dict[str, str]:
    """What a call to somebody else carries: `traceparent` (and `tracestate`), and `X-Amzn-Trace-Id` for AWS.

    Args:
        context: Whose span is the parent there; the current one if not given. Without any there is nothing to carry.
    """
    own = context or get_current_span().get_span_context()
    if not own.is_valid:
        return {}
    headers: dict[str, str] = {}
    _W3C.inject(headers, context=set_span_in_context(NonRecordingSpan(own), _NOTHING))
    trace_id = format_trace_id(own.trace_id)
    headers["X-Amzn-Trace-Id"] = (
        f"Root=1-{trace_id[:8]}-{trace_id[8:]};Parent={format_span_id(own.span_id)};Sampled={own.trace_flags.sampled:d}"
    )
    return headers


def recorded_span() -> SpanContext | None:
    """The current span, if it is one that is recorded."""
    span = get_current_span()
    return span.get_span_context() if span.is_recording() else None


@contextmanager
def batch_span(
    tracer: Tracer, name: str, attributes: Attributes, contexts: Sequence[SpanContext], *, alone: bool = False
) -> Iterator[Span]:
    """The span of one call that serves several requests; it records only if one of them is kept.

    A call for one request alone is a child of it. One for several belongs to none of them: it begins a trace of its
    own, and links to those that are kept.

    Args:
        tracer: One of a provider of `tracer_provider`.
        name: Of the span.
        attributes: Of the span.
        contexts: The requests' spans; those that are not kept may be left out.
        alone: The call is for one request only.
    """
    kept = [context for context in contexts if context.trace_flags.sampled]
    if not kept:
        yield INVALID_SPAN
        return
    with tracer.start_as_current_span(
        name,
        context=set_span_in_context(NonRecordingSpan(kept[0]), _NOTHING) if alone else _NOTHING,
        kind=SpanKind.CLIENT,
        attributes=attributes,
        links=() if alone else [Link(context) for context in kept],
        record_exception=False,  # its message may hold data
        set_status_on_exception=False,
    ) as span:
        yield span


@contextmanager
def continued(tracer: Tracer, name: str, traceparent: str | None) -> Iterator[None]:
    """A span of work that an earlier request asked for, in that request's trace; nothing if it is not kept."""
    parent, _ = incoming({TRACEPARENT: traceparent.encode()} if traceparent else {})
    if not get_current_span(parent).get_span_context().trace_flags.sampled:
        yield
        return
    with tracer.start_as_current_span(
        name, context=parent, kind=SpanKind.CONSUMER, record_exception=False, set_status_on_exception=False
    ):
        yield


_trace_id_decided: ContextVar[int] = ContextVar("trace_id_decided", default=0)


@contextmanager
def _decided(trace_id: int) -> Iterator[None]:
    """Within the block a trace that begins has this id: the sampler was asked about it."""
    token = _trace_id_decided.set(trace_id)
    try:
        yield
    finally:
        _trace_id_decided.reset(token)


class _IdGenerator(RandomIdGenerator):
    def generate_trace_id(self) -> int:
        return _trace_id_decided.get() or super().generate_trace_id()


class _LinkSampler(Sampler):
    """Asks the sampler of the environment, but for a span that links to traces that are kept: it is kept with them."""

    def __init__(self, sampler: Sampler) -> None:
        self.environment = sampler

    def should_sample(  # noqa: PLR0913, PLR0917 - the SDK's interface
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,
        trace_state: TraceState | None = None,
    ) -> SamplingResult:
        if links and any(link.context.trace_flags.sampled for link in links):
            return SamplingResult(Decision.RECORD_AND_SAMPLE, attributes, trace_state)
        return self.environment.should_sample(parent_context, trace_id, name, kind, attributes, links, trace_state)

    def get_description(self) -> str:
        return f"LinkSampler{{{self.environment.get_description()}}}"


def _ratio_bound() -> int:
    """A trace that begins here, with an id whose lower half is not below this, is not kept: so says the environment.

    The ratio samplers answer the same, at three times the cost. For others the bound is above every id.
    """
    if os.environ.get(OTEL_TRACES_SAMPLER, "").lower() not in ("traceidratio", "parentbased_traceidratio"):
        return TraceIdRatioBased.TRACE_ID_LIMIT + 1
    try:
        return TraceIdRatioBased(float(os.environ.get(OTEL_TRACES_SAMPLER_ARG, ""))).bound
    except ValueError:
        return TraceIdRatioBased.TRACE_ID_LIMIT + 1  # as the SDK, which keeps all then


def _environment_sampler(provider: TracerProvider) -> Sampler:
    sampler = provider.sampler
    return sampler.environment if isinstance(sampler, _LinkSampler) else sampler
