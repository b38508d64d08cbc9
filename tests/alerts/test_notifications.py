"""What people are told: a real Alertmanager fills the templates in and sends them to real local receivers."""

from __future__ import annotations

import json
import re
import socketserver
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email import message_from_bytes, policy
from email.message import EmailMessage
from html.parser import HTMLParser
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
import yaml

from alerts import alertmanager as config
from alerts import evidence, notifications
from alerts.alertmanager import Email, PagerDuty, Receivers, Slack, Timing, Timings, Webhook
from alerts.jsurl import Value, encode
from alerts.links import AlertLinks, alert_links, cause_links
from drills.harness import alertmanager
from drills.harness.http import serving
from drills.harness.process import tool
from slo import compile_slo
from slo.causes import Cause
from slo.compile import CompiledAlert, CompiledSlo
from slo.definitions import rds, redemption
from slo.settings import Links, load
from slo.windows import Severity
from tests.contract.places import ROOT

pytestmark = pytest.mark.e2e

AWS = load(ROOT / "pyproject.toml").links
LOCAL = Links(
    grafana="http://127.0.0.1:1",
    runbooks="http://127.0.0.1:1/runbooks",
    traces="http://127.0.0.1:1/jaeger",
    logs="http://127.0.0.1:1/logs",
)
AVAILABILITY = compile_slo(redemption.availability)
LATENCY = compile_slo(redemption.latency_fast)
COMPILED = (AVAILABILITY, LATENCY)
CAUSE: Cause = next(cause for cause in rds.causes if cause.name == "storage-low")

STARTED = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=2)
ENDED = STARTED + timedelta(minutes=90)

_WAIT_SECONDS = 20
_SECOND = timedelta(seconds=1)
_QUICK = Timing(group_wait=_SECOND / 2, group_interval=_SECOND, repeat_interval=timedelta(hours=1))
_TIMINGS = Timings(page=_QUICK, ticket=_QUICK)


# --- receivers --------------------------------------------------------------------------------------------------------


@dataclass
class Inbox:
    """What arrived, in order: JSON by its path, e-mails at `mail`."""

    received: list[tuple[str, Any]] = field(default_factory=list)
    changed: threading.Condition = field(default_factory=threading.Condition)

    def put(self, where: str, what: object) -> None:
        """Note something."""
        with self.changed:
            self.received.append((where, what))
            self.changed.notify_all()

    def wait(self, where: str, wanted: Callable[[Any], bool]) -> Any:  # noqa: ANN401 - JSON, or an e-mail
        """The first that came there and is wanted."""

        def found() -> list[Any]:
            return [what for place, what in self.received if place == where and wanted(what)]

        with self.changed:
            assert self.changed.wait_for(found, _WAIT_SECONDS), f"nothing of the kind at {where}: {self.received}"
            return found()[0]


@contextmanager
def _http(inbox: Inbox) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            inbox.put(self.path, json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(HTTPStatus.ACCEPTED if "enqueue" in self.path else HTTPStatus.OK)
            self.end_headers()
            self.wfile.write(b"ok")

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with serving(Handler) as url:
        yield url


@contextmanager
def _smtp(inbox: Inbox) -> Iterator[str]:
    """As much of SMTP (RFC 5321) as one client needs that has one e-mail."""

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self.wfile.write(b"220 here\r\n")
            while line := self.rfile.readline():
                verb = line[:4].upper()
                if verb == b"DATA":
                    self.wfile.write(b"354 go on\r\n")
                    data = b"".join(iter(self.rfile.readline, b".\r\n"))
                    inbox.put("mail", message_from_bytes(data, policy=policy.default))
                self.wfile.write(b"221 bye\r\n" if verb == b"QUIT" else b"250 ok\r\n")
                if verb == b"QUIT":
                    return

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield f"127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


# --- an incident ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Told:
    """What each receiver was told: while all fired, and when all was over."""

    pager: tuple[dict[str, Any], dict[str, Any]]
    slack: tuple[dict[str, Any], dict[str, Any]]
    mail: tuple[EmailMessage, EmailMessage]


def _page(compiled: CompiledSlo) -> CompiledAlert:
    return next(alert for alert in compiled.alerts if alert.severity is Severity.PAGE)


def _ticket(compiled: CompiledSlo) -> CompiledAlert:
    return next(alert for alert in compiled.alerts if alert.severity is Severity.TICKET)


def _fired(name: str, labels: dict[str, str], links: AlertLinks) -> dict[str, Any]:
    return {
        "labels": {"alertname": name, **labels},
        "annotations": {
            "summary": f"{name} is <so> & so.",
            "description": "Of all 3 % fail & <b>many</b> wait.",
            **links.annotations,
        },
        "startsAt": STARTED.isoformat(),
        "endsAt": (datetime.now(UTC) + timedelta(hours=1)).isoformat(),
    }


def _incident(links: Links) -> list[dict[str, Any]]:
    page, ticket = _page(AVAILABILITY), _ticket(LATENCY)
    return [
        _fired(page.name, {**page.labels}, alert_links(page, AVAILABILITY, links)),
        _fired(ticket.name, {**ticket.labels}, alert_links(ticket, LATENCY, links)),
        _fired(CAUSE.alert_name, {**CAUSE.labels, "service": "redemption-rds"}, cause_links(CAUSE, links)),
    ]


def _configuration(folder: Path, links: Links, http_url: str, smarthost: str) -> str:
    """The committed configuration, but for addresses and waits; its templates are where it looks for them."""
    for name, secret in (("key", "k" * 32), ("slack", f"{http_url}/slack")):
        (folder / name).write_text(secret)
    for artefact in notifications.render(COMPILED, links):
        (folder / artefact.path.name).write_text(artefact.text)
    receivers = Receivers(
        page=PagerDuty(routing_key_file=str(folder / "key")),
        ticket=(
            Slack(api_url_file=str(folder / "slack")),
            Email(to="crew@example.com", sender="am@example.com", smarthost=smarthost, username="", password_file=""),
        ),
        watchdog=Webhook(url=f"{http_url}/watchdog"),
    )
    (artefact,) = config.render(COMPILED, receivers, _TIMINGS)
    document = yaml.safe_load(artefact.text)
    document["templates"] = [str(folder / "*.tmpl")]
    document["global"] = {"pagerduty_url": f"{http_url}/v2/enqueue"}
    document["inhibit_rules"] = []  # here all are told
    (mail,) = document["receivers"][1]["email_configs"]
    mail |= {"require_tls": False}  # and no one to log in as
    del mail["auth_username"], mail["auth_password_file"]
    return yaml.safe_dump(document)


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Told:
    """An incident with links to AWS: a page, a ticket and a cause of another service; then all of it is over."""
    folder, inbox = tmp_path_factory.mktemp("notifications"), Inbox()
    with ExitStack() as stack:
        url, smarthost = stack.enter_context(_http(inbox)), stack.enter_context(_smtp(inbox))
        manager = stack.enter_context(alertmanager(_configuration(folder, AWS, url, smarthost)))
        incident = _incident(AWS)
        manager.send(*incident)
        firing = _of_ticket(inbox, "FIRING")
        paged = inbox.wait("/v2/enqueue", lambda body: body["event_action"] == "trigger")
        manager.send(*(alert | {"endsAt": ENDED.isoformat()} for alert in incident))
        over = _of_ticket(inbox, "RESOLVED")
        ended = inbox.wait("/v2/enqueue", lambda body: body["event_action"] == "resolve")
    return Told(pager=(paged, ended), slack=(firing[0], over[0]), mail=(firing[1], over[1]))


def _of_ticket(inbox: Inbox, status: str) -> tuple[dict[str, Any], EmailMessage]:
    def is_it(title: str) -> bool:
        return title.startswith(f"{status}: ") and "redemption-rds" not in title

    slack = inbox.wait("/slack", lambda body: is_it(body["attachments"][0]["title"]))
    return slack["attachments"][0], inbox.wait("mail", lambda mail: is_it(mail["Subject"]))


# --- what the links must be -------------------------------------------------------------------------------------------


def _iso(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%S.000Z")


def _milliseconds(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)


def _expected(alert: CompiledAlert, compiled: CompiledSlo, begins: timedelta, end: datetime) -> dict[str, str]:
    """The links of an alert with the ranges written out, by the encoder that is held against AWS's own addresses."""
    lead, found = alert_links(alert, compiled, AWS), evidence.of_slo(compiled.slo)
    start, hour_before = STARTED - begins, STARTED - timedelta(hours=1)
    traces: Value = {
        "query": {"expression": evidence.xray_filter(found)},
        "context": {"timeRange": {"end": _iso(end), "start": _iso(hour_before)}},
    }
    logs: Value = {
        "end": _iso(end),
        "start": _iso(hour_before),
        "timeType": "ABSOLUTE",
        "tz": "UTC",
        "editorString": evidence.insights_query(found),
        "source": AWS.log_groups,
        "lang": "CWLI",
    }
    console = f"{AWS.logs}?region={AWS.region}"
    return {
        "Runbook": lead.runbook,
        "Dashboard": lead.dashboard.partition("from=")[0] + f"from={_milliseconds(start)}&to={_milliseconds(end)}",
        "Traces": f"{console}#xray:traces/query?{encode(traces)}",
        "Logs": f"{console}#logsV2:logs-insights$3FqueryDetail$3D{encode(logs)}",
        **({"CloudWatch": lead.alarm} if lead.alarm else {}),
        "Silence": lead.silence,
    }


WHILE_IT_FIRES = STARTED + timedelta(hours=1)
WHEN_IT_IS_OVER = ENDED + timedelta(minutes=15)
ENDS = pytest.mark.parametrize(("which", "end"), [(0, WHILE_IT_FIRES), (1, WHEN_IT_IS_OVER)], ids=["firing", "over"])


@ENDS
def test_a_pager_gets_absolute_links(told: Told, which: int, end: datetime) -> None:
    """From six hours before the page to an hour after it, or a quarter of an hour after its end."""
    shown = {link["text"]: link["href"] for link in told.pager[which].get("links", [])}
    assert shown == _expected(_page(AVAILABILITY), AVAILABILITY, timedelta(hours=6), end)


@ENDS
def test_slack_gets_absolute_links(told: Told, which: int, end: datetime) -> None:
    """A ticket's board shows its three days; traces and logs begin an hour before."""
    shown = {title: url for url, title in re.findall(r"<([^|>]+)\|([^>]+)>", told.slack[which]["text"])}
    assert shown == _expected(_ticket(LATENCY), LATENCY, timedelta(hours=72), end)
    assert told.slack[which]["title_link"] == shown["Dashboard"]


class _Anchors(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: dict[str, str] = {}
        self._href = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._href = dict(attrs).get("href") or "" if tag == "a" else ""

    def handle_data(self, data: str) -> None:
        if self._href:
            self.found[data], self._href = self._href, ""


@ENDS
def test_an_email_gets_absolute_links_in_both_its_forms(told: Told, which: int, end: datetime) -> None:
    """As text and as HTML, byte for byte: no parenthesis or quote of AWS's addresses is escaped on the way."""
    expected = _expected(_ticket(LATENCY), LATENCY, timedelta(hours=72), end)
    text, html = (_part(told.mail[which], kind) for kind in ("plain", "html"))
    assert dict(re.findall(r"^(\w+): (https://\S+)$", text, re.MULTILINE)) == expected
    anchors = _Anchors()
    anchors.feed(html)
    assert anchors.found == expected


def _part(mail: EmailMessage, kind: str) -> str:
    part = mail.get_body((kind,))
    assert part is not None
    return str(part.get_content()).replace("\r\n", "\n")


# --- what they say ----------------------------------------------------------------------------------------------------


def test_a_page_says_what_is_wrong(told: Told) -> None:
    """Its title is the alert's sentence; the details have the figures while it fires, and how long it was when over."""
    trigger, resolve = told.pager
    name = _page(AVAILABILITY).name
    assert trigger["payload"]["summary"] == f"{name} is <so> & so."
    assert trigger["payload"]["severity"] == "critical"
    since = f"Since {STARTED:%Y-%m-%d %H:%M:%S} UTC"
    details = trigger["payload"]["custom_details"]
    assert f"{name} is <so> & so. ({name})\nOf all 3 % fail & <b>many</b> wait.\n{since}\n" in details["firing"]
    assert not details["resolved"]
    assert trigger["dedup_key"] == resolve["dedup_key"]


def test_slack_says_what_is_wrong(told: Told) -> None:
    """Title, colour, the sentence, figures and times; what Slack reads as its own is escaped."""
    firing, over = told.slack
    name = _ticket(LATENCY).name
    assert (firing["title"], firing["color"]) == ("FIRING: 1 redemption", "warning")
    assert (over["title"], over["color"]) == ("RESOLVED: redemption", "good")
    assert firing["text"].startswith(
        f"*FIRING* {name} is &lt;so&gt; &amp; so. ({name})\nOf all 3 % fail &amp; &lt;b&gt;many&lt;/b&gt; wait.\n"
        f"Since {STARTED:%Y-%m-%d %H:%M:%S} UTC\n<https://"
    )
    # What was true when it fired is not told again when it is over.
    assert over["text"].startswith(
        f"*RESOLVED* {name} is &lt;so&gt; &amp; so. ({name})\n"
        f"Since {STARTED:%Y-%m-%d %H:%M:%S} UTC, over after 1h 30m 0s\n<https://"
    )


def test_an_email_says_what_is_wrong(told: Told) -> None:
    """Subject, sentence, figures and times; in HTML no markup of an alert's text is any."""
    firing, over = told.mail
    name = _ticket(LATENCY).name
    assert firing["Subject"] == f"FIRING: 1 redemption: {name} is <so> & so."
    assert over["Subject"] == f"RESOLVED: redemption: {name} is <so> & so."
    assert firing["To"] == "crew@example.com"
    html = _part(firing, "html")
    assert f"<h2>{name} is &lt;so&gt; &amp; so.</h2>" in html
    assert "Of all 3 % fail &amp; &lt;b&gt;many&lt;/b&gt; wait." in html
    assert "Of all 3 % fail & <b>many</b> wait.\n" in _part(firing, "plain")
    assert "over after 1h 30m 0s" in _part(over, "html")


def test_with_a_jaeger_the_ranges_are_its_own(tmp_path: Path) -> None:
    """Its search takes microseconds; our page of logs has no range, and without an Alertmanager there is no silence.

    The links are the first alert's, and the title says that there is another.
    """
    inbox, pages = Inbox(), {_page(one).name: (_page(one), one) for one in COMPILED}
    with ExitStack() as stack:
        url, smarthost = stack.enter_context(_http(inbox)), stack.enter_context(_smtp(inbox))
        manager = stack.enter_context(alertmanager(_configuration(tmp_path, LOCAL, url, smarthost)))
        fired = (_fired(name, {**alert.labels}, alert_links(alert, one, LOCAL)) for name, (alert, one) in pages.items())
        manager.send(*fired)
        trigger = inbox.wait("/v2/enqueue", bool)
    shown = {link["text"]: link["href"] for link in trigger["links"]}
    first, *_ = trigger["payload"]["summary"].split(" ")
    assert trigger["payload"]["summary"] == f"{first} is <so> & so. And 1 more."
    lead = alert_links(*pages[first], LOCAL)
    begin, end = (int(moment.timestamp() * 1_000_000) for moment in (STARTED - timedelta(hours=1), WHILE_IT_FIRES))
    assert shown.keys() == {"Runbook", "Dashboard", "Traces", "Logs"}
    assert shown["Traces"] == lead.traces.replace("lookback=6h", f"lookback=custom&start={begin}&end={end}")
    assert shown["Logs"] == lead.logs


def test_many_alerts_are_not_too_much_for_slack(tmp_path: Path) -> None:
    """Of those that fire, and of those that are over, five are told with their links, and how many more there are."""
    for artefact in notifications.render(COMPILED, AWS):
        (tmp_path / artefact.path.name).write_text(artefact.text)
    (alert, *_) = _incident(AWS)
    alerts = [
        {"status": status, **{key: alert[key] for key in ("labels", "annotations")}}
        | {"startsAt": STARTED.isoformat(), "endsAt": ENDED.isoformat()}
        for status in ["firing"] * 8 + ["resolved"] * 6
    ]
    data = {"status": "firing", "alerts": alerts, "externalURL": "https://am.example.com", "commonLabels": {}}
    (tmp_path / "data.json").write_text(json.dumps(data))
    command: list[str | Path] = [tool("amtool"), "template", "render", f"--template.glob={tmp_path}/*.tmpl"]
    command += [f"--template.data={tmp_path}/data.json", '--template.text={{ template "slo.slack.text" . }}']
    text = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout
    assert (text.count("*FIRING*"), text.count("*RESOLVED*")) == (5, 5)
    assert "And 3 more that fire: https://am.example.com\n" in text
    assert "And 1 more that are over: https://am.example.com\n" in text
    assert len(text) < 40_000
