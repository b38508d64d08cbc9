"""Causes as rules: every one fires when it must and is silent when it nearly must, in the real promtool."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import promql_parser
import pytest
import yaml

from alerts.links import cause_links
from alerts.prometheus import cause_rule, render_causes
from alerts.runbooks import render as render_runbooks
from slo.causes import Cause, Component, Query, Threshold
from slo.settings import everything, load
from tests.contract.places import ROOT

SETTINGS = load(ROOT / "pyproject.toml")
OURS = everything(SETTINGS)
BY_ID = {cause.id: cause for cause in OURS.causes}
PROMTOOL = ROOT / ".tools/bin/promtool"


def reported(causes: Sequence[Cause], folder: Path) -> str:
    """What promtool has to say of these rules and their tests; empty when all is as expected."""
    for artefact in render_causes(causes, SETTINGS.links):
        file = folder / artefact.path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(artefact.text)
    report = ""
    for what, files in (("check", "rules"), ("test", "tests")):
        command: list[str | Path] = [PROMTOOL, what, "rules", *sorted((folder / "prometheus" / files).glob("*.yaml"))]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
        report += done.stdout + done.stderr if done.returncode else ""
    return report


@pytest.mark.e2e
def test_every_cause_fires_and_nearly_fires(tmp_path: Path) -> None:
    """All of ours: after its hold and not before it, and not at its limit; the templates are sound as well."""
    assert reported(OURS.causes, tmp_path) == ""


LIMIT = BY_ID["rds-storage-low"]
QUERY = BY_ID["queue-backlog-grows"]


@pytest.mark.e2e
@pytest.mark.parametrize("wrong", ["never", "too early", "too late", "at its limit"])
def test_a_rule_that_is_wrong_fails_its_test(tmp_path: Path, wrong: str) -> None:
    """The proof of the test above: the generated tests of the sound cause are run with the rules of a wrong one."""
    gauge = LIMIT.condition.metrics[0].where()
    changed = {
        "never": replace(LIMIT, condition=Threshold(gauge=gauge, below=Decimal("0.001"))),
        "too early": replace(LIMIT, hold=timedelta(minutes=2)),
        "too late": replace(LIMIT, hold=timedelta(minutes=30)),
        "at its limit": replace(LIMIT, condition=Threshold(gauge=gauge, below=Decimal("0.11"))),
    }[wrong]
    assert reported([LIMIT], tmp_path) == ""
    rules, *_ = render_causes([changed], SETTINGS.links)
    (tmp_path / rules.path).write_text(rules.text)
    command: list[str | Path] = [PROMTOOL, "test", "rules", tmp_path / "prometheus/tests/causes-rds.yaml"]
    assert subprocess.run(command, capture_output=True, check=False, timeout=60).returncode != 0


@pytest.mark.e2e
def test_an_example_that_proves_nothing_is_found(tmp_path: Path) -> None:
    """Examples of a query are its author's: one that does not fire, or a near miss that does, fails."""
    assert isinstance(QUERY.condition, Query)
    swapped = replace(QUERY.condition, fires=QUERY.condition.near_miss, near_miss=QUERY.condition.fires)
    report = reported([replace(QUERY, condition=swapped)], tmp_path)
    assert "exp: {} 1E+00\n        got: nil" in report
    assert "exp: nil\n        got: {} 1E+00" in report


@pytest.mark.parametrize("cause", OURS.causes, ids=lambda cause: cause.id)
def test_a_rule_says_what_people_and_routes_need(cause: Cause) -> None:
    """A sentence, the figure, of what, both links; a ticket of its component, signal, service and owner."""
    rule = cause_rule(cause, SETTINGS.links)
    promql_parser.parse(rule["expr"])
    assert rule["labels"] == cause.labels
    assert rule["annotations"]["summary"] == cause.summary
    assert "{{ $value" in rule["annotations"]["description"]
    assert "$labels" in rule["annotations"]["description"]
    assert rule["annotations"]["runbook_url"] == f"{SETTINGS.links.runbooks}/{cause.alert_name}.md"
    assert rule["annotations"]["dashboard_url"].startswith(f"{SETTINGS.links.grafana}/d/")


@pytest.mark.parametrize(
    ("cause", "shown"),
    [
        ("rds-storage-low", "humanizePercentage"),
        ("rds-replica-behind", "humanizeDuration"),
        ("rds-slot-behind", "humanize1024"),
        ("queue-dead-letters", "humanize"),
    ],
)
def test_a_value_is_shown_in_its_unit(cause: str, shown: str) -> None:
    """Nobody reads 5368709120 as 5 GiB."""
    description = cause_rule(BY_ID[cause], SETTINGS.links)["annotations"]["description"]
    assert f"{{{{ $value | {shown} }}}}" in description


def test_each_component_has_one_group_of_its_own() -> None:
    """Evaluated once a minute, as CloudWatch has nothing newer; and as an object for the operator."""
    files = {artefact.path.as_posix(): artefact.text for artefact in render_causes(OURS.causes, SETTINGS.links)}
    assert len(files) == 3 * len(Component)
    for component in Component:
        (group,) = yaml.safe_load(files[f"prometheus/rules/causes-{component}.yaml"])["groups"]
        assert (group["name"], group["interval"]) == (f"causes-{component}", "1m")
        wrapped = yaml.safe_load(files[f"prometheus/operator/causes-{component}.yaml"])
        assert wrapped["spec"]["groups"] == [group]
        assert wrapped["metadata"]["name"] == f"slo-causes-{component}"
    assert render_causes((), SETTINGS.links) == []


def test_every_cause_has_a_runbook_that_says_it_all() -> None:
    """The query, why this limit, commands that tell more, what helps; and a line in the index."""
    pages = {artefact.path.name: artefact.text for artefact in render_runbooks((), SETTINGS.links, OURS)}
    for cause in OURS.causes:
        page = pages[f"{cause.alert_name}.md"]
        assert f"```promql\n{cause.condition.promql}\n```" in page
        for text in (cause.summary, cause.reason, cause.mitigation, f"**{cause.owner}** answers for it."):
            assert text in page
        for command in cause.diagnosis:
            assert command.partition("  # ")[0] in page
        assert f"[{cause.alert_name}]({cause.alert_name}.md)" in pages["README.md"]
        order = ["Meaning", "Impact", "First look", "Diagnosis", "Mitigation", "Escalation", "The end"]
        assert re.findall(r"^## (.+)$", page, re.MULTILINE) == order
        assert f"[Dashboard]({cause_links(cause, SETTINGS.links).dashboard})" in page
        assert f"alertname={cause.alert_name}\n```" in page
    assert "`rds/disk-latency`" in pages["RdsDiskQueueDeep.md"]


@pytest.mark.parametrize("cause", OURS.causes, ids=lambda cause: cause.id)
def test_commands_of_a_runbook_are_whole(cause: Cause) -> None:
    """A shell reads each without a quote that nobody closes."""
    for command in cause.diagnosis:
        done = subprocess.run(["bash", "-n", "-c", command], capture_output=True, text=True, check=False, timeout=10)
        assert (done.returncode, done.stderr) == (0, ""), command
