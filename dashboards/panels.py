"""The house look: every panel of every board is made here, and looks and behaves like its like.

A panel has a title, a description that says what the figure is and what to do with it, a unit, and a query against
the datasource that the board's reader has chosen. This module knows Grafana and no SLO.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from decimal import Decimal
from string import ascii_uppercase
from typing import Any, TypeAlias

from grafanalib import core

from dashboards.modern import DATASOURCE_TYPE

COLUMNS = 24  # the width of Grafana's grid

# --- colours and units ----------------------------------------------------------------------------------------------

GOOD, WARN, BAD, PLAIN = "green", "orange", "red", "text"

# Grafana's ids of units, https://github.com/grafana/grafana/blob/main/packages/grafana-data/src/valueFormats
SHARE = "percentunit"  # 0 to 1, shown as percent
TIMES = "suffix:x"
COUNT = "short"
PER_SECOND = "cps"
SECONDS = "s"
WORDS = "string"

Panel: TypeAlias = core.Panel

Steps: TypeAlias = Sequence[tuple[str, Decimal | int | None]]
"""Thresholds, ascending: a colour and the value from which it holds; `None` for the first."""

NO_STEPS: Steps = ((PLAIN, None),)

# --- variables ------------------------------------------------------------------------------------------------------

DATASOURCE = "datasource"
_DATASOURCE = f"${{{DATASOURCE}}}"

_ON_TIME_RANGE_CHANGE = 2  # the values that exist depend on the time that is shown


def datasource_variable() -> core.Template:
    """Which Prometheus; every board's first variable."""
    return core.Template(name=DATASOURCE, label="Data source", query=DATASOURCE_TYPE, type="datasource")


def label_variable(name: str, title: str, selector: str, label: str) -> core.Template:
    """The values of a label; a selector that reads another variable chains the two."""
    return core.Template(
        name=name,
        label=title,
        query=f"label_values({selector}, {label})",
        dataSource=_DATASOURCE,
        refresh=_ON_TIME_RANGE_CHANGE,
    )


def variable(name: str) -> str:
    """A reference to a variable, as a label matcher takes it."""
    return f"${name}"


TIME_SHOWN = "$__range"  # the length of the time that the board shows, for a range selector

# --- links ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Link:
    """A link from a value.

    Attributes:
        title: What opens.
        url: Where; Grafana fills in `column(...)`, the datasource and the time.
    """

    title: str
    url: str


def column(title: str) -> str:
    """The value of another column of the same row, within a link."""
    return f"${{__data.fields.{title}}}"


def board_url(uid: str, variables: Mapping[str, str]) -> str:
    """Another board, with the same datasource and time; relative, so that it works below any address of Grafana."""
    values = "".join(f"&var-{name}={value}" for name, value in variables.items())
    return f"/d/{uid}/{uid}?${{{DATASOURCE}:queryparam}}{values}&${{__url_time_range}}"


# --- panels ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Query:
    """A PromQL query and the name of its series, `{{label}}` allowed."""

    expr: str
    legend: str


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
    minimum: int | None = 0,
) -> core.TimeSeries:
    """Figures over time.

    Args:
        title: What it shows.
        description: What the figure is, and what to do with it.
        queries: One or more.
        unit: Grafana's id of the unit.
        steps: Thresholds, drawn as dashed lines where there is more than one.
        styles: Series that look different.
        stacked: Areas on top of each other.
        minimum: Where the axis begins; `None` where values may be negative.
    """
    return core.TimeSeries(
        title=title,
        description=description,
        dataSource=_DATASOURCE,
        targets=_targets(queries, instant=False),
        unit=unit,
        thresholds=_steps(steps),
        thresholdsStyleMode="dashed" if len(steps) > 1 else "off",
        overrides=[_styled(style) for style in styles],
        stacking={"group": "A", "mode": "normal"} if stacked else {},
        fillOpacity=30 if stacked else 0,
        valueMin=minimum,
        showPoints="never",
        tooltipMode="multi",
        tooltipSort="desc",
        legendDisplayMode="table",
        legendCalcs=["lastNotNull", "max"],
        maxDataPoints=None,
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
        dataSource=_DATASOURCE,
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
        dataSource=_DATASOURCE,
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


def _targets(queries: Sequence[Query], *, instant: bool, format: str = "time_series") -> list[core.Target]:  # noqa: A002
    return [
        core.Target(
            expr=query.expr,
            legendFormat=query.legend,
            refId=ref_id,
            instant=instant,
            format=format,
            datasource=_DATASOURCE,
        )
        for ref_id, query in zip(_ref_ids(queries), queries, strict=True)
    ]


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
        link = {"title": words.link.title, "url": words.link.url, "targetBlank": False}
        properties.append({"id": "links", "value": [link]})
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


# --- boards ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Row:
    """Panels side by side, all equally wide.

    Attributes:
        height: In units of Grafana's grid, about 30 pixels each.
        panels: From left to right; their number divides 24.
    """

    height: int
    panels: Sequence[Panel]


def firing(name: str, expr: str, text_format: str) -> dict[str, Any]:
    """An annotation that marks, on every panel with a time axis, when the query had a result."""
    return {
        "datasource": _DATASOURCE,
        "enable": True,
        "hide": False,
        "iconColor": BAD,
        "name": name,
        "target": {"expr": expr, "refId": "Anno"},
        "titleFormat": text_format,
    }


TAG = "slo"


def board(  # noqa: PLR0913 - a board's properties, all by name
    uid: str,
    title: str,
    description: str,
    *rows: Row,
    shown: str,
    variables: Sequence[core.Template] = (),
    annotations: Sequence[Mapping[str, Any]] = (),
) -> core.Dashboard:
    """A board: the datasource variable first, rows from the top, a menu of the sister boards that keeps all choices.

    Args:
        uid: Never changes, as links and bookmarks hold it.
        title: Heading.
        description: Who looks at it, and when.
        rows: From top to bottom.
        shown: The time range at first, `now-6h` say.
        variables: After the datasource.
        annotations: Of `firing`.
    """
    return core.Dashboard(
        uid=uid,
        title=title,
        description=description,
        tags=[TAG],
        timezone="utc",  # an incident has one timeline, wherever its people are
        editable=False,  # a change made in the browser would be lost at the next generation
        graphTooltip=core.GRAPH_TOOLTIP_MODE_SHARED_CROSSHAIR,
        refresh="1m",
        time=core.Time(shown, "now"),
        templating=core.Templating([datasource_variable(), *variables]),
        annotations=core.Annotations(list(annotations)),
        links=[
            core.DashboardLink(
                title="SLO boards", type="dashboards", tags=[TAG], asDropdown=True, includeVars=True, keepTime=True
            )
        ],
        panels=_placed(rows),
    )


def _placed(rows: Sequence[Row]) -> list[Panel]:
    """Every panel with its place and its id.

    Raises:
        ValueError: The panels of a row cannot be equally wide.
    """
    placed: list[Panel] = []
    top = 0
    for row in rows:
        width, rest = divmod(COLUMNS, len(row.panels))
        if rest:
            raise ValueError(
                f"a row of {len(row.panels)} panels does not divide {COLUMNS} columns; use 1, 2, 3, 4, 6 or 8"
            )
        for index, panel in enumerate(row.panels):
            here = copy(panel)
            here.gridPos = core.GridPos(h=row.height, w=width, x=index * width, y=top)
            here.id = len(placed) + 1
            placed.append(here)
        top += row.height
    return placed
