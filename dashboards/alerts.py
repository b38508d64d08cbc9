"""The alerts of a board: which fire, which are over, and the way to the runbook of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dashboards import board, panels
from dashboards.queries import ALERT, ALERTS, FIRING
from slo import conventions as names
from slo import promql
from slo.settings import Links
from slo.windows import Severity

_SEVERITY, _SERVICE = "severity", "service"
_NO_WATCHDOG = ', severity!="watchdog"}'  # it always fires


def of_services(services: Sequence[str]) -> str:
    """The alerts of some services that fire now."""
    return ALERTS + promql.matchers({**FIRING, _SERVICE: tuple(services)})


def all_of(severity: Severity) -> str:
    """The alerts of a severity that fire now."""
    return ALERTS + promql.matchers({**FIRING, _SEVERITY: severity})


def every() -> str:
    """Every alert that fires now, but for the one that always does."""
    return (ALERTS + promql.matchers(FIRING)).removesuffix("}") + _NO_WATCHDOG


def table(firing: str, links: Links) -> panels.Panel:
    """The alerts that fired in the time shown, by name."""
    runbook = panels.Link("Open the runbook", f"{links.runbooks}/{names.runbook_file(panels.column('Alert'))}")
    labels = f"{ALERT}, {_SEVERITY}, {_SERVICE}"
    return panels.table(
        "Alerts",
        "Every alert that fired in the time shown. A click on a name opens its runbook.",
        [
            panels.Words("Alert", ALERT, runbook),
            panels.Words("Severity", _SEVERITY),
            panels.Words("Service", _SERVICE),
        ],
        [
            panels.Figures(
                "State",
                f"max by ({labels}) ({firing} or 0 * last_over_time({firing}[{panels.TIME_SHOWN}]))",
                panels.COUNT,
                names={1: ("firing", panels.BAD), 0: ("over", panels.GOOD)},
            )
        ],
        sort_by="State",
    )


def marks(services: Sequence[str]) -> list[Mapping[str, Any]]:
    """When an alert of the services fired."""
    return [board.annotation("Firing alerts", of_services(services), f"{{{{{ALERT}}}}}")]
