"""What every definition is compiled to, whatever it says. The rule mathematics itself is proven in tests/alerts."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

import promql_parser
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from slo import Alert, CalendarMonth, CompiledSlo, Events, Severity, Slo, compile_slo
from slo import conventions as names
from slo.compile import AlertKind, Reason
from slo.definitions import redemption
from slo.metrics import REDEMPTION_REQUESTS
from tests.alerts.every_kind import EVERY_KIND, promise
from tests.slo.strategies import slos

any_slo = given(slos())
patient = settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])

TEXT = re.compile(r'"(?:[^"\\]|\\.)*"')
EXPONENT = re.compile(r"(?<![\w:.])[0-9.]+[eE]")


def expressions(compiled: CompiledSlo) -> Iterator[str]:
    """Every expression that a rule of this SLO has."""
    for recording in (*compiled.recordings, *compiled.coarse_recordings):
        yield recording.expr
    for alert in compiled.alerts:
        yield alert.expr
        yield from (way.expr for way in alert.ways)


def series_in(expr: str) -> set[str]:
    """The names of the series that an expression reads."""
    found: set[str] = set()

    def visit(node: promql_parser.Expr) -> None:
        if isinstance(node, promql_parser.VectorSelector):
            found.add(node.name or "")

    promql_parser.walk(promql_parser.parse(expr), visit)
    return found


# --- of any SLO -------------------------------------------------------------------------------------------------------


@any_slo
@patient
def test_every_expression_is_promql(slo: Slo) -> None:
    """Whatever can be built compiles, and a PromQL parser takes every expression; also with its periods scaled."""
    compiled = compile_slo(slo)
    for expr in expressions(compiled):
        promql_parser.parse(expr)
    for expr in expressions(compile_slo(slo, compiled.policy.scaled(60))):
        promql_parser.parse(expr)


@any_slo
@patient
def test_no_series_is_recorded_twice(slo: Slo) -> None:
    """Two rules with one name would fight over each sample; and every rule carries the SLO's identity."""
    compiled = compile_slo(slo)
    rules = (*compiled.recordings, *compiled.coarse_recordings)
    assert [name for name, times in Counter(rule.record for rule in rules).items() if times > 1] == []
    for rule in rules:
        assert compiled.identity.items() <= dict(rule.labels).items()
        assert re.fullmatch(r"[a-z_]+(:[a-z0-9_]+){0,2}", rule.record)


@any_slo
@patient
def test_rules_of_a_group_read_what_is_above_them(slo: Slo) -> None:
    """A group runs in order: a rule that read one below it would see the last round's value."""
    compiled = compile_slo(slo)
    fine, coarse = ([rule.record for rule in group] for group in (compiled.recordings, compiled.coarse_recordings))
    for own, other, group in ((fine, coarse, compiled.recordings), (coarse, fine, compiled.coarse_recordings)):
        for place, rule in enumerate(group):
            recorded = {name for name in series_in(rule.expr) if name.startswith("slo:")}
            assert recorded <= {*own[:place], *other}, rule.record
    for alert in compiled.alerts:
        assert {name for name in series_in(alert.expr) if name.startswith("slo:")} <= {*fine, *coarse}


@any_slo
@patient
def test_raw_series_are_read_by_the_two_event_rates_and_the_absence_only(slo: Slo) -> None:
    """So an SLO costs the same whatever its period; every other rule reads recorded series."""
    compiled = compile_slo(slo)
    (all_events, bad_events, *others), burns = compiled.recordings, compiled.alerts[:-1]
    assert [all_events.record, bad_events.record] == ["slo:all_events:rate5m", "slo:bad_events:rate5m"]
    exprs = [rule.expr for rule in (*others, *compiled.coarse_recordings)] + [alert.expr for alert in burns]
    for expr in exprs:
        assert all(name.startswith("slo:") for name in series_in(expr)), expr
        assert set(re.findall(r'sloth_id="([^"]*)"', expr)) <= {slo.id}


@any_slo
@patient
def test_numbers_are_written_in_plain_digits(slo: Slo) -> None:
    """No exponent anywhere; objective and budget are exactly what the author wrote, together 1 to the last digit."""
    compiled = compile_slo(slo)
    for expr in expressions(compiled):
        assert not EXPONENT.search(TEXT.sub('""', expr)), expr
    vectors = {rule.record: rule.expr for rule in compiled.recordings}
    objective, budget = (
        Decimal(vectors[record].removeprefix("vector(").removesuffix(")"))
        for record in (names.OBJECTIVE, names.ERROR_BUDGET)
    )
    assert objective == slo.objective / 100
    assert objective + budget == 1


@any_slo
@patient
def test_every_alert_has_a_name_and_labels_to_route_by(slo: Slo) -> None:
    """Names differ within an SLO; severity, service, SLO and owner are always there, as inhibition needs them."""
    compiled = compile_slo(slo)
    assert len({alert.name for alert in compiled.alerts}) == len(compiled.alerts)
    for alert in compiled.alerts:
        labels = dict(alert.labels)
        assert labels["severity"] == labels["sloth_severity"] == alert.severity
        assert (labels["service"], labels["slo"]) == (slo.service, slo.name)
        assert labels["owner"]
        assert compiled.identity.items() <= labels.items()
    wanted = [alert.severity for alert in slo.alerts]
    if wanted:
        wanted.append(Severity.PAGE if Severity.PAGE in wanted else Severity.TICKET)
    assert [alert.severity for alert in compiled.alerts] == wanted


@given(slos(), st.integers(1, 1000))
@patient
def test_scaling_keeps_names_apart(slo: Slo, divisor: int) -> None:
    """A month in hours, or in minutes: windows shrink to milliseconds, and still no two series share a name."""
    policy = compile_slo(slo).policy
    compiled = compile_slo(slo, policy.scaled(divisor))
    records = [rule.record for rule in (*compiled.recordings, *compiled.coarse_recordings)]
    assert len(set(records)) == len(records)


# --- of ours ----------------------------------------------------------------------------------------------------------


def test_availability_has_these_rules() -> None:
    """The whole list, so that a rule that comes or goes is seen; the cost of an SLO is its length."""
    compiled = compile_slo(redemption.availability)
    windows = ("5m", "30m", "1h", "2h", "6h", "1d", "3d")
    assert [rule.record for rule in compiled.recordings] == [
        *(f"slo:{events}_events:rate{window}" for window in windows[:5] for events in ("all", "bad")),
        "slo:error_budget:rate",
        "slo:bad_events:increase1h",
        "slo:bad_events:increase6h",
        *(f"slo:sli_error:ratio_rate{window}" for window in (*windows, "30d")),
        *(f"slo:error_budget_burn:ratio_rate{window}" for window in windows),
        "slo:objective:ratio",
        "slo:error_budget:ratio",
        "slo:time_period:days",
        "slo:current_burn_rate:ratio",
        "slo:period_burn_rate:ratio",
        "slo:period_error_budget_remaining:ratio",
        "sloth_slo_info",
    ]
    assert [rule.record for rule in compiled.coarse_recordings] == [
        *(f"slo:all_events:{name}" for name in ("avg5m_rate5m", "rate1d", "rate3d", "rate30d")),
        *(f"slo:bad_events:{name}" for name in ("avg5m_rate5m", "rate1d", "rate3d", "rate30d")),
        "slo:bad_events:increase1d",
        "slo:bad_events:increase3d",
    ]


def test_the_number_of_rules_does_not_depend_on_the_labels() -> None:
    """One route or three, one outcome or six: the same rules, as labels are summed away."""
    wide = compile_slo(redemption.availability)
    narrow = compile_slo(
        replace(
            redemption.availability,
            sli=Events(
                bad=REDEMPTION_REQUESTS.where(outcome="error", route="POST /v1/redemptions"),
                all=REDEMPTION_REQUESTS.where(route="POST /v1/redemptions"),
            ),
        )
    )
    assert [rule.record for rule in wide.recordings] == [rule.record for rule in narrow.recordings]


def test_a_calendar_month_is_counted_from_the_first() -> None:
    """The budget is that of the month: its own two sums, its ratio, and a period of as many days as the month has."""
    compiled = compile_slo(replace(redemption.availability, window=CalendarMonth()))
    rules = {rule.record: rule.expr for rule in (*compiled.recordings, *compiled.coarse_recordings)}
    assert rules["slo:time_period:days"] == "days_in_month()"
    assert {name for name in rules if "_month" in name} == {
        "slo:sli_error:ratio_rate_month",
        "slo:all_events:avg5m_rate5m_month",
        "slo:all_events:rate_month",
        "slo:bad_events:avg5m_rate5m_month",
        "slo:bad_events:rate_month",
    }
    assert "slo:sli_error:ratio_rate_month" in rules["slo:period_burn_rate:ratio"]


def test_series_for_rules_carry_identity_only_and_series_for_people_all() -> None:
    """A series that rules read goes on when a label changes; those that people read carry owner, labels and window."""
    compiled = compile_slo(promise("any", labels={"tier": "1"}))
    identity = {"sloth_id": "shop-any", "sloth_service": "shop", "sloth_slo": "any"}
    everything = {**identity, "owner": "shop-team", "tier": "1"}
    for rule in (*compiled.recordings, *compiled.coarse_recordings):
        if rule.record.startswith(("slo:all_events", "slo:bad_events")) or rule.record == names.ERROR_BUDGET_RATE:
            assert rule.labels == identity, rule.record
        elif rule.record.startswith((names.SLI_ERROR, names.ERROR_BUDGET_BURN)):
            window = rule.record.rpartition("rate")[2]
            assert rule.labels == {**everything, "sloth_window": window}
        elif rule.record == names.INFO:
            assert rule.labels == {**everything, **names.info_labels(compiled.slo)}
        else:
            assert rule.labels == everything, rule.record


def test_alerts_are_a_page_a_ticket_and_an_absence() -> None:
    """The absence is as urgent as the gravest alert: blind to pages is worth a page."""
    compiled = compile_slo(redemption.availability)
    assert [(alert.name, alert.kind, alert.severity) for alert in compiled.alerts] == [
        ("RedemptionAvailabilityPage", AlertKind.BURN, Severity.PAGE),
        ("RedemptionAvailabilityTicket", AlertKind.BURN, Severity.TICKET),
        ("RedemptionAvailabilityAbsent", AlertKind.ABSENT, Severity.PAGE),
    ]
    page, ticket, absent = compiled.alerts
    assert [way.reason for way in page.ways] == [Reason.BUDGET, Reason.PEOPLE] * 2
    assert [way.reason for way in ticket.ways] == [Reason.BUDGET] * 2
    assert page.pairs + ticket.pairs == compiled.policy.pairs
    assert (page.hold, ticket.hold, absent.hold) == (timedelta(0), timedelta(0), timedelta(minutes=5))
    assert absent.ways == ()


def test_alerts_follow_what_the_definition_asks_for() -> None:
    """Nobody told: no alert, not even the absence. Only a ticket: the absence is one. Their order does not matter."""
    assert compile_slo(promise("any", alerts=())).alerts == ()
    ticket, absent = compile_slo(promise("any", alerts=(Alert(Severity.TICKET),))).alerts
    assert (ticket.severity, absent.severity) == (Severity.TICKET, Severity.TICKET)
    backwards = compile_slo(promise("any", alerts=(Alert(Severity.TICKET), Alert(Severity.PAGE)))).alerts
    assert backwards[-1].severity is Severity.PAGE


def test_the_classic_burn_has_one_way_a_pair() -> None:
    """`burn="ratio"` is what Sloth does: two pairs a severity, nothing else asked."""
    page, ticket, _ = compile_slo(promise("any", burn="ratio")).alerts
    assert [way.reason for way in (*page.ways, *ticket.ways)] == [Reason.RATIO] * 4
    assert "increase" not in page.expr


def test_an_alerts_own_labels_win_over_the_slos() -> None:
    """A ticket may belong to another queue than the SLO; what the rules set themselves always wins."""
    compiled = compile_slo(
        promise(
            "any",
            labels={"queue": "all", "tier": "1"},
            annotations={"call": "nobody", "wiki": "here"},
            alerts=(Alert(Severity.PAGE), Alert(Severity.TICKET, {"queue": "board"}, {"call": "the board"})),
        )
    )
    page, ticket, absent = compiled.alerts
    assert (page.labels["queue"], ticket.labels["queue"], absent.labels["queue"]) == ("all", "board", "all")
    assert ticket.labels["tier"] == "1"
    assert page.annotations == {"call": "nobody", "wiki": "here"}
    assert ticket.annotations == {"call": "the board", "wiki": "here"}


def test_scaling_shortens_the_hold_of_the_absence() -> None:
    """In a demonstration a month takes hours, and five minutes without data take seconds."""
    slo = promise("any", absent_after=timedelta(minutes=10))
    *_, absent = compile_slo(slo, compile_slo(slo).policy.scaled(60)).alerts
    assert absent.hold == timedelta(seconds=10)


def test_compiling_is_repeatable() -> None:
    """The same definition gives the same rules, text by text."""
    for slo in EVERY_KIND:
        one, other = compile_slo(slo), compile_slo(slo)
        assert one == other
        assert list(expressions(one)) == list(expressions(other))
