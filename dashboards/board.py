"""What all boards have in common: rows of panels, variables, annotations, and the way from one board to the next.

This module knows Grafana and no SLO.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any

from grafanalib import core

from dashboards.modern import DATASOURCE_TYPE
from dashboards.panels import BAD, DATASOURCE, PLAIN_DATASOURCE, Panel

COLUMNS = 24  # the width of Grafana's grid
SIDE_BY_SIDE_MAX = 4  # more, and a legend has no room

TAG = "slo"

# --- variables ------------------------------------------------------------------------------------------------------

_ON_TIME_RANGE_CHANGE = 2  # the values that exist depend on the time that is shown
_ANY = ".*"  # also series without the label


def datasource_variable() -> core.Template:
    """Which Prometheus; every board's first variable."""
    return core.Template(name=DATASOURCE, label="Data source", query=DATASOURCE_TYPE, type="datasource")


def label_variable(name: str, title: str, selector: str, label: str, *, several: bool = False) -> core.Template:
    """The values of a label; a selector that reads another variable chains the two.

    Args:
        name: Of the variable.
        title: What people read before it.
        selector: The series.
        label: Whose values.
        several: People may choose several, and at first have all; the matcher must be a regular expression.
    """
    return core.Template(
        name=name,
        label=title,
        query=f"label_values({selector}, {label})",
        dataSource=PLAIN_DATASOURCE,
        refresh=_ON_TIME_RANGE_CHANGE,
        includeAll=several,
        multi=several,
        allValue=_ANY if several else None,
    )


def variable(name: str) -> str:
    """A reference to a variable, as a label matcher takes it."""
    return f"${name}"


# --- annotations ----------------------------------------------------------------------------------------------------


def annotation(name: str, expr: str, text_format: str, colour: str = BAD) -> dict[str, Any]:
    """A mark, on every panel with a time axis, for when the query had a result."""
    return {
        "datasource": PLAIN_DATASOURCE,
        "enable": True,
        "hide": False,
        "iconColor": colour,
        "name": name,
        "target": {"expr": expr, "refId": "Anno"},
        "titleFormat": text_format,
    }


# --- layout ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Row:
    """Panels side by side, all equally wide.

    Attributes:
        height: In units of Grafana's grid, about 30 pixels each.
        panels: From left to right; their number divides 24.
    """

    height: int
    panels: Sequence[Panel]


def heading(title: str) -> Row:
    """A line with a title over the rows below, which a click folds."""
    return Row(1, [core.RowPanel(title=title)])


def rows(height: int, panels: Sequence[Panel]) -> Iterator[Row]:
    """As few rows as hold the panels; the first ones hold more when it does not come out even."""
    count = -(-len(panels) // SIDE_BY_SIDE_MAX)
    begin = 0
    for row in range(count):
        width = -(-(len(panels) - begin) // (count - row))
        yield Row(height, panels[begin : begin + width])
        begin += width


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
        annotations: Of `annotation`.
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
