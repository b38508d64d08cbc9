"""`slo apply cloudwatch` and `slo drift cloudwatch`, against moto.

moto lacks composite alarms, so the alarms are cut down to metric alarms here; tests/alerts/cloudwatch has the others.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from alerts.cloudwatch import deploy
from alerts.cloudwatch.deploy import boto_client
from alerts.cloudwatch.model import MetricAlarm
from cli import cloudwatch
from cli.main import main
from drills.harness.sqs import REGION, SqsQueue, sqs_queue
from tests.slo.project import SETTINGS, make_project

CLOUDWATCH = f"""
[tool.slo.cloudwatch]
region = "{REGION}"
account = "123456789012"
services = ["shop"]
"""


@pytest.fixture(scope="module")
def server() -> Iterator[SqsQueue]:
    """One moto for all tests of this file."""
    with sqs_queue() as running:
        yield running


@pytest.fixture
def project(tmp_path: Path, server: SqsQueue, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The shop's settings, with metric alarms only, and the way to an empty CloudWatch."""
    server.purge()
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in {**server.environment(), "AWS_ENDPOINT_URL": server.endpoint_url}.items():
        monkeypatch.setenv(name, value)
    whole = cloudwatch._wanted
    monkeypatch.setattr(cloudwatch, "_wanted", lambda of: tuple(a for a in whole(of) if isinstance(a, MetricAlarm)))
    monkeypatch.setattr(deploy, "_WRITES_PER_SECOND", 1000)
    monkeypatch.setattr(deploy, "_READS_PER_SECOND", 1000)
    return make_project(tmp_path / "shop", SETTINGS + CLOUDWATCH)


def apply(project: Path, *arguments: str) -> Result:
    """`slo apply cloudwatch`."""
    return CliRunner().invoke(main, ["--settings", str(project), "apply", "cloudwatch", *arguments])


def drift(project: Path, *arguments: str) -> Result:
    """`slo drift cloudwatch`."""
    return CliRunner().invoke(main, ["--settings", str(project), "drift", "cloudwatch", *arguments])


def alarms() -> dict[str, Any]:
    """The alarms that are there, by name."""
    return {one["AlarmName"]: one for one in boto_client("cloudwatch", REGION).describe_alarms()["MetricAlarms"]}


def test_a_dry_run_shows_all_and_does_nothing(project: Path) -> None:
    """Every alarm to create is shown; none is there afterwards, and it is drift."""
    result = apply(project, "--dry-run")
    assert result.exit_code == 0, result.output
    assert "create" in result.output
    assert "slo-ShopAvailability-fast-1h" in result.output
    assert alarms() == {}
    assert drift(project).exit_code == 1


def test_apply_asks_or_is_told(project: Path) -> None:
    """Where nobody can be asked it needs --yes, and then does it; once more there is nothing to do."""
    refused = apply(project)
    assert (refused.exit_code, alarms()) == (2, {})
    assert "give --yes" in refused.output
    done = apply(project, "--yes")
    assert done.exit_code == 0, done.output
    assert f"{len(alarms())} of {len(alarms())} done" in done.output
    assert apply(project, "--yes").output == "CloudWatch is as it is generated; nothing to do\n"
    assert drift(project).exit_code == 0
    assert json.loads(drift(project, "--json").output) == {"drift": []}
    assert drift(project, "--markdown").output == "CloudWatch is as it is generated.\n"


def test_drift_is_told_to_people_and_machines(project: Path) -> None:
    """A threshold changed by hand, an alarm deleted by hand and one of ours too many: all three ways tell of them."""
    apply(project, "--yes")
    client = boto_client("cloudwatch", REGION)
    gone, changed = sorted(alarms())[:2]
    client.delete_alarms(AlarmNames=[gone])
    put = {
        name: value
        for name, value in alarms()[changed].items()
        if not name.startswith(("State", "AlarmArn", "AlarmConfiguration", "Evaluation")) or name == "EvaluationPeriods"
    }
    threshold = put["Threshold"]
    client.put_metric_alarm(**{**put, "Threshold": 99.0})
    result = drift(project, "--json")
    assert result.exit_code == 1
    assert json.loads(result.output)["drift"] == [
        {"kind": "missing", "region": REGION, "alarm": gone, "differences": []},
        {
            "kind": "changed",
            "region": REGION,
            "alarm": changed,
            "differences": [{"field": "Threshold", "generated": str(threshold), "deployed": "99"}],
        },
    ]
    table, markdown = drift(project).output, drift(project, "--markdown").output
    for text in (table, markdown):
        assert gone in text
        assert "Threshold" in text
    assert "| changed |" in markdown


def test_no_answer_is_an_error(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without credentials, and with those of another account, both commands end with 2 and say what to do."""
    other = project.read_text().replace("123456789012", "999999999999")
    project.write_text(other)
    assert (drift(project).exit_code, "999999999999" in drift(project).output) == (2, True)
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    for result in (drift(project), apply(project, "--yes")):
        assert result.exit_code == 2
        assert "no credentials" in result.output


def test_without_settings_there_is_nothing_to_compare(tmp_path: Path) -> None:
    """A project without [tool.slo.cloudwatch] is told so."""
    result = drift(make_project(tmp_path / "other"))
    assert result.exit_code == 2
    assert "[tool.slo.cloudwatch]" in result.output
