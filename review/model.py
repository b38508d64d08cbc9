"""What a review says: frozen values, ready to be told in any form. Times are Unix seconds, shares are 0 to 1."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal

from slo.compile import CompiledSlo


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """A stretch of time.

    Attributes:
        begin: When it begins.
        end: When it ends, not before it begins.
    """

    begin: float
    end: float

    @property
    def seconds(self) -> float:
        """How long it is."""
        return self.end - self.begin

    def overlap_seconds(self, other: Span) -> float:
        """For how long both hold."""
        return max(0.0, min(self.end, other.end) - max(self.begin, other.begin))


@dataclass(frozen=True, slots=True)
class EventWindows:
    """The events of one SLO, a number for each short window of time, in order and without a gap.

    Attributes:
        begin: When the first window begins.
        step_seconds: Length of a window.
        all: Events in each window; NaN where nothing was recorded. From the mean of all recorded rates, so that every
            event is counted once, though some of it in a neighbouring window.
        bad: Bad events, likewise.
        bad_sharp: Bad events from the rate at the end of the window alone: in the right window, but a scrape interval
            of each window is extrapolated. 0 where nothing was recorded.
    """

    begin: float
    step_seconds: float
    all: array[float]
    bad: array[float]
    bad_sharp: array[float]

    def __len__(self) -> int:
        return len(self.all)

    @property
    def span(self) -> Span:
        """From the first window's begin to the last one's end."""
        return Span(self.begin, self.begin + len(self.all) * self.step_seconds)

    def window(self, index: int) -> Span:
        """The time of a window."""
        begin = self.begin + index * self.step_seconds
        return Span(begin, begin + self.step_seconds)

    def recorded(self, index: int) -> bool:
        """Whether there is data for a window."""
        return not math.isnan(self.all[index])

    @property
    def recorded_count(self) -> int:
        """For how many windows there is data."""
        return len(self.all) - sum(map(math.isnan, self.all))

    def indices(self, span: Span) -> range:
        """The windows that a span touches."""
        first = math.floor((span.begin - self.begin) / self.step_seconds)
        last = math.ceil((span.end - self.begin) / self.step_seconds)
        return range(max(first, 0), min(last, len(self.all)))

    def groups(self, seconds: float) -> Iterator[range]:
        """The windows, hour by hour or day by day; the groups' edges are multiples of their length (UTC)."""
        index = 0
        while index < len(self.all):
            edge = (math.floor(self.window(index).begin / seconds) + 1) * seconds
            after = min(index + max(1, round((edge - self.window(index).begin) / self.step_seconds)), len(self.all))
            yield range(index, after)
            index = after


def recorded_sum(values: array[float], indices: range) -> float:
    """The sum of what was recorded."""
    some = values[indices.start : indices.stop]
    total = math.fsum(some)
    return total if not math.isnan(total) else math.fsum(value for value in some if not math.isnan(value))


@dataclass(frozen=True, slots=True, kw_only=True)
class Adjustment:
    """A stretch of time that does not count against the budget.

    Attributes:
        slo: `service/slo`, or `*` for all.
        span: Its time.
        reason: Why.
        approver: Who agreed.
    """

    slo: str
    span: Span
    reason: str
    approver: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AppliedAdjustment:
    """What an adjustment took out of a budget.

    Attributes:
        adjustment: What was agreed.
        all_events: Events that do not count.
        bad_events: Bad ones among them.
    """

    adjustment: Adjustment
    all_events: float
    bad_events: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """An error budget over a period.

    Attributes:
        period: The period, as far as it is over.
        ratio: Share of events that may be bad.
        all_events: Events that count.
        bad_events: Bad ones among them.
        budget_events: How many of them may be bad.
        budget_minutes: The same as minutes of full outage at even traffic.
        spent: Share of the budget that is gone; above 1 when more than all of it is. 0 when nothing happened.
        spent_unadjusted: What it would be without adjustments.
        exhausted_at: When the last of it went; None while some is left.
        recorded: Share of the period for which there is data.
        last_recorded_at: End of the newest data.
        burn_down: Time and what was left of the period's budget, at each hour's end.
    """

    period: Span
    ratio: Decimal
    all_events: float
    bad_events: float
    budget_events: float
    budget_minutes: float
    spent: float
    spent_unadjusted: float
    exhausted_at: float | None
    recorded: float
    last_recorded_at: float
    burn_down: tuple[tuple[float, float], ...]

    @property
    def left(self) -> float:
        """Share that is left; below 0 when it is overdrawn."""
        return 1 - self.spent

    @property
    def spent_minutes(self) -> float:
        """What is gone, as minutes of full outage at even traffic."""
        return self.spent * self.budget_minutes


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """When the budget will be gone, if the next days are like the last ones.

    Attributes:
        days: How many whole days it learns from.
        horizon_days: How far it looks.
        probability: In which share of the drawn futures the budget is gone within the horizon.
        earliest: When it is gone in the worst tenth of them; None when that is beyond the horizon.
        median: The same for half of them.
        latest: The same for nine tenths of them.
    """

    days: int
    horizon_days: int
    probability: float
    earliest: float | None
    median: float | None
    latest: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LastPeriod:
    """The period before, for the trend.

    Attributes:
        spent: Share of its own budget that it spent; it is not adjusted.
        recorded: Share of it for which there is data.
    """

    spent: float
    recorded: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """Bad events of one kind in an incident.

    Attributes:
        labels: What they have in common: route and outcome, say.
        bad_events: How many.
        share: Of all bad events of the incident.
    """

    labels: Mapping[str, str]
    bad_events: float
    share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Companion:
    """Another SLO that burned at the time of an incident, or the alert of a cause that fired.

    Attributes:
        name: `service/slo`, or the alert's name.
        component: What it is a promise or a cause of; of an SLO that names none, its service.
        began_before_seconds: How long before the incident it began; below 0 when after.
        overlap: Share of the incident during which it held.
    """

    name: str
    component: str
    began_before_seconds: float
    overlap: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Incident:
    """A stretch in which the budget went.

    Attributes:
        span: When.
        bad_events: Bad events in it.
        budget_share: Share of the period's budget that they are.
        peak_burn: The fastest burn of any window in it: 1 spends exactly the budget over the period.
        peak_at: The middle of that window.
        component: The dependency that most likely caused it; None when none shows.
        companions: The SLOs that burned with it and the causes that fired, the likeliest first.
        causes: The kinds of bad events, most first; empty when they are not known.
    """

    span: Span
    bad_events: float
    budget_share: float
    peak_burn: float
    peak_at: float
    component: str | None = None
    companions: tuple[Companion, ...] = ()
    causes: tuple[Cause, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Firing:
    """An alert, from when it fired until it was over.

    Attributes:
        alert: Its name.
        severity: `page` or `ticket`.
        absence: It says that there is no data, not that budget goes.
        span: From firing to its end, or to the review's moment.
        still_firing: It fires at the review's moment.
        incident: Number of the incident that it told of, from 0; None when there is none.
        gone_before: Share of the budget that the incident had spent when it fired; None without an incident.
        bad_events: Bad events from its longest window before it fired until its end.
        budget_share: Share of the budget that they are.
        for_nothing: It told of a burn that cost hardly any budget and hardly anybody felt.
    """

    alert: str
    severity: str
    absence: bool
    span: Span
    still_firing: bool
    incident: int | None
    gone_before: float | None
    bad_events: float
    budget_share: float
    for_nothing: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class SloReview:
    """The review of one SLO.

    Attributes:
        compiled: Its definition.
        windows: Its events.
        budget: Its budget; None when there is no data at all.
        last_period: The period before; None when there is no data.
        forecast: When the budget will be gone; None when there is too little data, or it is gone already.
        incidents: What spent the budget, in order of time.
        firings: Its alerts that fired, in order of time.
        gaps: Stretches without data.
        adjustments: What does not count.
    """

    compiled: CompiledSlo
    windows: EventWindows
    budget: Budget | None
    last_period: LastPeriod | None
    forecast: Forecast | None
    incidents: tuple[Incident, ...]
    firings: tuple[Firing, ...]
    gaps: tuple[Span, ...]
    adjustments: tuple[AppliedAdjustment, ...]

    @property
    def incident_share(self) -> float:
        """Share of the budget that went in incidents; the rest went bit by bit."""
        return math.fsum(incident.budget_share for incident in self.incidents)


@dataclass(frozen=True, slots=True, kw_only=True)
class Review:
    """The review of several SLOs at one moment.

    Attributes:
        at: The moment up to which events count.
        source: Where the figures come from, without any secret.
        window: The period, in words.
        slos: One each, those with the least budget left first.
        warnings: What the source said about its own answers, and what it did not answer. Not empty: parts are missing.
        notes: What else a reader must know.
        queries: How many questions were asked.
    """

    at: float
    source: str
    window: str
    slos: tuple[SloReview, ...]
    warnings: tuple[str, ...]
    notes: tuple[str, ...]
    queries: int

    @property
    def partial(self) -> bool:
        """Whether parts of the answers may be missing."""
        return bool(self.warnings)
