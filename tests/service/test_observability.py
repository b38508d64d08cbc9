"""What the service tells about itself: the catalogue's metrics, one trace id everywhere, and no secret."""

from __future__ import annotations

import asyncio
import gc
import io
import json
import logging
import re
import secrets
from dataclasses import dataclass
from typing import Any

import pytest
from fastapi import FastAPI
from opentelemetry.context import attach, detach
from opentelemetry.sdk.environment_variables import OTEL_TRACES_SAMPLER, OTEL_TRACES_SAMPLER_ARG
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import Decision
from opentelemetry.trace import SpanContext, SpanKind, StatusCode, TraceFlags, get_current_span
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics_families
from prometheus_client.parser import text_string_to_metric_families

from service import tracing
from service.app import create_app
from service.logs import ALLOWED_FIELDS, MESSAGE_WITHHELD, LibraryHandler, LineBuffer, account_hash, create_log
from service.middleware import QUIET_PATHS
from service.settings import Settings
from service.telemetry import Instruments
from service.tracing import RequestTrace, RequestTracer
from slo import SloError
from slo.metrics import (
    REDEEM_ROUTE,
    REDEMPTION_ADMISSION_LIMIT,
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


async def _lines(service: Service) -> list[dict[str, Any]]:
    """The log so far: lines are written when the event loop has gone round."""
    await asyncio.sleep(0)
    return service.lines()


async def test_every_series_of_the_catalogue_is_there_at_zero(service: Service) -> None:
    """Before the first request each declared combination of labels is exposed at 0, and nothing else is.

    Only the limit of requests in flight starts somewhere.
    """
    families = list(text_string_to_metric_families(await service.metrics()))
    found = {(s.name, frozenset(s.labels.items())) for family in families for s in family.samples}
    assert found == set().union(*(_expected(metric) for metric in REDEMPTION_METRICS))
    limit = REDEMPTION_ADMISSION_LIMIT.name
    assert {s.value for family in families for s in family.samples if s.name != limit} == {0.0}
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
    assert await service.sample("redemption_replays_total", source="ledger") == 1
    assert await service.sample("redemption_database_connections", state="idle") >= 1
    assert await service.sample("redemption_database_connections", state="busy") == 0


async def test_what_is_no_route_is_not_counted(service: Service) -> None:
    """Unknown addresses, wrong methods and probes leave every counter at 0: a scanner spends no error budget."""
    for method, path in (("GET", "/"), ("PUT", "/v1/redemptions"), ("DELETE", "/v1/redemptions"), ("GET", "/readyz")):
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
    }
    plain = await service.client.get("/metrics")
    assert plain.headers["Content-Type"].startswith("text/plain")
    assert TRACE not in plain.text


async def test_a_trace_that_is_not_kept_is_no_exemplar(service: Service, database: Database) -> None:
    """When the caller's trace is not sampled, no exemplar points to it: the link would lead nowhere."""
    await service.redeem(await database.account(10), 3, traceparent=TRACEPARENT[:-2] + "00")
    assert TRACE not in await service.metrics(OPEN_METRICS)
    assert (await _lines(service))[-1]["trace_id"] == TRACE


async def test_one_trace_id_everywhere(service: Service, database: Database) -> None:
    """Log line, problem, exemplars, server span and database span of a request tell the caller's trace id."""
    answer = await service.redeem(await database.account(1), 3, traceparent=TRACEPARENT)
    assert answer.json()["trace_id"] == TRACE
    assert [line["trace_id"] for line in await _lines(service)] == [TRACE]
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
    server, client = spans[REDEEM_ROUTE], spans["SELECT ledger.redeem_batch"]
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
        "db.stored_procedure.name": "ledger.redeem_batch",
        "db.query.summary": "SELECT ledger.redeem_batch",
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
    lines = await _lines(service)
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
    assert (line["event"], line["level"], line["logger"]) == (MESSAGE_WITHHELD, "error", "some.library")
    assert line["error"] == "ValueError"
    assert "4711" not in stream.getvalue().decode()


async def test_what_libraries_warn_of_is_told_in_their_words() -> None:
    """Without an exception the message is all there is, and it is told."""
    stream = io.BytesIO()
    library = logging.Logger("some.library")  # noqa: LOG001 - as above
    library.addHandler(LibraryHandler(create_log(stream)))
    library.warning("the pool has %d connections", 3)
    line = json.loads(stream.getvalue())
    assert (line["event"], line["logger"]) == ("the pool has 3 connections", "some.library")
    assert "stack" not in line


@pytest.mark.parametrize("is_quoting", [True, False])
async def test_a_message_that_may_quote_an_exception_is_withheld(
    is_quoting: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    """A library that words an exception itself: the line names its class, its place and where it was logged."""
    stream = io.BytesIO()
    library = logging.Logger("some.library")  # noqa: LOG001 - as above
    library.addHandler(LibraryHandler(create_log(stream)))
    try:
        int("4711 is the secret")
    except ValueError as error:
        library.exception("failed: %s", error if is_quoting else "again")
    line = json.loads(stream.getvalue())
    assert (line["event"], line["logger"], line["error"]) == (MESSAGE_WITHHELD, "some.library", "ValueError")
    assert len(line["stack"]) == 2
    assert all("test_observability.py" in place for place in line["stack"])
    assert "4711" not in stream.getvalue().decode()


def test_what_the_event_loop_tells_of_lost_exceptions_is_withheld() -> None:
    """`Task exception was never retrieved` quotes the exception, with it or, for a callback's context, without."""
    stream = io.BytesIO()
    handler = LibraryHandler(create_log(stream))
    logger = logging.getLogger("asyncio")
    logger.addHandler(handler)

    async def fail() -> None:
        raise ValueError("the secret is 4711")

    async def lose() -> None:
        await asyncio.wait([asyncio.create_task(fail())])
        gc.collect()
        asyncio.get_running_loop().call_exception_handler({"message": "odd", "reason": ValueError("it is 4711")})

    try:
        asyncio.run(lose())
    finally:
        logger.removeHandler(handler)
    lost, odd = (json.loads(line) for line in stream.getvalue().splitlines())
    for line in (lost, odd):
        assert (line["event"], line["level"], line["logger"]) == (MESSAGE_WITHHELD, "error", "asyncio")
        assert "call_exception_handler" in line["stack"][-1] or "default_exception_handler" in line["stack"][-1]
    assert lost["error"] == "ValueError"
    assert "error" not in odd
    assert "4711" not in stream.getvalue().decode()


async def test_the_account_hash_depends_on_the_key(serve: Serve, database: Database) -> None:
    """With one key the same account has the same stand-in in every process; with another, or a random one, not."""
    account = await database.account(10)
    stand_ins = []
    for key in (b"a" * 32, b"a" * 32, b"b" * 32, None, None):
        async with serve(log_hash_key=key) as service:
            await service.balance(account)
            stand_ins.append((await _lines(service))[0]["account"])
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
    line = (await _lines(service))[-1]
    assert (line["error"], line["outcome"], line["level"]) == ("RuntimeError", "error", "warning")
    assert line["trace_id"] == answer.json()["trace_id"]
    assert any("broken" in frame for frame in line["stack"])
    told = answer.text + service.log.getvalue().decode() + "".join(span.to_json() for span in service.finished())
    assert "4711" not in told
    assert service.finished()[-1].status.status_code is StatusCode.ERROR


# --- lines ------------------------------------------------------------------------------------------------------------


class _Writes(io.BytesIO):
    """Remembers how often it was written to."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def write(self, data: Any) -> int:  # noqa: ANN401 - as its parent
        self.count += 1
        return super().write(data)


async def test_lines_are_written_together() -> None:
    """What is logged within a moment is one write, at its end; and so is what comes next."""
    stream = _Writes()
    log = create_log(LineBuffer(stream))
    for number in range(100):
        log.info("request", status=number)
    assert stream.count == 0
    await asyncio.sleep(0.1)
    assert stream.count == 1
    log.info("request", status=100)
    await asyncio.sleep(0.1)
    assert stream.count == 2
    assert [json.loads(line)["status"] for line in stream.getvalue().splitlines()] == list(range(101))


@pytest.mark.parametrize("level", ["warning", "error", "critical"])
async def test_a_warning_takes_all_lines_before_it_along(level: str) -> None:
    """A warning, or worse, is written at once and in its order: whoever kills the process next finds it."""
    stream = _Writes()
    log = create_log(LineBuffer(stream))
    log.info("request", status=200)
    getattr(log, level)("request", status=503)
    assert [json.loads(line)["status"] for line in stream.getvalue().splitlines()] == [200, 503]
    assert json.loads(stream.getvalue().splitlines()[1])["level"] == level


async def test_no_line_waits_for_ever() -> None:
    """Lines do not gather without bound, nor outside an event loop, nor after the last `flush`."""
    stream = _Writes()
    lines = LineBuffer(stream, bytes_max=1000)
    log = create_log(lines)
    for _ in range(100):
        log.info("request", status=200)
    assert stream.getvalue().count(b"\n") > 90
    lines.flush()
    assert stream.getvalue().count(b"\n") == 100
    await asyncio.to_thread(log.info, "request")
    assert stream.getvalue().count(b"\n") == 101


async def test_a_stream_that_fails_does_not_make_lines_pile_up() -> None:
    """What could not be written is gone; the next line is written alone."""

    class Broken(_Writes):
        def write(self, data: Any) -> int:  # noqa: ANN401 - as its parent
            if not self.count:
                self.count += 1
                raise BrokenPipeError
            return super().write(data)

    stream = Broken()
    log = create_log(LineBuffer(stream))
    with pytest.raises(BrokenPipeError):
        log.warning("lost")
    log.warning("kept")
    assert [json.loads(line)["event"] for line in stream.getvalue().splitlines()] == ["kept"]


async def test_the_short_way_passes_the_same_list() -> None:
    """Fields in one mapping are fields like others: what is not allowed is dropped."""
    stream = io.BytesIO()
    log = create_log(stream)
    named = {"timestamp": "", "level": "warning", "event": "request", "status": 200}
    log.write("warning", named | {"account_id": "guest-1"})
    log.warning("request", status=200, account_id="guest-1", code=None)
    first, second = (json.loads(line) | {"timestamp": ""} for line in stream.getvalue().splitlines())
    assert first == second == named


async def test_a_line_that_cannot_be_written_takes_no_other_along() -> None:
    """Half a surrogate pair, say, is no text: the line says so, and those around it are whole."""
    stream = io.BytesIO()
    log = create_log(LineBuffer(stream))
    for client in ("a", "\ud800", "b"):
        log.write("info", {"timestamp": "", "level": "info", "event": "request", "client": client})
    await asyncio.sleep(0.1)
    first, lost, last = (json.loads(line) for line in stream.getvalue().splitlines())
    assert (first["client"], last["client"]) == ("a", "b")
    assert (lost["event"], lost["error"]) == ("request", "TypeError")
    assert "client" not in lost


async def test_a_line_tells_the_time_to_the_millisecond() -> None:
    """The timestamp is the time in UTC, also when the second changes."""
    stream = io.BytesIO()
    log = create_log(stream)
    for moment in (1_700_000_000_007, 1_700_000_000_999, 1_700_000_001_000):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("time.time_ns", lambda moment=moment: moment * 1_000_000 + 999_999)
            log.info("request")
    assert [json.loads(line)["timestamp"] for line in stream.getvalue().splitlines()] == [
        "2023-11-14T22:13:20.007Z",
        "2023-11-14T22:13:20.999Z",
        "2023-11-14T22:13:21.000Z",
    ]


async def test_every_character_of_a_long_key_counts() -> None:
    """A key longer than the hash function takes is not cut off."""
    hashes = {account_hash(b"a" * 100 + end)("guest-1") for end in (b"a", b"b")}
    assert len(hashes) == 2
    assert all(re.fullmatch("[0-9a-f]{16}", each) for each in hashes)


# --- traces -----------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Traces:
    """A tracer of requests, as the environment has it, and what it recorded."""

    provider: TracerProvider
    spans: InMemorySpanExporter
    requests: RequestTracer

    def begin(self, **headers: str) -> RequestTrace:
        """Begin a request with these headers."""
        carrier = {name.replace("_", "-").encode(): value.encode() for name, value in headers.items()}
        return self.requests.begin(carrier, "GET", lambda: {"asked": True})


def _traces(monkeypatch: pytest.MonkeyPatch, sampler: str | None = None, ratio: str | None = None) -> Traces:
    for name, value in ((OTEL_TRACES_SAMPLER, sampler), (OTEL_TRACES_SAMPLER_ARG, ratio)):
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, value)
    spans = InMemorySpanExporter()
    provider = tracing.tracer_provider([SimpleSpanProcessor(spans)])
    return Traces(provider, spans, RequestTracer(provider))


@pytest.mark.parametrize(
    "sampler",
    [
        "always_on",
        "always_off",
        "parentbased_always_on",
        "parentbased_always_off",
        "traceidratio",
        "parentbased_traceidratio",
        "unknown",
        None,
    ],
)
@pytest.mark.parametrize("ratio", ["0.5", "0", "1", "2", "many", None])
async def test_the_sampler_of_the_environment_decides(
    monkeypatch: pytest.MonkeyPatch, sampler: str | None, ratio: str | None
) -> None:
    """For every sampler and every parent a request is kept exactly when the SDK alone would keep it."""
    traces = _traces(monkeypatch, sampler, ratio)
    alone = TracerProvider()
    for number in range(32):
        trace = f"{number + 1:016x}{number * 2**59:016x}"
        for headers in (
            {"traceparent": f"00-{trace}-b7ad6b7169203331-00"},
            {"traceparent": f"00-{trace}-b7ad6b7169203331-01"},
            {"x_amzn_trace_id": f"Root=1-{trace[:8]}-{trace[8:]}"},
        ):
            begun = traces.begin(**headers)
            parent, _ = tracing.incoming({name.replace("_", "-").encode(): v.encode() for name, v in headers.items()})
            decision = alone.sampler.should_sample(parent, int(trace, 16), "GET").decision
            assert begun.trace_id == trace
            assert begun.kept is (decision is Decision.RECORD_AND_SAMPLE)
            assert begun.span.is_recording() is begun.kept


async def test_a_trace_that_begins_here_has_the_id_that_was_decided_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a ratio the kept traces are those with low ids, as other services decide, and about as many."""
    traces = _traces(monkeypatch, "parentbased_traceidratio", "0.25")
    begun = [traces.begin() for _ in range(2000)]
    for each in begun:
        assert each.kept is (int(each.trace_id, 16) % 2**64 < 2**62)
        each.span.end()
    assert 350 < sum(each.kept for each in begun) < 650
    assert len({each.trace_id for each in begun}) == len(begun)
    assert len(traces.spans.get_finished_spans()) == sum(each.kept for each in begun)


async def test_a_trace_that_is_not_kept_is_still_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its ids are told to whom we call, with the flag that it is not kept; no span is made of it."""
    traces = _traces(monkeypatch)

    def asked() -> dict[str, str]:
        raise AssertionError

    begun = traces.requests.begin({b"traceparent": f"00-{TRACE}-b7ad6b7169203331-00".encode()}, "GET", asked)
    token = attach(begun.context)
    try:
        with traces.provider.get_tracer("test").start_as_current_span("inner") as inner:
            assert not inner.is_recording()
        assert tracing.outgoing_headers() == {
            "traceparent": f"00-{TRACE}-{begun.span_id}-00",
            "X-Amzn-Trace-Id": f"Root=1-{TRACE[:8]}-{TRACE[8:]};Parent={begun.span_id};Sampled=0",
        }
    finally:
        detach(token)
    assert begun.span_id != "b7ad6b7169203331"
    assert traces.spans.get_finished_spans() == ()


@pytest.mark.parametrize("flags", ["00", "01"])
async def test_the_state_of_a_trace_is_passed_on(monkeypatch: pytest.MonkeyPatch, flags: str) -> None:
    """`tracestate`, which belongs to other vendors, goes out as it came in, kept or not."""
    traces = _traces(monkeypatch)
    begun = traces.begin(traceparent=TRACEPARENT[:-2] + flags, tracestate="vendor=value,other=1")
    headers = tracing.outgoing_headers(begun.span.get_span_context())
    assert headers["tracestate"] == "vendor=value,other=1"
    assert headers["traceparent"] == f"00-{TRACE}-{begun.span_id}-{flags}"


@pytest.mark.parametrize(
    "traceparent",
    [
        f"00-{'0' * 32}-b7ad6b7169203331-00",
        f"00-{TRACE}-{'0' * 16}-00",
        f"00-{TRACE.upper()}-b7ad6b7169203331-00",
        f"00-{TRACE}-b7ad6b7169203331-00-more",
        f"ff-{TRACE}-b7ad6b7169203331-00",
        f"00-{TRACE}-b7ad6b7169203331-00,00-{TRACE}-b7ad6b7169203331-00",
        "nonsense",
        "",
    ],
)
async def test_a_malformed_traceparent_is_as_none(monkeypatch: pytest.MonkeyPatch, traceparent: str) -> None:
    """Then a trace of our own begins, by our own decision."""
    begun = _traces(monkeypatch).begin(traceparent=traceparent)
    assert begun.trace_id != TRACE
    assert begun.kept


# The examples of https://docs.aws.amazon.com/xray/latest/devguide/xray-concepts.html#xray-concepts-tracingheader and of
# https://docs.aws.amazon.com/elasticloadbalancing/latest/application/load-balancer-request-tracing.html
XRAY_ROOT = "5759e988bd862e3fe1be46a994272793"
XRAY_EXAMPLES = {
    "Root=1-5759e988-bd862e3fe1be46a994272793;Sampled=1": (XRAY_ROOT, None, None),
    "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1": (XRAY_ROOT, "53995c3f42cd8ad8", True),
    "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=0": (
        XRAY_ROOT,
        "53995c3f42cd8ad8",
        False,
    ),
    "Sampled=1; Parent=53995c3f42cd8ad8; Root=1-5759e988-bd862e3fe1be46a994272793": (
        XRAY_ROOT,
        "53995c3f42cd8ad8",
        True,
    ),
    "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=?": (XRAY_ROOT, None, None),
    "Root=1-67891233-abcdef012345678912345678": ("67891233abcdef012345678912345678", None, None),
    "Self=1-67891234-12456789abcdef012345678;Root=1-67891233-abcdef012345678912345678": (
        "67891233abcdef012345678912345678",
        None,
        None,
    ),
    "Self=1-67891234-12456789abcdef012345678;Root=1-67891233-abcdef012345678912345678;CalledFrom=app": (
        "67891233abcdef012345678912345678",
        None,
        None,
    ),
    "": None,
    "Parent=53995c3f42cd8ad8;Sampled=1": None,
    "Root=2-5759e988-bd862e3fe1be46a994272793": None,
    "Root=1-5759e988-bd862e3fe1be46a99427279": None,
    "Root=1-5759e988-BD862E3FE1BE46A994272793": None,
    "Root=1-5759e988bd862e3fe1be46a994272793": None,
    "Root=1-00000000-000000000000000000000000": None,
    "Root=1-5759e988-bd862e3fe1be46a994272793;Root=1-5759e988-bd862e3fe1be46a994272793": None,
    "root=1-5759e988-bd862e3fe1be46a994272793": None,
    "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=0000000000000000;Sampled=1": (XRAY_ROOT, None, None),
}


@pytest.mark.parametrize("header", XRAY_EXAMPLES)
async def test_the_load_balancers_header_is_read(monkeypatch: pytest.MonkeyPatch, header: str) -> None:
    """`X-Amzn-Trace-Id` gives the trace, and a parent if it names one that decided; malformed it is as if not there."""
    expected = XRAY_EXAMPLES[header]
    context, trace_id = tracing.xray_context(header)
    remote = get_current_span(context).get_span_context()
    if expected is None:
        assert (trace_id, remote.is_valid) == (0, False)
        assert _traces(monkeypatch).begin(x_amzn_trace_id=header).trace_id != XRAY_ROOT
        return
    expected_trace, parent, sampled = expected
    assert f"{trace_id:032x}" == expected_trace
    assert remote.is_valid is (parent is not None)
    if parent is not None:
        assert (f"{remote.span_id:016x}", remote.trace_flags.sampled, remote.is_remote) == (parent, sampled, True)
    begun = _traces(monkeypatch, "parentbased_always_off").begin(x_amzn_trace_id=header)
    assert (begun.trace_id, begun.kept) == (expected_trace, bool(sampled))


async def test_traceparent_goes_before_the_load_balancers_header(monkeypatch: pytest.MonkeyPatch) -> None:
    """The balancer adds its header to every request; the caller's own trace is the one that he looks for."""
    header = "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=0"
    traces = _traces(monkeypatch)
    assert traces.begin(traceparent=TRACEPARENT, x_amzn_trace_id=header).trace_id == TRACE
    assert traces.begin(traceparent="nonsense", x_amzn_trace_id=header).trace_id == XRAY_ROOT


async def test_what_goes_out_can_be_read_again() -> None:
    """Both headers name the same span, and nothing goes out where there is none."""
    own = SpanContext(int(TRACE, 16), 0xB7AD6B7169203331, is_remote=False, trace_flags=TraceFlags(TraceFlags.SAMPLED))
    headers = tracing.outgoing_headers(own)
    assert headers["traceparent"] == TRACEPARENT
    context, trace_id = tracing.xray_context(headers["X-Amzn-Trace-Id"])
    assert (trace_id, get_current_span(context).get_span_context().span_id) == (own.trace_id, own.span_id)
    assert tracing.outgoing_headers() == {}


async def test_a_batch_links_to_the_requests_that_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its span is in a trace of its own, kept although the sampler would keep no new one; the others are not named."""
    traces = _traces(monkeypatch, "parentbased_always_off")
    kept = [traces.begin(traceparent=f"00-{number:032x}-b7ad6b7169203331-01") for number in (1, 2)]
    other = traces.begin(traceparent=f"00-{3:032x}-b7ad6b7169203331-00")
    contexts = [each.span.get_span_context() for each in (kept[0], other, kept[1])]
    tracer = traces.provider.get_tracer("test")
    with tracing.batch_span(tracer, "SELECT x", {"size": 3}, contexts) as span:
        assert get_current_span() is span
    [batch] = traces.spans.get_finished_spans()
    assert (batch.name, batch.kind, dict(batch.attributes or {})) == ("SELECT x", SpanKind.CLIENT, {"size": 3})
    assert batch.parent is None
    assert batch.context is not None
    assert batch.context.trace_id not in {1, 2, 3}
    assert [link.context.span_id for link in batch.links] == [int(each.span_id, 16) for each in kept]


async def test_a_batch_of_requests_that_are_not_kept_is_not_either(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is recorded for it, although the sampler would keep a new trace."""
    traces = _traces(monkeypatch, "always_on")
    other = SpanContext(3, 3, is_remote=False, trace_flags=TraceFlags(TraceFlags.DEFAULT))
    for contexts in ([other, other], []):
        with tracing.batch_span(traces.provider.get_tracer("test"), "SELECT x", {}, contexts) as span:
            assert not span.is_recording()
    assert traces.spans.get_finished_spans() == ()


async def test_a_call_for_one_request_is_its_child(monkeypatch: pytest.MonkeyPatch) -> None:
    """It needs no link; and an exception in it leaves no words behind."""
    traces = _traces(monkeypatch)
    request = traces.begin(traceparent=TRACEPARENT)
    contexts = [request.span.get_span_context()]
    with (
        pytest.raises(RuntimeError, match="4711"),
        tracing.batch_span(traces.provider.get_tracer("test"), "SELECT x", {}, contexts, alone=True),
    ):
        raise RuntimeError("the secret is 4711")
    [call] = traces.spans.get_finished_spans()
    assert call.parent is not None
    assert (call.parent.trace_id, call.parent.span_id) == (int(TRACE, 16), int(request.span_id, 16))
    assert list(call.links) == []
    assert "4711" not in call.to_json()


async def test_instruments_refuse_what_the_catalogue_does_not_declare() -> None:
    """An undeclared label value, label or metric raises where it is used."""
    instruments = Instruments([REDEMPTION_REQUESTS])
    with pytest.raises(SloError, match="'great'"):
        instruments.count(REDEMPTION_REQUESTS, 1, route=REDEEM_ROUTE, outcome="great")
    with pytest.raises(LookupError, match="misses a label"):
        instruments.count(REDEMPTION_REQUESTS, 1, route=REDEEM_ROUTE)
    with pytest.raises(LookupError, match="redemption_requests_in_flight"):
        instruments.set(REDEMPTION_REQUESTS_IN_FLIGHT, 1)
