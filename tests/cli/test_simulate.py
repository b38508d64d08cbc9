"""`slo simulate`: what would have paged, when, and at what cost in budget."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from rich.console import Console

from cli.main import Workspace
from cli.simulate import command, show, timeline
from slo import Alert, Severity, compile_slo
from slo.catalogue import facts_of
from slo.simulation import Alerting, Incident, Traffic, simulate
from slo.windows import DAY, HOUR, MINUTE
from tests.alerts.rules_bench import shop
from tests.slo.project import SHOP, make_project

OUTAGE = "2026-11-03T02:00,30m,5%"


def run(settings: Path, *arguments: str) -> Result:
    """Run the command in this process."""
    result = CliRunner().invoke(command, arguments, obj=Workspace(settings))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def facts(settings: Path, *arguments: str) -> Any:  # noqa: ANN401 - JSON is anything
    """What it says to machines."""
    result = run(settings, "--slo", "shop/availability", *arguments, "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    return json.loads(result.stdout)


@pytest.fixture
def month(tmp_path: Path) -> str:
    """A file with two days of traffic at 10 requests a second, and an outage of ten minutes."""
    begin = datetime(2026, 11, 1, tzinfo=UTC)
    outage = range(36 * 60, 36 * 60 + 10)
    rows = (f"{begin + n * MINUTE:%Y-%m-%dT%H:%M},600,{300 if n in outage else 0}" for n in range(2 * 24 * 60))
    file = tmp_path / "month.csv"
    file.write_text("\n".join(["time,all,bad", *rows]))
    return str(file)


def test_a_file_of_traffic_is_played(project: Path, month: str) -> None:
    """One outage pages once and costs what it costs; nothing is made up around it."""
    found = facts(project, "--traffic", month)
    assert (found["begin"], found["end"]) == ("2026-11-01T00:00:00+00:00", "2026-11-03T00:00:00+00:00")
    assert (found["all"], found["bad"]) == (1_728_000, 3000)
    assert found["budget_events"] == pytest.approx(0.001 * 10 * 30 * 86_400)
    assert (found["pages"], found["incidents"]) == (1, [])
    page = next(one for one in found["firings"] if one["severity"] == "page")
    assert page["alert"] == "ShopAvailabilityPage"
    assert "2026-11-02T12:00:30" <= page["begin"] <= "2026-11-02T12:03:00"
    assert page["budget_spent"] == pytest.approx(page["bad"] / found["budget_events"])
    assert page["end"] < "2026-11-02T13:30"


def test_incidents_on_made_up_traffic(project: Path) -> None:
    """Traffic is there a period before and a day after; each incident says who is told, when, at what cost."""
    found = facts(project, "--traffic", "10/s", "--incident", OUTAGE, "--incident", "2026-11-03T12:00,1m,0.01%")
    assert found["begin"] == "2026-10-04T02:00:00+00:00"
    assert found["end"] == "2026-11-04T12:01:00+00:00"
    outage, stray = found["incidents"]
    assert outage["bad"] == pytest.approx(900)
    assert outage["page"]["after_seconds"] % 30 == 0
    assert 0 < outage["page"]["budget_spent"] < outage["budget_spent"]
    assert (stray["page"], stray["ticket"]) == (None, None)


def test_a_flash_sale_brings_its_own_requests(project: Path) -> None:
    """A rate in an incident is on top of the traffic, and its share of failures spends the budget at once."""
    found = facts(project, "--traffic", "daily:10", "--incident", "2026-11-03T18:00,1h,0.4%,6000/s")
    (sale,) = found["incidents"]
    assert sale["more_per_second"] == 6000
    assert sale["bad"] == pytest.approx(6000 * 3600 * 0.004, rel=0.01)
    assert sale["page"]["after_seconds"] <= 120


def test_a_definition_says_what_traffic_to_expect(project: Path) -> None:
    """Without --traffic it is the expected one, and without that an error says what to give."""
    result = run(project, "--slo", "shop/availability", "--incident", OUTAGE)
    assert result.exit_code == 2
    assert result.stderr.startswith("error: simulation of shop/availability: the definition expects no traffic")
    text = SHOP.replace('owner="', 'expected_events_per_second=Decimal(10),\n    owner="')
    make_project(project.parent, files={"promises/shop.py": text})
    assert facts(project, "--incident", OUTAGE)["all"] == pytest.approx(10 * 31 * 86_400, rel=0.03)


def test_people_read_tables(project: Path, month: str) -> None:
    """A sentence, then the incidents, then what fired; no timeline in a pipe."""
    result = run(project, "--slo", "shop/availability", "--traffic", month, "--incident", "2026-11-02T13:00,10m,0%,5/s")
    lines = result.stdout.splitlines()
    assert lines[0] == (
        "shop/availability  1 page and 1 ticket from 2026-11-01 00:00 to 2026-11-03 00:00 UTC; "
        "3,000 of 1,731,000 events bad, 11.6 % of a period's budget"
    )
    assert lines[2].split() == "incident (UTC) for share bad budget page after ticket after".split()  # noqa: SIM905
    assert lines[3].split() == ["2026-11-02", "13:00", "10m", "0", "%", "+5/s", "0", "0", "%", "never", "0s,", "0", "%"]
    assert lines[6].split()[:6] == ["2026-11-02", "12:02", "38m30s", "page", "budget,", "1h/5m"]
    assert "#" not in result.stdout


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (["--slo", "shop/other"], "SLO shop/other: is not defined; there are: shop/availability"),
        (["--traffic", "much"], "traffic much: is neither a file nor a rate"),
        (["--traffic", "10/s"], "traffic 10/s: made-up traffic has no bad event; give at least one --incident"),
        (["--traffic", "0/s", "--incident", OUTAGE], "traffic 0/s: must be above 0"),
        (["--incident", "2026-11-03"], "incident 2026-11-03: must be begin, length and share"),
        (["--incident", "soon,5m,1%"], "incident soon,5m,1%: 'soon' is no time"),
        (["--incident", "2026-11-03,long,1%"], "incident 2026-11-03,long,1%: 'long' is no duration"),
        (["--incident", "2026-11-03,0s,1%"], "incident 2026-11-03,0s,1%: the length '0s' must be above 0"),
        (["--incident", "2026-11-03,9999999999y,1%"], "incident 2026-11-03,9999999999y,1%: the length"),
        (["--incident", "2026-11-03,5m,101%"], "incident 2026-11-03,5m,101%: the share '101%' must be from 0% to"),
        (["--incident", "2026-11-03,5m,1%,x"], "incident 2026-11-03,5m,1%,x: the rate 'x' must be"),
        (["--incident", OUTAGE, "--incident", "2029-11-03,5m,1%"], "incidents: span 1095 days"),
    ],
)
def test_what_is_wrong_is_one_line(project: Path, arguments: list[str], fault: str) -> None:
    """Exit code 2, the thing and what is allowed; no traceback."""
    given = [] if "--slo" in arguments else ["--slo", "shop/availability"]
    traffic = [] if "--traffic" in arguments else ["--traffic", "10/s"]
    result = run(project, *given, *traffic, *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"error: {fault}")


def test_a_file_of_another_kind_is_one_line(project: Path, tmp_path: Path) -> None:
    """Text of another format, and no text at all."""
    file = tmp_path / "other"
    for content in (b"a,b\n", b"\xff\xfe"):
        file.write_bytes(content)
        result = run(project, "--slo", "shop/availability", "--traffic", str(file))
        assert result.exit_code == 2
        assert len(result.stderr.splitlines()) == 1


def test_a_terminal_has_a_timeline() -> None:
    """One row each for incidents, pages and tickets, over the time in which anything was."""
    begin = datetime(2026, 1, 1, tzinfo=UTC)
    outage = Incident(begin=begin + 12 * HOUR, length=HOUR, bad_share=0.5)
    compiled = compile_slo(shop(alerts=(Alert(Severity.PAGE),)))
    simulation = simulate(Alerting.of(facts_of(compiled)), Traffic.constant(begin, DAY, MINUTE, 10), [outage])
    incident, page, ticket, scale = timeline(simulation, 80)
    assert all(len(line) <= 80 for line in (incident, page, ticket, scale))
    assert incident.startswith("incident  ###")
    assert "#" in page
    assert set(ticket.removeprefix("ticket    ")) == {"."}
    assert scale.split()[:2] == ["2026-01-01", "12:00"]
    console = Console(width=80, force_terminal=True, highlight=False)
    with console.capture() as shown:
        show(simulation, console)
    assert incident in shown.get()


def test_a_slice_is_bad_as_a_whole(project: Path) -> None:
    """An SLO over slices needs no rate; a part of a bad slice is refused."""
    text = SHOP.replace("Counter, Events, Slo", "Counter, Gauge, Events, Slo, TimeSlice").replace(
        'sli=Events(bad=REQUESTS.where(code="error"), all=REQUESTS.where())',
        'sli=TimeSlice(Gauge("shop_busy_ratio", "Busy share.").where(), bad_above=Decimal("0.9"))',
    )
    make_project(project.parent, files={"promises/shop.py": text})
    found = facts(project, "--incident", "2026-11-03T02:00,90m,100%")
    assert (found["bad"], found["incidents"][0]["bad"]) == (90, 90)
    assert found["all"] == pytest.approx(31 * 24 * 60, abs=120)
    for arguments, fault in (
        (["--incident", OUTAGE], "bad or good as a whole"),
        (["--traffic", "5/s"], "need no rate"),
    ):
        result = run(project, "--slo", "shop/availability", *arguments)
        assert result.exit_code == 2
        assert fault in result.stderr
    assert timedelta(seconds=found["incidents"][0]["page"]["after_seconds"]) < HOUR
