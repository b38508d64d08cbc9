"""The server on a real socket: refuses at the headers, serves everything else as uvicorn does, stops without a loss."""

from __future__ import annotations

import asyncio
import gc
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPResponse

import orjson
import pytest
import uvicorn
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from service import protocol
from service.admission import Priority, Ticket
from service.middleware import RequestMiddleware
from service.protocol import DISCARDED_BYTES_MAX, HEAD_BYTES_MAX, Gate, GatedProtocol, Server, gated
from slo.metrics import REDEEM_ROUTE
from tests.service.test_middleware import BALANCE_ROUTE, Front, new_front

REDEEM = b"POST /v1/redemptions HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"
BALANCE = b"GET /v1/accounts/a/balance HTTP/1.1\r\nHost: a\r\n\r\n"


@dataclass(slots=True)
class App:
    """Answers with what it was sent; what it is told to hold waits, and of entries no body is read."""

    seen: list[str]
    go_on: threading.Event

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        self.seen.append(scope["path"])
        body, more = b"", not scope["path"].endswith("/entries")
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        while scope["path"].endswith("/void") and not self.go_on.is_set():
            await asyncio.sleep(0.01)
        text = orjson.dumps({"path": scope["path"], "body": body.decode()})
        headers = [(b"content-length", str(len(text)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": text})


class _InThread(Server):
    """Can be asked for its loop, so that a test may do something between two of its turns."""

    loop: asyncio.AbstractEventLoop

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self.loop = asyncio.get_running_loop()
        await super().startup(sockets)


@dataclass(slots=True)
class Running:
    """A server in a thread of its own."""

    front: Front
    app: App
    gate: Gate
    server: _InThread
    thread: threading.Thread
    port: int

    @contextmanager
    def full(self, priority: Priority = Priority.CRITICAL) -> Iterator[list[Ticket]]:
        """No place is left for this priority while the block runs."""
        tickets = self.front.fill(priority)
        try:
            yield tickets
        finally:
            for ticket in tickets:
                ticket.leave(None)

    def connect(self) -> socket.socket:
        """A connection."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=20)

    def talk(self, *parts: bytes) -> list[tuple[int, dict[str, str], bytes]]:
        """All answers to what is sent on one connection, which is then closed by the caller."""
        with self.connect() as connection:
            with suppress(OSError):  # the server may have closed
                for part in parts:
                    connection.sendall(part)
                    time.sleep(0.02)
                connection.shutdown(socket.SHUT_WR)
            return list(_answers(connection))

    def talk_to_the_end(self, *parts: bytes) -> list[int]:
        """The statuses of all answers, to these parts and a last request that has the server close."""
        with self.connect() as connection:
            for part in (*parts, REDEEM.replace(b"Host: a", b"Host: a\r\nConnection: close")):
                connection.sendall(part)
                time.sleep(0.02)
            return [status for status, _, _ in _answers(connection)]

    def server_side(self) -> GatedProtocol:
        """The protocol of the only connection."""
        [found] = self.server.server_state.connections
        assert isinstance(found, GatedProtocol)
        return found

    def in_loop(self, act: Callable[[], object]) -> None:
        """Have something done between two turns of its loop."""
        done = threading.Event()
        self.server.loop.call_soon_threadsafe(act)
        self.server.loop.call_soon_threadsafe(done.set)
        assert done.wait(20)

    def stop(self) -> None:
        """Ask it to stop, as SIGTERM does."""
        self.server.should_exit = True

    def shed(self, route: str = REDEEM_ROUTE) -> float:
        """How many requests of a route counted as shed."""
        return self.front.sample("redemption_requests_total", route=route, outcome="shed")


def _answer(connection: socket.socket) -> tuple[int, dict[str, str], bytes]:
    """The next answer; names of headers in small letters."""
    answer = HTTPResponse(connection)
    answer.begin()
    headers = {name.lower(): value for name, value in answer.getheaders()}
    return answer.status, headers, answer.read()


def _answers(connection: socket.socket) -> Iterator[tuple[int, dict[str, str], bytes]]:
    """All answers until the server closes; each has a Content-Length."""
    with connection.makefile("rb") as stream:
        while line := stream.readline():
            headers = {}
            while header := stream.readline().strip():
                name, _, value = header.decode().partition(": ")
                headers[name.lower()] = value
            yield int(line.split()[1]), headers, stream.read(int(headers.get("content-length", 0)))


@contextmanager
def _running(
    *, leaving_seconds: float = 0, plain: bool = False, limit: int = 8, keep_alive_seconds: int = 30
) -> Iterator[Running]:
    front, app = new_front(limit), App([], threading.Event())
    gate = Gate(front.admission, front.observer)
    config = uvicorn.Config(
        RequestMiddleware(app, front.observer, front.admission),
        loop="uvloop",
        http=HttpToolsProtocol if plain else gated(gate),
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        timeout_keep_alive=keep_alive_seconds,
        timeout_graceful_shutdown=10,
    )
    server = _InThread(config, gate, leaving_seconds=leaving_seconds)
    listener = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    running = Running(front, app, gate, server, thread, listener.getsockname()[1])
    _wait_for(lambda: server.started)
    try:
        yield running
    finally:
        app.go_on.set()
        running.stop()
        thread.join(20)
        assert not thread.is_alive()


def _wait_for(what: Callable[[], object]) -> None:
    for _ in range(2000):
        if what():
            return
        time.sleep(0.01)
    raise AssertionError("waited in vain")


@pytest.fixture(scope="module")
def shared() -> Iterator[Running]:
    """One server for the tests that leave it as it was."""
    with _running() as running:
        yield running


@pytest.fixture
def running(shared: Running) -> Running:
    """A server with places for eight, that has seen nothing."""
    shared.app.seen.clear()
    return shared


def test_a_refused_request_is_told_when_to_come_back(running: Running) -> None:
    """The answer is a problem with the server's date and a hint; the application never hears of the request."""
    before = running.shed()
    with running.full():
        [(status, headers, body)] = running.talk(REDEEM)
    assert (status, orjson.loads(body)["code"]) == (503, "overloaded")
    assert headers["content-type"] == "application/problem+json"
    assert int(headers["content-length"]) == len(body)
    assert 1 <= int(headers["retry-after"]) <= 60
    assert "date" in headers
    assert "connection" not in headers
    assert running.app.seen == []
    assert running.shed() == before + 1


def test_the_refused_are_counted_one_by_one_and_logged_together() -> None:
    """Each counts by route and priority, with its duration; one line a second tells how many there were."""
    with _running() as running:
        with running.full():
            assert [status for status, _, _ in running.talk(*[REDEEM] * 3, *[BALANCE] * 2)] == [503] * 5
        assert (running.shed(), running.shed(BALANCE_ROUTE)) == (3, 2)
        assert running.front.sample("redemption_shed_total", priority="redeem", reason="overloaded") == 3
        assert running.front.sample("redemption_shed_total", priority="read", reason="overloaded") == 2
        name = "redemption_request_duration_seconds_count"
        assert running.front.sample(name, route=REDEEM_ROUTE, outcome="shed") == 3
        _wait_for(running.front.lines)
    [line] = running.front.lines()
    assert (line["event"], line["level"], line["count"], line["reason"]) == ("shed", "warning", 5, "overloaded")


def test_what_was_not_logged_yet_is_logged_at_the_end() -> None:
    """A server that stops tells of the requests that it refused last."""
    with _running() as running, running.full():
        running.talk(REDEEM)
        running.stop()
        running.thread.join(20)
    assert [line["count"] for line in running.front.lines()] == [1]


def test_a_crowd_that_comes_at_once_is_turned_away_at_the_headers() -> None:
    """Of many requests in one turn of the loop so many pass the gate as there are places, and no more.

    The middleware would refuse the others too, at many times the cost, and with a line for each.
    """
    with _running() as running, ExitStack() as stack:
        connections = [stack.enter_context(running.connect()) for _ in range(50)]
        for each in connections:  # the server has accepted all of them
            each.sendall(BALANCE)
            assert _answer(each)[0] == 200
        tickets = running.front.fill(Priority.REDEEM)
        for ticket in tickets[:3]:
            ticket.leave(None)
        held, all_sent = threading.Event(), threading.Event()
        running.server.loop.call_soon_threadsafe(held.set)
        running.server.loop.call_soon_threadsafe(all_sent.wait, 20)
        held.wait(20)
        for each in connections:
            each.sendall(REDEEM)
        all_sent.set()
        statuses = Counter(_answer(each)[0] for each in connections)
        for ticket in tickets:
            ticket.leave(None)
    assert statuses == {200: 3, 503: 47}
    lines = running.front.lines()
    assert [line["outcome"] for line in lines if line["event"] == "request"] == ["ok"] * 53
    assert sum(line["count"] for line in lines if line["event"] == "shed") == 47


def test_the_connection_of_a_refused_request_stays(running: Running) -> None:
    """On one connection a refused request, with its body in pieces, is followed by one that is served."""
    with running.connect() as connection:
        with running.full():
            connection.sendall(REDEEM[:-3])
            assert _answer(connection)[0] == 503
            connection.sendall(REDEEM[-3:-1])
            time.sleep(0.05)
            connection.sendall(REDEEM[-1:])
            connection.sendall(REDEEM)
            assert _answer(connection)[0] == 503
        connection.sendall(REDEEM)
        status, _, body = _answer(connection)
    assert (status, orjson.loads(body)) == (200, {"path": "/v1/redemptions", "body": "hello"})


def test_the_body_of_a_refused_request_is_no_request(running: Running) -> None:
    """What looks like a request within a refused body, plain or chunked, is thrown away with it."""
    inner = b"POST /v1/redemptions/evil/capture HTTP/1.1\r\nHost: a\r\n\r\n"
    plain = b"POST /v1/redemptions HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%b" % (len(inner), inner)
    chunks = b"POST /v1/redemptions HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n"
    with running.full(Priority.REDEEM):
        assert [each[0] for each in running.talk(plain, chunks % (len(inner), inner), BALANCE)] == [503, 503, 503]
    assert running.app.seen == []


def test_pipelined_requests_are_answered_in_order(running: Running) -> None:
    """A refusal waits for the answers to what came before it, and those after it for the refusal."""
    hold = b"POST /v1/redemptions/a/void HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"
    last = b"POST /v1/redemptions/b/capture HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"
    running.app.go_on.clear()
    with running.connect() as connection:
        connection.sendall(hold)
        _wait_for(lambda: running.app.seen)
        with running.full(Priority.REDEEM):
            connection.sendall(BALANCE + last + BALANCE)
            time.sleep(0.1)
            running.app.go_on.set()
            time.sleep(0.1)
            connection.shutdown(socket.SHUT_WR)
            answers = list(_answers(connection))
    assert [status for status, _, _ in answers] == [200, 503, 200, 503]
    assert [orjson.loads(body).get("path") for _, _, body in answers] == [
        "/v1/redemptions/a/void",
        None,
        "/v1/redemptions/b/capture",
        None,
    ]


def test_a_pipeline_of_refused_requests_is_answered_one_by_one(running: Running) -> None:
    """Many requests in one packet get as many answers."""
    with running.full():
        assert [status for status, _, _ in running.talk(REDEEM * 50)] == [503] * 50


@pytest.mark.parametrize(
    "request_",
    [
        REDEEM.replace(b"HTTP/1.1", b"HTTP/1.0"),
        REDEEM.replace(b"HTTP/1.1", b"HTTP/1.0").replace(b"Host: a", b"Connection: keep-alive"),
        REDEEM.replace(b"Host: a", b"Host: a\r\nConnection: close"),
    ],
)
def test_a_caller_who_wants_the_connection_closed_gets_that(running: Running, request_: bytes) -> None:
    """HTTP/1.0 and `Connection: close`: the whole body is read, the answer says that it closes, and it does."""
    with running.full(), running.connect() as connection:
        connection.sendall(request_[:-2])
        time.sleep(0.05)
        connection.sendall(request_[-2:])
        [(status, headers, body)] = _answers(connection)
    assert (status, headers["connection"], orjson.loads(body)["code"]) == (503, "close", "overloaded")


def test_head_gets_no_body(running: Running) -> None:
    """A refused HEAD gets the headers alone, and the connection goes on with the next request."""
    with running.full(), running.connect() as connection:
        connection.sendall(BALANCE.replace(b"GET", b"HEAD") + BALANCE)
        connection.shutdown(socket.SHUT_WR)
        with connection.makefile("rb") as stream:
            first, second, body = stream.read().split(b"\r\n\r\n")
    for head in (first, second):
        assert head.startswith(b"HTTP/1.1 503 ")
        assert b"content-length: %d\r\n" % len(body) in head


def test_a_connection_is_not_kept_for_ever_after_a_refusal() -> None:
    """It waits for the next request as long as uvicorn would."""
    with _running(keep_alive_seconds=1) as running, running.full(), running.connect() as connection:
        connection.sendall(REDEEM)
        assert _answer(connection)[0] == 503
        assert _is_closed(connection)


def test_a_request_in_one_piece_is_refused_without_the_parser() -> None:
    """On a connection that has served one; the answer is the same, it counts, and the next request is served."""
    with _running() as running, running.connect() as connection:
        connection.sendall(REDEEM)
        assert _answer(connection)[0] == 200
        server_side = running.server_side()
        with running.full():
            for part in (REDEEM[:20], REDEEM[20:]):
                connection.sendall(part)
                time.sleep(0.02)
            _, headers, body = _answer(connection)
            parser, server_side.parser = server_side.parser, None  # type: ignore[assignment]
            connection.sendall(REDEEM)
            status, whole_headers, whole_body = _answer(connection)
            connection.sendall(BALANCE.replace(b"GET", b"HEAD"))
            head = connection.recv(65536)
            server_side.parser = parser
        connection.sendall(REDEEM)
        assert _answer(connection)[0] == 200
    same = dict.fromkeys(("retry-after", "date"), "")
    assert (status, whole_headers | same, whole_body) == (503, headers | same, body)
    assert head.startswith(b"HTTP/1.1 503 ")
    assert head.endswith(b"\r\n\r\n")
    assert running.shed() == 2


def test_a_place_is_given_to_a_request_in_one_piece(running: Running) -> None:
    """What is more important than the refused, and what a probe asks, is served while others are refused."""
    capture = b"POST /v1/redemptions/a/capture HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"
    probe = b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n"
    with running.full(Priority.READ):
        statuses = [status for status, _, _ in running.talk(capture, BALANCE, REDEEM, probe, BALANCE)]
    assert statuses == [200, 503, 200, 200, 503]


def test_a_late_body_that_looks_like_a_request_is_none(running: Running) -> None:
    """Of a request that was answered before its body came; nor is what follows the begin of another."""
    early = b"GET /v1/accounts/a/entries HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(REDEEM)
    with running.connect() as connection:
        for request in (BALANCE, early):
            connection.sendall(request)
            assert _answer(connection)[0] == 200
        with running.full():
            connection.sendall(REDEEM)
            time.sleep(0.05)
            connection.sendall(b"PUT /")
            time.sleep(0.05)
            connection.sendall(BALANCE)
            connection.shutdown(socket.SHUT_WR)
            statuses = [status for status, _, _ in _answers(connection)]
    assert statuses == [400]


def test_a_refusal_in_one_piece_waits_for_the_answer_before_it() -> None:
    """It does not overtake the answer to an earlier request, nor run ahead of a caller who does not read."""
    hold = b"POST /v1/redemptions/a/void HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"
    with _running() as running, running.connect() as connection:
        connection.sendall(REDEEM)
        assert _answer(connection)[0] == 200
        server_side = running.server_side()
        connection.sendall(hold)
        _wait_for(lambda: len(running.app.seen) > 1)
        with running.full(Priority.REDEEM):
            connection.sendall(REDEEM)
            time.sleep(0.1)
            running.app.go_on.set()
            answers = _answers(connection)
            paths = [orjson.loads(next(answers)[2]).get("path") for _ in range(2)]
            assert paths == ["/v1/redemptions/a/void", "/v1/redemptions"]  # whose end made room for it
        with running.full():
            running.in_loop(server_side.flow.pause_writing)
            connection.sendall(REDEEM)
            connection.settimeout(0.2)
            with pytest.raises(TimeoutError):
                connection.recv(1)
            connection.settimeout(20)
            running.in_loop(server_side.flow.resume_writing)
            assert next(answers)[0] == 503


def test_a_refusal_in_one_piece_of_a_leaving_server_closes() -> None:
    """As every answer of it does."""
    with _running() as running, running.connect() as connection:
        connection.sendall(REDEEM)
        assert _answer(connection)[0] == 200
        running.gate.leave()
        with running.full():
            connection.sendall(REDEEM)
            [(status, headers, _)] = _answers(connection)
    assert (status, headers["connection"]) == (503, "close")


def test_each_refusal_sets_the_clock_of_its_connection_anew() -> None:
    """A connection on which all is refused waits as long for the next request as one on which all is served."""
    with _running(keep_alive_seconds=1) as running, running.connect() as connection:
        connection.sendall(REDEEM)
        assert _answer(connection)[0] == 200
        with running.full():
            for _ in range(4):
                time.sleep(0.6)
                connection.sendall(REDEEM)
                assert _answer(connection)[0] == 503
            began = time.monotonic()
            assert _is_closed(connection)
    assert 0.9 < time.monotonic() - began < 5


def test_who_waits_for_100_continue_is_refused_without_it(running: Running) -> None:
    """The refusal is the only answer, and ends the connection: whether the body still comes nobody knows."""
    request = REDEEM[:-5].replace(b"Host: a", b"Host: a\r\nExpect: 100-continue")
    with running.full(), running.connect() as connection:
        connection.sendall(request)
        [(status, headers, _)] = _answers(connection)
    assert (status, headers["connection"]) == (503, "close")
    with running.connect() as connection:
        connection.sendall(request)
        assert connection.recv(100).startswith(b"HTTP/1.1 100 ")
        connection.sendall(b"hello")
        assert _answer(connection)[0] == 200


def test_a_large_body_of_a_refused_request_ends_the_connection(running: Running) -> None:
    """Up to a limit it is thrown away; beyond it nobody reads on."""
    for length, status in ((DISCARDED_BYTES_MAX, 200), (DISCARDED_BYTES_MAX + 1, None)):
        head = b"POST /v1/redemptions HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % length
        with running.connect() as connection:
            with running.full():
                connection.sendall(head)
                assert _answer(connection)[0] == 503
            connection.sendall(b" " * length)
            if status:
                connection.sendall(REDEEM)
                assert _answer(connection)[0] == status
            else:
                assert _is_closed(connection)


def test_a_body_that_does_not_come_ends_the_connection(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """A refused caller who stops in the middle of the body, or sends it in drops, is not waited for."""
    monkeypatch.setattr(protocol, "DISCARDED_SECONDS_MAX", 0.2)
    with running.full(), running.connect() as connection:
        connection.sendall(REDEEM[:-5])
        assert _answer(connection)[0] == 503
        for drop in (b"h", b"e", b"l"):
            time.sleep(0.05)
            with suppress(OSError):
                connection.sendall(drop)
        assert _is_closed(connection)


def test_probes_and_strange_urls_are_not_refused_at_the_headers(running: Running) -> None:
    """The probes are always served; a URL that must be read with care is left to who reads it, and refused there."""
    with running.full():
        asked = [b"/livez", b"/readyz?full=1", b"/metrics", b"/v1/%72edemptions", b"http://a/v1/redemptions"]
        answers = running.talk(*(b"GET %b HTTP/1.1\r\nHost: a\r\n\r\n" % url for url in asked))
    assert [status for status, _, _ in answers] == [200, 200, 200, 503, 503]
    assert running.app.seen == ["/livez", "/readyz", "/metrics"]


def test_a_head_without_end_is_cut(running: Running) -> None:
    """Headers that go on and on are answered with 431 and end the connection; uvicorn would keep them all."""
    with running.connect() as connection:
        connection.sendall(b"GET /livez HTTP/1.1\r\nHost: a\r\n")
        time.sleep(0.05)
        with suppress(OSError):
            for _ in range(3):
                connection.sendall(b"x-more: %b\r\n" % (b"a" * (HEAD_BYTES_MAX // 2)))
                time.sleep(0.05)
        status, headers, body = _answer(connection)
    assert (status, headers["connection"], orjson.loads(body)["code"]) == (431, "close", "headers-too-large")


def test_a_long_body_is_no_head(running: Running) -> None:
    """The limit of the head says nothing of a body, nor of many requests on one connection."""
    head = b"POST /v1/redemptions HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % (2 * HEAD_BYTES_MAX)
    body = b" " * HEAD_BYTES_MAX
    assert running.talk_to_the_end(head, body, body, *[REDEEM] * 20) == [200] * 22


def test_heads_in_pieces_among_many_requests_are_not_long(running: Running) -> None:
    """What comes between the end of one head and the beginning of another counts for neither."""
    count = 2 * HEAD_BYTES_MAX // len(REDEEM)
    many = REDEEM[30:] + REDEEM * count + REDEEM[:30]
    assert running.talk_to_the_end(REDEEM[:30], many, REDEEM[30:]) == [200] * (count + 3)


@pytest.mark.parametrize("before", [(), (BALANCE,), (BALANCE[:30], BALANCE[30:]), (b"\r\n",)])
def test_a_head_that_does_not_come_to_its_end_is_given_up(
    running: Running, monkeypatch: pytest.MonkeyPatch, before: tuple[bytes, ...]
) -> None:
    """On a new connection, or on one that was used: 408, and the end. Drops of it gain no time."""
    monkeypatch.setattr(protocol, "HEAD_SECONDS_MAX", 0.2)
    answers = []
    with running.connect() as connection:
        for part in before[:-1]:
            connection.sendall(part)
            time.sleep(0.05)
        connection.sendall(b"".join(before[-1:]) + REDEEM[:10])
        answers = list(_dripped(connection, b"a" * 1000))
    assert [status for status, _, _ in answers] == [200] * (b"".join(before).count(b"GET")) + [408]
    _, headers, body = answers[-1]
    assert (headers["connection"], headers["content-type"]) == ("close", "application/problem+json")
    assert orjson.loads(body) | {"title": "", "detail": "", "type": ""} == {
        "type": "",
        "title": "",
        "detail": "",
        "status": 408,
        "code": "head-timeout",
        "retryable": True,
    }


def _dripped(connection: socket.socket, drops: bytes) -> Iterator[tuple[int, dict[str, str], bytes]]:
    """All answers, while bytes are sent one by one until the server closes or there are none left."""
    is_closed = threading.Event()

    def drip() -> None:
        with suppress(OSError):
            for drop in drops:
                if is_closed.wait(0.02):
                    return
                connection.sendall(bytes([drop]))

    dripping = threading.Thread(target=drip)
    dripping.start()
    try:
        with suppress(ConnectionError):
            yield from _answers(connection)
    finally:
        is_closed.set()
        dripping.join(20)


@pytest.mark.parametrize("drops", [b"", b"\r\n" * 500])
def test_a_connection_without_a_request_is_closed(
    running: Running, monkeypatch: pytest.MonkeyPatch, drops: bytes
) -> None:
    """Whoever connects and sends nothing, or empty lines alone, is not waited for; there is nothing to answer."""
    monkeypatch.setattr(protocol, "HEAD_SECONDS_MAX", 0.2)
    with running.connect() as connection:
        assert list(_dripped(connection, drops)) == []
    _wait_for(lambda: not running.server.server_state.connections)


@pytest.mark.parametrize("drops", [b"\r\n" * 500, b"hello"])
def test_what_is_no_request_does_not_keep_a_connection(drops: bytes) -> None:
    """Empty lines, or a body that comes behind its answer: the time to wait for a next request still ends."""
    with _running(keep_alive_seconds=1) as running, running.connect() as connection:
        with running.full():  # answered by the middleware, which reads no body
            connection.sendall(REDEEM.replace(b"/v1/r", b"/v1/%72")[:-5] + b"hello"[len(drops) :])
            assert _answer(connection)[0] == 503
        assert list(_dripped(connection, drops)) == []


def test_a_head_behind_a_late_body_is_hurried_too(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once its first byte is there, it has the time of a head, not that of an idle connection."""
    monkeypatch.setattr(protocol, "HEAD_SECONDS_MAX", 0.2)
    with running.connect() as connection:
        with running.full():  # answered by the middleware, which reads no body
            connection.sendall(REDEEM.replace(b"/v1/r", b"/v1/%72")[:-5])
            assert _answer(connection)[0] == 503
        connection.sendall(b"hello")
        time.sleep(0.05)
        connection.sendall(REDEEM[:30])
        assert _answer(connection)[0] == 408


def test_only_heads_are_hurried(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request that takes long, a body in pieces and a connection between two requests have times of their own."""
    monkeypatch.setattr(protocol, "HEAD_SECONDS_MAX", 0.2)
    running.app.go_on.clear()
    with running.connect() as connection:
        connection.sendall(b"POST /v1/redemptions/a/void HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")
        time.sleep(0.5)
        running.app.go_on.set()
        assert _answer(connection)[0] == 200
        time.sleep(0.5)
        connection.sendall(REDEEM[:-3])
        time.sleep(0.5)
        connection.sendall(REDEEM[-3:])
        assert _answer(connection)[0] == 200


def test_an_answer_that_is_due_comes_before_the_end_of_a_head(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A caller with a request in flight is not told 408 in place of its answer."""
    monkeypatch.setattr(protocol, "HEAD_SECONDS_MAX", 0.2)
    running.app.go_on.clear()
    with running.connect() as connection:
        hold = b"POST /v1/redemptions/a/void HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"
        connection.sendall(hold + REDEEM[:30])
        time.sleep(0.5)
        running.app.go_on.set()
        assert [status for status, _, _ in _answers(connection)] == [200, 408]


def test_a_head_without_end_is_not_answered_in_place_of_a_request(running: Running) -> None:
    """A caller with a request in flight is not told 431 in place of its answer: the connection ends without a word."""
    running.app.go_on.clear()
    with running.connect() as connection:
        hold = b"POST /v1/redemptions/a/void HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"
        connection.sendall(hold + b"GET /livez HTTP/1.1\r\nHost: a\r\n")
        _wait_for(lambda: running.app.seen)
        with suppress(OSError):
            for _ in range(4):
                connection.sendall(b"x-more: %b\r\n" % (b"a" * (HEAD_BYTES_MAX // 2)))
                time.sleep(0.05)
        with suppress(ConnectionError):
            assert list(_answers(connection)) == []
    running.app.go_on.set()


def test_a_caller_who_does_not_read_holds_no_place(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """When answers pile up before it, its connection ends, and with it the request that waits to be answered."""
    monkeypatch.setattr(protocol, "READ_SECONDS_MAX", 0.2)
    body = b" " * HEAD_BYTES_MAX
    request = b"POST /v1/redemptions HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    with running.connect() as connection, pytest.raises(ConnectionError):
        connection.sendall(request * 2000)  # more than the buffers of both systems hold
    _wait_for(lambda: running.front.admission.in_flight == 0)


def test_a_caller_who_reads_late_gets_every_answer(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once what has piled up is read, the time is over that was given for it."""
    monkeypatch.setattr(protocol, "READ_SECONDS_MAX", 2)
    body = b" " * HEAD_BYTES_MAX
    request = b"POST /v1/redemptions HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    with running.connect() as connection:
        sending = threading.Thread(target=connection.sendall, args=(request * 400,))
        sending.start()
        time.sleep(0.5)
        with connection.makefile("rb") as stream:
            read = sum(len(stream.read(HEAD_BYTES_MAX)) for _ in range(400))
            sending.join(20)
            time.sleep(2)
            connection.sendall(BALANCE.replace(b"Host: a", b"Host: a\r\nConnection: close"))
            rest = stream.read()
    assert read == 400 * HEAD_BYTES_MAX
    assert rest.count(b"HTTP/1.1 200") + 400 >= 401
    assert b"/v1/accounts/a/balance" in rest


def test_beyond_so_many_connections_a_new_one_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """At once and without a word; those that are there are served, a place that is left is taken, one line tells."""
    monkeypatch.setattr(protocol, "CONNECTIONS_MAX", 2)
    with _running() as running:
        with ExitStack() as stack:
            first, second = (stack.enter_context(running.connect()) for _ in range(2))
            for each in (first, second):
                each.sendall(BALANCE)
                assert _answer(each)[0] == 200
            for _ in range(3):
                with running.connect() as third:
                    assert _is_closed(third)
            second.sendall(BALANCE)
            assert _answer(second)[0] == 200
            first.close()
            _wait_for(lambda: len(running.server.server_state.connections) == 1)
            assert [status for status, _, _ in running.talk(BALANCE)] == [200]
        _wait_for(lambda: any(line["event"] == "shed" for line in running.front.lines()))
    lines = [line for line in running.front.lines() if line["event"] == "shed"]
    assert [(line["level"], line["count"], line["reason"]) for line in lines] == [("warning", 3, "connections")]


def _exchanges() -> Sequence[tuple[bytes, ...]]:
    return (
        (REDEEM,),
        (REDEEM[:30], REDEEM[30:]),
        (REDEEM * 3,),
        (BALANCE.replace(b"GET", b"HEAD"),),
        (REDEEM.replace(b"HTTP/1.1", b"HTTP/1.0"),),
        (REDEEM.replace(b"Host: a", b"Host: a\r\nConnection: close"), REDEEM),
        (b"POST /v1/redemptions HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",),
        (b"nonsense\r\n\r\n",),
        (BALANCE.replace(b"Host: a", b"Host: a\r\nConnection: upgrade\r\nUpgrade: websocket"),),
    )


@pytest.mark.parametrize("number", range(len(_exchanges())))
def test_what_is_not_refused_is_served_as_uvicorn_does(running: Running, plain: Running, number: int) -> None:
    """The same bytes get the same answers from uvicorn's own protocol."""

    def talked(to: Running) -> list[tuple[int, dict[str, str], bytes]]:
        answers = to.talk(*_exchanges()[number])
        return [(status, headers | {"date": ""}, body) for status, headers, body in answers]

    assert talked(running) == talked(plain)


@pytest.fixture(scope="module")
def plain() -> Iterator[Running]:
    """A server with uvicorn's own protocol."""
    with _running(plain=True) as running:
        yield running


def _is_closed(connection: socket.socket) -> bool:
    try:
        while connection.recv(65536):
            pass
    except ConnectionError:
        pass
    return True


def test_the_garbage_collector_leaves_alone_what_was_made_for_good() -> None:
    """While the server serves; to look through all of it would hold up every request again and again."""
    gc.unfreeze()  # what another test's server keeps
    with _running():
        _wait_for(gc.get_freeze_count)  # a moment after it has begun to serve
    assert gc.get_freeze_count() == 0


# --- stopping ---------------------------------------------------------------------------------------------------------


def test_a_leaving_server_answers_and_closes() -> None:
    """On an idle connection, on one with a request in flight and on a new one: the answer is good, and the last."""
    hold = b"POST /v1/redemptions/a/void HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"
    with _running(leaving_seconds=60) as running, ExitStack() as stack:
        idle, busy = (stack.enter_context(running.connect()) for _ in range(2))
        idle.sendall(BALANCE)
        status, headers, _ = _answer(idle)
        assert (status, "connection" in headers) == (200, False)
        busy.sendall(hold)
        _wait_for(lambda: "/v1/redemptions/a/void" in running.app.seen)
        assert not running.gate.is_leaving
        running.stop()
        _wait_for(lambda: running.gate.is_leaving)
        new = stack.enter_context(running.connect())
        new.sendall(BALANCE)
        idle.sendall(BALANCE)
        running.app.go_on.set()
        for connection in (new, idle, busy):
            status, headers, _ = _answer(connection)
            assert (status, headers["connection"]) == (200, "close")
            assert _is_closed(connection)
        with running.full():
            [(status, headers, _)] = running.talk(REDEEM)
        assert (status, headers["connection"]) == (503, "close")
        _hurry(running)


def _hurry(running: Running) -> None:
    """A second signal."""
    running.server.loop.call_soon_threadsafe(running.server.handle_exit, 15, None)


def test_no_request_is_lost_by_a_rolling_restart() -> None:
    """Callers that open a new connection upon `Connection: close`, then to the other server, get every answer."""
    with _running(leaving_seconds=1, limit=1000) as old, _running(limit=1000) as new:
        caller = _Caller([old, new])
        callers = [threading.Thread(target=caller.call, args=(pause,)) for pause in (0, 0, 0.01, 0.1, 0.3)]
        for each in callers:
            each.start()
        _wait_for(lambda: caller.answered >= 200)
        old.stop()
        old.thread.join(20)
        assert not old.thread.is_alive()
        seen = caller.answered
        _wait_for(lambda: caller.answered >= seen + 200)
        caller.is_done = True
        for each in callers:
            each.join(20)
    assert caller.lost == []
    assert old.app.seen
    assert new.app.seen


class _Caller:
    """Calls the first server that does not leave, as a load balancer would, and never twice for one request."""

    def __init__(self, servers: list[Running]) -> None:
        self._servers = servers
        self.answered = 0
        self.lost: list[str] = []
        self.is_done = False

    def call(self, pause_seconds: float) -> None:
        """Call until told to end."""
        while not self.is_done:
            server = next(each for each in self._servers if not each.gate.is_leaving)
            with server.connect() as connection:
                while not self.is_done and self._asked(connection):
                    time.sleep(pause_seconds)

    def _asked(self, connection: socket.socket) -> bool:
        """Whether the connection goes on."""
        try:
            connection.sendall(REDEEM)
            status, headers, _ = _answer(connection)
        except (OSError, ValueError) as error:
            self.lost.append(repr(error))
            return False
        if status != 200:
            self.lost.append(str(status))
        self.answered += 1
        return headers.get("connection") != "close"
