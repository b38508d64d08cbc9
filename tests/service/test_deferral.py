"""A deferred redemption is read back exactly, or not at all."""

from __future__ import annotations

import string
from contextlib import suppress
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.deferral import (
    MESSAGE_BYTES_MAX,
    REFERENCE_CHARACTERS_MAX,
    WAIT_MAX,
    BurstSeal,
    Deferred,
    InvalidMessageError,
    InvalidReferenceError,
    StatusReference,
)
from service.domain import HOLD_SECONDS_MAX, POINTS_MAX, Mode
from service.signing import Signer

SIGNING_KEY = b"s" * 32
ACCEPTED_AT = datetime(2026, 11, 22, 10, 0, 0, 123456, tzinfo=UTC)
EXAMPLE = Deferred(
    client_id="partner-a",
    key="0123456789abcdef",
    fingerprint=bytes(range(32)),
    account_id="guest-1",
    points=500,
    mode="immediate",
    hold_seconds=None,
    accepted_at=ACCEPTED_AT,
    deadline=ACCEPTED_AT + timedelta(hours=1),
    traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
)
LONGEST = replace(
    EXAMPLE,
    client_id="c" * 64,
    key="k" * 128,
    account_id="a" * 64,
    points=POINTS_MAX,
    mode="reserve",
    hold_seconds=HOLD_SECONDS_MAX,
)


def words(least: int, most: int) -> st.SearchStrategy[str]:
    """Ids and keys of these lengths: made of few choices, as Hypothesis takes its time for each."""
    return st.builds(
        lambda head, times: (head * times).ljust(least, head[0])[:most],
        st.text(string.ascii_letters + string.digits + "_-", min_size=1, max_size=8),
        st.integers(1, most),
    )


def traceparents() -> st.SearchStrategy[str]:
    """Any trace context."""
    return st.binary(min_size=26, max_size=26).map(
        lambda raw: f"{raw[:1].hex()}-{raw[1:17].hex()}-{raw[17:25].hex()}-{raw[25:].hex()}"
    )


TIMES = st.datetimes(datetime(1, 1, 1), datetime(9999, 12, 1), timezones=st.just(UTC))  # noqa: DTZ001 - Hypothesis adds it


@st.composite
def deferred(draw: st.DrawFn) -> Deferred:
    """Any deferred redemption."""
    modes: tuple[Mode, ...] = ("immediate", "reserve")
    mode = draw(st.sampled_from(modes))
    accepted_at = draw(TIMES)
    return Deferred(
        client_id=draw(words(1, 64)),
        key=draw(words(16, 128)),
        fingerprint=draw(st.binary(min_size=32, max_size=32)),
        account_id=draw(words(1, 64)),
        points=draw(st.integers(1, POINTS_MAX)),
        mode=mode,
        hold_seconds=draw(st.integers(1, HOLD_SECONDS_MAX)) if mode == "reserve" else None,
        accepted_at=accepted_at,
        deadline=accepted_at + draw(st.timedeltas(timedelta(), WAIT_MAX)),
        traceparent=draw(st.none() | traceparents()),
    )


@given(deferred())
def test_what_was_encoded_decodes(message: Deferred) -> None:
    """Every field of every message comes back as it was, in ASCII that SQS takes."""
    body = message.encode()
    assert Deferred.decode(body) == message
    assert body.decode("ascii").isprintable()


def test_the_longest_message_is_within_the_limit() -> None:
    """Every field at its longest still decodes; ten of them are far below a batch's 1 MiB."""
    assert Deferred.decode(LONGEST.encode()) == LONGEST
    assert 10 * MESSAGE_BYTES_MAX < 2**20


def test_the_form_of_version_1() -> None:
    """Messages of today are read by services of tomorrow: this text stays readable."""
    assert EXAMPLE.encode().decode() == (
        '{"version":1,"client_id":"partner-a","key":"0123456789abcdef",'
        '"fingerprint":"000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f",'
        '"account_id":"guest-1","points":500,"mode":"immediate","hold_seconds":null,'
        '"accepted_at":"2026-11-22T10:00:00.123456+00:00","deadline":"2026-11-22T11:00:00.123456+00:00",'
        '"traceparent":"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}'
    )


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"client_id": ""}, "client_id"),
        ({"client_id": "c" * 65}, "client_id"),
        ({"client_id": None}, "client_id"),
        ({"key": "k" * 15}, "key"),
        ({"key": "k" * 129}, "key"),
        ({"key": "0123456789abcdef\n"}, "key"),
        ({"fingerprint": bytes(31)}, "fingerprint"),
        ({"fingerprint": "f" * 32}, "fingerprint"),
        ({"account_id": "guest 1"}, "account_id"),
        ({"account_id": ["guest-1"]}, "account_id"),
        ({"points": 0}, "points"),
        ({"points": POINTS_MAX + 1}, "points"),
        ({"points": True}, "points"),
        ({"points": 1.0}, "points"),
        ({"mode": "refund"}, "mode"),
        ({"mode": None}, "mode"),
        ({"hold_seconds": 60}, "hold_seconds"),
        ({"mode": "reserve"}, "hold_seconds"),
        ({"mode": "reserve", "hold_seconds": 0}, "hold_seconds"),
        ({"mode": "reserve", "hold_seconds": HOLD_SECONDS_MAX + 1}, "hold_seconds"),
        ({"accepted_at": ACCEPTED_AT.replace(tzinfo=None)}, "times in UTC"),
        ({"accepted_at": ACCEPTED_AT.astimezone(timezone(timedelta(hours=1)))}, "times in UTC"),
        ({"deadline": "2026-11-22T11:00:00+00:00"}, "times in UTC"),
        ({"deadline": ACCEPTED_AT - timedelta(microseconds=1)}, "deadline"),
        ({"deadline": ACCEPTED_AT + WAIT_MAX + timedelta(microseconds=1)}, "deadline"),
        ({"traceparent": "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01"}, "traceparent"),
        ({"traceparent": ""}, "traceparent"),
    ],
)
def test_no_value_out_of_range_is_put_into_the_queue(changes: dict[str, Any], rule: str) -> None:
    """The error names the field and what is allowed."""
    with pytest.raises(InvalidMessageError, match=rule):
        replace(EXAMPLE, **changes)


def document(**changes: object) -> bytes:
    """The example's message, with fields changed."""
    return orjson.dumps({**orjson.loads(EXAMPLE.encode()), **changes})


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"\xff",
        b"[" * 1000,
        document(version=2),
        document(version=True),
        document(version=1.0),
        document(surprise=1),
        document(points=True),
        document(points=500.0),
        document(points=POINTS_MAX + 1),
        EXAMPLE.encode().replace(b"500", b"9" * 400),
        document(account_id=None),
        document(fingerprint=1),
        document(fingerprint="zz" * 32),
        document(fingerprint="00" * 31),
        document(fingerprint="AB" * 32),
        document(fingerprint="00 " * 32),
        document(accepted_at=0),
        document(accepted_at="yesterday"),
        document(accepted_at="2026-11-22T10:00:00.123456Z"),
        document(accepted_at="2026-11-22T10:00:00.123456"),
        document(accepted_at="2026-11-22T11:00:00.123456+01:00"),
        document(deadline=None),
        document(traceparent=1),
        EXAMPLE.encode().replace(b'"points":500', b'"points":1,"points":500'),
        EXAMPLE.encode().replace(b'"points":500', b'"points": 500'),
        EXAMPLE.encode().replace(b'"points":500,', b""),
        EXAMPLE.encode() + b" ",
        EXAMPLE.encode() + b" " * MESSAGE_BYTES_MAX,
    ],
)
def test_nothing_else_decodes(body: bytes) -> None:
    """Another version, a field too many, too few or doubled, another type, value or spelling: all are refused."""
    with pytest.raises(InvalidMessageError) as refused:
        Deferred.decode(body)
    assert "guest-1" not in str(refused.value)


@given(st.binary(max_size=100) | st.recursive(st.none() | st.text(), st.lists, max_leaves=5).map(orjson.dumps))
def test_no_bytes_break_the_reader(body: bytes) -> None:
    """Whatever lies in the queue is refused, and nothing but `InvalidMessageError` is raised."""
    with pytest.raises(InvalidMessageError):
        Deferred.decode(body)


@given(
    st.sampled_from([each.name for each in fields(Deferred)]),
    st.none() | st.booleans() | st.integers(-1, 1) | st.text(),
)
def test_no_value_breaks_the_reader(name: str, value: object) -> None:
    """A field of any type and value either is the example's own kind of value, or is refused."""
    try:
        body = document(**{name: value})
    except orjson.JSONEncodeError:  # a text that is no Unicode
        return
    with suppress(InvalidMessageError):
        assert Deferred.decode(body).encode() == body


PRINT = bytes(range(32))


@given(words(1, 64), words(16, 128), TIMES)
def test_a_reference_comes_back(client_id: str, key: str, accepted_at: datetime) -> None:
    """Client, key and time to the microsecond come back from a text that fits into a URL."""
    text = StatusReference(client_id, key, PRINT, accepted_at).sign(SIGNING_KEY)
    assert StatusReference.verify(SIGNING_KEY, text) == (client_id, key, PRINT[:8], accepted_at)
    assert text.startswith("d_")
    assert text.replace("-", "").replace("_", "").isalnum()


def test_the_longest_reference_is_within_the_limit() -> None:
    """The longest ids make a text of at most 304 characters."""
    text = StatusReference("c" * 64, "k" * 128, PRINT, ACCEPTED_AT).sign(SIGNING_KEY)
    assert len(text) <= REFERENCE_CHARACTERS_MAX
    assert StatusReference.verify(SIGNING_KEY, text).key == "k" * 128


REFERENCE = StatusReference("partner-a", "0123456789abcdef", PRINT, ACCEPTED_AT).sign(SIGNING_KEY)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "d_",
        REFERENCE.removeprefix("d_"),
        "e_" + REFERENCE.removeprefix("d_"),
        "d_" + REFERENCE,
        REFERENCE[:-1],
        REFERENCE + "A",
        REFERENCE[:10] + ("A" if REFERENCE[10] != "A" else "B") + REFERENCE[11:],
        REFERENCE + "A" * 300,
        "d_" + Signer(SIGNING_KEY, "cursor").seal(bytes(8) + b"partner-a 0123456789abcdef"),
        StatusReference("partner-a", "0123456789abcdef", PRINT, ACCEPTED_AT).sign(b"S" * 32),
    ],
)
def test_no_other_reference_is_taken(text: str) -> None:
    """Changed, of another key, or signed for another purpose: refused in one way."""
    with pytest.raises(InvalidReferenceError, match=r"^not a reference that was signed here$"):
        StatusReference.verify(SIGNING_KEY, text)


@pytest.mark.parametrize(
    "reference",
    [
        StatusReference("partner a", "0123456789abcdef", PRINT, ACCEPTED_AT),
        StatusReference("partner-a", "short", PRINT, ACCEPTED_AT),
        StatusReference("partner-a", "0123456789abcdef", PRINT[:7], ACCEPTED_AT),
        StatusReference("partner-a", "0123456789abcdef", PRINT, ACCEPTED_AT.replace(tzinfo=None)),
    ],
)
def test_no_reference_is_signed_that_could_not_be_read(reference: StatusReference) -> None:
    """Ids with a space, half a fingerprint, or a time without a zone are refused before they are handed out."""
    with pytest.raises(InvalidReferenceError, match="client id"):
        reference.sign(SIGNING_KEY)


def test_a_reference_is_about_one_request() -> None:
    """The key may have been decided for another request: the reference tells them apart."""
    reference = StatusReference.verify(SIGNING_KEY, REFERENCE)
    assert reference.is_for(PRINT)
    assert not reference.is_for(bytes(32))


def test_the_burst_stream_takes_only_what_was_signed() -> None:
    """Whoever can write to Valkey can put anything there: what another key signed, or none, is no message."""
    message = Deferred.decode(document())
    sealed = BurstSeal(SIGNING_KEY).close(message)
    assert BurstSeal(SIGNING_KEY).open(sealed) == message
    assert BurstSeal(b"S" * 32).open(sealed) is None
    assert BurstSeal(SIGNING_KEY).open(message.encode()) is None
    assert BurstSeal(SIGNING_KEY).open(sealed[:-2] + b"!}") is None
    assert BurstSeal(SIGNING_KEY).open(b"") is None
