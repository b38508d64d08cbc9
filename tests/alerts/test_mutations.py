"""The generated promtool tests are worth something: break a rule in any of many ways, and one of them fails.

A mutant is the rule file of one SLO with one number, window, comparison, matcher or label changed. It runs with those
of the generated tests that speak of what it breaks, likeliest first, and with those rules that they read.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from alerts.prometheus import render
from slo import compile_slo
from slo import conventions as names
from slo.definitions.redemption import availability
from tests.alerts.rules_bench import LINKS, needed, promtool

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

Rules = dict[str, Any]
COMPILED = compile_slo(availability)
PAGE, TICKET, ABSENT = (alert.name for alert in COMPILED.alerts)
FIGURES, WHOLE, SALE = "figures", "no error series", "in a sale"
STEADY_1H, STEADY_6H, STEADY_1D, STEADY_3D = (f"(above|below) .* over {long}(;|$)" for long in ("1h", "6h", "1d", "3d"))
FEW, MANY = "2.6", "49.6"  # what a count must be above, to be 3 and 50


@dataclass(frozen=True)
class Mutant:
    """A way to break the rules.

    Attributes:
        name: What is broken.
        rule: The record or alert that is changed.
        old: What its expression says; `for ...` and `label ...` speak of the rule's other parts.
        new: What it says instead.
        judge: The tests that must tell: a regular expression for their names; for a limit, all of its alert.
    """

    name: str
    rule: str
    old: str
    new: str
    judge: str = ""


# --- what is broken -------------------------------------------------------------------------------------------------

EXPRESSIONS = [
    ("slo:all_events:rate5m", "redemption_requests_total", 'redemption_requests_total{outcome="ok"}', FIGURES),
    ("slo:all_events:rate5m", "sum(", "max(", FIGURES),
    ("slo:bad_events:rate5m", "error|shed|timeout", "error|timeout", FIGURES),
    ("slo:bad_events:rate5m", "error|shed|timeout", "error|refused|shed|timeout", FIGURES),
    ("slo:bad_events:rate5m", "sum(rate", "avg(rate", FIGURES),
    ("slo:bad_events:rate5m", "or\n0 *", "or\n1 *", WHOLE),
    ("slo:bad_events:rate5m", "sum(slo:all_events:rate5m", "sum(slo:all_events:rate5s", WHOLE),
    ("slo:bad_events:rate30m", "[27m45s]", "[1h27m45s]", SALE),
    ("slo:bad_events:rate30m", "bad_events:rate5m{sloth_id", "bad_events:rate5m{sloth_slo", STEADY_6H),
    ("slo:bad_events:rate1h", "[57m45s]", "[27m45s]", STEADY_1H),
    ("slo:bad_events:rate1h", "[57m45s]", "[1h57m45s]", STEADY_1H),
    ("slo:bad_events:rate1h", "* 3465", "* 1800", STEADY_1H),
    ("slo:all_events:rate1h", "[57m45s]", "[5h57m45s]", "just above 14.4 .* ratio"),
    ("slo:bad_events:rate2h", "* 7065", "* 700", FIGURES),
    ("slo:bad_events:rate6h", "[5h57m45s]", "[2h57m45s]", STEADY_6H),
    ("slo:bad_events:rate6h", "[5h57m45s]", "[11h57m45s]", "just above 6 .* budget"),
    ("slo:error_budget:rate", "0.0001", "0.0002", "just above 14.4 .* budget"),
    ("slo:error_budget:rate", "0.0001", "0.00005", STEADY_1H),
    ("slo:error_budget:rate", "all_events", "bad_events", SALE),
    ("slo:bad_events:increase1h", "[1h]) * 30", "[1h]) * 60", "2 stray"),
    ("slo:bad_events:increase1h", "[1h]) * 30", "[1h]) * 15", "many people fail"),
    ("slo:bad_events:increase1h", "* 300", "* 600", "2 stray"),
    ("slo:bad_events:increase1h", "[1h]", "[20m]", "many people fail"),
    ("slo:error_budget:ratio", "0.0001", "0.001", FIGURES),
    ("slo:objective:ratio", "0.9999", "0.999", FIGURES),
    ("slo:time_period:days", "30", "28", FIGURES),
    ("slo:period_burn_rate:ratio", "0.0001", "0.001", FIGURES),
    ("slo:current_burn_rate:ratio", "ratio_rate5m", "ratio_rate0m", FIGURES),
    ("slo:period_error_budget_remaining:ratio", "1 - ", "2 - ", FIGURES),
    ("slo:sli_error:ratio_rate30d", "slo:bad_events:rate30d", "slo:all_events:rate30d", FIGURES),
    ("slo:sli_error:ratio_rate1h", " / ", " * ", FIGURES),
    ("slo:error_budget_burn:ratio_rate6h", "slo:bad_events:rate6h", "slo:all_events:rate6h", FIGURES),
    ("slo:all_events:avg5m_rate5m", "avg_over_time", "sum_over_time", SALE),
    ("slo:all_events:rate30d", "[30d]", "[60d]", SALE),
    ("slo:bad_events:avg5m_rate5m", "[5m]", "[2d]", STEADY_3D),
    ("slo:bad_events:rate1d", "[1d]", "[6h]", STEADY_1D),
    ("slo:bad_events:rate3d", "[3d]", "[2d]", STEADY_3D),
    ("slo:bad_events:rate3d", "[3d]", "[6d]", STEADY_3D),
    ("slo:bad_events:increase1d", "* 300", "* 600", "2 stray"),
    ("slo:bad_events:increase3d", "* 300", "* 600", "2 stray"),
    (ABSENT, "redemption_requests_total", "redemption_request_total", ABSENT),
    (ABSENT, "absent(sum(redemption_requests_total))", "sum(redemption_requests_total) == 0", ABSENT),
    (ABSENT, "redemption_requests_total", 'redemption_requests_total{outcome="error"} > 0', ABSENT),
    (ABSENT, "for 5m", "for 1m", ABSENT),
    (ABSENT, "for 5m", "for 10m", ABSENT),
]

_SHADOWED = "1 times over 3 days costs as much as 3 times over a day, so the slower pair fires whenever the faster does"
_FIRST = "in even traffic and at the begin of a sale the faster pair is right as well, and says so first"
_OBJECTIVE = (
    "a limit of 1 is the objective's, which stands beside it; they differ only when days are quieter than a month"
)

# Mutants that no test tells, each with its reason. Short, or the tests are worth little.
SURVIVORS = {
    "ticket, budget, 1d: slo:bad_events:rate2h > 3 * slo:error_budget:rate: lowered": _SHADOWED,
    "ticket, budget, 1d: slo:bad_events:rate2h > 3 * slo:error_budget:rate: raised": _SHADOWED,
    "ticket, budget, 1d: slo:bad_events:rate1d > 3 * slo:error_budget:rate: raised": _SHADOWED,
    "ticket, budget, 1d: slo:bad_events:rate2h > 0.0001 * slo:all_events:rate2h: raised": _SHADOWED,
    "ticket, budget, 1d: slo:bad_events:rate1d > 0.0001 * slo:all_events:rate1d: raised": _SHADOWED,
    "ticket, budget, 3d: slo:bad_events:rate6h > 1 * slo:error_budget:rate: lowered": _OBJECTIVE,
    "ticket, budget, 3d: slo:bad_events:rate3d > 1 * slo:error_budget:rate: lowered": _OBJECTIVE,
    "ticket, budget, 3d: slo:bad_events:rate3d > 1 * slo:error_budget:rate: left out": _OBJECTIVE,
    "page, budget, 6h: slo:bad_events:rate30m > 0.0001 * slo:all_events:rate30m: raised": _FIRST,
    "page, budget, 6h: slo:bad_events:rate6h > 0.0001 * slo:all_events:rate6h: raised": _FIRST,
    "slo:bad_events:rate3d: [3d] -> [6d]": "the tests are shorter than six days after the first error",
    "slo:all_events:rate30d: [30d] -> [60d]": "no test lasts for 30 days",
    "slo:all_events:avg5m_rate5m: avg_over_time -> sum_over_time": (
        "promtool runs both groups at one pace, so a window holds one sample; test_burn_budget.py runs each at its own"
    ),
}


def mutants() -> list[Mutant]:
    """All of them."""
    expressions = [Mutant(f"{rule}: {old} -> {new}", rule, old, new, judge) for rule, old, new, judge in EXPRESSIONS]
    return [*expressions, *_label_mutants(), *_limit_mutants()]


def _label_mutants() -> Iterator[Mutant]:
    """Every label of every alert, and of some series that people read, left out."""
    labelled = [(one.name, one.labels, f"{one.name} fires: (one more|the series never)") for one in COMPILED.alerts]
    labelled += [(one.record, one.labels, FIGURES) for one in COMPILED.recordings if one.record in READ]
    for rule, labels, judge in labelled:
        # The series that a rule reads bring the labels that name the SLO; a constant and an absence read none.
        brought = {} if rule in (ABSENT, names.OBJECTIVE) else COMPILED.identity
        for label in sorted(set(labels) - set(brought)):
            yield Mutant(f"{rule}: label {label} left out", rule, f"label {label}", "", judge)


READ = (names.SLI_ERROR + "1h", names.ERROR_BUDGET_REMAINING, names.OBJECTIVE)


def _limit_mutants() -> Iterator[Mutant]:
    """Every condition of a burn-rate alert left out, and every limit lowered and raised."""
    for alert in COMPILED.alerts:
        for way in alert.ways:
            where = f"{way.windows.severity}, {way.reason}, {names.duration(way.windows.long)}"
            for condition in way.expr.split("\nand "):
                left, limit = condition.split(" > ", 1)
                lower = 0.1 if " * " in left else 0.5 if limit == MANY else 0.7
                changes = {"left out": f"{left} > -1", "lowered": f"{left} > {lower} * {limit}"}
                if limit not in (FEW, MANY):  # both pairs count the same few events: their minimum is raised below
                    changes["raised"] = f"{left} > 2 * {limit}"
                for what, new in changes.items():
                    said = re.sub(r'\{sloth_id="[^"]*"\}|last_over_time|[(]|\[15m\]|[)]', "", condition)
                    yield Mutant(f"{where}: {said}: {what}", alert.name, way.expr, way.expr.replace(condition, new))
        if alert.ways:
            yield Mutant(f"{alert.name}: {FEW} raised", alert.name, f"> {FEW}", f"> {2 * float(FEW)}")
            yield Mutant(f"{alert.name}: > turned round", alert.name, " > ", " < ")
            yield Mutant(f"{alert.name}: or becomes and", alert.name, "\nor\n", "\nand\n")
    yield Mutant(f"{PAGE}: {MANY} raised", PAGE, f"> {MANY}", f"> 1.3 * {MANY}")


# --- the run --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Generated:
    """What `slo generate` writes for the SLO, parsed, and a folder for what is made of it."""

    folder: Path
    rules: Rules
    tests: tuple[Rules, ...]


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Generated:
    """The rule file, and its test files, the quickest first."""
    texts = {str(one.path): one.text for one in render([COMPILED], LINKS)}
    rules = yaml.safe_load(texts[f"prometheus/rules/{availability.id}.yaml"])
    tests = [yaml.safe_load(text) for path, text in texts.items() if path.startswith("prometheus/tests/")]
    tests.sort(key=lambda file: ("5m", "30s", "10m").index(file["evaluation_interval"]))
    return Generated(tmp_path_factory.mktemp("mutants"), rules, tuple(tests))


def told_alone(generated: Generated, mutant: Mutant, folder: Path) -> bool:
    """Whether a generated test fails for the mutant; of all tests, those that it is for."""
    rules = json.loads(json.dumps(generated.rules))
    (rule,) = (one for one in _rules(rules) if mutant.rule in (one.get("record"), one.get("alert")))
    _break(rule, mutant)
    for file in generated.tests:
        tests = [test for test in file["tests"] if re.search(mutant.judge, test["name"])]
        if tests and not _passes(folder, rules, {**file, "tests": tests}):
            return True
    return False


def told_together(generated: Generated, limits: dict[int, Mutant], name: str, folder: Path) -> set[int]:
    """Those mutants of one alert for which a generated test fails.

    They differ in one alert's expression only, so they run side by side, each as an alert of its own, on the same
    recordings. Number 0 is the alert as it is.
    """
    group, coarse = json.loads(json.dumps(generated.rules["groups"]))
    (rule,) = (one for one in group["rules"] if one.get("alert") == name)
    # What a mutant leaves alone is evaluated once for all of them.
    ways = {f"way:{n}": way.expr for one in COMPILED.alerts if one.name == name for n, way in enumerate(one.ways)}
    exprs = {0: rule["expr"]}
    for number, mutant in limits.items():
        text = _flush(rule["expr"])
        for short, way in ways.items():
            if mutant.old in ways.values() and way != mutant.old:
                text = text.replace(way, short)
        exprs[number] = _replaced(text, mutant)
    group["rules"] = [one for one in group["rules"] if "record" in one]
    group["rules"] += [{"record": short, "expr": way} for short, way in ways.items()]
    group["rules"] += [{"alert": f"Mutant{number}", "expr": expr} for number, expr in exprs.items()]
    told: set[int] = set()
    for file in generated.tests:
        tests = [_asking_all(test, exprs) for test in file["tests"] if test["name"].startswith(name)]
        if tests:
            done = _run(folder / file["evaluation_interval"], {"groups": [group, coarse]}, {**file, "tests": tests})
            told |= {int(number) for number in re.findall(r"Mutant(\d+)", done.stdout + done.stderr)}
    return told


def _asking_all(test: Rules, numbers: Iterable[int]) -> Rules:
    """The test, asking for every mutant what it asks for the alert."""
    checks = [
        {
            "expr": f'count(ALERTS{{alertname="Mutant{number}", alertstate="firing"}})',
            "eval_time": check["eval_time"],
            "exp_samples": [{"labels": "{}", "value": 1}] if check["exp_samples"] else [],
        }
        for check in test["promql_expr_test"]
        for number in numbers
    ]
    return {**test, "promql_expr_test": checks}


def _break(rule: Rules, mutant: Mutant) -> None:
    if mutant.old.startswith("label "):
        del rule["labels"][mutant.old.removeprefix("label ")]
    elif mutant.old.startswith("for "):
        assert rule["for"] == mutant.old.removeprefix("for ")
        rule["for"] = mutant.new.removeprefix("for ")
    else:
        rule["expr"] = _replaced(_flush(rule["expr"]), mutant)


def _replaced(text: str, mutant: Mutant) -> str:
    assert mutant.old in text, f"{mutant.name}: the rule says {text}"
    return text.replace(mutant.old, mutant.new)


def _flush(expr: str) -> str:
    """Without indentation, as the parts of an expression are written."""
    return re.sub(r"\n\s*", "\n", expr)


def _passes(folder: Path, rules: Rules, file: Rules) -> bool:
    """Whether tests pass, with those alerts that they ask for; a rule that cannot be read fails them too."""
    asked = [check["expr"] for test in file["tests"] for check in test["promql_expr_test"]]
    alerts = set(re.findall(r'alertname="(\w+)"', " ".join(asked)))
    groups = [{**g, "rules": [r for r in g["rules"] if r.get("alert", "") in {"", *alerts}]} for g in rules["groups"]]
    return _run(folder, {"groups": groups}, file).returncode == 0


def _run(folder: Path, rules: Rules, file: Rules) -> subprocess.CompletedProcess[str]:
    asked = [check["expr"] for test in file["tests"] for check in test["promql_expr_test"]]
    groups = needed(rules["groups"], asked)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "rules.json").write_text(json.dumps({"groups": groups}))  # JSON is YAML
    test = {**file, "rule_files": ["rules.json"], "group_eval_order": [group["name"] for group in groups]}
    (folder / "test.json").write_text(json.dumps(test))
    return promtool("test", "rules", folder / "test.json")


def _rules(file: Rules) -> list[Rules]:
    return [rule for group in file["groups"] for rule in group["rules"]]


def _alive(generated: Generated) -> set[str]:
    """The names of the mutants that no test tells."""
    every = dict(enumerate(mutants(), start=1))
    alone = {number: mutant for number, mutant in every.items() if mutant.judge}
    with ThreadPoolExecutor(2) as pool:
        together = [
            pool.submit(
                told_together,
                generated,
                {number: one for number, one in every.items() if number not in alone and one.rule == name},
                name,
                generated.folder / name,
            )
            for name in (PAGE, TICKET)
        ]
        lonely = {n: pool.submit(told_alone, generated, one, generated.folder / str(n)) for n, one in alone.items()}
    told = {number for number, future in lonely.items() if future.result()}.union(*(f.result() for f in together))
    assert 0 not in told, "a test fails for the rules as they are"
    return {mutant.name for number, mutant in every.items() if number not in told}


def test_every_mutant_is_told(generated: Generated) -> None:
    """Each way to break a rule makes a generated test fail, but for those that are listed with their reason."""
    assert _alive(generated) == set(SURVIVORS)
