"""Many callers, one database call: what waits goes together, as soon as an earlier batch is back.

No timer: a lone item goes at once, and under load the batches grow by themselves. Items belong to lanes (accounts).
At most one call at a time works on a lane, in the order of arrival, so calls never wait for each other's row locks,
and a hot lane's waiting items all go in its next batch. Others do not wait behind it.

A call that has begun is never cancelled (`service.ledger` says why): a caller may go, the call goes on.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Coroutine, Hashable, Sequence
from contextlib import suppress
from contextvars import Context
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, Generic, TypeAlias, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class Busy(Enum):
    """Instead of a result: somebody else holds the item's lane, and nothing was done."""

    BUSY = "busy"


BUSY: Final = Busy.BUSY


class BatcherFullError(Exception):
    """Too many items wait already; nothing was begun."""


class BatcherClosedError(Exception):
    """The batcher is closing; nothing was begun."""


class DeadlineQueuedError(Exception):
    """The deadline is over, and nothing was begun nor will be."""


class DeadlineRunningError(Exception):
    """The deadline is over while the item runs; what becomes of it is unknown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """How much at once.

    Attributes:
        batch_max: Items in a batch.
        batches_in_flight_max: Batches under way.
        alone_in_flight_max: Items that run alone under way.
        queue_max: Items that may wait. Those that a batch gives back come on top, at most what it held.

    Raises:
        ValueError: One of them is less than 1.
    """

    batch_max: int
    alone_in_flight_max: int
    queue_max: int
    batches_in_flight_max: int = 2

    def __post_init__(self) -> None:
        if min(self.batch_max, self.batches_in_flight_max, self.alone_in_flight_max, self.queue_max) < 1:
            raise ValueError("each bound must be at least 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Calls(Generic[Item, Result]):
    """What the batcher calls.

    Attributes:
        run: One database call for many items: a result for each, in their order. A result that is an exception is
            raised to its item's caller; `BUSY` has the item run again, the first of its lane alone.
        run_alone: The same for one item; may wait for somebody else's lock.
        lane: Of an item; items of a lane run one call after the other.
        is_fault_of_item: Whether an exception of `run` may come from one of its items, and means that nothing was
            done: then each runs again, alone. Any other exception is raised to every caller of the batch.
        on_batch: Told after each call: its size, how long its oldest item had waited, how long it ran; in seconds.
    """

    run: Callable[[Sequence[Item]], Awaitable[Sequence[Result | Exception | Busy]]]
    run_alone: Callable[[Item], Awaitable[Result | Exception]]
    lane: Callable[[Item], Hashable]
    is_fault_of_item: Callable[[Exception], bool]
    on_batch: Callable[[int, float, float], None] = lambda _size, _waited, _ran: None


class _Entry(Generic[Item, Result]):
    """An item that somebody waits for, until its future is done."""

    __slots__ = ("alone", "deadline", "future", "item", "lane", "queued_at", "running")

    def __init__(
        self,
        item: Item,
        lane: _Lane[Item, Result],
        future: asyncio.Future[Result],
        queued_at: float,
        deadline: float,
    ) -> None:
        self.item = item
        self.lane = lane
        self.future = future
        self.queued_at = queued_at
        self.deadline = deadline
        self.running = False
        self.alone = False  # must not go with a batch


_End: TypeAlias = tuple[_Entry[Item, Result], Result | Exception]


class _Lane(Generic[Item, Result]):
    """Of one account: what waits, oldest first. Those that must run alone are always in front."""

    __slots__ = ("key", "running", "waiting")

    def __init__(self, key: Hashable) -> None:
        self.key = key
        self.waiting: OrderedDict[_Entry[Item, Result], None] = OrderedDict()
        self.running = False


class MicroBatcher(Generic[Item, Result]):
    """Puts items together into batches; for one event loop.

    Args:
        calls: What it calls.
        bounds: How much at once.
    """

    def __init__(self, calls: Calls[Item, Result], bounds: Bounds) -> None:
        self._calls = calls
        self._bounds = bounds
        # Every lane with something waiting or running. One that does not run is in either of the other two, which
        # lanes leave at the front and enter at the end: each gets its turn.
        self._lanes: dict[Hashable, _Lane[Item, Result]] = {}
        self._ready: OrderedDict[Hashable, _Lane[Item, Result]] = OrderedDict()
        self._ready_alone: OrderedDict[Hashable, _Lane[Item, Result]] = OrderedDict()
        self._queued = 0
        self._batches = 0
        self._alones = 0
        self._tasks: set[asyncio.Task[None]] = set()  # the loop itself holds them only weakly
        self._starting = False
        self._closing = False
        self._closed = False
        self._idle = asyncio.Event()
        self._began = self._waited = 0.0  # of the batch that began last: when, and how long its oldest item had waited

    @property
    def wait_seconds(self) -> float:
        """How long a batch has to wait: as the last one did, or for as long as that one takes; 0 when nothing waits."""
        if not self._queued:
            return 0.0
        return max(self._waited, asyncio.get_running_loop().time() - self._began)

    @property
    def queued(self) -> int:
        """Items that wait."""
        return self._queued

    async def submit(self, item: Item, deadline: float) -> Result:
        """Run an item with others.

        A caller who is cancelled takes a waiting item along; one that runs goes on.

        Args:
            item: What to run.
            deadline: When to stop waiting, in the event loop's time.

        Raises:
            BatcherFullError: Too many wait; nothing was begun.
            BatcherClosedError: The batcher is closing; nothing was begun.
            DeadlineQueuedError: The deadline is over; nothing was begun.
            DeadlineRunningError: The deadline is over; the item runs, with an unknown end.
            Exception: What `run` or `run_alone` raised or gave for this item.
        """
        loop = asyncio.get_running_loop()
        entry = self._enqueue(item, deadline, loop)
        timer = loop.call_at(deadline, self._expire, entry)
        try:
            return await entry.future
        except asyncio.CancelledError:
            if not entry.running:
                self._remove(entry)
            raise
        finally:
            timer.cancel()

    async def close(self, seconds: float) -> None:
        """Refuse what is new, and finish what is here within this time.

        Then what still waits fails with `BatcherClosedError`; what runs goes on.
        """
        self._closing = True
        if self._lanes:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._idle.wait()
        self._closed = True
        for lane in tuple(self._lanes.values()):
            self._fail_waiting(lane)

    def _enqueue(self, item: Item, deadline: float, loop: asyncio.AbstractEventLoop) -> _Entry[Item, Result]:
        if self._closing:
            raise BatcherClosedError
        if self._queued >= self._bounds.queue_max:
            raise BatcherFullError
        key = self._calls.lane(item)
        lane = self._lanes.get(key)
        if lane is None:
            self._lanes[key] = self._ready[key] = lane = _Lane(key)
        entry = _Entry(item, lane, loop.create_future(), loop.time(), deadline)
        lane.waiting[entry] = None
        self._queued += 1
        self._start_soon(loop)
        return entry

    def _expire(self, entry: _Entry[Item, Result]) -> None:
        if entry.future.done():
            return
        if entry.running:
            entry.future.set_exception(DeadlineRunningError())
        else:
            entry.future.set_exception(DeadlineQueuedError())
            self._remove(entry)

    def _remove(self, entry: _Entry[Item, Result]) -> None:
        """Take an entry that does not run out of its lane, if it is still there."""
        lane = entry.lane
        if entry not in lane.waiting:
            return
        del lane.waiting[entry]
        self._queued -= 1
        if not lane.running:
            self._place(lane)
            self._start_soon(asyncio.get_running_loop())

    def _place(self, lane: _Lane[Item, Result]) -> None:
        """Have a lane that does not run where it belongs; if it is there already it keeps its turn."""
        if not lane.waiting:
            del self._lanes[lane.key]
            self._ready.pop(lane.key, None)
            self._ready_alone.pop(lane.key, None)
            if self._closing and not self._lanes:
                self._idle.set()
        elif next(iter(lane.waiting)).alone:
            self._ready_alone.setdefault(lane.key, lane)
        else:
            self._ready_alone.pop(lane.key, None)
            self._ready.setdefault(lane.key, lane)

    def _start_soon(self, loop: asyncio.AbstractEventLoop) -> None:
        """Start what can start, once everything that came in the same turn of the loop is there."""
        if not self._starting and self._batches < self._bounds.batches_in_flight_max:
            self._starting = True
            loop.call_soon(self._start_after_turn)

    def _start_after_turn(self) -> None:
        self._starting = False
        self._start()

    def _start(self) -> None:
        now = asyncio.get_running_loop().time()
        while self._ready_alone and self._alones < self._bounds.alone_in_flight_max:
            _, lane = self._ready_alone.popitem(last=False)
            alone: list[_Entry[Item, Result]] = []
            self._take(lane, alone, 1, now)
            if alone:
                self._alones += 1
                self._begin(self._run_alone(alone[0]))
        while self._ready and self._batches < self._bounds.batches_in_flight_max:
            if batch := self._take_batch(now):
                self._batches += 1
                self._begin(self._run_batch(batch))

    def _begin(self, call: Coroutine[Any, Any, None]) -> None:
        # In no request's context: a batch belongs to many, and its trace to none of them.
        task = asyncio.get_running_loop().create_task(call, context=Context())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _take_batch(self, now: float) -> list[_Entry[Item, Result]]:
        batch: list[_Entry[Item, Result]] = []
        while self._ready and len(batch) < self._bounds.batch_max:
            _, lane = self._ready.popitem(last=False)
            self._take(lane, batch, self._bounds.batch_max, now)
        return batch

    def _take(self, lane: _Lane[Item, Result], batch: list[_Entry[Item, Result]], batch_max: int, now: float) -> None:
        """Move a lane's oldest entries to the batch, while there is room; with them there it counts as running."""
        while lane.waiting and len(batch) < batch_max:
            entry, _ = lane.waiting.popitem(last=False)
            self._queued -= 1
            if entry.future.done():  # its caller was cancelled in this turn of the loop
                continue
            if now >= entry.deadline:  # its timer comes later in this turn of the loop
                entry.future.set_exception(DeadlineQueuedError())
                continue
            entry.running = lane.running = True
            batch.append(entry)
        if not lane.running:
            self._place(lane)

    async def _run_batch(self, batch: list[_Entry[Item, Result]]) -> None:
        loop = asyncio.get_running_loop()
        self._began = began = loop.time()
        self._waited = waited = began - min(entry.queued_at for entry in batch)
        again: list[_Entry[Item, Result]] = []
        ends: list[_End[Item, Result]] = []
        try:
            try:
                results = await self._calls.run([entry.item for entry in batch])
            except Exception as error:  # noqa: BLE001 - raised to the callers
                again, ends = self._failed(batch, error)
            else:
                again, ends = _answered(batch, results)
        finally:
            self._batches -= 1
            self._release(batch, again)
        # The next call leaves first, and the database works on it while these callers are answered.
        loop.call_soon(_settle_all, ends)
        self._calls.on_batch(len(batch), waited, loop.time() - began)

    def _failed(
        self, batch: list[_Entry[Item, Result]], error: Exception
    ) -> tuple[list[_Entry[Item, Result]], list[_End[Item, Result]]]:
        """Those that run again: all, alone, to find the one at fault; or none, and all end with the error."""
        if len(batch) > 1 and self._calls.is_fault_of_item(error):
            for entry in batch:
                entry.alone = True
            return batch, []
        return [], [(entry, error) for entry in batch]

    async def _run_alone(self, entry: _Entry[Item, Result]) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            _settle(entry, await self._calls.run_alone(entry.item))
        except Exception as error:  # noqa: BLE001 - raised to the caller
            _settle(entry, error)
        finally:
            self._alones -= 1
            self._release([entry], [])
        self._calls.on_batch(1, began - entry.queued_at, loop.time() - began)

    def _release(self, ran: list[_Entry[Item, Result]], again: list[_Entry[Item, Result]]) -> None:
        """The lanes are free again; entries that were not done go back to the front of theirs, in order."""
        first: dict[_Lane[Item, Result], _Entry[Item, Result]] = {}
        for entry in reversed(again):
            if entry.future.done():  # nobody waits any more
                continue
            if self._closed:
                entry.future.set_exception(BatcherClosedError())
                continue
            entry.running = False
            entry.lane.waiting[entry] = None
            entry.lane.waiting.move_to_end(entry, last=False)
            self._queued += 1
            first[entry.lane] = entry
        for entry in first.values():  # it waits for whoever holds the lane; the rest then go in a batch again
            entry.alone = True
        for lane in dict.fromkeys(entry.lane for entry in ran):
            lane.running = False
            self._place(lane)
        self._start()

    def _fail_waiting(self, lane: _Lane[Item, Result]) -> None:
        for entry in lane.waiting:
            if not entry.future.done():
                entry.future.set_exception(BatcherClosedError())
        self._queued -= len(lane.waiting)
        lane.waiting.clear()
        if not lane.running:
            self._place(lane)


def _answered(
    batch: list[_Entry[Item, Result]], results: Sequence[Result | Exception | Busy]
) -> tuple[list[_Entry[Item, Result]], list[_End[Item, Result]]]:
    """Those that were busy and run again, and how the others end."""
    if len(results) != len(batch):
        error = RuntimeError(f"{len(results)} results for {len(batch)} items")
        return [], [(entry, error) for entry in batch]
    again: list[_Entry[Item, Result]] = []
    ends: list[_End[Item, Result]] = []
    for entry, result in zip(batch, results, strict=True):
        if isinstance(result, Busy):
            again.append(entry)
        else:
            ends.append((entry, result))
    return again, ends


def _settle_all(ends: list[_End[Item, Result]]) -> None:
    for entry, result in ends:
        _settle(entry, result)


def _settle(entry: _Entry[Item, Result], result: Result | Exception) -> None:
    if entry.future.done():  # nobody waits any more
        return
    if isinstance(result, Exception):
        entry.future.set_exception(result)
    else:
        entry.future.set_result(result)
