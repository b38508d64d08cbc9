"""What Prometheus holds of many SLOs: their recorded event rates and alerts, each with two incidents of an hour."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path

from benchmarks.flash_sale.data import import_text
from slo import CompiledSlo, Severity, promql
from slo import conventions as names
from slo.windows import HOUR

_INCIDENTS = 2
_INCIDENT = HOUR
_BAD_SHARE = 0.2  # while one lasts
_SPENDS = 0.3  # of the budget, bit by bit, in all other hours
_LINES_A_FILE = 3_000_000


def write(folder: Path, compiled: Sequence[CompiledSlo], end: int, length: timedelta) -> int:
    """Write the history into a new data folder; the number of samples.

    Args:
        folder: The data folder to make.
        compiled: The SLOs.
        end: The last evaluation, Unix time in seconds.
        length: Of the history.

    Raises:
        RuntimeError: promtool refuses.
    """
    folder.mkdir(parents=True)
    text, samples, lines = folder.with_suffix(".openmetrics"), 0, 0
    file = text.open("w")
    for number, one in enumerate(compiled):
        for line in _lines(one, number, end, length):
            file.write(line)
            lines += 1
        if lines >= _LINES_A_FILE or number == len(compiled) - 1:
            file.close()
            import_text(text, folder)
            samples, lines = samples + lines, 0
            file = text.open("w")
    file.close()
    text.unlink()
    return samples


def _lines(compiled: CompiledSlo, number: int, end: int, length: timedelta) -> Iterator[str]:
    policy, identity = compiled.policy, _labels(compiled.identity)
    step, fine = (int(each.total_seconds()) for each in (policy.coarse_interval, policy.evaluation_interval))
    draw = random.Random(number)  # noqa: S311 - the same history at every run
    windows = length // policy.coarse_interval
    begins = sorted(draw.sample(range(windows // 4, windows - 2 * (_INCIDENT // policy.coarse_interval)), _INCIDENTS))
    burning = {begin + more for begin in begins for more in range(_INCIDENT // policy.coarse_interval)}
    every = [20 + number % 7 + draw.random() for _ in range(windows)]
    quiet = _SPENDS * float(compiled.slo.budget_ratio)
    bad = [all_of * (_BAD_SHARE if at in burning else quiet) for at, all_of in enumerate(every)]
    first = end - (windows - 1) * step
    for record, values in ((names.ALL_EVENTS, every), (names.BAD_EVENTS, bad)):
        series = names.coarse(record, policy.coarse_interval, policy.base) + identity
        for at, value in enumerate(values):
            yield f"{series} {value:.6f} {first + at * step}\n"
    series = names.BAD_EVENTS + names.duration(policy.base) + identity
    for at, value in enumerate(bad):
        for second in range(first + (at - 1) * step + fine, first + at * step + 1, fine):
            yield f"{series} {value * (0.9 + 0.2 * draw.random()):.6f} {second}\n"
    alert = names.alert_name(compiled.slo, Severity.TICKET)
    firing = {**compiled.identity, names.SEVERITY_LABEL: "ticket", "alertname": alert, "alertstate": "firing"}
    for begin in begins:
        for second in range(first + begin * step, first + begin * step + int(_INCIDENT.total_seconds()), fine):
            yield f"ALERTS{_labels(firing)} 1 {second}\n"


def _labels(labels: Mapping[str, str]) -> str:
    return "{" + ",".join(f"{name}={promql.quoted(text)}" for name, text in labels.items()) + "}"
