"""Prometheus instruments, made from the values of `slo.metrics`.

A name, label or label value that the catalogue does not declare raises here. Every combination that it does is
exposed at 0 from the start: a counter born at its first error would hide that error from `rate()`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import prometheus_client
from prometheus_client.exposition import choose_encoder
from prometheus_client.samples import Sample

from slo.metrics import Counter, Gauge, Histogram, Metric, Selection

# Creation times would double the series of every histogram, and nothing here reads them.
prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]


class Instruments:
    """The instruments of a catalogue, in a registry of their own."""

    def __init__(self, catalogue: Iterable[Metric]) -> None:
        self._registry = prometheus_client.CollectorRegistry()
        self._series: dict[tuple[object, ...], Any] = {}
        for metric in catalogue:
            instrument = self._instrument(metric)
            for labels in metric.label_sets():
                series = instrument.labels(**labels) if labels else instrument
                self._series[_address(metric, labels)] = series

    def count(self, metric: Counter, amount: float, *, trace_id: str | None = None, **labels: str) -> None:
        """Add to a counter; the trace id becomes the exemplar."""
        self._find(metric, labels).inc(amount, _exemplar(trace_id))

    def observe(self, metric: Histogram, value: float, *, trace_id: str | None = None, **labels: str) -> None:
        """Add an observation, in the metric's unit; the trace id becomes the exemplar of its bucket."""
        self._find(metric, labels).observe(value, _exemplar(trace_id))

    def set(self, metric: Gauge, value: float, **labels: str) -> None:
        """Set a gauge."""
        self._find(metric, labels).set(value)

    def counter(self, metric: Counter, **labels: str) -> prometheus_client.Counter:
        """One series, for a caller who adds to it so often that finding it would cost."""
        found: prometheus_client.Counter = self._find(metric, labels)
        return found

    def histogram(self, metric: Histogram, **labels: str) -> prometheus_client.Histogram:
        """One series, as `counter`."""
        found: prometheus_client.Histogram = self._find(metric, labels)
        return found

    def read(self, metric: Gauge, function: Callable[[], float], **labels: str) -> None:
        """Ask the function for a gauge's value at every scrape."""
        self._find(metric, labels).set_function(function)

    def exposition(self, accept: str) -> tuple[bytes, str]:
        """All series and their content type; OpenMetrics, which has exemplars, if the scraper takes it."""
        encode, content_type = choose_encoder(accept)
        return encode(self._registry), content_type

    def samples(self, selection: Selection) -> Iterator[Sample]:
        """The samples of the selected series, as they would be exposed now; those of a histogram tell `le` alone."""
        for labels in selection.metric.label_sets():
            if all(labels[name] in values for name, values in selection.values.items()):
                for family in self._find(selection.metric, labels).collect():
                    yield from family.samples

    def _instrument(self, metric: Metric) -> Any:  # noqa: ANN401 - prometheus_client's kinds share no public base
        names = tuple(metric.labels)
        match metric:
            case Counter():
                return prometheus_client.Counter(metric.name, metric.help, names, registry=self._registry)
            case Gauge():
                return prometheus_client.Gauge(metric.name, metric.help, names, registry=self._registry)
            case Histogram():
                return prometheus_client.Histogram(
                    metric.name, metric.help, names, registry=self._registry, buckets=metric.buckets
                )
        raise TypeError(f"metric {metric.name}: {type(metric).__name__} is no Counter, Gauge or Histogram")

    def _find(self, metric: Metric, labels: dict[str, str]) -> Any:  # noqa: ANN401 - as above
        try:
            return self._series[_address(metric, labels)]
        except KeyError:
            metric.where(**labels)  # says what is wrong with them, if it is them
            raise LookupError(f"metric {metric.name} is not in this catalogue, or {labels} misses a label") from None


def _address(metric: Metric, labels: dict[str, str]) -> tuple[object, ...]:
    return (metric.name, *sorted(labels.items()))


def _exemplar(trace_id: str | None) -> dict[str, str] | None:
    return {"trace_id": trace_id} if trace_id else None
