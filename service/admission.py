"""Who may come in: an adaptive limit of requests in flight, and a gate with priorities before the database.

A request that cannot be answered in time is refused at once, before anything is parsed: cheap for us, and the
caller knows (https://aws.amazon.com/builders-library/using-load-shedding-to-avoid-overload/). How many are too
many is not configured but found, from what the requests' time in the ledger does.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Final, Literal, TypeAlias

# Netflix's Gradient2 (github.com/Netflix/concurrency-limits, Gradient2Limit.java and WindowedLimit.java).
_TOLERANCE: Final = 1.5  # times the long-term latency before it counts as a queue
_GRADIENT_MIN: Final = 0.5  # one bad window never takes away more
_ALLOWANCE_MIN: Final = 4  # requests that the limit may grow by; a large limit by its root
_WINDOW_REQUESTS_MIN: Final = 10  # fewer say nothing
_WINDOW_LATENCIES: Final = 2  # a window lasts twice the latency: a change of the limit shows before the next change

# Our own, held by the simulations in the tests.
_WINDOW_SECONDS_MIN: Final = 0.05  # theirs is 1 s; a flash sale is decided by then
_WINDOW_SECONDS_MAX: Final = 0.5  # theirs is 1 s, as above
_SMOOTHING: Final = 0.5  # theirs is 0.2 for single requests; a window is smooth already
_LONG_WINDOWS: Final = 10  # the memory of the long-term latency; short, because an overload teaches nothing
_LONG_FACTOR_MAX: Final = 2  # what one window may teach, as a multiple of what is known

Reason: TypeAlias = Literal["draining", "overloaded"]

_RETRY_AFTER_SECONDS: Final = (1, 3)


class Priority(IntEnum):
    """What a request is worth when not all can be served; a lower number is more important."""

    CRITICAL = 0
    """Ends what has begun: capture, void, refund."""
    REDEEM = 1
    """Spends points: what the service is for."""
    READ = 2
    """Shows something; it can be asked for again."""
    BULK = 3
    """Credits many accounts; nobody stands and waits."""


# The part of the limit that requests of a priority may fill: the rest is kept for the more important ones.
_SHARES: Final = {Priority.CRITICAL: 1.0, Priority.REDEEM: 0.9, Priority.READ: 0.75, Priority.BULK: 0.5}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """What was seen in one window of time.

    Attributes:
        latency_seconds: The mean time in the ledger, its queue included, of the requests that ended in the window;
            None when all of them were dropped.
        in_flight: Most requests at once.
        dropped_share: The part of the requests, 0 to 1, that got no answer in time.
    """

    latency_seconds: float | None
    in_flight: int
    dropped_share: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class AdaptiveLimit:
    """How many requests may be in flight: Netflix's Gradient2, as a value with a pure step to the next.

    The limit shrinks by the ratio of the tolerated latency to the latest, and grows while it is used and the
    latency is tolerated. Different from the original: there an overload that lasts becomes the long-term
    latency, and with it normal. Here a long-term latency above the target is learnt only while no more than
    `floor` requests are in flight, when it cannot come from a queue of ours. And the allowance to grow is not
    given while shrinking, so that the limit does not rest above what is tolerated.

    Attributes:
        floor: It never falls below, in requests.
        ceiling: It never rises above, in requests.
        target_seconds: No latency up to this shrinks the limit.
        limit: Where it is now; first, where to start.
        long_seconds: The long-term latency, an exponential average; None before the first.

    Raises:
        ValueError: The numbers contradict each other.
    """

    floor: int
    ceiling: int
    target_seconds: float
    limit: float
    long_seconds: float | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.floor <= self.limit <= self.ceiling:
            raise ValueError("must be 1 <= floor <= limit <= ceiling")
        if not 0 < self.target_seconds < math.inf:
            raise ValueError("target_seconds must be more than 0")

    def after(self, sample: Sample) -> AdaptiveLimit:
        """The limit that follows from what was seen under this one."""
        long_seconds = self._long_after(sample)
        limit = self.limit + _SMOOTHING * (self._wanted(sample, long_seconds) - self.limit)
        return replace(self, limit=min(max(limit, self.floor), self.ceiling), long_seconds=long_seconds)

    def _wanted(self, sample: Sample, long_seconds: float | None) -> float:
        is_used = sample.in_flight >= self.limit / 2
        gradient = 1 - sample.dropped_share * (1 - _GRADIENT_MIN)
        if is_used and sample.latency_seconds and long_seconds:
            tolerated = max(self.target_seconds, _TOLERANCE * long_seconds)
            gradient = min(gradient, max(tolerated / sample.latency_seconds, _GRADIENT_MIN))
        if gradient < 1:
            return self.limit * gradient
        return self.limit + max(_ALLOWANCE_MIN, math.sqrt(self.limit)) if is_used else self.limit

    def _long_after(self, sample: Sample) -> float | None:
        if sample.latency_seconds is None:
            return self.long_seconds
        long = self.target_seconds if self.long_seconds is None else self.long_seconds
        known = max(long, self.target_seconds)
        taught = min(sample.latency_seconds, known * _LONG_FACTOR_MAX if sample.in_flight <= self.floor else known)
        return taught if self.long_seconds is None else long + (taught - long) * 2 / (_LONG_WINDOWS + 1)


class Ticket:
    """A request's place; it must be given back."""

    __slots__ = ("_admission",)

    def __init__(self, admission: Admission) -> None:
        self._admission: Admission | None = admission

    def leave(self, latency_seconds: float | None, *, dropped: bool = False) -> None:
        """Give the place back. Only the first call counts, so a `finally` may say it once more.

        Args:
            latency_seconds: The time in the ledger, its queue included; None when the ledger was not asked.
            dropped: There was no answer in time, or none at all; then the latency says nothing.
        """
        if self._admission is not None:
            self._admission._left(latency_seconds, dropped=dropped)  # noqa: SLF001 - the two are one thing
            self._admission = None


class Admission:
    """Counts the requests in flight and adapts their limit; for one event loop.

    Args:
        limit: Where to start, and within which bounds.
        clock: Monotonic seconds.
    """

    def __init__(self, limit: AdaptiveLimit, clock: Callable[[], float]) -> None:
        self._adaptive = limit
        self._clock = clock
        self._allowed = _allowed(limit)
        self._draining = False
        self._in_flight = 0
        # Of the window that runs:
        self._window_ends = clock() + _WINDOW_SECONDS_MIN
        self._in_flight_most = 0
        self._answered = 0
        self._dropped = 0
        self._seconds = 0.0

    @property
    def in_flight(self) -> int:
        """Requests that hold a ticket."""
        return self._in_flight

    @property
    def limit(self) -> int:
        """Requests that may hold one."""
        return int(self._adaptive.limit)

    @property
    def refusal_reason(self) -> Reason:
        """Why a request that is refused now is refused."""
        return "draining" if self._draining else "overloaded"

    def would_refuse(self, priority: Priority, coming: int = 0) -> bool:
        """Whether a request would be refused after so many others that are about to come in."""
        return self._draining or self._in_flight + coming >= self._allowed[priority]

    def try_enter(self, priority: Priority) -> Ticket | None:
        """Let a request in; None when it is refused."""
        if self._draining or self._in_flight >= self._allowed[priority]:
            return None
        self._in_flight += 1
        self._in_flight_most = max(self._in_flight_most, self._in_flight)
        return Ticket(self)

    def drain(self) -> None:
        """From now on refuse everything; who is in stays in."""
        self._draining = True

    def retry_after_seconds(self) -> int:
        """When a refused caller may come back: by chance, so that they do not all come back at once."""
        return random.randint(*_RETRY_AFTER_SECONDS)  # noqa: S311 - no secret

    def _left(self, latency_seconds: float | None, *, dropped: bool) -> None:
        self._in_flight -= 1
        if dropped:
            self._dropped += 1
        elif latency_seconds is not None:
            self._answered += 1
            self._seconds += latency_seconds
        else:
            return
        if self._answered + self._dropped >= _WINDOW_REQUESTS_MIN and self._clock() >= self._window_ends:
            self._end_window()

    def _end_window(self) -> None:
        latency = self._seconds / self._answered if self._answered else None
        dropped_share = self._dropped / (self._answered + self._dropped)
        sample = Sample(latency_seconds=latency, in_flight=self._in_flight_most, dropped_share=dropped_share)
        self._adaptive = self._adaptive.after(sample)
        self._allowed = _allowed(self._adaptive)
        length = _WINDOW_SECONDS_MAX if latency is None else latency * _WINDOW_LATENCIES
        self._window_ends = self._clock() + min(max(length, _WINDOW_SECONDS_MIN), _WINDOW_SECONDS_MAX)
        self._in_flight_most = self._in_flight
        self._answered = 0
        self._dropped = 0
        self._seconds = 0.0


def _allowed(limit: AdaptiveLimit) -> tuple[float, ...]:
    return tuple(limit.limit * _SHARES[priority] for priority in Priority)


class GateFullError(Exception):
    """Too many wait already; nothing was begun."""


class PriorityGate:
    """Lets so many through at once, the more important first, and in order among equals; for one event loop.

    Args:
        size: How many: one for each database connection.
        waiting_max: How many may wait for it.

    Raises:
        ValueError: A number is too small.
    """

    def __init__(self, size: int, *, waiting_max: int) -> None:
        if size < 1 or waiting_max < 0:
            raise ValueError("size must be at least 1, waiting_max at least 0")
        self._free = size
        self._waiting_max = waiting_max
        # What a waiter is told: True, come in; False, it is too late.
        self._waiters: dict[Priority, OrderedDict[asyncio.Future[bool], None]] = {
            priority: OrderedDict() for priority in Priority
        }

    @property
    def waiting(self) -> int:
        """How many wait."""
        return sum(map(len, self._waiters.values()))

    @asynccontextmanager
    async def entered(self, priority: Priority, deadline: float) -> AsyncIterator[None]:
        """Hold one place while the block runs.

        Args:
            priority: Who is let in before whom.
            deadline: When to stop waiting, in the event loop's time.

        Raises:
            TimeoutError: The deadline is over; the block was not begun.
            GateFullError: Too many wait already; the block was not begun.
        """
        await self._enter(priority, deadline)
        try:
            yield
        finally:
            self._leave()

    async def _enter(self, priority: Priority, deadline: float) -> None:
        loop = asyncio.get_running_loop()
        if loop.time() >= deadline:
            raise TimeoutError
        if self._free:  # then nobody waits: a place that is given back goes to a waiter
            self._free -= 1
            return
        if self.waiting >= self._waiting_max:
            raise GateFullError
        told: asyncio.Future[bool] = loop.create_future()
        self._waiters[priority][told] = None
        timer = loop.call_at(deadline, _tell, told, False)  # noqa: FBT003 - what it is told
        try:
            is_in = await told
        except BaseException:
            if told.done() and not told.cancelled() and told.result():  # cancelled between being let in and going in
                self._leave()
            raise
        finally:
            timer.cancel()
            self._waiters[priority].pop(told, None)
        if not is_in:
            raise TimeoutError
        if loop.time() >= deadline:  # let in, but the loop came to it too late
            self._leave()
            raise TimeoutError

    def _leave(self) -> None:
        for waiters in self._waiters.values():
            while waiters:
                told, _ = waiters.popitem(last=False)
                if _tell(told, True):  # noqa: FBT003 - what it is told
                    return
        self._free += 1


def _tell(told: asyncio.Future[bool], answer: bool) -> bool:  # noqa: FBT001 - what it is told
    """Whether it was still waiting."""
    if told.done():
        return False
    told.set_result(answer)
    return True
