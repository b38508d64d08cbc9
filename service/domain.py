"""What a redemption is: values and rules that know neither HTTP nor Postgres."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal, TypeAlias
from uuid import UUID

POINTS_MAX: Final = 2**53 - 1  # the largest whole number that every JSON reader keeps
HOLD_SECONDS_DEFAULT: Final = 15 * 60  # a guest at a check-out
HOLD_SECONDS_MAX: Final = 31 * 24 * 3600  # a stay, as card networks hold an amount for a hotel
ACCRUALS_MAX: Final = 500  # in one request; a batch keeps the locks of its accounts to its end
PAGE_DEFAULT: Final = 50
PAGE_MAX: Final = 200
ACCOUNT_ID_PATTERN: Final = r"^[A-Za-z0-9_-]{1,64}$"
IDEMPOTENCY_KEY_PATTERN: Final = r"^[A-Za-z0-9_-]{16,128}$"
REFERENCE_PATTERN: Final = r"^[A-Za-z0-9_.-]{1,63}$"

_ACCOUNT_ID = re.compile(ACCOUNT_ID_PATTERN.strip("^$"))
_IDEMPOTENCY_KEY = re.compile(IDEMPOTENCY_KEY_PATTERN.strip("^$"))
_UUID = re.compile(r"[0-9a-fA-F]{8}(-?)(?:[0-9a-fA-F]{4}\1){3}[0-9a-fA-F]{12}")
_REFERENCE = re.compile(REFERENCE_PATTERN.strip("^$"))

Rejection = Literal[
    "insufficient-points",
    "unknown-account",
    "deadline-passed",
    "hold-closed",
    "exceeds-hold",
    "exceeds-redeemed",
    "balance-too-large",
]
Mode = Literal["immediate", "reserve"]
Resolving = Literal["capture", "void", "refund"]
Status = Literal["rejected", "redeemed", "reserved", "captured", "voided", "expired"]


class InvalidRequestError(ValueError):
    """The caller's mistake; the message says what is allowed and repeats nothing that was sent."""


class InvalidKeyError(InvalidRequestError):
    """The idempotency key is not one."""


class KeyReusedError(Exception):
    """The idempotency key belongs to another request."""


class InFlightError(Exception):
    """A request with the same idempotency key is being worked on."""


# --- what is asked for ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class RedemptionRequest:
    """Spend or reserve points.

    Attributes:
        account_id: Whose points.
        points: How many, 1 to 2^53-1.
        hold_seconds: How long they are held when they are reserved; None: they leave at once.
    """

    account_id: str
    points: int
    hold_seconds: int | None = None

    @property
    def mode(self) -> Mode:
        """`immediate` or `reserve`."""
        return "immediate" if self.hold_seconds is None else "reserve"

    def fingerprint(self) -> bytes:
        """SHA-256 of what it means: the same for two bodies that only differ in spelling."""
        # By hand, as a redemption waits for it: these texts need no escape, so it is what json.dumps would write.
        mode = "" if self.hold_seconds is None else f',"hold_seconds":{self.hold_seconds},"mode":"reserve"'
        body = f'{{"account_id":"{self.account_id}"{mode},"points":{self.points}}}'
        return hashlib.sha256(f'["POST /v1/redemptions",{body}]'.encode()).digest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolution:
    """Capture or void a hold, or refund what was redeemed.

    Attributes:
        redemption_id: The redemption that it is about.
        kind: What is to be done.
        points: Of a capture or a refund; None: all that there is.
    """

    redemption_id: UUID
    kind: Resolving
    points: int | None = None

    def fingerprint(self) -> bytes:
        """As that of a redemption."""
        meaning = [f"POST /v1/redemptions/{self.redemption_id}/{self.kind}", {"points": self.points}]
        return hashlib.sha256(json.dumps(meaning, separators=(",", ":")).encode()).digest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Accrual:
    """Grant points.

    Attributes:
        reference: The client's own name of what the points are for; granted once for each.
        account_id: Whose points; a new account is opened.
        points: How many, 1 to 2^53-1.
        expires_at: When they end; None: never.
    """

    reference: str
    account_id: str
    points: int
    expires_at: datetime | None = None


# --- what was decided -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Redemption:
    """A redemption: the decision on record, which never changes, and what became of it since.

    Attributes:
        redemption_id: Its id.
        account_id: Whose points.
        mode: How it was asked for.
        points: How many were asked for.
        status: What it is now.
        rejection: The reason when it is rejected.
        captured_points: How many have left the account by it; all of them when it was immediate.
        refunded_points: How many of those were given back.
        balance: The account's points right after the decision, held ones included; None: there is no such account.
        available: Those of them that were not held.
        hold_expires_at: When the hold ends, if it was reserved.
        created_at: When it was decided.
    """

    redemption_id: UUID
    account_id: str
    mode: Mode
    points: int
    status: Status
    rejection: Rejection | None
    captured_points: int
    refunded_points: int
    balance: int | None
    available: int | None
    hold_expires_at: datetime | None
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolved:
    """A capture, void or refund on record; it never changes.

    Attributes:
        resolution_id: Its own id.
        redemption_id: The redemption that it is about.
        kind: What was asked for.
        points: How many points left the account (capture), became free (void) or came back (refund); when it is
            rejected, how many were asked for.
        rejection: The reason; None when it was done.
        balance, available: The account's points right after the decision, as those of a redemption.
        created_at: When it was decided.
    """

    resolution_id: UUID
    redemption_id: UUID
    kind: Resolving
    points: int
    rejection: Rejection | None
    balance: int
    available: int
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Decision:
    """The answer to a redemption.

    Attributes:
        redemption: What is on record.
        replayed: It was decided by an earlier request with the same key; this one changed nothing.
    """

    redemption: Redemption
    replayed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Deferral:
    """What is known of a redemption that was accepted for later.

    Attributes:
        status: `pending` until it is decided.
        accepted_at: When it was accepted; None when it is asked for by its id, and maybe was decided at once.
        redemption: What was decided.
        status_url: Where to ask again.
    """

    status: Literal["pending", "settled"]
    accepted_at: datetime | None
    redemption: Redemption | None
    status_url: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Granted:
    """What became of one accrual.

    Attributes:
        reference: Which.
        result: `granted`; `replayed` from an earlier request; or nothing was granted: `reference-reused`, it belongs to
            another accrual, or `balance-too-large`, the account would hold more than 2^53-1 points.
        accrual_id: Its id, if points were granted now or earlier.
        balance: The account's points right after.
    """

    reference: str
    result: Literal["granted", "replayed", "reference-reused", "balance-too-large"]
    accrual_id: UUID | None
    balance: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Expiry:
    """Points that end at a time.

    Attributes:
        expires_at: When.
        points: How many.
    """

    expires_at: datetime
    points: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Balance:
    """An account's points.

    Attributes:
        account_id: Whose.
        posted: All points, held ones included.
        held: Set aside by open holds.
        available: What can be spent now.
        version: Grows by one with each entry of the account.
        next_expiries: Of the available ones, the first to end first.
    """

    account_id: str
    posted: int
    held: int
    available: int
    version: int
    next_expiries: tuple[Expiry, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A line of an account's statement.

    Attributes:
        version: Its place, from 1 without a gap.
        amount: Points that came, or went (below 0).
        balance_after: The account's points right after.
        transaction_id: The redemption, resolution, accrual or expiration that made it.
        kind: What that is.
        created_at: When.
    """

    version: int
    amount: int
    balance_after: int
    transaction_id: UUID
    kind: Literal["redeem", "capture", "refund", "accrual", "expiration"]
    created_at: datetime


# --- reading what callers send --------------------------------------------------------------------------------------

_Reader: TypeAlias = Callable[[object], Any]


def parse_redemption(body: bytes) -> RedemptionRequest:
    """Read a redemption's JSON strictly: no unknown, missing or doubled name, and whole points only.

    Raises:
        InvalidRequestError: The body is anything else.
    """
    fields = _object(
        body, {"account_id": _account_id, "points": _points}, {"mode": _mode, "hold_seconds": _hold_seconds}
    )
    mode, hold_seconds = fields.pop("mode", "immediate"), fields.pop("hold_seconds", None)
    if mode == "immediate" and hold_seconds is not None:
        raise InvalidRequestError("hold_seconds goes with the mode reserve only")
    if mode == "reserve":
        hold_seconds = hold_seconds or HOLD_SECONDS_DEFAULT
    return RedemptionRequest(**fields, hold_seconds=hold_seconds)


def parse_resolution(redemption_id: UUID, kind: Resolving, body: bytes) -> Resolution:
    """Read the JSON of a capture, void or refund; an empty body is an empty object.

    Raises:
        InvalidRequestError: The body is anything else than an object, with `points` at most; a void takes none.
    """
    optional: dict[str, _Reader] = {} if kind == "void" else {"points": _points}
    return Resolution(redemption_id=redemption_id, kind=kind, **_object(body or b"{}", {}, optional))


def parse_accruals(body: bytes) -> tuple[Accrual, ...]:
    """Read the JSON of many accruals.

    Raises:
        InvalidRequestError: The body is anything else than `{"accruals": [...]}` with 1 to 500 of them.
    """
    accruals: tuple[Accrual, ...] = _object(body, {"accruals": _accruals}, {})["accruals"]
    return accruals


def parse_account_id(text: str) -> str:
    """Read the id of an account; raises InvalidRequestError."""
    return _account_id(text)


def parse_redemption_id(text: str) -> UUID:
    """Read the id of a redemption, in any spelling of a UUID; raises InvalidRequestError."""
    if not _UUID.fullmatch(text):  # UUID() takes braces and more
        raise InvalidRequestError("redemption_id must be a UUID")
    return UUID(text)


def parse_idempotency_key(text: str) -> str:
    """Read an idempotency key, bare or as the quoted string of the IETF draft.

    Raises:
        InvalidKeyError: It is anything else.
    """
    key = text[1:-1] if len(text) > 1 and text[0] == text[-1] == '"' else text
    if not _IDEMPOTENCY_KEY.fullmatch(key):
        raise InvalidKeyError("Idempotency-Key must be one value of 16 to 128 letters, digits, _ or -")
    return key


def _object(body: bytes, required: Mapping[str, _Reader], optional: Mapping[str, _Reader]) -> dict[str, Any]:
    try:
        document = _STRICT.decode(body.decode())
    except InvalidRequestError:
        raise
    except (ValueError, RecursionError) as error:
        raise InvalidRequestError("the body is not JSON in UTF-8") from error
    return _fields("the body", document, required, optional)


def _fields(
    name: str,
    document: object,
    required: Mapping[str, _Reader],
    optional: Mapping[str, _Reader],
) -> dict[str, Any]:
    known = {**required, **optional}
    if not isinstance(document, dict) or not required.keys() <= document.keys() <= known.keys():
        raise InvalidRequestError(f"{name} must be an object with {_listed(required, optional)}, and nothing else")
    return {field: known[field](value) for field, value in document.items()}


def _listed(required: Mapping[str, _Reader], optional: Mapping[str, _Reader]) -> str:
    may = f"at most {' and '.join(optional)}" if not required else f"maybe {' and '.join(optional)}"
    return " and ".join([*required, *([may] if optional else [])]) or "no field"


def _account_id(value: object) -> str:
    if not isinstance(value, str) or not _ACCOUNT_ID.fullmatch(value):
        raise InvalidRequestError("account_id must be 1 to 64 letters, digits, _ or -")
    return value


def _points(value: object) -> int:
    return _whole("points", value, POINTS_MAX)


def _hold_seconds(value: object) -> int:
    return _whole("hold_seconds", value, HOLD_SECONDS_MAX)


def _whole(name: str, value: object, high: int) -> int:
    if type(value) is not int or not 1 <= value <= high:  # True is an int too, and no amount
        raise InvalidRequestError(f"{name} must be a whole number from 1 to {high}")
    return value


def _mode(value: object) -> Mode:
    if value == "immediate":
        return "immediate"
    if value == "reserve":
        return "reserve"
    raise InvalidRequestError("mode must be immediate or reserve")


def _reference(value: object) -> str:
    if not isinstance(value, str) or not _REFERENCE.fullmatch(value):
        raise InvalidRequestError("reference must be 1 to 63 letters, digits, _, - or .")
    return value


def _expires_at(value: object) -> datetime:
    try:
        moment = datetime.fromisoformat(value if isinstance(value, str) else "")
        if moment.tzinfo is not None:
            return moment.astimezone(UTC)
    except (ValueError, OverflowError):  # the latter at the ends of what a datetime can hold
        pass
    raise InvalidRequestError("expires_at must be a time with its offset, like 2027-01-31T00:00:00Z")


def _accruals(value: object) -> tuple[Accrual, ...]:
    if not isinstance(value, list) or not 1 <= len(value) <= ACCRUALS_MAX:
        raise InvalidRequestError(f"accruals must be a list of 1 to {ACCRUALS_MAX}")
    required: dict[str, _Reader] = {"reference": _reference, "account_id": _account_id, "points": _points}
    accruals = tuple(
        Accrual(**_fields(f"accruals[{place}]", one, required, {"expires_at": _expires_at}))
        for place, one in enumerate(value)
    )
    if len({one.reference for one in accruals}) < len(accruals):
        raise InvalidRequestError("a reference stands in accruals twice")
    return accruals


def _unique(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise InvalidRequestError("the body names a field twice; readers disagree on which one counts")
    return fields


def _no_constant(_: str) -> None:
    raise InvalidRequestError("the body is not JSON in UTF-8: NaN and Infinity are no numbers")


_STRICT: Final = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_no_constant)  # made once: that costs more
