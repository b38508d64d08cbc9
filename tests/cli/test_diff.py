"""`slo diff`: what a change of the definitions changes for people, in words."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.cli.running import json_of, slo
from tests.slo.project import SHOP, make_project

LATENCY = SHOP.replace('name="availability"', 'name="checkout"')


@pytest.fixture
def before(project: Path, tmp_path: Path) -> str:
    """The promises as they were, in a file."""
    file = tmp_path / "before.json"
    file.write_text(slo("list", "--json", settings=project).stdout)
    return str(file)


def changed(project: Path, before: str, *edits: tuple[str, str]) -> list[str]:
    """What is said after these edits of the shop's promise."""
    text = SHOP
    for old, new in edits:
        assert old in text
        text = text.replace(old, new)
    make_project(project.parent, files={"promises/shop.py": text})
    result = slo("diff", "--against", before, settings=project)
    assert (result.exit_code, result.stderr) == (0, "")
    return [line.removeprefix("shop/availability ") for line in result.stdout.splitlines()]


def test_no_change_is_said(project: Path, before: str) -> None:
    """In words, and as an empty list."""
    assert changed(project, before) == ["no change in promises, budgets or alerts"]
    assert json_of("diff", "--against", before, settings=project) == {"changes": []}
    assert slo("diff", "--against", before, "--exit-code", settings=project).exit_code == 0


def test_another_objective_is_another_budget_and_other_alerts(project: Path, before: str) -> None:
    """The promise and the budget, old and new, then each alert whose figures change."""
    promise, page, ticket = changed(project, before, ('"99.9"', '"99.95"'))
    assert promise == (
        "promises 99.95 % over 30 days instead of 99.9 % over 30 days: the budget is 21.6 min of full outage "
        "instead of 43.2 min of full outage"
    )
    assert page.startswith(
        "changes the page ShopAvailabilityPage: budget burn over 14.4 in 1h and 5m, 3 bad events or more, a full "
        "outage after 25.9 s; or people burn over 14.4 in 1h and 5m, 50 bad events or more, a full outage after 25.9 s"
    )
    assert "(was: budget burn over 14.4 in 1h and 5m, 3 bad events or more, a full outage after 51.8 s; or" in page
    assert ticket.startswith("changes the ticket ShopAvailabilityTicket: budget burn over 3 in 1d and 2h")


def test_another_period_is_another_promise(project: Path, before: str) -> None:
    """The same percentage over a week is a smaller budget; expected traffic says it in events."""
    more = 'owner="shop-team",\n    window=Rolling(7),\n    expected_events_per_second=Decimal(10),'
    lines = changed(project, before, ('owner="shop-team",', more), ("Events, Slo", "Events, Rolling, Slo"))
    assert lines[0] == (
        "promises 99.9 % over 7 days instead of 99.9 % over 30 days: the budget is 10.08 min of full outage or 6,048 "
        "bad events instead of 43.2 min of full outage"
    )


def test_small_changes_are_told_too(project: Path, before: str) -> None:
    """Owner, description, labels and what is counted, each in one line; none of them changes an alert's figures."""
    assert changed(
        project,
        before,
        ("shop-team", "till-team"),
        ("Shoppers get an answer.", "Shoppers get a good answer."),
        ("    owner=", '    labels={"tier": "1"},\n    owner='),
        ('("ok", "error")', '("ok", "error", "slow")'),
        ('code="error"', 'code=("error", "slow")'),
    ) == [
        (
            'counts differently: bad: shop_requests_total{code=~"error|slow"}; all: shop_requests_total '
            '(was: bad: shop_requests_total{code="error"}; all: shop_requests_total)'
        ),
        "belongs to till-team instead of shop-team",
        "has the labels tier=1 instead of none",
        "says: Shoppers get a good answer.",
    ]


def test_another_burn_changes_every_way_to_alert(project: Path, before: str) -> None:
    """From the budget-true burn to the classic one: said once, then alert by alert."""
    first, page, ticket = changed(project, before, ("    owner=", '    burn="ratio",\n    owner='))
    assert first == "alerts on the ratio burn instead of the budget burn"
    assert page.startswith("changes the page ShopAvailabilityPage: ratio burn over 14.4 in 1h and 5m, ")
    assert ticket.startswith("changes the ticket ShopAvailabilityTicket: ratio burn over 3 in 1d and 2h, ")


def test_alerts_that_come_and_go_are_named(project: Path, before: str) -> None:
    """Without its page an SLO wakes nobody, and the absence waits as well."""
    lines = changed(
        project,
        before,
        ("    owner=", "    alerts=(Alert(Severity.TICKET),),\n    owner="),
        ("import Counter, Events, Slo", "import Alert, Counter, Events, Severity, Slo"),
    )
    assert lines == [
        (
            "changes the ticket ShopAvailabilityAbsent: ticket after 300 s without data "
            "(was: page after 300 s without data)"
        ),
        "no longer has the page ShopAvailabilityPage",
    ]


def test_another_hold_or_minimum_is_told(project: Path, before: str) -> None:
    """How long it may be silent, and how many must fail: both change who is woken when."""
    absent, page = changed(
        project,
        before,
        ("    owner=", "    people_bad_events_min=80,\n    absent_after=timedelta(minutes=9),\n    owner="),
        ("from decimal", "from datetime import timedelta\nfrom decimal"),
    )
    assert absent == (
        "changes the page ShopAvailabilityAbsent: page after 540 s without data (was: page after 300 s without data)"
    )
    assert "people burn over 14.4 in 1h and 5m, 80 bad events or more" in page


def test_what_a_route_may_hang_on_is_told(project: Path, before: str) -> None:
    """Labels and annotations of one alert, and links, decide who hears of it and what they see."""
    alerts = 'alerts=(Alert(Severity.PAGE, labels={"pager": "main"}), Alert(Severity.TICKET)),'
    links = 'links={"Wiki": "https://wiki.example.com"},\n    owner="shop-team",'
    lines = changed(
        project,
        before,
        ('owner="shop-team",', f"{links}\n    {alerts}"),
        ("Events, Slo", "Alert, Events, Severity, Slo"),
    )
    link, absent, page = lines
    assert link == "links to Wiki=https://wiki.example.com"
    assert absent.startswith(
        "changes the page ShopAvailabilityAbsent: page after 300 s without data; labels pager=main"
    )
    assert page.startswith("changes the page ShopAvailabilityPage: ")
    assert "; labels pager=main (was: " in page


def test_new_and_gone_slos_are_told(project: Path, before: str) -> None:
    """One SLO goes, another comes with its alerts: sorted by name, each with all that matters of it."""
    make_project(project.parent, files={"promises/shop.py": LATENCY})
    result = slo("diff", "--against", before, settings=project)
    gone, new, *alerts = result.stdout.splitlines()
    assert gone == "shop/availability is gone: nobody is told any more when it is broken"
    assert new == "shop/checkout is new: 99.9 % over 30 days, owner shop-team"
    assert [alert.split(":")[0] for alert in alerts] == [
        "shop/checkout gets the page ShopCheckoutAbsent",
        "shop/checkout gets the page ShopCheckoutPage",
        "shop/checkout gets the ticket ShopCheckoutTicket",
    ]
    assert json_of("diff", "--against", before, settings=project)["changes"][0] == {
        "slo": "shop/availability",
        "text": "is gone: nobody is told any more when it is broken",
    }


def test_exit_code_is_for_machines_that_ask(project: Path, before: str) -> None:
    """A change is no failure, unless `--exit-code` asks."""
    make_project(project.parent, files={"promises/shop.py": LATENCY})
    assert slo("diff", "--against", before, settings=project).exit_code == 0
    assert slo("diff", "--against", before, "--exit-code", settings=project).exit_code == 1
    assert slo("diff", "--against", before, "--exit-code", "--json", settings=project).exit_code == 1


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not json",
        b"[]",
        b"{}",
        b'{"slos": 1}',
        b'{"slos": [1]}',
        b'{"slos": "abc"}',
        b'{"slos": [{"id": "shop-availability"}]}',
        b"\xff\xfe",
    ],
)
def test_a_file_of_another_kind_is_one_line(project: Path, tmp_path: Path, content: bytes) -> None:
    """Exit code 2, its name and what it should be; no traceback, whatever it holds."""
    (tmp_path / "other.json").write_bytes(content)
    result = slo("diff", "--against", str(tmp_path / "other.json"), settings=project)
    assert (result.exit_code, result.stdout) == (2, "")
    (line,) = result.stderr.splitlines()
    assert line.startswith(
        f"error: diff against {tmp_path / 'other.json'}: is no slos.json as `slo generate` writes it ("
    )


# --- against git ------------------------------------------------------------------------------------------------------


def git(folder: Path, *arguments: str) -> None:
    """Run git with an identity of its own and no settings from outside."""
    subprocess.run(
        ["git", "-c", "user.name=Test", "-c", "user.email=test@example.com", *arguments],
        cwd=folder,
        env={**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull},
        check=True,
        capture_output=True,
    )


@pytest.fixture
def repository(project: Path) -> Path:
    """A repository whose folder `shop` is the project, with its promises committed twice, 99.9 % and then 99.5 %."""
    root = project.parent.parent
    git(root, "init", "--initial-branch=main")
    for objective in ("99.9", "99.5"):
        make_project(project.parent, files={"promises/shop.py": SHOP.replace("99.9", objective)})
        slo("generate", settings=project)
        git(root, "add", "--all")
        git(root, "commit", "--message", objective)
    return project


def test_a_diff_is_against_the_last_commit_by_default(repository: Path) -> None:
    """What is committed is what it was; also when the project is a folder of a larger repository."""
    assert slo("diff", settings=repository).stdout == "no change in promises, budgets or alerts\n"
    make_project(repository.parent, files={"promises/shop.py": SHOP})
    assert "promises 99.9 % over 30 days instead of 99.5 % over" in slo("diff", settings=repository).stdout


def test_any_revision_will_do(repository: Path) -> None:
    """A branch, a tag, or the commit before the last."""
    text = slo("diff", "--against", "HEAD~1", settings=repository).stdout
    assert text.startswith("shop/availability promises 99.5 % over 30 days instead of 99.9 % over 30 days")
    assert slo("diff", "--against", "main", settings=repository).exit_code == 0


@pytest.mark.parametrize("revision", ["no-such-branch", "--output=stolen", "--format=%H", "HEAD~99", "HEAD:x"])
def test_a_revision_that_git_does_not_know_is_one_line(repository: Path, revision: str) -> None:
    """Exit code 2 and git's own words; what looks like an option is a revision, and does nothing."""
    before = sorted(path.name for path in repository.parent.iterdir())
    result = slo("diff", "--against", revision, settings=repository)
    assert (result.exit_code, result.stdout) == (2, "")
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"error: diff against {revision}: fatal: ")
    assert sorted(path.name for path in repository.parent.iterdir()) == before


def test_no_revision_is_no_index(repository: Path) -> None:
    """Git takes an empty revision for the index, so an unset variable would compare with what was just generated."""
    result = slo("diff", "--against", "", settings=repository)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == "error: diff: against is empty; give a git revision or a slos.json\n"


def test_outside_of_a_repository_it_is_said(project: Path) -> None:
    """Exit code 2, in git's words."""
    result = slo("diff", settings=project)
    assert result.exit_code == 2
    assert "not a git repository" in result.stderr


def test_a_revision_without_promises_is_said(repository: Path) -> None:
    """A commit from before `generated/` existed."""
    root = repository.parent.parent
    git(root, "checkout", "--orphan", "bare")
    git(root, "rm", "-r", "--cached", "--quiet", ".")
    git(root, "commit", "--allow-empty", "--message", "nothing")
    result = slo("diff", settings=repository)
    assert result.exit_code == 2
    assert "slos.json" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_the_file_that_generate_writes_is_what_diff_reads(project: Path) -> None:
    """One format for both."""
    slo("generate", settings=project)
    written = project.parent / "generated/slos.json"
    assert json.loads(written.read_text())["slos"]
    assert slo("diff", "--against", str(written), settings=project).stdout.startswith("no change")
