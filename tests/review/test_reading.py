"""What is recorded late is counted at its time."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from review.connection import Connection
from review.prometheus import Prometheus, Sample, Series
from review.reading import Reader, _moved, latest
from slo.windows import DAY
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


class Holey(Prometheus):
    """Coarse samples of ten events a second, but for some windows; the fine ones know twenty, or nothing."""

    missing: tuple[range, ...] = ()
    fine_too = False

    def instant(self, expr: str, at: float) -> list[Sample]:
        """Rules run at the end of their interval."""
        return [Sample({"sloth_id": promise().slo.id}, at)] if "timestamp" in expr else []

    def range(self, expr: str, start: float, end: float, step_seconds: float) -> Iterator[list[Series]]:
        """A sample a step, where there is one."""
        self.queries += 1
        moments = [start + number * step_seconds for number in range(round((end - start) / step_seconds) + 1)]
        known = moments
        if "last_over_time" in expr:
            known = [at for at in moments if not any(round(at / step_seconds) in some for some in self.missing)]
        elif not self.fine_too:
            known = []
        value = "10" if "last_over_time" in expr else "20"
        yield [Series({"sloth_id": promise().slo.id}, [(at, value) for at in known])] if known else []


@pytest.mark.parametrize(("fine_too", "recorded"), [(True, 288), (False, 288 - 6 + 2)])
def test_what_a_late_rule_left_out_is_read_from_finer_recordings(fine_too: bool, recorded: int) -> None:  # noqa: FBT001
    """Two holes in a day, of one window and of five; where nothing finer is there either, they stay."""
    at = 1_750_032_000.0
    last = round(at / 300)
    with Holey(Connection(url="http://holey.test")) as client:
        client.missing = (range(last - 200, last - 199), range(last - 100, last - 95), range(last - 1000))
        client.fine_too = fine_too
        (reading,) = Reader(client).read([promise()], at, DAY, whole=False)
        assert client.queries == 3 + 2 * 2
    assert reading.windows.recorded_count == recorded
    events = math.fsum(value for value in reading.windows.all if not math.isnan(value))
    assert events == pytest.approx(300 * (10 * (288 - 6) + (20 * 6 if fine_too else 0)))


def test_before_the_first_sample_nothing_is_looked_for() -> None:
    """An SLO that is new has no hole, though most of its period is not known."""
    at = 1_750_032_000.0
    with Holey(Connection(url="http://holey.test")) as client:
        client.missing = (range(round(at / 300) - 100),)
        client.fine_too = True
        (reading,) = Reader(client).read([promise()], at, DAY, whole=False)
        assert client.queries == 3
    assert reading.windows.recorded_count == 102  # a sample tells of the window before it, too
