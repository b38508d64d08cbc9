"""Every panel of every board shows something: a real service under traffic, and example values of all else.

One Prometheus scrapes the redemption service, its worker, an exposition of every other metric of the catalogue, and
itself, while it runs the rules of all our promises.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import pytest

from alerts import prometheus as rules
from dashboards import panels
from drills.drawing import Source, picture
from drills.examples import exposition
from drills.harness import (
    Load,
    Prometheus,
    alertmanager,
    free_ports,
    ledger_database,
    prometheus,
    service,
    traffic,
    wait_until,
    worker,
)
from slo import compile_slo
from slo import conventions as names
from slo.causes import Component
from slo.metrics import REDEMPTION_METRICS, REDEMPTION_WORKER_METRICS
from slo.windows import policy
from tests.dashboards.conftest import LINKS, OURS, Generated, generate, panels_of

pytestmark = pytest.mark.e2e

# A month in twelve hours: windows of five minutes are five seconds.
_DIVISOR = 60
_SECONDS_MAX = 90
_NOBODY = json.dumps({"route": {"receiver": "nobody"}, "receivers": [{"name": "nobody"}]})

# Board and panel -> why nothing is there while all is well. A panel that shows something after all is a mistake here.
MAY_BE_EMPTY: Mapping[tuple[str, str], str] = {
    ("component-service", "Oldest deferred redemption"): "nothing is deferred while the ledger answers",
    ("flash-sale", "Oldest deferred redemption"): "as above",
    ("component-service", "Alerts"): "nothing of it is wrong; tests/dashboards/test_live.py has alerts of an SLO",
    ("component-rds", "Alerts"): "as above",
    ("component-redis", "Alerts"): "as above",
    ("component-queue", "Alerts"): "as above",
    ("slo-detail", "Alerts"): "as above",
}
# A query that is one of several in its panel, and has a value only for some.
_ONE_OF_SEVERAL = "above"


@dataclass(frozen=True)
class _Live:
    generated: Generated
    prometheus: Prometheus

    def empty(self) -> set[tuple[str, str, str]]:
        """Board, panel and series of each query that has no value now."""
        return {
            (uid, panel["title"], target["legendFormat"])
            for uid, board in self.generated.boards.items()
            for panel in panels_of(board)
            for target in panel["targets"]
            if not self.prometheus.query(filled(target["expr"])) and _ONE_OF_SEVERAL not in target["legendFormat"]
        }


def filled(expr: str) -> str:
    """A query as Grafana would send it, with all chosen."""
    for variable, value in {
        panels.RATE_INTERVAL: "10s",
        panels.TIME_SHOWN: "1h",
        '"$service"': '"redemption"',
        '"$slo"': '"availability"',
    }.items():
        expr = expr.replace(variable, value)
    for label in ("instance", "db_instance", "replication_group", "namespace", "load_balancer", "queue"):
        expr = expr.replace(f'"${label}"', '".*"')
    return expr


def _causes() -> dict[str, Any]:
    """The rules of the causes that fire in a sale, without their patience."""
    firing = [cause for cause in OURS.causes if cause.component in (Component.EDGE, Component.EKS)]
    patience = timedelta(seconds=1)
    rules_of = [rules.cause_rule(replace(cause, hold=patience), LINKS) for cause in firing]
    return {"name": "causes", "interval": "1s", "rules": rules_of}


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[_Live]:
    """All boards, and the Prometheus that they ask."""
    compiled = [compile_slo(slo, policy(slo.window).scaled(_DIVISOR)) for slo in OURS.slos]
    folder = tmp_path_factory.mktemp("rules")
    files = []
    for one in compiled:
        file = folder / f"{one.slo.id}.yaml"
        file.write_text(json.dumps({"groups": rules.rule_groups(one, LINKS)}))
        files.append(file)
    file = folder / "causes.yaml"
    file.write_text(json.dumps({"groups": [_causes()]}))
    files.append(file)
    real = {*REDEMPTION_METRICS, *REDEMPTION_WORKER_METRICS}
    others = [metric for source in OURS.sources for metric in source.metrics if metric not in real]
    with ExitStack() as stack:
        database = stack.enter_context(ledger_database())
        database.accrue(["account-1", "account-2"], 1_000_000)
        serving = stack.enter_context(service(database.url))
        working = stack.enter_context(worker(database.worker_url, {"REDEMPTION_VERIFY_SECONDS": "2"}))
        stack.enter_context(traffic(serving.url, ["account-1", "account-2"], Load(per_second=20), serving.headers))
        examples = stack.enter_context(exposition(dict.fromkeys(others)))
        people = stack.enter_context(alertmanager(_NOBODY))
        (own,) = free_ports(1)
        server = stack.enter_context(
            prometheus(
                rules=files,
                targets={
                    "redemption": [serving.address],
                    "worker": [working.address],
                    "exporters": [examples],
                    "prometheus": [f"127.0.0.1:{own}"],
                },
                alertmanager_url=people.url,
                flags=[f"--web.listen-address=127.0.0.1:{own}", "--enable-feature=exemplar-storage"],
            )
        )
        found = _Live(generate(compiled, OURS), server)
        wait_until(
            "all panels have data",
            lambda: {(uid, title) for uid, title, _ in found.empty()} <= set(MAY_BE_EMPTY),
            _SECONDS_MAX,
        )
        yield found


def test_every_query_of_every_panel_has_a_value(live: _Live) -> None:
    """No panel of any board is empty but for those that say why, and those are."""
    assert {(uid, title) for uid, title, _ in live.empty()} == set(MAY_BE_EMPTY)
    assert all(MAY_BE_EMPTY.values())


def test_no_figure_is_without_meaning(live: _Live) -> None:
    """Of what a stat or a table shows, nothing is infinite or no number."""
    for board in live.generated.boards.values():
        for panel in panels_of(board):
            if panel["type"] in ("stat", "table"):
                for target in panel["targets"]:
                    for sample in live.prometheus.query(filled(target["expr"])):
                        assert math.isfinite(sample.value), (panel["title"], target["expr"])


def test_redemptions_have_exemplars(live: _Live) -> None:
    """The service's traces are found by the query of the panel that shows them."""
    board = live.generated.boards[names.component_uid("service")]
    panel: dict[str, Any] = next(one for one in panels_of(board) if one["title"] == "Spread of redemptions")
    now = live.prometheus.value("time()")
    assert now is not None
    found = live.prometheus.api("query_exemplars", query=filled(panel["targets"][0]["expr"]), start=now - 600, end=now)
    assert {label for one in found for each in one["exemplars"] for label in each["labels"]} == {"trace_id"}


def test_the_variables_offer_what_exists(live: _Live) -> None:
    """Each variable of each board has at least one value to choose."""
    for uid, board in live.generated.boards.items():
        for variable in board["templating"]["list"]:
            if variable["type"] == "query":
                selector, _, label = variable["query"].removeprefix("label_values(").removesuffix(")").rpartition(", ")
                assert live.prometheus.api(f"label/{label}/values", **{"match[]": filled(selector)}), (uid, label)


def test_every_annotation_can_be_asked(live: _Live) -> None:
    """Marks are queries too: Prometheus takes each of them."""
    for board in live.generated.boards.values():
        for annotation in board["annotations"]["list"]:
            live.prometheus.query(filled(annotation["target"]["expr"]))


def test_a_board_is_drawn_from_its_own_queries(live: _Live) -> None:
    """The picture of a board with every kind of panel is a PNG that is as wide as the grid."""
    now = live.prometheus.value("time()")
    assert now is not None
    source = Source(live.prometheus, now - 20, now, timedelta(seconds=1), filled)
    png = picture(live.generated.boards[names.component_uid("service")], source)
    assert png.startswith(b"\x89PNG")
    assert int.from_bytes(png[16:20]) == 1075  # 24 columns of 0.56 inches, 80 dots each
