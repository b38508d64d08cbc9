"""SQS as moto plays it: its interface is real, its speed (about 90 messages a second) and its durability are not."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from drills.harness.http import answers, checked, client
from drills.harness.process import HarnessError, Process, running

REGION: Final = "eu-central-1"

_QUEUE: Final = "redemption-deferred"
_DEAD_LETTERS: Final = "redemption-deferred-dead"
_ACCESS_KEY_ID: Final = "AKIDMADEUP"  # moto looks at no signature, only at the region that was signed for
_SIGNED_FOR: Final = f"AWS4-HMAC-SHA256 Credential={_ACCESS_KEY_ID}/20260101/{REGION}/sqs/aws4_request"
_START_SECONDS_MAX: Final = 60.0  # it imports a good part of AWS


@dataclass(slots=True)
class SqsQueue:
    """A standard queue and its dead letter queue, on a server of their own.

    Attributes:
        endpoint_url: Where SQS answers.
        queue_url: The queue.
        dead_letter_url: Where it puts what was received too often.
        process: The server; another one after `start`.
    """

    endpoint_url: str
    queue_url: str
    dead_letter_url: str
    process: Process
    _visibility_seconds: int = field(repr=False)
    _receives_max: int = field(repr=False)
    _servers: ExitStack = field(repr=False)

    def environment(self) -> dict[str, str]:
        """Variables for a service that uses the queue; its own AWS configuration is hidden from it."""
        return {
            "AWS_ACCESS_KEY_ID": _ACCESS_KEY_ID,
            "AWS_SECRET_ACCESS_KEY": "made-up",
            "AWS_DEFAULT_REGION": REGION,
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "AWS_EC2_METADATA_DISABLED": "true",
            "REDEMPTION_QUEUE_URL": self.queue_url,
            "REDEMPTION_QUEUE_ENDPOINT_URL": self.endpoint_url,
            "REDEMPTION_DEAD_LETTER_QUEUE_URL": self.dead_letter_url,
        }

    def send_text(self, body: str) -> None:
        """Put any text into the queue, as nobody should."""
        call(self.endpoint_url, "SendMessage", QueueUrl=self.queue_url, MessageBody=body)

    def purge(self) -> None:
        """Begin anew with empty queues, at the same address; SQS's own PurgeQueue works but once a minute."""
        with client(self.endpoint_url) as http:
            checked(http.post("/moto-api/reset"))
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
        self.process = self._servers.enter_context(_server(int(self.endpoint_url.rpartition(":")[2])))
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
        process = servers.enter_context(_server())
        url = f"http://127.0.0.1:{process.ports[0]}"
        queue_url, dead_letter_url = _create_queues(url, visibility_seconds, receives_max)
        yield SqsQueue(url, queue_url, dead_letter_url, process, visibility_seconds, receives_max, servers)


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


@contextmanager
def _server(port: int | None = None) -> Iterator[Process]:
    """The server, on a free port or on this one."""

    def command(ports: Sequence[int], _: Path) -> list[str | Path]:
        return [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port or ports[0])]

    def ready(ports: Sequence[int]) -> bool:
        with client(f"http://127.0.0.1:{port or ports[0]}") as http:
            return answers(http, "/moto-api/")

    # Nobody's own settings, of AWS or of moto, play a part.
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "MOTO_"))}
    with running(
        "sqs",
        command,
        ready,
        ports=1 if port is None else 0,
        environment=inherited,
        start_seconds_max=_START_SECONDS_MAX,
    ) as process:
        yield process


def _create_queues(endpoint_url: str, visibility_seconds: int, receives_max: int) -> tuple[str, str]:
    """The URLs of queue and dead letter queue, the same ones every time."""
    dead_letter_url = call(endpoint_url, "CreateQueue", QueueName=_DEAD_LETTERS)["QueueUrl"]
    told = call(endpoint_url, "GetQueueAttributes", QueueUrl=dead_letter_url, AttributeNames=["QueueArn"])
    redrive = {"deadLetterTargetArn": told["Attributes"]["QueueArn"], "maxReceiveCount": receives_max}
    attributes = {"VisibilityTimeout": str(visibility_seconds), "RedrivePolicy": json.dumps(redrive)}
    queue_url = call(endpoint_url, "CreateQueue", QueueName=_QUEUE, Attributes=attributes)["QueueUrl"]
    return queue_url, dead_letter_url
