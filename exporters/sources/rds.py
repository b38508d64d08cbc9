"""RDS: its instances, what they are, their failovers, and what their sessions wait for."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Self

from exporters.calls import CallError
from exporters.cloudwatch import window_end
from exporters.readings import Key, Reading
from exporters.settings import Settings
from exporters.sources import Collected
from exporters.sources.resources import Found, Kind, Place
from slo.metrics.rds import (
    RDS_AVAILABLE,
    RDS_CONNECTIONS,
    RDS_CONNECTIONS_USED,
    RDS_FAILOVERS,
    RDS_INFO,
    RDS_LOAD_BY_WAIT,
    RDS_MEMORY_FREEABLE,
    RDS_MEMORY_FREEABLE_RATIO,
    RDS_METRICS,
    RDS_MULTI_AZ,
    RDS_STORAGE_FREE,
    RDS_STORAGE_FREE_RATIO,
)

# RDS User Guide, "Viewing Amazon RDS DB instance status": states in which the instance takes connections as always.
_AVAILABLE: Final = frozenset({"available", "backing-up", "configuring-enhanced-monitoring", "storage-optimization"})

# RDS-EVENT-0049; the API tells no ids. https://docs.aws.amazon.com/AmazonRDS/latest/UserGuide/USER_Events.Messages.html
_FAILED_OVER = re.compile(r"Multi-AZ instance failover completed", re.IGNORECASE)
_EVENTS_BACK: Final = timedelta(hours=1)

# Default of max_connections: LEAST({DBInstanceClassMemory/9531392}, 5000). RDS User Guide, "Quotas and constraints".
_CONNECTION_BYTES: Final = 9_531_392
_CONNECTIONS_MAX: Final = 5000

# Types of waits that are told at most; PostgreSQL has nine, and CPU is one more. Its API's own limit is 25.
_WAITS_MAX: Final = 25
_LOAD_PERIOD_SECONDS: Final = 60
_LOAD_PERIODS: Final = 3  # the newest may not be there yet

_CLASS = re.compile(r"db\.([a-z0-9-]+\.[a-z0-9-]+)")
_GIB, _MIB = 1024**3, 1024**2


class Rds(Kind):
    """Database instances.

    Args:
        performance_insights: Whether it is asked about those that have it on.
    """

    metrics = RDS_METRICS

    def __init__(self, *, performance_insights: bool = True) -> None:
        self._asks_insights = performance_insights
        self._insights: dict[str, str] = {}  # instance -> what Performance Insights calls it
        self._loads: dict[str, tuple[Reading, ...]] = {}
        self._since: datetime | None = None
        self._counted: dict[tuple[str, datetime], None] = {}
        self._failovers: dict[str, int] = {}
        self._memory_bytes: dict[str, int] = {}  # of an instance class; it never changes
        self._limits: dict[Key, tuple[Key, float, float]] = {}

    @classmethod
    def create(cls, settings: Settings) -> Self:
        """One that asks Performance Insights unless the settings forbid it."""
        return cls(performance_insights=settings.performance_insights)

    def find(self, place: Place) -> Found:
        """Every instance, its state, and the failovers since the last look."""
        tagged = place.tagged("rds")
        instances = [one for one in place.all("rds:DescribeDBInstances") if one["DBInstanceArn"] in tagged]
        errors: list[CallError] = []
        for look in (self._count_failovers, self._learn_classes):
            try:
                look(place, instances)
            except CallError as error:
                errors.append(error)
        facts: list[tuple[Key, float]] = []
        self._limits = {}
        for one in instances:
            labels = place.labels | {"db_instance": one["DBInstanceIdentifier"]}
            facts.extend(self._facts(one, labels))
            self._limits |= self._limits_of(one, labels)
        self._insights = {
            one["DBInstanceIdentifier"]: one["DbiResourceId"]
            for one in instances
            if self._asks_insights and one.get("PerformanceInsightsEnabled")
        }
        resources = [place.labels | {"db_instance": one["DBInstanceIdentifier"]} for one in instances]
        return Found(resources, facts, errors)

    def measure(self, place: Place, *, delay_seconds: float) -> Collected:
        """One question to Performance Insights for each instance that has it on; what fails keeps its last values."""
        self._loads = {name: loads for name, loads in self._loads.items() if name in self._insights}
        end = window_end(place.now(), _LOAD_PERIOD_SECONDS, delay_seconds)
        errors: list[CallError] = []
        for name, resource in self._insights.items():
            try:
                answer = place.ask(
                    "pi:GetResourceMetrics",
                    ServiceType="RDS",
                    Identifier=resource,
                    MetricQueries=[
                        {"Metric": "db.load.avg", "GroupBy": {"Group": "db.wait_event_type", "Limit": _WAITS_MAX}}
                    ],
                    StartTime=end - _LOAD_PERIODS * _LOAD_PERIOD_SECONDS,
                    EndTime=end,
                    PeriodInSeconds=_LOAD_PERIOD_SECONDS,
                    PeriodAlignment="END_TIME",
                )
            except CallError as error:
                errors.append(error)
                continue
            self._loads[name] = tuple(_loads(answer, place.labels | {"db_instance": name}))
        return Collected([one for loads in self._loads.values() for one in loads], errors)

    def derive(self, readings: Mapping[Key, Reading]) -> Iterable[Reading]:
        """What is used or free, as a part of all that there is."""
        for key, (of, added, whole) in self._limits.items():
            if of in readings:
                known = readings[of]
                yield Reading(key, (known.value + added) / whole, known.at)

    def _facts(self, one: Mapping[str, Any], labels: Mapping[str, str]) -> Iterator[tuple[Key, float]]:
        yield Key.of(RDS_AVAILABLE, **labels), float(one["DBInstanceStatus"] in _AVAILABLE)
        yield Key.of(RDS_MULTI_AZ, **labels), float(one.get("MultiAZ", False))
        yield Key.of(RDS_FAILOVERS, **labels), float(self._failovers.get(one["DBInstanceIdentifier"], 0))
        info = {
            "instance_class": one["DBInstanceClass"],
            "engine_version": one["EngineVersion"],
            "availability_zone": one.get("AvailabilityZone", ""),
        }
        yield Key.of(RDS_INFO, **labels, **info), 1.0

    def _limits_of(
        self, one: Mapping[str, Any], labels: Mapping[str, str]
    ) -> Iterator[tuple[Key, tuple[Key, float, float]]]:
        """Of each ratio: the series that it is made from, what is added to that, and the whole."""
        memory = self._memory_bytes.get(_instance_type(one))
        if memory:
            most = min(memory // _CONNECTION_BYTES, _CONNECTIONS_MAX)
            yield Key.of(RDS_CONNECTIONS_USED, **labels), (Key.of(RDS_CONNECTIONS, **labels), 0.0, most)
            yield Key.of(RDS_MEMORY_FREEABLE_RATIO, **labels), (Key.of(RDS_MEMORY_FREEABLE, **labels), 0.0, memory)
        allocated = one.get("AllocatedStorage", 0) * _GIB
        most = max(one.get("MaxAllocatedStorage", 0) * _GIB, allocated)
        if most:
            free = Key.of(RDS_STORAGE_FREE, **labels)
            yield Key.of(RDS_STORAGE_FREE_RATIO, **labels), (free, most - allocated, most)

    def _count_failovers(self, place: Place, instances: Sequence[Mapping[str, Any]]) -> None:
        """Count each event since the start once; RDS may tell of one late."""
        now = datetime.fromtimestamp(place.now(), UTC)
        self._since = self._since or now
        if instances:
            start = now - _EVENTS_BACK
            events = place.all(
                "rds:DescribeEvents",
                SourceType="db-instance",
                EventCategories=["failover"],
                StartTime=start,
                EndTime=now,
            )
            for event in events:
                name, at = event["SourceIdentifier"], event["Date"]
                if at >= self._since and _FAILED_OVER.search(event["Message"]) and (name, at) not in self._counted:
                    self._counted[name, at] = None
                    self._failovers[name] = self._failovers.get(name, 0) + 1
            self._counted = {key: None for key in self._counted if key[1] >= start - _EVENTS_BACK}
        known = {one["DBInstanceIdentifier"] for one in instances}
        self._failovers = {name: count for name, count in self._failovers.items() if name in known}

    def _learn_classes(self, place: Place, instances: Sequence[Mapping[str, Any]]) -> None:
        """Ask EC2 for the memory of classes that are new; an instance class is an instance type of EC2."""
        types = sorted({_instance_type(one) for one in instances} - self._memory_bytes.keys() - {""})
        if types:
            filters = [{"Name": "instance-type", "Values": types}]  # which passes over what it does not know
            for one in place.all("ec2:DescribeInstanceTypes", Filters=filters):
                self._memory_bytes[one["InstanceType"]] = one["MemoryInfo"]["SizeInMiB"] * _MIB


def _loads(answer: Mapping[str, Any], labels: Mapping[str, str]) -> Iterator[Reading]:
    """The newest minute that there is, of each type; the sum of all, which comes without dimensions, is left out."""
    points = {
        one["Key"]["Dimensions"]["db.wait_event_type.name"]: {
            point["Timestamp"].timestamp(): point["Value"] for point in one["DataPoints"] if "Value" in point
        }
        for one in answer["MetricList"]
        if one["Key"].get("Dimensions")
    }
    newest = max((at for values in points.values() for at in values), default=0.0)
    for wait, values in points.items():
        if newest in values:
            yield Reading(Key.of(RDS_LOAD_BY_WAIT, **labels, wait_event_type=wait), values[newest], newest)


def _instance_type(instance: Mapping[str, Any]) -> str:
    found = _CLASS.match(instance["DBInstanceClass"])
    return found[1] if found else ""
