"""A definition that is wrong cannot be built: the message names the SLO, what is wrong, and what is allowed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import FrozenInstanceError, replace
from datetime import timedelta
from decimal import Decimal
from typing import Any, get_args

import pytest
from hypothesis import HealthCheck, given, settings

from slo import (
    Alert,
    CalendarMonth,
    Counter,
    Events,
    Freshness,
    Histogram,
    Latency,
    Queries,
    RatioQuery,
    Recency,
    Rolling,
    Severity,
    Slo,
    SloError,
    TimeSlice,
)
from slo.model import RESERVED_LABELS, Sli, period_text
from tests.alerts.every_kind import BUSY, DONE, DURATION, EVERY_KIND, OLDEST, REQUESTS, promise
from tests.slo.strategies import slos

SINCE = Histogram("shop_since_timestamp_seconds", "A wrong kind of metric.", buckets=(1.0,))
PAGE_ONLY = (Alert(Severity.PAGE),)
TICKET_ONLY = (Alert(Severity.TICKET),)


def faults(**changes: Any) -> tuple[str, ...]:  # noqa: ANN401 - any field of any type
    """What is wrong with a promise that differs from a sound one in these fields."""
    with pytest.raises(SloError) as raised:
        promise(changes.pop("name", "any"), **changes)
    assert all(line.startswith("SLO ") for line in str(raised.value).splitlines())
    return raised.value.problems


# --- objectives and periods -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("objective", ["0", "100", "-1", "100.1", "1E+3"])
def test_an_objective_of_nothing_or_everything_is_refused(objective: str) -> None:
    """0 % promises nothing, 100 % leaves no budget; both ends are refused, with what is allowed."""
    (problem,) = faults(objective=Decimal(objective))
    assert problem == (
        f"the objective {objective} % is not allowed; it must be above 0 and below 100, "
        "since a budget of nothing or of everything cannot be spent"
    )


@pytest.mark.parametrize(
    "objective", [99.9, 99, "99.9", None, Decimal("NaN"), Decimal("sNaN"), Decimal("Infinity"), Decimal("-Infinity")]
)
def test_an_objective_that_is_no_finite_decimal_is_refused(objective: object) -> None:
    """A float has lost digits before we see it, so even a sound one is refused, and the message shows how to write."""
    (problem,) = faults(objective=objective)
    assert problem == f"the objective {objective!r} must be a Decimal, Decimal('99.9') say, so that no digit is lost"


def test_an_objective_finer_than_promql_can_hold_is_refused() -> None:
    """A ratio with more than 15 decimals would be rounded in the rules, to an objective of 1 in the end."""
    (problem,) = faults(objective=Decimal("99.99999999999999"))
    assert problem == (
        "the objective 99.99999999999999 % is not allowed; use at most 13 decimals, as PromQL cannot hold more"
    )
    assert promise("any", objective=Decimal("99.9999999999999")).budget_ratio == Decimal("1e-15")
    assert promise("any", objective=Decimal("99.900000000000000000000")).budget_ratio == Decimal("0.001")


@given(slos())
@settings(max_examples=30, suppress_health_check=[HealthCheck.too_slow])
def test_objective_and_budget_are_one(slo: Slo) -> None:
    """No digit is lost: the two ratios add up to exactly 1, and neither is 0."""
    assert slo.objective_ratio + slo.budget_ratio == 1
    assert 0 < slo.budget_ratio < 1


def test_the_period_reads_as_people_say_it() -> None:
    """Messages, boards and lists share these words."""
    assert [period_text(window) for window in (Rolling(30), Rolling(1), CalendarMonth())] == [
        "30 days",
        "1 day",
        "calendar month (UTC)",
    ]


# --- thresholds that can never fire -----------------------------------------------------------------------------------


def test_a_page_that_can_never_fire_is_refused_with_the_arithmetic() -> None:
    """At 90 % a burn of 14.4 needs 144 % errors; the message shows that, and the two ways out."""
    (problem,) = faults(objective=Decimal(90))
    assert problem == (
        "the page over 1h can never fire: 14.4 x (1 - 90 %) = 1.44, and no error ratio is above 1; "
        "use an objective above 93.055556 %, or leave out the page"
    )
    assert promise("any", objective=Decimal(90), alerts=TICKET_ONLY).objective == 90
    assert promise("any", objective=Decimal("93.055556")).objective == Decimal("93.055556")


def test_a_threshold_of_exactly_everything_can_never_fire() -> None:
    """No ratio is *above* 1, so a threshold of 1 is refused as well: at 75 % over two days, say."""
    *_, slowest = faults(objective=Decimal(75), window=Rolling(2), alerts=PAGE_ONLY)
    assert slowest.startswith("the page over 6h can never fire: 4 x (1 - 75 %) = 1, and no error ratio is above 1")


def test_every_window_that_can_never_fire_is_named() -> None:
    """At 50 % the two pages and the first ticket are out of reach; all three are told at once."""
    problems = faults(objective=Decimal(50))
    assert [problem.split(" can never fire: ")[0] for problem in problems] == [
        "the page over 1h",
        "the page over 6h",
        "the ticket over 1d",
    ]
    assert [problem.split(": ")[1].split(",")[0] for problem in problems] == [
        "14.4 x (1 - 50 %) = 7.2",
        "6 x (1 - 50 %) = 3",
        "3 x (1 - 50 %) = 1.5",
    ]
    assert promise("any", objective=Decimal(50), alerts=()).alerts == ()


# --- what is counted --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("threshold", [0.9, 0, -1, math.nan, math.inf, 0.999999999])
def test_a_latency_between_bucket_edges_is_refused(threshold: float) -> None:
    """Between edges a histogram knows nothing; the message lists the edges that there are."""
    (problem,) = faults(sli=Latency(DURATION.where(), threshold_seconds=threshold))
    assert problem == (
        f"the threshold {threshold} s is no bucket edge of shop_duration_seconds; "
        "use one of 0.5, 1.0, 2.5, or add the edge to the metric"
    )


def test_a_whole_number_of_seconds_is_the_edge_with_a_point() -> None:
    """`threshold_seconds=1` is the edge 1.0."""
    assert promise("any", sli=Latency(DURATION.where(), threshold_seconds=1)).sli == Latency(DURATION.where(), 1.0)


@pytest.mark.parametrize(
    ("sli", "said"),
    [
        (Latency(REQUESTS.where(), 1.0), "shop_requests_total is a counter; this SLI needs a histogram"),
        (Events(BUSY.where(pool="read"), BUSY.where()), "shop_pool_busy_ratio is a gauge; this SLI needs a counter"),
        (TimeSlice(REQUESTS.where(), bad_above=Decimal(1)), "shop_requests_total is a counter; this SLI needs a gauge"),
        (Freshness(SINCE.where(), 300), "shop_since_timestamp_seconds is a histogram; this SLI needs a gauge"),
        (
            Events(bad=Counter("other_total", "Other.").where(), all=REQUESTS.where()),
            (
                "bad counts other_total and all counts shop_requests_total; one counter must count both, "
                "or a bad event may be missing from all"
            ),
        ),
        (
            Events(bad=REQUESTS.where(), all=REQUESTS.where()),
            "bad and all select the same series, so every event is bad; narrow bad with .where(...)",
        ),
        (
            Events(bad=REQUESTS.where(code=("ok", "error", "4.x")), all=REQUESTS.where()),
            "bad and all select the same series, so every event is bad; narrow bad with .where(...)",
        ),
        (
            Events(bad=REQUESTS.where(code="error"), all=REQUESTS.where(code="ok")),
            "bad selects code ['error'] that all leaves out; bad must be a part of all",
        ),
        (
            Events(bad=REQUESTS.where(), all=REQUESTS.where(code="ok")),
            "bad selects code ['4.x', 'error'] that all leaves out; bad must be a part of all",
        ),
        (TimeSlice(BUSY.where()), "a time slice needs exactly one of bad_above and bad_below"),
        (
            TimeSlice(BUSY.where(), bad_above=Decimal(1), bad_below=Decimal(0)),
            "a time slice needs exactly one of bad_above and bad_below",
        ),
        (
            TimeSlice(BUSY.where(), bad_above=Decimal("NaN")),
            "the limit NaN is no finite number, so no value could ever be beyond it",
        ),
        (
            TimeSlice(BUSY.where(), bad_below=Decimal("-Infinity")),
            "the limit -Infinity is no finite number, so no value could ever be beyond it",
        ),
        (
            TimeSlice(BUSY.where(), bad_above=Decimal(1), slice_seconds=7),
            "a slice of 7 s does not divide the shortest window of 300 s; use 30, 60 or 300",
        ),
        (
            Freshness(OLDEST.where(), 300, slice_seconds=0),
            "a slice of 0 s does not divide the shortest window of 300 s; use 30, 60 or 300",
        ),
        (
            Freshness(OLDEST.where(), 300, slice_seconds=600),
            "a slice of 600 s does not divide the shortest window of 300 s; use 30, 60 or 300",
        ),
        (Freshness(OLDEST.where(), 0), "the maximum age is 0 s; it must be at least 1 s"),
        (
            Freshness(BUSY.where(), 300),
            "shop_pool_busy_ratio is no Unix time; freshness reads a gauge named *_timestamp_seconds",
        ),
        (Recency(SINCE.where(), 300), "shop_since_timestamp_seconds is a histogram; this SLI needs a gauge"),
        (
            Recency(DONE.where(), 300, slice_seconds=7),
            "a slice of 7 s does not divide the shortest window of 300 s; use 30, 60 or 300",
        ),
        (Recency(DONE.where(), 0), "the maximum age is 0 s; it must be at least 1 s"),
        (
            Recency(BUSY.where(), 300),
            "shop_pool_busy_ratio is no Unix time; recency reads a gauge named *_timestamp_seconds",
        ),
        (
            Queries(bad="rate(a[5m])", all="rate(b[{{.window}}])"),
            "the bad query has no {{.window}}; write it where the range goes, as in rate(x[{{.window}}])",
        ),
        (
            Queries(bad="rate(a[{{.window}}])", all="rate(a[{{.window}}])"),
            "the bad and the all query are the same, so every event is bad",
        ),
    ],
)
def test_an_sli_that_counts_wrongly_is_refused(sli: object, said: str) -> None:
    """One fault, one sentence: what is wrong with what is counted, and what would be right."""
    assert faults(sli=sli) == (said,)


def test_a_ratio_query_needs_the_classic_burn() -> None:
    """A ratio does not say how many events it stands for, so its budget cannot be counted in events."""
    ratio = RatioQuery("avg_over_time(x[{{ .window }}])")
    assert faults(sli=ratio, burn="budget") == (
        "a ratio query does not say how many events it stands for; it needs burn='ratio'",
    )
    assert promise("any", sli=ratio, burn="ratio").burn == "ratio"
    assert faults(sli=RatioQuery("x"), burn="ratio") == (
        "the ratio query has no {{.window}}; write it where the range goes, as in rate(x[{{.window}}])",
    )


# --- names, texts, labels, alerts -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["", "a", "-ab", "ab-", "a b", "a/b", "ä1b", "..", "../x"])
def test_a_name_that_is_no_part_of_an_id_is_refused(name: str) -> None:
    """Names end up in ids, files and labels: letters, digits, dash, underscore and dot, as in Sloth."""
    allowed = "is not allowed; two or more letters, digits, '-', '_' or '.', with a letter or digit at both ends"
    assert faults(name=name) == (f"the name {name!r} {allowed}",)
    assert faults(service=name) == (f"the service {name!r} {allowed}",)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"description": " \n"}, "the description is empty; say what is promised"),
        ({"owner": ""}, "the owner is empty; say who answers for it"),
        ({"burn": "slow"}, "burn='slow' is not allowed; use 'budget' or 'ratio'"),
        ({"alert_name": "Shop-Burns"}, "the alert name 'Shop-Burns' is not allowed; letters, digits and _"),
        ({"alert_name": ""}, "the alert name '' is not allowed; letters, digits and _"),
        ({"budget_bad_events_min": 0}, "a minimum of bad events is below 1; an alert needs at least one"),
        ({"people_bad_events_min": 0}, "a minimum of bad events is below 1; an alert needs at least one"),
        (
            {"absent_after": timedelta(seconds=59)},
            "absent_after is 0:00:59; under a minute a single missed scrape would alert",
        ),
        (
            {"alerts": PAGE_ONLY + PAGE_ONLY},
            "two alerts have the same severity; give at most one page and one ticket",
        ),
        ({"labels": {"a-b": "1"}}, "the labels name 'a-b'; a label is letters, digits and _, not beginning with __"),
        ({"labels": {"__a": "1"}}, "the labels name '__a'; a label is letters, digits and _, not beginning with __"),
        ({"labels": {"tier": 1}}, "the labels give 'tier' the value 1; a label's value is text"),
        ({"labels": {"owner": "me"}}, "the labels set 'owner', which is a field of its own; use owner=..."),
    ],
)
def test_a_field_that_is_wrong_is_refused(changes: Mapping[str, Any], said: str) -> None:
    """One fault, one sentence: the field, what is wrong with it, and what is allowed."""
    assert faults(**changes) == (said,)


@pytest.mark.parametrize("traffic", [Decimal(0), Decimal(-1), Decimal("NaN"), Decimal("Infinity"), 27.0])
def test_traffic_that_is_no_finite_decimal_above_nothing_is_refused(traffic: object) -> None:
    """Arithmetic with the budget is in Decimal; a float or a NaN would only fail later, and elsewhere."""
    (problem,) = faults(expected_events_per_second=traffic)
    assert problem == (
        f"expected_events_per_second={traffic!r} must be a Decimal above 0, Decimal(27) say; "
        "leave it out when it is not known"
    )


@pytest.mark.parametrize("label", sorted(RESERVED_LABELS))
def test_labels_that_the_rules_set_cannot_be_set(label: str) -> None:
    """They would break the rules' own selectors in silence, on the SLO as on an alert."""
    assert faults(labels={label: "x"}) == (
        f"the labels set {label!r}, which the rules set themselves; choose another name",
    )
    assert faults(alerts=(Alert(Severity.TICKET, labels={label: "x"}),)) == (
        f"the ticket alert's labels set {label!r}, which the rules set themselves; choose another name",
    )


def test_every_label_that_the_rules_set_is_reserved() -> None:
    """Whatever label a rule of ours has, other than the owner's and the author's own, cannot be set by an author."""
    from slo import compile_slo  # noqa: PLC0415 - the only test here that compiles

    compiled = compile_slo(promise("any", window=CalendarMonth(), labels={"mine": "1"}))
    recorded = {label for rule in (*compiled.recordings, *compiled.coarse_recordings) for label in rule.labels}
    used = recorded | {label for alert in compiled.alerts for label in alert.labels}
    assert used - {"owner", "mine"} <= RESERVED_LABELS


def test_a_severity_is_no_text() -> None:
    """`Alert("page")` would compare equal to a page and never be found as one."""
    with pytest.raises(SloError, match=r"alert 'page': the severity must be Severity\.PAGE or Severity\.TICKET"):
        Alert("page")  # type: ignore[arg-type]


# --- all faults at once, and values that stay as they are -------------------------------------------------------------


def test_all_faults_of_an_slo_are_told_at_once() -> None:
    """One run names everything that is wrong, each on a line that names the SLO."""
    with pytest.raises(SloError) as raised:
        Slo(
            service="x",
            name="all wrong",
            description="",
            objective=Decimal(100),
            sli=Latency(DURATION.where(), threshold_seconds=0.7),
            owner="",
            window=Rolling(0),
            alerts=PAGE_ONLY + PAGE_ONLY,
            absent_after=timedelta(0),
            labels={"slo": "x"},
        )
    assert raised.value.subject == "SLO x/all wrong"
    beginnings = (
        "the service 'x'",
        "the name 'all wrong'",
        "the description",
        "the owner",
        "the labels set 'slo'",
        "two alerts",
        "absent_after",
        "the objective 100 %",
        "a window of 0 days",
        "the threshold 0.7 s",
    )
    assert len(raised.value.problems) == len(beginnings)
    for problem, beginning in zip(raised.value.problems, beginnings, strict=True):
        assert problem.startswith(beginning)
    assert str(raised.value).splitlines() == [f"SLO x/all wrong: {problem}" for problem in raised.value.problems]


def test_every_kind_can_be_built_by_itself() -> None:
    """The faults above are those of the changes, not of the sound promise that they start from."""
    assert {type(slo.sli) for slo in EVERY_KIND} == set(get_args(Sli))


def test_a_definition_cannot_be_changed() -> None:
    """What was checked stays as it was checked, also in its mappings, and the author's own dict has no part in it."""
    labels = {"tier": "1"}
    slo = promise("any", labels=labels)
    labels["tier"] = "2"
    assert slo.labels == {"tier": "1"}
    with pytest.raises(TypeError):
        slo.labels["tier"] = "3"  # type: ignore[index]
    with pytest.raises(FrozenInstanceError):
        slo.objective = Decimal(99)  # type: ignore[misc]
    with pytest.raises(TypeError):
        slo.alerts[0].labels["x"] = "y"  # type: ignore[index]


def test_a_changed_copy_is_checked_again() -> None:
    """`dataclasses.replace` is how a definition is varied; it cannot get past the checks."""
    slo = promise("any")
    assert replace(slo, objective=Decimal("99.5")).budget_ratio == Decimal("0.005")
    with pytest.raises(SloError, match="the objective 100 % is not allowed"):
        replace(slo, objective=Decimal(100))


def test_equal_definitions_are_equal_and_hashable() -> None:
    """Values, not objects: so definitions can be compared, and kept in sets."""
    one, other = promise("any", labels={"a": "1"}), promise("any", labels={"a": "1"})
    assert one == other
    assert len({one, other}) == 1
    assert one != promise("any", labels={"a": "2"})


def test_an_slo_has_an_id_for_machines_and_one_for_people() -> None:
    """`sloth_id` and what people type."""
    slo = promise("checkout")
    assert (slo.id, slo.id_path) == ("shop-checkout", "shop/checkout")
