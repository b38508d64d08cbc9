"""The alarms of promises and causes: what they read, when they are in ALARM, and whom they tell."""

from __future__ import annotations

from decimal import Decimal

import pytest

from alerts.cloudwatch import uncovered
from alerts.cloudwatch.burn import DESCRIPTION_LENGTH_MAX
from alerts.cloudwatch.model import Alarm, Comparison, CompositeAlarm, Expression, MetricAlarm, Missing
from alerts.cloudwatch.rollups import CHILDREN_MAX
from slo import Events, Gauge, Rolling, Slo, SloError, TimeSlice
from slo.compile import compile_slo
from slo.metrics.edge import ALB_REQUESTS, WAF_REQUESTS
from slo.metrics.rds import RDS_AVAILABLE, RDS_BURST_BALANCE, RDS_CPU_UTILIZATION, RDS_STORAGE_FREE
from tests.alerts.cloudwatch.examples import (
    PAGE,
    SETTINGS,
    TICKET,
    cause,
    disk_latency,
    edge_errors,
    edge_latency,
    planned,
    promise,
    queue_age,
    reachable,
)
from tests.alerts.cloudwatch.simulator import Recorded, counts, first, key, run


def metric_alarm(alarms: dict[str, Alarm], name: str) -> MetricAlarm:
    """An alarm on metrics."""
    alarm = alarms[name]
    assert isinstance(alarm, MetricAlarm)
    return alarm


def composite(alarms: dict[str, Alarm], name: str) -> CompositeAlarm:
    """An alarm on alarms."""
    alarm = alarms[name]
    assert isinstance(alarm, CompositeAlarm)
    return alarm


def maths(alarm: MetricAlarm) -> list[str]:
    """The expressions of an alarm."""
    return [query.expression for query in alarm.queries if isinstance(query, Expression)]


def reads(alarm: MetricAlarm) -> list[tuple[str, str, int]]:
    """Names, statistics and periods of an alarm's metrics."""
    return [(metric.name, metric.statistic, metric.period_seconds) for metric in alarm.metrics]


# --- promises on events that are published ---------------------------------------------------------------------------


def test_each_pair_of_windows_is_a_composite_of_two_children() -> None:
    """The Period of a child is the window, its value the burn rate; only the composite tells somebody."""
    alarms = planned([promise()])

    for speed, windows, factor, topic in (
        ("fast", {"1h": 3600, "5m": 300}, "14.4", "slo-page"),
        ("mid", {"6h": 21_600, "30m": 1800}, "6", "slo-page"),
        ("slow", {"1d": 86_400, "2h": 7200}, "3", "slo-ticket"),
        ("trickle", {"3d": 259_200, "6h": 21_600}, "1", "slo-ticket"),
    ):
        name = f"slo-ShopAvailability-{speed}"
        parent = composite(alarms, name)
        assert parent.rule.text == " AND ".join(f'ALARM("{name}-{window}")' for window in windows)
        assert [told.name for told in parent.actions] == [topic]
        for window, seconds in windows.items():
            child = metric_alarm(alarms, f"{name}-{window}")
            assert reads(child) == [("BadEvents", "Sum", seconds), ("AllEvents", "Sum", seconds)]
            assert child.metrics[0].dimensions == {"Service": "shop", "Slo": "availability"}
            assert (child.threshold, child.comparison) == (Decimal(factor), Comparison.ABOVE)
            assert (child.evaluation_periods, child.datapoints_to_alarm) == (1, 1)
            assert child.treat_missing_data is Missing.NOT_BREACHING
            assert child.request()["ActionsEnabled"] is False


def test_a_slower_composite_is_suppressed_by_the_next_faster_one() -> None:
    """It waits two minutes for the faster one, and is kept back for its own short window after that one is over."""
    alarms = planned([promise()])
    found = {
        name: (one.suppressor.alarm, one.suppressor.wait_seconds, one.suppressor.extension_seconds)
        for name, one in alarms.items()
        if isinstance(one, CompositeAlarm) and one.suppressor
    }

    stem = "slo-ShopAvailability"
    assert found == {
        f"{stem}-mid": (f"{stem}-fast", 120, 1800),
        f"{stem}-slow": (f"{stem}-mid", 120, 7200),
        f"{stem}-trickle": (f"{stem}-slow", 120, 21_600),
    }


def test_only_the_severities_of_the_definition() -> None:
    """A promise without a ticket has no slow pairs, one without a page no fast ones and no suppressor from them."""
    only_pages = planned([promise(alerts=(PAGE,))])
    only_tickets = planned([promise(alerts=(TICKET,))])

    assert not [name for name in only_pages if "slow" in name or "trickle" in name]
    assert not [name for name in only_tickets if "fast" in name or "mid" in name]
    assert composite(only_tickets, "slo-ShopAvailability-slow").suppressor is None
    assert not planned([promise(alerts=())])


def test_without_expected_traffic_the_window_weighs_itself() -> None:
    """The classic burn rate, with a minimum of bad events, so that one error trips nothing."""
    alarms = planned([promise()])

    assert maths(metric_alarm(alarms, "slo-ShopAvailability-fast-5m")) == [
        "FILL(m1, 0)",
        "FILL(m2, 0)",
        "IF(bad > 2.5 AND every > 0, bad / every / 0.001, 0)",
    ]


def test_with_expected_traffic_bad_events_weigh_what_they_cost() -> None:
    """A page has both ways to be right, in both windows at the same pace; a ticket has the budget's way."""
    alarms = planned([promise(expected_events_per_second=Decimal(10))])

    long, short = (maths(metric_alarm(alarms, f"slo-ShopAvailability-fast-{window}")) for window in ("1h", "5m"))
    assert long[2:] == [
        "IF(bad > 2.5 AND bad > 0.001 * every, bad / 36, 0)",
        "IF(bad > 49.5 AND every > 0, bad / every / 0.001, 0)",
        "MAX([budget, people])",
    ]
    assert short[2:] == [
        "IF(bad > 2.5 AND bad > 0.001 * every, bad / 3, 0)",
        "IF(bad > 4.5 AND every > 0, bad / every / 0.001, 0)",
        "MAX([budget, people])",
    ]
    ticket = metric_alarm(alarms, "slo-ShopAvailability-slow-1d")
    assert maths(ticket)[2:] == ["IF(bad > 2.5 AND bad > 0.001 * every, bad / 864, 0)"]


def test_silence_is_told_once_for_all_promises_of_a_service() -> None:
    """What is published each minute and stops is missing; the service's composite tells, by the gravest severity."""
    alarms = planned([promise("one"), promise("two"), promise("three", alerts=(TICKET,))])

    child = metric_alarm(alarms, "slo-ShopOneAbsent")
    assert reads(child) == [("AllEvents", "SampleCount", 60)]
    assert (child.evaluation_periods, child.datapoints_to_alarm) == (5, 5)
    assert (child.treat_missing_data, child.actions) == (Missing.BREACHING, ())
    page, ticket = composite(alarms, "slo-Shop-absent-page"), composite(alarms, "slo-Shop-absent-ticket")
    assert page.rule.text == 'ALARM("slo-ShopOneAbsent") OR ALARM("slo-ShopTwoAbsent")'
    assert [told.name for told in page.actions] == ["slo-page"]
    assert ticket.rule.text == 'ALARM("slo-ShopThreeAbsent")'


def test_other_periods_have_their_own_factors() -> None:
    """A day has only the pairs that can alert before half of its budget is gone."""
    alarms = planned([promise(window=Rolling(days=1), alerts=(PAGE,))])

    assert metric_alarm(alarms, "slo-ShopAvailability-fast-1h").threshold == 12
    assert metric_alarm(alarms, "slo-ShopAvailability-mid-6h").threshold == 2


# --- promises on what AWS measures -----------------------------------------------------------------------------------


def test_counts_of_a_load_balancer() -> None:
    """What is added and taken away again is gone; an error counter that is missing counts 0."""
    alarms = planned([edge_errors()])
    child = metric_alarm(alarms, "slo-EdgeErrors-fast-5m")

    assert [name for name, *_ in reads(child)] == [
        "HTTPCode_Target_5XX_Count",
        "HTTPCode_ELB_5XX_Count",
        "RequestCount",
    ]
    assert maths(child)[:2] == ["FILL(m1, 0) + FILL(m2, 0)", "FILL(m3, 0) + FILL(m2, 0)"]
    assert "slo-EdgeErrorsAbsent" not in alarms, "a load balancer is silent while nobody asks"


def test_latency_by_percent_rank() -> None:
    """Slow are all but those within the limit, as the percent rank has it."""
    child = metric_alarm(planned([edge_latency()]), "slo-EdgeLatency-fast-1h")
    balancer = child.metrics[0]

    assert reads(child) == [("TargetResponseTime", "SampleCount", 3600), ("TargetResponseTime", "PR(:0.3)", 3600)]
    assert maths(child)[0] == "FILL(m1, 0) - FILL(m1, 0) * FILL(m2, 0) / 100"
    slow = Recorded([{0.2: 90, 0.5: 10}] * 120)
    found = run([child], {key(balancer): slow}, range(60, 70))
    assert first(found, child.name, "ALARM") is None, "10 times the budget is below 14.4"
    slower = Recorded([{0.2: 80, 0.5: 20}] * 120)
    assert first(run([child], {key(balancer): slower}, range(60, 70)), child.name, "ALARM") == 60


def test_slices_of_a_gauge_are_judged_minute_by_minute() -> None:
    """M of N minutes, by the worst of all series; so many that the budget burns, and at least three."""
    alarms = planned([disk_latency()])
    for window, minutes, bad in (("fast-1h", 60, 3), ("fast-5m", 5, 3), ("slow-1d", 1440, 5), ("trickle-6h", 360, 3)):
        child = metric_alarm(alarms, f"slo-RdsDisk-{window}")
        assert (child.evaluation_periods, child.datapoints_to_alarm) == (minutes, bad)
        assert (child.threshold, child.comparison) == (Decimal("0.02"), Comparison.ABOVE)
        assert [name for name, *_ in reads(child)] == ["ReadLatency"] * 2 + ["WriteLatency"] * 2
        assert maths(child)[-1] == "MAX([g1, g2, g3, g4])"


def test_more_than_a_day_of_slices_is_a_share_by_percent_rank() -> None:
    """AWS looks back for at most a day of minutes; the series that is worst counts."""
    child = metric_alarm(planned([disk_latency()]), "slo-RdsDisk-trickle-3d")

    assert {(statistic, period) for _, statistic, period in reads(child)} == {("PR(:0.02)", 259_200)}
    assert maths(child) == ["(100 - MIN([m1, m2, m3, m4])) / 100 / 0.001"]
    assert (child.threshold, child.evaluation_periods) == (Decimal(1), 1)


def test_a_gauge_in_another_unit_moves_the_threshold() -> None:
    """AWS says percent and we say ratio: the limit is divided, so the metric is read as it is."""
    sli = TimeSlice(RDS_CPU_UTILIZATION.where(), bad_above=Decimal("0.9"))
    child = metric_alarm(planned([promise("cpu", service="rds", sli=sli)]), "slo-RdsCpu-fast-5m")

    assert child.threshold == 90


def test_a_metric_of_one_region_has_its_alarms_there() -> None:
    """Route 53 is measured in us-east-1 only, where its topics are as well; a value at the limit is good."""
    alarms = planned([reachable(), promise()])
    child, parent = metric_alarm(alarms, "slo-DnsReachable-fast-5m"), composite(alarms, "slo-DnsReachable-fast")

    assert (child.comparison, child.threshold, child.queries[0].returned) == (Comparison.BELOW, Decimal(1), True)
    assert {child.region, parent.region, parent.actions[0].region} == {"us-east-1"}
    assert parent.actions[0].arn == "arn:aws:sns:us-east-1:123456789012:slo-page"
    assert "slo-component-dns" not in alarms, "an alarm reads alarms of its own region only"
    assert metric_alarm(alarms, "slo-DnsReachable-trickle-3d").metrics[0].statistic == "PR(:0.999999)"


def test_the_value_of_a_label_may_say_which_resource() -> None:
    """A queue has one role: the work's queue is read, the dead letters' is not."""
    child = metric_alarm(planned([queue_age()]), "slo-QueueAge-fast-5m")

    assert [metric.dimensions["QueueName"] for metric in child.metrics] == ["orders"]


def test_more_gauges_than_an_alarm_holds_are_several_children() -> None:
    """Any of them stands for the window."""
    sli = TimeSlice(RDS_BURST_BALANCE.where(), bad_below=Decimal("0.1"))
    alarms = planned([promise("burst", service="rds", sli=sli)], dimensions={"DBInstanceIdentifier": tuple("abcd")})

    assert composite(alarms, "slo-RdsBurst-fast").rule.text == (
        '(ALARM("slo-RdsBurst-fast-1h-1") OR ALARM("slo-RdsBurst-fast-1h-2")) AND '
        '(ALARM("slo-RdsBurst-fast-5m-1") OR ALARM("slo-RdsBurst-fast-5m-2"))'
    )
    assert len(metric_alarm(alarms, "slo-RdsBurst-fast-1h-1").metrics) == 9


def test_what_cloudwatch_does_not_have_is_uncovered() -> None:
    """A gauge that our exporter alone knows has no second way."""
    sli = TimeSlice(RDS_AVAILABLE.where(), bad_below=Decimal(1))
    blind = promise("available", service="rds", sli=sli)

    assert not planned([blind])
    assert "slo-RdsAvailable-fast" in planned([blind], services=("rds-available",)), "unless a process publishes it"
    assert [one.slo.id for one in uncovered([compile_slo(one) for one in (blind, promise())], SETTINGS)] == [
        "rds-available"
    ]


def test_a_resource_that_the_settings_do_not_name_is_an_error() -> None:
    """The message names the metric, and what to add."""
    sli = Events(bad=WAF_REQUESTS.where(action="blocked"), all=WAF_REQUESTS.where())

    with pytest.raises(SloError, match=r"dimensions\]: AWS/WAFV2 BlockedRequests needs WebACL or WebACL.blocked"):
        planned([promise("waf", service="edge", sli=sli)])


def test_a_gauge_of_several_metrics_has_no_percent_rank() -> None:
    """So no window beyond a day can be watched, and the error says which."""
    two = Gauge(
        "two",
        "Two of them.",
        open_labels=RDS_STORAGE_FREE.open_labels,
        cloudwatch=RDS_STORAGE_FREE.cloudwatch + RDS_CPU_UTILIZATION.cloudwatch,
    )
    sli = TimeSlice(two.where(), bad_above=Decimal(1))

    with pytest.raises(SloError, match="slo-RdsTwo-trickle-3d: no percent rank is known"):
        planned([promise("two", service="rds", sli=sli)])


# --- roll-ups --------------------------------------------------------------------------------------------------------


def test_components_and_the_whole_are_rolled_up() -> None:
    """For boards: each component by its composites and causes, then all; nobody is told twice."""
    alarms = planned([promise(), edge_errors()], [cause(RDS_CPU_UTILIZATION.where(), above=Decimal("0.9"))])

    shop = composite(alarms, "slo-component-shop")
    assert set(shop.reads) == {f"slo-ShopAvailability-{speed}" for speed in ("fast", "mid", "slow", "trickle")}
    assert composite(alarms, "slo-component-rds").reads == (
        "slo-RdsTooMuch-CPUUtilization-shop-a",
        "slo-RdsTooMuch-CPUUtilization-shop-b",
    )
    whole = composite(alarms, "slo-health")
    assert whole.reads == ("slo-component-edge", "slo-component-rds", "slo-component-shop")
    assert not (*shop.actions, *whole.actions)


def test_a_component_of_many_promises_is_rolled_up_in_parts() -> None:
    """A composite reads a hundred alarms at most."""
    alarms = planned([promise(f"p{number}") for number in range(30)])

    assert composite(alarms, "slo-component-shop").reads == ("slo-component-shop-1", "slo-component-shop-2")
    assert len(composite(alarms, "slo-component-shop-1").reads) == CHILDREN_MAX


def test_a_zone_that_fails_alone() -> None:
    """One zone and not two: a ticket to lead its traffic away. What has no zones has no such alarm."""
    alarms = planned([edge_errors(), promise()])
    gray = composite(alarms, "slo-EdgeErrors-zone-gray")
    zones = ", ".join(f'"slo-EdgeErrors-zone-eu-central-1{zone}"' for zone in "abc")

    assert gray.rule.text == f"AT_LEAST(1, ALARM, ({zones})) AND NOT AT_LEAST(2, ALARM, ({zones}))"
    child = metric_alarm(alarms, "slo-EdgeErrors-zone-eu-central-1b")
    assert {metric.dimensions["AvailabilityZone"] for metric in child.metrics} == {"eu-central-1b"}
    assert "slo-ShopAvailability-zone-gray" not in alarms


def test_a_zone_that_fails_alone_is_seen_and_two_are_not() -> None:
    """After a quarter of an hour of errors in one zone."""
    alarms = planned([edge_errors()])
    listed = [alarm for name, alarm in alarms.items() if "-zone-" in name]
    metrics = {}
    for zone in "abc":
        of_zone = metric_alarm(alarms, f"slo-EdgeErrors-zone-eu-central-1{zone}").metrics
        target, _, every = map(key, of_zone)
        metrics[every] = counts([1000.0] * 60)
        metrics[target] = counts([None] * 20 + [200.0 if zone == "a" else None] * 40)

    assert first(run(listed, metrics, range(16, 60)), "slo-EdgeErrors-zone-gray", "told") == 31
    metrics[target] = metrics[key(metric_alarm(alarms, "slo-EdgeErrors-zone-eu-central-1a").metrics[0])]
    assert first(run(listed, metrics, range(16, 60)), "slo-EdgeErrors-zone-gray", "told") is None


# --- causes ----------------------------------------------------------------------------------------------------------


def test_a_cause_is_an_alarm_for_each_resource() -> None:
    """For as long as it must hold, to the ticket's topic, in AWS's own unit."""
    alarms = planned([], [cause(RDS_CPU_UTILIZATION.where(), above=Decimal("0.9"))])
    one = metric_alarm(alarms, "slo-RdsTooMuch-CPUUtilization-shop-a")

    assert reads(one) == [("CPUUtilization", "Average", 60)]
    assert (one.threshold, one.comparison) == (Decimal(90), Comparison.ABOVE)
    assert (one.evaluation_periods, one.datapoints_to_alarm) == (15, 15)
    assert [told.name for told in one.actions] == ["slo-ticket"]
    assert "RdsTooMuch.md" in one.description


def test_each_label_of_a_cause_is_an_alarm() -> None:
    """Three kinds of burst balance, two instances, below a limit."""
    alarms = planned([], [cause(RDS_BURST_BALANCE.where(), below=Decimal("0.2"))])
    causes = [alarm for alarm in alarms.values() if isinstance(alarm, MetricAlarm)]

    assert len(causes) == 6
    assert {(alarm.threshold, alarm.comparison) for alarm in causes} == {(Decimal(20), Comparison.BELOW)}


def test_a_cause_without_an_address_has_no_alarm() -> None:
    """It is our exporter's alone."""
    assert not planned([], [cause(RDS_AVAILABLE.where(), below=Decimal(1))])


# --- texts -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("slo", [promise(), edge_errors(), reachable(), promise(description="Long. " * 400)])
def test_descriptions_lead_to_the_runbook_and_the_board(slo: Slo) -> None:
    """In Markdown, first of all, so that a long text is cut behind them."""
    for alarm in planned([slo]).values():
        assert len(alarm.description) <= DESCRIPTION_LENGTH_MAX
        assert "[Runbook](https://runbooks.example.com/" in alarm.description
        assert "[Board](https://grafana.example.com/d/" in alarm.description


def test_a_count_needs_a_statistic_that_counts() -> None:
    """A percentile of a counter is no number of events."""
    address = ALB_REQUESTS.cloudwatch[0]
    odd = type(ALB_REQUESTS)(
        "odd_total",
        "Odd.",
        labels=ALB_REQUESTS.labels,
        open_labels=ALB_REQUESTS.open_labels,
        cloudwatch=(
            type(address)(
                namespace="N", name="M", statistic="p99", labels={"outcome": "ok"}, dimensions=address.dimensions
            ),
        ),
    )

    with pytest.raises(SloError, match="N M has the statistic p99"):
        planned([promise("odd", service="edge", sli=Events(bad=odd.where(outcome="elb_error"), all=odd.where()))])
