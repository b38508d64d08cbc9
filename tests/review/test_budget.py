"""What is left of a budget, counted in events."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from review import budget as budgets
from review.model import Span
from slo import CalendarMonth, Rolling
from tests.review.making import A_DAY, BEGIN, STEP, budget, even, period, promise, windows

NAN = math.nan


def test_a_budget_is_a_number_of_events() -> None:
    """99.9 % of 30 days with 300 events in five minutes: 2,592 may be bad, as many as 43.2 minutes of outage."""
    of = even(30, bad=0.1)
    measured = budget(promise(), of)
    assert measured.budget_events == pytest.approx(2_592)
    assert measured.budget_minutes == pytest.approx(43.2)
    assert measured.bad_events == pytest.approx(864)
    assert measured.spent == pytest.approx(1 / 3)
    assert measured.spent_minutes == pytest.approx(14.4)
    assert measured.exhausted_at is None
    assert measured.recorded == 1


def test_an_event_of_a_busy_hour_weighs_as_much_as_one_of_a_quiet_one() -> None:
    """Ten bad events cost the same whenever they happen."""
    busy = windows([10_000.0, 10.0], [10.0, 0.0])
    quiet = windows([10_000.0, 10.0], [0.0, 10.0])
    assert budget(promise(), busy).spent == budget(promise(), quiet).spent == pytest.approx(10 / 10.01)


def test_the_moment_at_which_the_last_of_it_went_is_told() -> None:
    """The end of the window in which the bad events exceed the budget; an exactly spent budget has none."""
    of = windows([1_000.0] * 4, [1.0, 2.0, 2.0, 0.0])
    assert budget(promise(), of).exhausted_at == BEGIN + 3 * STEP
    assert budget(promise(), windows([1_000.0] * 4, [1.0, 1.0, 1.0, 1.0])).exhausted_at is None


def test_without_traffic_nothing_is_spent() -> None:
    """0 of 0 is no NaN, and no overdraft."""
    measured = budget(promise(), even(1, rate=0.0))
    assert (measured.spent, measured.left, measured.exhausted_at) == (0, 1, None)


def test_what_is_not_recorded_neither_spends_nor_earns() -> None:
    """A window without data counts nothing, and the recorded share and the newest data are told."""
    of = windows([1_000.0, NAN, NAN, 1_000.0, NAN], [1.0, NAN, NAN, 0.0, NAN])
    measured = budget(promise(), of)
    assert measured.all_events == 2_000
    assert measured.spent == pytest.approx(0.5)
    assert measured.recorded == pytest.approx(0.4)
    assert measured.last_recorded_at == BEGIN + 4 * STEP
    assert budgets.gaps(of) == (Span(BEGIN + STEP, BEGIN + 3 * STEP),)


def test_without_any_data_there_is_no_budget() -> None:
    """Nothing is known, which is not the same as nothing spent."""
    assert budgets.measure(promise(), windows([NAN] * 3, [NAN] * 3), (), period(even(1))) is None


def test_the_burn_down_ends_at_what_is_left() -> None:
    """It begins whole, has a point an hour, and ends where the budget stands."""
    measured = budget(promise(), even(2, bad=0.2))
    assert measured.burn_down[0] == (BEGIN, 1.0)
    assert len(measured.burn_down) == 49
    at, left = measured.burn_down[-1]
    assert at == BEGIN + 2 * A_DAY * STEP
    assert left == pytest.approx(measured.left)


# --- periods --------------------------------------------------------------------------------------------------------


def test_a_rolling_period_ends_now() -> None:
    """Its past is whole, and the one before lies right before it."""
    of = budgets.period_of(promise(window=Rolling(7)), BEGIN)
    assert of.past == Span(BEGIN - 7 * 86_400, BEGIN)
    assert of.before == Span(BEGIN - 14 * 86_400, BEGIN - 7 * 86_400)


def test_a_window_that_is_asked_for_goes_before_the_promise() -> None:
    """Also before a calendar month."""
    of = budgets.period_of(promise(window=CalendarMonth()), BEGIN, timedelta(days=3))
    assert of.past.seconds == 3 * 86_400
    assert of.rolling


def test_a_calendar_month_begins_on_the_first() -> None:
    """In UTC; at midnight of the first, the month that just ended is reviewed as a whole."""
    month = promise(window=CalendarMonth())
    june, july = (datetime(2025, number, 1, tzinfo=UTC).timestamp() for number in (6, 7))
    of = budgets.period_of(month, BEGIN)
    assert (of.past, of.whole_seconds) == (Span(june, BEGIN), 30 * 86_400)
    assert of.before.seconds == 31 * 86_400
    assert budgets.period_of(month, july).past == Span(june, july)


def test_the_budget_of_a_month_counts_on_its_rest() -> None:
    """After 15 of 30 days, half a month's events were bad allowance of a whole one: a quarter spent, not a half."""
    of = even(15, bad=0.15)
    june = budgets.Period(of.span, 30 * 86_400, rolling=False, before=Span(0, 1))
    measured = budgets.measure(promise(), of, (), june)
    assert measured is not None
    assert measured.budget_events == pytest.approx(2_592)
    assert measured.spent == pytest.approx(0.25)


# --- adjustments ----------------------------------------------------------------------------------------------------


def test_what_is_excluded_does_not_count() -> None:
    """Neither its bad events nor its traffic; what it would be without is kept."""
    of = windows([1_000.0] * 4, [0.0, 4.0, 0.0, 0.0])
    measured = budgets.measure(promise(), of, [Span(BEGIN + STEP, BEGIN + 2 * STEP)], period(of))
    assert measured is not None
    assert (measured.bad_events, measured.all_events) == (0, 3_000)
    assert measured.spent == 0
    assert measured.spent_unadjusted == pytest.approx(1)


def test_an_outage_that_smears_into_its_neighbours_is_excluded_as_a_whole() -> None:
    """The mean of rates puts a quarter into each neighbour; an agreed outage must not cost half of itself."""
    of = windows([1_000.0] * 5, [0.0, 25.0, 50.0, 25.0, 0.0])
    of.bad_sharp[:] = type(of.bad_sharp)("d", [0.0, 0.0, 100.0, 0.0, 0.0])
    measured = budgets.measure(promise(), of, [of.window(2)], period(of))
    assert measured is not None
    assert measured.bad_events == 0


def test_two_exclusions_of_one_moment_take_it_once() -> None:
    """Overlapping agreements do not earn events back."""
    of = even(1, bad=1.0)
    span = Span(BEGIN + 600, BEGIN + 1_200)
    once, twice = (budgets.without(of, spans) for spans in ([span], [span, Span(span.begin + 100, span.end)]))
    assert list(once.bad) == list(twice.bad)
    assert sum(once.bad) == pytest.approx(A_DAY - 2)


@given(
    bad=st.lists(st.floats(0, 100), min_size=1, max_size=60),
    begin=st.integers(0, 20_000),
    length=st.integers(0, 20_000),
)
def test_an_exclusion_never_costs_budget(bad: list[float], begin: int, length: int) -> None:
    """Whatever it covers, there are never more bad events than before, and never fewer than none."""
    of = windows([1_000.0] * len(bad), bad)
    counted = budgets.without(of, [Span(BEGIN + begin, BEGIN + begin + length)])
    assert all(0 <= after <= before + 1e-9 for before, after in zip(of.bad, counted.bad, strict=True))


# --- the forecast ---------------------------------------------------------------------------------------------------


def test_an_even_burn_is_gone_when_the_arithmetic_says() -> None:
    """20 clean days, then 10 that each spend 8 % of the budget: the last 20 % go in two and a half days."""
    clean, burning = [0.0] * (20 * A_DAY), [0.72] * (10 * A_DAY)
    of = windows([300.0] * (30 * A_DAY), clean + burning)
    measured = budget(promise(), of)
    told = budgets.forecast(promise(), of, measured, period(of))
    assert told is not None
    assert told.probability == 1
    expected = of.span.end + (1 - measured.spent) / 0.08 * 86_400
    assert told.earliest == told.median == told.latest == pytest.approx(expected, abs=60)


def test_old_losses_leave_a_rolling_period() -> None:
    """What was lost on the first day is earned back tomorrow, so the budget lasts."""
    bad = [8.0] * A_DAY + [0.0] * (29 * A_DAY)
    of = windows([300.0] * (30 * A_DAY), bad)
    told = budgets.forecast(promise(), of, budget(promise(), of), period(of))
    assert told is not None
    assert (told.probability, told.median) == (0, None)


def test_days_that_differ_give_an_interval() -> None:
    """One bad day in seven: nobody knows when the next one comes, and the same is said each time."""
    bad = [0.0] * (24 * A_DAY) + [6.0] * A_DAY + [0.0] * (5 * A_DAY)
    of = windows([300.0] * (30 * A_DAY), bad)
    measured = budget(promise(), of)
    told = budgets.forecast(promise(), of, measured, period(of))
    assert told is not None
    assert told.earliest is not None
    assert told.median is not None
    assert told.earliest < told.median
    assert told.median < (told.latest or math.inf)
    assert told == budgets.forecast(promise(), of, measured, period(of))


def test_a_month_ends_before_its_budget() -> None:
    """What would be gone after its last day is not gone: a new budget begins."""
    of = even(28, bad=0.2)
    june = budgets.Period(of.span, 30 * 86_400, rolling=False, before=Span(0, 1))
    measured = budgets.measure(promise(), of, (), june)
    assert measured is not None
    told = budgets.forecast(promise(), of, measured, june)
    assert told is not None
    assert (told.horizon_days, told.probability) == (2, 0)


@pytest.mark.parametrize("days", [1, 2])
def test_too_few_days_give_no_forecast(days: int) -> None:
    """Two days say nothing about a month."""
    of = even(days, bad=0.2)
    assert budgets.forecast(promise(), of, budget(promise(), of), period(of)) is None


def test_what_is_gone_needs_no_forecast() -> None:
    """The moment at which it went is told instead."""
    of = even(10, bad=1.0)
    assert budgets.forecast(promise(), of, budget(promise(), of), period(of)) is None


def test_the_trend_is_that_of_the_share() -> None:
    """Half of the traffic and half of the bad events are the same share."""
    before = budgets.last_period(promise(), 1_000_000, 500, 1.0)
    assert before is not None
    assert before.spent == pytest.approx(0.5)
    assert budgets.last_period(promise(), 0, 0, 0) is None
