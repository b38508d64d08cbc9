"""Runbooks: complete, computed, and every query in them answers."""

from __future__ import annotations

import math
import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import promql_parser
import pytest

from alerts.links import alert_links, watchdog_links
from alerts.prometheus import rule_groups
from alerts.runbooks import render
from alerts.yaml import dump
from slo import (
    Alert,
    CalendarMonth,
    CompiledSlo,
    Events,
    Freshness,
    Gauge,
    Latency,
    Queries,
    RatioQuery,
    Recency,
    Severity,
    Slo,
    TimeSlice,
    compile_slo,
    promql,
)
from slo import conventions as names
from slo.definitions import redemption
from slo.metrics import (
    BAD_OUTCOMES,
    GOOD_OUTCOMES,
    REDEEM_ROUTE,
    REDEMPTION_METRICS,
    REDEMPTION_WORKER_METRICS,
    Counter,
    Histogram,
    Metric,
    Selection,
)
from slo.model import Slices
from slo.runbook import Runbook, Step
from slo.settings import Links
from slo.sli import event_rates
from tests.contract.places import ROOT

TOOLS = ROOT / ".tools/bin"
LINKS = Links(
    grafana="https://grafana.example.com",
    runbooks="https://docs.example.com/runbooks",
    traces="https://traces.example.com",
    logs="https://logs.example.com",
)

POOL = Gauge("pool_busy_ratio", "Share of the pool that is busy.", labels={"pool": ("read", "write")})
CATALOGUE: tuple[Metric, ...] = (*REDEMPTION_METRICS, *REDEMPTION_WORKER_METRICS, POOL)
PROMETHEUS_OWN = {"up", "ALERTS"}

REDEMPTION = (
    redemption.availability,
    redemption.capture_and_refund,
    redemption.integrity,
    redemption.latency_fast,
    redemption.latency_slow,
    redemption.sealing,
    redemption.settlement,
    redemption.verification,
)
PAGING = tuple(slo for slo in REDEMPTION if Alert(Severity.PAGE) in slo.alerts)
_POOL = replace(
    redemption.settlement, name="pool", sli=TimeSlice(POOL.where(), bad_above=Decimal("0.9"), slice_seconds=60)
)
_DONE = replace(redemption.verification, name="done", alerts=redemption.availability.alerts)
_FOREIGN = Queries(
    bad='rate(http_errors_total{job="a"}[{{.window}}])', all='rate(http_requests_total{job="a"}[{{.window}}])'
)
OTHERS = (
    _POOL,
    replace(_POOL, name="floor", sli=TimeSlice(POOL.where(pool="read"), bad_below=Decimal("0.1"))),
    _DONE,
    replace(_POOL, name="foreign", sli=_FOREIGN),
    replace(_POOL, name="ratio", sli=RatioQuery("errors:ratio{{.window}}"), burn="ratio"),
    replace(redemption.availability, name="month", window=CalendarMonth()),
    replace(redemption.availability, name="tickets-only", alerts=(Alert(Severity.TICKET),)),
    replace(redemption.availability, name="quiet", alerts=()),
)
COMPILED = tuple(compile_slo(slo) for slo in (*REDEMPTION, *OTHERS))


@dataclass(frozen=True)
class Query:
    """A query of a runbook, and the sentence before it."""

    asks: str
    expr: str


def _texts(*compiled: CompiledSlo) -> dict[str, str]:
    return {artefact.path.name.removesuffix(".md"): artefact.text for artefact in render(compiled, LINKS)}


def _queries(text: str) -> list[Query]:
    return [
        Query(*found) for found in re.findall(r"^([^\n]+)\n\n```promql\n(.*?)\n```$", text, re.DOTALL | re.MULTILINE)
    ]


def _page(slo: Slo) -> str:
    return _texts(compile_slo(slo))[names.alert_name(slo, Severity.PAGE)]


# --- complete -------------------------------------------------------------------------------------------------------


def test_every_alert_has_exactly_one_runbook() -> None:
    """Page, ticket, absence and Watchdog each have a file, the index beside them, and no file is left over."""
    alerts = [alert.name for compiled in COMPILED for alert in compiled.alerts]
    paths = [str(artefact.path) for artefact in render(COMPILED, LINKS)]
    assert sorted(paths) == sorted(f"runbooks/{file}.md" for file in [*alerts, "Watchdog", "README"])


def test_every_link_of_an_alert_opens_its_runbook() -> None:
    """An alert's runbook_url names a rendered file, and the runbook's dashboard is the alert's."""
    files = {f"https://docs.example.com/{artefact.path}": artefact.text for artefact in render(COMPILED, LINKS)}
    pairs = [(alert.name, alert_links(alert, one, LINKS)) for one in COMPILED for alert in one.alerts]
    for name, links in [*pairs, (names.WATCHDOG, watchdog_links(LINKS))]:
        text = files[links.runbook]
        assert f"\n# {name}\n" in text
        assert f"[Dashboard]({links.dashboard})" in text


def test_every_link_between_runbooks_leads_to_one() -> None:
    """Runbooks and the index link to each other by file name, and every such file exists."""
    texts = _texts(*COMPILED)
    for text in texts.values():
        linked = set(re.findall(r"\]\(([^):]+)\.md\)", text))
        assert linked <= set(texts)
    assert set(re.findall(r"\]\(([^):]+)\.md\)", texts["README"])) == set(texts) - {"README"}


def test_sections_come_in_one_order() -> None:
    """At night everybody finds everything in the same place."""
    order = ["Meaning", "Impact", "First look", "Diagnosis", "Mitigation", "Escalation", "The end"]
    for name, text in _texts(*COMPILED).items():
        if name != "README":
            assert re.findall(r"^## (.+)$", text, re.MULTILINE) == order, name


def test_it_says_who_answers_and_what_the_definition_links() -> None:
    """The owner and the definition's own links are in every runbook of an SLO."""
    slo = replace(redemption.availability, owner="night-crew", links={"Ledger notes": "https://w.example.com/l"})
    for name, text in _texts(compile_slo(slo)).items():
        if name not in {"README", "Watchdog"}:
            assert "**night-crew** answers" in text
            assert "- [Ledger notes](https://w.example.com/l)" in text


def test_what_only_people_know_comes_first() -> None:
    """Impact, commands, steps and whom to call are the definition's; the general steps stand behind its own."""
    own = Runbook(
        impact="The desk waits.",
        diagnosis=("uptime  # is it loaded?",),
        mitigation=(Step("Turn it off | and on", "it hangs", "a minute"),),
        escalation="Call the night porter.",
    )
    for name, text in _texts(compile_slo(replace(redemption.latency_fast, runbook=own))).items():
        if name in {"README", "Watchdog"}:
            continue
        sections = _sections(text)
        assert sections["Impact"].startswith("The desk waits.\n\n")
        assert "```sh\n# is it loaded?\nuptime\n```" in sections["Diagnosis"]
        assert sections["Escalation"].endswith("\n\nCall the night porter.")
        if not name.endswith("Absent"):
            first, general = sections["Mitigation"].split("If none of these fits:")
            assert "| Turn it off \\| and on | it hangs | a minute |" in first
            assert "| Undo the last change" in general


def test_without_it_the_general_advice_stands_alone() -> None:
    """A definition from elsewhere, of a Sloth spec say, says nothing more; no page has a gap for it."""
    for text in _texts(compile_slo(replace(redemption.latency_fast, runbook=None))).values():
        assert "If none of these fits" not in text
        assert "yours to fill in" not in text
        assert "None" not in text.replace("None of the", "")


def _sections(text: str) -> dict[str, str]:
    _, *parts = re.split(r"^## (.+)$", text.strip(), flags=re.MULTILINE)
    return {name: body.strip() for name, body in zip(parts[::2], parts[1::2], strict=True)}


# --- computed -------------------------------------------------------------------------------------------------------


def test_a_page_tells_its_windows_factors_and_both_ways() -> None:
    """14.4 over 1h and 5m is 2 % of a month's budget and, at 99.99 %, 0.144 % errors; both minima are named."""
    text = _page(redemption.availability)
    assert "| 1h and 5m | 14.4 | 2 % | 0.144 % |" in text
    assert "| 6h and 30m | 6 | 5 % | 0.06 % |" in text
    assert "**The budget goes.**" in text
    assert "at least 3 bad events" in text
    assert "**Many fail.**" in text
    assert "at least 50 bad events" in text


def test_the_minima_are_those_of_the_definition() -> None:
    """No minimum is typed into the runbook."""
    text = _page(replace(redemption.availability, budget_bad_events_min=7, people_bad_events_min=90))
    assert "at least 7 bad events" in text
    assert "at least 90 bad events" in text


def test_a_ticket_knows_no_people() -> None:
    """A ticket is right in one way only, and has its own windows."""
    text = _texts(compile_slo(redemption.availability))["RedemptionAvailabilityTicket"]
    assert "| 1d and 2h | 3 | 10 % | 0.03 % |" in text
    assert "**The budget goes.**" in text
    assert "Many fail" not in text
    assert "14.4" not in text


def test_the_classic_burn_has_one_way() -> None:
    """With burn="ratio" the page speaks of the error ratio and of no minimum that it does not have."""
    text = _page(replace(redemption.availability, burn="ratio"))
    assert "if traffic is even" in text
    assert "at least" not in text


@pytest.mark.parametrize(
    ("slo", "budget"),
    [
        # 30 d x 0.01 % = 259.2 s; 27/s x 30 d = 69,984,000 events, of which 0.01 % are 6,998.4
        (redemption.availability, "4m19s of total failure at even traffic, or 6,998 bad events of the 69,984,000 to"),
        # 30 d x 0.1 % = 43.2 min, in slices of a minute
        (redemption.settlement, "43m12s of total failure at even traffic, or 43 bad slices of 60 s of the 43,200 to"),
        (replace(redemption.availability, expected_events_per_second=None), "4m19s of total failure at even traffic."),
    ],
)
def test_the_budget_is_told_in_minutes_and_in_events(slo: Slo, budget: str) -> None:
    """The budget is told in time of total failure, and in events or slices as far as traffic is known."""
    for text in (_page(slo), _texts(compile_slo(slo))[names.absent_alert_name(slo)]):
        assert budget in text


def test_scaled_windows_scale_the_numbers() -> None:
    """A demonstration's runbook tells the demonstration's windows; slices stay as many, being scaled alike."""
    scaled = compile_slo(redemption.settlement, compile_slo(redemption.settlement).policy.scaled(60))
    text = _texts(scaled)["RedemptionSettlementPage"]
    assert "| 1m and 5s | 14.4 | 2 % | 1.44 % |" in text
    assert "43 bad slices of 60 s of the 43,200 to expect" in text
    assert "12h (30 days, scaled)" in text


def test_what_must_never_be_is_no_matter_of_load_and_workers() -> None:
    """One mismatch is more than the budget: evidence first, as the restart that slices else advise would clear it."""
    text, usual = _page(redemption.integrity), _page(redemption.settlement)
    assert "| Keep the evidence" in text
    assert "at least 1 bad event." in text
    assert "Restart the workers" not in text
    assert "Keep the evidence" not in usual
    assert "| Restart the workers" in usual


def test_a_link_into_this_repository_leads_to_a_page() -> None:
    """What a definition links below docs/ is there."""
    links = [url for slo in REDEMPTION for url in slo.links.values()]
    assert links
    for url in links:
        assert (ROOT / "docs" / url.partition("/docs/")[2]).is_file(), url


def test_an_absence_tells_how_long_it_waited() -> None:
    """The time without data before the alert is the definition's."""
    slo = replace(redemption.availability, absent_after=timedelta(minutes=11))
    assert "For 11m Prometheus has had no data" in _texts(compile_slo(slo))["RedemptionAvailabilityAbsent"]


def test_the_watchdog_counts_what_is_blind() -> None:
    """Without the Watchdog all alerts are blind: the runbook says how many, and whose."""
    text = _texts(*(compile_slo(slo) for slo in REDEMPTION))["Watchdog"]
    assert "None of the 21 alerts on 8 promises" in text
    assert "**loyalty-sre**" in text


def test_a_bar_in_a_name_breaks_no_table() -> None:
    """Markdown reads a bar as a cell's end, so it is escaped."""
    text = _texts(compile_slo(replace(redemption.availability, owner="a|b")))["README"]
    assert r"| a\|b |" in text


def test_the_same_input_gives_the_same_bytes() -> None:
    """Runbooks are committed, so nothing in them may change from run to run."""
    assert render(COMPILED, LINKS) == render(COMPILED, LINKS)


# --- queries that answer --------------------------------------------------------------------------------------------


def _metric_names(expr: str) -> set[str]:
    """The metrics that a query reads; raises when it is no PromQL."""
    found: set[str] = set()

    def visit(node: promql_parser.Expr) -> None:
        if isinstance(node, promql_parser.VectorSelector):
            assert node.name, f"a selector without a name in {expr}"
            found.add(node.name)

    promql_parser.walk(promql_parser.parse(expr), visit)
    return found


def _known_names(compiled: CompiledSlo) -> set[str]:
    recorded = {rule.record for rule in (*compiled.recordings, *compiled.coarse_recordings)}
    suffixes = [
        (metric.name, ("_bucket", "_count", "_sum") if isinstance(metric, Histogram) else ("",)) for metric in CATALOGUE
    ]
    raw = {name + suffix for name, kinds in suffixes for suffix in kinds}
    foreign: set[str] = set()
    if isinstance(compiled.slo.sli, Queries | RatioQuery):
        rates = event_rates(compiled.slo.sli, compiled.policy, "recorded")
        foreign = _metric_names(rates.all) | _metric_names(rates.bad)
    return recorded | raw | foreign | PROMETHEUS_OWN


@pytest.mark.parametrize("compiled", COMPILED, ids=lambda compiled: compiled.slo.name)
def test_every_query_reads_series_that_exist(compiled: CompiledSlo) -> None:
    """Every query is PromQL, and reads metrics of the catalogue, recordings of this SLO, or Prometheus' own."""
    for name, text in _texts(compiled).items():
        for query in _queries(text):
            assert _metric_names(query.expr) <= _known_names(compiled), f"{name}: {query}"


def test_no_query_hides_from_these_tests() -> None:
    """Every block of PromQL is found by the pattern that these tests read runbooks with."""
    for name, text in _texts(*COMPILED).items():
        assert len(_queries(text)) == text.count("```promql"), name
    assert len(_queries(_page(redemption.availability))) >= 11


def _asked_by(slo: Slo, begin: str) -> list[str]:
    return re.findall(rf"^{begin}, by `(\w+)`", _page(slo), re.MULTILINE)


def test_diagnosis_asks_by_every_label_that_tells_something() -> None:
    """Bad events are asked by each label in which they can differ; a label that the SLI fixes is left out."""
    assert _asked_by(redemption.availability, "Bad events per second") == ["route", "outcome", "instance"]
    assert _asked_by(redemption.availability, "The share of bad events") == ["route"]
    assert _asked_by(redemption.latency_fast, "Slow ones per second") == ["outcome", "instance"]


# --- queries that answer rightly ------------------------------------------------------------------------------------

_STEP = timedelta(seconds=30)
# A busy hour in which all is well, then quiet traffic with the fault: so it pages while budget is left.
_WELL_STEPS, _FAULT_STEPS = timedelta(minutes=60) // _STEP, timedelta(minutes=70) // _STEP
_END = names.duration((_WELL_STEPS + _FAULT_STEPS) * _STEP)
_SCRAPED = {"job": "redemption", "instance": "a"}


def _series(name: str, labels: dict[str, str], values: str) -> dict[str, str]:
    return {"series": name + promql.matchers({**labels, **_SCRAPED}), "values": values}


def _counter(name: str, labels: dict[str, str], well: int, fault: int) -> dict[str, str]:
    """A counter that grows so much a step."""
    at_fault = well * _WELL_STEPS + fault
    return _series(name, labels, f"0+{well}x{_WELL_STEPS} {at_fault}+{fault}x{_FAULT_STEPS}")


def _service(slo: Slo, *, broken: bool) -> Iterator[dict[str, str]]:
    """A service that stays well, or one of whose routes fails and is slow: 1 in 100 bad, 1 in 5 slow."""
    selection = _selection(slo)
    metric = selection.metric
    route, *_ = selection.values.get("route", (REDEEM_ROUTE,))
    for labels in metric.label_sets():
        good = labels.get("outcome") in GOOD_OUTCOMES
        asked = labels.get("route") == route
        hit = broken and asked
        # The other routes are quieter in the fault, or so few bad ones among all would page nobody.
        well, fault = (1_000_000, 1_000 if asked else 100) if good else (0, 10 * hit)
        if isinstance(metric, Counter):
            yield _counter(metric.name, labels, well, fault)
        elif isinstance(metric, Histogram):
            yield _counter(f"{metric.name}_count", labels, well, fault)
            for edge in (*metric.buckets, math.inf):
                bucket = {**labels, "le": "+Inf" if edge == math.inf else names.le(edge)}
                slow = fault // 5 * hit if edge < _SLOW_SECONDS else 0
                yield _counter(f"{metric.name}_bucket", bucket, well, fault - slow)
        elif isinstance(slo.sli, Recency):
            # Done at this very moment, or in the fault never.
            seconds, well = int(_STEP.total_seconds()), _WELL_STEPS + (0 if broken else _FAULT_STEPS)
            yield _series(metric.name, labels, f"0+{seconds}x{well}" + f" 0x{_FAULT_STEPS}" * broken)
        else:
            # 0: nothing waits; 1: it has waited since the beginning of 1970, when promtool's time begins.
            yield _series(metric.name, labels, f"0x{_WELL_STEPS} {int(broken)}x{_FAULT_STEPS}")


_SLOW_SECONDS = 5


def _promtool(slo: Slo, raw: Sequence[Mapping[str, str]], tests: Sequence[Mapping[str, Any]], folder: Path) -> str:
    """What promtool reports when the SLO's own rules have run on raw series; empty when all is as expected."""
    document = {
        "rule_files": ["rules.yaml"],
        "evaluation_interval": "30s",
        "tests": [{"interval": "30s", "input_series": raw, "promql_expr_test": tests}],
    }
    (folder / "rules.yaml").write_text(dump({"groups": rule_groups(compile_slo(slo), LINKS)}))
    (folder / "test.yaml").write_text(dump(document))
    command: list[str | Path] = [TOOLS / "promtool", "test", "rules", folder / "test.yaml"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    return done.stdout + done.stderr if done.returncode else ""


def _selection(slo: Slo) -> Selection:
    match slo.sli:
        case Events(all=selection) | Latency(requests=selection) | TimeSlice(gauge=selection):
            return selection
        case Freshness(oldest=selection) | Recency(last=selection):
            return selection
    pytest.fail(f"{slo.id_path} reads no single metric of the catalogue")


def _answered(slo: Slo, queries: Sequence[Query], folder: Path, *, broken: bool) -> list[Query]:
    """The queries that answer at the end of the fault, as Prometheus' own engine evaluates them."""
    tests = [
        {
            # What it answers does not matter here, only whether it does; the label tells which query it was.
            "expr": f'label_replace(count({query.expr}) > bool 0, "query", "{number}", "", "")',
            "eval_time": _END,
            "exp_samples": [{"labels": f'{{query="{number}"}}', "value": 1}],
        }
        for number, query in enumerate(queries)
    ]
    report = _promtool(slo, list(_service(slo, broken=broken)), tests, folder)
    silent = {int(number) for number in re.findall(r'exp: {query="(\d+)"} 1E\+00\s+got: nil', report)}
    # A report with anything else in it is no answer to the question.
    assert len(silent) == report.count("expr: "), report
    assert bool(silent) == bool(report), report
    return [query for number, query in enumerate(queries) if number not in silent]


def _kept_again(query: Query) -> bool:
    return "is kept again" in query.asks


@pytest.mark.e2e
@pytest.mark.parametrize("slo", [*PAGING, _DONE], ids=lambda slo: slo.name)
def test_in_a_fault_every_query_of_the_page_answers(slo: Slo, tmp_path: Path) -> None:
    """While it pages, every query answers, except the one that says that the promise is kept again."""
    queries = _queries(_page(slo))
    wanted = [query for query in queries if not _kept_again(query)]
    if isinstance(slo.sli, Slices):
        # Slices weigh all alike, so in this short story the budget is gone before it pages.
        wanted = [query for query in wanted if "gone already" not in query.asks]
    assert _answered(slo, queries, tmp_path, broken=True) == wanted


@pytest.mark.e2e
@pytest.mark.parametrize("slo", [*PAGING, _DONE], ids=lambda slo: slo.name)
def test_when_all_is_well_the_queries_say_so(slo: Slo, tmp_path: Path) -> None:
    """Without a fault, what a runbook calls no answer is none, and everything else answers."""
    queries = _queries(_page(slo))
    wanted = [query for query in queries if "no answer" not in query.asks and "Who reports" not in query.asks]
    if isinstance(slo.sli, Events):
        wanted = [query for query in wanted if not query.asks.startswith("The share of bad events, by")]
    assert _answered(slo, queries, tmp_path, broken=False) == wanted


@pytest.mark.e2e
def test_diagnosis_names_the_part_that_fails(tmp_path: Path) -> None:
    """In a fault of one route, the queries by route name that route, how much of it fails, and nothing else."""
    by_route, share = (
        next(query.expr for query in _queries(_page(redemption.availability)) if query.asks.startswith(begin))
        for begin in ("Bad events per second, by `route`", "The share of bad events, by `route`")
    )
    # Each bad outcome grows by 10 in 30 s, each good one by 1,000.
    bad, good = 10 * len(BAD_OUTCOMES), 1000 * len(GOOD_OUTCOMES)
    labels = promql.matchers({"route": REDEEM_ROUTE})
    tests = [
        {"expr": by_route, "eval_time": _END, "exp_samples": [{"labels": labels, "value": 1}]},
        {
            "expr": f"round({share}, 0.0001)",
            "eval_time": _END,
            "exp_samples": [{"labels": labels, "value": round(Decimal(bad) / (bad + good), 4)}],
        },
    ]
    raw = list(_service(redemption.availability, broken=True))
    assert not _promtool(redemption.availability, raw, tests, tmp_path)


@pytest.mark.e2e
def test_an_absence_tells_when_the_data_went(tmp_path: Path) -> None:
    """Ten minutes after the last sample, the runbook says ten minutes, for the instance that is gone."""
    slo = redemption.settlement
    text = _texts(compile_slo(slo))[names.absent_alert_name(slo)]
    last_seen = next(query.expr for query in _queries(text) if query.asks.startswith("Seconds since"))
    raw = [_series(_selection(slo).metric.name, {}, "0x60 stale")]
    samples = [{"labels": '{instance="a"}', "value": 600}]
    tests = [{"expr": last_seen, "eval_time": "40m", "exp_samples": samples}]
    assert not _promtool(slo, raw, tests, tmp_path)


@pytest.mark.e2e
def test_amtool_takes_the_silence(tmp_path: Path) -> None:
    """The command that silences an alert is one that the real amtool understands."""
    text = _page(redemption.availability)
    (command,) = re.findall(r"```sh\n(amtool silence add .*)\n```", text)
    # Nothing listens at this address, so a sound command fails at the connection and nowhere before.
    environment = {"PATH": str(TOOLS), "HOME": str(tmp_path), "ALERTMANAGER_URL": "http://127.0.0.1:1"}
    done = subprocess.run(
        ["/bin/sh", "-c", command], env=environment, capture_output=True, text=True, check=False, timeout=30
    )
    assert "connection refused" in done.stderr
