"""Points are deducted exactly once, whatever the callers and the network do."""

from __future__ import annotations

import asyncio
import random
import secrets
from collections import Counter
from datetime import datetime
from uuid import UUID, uuid4

import pytest

from service.app import create_app
from service.settings import Settings
from tests.service.conftest import Database, Serve, Service

pytestmark = pytest.mark.anyio


async def test_a_redemption_deducts_its_points(service: Service, database: Database) -> None:
    """The answer tells what was done, and the balance agrees."""
    account = await database.account(100)
    answer = await service.redeem(account, 30)
    body = answer.json()
    assert answer.status_code == 201
    assert "Idempotent-Replayed" not in answer.headers
    assert (body["account_id"], body["points"], body["balance"]) == (account, 30, 70)
    assert (body["status"], body["rejection"]) == ("redeemed", None)
    assert UUID(body["redemption_id"]).version == 7
    assert datetime.fromisoformat(body["created_at"]).tzinfo is not None
    assert await service.balance(account) == 70


async def test_a_redemption_can_be_read_back(service: Service, database: Database) -> None:
    """The address in the answer leads to the same words."""
    made = await service.redeem(await database.account(100), 30)
    found = await service.client.get(made.headers["Location"])
    assert found.status_code == 200
    assert found.json() == made.json()


async def test_a_replay_is_the_same_answer(service: Service, database: Database) -> None:
    """The same key and meaning give the same bytes, are marked as replayed, and deduct nothing."""
    account, key = await database.account(100), secrets.token_hex(16)
    first = await service.redeem(account, 30, key)
    # The same meaning in another spelling, and the key quoted as the IETF draft has it.
    second = await service.client.post(
        "/v1/redemptions",
        content=f'{{ "points":30 , "account_id":"{account}"}}',
        headers={"Idempotency-Key": f'"{key}"', "Content-Type": "application/json; charset=utf-8"},
    )
    assert (second.status_code, second.content) == (first.status_code, first.content)
    assert second.headers["Idempotent-Replayed"] == "true"
    assert second.headers["Location"] == first.headers["Location"]
    assert await service.balance(account) == 70


async def test_fifty_twins_deduct_once(service: Service, database: Database) -> None:
    """Fifty requests with one key at the same time: one decides, the others are told that it is in progress."""
    account, key = await database.account(100), secrets.token_hex(16)
    answers = await asyncio.gather(*(service.redeem(account, 30, key) for _ in range(50)))
    assert Counter(answer.status_code for answer in answers) == {201: 1, 409: 49}
    for answer in answers:
        if answer.status_code == 409:
            assert (answer.json()["code"], answer.json()["retryable"]) == ("request-in-progress", True)
            assert answer.headers["Retry-After"] == "1"
    [made] = [answer for answer in answers if answer.status_code == 201]
    again = await service.redeem(account, 30, key)
    assert (again.content, again.headers["Idempotent-Replayed"]) == (made.content, "true")
    assert await service.balance(account) == 70
    async with database.connection() as connection:
        postings = await connection.fetch(
            "SELECT amount FROM ledger.entries WHERE transaction_id = $1 ORDER BY 1",
            UUID(made.json()["redemption_id"]),
        )
    assert [row["amount"] for row in postings] == [-30, 30]


async def test_twins_at_two_servers_deduct_once(serve: Serve, database: Database) -> None:
    """Servers do not know of each other's requests; the ledger alone decides which twin is the first."""
    async with serve() as one, serve() as two:
        for _ in range(20):
            account, key = await database.account(100), secrets.token_hex(16)
            answers = await asyncio.gather(one.redeem(account, 30, key), two.redeem(account, 30, key))
            assert [answer.status_code for answer in answers] == [201, 201]
            assert answers[0].content == answers[1].content
            assert Counter(answer.headers.get("Idempotent-Replayed") for answer in answers) == {"true": 1, None: 1}
            assert await one.balance(account) == 70


async def test_one_key_on_two_accounts_at_once(serve: Serve, database: Database) -> None:
    """Twins that differ in the account cannot meet at its lock; still one of them alone gets the key."""
    accounts = [await database.account(100) for _ in range(8)]
    key = secrets.token_hex(16)
    async with serve() as one, serve() as two:
        answers = await asyncio.gather(
            *((one, two)[n % 2].redeem(account, 30, key) for n, account in enumerate(accounts))
        )
        codes = Counter(answer.status_code for answer in answers)
        assert codes[201] == 1
        assert codes[409] + codes[422] == 7
        assert [(await one.redeem(account, 30, key)).status_code for account in accounts].count(422) == 7
        assert sum([await one.balance(account) for account in accounts]) == 770


async def test_a_key_cannot_be_used_for_something_else(service: Service, database: Database) -> None:
    """The same key with another body is refused, and tells nothing of the first request."""
    account, key = await database.account(100), secrets.token_hex(16)
    first = await service.redeem(account, 30, key)
    second = await service.redeem(account, 31, key)
    assert second.status_code == 422
    assert second.json()["code"] == "idempotency-key-reused"
    assert second.json()["retryable"] is False
    assert first.json()["redemption_id"] not in second.text
    assert await service.balance(account) == 70


@pytest.mark.parametrize("reason", ["insufficient-points", "unknown-account"])
async def test_a_rejection_replays_as_itself(service: Service, database: Database, reason: str) -> None:
    """A rejection is a decision on record: it stays one after the account has enough points."""
    account = await database.account(10) if reason == "insufficient-points" else f"late-{secrets.token_hex(8)}"
    key = secrets.token_hex(16)
    first = await service.redeem(account, 11, key)
    async with database.connection() as connection:
        await connection.fetchval("SELECT ledger.accrue($1, $2, 1000)", secrets.token_hex(8), account)
    second = await service.redeem(account, 11, key)
    for answer in (first, second):
        assert answer.status_code == 422
        assert answer.headers["Content-Type"] == "application/problem+json"
        assert answer.json()["code"] == reason
        assert answer.json()["type"].endswith(f"/problems/{reason}")
        assert answer.json()["retryable"] is False
    stable = [{name: answer.json()[name] for name in answer.json() if name != "trace_id"} for answer in (first, second)]
    assert stable[0] == stable[1]
    assert [answer.headers.get("Idempotent-Replayed") for answer in (first, second)] == [None, "true"]
    record = await service.client.get(first.json()["instance"])
    assert (record.json()["status"], record.json()["rejection"]) == ("rejected", reason)
    assert (await service.redeem(account, 11)).status_code == 201


async def test_all_points_can_be_spent_and_not_one_more(service: Service, database: Database) -> None:
    """The balance may reach zero; the next point is refused."""
    account = await database.account(5)
    assert (await service.redeem(account, 5)).json()["balance"] == 0
    refused = await service.redeem(account, 1)
    assert (refused.status_code, refused.json()["balance"]) == (422, 0)


async def test_what_does_not_exist_is_not_found(service: Service) -> None:
    """An unknown redemption and an unknown account are refusals, told apart from an unknown address."""
    codes = {
        f"/v1/redemptions/{uuid4()}": "redemption-not-found",
        "/v1/accounts/nobody/balance": "account-not-found",
        "/v2/redemptions": "not-found",
    }
    for path, code in codes.items():
        answer = await service.client.get(path)
        assert (answer.status_code, answer.json()["code"]) == (404, code)


async def test_the_ledger_adds_up_after_a_storm(serve: Serve, database: Database) -> None:
    """After hundreds of racing redemptions and retries every invariant of the ledger holds."""
    chance = random.Random(20261123)  # noqa: S311 - a seed, so that a failure comes back
    accounts = [await database.account(200) for _ in range(4)]
    wanted = [(chance.choice(accounts), chance.randint(1, 25), secrets.token_hex(16)) for _ in range(150)]
    calls = wanted + chance.choices(wanted, k=150)
    chance.shuffle(calls)
    spent: Counter[str] = Counter()
    room = asyncio.Semaphore(100)

    async def redeem(service: Service, call: tuple[str, int, str]) -> int:
        async with room:
            while (
                status := (await service.redeem(*call)).status_code
            ) == 503:  # shed: on a busy machine the limit falls
                await asyncio.sleep(0.1)
            return status

    async with serve() as service:
        assert set(await asyncio.gather(*(redeem(service, call) for call in calls))) <= {201, 409, 422}
        for account, points, key in wanted:
            final = await service.redeem(account, points, key)
            assert final.headers["Idempotent-Replayed"] == "true"
            if final.status_code == 201:
                spent[account] += points
        balances = [await service.balance(account) for account in accounts]
    assert balances == [200 - spent[account] for account in accounts]
    await assert_invariants(database)


async def assert_invariants(database: Database) -> None:
    """What must hold in every ledger at every time; each query finds offenders."""
    offenders = {
        "balance is the sum of the entries": """
            SELECT a.account_id FROM ledger.accounts a LEFT JOIN ledger.entries e USING (account_id)
            GROUP BY a.account_id HAVING a.balance <> coalesce(sum(e.amount), 0)
                OR a.version <> count(e.account_version)""",
        "versions are 1, 2, 3 ... and balances follow": """
            SELECT account_id FROM (
                SELECT account_id, account_version, balance_after, amount,
                    row_number() OVER w AS place, sum(amount) OVER w AS running
                FROM ledger.entries WHERE account_version IS NOT NULL
                WINDOW w AS (PARTITION BY account_id ORDER BY account_version)) AS ordered
            WHERE account_version <> place OR balance_after <> running""",
        "a transaction adds up to zero in two entries": """
            SELECT transaction_id FROM ledger.entries GROUP BY 1 HAVING sum(amount) <> 0 OR count(*) <> 2""",
        "all accounts add up to zero": "SELECT sum(amount) FROM ledger.entries HAVING sum(amount) <> 0",
        "a redemption has entries when it was not rejected, and only then": """
            SELECT redemption_id FROM ledger.redemptions r
            LEFT JOIN ledger.entries e ON e.transaction_id = r.redemption_id AND e.account_id = r.account_id
            WHERE r.kind = 'redeem' AND ((r.rejection IS NULL) <> (e.amount IS NOT NULL) OR e.amount <> -r.points
                OR e.balance_after <> r.balance)""",
    }
    async with database.connection() as connection:
        for fact, query in offenders.items():
            assert not await connection.fetch(query), fact


async def test_create_app_needs_a_database() -> None:
    """Without a database there is no service, and the message says what to do."""
    with pytest.raises(ValueError, match="embedded_postgres"):
        create_app(Settings())


async def test_probes(service: Service, serve: Serve) -> None:
    """A live process says so with or without its database; it is ready only with it."""
    assert (await service.client.get("/livez")).status_code == 200
    assert (await service.client.get("/readyz")).json() == {"status": "ready"}
    async with serve(database_url="postgresql://nobody@127.0.0.1:1/none") as alone:
        assert (await alone.client.get("/livez")).status_code == 200
        answer = await alone.client.get("/readyz")
        assert (answer.status_code, answer.json()["status"]) == (503, "not ready")


async def test_not_ready_before_the_migrations(serve: Serve, database: Database) -> None:
    """A database without the schema makes the service not ready, and the probe says why."""
    async with serve(database_url=database.owner.removesuffix("postgres") + "template1") as early:
        answer = await early.client.get("/readyz")
    assert (answer.status_code, answer.json()["reason"]) == (503, "the ledger's schema is missing")
