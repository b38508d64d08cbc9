"""A fault in the running service becomes the right page, at a real Alertmanager's webhook."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import httpx
import pytest

from cli.generate import artefacts
from drills import demo
from drills.harness import Notification, wait_until
from slo import settings
from slo.compile import compile_slo
from tests.drills.processes import alive, descendants

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).parents[2]
MARKDOWN_LINK = re.compile(r"\]\(([^)]+)\)")


def listens(address: str) -> bool:
    """Whether anybody takes connections at an address or URL."""
    host, _, port = (urlsplit(address).netloc or address).rpartition(":")
    with socket.socket() as probe:
        return probe.connect_ex((host, int(port))) == 0


def generated_paths() -> set[str]:
    """What `slo generate` writes."""
    here = settings.load(ROOT / "pyproject.toml")
    return {
        str(artefact.path) for artefact in artefacts([compile_slo(slo) for slo in settings.definitions(here)], here)
    }


def firing(notifications: list[Notification], path: str) -> list[str]:
    """The names of the alerts that fired there, one for each time."""
    return [
        alert["labels"]["alertname"]
        for notification in notifications
        if notification.path == path
        for alert in notification.firing()
    ]


def test_a_cut_database_path_pages_once_and_every_link_opens(capsys: pytest.CaptureFixture[str]) -> None:
    """One page about the availability and none about anything else; its links open; the budget tells the cost.

    One test, as it is one run of most of a minute.
    """
    lines: list[str] = []
    seen: list[Notification] = []
    with (
        demo.demonstration(lines.append, seen.append) as shown,
        httpx.Client(trust_env=False, follow_redirects=True) as http,
    ):
        heard = shown.people.notifications
        assert firing(heard, "/page") == ["RedemptionAvailabilityPage"]
        assert firing(heard, "/ticket") == []
        assert set(firing(heard, "/watchdog")) == {"Watchdog"}
        assert seen == [shown.page]
        assert 0 < shown.seconds_to_page < 30

        [alert] = shown.page.firing()
        assert alert["labels"]["severity"] == "page"
        links = {name: url for name, url in alert["annotations"].items() if name.endswith("_url")}
        assert set(links) == {"runbook_url", "dashboard_url", "traces_url", "logs_url"}
        opened = {name: http.get(url) for name, url in links.items()}
        assert {name: answer.status_code for name, answer in opened.items()} == dict.fromkeys(links, 200)
        generated = generated_paths()
        assert urlsplit(links["runbook_url"]).path.lstrip("/") in generated
        assert f"grafana/{urlsplit(links['dashboard_url']).path.split('/')[2]}.json" in generated

        runbook = opened["runbook_url"].text
        assert "# RedemptionAvailabilityPage" in runbook
        further = [urljoin(links["runbook_url"], href) for href in MARKDOWN_LINK.findall(runbook)]
        assert len(further) >= 3
        assert {url: http.get(url).status_code for url in further} == dict.fromkeys(further, 200)
        board = opened["dashboard_url"].text
        assert "slo = availability" in board
        assert "<td>" in board  # live values

        console = http.get(shown.addresses["console"])
        assert console.status_code == 200
        rows = re.findall(r'<tr><th scope="row"><a [^>]*href="([^"]+)">([^<]+)</a></th><td>(.*?)</td>', console.text)
        assert {name for _, name, _ in rows} == {slo.id_path for slo in demo.PROMISES}
        assert not [name for _, name, state in rows if "no data" in state]
        details = {name: http.get(urljoin(shown.addresses["console"], href)) for href, name, _ in rows}
        assert {name: answer.status_code for name, answer in details.items()} == dict.fromkeys(details, 200)
        assert "<title id=" in details[demo.BROKEN.id_path].text  # charts

        # The recorded budget against the guests' own count: 20 requests a second for 12 hours allow 86.4 failures.
        failed = shown.after.bad_events - shown.before.bad_events
        assert failed >= 3
        assert shown.before.remaining == pytest.approx(1, abs=0.01)
        spent = shown.before.remaining - shown.after.remaining
        assert spent == pytest.approx(failed / 86.4, rel=0.3)

        page = demo.page_text(shown.page)
        for part in ("RedemptionAvailabilityPage", alert["annotations"]["summary"], *links.values()):
            assert part in page
        assert f"{failed} failed requests" in demo.cost_text(shown)
        assert all(map(listens, shown.addresses.values()))
    assert not any(map(listens, shown.addresses.values()))
    assert lines[-1] == "All is stopped."
    assert capsys.readouterr().out == ""


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["ctrl-c", "sigterm"])
def test_an_interrupted_demonstration_leaves_nothing_behind(number: signal.Signals, code: int) -> None:
    """Ctrl-C with everything running ends it with the conventional exit code, and every process is gone."""
    with subprocess.Popen(
        [sys.executable, "-m", "drills.demo"],
        cwd=ROOT,
        env=os.environ | {"NO_COLOR": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as running:
        assert running.stdout is not None
        assert running.stderr is not None
        try:
            for line in running.stdout:
                if "Prometheus runs" in line:
                    break
            everything = descendants(running.pid)
            assert len(everything) >= 6  # Postgres, the service, toxiproxy, Alertmanager, Prometheus, the guardian
            running.send_signal(number)
            assert running.wait(30) == code
            assert running.stdout.read().endswith("all is stopped.\n")
            assert running.stderr.read() == ""
        finally:
            running.kill()
    wait_until("everything is gone", lambda: not any(map(alive, everything)), 10)
