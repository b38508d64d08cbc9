"""The queue of deferred redemptions, against moto's SQS over HTTP."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import botocore.stub  # type: ignore[import-untyped]
import pytest
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from drills.harness.sqs import SqsQueue, sqs_queue
from drills.harness.sqs import call as call_sqs
from service import queue as queue_module
from service.deferral import Deferred
from service.queue import (
    DeferralQueue,
    Depth,
    QueueError,
    QueueMisconfiguredError,
    QueueUnavailableError,
    _Clients,
)
from service.tracing import tracer_provider
from tests.service.conftest import unused

pytestmark = pytest.mark.anyio

Open = Callable[..., AbstractAsyncContextManager[DeferralQueue]]


@pytest.fixture(scope="module")
def server() -> Iterator[SqsQueue]:
    """One server for all tests of this file."""
    with sqs_queue() as running:
        yield running


@pytest.fixture
def sqs(server: SqsQueue, monkeypatch: pytest.MonkeyPatch) -> SqsQueue:
    """The server with empty queues, and the environment that leads there."""
    server.purge()
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in server.environment().items():
        monkeypatch.setenv(name, value)
    return server


@pytest.fixture(scope="module")
def all_spans() -> InMemorySpanExporter:
    """Where the spans of all tests end up."""
    return InMemorySpanExporter()


@pytest.fixture
def spans(all_spans: InMemorySpanExporter) -> InMemorySpanExporter:
    """Where the spans of this test end up."""
    all_spans.clear()
    return all_spans


@pytest.fixture(scope="module")
def make_queue(server: SqsQueue, all_spans: InMemorySpanExporter) -> Callable[..., DeferralQueue]:
    """Make a queue, with the given arguments changed."""
    tracer = tracer_provider([SimpleSpanProcessor(all_spans)]).get_tracer("service")
    arguments = {
        "queue_url": server.queue_url,
        "endpoint_url": server.endpoint_url,
        "dead_letter_url": server.dead_letter_url,
    }
    return lambda **changes: DeferralQueue(tracer=tracer, **(arguments | changes))


@pytest.fixture(scope="module")
def shared_queue(make_queue: Callable[..., DeferralQueue]) -> DeferralQueue:
    """A queue that keeps its clients from one test to the next: it is they that take time to make."""
    return make_queue()


@pytest.fixture
async def queue(
    shared_queue: DeferralQueue, sqs: SqsQueue, spans: InMemorySpanExporter
) -> AsyncIterator[DeferralQueue]:
    """The queue, opened and empty."""
    assert sqs
    assert not spans.get_finished_spans()
    async with shared_queue.opened(close_seconds=10):
        yield shared_queue


@pytest.fixture
def open_queue(sqs: SqsQueue, make_queue: Callable[..., DeferralQueue]) -> Open:
    """Open a queue of one's own, with the given arguments changed."""
    assert sqs

    @asynccontextmanager
    async def run(*, close_seconds: float = 10, **changes: Any) -> AsyncIterator[DeferralQueue]:  # noqa: ANN401
        queue = make_queue(**changes)
        async with queue.opened(close_seconds=close_seconds):
            yield queue

    return run


class Gate:
    """Holds up the calls that send, as a slow network would; all of them, or the first few."""

    def __init__(self) -> None:
        self.opened = threading.Event()
        self.held_max = 1000
        self.sizes: list[int] = []

    def wait(self, messages: int) -> None:
        """A call with this many messages passes here."""
        self.sizes.append(messages)
        if len(self.sizes) <= self.held_max:
            assert self.opened.wait(30)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Gate:
    """The gate, closed."""
    gate = Gate()
    real = _Clients.call

    def call(clients: _Clients, operation: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        if operation == "send_message_batch":
            gate.wait(len(arguments["Entries"]))
        return real(clients, operation, arguments)

    monkeypatch.setattr(_Clients, "call", call)
    return gate


def deferred(**changes: Any) -> Deferred:  # noqa: ANN401 - whatever the message holds
    """A message with a key of its own."""
    now = datetime.now(UTC)
    message = Deferred(
        client_id="partner-a",
        key=unused("0123456789abcdef"),
        fingerprint=bytes(32),
        account_id="guest-1",
        points=500,
        mode="immediate",
        hold_seconds=None,
        accepted_at=now,
        deadline=now + timedelta(hours=1),
        traceparent=None,
    )
    return replace(message, **changes)


def within(seconds: float) -> float:
    """A deadline."""
    return asyncio.get_running_loop().time() + seconds


async def until(condition: Callable[[], bool]) -> None:
    """Wait until something holds, for at most 10 s."""
    for _ in range(1000):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("waited in vain")


async def test_what_was_sent_is_received_until_it_is_deleted(queue: DeferralQueue) -> None:
    """A message comes out as it went in, with its first delivery's count and time; deleted, nothing is left."""
    message = deferred(mode="reserve", hold_seconds=60, traceparent=f"00-{'a' * 32}-{'b' * 16}-01")
    await queue.send(message, deadline=within(10))
    (received,) = await queue.receive()
    assert received.message == message
    assert received.receive_count == 1
    assert abs(received.sent_at - datetime.now(UTC)) < timedelta(minutes=1)
    assert await queue.depth() == Depth(visible=0, in_flight=1, delayed=0, dead_letter_visible=0)
    await queue.delete([received.receipt])
    assert await queue.depth() == Depth(visible=0, in_flight=0, delayed=0, dead_letter_visible=0)


async def test_an_empty_queue_gives_nothing(queue: DeferralQueue) -> None:
    """Once the wait is over, the list is empty."""
    assert await queue.receive(wait_seconds=0) == []


async def test_messages_sent_together_share_calls(queue: DeferralQueue, spans: InMemorySpanExporter) -> None:
    """Sixty concurrent sends are six calls of ten, and nothing is lost or doubled."""
    messages = [deferred() for _ in range(60)]
    await asyncio.gather(*(queue.send(message, deadline=within(30)) for message in messages))
    assert [
        span.attributes and span.attributes["messaging.batch.message_count"] for span in spans.get_finished_spans()
    ] == [10] * 6
    received = []
    while some := await queue.receive(wait_seconds=0):
        received += some
    keys = sorted(one.message.key for one in received if one.message)
    assert keys == sorted(message.key for message in messages)
    await queue.delete([one.receipt for one in received])
    assert (await queue.depth()).in_flight == 0


async def test_messages_gather_while_a_call_is_under_way(
    queue: DeferralQueue, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first message goes at once, the next five in one call when the first has come back."""
    monkeypatch.setattr(queue_module, "_GATHER_SECONDS_MAX", 60)
    sends = [asyncio.create_task(queue.send(deferred(), deadline=within(30)))]
    await until(lambda: gate.sizes == [1])
    for number in range(1, 6):
        sends.append(asyncio.create_task(queue.send(deferred(), deadline=within(30))))
        await until(lambda number=number: queue.waiting == number)  # type: ignore[misc]
    gate.opened.set()
    await asyncio.gather(*sends)
    assert gate.sizes == [1, 5]


async def test_a_call_that_hangs_holds_up_no_other(queue: DeferralQueue, gate: Gate) -> None:
    """What gathers behind a call goes after a short time all the same."""
    gate.held_max = 1
    held = asyncio.create_task(queue.send(deferred(), deadline=within(30)))
    await until(lambda: gate.sizes == [1])
    await queue.send(deferred(), deadline=within(30))
    assert not held.done()
    gate.opened.set()
    await held


async def test_never_more_calls_at_once_than_allowed(open_queue: Open, gate: Gate) -> None:
    """With two calls allowed, two are under way, and the rest goes when they come back."""
    async with open_queue(batches_max=2) as queue:
        sends = [asyncio.create_task(queue.send(deferred(), deadline=within(30))) for _ in range(35)]
        await until(lambda: gate.sizes == [10, 10])
        await asyncio.sleep(0.1)
        assert (gate.sizes, queue.waiting) == ([10, 10], 15)
        gate.opened.set()
        await asyncio.gather(*sends)
        assert sorted(gate.sizes) == [5, 10, 10, 10]


async def test_a_batch_that_fails_in_part_fails_only_in_that_part(
    queue: DeferralQueue, spans: InMemorySpanExporter
) -> None:
    """Each sender is told what SQS said of its own message: accepted, for now refused, for good refused, or nothing."""
    client = await asyncio.to_thread(queue._clients._client, 3.0)
    refusals = [
        {"Id": "1", "SenderFault": False, "Code": "InternalError", "Message": "secret"},
        {"Id": "2", "SenderFault": True, "Code": "KmsAccessDenied", "Message": "secret"},
    ]
    accepted = [{"Id": "0", "MessageId": "m", "MD5OfMessageBody": "d"}]
    with botocore.stub.Stubber(client) as stub:
        stub.add_response("send_message_batch", {"Successful": accepted, "Failed": refusals})
        sends = [queue.send(deferred(), deadline=within(30)) for _ in range(4)]
        outcomes = await asyncio.gather(*sends, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [
        type(None),
        QueueUnavailableError,
        QueueMisconfiguredError,
        QueueUnavailableError,
    ]
    assert [str(outcome) for outcome in outcomes[1:]] == [
        "SQS refused to send message batch: InternalError",
        "SQS refused to send message batch: KmsAccessDenied",
        "SQS did not say whether it accepted the message",
    ]
    (span,) = spans.get_finished_spans()
    assert span.status.status_code is StatusCode.ERROR


@pytest.mark.parametrize(
    ("code", "status", "kind"),
    [
        ("AccessDenied", 403, QueueMisconfiguredError),
        ("AWS.SimpleQueueService.NonExistentQueue", 400, QueueMisconfiguredError),
        ("InvalidClientTokenId", 403, QueueMisconfiguredError),
        ("SignatureDoesNotMatch", 403, QueueMisconfiguredError),
        ("RequestThrottled", 400, QueueUnavailableError),
        ("ThrottlingException", 400, QueueUnavailableError),
        ("KMS.ThrottlingException", 400, QueueUnavailableError),
        ("KMS.AccessDeniedException", 400, QueueMisconfiguredError),
        ("OverLimit", 403, QueueUnavailableError),
        ("InternalFailure", 500, QueueUnavailableError),
        ("502", 502, QueueUnavailableError),
    ],
)
async def test_a_refusal_says_whether_to_try_again(
    queue: DeferralQueue, spans: InMemorySpanExporter, code: str, status: int, kind: type[QueueError]
) -> None:
    """Throttling and faults of SQS pass; all else needs somebody. The error names the code and not SQS's text."""
    client = await asyncio.to_thread(queue._clients._client, 3.0)
    with botocore.stub.Stubber(client) as stub:
        stub.add_client_error("send_message_batch", code, "arn:aws:iam::1:user/secret", status)
        with pytest.raises(QueueError) as refused:
            await queue.send(deferred(), deadline=within(30))
    short = code.removeprefix("AWS.SimpleQueueService.")
    assert type(refused.value) is kind
    assert str(refused.value) == f"SQS refused to send message batch: {short}"
    (span,) = spans.get_finished_spans()
    assert span.attributes
    assert span.attributes["error.type"] == refused.value.code == short


async def test_an_outage_is_told_and_passes(queue: DeferralQueue, sqs: SqsQueue) -> None:
    """While SQS is gone every call says so, in time; when it is back the same queue works again."""
    await queue.send(deferred(), deadline=within(10))
    sqs.stop()
    try:
        deadline = within(20)
        for attempt in (
            queue.send(deferred(), deadline=deadline),
            queue.receive(wait_seconds=0),
            queue.delete(["receipt"]),
            queue.extend("receipt", 1),
            queue.depth(),
            queue.redrive(1),
        ):
            with pytest.raises(QueueUnavailableError, match=r"^SQS did not answer to [a-z ]+: \w+$"):
                await attempt
    finally:
        sqs.start()
    message = deferred()
    await queue.send(message, deadline=within(10))
    assert [one.message for one in await queue.receive()] == [message]


async def test_a_silent_server_holds_up_neither_sender_nor_close(open_queue: Open) -> None:
    """The sender is told at its deadline; closing waits no longer than it was told to."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        started = time.monotonic()
        async with open_queue(endpoint_url=url, answer_seconds=5.0, close_seconds=0.1) as queue:
            with pytest.raises(QueueUnavailableError, match="in time"):
                await queue.send(deferred(), deadline=within(0.3))
        assert time.monotonic() - started < 4  # less than one attempt


async def test_a_deadline_that_is_over_sends_nothing(
    queue: DeferralQueue, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A message that nobody waits for any more is taken back from the line, and its place is free."""
    monkeypatch.setattr(queue_module, "_GATHER_SECONDS_MAX", 60)
    held = asyncio.create_task(queue.send(deferred(), deadline=within(30)))
    await until(lambda: gate.sizes == [1])
    with pytest.raises(QueueUnavailableError, match="in time"):
        await queue.send(deferred(), deadline=within(0.001))
    with pytest.raises(QueueUnavailableError, match="over before"):
        await queue.send(deferred(), deadline=within(0))
    assert queue.waiting == 0
    given_up = asyncio.create_task(queue.send(deferred(), deadline=within(30)))
    await until(lambda: queue.waiting == 1)
    given_up.cancel()
    await asyncio.wait({given_up})
    assert queue.waiting == 0
    gate.opened.set()
    await held
    assert (await queue.depth()).visible == 1


async def test_the_line_is_bounded(open_queue: Open, gate: Gate) -> None:
    """When as many wait as may, the next one is refused at once."""
    async with open_queue(batches_max=1, waiting_max=3) as queue:
        sends = [asyncio.create_task(queue.send(deferred(), deadline=within(30)))]
        await until(lambda: gate.sizes == [1])
        sends += [asyncio.create_task(queue.send(deferred(), deadline=within(30))) for _ in range(3)]
        await until(lambda: queue.waiting == 3)
        with pytest.raises(QueueUnavailableError, match=r"^3 messages wait"):
            await queue.send(deferred(), deadline=within(30))
        gate.opened.set()
        await asyncio.gather(*sends)


async def test_close_waits_for_what_is_on_its_way(open_queue: Open, gate: Gate) -> None:
    """Messages under way, and those that wait behind them, are accepted before the end."""
    async with open_queue(batches_max=1) as queue:
        sends = [asyncio.create_task(queue.send(deferred(), deadline=within(30))) for _ in range(12)]
        await until(lambda: gate.sizes == [10])
        asyncio.get_running_loop().call_later(0.2, gate.opened.set)
    await asyncio.gather(*sends)
    assert gate.sizes == [10, 2]


async def test_close_waits_only_so_long(open_queue: Open, gate: Gate) -> None:
    """What is not accepted by then is told so: the outcome of what was under way is unknown, the rest was not sent."""
    async with open_queue(batches_max=1, close_seconds=0.2) as queue:
        sends = [asyncio.create_task(queue.send(deferred(), deadline=within(30))) for _ in range(11)]
        await until(lambda: gate.sizes == [10])
    outcomes = await asyncio.gather(*sends, return_exceptions=True)
    assert [str(outcome) for outcome in outcomes] == [
        *["SQS did not say whether it accepted the message"] * 10,
        "the queue was closed before the message was sent",
    ]
    assert {type(outcome) for outcome in outcomes} == {QueueUnavailableError}
    gate.opened.set()
    with pytest.raises(QueueUnavailableError, match="not opened"):
        await queue.send(deferred(), deadline=within(30))


async def test_a_message_that_is_handed_back_comes_again(queue: DeferralQueue) -> None:
    """Handed back, it is there at once, for the second time; extended, it stays hidden."""
    await queue.send(deferred(), deadline=within(10))
    (first,) = await queue.receive()
    await queue.hand_back(first.receipt)
    (second,) = await queue.receive()
    assert (second.message, second.receive_count) == (first.message, 2)
    await queue.extend(second.receipt, 3600)
    assert await queue.receive(wait_seconds=0) == []
    assert (await queue.depth()).in_flight == 1


async def test_a_delivery_that_is_over_is_no_error(queue: DeferralQueue) -> None:
    """To extend, hand back or delete what was deleted already changes nothing and raises nothing."""
    await queue.send(deferred(), deadline=within(10))
    (received,) = await queue.receive()
    await queue.delete([received.receipt])
    await queue.extend(received.receipt, 60)
    await queue.hand_back(received.receipt)
    await queue.delete([received.receipt])


async def test_a_delayed_message_waits(queue: DeferralQueue) -> None:
    """It is accepted, and nobody receives it yet."""
    await queue.send(deferred(), deadline=within(10), delay_seconds=900)
    assert await queue.receive(wait_seconds=0) == []
    assert await queue.depth() == Depth(visible=0, in_flight=0, delayed=1, dead_letter_visible=0)


@pytest.mark.parametrize("body", ["", "{}", '{"version":2}', "\N{SNOWMAN}", "x" * 100_000], ids=lambda body: body[:9])
async def test_a_message_that_cannot_be_read_can_be_deleted(queue: DeferralQueue, sqs: SqsQueue, body: str) -> None:
    """It comes without content, and its receipt works."""
    sqs.send_text(body or " ")
    (received,) = await queue.receive()
    assert received.message is None
    await queue.delete([received.receipt])
    assert (await queue.depth()).in_flight == 0


def test_a_message_that_is_no_unicode_cannot_be_read() -> None:
    """SQS should not take one; if it does, the worker does not stumble over it."""
    assert queue_module._message({"Body": "\ud800"}) is None


async def test_a_message_that_nobody_settles_is_a_dead_letter_and_can_be_brought_back(queue: DeferralQueue) -> None:
    """Received five times, it is given up; moved back, it is received again, from the first time on."""
    message = deferred()
    await queue.send(message, deadline=within(10))
    for count in range(1, 6):
        (received,) = await queue.receive(wait_seconds=0)
        assert received.receive_count == count
        await queue.hand_back(received.receipt)
    assert await queue.receive(wait_seconds=0) == []
    assert await queue.depth() == Depth(visible=0, in_flight=0, delayed=0, dead_letter_visible=1)
    assert await queue.redrive(10) == 1
    assert await queue.depth() == Depth(visible=1, in_flight=0, delayed=0, dead_letter_visible=0)
    (received,) = await queue.receive(wait_seconds=0)
    assert (received.message, received.receive_count) == (message, 1)


def bury(sqs: SqsQueue, body: str) -> None:
    """Put a letter among the dead."""
    call_sqs(sqs.endpoint_url, "SendMessage", QueueUrl=sqs.dead_letter_url, MessageBody=body)


async def test_a_redrive_leaves_what_cannot_be_read(queue: DeferralQueue, sqs: SqsQueue) -> None:
    """Twelve readable letters are moved, the unreadable one stays among the dead."""
    bury(sqs, "unreadable")
    for _ in range(12):
        bury(sqs, deferred().encode().decode())
    assert await queue.redrive(100) == 12
    assert (await queue.depth()).visible == 12
    told = call_sqs(sqs.endpoint_url, "GetQueueAttributes", QueueUrl=sqs.dead_letter_url, AttributeNames=["All"])
    assert told["Attributes"]["ApproximateNumberOfMessagesNotVisible"] == "1"


async def test_a_redrive_looks_at_no_more_than_it_is_told(queue: DeferralQueue, sqs: SqsQueue) -> None:
    """Of four letters, three are moved when three are asked for."""
    for _ in range(4):
        bury(sqs, deferred().encode().decode())
    assert await queue.redrive(3) == 3
    assert await queue.depth() == Depth(visible=3, in_flight=0, delayed=0, dead_letter_visible=1)


async def test_a_redrive_deletes_only_what_was_accepted(
    queue: DeferralQueue, sqs: SqsQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A letter that SQS refuses to take back stays among the dead, and the caller is told."""
    for _ in range(2):
        bury(sqs, deferred().encode().decode())
    real = _Clients.call

    def refusing(clients: _Clients, operation: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        if operation != "send_message_batch":
            return real(clients, operation, arguments)
        answer = real(clients, operation, {**arguments, "Entries": arguments["Entries"][1:]})
        return answer | {"Failed": [{"Id": "0", "SenderFault": False, "Code": "InternalError"}]}

    monkeypatch.setattr(_Clients, "call", refusing)
    with pytest.raises(QueueUnavailableError, match="InternalError"):
        await queue.redrive(2)
    assert (await queue.depth()).visible == 1
    told = call_sqs(sqs.endpoint_url, "GetQueueAttributes", QueueUrl=sqs.dead_letter_url, AttributeNames=["All"])
    assert told["Attributes"]["ApproximateNumberOfMessagesNotVisible"] == "1"


async def test_without_a_dead_letter_queue_there_is_nothing_to_redrive(open_queue: Open) -> None:
    """The depth says that it does not know, and a redrive what is missing."""
    async with open_queue(dead_letter_url=None) as queue:
        assert (await queue.depth()).dead_letter_visible is None
        with pytest.raises(QueueMisconfiguredError, match="no dead letter queue is known"):
            await queue.redrive(1)


async def test_a_queue_that_does_not_exist(open_queue: Open, sqs: SqsQueue) -> None:
    """To send to it and to receive from it needs another setting."""
    async with open_queue(queue_url=f"{sqs.queue_url}-not") as queue:
        with pytest.raises(QueueMisconfiguredError, match=r"^SQS refused to send message batch: NonExistentQueue$"):
            await queue.send(deferred(), deadline=within(10))
        with pytest.raises(QueueMisconfiguredError, match=r"^SQS refused to receive message: NonExistentQueue$"):
            await queue.receive(wait_seconds=0)


@pytest.mark.parametrize(
    ("missing", "endpoint_url", "told"),
    [
        (("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"), None, "NoCredentialsError"),
        (("AWS_SECRET_ACCESS_KEY",), None, "PartialCredentialsError"),
        (("AWS_DEFAULT_REGION",), None, "NoRegionError"),
        ((), "no url", "the queue's endpoint is no URL"),
    ],
)
async def test_what_is_missing_is_told(
    open_queue: Open, monkeypatch: pytest.MonkeyPatch, missing: tuple[str, ...], endpoint_url: str | None, told: str
) -> None:
    """Without credentials, a region or a URL the error names what is missing, and holds none of what is there."""
    for name in missing:
        monkeypatch.delenv(name)
    changes = {"endpoint_url": endpoint_url} if endpoint_url else {}
    async with open_queue(**changes) as queue:
        with pytest.raises(QueueMisconfiguredError, match=told) as refused:
            await queue.send(deferred(), deadline=within(10))
    assert "\n" not in str(refused.value)
    assert "MADEUP" not in str(refused.value)


async def test_the_region_may_be_given(open_queue: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """An argument stands above the environment."""
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    async with open_queue(region="eu-central-1") as queue:
        await queue.send(deferred(), deadline=within(10))


async def test_nothing_is_asked_of_aws_before_the_first_call(open_queue: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """To make, open and close a queue needs no client: a service starts while AWS is away."""
    monkeypatch.setattr("boto3.session.Session", None)
    async with open_queue() as queue:
        assert queue.waiting == 0


async def test_a_batch_is_one_span_with_links_to_its_requests(
    queue: DeferralQueue, spans: InMemorySpanExporter, sqs: SqsQueue
) -> None:
    """The span is a producer's, in a trace of its own, named and described by the conventions, and links to both."""
    tracer = tracer_provider().get_tracer("test")

    async def request() -> int:
        with tracer.start_as_current_span("request") as span:
            await queue.send(deferred(), deadline=within(10))
            return span.get_span_context().span_id

    requests = await asyncio.gather(request(), request(), queue.send(deferred(), deadline=within(10)))
    (span,) = spans.get_finished_spans()
    name = sqs.queue_url.rpartition("/")[2]
    assert (span.name, span.kind, span.parent) == (f"send {name}", SpanKind.PRODUCER, None)
    assert [link.context.span_id for link in span.links] == list(requests[:2])
    assert dict(span.attributes or {}) == {
        "messaging.system": "aws_sqs",
        "messaging.operation.name": "send",
        "messaging.operation.type": "send",
        "messaging.destination.name": name,
        "messaging.batch.message_count": 3,
    }
    assert "guest-1" not in json.dumps(dict(span.attributes or {}))


async def test_numbers_out_of_range_are_refused(queue: DeferralQueue) -> None:
    """What SQS does not allow is a mistake of the caller's, found before anything is sent."""
    for attempt in (
        queue.send(deferred(), deadline=within(10), delay_seconds=901),
        queue.receive(wait_seconds=21),
        queue.receive(max_messages=11),
        queue.receive(max_messages=0),
        queue.extend("receipt", -1),
        queue.redrive(0),
    ):
        with pytest.raises(ValueError, match="must be from"):
            await attempt
