"""Components by golden signals: every cell is watched, or says why not, and what is read comes from somewhere."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

import pytest

from slo import Counter, Events, Gauge, Slo
from slo.causes import Cause, Component, Signal, Source, Threshold, Uncovered
from slo.check import Level, check
from slo.matrix import Definitions, cells, metrics_of
from slo.metrics import Metric
from slo.metrics.aws import AWS_LABELS
from slo.metrics.edge import ALB_REQUEST_DURATIONS, ALB_REQUESTS, EDGE_METRICS
from slo.metrics.eks import EKS_METRICS, KARPENTER_METRICS, KUBE_METRICS
from slo.metrics.exporters import EXPORTERS_METRICS
from slo.metrics.queue import QUEUE_METRICS
from slo.metrics.rds import RDS_METRICS
from slo.metrics.redis import REDIS_CLUSTER_METRICS, REDIS_EXPORTER_NAMES, REDIS_METRICS
from slo.settings import everything, load
from tests.contract.places import ROOT

OURS = everything(load(ROOT / "pyproject.toml"))
EVERY_METRIC = tuple(metric for source in OURS.sources for metric in source.metrics)
FROM_AWS = tuple(
    metric for metric in (*RDS_METRICS, *REDIS_METRICS, *EDGE_METRICS, *QUEUE_METRICS) if metric.cloudwatch
)

REQUESTS = Counter("shop_requests_total", "Requests.", labels={"code": ("ok", "error")})
FREE = Gauge("disk_free_ratio", "Free part of the disk.")
PROMISE = Slo(
    service="shop",
    name="availability",
    component=Component.RDS,
    signals=(Signal.ERRORS, Signal.LATENCY),
    reason="The shop says so.",
    description="Shoppers get an answer.",
    objective=Decimal("99.9"),
    sli=Events(bad=REQUESTS.where(code="error"), all=REQUESTS.where()),
    owner="shop-team",
)
CAUSE = Cause(
    component=Component.RDS,
    signal=Signal.SATURATION,
    name="disk",
    summary="The disk is full.",
    condition=Threshold(gauge=FREE.where(), below=Decimal("0.1")),
    hold=timedelta(minutes=5),
    reason="AWS says so.",
    owner="data",
    diagnosis=("df -h",),
    mitigation="Grow it.",
)
UNCOVERED = Uncovered(component=Component.RDS, signal=Signal.TRAFFIC, reason="The shop counts its own.")
SOUND = Definitions(
    slos=(PROMISE,),
    causes=(CAUSE,),
    uncovered=(UNCOVERED,),
    sources=(Source(component=Component.RDS, process="exporter", metrics=(REQUESTS, FREE)),),
)


def problems(defined: Definitions) -> list[str]:
    """What `slo check` says of these, without the promises themselves."""
    findings = check((), defined)
    assert all(finding.level is Level.PROBLEM for finding in findings)
    return [f"{finding.subject}: {finding.text}" for finding in findings]


# --- ours -----------------------------------------------------------------------------------------------------------


def test_every_cell_of_ours_is_watched() -> None:
    """Six components by four signals: each has a promise or a cause, hence sources, limits, reasons and runbooks."""
    ours = cells(OURS)
    assert {(cell.component, cell.signal) for cell in ours} == {(c, s) for c in Component for s in Signal}
    for cell in ours:
        assert cell.slos or cell.causes or cell.uncovered, cell
        assert cell.uncovered or cell.sources, cell
    assert problems(OURS) == []


def test_only_what_guests_feel_pages() -> None:
    """The edge and the service itself; everything behind them is a ticket."""
    paging = {slo.component for slo in OURS.slos if any(alert.severity.value == "page" for alert in slo.alerts)}
    assert paging == {Component.EDGE, Component.SERVICE}


def test_no_metric_has_two_declarations() -> None:
    """A name is one metric, in all catalogues together."""
    names = [metric.name for metric in EVERY_METRIC]
    assert len(set(names)) == len(names)
    declared = (*RDS_METRICS, *REDIS_METRICS, *EKS_METRICS, *KUBE_METRICS, *KARPENTER_METRICS, *EDGE_METRICS)
    assert {*declared, *QUEUE_METRICS, *EXPORTERS_METRICS} <= set(EVERY_METRIC)


def test_what_others_expose_is_declared_only_where_it_is_read() -> None:
    """Of kube-state-metrics and Karpenter, which know hundreds, the catalogue has what a rule of ours asks for."""
    read = {metric for cause in OURS.causes for metric in cause.condition.metrics}
    assert {*KUBE_METRICS, *KARPENTER_METRICS} <= read


# https://prometheus.io/docs/instrumenting/writing_exporters/#labels, and `instance` and `job`, which a scrape sets.
SCRAPED_LABELS = {"type", "region", "zone", "cluster", "az", "env", "service", "le", "quantile", "instance", "job"}


def test_no_label_of_ours_is_one_that_a_scrape_sets() -> None:
    """Prometheus would rename it to `exported_instance`, and no rule would find it."""
    for metric in EVERY_METRIC:
        assert SCRAPED_LABELS.isdisjoint({*metric.labels, *metric.open_labels}), metric.name


def test_names_end_in_their_base_unit() -> None:
    """Seconds, bytes, ratios from 0 to 1: no milliseconds, no percent, no megabytes."""
    strange = ("percent", "percentage", "milliseconds", "ms", "microseconds", "kilobytes", "megabytes", "mb", "gb")
    for metric in EVERY_METRIC:
        assert not metric.name.removesuffix("_total").endswith(tuple(f"_{unit}" for unit in strange)), metric.name


@pytest.mark.parametrize("metric", FROM_AWS, ids=lambda metric: metric.name)
def test_what_comes_from_cloudwatch_says_how(metric: Metric) -> None:
    """A counter is made from sums, a ratio from percents, seconds from microseconds; all carry account and region."""
    assert set(AWS_LABELS) <= set(metric.open_labels)
    for address in metric.cloudwatch:
        assert address.namespace.startswith("AWS/")
        assert (address.statistic in ("Sum", "SampleCount")) == isinstance(metric, Counter)
        in_percent = any(word in address.name for word in ("Utilization", "Percentage", "Balance"))
        assert (address.factor == Decimal("0.01")) == in_percent
        assert not in_percent or metric.name.endswith("_ratio")
        assert (address.factor == Decimal("0.000001")) == address.name.startswith("Successful")


def test_requests_that_failed_are_taken_from_all() -> None:
    """100 requests of which a target failed 7, and 5 that no target saw: 93 ok, 7, 5."""
    said = {"RequestCount": 100, "HTTPCode_Target_5XX_Count": 7, "HTTPCode_ELB_5XX_Count": 5}
    counted = dict.fromkeys(ALB_REQUESTS.labels["outcome"], Decimal(0))
    for address in ALB_REQUESTS.cloudwatch:
        counted[address.labels["outcome"]] += address.factor * said[address.name]
    assert counted == {"ok": 93, "target_error": 7, "elb_error": 5}


def test_slow_requests_are_those_that_the_percent_rank_leaves() -> None:
    """80 answers of which 90 % took at most 0.3 s: 72 fast, 8 slow, and no address of another length of time."""
    counted = dict.fromkeys(ALB_REQUEST_DURATIONS.labels["speed"], Decimal(0))
    for address in ALB_REQUEST_DURATIONS.cloudwatch:
        assert address.percent_rank in (None, "PR(:0.3)")
        share = Decimal(1) if address.percent_rank is None else Decimal("0.9")
        counted[address.labels["speed"]] += address.factor * 80 * share
    assert counted == {"fast": 72, "slow": 8}


def test_redis_exporter_has_a_name_for_each_of_the_clusters_words() -> None:
    """So a definition may read either."""
    assert set(REDIS_EXPORTER_NAMES) == set(REDIS_CLUSTER_METRICS)
    assert len(set(REDIS_EXPORTER_NAMES.values())) == len(REDIS_CLUSTER_METRICS)


# --- whatever is wrong ----------------------------------------------------------------------------------------------


def test_a_sound_matrix_has_no_problem() -> None:
    """One component, of which somebody speaks, is asked for; of the others nothing is."""
    assert problems(SOUND) == []
    assert problems(Definitions()) == []
    assert [(cell.signal, len(cell.slos), len(cell.causes), len(cell.uncovered)) for cell in cells(SOUND)] == [
        (Signal.LATENCY, 1, 0, 0),
        (Signal.TRAFFIC, 0, 0, 1),
        (Signal.ERRORS, 1, 0, 0),
        (Signal.SATURATION, 0, 1, 0),
    ]
    assert cells(SOUND)[0].sources == metrics_of(PROMISE) == (REQUESTS,)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"uncovered": ()}, "rds/traffic: nothing watches it; give an SLO this component and signal, write a Cause,"),
        ({"uncovered": (UNCOVERED, UNCOVERED)}, "rds/traffic: is said to be uncovered more than once"),
        (
            {"uncovered": (UNCOVERED, replace(UNCOVERED, signal=Signal.ERRORS))},
            "rds/errors: is said to be uncovered, but shop/availability watches it; remove the Uncovered",
        ),
        ({"sources": ()}, "rds/disk: reads disk_free_ratio, which no Source has; add it to one"),
        ({"causes": (CAUSE, replace(CAUSE))}, "rds/disk: has the alert 'RdsDisk', as rds/disk has; give it another"),
    ],
)
def test_a_cell_without_a_watcher_is_a_problem(changes: dict[str, object], said: str) -> None:
    """It is named, with what helps; so are two alerts of one name, and a metric from nowhere."""
    found = problems(replace(SOUND, **changes))  # type: ignore[arg-type]
    assert any(problem.startswith(said) for problem in found), found


def test_a_promise_of_a_component_says_of_what_and_why() -> None:
    """Signals and a reason belong to it, and signals alone are of nothing."""
    for changes, said in (
        ({"signals": ()}, "it is a promise of rds and watches no signal"),
        ({"reason": "Because"}, "the reason must be one or more sentences"),
        ({"component": None}, "it watches signals of no component"),
    ):
        with pytest.raises(ValueError, match=said):
            replace(PROMISE, **changes)
