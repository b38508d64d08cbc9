"""The catalogue: a metric, a label or a value that is wrong cannot be written down."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from slo import Counter, Gauge, Histogram, Metric, SloError
from slo.metrics import (
    BAD_OUTCOMES,
    GOOD_OUTCOMES,
    REDEMPTION_METRICS,
    REDEMPTION_REQUEST_DURATION,
    REDEMPTION_REQUESTS,
    REDEMPTION_ROUTES,
    REDEMPTION_WORKER_METRICS,
    CloudWatch,
)

COLOURS = Counter("paint_total", "Paint.", labels={"colour": ("red", "green"), "wet": ("yes", "no")})


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Gauge("a-b", "Help."), "metric a-b: the name is not a Prometheus metric name"),
        (lambda: Gauge("level:metric:sum", "Help."), "the name is not a Prometheus metric name"),
        (lambda: Gauge("a", "Help"), "the help text must be a sentence that ends with a full stop"),
        (lambda: Gauge("a", "Help.", labels={"le": ("1",)}), "label 'le' is not allowed"),
        (lambda: Gauge("a", "Help.", labels={"__x": ("1",)}), "label '__x' is not allowed"),
        (lambda: Gauge("a", "Help.", labels={"sl-o": ("1",)}), "label 'sl-o' is not allowed"),
        (lambda: Gauge("a", "Help.", labels={"x": ()}), "label 'x' declares no value"),
        (lambda: Gauge("a", "Help.", labels={"x": ("1", "1")}), "label 'x' declares a value twice"),
        (lambda: Counter("a", "Help."), "a counter's name ends in _total"),
        (lambda: Gauge("a_total", "Help."), "only a counter's name ends in _total"),
        (lambda: Histogram("a", "Help.", buckets=()), "bucket edges must be given, ascending and without repeats"),
        (lambda: Histogram("a", "Help.", buckets=(2, 1)), "bucket edges must be given, ascending and without repeats"),
        (lambda: Histogram("a", "Help.", buckets=(1, 1)), "bucket edges must be given, ascending and without repeats"),
        (lambda: Histogram("a", "Help.", buckets=(1, math.inf)), "bucket edge inf is not allowed"),
        (lambda: Histogram("a", "Help.", buckets=(math.nan,)), "bucket edge nan is not allowed"),
        (lambda: Histogram("a", "Help.", buckets=(1, 1e6)), "bucket edge 1000000.0 is not allowed"),
    ],
)
def test_a_metric_that_prometheus_or_our_rules_would_not_take_is_refused(make: Callable[[], Metric], said: str) -> None:
    """Every wrong declaration raises where it is written, names the metric and what is wrong with it."""
    with pytest.raises(SloError, match=r"^metric ") as raised:
        make()
    assert said in str(raised.value)


def test_all_faults_of_a_metric_are_told_at_once() -> None:
    """Three faults are three lines, so that nobody fixes them one run at a time."""
    with pytest.raises(SloError) as raised:
        Counter("9lives", "Cats", labels={"service": ("x",)})
    assert len(raised.value.problems) == 4
    assert str(raised.value).splitlines() == [f"metric 9lives: {problem}" for problem in raised.value.problems]


def test_a_label_with_one_value_may_be_written_as_text() -> None:
    """Where no type checker runs, `"ok"` means the value ok, as in `where`, and not the letters o and k."""
    counter = Counter("a_total", "Help.", labels={"code": "ok"})  # type: ignore[dict-item]
    assert counter.labels == {"code": ("ok",)}


def test_a_selection_names_what_is_unknown_and_what_there_is() -> None:
    """A label or value that the metric does not declare raises, with those that it does; all at once."""
    with pytest.raises(SloError) as raised:
        COLOURS.where(color="red", colour=("red", "blue"), wet=())
    assert raised.value.subject == "selection from paint_total"
    assert raised.value.problems == (
        "unknown label 'color'; the metric has 'colour', 'wet'",
        "label 'colour' never has the value 'blue'; it has 'red', 'green'",
        "label 'wet' selects nothing; give at least one of 'yes', 'no'",
    )


def test_a_selection_from_a_metric_without_labels_says_so() -> None:
    """The list of what there is never ends in nothing."""
    with pytest.raises(SloError, match="unknown label 'x'; the metric has no labels"):
        Gauge("bare", "Bare.").where(x="1")


def test_selections_are_equal_when_they_select_the_same() -> None:
    """Order and repeats of the values say nothing, so the rules' text does not depend on them."""
    assert COLOURS.where(wet="yes", colour=("red", "green", "red")) == COLOURS.where(
        colour=["green", "red"], wet=("yes",)
    )


def test_a_declared_metric_cannot_be_changed() -> None:
    """Service, rules and boards read one value; nobody can change it for the others."""
    with pytest.raises(TypeError):
        COLOURS.labels["colour"] = ("blue",)  # type: ignore[index]
    with pytest.raises(AttributeError):
        COLOURS.name = "other"  # type: ignore[misc]


def test_label_sets_are_every_combination_once() -> None:
    """What a process exposes at 0 from its start: the product of all values, in declared order."""
    assert list(COLOURS.label_sets()) == [
        {"colour": "red", "wet": "yes"},
        {"colour": "red", "wet": "no"},
        {"colour": "green", "wet": "yes"},
        {"colour": "green", "wet": "no"},
    ]
    assert list(Gauge("bare", "Bare.").label_sets()) == [{}]


def test_an_outcome_is_good_or_bad_and_never_both() -> None:
    """A refusal for a good reason or for later is good; shed load, time-outs and errors are bad; there is no more."""
    assert set(GOOD_OUTCOMES) == {"ok", "deferred", "refused", "invalid", "limited"}
    assert set(BAD_OUTCOMES) == {"shed", "timeout", "error"}
    assert REDEMPTION_REQUESTS.labels == {"route": REDEMPTION_ROUTES, "outcome": GOOD_OUTCOMES + BAD_OUTCOMES}
    assert REDEMPTION_REQUEST_DURATION.labels == REDEMPTION_REQUESTS.labels


def test_every_metric_of_the_module_is_in_the_tuple_of_one_process() -> None:
    """Forgetting a metric in the service's and the worker's tuple would leave it declared and never exposed."""
    from slo import metrics  # noqa: PLC0415 - its namespace is what is looked at

    declared = {value.name for value in vars(metrics).values() if isinstance(value, Metric)}
    names = [metric.name for metric in (*REDEMPTION_METRICS, *REDEMPTION_WORKER_METRICS)]
    assert sorted(names) == sorted(declared)
    assert len(set(names)) == len(names)


CPU = CloudWatch(namespace="AWS/RDS", name="CPUUtilization", statistic="Average", dimensions={"Id": "instance"})


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"open_labels": ()}, "dimension Id is the label 'instance', which is no open label"),
        ({"labels": {"mode": ("user",)}}, "AWS/RDS CPUUtilization: must say a value of 'mode'"),
        ({"labels": {"instance": ("a",)}}, "label 'instance' is declared with its values and as an open one"),
        ({"open_labels": ("instance", "le")}, "label 'le' is not allowed"),
        ({"cloudwatch": (replace(CPU, factor=Decimal(0)),)}, "a factor of 0 leaves nothing of it"),
    ],
)
def test_an_address_that_leads_nowhere_is_refused(changes: dict[str, Any], said: str) -> None:
    """What CloudWatch keeps must become a series of ours with all of its labels."""
    with pytest.raises(SloError) as raised:
        Gauge("cpu_ratio", "Used.", **{"open_labels": ("instance",), "cloudwatch": (CPU,)} | changes)
    assert said in str(raised.value)


def test_nothing_selects_by_an_open_label() -> None:
    """Its values are known at run time only, so a selection by one may select nothing for ever."""
    gauge = Gauge("cpu_ratio", "Used.", open_labels=("instance",), cloudwatch=(CPU,))
    with pytest.raises(SloError, match="'instance' is an open one"):
        gauge.where(instance="a")
