"""An incident, and how it goes: strike, listen, judge."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import Final

from drills.harness import Notification, wait_until
from drills.incidents.expected import Expected, Route
from drills.incidents.stage import TIMINGS, Stage, stage
from slo import conventions as names

Fault = Callable[[Stage], AbstractContextManager[None]]
Tell = Callable[[str], None]

_HEALTHY_SECONDS: Final = 5.0
_MORE_SECONDS: Final = 30.0  # to wait for an alert that is late, so that the report says how late
_HEAL_SECONDS_MAX: Final = 30.0
# While the fault lasts, whatever else it brings has this long to arrive: the next notification of a page's group, or
# the first of a ticket's.
_AFTER_SECONDS: Final = (
    max(TIMINGS.page.group_interval, TIMINGS.ticket.group_wait) + timedelta(seconds=3)
).total_seconds()


@dataclass(frozen=True, slots=True, kw_only=True)
class Incident:
    """A way to fail.

    Attributes:
        name: Its name.
        meaning: What happens, in a sentence.
        fault: Strikes when it is entered, and heals when it is left.
        expects: The alerts that must come.
        may_come: Further alerts, by route, that belong to it; nothing else may come.
        needs: Which parts run besides the usual ones.
        settings: Of the service, on top of the usual.
        path_latency_milliseconds: How far away the database is from the service, all along.
        hurts: Whether guests get errors.
        sees: What the responder finds, in a sentence.
    """

    name: str
    meaning: str
    fault: Fault
    expects: tuple[Expected, ...]
    may_come: tuple[tuple[str, Route], ...] = ()
    needs: frozenset[str] = frozenset()
    settings: dict[str, str] = field(default_factory=dict, hash=False)
    path_latency_milliseconds: int = 0
    hurts: bool = True
    sees: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Rehearsal:
    """How an incident went; everything still runs, and the fault is healed.

    Attributes:
        incident: Which.
        seconds: From the fault to each alert's first notification.
        firing: The first notification that says of each alert that it fires, by the alert's name.
        violations: What is wrong; nothing may be.
        bad: Requests that guests got no good answer to.
    """

    incident: Incident
    seconds: dict[str, float]
    firing: dict[str, Notification] = field(repr=False)
    violations: tuple[str, ...]
    bad: int

    def links(self, alert: str) -> dict[str, str]:
        """Where an alert that came leads, by the annotation's name."""
        annotations = self.firing[alert].firing(alert)[0]["annotations"]
        return {name: url for name, url in annotations.items() if name.endswith("_url")}


@contextmanager
def rehearsal(incident: Incident, tell: Tell) -> Iterator[Rehearsal]:
    """Let it happen, and judge who is told what.

    Raises:
        HarnessError, EmbeddedPostgresError: A part is missing or does not start.
        TimeoutError: A part does not do what it is told in time.
    """
    tell(f"{incident.name}: {incident.meaning}")
    with stage(incident.needs, incident.settings, incident.path_latency_milliseconds) as on:
        tell(f"All runs; Prometheus is at {on.metrics.url}. {_HEALTHY_SECONDS:g} s without a fault ...")
        time.sleep(_HEALTHY_SECONDS)
        early = [f"before the fault: {one}" for one in _told(on.people.notifications)]
        early += [
            f"before the fault: {one.name} {one.state}" for one in on.metrics.alerts() if one.name != names.WATCHDOG
        ]
        bad = on.guests.bad
        with incident.fault(on):
            struck_at = time.time()
            tell("Struck.")
            for one in incident.expects:
                left = struck_at + one.within_seconds + _MORE_SECONDS - time.time()
                with suppress(TimeoutError):
                    came = on.people.wait_for(partial(Notification.firing, alert=one.alert), max(left, 0.1))
                    tell(f"{one.alert} at /{one.route}, {came.at - struck_at:.1f} s after the fault.")
            time.sleep(_AFTER_SECONDS)
            heard = on.people.notifications
            bad = on.guests.bad - bad
        good = on.guests.good
        healed = wait_until("guests get answers", lambda: on.guests.good > good + 5, _HEAL_SECONDS_MAX)
        tell(f"Healed; guests got answers again after {healed:.1f} s.")
        firing = {alert: first for first in reversed(heard) for alert in _names(first)}
        yield Rehearsal(
            incident=incident,
            seconds={alert: first.at - struck_at for alert, first in firing.items() if alert != names.WATCHDOG},
            firing=firing,
            violations=(*early, *judged(incident, heard, struck_at), *_hurt(incident, bad)),
            bad=bad,
        )


# --- the judgement ----------------------------------------------------------------------------------------------------


def judged(incident: Incident, heard: Sequence[Notification], struck_at: float) -> Iterator[str]:
    """What is wrong with what people heard, a sentence each.

    Args:
        incident: What was expected.
        heard: All notifications, from the start to the end of the fault.
        struck_at: When the fault began, Unix time in seconds.
    """
    for one in incident.expects:
        came = [told for told in heard if told.firing(one.alert)]
        if not came:
            yield f"{one.alert} did not come within {one.within_seconds + _MORE_SECONDS:.0f} s"
        elif (seconds := came[0].at - struck_at) > one.within_seconds:
            yield f"{one.alert} came after {seconds:.1f} s, and {one.within_seconds:.1f} s are promised"
    allowed = {(one.alert, one.route) for one in incident.expects} | {*incident.may_come, (names.WATCHDOG, "watchdog")}
    found = {(alert, told.path.removeprefix("/")): None for told in heard for alert in _names(told)}
    yield from (f"{alert} came to {route}" for alert, route in found if (alert, route) not in allowed)
    known: set[tuple[str, ...]] = set()
    for told in heard:
        states = {(told.path, one["fingerprint"], one["startsAt"], one["status"]) for one in told.alerts}
        if told.path != f"/{names.WATCHDOG_SEVERITY}" and states <= known:
            yield f"told twice: {'; '.join(_told([told]))}"
        known |= states
    for alert, route in found:
        starts = {one["startsAt"] for told in heard for one in told.firing(alert)}
        if len(starts) > 1 and route != names.WATCHDOG_SEVERITY and _is_single(heard, alert):
            yield f"{alert} began {len(starts)} times"
    if (names.WATCHDOG, names.WATCHDOG_SEVERITY) not in found:
        yield f"{names.WATCHDOG} did not come"


def _is_single(heard: Sequence[Notification], alert: str) -> bool:
    """Whether it is one alert; a cause has one for each series that is wrong."""
    return len({one["fingerprint"] for told in heard for one in told.firing(alert)}) == 1


def _hurt(incident: Incident, bad: int) -> Iterator[str]:
    if bool(bad) != incident.hurts:
        yield f"{bad} requests failed, and {'some' if incident.hurts else 'none'} should"


def _names(told: Notification) -> list[str]:
    return [alert["labels"]["alertname"] for alert in told.firing()]


def _told(notifications: Sequence[Notification]) -> list[str]:
    watchdog = f"/{names.WATCHDOG_SEVERITY}"
    return [f"{told.path} {told.status}: {', '.join(_names(told))}" for told in notifications if told.path != watchdog]
