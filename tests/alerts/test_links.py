"""Where alerts lead."""

import re
import time
from dataclasses import replace
from urllib.parse import parse_qs, parse_qsl, unquote, urlsplit

import httpx
import pytest
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.trace import StatusCode

from alerts import evidence
from alerts.alarms import linked
from alerts.cloudwatch import plan, uncovered
from alerts.links import alert_links, cause_links, watchdog_links
from drills.harness import jaeger
from drills.harness.http import wait_until
from service.logs import ALLOWED_FIELDS
from slo import CompiledSlo, Rolling, Severity, Slo, compile_slo
from slo import conventions as names
from slo.compile import AlertKind, CompiledAlert
from slo.definitions import edge, rds, redemption
from slo.settings import Links, everything, load
from tests.contract.places import ROOT

LINKS = Links(
    grafana="https://grafana.example.com/",
    runbooks="https://docs.example.com/runbooks",
    traces="https://traces.example.com",
    logs="https://logs.example.com",
)

SETTINGS = load(ROOT / "pyproject.toml")
DEFINED = everything(SETTINGS)
OURS, CAUSES = tuple(compile_slo(slo) for slo in DEFINED.slos), DEFINED.causes
AWS = linked(SETTINGS, OURS, CAUSES).links
CAUSE = next(cause for cause in CAUSES if cause.id == "rds-storage-low")


@pytest.fixture
def compiled() -> CompiledSlo:
    """An SLO with a page, a ticket and an absence."""
    return compile_slo(redemption.latency_fast)


def _alert(compiled: CompiledSlo, kind: AlertKind, severity: Severity) -> CompiledAlert:
    return next(alert for alert in compiled.alerts if (alert.kind, alert.severity) == (kind, severity))


def test_the_runbook_is_the_file_named_as_the_alert(compiled: CompiledSlo) -> None:
    """Every alert leads to the file that conventions.runbook_file names, below the runbooks' base URL."""
    for alert in compiled.alerts:
        expected = f"https://docs.example.com/runbooks/{names.runbook_file(alert.name)}"
        assert alert_links(alert, compiled, LINKS).runbook == expected


def test_the_dashboard_is_the_slo_board_with_this_slo_chosen(compiled: CompiledSlo) -> None:
    """A page opens the board of its SLO over the last six hours; a rule knows no clock, so up to now."""
    page = _alert(compiled, AlertKind.BURN, Severity.PAGE)
    url = urlsplit(alert_links(page, compiled, LINKS).dashboard)
    assert (url.scheme, url.netloc, url.path) == (
        "https",
        "grafana.example.com",
        f"/d/{names.DETAIL_UID}/slo-detail",
    )
    assert parse_qs(url.query, strict_parsing=True) == {
        "var-service": ["redemption"],
        "var-slo": ["latency-fast"],
        "from": ["now-6h"],
        "to": ["now"],
    }


def test_a_ticket_shows_its_longest_window(compiled: CompiledSlo) -> None:
    """A leak over three days is not to be seen in six hours, so a ticket's board shows its longest window."""
    ticket = _alert(compiled, AlertKind.BURN, Severity.TICKET)
    assert "from=now-72h&" in alert_links(ticket, compiled, LINKS).dashboard


def test_an_absence_shows_six_hours(compiled: CompiledSlo) -> None:
    """An absence has no windows; its board shows when the data went."""
    absent = _alert(compiled, AlertKind.ABSENT, Severity.PAGE)
    assert "from=now-6h&" in alert_links(absent, compiled, LINKS).dashboard


def test_part_hours_round_up() -> None:
    """Grafana knows no `now-3d12h`, so a scaled window of part hours is shown in whole hours, rounded up."""
    slo = replace(redemption.latency_fast, window=Rolling(days=28))
    compiled = compile_slo(slo, compile_slo(slo).policy.scaled(11))
    ticket = _alert(compiled, AlertKind.BURN, Severity.TICKET)
    assert "from=now-7h&" in alert_links(ticket, compiled, LINKS).dashboard


def test_the_watchdog_leads_to_the_platform() -> None:
    """Whether what tells of all others still works; and then the overview, as every SLO is blind without it."""
    links = watchdog_links(LINKS)
    assert links.runbook == "https://docs.example.com/runbooks/Watchdog.md"
    assert links.dashboard == f"https://grafana.example.com/d/{names.PLATFORM_UID}/slo-platform?from=now-6h&to=now"
    overview = f"https://grafana.example.com/d/{names.OVERVIEW_UID}/slo-overview?from=now-6h&to=now"
    assert links.boards == (("All promises", overview),)
    assert not links.traces + links.logs + links.alarm + links.silence


def test_a_cause_leads_to_its_components_board() -> None:
    """What is wrong is seen there; whom it hurts, on the overview."""
    links = cause_links(CAUSE, LINKS)
    assert links.dashboard == f"https://grafana.example.com/d/{names.component_uid('rds')}/rds?from=now-6h&to=now"
    assert [title for title, _ in links.boards] == ["All promises"]


def test_a_promise_of_the_service_leads_to_its_board_and_the_sales(compiled: CompiledSlo) -> None:
    """Beside the promise: its component over the same time, and what a flash sale does; others have no sale."""
    ticket = _alert(compiled, AlertKind.BURN, Severity.TICKET)
    boards = dict(alert_links(ticket, compiled, LINKS).boards)
    alone = "https://grafana.example.com/d/slo-detail/slo-detail?var-service=redemption&var-slo=latency-fast"
    assert boards == {
        "What broke, alone": f"{alone}&viewPanel=10&from=now-72h&to=now",
        "Board of service": "https://grafana.example.com/d/component-service/service?from=now-72h&to=now",
        "Flash sale": "https://grafana.example.com/d/flash-sale/flash-sale?from=now-6h&to=now",
    }
    other = compile_slo(rds.availability)
    titles = [title for title, _ in alert_links(other.alerts[0], other, LINKS).boards]
    assert titles == ["What broke, alone", "Board of rds"]


def test_only_what_is_there_is_an_annotation(compiled: CompiledSlo) -> None:
    """A rule carries no empty link and no silence, which needs the labels of the very alert."""
    page = _alert(compiled, AlertKind.BURN, Severity.PAGE)
    local, aws = (alert_links(page, compiled, links).annotations for links in (LINKS, AWS))
    assert [*local] == ["runbook_url", "dashboard_url", "traces_url", "logs_url"]
    assert [*aws] == ["runbook_url", "dashboard_url", "traces_url", "logs_url", "alarm_url"]
    assert aws["alarm_url"].endswith("?region=eu-central-1#alarmsV2:alarm/slo-RedemptionLatencyFast-fast")


def test_a_silence_is_of_one_alert(compiled: CompiledSlo) -> None:
    """Its matchers are the alert, its service and its SLO or cause: nothing else is silenced with it."""
    page = _alert(compiled, AlertKind.BURN, Severity.PAGE)
    begin = "https://alertmanager.example.com/#/silences/new?filter="
    of_slo, of_cause = alert_links(page, compiled, AWS).silence, cause_links(CAUSE, AWS).silence
    assert unquote(of_slo.removeprefix(begin)) == (
        '{alertname="RedemptionLatencyFastPage",service="redemption",slo="latency-fast"}'
    )
    assert unquote(of_cause.removeprefix(begin)) == '{alertname="RdsStorageLow",service="rds",cause="storage-low"}'


# --- traces and logs --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("slo", "expression"),
    [
        (redemption.availability, 'service("redemption") AND fault = true'),
        (
            redemption.capture_and_refund,
            (
                'service("redemption") AND fault = true AND ('
                '(http.method = "POST" AND http.url ENDSWITH "/v1/redemptions/{redemption_id}/capture") OR '
                '(http.method = "POST" AND http.url ENDSWITH "/v1/redemptions/{redemption_id}/refunds") OR '
                '(http.method = "POST" AND http.url ENDSWITH "/v1/redemptions/{redemption_id}/void"))'
            ),
        ),
        (
            redemption.latency_fast,
            (
                'service("redemption") AND responsetime > 0.25 AND '
                '(http.method = "POST" AND http.url ENDSWITH "/v1/redemptions")'
            ),
        ),
        (edge.availability, 'service("redemption") AND fault = true'),
        (
            replace(redemption.availability, component=None, signals=(), service="shop"),
            'service("shop") AND fault = true',
        ),
    ],
)
def test_xray_is_asked_for_the_bad_events(slo: Slo, expression: str) -> None:
    """Failed or slow requests of the service, on the routes of the SLO; a component's alert asks for whom it hurts."""
    assert evidence.xray_filter(evidence.of_slo(slo)) == expression


@pytest.mark.parametrize(
    ("slo", "condition"),
    [
        (redemption.availability, 'outcome in ["error", "shed", "timeout"]'),
        (
            redemption.latency_slow,
            'route in ["POST /v1/redemptions"] and outcome in ["deferred", "ok", "refused"] and duration_seconds > 1',
        ),
        (redemption.integrity, 'level in ["warning", "error", "critical"]'),
        (edge.availability, 'level in ["warning", "error", "critical"]'),
    ],
)
def test_logs_insights_is_asked_for_the_bad_events(slo: Slo, condition: str) -> None:
    """By the fields that the service writes; where the SLI counts no requests of ours, by the level."""
    assert evidence.insights_query(evidence.of_slo(slo)) == (
        "fields @timestamp, level, event, route, outcome, status, duration_seconds, trace_id\n"
        f"| filter {condition}\n| sort @timestamp desc\n| limit 200"
    )


def test_what_logs_are_asked_for_is_what_the_service_writes() -> None:
    """Every field of the query is one that the service's log lines may have, or Logs Insights' own."""
    for slo in DEFINED.slos:
        query = evidence.insights_query(evidence.of_slo(slo))
        fields, condition = query.split("\n")[:2]
        asked = {*re.findall(r"[a-z_@]+", fields.removeprefix("fields")), *re.findall(r"(\w+) (?:in|>)", condition)}
        assert asked <= {"@timestamp", *ALLOWED_FIELDS}


def test_a_jaeger_is_asked_for_the_same(compiled: CompiledSlo) -> None:
    """One route is an operation; of several none can be one."""
    page = _alert(compiled, AlertKind.BURN, Severity.PAGE)
    slow = urlsplit(alert_links(page, compiled, LINKS).traces)
    assert slow.path == "/search"
    assert dict(parse_qsl(slow.query, strict_parsing=True)) == {
        "service": "redemption",
        "lookback": "6h",
        "limit": "20",
        "operation": "POST /v1/redemptions",
        "minDuration": "250ms",
    }
    failed = urlsplit(evidence.traces_url(evidence.of_slo(redemption.capture_and_refund), LINKS))
    assert dict(parse_qsl(failed.query, strict_parsing=True)) == {
        "service": "redemption",
        "lookback": "6h",
        "limit": "20",
        "tags": '{"error":"true"}',
    }


@pytest.mark.e2e
def test_a_real_jaeger_finds_the_bad_requests_alone(compiled: CompiledSlo) -> None:
    """The very search of an alert's link, put to Jaeger's API, finds the trace that failed or was slow."""
    failing = compile_slo(redemption.availability)
    with jaeger() as server:
        links = replace(LINKS, traces=server.url)
        provider = TracerProvider(resource=Resource.create({"service.name": "redemption"}))
        exporter = OTLPSpanExporter(f"{server.otlp_url}/v1/traces")
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        tracer, begun = provider.get_tracer("test"), time.time_ns() - 1_000_000_000
        for kind, seconds in (("good", 0.1), ("slow", 0.4), ("failed", 0.1)):
            span = tracer.start_span("POST /v1/redemptions", start_time=begun, attributes={"kind": kind})
            if kind == "failed":
                span.set_status(StatusCode.ERROR)
            span.end(begun + int(seconds * 1e9))
        provider.shutdown()
        wait_until("all traces are there", lambda: len(server.traces("redemption")) == 3, 10)
        for one, kind in ((failing, "failed"), (compiled, "slow")):
            url = alert_links(one.alerts[0], one, links).traces
            answer = httpx.get(url.replace("/search?", "/api/traces?"), trust_env=False).json()
            (trace,) = answer["data"]
            tags = {tag["key"]: tag["value"] for tag in trace["spans"][0]["tags"]}
            assert tags["kind"] == kind


# --- the twins in CloudWatch ------------------------------------------------------------------------------------------


def test_every_twin_is_an_alarm() -> None:
    """Each address names an alarm of the plan, in its region, or searches for what several begin with."""
    planned = {(alarm.region, alarm.name) for alarm in plan(OURS, CAUSES, SETTINGS)}
    for url in AWS.alarms.values():
        region, _, place = url.partition("?region=")[2].partition("#alarmsV2:")
        name = unquote(place.removeprefix("alarm/"))
        if (region, name) not in planned:
            begin = place.removeprefix("?~(search~'").removesuffix(")")
            assert len([one for one in planned if one[0] == region and one[1].startswith(begin)]) > 1, url


def test_an_alert_has_no_twin_only_where_cloudwatch_knows_nothing() -> None:
    """Each SLO whose events CloudWatch has leads to an alarm from each of its burn alerts."""
    unseen = {one.slo.id for one in uncovered(OURS, SETTINGS)}
    for one in OURS:
        burning = {alert.name for alert in one.alerts if alert.kind is AlertKind.BURN}
        assert (one.slo.id in unseen) == bool(burning - AWS.alarms.keys()), one.slo.id


def test_without_alarms_there_are_no_twins() -> None:
    """No [tool.slo.cloudwatch], or no console to show it in."""
    assert linked(replace(SETTINGS, cloudwatch=None), OURS, CAUSES).links == SETTINGS.links
    local = replace(SETTINGS, links=LINKS)
    assert linked(local, OURS, CAUSES) == local
