"""Reads a request that came in one piece by its form alone, at a part of what a parser costs that calls back.

Only to turn it away. What is not of the plainest form is left to the parser, so where a request ends is beyond doubt:
a proxy before the service and the service itself can never disagree on which answer belongs to which request.
"""

from __future__ import annotations

import re
from typing import Final

# Headers that tell where a request ends, what becomes of its connection, or that it may wait in the queue. That the
# connection stays is what HTTP/1.1 does anyway, and many clients say it all the same.
_TELLING: Final = (
    rb"(?i:content-length|transfer-encoding|(?:proxy-)?connection(?!: keep-alive\r)|upgrade|expect|prefer):"
)
# Every line ends in CRLF, none is folded, and no name has a space before its colon (RFC 9112, 5).
_OTHERS: Final = rb"(?:(?!" + _TELLING + rb")[!-9;-~]+:.*\r\n)*"
_HEAD: Final = re.compile(
    rb"((?:GET|HEAD|POST) /[!-~]*) HTTP/1\.1\r\n"
    + _OTHERS
    + rb"(?:(?i:content-length): ?([0-9]{1,9})\r\n"
    + _OTHERS
    + rb")?\r\n"
)
_LONE_CR: Final = re.compile(rb"\r[^\n]")  # some take it for the end of a line


def line_of(data: bytes) -> bytes | None:
    """Method and URL, `POST /v1/redemptions` say, if this is one whole request whose connection stays; else None."""
    head = _HEAD.match(data)
    if head is None or _LONE_CR.search(data, 0, head.end()):
        return None
    line, length = head.groups()
    return line if len(data) == head.end() + int(length or 0) else None
