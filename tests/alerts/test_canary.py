"""Canary analysis: valid for Argo Rollouts, and a real Prometheus tells a bad release from a good one by it."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import promql_parser
import pytest
import yaml as pyyaml

from alerts import canary
from drills.harness import Prometheus, prometheus, tool
from slo import CompiledSlo, Rolling, compile_slo
from slo import conventions as names
from slo.definitions import edge, queue, rds, redemption
from slo.metrics import REDEEM_ROUTE, REDEMPTION_REQUEST_DURATION, REDEMPTION_REQUESTS
from slo.windows import MINUTE
from tests.alerts.every_kind import EVERY_KIND, EVERY_OPTION, OTHER_PERIODS
from tests.alerts.rules_bench import shop

SCHEMA = json.loads((Path(__file__).parent / "schema" / "analysis-template.schema.json").read_text())
SLOS = (
    *(redemption.availability, redemption.capture_and_refund, redemption.latency_fast, redemption.latency_slow),
    *(redemption.settlement, redemption.sealing, edge.availability, queue.waiting, rds.availability),
)


def templates(*compiled: CompiledSlo) -> list[dict[str, Any]]:
    """The objects of every file."""
    return [pyyaml.safe_load(one.text) for one in canary.render(compiled)]


def resolved(text: str, arguments: Mapping[str, str]) -> str:
    """A text as Argo Rollouts fills it in; every placeholder must be an argument."""
    return re.sub(r"\{\{\s*args\.([\w-]+)\s*\}\}", lambda found: arguments[found[1]], text)


def strict(schema: Any) -> Any:  # noqa: ANN401 - JSON is anything
    """The schema, in which an unknown key is a fault, as for `kubectl apply --validate=strict`."""
    if isinstance(schema, list):
        return [strict(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    told = {key: strict(value) for key, value in schema.items()}
    return {**told, "additionalProperties": False} if isinstance(told.get("properties"), dict) else told


# `metadata` is Kubernetes' own, of which a CRD says nothing.
VALIDATOR = jsonschema.Draft7Validator(strict(SCHEMA))


@pytest.mark.parametrize("slos", [SLOS, (*EVERY_KIND, *EVERY_OPTION), tuple(OTHER_PERIODS.values())], ids=len)
def test_templates_are_valid(slos: Sequence[Any]) -> None:
    """By the schema of Argo Rollouts' own CRD, with unique names, and every placeholder is an argument of theirs."""
    for template in templates(*map(compile_slo, slos)):
        assert list(VALIDATOR.iter_errors(template)) == []
        assert re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", template["metadata"]["name"])
        metrics = template["spec"]["metrics"]
        assert len({one["name"] for one in metrics}) == len(metrics)
        arguments = {one["name"]: one.get("value", "6d4cf56db6") for one in template["spec"]["args"]}
        for one in metrics:
            source = one["provider"]["prometheus"]
            assert resolved(source["address"], arguments).startswith("http://")
            promql_parser.parse(resolved(source["query"], arguments))


def test_the_validator_finds_faults() -> None:
    """A key that Argo Rollouts does not know, and a number where it wants a text."""
    (template,) = templates(compile_slo(redemption.availability))
    metric = template["spec"]["metrics"][0]
    for fault in ({"failureLimits": 1}, {"interval": 60}, {"provider": {"prometheus": {"url": "x"}}}):
        wrong = {**template, "spec": {**template["spec"], "metrics": [{**metric, **fault}]}}
        assert list(VALIDATOR.iter_errors(wrong))


def test_only_what_single_pods_can_break_is_judged() -> None:
    """Requests of the service's pods; neither slices of time, nor what a load balancer or a database counts."""
    (template,) = templates(*map(compile_slo, SLOS))
    assert template["metadata"]["name"] == "slo-canary-redemption"
    assert {one["name"].rpartition("-")[0] for one in template["spec"]["metrics"]} == {
        *("availability", "capture-and-refund", "latency-fast", "latency-slow")
    }
    assert templates(*map(compile_slo, (redemption.settlement, edge.availability))) == []


def test_another_teams_service_has_a_template_of_its_own() -> None:
    """Each names its own service, whatever component it says it is; without a page's windows there is nothing."""
    found = templates(compile_slo(shop()), compile_slo(redemption.availability))
    assert [one["metadata"]["name"] for one in found] == ["slo-canary-redemption", "slo-canary-shop"]


@pytest.mark.parametrize("days", [7, 30])
def test_the_factors_are_those_that_page(days: int) -> None:
    """Over the short windows of the page's pairs, from the same policy, with a second in which nobody judges."""
    compiled = compile_slo(shop(window=Rolling(days)))
    (template,) = templates(compiled)
    pages = [pair for pair in compiled.policy.pairs if pair.severity == "page"]
    for metric, pair in zip(template["spec"]["metrics"], pages, strict=True):
        factor = names.number(pair.factor)
        assert metric["name"] == f"availability-{names.duration(pair.short)}"
        assert metric["successCondition"] == f"len(result) > 0 && result[0] < {factor}"
        assert metric["failureCondition"] == f"len(result) > 0 && result[0] >= {factor}"
        assert f"[{names.duration(pair.short)}]" in metric["provider"]["prometheus"]["query"]


# --- a real Prometheus ----------------------------------------------------------------------------------------------

END = 1_769_904_000
MINUTES = 10
SCRAPE_SECONDS = 30
# Release -> good and bad requests between two scrapes, and how many of the good ones took more than a quarter second.
RELEASES = {
    "stable": (300, 0, 0),
    "broken": (300, 60, 0),
    "dead": (0, 40, 0),  # nothing but failures
    "slow": (300, 0, 60),
    "unlucky": (7, 0, 0),  # and two stray errors, below
    "idle": (0, 0, 0),
}


def _lines() -> Iterator[str]:
    good = {"route": REDEEM_ROUTE, "outcome": "ok"}
    bad = {"route": REDEEM_ROUTE, "outcome": "error"}
    duration = REDEMPTION_REQUEST_DURATION.name
    for release, (some_good, some_bad, slow) in RELEASES.items():
        fast, stray = some_good - slow, 2 if release == "unlucky" else 0
        for series, labels, each, once in (
            (REDEMPTION_REQUESTS.name, good, some_good, 0),
            (REDEMPTION_REQUESTS.name, bad, some_bad, stray),
            (f"{duration}_count", good, some_good, 0),
            (f"{duration}_bucket", {**good, "le": "0.25"}, fast, 0),
            (f"{duration}_bucket", {**good, "le": "1.0"}, some_good, 0),
        ):
            text = ",".join(f'{k}="{v}"' for k, v in {**labels, canary.RELEASE_LABEL: release, "pod": release}.items())
            scrapes = MINUTES * 60 // SCRAPE_SECONDS
            for number in range(scrapes + 1):
                value = 5_000 + each * number + (once if number > scrapes - 4 else 0)
                yield f"{series}{{{text}}} {value} {END - (scrapes - number) * SCRAPE_SECONDS}\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """Ten minutes of five releases side by side."""
    folder = tmp_path_factory.mktemp("canary")
    text = folder / "releases.openmetrics"
    text.write_text("".join(_lines()) + "# EOF\n")
    importing = [str(tool("promtool")), "tsdb", "create-blocks-from", "openmetrics", "--quiet", str(text)]
    subprocess.run([*importing, str(folder / "data")], check=True)
    with prometheus(data=folder / "data", scrape_interval=MINUTE) as running:
        yield running


def verdicts(server: Prometheus, release: str) -> dict[str, str]:
    """What Argo Rollouts makes of one measurement of each metric."""
    (template,) = templates(*map(compile_slo, SLOS))
    told = {}
    for metric in template["spec"]["metrics"]:
        query = resolved(metric["provider"]["prometheus"]["query"], {"canary-hash": release})
        result = [sample.value for sample in server.query(query, END)]
        holds = {
            which: eval(metric[f"{which}Condition"].replace("&&", "and"), {"result": result})  # noqa: S307 - our own
            for which in ("success", "failure")
        }
        told[metric["name"]] = next((which for which, is_so in holds.items() if is_so), "inconclusive")
    return told


@pytest.mark.e2e
@pytest.mark.parametrize(
    ("release", "failing"),
    [
        ("stable", set()),
        ("broken", {"availability-5m", "availability-30m"}),
        ("dead", {"availability-5m", "availability-30m"}),
        ("slow", {"latency-fast-5m", "latency-fast-30m"}),
        ("unlucky", set()),
    ],
)
def test_a_bad_release_fails_alone(server: Prometheus, release: str, failing: set[str]) -> None:
    """By what it breaks, though others run well beside it; two stray errors are none of its faults."""
    told = verdicts(server, release)
    assert {name for name, verdict in told.items() if verdict == "failure"} == failing


@pytest.mark.e2e
def test_without_traffic_nobody_says_that_it_is_good(server: Prometheus) -> None:
    """Inconclusive, also where the release is not known at all; of a promise that nobody asks for, likewise."""
    for release in ("idle", "unheard-of"):
        assert set(verdicts(server, release).values()) == {"inconclusive"}
    assert verdicts(server, "stable")["capture-and-refund-5m"] == "inconclusive"
    assert verdicts(server, "dead")["latency-fast-5m"] == "inconclusive"


@pytest.mark.e2e
def test_the_value_is_the_burn_rate_of_the_release(server: Prometheus) -> None:
    """One in six fails: 1667 times what 99.99 % allows."""
    compiled = compile_slo(redemption.availability)
    fast = compiled.policy.pairs[0]
    expr = resolved(canary.query(compiled, fast), {"canary-hash": "broken"})
    assert server.value(expr, END) == pytest.approx(1 / 6 / 0.0001)
    lenient = compile_slo(replace(redemption.availability, budget_bad_events_min=1))
    assert server.value(resolved(canary.query(lenient, fast), {"canary-hash": "unlucky"}), END) == pytest.approx(
        2 / (2 + 9 * 7) / 0.0001
    )  # of nine intervals between ten scrapes
