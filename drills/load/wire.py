"""One keep-alive connection that speaks as little HTTP/1.1 as it takes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, cast

from drills.load.plan import Request

ANSWER_BYTES_MAX: Final = 1024 * 1024

_END = b"\r\n\r\n"
_VERSION = b"HTTP/1.1 "
_LENGTHS = (b"\ncontent-length: ", b"\nContent-Length: ")  # the spellings that servers use
_CLOSE = b"onnection: close"  # likewise both


class WireError(Exception):
    """The answer is not one that this client reads."""


class Connection(asyncio.Protocol):
    """A connection with at most one request under way.

    Attributes:
        request: What is under way, None when nothing is; whoever sends puts it there.
        due: When it was due.
        sent: When it was sent.
        transport: Where to write, None while there is no connection.
    """

    __slots__ = ("_answered", "_buffer", "_lost", "due", "request", "sent", "transport")

    def __init__(self, answered: Callable[[Connection, bytes], None], lost: Callable[[Connection], None]) -> None:
        """Tell of each answer all its bytes, and of the end of the connection."""
        self.request: Request | None = None
        self.due = self.sent = 0.0
        self.transport: asyncio.Transport | None = None
        self._answered = answered
        self._lost = lost
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ready for a first request."""
        self.transport = cast("asyncio.Transport", transport)  # uvloop's is no subclass of it
        self._buffer = b""

    def data_received(self, data: bytes) -> None:
        """A part of an answer; nearly always all of it."""
        if self._buffer:
            data = self._buffer + data
        try:
            whole = is_whole(data)
        except WireError:
            self.drop()
            return
        if not whole:
            self._buffer = data
            return
        self._buffer = b""
        if self.request is None:  # nobody asked: the server gives up the connection, with a 408 say
            self.drop()
            return
        self._answered(self, data)

    def connection_lost(self, error: Exception | None) -> None:  # noqa: ARG002 - what is lost is lost
        """By whomever."""
        self.transport = None
        self._lost(self)

    def drop(self) -> None:
        """End the connection at once; `lost` is told."""
        if self.transport is not None:
            self.transport.abort()


def is_whole(data: bytes) -> bool:
    """Whether an answer has arrived to its end.

    Raises:
        WireError: It has no length, is too long, or is no HTTP at all.
    """
    if not data.startswith(_VERSION) and not _VERSION.startswith(data):
        raise WireError
    end = data.find(_END)
    if end < 0:
        if len(data) > ANSWER_BYTES_MAX:
            raise WireError
        return False
    for name in _LENGTHS:
        start = data.find(name, 0, end)
        if start > 0:
            break
    else:
        raise WireError
    try:
        size = end + len(_END) + int(data[start + len(name) : data.index(b"\r", start + 1)])
    except ValueError:
        raise WireError from None
    if size > ANSWER_BYTES_MAX or len(data) > size:  # more than one answer to one request
        raise WireError
    return len(data) == size


def status(data: bytes) -> int:
    """The status of a whole answer."""
    return int(data[9:12])  # of "HTTP/1.1 201 Created"


def closes(data: bytes) -> bool:
    """Whether the server ends the connection after this answer."""
    return _CLOSE in data


def split(data: bytes) -> tuple[dict[str, str], bytes]:
    """The headers, by lower-case name, and the body of a whole answer."""
    head, _, body = data.partition(_END)
    lines = head.decode("latin-1").split("\r\n")[1:]
    return {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}, body
