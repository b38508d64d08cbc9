"""What the figures on the boards are, calculated by promtool from recorded series that are given."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from dashboards import alerts, panels
from dashboards.marks import deployments
from dashboards.queries import Queries
from dashboards.render import render
from drills.harness import tool
from slo import Severity
from slo import conventions as names
from slo.definitions import redemption
from slo.windows import DAY, HOUR
from tests.dashboards.conftest import LINKS, MIXED, OURS, SHIPPED, Generated

pytestmark = pytest.mark.e2e

_ASK = Queries.of(SHIPPED, which={})
_PERIOD_SECONDS = 30 * 86_400
_IDENTITY = names.identity_labels(redemption.availability)
_ROW = {name: value for name, value in _IDENTITY.items() if name != "sloth_id"}


def _series(record: str, **more: str) -> str:
    labels = ", ".join(f'{name}="{value}"' for name, value in {**_IDENTITY, **more}.items())
    return f"{record}{{{labels}}}"


def _check(
    folder: Path, given: Mapping[str, float | str], expected: Mapping[str, Mapping[str, float]], at: str = "5m"
) -> None:
    """Have promtool calculate queries from given series.

    Args:
        folder: For promtool's file.
        given: Series -> its value, or its values a minute in promtool's notation.
        expected: Query -> labels, as Prometheus writes them -> value.
        at: When to ask.
    """
    test = {
        "interval": "1m",
        "input_series": [
            {"series": one, "values": values if isinstance(values, str) else f"{values}x60"}
            for one, values in given.items()
        ],
        "promql_expr_test": [
            {
                "expr": expr,
                "eval_time": at,
                "exp_samples": [{"labels": labels, "value": value} for labels, value in samples.items()],
            }
            for expr, samples in expected.items()
        ],
    }
    file = folder / "test.yaml"
    file.write_text(json.dumps({"evaluation_interval": "1m", "tests": [test]}))
    run = subprocess.run([tool("promtool"), "test", "rules", file], check=False, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr


def _row(labels: Mapping[str, str] = _ROW) -> str:
    return "{" + ", ".join(f'{name}="{value}"' for name, value in labels.items()) + "}"


@pytest.mark.parametrize(
    ("left", "burn", "seconds"),
    [
        (0.5, 14.4, 0.5 * _PERIOD_SECONDS / 14.4),
        (0.5, 0.5, _PERIOD_SECONDS),
        (0.5, 0.1, _PERIOD_SECONDS),
        (0.5, 0, _PERIOD_SECONDS),
        (0, 2, 0),
        (-1.25, 2, 0),
        (-1.25, 0, 0),
    ],
    ids=["fast", "just", "slow", "not", "empty", "overspent", "overspent-and-quiet"],
)
def test_time_to_exhaustion(tmp_path: Path, left: float, burn: float, seconds: float) -> None:
    """What is left over the burn, of the period; the whole period at most, and 0 once the budget is gone."""
    recorded = {
        _series(names.ERROR_BUDGET_REMAINING): left,
        _series(f"{names.ERROR_BUDGET_BURN}1h", sloth_window="1h"): burn,
        _series(names.TIME_PERIOD): 30,
    }
    _check(tmp_path, recorded, {_ASK.seconds_to_exhaustion(): {_row(): seconds}})


def test_an_slo_without_data_is_not_said_to_last(tmp_path: Path) -> None:
    """Where nothing is measured, no time to exhaustion is shown, rather than a comforting one."""
    recorded = {_series(names.TIME_PERIOD): 30, _series(names.OBJECTIVE): 0.9999}
    _check(tmp_path, recorded, {_ASK.seconds_to_exhaustion(): {}, _ASK.worst_burn(): {}, _ASK.budget_left(): {}})


def test_the_budget_left_in_events(tmp_path: Path) -> None:
    """A quarter of the budget of 0.01 bad events per second over 30 days."""
    recorded = {
        _series(names.ERROR_BUDGET_REMAINING): 0.25,
        _series(names.ERROR_BUDGET_RATE): 0.01,
        _series(names.TIME_PERIOD): 30,
    }
    _check(tmp_path, recorded, {_ASK.budget_left_events(): {_row(): 0.25 * 0.01 * _PERIOD_SECONDS}})


def test_the_good_events_of_the_period(tmp_path: Path) -> None:
    """Twice the budget spent at 99.9 % leaves 99.8 % good events."""
    recorded = {_series(names.PERIOD_BURN_RATE): 2, _series(names.ERROR_BUDGET): 0.001}
    _check(tmp_path, recorded, {_ASK.good_in_period(): {_row(): 0.998}})


def test_the_worst_burn_is_that_of_any_long_window(tmp_path: Path) -> None:
    """A leak that only the three-day window shows counts; a short window's peak does not."""
    recorded = {
        _series(f"{names.ERROR_BUDGET_BURN}{window}", sloth_window=window): burn
        for window, burn in {"5m": 900, "1h": 0.5, "6h": 1.5, "1d": 2, "3d": 2.5}.items()
    }
    _check(tmp_path, recorded, {_ASK.worst_burn(): {_row(): 2.5}})


@pytest.mark.parametrize(("burn", "burning"), [(1.1, 1), (1.0, 0)], ids=["above", "at"])
def test_an_slo_burns_above_one(tmp_path: Path, burn: float, burning: int) -> None:
    """The overview counts the SLOs whose budget does not last; at 1 it just does. None that burns is 0, not blank."""
    board = Generated(SHIPPED, render(SHIPPED, LINKS)).boards[names.OVERVIEW_UID]
    panel = next(panel for panel in board["panels"] if panel["title"] == "SLOs burning")
    recorded = {_series(f"{names.ERROR_BUDGET_BURN}6h", sloth_window="6h"): burn}
    _check(tmp_path, recorded, {panel["targets"][0]["expr"]: {"{}": burning}})


def test_a_changed_label_gives_no_second_row(tmp_path: Path) -> None:
    """While an SLO's series with the old and the new owner live on together, every figure is still one."""
    recorded = {
        _series(record, owner=owner): value
        for owner in ("old", "new")
        for record, value in {
            names.ERROR_BUDGET_REMAINING: 0.5,
            names.TIME_PERIOD: 30,
            f"{names.ERROR_BUDGET_BURN}1h": 15,
        }.items()
    }
    expected = {
        _ASK.budget_left(): {_row(): 0.5},
        _ASK.seconds_to_exhaustion(): {_row(): 0.5 * _PERIOD_SECONDS / 15},
        _ASK.worst_burn(): {_row(): 15.0},
    }
    _check(tmp_path, recorded, expected)


@pytest.mark.parametrize(
    ("days", "month", "factor"),
    [(30, False, 14.4), (28, False, 13.44), (28, True, 14.4), (30, True, 14.4), (1, False, 12)],
    ids=["30-days", "28-days", "february", "june", "day"],
)
def test_an_slo_has_the_lines_of_its_own_period(tmp_path: Path, days: int, month: bool, factor: float) -> None:  # noqa: FBT001
    """With SLOs of every period on one board, exactly one fast page's line has a value, at the SLO's own factor."""
    recorded = {_series(names.TIME_PERIOD): float(days)}
    if month:
        recorded[_series(names.SLI_ERROR + names.MONTH)] = 0
    ask = Queries.of(MIXED, which={})
    fast = [query for name, query in ask.limits(Severity.PAGE) if "(1h and 5m)" in name]
    assert len(fast) == 3
    _check(tmp_path, recorded, {" or ".join(f"({query})" for query in fast): {_row(): factor}})
    drawn = " + ".join(f"(count({query}) or vector(0))" for query in fast)
    _check(tmp_path, recorded, {drawn: {"{}": 1}})


def test_the_events_of_a_coarse_window_have_no_gaps(tmp_path: Path) -> None:
    """The bad events of a day are recorded every five minutes, and are still there ten minutes later."""
    given = {_series(names.BAD_EVENTS_INCREASE + names.duration(window)): "7" for window in (HOUR, DAY)}
    _check(tmp_path, given, {_ASK.bad_events(DAY): {_row(): 7}, _ASK.bad_events(HOUR): {}}, at="10m")


def _fired(span: str) -> str:
    """The query of the table of alerts, over a span."""
    panel = alerts.table(_ASK.firing(), LINKS)
    return str(panel.targets[0].expr).replace(panels.TIME_SHOWN, span)


def test_alerts_that_fire_and_that_are_over(tmp_path: Path) -> None:
    """An alert that fires is 1, one that fired in the span is 0, and one that was only pending is not there."""
    labels = 'alertstate="{}", alertname="{}", severity="page", service="shop"'
    given = {
        f"ALERTS{{{labels.format('firing', 'Now')}}}": "1x60",
        f"ALERTS{{{labels.format('firing', 'Before')}}}": "1x10 _x50",
        f"ALERTS{{{labels.format('pending', 'Pending')}}}": "1x60",
    }
    expected = {
        f'{{alertname="{name}", service="shop", severity="page"}}': value
        for name, value in {"Now": 1, "Before": 0}.items()
    }
    _check(tmp_path, given, {_fired("1h"): expected}, at="50m")


def test_a_release_is_marked_and_a_new_pod_of_an_old_one_is_not(tmp_path: Path) -> None:
    """A replica set that has its first pods is a release; one that gets another pod, or loses one, is none."""
    restarts = 'kube_pod_container_status_restarts_total{{container="service", namespace="shop", pod="{}"}}'
    given = {
        restarts.format("web-5d4c9f7b8c-aaaaa"): "0x60",
        restarts.format("web-5d4c9f7b8c-bbbbb"): "_x30 0x30",
        restarts.format("web-7f6d5c4b9d-ccccc"): "_x30 0x30",
    }
    (mark,) = deployments(OURS)
    expr = str(mark["target"]["expr"])
    _check(tmp_path, given, {expr: {'{namespace="shop", release="web-7f6d5c4b9d"}': 1}}, at="31m")
    _check(tmp_path, given, {expr: {}}, at="50m")
