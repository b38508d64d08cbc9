"""What a redemption is: values and rules that know neither HTTP nor Postgres."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

POINTS_MAX = 2**53 - 1  # the largest whole number that every JSON reader keeps
ACCOUNT_ID_PATTERN = r"^[A-Za-z0-9_-]{1,64}$"
IDEMPOTENCY_KEY_PATTERN = r"^[A-Za-z0-9_-]{16,128}$"

_ACCOUNT_ID = re.compile(ACCOUNT_ID_PATTERN.strip("^$"))
_IDEMPOTENCY_KEY = re.compile(IDEMPOTENCY_KEY_PATTERN.strip("^$"))

Rejection = Literal["insufficient-points", "unknown-account"]


class InvalidRequestError(ValueError):
    """The caller's mistake; the message says what is allowed and repeats nothing that was sent."""


class InvalidKeyError(InvalidRequestError):
    """The idempotency key is not one."""


class KeyReusedError(Exception):
    """The idempotency key belongs to another request."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RedemptionRequest:
    """What a caller asks for.

    Attributes:
        account_id: Whose points.
        points: How many, 1 to 2^53-1.
    """

    account_id: str
    points: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Redemption:
    """A decision on record; it never changes.

    Attributes:
        redemption_id: Its id.
        account_id: Whose points.
        points: How many were asked for.
        status: `redeemed`, or `rejected` for a business reason.
        rejection: The reason; None when redeemed.
        balance: The account's points right after the decision; None when there is no such account.
        created_at: When it was decided.
    """

    redemption_id: UUID
    account_id: str
    points: int
    status: Literal["redeemed", "rejected"]
    rejection: Rejection | None
    balance: int | None
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Decision:
    """The answer to a request.

    Attributes:
        redemption: What is on record.
        replayed: It was decided by an earlier request with the same key; this one changed nothing.
    """

    redemption: Redemption
    replayed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Balance:
    """An account's points.

    Attributes:
        account_id: Whose.
        balance: Points that can be spent.
        version: Grows by one with each entry of the account.
    """

    account_id: str
    balance: int
    version: int


def parse_redemption(body: bytes) -> RedemptionRequest:
    """Read a request's JSON strictly: no unknown, missing or doubled name, and whole points only.

    Raises:
        InvalidRequestError: The body is anything else.
    """
    try:
        document = json.loads(body, object_pairs_hook=_unique, parse_constant=_no_constant)
    except InvalidRequestError:
        raise
    except (ValueError, RecursionError) as error:
        raise InvalidRequestError("the body is not JSON in UTF-8") from error
    names = {"account_id", "points"}
    if not isinstance(document, dict) or set(document) != names:
        raise InvalidRequestError("the body must be an object with account_id and points, and nothing else")
    account_id, points = document["account_id"], document["points"]
    if not isinstance(account_id, str) or not _ACCOUNT_ID.fullmatch(account_id):
        raise InvalidRequestError("account_id must be 1 to 64 letters, digits, _ or -")
    if type(points) is not int or not 1 <= points <= POINTS_MAX:  # True is an int too, and no amount
        raise InvalidRequestError(f"points must be a whole number from 1 to {POINTS_MAX}")
    return RedemptionRequest(account_id=account_id, points=points)


def parse_idempotency_key(text: str) -> str:
    """Read an idempotency key, bare or as the quoted string of the IETF draft.

    Raises:
        InvalidKeyError: It is anything else.
    """
    key = text[1:-1] if len(text) > 1 and text[0] == text[-1] == '"' else text
    if not _IDEMPOTENCY_KEY.fullmatch(key):
        raise InvalidKeyError("Idempotency-Key must be one value of 16 to 128 letters, digits, _ or -")
    return key


def fingerprint(request: RedemptionRequest) -> bytes:
    """SHA-256 of what a request means: the same for two bodies that only differ in spelling."""
    canonical = ["POST /v1/redemptions", {"account_id": request.account_id, "points": request.points}]
    return hashlib.sha256(json.dumps(canonical, sort_keys=True, separators=(",", ":")).encode()).digest()


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({name for name, _ in pairs}) != len(pairs):
        raise InvalidRequestError("the body names a field twice; readers disagree on which one counts")
    return dict(pairs)


def _no_constant(_: str) -> None:
    raise InvalidRequestError("the body is not JSON in UTF-8: NaN and Infinity are no numbers")
