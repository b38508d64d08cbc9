"""What is deployed in CloudWatch against what is generated, field by field; pure.

An alarm is ours when it has our tag. What has not is never changed and never deleted, whatever its name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from graphlib import CycleError, TopologicalSorter
from types import MappingProxyType
from typing import Any

from alerts.cloudwatch.burn import MANAGED_BY
from alerts.cloudwatch.model import Alarm, CompositeAlarm
from slo.conventions import number

# What DescribeAlarms tells of an alarm beside its definition: how it is, and who it is.
_TOLD = frozenset(
    {
        "AlarmName",
        "AlarmArn",
        "AlarmConfigurationUpdatedTimestamp",
        "StateValue",
        "StateReason",
        "StateReasonData",
        "StateUpdatedTimestamp",
        "StateTransitionedTimestamp",
        "EvaluationState",
        "ActionsSuppressedBy",
        "ActionsSuppressedReason",
        "Tags",  # compared by themselves
    }
)
# What AWS takes when nothing is said:
# https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_PutMetricAlarm.html
_DEFAULTS = {"ActionsEnabled": True, "TreatMissingData": "missing", "EvaluateLowSampleCountPercentile": "evaluate"}
_DEFAULTS_COMPOSITE = {"ActionsEnabled": True}
_KEYS = ("Id", "Name")  # what tells the members of a list apart: queries, dimensions
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"')


class Kind(StrEnum):
    """What is not as it should be."""

    MISSING = "missing"
    CHANGED = "changed"
    EXTRA = "extra"  # ours, and generated no more
    FOREIGN = "foreign"  # somebody else's, under a name that we generate


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployed:
    """An alarm as it is.

    Attributes:
        region: Where.
        told: What DescribeAlarms tells of it.
        tags: Key -> value.
    """

    region: str
    told: Mapping[str, Any] = field(hash=False)
    tags: Mapping[str, str] = field(hash=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "told", MappingProxyType(dict(self.told)))
        object.__setattr__(self, "tags", MappingProxyType(dict(self.tags)))

    @property
    def name(self) -> str:
        """Its name."""
        return str(self.told["AlarmName"])

    @property
    def arn(self) -> str:
        """What tags are set by."""
        return str(self.told["AlarmArn"])

    @property
    def is_composite(self) -> bool:
        """Whether it is on other alarms."""
        return bool(self.told.get("AlarmRule"))

    @property
    def is_ours(self) -> bool:
        """Whether it has our tag."""
        return MANAGED_BY.items() <= self.tags.items()

    @property
    def reads(self) -> frozenset[str]:
        """The alarms that it names: they cannot go before it."""
        text = f"{self.told.get('AlarmRule', '')} {_named(self.told.get('ActionsSuppressor') or '')}"
        return frozenset(re.sub(r"\\(.)", r"\1", name) for name in _QUOTED.findall(text))


@dataclass(frozen=True, slots=True)
class Difference:
    """A field that is not as generated.

    Attributes:
        field: `Metrics.burn.Expression` say; `Tags.owner` of tags.
        generated: As it should be; None for not at all.
        deployed: As it is.
    """

    field: str
    generated: str | None
    deployed: str | None

    @property
    def is_tag(self) -> bool:
        """Whether TagResource mends it; all else is put."""
        return self.field.startswith("Tags.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """An alarm that is not as it should be.

    Attributes:
        kind: In which way.
        region: Where.
        name: Its name.
        alarm: As it should be; None for an extra one.
        deployed: As it is; None for a missing one.
        differences: What is changed.
    """

    kind: Kind
    region: str
    name: str
    alarm: Alarm | None = None
    deployed: Deployed | None = None
    differences: tuple[Difference, ...] = ()


def compare(wanted: Sequence[Alarm], deployed: Sequence[Deployed]) -> tuple[Finding, ...]:
    """All that is not as it should be, in the order of the wanted ones; then what is extra, readers first."""
    there = {(one.region, one.name): one for one in deployed}
    found = []
    for alarm in wanted:
        one = there.pop((alarm.region, alarm.name), None)
        if one is None:
            found.append(Finding(kind=Kind.MISSING, region=alarm.region, name=alarm.name, alarm=alarm))
            continue
        is_other = not one.is_ours or one.is_composite != isinstance(alarm, CompositeAlarm)
        differences = () if is_other else tuple(_differences(alarm, one))
        if is_other or differences:
            kind = Kind.FOREIGN if is_other else Kind.CHANGED
            found.append(
                Finding(
                    kind=kind,
                    region=alarm.region,
                    name=alarm.name,
                    alarm=alarm,
                    deployed=one,
                    differences=differences,
                )
            )
    extra = [one for one in there.values() if one.is_ours]
    return (
        *found,
        *(Finding(kind=Kind.EXTRA, region=o.region, name=o.name, deployed=o) for o in _readers_first(extra)),
    )


def _readers_first(alarms: Sequence[Deployed]) -> list[Deployed]:
    by_key = {(one.region, one.name): one for one in alarms}
    readers: dict[tuple[str, str], set[tuple[str, str]]] = {key: set() for key in sorted(by_key)}
    for key, one in by_key.items():
        for name in one.reads:
            if (one.region, name) in readers:
                readers[one.region, name].add(key)
    try:
        order = list(TopologicalSorter(readers).static_order())
    except CycleError:  # whoever made it by hand hears from AWS
        order = list(readers)
    return [by_key[key] for key in order]


def _differences(alarm: Alarm, deployed: Deployed) -> Iterator[Difference]:
    generated, told = (dict(_normal(fields)) for fields in (alarm.request(), deployed.told))
    generated |= {f"Tags.{key}": value for key, value in alarm.tags.items()}
    # Others may add tags of theirs, for the bill say.
    told |= {f"Tags.{key}": value for key, value in deployed.tags.items() if key in alarm.tags}
    for name in sorted(generated.keys() | told.keys()):
        if generated.get(name) != told.get(name):
            yield Difference(name, generated.get(name), told.get(name))


def _normal(fields: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Every field that says something, by its path; what is said by default stands there as well."""
    given = {name: value for name, value in fields.items() if name not in _TOLD and not _says_nothing(value)}
    if "AlarmRule" in given:
        given = {**_DEFAULTS_COMPOSITE, **given}
        if "ActionsSuppressor" in given:
            given["ActionsSuppressor"] = _named(given["ActionsSuppressor"])
    else:
        given = {**_DEFAULTS, "DatapointsToAlarm": given.get("EvaluationPeriods"), **given}
        if "Metrics" in given:
            given["Metrics"] = [{"ReturnData": True, **query} for query in given["Metrics"]]
    yield from _flat("", given)


def _flat(path: str, value: Any) -> Iterator[tuple[str, str]]:  # noqa: ANN401 - any JSON
    if _says_nothing(value):
        return
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _flat(f"{path}.{name}".removeprefix("."), inner)
    elif isinstance(value, Sequence) and not isinstance(value, str):
        keyed = next((key for key in _KEYS if all(isinstance(each, Mapping) and key in each for each in value)), None)
        if keyed is None:
            yield path, ", ".join(sorted(map(str, value)))
        else:
            for each in value:
                yield from _flat(f"{path}.{each[keyed]}", {name: v for name, v in each.items() if name != keyed})
    else:
        yield path, _text(value)


def _says_nothing(value: object) -> bool:
    return value is None or (isinstance(value, str | Sequence | Mapping) and not value)


def _text(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return number(value) if isinstance(value, int | float) else str(value)


def _named(alarm: str) -> str:
    """The name of an alarm that may be told as an ARN, in quotes for `Deployed.reads`."""
    return f'"{alarm.partition(":alarm:")[2] or alarm}"' if alarm else ""
