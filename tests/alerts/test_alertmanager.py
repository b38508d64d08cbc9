"""Alertmanager's configuration, judged by the real amtool and by a real Alertmanager."""

from __future__ import annotations

import json
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from alerts.alertmanager import (
    Receivers,
    Timing,
    Timings,
    Webhook,
    render,
)
from slo import CompiledSlo, Severity, SloError, compile_slo
from slo import conventions as names
from slo.causes import Cause
from slo.compile import AlertKind
from slo.definitions import rds, redemption

TOOLS = Path(__file__).parents[2] / ".tools/bin"
COMPILED = (compile_slo(redemption.availability), compile_slo(redemption.latency_fast))

_WAIT_MAX_SECONDS = 10
_SECOND = timedelta(seconds=1)
_QUICK = Timing(group_wait=_SECOND / 2, group_interval=_SECOND, repeat_interval=timedelta(hours=1))
QUICK = Timings(
    page=_QUICK,
    ticket=_QUICK,
    watchdog=Timing(group_wait=timedelta(0), group_interval=_SECOND, repeat_interval=0.8 * _SECOND),
)


def _document(receivers: Receivers | None = None, timings: Timings | None = None) -> dict[str, Any]:
    (artefact,) = render(COMPILED, receivers, timings)
    document = yaml.safe_load(artefact.text)
    assert isinstance(document, dict)
    return document


# --- the text -------------------------------------------------------------------------------------------------------


def test_no_secret_is_in_the_tree() -> None:
    """By default every receiver reads its address from a file: what is committed opens nothing."""
    (artefact,) = render(COMPILED)
    assert str(artefact.path) == "alertmanager/alertmanager.yaml"
    receivers = yaml.safe_load(artefact.text)["receivers"]
    configs = [config for receiver in receivers for kind in receiver if kind != "name" for config in receiver[kind]]
    assert len(configs) == 4
    for config in configs:
        assert {"routing_key_file", "api_url_file", "url_file", "auth_password_file"} & set(config)
        assert not {"routing_key", "service_key", "api_url", "url", "auth_password"} & set(config)


def test_a_webhook_has_one_address() -> None:
    """A webhook with two addresses or none is refused where it is written."""
    with pytest.raises(SloError, match="exactly one of url_file and url"):
        Webhook()
    with pytest.raises(SloError, match="exactly one of url_file and url"):
        Webhook(url="http://127.0.0.1:1", url_file="/secret")


def test_waits_suit_the_rules() -> None:
    """A page waits for one evaluation, so that all SLOs of a fault have spoken; a ticket waits longer."""
    timings = Timings()
    policy = COMPILED[0].policy
    assert timings.page.group_wait >= policy.evaluation_interval
    assert timings.ticket.group_wait > timings.page.group_wait + policy.evaluation_interval


def test_the_heartbeat_is_repeated_every_interval() -> None:
    """With a repeat_interval of a whole group_interval, every other heartbeat would be left out."""
    watchdog = Timings().watchdog
    assert watchdog.group_interval / 2 < watchdog.repeat_interval < watchdog.group_interval


def test_scaled_policies_scale_the_waits() -> None:
    """A demonstration of a month in hours notifies in its own time; reminders and heartbeat stay."""
    scaled = [compile_slo(one.slo, one.policy.scaled(10)) for one in COMPILED]
    page, ticket, watchdog = yaml.safe_load(render(scaled)[0].text)["route"]["routes"]
    assert (page["group_wait"], page["group_interval"], page["repeat_interval"]) == ("3s", "30s", "1h")
    assert (ticket["group_wait"], ticket["group_interval"]) == ("30s", "30s")
    assert watchdog["group_interval"] == "1m"
    mixed = yaml.safe_load(render([*scaled, COMPILED[0]])[0].text)
    assert mixed["route"]["routes"][0]["group_wait"] == "30s"


def test_no_wait_is_scaled_to_nothing() -> None:
    """However far a policy is scaled, Alertmanager accepts the intervals and is not kept busy."""
    scaled = [compile_slo(one.slo, one.policy.scaled(3600)) for one in COMPILED]
    page, *_ = yaml.safe_load(render(scaled)[0].text)["route"]["routes"]
    assert (page["group_wait"], page["group_interval"]) == ("1s", "1s")


# --- amtool ---------------------------------------------------------------------------------------------------------


def _amtool(*arguments: str | Path) -> str:
    done = subprocess.run([TOOLS / "amtool", *arguments], capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def default_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The configuration as it is committed."""
    file = tmp_path_factory.mktemp("alertmanager") / "alertmanager.yaml"
    file.write_text(render(COMPILED)[0].text)
    return file


@pytest.mark.e2e
def test_amtool_accepts_the_configuration(default_file: Path) -> None:
    """The real amtool finds the default configuration sound, with its three receivers and two inhibitions."""
    found = _amtool("check-config", default_file)
    assert "SUCCESS" in found
    assert "2 inhibit rules" in found
    assert "3 receivers" in found


@pytest.mark.e2e
@pytest.mark.parametrize(
    ("labels", "receiver"),
    [
        (["severity=page", "service=redemption", "slo=availability"], "page"),
        (["severity=ticket", "service=redemption", "slo=availability"], "ticket"),
        (["severity=ticket", "service=rds", "component=rds", "cause=storage-low"], "ticket"),
        (["severity=watchdog", "alertname=Watchdog"], "watchdog"),
        (["severity=critical", "alertname=SomebodyElses"], "ticket"),
        (["alertname=WithoutSeverity"], "ticket"),
    ],
)
def test_amtool_routes(default_file: Path, labels: list[str], receiver: str) -> None:
    """Each severity reaches its receiver, and what no route knows is read in working hours, not lost."""
    route = ["config", "routes", "test", f"--config.file={default_file}", f"--verify.receivers={receiver}"]
    assert _amtool(*route, *labels).split() == [receiver]


# --- a real Alertmanager --------------------------------------------------------------------------------------------


@dataclass
class Inbox:
    """What a local HTTP server was sent, by path."""

    url: str
    received: list[tuple[str, dict[str, Any], float]] = field(default_factory=list)
    changed: threading.Condition = field(default_factory=threading.Condition)

    def at(self, path: str) -> list[dict[str, Any]]:
        """The bodies that arrived at a path so far."""
        with self.changed:
            return [body for where, body, _ in self.received if where == path]

    def wait(self, path: str, holds: Callable[[list[dict[str, Any]]], bool]) -> list[dict[str, Any]]:
        """Wait until the bodies at a path are as wanted."""
        with self.changed:
            arrived = self.changed.wait_for(lambda: holds(self.at(path)), _WAIT_MAX_SECONDS)
            assert arrived, f"nothing of the kind at {path}; received: {[where for where, *_ in self.received]}"
            return self.at(path)

    def first(self, path: str) -> dict[str, Any]:
        """Wait for the first body at a path."""
        return self.wait(path, bool)[0]


@pytest.fixture
def inbox() -> Iterator[Inbox]:
    """A local HTTP server that takes whatever it is sent."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with box.changed:
                box.received.append((self.path, body, time.monotonic()))
                box.changed.notify_all()
            self.send_response(202 if self.path == "/v2/enqueue" else 200)
            self.end_headers()
            self.wfile.write(b"ok")

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    box = Inbox(f"http://127.0.0.1:{server.server_port}")
    box.changed = threading.Condition(threading.RLock())
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield box
    server.shutdown()
    thread.join()
    server.server_close()


@dataclass(frozen=True)
class Alertmanager:
    """A running Alertmanager."""

    url: str

    def post(self, *alerts: dict[str, Any]) -> None:
        """Hand it alerts, as Prometheus does."""
        httpx.post(f"{self.url}/api/v2/alerts", json=alerts, trust_env=False).raise_for_status()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[dict[str, Any]], Alertmanager]]:
    """Starts an Alertmanager with a configuration; it ends with the test."""
    with ExitStack() as stack:
        yield lambda document: stack.enter_context(_running(tmp_path, document))


@contextmanager
def _running(folder: Path, document: dict[str, Any]) -> Iterator[Alertmanager]:
    (folder / "alertmanager.yaml").write_text(yaml.safe_dump(document))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [
                TOOLS / "alertmanager",
                f"--config.file={folder / 'alertmanager.yaml'}",
                f"--storage.path={folder / 'data'}",
                f"--web.listen-address={address}",
                "--cluster.listen-address=",
            ],
            stdout=log,
            stderr=log,
        )
        try:
            _wait_ready(f"http://{address}", process, folder / "log")
            yield Alertmanager(f"http://{address}")
        finally:
            process.terminate()
            process.wait(timeout=10)


def _wait_ready(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _WAIT_MAX_SECONDS
    while True:
        try:
            httpx.get(f"{url}/-/ready", timeout=1, trust_env=False).raise_for_status()
        except httpx.HTTPError:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        else:
            return


def _posted(compiled: CompiledSlo, kind: AlertKind, severity: Severity, *, ended: bool = False) -> dict[str, Any]:
    """The alert that Prometheus would send: the labels are those of the rules."""
    found = [alert for alert in compiled.alerts if (alert.kind, alert.severity) == (kind, severity)]
    annotations = {
        "summary": f"{found[0].name}'s summary.",
        "description": f"{found[0].name}'s description.",
        "runbook_url": f"https://runbooks.example.com/{found[0].name}.md",
        "dashboard_url": "https://grafana.example.com/d/slo-detail?a=1&b=2",
    }
    alert = {"labels": {"alertname": found[0].name, **found[0].labels}, "annotations": annotations}
    return {**alert, "endsAt": (datetime.now(UTC) - _SECOND).isoformat()} if ended else alert


def _page(compiled: CompiledSlo, *, ended: bool = False) -> dict[str, Any]:
    return _posted(compiled, AlertKind.BURN, Severity.PAGE, ended=ended)


def _ticket(compiled: CompiledSlo) -> dict[str, Any]:
    return _posted(compiled, AlertKind.BURN, Severity.TICKET)


def _absence(compiled: CompiledSlo) -> dict[str, Any]:
    return _posted(compiled, AlertKind.ABSENT, Severity.PAGE)


def _cause(cause: Cause) -> dict[str, Any]:
    return {"labels": {"alertname": cause.alert_name, **cause.labels}}


AVAILABILITY, LATENCY = COMPILED
OTHER_SERVICE = compile_slo(replace(redemption.availability, service="catalogue"))
"""Nothing mutes its ticket, which is posted last: once it is here, all that were not muted are here."""


def _webhooks(inbox: Inbox) -> Receivers:
    return Receivers(
        page=Webhook(url=f"{inbox.url}/page"),
        ticket=Webhook(url=f"{inbox.url}/ticket"),
        watchdog=Webhook(url=f"{inbox.url}/watchdog"),
    )


def _names(notification: dict[str, Any]) -> set[str]:
    return {alert["labels"]["alertname"] for alert in notification["alerts"]}


def _tickets_until_the_last(alertmanager: Alertmanager, inbox: Inbox) -> set[str]:
    """The names of all tickets that were sent, waiting for one whose wait began when theirs was over."""
    last = _ticket(OTHER_SERVICE)
    time.sleep(QUICK.ticket.group_wait.total_seconds())
    alertmanager.post(last)
    name = last["labels"]["alertname"]
    sent = inbox.wait("/ticket", lambda bodies: any(name in _names(body) for body in bodies))
    return set().union(*map(_names, sent)) - {name}


@pytest.mark.e2e
def test_one_incident_pages_once(inbox: Inbox, start: Callable[[dict[str, Any]], Alertmanager]) -> None:
    """Page and ticket of one SLO are one page; when it ends, it says so, and then the ticket is sent."""
    alertmanager = start(_document(receivers=_webhooks(inbox), timings=QUICK))
    alertmanager.post(_page(AVAILABILITY), _ticket(AVAILABILITY))
    assert _names(inbox.first("/page")) == {"RedemptionAvailabilityPage"}
    assert _tickets_until_the_last(alertmanager, inbox) == set()
    assert len(inbox.at("/page")) == 1

    alertmanager.post(_page(AVAILABILITY, ended=True))
    pages = inbox.wait("/page", lambda bodies: len(bodies) > 1)
    assert [page["status"] for page in pages] == ["firing", "resolved"]
    inbox.wait("/ticket", lambda bodies: any("RedemptionAvailabilityTicket" in _names(body) for body in bodies))


@pytest.mark.e2e
def test_the_inhibition_is_what_mutes(inbox: Inbox, start: Callable[[dict[str, Any]], Alertmanager]) -> None:
    """The proof of the test above: without the inhibition the same ticket is sent."""
    document = _document(receivers=_webhooks(inbox), timings=QUICK)
    del document["inhibit_rules"]
    alertmanager = start(document)
    alertmanager.post(_page(AVAILABILITY), _ticket(AVAILABILITY))
    assert _tickets_until_the_last(alertmanager, inbox) == {"RedemptionAvailabilityTicket"}


@pytest.mark.e2e
def test_a_page_mutes_only_its_own_ticket(inbox: Inbox, start: Callable[[dict[str, Any]], Alertmanager]) -> None:
    """Tickets of another SLO of the service, and tickets without SLO or service, go out beside a page."""
    alertmanager = start(_document(receivers=_webhooks(inbox), timings=QUICK))
    foreign = {"labels": {"alertname": "ForeignTicket", "severity": "ticket", "service": "redemption"}}
    bare = {"labels": {"alertname": "BareTicket", "severity": "ticket"}}
    alertmanager.post(
        _page(AVAILABILITY),
        {"labels": {"alertname": "ForeignPage", "severity": "page", "service": "redemption"}},
        {"labels": {"alertname": "BarePage", "severity": "page"}},
        _ticket(LATENCY),
        foreign,
        bare,
    )
    assert _tickets_until_the_last(alertmanager, inbox) == {
        "RedemptionLatencyFastTicket",
        "ForeignTicket",
        "BareTicket",
    }


@pytest.mark.e2e
def test_a_page_mutes_the_causes_of_its_service(inbox: Inbox, start: Callable[[dict[str, Any]], Alertmanager]) -> None:
    """Who was woken finds them beside the page; a cause of what stands behind it is sent, as it may be the reason."""
    alertmanager = start(_document(receivers=_webhooks(inbox), timings=QUICK))
    alertmanager.post(_page(AVAILABILITY), *map(_cause, (*redemption.causes, *rds.causes)))
    assert _tickets_until_the_last(alertmanager, inbox) == {cause.alert_name for cause in rds.causes}

    alertmanager.post(_page(AVAILABILITY, ended=True))
    own = {cause.alert_name for cause in redemption.causes}
    inbox.wait("/ticket", lambda bodies: own <= set().union(*map(_names, bodies)))


@pytest.mark.e2e
def test_one_service_is_one_notification(inbox: Inbox, start: Callable[[dict[str, Any]], Alertmanager]) -> None:
    """Pages of two SLOs of one service arrive together; another service's page arrives by itself."""
    alertmanager = start(_document(receivers=_webhooks(inbox), timings=QUICK))
    alertmanager.post(_page(AVAILABILITY), _page(OTHER_SERVICE), _page(LATENCY))
    pages = inbox.wait("/page", lambda bodies: len(bodies) > 1)
    assert sorted(map(sorted, map(_names, pages))) == [
        ["CatalogueAvailabilityPage"],
        ["RedemptionAvailabilityPage", "RedemptionLatencyFastPage"],
    ]


@pytest.mark.e2e
def test_an_absence_joins_the_page_and_mutes_the_ticket(
    inbox: Inbox, start: Callable[[dict[str, Any]], Alertmanager]
) -> None:
    """No data and a burning budget of one SLO are one page with both; an absence mutes the ticket."""
    alertmanager = start(_document(receivers=_webhooks(inbox), timings=QUICK))
    alertmanager.post(_absence(AVAILABILITY), _page(AVAILABILITY), _absence(LATENCY), _ticket(LATENCY))
    assert _names(inbox.first("/page")) == {
        "RedemptionAvailabilityAbsent",
        "RedemptionAvailabilityPage",
        "RedemptionLatencyFastAbsent",
    }
    assert _tickets_until_the_last(alertmanager, inbox) == set()


@pytest.mark.e2e
def test_the_heartbeat_goes_on(inbox: Inbox, start: Callable[[dict[str, Any]], Alertmanager]) -> None:
    """The Watchdog reaches its own receiver at once, and again every interval."""
    alertmanager = start(_document(receivers=_webhooks(inbox), timings=QUICK))
    labels = {"alertname": "Watchdog", "severity": names.WATCHDOG_SEVERITY, "service": "prometheus"}
    alertmanager.post({"labels": labels})
    inbox.wait("/watchdog", lambda bodies: len(bodies) > 3)
    times = [when for where, _, when in inbox.received if where == "/watchdog"]
    gaps = sorted(after - before for before, after in pairwise(times))
    assert gaps[len(gaps) // 2] < 1.5
    assert not inbox.at("/page") + inbox.at("/ticket")
