"""A client gets its quota, whole and not more, from one process or from several, with Valkey and without."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drills.harness.valkey import ValkeyCluster, valkey_cluster
from service.rate_limits import RateLimiter, Verdict, spend
from service.valkey import Valkey

pytestmark = pytest.mark.anyio

SECOND = 1_000_000_000
SECONDS_MAX = 30.0


class Clock:
    """Nanoseconds that pass when told to."""

    def __init__(self) -> None:
        self.now = 1_000 * SECOND

    def __call__(self) -> int:
        """The time."""
        return self.now

    def pass_seconds(self, seconds: float) -> None:
        """Let time pass."""
        self.now += round(seconds * SECOND)


@pytest.fixture(scope="module")
def cluster() -> Iterator[ValkeyCluster]:
    """The smallest cluster there is."""
    with valkey_cluster(masters=1, replicas=0) as running:
        yield running


@asynccontextmanager
async def opened(cluster: ValkeyCluster) -> AsyncIterator[Valkey]:
    """A process's own client, that has reached the cluster."""
    valkey = Valkey(cluster.url, call_seconds_max=5)
    async with valkey.opened():
        async with asyncio.timeout(SECONDS_MAX):
            while valkey.available_ratio < 1:
                await asyncio.sleep(0.01)
        yield valkey


def admitted(limiter: RateLimiter, client_id: str, asked: int) -> int:
    """How many of so many requests at once are allowed."""
    return sum(limiter.take(client_id).allowed for _ in range(asked))


# --- the rule ---------------------------------------------------------------------------------------------------------

REQUESTS = st.lists(st.tuples(st.integers(0, 50), st.integers(1, 5)), max_size=60)


@given(REQUESTS, st.integers(1, 20), st.integers(1, 10))
async def test_no_window_holds_more_than_the_quota(asked: list[tuple[int, int]], interval: int, burst: int) -> None:
    """Between any two moments no more is allowed than the burst and what the quota earned meanwhile."""
    now, arrival = 0, 0
    allowed: list[tuple[int, int]] = []
    for gap, cost in asked:
        now += gap
        after = spend(arrival, now, interval=interval, burst=burst, cost=cost)
        if after is not None:
            arrival = after
            allowed.append((now, cost))
    for first, (start, _) in enumerate(allowed):
        total = 0
        for end, cost in allowed[first:]:
            total += cost
            assert total * interval <= burst * interval + (end - start)


@given(REQUESTS, st.integers(1, 20), st.integers(1, 10))
async def test_the_rule_is_that_of_a_bucket(asked: list[tuple[int, int]], interval: int, burst: int) -> None:
    """It allows exactly what a bucket of tokens that is filled without pause allows: nobody is refused too early."""
    now, arrival, tokens = 0, 0, Fraction(burst)
    for gap, cost in asked:
        now += gap
        tokens = min(Fraction(burst), tokens + Fraction(gap, interval))
        after = spend(arrival, now, interval=interval, burst=burst, cost=cost)
        assert (after is not None) == (tokens >= cost)
        if after is not None:
            arrival, tokens = after, tokens - cost


# --- one process ------------------------------------------------------------------------------------------------------


async def test_a_verdict_tells_what_is_left() -> None:
    """The numbers are those of the quota after the request, with times in whole seconds, rounded up."""
    clock = Clock()
    limiter = RateLimiter(rate_per_second=2, burst=10, clock=clock)
    assert limiter.take("a") == Verdict(allowed=True, limit=10, remaining=9, reset_seconds=1, retry_after_seconds=0)
    assert limiter.take("a", 9) == Verdict(allowed=True, limit=10, remaining=0, reset_seconds=5, retry_after_seconds=0)
    assert limiter.take("a") == Verdict(allowed=False, limit=10, remaining=0, reset_seconds=1, retry_after_seconds=1)
    assert limiter.take("a", 6).retry_after_seconds == 3
    clock.pass_seconds(3)
    assert limiter.take("a", 7).allowed is False
    assert limiter.take("a", 6).allowed
    assert limiter.take("b").remaining == 9


async def test_waiting_as_long_as_told_is_enough() -> None:
    """After `Retry-After` the refused request passes, whatever it costs; one that is dearer than all counts as all."""
    for cost in (1, 7, 10, 1000):
        clock = Clock()
        limiter = RateLimiter(rate_per_second=3, burst=10, clock=clock)
        assert admitted(limiter, "a", 20) == 10
        refused = limiter.take("a", cost)
        assert not refused.allowed
        clock.pass_seconds(refused.retry_after_seconds)
        assert limiter.take("a", cost).allowed


@pytest.mark.parametrize("cost", [0, -5])
async def test_no_request_is_free(cost: int) -> None:
    """A cost below one counts as one, so that nobody earns by asking."""
    limiter = RateLimiter(rate_per_second=1, burst=3, clock=Clock())
    assert [limiter.take("a", cost).remaining for _ in range(3)] == [2, 1, 0]
    assert not limiter.take("a", cost).allowed


async def test_headers_follow_the_draft() -> None:
    """The policy, what is left, and only for a refusal how long to wait."""
    limiter = RateLimiter(rate_per_second=100, burst=100, clock=Clock())
    allowed = limiter.take("a", 50)
    assert limiter.headers(allowed) == {
        "RateLimit-Policy": '"client";q=100;w=1',
        "RateLimit": '"client";r=50;t=1',
    }
    assert admitted(limiter, "a", 100) == 50
    assert limiter.headers(limiter.take("a")) == {
        "RateLimit-Policy": '"client";q=100;w=1',
        "RateLimit": '"client";r=0;t=1',
        "Retry-After": "1",
    }


async def test_clients_are_forgotten_beyond_a_bound() -> None:
    """Who asked last is remembered; who has been away longest starts anew, so that memory stays bounded."""
    limiter = RateLimiter(rate_per_second=1, burst=1, clients_max=2, clock=Clock())
    assert limiter.take("a").allowed
    assert limiter.take("b").allowed
    assert not limiter.take("a").allowed
    assert limiter.take("c").allowed  # b is forgotten
    assert not limiter.take("a").allowed
    assert limiter.take("b").allowed


@pytest.mark.parametrize(("rate", "burst", "clients"), [(0, 1, 1), (-1, 1, 1), (2e6, 1, 1), (1, 0, 1), (1, 1, 0)])
async def test_a_quota_of_nothing_is_a_mistake(rate: float, burst: int, clients: int) -> None:
    """Numbers that make no sense are refused where they are written."""
    with pytest.raises(ValueError, match="at least 1"):
        RateLimiter(rate, burst, clients_max=clients)


# --- several processes ------------------------------------------------------------------------------------------------


async def test_two_processes_share_one_quota(cluster: ValkeyCluster) -> None:
    """Both together allow about one quota, though each is asked for several times as much."""
    rate, burst, client = 100, 50, secrets.token_hex(8)
    async with opened(cluster) as one, opened(cluster) as two:
        limiters = [RateLimiter(rate, burst, one), RateLimiter(rate, burst, two)]
        allowed = [0, 0]
        began = time.monotonic()
        while time.monotonic() - began < 4:
            for index, limiter in enumerate(limiters):
                allowed[index] += admitted(limiter, client, 10)
            await asyncio.sleep(0.01)
        quota = burst + rate * (time.monotonic() - began)
    # Apart they would have allowed twice as much. What each spends unseen, 50 ms and a call long, is paid back.
    assert 0.8 * quota <= sum(allowed) <= 1.2 * quota, (allowed, quota)


async def test_what_one_process_spent_another_one_knows(cluster: ValkeyCluster) -> None:
    """A client that has used its quota up at one process is refused by another one, after one request on credit."""
    client = secrets.token_hex(8)
    async with opened(cluster) as one, opened(cluster) as two:
        clock = Clock()
        first = RateLimiter(0.1, 10, one, clock=clock)
        second = RateLimiter(0.1, 10, two, clock=clock)
        assert admitted(first, client, 20) == 10
        clock.pass_seconds(0.06)
        first.take(client)  # refused, and the time to settle
        await _settled(one, client)
        assert second.take(client).allowed
        await _settled(two, client)
        assert not second.take(client).allowed


async def test_what_is_spent_during_a_call_counts_too(cluster: ValkeyCluster) -> None:
    """An answer knows nothing of what was spent since it was asked for, so that comes on top of it."""
    client, clock = secrets.token_hex(8), Clock()
    async with opened(cluster) as valkey:
        await valkey.charge(client, 50_000_000, microseconds_max=2**40)  # others spent five
        limiter = RateLimiter(0.1, 10, valkey, clock=clock)
        assert admitted(limiter, client, 4) == 4  # the first asks, three come meanwhile
        await _settled(valkey, client)
        assert admitted(limiter, client, 10) == 1


async def test_a_quiet_client_is_not_charged_for_long_ago(cluster: ValkeyCluster) -> None:
    """What was earned back since it was spent is no debt any more."""
    client, clock = secrets.token_hex(8), Clock()
    async with opened(cluster) as valkey:
        limiter = RateLimiter(1, 10, valkey, clock=clock)
        assert admitted(limiter, client, 10) == 10  # the first is settled at once, nine are not
        clock.pass_seconds(3600)
        limiter.take(client)
        await _settled(valkey, client)
        ahead = await valkey.charge(client, 0, microseconds_max=2**40)
        assert ahead is not None
        assert ahead <= 2_000_000  # the first and the last


async def _settled(valkey: Valkey, client: str) -> None:
    """Wait for the answer to whatever was charged: calls of one client come one after the other."""
    await valkey.charge(client, 0, microseconds_max=2**40)
    await asyncio.sleep(0)


async def test_a_dead_cluster_refuses_nobody() -> None:
    """Without Valkey a process goes on by itself: the client's full rate, no second burst, nothing more."""
    clock, client = Clock(), "client-a"
    with valkey_cluster(masters=1, replicas=0) as cluster:
        async with opened(cluster) as valkey:
            limiter = RateLimiter(10, 20, valkey, clock=clock)
            assert admitted(limiter, client, 15) == 15
            await _settled(valkey, client)
            cluster.kill_all()
            for _ in range(50):
                allowed = admitted(limiter, client, 30)
                await asyncio.sleep(0)
                clock.pass_seconds(0.1)
            assert allowed == 1  # ten a second, asked for ten times a second
            clock.pass_seconds(10)
            assert admitted(limiter, client, 30) == 20


async def test_a_valkey_that_lost_its_data_gives_no_second_burst(cluster: ValkeyCluster) -> None:
    """An answer never takes a quota back: who used it up here stays refused here."""
    client, clock = secrets.token_hex(8), Clock()
    async with opened(cluster) as valkey:
        limiter = RateLimiter(0.1, 10, valkey, clock=clock)
        assert admitted(limiter, client, 20) == 10
        await _settled(valkey, client)
        with cluster.node(cluster.masters[0]) as node:
            node.flushall()
        clock.pass_seconds(0.06)
        assert not limiter.take(client).allowed
        await _settled(valkey, client)
        assert admitted(limiter, client, 20) == 0
