"""A quiet past for a Prometheus: the event rates that its rules would have recorded, had they run all along."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path

from drills.harness import HarnessError, tool
from slo import conventions as names
from slo.compile import CompiledSlo

_IMPORT = ("tsdb", "create-blocks-from", "openmetrics", "--quiet")
_IMPORT_SECONDS_MAX = 60


def write(folder: Path, events_per_second: Mapping[CompiledSlo, float]) -> Path:
    """Write one period of even traffic without a bad event, up to now, into a new Prometheus data folder.

    Args:
        folder: The data folder to make.
        events_per_second: The traffic of each SLO; a scaled policy keeps the period, and so the file, short.

    Raises:
        HarnessError: promtool is not built, or refuses.
    """
    promtool = tool("promtool")
    folder.mkdir(parents=True)
    text = folder.with_suffix(".openmetrics")
    with text.open("w") as file:
        file.writelines(_lines(events_per_second, time.time()))
    command = [str(promtool), *_IMPORT, str(text), str(folder)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=_IMPORT_SECONDS_MAX)
    text.unlink()
    if done.returncode:
        raise HarnessError(f"promtool wrote no past: {done.stdout}{done.stderr}".strip())
    return folder


def _lines(events_per_second: Mapping[CompiledSlo, float], now: float) -> Iterator[str]:
    families: dict[str, list[str]] = {}
    for compiled, rate in events_per_second.items():
        for record, value in ((names.ALL_EVENTS, rate), (names.BAD_EVENTS, 0.0)):
            for series, length, step in _series(compiled, record):
                families.setdefault(series, []).extend(_samples(compiled, series, value, (length, step), now))
    for series, lines in families.items():
        yield f"# TYPE {series} gauge\n"
        yield from lines
    yield "# EOF\n"


def _series(compiled: CompiledSlo, record: str) -> Iterator[tuple[str, timedelta, timedelta]]:
    """What the rules read of their own past: each series, how far back, and its resolution."""
    policy = compiled.policy
    longest_fine = max(window for window in compiled.windows if not compiled.is_coarse(window))
    yield record + names.duration(policy.base), longest_fine, policy.evaluation_interval
    coarse = names.coarse(record, policy.coarse_interval, policy.base)
    yield coarse, policy.period, policy.coarse_interval


def _samples(
    compiled: CompiledSlo, series: str, value: float, past: tuple[timedelta, timedelta], now: float
) -> Iterator[str]:
    length, step = past
    labels = ",".join(f'{name}="{text}"' for name, text in compiled.identity.items())
    for number in range(length // step, 0, -1):
        yield f"{series}{{{labels}}} {value:g} {now - number * step.total_seconds():.3f}\n"
