"""A CloudWatch dashboard: the state of what alerts, and for each SLO its burn rates and events.

Body: https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/CloudWatch-Dashboard-Body-Structure.html
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

from alerts.cloudwatch.burn import COMPONENT_TAG, burn_names
from alerts.cloudwatch.cloudformation import FOLDER, template
from alerts.cloudwatch.model import Alarm, CompositeAlarm, Expression, MetricAlarm, MetricStat, Query, partition
from slo import conventions as names
from slo.artefacts import Artefact
from slo.cloudwatch import CloudWatchSettings
from slo.compile import CompiledSlo

BODY = FOLDER / "dashboard.json"
TEMPLATE = FOLDER / "dashboard.template.yaml"
WIDGETS_MAX = 500
ALARMS_OF_WIDGET_MAX = 100
_WIDTH = 24
_HALF = _WIDTH // 2
_HEIGHT = 6
_SMALL = 2
_COUNTS = ("bad", "every")


def render(compiled: Sequence[CompiledSlo], alarms: Sequence[Alarm], settings: CloudWatchSettings) -> list[Artefact]:
    """The body as it is, and a template that makes the dashboard in any account."""
    whole = body(compiled, alarms, settings)
    board = {
        "Type": "AWS::CloudWatch::Dashboard",
        "Properties": {
            "DashboardName": f"{settings.prefix}overview",
            "DashboardBody": {"Fn::Sub": json.dumps(_in_any_account(whole, settings))},
        },
    }
    return [
        Artefact(BODY, json.dumps(whole, indent=2) + "\n"),
        Artefact(TEMPLATE, template({"Dashboard": board}, "The dashboard of all service level objectives.")),
    ]


def body(compiled: Sequence[CompiledSlo], alarms: Sequence[Alarm], settings: CloudWatchSettings) -> dict[str, Any]:
    """The dashboard: on top who is told of what, then the SLOs."""
    by_name = {alarm.name: alarm for alarm in alarms}
    told = [alarm for alarm in alarms if alarm.actions]
    widgets = [*_states(told, settings)]
    row = sum(widget["height"] for widget in widgets)
    for one in compiled:
        watched = [by_name[name] for name in burn_names(one, settings.prefix).values() if name in by_name]
        composites = [alarm for alarm in watched if isinstance(alarm, CompositeAlarm)]
        # The long window's child comes first in each composite's rule.
        longs = [by_name[composite.reads[0]] for composite in composites]
        burning = [alarm for alarm in longs if isinstance(alarm, MetricAlarm)]
        if burning and burning[0].evaluation_periods > 1:
            burning = burning[:1]  # the values of a gauge are the same, whatever the window
        if burning:
            widgets += _of_slo(one, burning, row)
            row += _SMALL + _HEIGHT
    return {"start": "-PT6H", "periodOverride": "inherit", "widgets": widgets[:WIDGETS_MAX]}


def _states(told: Sequence[Alarm], settings: CloudWatchSettings) -> Iterator[dict[str, Any]]:
    """The alarms that tell somebody, by component."""
    y = 0
    for component in sorted({alarm.tags.get(COMPONENT_TAG, "") for alarm in told}):
        arns = [_arn(alarm, settings) for alarm in told if alarm.tags.get(COMPONENT_TAG, "") == component]
        for begin in range(0, len(arns), ALARMS_OF_WIDGET_MAX):
            part = arns[begin : begin + ALARMS_OF_WIDGET_MAX]
            yield _widget("alarm", (0, y), (_WIDTH, _HEIGHT), title=f"{component}: who is told", alarms=part)
            y += _HEIGHT


def _of_slo(compiled: CompiledSlo, burning: Sequence[MetricAlarm], y: int) -> list[dict[str, Any]]:
    slo = compiled.slo
    text = f"### {slo.id_path}: {names.number(slo.objective)} %\n{slo.description}"
    heading = _widget("text", (0, y), (_WIDTH, _SMALL), markdown=text)
    limits = [float(limit) for limit in dict.fromkeys(alarm.threshold for alarm in burning)]
    region = burning[0].region
    burns = [metric for number, alarm in enumerate(burning) for metric in _drawn(alarm, f"w{number}_", alarm.name)]
    events = list(_drawn(burning[0], "e_", None))
    return [
        heading,
        _graph("What the alarms judge, with their limits", burns, (0, y + _SMALL), region, limits),
        _graph("What that is made of", events, (_HALF, y + _SMALL), region),
    ]


def _graph(
    title: str, metrics: Sequence[Any], at: tuple[int, int], region: str, limits: Sequence[float] = ()
) -> dict[str, Any]:
    drawn = [{"value": limit, "label": f"{limit:g}"} for limit in limits]
    lines = {"annotations": {"horizontal": drawn}} if drawn else {}
    size = (_HALF, _HEIGHT)
    return _widget("metric", at, size, title=title, region=region, view="timeSeries", metrics=metrics, **lines)


def _widget(kind: str, at: tuple[int, int], size: tuple[int, int], **properties: Any) -> dict[str, Any]:  # noqa: ANN401 - plain data
    return {"type": kind, "x": at[0], "y": at[1], "width": size[0], "height": size[1], "properties": properties}


def _drawn(alarm: MetricAlarm, begin: str, label: str | None) -> Iterator[list[Any]]:
    """An alarm's queries as a graph's; only its value is seen, or without a label only what its value is made of."""
    counted = any(query.id in _COUNTS for query in alarm.queries)
    for query in alarm.queries:
        parts = query.id in _COUNTS if counted else isinstance(query, MetricStat)
        seen = query.returned if label else parts
        yield _metric(query, begin, alarm.queries, label=label, visible=seen)


def _metric(query: Query, begin: str, queries: Sequence[Query], *, label: str | None, visible: bool) -> list[Any]:
    if isinstance(query, MetricStat):
        dimensions = [text for pair in query.dimensions.items() for text in pair]
        options: dict[str, Any] = {
            "id": begin + query.id,
            "stat": query.statistic,
            "period": query.period_seconds,
            "visible": visible,
        }
        options |= {"label": label} if label and visible else {}
        return [query.namespace, query.name, *dimensions, options]
    renamed = _renamed(query, begin, queries)
    return [{"id": begin + query.id, "expression": renamed, "label": label or query.label, "visible": visible}]


def _renamed(query: Expression, begin: str, queries: Sequence[Query]) -> str:
    """The expression with every id as it is called on the graph."""
    ids = "|".join(re.escape(other.id) for other in queries)
    return re.sub(rf"\b({ids})\b", rf"{begin}\1", query.expression)


def _arn(alarm: Alarm, settings: CloudWatchSettings) -> str:
    return f"arn:{partition(alarm.region)}:cloudwatch:{alarm.region}:{settings.account}:alarm:{alarm.name}"


def _in_any_account(whole: dict[str, Any], settings: CloudWatchSettings) -> dict[str, Any]:
    """The same body with the account that the stack is made in."""
    text = json.dumps(whole).replace("${", "${!").replace(f":{settings.account}:alarm:", ":${AWS::AccountId}:alarm:")
    replaced: dict[str, Any] = json.loads(text)
    return replaced
