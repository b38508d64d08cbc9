"""ElastiCache: its replication groups, their shards and nodes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from exporters.readings import Key, Reading, label_names
from exporters.sources.resources import Found, Kind, Place
from slo.metrics.redis import (
    ELASTICACHE_AUTOMATIC_FAILOVER,
    ELASTICACHE_AVAILABLE,
    ELASTICACHE_FAILOVERS,
    ELASTICACHE_METRICS,
    ELASTICACHE_PRIMARY,
)


class ElastiCache(Kind):
    """Replication groups."""

    metrics = ELASTICACHE_METRICS

    def __init__(self) -> None:
        self._shards: dict[Key, None] = {}
        self._primaries: dict[Key, str] = {}
        self._failovers: dict[Key, int] = {}

    def find(self, place: Place) -> Found:
        """Every group, its state, and its nodes."""
        tagged = place.tagged("elasticache")
        resources: list[dict[str, str]] = []
        facts: list[tuple[Key, float]] = []
        self._shards = {}
        for group in place.all("elasticache:DescribeReplicationGroups"):
            if group["ARN"] not in tagged:
                continue
            labels = place.labels | {"replication_group": group["ReplicationGroupId"]}
            facts.append((Key.of(ELASTICACHE_AVAILABLE, **labels), float(group["Status"] == "available")))
            enabled = float(group.get("AutomaticFailover") == "enabled")
            facts.append((Key.of(ELASTICACHE_AUTOMATIC_FAILOVER, **labels), enabled))
            for shard in group.get("NodeGroups", ()):
                name = {"shard": shard["NodeGroupId"]}
                self._shards[Key.of(ELASTICACHE_FAILOVERS, **labels, **name)] = None
                members = shard.get("NodeGroupMembers", ())
                resources.extend(labels | name | {"node": member["CacheClusterId"]} for member in members)
        self._primaries = {key: node for key, node in self._primaries.items() if key in self._shards}
        self._failovers = {key: count for key, count in self._failovers.items() if key in self._shards}
        return Found(resources, facts)

    def derive(self, readings: Mapping[Key, Reading]) -> Iterable[Reading]:
        """Count when another node is the primary of a shard.

        With cluster mode the API tells no roles, only CloudWatch does (IsMaster). A shard with two primaries for a
        minute, while they change, is looked at again in the next.
        """
        primaries: dict[Key, list[Reading]] = {key: [] for key in self._shards}
        for reading in readings.values():
            if reading.key.metric is ELASTICACHE_PRIMARY:
                labels = dict(zip(label_names(ELASTICACHE_PRIMARY), reading.key.values, strict=True))
                node = labels.pop("node")
                shard = Key.of(ELASTICACHE_FAILOVERS, **labels)
                if shard in primaries:
                    primaries[shard].append(Reading(Key(ELASTICACHE_PRIMARY, (node,)), reading.value, reading.at))
        for shard, nodes in primaries.items():
            if not nodes:
                continue
            newest = max(one.at for one in nodes)
            now_primary = [one.key.values[0] for one in nodes if one.value > 0 and one.at == newest]
            if len(now_primary) == 1:
                before = self._primaries.setdefault(shard, now_primary[0])
                if before != now_primary[0]:
                    self._failovers[shard] = self._failovers.get(shard, 0) + 1
                    self._primaries[shard] = now_primary[0]
            yield Reading(shard, float(self._failovers.get(shard, 0)), newest)
