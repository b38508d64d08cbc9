"""What all sources of AWS have in common: resources that are looked for, and their metrics in CloudWatch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

from exporters.aws import Aws
from exporters.calls import CallError, Calls
from exporters.cloudwatch import Answer, Batch, Query, Series, Values, batches, plan
from exporters.readings import Key, Reading
from exporters.settings import Settings
from exporters.sources import Collected
from slo.metrics import Metric


@dataclass(frozen=True, slots=True)
class Place:
    """An account in a region, and who asks there."""

    aws: Aws
    calls: Calls
    region: str

    @property
    def labels(self) -> dict[str, str]:
        """The labels of everything that is found there."""
        return {"aws_account_id": self.aws.account.id, "aws_region": self.region}

    def now(self) -> float:
        """Unix time."""
        return self.calls.clock.now()

    def ask(self, api: str, **parameters: Any) -> dict[str, Any]:  # noqa: ANN401 - as boto3
        """As `Aws.ask`."""
        return self.aws.ask(self.calls, self.region, api, **parameters)

    def all(self, api: str, **parameters: Any) -> Iterator[Any]:  # noqa: ANN401 - as boto3
        """As `Aws.all`."""
        return self.aws.all(self.calls, self.region, api, **parameters)

    def tagged(self, service: str) -> Tagged:
        """The resources of a service that carry the tags of the settings."""
        return Tagged(self.aws.tagged(self.calls, self.region, service))

    def metric_data(self, batch: Batch) -> tuple[list[Answer | None], list[CallError]]:
        """As `Aws.metric_data`."""
        return self.aws.metric_data(self.calls, batch)


@dataclass(frozen=True, slots=True)
class Tagged:
    """Whether a resource carries the tags that were asked for; all do when none were."""

    arns: frozenset[str] | None

    def __contains__(self, arn: str) -> bool:
        return self.arns is None or arn in self.arns


@dataclass(frozen=True, slots=True)
class Found:
    """What a look for resources brought.

    Attributes:
        resources: Each by the values of labels.
        facts: Values that the look itself told.
        errors: What failed meanwhile and is not needed to go on.
    """

    resources: Sequence[Mapping[str, str]]
    facts: Sequence[tuple[Key, float]] = ()
    errors: Sequence[CallError] = ()


class Kind:
    """A kind of resource.

    Attributes:
        metrics: What is known of it.
        region: The only region that has it, where it is global.
    """

    metrics: Sequence[Metric] = ()
    region: str | None = None

    @classmethod
    def create(cls, settings: Settings) -> Self:
        """One that looks as the settings say."""
        del settings
        return cls()

    def find(self, place: Place) -> Found:
        """Look for resources.

        Raises:
            CallError: They cannot be found.
        """
        raise NotImplementedError

    def measure(self, place: Place, *, delay_seconds: float) -> Collected:
        """Ask in each cycle for what neither the look nor CloudWatch tells of the resources that were found.

        Args:
            place: Where.
            delay_seconds: How old a minute is before it is asked for.
        """
        del place, delay_seconds
        return Collected(())

    def derive(self, readings: Mapping[Key, Reading]) -> Iterable[Reading]:
        """Values that follow from others."""
        del readings
        return ()


class Resources:
    """A source: the resources of one kind in one place.

    Args:
        kind: Of which kind.
        place: Where.
        delay_seconds: How old a minute is before CloudWatch is asked for it.
        discovery_seconds: Time from one look for resources to the next.
    """

    def __init__(self, kind: Kind, place: Place, *, delay_seconds: float, discovery_seconds: float) -> None:
        self.metrics = kind.metrics
        self.series: tuple[Series, ...] = ()
        self._kind = kind
        self.place = place
        self._delay_seconds: Final = delay_seconds
        self._discovery_seconds: Final = discovery_seconds
        self._looked_at: float | None = None
        self._facts: tuple[Reading, ...] = ()
        self._values = Values()
        self._answered: dict[tuple[str, int], int] = {}

    def collect(self) -> Collected:
        """Look for resources when it is time, and ask CloudWatch for all that is due."""
        now = self.place.now()
        errors: list[CallError] = []
        if self._looked_at is None or now // self._discovery_seconds > self._looked_at // self._discovery_seconds:
            try:
                errors.extend(self.discover())
            except CallError as error:
                errors.append(error)
        if self._looked_at is not None:
            answers, failed = self._ask(now)
            errors.extend(failed)
            self._values.take(self.series, answers)
        measured = self._kind.measure(self.place, delay_seconds=self._delay_seconds)
        errors.extend(measured.errors)
        known = {reading.key: reading for reading in (*self._facts, *self._values, *measured.readings)}
        return Collected((*known.values(), *self._kind.derive(known)), errors)

    def discover(self) -> Sequence[CallError]:
        """Look for resources; returns what failed and is not needed.

        Raises:
            CallError: They cannot be found; what was found before stays.
        """
        now = self.place.now()
        found = self._kind.find(self.place)
        self._facts = tuple(Reading(key, value, now) for key, value in found.facts)
        self.series = plan(self.metrics, found.resources, self.place.region)
        self._values.keep(self.series)
        self._looked_at = now
        return found.errors

    def _ask(self, now: float) -> tuple[dict[Query, Answer], list[CallError]]:
        answers: dict[Query, Answer] = {}
        errors: list[CallError] = []
        ends: dict[tuple[str, int], int] = {}
        failed: set[tuple[str, int]] = set()
        for batch in batches(self.series, now, self._answered, delay_seconds=self._delay_seconds):
            group = (batch.region, batch.queries[0].period_seconds)
            ends[group] = batch.end
            try:
                told, faults = self.place.metric_data(batch)
            except CallError as error:
                errors.append(error)
                failed.add(group)
                continue
            answers |= {query: answer for query, answer in zip(batch.queries, told, strict=True) if answer}
            if faults:
                errors.extend(faults)
                failed.add(group)
        self._answered |= {group: end for group, end in ends.items() if group not in failed}
        return answers, errors
