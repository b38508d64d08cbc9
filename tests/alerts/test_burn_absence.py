"""The absence alert: says that an SLI has no data, and nothing else."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from tests.alerts.rules_bench import (
    ABSENT,
    ERROR,
    FIRING,
    HOUR,
    MINUTE,
    OK,
    SCRAPE,
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


def _gone(series: dict[str, list[Value]], begin: timedelta, end: timedelta) -> dict[str, list[Value]]:
    """The target disappears for a while; Prometheus knows, and marks its series stale."""
    first, last = begin // SCRAPE, end // SCRAPE
    return {name: [*v[:first], "stale", *[None] * (last - first - 1), *v[last:]] for name, v in series.items()}


def test_it_fires_when_the_series_are_gone(tmp_path: Path) -> None:
    """Five minutes after the last series went, not sooner; and it ends when they are back."""
    gone, back = 30 * MINUTE, 45 * MINUTE
    series = _gone(traffic(Stretch(HOUR, 10, 0.0005)), gone, back)
    moments = list(times(MINUTE, 59 * MINUTE, MINUTE))
    seen = play(tmp_path, shop(), series, asks(FIRING, moments))
    fired = [moment for moment in moments if ABSENT in seen.firing(moment)]
    assert fired == list(times(gone + 5 * MINUTE, back - MINUTE, MINUTE))


def test_it_fires_when_there_never_was_a_series(tmp_path: Path) -> None:
    """A metric that nobody exposes, a misspelt scrape job say, is told five minutes after the rules are loaded."""
    seen = play(tmp_path, shop(), {"up": [1.0] * 30}, asks(FIRING, [4 * MINUTE, 6 * MINUTE]))
    assert [seen.firing(4 * MINUTE), seen.firing(6 * MINUTE)] == [[], [ABSENT]]


def test_it_waits_as_long_as_the_definition_says(tmp_path: Path) -> None:
    """`absent_after` is the time that passes."""
    patient = shop(absent_after=20 * MINUTE)
    seen = play(tmp_path, patient, {"up": [1.0] * 60}, asks(FIRING, [19 * MINUTE, 21 * MINUTE]))
    assert [seen.firing(19 * MINUTE), seen.firing(21 * MINUTE)] == [[], [ABSENT]]


@pytest.mark.parametrize("with_error_series", [True, False])
def test_it_is_silent_when_there_was_no_error(tmp_path: Path, with_error_series: bool) -> None:  # noqa: FBT001 - a case
    """No error, an error series that does not even exist, and no request at all are no absence."""
    good, bad = counters(Stretch(20 * MINUTE, 10), Stretch(20 * MINUTE, 0))
    series = {OK: good, ERROR: bad} if with_error_series else {OK: good}
    moments = list(times(MINUTE, 40 * MINUTE, MINUTE))
    seen = play(tmp_path, shop(), series, asks(FIRING, moments))
    assert all(seen.firing(moment) == [] for moment in moments)


@pytest.mark.parametrize("away", [MINUTE, 2 * MINUTE, 4 * MINUTE])
def test_it_is_silent_at_a_deploy(tmp_path: Path, away: timedelta) -> None:
    """All pods replaced at once, with up to four minutes without any, alert nobody."""
    old = traffic(Stretch(30 * MINUTE, 10, 0.0005))
    new = traffic(Stretch(30 * MINUTE, 10, 0.0005))
    series: dict[str, list[Value]] = {}
    for (name, before), after in zip(old.items(), new.values(), strict=True):
        series[name.replace("{", '{pod="old", ')] = [*before, "stale"]
        series[name.replace("{", '{pod="new", ')] = [None] * (len(before) + away // SCRAPE) + after
    moments = list(times(MINUTE, HOUR, SCRAPE))
    seen = play(tmp_path, shop(), series, asks(FIRING, moments))
    assert all(seen.firing(moment) == [] for moment in moments)


def test_it_is_silent_while_one_pod_is_left(tmp_path: Path) -> None:
    """Two pods of three are gone for good: a matter for others, the SLI still has data."""
    series: dict[str, list[Value]] = {}
    for pod in range(3):
        for name, values in traffic(Stretch(HOUR, 10, 0.0005)).items():
            series[name.replace("{", f'{{pod="{pod}", ')] = values if pod == 0 else [*values[:60], "stale"]
    moments = list(times(MINUTE, HOUR, MINUTE))
    seen = play(tmp_path, shop(), series, asks(FIRING, moments))
    assert all(seen.firing(moment) == [] for moment in moments)


def test_a_failed_scrape_is_no_absence(tmp_path: Path) -> None:
    """Scrapes that time out for two minutes mark every series stale, and alert nobody."""
    series = _gone(traffic(Stretch(HOUR, 10, 0.0005)), 30 * MINUTE, 32 * MINUTE)
    moments = list(times(MINUTE, 59 * MINUTE, SCRAPE))
    seen = play(tmp_path, shop(), series, asks(FIRING, moments))
    assert all(seen.firing(moment) == [] for moment in moments)
