"""The kinds of metrics, and a selection of their series. Each checks itself where it is written."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import product
from types import MappingProxyType
from typing import TypeAlias

from slo.errors import raise_if_any

Labels: TypeAlias = Mapping[str, Sequence[str]]
"""Label name -> every value that the label can take."""

_METRIC_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
_LABEL_NAME = re.compile(r"(?!__)[a-zA-Z_][a-zA-Z0-9_]*")

# From here on clients write an edge with an exponent, each in its own way, and no selector would match them all.
_EDGE_LIMIT = 1_000_000

# https://prometheus.io/docs/instrumenting/writing_exporters/#labels and the ids that our rules set themselves.
_RESERVED_LABELS = frozenset({"le", "quantile", "service", "slo", "severity"})


@dataclass(frozen=True, slots=True, kw_only=True)
class CloudWatch:
    """One of AWS's own metrics that a series of ours is made from; several are added up.

    Attributes:
        namespace: `AWS/RDS` say.
        name: The metric's name in it.
        statistic: `Sum`, `Average`, `Minimum`, `Maximum`, `SampleCount`, `p99` ...
        dimensions: CloudWatch's dimension -> our open label that has its value.
        factor: What makes it a base unit: 0.01 of percent, 0.000001 of microseconds; -1 where it is taken away.
        percent_rank: Another statistic in percent, `PR(:0.3)` say: the value is this share of `statistic`.
        labels: Our closed labels of the series that it goes into.
        period_seconds: How often AWS has a new value.
        region: The one region that has it, `us-east-1` for Route 53; None for the resource's own.
    """

    namespace: str
    name: str
    statistic: str
    dimensions: Mapping[str, str] = field(default_factory=dict, hash=False)
    factor: Decimal = Decimal(1)
    percent_rank: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict, hash=False)
    period_seconds: int = 60
    region: str | None = None

    def __post_init__(self) -> None:
        for mapping in ("dimensions", "labels"):
            object.__setattr__(self, mapping, MappingProxyType(dict(getattr(self, mapping))))


@dataclass(frozen=True)
class Metric:
    """A metric family.

    Attributes:
        name: Name as exposed, with its unit (`_seconds`, `_total`) last.
        help: One sentence for people who see it for the first time.
        labels: Label name -> every value it can take. Bounded by construction: an account or a key is never a label.
        open_labels: Labels whose values are found at run time, the names of instances say; nothing selects by them.
        cloudwatch: Where AWS itself keeps it. Several are added up for each set of labels.
    """

    name: str
    help: str
    labels: Mapping[str, tuple[str, ...]] = field(default_factory=dict, hash=False, kw_only=True)
    open_labels: tuple[str, ...] = field(default=(), kw_only=True)
    cloudwatch: tuple[CloudWatch, ...] = field(default=(), kw_only=True)

    def __post_init__(self) -> None:
        labels = {name: (v,) if isinstance(v, str) else tuple(v) for name, v in self.labels.items()}
        object.__setattr__(self, "labels", MappingProxyType(labels))
        raise_if_any(f"metric {self.name}", self._problems())

    def where(self, **values: str | Sequence[str]) -> Selection:
        """Select the series whose labels have one of the given values; no argument selects all."""
        return Selection(
            self,
            {name: (v,) if isinstance(v, str) else tuple(v) for name, v in values.items()},
        )

    def label_sets(self) -> Iterator[dict[str, str]]:
        """Every combination of label values, in declared order: what a process exports at 0 from its start."""
        for values in product(*self.labels.values()):
            yield dict(zip(self.labels, values, strict=True))

    def _problems(self) -> Iterator[str]:
        if not _METRIC_NAME.fullmatch(self.name):
            yield "the name is not a Prometheus metric name; allowed are letters, digits and _"
        if not self.help.endswith("."):
            yield "the help text must be a sentence that ends with a full stop"
        for label in (*self.labels, *self.open_labels):
            if not _LABEL_NAME.fullmatch(label) or label in _RESERVED_LABELS:
                reserved = ", ".join(sorted(_RESERVED_LABELS))
                yield f"label {label!r} is not allowed; letters, digits and _, none of: {reserved}"
            if label in self.labels and label in self.open_labels:
                yield f"label {label!r} is declared with its values and as an open one"
        for address in self.cloudwatch:
            yield from self._problems_of_address(address)
        for label, values in self.labels.items():
            if not values:
                yield f"label {label!r} declares no value; list every value that it can take"
            if len(set(values)) != len(values):
                yield f"label {label!r} declares a value twice"

    def _problems_of_address(self, address: CloudWatch) -> Iterator[str]:
        subject = f"{address.namespace} {address.name}"
        if not address.factor:
            yield f"{subject}: a factor of 0 leaves nothing of it"
        for dimension, label in address.dimensions.items():
            if label not in self.open_labels:
                yield f"{subject}: dimension {dimension} is the label {label!r}, which is no open label"
        if address.labels.keys() != self.labels.keys():
            yield f"{subject}: must say a value of {_listed(self.labels)}"
        for label, value in address.labels.items():
            if value not in self.labels.get(label, ()):
                yield f"{subject}: label {label!r} never has the value {value!r}"


@dataclass(frozen=True)
class Counter(Metric):
    """A number that only grows; the name ends in `_total`."""

    def _problems(self) -> Iterator[str]:
        yield from super()._problems()
        if not self.name.endswith("_total"):
            yield "a counter's name ends in _total"


@dataclass(frozen=True)
class Gauge(Metric):
    """A number that goes up and down."""

    def _problems(self) -> Iterator[str]:
        yield from super()._problems()
        if self.name.endswith("_total"):
            yield "only a counter's name ends in _total"


@dataclass(frozen=True)
class Histogram(Metric):
    """Observations counted in buckets.

    Attributes:
        buckets: Upper bucket edges in the metric's unit, ascending, without +Inf.
    """

    buckets: tuple[float, ...] = field(kw_only=True)

    def _problems(self) -> Iterator[str]:
        yield from super()._problems()
        if not self.buckets or list(self.buckets) != sorted(set(self.buckets)):
            yield "bucket edges must be given, ascending and without repeats"
        for edge in self.buckets:
            if not math.isfinite(edge) or edge >= _EDGE_LIMIT:
                yield f"the bucket edge {edge} is not allowed; use finite numbers below {_EDGE_LIMIT:,}"


@dataclass(frozen=True)
class Selection:
    """Some series of one metric: those whose labels have one of the given values."""

    metric: Metric
    values: Mapping[str, tuple[str, ...]] = field(hash=False)

    def __post_init__(self) -> None:
        ordered = {name: tuple(sorted(set(self.values[name]))) for name in sorted(self.values)}
        object.__setattr__(self, "values", MappingProxyType(ordered))
        raise_if_any(f"selection from {self.metric.name}", self._problems())

    def _problems(self) -> Iterator[str]:
        for label, values in self.values.items():
            declared = self.metric.labels.get(label)
            if label in self.metric.open_labels:
                yield f"label {label!r} is an open one: its values are known at run time only"
                continue
            if declared is None:
                yield f"unknown label {label!r}; the metric has {_listed(self.metric.labels)}"
                continue
            if not values:
                yield f"label {label!r} selects nothing; give at least one of {_listed(declared)}"
            for value in values:
                if value not in declared:
                    yield f"label {label!r} never has the value {value!r}; it has {_listed(declared)}"


def _listed(names: Sequence[str] | Mapping[str, object]) -> str:
    return ", ".join(repr(name) for name in names) or "no labels"
