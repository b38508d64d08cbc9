"""Periods and burn-rate policies, as tables.

Source of every factor: SRE Workbook, "Alerting on SLOs", tables 5-6 and 5-8 (sre.google/workbook/alerting-on-slos).
A burn rate of 1 spends exactly the budget of the period; a pair of windows alerts when both burn faster than its
factor.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from decimal import Decimal
from enum import StrEnum
from typing import TypeAlias


class Severity(StrEnum):
    """Who acts: a page wakes somebody, a ticket waits for working hours."""

    PAGE = "page"
    TICKET = "ticket"


@dataclass(frozen=True, slots=True)
class Rolling:
    """The last `days` days, at any moment."""

    days: int


@dataclass(frozen=True, slots=True)
class CalendarMonth:
    """From the first of the month, 00:00 UTC; the budget is whole again on the first of the next."""


Window: TypeAlias = Rolling | CalendarMonth

MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class BurnWindows:
    """A long and a short window that must both burn faster than `factor`.

    The long window shows that the loss matters, the short one that it still goes on.
    """

    severity: Severity
    long: timedelta
    short: timedelta
    factor: Decimal

    def budget_share(self, period: timedelta) -> Decimal:
        """Share (0 to 1) of the period's budget that is gone when the alert fires at exactly the factor."""
        return self.factor * _ratio(self.long, period)


_COARSE_SAMPLES_BRIDGED = 3  # one evaluation late, one missed


@dataclass(frozen=True, slots=True)
class Policy:
    """How one period is measured and alerted on.

    Attributes:
        period: Length of the budget's period (of a calendar month: of the rolling 30 days that stand for its traffic).
        calendar_month: The budget is that of the current calendar month.
        evaluation_interval: How often the rules run.
        base: The shortest window, the only one for which raw series are read.
        coarse_interval: Resolution at which windows of `coarse_from` and longer read the recorded event rates.
        coarse_from: The shortest window that reads the coarse recording.
        pairs: Fastest first; pages before tickets.
        divisor: By how much the durations are shortened, see `scaled`.
    """

    period: timedelta
    calendar_month: bool
    evaluation_interval: timedelta
    base: timedelta
    coarse_interval: timedelta
    coarse_from: timedelta
    pairs: tuple[BurnWindows, ...]
    divisor: int = 1

    @property
    def alert_windows(self) -> tuple[timedelta, ...]:
        """Every distinct long or short window, ascending."""
        return tuple(sorted({window for pair in self.pairs for window in (pair.short, pair.long)} | {self.base}))

    @property
    def coarse_lookback(self) -> timedelta:
        """How old a coarse sample may be: an instant selector looks back for 5 minutes, and would flicker."""
        return _COARSE_SAMPLES_BRIDGED * self.coarse_interval

    def pairs_of(self, severity: Severity) -> tuple[BurnWindows, ...]:
        """The pairs that alert with the given severity."""
        return tuple(pair for pair in self.pairs if pair.severity is severity)

    def scaled(self, divisor: int) -> Policy:
        """The same policy with every duration divided: a month in hours, for demonstrations and drills.

        Burn factors stay, as all durations shrink alike.
        """
        return replace(
            self,
            period=self.period / divisor,
            evaluation_interval=self.evaluation_interval / divisor,
            base=self.base / divisor,
            coarse_interval=self.coarse_interval / divisor,
            coarse_from=self.coarse_from / divisor,
            pairs=tuple(replace(p, long=p.long / divisor, short=p.short / divisor) for p in self.pairs),
            divisor=self.divisor * divisor,
        )


# severity, long, short, share of the budget that is gone when it fires, factor on 30 days
_WORKBOOK = (
    (Severity.PAGE, HOUR, 5 * MINUTE, Decimal("0.02"), Decimal("14.4")),
    (Severity.PAGE, 6 * HOUR, 30 * MINUTE, Decimal("0.05"), Decimal(6)),
    (Severity.TICKET, DAY, 2 * HOUR, Decimal("0.10"), Decimal(3)),
    (Severity.TICKET, 3 * DAY, 6 * HOUR, Decimal("0.10"), Decimal(1)),
)

# From four weeks on, the Workbook's shares of the budget hold. Below, they would give factors under 1, which alert on
# a service that meets its objective; there the Workbook's factors hold, as in Sloth's seven-day example, but no alert
# waits until more than half the budget is gone.
_SHARES_HOLD_FROM_DAYS = 28
_BUDGET_SHARE_MAX = Decimal("0.5")

# A month's traffic is that of the last 30 days, so that its first hours are judged like any other.
_CALENDAR_MONTH_TRAFFIC_DAYS = 30


def policy(window: Window) -> Policy:
    """The policy for a period; the tables above say why its numbers are what they are."""
    calendar_month = isinstance(window, CalendarMonth)
    period = timedelta(days=_CALENDAR_MONTH_TRAFFIC_DAYS if isinstance(window, CalendarMonth) else window.days)
    return Policy(
        period=period,
        calendar_month=calendar_month,
        evaluation_interval=timedelta(seconds=30),
        base=5 * MINUTE,
        coarse_interval=5 * MINUTE,
        coarse_from=DAY,
        pairs=tuple(_pairs(period)),
    )


def _pairs(period: timedelta) -> Iterator[BurnWindows]:
    for severity, long, short, share, factor_on_30_days in _WORKBOOK:
        if period >= timedelta(days=_SHARES_HOLD_FROM_DAYS):
            factor = share * _ratio(period, long)
        else:
            factor = min(factor_on_30_days, _BUDGET_SHARE_MAX * _ratio(period, long))
            if factor < 1:
                continue
        yield BurnWindows(severity, long, short, factor)


def _ratio(numerator: timedelta, denominator: timedelta) -> Decimal:
    return Decimal(numerator // timedelta(microseconds=1)) / Decimal(denominator // timedelta(microseconds=1))
