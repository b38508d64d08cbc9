"""What is promised: which alert comes, to whom, and within which time, as it follows from the promise's policy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from drills.incidents.stage import CAUSE_EVALUATION, EXPORTERS, SCRAPE, TIMINGS, causes, faster
from slo import Severity, Slo
from slo import conventions as names

Route = Literal["page", "ticket"]


@dataclass(frozen=True, slots=True)
class Expected:
    """An alert that must come.

    Attributes:
        alert: Its name.
        route: Who is told.
        within_seconds: From the fault to the notification, at most.
        because: How that follows.
    """

    alert: str
    route: Route
    within_seconds: float
    because: str


def burns(
    slo: Slo, *, bad_per_second: float, of_per_second: float, notice_seconds: float = 0.0, comes_in_bursts: bool = False
) -> Expected:
    """A page that the budget goes.

    Args:
        slo: The promise.
        bad_per_second: Bad events of it, while the fault lasts.
        of_per_second: Its events, as they have been for the whole period.
        notice_seconds: Until the first of them counts as bad.
        comes_in_bursts: The alert may end between two bursts before its group was told; then it goes with the next.
    """
    compiled = faster(slo)
    pair = compiled.policy.pairs_of(Severity.PAGE)[0]
    long_seconds = pair.long.total_seconds()
    events = max(float(pair.factor * slo.budget_ratio) * of_per_second * long_seconds, float(slo.budget_bad_events_min))
    burn_seconds = events / bad_per_second
    evaluation_seconds = compiled.policy.evaluation_interval.total_seconds()
    told = [
        *([f"{notice_seconds:g} until the first is bad"] if notice_seconds else []),
        f"{burn_seconds:.1f} for {events:.0f} bad events in {names.duration(pair.long)}",
    ]
    again_seconds = TIMINGS.page.group_interval.total_seconds() if comes_in_bursts else 0.0
    if comes_in_bursts:
        told.append(f"{again_seconds:g} to group again, as it comes in bursts")
    seconds = notice_seconds + burn_seconds + again_seconds
    return _promised(names.alert_name(slo, Severity.PAGE), "page", seconds, told, evaluation_seconds)


def absent(slo: Slo) -> Expected:
    """What says that a promise has no data: after its `absent_after`."""
    compiled = faster(slo)
    [alert] = [one for one in compiled.alerts if one.name == names.absent_alert_name(slo)]
    hold_seconds = alert.hold.total_seconds()
    route: Route = "page" if alert.severity is Severity.PAGE else "ticket"
    told = [f"{hold_seconds:g} without data"]
    return _promised(alert.name, route, hold_seconds, told, compiled.policy.evaluation_interval.total_seconds())


def because_of(name: str, *, notice_seconds: float) -> Expected:
    """The ticket of a cause: after its hold."""
    [cause] = [one for one in causes(frozenset({EXPORTERS})) if one.name == name]
    hold_seconds = cause.hold.total_seconds()
    told = [f"{notice_seconds:g} until it is true", f"{hold_seconds:g} held"]
    seconds = notice_seconds + hold_seconds
    return _promised(cause.alert_name, "ticket", seconds, told, CAUSE_EVALUATION.total_seconds())


def _promised(alert: str, route: Route, seconds: float, told: Sequence[str], evaluation_seconds: float) -> Expected:
    """With two scrapes, as a rate needs two, and two evaluations, as alerts read what other rules record."""
    scrapes, evaluations = 2 * SCRAPE.total_seconds(), 2 * evaluation_seconds
    wait = (TIMINGS.page if route == "page" else TIMINGS.ticket).group_wait.total_seconds()
    whole = [
        *told,
        f"{scrapes:g} for scrapes",
        f"{evaluations:g} for evaluations",
        f"{wait:g} to group",
        "1 to deliver",
    ]
    return Expected(alert, route, seconds + scrapes + evaluations + wait + 1, " + ".join(whole))
