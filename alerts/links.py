"""Where an alert leads: its runbook and its board."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from urllib.parse import quote, urlencode

from slo import conventions as names
from slo.causes import Cause
from slo.compile import CompiledAlert, CompiledSlo
from slo.settings import Links
from slo.windows import HOUR

# The board's slug is for people's eyes only: Grafana finds the board by its uid.
_DETAIL_SLUG = "slo-detail"
_OVERVIEW_SLUG = "slo-overview"

# Enough to see how the day was before the fault; an alert with longer windows shows those.
_SHOWN_MIN = 6 * HOUR


@dataclass(frozen=True, slots=True)
class AlertLinks:
    """The links of one alert, each a whole URL.

    Attributes:
        runbook: What to do.
        dashboard: What happens, up to now: the time range is relative, as a rule does not know when it fires.
    """

    runbook: str
    dashboard: str


def alert_links(alert: CompiledAlert, compiled: CompiledSlo, links: Links) -> AlertLinks:
    """The links of an SLO's alert: the board shows that SLO over the alert's longest window, or six hours."""
    shown = max([_SHOWN_MIN, *(pair.long for pair in alert.pairs)])
    variables = {"var-service": compiled.slo.service, "var-slo": compiled.slo.name}
    return AlertLinks(
        runbook=_runbook(alert.name, links),
        dashboard=_board(links, names.DETAIL_UID, _DETAIL_SLUG, variables, shown),
    )


def watchdog_links(links: Links) -> AlertLinks:
    """The links of the alert that always fires: the board shows every SLO, since all are blind without it."""
    return AlertLinks(
        runbook=_runbook(names.WATCHDOG, links),
        dashboard=_board(links, names.OVERVIEW_UID, _OVERVIEW_SLUG, {}, _SHOWN_MIN),
    )


def cause_links(cause: Cause, links: Links) -> AlertLinks:
    """The links of a cause's alert: the board shows every SLO, as a cause may hurt several."""
    return AlertLinks(
        runbook=_runbook(cause.alert_name, links),
        dashboard=_board(links, names.OVERVIEW_UID, _OVERVIEW_SLUG, {}, _SHOWN_MIN),
    )


def _runbook(alert: str, links: Links) -> str:
    return f"{links.runbooks}/{quote(names.runbook_file(alert))}"


def _board(links: Links, uid: str, slug: str, variables: Mapping[str, str], shown: timedelta) -> str:
    """A link to a board; Grafana reads `now-72h`, but not Prometheus' `3d12h`, so it gets whole hours."""
    hours = -(-shown // HOUR)
    query = urlencode({**variables, "from": f"now-{hours}h", "to": "now"}, quote_via=quote)
    return f"{links.grafana}/d/{uid}/{slug}?{query}"
