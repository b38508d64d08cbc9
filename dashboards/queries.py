"""What boards ask Prometheus: one method a figure, so that a figure means the same on every board.

Every answer has one series an SLO with the labels `SERVICE` and `SLO` and no others: so figures can be combined, joined
into the rows of a table, and survive the minutes in which an SLO's other labels change. The series are those that the
rules record; no board computes a ratio from raw counters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal

from slo import conventions as names
from slo import promql
from slo.compile import CompiledSlo
from slo.windows import DAY, BurnWindows, Policy, Severity

SERVICE, SLO = "sloth_service", "sloth_slo"
ALERT = "alertname"

ALERTS = "ALERTS"  # Prometheus' own: 1 while an alert is pending or firing
FIRING = {"alertstate": "firing"}


@dataclass(frozen=True)
class Queries:
    """The figures of some SLOs.

    Attributes:
        policies: Every policy that one of the SLOs has; its windows name the series.
        which: Label matchers that select the SLOs; empty for all.
    """

    policies: tuple[Policy, ...]
    which: Mapping[str, str | Sequence[str]]

    @staticmethod
    def of(compiled: Iterable[CompiledSlo], which: Mapping[str, str | Sequence[str]]) -> Queries:
        """The queries for a board that shows these SLOs."""
        return Queries(tuple(dict.fromkeys(one.policy for one in compiled)), which)

    # -- the promise -------------------------------------------------------------------------------------------------

    def objective(self) -> str:
        """Share of good events that is promised, 0 to 1."""
        return self._figure(names.OBJECTIVE)

    def budget(self) -> str:
        """Share of events that may be bad, 0 to 1."""
        return self._figure(names.ERROR_BUDGET)

    def good_in_period(self) -> str:
        """Share of good events over the period, 0 to 1."""
        return f"1 - {self._figure(names.PERIOD_BURN_RATE)} * {self.budget()}"

    # -- the budget --------------------------------------------------------------------------------------------------

    def budget_left(self) -> str:
        """Share of the period's error budget that is left: 1 is all, below 0 more than all is spent."""
        return self._figure(names.ERROR_BUDGET_REMAINING)

    def budget_left_events(self) -> str:
        """Bad events that the period's budget still bears, at the period's traffic."""
        return f"{self.budget_left()} * {self._figure(names.ERROR_BUDGET_RATE)} * {self._period_seconds()}"

    def seconds_to_exhaustion(self) -> str:
        """Seconds until the budget is gone at the burn of the fastest alert's long window; 0 when it is gone.

        At most the whole period: what is spent now is free again by then, so more would be an empty promise.
        """
        left = self.budget_left()
        share_of_period = f"0 * ({left} <= 0) or clamp_max({left} / {self._fastest_burn()}, 1)"
        return f"({share_of_period}) * {self._period_seconds()}"

    def _period_seconds(self) -> str:
        return f"{self._figure(names.TIME_PERIOD)} * {names.number(DAY.total_seconds())}"

    # -- how fast it burns -------------------------------------------------------------------------------------------

    def current_burn(self) -> str:
        """Classic burn rate over the shortest window: how many times more often things fail than is promised."""
        return self._figure(names.CURRENT_BURN_RATE)

    def burn(self, window: timedelta) -> str:
        """Budget-true burn rate over a window: how many times too fast the period's budget goes."""
        return _one(self._recorded(names.ERROR_BUDGET_BURN, window))

    def worst_burn(self) -> str:
        """The highest budget-true burn rate of the alerts' long windows."""
        return _one(*self._each(names.ERROR_BUDGET_BURN, self.long_windows))

    def _fastest_burn(self) -> str:
        windows = dict.fromkeys(policy.pairs[0].long for policy in self.policies)
        return _one(*self._each(names.ERROR_BUDGET_BURN, tuple(windows)))

    def page_factor_min(self) -> Decimal:
        """The burn rate from which the slowest page fires."""
        return min(pair.factor for policy in self.policies for pair in policy.pairs_of(Severity.PAGE))

    def limits(self, severity: Severity) -> list[tuple[str, str]]:
        """The factors that the alerts compare with: what to call each, and a query that gives it.

        SLOs with other periods have other factors, so each query has a value only for the SLOs that it holds for.
        """
        holders: dict[BurnWindows, list[Policy]] = {}
        for policy in self.policies:
            for pair in policy.pairs_of(severity):
                holders.setdefault(pair, []).append(policy)
        return [
            (_limit_name(pair), f"0 * {self._of_policies(policies)} + {names.number(pair.factor)}")
            for pair, policies in holders.items()
        ]

    def _of_policies(self, policies: Sequence[Policy]) -> str:
        """A value for each SLO that has one of the policies."""
        if len(policies) == len(self.policies):
            return self._figure(names.TIME_PERIOD)
        return f"({' or '.join(self._of_policy(policy) for policy in policies)})"

    def _of_policy(self, policy: Policy) -> str:
        """A value for each SLO with this policy.

        A policy follows from the period: its days, or the calendar month, whose days vary and which alone has a series
        of its own.
        """
        period = self._figure(names.TIME_PERIOD)
        month = self._figure(names.SLI_ERROR + names.MONTH)
        if policy.calendar_month:
            return f"{period} and {month}"
        same_days = f"{period} == {names.number(policy.period / DAY)}"
        if any(other.calendar_month for other in self.policies):
            return f"({same_days} unless {month})"
        return same_days

    # -- events ------------------------------------------------------------------------------------------------------

    def error_ratio(self, window: timedelta) -> str:
        """Bad among all events over a window, 0 to 1."""
        return _one(self._recorded(names.SLI_ERROR, window))

    def bad_events(self, window: timedelta) -> str:
        """Number of bad events in one of the alerts' long windows."""
        coarse = [policy for policy in self.policies if window >= policy.coarse_from and window in _long(policy)]
        selector = self._recorded(names.BAD_EVENTS_INCREASE, window)
        if coarse:
            bridged = max(policy.coarse_lookback for policy in coarse)
            selector = promql.over_time("last", selector, bridged)
        return _one(selector)

    def bad_events_per_second(self) -> str:
        """Bad events per second over the shortest window."""
        return _one(*self._each(names.BAD_EVENTS, self._bases))

    def good_events_per_second(self) -> str:
        """Good events per second over the shortest window."""
        return f"{_one(*self._each(names.ALL_EVENTS, self._bases))} - {self.bad_events_per_second()}"

    # -- alerts ------------------------------------------------------------------------------------------------------

    def firing(self) -> str:
        """The alerts that fire now."""
        return ALERTS + promql.matchers({**self.which, **FIRING})

    # -- windows -----------------------------------------------------------------------------------------------------

    @property
    def long_windows(self) -> tuple[timedelta, ...]:
        """The windows in which an alert sees that the loss matters, ascending."""
        return self._windows(_long)

    @property
    def alert_windows(self) -> tuple[timedelta, ...]:
        """Every window of an alert, ascending."""
        return self._windows(lambda policy: policy.alert_windows)

    def windows_of(self, severity: Severity) -> tuple[timedelta, ...]:
        """The windows of the alerts of one severity, ascending."""
        return self._windows(
            lambda policy: [window for pair in policy.pairs_of(severity) for window in (pair.short, pair.long)]
        )

    @property
    def _bases(self) -> tuple[timedelta, ...]:
        return self._windows(lambda policy: [policy.base])

    def _windows(self, of: Callable[[Policy], Iterable[timedelta]]) -> tuple[timedelta, ...]:
        return tuple(sorted({window for policy in self.policies for window in of(policy)}))

    # -- PromQL ------------------------------------------------------------------------------------------------------

    def selector(self, record: str) -> str:
        """The chosen SLOs' series of a record."""
        return record + promql.matchers(self.which)

    def _recorded(self, record: str, window: timedelta) -> str:
        return self.selector(record + names.duration(window))

    def _each(self, record: str, windows: Sequence[timedelta]) -> list[str]:
        return [self._recorded(record, window) for window in windows]

    def _figure(self, record: str) -> str:
        return _one(self.selector(record))


def _one(*series: str) -> str:
    """One series an SLO: the highest of all, as the rules do where two live on because a label just changed.

    `or` keeps the series of all windows of a ratio, as their window is a label. Event rates have no such label; they
    are only ever asked for the shortest window, and an SLO has one.
    """
    return f"max by ({SERVICE}, {SLO}) ({' or '.join(series)})"


def _limit_name(pair: BurnWindows) -> str:
    windows = f"{names.duration(pair.long)} and {names.duration(pair.short)}"
    return f"{pair.severity} above {names.number(pair.factor)} ({windows})"


def _long(policy: Policy) -> list[timedelta]:
    return [pair.long for pair in policy.pairs]
