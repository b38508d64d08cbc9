"""What the interface says of itself: the OpenAPI document's parts that no type tells.

Handlers read their requests by the domain's own strict rules, so parameters, bodies and problems are described here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import TypeAdapter

from service import domain, problems
from service.deferral import REFERENCE_CHARACTERS_MAX
from service.problems import Kind
from service.security import Scope

_TOKEN = "bearer"  # noqa: S105 - the scheme's name

_PROBLEM_SCHEMA: Final = {
    "title": "Problem",
    "description": "RFC 9457. `type` and `code` are stable; switch on them.",
    "type": "object",
    "required": ["type", "title", "status", "detail", "code", "retryable"],
    "properties": {
        "type": {"type": "string", "format": "uri"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "code": {"type": "string", "enum": sorted(kind.code for kind in problems.ALL)},
        "retryable": {"type": "boolean", "description": "The same request, with the same key, may work later."},
        "trace_id": {"type": "string", "pattern": "^[0-9a-f]{32}$"},
        "instance": {"type": "string", "description": "Of a rejection: where its record is."},
        "redemption_id": {"type": "string", "format": "uuid"},
        "points": {"type": "integer", "description": "How many were asked for."},
        "balance": {"type": ["integer", "null"], "description": "The account's points right after the decision."},
        "available": {"type": ["integer", "null"], "description": "Those of them that were not held."},
    },
}

_POINTS: Final = {"type": "integer", "minimum": 1, "maximum": domain.POINTS_MAX}
_ACCOUNT_ID: Final = {"type": "string", "pattern": domain.ACCOUNT_ID_PATTERN}


def _object(required: tuple[str, ...], properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "additionalProperties": False,
        "properties": properties,
        **({"required": list(required)} if required else {}),
    }


_REDEMPTION_BODY: Final = {
    "oneOf": [
        _object(
            ("account_id", "points"),
            {"account_id": _ACCOUNT_ID, "points": _POINTS, "mode": {"type": "string", "enum": ["immediate"]}},
        ),
        _object(
            ("account_id", "points", "mode"),
            {
                "account_id": _ACCOUNT_ID,
                "points": _POINTS,
                "mode": {"type": "string", "enum": ["reserve"]},
                "hold_seconds": {
                    "type": "integer",
                    "minimum": 1,
                    "maximum": domain.HOLD_SECONDS_MAX,
                    "default": domain.HOLD_SECONDS_DEFAULT,
                },
            },
        ),
    ]
}
_PART_BODY: Final = _object((), {"points": {**_POINTS, "description": "All that there are, if not given."}})
_ACCRUALS_BODY: Final = _object(
    ("accruals",),
    {
        "accruals": {
            "type": "array",
            "minItems": 1,
            "maxItems": domain.ACCRUALS_MAX,
            "description": "No reference twice.",
            "items": _object(
                ("reference", "account_id", "points"),
                {
                    "reference": {"type": "string", "pattern": domain.REFERENCE_PATTERN},
                    "account_id": _ACCOUNT_ID,
                    "points": _POINTS,
                    "expires_at": {"type": "string", "format": "date-time"},
                },
            ),
        }
    },
)


def _parameter(name: str, place: str, schema: Mapping[str, Any], *, required: bool = True) -> dict[str, Any]:
    return {"name": name, "in": place, "required": required, "schema": schema}


_KEY: Final = _parameter("Idempotency-Key", "header", {"type": "string", "pattern": domain.IDEMPOTENCY_KEY_PATTERN})
_PREFER: Final = _parameter("Prefer", "header", {"type": "string", "enum": ["respond-async"]}, required=False)
_REDEMPTION_ID: Final = _parameter("redemption_id", "path", {"type": "string", "format": "uuid"})
_REFERENCE: Final = _parameter(
    "reference",
    "path",
    {"type": "string", "pattern": "^[A-Za-z0-9_-]+$", "maxLength": REFERENCE_CHARACTERS_MAX},
)
_ACCOUNT: Final = _parameter("account_id", "path", _ACCOUNT_ID)
_PAGE: Final = [
    _parameter(
        "limit",
        "query",
        {"type": "integer", "minimum": 1, "maximum": domain.PAGE_MAX, "default": domain.PAGE_DEFAULT},
        required=False,
    ),
    _parameter("cursor", "query", {"type": "string", "minLength": 1}, required=False),
]

_ALWAYS: Final = (
    problems.MALFORMED,
    problems.UNAUTHENTICATED,
    problems.KEYS_STALE,
    problems.FORBIDDEN,
    problems.HEADERS_TOO_LARGE,
    problems.RATE_LIMITED,
    problems.INTERNAL,
    problems.OVERLOADED,
    problems.DRAINING,
    problems.LEDGER_UNAVAILABLE,
    problems.LEDGER_TIMEOUT,
)
_OF_BODIES: Final = (problems.BODY_TIMEOUT, problems.BODY_TOO_LARGE, problems.UNSUPPORTED_MEDIA_TYPE)
_OF_KEYS: Final = (problems.KEY_MISSING, problems.KEY_MALFORMED, problems.IN_PROGRESS, problems.KEY_REUSED)


def _operation(  # noqa: PLR0913 - one operation has that many sides
    scope: Scope,
    answers: Mapping[int, tuple[str, str]],
    *,
    parameters: list[dict[str, Any]],
    body: Mapping[str, Any] | None = None,
    body_required: bool = True,
    refusals: tuple[Kind, ...] = (),
) -> dict[str, Any]:
    kinds = [*_ALWAYS, *(_OF_BODIES if body else ()), *(_OF_KEYS if _KEY in parameters else ()), *refusals]
    responses: dict[int | str, Any] = {
        status: {"description": text, **({"content": _json(schema)} if schema else {})}
        for status, (text, schema) in answers.items()
    }
    for status in sorted({kind.status for kind in kinds}):
        told = sorted(kind.code for kind in kinds if kind.status == status)
        responses[status] = {
            "description": ", ".join(f"`{code}`" for code in told),
            "content": {problems.MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }
    extra: dict[str, Any] = {"parameters": parameters, "security": [{_TOKEN: [str(scope)]}]}
    if body:
        extra["requestBody"] = {"required": body_required, "content": {"application/json": {"schema": body}}}
    return {"status_code": min(answers), "responses": responses, "openapi_extra": extra}


def _json(schema: str) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}


_NOT_FOUND: Final = (problems.REDEMPTION_NOT_FOUND,)

OPERATIONS: Final[Mapping[str, dict[str, Any]]] = {
    "POST /v1/redemptions": _operation(
        Scope.REDEMPTIONS_WRITE,
        {
            201: ("Decided: the points are gone, or held.", "Redemption"),
            202: ("Accepted into the queue; `Location` tells what became of it.", "Deferral"),
        },
        parameters=[_KEY, _PREFER],
        body=_REDEMPTION_BODY,
        refusals=(problems.INSUFFICIENT_POINTS, problems.UNKNOWN_ACCOUNT, problems.DEADLINE_PASSED),
    ),
    "GET /v1/redemptions": _operation(Scope.REDEMPTIONS_READ, {200: ("A page.", "Redemptions")}, parameters=_PAGE),
    "GET /v1/redemptions/{redemption_id}": _operation(
        Scope.REDEMPTIONS_READ,
        {200: ("As it stands.", "Redemption")},
        parameters=[_REDEMPTION_ID],
        refusals=_NOT_FOUND,
    ),
    "GET /v1/redemptions/{reference}/status": _operation(
        Scope.REDEMPTIONS_READ,
        {200: ("Whether it is settled, and how.", "Deferral")},
        parameters=[_REFERENCE],
        refusals=(*_NOT_FOUND, problems.KEY_REUSED),
    ),
    "POST /v1/redemptions/{redemption_id}/capture": _operation(
        Scope.REDEMPTIONS_WRITE,
        {200: ("Captured.", "Resolved")},
        parameters=[_KEY, _REDEMPTION_ID],
        body=_PART_BODY,
        body_required=False,
        refusals=(*_NOT_FOUND, problems.HOLD_CLOSED, problems.EXCEEDS_HOLD),
    ),
    "POST /v1/redemptions/{redemption_id}/void": _operation(
        Scope.REDEMPTIONS_WRITE,
        {200: ("Voided.", "Resolved")},
        parameters=[_KEY, _REDEMPTION_ID],
        body=_object((), {}),
        body_required=False,
        refusals=(*_NOT_FOUND, problems.HOLD_CLOSED),
    ),
    "POST /v1/redemptions/{redemption_id}/refunds": _operation(
        Scope.REDEMPTIONS_WRITE,
        {201: ("Refunded.", "Resolved")},
        parameters=[_KEY, _REDEMPTION_ID],
        body=_PART_BODY,
        body_required=False,
        refusals=(*_NOT_FOUND, problems.EXCEEDS_REDEEMED, problems.BALANCE_TOO_LARGE),
    ),
    "GET /v1/accounts/{account_id}/balance": _operation(
        Scope.ACCOUNTS_READ,
        {200: ("The points.", "Balance"), 304: ("As `If-None-Match` has it.", "")},
        parameters=[_ACCOUNT, _parameter("If-None-Match", "header", {"type": "string"}, required=False)],
        refusals=(problems.ACCOUNT_NOT_FOUND,),
    ),
    "GET /v1/accounts/{account_id}/entries": _operation(
        Scope.ACCOUNTS_READ,
        {200: ("A page.", "Entries")},
        parameters=[_ACCOUNT, *_PAGE],
        refusals=(problems.ACCOUNT_NOT_FOUND,),
    ),
    "POST /v1/accruals:batch": _operation(
        Scope.ACCRUALS_WRITE,
        {200: ("What became of each.", "Accruals")},
        parameters=[],
        body=_ACCRUALS_BODY,
    ),
}
"""What `add_api_route` is told of each measured route."""

PROBE: Final[dict[str, Any]] = {"include_in_schema": False}
"""Of the routes for machines: no part of the interface."""

_ANSWERS: Final[Mapping[str, type]] = {
    kind.__name__: kind for kind in (domain.Redemption, domain.Resolved, domain.Deferral, domain.Balance)
}
_LISTS: Final[Mapping[str, tuple[str, type, bool]]] = {
    "Redemptions": ("redemptions", domain.Redemption, True),
    "Entries": ("entries", domain.Entry, True),
    "Accruals": ("results", domain.Granted, False),
}


def document(app: FastAPI) -> dict[str, Any]:
    """The whole document."""
    told = get_openapi(title=app.title, version=app.version, summary=app.summary, routes=app.routes)
    schemas = told.setdefault("components", {}).setdefault("schemas", {})
    for kind in {**_ANSWERS, **{one.__name__: one for _, one, _ in _LISTS.values()}}.values():
        schema = TypeAdapter(kind).json_schema(mode="serialization", ref_template="#/components/schemas/{model}")
        schemas |= schema.pop("$defs", {})
        schemas[kind.__name__] = schema
    for name, (field, kind, paged) in _LISTS.items():
        properties: dict[str, Any] = {
            field: {"type": "array", "items": {"$ref": f"#/components/schemas/{kind.__name__}"}}
        }
        if paged:
            properties["next_cursor"] = {
                "type": ["string", "null"],
                "description": "Of the next page, if there is one.",
            }
        schemas[name] = _object(tuple(properties), properties)
    schemas["Problem"] = _PROBLEM_SCHEMA
    told["components"]["securitySchemes"] = {
        _TOKEN: {"type": "http", "scheme": "bearer", "bearerFormat": "JWT (RFC 9068)"}
    }
    return told
