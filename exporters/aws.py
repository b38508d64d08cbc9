"""AWS, by boto3. No other file of the exporters knows it; what it raises is a `CallError`.

Nothing is called, and no credentials are looked for, before the first question.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from email.utils import parsedate_to_datetime
from typing import Any, Final

import boto3  # type: ignore[import-untyped]
import botocore  # type: ignore[import-untyped]
import botocore.config  # type: ignore[import-untyped]
import botocore.credentials  # type: ignore[import-untyped]
import botocore.exceptions  # type: ignore[import-untyped]
import botocore.parsers  # type: ignore[import-untyped]
import botocore.session  # type: ignore[import-untyped]

from exporters.calls import CallError, Calls, Reason
from exporters.cloudwatch import Answer, Batch
from exporters.settings import Account, Requests

CLOCK_SKEW_SECONDS_MAX: Final = 60.0
"""From here on our minutes are not AWS's: what is asked for as complete is not, and what is old looks new."""

_PAGES_MAX: Final = 1000
_TEXT_MAX: Final = 300
_SESSION_SECONDS: Final = 3600  # of an assumed role; boto3 renews it in time

# https://docs.aws.amazon.com/AWSEC2/latest/APIReference/throttling.html, and each service's own word for it.
_THROTTLED: Final = frozenset(
    {
        "BandwidthLimitExceeded",
        "PriorRequestNotComplete",
        "RequestLimitExceeded",
        "RequestThrottled",
        "RequestThrottledException",
        "SlowDown",
        "ThrottledException",
        "Throttling",
        "ThrottlingException",
        "TooManyRequestsException",
    }
)
_CLOCK_SKEW: Final = frozenset({"RequestExpired", "RequestInTheFuture", "RequestTimeTooSkewed"})
_SIGNATURE: Final = frozenset({"InvalidSignatureException", "SignatureDoesNotMatch"})
_DENIED: Final = _SIGNATURE | frozenset(
    {
        "AccessDenied",
        "AccessDeniedException",
        "AuthFailure",
        "AuthorizationError",
        "ExpiredToken",
        "ExpiredTokenException",
        "IncompleteSignature",
        "InvalidAccessKeyId",
        "InvalidClientTokenId",
        "MissingAuthenticationToken",
        "NotAuthorizedException",
        "OptInRequired",
        "UnauthorizedOperation",
        "UnrecognizedClientException",
    }
)
_HTTP_UNAUTHORIZED, _HTTP_FORBIDDEN, _HTTP_TOO_MANY, _HTTP_SERVER_ERROR = 401, 403, 429, 500

# API -> the parameter that names the next page, the field that has it, and the field with the page's own things.
_PAGED: Final[Mapping[str, tuple[str, str, str]]] = {
    "ec2:DescribeInstanceTypes": ("NextToken", "NextToken", "InstanceTypes"),
    "elasticache:DescribeReplicationGroups": ("Marker", "Marker", "ReplicationGroups"),
    "elbv2:DescribeLoadBalancers": ("Marker", "NextMarker", "LoadBalancers"),
    "elbv2:DescribeTargetGroups": ("Marker", "NextMarker", "TargetGroups"),
    "rds:DescribeDBInstances": ("Marker", "Marker", "DBInstances"),
    "rds:DescribeEvents": ("Marker", "Marker", "Events"),
    "resourcegroupstaggingapi:GetResources": ("PaginationToken", "PaginationToken", "ResourceTagMappingList"),
    "route53:ListHealthChecks": ("Marker", "NextMarker", "HealthChecks"),
    "sqs:ListQueues": ("NextToken", "NextToken", "QueueUrls"),
    "wafv2:ListWebACLs": ("NextMarker", "NextMarker", "WebACLs"),
}


class Aws:
    """One account, in every region; threads share it.

    Args:
        account: Whose credentials, and by which role.
        requests: How long it may take, and where AWS is.
        tags: Tag -> its allowed values; none: any.
    """

    def __init__(self, account: Account, requests: Requests, tags: Mapping[str, tuple[str, ...]]) -> None:
        self.account = account
        self.tags = tags
        self._requests = requests
        self._lock = threading.RLock()
        self._session: Any = None
        self._clients: dict[tuple[str, str], Any] = {}

    def ask(self, calls: Calls, region: str, api: str, **parameters: Any) -> dict[str, Any]:  # noqa: ANN401 - as boto3
        """The answer to one question, `sqs:GetQueueAttributes` say.

        Raises:
            CallError: There is none.
        """
        return calls(api, lambda: self._ask(calls, region, api, parameters))

    def all(self, calls: Calls, region: str, api: str, **parameters: Any) -> Iterator[Any]:  # noqa: ANN401 - as boto3
        """Everything that a list has, page by page.

        Raises:
            CallError: A page is missing.
        """
        parameter, token, things = _PAGED[api]
        for _ in range(_PAGES_MAX):
            page = self.ask(calls, region, api, **parameters)
            yield from page.get(things, ())
            if not page.get(token):
                return
            parameters[parameter] = page[token]
        raise calls.failed(api, CallError(Reason.PARTIAL, f"more than {_PAGES_MAX} pages"))

    def tagged(self, calls: Calls, region: str, service: str) -> frozenset[str] | None:
        """The ARNs of a service's resources that carry the tags; None when none are asked for.

        Raises:
            CallError: There is no answer.
        """
        if not self.tags:
            return None
        filters = [{"Key": tag, "Values": list(values)} for tag, values in self.tags.items()]
        found = self.all(
            calls,
            region,
            "resourcegroupstaggingapi:GetResources",
            TagFilters=filters,
            ResourceTypeFilters=[service],
        )
        return frozenset(one["ResourceARN"] for one in found)

    def metric_data(self, calls: Calls, batch: Batch) -> tuple[list[Answer | None], list[CallError]]:
        """What CloudWatch has of a batch: an answer for each query, or None where it had none to give.

        Raises:
            CallError: There is no answer at all.
        """
        queries = [
            {
                "Id": f"q{number}",
                "MetricStat": {
                    "Metric": {
                        "Namespace": query.namespace,
                        "MetricName": query.name,
                        "Dimensions": [{"Name": name, "Value": value} for name, value in query.dimensions],
                    },
                    "Period": query.period_seconds,
                    "Stat": query.statistic,
                },
            }
            for number, query in enumerate(batch.queries)
        ]
        answers = [Answer(start=batch.start, end=batch.end) for _ in queries]
        status = ["InternalError"] * len(queries)
        parameters: dict[str, Any] = {"MetricDataQueries": queries, "StartTime": batch.start, "EndTime": batch.end}
        for _ in range(_PAGES_MAX):
            page = self.ask(calls, batch.region, "cloudwatch:GetMetricData", **parameters)
            for result in page["MetricDataResults"]:
                number = int(result["Id"][1:])
                status[number] = result["StatusCode"]
                times = (int(at.timestamp()) for at in result["Timestamps"])
                answers[number].points.update(zip(times, result["Values"], strict=True))
            if not page.get("NextToken"):
                break
            parameters["NextToken"] = page["NextToken"]
        calls.tally.metrics += batch.billed  # once it was answered: AWS bills no refusal
        return _judged(calls, batch, answers, status)

    def _ask(self, calls: Calls, region: str, api: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
        service, _, operation = api.partition(":")
        try:
            client = self._client(service, region)
            answer: dict[str, Any] = getattr(client, botocore.xform_name(operation))(**parameters)
        except botocore.exceptions.ClientError as error:
            raise _refusal(error.response) from error
        except (botocore.exceptions.BotoCoreError, botocore.parsers.ResponseParserError) as error:
            raise _failure(error) from error
        _check_clock(answer, calls.clock.now())
        return answer

    def _client(self, service: str, region: str) -> Any:  # noqa: ANN401 - boto3 ships no types
        with self._lock:  # a session is no place for two threads; its clients are
            if (service, region) not in self._clients:
                self._session = self._session or self._begin(region)
                self._clients[service, region] = self._make(self._session, service, region)
            return self._clients[service, region]

    def _make(self, session: Any, service: str, region: str) -> Any:  # noqa: ANN401 - as above
        config = botocore.config.Config(
            connect_timeout=self._requests.timeout_seconds,
            read_timeout=self._requests.timeout_seconds,
            retries={"total_max_attempts": 1},  # `Calls` repeats, and counts
            tcp_keepalive=True,
        )
        return session.client(service, region_name=region, endpoint_url=self._requests.endpoint_url, config=config)

    def _begin(self, region: str) -> Any:  # noqa: ANN401 - as above
        own = boto3.session.Session()
        if self.account.role_arn is None:
            return own
        role = _Role(self._make(own, "sts", region), self.account)
        core = botocore.session.get_session()
        core.register_component("credential_provider", botocore.credentials.CredentialResolver([role]))
        return boto3.session.Session(botocore_session=core)


class _Role(botocore.credentials.CredentialProvider):  # type: ignore[misc] # it ships no types
    """The credentials of an assumed role, renewed by boto3 before they end."""

    METHOD = "assume-role"

    def __init__(self, sts: Any, account: Account) -> None:  # noqa: ANN401 - boto3 ships no types
        super().__init__()
        self._sts = sts
        self._account = account

    def load(self) -> Any:  # noqa: ANN401 - as above
        return botocore.credentials.DeferredRefreshableCredentials(self._fetch, self.METHOD)

    def _fetch(self) -> dict[str, str]:
        given = {"ExternalId": self._account.external_id} if self._account.external_id else {}
        told = self._sts.assume_role(
            RoleArn=self._account.role_arn, RoleSessionName="exporters", DurationSeconds=_SESSION_SECONDS, **given
        )["Credentials"]
        return {
            "access_key": told["AccessKeyId"],
            "secret_key": told["SecretAccessKey"],
            "token": told["SessionToken"],
            "expiry_time": told["Expiration"].isoformat(),
        }


# --- what an answer means ---------------------------------------------------------------------------------------------


def _judged(
    calls: Calls, batch: Batch, answers: list[Answer], status: list[str]
) -> tuple[list[Answer | None], list[CallError]]:
    """Answers by their status codes, and one error for each kind of them."""
    told: list[Answer | None] = []
    missing: dict[Reason, list[str]] = {}
    for query, answer, code in zip(batch.queries, answers, status, strict=True):
        answer.complete = code == "Complete"
        told.append(answer if code in ("Complete", "PartialData") else None)
        if not answer.complete:
            reason = {"Forbidden": Reason.DENIED, "PartialData": Reason.PARTIAL}.get(code, Reason.OTHER)
            missing.setdefault(reason, []).append(f"{query.namespace} {query.name}: {code}")
    errors = [
        calls.failed(
            "cloudwatch:GetMetricData",
            CallError(reason, f"{len(names)} of {len(batch.queries)} metrics, {names[0]} for one"),
        )
        for reason, names in missing.items()
    ]
    return told, errors


def _check_clock(answer: Mapping[str, Any], now: float) -> None:
    """Compare our clock with the answer's `Date`."""
    told = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date")
    if told is None:
        return
    try:
        skew = now - parsedate_to_datetime(told).timestamp()
    except ValueError:
        return
    if abs(skew) > CLOCK_SKEW_SECONDS_MAX:
        way = "ahead of" if skew > 0 else "behind"
        raise CallError(Reason.CLOCK_SKEW, f"the clock here is {abs(skew):.0f} s {way} that of AWS")


def _refusal(response: Mapping[str, Any]) -> CallError:
    """What AWS says about a call that it refused."""
    code = str(response.get("Error", {}).get("Code", "unknown"))
    message = str(response.get("Error", {}).get("Message", ""))
    http = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    # The message of a wrong signature quotes what was signed, the session's token among it.
    text = code if code in _SIGNATURE else f"{code}: {message}"[:_TEXT_MAX]
    late = code in _SIGNATURE and ("Signature expired" in message or "Signature not yet current" in message)
    if code in _CLOCK_SKEW or late:
        return CallError(Reason.CLOCK_SKEW, f"{code}: the clock here is not that of AWS")
    if code in _THROTTLED or http == _HTTP_TOO_MANY:
        return CallError(Reason.THROTTLED, text, repeatable=True)
    if code in _DENIED or http in (_HTTP_UNAUTHORIZED, _HTTP_FORBIDDEN):
        return CallError(Reason.DENIED, text)
    return CallError(Reason.OTHER, text, repeatable=http >= _HTTP_SERVER_ERROR)


def _failure(error: Exception) -> CallError:
    """What kept a call from being answered."""
    text = f"{type(error).__name__}: {error}"[:_TEXT_MAX]
    match error:
        case botocore.exceptions.ConnectTimeoutError() | botocore.exceptions.ReadTimeoutError():
            return CallError(Reason.TIMEOUT, text, repeatable=True)
        case botocore.exceptions.HTTPClientError() | botocore.parsers.ResponseParserError():
            return CallError(Reason.OTHER, text, repeatable=True)
        case (
            botocore.exceptions.NoCredentialsError()
            | botocore.exceptions.PartialCredentialsError()
            | botocore.exceptions.CredentialRetrievalError()
            | botocore.exceptions.ProfileNotFound()
            | botocore.exceptions.TokenRetrievalError()
        ):
            return CallError(Reason.DENIED, text)
        case _:
            return CallError(Reason.OTHER, text)
