"""The benchmarks' small runs: they finish and print a ratio. No time is asserted anywhere."""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from benchmarks import measure
from benchmarks.rules.history import Traffic, base_rate, coarse_mean
from exporters.cloudwatch import QUERIES_MAX

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("exporters", "generate", "rules")


def command(name: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Run a benchmark as a person does."""
    whole = [sys.executable, "-m", f"benchmarks.{name}", *options]
    return subprocess.run(whole, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)


def figures(name: str) -> dict[str, Any]:
    """What a quick run says."""
    done = command(name, "--quick", "--json")
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.e2e
def test_generate_compares_the_same_slos() -> None:
    """Both sides write a rule file for each SLO, and the run ends in a ratio of their times."""
    many = figures("generate")["many"]
    assert many["ratio"] > 0
    contestants = many["contestants"]
    assert contestants["sloth"]["files"] == contestants["rules"]["files"] == many["slos"]
    assert contestants["rules"]["rules"] > contestants["sloth"]["rules"] > many["slos"]
    assert contestants["everything"]["files"] > 2 * many["slos"]


@pytest.mark.e2e
def test_rules_touch_at_most_a_tenth_of_sloths_samples() -> None:
    """Samples are counted, not timed, so the claim itself is held; and only one of the two budgets is the truth."""
    found = figures("rules")
    assert found["ratio_samples"] >= 10
    assert found["ratio_seconds"] > 0
    three_days_raw = 3 * 24 * 120 * (found["series"] + found["series"] // 5)  # all series, and the bad fifth
    assert found["windows"]["sloth"]["3d"] == three_days_raw
    ratios = found["error_ratio"]
    assert ratios["ours"] == pytest.approx(ratios["truth"], rel=0.001)
    assert ratios["sloth"] < ratios["truth"] / 10


@pytest.mark.e2e
def test_exporters_ask_in_as_few_calls_as_aws_allows() -> None:
    """20 series of each resource are served, and calls are the ceiling of queries by 500."""
    found = figures("exporters")
    assert found["series"] == 20 * found["resources"]
    assert found["calls"] == math.ceil(found["queries"] / QUERIES_MAX)
    assert found["scrape_bytes"]["text"] > 100 * found["series"]
    assert found["scrape_bytes"]["OpenMetrics, gzip"] < found["scrape_bytes"]["OpenMetrics"] / 5


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_quick_run_is_no_figure_for_the_readme(folder: str) -> None:
    """It is refused before anything runs."""
    done = command(folder, "--quick", "--update")
    assert done.returncode == 2
    assert "too small for the README" in done.stderr


@pytest.mark.parametrize("folder", FOLDERS)
def test_update_writes_between_the_lines_of_the_readme(
    folder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The figures of the last run replace those before, twice as well as once, and every other line stays."""
    text = (ROOT / "benchmarks" / folder / "README.md").read_text()
    readme = tmp_path / "README.md"
    readme.write_text(text)
    given = argparse.Namespace(json=False, update=True)
    for table in ("first", "second"):
        measure.report(given, {"machine": {"machine": "a machine"}}, table, readme)
    before, _, rest = text.partition(measure._BEGIN)
    after = rest.partition(measure._END)[2]
    assert readme.read_text() == f"{before}{measure._BEGIN}\n\nsecond\n\na machine.\n\n{measure._END}{after}"
    assert before
    assert after
    assert capsys.readouterr().out == "first\n\na machine.\nsecond\n\na machine.\n"


def test_contestants_take_turns() -> None:
    """Every other round is turned, so that nobody always runs on a warm or on a busy machine."""
    order: list[str] = []
    results = measure.alternating({name: partial(order.append, name) for name in "abc"}, 3)
    assert "".join(order) == "abccbaabc"
    assert {name: len(each) for name, each in results.items()} == {"a": 3, "b": 3, "c": 3}


@pytest.mark.parametrize(
    ("events", "rates"), [([30.0] * 12, [0.0] * 9 + [1.0] * 3), ([0.0] * 11 + [270.0], [0.0] * 11 + [1.0])]
)
def test_base_rate_is_events_per_second(events: Sequence[float], rates: Sequence[float]) -> None:
    """One event a second is a rate of one, and a lone burst is spread over the window's nine intervals."""
    assert base_rate(events) == pytest.approx(rates)


def test_coarse_means_weigh_every_event_once() -> None:
    """The coarse series holds a tenth of the values and the same sum, so no event is lost or counted twice."""
    rates = base_rate(Traffic(pods=1).all_events)
    assert 10 * sum(coarse_mean(rates)) == pytest.approx(sum(rates))
