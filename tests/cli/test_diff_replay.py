"""`slo diff --traffic`: what a change would have meant for last month, in pages, tickets and budget."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from cli.diff import Facts, changes, markdown, replay_changes, replay_facts, replays
from slo import Alert, RatioQuery, Severity, Slo, SloError, compile_slo
from slo.catalogue import facts_of
from slo.windows import MINUTE
from tests.alerts.rules_bench import shop

CLASSIC = shop(burn="ratio")
OURS = shop()


def facts(*slos: Slo) -> list[Facts]:
    """As a `slos.json` holds them."""
    read: list[Facts] = json.loads(json.dumps([facts_of(compile_slo(slo)) for slo in slos]))
    return read


def said(before: list[Facts], after: list[Facts], traffic: str) -> list[str]:
    """What the command says of traffic."""
    return [change.text for one in replays(before, after, [traffic]) for change in replay_changes(one)]


@pytest.fixture
def nights(tmp_path: Path) -> str:
    """A file with three days: busy days, nights with a request a minute, one failure each; and an outage by day."""
    begin = datetime(2026, 11, 1, tzinfo=UTC)

    def row(minute: int) -> str:
        hour, outage = minute // 60 % 24, range(36 * 60, 36 * 60 + 10)
        every = 600 if hour >= 6 else 1
        bad = 300 if minute in outage else int(minute % 1440 == 180)
        return f"{begin + minute * MINUTE:%Y-%m-%dT%H:%M},{every},{bad}"

    file = tmp_path / "nights.csv"
    file.write_text("\n".join(["time,all,bad", *map(row, range(3 * 1440))]))
    return str(file)


def test_a_change_says_how_many_pages_it_saves(nights: str) -> None:
    """From the classic burn to ours: the stray errors of three nights wake nobody any more, the outage still does."""
    pages, *rest = said(facts(CLASSIC), facts(OURS), nights)
    assert pages.startswith("would have paged 1 time instead of 4, 3 fewer, over 2026-11-01 to 2026-11-04; a typical")
    assert [text.split(" at ")[0] for text in rest][:3] == [
        f"no longer: the page of 2026-11-0{day} 03:01" for day in (1, 2, 3)
    ]
    assert any(text.startswith("would have sent tickets ") for text in rest)


def test_the_other_way_round_it_says_what_is_new(nights: str) -> None:
    """More pages are named one by one as well."""
    texts = said(facts(OURS), facts(CLASSIC), nights)
    assert texts[0].startswith("would have paged 4 times instead of 1, 3 more, over")
    assert sum(text.startswith("new: the page of 2026-11-0") for text in texts) == 3


def test_another_objective_is_another_budget(nights: str) -> None:
    """The same events spend five times as much of a fifth of the budget."""
    texts = said(facts(OURS), facts(replace(OURS, objective=shop(objective=OURS.objective).objective)), nights)
    assert texts == []
    stricter = facts(shop(objective=OURS.objective + (100 - OURS.objective) * 4 / 5))
    last = said(facts(OURS), stricter, nights)[-1]
    spent = [float(word) for word in last.replace("%", "").split() if word.replace(".", "").isdigit()]
    assert last.startswith("would have spent ")
    assert spent[0] == pytest.approx(5 * spent[1], rel=0.01)


def test_slos_come_and_go(nights: str) -> None:
    """Where there was or will be no promise, nobody is told."""
    assert said([], facts(OURS), nights)[0].startswith("would have paged 1 time instead of 0, 1 more, over")
    assert said(facts(OURS), [], nights)[0] == (
        "would have paged 0 times instead of 1, 1 fewer, over 2026-11-01 to 2026-11-04"
    )


def test_whose_traffic_it_is(nights: str) -> None:
    """That of the one SLO whose alerts change, or of the named one; with several, the error says how to name it."""
    other = shop(name="other", owner="till-team")
    both = facts(OURS, replace(other, owner="shop-team"))
    assert [one.slo for one in replays(both, facts(CLASSIC, other), [nights])] == ["shop/availability"]
    (named,) = replays(both, facts(CLASSIC, other), [f"shop/other={nights}"])
    assert named.slo == "shop/other"
    assert replay_changes(named)[0].text.startswith("would have paged 1 time, as before, over")
    with pytest.raises(SloError, match="alerts of shop/availability, shop/other change; write shop/availability=/"):
        replays(both, facts(CLASSIC, replace(other, burn="ratio")), [nights])
    with pytest.raises(SloError, match="there is no SLO shop/none; there are: shop/availability, shop/other"):
        replays(both, both, [f"shop/none={nights}"])
    with pytest.raises(FileNotFoundError):
        replays(both, facts(CLASSIC, other), ["nowhere.csv"])


def test_an_slo_that_counts_nothing_is_in_nobodys_way(nights: str) -> None:
    """A ratio query cannot be simulated; beside it another SLO still can."""
    ratio = shop(name="ratio", sli=RatioQuery("avg(x[{{.window}}])"), burn="ratio")
    assert len(said(facts(CLASSIC, ratio), facts(OURS, ratio), nights)) >= 2
    with pytest.raises(SloError, match="ratio query does not say how many"):
        replays(facts(ratio), facts(ratio), [f"shop/ratio={nights}"])


def test_machines_get_both_simulations(nights: str) -> None:
    """Each as `slo simulate --json` has it; none where there is no definition."""
    (replay,) = replays(facts(CLASSIC), facts(OURS), [nights])
    found: dict[str, Any] = json.loads(json.dumps(replay_facts(replay)))
    assert (found["slo"], found["traffic"]) == ("shop/availability", nights)
    assert (found["before"]["pages"], found["after"]["pages"]) == (4, 1)
    (new,) = replays([], facts(OURS), [nights])
    assert replay_facts(new)["before"] is None


def test_a_pull_request_gets_markdown(nights: str) -> None:
    """The changes as a list, then a table, before and after, then the sentences."""
    before, after = facts(CLASSIC), facts(shop(alerts=(Alert(Severity.PAGE),)))
    text = markdown(changes(before, after), replays(before, after, [nights]))
    lines = text.splitlines()
    assert lines[:3] == ["**shop/availability**", "", "- alerts on the budget burn instead of the ratio burn"]
    table = lines[lines.index("| | before | after |") :]
    assert table[1:3] == ["| --- | ---: | ---: |", "| pages | 4 | 1 |"]
    assert "| tickets | " in text
    assert "- would have paged 1 time instead of 4, 3 fewer, over" in text
    assert markdown([], []) == "No change in promises, budgets or alerts.\n"
