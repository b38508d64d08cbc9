"""What a review says, as sentences; every form of it says the same ones."""

from __future__ import annotations

from collections.abc import Iterator

from review import words
from review.model import AppliedAdjustment, Firing, Forecast, Incident, Review, SloReview

PARTIAL = "Partial: parts of the answers may be missing."
NOTHING = "-"

_GAPS_SHOWN_MAX = 3
_KNOWN_ALL = 0.95  # of a period; the rest is a restart here and there


def headline(review: Review) -> str:
    """What there is to say in one line."""
    gone = sum(one.budget is not None and one.budget.left <= 0 for one in review.slos)
    silent = sum(one.budget is None for one in review.slos)
    parts = [words.plural(len(review.slos), "SLO")]
    parts.append(f"{gone} without budget left" if gone else "every budget has something left")
    if silent:
        parts.append(f"{silent} without data")
    parts.append(words.plural(sum(len(one.incidents) for one in review.slos), "incident"))
    return ", ".join(parts)


def left_text(one: SloReview) -> str:
    """`42.0 %`, or that there is no data."""
    return words.percent(one.budget.left) if one.budget else "no data"


def events_text(one: SloReview) -> str:
    """`1,234 of 7,000`: bad events and how many were allowed."""
    if not one.budget:
        return NOTHING
    return f"{words.count(one.budget.bad_events)} of {words.count(one.budget.budget_events)}"


def minutes_text(one: SloReview) -> str:
    """`2.5 of 4.32 min`: the same in minutes of full outage."""
    if not one.budget:
        return NOTHING
    return (
        f"{words.minutes(one.budget.spent_minutes).removesuffix(' min')} of {words.minutes(one.budget.budget_minutes)}"
    )


def trend_text(one: SloReview) -> str:
    """How much more or less was spent than in the period before."""
    if not one.budget or not one.last_period:
        return NOTHING
    points = 100 * (one.budget.spent - one.last_period.spent)
    arrow = "▲" if points >= 0.05 else "▼" if points <= -0.05 else "="  # noqa: PLR2004 - what shows as 0.0
    known = "" if one.last_period.recorded > _KNOWN_ALL else f" ({one.last_period.recorded:.0%} known)"
    return f"{arrow} {words.percent(one.last_period.spent)} before{known}"


def forecast_text(one: SloReview) -> str:
    """When the budget will be gone."""
    if not one.budget:
        return NOTHING
    if one.budget.exhausted_at is not None and one.budget.left <= 0:
        return f"gone since {words.moment(one.budget.exhausted_at)}"
    if one.forecast is None:
        return "too little data"
    return _forecast(one.forecast)


def _forecast(forecast: Forecast) -> str:
    likely = f"gone within {forecast.horizon_days} d in {forecast.probability:.0%} of futures"
    if not forecast.probability:
        return f"lasts {forecast.horizon_days} d and longer"
    early, late = forecast.earliest, forecast.latest
    if forecast.median is None:
        return likely + (f", not before {words.moment(early)}" if early else "")
    until = words.moment(late) if late else f"later than {forecast.horizon_days} d"
    return f"{words.moment(forecast.median)} ({words.moment(early or forecast.median)} to {until})"


def incident_text(incident: Incident) -> str:
    """What happened, in one line."""
    return (
        f"{words.span(incident.span)}, {words.length(incident.span.seconds)}: "
        f"{words.percent(incident.budget_share)} of the budget, {words.count(incident.bad_events)} bad events, "
        f"peak burn {words.burn(incident.peak_burn)}"
    )


def why_texts(incident: Incident) -> Iterator[str]:
    """What is known of its causes, a line each."""
    if incident.component:
        yield f"likely component: {incident.component}"
    if incident.companions:
        yield "at the same time: " + ", ".join(
            f"{one.name} ({one.overlap:.0%} of the time, {_began(one.began_before_seconds)})"
            for one in incident.companions
        )
    for cause in incident.causes:
        kind = ", ".join(f"{name} {value}" for name, value in sorted(cause.labels.items(), reverse=True))
        yield f"{cause.share:.0%}: {kind} ({words.count(cause.bad_events)})"


def _began(before_seconds: float) -> str:
    if abs(before_seconds) < 60:  # noqa: PLR2004 - a minute
        return "from the same minute on"
    return f"from {words.length(abs(before_seconds))} {'before' if before_seconds > 0 else 'after'} on"


def firing_text(firing: Firing) -> str:
    """What an alert told, in one line."""
    how_long = firing_length(firing)
    shown = how_long if firing.still_firing else f"for {how_long}"
    return f"{firing.severity} {firing.alert}, {words.moment(firing.span.begin)}, {shown}: {firing_verdict(firing)}"


def firing_length(firing: Firing) -> str:
    """For how long an alert fired; one that a single evaluation saw has no length."""
    if firing.still_firing:
        return "still firing"
    return words.length(firing.span.seconds) if firing.span.seconds else "a moment"


def firing_verdict(firing: Firing) -> str:
    """Whether an alert was worth it."""
    cost = f"{words.percent(firing.budget_share)} of the budget, {words.count(firing.bad_events)} bad events"
    if firing.absence:
        return "no data"
    if firing.for_nothing:
        return f"for nothing ({cost})"
    if firing.incident is None:
        return f"no incident, but {cost}"
    return (
        f"incident {firing.incident + 1}, {words.percent(firing.gone_before or 0.0)} of the budget gone before it fired"
    )


def adjustment_text(applied: AppliedAdjustment) -> str:
    """What does not count, why, and who said so."""
    one = applied.adjustment
    events = f"{words.count(applied.bad_events)} bad of {words.count(applied.all_events)} events do not count"
    return f"{words.span(one.span)}: {events}. {one.reason} Approved by {one.approver}."


def adjusted_text(one: SloReview) -> str | None:
    """What the adjustments change; None without any."""
    if not one.adjustments or not one.budget:
        return None
    unadjusted = words.percent(1 - one.budget.spent_unadjusted)
    return f"adjusted: {words.percent(one.budget.left)} left, {unadjusted} without adjustments"


def gaps_text(one: SloReview) -> str | None:
    """What is not known; None when everything is."""
    if not one.gaps:
        return None
    total = sum(gap.seconds for gap in one.gaps)
    shown = "; ".join(words.span(gap) for gap in one.gaps[-_GAPS_SHOWN_MAX:])
    earlier = len(one.gaps) - _GAPS_SHOWN_MAX
    more = f", and {earlier} earlier" if earlier > 0 else ""
    return f"no data for {words.length(total)}: {shown}{more}"


def rest_text(one: SloReview) -> str | None:
    """What went bit by bit, outside of all incidents."""
    if not one.budget or not one.incidents:
        return None
    rest = max(0.0, one.budget.spent - one.incident_share)
    return f"{words.percent(one.incident_share)} of the budget went in incidents, {words.percent(rest)} bit by bit"


def has_story(one: SloReview) -> bool:
    """Whether there is more to say of an SLO than its figures."""
    return bool(one.incidents or one.firings or one.gaps or one.adjustments)


def lines(one: SloReview) -> Iterator[str]:
    """Everything that there is to say of an SLO besides its figures."""
    for text in (adjusted_text(one), *map(adjustment_text, one.adjustments), gaps_text(one), rest_text(one)):
        if text:
            yield text
    for number, incident in enumerate(one.incidents, start=1):
        yield f"incident {number}: {incident_text(incident)}"
        yield from (f"  {text}" for text in why_texts(incident))
    yield from map(firing_text, one.firings)
