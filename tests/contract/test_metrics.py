"""What an SLO reads is declared, and is really exposed by the running application."""

from __future__ import annotations

import asyncio
import io
import re
from collections.abc import Iterator

import httpx
import promql_parser
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics_families
from prometheus_client.parser import text_string_to_metric_families as text_families

from service.app import create_app
from service.settings import Settings
from slo import CompiledSlo, Histogram, Selection, compile_slo
from slo import conventions as names
from slo.metrics import REDEMPTION_METRICS
from slo.settings import definitions, load
from tests.contract.places import ROOT

DEFINED = tuple(compile_slo(slo) for slo in definitions(load(ROOT / "pyproject.toml")))
BY_SLO = pytest.mark.parametrize("compiled", DEFINED, ids=[compiled.slo.id for compiled in DEFINED])
PARSERS = {"text/plain": text_families, "application/openmetrics-text; version=1.0.0": openmetrics_families}


def exposed(accept: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Every series at `/metrics` of an application that has served no request yet; it needs no database for that."""
    app = create_app(Settings(database_url="postgresql://nobody@127.0.0.1:1/none"), log_stream=io.BytesIO())

    async def scrape() -> str:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://service") as client:
            answer = await client.get("/metrics", headers={"Accept": accept})
            assert answer.status_code == 200
            return answer.text

    for family in PARSERS[accept](asyncio.run(scrape())):  # type: ignore[no-untyped-call]
        for sample in family.samples:
            yield sample.name, sample.labels


@pytest.fixture(scope="module", params=PARSERS)
def series(request: pytest.FixtureRequest) -> list[tuple[str, dict[str, str]]]:
    """The same, in both formats that a Prometheus asks for."""
    return list(exposed(request.param))


def raw_selectors(compiled: CompiledSlo) -> list[promql_parser.VectorSelector]:
    """The selectors of an SLO's rules that read what services expose."""
    found: list[promql_parser.VectorSelector] = []

    def visit(node: promql_parser.Expr) -> None:
        if isinstance(node, promql_parser.VectorSelector) and not (node.name or "").startswith("slo:"):
            found.append(node)

    for expr in (*(rule.expr for rule in compiled.recordings), *(alert.expr for alert in compiled.alerts)):
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
    """Every selection of a definition is of a metric in the catalogue that the service makes its instruments from."""
    selections = [
        value
        for value in (getattr(compiled.slo.sli, field) for field in compiled.slo.sli.__dataclass_fields__)
        if isinstance(value, Selection)
    ]
    assert selections
    for selection in selections:
        assert selection.metric in REDEMPTION_METRICS


@BY_SLO
def test_what_an_slo_reads_is_exposed(compiled: CompiledSlo, series: list[tuple[str, dict[str, str]]]) -> None:
    """Each raw selector of its rules finds series in the running application's exposition, before any request."""
    selectors = raw_selectors(compiled)
    assert selectors
    for selector in selectors:
        assert any(matches(selector, name, labels) for name, labels in series), str(selector)


@BY_SLO
def test_every_value_that_an_slo_names_is_exposed(
    compiled: CompiledSlo, series: list[tuple[str, dict[str, str]]]
) -> None:
    """An outcome that is spelled in another way in the service would never count as bad: each value is found."""
    for field in compiled.slo.sli.__dataclass_fields__:
        selection = getattr(compiled.slo.sli, field)
        if not isinstance(selection, Selection):
            continue
        for label, values in selection.values.items():
            spoken = {labels[label] for name, labels in series if name.startswith(selection.metric.name)}
            assert set(values) <= spoken


def test_bucket_edges_are_exposed_as_our_rules_write_them(series: list[tuple[str, dict[str, str]]]) -> None:
    """`le="1.0"`, letter by letter, for every edge of every histogram: a selector with another text finds nothing."""
    histograms = [metric for metric in REDEMPTION_METRICS if isinstance(metric, Histogram)]
    assert histograms
    for metric in histograms:
        edges = {labels["le"] for name, labels in series if name == f"{metric.name}_bucket"}
        assert edges == {*(names.le(edge) for edge in metric.buckets), "+Inf"}
        assert "1.0" in edges


def test_the_application_exposes_the_catalogue_and_nothing_else(series: list[tuple[str, dict[str, str]]]) -> None:
    """Every declared combination of labels from the start, and no series that nobody declared."""
    expected = {
        (metric.name + suffix, frozenset(labels.items()))
        for metric in REDEMPTION_METRICS
        for labels in metric.label_sets()
        for suffix in (("_count", "_sum") if isinstance(metric, Histogram) else ("",))
    }
    found = {(name, frozenset(labels.items())) for name, labels in series if not name.endswith("_bucket")}
    assert found == expected
