"""SQS as moto plays it starts, goes away, comes back, and leaves nothing behind."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from drills.harness.process import HarnessError
from drills.harness.sqs import SqsQueue, call, sqs_queue


@pytest.fixture(scope="module")
def hasty() -> Iterator[SqsQueue]:
    """A queue that gives every message twice at once, and then gives it up."""
    with sqs_queue(visibility_seconds=0, receives_max=2) as sqs:
        yield sqs


def receive(sqs: SqsQueue, url: str) -> list[str]:
    """The bodies of what is there now."""
    messages = call(sqs.endpoint_url, "ReceiveMessage", QueueUrl=url, WaitTimeSeconds=0).get("Messages", ())
    return [message["Body"] for message in messages]


def test_a_queue_lives_an_outage_and_is_gone_afterwards(gone: Callable[..., bool]) -> None:
    """The queue takes messages; stopped, nobody answers; started again, it has its address and no message."""
    with sqs_queue() as sqs:
        sqs.send_text("before")
        assert receive(sqs, sqs.queue_url) == ["before"]
        first, url = sqs.process, sqs.endpoint_url
        sqs.send_text("kept by AWS, lost by moto")
        sqs.stop()
        assert gone(None, url)
        sqs.start()
        assert sqs.process is not first
        assert receive(sqs, sqs.queue_url) == []
        sqs.send_text("after")
        assert receive(sqs, sqs.queue_url) == ["after"]
        with pytest.raises(HarnessError, match="SQS runs already"):
            sqs.start()
        second = sqs.process
    assert gone(first, url)
    assert gone(second, url)


def test_what_is_received_too_often_is_a_dead_letter(hasty: SqsQueue) -> None:
    """After as many receives as were asked for, a message lies in the dead letter queue."""
    hasty.send_text("again")
    assert [receive(hasty, hasty.queue_url) for _ in range(3)] == [["again"], ["again"], []]
    assert receive(hasty, hasty.dead_letter_url) == ["again"]


def test_a_purge_leaves_nothing(hasty: SqsQueue) -> None:
    """What was in either queue is gone."""
    hasty.send_text("unwanted")
    call(hasty.endpoint_url, "SendMessage", QueueUrl=hasty.dead_letter_url, MessageBody="unwanted, too")
    hasty.purge()
    assert receive(hasty, hasty.queue_url) == receive(hasty, hasty.dead_letter_url) == []


def test_the_queue_is_where_the_environment_says(hasty: SqsQueue) -> None:
    """The region that a service is told is the queue's own, and so is the endpoint."""
    environment = hasty.environment()
    told = call(hasty.endpoint_url, "GetQueueAttributes", QueueUrl=hasty.queue_url, AttributeNames=["QueueArn"])
    assert told["Attributes"]["QueueArn"].startswith(f"arn:aws:sqs:{environment['AWS_DEFAULT_REGION']}:")
    assert environment["REDEMPTION_QUEUE_URL"].startswith(environment["REDEMPTION_QUEUE_ENDPOINT_URL"])


def test_a_refusal_says_what_sqs_said(hasty: SqsQueue) -> None:
    """A queue that is not there is told in SQS's own words."""
    with pytest.raises(HarnessError, match="QueueDoesNotExist"):
        call(hasty.endpoint_url, "DeleteQueue", QueueUrl=f"{hasty.queue_url}-not")
