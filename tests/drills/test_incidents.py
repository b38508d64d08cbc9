"""The judgement of rehearsed incidents, their table, and the command; the rehearsals are in tests/e2e."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from drills.harness import Notification
from drills.incidents import INCIDENTS, Incident
from drills.incidents.expected import absent, because_of, burns
from drills.incidents.incident import judged
from drills.incidents.report import Result, Row, table, update
from drills.incidents.stage import EXPORTERS, causes, promises
from slo import SloError
from slo.definitions import redemption
from tests.contract.places import ROOT

INCIDENT = INCIDENTS["database-slow"]
[EXPECTED] = INCIDENT.expects
STRUCK_AT = 1000.0


def notification(
    at: float, *alerts: str, route: str = "page", status: str = "firing", began: str = "1"
) -> Notification:
    """What Alertmanager sends, some seconds after the fault."""
    body: dict[str, Any] = {
        "status": status,
        "alerts": [
            {"status": status, "fingerprint": alert, "startsAt": began, "labels": {"alertname": alert}}
            for alert in alerts
        ],
    }
    return Notification(f"/{route}", body, STRUCK_AT + at)


WATCHDOG = notification(0, "Watchdog", route="watchdog")
IN_TIME = notification(EXPECTED.within_seconds - 0.1, EXPECTED.alert)


def violations(*heard: Notification, incident: Incident = INCIDENT) -> list[str]:
    """What is wrong with what was heard."""
    return list(judged(incident, [WATCHDOG, *heard], STRUCK_AT))


def test_the_right_alert_in_time_is_right() -> None:
    """Also with its end, and with what may come."""
    ended = replace(
        IN_TIME, body={**IN_TIME.body, "status": "resolved", "alerts": [{**IN_TIME.alerts[0], "status": "resolved"}]}
    )
    [(other, _)] = INCIDENT.may_come
    assert violations(notification(1, other), IN_TIME, ended) == []


@pytest.mark.parametrize(
    ("heard", "wrong"),
    [
        ([], f"{EXPECTED.alert} did not come"),
        ([notification(EXPECTED.within_seconds + 0.1, EXPECTED.alert)], f"{EXPECTED.alert} came after"),
        ([IN_TIME, notification(20, EXPECTED.alert)], "told twice"),
        ([IN_TIME, notification(20, EXPECTED.alert, began="2")], f"{EXPECTED.alert} began 2 times"),
        ([IN_TIME, notification(20, EXPECTED.alert, route="ticket")], f"{EXPECTED.alert} came to ticket"),
        ([IN_TIME, notification(20, "RedemptionSettlementPage")], "RedemptionSettlementPage came to page"),
    ],
    ids=["missing", "late", "repeated", "flapping", "wrong-route", "another"],
)
def test_whatever_is_wrong_is_told(heard: list[Notification], wrong: str) -> None:
    """A missing, late, repeated, flapping or misled alert, and any other one."""
    assert [one for one in violations(*heard) if one.startswith(wrong)]


def test_silence_of_the_watchdog_is_told() -> None:
    """Without it nobody knows that the way to people works."""
    assert list(judged(INCIDENT, [IN_TIME], STRUCK_AT)) == ["Watchdog did not come"]


def test_promised_times_follow_from_the_policy() -> None:
    """Windows, factors and holds of the definitions, divided by 60; then scrapes, evaluations, group and delivery."""
    # 14.4 x 1 % of 10 a second over 60 s are 86.4 bad events: 8.64 s; and 2 + 1 + 1 + 1 s.
    burning = burns(redemption.latency_fast, bad_per_second=10, of_per_second=10)
    assert burning.within_seconds == pytest.approx(8.64 + 5)
    # 14.4 x 0.01 % of 20 a second over 60 s are 1.7, but three are the least.
    assert burns(redemption.availability, bad_per_second=1, of_per_second=20).within_seconds == pytest.approx(3 + 5)
    assert absent(redemption.availability).within_seconds == pytest.approx(5 + 5)
    assert absent(redemption.sealing).route == "ticket"
    # A cause is evaluated once a second, and a ticket waits for five.
    assert because_of("fallback-active", notice_seconds=0).within_seconds == pytest.approx(5 + 2 + 2 + 5 + 1)


def test_ages_and_ranges_are_divided_as_well() -> None:
    """Five minutes of waiting are five seconds, and a rate over a quarter of an hour is one over 15 s."""
    by_name = {one.slo.name: one.slo.sli for one in promises()}
    assert [by_name[name].age_max_seconds for name in ("settlement", "verification", "sealing")] == [5, 30, 10]  # type: ignore[union-attr]
    [idle] = [one for one in causes() if one.name == "no-redemptions"]
    assert (idle.hold.total_seconds(), "[15s]" in idle.condition.promql) == (15, True)
    assert "[15m]" not in "".join(one.condition.promql for one in causes(frozenset({EXPORTERS})))


def result(measured: float | None) -> Result:
    """A result with one alert."""
    row = Row(alert="Page", route="page", promised_seconds=13.6, measured_seconds=measured, because="5 + 8.6")
    return Result(incident=INCIDENT, rows=(row,), violations=(), bad=3)


def test_the_document_takes_the_figures_between_its_marks(tmp_path: Path) -> None:
    """The rest of it stays, also the second time; without the marks it is refused."""
    document = tmp_path / "incidents.md"
    document.write_text("before\n<!-- measured: begin -->\nstale figures\n<!-- measured: end -->\nafter\n")
    update([result(12.26)], document)
    update([result(12.26)], document)
    text = document.read_text()
    assert text.startswith("before\n<!-- measured: begin -->\n\n| failure ")
    assert text.endswith("<!-- measured: end -->\nafter\n")
    assert "| `Page` | page | 13.6 s | 12.3 s | 12 min |" in text
    assert "- 13.6 s = 5 + 8.6: `Page` (database-slow)" in text
    assert "stale figures" not in text
    document.write_text("nothing")
    with pytest.raises(SloError, match="there must be one line <!-- measured: begin -->"):
        update([result(1)], document)


def test_an_alert_that_did_not_come_has_no_figure() -> None:
    """The table says so, and JSON has null."""
    assert "| 13.6 s | did not come |  |" in table([result(None)])
    assert json.loads(json.dumps(result(None).as_json()))["alerts"][0]["measured_seconds"] is None


def test_the_document_tells_of_every_incident() -> None:
    """docs/incidents.md has a row for each alert, as the table in the code has it now."""
    text = (ROOT / "docs/incidents.md").read_text()
    for incident in INCIDENTS.values():
        assert f"**{incident.name}.** {incident.meaning}" in text
        for expected in incident.expects:
            assert f"| `{expected.alert}` | {expected.route} | {expected.within_seconds:.1f} s |" in text


@pytest.mark.parametrize("arguments", [["nonsense"], ["latency", "--update"]])
def test_wrong_use_is_told(arguments: list[str]) -> None:
    """Exit code 2, one error, no traceback, and nothing is started."""
    command = [sys.executable, "-m", "drills.incidents", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "python -m drills.incidents: error: " in done.stderr
    assert "Traceback" not in done.stderr
