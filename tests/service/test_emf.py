"""The second way to an alert: lines that CloudWatch makes metrics of, with the numbers that Prometheus would find."""

from __future__ import annotations

import asyncio
import io
import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import jsonschema
import orjson
import pytest

from service import emf
from service.emf import EmbeddedMetrics, line
from service.logs import LineBuffer, create_log
from service.parts import PROMISES
from service.settings import Settings
from service.telemetry import Instruments
from service.worker import create_worker
from slo import Freshness, Queries, Recency, Slo, TimeSlice, compile_slo
from slo import conventions as names
from slo.definitions import redemption
from slo.metrics import (
    FOLLOW_UP_ROUTES,
    REDEEM_ROUTE,
    REDEMPTION_DEFERRED_OLDEST_ACCEPTED,
    REDEMPTION_LEDGER_MISMATCHES,
    REDEMPTION_LEDGER_VERIFIED,
    REDEMPTION_METRICS,
    REDEMPTION_REQUEST_DURATION,
    REDEMPTION_REQUESTS,
    REDEMPTION_WORKER_METRICS,
    Gauge,
    Metric,
)
from tests.alerts.rules_bench import MINUTE, play
from tests.service.conftest import Database, Serve

pytestmark = pytest.mark.anyio

# After https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html
# Where it allows more (other members, several dimension sets), ours must not: only names and numbers leave this way.
_TEXT = {"type": "string", "minLength": 1, "maxLength": 255}
_SCHEMA = {
    "type": "object",
    "required": ["_aws", "Service", "Slo", "BadEvents", "AllEvents"],
    "additionalProperties": False,
    "properties": {
        "Service": _TEXT,
        "Slo": _TEXT,
        "BadEvents": {"type": "number", "minimum": 0},
        "AllEvents": {"type": "number", "minimum": 0},
        "_aws": {
            "type": "object",
            "required": ["Timestamp", "CloudWatchMetrics"],
            "additionalProperties": False,
            "properties": {
                "Timestamp": {"type": "integer", "minimum": 0},
                "CloudWatchMetrics": {
                    "type": "array",
                    "minItems": 1,
                    "maxItems": 1,
                    "items": {
                        "type": "object",
                        "required": ["Namespace", "Dimensions", "Metrics"],
                        "additionalProperties": False,
                        "properties": {
                            "Namespace": {"const": "SLO"},
                            "Dimensions": {"const": [["Service", "Slo"]]},
                            "Metrics": {
                                "type": "array",
                                "maxItems": 100,
                                "items": {
                                    "type": "object",
                                    "required": ["Name", "Unit"],
                                    "additionalProperties": False,
                                    "properties": {
                                        "Name": {"enum": ["BadEvents", "AllEvents"]},
                                        "Unit": {"const": "Count"},
                                    },
                                },
                            },
                        },
                    },
                },
            },
        },
    },
}

_CAPTURE = FOLLOW_UP_ROUTES[0]


class Bench:
    """Promises over a catalogue, at times that a test sets."""

    def __init__(self, slos: Iterable[Slo], catalogue: Iterable[Metric], now: float = 0.0) -> None:
        self.now = now
        self.log = io.BytesIO()
        self.instruments = Instruments(catalogue)
        lines = LineBuffer(self.log, bytes_max=0)
        self.metrics = EmbeddedMetrics(
            slos, catalogue, self.instruments, lines, create_log(lines), clock=lambda: self.now
        )

    def at(self, now: float) -> Bench:
        """Look at a time."""
        self.now = now
        self.metrics.look()
        return self

    def told(self) -> list[tuple[int, str, float, float]]:
        """Minute in seconds, promise, bad and all events of each line since the last call."""
        text = self.log.getvalue()
        self.log.seek(0)
        self.log.truncate()
        return [_told(each) for each in text.splitlines()]


def _told(text: bytes) -> tuple[int, str, float, float]:
    document = orjson.loads(text)
    jsonschema.validate(document, _SCHEMA)
    return document["_aws"]["Timestamp"] // 1000, document["Slo"], document["BadEvents"], document["AllEvents"]


def _gauge_slo(**sli: Any) -> Slo:  # noqa: ANN401 - whatever a TimeSlice takes
    return replace(redemption.integrity, sli=TimeSlice(REDEMPTION_LEDGER_MISMATCHES.where(), **sli))


async def test_a_line_is_the_documented_one() -> None:
    """A line is one JSON object as AWS documents it, with the metadata at its root and a time in milliseconds."""
    assert orjson.loads(line(redemption.availability, 2.0, 100.0, 1_790_000_040)) == {
        "_aws": {
            "Timestamp": 1_790_000_040_000,
            "CloudWatchMetrics": [
                {
                    "Namespace": "SLO",
                    "Dimensions": [["Service", "Slo"]],
                    "Metrics": [{"Name": "BadEvents", "Unit": "Count"}, {"Name": "AllEvents", "Unit": "Count"}],
                }
            ],
        },
        "Service": "redemption",
        "Slo": "availability",
        "BadEvents": 2.0,
        "AllEvents": 100.0,
    }
    assert line(redemption.availability, 2.0, 100.0, 0).count(b"\n") == 1


# --- the numbers are those of Prometheus ------------------------------------------------------------------------------

Step = Callable[[Instruments, int], None]
"""What happens before the scrape of a number, every 15 s."""


def _requests(instruments: Instruments, number: int) -> None:
    """Even traffic, with errors from the fifth minute on, and some on another route."""
    for route, outcome, count in (
        (REDEEM_ROUTE, "ok", 30),
        (REDEEM_ROUTE, "shed", 2 if number > 20 else 7),
        (_CAPTURE, "refused", 3),
        (_CAPTURE, "error", 1 if number > 20 else 0),
    ):
        instruments.count(REDEMPTION_REQUESTS, count, route=route, outcome=outcome)


def _durations(instruments: Instruments, number: int) -> None:
    """Answers around the thresholds; those of other routes and outcomes do not count."""
    for route, outcome, seconds, count in (
        (REDEEM_ROUTE, "ok", 0.25, 5),
        (REDEEM_ROUTE, "deferred", 0.26, 2),
        (REDEEM_ROUTE, "refused", 1.2, 1 if number > 20 else 4),
        (REDEEM_ROUTE, "invalid", 2.0, 3),
        (_CAPTURE, "ok", 2.0, 3),
    ):
        for _ in range(count):
            instruments.observe(REDEMPTION_REQUEST_DURATION, seconds, route=route, outcome=outcome)


def _mismatches(instruments: Instruments, number: int) -> None:
    """A mismatch for a single scrape amid a minute, and one that lasts from a full minute to the next."""
    instruments.set(REDEMPTION_LEDGER_MISMATCHES, 3 if number in (26, 32, 33, 34, 35) else 0, check="sums")
    instruments.set(REDEMPTION_LEDGER_MISMATCHES, 1 if number < 10 else 0, check="chain")


def _low(instruments: Instruments, number: int) -> None:
    for check in REDEMPTION_LEDGER_MISMATCHES.labels["check"]:
        instruments.set(REDEMPTION_LEDGER_MISMATCHES, 1 if number % 7 == 3 and check == "sums" else 2, check=check)


def _waiting(instruments: Instruments, number: int) -> None:
    """Something waits from second 60 on and is settled in the ninth minute, after more than five."""
    instruments.set(REDEMPTION_DEFERRED_OLDEST_ACCEPTED, 60 if 4 <= number < 33 else 0)


def _verified(instruments: Instruments, number: int) -> None:
    """Verified at 15 s, and again at 495 s."""
    instruments.set(REDEMPTION_LEDGER_VERIFIED, 0 if number < 1 else 15 if number < 33 else 495)


@pytest.mark.e2e
@pytest.mark.parametrize(
    ("slo", "step", "bad", "every"),
    [
        (redemption.availability, _requests, 5 * 4 * 3, 5 * 4 * 36),
        (redemption.capture_and_refund, _requests, 5 * 4 * 1, 5 * 4 * 4),
        (redemption.latency_fast, _durations, 5 * 4 * 3, 5 * 4 * 8),
        (redemption.latency_slow, _durations, 5 * 4 * 1, 5 * 4 * 8),
        (redemption.integrity, _mismatches, 3, 5),
        (_gauge_slo(bad_below=Decimal(2), slice_seconds=30), _low, 3, 10),
        (_gauge_slo(bad_above=Decimal(0), slice_seconds=300), _mismatches, 1, 1),
        (redemption.settlement, _waiting, 2, 5),
        (
            replace(redemption.verification, sli=Recency(REDEMPTION_LEDGER_VERIFIED.where(), age_max_seconds=400)),
            _verified,
            2,
            5,
        ),
    ],
)
async def test_the_events_are_those_of_the_compiled_rules(
    tmp_path: Path, slo: Slo, step: Step, bad: float, every: float
) -> None:
    """The lines of five minutes add up to what the real Prometheus finds in the scrapes of the same five minutes."""
    catalogue = tuple(
        metric for metric in (*REDEMPTION_METRICS, *REDEMPTION_WORKER_METRICS) if metric is _metric_of(slo)
    )
    bench = Bench([slo], catalogue)
    scrapes: list[dict[str, float]] = []
    for number in range(41):
        step(bench.instruments, number)
        bench.at(15.0 * number)
        scrapes.append(_scraped(bench.instruments))
        if number == 20:
            bench.told()
    told = bench.told()
    assert [minute for minute, *_ in told] == [300, 360, 420, 480, 540]
    ours = sum(each[2] for each in told), sum(each[3] for each in told)
    compiled = compile_slo(slo)
    records = [compiled.named(record, 5 * MINUTE) for record in (names.BAD_EVENTS, names.ALL_EVENTS)]
    series = {
        name: [scrape[name] for scrape in scrapes]
        for name in scrapes[-1]
        if isinstance(catalogue[0], Gauge) or scrapes[-1][name] > 0
    }
    answers = play(tmp_path, slo, series, [(record, 10 * MINUTE) for record in records], scrape=timedelta(seconds=15))
    theirs = [answers.number(record, 10 * MINUTE) * 300 for record in records]
    assert ours == pytest.approx(theirs)
    assert ours == (bad, every)


def _metric_of(slo: Slo) -> Metric:
    assert not isinstance(slo.sli, Queries)
    return emf._selection(slo.sli).metric  # type: ignore[arg-type]


def _scraped(instruments: Instruments) -> dict[str, float]:
    text = instruments.exposition("")[0].decode()
    return {found[1]: float(found[2]) for found in re.finditer(r"^(\w+(?:\{.*\})?) (\S+)$", text, re.MULTILINE)}


# --- when lines are written -------------------------------------------------------------------------------------------


async def test_each_event_is_in_one_line() -> None:
    """Every event is told once, in the minute in which it was counted, however the looks fall."""
    bench = Bench([redemption.availability], REDEMPTION_METRICS, now=1_000_000_050.0)
    assert bench.at(1_000_000_060.0).told() == []
    _requests(bench.instruments, 21)
    [first] = bench.at(1_000_000_080.0).told()
    assert first == (1_000_000_020, "availability", 3.0, 36.0)
    assert bench.at(1_000_000_080.0).told() == []
    [quiet] = bench.at(1_000_000_140.2).told()
    assert quiet == (1_000_000_080, "availability", 0.0, 0.0)
    _requests(bench.instruments, 21)
    [late] = bench.at(1_000_000_500.0).told()
    assert late == (1_000_000_140, "availability", 3.0, 36.0)
    [back] = bench.at(1_000_000_100.0).told()
    assert back[2:] == (0.0, 0.0)


async def test_the_service_tells_the_rest_at_its_end(serve: Serve, database: Database) -> None:
    """On shutdown the events of the broken minute are told, the last request's too; the worker's promises are not."""
    account = await database.account(10)
    async with serve(embedded_metrics=True) as service:
        await service.redeem(account, 3)
        await service.redeem("not an account", 3)
        await service.client.get(f"/v1/accounts/{account}/balance")
    told: dict[str, tuple[float, float]] = {}
    for text in service.log.getvalue().splitlines():
        if b"_aws" in text:
            _, slo, bad, every = _told(text)
            before = told.get(slo, (0.0, 0.0))
            told[slo] = (before[0] + bad, before[1] + every)
    assert {slo: every for slo, (_, every) in told.items()} == {
        "availability": 3.0,
        "capture-and-refund": 0.0,
        "latency-fast": 1.0,
        "latency-slow": 1.0,
    }
    assert told["availability"][0] == 0.0
    assert account not in service.log.getvalue().decode()


async def test_the_worker_tells_its_own_promises(settings: Settings, database: Database) -> None:
    """The worker has the promises about its gauges, and none of the service's."""
    log = io.BytesIO()
    worker = create_worker(replace(settings, database_url=database.owner, embedded_metrics=True), log_stream=log)
    async with worker.router.lifespan_context(worker):
        pass
    told = {_told(text)[1] for text in log.getvalue().splitlines() if b"_aws" in text}
    assert told == {"settlement", "integrity", "verification", "sealing"}


async def test_every_promise_is_told_by_somebody() -> None:
    """Each promise of ours reads metrics of the service or of the worker; foreign queries are left to Prometheus."""
    own = [slo for slo in PROMISES if _metric_of(slo) in (*REDEMPTION_METRICS, *REDEMPTION_WORKER_METRICS)]
    assert own == list(PROMISES)
    foreign = replace(redemption.availability, sli=Queries(bad="a[{{.window}}]", all="b[{{.window}}]"))
    assert Bench([foreign], REDEMPTION_METRICS).at(60.0).told() == []


async def test_it_can_be_turned_off(serve: Serve) -> None:
    """With the setting off there is not a line."""
    async with serve(embedded_metrics=False) as service:
        pass
    assert service.log.getvalue() == b""


async def test_a_gauge_that_fails_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be read once is logged by the class of the fault, and the next look goes on."""
    monkeypatch.setattr(emf, "_LOOK_SECONDS", 0.01)
    bench = Bench([redemption.settlement], REDEMPTION_WORKER_METRICS)
    looks = 0

    def oldest() -> float:
        nonlocal looks
        looks += 1
        if looks == 1:
            raise ConnectionError("secret")
        return 0.0

    bench.instruments.read(REDEMPTION_DEFERRED_OLDEST_ACCEPTED, oldest)
    async with bench.metrics.opened():
        for _ in range(500):
            if looks > 2:
                break
            await asyncio.sleep(0.01)
        bench.now = 60.0
    failed, *told = bench.log.getvalue().splitlines()
    assert orjson.loads(failed)["error"] == "ConnectionError"
    assert b"secret" not in failed
    assert [_told(text) for text in told] == [(0, "settlement", 0, 1), (60, "settlement", 0, 0)]


async def test_nothing_waiting_is_fresh_and_never_is_late() -> None:
    """0 is good for freshness, as nothing waits, and bad for recency, as it was never done."""
    fresh = Freshness(REDEMPTION_DEFERRED_OLDEST_ACCEPTED.where(), age_max_seconds=300)
    recent = Recency(REDEMPTION_LEDGER_VERIFIED.where(), age_max_seconds=300)
    slos = [replace(redemption.settlement, sli=fresh), replace(redemption.verification, sli=recent)]
    bench = Bench(slos, REDEMPTION_WORKER_METRICS, now=1_000_000_020.0).at(1_000_000_080.0)
    assert [each[1:] for each in bench.told()] == [("settlement", 0, 1), ("verification", 1, 1)]
