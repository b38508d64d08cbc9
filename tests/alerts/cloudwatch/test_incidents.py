"""The incidents by which the rules are measured, replayed on the alarms; docs/cloudwatch.md has the table."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from pathlib import Path

import pytest

from tests.alerts.cloudwatch.examples import planned, promise
from tests.alerts.cloudwatch.simulator import first, run
from tests.alerts.cloudwatch.test_simulator import published

DOCS = Path(__file__).parents[3] / "docs" / "cloudwatch.md"
HOUR, DAY = 60, 1440
BEFORE = 3 * DAY  # clean days, as long as the longest window
PER_SECOND = 27
BUDGET = PER_SECOND * 30 * 86_400 * 0.0001  # bad events of 30 days
SPEEDS = ("fast", "mid", "slow", "trickle")


def traffic(minute: int) -> float:
    """Requests of a minute: 27 a second on average, 54 at 14:00, one every four seconds at 02:00."""
    wave = math.cos(2 * math.pi * (minute % DAY - 14 * HOUR) / DAY)
    return 60 * PER_SECOND * max(0.01, 1 + wave)


@dataclass(frozen=True, kw_only=True, eq=False)
class Incident:
    """What happens on the fourth day.

    Attributes:
        name: As in the table.
        hour: When it begins.
        minutes: How long it goes on.
        all: Events of a minute, None for none published; by default the usual ones.
        bad: Bad ones of a minute, by all of that minute.
        expected: Minutes until each alarm tells somebody; with our burn rate, and with the classic one.
    """

    name: str
    hour: int
    minutes: int
    all: Callable[[int], float | None] = traffic
    bad: Callable[[float], float] = lambda _: 0
    expected: tuple[Mapping[str, int], Mapping[str, int]]


def share(ratio: float) -> Callable[[float], float]:
    """Bad ones as a share of all."""
    return lambda every: ratio * every


INCIDENTS = (
    Incident(
        name="full outage at noon, 30 min", hour=12, minutes=30, bad=share(1), expected=({"fast": 1}, {"fast": 1})
    ),
    Incident(
        name="full outage at 02:00, 30 min", hour=2, minutes=30, bad=share(1), expected=({"fast": 4}, {"fast": 1})
    ),
    Incident(
        name="flash sale, 6,000/s for 1 h, 0.4 % fail",
        hour=10,
        minutes=60,
        all=lambda _: 360_000,
        bad=share(0.004),
        expected=({"fast": 1}, {"fast": 1}),
    ),
    Incident(
        name="flash sale, 6,000/s for 1 h, 0.02 % fail",
        hour=10,
        minutes=60,
        all=lambda _: 360_000,
        bad=share(0.0002),
        expected=({"fast": 2}, {"trickle": 65}),
    ),
    Incident(
        name="flash sale, 6,000/s for 1 h, 0.005 % fail",
        hour=10,
        minutes=60,
        all=lambda _: 360_000,
        bad=share(0.00005),
        expected=({}, {}),
    ),
    Incident(
        name="night trickle: 10 requests an hour, 1 fails, 5 h",
        hour=0,
        minutes=300,
        all=lambda _: 10 / 60,
        bad=share(0.1),
        expected=({}, {}),
    ),
    Incident(
        name="slow leak: 0.025 % fail, 2 d",
        hour=0,
        minutes=2 * DAY,
        bad=share(0.00025),
        expected=({"trickle": 2105}, {"trickle": 2105}),
    ),
    Incident(
        name="leak: 0.08 % fail, 12 h",
        hour=8,
        minutes=720,
        bad=share(0.0008),
        expected=({"mid": 196, "fast": 244}, {"mid": 215}),
    ),
    Incident(
        name="restarts: three minutes with 0.1 % failing",
        hour=15,
        minutes=3,
        bad=share(0.001),
        expected=({}, {}),
    ),
    Incident(
        name="nothing published for 10 min",
        hour=9,
        minutes=10,
        all=lambda _: None,
        expected=({"absent": 7}, {"absent": 7}),
    ),
    Incident(
        name="one of three processes is gone, 1 h",
        hour=9,
        minutes=60,
        all=lambda minute: traffic(minute) * 2 / 3,
        expected=({}, {}),
    ),
    Incident(name="no traffic for 6 h", hour=9, minutes=360, all=lambda _: 0, expected=({}, {})),
)


@lru_cache
def told(incident: Incident, burn: str, *, fill_makes_points: bool = True) -> tuple[dict[str, int], dict[str, str]]:
    """Minutes until each alarm tells somebody, and the share of the month's budget that is gone then."""
    name = "slo-ShopAvailability"
    slo = promise(objective=Decimal("99.99"), burn=burn, expected_events_per_second=Decimal(PER_SECOND))
    begin = BEFORE + incident.hour * HOUR
    minutes = range(begin + incident.minutes + 8 * HOUR)
    lasts = range(begin, begin + incident.minutes)
    every = [incident.all(minute) if minute in lasts else traffic(minute) for minute in minutes]
    bad = [
        None if of_all is None else incident.bad(of_all) if minute in lasts else 0.0
        for minute, of_all in enumerate(every)
    ]
    if not fill_makes_points:
        bad = [one or None for one in bad]  # as load balancers count: only what is there
    evaluated = range(begin - HOUR, len(every))
    made = list(planned([slo]).values())
    events = run(made, published(bad, every), evaluated, fill_makes_points=fill_makes_points)
    alarms = {**{speed: f"{name}-{speed}" for speed in SPEEDS}, "absent": "slo-Shop-absent-page"}
    firsts = {speed: first(events, alarm, "told") for speed, alarm in alarms.items()}
    found = {speed: minute for speed, minute in firsts.items() if minute is not None}
    gone = {speed: f"{sum(one or 0 for one in bad[:minute]) / BUDGET:.1%}" for speed, minute in found.items()}
    return {speed: minute - begin for speed, minute in found.items()}, gone


def _ids(incident: Incident) -> str:
    return incident.name


@pytest.mark.parametrize("incident", INCIDENTS, ids=_ids)
@pytest.mark.parametrize("burn", ["budget", "ratio"])
def test_who_is_told_when(incident: Incident, burn: str) -> None:
    """Each incident is told by the alarms that should, in time, and by no other one."""
    assert told(incident, burn)[0] == incident.expected[burn == "ratio"]


@pytest.mark.parametrize("incident", INCIDENTS, ids=_ids)
def test_it_does_not_matter_whether_fill_makes_points_from_nothing(incident: Incident) -> None:
    """The documents leave it open, for a source that is silent without errors: the same alarms tell, and when."""
    assert told(incident, "budget", fill_makes_points=False) == told(incident, "budget")


def table() -> str:
    """The table of the documentation."""
    lines = ["| incident | told after, budget gone | the classic burn rate alone |", "| --- | --- | --- |"]
    lines += [f"| {one.name} | {_cell(one, 'budget')} | {_cell(one, 'ratio')} |" for one in INCIDENTS]
    return "\n".join(lines)


def _cell(incident: Incident, burn: str) -> str:
    firsts, gone = told(incident, burn)
    in_time = sorted(firsts.items(), key=lambda item: item[1])
    return "; ".join(f"{alarm} {_length(minutes)}, {gone[alarm]}" for alarm, minutes in in_time) or "nobody"


def _length(minutes: int) -> str:
    return f"{minutes} min" if minutes < 2 * HOUR else f"{minutes / HOUR:.1f} h"


def test_the_documentation_shows_the_replay() -> None:
    """The table is what the simulator says."""
    assert table() in DOCS.read_text()
