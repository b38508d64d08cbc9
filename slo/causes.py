"""Causes: what may soon hurt the users, or explains why they are hurt. A ticket, never a page.

An SLO watches what users feel. A cause watches what stands behind it: a disk that fills, a node that has no room. Who
is paged by an SLO finds the causes that fire at the same time beside it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from enum import StrEnum
from typing import TypeAlias

from slo.errors import raise_if_any
from slo.metrics import Gauge, Metric, Selection


class Component(StrEnum):
    """What the redemption stands on, and itself."""

    SERVICE = "service"
    RDS = "rds"
    REDIS = "redis"
    EKS = "eks"
    EDGE = "edge"
    QUEUE = "queue"


class Signal(StrEnum):
    """The four golden signals (https://sre.google/sre-book/monitoring-distributed-systems/)."""

    LATENCY = "latency"
    TRAFFIC = "traffic"
    ERRORS = "errors"
    SATURATION = "saturation"


@dataclass(frozen=True, slots=True, kw_only=True)
class Threshold:
    """A gauge beyond a limit; each of its series by itself.

    Attributes:
        gauge: The series.
        above: Wrong above this. Give this or `below`.
        below: Wrong below this.
    """

    gauge: Selection
    above: Decimal | None = None
    below: Decimal | None = None

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """What it reads."""
        return (self.gauge.metric,)

    def problems(self) -> Iterator[str]:
        """What is wrong with it, one sentence each."""
        if not isinstance(self.gauge.metric, Gauge):
            yield f"{self.gauge.metric.name} is no gauge; a threshold judges a gauge, a query all else"
        if (self.above is None) == (self.below is None):
            yield "a threshold needs exactly one of above and below"


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """PromQL that has a result while something is wrong; where one gauge and one limit cannot say it.

    Attributes:
        promql: The query; its result has a series for each thing that is wrong.
        metrics: Every metric that it reads.
    """

    promql: str
    metrics: tuple[Metric, ...]

    def problems(self) -> Iterator[str]:
        """What is wrong with it, one sentence each."""
        for metric in self.metrics:
            if not re.search(rf"\b{metric.name}(_bucket|_sum|_count)?\b", self.promql):
                yield f"the query does not read {metric.name}"


Condition: TypeAlias = Threshold | Query

_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """A condition that somebody must look at in working hours.

    Attributes:
        component: Of what.
        signal: Which of its golden signals tells.
        name: Name within the component, `storage-low` say.
        summary: What is wrong, in one sentence, as the alert says it.
        condition: When.
        hold: For how long before somebody is told.
        reason: Why this limit and this hold, with the source.
        owner: The team that answers for it.
        diagnosis: Commands that tell more, each with its comment.
        mitigation: What helps, with its risk.

    Raises:
        SloError: A value is not allowed.
    """

    component: Component
    signal: Signal
    name: str
    summary: str
    condition: Condition
    hold: timedelta
    reason: str
    owner: str
    diagnosis: tuple[str, ...] = field(default=())
    mitigation: str = ""

    def __post_init__(self) -> None:
        raise_if_any(f"cause {self.id_path}", self._problems())

    @property
    def id(self) -> str:
        """`component-name`."""
        return f"{self.component}-{self.name}"

    @property
    def id_path(self) -> str:
        """`component/name`, which people type and read."""
        return f"{self.component}/{self.name}"

    def _problems(self) -> Iterator[str]:
        if not _NAME.fullmatch(self.name):
            yield f"the name {self.name!r} is not allowed; small letters and digits in words joined by '-'"
        for what in ("summary", "reason", "mitigation"):
            if not getattr(self, what).endswith("."):
                yield f"the {what} must be one or more sentences that end with a full stop"
        if not self.owner.strip():
            yield "the owner is empty; say who answers for it"
        if self.hold <= timedelta(0):
            yield f"the hold is {self.hold}; it must be longer than nothing, or a single scrape tells somebody"
        if not self.diagnosis:
            yield "there is no diagnosis; give at least one command"
        yield from self.condition.problems()
