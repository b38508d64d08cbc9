"""What happens in the data set: a list of labelled incidents, by default those of one busy month.

A file gives others, as JSON; `begin` and `length` are durations, `begin` counts from the first scrape::

    [{"name": "outage at night", "kind": "failure", "begin": "5d3h10m", "length": "4m", "bad_share": 1}]
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import timedelta
from enum import StrEnum
from typing import Any

from slo.errors import SloError
from slo.windows import DAY, HOUR, MINUTE


class Kind(StrEnum):
    """What goes wrong, or only looks as if it did."""

    SALE = "sale"  # more requests, `more_per_second` of them
    FAILURE = "failure"  # `bad_share` of the requests fails
    SLOW = "slow"  # `bad_share` of the redemptions takes more than a second
    NO_TRAFFIC = "no traffic"  # nobody asks for anything
    RESTARTS = "restarts"  # every pod restarts, one after another
    MISSED_SCRAPES = "missed scrapes"  # Prometheus sees none of the pods
    DEAD_POD = "dead pod"  # the first pod is gone, then a new one has its place
    WORKER_DOWN = "worker down"  # nothing is settled, sealed or verified


@dataclass(frozen=True, slots=True, kw_only=True)
class Incident:
    """One thing that happens.

    Attributes:
        name: What people call it; unique.
        kind: What happens.
        begin: Time since the first scrape.
        length: How long it lasts.
        bad_share: Share of bad events meanwhile, 0 to 1, beside those that fail always.
        more_per_second: Requests per second that come on top of the day's.
    """

    name: str
    kind: Kind
    begin: timedelta
    length: timedelta
    bad_share: float = 0.0
    more_per_second: float = 0.0

    @property
    def end(self) -> timedelta:
        """When it is over, as time since the first scrape."""
        return self.begin + self.length

    def covers(self, at: timedelta) -> bool:
        """Whether a scrape at this time tells of the incident: it reports what happened in the interval before it."""
        return self.begin < at <= self.end


# One busy month. Restarts and the dead pod come last: a counter that is new has lost a part of the next burst, as
# `rate` does not extrapolate below zero, and the figures should not hang on that.
MONTH = (
    Incident(
        name="night trickle",
        kind=Kind.FAILURE,
        begin=2 * DAY + 1 * HOUR,
        length=6 * HOUR,
        bad_share=0.0002,
    ),
    Incident(
        name="full outage at night",
        kind=Kind.FAILURE,
        begin=5 * DAY + 3 * HOUR + 10 * MINUTE,
        length=4 * MINUTE,
        bad_share=1.0,
    ),
    Incident(name="slow leak", kind=Kind.FAILURE, begin=8 * DAY + 6 * HOUR, length=DAY, bad_share=0.0004),
    Incident(
        name="flash sale without a failure",
        kind=Kind.SALE,
        begin=11 * DAY + 18 * HOUR,
        length=HOUR,
        more_per_second=600,
    ),
    Incident(name="no traffic", kind=Kind.NO_TRAFFIC, begin=15 * DAY + 2 * HOUR, length=30 * MINUTE),
    Incident(name="missed scrapes", kind=Kind.MISSED_SCRAPES, begin=18 * DAY + 12 * HOUR, length=2 * MINUTE),
    Incident(name="flash sale", kind=Kind.SALE, begin=21 * DAY + 18 * HOUR, length=HOUR, more_per_second=6000),
    Incident(
        name="partial failure in the flash sale",
        kind=Kind.FAILURE,
        begin=21 * DAY + 18 * HOUR + 20 * MINUTE,
        length=10 * MINUTE,
        bad_share=0.004,
    ),
    Incident(
        name="worker down after the flash sale",
        kind=Kind.WORKER_DOWN,
        begin=21 * DAY + 19 * HOUR,
        length=50 * MINUTE,
    ),
    Incident(
        name="slow answers",
        kind=Kind.SLOW,
        begin=24 * DAY + 14 * HOUR,
        length=30 * MINUTE,
        bad_share=0.05,
    ),
    Incident(name="restarts", kind=Kind.RESTARTS, begin=27 * DAY + 10 * HOUR, length=10 * MINUTE),
    Incident(name="one dead pod", kind=Kind.DEAD_POD, begin=29 * DAY + 15 * HOUR, length=10 * MINUTE),
)
MONTH_DAYS = 31
SALE = ("flash sale", "partial failure in the flash sale")
"""The names of the incident that the whole data set is about."""


def of_days(days: int) -> tuple[Incident, ...]:
    """The month's incidents within fewer days: they come sooner after one another, and the long ones are shorter."""
    if days >= MONTH_DAYS:
        return MONTH
    ratio = days / MONTH_DAYS

    def sooner(incident: Incident) -> Incident:
        # What is within another incident stays where it is in it.
        outer = next((one for one in MONTH if one is not incident and one.begin <= incident.begin <= one.end), incident)
        begin = _whole(outer.begin * ratio) + (incident.begin - outer.begin)
        long = incident.length > HOUR
        return replace(incident, begin=begin, length=_whole(incident.length * ratio) if long else incident.length)

    return tuple(sooner(incident) for incident in MONTH)


def _whole(length: timedelta) -> timedelta:
    """The length in whole intervals of five minutes, which every scrape interval divides."""
    return length - length % (5 * MINUTE)


# --- from a file ----------------------------------------------------------------------------------------------------

_REQUIRED = ("name", "kind", "begin", "length")
_KNOWN = tuple(field.name for field in fields(Incident))


def parse(text: str, subject: str) -> tuple[Incident, ...]:
    """Read a list of incidents.

    Raises:
        SloError: The text is none; every fault is named.
    """
    try:
        given = json.loads(text)
    except ValueError as error:
        raise SloError(subject, [f"is no JSON: {error}"]) from error
    if not isinstance(given, list) or not all(isinstance(one, dict) for one in given):
        raise SloError(subject, ["must be a list of objects with " + ", ".join(_KNOWN)])
    problems = [f"incident {number}: {text}" for number, one in enumerate(given, 1) for text in _problems(one)]
    names = [one.get("name") for one in given]
    problems += [f"the name {name!r} is given twice" for name in dict.fromkeys(names) if names.count(name) > 1]
    if problems:
        raise SloError(subject, problems)
    return tuple(_incident(one) for one in given)


def _problems(given: Mapping[str, Any]) -> Iterator[str]:
    missing = [key for key in _REQUIRED if not isinstance(given.get(key), str)]
    if missing:
        yield f"needs the texts {', '.join(missing)}"
        return
    unknown = sorted(set(given) - set(_KNOWN))
    if unknown:
        yield f"unknown key {unknown[0]!r}; known are {', '.join(_KNOWN)}"
    if given["kind"] not in list(Kind):
        yield f"the kind {given['kind']!r} is none of {', '.join(Kind)}"
    for key in ("begin", "length"):
        if length_of(given[key]) is None:
            yield f"the {key} {given[key]!r} is no duration; write 5d3h10m say"
    share = given.get("bad_share", 0)
    if not isinstance(share, int | float) or not 0 <= share <= 1:
        yield f"the bad_share {share!r} must be a number from 0 to 1"
    more = given.get("more_per_second", 0)
    if not isinstance(more, int | float) or not 0 <= more <= _PER_SECOND_MAX:
        yield f"the more_per_second {more!r} must be a number from 0 to {_PER_SECOND_MAX:,}"


_PER_SECOND_MAX = 1_000_000


def _incident(given: Mapping[str, Any]) -> Incident:
    begin, length = (length_of(given[key]) for key in ("begin", "length"))
    assert begin is not None, "looked at before"
    assert length is not None, "looked at before"
    numbers = {key: float(given[key]) for key in ("bad_share", "more_per_second") if key in given}
    return Incident(name=given["name"], kind=Kind(given["kind"]), begin=begin, length=length, **numbers)


_DURATION = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?")


def length_of(text: str) -> timedelta | None:
    """A duration such as `5d3h10m`; None when it is none."""
    found = _DURATION.fullmatch(text)
    if not text or not found:
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)


def at(incidents: Iterable[Incident], kind: Kind, moment: timedelta) -> Sequence[Incident]:
    """The incidents of a kind that a scrape at a moment tells of."""
    return [one for one in incidents if one.kind is kind and one.covers(moment)]
