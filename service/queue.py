"""The queue of deferred redemptions: SQS, through boto3. The only place of the service that knows AWS.

A standard queue is enough: it may deliver twice and out of order, and what the worker does with a message is
idempotent. boto3 is synchronous, so each call has a thread of a small pool while it lasts, and there are no more calls
than threads. The first call makes the client, and only then credentials are looked for.

Sends are batched: while a call is under way messages gather. A batch goes when it is full, when no other is under
way, or when its first message has waited long enough. A message is accepted when SQS has said so of that very one.
"""

from __future__ import annotations

import asyncio
import functools
import threading
from collections import deque
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import urlsplit

import boto3  # type: ignore[import-untyped]
import botocore.config  # type: ignore[import-untyped]
import botocore.exceptions  # type: ignore[import-untyped]
import botocore.parsers  # type: ignore[import-untyped]
from opentelemetry.context import Context
from opentelemetry.semconv.attributes import error_attributes
from opentelemetry.trace import Link, Span, SpanKind, Status, StatusCode, Tracer, get_current_span

from service.deferral import Deferred, InvalidMessageError

# The semantic conventions for messaging are in development (1.44), so their names are pinned here.
_OPERATION_NAME: Final = "messaging.operation.name"
_OPERATION_TYPE: Final = "messaging.operation.type"
_BATCH_MESSAGE_COUNT: Final = "messaging.batch.message_count"
_MESSAGING_SYSTEM: Final = "messaging.system"
_DESTINATION_NAME: Final = "messaging.destination.name"
_SQS: Final = "aws_sqs"
_SEND: Final = "send"

# Limits of SQS (https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/quotas-messages.html).
# A batch's other limit, 1 MiB, is out of reach: a message has at most `deferral.MESSAGE_BYTES_MAX`.
BATCH_MESSAGES_MAX: Final = 10
DELAY_SECONDS_MAX: Final = 900
VISIBILITY_SECONDS_MAX: Final = 12 * 3600
WAIT_SECONDS_MAX: Final = 20

REDRIVE_MESSAGES_MAX: Final = 10_000  # of one call; the next one goes on

_GATHER_SECONDS_MAX: Final = 0.02  # about one call to SQS: a call that hangs does not hold up what gathers behind it
_OTHER_CALLS_MAX: Final = 4  # at once: receive, delete, hand back, look at the depth
_ATTEMPTS_MAX: Final = 2  # of one call; boto3's standard mode waits a random time of at most 1 s before the second
_REDRIVE_WAIT_SECONDS: Final = 1  # a long poll asks all of SQS's servers, a short one only some

_COUNTS: Final = (
    "ApproximateNumberOfMessages",
    "ApproximateNumberOfMessagesNotVisible",
    "ApproximateNumberOfMessagesDelayed",
)

# What SQS says, besides all kinds of throttling, when the same call may work later; all other refusals (4xx) are of
# our making.
_TRANSIENT_CODES: Final = frozenset(
    {"InternalError", "OverLimit", "RequestTimeout", "ServiceUnavailable", "TooManyRequestsException"}
)
_SERVER_FAULT_STATUS_MIN: Final = 500
# The message is visible again, or gone, already: there is nothing to hand back.
_STALE_RECEIPT_CODES: Final = frozenset({"InvalidParameterValue", "MessageNotInflight", "ReceiptHandleIsInvalid"})
# What boto3 raises before it has sent anything, for want of the right settings.
_MISCONFIGURED: Final = (
    botocore.exceptions.InvalidConfigError,
    botocore.exceptions.InvalidRegionError,
    botocore.exceptions.NoCredentialsError,
    botocore.exceptions.NoRegionError,
    botocore.exceptions.ParamValidationError,
    botocore.exceptions.PartialCredentialsError,
    botocore.exceptions.ProfileNotFound,
)


class QueueError(Exception):
    """The queue did not do what it was asked; it may have done half of it.

    Attributes:
        code: What SQS or boto3 calls the fault, or `_OTHER` of the semantic conventions.
    """

    def __init__(self, message: str, code: str = "_OTHER") -> None:
        super().__init__(message)
        self.code = code


class QueueUnavailableError(QueueError):
    """The queue cannot serve now (network, throttling, time, its own fault); the same call may work later."""


class QueueMisconfiguredError(QueueError):
    """The queue will not serve until somebody changes a setting: no such queue, no permission, no credentials."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """A message that nobody else gets while its visibility timeout lasts.

    Attributes:
        message: What was sent; None when it cannot be read.
        receipt: What this delivery is deleted or handed back with.
        receive_count: How often it was delivered, this time included; SQS's own count, about right.
        sent_at: When SQS accepted it.
    """

    message: Deferred | None
    receipt: str
    receive_count: int
    sent_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Depth:
    """How many messages there are; SQS counts them about right, and a little late.

    Attributes:
        visible: Wait to be received.
        in_flight: Were received, and neither deleted nor handed back yet.
        delayed: Wait until they may be received.
        dead_letter_visible: Were given up; None when no dead letter queue is known.
    """

    visible: int
    in_flight: int
    delayed: int
    dead_letter_visible: int | None


@dataclass(slots=True, eq=False)
class _Entry:
    """One message on its way; `outcome` is None when SQS has accepted it."""

    body: str
    delay_seconds: int
    link: Link | None
    outcome: asyncio.Future[QueueError | None]
    has_waited: bool = False


@dataclass(slots=True)
class _Running:
    """What there is between `opened` and its end."""

    threads: ThreadPoolExecutor
    others: asyncio.Semaphore
    waiting: deque[_Entry] = field(default_factory=deque)
    batches: set[asyncio.Task[None]] = field(default_factory=set)


class DeferralQueue:
    """The queue, and its dead letters.

    Args:
        queue_url: The queue.
        tracer: Makes the span of each batch.
        endpoint_url: Where SQS is, if not where AWS has it.
        region: AWS region; by default the environment says.
        dead_letter_url: Where SQS puts what was received too often.
        connect_seconds: Time to reach SQS, for one attempt of two.
        answer_seconds: Time for its answer, for one attempt of two; a long poll has its wait on top.
        batches_max: Calls that send, at once.
        waiting_max: Messages that wait for such a call; further ones are refused.
    """

    def __init__(  # noqa: PLR0913 - all but the first two have a default
        self,
        queue_url: str,
        tracer: Tracer,
        *,
        endpoint_url: str | None = None,
        region: str | None = None,
        dead_letter_url: str | None = None,
        connect_seconds: float = 1.0,
        answer_seconds: float = 3.0,
        batches_max: int = 8,
        waiting_max: int = 1000,
    ) -> None:
        self._queue_url = queue_url
        self._queue_name = urlsplit(queue_url).path.rpartition("/")[2]
        self._dead_letter_url = dead_letter_url
        self._tracer = tracer
        self._batches_max = batches_max
        self._waiting_max = waiting_max
        self._clients = _Clients(
            endpoint_url,
            region,
            connect_seconds=connect_seconds,
            answer_seconds=answer_seconds,
            connections_max=batches_max + _OTHER_CALLS_MAX,
        )
        self._running: _Running | None = None

    @asynccontextmanager
    async def opened(self, *, close_seconds: float) -> AsyncIterator[None]:
        """Between these two points the queue can be used.

        At the end what is on its way gets this long; then it is told that its outcome is unknown. A call that hangs
        keeps its thread, and the process from ending, until boto3 gives it up: twice connecting, answering, a pause.
        """
        running = _Running(
            ThreadPoolExecutor(self._batches_max + _OTHER_CALLS_MAX, thread_name_prefix="queue"),
            asyncio.Semaphore(_OTHER_CALLS_MAX),
        )
        self._running = running
        try:
            yield
        finally:
            self._running = None  # nothing new
            try:
                await self._drain(running, _now() + close_seconds)
            finally:
                running.threads.shutdown(wait=False, cancel_futures=True)

    @property
    def waiting(self) -> int:
        """Messages that wait for a call to begin."""
        return len(self._running.waiting) if self._running else 0

    async def send(self, message: Deferred, *, deadline: float, delay_seconds: int = 0) -> None:
        """Put a message into the queue; on return SQS has accepted it.

        Args:
            message: What to keep.
            deadline: When to stop waiting, in the event loop's time.
            delay_seconds: Time during which nobody receives it, at most 900.

        Raises:
            QueueUnavailableError: SQS did not accept it in time; it may have, or may still.
            QueueMisconfiguredError: It will not until somebody changes a setting.
        """
        _check("delay_seconds", delay_seconds, 0, DELAY_SECONDS_MAX)
        running = self._opened()
        if _now() >= deadline:
            raise QueueUnavailableError("the deadline was over before the message was sent")
        if len(running.waiting) >= self._waiting_max:
            raise QueueUnavailableError(f"{self._waiting_max} messages wait to be sent already")
        loop = asyncio.get_running_loop()
        context = get_current_span().get_span_context()
        link = Link(context) if context.is_valid else None
        entry = _Entry(message.encode().decode(), delay_seconds, link, loop.create_future())
        running.waiting.append(entry)
        # Not at once: what is sent in the same turn of the loop goes together.
        loop.call_soon(self._pump, running)
        ripening = loop.call_later(_GATHER_SECONDS_MAX, self._ripen, running, entry)
        try:
            await asyncio.wait({entry.outcome}, timeout=max(0.0, deadline - _now()))
            if not entry.outcome.done():
                raise QueueUnavailableError("SQS did not accept the message in time")
            if fault := entry.outcome.result():
                raise type(fault)(str(fault), fault.code) from fault  # one of its own for each message of a batch
        finally:
            ripening.cancel()
            if not entry.outcome.done():  # nobody waits for it any more: if its call has not begun, it does not
                entry.outcome.cancel()
                with suppress(ValueError):
                    running.waiting.remove(entry)

    async def receive(self, wait_seconds: int = 10, max_messages: int = BATCH_MESSAGES_MAX) -> list[Received]:
        """Take messages, at most ten; waits until there is one.

        Whoever is cancelled here may lose what SQS was about to give; it comes again after the visibility timeout.

        Args:
            wait_seconds: How long to wait for the first, at most 20.
            max_messages: How many, at most 10.

        Raises:
            QueueUnavailableError: SQS cannot serve now.
            QueueMisconfiguredError: It will not until somebody changes a setting.
        """
        _check("max_messages", max_messages, 1, BATCH_MESSAGES_MAX)
        return [_received(raw) for raw in await self._receive(self._queue_url, wait_seconds, max_messages)]

    async def delete(self, receipts: Sequence[str]) -> None:
        """Be done with messages, ten a call; raises as `receive` does, and then some may come again."""
        await self._delete(self._queue_url, receipts)

    async def extend(self, receipt: str, seconds: int) -> None:
        """Keep a received message from others for this long from now; raises as `receive` does.

        Too late is no error: the message is on its way to somebody else then.

        Args:
            receipt: Of the delivery.
            seconds: 0 to 43 200, half a day.
        """
        _check("seconds", seconds, 0, VISIBILITY_SECONDS_MAX)
        try:
            await self._other(
                "change_message_visibility",
                QueueUrl=self._queue_url,
                ReceiptHandle=receipt,
                VisibilityTimeout=seconds,
            )
        except QueueError as fault:
            if fault.code not in _STALE_RECEIPT_CODES:
                raise

    async def hand_back(self, receipt: str) -> None:
        """Let others receive the message at once; as `extend` with 0 seconds."""
        await self.extend(receipt, 0)

    async def depth(self) -> Depth:
        """How many messages there are; raises as `receive` does."""
        counts = await self._counts(self._queue_url)
        dead = await self._counts(self._dead_letter_url) if self._dead_letter_url else None
        return Depth(
            visible=counts["ApproximateNumberOfMessages"],
            in_flight=counts["ApproximateNumberOfMessagesNotVisible"],
            delayed=counts["ApproximateNumberOfMessagesDelayed"],
            dead_letter_visible=None if dead is None else dead["ApproximateNumberOfMessages"],
        )

    async def redrive(self, limit: int) -> int:
        """Move dead letters back into the queue, and tell how many were moved.

        What cannot be read stays, and is not looked at again by this call unless it takes longer than the visibility
        timeout. One that was moved and could not be deleted comes twice, which harms nobody.

        Args:
            limit: How many to look at, at most 10 000.

        Raises:
            QueueUnavailableError: SQS cannot serve now; some may have been moved.
            QueueMisconfiguredError: It will not until somebody changes a setting; or no dead letter queue is known.
        """
        _check("limit", limit, 1, REDRIVE_MESSAGES_MAX)
        if self._dead_letter_url is None:
            raise QueueMisconfiguredError("no dead letter queue is known")
        moved, looked_at = 0, 0
        while looked_at < limit:
            most = min(BATCH_MESSAGES_MAX, limit - looked_at)
            letters = await self._receive(self._dead_letter_url, _REDRIVE_WAIT_SECONDS, most)
            if not letters:
                break
            looked_at += len(letters)
            if readable := [letter for letter in letters if _message(letter) is not None]:
                moved += await self._move_back(readable, self._dead_letter_url)
        return moved

    # --- sending ------------------------------------------------------------------------------------------------------

    def _ripen(self, running: _Running, entry: _Entry) -> None:
        entry.has_waited = True
        self._pump(running)

    def _pump(self, running: _Running) -> None:
        """Begin the calls that may begin now; afterwards nothing waits unless a call is under way."""
        waiting = running.waiting
        while waiting and len(running.batches) < self._batches_max:
            if running.batches and len(waiting) < BATCH_MESSAGES_MAX and not waiting[0].has_waited:
                return
            batch = [waiting.popleft() for _ in range(min(len(waiting), BATCH_MESSAGES_MAX))]
            task = asyncio.create_task(self._send_batch(running, batch))
            running.batches.add(task)
            task.add_done_callback(functools.partial(self._ended, running, batch))

    def _ended(self, running: _Running, batch: Sequence[_Entry], task: asyncio.Task[None]) -> None:
        running.batches.discard(task)
        for entry in batch:
            _settle(entry, QueueUnavailableError("SQS did not say whether it accepted the message"))
        self._pump(running)

    async def _send_batch(self, running: _Running, batch: Sequence[_Entry]) -> None:
        for number, outcome in (await self._outcomes(running, batch)).items():
            _settle(batch[number], outcome)

    async def _outcomes(self, running: _Running, batch: Sequence[_Entry]) -> Mapping[int, QueueError | None]:
        """What became of each message, by its number; the number is the entry's id, too."""
        entries = [
            {"Id": str(number), "MessageBody": entry.body, "DelaySeconds": entry.delay_seconds}
            for number, entry in enumerate(batch)
        ]
        with self._span(batch) as span:
            try:
                answer = await self._call(running, "send_message_batch", QueueUrl=self._queue_url, Entries=entries)
            except QueueError as error:
                _record(span, error)
                return dict.fromkeys(range(len(batch)), error)
            faults = {int(one["Id"]): _refusal("send_message_batch", one) for one in answer.get("Failed", ())}
            for fault in faults.values():
                _record(span, fault)
            return {int(one["Id"]): None for one in answer.get("Successful", ())} | faults

    async def _drain(self, running: _Running, deadline: float) -> None:
        self._pump(running)
        while running.batches and (left := deadline - _now()) > 0:
            await asyncio.wait(running.batches, timeout=left, return_when=asyncio.FIRST_COMPLETED)
        for entry in running.waiting:
            _settle(entry, QueueUnavailableError("the queue was closed before the message was sent"))
        running.waiting.clear()
        for task in running.batches:
            task.cancel()
        if running.batches:
            await asyncio.wait(running.batches)

    def _span(self, batch: Sequence[_Entry]) -> AbstractContextManager[Span]:
        """A trace of its own, with links to the requests': a batch belongs to none of them alone."""
        return self._tracer.start_as_current_span(
            f"{_SEND} {self._queue_name}",
            context=Context(),
            kind=SpanKind.PRODUCER,
            attributes={
                _MESSAGING_SYSTEM: _SQS,
                _DESTINATION_NAME: self._queue_name,
                _OPERATION_NAME: _SEND,
                _OPERATION_TYPE: _SEND,
                _BATCH_MESSAGE_COUNT: len(batch),
            },
            links=[entry.link for entry in batch if entry.link],
            record_exception=False,  # as everywhere: its message may hold data
            set_status_on_exception=False,
        )

    # --- calls --------------------------------------------------------------------------------------------------------

    def _opened(self) -> _Running:
        if self._running is None:
            raise QueueUnavailableError("the queue is not opened")
        return self._running

    async def _receive(self, url: str, wait_seconds: int, most: int) -> list[dict[str, Any]]:
        _check("wait_seconds", wait_seconds, 0, WAIT_SECONDS_MAX)
        answer = await self._other(
            "receive_message",
            QueueUrl=url,
            WaitTimeSeconds=wait_seconds,
            MaxNumberOfMessages=most,
            MessageSystemAttributeNames=["ApproximateReceiveCount", "SentTimestamp"],
        )
        return list(answer.get("Messages", ()))

    async def _delete(self, url: str, receipts: Sequence[str]) -> None:
        faults = []
        for some in _tens(receipts):
            entries = [{"Id": str(number), "ReceiptHandle": receipt} for number, receipt in enumerate(some)]
            answer = await self._other("delete_message_batch", QueueUrl=url, Entries=entries)
            faults += [_refusal("delete_message_batch", one) for one in answer.get("Failed", ())]
        for fault in faults:
            if fault.code not in _STALE_RECEIPT_CODES:
                raise fault

    async def _move_back(self, letters: Sequence[Mapping[str, Any]], dead_letter_url: str) -> int:
        entries = [{"Id": str(number), "MessageBody": letter["Body"]} for number, letter in enumerate(letters)]
        answer = await self._other("send_message_batch", QueueUrl=self._queue_url, Entries=entries)
        moved = [letters[int(one["Id"])] for one in answer.get("Successful", ())]
        await self._delete(dead_letter_url, [letter["ReceiptHandle"] for letter in moved])
        for one in answer.get("Failed", ()):
            raise _refusal("send_message_batch", one)
        return len(moved)

    async def _counts(self, url: str) -> dict[str, int]:
        answer = await self._other("get_queue_attributes", QueueUrl=url, AttributeNames=list(_COUNTS))
        return {name: int(answer["Attributes"][name]) for name in _COUNTS}

    async def _other(self, operation: str, **arguments: object) -> dict[str, Any]:
        running = self._opened()
        async with running.others:
            return await self._call(running, operation, **arguments)

    async def _call(self, running: _Running, operation: str, **arguments: object) -> dict[str, Any]:
        call = functools.partial(self._clients.call, operation, arguments)
        return await asyncio.get_running_loop().run_in_executor(running.threads, call)


class _Clients:
    """boto3's clients, one for short calls and one for long polls; called by threads, and made by the first one."""

    def __init__(
        self,
        endpoint_url: str | None,
        region: str | None,
        *,
        connect_seconds: float,
        answer_seconds: float,
        connections_max: int,
    ) -> None:
        self._endpoint_url = endpoint_url
        self._region = region
        self._connect_seconds = connect_seconds
        self._answer_seconds = answer_seconds
        self._connections_max = connections_max
        self._making = threading.Lock()
        self._session: Any = None
        self._made: dict[float, Any] = {}

    def call(self, operation: str, arguments: Mapping[str, object]) -> dict[str, Any]:
        """Call SQS; raises `QueueError` alone, unless a mistake is our own."""
        polls = operation == "receive_message"
        try:
            client = self._client(self._answer_seconds + (WAIT_SECONDS_MAX if polls else 0))
            answer: dict[str, Any] = getattr(client, operation)(**arguments)
        except (
            botocore.exceptions.BotoCoreError,
            botocore.exceptions.ClientError,
            botocore.parsers.ResponseParserError,
        ) as error:
            raise _fault(operation, error) from error
        return answer

    def _client(self, answer_seconds: float) -> Any:  # noqa: ANN401 - boto3 ships no types
        with self._making:
            if answer_seconds not in self._made:
                self._made[answer_seconds] = self._make(answer_seconds)
            return self._made[answer_seconds]

    def _make(self, answer_seconds: float) -> Any:  # noqa: ANN401 - boto3 ships no types
        self._session = self._session or boto3.session.Session(region_name=self._region)
        config = botocore.config.Config(
            connect_timeout=self._connect_seconds,
            read_timeout=answer_seconds,
            max_pool_connections=self._connections_max,
            retries={"mode": "standard", "total_max_attempts": _ATTEMPTS_MAX},
            tcp_keepalive=True,
        )
        try:
            return self._session.client("sqs", endpoint_url=self._endpoint_url, config=config)
        except ValueError as error:
            raise QueueMisconfiguredError("the queue's endpoint is no URL", "ValueError") from error


def _fault(operation: str, error: Exception) -> QueueError:
    if isinstance(error, botocore.exceptions.ClientError):
        told = error.response
        status = told.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        code = told.get("Error", {}).get("Code", "")
        return _refusal(operation, {"Code": code, "SenderFault": status < _SERVER_FAULT_STATUS_MIN})
    name = type(error).__name__
    if isinstance(error, _MISCONFIGURED):
        return QueueMisconfiguredError(f"SQS cannot be asked to {_words(operation)}: {name}", name)
    return QueueUnavailableError(f"SQS did not answer to {_words(operation)}: {name}", name)


def _refusal(operation: str, told: Mapping[str, Any]) -> QueueError:
    """What SQS said of a call, or of one entry of a batch."""
    code = str(told["Code"]).removeprefix("AWS.SimpleQueueService.")
    passes = not told["SenderFault"] or "Throttl" in code or code in _TRANSIENT_CODES
    kind = QueueUnavailableError if passes else QueueMisconfiguredError
    return kind(f"SQS refused to {_words(operation)}: {code}", code)


def _words(operation: str) -> str:
    return operation.replace("_", " ")


def _settle(entry: _Entry, outcome: QueueError | None) -> None:
    if not entry.outcome.done():  # nobody may wait any more
        entry.outcome.set_result(outcome)


def _record(span: Span, fault: QueueError) -> None:
    span.set_attribute(error_attributes.ERROR_TYPE, fault.code)
    span.set_status(Status(StatusCode.ERROR))


def _received(raw: Mapping[str, Any]) -> Received:
    told = raw["Attributes"]
    return Received(
        message=_message(raw),
        receipt=raw["ReceiptHandle"],
        receive_count=int(told["ApproximateReceiveCount"]),
        sent_at=datetime.fromtimestamp(int(told["SentTimestamp"]) / 1000, UTC),
    )


def _message(raw: Mapping[str, Any]) -> Deferred | None:
    try:
        return Deferred.decode(raw["Body"].encode(errors="replace"))  # what is no Unicode is no message either
    except InvalidMessageError:
        return None


def _tens(receipts: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(receipts), BATCH_MESSAGES_MAX):
        yield receipts[start : start + BATCH_MESSAGES_MAX]


def _check(name: str, value: int, least: int, most: int) -> None:
    if not least <= value <= most:
        raise ValueError(f"{name} must be from {least} to {most}")


def _now() -> float:
    return asyncio.get_running_loop().time()
