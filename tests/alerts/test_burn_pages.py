"""Who is woken: when the budget of the whole period really goes, or when many people really fail."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Literal

import pytest

from slo import Alert, Rolling, Severity, Slo, compile_slo
from slo.compile import CompiledSlo
from slo.windows import policy
from tests.alerts.rules_bench import (
    ERROR,
    FIRING,
    HOUR,
    MINUTE,
    OK,
    PAGE,
    SCRAPE,
    SECOND,
    Stretch,
    Value,
    asks,
    counters,
    play,
    shop,
    times,
    traffic,
)

pytestmark = pytest.mark.e2e

BURN = "slo:error_budget_burn:ratio_rate1h"
DAY_TRAFFIC = Stretch(2 * HOUR, 27)  # the mean of a month, here of two hours
SALE_BEGINS = DAY_TRAFFIC.length
NINES = Decimal("99.99")


def promise(burn: Literal["budget", "ratio"] = "budget", **minima: int) -> Slo:
    """The redemption service's objective, pages only."""
    return shop(objective=NINES, burn=burn, alerts=(Alert(Severity.PAGE),), **minima)


def first_page(
    folder: Path, slo: Slo | CompiledSlo, series: dict[str, list[Value]], moments: Iterable[timedelta]
) -> timedelta | None:
    """When the page fires first."""
    moments = list(moments)
    seen = play(folder, slo, series, asks(FIRING, moments))
    return next((moment for moment in moments if PAGE in seen.firing(moment)), None)


def test_errors_in_a_sale_page_at_once(tmp_path: Path) -> None:
    """6,000 requests/s of which 0.4 % fail spend 2 % of a month's budget in ten seconds: one scrape later it pages."""
    series = traffic(DAY_TRAFFIC, Stretch(5 * MINUTE, 6000, 0.004))
    paged = first_page(tmp_path, promise(), series, times(SALE_BEGINS, SALE_BEGINS + 5 * MINUTE, SCRAPE))
    assert paged == SALE_BEGINS + SCRAPE


@pytest.mark.parametrize(("burn", "paged"), [("budget", SALE_BEGINS + 2 * MINUTE), ("ratio", None)])
def test_twice_the_objective_in_a_sale(
    tmp_path: Path, burn: Literal["budget", "ratio"], paged: timedelta | None
) -> None:
    """Errors at twice the objective spend the month in the sale's first hours; the classic rule never says so."""
    series = traffic(DAY_TRAFFIC, Stretch(20 * MINUTE, 6000, 0.0002))
    moments = times(SALE_BEGINS, SALE_BEGINS + 20 * MINUTE, SCRAPE)
    assert first_page(tmp_path, promise(burn), series, moments) == paged


def test_a_sale_that_meets_its_objective_wakes_nobody(tmp_path: Path) -> None:
    """Errors just under the objective burn a hundred times too fast, and earn the budget that they use."""
    series = traffic(DAY_TRAFFIC, Stretch(30 * MINUTE, 6000, 0.00009))
    moments = list(times(SALE_BEGINS, SALE_BEGINS + 30 * MINUTE, SCRAPE))
    seen = play(tmp_path, promise(), series, asks([FIRING, BURN], moments))
    assert all(seen.firing(moment) == [] for moment in moments)
    assert max(seen.number(BURN, moment) for moment in moments) > 14.4


def _night(strays: int) -> tuple[dict[str, list[Value]], list[timedelta]]:
    """A busy day, an hour with ten requests, then errors in one scrape; and the moments of the half hour after."""
    good, bad = counters(DAY_TRAFFIC)
    quiet = 90 * MINUTE // SCRAPE
    good += [_last(good) + scrape // 12 for scrape in range(1, quiet + 1)]
    bad += [_last(bad) + (strays if scrape >= HOUR // SCRAPE else 0) for scrape in range(1, quiet + 1)]
    night = DAY_TRAFFIC.length
    return {OK: good, ERROR: bad}, list(times(night + 50 * MINUTE, night + 90 * MINUTE, SCRAPE))


@pytest.mark.parametrize(("burn", "strays", "pages"), [("budget", 1, False), ("budget", 5, False), ("ratio", 1, True)])
def test_a_stray_error_at_night(
    tmp_path: Path,
    burn: Literal["budget", "ratio"],
    strays: int,
    pages: bool,  # noqa: FBT001 - a case
) -> None:
    """One failure among ten requests an hour wakes nobody, nor do five; the classic rule wakes somebody for one."""
    series, moments = _night(strays)
    assert (first_page(tmp_path, promise(burn), series, moments) is not None) == pages


def test_a_stray_error_hours_after_an_incident_wakes_nobody(tmp_path: Path) -> None:
    """By day many people failed and six hours remember it; one failure in the quiet night is still only one.

    The incident itself pages, and its page ends with it.
    """
    good, bad = counters(Stretch(2 * HOUR, 2.7), Stretch(20 * MINUTE, 2.7, 0.1), Stretch(30 * MINUTE, 2.7))
    night, quiet = 170 * MINUTE, 3 * HOUR // SCRAPE
    good += [_last(good) + scrape // 12 for scrape in range(1, quiet + 1)]
    bad += [_last(bad) + (1 if scrape >= 2 * HOUR // SCRAPE else 0) for scrape in range(1, quiet + 1)]
    incident = list(times(2 * HOUR, 140 * MINUTE, MINUTE))
    later = list(times(night, night + 179 * MINUTE, MINUTE))
    seen = play(tmp_path, shop(), {OK: good, ERROR: bad}, asks(FIRING, incident + later), every=MINUTE)
    assert any(PAGE in seen.firing(moment) for moment in incident)
    assert not any(PAGE in seen.firing(moment) for moment in later)


OUTAGE_BEGINS = DAY_TRAFFIC.length + 70 * MINUTE


@pytest.mark.parametrize(("minimum", "soon"), [(50, True), (100_000, False)])
def test_an_outage_at_night(tmp_path: Path, minimum: int, soon: bool) -> None:  # noqa: FBT001 - a case
    """With a request every two seconds a full outage costs the month little, and pages as 50 people fail.

    Without that second way to be right it would not page in these minutes.
    """
    series = traffic(DAY_TRAFFIC, Stretch(70 * MINUTE, 0.5), Stretch(5 * MINUTE, 0.5, 1.0))
    moments = times(OUTAGE_BEGINS - 5 * MINUTE, OUTAGE_BEGINS + 150 * SECOND, SCRAPE)
    paged = first_page(tmp_path, promise(people_bad_events_min=minimum), series, moments)
    # 50 fail in 100 s.
    assert paged == (OUTAGE_BEGINS + 2 * MINUTE if soon else None)


@pytest.mark.parametrize(("share", "within"), [(1.0, 60), (0.3, 180), (0.1, 540), (0.05, 1050)])
def test_it_pages_as_soon_as_the_exact_windows_would(tmp_path: Path, share: float, within: int) -> None:
    """An error ratio of 30 % pages in 3 minutes, of 10 % in 9: when an hour of exact counts passes 14.4 times 0.1 %.

    A mean of 5-minute rates alone would be two and a half minutes late.
    """
    begins = 70 * MINUTE
    series = traffic(Stretch(begins, 10), Stretch(20 * MINUTE, 10, share))
    moments = times(begins, begins + 20 * MINUTE, SCRAPE)
    # Without the six-hour windows, which hold no six hours yet.
    of_month = policy(Rolling(days=30))
    fast = compile_slo(shop(alerts=(Alert(Severity.PAGE),)), replace(of_month, pairs=of_month.pairs[:1]))
    paged = first_page(tmp_path, fast, series, moments)
    assert paged is not None
    assert abs((paged - begins).total_seconds() - within) <= SCRAPE.total_seconds()


def test_all_ways_at_once_are_one_alert_with_a_text_for_each(tmp_path: Path) -> None:
    """A full outage at day is one page; it says that the budget goes, how fast, what is left, and that many fail."""
    series = traffic(DAY_TRAFFIC, Stretch(20 * MINUTE, 27, 1.0))
    moment = DAY_TRAFFIC.length + 15 * MINUTE
    seen = play(tmp_path, promise(), series, asks(FIRING, moment), texts=[(PAGE, moment)])
    assert seen.firing(moment).count(PAGE) == 1
    (page,) = seen.texts(PAGE, moment)
    assert page.annotations["description"] == (
        "The budget goes: it burns 2.54k times too fast over 1h (limit 14.4); "
        "20.66k bad events in 1h, 25.01% of all.\n"
        "Many people fail: 20.66k bad events in 1h, 25.01% of all (limit 0.144% and 50 events).\n"
        "352.7% of the error budget of 30 days went in 1h; -6.068e+04% was left some minutes ago."
    )
    assert page.annotations["summary"] == "shop/availability spends its error budget far too fast."
    assert page.labels["severity"] == page.labels["sloth_severity"] == "page"


def test_the_text_says_which_way_is_right(tmp_path: Path) -> None:
    """At night only that many people fail; the budget of the month is nearly whole."""
    series = traffic(DAY_TRAFFIC, Stretch(70 * MINUTE, 0.5), Stretch(5 * MINUTE, 0.5, 1.0))
    moment = OUTAGE_BEGINS + 150 * SECOND
    seen = play(tmp_path, promise(), series, [], texts=[(PAGE, moment)])
    (page,) = seen.texts(PAGE, moment)
    first, last = page.annotations["description"].split("\n")
    assert first == "Many people fail: 75 bad events in 1h, 4.181% of all (limit 0.144% and 50 events)."
    assert ", gone in " in last


def _last(values: list[Value]) -> float:
    assert isinstance(values[-1], float)
    return values[-1]
