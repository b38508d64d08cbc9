"""The harness's Valkey Cluster is a whole one, plain or with TLS, and it can be hurt."""

from __future__ import annotations

import os
import shutil
import ssl
from collections.abc import Callable
from urllib.parse import urlsplit

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from drills.harness.process import HarnessError
from drills.harness.valkey import ValkeyCluster, valkey_cluster

Gone = Callable[..., bool]

ONCE = Retry(NoBackoff(), 0)

needs_redis_server = pytest.mark.skipif(
    shutil.which("redis-server") is None and not os.environ.get("CI"),
    reason="redis-server is missing: apt-get install redis-server",
)


def _client(cluster: ValkeyCluster) -> redis.RedisCluster:
    parts = urlsplit(cluster.url)
    host, port = parts.netloc.split(",")[0].split(":")
    tls = {"ssl": True, "ssl_ca_certs": str(cluster.ca_file)} if cluster.ca_file else {}
    return redis.RedisCluster(host=host, port=int(port), **tls)  # type: ignore[arg-type] # what tls holds fits


def test_a_replica_takes_over(gone: Gone) -> None:
    """Six nodes are one cluster; a replica serves what a dead master held; then all are gone."""
    with valkey_cluster() as cluster:
        assert [each["role"] for each in cluster.info("replication")] == ["master"] * 3 + ["slave"] * 3
        with _client(cluster) as client:
            names = [f"key-{number}" for number in range(30)]
            for name in names:
                client.set(name, "here")
            assert client.wait(1, 5000, target_nodes=redis.RedisCluster.PRIMARIES)
        cluster.kill_master(0)
        assert not cluster.masters[0].alive
        cluster.wait_until_whole()
        with _client_of_living(cluster) as client:
            assert [client.get(name) for name in names] == [b"here"] * 30
    assert all(gone(process) for process in cluster.nodes)


def _client_of_living(cluster: ValkeyCluster) -> redis.RedisCluster:
    return redis.RedisCluster(host="127.0.0.1", port=cluster.masters[1].ports[0])


def test_frozen_nodes_do_not_answer_until_thawed() -> None:
    """Freezing keeps connections and stops answers; thawing goes on; and a frozen cluster still ends in order."""
    with valkey_cluster(masters=1, replicas=0) as cluster:
        [process] = cluster.nodes
        impatient = redis.Redis(host="127.0.0.1", port=process.ports[0], socket_timeout=0.5, retry=ONCE)
        with impatient as client:
            client.set("key", "here")
            cluster.freeze_all()
            with pytest.raises(redis.TimeoutError):
                client.get("key")
            cluster.thaw_all()
            cluster.wait_until_whole()
            assert client.get("key") == b"here"
        cluster.freeze_all()
    assert not process.alive


@needs_redis_server
def test_a_cluster_with_tls_speaks_nothing_else() -> None:
    """Who trusts the cluster's authority gets in; who does not, or speaks plainly, does not."""
    with valkey_cluster(masters=1, replicas=0, tls=True) as cluster:
        [process] = cluster.nodes
        assert cluster.url == f"rediss://127.0.0.1:{process.ports[0]}"
        with cluster.node(process) as trusting:
            assert trusting.ping()
        with (
            redis.Redis(host="127.0.0.1", port=process.ports[0], ssl=True, retry=ONCE) as doubting,
            pytest.raises(redis.ConnectionError, match=r"(?i)certificate"),
        ):
            doubting.ping()
        with (
            redis.Redis(host="127.0.0.1", port=process.ports[0], retry=ONCE) as plain,
            pytest.raises((redis.ConnectionError, ssl.SSLError)),
        ):
            plain.ping()


def test_a_missing_server_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a server that has TLS, the error says which package brings it."""
    monkeypatch.setenv("PATH", "")
    with pytest.raises(HarnessError, match="apt-get install redis-server"), valkey_cluster(tls=True):
        pytest.fail("it started")
