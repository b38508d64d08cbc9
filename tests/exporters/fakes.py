"""A clock that tests move, and an AWS of plain values for what moto cannot do."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from exporters.aws import Aws, _judged
from exporters.calls import CallError, Calls
from exporters.cloudwatch import Answer, Batch, Query
from exporters.settings import Account, Requests, Settings
from exporters.sources.resources import Kind, Place, Resources
from exporters.unit import Log, Unit, create_log

NOON = 1_764_158_400.0  # a whole hour
ACCOUNT = "123456789012"
REGION = "eu-central-1"


class Clock:
    """Time that passes when it is waited for, or told to."""

    def __init__(self, now: float = NOON) -> None:
        self.at = now
        self.waits: list[float] = []

    def now(self) -> float:
        """Unix time."""
        return self.at

    def wait(self, seconds: float) -> bool:
        """Let it pass at once."""
        self.waits.append(seconds)
        self.at += seconds
        return False


class PlainAws(Aws):
    """AWS as a table of lists and a function of values; a question may raise instead.

    Args:
        lists: API -> everything that it lists, or the answer to a question.
        value: The value of a query for the minute that begins at a time; None where there is none.
    """

    def __init__(
        self, lists: Mapping[str, Any] | None = None, value: Callable[[Query, int], float | None] | None = None
    ) -> None:
        super().__init__(Account(id=ACCOUNT), Requests(), {})
        self.lists = dict(lists or {})
        self.value = value or (lambda _query, _at: 1.0)
        self.status: Callable[[Query], str] = lambda _query: "Complete"
        self.faults: dict[str, CallError] = {}
        self.batches: list[Batch] = []

    def ask(self, calls: Calls, region: str, api: str, **parameters: Any) -> dict[str, Any]:  # noqa: ANN401 - as `Aws`
        """The answer of the table."""
        del region, parameters
        found: dict[str, Any] = calls(api, lambda: self._answer(api))
        return found

    def all(self, calls: Calls, region: str, api: str, **parameters: Any) -> Iterator[Any]:  # noqa: ANN401 - as `Aws`
        """The list of the table."""
        del region, parameters
        yield from calls(api, lambda: self._answer(api))

    def metric_data(self, calls: Calls, batch: Batch) -> tuple[list[Answer | None], list[CallError]]:
        """A point for each minute of the window that has a value."""
        calls("cloudwatch:GetMetricData", lambda: self._answer("cloudwatch:GetMetricData"))
        calls.tally.metrics += batch.billed
        self.batches.append(batch)
        answers = []
        for query in batch.queries:
            times = range(batch.start, batch.end, query.period_seconds)
            points = {at: value for at in times if (value := self.value(query, at)) is not None}
            answers.append(Answer(start=batch.start, end=batch.end, points=points))
        return _judged(calls, batch, answers, [self.status(query) for query in batch.queries])

    def _answer(self, api: str) -> Any:  # noqa: ANN401 - as `Aws`
        if api in self.faults:
            fault = self.faults[api]
            raise CallError(fault.reason, fault.text, repeatable=fault.repeatable)
        return self.lists.get(api, {} if api.partition(":")[2].startswith("Get") else [])


def log() -> tuple[Log, Callable[[], list[dict[str, Any]]]]:
    """A log, and what was written to it."""
    stream = io.StringIO()
    return create_log(stream), lambda: [json.loads(line) for line in stream.getvalue().splitlines()]


def unit(  # noqa: PLR0913 - the last two have a default
    name: str,
    kind: Kind,
    aws: Aws,
    clock: Clock,
    told: Log | None = None,
    *,
    settings: Settings | None = None,
) -> Unit:
    """A unit of one kind of resource, in the first region."""
    settings = settings or Settings()
    requests = settings.requests
    calls = Calls(clock, attempts_max=requests.attempts_max, retries_max=requests.retries_max, draw=lambda: 0.5)
    place = Place(aws, calls, kind.region or REGION)
    source = Resources(kind, place, delay_seconds=settings.delay_seconds, discovery_seconds=settings.discovery_seconds)
    labels = {"source": name, "name": "", **place.labels}
    return Unit(labels, source, calls, told or log()[0], period_seconds=settings.period_seconds)


def instances(*names: str) -> Sequence[Mapping[str, Any]]:
    """What RDS lists: these instances, all alike."""
    return [
        {
            "DBInstanceIdentifier": name,
            "DBInstanceArn": f"arn:aws:rds:{REGION}:{ACCOUNT}:db:{name}",
            "DBInstanceClass": "db.r6g.large",
            "DBInstanceStatus": "available",
            "EngineVersion": "16.4",
            "AvailabilityZone": f"{REGION}a",
            "MultiAZ": True,
            "AllocatedStorage": 100,
            "MaxAllocatedStorage": 200,
            "DbiResourceId": f"db-{name.upper()}",
            "PerformanceInsightsEnabled": False,
        }
        for name in names
    ]


def rds(*names: str) -> PlainAws:
    """An AWS with these databases."""
    memory = [{"InstanceType": "r6g.large", "MemoryInfo": {"SizeInMiB": 16_384}}]
    return PlainAws({"rds:DescribeDBInstances": instances(*names), "ec2:DescribeInstanceTypes": memory})
