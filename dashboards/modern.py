"""From grafanalib's output to the dashboard schema of today.

grafanalib 0.7.1 writes schema version 12: datasources as names, `null` for what was not said, keys that Grafana
dropped years ago. Grafana would migrate some of that silently and lose the rest. This module is the only place that
knows; tests/dashboards holds its result against the schema of Grafana's own package.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from grafanalib._gen import DashboardEncoder
from grafanalib.core import Dashboard

Json: TypeAlias = dict[str, Any]

SCHEMA_VERSION = 42  # what Grafana 13 writes

DATASOURCE_TYPE = "prometheus"

# What a panel of each type must say and grafanalib does not. A type that is not here is not used: most of grafanalib's
# other classes stand for panels that Grafana has removed (graph, singlestat, the old heatmap) or changed since.
_PANEL_DEFAULTS: Mapping[str, Json] = {
    "heatmap": {
        "fieldConfig": {"defaults": {"custom": {"scaleDistribution": {"type": "linear"}}}},
        "options": {
            "cellGap": 1,
            "color": {
                "exponent": 0.5,
                "fill": "dark-orange",
                "mode": "scheme",
                "reverse": False,
                "scale": "exponential",
                "scheme": "Oranges",
                "steps": 64,
            },
            "exemplars": {"color": "rgba(255,0,255,0.7)"},
            "legend": {"show": True},
            "rowsFrame": {"layout": "auto"},
            "showValue": "never",
            "tooltip": {"mode": "single", "showColorScale": True, "yHistogram": True},
        },
    },
    "stat": {
        "options": {"percentChangeColorMode": "standard", "showPercentChange": False, "wideLayout": True},
    },
    "state-timeline": {
        "options": {"legend": {"calcs": [], "showLegend": False}, "tooltip": {"sort": "none"}},
    },
    "table": {
        "fieldConfig": {"defaults": {"custom": {"cellOptions": {"type": "auto"}, "inspect": False}}},
        "options": {"cellHeight": "sm", "frameIndex": 0},
    },
    "text": {},
    "timeseries": {
        "fieldConfig": {"defaults": {"custom": {"stacking": {"group": "A", "mode": "none"}}}},
        "options": {"legend": {"showLegend": True}},
    },
}
_ANY_PANEL_DEFAULTS: Json = {"fieldConfig": {"overrides": []}, "options": {}}

# The time picker is alive, but grafanalib's has a dead key and else what Grafana offers anyway.
_DEAD_IN_BOARD = frozenset({"__inputs", "hideControls", "rows", "sharedCrosshair", "style", "timepicker", "version"})
_DEAD_IN_PANEL = frozenset({"color", "columns", "editable", "error", "fontSize", "mappings"})
_DEAD_IN_TABLE_FIELD = frozenset({"displayMode"})
_DEAD_IN_TARGET = frozenset({"intervalFactor", "metric", "query", "step", "target"})
_ALIVE_IN_ROW = ("collapsed", "gridPos", "id", "panels", "title", "type")
_OLD_HEATMAP = "dataFormat"  # only grafanalib's has it: its heatmap is the one that Grafana has removed
_DEAD_IN_VARIABLE = frozenset({"auto", "auto_count", "auto_min", "current", "useTags"})


def modern(board: Dashboard) -> Json:
    """The board as Grafana's current dashboard schema has it.

    Raises:
        ValueError: A panel is of a type that the house look does not have, or a datasource is given by its name
            instead of by a variable.
    """
    data = json.loads(json.dumps(board.to_json_data(), cls=DashboardEncoder))
    data = _without(data, _DEAD_IN_BOARD)
    data["schemaVersion"] = SCHEMA_VERSION
    data["panels"] = [_panel(panel) for panel in data["panels"]]
    data["templating"] = {"list": [_variable(variable) for variable in data["templating"]["list"]]}
    data["annotations"] = {"list": [_with_datasource(query) for query in data["annotations"]["list"]]}
    result: Json = _without_nulls(data)
    return result


def _panel(panel: Json) -> Json:
    kind = panel["type"]
    if kind == "row":
        return {key: panel[key] for key in _ALIVE_IN_ROW}
    if kind not in _PANEL_DEFAULTS or _OLD_HEATMAP in panel:
        allowed = ", ".join(sorted(_PANEL_DEFAULTS))
        raise ValueError(f"panel {panel['title']!r}: the type {kind!r} is not in the house look; use one of {allowed}")
    panel = _filled(_without(panel, _DEAD_IN_PANEL), _ANY_PANEL_DEFAULTS)
    panel = _filled(panel, _PANEL_DEFAULTS[kind])
    if kind == "table":
        defaults = panel["fieldConfig"]["defaults"]
        defaults["custom"] = _without(defaults["custom"], _DEAD_IN_TABLE_FIELD)
    panel["targets"] = [_target(target) for target in panel["targets"]]
    return _with_datasource(panel)


def _target(target: Json) -> Json:
    target = _without(target, _DEAD_IN_TARGET)
    if not target["interval"]:
        del target["interval"]
    return _with_datasource({**target, "editorMode": "code", "range": not target["instant"]})


def _variable(variable: Json) -> Json:
    return _with_datasource(_without(variable, _DEAD_IN_VARIABLE))


def _with_datasource(data: Json) -> Json:
    """The datasource as a reference instead of a name."""
    name = data.get("datasource")
    if name is None:
        return data
    if not str(name).startswith("$"):
        raise ValueError(f"datasource {name!r}: a board names its datasource by a variable, '${{datasource}}' say")
    return {**data, "datasource": {"type": DATASOURCE_TYPE, "uid": name}}


def _without(data: Mapping[str, Any], keys: frozenset[str]) -> Json:
    return {key: value for key, value in data.items() if key not in keys}


def _filled(data: Mapping[str, Any], defaults: Mapping[str, Any]) -> Json:
    """The data, and what only the defaults have."""
    filled = dict(data)
    for key, default in defaults.items():
        if isinstance(default, dict):
            filled[key] = _filled(filled.get(key) or {}, default)
        elif filled.get(key) is None:
            filled[key] = default
    return filled


# A threshold's lowest step begins at null, which stands for minus infinity.
_MAY_BE_NULL = frozenset({"value"})


def _without_nulls(data: Any) -> Any:  # noqa: ANN401 - any JSON
    if isinstance(data, dict):
        return dict(_said(data))
    if isinstance(data, Sequence) and not isinstance(data, str):
        return [_without_nulls(item) for item in data]
    return data


def _said(data: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in data.items():
        if value is not None or key in _MAY_BE_NULL:
            yield key, _without_nulls(value)
