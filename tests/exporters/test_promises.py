"""What only the exporters know reaches CloudWatch's alarms too, by the log."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric as Family

from exporters.__main__ import PROMISES
from exporters.promises import Promises
from slo import Slo
from slo.cloudwatch import CloudWatchSettings
from slo.definitions import eks, rds, redis
from slo.model import TimeSlice
from slo.settings import load
from tests.contract.places import ROOT

NOW = 1_790_000_075.0


@dataclass(slots=True)
class Served:
    """Stands for what a scrape is told; its values are set by a test."""

    values: dict[str, list[float]] = field(default_factory=dict)

    def describe(self) -> list[Family]:
        """Every gauge that a promise judges."""
        return [GaugeMetricFamily(gauge(one), "Help.") for one in PROMISES if isinstance(one.sli, TimeSlice)]

    def collect(self) -> Iterator[Family]:
        """Those with a value."""
        for name, values in self.values.items():
            family = GaugeMetricFamily(name, "Help.", labels=["name"])
            for number, value in enumerate(values):
                family.add_metric([str(number)], value)
            yield family


@dataclass(slots=True)
class Minutes:
    """A clock that lets so many minutes pass."""

    left: int
    waited: list[float] = field(default_factory=list)

    def now(self) -> float:
        """Always the same moment."""
        return NOW

    def wait(self, seconds: float) -> bool:
        """One less; true at the end."""
        self.waited.append(seconds)
        self.left -= 1
        return self.left < 0


def written(served: Served, slos: tuple[Slo, ...] = PROMISES) -> dict[str, dict[str, Any]]:
    """The lines of one minute, by SLO."""
    stream = io.StringIO()
    Promises(slos, served, stream, Minutes(0)).write()  # type: ignore[arg-type] # has what is asked of it
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    return {f"{line['Service']}-{line['Slo']}": line for line in lines}


def gauge(slo: Slo) -> str:
    """The name of what it judges."""
    assert isinstance(slo.sli, TimeSlice)
    return slo.sli.gauge.metric.name


@pytest.mark.parametrize(("values", "bad"), [([3.0, 2.0, 1.0], 0), ([3.0, 2.0, 0.0], 1), ([0.0], 1)])
def test_a_minute_is_bad_when_any_series_breaks_the_limit(values: list[float], bad: int) -> None:
    """One zone without a ready node is enough, as in PromQL; each minute is one event."""
    line = written(Served({gauge(eks.zones): values}))["eks-zones"]
    assert (line["BadEvents"], line["AllEvents"]) == (bad, 1)
    assert line["_aws"]["Timestamp"] == 1_790_000_000_000 // 60_000 * 60_000


def test_nothing_is_told_of_what_is_not_known() -> None:
    """A source that is away has no fresh series: then silence is what the alarm hears."""
    assert written(Served()) == {}
    assert set(written(Served({gauge(rds.availability): [1.0]}))) == {"rds-availability"}


def test_it_writes_at_the_end_of_each_minute_until_it_is_told_to_stop() -> None:
    """The first wait is to the full minute."""
    stream, clock = io.StringIO(), Minutes(3)
    served = Served({gauge(redis.availability): [1.0]})
    Promises(PROMISES, served, stream, clock).run()  # type: ignore[arg-type] # as above
    assert len(stream.getvalue().splitlines()) == 3
    assert clock.waited[0] == 60 - NOW % 60


def test_every_promise_that_the_settings_name_is_told() -> None:
    """What the alarms wait for is what the exporters write, and nothing that CloudWatch has itself."""
    known = {gauge(one): [1.0] for one in PROMISES if isinstance(one.sli, TimeSlice)}
    settings = load(ROOT / "pyproject.toml").cloudwatch
    assert isinstance(settings, CloudWatchSettings)
    assert set(written(Served(known))) == set(settings.services) - {"redemption"}
