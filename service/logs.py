"""Logs: one JSON object a line, with allowed fields alone.

Whatever is not listed here is dropped: no account id, key, token or body can slip in with a careless call.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import secrets
import traceback
from collections.abc import Callable, MutableMapping
from datetime import UTC, datetime
from typing import Any, BinaryIO

import orjson
import structlog

Log = structlog.typing.FilteringBoundLogger

ALLOWED_FIELDS = (
    "timestamp",
    "level",
    "event",
    "trace_id",
    "span_id",
    "method",
    "route",
    "status",
    "outcome",
    "code",  # of the problem
    "duration_seconds",
    "account",  # hashed
    "redemption_id",
    "replayed",
    "error",  # the class of an unexpected exception; its message may hold data
    "stack",
    "logger",
)


def create_log(stream: BinaryIO) -> Log:
    """A logger that writes lines to this stream."""
    log: Log = structlog.wrap_logger(
        structlog.BytesLogger(stream),
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        processors=[structlog.processors.add_log_level, _stamp, _allow, _render],
    )
    return log


def account_hash(key: bytes | None) -> Callable[[str], str]:
    """A function that turns an account id into a stand-in: a keyed hash, useless without the key.

    Without a key a random one is drawn: lines of one process can be joined, those of two cannot.
    """
    secret = key or secrets.token_bytes(32)

    def hashed(account_id: str) -> str:
        return hmac.new(secret, account_id.encode(), hashlib.sha256).hexdigest()[:16]

    return hashed


def stack(error: BaseException) -> list[str]:
    """Where an exception came from: file, line and function; no message and no local values."""
    frames = traceback.extract_tb(error.__traceback__)
    return [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames]


class LibraryHandler(logging.Handler):
    """Writes what libraries log as lines of ours; an exception is named by its class and place only."""

    def __init__(self, log: Log) -> None:
        super().__init__(logging.WARNING)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        fields: dict[str, Any] = {"logger": record.name}
        error = record.exc_info[1] if record.exc_info else None
        if error is not None:
            fields |= {"error": type(error).__name__, "stack": stack(error)}
        level = min(max(record.levelno, logging.WARNING), logging.CRITICAL)
        self._log.log(level, record.getMessage(), **fields)


def _stamp(_: object, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    event["timestamp"] = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return event


def _allow(_: object, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    return {name: event[name] for name in ALLOWED_FIELDS if event.get(name) is not None}


def _render(_: object, __: str, event: MutableMapping[str, Any]) -> bytes:
    return orjson.dumps(event)
