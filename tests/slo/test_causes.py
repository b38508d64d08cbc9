"""A cause that nobody could act on cannot be written."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from slo import Counter, Gauge, SloError
from slo.causes import Cause, Component, Query, Signal, Threshold

FREE = Gauge("disk_free_ratio", "Free part of the disk.", open_labels=("instance",))
WRITES = Counter("disk_writes_total", "Writes.")


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
        ({"condition": Query(promql="up == 0", metrics=(FREE,))}, "the query does not read disk_free_ratio"),
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
