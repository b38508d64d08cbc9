"""A Thanos in place of one Prometheus: the same answers, and the same rules with the same alerts."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from alerts import prometheus as rules
from drills.harness import (
    HarnessError,
    Prometheus,
    Sample,
    ThanosQuery,
    prometheus,
    thanos_query,
    thanos_rule,
    thanos_sidecar,
    wait_until,
)
from drills.harness.thanos import REPLICA_LABEL
from slo import compile_slo
from slo import conventions as names
from slo.definitions import redemption
from slo.metrics import BAD_OUTCOMES, REDEMPTION_REQUESTS
from slo.settings import Links
from slo.windows import policy

pytestmark = pytest.mark.cluster

_LINKS = Links(
    grafana="https://grafana.example.com",
    runbooks="https://docs.example.com/runbooks",
    traces="https://traces.example.com",
    logs="https://logs.example.com",
)

_EVENTS_PER_SECOND = 900
_DIVISOR = 60  # 5 minutes are 5 seconds
_CLUSTER = "cluster"
_SETTLED = timedelta(seconds=3)  # no scrape changes what was so long ago
_SECONDS_MAX = 60.0


class _Requests(Collector):
    """Requests at an even rate, half of them bad."""

    def __init__(self) -> None:
        self._started = time.monotonic()

    def collect(self) -> Iterator[CounterMetricFamily]:
        events = round(_EVENTS_PER_SECOND * (time.monotonic() - self._started))
        family = CounterMetricFamily(
            REDEMPTION_REQUESTS.name, REDEMPTION_REQUESTS.help, labels=list(REDEMPTION_REQUESTS.labels)
        )
        sets = list(REDEMPTION_REQUESTS.label_sets())
        good = next(labels for labels in sets if labels["outcome"] not in BAD_OUTCOMES)
        bad = next(labels for labels in sets if labels["outcome"] in BAD_OUTCOMES)
        for labels in (good, bad):
            family.add_metric(list(labels.values()), events // 2)
        yield family


@contextmanager
def _exposition() -> Iterator[str]:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Requests())
    server, thread = start_http_server(0, "127.0.0.1", registry)
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@dataclass(frozen=True)
class _Pair:
    """Two Prometheuses with the same target, and a querier over both."""

    servers: Sequence[Prometheus]
    querier: ThanosQuery


@pytest.fixture(scope="module")
def pair() -> Iterator[_Pair]:
    """Both have scraped for longer than the shortest window."""
    with ExitStack() as stack:
        target = stack.enter_context(_exposition())
        servers = [stack.enter_context(_replica(target, name)) for name in ("a", "b")]
        sidecars = [stack.enter_context(thanos_sidecar(server)) for server in servers]
        yield _Pair(servers, stack.enter_context(thanos_query(*sidecars)))


@contextmanager
def _replica(target: str, name: str) -> Iterator[Prometheus]:
    settings = {
        "scrape_interval": "1s",
        "scrape_timeout": "1s",
        "external_labels": {_CLUSTER: "x", REPLICA_LABEL: name},
    }
    with prometheus(targets={"redemption": [target]}, config={"global": settings}) as server:
        yield server


@pytest.fixture(scope="module")
def groups() -> list[dict[str, Any]]:
    """The rules of the availability SLO, a month in twelve hours."""
    slo = replace(redemption.availability, name="thanos")
    found: list[dict[str, Any]] = rules.rule_groups(compile_slo(slo, policy(slo.window).scaled(_DIVISOR)), _LINKS)
    return found


def _counted(samples: Sequence[Sample]) -> Counter[tuple[frozenset[tuple[str, str]], float]]:
    """Samples without the labels by which a querier tells Prometheuses apart."""
    return Counter(
        (
            frozenset((name, text) for name, text in one.labels.items() if name not in {_CLUSTER, REPLICA_LABEL}),
            one.value,
        )
        for one in samples
    )


def test_a_querier_answers_what_prometheus_answers(pair: _Pair, groups: list[dict[str, Any]]) -> None:
    """Every expression of the rules has the same samples from Thanos as from the Prometheus that holds the series."""
    expressions = [rule["expr"] for group in groups for rule in group["rules"]]
    first = pair.servers[0]
    with thanos_sidecar(first) as sidecar, thanos_query(sidecar) as querier:
        events = f"rate({REDEMPTION_REQUESTS.name}[5s])"
        wait_until("there are rates", lambda: len(first.query(events)) == 2, _SECONDS_MAX)
        time.sleep(_SETTLED.total_seconds())
        at = time.time() - _SETTLED.total_seconds()

        answers = {expr: _counted(first.query(expr, at)) for expr in [events, *expressions]}
        assert sum(map(bool, answers.values())) > 2  # the others wait for what rules record
        assert {expr: _counted(querier.metrics.query(expr, at)) for expr in answers} == answers


def test_replicas_count_once(pair: _Pair) -> None:
    """Two Prometheuses that scrape the same show it once, so that rates do not double."""
    expr = f"sum(rate({REDEMPTION_REQUESTS.name}[5s]))"
    wait_until("both have a rate", lambda: all(server.value(expr) for server in pair.servers), _SECONDS_MAX)

    assert pair.querier.metrics.value(expr) == pytest.approx(_EVENTS_PER_SECOND, rel=0.3)
    up = pair.querier.metrics.query("up")
    assert [(sample.value, sample.labels.get(REPLICA_LABEL)) for sample in up] == [(1, None)]


def test_a_ruler_runs_our_rules_and_pages(pair: _Pair, groups: list[dict[str, Any]], tmp_path: Path) -> None:
    """The rule file that Prometheus reads is read by Thanos Rule as it is: no rule errs, and half bad is a page."""
    file = tmp_path / "rules.yaml"
    file.write_text(json.dumps({"groups": groups}))
    with thanos_rule(pair.querier, rules=[file]):

        def firing() -> set[str]:
            return {alert.name for alert in pair.querier.metrics.alerts() if alert.state == "firing"}

        wait_until("it pages", lambda: "RedemptionThanosPage" in firing(), _SECONDS_MAX)
        assert [rule["lastError"] for rule in pair.querier.metrics.rules() if rule.get("lastError")] == []
        assert pair.querier.metrics.query(names.CURRENT_BURN_RATE)


def test_a_rule_file_that_is_not_there_is_named(pair: _Pair, tmp_path: Path) -> None:
    """Thanos itself would run without it."""
    file = tmp_path / "none.yaml"
    with pytest.raises(HarnessError, match=r"none\.yaml"), thanos_rule(pair.querier, rules=[file]):
        pass
