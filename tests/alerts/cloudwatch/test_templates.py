"""The templates: cfn-lint finds nothing, everything is made in order, and each file stays within the limits."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal
from pathlib import PurePosixPath
from typing import Any

import cfnlint  # type: ignore[import-untyped]
import pytest
import yaml

from alerts import prometheus
from alerts.cloudwatch import cloudformation, cost, dashboard, plan, render
from alerts.cloudwatch.amp import DEFINITION_BYTES_MAX
from alerts.cloudwatch.cloudformation import RESOURCES_MAX, TEMPLATE_BYTES_MAX
from alerts.cloudwatch.model import Alarm, CompositeAlarm
from alerts.cloudwatch.validate import _REFERENCE
from slo import Slo
from slo.artefacts import Artefact
from slo.compile import compile_slo
from slo.metrics.rds import RDS_CPU_UTILIZATION
from slo.settings import Settings
from tests.alerts.cloudwatch.examples import (
    SETTINGS,
    WHERE,
    cause,
    disk_latency,
    edge_errors,
    edge_latency,
    promise,
    queue_age,
    reachable,
)

SLOS: tuple[Slo, ...] = (
    promise(expected_events_per_second=Decimal(10)),
    edge_errors(),
    edge_latency(),
    disk_latency(),
    reachable(),
    queue_age(),
)
COMPILED = tuple(compile_slo(slo) for slo in SLOS)
CAUSES = (cause(RDS_CPU_UTILIZATION.where(), above=Decimal("0.9")),)
ALARMS = plan(COMPILED, CAUSES, SETTINGS)


@pytest.fixture(scope="module")
def files() -> dict[PurePosixPath, str]:
    """Everything that is rendered, by path."""
    return {file.path: file.text for file in render(COMPILED, CAUSES, SETTINGS)}


@pytest.fixture(scope="module")
def templates(files: Mapping[PurePosixPath, str]) -> dict[str, dict[str, Any]]:
    """The templates, by path."""
    return {str(path): yaml.safe_load(text) for path, text in files.items() if path.name.endswith(".template.yaml")}


def test_one_template_a_component_and_region(files: Mapping[PurePosixPath, str]) -> None:
    """Topics come first and roll-ups last; what is in another region only has a folder of its own, with its topics."""
    assert [str(path) for path in files] == [
        "cloudwatch/topics.template.yaml",
        "cloudwatch/alarms-edge.template.yaml",
        "cloudwatch/alarms-queue.template.yaml",
        "cloudwatch/alarms-rds.template.yaml",
        "cloudwatch/alarms-shop.template.yaml",
        "cloudwatch/alarms-rollups.template.yaml",
        "cloudwatch/us-east-1/topics.template.yaml",
        "cloudwatch/us-east-1/alarms-dns.template.yaml",
        "cloudwatch/dashboard.json",
        "cloudwatch/dashboard.template.yaml",
        "cloudwatch/managed-prometheus-rules.template.yaml",
    ]


def test_cfn_lint_finds_nothing(files: Mapping[PurePosixPath, str]) -> None:
    """Not even a hint."""
    for path, text in files.items():
        if path.suffix == ".yaml":
            found = cfnlint.lint(text, regions=[WHERE.region, "us-east-1"])
            assert not found, f"{path}: {found}"


def test_every_alarm_is_a_resource_once(templates: Mapping[str, Any]) -> None:
    """With the properties that the API would be sent, but for who is told."""
    made = [
        resource["Properties"]
        for template in templates.values()
        for resource in template["Resources"].values()
        if resource["Type"].startswith("AWS::CloudWatch::") and "AlarmName" in resource["Properties"]
    ]

    by_name = {one["AlarmName"]: one for one in made}
    assert len(made) == len(by_name) == len(ALARMS)
    told = {"AlarmActions", "OKActions"}
    for alarm in ALARMS:
        request, resource = alarm.request(), by_name[alarm.name]
        assert {k: v for k, v in request.items() if k not in told} == {
            k: v for k, v in resource.items() if k not in told
        }
        for topic, arn in zip(alarm.actions, request.get("AlarmActions", ()), strict=True):
            sent = resource["AlarmActions"][0]["Fn::Sub"]
            for name, value in (("Partition", "aws"), ("Region", topic.region), ("AccountId", topic.account)):
                sent = sent.replace(f"${{AWS::{name}}}", value)
            assert sent == arn


def test_what_an_alarm_reads_is_made_before_it(templates: Mapping[str, Any]) -> None:
    """In the same template by DependsOn, which CloudFormation also removes by, else by the order of the stacks."""
    before: set[tuple[bool, str]] = set()
    for path, template in templates.items():
        resources = template["Resources"]
        here = {one["Properties"].get("AlarmName"): name for name, one in resources.items()}
        for alarm in ALARMS:
            if isinstance(alarm, CompositeAlarm) and alarm.name in here:
                depends = set(resources[here[alarm.name]].get("DependsOn", ()))
                for read in alarm.reads:
                    there = here.get(read)
                    assert there in depends if there else ("us-east-1" in path, read) in before
        before |= {("us-east-1" in path, name) for name in here if name}


def test_only_our_own_alarms_may_publish(templates: Mapping[str, Any]) -> None:
    """The topics' and the key's policies name CloudWatch, this account and its alarms."""
    resources = templates["cloudwatch/topics.template.yaml"]["Resources"]
    key = resources["Key"]["Properties"]["KeyPolicy"]["Statement"]
    publishing = resources["PageTopicPolicy"]["Properties"]["PolicyDocument"]["Statement"]

    for statement in (key[1], publishing[0]):
        assert statement["Principal"] == {"Service": "cloudwatch.amazonaws.com"}
        assert statement["Condition"]["StringEquals"] == {"aws:SourceAccount": {"Ref": "AWS::AccountId"}}
        assert statement["Condition"]["ArnLike"]["aws:SourceArn"]["Fn::Sub"].endswith(":alarm:*")
    assert key[1]["Action"] == ["kms:Decrypt", "kms:GenerateDataKey*"]
    assert publishing[0]["Action"] == "sns:Publish"
    assert [resources[f"{name}Topic"]["Properties"]["TopicName"] for name in ("Page", "Ticket")] == [
        "slo-page",
        "slo-ticket",
    ]


def test_a_large_component_is_cut() -> None:
    """Below 500 resources and 1 MB a file, children before what reads them."""
    many = plan([compile_slo(promise(f"p{number}")) for number in range(60)], (), SETTINGS)
    files = cloudformation.render(many, WHERE)
    cut = [file for file in files if "alarms-shop" in file.path.name]

    assert [file.path.name for file in cut] == [f"alarms-shop-{number}.template.yaml" for number in (1, 2)]
    for file in cut:
        assert len(file.text.encode()) < TEMPLATE_BYTES_MAX
        assert file.text.count("Type: AWS::") <= RESOURCES_MAX


def test_names_that_differ_in_signs_only_have_ids_of_their_own() -> None:
    """CloudFormation allows letters and digits."""
    assert cloudformation._logical_ids(["a-b", "a.b", "a/b"]) == {"a-b": "AB", "a.b": "ABX2", "a/b": "ABX3"}


# --- the dashboard ---------------------------------------------------------------------------------------------------


def board(compiled: tuple[Any, ...] = COMPILED, alarms: tuple[Alarm, ...] = ALARMS) -> dict[str, Any]:
    """The dashboard's body."""
    return dashboard.body(compiled, alarms, WHERE)


def test_the_dashboard_shows_who_is_told_and_each_promise() -> None:
    """Every alarm that tells somebody by its ARN; each promise's burn rates with their limits."""
    widgets = board()["widgets"]
    shown = [arn for widget in widgets if widget["type"] == "alarm" for arn in widget["properties"]["alarms"]]
    burning = next(w for w in widgets if w["type"] == "metric" and "their limits" in w["properties"]["title"])

    assert len(shown) == len([alarm for alarm in ALARMS if alarm.actions])
    assert "arn:aws:cloudwatch:us-east-1:123456789012:alarm:slo-DnsReachable-fast" in shown
    assert [w["properties"]["markdown"].split("\n")[0] for w in widgets if w["type"] == "text"] == [
        f"### {slo.id_path}: {slo.objective} %" for slo in SLOS
    ]
    lines = burning["properties"]["annotations"]["horizontal"]
    assert [line["value"] for line in lines] == [14.4, 6.0, 3.0, 1.0]


def test_no_widget_covers_another() -> None:
    """Each place on the grid of 24 columns is one widget's."""
    taken: set[tuple[int, int]] = set()
    for widget in board()["widgets"]:
        columns = range(widget["x"], widget["x"] + widget["width"])
        rows = range(widget["y"], widget["y"] + widget["height"])
        places = {(x, y) for x in columns for y in rows}
        assert not places & taken
        assert widget["x"] + widget["width"] <= 24
        taken |= places


def test_graphs_read_what_the_alarms_read() -> None:
    """Every id of an expression is one of its graph, also where several alarms share one."""
    for widget in board()["widgets"]:
        if widget["type"] != "metric":
            continue
        metrics = widget["properties"]["metrics"]
        options = [metric[-1] for metric in metrics]
        ids = [option["id"] for option in options]
        assert len(set(ids)) == len(ids)
        assert any(option["visible"] for option in options)
        for option in options:
            for name in _REFERENCE.findall(option.get("expression", "")):
                assert name in ids


def test_the_template_has_no_account_of_its_own(
    files: Mapping[PurePosixPath, str], templates: Mapping[str, Any]
) -> None:
    """It can be made in every account; the body as it is names the one of the settings."""
    sub = templates["cloudwatch/dashboard.template.yaml"]["Resources"]["Dashboard"]["Properties"]["DashboardBody"]

    assert WHERE.account not in sub["Fn::Sub"]
    body = files[PurePosixPath("cloudwatch/dashboard.json")]
    assert json.loads(sub["Fn::Sub"].replace("${AWS::AccountId}", WHERE.account)) == json.loads(body)


# --- Amazon's Prometheus, and what it costs --------------------------------------------------------------------------


def test_managed_prometheus_has_our_rules(templates: Mapping[str, Any]) -> None:
    """The very groups of the rule files: of each promise, of the causes, and of the alert that always fires."""
    data = templates["cloudwatch/managed-prometheus-rules.template.yaml"]["Resources"]["Rules"]["Properties"]["Data"]
    files = (
        *prometheus.render(COMPILED, SETTINGS.links),
        *prometheus.render_causes(CAUSES, SETTINGS.links),
    )
    ours = [
        group for file in files if file.path.parent.name == "rules" for group in yaml.safe_load(file.text)["groups"]
    ]

    by_name = {group["name"]: group for group in yaml.safe_load(data)["groups"]}
    assert by_name == {group["name"]: group for group in ours}


def test_many_rules_are_several_templates(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each definition is below the limit."""
    assert DEFINITION_BYTES_MAX < TEMPLATE_BYTES_MAX
    monkeypatch.setattr("alerts.cloudwatch.amp.DEFINITION_BYTES_MAX", 100_000)
    rendered = [file for file in render(COMPILED, CAUSES, SETTINGS) if "prometheus" in file.path.name]

    assert len(rendered) > 1
    for number, file in enumerate(rendered, 1):
        rules = yaml.safe_load(file.text)["Resources"]["Rules"]["Properties"]
        assert rules["Name"] == f"slo-rules-{number}"
        assert len(rules["Data"].encode()) <= 100_000


def test_cost_is_by_metric_and_composite() -> None:
    """Eight children of two metrics, an absence of one, four composites, two published metrics."""
    of_shop = cost.of_slo("shop-availability", ALARMS)
    of_edge = cost.of_slo("edge-errors", ALARMS)

    assert of_shop.text == "$4.30 a month: 17 alarm metrics, 4 composites, 2 published metrics"
    # Eight children and three zones of three metrics each, five composites.
    assert of_edge.text == "$5.80 a month: 33 alarm metrics, 5 composites"


def test_without_settings_there_is_nothing() -> None:
    """Whoever has no AWS has no such files."""
    nowhere: Settings = replace(SETTINGS, cloudwatch=None)
    found: list[Artefact] = render(COMPILED, CAUSES, nowhere)

    assert found == []
