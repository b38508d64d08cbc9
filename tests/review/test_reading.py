"""What is recorded late is counted at its time."""

from __future__ import annotations

import math
from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from review.reading import _moved, latest
from tests.review.making import promise

NAN = math.nan


@pytest.mark.parametrize(
    ("shift", "expected"),
    [
        (0.0, [0, 0, 4, 0]),
        (1.0, [0, 4, 0, 0]),
        (0.5, [0, 2, 2, 0]),
        (1.25, [1, 3, 0, 0]),
        (2.0, [4, 0, 0, 0]),
    ],
)
def test_a_sample_is_moved_back_by_parts_of_a_window(shift: float, expected: list[float]) -> None:
    """The third of six samples holds four events; they belong that many windows earlier."""
    samples = array("d", [0, 0, 4, 0, 0, 0])
    assert list(_moved(samples, shift, 4)) == pytest.approx(expected)


@given(
    inner=st.lists(st.one_of(st.floats(0, 1_000), st.just(NAN)), max_size=30),
    shift=st.floats(0, 2, exclude_max=True),
)
def test_no_event_is_lost_or_doubled(inner: list[float], shift: float) -> None:
    """Also beside samples that are missing."""
    samples = array("d", [0.0, 0.0, *inner, 0.0, 0.0])
    moved = _moved(samples, shift, len(samples) - 2)
    known = [[value for value in some if not math.isnan(value)] for some in (samples, moved)]
    assert math.fsum(known[1]) == pytest.approx(math.fsum(known[0]), abs=1e-6)


def test_a_window_is_known_when_one_of_its_samples_is() -> None:
    """Without any, it is not known, and not 0."""
    moved = _moved(array("d", [1, NAN, NAN, NAN, 1, 1]), 0.5, 4)
    assert [math.isnan(value) for value in moved] == [False, True, True, False]


def test_the_newest_moment_is_one_that_is_recorded() -> None:
    """Ten minutes back, at the end of a window."""
    assert latest([promise()], 3_000_000_010.0) == 2_999_999_400.0
