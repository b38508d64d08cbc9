"""CloudWatch's evaluation of alarms, minute by minute, as AWS documents it.

Where the documents leave something open, the simulation can be run both ways: `fill_makes_points`. Time is in minutes
from midnight; data is known at once, where AWS takes a minute or two.

Sources: Amazon CloudWatch User Guide, "Alarm evaluation", "Configuring how CloudWatch alarms treat missing data",
"Using metric math" and "Alarm suppression".
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from types import CodeType
from typing import Any, TypeAlias

from alerts.cloudwatch.model import (
    Alarm,
    AllOf,
    AnyOf,
    AtLeast,
    Comparison,
    CompositeAlarm,
    Is,
    MetricAlarm,
    MetricStat,
    Missing,
    Not,
    Rule,
    State,
)

DAY_MINUTES = 1440
_MULTI_DAY_BEYOND_SECONDS = 86_400
_MULTI_DAY_MINUTE = 3  # AWS's example: what begins at 10:02 is found at 11:03, with data up to 11:00
_LOOKED_BACK = 2  # more data points than N are looked at; AWS's tables show five for N = 3

Value: TypeAlias = float | None
Samples: TypeAlias = Mapping[float, int]
"""Value -> how often it was published."""
Key: TypeAlias = tuple[str, str, frozenset[tuple[str, str]]]

NOTHING: Samples = {}


# --- data -----------------------------------------------------------------------------------------------------------


class Recorded:
    """What was published of one metric, each minute."""

    def __init__(self, minutes: Iterable[Samples]) -> None:
        self.minutes = list(minutes)
        self._counts = self._summed(lambda _: 1)
        self._sums = self._summed(lambda value: value)
        self._ranks: dict[str, list[float]] = {}

    def _summed(self, weight: Callable[[float], float]) -> list[float]:
        totals = (sum(weight(value) * count for value, count in minute.items()) for minute in self.minutes)
        return list(accumulate(totals, initial=0.0))

    def statistic(self, name: str, begin: int, end: int) -> Value:
        """A statistic over the minutes from `begin` up to `end`; None without any sample."""
        begin, end = max(begin, 0), min(max(end, 0), len(self.minutes))
        count = self._counts[end] - self._counts[begin] if end > begin else 0
        if not count:
            return None
        plain: Mapping[str, Callable[[], float]] = {
            "SampleCount": lambda: count,
            "Sum": lambda: self._sums[end] - self._sums[begin],
            "Average": lambda: (self._sums[end] - self._sums[begin]) / count,
            "Maximum": lambda: max(value for minute in self.minutes[begin:end] for value in minute),
            "Minimum": lambda: min(value for minute in self.minutes[begin:end] for value in minute),
        }
        if name in plain:
            return plain[name]()
        rank = re.fullmatch(r"PR\(:([\d.]+)\)", name)
        assert rank, f"the simulator does not know the statistic {name}"
        limit = float(rank[1])
        within = self._ranks.setdefault(name, self._summed(lambda value: value <= limit))
        return 100 * (within[end] - within[begin]) / count


def key(metric: MetricStat) -> Key:
    """What tells a metric from others."""
    return metric.namespace, metric.name, frozenset(metric.dimensions.items())


def counts(values: Iterable[float | None]) -> Recorded:
    """One number published each minute; None for nothing."""
    return Recorded(NOTHING if value is None else {value: 1} for value in values)


# --- metric math ----------------------------------------------------------------------------------------------------

GONE = float("nan")
"""A metric without any point in all that is looked at, where `FILL` may have nothing to fill."""


def _there(value: Value) -> Value:
    return None if value is None or value != value else value  # noqa: PLR0124 - GONE is not even itself


def _arithmetic(operation: Callable[[float, float], float], *, series: bool) -> Callable[[Value, Value], Value]:
    """Of two series the one that is missing is 0; a series beside a number is missing as it is. No point for x / 0."""

    def applied(left: Value, right: Value) -> Value:
        left, right = _there(left), _there(right)
        if (left is None and right is None) or (not series and (left is None or right is None)):
            return None
        try:
            return operation(left or 0.0, right or 0.0)
        except ZeroDivisionError:
            return None

    return applied


def _compared(operation: Callable[[float, float], bool]) -> Callable[[Value, Value], bool | None]:
    def applied(left: Value, right: Value) -> bool | None:
        left, right = _there(left), _there(right)
        return None if left is None or right is None else operation(left, right)

    return applied


def _if(condition: bool | None, then: Value, otherwise: Value) -> Value:  # noqa: FBT001 - as in metric math
    return None if condition is None else then if condition else otherwise


def _fill(value: Value, filler: float) -> Value:
    if value is None:
        return filler
    return None if value != value else value  # noqa: PLR0124 - as above


def _extreme(function: Callable[[Iterable[float]], float]) -> Callable[[Sequence[Value]], Value]:
    def applied(values: Sequence[Value]) -> Value:
        present = [value for value in map(_there, values) if value is not None]
        return function(present) if present else None

    return applied


_ARITHMETIC: Mapping[type[ast.AST], tuple[str, Callable[[float, float], float]]] = {
    ast.Add: ("_add", lambda a, b: a + b),
    ast.Sub: ("_subtract", lambda a, b: a - b),
    ast.Mult: ("_multiply", lambda a, b: a * b),
    ast.Div: ("_divide", lambda a, b: a / b),
}
_COMPARISONS: Mapping[type[ast.AST], str] = {ast.Gt: "_above", ast.Lt: "_below"}
_FUNCTIONS: Mapping[str, Any] = {
    "__builtins__": {},
    **{name: _arithmetic(operation, series=True) for name, operation in _ARITHMETIC.values()},
    **{f"{name}_number": _arithmetic(operation, series=False) for name, operation in _ARITHMETIC.values()},
    "_above": _compared(lambda a, b: a > b),
    "_below": _compared(lambda a, b: a < b),
    "IF": _if,
    "FILL": _fill,
    "MAX": _extreme(max),
    "MIN": _extreme(min),
}


class _WithMissing(ast.NodeTransformer):
    """Arithmetic and comparisons as calls that know of missing values."""

    def visit_BinOp(self, node: ast.BinOp) -> ast.AST:
        self.generic_visit(node)
        name, _ = _ARITHMETIC[type(node.op)]
        beside_number = isinstance(node.left, ast.Constant) or isinstance(node.right, ast.Constant)
        return _call(f"{name}_number" if beside_number else name, node.left, node.right)

    def visit_Compare(self, node: ast.Compare) -> ast.AST:
        self.generic_visit(node)
        return _call(_COMPARISONS[type(node.ops[0])], node.left, node.comparators[0])


def _call(name: str, left: ast.expr, right: ast.expr) -> ast.AST:
    return ast.Call(func=ast.Name(id=name, ctx=ast.Load()), args=[left, right], keywords=[])


def compiled(expression: str) -> CodeType:
    """Metric math as Python: arithmetic, comparisons, AND, IF, FILL, MAX and MIN, which is all that we use."""
    python = re.sub(r"\bAND\b", "and", expression)
    tree = _WithMissing().visit(ast.parse(python, mode="eval"))
    return compile(ast.fix_missing_locations(tree), expression, "eval")


def evaluate(code: CodeType, values: Mapping[str, Value]) -> Value:
    """The value of an expression at one data point."""
    found: Value = eval(code, {**_FUNCTIONS, **values})  # noqa: S307 - our own generated text
    return found


# --- metric alarms --------------------------------------------------------------------------------------------------


def state_of(alarm: MetricAlarm, points: Sequence[Value], before: State) -> State:
    """The state by the data points that are looked at, newest first: N of them, and some more for those that miss.

    Of "Configuring how CloudWatch alarms treat missing data": while there are N real points, none is filled in.
    """
    n, m = alarm.evaluation_periods, alarm.datapoints_to_alarm
    real = [_beyond(alarm, value) for value in points if value is not None][:n]
    breaching, missing = sum(real), n - len(real)
    if missing and alarm.treat_missing_data is Missing.BREACHING:
        breaching += missing
    if breaching >= m:
        return State.ALARM
    if not missing or not all(real) or alarm.treat_missing_data is Missing.NOT_BREACHING:
        return State.OK
    if alarm.treat_missing_data is Missing.BREACHING:
        return State.OK
    if alarm.treat_missing_data is Missing.IGNORE:
        return before
    # What is there breaches, and the newer points are missing: the alarm does not wait for them.
    return State.ALARM if real else State.INSUFFICIENT_DATA


def _beyond(alarm: MetricAlarm, value: float) -> bool:
    threshold = float(alarm.threshold)
    return value > threshold if alarm.comparison is Comparison.ABOVE else value < threshold


@dataclass
class _Watched:
    """A metric alarm at work."""

    alarm: MetricAlarm
    metrics: Mapping[Key, Recorded]
    fill_makes_points: bool
    state: State = State.INSUFFICIENT_DATA
    points: dict[int, Value] = field(default_factory=dict)

    def __post_init__(self) -> None:
        (self.period,) = {metric.period_seconds // 60 for metric in self.alarm.metrics}
        self.seen = self.alarm.evaluation_periods + _LOOKED_BACK
        self.multi_day = self.period * 60 * self.alarm.evaluation_periods > _MULTI_DAY_BEYOND_SECONDS
        self.expressions = [
            (query.id, compiled(query.expression)) for query in self.alarm.queries if not isinstance(query, MetricStat)
        ]
        (self.returned,) = (query.id for query in self.alarm.queries if query.returned)

    def step(self, now: int) -> None:
        """Evaluate with the data up to `now`; an alarm on more than a day does so once an hour."""
        if self.multi_day:
            if now % 60 != _MULTI_DAY_MINUTE:
                return
            now -= _MULTI_DAY_MINUTE
        ends = [now - index * self.period for index in range(self.seen)]
        self.state = state_of(self.alarm, [self._point(end, now) for end in ends], self.state)

    def _point(self, end: int, now: int) -> Value:
        if end not in self.points:
            values: dict[str, Value] = {m.id: self._read(m, end - self.period, end) for m in self.alarm.metrics}
            if not self.fill_makes_points:
                begin = now - self.seen * self.period
                gone = [m.id for m in self.alarm.metrics if self._read(m, begin, now, "SampleCount") is None]
                values |= dict.fromkeys(gone, GONE)
            for name, code in self.expressions:
                values[name] = evaluate(code, values)
            self.points[end] = _there(values[self.returned])
        return self.points[end]

    def _read(self, metric: MetricStat, begin: int, end: int, statistic: str | None = None) -> Value:
        recorded = self.metrics.get(key(metric))
        return recorded.statistic(statistic or metric.statistic, begin, end) if recorded else None


# --- composite alarms -----------------------------------------------------------------------------------------------


def holds(rule: Rule, states: Mapping[str, State]) -> bool:
    """Whether a composite's rule is true."""
    match rule:
        case Is():
            return states[rule.alarm] is rule.state
        case AtLeast():
            return sum(states[name] is rule.state for name in rule.alarms) >= rule.count
        case Not():
            return not holds(rule.part, states)
        case AllOf():
            return all(holds(part, states) for part in rule.parts)
        case AnyOf():
            return any(holds(part, states) for part in rule.parts)


@dataclass
class _Composed:
    """A composite alarm at work.

    Attributes:
        until: In ALARM and not yet told: told from this minute on, unless the suppressor is in ALARM.
    """

    alarm: CompositeAlarm
    state: State = State.INSUFFICIENT_DATA
    until: int | None = None

    def step(self, now: int, states: Mapping[str, State]) -> bool:
        """Evaluate; whether its actions are executed now for going into ALARM."""
        was, self.state = self.state, State.ALARM if holds(self.alarm.rule, states) else State.OK
        if self.state is not State.ALARM:
            self.until = None
            return False
        suppressor = self.alarm.suppressor
        if was is not State.ALARM:
            self.until = now + (suppressor.wait_seconds // 60 if suppressor else 0)
        if self.until is None:
            return False
        if suppressor and states[suppressor.alarm] is State.ALARM:
            self.until = now + suppressor.extension_seconds // 60
            return False
        if now < self.until:
            return False
        self.until = None
        return True


# --- all of them ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Event:
    """Something that an alarm did.

    Attributes:
        minute: When.
        alarm: Its name.
        what: The new state, or `told`.
    """

    minute: int
    alarm: str
    what: str


def run(
    alarms: Sequence[Alarm],
    metrics: Mapping[Key, Recorded],
    minutes: range,
    *,
    fill_makes_points: bool = True,
) -> list[Event]:
    """Evaluate all alarms each minute; data of a minute is there when it has ended.

    Args:
        alarms: Children first.
        metrics: What was published.
        minutes: When to evaluate.
        fill_makes_points: Whether `FILL` gives points for a metric without any in all that is looked at.
    """
    watched = [_Watched(alarm, metrics, fill_makes_points) for alarm in alarms if isinstance(alarm, MetricAlarm)]
    composed = [_Composed(alarm) for alarm in alarms if isinstance(alarm, CompositeAlarm)]
    states = dict.fromkeys((alarm.name for alarm in alarms), State.INSUFFICIENT_DATA)
    events: list[Event] = []

    def changed(name: str, state: State, now: int) -> bool:
        if states[name] is state:
            return False
        states[name] = state
        events.append(Event(now, name, str(state)))
        return True

    for now in minutes:
        for one in watched:
            one.step(now)
            into = changed(one.alarm.name, one.state, now) and one.state is State.ALARM
            if into and one.alarm.actions:
                events.append(Event(now, one.alarm.name, "told"))
        for composite in composed:
            told = composite.step(now, states)
            changed(composite.alarm.name, composite.state, now)
            if told and composite.alarm.actions:
                events.append(Event(now, composite.alarm.name, "told"))
    return events


def first(events: Iterable[Event], alarm: str, what: str) -> int | None:
    """When an alarm did something for the first time; None for never."""
    return next((event.minute for event in events if event.alarm == alarm and event.what == what), None)
