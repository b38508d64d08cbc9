"""Planning, and what answers mean: pure, so every number is held here."""

from __future__ import annotations

import math
from collections import Counter as Count
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporters.cloudwatch import (
    LOOKBACK_SECONDS,
    OUTAGE_SECONDS_MAX,
    QUERIES_MAX,
    Answer,
    Batch,
    Query,
    Values,
    batches,
    plan,
)
from exporters.cost import MONTH_SECONDS, estimate
from exporters.readings import Key, Reading
from exporters.settings import Prices
from slo.metrics import CloudWatch, Counter, Gauge
from slo.metrics.edge import ALB_HEALTHY_HOSTS, ALB_REQUEST_DURATIONS, ALB_REQUESTS, ROUTE53_HEALTH_CHECK_HEALTHY
from slo.metrics.queue import QUEUE_METRICS
from slo.metrics.rds import RDS_CPU_UTILIZATION, RDS_METRICS

REGION = "eu-central-1"
PLACE = {"aws_account_id": "123456789012", "aws_region": REGION}
NOON = 1_764_158_400  # a whole hour

EVENTS = Counter(
    "shop_events_total",
    "Events.",
    open_labels=("shop",),
    cloudwatch=(CloudWatch(namespace="Shop", name="Events", statistic="Sum", dimensions={"Shop": "shop"}),),
)
LEVEL = Gauge(
    "shop_level_ratio",
    "Level.",
    open_labels=("shop",),
    cloudwatch=tuple(
        CloudWatch(namespace="Shop", name=name, statistic="Average", dimensions={"Shop": "shop"}) for name in "AB"
    ),
)


def of(name: str, statistic: str = "Sum", period: int = 60) -> Query:
    """A query of the shop's."""
    return Query(REGION, "Shop", name, (("Shop", "north"),), statistic, period)


def answer(points: dict[int, float], *, complete: bool = True, end: int = NOON) -> Answer:
    """An answer for the quarter of an hour before `end`."""
    return Answer(start=end - LOOKBACK_SECONDS, end=end, points=points, complete=complete)


def only(values: Values) -> Reading:
    """The one reading that there is."""
    (reading,) = values
    return reading


# --- what is planned --------------------------------------------------------------------------------------------------


def test_a_metric_of_each_instance_is_asked_with_the_dimensions_of_its_labels() -> None:
    """Open labels become CloudWatch's dimensions; percent becomes a ratio by its factor."""
    series = plan([RDS_CPU_UTILIZATION], [PLACE | {"db_instance": name} for name in ("a", "b")], REGION)

    assert [one.key.values for one in series] == [("123456789012", REGION, "a"), ("123456789012", REGION, "b")]
    (addend,) = series[0].addends
    assert addend.query.dimensions == (("DBInstanceIdentifier", "a"),)
    assert addend.factor == Decimal("0.01")


def test_a_resource_has_the_series_whose_labels_it_knows() -> None:
    """A load balancer without target groups has no series of them; with one, its own series are asked once."""
    balancer = PLACE | {"load_balancer": "app/edge/1"}
    targets = balancer | {"target_group": "targetgroup/pods/1"}

    alone = plan([ALB_REQUESTS, ALB_HEALTHY_HOSTS], [balancer], REGION)
    both = plan([ALB_REQUESTS, ALB_HEALTHY_HOSTS], [balancer, targets], REGION)

    assert Count(one.key.metric.name for one in alone) == {"alb_requests_total": 3}
    assert Count(one.key.metric.name for one in both) == {"alb_requests_total": 3, "alb_healthy_hosts": 1}
    queries = [query for batch in batches(both, NOON, {}, delay_seconds=0) for query in batch.queries]
    assert len(queries) == len(set(queries)) == 4, "HTTPCode_Target_5XX_Count is needed twice and asked once"


def test_a_queue_has_the_series_of_its_role_alone() -> None:
    """Of two addresses that differ in a listed label, a resource that says its value has one."""
    series = plan(QUEUE_METRICS, [PLACE | {"queue": "q", "role": "dead_letter"}], REGION)

    assert len(series) == len(QUEUE_METRICS)
    assert {one.key.values[0] for one in series} == {"dead_letter"}


def test_a_global_service_is_asked_in_its_own_region() -> None:
    """Only us-east-1 has the metrics of Route 53, wherever the exporter is."""
    labels = PLACE | {"health_check": "h"}
    (series,) = plan([ROUTE53_HEALTH_CHECK_HEALTHY], [labels], REGION)

    assert [query.region for query in series.queries] == ["us-east-1"]


# --- what is asked ----------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(shops=st.integers(0, 1700), now=st.floats(NOON, NOON + 7200), delay=st.integers(0, 600))
def test_calls_are_the_ceiling_of_metrics_by_500(shops: int, now: float, delay: int) -> None:
    """No call is larger than AWS takes, none is needless, each metric is in one, and no minute is too young."""
    series = plan([EVENTS], [{"shop": str(number)} for number in range(shops)], REGION)

    calls = list(batches(series, now, {}, delay_seconds=delay))

    assert len(calls) == math.ceil(shops / QUERIES_MAX)
    assert all(len(call.queries) <= QUERIES_MAX for call in calls)
    assert sum(call.billed for call in calls) == shops
    assert len({query for call in calls for query in call.queries}) == shops
    for call in calls:
        assert call.start % 60 == call.end % 60 == 0
        assert now - delay - 60 < call.end <= now - delay
        assert call.end - call.start == LOOKBACK_SECONDS


@pytest.mark.parametrize(("statistics", "billed"), [(1, 1), (2, 1), (5, 1), (6, 2), (11, 3)])
def test_five_statistics_of_a_metric_are_billed_as_one(statistics: int, billed: int) -> None:
    """AWS's rule: up to five statistics of a metric in a call are one metric, and every further one is another."""
    queries = tuple(of("Events", f"p{number}") for number in range(statistics))

    assert Batch(REGION, queries, 0, 60).billed == billed


def test_a_longer_period_is_asked_for_when_it_is_over() -> None:
    """A metric that AWS has every five minutes is asked every five minutes, in a window of whole periods."""
    metric = Gauge(
        "shop_size_bytes",
        "Size.",
        open_labels=("shop",),
        cloudwatch=(CloudWatch(namespace="Shop", name="Size", statistic="Average", period_seconds=300),),
    )
    series = plan([metric], [{"shop": "north"}], REGION)
    answered: dict[tuple[str, int], int] = {}
    asked = []
    for now in range(NOON, NOON + 1800, 60):
        for call in batches(series, now, answered, delay_seconds=120):
            assert call.start % 300 == call.end % 300 == 0
            answered[REGION, 300] = call.end
            asked.append(now)

    assert asked == [NOON, *range(NOON + 120, NOON + 1800, 300)]
    assert estimate(series, Prices(), period_seconds=60).metrics_a_month == MONTH_SECONDS // 300


@given(outage=st.integers(0, 5 * OUTAGE_SECONDS_MAX // 60))
def test_after_an_outage_the_minutes_since_are_asked_for(outage: int) -> None:
    """The window reaches back to the last full answer, as far as a call has room for 500 metrics."""
    series = plan([EVENTS], [{"shop": "north"}], REGION)

    (call,) = batches(series, NOON, {(REGION, 60): NOON - 60 - outage * 60}, delay_seconds=0)

    assert call.end - call.start == LOOKBACK_SECONDS + min(outage * 60, OUTAGE_SECONDS_MAX)
    assert (call.end - call.start) // 60 * QUERIES_MAX <= 100_800


# --- what is answered -------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_every_minute_counts_once_however_late_and_in_whatever_order(data: st.DataObject) -> None:
    """Points that come late, again and again, out of order or after failed cycles: the counter is their sum, once.

    A small CloudWatch is played: a minute's value appears after a time of its own, and calls fail now and then.
    """
    minutes = 40
    values = data.draw(st.lists(st.integers(0, 1000), min_size=minutes, max_size=minutes))
    late = data.draw(st.lists(st.integers(0, LOOKBACK_SECONDS // 60 - 2), min_size=minutes, max_size=minutes))
    fails = set(data.draw(st.lists(st.integers(1, minutes - 1), max_size=20)))
    series = plan([EVENTS], [{"shop": "north"}], REGION)
    kept, shown = Values(), [0.0]
    answered: dict[tuple[str, int], int] = {}

    for cycle in range(minutes + LOOKBACK_SECONDS // 60):
        now = NOON + 60 * cycle
        if cycle in fails:
            continue
        for call in batches(series, now, answered, delay_seconds=0):
            points = {
                NOON + 60 * at: float(values[at])
                for at in range(minutes)
                if call.start <= NOON + 60 * at < call.end and NOON + 60 * (at + 1 + late[at]) <= now
            }
            shuffled = dict(data.draw(st.permutations(sorted(points.items()))) if cycle % 8 == 0 else points.items())
            told = Answer(start=call.start, end=call.end, points=shuffled, complete=True)
            kept.take(series, dict.fromkeys(call.queries, told))
            answered[REGION, 60] = call.end
        shown.append(only(kept).value)

    assert shown == sorted(shown), "a counter never falls"
    assert shown[-1] == sum(values)


def test_a_counter_begins_at_zero() -> None:
    """What was before the first answer another process has counted; and a counter born at 5 would hide these 5."""
    series, kept = plan([EVENTS], [{"shop": "north"}], REGION), Values()

    kept.take(series, {of("Events"): answer({NOON - 120: 7.0, NOON - 60: 5.0})})

    assert only(kept) == Reading(Key.of(EVENTS, shop="north"), 0.0, NOON)


def test_a_corrected_minute_counts_with_its_newest_value() -> None:
    """AWS corrects a minute upwards: the rest is added. Downwards: the counter waits until the truth has caught up."""
    series, kept = plan([EVENTS], [{"shop": "north"}], REGION), Values()
    kept.take(series, {of("Events"): answer({})})
    shown = []

    for points in ({NOON: 5.0}, {NOON: 8.0}, {NOON: 6.0}, {NOON: 6.0, NOON + 60: 1.0}, {NOON + 120: 4.0}):
        kept.take(series, {of("Events"): answer(points, end=NOON + 180)})
        shown.append(only(kept).value)

    assert shown == [5.0, 8.0, 8.0, 8.0, 11.0]


def test_a_counter_without_events_is_up_to_date() -> None:
    """AWS has no points where nothing happened: after a full answer the counter is new, and after half of one not."""
    series, kept = plan([EVENTS], [{"shop": "north"}], REGION), Values()
    kept.take(series, {of("Events"): answer({})})

    kept.take(series, {of("Events"): answer({}, end=NOON + 60)})
    assert only(kept).at == NOON + 60

    kept.take(series, {of("Events"): answer({}, end=NOON + 120, complete=False)})
    assert only(kept).at == NOON + 60


def test_a_gauge_is_the_newest_minute_that_all_its_parts_have() -> None:
    """Half a sum would be a wrong value, so the minute before is told, with its age; without any it stays as it was."""
    series, kept = plan([LEVEL], [{"shop": "north"}], REGION), Values()
    first, second = of("A", "Average"), of("B", "Average")

    kept.take(series, {first: answer({NOON - 120: 1.0, NOON - 60: 2.0}), second: answer({NOON - 120: 10.0})})
    assert only(kept) == Reading(Key.of(LEVEL, shop="north"), 11.0, NOON - 60)

    kept.take(series, {first: answer({NOON: 3.0}, end=NOON + 60), second: answer({}, end=NOON + 60)})
    kept.take(series, {first: answer({NOON + 60: 3.0}, end=NOON + 120)})
    assert only(kept).at == NOON - 60


def test_percent_become_ratios_as_people_write_them() -> None:
    """29 % is 0.29: a threshold of 0.29 is met by it."""
    series, kept = plan([RDS_CPU_UTILIZATION], [PLACE | {"db_instance": "a"}], REGION), Values()

    kept.take(series, {query: answer({NOON - 60: 29.0}) for query in series[0].queries})

    assert only(kept).value == 0.29


def test_slow_requests_are_all_less_those_within_the_threshold() -> None:
    """SampleCount and the percent rank of 0.3 s make the fast and the slow; a minute without its rank waits for it."""
    series = plan([ALB_REQUEST_DURATIONS], [PLACE | {"load_balancer": "app/edge/1"}], REGION)
    count, rank = (
        next(query for one in series for query in one.queries if query.statistic == statistic)
        for statistic in ("SampleCount", "PR(:0.3)")
    )
    kept = Values()
    kept.take(series, {count: answer({}), rank: answer({})})

    counts = {NOON: 200.0, NOON + 60: 100.0}
    kept.take(series, {count: answer(counts, end=NOON + 120), rank: answer({NOON: 98.5, NOON + 60: 50.0})})

    assert {one.key.values[0]: one.value for one in kept} == {"fast": 247.0, "slow": 53.0}


def test_what_a_resource_had_is_forgotten_with_it() -> None:
    """A deleted instance leaves neither a series nor memory behind."""
    kept = Values()
    series = plan([EVENTS], [{"shop": "north"}], REGION)
    kept.take(series, {of("Events"): answer({})})

    kept.keep(plan([EVENTS], [{"shop": "south"}], REGION))

    assert not list(kept)
    assert not kept._totals


def test_the_cost_is_what_aws_bills_in_a_month() -> None:
    """Ten databases once a minute for 30 days, at $0.01 for 1,000 metrics."""
    series = plan(RDS_METRICS, [PLACE | {"db_instance": str(number)} for number in range(10)], REGION)
    names = {(address.namespace, address.name) for metric in RDS_METRICS for address in metric.cloudwatch}

    cost = estimate(series, Prices(), period_seconds=60)

    assert cost.metrics == 10 * len(names)
    assert cost.metrics_a_month == 10 * len(names) * 43_200
    assert float(cost.usd_a_month) == pytest.approx(cost.metrics_a_month / 1000 * 0.01)
