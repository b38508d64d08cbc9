"""From a metric of the catalogue to a panel.

A chart says what is shown together and how. All else follows from the metric: its query from its kind, its unit from
the end of its name, its description from its help, its thresholds and links from the causes and promises that judge it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from enum import Enum, auto

from grafanalib import core

from dashboards import board, panels
from dashboards.limits import Judged, Limit, judged, limits_of, steps, steps_of_states
from slo import conventions as names
from slo import promql
from slo.causes import Cause, Query
from slo.matrix import Definitions
from slo.metrics import Counter, Histogram, Metric, Selection
from slo.metrics.aws import AWS_LABELS
from slo.model import Slo
from slo.settings import Links

NOTHING_DEFINED = Definitions()

_LIMIT = "limit"  # the name of what others are not to exceed, and drawn so
_QUANTILES = ("0.5", "0.95", "0.99")
_CLOUDWATCH_STEP = "1m"  # AWS has one value a minute; a shorter step would draw its gaps
# A state that nobody judges is neither good nor bad.
_NO_JUDGEMENT: panels.Steps = ((panels.PLAIN, None), ("blue", 1))


class Look(Enum):
    """How a chart shows its figures."""

    LINES = auto()
    """Gauges as they are, counters by the second, histograms by their quantiles."""
    STATES = auto()
    """A bar for each series, which tells when it was 1."""
    AGE = auto()
    """How long ago a gauge's time was; nothing where it is 0."""
    SPREAD = auto()
    """A histogram's buckets over time."""


@dataclass(frozen=True, slots=True)
class Chart:
    """What one panel shows.

    Attributes:
        title: Heading.
        of: A metric or some of its series; or several, each with its name.
        look: How.
        fold: How series become fewer, `max` say; empty to show each. Rates are always added up.
        by: The labels that are kept then; by default the catalogue's, but for those of the account.
        more: What to do with it, after what the metric's help says.
    """

    title: str
    of: Metric | Selection | Mapping[str, Metric | Selection] = field(hash=False)
    look: Look = Look.LINES
    fold: str = ""
    by: tuple[str, ...] | None = None
    more: str = ""

    @property
    def selections(self) -> dict[str, Selection]:
        """What is shown, by name; the name is empty for one alone."""
        several = self.of if isinstance(self.of, Mapping) else {"": self.of}
        return {name: one.where() if isinstance(one, Metric) else one for name, one in several.items()}


@dataclass(frozen=True, slots=True)
class Choice:
    """What people choose on a board.

    Attributes:
        label: The label that tells, also the variable's name. Metrics without it are shown whole.
        title: What it is called.
        metric: A metric that every one of them has.
    """

    label: str
    title: str
    metric: Metric

    @property
    def variable(self) -> core.Template:
        """The variable; at first all are chosen."""
        return board.label_variable(self.label, self.title, self.metric.name, self.label, several=True)

    def narrowed(self, selector: str, metric: Metric) -> str:
        """The selector of a metric's series, of the chosen ones only."""
        if self.label not in metric.open_labels and self.label not in _OF_EVERY_TARGET:
            return selector
        chosen = f'{self.label}=~"{board.variable(self.label)}"'
        return f"{selector[:-1]}, {chosen}}}" if selector.endswith("}") else f"{selector}{{{chosen}}}"


# What Prometheus itself puts on every series (https://prometheus.io/docs/concepts/jobs_instances/).
_OF_EVERY_TARGET = frozenset({"job", "instance"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """What a board's panels have in common.

    Attributes:
        defined: The causes and promises that judge.
        links: Where runbooks are.
        choice: What people choose; None for nothing.
        further: Links that every panel has.
    """

    defined: Definitions
    links: Links
    choice: Choice | None = None
    further: tuple[panels.Link, ...] = ()

    def panel(self, chart: Chart) -> panels.Panel:
        """The panel of a chart."""
        selections = chart.selections
        metrics = list(dict.fromkeys(one.metric for one in selections.values()))
        limits = [limit for one in selections.values() for limit in limits_of(one, self.defined)]
        texts = [*(metric.help for metric in metrics), chart.more, *(limit.words for limit in limits)]
        description = " ".join(text for text in texts if text)
        links = [*self._links(limits), *self.further]
        step_min = _CLOUDWATCH_STEP if any(metric.cloudwatch for metric in metrics) else ""
        queries = [query for name, selection in selections.items() for query in self._queries(chart, name, selection)]
        match chart.look:
            case Look.STATES:
                bars = steps_of_states(limits) if limits else _NO_JUDGEMENT
                return panels.states(chart.title, description, *queries, steps=bars, links=links, step_min=step_min)
            case Look.SPREAD:
                return panels.heatmap(chart.title, description, queries[0], unit=unit_of(metrics[0]), links=links)
            case Look.LINES | Look.AGE:
                return panels.timeseries(
                    chart.title,
                    description,
                    *queries,
                    unit=panels.SECONDS if chart.look is Look.AGE else unit_of(metrics[0]),
                    steps=steps(limits),
                    styles=[panels.Style(f"^{_LIMIT}\\b", panels.WARN, dashed=True)] if _LIMIT in selections else (),
                    links=links,
                    step_min=step_min,
                )

    def cause(self, cause: Cause, query: Query) -> panels.Panel:
        """The figure that a cause's query judges, and its limit."""
        found = judged(query)
        description = f"{cause.summary} {cause.alert_name} fires when it holds for {names.duration(cause.hold)}"
        # Both sides stay as the rule has them, so what is drawn is what is judged.
        queries = [panels.Query(found.figure, "__auto")]
        limits: list[Limit] = []
        if isinstance(found.limit, Decimal):
            limits = [Limit(value=found.limit, above=found.above, of=cause)]
            description += f": {'above' if found.above else 'at or below'} {names.number(found.limit)}"
        else:
            queries.append(panels.Query(found.limit, _LIMIT))
            description += f": {'above' if found.above else 'below'} the dashed line"
        if found.more:
            description += f", {found.more}"
        return panels.timeseries(
            _title(cause),
            f"{description}. {cause.reason}",
            *queries,
            unit=_unit_of_figure(found, query),
            steps=steps(limits),
            styles=[panels.Style(f"^{_LIMIT}$", panels.WARN, dashed=True)] if len(queries) > 1 else (),
            links=[self._runbook(cause), *self.further],
            step_min=_CLOUDWATCH_STEP if any(metric.cloudwatch for metric in query.metrics) else "",
        )

    def _links(self, limits: Sequence[Limit]) -> Iterator[panels.Link]:
        for one in dict.fromkeys(limit.of for limit in limits):
            match one:
                case Cause() as cause:
                    yield self._runbook(cause)
                case Slo() as slo:
                    chosen = {"service": slo.service, "slo": slo.name}
                    yield panels.Link(f"Promise {slo.id_path}", panels.board_url(names.DETAIL_UID, chosen))

    def _runbook(self, cause: Cause) -> panels.Link:
        url = f"{self.links.runbooks}/{names.runbook_file(cause.alert_name)}"
        return panels.Link(f"Runbook of {cause.alert_name}", url)

    def _queries(self, chart: Chart, name: str, selection: Selection) -> Iterator[panels.Query]:
        metric = selection.metric
        if isinstance(metric, Histogram):
            yield from self._of_histogram(chart, name, selection)
            return
        selector = self._chosen(promql.series(selection), metric)
        labels = _labels(chart, selection)
        if isinstance(metric, Counter):
            expr = _folded("sum", labels, f"rate({selector}[{panels.RATE_INTERVAL}])")
        elif chart.look is Look.AGE:
            expr = _folded(chart.fold, labels, f"time() - ({selector} > 0)")
        else:
            expr = _folded(chart.fold, labels, selector)
        yield panels.Query(expr, _legend(name or ("" if labels else chart.title), labels))

    def _of_histogram(self, chart: Chart, name: str, selection: Selection) -> Iterator[panels.Query]:
        metric = selection.metric
        buckets = self._chosen(promql.series(selection, "_bucket"), metric)
        labels = chart.by or ()
        rate = f"sum by ({', '.join(('le', *labels))}) (rate({buckets}[{panels.RATE_INTERVAL}]))"
        if chart.look is Look.SPREAD:
            yield panels.Query(rate, "{{le}}", exemplars=True)
            return
        # With labels to compare, one quantile is enough: the slow ones are what matters.
        for quantile in _QUANTILES[-1:] if labels else _QUANTILES:
            percentile = f"p{names.number(Decimal(quantile) * 100)}"
            legend = _legend(" ".join(text for text in (name, percentile) if text), labels)
            yield panels.Query(f"histogram_quantile({quantile}, {rate})", legend, exemplars=quantile == _QUANTILES[-1])

    def _chosen(self, selector: str, metric: Metric) -> str:
        return self.choice.narrowed(selector, metric) if self.choice else selector


def _title(cause: Cause) -> str:
    words = [word.upper() if word in _ACRONYMS else word for word in cause.name.split("-")]
    return " ".join([words[0][:1].upper() + words[0][1:], *words[1:]])


_ACRONYMS = frozenset({"cpu", "tls", "wal"})


def unit_of(metric: Metric) -> str:
    """Grafana's unit for a metric: a counter is shown by the second, all else in what its name ends in."""
    if isinstance(metric, Counter):
        return panels.PER_SECOND
    return next((unit for end, unit in _UNITS.items() if metric.name.endswith(end)), panels.COUNT)


_UNITS = {
    "_per_second": panels.PER_SECOND,
    "_ratio": panels.SHARE,
    "_seconds": panels.SECONDS,
    "_bytes": panels.BYTES,
}


def _unit_of_figure(found: Judged, query: Query) -> str:
    figure = re.sub(r'"[^"]*"', "", found.figure)
    if "/ rate(" in figure:  # how many, by how many a second
        return panels.SECONDS
    if "/" in figure:
        return panels.SHARE
    if "increase(" in figure:
        return panels.COUNT
    return unit_of(query.metrics[0])


def _labels(chart: Chart, selection: Selection) -> tuple[str, ...]:
    """The labels that tell the series of a query apart."""
    if chart.by is not None:
        return chart.by
    fixed = {label for label, values in selection.values.items() if len(values) == 1}
    closed = tuple(label for label in selection.metric.labels if label not in fixed)
    if chart.fold:
        return closed
    return (*(label for label in selection.metric.open_labels if label not in AWS_LABELS), *closed)


def _folded(function: str, labels: tuple[str, ...], expr: str) -> str:
    if not function:
        return expr
    return f"{function} by ({', '.join(labels)}) ({expr})" if labels else f"{function}({expr})"


def _legend(name: str, labels: Sequence[str]) -> str:
    return " ".join(text for text in (name, *(f"{{{{{label}}}}}" for label in labels)) if text)
