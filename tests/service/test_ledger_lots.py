"""Lots, holds, captures and refunds in the ledger: single facts, asked of its functions directly."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import asyncpg
import pytest

from service import administration
from tests.service.conftest import Database, unused
from tests.service.ledger_calls import (
    CLIENT,
    PRINT,
    Connection,
    Item,
    Row,
    accrue,
    key,
    redeem,
    redeem_batch,
    remember_0001,
    reserve,
    resolve,
)

pytestmark = pytest.mark.anyio

_OTHER_PRINT = b"g" * 32


@pytest.fixture
async def ledger(database: Database) -> AsyncIterator[Connection]:
    """A superuser's connection: it may call every function and look into every table."""
    async with database.connection() as connection:
        yield connection


@pytest.fixture(scope="session")
def worker(database: Database) -> str:
    """URL of the worker's login."""
    return asyncio.run(administration.provision_worker(database.owner))


def _in_days(days: int) -> datetime:
    return datetime.now(UTC) + timedelta(days=days)


async def _account(ledger: Connection, *lots: tuple[int, int | None]) -> str:
    """A new account with these lots: points, and in how many days they end."""
    account = unused("guest")
    for points, days in lots:
        await accrue(ledger, account, points, None if days is None else _in_days(days))
    return account


async def _remaining(ledger: Connection, account: str) -> list[int]:
    """What is left in each lot, the first to end first."""
    rows = await ledger.fetch(
        "SELECT remaining FROM ledger.lots WHERE account_id = $1 ORDER BY expires_at, lot_id", account
    )
    return [row["remaining"] for row in rows]


async def _points(ledger: Connection, account: str) -> tuple[int, int, int]:
    """All points, those that are held, and those that can be spent."""
    row = await ledger.fetchrow("SELECT posted, held, available FROM ledger.account($1, 5)", account)
    return tuple(row)


async def _end_first_lot(ledger: Connection, account: str) -> None:
    """Its time has come."""
    await ledger.execute(
        """
        UPDATE ledger.lots SET expires_at = clock_timestamp() WHERE lot_id = (
            SELECT lot_id FROM ledger.lots WHERE account_id = $1 ORDER BY expires_at, lot_id LIMIT 1
        )
        """,
        account,
    )
    await ledger.execute("UPDATE ledger.accounts SET next_expiry = clock_timestamp() WHERE account_id = $1", account)


async def _end_hold(ledger: Connection, redemption_id: UUID) -> None:
    """Its time has come."""
    await ledger.execute(
        "UPDATE ledger.holds SET expires_at = clock_timestamp() WHERE redemption_id = $1", redemption_id
    )


async def _settle(ledger: Connection) -> None:
    """What the worker does from time to time, until there is nothing left to do."""
    while await ledger.fetchval("SELECT ledger.expire_holds(1000)"):
        pass
    while await ledger.fetchval("SELECT accounts FROM ledger.expire_lots(1000)"):
        pass


@asynccontextmanager
async def _in_use(database: Database, account: str) -> AsyncIterator[None]:
    """While the block runs somebody else has the account's lock."""
    async with database.connection() as other, other.transaction():
        await other.execute("SELECT FROM ledger.accounts WHERE account_id = $1 FOR UPDATE", account)
        yield


async def _until_waiting(ledger: Connection, count: int = 1) -> None:
    """Until that many calls wait for a lock."""
    for _ in range(3_000):
        waiting = await ledger.fetchval("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
        if waiting >= count:
            return
        await asyncio.sleep(0.01)
    raise AssertionError("nobody waits")


# --- lots -------------------------------------------------------------------------------------------------------------


async def test_the_first_points_to_end_are_the_first_to_be_spent(ledger: Connection) -> None:
    """Not in the order in which they came; points without an end are the last."""
    account = await _account(ledger, (10, None), (10, 30), (10, 2))
    await redeem(ledger, account, 15)
    assert await _remaining(ledger, account) == [0, 5, 10]
    await redeem(ledger, account, 10)
    assert await _remaining(ledger, account) == [0, 0, 5]


async def test_a_batch_spends_lots_in_its_order(ledger: Connection) -> None:
    """Each redemption of a batch says from which lots it took, as if they had been made one after the other."""
    account = await _account(ledger, (10, 2), (10, 30))
    rows = await redeem_batch(ledger, [Item(account=account, points=points) for points in (6, 6, 6, 6)])
    assert [row["rejection"] for row in rows] == [None, None, None, "insufficient-points"]
    assert [row["balance"] for row in rows] == [14, 8, 2, 2]
    taken = [
        [
            posting["amount"]
            for posting in await ledger.fetch(
                "SELECT p.amount FROM ledger.lot_postings AS p JOIN ledger.lots AS l USING (lot_id)"
                " WHERE p.transaction_id = $1 ORDER BY l.expires_at",
                row["redemption_id"],
            )
        ]
        for row in rows
    ]
    assert taken == [[-6], [-4, -2], [-6], []]


async def test_points_that_have_ended_cannot_be_spent(ledger: Connection) -> None:
    """Not even before upkeep has taken them away; the redemption that finds them does it."""
    account = await _account(ledger, (10, 2), (5, 30))
    await _end_first_lot(ledger, account)
    assert await _points(ledger, account) == (15, 0, 5)
    row = await redeem(ledger, account, 6)
    assert (row["rejection"], row["balance"]) == ("insufficient-points", 5)
    assert await _points(ledger, account) == (5, 0, 5)
    entries = await ledger.fetch("SELECT kind, amount, balance_after FROM ledger.entries_page($1, NULL, 1)", account)
    assert [tuple(entry) for entry in entries] == [("expiration", -10, 5)]


async def test_upkeep_takes_away_what_has_ended(ledger: Connection) -> None:
    """Once, and as an entry whose other side is the system's account for it."""
    account = await _account(ledger, (10, 2), (5, None))
    await _end_first_lot(ledger, account)
    await _settle(ledger)
    assert await _points(ledger, account) == (5, 0, 5)
    await _settle(ledger)
    assert await _points(ledger, account) == (5, 0, 5)
    other = await ledger.fetch(
        """
        SELECT o.account_id, o.amount FROM ledger.entries AS e
        JOIN ledger.entries AS o ON o.transaction_id = e.transaction_id AND o.account_version IS NULL
        WHERE e.account_id = $1 AND e.account_version = 3
        """,
        account,
    )
    assert [tuple(row) for row in other] == [("system:expiry", 10)]


async def test_points_that_were_held_when_they_ended_can_be_captured(ledger: Connection) -> None:
    """They were set aside in time; the rest of the hold goes back and ends."""
    account = await _account(ledger, (10, 2))
    held = await reserve(ledger, account, 10)
    await _end_first_lot(ledger, account)
    await _settle(ledger)
    assert await _points(ledger, account) == (10, 10, 0)
    assert (await resolve(ledger, held, "capture", 4))["rejection"] is None
    assert await _points(ledger, account) == (6, 0, 0)
    await _settle(ledger)
    assert await _points(ledger, account) == (0, 0, 0)


# --- refunds ----------------------------------------------------------------------------------------------------------


async def test_refunded_points_go_back_to_their_lots(ledger: Connection) -> None:
    """With the end that they had; the guest gets those back first that last the longest."""
    account = await _account(ledger, (10, 2), (10, 30))
    ends = await ledger.fetch(
        "SELECT lot_id, expires_at FROM ledger.lots WHERE account_id = $1 ORDER BY lot_id", account
    )
    spent = (await redeem(ledger, account, 15))["redemption_id"]
    assert (await resolve(ledger, spent, "refund", 7))["balance"] == 12
    assert await _remaining(ledger, account) == [2, 10]
    row = await resolve(ledger, spent, "refund")
    assert (row["points"], row["balance"]) == (8, 20)
    assert await _remaining(ledger, account) == [10, 10]
    assert (
        await ledger.fetch("SELECT lot_id, expires_at FROM ledger.lots WHERE account_id = $1 ORDER BY lot_id", account)
        == ends
    )


async def test_refunded_points_whose_end_has_passed_end_again(ledger: Connection) -> None:
    """A refund lengthens nothing."""
    account = await _account(ledger, (10, 2))
    spent = (await redeem(ledger, account, 10))["redemption_id"]
    await _end_first_lot(ledger, account)
    await _settle(ledger)
    await resolve(ledger, spent, "refund")
    assert await _points(ledger, account) == (10, 0, 0)
    assert (await redeem(ledger, account, 1))["rejection"] == "insufficient-points"
    assert await _points(ledger, account) == (0, 0, 0)


async def test_no_more_is_refunded_than_was_redeemed(ledger: Connection) -> None:
    """Neither at once nor bit by bit, and nothing of a redemption that was rejected."""
    account = await _account(ledger, (10, None))
    spent = (await redeem(ledger, account, 6))["redemption_id"]
    assert (await resolve(ledger, spent, "refund", 7))["rejection"] == "exceeds-redeemed"
    assert (await resolve(ledger, spent, "refund", 4))["rejection"] is None
    assert (await resolve(ledger, spent, "refund", 3))["rejection"] == "exceeds-redeemed"
    assert (await resolve(ledger, spent, "refund", 2))["rejection"] is None
    row = await resolve(ledger, spent, "refund")
    assert (row["rejection"], row["points"]) == ("exceeds-redeemed", 6)
    refused = (await redeem(ledger, account, 11))["redemption_id"]
    assert (await resolve(ledger, refused, "refund"))["rejection"] == "exceeds-redeemed"
    assert await _points(ledger, account) == (10, 0, 10)


async def test_of_a_capture_only_what_was_captured_is_refunded(ledger: Connection) -> None:
    """A hold gave the rest back already, and an open hold has nothing to refund."""
    account = await _account(ledger, (10, None))
    held = await reserve(ledger, account, 10)
    assert (await resolve(ledger, held, "refund"))["rejection"] == "exceeds-redeemed"
    await resolve(ledger, held, "capture", 4)
    assert (await resolve(ledger, held, "refund", 5))["rejection"] == "exceeds-redeemed"
    assert (await resolve(ledger, held, "refund"))["points"] == 4
    assert await _points(ledger, account) == (10, 0, 10)


async def test_what_was_redeemed_under_0001_is_refunded_without_an_end(ledger: Connection) -> None:
    """It came from no lot, so each refund makes one of its own."""
    await remember_0001(ledger)
    account = await _account(ledger, (10, 2))
    spent = await ledger.fetchval(
        "SELECT redemption_id FROM pg_temp.redeem($1, $2, $3, $4, 6)", CLIENT, key(), PRINT, account
    )
    for points in (4, 2):
        assert (await resolve(ledger, spent, "refund", points))["rejection"] is None
    assert (await resolve(ledger, spent, "refund", 1))["rejection"] == "exceeds-redeemed"
    lots = await ledger.fetch(
        "SELECT remaining FROM ledger.lots WHERE account_id = $1 AND expires_at IS NULL ORDER BY lot_id", account
    )
    assert [row["remaining"] for row in lots] == [4, 2]
    assert await _remaining(ledger, account) == [4, 4, 2]  # the lot of 10 was counted again: 4 are left of it
    assert await _points(ledger, account) == (10, 0, 10)


# --- holds ------------------------------------------------------------------------------------------------------------


async def test_held_points_are_the_guests_and_cannot_be_spent(ledger: Connection) -> None:
    """A reserve sets points aside: the balance stays, what is available shrinks."""
    account = await _account(ledger, (10, None))
    await reserve(ledger, account, 7)
    assert await _points(ledger, account) == (10, 7, 3)
    row = await redeem(ledger, account, 4)
    assert (row["rejection"], row["balance"], row["available"]) == ("insufficient-points", 10, 3)


async def test_a_capture_of_a_part_gives_the_rest_back(ledger: Connection) -> None:
    """The first to end are captured, and the hold is over."""
    account = await _account(ledger, (10, 2), (10, 30))
    held = await reserve(ledger, account, 15)
    assert (await resolve(ledger, held, "capture", 4))["available"] == 16
    assert await _remaining(ledger, account) == [6, 10]
    assert await _points(ledger, account) == (16, 0, 16)
    assert (await resolve(ledger, held, "capture", 1))["rejection"] == "hold-closed"
    assert (await resolve(ledger, held, "void"))["rejection"] == "hold-closed"


async def test_a_void_gives_all_back(ledger: Connection) -> None:
    """No points move: there is no entry."""
    account = await _account(ledger, (10, 2), (10, 30))
    held = await reserve(ledger, account, 15)
    row = await resolve(ledger, held, "void")
    assert (row["points"], row["balance"], row["available"]) == (15, 20, 20)
    assert await _remaining(ledger, account) == [10, 10]
    assert await ledger.fetchval("SELECT count(*) FROM ledger.entries WHERE account_id = $1", account) == 2


@pytest.mark.parametrize("upkeep_ran", [True, False])
async def test_a_hold_that_has_ended_is_closed(ledger: Connection, *, upkeep_ran: bool) -> None:
    """A late capture is refused, also when upkeep has not given the points back yet."""
    account = await _account(ledger, (10, None))
    held = await reserve(ledger, account, 7)
    await _end_hold(ledger, held)
    if upkeep_ran:
        await _settle(ledger)
    assert (await resolve(ledger, held, "capture"))["rejection"] == "hold-closed"
    await _settle(ledger)
    assert await _points(ledger, account) == (10, 0, 10)
    row = await ledger.fetchrow("SELECT status, captured FROM ledger.redemption_of($1, $2)", CLIENT, held)
    assert tuple(row) == ("expired", 0)


async def test_no_more_is_captured_than_is_held(ledger: Connection) -> None:
    """The hold stays open, and a smaller capture goes through."""
    account = await _account(ledger, (10, None))
    held = await reserve(ledger, account, 7)
    row = await resolve(ledger, held, "capture", 8)
    assert (row["rejection"], row["points"]) == ("exceeds-hold", 8)
    assert (await resolve(ledger, held, "capture", 7))["rejection"] is None


async def test_what_was_redeemed_at_once_has_no_hold(ledger: Connection) -> None:
    """It can be neither captured nor voided."""
    spent = (await redeem(ledger, await _account(ledger, (10, None)), 7))["redemption_id"]
    assert (await resolve(ledger, spent, "capture"))["rejection"] == "hold-closed"
    assert (await resolve(ledger, spent, "void"))["rejection"] == "hold-closed"


async def test_upkeep_leaves_accounts_in_use_for_the_next_time(ledger: Connection, database: Database) -> None:
    """It waits for nobody, and nobody's ended points are lost by that."""
    account = await _account(ledger, (10, 2), (10, None))
    held = await reserve(ledger, account, 5)
    await _end_hold(ledger, held)
    await _end_first_lot(ledger, account)
    async with _in_use(database, account):
        await asyncio.wait_for(_settle(ledger), 30)
        assert await _points(ledger, account) == (20, 5, 10)
    await _settle(ledger)
    assert await _points(ledger, account) == (10, 0, 10)


@pytest.mark.parametrize("kind", ["capture", "void", "refund"])
async def test_nothing_becomes_of_a_redemption_of_nobody(ledger: Connection, kind: str) -> None:
    """A redemption that was rejected because there is no such account has nothing to capture, void or refund."""
    nothing = (await redeem(ledger, unused("nobody"), 1))["redemption_id"]
    assert (await resolve(ledger, nothing, kind))["result"] == "not-found"


# --- one key, one decision --------------------------------------------------------------------------------------------


async def test_another_clients_redemption_is_not_found(ledger: Connection) -> None:
    """Not to be captured, refunded or read, and nothing is on record about the attempt."""
    held = await reserve(ledger, await _account(ledger, (10, None)), 7)
    for kind in ("capture", "void", "refund"):
        assert (await resolve(ledger, held, kind, client="client-b"))["result"] == "not-found"
    assert await ledger.fetch("SELECT * FROM ledger.redemption_of('client-b', $1)", held) == []
    assert await ledger.fetchval("SELECT count(*) FROM ledger.redemptions WHERE origin_id = $1", held) == 0


async def test_a_resolution_is_no_redemption(ledger: Connection) -> None:
    """What captured a hold cannot be refunded itself: the redemption can."""
    held = await reserve(ledger, await _account(ledger, (10, None)), 7)
    captured = (await resolve(ledger, held, "capture"))["redemption_id"]
    assert (await resolve(ledger, captured, "refund"))["result"] == "not-found"


async def test_all_decisions_share_one_space_of_keys(ledger: Connection) -> None:
    """A key that redeemed can capture nothing, and the other way round."""
    account = await _account(ledger, (20, None))
    held = await reserve(ledger, account, 7)
    first, second = key(), key()
    await redeem(ledger, account, 1, key=first)
    assert (await resolve(ledger, held, "capture", key=first, fingerprint=_OTHER_PRINT))["result"] == "key-reused"
    await resolve(ledger, held, "capture", key=second)
    assert (await redeem(ledger, account, 1, key=second, fingerprint=_OTHER_PRINT))["result"] == "key-reused"
    assert await _points(ledger, account) == (12, 0, 12)


async def test_twins_in_one_batch_are_decided_once(ledger: Connection) -> None:
    """The first decides, the same again is a replay, and another request with its key is told so."""
    account = await _account(ledger, (10, None))
    item = Item(account=account, points=4)
    rows = await redeem_batch(ledger, [item, item, replace(item, fingerprint=_OTHER_PRINT)])
    assert [row["result"] for row in rows] == ["decided", "replayed", "key-reused"]
    assert rows[0]["redemption_id"] == rows[1]["redemption_id"]
    assert await _points(ledger, account) == (6, 0, 6)


async def test_a_rejection_is_kept(ledger: Connection) -> None:
    """The key's answer stays the same when the points have come."""
    account = await _account(ledger, (3, None))
    item = Item(account=account, points=4)
    [first] = await redeem_batch(ledger, [item])
    await accrue(ledger, account, 100)
    [again] = await redeem_batch(ledger, [item])
    assert (again["result"], again["rejection"], again["balance"]) == ("replayed", "insufficient-points", 3)
    assert tuple(again)[2:] == tuple(first)[2:]


# --- many at once -----------------------------------------------------------------------------------------------------


async def test_an_account_in_use_holds_up_nobody_else(ledger: Connection, database: Database) -> None:
    """A batch says of whom it is busy, and decides the others."""
    busy, free = await _account(ledger, (10, None)), await _account(ledger, (10, None))
    items = [Item(account=account, points=1) for account in (busy, free, busy, unused("nobody"))]
    async with _in_use(database, busy):
        rows = await asyncio.wait_for(redeem_batch(ledger, items), 30)
    assert [row["result"] for row in rows] == ["busy", "decided", "busy", "decided"]
    rows = await redeem_batch(ledger, items)
    assert [row["result"] for row in rows] == ["decided", "replayed", "decided", "replayed"]


async def test_alone_a_redemption_waits_for_its_account(ledger: Connection, database: Database) -> None:
    """It goes through as soon as the account is free, with the points that are there then."""
    account = await _account(ledger, (10, None))
    async with database.connection() as other:
        async with other.transaction():
            await redeem(other, account, 7)
            waiting = asyncio.create_task(redeem(ledger, account, 4))
            async with database.connection() as watching:
                await _until_waiting(watching)
        row = await asyncio.wait_for(waiting, 30)
    assert (row["result"], row["rejection"], row["balance"]) == ("decided", "insufficient-points", 3)


async def test_several_never_wait(ledger: Connection) -> None:
    """A batch that would wait for one of its accounts would make all of it wait: it is refused."""
    account = await _account(ledger, (10, None))
    with pytest.raises(asyncpg.InvalidParameterValueError, match="batch of one"):
        await redeem_batch(ledger, [Item(account=account, points=1) for _ in range(2)], wait=True)


@pytest.mark.parametrize("several", [True, False])
async def test_a_key_that_is_taken_meanwhile(ledger: Connection, database: Database, *, several: bool) -> None:
    """Of several all are undone, for each to go through alone; one alone hears what the other one decided."""
    account, nobody, taken = await _account(ledger, (10, None)), unused("nobody"), key()
    items = [Item(account=nobody, points=1, key=taken), Item(account=account, points=1)][: 2 if several else 1]
    async with database.connection() as other, database.connection() as watching:
        async with other.transaction():
            first = await redeem(other, nobody, 1, key=taken)
            waiting = asyncio.create_task(redeem_batch(ledger, items))
            await _until_waiting(watching)
        if several:
            with pytest.raises(asyncpg.SerializationError):
                await asyncio.wait_for(waiting, 30)
            assert await _points(ledger, account) == (10, 0, 10)
        else:
            [row] = await asyncio.wait_for(waiting, 30)
            assert (row["result"], row["redemption_id"]) == ("replayed", first["redemption_id"])


async def test_two_batches_of_the_same_keys_do_not_wait_in_a_circle(ledger: Connection, database: Database) -> None:
    """In whatever order they name them: both take the keys in one order."""
    keys = [f"{letter}-{key()}" for letter in "amz"]
    # On accounts of their own, in whose order each batch decides: on the same ones the second would be busy.
    batches = [
        [Item(account=account, points=1, key=one) for account, one in zip(sorted(accounts), order, strict=True)]
        for accounts, order in (
            ([await _account(ledger, (10, None)) for _ in keys], keys),
            ([await _account(ledger, (10, None)) for _ in keys], keys[::-1]),
        )
    ]
    async with database.connection() as one, database.connection() as two, database.connection() as holding:
        transaction = holding.transaction()
        await transaction.start()
        await redeem(holding, unused("nobody"), 1, key=keys[1])  # both have to wait in the middle
        calls = [
            asyncio.create_task(redeem_batch(connection, batch))
            for connection, batch in zip((one, two), batches, strict=True)
        ]
        await _until_waiting(ledger, 2)
        await transaction.rollback()
        answers = await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), 30)
    assert sum(isinstance(answer, asyncpg.SerializationError) for answer in answers) == 1
    [rows] = [answer for answer in answers if isinstance(answer, list)]
    assert [row["result"] for row in rows] == ["decided"] * 3


async def test_a_storm_of_batches_and_retries_leaves_everything_right(ledger: Connection, database: Database) -> None:
    """Many callers, few accounts, every key by several callers: each is decided once, and all sums hold."""
    accounts = [await _account(ledger, (300, 2), (200, 30), (100, None)) for _ in range(4)]
    items = [
        Item(account=accounts[place % 4], points=1 + place % 7, hold_seconds=3600 if place % 5 == 0 else None)
        for place in range(80)
    ]
    decided: dict[str, set[UUID]] = {item.key: set() for item in items}
    made: list[str] = []

    async def caller() -> None:
        async with database.connection(database.app) as connection:
            left = secrets.SystemRandom().sample(items, len(items))
            for _ in range(2_000):
                if not left:
                    return
                batch = left[: secrets.choice([1, 5, 20])]
                try:
                    rows = await redeem_batch(connection, batch, wait=len(batch) == 1)
                except asyncpg.SerializationError:
                    continue
                left = left[len(batch) :]
                for item, row in zip(batch, rows, strict=True):
                    if row["result"] == "busy":
                        left.append(item)
                        continue
                    decided[item.key].add(row["redemption_id"])
                    made.extend([item.key] * (row["result"] == "decided"))
            raise AssertionError("no end of it")

    await asyncio.wait_for(asyncio.gather(*(caller() for _ in range(6))), 120)
    assert sorted(made) == sorted(decided)
    assert all(len(ids) == 1 for ids in decided.values())
    for place, account in enumerate(accounts):
        mine = items[place::4]
        held = sum(item.points for item in mine if item.hold_seconds)
        spent = sum(item.points for item in mine) - held
        assert await _points(ledger, account) == (600 - spent, held, 600 - spent - held)
        assert sum(await _remaining(ledger, account)) == 600 - spent - held
        entries = await ledger.fetch("SELECT version FROM ledger.entries_page($1, NULL, 1000)", account)
        assert [row["version"] for row in entries] == list(range(len(entries), 0, -1))


@pytest.mark.parametrize("kind", ["capture", "void", "refund"])
async def test_of_many_who_want_the_same_one_succeeds(ledger: Connection, database: Database, kind: str) -> None:
    """Each with a key of its own: points leave or come back once."""
    account = await _account(ledger, (10, None))
    if kind == "refund":
        origin = (await redeem(ledger, account, 7))["redemption_id"]
    else:
        origin = await reserve(ledger, account, 7)

    async def one() -> Row:
        async with database.connection(database.app) as connection:
            return await resolve(connection, origin, kind)

    rows = await asyncio.gather(*(one() for _ in range(6)))
    assert sorted(row["rejection"] is None for row in rows) == [False] * 5 + [True]
    balance = 3 if kind == "capture" else 10
    assert await _points(ledger, account) == (balance, 0, balance)


async def test_nothing_is_deducted_after_the_deadline(ledger: Connection, database: Database) -> None:
    """Also when the time passes while the redemption waits for its account."""
    account = await _account(ledger, (10, None))
    async with database.connection() as watching:
        async with _in_use(database, account):
            deadline = await watching.fetchval("SELECT clock_timestamp()") + timedelta(seconds=0.5)
            waiting = asyncio.create_task(redeem(ledger, account, 4, deadline=deadline))
            await _until_waiting(watching)
            await watching.execute("SELECT pg_sleep(0.6)")
        assert (await asyncio.wait_for(waiting, 30))["rejection"] == "deadline-passed"


async def test_points_that_end_while_somebody_waits_cannot_be_spent(ledger: Connection, database: Database) -> None:
    """What counts is when the redemption has its account."""
    async with database.connection() as watching:
        account = unused("guest")
        soon = await watching.fetchval("SELECT clock_timestamp()") + timedelta(seconds=1)
        await accrue(watching, account, 10, soon)
        async with _in_use(database, account):
            waiting = asyncio.create_task(redeem(ledger, account, 4))
            await _until_waiting(watching)
            await watching.execute("SELECT pg_sleep(1.1)")
        assert (await asyncio.wait_for(waiting, 30))["rejection"] == "insufficient-points"


# --- limits -----------------------------------------------------------------------------------------------------------


async def test_a_refund_to_a_full_account_has_an_answer(ledger: Connection) -> None:
    """The balance never leaves the numbers that JSON keeps, and whoever would make it is told so."""
    account = await _account(ledger, (2**53 - 1, None))
    spent = (await redeem(ledger, account, 10))["redemption_id"]
    await accrue(ledger, account, 10)
    assert (await resolve(ledger, spent, "refund"))["rejection"] is not None


async def test_accruals_are_refused_one_by_one(ledger: Connection) -> None:
    """One that would make a balance too large leaves the others alone, and its reference free."""
    full, fine, reference = await _account(ledger, (2**53 - 1, None)), unused("guest"), unused("stay")
    rows = await ledger.fetch(
        "SELECT * FROM ledger.accrue_batch($1, $2, $3, $4)",
        *([reference, unused("stay")], [full, fine], [1, 5], [None, None]),
    )
    assert {row["place"]: (row["result"], row["balance"]) for row in rows} == {
        1: ("balance-too-large", 2**53 - 1),
        2: ("granted", 5),
    }
    assert (await accrue(ledger, fine, 1, reference=reference))["result"] == "granted"


async def test_no_client_keeps_a_hold_from_ending(ledger: Connection) -> None:
    """Not by taking the key under which the system would put it on record."""
    account = await _account(ledger, (10, None))
    held = await reserve(ledger, account, 7)
    async with _undone(ledger):
        await _end_hold(ledger, held)
        await redeem(ledger, account, 1, client="system", key=f"expire-{held}")
        assert await ledger.fetchval("SELECT ledger.expire_holds(1000)") > 0


@asynccontextmanager
async def _undone(ledger: Connection) -> AsyncIterator[None]:
    """Nothing of the block stays: what it breaks is broken for nobody else."""
    transaction = ledger.transaction()
    await transaction.start()
    try:
        yield
    finally:
        await transaction.rollback()


# --- what was written stays -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("table", ["lot_postings", "expirations", "seals"])
@pytest.mark.parametrize("change", ["UPDATE ledger.{} SET {} = {}", "DELETE FROM ledger.{}", "TRUNCATE ledger.{}"])
async def test_the_new_tables_are_append_only(ledger: Connection, table: str, change: str) -> None:
    """Not even the superuser changes or removes a row by an ordinary statement."""
    account = await _account(ledger, (10, 2))
    await _end_first_lot(ledger, account)
    await _settle(ledger)
    await ledger.fetchrow("SELECT * FROM ledger.seal(1000000)")
    column = {"lot_postings": "amount", "expirations": "points", "seals": "rows"}[table]
    assert await ledger.fetchval(f"SELECT count(*) FROM ledger.{table}") > 0  # noqa: S608 - of the list above
    with pytest.raises(asyncpg.RestrictViolationError, match="append-only"):
        await ledger.execute(change.format(table, column, column))


# --- an answer is a promise -------------------------------------------------------------------------------------------


async def _replayed_redemption(ledger: Connection, item: Item, _made: UUID) -> None:
    await redeem_batch(ledger, [item, replace(item, key=key())])


async def _reused_key(ledger: Connection, item: Item, _made: UUID) -> None:
    await redeem_batch(ledger, [replace(item, fingerprint=_OTHER_PRINT)])


async def _replayed_resolution(ledger: Connection, item: Item, made: UUID) -> None:
    row = await resolve(ledger, made, "refund", key=item.key)
    assert row["result"] == "replayed"


async def _read(ledger: Connection, _item: Item, made: UUID) -> None:
    assert await ledger.fetch("SELECT * FROM ledger.redemption_of($1, $2)", CLIENT, made)


async def _read_by_key(ledger: Connection, item: Item, _made: UUID) -> None:
    assert await ledger.fetch("SELECT * FROM ledger.redemption_of_key($1, $2)", CLIENT, item.key)


async def _page(ledger: Connection, _item: Item, _made: UUID) -> None:
    assert await ledger.fetch("SELECT * FROM ledger.redemptions_page($1, NULL, 1)", CLIENT)


async def _entries(ledger: Connection, item: Item, _made: UUID) -> None:
    assert await ledger.fetch("SELECT * FROM ledger.entries_page($1, NULL, 1)", item.account)


async def _replayed_accrual(ledger: Connection, item: Item, _made: UUID) -> None:
    assert (await accrue(ledger, item.account, 10, reference=item.key))["result"] == "replayed"


@pytest.mark.parametrize(
    "tell",
    [
        _replayed_redemption,
        _reused_key,
        _replayed_resolution,
        _read,
        _read_by_key,
        _page,
        _entries,
        _replayed_accrual,
    ],
)
async def test_whatever_is_told_again_writes_to_the_log(
    ledger: Connection, tell: Callable[[Connection, Item, UUID], Awaitable[None]]
) -> None:
    """It makes a log record and a commit, so that it waits for the standby as the first answer did."""
    item = Item(account=unused("guest"), points=4)
    await accrue(ledger, item.account, 10, reference=item.key)
    [row] = await redeem_batch(ledger, [item])
    await ledger.execute("CREATE EXTENSION IF NOT EXISTS pg_walinspect")
    before = await ledger.fetchval("SELECT pg_current_wal_insert_lsn()")
    await tell(ledger, item, row["redemption_id"])
    records = await ledger.fetch(
        "SELECT resource_manager, record_type, description"
        " FROM pg_get_wal_records_info($1, pg_current_wal_insert_lsn())",
        before,
    )
    assert any(one["resource_manager"] == "LogicalMessage" and "promise" in one["description"] for one in records)
    assert "COMMIT" in {one["record_type"] for one in records if one["resource_manager"] == "Transaction"}


# --- who may do what --------------------------------------------------------------------------------------------------

_UPKEEP = (
    "SELECT ledger.expire_holds(1)",
    "SELECT * FROM ledger.expire_lots(1)",
    "SELECT ledger.count_lots('', 1)",
    "SELECT * FROM ledger.seal(1)",
)
_INSIDE = (
    "SELECT ledger.new_id()",
    "SELECT ledger.promise()",
    "SELECT ledger.settle_account('guest')",
    "SELECT ledger.spend_lots('{}', '{}', '{}')",
    "SELECT ledger.return_to_lots(gen_random_uuid(), gen_random_uuid(), 'guest', 1)",
    "SELECT ledger.end_hold(gen_random_uuid(), NULL, 1)",
    "SELECT ledger.accrue('reference', 'guest', 1)",
)
_TABLES = (
    "accounts",
    "redemptions",
    "accruals",
    "entries",
    "lots",
    "lot_postings",
    "holds",
    "expirations",
    "seals",
    "migrations",
)


@pytest.mark.parametrize("table", _TABLES)
@pytest.mark.parametrize("role", ["redemption_app", "redemption_upkeep"])
async def test_who_calls_functions_reads_no_table(ledger: Connection, role: str, table: str) -> None:
    """Neither the service nor upkeep sees a table, not to speak of writing to one."""
    async with _as_role(ledger, role):
        for statement in (f"SELECT FROM ledger.{table}", f"DELETE FROM ledger.{table}"):  # noqa: S608 - of the list above
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await ledger.execute(statement)


@pytest.mark.parametrize("statement", [*_UPKEEP, *_INSIDE, "SELECT * FROM ledger.chain_rows(-1, 1)"])
async def test_the_service_keeps_nothing_up(ledger: Connection, statement: str) -> None:
    """Upkeep, the chain, and all that functions do inside, is not the service's to call."""
    async with _as_role(ledger, "redemption_app"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await ledger.execute(statement)


async def test_upkeep_may_do_that_alone(ledger: Connection) -> None:
    """It ends holds and lots, counts and seals; it moves no points of its own accord."""
    async with _as_role(ledger, "redemption_upkeep"):
        for statement in _UPKEEP:
            await ledger.execute(statement)
        for statement in (*_INSIDE, "SELECT * FROM ledger.chain_rows(-1, 1)"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await ledger.execute(statement)
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await redeem(ledger, "guest", 1)
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await accrue(ledger, "guest", 1)


async def test_the_auditor_reads_all_and_changes_nothing(ledger: Connection) -> None:
    """Every table, and the chain's rows; no writing, no function that writes."""
    async with _as_role(ledger, "redemption_auditor"):
        await ledger.fetch("SELECT * FROM ledger.chain_rows(-1, 1)")
        for table in _TABLES:
            await ledger.fetch(f"SELECT * FROM ledger.{table} LIMIT 1")  # noqa: S608 - of the list above
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await ledger.execute(f"DELETE FROM ledger.{table}")  # noqa: S608 - as above
        for statement in (*_UPKEEP, *_INSIDE):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await ledger.execute(statement)
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await redeem(ledger, "guest", 1)


async def test_the_worker_settles_keeps_up_and_reads(worker: str, database: Database, ledger: Connection) -> None:
    """Its login is all three; and still it grants nothing by hand, and changes no table."""
    account = await _account(ledger, (10, None))
    async with database.connection(worker) as connection:
        assert (await redeem(connection, account, 1))["result"] == "decided"
        for statement in _UPKEEP:
            await connection.execute(statement)
        assert await connection.fetchval("SELECT count(*) FROM ledger.lots") > 0
        for statement in (*_INSIDE, "UPDATE ledger.accounts SET balance = 1"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(statement)


@asynccontextmanager
async def _as_role(ledger: Connection, role: str) -> AsyncIterator[None]:
    await ledger.execute(f"SET ROLE {role}")
    try:
        yield
    finally:
        await ledger.execute("RESET ROLE")
