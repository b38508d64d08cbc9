"""The front of the service, before any route: measured by route, admitted by priority, answered in one form."""

from __future__ import annotations

import asyncio
import io
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

import httpx
import orjson
import pytest
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client.parser import text_string_to_metric_families
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service import problems, tracing
from service.admission import AdaptiveLimit, Admission, Priority, Ticket
from service.logs import account_hash, create_log
from service.middleware import (
    HEADER_BYTES_MAX,
    HEADERS_MAX,
    ROUTES,
    UNKNOWN_ROUTE,
    Handler,
    Note,
    Observer,
    RequestMiddleware,
    note_of,
)
from service.problems import ProblemError
from service.telemetry import Instruments
from slo.metrics import REDEEM_ROUTE, REDEMPTION_METRICS, REDEMPTION_ROUTES

pytestmark = pytest.mark.anyio

BALANCE_ROUTE = "GET /v1/accounts/{account_id}/balance"


@dataclass(slots=True)
class Front:
    """The parts of the front, and what they told."""

    admission: Admission
    observer: Observer
    instruments: Instruments
    log: io.BytesIO
    spans: InMemorySpanExporter

    def sample(self, name: str, **labels: str) -> float:
        """One sample's value."""
        self.observer.count_now()
        for family in text_string_to_metric_families(self.instruments.exposition("")[0].decode()):
            for sample in family.samples:
                if sample.name == name and sample.labels == labels:
                    return float(sample.value)
        raise AssertionError(f"no sample {name} {labels}")

    def lines(self) -> list[dict[str, Any]]:
        """The log so far."""
        return [orjson.loads(line) for line in self.log.getvalue().splitlines()]

    def client(self, app: ASGIApp, direct: Mapping[str, Handler] | None = None) -> httpx.AsyncClient:
        """A client of an application behind the middleware."""
        wrapped = RequestMiddleware(app, self.observer, self.admission, direct)
        return httpx.AsyncClient(transport=httpx.ASGITransport(wrapped), base_url="http://service")

    def fill(self, priority: Priority) -> list[Ticket]:
        """Take every place that a priority may have."""
        tickets = []
        while ticket := self.admission.try_enter(priority):
            tickets.append(ticket)
        return tickets


def new_front(limit: int = 8) -> Front:
    """A front whose limit is this."""
    spans, log, instruments = InMemorySpanExporter(), io.BytesIO(), Instruments(REDEMPTION_METRICS)
    provider = tracing.tracer_provider([SimpleSpanProcessor(spans)])
    observer = Observer(instruments, tracing.RequestTracer(provider), create_log(log), account_hash(b"k" * 32))
    adaptive = AdaptiveLimit(floor=limit, ceiling=limit, target_seconds=10, limit=limit)
    return Front(Admission(adaptive, time.monotonic), observer, instruments, log, spans)


@pytest.fixture
def front() -> Front:
    """With places for eight."""
    return new_front()


def _note(scope: Scope) -> Note:
    note = note_of(scope)
    assert note is not None
    return note


async def _hello(scope: Scope, receive: Receive, send: Send) -> None:
    await JSONResponse({"hello": _note(scope).route})(scope, receive, send)


async def test_every_route_is_found_with_its_priority() -> None:
    """Each template of the catalogue is found by a path, and what ends a hold is worth most, what is bulk least."""
    found = {}
    for name in REDEMPTION_ROUTES:
        method, _, template = name.partition(" ")
        path = (
            template.replace("{redemption_id}", "0f3a").replace("{account_id}", "a-1").replace("{reference}", "d_x.y")
        )
        route = ROUTES.find(method, path)
        assert route.name == name
        found[name] = route.priority
    assert {name for name, priority in found.items() if priority is Priority.CRITICAL} == {
        f"POST /v1/redemptions/{{redemption_id}}/{verb}" for verb in ("capture", "void", "refunds")
    }
    assert [name for name, priority in found.items() if priority is Priority.REDEEM] == [REDEEM_ROUTE]
    assert [name for name, priority in found.items() if priority is Priority.BULK] == ["POST /v1/accruals:batch"]
    assert {name.partition(" ")[0] for name, priority in found.items() if priority is Priority.READ} == {"GET"}


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/"),
        ("DELETE", "/v1/redemptions"),
        ("BREW", "/v1/redemptions"),
        ("POST", "/v1/redemptions/"),
        ("GET", "/v1/redemptions/a/b/status"),
        ("GET", "/v1/accounts//balance"),
        ("GET", "/v1/accounts/a/balance/more"),
        ("GET", "/more/v1/accounts/a/balance"),
        ("POST", "/v1/accounts/a/balance"),
        ("POST", "/v1/accrualsXbatch"),
    ],
)
async def test_what_is_no_route_is_a_read(method: str, path: str) -> None:
    """Another method or path is unknown: it is not counted, and worth no more than a read."""
    assert ROUTES.find(method, path) is UNKNOWN_ROUTE
    assert UNKNOWN_ROUTE.priority is Priority.READ


async def test_without_a_place_a_request_is_refused_before_its_body_is_read(front: Front) -> None:
    """A refused caller is told when to come back; its body was not touched, and it counts as shed by priority."""

    async def body() -> AsyncIterator[bytes]:
        raise AssertionError("read")
        yield b""

    tickets = front.fill(Priority.CRITICAL)
    async with front.client(_hello) as client:
        answer = await client.post("/v1/redemptions", content=body())
        assert (answer.status_code, answer.json()["code"]) == (503, "overloaded")
        assert answer.json()["trace_id"] == front.lines()[0]["trace_id"]
        assert 1 <= int(answer.headers["Retry-After"]) <= 60
        assert front.sample("redemption_shed_total", priority="redeem", reason="overloaded") == 1
        assert front.sample("redemption_requests_total", route=REDEEM_ROUTE, outcome="shed") == 1
        assert front.sample("redemption_requests_in_flight") == 8
        for ticket in tickets:
            ticket.leave(None)
        assert (await client.post("/v1/redemptions")).status_code == 200
    assert front.sample("redemption_requests_in_flight") == 0


async def test_the_less_important_is_refused_first(front: Front) -> None:
    """When reads are turned away, redemptions still come in, and captures when these do not."""
    async with front.client(_hello) as client:

        async def statuses() -> list[int]:
            asked = [
                ("POST", "/v1/redemptions/x/capture"),
                ("POST", "/v1/redemptions"),
                ("GET", "/v1/redemptions"),
                ("POST", "/v1/accruals:batch"),
            ]
            return [(await client.request(method, path)).status_code for method, path in asked]

        assert await statuses() == [200, 200, 200, 200]
        front.fill(Priority.BULK)
        assert await statuses() == [200, 200, 200, 503]
        front.fill(Priority.READ)
        assert await statuses() == [200, 200, 503, 503]


async def test_a_draining_server_says_so(front: Front) -> None:
    """Once it drains, whatever comes is refused with a reason of its own, and only the probes are answered."""
    front.admission.drain()
    async with front.client(_probe) as client:
        answer = await client.post("/v1/redemptions/x/void")
        assert (answer.status_code, answer.json()["code"], answer.json()["retryable"]) == (503, "draining", True)
        assert "Retry-After" in answer.headers
        assert (await client.get("/livez")).status_code == 200
    assert front.sample("redemption_shed_total", priority="critical", reason="draining") == 1


async def _probe(scope: Scope, receive: Receive, send: Send) -> None:
    assert note_of(scope) is None
    await Response("live")(scope, receive, send)


async def test_a_direct_route_is_answered_without_the_application(front: Front) -> None:
    """Its handler answers; its problems, its faults and its measures are those of any other route."""

    async def redeem(request: Request) -> Response:
        wanted = (await request.body()).decode()
        _note(request.scope).account_id = "guest-1"
        if wanted == "problem":
            raise ProblemError(problems.INSUFFICIENT_POINTS, members={"balance": 3})
        if wanted == "fault":
            raise RuntimeError("the secret is 4711")
        return JSONResponse({"hello": "directly"}, 201)

    async with front.client(_hello, {REDEEM_ROUTE: redeem}) as client:
        done = await client.post("/v1/redemptions", content=b"")
        problem = await client.post("/v1/redemptions", content=b"problem")
        fault = await client.post("/v1/redemptions", content=b"fault")
        other = await client.get("/v1/accounts/a/balance")
    assert (done.status_code, done.json()) == (201, {"hello": "directly"})
    assert (problem.status_code, problem.json()["code"], problem.json()["balance"]) == (422, "insufficient-points", 3)
    assert (fault.status_code, fault.json()["code"]) == (500, "internal-error")
    assert other.json() == {"hello": BALANCE_ROUTE}
    for answer, line in zip((done, problem, fault), front.lines(), strict=False):
        assert line["route"] == REDEEM_ROUTE
        assert line["status"] == answer.status_code
        assert line["account"]
    assert [line["outcome"] for line in front.lines()] == ["ok", "refused", "error", "ok"]
    assert "4711" not in fault.text + front.log.getvalue().decode()
    for outcome in ("ok", "refused", "error"):
        assert front.sample("redemption_requests_total", route=REDEEM_ROUTE, outcome=outcome) == 1


@pytest.mark.parametrize(
    ("status", "changes", "outcome"),
    [
        (200, {}, "ok"),
        (202, {}, "deferred"),
        (400, {}, "invalid"),
        (429, {}, "limited"),
        (504, {}, "error"),
        (200, {"deferred": True}, "deferred"),
        (202, {"outcome": "ok"}, "ok"),
        (429, {"outcome": "refused"}, "refused"),
    ],
)
async def test_the_outcome_is_what_the_route_said_or_the_status(
    front: Front, status: int, changes: dict[str, Any], outcome: str
) -> None:
    """What a route notes goes before what the status tells; deferred and limited have a status of their own."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for name, value in changes.items():
            setattr(_note(scope), name, value)
        await Response(status_code=status)(scope, receive, send)

    async with front.client(app) as client:
        await client.get("/v1/accounts/a/balance")
    assert front.lines()[0]["outcome"] == outcome
    assert front.sample("redemption_requests_total", route=BALANCE_ROUTE, outcome=outcome) == 1


async def test_the_log_names_the_client_and_hides_the_account(front: Front) -> None:
    """The partner who asked is in the line as it is, the guest's account only as a stand-in."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        note = _note(scope)
        note.client_id, note.account_id = "shop-7", "guest-1"
        await Response()(scope, receive, send)

    async with front.client(app) as client:
        await client.get("/v1/accounts/guest-1/balance")
    line = front.lines()[0]
    assert (line["client"], len(line["account"])) == ("shop-7", 16)
    assert "guest-1" not in front.log.getvalue().decode()


class _Tickets(Admission):
    """Keeps what tickets were given back with."""

    def __init__(self) -> None:
        super().__init__(AdaptiveLimit(floor=8, ceiling=8, target_seconds=10, limit=8), time.monotonic)
        self.given_back: list[tuple[float | None, bool]] = []

    def _left(self, latency_seconds: float | None, *, dropped: bool) -> None:
        self.given_back.append((latency_seconds, dropped))
        super()._left(latency_seconds, dropped=dropped)


@pytest.mark.parametrize(
    ("changes", "latency", "dropped"),
    [
        ({"outcome": "ok", "ledger_seconds": 0.25}, 0.25, False),
        ({"outcome": "refused", "ledger_seconds": 0.25}, 0.25, False),
        ({"outcome": "timeout", "ledger_seconds": 0.25}, 0.25, True),
        ({"outcome": "error", "ledger_seconds": 0.25}, 0.25, True),
        ({"deferred": True, "ledger_seconds": 0.25}, None, False),
        ({"deferred": True, "outcome": "error", "ledger_seconds": 0.25}, None, False),
        ({"outcome": "ok"}, None, False),
        ({"outcome": "refused"}, None, False),
        ({"outcome": "invalid"}, None, False),
        ({"outcome": "limited"}, None, False),
        ({"outcome": "timeout"}, None, False),
        ({"outcome": "error"}, None, False),
    ],
)
@pytest.mark.parametrize("path", ["/v1/redemptions", "/v1/redemptions/a/capture"])
async def test_the_limit_learns_from_the_ledger_alone(
    front: Front,
    path: str,
    changes: dict[str, Any],
    latency: float | None,
    dropped: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    """It is told the time in the ledger; what did not ask it teaches nothing, nor does what went into the queue."""
    assert await _taught(front, "POST", path, changes) == (latency, dropped)


@pytest.mark.parametrize("outcome", ["ok", "timeout", "error"])
@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/v1/accounts/a/balance"), ("GET", "/v1/redemptions"), ("POST", "/v1/accruals:batch"), ("GET", "/other")],
)
async def test_reads_and_accruals_teach_the_limit_nothing(front: Front, method: str, path: str, outcome: str) -> None:
    """Long ones, or ones that fail, take no place away from redemptions."""
    assert await _taught(front, method, path, {"outcome": outcome, "ledger_seconds": 9.0}) == (None, False)


async def _taught(front: Front, method: str, path: str, changes: dict[str, Any]) -> tuple[float | None, bool]:
    """What the limit learns from a request about which this is noted."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for name, value in changes.items():
            setattr(_note(scope), name, value)
        await Response()(scope, receive, send)

    front.admission = tickets = _Tickets()
    async with front.client(app) as client:
        await client.request(method, path)
    [given_back] = tickets.given_back
    assert tickets.in_flight == 0
    return given_back


@pytest.mark.parametrize("error", [RuntimeError("broken"), asyncio.CancelledError()])
async def test_a_place_is_given_back_whatever_happens(front: Front, error: BaseException) -> None:
    """A fault of ours, or a request that the server gives up, frees its place too."""

    async def app(*_: object) -> None:
        raise error

    async with front.client(app) as client:
        try:
            await client.get("/v1/accounts/a/balance")
        except asyncio.CancelledError:
            assert isinstance(error, asyncio.CancelledError)
    assert front.admission.in_flight == 0
    assert front.lines()[0]["outcome"] == "error"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([(b"x-more", b"1")] * HEADERS_MAX, 200),
        ([(b"x-more", b"1")] * (HEADERS_MAX + 1), 431),
        ([(b"x-more", b"a" * (HEADER_BYTES_MAX - 6))], 200),
        ([(b"x-more", b"a" * (HEADER_BYTES_MAX - 5))], 431),
        ([(b"a" * HEADER_BYTES_MAX, b"1")], 431),
    ],
)
async def test_headers_are_bounded(front: Front, headers: list[tuple[bytes, bytes]], status: int) -> None:
    """More than 64 headers, or one above 8 KiB, is the caller's mistake, and no place is taken for it."""
    sent: list[Message] = []

    async def receive() -> Message:
        raise AssertionError("read")

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "GET", "path": "/v1/accounts/a/balance", "headers": headers}
    await RequestMiddleware(_hello, front.observer, front.admission)(scope, receive, send)
    assert sent[0]["status"] == status
    if status != 200:
        assert orjson.loads(sent[1]["body"])["code"] == "headers-too-large"
        assert front.lines()[0]["outcome"] == "invalid"


async def test_a_caller_who_went_away_is_no_error_of_ours(front: Front) -> None:
    """When the connection ends in the middle of the body, the request counts as the caller's."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await Request(scope, receive, send).body()

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        raise AssertionError(message)

    scope = {"type": "http", "method": "POST", "path": "/v1/redemptions", "headers": []}
    await RequestMiddleware(app, front.observer, front.admission)(scope, receive, send)
    assert front.sample("redemption_requests_total", route=REDEEM_ROUTE, outcome="invalid") == 1
    assert "status" not in front.lines()[0]
