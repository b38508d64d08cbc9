"""Guests: a constant rate of requests to the redemption service, whether it answers or not."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from uuid import uuid4

import httpx

from slo.metrics import REDEEM_ROUTE

UNREACHABLE = "unreachable"
UNANSWERED = "unanswered"
UNSENT = "unsent"

_ANSWER_SECONDS_MAX = 10.0
_DRAIN_SECONDS_MAX = 3.0
_TICK_SECONDS_MAX = 0.1
_SERVER_FAULT = 500  # RFC 9110: from here on it is the server's


@dataclass(frozen=True, slots=True)
class Traffic:
    """Traffic that flows. It is open loop: a slow answer does not slow the next request down, as with real guests."""

    _counts: Counter[str] = field(repr=False)
    _stop: threading.Event = field(repr=False)
    _thread: threading.Thread = field(repr=False)

    @property
    def counts(self) -> Mapping[str, int]:
        """Requests by what became of them.

        An HTTP status; `unreachable` without an HTTP answer; `unanswered` when the traffic was stopped meanwhile;
        `unsent` when too many were waiting already.
        """
        return {outcome: count for outcome, count in dict(self._counts).items() if count}

    @property
    def good(self) -> int:
        """Requests that the service answered without a fault of its own."""
        return sum(count for outcome, count in self.counts.items() if outcome.isdigit() and not _is_bad(outcome))

    @property
    def bad(self) -> int:
        """Requests that it answered with a fault of its own (5xx), or not at all."""
        return sum(count for outcome, count in self.counts.items() if _is_bad(outcome))

    @property
    def flows(self) -> bool:
        """Whether it still sends."""
        return self._thread.is_alive()

    def stop(self) -> None:
        """Send no more, and wait a little for what is under way."""
        self._stop.set()
        self._thread.join()


def _is_bad(outcome: str) -> bool:
    return outcome == UNREACHABLE or (outcome.isdigit() and int(outcome) >= _SERVER_FAULT)


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """How much traffic, and how long at most.

    Attributes:
        per_second: Requests each second; every other is a redemption, the rest read a balance.
        points: What each redemption spends.
        seconds_max: It stops by itself after this time,
        requests_max: or after this many requests.
        in_flight_max: No more wait for an answer at once.
    """

    per_second: float = 50.0
    points: int = 1
    seconds_max: float = 300.0
    requests_max: int = 100_000
    in_flight_max: int = 200


@contextmanager
def traffic(
    url: str, accounts: Sequence[str], load: Load | None = None, headers: Mapping[str, str] | None = None
) -> Iterator[Traffic]:
    """Send requests from a thread of this process while the block runs, within the load's limits.

    Args:
        url: The service's base URL.
        accounts: Whose points are spent, in turn.
        load: How much; by default what `Load` says.
        headers: Sent along with each request, to say who asks.
    """
    counts: Counter[str] = Counter()
    stop = threading.Event()
    sender = _Sender(url, tuple(accounts), load or Load(), dict(headers or {}), counts, stop)
    thread = threading.Thread(target=lambda: asyncio.run(sender.run()), name="traffic", daemon=True)
    flowing = Traffic(counts, stop, thread)
    thread.start()
    try:
        yield flowing
    finally:
        flowing.stop()


@dataclass(frozen=True, slots=True)
class _Sender:
    url: str
    accounts: tuple[str, ...]
    load: Load
    headers: dict[str, str]
    counts: Counter[str]
    stop: threading.Event

    async def run(self) -> None:
        limits = httpx.Limits(max_connections=self.load.in_flight_max)
        waiting: set[asyncio.Task[None]] = set()
        async with httpx.AsyncClient(
            base_url=self.url, headers=self.headers, trust_env=False, timeout=_ANSWER_SECONDS_MAX, limits=limits
        ) as http:
            started = time.monotonic()
            for number in range(self.load.requests_max):
                due = started + number / self.load.per_second
                if due - started > self.load.seconds_max or not await self._until(due):
                    break
                if len(waiting) >= self.load.in_flight_max:
                    self.counts[UNSENT] += 1
                    continue
                task = asyncio.create_task(self._one(http, number))
                waiting.add(task)
                task.add_done_callback(waiting.discard)
            if waiting:
                _, late = await asyncio.wait(waiting, timeout=_DRAIN_SECONDS_MAX)
                for task in late:
                    task.cancel()
                await asyncio.gather(*late, return_exceptions=True)
                self.counts[UNANSWERED] += len(late)

    async def _until(self, due: float) -> bool:
        """Wait for a time; False when told to stop."""
        while not self.stop.is_set():
            left = due - time.monotonic()
            await asyncio.sleep(min(max(left, 0), _TICK_SECONDS_MAX))
            if left <= _TICK_SECONDS_MAX:
                return True
        return False

    async def _one(self, http: httpx.AsyncClient, number: int) -> None:
        account = self.accounts[number // 2 % len(self.accounts)]
        try:
            if number % 2:
                response = await http.get(f"/v1/accounts/{account}/balance")
            else:
                response = await http.post(
                    REDEEM_ROUTE.split()[1],
                    json={"account_id": account, "points": self.load.points},
                    headers={"Idempotency-Key": uuid4().hex},
                )
        except httpx.HTTPError:
            self.counts[UNREACHABLE] += 1
        else:
            self.counts[str(response.status_code)] += 1
