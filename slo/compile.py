"""`Slo -> CompiledSlo`: every window, threshold, name and expression; pure, and in `Decimal`.

The rules weigh the budget by events. Raw series are read once, over the shortest window, into two event rates; every
longer window is a mean of those, and a ratio is taken last. Long windows read a coarser recording of the same rates,
so the cost of an SLO is a small constant, whatever the number of pods, routes and status codes.
docs/decisions/0002 and 0003 say why, with figures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from enum import StrEnum
from functools import cached_property, lru_cache

from slo import conventions as names
from slo import promql
from slo.model import Alert, Events, Latency, Queries, Severity, Slo
from slo.sli import EventRates, event_rates
from slo.windows import DAY, BurnWindows, Policy, policy


@dataclass(frozen=True, slots=True)
class Recording:
    """A recording rule.

    Attributes:
        record: Name of the recorded series.
        expr: PromQL.
        labels: Labels added to the result, sorted by name.
    """

    record: str
    expr: str
    labels: Mapping[str, str] = field(hash=False)


class AlertKind(StrEnum):
    """What an alert says."""

    BURN = "burn"
    ABSENT = "absent"


class Reason(StrEnum):
    """Why it is right to alert."""

    BUDGET = "budget"  # the budget of the whole period goes
    PEOPLE = "people"  # many people fail, whatever that is of the budget
    RATIO = "ratio"  # the classic rule: the budget would go if traffic were even


@dataclass(frozen=True, slots=True)
class Way:
    """One way for an alert to be right.

    Attributes:
        reason: Why.
        windows: The pair of windows that must both burn.
        expr: PromQL that has a result while it holds.
    """

    reason: Reason
    windows: BurnWindows
    expr: str


@dataclass(frozen=True, slots=True)
class CompiledAlert:
    """An alerting rule, still without the links and texts that a renderer adds.

    Attributes:
        name: Unique over all SLOs.
        kind: Whether the budget burns, or the SLI has no data.
        severity: Who acts.
        expr: PromQL; every result has the SLO's identity labels at most, so one incident is one alert.
        hold: How long the expression must hold before the alert fires.
        ways: The ways for it to be right, fastest first; empty for an absence.
        labels: Every label of the alert, sorted by name.
        annotations: What the definition adds.
    """

    name: str
    kind: AlertKind
    severity: Severity
    expr: str
    hold: timedelta
    ways: tuple[Way, ...]
    labels: Mapping[str, str] = field(hash=False)
    annotations: Mapping[str, str] = field(hash=False)

    @property
    def pairs(self) -> tuple[BurnWindows, ...]:
        """The burn-rate windows that it watches, fastest first; empty for an absence."""
        return tuple(dict.fromkeys(way.windows for way in self.ways))


@dataclass(frozen=True)
class CompiledSlo:
    """An SLO with everything that renderers need. Make one with `compile_slo`.

    Attributes:
        slo: The definition.
        policy: Its windows.
    """

    slo: Slo
    policy: Policy

    # -- plain values ------------------------------------------------------------------------------------------------

    @cached_property
    def identity(self) -> dict[str, str]:
        """The labels that name the SLO."""
        return names.identity_labels(self.slo)

    @cached_property
    def series_labels(self) -> dict[str, str]:
        """The labels of the series that people read: identity, owner, and the definition's own."""
        return _by_name({**self.slo.labels, "owner": self.slo.owner, **self.identity})

    def named(self, record: str, window: timedelta | None = None) -> str:
        """A selector for one of this SLO's recorded series."""
        return record + (names.duration(window) if window else "") + self._matchers

    @cached_property
    def _matchers(self) -> str:
        # The id alone is unique, which slo.check sees to; the shorter selector keeps rules readable.
        return promql.matchers({"sloth_id": self.slo.id})

    @cached_property
    def _budget(self) -> str:
        return names.number(self.slo.budget_ratio)

    @cached_property
    def windows(self) -> tuple[timedelta, ...]:
        """Every window of the alerts, ascending, then the period."""
        return tuple(sorted({*self.policy.alert_windows, self.policy.period}))

    def is_coarse(self, window: timedelta) -> bool:
        """Whether a window reads the coarse recording."""
        return window >= self.policy.coarse_from

    def over(self, record: str, window: timedelta) -> str:
        """A recorded value over a window; a coarse one is bridged over the time until its next evaluation."""
        if not self.is_coarse(window):
            return self.named(record, window)
        return promql.over_time(
            "last",
            self.named(record, window),
            self.policy.coarse_lookback,
        )

    @cached_property
    def _event_rates(self) -> EventRates:
        return event_rates(self.slo.sli, self.policy, self.named(names.ALL_EVENTS, self.policy.base))

    # -- recording rules ---------------------------------------------------------------------------------------------

    @cached_property
    def recordings(self) -> tuple[Recording, ...]:
        """The rules that run every evaluation, in an order in which each reads only what is above it."""
        return tuple(self._recordings())

    @cached_property
    def coarse_recordings(self) -> tuple[Recording, ...]:
        """The rules that run every coarse interval."""
        return tuple(self._coarse_recordings())

    def _recordings(self) -> Iterator[Recording]:
        base = self.policy.base
        yield self._record(names.ALL_EVENTS, self._event_rates.all, base)
        yield self._record(names.BAD_EVENTS, self._event_rates.bad, base)
        for window in self.windows:
            if base < window < self.policy.coarse_from:
                for record in (names.ALL_EVENTS, names.BAD_EVENTS):
                    yield self._record(record, self._mean_rate(record, window), window)
        yield Recording(names.ERROR_BUDGET_RATE, self._error_budget_rate(), self.identity)
        for window in self._long_windows:
            if not self.is_coarse(window):
                yield self._record(names.BAD_EVENTS_INCREASE, self._increase(window), window)
        for window in self.windows:
            yield self._read(names.SLI_ERROR, self._error_ratio(window), window)
        for window in self.policy.alert_windows:
            yield self._read(names.ERROR_BUDGET_BURN, self._budget_burn(window), window)
        yield from self._meta()

    def _coarse_recordings(self) -> Iterator[Recording]:
        interval, base = self.policy.coarse_interval, self.policy.base
        for record in (names.ALL_EVENTS, names.BAD_EVENTS):
            # The mean over the interval, not a sample of it: so every event weighs the same.
            mean = promql.over_time("avg", self.named(record, base), interval)
            coarse = names.coarse(record, interval, base)
            yield Recording(coarse, mean, self.identity)
            for window in self.windows:
                if self.is_coarse(window):
                    yield self._record(
                        record,
                        promql.over_time("avg", self.named(coarse), window),
                        window,
                    )
            if self.policy.calendar_month:
                yield from self._month(record, coarse)
        for window in self._long_windows:
            if self.is_coarse(window):
                coarse = self.named(names.coarse(names.BAD_EVENTS, interval, base))
                increase = f"{promql.over_time('sum', coarse, window)} * {_seconds(interval)}"
                yield self._record(names.BAD_EVENTS_INCREASE, increase, window)

    def _month(self, record: str, coarse: str) -> Iterator[Recording]:
        """The events since the first of the month.

        Each coarse sample carries its month as a label; the sum takes those of the current one.
        """
        of_month = f"{coarse}{names.MONTH}"
        yield Recording(
            of_month,
            f"{self.named(coarse)} * on () group_left ({names.MONTH_LABEL}) {_MONTH_NOW}",
            self.identity,
        )
        total = promql.over_time("sum", self.named(of_month), 31 * DAY)
        yield Recording(
            record + names.MONTH,
            f"sum({total} and on ({names.MONTH_LABEL}) {_MONTH_NOW}) * {_seconds(self.policy.coarse_interval)}",
            self.identity,
        )

    @cached_property
    def _long_windows(self) -> tuple[timedelta, ...]:
        return tuple(sorted({pair.long for pair in self.policy.pairs}))

    def _mean_rate(self, record: str, window: timedelta) -> str:
        """The mean rate over a window, from the base rate.

        A plain mean of the base rate lags, as each of its samples looks back over the base window. So the newest base
        rate stands for the time of that lag, which makes a change of rate exact once it is as old as the base window.
        Until then the base window is a floor: all its events lie in the longer window too. Without a newest base rate
        the plain mean stands.
        """
        base, lag = self.named(record, self.policy.base), (self.policy.base - self.policy.evaluation_interval) / 2
        mean = promql.over_time("avg", base, window - lag)
        newest = f"({mean} * {_seconds(window - lag)} + {base} * {_seconds(lag)}) / {_seconds(window)}"
        floor = f"{base} * {_seconds(self.policy.base)} / {_seconds(window)}"
        return f"({floor} > {newest})\nor\n{newest}\nor\n{mean}"

    def _increase(self, window: timedelta) -> str:
        """The number of bad events in a window. Unlike a mean, it does not extrapolate when data is young."""
        base = self.named(names.BAD_EVENTS, self.policy.base)
        total = f"{promql.over_time('sum', base, window)} * {_seconds(self.policy.evaluation_interval)}"
        return f"({base} * {_seconds(self.policy.base)} > {total})\nor\n{total}"

    def _error_budget_rate(self) -> str:
        """The budget, spread over the period's traffic.

        For its first hour the period's value lags far behind young traffic, so the longest fine window stands in.
        """
        longest_fine = max(window for window in self.windows if not self.is_coarse(window))
        period = self.over(names.ALL_EVENTS, self.policy.period)
        grown = period.removesuffix(")") + f" offset {names.duration(min(self._long_windows))})"
        return f"{self._budget} * (\n  {period} and {grown}\n  or\n  {self.named(names.ALL_EVENTS, longest_fine)}\n)"

    def _error_ratio(self, window: timedelta) -> str:
        """Bad among all; 0 without traffic, as a NaN would stay in the month's mean and hide alerts."""
        bad, all_events = (self.over(record, window) for record in (names.BAD_EVENTS, names.ALL_EVENTS))
        return f"{bad} / ({all_events} > 0)\nor\n0 * {bad}"

    def _budget_burn(self, window: timedelta) -> str:
        bad = self.over(names.BAD_EVENTS, window)
        return f"{bad} / ({self.named(names.ERROR_BUDGET_RATE)} > 0)\nor\n0 * {bad}"

    def _meta(self) -> Iterator[Recording]:
        period = self.policy.period
        labels = self.series_labels
        yield Recording(names.OBJECTIVE, f"vector({names.number(self.slo.objective_ratio)})", labels)
        yield Recording(names.ERROR_BUDGET, f"vector({self._budget})", labels)
        if self.policy.calendar_month:
            bad, all_events = (self._month_events(record) for record in (names.BAD_EVENTS, names.ALL_EVENTS))
            ratio = f"{bad} / ({all_events} > 0)\nor\n0 * {bad}"
            yield Recording(names.SLI_ERROR + names.MONTH, ratio, labels)
            month_ratio = self.named(names.SLI_ERROR + names.MONTH)
            expected = f"{all_events} + {self.over(names.ALL_EVENTS, period)} * {_MONTH_SECONDS_LEFT}"
            remaining = f"1 - {bad} / ({self._budget} * ({expected}) > 0)\nor\n1 + 0 * {bad}"
            yield Recording(names.TIME_PERIOD, "days_in_month()", labels)
            yield Recording(names.CURRENT_BURN_RATE, self._classic_burn(self.policy.base), labels)
            yield Recording(
                names.PERIOD_BURN_RATE,
                f"{self._one(month_ratio)} / {self._budget}",
                labels,
            )
        else:
            remaining = f"1 - {self._one(self.named(names.PERIOD_BURN_RATE))}"
            yield Recording(names.TIME_PERIOD, f"vector({names.number(_days(period))})", labels)
            yield Recording(names.CURRENT_BURN_RATE, self._classic_burn(self.policy.base), labels)
            yield Recording(names.PERIOD_BURN_RATE, self._classic_burn(period), labels)
        yield Recording(names.ERROR_BUDGET_REMAINING, remaining, labels)
        yield Recording(names.INFO, "vector(1)", _by_name({**labels, **names.info_labels(self.slo)}))

    def _month_events(self, record: str) -> str:
        return promql.over_time(
            "last",
            self.named(record + names.MONTH),
            self.policy.coarse_lookback,
        )

    def _classic_burn(self, window: timedelta) -> str:
        return f"{self._one(self.named(names.SLI_ERROR, window))} / {self._budget}"

    def _one(self, selector: str) -> str:
        """One value of a series that people read, also while two live on because a label of it just changed."""
        return f"max by ({', '.join(self.identity)}) ({selector})"

    def _record(self, record: str, expr: str, window: timedelta) -> Recording:
        """A series for rules to read: identity labels only, so that it goes on when other labels change."""
        return Recording(record + names.duration(window), expr, self.identity)

    def _read(self, record: str, expr: str, window: timedelta) -> Recording:
        """A series for people to read."""
        labels = _by_name({**self.series_labels, names.WINDOW_LABEL: names.duration(window)})
        return Recording(record + names.duration(window), expr, labels)

    # -- alerting rules ----------------------------------------------------------------------------------------------

    @cached_property
    def alerts(self) -> tuple[CompiledAlert, ...]:
        """Page, ticket and absence, as far as the definition has them."""
        return tuple(self._alerts())

    def _alerts(self) -> Iterator[CompiledAlert]:
        for alert in self.slo.alerts:
            ways = tuple(way for pair in self.policy.pairs_of(alert.severity) for way in self._ways(pair))
            yield CompiledAlert(
                name=names.alert_name(self.slo, alert.severity),
                kind=AlertKind.BURN,
                severity=alert.severity,
                expr=promql.any_of([way.expr for way in ways]),
                hold=timedelta(0),
                ways=ways,
                labels=self._alert_labels(alert),
                annotations={**self.slo.annotations, **alert.annotations},
            )
        if self.slo.alerts:
            # Without data nobody would be paged any more, so the absence is as urgent as the SLO's first alert.
            gravest = min(self.slo.alerts, key=lambda alert: list(Severity).index(alert.severity))
            presence = self._event_rates.presence or self.named(names.ALL_EVENTS, self.policy.base)
            yield CompiledAlert(
                name=names.absent_alert_name(self.slo),
                kind=AlertKind.ABSENT,
                severity=gravest.severity,
                expr=f"absent({presence})",
                hold=self.slo.absent_after / self.policy.divisor,
                ways=(),
                labels=self._alert_labels(gravest),
                annotations={**self.slo.annotations, **gravest.annotations},
            )

    def _alert_labels(self, alert: Alert) -> dict[str, str]:
        ours = {
            names.SEVERITY_LABEL: str(alert.severity),
            "severity": str(alert.severity),
            "service": self.slo.service,
            "slo": self.slo.name,
        }
        return _by_name({**self.series_labels, **alert.labels, **ours})

    def _ways(self, pair: BurnWindows) -> Iterator[Way]:
        """The ways to be right to alert, each over both windows."""
        if self.slo.burn == "ratio":
            yield Way(Reason.RATIO, pair, promql.all_of(self._burning(pair, self._of_traffic)))
            return
        budget = [
            *self._burning(pair, lambda _: self.named(names.ERROR_BUDGET_RATE)),
            *self._objective_violated(pair),
            self._at_least(self.slo.budget_bad_events_min, pair.long),
        ]
        yield Way(Reason.BUDGET, pair, promql.all_of(budget))
        # A bad slice is a stretch of time, not somebody who fails.
        if pair.severity is Severity.PAGE and isinstance(self.slo.sli, Events | Latency | Queries):
            people = [
                *self._burning(pair, self._of_traffic),
                self._at_least(self.slo.people_bad_events_min, pair.long),
                self._at_pace(self.slo.people_bad_events_min, pair),
            ]
            yield Way(Reason.PEOPLE, pair, promql.all_of(people))

    def _objective_violated(self, pair: BurnWindows) -> list[str]:
        """Traffic that meets its objective earns the budget that it uses."""
        return [
            f"{self.over(names.BAD_EVENTS, window)} > {self._of_traffic(window)}" for window in (pair.short, pair.long)
        ]

    def _burning(self, pair: BurnWindows, budget_rate: Callable[[timedelta], str]) -> list[str]:
        factor = names.number(pair.factor)
        return [
            f"{self.over(names.BAD_EVENTS, window)} > {factor} * {budget_rate(window)}"
            for window in (pair.short, pair.long)
        ]

    def _of_traffic(self, window: timedelta) -> str:
        """The budget at the window's own traffic: the classic burn rate's denominator."""
        return f"{self._budget} * {self.over(names.ALL_EVENTS, window)}"

    def _at_least(self, events: int, window: timedelta) -> str:
        return f"{self.over(names.BAD_EVENTS_INCREASE, window)} > {_count(events)}"

    def _at_pace(self, events: int, pair: BurnWindows) -> str:
        """The short window is on its way to the same number: a stray error hours after an incident pages nobody."""
        return f"{self.over(names.BAD_EVENTS, pair.short)} * {_seconds(pair.long)} > {_count(events)}"


def compile_slo(slo: Slo, of: Policy | None = None) -> CompiledSlo:
    """Compile a definition.

    Args:
        slo: The definition.
        of: Its windows; by default those of its period. A scaled policy makes a demonstration of a month take hours.
    """
    return CompiledSlo(slo, of or policy(slo.window))


_MONTH_NOW = f"count_values({promql.quoted(names.MONTH_LABEL)}, year() * 100 + month())"
_MONTH_SECONDS_LEFT = "scalar(days_in_month() * 86400 - (day_of_month() - 1) * 86400 - time() % 86400)"


def _count(events: int) -> str:
    """What a count must be above: rates extrapolate, so 3 events may read 2.7, and 2, scraped each minute, 2.5."""
    return names.number(events - Decimal("0.4"))


def _by_name(labels: Mapping[str, str]) -> dict[str, str]:
    return dict(sorted(labels.items()))


@lru_cache(maxsize=1024)
def _seconds(length: timedelta) -> str:
    return names.number(length.total_seconds())


def _days(length: timedelta) -> Decimal:
    return Decimal(length // timedelta(microseconds=1)) / Decimal(DAY // timedelta(microseconds=1))
