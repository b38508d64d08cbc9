"""The promises about the ledger itself: a mismatch pages at once, a check that nobody makes is a ticket."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from slo import Slo, compile_slo
from slo.definitions.redemption import capture_and_refund, integrity, latency_fast, sealing, verification
from slo.metrics import FOLLOW_UP_ROUTES
from tests.alerts.rules_bench import DAY, FIRING, HOUR, MINUTE, SCRAPE, SECOND, Value, asks, play, times

pytestmark = pytest.mark.e2e

QUIET = 2 * HOUR
BALANCES, CHAIN = (f'redemption_ledger_mismatches{{check="{check}"}}' for check in ("balances", "chain"))
VERIFIED, SEALED = "redemption_ledger_verified_timestamp_seconds", "redemption_chain_sealed_timestamp_seconds"
PAGE = "RedemptionIntegrityPage"


def steady(value: Value, length: timedelta, scrape: timedelta = SCRAPE) -> list[Value]:
    """A gauge that stays."""
    return [value] * (length // scrape)


def clock(begin: timedelta, end: timedelta, scrape: timedelta) -> list[Value]:
    """A gauge that says "now" at every scrape."""
    return [moment.total_seconds() for moment in times(begin, end - scrape, scrape)]


# --- integrity --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("late", [timedelta(0), SCRAPE], ids=["at a full minute", "half a minute later"])
def test_one_mismatch_of_any_check_pages_within_90_seconds(tmp_path: Path, late: timedelta) -> None:
    """Of millions of rows one is wrong, in one check of seven; wherever in a slice the scrape falls, it pages."""
    found = QUIET + late
    series = {BALANCES: steady(0, found + 5 * MINUTE), CHAIN: steady(0, found) + steady(1, 5 * MINUTE)}
    moments = list(times(found - MINUTE, found + 5 * MINUTE - SCRAPE, SCRAPE))
    seen = play(tmp_path, integrity, series, asks(FIRING, moments))
    first = next(moment for moment in moments if seen.firing(moment))
    assert found <= first <= found + 90 * SECOND
    assert all(seen.firing(moment) == [PAGE] for moment in moments if moment >= first)


def test_a_mismatch_of_a_single_scrape_pages_as_well(tmp_path: Path) -> None:
    """A worker that dies right after it found one has told it: one bad slice is over the budget of the month."""
    series = {CHAIN: [*steady(0, QUIET), 1, *steady(0, HOUR)]}
    moments = list(times(QUIET, QUIET + 10 * MINUTE, SCRAPE))
    seen = play(tmp_path, integrity, series, asks(FIRING, moments))
    assert [PAGE] in [seen.firing(moment) for moment in moments]


def test_it_is_silent_at_0_and_clears(tmp_path: Path) -> None:
    """Nobody is woken by a ledger that adds up; once it does again, the page ends within 36 minutes."""
    broken, mended = QUIET, QUIET + HOUR
    series = {CHAIN: steady(0, broken) + steady(3, mended - broken) + steady(0, 2 * HOUR)}
    before, after = times(MINUTE, broken - SCRAPE, MINUTE), times(mended + 36 * MINUTE, mended + 2 * HOUR, MINUTE)
    silent = [*before, *after]
    seen = play(tmp_path, integrity, series, asks(FIRING, [*silent, mended]))
    assert seen.firing(mended) == [PAGE]
    assert {tuple(seen.firing(moment)) for moment in silent} == {()}


# --- verification and sealing -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("slo", "gauge", "allowed"), [(verification, VERIFIED, 30), (sealing, SEALED, 10)])
def test_a_check_that_was_never_made_is_a_ticket(tmp_path: Path, slo: Slo, gauge: str, allowed: int) -> None:
    """0 stands for never and is late from the beginning: a worker that cannot even do it once is told."""
    series = {gauge: steady(0, 4 * HOUR)}
    seen = play(tmp_path, slo, series, asks(FIRING, [allowed * MINUTE, 3 * HOUR]))
    assert seen.firing(allowed * MINUTE) == []  # promtool's 1970 is not so long ago yet
    assert seen.firing(3 * HOUR) == [compile_slo(slo).alerts[0].name]


def test_a_check_that_is_made_no_more_is_a_ticket(tmp_path: Path) -> None:
    """After three good days it stops: nothing in the time that is allowed, a ticket three quarters of an hour on."""
    stopped, scrape = 3 * DAY, 5 * MINUTE  # ages are whole multiples of the scrape here, so no sample is missed
    good = clock(timedelta(0), stopped, scrape)
    series = {VERIFIED: [*good, *steady(good[-1], 2 * HOUR, scrape)]}
    late = stopped - scrape + 30 * MINUTE
    moments = [stopped, late, late + 35 * MINUTE, late + 65 * MINUTE]
    seen = play(tmp_path, verification, series, asks(FIRING, moments), scrape=scrape, every=5 * MINUTE)
    assert [seen.firing(moment) for moment in moments] == [[], [], [], ["RedemptionVerificationTicket"]]


def test_of_two_workers_one_is_enough(tmp_path: Path) -> None:
    """The ledger is verified, whoever does it: a second worker that stands by is not late."""
    instances = [f'{VERIFIED}{{instance="{name}"}}' for name in ("a", "b")]
    series = dict(zip(instances, (clock(timedelta(0), 4 * HOUR, SCRAPE), steady(0, 4 * HOUR)), strict=True))
    seen = play(tmp_path, verification, series, asks(FIRING, 4 * HOUR - SCRAPE))
    assert seen.firing(4 * HOUR - SCRAPE) == []


# --- requests ---------------------------------------------------------------------------------------------------------


def test_captures_that_fail_page_while_nobody_else_notices(tmp_path: Path) -> None:
    """One in ten captures fails: their own promise tells, and it does not tell of what other routes do."""
    failing, fine = FOLLOW_UP_ROUTES[0], "POST /v1/redemptions"
    name = "redemption_requests_total"
    steps = 3 * HOUR // SCRAPE
    outage = [max(0, step - QUIET // SCRAPE) for step in range(steps)]
    series: dict[str, list[Value]] = {
        f'{name}{{route="{failing}", outcome="ok"}}': [30.0 * step for step in range(steps)],
        f'{name}{{route="{failing}", outcome="error"}}': [3.0 * step for step in outage],
        f'{name}{{route="{fine}", outcome="error"}}': [9.0 * step for step in range(steps)],
    }
    moments = [QUIET, QUIET + 10 * MINUTE]
    seen = play(tmp_path, capture_and_refund, series, asks(FIRING, moments))
    assert seen.firing(QUIET) == []
    assert "RedemptionCaptureAndRefundPage" in seen.firing(QUIET + 10 * MINUTE)


def test_a_flood_of_refusals_at_the_door_does_not_hide_slow_answers(tmp_path: Path) -> None:
    """Thousands of quick `limited` answers to one client leave the share of the slow among the others as it is."""
    base = "redemption_request_duration_seconds"
    steps = 2 * HOUR // SCRAPE
    grow = {"ok": (10.0, 5.0), "limited": (10_000.0, 10_000.0), "invalid": (10_000.0, 10_000.0)}
    series: dict[str, list[Value]] = {}
    for outcome, (every, fast) in grow.items():
        labels = f'route="POST /v1/redemptions", outcome="{outcome}"'
        series[f"{base}_count{{{labels}}}"] = [every * step for step in range(steps)]
        series[f'{base}_bucket{{{labels}, le="0.25"}}'] = [fast * step for step in range(steps)]
    ratio = compile_slo(latency_fast).named("slo:sli_error:ratio_rate", HOUR)
    seen = play(tmp_path, latency_fast, series, asks(ratio, 2 * HOUR - SCRAPE))
    assert seen.number(ratio, 2 * HOUR - SCRAPE) == pytest.approx(0.5)
