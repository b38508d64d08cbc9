"""Every panel shows something: the boards' own queries, asked of a real Prometheus that runs the generated rules."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from alerts import prometheus as rules
from dashboards import panels
from drills.harness import Prometheus, prometheus, wait_until
from slo import CalendarMonth, Rolling, Window, compile_slo
from slo import conventions as names
from slo.definitions import redemption
from slo.metrics import BAD_OUTCOMES, REDEMPTION_REQUESTS
from slo.windows import policy
from tests.dashboards.conftest import LINKS, Generated, generate, panels_of

pytestmark = pytest.mark.e2e

_EVENTS_PER_SECOND = 900
_BAD_SHARE = 0.2

# A month in twelve hours: 5 minutes are 5 seconds, and rules run twice a second.
_DIVISOR = 60


_BOARDS = (names.OVERVIEW_UID, names.DETAIL_UID)  # all others are asked in test_live_components.py

_PERIODS: dict[str, Window] = {"thirty": Rolling(30), "month": CalendarMonth(), "four-weeks": Rolling(28)}


class _Requests(Collector):
    """Requests at an even rate, a fifth of them bad, counted from the moment of the first scrape."""

    def __init__(self) -> None:
        self._started = time.monotonic()

    def describe(self) -> list[CounterMetricFamily]:
        return []

    def collect(self) -> Iterator[CounterMetricFamily]:
        events = _EVENTS_PER_SECOND * (time.monotonic() - self._started)
        family = CounterMetricFamily(
            REDEMPTION_REQUESTS.name, REDEMPTION_REQUESTS.help, labels=list(REDEMPTION_REQUESTS.labels)
        )
        sets = list(REDEMPTION_REQUESTS.label_sets())
        bad = [one for one in sets if one["outcome"] in BAD_OUTCOMES]
        for labels in sets:
            share = _BAD_SHARE / len(bad) if labels in bad else (1 - _BAD_SHARE) / (len(sets) - len(bad))
            family.add_metric(list(labels.values()), round(share * events))
        yield family


@contextmanager
def _exposition() -> Iterator[str]:
    """Serve the requests' metrics on a free loopback port."""
    registry = CollectorRegistry()
    registry.register(_Requests())
    server, thread = start_http_server(0, "127.0.0.1", registry)
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@dataclass(frozen=True)
class _Live:
    """Boards and the Prometheus that they ask."""

    generated: Generated
    prometheus: Prometheus

    def asked(self, uid: str, slo: str) -> dict[tuple[str, str], list[float]]:
        """Panel and query -> the values that Prometheus has now, for one SLO."""
        variables = {"$service": "redemption", "$slo": slo, panels.TIME_SHOWN: "1h"}
        return {
            (panel["title"], target["legendFormat"]): [
                sample.value for sample in self.prometheus.query(_filled(target["expr"], variables))
            ]
            for panel in panels_of(self.generated.boards[uid])
            for target in panel["targets"]
        }


def _filled(expr: str, variables: Mapping[str, str]) -> str:
    for name, value in variables.items():
        expr = expr.replace(name, value)
    return expr


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[_Live]:
    """SLOs with every kind of period under fire for some seconds, long enough for a page."""
    slos = [replace(redemption.availability, name=name, window=window) for name, window in _PERIODS.items()]
    compiled = [compile_slo(slo, policy(slo.window).scaled(_DIVISOR)) for slo in slos]
    folder = tmp_path_factory.mktemp("rules")
    files = []
    for one in compiled:
        file = folder / f"{one.slo.id}.yaml"
        file.write_text(json.dumps({"groups": rules.rule_groups(one, LINKS)}))
        files.append(file)
    generated = generate(compiled)
    with _exposition() as target, prometheus(rules=files, targets={"redemption": [target]}) as server:
        live = _Live(generated, server)
        wait_until("all panels have data", lambda: not _empty(live), 90)
        yield live


def _empty(live: _Live) -> list[Any]:
    """The queries without a value, but for the lines of other SLOs' policies."""
    return [
        (slo, *query)
        for slo in _PERIODS
        for uid in _BOARDS
        for query, values in live.asked(uid, slo).items()
        if not values and "above" not in query[1]
    ]


def test_every_query_of_every_panel_has_a_value(live: _Live) -> None:
    """With data, no panel is empty on either board for any SLO, and no value is NaN or infinite."""
    assert not _empty(live)
    for slo in _PERIODS:
        for uid in _BOARDS:
            for query, values in live.asked(uid, slo).items():
                assert all(math.isfinite(value) for value in values), query


def test_the_figures_are_true(live: _Live) -> None:
    """A fifth of the requests fails, so the boards show a fifth, and a burn of 2,000 at 99.99 %."""
    shown = live.asked(names.DETAIL_UID, "thirty")
    (objective,) = shown["Objective", "Objective"]
    assert objective == pytest.approx(0.9999)
    (ratio,) = shown["Error ratio", "1m"]
    assert ratio == pytest.approx(_BAD_SHARE, rel=0.1)
    (allowed,) = shown["Error ratio", "allowed"]
    assert allowed == pytest.approx(0.0001)
    (good,), (bad,) = shown["Events per second", "good"], shown["Events per second", "bad"]
    assert bad / (good + bad) == pytest.approx(_BAD_SHARE, rel=0.1)
    (burn,) = shown["Burn now", "Burn now"]
    assert burn == pytest.approx(_BAD_SHARE / 0.0001, rel=0.1)
    (left,) = shown["Budget left", "Budget left"]
    assert left < 0
    (seconds,) = shown["Budget gone in", "Budget gone in"]
    assert seconds == 0


def test_the_overview_has_a_row_for_each_slo(live: _Live) -> None:
    """All SLOs are in every column of the table, burn, and page."""
    shown = live.asked(names.OVERVIEW_UID, "any")
    assert {len(values) for (title, _), values in shown.items() if title == "All SLOs"} == {3}
    assert shown["SLOs burning", "SLOs burning"] == [3]
    assert shown["Pages firing", "Pages firing"] == [3]


@pytest.mark.parametrize(
    ("slo", "page", "ticket"),
    [
        ("thirty", [6, 14.4], [1, 3]),
        ("month", [6, 14.4], [1, 3]),
        ("four-weeks", [5.6, 13.44], [pytest.approx(28 / 30), 2.8]),
    ],
)
def test_the_lines_are_those_of_the_chosen_slo(live: _Live, slo: str, page: list[float], ticket: list[float]) -> None:
    """Of the lines of all SLOs' policies, those of the chosen one are drawn, each at its factor and once."""
    drawn = live.asked(names.DETAIL_UID, slo)
    for title, factors in (("Budget burn, page", page), ("Budget burn, ticket", ticket)):
        lines = [
            value for (panel, query), values in drawn.items() if panel == title and "above" in query for value in values
        ]
        assert sorted(lines) == factors


def test_the_alerts_that_fire_are_listed_and_marked(live: _Live) -> None:
    """The page that fires is in the table of alerts and in the annotation, with the name that its runbook has."""
    board = live.generated.boards[names.DETAIL_UID]
    variables = {"$service": "redemption", "$slo": "thirty", panels.TIME_SHOWN: "1h"}
    table = next(panel for panel in board["panels"] if panel["title"] == "Alerts")
    (annotation,) = board["annotations"]["list"]
    for target in (table["targets"][0], annotation["target"]):
        firing = live.prometheus.query(_filled(target["expr"], variables))
        assert "RedemptionThirtyPage" in {sample.labels["alertname"] for sample in firing}


def test_the_variables_offer_what_exists(live: _Live) -> None:
    """The chained variables offer the service, then its SLOs."""
    service, slo = live.generated.boards[names.DETAIL_UID]["templating"]["list"][1:]
    assert _offered(live, service["query"]) == ["redemption"]
    assert _offered(live, slo["query"]) == sorted(_PERIODS)


def _offered(live: _Live, query: str) -> list[str]:
    """What `label_values(selector, label)` gives: the API call that Grafana makes of it."""
    selector, _, label = query.removeprefix("label_values(").removesuffix(")").rpartition(", ")
    found: list[str] = live.prometheus.api(
        f"label/{label}/values", **{"match[]": _filled(selector, {"$service": "redemption"})}
    )
    return found
