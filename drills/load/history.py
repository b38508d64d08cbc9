"""What a client saw of each redemption: the half of the evidence that the ledger does not have."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

import orjson

from service import problems

_DECIDED_LATER = 202
_RETRYABLE = (408, 409, 425, 429)
_TOO_MANY = 429
_UNAVAILABLE = 503
_CLIENT_FAULTS = range(400, 500)
_ACCEPTED = range(200, 300)

# Turned away before anything happened. A 503 of another kind, the ledger cannot be reached say, tells nothing.
_SHED_CODES: Final = frozenset(
    kind.code for kind in vars(problems).values() if isinstance(kind, problems.Kind) and kind.outcome == "shed"
)


class Outcome(StrEnum):
    """What a client knows after an answer, or without one."""

    ACKNOWLEDGED = "acknowledged"
    """The points are spent; a promise."""
    REJECTED = "rejected"
    """A decision is on record that they are not, for a business reason; a promise as well."""
    DEFERRED = "deferred"
    """It will be decided; the answer says where to ask."""
    SHED = "shed"
    """Turned away, because of load; nothing happened."""
    REFUSED = "refused"
    """The request was wrong or not allowed; nothing happened."""
    UNKNOWN = "unknown"
    """It may have happened or not; only the same key again can tell."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One redemption, as its client saw it. Times are of this machine's monotonic clock, in seconds.

    Attributes:
        key: Its idempotency key.
        account_id: Whose points.
        points: How many.
        invoked_at: When it was first sent.
        returned_at: When the answer was there; None without one.
        status: The HTTP status; None without an answer.
        outcome: What the client knows.
        redemption_id: The id in the answer.
        code: What was wrong, in the service's word, `insufficient-points` say.
        location: Where to ask again.
        attempts: How many times it was sent.
    """

    key: str
    account_id: str
    points: int
    invoked_at: float
    returned_at: float | None = None
    status: int | None = None
    outcome: Outcome = Outcome.UNKNOWN
    redemption_id: str | None = None
    code: str | None = None
    location: str | None = None
    attempts: int = 1


@dataclass(frozen=True, slots=True)
class History:
    """Every operation of a run, or of several."""

    operations: tuple[Operation, ...] = ()

    def __iter__(self) -> Iterator[Operation]:
        return iter(self.operations)

    def __len__(self) -> int:
        return len(self.operations)

    def __add__(self, other: History) -> History:
        return History(self.operations + other.operations)

    def of(self, *outcomes: Outcome) -> tuple[Operation, ...]:
        """Those that ended so."""
        return tuple(one for one in self.operations if one.outcome in outcomes)

    def write(self, file: Path) -> None:
        """Keep it as JSON lines."""
        with file.open("wb") as lines:
            lines.writelines(orjson.dumps(asdict(one), option=orjson.OPT_APPEND_NEWLINE) for one in self.operations)

    @classmethod
    def read(cls, file: Path) -> History:
        """What `write` kept."""
        with file.open("rb") as lines:
            documents = [orjson.loads(line) for line in lines]
        return cls(tuple(Operation(**{**each, "outcome": Outcome(each["outcome"])}) for each in documents))


def facts(status: int, body: bytes, location: str | None) -> dict[str, Any]:
    """What an answer says: the fields of an operation that it decides."""
    document = _document(body)
    redemption_id = document.get("redemption_id")
    code = document.get("code") or document.get("rejection")  # of a problem; of a redemption that is read
    return {
        "status": status,
        "outcome": _outcome(status, code, decided=redemption_id is not None),
        "redemption_id": redemption_id,
        "code": code,
        "location": location,
    }


def _outcome(status: int, code: str | None, *, decided: bool) -> Outcome:
    if status in _ACCEPTED:
        return Outcome.DEFERRED if status == _DECIDED_LATER else Outcome.ACKNOWLEDGED
    if status == _TOO_MANY or (status == _UNAVAILABLE and code in _SHED_CODES):
        return Outcome.SHED
    if status in _CLIENT_FAULTS and status not in _RETRYABLE:
        return Outcome.REJECTED if decided else Outcome.REFUSED
    return Outcome.UNKNOWN


def _document(body: bytes) -> dict[str, Any]:
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    return document if isinstance(document, dict) else {}
