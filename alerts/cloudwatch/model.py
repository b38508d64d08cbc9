"""CloudWatch alarms as values: each writes itself as an API request and as a CloudFormation resource.

Nothing here judges: `alerts.cloudwatch.validate` knows what AWS refuses.
Source: API_PutMetricAlarm.html and API_PutCompositeAlarm.html below
https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum
from types import MappingProxyType
from typing import Any, TypeAlias


class Comparison(StrEnum):
    """How a value stands to the threshold in ALARM."""

    ABOVE = "GreaterThanThreshold"
    AT_LEAST = "GreaterThanOrEqualToThreshold"
    BELOW = "LessThanThreshold"
    AT_MOST = "LessThanOrEqualToThreshold"


class Missing(StrEnum):
    """What a data point that is missing counts for."""

    MISSING = "missing"
    NOT_BREACHING = "notBreaching"
    BREACHING = "breaching"
    IGNORE = "ignore"


class State(StrEnum):
    """The states of an alarm."""

    OK = "OK"
    ALARM = "ALARM"
    INSUFFICIENT_DATA = "INSUFFICIENT_DATA"


# --- what a metric alarm reads --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricStat:
    """One metric, one statistic.

    Attributes:
        id: Name within the alarm's metric math; a small letter first.
        namespace: `AWS/RDS` say.
        name: The metric's name in it.
        dimensions: Dimension -> value.
        period_seconds: Length of one data point.
        statistic: `Sum`, `Average`, `p99`, `PR(:0.3)` ...
        returned: Whether this is the alarm's value.
    """

    id: str
    namespace: str
    name: str
    dimensions: Mapping[str, str] = field(default_factory=dict, hash=False)
    period_seconds: int
    statistic: str
    returned: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "dimensions", MappingProxyType(dict(self.dimensions)))

    def request(self) -> dict[str, Any]:
        """A `MetricDataQuery`, the same for the API and CloudFormation."""
        metric = {
            "Namespace": self.namespace,
            "MetricName": self.name,
            "Dimensions": [{"Name": name, "Value": value} for name, value in self.dimensions.items()],
        }
        return {
            "Id": self.id,
            "MetricStat": {"Metric": metric, "Period": self.period_seconds, "Stat": self.statistic},
            "ReturnData": self.returned,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Expression:
    """Metric math over the alarm's other queries.

    Attributes:
        id: As above.
        expression: https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/using-metric-math.html
        label: What its graph is called.
        returned: Whether this is the alarm's value.
    """

    id: str
    expression: str
    label: str = ""
    returned: bool = False

    def request(self) -> dict[str, Any]:
        """A `MetricDataQuery`, the same for the API and CloudFormation."""
        label = {"Label": self.label} if self.label else {}
        return {"Id": self.id, "Expression": self.expression, **label, "ReturnData": self.returned}


Query: TypeAlias = MetricStat | Expression


# --- what a composite alarm reads -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Is:
    """An alarm is in a state."""

    state: State
    alarm: str

    @property
    def text(self) -> str:
        """As in an `AlarmRule`."""
        return f"{self.state}({quoted(self.alarm)})"


@dataclass(frozen=True, slots=True)
class AllOf:
    """Every part holds."""

    parts: tuple[Rule, ...]

    @property
    def text(self) -> str:
        """As in an `AlarmRule`."""
        return _joined("AND", self.parts)


@dataclass(frozen=True, slots=True)
class AnyOf:
    """One part holds at least."""

    parts: tuple[Rule, ...]

    @property
    def text(self) -> str:
        """As in an `AlarmRule`."""
        return _joined("OR", self.parts)


@dataclass(frozen=True, slots=True)
class Not:
    """A part does not hold."""

    part: Rule

    @property
    def text(self) -> str:
        """As in an `AlarmRule`."""
        return f"NOT {_operand(self.part)}"


@dataclass(frozen=True, slots=True)
class AtLeast:
    """So many of the alarms are in a state."""

    count: int
    state: State
    alarms: tuple[str, ...]

    @property
    def text(self) -> str:
        """As in an `AlarmRule`."""
        return f"AT_LEAST({self.count}, {self.state}, ({', '.join(map(quoted, self.alarms))}))"


Rule: TypeAlias = Is | AllOf | AnyOf | Not | AtLeast


def quoted(alarm: str) -> str:
    """An alarm's name in a rule: quotes allow every character."""
    escaped = alarm.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _joined(word: str, parts: Sequence[Rule]) -> str:
    return f" {word} ".join(_operand(part) for part in parts)


def _operand(rule: Rule) -> str:
    """A part as it stands beside an operator: AND and OR are of no known precedence, so both are set in parentheses."""
    return f"({rule.text})" if isinstance(rule, AllOf | AnyOf) else rule.text


def children(rule: Rule) -> Iterator[str]:
    """Every alarm that a rule names, as often as it does."""
    match rule:
        case Is():
            yield rule.alarm
        case AtLeast():
            yield from rule.alarms
        case Not():
            yield from children(rule.part)
        case AllOf() | AnyOf():
            for part in rule.parts:
                yield from children(part)


# --- who is told ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Topic:
    """An SNS topic, in the alarm's own region.

    Attributes:
        name: Its name.
        region: Where it is.
        account: The account's 12 digits.
    """

    name: str
    region: str
    account: str

    @property
    def arn(self) -> str:
        """As the API wants it."""
        return f"arn:{partition(self.region)}:sns:{self.region}:{self.account}:{self.name}"

    @property
    def reference(self) -> dict[str, str]:
        """As CloudFormation wants it: the same template works in every account and partition."""
        return {"Fn::Sub": f"arn:${{AWS::Partition}}:sns:${{AWS::Region}}:${{AWS::AccountId}}:{self.name}"}


def partition(region: str) -> str:
    """The partition of a region (https://docs.aws.amazon.com/IAM/latest/UserGuide/reference-arns.html)."""
    if region.startswith("cn-"):
        return "aws-cn"
    return "aws-us-gov" if region.startswith("us-gov-") else "aws"


@dataclass(frozen=True, slots=True, kw_only=True)
class Suppressor:
    """An alarm that keeps another one's actions back while it is in ALARM; the other's state stays true.

    Attributes:
        alarm: The alarm that suppresses.
        wait_seconds: For how long the other one's actions wait for the suppressor to go into ALARM.
        extension_seconds: For how long they are kept back after it has left ALARM.
    """

    alarm: str
    wait_seconds: int
    extension_seconds: int


# --- alarms ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricAlarm:
    """An alarm on metrics.

    Attributes:
        name: Unique in its account and region.
        description: Markdown, shown in the console.
        queries: What it reads; one of them is returned.
        threshold: What the returned value is compared with.
        comparison: How.
        evaluation_periods: N of M out of N: how many data points are looked at.
        datapoints_to_alarm: M: how many of them must be beyond the threshold.
        treat_missing_data: What a missing one counts for.
        actions: Who is told that it goes into ALARM and back to OK; nobody when it serves a composite alarm only.
        tags: Key -> value.
        region: Where it is.
    """

    name: str
    description: str
    queries: tuple[Query, ...]
    threshold: Decimal
    comparison: Comparison = Comparison.ABOVE
    evaluation_periods: int = 1
    datapoints_to_alarm: int = 1
    treat_missing_data: Missing = Missing.NOT_BREACHING
    actions: tuple[Topic, ...] = ()
    tags: Mapping[str, str] = field(default_factory=dict, hash=False)
    region: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "tags", MappingProxyType(dict(self.tags)))

    @property
    def metrics(self) -> tuple[MetricStat, ...]:
        """The metrics that it reads, each of which is billed."""
        return tuple(query for query in self.queries if isinstance(query, MetricStat))

    def request(self) -> dict[str, Any]:
        """The keyword arguments of `put_metric_alarm`."""
        return {**self._properties(), "Threshold": float(self.threshold), **_told(self.actions, "arn")}

    def resource(self) -> dict[str, Any]:
        """An `AWS::CloudWatch::Alarm`."""
        properties = {**self._properties(), "Threshold": self.threshold, **_told(self.actions, "reference")}
        return {"Type": "AWS::CloudWatch::Alarm", "Properties": properties}

    def _properties(self) -> dict[str, Any]:
        return {
            "AlarmName": self.name,
            "AlarmDescription": self.description,
            "Metrics": [query.request() for query in self.queries],
            "ComparisonOperator": str(self.comparison),
            "EvaluationPeriods": self.evaluation_periods,
            "DatapointsToAlarm": self.datapoints_to_alarm,
            "TreatMissingData": str(self.treat_missing_data),
            "Tags": _tags(self.tags),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class CompositeAlarm:
    """An alarm on other alarms of its region.

    Attributes:
        name: Unique in its account and region.
        description: Markdown, shown in the console.
        rule: When it is in ALARM.
        suppressor: What keeps its actions back.
        actions: Who is told that it goes into ALARM and back to OK.
        tags: Key -> value.
        region: Where it is.
    """

    name: str
    description: str
    rule: Rule
    suppressor: Suppressor | None = None
    actions: tuple[Topic, ...] = ()
    tags: Mapping[str, str] = field(default_factory=dict, hash=False)
    region: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "tags", MappingProxyType(dict(self.tags)))

    @property
    def reads(self) -> tuple[str, ...]:
        """Every alarm that must be there before this one, each once: its children, then its suppressor."""
        suppressor = (self.suppressor.alarm,) if self.suppressor else ()
        return tuple(dict.fromkeys((*children(self.rule), *suppressor)))

    def request(self) -> dict[str, Any]:
        """The keyword arguments of `put_composite_alarm`."""
        return {**self._properties(), **_told(self.actions, "arn")}

    def resource(self) -> dict[str, Any]:
        """An `AWS::CloudWatch::CompositeAlarm`."""
        properties = {**self._properties(), **_told(self.actions, "reference")}
        return {"Type": "AWS::CloudWatch::CompositeAlarm", "Properties": properties}

    def _properties(self) -> dict[str, Any]:
        properties: dict[str, Any] = {
            "AlarmName": self.name,
            "AlarmDescription": self.description,
            "AlarmRule": self.rule.text,
        }
        if self.suppressor:
            properties["ActionsSuppressor"] = self.suppressor.alarm
            properties["ActionsSuppressorWaitPeriod"] = self.suppressor.wait_seconds
            properties["ActionsSuppressorExtensionPeriod"] = self.suppressor.extension_seconds
        return {**properties, "Tags": _tags(self.tags)}


Alarm: TypeAlias = MetricAlarm | CompositeAlarm


def _tags(tags: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"Key": key, "Value": value} for key, value in tags.items()]


def _told(topics: Sequence[Topic], form: str) -> dict[str, Any]:
    """Who is told; both ways, so that whoever was called learns that it is over."""
    if not topics:
        return {"ActionsEnabled": False}
    told = [getattr(topic, form) for topic in topics]
    return {"ActionsEnabled": True, "AlarmActions": told, "OKActions": list(told)}
