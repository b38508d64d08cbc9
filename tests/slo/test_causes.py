"""A cause that nobody could act on cannot be written."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from slo import Counter, Gauge, SloError
from slo.causes import Cause, Component, Query, Signal, Threshold, Uncovered

FREE = Gauge("disk_free_ratio", "Free part of the disk.", open_labels=("instance",))
WRITES = Counter("disk_writes_total", "Writes.", labels={"to": ("log", "data")})


def cause(**changes: Any) -> Cause:  # noqa: ANN401 - any field of any type
    """A sound one, with these fields changed."""
    sound: dict[str, Any] = {
        "component": Component.RDS,
        "signal": Signal.SATURATION,
        "name": "storage-low",
        "summary": "The disk is nearly full.",
        "condition": Threshold(gauge=FREE.where(), below=Decimal("0.1")),
        "hold": timedelta(minutes=5),
        "reason": "AWS advises 10 %.",
        "owner": "data",
        "diagnosis": ("df -h  # what is left",),
        "mitigation": "Grow the disk; it cannot shrink again.",
    }
    return Cause(**sound | changes)


def query(**changes: Any) -> Query:  # noqa: ANN401 - any field of any type
    """A sound one, with these fields changed."""
    sound: dict[str, Any] = {
        "promql": "rate(disk_writes_total[5m]) > 9",
        "metrics": (WRITES,),
        "fires": {'disk_writes_total{to="log"}': "0+600"},
        "near_miss": {'disk_writes_total{to="log"}': "0+540"},
    }
    return Query(**sound | changes)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"name": "Storage"}, "the name 'Storage' is not allowed"),
        ({"summary": "Full"}, "the summary must be one or more sentences"),
        ({"reason": ""}, "the reason must be one or more sentences"),
        ({"mitigation": ""}, "the mitigation must be one or more sentences"),
        ({"owner": " "}, "the owner is empty"),
        ({"hold": timedelta(0)}, "a single scrape tells somebody"),
        ({"diagnosis": ()}, "there is no diagnosis"),
        ({"condition": Threshold(gauge=FREE.where())}, "exactly one of above and below"),
        ({"condition": Threshold(gauge=WRITES.where(), above=Decimal(1))}, "disk_writes_total is no gauge"),
        ({"condition": query(metrics=(FREE, WRITES))}, "the query does not read disk_free_ratio"),
        ({"condition": query(fires={})}, "needs an example that fires and one that nearly does"),
        ({"condition": query(near_miss={"disk_writes_total": "many"})}, "has the values 'many'; give 3, 0+60"),
        (
            {"condition": query(fires={"disk_reads_total": "1"})},
            "disk_reads_total is of no metric that the query reads",
        ),
        ({"condition": query(fires={'disk_writes_total{on="a"}': "1"})}, "has the label 'on', which disk_writes_total"),
        ({"condition": query(fires={'disk_writes_total{to="a"}': "1"})}, "'to' never has the value 'a'"),
    ],
)
def test_a_fault_raises_where_it_is_written(changes: dict[str, Any], said: str) -> None:
    """The message names the cause and what is wrong with it."""
    with pytest.raises(SloError, match=r"^cause rds/") as raised:
        cause(**changes)
    assert said in str(raised.value)


def test_a_cause_has_an_id_and_says_what_it_reads() -> None:
    """As an SLO has, for names of alerts and for people."""
    assert (cause().id, cause().id_path) == ("rds-storage-low", "rds/storage-low")
    assert cause().condition.metrics == (FREE,)


def test_a_threshold_is_a_query_with_its_limit() -> None:
    """In plain digits, above or below; each series is judged by itself, as nothing aggregates."""
    assert cause().condition.promql == "disk_free_ratio < 0.1"
    assert Threshold(gauge=FREE.where(), above=Decimal("1E+3")).promql == "disk_free_ratio > 1000"
    assert Threshold(gauge=FREE.where(), below=Decimal(0)).promql == "disk_free_ratio < 0"


@pytest.mark.parametrize("values", ["3", "-1", "0+60", "400.5-0.1", "0+60x30 1800x40", "5x9 0+0x3"])
def test_an_example_may_stay_grow_or_change(values: str) -> None:
    """What promtool reads as values is allowed."""
    assert cause(condition=query(fires={"disk_writes_total": values})).id == "rds-storage-low"


def test_the_alert_of_a_cause_says_of_what_it_is() -> None:
    """Its name in CamelCase; its service is the component, unless it may hurt another one."""
    assert cause().alert_name == "RdsStorageLow"
    assert cause().labels == {
        "cause": "storage-low",
        "component": "rds",
        "owner": "data",
        "service": "rds",
        "severity": "ticket",
        "signal": "saturation",
    }
    assert cause(service="shop").labels["service"] == "shop"


def test_nothing_is_uncovered_without_a_reason() -> None:
    """A sentence, as for everything else that people read."""
    assert Uncovered(component=Component.RDS, signal=Signal.TRAFFIC, reason="The service counts it.").reason
    with pytest.raises(SloError, match="uncovered rds/traffic: the reason must be one or more sentences"):
        Uncovered(component=Component.RDS, signal=Signal.TRAFFIC, reason="")
