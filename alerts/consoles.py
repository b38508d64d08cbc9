"""Addresses of pages in other people's consoles: AWS, Grafana's Explore, Alertmanager.

Each function gives a whole URL. The forms are those that the consoles themselves write into the address bar; the
tests hold them byte for byte.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import timedelta
from urllib.parse import quote, urlencode

from alerts.jsurl import Value, encode


def xray_traces(console: str, region: str, expression: str, shown: timedelta) -> str:
    """X-Ray's traces that fit a filter expression, up to now.

    Args:
        console: `https://console.aws.amazon.com/cloudwatch/home`.
        region: `eu-central-1` say.
        expression: As in X-Ray's search field, `service("api") AND fault = true` say.
        shown: How far back.
    """
    milliseconds = shown // timedelta(milliseconds=1)
    state: Value = {"query": {"expression": expression}, "context": {"timeRange": {"delta": milliseconds}}}
    return f"{_home(console, region)}#xray:traces/query?{encode(state)}"


def logs_insights(console: str, region: str, query: str, groups: Sequence[str], shown: timedelta) -> str:
    """Logs Insights with a query in its editor, over some log groups and up to now."""
    state: Value = {
        "end": 0,
        "start": -int(shown.total_seconds()),
        "timeType": "RELATIVE",
        "tz": "UTC",
        "unit": "seconds",
        "editorString": query,
        "source": groups,
        "lang": "CWLI",
    }
    return f"{_home(console, region)}#logsV2:logs-insights$3FqueryDetail$3D{encode(state)}"


def cloudwatch_alarm(console: str, region: str, name: str) -> str:
    """One alarm of CloudWatch."""
    return f"{_home(console, region)}#alarmsV2:alarm/{quote(name, safe='')}"


def cloudwatch_alarms(console: str, region: str, search: str) -> str:
    """The alarms of CloudWatch whose names hold a text."""
    return f"{_home(console, region)}#alarmsV2:?{encode({'search': search})}"


def explore(grafana: str, datasource: str, query: str, shown: timedelta) -> str:
    """Grafana's Explore with a query of Prometheus; `datasource` is its uid."""
    source = {"type": "prometheus", "uid": datasource}
    pane = {
        "datasource": datasource,
        "queries": [{"refId": "A", "expr": query, "datasource": source}],
        "range": {"from": f"now-{int(shown.total_seconds())}s", "to": "now"},
    }
    panes = json.dumps({"a": pane}, separators=(",", ":"))
    query_string = urlencode({"schemaVersion": 1, "orgId": 1, "panes": panes}, quote_via=quote)
    return f"{grafana}/explore?{query_string}"


def silence(alertmanager: str, matchers: Mapping[str, str]) -> str:
    """Alertmanager's form for a new silence, with its matchers filled in."""
    wanted = ",".join(f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in matchers.items())
    return f"{alertmanager}/#/silences/new?filter={quote('{' + wanted + '}', safe='')}"


def _home(console: str, region: str) -> str:
    return f"{console}?region={quote(region)}"
