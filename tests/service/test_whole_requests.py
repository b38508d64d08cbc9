"""A request is read by its form only where a parser would read the same, and nothing is left to say about its end."""

from __future__ import annotations

import httptools
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from service.whole_requests import line_of

HEAD = b"POST /v1/redemptions HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nIdempotency-Key: k\r\n\r\n"
WHOLE = HEAD + b"hello"
READ = b"GET /v1/accounts/a/balance?x=y HTTP/1.1\r\nhost: a\r\nconnection: keep-alive\r\n\r\n"


def test_the_plainest_form_is_read() -> None:
    """Method and URL of a request with a body, and of one without."""
    assert line_of(WHOLE) == b"POST /v1/redemptions"
    assert line_of(READ) == b"GET /v1/accounts/a/balance?x=y"
    assert line_of(WHOLE.replace(b"Content-Length: ", b"CONTENT-LENGTH:")) == b"POST /v1/redemptions"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        WHOLE[:-1],
        WHOLE + b"x",
        WHOLE * 2,
        HEAD[:-2],
        b"\r\n" + WHOLE,
        WHOLE.replace(b"HTTP/1.1", b"HTTP/1.0"),
        WHOLE.replace(b" /v1", b"  /v1"),
        WHOLE.replace(b"/v1/redemptions", b"*"),
        WHOLE.replace(b"POST", b"post"),
        WHOLE.replace(b"POST", b"POSTS"),
        WHOLE.replace(b"\r\n", b"\n"),
        WHOLE.replace(b"Host: a\r\n", b"Host: a\n"),
        WHOLE.replace(b"Host: a\r\n", b"Host: a\r"),
        WHOLE.replace(b"Host: a", b"Host: a\rContent-Length: 0"),
        WHOLE.replace(b"Host: a", b"Host: a\r\n b"),
        WHOLE.replace(b"Content-Length: 5", b"Content-Length : 5"),
        WHOLE.replace(b"Content-Length: 5", b"Content-Length: +5"),
        WHOLE.replace(b"Content-Length: 5", b"Content-Length: 5, 5"),
        WHOLE.replace(b"Content-Length: 5", b"Content-Length: 5\r\ncontent-length: 5"),
        WHOLE.replace(b"Content-Length: 5", b"Transfer-Encoding: chunked"),
        WHOLE.replace(b"Host: a", b"Transfer-Encoding: identity"),
        WHOLE.replace(b"Host: a", b"Expect: 100-continue"),
        WHOLE.replace(b"Host: a", b"Upgrade: websocket"),
        WHOLE.replace(b"Host: a", b"PREFER: respond-async"),
        WHOLE.replace(b"Host: a", b"Connection: close"),
        WHOLE.replace(b"Host: a", b"Connection: keep-alive, upgrade"),
        WHOLE.replace(b"Host: a", b"proxy-connection: close"),
    ],
)
def test_every_other_form_is_left_to_the_parser(data: bytes) -> None:
    """In pieces or in numbers, without a clear end, with a wish that changes what is to be done: not read."""
    assert line_of(data) is None


_PIECES = [b"\r", b"\n", b"\r\n", b" ", b":", b"\t", b"0", b"a", b"GET / HTTP/1.1\r\n\r\n"] + [
    name + value
    for name in (b"Content-Length", b"Transfer-Encoding", b"Connection", b"Upgrade", b"Expect", b"Host", b"X")
    for value in (b": 5\r\n", b": 0\r\n", b":\r\n", b": chunked\r\n", b": keep-alive\r\n", b": close\r\n", b" : 5\r\n")
]


@settings(max_examples=500, deadline=None)
@given(
    st.sampled_from([WHOLE, READ, HEAD]),
    st.lists(st.tuples(st.integers(0, 120), st.integers(0, 3), st.sampled_from(_PIECES)), max_size=4),
)
@example(WHOLE, [])
@example(READ, [])
@example(READ, [(0, 1, b"a")])
def test_the_parser_reads_the_same(whole: bytes, changes: list[tuple[int, int, bytes]]) -> None:
    """Whatever is read here the server's parser reads as one request, with this line, to its very end."""
    data = bytearray(whole)
    for place, dropped, piece in changes:
        data[place : place + dropped] = piece
    line = line_of(bytes(data))
    if line is not None:
        assert _parsed(bytes(data)) == [(line, True)]


def _parsed(data: bytes) -> list[tuple[bytes, bool]]:
    """The line of each request, and whether its connection stays."""
    found: list[tuple[bytes, bool]] = []

    class Heard:
        url = b""

        def on_message_begin(self) -> None:
            self.url = b""

        def on_url(self, url: bytes) -> None:
            self.url += url

        def on_message_complete(self) -> None:
            stays = parser.should_keep_alive() and not parser.should_upgrade()
            found.append((parser.get_method() + b" " + self.url, stays))

    parser = httptools.HttpRequestParser(Heard())
    parser.feed_data(data)
    return found
