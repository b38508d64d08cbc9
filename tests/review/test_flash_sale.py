"""The review of a month with a flash sale, on a real Prometheus: it says what was counted from the events."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from pathlib import Path

import pytest

from benchmarks.flash_sale import __main__ as flash_sale
from benchmarks.flash_sale import incidents, recording
from benchmarks.flash_sale.count import SLOS
from benchmarks.flash_sale.events import Plan
from benchmarks.flash_sale.incidents import Kind
from benchmarks.flash_sale.truth import IncidentTruth, Truth
from review.connection import Connection
from review.incidents import INCIDENT_SHARE_MIN
from review.model import Review, SloReview, Span
from review.prometheus import Prometheus
from review.reading import Reader
from review.review import review
from slo import Slo, compile_slo
from slo.definitions import redemption
from slo.windows import DAY

pytestmark = pytest.mark.e2e

END = 1_769_904_000
WINDOW_SECONDS = 300
MINUTE_SECONDS = 60
POINTS_OFF_MAX = 0.001  # 0.1 percentage points of the budget
ROUNDS = 3  # event rates, bad ones, and the coarse recordings: all that budgets and incidents are read from

SPOILS: Mapping[Kind, Sequence[Slo]] = {
    Kind.FAILURE: (redemption.availability, redemption.capture_and_refund),
    Kind.SLOW: (redemption.latency_fast, redemption.latency_slow),
    Kind.WORKER_DOWN: (redemption.settlement, redemption.verification, redemption.sealing),
}
"""Which promises each kind of incident breaks; all other kinds break none."""


@dataclass(frozen=True)
class Reviewed:
    """What happened, and what the review says of it."""

    folder: Path
    truth: Truth
    review: Review

    def minutes(self, slo: str, span: Span) -> list[tuple[int, int, int]]:
        """Begin, events and bad events of each minute of a span."""
        return [one for one in self._minutes[slo] if span.begin <= one[0] < span.end]

    @cached_property
    def _minutes(self) -> dict[str, list[tuple[int, int, int]]]:
        found = {}
        for file in sorted((self.folder / "traffic").iterdir()):
            with file.open() as lines:
                rows = csv.DictReader(lines)
                found[file.stem] = [(int(row["time"]), int(row["all"]), int(row["bad"])) for row in rows]
        return found

    def bad_span(self, slo: str, incident: IncidentTruth) -> Span:
        """From the first minute of an incident with a bad event to the end of the last one."""
        of_incident = self.minutes(slo, Span(incident.begin, incident.end))
        bad = [begin for begin, _, bad in of_incident if bad]
        return Span(bad[0], bad[-1] + MINUTE_SECONDS)

    def broken_by(self, slo: str) -> list[IncidentTruth]:
        """The incidents that break a promise, however little."""
        return [one for one in self.truth.incidents if slo in {some.id for some in SPOILS.get(Kind(one.kind), ())}]

    def felt(self, one: SloReview) -> list[IncidentTruth]:
        """Those of the period that matter, and of which there is a bad event in each window, on average."""
        assert one.budget is not None
        slo, begin = one.compiled.slo.id, one.budget.period.begin
        return [
            incident
            for incident in self.broken_by(slo)
            if incident.begin >= begin
            and incident.costs[slo].bad >= INCIDENT_SHARE_MIN * one.budget.budget_events
            and incident.costs[slo].bad * WINDOW_SECONDS >= incident.end - incident.begin
        ]


def reviewed(folder: Path, plan: Plan, slos: Sequence[Slo], at: int, window: timedelta) -> Reviewed:
    """Make the data set, let a real Prometheus run the rules over it, and review it."""
    truth = flash_sale.make(folder, plan, END, ())
    compiled = [compile_slo(slo) for slo in slos]
    recording.record(folder, compiled, (truth.begin, truth.end), lambda _: None, until=ROUNDS)
    with recording.serving(folder) as server, Prometheus(Connection(url=server.url)) as client:
        return Reviewed(folder, truth, review(compiled, Reader(client), at, window=window))


def plan_of(days: int, pods: int) -> Plan:
    """The benchmark's own data set, or fewer days of it."""
    happens = incidents.of_days(days)
    return Plan(days=days, scrape_interval=timedelta(seconds=30), pods=pods, seed=1, scale=1.0, incidents=happens)


@pytest.fixture(
    scope="module",
    params=["two days", pytest.param("the month", marks=pytest.mark.slow)],
)
def sale(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reviewed]:
    """Two days with all that happens in the month, all but their first hours reviewed; or the month itself."""
    folder = tmp_path_factory.mktemp("sale") / "data"
    if request.param == "the month":
        yield reviewed(folder, plan_of(incidents.MONTH_DAYS, 10), SLOS, END, 30 * DAY)
    else:
        some = (redemption.availability, redemption.latency_slow, redemption.settlement)
        # The last ten minutes are not recorded yet, and the first hours have nothing before them.
        yield reviewed(folder, plan_of(2, 2), some, END - 2 * WINDOW_SECONDS, 1.75 * DAY)


def test_the_budget_of_every_slo_is_the_truth(sale: Reviewed) -> None:
    """Within 0.1 percentage points of it, as counted from the events of the period."""
    assert sale.review.slos
    for one in sale.review.slos:
        slo = one.compiled.slo
        assert one.budget is not None
        counted = sale.minutes(slo.id, one.budget.period)
        every, bad = (sum(minute[which] for minute in counted) for which in (1, 2))
        assert one.budget.spent == pytest.approx(bad / (float(slo.budget_ratio) * every), abs=POINTS_OFF_MAX), slo.id
        if one.budget.period == Span(sale.truth.period_begin, sale.truth.end):
            assert (every, bad) == (sale.truth.slos[slo.id].all, sale.truth.slos[slo.id].bad)


def test_every_incident_that_is_felt_is_found_within_a_window(sale: Reviewed) -> None:
    """Its begin and its end, in each SLO that it breaks, are those of its bad events."""
    found = 0
    for one in sale.review.slos:
        slo = one.compiled.slo.id
        for incident in sale.felt(one):
            truth = sale.bad_span(slo, incident)
            (same,) = [told for told in one.incidents if told.span.overlap_seconds(truth)]
            assert same.span.begin == pytest.approx(truth.begin, abs=WINDOW_SECONDS), (slo, incident.name)
            assert same.span.end == pytest.approx(truth.end, abs=WINDOW_SECONDS), (slo, incident.name)
            found += 1
    assert found >= len(sale.review.slos) - 1  # one promise is never broken


def test_nothing_is_told_as_an_incident_that_was_none(sale: Reviewed) -> None:
    """A sale without a failure, a night without traffic, missed scrapes, restarts and a dead pod are none."""
    for one in sale.review.slos:
        broken = [Span(incident.begin, incident.end) for incident in sale.broken_by(one.compiled.slo.id)]
        for told in one.incidents:
            within = sum(told.span.overlap_seconds(span) for span in broken)
            assert within == pytest.approx(told.span.seconds, abs=WINDOW_SECONDS), (one.compiled.slo.id, told.span)


def test_what_an_incident_cost_is_what_was_counted(sale: Reviewed) -> None:
    """Within 3 %; of what fits into one window, whose rate extrapolates by one of its ten scrape intervals, a tenth."""
    for one in sale.review.slos:
        slo = one.compiled.slo.id
        for incident in sale.felt(one):
            truth = sale.bad_span(slo, incident)
            (same,) = [told for told in one.incidents if told.span.overlap_seconds(truth)]
            off_max = 0.1 if truth.seconds <= WINDOW_SECONDS else 0.03
            assert same.bad_events == pytest.approx(incident.costs[slo].bad, rel=off_max), (slo, incident.name)


def test_every_moment_is_known(sale: Reviewed) -> None:
    """Two minutes without a scrape and half an hour without traffic leave no gap."""
    assert [one.gaps for one in sale.review.slos] == [()] * len(sale.review.slos)
