"""Young data: a service in its first minutes and its first hour is judged by what there is, without a leap."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from tests.alerts.rules_bench import (
    ERROR,
    FIRING,
    HOUR,
    MINUTE,
    OK,
    PAGE,
    SCRAPE,
    SECOND,
    Stretch,
    Value,
    asks,
    play,
    shop,
    times,
    traffic,
)

pytestmark = pytest.mark.e2e

BURN = "slo:error_budget_burn:ratio_rate1h"
RATIOS = [f"slo:sli_error:ratio_rate{window}" for window in ("5m", "30m", "1h", "2h", "6h")]
LONG_RATIOS = [f"slo:sli_error:ratio_rate{window}" for window in ("1d", "3d", "30d")]


@pytest.mark.parametrize("coarse_after", [SECOND * 0, 30 * SECOND, 150 * SECOND, 270 * SECOND])
def test_the_burn_of_young_data_is_true(tmp_path: Path, coarse_after: timedelta) -> None:
    """Errors at 2.7 times the objective burn 2.7 times too fast from the first minute on, and page nobody.

    Whenever the coarse group happens to run first: its first value is that of a beginning, with too little traffic.
    """
    moments = list(times(MINUTE, 90 * MINUTE, MINUTE))
    series = traffic(Stretch(90 * MINUTE, 10, 0.0027))
    seen = play(tmp_path, shop(), series, asks([BURN, FIRING], moments), coarse_after=coarse_after)
    for moment in moments:
        assert seen.number(BURN, moment) == pytest.approx(2.7, rel=0.12), f"at {moment}"
        assert PAGE not in seen.firing(moment)


def test_no_ratio_explodes_in_the_first_hour(tmp_path: Path) -> None:
    """Five minutes and an hour after the first scrape an error ratio of 0.01 % reads 0.01 % in every window."""
    moments = [5 * MINUTE, 65 * MINUTE]
    series = traffic(Stretch(70 * MINUTE, 100, 0.0001))
    seen = play(tmp_path, shop(), series, asks([*RATIOS, *LONG_RATIOS, FIRING], moments))
    for moment in moments:
        assert seen.firing(moment) == []
        for ratio in RATIOS:
            assert seen.number(ratio, moment) == pytest.approx(0.0001, rel=1e-6)
    for ratio in LONG_RATIOS:
        assert seen.number(ratio, 65 * MINUTE) == pytest.approx(0.0001, rel=1e-6)


@pytest.mark.parametrize("age", [5 * MINUTE, HOUR])
@pytest.mark.parametrize("strays", [1, 2])
def test_a_stray_error_in_young_data_wakes_nobody(tmp_path: Path, age: timedelta, strays: int) -> None:
    """One or two errors among a request a minute are 100 times the objective, and still only one or two errors."""
    length = int((age + 20 * MINUTE) / SCRAPE)
    good: list[Value] = [float(scrape // 2) for scrape in range(length)]
    bad: list[Value] = [0.0 if scrape * SCRAPE < age else float(strays) for scrape in range(length)]
    moments = list(times(MINUTE, age + 19 * MINUTE, SCRAPE))
    seen = play(tmp_path, shop(), {OK: good, ERROR: bad}, asks(FIRING, moments))
    assert all(seen.firing(moment) == [] for moment in moments)


@pytest.mark.parametrize(("strays", "pages"), [(2, False), (3, True)])
def test_two_errors_stay_two_when_scrapes_are_a_minute_apart(tmp_path: Path, strays: int, pages: bool) -> None:  # noqa: FBT001
    """rate() makes 2 errors 2.5 when it has five samples; the line between two and three knows that."""
    length = 80
    good: list[Value] = [float(scrape) for scrape in range(length)]
    bad: list[Value] = [0.0 if scrape < 60 else float(strays) for scrape in range(length)]
    moments = list(times(HOUR, 65 * MINUTE, MINUTE))
    steadier = shop(objective=Decimal("99.9"), people_bad_events_min=50)
    seen = play(tmp_path, steadier, {OK: good, ERROR: bad}, asks(FIRING, moments), scrape=MINUTE)
    assert any(PAGE in seen.firing(moment) for moment in moments) == pages
