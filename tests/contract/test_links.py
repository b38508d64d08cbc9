"""Every link of every alert, walked in both directions through what is generated: nothing dead, nothing orphaned."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
import yaml

from alerts.alarms import linked
from alerts.links import AlertLinks, every
from cli.generate import artefacts
from slo import compile_slo
from slo import conventions as names
from slo.matrix import Definitions
from slo.settings import everything, load
from tests.alerts.every_kind import EVERY_KIND, EVERY_OPTION
from tests.contract.places import ROOT

SETTINGS = load(ROOT / "pyproject.toml")


class Generated:
    """What `slo generate` writes, and where its alerts lead."""

    def __init__(self, defined: Definitions) -> None:
        compiled = [compile_slo(slo) for slo in defined.slos]
        self.settings = linked(SETTINGS, compiled, defined.causes)
        self.files = {one.path: one.text for one in artefacts(compiled, SETTINGS, defined)}
        self.links = every(compiled, defined.causes, self.settings.links)

    @property
    def boards(self) -> dict[str, dict[str, Any]]:
        """Every board by its uid."""
        boards = [json.loads(text) for path, text in self.files.items() if path.match("*.json")]
        return {board["uid"]: board for board in boards if "uid" in board and "panels" in board}

    def rules(self) -> Iterator[dict[str, Any]]:
        """Every alerting rule."""
        for path, text in self.files.items():
            if path.match("prometheus/rules/*.yaml"):
                yield from (
                    rule for group in yaml.safe_load(text)["groups"] for rule in group["rules"] if "alert" in rule
                )

    def board_urls(self) -> Iterator[tuple[str, str]]:
        """Alert and URL of every board that an alert leads to."""
        for alert, links in self.links.items():
            yield from ((alert, url) for url in (links.dashboard, *(url for _, url in links.boards)))


@pytest.fixture(scope="module", params=["ours", "of every kind"])
def generated(request: pytest.FixtureRequest) -> Generated:
    """Ours with causes and alarms, and others' without."""
    ours = everything(SETTINGS)
    return Generated(ours if request.param == "ours" else Definitions(slos=(*EVERY_KIND, *EVERY_OPTION)))


def uid_of(url: str) -> str:
    """The board that a link opens."""
    return urlsplit(url).path.split("/")[2]


# --- from an alert to its places --------------------------------------------------------------------------------------


def test_a_rule_carries_the_links_of_its_alert(generated: Generated) -> None:
    """All of them, as they are known to the commands and the runbooks; and every alert is a rule."""
    rules = {rule["alert"]: rule for rule in generated.rules()}
    assert rules.keys() == generated.links.keys()
    for alert, links in generated.links.items():
        annotations = rules[alert]["annotations"]
        assert {name: url for name, url in annotations.items() if name.endswith("_url")} == links.annotations
        # Prometheus reads an annotation as a template, and a URL is none.
        assert not any("{{" in url for url in links.annotations.values())


def test_every_alert_opens_its_runbook(generated: Generated) -> None:
    """The file is there and is that alert's; on the one page of all runbooks it has its anchor."""
    page = generated.files[PurePosixPath("runbooks/index.html")]
    for alert, links in generated.links.items():
        path = links.runbook.removeprefix(f"{SETTINGS.links.runbooks}/")
        assert f"\n# {alert}\n" in generated.files[PurePosixPath("runbooks") / path]
        assert f'<article id="{alert}">' in page


def test_every_board_that_an_alert_opens_is_there(generated: Generated) -> None:
    """With the variables that the link sets, whose values are those of the SLO."""
    boards = generated.boards
    for alert, url in generated.board_urls():
        assert uid_of(url) in boards, (alert, url)
        known = {variable["name"] for variable in boards[uid_of(url)]["templating"]["list"]}
        chosen = {name.removeprefix("var-") for name in parse_qs(urlsplit(url).query) if name.startswith("var-")}
        assert chosen <= known, (alert, url)
        for panel in parse_qs(urlsplit(url).query).get("viewPanel", ()):
            [title] = [one["title"] for one in boards[uid_of(url)]["panels"] if str(one["id"]) == panel]
            assert title in {"Budget burn, page", "Budget burn, ticket", "Events per second"}
            assert ("Page" in alert) <= ("page" in title), (alert, title)


def test_every_alarm_and_silence_is_of_the_alert(generated: Generated) -> None:
    """An alarm is in the templates that are deployed; a silence names the alert and labels that its rule sets."""
    templates = "".join(text for path, text in generated.files.items() if path.parts[0] == "cloudwatch")
    rules = {rule["alert"]: rule for rule in generated.rules()}
    for alert, links in generated.links.items():
        if links.alarm:
            name = unquote(re.split(r"alarm/|search~'", links.alarm)[1].rstrip(")"))
            assert re.search(rf'"?AlarmName"?: "?{re.escape(name)}', templates), links.alarm
        matchers = dict(re.findall(r'(\w+)="([^"]*)"', unquote(links.silence.partition("filter=")[2])))
        assert matchers.pop("alertname") == alert
        assert matchers.items() <= rules[alert]["labels"].items()


# --- and back ---------------------------------------------------------------------------------------------------------


def test_no_runbook_is_an_orphan(generated: Generated) -> None:
    """Each is that of an alert, and the index leads to each."""
    runbooks = {path.stem for path in generated.files if path.match("runbooks/*.md")} - {"README"}
    assert runbooks == generated.links.keys()
    index = generated.files[PurePosixPath("runbooks/README.md")]
    assert {name.removesuffix(".md") for name in re.findall(r"\]\(([^)]+\.md)\)", index)} == runbooks


def test_no_board_is_one_that_nothing_leads_to(generated: Generated) -> None:
    """From an alert or from its runbook."""
    assert {uid_of(url) for _, url in generated.board_urls()} == generated.boards.keys()


def test_no_link_of_a_runbook_is_dead(generated: Generated) -> None:
    """To another runbook, or to where its alert leads, or what its definition links."""
    runbooks = {path.name: text for path, text in generated.files.items() if path.match("runbooks/*.md")}
    more = {url for slo in (*everything(SETTINGS).slos, *EVERY_KIND, *EVERY_OPTION) for url in slo.links.values()}
    for alert, links in generated.links.items():
        known = {url for _, url in links.titled()} | more | runbooks.keys()
        found = re.findall(r"\]\((?:<([^>]+)>|([^)]+))\)", runbooks[names.runbook_file(alert)])
        assert {bracketed or plain for bracketed, plain in found} <= known, alert
        assert shown(links) <= {bracketed or plain for bracketed, plain in found}, alert


def shown(links: AlertLinks) -> set[str]:
    """Every link but the one to the runbook itself."""
    return {url for title, url in links.titled() if title != "Runbook"}


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.anchors: list[str] = []
        self.hrefs: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if values.get("id"):
            self.anchors.append(values["id"] or "")
        if tag == "a":
            self.hrefs.add(values["href"] or "")


def test_no_link_of_the_page_of_all_runbooks_is_dead(generated: Generated) -> None:
    """Each leads to an anchor of the page, once there, or is a link of a runbook, byte for byte."""
    page = _Page()
    page.feed(generated.files[PurePosixPath("runbooks/index.html")])
    inside = {href.removeprefix("#") for href in page.hrefs if href.startswith("#")}
    assert inside <= set(page.anchors)
    assert len(page.anchors) == len(set(page.anchors))
    outside = {href for href in page.hrefs if not href.startswith("#")}
    more = {url for slo in (*everything(SETTINGS).slos, *EVERY_KIND, *EVERY_OPTION) for url in slo.links.values()}
    leads = {url for links in generated.links.values() for url in shown(links)}
    assert leads <= outside
    assert outside <= leads | more
