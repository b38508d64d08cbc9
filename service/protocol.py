"""The server's HTTP protocol: turns a request away before anything is made of it, and stops without losing one.

A part of uvicorn's own protocol for httptools, which serves every other request unchanged. Refusing a request in
the middleware costs its scope, its task and its trace; at the headers it costs one write. And a server that is
about to stop asks its callers to leave, rather than cutting the connections on which their next requests come.
"""

from __future__ import annotations

import asyncio
import gc
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterable
from functools import lru_cache
from types import FrameType
from typing import Any, ClassVar, Final

import uvicorn
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from service import problems, whole_requests
from service.admission import Admission, Priority, Reason
from service.middleware import QUIET_PATHS, ROUTES, Observer, Route, asks_to_defer
from service.outgoing import GatheringTransport, Outbox
from service.problems import Kind, ProblemError

HEAD_BYTES_MAX: Final = 64 * 1024  # of what arrives after the first read; neither uvicorn nor httptools has a bound
DISCARDED_BYTES_MAX: Final = 64 * 1024  # of a body that nobody reads; a redemption has some hundred bytes
DISCARDED_SECONDS_MAX: Final = 5.0  # as uvicorn waits for a next request
HEAD_SECONDS_MAX: Final = 10.0  # from a head's first bytes, or from a connection's begin; uvicorn waits for ever
READ_SECONDS_MAX: Final = 10.0  # for a caller who reads no answers; each of them holds up a request in flight
CONNECTIONS_MAX: Final = 10_000  # in one process: some 100 MB; uvicorn's own bound answers with text, not a problem

_LINE_SECONDS: Final = 1.0
_ROUTES_MAX: Final = 256  # of what was asked last; there are some ten, but for ids in their paths
_TICK_SECONDS: Final = 0.1  # uvicorn's own
_GARBAGE_OBJECTS: Final = 10_000  # new ones after which the garbage collector looks; Python's own number is 700


class Gate:
    """Says at the headers which requests are turned away, and keeps count of them; one for each server.

    Args:
        admission: Who may come in.
        observer: Where the refused are counted; they share one log line a second.
        defers: Whether there is a queue: then a redemption that asks for it is left to the middleware.
    """

    def __init__(self, admission: Admission, observer: Observer, defers: Callable[[], bool] = lambda: False) -> None:
        self._admission = admission
        self._observer = observer
        self._defers = defers
        self.outbox = Outbox()
        self._is_leaving = False
        self._coming = 0  # let in since the loop began to read its sockets: the tasks that take their places come later
        self._rendered: dict[tuple[Reason, int, bool, bool], bytes] = {}  # by what differs between the refusals
        self._rendered_for: list[tuple[bytes, bytes]] | None = None
        self._not_logged: Counter[str] = Counter()  # by reason

    @property
    def is_closed(self) -> bool:
        """Not even redemptions are let in now."""
        return self._admission.would_refuse(Priority.REDEEM, self._coming)

    @property
    def is_leaving(self) -> bool:
        """The server will stop soon: the probe of readiness says so, and every answer ends its connection."""
        return self._is_leaving

    def leave(self) -> None:
        """From now on every answer ends its connection; requests are served as before."""
        self._is_leaving = True

    def drain(self) -> None:
        """From now on no request is served; those in flight are."""
        self._admission.drain()

    def route_refused(self, line: bytes, headers: Iterable[tuple[bytes, bytes]] = ()) -> Route | None:
        """The route of a request that is to be turned away; None lets it go on.

        Args:
            line: Its method and URL.
            headers: All that may ask for the queue.
        """
        if not self._admission.would_refuse(Priority.BULK, self._coming):  # the first to be refused
            return None
        route = _route(line)
        if route is None or not self._admission.would_refuse(route.priority, self._coming):
            return None
        return None if headers and self._defers() and asks_to_defer(route, headers) else route

    def let_in(self) -> None:
        """A request goes on from here.

        Hundreds may come in one turn of the loop, before the first of them takes its place: so they are counted here.
        Else all of them find the same free place, and most are turned away behind the gate, at many times the price.
        """
        if not self._coming:
            asyncio.get_running_loop().call_soon(self._have_come)  # runs before the first of their tasks
        self._coming += 1

    def _have_come(self) -> None:
        self._coming = 0

    def refusal(self, headers: list[tuple[bytes, bytes]], *, keep_alive: bool, with_body: bool) -> bytes:
        """The whole answer to a request that is turned away.

        Args:
            headers: The server's own, such as the date; uvicorn makes a new list each second.
            keep_alive: The connection stays.
            with_body: False for HEAD.
        """
        if headers is not self._rendered_for:
            self._rendered_for = headers
            self._rendered = {}
        reason, seconds = self._admission.refusal_reason, self._admission.retry_after_seconds()
        what = (reason, seconds, keep_alive, with_body)
        answer = self._rendered.get(what)
        if answer is None:
            kind = problems.DRAINING if reason == "draining" else problems.OVERLOADED
            answer = self._rendered[what] = b"%bretry-after: %d\r\n%b\r\n%b" % (
                _head(kind, headers),
                seconds,
                b"" if keep_alive else b"connection: close\r\n",
                _BODIES[kind.code] if with_body else b"",
            )
        return answer

    def count(self, route: Route, seconds: float) -> None:
        """Count a request that was turned away, and have it logged with the others of this second."""
        self._observer.count(route.name, "shed", seconds)
        reason = self._admission.refusal_reason
        self._observer.count_shed(route.priority, reason)
        self._log_soon(reason)

    def count_connection(self) -> None:
        """Have a connection that was turned away logged with the others of this second; it has no route to count by."""
        self._log_soon("connections")

    def log_refused(self) -> None:
        """Write a line for each reason to turn away since the last; also to be called at the end."""
        counts, self._not_logged = self._not_logged, Counter()
        for reason, count in counts.items():
            self._observer.log.warning("shed", count=count, outcome="shed", reason=reason)

    def _log_soon(self, reason: str) -> None:
        if not self._not_logged:
            asyncio.get_running_loop().call_later(_LINE_SECONDS, self.log_refused)
        self._not_logged[reason] += 1


class GatedProtocol(HttpToolsProtocol):
    """Uvicorn's protocol, with a gate before it. A request passes it, or is answered here and never seen again."""

    gate: ClassVar[Gate]

    def __init__(self, *arguments: Any, **named: Any) -> None:  # noqa: ANN401 - uvicorn's own
        super().__init__(*arguments, **named)
        self._head_bytes: int | None = None  # None between the head of a request and the next
        self._is_between = False  # the end of a request and the next
        self._is_refused = False
        self._stays = True  # the connection, after a refusal
        self._discarded_bytes = 0
        self._discarding: asyncio.TimerHandle | None = None
        self._awaiting_head: asyncio.TimerHandle | None = None  # none while a request comes in one piece
        self._awaiting_reader: asyncio.TimerHandle | None = None
        self._refused_at = 0.0  # what came in one piece

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn's
        """A caller is there: close the connection if there are too many, or if no request comes."""
        super().connection_made(GatheringTransport(transport, self.gate.outbox))  # type: ignore[arg-type] # it is one
        if len(self.connections) > CONNECTIONS_MAX:
            self.gate.count_connection()
            transport.close()
        else:
            self._await_head(HEAD_SECONDS_MAX)

    def data_received(self, data: bytes) -> None:
        """Bytes arrived."""
        if self._refuse_whole(data):
            return
        was_in_head = self._head_bytes is not None
        super().data_received(data)
        if self._head_bytes is not None:
            if not was_in_head or self._awaiting_head is None:  # it began just now, maybe behind the end of another
                self._await_head(HEAD_SECONDS_MAX)
            else:
                self._head_bytes += len(data)
                if self._head_bytes > HEAD_BYTES_MAX:
                    self._refuse_head(problems.HEADERS_TOO_LARGE)
        elif self._is_refused:
            if self._discarding is None:
                self._discarding = self.loop.call_later(DISCARDED_SECONDS_MAX, self.transport.close)
        elif self.timeout_keep_alive_task is None and self._awaiting_head is None and not self._owes_answer():
            # Uvicorn stopped to wait for a next request, but what came was none: empty lines, or a body too late.
            self._await_head(self.timeout_keep_alive)

    def timeout_keep_alive_handler(self) -> None:
        """No request came since the last that was served; one that was refused then has not set the clock anew."""
        left = self._refused_at + self.timeout_keep_alive - self.loop.time()
        if left > 0:
            self.timeout_keep_alive_task = self.loop.call_later(left, self.timeout_keep_alive_handler)
        else:
            super().timeout_keep_alive_handler()

    def pause_writing(self) -> None:
        """The caller does not read what is answered: wait for it, but not for ever."""
        super().pause_writing()
        self._awaiting_reader = self.loop.call_later(READ_SECONDS_MAX, self.transport.abort)

    def resume_writing(self) -> None:
        """The caller reads again."""
        _stop(self._awaiting_reader)
        super().resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is closed."""
        for timer in (self._discarding, self._awaiting_head, self._awaiting_reader):
            _stop(timer)
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        """The first byte of a request."""
        self._head_bytes = 0
        self._is_between = False
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """The whole head is here: turn the request away, or let uvicorn serve it."""
        self._head_bytes = None
        if self._awaiting_head is not None:
            self._awaiting_head.cancel()
            self._awaiting_head = None
        started = time.perf_counter()
        route = self._route_refused()
        if route is not None:
            self._refuse()
            self.gate.count(route, time.perf_counter() - started)
            return
        self.gate.let_in()
        super().on_headers_complete()
        if self.gate.is_leaving:
            self.leave()

    def on_body(self, body: bytes) -> None:
        """A part of a body; that of a refused request is thrown away, up to a limit."""
        if not self._is_refused:
            super().on_body(body)
            return
        self._discarded_bytes += len(body)
        if self._discarded_bytes > DISCARDED_BYTES_MAX:
            self.transport.close()

    def on_message_complete(self) -> None:
        """The last byte of a request."""
        self._is_between = True
        if not self._is_refused:
            super().on_message_complete()
            return
        self._is_refused = False
        _stop(self._discarding)
        self._discarding = None
        if self._stays:
            self.on_response_complete()  # waits for the next request, for as long as uvicorn does
        else:
            self.transport.close()

    def leave(self) -> None:
        """End the connection with the answer that is due, if that can still be said in it."""
        if self.cycle is not None and not self.cycle.response_started:
            self.cycle.keep_alive = False

    def _refuse_whole(self, data: bytes) -> bool:
        """Turn a request away that came in one piece to a connection that waits for it, without a parser."""
        if not (self.gate.is_closed and self._is_between) or self.timeout_keep_alive_task is None:
            return False
        started = time.perf_counter()
        line = whole_requests.line_of(data)
        if line is None or self.flow.write_paused or self.gate.is_leaving:
            return False
        route = self.gate.route_refused(line)
        if route is None:
            return False
        with_body = not line.startswith(b"HEAD ")
        answer = self.gate.refusal(self.server_state.default_headers, keep_alive=True, with_body=with_body)
        self.transport.write(answer)
        self._refused_at = self.loop.time()
        self.gate.count(route, time.perf_counter() - started)
        return True

    def _route_refused(self) -> Route | None:
        # An answer must not overtake an earlier one, nor pile up before a caller who does not read.
        if self._owes_answer() or self.flow.write_paused or self.parser.should_upgrade():
            return None
        return self.gate.route_refused(b"%b %b" % (self.parser.get_method(), self.url), self.headers)

    def _refuse(self) -> None:
        self._is_refused = True
        self._discarded_bytes = 0
        self._stays = (
            self.parser.should_keep_alive()
            and self.parser.get_http_version() != "1.0"  # as uvicorn
            and not self.expect_100_continue  # whether its body still comes nobody can know
            and not self.gate.is_leaving
        )
        self.transport.write(
            self.gate.refusal(
                self.server_state.default_headers,
                keep_alive=self._stays,
                with_body=self.parser.get_method() != b"HEAD",
            )
        )
        if self.expect_100_continue:
            self.transport.close()

    def _owes_answer(self) -> bool:
        """A request that was let through is not answered yet."""
        return self.cycle is not None and not self.cycle.response_complete

    def _await_head(self, seconds: float) -> None:
        _stop(self._awaiting_head)
        self._awaiting_head = self.loop.call_later(seconds, self._give_up_head)

    def _give_up_head(self) -> None:
        if self._owes_answer():  # until then nothing may be said; nor is more read, if requests queue up
            self._await_head(HEAD_SECONDS_MAX)
        elif self._head_bytes is not None:
            self._refuse_head(problems.HEAD_TIMEOUT)
        else:
            self.transport.close()

    def _refuse_head(self, kind: Kind) -> None:
        if not self._owes_answer():  # else it would be taken for that answer
            head = _head(kind, self.server_state.default_headers)
            self.transport.write(b"%bconnection: close\r\n\r\n%b" % (head, _BODIES[kind.code]))
        self.transport.close()


def gated(gate: Gate) -> type[GatedProtocol]:
    """The protocol for `uvicorn.Config(http=...)`, with this gate."""
    return type("GatedProtocol", (GatedProtocol,), {"gate": gate})


@lru_cache(_ROUTES_MAX)
def _route(line: bytes) -> Route | None:
    """Of a request with this method and URL; None if it is not for the gate to turn away."""
    method, _, url = line.decode("latin-1").partition(" ")
    path = url.partition("?")[0]
    if not path.startswith("/") or "%" in path or path in QUIET_PATHS:
        return None  # odd ones are to be understood by the one who reads URLs; the middleware refuses them then
    return ROUTES.find(method, path)


def _stop(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()


class Server(uvicorn.Server):
    """Leaves before it stops, so that a rolling restart loses no request.

    Uvicorn closes idle connections at once when it is told to stop, and a request that is on its way on one of them
    is lost. This one goes on serving for a while, new connections too, and ends each connection with its next
    answer: `Connection: close` makes a caller open another one, by then at another server. Told to stop once more,
    it stops at once.

    Args:
        config: With the protocol of `gated(gate)`.
        gate: The same.
        leaving_seconds: How long; more than the load balancer needs to see that the server is not ready any more.
        on_leaving: Called when that begins.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        gate: Gate,
        *,
        leaving_seconds: float,
        on_leaving: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(config)
        self._gate = gate
        self._leaving_seconds = leaving_seconds
        self._on_leaving = on_leaving
        self._is_hurried = False

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to serve.

        What was made by then stays, some 100,000 objects: the garbage collector need not look through them again and
        again, which takes about 50 ms each time while every caller waits. And requests make few cycles but many objects
        that live until their answer: to look through them less often finds the same.
        """
        await super().startup(sockets)
        gc.collect()
        gc.freeze()
        gc.set_threshold(_GARBAGE_OBJECTS, *gc.get_threshold()[1:])

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """A signal asks to stop."""
        self._is_hurried = self.should_exit
        super().handle_exit(sig, frame)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Leave, then stop."""
        self._gate.leave()
        self._on_leaving()
        for connection in self.server_state.connections:
            if isinstance(connection, GatedProtocol):
                connection.leave()
        loop = asyncio.get_running_loop()
        end, ticks = loop.time() + self._leaving_seconds, 0
        while loop.time() < end and not self._is_hurried:
            await asyncio.sleep(_TICK_SECONDS)
            ticks += 1
            await self.on_tick(ticks)  # keeps the date in the answers right
        self._gate.drain()
        await super().shutdown(sockets)
        self._gate.log_refused()
        gc.unfreeze()


def _head(kind: Kind, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Status line and headers of a problem, but for those that differ from one request to the next."""
    own = (
        (b"content-type", problems.MEDIA_TYPE.encode()),
        (b"content-length", str(len(_BODIES[kind.code])).encode()),
    )
    return STATUS_LINE[kind.status] + b"".join(b"%b: %b\r\n" % each for each in (*headers, *own))


_BODIES: Final = {
    kind.code: bytes(problems.response(ProblemError(kind), None).body)
    for kind in (problems.OVERLOADED, problems.DRAINING, problems.HEADERS_TOO_LARGE, problems.HEAD_TIMEOUT)
}
