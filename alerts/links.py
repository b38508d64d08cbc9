"""Where an alert leads: its runbook, its board, the traces and logs of what fails, its twin in CloudWatch, silence."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from urllib.parse import quote, urlencode

from alerts import consoles, evidence
from slo import conventions as names
from slo.causes import Cause, Component
from slo.compile import AlertKind, CompiledAlert, CompiledSlo
from slo.settings import Links
from slo.windows import HOUR

# The board's slug is for people's eyes only: Grafana finds the board by its uid.
_DETAIL_SLUG = "slo-detail"
_OVERVIEW_SLUG = "slo-overview"

# Enough to see how the day was before the fault; an alert with longer windows shows those.
SHOWN_MIN = 6 * HOUR


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertLinks:
    """The links of one alert, each a whole URL; empty where there is no such place.

    Attributes:
        runbook: What to do.
        dashboard: What happens, up to now: the time range is relative, as a rule does not know when it fires.
        traces: The requests that failed or were slow.
        logs: The same in the logs.
        alarm: The alarm in CloudWatch that watches the same.
        silence: Where it is silenced.
        boards: The panel that shows what broke, and other boards that help, title -> URL.
    """

    runbook: str
    dashboard: str
    traces: str = ""
    logs: str = ""
    alarm: str = ""
    silence: str = ""
    boards: tuple[tuple[str, str], ...] = ()

    @property
    def annotations(self) -> dict[str, str]:
        """As a rule carries them; the silence is for whoever knows the labels, which are Alertmanager's templates."""
        urls = {
            "runbook_url": self.runbook,
            "dashboard_url": self.dashboard,
            "traces_url": self.traces,
            "logs_url": self.logs,
            "alarm_url": self.alarm,
        }
        return {name: url for name, url in urls.items() if url}

    def titled(self) -> Iterator[tuple[str, str]]:
        """Title and URL of all that are there, in the order in which a responder needs them."""
        links = (
            ("Runbook", self.runbook),
            ("Dashboard", self.dashboard),
            *self.boards,
            ("Traces", self.traces),
            ("Logs", self.logs),
            ("Alarm in CloudWatch", self.alarm),
            ("Silence", self.silence),
        )
        yield from ((title, url) for title, url in links if url)


def alert_links(alert: CompiledAlert, compiled: CompiledSlo, links: Links) -> AlertLinks:
    """The links of an SLO's alert: the board shows that SLO over the alert's longest window, or six hours."""
    slo = compiled.slo
    shown = shown_of(alert)
    variables = {"var-service": slo.service, "var-slo": slo.name}
    found = evidence.of_slo(slo)
    panel = names.DETAIL_PANELS["events" if alert.kind is AlertKind.ABSENT else str(alert.severity)]
    alone = _board(links, names.DETAIL_UID, _DETAIL_SLUG, {**variables, "viewPanel": str(panel)}, shown)
    return AlertLinks(
        runbook=_runbook(alert.name, links),
        dashboard=_board(links, names.DETAIL_UID, _DETAIL_SLUG, variables, shown),
        traces=evidence.traces_url(found, links),
        logs=evidence.logs_url(found, links),
        alarm=links.alarms.get(alert.name, ""),
        silence=_silence(links, {"alertname": alert.name, "service": slo.service, "slo": slo.name}),
        boards=(("What broke, alone", alone), *_boards_beside(slo.component, links, shown)),
    )


def watchdog_links(links: Links) -> AlertLinks:
    """The links of the alert that always fires: the board shows whether what tells of all others still works."""
    return AlertLinks(
        runbook=_runbook(names.WATCHDOG, links),
        dashboard=_board(links, names.PLATFORM_UID, names.PLATFORM_UID, {}, SHOWN_MIN),
        silence=_silence(links, {"alertname": names.WATCHDOG}),
        boards=(_all_promises(links),),
    )


def cause_links(cause: Cause, links: Links) -> AlertLinks:
    """The links of a cause's alert: the board is that of its component."""
    found = evidence.of_cause(cause)
    labels = cause.labels
    return AlertLinks(
        runbook=_runbook(cause.alert_name, links),
        dashboard=_component_board(cause.component, links, SHOWN_MIN),
        traces=evidence.traces_url(found, links),
        logs=evidence.logs_url(found, links),
        alarm=links.alarms.get(cause.alert_name, ""),
        silence=_silence(
            links, {"alertname": cause.alert_name, "service": labels["service"], "cause": labels["cause"]}
        ),
        boards=(_all_promises(links),),
    )


def every(compiled: Sequence[CompiledSlo], causes: Sequence[Cause], links: Links) -> dict[str, AlertLinks]:
    """The links of all alerts there are, by the alerts' names."""
    of_slos = {alert.name: alert_links(alert, one, links) for one in compiled for alert in one.alerts}
    of_causes = {cause.alert_name: cause_links(cause, links) for cause in causes}
    return {**of_slos, **of_causes, names.WATCHDOG: watchdog_links(links)}


def shown_of(alert: CompiledAlert) -> timedelta:
    """How far back the board of an SLO's alert looks."""
    return max([SHOWN_MIN, *(pair.long for pair in alert.pairs)])


def _runbook(alert: str, links: Links) -> str:
    return f"{links.runbooks}/{quote(names.runbook_file(alert))}"


def _silence(links: Links, labels: Mapping[str, str]) -> str:
    return consoles.silence(links.alertmanager, labels) if links.alertmanager else ""


def _all_promises(links: Links) -> tuple[str, str]:
    return "All promises", _board(links, names.OVERVIEW_UID, _OVERVIEW_SLUG, {}, SHOWN_MIN)


def _boards_beside(component: Component | None, links: Links, shown: timedelta) -> tuple[tuple[str, str], ...]:
    if component is None:
        return ()
    board = (f"Board of {component}", _component_board(component, links, shown))
    if component is not Component.SERVICE:
        return (board,)
    return (board, ("Flash sale", _board(links, names.FLASH_SALE_UID, names.FLASH_SALE_UID, {}, SHOWN_MIN)))


def _component_board(component: Component, links: Links, shown: timedelta) -> str:
    return _board(links, names.component_uid(component), str(component), {}, shown)


def _board(links: Links, uid: str, slug: str, variables: Mapping[str, str], shown: timedelta) -> str:
    """A link to a board; Grafana reads `now-72h`, but not Prometheus' `3d12h`, so it gets whole hours."""
    return f"{links.grafana}/d/{uid}/{slug}?{urlencode({**variables, **_until_now(shown)}, quote_via=quote)}"


def _until_now(shown: timedelta) -> dict[str, str]:
    return {"from": f"now-{hours(shown)}h", "to": "now"}


def hours(shown: timedelta) -> int:
    """Whole hours, rounded up."""
    return -(-shown // HOUR)
