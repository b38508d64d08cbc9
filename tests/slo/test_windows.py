"""Periods and burn-rate policies: the Workbook's figures, and what becomes of them for other periods."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

import pytest

from slo import Alert, CalendarMonth, Rolling, Severity, SloError
from slo import conventions as names
from slo.windows import DAY, HOUR, MINUTE, Policy, policy
from tests.alerts.every_kind import promise

WORKBOOK_WINDOWS = [("page", "1h", "5m"), ("page", "6h", "30m"), ("ticket", "1d", "2h"), ("ticket", "3d", "6h")]


def windows_of(of: Policy) -> list[tuple[str, str, str]]:
    """Severity, long and short window of every pair."""
    return [(str(pair.severity), names.duration(pair.long), names.duration(pair.short)) for pair in of.pairs]


def factors_of(days: int) -> list[str]:
    """The burn factors of a rolling period, with at most four decimals."""
    return [f"{pair.factor:.4f}".rstrip("0").rstrip(".") for pair in policy(Rolling(days)).pairs]


@pytest.mark.parametrize(
    ("days", "factors"),
    [
        (30, ["14.4", "6", "3", "1"]),
        (28, ["13.44", "5.6", "2.8", "0.9333"]),
        (90, ["43.2", "18", "9", "3"]),
        (366, ["175.68", "73.2", "36.6", "12.2"]),
    ],
)
def test_from_four_weeks_on_the_workbooks_shares_of_the_budget_hold(days: int, factors: list[str]) -> None:
    """A page at 2 % and 5 % of the budget, a ticket at 10 %, twice, whatever the period; so the factors follow."""
    of = policy(Rolling(days))
    assert factors_of(days) == factors
    assert windows_of(of) == WORKBOOK_WINDOWS
    shares = [pair.budget_share(of.period).quantize(Decimal("1e-12")) for pair in of.pairs]
    assert shares == [Decimal("0.02"), Decimal("0.05"), Decimal("0.10"), Decimal("0.10")]


def test_a_week_keeps_the_factors_and_never_waits_for_more_than_half_the_budget() -> None:
    """Near Sloth's seven-day example (13, 6, 3 and 1 or so), and no alert comes when most of the budget is gone."""
    of = policy(Rolling(7))
    assert factors_of(7) == ["14.4", "6", "3", "1"]
    assert windows_of(of) == WORKBOOK_WINDOWS
    assert max(pair.budget_share(of.period) for pair in of.pairs) <= Decimal("0.5")


def test_every_whole_number_of_days_has_a_sound_policy() -> None:
    """For 1 to 366 days: a page at least, pages before tickets, no share of the budget above one half."""
    for days in range(1, 367):
        of = policy(Rolling(days))
        assert of.period == timedelta(days=days)
        assert of.pairs_of(Severity.PAGE), days
        assert (*of.pairs_of(Severity.PAGE), *of.pairs_of(Severity.TICKET)) == of.pairs, days
        for pair in of.pairs:
            assert pair.short < pair.long <= of.period, days
            assert 0 < pair.budget_share(of.period).quantize(Decimal("1e-12")) <= Decimal("0.5"), days
            assert pair.factor >= (1 if days < 28 else Decimal("0.93")), days
        assert list(of.alert_windows) == sorted(set(of.alert_windows)), days
        assert of.base == of.alert_windows[0], days


def test_the_slowest_ticket_of_four_weeks_is_kept() -> None:
    """Its share of the budget makes its factor a little less than 1, which below four weeks would drop it."""
    (*_, slowest) = policy(Rolling(28)).pairs
    assert slowest.severity is Severity.TICKET
    assert slowest.factor < 1


def test_every_period_from_two_days_on_can_be_promised() -> None:
    """Two to 366 days at 99.9 % are built with a page and a ticket."""
    for days in range(2, 367):
        assert promise("any", window=Rolling(days)).window == Rolling(days)


def test_one_day_has_no_ticket() -> None:
    """A ticket waits for working hours, and by then a day's budget is new; a page alone is built."""
    with pytest.raises(SloError) as raised:
        promise("any", window=Rolling(1))
    assert raised.value.problems == (
        "a ticket has no burn-rate windows in a period of 1 day; leave that alert out, or use a longer period",
    )
    assert promise("any", window=Rolling(1), alerts=(Alert(Severity.PAGE),)).window == Rolling(1)


@pytest.mark.parametrize("days", [0, -1, 367, 10**6, 2.5, "30"])
def test_a_period_that_is_no_whole_number_of_days_from_1_to_366_is_refused(days: int) -> None:
    """The message names the period and what is allowed."""
    with pytest.raises(SloError, match="use 1 to 366 whole days"):
        promise("any", window=Rolling(days))


def test_a_period_of_another_type_is_refused() -> None:
    """`window=30` is a common slip."""
    with pytest.raises(SloError, match=r"the window 30 is not allowed; use Rolling\(days=30\) or CalendarMonth\(\)"):
        promise("any", window=30)


def test_a_calendar_month_is_judged_by_the_traffic_of_thirty_days() -> None:
    """A month's first hours have no traffic of their own to be judged by; factors are those of 30 days."""
    month, rolling = policy(CalendarMonth()), policy(Rolling(30))
    assert month.calendar_month
    assert not rolling.calendar_month
    assert month.pairs == rolling.pairs
    assert month.period == rolling.period


def test_scaling_divides_every_duration_and_keeps_the_factors() -> None:
    """A month in twelve hours: the same rules, sixty times faster."""
    of = policy(Rolling(30))
    fast = of.scaled(60)
    assert fast.period == 12 * HOUR
    assert (fast.base, fast.coarse_interval) == (timedelta(seconds=5), timedelta(seconds=5))
    assert fast.evaluation_interval == timedelta(milliseconds=500)
    assert fast.coarse_from == timedelta(minutes=24)
    assert fast.alert_windows == tuple(window / 60 for window in of.alert_windows)
    assert [pair.factor for pair in fast.pairs] == [pair.factor for pair in of.pairs]
    assert [pair.budget_share(fast.period) for pair in fast.pairs] == [p.budget_share(of.period) for p in of.pairs]
    assert fast.divisor == 60


def test_scaling_twice_is_scaling_by_the_product() -> None:
    """The divisor is remembered, as slices and holds shrink by it too."""
    assert policy(Rolling(28)).scaled(6).scaled(10) == policy(Rolling(28)).scaled(60)


def test_raw_series_are_read_over_the_shortest_window_only() -> None:
    """The base window is five minutes, and what reads a day or longer reads samples of the same length."""
    of = policy(Rolling(30))
    assert (of.base, of.coarse_interval, of.coarse_from) == (5 * MINUTE, 5 * MINUTE, DAY)
