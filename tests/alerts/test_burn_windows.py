"""The arithmetic behind the windows: against the exact counts of the raw series, in the same promtool."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from slo import Alert, Rolling, Severity, compile_slo
from slo.windows import policy
from tests.alerts.rules_bench import (
    FIRING,
    HOUR,
    MINUTE,
    PAGE,
    SCRAPE,
    TICKET,
    Stretch,
    asks,
    play,
    shop,
    times,
    traffic,
)

pytestmark = pytest.mark.e2e

EVERY_SERIES = '{__name__=~"slo:.+|sloth_slo_info"}'
EXACT_RATIO = "sum(rate(shop_requests_total{code='error'}[WINDOW])) / sum(rate(shop_requests_total[WINDOW]))"


@pytest.mark.parametrize(("window", "minutes"), [("30m", 25), ("1h", 55)])
def test_windows_are_exact_once_a_change_is_five_minutes_old(tmp_path: Path, window: str, minutes: int) -> None:
    """Traffic jumps twentyfold and a tenth fails: from five minutes on the ratio is that of the raw counts.

    Before that it is never more than 30 % off; a mean of 5-minute rates alone would be 64 % off.
    """
    jump = 90 * MINUTE
    stretches = Stretch(jump, 10, 0.001), Stretch(20 * MINUTE, 200, 0.1), Stretch(40 * MINUTE, 10, 0.001)
    # A long-lived process: rate() extrapolates fully to the begin of a window.
    series = {name: [1e6 + float(v or 0) for v in values] for name, values in traffic(*stretches).items()}
    ours, exact = f"slo:sli_error:ratio_rate{window}", EXACT_RATIO.replace("WINDOW", window)
    ends = jump + stretches[1].length
    moments = list(times(jump, jump + minutes * MINUTE, MINUTE))
    seen = play(tmp_path, shop(), series, asks([ours, exact], moments))
    for moment in moments:
        fresh = any(change < moment < change + 5 * MINUTE for change in (jump, ends))
        off = 0.3 if fresh else 0.02
        assert seen.number(ours, moment) == pytest.approx(seen.number(exact, moment), rel=off), f"at {moment}"


@pytest.mark.parametrize("seconds", [30, 60, 150, 300])
def test_a_burst_weighs_at_most_a_little_too_much(tmp_path: Path, seconds: int) -> None:
    """A full outage of a minute may count as one and a half for a while; never more than 42 seconds of it too much."""
    burst = Stretch(SCRAPE * (seconds // 30), 10, 1.0)
    series = traffic(Stretch(HOUR, 10, 0.001), burst, Stretch(20 * MINUTE, 10))
    series = {name: [1e6 + float(v or 0) for v in values] for name, values in series.items()}
    moments = list(times(HOUR, HOUR + 15 * MINUTE, SCRAPE))
    counted = "slo:bad_events:rate1h * 3600"
    seen = play(tmp_path, shop(), series, asks(counted, moments))
    most = max(seen.number(counted, moment) for moment in moments)
    assert burst.events <= most <= burst.events + 42 * burst.rate + 40


def test_fine_and_coarse_windows_agree(tmp_path: Path) -> None:
    """Six hours of rising and falling traffic read the same from the fine and from the coarse recording."""
    hours = [Stretch(HOUR / 2, 20 + 15 * math.sin(half / 2), 0.001 * (1 + half % 3)) for half in range(12)]
    coarse = "{0}(slo:{1}_events:avg5m_rate5m[5h]) "
    bad, all_events = (coarse.format("avg_over_time", kind) for kind in ("bad", "all"))
    fine = [f"avg_over_time(slo:{kind}_events:rate5m[5h])" for kind in ("bad", "all")]
    end = 6 * HOUR
    seen = play(tmp_path, shop(), traffic(*hours), asks([bad, all_events, *fine], end))
    assert seen.number(bad, end) == pytest.approx(seen.number(fine[0], end), rel=0.01)
    assert seen.number(all_events, end) == pytest.approx(seen.number(fine[1], end), rel=0.01)


def test_alerts_do_not_flap_at_the_coarse_recordings_pace(tmp_path: Path) -> None:
    """A burn that slowly passes each factor starts each alert once, and both stay on while it lasts."""
    series = traffic(Stretch(10 * MINUTE, 10), Stretch(2 * HOUR, 10, 0.007))
    moments = list(times(10 * MINUTE, 130 * MINUTE, SCRAPE))
    seen = play(tmp_path, shop(), series, asks(FIRING, moments))
    for alert in (PAGE, TICKET):
        states = [alert in seen.firing(moment) for moment in moments]
        assert states[-1]
        assert sum(before != after for before, after in pairwise(states)) == 1


def test_no_rule_has_two_results(tmp_path: Path) -> None:
    """Through silence, an outage, a gap and a sale, every series has one value, and every alert one instance."""
    series = traffic(
        Stretch(20 * MINUTE, 10),
        Stretch(10 * MINUTE, 10, 1.0),
        Stretch(20 * MINUTE, 0),
        Stretch(10 * MINUTE, 2000, 0.2),
        Stretch(30 * MINUTE, 0.1, 0.5),
    )
    for values in series.values():
        values[100:112] = ["stale", *[None] * 11]
    moments = list(times(MINUTE, 90 * MINUTE, MINUTE))
    seen = play(tmp_path, shop(), series, asks([EVERY_SERIES, FIRING], moments), every=MINUTE)
    for moment in moments:
        recorded = [labels["__name__"] for labels, _ in seen.series(EVERY_SERIES, moment)]
        assert len(recorded) == len(set(recorded)), f"at {moment}"
        assert len(seen.firing(moment)) == len(set(seen.firing(moment)))
    assert any(PAGE in seen.firing(moment) for moment in moments)


def test_scaled_windows_run_too(tmp_path: Path) -> None:
    """The same rules with every duration a sixtieth, as in a demonstration, page for the same outage as fast."""
    small = policy(Rolling(days=30)).scaled(60)
    scrape = small.evaluation_interval
    series = traffic(Stretch(3 * MINUTE, 600), Stretch(MINUTE, 600, 0.1), scrape=scrape)
    moments = list(times(3 * MINUTE, 4 * MINUTE, scrape))
    fast = compile_slo(shop(alerts=(Alert(Severity.PAGE),)), replace(small, pairs=small.pairs[:1]))
    seen = play(tmp_path, fast, series, asks(FIRING, moments), scrape=scrape, every=scrape)
    paged = next(moment for moment in moments if PAGE in seen.firing(moment))
    assert (paged - 3 * MINUTE) * 60 == pytest.approx(9 * MINUTE, abs=MINUTE)
