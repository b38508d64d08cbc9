"""A month of traffic for the redemption service, and a Prometheus data folder in which every window is full of it.

The counters are there for as long as raw series are read. Longer windows read recorded series; those are written as the
rules would have recorded them from the same events, which `benchmarks.rules` checks against the rules themselves.
"""

from __future__ import annotations

import math
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from itertools import accumulate, product
from pathlib import Path

from drills.harness import tool
from slo import promql
from slo.metrics import REDEEM_ROUTE, REDEMPTION_REQUESTS
from slo.windows import DAY, HOUR, MINUTE

STEP = timedelta(seconds=30)  # of scraping and of evaluating
BASE = 5 * MINUTE
PERIOD = 30 * DAY
END = 1_750_000_200  # seconds; any moment that all intervals divide, so that every run has the same figures

_STEPS_A_BASE = BASE // STEP
_STEPS = PERIOD // STEP + 2 * _STEPS_A_BASE  # a little more, so that the first recorded value is whole
_STEPS_RAW = (3 * DAY + HOUR) // STEP  # the longest window that Sloth reads raw, and a little more
_STEPS_A_DAY = DAY // STEP
_PRESENT_STEPS = (20 * MINUTE) // STEP

# The series that have nearly all the traffic: three routes that do well, and what goes wrong with one of them.
_GOOD_SHARES = {
    (REDEEM_ROUTE, "ok"): 0.30,
    (REDEEM_ROUTE, "refused"): 0.10,
    ("GET /v1/redemptions/{redemption_id}", "ok"): 0.25,
    ("GET /v1/accounts/{account_id}/balance", "ok"): 0.35,
}
_BAD = (REDEEM_ROUTE, "error")

_MEAN_EVENTS_PER_SECOND = 27  # what the definition expects
_BAD_SHARE = 0.00001
# A flash sale: an hour, ten days before the end, with some failures.
_SALE_STEPS = range(_STEPS - 10 * _STEPS_A_DAY, _STEPS - 10 * _STEPS_A_DAY + HOUR // STEP)
_SALE_EVENTS_PER_SECOND = 6_000
_SALE_BAD_SHARE = 0.0007

_IMPORT = ("tsdb", "create-blocks-from", "openmetrics", "--quiet", "--max-block-duration=31d")


@dataclass(frozen=True)
class Traffic:
    """The events of each scrape interval, up to `END`; the same for all `pods` pods together.

    Attributes:
        pods: Over how many pods they are spread evenly.
    """

    pods: int

    @cached_property
    def all_events(self) -> list[float]:
        """Events in each step: a daily curve, and one hour of a sale."""
        seconds = STEP.total_seconds()
        return [
            seconds * (_SALE_EVENTS_PER_SECOND if step in _SALE_STEPS else _MEAN_EVENTS_PER_SECOND * _daily(step))
            for step in range(_STEPS)
        ]

    @cached_property
    def bad_events(self) -> list[float]:
        """Bad events in each step."""
        return [
            events * (_SALE_BAD_SHARE if step in _SALE_STEPS else _BAD_SHARE)
            for step, events in enumerate(self.all_events)
        ]

    @property
    def error_ratio(self) -> float:
        """The truth of the period, counted from the events."""
        steps = PERIOD // STEP
        return sum(self.bad_events[-steps:]) / sum(self.all_events[-steps:])

    def series(self) -> Iterator[tuple[dict[str, str], list[float]]]:
        """Labels and values of the counters, over the raw part: ten pods make fifty series."""
        good = [every - bad for every, bad in zip(self.all_events, self.bad_events, strict=True)]
        shares = [(labels, good, share) for labels, share in _GOOD_SHARES.items()] + [(_BAD, self.bad_events, 1.0)]
        for pod, ((route, outcome), events, share) in product(range(self.pods), shares):
            part = share / self.pods
            labels = {"pod": f"redemption-{pod:02d}", "route": route, "outcome": outcome}
            yield labels, [part * total for total in accumulate(events)][-_STEPS_RAW:]


def base_rate(events: Sequence[float]) -> list[float]:
    """What `rate(...[5m])` over the counters gives at each scrape; 0 for the first few.

    Ten scrapes lie in the window, nine intervals apart, and Prometheus extrapolates those to the ends.
    """
    totals = [0.0, *accumulate(events)]
    intervals = _STEPS_A_BASE - 1
    seconds = intervals * STEP.total_seconds()
    return [
        (totals[step + 1] - totals[step + 1 - intervals]) / seconds if step >= intervals else 0.0
        for step in range(len(events))
    ]


def coarse_mean(rates: Sequence[float]) -> list[float]:
    """What `avg_over_time(...[5m])` over the recorded rate gives, every five minutes."""
    last = len(rates)
    return [
        sum(rates[end - _STEPS_A_BASE : end]) / _STEPS_A_BASE
        for end in range(last % _STEPS_A_BASE + _STEPS_A_BASE, last + 1, _STEPS_A_BASE)
    ]


def _daily(step: int) -> float:
    """A curve around 1: quiet nights, busy evenings."""
    return 1 + 0.8 * math.sin(2 * math.pi * step / _STEPS_A_DAY)


# --- the data folder ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Recorded:
    """A recorded series.

    Attributes:
        name: Its name.
        labels: Its labels.
        values: Its values up to `END`, the last one at it.
        step: The time from one to the next.
    """

    name: str
    labels: Mapping[str, str]
    values: Sequence[float]
    step: timedelta

    @classmethod
    def present(cls, name: str, labels: Mapping[str, str], step: timedelta) -> Recorded:
        """A series that rules read for its latest value only: what a query costs depends on its being there."""
        return cls(name, labels, [1.0] * (_PRESENT_STEPS * STEP // step), step)


def write(folder: Path, traffic: Traffic, recorded: Iterable[Recorded]) -> int:
    """Write the counters and the recorded series into a new Prometheus data folder; the number of samples.

    Raises:
        RuntimeError: promtool refuses.
    """
    folder.mkdir(parents=True)
    text = folder.with_suffix(".openmetrics")
    counters = [Recorded(REDEMPTION_REQUESTS.name, labels, values, STEP) for labels, values in traffic.series()]
    samples = 0
    with text.open("w") as file:
        for one in (*counters, *recorded):
            samples += len(one.values)
            file.writelines(_lines(one))
        file.write("# EOF\n")
    done = subprocess.run([tool("promtool"), *_IMPORT, text, folder], check=False, capture_output=True, text=True)
    text.unlink()
    if done.returncode:
        raise RuntimeError(f"promtool wrote no history: {done.stdout}{done.stderr}".strip())
    return samples


def _lines(series: Recorded) -> Iterator[str]:
    labels = ",".join(f"{name}={promql.quoted(text)}" for name, text in series.labels.items())
    seconds = int(series.step.total_seconds())
    begin = END - seconds * (len(series.values) - 1)
    for number, value in enumerate(series.values):
        yield f"{series.name}{{{labels}}} {value!r} {begin + number * seconds}\n"
