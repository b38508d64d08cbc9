"""What a Redis or Valkey Cluster says itself: `CLUSTER INFO` and `CLUSTER NODES` of one node, `INFO` of all."""

from __future__ import annotations

import ssl
from collections.abc import Iterator, Mapping
from contextlib import closing
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from exporters.calls import CallError, Calls, Reason
from exporters.readings import Key, Reading
from exporters.settings import Redis
from exporters.sources import Collected
from slo.metrics.redis import (
    REDIS_CLUSTER_CONNECTED_REPLICAS,
    REDIS_CLUSTER_KNOWN_NODES,
    REDIS_CLUSTER_MASTER_LINK_UP,
    REDIS_CLUSTER_MEMORY_MAX,
    REDIS_CLUSTER_MEMORY_USED,
    REDIS_CLUSTER_METRICS,
    REDIS_CLUSTER_NODE_UP,
    REDIS_CLUSTER_REJECTED_CONNECTIONS,
    REDIS_CLUSTER_SLOTS_ASSIGNED,
    REDIS_CLUSTER_SLOTS_FAIL,
    REDIS_CLUSTER_SLOTS_OK,
    REDIS_CLUSTER_STATE_OK,
)

_CLUSTER = {
    "cluster_slots_assigned": REDIS_CLUSTER_SLOTS_ASSIGNED,
    "cluster_slots_ok": REDIS_CLUSTER_SLOTS_OK,
    "cluster_slots_fail": REDIS_CLUSTER_SLOTS_FAIL,
    "cluster_known_nodes": REDIS_CLUSTER_KNOWN_NODES,
}
_NODE = {
    "used_memory": REDIS_CLUSTER_MEMORY_USED,
    "maxmemory": REDIS_CLUSTER_MEMORY_MAX,
    "rejected_connections": REDIS_CLUSTER_REJECTED_CONNECTIONS,
}
_NO_RETRY = Retry(NoBackoff(), 0)  # `Calls` repeats, and counts
_UNREACHABLE = frozenset({"fail", "handshake", "noaddr"})  # flags of CLUSTER NODES


class RedisCluster:
    """A source: one cluster.

    Args:
        settings: Where it is, and who asks.
        calls: Counts and repeats.
    """

    metrics = REDIS_CLUSTER_METRICS

    def __init__(self, settings: Redis, calls: Calls) -> None:
        self._settings = settings
        self._calls = calls

    def collect(self) -> Collected:
        """Ask a node for the cluster, and every node of that for itself.

        A node that the cluster knows to have failed is told as down, and is not asked.

        Raises:
            CallError: No seed answers.
        """
        now = self._calls.clock.now()
        cluster, nodes = self._ask_a_seed()
        errors: list[CallError] = []
        readings = [
            Reading(Key.of(metric, name=self._settings.cluster), value, now)
            for metric, value in (
                (REDIS_CLUSTER_STATE_OK, float(cluster.get("cluster_state") == "ok")),
                *((metric, float(cluster[field])) for field, metric in _CLUSTER.items()),
            )
        ]
        for address, flags in nodes.items():
            labels = {"name": self._settings.cluster, "node": f"{address[0]}:{address[1]}"}
            info: Mapping[str, Any] | None = None
            if not flags & _UNREACHABLE:
                try:
                    info = self._calls("INFO", lambda address=address: self._run(address, "INFO"))  # type: ignore[misc]
                except CallError as error:
                    errors.append(error)
            readings.append(Reading(Key.of(REDIS_CLUSTER_NODE_UP, **labels), float(info is not None), now))
            readings.extend(_of_node(info or {}, labels, now))
        return Collected(readings, errors)

    def _ask_a_seed(self) -> tuple[dict[str, str], dict[tuple[str, int], set[str]]]:
        """The first answer of a seed: the cluster's own words, and its nodes with their flags."""
        last: CallError | None = None
        for seed in self._settings.seeds:
            try:
                cluster = self._calls("CLUSTER INFO", lambda seed=seed: self._run(seed, "CLUSTER INFO"))  # type: ignore[misc]
                nodes = self._calls("CLUSTER NODES", lambda seed=seed: self._run(seed, "CLUSTER NODES"))  # type: ignore[misc]
            except CallError as error:
                last = error
                continue
            return cluster, {_address(at, node, seed): set(node["flags"].split(",")) for at, node in nodes.items()}
        assert last is not None, "there is at least one seed"
        raise last

    def _run(self, address: tuple[str, int], command: str) -> Any:  # noqa: ANN401 - each command has an answer of its own
        settings = self._settings
        try:
            password = settings.password_file.read_text().strip() if settings.password_file else None
            with closing(
                redis.Redis(
                    *address,
                    username=settings.user,
                    password=password,
                    ssl=settings.tls,
                    ssl_ca_certs=str(settings.ca_file) if settings.ca_file else None,
                    ssl_check_hostname=settings.tls,
                    socket_timeout=settings.timeout_seconds,
                    socket_connect_timeout=settings.timeout_seconds,
                    decode_responses=True,
                    retry=_NO_RETRY,
                )
            ) as node:
                return node.execute_command(command)  # type: ignore[no-untyped-call]
        except (redis.RedisError, OSError) as error:
            raise _failure(error, address) from error


def _of_node(info: Mapping[str, Any], labels: Mapping[str, str], now: float) -> Iterator[Reading]:
    for field, metric in _NODE.items():
        if field in info:
            yield Reading(Key.of(metric, **labels), float(info[field]), now)
    if info.get("role") == "master":
        yield Reading(Key.of(REDIS_CLUSTER_CONNECTED_REPLICAS, **labels), float(info["connected_slaves"]), now)
    if "master_link_status" in info:
        up = float(info["master_link_status"] == "up")
        yield Reading(Key.of(REDIS_CLUSTER_MASTER_LINK_UP, **labels), up, now)


def _address(at: str, node: Mapping[str, Any], seed: tuple[str, int]) -> tuple[str, int]:
    """Host and port of a node; its name rather than its address, which no certificate has.

    A node that has never met another does not know its own: it is the one that was asked.
    """
    host, _, port = at.rpartition(":")
    return node.get("hostname") or host or seed[0], int(port)


def _failure(error: Exception, address: tuple[str, int]) -> CallError:
    text = f"{address[0]}:{address[1]}: {type(error).__name__}: {error}"[:300]
    match error:
        case redis.AuthenticationError() | redis.exceptions.AuthorizationError() | redis.exceptions.NoPermissionError():
            return CallError(Reason.DENIED, text)
        case redis.TimeoutError() | TimeoutError():
            return CallError(Reason.TIMEOUT, text)
        case redis.ConnectionError() if not isinstance(error.__context__, ssl.SSLError):  # raised without a cause
            return CallError(Reason.OTHER, text, repeatable=True)
        case _:
            return CallError(Reason.OTHER, text)
