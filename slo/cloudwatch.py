"""Where CloudWatch finds what the SLOs speak of: `[tool.slo.cloudwatch]` in `pyproject.toml`.

::

    [tool.slo.cloudwatch]
    region = "eu-central-1"
    account = "123456789012"
    page_topic = "slo-page"
    ticket_topic = "slo-ticket"
    services = ["redemption"]        # or ids of single SLOs: our own processes publish their events

    [tool.slo.cloudwatch.dimensions] # a dimension of AWS -> its values, where needed by the value of a label of ours
    DBInstanceIdentifier = ["redemption"]
    QueueName.work = ["redemption-deferred"]
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

_PATTERNS = {
    "region": (r"[a-z]{2}(-[a-z]+)+-\d", "the code of a region, 'eu-central-1' say"),
    "account": (r"\d{12}", "an account's 12 digits, as text"),
    "prefix": (r"[A-Za-z0-9_./-]{0,40}", "at most 40 letters, digits, '_', '.', '/' or '-'"),
    # https://docs.aws.amazon.com/sns/latest/api/API_CreateTopic.html
    "page_topic": (r"[A-Za-z0-9_-]{1,256}", "the name of an SNS topic: letters, digits, '_' and '-'"),
    "ticket_topic": (r"[A-Za-z0-9_-]{1,256}", "the name of an SNS topic: letters, digits, '_' and '-'"),
}
_DEFAULTS = {"prefix": "slo-", "page_topic": "slo-page", "ticket_topic": "slo-ticket"}
_WHERE = "[tool.slo.cloudwatch]"


@dataclass(frozen=True, slots=True, kw_only=True)
class CloudWatchSettings:
    """`[tool.slo.cloudwatch]`.

    Attributes:
        region: Where the resources are, and so the alarms.
        account: The account's 12 digits.
        prefix: What every alarm's name begins with; keeps two stages in one account apart.
        page_topic: The SNS topic that wakes somebody.
        ticket_topic: The SNS topic for working hours.
        services: The services, or ids of single SLOs, whose events our own processes publish to CloudWatch.
        dimensions: A dimension of AWS -> the values that it has here; `QueueName.work` has those of the series whose
            label has the value `work`. Where a metric has several dimensions, all combinations of values are there.
    """

    region: str
    account: str
    prefix: str = _DEFAULTS["prefix"]
    page_topic: str = _DEFAULTS["page_topic"]
    ticket_topic: str = _DEFAULTS["ticket_topic"]
    services: tuple[str, ...] = ()
    dimensions: Mapping[str, tuple[str, ...]] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        dimensions = {name: tuple(values) for name, values in self.dimensions.items()}
        object.__setattr__(self, "services", tuple(self.services))
        object.__setattr__(self, "dimensions", MappingProxyType(dimensions))


def is_region(text: str) -> bool:
    """Whether it looks like the code of a region of AWS."""
    pattern, _ = _PATTERNS["region"]
    return re.fullmatch(pattern, text) is not None


def problems(table: object) -> Iterator[str]:
    """What is wrong with the table, one sentence each."""
    if not isinstance(table, dict):
        yield f"{_WHERE} must be a table, not {table!r}"
        return
    known = {*_PATTERNS, "services", "dimensions"}
    for key in sorted(set(table) - known):
        yield f"unknown key {key!r} in {_WHERE}; known are {', '.join(sorted(known))}"
    for key, (pattern, allowed) in _PATTERNS.items():
        value = table.get(key, _DEFAULTS.get(key))
        if not isinstance(value, str) or not re.fullmatch(pattern, value):
            yield f"{_WHERE} {key} must be {allowed}, not {value!r}"
    if not _is_texts(table.get("services", [])):
        yield f"{_WHERE} services must be a list of services' names, ['redemption'] say"
    yield from _problems_of_dimensions(table.get("dimensions", {}))


def _problems_of_dimensions(dimensions: object) -> Iterator[str]:
    where = "[tool.slo.cloudwatch.dimensions]"
    if not isinstance(dimensions, dict):
        yield f"{where} must be a table, not {dimensions!r}"
        return
    for name, values in _flat(dimensions):
        if not _is_texts(values) or not values or not all(values):
            yield f"{where} {name} must be a list of one or more values, ['redemption'] say, not {values!r}"
        elif len(set(values)) != len(values):
            yield f"{where} {name} has a value twice"


def _flat(dimensions: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, values in dimensions.items():
        if isinstance(values, dict):
            yield from ((f"{name}.{label_value}", of_label) for label_value, of_label in values.items())
        else:
            yield name, values


def _is_texts(values: object) -> bool:
    return isinstance(values, list) and all(isinstance(value, str) for value in values)


def parsed(table: Mapping[str, Any] | None) -> CloudWatchSettings | None:
    """The settings of a table without problems; None without a table, as then there are no alarms in CloudWatch."""
    if table is None:
        return None
    return CloudWatchSettings(**{**table, "dimensions": dict(_flat(table.get("dimensions", {})))})
