"""The events of the data set: how many requests of each kind, and how many of them bad, in each scrape interval.

Everything is drawn from one seeded generator, in order of time, so the same options give the same events.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta

from benchmarks.flash_sale.incidents import Incident, Kind, at
from slo.windows import DAY, HOUR, MINUTE

# With the default incidents 31 days hold some 69.8 million requests (69.83 expected).
_MEAN_PER_SECOND = 17.2
_SWING = 0.75  # of the mean: quiet nights, busy afternoons
_BUSIEST = 16 * HOUR

# What people ask for, and what always fails: a tenth of what 99.99 % allows.
_REDEEM_SHARE, _CAPTURE_SHARE = 0.40, 0.04
_BAD_SHARE = 0.00001
# Slower than a quarter of a second, and of those slower than a second.
_SLOW_QUARTER_SHARE, _SLOW_SECOND_SHARE = 0.003, 0.0001
_SHED_SHARE = 0.4  # of the redemptions that fail while a sale goes on

_SETTLED_EVERY, _VERIFIED_EVERY = MINUTE, 10 * MINUTE
SLICE = MINUTE  # a slice of every time-slice SLO


@dataclass(frozen=True, slots=True, kw_only=True)
class Requests:
    """The requests of one scrape interval, all pods together.

    Attributes:
        redeem_ok: Redemptions that were answered, slow ones included.
        redeem_error: Redemptions that failed.
        redeem_shed: Redemptions that were turned away.
        read_ok: Lookups that were answered.
        read_error: Lookups that failed.
        capture_ok: Captures that were answered.
        capture_timeout: Captures that failed.
        slow_quarter: Of `redeem_ok`, those slower than 0.25 s.
        slow_second: Of `redeem_ok`, those slower than 1 s.
    """

    redeem_ok: int
    redeem_error: int
    redeem_shed: int
    read_ok: int
    read_error: int
    capture_ok: int
    capture_timeout: int
    slow_quarter: int
    slow_second: int

    @property
    def bad(self) -> int:
        """Requests that failed."""
        return self.redeem_error + self.redeem_shed + self.read_error + self.capture_timeout

    @property
    def all(self) -> int:
        """Every request."""
        return self.redeem_ok + self.read_ok + self.capture_ok + self.bad


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """What the worker says of itself at a scrape, as times since the first scrape.

    Attributes:
        oldest_accepted: When the oldest redemption that waits was accepted, None when none waits.
        verified: When the ledger was last verified.
        sealed: Up to when the ledger is sealed.
    """

    oldest_accepted: timedelta | None
    verified: timedelta
    sealed: timedelta


@dataclass(frozen=True, slots=True)
class Interval:
    """One scrape interval.

    Attributes:
        end: The scrape that tells of it, as time since the first one.
        requests: What was asked for.
        worker: What the worker says at its end.
    """

    end: timedelta
    requests: Requests
    worker: Worker


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to make.

    Attributes:
        days: Length.
        scrape_interval: Time from one scrape to the next; divides five minutes.
        pods: How many there are.
        seed: Of the generator.
        scale: Factor of all traffic.
        incidents: What happens.
    """

    days: int
    scrape_interval: timedelta
    pods: int
    seed: int
    scale: float
    incidents: Sequence[Incident]

    @property
    def length(self) -> timedelta:
        """From the first scrape to the last."""
        return self.days * DAY

    def intervals(self) -> Iterator[Interval]:
        """Every interval, in order of time."""
        # No cryptography: the same seed must give the same month.
        generator = random.Random(self.seed)  # noqa: S311
        worker = Worker(oldest_accepted=None, verified=timedelta(0), sealed=timedelta(0))
        for number in range(1, self.length // self.scrape_interval + 1):
            end = number * self.scrape_interval
            worker = self._worker(worker, end)
            yield Interval(end, self._requests(generator, end), worker)

    def _requests(self, generator: random.Random, end: timedelta) -> Requests:
        expected = self.scale * self.scrape_interval.total_seconds() * self._per_second(end)
        redeem, capture = (_poisson(generator, expected * share) for share in (_REDEEM_SHARE, _CAPTURE_SHARE))
        read = _poisson(generator, expected * (1 - _REDEEM_SHARE - _CAPTURE_SHARE))
        failing = _BAD_SHARE + sum(one.bad_share for one in at(self.incidents, Kind.FAILURE, end))
        redeem_bad, capture_bad, read_bad = (_of(generator, all_of, failing) for all_of in (redeem, capture, read))
        shed = _of(generator, redeem_bad, _SHED_SHARE) if at(self.incidents, Kind.SALE, end) else 0
        slow = sum(one.bad_share for one in at(self.incidents, Kind.SLOW, end))
        # Each slow one is slower than a quarter of a second too.
        second = _of(generator, redeem - redeem_bad, _SLOW_SECOND_SHARE + slow)
        quarter = second + _of(generator, redeem - redeem_bad - second, _SLOW_QUARTER_SHARE + slow)
        return Requests(
            redeem_ok=redeem - redeem_bad,
            redeem_error=redeem_bad - shed,
            redeem_shed=shed,
            read_ok=read - read_bad,
            read_error=read_bad,
            capture_ok=capture - capture_bad,
            capture_timeout=capture_bad,
            slow_quarter=quarter,
            slow_second=second,
        )

    def _per_second(self, end: timedelta) -> float:
        if at(self.incidents, Kind.NO_TRAFFIC, end):
            return 0.0
        daily = _MEAN_PER_SECOND * (1 + _SWING * math.cos(2 * math.pi * ((end - _BUSIEST) / DAY)))
        return daily + sum(one.more_per_second for one in at(self.incidents, Kind.SALE, end))

    def _worker(self, before: Worker, end: timedelta) -> Worker:
        down = at(self.incidents, Kind.WORKER_DOWN, end)
        if down:
            return Worker(oldest_accepted=down[0].begin, verified=before.verified, sealed=before.sealed)
        return Worker(oldest_accepted=None, verified=end - end % _VERIFIED_EVERY, sealed=end - end % _SETTLED_EVERY)


def _poisson(generator: random.Random, mean: float) -> int:
    """A number of independent events; a normal distribution rounded where that is as good."""
    if mean > _NORMAL_FROM:
        return max(0, round(generator.gauss(mean, math.sqrt(mean))))
    limit, drawn, number = math.exp(-mean), generator.random(), 0
    while drawn > limit:
        drawn *= generator.random()
        number += 1
    return number


def _of(generator: random.Random, events: int, share: float) -> int:
    """How many of some events have a property that each has with the given chance."""
    if share >= 1:
        return events
    return min(events, _poisson(generator, events * share))


_NORMAL_FROM = 30
