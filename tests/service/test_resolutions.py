"""Reserve, capture, void, refund: what has begun is ended once, and every point is accounted for."""

from __future__ import annotations

import asyncio
import secrets
from typing import Any

import httpx
import pytest

from tests.service.conftest import Database, Serve, Service

pytestmark = pytest.mark.anyio


async def _reserve(service: Service, account: str, points: int, **fields: object) -> str:
    answer = await service.client.post(
        "/v1/redemptions",
        json={"account_id": account, "points": points, "mode": "reserve", **fields},
        headers={"Idempotency-Key": secrets.token_hex(16)},
    )
    assert answer.status_code == 201, answer.text
    location: str = answer.headers["Location"]
    return location


async def _resolve(
    service: Service, location: str, what: str, points: int | None = None, key: str | None = None
) -> httpx.Response:
    return await service.client.post(
        f"{location}/{what}",
        json={} if points is None else {"points": points},
        headers={"Idempotency-Key": key or secrets.token_hex(16)},
    )


async def _points(service: Service, account: str) -> tuple[int, int, int]:
    found = (await service.client.get(f"/v1/accounts/{account}/balance")).json()
    return found["posted"], found["held"], found["available"]


async def _state(service: Service, location: str) -> Any:  # noqa: ANN401 - any JSON
    return (await service.client.get(location)).json()


async def test_reserved_points_are_set_aside(service: Service, database: Database) -> None:
    """A hold takes points from what can be spent, not from the balance."""
    account = await database.account(100)
    location = await _reserve(service, account, 60)
    assert await _points(service, account) == (100, 60, 40)
    assert (await service.redeem(account, 41)).json()["available"] == 40
    assert (await service.redeem(account, 40)).status_code == 201
    state = await _state(service, location)
    assert (state["status"], state["mode"], state["captured_points"]) == ("reserved", "reserve", 0)


async def test_a_part_is_captured_and_the_rest_is_free(service: Service, database: Database) -> None:
    """A capture ends the hold: its points are gone for good, the others can be spent."""
    account = await database.account(100)
    location = await _reserve(service, account, 60)
    answer = await _resolve(service, location, "capture", 25)
    body = answer.json()
    assert (answer.status_code, body["kind"], body["points"], body["balance"]) == (200, "capture", 25, 75)
    assert answer.headers["Location"] == location
    assert await _points(service, account) == (75, 0, 75)
    state = await _state(service, location)
    assert (state["status"], state["captured_points"]) == ("captured", 25)
    assert await service.sample("redemption_points_redeemed_total") == 25
    second = await _resolve(service, location, "capture", 1)
    assert (second.status_code, second.json()["code"]) == (422, "hold-closed")


async def test_a_void_gives_all_back(service: Service, database: Database) -> None:
    """After a void nothing was taken, and the hold cannot be captured any more."""
    account = await database.account(100)
    location = await _reserve(service, account, 60)
    answer = await service.client.post(f"{location}/void", headers={"Idempotency-Key": secrets.token_hex(16)})
    assert (answer.status_code, answer.json()["points"], answer.json()["available"]) == (200, 60, 100)
    assert await _points(service, account) == (100, 0, 100)
    assert (await _resolve(service, location, "capture")).json()["code"] == "hold-closed"
    assert (await _state(service, location))["status"] == "voided"


@pytest.mark.parametrize("mode", ["immediate", "reserve"])
async def test_refunds_until_all_is_returned(service: Service, database: Database, mode: str) -> None:
    """Parts come back one after the other, never more than was taken."""
    account = await database.account(100)
    if mode == "reserve":
        location = await _reserve(service, account, 70)
        assert (await _resolve(service, location, "capture", 60)).status_code == 200
    else:
        location = (await service.redeem(account, 60)).headers["Location"]
    first = await _resolve(service, location, "refunds", 20)
    assert (first.status_code, first.json()["kind"], first.json()["balance"]) == (201, "refund", 60)
    too_much = await _resolve(service, location, "refunds", 41)
    assert (too_much.status_code, too_much.json()["code"], too_much.json()["points"]) == (422, "exceeds-redeemed", 41)
    rest = await _resolve(service, location, "refunds")
    assert (rest.json()["points"], rest.json()["balance"]) == (40, 100)
    assert (await _resolve(service, location, "refunds", 1)).json()["code"] == "exceeds-redeemed"
    assert (await _state(service, location))["refunded_points"] == 60
    assert await service.sample("redemption_points_refunded_total") == 60


@pytest.mark.parametrize(("what", "status"), [("capture", 200), ("void", 200), ("refunds", 201)])
async def test_a_resolution_happens_once(service: Service, database: Database, what: str, status: int) -> None:
    """The same key again gives the same bytes, marked; with another body it is refused."""
    account, key = await database.account(100), secrets.token_hex(16)
    location = (
        (await service.redeem(account, 60)).headers["Location"]
        if what == "refunds"
        else await _reserve(service, account, 60)
    )
    first, second = [await _resolve(service, location, what, None if what == "void" else 10, key) for _ in range(2)]
    assert (first.status_code, second.status_code) == (status, status)
    assert second.content == first.content
    assert (first.headers.get("Idempotent-Replayed"), second.headers.get("Idempotent-Replayed")) == (None, "true")
    other = await service.redeem(account, 1, key)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency-key-reused")


async def test_many_who_capture_at_once(service: Service, database: Database) -> None:
    """Of many captures of one hold with keys of their own, one is done and the others find it closed."""
    account = await database.account(100)
    location = await _reserve(service, account, 60)
    answers = await asyncio.gather(*(_resolve(service, location, "capture", 60) for _ in range(10)))
    assert sorted(answer.status_code for answer in answers) == [200] + [422] * 9
    assert await _points(service, account) == (40, 0, 40)


async def test_a_hold_ends_by_itself(service: Service, database: Database) -> None:
    """After its time a hold cannot be captured, and the upkeep gives its points back."""
    account = await database.account(100)
    location = await _reserve(service, account, 60, hold_seconds=1)
    await asyncio.sleep(1.1)
    assert (await _resolve(service, location, "capture")).json()["code"] == "hold-closed"
    async with database.connection() as owner:
        await owner.execute("SELECT ledger.expire_holds(1000)")
    assert await _points(service, account) == (100, 0, 100)
    assert (await _state(service, location))["status"] == "expired"


async def test_what_is_not_there_cannot_be_resolved(service: Service) -> None:
    """An unknown redemption is not found, whatever is to be done with it."""
    for what in ("capture", "void", "refunds"):
        answer = await _resolve(service, f"/v1/redemptions/{'0' * 32}", what)
        assert (answer.status_code, answer.json()["code"]) == (404, "redemption-not-found")


async def test_a_void_takes_no_points(service: Service, database: Database) -> None:
    """A field that means nothing is refused rather than passed over."""
    location = await _reserve(service, await database.account(10), 5)
    answer = await _resolve(service, location, "void", 3)
    assert (answer.status_code, answer.json()["code"]) == (400, "malformed-request")


@pytest.mark.parametrize(
    "fields",
    [
        {"mode": "later"},
        {"mode": "immediate", "hold_seconds": 5},
        {"hold_seconds": 5},
        {"mode": "reserve", "hold_seconds": 0},
        {"mode": "reserve", "hold_seconds": 31 * 24 * 3600 + 1},
        {"mode": "reserve", "hold_seconds": True},
    ],
)
async def test_a_wrong_mode_is_the_callers_mistake(
    service: Service, database: Database, fields: dict[str, object]
) -> None:
    """Mode and time of a hold are checked like everything else."""
    answer = await service.client.post(
        "/v1/redemptions",
        json={"account_id": await database.account(10), "points": 1, **fields},
        headers={"Idempotency-Key": secrets.token_hex(16)},
    )
    assert (answer.status_code, answer.json()["code"]) == (400, "malformed-request")


async def test_a_capture_that_times_out_goes_on(serve: Serve, database: Database) -> None:
    """The caller is told 504 at the deadline, and 409 while it still runs; then the same key tells what it did."""
    account, key = await database.account(100), secrets.token_hex(16)
    async with serve(deadline_seconds=0.5) as service:
        location = await _reserve(service, account, 60)
        async with database.connection() as owner, owner.transaction():
            await owner.execute("SELECT 1 FROM ledger.accounts WHERE account_id = $1 FOR UPDATE", account)
            assert (await _resolve(service, location, "capture", 60, key)).status_code == 504
            assert (await _resolve(service, location, "capture", 60, key)).status_code == 409
        async with asyncio.timeout(10):
            while (again := await _resolve(service, location, "capture", 60, key)).status_code != 200:
                await asyncio.sleep(0.05)
        assert again.headers["Idempotent-Replayed"] == "true"
        assert await _points(service, account) == (40, 0, 40)
        assert await service.sample("redemption_points_redeemed_total") == 60
