"""Everything that comes in is bounded, and what is wrong with it is said in one stable form."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from service import problems
from service.domain import POINTS_MAX, InvalidRequestError, parse_redemption
from slo.metrics import BAD_OUTCOMES, GOOD_OUTCOMES, REDEEM_ROUTE
from tests.service.conftest import Database, Serve, Service

pytestmark = pytest.mark.anyio

KEY = "0123456789abcdef"


async def _post(service: Service, body: bytes | AsyncIterator[bytes], **headers: str) -> httpx.Response:
    """Post a body with a good key and media type, unless other headers are given."""
    given = {"Idempotency-Key": secrets.token_hex(16), "Content-Type": "application/json"}
    given |= {name.replace("_", "-"): value for name, value in headers.items()}
    return await service.client.post(
        "/v1/redemptions", content=body, headers={name: value for name, value in given.items() if value}
    )


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"text"',
        b"\xff",
        b'{"account_id":"a"}',
        b'{"points":1}',
        b'{"account_id":"a","points":1,"more":1}',
        b'{"account_id":"a","points":1,"points":2}',
        b'{"account_id":"a","account_id":"b","points":1}',
        b'{"account_id":"a","points":0}',
        b'{"account_id":"a","points":-1}',
        b'{"account_id":"a","points":true}',
        b'{"account_id":"a","points":1.0}',
        b'{"account_id":"a","points":1e2}',
        b'{"account_id":"a","points":"1"}',
        b'{"account_id":"a","points":NaN}',
        b'{"account_id":"a","points":Infinity}',
        b'{"account_id":"a","points":9007199254740992}',
        b'{"account_id":"a","points":' + b"9" * 5000 + b"}",
        b'{"account_id":"","points":1}',
        b'{"account_id":"a b","points":1}',
        b'{"account_id":"a\\n","points":1}',
        b'{"account_id":"system:burn","points":1}',
        b'{"account_id":"\\ud800","points":1}',
        b'{"account_id":7,"points":1}',
        b'{"account_id":"' + b"a" * 65 + b'","points":1}',
        b"[" * 16000,
        b'\xef\xbb\xbf{"account_id":"a","points":1}',  # RFC 8259, 8.1: no byte order mark
        '{"account_id":"a","points":1}'.encode("utf-16"),
    ],
)
async def test_a_malformed_body_is_refused(body: bytes) -> None:
    """Whatever is not exactly an account and a whole number of points is refused, and not repeated."""
    with pytest.raises(InvalidRequestError) as caught:
        parse_redemption(body)
    assert "system" not in str(caught.value)


@pytest.mark.parametrize("points", [1, POINTS_MAX])
@pytest.mark.parametrize("account", ["a", "A-z_9", "x" * 64])
async def test_a_body_at_the_bounds_is_read(points: int, account: str) -> None:
    """The smallest and the largest allowed values pass."""
    request = parse_redemption(f'{{"account_id":"{account}","points":{points}}}'.encode())
    assert (request.account_id, request.points) == (account, points)


@pytest.mark.parametrize(
    ("key", "status"),
    [
        ("a" * 15, 400),
        ("a" * 16, 422),
        ("A-z_9" * 25 + "xyz", 422),
        ("a" * 129, 400),
        ('"' + "a" * 16 + '"', 422),
        ('"' + "a" * 16, 400),
        ("a" * 16 + "!", 400),
        ("a" * 16 + " " + "a" * 16, 400),
        ("a" * 16 + ", " + "a" * 16, 400),
    ],
)
async def test_the_key_has_16_to_128_plain_characters(service: Service, key: str, status: int) -> None:
    """Keys outside the alphabet or the length are refused before the ledger is asked (422: the ledger was)."""
    answer = await _post(service, b'{"account_id":"nobody","points":1}', Idempotency_Key=key)
    assert answer.status_code == status
    assert answer.json()["code"] == {400: "idempotency-key-malformed", 422: "unknown-account"}[status]
    assert key not in answer.text


async def test_the_key_is_needed(service: Service) -> None:
    """A redemption without a key is refused: it could not be retried safely."""
    answer = await _post(service, b'{"account_id":"nobody","points":1}', Idempotency_Key="")
    assert (answer.status_code, answer.json()["code"]) == (400, "idempotency-key-missing")


async def test_a_key_given_twice_is_malformed(service: Service) -> None:
    """Two key headers are no key."""
    headers = [("Idempotency-Key", KEY), ("Idempotency-Key", KEY), ("Content-Type", "application/json")]
    answer = await service.client.post("/v1/redemptions", content=b'{"account_id":"a","points":1}', headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (400, "idempotency-key-malformed")


@pytest.mark.parametrize("media_type", ["text/plain", "application/x-www-form-urlencoded", ""])
async def test_only_json_is_read(service: Service, media_type: str) -> None:
    """Another media type, or none, is refused."""
    answer = await _post(service, b'{"account_id":"a","points":1}', Content_Type=media_type)
    assert (answer.status_code, answer.json()["code"]) == (415, "unsupported-media-type")


async def test_a_large_body_is_not_read_to_its_end(service: Service) -> None:
    """Of a body without end 16 KiB are read, then the answer is sent."""
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while True:
            sent += 1024
            yield b" " * 1024

    answer = await _post(service, endless())
    assert (answer.status_code, answer.json()["code"]) == (413, "body-too-large")
    assert sent <= 17 * 1024
    small = b'{"account_id":"nobody","points":1}'.ljust(16 * 1024)
    assert (await _post(service, small)).json()["code"] == "unknown-account"
    assert (await _post(service, small + b" ")).json()["code"] == "body-too-large"


async def test_a_body_that_does_not_come_is_not_waited_for(serve: Serve) -> None:
    """A caller who stops in the middle of the body gets 408 at the deadline."""

    async def stuck() -> AsyncIterator[bytes]:
        yield b'{"account_id"'
        await asyncio.sleep(30)

    async with serve(deadline_seconds=0.1) as service:
        answer = await asyncio.wait_for(_post(service, stuck()), 5)
        assert (answer.status_code, answer.json()["code"]) == (408, "body-timeout")
        assert await service.sample("redemption_requests_total", route=REDEEM_ROUTE, outcome="invalid") == 1


@pytest.mark.parametrize(
    ("path", "place"),
    [("/v1/redemptions/not-a-uuid", "redemption_id"), ("/v1/accounts/a!b/balance", "account_id")],
)
async def test_a_malformed_address_is_the_callers_mistake(service: Service, path: str, place: str) -> None:
    """A wrong id in the address is told by its place, and not repeated."""
    answer = await service.client.get(path)
    assert (answer.status_code, answer.json()["code"]) == (400, "malformed-request")
    assert place in answer.json()["detail"]
    assert "not-a-uuid" not in answer.text
    assert "a!b" not in answer.text


async def test_too_many_requests_at_once_are_turned_away(serve: Serve, database: Database) -> None:
    """Beyond the limit a request is shed at once, with a hint when to come back; the others are served."""
    account = await database.account(100)
    async with serve(in_flight_max=2) as service:
        async with database.connection() as owner, owner.transaction():
            await owner.execute("SELECT 1 FROM ledger.accounts WHERE account_id = $1 FOR UPDATE", account)
            held = [asyncio.create_task(service.redeem(account, 1)) for _ in range(2)]
            await _until_in_flight(service, 2)
            shed = await asyncio.wait_for(service.redeem(account, 1), 5)
            assert (await service.client.get("/livez")).status_code == 200
            assert (await service.client.get("/readyz")).status_code == 200
        assert [(await request).status_code for request in held] == [201, 201]
        assert (shed.status_code, shed.json()["code"], shed.json()["retryable"]) == (503, "overloaded", True)
        assert int(shed.headers["Retry-After"]) >= 1
        assert await service.balance(account) == 98
        assert await service.sample("redemption_requests_total", route=REDEEM_ROUTE, outcome="shed") == 1
        assert await service.sample("redemption_requests_in_flight") == 0


async def _until_in_flight(service: Service, count: int) -> None:
    async with asyncio.timeout(5):
        while await service.sample("redemption_requests_in_flight") != count:
            await asyncio.sleep(0.01)


async def test_every_problem_has_the_same_form() -> None:
    """Codes are unique, outcomes are the catalogue's, and only what may work later is called retryable."""
    kinds: list[Any] = [value for value in vars(problems).values() if isinstance(value, problems.Kind)]
    assert len({kind.code for kind in kinds}) == len(kinds) > 10
    for kind in kinds:
        assert kind.outcome in GOOD_OUTCOMES + BAD_OUTCOMES
        passing = (
            problems.HEAD_TIMEOUT,
            problems.BODY_TIMEOUT,
            problems.KEYS_STALE,
            problems.RATE_LIMITED,
            problems.IN_PROGRESS,
        )
        assert kind.retryable == (kind.outcome in BAD_OUTCOMES or kind in passing)
        assert (kind.status >= 500) == (kind.outcome in BAD_OUTCOMES)


async def test_the_interface_describes_itself(service: Service) -> None:
    """The OpenAPI document names the routes, the key and the body's bounds."""
    document = (await service.client.get("/openapi.json")).json()
    redeem = document["paths"]["/v1/redemptions"]["post"]
    assert redeem["parameters"][0]["name"] == "Idempotency-Key"
    immediate, reserve = redeem["requestBody"]["content"]["application/json"]["schema"]["oneOf"]
    assert immediate["properties"]["points"]["maximum"] == POINTS_MAX
    assert "hold_seconds" not in immediate["properties"]
    assert "hold_seconds" in reserve["properties"]
