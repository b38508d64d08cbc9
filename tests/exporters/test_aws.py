"""The edge of AWS over HTTP: what its refusals, silences and wrong clocks become."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler
from typing import Any, ClassVar

import pytest

from drills.harness.http import serving
from exporters.aws import Aws
from exporters.calls import CallError, Calls, Reason, SystemClock
from exporters.cloudwatch import Batch, Query
from exporters.settings import Account, Requests
from exporters.sources.sqs import Sqs
from tests.exporters.fakes import ACCOUNT, REGION, Clock, log, unit

SECRET = "IQoJb3JpZ2luX2Vj-session-token"


class Handler(BaseHTTPRequestHandler):
    """Answers every request alike, in the JSON protocol of SQS."""

    status: ClassVar[int] = 200
    body: ClassVar[str] = '{"QueueUrls": []}'
    silent_seconds: ClassVar[float] = 0.0
    date: ClassVar[str | None] = None
    requests: ClassVar[int] = 0

    def do_POST(self) -> None:
        """Answer."""
        type(self).requests += 1
        time.sleep(self.silent_seconds)
        self.send_response(self.status)
        self.send_header("Content-Type", "application/x-amz-json-1.0")
        self.send_header("Content-Length", str(len(self.body)))
        self.end_headers()
        self.wfile.write(self.body.encode())

    def date_time_string(self, timestamp: float | None = None) -> str:
        """What stands in the `Date` header."""
        return self.date or super().date_time_string(timestamp)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def handler() -> type[Handler]:
    """A handler of the test's own."""
    return type("Own", (Handler,), {})


@pytest.fixture
def server(handler: type[Handler]) -> Iterator[str]:
    """The URL of an AWS that answers so."""
    with serving(handler) as url:
        yield url


def calls(attempts_max: int = 1) -> Calls:
    """Calls at the real time that never pause."""

    class Now(Clock):
        def now(self) -> float:
            return time.time()

    return Calls(Now(), attempts_max=attempts_max, retries_max=10)


def aws(url: str, timeout_seconds: float = 5.0) -> Aws:
    """An account at this address."""
    return Aws(Account(id=ACCOUNT), Requests(endpoint_url=url, timeout_seconds=timeout_seconds), {})


def refusal(code: str, message: str) -> str:
    """How SQS says no."""
    return f'{{"__type": "com.amazonaws.sqs#{code}", "message": "{message}"}}'


@pytest.mark.parametrize(
    ("refused", "reason", "attempts"),
    [
        ((400, "ThrottlingException"), Reason.THROTTLED, 3),
        ((400, "RequestThrottled"), Reason.THROTTLED, 3),
        ((400, "AccessDeniedException"), Reason.DENIED, 1),
        ((403, "InvalidClientTokenId"), Reason.DENIED, 1),
        ((400, "ExpiredTokenException"), Reason.DENIED, 1),
        ((403, "SomethingNew"), Reason.DENIED, 1),
        ((400, "RequestExpired"), Reason.CLOCK_SKEW, 1),
        ((400, "RequestTimeTooSkewed"), Reason.CLOCK_SKEW, 1),
        ((503, "ServiceUnavailable"), Reason.OTHER, 3),
        ((400, "ValidationError"), Reason.OTHER, 1),
    ],
)
def test_a_refusal_has_a_reason(
    handler: type[Handler], server: str, refused: tuple[int, str], reason: Reason, attempts: int
) -> None:
    """AWS's codes become our reasons; only what may pass by itself is asked again."""
    handler.status, handler.body = refused[0], refusal(refused[1], "no")

    with pytest.raises(CallError) as caught:
        list(aws(server).all(calls(3), REGION, "sqs:ListQueues"))

    assert (caught.value.reason, caught.value.call) == (reason, "sqs:ListQueues")
    assert refused[1] in caught.value.text
    assert handler.requests == attempts


def test_a_wrong_signature_is_told_without_what_was_signed(handler: type[Handler], server: str) -> None:
    """AWS quotes the request in its refusal, the session's token among it; that goes into no log."""
    handler.status = 403
    handler.body = refusal("SignatureDoesNotMatch", f"The Canonical String should be x-amz-security-token:{SECRET}")
    told, lines = log()
    one = unit("sqs", Sqs(), aws(server), Clock(time.time()), told)

    one.cycle()

    (line,) = lines()
    assert line["reason"] == "denied"
    assert line["error"] == "SignatureDoesNotMatch"
    assert SECRET not in str(line)


def test_a_signature_that_is_too_old_is_a_wrong_clock(handler: type[Handler], server: str) -> None:
    """The same code for two faults: the message says that it is the time."""
    handler.status = 403
    handler.body = refusal("InvalidSignatureException", "Signature expired: 20260101T000000Z is now earlier than")

    with pytest.raises(CallError) as caught:
        list(aws(server).all(calls(), REGION, "sqs:ListQueues"))

    assert caught.value.reason == Reason.CLOCK_SKEW


@pytest.mark.parametrize(("skew_seconds", "words"), [(36000, "s behind"), (-36000, "s ahead of"), (20, None)])
def test_a_wrong_clock_is_no_success(
    handler: type[Handler], server: str, skew_seconds: float, words: str | None
) -> None:
    """AWS's own `Date` tells: with a clock that is behind, an old minute would look new."""
    handler.date = format_datetime(datetime.fromtimestamp(time.time() + skew_seconds, UTC), usegmt=True)
    told, lines = log()
    one = unit("sqs", Sqs(), aws(server), Clock(time.time()), told)

    one.cycle()

    assert one.status.up is (words is None)
    assert [line["reason"] for line in lines()] == ([] if words is None else ["clock_skew"])
    assert words is None or words in lines()[0]["error"]


def test_silence_is_a_timeout(handler: type[Handler], server: str) -> None:
    """Who does not answer in time is asked again, and then told."""
    handler.silent_seconds = 0.5

    with pytest.raises(CallError) as caught:
        list(aws(server, timeout_seconds=0.1).all(calls(2), REGION, "sqs:ListQueues"))

    assert caught.value.reason == Reason.TIMEOUT
    assert handler.requests == 2


def test_nobody_at_home_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """A refused connection is an error like any other; without credentials it is `denied`, before anybody is asked."""
    with pytest.raises(CallError) as caught:
        list(aws("http://127.0.0.1:9").all(calls(), REGION, "sqs:ListQueues"))
    assert caught.value.reason == Reason.OTHER

    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(CallError, match="NoCredentialsError") as caught:
        list(aws("http://127.0.0.1:9").all(calls(), REGION, "sqs:ListQueues"))
    assert caught.value.reason == Reason.DENIED


def test_nothing_is_asked_or_made_at_the_start() -> None:
    """An account that nobody asks needs no credentials, no session and no network."""
    made = aws("http://127.0.0.1:9")

    assert made._session is None
    assert not made._clients


class Pages:
    """A client of CloudWatch that answers in pages."""

    def __init__(self, *pages: dict[str, Any]) -> None:
        self.pages = list(pages)
        self.asked: list[dict[str, Any]] = []

    def get_metric_data(self, **parameters: Any) -> dict[str, Any]:  # noqa: ANN401 - as boto3
        """The next page."""
        self.asked.append(parameters)
        return self.pages.pop(0)


def _result(number: int, status: str, *points: tuple[int, float]) -> dict[str, Any]:
    return {
        "Id": f"q{number}",
        "StatusCode": status,
        "Timestamps": [datetime.fromtimestamp(at, UTC) for at, _ in points],
        "Values": [value for _, value in points],
    }


def test_pages_and_status_codes_of_metric_data_are_read() -> None:
    """Points of all pages together; a metric that is partial on one page and complete on the next is complete."""
    queries = tuple(
        Query(REGION, "AWS/RDS", name, (("DBInstanceIdentifier", "a"),), "Average", 60) for name in ("A", "B", "C", "D")
    )
    client = Pages(
        {
            "MetricDataResults": [_result(0, "PartialData", (0, 1.0)), _result(1, "Complete", (0, 5.0))],
            "NextToken": "more",
        },
        {
            "MetricDataResults": [
                _result(0, "Complete", (60, 2.0)),
                _result(2, "Forbidden"),
                _result(3, "PartialData", (0, 9.0)),
            ]
        },
    )
    made, asking = aws("http://127.0.0.1:9"), calls()
    made._clients["cloudwatch", REGION] = client

    answers, errors = made.metric_data(asking, Batch(REGION, queries, 0, 120))

    assert [answer and (answer.points, answer.complete) for answer in answers] == [
        ({0: 1.0, 60: 2.0}, True),
        ({0: 5.0}, True),
        None,
        ({0: 9.0}, False),
    ]
    assert {error.reason: error.text for error in errors} == {
        Reason.DENIED: "1 of 4 metrics, AWS/RDS C: Forbidden for one",
        Reason.PARTIAL: "1 of 4 metrics, AWS/RDS D: PartialData for one",
    }
    assert client.asked[1]["NextToken"] == "more"
    assert client.asked[0]["MetricDataQueries"][0] == {
        "Id": "q0",
        "MetricStat": {
            "Metric": {
                "Namespace": "AWS/RDS",
                "MetricName": "A",
                "Dimensions": [{"Name": "DBInstanceIdentifier", "Value": "a"}],
            },
            "Period": 60,
            "Stat": "Average",
        },
    }
    assert asking.tally.metrics == 4
    assert asking.tally.calls["cloudwatch:GetMetricData"] == 2


def test_a_role_is_assumed_for_another_account(moto: str) -> None:
    """STS gives the role's credentials, with the external id; every question goes with them."""
    account = Account(id=ACCOUNT, role_arn=f"arn:aws:iam::{ACCOUNT}:role/exporters", external_id="loyalty")
    made, asking = Aws(account, Requests(endpoint_url=moto), {}), calls()

    found = made.ask(asking, REGION, "sts:GetCallerIdentity")

    assert found["Arn"].startswith(f"arn:aws:sts::{ACCOUNT}:assumed-role/exporters/exporters")


def test_the_machines_clock_ends_its_waits() -> None:
    """A pause ends at once when it is time to stop."""
    stopped = threading.Event()
    clock = SystemClock(stopped)
    assert not clock.wait(0.0)
    stopped.set()
    assert clock.wait(3600)
    assert abs(clock.now() - time.time()) < 5
