"""SQS as moto plays it: its interface is real, its speed (about 90 messages a second) and its durability are not."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from drills.harness import moto
from drills.harness.http import checked, client
from drills.harness.moto import MotoServer, moto_server
from drills.harness.process import HarnessError, Process

REGION: Final = moto.REGION

_QUEUE: Final = "redemption-deferred"
_DEAD_LETTERS: Final = "redemption-deferred-dead"
_SIGNED_FOR: Final = f"AWS4-HMAC-SHA256 Credential={moto.ACCESS_KEY_ID}/20260101/{REGION}/sqs/aws4_request"


@dataclass(slots=True)
class SqsQueue:
    """A standard queue and its dead letter queue, on a server of their own.

    Attributes:
        queue_url: The queue.
        dead_letter_url: Where it puts what was received too often.
    """

    queue_url: str
    dead_letter_url: str
    _server: MotoServer = field(repr=False)
    _visibility_seconds: int = field(repr=False)
    _receives_max: int = field(repr=False)
    _servers: ExitStack = field(repr=False)

    @property
    def endpoint_url(self) -> str:
        """Where SQS answers; the same after `start`."""
        return self._server.url

    @property
    def process(self) -> Process:
        """The server; another one after `start`."""
        return self._server.process

    def environment(self) -> dict[str, str]:
        """Variables for a service that uses the queue; its own AWS configuration is hidden from it."""
        return self._server.environment() | {
            "REDEMPTION_QUEUE_URL": self.queue_url,
            "REDEMPTION_QUEUE_ENDPOINT_URL": self.endpoint_url,
            "REDEMPTION_DEAD_LETTER_QUEUE_URL": self.dead_letter_url,
        }

    def send_text(self, body: str) -> None:
        """Put any text into the queue, as nobody should."""
        call(self.endpoint_url, "SendMessage", QueueUrl=self.queue_url, MessageBody=body)

    def purge(self) -> None:
        """Begin anew with empty queues, at the same address; SQS's own PurgeQueue works but once a minute."""
        self._server.reset()
        self._create()

    def stop(self) -> None:
        """Take SQS away, as an outage would; unlike AWS, moto forgets every message."""
        self.process.kill()

    def start(self) -> None:
        """Bring it back after `stop`, at the same address, with empty queues.

        Raises:
            HarnessError: It still runs, or does not start.
        """
        if self.process.alive:
            raise HarnessError("SQS runs already")
        port = int(self.endpoint_url.rpartition(":")[2])
        self._server = self._servers.enter_context(moto_server(port=port, name="sqs"))
        self._create()

    def _create(self) -> None:
        _create_queues(self.endpoint_url, self._visibility_seconds, self._receives_max)


@contextmanager
def sqs_queue(*, visibility_seconds: int = 30, receives_max: int = 5) -> Iterator[SqsQueue]:
    """Run SQS with one queue and its dead letter queue while the block runs.

    Args:
        visibility_seconds: Time that a receiver has for a message before somebody else gets it.
        receives_max: How often a message is received before it is a dead letter.

    Raises:
        HarnessError: It does not start.
    """
    with ExitStack() as servers:
        server = servers.enter_context(moto_server(name="sqs"))
        queue_url, dead_letter_url = _create_queues(server.url, visibility_seconds, receives_max)
        yield SqsQueue(queue_url, dead_letter_url, server, visibility_seconds, receives_max, servers)


def call(endpoint_url: str, action: str, **parameters: object) -> dict[str, Any]:
    """Ask SQS in its own protocol, AWS JSON 1.0; unlike boto3 it reads nobody's AWS configuration.

    Raises:
        HarnessError: It refuses.
    """
    headers = {
        "Authorization": f"{_SIGNED_FOR}, SignedHeaders=host, Signature=none",
        "Content-Type": "application/x-amz-json-1.0",
        "X-Amz-Target": f"AmazonSQS.{action}",
    }
    with client(endpoint_url) as http:
        answer = checked(http.post("/", content=json.dumps(parameters), headers=headers))
    found: dict[str, Any] = answer.json() if answer.content else {}
    return found


def _create_queues(endpoint_url: str, visibility_seconds: int, receives_max: int) -> tuple[str, str]:
    """The URLs of queue and dead letter queue, the same ones every time."""
    dead_letter_url = call(endpoint_url, "CreateQueue", QueueName=_DEAD_LETTERS)["QueueUrl"]
    told = call(endpoint_url, "GetQueueAttributes", QueueUrl=dead_letter_url, AttributeNames=["QueueArn"])
    redrive = {"deadLetterTargetArn": told["Attributes"]["QueueArn"], "maxReceiveCount": receives_max}
    attributes = {"VisibilityTimeout": str(visibility_seconds), "RedrivePolicy": json.dumps(redrive)}
    queue_url = call(endpoint_url, "CreateQueue", QueueName=_QUEUE, Attributes=attributes)["QueueUrl"]
    return queue_url, dead_letter_url
