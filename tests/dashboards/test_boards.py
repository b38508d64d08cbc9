"""The house rules that hold for every board, also for those to come."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from decimal import Decimal
from itertools import combinations
from typing import Any

import promql_parser
import pytest

from dashboards import board as boards
from dashboards import looks, panels, queries
from dashboards.render import render
from slo import CompiledSlo, Severity, compile_slo
from slo import conventions as names
from slo.definitions import redemption
from slo.metrics import Histogram, Metric
from slo.metrics.prometheus import PROMETHEUS_METRICS
from tests.dashboards.conftest import LINKS, MIXED, SHIPPED, Generated, panels_of

_VARIABLE = re.compile(r"\$\{?([a-z_]\w*)")
_LABEL_VALUES = re.compile(r"label_values\((?P<selector>.*), (?P<label>\w+)\)")


def _filled(expr: str) -> str:
    """A query as Prometheus gets it: durations and names in the place of Grafana's variables."""
    for interval in (panels.TIME_SHOWN, panels.RATE_INTERVAL):
        expr = expr.replace(interval, "6h")
    return _VARIABLE.sub("chosen", expr)


def _panel_exprs(board: Mapping[str, Any]) -> list[str]:
    return [target["expr"] for panel in panels_of(board) for target in panel["targets"]]


def _exprs(board: Mapping[str, Any]) -> Iterator[str]:
    """Every query of a board: of panels, annotations and variables."""
    yield from _panel_exprs(board)
    yield from (annotation["target"]["expr"] for annotation in board["annotations"]["list"])
    for variable in board["templating"]["list"]:
        if variable["type"] == "query":
            found = _LABEL_VALUES.fullmatch(variable["query"])
            assert found, f"{variable['query']} is no label_values(selector, label)"
            yield found["selector"]


def _metrics(expr: str) -> set[str]:
    """The metrics that a query reads; a selector without a name counts as the empty name."""
    metrics: set[str] = set()

    def visit(node: promql_parser.Expr) -> None:
        if isinstance(node, promql_parser.VectorSelector):
            metrics.add(node.name or "")

    promql_parser.walk(promql_parser.parse(_filled(expr)), visit)
    return metrics


def _strings(data: object) -> Iterator[str]:
    """Every string in a piece of JSON."""
    match data:
        case str():
            yield data
        case dict():
            for value in data.values():
                yield from _strings(value)
        case list():
            for item in data:
                yield from _strings(item)


def _data_links(panel: Mapping[str, Any]) -> list[str]:
    """The links of a panel's columns."""
    properties = [one for override in panel["fieldConfig"]["overrides"] for one in override["properties"]]
    return [link["url"] for one in properties if one["id"] == "links" for link in one["value"]]


def _panel_links(panel: Mapping[str, Any]) -> dict[str, str]:
    """The links of a panel's lines, by title."""
    return {link["title"]: link["url"] for link in panel["fieldConfig"]["defaults"].get("links", [])}


def _overrides(panel: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    return {
        override["matcher"]["options"]: {one["id"]: one["value"] for one in override["properties"]}
        for override in panel["fieldConfig"]["overrides"]
    }


# --- layout -----------------------------------------------------------------------------------------------------------


def test_boards_are_named_after_their_uids(generated: Generated) -> None:
    """The files and uids are those to which alerts and other boards link; Grafana allows 40 characters."""
    of_components = [names.component_uid(one) for one in generated.defined.components]
    sale = [names.FLASH_SALE_UID] if of_components else []
    expected = {names.OVERVIEW_UID, names.DETAIL_UID, *of_components, *sale, names.PLATFORM_UID}
    assert set(generated.boards) == expected
    paths = {str(artefact.path) for artefact in generated.artefacts if artefact.path.suffix == ".json"}
    assert paths == {f"grafana/{uid}.json" for uid in expected}
    assert all(len(uid) <= 40 for uid in expected)


def test_panels_have_ids_of_their_own(generated: Generated) -> None:
    """Links to a single panel hold its id, so no two panels of a board share one."""
    for board in generated.boards.values():
        ids = [panel["id"] for panel in board["panels"]]
        assert len(set(ids)) == len(ids) > 0


def test_panels_fill_the_grid_without_overlap(generated: Generated) -> None:
    """Every panel lies within 24 columns, no two share a cell, and no cell between them is empty."""
    for board in generated.boards.values():
        cells = [
            {
                (x, y)
                for x in range(place["x"], place["x"] + place["w"])
                for y in range(place["y"], place["y"] + place["h"])
            }
            for place in (panel["gridPos"] for panel in board["panels"])
        ]
        assert all(not one & other for one, other in combinations(cells, 2))
        taken = set().union(*cells)
        assert taken == {(x, y) for x in range(24) for y in range(max(y for _, y in taken) + 1)}


def test_a_row_that_cannot_be_equally_wide_is_refused() -> None:
    """Five panels do not divide 24 columns, which is said instead of leaving a gap."""
    row = boards.Row(4, [panels.text("Words", "Words.", "Words.")] * 5)
    with pytest.raises(ValueError, match="5 panels does not divide 24 columns"):
        boards.board("a-board", "A board", "For a test.", row, shown="now-6h")


def test_every_panel_says_what_it_is(generated: Generated) -> None:
    """Every panel has a title and a description, every board too, and no two panels of a board share a title."""
    for board in generated.boards.values():
        assert board["title"]
        assert board["description"].endswith(".")
        titles = [panel["title"] for panel in board["panels"]]
        assert len(set(titles)) == len(titles)
        for panel in panels_of(board):
            assert panel["title"]
            assert panel["description"].endswith(".")


def test_every_figure_has_a_unit_and_says_when_there_is_none(generated: Generated) -> None:
    """A panel or a column that shows numbers names its unit; a figure without data says so, as blank may mean zero."""
    for panel in generated.panels:
        defaults = panel["fieldConfig"]["defaults"]
        match panel["type"]:
            case "text":
                continue
            case "table":
                columns = _overrides(panel)
                for target in panel["targets"]:
                    assert columns[target["legendFormat"]]["unit"]
                    assert columns[target["legendFormat"]]["noValue"]
            case "stat":
                assert defaults["unit"]
                assert defaults["noValue"]
            case "timeseries":
                assert defaults["unit"]
            case "heatmap":
                assert panel["options"]["yAxis"]["unit"]
            case "state-timeline":  # its values have names instead
                assert defaults["mappings"]
            case other:
                pytest.fail(f"no rule for panels of type {other}")


def test_no_query_hides_another(generated: Generated) -> None:
    """Within a panel every query has an id and a name of its own, since Grafana joins values to queries by them."""
    for panel in generated.panels:
        for key in ("refId", "expr", "legendFormat"):
            values = [target[key] for target in panel["targets"]]
            assert len(set(values)) == len(values), panel["title"]


def test_a_panel_has_room_for_more_queries_than_letters() -> None:
    """The 27th query is A1: none is lost, none comes twice."""
    many = [panels.Query(f"vector({number})", str(number)) for number in range(30)]
    panel = panels.timeseries("Many", "Many.", *many, unit=panels.COUNT)
    ids = [target.refId for target in panel.targets]
    assert (ids[0], ids[25], ids[26]) == ("A", "Z", "A1")
    assert len(set(ids)) == 30


# --- queries ----------------------------------------------------------------------------------------------------------


def test_every_query_is_promql(generated: Generated) -> None:
    """Every query of panels, annotations and variables parses."""
    for board in generated.boards.values():
        for expr in _exprs(board):
            promql_parser.parse(_filled(expr))


def _known(generated: Generated) -> set[str]:
    """What our rules record, what the catalogue declares, and what Prometheus says of itself."""
    recorded = {
        recording.record
        for compiled in generated.compiled
        for recording in (*compiled.recordings, *compiled.coarse_recordings)
    }
    declared = [metric for source in generated.defined.sources for metric in source.metrics]
    exposed = {name for metric in (*declared, *PROMETHEUS_METRICS) for name in exposed_names(metric)}
    return recorded | exposed | {"ALERTS"}


def exposed_names(metric: Metric) -> set[str]:
    """The names of a metric's series."""
    if isinstance(metric, Histogram):
        return {f"{metric.name}{end}" for end in ("_bucket", "_sum", "_count")}
    return {metric.name}


def test_every_metric_is_recorded_or_declared(generated: Generated) -> None:
    """Boards read only what the rules of these SLOs record, what the catalogue has, and Prometheus' own."""
    known = _known(generated)
    for board in generated.boards.values():
        for expr in _exprs(board):
            assert _metrics(expr) <= known, expr


def test_every_metric_that_is_declared_is_shown(generated: Generated) -> None:
    """Whatever somebody collects and pays for can be seen on a board."""
    shown = {name for board in generated.boards.values() for expr in _exprs(board) for name in _metrics(expr)}
    declared = [metric for source in generated.defined.sources for metric in source.metrics]
    assert [metric.name for metric in (*declared, *PROMETHEUS_METRICS) if not exposed_names(metric) & shown] == []


def test_the_labels_are_those_of_the_rules() -> None:
    """The labels that boards group and select by are those that the rules set."""
    identity = names.identity_labels(redemption.availability)
    assert (identity[queries.SERVICE], identity[queries.SLO]) == ("redemption", "availability")


def test_a_query_has_the_keys_of_today(generated: Generated) -> None:
    """Grafana's schema leaves a query's keys to the datasource: these are Prometheus' own, and no old ones."""
    keys = {"datasource", "editorMode", "expr", "format", "hide", "instant", "legendFormat", "range", "refId"}
    for panel in generated.panels:
        for target in panel["targets"]:
            assert set(target) - {"exemplar", "interval"} == keys
            assert target["range"] != target["instant"]


def test_nothing_old_is_said_that_the_schema_would_let_pass(generated: Generated) -> None:
    """The schema still allows a cell's old display mode, and a version, which Grafana itself counts."""
    for board in generated.boards.values():
        assert "version" not in board
    for panel in generated.panels:
        assert "displayMode" not in panel["fieldConfig"]["defaults"].get("custom", {})


def test_no_datasource_is_fixed(generated: Generated) -> None:
    """Everything that asks a datasource asks the one that the reader chose."""
    for board in generated.boards.values():
        askers = [
            *(panel for panel in panels_of(board) if panel["targets"]),
            *(target for panel in panels_of(board) for target in panel["targets"]),
            *(variable for variable in board["templating"]["list"] if variable["type"] == "query"),
            *board["annotations"]["list"],
        ]
        assert {(one["datasource"]["type"], one["datasource"]["uid"]) for one in askers} == {
            ("prometheus", "${datasource}")
        }


def test_every_variable_is_defined_and_used(generated: Generated) -> None:
    """A board uses no variable that it does not define, and defines none that it does not use."""
    for board in generated.boards.values():
        defined = {variable["name"] for variable in board["templating"]["list"]}
        used = {name for text in _strings(board) for name in _VARIABLE.findall(text) if not name.startswith("__")}
        assert used == defined


def test_the_slo_is_chosen_after_its_service(generated: Generated) -> None:
    """The detail board's variables come in the order in which they depend on each other."""
    variables = generated.boards[names.DETAIL_UID]["templating"]["list"]
    assert [variable["name"] for variable in variables] == ["datasource", "service", "slo"]
    assert [variable["refresh"] for variable in variables[1:]] == [2, 2]  # again with each change of the time shown
    assert [variable.get("query") for variable in variables] == [
        "prometheus",
        "label_values(sloth_slo_info, sloth_service)",
        'label_values(sloth_slo_info{sloth_service="$service"}, sloth_slo)',
    ]


# --- links ------------------------------------------------------------------------------------------------------------


def test_links_lead_to_boards_and_variables_that_exist(generated: Generated) -> None:
    """A link to a board names one of ours, sets only variables that it has, and keeps datasource and time."""
    all_links = [link for panel in generated.panels for link in (*_data_links(panel), *_panel_links(panel).values())]
    links = [link for link in all_links if link.startswith("/")]
    assert links
    for link in links:
        path, _, query = link.partition("?")
        uid = path.split("/")[2]
        assert path.split("/")[1] == "d"
        variables = {variable["name"] for variable in generated.boards[uid]["templating"]["list"]}
        chosen = re.findall(r"var-(\w+)=", query)
        assert set(chosen) == variables - {"datasource"}
        assert query.startswith("${datasource:queryparam}&")
        assert query.endswith("&${__url_time_range}")


def test_links_fill_in_columns_that_exist(generated: Generated) -> None:
    """A link that takes the value of another column names a column of the same table."""
    for panel in generated.panels:
        columns = set(_overrides(panel))
        for link in _data_links(panel):
            fields = re.findall(r"\$\{__data\.fields\.([^}]*)\}", link)
            assert fields
            assert set(fields) <= columns


def test_every_row_of_the_overview_opens_its_slo(generated: Generated) -> None:
    """A click on a service or an SLO opens the detail board with both chosen."""
    table = next(panel for panel in generated.boards[names.OVERVIEW_UID]["panels"] if panel["type"] == "table")
    link = (
        "/d/slo-detail/slo-detail?${datasource:queryparam}&var-service=${__data.fields.Service}"
        "&var-slo=${__data.fields.SLO}&${__url_time_range}"
    )
    assert _data_links(table) == [link, link]


def test_every_alert_opens_its_runbook(generated: Generated) -> None:
    """The names of alerts on the detail board lead to the files that alerts themselves link to."""
    table = next(panel for panel in generated.boards[names.DETAIL_UID]["panels"] if panel["type"] == "table")
    (link,) = _data_links(table)
    for compiled in generated.compiled:
        for alert in compiled.alerts:
            expected = f"{LINKS.runbooks}/{names.runbook_file(alert.name)}"
            assert link.replace("${__data.fields.Alert}", alert.name) == expected


def test_boards_link_to_each_other_with_all_choices_kept(generated: Generated) -> None:
    """Every board has the tag by which the menu of every board finds it, and the menu keeps variables and time."""
    for board in generated.boards.values():
        (menu,) = board["links"]
        assert menu["tags"] == board["tags"] == [boards.TAG]
        assert menu["includeVars"]
        assert menu["keepTime"]


# --- figures ----------------------------------------------------------------------------------------------------------


def test_the_overview_is_sorted_by_what_burns(generated: Generated) -> None:
    """The row that burns worst is on top, so what it is sorted by is a column of the table."""
    table = next(panel for panel in generated.boards[names.OVERVIEW_UID]["panels"] if panel["type"] == "table")
    assert table["options"]["sortBy"] == [{"displayName": "Worst burn", "desc": True}]
    assert "Worst burn" in _overrides(table)


def test_the_columns_of_a_table_are_named_after_its_queries(generated: Generated) -> None:
    """Grafana calls the value of a query `Value #A`, or `Value` when it is alone; both get the column's title."""
    for panel in generated.panels:
        if panel["type"] != "table":
            continue
        merge, organize = panel["transformations"]
        assert merge["id"] == "merge"
        assert organize["options"]["excludeByName"] == {"Time": True}
        renamed = organize["options"]["renameByName"]
        assert set(renamed.values()) == set(_overrides(panel))
        assert renamed["Value"] == panel["targets"][0]["legendFormat"]
        for target in panel["targets"]:
            assert renamed[f"Value #{target['refId']}"] == target["legendFormat"]
            assert target["format"] == "table"
            assert target["instant"]


def _limits(compiled: list[CompiledSlo], severity: Severity) -> set[str]:
    board = Generated(compiled, render(compiled, LINKS)).boards[names.DETAIL_UID]
    panel = next(panel for panel in board["panels"] if panel["title"] == f"Budget burn, {severity}")
    return {target["legendFormat"] for target in panel["targets"] if "above" in target["legendFormat"]}


def test_the_lines_are_drawn_where_the_alerts_fire() -> None:
    """On 30 days pages are drawn at 14.4 and 6, tickets at 3 and 1: the factors with which the rules compare."""
    compiled = [compile_slo(redemption.availability)]
    assert _limits(compiled, Severity.PAGE) == {"page above 14.4 (1h and 5m)", "page above 6 (6h and 30m)"}
    assert _limits(compiled, Severity.TICKET) == {"ticket above 3 (1d and 2h)", "ticket above 1 (3d and 6h)"}


def test_a_severity_without_windows_has_no_panel() -> None:
    """Where every period is a day, no ticket can be, and so there is no empty panel for it."""
    compiled = [one for one in MIXED if one.slo.name == "day"]
    board = Generated(compiled, render(compiled, LINKS)).boards[names.DETAIL_UID]
    burns = [panel["title"] for panel in board["panels"] if panel["title"].startswith("Budget burn,")]
    assert burns == ["Budget burn, page"]


def test_the_windows_on_the_board_are_those_of_the_alerts(generated: Generated) -> None:
    """Every window that an alert reads has a line on the panel of its severity, and no other window has."""
    board = generated.boards[names.DETAIL_UID]
    for severity in Severity:
        panel = next(panel for panel in board["panels"] if panel["title"] == f"Budget burn, {severity}")
        lines = {target["legendFormat"] for target in panel["targets"] if "above" not in target["legendFormat"]}
        assert lines == {
            names.duration(window)
            for compiled in generated.compiled
            for pair in compiled.policy.pairs_of(severity)
            for window in (pair.short, pair.long)
        }


def test_limits_are_dashed_and_measurements_are_not(generated: Generated) -> None:
    """What is allowed looks different from what is: every limit, and nothing else, is a dashed line."""
    for panel in generated.panels:
        if panel["type"] != "timeseries":
            continue
        dashed = [name for name, style in _overrides(panel).items() if "custom.lineStyle" in style]
        for target in panel["targets"]:
            is_limit = re.search(r"above|allowed|^limit\b", target["legendFormat"]) is not None
            assert any(re.search(name, target["legendFormat"]) for name in dashed) == is_limit


def test_thresholds_ascend(generated: Generated) -> None:
    """Grafana wants thresholds from the lowest, which has no value, upwards."""
    for panel in generated.panels:
        thresholds = [panel["fieldConfig"]["defaults"]["thresholds"]]
        thresholds += [style["thresholds"] for style in _overrides(panel).values() if "thresholds" in style]
        for one in thresholds:
            steps = one["steps"] or [{"value": None}]
            values = [step["value"] for step in steps[1:]]
            assert steps[0]["value"] is None
            assert values == sorted(set(values))


def test_a_burn_is_red_from_the_slowest_page_on() -> None:
    """On 30 days a burn is coloured from 1, where the budget does not last, and red from 6, where somebody is woken."""
    panel = next(one for one in Generated(SHIPPED, render(SHIPPED, LINKS)).panels if one["title"] == "Worst burn")
    steps = panel["fieldConfig"]["defaults"]["thresholds"]["steps"]
    assert [(step["color"], step["value"]) for step in steps] == [("green", None), ("orange", 1), ("red", 6)]


def test_what_is_negative_can_be_seen(generated: Generated) -> None:
    """An axis begins at zero, and lower where values are: an overspent budget, a broken replication."""
    for panel in generated.panels:
        if panel["type"] == "timeseries":
            defaults = panel["fieldConfig"]["defaults"]
            assert defaults["custom"]["axisSoftMin"] == 0
            assert "min" not in defaults


def test_behind_lines_only_what_is_wrong_is_tinted(generated: Generated) -> None:
    """A threshold's good side has no colour: Grafana would draw a lower limit in green."""
    for panel in generated.panels:
        if panel["type"] == "timeseries":
            defaults = panel["fieldConfig"]["defaults"]
            steps = defaults["thresholds"]["steps"]
            assert panels.GOOD not in {step["color"] for step in steps}
            assert defaults["custom"]["thresholdsStyle"]["mode"] == ("dashed+area" if len(steps) > 1 else "off")


def test_no_objective_is_rounded_to_a_whole_promise(generated: Generated) -> None:
    """The objective's figure has the digits of the most exact objective: 99.99 % is not shown as 100 %."""
    exact = 3 if len(generated.compiled) > len(SHIPPED) else 2
    panel = next(panel for panel in generated.panels if panel["title"] == "Objective")
    assert panel["fieldConfig"]["defaults"]["decimals"] == exact


@pytest.mark.parametrize(("percent", "decimals"), [("90", 0), ("99", 0), ("99.50", 1), ("99.999", 3)])
def test_an_objective_has_the_digits_that_it_needs(percent: str, decimals: int) -> None:
    """Zeros at the end need no digits, and a round objective needs none at all."""
    slo = replace(redemption.availability, objective=Decimal(percent), alerts=())
    assert looks.objective_decimals([compile_slo(slo)]) == decimals


def test_firing_alerts_are_marked_on_the_detail_board(generated: Generated) -> None:
    """The alerts of the chosen SLO, and no others, are marked while they fire."""
    annotation = generated.boards[names.DETAIL_UID]["annotations"]["list"][0]
    assert annotation["enable"]
    assert annotation["target"]["expr"] == ('ALERTS{alertstate="firing", sloth_service="$service", sloth_slo="$slo"}')


def test_every_board_marks_alerts_and_deployments(generated: Generated) -> None:
    """Who looks at a curve sees what was released and what fired just then; rules themselves are not released."""
    for uid, board in generated.boards.items():
        marks = [annotation["name"] for annotation in board["annotations"]["list"]]
        tells_of_pods = bool(generated.defined.sources) and uid != names.PLATFORM_UID
        assert marks == (["Firing alerts", "Deployments"] if tells_of_pods else ["Firing alerts"])


# --- files ------------------------------------------------------------------------------------------------------------


def test_the_same_slos_give_the_same_bytes(generated: Generated) -> None:
    """Two runs write the same bytes, with sorted keys, two spaces of indentation and a newline at the end."""
    assert render(generated.compiled, LINKS, generated.defined) == generated.artefacts
    for artefact in generated.artefacts:
        if artefact.path.suffix != ".json":
            continue
        board = json.loads(artefact.text)
        assert artefact.text == json.dumps(board, sort_keys=True, indent=2, ensure_ascii=False) + "\n"


def test_without_slos_there_are_no_boards() -> None:
    """Nothing to look at is no file, rather than a board of empty panels."""
    assert render([], LINKS) == []
