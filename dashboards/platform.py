"""The board of what all others stand on: are the exporters, the rules and the way to Alertmanager to be believed?"""

from __future__ import annotations

from collections.abc import Mapping

from grafanalib.core import Dashboard

from dashboards import alerts, board, looks, panels
from dashboards.charts import Chart, Drawing, Look
from slo import conventions as names
from slo.matrix import Definitions
from slo.metrics import exporters, prometheus
from slo.metrics.exporters import EXPORTERS_METRICS
from slo.settings import Links

_SOURCE = ("source", "name")

_EXPORTERS = (
    # Each source has a cause of its own, so each is selected by itself.
    Chart(
        "Whole answers",
        {source: exporters.EXPORTERS_UP.where(source=source) for source in exporters.EXPORTER_SOURCES},
        Look.STATES,
        fold="min",
        by=("name",),
    ),
    Chart("Since the last whole answer", exporters.EXPORTERS_LAST_SUCCESS, Look.AGE, fold="max", by=_SOURCE),
    Chart("Age of the data", exporters.EXPORTERS_DATA_AGE, fold="max", by=_SOURCE),
    Chart("Length of a cycle", exporters.EXPORTERS_CYCLE_DURATION, fold="max", by=_SOURCE),
    Chart("Series", exporters.EXPORTERS_SERIES, fold="sum", by=_SOURCE),
    Chart(
        "Metrics asked of CloudWatch",
        exporters.EXPORTERS_METRICS_REQUESTED,
        by=("source",),
        more="One a second is about 2.6 million a month; AWS bills each.",
    ),
    Chart("Calls", exporters.EXPORTERS_API_CALLS, by=("source", "call")),
    Chart("Calls that failed", exporters.EXPORTERS_API_ERRORS, by=("source", "call", "reason")),
)

_PROMETHEUS: Mapping[str, tuple[Chart, ...]] = {
    "Scrapes": (
        Chart("Targets that answer", prometheus.SCRAPE_UP, Look.STATES),
        Chart("Length of a scrape", prometheus.SCRAPE_DURATION),
        Chart("Samples of a scrape", prometheus.SCRAPE_SAMPLES),
        Chart("Series in memory", prometheus.HEAD_SERIES),
    ),
    "Rules": (
        Chart(
            "Length of an evaluation",
            {"slowest": prometheus.RULE_GROUP_DURATION},
            fold="max",
            by=("rule_group",),
            more="Compare it with the interval of the group.",
        ),
        Chart("Interval of the groups", prometheus.RULE_GROUP_INTERVAL, fold="max", by=("rule_group",)),
        Chart("Since the last evaluation", prometheus.RULE_GROUP_LAST, Look.AGE, fold="max", by=("rule_group",)),
        Chart("Evaluations missed", prometheus.RULE_GROUP_MISSED, by=("rule_group",)),
        Chart("Rules that failed", prometheus.RULE_FAILURES, by=("rule_group",)),
    ),
    "The way to people": (
        Chart("Alerts that wait to be sent", prometheus.NOTIFICATIONS_QUEUED),
        Chart("Alerts given up", prometheus.NOTIFICATIONS_DROPPED, more="Somebody was not told."),
    ),
}


def board_of(defined: Definitions, links: Links) -> Dashboard:
    """The board; exporters are on it where somebody runs them."""
    drawing = Drawing(defined=defined, links=links)
    known = {metric for source in defined.sources for metric in source.metrics}
    parts = {"Exporters": _EXPORTERS, **_PROMETHEUS} if known.issuperset(EXPORTERS_METRICS) else _PROMETHEUS
    rows: list[board.Row] = []
    for title, charts in parts.items():
        rows += [board.heading(title), *board.rows(8, [drawing.panel(chart) for chart in charts])]
    return board.board(
        names.PLATFORM_UID,
        "Exporters and rules",
        "Whether what all other boards show is true and new. For the moment in which a board is empty or too quiet.",
        board.Row(4, _figures()),
        *rows,
        shown="now-6h",
        annotations=[board.annotation("Firing alerts", alerts.every(), "{{alertname}}")],
    )


def _figures() -> list[panels.Panel]:
    missed = prometheus.RULE_GROUP_MISSED.name
    return [
        panels.stat(
            "Targets away",
            "Targets whose last scrape had no answer.",
            f"count({prometheus.SCRAPE_UP.name} == 0) or vector(0)",
            unit=panels.COUNT,
            steps=looks.ANY_IS_BAD,
        ),
        panels.stat(
            "Slowest rules",
            "The longest evaluation of a group, as a share of its interval. From 1 on evaluations are missed.",
            f"max({prometheus.RULE_GROUP_DURATION.name} / {prometheus.RULE_GROUP_INTERVAL.name})",
            unit=panels.SHARE,
            steps=((panels.GOOD, None), (panels.BAD, 1)),
            decimals=1,
        ),
        panels.stat(
            "Missed evaluations",
            "Evaluations of rule groups that did not happen, in the time shown.",
            f"sum(increase({missed}[{panels.TIME_SHOWN}]))",
            unit=panels.COUNT,
            steps=looks.ANY_IS_BAD,
        ),
        panels.stat(
            "Rules failed",
            "Evaluations that failed, in the time shown.",
            f"sum(increase({prometheus.RULE_FAILURES.name}[{panels.TIME_SHOWN}]))",
            unit=panels.COUNT,
            steps=looks.ANY_IS_BAD,
        ),
    ]
