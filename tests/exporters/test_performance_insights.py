"""What sessions wait for, from Performance Insights. moto has none, so botocore's Stubber plays it.

The stub checks each question, and each answer, against AWS's own model of the API.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from botocore.stub import Stubber  # type: ignore[import-untyped]

from exporters.aws import Aws
from exporters.calls import Calls
from exporters.settings import Account, Requests, Settings
from exporters.sources.rds import Rds
from exporters.unit import Unit
from tests.exporters.fakes import ACCOUNT, NOON, REGION, Clock, PlainAws, instances, log, rds, unit
from tests.exporters.test_units import CPU, UP, error_count, scraped

LOAD = "rds_load_by_wait_sessions"
CALLS = f"exporters_api_calls_total{{rds,{ACCOUNT},{REGION},pi:GetResourceMetrics}}"


class Insights(PlainAws):
    """An AWS of plain values, but for Performance Insights, which is asked by boto3 through a stub."""

    def __init__(self, aws: PlainAws) -> None:
        super().__init__(aws.lists, aws.value)
        self._pi = Aws(Account(id=ACCOUNT), Requests(), {})
        self.stub = Stubber(self._pi._client("pi", REGION))
        self.stub.activate()

    def ask(self, calls: Calls, region: str, api: str, **parameters: Any) -> dict[str, Any]:  # noqa: ANN401 - as `Aws`
        """Through boto3 where it is Performance Insights, else from the table."""
        if api.startswith("pi:"):
            return self._pi.ask(calls, region, api, **parameters)
        return super().ask(calls, region, api, **parameters)

    def expect(self, name: str, end: float, **waits: list[float | None]) -> None:
        """Expect a question about an instance; answer with its load by type of wait, minute by minute up to `end`."""
        times = [datetime.fromtimestamp(end - 60 * back, UTC) for back in (2, 1, 0)]

        def points(values: list[float | None]) -> list[dict[str, Any]]:
            told = zip(times, values, strict=True)
            return [{"Timestamp": at, "Value": value} for at, value in told if value is not None]

        whole = {"Key": {"Metric": "db.load.avg"}, "DataPoints": points([9.0, 9.0, 9.0])}
        of_types = [
            {
                "Key": {"Metric": "db.load.avg", "Dimensions": {"db.wait_event_type.name": wait}},
                "DataPoints": points(values),
            }
            for wait, values in waits.items()
        ]
        self.stub.add_response("get_resource_metrics", {"MetricList": [whole, *of_types]}, question(name, end))


def question(name: str, end: float) -> dict[str, Any]:
    """What is asked about an instance: three minutes, by type of wait."""
    return {
        "ServiceType": "RDS",
        "Identifier": f"db-{name.upper()}",
        "MetricQueries": [{"Metric": "db.load.avg", "GroupBy": {"Group": "db.wait_event_type", "Limit": 25}}],
        "StartTime": int(end) - 180,
        "EndTime": int(end),
        "PeriodInSeconds": 60,
        "PeriodAlignment": "END_TIME",
    }


def with_insights(*names: str, on: tuple[str, ...]) -> Insights:
    """An AWS with these databases, of which some have Performance Insights on."""
    aws = rds(*names)
    aws.lists["rds:DescribeDBInstances"] = [
        {**one, "PerformanceInsightsEnabled": one["DBInstanceIdentifier"] in on} for one in instances(*names)
    ]
    return Insights(aws)


def loads(of: dict[str, float]) -> dict[str, float]:
    """The series of the metric, by instance and type."""
    head = f"{LOAD}{{{ACCOUNT},{REGION},"
    return {name.removeprefix(head).removesuffix("}"): value for name, value in of.items() if name.startswith(LOAD)}


def test_the_newest_minute_by_type_of_wait() -> None:
    """One call a cycle for each instance that has it on; the whole is no type, and a type without a value is absent."""
    clock, aws = Clock(), with_insights("a", "b", on=("a",))
    one = unit("rds", Rds(), aws, clock)
    aws.expect("a", NOON - 120, CPU=[1.0, 1.5, 2.0], IO=[0.5, 0.5, 0.25], Lock=[3.0, 0.0, None])

    one.cycle()

    found = scraped([one], clock)
    assert loads(found) == {"a,CPU": 2.0, "a,IO": 0.25}
    assert found[UP] == 1.0
    assert found[CALLS] == 1
    clock.at += 60
    aws.expect("a", NOON - 60, CPU=[1.5, 2.0, None], Lock=[0.0, 0.0, None])
    one.cycle()
    found = scraped([one], clock)
    assert loads(found) == {"a,CPU": 2.0, "a,Lock": 0.0}, "the newest minute is not there yet, the one before is"
    assert found[CALLS] == 2
    aws.stub.assert_no_pending_responses()


def test_a_point_without_a_value_is_none() -> None:
    """AWS's model has no such point, and its answers do: null where nothing was measured. It is passed over."""
    clock, aws = Clock(), rds("a")
    aws.lists["rds:DescribeDBInstances"] = [{**one, "PerformanceInsightsEnabled": True} for one in instances("a")]
    times = [datetime.fromtimestamp(NOON - 60 * back, UTC) for back in (3, 2)]
    points = [{"Timestamp": times[0], "Value": 1.5}, {"Timestamp": times[1]}]
    key = {"Metric": "db.load.avg", "Dimensions": {"db.wait_event_type.name": "CPU"}}
    aws.lists["pi:GetResourceMetrics"] = {"MetricList": [{"Key": key, "DataPoints": points}]}
    one = unit("rds", Rds(), aws, clock)

    one.cycle()

    assert loads(scraped([one], clock)) == {"a,CPU": 1.5}


def test_who_is_refused_there_has_all_else() -> None:
    """Without the permission one metric is missing; that is told, and every other series of RDS is fresh."""
    clock, aws, (told, lines) = Clock(), with_insights("a", "b", on=("a", "b")), log()
    one = unit("rds", Rds(), aws, clock, told)
    refusal = "is not authorized to perform: pi:GetResourceMetrics"
    aws.stub.add_client_error(
        "get_resource_metrics", "NotAuthorizedException", refusal, 400, expected_params=question("a", NOON - 120)
    )
    aws.expect("b", NOON - 120, CPU=[1.0, 1.0, 1.0])

    one.cycle()

    found = scraped([one], clock)
    assert loads(found) == {"b,CPU": 1.0}, "one instance's refusal is not the other's"
    assert found[CPU] == 0.01
    assert found[f"rds_available{{{ACCOUNT},{REGION},a}}"] == 1.0
    assert found[UP] == 0.0
    denied = f"exporters_api_errors_total{{rds,denied,{ACCOUNT},{REGION},pi:GetResourceMetrics}}"
    assert error_count(found, "denied") == {denied: 1.0}
    assert [(line["call"], line["error"]) for line in lines()] == [
        ("pi:GetResourceMetrics", f"NotAuthorizedException: {refusal}")
    ]


def test_what_fails_ages_and_what_is_switched_off_goes() -> None:
    """The last values stay until they are too old; an instance without Performance Insights has none with the look."""
    clock, aws = Clock(), with_insights("a", on=("a",))
    one = unit("rds", Rds(), aws, clock)
    aws.expect("a", NOON - 120, CPU=[1.0, 1.0, 1.0])
    one.cycle()
    for _ in range(8):
        clock.at += 60
        aws.stub.add_client_error("get_resource_metrics", "InternalServiceError", "no", 400)
        one.cycle()
    assert loads(scraped([one], clock)) == {"a,CPU": 1.0}, "600 s old"
    clock.at += 60
    assert loads(scraped([one], clock)) == {}, "and older"

    aws.expect("a", clock.at - 120, CPU=[1.0, 1.0, 1.0])
    one.cycle()
    assert loads(scraped([one], clock)) == {"a,CPU": 1.0}
    aws.lists["rds:DescribeDBInstances"] = instances("a")
    clock.at += 60
    one.cycle()
    assert loads(scraped([one], clock)) == {}


def test_the_settings_may_forbid_it() -> None:
    """With `performance_insights = false` nobody is asked, and nothing is counted."""
    clock, aws = Clock(), with_insights("a", on=("a",))
    one: Unit = unit("rds", Rds.create(Settings(performance_insights=False)), aws, clock)

    one.cycle()

    found = scraped([one], clock)
    assert found[UP] == 1.0
    assert CALLS not in found
    assert loads(found) == {}
    assert Rds.create(Settings())._asks_insights, "by default it is asked"
