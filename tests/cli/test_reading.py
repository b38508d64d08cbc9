"""`slo check`, `slo list` and `slo explain`: what people read, and the same for machines."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.cli.running import json_of, slo
from tests.contract.places import ROOT
from tests.slo.project import SHOP, make_project

OURS = ROOT / "pyproject.toml"

ODD = """
from decimal import Decimal
from slo import Alert, Queries, RatioQuery, Rolling, Severity, Slo

markup = Slo(
    service="odd", name="a-name-that-is-much-longer-than-the-others-and-would-not-fit-into-eighty-columns-at-all",
    description="[red]not[/] markup :bell:", objective=Decimal("99.9"), owner="[bold]team[/] :key:",
    sli=Queries(bad="job:key:rate[{{.window}}]", all='all:bell:rate{x=~"[/]a"}[{{.window}}]'),
)
silent = Slo(
    service="odd", name="silent", description="Nobody is told.", objective=Decimal("99.9"), owner="nobody", alerts=(),
    sli=RatioQuery("x[{{.window}}]"), burn="ratio", window=Rolling(1),
)
"""


# --- check ------------------------------------------------------------------------------------------------------------


def test_check_of_sound_definitions_says_yes() -> None:
    """Ours are sound: exit code 0 and one line."""
    result = slo("check", settings=OURS)
    assert (result.exit_code, result.stderr) == (0, "")
    assert re.fullmatch(r"\d+ SLOs, 0 problems, 0 warnings\n", result.stdout)
    assert json_of("check", settings=OURS) == {"findings": []}


def test_check_tells_problems_and_exits_with_1(project: Path) -> None:
    """Every problem on a line of its own, whole, however long; a machine gets level, SLO and text."""
    make_project(project.parent, files={"promises/copy.py": SHOP})
    result = slo("check", settings=project)
    assert result.exit_code == 1
    lines = result.stdout.splitlines()
    assert len(lines) == 9
    assert (
        "problem shop/availability: has the alert 'ShopAvailabilityPage', as shop/availability has; "
        "set alert_name on one of them"
    ) in lines
    assert lines[-1] == "2 SLOs, 8 problems, 0 warnings"
    findings = json_of("check", settings=project)["findings"]
    assert len(findings) == 8
    assert findings[0].keys() == {"level", "subject", "text"}
    assert {finding["level"] for finding in findings} == {"problem"}
    assert slo("check", "--json", settings=project).exit_code == 1


def test_a_warning_does_not_fail(project: Path) -> None:
    """An objective finer than its traffic is told, and still generated."""
    thin = SHOP.replace("    owner=", '    expected_events_per_second=Decimal("0.01"),\n    owner=')
    make_project(project.parent, files={"promises/shop.py": thin})
    result = slo("check", settings=project)
    assert result.exit_code == 0
    warning, summary = result.stdout.splitlines()
    assert warning.startswith(
        "warning shop/availability: the objective is finer than the traffic can show: 0.01 events/s"
    )
    assert summary == "1 SLOs, 0 problems, 1 warnings"
    assert slo("generate", settings=project).exit_code == 0


# --- list -------------------------------------------------------------------------------------------------------------


def test_list_shows_every_promise_in_a_line() -> None:
    """Name, objective, period, budget, who is told, owner."""
    result = slo("list", settings=OURS)
    assert (result.exit_code, result.stderr) == (0, "")
    promises, causes = result.stdout.split("\n\n")
    header, *lines = [re.split(r"  +", line.strip()) for line in promises.splitlines()]
    assert header == ["SLO", "objective", "period", "budget", "alerts", "owner"]
    assert ["redemption/availability", "99.99 %", "30 days", "4.32 min", "page, ticket", "loyalty-sre"] in lines
    header, *lines = [re.split(r"  +", line.strip()) for line in causes.splitlines()]
    assert header == ["cause", "signal", "when", "for", "owner"]
    assert ["rds/storage-low", "saturation", "rds_storage_free_ratio < 0.1", "5m", "loyalty-sre"] in lines


def test_list_cuts_nothing_off_in_a_pipe(project: Path) -> None:
    """A pipe has no width: names are whole for grep, and what looks like markup or an emoji is text."""
    make_project(project.parent, files={"promises/shop.py": ODD})
    long, silent = slo("list", settings=project).stdout.splitlines()[1:]
    assert "odd/a-name-that-is-much-longer-than-the-others-and-would-not-fit-into-eighty-columns-at-all " in long
    assert long.rstrip().endswith("[bold]team[/] :key:")
    assert re.split(r"  +", silent.strip()) == ["odd/silent", "99.9 %", "1 day", "1.44 min", "nobody", "nobody"]


def test_list_for_machines_is_the_catalogue(project: Path) -> None:
    """`slo list --json` is what `slo generate` writes to slos.json."""
    slo("generate", settings=project)
    written = (project.parent / "generated/slos.json").read_text()
    assert slo("list", "--json", settings=project).stdout == written


# --- explain ----------------------------------------------------------------------------------------------------------


def test_explain_says_the_budget_and_who_is_told_when() -> None:
    """99.99 % of 30 days are 4 min 19 s; at 27 events/s 6,998 bad events; a full outage pages after 5 seconds."""
    result = slo("explain", "redemption/availability", settings=OURS)
    assert (result.exit_code, result.stderr) == (0, "")
    text = result.stdout
    assert text.startswith("redemption/availability  A guest who spends or looks up points gets an answer;")
    assert "Promise   99.99 % of events are good over 30 days; owner loyalty-sre\n" in text
    assert 'bad: redemption_requests_total{outcome=~"error|shed|timeout"}; all: redemption_requests_total\n' in text
    assert "Why so    99.99 % is 4 minutes of outage a month:" in text
    assert "Budget    4 min 19 s of full outage at even traffic\n" in text
    assert "6,998 bad events at the expected 27 events/s\n" in text
    assert "RedemptionAvailabilityPage  page: wakes somebody up\n" in text
    assert (
        "  when the budget goes: 14.4 times too fast over 1h and still over 5m, so 2 % of it is gone, the objective is "
        "violated, and 3 events or more were bad; a full outage: after 5 s\n"
    ) in text
    assert (
        "  when many people fail: more than 0.144 % over 1h and still over 5m, and 50 events or more were bad\n" in text
    )
    assert "  when the budget goes: 1 times too fast over 3d and still over 6h, so 10 % of it is gone" in text
    assert "RedemptionAvailabilityTicket  ticket: waits for working hours\n" in text
    assert "RedemptionAvailabilityAbsent  page: wakes somebody up\n  when the SLI has had no data for 5m\n" in text


@pytest.mark.parametrize(
    ("objective", "budget", "outage"),
    [
        ("98.765", "8 h 53 min", "10 min 40 s"),
        ("99", "7 h 12 min", "8 min 38 s"),
        ("99.9", "43 min 12 s", "51 s"),
        ("99.9999", "2 s", "0.052 s"),
    ],
)
def test_explain_uses_units_that_people_think_in(project: Path, objective: str, budget: str, outage: str) -> None:
    """The two largest units; fractions only below a second."""
    make_project(project.parent, files={"promises/shop.py": SHOP.replace("99.9", objective)})
    text = slo("explain", "shop/availability", settings=project).stdout
    assert f"Budget    {budget} of full outage" in text
    assert f"a full outage: after {outage}\n" in text
    assert "at the expected" not in text


def test_explain_takes_the_id_as_well(project: Path) -> None:
    """`sloth_id` is what an alert shows."""
    by_id, by_path = (slo("explain", name, settings=project) for name in ("shop-availability", "shop/availability"))
    assert by_id.stdout == by_path.stdout != ""


def test_explain_shows_texts_as_they_are(project: Path) -> None:
    """Brackets and colons are a query's, not the terminal's; nobody told is said."""
    make_project(project.parent, files={"promises/shop.py": ODD})
    name = "odd-a-name-that-is-much-longer-than-the-others-and-would-not-fit-into-eighty-columns-at-all"
    text = slo("explain", name, settings=project).stdout
    assert "[red]not[/] markup :bell:\n" in text
    assert "owner [bold]team[/] :key:\n" in text
    assert 'bad: job:key:rate[{{.window}}]; all: all:bell:rate{x=~"[/]a"}[{{.window}}]\n' in text
    assert slo("explain", "odd/silent", settings=project).stdout.endswith("Alerts    nobody is told\n")


def test_explain_of_the_classic_burn_says_the_ratio(project: Path) -> None:
    """One way a pair, with the share of bad events that it takes."""
    make_project(
        project.parent, files={"promises/shop.py": SHOP.replace("    owner=", '    burn="ratio",\n    owner=')}
    )
    assert (
        "  when more than 1.44 % are bad over 1h and still over 5m (2 % of the budget); a full outage: after 51 s\n"
    ) in slo("explain", "shop/availability", settings=project).stdout


def test_explain_of_an_unknown_name_lists_the_known() -> None:
    """Exit code 2 and one line."""
    result = slo("explain", "redemption/speed", settings=OURS)
    assert (result.exit_code, result.stdout) == (2, "")
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: SLO redemption/speed: is not defined; there are: ")
    assert "redemption/sealing, redemption/settlement, redemption/verification" in line


def test_explain_of_a_cause_says_when_and_why() -> None:
    """By its path, its id or its alert, as a ticket shows that; a machine gets the same facts as from `list`."""
    result = slo("explain", "rds/storage-low", settings=OURS)
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.startswith("rds/storage-low  The database's disk is nearly full.\n")
    assert "          rds_storage_free_ratio < 0.1\n" in result.stdout
    assert "Why so    AWS recommends 10 %" in result.stdout
    assert "RdsStorageLow  ticket: waits for working hours; muted while rds pages\n" in result.stdout
    for name in ("rds-storage-low", "RdsStorageLow"):
        assert slo("explain", name, settings=OURS).stdout == result.stdout
    explained = json_of("explain", "rds/storage-low", settings=OURS)
    assert explained in json_of("list", settings=OURS)["causes"]


def test_explain_for_machines_is_one_entry_of_the_list(project: Path) -> None:
    """The same facts in every place."""
    explained = json_of("explain", "shop/availability", settings=project)
    assert [explained] == json_of("list", settings=project)["slos"]
