"""HTTP to domain and back, and nothing else."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Annotated, Any, Final
from uuid import UUID

import orjson
from fastapi import APIRouter, Path, Request, Response

from service import domain, problems, tracing
from service.administration import migrations
from service.domain import Balance, Decision, Redemption
from service.ledger import Ledger, LedgerTimeoutError, LedgerUnavailableError
from service.middleware import Note, note_of
from service.problems import ProblemError
from service.telemetry import Instruments
from slo.metrics import REDEMPTION_REPLAYS

BODY_BYTES_MAX: Final = 16 * 1024  # a redemption needs some hundred

# Until callers are authenticated, they all share one space of keys.
_CLIENT_ID: Final = "public"

_RETRY_HINT = "Repeat the request with the same Idempotency-Key: points are deducted at most once."

_BODY_SCHEMA = {
    "type": "object",
    "additionalProperties": False,
    "required": ["account_id", "points"],
    "properties": {
        "account_id": {"type": "string", "pattern": domain.ACCOUNT_ID_PATTERN},
        "points": {"type": "integer", "minimum": 1, "maximum": domain.POINTS_MAX},
    },
}
_KEY_SCHEMA = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": True,
    "schema": {"type": "string", "pattern": domain.IDEMPOTENCY_KEY_PATTERN},
}

AccountId = Annotated[str, Path(pattern=domain.ACCOUNT_ID_PATTERN)]


@dataclass(frozen=True, slots=True)
class Routes:
    """The handlers and what they talk to."""

    ledger: Ledger
    instruments: Instruments
    deadline_seconds: float

    def router(self) -> APIRouter:
        """All routes."""
        router = APIRouter()
        router.add_api_route(
            "/v1/redemptions",
            self.redeem,
            methods=["POST"],
            status_code=201,
            responses={201: {"model": Redemption}},
            openapi_extra={
                "parameters": [_KEY_SCHEMA],
                "requestBody": {"required": True, "content": {"application/json": {"schema": _BODY_SCHEMA}}},
            },
        )
        router.add_api_route(
            "/v1/redemptions/{redemption_id}",
            self.redemption,
            methods=["GET"],
            responses={200: {"model": Redemption}},
        )
        router.add_api_route(
            "/v1/accounts/{account_id}/balance",
            self.balance,
            methods=["GET"],
            responses={200: {"model": Balance}},
        )
        router.add_api_route("/livez", self.livez, methods=["GET"])
        router.add_api_route("/readyz", self.readyz, methods=["GET"])
        router.add_api_route("/metrics", self.metrics, methods=["GET"])
        return router

    async def redeem(self, request: Request) -> Response:
        """Deduct points, exactly once for each idempotency key."""
        deadline = self._deadline()
        key = _key(request)
        wanted = await _wanted(request, deadline)
        note = _note(request)
        note.account_id = wanted.account_id
        try:
            decision = await self.ledger.redeem(_CLIENT_ID, key, wanted, deadline=deadline)
        except domain.KeyReusedError:
            raise ProblemError(problems.KEY_REUSED) from None
        except LedgerTimeoutError as error:
            raise ProblemError(problems.LEDGER_TIMEOUT, _RETRY_HINT) from error
        except LedgerUnavailableError as error:
            raise ProblemError(problems.LEDGER_UNAVAILABLE, _RETRY_HINT) from error
        note.redemption_id, note.replayed = str(decision.redemption.redemption_id), decision.replayed
        if decision.replayed:
            self.instruments.count(REDEMPTION_REPLAYS, 1, trace_id=tracing.sampled_trace_id())
        return _answer(decision)

    async def redemption(self, redemption_id: UUID, request: Request) -> Response:
        """One redemption, as it was decided."""
        _note(request).redemption_id = str(redemption_id)
        try:
            found = await self.ledger.find_redemption(redemption_id, deadline=self._deadline())
        except LedgerTimeoutError as error:
            raise ProblemError(problems.LEDGER_TIMEOUT) from error
        except LedgerUnavailableError as error:
            raise ProblemError(problems.LEDGER_UNAVAILABLE) from error
        if found is None:
            raise ProblemError(problems.REDEMPTION_NOT_FOUND)
        return _json(found)

    async def balance(self, account_id: AccountId, request: Request) -> Response:
        """An account's points."""
        _note(request).account_id = account_id
        try:
            found = await self.ledger.balance(account_id, deadline=self._deadline())
        except LedgerTimeoutError as error:
            raise ProblemError(problems.LEDGER_TIMEOUT) from error
        except LedgerUnavailableError as error:
            raise ProblemError(problems.LEDGER_UNAVAILABLE) from error
        if found is None:
            raise ProblemError(problems.ACCOUNT_NOT_FOUND)
        return _json(found)

    async def livez(self) -> Response:
        """The process answers; its database is none of this probe's business, a restart would not mend it."""
        return _json({"status": "live"})

    async def readyz(self) -> Response:
        """The ledger answers and has the schema that this program needs."""
        needed = migrations()[-1].number
        try:
            version = await self.ledger.schema_version(deadline=self._deadline())
        except (LedgerTimeoutError, LedgerUnavailableError):
            return _json({"status": "not ready", "reason": "the ledger does not answer"}, 503)
        except Exception:  # noqa: BLE001 - the schema or its grants are not there; a probe has no better word for it
            return _json({"status": "not ready", "reason": "the ledger's schema is missing"}, 503)
        if version < needed:
            return _json({"status": "not ready", "reason": f"migration {needed} is missing"}, 503)
        return _json({"status": "ready"})

    async def metrics(self, request: Request) -> Response:
        """All metrics, with exemplars for a scraper that accepts OpenMetrics."""
        text, content_type = self.instruments.exposition(request.headers.get("accept", ""))
        return Response(text, headers={"Content-Type": content_type})

    def _deadline(self) -> float:
        return asyncio.get_running_loop().time() + self.deadline_seconds


def _key(request: Request) -> str:
    given = request.headers.getlist("idempotency-key")
    if not given:
        raise ProblemError(problems.KEY_MISSING, "Send a key of your own for each redemption, a UUID say.")
    try:
        return domain.parse_idempotency_key(",".join(given))
    except domain.InvalidKeyError as error:
        raise ProblemError(problems.KEY_MALFORMED, str(error)) from error


async def _wanted(request: Request, deadline: float) -> domain.RedemptionRequest:
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise ProblemError(problems.UNSUPPORTED_MEDIA_TYPE)
    body = bytearray()
    try:
        async with asyncio.timeout_at(deadline):
            async for part in request.stream():
                body += part
                if len(body) > BODY_BYTES_MAX:
                    raise ProblemError(problems.BODY_TOO_LARGE, f"at most {BODY_BYTES_MAX} bytes")
    except TimeoutError:
        raise ProblemError(problems.BODY_TIMEOUT) from None
    try:
        return domain.parse_redemption(bytes(body))
    except domain.InvalidRequestError as error:
        raise ProblemError(problems.MALFORMED, str(error)) from error


def _answer(decision: Decision) -> Response:
    redemption = decision.redemption
    headers = {"Idempotent-Replayed": "true"} if decision.replayed else {}
    location = f"/v1/redemptions/{redemption.redemption_id}"
    if redemption.rejection is not None:
        members = {
            "instance": location,
            "redemption_id": redemption.redemption_id,
            "balance": redemption.balance,
            "points": redemption.points,
        }
        raise ProblemError(problems.REJECTIONS[redemption.rejection], members=members, headers=headers)
    return _json(redemption, 201, headers | {"Location": location})


def _json(content: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:  # noqa: ANN401 - any JSON
    return Response(orjson.dumps(content), status, headers, "application/json")


def _note(request: Request) -> Note:
    note = note_of(request.scope)
    if note is None:
        raise LookupError("a measured route was reached without the middleware")
    return note
