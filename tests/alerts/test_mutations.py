"""The generated promtool tests are worth something: break a rule in any of many ways, and one of them fails.

A mutant is the rule file of one SLO with one number, window, comparison, matcher or label changed. It runs with those
of the generated tests that speak of what it breaks, likeliest first, and with those rules that they read.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from alerts.prometheus import render
from slo import compile_slo
from slo import conventions as names
from slo.compile import CompiledAlert, Way
from slo.definitions.redemption import availability
from tests.alerts.rules_bench import LINKS, needed, promtool

pytestmark = pytest.mark.e2e

Rules = dict[str, Any]
COMPILED = compile_slo(availability)
PAGE, TICKET, ABSENT = (alert.name for alert in COMPILED.alerts)
FIGURES = "figures"
FEW, MANY = "2.6", "49.6"  # what a count must be above, to be 3 and 50


@dataclass(frozen=True)
class Mutant:
    """A way to break the rules.

    Attributes:
        name: What is broken.
        rule: The record or alert that is changed.
        old: What its expression says; `for ...` and `label ...` speak of the rule's other parts.
        new: What it says instead.
        judges: The tests that must tell: regular expressions for their names, likeliest first.
    """

    name: str
    rule: str
    old: str
    new: str
    judges: tuple[str, ...]


# --- what is broken -------------------------------------------------------------------------------------------------

EXPRESSIONS = [
    ("slo:all_events:rate5m", "redemption_requests_total", 'redemption_requests_total{outcome="ok"}', FIGURES),
    ("slo:all_events:rate5m", "sum(", "max(", FIGURES),
    ("slo:bad_events:rate5m", "error|shed|timeout", "error|timeout", FIGURES),
    ("slo:bad_events:rate5m", "error|shed|timeout", "error|refused|shed|timeout", FIGURES),
    ("slo:bad_events:rate5m", "sum(rate", "avg(rate", FIGURES),
    ("slo:bad_events:rate5m", "or\n0 *", "or\n1 *", "no error series"),
    ("slo:bad_events:rate5m", "\nor\n0 * sum(slo:all_events:rate5m", "\nor\n0 * sum(slo:all:rate5m", "no error series"),
    ("slo:bad_events:rate30m", "[27m45s]", "[1h27m45s]", PAGE),
    ("slo:bad_events:rate30m", "bad_events:rate5m{sloth_id", "bad_events:rate5m{sloth_slo", PAGE),
    ("slo:bad_events:rate1h", "[57m45s]", "[27m45s]", PAGE),
    ("slo:bad_events:rate1h", "[57m45s]", "[1h57m45s]", PAGE),
    ("slo:bad_events:rate1h", "* 3465", "* 1800", PAGE),
    ("slo:all_events:rate1h", "[57m45s]", "[5h57m45s]", PAGE),
    ("slo:bad_events:rate6h", "[5h57m45s]", "[2h57m45s]", PAGE),
    ("slo:bad_events:rate6h", "[5h57m45s]", "[11h57m45s]", PAGE),
    ("slo:bad_events:rate2h", "avg_over_time", "min_over_time", TICKET),
    ("slo:error_budget:rate", "0.0001", "0.0002", PAGE),
    ("slo:error_budget:rate", "0.0001", "0.00005", PAGE),
    ("slo:error_budget:rate", "all_events", "bad_events", PAGE),
    ("slo:bad_events:increase1h", "[1h]) * 30", "[1h]) * 60", "stray|people"),
    ("slo:bad_events:increase1h", "[1h]) * 30", "[1h]) * 15", "stray|people"),
    ("slo:bad_events:increase1h", "* 300", "* 600", "stray"),
    ("slo:bad_events:increase1h", "[1h]", "[20m]", "people"),
    ("slo:error_budget:ratio", "0.0001", "0.001", FIGURES),
    ("slo:objective:ratio", "0.9999", "0.999", FIGURES),
    ("slo:time_period:days", "30", "28", FIGURES),
    ("slo:period_burn_rate:ratio", "0.0001", "0.001", FIGURES),
    ("slo:current_burn_rate:ratio", "ratio_rate5m", "ratio_rate0m", FIGURES),
    ("slo:period_error_budget_remaining:ratio", "1 - ", "2 - ", FIGURES),
    ("slo:sli_error:ratio_rate30d", "slo:bad_events:rate30d", "slo:all_events:rate30d", FIGURES),
    ("slo:sli_error:ratio_rate1h", " / ", " * ", FIGURES),
    ("slo:error_budget_burn:ratio_rate6h", "slo:bad_events:rate6h", "slo:all_events:rate6h", FIGURES),
    ("slo:all_events:avg5m_rate5m", "avg_over_time", "sum_over_time", TICKET),
    ("slo:bad_events:avg5m_rate5m", "[5m]", "[1h]", TICKET),
    ("slo:bad_events:rate1d", "[1d]", "[2h]", TICKET),
    ("slo:bad_events:rate3d", "[3d]", "[1d]", TICKET),
    ("slo:bad_events:rate3d", "[3d]", "[6d]", TICKET),
    ("slo:bad_events:increase1d", "* 300", "* 600", "stray"),
    ("slo:bad_events:increase3d", "* 300", "* 600", "stray"),
    (ABSENT, "redemption_requests_total", "redemption_request_total", ABSENT),
    (ABSENT, "absent(sum(redemption_requests_total))", "sum(redemption_requests_total) == 0", ABSENT),
    (ABSENT, "redemption_requests_total", 'redemption_requests_total{outcome="error"} > 0', ABSENT),
    (ABSENT, "for 5m", "for 1m", ABSENT),
    (ABSENT, "for 5m", "for 10m", ABSENT),
]

_SLOWER_SAYS_SO = "the slower pair of windows fires at the same cost, so it says so too"
_FASTER_SAYS_SO = "the faster pair of windows says so first"

# Mutants that no test tells, each with its reason. Short, or the tests are worth little.
SURVIVORS: dict[str, str] = {}


def mutants() -> list[Mutant]:
    """All of them."""
    expressions = [Mutant(f"{rule}: {old} -> {new}", rule, old, new, (judge,)) for rule, old, new, judge in EXPRESSIONS]
    return [*expressions, *_label_mutants(), *_limit_mutants()]


def _label_mutants() -> Iterator[Mutant]:
    """Every label of every alert, and of some series that people read, left out."""
    read = [one for one in COMPILED.recordings if one.record in {names.SLI_ERROR + "1h", names.ERROR_BUDGET_REMAINING}]
    labelled = [
        (alert.name, alert.labels, f"{alert.name} fires: (one more|the series never)") for alert in COMPILED.alerts
    ]
    labelled += [(one.record, one.labels, FIGURES) for one in read]
    for rule, labels, judge in labelled:
        for label in labels:
            yield Mutant(f"{rule}: label {label} left out", rule, f"label {label}", "", (judge,))


def _limit_mutants() -> Iterator[Mutant]:
    """Every condition of a burn-rate alert left out, and every limit lowered and raised."""
    for alert in COMPILED.alerts:
        for way in alert.ways:
            where = f"{way.windows.severity}, {way.reason}, {names.duration(way.windows.long)}"
            for condition in way.expr.split("\nand "):
                left, limit = condition.split(" > ", 1)
                changes = {"left out": f"{left} > -1", "lowered": f"{left} > 0.7 * {limit}"}
                if limit not in (FEW, MANY):  # both pairs count the same few events: their minimum is raised below
                    changes["raised"] = f"{left} > 1.3 * {limit}"
                for what, new in changes.items():
                    said = re.sub(r'\{sloth_id="[^"]*"\}', "", condition)
                    judges = (_judge(alert, way, what, limit), alert.name)
                    yield Mutant(
                        f"{where}: {said}: {what}", alert.name, way.expr, way.expr.replace(condition, new), judges
                    )
        if alert.ways:
            few = f"{alert.name} fires: one more"
            yield Mutant(f"{alert.name}: {FEW} raised", alert.name, f"> {FEW}", f"> {2 * float(FEW)}", (few,))
            yield Mutant(f"{alert.name}: > turned round", alert.name, " > ", " < ", (few,))
            yield Mutant(f"{alert.name}: or becomes and", alert.name, "\nor\n", "\nand\n", (alert.name,))
    yield Mutant(f"{PAGE}: {MANY} raised", PAGE, f"> {MANY}", f"> 1.3 * {MANY}", (f"{PAGE} fires: many people",))


def _judge(alert: CompiledAlert, way: Way, what: str, limit: str) -> str:
    """The tests that most likely tell."""
    factor = f"{names.number(way.windows.factor)} times over"
    if limit == FEW:
        likely = "near miss: . stray"
    elif limit == MANY:
        likely = "near miss: (too few|a stray error)"
    elif what == "left out" or limit.startswith("0.0001 "):
        likely = f"in a sale|fires: just above {factor}"
    else:
        likely = f"near miss: just below {factor}" if what == "lowered" else f"fires: just above {factor}"
    return f"{alert.name} .*({likely})"


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


def tells(generated: Generated, mutant: Mutant, folder: Path) -> bool:
    """Whether a generated test fails for the mutant."""
    rules = json.loads(json.dumps(generated.rules))
    (broken,) = (rule for rule in _rules(rules) if mutant.rule in (rule.get("record"), rule.get("alert")))
    _break(broken, mutant)
    seen: set[str] = set()
    for judge in mutant.judges:
        for file in generated.tests:
            tests = [t for t in file["tests"] if re.search(judge, t["name"]) and t["name"] not in seen]
            seen |= {test["name"] for test in tests}
            if tests and not _passes(folder, rules, {**file, "tests": tests}):
                return True
    return False


def _break(rule: Rules, mutant: Mutant) -> None:
    if mutant.old.startswith("label "):
        del rule["labels"][mutant.old.removeprefix("label ")]
    elif mutant.old.startswith("for "):
        assert rule["for"] == mutant.old.removeprefix("for ")
        rule["for"] = mutant.new.removeprefix("for ")
    else:
        text = re.sub(r"\n\s*", "\n", rule["expr"])
        assert mutant.old in text, f"{mutant.name}: the rule says {text}"
        rule["expr"] = text.replace(mutant.old, mutant.new)


def _passes(folder: Path, rules: Rules, file: Rules) -> bool:
    """Run tests with the rules that they read; a rule that the mutation made impossible to read fails them too."""
    asked = [check["expr"] for test in file["tests"] for check in test["promql_expr_test"]]
    alerts = set(re.findall(r'alertname="(\w+)"', " ".join(asked)))
    told = [{**g, "rules": [r for r in g["rules"] if r.get("alert", "") in {"", *alerts}]} for g in rules["groups"]]
    groups = needed(told, asked)
    folder.mkdir(exist_ok=True)
    (folder / "rules.json").write_text(json.dumps({"groups": groups}))  # JSON is YAML
    test = {**file, "rule_files": ["rules.json"], "group_eval_order": [group["name"] for group in groups]}
    (folder / "test.json").write_text(json.dumps(test))
    return promtool("test", "rules", folder / "test.json").returncode == 0


def _rules(file: Rules) -> list[Rules]:
    return [rule for group in file["groups"] for rule in group["rules"]]


def test_every_mutant_is_told(generated: Generated) -> None:
    """Each way to break a rule makes a generated test fail, but for those that are listed with their reason."""

    def dead(number: int) -> bool:
        return tells(generated, every[number], generated.folder / str(number))

    every = mutants()
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(dead, range(len(every))))
    alive = {mutant.name for mutant, told in zip(every, found, strict=True) if not told}
    assert alive == set(SURVIVORS)
