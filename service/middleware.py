"""The one place where a request is measured, traced, logged, and turned away when there are too many.

Plain ASGI, outside the framework: it sees the first byte and the last, and no exception passes it unseen.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from opentelemetry.context import attach, detach
from opentelemetry.semconv.attributes import (
    error_attributes,
    http_attributes,
    network_attributes,
    server_attributes,
    url_attributes,
)
from opentelemetry.trace import Span, Status, StatusCode
from prometheus_client import Counter, Histogram
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service import problems
from service.admission import Admission, Priority, Ticket
from service.logs import Level, Log, now, stack
from service.problems import ProblemError
from service.telemetry import Instruments
from service.tracing import CARRIER_HEADERS, RequestTrace, RequestTracer
from slo.metrics import (
    BAD_OUTCOMES,
    REDEEM_ROUTE,
    REDEMPTION_ADMISSION_LIMIT,
    REDEMPTION_REQUEST_DURATION,
    REDEMPTION_REQUESTS,
    REDEMPTION_REQUESTS_IN_FLIGHT,
    REDEMPTION_ROUTES,
    REDEMPTION_SHED,
)

QUIET_PATHS = frozenset({"/livez", "/readyz", "/metrics"})
"""Asked by machines every few seconds: neither measured, traced, logged nor turned away."""

HEADERS_MAX: Final = 64  # a browser behind two proxies sends about 30
HEADER_BYTES_MAX: Final = 8 * 1024  # as most servers; a token has 1 to 2 KiB

Handler = Callable[[Request], Awaitable[Response]]
"""Answers a request, or raises `ProblemError`."""

_PRIORITIES: Final = {
    REDEEM_ROUTE: Priority.REDEEM,
    "POST /v1/redemptions/{redemption_id}/capture": Priority.CRITICAL,
    "POST /v1/redemptions/{redemption_id}/void": Priority.CRITICAL,
    "POST /v1/redemptions/{redemption_id}/refunds": Priority.CRITICAL,
    "POST /v1/accruals:batch": Priority.BULK,
}
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"})
_OTHER_METHOD: Final = "_OTHER"  # the convention's word for a method that it does not know
_TEACHING: Final = frozenset({Priority.CRITICAL, Priority.REDEEM})  # the calls that are all alike, and the promise
_FAILED: Final = frozenset({"timeout", "error"})
_NOTE: Final = "redemption.note"
_RESPOND_ASYNC: Final = b"respond-async"  # RFC 7240, 4.1

DEFERRING_MAX: Final = 200
"""Requests beyond the limit that are on their way into the queue at once."""


@dataclass(frozen=True, slots=True)
class Route:
    """What is known of a request by its method and path.

    Attributes:
        name: `METHOD /template`, one of `slo.metrics.REDEMPTION_ROUTES`; None for what is not counted.
        priority: What it is worth when not all can be served; what asks and changes nothing is a read.
    """

    name: str | None
    priority: Priority


UNKNOWN_ROUTE: Final = Route(None, Priority.READ)


class RouteTable:
    """Finds routes: those without a variable part by one look, the others by one expression a method."""

    def __init__(self, names: Iterable[str]) -> None:
        routes = [Route(name, _PRIORITIES.get(name, Priority.READ)) for name in names]
        self._fixed = {tuple(str(route.name).split(" ")): route for route in routes if "{" not in str(route.name)}
        self._routes = {f"r{number}": route for number, route in enumerate(routes)}
        patterns: dict[str, list[str]] = {}
        for group, route in self._routes.items():
            method, _, template = str(route.name).partition(" ")
            path = re.sub(r"\\\{\w+\\\}", "[^/]+", re.escape(template))
            patterns.setdefault(method, []).append(f"(?P<{group}>{path})")
        self._patterns = {method: re.compile("|".join(each)) for method, each in patterns.items()}

    def find(self, method: str, path: str) -> Route:
        """The route, or `UNKNOWN_ROUTE`."""
        if fixed := self._fixed.get((method, path)):
            return fixed
        pattern = self._patterns.get(method)
        found = pattern.fullmatch(path) if pattern else None
        return self._routes[found.lastgroup] if found and found.lastgroup else UNKNOWN_ROUTE


ROUTES: Final = RouteTable(REDEMPTION_ROUTES)


@dataclass(slots=True)
class Note:
    """What is known about a request so far; routes add to it.

    Attributes:
        trace: Its id is the same in log, problem, exemplar and span.
        route: `METHOD /template`, one of `slo.metrics.REDEMPTION_ROUTES`; None for what is not counted.
        outcome: One of the outcomes of `slo.metrics`; without it `deferred` and then the status decide.
        code: Of the problem, if there was one.
        client_id: Who asks; logged as it is.
        account_id: Hashed before it is logged.
        redemption_id: Which redemption.
        replayed: The answer came from an earlier request.
        beyond_limit: It came in for the queue only.
        deferred: The redemption waits in the queue.
        ledger_seconds: Time in the ledger, its queue included; None if it was not asked. What the adaptive limit
            learns from.
    """

    trace: RequestTrace
    route: str | None
    outcome: str | None = None
    code: str | None = None
    client_id: str | None = None
    account_id: str | None = None
    redemption_id: str | None = None
    replayed: bool | None = None
    beyond_limit: bool = False
    deferred: bool = False
    ledger_seconds: float | None = None


def note_of(scope: Scope) -> Note | None:
    """The note of this request; None on the quiet paths."""
    note: Note | None = scope.get(_NOTE)
    return note


def problem_response(scope: Scope, error: ProblemError) -> Response:
    """The answer that tells the caller; what the problem is goes into the request's note."""
    note = note_of(scope)
    if note is None:
        return problems.response(error, None)
    note.outcome, note.code = error.kind.outcome, error.kind.code
    return problems.response(error, note.trace.trace_id)


class Observer:
    """Where what is seen of requests goes.

    Args:
        instruments: Metrics.
        tracer: Traces.
        log: Lines.
        account_hash: Turns an account id into what may be logged.
    """

    def __init__(
        self, instruments: Instruments, tracer: RequestTracer, log: Log, account_hash: Callable[[str], str]
    ) -> None:
        self.instruments = instruments
        self.tracer = tracer
        self.log = log
        self.account_hash = account_hash
        # In this turn of the loop: how long each took.
        self._counted: defaultdict[tuple[Counter, Histogram], list[float]] = defaultdict(list)
        # Found once: a request pays for the adding alone.
        self._series = {
            (labels["route"], labels["outcome"]): (
                instruments.counter(REDEMPTION_REQUESTS, **labels),
                instruments.histogram(REDEMPTION_REQUEST_DURATION, **labels),
            )
            for labels in REDEMPTION_REQUESTS.label_sets()
        }
        self._shed = {
            (priority, reason): instruments.counter(REDEMPTION_SHED, priority=priority.name.lower(), reason=reason)
            for priority in Priority
            for reason in REDEMPTION_SHED.labels["reason"]
        }

    def count(self, route: str | None, outcome: str, seconds: float, *, trace_id: str | None = None) -> None:
        """Count a request, at the end of this turn of the loop: many in a row cost half of what each would alone.

        The id of a trace that is kept becomes the exemplar. Only known routes are counted.
        """
        if route is None:
            return
        series = requests, duration = self._series[route, outcome]
        if trace_id is not None:
            requests.inc(1, {"trace_id": trace_id})
            duration.observe(seconds, {"trace_id": trace_id})
            return
        if not self._counted:
            asyncio.get_running_loop().call_soon(self.count_now)
        self._counted[series].append(seconds)

    def count_now(self) -> None:
        """Count what is not counted yet."""
        counted, self._counted = self._counted, defaultdict(list)
        for (requests, duration), times in counted.items():
            requests.inc(len(times))
            for seconds in times:
                duration.observe(seconds)

    def count_shed(self, priority: Priority, reason: str) -> None:
        """Count why a request was turned away."""
        self._shed[priority, reason].inc()


class RequestMiddleware:
    """Wraps the application.

    Args:
        app: The application.
        observer: Where what is seen goes.
        admission: Who may come in; the others are turned away before their bodies are read.
        direct: Routes, by their names, that are answered by these handlers and not by the application: the
            framework's own routing costs more than all else on the way to the ledger.
        defers: Whether there is a queue for what is beyond the limit.
    """

    def __init__(
        self,
        app: ASGIApp,
        observer: Observer,
        admission: Admission,
        direct: Mapping[str, Handler] | None = None,
        defers: Callable[[], bool] = lambda: False,
    ) -> None:
        self._app = app
        self._observer = observer
        self._admission = admission
        self._direct = dict(direct or {})
        self._defers = defers
        self._deferring = 0
        observer.instruments.read(REDEMPTION_REQUESTS_IN_FLIGHT, lambda: admission.in_flight)
        observer.instruments.read(REDEMPTION_ADMISSION_LIMIT, lambda: admission.limit)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or scope["path"] in QUIET_PATHS:
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        route = ROUTES.find(scope["method"], scope["path"])
        carrier, fits = _read_headers(scope["headers"])
        trace = self._observer.tracer.begin(carrier, route.name or _method(scope, "HTTP"), _attributes, scope, route)
        scope[_NOTE] = note = Note(trace, route.name)
        reply = _Reply(send)
        error: BaseException | None = None
        ticket: Ticket | None = None
        token = attach(trace.context)
        try:
            if not fits:
                await problem_response(scope, ProblemError(problems.HEADERS_TOO_LARGE))(scope, receive, reply)
            elif ticket := self._admission.try_enter(route.priority):
                await self._answer(route, scope, receive, reply)
            elif self._may_defer(route, scope):
                await self._defer(route, scope, receive, reply)
            else:
                await self._refuse(route, scope, receive, reply)
        except ClientDisconnect:
            note.outcome = "invalid"  # nobody is there any more
        except BaseException as caught:
            error = caught
            note.outcome = "error"
            if reply.status or not isinstance(caught, Exception):
                raise  # half an answer is out, or the server gave the request up
            await problem_response(scope, ProblemError(problems.INTERNAL))(scope, receive, reply)
        finally:
            seconds = time.perf_counter() - started
            outcome = note.outcome = note.outcome or _outcome(note, reply.status)
            if ticket:
                _leave(ticket, route.priority, note, outcome)
            self._observer.count(route.name, outcome, seconds, trace_id=trace.trace_id if trace.kept else None)
            _end(trace.span, reply.status, error)
            _write(self._observer, scope, note, trace, reply.status, seconds, error)
            detach(token)

    async def _answer(self, route: Route, scope: Scope, receive: Receive, reply: _Reply) -> None:
        handler = self._direct.get(route.name) if route.name else None
        if handler is None:
            await self._app(scope, receive, reply)
            return
        try:
            response = await handler(Request(scope, receive))
        except ProblemError as error:
            response = problem_response(scope, error)
        await response(scope, receive, reply)

    def _may_defer(self, route: Route, scope: Scope) -> bool:
        return (
            self._deferring < DEFERRING_MAX
            and self._admission.refusal_reason != "draining"
            and asks_to_defer(route, scope["headers"])
            and self._defers()
        )

    async def _defer(self, route: Route, scope: Scope, receive: Receive, reply: _Reply) -> None:
        """Have it put into the queue, which has room when the ledger has none."""
        scope[_NOTE].beyond_limit = True
        self._deferring += 1
        try:
            await self._answer(route, scope, receive, reply)
        finally:
            self._deferring -= 1

    async def _refuse(self, route: Route, scope: Scope, receive: Receive, reply: _Reply) -> None:
        reason = self._admission.refusal_reason
        self._observer.count_shed(route.priority, reason)
        kind = problems.DRAINING if reason == "draining" else problems.OVERLOADED
        headers = {"Retry-After": str(self._admission.retry_after_seconds())}
        await problem_response(scope, ProblemError(kind, headers=headers))(scope, receive, reply)


def asks_to_defer(route: Route, headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Whether it is a redemption whose caller would rather wait than be turned away: `Prefer: respond-async`."""
    return route.name == REDEEM_ROUTE and any(
        name == b"prefer" and _RESPOND_ASYNC in (one.strip().lower() for one in value.split(b","))
        for name, value in headers
    )


def _read_headers(headers: Sequence[tuple[bytes, bytes]]) -> tuple[dict[bytes, bytes], bool]:
    """The headers that tell the trace, and whether all of them are within the limits."""
    carrier: dict[bytes, bytes] = {}
    fits = len(headers) <= HEADERS_MAX
    for name, value in headers if fits else ():
        if len(name) + len(value) > HEADER_BYTES_MAX:
            fits = False
        elif name in CARRIER_HEADERS:
            # Repeated ones are one list (RFC 9110, 5.3): so a second `traceparent` makes both unreadable.
            carrier[name] = carrier[name] + b"," + value if name in carrier else value
    return carrier, fits


def _attributes(scope: Scope, route: Route) -> dict[str, str | int]:
    attributes: dict[str, str | int] = {
        http_attributes.HTTP_REQUEST_METHOD: _method(scope),
        url_attributes.URL_SCHEME: scope.get("scheme", "http"),
        network_attributes.NETWORK_PROTOCOL_VERSION: scope.get("http_version", "1.1"),
    }
    if scope.get("server"):
        attributes[server_attributes.SERVER_ADDRESS] = scope["server"][0]
        attributes[server_attributes.SERVER_PORT] = scope["server"][1] or 0
    if route.name:
        template = route.name.partition(" ")[2]
        attributes[http_attributes.HTTP_ROUTE] = template
        attributes[url_attributes.URL_PATH] = template  # the real one may hold an account id
    return attributes


def _leave(ticket: Ticket, priority: Priority, note: Note, outcome: str) -> None:
    """Give the place back, and let the limit learn: from the ledger's time alone, never from a caller's slow body.

    Reads and accruals teach nothing: how long one takes is up to who asks. Nor does what went into the queue.
    """
    if priority not in _TEACHING or note.deferred or note.ledger_seconds is None:
        ticket.leave(None)
    else:
        ticket.leave(note.ledger_seconds, dropped=outcome in _FAILED)


def _write(  # noqa: PLR0913, PLR0917 - one line has that many sources
    observer: Observer,
    scope: Scope,
    note: Note,
    trace: RequestTrace,
    status: int,
    seconds: float,
    error: BaseException | None,
) -> None:
    level: Level = "warning" if note.outcome in BAD_OUTCOMES else "info"
    fields: dict[str, object] = {
        "timestamp": now(),
        "level": level,
        "event": "request",
        "trace_id": trace.trace_id,
        "span_id": trace.span_id,
        "method": _method(scope),
        "outcome": note.outcome,
        "duration_seconds": int(seconds * 1e6) / 1e6,  # a quarter of what round() costs
    }
    if note.route:
        fields["route"] = note.route
    if status:
        fields["status"] = status
    if note.client_id:
        fields["client"] = note.client_id
    if note.account_id:
        fields["account"] = observer.account_hash(note.account_id)
    if note.redemption_id:
        fields["redemption_id"] = note.redemption_id
    if note.replayed is not None:
        fields["replayed"] = note.replayed
    if note.code:
        fields["code"] = note.code
    if error:
        fields["error"] = type(error).__name__
        fields["stack"] = stack(error)
    observer.log.write(level, fields)


class _Reply:
    """The way back, which remembers the status that went along."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.status = 0

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
        await self._send(message)


def _method(scope: Scope, other: str = _OTHER_METHOD) -> str:
    return scope["method"] if scope["method"] in _METHODS else other


def _outcome(note: Note, status: int) -> str:
    if note.deferred or status == 202:  # noqa: PLR2004 - HTTP's own numbers
        return "deferred"
    if status == 429:  # noqa: PLR2004 - as above
        return "limited"
    if not status or status >= 500:  # noqa: PLR2004 - as above
        return "error"
    return "invalid" if status >= 400 else "ok"  # noqa: PLR2004 - as above


def _end(span: Span, status: int, error: BaseException | None) -> None:
    if not span.is_recording():
        return
    if status:
        span.set_attribute(http_attributes.HTTP_RESPONSE_STATUS_CODE, status)
    if error is not None or not status or status >= 500:  # noqa: PLR2004 - as above
        span.set_attribute(error_attributes.ERROR_TYPE, type(error).__qualname__ if error else str(status))
        span.set_status(Status(StatusCode.ERROR))
    span.end()
