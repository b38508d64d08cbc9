"""Items go together: nothing is lost or run twice, lanes keep their order, and the hot one slows nobody."""

from __future__ import annotations

import asyncio
import gc
import random
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Coroutine, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service import batching
from service.batching import (
    BUSY,
    BatcherClosedError,
    BatcherFullError,
    Bounds,
    Busy,
    Calls,
    DeadlineQueuedError,
    DeadlineRunningError,
    MicroBatcher,
)
from tests.service.test_admission import now, run

Item = tuple[str, int]
"""A lane, and a number within it."""


class PoisonError(Exception):
    """An item that no batch can hold."""


class LostError(Exception):
    """The connection is gone."""


@dataclass(slots=True)
class Database:
    """What the batcher calls, at the test's command, and what it saw of it.

    Attributes:
        seconds: How long a call takes.
        poison: Items that fail every call that holds them.
        lost: Calls fail as if the connection were gone.
        busy: Lanes that somebody else holds, as long as no call alone has waited for them.
        begun: Every call's items, in order; a call alone is marked.
        done: Items that were done, in order.
        lanes_running: How many calls are on a lane now.
        calls_running: Batches and items alone under way.
        calls_most: The most there were at once.
        told: What `on_batch` was told.
        chance: If given, calls take a random part of their time.
    """

    seconds: float = 1.0
    poison: set[Item] = field(default_factory=set)
    lost: bool = False
    busy: set[str] = field(default_factory=set)
    begun: list[tuple[str, list[Item]]] = field(default_factory=list)
    done: list[Item] = field(default_factory=list)
    lanes_running: Counter[str] = field(default_factory=Counter)
    calls_running: Counter[str] = field(default_factory=Counter)
    calls_most: Counter[str] = field(default_factory=Counter)
    told: list[tuple[int, float, float]] = field(default_factory=list)
    chance: random.Random | None = None

    def batcher(
        self, *, batch_max: int = 100, batches: int = 2, alone: int = 2, queue_max: int = 100_000
    ) -> MicroBatcher[Item, str]:
        """A batcher before this database."""
        calls = Calls(
            run=self.run,
            run_alone=self.run_alone,
            lane=lambda item: item[0],
            is_fault_of_item=lambda error: isinstance(error, PoisonError),
            on_batch=lambda *told: self.told.append(told),
        )
        bounds = Bounds(
            batch_max=batch_max, batches_in_flight_max=batches, alone_in_flight_max=alone, queue_max=queue_max
        )
        return MicroBatcher(calls, bounds)

    @property
    def batches(self) -> list[list[Item]]:
        """The batches that were begun."""
        return [items for kind, items in self.begun if kind == "batch"]

    @property
    def alones(self) -> list[Item]:
        """The items that were begun alone."""
        return [items[0] for kind, items in self.begun if kind == "alone"]

    async def run(self, items: Sequence[Item]) -> Sequence[str | Exception | Busy]:
        """Do many; those in a busy lane are left out."""
        busy = set(self.busy)
        await self._call("batch", list(items))
        return [BUSY if item[0] in busy else self._do(item) for item in items]

    async def run_alone(self, item: Item) -> str | Exception:
        """Do one, waiting for its lane."""
        await self._call("alone", [item])
        self.busy.discard(item[0])
        return self._do(item)

    async def _call(self, kind: str, items: list[Item]) -> None:
        lanes = {lane for lane, _ in items}
        self.begun.append((kind, items))
        self.lanes_running.update(lanes)
        self.calls_running[kind] += 1
        self.calls_most[kind] = max(self.calls_most[kind], self.calls_running[kind])
        assert all(self.lanes_running[lane] == 1 for lane in lanes), "two calls on one lane"
        try:
            await asyncio.sleep(self.chance.random() * self.seconds if self.chance else self.seconds)
        finally:
            self.calls_running[kind] -= 1
            self.lanes_running.subtract(lanes)
        if self.lost:
            raise LostError
        if self.poison & set(items):
            raise PoisonError

    def _do(self, item: Item) -> str:
        self.done.append(item)
        return _result(item)


def _result(item: Item) -> str:
    return f"{item[0]}-{item[1]}"


def _submit(batcher: MicroBatcher[Item, str], items: Sequence[Item], deadline: float = 1e6) -> list[asyncio.Task[str]]:
    return [asyncio.create_task(batcher.submit(item, deadline)) for item in items]


def _items(lane: str, count: int, first: int = 0) -> list[Item]:
    return [(lane, number) for number in range(first, first + count)]


def _spread(count: int) -> list[Item]:
    return [(f"lane{number}", 0) for number in range(count)]


async def _ends(tasks: Sequence[asyncio.Task[str]]) -> list[str | BaseException]:
    return await asyncio.gather(*tasks, return_exceptions=True)


def _in_virtual_time(test: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    """Make a test of a coroutine that makes one, for pytest."""

    def wrapped() -> None:
        run(test())

    wrapped.__doc__, wrapped.__name__ = test.__doc__, test.__name__
    return wrapped


# --- Batches ---


@_in_virtual_time
async def test_a_lone_item_goes_at_once() -> None:
    """No timer delays it: it takes as long as its call."""
    database = Database()
    begun = now()
    assert await database.batcher().submit(("a", 1), 1e6) == "a-1"
    assert now() == begun + 1
    assert database.told == [(1, 0, 1)]


@_in_virtual_time
async def test_what_comes_in_one_turn_of_the_loop_goes_together() -> None:
    """Items of the same moment make one batch, and each gets its own result."""
    database = Database()
    items = _spread(50)
    assert await _ends(_submit(database.batcher(), items)) == [_result(item) for item in items]
    assert database.batches == [items]


@_in_virtual_time
async def test_what_waits_goes_when_a_batch_returns() -> None:
    """With both batches under way the next items wait, and go together in the moment one returns."""
    database = Database()
    batcher = database.batcher()
    first = _submit(batcher, [("a", 1)])
    await asyncio.sleep(0.5)
    second = _submit(batcher, [("b", 1)])
    await asyncio.sleep(0.25)
    third = _submit(batcher, [("c", 1)])
    await asyncio.sleep(0.125)
    third += _submit(batcher, [("d", 1)])
    await asyncio.sleep(0)
    assert batcher.queued == 2
    await _ends(first + second + third)
    assert database.batches == [[("a", 1)], [("b", 1)], [("c", 1), ("d", 1)]]
    assert database.told == [(1, 0, 1), (1, 0, 1), (2, 0.25, 1)]


@_in_virtual_time
async def test_the_next_batch_leaves_before_the_callers_of_the_last_are_answered() -> None:
    """The database has work while many callers are answered; else one hot lane would wait for all of them."""
    database = Database()
    batcher = database.batcher()
    begun: list[int] = []

    async def call(number: int) -> None:
        await batcher.submit(("hot", number), 1e6)
        begun.append(len(database.batches))

    first = [asyncio.create_task(call(number)) for number in range(10)]
    await asyncio.sleep(0.5)
    last = asyncio.create_task(call(10))
    await asyncio.gather(*first, last)
    assert begun == [2] * 11


@_in_virtual_time
async def test_how_long_a_batch_waits_is_known() -> None:
    """As long as the last one did or, when that is more, as the call under way already takes; nothing while idle."""
    database = Database()
    batcher = database.batcher()
    first = asyncio.create_task(batcher.submit(("hot", 0), 1e6))
    await asyncio.sleep(0.25)
    assert batcher.wait_seconds == 0
    second = asyncio.create_task(batcher.submit(("hot", 1), 1e6))
    await asyncio.sleep(0.5)
    assert batcher.wait_seconds == 0.75
    await asyncio.gather(first, second)
    assert batcher.wait_seconds == 0


@_in_virtual_time
async def test_batches_are_bounded_in_size_and_number() -> None:
    """Never more than `batch_max` items in one, nor more than `batches_in_flight_max` at once."""
    database = Database()
    await _ends(_submit(database.batcher(batch_max=7, batches=3), _spread(100)))
    assert [len(batch) for batch in database.batches] == [7] * 14 + [2]
    assert database.calls_most == {"batch": 3}


@_in_virtual_time
async def test_the_queue_is_bounded() -> None:
    """One item more than may wait is refused at once; those that wait are served."""
    database = Database()
    batcher = database.batcher(batch_max=1, batches=1, queue_max=3)
    tasks = _submit(batcher, _spread(1))
    await asyncio.sleep(0.5)
    tasks += _submit(batcher, _items("b", 3))
    await asyncio.sleep(0)
    with pytest.raises(BatcherFullError):
        await batcher.submit(("c", 1), 1e6)
    await _ends(tasks)
    assert len(database.done) == 4
    assert await batcher.submit(("c", 1), 1e6) == "c-1"


@pytest.mark.parametrize("bound", ["batch_max", "batches_in_flight_max", "alone_in_flight_max", "queue_max"])
def test_a_bound_of_nothing_is_refused(bound: str) -> None:
    """A batcher that could never run anything is not made."""
    bounds = {"batch_max": 1, "batches_in_flight_max": 1, "alone_in_flight_max": 1, "queue_max": 1}
    with pytest.raises(ValueError, match="at least 1"):
        Bounds(**bounds | {bound: 0})


@_in_virtual_time
async def test_a_batch_runs_in_no_callers_context() -> None:
    """What a caller set for itself, its trace for one, is not seen by the call that serves many."""
    seen: list[str] = []
    trace = ContextVar("trace", default="none")

    async def see(items: Sequence[Item]) -> list[str]:
        seen.append(trace.get())
        return [_result(item) for item in items]

    trace.set("mine")
    calls = Calls(run=see, run_alone=Database().run_alone, lane=lambda item: item[0], is_fault_of_item=lambda _: False)
    batcher = MicroBatcher(calls, Bounds(batch_max=1, alone_in_flight_max=1, queue_max=1))
    assert await batcher.submit(("a", 1), 1e6) == "a-1"
    assert seen == ["none"]


# --- Lanes ---


@_in_virtual_time
async def test_a_lane_that_runs_waits_for_its_next_batch_and_others_do_not() -> None:
    """While `hot` runs, its new items stay and those of others behind them go; then all of its items go in order."""
    database = Database()
    batcher = database.batcher()
    tasks = _submit(batcher, _items("hot", 1))
    await asyncio.sleep(0.5)
    tasks += _submit(batcher, [*_items("hot", 50, 1), ("b", 0), ("c", 0)])
    await _ends(tasks)
    assert database.batches == [_items("hot", 1), [("b", 0), ("c", 0)], _items("hot", 50, 1)]


@_in_virtual_time
async def test_a_hot_lane_and_the_others_take_turns() -> None:
    """With 1000 items of one lane in front, a lane that comes later waits for two batches at most, and none starves."""
    database = Database()
    batcher = database.batcher(batch_max=10, batches=1)
    begun = now()
    hot = _submit(batcher, _items("hot", 1000))
    await asyncio.sleep(0.5)
    for _ in range(20):
        began = now()
        await batcher.submit(("cold", 0), 1e6)
        assert now() - began <= 2
    await _ends(hot)
    assert now() - begun <= 121
    assert [item for item in database.done if item[0] == "hot"] == _items("hot", 1000)


@_in_virtual_time
async def test_two_hot_lanes_do_not_shut_a_third_out() -> None:
    """Lanes get their turn in the order in which they last ran."""
    database = Database()
    batcher = database.batcher(batch_max=10, batches=2)
    tasks = _submit(batcher, [*_items("a", 500), *_items("b", 500), ("cold", 0)])
    began = now()
    await tasks[-1]
    assert now() - began == 2
    await _ends(tasks)


def _steps(queued: int) -> int:
    """Lines that the batcher runs while one batch of others is made, with this many of a hot lane in front."""
    lines = 0

    def count(frame: FrameType, event: str, _: object) -> Callable[..., Any] | None:
        nonlocal lines
        if frame.f_code.co_filename != batching.__file__:
            return None
        lines += event == "line"
        return count

    async def main() -> None:
        database = Database()
        batcher = database.batcher(batch_max=20)
        tasks = _submit(batcher, _items("hot", queued))
        await asyncio.sleep(0.5)
        tasks += _submit(batcher, _spread(50))
        await asyncio.sleep(0.1)
        assert (len(database.batches), batcher.queued) == (2, queued - 20 + 50 - 20)
        before = sys.gettrace()
        sys.settrace(count)
        await asyncio.sleep(0.9)
        sys.settrace(before)
        assert database.batches[2][:20] == _spread(40)[20:]
        await batcher.close(0)
        await _ends(tasks)

    run(main())
    return lines


def test_a_batch_costs_what_it_holds_not_what_waits() -> None:
    """Steps of the code, not time: with 10,000 of a hot lane in front it takes as many as with 100."""
    few, many = _steps(100), _steps(10_000)
    assert few > 100
    assert many == few


# --- Deadlines and callers who go ---


@_in_virtual_time
async def test_an_item_that_waits_past_its_deadline_is_never_run() -> None:
    """Its caller is told at the deadline that nothing was begun, and it leaves the queue."""
    database = Database(seconds=10)
    batcher = database.batcher(batches=1)
    tasks = _submit(batcher, [("a", 1)])
    await asyncio.sleep(0.5)
    begun = now()
    with pytest.raises(DeadlineQueuedError):
        await batcher.submit(("b", 1), begun + 3)
    assert now() == pytest.approx(begun + 3)
    assert batcher.queued == 0
    await _ends(tasks)
    with pytest.raises(DeadlineQueuedError):
        await batcher.submit(("b", 1), now())
    assert database.done == [("a", 1)]


@_in_virtual_time
async def test_an_item_that_runs_past_its_deadline_goes_on() -> None:
    """Its caller is told at the deadline that the end is unknown; the call is not cancelled, and is done."""
    database = Database(seconds=10)
    batcher = database.batcher()
    begun = now()
    with pytest.raises(DeadlineRunningError):
        await batcher.submit(("a", 1), begun + 3)
    assert now() == pytest.approx(begun + 3)
    assert not database.done
    await asyncio.sleep(10)
    assert database.done == [("a", 1)]


@_in_virtual_time
async def test_an_overdue_item_is_dropped_when_its_turn_comes() -> None:
    """A loop that was busy beyond the deadline does not begin the item, though its timer has not come yet."""
    database = Database()
    batcher = database.batcher()
    loop: Any = asyncio.get_running_loop()
    tasks = _submit(batcher, [("a", 1)], now() + 1) + _submit(batcher, [("a", 2), ("b", 1)])
    await asyncio.sleep(0)
    loop.seconds += 2
    ends = await _ends(tasks)
    assert isinstance(ends[0], DeadlineQueuedError)
    assert ends[1:] == ["a-2", "b-1"]
    assert database.batches == [[("a", 2), ("b", 1)]]


@_in_virtual_time
async def test_a_cancelled_caller_takes_a_waiting_item_along() -> None:
    """Cancelled while it waits, an item never runs, not even when its batch was about to be made."""
    database = Database()
    batcher = database.batcher(batches=1)
    tasks = _submit(batcher, [("a", 1)])
    await asyncio.sleep(0.5)
    tasks += _submit(batcher, [("b", 1), ("b", 2), ("c", 1)])
    await asyncio.sleep(0)
    assert batcher.queued == 3
    tasks[1].cancel()
    tasks[3].cancel()
    await asyncio.sleep(0)
    assert batcher.queued == 1
    await _ends(tasks)
    same_turn = _submit(batcher, [("d", 1)])
    await asyncio.sleep(0)
    same_turn[0].cancel()
    await _ends(same_turn)
    await asyncio.sleep(5)
    assert database.done == [("a", 1), ("b", 2)]
    assert batcher.queued == 0


@_in_virtual_time
async def test_a_cancelled_caller_leaves_a_running_item_running() -> None:
    """Cancelled while it runs, the caller goes and the item is done."""
    database = Database()
    tasks = _submit(database.batcher(), [("a", 1), ("b", 1)])
    await asyncio.sleep(0.5)
    tasks[0].cancel()
    ends = await _ends(tasks)
    assert isinstance(ends[0], asyncio.CancelledError)
    assert ends[1] == "b-1"
    assert database.done == [("a", 1), ("b", 1)]


@_in_virtual_time
async def test_a_caller_who_is_cancelled_in_the_moment_of_an_error_leaves_no_complaint() -> None:
    """An error that nobody fetches is not reported by the loop as forgotten."""
    complaints: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, complaint: complaints.append(complaint))
    database = Database(lost=True)
    tasks: list[asyncio.Task[str]] = []

    def cancel() -> None:
        tasks[0].cancel()

    calls = Calls(
        run=database.run,
        run_alone=database.run_alone,
        lane=lambda item: item[0],
        is_fault_of_item=lambda _: False,
        on_batch=lambda *_: cancel(),
    )
    batcher = MicroBatcher(calls, Bounds(batch_max=1, alone_in_flight_max=1, queue_max=1))
    tasks += _submit(batcher, _spread(1))
    assert isinstance((await _ends(tasks))[0], asyncio.CancelledError)
    tasks.clear()
    gc.collect()
    assert not complaints


# --- What goes wrong ---


@_in_virtual_time
async def test_a_poison_item_fails_alone() -> None:
    """When a batch fails by one of its items, each runs once more, alone and in its lane's order; one fails."""
    database = Database(poison={("a", 1)})
    items = [*_items("a", 3), *_items("b", 2)]
    ends = await _ends(_submit(database.batcher(), items))
    assert isinstance(ends.pop(1), PoisonError)
    assert ends == ["a-0", "a-2", "b-0", "b-1"]
    assert len(database.batches) == 1
    assert sorted(database.alones) == sorted(items)
    for lane in "ab":
        assert [item for item in database.alones if item[0] == lane] == [item for item in items if item[0] == lane]
    assert database.calls_most["alone"] == 2


@_in_virtual_time
async def test_a_poison_item_in_a_batch_of_its_own_fails_at_once() -> None:
    """There is nobody to protect from it."""
    database = Database(poison={("a", 1)})
    with pytest.raises(PoisonError):
        await database.batcher().submit(("a", 1), 1e6)
    assert not database.alones


@_in_virtual_time
async def test_a_lost_connection_fails_the_whole_batch() -> None:
    """A fault of no item is raised to everybody, nothing is run again, and the next batch goes as ever."""
    database = Database(lost=True)
    batcher = database.batcher()
    ends = await _ends(_submit(batcher, _items("a", 5)))
    assert [type(end) for end in ends] == [LostError] * 5
    assert not database.alones
    database.lost = False
    assert await batcher.submit(("a", 9), 1e6) == "a-9"


@_in_virtual_time
async def test_a_result_that_is_an_exception_is_raised_to_its_item() -> None:
    """In a batch and alone, the others get their results; too few results fail all of the batch."""
    answers: list[list[str | Exception | Busy]] = [["one", LostError()], ["too few"], [BUSY]]

    async def answer(_: Sequence[Item]) -> list[str | Exception | Busy]:
        return answers.pop(0)

    async def alone(_: Item) -> str | Exception:
        return PoisonError()

    calls = Calls(run=answer, run_alone=alone, lane=lambda item: item[0], is_fault_of_item=lambda _: True)
    batcher = MicroBatcher(calls, Bounds(batch_max=10, alone_in_flight_max=1, queue_max=10))
    ends = await _ends(_submit(batcher, _spread(2)))
    assert (ends[0], type(ends[1])) == ("one", LostError)
    assert [type(end) for end in await _ends(_submit(batcher, _spread(2)))] == [RuntimeError] * 2
    assert [type(end) for end in await _ends(_submit(batcher, _spread(1)))] == [PoisonError]


@_in_virtual_time
async def test_a_busy_lane_waits_alone_and_the_rest_follows_in_a_batch() -> None:
    """The first busy item waits alone for the lock; later ones of its lane stay behind it, others do not."""
    database = Database(busy={"busy"})
    batcher = database.batcher()
    tasks = _submit(batcher, [*_items("busy", 3), ("b", 0)])
    await asyncio.sleep(1.5)
    tasks += _submit(batcher, [*_items("busy", 2, 3), ("c", 0)])
    assert await _ends(tasks) == ["busy-0", "busy-1", "busy-2", "b-0", "busy-3", "busy-4", "c-0"]
    assert database.begun == [
        ("batch", [*_items("busy", 3), ("b", 0)]),
        ("alone", [("busy", 0)]),
        ("batch", [("c", 0)]),
        ("batch", _items("busy", 4, 1)),
    ]


@_in_virtual_time
async def test_few_run_alone_at_once_and_batches_go_on() -> None:
    """Many busy lanes take no more than `alone_in_flight_max` calls, and the free lanes do not wait for them."""
    database = Database(busy={lane for lane, _ in _spread(20)})
    batcher = database.batcher(alone=3)
    busy = _submit(batcher, _spread(20))
    await asyncio.sleep(1.5)
    began = now()
    assert await batcher.submit(("free", 0), 1e6) == "free-0"
    assert now() == began + 1
    assert await _ends(busy) == [_result(item) for item in _spread(20)]
    assert database.calls_most["alone"] == 3


@_in_virtual_time
async def test_a_busy_item_whose_turn_alone_has_not_come_is_waiting() -> None:
    """At its deadline nothing was begun, and its lane goes on with the next; cancelled, it never runs."""
    database = Database(busy={"a", "b", "c"})
    batcher = database.batcher(alone=1)
    first = _submit(batcher, [("a", 0)])
    late = _submit(batcher, [("b", 0)], now() + 1.5)
    gone = _submit(batcher, [("c", 0), ("c", 1)])
    await asyncio.sleep(1.25)
    assert batcher.queued == 3
    gone[0].cancel()
    database.busy.discard("c")
    begun = now()
    assert isinstance((await _ends(late))[0], DeadlineQueuedError)
    assert await gone[1] == "c-1"
    assert now() == begun + 1
    assert await first[0] == "a-0"
    assert database.alones == [("a", 0)]
    assert sorted(database.done) == [("a", 0), ("c", 1)]


@_in_virtual_time
async def test_nobody_is_run_again_for_a_caller_who_has_gone() -> None:
    """A busy item whose caller was told that its end is unknown is not run alone."""
    database = Database(busy={"a"})
    with pytest.raises(DeadlineRunningError):
        await database.batcher().submit(("a", 0), now() + 0.5)
    await asyncio.sleep(5)
    assert not database.alones


# --- Closing ---


@_in_virtual_time
async def test_closing_finishes_what_is_there() -> None:
    """What runs and what waits is done, busy ones too; what comes is refused."""
    database = Database(busy={"a"})
    batcher = database.batcher(batches=1)
    tasks = _submit(batcher, _items("a", 2)) + _submit(batcher, _spread(3))
    await asyncio.sleep(0.5)
    tasks += _submit(batcher, _items("b", 3))
    await asyncio.sleep(0)
    closing = asyncio.create_task(batcher.close(100))
    await asyncio.sleep(0)
    with pytest.raises(BatcherClosedError):
        await batcher.submit(("c", 0), 1e6)
    begun = now()
    await closing
    assert now() - begun < 5
    assert not [end for end in await _ends(tasks) if isinstance(end, BaseException)]
    await batcher.close(0)


@_in_virtual_time
async def test_closing_fails_what_waits_too_long_and_cancels_nothing() -> None:
    """After its time the queue fails, nothing of it begins, and what ran goes on to its end."""
    database = Database(seconds=10, busy={"busy"})
    batcher = database.batcher(batches=1)
    tasks = _submit(batcher, [("a", 0), ("busy", 0)])
    await asyncio.sleep(0.5)
    tasks += _submit(batcher, [("a", 1), ("b", 0)])
    await asyncio.sleep(0)
    begun = now()
    await batcher.close(2)
    assert now() - begun == pytest.approx(2)
    assert batcher.queued == 0
    ends = await _ends(tasks)
    assert ends[0] == "a-0"
    assert [type(end) for end in ends[1:]] == [BatcherClosedError] * 3
    await asyncio.sleep(100)
    assert (database.done, len(database.begun)) == ([("a", 0)], 1)


def test_a_loop_that_ends_does_not_hang() -> None:
    """When the loop itself cancels everything, callers and calls end."""

    async def main() -> None:
        database = Database(seconds=100)
        _submit(database.batcher(), _spread(3))
        await asyncio.sleep(1)

    run(main())


# --- Everything at once ---


@given(seed=st.integers(0, 2**32))
@settings(max_examples=60)
def test_whatever_happens_nothing_is_lost_and_order_is_kept(seed: int) -> None:
    """Under random arrivals, locks, poison, deadlines and cancelled callers.

    Every caller gets an end that is true; an item is done once at most; lanes run one call at a time (the database
    asserts it) in order of arrival; the bounds hold; nothing is left behind.
    """
    run(_storm(random.Random(seed)))  # noqa: S311 - no secret


async def _storm(chance: random.Random) -> None:
    database = Database(chance=chance)
    database.poison = {(lane, chance.randrange(60)) for lane in "abc" if chance.random() < 0.5}
    bounds = {"batch_max": chance.randint(1, 12), "batches": chance.randint(1, 3), "alone": chance.randint(1, 3)}
    batcher = database.batcher(**bounds, queue_max=40)
    numbers: Counter[str] = Counter()
    tasks: dict[Item, asyncio.Task[str]] = {}
    for _ in range(150):
        lane = chance.choice("aaaabcdefg")
        item = (lane, numbers[lane])
        numbers[lane] += 1
        deadline = now() + chance.choice([0.3, 1, 5, 1e6])
        tasks[item] = asyncio.create_task(batcher.submit(item, deadline))
        if chance.random() < 0.2:
            database.busy.add(chance.choice("abcd"))
        if chance.random() < 0.2:
            chance.choice(list(tasks.values())).cancel()
        for _ in range(chance.choice([0, 0, 1, 2])):
            await asyncio.sleep(0)
        if chance.random() < 0.1:
            await asyncio.sleep(chance.random())
        assert batcher.queued <= 40 + bounds["batch_max"] * bounds["batches"]
    if chance.random() < 0.3:
        await batcher.close(chance.random() * 3)
    ends = dict(zip(tasks, await _ends(list(tasks.values())), strict=True))
    await asyncio.sleep(100)  # for what runs on without a caller
    _check(database, ends, bounds)
    assert (batcher.queued, batcher._batches, batcher._alones) == (0, 0, 0)
    assert not any((batcher._lanes, batcher._ready, batcher._ready_alone, batcher._tasks))


def _check(database: Database, ends: dict[Item, str | BaseException], bounds: dict[str, int]) -> None:
    done = Counter(database.done)
    begun = Counter(item for _, items in database.begun for item in items)
    assert set(done.values()) <= {1}
    for item, end in ends.items():
        if isinstance(end, str):
            assert (end, done[item]) == (_result(item), 1)
        elif isinstance(end, PoisonError):
            assert item in database.poison
        elif isinstance(end, DeadlineQueuedError | BatcherClosedError | BatcherFullError):
            assert done[item] == 0
        else:
            assert isinstance(end, DeadlineRunningError | asyncio.CancelledError)
            assert begun[item] or isinstance(end, asyncio.CancelledError)
    order: dict[str, list[int]] = defaultdict(list)
    for lane, number in database.done:
        order[lane].append(number)
    assert all(numbers == sorted(numbers) for numbers in order.values())
    assert max(len(batch) for batch in database.batches) <= bounds["batch_max"]
    assert database.calls_most["batch"] <= bounds["batches"]
    assert database.calls_most["alone"] <= bounds["alone"]
