"""The committed rules, in the real promtool: every alert fires when it must and keeps silent when it nearly must."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml

from alerts import promtool
from slo import compile_slo, settings
from tests.contract.places import ROOT

GENERATED = ROOT / "generated/prometheus"
RULES, OPERATOR, TESTS = (sorted((GENERATED / folder).glob("*.yaml")) for folder in ("rules", "operator", "tests"))
SLOS = settings.definitions(settings.load(ROOT / "pyproject.toml"))


def _name(path: Path) -> str:
    return path.stem


def _groups(path: Path) -> list[dict[str, Any]]:
    groups: list[dict[str, Any]] = yaml.safe_load(path.read_text())["groups"]
    return groups


def _promtool(*arguments: str | Path) -> str:
    done = subprocess.run([ROOT / ".tools/bin/promtool", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _case(file: Path) -> Any:  # noqa: ANN401 - pytest's own
    """Days and weeks of a promise take ten seconds each, so `make test` runs the hours alone."""
    interval = file.stem.partition("-every-")[2]
    slow = interval not in ("", "30s")
    return pytest.param(file, id=_name(file), marks=[pytest.mark.slow] if slow else [])


@pytest.mark.e2e
@pytest.mark.parametrize("test_file", [_case(file) for file in TESTS])
def test_every_alert_does_as_its_cases_say(test_file: Path) -> None:
    """The promtool tests that were generated with the rules pass."""
    _promtool("test", "rules", test_file)


@pytest.mark.e2e
def test_prometheus_reads_the_rules() -> None:
    """Expressions and the templates in annotations are sound."""
    _promtool("check", "rules", *RULES)


def test_every_expression_parses() -> None:
    """A second parser of PromQL reads every recording and every alert."""
    for path in RULES:
        for rule in (rule for group in _groups(path) for rule in group["rules"]):
            promql_parser.parse(rule["expr"])


@pytest.mark.parametrize("slo", SLOS, ids=lambda slo: slo.id)
def test_every_alert_has_a_case_that_fires_and_a_near_miss(slo: Any) -> None:  # noqa: ANN401 - an Slo
    """No alert goes without both."""
    compiled = compile_slo(slo)
    names = [test["name"] for _, file in promtool.test_files(compiled) for test in file["tests"]]
    for alert in compiled.alerts:
        own = [name.removeprefix(f"{alert.name} ") for name in names if name.startswith(f"{alert.name} ")]
        assert any(name.startswith("fires") for name in own), alert.name
        assert any(name.startswith("near miss") for name in own), alert.name


def test_the_operators_objects_hold_the_same_groups() -> None:
    """A PrometheusRule is its rule file in another envelope."""
    assert [path.name for path in OPERATOR] == [path.name for path in RULES]
    for rules, operator in zip(RULES, OPERATOR, strict=True):
        wrapped = yaml.safe_load(operator.read_text())
        assert (wrapped["apiVersion"], wrapped["kind"]) == ("monitoring.coreos.com/v1", "PrometheusRule")
        assert wrapped["spec"]["groups"] == _groups(rules)
