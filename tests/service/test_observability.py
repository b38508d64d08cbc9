"""What the service tells about itself: the catalogue's metrics, one trace id everywhere, and no secret."""

from __future__ import annotations

import io
import json
import logging
import re
import secrets
from typing import Any

import pytest
from fastapi import FastAPI
from opentelemetry.trace import SpanKind, StatusCode
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics_families
from prometheus_client.parser import text_string_to_metric_families

from service.app import create_app
from service.logs import ALLOWED_FIELDS, LibraryHandler, create_log
from service.middleware import QUIET_PATHS
from service.settings import Settings
from service.telemetry import Instruments
from slo import SloError
from slo.metrics import (
    REDEEM_ROUTE,
    REDEMPTION_METRICS,
    REDEMPTION_REQUESTS,
    REDEMPTION_REQUESTS_IN_FLIGHT,
    REDEMPTION_ROUTES,
    Counter,
    Gauge,
    Histogram,
    Metric,
)
from tests.service.conftest import OPEN_METRICS, Database, Serve, Service

pytestmark = pytest.mark.anyio

TRACE = "0af7651916cd43dd8448eb211c80319c"
TRACEPARENT = f"00-{TRACE}-b7ad6b7169203331-01"


def _expected(metric: Metric) -> set[tuple[str, frozenset[tuple[str, str]]]]:
    """The samples of a metric: each name with each combination of labels."""
    samples = set()
    for labels in metric.label_sets():
        pairs = frozenset(labels.items())
        if isinstance(metric, Histogram):
            edges = [*(repr(float(edge)) for edge in metric.buckets), "+Inf"]
            samples |= {(f"{metric.name}_bucket", pairs | {("le", edge)}) for edge in edges}
            samples |= {(f"{metric.name}_count", pairs), (f"{metric.name}_sum", pairs)}
        else:
            samples.add((metric.name, pairs))
    return samples


async def test_every_series_of_the_catalogue_is_there_at_zero(service: Service) -> None:
    """Before the first request each declared combination of labels is exposed at 0, and nothing else is."""
    families = list(text_string_to_metric_families(await service.metrics()))
    found = {(s.name, frozenset(s.labels.items())) for family in families for s in family.samples}
    assert found == set().union(*(_expected(metric) for metric in REDEMPTION_METRICS))
    assert {s.value for family in families for s in family.samples} == {0.0}
    kinds = {family.name.removesuffix("_total"): family.type for family in families}
    for metric in REDEMPTION_METRICS:
        kind = {Counter: "counter", Gauge: "gauge", Histogram: "histogram"}[type(metric)]
        assert kinds[metric.name.removesuffix("_total")] == kind


async def test_the_routes_are_those_of_the_catalogue() -> None:
    """Each route of the application is either measured under the catalogue's name or quiet on purpose."""
    app: FastAPI = create_app(Settings(database_url="postgresql://nobody@127.0.0.1:1/none"))
    paths = app.openapi()["paths"]
    found = {f"{method.upper()} {path}" for path, methods in paths.items() for method in methods}
    assert found - {f"GET {path}" for path in QUIET_PATHS} == set(REDEMPTION_ROUTES)


async def test_requests_are_counted_by_route_and_outcome(service: Service, database: Database) -> None:
    """A redemption, its replay, a refusal, a mistake: each lands in its series; points and replays are counted."""
    account, key = await database.account(100), secrets.token_hex(16)
    made = await service.redeem(account, 30, key)
    await service.redeem(account, 30, key)
    await service.redeem(account, 1000)
    await service.redeem(account, 31, key)
    await service.redeem("not an account", 1)
    await service.client.get(made.headers["Location"])
    await service.client.get("/v1/accounts/nobody/balance")
    for name in ("redemption_requests_total", "redemption_request_duration_seconds_count"):
        for outcome, count in {"ok": 2, "refused": 2, "invalid": 1, "error": 0}.items():
            assert await service.sample(name, route=REDEEM_ROUTE, outcome=outcome) == count
        assert await service.sample(name, route="GET /v1/redemptions/{redemption_id}", outcome="ok") == 1
        assert await service.sample(name, route="GET /v1/accounts/{account_id}/balance", outcome="refused") == 1
    assert await service.sample("redemption_points_redeemed_total") == 30
    assert await service.sample("redemption_replays_total") == 1
    assert await service.sample("redemption_database_connections", state="idle") >= 1
    assert await service.sample("redemption_database_connections", state="busy") == 0


async def test_what_is_no_route_is_not_counted(service: Service) -> None:
    """Unknown addresses, wrong methods and probes leave every counter at 0: a scanner spends no error budget."""
    for method, path in (("GET", "/"), ("GET", "/v1/redemptions"), ("DELETE", "/v1/redemptions"), ("GET", "/readyz")):
        await service.client.request(method, path)
    for route in REDEMPTION_ROUTES:
        for outcome in REDEMPTION_REQUESTS.labels["outcome"]:
            assert await service.sample("redemption_requests_total", route=route, outcome=outcome) == 0


async def test_open_metrics_carry_exemplars(service: Service, database: Database) -> None:
    """A scraper that takes OpenMetrics gets the trace id beside counter and bucket; another gets plain text."""
    await service.redeem(await database.account(10), 3, traceparent=TRACEPARENT)
    answer = await service.client.get("/metrics", headers={"Accept": OPEN_METRICS})
    assert answer.headers["Content-Type"].startswith("application/openmetrics-text")
    families = open_metrics_families(answer.text)  # type: ignore[no-untyped-call]
    exemplars = {sample.name: sample.exemplar.labels for each in families for sample in each.samples if sample.exemplar}
    assert exemplars == {
        "redemption_requests_total": {"trace_id": TRACE},
        "redemption_request_duration_seconds_bucket": {"trace_id": TRACE},
        "redemption_points_redeemed_total": {"trace_id": TRACE},
    }
    plain = await service.client.get("/metrics")
    assert plain.headers["Content-Type"].startswith("text/plain")
    assert TRACE not in plain.text


async def test_a_trace_that_is_not_kept_is_no_exemplar(service: Service, database: Database) -> None:
    """When the caller's trace is not sampled, no exemplar points to it: the link would lead nowhere."""
    await service.redeem(await database.account(10), 3, traceparent=TRACEPARENT[:-2] + "00")
    assert TRACE not in await service.metrics(OPEN_METRICS)
    assert service.lines()[-1]["trace_id"] == TRACE


async def test_one_trace_id_everywhere(service: Service, database: Database) -> None:
    """Log line, problem, exemplars, server span and database span of a request tell the caller's trace id."""
    answer = await service.redeem(await database.account(1), 3, traceparent=TRACEPARENT)
    assert answer.json()["trace_id"] == TRACE
    assert [line["trace_id"] for line in service.lines()] == [TRACE]
    spans = service.finished()
    assert {f"{span.context.trace_id:032x}" for span in spans if span.context} == {TRACE}
    assert {span.kind for span in spans} == {SpanKind.SERVER, SpanKind.CLIENT}
    assert set(re.findall(r'trace_id="(\w+)"', await service.metrics(OPEN_METRICS))) == {TRACE}


async def test_spans_follow_the_conventions(service: Service, database: Database) -> None:
    """The server span is named by the route, its child by the database call; neither holds the account."""
    account = await database.account(10)
    await service.client.get(f"/v1/accounts/{account}/balance")
    await service.redeem(account, 3)
    spans = {span.name: span for span in service.finished()}
    server, client = spans[REDEEM_ROUTE], spans["SELECT ledger.redeem"]
    assert client.parent is not None
    assert server.context is not None
    assert client.parent.span_id == server.context.span_id
    attributes = dict(server.attributes or {})
    attributes.pop("server.port", None)  # httpx names none
    assert attributes == {
        "http.request.method": "POST",
        "http.response.status_code": 201,
        "http.route": "/v1/redemptions",
        "network.protocol.version": "1.1",
        "server.address": "service",
        "url.path": "/v1/redemptions",
        "url.scheme": "http",
    }
    attributes = dict(client.attributes or {})
    assert attributes.pop("server.port")
    assert attributes == {
        "db.system.name": "postgresql",
        "db.namespace": "postgres|ledger",
        "db.operation.name": "SELECT",
        "db.stored_procedure.name": "ledger.redeem",
        "db.query.summary": "SELECT ledger.redeem",
        "server.address": "127.0.0.1",
    }
    for span in service.finished():
        assert account not in span.to_json()
        assert span.status.status_code is StatusCode.UNSET


async def test_a_log_line_holds_allowed_fields_only(service: Service, database: Database) -> None:
    """One line a request, from a list of fields; no account, key, body or password is in it."""
    account, key = await database.account(10), secrets.token_hex(16)
    await service.redeem(account, 3, key, Authorization="Bearer s3cret")
    await service.client.get(f"/v1/accounts/{account}/balance?token=s3cret")
    lines = service.lines()
    assert [line["route"] for line in lines] == [REDEEM_ROUTE, "GET /v1/accounts/{account_id}/balance"]
    for line in lines:
        assert set(line) <= set(ALLOWED_FIELDS)
        assert (line["event"], line["level"], line["outcome"]) == ("request", "info", "ok")
    assert lines[0]["account"] == lines[1]["account"]
    text = service.log.getvalue().decode()
    for secret in (account, key, "s3cret", database.app.split(":")[2].split("@")[0]):
        assert secret not in text


async def test_what_is_not_allowed_is_dropped() -> None:
    """A careless call cannot write an account id, a key or a token: only listed fields pass."""
    stream = io.BytesIO()
    create_log(stream).warning("request", account_id="guest-1", idempotency_key="k", token="t", status=200)
    line = json.loads(stream.getvalue())
    assert set(line) == {"timestamp", "level", "event", "status"}


async def test_what_libraries_log_is_a_line_too() -> None:
    """A library's warning becomes a JSON line that names an exception's class and place, not its words."""
    stream = io.BytesIO()
    library = logging.Logger("some.library")  # noqa: LOG001 - of its own, so that no other handler hears it
    library.addHandler(LibraryHandler(create_log(stream)))
    error = ValueError("the secret is 4711")
    library.error("cannot export", exc_info=error)
    library.info("chatter")
    line = json.loads(stream.getvalue())
    assert (line["event"], line["level"], line["logger"]) == ("cannot export", "error", "some.library")
    assert line["error"] == "ValueError"
    assert "4711" not in stream.getvalue().decode()


async def test_the_account_hash_depends_on_the_key(serve: Serve, database: Database) -> None:
    """With one key the same account has the same stand-in in every process; with another, or a random one, not."""
    account = await database.account(10)
    stand_ins = []
    for key in (b"a" * 32, b"a" * 32, b"b" * 32, None, None):
        async with serve(log_hash_key=key) as service:
            await service.balance(account)
            stand_ins.append(service.lines()[0]["account"])
    assert stand_ins[0] == stand_ins[1]
    assert len(set(stand_ins)) == 4


async def test_an_unexpected_exception_is_an_error(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault of ours is counted, logged with its place but not its words, and told as a problem."""

    def broken(*_: object) -> Any:  # noqa: ANN401 - it never returns
        raise RuntimeError("the secret is 4711")

    monkeypatch.setattr("service.domain.parse_redemption", broken)
    answer = await service.redeem("somebody", 3)
    assert (answer.status_code, answer.json()["code"]) == (500, "internal-error")
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert await service.sample("redemption_requests_total", route=REDEEM_ROUTE, outcome="error") == 1
    line = service.lines()[-1]
    assert (line["error"], line["outcome"], line["level"]) == ("RuntimeError", "error", "warning")
    assert line["trace_id"] == answer.json()["trace_id"]
    assert any("broken" in frame for frame in line["stack"])
    told = answer.text + service.log.getvalue().decode() + "".join(span.to_json() for span in service.finished())
    assert "4711" not in told
    assert service.finished()[-1].status.status_code is StatusCode.ERROR


async def test_instruments_refuse_what_the_catalogue_does_not_declare() -> None:
    """An undeclared label value, label or metric raises where it is used."""
    instruments = Instruments([REDEMPTION_REQUESTS])
    with pytest.raises(SloError, match="'great'"):
        instruments.count(REDEMPTION_REQUESTS, 1, route=REDEEM_ROUTE, outcome="great")
    with pytest.raises(LookupError, match="misses a label"):
        instruments.count(REDEMPTION_REQUESTS, 1, route=REDEEM_ROUTE)
    with pytest.raises(LookupError, match="redemption_requests_in_flight"):
        instruments.set(REDEMPTION_REQUESTS_IN_FLIGHT, 1)
