"""The second way to an alert for what only the exporters know: promises' events, told to CloudWatch by the log.

AWS has no metric of an idle zone or of a cluster's lost slots. So once a minute each promise on such a gauge gets a
line in the embedded metric format: one event, bad when any series breaks the limit. Without a fresh series there is no
line, and the alarm on silence tells.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import TextIO

from exporters.calls import Clock
from exporters.collector import Snapshots
from slo.embedded import document
from slo.model import Slo, TimeSlice

_MINUTE_SECONDS = 60


class Promises:
    """Tells of promises, once a minute.

    Args:
        slos: Those that judge a gauge of the exporters which CloudWatch has not; all others are passed over.
        snapshots: What is served, without what is too old.
        stream: Where the log goes.
        clock: Tells the minute, and when to stop.
    """

    def __init__(self, slos: Iterable[Slo], snapshots: Snapshots, stream: TextIO, clock: Clock) -> None:
        known = {family.name for family in snapshots.describe()}
        self._judged = [
            (slo, slo.sli)
            for slo in slos
            if isinstance(slo.sli, TimeSlice)
            and slo.sli.gauge.metric.name in known
            and not slo.sli.gauge.metric.cloudwatch
        ]
        self._snapshots = snapshots
        self._stream = stream
        self._clock = clock

    def run(self) -> None:
        """Write at the end of every minute, until it is time to stop."""
        while not self._clock.wait(_MINUTE_SECONDS - self._clock.now() % _MINUTE_SECONDS):
            self.write()

    def write(self) -> None:
        """Write a line for each promise of which something is known."""
        minute = int(self._clock.now() // _MINUTE_SECONDS - 1) * _MINUTE_SECONDS
        for slo, is_bad in self._events():
            line = json.dumps(document(slo, float(is_bad), 1.0, minute), separators=(",", ":"))
            self._stream.write(f"{line}\n")
        self._stream.flush()

    def _events(self) -> Iterator[tuple[Slo, bool]]:
        families = {family.name: family for family in self._snapshots.collect()}
        for slo, sli in self._judged:
            wanted = sli.gauge.values
            family = families.get(sli.gauge.metric.name)
            values = [
                sample.value
                for sample in (family.samples if family else ())
                if all(sample.labels[name] in chosen for name, chosen in wanted.items())
            ]
            if values:
                above, below = sli.bad_above, sli.bad_below
                yield slo, (above is not None and max(values) > above) or (below is not None and min(values) < below)
