"""The budget counts events: it moves by what was lost, whatever happens to traffic, processes and Prometheus."""

from __future__ import annotations

import math
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from slo import Queries, Rolling
from tests.alerts.rules_bench import (
    DAY,
    ERROR,
    FIRING,
    HOUR,
    MINUTE,
    OK,
    SCRAPE,
    SECOND,
    Stretch,
    Value,
    asks,
    counters,
    play,
    shop,
    times,
    traffic,
    truth,
)

pytestmark = pytest.mark.e2e

EVERY_SERIES = '{__name__=~"slo:.+"}'
RATIO = "slo:sli_error:ratio_rate30d"
REMAINING = "slo:period_error_budget_remaining:ratio"
SHORT_RATIO = "slo:sli_error:ratio_rate5m"
BAD_IN_HOUR = "slo:bad_events:increase1h"
BAD_IN_SIX_HOURS = "slo:bad_events:increase6h"

# The budget is read with the next coarse evaluation; a quiet end adds no event and lets the last ones arrive.
QUIET_END = Stretch(15 * MINUTE, 0)


def test_no_traffic_leaves_no_nan_and_no_trace(tmp_path: Path) -> None:
    """An hour without a request: every series has a number, errors are 0, and the budget stays where it was."""
    stretches = Stretch(HOUR, 10, 0.0005), Stretch(HOUR, 0), Stretch(30 * MINUTE, 10, 0.0005)
    moments = list(times(10 * MINUTE, 150 * MINUTE, 5 * MINUTE))
    seen = play(
        tmp_path,
        shop(),
        traffic(*stretches),
        asks([EVERY_SERIES, REMAINING, SHORT_RATIO, FIRING], moments),
        every=MINUTE,
    )
    for moment in moments:
        assert all(math.isfinite(value) for _, value in seen.series(EVERY_SERIES, moment))
        assert seen.number(REMAINING, moment) == pytest.approx(0.5)
        assert seen.firing(moment) == []
    assert seen.number(SHORT_RATIO, 90 * MINUTE) == 0
    assert len(seen.series(EVERY_SERIES, 90 * MINUTE)) == len(seen.series(EVERY_SERIES, 55 * MINUTE))


def test_a_service_that_begins_without_traffic_still_pages(tmp_path: Path) -> None:
    """Half an hour of zeroes from the first scrape hides nothing: the outage that follows pages in two minutes."""
    moment = 32 * MINUTE
    stretches = Stretch(30 * MINUTE, 0), Stretch(10 * MINUTE, 10, 1.0)
    seen = play(tmp_path, shop(), traffic(*stretches), asks([FIRING, REMAINING], [30 * MINUTE, moment]))
    assert seen.firing(30 * MINUTE) == []
    assert seen.number(REMAINING, 30 * MINUTE) == 1
    assert "ShopAvailabilityPage" in seen.firing(moment)


def test_a_foreign_query_that_divides_by_zero_leaves_no_nan(tmp_path: Path) -> None:
    """A query from elsewhere that is NaN without traffic counts nothing then, and the budget survives it."""
    foreign = Queries(
        bad="(1 - sum(rate(fast[{{.window}}])) / sum(rate(served[{{.window}}]))) * sum(rate(served[{{.window}}]))",
        all="sum(rate(served[{{.window}}]))  # a comment at the end",
    )
    served, slow = counters(Stretch(30 * MINUTE, 10, 0.0005), Stretch(30 * MINUTE, 0), Stretch(HOUR / 2, 10, 0.0005))
    every = [_plus(a, b) for a, b in zip(served, slow, strict=True)]
    moments = list(times(10 * MINUTE, 90 * MINUTE, 5 * MINUTE))
    seen = play(
        tmp_path, shop(sli=foreign), {"served": every, "fast": served}, asks([REMAINING, FIRING], moments), every=MINUTE
    )
    for moment in moments:
        assert seen.number(REMAINING, moment) == pytest.approx(0.5, rel=1e-3)
        assert seen.firing(moment) == []


@pytest.mark.parametrize("exported_at_zero", [True, False])
def test_an_error_series_that_is_born_late(tmp_path: Path, exported_at_zero: bool) -> None:  # noqa: FBT001 - a case
    """Eight hours without an error series are eight hours of good events, not of no data."""
    stretches = Stretch(8 * HOUR, 10), Stretch(HOUR, 10, 0.003), QUIET_END
    good, bad = counters(*stretches)
    born = 8 * HOUR // SCRAPE + (0 if exported_at_zero else 1)
    series: dict[str, list[Value]] = {OK: good, ERROR: [None] * born + bad[born:]}
    before, after = 8 * HOUR - 5 * MINUTE, 9 * HOUR + 15 * MINUTE
    seen = play(tmp_path, shop(), series, asks(RATIO, [before, after]), every=5 * MINUTE)
    assert seen.number(RATIO, before) == 0
    assert seen.number(RATIO, after) == pytest.approx(truth(*stretches), rel=0.01)


@pytest.mark.parametrize(("before", "seen_events"), [(0.0, 60), (None, 0)])
def test_errors_are_seen_when_the_counter_was_exported_at_zero(
    tmp_path: Path, before: float | None, seen_events: int
) -> None:
    """A burst of 60 errors pages where the counter stood at 0, and is unseen where it is born at 60."""
    good, _ = counters(Stretch(90 * MINUTE, 1))
    burst = HOUR // SCRAPE
    bad: list[Value] = [*[before] * burst, *[60.0] * (len(good) - burst)]
    moment = HOUR + 2 * MINUTE
    seen = play(tmp_path, shop(), {OK: good, ERROR: bad}, asks([BAD_IN_HOUR, FIRING], moment))
    assert seen.number(BAD_IN_HOUR, moment) == pytest.approx(seen_events)
    assert ("ShopAvailabilityPage" in seen.firing(moment)) == bool(seen_events)


def test_a_restart_costs_no_budget(tmp_path: Path) -> None:
    """Counters that begin at 0 again are neither lost nor counted twice, but for what no scrape saw."""
    stretches = Stretch(2 * HOUR, 10, 0.001), QUIET_END
    series = traffic(*stretches)
    at = 75 * MINUTE // SCRAPE
    for values in series.values():
        values[at:] = [_plus(value, values[at], times=-1) for value in values[at:]]
    moments = list(times(70 * MINUTE, 90 * MINUTE, MINUTE))
    end = 135 * MINUTE
    seen = play(tmp_path, shop(), series, [*asks([RATIO, FIRING], moments), (RATIO, end), (BAD_IN_SIX_HOURS, end)])
    for moment in moments:
        assert seen.number(RATIO, moment) == pytest.approx(0.001, rel=1e-3)
        assert seen.firing(moment) == []
    unseen = SCRAPE.total_seconds() * 10 * 0.001
    assert seen.number(BAD_IN_SIX_HOURS, end) == pytest.approx(stretches[0].events * 0.001 - unseen, rel=0.005)


def test_a_deploy_costs_no_budget(tmp_path: Path) -> None:
    """Pods replaced one after the other, each with series of its own, change neither the ratio nor alerts."""
    series: dict[str, list[Value]] = {}
    for pod in range(3):
        ends = HOUR + pod * 2 * MINUTE
        old_good, old_bad = counters(Stretch(ends, 10, 0.0005))
        new_good, new_bad = counters(Stretch(2 * HOUR - ends, 10, 0.0005))
        for code, old, new in (("ok", old_good, new_good), ("error", old_bad, new_bad)):
            series[f'shop_requests_total{{code="{code}", pod="old-{pod}"}}'] = [*old, "stale"]
            series[f'shop_requests_total{{code="{code}", pod="new-{pod}"}}'] = [None] * len(old) + list(new)
    moments = list(times(HOUR - 5 * MINUTE, HOUR + 20 * MINUTE, MINUTE))
    all_rate = "slo:all_events:rate5m"
    seen = play(tmp_path, shop(), series, asks([RATIO, FIRING, all_rate], moments))
    for moment in moments:
        assert seen.number(RATIO, moment) == pytest.approx(0.0005, rel=1e-6)
        assert seen.number(all_rate, moment) == pytest.approx(30, rel=0.12)  # rates extrapolate to a series' ends
        assert seen.firing(moment) == []


@pytest.mark.parametrize("missed", [1, 4])
def test_missed_scrapes_cost_no_budget(tmp_path: Path, missed: int) -> None:
    """One scrape that fails, or two minutes of them, change no window's ratio and wake nobody."""
    stretches = Stretch(2 * HOUR, 10, 0.0005), Stretch(30 * MINUTE, 10, 0.0005)
    series = traffic(*stretches)
    gap = 2 * HOUR // SCRAPE
    for values in series.values():
        values[gap : gap + missed] = [None] * missed
    moments = list(times(2 * HOUR, 2 * HOUR + 10 * MINUTE, SCRAPE))
    ratios = [SHORT_RATIO, "slo:sli_error:ratio_rate1h", RATIO]
    seen = play(tmp_path, shop(), series, asks([*ratios, FIRING], moments))
    for moment in moments:
        assert seen.firing(moment) == []
        for ratio in ratios:
            assert seen.number(ratio, moment) == pytest.approx(0.0005, rel=0.01)


def test_a_gap_in_the_recording_costs_only_what_it_hid(tmp_path: Path) -> None:
    """Prometheus is down for 22 minutes in which a third fail: those are unknown, and all others still count."""
    before, hidden, after = Stretch(2 * HOUR, 10, 0.002), Stretch(22 * MINUTE, 10, 0.3), Stretch(HOUR, 10, 0.0005)
    series = traffic(before, hidden, after, QUIET_END)
    down, up = 2 * HOUR, 2 * HOUR + hidden.length
    for values in series.values():
        values[down // SCRAPE : up // SCRAPE] = [None] * (hidden.length // SCRAPE)
    end = 3 * HOUR + 35 * MINUTE
    moments = [*times(up + 5 * MINUTE, end, 5 * MINUTE), end]
    seen = play(tmp_path, shop(), series, asks([RATIO, FIRING], moments), every=MINUTE, change=_not_evaluated(down, up))
    known = truth(before, after)
    assert seen.number(RATIO, end) == pytest.approx(known, rel=0.03)
    # What was hidden is not in any short window either, so nobody is woken for it afterwards.
    assert all("ShopAvailabilityPage" not in seen.firing(moment) for moment in moments)


def test_long_windows_have_values_again_five_minutes_after_a_gap(tmp_path: Path) -> None:
    """A gap under 15 minutes is bridged; after a longer one the budget is back with the next coarse evaluation."""
    for gap, absent in ((9 * MINUTE, False), (22 * MINUTE, True)):
        down, up = HOUR, HOUR + gap
        series = traffic(Stretch(2 * HOUR, 10, 0.0005))
        for values in series.values():
            values[down // SCRAPE : up // SCRAPE] = [None] * (gap // SCRAPE)
        later = up + 5 * MINUTE
        seen = play(
            tmp_path, shop(), series, asks(REMAINING, [up, later]), every=MINUTE, change=_not_evaluated(down, up)
        )
        assert (seen.value(REMAINING, up) is None) == absent
        assert seen.number(REMAINING, later) == pytest.approx(0.5, rel=1e-3)


def test_a_flash_sale_weighs_what_it_costs(tmp_path: Path) -> None:
    """An hour's sale in a week: the budget is true within 1 %, the mean of 5-minute ratios 20 times too small."""
    stretches = Stretch(5 * DAY, 10, 0.00001), Stretch(HOUR, 6000, 0.01), Stretch(2 * DAY - HOUR, 10, 0.00001)
    ratio, naive = "slo:sli_error:ratio_rate1w", "avg_over_time(slo:sli_error:ratio_rate5m[7d])"
    weekly = shop(window=Rolling(days=7), objective=Decimal("99.9"))
    series = traffic(*stretches, scrape=MINUTE)
    seen = play(tmp_path, weekly, series, asks([ratio, naive, REMAINING], 7 * DAY), scrape=MINUTE, every=5 * MINUTE)
    true = truth(*stretches)
    assert seen.number(ratio, 7 * DAY) == pytest.approx(true, rel=0.01)
    assert seen.number(REMAINING, 7 * DAY) == pytest.approx(1 - true / 0.001, rel=0.01)
    assert true / seen.number(naive, 7 * DAY) > 20


@pytest.mark.parametrize(("counted_before", "lost_at_most"), [(1e6, 0.005), (0.0, 0.05)])
def test_the_coarse_recording_loses_no_event(tmp_path: Path, counted_before: float, lost_at_most: float) -> None:
    """Rules at their true pace, 30 seconds and 5 minutes, see a sale of seven minutes in full.

    On a counter that stood near 0 Prometheus' rate() does not extrapolate to before the first count, so a burst in a
    process that never erred reads a few percent low.
    """
    stretches = Stretch(2 * HOUR, 10, 0.0001), Stretch(7 * MINUTE, 600, 0.02), Stretch(38 * MINUTE, 10), QUIET_END
    end = 3 * HOUR
    coarse, fine = RATIO, "slo:sli_error:ratio_rate6h"
    series = {name: [_plus(v, counted_before) for v in values] for name, values in traffic(*stretches).items()}
    seen = play(tmp_path, shop(), series, asks([coarse, fine], end))
    for ratio in (coarse, fine):
        assert 1 - lost_at_most <= seen.number(ratio, end) / truth(*stretches) <= 1.005


def _plus(value: Value, other: Value, *, times: int = 1) -> float:
    assert isinstance(value, float)
    assert isinstance(other, float)
    return value + times * other


def _not_evaluated(down: timedelta, up: timedelta) -> Any:  # noqa: ANN401 - a change for `play`
    """No rule yields a value while Prometheus is down."""
    awake = f"vector(time()) < {down / SECOND:g} or vector(time()) >= {up / SECOND:g}"

    def change(rules: dict[str, Any]) -> None:
        for group in rules["groups"]:
            for rule in group["rules"]:
                rule["expr"] = f"(\n{rule['expr']}\n)\nand on () ({awake})"

    return change
