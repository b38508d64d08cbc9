"""Where the values come from: one file a source. Each is asked once a cycle, in a thread of its own."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from exporters.calls import CallError
from exporters.readings import Reading
from slo.metrics import Metric


@dataclass(frozen=True, slots=True)
class Collected:
    """What a cycle brought.

    Attributes:
        readings: Everything that is known now, older values among them, each with its time.
        errors: What failed.
    """

    readings: Iterable[Reading]
    errors: Sequence[CallError] = ()


class Source(Protocol):
    """A source of values."""

    @property
    def metrics(self) -> Sequence[Metric]:
        """Every metric that it may have."""

    def collect(self) -> Collected:
        """Ask for everything once.

        Raises:
            CallError: Nothing at all is known.
        """
