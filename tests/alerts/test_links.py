"""Where alerts lead."""

from dataclasses import replace
from urllib.parse import parse_qs, urlsplit

import pytest

from alerts.links import alert_links, watchdog_links
from slo import CompiledSlo, Rolling, Severity, compile_slo
from slo import conventions as names
from slo.compile import AlertKind, CompiledAlert
from slo.definitions import redemption
from slo.settings import Links

LINKS = Links(
    grafana="https://grafana.example.com/",
    runbooks="https://docs.example.com/runbooks",
    traces="https://traces.example.com",
    logs="https://logs.example.com",
)


@pytest.fixture
def compiled() -> CompiledSlo:
    """An SLO with a page, a ticket and an absence."""
    return compile_slo(redemption.latency_fast)


def _alert(compiled: CompiledSlo, kind: AlertKind, severity: Severity) -> CompiledAlert:
    return next(alert for alert in compiled.alerts if (alert.kind, alert.severity) == (kind, severity))


def test_the_runbook_is_the_file_named_as_the_alert(compiled: CompiledSlo) -> None:
    """Every alert leads to the file that conventions.runbook_file names, below the runbooks' base URL."""
    for alert in compiled.alerts:
        expected = f"https://docs.example.com/runbooks/{names.runbook_file(alert.name)}"
        assert alert_links(alert, compiled, LINKS).runbook == expected


def test_the_dashboard_is_the_slo_board_with_this_slo_chosen(compiled: CompiledSlo) -> None:
    """A page opens the board of its SLO over the last six hours; a rule knows no clock, so up to now."""
    page = _alert(compiled, AlertKind.BURN, Severity.PAGE)
    url = urlsplit(alert_links(page, compiled, LINKS).dashboard)
    assert (url.scheme, url.netloc, url.path) == (
        "https",
        "grafana.example.com",
        f"/d/{names.DETAIL_UID}/slo-detail",
    )
    assert parse_qs(url.query, strict_parsing=True) == {
        "var-service": ["redemption"],
        "var-slo": ["latency-fast"],
        "from": ["now-6h"],
        "to": ["now"],
    }


def test_a_ticket_shows_its_longest_window(compiled: CompiledSlo) -> None:
    """A leak over three days is not to be seen in six hours, so a ticket's board shows its longest window."""
    ticket = _alert(compiled, AlertKind.BURN, Severity.TICKET)
    assert "from=now-72h&" in alert_links(ticket, compiled, LINKS).dashboard


def test_an_absence_shows_six_hours(compiled: CompiledSlo) -> None:
    """An absence has no windows; its board shows when the data went."""
    absent = _alert(compiled, AlertKind.ABSENT, Severity.PAGE)
    assert "from=now-6h&" in alert_links(absent, compiled, LINKS).dashboard


def test_part_hours_round_up() -> None:
    """Grafana knows no `now-3d12h`, so a scaled window of part hours is shown in whole hours, rounded up."""
    slo = replace(redemption.latency_fast, window=Rolling(days=28))
    compiled = compile_slo(slo, compile_slo(slo).policy.scaled(11))
    ticket = _alert(compiled, AlertKind.BURN, Severity.TICKET)
    assert "from=now-7h&" in alert_links(ticket, compiled, LINKS).dashboard


def test_the_watchdog_leads_to_the_overview() -> None:
    """Without the Watchdog every SLO is blind, so its board is the overview."""
    links = watchdog_links(LINKS)
    assert links.runbook == "https://docs.example.com/runbooks/Watchdog.md"
    assert links.dashboard == f"https://grafana.example.com/d/{names.OVERVIEW_UID}/slo-overview?from=now-6h&to=now"
