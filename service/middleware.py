"""The one place where a request is measured, traced, logged, and turned away when there are too many.

Plain ASGI, outside the framework: it sees the first byte and the last, and no exception passes it unseen.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

from opentelemetry.semconv.attributes import (
    error_attributes,
    http_attributes,
    network_attributes,
    server_attributes,
    url_attributes,
)
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer, format_span_id
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service import problems, tracing
from service.logs import Log, stack
from service.telemetry import Instruments
from slo.metrics import (
    BAD_OUTCOMES,
    REDEMPTION_REQUEST_DURATION,
    REDEMPTION_REQUESTS,
    REDEMPTION_REQUESTS_IN_FLIGHT,
    REDEMPTION_ROUTES,
)

QUIET_PATHS = frozenset({"/livez", "/readyz", "/metrics"})
"""Asked by machines every few seconds: neither measured, traced, logged nor turned away."""

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"})
_OTHER_METHOD = "_OTHER"  # the convention's word for a method that it does not know
_NOTE = "redemption.note"


@dataclass(slots=True)
class Note:
    """What is known about a request so far; routes add to it.

    Attributes:
        trace_id: The same in log, problem, exemplar and span.
        route: `METHOD /template`, one of `slo.metrics.REDEMPTION_ROUTES`; None for what is not counted.
        outcome: One of the outcomes of `slo.metrics`; without it the status decides.
        code: Of the problem, if there was one.
        account_id: Hashed before it is logged.
        redemption_id: Which redemption.
        replayed: The answer came from an earlier request.
    """

    trace_id: str
    route: str | None
    outcome: str | None = None
    code: str | None = None
    account_id: str | None = None
    redemption_id: str | None = None
    replayed: bool | None = None


def note_of(scope: Scope) -> Note | None:
    """The note of this request; None on the quiet paths."""
    note: Note | None = scope.get(_NOTE)
    return note


@dataclass(frozen=True, slots=True)
class Observer:
    """Where what is seen of requests goes.

    Attributes:
        instruments: Metrics.
        tracer: Spans.
        log: Lines.
        account_hash: Turns an account id into what may be logged.
    """

    instruments: Instruments
    tracer: Tracer
    log: Log
    account_hash: Callable[[str], str]


class RequestMiddleware:
    """Wraps the application.

    Args:
        app: The application.
        observer: Where what is seen goes.
        in_flight_max: Requests worked on at once; more are turned away, before their bodies are read.
    """

    def __init__(self, app: ASGIApp, observer: Observer, in_flight_max: int) -> None:
        self._app = app
        self._observer = observer
        self._in_flight_max = in_flight_max
        self._in_flight = 0
        observer.instruments.read(REDEMPTION_REQUESTS_IN_FLIGHT, lambda: self._in_flight)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or scope["path"] in QUIET_PATHS:
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        route = _route(scope["method"], scope["path"])
        with _span(self._observer.tracer, scope, route) as span:
            scope[_NOTE] = note = Note(tracing.trace_id(span), route)
            reply = _Reply(send)
            error: BaseException | None = None
            self._in_flight += route is not None
            try:
                await self._serve(scope, receive, reply)
            except BaseException as caught:
                error = caught
                note.outcome = "error"
                if reply.status or not isinstance(caught, Exception):
                    raise  # half an answer is out, or the server gave the request up
                await _refuse(scope, receive, reply, problems.INTERNAL)
            finally:
                self._in_flight -= route is not None
                seconds = time.perf_counter() - started
                _measure(self._observer.instruments, note, reply.status, seconds)
                _end(span, reply.status, error)
                _write(self._observer, scope, span, reply.status, seconds, error)

    async def _serve(self, scope: Scope, receive: Receive, reply: _Reply) -> None:
        if scope[_NOTE].route is not None and self._in_flight > self._in_flight_max:
            await _refuse(scope, receive, reply, problems.OVERLOADED)
        else:
            await self._app(scope, receive, reply)


async def _refuse(scope: Scope, receive: Receive, reply: _Reply, kind: problems.Kind) -> None:
    note = scope[_NOTE]
    note.outcome, note.code = kind.outcome, kind.code
    await problems.response(problems.ProblemError(kind), note.trace_id)(scope, receive, reply)


def _span(tracer: Tracer, scope: Scope, route: str | None) -> AbstractContextManager[Span]:
    method = _method(scope)
    attributes: dict[str, str | int] = {
        http_attributes.HTTP_REQUEST_METHOD: method,
        url_attributes.URL_SCHEME: scope.get("scheme", "http"),
        network_attributes.NETWORK_PROTOCOL_VERSION: scope.get("http_version", "1.1"),
    }
    if scope.get("server"):
        attributes[server_attributes.SERVER_ADDRESS] = scope["server"][0]
        attributes[server_attributes.SERVER_PORT] = scope["server"][1] or 0
    if route:
        template = route.partition(" ")[2]
        attributes[http_attributes.HTTP_ROUTE] = template
        attributes[url_attributes.URL_PATH] = template  # the real one may hold an account id
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
    return tracer.start_as_current_span(
        route or ("HTTP" if method == _OTHER_METHOD else method),
        context=tracing.incoming_context(headers),
        kind=SpanKind.SERVER,
        attributes=attributes,
        record_exception=False,  # its message may hold data
        set_status_on_exception=False,
    )


def _measure(instruments: Instruments, note: Note, status: int, seconds: float) -> None:
    note.outcome = note.outcome or _outcome(status)
    if note.route is None:
        return
    trace_id = tracing.sampled_trace_id()
    instruments.count(REDEMPTION_REQUESTS, 1, trace_id=trace_id, route=note.route, outcome=note.outcome)
    instruments.observe(REDEMPTION_REQUEST_DURATION, seconds, trace_id=trace_id, route=note.route, outcome=note.outcome)


def _write(  # noqa: PLR0913, PLR0917 - one line has that many sources
    observer: Observer, scope: Scope, span: Span, status: int, seconds: float, error: BaseException | None
) -> None:
    note: Note = scope[_NOTE]
    observer.log.log(
        logging.WARNING if note.outcome in BAD_OUTCOMES else logging.INFO,
        "request",
        trace_id=note.trace_id,
        span_id=format_span_id(span.get_span_context().span_id),
        method=_method(scope),
        route=note.route,
        status=status or None,
        outcome=note.outcome,
        code=note.code,
        duration_seconds=round(seconds, 6),
        account=observer.account_hash(note.account_id) if note.account_id else None,
        redemption_id=note.redemption_id,
        replayed=note.replayed,
        error=type(error).__name__ if error else None,
        stack=stack(error) if error else None,
    )


class _Reply:
    """The way back, which remembers the status that went along."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.status = 0

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
        await self._send(message)


def _method(scope: Scope) -> str:
    return scope["method"] if scope["method"] in _METHODS else _OTHER_METHOD


def _outcome(status: int) -> str:
    if not status or status >= 500:  # noqa: PLR2004 - HTTP's own classes
        return "error"
    return "invalid" if status >= 400 else "ok"  # noqa: PLR2004 - as above


def _end(span: Span, status: int, error: BaseException | None) -> None:
    if status:
        span.set_attribute(http_attributes.HTTP_RESPONSE_STATUS_CODE, status)
    if error is not None or not status or status >= 500:  # noqa: PLR2004 - as above
        span.set_attribute(error_attributes.ERROR_TYPE, type(error).__qualname__ if error else str(status))
        span.set_status(Status(StatusCode.ERROR))


def _template(route: str) -> tuple[str, re.Pattern[str], str]:
    method, _, path = route.partition(" ")
    return method, re.compile(re.sub(r"\\\{\w+\\\}", "[^/]+", re.escape(path))), route


_TEMPLATES = tuple(_template(route) for route in REDEMPTION_ROUTES)


def _route(method: str, path: str) -> str | None:
    for known, pattern, route in _TEMPLATES:
        if method == known and pattern.fullmatch(path):
            return route
    return None
