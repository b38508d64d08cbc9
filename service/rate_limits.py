"""How much a client may ask for: one quota for all processes of the service, decided here and now.

The rule is GCRA, a token bucket that is one number. A quota is *ahead* by the time that it takes to earn back what was
spent; a request is allowed when that leaves the quota no further ahead than its burst.

Each process decides by a number of its own, in a few microseconds, and never waits. A few times a second it charges
what it spent to the number that all processes share in Valkey, and goes on from the answer, which holds what the others
spent. What they spend at the same time is unknown until then: so together they may be over the quota by what they
spend in one such interval, and pay it back right after. Without Valkey there are no answers, and each process goes on
by its own number, with the client's full rate: a client is never refused because Valkey is away.

(The usual way is to spend from leases of tokens. It strands the tokens that a quiet process holds, and still needs a
number of its own for the time without a lease. This needs that number only.)
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

from service.valkey import Valkey

CLIENTS_MAX: Final = 10_000
"""Clients that a process remembers; the one that has been away longest is forgotten first."""

_NANOSECONDS = 1_000_000_000
_SETTLE_NANOSECONDS = 50_000_000  # what others learn late is what a process admits in this time
# Debts above this many bursts are forgiven: enough for a fleet that starts all at once, not enough to shut anybody out.
_DEBT_BURSTS_MAX = 4
_RATE_MAX = 1_000_000


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a request may go on.

    Attributes:
        allowed: Whether it may.
        limit: Of requests at once.
        remaining: Requests that may follow at once.
        reset_seconds: Until all of them may; when refused, until this one may. Rounded up.
        retry_after_seconds: When refused, the same, and at least 1; else 0.
    """

    allowed: bool
    limit: int
    remaining: int
    reset_seconds: int
    retry_after_seconds: int


def spend(arrival: int, now: int, *, interval: int, burst: int, cost: int) -> int | None:
    """GCRA: where the quota is after a request, or None when that is too much. All times in one unit, whole numbers.

    Args:
        arrival: When the quota is unused again.
        now: The time.
        interval: Time in which the quota earns one request.
        burst: Requests at once, at most.
        cost: How many requests this one counts as.
    """
    after = max(arrival, now) + cost * interval
    return after if after - now <= burst * interval else None


class RateLimiter:
    """Limits each client.

    Args:
        rate_per_second: Requests that a client may send in the long run, at most a million.
        burst: Requests that it may send at once.
        valkey: Where processes share the quotas; without it this process is alone.
        clients_max: Clients to remember.
        clock: Nanoseconds that never go back.

    Raises:
        ValueError: A number is out of its range.
    """

    def __init__(
        self,
        rate_per_second: float,
        burst: int,
        valkey: Valkey | None = None,
        *,
        clients_max: int = CLIENTS_MAX,
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        if not 0 < rate_per_second <= _RATE_MAX or burst < 1 or clients_max < 1:
            raise ValueError(f"a rate must be above 0 and at most {_RATE_MAX}, burst and clients_max at least 1")
        self._interval = math.ceil(_NANOSECONDS / rate_per_second)
        self._burst = burst
        self._valkey = valkey
        self._clients_max = clients_max
        self._clock = clock
        self._clients: OrderedDict[str, _Quota] = OrderedDict()
        self._policy = f'"client";q={burst};w={_seconds_up(burst * self._interval)}'

    def take(self, client_id: str, cost: int = 1) -> Verdict:
        """Decide on a request, and count it if it is allowed.

        Args:
            client_id: Who asks.
            cost: How many requests it counts as, 1 or more; what is dearer than the burst counts as the burst.
        """
        now = self._clock()
        cost = min(max(cost, 1), self._burst)
        quota = self._quota(client_id)
        arrival = spend(quota.arrival, now, interval=self._interval, burst=self._burst, cost=cost)
        allowed = arrival is not None
        if arrival is not None:
            quota.arrival = arrival
            quota.unsettled += cost * self._interval
        if self._valkey is not None and now >= quota.settle_at:
            self._settle(client_id, quota, now)
        return self._verdict(max(0, quota.arrival - now), cost, allowed=allowed)

    def headers(self, verdict: Verdict) -> dict[str, str]:
        """The headers of draft-ietf-httpapi-ratelimit-headers, and `Retry-After` for a refusal."""
        headers = {
            "RateLimit-Policy": self._policy,
            "RateLimit": f'"client";r={verdict.remaining};t={verdict.reset_seconds}',
        }
        if not verdict.allowed:
            headers["Retry-After"] = str(verdict.retry_after_seconds)
        return headers

    def _quota(self, client_id: str) -> _Quota:
        quota = self._clients.get(client_id)
        if quota is None:
            quota = self._clients[client_id] = _Quota()
            if len(self._clients) > self._clients_max:
                self._clients.popitem(last=False)
        else:
            self._clients.move_to_end(client_id)
        return quota

    def _verdict(self, ahead: int, cost: int, *, allowed: bool) -> Verdict:
        remaining = max(0, self._burst - _divide_up(ahead, self._interval))
        if allowed:
            return Verdict(True, self._burst, remaining, _seconds_up(ahead), 0)  # noqa: FBT003 - the hot path
        wait = max(1, _seconds_up(ahead - (self._burst - cost) * self._interval))
        return Verdict(False, self._burst, remaining, wait, wait)  # noqa: FBT003 - as above

    def _settle(self, client_id: str, quota: _Quota, now: int) -> None:
        """Charge what was spent, and learn what others did; a refusal asks too, as the others may have stopped."""
        assert self._valkey is not None
        # What is earned back by now is no debt: it may be an hour since the last request.
        spent = min(quota.unsettled, max(0, quota.arrival - now))
        quota.unsettled = 0
        quota.settle_at = now + _SETTLE_NANOSECONDS
        charged = self._valkey.charge(
            client_id, _divide_up(spent, 1000), microseconds_max=_DEBT_BURSTS_MAX * self._burst * self._interval // 1000
        )
        charged.add_done_callback(partial(_settled, quota, now))


@dataclass(slots=True)
class _Quota:
    """A client's quota as this process knows it, in nanoseconds.

    Attributes:
        arrival: When it is unused again.
        unsettled: What was spent and not charged to the shared quota yet.
        settle_at: When to do that.
    """

    arrival: int = 0
    unsettled: int = 0
    settle_at: int = 0


def _settled(quota: _Quota, asked_at: int, charged: asyncio.Future[int | None]) -> None:
    """Go on from the shared quota, if that is further ahead.

    Its distance is taken from when it was asked for, so that a slow answer refuses nobody. It never takes the quota
    back: a Valkey that lost its data must not hand out a second burst.
    """
    ahead = charged.result()
    if ahead is not None:
        quota.arrival = max(quota.arrival, asked_at + ahead * 1000 + quota.unsettled)


def _divide_up(number: int, by: int) -> int:
    return -(-number // by)


def _seconds_up(nanoseconds: int) -> int:
    return _divide_up(nanoseconds, _NANOSECONDS)
