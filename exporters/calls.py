"""Calls to AWS, Kubernetes and the clusters: counted, repeated within a budget, and what their failures mean."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, Protocol, TypeVar

_PAUSE_SECONDS: Final = 0.5
_PAUSE_SECONDS_MAX: Final = 8.0

_T = TypeVar("_T")


class Reason(StrEnum):
    """Why a call failed."""

    THROTTLED = "throttled"
    DENIED = "denied"
    TIMEOUT = "timeout"
    PARTIAL = "partial"
    CLOCK_SKEW = "clock_skew"
    OTHER = "other"


class CallError(Exception):
    """A call failed.

    Attributes:
        reason: Why.
        text: What is known of it, without any secret.
        repeatable: Whether the same call may succeed in a moment.
        call: What was called; known once `Calls` has seen it.
    """

    def __init__(self, reason: Reason, text: str, *, repeatable: bool = False) -> None:
        self.reason = reason
        self.text = text
        self.repeatable = repeatable
        self.call = ""
        super().__init__(text)


class Clock(Protocol):
    """The time, and how it passes."""

    def now(self) -> float:
        """Unix time in seconds."""

    def wait(self, seconds: float) -> bool:
        """Let time pass; true when it is time to stop."""


class SystemClock:
    """The machine's own clock.

    Args:
        stopped: Set when it is time to stop; every wait then ends.
    """

    def __init__(self, stopped: threading.Event) -> None:
        self._stopped = stopped

    def now(self) -> float:
        """Unix time in seconds."""
        return time.time()

    def wait(self, seconds: float) -> bool:
        """Wait, unless it is time to stop."""
        return self._stopped.wait(seconds)


@dataclass(slots=True)
class Tally:
    """What a unit's calls came to since the start.

    Attributes:
        calls: What was called -> how often, repeats included.
        errors: What was called and why it failed -> how often, after all repeats.
        metrics: What AWS bills for GetMetricData.
    """

    calls: Counter[str] = field(default_factory=Counter)
    errors: Counter[tuple[str, Reason]] = field(default_factory=Counter)
    metrics: int = 0


class Calls:
    """The calls of one unit.

    Args:
        clock: Passes the time between two attempts.
        attempts_max: Attempts of one call.
        retries_max: Retries of all calls together in one cycle; so one that is throttled does not make it worse.
        draw: A number from 0 to 1, evenly distributed.
    """

    def __init__(
        self, clock: Clock, *, attempts_max: int, retries_max: int, draw: Callable[[], float] = random.random
    ) -> None:
        self.clock = clock
        self.tally = Tally()
        self._attempts_max = attempts_max
        self._retries_max = self._retries_left = retries_max
        self._draw = draw

    def begin_cycle(self) -> None:
        """Give the whole budget again."""
        self._retries_left = self._retries_max

    def __call__(self, name: str, call: Callable[[], _T]) -> _T:
        """The call's answer, after as many attempts as it takes and as there are.

        The pause doubles, and is drawn from 0 to its full length: those who were throttled together come back apart.

        Raises:
            CallError: It failed for good.
        """
        attempt = 1
        while True:
            self.tally.calls[name] += 1
            try:
                return call()
            except CallError as error:
                if not error.repeatable or attempt >= self._attempts_max or self._retries_left <= 0:
                    raise self.failed(name, error) from error.__cause__
            self._retries_left -= 1
            if self.clock.wait(self._draw() * min(_PAUSE_SECONDS * 2**attempt, _PAUSE_SECONDS_MAX)):
                raise self.failed(name, CallError(Reason.OTHER, "stopped while it waited for another attempt"))
            attempt += 1

    def failed(self, name: str, error: CallError) -> CallError:
        """Note a failure, and return it."""
        error.call = name
        self.tally.errors[name, error.reason] += 1
        return error
