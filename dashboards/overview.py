"""The board of all SLOs: what burns is on top, and each row leads to its own board."""

from __future__ import annotations

from collections.abc import Sequence

from grafanalib.core import Dashboard

from dashboards import alerts, board, looks, panels, slo_detail
from dashboards.marks import deployments
from dashboards.queries import ALERT, SERVICE, SLO, Queries
from slo import conventions as names
from slo.compile import CompiledSlo
from slo.matrix import Definitions
from slo.settings import Links
from slo.windows import Severity


def board_of(compiled: Sequence[CompiledSlo], defined: Definitions, links: Links) -> Dashboard:
    """The overview of these SLOs."""
    ask = Queries.of(compiled, which={})
    burning, pages, tickets = (
        f"count({query}) or vector(0)"
        for query in (
            f"{ask.worst_burn()} > 1",
            alerts.all_of(Severity.PAGE),
            alerts.all_of(Severity.TICKET),
        )
    )
    return board.board(
        names.OVERVIEW_UID,
        "SLO overview",
        "Every promise, what is left of its error budget and how fast that goes. For a look in the morning, and for "
        "the first minute of an incident.",
        board.Row(
            4,
            [
                panels.stat(
                    "SLOs burning",
                    "SLOs whose error budget goes faster than it lasts (worst burn above 1).",
                    burning,
                    unit=panels.COUNT,
                    steps=looks.ANY_IS_WARN,
                ),
                panels.stat(
                    "Worst burn",
                    "The highest budget-true burn rate of all SLOs: how many times too fast a budget goes.",
                    f"max({ask.worst_burn()})",
                    unit=panels.TIMES,
                    steps=looks.burn_steps(ask),
                    decimals=1,
                ),
                panels.stat(
                    "Pages firing",
                    "Alerts that wake somebody, firing now.",
                    pages,
                    unit=panels.COUNT,
                    steps=looks.ANY_IS_BAD,
                ),
                panels.stat(
                    "Tickets firing",
                    "Alerts that wait for working hours, firing now.",
                    tickets,
                    unit=panels.COUNT,
                    steps=looks.ANY_IS_WARN,
                ),
            ],
        ),
        board.Row(18, [table("All SLOs", compiled, ask)]),
        board.Row(10, [alerts.table(alerts.every(), links)]),
        board.Row(8, [_burning(ask), _left(ask)]),
        shown="now-24h",
        annotations=[board.annotation("Firing alerts", alerts.every(), f"{{{{{ALERT}}}}}"), *deployments(defined)],
    )


def _burning(ask: Queries) -> panels.Panel:
    return panels.timeseries(
        "Worst burn over time",
        "The budget-true burn rate of each SLO: above 1 its budget does not last.",
        panels.Query(ask.worst_burn(), f"{{{{{SERVICE}}}}}/{{{{{SLO}}}}}"),
        unit=panels.TIMES,
        steps=looks.burn_steps(ask),
    )


def _left(ask: Queries) -> panels.Panel:
    return panels.timeseries(
        "Budget left over time",
        "What is left of each SLO's error budget: a step is an incident, a slope is a leak.",
        panels.Query(ask.budget_left(), f"{{{{{SERVICE}}}}}/{{{{{SLO}}}}}"),
        unit=panels.SHARE,
        steps=looks.BUDGET_STEPS,
    )


def table(title: str, compiled: Sequence[CompiledSlo], ask: Queries) -> panels.Panel:
    """A row for each SLO, what burns first."""
    link = panels.Link(
        "Open this SLO",
        panels.board_url(
            names.DETAIL_UID,
            {
                slo_detail.SERVICE_VARIABLE: panels.column("Service"),
                slo_detail.SLO_VARIABLE: panels.column("SLO"),
            },
        ),
    )
    burn_steps = looks.burn_steps(ask)
    return panels.table(
        title,
        "Sorted by worst burn. A click on a name opens that SLO's own board.",
        [panels.Words("Service", SERVICE, link), panels.Words("SLO", SLO, link)],
        [
            panels.Figures("Objective", ask.objective(), panels.SHARE, decimals=looks.objective_decimals(compiled)),
            panels.Figures("Budget left", ask.budget_left(), panels.SHARE, looks.BUDGET_STEPS, decimals=1),
            panels.Figures("Burn now", ask.current_burn(), panels.TIMES, burn_steps, decimals=1),
            panels.Figures("Worst burn", ask.worst_burn(), panels.TIMES, burn_steps, decimals=1),
            panels.Figures(
                "Budget gone in",
                ask.seconds_to_exhaustion(),
                panels.SECONDS,
                looks.EXHAUSTION_STEPS,
            ),
        ],
        sort_by="Worst burn",
    )
