"""The house look: every panel of every board is made here, and looks and behaves like its like.

A panel has a title, a description that says what the figure is and what to do with it, a unit, and a query against
the datasource that the board's reader has chosen. This module knows Grafana and no SLO.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from string import ascii_uppercase
from typing import Any, TypeAlias

from grafanalib import core

# --- colours and units ----------------------------------------------------------------------------------------------

GOOD, WARN, BAD, PLAIN = "green", "orange", "red", "text"

# Grafana's ids of units, https://github.com/grafana/grafana/blob/main/packages/grafana-data/src/valueFormats
SHARE = "percentunit"  # 0 to 1, shown as percent
TIMES = "suffix:x"
COUNT = "short"
PER_SECOND = "cps"
SECONDS = "s"
BYTES = "bytes"  # of 1024
WORDS = "string"

Panel: TypeAlias = core.Panel

Steps: TypeAlias = Sequence[tuple[str, Decimal | int | None]]
"""Thresholds, ascending: a colour and the value from which it holds; `None` for the first."""

NO_STEPS: Steps = ((PLAIN, None),)

_NO_TINT = {GOOD: "transparent"}  # behind lines: only what is wrong is to be seen

# --- queries --------------------------------------------------------------------------------------------------------

DATASOURCE = "datasource"  # the variable
PLAIN_DATASOURCE = f"${{{DATASOURCE}}}"

TIME_SHOWN = "$__range"  # the length of the time that the board shows, for a range selector
RATE_INTERVAL = "$__rate_interval"  # at least four scrapes, and no point between two steps is left out


@dataclass(frozen=True, slots=True)
class Query:
    """A PromQL query and the name of its series, `{{label}}` allowed.

    Attributes:
        expr: PromQL.
        legend: The name.
        exemplars: Draw the traces that the scraper kept of single events; a click leads to each.
    """

    expr: str
    legend: str
    exemplars: bool = False


# --- links ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Link:
    """A link from a value or a panel.

    Attributes:
        title: What opens.
        url: Where; Grafana fills in `column(...)`, the datasource and the time.
    """

    title: str
    url: str


TIME_FROM, TIME_TO = "${__from:date:iso}", "${__to:date:iso}"  # the time that the board shows


def column(title: str) -> str:
    """The value of another column of the same row, within a link."""
    return f"${{__data.fields.{title}}}"


def board_url(uid: str, variables: Mapping[str, str]) -> str:
    """Another board, with the same datasource and time; relative, so that it works below any address of Grafana."""
    values = "".join(f"&var-{name}={value}" for name, value in variables.items())
    return f"/d/{uid}/{uid}?${{{DATASOURCE}:queryparam}}{values}&${{__url_time_range}}"


# --- panels ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Style:
    """How some series of a panel differ from the rest.

    Attributes:
        series: A regular expression for the series' names.
        colour: Their colour.
        dashed: For a limit, as opposed to a measurement.
    """

    series: str
    colour: str
    dashed: bool = False


def timeseries(  # noqa: PLR0913 - a panel's properties, all by name
    title: str,
    description: str,
    *queries: Query,
    unit: str,
    steps: Steps = NO_STEPS,
    styles: Sequence[Style] = (),
    stacked: bool = False,
    links: Sequence[Link] = (),
    step_min: str = "",
) -> core.TimeSeries:
    """Figures over time.

    Args:
        title: What it shows.
        description: What the figure is, and what to do with it.
        queries: One or more.
        unit: Grafana's id of the unit.
        steps: Thresholds; what is beyond them is tinted, and their edges are dashed lines.
        styles: Series that look different.
        stacked: Areas on top of each other.
        links: Where a click on a line leads.
        step_min: The shortest time between two points, `1m` say; by default that between two scrapes.
    """
    return core.TimeSeries(
        title=title,
        description=description,
        dataSource=PLAIN_DATASOURCE,
        targets=_targets(queries, instant=False, step_min=step_min),
        unit=unit,
        thresholds=_steps([(_NO_TINT.get(colour, colour), value) for colour, value in steps]),
        thresholdsStyleMode="dashed+area" if len(steps) > 1 else "off",
        overrides=[_styled(style) for style in styles],
        stacking={"group": "A", "mode": "normal"} if stacked else {},
        fillOpacity=30 if stacked else 0,
        axisSoftMin=0,  # lower only where values are
        showPoints="never",
        tooltipMode="multi",
        tooltipSort="desc",
        legendDisplayMode="table",
        legendCalcs=["lastNotNull", "max"],
        maxDataPoints=None,
        extraJson=_linked(links),
    )


def stat(  # noqa: PLR0913 - a panel's properties, all by name
    title: str,
    description: str,
    expr: str,
    *,
    unit: str,
    steps: Steps = NO_STEPS,
    decimals: int | None = None,
    none: str = "no data",
) -> core.Stat:
    """One figure, now; `none` is what it says without a value."""
    return core.Stat(
        title=title,
        description=description,
        dataSource=PLAIN_DATASOURCE,
        targets=_targets([Query(expr, title)], instant=True),
        format=unit,
        thresholds=_steps(steps),
        color={"mode": "thresholds"},
        decimals=decimals,
        noValue=none,
        graphMode="none",
        reduceCalc="lastNotNull",
        textMode="value",
        maxDataPoints=None,
    )


def states(
    title: str,
    description: str,
    *queries: Query,
    steps: Steps,
    links: Sequence[Link] = (),
    step_min: str = "",
) -> core.StateTimeline:
    """What is true (1) or not (0) over time, a bar for each series; coloured by the steps."""
    return core.StateTimeline(
        title=title,
        description=description,
        dataSource=PLAIN_DATASOURCE,
        targets=_targets(queries, instant=False, step_min=step_min),
        thresholds=_steps(steps),
        mappings=[{"type": "value", "options": {"0": {"text": "no"}, "1": {"text": "yes"}}}],
        maxDataPoints=None,
        extraJson=_linked(links),
    )


class _Heatmap(core.Panel):  # type: ignore[misc] # grafanalib has no types
    """The heatmap of today, which grafanalib does not have."""

    unit = ""

    def to_json_data(self) -> dict[str, Any]:
        """The panel."""
        options = {"calculate": False, "yAxis": {"unit": self.unit}}
        data: dict[str, Any] = self.panel_json({"type": "heatmap", "options": options})
        return data


def heatmap(title: str, description: str, query: Query, *, unit: str, links: Sequence[Link] = ()) -> core.Panel:
    """How observations are spread over a histogram's buckets, over time; the query keeps `le`, its unit is `unit`."""
    panel = _Heatmap(
        title=title,
        description=description,
        dataSource=PLAIN_DATASOURCE,
        targets=_targets([query], instant=False, format="heatmap"),
        maxDataPoints=None,
        extraJson=_linked(links),
    )
    panel.unit = unit
    return panel


@dataclass(frozen=True, slots=True)
class Words:
    """A column of a table that shows a label.

    Attributes:
        title: Heading.
        label: The label; every query of the table must keep it.
        link: Where a click leads.
    """

    title: str
    label: str
    link: Link | None = None


@dataclass(frozen=True, slots=True)
class Figures:
    """A column of a table that shows the values of a query.

    Attributes:
        title: Heading.
        expr: PromQL with one result a row, which has the labels of the table's words and no others.
        unit: Grafana's id of the unit.
        steps: Thresholds, by which the value is coloured.
        decimals: Digits after the point.
        none: What a row without a value says.
        names: What a value is called instead, with its colour.
    """

    title: str
    expr: str
    unit: str
    steps: Steps = NO_STEPS
    decimals: int | None = None
    none: str = "no data"
    names: Mapping[int, tuple[str, str]] = field(default_factory=dict, hash=False)


def table(
    title: str, description: str, words: Sequence[Words], figures: Sequence[Figures], *, sort_by: str
) -> core.Table:
    """One row for each set of labels, now; sorted by a column, highest first."""
    return core.Table(
        title=title,
        description=description,
        dataSource=PLAIN_DATASOURCE,
        targets=_targets([Query(one.expr, one.title) for one in figures], instant=True, format="table"),
        transformations=[{"id": "merge", "options": {}}, _named_columns(words, figures)],
        overrides=[*map(_words_override, words), *map(_figures_override, figures)],
        thresholds=_steps(NO_STEPS),
        sortBy=[core.TableSortByField(displayName=sort_by, desc=True)],
        unit=WORDS,
        span=None,
        maxDataPoints=None,
    )


def text(title: str, description: str, markdown: str) -> core.Text:
    """Words."""
    return core.Text(title=title, description=description, content=markdown, maxDataPoints=None)


class _WithExemplars(core.Target):  # type: ignore[misc] # grafanalib has no types
    """A query that asks for exemplars too, which grafanalib does not know."""

    def to_json_data(self) -> dict[str, Any]:
        """The query."""
        return {**super().to_json_data(), "exemplar": True}


def _targets(
    queries: Sequence[Query],
    *,
    instant: bool,
    format: str = "time_series",  # noqa: A002 - Grafana's word
    step_min: str = "",
) -> list[core.Target]:
    return [
        (_WithExemplars if query.exemplars else core.Target)(
            expr=query.expr,
            legendFormat=query.legend,
            refId=ref_id,
            instant=instant,
            format=format,
            datasource=PLAIN_DATASOURCE,
            interval=step_min,
        )
        for ref_id, query in zip(_ref_ids(queries), queries, strict=True)
    ]


def _linked(links: Sequence[Link]) -> dict[str, Any] | None:
    if not links:
        return None
    return {"fieldConfig": {"defaults": {"links": [_link(link, new_tab=True) for link in links]}}}


def _link(link: Link, *, new_tab: bool) -> dict[str, Any]:
    return {"title": link.title, "url": link.url, "targetBlank": new_tab}


def _ref_ids(queries: Sequence[object]) -> list[str]:
    """`A` to `Z`, then `A1`: Grafana joins a value to its query by these."""
    return [f"{ascii_uppercase[index % 26]}{index // 26 or ''}" for index in range(len(queries))]


def _steps(steps: Steps) -> list[dict[str, Any]]:
    return [{"color": colour, "value": None if value is None else float(value)} for colour, value in steps]


def _styled(style: Style) -> dict[str, Any]:
    properties: list[dict[str, Any]] = [{"id": "color", "value": {"fixedColor": style.colour, "mode": "fixed"}}]
    if style.dashed:
        properties.append({"id": "custom.lineStyle", "value": {"dash": [10, 10], "fill": "dash"}})
    return {"matcher": {"id": "byRegexp", "options": style.series}, "properties": properties}


def _named_columns(words: Sequence[Words], figures: Sequence[Figures]) -> dict[str, Any]:
    """Grafana calls a column by its label, or `Value #A` after its query, or `Value` when no other query has any."""
    names = {one.label: one.title for one in words}
    names |= {"Value": figures[0].title}
    names |= {f"Value #{ref_id}": one.title for ref_id, one in zip(_ref_ids(figures), figures, strict=True)}
    return {
        "id": "organize",
        "options": {
            "excludeByName": {"Time": True},
            "indexByName": {name: index for index, name in enumerate(names)},
            "renameByName": names,
        },
    }


def _words_override(words: Words) -> dict[str, Any]:
    properties: list[dict[str, Any]] = []
    if words.link is not None:
        properties.append({"id": "links", "value": [_link(words.link, new_tab=False)]})
    return {"matcher": {"id": "byName", "options": words.title}, "properties": properties}


def _figures_override(figures: Figures) -> dict[str, Any]:
    properties: list[dict[str, Any]] = [
        {"id": "unit", "value": figures.unit},
        {"id": "thresholds", "value": {"mode": "absolute", "steps": _steps(figures.steps)}},
        {"id": "custom.cellOptions", "value": {"type": "color-text"}},
        {"id": "noValue", "value": figures.none},
    ]
    if figures.decimals is not None:
        properties.append({"id": "decimals", "value": figures.decimals})
    if figures.names:
        named = {str(value): {"text": name, "color": colour} for value, (name, colour) in figures.names.items()}
        properties.append({"id": "mappings", "value": [{"type": "value", "options": named}]})
    return {"matcher": {"id": "byName", "options": figures.title}, "properties": properties}
