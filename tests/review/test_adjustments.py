"""Agreed exclusions: read with care, and never applied in silence."""

from __future__ import annotations

from pathlib import Path

import pytest

from review import adjustments as agreed
from review.budget import without
from review.model import Adjustment, Span
from slo import SloError
from tests.review.making import BEGIN, STEP, promise, windows

GOOD = """
[[adjustment]]
slo = "redemption/availability"
from = 2025-06-16T00:05:00Z
to = 2025-06-16T02:10:00+02:00
reason = "Move of the ledger."
approver = "head of loyalty"
"""


def read(text: str, folder: Path) -> tuple[Adjustment, ...]:
    """Read a file with a text."""
    file = folder / agreed.FILE
    file.write_text(text)
    return agreed.read(file, [promise()])


def test_a_file_is_read(tmp_path: Path) -> None:
    """Times keep their offset: 02:10 in summer's Berlin is 00:10 UTC."""
    (one,) = read(GOOD, tmp_path)
    assert one.span == Span(BEGIN + 300, BEGIN + 600)
    assert (one.slo, one.reason, one.approver) == ("redemption/availability", "Move of the ledger.", "head of loyalty")


def test_an_empty_file_adjusts_nothing(tmp_path: Path) -> None:
    """It may be there before the first agreement."""
    assert read("", tmp_path) == ()


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ((GOOD, "[adjustment]\nx = 1"), "write [[adjustment]], in double brackets"),
        (("[[adjustment]]", "[[adjustments]]"), "unknown key 'adjustments'"),
        (("approver", "aprover"), "adjustment 1: unknown key 'aprover'"),
        (('approver = "head of loyalty"', ""), "adjustment 1: approver is missing or empty"),
        (("Move of the ledger.", " "), "adjustment 1: reason is missing or empty"),
        (("redemption/availability", "redemption/avail"), "slo 'redemption/avail' is not defined; there are * for all"),
        (("00:05:00Z", "00:05:00"), "from must be a time with an offset from UTC"),
        (("2025-06-16T00:05:00Z", "2025-06-16"), "from must be a time with an offset from UTC"),
        (("02:10:00+02:00", "00:05:00Z"), "to (2025-06-16T00:05:00+00:00) is not after from"),
        (("[[adjustment]]", "[[adjustment]"), "adjustments"),
    ],
)
def test_a_wrong_file_is_refused(tmp_path: Path, change: tuple[str, str], fault: str) -> None:
    """The fault is named; nothing is guessed."""
    with pytest.raises(SloError) as error:
        read(GOOD.replace(*change), tmp_path)
    assert fault in str(error.value)


def test_all_faults_are_told_at_once(tmp_path: Path) -> None:
    """Two wrong entries, two lines."""
    with pytest.raises(SloError) as error:
        read(GOOD.replace('reason = "Move of the ledger."', "") * 2, tmp_path)
    assert len(error.value.problems) == 2


def test_a_star_is_for_all_and_a_name_for_one(tmp_path: Path) -> None:
    """What lies outside of the period is no adjustment of it."""
    star, named = read(GOOD.replace("redemption/availability", "*") + GOOD, tmp_path)
    day = Span(BEGIN, BEGIN + 86_400)
    assert agreed.of_slo((star, named), promise(), day) == (star, named)
    assert agreed.of_slo((star, named), promise(name="other"), day) == (star,)
    assert agreed.of_slo((star, named), promise(), Span(BEGIN + 86_400, BEGIN + 90_000)) == ()


def test_what_was_taken_out_is_told() -> None:
    """Of two that cover the same window, the first is told as having taken it."""
    of = windows([100.0] * 4, [0.0, 7.0, 5.0, 0.0])
    first, second = (
        Adjustment(slo="*", span=Span(BEGIN + begin * STEP, BEGIN + end * STEP), reason="r", approver="a")
        for begin, end in ((1, 2), (1, 3))
    )
    counted = without(of, [first.span, second.span])
    told = agreed.applied([first, second], of, counted)
    assert [(one.all_events, one.bad_events) for one in told] == [(100, 7), (100, 5)]
