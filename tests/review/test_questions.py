"""How much a review asks: the number of SLOs does not change the number of questions."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from benchmarks.generate.slos import definitions
from review.connection import Connection
from review.prometheus import Prometheus
from review.reading import Reader
from review.review import budgets_of, review
from slo import CalendarMonth, CompiledSlo, Rolling, compile_slo
from slo.windows import DAY
from tests.contract.places import ROOT

END = 1_769_904_000


class Empty(Prometheus):
    """A Prometheus that holds nothing."""

    def _ask(self, path: str, parameters: Mapping[str, str], kind: str) -> list[Any]:
        assert (path, kind) in {("query", "vector"), ("query_range", "matrix")}
        assert parameters["query"]
        self.queries += 1
        return []


def asked(compiled: list[CompiledSlo], window: timedelta | None = None) -> tuple[int, int]:
    """Questions of a review and of a gate."""
    found = []
    for ask in (review, budgets_of):
        with Empty(Connection(url="http://empty.test")) as client:
            ask(compiled, Reader(client), END, window=window)
        found.append(client.queries)
    return found[0], found[1]


def test_ten_slos_ask_as_much_as_a_hundred() -> None:
    """One question is about all of them, however many there are."""
    compiled = [compile_slo(slo) for slo in definitions(100)]
    of_review, of_gate = asked(compiled, DAY)
    assert asked(compiled[:10], DAY) == asked(compiled[:1], DAY) == (of_review, of_gate)
    assert of_gate < of_review < 40


def test_each_other_period_asks_for_its_own_period_before_and_no_more() -> None:
    """A month by the calendar and four weeks among 30 days: three questions each, whatever their number.

    And the last of the month's 31 days is more than the thirty of three parts: one more of each of five questions.
    """
    compiled = [compile_slo(slo) for slo in definitions(14)]
    other = [
        compile_slo(replace(one.slo, window=CalendarMonth() if number % 2 else Rolling(28)))
        for number, one in enumerate(compiled)
    ]
    mixed = asked([*compiled[:10], *other[10:]])[0]
    assert mixed == asked([*compiled[:10], *other[10:12]])[0]
    assert mixed == asked(compiled)[0] + 2 * 3 + 5


@pytest.mark.e2e
def test_the_benchmark_finds_the_same_on_a_real_prometheus() -> None:
    """A small run finishes: ten times the SLOs and incidents need a few times the questions."""
    command = [sys.executable, "-m", "benchmarks.review", "--quick", "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)["slos"]
    assert [one["gate_queries"] for one in found.values()] == [found["2"]["gate_queries"]] * 3
    assert found["20"]["incidents"] >= 7 * found["2"]["incidents"]
    assert found["20"]["review_queries"] < 4 * found["2"]["review_queries"]
    assert found["20"]["review_queries"] - found["10"]["review_queries"] <= 40 - 2 * 10
