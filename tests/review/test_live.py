"""The review against a real Prometheus: its figures are those that are counted from the events."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from cli.main import Workspace
from cli.review import gate, review
from drills.harness import Prometheus
from review import facts, html, report
from review.adjustments import read
from review.connection import Connection
from review.errors import ReviewError
from review.gate import Answer, decide
from review.model import Review, SloReview, Span
from review.prometheus import Prometheus as Client
from review.prometheus import Sample
from review.reading import Reader
from review.review import budgets_of
from review.review import review as make
from slo import CompiledSlo, Slo, compile_slo
from slo.metrics import REDEEM_ROUTE
from slo.policy import Change
from tests.review import history as past
from tests.review.checks import problems_of_page
from tests.review.history import AVAILABILITY, DAY, END, LEDGER, SILENT, STEP, History

pytestmark = pytest.mark.e2e

AT = END - 600  # the events of the last minutes are not recorded yet
WINDOW = 300  # seconds
ALL = (past.AVAILABILITY_C, past.LEDGER_C, past.SILENT_C)


@dataclass(frozen=True)
class Watched:
    """What happened, and who watched it."""

    server: Prometheus
    history: History
    review: Review

    def one(self, slo: str) -> SloReview:
        """The review of one SLO."""
        return next(one for one in self.review.slos if one.compiled.slo.id == slo)


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """Four days, reviewed at their end."""
    with past.watched(tmp_path_factory.mktemp("history")) as (server, history):
        with Client(Connection(url=server.url)) as client:
            made = make(ALL, Reader(client), AT)
        yield Watched(server, history, made)


@pytest.mark.parametrize("slo", [AVAILABILITY, LEDGER])
def test_the_budget_is_that_of_the_events(watched: Watched, slo: Slo) -> None:
    """Within 0.1 percentage points of the budget, after an outage, a leak and an hour without data."""
    every, bad = watched.history.truth(slo.id, AT - past.PERIOD_DAYS * DAY, AT)
    budget = watched.one(slo.id).budget
    assert budget is not None
    assert budget.spent == pytest.approx(bad / (every * 0.001), abs=0.001)
    assert budget.bad_events == pytest.approx(bad, rel=0.001)
    assert budget.budget_events == pytest.approx(every * 0.001, rel=0.001)


def test_begin_and_end_of_incidents_are_within_a_window(watched: Watched) -> None:
    """A sharp outage and a leak of six hours; a stray minute before the outage is no part of it."""
    leak, outage = watched.one(AVAILABILITY.id).incidents
    (ledger,) = watched.one(LEDGER.id).incidents
    for incident, fault in ((leak, past.LEAK), (outage, past.OUTAGE), (ledger, past.LEDGER_OUTAGE)):
        assert incident.span.begin == pytest.approx(fault.begin, abs=WINDOW)
        assert incident.span.end == pytest.approx(fault.end, abs=WINDOW)


def test_the_cost_of_an_incident_is_that_of_its_events(watched: Watched) -> None:
    """Within two percent of the truth."""
    _, bad = watched.history.truth(AVAILABILITY.id, past.OUTAGE.begin // STEP * STEP, past.OUTAGE.end)
    outage = watched.one(AVAILABILITY.id).incidents[1]
    assert outage.bad_events == pytest.approx(bad, rel=0.02)


def test_the_likely_component_and_the_kinds_of_bad_events_are_told(watched: Watched) -> None:
    """The database burned with it and the alert of a cause fired; most of it were redemptions that failed."""
    leak, outage = watched.one(AVAILABILITY.id).incidents
    assert outage.component == "rds"
    assert [one.name for one in outage.companions] == ["ledger/calls", "RdsConnectionsHigh"]
    assert leak.component is None
    first, second = outage.causes
    assert dict(first.labels) == {"route": REDEEM_ROUTE, "outcome": "error"}
    assert dict(second.labels) == {"route": past.READ_ROUTE, "outcome": "timeout"}
    assert first.share == pytest.approx(0.8, abs=0.02)


@pytest.mark.parametrize(
    ("slo", "page", "fault"),
    [(AVAILABILITY, past.PAGE, past.OUTAGE), (LEDGER, past.LEDGER_PAGE, past.LEDGER_OUTAGE)],
)
def test_what_was_gone_when_a_page_fired_is_told(
    watched: Watched, slo: Slo, page: tuple[float, float], fault: past.Fault
) -> None:
    """By what the rules had recorded at that very moment: within a twentieth, also minutes after the begin."""
    one = watched.one(slo.id)
    fired = one.firings[0]
    assert fired.span.begin == pytest.approx(page[0], abs=STEP)
    assert fired.span.end == pytest.approx(page[1], abs=STEP)
    assert fired.incident is not None
    assert not fired.for_nothing
    _, bad = watched.history.truth(slo.id, fault.begin // STEP * STEP, fired.span.begin)
    every, _ = watched.history.truth(slo.id, AT - past.PERIOD_DAYS * DAY, AT)
    assert fired.gone_before == pytest.approx(bad / (every * 0.001), rel=0.05)
    with Client(Connection(url=watched.server.url)) as client:
        exact = Reader(client).gone_before(one.compiled, fired, one.incidents[fired.incident])
    assert one.budget is not None
    assert exact is not None
    assert fired.gone_before == exact / one.budget.budget_events


def test_a_page_for_nothing_is_told(watched: Watched) -> None:
    """It fired on a quiet day."""
    needless = watched.one(AVAILABILITY.id).firings[1]
    assert (needless.incident, needless.for_nothing, needless.gone_before) == (None, True, None)


def test_periods_without_data_are_told(watched: Watched) -> None:
    """An hour in which nothing was scraped; and a promise of which there is nothing at all comes first."""
    (gap,) = watched.one(AVAILABILITY.id).gaps
    assert gap.begin == pytest.approx(past.BLIND[0], abs=2 * WINDOW)
    assert gap.end == pytest.approx(past.BLIND[1], abs=2 * WINDOW)
    silent = watched.review.slos[0]
    assert silent.compiled.slo.id == SILENT.id
    assert silent.budget is None


def test_the_period_before_is_compared(watched: Watched) -> None:
    """A day of it is known, and that is said."""
    begin = AT - past.PERIOD_DAYS * DAY
    every, bad = watched.history.truth(AVAILABILITY.id, past.BEGIN, begin)
    before = watched.one(AVAILABILITY.id).last_period
    assert before is not None
    assert before.spent == pytest.approx(bad / (every * 0.001), abs=0.001)
    assert before.recorded == pytest.approx((begin - past.BEGIN) / (past.PERIOD_DAYS * DAY), abs=0.01)


def test_the_number_of_questions_does_not_hang_on_the_number_of_slos(watched: Watched) -> None:
    """One SLO without an incident, or three: but for what is asked of single incidents, the same number."""
    counts = []
    for some in (ALL[2:], (ALL[2], compile_slo(replace(SILENT, name="another")))):
        with Client(Connection(url=watched.server.url)) as client:
            counts.append(make(some, Reader(client), AT).queries)
    details = 3 + 2 + 2  # three incidents, two pages that told of one, and the hour without data of both rates
    assert counts == [watched.review.queries - details] * 2


def test_an_adjustment_is_applied_and_shown(watched: Watched, tmp_path: Path) -> None:
    """The outage was agreed not to count: what is left is that of the other events, and every form of it says so."""
    file = tmp_path / "budget-adjustments.toml"
    file.write_text(
        '[[adjustment]]\nslo = "*"\nfrom = 2025-06-18T19:55:00Z\nto = 2025-06-18T20:55:00Z\n'
        'reason = "Failover drill."\napprover = "Dana"\n'
    )
    agreed = read(file, ALL)
    with Client(Connection(url=watched.server.url)) as client:
        made = make(ALL[:1], Reader(client), AT, adjustments=agreed)
    (one,) = made.slos
    begin = AT - past.PERIOD_DAYS * DAY
    spans = (Span(begin, agreed[0].span.begin), Span(agreed[0].span.end, AT))
    counted = [watched.history.truth(AVAILABILITY.id, span.begin, span.end) for span in spans]
    every, bad = (sum(pair[number] for pair in counted) for number in (0, 1))
    assert one.budget is not None
    assert one.budget.spent == pytest.approx(bad / (every * 0.001), abs=0.002)
    assert one.budget.spent_unadjusted == pytest.approx(1.075, abs=0.001)
    assert len(one.incidents) == 1
    for text in (report.table_text(made), report.markdown(made), facts.json_text(made), html.page(made)):
        assert "Failover drill." in text
        assert "Dana" in text


def test_progress_is_told(watched: Watched) -> None:
    """Every kind of thing that is read begins, and comes to its end."""
    told: dict[str, list[tuple[int, int]]] = {}
    with Client(Connection(url=watched.server.url)) as client:
        make(ALL[:1], Reader(client, progress=lambda what, *part: told.setdefault(what, []).append(part)), AT)
    assert set(told) == {"events", "bad events", "when they were", "alerts", "causes"}
    assert all(parts[-1][0] == parts[-1][1] for parts in told.values())


def test_what_a_review_can_do_without_makes_it_partial(watched: Watched) -> None:
    """A server that answers no instant question: budgets and incidents are told, and what is not known. It is no go."""

    class Lame(Client):
        def instant(self, expr: str, at: float) -> list[Sample]:
            raise ReviewError(f"{self.url}: no {expr[:3]} at {at}")

    with Lame(Connection(url=watched.server.url)) as client:
        made = make(ALL[:1], Reader(client), AT)
        gate_reader = Reader(client)
        budgets = budgets_of(ALL[:1], gate_reader, AT)
    assert decide(budgets, ALL[:1], Change.FEATURE, AT, warnings=gate_reader.warnings).answer is Answer.UNKNOWN
    (one,) = made.slos
    assert len(one.incidents) == 2
    assert one.last_period is None
    assert len(made.warnings) == 5
    assert made.partial
    assert "not known is the period before" in report.table_text(made)


def test_a_label_chooses_among_copies(watched: Watched) -> None:
    """No series has this one, so nothing is known; without it, none is there twice."""
    with Client(Connection(url=watched.server.url)) as client:
        made = make(ALL[:1], Reader(client, {"cluster": "eu"}), AT)
    assert made.slos[0].budget is None
    assert watched.review.notes == ()


def test_every_event_is_counted_at_its_time(watched: Watched) -> None:
    """In the middle of the outage, half of it is spent: the recordings' lag is made up for."""
    at = past.OUTAGE.begin + 1_400
    with Client(Connection(url=watched.server.url)) as client:
        budget = make(ALL[:1], Reader(client), at).slos[0].budget
    every, bad = watched.history.truth(AVAILABILITY.id, past.BEGIN, at)
    assert budget is not None
    assert budget.spent == pytest.approx(bad / (every * 0.001), abs=0.005)


def test_nothing_is_known_of_the_future_of_a_past_review(watched: Watched) -> None:
    """As of the morning before the outage, there was none."""
    before = past.OUTAGE.begin - 3_600
    with Client(Connection(url=watched.server.url)) as client:
        made = make(ALL[:1], Reader(client), before)
    (one,) = made.slos
    every, bad = watched.history.truth(AVAILABILITY.id, past.BEGIN, before // WINDOW * WINDOW)
    assert one.budget is not None
    assert one.budget.spent == pytest.approx(bad / (every * 0.001), abs=0.001)
    assert len(one.incidents) == 1
    assert made.at == before // WINDOW * WINDOW


# --- the commands ---------------------------------------------------------------------------------------------------


def run(command: click.Command, watched: Watched, *arguments: str, compiled: tuple[CompiledSlo, ...] = ALL) -> Result:
    """Run a command on the definitions of the four days."""
    workspace = Workspace(None)
    workspace.__dict__["compiled"] = compiled
    return CliRunner().invoke(
        command, ["--prometheus", watched.server.url, "--as-of", str(AT), *arguments], obj=workspace
    )


@pytest.mark.parametrize("form", ["table", "markdown", "json", "html"])
def test_a_review_in_every_form(watched: Watched, tmp_path: Path, form: str) -> None:
    """On standard output and in a file, the same facts."""
    shown = run(review, watched, "--format", form)
    assert shown.exit_code == 0, shown.output
    file = tmp_path / "review"
    assert run(review, watched, "--format", form, "-o", str(file)).exit_code == 0
    for text in (shown.stdout, file.read_text()):
        assert "RedemptionAvailabilityPage" in text
        assert "rds" in text
    if form == "json":
        assert json.loads(shown.stdout) == json.loads(file.read_text())
    if form == "html":
        assert problems_of_page(file.read_text()) == []


def test_a_window_may_be_asked_for(watched: Watched) -> None:
    """One day back, the outage is out of it."""
    told = json.loads(
        run(review, watched, "--format", "json", "--window", "12h", "--slo", "redemption/availability").stdout
    )
    (one,) = told["slos"]
    assert one["incidents"] == []
    assert one["budget"]["from"] == "2025-06-19T11:50:00Z"


@pytest.mark.parametrize(
    ("slos", "change", "code", "answer"),
    [
        (ALL[:1], "feature", 1, "frozen"),
        (ALL[:1], "fix", 0, "go"),
        (ALL[2:], "feature", 3, "unknown"),
        (ALL, "feature", 1, "frozen"),
    ],
)
def test_the_gate_answers(watched: Watched, slos: tuple[CompiledSlo, ...], change: str, code: int, answer: str) -> None:
    """By its exit code, in words and as JSON."""
    words = run(gate, watched, "--change", change, compiled=slos)
    assert (words.exit_code, words.stdout.splitlines()[-1]) == (code, answer)
    told = run(gate, watched, "--change", change, "--json", compiled=slos)
    assert told.exit_code == code
    assert json.loads(told.stdout)["answer"] == answer


def test_the_gate_goes_where_budget_is_left(watched: Watched) -> None:
    """A window in which nothing happened."""
    assert run(gate, watched, "--window", "6h", compiled=ALL[:1]).exit_code == 0


def test_no_answer_is_no_go(watched: Watched) -> None:
    """Exit code 3, with the reason; for machines too."""
    for command in (gate, review):
        told = CliRunner().invoke(command, ["--prometheus", "http://127.0.0.1:9"], obj=_workspace())
        assert told.exit_code == 3
        assert "127.0.0.1:9: cannot be asked" in told.stderr
    told = CliRunner().invoke(gate, ["--prometheus", "http://127.0.0.1:9", "--json"], obj=_workspace())
    assert json.loads(told.stdout)["answer"] == "unknown"
    assert watched.server.process.alive


def _workspace() -> Workspace:
    workspace = Workspace(None)
    workspace.__dict__["compiled"] = ALL
    return workspace


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (["--window", "0d"], "is not allowed; from 1h"),
        (["--window", "400d"], "is not allowed; from 1h"),
        (["--window", "month"], "is not allowed; from 1h"),
        (["--as-of", "yesterday"], "is no time"),
        (["--as-of", "2025-06-01T12:00:00"], "is no time"),
        (["--where", "cluster"], "is no label"),
        (["--slo", "redemption/nothing"], "is not defined; there are"),
    ],
)
def test_wrong_usage_is_told(watched: Watched, arguments: list[str], fault: str) -> None:
    """Exit code 2, one clear line."""
    for command in (gate, review):
        told = run(command, watched, *arguments)
        assert told.exit_code == 2
        assert fault in " ".join(told.stderr.split())
