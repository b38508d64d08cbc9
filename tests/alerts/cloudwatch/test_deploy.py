"""Alarms in CloudWatch: what is planned, made, changed, deleted and left alone.

Metric alarms and tags live in moto's server, over HTTP. moto lacks composite alarms, so these live in a fake in this
process, which refuses what `alerts.cloudwatch.validate` says that AWS would: how AWS words it is not known.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any

import botocore.exceptions  # type: ignore[import-untyped]
import pytest

from alerts.cloudwatch import deploy
from alerts.cloudwatch.burn import MANAGED_BY
from alerts.cloudwatch.compare import Deployed, Difference, Finding, Kind, compare
from alerts.cloudwatch.deploy import Api, CallError, Outcome, State, boto_client, check_account, deployed
from alerts.cloudwatch.model import (
    Alarm,
    AllOf,
    CompositeAlarm,
    Expression,
    Is,
    MetricAlarm,
    MetricStat,
    Suppressor,
    Topic,
)
from alerts.cloudwatch.model import State as AlarmState
from alerts.cloudwatch.validate import problems
from drills.harness.moto import REGION, MotoServer, moto_server
from slo import SloError

ACCOUNT = "123456789012"  # moto's
TAGS = {**MANAGED_BY, "owner": "shop-team", "slo": "shop-availability"}
TOPIC = Topic(name="slo-page", region=REGION, account=ACCOUNT)


def metric(name: str, **changes: Any) -> MetricAlarm:  # noqa: ANN401 - whatever an alarm takes
    """A child: a burn rate over an hour."""
    counts = [
        MetricStat(
            id=id_,
            namespace="SLO",
            name=events,
            dimensions={"Service": "shop", "Slo": "availability"},
            period_seconds=3600,
            statistic="Sum",
        )
        for id_, events in (("bad", "BadEvents"), ("every", "AllEvents"))
    ]
    burn = Expression(id="burn", expression="IF(every > 0, bad / every / 0.001, 0)", label="Burn rate", returned=True)
    alarm = MetricAlarm(
        name=name, description="Burns.", queries=(*counts, burn), threshold=Decimal("14.4"), tags=TAGS, region=REGION
    )
    return replace(alarm, **changes)


def composite(name: str, *reads: str, **changes: Any) -> CompositeAlarm:  # noqa: ANN401 - as above
    """An alarm that all the others must be in ALARM for."""
    rule = AllOf(tuple(Is(AlarmState.ALARM, one) for one in reads))
    alarm = CompositeAlarm(name=name, description="Both burn.", rule=rule, actions=(TOPIC,), tags=TAGS, region=REGION)
    return replace(alarm, **changes)


FAST = (metric("slo-fast-long"), metric("slo-fast-short"), composite("slo-fast", "slo-fast-long", "slo-fast-short"))
SLOW = (
    metric("slo-slow-long", threshold=Decimal(3)),
    composite(
        "slo-slow",
        "slo-slow-long",
        suppressor=Suppressor(alarm="slo-fast", wait_seconds=120, extension_seconds=300),
    ),
)
ALL: tuple[Alarm, ...] = (*FAST, *SLOW)


def refusal(operation: str, code: str, message: str = "", status: int = 400) -> botocore.exceptions.ClientError:
    """What boto3 raises when AWS refuses."""
    told = {"Error": {"Code": code, "Message": message}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return botocore.exceptions.ClientError(told, operation)


@dataclass
class Cloud:
    """A client: moto's for metric alarms, and composites as AWS documents them.

    Attributes:
        moto: boto3's client.
        wanted: The alarms as values, for the validator.
        composites: Those that are there.
        calls: What was asked, by operation.
        faults: Operation -> what to raise instead, one call each.
    """

    moto: Any
    wanted: Mapping[str, Alarm] = field(default_factory=dict)
    composites: dict[str, dict[str, Any]] = field(default_factory=dict)
    tags: dict[str, dict[str, str]] = field(default_factory=dict)
    calls: list[tuple[str, Mapping[str, Any]]] = field(default_factory=list)
    faults: dict[str, list[Exception]] = field(default_factory=dict)

    def __getattr__(self, operation: str) -> Callable[..., Any]:
        def call(**arguments: Any) -> Any:  # noqa: ANN401 - as boto3's
            self.calls.append((operation, arguments))
            if self.faults.get(operation):
                raise self.faults[operation].pop(0)
            own = getattr(type(self), f"_{operation}", None)
            return own(self, **arguments) if own else getattr(self.moto, operation)(**arguments)

        return call

    def _put_composite_alarm(self, Tags: Sequence[Mapping[str, str]] = (), **request: Any) -> None:  # noqa: ANN401, N803 - AWS's
        there = {one["AlarmName"] for one in self.moto.describe_alarms()["MetricAlarms"]} | self.composites.keys()
        name = request["AlarmName"]
        alarms = [self.wanted[one] for one in there | {name} if one in self.wanted]
        if faults := problems(alarms):
            raise refusal("PutCompositeAlarm", "ValidationError", faults[0])
        arn = f"arn:aws:cloudwatch:{REGION}:{ACCOUNT}:alarm:{name}"
        if name not in self.composites:  # or they are ignored
            self.tags[arn] = {tag["Key"]: tag["Value"] for tag in Tags}
        self.composites[name] = {**request, "AlarmArn": arn, "StateValue": "OK", "InsufficientDataActions": []}

    def _describe_alarms(self, AlarmNamePrefix: str = "", NextToken: str = "", **more: Any) -> Any:  # noqa: ANN401, N803
        assert more["AlarmTypes"] == ["MetricAlarm", "CompositeAlarm"]  # without it AWS tells of metric alarms alone
        if not NextToken:
            there = self.moto.describe_alarms(AlarmNamePrefix=AlarmNamePrefix)["MetricAlarms"]
            return {"MetricAlarms": there, "NextToken": "composites"}
        return {"CompositeAlarms": [o for name, o in self.composites.items() if name.startswith(AlarmNamePrefix)]}

    def _delete_alarms(self, AlarmNames: Sequence[str]) -> None:  # noqa: N803 - AWS's
        mine = [name for name in AlarmNames if name in self.composites]
        if len(mine) > 1:
            raise refusal("DeleteAlarms", "ValidationError", "more than one composite alarm")
        for name, one in self.composites.items():
            if name not in AlarmNames and any(f'"{gone}"' in one["AlarmRule"] for gone in AlarmNames):
                raise refusal("DeleteAlarms", "ValidationError", f"{name} reads it")
        for name in mine:
            del self.composites[name]
        if others := [name for name in AlarmNames if name not in mine]:
            self.moto.delete_alarms(AlarmNames=others)

    def _list_tags_for_resource(self, ResourceARN: str) -> Any:  # noqa: ANN401, N803 - AWS's
        if ResourceARN in self.tags:
            return {"Tags": [{"Key": key, "Value": value} for key, value in self.tags[ResourceARN].items()]}
        return self.moto.list_tags_for_resource(ResourceARN=ResourceARN)

    def _tag_resource(self, ResourceARN: str, Tags: Sequence[Mapping[str, str]]) -> None:  # noqa: N803 - AWS's
        if ResourceARN in self.tags:
            self.tags[ResourceARN] |= {tag["Key"]: tag["Value"] for tag in Tags}
        else:
            self.moto.tag_resource(ResourceARN=ResourceARN, Tags=Tags)


@dataclass
class Time:
    """A clock that goes on when somebody sleeps."""

    now: float = 1000.0
    slept: list[float] = field(default_factory=list)

    def sleep(self, seconds: float) -> None:
        """Wait."""
        self.slept.append(seconds)
        self.now += seconds


@pytest.fixture(scope="module")
def server() -> Iterator[MotoServer]:
    """One moto for all tests of this file."""
    with moto_server() as running:
        yield running


@pytest.fixture
def moto(server: MotoServer, monkeypatch: pytest.MonkeyPatch) -> Any:  # noqa: ANN401 - boto3 ships no types
    """CloudWatch as moto has it, without an alarm, by the client that is used in production."""
    server.reset()
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in {**server.environment(), "AWS_ENDPOINT_URL": server.url}.items():
        monkeypatch.setenv(name, value)
    return boto_client("cloudwatch", REGION)


@pytest.fixture
def cloud(moto: Any) -> Cloud:  # noqa: ANN401 - as above
    """CloudWatch, without an alarm."""
    return Cloud(moto)


def api(cloud: Cloud, time: Time | None = None) -> Api:
    """The same behind our calls, at a time that costs none."""
    time = time or Time()
    return Api(REGION, clients=lambda _service, _region: cloud, clock=lambda: time.now, sleep=time.sleep)


def applied(cloud: Cloud, *wanted: Alarm) -> list[Outcome]:
    """Make it so."""
    cloud.wanted = {**cloud.wanted, **{alarm.name: alarm for alarm in wanted}}
    return list(deploy.apply(drift(cloud, *wanted), {REGION: api(cloud)}))


def drift(cloud: Cloud, *wanted: Alarm) -> tuple[Finding, ...]:
    """What is not as it should be."""
    return compare(wanted, list(deployed(api(cloud), "slo-")))


def names_of(cloud: Cloud, operation: str) -> list[str]:
    """The alarms that an operation was asked for."""
    return [arguments["AlarmName"] for asked, arguments in cloud.calls if asked == operation]


def test_all_is_made_and_then_there_is_no_drift(cloud: Cloud) -> None:
    """Children are made before their composites, with tags; the same again changes nothing."""
    outcomes = applied(cloud, *ALL)
    assert [(one.finding.kind, one.finding.name, one.state) for one in outcomes] == [
        (Kind.MISSING, alarm.name, State.DONE) for alarm in ALL
    ]
    puts = [(asked, arguments["AlarmName"]) for asked, arguments in cloud.calls if asked.startswith("put_")]
    assert [name for _, name in puts] == [alarm.name for alarm in ALL]
    assert {one.name: dict(one.tags) for one in deployed(api(cloud), "slo-")} == {alarm.name: TAGS for alarm in ALL}
    assert drift(cloud, *ALL) == ()
    cloud.calls.clear()
    assert applied(cloud, *ALL) == []
    assert {asked for asked, _ in cloud.calls} == {"describe_alarms", "list_tags_for_resource"}


def test_drift_is_told_field_by_field(cloud: Cloud) -> None:
    """Whatever differs is named with its path, as it should be and as it is; what AWS adds itself is none."""
    applied(cloud, *ALL)
    other = replace(FAST[0], threshold=Decimal(6), evaluation_periods=3, datapoints_to_alarm=2)
    slower = replace(SLOW[1], suppressor=None, description="Burns slowly.")
    [one, two] = drift(cloud, other, *FAST[1:], SLOW[0], slower)
    assert (one.kind, one.name) == (Kind.CHANGED, "slo-fast-long")
    assert one.differences == (
        Difference("DatapointsToAlarm", "2", "1"),
        Difference("EvaluationPeriods", "3", "1"),
        Difference("Threshold", "6", "14.4"),
    )
    assert [difference.field for difference in two.differences] == [
        "ActionsSuppressor",
        "ActionsSuppressorExtensionPeriod",
        "ActionsSuppressorWaitPeriod",
        "AlarmDescription",
    ]
    assert two.differences[0].generated is None


def test_a_query_is_compared_by_its_id() -> None:
    """The order of queries, dimensions and actions, and what stands there by default, are no difference."""
    alarm = FAST[0]
    told = alarm.request()
    told["Metrics"] = [dict(query) for query in reversed(told["Metrics"])]
    del told["Metrics"][0]["ReturnData"]
    told["Metrics"][1]["MetricStat"] = {**told["Metrics"][1]["MetricStat"], "Unit": None}
    told |= {"OKActions": [], "EvaluateLowSampleCountPercentile": "evaluate", "Dimensions": [], "StateValue": "ALARM"}
    one = Deployed(region=REGION, told={**told, "AlarmArn": "arn"}, tags=TAGS)
    assert compare([alarm], [one]) == ()
    told["Metrics"][0]["Expression"] = "0"
    [found] = compare([alarm], [Deployed(region=REGION, told={**told, "AlarmArn": "arn"}, tags=TAGS)])
    assert [difference.field for difference in found.differences] == ["Metrics.burn.Expression"]


def test_a_change_is_put_whole_and_tags_by_themselves(cloud: Cloud) -> None:
    """A changed field is put; a changed tag is set on what is there, since AWS ignores it in a put."""
    applied(cloud, *ALL)
    cloud.calls.clear()
    moved = {**TAGS, "owner": "other-team"}
    wanted = (replace(FAST[0], threshold=Decimal(6)), FAST[1], replace(FAST[2], tags=moved), *SLOW)
    assert [one.state for one in applied(cloud, *wanted)] == [State.DONE, State.DONE]
    [put] = [arguments for asked, arguments in cloud.calls if asked.startswith("put_")]
    assert (put["AlarmName"], put["Threshold"]) == ("slo-fast-long", 6.0)
    assert "Tags" not in put
    assert [asked for asked, _ in cloud.calls].count("tag_resource") == 1
    assert drift(cloud, *wanted) == ()


def test_what_is_generated_no_more_is_deleted_readers_first(cloud: Cloud) -> None:
    """Composites go before what they read, one a call, metric alarms together, and only at the end."""
    parent = composite("slo-zone", "slo-slow")
    applied(cloud, *ALL, parent)
    cloud.calls.clear()
    outcomes = applied(cloud, *FAST, metric("slo-new"))
    deleted = [arguments["AlarmNames"] for asked, arguments in cloud.calls if asked == "delete_alarms"]
    assert deleted == [["slo-zone"], ["slo-slow"], ["slo-slow-long"]]
    assert {one.state for one in outcomes} == {State.DONE}
    order = [asked for asked, _ in cloud.calls]
    assert order.index("put_metric_alarm") < order.index("delete_alarms")
    assert drift(cloud, *FAST, metric("slo-new")) == ()


def test_nothing_of_others_is_touched(cloud: Cloud) -> None:
    """An alarm without our tag is neither deleted nor overwritten, nor is its reader made; others may add tags."""
    theirs = replace(FAST[0], tags={"owner": "somebody"}, threshold=Decimal(1))
    stranger = replace(metric("slo-stranger"), tags={})
    for alarm in (theirs, stranger):
        cloud.moto.put_metric_alarm(**alarm.request())
    outcomes = {one.finding.name: one for one in applied(cloud, *FAST)}
    assert {name: one.state for name, one in outcomes.items()} == {
        "slo-fast-long": State.FAILED,
        "slo-fast-short": State.DONE,
        "slo-fast": State.SKIPPED,
    }
    assert outcomes["slo-fast-long"].finding.kind is Kind.FOREIGN
    assert "slo-fast-long" in outcomes["slo-fast"].why
    [kept] = cloud.moto.describe_alarms(AlarmNames=["slo-fast-long"])["MetricAlarms"]
    assert kept["Threshold"] == 1
    assert cloud.moto.describe_alarms(AlarmNames=["slo-stranger"])["MetricAlarms"]
    short = next(one for one in deployed(api(cloud), "slo-fast-short"))
    cloud.moto.tag_resource(ResourceARN=short.arn, Tags=[{"Key": "bill", "Value": "7"}])
    assert "slo-fast-short" not in {one.name for one in drift(cloud, *FAST)}


def test_a_refused_alarm_holds_up_its_readers_and_deletions(cloud: Cloud) -> None:
    """What AWS refuses is told with its words; the rest is made, its readers and deletions wait."""
    applied(cloud, metric("slo-old"))
    cloud.faults["put_metric_alarm"] = [refusal("PutMetricAlarm", "LimitExceeded", "too many alarms")]
    outcomes = {one.finding.name: one for one in applied(cloud, *ALL)}
    assert {name: one.state for name, one in outcomes.items()} == {
        "slo-fast-long": State.FAILED,
        "slo-fast-short": State.DONE,
        "slo-fast": State.SKIPPED,
        "slo-slow-long": State.DONE,
        "slo-slow": State.SKIPPED,  # its suppressor is not there
        "slo-old": State.SKIPPED,
    }
    assert outcomes["slo-fast-long"].why == "refuses PutMetricAlarm: LimitExceeded: too many alarms"
    assert {one.state for one in applied(cloud, *ALL)} == {State.DONE}
    assert drift(cloud, *ALL) == ()


def test_without_access_it_stops(cloud: Cloud) -> None:
    """Refused at the first call it raises, as nothing was done; later the rest is not tried."""
    denied = refusal("PutMetricAlarm", "AccessDenied", "not authorized to perform: cloudwatch:PutMetricAlarm", 403)
    cloud.faults["put_metric_alarm"] = [denied]
    with pytest.raises(CallError, match="not authorized to perform: cloudwatch:PutMetricAlarm"):
        applied(cloud, *ALL)
    cloud.faults["put_composite_alarm"] = [denied]
    states = [one.state for one in applied(cloud, *ALL)]
    assert states == [State.DONE, State.DONE, State.FAILED, State.SKIPPED, State.SKIPPED]
    assert len(names_of(cloud, "put_metric_alarm")) == 3


def test_throttling_is_waited_out(cloud: Cloud) -> None:
    """A throttled call is made again after longer and longer pauses, which chance cuts to a half at most."""
    time = Time()
    cloud.faults["describe_alarms"] = [
        refusal("DescribeAlarms", "Throttling"),
        refusal("DescribeAlarms", "InternalServiceFault", status=500),
        botocore.exceptions.ConnectTimeoutError(endpoint_url="https://monitoring.example"),
    ]
    assert list(deployed(api(cloud, time), "slo-")) == []
    pauses = [seconds for seconds in time.slept if seconds > 1 / 9 + 1e-9]
    assert len(pauses) == 3
    for seconds, most in zip(pauses, (0.5, 1.0, 2.0), strict=True):
        assert most / 2 <= seconds <= most


def test_an_answer_that_never_comes_is_an_error(cloud: Cloud) -> None:
    """After six attempts it gives up and says so."""
    cloud.faults["describe_alarms"] = [refusal("DescribeAlarms", "Throttling")] * 6
    with pytest.raises(CallError, match="does not answer DescribeAlarms, after 6 attempts: Throttling") as caught:
        list(deployed(api(cloud), "slo-"))
    assert caught.value.is_final


def test_calls_keep_to_the_rate_of_aws(cloud: Cloud) -> None:
    """Ten alarms take three seconds, as PutMetricAlarm may be called three times a second."""
    time = Time()
    wanted = [metric(f"slo-{number}") for number in range(10)]
    findings = compare(wanted, [])
    began = time.now
    assert {one.state for one in deploy.apply(findings, {REGION: api(cloud, time)})} == {State.DONE}
    assert time.now - began == pytest.approx(3.0)
    began = time.now
    assert len(list(deployed(api(cloud, time), "slo-"))) == 10
    assert time.now - began == pytest.approx(9 / 9)


def test_credentials_are_asked_for_in_plain_words(moto: Any, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: ANN401
    """Without credentials, or with those of another account, an error says what to do."""
    assert moto
    check_account(Api(REGION), ACCOUNT)
    with pytest.raises(SloError, match=f"belong to {ACCOUNT}, and .* names 999999999999"):
        check_account(Api(REGION), "999999999999")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(CallError, match="no credentials; set AWS_PROFILE, or log in"):
        check_account(Api(REGION), ACCOUNT)
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(CallError, match="nobody"):
        check_account(Api(REGION), ACCOUNT)


def test_moto_keeps_what_is_put(moto: Any) -> None:  # noqa: ANN401 - as above
    """Over HTTP, with the client of production and no fake between: metric alarms come back as they were put."""
    assert moto
    own = Api(REGION)
    assert [one.state for one in deploy.apply(compare(FAST[:2], []), {REGION: own})] == [State.DONE, State.DONE]
    there = list(deployed(own, "slo-"))
    assert compare(FAST[:2], there) == ()
    assert [one.kind for one in compare([], there)] == [Kind.EXTRA, Kind.EXTRA]
    assert list(deployed(own, "other-")) == []
