"""Work on many values, spread over cores."""

from __future__ import annotations

import os

import pytest

from cli.spread import spread


def _double_and_where(value: int) -> tuple[int, int]:
    return 2 * value, os.getpid()


@pytest.mark.parametrize("count", [0, 1, 99, 200, 1001])
def test_results_come_in_the_order_of_the_items(count: int) -> None:
    """However many there are, and whichever process made them, each result stands where its item stood."""
    assert [double for double, _ in spread(_double_and_where, range(count))] == [2 * value for value in range(count)]


def test_many_items_use_more_than_one_process() -> None:
    """With two cores or more, a thousand items are not left to one process; a few are."""
    cores = len(os.sched_getaffinity(0))
    assert len({where for _, where in spread(_double_and_where, range(1000))}) == min(cores, 10)
    assert {where for _, where in spread(_double_and_where, range(10))} == {os.getpid()}


def test_a_fault_in_another_process_is_told() -> None:
    """What fails there fails here, with its own error."""

    def fails_late(value: int) -> int:
        return 1 // (999 - value)

    with pytest.raises(ZeroDivisionError):
        spread(fails_late, range(1000))
