"""What a real cluster says of itself, and what of it is told when nodes are lost."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from drills.harness import ValkeyCluster, valkey_cluster
from exporters.calls import Calls
from exporters.settings import Redis
from exporters.sources.redis_info import RedisCluster
from exporters.unit import Unit
from tests.exporters.fakes import Clock, log
from tests.exporters.test_units import scraped


@pytest.fixture(scope="module")
def cluster() -> Iterator[ValkeyCluster]:
    """Three masters with a replica each."""
    with valkey_cluster() as running:
        yield running


def seeds(cluster: ValkeyCluster) -> tuple[tuple[str, int], ...]:
    """All its nodes."""
    return tuple(("127.0.0.1", process.ports[0]) for process in cluster.nodes)


def asked(settings: Redis) -> tuple[dict[str, float], list[dict[str, object]]]:
    """What a cycle brings, and what it logs."""
    told, lines = log()
    clock = Clock(time.time())
    calls = Calls(clock, attempts_max=2, retries_max=4)
    name = {"source": "redis", "aws_account_id": "", "aws_region": "", "name": settings.cluster}
    unit = Unit(name, RedisCluster(settings, calls), calls, told, period_seconds=60)
    unit.cycle()
    return scraped([unit], clock), lines()


def test_a_whole_cluster(cluster: ValkeyCluster) -> None:
    """Every slot is served, every node is up, masters have replicas and replicas hear them. One seed is enough."""
    found, lines = asked(Redis(cluster="redemption", seeds=seeds(cluster)[-1:], tls=False, timeout_seconds=20))

    assert not lines
    assert found["redis_cluster_state_ok{redemption}"] == 1
    assert found["redis_cluster_slots_assigned{redemption}"] == 16_384
    assert found["redis_cluster_slots_ok{redemption}"] == 16_384
    assert found["redis_cluster_slots_fail{redemption}"] == 0
    assert found["redis_cluster_known_nodes{redemption}"] == 6
    nodes = [f"redemption,127.0.0.1:{port}" for _, port in seeds(cluster)]
    assert [found[f"redis_cluster_node_up{{{node}}}"] for node in nodes] == [1] * 6
    assert [found[f"redis_cluster_connected_replicas{{{node}}}"] for node in nodes[:3]] == [1] * 3
    assert [found[f"redis_cluster_master_link_up{{{node}}}"] for node in nodes[3:]] == [1] * 3
    assert f"redis_cluster_master_link_up{{{nodes[0]}}}" not in found
    assert all(found[f"redis_cluster_memory_used_bytes{{{node}}}"] > 100_000 for node in nodes)
    assert found["exporters_up{redis,redemption}"] == 1


def test_a_wrong_password_is_denied_and_never_shown(cluster: ValkeyCluster, tmp_path: Path) -> None:
    """The fault is told with the node's own words, and without what was sent."""
    file = tmp_path / "password"
    file.write_text("made-up-secret\n")
    settings = Redis(
        cluster="redemption", seeds=seeds(cluster)[:1], tls=False, user="nobody", password_file=file, timeout_seconds=20
    )

    found, lines = asked(settings)

    assert found["exporters_up{redis,redemption}"] == 0
    assert not [name for name in found if name.startswith("redis_")]
    assert [line["reason"] for line in lines] == ["denied"]
    assert "made-up-secret" not in str(lines)


def test_lost_nodes(cluster: ValkeyCluster) -> None:
    """A dead node is down at once, as an error until the cluster knows it too; another seed answers. Runs last."""
    settings = Redis(cluster="redemption", seeds=seeds(cluster), tls=False, timeout_seconds=20)
    dead = f"redemption,127.0.0.1:{seeds(cluster)[0][1]}"
    cluster.kill_master(0)

    found, lines = asked(settings)
    assert found[f"redis_cluster_node_up{{{dead}}}"] == 0
    assert found["exporters_up{redis,redemption}"] == 0
    assert {line["reason"] for line in lines} <= {"other", "timeout"}

    cluster.wait_until_whole()
    found, _ = asked(Redis(cluster="redemption", seeds=seeds(cluster)[1:], tls=False, timeout_seconds=20))
    assert found[f"redis_cluster_node_up{{{dead}}}"] == 0
    assert found["redis_cluster_state_ok{redemption}"] == 1
    assert found["exporters_up{redis,redemption}"] == 1, "who is known to be lost is told, and not asked"


@pytest.mark.skipif(
    shutil.which("redis-server") is None and not os.environ.get("CI"),
    reason="redis-server, the one with TLS, is missing: apt-get install redis-server",
)
def test_tls_is_verified() -> None:
    """With the right authority all nodes tell; with another one, the system's, or without TLS nobody is believed."""
    with (
        valkey_cluster(masters=1, replicas=0, tls=True) as cluster,
        valkey_cluster(masters=1, replicas=0, tls=True) as stranger,
    ):
        trusting = Redis(cluster="redemption", seeds=seeds(cluster), ca_file=cluster.ca_file, timeout_seconds=20)
        found, lines = asked(trusting)
        assert not lines, lines
        assert found["exporters_up{redis,redemption}"] == 1
        assert found["redis_cluster_state_ok{redemption}"] == 1
        assert found[f"redis_cluster_node_up{{redemption,127.0.0.1:{seeds(cluster)[0][1]}}}"] == 1

        for ca_file in (stranger.ca_file, None):
            found, (line,) = asked(replace(trusting, ca_file=ca_file))
            assert found["exporters_up{redis,redemption}"] == 0
            assert not [name for name in found if name.startswith("redis_")]
            assert (line["event"], line["call"], line["reason"]) == ("call failed", "CLUSTER INFO", "other")
            assert "CERTIFICATE_VERIFY_FAILED" in str(line["error"])
            assert found["exporters_api_calls_total{redis,redemption,CLUSTER INFO}"] == 1, "again would not help"

        found, (line,) = asked(replace(trusting, tls=False, ca_file=None))
        assert found["exporters_up{redis,redemption}"] == 0
        assert (line["event"], line["reason"]) == ("call failed", "other")


def test_nobody_answers() -> None:
    """Without any seed nothing is known, and that is told by seed."""
    found, lines = asked(Redis(cluster="redemption", seeds=(("127.0.0.1", 9), ("127.0.0.1", 10)), tls=False))

    assert found["exporters_up{redis,redemption}"] == 0
    assert [line["call"] for line in lines] == ["CLUSTER INFO"]
    assert not [name for name in found if name.startswith("redis_")]
