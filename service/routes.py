"""HTTP to domain and back, and nothing else."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import orjson
from fastapi import APIRouter, Request, Response
from starlette.requests import ClientDisconnect

from service import domain, openapi, problems, tracing
from service.administration import migrations
from service.database import LedgerTimeoutError, LedgerUnavailableError
from service.deferral import InvalidReferenceError, StatusReference
from service.domain import Deferral, Redemption, Resolved
from service.ledger import Ledger, Wanted
from service.middleware import Note, note_of
from service.problems import Kind, ProblemError
from service.rate_limits import RateLimiter
from service.redeeming import Accepted, Redeeming
from service.security import (
    Authentication,
    AuthenticationError,
    Caller,
    Scope,
    insufficient_scope_challenge,
)
from service.signing import InvalidSealError, Signer
from service.telemetry import Instruments
from slo.metrics import REDEEM_ROUTE, REDEMPTION_REPLAYS

BODY_BYTES_MAX: Final = 16 * 1024  # a redemption needs some hundred
ACCRUALS_BYTES_MAX: Final = 128 * 1024  # as many accruals as one request may hold

_RETRY_HINT: Final = "Repeat the request with the same Idempotency-Key: points move at most once."
_POLL_SECONDS: Final = 1
_BODY_SECONDS_MAX: Final = 1.0  # it comes right behind its headers; who dawdles holds a place that others wait for
_READY_SECONDS: Final = 1.0

Handler = Callable[[Request], Awaitable[Response]]


class Readiness:
    """Whether the service is ready, asked once a second however many probe it: a probe is free to call.

    Args:
        ask: Finds out: the answer, and its status.
    """

    def __init__(self, ask: Callable[[], Awaitable[tuple[dict[str, str], int]]]) -> None:
        self._ask = ask
        self._asked: asyncio.Task[tuple[dict[str, str], int]] | None = None
        self._good_until = 0.0

    async def state(self) -> tuple[dict[str, str], int]:
        """The answer, at most a second old."""
        now = asyncio.get_running_loop().time()
        if self._asked is None or (self._asked.done() and now >= self._good_until):
            self._asked = asyncio.ensure_future(self._ask())
            self._good_until = now + _READY_SECONDS
        return await asyncio.shield(self._asked)


@dataclass(frozen=True, slots=True, kw_only=True)
class Routes:
    """The handlers and what they talk to.

    Attributes:
        ledger: Answers.
        redeeming: Decides redemptions, or defers them.
        authentication: Knows the callers.
        limiter: Bounds what each of them may send.
        instruments: Counts.
        signing_key: Signs cursors and status references.
        deadline_seconds: Time for an answer.
    """

    ledger: Ledger
    redeeming: Redeeming
    authentication: Authentication
    limiter: RateLimiter
    instruments: Instruments
    signing_key: bytes
    deadline_seconds: float
    readiness: Readiness = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "readiness", Readiness(self._ready))

    def router(self) -> APIRouter:
        """All routes."""
        router = APIRouter()
        handlers: dict[str, Handler] = {
            REDEEM_ROUTE: self.redeem,
            "GET /v1/redemptions": self.redemptions,
            "GET /v1/redemptions/{redemption_id}": self.redemption,
            "GET /v1/redemptions/{reference}/status": self.status,
            "POST /v1/redemptions/{redemption_id}/capture": self.capture,
            "POST /v1/redemptions/{redemption_id}/void": self.void,
            "POST /v1/redemptions/{redemption_id}/refunds": self.refund,
            "GET /v1/accounts/{account_id}/balance": self.balance,
            "GET /v1/accounts/{account_id}/entries": self.entries,
            "POST /v1/accruals:batch": self.accrue,
            "GET /livez": self.livez,
            "GET /readyz": self.readyz,
            "GET /metrics": self.metrics,
        }
        for name, handler in handlers.items():
            method, _, path = name.partition(" ")
            router.add_api_route(path, handler, methods=[method], **openapi.OPERATIONS.get(name, openapi.PROBE))
        return router

    def direct(self) -> dict[str, Handler]:
        """Those that a flash sale lives on, by their names."""
        return {REDEEM_ROUTE: self.redeem}

    # --- redemptions --------------------------------------------------------------------------------------------------

    async def redeem(self, request: Request) -> Response:
        """Spend or reserve points, exactly once for each idempotency key."""
        deadline = self._deadline()
        caller, note = self._enter(request, Scope.REDEMPTIONS_WRITE)
        key = _key(request)
        with _as_problems():
            wanted = domain.parse_redemption(await _body(request, deadline))
            note.account_id = wanted.account_id
            if not caller.may_touch(wanted.account_id):
                raise ProblemError(problems.FORBIDDEN, "The token is good for another account.")
            asked = Wanted(caller.client_id, key, wanted, wanted.fingerprint(), deadline, span=tracing.recorded_span())
            began = time.perf_counter()
            try:
                outcome = await (
                    self.redeeming.defer(asked, "overloaded") if note.beyond_limit else self.redeeming.redeem(asked)
                )
            finally:
                note.ledger_seconds = time.perf_counter() - began
        if isinstance(outcome, Accepted):
            note.deferred = True
            return self._pending(StatusReference(caller.client_id, key, asked.fingerprint, outcome.accepted_at), 202)
        decision, source = outcome
        redemption = decision.redemption
        note.redemption_id, note.replayed = str(redemption.redemption_id), decision.replayed
        if decision.replayed:
            self.instruments.count(REDEMPTION_REPLAYS, 1, source=source)
        location = f"/v1/redemptions/{redemption.redemption_id}"
        if redemption.rejection is not None:
            raise _rejected(redemption.rejection, redemption, location, replayed=decision.replayed)
        return _json(redemption, 201, _replayed(decision.replayed) | {"Location": location})

    async def redemptions(self, request: Request) -> Response:
        """A client's redemptions, the newest first."""
        caller, note = self._enter(request, Scope.REDEMPTIONS_READ)
        _whole_client_only(caller)
        page = _Page(self.signing_key, f"redemptions {caller.client_id}", request)
        before = UUID(page.before) if page.before else None
        with self._asking(note):
            found = await self.ledger.redemptions(caller.client_id, before, page.size + 1, deadline=self._deadline())
        return page.answer("redemptions", found, lambda last: str(last.redemption_id))

    async def redemption(self, request: Request) -> Response:
        """One redemption, as it stands."""
        caller, note = self._enter(request, Scope.REDEMPTIONS_READ)
        redemption_id = _redemption_id(request)
        note.redemption_id = str(redemption_id)
        return _json(await self._find(caller, redemption_id, note))

    async def status(self, request: Request) -> Response:
        """Whether a deferred redemption is settled, and how."""
        caller, note = self._enter(request, Scope.REDEMPTIONS_READ)
        text = request.path_params["reference"]
        if not text.startswith("d_"):
            found = await self._find(caller, _redemption_id(request, "reference"), note)
            note.redemption_id = str(found.redemption_id)
            return _json(_settled(found, None, request.url.path))
        try:
            reference = StatusReference.verify(self.signing_key, text)
        except InvalidReferenceError:
            raise ProblemError(problems.REDEMPTION_NOT_FOUND) from None
        if reference.client_id != caller.client_id:
            raise ProblemError(problems.REDEMPTION_NOT_FOUND)
        with self._asking(note):
            found_of_key = await self.ledger.redemption_of_key(
                caller.client_id, reference.key, deadline=self._deadline()
            )
        if found_of_key is None:
            return self._pending(reference, 200)
        decided, fingerprint = found_of_key
        if not reference.is_for(fingerprint):
            raise ProblemError(problems.KEY_REUSED)
        if not caller.may_touch(decided.account_id):
            raise ProblemError(problems.REDEMPTION_NOT_FOUND)
        note.redemption_id = str(decided.redemption_id)
        return _json(_settled(decided, reference.accepted_at, request.url.path))

    async def capture(self, request: Request) -> Response:
        """Take points of a hold for good, and give the rest of it back; exactly once for each idempotency key."""
        return await self._resolve(request, "capture")

    async def void(self, request: Request) -> Response:
        """Give a hold back; exactly once for each idempotency key."""
        return await self._resolve(request, "void")

    async def refund(self, request: Request) -> Response:
        """Give redeemed points back to the lots that they came from; exactly once for each idempotency key."""
        return await self._resolve(request, "refund", 201)

    # --- accounts -----------------------------------------------------------------------------------------------------

    async def balance(self, request: Request) -> Response:
        """An account's points."""
        note, account_id = self._enter_account(request)
        with self._asking(note):
            found = await self.ledger.balance(account_id, deadline=self._deadline())
        if found is None:
            raise ProblemError(problems.ACCOUNT_NOT_FOUND)
        body = orjson.dumps(found)
        tag = f'"{hashlib.blake2b(body, digest_size=12).hexdigest()}"'
        headers = {"ETag": tag, "Cache-Control": "private, no-cache"}
        if tag in (one.strip() for one in request.headers.get("if-none-match", "").split(",")):
            return Response(status_code=304, headers=headers)
        return Response(body, 200, headers, "application/json")

    async def entries(self, request: Request) -> Response:
        """An account's statement, the newest line first."""
        note, account_id = self._enter_account(request)
        page = _Page(self.signing_key, f"entries {account_id}", request)
        before = int(page.before) if page.before else None
        with self._asking(note):
            found = await self.ledger.entries(account_id, before, page.size + 1, deadline=self._deadline())
        return page.answer("entries", found, lambda last: str(last.version))

    async def accrue(self, request: Request) -> Response:
        """Grant points to many accounts, once for each reference; each accrual for itself."""
        deadline = self._deadline()
        caller, note = self._enter(request, Scope.ACCRUALS_WRITE)
        _whole_client_only(caller)
        with _as_problems():
            wanted = domain.parse_accruals(await _body(request, deadline, ACCRUALS_BYTES_MAX))
        if len(wanted) > 1:
            self._spend(caller, len(wanted) - 1)  # each counts as a request; the first did on the way in
        with self._asking(note):
            granted = await self.ledger.accrue(caller.client_id, wanted, deadline=deadline)
        return _json({"results": granted})

    # --- probes -------------------------------------------------------------------------------------------------------

    async def livez(self, _: Request) -> Response:
        """The process answers; its database is none of this probe's business, a restart would not mend it."""
        return _json({"status": "live"})

    async def readyz(self, request: Request) -> Response:
        """It can take redemptions: the ledger answers and has the schema that it needs, or there is a queue."""
        if request.app.state.gate.is_leaving:
            return _json({"status": "not ready", "reason": "told to stop"}, 503)
        return _json(*await self.readiness.state())

    async def _ready(self) -> tuple[dict[str, str], int]:
        needed = migrations()[-1].number
        try:
            version = await self.ledger.schema_version(deadline=self._deadline())
        except (LedgerTimeoutError, LedgerUnavailableError):
            if self.redeeming.can_defer:  # not taken out of the load balancer: it still accepts
                return {"status": "ready", "reason": "the ledger does not answer; redemptions are deferred"}, 200
            return {"status": "not ready", "reason": "the ledger does not answer"}, 503
        except Exception:  # noqa: BLE001 - the schema or its grants are not there; a probe has no better word for it
            return {"status": "not ready", "reason": "the ledger's schema is missing"}, 503
        if version < needed:
            return {"status": "not ready", "reason": f"migration {needed} is missing"}, 503
        return {"status": "ready"}, 200

    async def metrics(self, request: Request) -> Response:
        """All metrics, with exemplars for a scraper that accepts OpenMetrics."""
        text, content_type = self.instruments.exposition(request.headers.get("accept", ""))
        return Response(text, headers={"Content-Type": content_type})

    # --- what they share ----------------------------------------------------------------------------------------------

    def _deadline(self) -> float:
        return asyncio.get_running_loop().time() + self.deadline_seconds

    def _enter(self, request: Request, scope: Scope) -> tuple[Caller, Note]:
        """Who calls, if they may: known, within their rate, and with this scope."""
        note = _note(request)
        try:
            given = request.headers.getlist("authorization")
            caller = self.authentication.authenticate(", ".join(given) if given else None)  # two are no token
        except AuthenticationError as error:
            kind = problems.KEYS_STALE if error.retryable else problems.UNAUTHENTICATED
            raise ProblemError(kind, f"{error}.", headers={"WWW-Authenticate": error.challenge}) from None
        note.client_id = caller.client_id
        self._spend(caller, 1)
        if not caller.may(scope):
            challenge = insufficient_scope_challenge(scope)
            raise ProblemError(problems.FORBIDDEN, f"It needs {scope}.", headers={"WWW-Authenticate": challenge})
        return caller, note

    def _spend(self, caller: Caller, requests: int) -> None:
        # A member has a quota of their own: one guest's phone must not use up all of the app's.
        name = caller.client_id if caller.account_id is None else f"{caller.client_id}/{caller.account_id}"
        verdict = self.limiter.take(name, requests)
        if not verdict.allowed:
            raise ProblemError(problems.RATE_LIMITED, headers=self.limiter.headers(verdict))

    @contextmanager
    def _asking(self, note: Note) -> Iterator[None]:
        """The ledger is asked: what it raises becomes a problem, and its time is noted."""
        began = time.perf_counter()
        try:
            with _as_problems():
                yield
        finally:
            note.ledger_seconds = time.perf_counter() - began

    def _enter_account(self, request: Request) -> tuple[Note, str]:
        caller, note = self._enter(request, Scope.ACCOUNTS_READ)
        with _as_problems():
            note.account_id = account_id = domain.parse_account_id(request.path_params["account_id"])
        if not caller.may_touch(account_id):
            raise ProblemError(problems.ACCOUNT_NOT_FOUND)  # not even that it is there
        return note, account_id

    async def _find(self, caller: Caller, redemption_id: UUID, note: Note) -> Redemption:
        with self._asking(note):
            found = await self.ledger.redemption(caller.client_id, redemption_id, deadline=self._deadline())
        if found is None or not caller.may_touch(found.account_id):
            raise ProblemError(problems.REDEMPTION_NOT_FOUND)
        return found

    async def _resolve(self, request: Request, kind: domain.Resolving, status: int = 200) -> Response:
        deadline = self._deadline()
        caller, note = self._enter(request, Scope.REDEMPTIONS_WRITE)
        key = _key(request)
        redemption_id = _redemption_id(request)
        note.redemption_id = str(redemption_id)
        if kind != "void":  # guests may give up what they reserved; what they owe or get back is not theirs to say
            _whole_client_only(caller)
        elif caller.account_id is not None:
            await self._find(caller, redemption_id, note)
        with _as_problems():
            wanted = domain.parse_resolution(redemption_id, kind, await _body(request, deadline, may_be_empty=True))
        with self._asking(note):
            found = await self.ledger.resolve(caller.client_id, key, wanted, deadline=deadline)
        if found is None:
            raise ProblemError(problems.REDEMPTION_NOT_FOUND)
        resolved, note.replayed = found
        if note.replayed:
            self.instruments.count(REDEMPTION_REPLAYS, 1, source="ledger")
        location = f"/v1/redemptions/{redemption_id}"
        if resolved.rejection is not None:
            raise _rejected(resolved.rejection, resolved, location, replayed=note.replayed)
        return _json(resolved, status, _replayed(note.replayed) | {"Location": location})

    def _pending(self, reference: StatusReference, status: int) -> Response:
        url = f"/v1/redemptions/{reference.sign(self.signing_key)}/status"
        pending = Deferral(status="pending", accepted_at=reference.accepted_at, redemption=None, status_url=url)
        headers = {"Retry-After": str(_POLL_SECONDS)}
        return _json(pending, status, headers | ({"Location": url} if status == 202 else {}))  # noqa: PLR2004 - HTTP's


class _Page:
    """What a request for a page asks for, and its answer.

    Cursors are signed: a client can go on from where it was, and nowhere else.
    """

    def __init__(self, signing_key: bytes, of: str, request: Request) -> None:
        self._signer = Signer(signing_key, f"cursor of {of}")
        given = request.query_params
        if not given.keys() <= {"limit", "cursor"} or len(given.multi_items()) != len(given):
            raise ProblemError(problems.MALFORMED, "The query may hold limit and cursor, once each.")
        limit = given.get("limit", str(domain.PAGE_DEFAULT))
        if (
            not limit.isascii()
            or not limit.isdigit()
            or len(limit) > len(str(domain.PAGE_MAX))
            or not 1 <= int(limit) <= domain.PAGE_MAX
        ):
            raise ProblemError(problems.MALFORMED, f"limit must be a whole number from 1 to {domain.PAGE_MAX}.")
        self.size = int(limit)
        try:
            self.before = self._signer.open(given["cursor"]).decode() if "cursor" in given else None
        except InvalidSealError:
            raise ProblemError(problems.MALFORMED, "cursor must be the next_cursor of an earlier page.") from None

    def answer(self, name: str, found: Sequence[Any], place: Callable[[Any], str]) -> Response:
        shown = found[: self.size]
        more = len(found) > self.size
        return _json({name: shown, "next_cursor": self._signer.seal(place(shown[-1]).encode()) if more else None})


@contextmanager
def _as_problems() -> Iterator[None]:
    """What domain and ledger raise, as a caller sees it."""
    try:
        yield
    except domain.InvalidRequestError as error:
        raise ProblemError(problems.MALFORMED, f"{error}.") from error
    except domain.KeyReusedError:
        raise ProblemError(problems.KEY_REUSED) from None
    except domain.InFlightError:
        raise ProblemError(problems.IN_PROGRESS) from None
    except LedgerTimeoutError as error:
        raise ProblemError(problems.LEDGER_TIMEOUT, _RETRY_HINT) from error
    except LedgerUnavailableError as error:
        raise ProblemError(problems.LEDGER_UNAVAILABLE, _RETRY_HINT) from error


def _key(request: Request) -> str:
    given = request.headers.getlist("idempotency-key")
    if not given:
        raise ProblemError(problems.KEY_MISSING, "Send a key of your own for each request, a UUID say.")
    try:
        return domain.parse_idempotency_key(",".join(given))
    except domain.InvalidKeyError as error:
        raise ProblemError(problems.KEY_MALFORMED, str(error)) from error


def _redemption_id(request: Request, name: str = "redemption_id") -> UUID:
    with _as_problems():
        return domain.parse_redemption_id(request.path_params[name])


async def _body(
    request: Request, deadline: float, bytes_max: int = BODY_BYTES_MAX, *, may_be_empty: bool = False
) -> bytes:
    body, more = b"", True
    try:
        async with asyncio.timeout_at(min(deadline, asyncio.get_running_loop().time() + _BODY_SECONDS_MAX)):
            while more:  # not request.stream(): nearly every body comes in one piece
                message = await request.receive()
                if message["type"] == "http.disconnect":
                    raise ClientDisconnect
                body += message.get("body", b"")
                if len(body) > bytes_max:
                    raise ProblemError(problems.BODY_TOO_LARGE, f"at most {bytes_max} bytes")
                more = message.get("more_body", False)
    except TimeoutError:
        raise ProblemError(problems.BODY_TIMEOUT) from None
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json" and not (may_be_empty and not body):
        raise ProblemError(problems.UNSUPPORTED_MEDIA_TYPE)
    return body


def _whole_client_only(caller: Caller) -> None:
    if caller.account_id is not None:
        raise ProblemError(problems.FORBIDDEN, "A member's token is good for their own account only.")


def _rejected(
    rejection: domain.Rejection, decided: Redemption | Resolved, location: str, *, replayed: bool
) -> ProblemError:
    kind: Kind = problems.REJECTIONS[rejection]
    members = {
        "instance": location,
        "redemption_id": decided.redemption_id,
        "points": decided.points,
        "balance": decided.balance,
        "available": decided.available,
    }
    return ProblemError(kind, members=members, headers=_replayed(replayed))


def _replayed(replayed: bool) -> dict[str, str]:  # noqa: FBT001 - what it is about
    return {"Idempotent-Replayed": "true"} if replayed else {}


def _settled(redemption: Redemption, accepted_at: datetime | None, url: str) -> Deferral:
    return Deferral(status="settled", accepted_at=accepted_at, redemption=redemption, status_url=url)


def _json(content: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:  # noqa: ANN401 - any JSON
    return Response(orjson.dumps(content), status, headers, "application/json")


def _note(request: Request) -> Note:
    note = note_of(request.scope)
    if note is None:
        raise LookupError("a measured route was reached without the middleware")
    return note
