"""What is left of a budget, since when, and for how long; pure.

Every figure is counted in events. A share of the budget becomes minutes as that share of the minutes of full outage, at
even traffic, that the budget holds.
"""

from __future__ import annotations

import math
import random
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from review.model import Budget, EventWindows, Forecast, LastPeriod, Span, recorded_sum
from slo.compile import CompiledSlo
from slo.windows import DAY, HOUR, CalendarMonth

_HOUR_SECONDS = HOUR.total_seconds()
_DAY_SECONDS = DAY.total_seconds()

FORECAST_DAYS = 7
FORECAST_DAYS_MIN = 3
FORECAST_DRAWS = 300
FORECAST_METHOD = (
    f"The next days are drawn from the last {FORECAST_DAYS}, each as a whole, {FORECAST_DRAWS} times (bootstrap of "
    "daily blocks, seeded). The dates are the median of the draws and the tenth and ninetieth of a hundred."
)

_DAY_RECORDED_MIN = 0.5  # a day that is known by less says nothing of the days to come
_GAP_WINDOWS_MIN = 2  # one window may be missing since the recording ran late
_SMEARED_WINDOWS = 2


@dataclass(frozen=True, slots=True)
class Period:
    """The period of a budget, at a moment.

    Attributes:
        past: As far as it is over.
        whole_seconds: Its whole length.
        rolling: It is the last so many days, at any moment; else it ends, and a new one begins.
        before: The period before.
    """

    past: Span
    whole_seconds: float
    rolling: bool
    before: Span


def period_of(compiled: CompiledSlo, at: float, window: timedelta | None = None) -> Period:
    """The period of an SLO's budget, or the last `window`, at a moment."""
    if window is None and isinstance(compiled.slo.window, CalendarMonth):
        return _month(at)
    seconds = (window or compiled.policy.period).total_seconds()
    return Period(Span(at - seconds, at), seconds, rolling=True, before=Span(at - 2 * seconds, at - seconds))


def _month(at: float) -> Period:
    # The month of the last moment before `at`: at midnight of the first, a whole month is over.
    first = (datetime.fromtimestamp(at, UTC) - timedelta(seconds=1)).replace(
        day=1, hour=0, minute=0, second=0, microsecond=0
    )
    after = (first + timedelta(days=32)).replace(day=1)
    before = (first - timedelta(days=1)).replace(day=1)
    begin, end = first.timestamp(), after.timestamp()
    return Period(Span(begin, at), end - begin, rolling=False, before=Span(before.timestamp(), begin))


# --- what counts ----------------------------------------------------------------------------------------------------


def without(windows: EventWindows, excluded: Sequence[Span]) -> EventWindows:
    """The windows without the events of some spans; a window that a span covers in part loses that part of its events.

    Beside a span, bad events are taken from the sharp rate: the other one puts some of an outage into its neighbours.
    """
    every, bad, sharp = (array("d", values) for values in (windows.all, windows.bad, windows.bad_sharp))
    for span in excluded:
        touched = windows.indices(span)
        beside = _SMEARED_WINDOWS
        for index in range(max(0, touched.start - beside), min(len(windows), touched.stop + beside)):
            if windows.recorded(index):
                bad[index] = min(bad[index], sharp[index])
    for index, kept in enumerate(_kept(windows, excluded)):
        if kept < 1:
            every[index] *= kept
            bad[index] *= kept
            sharp[index] *= kept
    return EventWindows(windows.begin, windows.step_seconds, every, bad, sharp)


def _kept(windows: EventWindows, excluded: Sequence[Span]) -> Iterator[float]:
    """The share of each window that counts; two spans that both cover a moment take it away once."""
    merged: list[Span] = []
    for span in sorted(excluded):
        if merged and span.begin <= merged[-1].end:
            merged[-1] = Span(merged[-1].begin, max(span.end, merged[-1].end))
        else:
            merged.append(span)
    for index in range(len(windows)):
        window = windows.window(index)
        yield 1 - sum(window.overlap_seconds(span) for span in merged) / window.seconds


def gaps(windows: EventWindows) -> tuple[Span, ...]:
    """Stretches of two windows or more without data."""
    found = []
    begin: int | None = None
    for index in range(len(windows) + 1):
        missing = index < len(windows) and not windows.recorded(index)
        if missing and begin is None:
            begin = index
        elif not missing and begin is not None:
            if index - begin >= _GAP_WINDOWS_MIN:
                found.append(Span(windows.window(begin).begin, windows.window(index - 1).end))
            begin = None
    return tuple(found)


# --- the budget -----------------------------------------------------------------------------------------------------


def measure(compiled: CompiledSlo, windows: EventWindows, excluded: Sequence[Span], period: Period) -> Budget | None:
    """The budget of a period; None when there is no data at all.

    The budget of a calendar month counts the events that its rest will bring at the pace of what is over.
    """
    recorded = windows.recorded_count
    if not recorded:
        return None
    counted = without(windows, excluded) if excluded else windows
    ratio = float(compiled.slo.budget_ratio)
    whole = range(len(counted))
    every, bad = recorded_sum(counted.all, whole), recorded_sum(counted.bad, whole)
    allowed = ratio * every
    if not period.rolling:
        allowed *= 1 + (period.whole_seconds - period.past.seconds) / (recorded * windows.step_seconds)
    unadjusted_allowed = ratio * recorded_sum(windows.all, whole) * (allowed / (ratio * every) if every else 1)
    return Budget(
        period=period.past,
        ratio=compiled.slo.budget_ratio,
        all_events=every,
        bad_events=bad,
        budget_events=allowed,
        budget_minutes=ratio * period.whole_seconds / 60,
        spent=_share(bad, allowed),
        spent_unadjusted=_share(recorded_sum(windows.bad, whole), unadjusted_allowed)
        if excluded
        else _share(bad, allowed),
        exhausted_at=_exhausted_at(counted, allowed),
        recorded=recorded / len(windows),
        last_recorded_at=next(windows.window(index).end for index in reversed(whole) if windows.recorded(index)),
        burn_down=_burn_down(counted, allowed),
    )


def _share(bad: float, allowed: float) -> float:
    return bad / allowed if allowed > 0 else 0.0


def _exhausted_at(windows: EventWindows, allowed: float) -> float | None:
    total = 0.0
    for index, bad in enumerate(windows.bad):
        if bad > 0:  # so it is a number
            total += bad
            # Beyond the last digit: a budget that is spent to the event is not overdrawn by rounding.
            if total > allowed * (1 + 1e-9):
                return windows.window(index).end
    return None


def _burn_down(windows: EventWindows, allowed: float) -> tuple[tuple[float, float], ...]:
    points = [(windows.begin, 1.0)]
    total = 0.0
    for hour in windows.groups(_HOUR_SECONDS):
        total += recorded_sum(windows.bad, hour)
        points.append((windows.window(hour[-1]).end, 1 - _share(total, allowed)))
    return tuple(points)


def last_period(compiled: CompiledSlo, all_events: float, bad_events: float, recorded: float) -> LastPeriod | None:
    """The period before, from its events and the share of it for which there is data."""
    if not recorded:
        return None
    return LastPeriod(
        spent=_share(bad_events, float(compiled.slo.budget_ratio) * all_events), recorded=min(recorded, 1.0)
    )


# --- the forecast ---------------------------------------------------------------------------------------------------


def forecast(compiled: CompiledSlo, windows: EventWindows, budget: Budget, period: Period) -> Forecast | None:
    """When the budget will be gone; `FORECAST_METHOD` says how.

    None when it is gone already, or when the last days are too little known.

    Args:
        compiled: The SLO; its id is the seed, so that a review says the same each time.
        windows: What counts of the period.
        budget: Its budget.
        period: The period.
    """
    days = _days(windows)
    known = [(bad, every) for bad, every, recorded in days[-FORECAST_DAYS:] if recorded >= _DAY_RECORDED_MIN]
    rest = period.whole_seconds if period.rolling else period.whole_seconds - period.past.seconds
    horizon = math.ceil(rest / _DAY_SECONDS)
    if len(known) < FORECAST_DAYS_MIN or budget.spent >= 1 or horizon < 1:
        return None
    draw = random.Random(compiled.slo.id)  # noqa: S311 - statistics, not secrets
    past = [(bad, every) for bad, every, _ in days] if period.rolling else None
    spent_days = sorted(_days_until_gone(budget, past, draw.choices(known, k=horizon)) for _ in range(FORECAST_DRAWS))
    # Of a month, what is beyond its end is not to come.
    spent_days = [days if days * _DAY_SECONDS <= rest else math.inf for days in spent_days]
    gone = sum(math.isfinite(days) for days in spent_days)

    def at(share: float) -> float | None:
        days = spent_days[min(int(share * FORECAST_DRAWS), FORECAST_DRAWS - 1)]
        return budget.period.end + days * _DAY_SECONDS if math.isfinite(days) else None

    return Forecast(
        days=len(known),
        horizon_days=horizon,
        probability=gone / FORECAST_DRAWS,
        earliest=at(0.1),
        median=at(0.5),
        latest=at(0.9),
    )


def _days(windows: EventWindows) -> list[tuple[float, float, float]]:
    """Bad events, all events and the share that was recorded, of each whole day back from the end."""
    length = round(_DAY_SECONDS / windows.step_seconds)
    edges = range(len(windows) % length, len(windows), length)
    return [
        (
            recorded_sum(windows.bad, day),
            recorded_sum(windows.all, day),
            1 - sum(map(math.isnan, windows.all[day.start : day.stop])) / length,
        )
        for day in (range(edge, edge + length) for edge in edges)
    ]


def _days_until_gone(
    budget: Budget, past: Sequence[tuple[float, float]] | None, future: Sequence[tuple[float, float]]
) -> float:
    """In how many days the budget of one future is gone; infinite when it lasts.

    Args:
        budget: The budget now.
        past: The days that leave a rolling period, one for each that comes; None when none does.
        future: Bad and all events of the days to come.
    """
    ratio = float(budget.ratio)
    bad, allowed = budget.bad_events, budget.budget_events
    before = budget.spent
    for number, (more_bad, more) in enumerate(future):
        bad += more_bad
        if past is not None:
            old_bad, old = past[number] if number < len(past) else (0.0, 0.0)
            bad -= old_bad
            allowed += ratio * (more - old)
        after = _share(bad, allowed)
        if after >= 1:
            return number + (1 - before) / (after - before)
        before = after
    return math.inf
