"""What AWS refuses of an alarm, found before anything is sent. cfn-lint sees only some of it.

Sources: PutMetricAlarm, PutCompositeAlarm and MetricDataQuery in the API reference of CloudWatch, and "CloudWatch
service quotas". The patterns are those of botocore's model of the API.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence

from alerts.cloudwatch.model import (
    Alarm,
    AllOf,
    AnyOf,
    AtLeast,
    CompositeAlarm,
    Expression,
    Is,
    MetricAlarm,
    MetricStat,
    Not,
    Rule,
    children,
)

NAME_LENGTH_MAX = 255
DESCRIPTION_LENGTH_MAX = 1024
ACTIONS_MAX = 5
TAGS_MAX, TAG_KEY_LENGTH_MAX, TAG_VALUE_LENGTH_MAX = 50, 128, 256
METRICS_MAX, EXPRESSIONS_MAX, EXPRESSION_LENGTH_MAX = 10, 10, 2048
DIMENSIONS_MAX, DIMENSION_VALUE_LENGTH_MAX = 30, 1024
RANGE_SECONDS_MAX, RANGE_OF_SHORT_PERIODS_SECONDS_MAX, SHORT_PERIOD_SECONDS = 604_800, 86_400, 3600
HIGH_RESOLUTION_PERIODS_SECONDS, MINUTE_SECONDS = (10, 20, 30), 60
RULE_LENGTH_MAX, RULE_ELEMENTS_MAX, RULE_CHILDREN_MAX, PARENTS_MAX = 10_240, 500, 100, 150

_ID = re.compile(r"[a-z][A-Za-z0-9_]*")
# Functions and operators have capital letters; a number is no identifier.
_REFERENCE = re.compile(r"(?<![A-Za-z0-9_.])[a-z][A-Za-z0-9_]*")
_NUMBER = r"\d+(\.\d{0,10})?"
_PERCENT = r"(\d{1,2}(\.\d{0,10})?|100(\.0{0,10})?)%"
_STATISTIC = re.compile(
    r"SampleCount|Average|Sum|Minimum|Maximum|IQM"
    r"|(p|tc|tm|ts|wm)(\d{1,2}(\.\d{0,10})?|100)"
    rf"|(TM|TC|TS|WM)\(({_PERCENT}:({_PERCENT})?|:{_PERCENT})\)"
    rf"|(TM|TC|TS|WM|PR)\(({_NUMBER}:({_NUMBER})?|:{_NUMBER})\)"
)
_STATISTIC_LENGTH_MAX = 50
_TAG = re.compile(r"[\w\s.:/=+@-]*")
_ASCII = re.compile(r"[\x20-\x7e]+")


def problems(alarms: Sequence[Alarm]) -> tuple[str, ...]:
    """Everything that AWS would refuse of these alarms, one sentence each; they are all that there is."""
    return tuple(_problems(alarms))


def _problems(alarms: Sequence[Alarm]) -> Iterator[str]:
    for (region, name), count in Counter((alarm.region, alarm.name) for alarm in alarms).items():
        if count > 1:
            yield f"{name}: {count} alarms of {region} have this name"
    for alarm in alarms:
        faults = _of_metrics(alarm) if isinstance(alarm, MetricAlarm) else _of_composite(alarm)
        yield from (f"{alarm.name or 'an alarm'}: {fault}" for fault in (*_of_any(alarm), *faults))
    for region in dict.fromkeys(alarm.region for alarm in alarms):
        yield from _between([alarm for alarm in alarms if alarm.region == region])


def _of_any(alarm: Alarm) -> Iterator[str]:
    if not 1 <= len(alarm.name) <= NAME_LENGTH_MAX:
        yield f"the name has {len(alarm.name)} characters; allowed are 1 to {NAME_LENGTH_MAX}"
    if not _ASCII.fullmatch(alarm.name or "-"):
        yield "the name has characters beyond ASCII, which no rule of another alarm can be sure to name"
    if len(alarm.description) > DESCRIPTION_LENGTH_MAX:
        yield f"the description has {len(alarm.description)} characters; at most {DESCRIPTION_LENGTH_MAX} are allowed"
    if len(alarm.actions) > ACTIONS_MAX:
        yield f"{len(alarm.actions)} actions; at most {ACTIONS_MAX} are allowed for a state"
    for topic in alarm.actions:
        if topic.region != alarm.region:
            yield f"the topic {topic.name} is in {topic.region}; an alarm of {alarm.region} cannot tell it"
    if len(alarm.tags) > TAGS_MAX:
        yield f"{len(alarm.tags)} tags; at most {TAGS_MAX} are allowed"
    for key, value in alarm.tags.items():
        lengths = 1 <= len(key) <= TAG_KEY_LENGTH_MAX and len(value) <= TAG_VALUE_LENGTH_MAX
        if not lengths or key.lower().startswith("aws:") or not _TAG.fullmatch(key) or not _TAG.fullmatch(value):
            yield (
                f"the tag {key!r}: {value!r} is not allowed; letters, digits, spaces and _.:/=+-@, a key of at most "
                f"{TAG_KEY_LENGTH_MAX} that does not begin with aws:, a value of at most {TAG_VALUE_LENGTH_MAX}"
            )


# --- metric alarms --------------------------------------------------------------------------------------------------


def _of_metrics(alarm: MetricAlarm) -> Iterator[str]:
    returned = [query.id for query in alarm.queries if query.returned]
    if len(returned) != 1:
        yield f"{len(returned)} queries are returned ({', '.join(returned) or 'none'}); it must be exactly one"
    expressions = [query for query in alarm.queries if isinstance(query, Expression)]
    if not 1 <= len(alarm.metrics) <= METRICS_MAX:
        yield f"{len(alarm.metrics)} metrics; 1 to {METRICS_MAX} are allowed"
    if len(expressions) > EXPRESSIONS_MAX:
        yield f"{len(expressions)} expressions; at most {EXPRESSIONS_MAX} are allowed"
    for name, count in Counter(query.id for query in alarm.queries).items():
        if count > 1:
            yield f"{count} queries are called {name!r}"
        if not _ID.fullmatch(name) or len(name) > NAME_LENGTH_MAX:
            yield f"a query is called {name!r}; allowed are letters, digits and _, a small letter first"
    for metric in alarm.metrics:
        yield from (f"{metric.id}: {fault}" for fault in _of_metric(metric))
    yield from _of_expressions(alarm, expressions)
    yield from _of_range(alarm)
    if not alarm.threshold.is_finite():
        yield f"the threshold is {alarm.threshold}"


def _of_metric(metric: MetricStat) -> Iterator[str]:
    if not 1 <= len(metric.namespace) <= NAME_LENGTH_MAX or metric.namespace.startswith(":"):
        yield f"the namespace {metric.namespace!r} must have 1 to {NAME_LENGTH_MAX} characters and begin with no colon"
    if not 1 <= len(metric.name) <= NAME_LENGTH_MAX:
        yield f"the metric's name {metric.name!r} must have 1 to {NAME_LENGTH_MAX} characters"
    if len(metric.dimensions) > DIMENSIONS_MAX:
        yield f"{len(metric.dimensions)} dimensions; at most {DIMENSIONS_MAX} are allowed"
    for name, value in metric.dimensions.items():
        lengths = 1 <= len(name) <= NAME_LENGTH_MAX and 1 <= len(value) <= DIMENSION_VALUE_LENGTH_MAX
        if not lengths or not _ASCII.fullmatch(name + value) or name.startswith(":"):
            yield f"the dimension {name!r}: {value!r} is not allowed; ASCII, and neither may be empty"
    seconds = metric.period_seconds
    if seconds not in HIGH_RESOLUTION_PERIODS_SECONDS and (seconds < MINUTE_SECONDS or seconds % MINUTE_SECONDS):
        yield f"a period of {seconds} s is not allowed; 10, 20, 30 or a multiple of 60"
    if len(metric.statistic) > _STATISTIC_LENGTH_MAX or not _STATISTIC.fullmatch(metric.statistic):
        yield f"{metric.statistic!r} is no statistic; Sum, p99 or PR(:0.3) are"


def _of_expressions(alarm: MetricAlarm, expressions: Sequence[Expression]) -> Iterator[str]:
    known = {query.id for query in alarm.queries}
    reads = {expression.id: set(_REFERENCE.findall(expression.expression)) for expression in expressions}
    for expression in expressions:
        length = len(expression.expression)
        if not 1 <= length <= EXPRESSION_LENGTH_MAX:
            yield f"{expression.id}: an expression of {length} characters; allowed are 1 to {EXPRESSION_LENGTH_MAX}"
        if "SEARCH" in expression.expression:
            yield f"{expression.id}: an alarm may not SEARCH"
        if expression.expression.count("(") != expression.expression.count(")"):
            yield f"{expression.id}: a parenthesis has no partner"
        for unknown in sorted(reads[expression.id] - known):
            yield f"{expression.id} reads {unknown!r}, which is no query of this alarm"
    for circle in _circles(reads):
        yield f"the expressions {' -> '.join(circle)} read each other"


def _of_range(alarm: MetricAlarm) -> Iterator[str]:
    periods = sorted({metric.period_seconds for metric in alarm.metrics})
    if len(periods) > 1:
        yield f"its metrics have the periods {periods} s; one alarm has one period"
    if alarm.evaluation_periods < 1 or not 1 <= alarm.datapoints_to_alarm <= alarm.evaluation_periods:
        yield (
            f"{alarm.datapoints_to_alarm} of {alarm.evaluation_periods} data points can never be; "
            "M of N needs 1 <= M <= N"
        )
    for seconds in periods:
        total = seconds * alarm.evaluation_periods
        allowed = RANGE_OF_SHORT_PERIODS_SECONDS_MAX if seconds < SHORT_PERIOD_SECONDS else RANGE_SECONDS_MAX
        if total > allowed:
            yield f"{alarm.evaluation_periods} periods of {seconds} s look back for {total} s; {allowed} s are allowed"


# --- composite alarms -----------------------------------------------------------------------------------------------


def _of_composite(alarm: CompositeAlarm) -> Iterator[str]:
    text, named = alarm.rule.text, list(children(alarm.rule))
    if len(text) > RULE_LENGTH_MAX:
        yield f"the rule has {len(text)} characters; at most {RULE_LENGTH_MAX} are allowed"
    if (elements := _elements(alarm.rule)) > RULE_ELEMENTS_MAX:
        yield f"the rule has {elements} elements; at most {RULE_ELEMENTS_MAX} are allowed"
    if not 1 <= len(set(named)) <= RULE_CHILDREN_MAX:
        yield f"the rule names {len(set(named))} alarms; 1 to {RULE_CHILDREN_MAX} are allowed"
    yield from _of_rule(alarm.rule)
    if alarm.suppressor:
        waits = (alarm.suppressor.wait_seconds, alarm.suppressor.extension_seconds)
        if min(waits) < 0:
            yield f"the suppressor's periods of {waits[0]} s and {waits[1]} s may not be below 0"
        if alarm.suppressor.alarm == alarm.name:
            yield "it suppresses itself"


def _of_rule(rule: Rule) -> Iterator[str]:
    match rule:
        case AtLeast() if not 1 <= rule.count <= len(set(rule.alarms)):
            yield f"at least {rule.count} of {len(set(rule.alarms))} alarms can never be, or always is"
        case AllOf() | AnyOf():
            if not rule.parts:
                yield "a part of the rule is empty"
            for part in rule.parts:
                yield from _of_rule(part)
        case Not():
            yield from _of_rule(rule.part)


def _elements(rule: Rule) -> int:
    """As AWS counts: alarms and parentheses."""
    match rule:
        case Is():
            return 1
        case AtLeast():
            return len(rule.alarms) + 1
        case Not():
            return _elements(rule.part) + isinstance(rule.part, AllOf | AnyOf)
        case AllOf() | AnyOf():
            return sum(_elements(part) + isinstance(part, AllOf | AnyOf) for part in rule.parts)


# --- between alarms -------------------------------------------------------------------------------------------------


def _between(alarms: Sequence[Alarm]) -> Iterator[str]:
    """What the alarms of one region are to each other."""
    known = {alarm.name for alarm in alarms}
    composites = [alarm for alarm in alarms if isinstance(alarm, CompositeAlarm)]
    parents: defaultdict[str, set[str]] = defaultdict(set)
    for composite in composites:
        for name in composite.reads:
            if name not in known:
                yield f"{composite.name}: reads {name}, which is no alarm of {composite.region}"
        for name in set(children(composite.rule)):
            parents[name].add(composite.name)
    for name, of in parents.items():
        if len(of) > PARENTS_MAX:
            yield f"{name}: {len(of)} composite alarms read it; at most {PARENTS_MAX} may"
    for circle in _circles({composite.name: set(composite.reads) for composite in composites}):
        yield f"the composite alarms {' -> '.join(circle)} read each other"


def _circles(reads: Mapping[str, set[str]]) -> Iterator[list[str]]:
    """One way around each circle that is met."""
    done: set[str] = set()
    for start in reads:
        way: list[str] = []
        stack: list[tuple[str, Iterator[str]]] = []
        if start not in done:
            way.append(start)
            stack.append((start, iter(sorted(reads[start]))))
        while stack:
            name, ahead = stack[-1]
            following = next((other for other in ahead if other in reads and other not in done), None)
            if following is None:
                done.add(name)
                way.pop()
                stack.pop()
            elif following in way:
                yield [*way[way.index(following) :], following]
            else:
                way.append(following)
                stack.append((following, iter(sorted(reads[following]))))
