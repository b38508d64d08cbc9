"""Who may come in: the limit finds its place in simulated overload, and the gate never loses a place."""

from __future__ import annotations

import asyncio
import heapq
import random
import selectors
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.admission import AdaptiveLimit, Admission, GateFullError, Priority, PriorityGate, Sample, Ticket

LIMIT = AdaptiveLimit(floor=20, ceiling=500, target_seconds=0.05, limit=100)

# --- The limit, one step at a time ---


def test_a_latency_within_the_target_lets_a_used_limit_grow() -> None:
    """Up to the target the limit grows, by the root of itself smoothed, however much longer than usual it takes."""
    limit = replace(LIMIT, long_seconds=0.001)
    assert limit.after(Sample(latency_seconds=0.05, in_flight=100)).limit == pytest.approx(105)
    assert replace(limit, limit=20, floor=1).after(Sample(latency_seconds=0.05, in_flight=20)).limit > 22
    assert replace(limit, limit=4, floor=1).after(Sample(latency_seconds=0.05, in_flight=4)).limit == 6


def test_a_limit_that_is_not_used_does_not_grow() -> None:
    """Below half of it in flight the limit stays: nothing is known about more. Nor does a latency shrink it."""
    assert LIMIT.after(Sample(latency_seconds=0.001, in_flight=49)).limit == 100
    assert LIMIT.after(Sample(latency_seconds=9.0, in_flight=49)).limit == 100
    assert LIMIT.after(Sample(latency_seconds=0.001, in_flight=50)).limit > 100


def test_a_long_latency_shrinks_the_limit_by_their_ratio() -> None:
    """At 1.25 times what is tolerated a fifth is too much; half of that is taken away at once."""
    limit = replace(LIMIT, long_seconds=0.05)
    assert limit.after(Sample(latency_seconds=0.09375, in_flight=100)).limit == pytest.approx(90)


def test_one_window_takes_away_a_quarter_at_most() -> None:
    """However long the latency, the gradient is no less than a half, smoothed to a quarter."""
    assert LIMIT.after(Sample(latency_seconds=1e9, in_flight=100)).limit == 75


@pytest.mark.parametrize("in_flight", [1, 100])
def test_dropped_requests_shrink_the_limit_by_their_share(in_flight: int) -> None:
    """All dropped: a quarter less; half dropped: an eighth; whether the limit is used or not, and with no latency."""
    assert LIMIT.after(Sample(latency_seconds=None, in_flight=in_flight, dropped_share=1)).limit == 75
    assert LIMIT.after(Sample(latency_seconds=0.01, in_flight=in_flight, dropped_share=0.5)).limit == 87.5


def test_an_overload_does_not_become_normal() -> None:
    """A thousand slow windows in a crowd teach no long-term latency above the target."""
    limit = LIMIT
    for _ in range(1000):
        limit = limit.after(Sample(latency_seconds=0.4, in_flight=100))
    assert limit.long_seconds is not None
    assert limit.long_seconds <= 0.05
    assert limit.limit == 20


def test_a_server_that_is_slow_without_a_crowd_is_learnt() -> None:
    """What few requests take cannot be our queue: it becomes the long-term latency, and later is forgotten."""
    limit = LIMIT
    for _ in range(100):
        limit = limit.after(Sample(latency_seconds=0.2, in_flight=20))
    assert limit.long_seconds == pytest.approx(0.2, rel=0.01)
    assert limit.after(Sample(latency_seconds=0.2, in_flight=100)).limit > limit.limit
    for _ in range(100):
        limit = limit.after(Sample(latency_seconds=0.01, in_flight=100))
    assert limit.long_seconds == pytest.approx(0.01, rel=0.01)


def test_one_stall_teaches_little() -> None:
    """A window of 3 s between ordinary ones raises the long-term latency by less than a third of the target."""
    limit = replace(LIMIT, long_seconds=0.01).after(Sample(latency_seconds=3.0, in_flight=5))
    assert limit.long_seconds is not None
    assert limit.long_seconds < 0.01 + 0.05 / 3


@given(
    st.lists(
        st.builds(
            Sample,
            latency_seconds=st.none() | st.floats(0, 1e6),
            in_flight=st.integers(0, 10_000),
            dropped_share=st.floats(0, 1),
        ),
        max_size=100,
    )
)
def test_the_limit_stays_within_its_bounds(samples: Sequence[Sample]) -> None:
    """Whatever is seen, the limit is between floor and ceiling, and the long-term latency is a number."""
    limit = LIMIT
    for sample in samples:
        limit = limit.after(sample)
        assert 20 <= limit.limit <= 500
        assert limit.long_seconds is None or 0 <= limit.long_seconds <= 1e6


@pytest.mark.parametrize(
    "wrong",
    [{"floor": 0}, {"floor": 101}, {"ceiling": 99}, {"limit": float("nan")}]
    + [{"target_seconds": value} for value in (0.0, -1.0, float("nan"), float("inf"))],
)
def test_a_contradictory_limit_is_refused(wrong: dict[str, Any]) -> None:
    """Bounds in the wrong order and a target that is no time raise where they are written."""
    with pytest.raises(ValueError, match="must be"):
        replace(LIMIT, **wrong)


# --- Coming in ---


@dataclass(slots=True)
class Clock:
    """A clock that the test moves."""

    seconds: float = 0.0

    def __call__(self) -> float:
        """The time."""
        return self.seconds


def _fixed(limit: int, clock: Callable[[], float] | None = None) -> Admission:
    return Admission(AdaptiveLimit(floor=limit, ceiling=limit, target_seconds=1, limit=limit), clock or Clock())


def test_the_less_important_are_turned_away_first() -> None:
    """Of 100 places bulk may fill 50, reads 75, redemptions 90, and what ends something all."""
    admission = _fixed(100)
    for priority, places in ((Priority.BULK, 50), (Priority.READ, 75), (Priority.REDEEM, 90), (Priority.CRITICAL, 100)):
        while not admission.would_refuse(priority):
            assert admission.try_enter(priority)
        assert admission.try_enter(priority) is None
        assert admission.in_flight == places
    assert admission.refusal_reason == "overloaded"


@pytest.mark.parametrize("priority", Priority)
def test_the_smallest_limit_still_serves_everybody(priority: Priority) -> None:
    """With one place and nobody in it, even bulk comes in."""
    admission = _fixed(1)
    assert admission.try_enter(priority)
    assert admission.try_enter(priority) is None


def test_those_who_are_about_to_come_in_count_beforehand() -> None:
    """With two of three places taken, nobody behind one more gets in; and asking takes no place."""
    admission = _fixed(3)
    _enter(admission), _enter(admission)
    assert not admission.would_refuse(Priority.CRITICAL)
    assert admission.would_refuse(Priority.CRITICAL, 1)
    assert admission.in_flight == 2


def test_a_place_is_given_back_once() -> None:
    """A second leave is ignored: it frees no other's place."""
    admission = _fixed(2)
    first, _ = _enter(admission), _enter(admission)
    first.leave(0.01)
    first.leave(None, dropped=True)
    assert admission.in_flight == 1
    assert admission.try_enter(Priority.CRITICAL)
    assert admission.try_enter(Priority.CRITICAL) is None


def test_draining_refuses_everything_new() -> None:
    """After drain even the most important is refused, with its reason; who is in leaves as ever."""
    admission = _fixed(10)
    ticket = _enter(admission)
    admission.drain()
    assert admission.would_refuse(Priority.CRITICAL)
    assert admission.try_enter(Priority.CRITICAL) is None
    assert admission.refusal_reason == "draining"
    ticket.leave(0.01)
    assert admission.in_flight == 0


def test_a_refused_caller_comes_back_in_one_to_three_seconds() -> None:
    """All of 1, 2 and 3 occur, nothing else."""
    admission = _fixed(1)
    assert {admission.retry_after_seconds() for _ in range(200)} == {1, 2, 3}


def test_requests_that_did_not_reach_the_ledger_say_nothing() -> None:
    """Without a latency, and not dropped, a request leaves the limit where it is."""
    clock = Clock()
    admission = Admission(LIMIT, clock)
    for _ in range(100):
        tickets = [_enter(admission) for _ in range(60)]
        clock.seconds += 1
        for ticket in tickets:
            ticket.leave(None)
    assert admission.limit == 100


@pytest.mark.parametrize(
    ("latency", "dropped", "limit"), [(0.01, False, 105), (1.0, False, 75), (None, True, 75), (0.01, True, 75)]
)
def test_the_limit_follows_once_a_window_is_over(latency: float | None, dropped: bool, limit: int) -> None:  # noqa: FBT001 - a parameter
    """Ten requests and 50 ms make a window; neither alone does. The dropped ones' latency is not heard."""
    clock = Clock()
    admission = Admission(LIMIT, clock)
    tickets = [_enter(admission) for _ in range(60)]
    clock.seconds = 0.04
    for ticket in tickets[:20]:
        ticket.leave(latency, dropped=dropped)
    assert admission.limit == 100
    clock.seconds = 0.05
    tickets[20].leave(latency, dropped=dropped)
    assert admission.limit == limit
    clock.seconds = 100
    for ticket in tickets[21:30]:
        ticket.leave(latency, dropped=dropped)
    assert admission.limit == limit


def test_a_window_lasts_twice_the_latency() -> None:
    """So the limit is not changed again before its last change shows; and none lasts longer than 0.5 s."""
    for latency, length in ((0.2, 0.4), (30.0, 0.5)):
        clock = Clock()
        admission = Admission(LIMIT, clock)
        clock.seconds += 0.051
        assert _leave_all(admission, latency) == 75
        clock.seconds += length - 0.001
        assert _leave_all(admission, latency) == 75
        clock.seconds += 0.002
        assert _leave_all(admission, latency) == 56


def _leave_all(admission: Admission, latency: float) -> int:
    for ticket in [_enter(admission) for _ in range(50)]:
        ticket.leave(latency)
    return admission.limit


def _enter(admission: Admission) -> Ticket:
    ticket = admission.try_enter(Priority.CRITICAL)
    assert ticket
    return ticket


# --- The limit in overload: one queue and its server, simulated event by event ---


@dataclass(slots=True)
class Server:
    """A queue before one worker, behind an admission; requests come by chance, at a rate.

    Attributes:
        capacity: Requests per second that it can do.
        batch_max: The worker takes so many at once,
        call_seconds: each time with this cost on top.
        far_seconds: Added to every latency, without being work.
        latencies: Of the requests that were answered since the last look.
    """

    capacity: float
    batch_max: int = 1
    call_seconds: float = 0.0
    far_seconds: float = 0.0
    start: int = 200
    clock: Clock = field(default_factory=Clock)
    latencies: list[float] = field(default_factory=list)
    offered: int = 0
    _queue: list[tuple[float, Ticket]] = field(default_factory=list)
    _events: list[tuple[float, int, Callable[[], None]]] = field(default_factory=list)
    _order: Iterator[int] = field(default_factory=count)
    _busy: bool = False
    _random: random.Random = field(default_factory=lambda: random.Random(4))  # noqa: S311 - no secret
    admission: Admission = field(init=False)

    def __post_init__(self) -> None:
        self.admission = Admission(replace(LIMIT, limit=self.start), self.clock)

    def run(self, seconds: float, per_second: float) -> None:
        """Let time pass with this many requests."""
        self.latencies.clear()
        self.offered = 0
        end = self.clock.seconds + seconds
        arrival = self.clock.seconds
        while arrival < end:
            arrival += self._random.expovariate(per_second)
            while self._events and self._events[0][0] <= min(arrival, end):
                self.clock.seconds, _, happen = heapq.heappop(self._events)
                happen()
            self.clock.seconds = min(arrival, end)
            if arrival < end:
                self._arrive()

    def _arrive(self) -> None:
        self.offered += 1
        if ticket := self.admission.try_enter(Priority.CRITICAL):
            self._queue.append((self.clock.seconds, ticket))
            self._work()

    def _work(self) -> None:
        if self._busy or not self._queue:
            return
        batch, self._queue = self._queue[: self.batch_max], self._queue[self.batch_max :]
        self._busy = True
        self._in(self.call_seconds + len(batch) / self.capacity, self._done)
        self._in(self.call_seconds + len(batch) / self.capacity + self.far_seconds, lambda: self._answer(batch))

    def _done(self) -> None:
        self._busy = False
        self._work()

    def _answer(self, batch: list[tuple[float, Ticket]]) -> None:
        for entered, ticket in batch:
            self.latencies.append(self.clock.seconds - entered)
            ticket.leave(self.latencies[-1])

    def _in(self, seconds: float, happen: Callable[[], None]) -> None:
        heapq.heappush(self._events, (self.clock.seconds + seconds, next(self._order), happen))


@pytest.mark.parametrize("capacity", [300, 1000, 3000])
def test_an_overloaded_server_stays_busy_and_quick(capacity: int) -> None:
    """Offered three times what it can do, after 5 s it does over 95 % of what it can, with a queue under 100 ms."""
    server = Server(capacity)
    server.run(5, 3 * capacity)
    server.run(3, 3 * capacity)
    assert len(server.latencies) > 0.95 * 3 * capacity
    assert max(server.latencies) - 1 / capacity < 0.1


def test_it_adapts_when_the_capacity_halves_and_when_it_comes_back() -> None:
    """After each change the queue is short and the server busy again within seconds."""
    server = Server(1000)
    server.run(5, 3000)
    for capacity in (500, 1000):
        server.capacity = capacity
        server.run(3, 3000)
        server.run(3, 3000)
        assert len(server.latencies) > 0.95 * 3 * capacity
        assert max(server.latencies) < 0.1


def test_after_an_overload_nobody_is_refused_and_the_limit_grows_with_the_load() -> None:
    """At half load all are served at once; a faster server's limit grows again when it is used."""
    server = Server(500)
    server.run(5, 1500)
    small = server.admission.limit
    server.run(1, 250)
    server.run(3, 250)
    assert len(server.latencies) >= server.offered - 1
    assert max(server.latencies) < 0.05
    server.capacity = 2000
    server.run(3, 6000)
    server.run(2, 6000)
    assert server.admission.limit > 2 * small
    assert len(server.latencies) > 0.95 * 2 * 2000


def test_a_small_start_does_not_starve_the_server() -> None:
    """From the floor, the limit lets a fast server do 95 % of what it can within 3 s."""
    server = Server(5000, start=20)
    server.run(3, 15_000)
    server.run(2, 15_000)
    assert len(server.latencies) > 0.95 * 2 * 5000


def test_a_server_that_works_in_batches_is_kept_busy() -> None:
    """With 5 ms for each call of up to 100 requests the limit leaves room for full batches, and no long queue."""
    server = Server(4000, batch_max=100, call_seconds=0.005)
    server.run(5, 12_000)
    server.run(3, 12_000)
    assert len(server.latencies) > 0.95 * 3 * (100 / (0.005 + 100 / 4000))
    assert max(server.latencies) < 0.15


def test_a_far_server_is_not_taken_for_an_overloaded_one() -> None:
    """A latency of 200 ms that no queue of ours makes is learnt: within 20 s all are served again."""
    server = Server(5000, far_seconds=0.2, start=60)
    server.run(20, 500)
    server.run(3, 500)
    assert len(server.latencies) > 0.97 * server.offered


# --- The gate ---


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose time jumps to the next timer, so that no test waits or depends on the machine's speed.

    It reaches a million seconds or so; much later, asyncio's nanosecond of grace is lost in the rounding.
    """

    def __init__(self) -> None:
        self.seconds = 1000.0
        super().__init__(_Leaping(self))

    def time(self) -> float:
        """The virtual time."""
        return self.seconds


class _Leaping(selectors.SelectSelector):
    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise AssertionError("everybody waits, and nothing will ever happen")
        self._loop.seconds += max(timeout, 0)
        return super().select(0)


def run(main: Coroutine[Any, Any, None]) -> None:
    """Run a test in virtual time."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(main)


def now() -> float:
    """The virtual time."""
    return asyncio.get_running_loop().time()


@dataclass(slots=True)
class Visits:
    """Who went through a gate, and how many at once."""

    gate: PriorityGate
    inside: int = 0
    most: int = 0
    order: list[str] = field(default_factory=list)

    async def visit(
        self, name: str, seconds: float = 1, priority: Priority = Priority.REDEEM, deadline: float = 1e6
    ) -> None:
        """Go through, staying for a time."""
        async with self.gate.entered(priority, deadline):
            with self._counted():
                self.order.append(name)
                await asyncio.sleep(seconds)

    @contextmanager
    def _counted(self) -> Iterator[None]:
        self.inside += 1
        self.most = max(self.most, self.inside)
        try:
            yield
        finally:
            self.inside -= 1


def test_the_more_important_go_first_and_equals_in_order() -> None:
    """Those who wait come in by priority, then by when they came."""

    async def main() -> None:
        visits = Visits(PriorityGate(1, waiting_max=100))
        async with asyncio.TaskGroup() as group:
            group.create_task(visits.visit("first"))
            await asyncio.sleep(0)
            for priority in reversed(Priority):
                for number in range(3):
                    group.create_task(visits.visit(f"{priority.name}{number}", priority=priority))
        wanted = [f"{priority.name}{number}" for priority in Priority for number in range(3)]
        assert visits.order == ["first", *wanted]

    run(main())


def test_who_waits_past_the_deadline_is_sent_away() -> None:
    """A waiter gets TimeoutError at the deadline, one who comes too late at once, and both leave no trace."""

    async def main() -> None:
        visits = Visits(PriorityGate(1, waiting_max=10))
        first = asyncio.create_task(visits.visit("first", 10))
        await asyncio.sleep(0)
        begun = now()
        with pytest.raises(TimeoutError):
            await visits.visit("late", deadline=begun + 3)
        assert now() == pytest.approx(begun + 3)
        assert visits.gate.waiting == 0
        await first
        with pytest.raises(TimeoutError):
            await visits.visit("too late", deadline=now())
        await visits.visit("next")
        assert visits.order == ["first", "next"]

    run(main())


def test_who_is_let_in_too_late_passes_the_place_on() -> None:
    """A loop that was busy beyond the deadline does not begin the block, and the next waiter gets the place."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        visits = Visits(PriorityGate(1, waiting_max=10))
        async with visits.gate.entered(Priority.REDEEM, 1e6):
            late = asyncio.create_task(visits.visit("late", deadline=now() + 1))
            other = asyncio.create_task(visits.visit("other"))
            await asyncio.sleep(0)
        loop.seconds += 2  # between the place's return and the waiter's turn
        with pytest.raises(TimeoutError):
            await late
        await other
        assert visits.order == ["other"]

    run(main())


def test_waiting_is_bounded() -> None:
    """One more than may wait gets GateFullError at once; the others come in."""

    async def main() -> None:
        visits = Visits(PriorityGate(2, waiting_max=3))
        tasks = [asyncio.create_task(visits.visit(str(number))) for number in range(5)]
        await asyncio.sleep(0)
        with pytest.raises(GateFullError):
            await visits.visit("more", priority=Priority.CRITICAL)
        await asyncio.gather(*tasks)
        assert (visits.order, visits.most) == (list("01234"), 2)

    run(main())


def test_a_block_that_fails_gives_its_place_back() -> None:
    """An exception inside passes through, and the place is free again."""

    async def main() -> None:
        gate = PriorityGate(1, waiting_max=0)
        for _ in range(3):
            with pytest.raises(ZeroDivisionError):
                async with gate.entered(Priority.REDEEM, 1e6):
                    raise ZeroDivisionError

    run(main())


@pytest.mark.parametrize(("size", "waiting_max"), [(0, 1), (1, -1)])
def test_a_gate_without_places_is_refused(size: int, waiting_max: int) -> None:
    """A gate has at least one place."""
    with pytest.raises(ValueError, match="at least"):
        PriorityGate(size, waiting_max=waiting_max)


@given(seed=st.integers(0, 2**32), size=st.integers(1, 4))
@settings(max_examples=150)
def test_no_place_is_lost_or_doubled_however_visitors_are_cancelled(seed: int, size: int) -> None:
    """With visits cancelled at any moment, no more than `size` are ever inside, and afterwards all places are free."""

    async def main() -> None:
        chance = random.Random(seed)  # noqa: S311 - no secret
        visits = Visits(PriorityGate(size, waiting_max=30))
        tasks: list[asyncio.Task[None]] = []
        for number in range(60):
            seconds = chance.choice([0, 0, 0.001, 1])
            deadline = now() + chance.choice([-1, 0.001, 1, 100])
            visit = visits.visit(str(number), seconds, chance.choice(list(Priority)), deadline)
            tasks.append(asyncio.create_task(visit))
            for _ in range(chance.randrange(3)):
                await asyncio.sleep(0)
            if chance.random() < 0.5:
                chance.choice(tasks).cancel()
            if chance.random() < 0.1:
                await asyncio.sleep(chance.choice([0.001, 1]))
        ends = await asyncio.gather(*tasks, return_exceptions=True)
        assert {type(end) for end in ends} <= {type(None), TimeoutError, GateFullError, asyncio.CancelledError}
        assert (visits.inside, visits.gate.waiting) == (0, 0)
        assert visits.most <= size
        visits.most = 0
        await asyncio.gather(*(visits.visit("after") for _ in range(2 * size)))
        assert visits.most == size

    run(main())
