"""What AWS would refuse is found before anything is sent, each fault in a sentence of its own."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

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
    State,
    Suppressor,
    Topic,
)
from alerts.cloudwatch.validate import problems
from tests.alerts.cloudwatch.examples import (
    disk_latency,
    edge_errors,
    edge_latency,
    planned,
    promise,
    queue_age,
    reachable,
)

REGION = "eu-central-1"
TOPIC = Topic(name="t", region=REGION, account="123456789012")


def stat(**changes: Any) -> MetricStat:  # noqa: ANN401 - any field of any type
    """A metric that is returned."""
    values: dict[str, Any] = {
        "id": "m1",
        "namespace": "N",
        "name": "M",
        "period_seconds": 60,
        "statistic": "Sum",
        "returned": True,
        **changes,
    }
    return MetricStat(**values)


def metric(**changes: Any) -> MetricAlarm:  # noqa: ANN401 - as above
    """An alarm without fault, but for the changes."""
    values: dict[str, Any] = {
        "name": "a",
        "description": "",
        "queries": (stat(),),
        "threshold": Decimal(1),
        "region": REGION,
        **changes,
    }
    return MetricAlarm(**values)


def composite(**changes: Any) -> CompositeAlarm:  # noqa: ANN401 - as above
    """A composite of `a` without fault, but for the changes."""
    values: dict[str, Any] = {
        "name": "c",
        "description": "",
        "rule": Is(State.ALARM, "a"),
        "region": REGION,
        **changes,
    }
    return CompositeAlarm(**values)


def by(alarm: str, wait_seconds: int = 60) -> Suppressor:
    """Suppressed by an alarm."""
    return Suppressor(alarm=alarm, wait_seconds=wait_seconds, extension_seconds=60)


def math(expression: str, *more: Expression) -> tuple[MetricStat | Expression, ...]:
    """A metric, and an expression that is returned."""
    return (stat(returned=False), *more, Expression(id="e", expression=expression, returned=True))


MANY = tuple(f"x{number}" for number in range(501))


@pytest.mark.parametrize(
    ("alarm", "fault"),
    [
        (metric(name=""), "the name has 0 characters"),
        (metric(name="n" * 256), "the name has 256 characters; allowed are 1 to 255"),
        (metric(name="größer"), "beyond ASCII"),
        (metric(description="d" * 1025), "the description has 1025 characters; at most 1024"),
        (metric(actions=(TOPIC,) * 6), "6 actions; at most 5"),
        (metric(actions=(replace(TOPIC, region="us-east-1"),)), "the topic t is in us-east-1"),
        (metric(tags={f"k{number}": "v" for number in range(51)}), "51 tags; at most 50"),
        (metric(tags={"aws:k": "v"}), "the tag 'aws:k': 'v' is not allowed"),
        (metric(tags={"k": "a*b"}), "the tag 'k': 'a*b' is not allowed"),
        (metric(tags={"k": "v" * 257}), "a value of at most 256"),
        (metric(queries=(stat(returned=False),)), "0 queries are returned (none); it must be exactly one"),
        (metric(queries=(stat(), stat(id="m2"))), "2 queries are returned (m1, m2)"),
        (
            metric(queries=(*(stat(id=f"m{n}", returned=False) for n in range(10)), stat(id="m10"))),
            "11 metrics; 1 to 10 are allowed",
        ),
        (metric(queries=(Expression(id="e", expression="1 + 1", returned=True),)), "0 metrics; 1 to 10"),
        (
            metric(queries=math("m1", *(Expression(id=f"e{n}", expression="m1") for n in range(10)))),
            "11 expressions; at most 10",
        ),
        (metric(queries=(stat(), stat(returned=False))), "2 queries are called 'm1'"),
        (metric(queries=(stat(id="M1"),)), "a query is called 'M1'"),
        (metric(queries=(stat(namespace=":N"),)), "m1: the namespace ':N'"),
        (metric(queries=(stat(name=""),)), "m1: the metric's name ''"),
        (metric(queries=(stat(dimensions={f"d{n}": "v" for n in range(31)}),)), "m1: 31 dimensions; at most 30"),
        (metric(queries=(stat(dimensions={"d": ""}),)), "m1: the dimension 'd': ''"),
        (metric(queries=(stat(period_seconds=90),)), "m1: a period of 90 s is not allowed"),
        (metric(queries=(stat(period_seconds=0),)), "m1: a period of 0 s is not allowed"),
        (metric(queries=(stat(statistic="avg"),)), "m1: 'avg' is no statistic"),
        (metric(queries=(stat(statistic="p101"),)), "m1: 'p101' is no statistic"),
        (metric(queries=(stat(statistic="PR(:-1)"),)), "m1: 'PR(:-1)' is no statistic"),
        (metric(queries=(stat(statistic="PR(:)"),)), "m1: 'PR(:)' is no statistic"),
        (metric(queries=math("m1 + m2")), "e reads 'm2', which is no query of this alarm"),
        (metric(queries=math("SEARCH('x', 'Sum')")), "e: an alarm may not SEARCH"),
        (metric(queries=math("MAX([m1]")), "e: a parenthesis has no partner"),
        (metric(queries=math("m1" + " + m1" * 500)), "e: an expression of 2502 characters; allowed are 1 to 2048"),
        (metric(queries=math("f", Expression(id="f", expression="e + m1"))), "the expressions f -> e -> f read each"),
        (
            metric(queries=(stat(), stat(id="m2", period_seconds=300, returned=False))),
            "its metrics have the periods [60, 300] s",
        ),
        (metric(datapoints_to_alarm=2), "2 of 1 data points can never be"),
        (metric(evaluation_periods=0, datapoints_to_alarm=0), "0 of 0 data points can never be"),
        (metric(evaluation_periods=1441), "1441 periods of 60 s look back for 86460 s; 86400 s are allowed"),
        (
            metric(queries=(stat(period_seconds=86_400),), evaluation_periods=8),
            "8 periods of 86400 s look back for 691200 s; 604800 s are allowed",
        ),
        (metric(threshold=Decimal("NaN")), "the threshold is NaN"),
        (composite(rule=AnyOf(tuple(Is(State.ALARM, "a") for _ in range(501)))), "the rule has 501 elements"),
        (composite(rule=Is(State.ALARM, "a" * 10_300)), "the rule has 10309 characters; at most 10240"),
        (composite(rule=AtLeast(1, State.ALARM, MANY[:101])), "the rule names 101 alarms; 1 to 100"),
        (composite(rule=AnyOf(())), "a part of the rule is empty"),
        (composite(rule=Not(AtLeast(3, State.ALARM, ("a", "a")))), "at least 3 of 1 alarms can never be"),
        (composite(rule=Is(State.ALARM, "b")), "reads b, which is no alarm of eu-central-1"),
        (composite(suppressor=by("b")), "reads b, which is no alarm of eu-central-1"),
        (composite(suppressor=by("a", -1)), "the suppressor's periods of -1 s and 60 s"),
        (composite(suppressor=by("c")), "it suppresses itself"),
        (composite(region="us-east-1"), "reads a, which is no alarm of us-east-1"),
    ],
)
def test_a_fault_is_found(alarm: Alarm, fault: str) -> None:
    """The sentence names the alarm, what is wrong and what is allowed."""
    found = problems([metric(), alarm] if isinstance(alarm, CompositeAlarm) else [alarm])

    assert [one for one in found if fault in one], found


def test_a_name_is_an_alarms_own() -> None:
    """Metric alarms and composites share their names; another region is another place."""
    assert problems([metric(), composite(name="a", rule=Is(State.OK, "a"))])[0] == (
        "a: 2 alarms of eu-central-1 have this name"
    )
    assert problems([metric(), metric(region="us-east-1")]) == ()


def test_composites_that_read_each_other() -> None:
    """A circle could never be deleted again; a suppressor closes one as well."""
    one = composite(name="one", rule=Is(State.ALARM, "two"))
    two = composite(name="two", suppressor=by("one"))

    assert "the composite alarms one -> two -> one read each other" in problems([metric(), one, two])


def test_too_many_parents() -> None:
    """An alarm may be in 150 composites."""
    parents = [composite(name=f"c{number}") for number in range(151)]

    assert problems([metric(), *parents]) == ("a: 151 composite alarms read it; at most 150 may",)


def test_all_faults_are_told_at_once() -> None:
    """Whoever mends one finds the others in the same run."""
    found = problems([metric(name="", threshold=Decimal("Infinity"), datapoints_to_alarm=3)])

    assert len(found) == 3


@pytest.mark.parametrize(
    "statistic",
    ["Average", "SampleCount", "p99", "p99.9", "p100", "tm90", "IQM", "PR(:0.3)", "PR(1:2)", "TM(10%:90%)", "WM(:95%)"],
)
def test_statistics_that_aws_has(statistic: str) -> None:
    """Those of botocore's pattern."""
    assert problems([metric(queries=(stat(statistic=statistic),))]) == ()


def test_rules_are_quoted_and_grouped() -> None:
    """A name may hold quotes and commas; AND and OR never stand beside each other without parentheses."""
    rule = AllOf((Is(State.ALARM, 'a "b", c'), AnyOf((Is(State.OK, "d"), Not(AllOf((Is(State.OK, "e"),)))))))

    assert rule.text == r'ALARM("a \"b\", c") AND (OK("d") OR NOT (OK("e")))'


def test_what_we_make_has_no_fault() -> None:
    """Promises of every kind of source, and causes."""
    slos = [promise(), edge_errors(), edge_latency(), disk_latency(), reachable(), queue_age()]

    assert problems(tuple(planned(slos).values())) == ()
