"""Causes: what may soon hurt the users, or explains why they are hurt. A ticket, never a page.

An SLO watches what users feel. A cause watches what stands behind it: a disk that fills, a node that has no room. Who
is paged by an SLO finds the causes that fire at the same time beside it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from enum import StrEnum
from types import MappingProxyType
from typing import TypeAlias

from slo import conventions as names
from slo import promql
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

    @property
    def promql(self) -> str:
        """A query that has a result while something is wrong."""
        return f"{promql.series(self.gauge)} {self.limit}"

    @property
    def limit(self) -> str:
        """`> 0.9` say."""
        return f"> {names.number(self.above)}" if self.above is not None else f"< {names.number(self.below or 0)}"

    def problems(self) -> Iterator[str]:
        """What is wrong with it, one sentence each."""
        if not isinstance(self.gauge.metric, Gauge):
            yield f"{self.gauge.metric.name} is no gauge; a threshold judges a gauge, a query all else"
        if (self.above is None) == (self.below is None):
            yield "a threshold needs exactly one of above and below"


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """PromQL that has a result while something is wrong; where one gauge and one limit cannot say it.

    An example is a series -> its values, minute by minute: `3` stays, `0+60` grows by 60 each minute, for as long as
    the test takes; `0+60x30 1800x40` grows for 30 minutes and then stays, as promtool reads it.

    Attributes:
        promql: The query; its result has a series for each thing that is wrong.
        metrics: Every metric that it reads.
        fires: An example of what is wrong. It becomes a test of the rule.
        near_miss: An example of what is nearly wrong.
    """

    promql: str
    metrics: tuple[Metric, ...]
    fires: Mapping[str, str] = field(hash=False)
    near_miss: Mapping[str, str] = field(hash=False)

    def __post_init__(self) -> None:
        for example in ("fires", "near_miss"):
            object.__setattr__(self, example, MappingProxyType(dict(getattr(self, example))))

    @property
    def limit(self) -> None:
        """The limit is a part of the query."""

    def problems(self) -> Iterator[str]:
        """What is wrong with it, one sentence each."""
        for metric in self.metrics:
            if not re.search(rf"\b{metric.name}(_bucket|_sum|_count)?\b", self.promql):
                yield f"the query does not read {metric.name}"
        if not self.fires or not self.near_miss:
            yield "the query needs an example that fires and one that nearly does"
        for series, values in (*self.fires.items(), *self.near_miss.items()):
            yield from self._problems_of_example(series, values)

    def _problems_of_example(self, series: str, values: str) -> Iterator[str]:
        if not _EXAMPLE_VALUES.fullmatch(values):
            yield f"the example {series} has the values {values!r}; give 3, 0+60, or 0+60x30 1800x40 say"
        name = series.partition("{")[0]
        metric = next((metric for metric in self.metrics if metric.name == name), None)
        if metric is None:
            yield f"the example {series} is of no metric that the query reads"
            return
        labels = dict(_EXAMPLE_LABEL.findall(series))
        declared = {*metric.labels, *metric.open_labels}
        for label in sorted(labels.keys() - declared):
            yield f"the example {series} has the label {label!r}, which {name} has not"
        for label, every in metric.labels.items():
            if label in labels and labels[label] not in every:
                yield f"the example {series}: {label!r} never has the value {labels[label]!r}"


_NUMBER = r"-?\d+(\.\d+)?"
_STEPS = rf"{_NUMBER}([+-]\d+(\.\d+)?)?"
_EXAMPLE_VALUES = re.compile(rf"{_STEPS}|{_STEPS}x\d+( {_STEPS}x\d+)*")
_EXAMPLE_LABEL = re.compile(r'(\w+)="([^"]*)"')

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
        service: The service that it may hurt, whose pages mute it; by default the component has a name of its own.
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
    service: str = ""
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

    @property
    def alert_name(self) -> str:
        """The name of its alert, `RdsStorageLow` say."""
        return names.camel_case(self.id)

    @property
    def labels(self) -> dict[str, str]:
        """The labels of its alert, sorted by name."""
        return {
            "cause": self.name,
            "component": str(self.component),
            "owner": self.owner,
            "service": self.service or str(self.component),
            "severity": "ticket",
            "signal": str(self.signal),
        }

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Uncovered:
    """A signal of a component that nothing watches, on purpose.

    Attributes:
        component: Of what.
        signal: Which of its signals.
        reason: Why nothing is missing.

    Raises:
        SloError: There is no reason.
    """

    component: Component
    signal: Signal
    reason: str

    def __post_init__(self) -> None:
        if not self.reason.endswith("."):
            raise_if_any(
                f"uncovered {self.component}/{self.signal}",
                ["the reason must be one or more sentences that end with a full stop"],
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where metrics of a component come from.

    Attributes:
        component: Of what.
        process: What exposes them, `kube-state-metrics` say.
        metrics: All of them.
        other_names: What another exporter calls the same, where one does.
        other: That other exporter.
    """

    component: Component
    process: str
    metrics: tuple[Metric, ...]
    other_names: Mapping[Metric, str] = field(default_factory=dict, hash=False)
    other: str = ""
