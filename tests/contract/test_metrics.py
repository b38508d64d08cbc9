"""What an SLO reads is declared, and is really exposed by the running service or by the worker behind it."""

from __future__ import annotations

import asyncio
import io
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import httpx
import promql_parser
import pytest
from fastapi import FastAPI
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics_families
from prometheus_client.parser import text_string_to_metric_families as text_families

from service.app import create_app
from service.settings import Settings
from service.worker import create_worker
from slo import CompiledSlo, Histogram, Metric, Selection, compile_slo
from slo import conventions as names
from slo.causes import Cause, Component
from slo.metrics import REDEMPTION_METRICS, REDEMPTION_WORKER_METRICS
from slo.settings import everything, load
from tests.contract.places import ROOT

DEFINED = everything(load(ROOT / "pyproject.toml"))
# What the service and its worker expose is asked of them; what others expose is held against the catalogue.
OF_SERVICE = tuple(compile_slo(slo) for slo in DEFINED.slos if slo.component is Component.SERVICE)
OF_OTHERS = tuple(compile_slo(slo) for slo in DEFINED.slos if slo.component is not Component.SERVICE)
BY_SLO = pytest.mark.parametrize("compiled", OF_SERVICE, ids=lambda compiled: compiled.slo.id)
CATALOGUE = {metric.name: metric for source in DEFINED.sources for metric in source.metrics}
PARSERS = {"text/plain": text_families, "application/openmetrics-text; version=1.0.0": openmetrics_families}


_NO_DATABASE = Settings(database_url="postgresql://nobody@127.0.0.1:1/none")  # for this none is needed


def service(accept: str) -> str:
    """What the service answers at `/metrics` before its first request."""
    return _scraped(create_app(_NO_DATABASE, log_stream=io.BytesIO()), accept)


def worker(accept: str) -> str:
    """What the worker answers before it has done anything."""
    return _scraped(create_worker(_NO_DATABASE, log_stream=io.BytesIO()), accept)


def _scraped(app: FastAPI, accept: str) -> str:
    async def scrape() -> str:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://process") as client:
            answer = await client.get("/metrics", headers={"Accept": accept})
            assert answer.status_code == 200
            return answer.text

    return asyncio.run(scrape())


@dataclass(frozen=True, slots=True)
class Process:
    """A process that Prometheus scrapes, and the part of the catalogue that is its own."""

    catalogue: tuple[Metric, ...]
    scrape: Callable[[str], str]


PROCESSES = {
    "service": Process(REDEMPTION_METRICS, service),
    "worker": Process(REDEMPTION_WORKER_METRICS, worker),
}
Series: TypeAlias = list[tuple[str, dict[str, str]]]
BY_PROCESS = pytest.mark.parametrize("process", PROCESSES)


@pytest.fixture(scope="module", params=PARSERS)
def exposed(request: pytest.FixtureRequest) -> Mapping[str, Series]:
    """Every series of each process, in both formats that a Prometheus asks for."""
    return {
        name: [
            (sample.name, sample.labels)
            for family in PARSERS[request.param](process.scrape(request.param))  # type: ignore[no-untyped-call]
            for sample in family.samples
        ]
        for name, process in PROCESSES.items()
    }


@pytest.fixture
def series(exposed: Mapping[str, Series]) -> Series:
    """The series of all processes together, as one Prometheus has them."""
    return [one for of_process in exposed.values() for one in of_process]


def raw_selectors(compiled: CompiledSlo) -> list[promql_parser.VectorSelector]:
    """The selectors of an SLO's rules that read what services expose."""
    exprs = (*(rule.expr for rule in compiled.recordings), *(alert.expr for alert in compiled.alerts))
    return [found for expr in exprs for found in selectors_in(expr) if not (found.name or "").startswith("slo:")]


def selectors_in(expr: str) -> list[promql_parser.VectorSelector]:
    """Every selector of a query."""
    found: list[promql_parser.VectorSelector] = []

    def visit(node: promql_parser.Expr) -> None:
        if isinstance(node, promql_parser.VectorSelector):
            found.append(node)

    promql_parser.walk(promql_parser.parse(expr), visit)
    return found


def matches(selector: promql_parser.VectorSelector, name: str, labels: dict[str, str]) -> bool:
    """Whether a series is selected, as Prometheus would decide."""
    if selector.name != name:
        return False
    for matcher in selector.matchers.matchers:
        value = labels.get(matcher.name, "")
        if matcher.op == promql_parser.MatchOp.Equal:
            found = value == matcher.value
        else:
            assert matcher.op == promql_parser.MatchOp.Re
            found = re.fullmatch(matcher.value, value) is not None
        if not found:
            return False
    return True


@BY_SLO
def test_what_an_slo_reads_is_declared(compiled: CompiledSlo) -> None:
    """Every selection of a definition is of a metric in a catalogue that a process makes its instruments from."""
    selections = [
        value
        for value in (getattr(compiled.slo.sli, field) for field in compiled.slo.sli.__dataclass_fields__)
        if isinstance(value, Selection)
    ]
    assert selections
    for selection in selections:
        assert any(selection.metric in process.catalogue for process in PROCESSES.values())


@BY_SLO
def test_what_an_slo_reads_is_exposed(compiled: CompiledSlo, series: Series) -> None:
    """Each raw selector of its rules finds series in what the processes expose before they have done anything."""
    selectors = raw_selectors(compiled)
    assert selectors
    for selector in selectors:
        assert any(matches(selector, name, labels) for name, labels in series), str(selector)


@BY_SLO
def test_every_value_that_an_slo_names_is_exposed(compiled: CompiledSlo, series: Series) -> None:
    """An outcome that is spelled in another way in the service would never count as bad: each value is found."""
    for field in compiled.slo.sli.__dataclass_fields__:
        selection = getattr(compiled.slo.sli, field)
        if not isinstance(selection, Selection):
            continue
        for label, values in selection.values.items():
            spoken = {labels[label] for name, labels in series if name.startswith(selection.metric.name)}
            assert set(values) <= spoken


def test_bucket_edges_are_exposed_as_our_rules_write_them(series: Series) -> None:
    """`le="1.0"`, letter by letter, for every edge of every histogram: a selector with another text finds nothing."""
    histograms = [metric for metric in REDEMPTION_METRICS if isinstance(metric, Histogram)]
    assert histograms
    for metric in histograms:
        edges = {labels["le"] for name, labels in series if name == f"{metric.name}_bucket"}
        assert edges == {*(names.le(edge) for edge in metric.buckets), "+Inf"}
        assert "1.0" in edges


@BY_PROCESS
def test_a_process_exposes_its_catalogue_and_nothing_else(process: str, exposed: Mapping[str, Series]) -> None:
    """Every declared combination of labels from the start, and no series that nobody declared."""
    expected = {
        (metric.name + suffix, frozenset(labels.items()))
        for metric in PROCESSES[process].catalogue
        for labels in metric.label_sets()
        for suffix in (("_count", "_sum") if isinstance(metric, Histogram) else ("",))
    }
    found = {(name, frozenset(labels.items())) for name, labels in exposed[process] if not name.endswith("_bucket")}
    assert found == expected


def test_no_metric_belongs_to_two_processes() -> None:
    """A series of both would be summed by one SLO and judged twice by another."""
    assert {metric.name for metric in REDEMPTION_METRICS}.isdisjoint(
        metric.name for metric in REDEMPTION_WORKER_METRICS
    )


# --- the dependencies, by their catalogue ---------------------------------------------------------------------------


def declared_series(metric: Metric) -> Series:
    """A series for each combination of the closed labels, with some value of each open one."""
    opened = dict.fromkeys(metric.open_labels, "some")
    return [(metric.name, {**labels, **opened}) for labels in metric.label_sets()]


@pytest.mark.parametrize("compiled", OF_OTHERS, ids=lambda compiled: compiled.slo.id)
def test_what_an_slo_of_a_dependency_reads_is_declared(compiled: CompiledSlo) -> None:
    """Each raw selector of its rules is of a metric that a Source has, and selects some of its series."""
    selectors = raw_selectors(compiled)
    assert selectors
    for selector in selectors:
        assert any(matches(selector, name, labels) for name, labels in declared_series(CATALOGUE[selector.name or ""]))


@pytest.mark.parametrize("cause", DEFINED.causes, ids=lambda cause: cause.id)
def test_what_a_cause_reads_is_declared(cause: Cause) -> None:
    """Its query parses, reads exactly the metrics that it says, and asks by labels that they have."""
    read = selectors_in(cause.condition.promql)
    assert {selector.name for selector in read} == {metric.name for metric in cause.condition.metrics}
    for selector in read:
        metric = CATALOGUE[selector.name or ""]
        for matcher in selector.matchers.matchers:
            assert matcher.name in {*metric.labels, *metric.open_labels}
            for value in matcher.value.split("|") if matcher.name in metric.labels else ():
                assert value in metric.labels[matcher.name]


@pytest.mark.parametrize("cause", DEFINED.causes, ids=lambda cause: cause.id)
def test_a_cause_groups_by_labels_that_exist(cause: Cause) -> None:
    """A misspelled label in `by` or `on` is no error for Prometheus: it would just join everything."""
    metrics = cause.condition.metrics
    known = {label for metric in metrics for label in (*metric.labels, *metric.open_labels)}
    for grouped in re.findall(r"\b(?:by|on|without|group_left) ?\(([^)]*)\)", cause.condition.promql):
        assert {label.strip() for label in grouped.split(",")} <= known
