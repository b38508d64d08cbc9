"""The flash-sale data set: seeded events, the counters that Prometheus would have scraped of them, and the truth."""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from benchmarks import measure
from benchmarks.flash_sale import __main__ as front
from benchmarks.flash_sale import incidents, truth
from benchmarks.flash_sale.count import SLOS, Count
from benchmarks.flash_sale.events import Plan
from benchmarks.flash_sale.incidents import MONTH, Incident, Kind
from benchmarks.flash_sale.recording import rounds, serving
from drills.harness import Prometheus
from slo import SloError, compile_slo
from slo.catalogue import facts_of
from slo.definitions.redemption import availability, settlement
from slo.simulation import Alerting, Traffic, simulate
from slo.simulation.traffic import parse
from slo.windows import DAY, HOUR, MINUTE, Severity

ROOT = Path(__file__).resolve().parents[2]
END = 1_769_904_000

# Everything that happens, within a few hours.
HAPPENS = (
    Incident(name="trickle", kind=Kind.FAILURE, begin=2 * HOUR, length=HOUR, bad_share=0.0002),
    Incident(name="no traffic", kind=Kind.NO_TRAFFIC, begin=4 * HOUR, length=20 * MINUTE),
    Incident(name="missed", kind=Kind.MISSED_SCRAPES, begin=6 * HOUR, length=2 * MINUTE),
    Incident(name="sale", kind=Kind.SALE, begin=10 * HOUR, length=HOUR, more_per_second=6000),
    Incident(name="failure", kind=Kind.FAILURE, begin=10 * HOUR + 20 * MINUTE, length=10 * MINUTE, bad_share=0.004),
    Incident(name="worker", kind=Kind.WORKER_DOWN, begin=12 * HOUR, length=40 * MINUTE),
    Incident(name="slow", kind=Kind.SLOW, begin=14 * HOUR, length=20 * MINUTE, bad_share=0.1),
    Incident(name="outage", kind=Kind.FAILURE, begin=16 * HOUR, length=5 * MINUTE, bad_share=1),
    Incident(name="restarts", kind=Kind.RESTARTS, begin=20 * HOUR, length=10 * MINUTE),
    Incident(name="dead pod", kind=Kind.DEAD_POD, begin=22 * HOUR, length=10 * MINUTE),
)
DAY_OUT = Plan(days=1, scrape_interval=timedelta(seconds=30), pods=2, seed=5, scale=1.0, incidents=HAPPENS)


def counted(plan: Plan) -> truth.Truth:
    """The truth of a plan, without any data."""
    count = Count(plan, END - int(plan.length.total_seconds()))
    for interval in plan.intervals():
        count.add(interval)
    return count.truth()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, truth.Truth]:
    """A data folder of one day in which all happens, with what the rules of two SLOs record."""
    folder = tmp_path_factory.mktemp("flash-sale") / "data"
    return folder, front.make(folder, DAY_OUT, END, [availability, settlement])


@pytest.fixture(scope="module")
def server(made: tuple[Path, truth.Truth]) -> Iterator[Prometheus]:
    """A Prometheus that serves the folder."""
    with serving(made[0]) as running:
        yield running


@pytest.mark.e2e
def test_the_recorded_budget_is_the_truth(made: tuple[Path, truth.Truth], server: Prometheus) -> None:
    """What the rules record of the budget is what was counted from the events, though all of that happened."""
    for slo in (availability, settlement):
        left = server.value(f'slo:period_error_budget_remaining:ratio{{sloth_id="{slo.id}"}}', END)
        assert left is not None
        assert 1 - left == pytest.approx(made[1].slos[slo.id].budget_spent, rel=0.005)


@pytest.mark.e2e
def test_alerts_fire_in_the_incidents_that_matter(made: tuple[Path, truth.Truth], server: Prometheus) -> None:
    """The page begins within a minute or two of a failing sale and of an outage, and nowhere else."""
    happened = made[1]
    series = server.query_range('ALERTS{alertname="RedemptionAvailabilityPage"}', happened.begin, END, MINUTE)
    fires = sorted(at for one in series for at, _ in one.points)
    begins = [at for at in fires if not any(at - 600 <= before < at for before in fires)]
    expected = [happened.incident(name).begin for name in ("failure", "outage")]
    assert len(begins) == len(expected)
    for begin, of_incident in zip(begins, expected, strict=True):
        assert 0 < begin - of_incident <= 120


@pytest.mark.e2e
def test_slo_simulate_says_what_prometheus_recorded(made: tuple[Path, truth.Truth], server: Prometheus) -> None:
    """Counted events, without any Prometheus, page at the evaluations at which the rules did over all those counters.

    From a restart on, new counters may weigh a burst less; here nothing fails after one.
    """
    step, happened = DAY_OUT.scrape_interval, made[1]
    requests = [interval.requests for interval in DAY_OUT.intervals()]
    begin = datetime.fromtimestamp(happened.begin, UTC)
    traffic = Traffic(begin=begin, interval=step, all=[one.all for one in requests], bad=[one.bad for one in requests])
    simulation = simulate(Alerting.of(facts_of(compile_slo(availability))), traffic)
    said = {
        begin + number * step
        for one in simulation.firings
        if one.severity is Severity.PAGE
        for number in range((one.begin - begin) // step, ((one.end or simulation.end) - begin) // step)
    }
    fires = 'last_over_time(ALERTS{alertname="RedemptionAvailabilityPage"}[30s])'
    recorded = {
        datetime.fromtimestamp(at, UTC)
        for series in server.query_range(fires, happened.begin, END, step)
        for at, _ in series.points
    }
    assert said == recorded
    assert len(said) > 50


@pytest.mark.e2e
def test_counters_hold_what_was_counted(made: tuple[Path, truth.Truth], server: Prometheus) -> None:
    """Of every request but those that a dead or restarted pod took along, the counters tell; latency as well."""
    happened = made[1]
    total = server.value("sum(increase(redemption_requests_total[1d]))", END)
    assert total == pytest.approx(happened.requests, rel=0.001)
    slow = server.value(
        "sum(increase(redemption_request_duration_seconds_count[1d]))"
        '- sum(increase(redemption_request_duration_seconds_bucket{le="1.0"}[1d]))',
        END,
    )
    assert slow == pytest.approx(happened.slos["redemption-latency-slow"].bad, rel=0.03)
    pods = {one.labels["pod"] for one in server.query("redemption_requests_total", END)}
    assert pods == {"redemption-01", "redemption-02"}  # the first one died


@pytest.mark.e2e
def test_truth_is_read_as_it_was_written(made: tuple[Path, truth.Truth]) -> None:
    """`truth.json` lies in the folder, and comes back as the same values."""
    assert truth.load(made[0]) == made[1]
    with pytest.raises(KeyError):
        made[1].incident("party")


@pytest.mark.e2e
def test_each_slos_traffic_is_a_file_for_slo_simulate(made: tuple[Path, truth.Truth]) -> None:
    """Minute by minute, in the format that the command reads, and nothing is missing."""
    folder, happened = made
    for slo, counted in happened.slos.items():
        traffic = parse((folder / "traffic" / f"{slo}.csv").read_text(), slo)
        assert (sum(traffic.all), sum(traffic.bad)) == (counted.all, counted.bad)
        assert traffic.begin == datetime.fromtimestamp(happened.begin, UTC)
        assert traffic.end == datetime.fromtimestamp(happened.end, UTC)


# --- events ---------------------------------------------------------------------------------------------------------


def test_the_same_seed_is_the_same_day() -> None:
    """And another seed another one."""
    hours = replace(DAY_OUT, scrape_interval=MINUTE)
    assert counted(hours) == counted(hours)
    assert counted(hours).requests != counted(replace(hours, seed=6)).requests


def test_the_month_has_its_requests_and_its_incidents() -> None:
    """69.8 million requests, drawn coarsely here; each incident costs what its name says."""
    plan = Plan(days=31, scrape_interval=2 * MINUTE, pods=1, seed=1, scale=1.0, incidents=MONTH)
    found = counted(plan)
    assert found.requests == pytest.approx(69_800_000, rel=0.002)
    cost = {one.name: one.costs[availability.id].budget_spent for one in found.incidents}
    assert cost["partial failure in the flash sale"] > 1
    assert 0.05 < cost["full outage at night"] < 0.3
    assert 0.05 < cost["slow leak"] < 0.2
    assert all(cost[name] < 0.01 for name in ("night trickle", "no traffic", "missed scrapes", "restarts"))
    assert cost["flash sale without a failure"] < 0.02
    assert found.slos[availability.id].budget_spent == pytest.approx(2.5, rel=0.1)
    assert found.period_begin == found.begin + 86_400


def test_truth_counts_what_happens_in_each_incident() -> None:
    """A full outage fails all; nobody asks for anything without traffic; a worker that is down makes slices bad."""
    found = counted(DAY_OUT)
    outage = found.incident("outage").costs[availability.id]
    assert outage.bad == outage.all > 1000
    assert found.incident("no traffic").costs[availability.id].all == 0
    worker = found.incident("worker")
    assert worker.costs[settlement.id].bad == 35  # of 40 minutes: five may pass
    assert worker.costs["redemption-sealing"].bad == 30
    assert found.slos["redemption-integrity"].bad == 0
    assert found.slos[settlement.id].all == 1440
    assert found.incident("slow").costs["redemption-latency-slow"].bad > 500


def test_fewer_days_hold_the_same_incidents() -> None:
    """They come sooner, in the same order, within the days, and a failure in a sale stays in it."""
    few = incidents.of_days(3)
    assert [one.name for one in few] == [one.name for one in MONTH]
    assert all(one.end <= 3 * DAY for one in few)
    by_name = {one.name: one for one in few}
    sale, failure = by_name["flash sale"], by_name["partial failure in the flash sale"]
    assert failure.begin - sale.begin == 20 * MINUTE
    assert sale.length == HOUR
    assert all(one.begin % (5 * MINUTE) == timedelta(0) for one in few)
    assert incidents.of_days(31) == MONTH


# --- incidents of one's own -----------------------------------------------------------------------------------------


def test_incidents_are_read_from_a_file() -> None:
    """Durations as people write them; what is left out is nothing."""
    text = '[{"name": "outage", "kind": "failure", "begin": "1d3h10m", "length": "90s", "bad_share": 1}]'
    assert incidents.parse(text, "file") == (
        Incident(
            name="outage",
            kind=Kind.FAILURE,
            begin=DAY + 3 * HOUR + 10 * MINUTE,
            length=timedelta(seconds=90),
            bad_share=1,
        ),
    )


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"kind": "party"}, "the kind 'party' is none of sale, failure, slow"),
        ({"begin": "soon"}, "the begin 'soon' is no duration"),
        ({"length": ""}, "the length '' is no duration"),
        ({"bad_share": 2}, "the bad_share 2 must be a number from 0 to 1"),
        ({"more_per_second": -1}, "the more_per_second -1 must be"),
        ({"name": 5}, "needs the texts name"),
        ({"size": 5}, "unknown key 'size'"),
    ],
)
def test_wrong_incidents_are_said(changes: dict[str, object], fault: str) -> None:
    """Each fault in a sentence."""
    right = {"name": "outage", "kind": "failure", "begin": "1h", "length": "5m", "bad_share": 1}
    with pytest.raises(SloError, match=fault):
        incidents.parse(json.dumps([{**right, **changes}]), "file")
    for text in ("{}", "[1]", "no json"):
        with pytest.raises(SloError):
            incidents.parse(text, "file")
    with pytest.raises(SloError, match="given twice"):
        incidents.parse(json.dumps([right, right]), "file")


# --- rules, options, figures ----------------------------------------------------------------------------------------


def test_rules_run_after_what_they_read() -> None:
    """No rule reads a series that its own round, or a later one, records."""
    recorded: dict[str, int] = defaultdict(int)
    found = rounds([compile_slo(slo) for slo in SLOS])
    for number, rules in enumerate(found):
        for rule in rules:
            recorded[rule.name] = max(recorded[rule.name], number)
    for number, rules in enumerate(found):
        for rule in rules:
            words = {word for word in recorded if f"{word}{{" in rule.expr}
            assert all(recorded[word] < number for word in words), rule.name
    compiled = compile_slo(availability)
    assert sum(map(len, rounds([compiled]))) == sum(
        map(len, (compiled.recordings, compiled.coarse_recordings, compiled.alerts))
    )


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        (["--days", "0"], "--days 0 is not possible; use 1 to 366"),
        (["--pods", "1000"], "--pods 1000 is not possible"),
        (["--scale", "-1"], "--scale -1.0 is not possible"),
        (["--scrape-interval", "7"], "--scrape-interval 7 is not possible; use 10, 15, 30 or 60"),
        (["--incidents", "nowhere.json"], "nowhere.json"),
        (["--update", "--days", "3"], "--update writes the figures of the whole month"),
        (["--out", "."], ". exists; name a new folder"),
    ],
)
def test_impossible_options_are_refused(
    options: list[str], fault: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2, before anything is made."""
    monkeypatch.setattr("sys.argv", ["flash_sale", *options])
    with pytest.raises(SystemExit, match="2"):
        front.main()
    assert fault in capsys.readouterr().err


def test_update_writes_between_the_lines_of_the_readme(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The README has a place for the figures, and every way to read the budget has a row."""
    ways = {name: {"ratio": 0.0002, "samples": 5} for name in front._WORDS}
    text = front._tables({"months": {"of a test": {"requests": 1, "ways": ways}}})
    readme = tmp_path / "README.md"
    readme.write_text((ROOT / "benchmarks/flash_sale/README.md").read_text())
    measure.report(argparse.Namespace(json=False, update=True), {"machine": {}}, text, readme)
    assert text in readme.read_text()
    assert "claim met" in capsys.readouterr().out
