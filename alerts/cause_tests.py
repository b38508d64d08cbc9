"""promtool unit tests for the rules of causes: each fires after its hold and not before, and is silent when nearly so.

A threshold's examples follow from its limit; a query has its own. Open labels get values that say what they are.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import timedelta
from decimal import Decimal
from typing import Any

from slo import conventions as names
from slo import promql
from slo.causes import Cause, Query, Threshold
from slo.windows import MINUTE

EVALUATION = MINUTE  # CloudWatch has a new value once a minute
_RANGE = re.compile(r"\[(\d+)([smhd])\]")
_UNIT_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}


def test_file(rule_file: str, causes: Sequence[Cause]) -> dict[str, Any]:
    """The tests of one file of rules."""
    return {
        "rule_files": [f"../rules/{rule_file}.yaml"],
        "evaluation_interval": names.duration(EVALUATION),
        "tests": [test for cause in causes for test in _tests(cause)],
    }


def _tests(cause: Cause) -> list[dict[str, Any]]:
    fires, near_miss = _examples(cause)
    fired = _settled(cause) + cause.hold + EVALUATION
    early = cause.hold - EVALUATION
    return [
        _test(f"{cause.alert_name} fires: after {names.duration(cause.hold)}, not before", cause, fires, fired, early),
        _test(f"{cause.alert_name} near miss", cause, near_miss, None, fired),
    ]


def _test(
    name: str, cause: Cause, example: Mapping[str, str], fired: timedelta | None, silent: timedelta
) -> dict[str, Any]:
    # The labels of what fires come from the series; those that the rule adds tell the one from the other.
    wanted = {"alertname": cause.alert_name, "alertstate": "firing", **cause.labels}
    expr = f"count(ALERTS{promql.matchers(wanted)})"
    checks: list[dict[str, Any]] = []
    if silent > timedelta(0):
        checks.append({"expr": expr, "eval_time": names.duration(silent), "exp_samples": []})
    if fired is not None:
        checks.append({"expr": expr, "eval_time": names.duration(fired), "exp_samples": [{"labels": "{}", "value": 1}]})
    steps = (fired or silent) // MINUTE
    return {
        "name": name,
        "interval": names.duration(MINUTE),
        "input_series": [
            {"series": series, "values": values if "x" in values else f"{values}x{steps}"}
            for series, values in example.items()
        ],
        "promql_expr_test": checks,
    }


def _settled(cause: Cause) -> timedelta:
    """The longest range that its query looks back; what a range has not seen in full may fire later."""
    ranges = _RANGE.findall(cause.condition.promql)
    return max((timedelta(seconds=int(count) * _UNIT_SECONDS[unit]) for count, unit in ranges), default=timedelta(0))


def _examples(cause: Cause) -> tuple[Mapping[str, str], Mapping[str, str]]:
    match cause.condition:
        case Query() as query:
            return query.fires, query.near_miss
        case Threshold() as threshold:
            series = _series(threshold)
            return {series: names.number(_beyond(threshold))}, {series: names.number(_limit(threshold))}


def _limit(threshold: Threshold) -> Decimal:
    limit = threshold.above if threshold.above is not None else threshold.below
    assert limit is not None, "Threshold.problems() allows none without a limit"
    return limit


def _beyond(threshold: Threshold) -> Decimal:
    """A tenth, or where that is nothing 1, beyond the limit."""
    limit = _limit(threshold)
    distance = abs(limit) / 10 or Decimal(1)
    return limit + distance if threshold.above is not None else limit - distance


def _series(threshold: Threshold) -> str:
    metric, selected = threshold.gauge.metric, threshold.gauge.values
    closed = {label: selected.get(label, values)[0] for label, values in metric.labels.items()}
    opened = {label: _EXAMPLE_VALUES.get(label, f"some-{label}") for label in metric.open_labels}
    return metric.name + promql.matchers({**closed, **opened})


_EXAMPLE_VALUES = {"aws_account_id": "123456789012", "aws_region": "eu-central-1"}
