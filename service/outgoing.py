"""Answers leave together: all that a turn of the event loop has to say to one connection in one packet, at its end.

The head and the body of an answer are then one packet and not two. And a caller with many connections, a load balancer
say, wakes up once for all of them, where it would wake up for each: both sides turn faster.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

BYTES_MAX: Final = 64 * 1024  # of one connection; then they leave at once, and the transport may ask for a pause


class Outbox:
    """What is to leave at the end of this turn of the loop, of all connections of a server."""

    def __init__(self) -> None:
        self._transports: list[GatheringTransport] = []

    def add(self, transport: GatheringTransport) -> None:
        """Have a transport flushed."""
        if not self._transports:
            asyncio.get_running_loop().call_soon(self._flush)
        self._transports.append(transport)

    def _flush(self) -> None:
        transports, self._transports = self._transports, []
        for each in transports:
            each.flush()


class GatheringTransport:
    """A transport that writes by way of an outbox; in all else it is the one that it stands before.

    Args:
        transport: Where to write.
        outbox: Flushes it.
    """

    __slots__ = ("_outbox", "_parts", "_size", "_transport")

    def __init__(self, transport: asyncio.Transport, outbox: Outbox) -> None:
        self._transport = transport
        self._outbox = outbox
        self._parts: list[bytes] = []
        self._size = 0

    def write(self, data: bytes) -> None:
        """Write soon, after all that was written before."""
        if not self._parts:
            self._outbox.add(self)
        self._parts.append(data)
        self._size += len(data)
        if self._size > BYTES_MAX:
            self.flush()

    def flush(self) -> None:
        """Write now what has gathered."""
        if self._parts:
            data, self._parts, self._size = b"".join(self._parts), [], 0
            if not self._transport.is_closing():
                self._transport.write(data)

    def close(self) -> None:
        """Close, after all that was written."""
        self.flush()
        self._transport.close()

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever it is
        return getattr(self._transport, name)
