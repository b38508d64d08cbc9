"""What can go wrong, as a caller sees it: problem details by RFC 9457, from one table.

`type` and `code` are stable; `retryable` says whether the same request, with the same key, may work later.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson
from starlette.responses import Response

MEDIA_TYPE = "application/problem+json"
TYPE_BASE = "https://redemption.example.com/problems/"
RETRY_AFTER_SECONDS = 1


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of problem.

    Attributes:
        code: Last part of its `type`; callers switch on it.
        status: HTTP status.
        outcome: How the request counts, one of the outcomes of `slo.metrics`.
        title: What happened, the same words each time.
        retryable: The same request may work later.
    """

    code: str
    status: int
    outcome: str
    title: str
    retryable: bool = False


MALFORMED = Kind("malformed-request", 400, "invalid", "The request is not well formed.")
KEY_MISSING = Kind("idempotency-key-missing", 400, "invalid", "The header Idempotency-Key is missing.")
KEY_MALFORMED = Kind("idempotency-key-malformed", 400, "invalid", "The header Idempotency-Key is not well formed.")
UNAUTHENTICATED = Kind("unauthenticated", 401, "invalid", "The caller is not known.")
KEYS_STALE = Kind("signing-key-unknown", 401, "invalid", "The token's key is not known yet.", retryable=True)
FORBIDDEN = Kind("forbidden", 403, "invalid", "The token does not allow this.")
HEAD_TIMEOUT = Kind("head-timeout", 408, "invalid", "The head of the request did not arrive in time.", retryable=True)
BODY_TIMEOUT = Kind("body-timeout", 408, "invalid", "The body did not arrive in time.", retryable=True)
BODY_TOO_LARGE = Kind("body-too-large", 413, "invalid", "The body is too large.")
UNSUPPORTED_MEDIA_TYPE = Kind("unsupported-media-type", 415, "invalid", "The body must be application/json.")
HEADERS_TOO_LARGE = Kind("headers-too-large", 431, "invalid", "The headers are too many or too large.")

RATE_LIMITED = Kind("rate-limited", 429, "limited", "The client is beyond its rate.", retryable=True)
IN_PROGRESS = Kind(
    "request-in-progress", 409, "refused", "A request with this idempotency key is being worked on.", retryable=True
)

INSUFFICIENT_POINTS = Kind("insufficient-points", 422, "refused", "The account has too few points.")
UNKNOWN_ACCOUNT = Kind("unknown-account", 422, "refused", "There is no such account.")
DEADLINE_PASSED = Kind("deadline-passed", 422, "refused", "The redemption waited for too long and was given up.")
HOLD_CLOSED = Kind("hold-closed", 422, "refused", "The redemption holds no points any more, or never did.")
EXCEEDS_HOLD = Kind("exceeds-hold", 422, "refused", "The redemption holds fewer points.")
EXCEEDS_REDEEMED = Kind("exceeds-redeemed", 422, "refused", "Fewer points are left to be refunded.")
BALANCE_TOO_LARGE = Kind("balance-too-large", 422, "refused", "The account cannot hold so many points.")
KEY_REUSED = Kind("idempotency-key-reused", 422, "refused", "The idempotency key belongs to another request.")
ACCOUNT_NOT_FOUND = Kind("account-not-found", 404, "refused", "There is no such account.")
REDEMPTION_NOT_FOUND = Kind("redemption-not-found", 404, "refused", "There is no such redemption.")

OVERLOADED = Kind("overloaded", 503, "shed", "Too many requests at once.", retryable=True)
DRAINING = Kind("draining", 503, "shed", "This server is about to stop; another one answers.", retryable=True)
LEDGER_TIMEOUT = Kind("ledger-timeout", 504, "timeout", "The ledger did not answer in time.", retryable=True)
LEDGER_UNAVAILABLE = Kind("ledger-unavailable", 503, "error", "The ledger cannot be reached.", retryable=True)
INTERNAL = Kind("internal-error", 500, "error", "Something is wrong on our side.", retryable=True)

NOT_FOUND = Kind("not-found", 404, "invalid", "There is no such resource.")
METHOD_NOT_ALLOWED = Kind("method-not-allowed", 405, "invalid", "The resource does not know this method.")

REJECTIONS = {
    kind.code: kind
    for kind in (
        INSUFFICIENT_POINTS,
        UNKNOWN_ACCOUNT,
        DEADLINE_PASSED,
        HOLD_CLOSED,
        EXCEEDS_HOLD,
        EXCEEDS_REDEEMED,
        BALANCE_TOO_LARGE,
    )
}
"""The kinds that stand for a recorded decision, by the ledger's word for it."""

ALL = tuple(kind for kind in tuple(globals().values()) if isinstance(kind, Kind))
"""Every kind."""


class ProblemError(Exception):
    """Ends a request with a problem.

    Attributes:
        kind: Which.
        detail: What was wrong this time.
        members: Further members of the problem document.
        headers: Further headers of the answer.
    """

    def __init__(
        self,
        kind: Kind,
        detail: str = "",
        *,
        members: dict[str, Any] | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(kind.code)
        self.kind = kind
        self.detail = detail
        self.members = members or {}
        self.headers = headers or {}


def response(problem: ProblemError, trace_id: str | None) -> Response:
    """The answer that tells the caller."""
    kind = problem.kind
    document: dict[str, Any] = {
        "type": TYPE_BASE + kind.code,
        "title": kind.title,
        "status": kind.status,
        "detail": problem.detail or kind.title,
        "code": kind.code,
        "retryable": kind.retryable,
    }
    if trace_id:
        document["trace_id"] = trace_id
    headers = dict(problem.headers)
    if kind.retryable:
        headers.setdefault("Retry-After", str(RETRY_AFTER_SECONDS))
    return Response(orjson.dumps(document | problem.members), kind.status, headers, MEDIA_TYPE)
