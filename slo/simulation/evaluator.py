"""The compiled rules, step by step, in plain arithmetic. `slo.compile` says why each is as it is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import accumulate

from slo.compile import Reason
from slo.errors import SloError
from slo.simulation.alerting import Alerting, BurnAlert, BurnWay
from slo.simulation.traffic import Incident, Traffic
from slo.windows import Policy, Severity

_NOTHING = timedelta(0)
SAME_NOTIFICATION = timedelta(minutes=5)
"""Alertmanager's group interval (alerts/alertmanager.py): it hears of no end that is shorter than this."""

_COUNT_SLACK = 0.4  # as in slo.compile: what a count must be above


@dataclass(frozen=True, slots=True, kw_only=True)
class Firing:
    """An alert that fires, from a moment on.

    Attributes:
        alert: Its name.
        severity: Who acts.
        begin: When it begins to fire.
        end: When it ends; None when it still fires at the end of the traffic.
        reason: Why it is right when it begins: the first of its ways that is.
        long: The long window of that way.
        short: The short window of that way.
        bad_events: Bad events in that long window by then.
        budget_spent: The same as a share of the period's budget, 1 for all of it.
    """

    alert: str
    severity: Severity
    begin: datetime
    end: datetime | None
    reason: Reason
    long: timedelta
    short: timedelta
    bad_events: float
    budget_spent: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """Somebody is told of an incident.

    Attributes:
        after: Time from its begin; zero when the alert fired already.
        budget_spent: Share of the period's budget that it has spent by then.
    """

    after: timedelta
    budget_spent: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What an incident does.

    Attributes:
        incident: The incident.
        bad_events: Bad events from its begin to its end.
        budget_spent: The same as a share of the period's budget.
        page: When somebody is woken; None when nobody is.
        ticket: When there is a ticket; None when there is none.
    """

    incident: Incident
    bad_events: float
    budget_spent: float
    page: Told | None
    ticket: Told | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Simulation:
    """What would have happened.

    Attributes:
        slo: `service/slo`.
        begin: When the traffic begins.
        end: When it ends.
        all: Events.
        bad: Bad ones.
        budget_events: Bad events that the objective allows in one period, at the mean traffic.
        firings: What fired, in the order of begins.
        outcomes: What became of each incident.
    """

    slo: str
    begin: datetime
    end: datetime
    all: float
    bad: float
    budget_events: float
    firings: tuple[Firing, ...]
    outcomes: tuple[Outcome, ...]

    @property
    def budget_spent(self) -> float:
        """All bad events as a share of one period's budget."""
        return self.bad / self.budget_events if self.budget_events else 0.0

    def told(self, severity: Severity) -> tuple[Firing, ...]:
        """How often somebody is told: what fires again within `SAME_NOTIFICATION` goes on here."""
        found: list[Firing] = []
        for one in self.firings:
            if one.severity is not severity:
                continue
            last = found[-1] if found else None
            if last and last.end and one.begin - last.end < SAME_NOTIFICATION:
                found[-1] = replace(last, end=one.end)
            else:
                found.append(one)
        return tuple(found)


def simulate(alerting: Alerting, traffic: Traffic, incidents: Sequence[Incident] = ()) -> Simulation:
    """Run an SLO's alerts over traffic.

    Args:
        alerting: Whom the SLO tells when.
        traffic: What was asked for; any interval that divides the rules' evaluation interval, or is a multiple of it.
        incidents: What happens on top.

    Raises:
        SloError: The traffic does not fit the rules, or there is none.
    """
    subject = f"simulation of {alerting.slo}"
    struck = traffic.every(alerting.policy.evaluation_interval)
    struck = struck.struck_by([_whole_slices(one, traffic.begin, alerting.slice) for one in incidents])
    if not sum(struck.all):
        raise SloError(subject, ["the traffic has no event"])
    for incident in incidents:
        if not (traffic.begin <= incident.begin and incident.end <= traffic.end):
            times = f"from {incident.begin:%Y-%m-%dT%H:%M} to {incident.end:%Y-%m-%dT%H:%M}"
            span = f"{traffic.begin:%Y-%m-%dT%H:%M} to {traffic.end:%Y-%m-%dT%H:%M}"
            raise SloError(subject, [f"the incident {times} is outside of the traffic, which is from {span}"])
        if alerting.slice and incident.bad_share != 1:
            raise SloError(subject, ["a slice of time is bad or good as a whole; give incidents a share of 100%"])
    return _Run(alerting, struck).simulation(incidents)


def _whole_slices(incident: Incident, origin: datetime, one: timedelta | None) -> Incident:
    """An incident that lasts for all of each slice that it touches, as one bad moment makes a slice bad."""
    if one is None:
        return incident
    begin = incident.begin - (incident.begin - origin) % one
    return replace(incident, begin=begin, length=-(-(incident.end - begin) // one) * one)


class _Rates:
    """A recorded event rate, fine and coarse, at any evaluation; evaluations are numbered from 1."""

    def __init__(self, events: Sequence[float], policy: Policy, *, sliced: bool) -> None:
        self._policy = policy
        self._interval = policy.evaluation_interval
        self._total = [0.0, *accumulate(events)]
        self._a_base = policy.base // self._interval
        self._base = [0.0, *(self._base_rate(number, sliced=sliced) for number in range(1, len(events) + 1))]
        self._summed = list(accumulate(self._base))
        self._a_coarse = policy.coarse_interval // self._interval
        means = (
            (self._summed[end] - self._summed[end - self._a_coarse]) / self._a_coarse
            for end in range(self._a_coarse, len(events) + 1, self._a_coarse)
        )
        self._coarse_summed = [0.0, *accumulate(means)]
        # Windows as numbers: how many samples a mean has, and the seconds of the window and of the lag.
        self._fine: dict[timedelta, tuple[int, float, float]] = {}

    def counted(self, number: int, window: timedelta) -> float:
        """Events in a window, really."""
        return self._total[number] - self._total[max(number - window // self._interval, 0)]

    def _base_rate(self, number: int, *, sliced: bool) -> float:
        seconds = self._policy.base.total_seconds()
        if sliced:  # counted, slice by slice
            return (self._total[number] - self._total[max(number - self._a_base, 0)]) / seconds
        # Prometheus' `rate`: the increase between the scrapes in the window, extrapolated to its ends. A first scrape
        # that is far from the window's begin is where the series begins; it gives half an interval.
        intervals = min(number, self._a_base - 1)
        sampled = intervals * self._interval.total_seconds()
        increase = self._total[number] - self._total[number - intervals]
        whole = seconds if number >= self._a_base - 1 else sampled + self._interval.total_seconds() / 2
        return increase * (whole / sampled) / seconds

    def mean(self, number: int, window: timedelta) -> float | None:
        """`slo:*_events:rate<w>` as an alert reads it; None while there is none."""
        policy = self._policy
        if window == policy.base:
            return self._base[number]
        if window >= policy.coarse_from:
            last, samples = self._coarse(number, window)
            return (self._coarse_summed[last] - self._coarse_summed[last - samples]) / samples if samples else None
        if window not in self._fine:
            lag = (policy.base - policy.evaluation_interval) / 2
            whole = -(-(window - lag) // self._interval)
            self._fine[window] = whole, window.total_seconds(), lag.total_seconds()
        samples, seconds, lag_seconds = self._fine[window]
        samples, newest = min(number, samples), self._base[number]
        mean = (self._summed[number] - self._summed[number - samples]) / samples
        made_newest = (mean * (seconds - lag_seconds) + newest * lag_seconds) / seconds
        return max(newest * policy.base.total_seconds() / seconds, made_newest)

    def increase(self, number: int, window: timedelta) -> float | None:
        """`slo:bad_events:increase<w>` as an alert reads it; None while there is none."""
        policy = self._policy
        if window >= policy.coarse_from:
            last, samples = self._coarse(number, window)
            total = self._coarse_summed[last] - self._coarse_summed[last - samples]
            return total * policy.coarse_interval.total_seconds() if samples else None
        samples = min(number, window // self._interval)
        total = (self._summed[number] - self._summed[number - samples]) * self._interval.total_seconds()
        return max(self._base[number] * policy.base.total_seconds(), total)

    def _coarse(self, number: int, window: timedelta) -> tuple[int, int]:
        """The last coarse sample before an evaluation, and how many of them a window has."""
        last = (number - 1) // self._a_coarse
        return last, min(last, window // self._policy.coarse_interval)


class _Run:
    def __init__(self, alerting: Alerting, traffic: Traffic) -> None:
        self._alerting, self._traffic, self._policy = alerting, traffic, alerting.policy
        sliced = alerting.slice is not None
        self._all = _Rates(traffic.all, self._policy, sliced=sliced)
        self._bad = _Rates(traffic.bad, self._policy, sliced=sliced)
        self._budget = alerting.budget_ratio
        windows = self._policy.alert_windows
        self._longest_fine = max(window for window in windows if window < self._policy.coarse_from)
        # The period's mean is read once its first value is as old as the shortest long window.
        young = min(pair.long for pair in self._policy.pairs) + self._policy.coarse_interval
        self._grown_from = -(-young // self._policy.evaluation_interval)
        period_seconds = self._policy.period.total_seconds()
        per_second = sum(traffic.all) / (traffic.end - traffic.begin).total_seconds()
        self._budget_events = self._budget * per_second * period_seconds

    def simulation(self, incidents: Sequence[Incident]) -> Simulation:
        firings = [firing for alert in self._alerting.alerts for firing in self._firings(alert)]
        firings.sort(key=lambda one: (one.begin, list(Severity).index(one.severity)))
        return Simulation(
            slo=self._alerting.slo,
            begin=self._traffic.begin,
            end=self._traffic.end,
            all=sum(self._traffic.all),
            bad=sum(self._traffic.bad),
            budget_events=self._budget_events,
            firings=tuple(firings),
            outcomes=tuple(self._outcome(one, firings) for one in incidents),
        )

    def _firings(self, alert: BurnAlert) -> Iterator[Firing]:
        """The alert's life, evaluation by evaluation."""
        since: int | None = None  # when it began to be right
        fired: Firing | None = None
        for number in range(1, len(self._traffic.all) + 1):
            way = next((way for way in alert.ways if self._is_right(way, number)), None)
            if way is None:
                if fired is not None:
                    yield replace(fired, end=self._at(number))
                since = fired = None
                continue
            since = number if since is None else since
            if fired is None and (number - since) * self._policy.evaluation_interval >= alert.hold:
                fired = self._firing(alert, way, number)
        if fired is not None:
            yield fired

    def _is_right(self, way: BurnWay, number: int) -> bool:
        """Whether a way's expression has a result."""
        for window in (way.short, way.long):
            bad = self._bad.mean(number, window)
            if bad is None or not bad > self._limit(way, number, window):
                return False
        if way.reason is Reason.RATIO:
            return True
        least = way.bad_events_min - _COUNT_SLACK
        increase = self._bad.increase(number, way.long)
        if increase is None or not increase > least:
            return False
        short = self._bad.mean(number, way.short)
        assert short is not None, "compared above"
        return way.reason is Reason.BUDGET or short * way.long.total_seconds() > least

    def _limit(self, way: BurnWay, number: int, window: timedelta) -> float:
        """What the bad events per second of a window must be above."""
        if way.reason is Reason.BUDGET:
            # The budget goes too fast, and the objective is violated.
            return max(way.factor * self._budget_rate(number), self._budget * self._mean_of_all(number, window))
        return way.factor * self._budget * self._mean_of_all(number, window)

    def _mean_of_all(self, number: int, window: timedelta) -> float:
        mean = self._all.mean(number, window)
        return float("inf") if mean is None else mean

    def _budget_rate(self, number: int) -> float:
        """`slo:error_budget:rate`."""
        mean = self._all.mean(number, self._policy.period) if number >= self._grown_from else None
        if mean is None:
            mean = self._mean_of_all(number, self._longest_fine)
        return self._budget * mean

    def _firing(self, alert: BurnAlert, way: BurnWay, number: int) -> Firing:
        bad = self._bad.counted(number, way.long)
        return Firing(
            alert=alert.name,
            severity=alert.severity,
            begin=self._at(number),
            end=None,
            reason=way.reason,
            long=way.long,
            short=way.short,
            bad_events=bad,
            budget_spent=self._share(bad),
        )

    def _outcome(self, incident: Incident, firings: Sequence[Firing]) -> Outcome:
        bad = self._bad_between(incident.begin, incident.end)
        page, ticket = (self._told(incident, severity, firings) for severity in (Severity.PAGE, Severity.TICKET))
        return Outcome(incident=incident, bad_events=bad, budget_spent=self._share(bad), page=page, ticket=ticket)

    def _told(self, incident: Incident, severity: Severity, firings: Sequence[Firing]) -> Told | None:
        """The first alert of a severity that fires during the incident, or as its windows still hold it."""
        lasts = max((one.lasts for one in self._alerting.alerts if one.severity is severity), default=_NOTHING)
        for one in firings:
            still = one.end is None or one.end > incident.begin
            if one.severity is severity and still and one.begin <= incident.end + lasts:
                moment = max(one.begin, incident.begin)
                spent = self._share(self._bad_between(incident.begin, min(moment, incident.end)))
                return Told(after=moment - incident.begin, budget_spent=spent)
        return None

    def _bad_between(self, begin: datetime, end: datetime) -> float:
        interval = self._traffic.interval
        first, last = ((moment - self._traffic.begin) // interval for moment in (begin, end))
        return self._bad.counted(last, (last - first) * interval)

    def _share(self, bad: float) -> float:
        return bad / self._budget_events if self._budget_events else 0.0

    def _at(self, number: int) -> datetime:
        return self._traffic.begin + number * self._policy.evaluation_interval
