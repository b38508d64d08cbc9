"""What Valkey is good for, and that its loss costs nothing but that."""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from drills.harness.valkey import ValkeyCluster, valkey_cluster
from service.valkey import BufferedMessage, Hint, Valkey, parse_url

pytestmark = pytest.mark.anyio

PRINT = b"f" * 32
HINT = Hint(PRINT, b"facts")
SECONDS_MAX = 30.0
PATIENT = {"call_seconds_max": 5.0}  # a slow machine is no broken cluster


@pytest.fixture(scope="module")
def cluster() -> Iterator[ValkeyCluster]:
    """A whole cluster for the tests that leave it whole."""
    with valkey_cluster() as running:
        yield running


@asynccontextmanager
async def opened(cluster: ValkeyCluster, **changes: Any) -> AsyncIterator[Valkey]:  # noqa: ANN401 - as Valkey takes them
    """A client that has reached the cluster."""
    valkey = Valkey(cluster.url, ca_file=cluster.ca_file, **{**PATIENT, **changes})
    async with valkey.opened():
        await until(lambda: valkey.available_ratio == 1)
        yield valkey


async def until(condition: Callable[[], bool]) -> None:
    """Wait until something holds."""
    async with asyncio.timeout(SECONDS_MAX):
        while not condition():
            await asyncio.sleep(0.01)


async def until_found(valkey: Valkey, key: str) -> Hint:
    """Store a hint and look it up until it is there."""
    async with asyncio.timeout(SECONDS_MAX):
        while True:
            valkey.remember("client-a", key, PRINT, b"facts")
            found = await valkey.look_up("client-a", key)
            if found is not None:
                return found
            await asyncio.sleep(0.01)


def unused() -> str:
    """A key of no other test."""
    return secrets.token_hex(16)


def script_calls(cluster: ValkeyCluster) -> int:
    """How many scripts the nodes have run."""
    stats = cluster.info("commandstats")
    return sum(each.get(name, {}).get("calls", 0) for each in stats for name in ("cmdstat_evalsha", "cmdstat_eval"))


# --- hints ------------------------------------------------------------------------------------------------------------


async def test_a_hint_is_found_by_its_client_and_key_only(cluster: ValkeyCluster) -> None:
    """What was remembered comes back whole, to the same client with the same key and to nobody else."""
    async with opened(cluster) as valkey, opened(cluster) as other_process:
        key = unused()
        assert await valkey.look_up("client-a", key) is None
        facts = bytes(range(256)) * 4
        valkey.remember("client-a", key, PRINT, facts)
        await valkey.look_up("client-a", key)  # the store is done: it goes before look-ups
        assert await other_process.look_up("client-a", key) == Hint(PRINT, facts)
        assert await valkey.look_up("client-b", key) is None
        assert await valkey.look_up("client-a", unused()) is None
        assert await valkey.look_up("client-", f"a{key}") is None


async def test_keys_in_valkey_tell_nothing(cluster: ValkeyCluster) -> None:
    """Neither client nor key stands in Valkey; hints and quotas are there for a limited time."""
    async with opened(cluster) as valkey:
        key = unused()
        await until_found(valkey, key)
        await valkey.charge("client-a", 1_000_000, microseconds_max=2_000_000)
    seen = 0
    for process in cluster.masters:
        with cluster.node(process) as node:
            for name in node.scan_iter("redemption:*"):
                assert key.encode() not in name
                assert b"client-a" not in name
                if b":burst:" not in name:
                    seen += 1
                    assert 0 < node.pttl(name) <= 24 * 3600 * 1000
    assert seen >= 2


async def test_many_look_ups_are_few_calls(cluster: ValkeyCluster) -> None:
    """600 look-ups at once are one call for each bucket, and one more for what came while that was under way."""
    async with opened(cluster) as valkey:
        # A server that does not know the script yet is asked twice.
        assert await asyncio.gather(*(valkey.look_up("client-a", unused()) for _ in range(100))) == [None] * 100
        before = script_calls(cluster)
        first = [valkey.look_up("client-a", unused()) for _ in range(300)]
        await asyncio.sleep(0)  # the first calls begin
        second = [valkey.look_up("client-a", unused()) for _ in range(300)]
        assert await asyncio.gather(*first, *second) == [None] * 600
        assert script_calls(cluster) - before <= 2 * 6


async def test_what_is_too_much_is_dropped(cluster: ValkeyCluster) -> None:
    """Work that comes faster than calls end is bounded, each thing's size is, and what is dropped is counted."""
    dropped: list[int] = []
    async with opened(cluster, buckets=1, on_dropped=dropped.append) as valkey:
        answers = [valkey.look_up("client-a", unused()) for _ in range(400)]
        assert [answer.done() for answer in answers] == [False] * 256 + [True] * 144
        assert await asyncio.gather(*answers) == [None] * 400
        assert sum(dropped) == 144
        key = unused()
        valkey.remember("client-a", key, PRINT, b"x" * 1025)
        valkey.buffer(b"x" * (16 * 1024 + 1))
        assert await valkey.look_up("client-a", key) is None
        assert sum(dropped) == 146


async def test_who_stopped_waiting_harms_nobody(cluster: ValkeyCluster) -> None:
    """A look-up that was cancelled leaves those in the same call alone."""
    async with opened(cluster, buckets=1) as valkey:
        await until_found(valkey, key := unused())
        gone, here = valkey.look_up("client-a", key), valkey.look_up("client-a", key)
        gone.cancel()
        assert await here == HINT


async def test_a_forgotten_script_is_sent_again(cluster: ValkeyCluster) -> None:
    """A server that lost the script gets it within the same call."""
    async with opened(cluster) as valkey:
        await until_found(valkey, key := unused())
        for process in cluster.masters:
            with cluster.node(process) as node:
                node.script_flush()
        assert await valkey.look_up("client-a", key) == HINT


# --- quotas -----------------------------------------------------------------------------------------------------------


async def test_charges_add_up_to_a_bound(cluster: ValkeyCluster) -> None:
    """A quota is ahead by what all processes charged, less the time that went by, and never by more than the bound."""
    async with opened(cluster) as valkey, opened(cluster) as other_process:
        client, minute = unused(), 60_000_000
        assert await valkey.charge(client, 0, microseconds_max=10 * minute) == 0
        assert await valkey.charge(client, minute, microseconds_max=10 * minute) == minute
        ahead = await other_process.charge(client, minute, microseconds_max=10 * minute)
        assert ahead is not None
        assert minute < ahead < 2 * minute
        assert await valkey.charge(client, 30 * minute, microseconds_max=10 * minute) == 10 * minute


# --- the burst stream -------------------------------------------------------------------------------------------------


async def test_a_message_is_delivered_until_it_is_acknowledged(cluster: ValkeyCluster) -> None:
    """Each message goes to one worker; what that one does not acknowledge goes to another; then it is gone."""
    bodies = {f"message-{number}".encode() for number in range(30)}
    async with opened(cluster) as valkey:
        for body in bodies:
            valkey.buffer(body)
        first = await _receive(valkey, "worker-1", len(bodies))
        assert {message.body for message in first} == bodies
        assert len({message.bucket for message in first}) == 6
        kept, done = first[:3], first[3:]
        valkey.acknowledge(done)
        await until(lambda: _entries(cluster) == 3)
        again = await _receive(valkey, "worker-2", len(kept), idle_seconds=0.2)
        assert {message.body for message in again} == {message.body for message in kept}
        valkey.acknowledge(again)
        await until(lambda: _entries(cluster) == 0)


async def _receive(valkey: Valkey, consumer: str, count: int, **settings: float) -> list[BufferedMessage]:
    received: list[BufferedMessage] = []
    async with asyncio.timeout(SECONDS_MAX), aclosing(valkey.consume(consumer, **settings)) as portions:
        async for portion in portions:
            received += portion
            if len(received) >= count:
                break
    return received


def _entries(cluster: ValkeyCluster) -> int:
    total = 0
    for process in cluster.masters:
        with cluster.node(process) as node:
            total += sum(node.xlen(name) for name in node.scan_iter("redemption:*:burst:*"))
    return total


async def test_a_stream_is_bounded() -> None:
    """A stream that nobody reads keeps about as many messages as it may, the newest, and is gone an hour later."""
    with valkey_cluster(masters=1, replicas=0) as small:
        async with opened(small, buckets=1) as valkey:
            for number in range(10_500):
                valkey.buffer(str(number).encode())
                if number % 100 == 0:
                    await valkey.look_up("client-a", "any")
            await valkey.look_up("client-a", "any")
        with small.node(small.masters[0]) as node:
            [name] = node.scan_iter("redemption:*:burst:*")
            assert 10_000 <= node.xlen(name) < 10_200
            assert 0 < node.ttl(name) <= 3600


# --- when it is away --------------------------------------------------------------------------------------------------


async def test_a_dead_master_is_survived() -> None:
    """When a replica has taken over, everything works again, with what was acknowledged long before."""
    with valkey_cluster() as cluster:
        async with opened(cluster) as valkey:
            keys = [unused() for _ in range(20)]
            for key in keys:
                await until_found(valkey, key)
            cluster.kill_master(0)
            for _ in range(20):  # while it is dead, nobody hangs
                await asyncio.gather(*(valkey.look_up("client-a", key) for key in keys))
            for key in keys:
                assert await until_found(valkey, key) == HINT
            await until(lambda: valkey.available_ratio == 1)


async def test_a_dead_cluster_costs_nothing() -> None:
    """Look-ups know nothing at once, stores are forgotten, and calls stop but for a probe now and then."""
    calls: list[str | None] = []
    dropped: list[int] = []
    with valkey_cluster(masters=1, replicas=0) as cluster:
        record = {"on_call": lambda _seconds, error: calls.append(error), "on_dropped": dropped.append}
        async with opened(cluster, **record) as valkey:
            await until_found(valkey, unused())
            cluster.kill_all()
            for _ in range(100):
                valkey.look_up("client-a", unused())
            await until(lambda: valkey.available_ratio == 0)
            failures = len([error for error in calls if error])
            assert 1 <= failures <= 6 * 3
            dropped.clear()
            for _ in range(1000):
                valkey.remember("client-a", unused(), PRINT, b"facts")
                valkey.buffer(b"message")
                answer = valkey.look_up("client-a", unused())
                assert answer.done()
                assert answer.result() is None
                assert valkey.charge("client-a", 1, microseconds_max=1).done()
            assert sum(dropped) == 4000
            assert len([error for error in calls if error]) == failures


async def test_a_silent_cluster_is_given_up() -> None:
    """A call that is not answered in time tells those in it and behind it that nothing is known; later ones work."""
    with valkey_cluster(masters=1, replicas=0) as cluster:
        async with opened(cluster, call_seconds_max=0.2, buckets=1) as valkey:
            await until_found(valkey, unused())
            cluster.freeze_all()
            async with asyncio.timeout(SECONDS_MAX):
                under_way = valkey.look_up("client-a", unused())
                await asyncio.sleep(0)
                behind_it = valkey.look_up("client-a", unused())
                assert [await under_way, await behind_it] == [None, None]
            cluster.thaw_all()
            assert await until_found(valkey, unused()) == HINT


async def test_a_cluster_that_comes_late_is_used() -> None:
    """The start waits for nobody: while the cluster is silent all is dropped, and once it answers all is done."""
    with valkey_cluster(masters=1, replicas=0) as cluster:
        cluster.freeze_all()
        valkey = Valkey(cluster.url, call_seconds_max=5)
        async with valkey.opened():
            assert await valkey.look_up("client-a", "any") is None
            await asyncio.sleep(0.1)
            assert valkey.available_ratio == 0
            cluster.thaw_all()
            assert await until_found(valkey, unused()) == HINT


async def test_the_end_comes_at_once_when_nothing_answers() -> None:
    """Neither the client nor a worker's reading holds up the end, whatever the cluster does."""
    with valkey_cluster(masters=1, replicas=0) as cluster:
        async with opened(cluster) as valkey:
            async with aclosing(valkey.consume("worker-1")) as portions:
                reading = asyncio.ensure_future(anext(portions))
                await asyncio.sleep(0.3)
                cluster.freeze_all()
                waiting = valkey.look_up("client-a", unused())
                await asyncio.sleep(0)
                reading.cancel()
                await asyncio.wait({reading})
            began = time.monotonic()
        assert time.monotonic() - began < 4
        assert waiting.result() is None


async def test_an_address_where_nobody_lives_is_tried_in_the_background() -> None:
    """Even a wrong port stops nothing."""
    valkey = Valkey("redis://127.0.0.1:1")
    async with valkey.opened():
        await asyncio.sleep(0.05)
        assert await valkey.look_up("client-a", "any") is None
        assert valkey.available_ratio == 0


# --- TLS, addresses, spans --------------------------------------------------------------------------------------------


@pytest.mark.skipif(
    shutil.which("redis-server") is None and not os.environ.get("CI"),
    reason="redis-server, the one with TLS, is missing: apt-get install redis-server",
)
async def test_tls_is_verified() -> None:
    """With the right authority hints travel over TLS; with the system's authorities, or another one, nothing does."""
    with (
        valkey_cluster(masters=1, replicas=0, tls=True) as cluster,
        valkey_cluster(masters=1, replicas=0, tls=True) as stranger,
    ):
        async with opened(cluster) as valkey:
            assert await until_found(valkey, unused()) == HINT
        for ca_file in (None, stranger.ca_file):
            doubting = Valkey(cluster.url, ca_file=ca_file)
            async with doubting.opened():
                await asyncio.sleep(0.5)
                assert doubting.available_ratio == 0


async def test_an_authority_without_tls_is_a_mistake(tmp_path: Path) -> None:
    """A CA file says that TLS is meant; an address that says otherwise is refused, not believed."""
    with pytest.raises(ValueError, match="rediss"):
        Valkey("redis://127.0.0.1", ca_file=tmp_path / "ca.pem")


async def test_a_url_names_seeds_and_login() -> None:
    """Several seeds, one login, ports by default; the password stays out of the repr."""
    address = parse_url("rediss://me:s%40cret@one.example:7000,two.example,[::1]:7001")
    assert address.seeds == (("one.example", 7000), ("two.example", 6379), ("::1", 7001))
    assert (address.tls, address.user, address.password) == (True, "me", "s@cret")
    assert "s@cret" not in repr(address)
    assert parse_url("redis://localhost").user is None


@pytest.mark.parametrize(
    "url",
    ["", "host:1", "http://host", "redis://", "redis://:secret@", "redis://a,,b", "redis://a:secret", "redis://a/1"],
)
async def test_a_wrong_url_is_refused_without_its_secrets(url: str) -> None:
    """What is no address of a cluster is refused, and not repeated."""
    with pytest.raises(ValueError, match="must be a URL") as caught:
        parse_url(url)
    assert "secret" not in str(caught.value)


async def test_a_call_is_a_span_that_links_to_its_requests(cluster: ValkeyCluster) -> None:
    """The span of a call has the convention's names, a link to each request that it serves, and no key."""
    spans = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    tracer = provider.get_tracer("test")
    key = unused()
    async with opened(cluster, buckets=1, tracer=tracer) as valkey:
        with tracer.start_as_current_span("request 1"):
            first = valkey.look_up("client-a", key)
        with tracer.start_as_current_span("request 2"):
            second = valkey.look_up("client-a", key)
        await asyncio.gather(first, second)
    requests = {each.context.span_id for each in spans.get_finished_spans() if each.name.startswith("request")}
    [call] = [each for each in spans.get_finished_spans() if each.name == "EVALSHA"]
    assert call.kind is SpanKind.CLIENT
    assert {link.context.span_id for link in call.links} == requests
    attributes = dict(call.attributes or {})
    assert attributes.pop("server.port") in {process.ports[0] for process in cluster.nodes}
    assert len(str(attributes.pop("db.stored_procedure.name"))) == 40
    assert attributes == {
        "db.system.name": "redis",
        "db.operation.name": "EVALSHA",
        "db.operation.batch.size": 2,
        "server.address": "127.0.0.1",
    }
    assert key not in call.to_json()


async def test_what_comes_within_a_moment_is_one_call(cluster: ValkeyCluster) -> None:
    """What nobody waits for gathers, though the server is free; a look-up takes it along."""
    calls: list[str | None] = []
    key = unused()
    async with opened(cluster, buckets=1, on_call=lambda _seconds, error: calls.append(error)) as valkey:
        for number in range(10):
            valkey.remember("client-a", f"{key}-{number}", b"f", b"facts")
            await asyncio.sleep(0)
        assert await valkey.look_up("client-a", f"{key}-9") is not None
    assert calls == [None]


async def test_a_failed_call_says_how() -> None:
    """A call that fails has its error's type, in the span and for the metrics, and tells nothing else of it.

    Nor does a cluster that is gone look idle: each time it is looked for in vain is a call that failed.
    """
    spans = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    calls: list[str | None] = []
    with valkey_cluster(masters=1, replicas=0) as cluster:
        tracer = provider.get_tracer("test")
        settings = {"tracer": tracer, "on_call": lambda _seconds, error: calls.append(error)}
        async with opened(cluster, buckets=1, **settings) as valkey:
            cluster.kill_all()
            with tracer.start_as_current_span("request"):
                assert await valkey.look_up("client-a", "any") is None
            while len(calls) < 2:
                await asyncio.sleep(0.05)
    [call] = [each for each in spans.get_finished_spans() if each.name == "EVALSHA"]
    assert call.status.status_code is StatusCode.ERROR
    assert dict(call.attributes or {})["error.type"] == "ConnectionError"
    assert calls[0] == "ConnectionError"
    assert all(calls)
    assert not call.events
