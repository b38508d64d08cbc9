"""A console that looks at a real Prometheus, with our compiled rules, and at a real Alertmanager."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import httpx
from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from alerts import prometheus as rules
from drills.harness import Alertmanager, Prometheus, alertmanager, prometheus, wait_until
from review.connection import Connection
from review.console.live import Source, State
from review.console.server import serving
from review.console.site import Site
from slo import CompiledSlo, Counter, Events, artefacts, compile_slo
from slo.metrics import BAD_OUTCOMES, REDEMPTION_REQUESTS
from slo.settings import Links
from slo.windows import policy
from tests.review.history import AVAILABILITY, LEDGER, LEDGER_CALLS

LINKS = Links(
    grafana="https://grafana.example.com",
    runbooks="https://docs.example.com/runbooks",
    traces="https://traces.example.com",
    logs="https://logs.example.com",
)

_DIVISOR = 60  # 5 minutes are 5 seconds
_EVENTS_PER_SECOND = 300
_BAD_SHARE = 0.2

# Alertmanager knows a label more of each alert than Prometheus; and Thanos asks for one.
_GLOBAL = {"scrape_interval": "1s", "scrape_timeout": "1s", "external_labels": {"cluster": "x"}}

PAGE, TICKET = "RedemptionAvailabilityPage", "RedemptionAvailabilityTicket"
_NEVER = Counter("never_total", "Nothing counts it.", labels={"outcome": ("ok", "error")})
_SILENT = replace(LEDGER, name="silent", sli=Events(bad=_NEVER.where(outcome="error"), all=_NEVER.where()), alerts=())
BURNING, CALM, UNKNOWN = (
    compile_slo(slo, policy(slo.window).scaled(_DIVISOR)) for slo in (AVAILABILITY, LEDGER, _SILENT)
)


class _Events(Collector):
    """A fifth of the requests is bad, and every call of the ledger good, from the first scrape on."""

    def __init__(self) -> None:
        self._started = time.monotonic()

    def describe(self) -> list[CounterMetricFamily]:
        return []

    def collect(self) -> Iterator[CounterMetricFamily]:
        events = _EVENTS_PER_SECOND * (time.monotonic() - self._started)
        requests = CounterMetricFamily(
            REDEMPTION_REQUESTS.name, REDEMPTION_REQUESTS.help, labels=list(REDEMPTION_REQUESTS.labels)
        )
        sets = list(REDEMPTION_REQUESTS.label_sets())
        bad = [one for one in sets if one["outcome"] in BAD_OUTCOMES]
        for labels in sets:
            share = _BAD_SHARE / len(bad) if labels in bad else (1 - _BAD_SHARE) / (len(sets) - len(bad))
            requests.add_metric(list(labels.values()), round(share * events))
        yield requests
        calls = CounterMetricFamily(LEDGER_CALLS.name, LEDGER_CALLS.help, labels=["outcome"])
        calls.add_metric(["ok"], round(events))
        calls.add_metric(["error"], 0)
        yield calls


@contextmanager
def _exposition() -> Iterator[str]:
    """Serve the metrics on a free loopback port."""
    registry = CollectorRegistry()
    registry.register(_Events())
    server, thread = start_http_server(0, "127.0.0.1", registry)
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@dataclass(frozen=True)
class Watched:
    """What is looked at.

    Attributes:
        url: Of the console.
        source: What the console asks.
        slos: Its SLOs.
        server: The Prometheus.
        pager: The Alertmanager.
    """

    url: str
    source: Source
    slos: tuple[CompiledSlo, ...]
    server: Prometheus
    pager: Alertmanager


@contextmanager
def watched(folder: Path) -> Iterator[Watched]:
    """One SLO burns so that its page and its ticket fire, one is calm, and of one nothing is recorded."""
    slos = (UNKNOWN, CALM, BURNING)
    written = [*rules.render_platform(LINKS), *(one for slo in slos for one in rules.render_slo(slo, LINKS))]
    artefacts.write(folder, written)
    files = sorted((folder / "prometheus/rules").glob("*.yaml"))
    with (
        _exposition() as target,
        alertmanager('route: {receiver: "nobody"}\nreceivers: [{name: "nobody"}]\n') as pager,
        prometheus(
            rules=files, targets={"redemption": [target]}, alertmanager_url=pager.url, config={"global": _GLOBAL}
        ) as server,
    ):
        _silence(pager, TICKET)
        source = Source(Connection(url=server.url), pager.url)
        wait_until("the alerts fire and are handled", lambda: _settled(source, slos), 90)
        with serving(Site(slos, source)) as url:
            yield Watched(url, source, slos, server, pager)


def _silence(pager: Alertmanager, alert: str) -> None:
    silence = {
        "matchers": [{"name": "alertname", "value": alert, "isRegex": False, "isEqual": True}],
        "startsAt": "2020-01-01T00:00:00Z",
        "endsAt": "2099-01-01T00:00:00Z",
        "createdBy": "a test",
        "comment": "known",
    }
    httpx.post(f"{pager.url}/api/v2/silences", json=silence, trust_env=False).raise_for_status()


def _settled(source: Source, slos: tuple[CompiledSlo, ...]) -> bool:
    now = source.now(slos)
    known = {one.compiled: one for one in now.slos}
    handled = {alert.name: alert.handling for alert in now.alerts if alert.firing}
    return (
        (handled.get(PAGE), handled.get(TICKET)) == ("told", "silenced")
        and known[BURNING].left is not None
        and known[CALM].state is State.FINE
        and len(known[CALM].burns) == len(CALM.policy.alert_windows)
        and not now.notes
    )
