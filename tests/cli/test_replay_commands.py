"""`slo simulate` and `slo diff --traffic` as people call them: by the front door, with their exit codes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.cli.running import json_of, script, slo
from tests.slo.project import SHOP, make_project

BEGIN = 1_769_904_000


@pytest.fixture
def traffic(tmp_path: Path) -> str:
    """Six hours at ten requests a second, of which half fail for ten minutes."""
    outage = range(120, 130)
    rows = (f"{BEGIN + 60 * minute},600,{300 if minute in outage else 0}" for minute in range(360))
    file = tmp_path / "traffic.csv"
    file.write_text("\n".join(["time,all,bad", *rows]))
    return str(file)


@pytest.fixture
def snapshot(project: Path, tmp_path: Path) -> str:
    """The promises as they were: with the classic burn."""
    classic = SHOP.replace('owner="shop-team"', 'owner="shop-team",\n    burn="ratio"')
    before = make_project(tmp_path / "before", files={"promises/shop.py": classic})
    assert slo("generate", settings=before).exit_code == 0
    assert project.is_file()
    return str(before.parent / "generated" / "slos.json")


def test_simulate_says_what_would_have_paged(project: Path, traffic: str) -> None:
    """One outage, one page, two minutes after it began, as a table and as JSON; exit code 0."""
    shown = slo("simulate", "--slo", "shop/availability", "--traffic", traffic, settings=project)
    assert shown.exit_code == 0
    assert shown.stdout.startswith(
        "shop/availability  1 page and 1 ticket from 2026-02-01 00:00 to 2026-02-01 06:00 UTC"
    )
    told = json_of("simulate", "--slo", "shop-availability", "--traffic", traffic, settings=project)
    assert (told["pages"], told["tickets"], told["bad"]) == (1, 1, 3000)
    assert next(one for one in told["firings"] if one["severity"] == "page")["begin"][:16] > "2026-02-01T02:00"


def test_simulate_is_one_of_the_commands(project: Path) -> None:
    """With its help, and the installed script runs it."""
    assert "simulate" in slo("--help").stdout
    done = script(
        *("--settings", str(project), "simulate", "--slo", "shop/availability", "--traffic", "10/s"),
        *("--incident", "2026-02-01T02:00,10m,50%"),
        folder=project.parent,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "1 page and " in done.stdout


def test_diff_plays_the_traffic_on_both(project: Path, snapshot: str, traffic: str) -> None:
    """Words by default, then what it would have meant; exit code 0 unless one asks for another."""
    shown = slo("diff", "--against", snapshot, "--traffic", traffic, settings=project)
    assert shown.exit_code == 0
    lines = shown.stdout.splitlines()
    assert lines[0] == "shop/availability alerts on the budget burn instead of the ratio burn"
    assert any(
        line.startswith("shop/availability would have paged 1 time, as before, over 2026-02-01") for line in lines
    )
    asked = slo("diff", "--against", snapshot, "--traffic", traffic, "--exit-code", settings=project)
    assert (asked.exit_code, asked.stdout) == (1, shown.stdout)


def test_diff_writes_markdown(project: Path, snapshot: str, traffic: str) -> None:
    """A list, a table and sentences, and nothing else on standard output; the same with --exit-code, but 1."""
    named = f"shop/availability={traffic}"
    shown = slo("diff", "--against", snapshot, "--traffic", named, "--markdown", settings=project)
    assert (shown.exit_code, shown.stderr) == (0, "")
    assert shown.stdout.startswith("**shop/availability**\n\n- alerts on the budget burn")
    assert "\n| | before | after |\n| --- | ---: | ---: |\n| pages | 1 | 1 |\n" in shown.stdout
    asked = slo("diff", "--against", snapshot, "--markdown", "--exit-code", settings=project)
    assert asked.exit_code == 1
    assert "| before |" not in asked.stdout


def test_diff_without_a_change_is_silent_in_its_exit_code(project: Path, traffic: str) -> None:
    """Nothing changes: 0 also with --exit-code, in every form."""
    assert slo("generate", settings=project).exit_code == 0
    same = str(project.parent / "generated" / "slos.json")
    for form, said in (
        ([], "no change in promises, budgets or alerts\n"),
        (["--markdown"], "No change in promises, budgets or alerts.\n"),
    ):
        told = slo("diff", "--against", same, "--traffic", traffic, "--exit-code", *form, settings=project)
        assert (told.exit_code, told.stdout) == (0, said)


def test_diff_tells_machines_of_both_plays(project: Path, snapshot: str, traffic: str) -> None:
    """Changes and replays under one roof; without traffic there is no such key."""
    told = json_of("diff", "--against", snapshot, "--traffic", traffic, settings=project)
    assert [(one["before"]["pages"], one["after"]["pages"]) for one in told["replays"]] == [(1, 1)]
    assert "replays" not in json_of("diff", "--against", snapshot, settings=project)


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (["simulate"], "Missing option '--slo'"),
        (["simulate", "--slo", "shop/none"], "error: SLO shop/none: is not defined; there are: shop/availability"),
        (
            ["simulate", "--slo", "shop/availability"],
            "error: simulation of shop/availability: the definition",
        ),
        (["simulate", "--slo", "shop/availability", "--traffic", "much"], "error: traffic much: is neither a file nor"),
        (["diff", "--against", "SNAPSHOT", "--traffic", "nowhere.csv"], "error: nowhere.csv: No such file"),
        (["diff", "--against", "SNAPSHOT", "--traffic", "SNAPSHOT"], "error: traffic SNAPSHOT"),
        (["diff", "--against", "SNAPSHOT", "--traffic", "shop/none=x.csv"], "error: traffic shop/none=x.csv: there is"),
        (["diff", "--against", "nowhere"], "error: diff against nowhere: "),
    ],
)
def test_wrong_usage_is_two(project: Path, snapshot: str, arguments: Sequence[str], fault: str) -> None:
    """Exit code 2, the fault in words on standard error, nothing on standard output."""
    told = slo(*(one.replace("SNAPSHOT", snapshot) for one in arguments), settings=project)
    assert (told.exit_code, told.stdout) == (2, "")
    assert fault.replace("SNAPSHOT", snapshot) in told.stderr
    assert "Traceback" not in told.stderr


def test_a_snapshot_of_another_format_is_named(project: Path, tmp_path: Path, traffic: str) -> None:
    """Before anything is said."""
    other = tmp_path / "slos.json"
    other.write_text(json.dumps({"slos": [{"id": "shop-availability"}]}))
    told = slo("diff", "--against", str(other), "--traffic", traffic, "--markdown", settings=project)
    assert (told.exit_code, told.stdout) == (2, "")
    assert "is no slos.json as `slo generate` writes it" in told.stderr
