"""Alarms made, changed and deleted in CloudWatch, through boto3. The only file of alerts that knows AWS.

Every call keeps to AWS's rate, and is made again, after a random pause, where that may help. Nothing is overwritten or
deleted that has not our tag.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, TypeAlias

import boto3  # type: ignore[import-untyped]
import botocore.config  # type: ignore[import-untyped]
import botocore.exceptions  # type: ignore[import-untyped]

from alerts.cloudwatch.compare import Deployed, Finding, Kind
from alerts.cloudwatch.model import CompositeAlarm
from slo.errors import SloError

ClientFactory: TypeAlias = Callable[[str, str], Any]
"""Service and region -> boto3's client, or what acts like it."""

# Calls per second and region (https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/cloudwatch_limits.html).
# Of the tags' calls no quota is published; they go as fast as reading.
_WRITES_PER_SECOND: Final = 3
_READS_PER_SECOND: Final = 9
_WRITES: Final = frozenset({"put_metric_alarm", "put_composite_alarm", "delete_alarms"})

_ATTEMPTS_MAX: Final = 6
_PAUSE_SECONDS: Final = 0.5  # at most, before the second attempt; twice as much before each further one
_PAUSE_SECONDS_MAX: Final = 8.0
_CONNECT_SECONDS: Final = 5
_ANSWER_SECONDS: Final = 20
_DELETED_MAX: Final = 100  # alarms of one DeleteAlarms, of which one may be composite: API_DeleteAlarms

_SERVER_FAULT_STATUS_MIN: Final = 500
_TRANSIENT: Final = frozenset(
    {
        "ConcurrentModificationException",
        "InternalFailure",
        "InternalServiceFault",
        "RequestLimitExceeded",
        "RequestTimeout",
        "ServiceUnavailable",
        "TooManyRequestsException",
    }
)
_NO_ACCESS: Final = frozenset(
    {
        "AccessDenied",
        "AccessDeniedException",
        "AuthFailure",
        "ExpiredToken",
        "ExpiredTokenException",
        "InvalidClientTokenId",
        "InvalidSignatureException",
        "MissingAuthenticationToken",
        "OptInRequired",
        "SignatureDoesNotMatch",
        "UnauthorizedOperation",
        "UnrecognizedClientException",
    }
)
_GONE: Final = frozenset({"ResourceNotFound", "ResourceNotFoundException"})


class CallError(SloError):
    """AWS did not do what it was asked.

    Attributes:
        text: What it said.
        code: What AWS or boto3 calls the fault.
        is_final: The same would be said of every other alarm: no access, or no answer.
    """

    def __init__(self, region: str, text: str, *, code: str, is_final: bool) -> None:
        super().__init__(f"AWS in {region}", [text])
        self.text = text
        self.code = code
        self.is_final = is_final


def boto_client(service: str, region: str) -> Any:  # noqa: ANN401 - boto3 ships no types
    """boto3's client with the credentials of the environment; it makes no second attempt by itself."""
    config = botocore.config.Config(
        connect_timeout=_CONNECT_SECONDS, read_timeout=_ANSWER_SECONDS, retries={"total_max_attempts": 1}
    )
    return boto3.session.Session().client(service, region_name=region, config=config)


class Api:
    """CloudWatch in one region.

    Args:
        region: Which.
        clients: Makes clients; the first call asks for one.
        clock: Seconds that never go back.
        sleep: Waits for so many seconds.
        chance: A random number, 0 to 1.
    """

    def __init__(
        self,
        region: str,
        *,
        clients: ClientFactory = boto_client,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.region = region
        self._factory = clients
        self._clock = clock
        self._sleep = sleep
        self._chance = chance
        self._clients: dict[str, Any] = {}
        self._next: dict[str, float] = {}

    def call(self, operation: str, *, service: str = "cloudwatch", **arguments: object) -> dict[str, Any]:
        """Call AWS, and again if that may help.

        Raises:
            CallError: It refuses, or does not answer.
        """
        fault = ""
        for attempt in range(_ATTEMPTS_MAX):
            if attempt:
                most = min(_PAUSE_SECONDS * 2 ** (attempt - 1), _PAUSE_SECONDS_MAX)
                self._sleep(most * (0.5 + self._chance() / 2))
            self._keep_rate(operation)
            try:
                if service not in self._clients:
                    self._clients[service] = self._factory(service, self.region)
                answer: dict[str, Any] = getattr(self._clients[service], operation)(**arguments)
            except botocore.exceptions.ClientError as error:
                if refused := _refusal(self.region, operation, error):
                    raise refused from error
                fault = error.response["Error"]["Code"]
            except (botocore.exceptions.HTTPClientError, botocore.exceptions.ConnectionError) as error:
                fault = type(error).__name__
            except (botocore.exceptions.BotoCoreError, ValueError) as error:
                raise _misconfigured(self.region, error) from error
            else:
                return answer
        text = f"does not answer {_action(operation)}, after {_ATTEMPTS_MAX} attempts: {fault}"
        raise CallError(self.region, text, code=fault, is_final=True)

    def _keep_rate(self, operation: str) -> None:
        now, free = self._clock(), self._next.get(operation, 0.0)
        if now < free:
            self._sleep(free - now)
        rate = _WRITES_PER_SECOND if operation in _WRITES else _READS_PER_SECOND
        self._next[operation] = max(now, free) + 1 / rate


def _refusal(region: str, operation: str, error: botocore.exceptions.ClientError) -> CallError | None:
    """What AWS said; None when the same call may work later."""
    told = error.response
    code = told["Error"].get("Code", "")
    status = told.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if code in _TRANSIENT or "Throttl" in code or status >= _SERVER_FAULT_STATUS_MIN:
        return None
    message = told["Error"].get("Message") or "it does not say why"
    text = f"refuses {_action(operation)}: {code}: {message}"
    return CallError(region, text, code=code, is_final=code in _NO_ACCESS)


def _misconfigured(region: str, error: Exception) -> CallError:
    advice = {
        "NoCredentialsError": "no credentials; set AWS_PROFILE, or log in",
        "PartialCredentialsError": "half of the credentials only; set key id and secret, or AWS_PROFILE",
    }
    name = type(error).__name__
    return CallError(region, advice.get(name, f"cannot be asked: {name}: {error}"), code=name, is_final=True)


def _action(operation: str) -> str:
    """`put_metric_alarm` is `PutMetricAlarm` in a policy."""
    return "".join(word.capitalize() for word in operation.split("_"))


# --- what is there ----------------------------------------------------------------------------------------------------


def check_account(api: Api, account: str) -> None:
    """See that the credentials belong to the account of the settings.

    Raises:
        SloError: They do not, or are no good.
    """
    found = api.call("get_caller_identity", service="sts")["Account"]
    if found != account:
        raise SloError(
            "account", [f"the credentials belong to {found}, and [tool.slo.cloudwatch] names {account}; use its own"]
        )


def deployed(api: Api, prefix: str) -> Iterator[Deployed]:
    """Every alarm of the region whose name begins so, with its tags.

    Raises:
        CallError: They cannot be read.
    """
    page: dict[str, Any] = {"AlarmTypes": ["MetricAlarm", "CompositeAlarm"], "MaxRecords": 100}
    if prefix:
        page["AlarmNamePrefix"] = prefix
    while True:
        answer = api.call("describe_alarms", **page)
        for told in (*answer.get("MetricAlarms", ()), *answer.get("CompositeAlarms", ())):
            try:
                tags = api.call("list_tags_for_resource", ResourceARN=told["AlarmArn"])["Tags"]
            except CallError as error:
                if error.code in _GONE:  # deleted meanwhile
                    continue
                raise
            yield Deployed(region=api.region, told=told, tags={tag["Key"]: tag["Value"] for tag in tags})
        if not answer.get("NextToken"):
            return
        page["NextToken"] = answer["NextToken"]


# --- making it so -----------------------------------------------------------------------------------------------------


class State(StrEnum):
    """What became of a finding."""

    DONE = "done"
    FAILED = "failed"
    SKIPPED = "not tried"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a finding.

    Attributes:
        finding: Which.
        state: Whether it is mended.
        why: Why not; empty when it is.
    """

    finding: Finding
    state: State
    why: str = ""


def apply(findings: Sequence[Finding], apis: Mapping[str, Api]) -> Iterator[Outcome]:
    """Mend what was found, one after the other: what is read before its readers, and deletions at the end.

    An alarm that AWS refuses holds up those that read it, and every deletion. Without access nothing more is tried.

    Args:
        findings: In the order of `compare`.
        apis: Region -> CloudWatch there.

    Raises:
        CallError: The first call already found no access or no answer, so nothing was done.
    """
    wrong: dict[tuple[str, str], str] = {}
    stopped, is_first = "", True
    for finding in findings:
        if finding.kind is Kind.EXTRA:
            continue
        key = (finding.region, finding.name)
        why = stopped or _hindrance(finding, wrong)
        outcome = Outcome(finding, State.SKIPPED, why)
        if finding.kind is Kind.FOREIGN:
            outcome = Outcome(
                finding, State.FAILED, "an alarm of this name and another kind or without our tag is there"
            )
        elif not why:
            try:
                _put(apis[finding.region], finding)
                outcome = Outcome(finding, State.DONE)
            except CallError as error:
                if is_first and error.is_final:
                    raise
                stopped = "stopped: " + error.text if error.is_final else ""
                outcome = Outcome(finding, State.FAILED, error.text)
            is_first = False
        if outcome.state is not State.DONE:
            wrong[key] = finding.name
        yield outcome
    extra = [finding for finding in findings if finding.kind is Kind.EXTRA]
    if wrong:
        yield from (Outcome(one, State.SKIPPED, "nothing is deleted before the rest is done") for one in extra)
    else:
        yield from _delete(extra, apis, is_first=is_first)


def _hindrance(finding: Finding, wrong: Mapping[tuple[str, str], str]) -> str:
    reads = finding.alarm.reads if isinstance(finding.alarm, CompositeAlarm) else ()
    return next((f"reads {name}, which is not in order" for name in reads if (finding.region, name) in wrong), "")


def _put(api: Api, finding: Finding) -> None:
    assert finding.alarm is not None, "only an extra one has none, and it is deleted"
    request = finding.alarm.request()
    operation = "put_composite_alarm" if isinstance(finding.alarm, CompositeAlarm) else "put_metric_alarm"
    if finding.deployed is None:
        api.call(operation, **request)
        return
    # AWS overwrites the whole definition, and ignores tags of what is there already.
    if not all(difference.is_tag for difference in finding.differences):
        api.call(operation, **{name: value for name, value in request.items() if name != "Tags"})
    if any(difference.is_tag for difference in finding.differences):
        api.call("tag_resource", ResourceARN=finding.deployed.arn, Tags=request["Tags"])


def _delete(extra: Sequence[Finding], apis: Mapping[str, Api], *, is_first: bool) -> Iterator[Outcome]:
    stopped = ""
    for some in _portions(extra):
        if stopped:
            yield from (Outcome(one, State.SKIPPED, stopped) for one in some)
            continue
        state, why = State.DONE, ""
        try:
            apis[some[0].region].call("delete_alarms", AlarmNames=[one.name for one in some])
        except CallError as error:
            if is_first and error.is_final:
                raise
            state, why = State.FAILED, error.text
            stopped = "stopped: " + error.text  # what it reads cannot go either
        is_first = False
        yield from (Outcome(one, state, why) for one in some)


def _portions(extra: Sequence[Finding]) -> Iterator[tuple[Finding, ...]]:
    """What one call may delete, readers first."""
    composites = [one for one in extra if one.deployed and one.deployed.is_composite]
    yield from ((one,) for one in composites)
    regions = dict.fromkeys(one.region for one in extra)
    for region in regions:
        others = [one for one in extra if one.region == region and one not in composites]
        for begin in range(0, len(others), _DELETED_MAX):
            yield tuple(others[begin : begin + _DELETED_MAX])
