"""What became of the load, in numbers."""

from __future__ import annotations

import math
from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from drills.load.history import History

RESET: Final = "reset"
TIMEOUT: Final = "timeout"

_ACCEPTED = range(200, 300)


@dataclass(frozen=True, slots=True)
class Latency:
    """How long answers took: no more than this for that part of them, the next higher one measured.

    In the open loop it counts from the time at which the request was due, so that a slow server cannot hide the waiting
    before it (no coordinated omission); in the closed loop from the time at which it was sent.
    """

    p50_seconds: float
    p90_seconds: float
    p99_seconds: float
    p999_seconds: float
    max_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """The requests of one kind.

    Attributes:
        sent: How many.
        by_status: How many by HTTP status; `reset` when the connection ended first, `timeout` when no answer came in
            time.
        latency: Of all answers; None when there is none.
        accepted_latency: Of the answers with a status of 2xx; likewise.
        goodput_per_second: Answers with a status of 2xx, a second.
    """

    sent: int
    by_status: dict[str, int]
    latency: Latency | None
    accepted_latency: Latency | None
    goodput_per_second: float

    @property
    def unanswered(self) -> int:
        """Sent, and no answer came."""
        return self.by_status.get(RESET, 0) + self.by_status.get(TIMEOUT, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What became of the load.

    Attributes:
        redemptions: The requests that spend.
        reads: Those that read.
        duration_seconds: From the first request to the last answer.
        unsent: Due, but every connection was busy until they had waited too long: the load was not what the plan says.
        cpu_seconds: Of one core, spent by the generator itself.
        history: Each redemption, when the plan says so.
    """

    redemptions: Tally
    reads: Tally
    duration_seconds: float
    unsent: int
    cpu_seconds: float
    history: History | None = None

    @property
    def cpu_seconds_per_request(self) -> float:
        """What one request costs the core that it is sent from."""
        return self.cpu_seconds / max(1, self.redemptions.sent + self.reads.sent)

    def document(self) -> dict[str, Any]:
        """All but the history, for JSON."""
        document: dict[str, Any] = {
            "duration_seconds": self.duration_seconds,
            "unsent": self.unsent,
            "cpu_seconds": self.cpu_seconds,
            "cpu_seconds_per_request": self.cpu_seconds_per_request,
        }
        for name, tally in (("redemptions", self.redemptions), ("reads", self.reads)):
            document[name] = asdict(tally) | {"unanswered": tally.unanswered}
        return document


class Count:
    """Counts while the load runs: two numbers kept for an answer, and no more."""

    __slots__ = ("_causes", "_seconds", "_statuses")

    def __init__(self) -> None:
        self._statuses = array("H")
        self._seconds = array("d")
        self._causes: Counter[str] = Counter()

    def answer(self, status: int, seconds: float) -> None:
        """One answer."""
        self._statuses.append(status)
        self._seconds.append(seconds)

    def none(self, cause: str) -> None:
        """No answer, for this cause."""
        self._causes[cause] += 1

    def tally(self, duration_seconds: float) -> Tally:
        """All of it."""
        accepted = [
            seconds for status, seconds in zip(self._statuses, self._seconds, strict=True) if status in _ACCEPTED
        ]
        by_status = Counter(map(str, sorted(self._statuses))) + self._causes
        return Tally(
            sent=by_status.total(),
            by_status=dict(by_status),
            latency=_latency(self._seconds),
            accepted_latency=_latency(accepted),
            goodput_per_second=len(accepted) / duration_seconds,
        )


def _latency(seconds: Sequence[float]) -> Latency | None:
    if not seconds:
        return None
    ordered = sorted(seconds)

    def of(part: float) -> float:
        return ordered[math.ceil(part * len(ordered)) - 1]

    return Latency(of(0.5), of(0.9), of(0.99), of(0.999), ordered[-1])
