"""The evaluator of `slo simulate` says what Prometheus says, evaluation by evaluation; and traffic is read as meant."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import accumulate
from pathlib import Path
from typing import Any, Literal

import pytest

from alerts import alertmanager
from slo import CalendarMonth, Gauge, Rolling, SloError, TimeSlice, compile_slo
from slo.catalogue import facts_of
from slo.compile import CompiledSlo, Reason
from slo.definitions import redemption
from slo.simulation import Alerting, Firing, Incident, Traffic, simulate
from slo.simulation.alerting import length_of
from slo.simulation.evaluator import SAME_NOTIFICATION
from slo.simulation.traffic import moment_of, parse
from slo.windows import DAY, HOUR, MINUTE, BurnWindows, Policy, Severity, policy
from tests.alerts.every_kind import EVERY_KIND
from tests.alerts.rules_bench import ERROR, FIRING, OK, PAGE, SCRAPE, TICKET, Value, asks, play, shop

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)  # promtool's time begins here
BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
MONTH = policy(Rolling(days=30))

# All of a month within three hours, at the real intervals: long windows are full, and roll.
SHORT = replace(
    MONTH,
    period=3 * HOUR,
    coarse_from=HOUR,
    pairs=(
        BurnWindows(Severity.PAGE, 20 * MINUTE, 5 * MINUTE, Decimal("4.4")),
        BurnWindows(Severity.PAGE, 40 * MINUTE, 10 * MINUTE, Decimal("2.7")),
        BurnWindows(Severity.TICKET, HOUR, 20 * MINUTE, Decimal("1.9")),
        BurnWindows(Severity.TICKET, 2 * HOUR, 40 * MINUTE, Decimal(1)),
    ),
)


def alerting(compiled: CompiledSlo) -> Alerting:
    """What decides who is told, under the windows that the SLO was compiled with."""
    return replace(Alerting.of(facts_of(compiled)), policy=compiled.policy)


def fired(simulation: Any, alert: str, count: int) -> set[int]:  # noqa: ANN401 - a Simulation
    """The evaluations at which an alert fires."""
    spans = [(one.begin, one.end) for one in simulation.firings if one.alert == alert]
    moments = {number: simulation.begin + number * SCRAPE for number in range(1, count + 1)}
    return {
        number
        for number, at in moments.items()
        if any(begin <= at and (end is None or at < end) for begin, end in spans)
    }


def prometheus_fired(
    folder: Path, compiled: CompiledSlo, series: dict[str, list[Value]], count: int
) -> dict[str, set[int]]:
    """The same, by promtool."""
    seen = play(folder, compiled, series, asks(FIRING, [number * SCRAPE for number in range(1, count + 1)]))
    return {
        alert: {number for number in range(1, count + 1) if alert in seen.firing(number * SCRAPE)}
        for alert in (PAGE, TICKET)
    }


def a_day_out(seed: int, length: timedelta) -> tuple[Traffic, list[Incident]]:
    """Seeded traffic with some incidents: outages, leaks and sales, of any length, at any moment."""
    generator = random.Random(seed)  # noqa: S311 - the same seed, the same day
    rate = generator.choice([0.4, 3, 27, 300])
    traffic = generator.choice([Traffic.constant, Traffic.daily])(EPOCH, length, SCRAPE, rate)
    incidents = [
        Incident(
            begin=EPOCH + generator.uniform(0, 0.9) * length,
            length=generator.choice([1, 5, 15]) * MINUTE,
            bad_share=generator.choice([0.0005, 0.004, 0.02, 0.3, 1]),
            more_per_second=generator.choice([0, 0, 20 * rate]),
        )
        for _ in range(3)
    ]
    return traffic, [one for one in incidents if one.end <= traffic.end]


@pytest.mark.e2e
@pytest.mark.parametrize(
    ("seed", "windows", "burn", "objective"),
    [
        (1, SHORT, "budget", "99.9"),
        (3, SHORT, "ratio", "99.9"),
        pytest.param(2, SHORT, "budget", "99", marks=pytest.mark.slow),
        pytest.param(7, SHORT, "budget", "99.99", marks=pytest.mark.slow),
        pytest.param(8, MONTH, "budget", "99.9", marks=pytest.mark.slow),
    ],
)
def test_alerts_fire_at_the_very_evaluations_at_which_prometheus_says_so(
    tmp_path: Path, seed: int, windows: Policy, burn: Literal["budget", "ratio"], objective: str
) -> None:
    """Page and ticket begin and end as promtool's do over the same counters, to the evaluation, in both burns."""
    compiled = compile_slo(shop(burn=burn, objective=Decimal(objective)), windows)
    assert_equal(tmp_path, compiled, *a_day_out(seed, 4 * HOUR))


@pytest.mark.e2e
@pytest.mark.parametrize("begins", [3, 12, 28, 66])
def test_young_data_are_judged_as_prometheus_judges_them(tmp_path: Path, begins: int) -> None:
    """A sale minutes after the first event: means are over what exists, and the period's mean is not yet trusted."""
    traffic = Traffic.constant(EPOCH, 90 * MINUTE, SCRAPE, 1)
    sale = Incident(begin=EPOCH + begins * MINUTE, length=20 * MINUTE, bad_share=0.003, more_per_second=100)
    assert_equal(tmp_path, compile_slo(shop(), SHORT), traffic, [sale])


def assert_equal(folder: Path, compiled: CompiledSlo, traffic: Traffic, incidents: Sequence[Incident]) -> None:
    """The evaluator and promtool say the same of page and ticket, evaluation by evaluation, and something fires."""
    simulation = simulate(alerting(compiled), traffic, incidents)
    struck = traffic.struck_by(incidents)
    count = len(struck.all)
    # The counters have counted before.
    good = [every - bad for every, bad in zip(struck.all, struck.bad, strict=True)]
    series: dict[str, list[Value]] = {
        OK: [*accumulate(good, initial=1e7)],
        ERROR: [*accumulate(struck.bad, initial=1e7)],
    }
    real = prometheus_fired(folder, compiled, series, count)
    assert {alert: fired(simulation, alert, count) for alert in real} == real
    assert any(real.values()), "the case shows something"


@pytest.mark.e2e
def test_slices_of_time_fire_as_prometheus_says(tmp_path: Path) -> None:
    """Where time is judged slice by slice, a slice that an incident only touches is bad."""
    busy = Gauge("shop_busy_ratio", "Busy share.")
    compiled = compile_slo(shop(objective=Decimal(99), sli=TimeSlice(busy.where(), bad_above=Decimal("0.9"))), SHORT)
    traffic = Traffic.slices(EPOCH, 3 * HOUR, SCRAPE, MINUTE)
    # Begins and ends within a slice.
    incident = Incident(begin=EPOCH + 100.5 * MINUTE, length=6 * MINUTE, bad_share=1)
    simulation = simulate(alerting(compiled), traffic, [incident])
    count = len(traffic.all)
    values = [float(incident.begin < EPOCH + number * SCRAPE <= incident.end) for number in range(count + 1)]
    real = prometheus_fired(tmp_path, compiled, {"shop_busy_ratio": [*values]}, count)
    assert {alert: fired(simulation, alert, count) for alert in real} == real
    assert real[PAGE]
    assert simulation.bad == 7


# --- what it says ---------------------------------------------------------------------------------------------------


def test_an_outage_at_night_pages_for_the_people() -> None:
    """With a request every two seconds 50 fail in 100 s: then the page comes, costs next to nothing, and says why."""
    day = [10 * 60.0] * 720
    night = [0.5 * 60] * 720
    traffic = Traffic(begin=BEGIN, interval=MINUTE, all=day + night, bad=[0.0] * 1440)
    incident = Incident(begin=BEGIN + 14 * HOUR, length=10 * MINUTE, bad_share=1)
    simulation = simulate(alerting(compile_slo(shop())), traffic, [incident])
    (page,) = simulation.told(Severity.PAGE)
    # The rate over 5 minutes makes 45 events of 90 s fifty of 100 s.
    assert page.begin - incident.begin == timedelta(seconds=90)
    assert (page.reason, page.long, page.short, page.bad_events) == (Reason.PEOPLE, HOUR, 5 * MINUTE, 45)
    assert page.end is not None
    assert page.end > incident.end
    # The budget of a month at the mean of 5.25/s.
    assert simulation.budget_events == pytest.approx(0.001 * 5.25 * 30 * 86_400)
    assert page.budget_spent == pytest.approx(45 / simulation.budget_events)
    assert simulation.budget_spent == pytest.approx(300 / simulation.budget_events)
    (outcome,) = simulation.outcomes
    assert outcome.bad_events == 300
    assert outcome.page is not None
    assert outcome.page.after == page.begin - incident.begin
    assert outcome.page.budget_spent == page.budget_spent


def test_a_stray_error_tells_nobody() -> None:
    """One failure among few requests is below both minima; the classic rule wakes somebody for it."""
    night = Incident(begin=BEGIN + 12 * HOUR, length=MINUTE, bad_share=1)
    traffic = Traffic.constant(BEGIN, DAY, MINUTE, 1 / 60)
    assert simulate(alerting(compile_slo(shop())), traffic, [night]).firings == ()
    classic = simulate(alerting(compile_slo(shop(burn="ratio"))), traffic, [night])
    assert [one.severity for one in classic.firings][:1] == [Severity.PAGE]
    assert classic.outcomes[0].page is not None


def test_an_incident_that_nobody_is_told_of_says_so() -> None:
    """No page and no ticket are an answer, beside what it cost."""
    small = Incident(begin=BEGIN + 12 * HOUR, length=MINUTE, bad_share=0.001)
    (outcome,) = simulate(alerting(compile_slo(shop())), Traffic.constant(BEGIN, DAY, MINUTE, 10), [small]).outcomes
    assert (outcome.page, outcome.ticket) == (None, None)
    assert outcome.bad_events == pytest.approx(0.6)


def test_an_alert_that_fires_at_the_end_has_no_end() -> None:
    """What the traffic does not show is not made up."""
    leak = Incident(begin=BEGIN + 12 * HOUR, length=12 * HOUR, bad_share=0.1)
    simulation = simulate(alerting(compile_slo(shop())), Traffic.constant(BEGIN, DAY, MINUTE, 10), [leak])
    assert [one.end for one in simulation.told(Severity.PAGE)] == [None]


def test_an_alert_that_flickers_tells_once() -> None:
    """What fires again before Alertmanager's group interval is over sends nobody anything; what comes later does."""
    leak = Incident(begin=BEGIN + 12 * HOUR, length=HOUR, bad_share=0.1)
    simulation = simulate(alerting(compile_slo(shop())), Traffic.constant(BEGIN, DAY, MINUTE, 10), [leak])
    (page,) = simulation.told(Severity.PAGE)

    def again(begin: timedelta, end: timedelta) -> Firing:
        return replace(page, begin=BEGIN + begin, end=BEGIN + end)

    first, soon, late = (again(at * MINUTE, (at + 1) * MINUTE) for at in (0, 5, 11))
    told = replace(simulation, firings=(first, soon, late)).told(Severity.PAGE)
    assert [(one.begin, one.end) for one in told] == [(first.begin, soon.end), (late.begin, late.end)]
    timings = alertmanager.Timings()
    assert timings.page.group_interval == timings.ticket.group_interval == SAME_NOTIFICATION


def test_what_cannot_be_simulated_is_said() -> None:
    """No event, an incident elsewhere, half a bad slice, and a ratio that counts nothing: one error each."""
    of_shop = alerting(compile_slo(shop()))
    traffic = Traffic.constant(BEGIN, DAY, MINUTE, 10)
    late = Incident(begin=BEGIN + 2 * DAY, length=MINUTE, bad_share=1)
    with pytest.raises(SloError, match="has no event"):
        simulate(of_shop, Traffic.constant(BEGIN, DAY, MINUTE, 0))
    with pytest.raises(SloError, match=r"from 2026-01-03T00:00 to .* is outside of the traffic"):
        simulate(of_shop, traffic, [late])
    with pytest.raises(SloError, match="one must divide the other"):
        simulate(of_shop, Traffic.constant(BEGIN, DAY, timedelta(seconds=45), 10))
    slices = Alerting.of(facts_of(compile_slo(redemption.settlement)))
    with pytest.raises(SloError, match="bad or good as a whole"):
        simulate(slices, Traffic.slices(BEGIN, DAY, SCRAPE, MINUTE), [replace(late, begin=BEGIN, bad_share=0.5)])


# --- whom an SLO tells ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("slo", EVERY_KIND, ids=lambda slo: slo.name)
def test_the_facts_of_every_kind_hold_what_decides(slo: Any) -> None:  # noqa: ANN401 - an Slo
    """Windows, factors, minima and slices come back from the words of `slos.json`; a ratio query counts nothing."""
    compiled = compile_slo(slo)
    facts = json.loads(json.dumps(facts_of(compiled)))
    if slo.name == "ratio":
        with pytest.raises(SloError, match="ratio query does not say how many events"):
            Alerting.of(facts)
        return
    found = Alerting.of(facts)
    assert found.policy == compiled.policy
    assert found.budget_ratio == float(slo.budget_ratio)
    assert found.slice == (timedelta(seconds=slo.sli.slice_seconds) if hasattr(slo.sli, "slice_seconds") else None)
    burns = [alert for alert in compiled.alerts if alert.ways]
    assert [(one.name, one.severity, one.hold) for one in found.alerts] == [(b.name, b.severity, b.hold) for b in burns]
    for one, burn in zip(found.alerts, burns, strict=True):
        windows = [(way.reason, way.windows.long, way.windows.short, float(way.windows.factor)) for way in burn.ways]
        assert [(way.reason, way.long, way.short, way.factor) for way in one.ways] == windows


def test_any_period_comes_back() -> None:
    """A day, a week, and a calendar month."""
    for window in (Rolling(1), Rolling(7), CalendarMonth()):
        compiled = compile_slo(shop(window=window, alerts=()))
        assert Alerting.of(facts_of(compiled)).policy == compiled.policy


@pytest.mark.parametrize("facts", [{}, {"sli": 1}, {"sli": "bad: x", "service": "a", "name": "b"}])
def test_facts_of_another_format_are_said(facts: dict[str, Any]) -> None:
    """One error, no traceback of something else."""
    with pytest.raises(SloError, match="another format"):
        Alerting.of(facts)


# --- traffic --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "time,all,bad\n2026-01-01T00:00,100,1\n2026-01-01T00:01,50,0\n\n2026-01-01T00:03Z,10,10\n",
        "Time, all ,bad\n1767225600,100,1\n1767225660,50,0\n1767225780,10,10",
        (
            '{"time": "2026-01-01T01:00+01:00", "all": 100, "bad": 1}\n{"time": 1767225660, "all": 50, "bad": 0}\n'
            '{"time": 1767225780, "all": 10, "bad": 10}\n'
        ),
    ],
    ids=["csv", "seconds", "json lines"],
)
def test_csv_and_json_lines_are_the_same_traffic(text: str) -> None:
    """The shortest step is the interval; a row that is left out has no event; time is UTC unless it says otherwise."""
    traffic = parse(text, "traffic")
    assert (traffic.begin, traffic.interval, traffic.end) == (BEGIN, MINUTE, BEGIN + 4 * MINUTE)
    assert traffic.all == [100, 50, 0, 10]
    assert traffic.bad == [1, 0, 0, 10]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "the first line must be time,all,bad"),
        ("a,b\n1,2", "the first line must be time,all,bad"),
        ("time,all,bad\n2026-01-01,1,1", "fewer than two rows"),
        ("time,all,bad\n2026-01-01,1,2\n", "line 2: 2 bad of 1 events is not possible"),
        ("time,all,bad\n2026-01-01,-1,-2\n", "line 2: -2 bad of -1 events is not possible"),
        ("time,all,bad\n2026-01-01,nan,0\n", "line 2: 0 bad of nan events is not possible"),
        ("time,all,bad\n2026-01-01,inf,0\n", "line 2: 0 bad of inf events is not possible"),
        ("time,all,bad\n2026-01-01,1\n", "line 2: has 2 columns"),
        ("time,all,bad\n2026-01-01,x,0\n", "line 2: could not convert"),
        ("time,all,bad\nyesterday,1,0\n", "line 2: 'yesterday' is no time"),
        ("time,all,bad\n2026-01-02,1,0\n2026-01-01,1,0\n", "line 3: the time is not later"),
        ("time,all,bad\n2026-01-01,1,0\n2026-01-01,1,0\n", "line 3: the time is not later"),
        (
            "time,all,bad\n2026-01-01T00:00,1,0\n2026-01-01T00:02,1,0\n2026-01-01T00:05,1,0",
            "line 4: the step .* is no multiple",
        ),
        ("time,all,bad\n2026-01-01T00:00,1,0\n2026-01-01T00:01,1,0\n2036-01-01T00:00,1,0", "more than 400 days"),
        ('{"time": 1}', "line 1: is no JSON object with the keys time, all, bad"),
        ("{oops", "line 1: is no JSON object"),
    ],
)
def test_what_is_no_traffic_is_said_with_its_line(text: str, fault: str) -> None:
    """One error that names the line, whatever is wrong."""
    with pytest.raises(SloError, match=fault):
        parse(text, "traffic")


def test_intervals_are_spread_or_added_up() -> None:
    """A row of a minute is two of half a minute; six of ten seconds are one of a minute."""
    whole = Traffic(begin=BEGIN, interval=MINUTE, all=[6, 12], bad=[2, 0])
    fine = whole.every(timedelta(seconds=10))
    assert fine.all == [1] * 6 + [2] * 6
    again = fine.every(MINUTE)
    assert again.all == pytest.approx([6, 12])
    assert again.bad == pytest.approx([2, 0])


def test_an_incident_strikes_its_share_of_an_interval() -> None:
    """Half an interval of half the events is a quarter of them; incidents strike what is still good, and bring more."""
    traffic = Traffic(begin=BEGIN, interval=MINUTE, all=[100.0, 100.0, 100.0], bad=[0.0, 20.0, 0.0])
    half = Incident(begin=BEGIN + MINUTE / 2, length=MINUTE, bad_share=0.5)
    struck = traffic.struck_by([half])
    assert struck.bad == [25, 20 + 20, 0]
    sale = Incident(begin=BEGIN + 2 * MINUTE, length=MINUTE, bad_share=0.1, more_per_second=10)
    struck = traffic.struck_by([half, sale])
    assert struck.all == [100, 100, 700]
    assert struck.bad == [25, 40, pytest.approx(70)]


def test_made_up_days_have_their_mean() -> None:
    """A whole day of a daily curve has as many events as one of constant traffic; the night is quiet."""
    constant, daily = (make(BEGIN, DAY, SCRAPE, 27.0) for make in (Traffic.constant, Traffic.daily))
    assert sum(daily.all) == pytest.approx(sum(constant.all))
    assert _rate(daily.all, 4 * HOUR) == pytest.approx(27 / 4, rel=0.01)
    assert _rate(daily.all, 16 * HOUR) == pytest.approx(27 * 1.75, rel=0.01)


def _rate(events: Sequence[float], at: timedelta) -> float:
    return events[at // SCRAPE] / SCRAPE.total_seconds()


def test_durations_and_moments_are_read_or_refused() -> None:
    """As Prometheus and ISO 8601 write them; anything else is a ValueError for whoever knows what it was for."""
    assert length_of("1d12h30m") == timedelta(days=1, hours=12, minutes=30)
    assert moment_of("2026-01-01") == moment_of("1767225600") == BEGIN
    for text in ("", "5", "5x", "-5m"):
        with pytest.raises(ValueError, match="is no duration"):
            length_of(text)
    for text in ("", "soon", "nan", "2026-13-01"):
        with pytest.raises(ValueError, match="is no time"):
            moment_of(text)
    with pytest.raises(ValueError, match="in the year 1970"):
        moment_of("2026")
