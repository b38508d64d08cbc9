"""What spent the budget: incidents, what burned with them, and what the alerts told of them; pure.

Each window scores the bad events beyond those that its own traffic earns, so one that keeps the promise scores below 0.
An incident is a stretch of the highest total score: it begins where the score last rises from 0, and ends at its peak,
once an hour's budget went unspent after it. The same rule finds a sharp outage and a leak of days, and a stray error
before or after makes neither longer.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

from review.model import Budget, Companion, EventWindows, Firing, Incident, Span, recorded_sum
from slo.causes import Component
from slo.compile import CompiledSlo
from slo.windows import DAY, HOUR, MINUTE

# What the simulation behind the burn rates calls quiet (docs/decisions/0003): below both, nobody need be woken.
INCIDENT_SHARE_MIN = 0.005
_PEOPLE_MIN = 50

_QUIET = HOUR  # an incident is over when so long a time's budget went unspent
_QUIET_PART = 0.25  # so at night that takes four hours at most
_TOGETHER_MIN = 0.3  # the part of the shorter of two incidents during which both burn
_CAUSE_LATE_MAX = 10 * MINUTE  # a cause may show after its effect: it is judged once a minute, or has to hold a while
_CAUSE_EARLY_MAX = DAY  # what has been wrong for longer did no harm by itself
_ALERT_EARLY_MAX = 10 * MINUTE  # an incident's begin is known to a window, an alert's to an evaluation
_EDGE_CLEAR = 10  # times the allowed rate, from which on the first window tells when in it an incident began
_ROUNDING = 0.4  # rates extrapolate: 3 events may read 2.7


def find(compiled: CompiledSlo, windows: EventWindows, budget: Budget) -> tuple[Incident, ...]:
    """The incidents that spent half a percent of the budget or more, in order of time.

    Args:
        compiled: The SLO.
        windows: What counts of the period.
        budget: Its budget.
    """
    recorded = windows.recorded_count
    if budget.budget_events <= 0 or not recorded:
        return ()
    per_window = float(compiled.slo.budget_ratio) * budget.all_events / recorded
    allowed = _allowed(compiled, windows, per_window)
    found = [
        stretch
        for stretch in _stretches(_scores(windows, allowed, per_window), per_window, windows)
        if _matters(recorded_sum(windows.bad_sharp, stretch), budget, compiled)
    ]
    return tuple(_incident(stretch, windows, budget, allowed, per_window) for stretch in _joined(found, windows))


def _allowed(compiled: CompiledSlo, windows: EventWindows, per_window: float) -> array[float]:
    """What each window may spend: what its own traffic earns, and in quiet times a part of what a mean window does.

    By its own traffic, so that a leak is one incident through night and day; but nights without any do not join two.
    """
    ratio = float(compiled.slo.budget_ratio)
    known = [0.0 if math.isnan(value) else ratio * value for value in windows.all]
    # Traffic is known a window before and after where it was, so the most of the three is that of the window.
    least = [_QUIET_PART * per_window] * len(known)
    return array("d", map(max, known, [0.0, *known], [*known[1:], 0.0], least))


def _scores(windows: EventWindows, allowed: array[float], per_window: float) -> list[float]:
    """What each window spends beyond what it may; one without data is neither lost nor earned."""
    pairs = zip(windows.all, windows.bad_sharp, allowed, strict=True)
    return [0.0 if math.isnan(every) else max(bad - may, -per_window) for every, bad, may in pairs]


def _stretches(scores: Sequence[float], per_window: float, windows: EventWindows) -> Iterator[range]:
    drop = per_window * _QUIET.total_seconds() / windows.step_seconds
    index = 0
    while index < len(scores):
        if scores[index] <= 0:
            index += 1
            continue
        begin = peak = index
        total = highest = scores[index]
        while index + 1 < len(scores) and total > 0 and total > highest - drop:
            index += 1
            total += scores[index]
            if total > highest:
                highest, peak = total, index
        yield range(begin, peak + 1)
        index = peak + 1


def _joined(stretches: Sequence[range], windows: EventWindows) -> list[range]:
    """Stretches, those that are less than an hour apart as one."""
    joined: list[range] = []
    for stretch in stretches:
        if joined and (stretch.start - joined[-1].stop) * windows.step_seconds < _QUIET.total_seconds():
            joined[-1] = range(joined[-1].start, stretch.stop)
        else:
            joined.append(stretch)
    return joined


def _matters(bad_events: float, budget: Budget, compiled: CompiledSlo) -> bool:
    enough = bad_events >= compiled.slo.budget_bad_events_min - _ROUNDING
    return enough and bad_events >= INCIDENT_SHARE_MIN * budget.budget_events


def _incident(
    stretch: range, windows: EventWindows, budget: Budget, allowed: array[float], per_window: float
) -> Incident:
    sharp = windows.bad_sharp
    bad = recorded_sum(sharp, stretch)
    peak = max(stretch, key=lambda index: sharp[index])
    begin, end = windows.window(stretch[0]).begin, windows.window(stretch[-1]).end
    # The first and the last window burn for a part of their time only; their neighbours tell which.
    for edge, inner in ((stretch[0], stretch[0] + 1), (stretch[-1], stretch[-1] - 1)):
        if inner in stretch and sharp[edge] < sharp[inner] and sharp[inner] > _EDGE_CLEAR * allowed[inner]:
            unburnt = windows.step_seconds * (1 - sharp[edge] / sharp[inner])
            if edge == stretch[0]:
                begin += unburnt
            else:
                end -= unburnt
    return Incident(
        span=Span(begin, max(end, begin)),
        bad_events=bad,
        budget_share=bad / budget.budget_events,
        peak_burn=sharp[peak] / per_window,
        peak_at=windows.window(peak).begin + windows.step_seconds / 2,
    )


# --- what burned with it --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CauseFiring:
    """The alert of a cause (`slo/causes.py`) that fired.

    Attributes:
        alert: Its name.
        component: Of what it is a cause.
        span: From its first to its last moment.
    """

    alert: str
    component: str
    span: Span


def with_companions(
    incidents: Mapping[str, Sequence[Incident]],
    compiled: Mapping[str, CompiledSlo],
    causes: Sequence[CauseFiring] = (),
) -> dict[str, tuple[Incident, ...]]:
    """The incidents of every SLO, each with what else was wrong, and the component that likely caused it.

    Args:
        incidents: SLO id -> its incidents.
        compiled: SLO id -> its definition.
        causes: The causes whose alerts fired.
    """
    return {
        key: tuple(_accompanied(key, incident, incidents, compiled, causes) for incident in some)
        for key, some in incidents.items()
    }


def _accompanied(
    key: str,
    incident: Incident,
    incidents: Mapping[str, Sequence[Incident]],
    compiled: Mapping[str, CompiledSlo],
    causes: Sequence[CauseFiring],
) -> Incident:
    own = component_of(compiled[key])
    span = incident.span
    burning = [
        _companion(compiled[other].slo.id_path, component_of(compiled[other]), another.span, span)
        for other, some in incidents.items()
        if other != key
        for another in some
        if (both := span.overlap_seconds(another.span))
        and both >= _TOGETHER_MIN * min(span.seconds, another.span.seconds)
    ]
    firing = [
        _companion(cause.alert, cause.component, cause.span, span)
        for cause in causes
        if cause.span.overlap_seconds(span)
    ]
    found = [*burning, *firing]
    found.sort(key=lambda one: (not _may_cause(one, own), -one.overlap, -one.began_before_seconds, one.name))
    likely = found[0].component if found and _may_cause(found[0], own) else None
    return replace(incident, companions=tuple(found), component=likely)


def _companion(name: str, component: str, its: Span, incident: Span) -> Companion:
    overlap = incident.overlap_seconds(its) / incident.seconds if incident.seconds else 1.0
    return Companion(
        name=name, component=component, began_before_seconds=incident.begin - its.begin, overlap=min(1.0, overlap)
    )


def component_of(compiled: CompiledSlo) -> str:
    """What an SLO is a promise of; its service where it does not say."""
    return str(compiled.slo.component or compiled.slo.service)


def _may_cause(companion: Companion, own: str) -> bool:
    """Whether it may be the cause: the service stands on all other components, and of two of those the first is it."""
    before = companion.began_before_seconds
    if companion.component in {own, Component.SERVICE}:
        return False
    if before > _CAUSE_EARLY_MAX.total_seconds():
        return False
    return before >= (-_CAUSE_LATE_MAX.total_seconds() if own == Component.SERVICE else 0.0)


# --- what the alerts told -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RawFiring:
    """An alert that fired, as Prometheus kept it.

    Attributes:
        alert: Its name.
        severity: `page` or `ticket`.
        span: From its first to its last moment, or the review's.
        still_firing: It fires at the review's moment.
    """

    alert: str
    severity: str
    span: Span
    still_firing: bool


def judge(
    raw: RawFiring, compiled: CompiledSlo, windows: EventWindows, budget: Budget | None, incidents: Sequence[Incident]
) -> Firing:
    """What an alert told of, and what was gone by then.

    An alert is for nothing when from its longest window before it fired until it ended, less than half a percent of the
    budget went and fewer than 50 events were bad.
    """
    absences = {alert.name for alert in compiled.alerts if not alert.ways}
    long = _longest_window(compiled, raw.severity)
    looked_at = Span(raw.span.begin - long.total_seconds(), raw.span.end)
    bad = bad_between(windows, looked_at)
    share = bad / budget.budget_events if budget and budget.budget_events else 0.0
    told_of = _incident_of(raw, incidents, long)
    absence = raw.alert in absences
    return Firing(
        alert=raw.alert,
        severity=raw.severity,
        absence=absence,
        span=raw.span,
        still_firing=raw.still_firing,
        incident=None if absence else told_of,
        gone_before=_gone_before(raw, windows, budget, None if absence or told_of is None else incidents[told_of]),
        bad_events=bad,
        budget_share=share,
        for_nothing=not absence and told_of is None and share < INCIDENT_SHARE_MIN and bad < _PEOPLE_MIN,
    )


def _longest_window(compiled: CompiledSlo, severity: str) -> timedelta:
    pairs = [pair for pair in compiled.policy.pairs if pair.severity == severity] or compiled.policy.pairs
    return max(pair.long for pair in pairs)


def _incident_of(raw: RawFiring, incidents: Sequence[Incident], long: timedelta) -> int | None:
    """The newest incident that began before the alert fired, and was not over for longer than the alert looks back."""
    for number in reversed(range(len(incidents))):
        span = incidents[number].span
        if span.begin - _ALERT_EARLY_MAX.total_seconds() <= raw.span.begin <= span.end + long.total_seconds():
            return number
    return None


def _gone_before(
    raw: RawFiring, windows: EventWindows, budget: Budget | None, incident: Incident | None
) -> float | None:
    if incident is None or budget is None or not budget.budget_events:
        return None
    until = min(max(raw.span.begin, incident.span.begin), incident.span.end)
    # What was bad in its first window is all its own.
    first = windows.window(windows.indices(incident.span)[0]).begin
    return bad_between(windows, Span(first, until)) / budget.budget_events


def bad_between(windows: EventWindows, span: Span) -> float:
    """Bad events of a span; a window that it covers in part counts in part."""
    return math.fsum(
        windows.bad_sharp[index] * windows.window(index).overlap_seconds(span) / windows.step_seconds
        for index in windows.indices(span)
    )
