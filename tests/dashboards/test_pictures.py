"""The pictures of the docs show the boards that there are, and what is drawn is what was asked."""

from __future__ import annotations

from pathlib import Path

import pytest

from drills import examples, pictures
from drills.drawing import text_of
from slo.metrics import Counter, Histogram
from slo.metrics.prometheus import PROMETHEUS_METRICS
from tests.contract.places import ROOT
from tests.dashboards.conftest import ALL_OURS, OURS, generate

_METRICS = list(dict.fromkeys((*(metric for source in OURS.sources for metric in source.metrics), *PROMETHEUS_METRICS)))


def test_every_board_has_a_picture_and_a_line_in_the_docs() -> None:
    """A board that is added is drawn and told of; a picture of none is gone. Each is small enough for a page."""
    uids = set(generate(ALL_OURS, OURS).boards)
    files = list((ROOT / "docs" / "boards").glob("*.png"))
    assert {file.stem for file in files} == uids
    assert all(file.stat().st_size < 150 * 1024 for file in files)
    page = (ROOT / "docs" / "boards.md").read_text()
    assert all(f"](boards/{uid}.png)" in page and f"(#{uid})" in page for uid in uids)


def test_examples_have_every_series_that_is_declared() -> None:
    """Each metric of the catalogue has an example, with all of its labels."""
    series = {metric: list(examples.label_sets(metric)) for metric in _METRICS}
    for metric, sets in series.items():
        assert sets, metric.name
        assert all(set(labels) == {*metric.labels, *metric.open_labels} for labels in sets), metric.name


def test_examples_of_counters_never_fall() -> None:
    """What counts only grows, also while the sale goes."""
    made = examples.Examples(_METRICS, sale=1_000)
    before = {series: value for _, series, value in made.samples(900)}
    after = {series: value for _, series, value in made.samples(2_900)}
    assert before.keys() == after.keys()
    counts = [one.name for one in _METRICS if isinstance(one, Counter | Histogram)]
    counted = [series for series in before if series.startswith(tuple(counts))]
    assert counted
    assert all(after[series] >= before[series] for series in counted)


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.12345, "percentunit", "12.3%"),
        (90, "s", "1.5 min"),
        (0.0042, "s", "4.2 ms"),
        (3 * 1024**3, "bytes", "3 GiB"),
        (1500, "cps", "1.5 K c/s"),
        (14.4, "suffix:x", "14.4x"),
        (2_000_000, "short", "2 Mil"),
    ],
)
def test_figures_have_their_units(value: float, unit: str, text: str) -> None:
    """A figure in a picture reads about as in Grafana."""
    assert text_of(value, unit) == text


def test_a_rule_runs_after_those_that_it_reads() -> None:
    """Rules are run in levels, as what one writes can be read by the next run only."""
    rules = [
        {"record": "slo:c:rate", "expr": "slo:b:rate + slo:a:rate"},
        {"record": "slo:b:rate", "expr": "slo:a:rate"},
        {"record": "slo:a:rate", "expr": "up"},
    ]
    levels = [[str(rule["record"]) for rule in level] for level in pictures._levels(rules)]
    assert levels == [["slo:a:rate"], ["slo:b:rate"], ["slo:c:rate"]]


def test_a_board_that_is_not_there_is_told(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Exit code 2, and one line that says which boards there are."""
    assert pictures.main(["--to", str(tmp_path), "--only", "nothing"]) == 2
    assert "there are slo-overview, slo-detail" in capsys.readouterr().err
