"""What spent the budget, and what the alerts told of it."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from review import incidents as spending
from review.incidents import CauseFiring, RawFiring
from review.model import EventWindows, Firing, Incident, Span
from slo import CompiledSlo, compile_slo
from slo.causes import Component, Signal
from tests.review.making import A_DAY, BEGIN, STEP, budget, promise, windows

RATE = 3_000.0  # events of a window; 3 of them may be bad at 99.9 %
DAYS = 30


def history(*faults: tuple[float, float, float]) -> EventWindows:
    """Thirty days in which a share of the events fails from one window to another (begin, end, share)."""
    bad = [0.0] * (DAYS * A_DAY)
    for begin, end, share in faults:
        for index in range(int(begin), -(-int(end * 1000) // 1000) + 1):
            burning = max(0.0, min(end, index + 1) - max(begin, index))
            bad[index] += RATE * share * burning
    return windows([RATE] * len(bad), bad)


def found(of: EventWindows, compiled: CompiledSlo | None = None) -> tuple[Incident, ...]:
    """Its incidents."""
    compiled = compiled or promise()
    return spending.find(compiled, of, budget(compiled, of))


def at(window: float) -> float:
    """The time of a window's begin."""
    return BEGIN + window * STEP


def test_an_outage_is_found_with_its_begin_end_and_cost() -> None:
    """An hour in which a tenth fails: 12 windows of 300 bad events, 13.9 % of 25,920."""
    (one,) = found(history((1_000, 1_012, 0.1)))
    assert one.span == Span(at(1_000), at(1_012))
    assert one.bad_events == pytest.approx(3_600)
    assert one.budget_share == pytest.approx(3_600 / 25_920)
    assert one.peak_burn == pytest.approx(100)


@pytest.mark.parametrize(("begin", "end"), [(1_000.3, 1_012.6), (1_000.9, 1_004.1), (2_000.0, 2_001.5)])
def test_begin_and_end_are_known_within_a_window(begin: float, end: float) -> None:
    """Also where a window burns for a part of its time."""
    (one,) = found(history((begin, end, 0.1)))
    assert one.span.begin == pytest.approx(at(begin), abs=STEP)
    assert one.span.end == pytest.approx(at(end), abs=STEP)


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    begin=st.floats(300, 5_000),
    length=st.floats(3, 200),
    share=st.floats(0.02, 0.9),
)
def test_no_noise_moves_the_edges_of_an_outage(seed: int, begin: float, length: float, share: float) -> None:
    """With random errors all along, at a third of what is allowed, both edges stay within a window."""
    of = history((begin, begin + length, share))
    draw = random.Random(seed)  # noqa: S311 - noise
    for index, events in enumerate(draw.choices((0, 1, 2, 3), (37, 37, 18, 8), k=len(of))):  # a mean of one
        of.bad_sharp[index] += events
    outages = [one for one in found(of) if one.budget_share > 0.006]
    (one,) = outages
    assert one.span.begin == pytest.approx(at(begin), abs=STEP)
    assert one.span.end == pytest.approx(at(begin + length), abs=STEP)


def test_a_leak_of_a_day_is_one_incident() -> None:
    """Twice the allowed rate for a day, in events that come one by one, is no hundred small incidents."""
    of = history()
    draw = random.Random(1)  # noqa: S311 - a seeded leak
    for index in range(3_000, 3_000 + A_DAY):
        of.bad_sharp[index] = of.bad[index] = sum(draw.random() < 0.06 for _ in range(100))
    (one,) = found(of)
    assert one.span.begin == pytest.approx(at(3_000), abs=6 * STEP)
    assert one.span.end == pytest.approx(at(3_000 + A_DAY), abs=6 * STEP)


def test_stray_errors_are_no_incident() -> None:
    """Under half a percent of the budget went, though the burn was 33 for a moment."""
    assert found(history((1_000, 1_001, 0.033))) == ()


def test_a_stray_error_before_an_outage_is_no_part_of_it() -> None:
    """Twenty minutes before, six bad events: the outage begins when it began."""
    (one,) = found(history((996, 997, 0.002), (1_000, 1_012, 0.1)))
    assert one.span.begin == at(1_000)


@pytest.mark.parametrize(("pause", "number"), [(4, 1), (11, 1), (20, 2), (288, 2)])
def test_an_hour_of_quiet_ends_an_incident(pause: int, number: int) -> None:
    """A lull of some minutes does not; whatever the size of both outages."""
    assert len(found(history((1_000, 1_012, 0.5), (1_012 + pause, 1_024 + pause, 0.5)))) == number


def test_a_sale_that_meets_its_objective_is_no_incident() -> None:
    """Its errors are many times the budget of a quiet hour, and its traffic earns them."""
    of = history()
    for index in range(1_000, 1_012):
        of.all[index] = 100 * RATE
        of.bad[index] = of.bad_sharp[index] = 0.0005 * 100 * RATE
    assert found(of) == ()
    for index in range(1_000, 1_012):
        of.bad[index] = of.bad_sharp[index] = 0.004 * 100 * RATE
    (one,) = found(of)
    assert one.span == Span(at(1_000), at(1_012))


def test_a_moment_of_good_traffic_ends_no_outage() -> None:
    """For five minutes a hundred times the traffic is good: the outage before and after it is one."""
    of = history((1_000, 1_025, 0.02))
    of.all[1_002] = 100 * RATE
    assert [one.span for one in found(of)] == [Span(at(1_000), at(1_025))]


def test_fewer_bad_events_than_an_alert_needs_are_no_incident() -> None:
    """A promise with hardly any traffic: two errors are a tenth of the budget, and chance."""
    of = windows([3.0] * (DAYS * A_DAY), [0.0] * (DAYS * A_DAY))
    of.bad[500] = of.bad_sharp[500] = 2.0
    assert found(of) == ()
    of.bad[500] = of.bad_sharp[500] = 3.0
    assert len(found(of)) == 1


def test_nobody_had_traffic() -> None:
    """No events, no incident."""
    of = windows([0.0] * 100, [0.0] * 100)
    assert found(of) == ()


# --- what burned with it --------------------------------------------------------------------------------------------


def of_component(component: Component | None, name: str) -> CompiledSlo:
    """A promise of a component."""
    made = promise(name=name).slo
    if component is None:
        return compile_slo(replace(made, component=None, signals=(), service="other"))
    return compile_slo(replace(made, component=component, signals=(Signal.ERRORS,), reason="A test."))


def incident(begin: float, end: float) -> Incident:
    """An incident from one window to another."""
    return Incident(span=Span(at(begin), at(end)), bad_events=1, budget_share=0.1, peak_burn=10, peak_at=at(begin))


def component_found(
    own: tuple[Component | None, tuple[float, float]],
    other: tuple[Component | None, tuple[float, float]],
    causes: tuple[CauseFiring, ...] = (),
) -> str | None:
    """The component that an incident is laid to when another SLO burns too."""
    compiled = {"a": of_component(own[0], "aa"), "b": of_component(other[0], "bb")}
    told = spending.with_companions({"a": [incident(*own[1])], "b": [incident(*other[1])]}, compiled, causes)
    return told["a"][0].component


def test_a_dependency_that_burns_with_the_service_is_the_likely_component() -> None:
    """Also when it shows some minutes later, as it is judged more slowly."""
    assert component_found((Component.SERVICE, (100, 112)), (Component.RDS, (99, 112))) == "rds"
    assert component_found((Component.SERVICE, (100, 112)), (Component.RDS, (101, 112))) == "rds"
    assert component_found((Component.SERVICE, (100, 112)), (Component.RDS, (105, 112))) is None


def test_the_service_is_never_the_cause_of_what_it_stands_on() -> None:
    """It burned first, and yet the database did not fail because of it, as far as anybody can tell from this."""
    assert component_found((Component.RDS, (100, 112)), (Component.SERVICE, (99, 112))) is None


def test_of_two_dependencies_the_first_is_the_cause() -> None:
    """The one that began later is an effect."""
    assert component_found((Component.RDS, (100, 112)), (Component.EKS, (98, 112))) == "eks"
    assert component_found((Component.RDS, (100, 112)), (Component.EKS, (102, 112))) is None


def test_what_hardly_overlaps_is_no_companion() -> None:
    """Something that ended in the first minutes explains nothing."""
    assert component_found((Component.SERVICE, (100, 112)), (Component.RDS, (90, 101))) is None


def test_the_alert_of_a_cause_points_to_its_component() -> None:
    """Unless it has been firing for days: then it did no harm by itself."""
    own, nothing = (Component.SERVICE, (2_000.0, 2_012.0)), (Component.SERVICE, (10.0, 20.0))
    fresh = CauseFiring("RdsConnectionsHigh", "rds", Span(at(2_001), at(2_010)))
    old = CauseFiring("RedisOld", "redis", Span(at(0), at(3_000)))
    assert component_found(own, nothing, (old, fresh)) == "rds"
    assert component_found(own, nothing, (old,)) is None


# --- what the alerts told -------------------------------------------------------------------------------------------


def judged(of: EventWindows, begin: float, end: float, alert: str = "RedemptionAvailabilityPage") -> Firing:
    """What a page that fired from one window to another told."""
    compiled = promise()
    raw = RawFiring(alert, "page", Span(at(begin), at(end)), still_firing=False)
    return spending.judge(raw, compiled, of, budget(compiled, of), found(of))


def test_the_cost_before_a_page_is_told() -> None:
    """It fired two windows into an outage of 300 bad events a window."""
    firing = judged(history((1_000, 1_012, 0.1)), 1_002, 1_014)
    assert firing.incident == 0
    assert firing.gone_before == pytest.approx(600 / 25_920)
    assert not firing.for_nothing


def test_a_page_for_hardly_anything_was_for_nothing() -> None:
    """Forty bad events are 0.15 % of the budget."""
    firing = judged(history((1_000, 1_001, 0.0133)), 1_001, 1_003)
    assert firing.incident is None
    assert firing.for_nothing
    assert firing.bad_events == pytest.approx(39.9)


def test_a_page_for_people_was_for_something() -> None:
    """Ninety failed, though it is no half percent of the budget: the people way of a page is right."""
    firing = judged(history((1_000, 1_001, 0.03)), 1_001, 1_003)
    assert firing.incident is None
    assert not firing.for_nothing


def test_an_absence_tells_of_no_burn() -> None:
    """It is neither for nothing nor of an incident."""
    firing = judged(history(), 1_001, 1_003, "RedemptionAvailabilityAbsent")
    assert firing.absence
    assert (firing.incident, firing.for_nothing, firing.gone_before) == (None, False, None)


def test_the_newest_incident_is_what_a_page_tells_of() -> None:
    """Of two, that which had begun when it fired."""
    of = history((1_000, 1_012, 0.1), (1_100, 1_112, 0.1))
    assert judged(of, 1_001, 1_003).incident == 0
    assert judged(of, 1_101, 1_103).incident == 1
