"""A value of a series, and when it was true."""

from __future__ import annotations

from dataclasses import dataclass

from slo.metrics import Metric


@dataclass(frozen=True, slots=True)
class Key:
    """Which series.

    Attributes:
        metric: Its metric.
        values: The values of its labels, in the order of `label_names`.
    """

    metric: Metric
    values: tuple[str, ...]

    @classmethod
    def of(cls, metric: Metric, **labels: str) -> Key:
        """The series with these labels.

        Raises:
            ValueError: They are not the labels of the metric.
        """
        names = label_names(metric)
        if labels.keys() != set(names):
            raise ValueError(f"metric {metric.name}: has the labels {', '.join(names)}, not {', '.join(labels)}")
        return cls(metric, tuple(labels[name] for name in names))


@dataclass(frozen=True, slots=True)
class Reading:
    """A value.

    Attributes:
        key: Of which series.
        value: In the metric's unit.
        at: Unix time up to which it is known: the end of CloudWatch's minute, or when it was read.
    """

    key: Key
    value: float
    at: float


def label_names(metric: Metric) -> tuple[str, ...]:
    """The labels of a metric's series: those with listed values, then the open ones."""
    return (*metric.labels, *metric.open_labels)
