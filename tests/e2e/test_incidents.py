"""Every way to fail, with every part real: who is told, how soon, how often, and whether the links help."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from drills.incidents import INCIDENTS, Rehearsal, rehearsal
from tests.contract.places import ROOT

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
NO_BROWSER = "no Chromium on the PATH (apt-get install chromium): links are opened without a browser"
UNTRACED = {"saturation"}  # what is turned away at its headers has no trace
PICTURES = ROOT / ".tools/artefacts/incidents"

pytestmark = [pytest.mark.e2e, pytest.mark.incident]


@pytest.mark.skipif(CHROMIUM is None, reason=NO_BROWSER)
def test_a_browser_is_there() -> None:
    """Where this is skipped, the incidents' pages are opened without one."""


@pytest.mark.parametrize("name", INCIDENTS)
def test_the_right_people_are_told_in_time_and_once(name: str) -> None:
    """The alerts of the table come within their promised times, once, to their routes, and nothing else; links open."""
    lines: list[str] = []
    with rehearsal(INCIDENTS[name], lines.append) as shown:
        print(*lines, sep="\n")  # noqa: T201 - pytest shows it when the test fails
        assert list(shown.violations) == []
        links_open(shown)
        if name not in UNTRACED:
            traces_are_there(shown)
        if CHROMIUM is not None:
            looked_at(shown, PICTURES / name)


def links_open(shown: Rehearsal) -> None:
    """Every link of every alert answers 200, at a page that knows the alert."""
    with httpx.Client(trust_env=False) as http:
        for expected in shown.incident.expects:
            links = shown.links(expected.alert)
            assert {"runbook_url", "dashboard_url", "traces_url", "logs_url"} <= links.keys()
            opened = {link: http.get(url) for link, url in links.items()}
            assert {link: answer.status_code for link, answer in opened.items()} == dict.fromkeys(links, 200)
            assert f"# {expected.alert}" in opened["runbook_url"].text
            assert "<td>" in opened["dashboard_url"].text  # live values


def traces_are_there(shown: Rehearsal) -> None:
    """Where requests burnt a budget, Jaeger has some of them under the page's own link."""
    for expected in shown.incident.expects:
        if re.search("(Availability|Latency(Fast|Slow))Page$", expected.alert):
            link = urlsplit(shown.links(expected.alert)["traces_url"])
            found = httpx.get(f"{link.scheme}://{link.netloc}/api/traces?{link.query}", trust_env=False)
            assert found.json()["data"], f"no traces of {expected.alert} at {link.geturl()}"


def looked_at(shown: Rehearsal, folder: Path) -> None:
    """A browser shows board and runbook of the first alert without complaint; pictures of both are kept."""
    from playwright.sync_api import sync_playwright  # noqa: PLC0415 - only where there is a browser

    folder.mkdir(parents=True, exist_ok=True)
    alert = shown.incident.expects[0].alert
    links = shown.links(alert)
    with sync_playwright() as starting:
        browser = starting.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page()
        complaints: list[str] = []
        page.on("pageerror", lambda error: complaints.append(str(error)))
        for link, expected in (("dashboard_url", "</h2>"), ("runbook_url", alert)):
            answer = page.goto(links[link])
            assert answer is not None
            assert answer.status == 200
            assert expected in page.content()
            page.screenshot(path=folder / f"{link.removesuffix('_url')}.png", full_page=True)
        browser.close()
    assert complaints == []
    assert {file.name for file in folder.iterdir()} >= {"dashboard.png", "runbook.png"}
