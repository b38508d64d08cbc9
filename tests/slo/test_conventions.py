"""Derived names, numbers and durations: exactly as Prometheus, Python's client and Sloth write them."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

import promql_parser
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.utils import floatToGoString

from slo import Severity
from slo import conventions as names
from slo.definitions import redemption
from slo.windows import DAY, HOUR, MINUTE
from tests.alerts.every_kind import promise


@pytest.mark.parametrize(
    ("length", "text"),
    [
        (timedelta(milliseconds=1), "1ms"),
        (timedelta(milliseconds=500), "500ms"),
        (timedelta(seconds=5), "5s"),
        (timedelta(seconds=90), "1m30s"),
        (90 * MINUTE, "1h30m"),
        (36 * HOUR, "1d12h"),
        (24 * HOUR, "1d"),
        (7 * DAY, "1w"),
        (8 * DAY, "8d"),
        (28 * DAY, "4w"),
        (30 * DAY, "30d"),
        (364 * DAY, "52w"),
        (365 * DAY, "1y"),
        (366 * DAY, "366d"),
        (730 * DAY, "2y"),
        (7 * DAY + timedelta(seconds=1), "7d1s"),
    ],
)
def test_durations_read_as_prometheus_prints_them(length: timedelta, text: str) -> None:
    """Sloth names series with Prometheus' own printer; 28 days are 4w there, and 30 days are 30d."""
    assert names.duration(length) == text


@given(st.timedeltas(timedelta(milliseconds=1), timedelta(days=3660)))
def test_a_duration_reads_back_as_what_was_written(length: timedelta) -> None:
    """An independent parser and printer of Prometheus durations agree, to the millisecond that Prometheus keeps."""
    whole = timedelta(milliseconds=length // timedelta(milliseconds=1))
    text = names.duration(length)
    assert promql_parser.parse_duration(text) == whole
    assert promql_parser.display_duration(whole) == text


@pytest.mark.parametrize("length", [timedelta(0), timedelta(seconds=-1), timedelta(microseconds=999)])
def test_a_duration_of_nothing_is_refused(length: timedelta) -> None:
    """`[0s]` is no PromQL; policies that are scaled too far say so here."""
    with pytest.raises(ValueError, match="a PromQL duration must be positive"):
        names.duration(length)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (Decimal("0.9999"), "0.9999"),
        (Decimal("99.990"), "99.99"),
        (Decimal("14.4"), "14.4"),
        (Decimal(100), "100"),
        (Decimal("1E+2"), "100"),
        (Decimal("1E-9"), "0.000000001"),
        (Decimal("2.8") / 3, "0.933333333333333"),
        (Decimal("-1.50"), "-1.5"),
        (0.1 + 0.2, "0.3"),
        (1e-7, "0.0000001"),
        (1e21, "1000000000000000000000"),
        (300.0, "300"),
        (0, "0"),
    ],
)
def test_numbers_have_plain_digits(value: Decimal | float, text: str) -> None:
    """A rule reads 0.9999, never 0.9998999999 and never 1E-9."""
    assert names.number(value) == text


@given(st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**12), max_value=10**12, places=9))
def test_a_number_is_what_was_written_as_far_as_a_float_can_tell(value: Decimal) -> None:
    """PromQL has floats only; the text is exact up to 15 digits, and has no exponent and no needless zero."""
    text = names.number(value)
    assert "e" not in text.lower()
    assert float(text) == pytest.approx(float(value), rel=1e-14, abs=0)
    if len(value.as_tuple().digits) <= 15:
        assert Decimal(text) == value
    assert not ("." in text and text.endswith(("0", ".")))


@pytest.mark.parametrize(("edge", "text"), [(1, "1.0"), (0.25, "0.25"), (10.0, "10.0"), (0.005, "0.005")])
def test_a_bucket_edge_has_its_point(edge: float, text: str) -> None:
    """`le="1"` never matches the `le="1.0"` that Python exposes."""
    assert names.le(edge) == text


@given(st.floats(min_value=0, max_value=1e6, exclude_min=True, exclude_max=True))
def test_a_bucket_edge_is_what_pythons_client_exposes(edge: float) -> None:
    """For every edge that a histogram may declare, ours is the client's text."""
    assert names.le(edge) == floatToGoString(edge)  # type: ignore[no-untyped-call]


def test_series_have_sloths_names() -> None:
    """Boards and habits built on Sloth keep working: its names, letter by letter."""
    assert {
        names.SLI_ERROR,
        names.OBJECTIVE,
        names.ERROR_BUDGET,
        names.TIME_PERIOD,
        names.CURRENT_BURN_RATE,
        names.PERIOD_BURN_RATE,
        names.ERROR_BUDGET_REMAINING,
        names.INFO,
    } == {
        "slo:sli_error:ratio_rate",
        "slo:objective:ratio",
        "slo:error_budget:ratio",
        "slo:time_period:days",
        "slo:current_burn_rate:ratio",
        "slo:period_burn_rate:ratio",
        "slo:period_error_budget_remaining:ratio",
        "sloth_slo_info",
    }
    assert names.identity_labels(redemption.availability) == {
        "sloth_id": "redemption-availability",
        "sloth_service": "redemption",
        "sloth_slo": "availability",
    }
    assert names.info_labels(redemption.availability) == {
        "sloth_mode": "cli-gen-prom",
        "sloth_objective": "99.99",
        "sloth_spec": "prometheus/v1",
        "sloth_version": "slo-platform",
    }


def test_the_coarse_recording_says_both_lengths() -> None:
    """`avg5m` of a `rate5m`: what it is a mean of, and over how long."""
    assert names.coarse(names.BAD_EVENTS, 5 * MINUTE, 5 * MINUTE) == "slo:bad_events:avg5m_rate5m"


@pytest.mark.parametrize(
    ("text", "camel"),
    [
        ("redemption-availability", "RedemptionAvailability"),
        ("latency_slow.v2", "LatencySlowV2"),
        ("httpAPI", "HttpAPI"),
        ("a--b", "AB"),
    ],
)
def test_names_become_camel_case(text: str, camel: str) -> None:
    """Every separator that an id may have ends a word, and capitals stay."""
    assert names.camel_case(text) == camel


def test_every_alert_has_a_name_of_its_own() -> None:
    """Unlike in Sloth, a page and a ticket can be told apart by name; a name of the author's replaces the stem."""
    slo = redemption.latency_fast
    assert names.alert_name(slo, Severity.PAGE) == "RedemptionLatencyFastPage"
    assert names.alert_name(slo, Severity.TICKET) == "RedemptionLatencyFastTicket"
    assert names.absent_alert_name(slo) == "RedemptionLatencyFastAbsent"
    named = promise("any", alert_name="ShopBurns")
    assert names.alert_name(named, Severity.PAGE) == "ShopBurnsPage"
    assert names.absent_alert_name(named) == "ShopBurnsAbsent"


def test_groups_and_files_are_named_after_the_slo_and_the_alert() -> None:
    """Two groups an SLO, and one runbook an alert."""
    assert names.group_name(redemption.availability) == "slo-redemption-availability"
    assert names.coarse_group_name(redemption.availability) == "slo-redemption-availability-coarse"
    assert names.runbook_file("ShopBurnsPage") == "ShopBurnsPage.md"
