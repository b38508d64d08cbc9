"""The board of one SLO: where an alert leads."""

from __future__ import annotations

from collections.abc import Sequence

from grafanalib.core import Dashboard

from dashboards import alerts, board, looks, panels
from dashboards.marks import deployments
from dashboards.queries import ALERT, SERVICE, SLO, Queries
from slo import conventions as names
from slo.compile import CompiledSlo
from slo.matrix import Definitions
from slo.settings import Links
from slo.windows import Severity

# The links in alerts set these.
SERVICE_VARIABLE, SLO_VARIABLE = "service", "slo"

_ALLOWED = "allowed"

_OF_SERVICE = {SERVICE: board.variable(SERVICE_VARIABLE)}
_OF_SLO = {**_OF_SERVICE, SLO: board.variable(SLO_VARIABLE)}

_HOW_TO_READ = """\
**Burn** says how many times too fast the error budget goes: at 1 it lasts exactly for the period, at 14.4 two
percent of a 30-day budget go in an hour.

- *Budget burn* weighs bad events against the budget of the whole period. It says whether the budget is in danger.
- *Error ratio* is bad among all events in the window. Far above the dashed line, many who are here now fail.

A **page** needs its long and its short window above its line: the long one shows that the loss matters, the short
one that it still goes on. It also comes when many people fail while little of the period's budget goes, at night say.
"""


def board_of(compiled: Sequence[CompiledSlo], defined: Definitions, links: Links) -> Dashboard:
    """The board on which any of these SLOs can be chosen."""
    ask = Queries.of(compiled, which=_OF_SLO)
    info = Queries.of(compiled, which=_OF_SERVICE)
    return board.board(
        names.DETAIL_UID,
        "SLO detail",
        "One promise: how much of its error budget is left, how fast it goes, and since when. Alerts lead here.",
        board.Row(4, _figures(compiled, ask)),
        board.Row(8, [_burn_down(ask), _bad_events(ask)]),
        board.Row(9, [_burn(ask, severity) for severity in Severity if ask.windows_of(severity)]),
        board.Row(9, [_error_ratio(ask), _events(ask)]),
        board.Row(8, [alerts.table(ask.firing(), links), _reading()]),
        shown="now-6h",
        variables=[
            board.label_variable(SERVICE_VARIABLE, "Service", names.INFO, SERVICE),
            board.label_variable(SLO_VARIABLE, "SLO", info.selector(names.INFO), SLO),
        ],
        annotations=[board.annotation("Firing alerts", ask.firing(), f"{{{{{ALERT}}}}}"), *deployments(defined)],
    )


def _figures(compiled: Sequence[CompiledSlo], ask: Queries) -> list[panels.Panel]:
    decimals = looks.objective_decimals(compiled)
    return [
        panels.stat(
            "Objective",
            "The share of good events that is promised.",
            ask.objective(),
            unit=panels.SHARE,
            decimals=decimals,
        ),
        panels.stat(
            "Good events in the period",
            "The share of events that were good, over the whole period of the promise (not the time shown).",
            ask.good_in_period(),
            unit=panels.SHARE,
            decimals=decimals + 1,
        ),
        panels.stat(
            "Budget left",
            "What is left of the period's error budget. Below 0 the promise is broken.",
            ask.budget_left(),
            unit=panels.SHARE,
            steps=looks.BUDGET_STEPS,
            decimals=1,
        ),
        panels.stat(
            "Budget left in events",
            "How many more events may be bad before the budget is gone, at the period's traffic.",
            ask.budget_left_events(),
            unit=panels.COUNT,
            steps=looks.EVENTS_STEPS,
        ),
        panels.stat(
            "Burn now",
            "How many times more often things fail than is promised, over the last minutes (classic burn rate).",
            ask.current_burn(),
            unit=panels.TIMES,
            steps=looks.burn_steps(ask),
            decimals=1,
        ),
        panels.stat(
            "Budget gone in",
            "When the budget is gone if it goes on burning as over the fastest page's long window. The whole period "
            "when it lasts that long: by then, all that is spent now is free again.",
            ask.seconds_to_exhaustion(),
            unit=panels.SECONDS,
            steps=looks.EXHAUSTION_STEPS,
        ),
    ]


def _burn_down(ask: Queries) -> panels.Panel:
    return panels.timeseries(
        "Budget burn-down",
        "What is left of the period's error budget over time. A step is an incident, a slope is a leak.",
        panels.Query(ask.budget_left(), "budget left"),
        unit=panels.SHARE,
        steps=looks.BUDGET_STEPS,
    )


def _bad_events(ask: Queries) -> panels.Panel:
    return panels.timeseries(
        "Bad events",
        "How many events were bad in each of the alerts' long windows.",
        *(panels.Query(ask.bad_events(window), names.duration(window)) for window in ask.long_windows),
        unit=panels.COUNT,
    )


def _burn(ask: Queries, severity: Severity) -> panels.Panel:
    limits = ask.limits(severity)
    return panels.timeseries(
        f"Budget burn, {severity}",
        f"How many times too fast the period's budget goes, in the windows of the {severity} alert. Dashed: where it "
        "fires, when both windows of a pair are above.",
        *(panels.Query(ask.burn(window), names.duration(window)) for window in ask.windows_of(severity)),
        *(panels.Query(query, name) for name, query in limits),
        unit=panels.TIMES,
        styles=[panels.Style(f"^{severity} above", looks.OF_SEVERITY[severity], dashed=True)],
    )


def _error_ratio(ask: Queries) -> panels.Panel:
    return panels.timeseries(
        "Error ratio",
        "Bad among all events in each window of the alerts. Dashed: what the objective allows.",
        *(panels.Query(ask.error_ratio(window), names.duration(window)) for window in ask.alert_windows),
        panels.Query(ask.budget(), _ALLOWED),
        unit=panels.SHARE,
        styles=[panels.Style(f"^{_ALLOWED}$", panels.BAD, dashed=True)],
    )


def _events(ask: Queries) -> panels.Panel:
    return panels.timeseries(
        "Events per second",
        "Good and bad events per second over the shortest window. No line at all: nothing is scraped.",
        panels.Query(ask.good_events_per_second(), "good"),
        panels.Query(ask.bad_events_per_second(), "bad"),
        unit=panels.PER_SECOND,
        styles=[panels.Style("^good$", panels.GOOD), panels.Style("^bad$", panels.BAD)],
        stacked=True,
    )


def _reading() -> panels.Panel:
    return panels.text("How to read this board", "What the words on this board mean.", _HOW_TO_READ)
