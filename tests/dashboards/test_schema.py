"""Grafana's own schema accepts the boards; tests/dashboards/schema/README.md says where it comes from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from grafanalib import core
from jsonschema import Draft7Validator

from dashboards import board as boards
from dashboards import panels
from dashboards.modern import SCHEMA_VERSION, modern
from tests.dashboards.conftest import Generated, panels_of

_FOLDER = Path(__file__).parent / "schema"


def _validator(name: str) -> Draft7Validator:
    return Draft7Validator(json.loads((_FOLDER / f"{name}.schema.json").read_text()))


def _problems(board: dict[str, Any]) -> list[str]:
    """What the schemas say against a board and against the options of its panels."""
    for annotation in board["annotations"]["list"]:  # the gap that the README tells of
        target = annotation.pop("target")
        assert set(target) == {"expr", "refId"}
        assert isinstance(annotation.pop("titleFormat"), str)
    problems = [f"{error.json_path}: {error.message}" for error in _validator("dashboard").iter_errors(board)]
    for panel in panels_of(board):
        config = {"options": panel["options"]}
        if custom := panel["fieldConfig"]["defaults"].get("custom"):
            config["custom"] = custom
        errors = _validator(panel["type"]).iter_errors(config)
        problems += [f"{panel['title']}: {error.json_path}: {error.message}" for error in errors]
    return problems


def test_grafana_accepts_every_board_and_panel(generated: Generated) -> None:
    """Boards and the options of their panels have every required key, none that is unknown, and no wrong type."""
    for board in generated.boards.values():
        assert not _problems(board)
        assert board["schemaVersion"] == SCHEMA_VERSION == 42


def test_the_schema_refuses_what_grafanalib_writes() -> None:
    """The schema is strict enough to matter: of grafanalib's own output it finds dead keys and wrong datasources."""
    board = boards.board("a-board", "A board", "For a test.", boards.Row(4, [_stat()]), shown="now-6h")
    raw = json.loads(json.dumps(board.to_json_data(), default=lambda one: one.to_json_data()))
    problems = "\n".join(f"{error.json_path} {error.message}" for error in _validator("dashboard").iter_errors(raw))
    assert "sharedCrosshair" in problems
    assert "__inputs" in problems
    assert "$.panels[0]" in problems


def _stat() -> core.Stat:
    return panels.stat("One", "One.", "vector(1)", unit=panels.COUNT)


@pytest.mark.parametrize(
    "panel",
    [
        core.Graph(title="Old", targets=[]),
        core.SingleStat(title="Old", targets=[]),
        core.Heatmap(title="Old", targets=[]),
        core.AlertList(title="Old"),
    ],
    ids=["graph", "singlestat", "heatmap", "alertlist"],
)
def test_a_dead_panel_is_refused(panel: core.Panel) -> None:
    """Classes of grafanalib for panels that Grafana has removed or changed raise, with the types that are allowed."""
    board = core.Dashboard(title="A board", panels=[panel])
    with pytest.raises(
        ValueError,
        match=r"'Old'.*not in the house look; use one of heatmap, stat, state-timeline, table, text, timeseries",
    ):
        modern(board)


def test_a_datasource_by_its_name_is_refused() -> None:
    """A board that names its datasource works on one Grafana only, so it raises."""
    panel = _stat()
    panel.dataSource = "Prometheus"
    with pytest.raises(ValueError, match=r"'Prometheus'.*by a variable"):
        modern(boards.board("a-board", "A board", "For a test.", boards.Row(4, [panel]), shown="now-6h"))
