"""The generator: requests out on time, answers counted, on one event loop with as little between as possible."""

from __future__ import annotations

import asyncio
import math
import random
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from itertools import cycle
from typing import NamedTuple

import uvloop

from drills.harness.process import HarnessError
from drills.load import plan as plans
from drills.load import wire
from drills.load.history import History, Operation, facts
from drills.load.plan import Plan, Request
from drills.load.report import RESET, TIMEOUT, Count, Report
from drills.load.wire import Connection

_TICK_SECONDS_MIN = 0.001  # the resolution of the loop's timers: a request is sent up to this much late, never early
_SWEEP_SECONDS = 0.05
_CONNECT_SECONDS_MAX = 5.0
_BACKOFF_SECONDS = (0.02, 0.5)  # first and longest wait before another try to connect
_BACKLOG_MAX = 100_000  # requests that are due and wait for a connection


def load(url: str | Sequence[str], plan: Plan, *, stop: threading.Event | None = None) -> Report:
    """Send requests until the plan's end, and tell what became of them.

    Connections that end are made anew, and what was under way on them stays unanswered: nothing is sent twice.

    Args:
        url: The service's base URL, or those of several servers of it, which connections take in turn, as from a load
            balancer; on this machine.
        plan: How much of what.
        stop: Ends it earlier, once set.

    Raises:
        PlanError: A URL leads to another machine.
        HarnessError: Nobody listens there at the start.
    """
    addresses = [plans.address(one) for one in ([url] if isinstance(url, str) else url)]
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_Run(addresses, plan, stop or threading.Event()).run())


@dataclass(frozen=True, slots=True)
class Loading:
    """Load that runs."""

    _stop: threading.Event = field(repr=False)
    _future: Future[Report] = field(repr=False)

    def stop(self) -> None:
        """Send no more; what is under way may still be answered."""
        self._stop.set()

    def report(self) -> Report:
        """Wait for the end, and tell what became of it; raises as `load` does."""
        return self._future.result()


@contextmanager
def loading(url: str | Sequence[str], plan: Plan) -> Iterator[Loading]:
    """Load from a thread of this process while the block runs; stopped at the block's end, if not over before."""
    stop = threading.Event()
    with ThreadPoolExecutor(1, thread_name_prefix="load") as pool:
        flow = Loading(stop, pool.submit(load, url, plan, stop=stop))
        try:
            yield flow
        finally:
            flow.stop()


class _Record(NamedTuple):
    """A redemption that was sent, and all of its answer."""

    request: Request
    sent: float
    returned: float | None
    answer: bytes

    def operation(self) -> Operation:
        operation = Operation(
            key=self.request.key,
            account_id=self.request.account_id,
            points=self.request.points,
            invoked_at=self.sent,
        )
        if self.returned is None:
            return operation
        headers, body = wire.split(self.answer)
        answer = facts(wire.status(self.answer), body, headers.get("location"))
        return replace(operation, **answer, returned_at=self.returned)


class _Run:
    def __init__(self, addresses: Sequence[tuple[str, int]], plan: Plan, stop: threading.Event) -> None:
        self._plan, self._stop = plan, stop
        self._addresses = cycle(addresses)
        self._requests = plans.requests(plan, *addresses[0])
        self._redemptions, self._reads = Count(), Count()
        self._records: list[_Record] = []
        self._connections: list[Connection] = []
        self._connecting: set[asyncio.Task[None]] = set()
        self._idle: deque[Connection] = deque()
        self._backlog: deque[float] = deque()  # when each of them was due
        self._drawn = 0  # requests that were due so far
        self._unsent = 0
        self._over = False  # no more will be due
        self._closed = False  # and no answer counts any more

    async def run(self) -> Report:
        self._loop = asyncio.get_running_loop()
        await self._connect_all()
        cpu = time.thread_time()
        self._started = self._last = time.monotonic()
        self._end = self._started + self._plan.seconds
        if self._plan.per_second is None:
            for _ in range(len(self._idle)):
                self._next(self._idle.popleft(), self._started)
        else:
            self._tick(self._plan.per_second)
        await self._until_over()
        cpu = time.thread_time() - cpu
        self._close()
        if self._connecting:
            await asyncio.wait(self._connecting)
        return self._report(cpu)

    # --- out ---

    def _tick(self, per_second: float) -> None:
        """Open loop: send what is due by now, or queue it."""
        now = time.monotonic()
        due = self._started + self._drawn / per_second
        while due <= now and not self._ends(due):
            self._drawn += 1
            if self._idle:
                self._send(self._idle.popleft(), due, now)
            elif len(self._backlog) < _BACKLOG_MAX:
                self._backlog.append(due)
            else:
                self._unsent += 1
            due = self._started + self._drawn / per_second
        if not self._over:
            self._loop.call_later(max(_TICK_SECONDS_MIN, due - now), self._tick, per_second)

    def _next(self, connection: Connection, now: float) -> None:
        """Give a free connection something to do."""
        if self._backlog:
            self._send(connection, self._backlog.popleft(), now)
        elif self._plan.per_second is None and not self._ends(now):
            self._drawn += 1
            self._send(connection, now, now)
        else:
            self._idle.append(connection)

    def _ends(self, now: float) -> bool:
        if now >= self._end or self._drawn >= self._plan.requests_max:
            self._over = True
        return self._over

    def _send(self, connection: Connection, due: float, now: float) -> None:
        assert connection.transport is not None
        connection.request = request = next(self._requests)
        connection.due = due
        connection.sent = now
        connection.transport.write(request.payload)

    # --- in ---

    def _answered(self, connection: Connection, data: bytes) -> None:
        now = self._last = time.monotonic()
        request = connection.request
        assert request is not None
        connection.request = None
        if request.key:
            self._redemptions.answer(wire.status(data), now - connection.due)
            if self._plan.record:
                self._records.append(_Record(request, connection.sent, now, data))
        else:
            self._reads.answer(wire.status(data), now - connection.due)
        if wire.closes(data):
            connection.drop()
        else:
            self._next(connection, now)

    def _lost(self, connection: Connection) -> None:
        self._unanswered(connection, RESET)
        with suppress(ValueError):
            self._idle.remove(connection)
        if not self._closed:
            self._connect_soon(connection)

    def _unanswered(self, connection: Connection, cause: str) -> None:
        request = connection.request
        connection.request = None
        if request is None or self._closed:
            return
        if request.key:
            self._redemptions.none(cause)
            if self._plan.record:
                self._records.append(_Record(request, connection.sent, None, b""))
        else:
            self._reads.none(cause)

    # --- connections ---

    async def _connect_all(self) -> None:
        self._connections = [Connection(self._answered, self._lost) for _ in range(self._plan.connections)]
        for connection in self._connections:
            try:
                await self._connect(connection)
            except (OSError, TimeoutError) as error:
                self._close()
                raise HarnessError(f"nobody listens there: {error}") from error
            self._idle.append(connection)

    async def _connect(self, connection: Connection) -> None:
        async with asyncio.timeout(_CONNECT_SECONDS_MAX):
            await self._loop.create_connection(lambda: connection, *next(self._addresses))

    def _connect_soon(self, connection: Connection) -> None:
        task = self._loop.create_task(self._connect_again(connection))
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    async def _connect_again(self, connection: Connection) -> None:
        wait, longest = _BACKOFF_SECONDS
        while not self._closed:
            try:
                await self._connect(connection)
            except (OSError, TimeoutError):
                await asyncio.sleep(random.uniform(wait / 2, wait))  # noqa: S311 - jitter
                wait = min(2 * wait, longest)
            else:
                if self._closed:
                    connection.drop()
                else:
                    self._next(connection, time.monotonic())
                return

    def _close(self) -> None:
        self._closed = True
        for connection in self._connections:
            connection.drop()

    # --- the end ---

    async def _until_over(self) -> None:
        """Until the plan's end, and then until everything is answered or has waited too long."""
        while True:
            await asyncio.sleep(_SWEEP_SECONDS)
            now = time.monotonic()
            if self._stop.is_set():
                self._over = True
                self._give_up(math.inf)
            if self._plan.per_second is None:  # the open loop sees to its own end, so that nothing due is forgotten
                self._over = self._over or now >= self._end
            too_old = now - self._plan.timeout_seconds
            self._give_up(too_old)
            under_way = [each for each in self._connections if each.request is not None]
            for connection in under_way:
                if connection.sent < too_old:
                    self._unanswered(connection, TIMEOUT)
                    connection.drop()
            if self._over and not under_way and not self._backlog:
                return

    def _give_up(self, due_before: float) -> None:
        """Forget requests that were due before this time and wait still: whoever waits so long goes."""
        while self._backlog and self._backlog[0] < due_before:
            self._backlog.popleft()
            self._unsent += 1

    def _report(self, cpu_seconds: float) -> Report:
        duration = max(self._last - self._started, _TICK_SECONDS_MIN)
        return Report(
            redemptions=self._redemptions.tally(duration),
            reads=self._reads.tally(duration),
            duration_seconds=duration,
            unsent=self._unsent,
            cpu_seconds=cpu_seconds,
            history=self._history() if self._plan.record else None,
        )

    def _history(self) -> History:
        return History(tuple(record.operation() for record in self._records))
