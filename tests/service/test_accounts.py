"""What an account shows, and how points come into it."""

from __future__ import annotations

import asyncio
import secrets
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.service.conftest import Database, Service, unused

pytestmark = pytest.mark.anyio


async def _accrue(service: Service, *accruals: dict[str, Any]) -> Any:  # noqa: ANN401 - any JSON
    answer = await service.client.post("/v1/accruals:batch", json={"accruals": accruals})
    assert answer.status_code == 200, answer.text
    return answer.json()["results"]


def _in(days: int) -> str:
    return (datetime.now(UTC).replace(microsecond=0) + timedelta(days=days)).isoformat()


async def test_points_are_granted_once_for_each_reference(service: Service) -> None:
    """Each accrual of a batch stands for itself: granted, granted before, or refused; in the order of the request."""
    account = unused("guest")
    first = {"reference": unused("stay"), "account_id": account, "points": 50, "expires_at": _in(30)}
    [granted] = await _accrue(service, first)
    assert (granted["result"], granted["balance"]) == ("granted", 50)
    results = await _accrue(
        service,
        {"reference": unused("stay"), "account_id": account, "points": 2**53 - 1},
        first,
        {"reference": unused("stay"), "account_id": account, "points": 7},
    )
    assert [one["result"] for one in results] == ["balance-too-large", "replayed", "granted"]
    assert [one["balance"] for one in results] == [50, 50, 57]
    assert results[1]["accrual_id"] == granted["accrual_id"]
    [other] = await _accrue(service, {**first, "points": 51})
    assert (other["result"], other["accrual_id"]) == ("reference-reused", None)


async def test_an_account_in_use_elsewhere_is_waited_for_last(service: Service, database: Database) -> None:
    """While somebody else keeps one account's lock, the batch holds no lock of the others, which are granted."""
    stuck, other = await database.account(1), await database.account(1)
    batch = [{"reference": unused("stay"), "account_id": account, "points": 5} for account in (stuck, other)]
    async with database.connection() as owner:
        async with owner.transaction():
            await owner.execute("SELECT 1 FROM ledger.accounts WHERE account_id = $1 FOR UPDATE", stuck)
            waiting = asyncio.create_task(_accrue(service, *batch))
            async with asyncio.timeout(10):
                while await service.balance(other) != 6:
                    await asyncio.sleep(0.02)
            assert (await service.redeem(other, 1)).status_code == 201
            assert not waiting.done()
        assert [one["result"] for one in await waiting] == ["granted", "granted"]
        assert await service.balance(stuck) == 6


async def test_the_balance_tells_what_ends_next(service: Service) -> None:
    """Points that end come in order of their ends, and those that never end are in none."""
    account = unused("guest")
    soon, later = _in(1), _in(2)
    await _accrue(
        service,
        {"reference": unused("stay"), "account_id": account, "points": 5, "expires_at": later},
        {"reference": unused("stay"), "account_id": account, "points": 3, "expires_at": soon},
        {"reference": unused("stay"), "account_id": account, "points": 4, "expires_at": soon},
        {"reference": unused("stay"), "account_id": account, "points": 100},
    )
    await service.redeem(account, 2)
    found = (await service.client.get(f"/v1/accounts/{account}/balance")).json()
    assert (found["posted"], found["held"], found["available"], found["version"]) == (110, 0, 110, 5)
    ends = [(datetime.fromisoformat(one["expires_at"]), one["points"]) for one in found["next_expiries"]]
    assert ends == [(datetime.fromisoformat(soon), 5), (datetime.fromisoformat(later), 5)]


async def test_points_that_have_ended_cannot_be_spent(service: Service) -> None:
    """An accrual whose end is over counts for nothing, whether the upkeep has been there or not."""
    account = unused("guest")
    await _accrue(service, {"reference": unused("stay"), "account_id": account, "points": 5, "expires_at": _in(-1)})
    found = (await service.client.get(f"/v1/accounts/{account}/balance")).json()
    assert (found["available"], found["next_expiries"]) == (0, [])
    assert (await service.redeem(account, 1)).json()["code"] == "insufficient-points"


async def test_an_unchanged_balance_is_not_sent_again(service: Service, database: Database) -> None:
    """The same ETag means the same content: 304 without a body; anything that changes it changes the tag."""
    account = await database.account(10)
    path = f"/v1/accounts/{account}/balance"
    first = await service.client.get(path)
    same = await service.client.get(path, headers={"If-None-Match": f'"other", {first.headers["ETag"]}'})
    assert (same.status_code, same.content, same.headers["ETag"]) == (304, b"", first.headers["ETag"])
    await service.client.post(
        "/v1/redemptions",
        json={"account_id": account, "points": 1, "mode": "reserve"},
        headers={"Idempotency-Key": secrets.token_hex(16)},
    )
    changed = await service.client.get(path, headers={"If-None-Match": first.headers["ETag"]})
    assert (changed.status_code, changed.json()["held"]) == (200, 1)


async def test_a_statement_page_by_page(service: Service, database: Database) -> None:
    """Cursors lead through all entries, the newest first, each once; one of another account leads nowhere."""
    account, other = await database.account(100), await database.account(100)
    for _ in range(4):
        await service.redeem(account, 10)
    seen: list[Any] = []
    cursor = None
    while True:
        query = {"limit": "2"} | ({"cursor": cursor} if cursor else {})
        page = (await service.client.get(f"/v1/accounts/{account}/entries", params=query)).json()
        seen += page["entries"]
        assert len(page["entries"]) <= 2
        cursor = page["next_cursor"]
        if cursor is None:
            break
        wrong = await service.client.get(f"/v1/accounts/{other}/entries", params={"cursor": cursor})
        assert (wrong.status_code, wrong.json()["code"]) == (400, "malformed-request")
    assert [one["version"] for one in seen] == [5, 4, 3, 2, 1]
    assert [one["balance_after"] for one in seen] == [60, 70, 80, 90, 100]
    assert [one["kind"] for one in seen] == ["redeem"] * 4 + ["accrual"]


async def test_redemptions_page_by_page(service: Service, database: Database) -> None:
    """A client sees its redemptions, the newest first, and can go on where a page ended."""
    account = await database.account(100)
    made = [(await service.redeem(account, 1)).json()["redemption_id"] for _ in range(5)]
    first = (await service.client.get("/v1/redemptions", params={"limit": "3"})).json()
    second = (await service.client.get("/v1/redemptions", params={"limit": "3", "cursor": first["next_cursor"]})).json()
    found = [one["redemption_id"] for one in first["redemptions"] + second["redemptions"]]
    assert set(found) >= set(made)
    assert found == sorted(found, reverse=True)


@pytest.mark.parametrize("query", ["limit=0", "limit=201", "limit=x", "limit=1&limit=2", "cursor=x", "before=1"])
async def test_a_wrong_page_is_the_callers_mistake(service: Service, query: str) -> None:
    """Only a limit in its bounds and a cursor that was given out are taken."""
    answer = await service.client.get(f"/v1/redemptions?{query}")
    assert (answer.status_code, answer.json()["code"]) == (400, "malformed-request")


@pytest.mark.parametrize(
    "body",
    [
        b"{}",
        b'{"accruals": []}',
        b'{"accruals": [{"reference": "a", "account_id": "b"}]}',
        b'{"accruals": [{"reference": "a b", "account_id": "b", "points": 1}]}',
        b'{"accruals": [{"reference": "a", "account_id": "b", "points": 1, "expires_at": "2027-01-01"}]}',
        b'{"accruals": [{"reference": "a", "account_id": "b", "points": 1, "expires_at": 5}]}',
        b'{"accruals": [%b, %b]}' % ((b'{"reference": "a", "account_id": "b", "points": 1}',) * 2),
    ],
)
async def test_wrong_accruals_are_the_callers_mistake(service: Service, body: bytes) -> None:
    """One wrong accrual refuses the request: nothing of it is granted."""
    answer = await service.client.post("/v1/accruals:batch", content=body, headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["code"]) == (400, "malformed-request")
