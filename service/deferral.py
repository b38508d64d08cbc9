"""A redemption that waits in the queue while the ledger is away, and the reference that its caller gets meanwhile."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple, Self

import orjson

from service.domain import ACCOUNT_ID_PATTERN, HOLD_SECONDS_MAX, IDEMPOTENCY_KEY_PATTERN, POINTS_MAX, Mode
from service.signing import SIGNATURE_BYTES, InvalidSealError, Signer

MESSAGE_BYTES_MAX: Final = 1024  # every field at its longest makes about 700
CLIENT_ID_PATTERN: Final = r"^[A-Za-z0-9_-]{1,64}$"  # as the ledger's check
WAIT_MAX: Final = timedelta(days=14)  # SQS keeps a message no longer, so no deadline can be later
REFERENCE_CHARACTERS_MAX: Final = 304
FINGERPRINT_HEAD_BYTES: Final = 8

_VERSION: Final = 1
_FINGERPRINT_BYTES: Final = 32
_CLIENT_ID: Final = re.compile(CLIENT_ID_PATTERN.strip("^$"))
_ACCOUNT_ID: Final = re.compile(ACCOUNT_ID_PATTERN.strip("^$"))
_KEY: Final = re.compile(IDEMPOTENCY_KEY_PATTERN.strip("^$"))
_TRACEPARENT: Final = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")  # W3C Trace Context, 3.2
_FIELDS: Final = frozenset(
    {
        "version",
        "client_id",
        "key",
        "fingerprint",
        "account_id",
        "points",
        "mode",
        "hold_seconds",
        "accepted_at",
        "deadline",
        "traceparent",
    }
)

_REFERENCE_PREFIX: Final = "d_"
_REFERENCE_PURPOSE: Final = "deferred-redemption"
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_TIME_BYTES: Final = 8


class InvalidMessageError(ValueError):
    """It is no deferred redemption; the error says what is allowed and repeats nothing that it was given."""


class InvalidReferenceError(ValueError):
    """It is no reference of a deferred redemption that was signed here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Deferred:
    """What the worker needs to settle a redemption later as if it were now.

    Attributes:
        client_id: Whose key it is.
        key: The idempotency key.
        fingerprint: SHA-256 of what the request means.
        account_id: Whose points.
        points: How many, 1 to 2^53-1.
        mode: Whether points leave at once, or are set aside.
        hold_seconds: How long they are set aside, at most 31 days; None exactly when they leave at once.
        accepted_at: When the caller was told 202.
        deadline: After it nothing is deducted any more: a rejection is recorded. At most 14 days later.
        traceparent: The request's trace, in the W3C form.

    Raises:
        InvalidMessageError: A value is out of its range.
    """

    client_id: str
    key: str
    fingerprint: bytes
    account_id: str
    points: int
    mode: Mode
    hold_seconds: int | None
    accepted_at: datetime
    deadline: datetime
    traceparent: str | None

    def __post_init__(self) -> None:
        for right, rule in self._rules():
            if not right:
                raise InvalidMessageError(rule)

    def _rules(self) -> tuple[tuple[bool, str], ...]:
        # Every rule stands for itself: what is read from a queue may have any type.
        timed = _is_utc(self.accepted_at) and _is_utc(self.deadline)
        holding = (
            _is_whole(self.hold_seconds, HOLD_SECONDS_MAX) if self.mode == "reserve" else self.hold_seconds is None
        )
        return (
            (_matches(_CLIENT_ID, self.client_id), "client_id must be 1 to 64 letters, digits, _ or -"),
            (_matches(_KEY, self.key), "key must be 16 to 128 letters, digits, _ or -"),
            (_is_fingerprint(self.fingerprint), f"fingerprint must have {_FINGERPRINT_BYTES} bytes"),
            (_matches(_ACCOUNT_ID, self.account_id), "account_id must be 1 to 64 letters, digits, _ or -"),
            (_is_whole(self.points, POINTS_MAX), f"points must be a whole number from 1 to {POINTS_MAX}"),
            (self.mode in ("immediate", "reserve"), "mode must be immediate or reserve"),
            (holding, f"hold_seconds must be 1 to {HOLD_SECONDS_MAX} to reserve, and absent otherwise"),
            (timed, "accepted_at and deadline must be times in UTC"),
            (
                timed and timedelta() <= self.deadline - self.accepted_at <= WAIT_MAX,
                f"deadline must be within {WAIT_MAX.days} days after accepted_at",
            ),
            (
                self.traceparent is None or _matches(_TRACEPARENT, self.traceparent),
                "traceparent must be one of W3C Trace Context",
            ),
        )

    def encode(self) -> bytes:
        """The message: compact JSON in ASCII, at most 1024 bytes."""
        return orjson.dumps(
            {
                "version": _VERSION,
                "client_id": self.client_id,
                "key": self.key,
                "fingerprint": self.fingerprint.hex(),
                "account_id": self.account_id,
                "points": self.points,
                "mode": self.mode,
                "hold_seconds": self.hold_seconds,
                "accepted_at": self.accepted_at,
                "deadline": self.deadline,
                "traceparent": self.traceparent,
            }
        )

    @classmethod
    def decode(cls, body: bytes) -> Self:
        """Read a message strictly: exactly what `encode` writes, to the byte.

        So a doubled field, another spelling of a time or a number is refused without a rule of its own.

        Raises:
            InvalidMessageError: It is anything else.
        """
        document = _document(body)
        if document.pop("version") != _VERSION:
            raise InvalidMessageError(f"the version must be {_VERSION}")
        try:
            message = cls(
                **document
                | {
                    "fingerprint": bytes.fromhex(document["fingerprint"]),
                    "accepted_at": datetime.fromisoformat(document["accepted_at"]),
                    "deadline": datetime.fromisoformat(document["deadline"]),
                }
            )
        except (TypeError, ValueError) as error:
            if isinstance(error, InvalidMessageError):
                raise
            raise InvalidMessageError("fingerprint must be hexadecimal, and times must be those of RFC 3339") from None
        if message.encode() != body:
            raise InvalidMessageError("the message must be spelled as it is written here")
        return message


class StatusReference(NamedTuple):
    """Which deferred redemption a status URL asks for.

    Attributes:
        client_id: Whose key it is.
        key: The idempotency key.
        fingerprint: Of the request, its first 8 bytes: the key may have been decided for another one.
        accepted_at: When the caller was told 202.
    """

    client_id: str
    key: str
    fingerprint: bytes
    accepted_at: datetime

    def sign(self, signing_key: bytes) -> str:
        """The reference as a text for a URL: `d_` and base64url, at most 304 characters.

        Args:
            signing_key: The secret, at least 32 bytes.

        Raises:
            InvalidReferenceError: A part is out of its range.
        """
        named = _matches(_CLIENT_ID, self.client_id) and _matches(_KEY, self.key)
        if not (named and len(self.fingerprint) >= FINGERPRINT_HEAD_BYTES and _is_utc(self.accepted_at)):
            raise InvalidReferenceError("a reference needs a client id, a key, a fingerprint and a time in UTC")
        microseconds = (self.accepted_at - _EPOCH) // _MICROSECOND
        time = microseconds.to_bytes(_TIME_BYTES, "big", signed=True)
        # Neither id can hold a space.
        payload = time + self.fingerprint[:FINGERPRINT_HEAD_BYTES] + f"{self.client_id} {self.key}".encode()
        return _REFERENCE_PREFIX + Signer(signing_key, _REFERENCE_PURPOSE).seal(payload)

    @classmethod
    def verify(cls, signing_key: bytes, text: str) -> Self:
        """Read a reference that `sign` made with the same key.

        Raises:
            InvalidReferenceError: It did not.
        """
        if len(text) > REFERENCE_CHARACTERS_MAX or not text.startswith(_REFERENCE_PREFIX):
            raise InvalidReferenceError("not a reference that was signed here")
        try:
            payload = Signer(signing_key, _REFERENCE_PURPOSE).open(text.removeprefix(_REFERENCE_PREFIX))
        except InvalidSealError:
            raise InvalidReferenceError("not a reference that was signed here") from None
        # What opens was sealed by `sign`, so it has this form.
        microseconds = int.from_bytes(payload[:_TIME_BYTES], "big", signed=True)
        names = _TIME_BYTES + FINGERPRINT_HEAD_BYTES
        client_id, key = payload[names:].decode().split(" ")
        return cls(client_id, key, payload[_TIME_BYTES:names], _EPOCH + microseconds * _MICROSECOND)

    def is_for(self, fingerprint: bytes) -> bool:
        """Whether it is about the request that was decided."""
        return fingerprint[:FINGERPRINT_HEAD_BYTES] == self.fingerprint


class BurstSeal:
    """Signs what goes by the burst stream: whoever can write there may be anybody, and it moves points.

    Args:
        signing_key: The secret, at least 32 bytes, the same for service and worker.
    """

    def __init__(self, signing_key: bytes) -> None:
        self._signer = Signer(signing_key, "burst")

    def close(self, message: Deferred) -> bytes:
        """The message with its signature before it."""
        body = message.encode()
        return self._signer.sign(body) + body

    def open(self, sealed: bytes) -> Deferred | None:
        """The message, if it was signed here and can be read."""
        signature, body = sealed[:SIGNATURE_BYTES], sealed[SIGNATURE_BYTES:]
        if not self._signer.verifies(body, signature):
            return None
        try:
            return Deferred.decode(body)
        except InvalidMessageError:
            return None


def _document(body: bytes) -> dict[str, Any]:
    if len(body) > MESSAGE_BYTES_MAX:
        raise InvalidMessageError(f"a message has at most {MESSAGE_BYTES_MAX} bytes")
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise InvalidMessageError("a message is JSON in UTF-8") from None
    if not isinstance(document, dict) or document.keys() != _FIELDS:
        raise InvalidMessageError(f"a message is an object with the fields {', '.join(sorted(_FIELDS))}")
    return document


def _matches(pattern: re.Pattern[str], value: object) -> bool:
    return isinstance(value, str) and pattern.fullmatch(value) is not None


def _is_whole(value: object, most: int) -> bool:
    return type(value) is int and 1 <= value <= most  # True is an int too, and no amount


def _is_fingerprint(value: object) -> bool:
    return isinstance(value, bytes) and len(value) == _FINGERPRINT_BYTES


def _is_utc(value: object) -> bool:
    return isinstance(value, datetime) and value.utcoffset() == timedelta()
