"""What is drawn on a board is what alerts judge: the limits of causes and promises, none of them typed again."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from dashboards import panels
from dashboards.charts import Chart, Drawing
from dashboards.limits import Limit, judged, limits_of, steps, steps_of_states
from dashboards.render import render
from slo import conventions as names
from slo.causes import Cause, Query, Threshold
from slo.metrics.edge import ALB_REQUESTS
from slo.metrics.exporters import EXPORTERS_UP
from slo.metrics.queue import SQS_MESSAGES_VISIBLE
from slo.metrics.rds import RDS_REPLICA_LAG
from slo.model import Latency, TimeSlice
from tests.dashboards.conftest import ALL_OURS, LINKS, OURS, Generated, generate, panels_of

_BOARDS = generate(ALL_OURS, OURS).boards
_CAUSES = {cause.id: cause for cause in OURS.causes}
_CAUSE = OURS.causes[0]


def _steps(panel: dict[str, Any]) -> set[float]:
    """The values at which a panel's colours change."""
    return {step["value"] for step in panel["fieldConfig"]["defaults"]["thresholds"]["steps"][1:]}


def _panels_with_runbook(cause: Cause) -> list[dict[str, Any]]:
    """The panels that lead to the cause's runbook: on the board of its component, or on that of the exporters."""
    of_exporters = cause.condition.metrics == (EXPORTERS_UP,)
    board = _BOARDS[names.PLATFORM_UID if of_exporters else names.component_uid(cause.component)]
    title = f"Runbook of {cause.alert_name}"
    return [
        panel
        for panel in panels_of(board)
        for link in panel["fieldConfig"]["defaults"].get("links", [])
        if link["title"] == title and link["url"] == f"{LINKS.runbooks}/{names.runbook_file(cause.alert_name)}"
    ]


@pytest.mark.parametrize("cause", OURS.causes, ids=lambda one: one.id)
def test_every_cause_is_drawn_with_its_limit(cause: Cause) -> None:
    """The metric or the query that a cause judges has a panel, with the alert's limit and its runbook."""
    shown = _panels_with_runbook(cause)
    assert shown
    for panel in shown:
        match cause.condition:
            case Threshold(gauge=gauge, above=above, below=below):
                limit = above if above is not None else below
                assert limit is not None
                drawn = float(limit)
                # A bar is 0 or 1, and Grafana colours the value of a step itself: above 0 is 1.
                if panel["type"] == "state-timeline" and above is not None:
                    drawn += 1
                assert drawn in _steps(panel)
                assert any(gauge.metric.name in target["expr"] for target in panel["targets"])
            case Query() as query:
                found = judged(query)
                assert panel["targets"][0]["expr"] == found.figure
                if isinstance(found.limit, Decimal):
                    assert _steps(panel) == {float(found.limit)}
                else:
                    assert panel["targets"][1]["expr"] == found.limit
        assert cause.alert_name in panel["description"]


@pytest.mark.parametrize(
    "compiled",
    [one for one in ALL_OURS if isinstance(one.slo.sli, TimeSlice | Latency) and one.slo.component],
    ids=lambda one: one.slo.id,
)
def test_what_is_bad_for_a_promise_is_drawn_in_red(compiled: Any) -> None:  # noqa: ANN401 - a CompiledSlo
    """A promise of a gauge or of a duration has its limit in the panel of its metric, and that leads to its board."""
    assert compiled.slo.component is not None
    board = _BOARDS[names.component_uid(compiled.slo.component)]
    title = f"Promise {compiled.slo.id_path}"
    shown = [
        panel
        for panel in panels_of(board)
        if any(link["title"] == title for link in panel["fieldConfig"]["defaults"].get("links", []))
    ]
    assert shown
    colours = {
        step["color"]
        for panel in shown
        if panel["type"] != "heatmap"
        for step in panel["fieldConfig"]["defaults"]["thresholds"]["steps"]
    }
    assert panels.BAD in colours


# --- colours ----------------------------------------------------------------------------------------------------------


def _limit(value: str, *, above: bool) -> Limit:
    return Limit(value=Decimal(value), above=above, of=_CAUSE)


def test_a_value_between_two_limits_is_good() -> None:
    """A lag is wrong above 60 and below 0, where the replication is broken."""
    limits = limits_of(RDS_REPLICA_LAG.where(), OURS)
    assert list(steps(limits)) == [(panels.WARN, None), (panels.GOOD, 0), (panels.WARN, 60)]


def test_without_limits_nothing_is_judged() -> None:
    """What nobody judges has no colour, rather than a green that nobody vouches for."""
    assert steps([]) == panels.NO_STEPS


def test_limits_of_the_same_side_are_one_colour_from_the_first_on() -> None:
    """Two limits of causes make one step, at the lower one."""
    assert list(steps([_limit("5", above=True), _limit("2", above=True)])) == [(panels.GOOD, None), (panels.WARN, 2)]


def test_a_state_is_bad_where_it_is_true_not_where_it_is_not() -> None:
    """Above 0 is wrong, so of a bar 1 is coloured and 0 is not; below 1 is wrong, so 0 is."""
    assert list(steps_of_states([_limit("0", above=True)])) == [(panels.GOOD, None), (panels.WARN, 1)]
    assert list(steps_of_states([_limit("1", above=False)])) == [(panels.WARN, None), (panels.GOOD, 1)]


def test_a_limit_is_drawn_only_where_it_holds_for_all_that_is_shown() -> None:
    """More than no dead letter is wrong, more than no message is not: a panel of both has no such line."""
    assert limits_of(SQS_MESSAGES_VISIBLE.where(role="dead_letter"), OURS)
    assert limits_of(SQS_MESSAGES_VISIBLE.where(), OURS) == []


# --- queries of causes ------------------------------------------------------------------------------------------------


def _query(promql: str) -> Query:
    example = {"alb_requests_total": "1"}
    return Query(promql=promql, metrics=(ALB_REQUESTS,), fires=example, near_miss=example)


@pytest.mark.parametrize(
    ("promql", "figure", "limit", "above", "more"),
    [
        ("a / b > 0.9", "a / b", Decimal("0.9"), True, ""),
        ("sum by (x) (rate(a[5m] > 1)) == 0", "sum by (x) (rate(a[5m] > 1))", Decimal(0), False, ""),
        ('a{b="x > y"} < 1\nunless on (b)\nc', 'a{b="x > y"}', Decimal(1), False, "unless on (b) c"),
        ("a\n> on (b) group_left\n2 * avg by (b) (c)\nand\nd > 1", "a", "2 * avg by (b) (c)", True, "and d > 1"),
        ("a >= max_over_time(b[1h] > 2)", "a", "max_over_time(b[1h] > 2)", True, ""),
    ],
)
def test_a_query_is_taken_apart_at_its_first_comparison(
    promql: str,
    figure: str,
    limit: Decimal | str,
    above: bool,  # noqa: FBT001 - of the table above
    more: str,
) -> None:
    """What is inside of brackets and texts compares nothing for the whole; what else must hold is told in words."""
    found = judged(_query(promql))
    assert (found.figure, found.limit, found.above, found.more) == (figure, limit, above, more)


def test_a_query_that_compares_nothing_is_refused() -> None:
    """There would be no limit to draw."""
    with pytest.raises(ValueError, match="compares nothing: up"):
        judged(_query("up"))


# --- from a metric to a panel -----------------------------------------------------------------------------------------


def test_all_but_the_title_follows_from_the_metric() -> None:
    """Unit, description, query and step of a chart come from the catalogue."""
    panel = Drawing(defined=OURS, links=LINKS).panel(Chart("Lag", RDS_REPLICA_LAG))
    assert panel.unit == panels.SECONDS
    assert panel.description.startswith(RDS_REPLICA_LAG.help)
    assert "RdsReplicaBehind fires above 60 for 10m." in panel.description
    (target,) = panel.targets
    assert (target.expr, target.interval) == (RDS_REPLICA_LAG.name, "1m")  # CloudWatch has one value a minute


def test_a_time_is_shown_as_how_long_ago_it_was() -> None:
    """A gauge of a time is no number to look at; 0 stands for never, and has no age."""
    verified = next(panel for panel in panels_of(_BOARDS["component-service"]) if panel["title"] == "Last verification")
    (target,) = verified["targets"]
    assert "time() - (redemption_ledger_verified_timestamp_seconds" in target["expr"]
    assert "> 0)" in target["expr"]
    assert verified["fieldConfig"]["defaults"]["unit"] == panels.SECONDS


def test_latencies_of_the_service_have_exemplars() -> None:
    """The slowest of a hundred and the spread of redemptions ask for traces, to which a click leads."""
    board = _BOARDS[names.component_uid("service")]
    asking = {panel["title"] for panel in panels_of(board) for one in panel["targets"] if one.get("exemplar")}
    assert {"Redemptions", "Spread of redemptions"} <= asking


def test_every_panel_of_the_service_leads_to_traces_and_logs() -> None:
    """From any curve of the service, the traces and the log lines of that time are one click away."""
    board = _BOARDS[names.component_uid("service")]
    for panel in panels_of(board):
        if panel["type"] != "table":
            links = {link["title"]: link["url"] for link in panel["fieldConfig"]["defaults"]["links"]}
            assert "${__from" in links["Traces of this time"]
            assert links["Logs of this time"].startswith(LINKS.logs)


def test_the_boards_of_components_follow_from_the_sources() -> None:
    """Without sources nothing can be shown, so there is the board of promises only, and that of Prometheus itself."""
    found = Generated(ALL_OURS, render(ALL_OURS, LINKS)).boards
    assert set(found) == {names.OVERVIEW_UID, names.DETAIL_UID, names.PLATFORM_UID}
