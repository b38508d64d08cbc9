"""A unit: one source in one place, with a clock of its own. Whatever happens to it happens to no other."""

from __future__ import annotations

import logging
import traceback
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, TextIO

import orjson
import structlog

from exporters.calls import CallError, Calls, Reason
from exporters.readings import Reading
from exporters.sources import Source
from slo.metrics import Metric

Log = structlog.typing.FilteringBoundLogger

_SPREAD_SECONDS_MAX: Final = 10.0


@dataclass(frozen=True, slots=True)
class Status:
    """How the last cycle went, and what is known since; replaced as a whole, so a scrape sees one or the next.

    Attributes:
        readings: What is served, by metric.
        up: Whether every question had an answer.
        last_success: Unix time at which the last cycle without a fault ended; 0 for never.
        duration_seconds: Of the last cycle.
        cycles: How many there were.
    """

    readings: Mapping[Metric, Sequence[Reading]] = field(default_factory=dict)
    up: bool = False
    last_success: float = 0.0
    duration_seconds: float = 0.0
    cycles: int = 0


class Unit:
    """A source in a place.

    Args:
        name: What it is: the labels of its own metrics.
        source: Asked once a cycle.
        calls: Those of the source.
        log: Told of every error.
        period_seconds: Time from one cycle to the next.
    """

    def __init__(
        self, name: Mapping[str, str], source: Source, calls: Calls, log: Log, *, period_seconds: float
    ) -> None:
        self.name = name
        self.source = source
        self.calls = calls
        self.status = Status()
        self._log = log.bind(**{label: value for label, value in name.items() if value})
        self._period_seconds = period_seconds

    def run(self, offset_seconds: float = 0.0) -> None:
        """Run one cycle a period until it is time to stop.

        Args:
            offset_seconds: How long after the full period, so that not all units ask in the same second.
        """
        while not self.calls.clock.wait(self.pause_seconds(offset_seconds)):
            self.cycle()

    def pause_seconds(self, offset_seconds: float = 0.0) -> float:
        """The time to the next cycle; those that were missed are not made up for."""
        now = self.calls.clock.now() - offset_seconds
        return (now // self._period_seconds + 1) * self._period_seconds - now

    def cycle(self) -> None:
        """Ask the source once. Never raises."""
        begun = self.calls.clock.now()
        self.calls.begin_cycle()
        readings, up = self.status.readings, False
        errors: tuple[CallError, ...] = ()
        try:
            collected = self.source.collect()
            readings, errors, up = _by_metric(collected.readings), tuple(collected.errors), not collected.errors
        except CallError as error:
            errors = (error,)
        except Exception as error:  # noqa: BLE001 - of one source, and told; the others go on
            fault = self.calls.failed("cycle", CallError(Reason.OTHER, type(error).__name__))
            self._log.error("defect", call=fault.call, error=fault.text, stack=_stack(error))
        for one in errors:
            self._log.error("call failed", call=one.call, reason=one.reason, error=one.text)
        now = self.calls.clock.now()
        last_success = now if up else self.status.last_success
        self.status = Status(readings, up, last_success, now - begun, self.status.cycles + 1)


def offsets(count: int, period_seconds: float) -> list[float]:
    """When in a period each of several units begins: one after the other, within some seconds."""
    spread = min(_SPREAD_SECONDS_MAX, period_seconds / 6)
    return [spread * number / count for number in range(count)]


def create_log(stream: TextIO) -> Log:
    """A logger that writes one JSON object a line."""
    log: Log = structlog.wrap_logger(
        structlog.WriteLogger(stream),
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(serializer=lambda line, **_: orjson.dumps(line).decode()),
        ],
    )
    return log.bind()


def _by_metric(readings: Iterable[Reading]) -> dict[Metric, list[Reading]]:
    found: dict[Metric, list[Reading]] = defaultdict(list)
    for reading in readings:
        found[reading.key.metric].append(reading)
    return dict(found)


def _stack(error: BaseException) -> list[str]:
    """Where an exception came from, without its message and local values."""
    return [f"{one.filename}:{one.lineno} {one.name}" for one in traceback.extract_tb(error.__traceback__)]
