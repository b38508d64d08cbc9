"""What one room writes is what the others point at: links open, and series that people read are recorded."""

from __future__ import annotations

import json
import re
from pathlib import PurePosixPath
from urllib.parse import urlsplit

import pytest
import yaml

from cli.generate import artefacts
from slo import compile_slo
from slo.compile import AlertKind
from slo.matrix import Definitions
from slo.settings import everything, load
from tests.alerts.every_kind import EVERY_KIND, EVERY_OPTION, OTHER_PERIODS
from tests.contract.places import ROOT

SETTINGS = load(ROOT / "pyproject.toml")
DEFINED = everything(SETTINGS)
# A board of one SLO reads the series of its own period, so each period is rendered with its own kind.
CATALOGUES = {"ours": DEFINED, "of every kind": Definitions(slos=(*EVERY_KIND, *EVERY_OPTION))} | {
    period: Definitions(slos=(slo,)) for period, slo in OTHER_PERIODS.items()
}
BY_CATALOGUE = pytest.mark.parametrize("defined", CATALOGUES.values(), ids=CATALOGUES.keys())


def rendered(defined: Definitions) -> dict[PurePosixPath, str]:
    """Everything that `slo generate` would write; two artefacts of one path would be one too few."""
    written = artefacts([compile_slo(slo) for slo in defined.slos], SETTINGS, defined)
    files = {artefact.path: artefact.text for artefact in written}
    assert len(files) == len(written)
    return files


def alert_rules(files: dict[PurePosixPath, str]) -> list[dict[str, dict[str, str]]]:
    """Every alerting rule of the plain rule files."""
    return [
        rule
        for path, text in files.items()
        if path.match("prometheus/rules/*.yaml")
        for group in yaml.safe_load(text)["groups"]
        for rule in group["rules"]
        if "alert" in rule
    ]


@BY_CATALOGUE
def test_every_link_of_an_alert_leads_to_something(defined: Definitions) -> None:
    """The runbook is a file that is written, and the dashboard's uid is that of a board that is written."""
    files = rendered(defined)
    boards = {json.loads(text)["uid"] for path, text in files.items() if path.match("grafana/*.json")}
    rules = alert_rules(files)
    of_slos = sum(len(compile_slo(slo).alerts) for slo in defined.slos)
    assert len(rules) == of_slos + len(defined.causes) + 1  # and the Watchdog
    for rule in rules:
        runbook = rule["annotations"]["runbook_url"].removeprefix(f"{SETTINGS.links.runbooks}/")
        assert PurePosixPath("runbooks") / runbook in files
        board = urlsplit(rule["annotations"]["dashboard_url"])
        assert rule["annotations"]["dashboard_url"].startswith(f"{SETTINGS.links.grafana}/d/")
        assert board.path.split("/")[2] in boards


@BY_CATALOGUE
def test_every_series_that_people_read_is_recorded(defined: Definitions) -> None:
    """Boards, runbooks and alerts ask for series by names that our rules record; a renamed one leaves a panel empty."""
    recorded = {
        rule.record
        for slo in defined.slos
        for rule in (*compile_slo(slo).recordings, *compile_slo(slo).coarse_recordings)
    }
    for path, text in rendered(defined).items():
        if path.parts[0] in ("grafana", "runbooks", "alertmanager"):
            asked = set(re.findall(r"\bslo:[a-z0-9_]+:[a-z0-9_]+|\bsloth_slo_info\b", text))
            assert asked <= recorded, path


@BY_CATALOGUE
def test_every_alert_of_the_catalogue_is_a_rule(defined: Definitions) -> None:
    """`slos.json`, which people and pipelines read, names the alerts that Prometheus has, with their severities."""
    files = rendered(defined)
    facts = json.loads(files[PurePosixPath("slos.json")])
    told = {alert["name"]: alert["severity"] for one in facts["slos"] for alert in one["alerts"]}
    told |= {cause["alert"]: cause["severity"] for cause in facts["causes"]}
    rules = {str(rule["alert"]): rule["labels"]["severity"] for rule in alert_rules(files)}
    assert rules == {**told, "Watchdog": "watchdog"}
    compiled = [compile_slo(slo) for slo in defined.slos]
    assert {a.name for one in compiled for a in one.alerts if a.kind is AlertKind.ABSENT} <= told.keys()


@BY_CATALOGUE
def test_rendering_is_repeatable(defined: Definitions) -> None:
    """The same input gives the same bytes."""
    assert rendered(defined) == rendered(defined)


def test_every_link_of_the_catalogue_leads_to_something() -> None:
    """To a heading of its own, or to a runbook that is written; and every metric of every source is on the page."""
    files = rendered(DEFINED)
    page = files[PurePosixPath("catalogue.md")]
    headings = {heading.lower() for heading in re.findall(r"^#+ (.+)$", page, re.MULTILINE)}
    links = re.findall(r"\]\(([^)]+)\)", page)
    assert len(links) > len(DEFINED.causes)
    for link in links:
        assert link.removeprefix("#") in headings if link.startswith("#") else PurePosixPath(link) in files, link
    for source in DEFINED.sources:
        for metric in source.metrics:
            assert f"| `{metric.name}`<br>{metric.help} |" in page


def test_every_limit_of_ours_stands_with_its_reason_in_the_catalogue() -> None:
    """Promises and causes alike: who reads a limit reads why it is that one, and where the runbook is."""
    page = rendered(DEFINED)[PurePosixPath("catalogue.md")]
    reasons = [slo.reason for slo in DEFINED.slos] + [cause.reason for cause in DEFINED.causes]
    assert all(reasons)
    for reason in reasons:
        assert f"| {reason} |" in page
