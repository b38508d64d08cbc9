"""A receiver of Alertmanager's notifications, within this process."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from typing import Any

from drills.harness.http import serving


@dataclass(frozen=True, slots=True)
class Notification:
    """What Alertmanager sent in one request.

    Attributes:
        path: The path that it was sent to, `/page` say; one receiver stands for many.
        body: Alertmanager's JSON (https://prometheus.io/docs/alerting/latest/configuration/#webhook_config).
        at: When it arrived, Unix time in seconds.
    """

    path: str
    body: Mapping[str, Any]
    at: float

    @property
    def status(self) -> str:
        """`firing` while any of its alerts is, else `resolved`."""
        return str(self.body["status"])

    @property
    def alerts(self) -> list[dict[str, Any]]:
        """Its alerts, each with `status`, `labels` and `annotations`."""
        return list(self.body["alerts"])

    def firing(self, alert: str | None = None) -> list[dict[str, Any]]:
        """Its alerts that fire: all, or those of one name."""
        return [one for one in self.alerts if one["status"] == "firing" and alert in (None, one["labels"]["alertname"])]


@dataclass(frozen=True, slots=True)
class WebhookReceiver:
    """A receiver that runs.

    Attributes:
        url: Its base URL; every path below it takes notifications.
    """

    url: str
    _received: list[Notification] = field(repr=False)
    _changed: threading.Condition = field(repr=False)

    @property
    def notifications(self) -> list[Notification]:
        """What has arrived so far, in order."""
        with self._changed:
            return list(self._received)

    def wait_for(self, predicate: Callable[[Notification], object], timeout_seconds: float = 30.0) -> Notification:
        """The first notification, of those that have arrived and those to come, that the predicate takes.

        Raises:
            TimeoutError: None arrives in time; the message says what did.
        """
        give_up = time.monotonic() + timeout_seconds
        seen = 0
        with self._changed:
            while True:
                for notification in self._received[seen:]:
                    if predicate(notification):
                        return notification
                seen = len(self._received)
                if not self._changed.wait(give_up - time.monotonic()):
                    arrived = "; ".join(_told(one) for one in self._received) or "nothing"
                    raise TimeoutError(f"no such notification within {timeout_seconds:g} s; what arrived: {arrived}")


def _told(notification: Notification) -> str:
    alerts = ", ".join(f"{one['labels'].get('alertname')} {one['status']}" for one in notification.alerts)
    return f"{notification.path}: {alerts}"


@contextmanager
def webhook_receiver() -> Iterator[WebhookReceiver]:
    """Take notifications while the block runs."""
    received: list[Notification] = []
    changed = threading.Condition()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            try:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                _ = body["status"], [alert["labels"] for alert in body["alerts"]]
            except (KeyError, TypeError, ValueError):
                self.send_error(HTTPStatus.BAD_REQUEST, "not a notification of Alertmanager's")
                return
            with changed:
                received.append(Notification(self.path, body, time.time()))
                changed.notify_all()
            self.send_response(HTTPStatus.OK)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with serving(Handler) as url:
        yield WebhookReceiver(url, received, changed)
