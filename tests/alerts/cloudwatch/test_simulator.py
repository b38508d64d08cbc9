"""The simulator does what AWS's documents say, and what was measured before with another one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal

import pytest

from alerts.cloudwatch.model import (
    Alarm,
    AllOf,
    AtLeast,
    CompositeAlarm,
    Is,
    MetricAlarm,
    MetricStat,
    Missing,
    Not,
    State,
    Suppressor,
    Topic,
)
from tests.alerts.cloudwatch import simulator
from tests.alerts.cloudwatch.examples import planned, promise
from tests.alerts.cloudwatch.simulator import Recorded, counts, first, run, state_of

OK, ALARM, NO_DATA = State.OK, State.ALARM, State.INSUFFICIENT_DATA
RETAINED = State.INSUFFICIENT_DATA  # what it was before
START = 3 * 1440 + 20  # twenty past an hour: an alarm on several days looks at the data once an hour


def alarm(m: int = 1, n: int = 1, treat: Missing = Missing.NOT_BREACHING, period_seconds: int = 60) -> MetricAlarm:
    """An alarm on a value above 0."""
    read = MetricStat(id="m", namespace="N", name="M", period_seconds=period_seconds, statistic="Sum", returned=True)
    return MetricAlarm(
        name="a",
        description="",
        queries=(read,),
        threshold=Decimal(0),
        evaluation_periods=n,
        datapoints_to_alarm=m,
        treat_missing_data=treat,
        region="eu-central-1",
        actions=(Topic(name="t", region="eu-central-1", account="123456789012"),),
    )


@pytest.mark.parametrize(
    ("points", "m", "expected"),
    [
        # missing, ignore, breaching, notBreaching
        ("0-X-X", 3, (OK, OK, OK, OK)),
        ("0----", 3, (OK, OK, OK, OK)),
        ("-----", 3, (NO_DATA, RETAINED, ALARM, OK)),
        ("0XX-X", 3, (ALARM, ALARM, ALARM, ALARM)),
        ("--X--", 3, (ALARM, RETAINED, ALARM, OK)),
        ("0-X-X", 2, (ALARM, ALARM, ALARM, ALARM)),
        ("00X0X", 2, (ALARM, ALARM, ALARM, ALARM)),
        ("0-X--", 2, (OK, OK, ALARM, OK)),
        ("----0", 2, (OK, OK, ALARM, OK)),
        ("---X-", 2, (ALARM, RETAINED, ALARM, OK)),
    ],
)
def test_missing_data_as_in_the_tables_of_aws(points: str, m: int, expected: Sequence[State]) -> None:
    """Both tables of "Configuring how CloudWatch alarms treat missing data", M of 3: oldest point first."""
    newest_first = [{"X": 1.0, "0": 0.0, "-": None}[point] for point in reversed(points)]
    treatments = (Missing.MISSING, Missing.IGNORE, Missing.BREACHING, Missing.NOT_BREACHING)
    found = tuple(state_of(alarm(m, 3, treat), newest_first, RETAINED) for treat in treatments)

    assert found == expected


def test_an_alarm_on_more_than_a_day_looks_once_an_hour() -> None:
    """AWS's example: what begins at 10:02 is found at 11:03, as at 10:03 only the data up to 10:00 is looked at."""
    begin = 2 * 1440 + 10 * 60 + 2
    metrics = {("N", "M", frozenset[tuple[str, str]]()): counts([0.0] * begin + [1.0] * 200)}

    events = run([alarm(period_seconds=2 * 86_400)], metrics, range(begin - 120, begin + 200))

    assert first(events, "a", "ALARM") == 2 * 1440 + 11 * 60 + 3


def test_a_window_of_exactly_a_day_is_looked_at_each_minute() -> None:
    """86,400 s are not more than a day."""
    metrics = {("N", "M", frozenset[tuple[str, str]]()): counts([0.0] * 2000 + [1.0] * 200)}

    assert first(run([alarm(period_seconds=86_400)], metrics, range(1900, 2100)), "a", "ALARM") == 2001


@pytest.mark.parametrize(
    ("expression", "values", "expected"),
    [
        ("a + b", {"a": 1.0, "b": None}, 1.0),
        ("a + b", {"a": None, "b": None}, None),
        ("(100 - a) / 100", {"a": None}, None),
        ("a / b", {"a": 1.0, "b": 0.0}, None),
        ("IF(FILL(a, 0) > 2 AND b > 1, b, 0)", {"a": 3.0, "b": 2.0}, 2.0),
        ("IF(FILL(a, 0) > 2 AND b > 1, b, 0)", {"a": None, "b": 2.0}, 0.0),
        ("IF(FILL(a, 0) > 2, b, 0)", {"a": simulator.GONE, "b": 2.0}, None),
        ("MAX([a, b])", {"a": None, "b": 2.0}, 2.0),
        ("MIN([FILL(a, 5), b])", {"a": None, "b": 7.0}, 5.0),
    ],
)
def test_metric_math(expression: str, values: dict[str, float | None], expected: float | None) -> None:
    """What is missing is 0 beside another series, nothing by itself, and nothing is divided by 0."""
    assert simulator.evaluate(simulator.compiled(expression), values) == expected


def test_percent_rank() -> None:
    """The share of samples up to and including the limit, in percent."""
    recorded = Recorded([{0.1: 8, 0.3: 1}, {0.4: 1}])

    assert recorded.statistic("PR(:0.3)", 0, 2) == 90
    assert recorded.statistic("SampleCount", 0, 2) == 10


# --- what was measured before: 600 requests a minute, 99.9 %, the classic burn rate ----------------------------------


def told(bad_share: float, minutes: int, until: int) -> dict[str, int]:
    """How many minutes after its begin an incident puts each composite into ALARM."""
    alarms = list(planned([promise(burn="ratio")]).values())
    bad = [0.0] * START + [600 * bad_share] * minutes + [0.0] * until
    events = run(alarms, published(bad, [600.0] * len(bad)), range(START - 90, START + until))
    firsts = {speed: first(events, f"slo-ShopAvailability-{speed}", "ALARM") for speed in SPEEDS}
    return {speed: minute - START for speed, minute in firsts.items() if minute is not None}


SPEEDS = ("fast", "mid", "slow", "trickle")


def published(bad: Sequence[float | None], every: Sequence[float | None]) -> dict[simulator.Key, Recorded]:
    """What the shop publishes."""
    dimensions = frozenset({("Service", "shop"), ("Slo", "availability")})
    return {("SLO", "BadEvents", dimensions): counts(bad), ("SLO", "AllEvents", dimensions): counts(every)}


def test_a_full_outage_is_found_after_one_minute() -> None:
    """The window is one data point, which moves on each minute."""
    assert told(1.0, 30, 60)["fast"] == 1


def test_twelve_of_twelve_never_find_an_outage_of_half_an_hour() -> None:
    """An hour out of five-minute points, as it is often done: at most seven of them are bad."""
    alarms = planned([promise(burn="ratio")])
    window = alarms["slo-ShopAvailability-fast-5m"]
    assert isinstance(window, MetricAlarm)
    usual = replace(window, evaluation_periods=12, datapoints_to_alarm=12)
    bad = [0.0] * START + [600.0] * 30 + [0.0] * 120

    events = run([usual], published(bad, [600.0] * len(bad)), range(START - 90, START + 120))

    assert first(events, window.name, "ALARM") is None


def test_five_percent_of_errors() -> None:
    """Each pair after the time that its own budget share takes, the slowest at its hour."""
    assert told(0.05, 180, 180) == {"fast": 18, "mid": 44, "slow": 87, "trickle": 103}


def test_eight_per_mille_of_errors_are_too_few_for_the_fastest() -> None:
    """Eight times the budget's pace is below 14.4 and above 6."""
    found = told(0.008, 720, 720)

    assert "fast" not in found
    assert found["mid"] == 271


def test_one_and_a_half_times_the_budget_is_found_by_the_slowest_alone() -> None:
    """Over two of three days, and then within the hour: 48.7 hours."""
    assert told(0.0015, 4 * 1440, 4 * 1440) == {"trickle": 2923}


def test_a_minute_of_full_outage_is_enough_for_the_fastest() -> None:
    """1/60 of the hour is above 1.44 %; nothing holds an alarm back as `for` does."""
    assert told(1.0, 1, 60)["fast"] == 1


# --- composites ------------------------------------------------------------------------------------------------------


def composite(name: str, rule: AllOf | Is, suppressor: Suppressor | None = None) -> CompositeAlarm:
    """A composite that tells somebody."""
    topic = Topic(name="t", region="eu-central-1", account="123456789012")
    return CompositeAlarm(
        name=name, description="", rule=rule, suppressor=suppressor, actions=(topic,), region="eu-central-1"
    )


def child(name: str) -> MetricAlarm:
    """An alarm on a metric of its own name."""
    read = MetricStat(id="m", namespace="N", name=name, period_seconds=60, statistic="Sum", returned=True)
    return MetricAlarm(name=name, description="", queries=(read,), threshold=Decimal(0), region="eu-central-1")


def replay(slow: str, fast: str) -> int | None:
    """When `slow` tells, that `fast` suppresses with 2 minutes to wait and 3 to extend; X for a minute in ALARM."""
    suppressor = Suppressor(alarm="fast", wait_seconds=120, extension_seconds=180)
    alarms: list[Alarm] = [
        child("s"),
        child("f"),
        composite("fast", Is(State.ALARM, "f")),
        composite("slow", Is(State.ALARM, "s"), suppressor),
    ]
    metrics = {
        ("N", name, frozenset[tuple[str, str]]()): counts(float(minute == "X") for minute in minutes)
        for name, minutes in (("s", slow), ("f", fast))
    }
    return first(run(alarms, metrics, range(1, len(slow) + 1)), "slow", "told")


@pytest.mark.parametrize(
    ("slow", "fast", "expected"),
    [
        ("..XXXXXXXXX", "...........", 5),  # the suppressor does not come within the wait
        ("..XXXXXXXXX", "...XXXXXXXX", None),  # it comes within the wait
        ("..X........", "...........", None),  # over before the wait is
        ("..XXXXXXXXX", "..XXX......", 8),  # it goes, and the extension passes: its last minute is 5
        ("..XXXX.....", "..XXX......", None),  # it goes, and all is over within the extension
    ],
)
def test_suppression(slow: str, fast: str, expected: int | None) -> None:
    """As in "Alarm suppression": wait for the suppressor to come, and longer after it has gone."""
    assert replay(slow, fast) == expected


def test_at_least() -> None:
    """One zone alone is one and not two."""
    zones = ("a", "b", "c")
    alone = AllOf((AtLeast(1, State.ALARM, zones), Not(AtLeast(2, State.ALARM, zones))))

    assert simulator.holds(alone, {"a": ALARM, "b": OK, "c": NO_DATA})
    assert not simulator.holds(alone, {"a": ALARM, "b": ALARM, "c": OK})
    assert not simulator.holds(alone, {"a": OK, "b": OK, "c": OK})
