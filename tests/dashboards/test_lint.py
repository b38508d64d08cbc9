"""The rules of grafana/dashboard-linter v0.2.0 (docs/rules/), under their own ids, for every board.

The tool itself is a Go program whose module cannot be installed (`replace` in its go.mod), so the rules are held here.
What the rules say and our boards do not do is in `EXCLUDED`, with the reason.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import promql_parser
import pytest

from dashboards.panels import RATE_INTERVAL
from slo import conventions as names
from slo.metrics import Counter, Histogram
from slo.metrics.prometheus import PROMETHEUS_METRICS
from tests.dashboards.conftest import ALL_OURS, OURS, Generated, generate, panels_of
from tests.dashboards.test_boards import _filled

Board = Mapping[str, Any]
Rule = Callable[[Board], Iterator[str]]

RULES: dict[str, Rule] = {}

# Rule -> board -> why it does not hold there; `*` for every board.
EXCLUDED: Mapping[str, Mapping[str, str]] = {
    "template-job": {"*": "our series are told apart by what they are of, not by who exposes them"},
    "template-instance": {"*": "as above; the board of the service has it, as a pod is an instance there"},
    "target-job": {"*": "a job's name is the choice of whoever runs Prometheus, and so no query depends on it"},
    "target-instance": {"*": "as above"},
    "target-logql": {"*": "no board asks Loki: logs are in CloudWatch, to which links lead"},
    "target-logql-auto": {"*": "as above"},
}
# What a cause's own rule says, word for word, has the rule's range: it is what the alert judges.
_OF_RULES = frozenset({"__auto", "limit"})


def rule(name: str) -> Callable[[Rule], Rule]:
    """Note a rule under its id."""

    def noted(function: Rule) -> Rule:
        RULES[name] = function
        return function

    return noted


def _targets(board: Board) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for panel in panels_of(board):
        yield from ((panel["title"], target) for target in panel["targets"])


def _queried(board: Board) -> list[Mapping[str, Any]]:
    return [variable for variable in board["templating"]["list"] if variable["type"] == "query"]


def _walk(expr: str, kind: type[Any]) -> list[Any]:
    found: list[Any] = []

    def visit(node: promql_parser.Expr) -> None:
        if isinstance(node, kind):
            found.append(node)

    promql_parser.walk(promql_parser.parse(_filled(expr)), visit)
    return found


@rule("template-datasource")
def _template_datasource(board: Board) -> Iterator[str]:
    sources = [one for one in board["templating"]["list"] if one["type"] == "datasource"]
    if [(one["name"], one["query"], one["label"]) for one in sources] != [("datasource", "prometheus", "Data source")]:
        yield f"has the data sources {sources}, not one of Prometheus called datasource"


@rule("template-job")
def _template_job(board: Board) -> Iterator[str]:
    yield from _template(board, "job")


@rule("template-instance")
def _template_instance(board: Board) -> Iterator[str]:
    yield from _template(board, "instance")


def _template(board: Board, label: str) -> Iterator[str]:
    if not any(one["name"] == label and one["multi"] for one in _queried(board)):
        yield f"has no variable {label} of several values"


@rule("template-label-promql")
def _template_label_promql(board: Board) -> Iterator[str]:
    for variable in _queried(board):
        found = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["query"])
        if not found:
            yield f"variable {variable['name']}: is no label_values(selector, label)"
        else:
            promql_parser.parse(_filled(found[1]))


@rule("template-on-time-change-reload")
def _template_on_time_change_reload(board: Board) -> Iterator[str]:
    yield from (f"variable {one['name']}: is not read again" for one in _queried(board) if one["refresh"] != 2)


@rule("panel-datasource")
def _panel_datasource(board: Board) -> Iterator[str]:
    for panel in panels_of(board):
        if panel["type"] != "text" and panel["datasource"]["uid"] != "${datasource}":
            yield f"{panel['title']}: has the data source {panel['datasource']}"


@rule("panel-title-description")
def _panel_title_description(board: Board) -> Iterator[str]:
    for panel in panels_of(board):
        if not panel["title"] or not panel["description"]:
            yield f"panel {panel['id']}: has no title or no description"


@rule("panel-units")
def _panel_units(board: Board) -> Iterator[str]:
    for panel in panels_of(board):
        defaults = panel["fieldConfig"]["defaults"]
        if panel["type"] in ("stat", "timeseries", "table") and not defaults.get("unit"):
            yield f"{panel['title']}: has no unit"


@rule("panel-no-targets")
def _panel_no_targets(board: Board) -> Iterator[str]:
    for panel in panels_of(board):
        if panel["type"] != "text" and not panel["targets"]:
            yield f"{panel['title']}: asks nothing"


@rule("target-promql")
def _target_promql(board: Board) -> Iterator[str]:
    for title, target in _targets(board):
        try:
            promql_parser.parse(_filled(target["expr"]))
        except ValueError as error:
            yield f"{title}: {error}"


@rule("target-rate-interval")
def _target_rate_interval(board: Board) -> Iterator[str]:
    for title, target in _targets(board):
        if target["legendFormat"] in _OF_RULES:
            continue
        # An increase over the time shown is a sum, no curve.
        for found in re.findall(r"\b(?:rate|irate)\([^\[]*\[([^\]]+)\]", target["expr"]):
            if found != RATE_INTERVAL:
                yield f"{title}: has the range {found}"


@rule("target-job")
def _target_job(board: Board) -> Iterator[str]:
    yield from _matched(board, "job")


@rule("target-instance")
def _target_instance(board: Board) -> Iterator[str]:
    yield from _matched(board, "instance")


def _matched(board: Board, label: str) -> Iterator[str]:
    for title, target in _targets(board):
        if f'{label}=~"${label}"' not in target["expr"]:
            yield f"{title}: does not select by {label}"


_COUNTERS = {
    name
    for metric in (*(one for source in OURS.sources for one in source.metrics), *PROMETHEUS_METRICS)
    if isinstance(metric, Counter | Histogram)
    for name in (
        [metric.name]
        if isinstance(metric, Counter)
        else [f"{metric.name}_bucket", f"{metric.name}_sum", f"{metric.name}_count"]
    )
}
_OVER_COUNTERS = frozenset({"rate", "irate", "increase"})


@rule("target-counter-agg")
def _target_counter_agg(board: Board) -> Iterator[str]:
    for title, target in _targets(board):
        inside = {
            selector.vector_selector.name
            for call in _walk(target["expr"], promql_parser.Call)
            if call.func.name in _OVER_COUNTERS
            for selector in call.args
            if isinstance(selector, promql_parser.MatrixSelector)
        }
        asked = {one.name for one in _walk(target["expr"], promql_parser.VectorSelector)}
        for name in sorted((asked & _COUNTERS) - inside):
            yield f"{title}: reads the counter {name} without rate or increase"


@rule("target-logql")
@rule("target-logql-auto")
def _target_logql(board: Board) -> Iterator[str]:
    for title, target in _targets(board):
        if target["datasource"]["type"] != "loki":
            yield f"{title}: does not ask Loki"


@rule("uneditable-dashboard")
def _uneditable_dashboard(board: Board) -> Iterator[str]:
    if board["editable"]:
        yield "can be changed in the browser, which the next generation would undo"


_GENERATED: Generated = generate(ALL_OURS, OURS)


def _first_target(board: dict[str, Any]) -> dict[str, Any]:
    target: dict[str, Any] = board["panels"][0]["targets"][0]
    return target


def test_every_rule_of_the_linter_is_held() -> None:
    """The list of rules is that of the linter's documentation, 17 with both of LogQL's."""
    assert set(RULES) == {
        "panel-datasource",
        "panel-no-targets",
        "panel-title-description",
        "panel-units",
        "target-counter-agg",
        "target-instance",
        "target-job",
        "target-logql",
        "target-logql-auto",
        "target-promql",
        "target-rate-interval",
        "template-datasource",
        "template-instance",
        "template-job",
        "template-label-promql",
        "template-on-time-change-reload",
        "uneditable-dashboard",
    }


@pytest.mark.parametrize("name", sorted(set(RULES) - set(EXCLUDED)))
def test_every_board_keeps_to_the_rule(name: str) -> None:
    """No board breaks a rule of the linter that is not excluded with a reason."""
    broken = [f"{uid}: {problem}" for uid, board in _GENERATED.boards.items() for problem in RULES[name](board)]
    assert broken == []


@pytest.mark.parametrize("name", sorted(EXCLUDED))
def test_what_is_excluded_is_really_broken(name: str) -> None:
    """An exclusion that is needed no more goes, and each says why it is there."""
    assert all(EXCLUDED[name].values())
    assert any(list(RULES[name](board)) for board in _GENERATED.boards.values())


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("template-datasource", lambda board: board["templating"]["list"].pop(0)),
        ("template-label-promql", lambda board: board["templating"]["list"][1].update(query="metrics(up)")),
        ("template-on-time-change-reload", lambda board: board["templating"]["list"][1].update(refresh=1)),
        ("panel-datasource", lambda board: board["panels"][0].update(datasource={"uid": "abc"})),
        ("panel-title-description", lambda board: board["panels"][0].update(description="")),
        ("panel-units", lambda board: board["panels"][0]["fieldConfig"]["defaults"].pop("unit")),
        ("panel-no-targets", lambda board: board["panels"][0].update(targets=[])),
        ("target-promql", lambda board: _first_target(board).update(expr="sum(")),
        ("target-rate-interval", lambda board: _first_target(board).update(expr="rate(alb_requests_total[5m])")),
        ("target-counter-agg", lambda board: _first_target(board).update(expr="sum(alb_requests_total)")),
        ("uneditable-dashboard", lambda board: board.update(editable=True)),
    ],
)  # fmt: skip
def test_a_rule_finds_what_it_is_for(name: str, change: Callable[[dict[str, Any]], object]) -> None:
    """Each rule refuses a board that was broken in its way."""
    board = generate(ALL_OURS, OURS).boards[names.component_uid("edge")]
    assert list(RULES[name](board)) == []
    change(board)
    assert list(RULES[name](board))
