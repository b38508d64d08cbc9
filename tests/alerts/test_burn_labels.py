"""Labels may appear and change: the rules of an SLO never collide, and its budget goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from alerts.prometheus import rule_groups
from slo import compile_slo
from tests.alerts.rules_bench import (
    FIRING,
    HOUR,
    LINKS,
    MINUTE,
    PAGE,
    SCRAPE,
    SECOND,
    Stretch,
    Value,
    asks,
    guarded,
    play,
    shop,
    times,
    traffic,
)

pytestmark = pytest.mark.e2e

EVERY_SERIES = '{__name__=~"slo:.+|sloth_slo_info"}'
REMAINING = "slo:period_error_budget_remaining:ratio"
RATIO = "slo:sli_error:ratio_rate30d"


def test_a_label_of_the_definition_may_change(tmp_path: Path) -> None:
    """A new tier on the SLO: from then on the series carry it, each once, and the budget is where it was.

    The rules before and after the change run in one promtool, each in its own time.
    """
    change_at = HOUR
    old, new = shop(labels={"tier": "2"}), shop(labels={"tier": "1", "region": "eu"})
    series = traffic(Stretch(HOUR, 10, 0.0008), Stretch(30 * MINUTE, 10, 0.0002))
    before, after = change_at - MINUTE, change_at + 5 * MINUTE
    moments = [before, *times(change_at, change_at + 20 * MINUTE, MINUTE)]

    def both(rules: dict[str, Any]) -> None:
        old_groups = guarded(rule_groups(compile_slo(old), LINKS), compile_slo(old).policy, SCRAPE, SECOND * 0)
        for group in rules["groups"]:
            _only(group, f"vector(time()) >= {change_at / SECOND:g}")
        for group in old_groups:
            group["name"] += "-old"
            _only(group, f"vector(time()) < {change_at / SECOND:g}")
        rules["groups"] += old_groups

    seen = play(tmp_path, new, series, asks([EVERY_SERIES, REMAINING, RATIO, FIRING], moments), change=both)
    for moment in moments:
        recorded = [labels["__name__"] for labels, _ in seen.series(EVERY_SERIES, moment)]
        assert len(recorded) == len(set(recorded)), f"two values of one series at {moment}"
        assert seen.firing(moment) == []
        tiers = {labels.get("tier") for labels, _ in seen.series(EVERY_SERIES, moment)}
        assert tiers == {None, "2" if moment < change_at else "1"}
    assert seen.number(RATIO, before) == pytest.approx(0.0008, rel=1e-3)
    assert seen.number(RATIO, after) == pytest.approx(0.0008, rel=0.01)
    assert seen.number(REMAINING, after) == pytest.approx(0.2, abs=0.01)


def test_two_sets_of_read_series_at_once_break_nothing(tmp_path: Path) -> None:
    """What an old version of the rules recorded may live on beside the new: no rule fails.

    The page still comes, as one alert, with a text.
    """
    identity = 'sloth_id="shop-availability", sloth_service="shop", sloth_slo="availability", tier="old"'
    left_over = (RATIO, "slo:period_burn_rate:ratio")
    series = traffic(Stretch(HOUR, 10), Stretch(10 * MINUTE, 10, 0.5))
    series |= {f'{name}{{{identity}, sloth_window="30d"}}': [0.00001] * 150 for name in left_over}
    moment = 63 * MINUTE  # before the budget is gone, so that the text says when it will be
    seen = play(tmp_path, shop(), series, asks([REMAINING, FIRING], moment), texts=[(PAGE, moment)])
    assert seen.value(REMAINING, moment) is not None
    assert seen.firing(moment).count(PAGE) == 1
    (page,) = seen.texts(PAGE, moment)
    assert "The budget goes" in page.annotations["description"]
    assert ", gone in " in page.annotations["description"]


def test_labels_of_the_raw_series_may_come_and_go(tmp_path: Path) -> None:
    """A pod label that appears, another exporter's job label, a code that was never seen: one value of everything."""
    first, second = Stretch(30 * MINUTE, 10, 0.0005), Stretch(30 * MINUTE, 20, 0.0005)
    series: dict[str, list[Value]] = {}
    for name, values in traffic(first).items():
        series[name] = [*values, "stale"]
    for name, values in traffic(second).items():
        series[name.replace("{", '{job="new", pod="a-1", ')] = [None] * len(traffic(first)[name]) + values
    moments = list(times(10 * MINUTE, HOUR, MINUTE))
    seen = play(tmp_path, shop(), series, asks([EVERY_SERIES, RATIO, FIRING], moments))
    for moment in moments:
        recorded = [labels["__name__"] for labels, _ in seen.series(EVERY_SERIES, moment)]
        assert len(recorded) == len(set(recorded))
        assert not any("pod" in labels or "job" in labels for labels, _ in seen.series(EVERY_SERIES, moment))
        assert seen.number(RATIO, moment) == pytest.approx(0.0005, rel=0.01)
        assert seen.firing(moment) == []


def _only(group: dict[str, Any], when: str) -> None:
    group["rules"] = [{**rule, "expr": f"(\n{rule['expr']}\n)\nand on () ({when})"} for rule in group["rules"]]
