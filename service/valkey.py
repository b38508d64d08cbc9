"""What the service keeps in a Valkey or Redis Cluster: replay hints, shared quotas, and a stream for bursts.

All of it makes things faster and none of it makes them right: the ledger decides. So nobody waits for Valkey. Work is
handed over at once, and dropped at once when it cannot be done now: a look-up then knows nothing, a store is forgotten.

One call to Valkey costs as much as a third of a whole request, so work is gathered. Keys are spread over a few
buckets, each with a hash tag of its own, hence on one shard. A bucket has one call under way at most, a script that
does all that gathered since the last one, and for a moment before it: under load one call serves dozens of requests.
A look-up does not wait for that moment.

A bucket whose call fails takes no work until its shard has answered a ping again, and after a few failures it asks for
that only now and then: a dead shard costs the requests nothing, and takes none of the other buckets with it.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import ssl
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal
from urllib.parse import unquote, urlsplit

from opentelemetry.semconv.attributes import db_attributes, error_attributes, server_attributes
from opentelemetry.trace import NoOpTracer, Span, SpanContext, Status, StatusCode, Tracer
from redis.asyncio.cluster import ClusterNode, RedisCluster
from redis.asyncio.connection import SSLConnection
from redis.exceptions import NoScriptError, ResponseError

from service import tracing

_SCRIPT: Final = (Path(__file__).parent / "scripts" / "valkey_batch.lua").read_text()
_SCRIPT_SHA: Final = hashlib.sha1(_SCRIPT.encode(), usedforsecurity=False).hexdigest()  # as EVALSHA wants it
_GROUP = "workers"

BUCKETS = 6
"""Few, so that a batch is few calls; more than shards, so that all of those get some."""

_BATCH_MAX = 256  # things in one call; it takes the server well under a millisecond
_GATHER_SECONDS = 0.02  # a call costs both sides as much as ten things in it, and only who looks something up waits
_HURRY_SIZE = _BATCH_MAX // 2
_FACTS_BYTES_MAX = 1024
_FINGERPRINT_BYTES_MAX = 64
_MESSAGE_BYTES_MAX = 16 * 1024
_HINT_SECONDS = 24 * 3600  # the time in which clients are told to retry
_STREAM_ENTRIES_MAX = 10_000  # of each bucket; the oldest go, and SQS has them all
_STREAM_SECONDS = 3600  # without a new message a stream is gone after this time

_CONNECT_SECONDS_MAX = 2.0  # to learn the cluster's map from one node and to be answered by another, TLS included
_FAILURES_MAX = 3  # at once; then there are pauses
_PAUSE_SECONDS_MIN = 1.0
_PAUSE_SECONDS_MAX = 5.0

_BLOCK_SECONDS = 1.0  # a reader waits on the server for this long
_READ_ENTRIES_MAX = 100
_DEFAULT_PORT = 6379


@dataclass(frozen=True, slots=True)
class Hint:
    """What Valkey remembers of a request; the ledger may know more.

    Attributes:
        fingerprint: Of the request that was decided.
        facts: What the answer is made of, as `remember` got it.
    """

    fingerprint: bytes
    facts: bytes


@dataclass(frozen=True, slots=True)
class BufferedMessage:
    """A message of the burst stream that a worker got.

    Attributes:
        bucket: Which stream it came from.
        message_id: Its id there.
        body: What `buffer` got.
    """

    bucket: int
    message_id: bytes
    body: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Address:
    """Where a cluster is and how to log in.

    Attributes:
        seeds: Hosts and ports to ask for the others.
        tls: Whether to speak TLS, with the servers' certificates verified.
        user: Of the access control list; None for the default one.
        password: None without one.
    """

    seeds: tuple[tuple[str, int], ...]
    tls: bool
    user: str | None
    password: str | None = field(repr=False)


def parse_url(url: str) -> Address:
    """Read `redis://user:password@host:port,host:port`, or `rediss://` for TLS; all but one host may be left out.

    Raises:
        ValueError: It is anything else; the message does not repeat it, as it may hold a password.
    """
    scheme, _, rest = url.partition("://")
    credentials, _, hosts = rest.rpartition("@")
    user, _, password = (unquote(part) for part in credentials.partition(":"))
    try:
        parts = [urlsplit(f"//{host}") for host in hosts.rstrip("/").split(",")]
        seeds = tuple((part.hostname or "", part.port or _DEFAULT_PORT) for part in parts)
    except ValueError:
        seeds = ()
    if (
        scheme not in {"redis", "rediss"}
        or not seeds
        or not all(host for host, _ in seeds)
        or any(p.path for p in parts)
    ):
        raise ValueError("must be a URL like rediss://user:password@host:6379,host:6379")
    return Address(seeds, scheme == "rediss", user or None, password or None)


class Valkey:
    """The cluster. Everything is called from the event loop that opened it.

    Args:
        url: See `parse_url`.
        ca_file: Who signs the servers' certificates; without it the system's authorities.
        call_seconds_max: Time for one script call.
        buckets: How many; the same in every process that shares the cluster.
        tracer: Makes a span of each script call that serves a request whose trace is kept.
        on_call: Told of each script call: its seconds, and the error's type if it failed.
        on_dropped: Told how many things were dropped.

    Raises:
        ValueError: The URL is wrong, or there is a CA file and no TLS.
        OSError: The CA file cannot be read.
    """

    def __init__(  # noqa: PLR0913 - all but the URL have a default
        self,
        url: str,
        *,
        ca_file: Path | None = None,
        call_seconds_max: float = 0.1,
        buckets: int = BUCKETS,
        tracer: Tracer | None = None,
        on_call: Callable[[float, str | None], None] = lambda _seconds, _error: None,
        on_dropped: Callable[[int], None] = lambda _count: None,
    ) -> None:
        self._address = parse_url(url)
        if ca_file is not None and not self._address.tls:
            raise ValueError("a CA file is for rediss:// only")
        # Made once: redis-py would read the authorities of the whole system, some 50 ms, for each connection.
        self._tls = ssl.create_default_context(cafile=ca_file) if self._address.tls else None
        calls = _Calls(call_seconds_max, tracer or NoOpTracer(), on_call, on_dropped)
        self._buckets = tuple(_Bucket(number, calls) for number in range(buckets))
        self._next_stream = random.randrange(buckets)  # noqa: S311 - spreads load, hides nothing

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """Between these two points work is done, as soon as the cluster is there; it may be away at the start."""
        cluster = _cluster(self._address, self._tls)
        running = [asyncio.create_task(bucket.run(cluster)) for bucket in self._buckets]
        try:
            yield
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
            await _close(cluster)

    @property
    def available_ratio(self) -> float:
        """The share of buckets that take work now, 0 to 1."""
        return sum(bucket.accepting for bucket in self._buckets) / len(self._buckets)

    def remember(self, client_id: str, key: str, fingerprint: bytes, facts: bytes) -> None:
        """Keep a hint for 24 hours, if that can be done now. Only for what the ledger is known to keep for ever.

        Args:
            client_id: Whose key it is.
            key: The idempotency key; Valkey sees a hash of both.
            fingerprint: Of the request, 64 bytes at most.
            facts: What its answer is made of, 1 kB at most; longer ones are dropped.
        """
        digest = _digest(client_id, key)
        bucket = self._bucket(digest)
        if len(fingerprint) > _FINGERPRINT_BYTES_MAX or len(facts) > _FACTS_BYTES_MAX:
            bucket.drop(1)
        elif (batch := bucket.gathering()) is not None:
            batch.stores.append((bucket.key("hint", digest), bytes((len(fingerprint),)) + fingerprint + facts))

    def look_up(self, client_id: str, key: str) -> asyncio.Future[Hint | None]:
        """Ask for a hint; None when there is none or when it cannot be known soon. Not to be waited for alone."""
        found: asyncio.Future[Hint | None] = asyncio.get_running_loop().create_future()
        digest = _digest(client_id, key)
        bucket = self._bucket(digest)
        if (batch := bucket.gathering()) is None:
            found.set_result(None)
        else:
            batch.look_ups.append((bucket.key("hint", digest), found))
            bucket.hurry()
        return found

    def charge(self, client_id: str, microseconds: int, *, microseconds_max: int) -> asyncio.Future[int | None]:
        """Charge a client's shared quota for what was spent, and learn how far it is ahead; see `service.rate_limits`.

        Args:
            client_id: Whose quota.
            microseconds: The time in which the quota earns what was spent.
            microseconds_max: How far ahead of now the quota may get; what is more is forgiven.

        Returns:
            Microseconds until the quota is unused again; None when that cannot be known soon.
        """
        ahead: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()
        digest = _digest(client_id, "")
        bucket = self._bucket(digest)
        if (batch := bucket.gathering()) is None:
            ahead.set_result(None)
        else:
            batch.charges.append((bucket.key("quota", digest), microseconds, microseconds_max, ahead))
        return ahead

    def buffer(self, message: bytes) -> None:
        """Hand a message to whichever worker is free, if that can be done now; 16 kB at most, longer ones are dropped.

        It may be lost: whoever promised something on it has written it down elsewhere.
        """
        self._next_stream = (self._next_stream + 1) % len(self._buckets)
        bucket = self._buckets[self._next_stream]
        if len(message) > _MESSAGE_BYTES_MAX:
            bucket.drop(1)
        elif (batch := bucket.gathering()) is not None:
            batch.messages.append(message)

    async def consume(
        self, consumer: str, *, idle_seconds: float = 30.0
    ) -> AsyncGenerator[Sequence[BufferedMessage], None]:
        """Messages for a worker, some at a time, for ever; what it does not acknowledge another one gets.

        It has connections of its own, and waits out any failure. A message may come more than once. Close the iterator
        (`contextlib.aclosing`) to end.

        Args:
            consumer: The worker's name, different from all others'.
            idle_seconds: After this time without an acknowledgement a message is given to the next who asks.
        """
        cluster = _cluster(self._address, self._tls)
        # One place: a slow worker has one portion waiting, and the rest stays in Valkey for others.
        portions: asyncio.Queue[list[BufferedMessage]] = asyncio.Queue(maxsize=1)
        readers = [
            asyncio.create_task(_Reader(bucket, consumer, idle_seconds).run(cluster, portions))
            for bucket in self._buckets
        ]
        try:
            while True:
                yield await portions.get()
        finally:
            for task in readers:
                task.cancel()
            await asyncio.gather(*readers, return_exceptions=True)
            await _close(cluster)

    def acknowledge(self, messages: Iterable[BufferedMessage]) -> None:
        """Remove messages that are done with, if that can be done now; else they come again."""
        for message in messages:
            if (batch := self._buckets[message.bucket].gathering()) is not None:
                batch.acknowledgements.append(message.message_id)

    def _bucket(self, digest: str) -> _Bucket:
        return self._buckets[int(digest[:8], 16) % len(self._buckets)]


def _digest(client_id: str, key: str) -> str:
    """A hash that names the pair and does not give the key away; the length keeps `a` + `bc` and `ab` + `c` apart."""
    return hashlib.blake2b(f"{len(client_id)}:{client_id}{key}".encode(), digest_size=16).hexdigest()


# --- one bucket -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Calls:
    """What is the same for the calls of all buckets."""

    seconds_max: float
    tracer: Tracer
    on_call: Callable[[float, str | None], None]
    on_dropped: Callable[[int], None]


@dataclass(slots=True)
class _Batch:
    """What has gathered for the next call."""

    stores: list[tuple[bytes, bytes]] = field(default_factory=list)
    look_ups: list[tuple[bytes, asyncio.Future[Hint | None]]] = field(default_factory=list)
    charges: list[tuple[bytes, int, int, asyncio.Future[int | None]]] = field(default_factory=list)
    messages: list[bytes] = field(default_factory=list)
    acknowledgements: list[bytes] = field(default_factory=list)
    spans: list[SpanContext] = field(default_factory=list)
    size: int = 0

    def keys(self, stream: bytes) -> list[bytes]:
        """The script's KEYS."""
        named = (self.stores, self.look_ups, self.charges)
        return [*(item[0] for items in named for item in items), stream]

    def arguments(self) -> list[bytes | int | str]:
        """The script's ARGV."""
        return [
            len(self.stores),
            len(self.look_ups),
            len(self.charges),
            len(self.messages),
            len(self.acknowledgements),
            _HINT_SECONDS * 1000,
            _STREAM_ENTRIES_MAX,
            _STREAM_SECONDS * 1000,
            _GROUP,
            *(value for _, value in self.stores),
            *(number for _, *numbers, _ in self.charges for number in numbers),
            *self.messages,
            *self.acknowledgements,
        ]

    def answer(self, hints: Sequence[bytes | None], ahead: Sequence[int]) -> None:
        """Tell those who asked."""
        for (_, found), stored in zip(self.look_ups, hints, strict=True):
            _tell(found, Hint(stored[1 : 1 + stored[0]], stored[1 + stored[0] :]) if stored else None)
        for (*_, charged), microseconds in zip(self.charges, ahead, strict=True):
            _tell(charged, microseconds)

    def give_up(self) -> None:
        """Tell those who asked that nothing is known."""
        for _, found in self.look_ups:
            _tell(found, None)
        for *_, charged in self.charges:
            _tell(charged, None)


def _tell(future: asyncio.Future[Any], result: object) -> None:
    if not future.done():  # who asked may have gone
        future.set_result(result)


class _Bucket:
    """One hash tag: what has gathered for it, and its one call under way."""

    def __init__(self, number: int, calls: _Calls) -> None:
        self.number = number
        self.stream = self.key("burst", "stream")
        self.accepting = False
        self._calls = calls
        self._batch = _Batch()
        self._gathered = asyncio.Event()
        self._hurry = asyncio.Event()

    def key(self, kind: Literal["hint", "quota", "burst"], name: str) -> bytes:
        """A key of this bucket."""
        return f"redemption:{{b{self.number}}}:{kind}:{name}".encode()

    def gathering(self) -> _Batch | None:
        """The next call's batch, to put one thing into; None when that thing is to be dropped."""
        batch = self._batch
        if not self.accepting or batch.size == _BATCH_MAX:
            self.drop(1)
            return None
        batch.size += 1
        if span := tracing.recorded_span():
            batch.spans.append(span)
        self._gathered.set()
        if batch.size == _HURRY_SIZE:
            self.hurry()
        return batch

    def hurry(self) -> None:
        """What has gathered is not to wait for more."""
        self._hurry.set()

    def drop(self, count: int) -> None:
        """Tell that things were dropped."""
        self._calls.on_dropped(count)

    async def run(self, cluster: RedisCluster) -> None:
        """Do what gathers, for ever."""
        failures = 0
        try:
            while True:
                if failures >= _FAILURES_MAX:
                    await asyncio.sleep(_pause_seconds(failures))
                with suppress(Exception):  # of whatever kind: a bucket never ends, and the call has told of it
                    await self._reach(cluster, again=failures > 0)
                    self.accepting = True
                    while True:
                        await self._gathered.wait()
                        with suppress(TimeoutError):
                            async with asyncio.timeout(_GATHER_SECONDS):
                                await self._hurry.wait()
                        await self._call(cluster)
                        failures = 0
                failures += 1
                self._close()
        finally:
            self._close()

    async def _reach(self, cluster: RedisCluster, *, again: bool) -> None:
        """Find the node. When that fails it counts as a call that failed, or a cluster that is gone would look idle."""
        started = time.perf_counter()
        try:
            await _locate(cluster, self.stream, again=again)
        except Exception as error:
            self._calls.on_call(time.perf_counter() - started, type(error).__qualname__)
            raise

    def _take(self) -> _Batch:
        batch, self._batch = self._batch, _Batch()
        self._gathered.clear()
        self._hurry.clear()
        return batch

    def _close(self) -> None:
        self.accepting = False
        self._give_up(self._take())

    def _give_up(self, batch: _Batch) -> None:
        if batch.size:
            self.drop(batch.size)
        batch.give_up()

    async def _call(self, cluster: RedisCluster) -> None:
        node = _node(cluster, self.stream)
        batch = self._take()
        started = time.perf_counter()
        attributes = _span_attributes(node, batch.size) if batch.spans else {}
        alone = batch.size == 1
        with tracing.batch_span(self._calls.tracer, "EVALSHA", attributes, batch.spans, alone=alone) as span:
            error: str | None = None
            try:
                async with asyncio.timeout(self._calls.seconds_max):
                    hints, ahead = await _evaluate(node, batch.keys(self.stream), batch.arguments())
                batch.answer(hints, ahead)
            except BaseException as caught:
                error = type(caught).__qualname__
                _record(span, error)
                self._give_up(batch)
                raise
            finally:
                self._calls.on_call(time.perf_counter() - started, error)


async def _evaluate(
    node: ClusterNode, keys: Sequence[bytes], arguments: Sequence[bytes | int | str]
) -> tuple[Sequence[bytes | None], Sequence[int]]:
    rest = (len(keys), *keys, *arguments)
    try:
        hints, ahead = await node.execute_command("EVALSHA", _SCRIPT_SHA, *rest)
    except NoScriptError:  # a server that is new, or that was told to forget; it knows the script from now on
        hints, ahead = await node.execute_command("EVAL", _SCRIPT, *rest)
    return hints, ahead


def _span_attributes(node: ClusterNode, size: int) -> dict[str, str | int]:
    attributes: dict[str, str | int] = {
        db_attributes.DB_SYSTEM_NAME: "redis",
        db_attributes.DB_OPERATION_NAME: "EVALSHA",
        db_attributes.DB_STORED_PROCEDURE_NAME: _SCRIPT_SHA,
        server_attributes.SERVER_ADDRESS: node.host,
        server_attributes.SERVER_PORT: int(node.port),
    }
    if size > 1:  # a batch of one is none, says the convention
        attributes[db_attributes.DB_OPERATION_BATCH_SIZE] = size
    return attributes


def _record(span: Span, error: str) -> None:
    span.set_attribute(error_attributes.ERROR_TYPE, error)
    span.set_status(Status(StatusCode.ERROR))


# --- the burst stream's other end -------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Reader:
    """Reads one bucket's stream for one consumer."""

    bucket: _Bucket
    consumer: str
    idle_seconds: float
    _claim_at: float = 0.0

    async def run(self, cluster: RedisCluster, portions: asyncio.Queue[list[BufferedMessage]]) -> None:
        """Read for ever."""
        failures = 0
        while True:
            with suppress(Exception):  # of whatever kind: a reader never ends, and messages are in SQS as well
                node = await _locate(cluster, self.bucket.stream, again=failures > 0)
                async with asyncio.timeout(_CONNECT_SECONDS_MAX):
                    await self._join(node)
                while True:
                    async with asyncio.timeout(_BLOCK_SECONDS + _CONNECT_SECONDS_MAX):
                        read = (await self._abandoned(node), await self._fresh(node))
                    for portion in filter(None, read):
                        await portions.put(portion)
                    failures = 0
            failures += 1
            await asyncio.sleep(_pause_seconds(failures))

    async def _join(self, node: ClusterNode) -> None:
        with suppress(ResponseError):  # there is the group already; if it was something else, reading tells
            await node.execute_command("XGROUP CREATE", self.bucket.stream, _GROUP, "0", "MKSTREAM")

    async def _abandoned(self, node: ClusterNode) -> list[BufferedMessage]:
        if time.monotonic() < self._claim_at:
            return []
        self._claim_at = time.monotonic() + self.idle_seconds / 2
        idle_milliseconds = int(self.idle_seconds * 1000)
        names = (self.bucket.stream, _GROUP, self.consumer)
        reply = await node.execute_command("XAUTOCLAIM", *names, idle_milliseconds, "0-0", "COUNT", _READ_ENTRIES_MAX)
        return self._messages(reply[1])

    async def _fresh(self, node: ClusterNode) -> list[BufferedMessage]:
        waits = ("COUNT", _READ_ENTRIES_MAX, "BLOCK", int(_BLOCK_SECONDS * 1000))
        reply = await node.execute_command(
            "XREADGROUP", "GROUP", _GROUP, self.consumer, *waits, "STREAMS", self.bucket.stream, ">"
        )
        return self._messages(reply[0][1]) if reply else []

    def _messages(self, entries: Iterable[tuple[bytes, dict[bytes, bytes] | None]]) -> list[BufferedMessage]:
        return [BufferedMessage(self.bucket.number, name, fields[b"m"]) for name, fields in entries if fields]


# --- the connection ---------------------------------------------------------------------------------------------------


def _cluster(address: Address, tls: ssl.SSLContext | None) -> RedisCluster:
    """The map of the cluster and connections to its nodes.

    We talk to the nodes themselves. On any error redis-py would ask for the map within the call, and it may drop the
    connections to all nodes, so that one dead shard takes the healthy ones along.
    """
    cluster = RedisCluster(
        startup_nodes=[ClusterNode(host, port) for host, port in address.seeds],
        dynamic_startup_nodes=False,  # the seeds' names outlive the addresses of today's nodes
        require_full_coverage=False,  # a shard that is lost is no reason to leave the others
        username=address.user,
        password=address.password,
        ssl=tls is not None,
        protocol=2,
        driver_info=None,  # two commands fewer for each connection
        # No time-outs of redis-py: they go through asyncio.wait_for, in which Python 3.11 may lose a cancellation, and
        # with it the end of this service. Each of our calls has one around it.
        socket_timeout=None,
        socket_connect_timeout=None,
    )
    if tls is not None:
        cluster.connection_kwargs["connection_class"] = connection_class = _verified_connection(tls)
        for node in cluster.startup_nodes:
            node.connection_class = connection_class
    return cluster


def _verified_connection(tls: ssl.SSLContext) -> type[SSLConnection]:
    class VerifiedConnection(SSLConnection):
        def __init__(self, **settings: Any) -> None:  # noqa: ANN401 - redis-py's own
            super().__init__(**settings)
            self.ssl_context.context = tls

    return VerifiedConnection


async def _locate(cluster: RedisCluster, key: bytes, *, again: bool) -> ClusterNode:
    """The node that has this key, once it answers; `again` when something was wrong with the map that we have."""
    async with asyncio.timeout(_CONNECT_SECONDS_MAX):
        if again or not cluster.nodes_manager.slots_cache:
            await cluster.nodes_manager.initialize()  # one asks, the others get its answer
        node = _node(cluster, key)
        await node.execute_command("PING")
    return node


def _node(cluster: RedisCluster, key: bytes) -> ClusterNode:
    node = cluster.get_node_from_key(key)  # type: ignore[arg-type] # it takes bytes as well
    assert node is not None, "a master is meant; None is for a replica that does not exist"
    return node


def _pause_seconds(failures: int) -> float:
    """Twice as long each time, within bounds, and never the same for two processes."""
    longest = min(_PAUSE_SECONDS_MAX, _PAUSE_SECONDS_MIN * 2.0 ** min(failures - _FAILURES_MAX, 8))
    return longest * random.uniform(0.5, 1)  # noqa: S311 - spreads load, hides nothing


async def _close(cluster: RedisCluster) -> None:
    for nodes in ("nodes_cache", "startup_nodes"):
        with suppress(Exception):  # what cannot be closed in order is closed anyway
            await cluster.nodes_manager.aclose(nodes)
