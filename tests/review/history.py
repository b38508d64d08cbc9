"""Four days of two services, event by event: what really happened, and a Prometheus that watched it.

Counters are made from seeded events; the recorded series are what the compiled rules themselves make of them in a real
Prometheus. Alerts are written as it would have kept them.
"""

from __future__ import annotations

import random
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

from drills.harness import Prometheus, prometheus, tool
from slo import CompiledSlo, Counter, Events, Rolling, Slo, compile_slo, promql
from slo import conventions as names
from slo.causes import Component, Signal
from slo.compile import Recording
from slo.definitions import redemption
from slo.metrics import REDEEM_ROUTE, REDEMPTION_REQUESTS

STEP = 30  # seconds from one scrape, and one evaluation, to the next
DAY = 86_400
BEGIN = 1_750_032_000  # 16 June 2025, 00:00 UTC
END = BEGIN + 4 * DAY
PERIOD_DAYS = 3
READ_ROUTE = "GET /v1/accounts/{account_id}/balance"

LEDGER_CALLS = Counter("ledger_calls_total", "Calls of the ledger.", labels={"outcome": ("ok", "error")})

AVAILABILITY = replace(redemption.availability, objective=Decimal("99.9"), window=Rolling(PERIOD_DAYS))
LEDGER = Slo(
    service="ledger",
    name="calls",
    description="The ledger answers.",
    objective=Decimal("99.9"),
    sli=Events(bad=LEDGER_CALLS.where(outcome="error"), all=LEDGER_CALLS.where()),
    owner="data",
    window=Rolling(PERIOD_DAYS),
    component=Component.RDS,
    signals=(Signal.ERRORS,),
    reason="A test.",
)
SILENT = replace(redemption.capture_and_refund, window=Rolling(PERIOD_DAYS))
"""No series of it exist."""

AVAILABILITY_C, LEDGER_C, SILENT_C = (compile_slo(slo) for slo in (AVAILABILITY, LEDGER, SILENT))


@dataclass(frozen=True)
class Fault:
    """A share of the events of some series fails for a while."""

    begin: float
    end: float
    share: float


OUTAGE = Fault(BEGIN + 2 * DAY + 20 * 3600 + 100, BEGIN + 2 * DAY + 20 * 3600 + 3100, 0.06)
LEAK = Fault(BEGIN + DAY + 9 * 3600, BEGIN + DAY + 15 * 3600, 0.003)
# Half an hour before the outage one request in a thousand fails for five minutes: no part of it.
STRAY = Fault(BEGIN + 2 * DAY + 19 * 3600 + 1800, BEGIN + 2 * DAY + 19 * 3600 + 2100, 0.001)
LEDGER_OUTAGE = Fault(OUTAGE.begin - 120, OUTAGE.end - 60, 0.2)
BLIND = (BEGIN + 3 * DAY + 4 * 3600, BEGIN + 3 * DAY + 5 * 3600)
"""Nothing was scraped, and nothing happened."""
CAUSE = (OUTAGE.begin + 240, OUTAGE.end)
"""The alert of a cause, the connections of the database say, fired."""
PAGE = (OUTAGE.begin + 400, OUTAGE.end + 500)
LEDGER_PAGE = (LEDGER_OUTAGE.begin + 150, LEDGER_OUTAGE.end + 500)
"""So early that most of the cost is in a part of a window."""
NEEDLESS_PAGE = (BEGIN + 3 * DAY + 12 * 3600, BEGIN + 3 * DAY + 12 * 3600 + 240)

_BACKGROUND = 0.00002


@dataclass
class History:
    """What happened.

    Attributes:
        all_events: Events of each scrape interval, by SLO id.
        bad_events: Bad ones.
    """

    all_events: dict[str, list[int]] = field(default_factory=dict)
    bad_events: dict[str, list[int]] = field(default_factory=dict)

    def truth(self, slo: str, begin: float, end: float) -> tuple[int, int]:
        """All events and bad ones from a time to another."""
        steps = slice(round((begin - BEGIN) / STEP), round((end - BEGIN) / STEP))
        return sum(self.all_events[slo][steps]), sum(self.bad_events[slo][steps])


def _share(faults: tuple[Fault, ...], at: float) -> float:
    """The share of events that fail in the scrape interval that begins at a time."""
    share = _BACKGROUND
    for fault in faults:
        share += fault.share * max(0.0, min(fault.end, at + STEP) - max(fault.begin, at)) / STEP
    return share


def _poisson(draw: random.Random, mean: float) -> int:
    if mean > 30:  # near enough a Gaussian
        return max(0, round(draw.gauss(mean, mean**0.5)))
    return sum(draw.random() < mean / 300 for _ in range(300))


def write(folder: Path) -> History:
    """Write a Prometheus data folder with the counters and alerts of the four days."""
    draw = random.Random(7)  # noqa: S311 - a seeded history
    history = History()
    lines: list[str] = []
    services = {
        AVAILABILITY.id: (20.0, (OUTAGE, LEAK, STRAY)),
        LEDGER.id: (12.0, (LEDGER_OUTAGE,)),
    }
    for key, (rate, faults) in services.items():
        every: list[int] = []
        bad: list[int] = []
        for step in range((END - BEGIN) // STEP):
            at = BEGIN + step * STEP
            blind = BLIND[0] <= at < BLIND[1]
            daily = 1.0 + 0.5 * ((at % DAY) / DAY - 0.5)
            events = 0 if blind else _poisson(draw, rate * STEP * daily)
            failed = min(events, _poisson(draw, events * _share(faults, at))) if events else 0
            every.append(events)
            bad.append(failed)
        history.all_events[key], history.bad_events[key] = every, bad
    lines += _counters(REDEMPTION_REQUESTS.name, history, AVAILABILITY.id, _redemption_labels())
    lines += _counters(LEDGER_CALLS.name, history, LEDGER.id, {"ok": {"outcome": "ok"}, "bad": {"outcome": "error"}})
    of_page = {"alertname": "RedemptionAvailabilityPage", "sloth_severity": "page", **AVAILABILITY_C.identity}
    lines += _alert(of_page, PAGE)
    lines += _alert(of_page, NEEDLESS_PAGE)
    lines += _alert({"alertname": "LedgerCallsPage", "sloth_severity": "page", **LEDGER_C.identity}, LEDGER_PAGE)
    lines += _alert({"alertname": "RdsConnectionsHigh", "component": "rds", "cause": "connections-high"}, CAUSE)
    _import(folder, lines)
    return history


def _redemption_labels() -> dict[str, dict[str, str]]:
    return {
        "ok": {"route": READ_ROUTE, "outcome": "ok"},
        "bad": {"route": REDEEM_ROUTE, "outcome": "error"},
        "timeout": {"route": READ_ROUTE, "outcome": "timeout"},
    }


def _counters(name: str, history: History, slo: str, labels: Mapping[str, Mapping[str, str]]) -> Iterator[str]:
    """The counters at each scrape; a fifth of what is bad timed out, where the service has such a thing."""
    # Not from 0: rate() does not extrapolate a counter below it, so a burst on a young one reads low (docs/limits.md).
    totals = dict.fromkeys(labels, 10_000)
    collected: dict[str, list[str]] = {kind: [] for kind in labels}
    texts = {kind: _labels(some) for kind, some in labels.items()}
    for step, (every, bad) in enumerate(zip(history.all_events[slo], history.bad_events[slo], strict=True)):
        late = bad // 5 if "timeout" in labels else 0
        totals["ok"] += every - bad
        totals["bad"] += bad - late
        if late:
            totals["timeout"] += late
        at = BEGIN + (step + 1) * STEP
        if not BLIND[0] < at <= BLIND[1]:
            for kind, total in totals.items():
                collected[kind].append(f"{name}{texts[kind]} {total} {at}\n")
    for some in collected.values():
        yield from some


def _alert(labels: Mapping[str, str], span: tuple[float, float]) -> Iterator[str]:
    series = "ALERTS" + _labels({**labels, "alertstate": "firing"})
    at = -(-span[0] // STEP) * STEP
    while at <= span[1]:
        yield f"{series} 1 {at:.0f}\n"
        at += STEP


def _labels(labels: Mapping[str, str]) -> str:
    return "{" + ",".join(f"{name}={promql.quoted(text)}" for name, text in labels.items()) + "}"


def _import(folder: Path, lines: list[str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    text = folder.with_suffix(".openmetrics")
    text.write_text("".join(lines) + "# EOF\n")
    making = [
        "tsdb",
        "create-blocks-from",
        "openmetrics",
        "--quiet",
        "--max-block-duration=31d",
        str(text),
        str(folder),
    ]
    done = subprocess.run([str(tool("promtool")), *making], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    text.unlink()


@contextmanager
def watched(folder: Path) -> Iterator[tuple[Prometheus, History]]:
    """A Prometheus that holds the four days as its rules recorded them."""
    data = folder / "data"
    history = write(data)
    compiled = (AVAILABILITY_C, LEDGER_C)
    for layer in (_base_rules, _coarse_rules):
        # Each layer of rules reads what the one before has recorded, so each needs a Prometheus that holds it.
        with prometheus(data=data) as server:
            lines = [line for one in compiled for line in _recorded(server, *layer(one))]
        _import(data, lines)
    with prometheus(data=data) as server:
        yield server, history


def _base_rules(compiled: CompiledSlo) -> tuple[timedelta, list[Recording]]:
    wanted = {record + names.duration(compiled.policy.base) for record in (names.ALL_EVENTS, names.BAD_EVENTS)}
    return compiled.policy.evaluation_interval, [one for one in compiled.recordings if one.record in wanted]


def _coarse_rules(compiled: CompiledSlo) -> tuple[timedelta, list[Recording]]:
    policy = compiled.policy
    wanted = {
        names.coarse(record, policy.coarse_interval, policy.base) for record in (names.ALL_EVENTS, names.BAD_EVENTS)
    }
    return policy.coarse_interval, [one for one in compiled.coarse_recordings if one.record in wanted]


def _recorded(server: Prometheus, interval: timedelta, recordings: list[Recording]) -> Iterator[str]:
    """What rules record of the four days: their own expressions, evaluated at every interval."""
    for one in recordings:
        for day in range(BEGIN, END, DAY):
            first = day + interval.total_seconds()
            for series in server.query_range(one.expr, first, day + DAY, interval):
                for at, value in series.points:
                    yield f"{one.record}{_labels(one.labels)} {value!r} {at:.0f}\n"
