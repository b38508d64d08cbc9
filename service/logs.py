"""Logs: one JSON object a line, with allowed fields alone.

Whatever is not listed here is dropped: no account id, key, token or body can slip in with a careless call.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import secrets
import threading
import time
import traceback
from collections.abc import Callable, Mapping, MutableMapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, BinaryIO, Final, Literal, Protocol, TypeAlias

import orjson
import structlog

Level: TypeAlias = Literal["info", "warning", "error", "critical"]

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
    "client",  # a partner, so no person
    "account",  # hashed
    "redemption_id",
    "replayed",
    "reason",  # why requests were turned away
    "count",  # how many, where a line stands for several
    "error",  # the class of an unexpected exception; its message may hold data
    "stack",
    "logger",
)

MESSAGE_WITHHELD: Final = "a library's message, withheld"
"""The event of a line whose message may hold data; the last place of its stack is where it was logged."""

_ALLOWED: Final = frozenset(ALLOWED_FIELDS)
_BYTES_MAX: Final = 64 * 1024  # what a pipe holds at once
_WAIT_SECONDS: Final = 0.02  # no reader of logs notices, and under load it saves nearly all of the writes


class Log(structlog.typing.FilteringBoundLogger, Protocol):
    """Structlog's logger, and a short way for the line that every request writes."""

    def write(self, level: Level, fields: Mapping[str, object]) -> None:
        """Write a line of these fields and no others: structlog copies keywords one by one, thrice.

        Among them are `timestamp`, `level` and `event`, and none is None.

        It is worded at once: to keep what it is made of until it is written costs more, in memory that is not reused.
        """


class LineBuffer:
    """Where finished lines go: written together a moment later, a warning and worse at once.

    Outside an event loop every line is written at once. Any thread may write.

    Args:
        stream: Written to, and flushed.
        bytes_max: Written earlier when this much has gathered; 0 writes every line at once.
    """

    def __init__(self, stream: BinaryIO, *, bytes_max: int = _BYTES_MAX) -> None:
        self._stream = stream
        self._bytes_max = bytes_max
        self._lines = bytearray()
        self._is_planned = False
        self._lock = threading.Lock()

    def info(self, line: bytes) -> None:
        """Write a line soon."""
        with self._lock:
            self._lines += line
            if len(self._lines) >= self._bytes_max or not self._planned():
                self._write()

    def warning(self, line: bytes) -> None:
        """Write a line, and all before it, now."""
        with self._lock:
            self._lines += line
            self._write()

    error = critical = warning

    def flush(self) -> None:
        """Write what has gathered; to be called at the end of the process, too."""
        with self._lock:
            self._is_planned = False
            self._write()

    def _planned(self) -> bool:
        """Whether the loop will flush."""
        if not self._is_planned:
            try:
                asyncio.get_running_loop().call_later(_WAIT_SECONDS, self.flush)
            except RuntimeError:
                return False
            self._is_planned = True
        return True

    def _write(self) -> None:
        lines, self._lines = self._lines, bytearray()  # first: a stream that fails must not make them grow
        if lines:
            self._stream.write(lines)
            self._stream.flush()


def create_log(lines: BinaryIO | LineBuffer) -> Log:
    """A logger that writes to this buffer; or to a stream, every line at once."""
    lazy = structlog.wrap_logger(
        lines if isinstance(lines, LineBuffer) else LineBuffer(lines, bytes_max=0),
        wrapper_class=_Logger,
        processors=[_line],
    )
    log: Log = lazy.bind()  # else it is bound anew for every line
    return log


class _Logger(structlog.make_filtering_bound_logger(logging.INFO)):  # type: ignore[misc] # made at run time
    def write(self, level: Level, fields: Mapping[str, object]) -> None:
        getattr(self._logger, level)(_rendered(fields))


def account_hash(key: bytes | None) -> Callable[[str], str]:
    """A function that turns an account id into a stand-in: a keyed hash, useless without the key.

    Without a key a random one is drawn: lines of one process can be joined, those of two cannot.
    """
    # The hash takes a key of at most 64 bytes, so a longer one is hashed first.
    keyed = hashlib.blake2b(key=hashlib.blake2b(key or secrets.token_bytes(32)).digest(), digest_size=8)

    def hashed(account_id: str) -> str:
        own = keyed.copy()
        own.update(account_id.encode())
        return own.hexdigest()

    return hashed


def stack(error: BaseException) -> list[str]:
    """Where an exception came from: file, line and function; no message and no local values."""
    frames = traceback.extract_tb(error.__traceback__)
    return [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames]


class LibraryHandler(logging.Handler):
    """Writes what libraries log as lines of ours; an exception is named by its class and place only.

    A message that goes with an exception is left out: it often quotes it, and so do all of asyncio's
    (`Task exception was never retrieved`), with or without one beside it.
    """

    def __init__(self, log: Log) -> None:
        super().__init__(logging.WARNING)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        level = min(max(record.levelno, logging.WARNING), logging.CRITICAL)
        if not record.exc_info and record.name.partition(".")[0] != "asyncio":
            self._log.log(level, record.getMessage(), logger=record.name)
            return
        error = record.exc_info[1] if record.exc_info else None
        self._log.log(
            level,
            MESSAGE_WITHHELD,
            logger=record.name,
            error=None if error is None else type(error).__name__,
            stack=[*(() if error is None else stack(error)), f"{record.pathname}:{record.lineno} {record.funcName}"],
        )


@lru_cache(maxsize=8)
def _second(number: int) -> str:
    return datetime.fromtimestamp(number, UTC).isoformat().removesuffix("+00:00")


@lru_cache(maxsize=8)  # under load many lines are of one millisecond
def _time(milliseconds: int) -> str:
    second, rest = divmod(milliseconds, 1000)
    return f"{_second(second)}.{rest:03d}Z"


def now() -> str:
    """The time in UTC, to the millisecond."""
    return _time(time.time_ns() // 1_000_000)


def _line(_: object, method: str, event: MutableMapping[str, Any]) -> bytes:
    """The only processor."""
    fields = {name: value for name, value in event.items() if value is not None}
    return _rendered({"timestamp": now(), "level": method, "event": event["event"], **fields})


def _rendered(line: Mapping[str, object]) -> bytes:
    if not _ALLOWED.issuperset(line):
        line = {name: value for name, value in line.items() if name in _ALLOWED}
    try:
        return orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)
    except orjson.JSONEncodeError as error:
        told = {name: line[name] for name in ("timestamp", "level", "event")}
        return orjson.dumps(told | {"error": type(error).__name__}, option=orjson.OPT_APPEND_NEWLINE)
