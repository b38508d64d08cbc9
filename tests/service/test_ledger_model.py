"""Whatever happens to the ledger, in any order: it is what a simple model of it is."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, ClassVar, Final, TypeVar
from uuid import UUID

import asyncpg
import pytest
from hypothesis import HealthCheck, assume, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from service import administration
from service.verification import verify
from tests.service.conftest import Database
from tests.service.ledger_calls import CLIENT, PRINT, Connection, Item, Row, redeem_batch, remember_0001, resolve

_Answer = TypeVar("_Answer")

_DAY: Final = timedelta(days=1)
_DAYS_MAX: Final = 4
_OTHER_PRINT: Final = b"g" * 32
_LAST: Final = UUID(int=2**128 - 1)
_TABLES: Final = ", ".join(
    f"ledger.{name}"
    for name in (
        *("accounts", "redemptions", "accruals", "entries", "lots", "lot_postings", "holds", "expirations", "seals"),
    )
)

# A day passes: every moment of the ledger lies one day further back.
_A_DAY_PASSES: Final = """
    UPDATE ledger.accounts SET next_expiry = next_expiry - interval '1 day';
    UPDATE ledger.lots SET created_at = created_at - interval '1 day', expires_at = expires_at - interval '1 day';
    UPDATE ledger.holds SET expires_at = expires_at - interval '1 day';
    UPDATE ledger.accruals SET created_at = created_at - interval '1 day', expires_at = expires_at - interval '1 day';
    UPDATE ledger.expirations SET created_at = created_at - interval '1 day';
    UPDATE ledger.entries SET created_at = created_at - interval '1 day';
    UPDATE ledger.redemptions
    SET created_at = created_at - interval '1 day', hold_expires_at = hold_expires_at - interval '1 day';
    DELETE FROM ledger.seals -- they cover the moments too
"""


_EVERYTHING: Final = """
    SELECT
        ARRAY(
            SELECT ROW (b.account_id, b.posted, b.held, b.available, b.version)
            FROM ledger.accounts AS a CROSS JOIN LATERAL ledger.account(a.account_id, 1) AS b
        ),
        ARRAY(SELECT ROW (l.account_id, l.lot_id, l.points, l.remaining, l.expires_at) FROM ledger.lots AS l),
        ARRAY(
            SELECT ROW (s.redemption_id, s.status, s.captured, s.refunded)
            FROM ledger.redemptions AS r CROSS JOIN LATERAL ledger.as_redemption(r) AS s
            WHERE r.origin_id IS NULL AND r.rejection IS DISTINCT FROM 'unknown-account'
        )
"""


# --- the model --------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Lot:
    """Points with one end, a day from 1 on; None: they never end."""

    lot_id: UUID | None  # None: made by the ledger itself, and not seen yet
    points: int
    ends: int | None
    remaining: int

    @property
    def order(self) -> tuple[float, UUID]:
        """First to end, first spent; of equals the one with the lower id."""
        return (float("inf") if self.ends is None else self.ends, self.lot_id or _LAST)


@dataclass(slots=True)
class _Account:
    balance: int = 0
    held: int = 0
    version: int = 0
    lots: list[_Lot] = field(default_factory=list)
    counted: bool = True  # whether no program of 0001 has moved points since the lots were counted

    @property
    def free(self) -> int:
        return self.balance - self.held

    def ended(self, today: int) -> list[_Lot]:
        return [lot for lot in self.lots if lot.ends is not None and lot.ends <= today and lot.remaining]

    def move(self, points: int) -> None:
        """An entry."""
        self.balance += points
        self.version += 1

    def take(self, points: int) -> list[tuple[_Lot, int]]:
        """Points out of the lots; from which how many."""
        taken = []
        for lot in sorted(self.lots, key=lambda lot: lot.order):
            share = min(lot.remaining, points)
            if share:
                lot.remaining -= share
                points -= share
                taken.append((lot, share))
        assert points == 0, "the lots hold all that is free"
        return taken

    def settle(self, today: int) -> None:
        """What was moved without lots is counted, and what has ended leaves."""
        if not self.counted:
            missing = self.free - sum(lot.remaining for lot in self.lots)
            if missing > 0:
                self.lots.append(_Lot(None, missing, None, missing))
            self.take(max(0, -missing))
            self.counted = True
        ended = self.ended(today)
        if ended:
            self.move(-sum(lot.remaining for lot in ended))
        for lot in ended:
            lot.remaining = 0


@dataclass(slots=True)
class _Origin:
    """A redemption that can be captured, voided or refunded."""

    account: str
    points: int
    status: str
    hold_ends: int = 0
    taken: list[tuple[_Lot, int]] | None = None  # None: under 0001, from no lot
    captured: int = 0
    refunded: int = 0

    @property
    def unresolved(self) -> int:
        """Points that can be captured or refunded, unless the hold has ended."""
        return self.points if self.status == "reserved" else self.captured - self.refunded

    def give_back(self, account: _Account, points: int, transaction_id: UUID) -> None:
        """Points back to the lots that they came from, the last to end first."""
        if self.taken is None:
            account.lots.append(_Lot(transaction_id, points, None, points))
            return
        left = []
        for lot, share in sorted(self.taken, key=lambda one: one[0].order, reverse=True):
            back = min(share, points)
            lot.remaining += back
            points -= back
            left.append((lot, share - back))
        assert points == 0, "no more goes back than was taken"
        self.taken = left


@dataclass(frozen=True, slots=True)
class _Call:
    """A call that got an answer: what a retry repeats, and must hear."""

    item: Item | None  # of a redemption
    resolution: tuple[UUID, str, int | None] | None  # redemption, kind and points of a resolution
    answer: tuple[Any, ...]


def _told(row: Row) -> tuple[Any, ...]:
    """All but how it came to be, and its place."""
    return tuple(row[2:])


_accounts = st.sampled_from(["guest-1", "guest-2", "guest-3"])
_points = st.integers(1, 60)
_ends = st.none() | st.integers(1, _DAYS_MAX)
_items = st.tuples(_accounts, _points, st.none() | st.integers(1, _DAYS_MAX), st.integers(0, 9))


def _remaining(lots: list[_Lot]) -> int:
    return sum(lot.remaining for lot in lots)


class LedgerMachine(RuleBasedStateMachine):
    """The ledger and its model, side by side."""

    loop: ClassVar[asyncio.AbstractEventLoop]
    connection: ClassVar[Connection]

    def __init__(self) -> None:
        super().__init__()
        # In the order in which they came to be: what is drawn from them must be the same when an example runs again.
        self.accounts: dict[str, _Account] = {}
        self.origins: dict[UUID, _Origin] = {}
        self.calls: dict[str, _Call] = {}  # by key
        self.accruals: dict[str, tuple[str, int, int | None, UUID]] = {}  # by reference
        self.today = 0
        self._execute_freely(f"TRUNCATE {_TABLES}")
        self.began: datetime = self._run(self.connection.fetchval("SELECT clock_timestamp()"))

    def teardown(self) -> None:
        """The ledger fits, as its own verification says."""
        report = self._run(verify(self.connection))
        assert report.ok, report.results

    @initialize()
    def begin(self) -> None:
        """Two accounts with lots that a redemption may span, and one that is unknown."""
        for name, points, days in (
            ("guest-1", 20, 3),
            ("guest-1", 15, 1),
            ("guest-1", 10, None),
            ("guest-2", 30, 4),
            ("guest-2", 30, 2),
        ):
            self._grant(name, points, days)

    # --- points come ------------------------------------------------------------------------------------------------

    @rule(name=_accounts, points=_points, days=_ends)
    def accrue(self, name: str, points: int, days: int | None) -> None:
        """Points come, maybe with an end."""
        self._grant(name, points, days)

    def _grant(self, name: str, points: int, days: int | None) -> None:
        ends = None if days is None else self.today + days
        reference = secrets.token_hex(8)
        row = self._accrue(reference, name, points, ends)
        account = self.accounts.setdefault(name, _Account())
        if not account.counted:
            account.settle(self.today)
        account.move(points)
        account.lots.append(_Lot(row["accrual_id"], points, ends, points))
        assert (row["result"], row["balance"]) == ("granted", account.balance)
        self.accruals[reference] = (name, points, ends, row["accrual_id"])

    @precondition(lambda self: self.accruals)
    @rule(data=st.data(), more=st.sampled_from([0, 0, 1]))
    def accrue_again(self, data: st.DataObject, more: int) -> None:
        """A reference counts once, and belongs to its accrual."""
        reference = data.draw(st.sampled_from(list(self.accruals)))
        name, points, ends, accrual_id = self.accruals[reference]
        row = self._accrue(reference, name, points + more, ends)
        expected = ("reference-reused", None) if more else ("replayed", accrual_id)
        assert (row["result"], row["accrual_id"]) == expected
        assert row["balance"] == self.accounts[name].balance

    # --- points go --------------------------------------------------------------------------------------------------

    @rule(drawn=_items)
    def redeem(self, drawn: tuple[str, int, int | None, int]) -> None:
        """One redemption or reserve."""
        self._redeem([self._item(drawn)], wait=True)

    @rule(drawn=st.lists(_items, min_size=2, max_size=6), data=st.data())
    def redeem_batch(self, drawn: list[tuple[str, int, int | None, int]], data: st.DataObject) -> None:
        """Several at once, some of them twins of each other, and some retries."""
        items = [self._item(one) for one in drawn]
        twins = data.draw(
            st.lists(st.tuples(st.sampled_from(items), st.sampled_from([PRINT, _OTHER_PRINT])), max_size=2)
        )
        items += [replace(item, fingerprint=fingerprint) for item, fingerprint in twins]
        known = [call.item for call in self.calls.values() if call.item]
        if known:
            items += data.draw(st.lists(st.sampled_from(known), max_size=2))
        self._redeem(data.draw(st.permutations(items)))

    @precondition(lambda self: self.calls)
    @rule(data=st.data(), same=st.booleans())
    def retry(self, data: st.DataObject, *, same: bool) -> None:
        """A retry hears the first answer; with another fingerprint it hears that the key is taken."""
        key = data.draw(st.sampled_from(list(self.calls)))
        call, fingerprint = self.calls[key], PRINT if same else _OTHER_PRINT
        if call.item:
            self._redeem([replace(call.item, fingerprint=fingerprint)], wait=True)
        if call.resolution:
            redemption_id, kind, points = call.resolution
            row = self._run(resolve(self.connection, redemption_id, kind, points, key=key, fingerprint=fingerprint))
            self._replayed(row, call, same=same)

    @rule(name=_accounts, points=_points)
    def redeem_under_0001(self, name: str, points: int) -> None:
        """A call of 0001 that ends after the migration: it knows neither lots nor holds."""
        assume(name in self.accounts)
        account = self.accounts[name]
        assume(points <= account.free or points > account.balance)  # between the two the row's own check refuses it
        row = self._run(
            self.connection.fetchrow(
                "SELECT * FROM pg_temp.redeem($1, $2, $3, $4, $5)", CLIENT, secrets.token_hex(16), PRINT, name, points
            )
        )
        if points > account.balance:
            assert row["rejection"] == "insufficient-points"
            self.origins[row["redemption_id"]] = _Origin(name, points, "rejected")
            return
        account.move(-points)
        account.counted = False
        assert (row["result"], row["rejection"], row["balance"]) == ("decided", None, account.balance)
        self.origins[row["redemption_id"]] = _Origin(name, points, "redeemed", captured=points)

    @rule(name=_accounts, points=_points)
    def accrue_under_0001(self, name: str, points: int) -> None:
        """The same for an accrual."""
        account = self.accounts.setdefault(name, _Account())
        account.move(points)
        account.counted = False
        balance = self._run(
            self.connection.fetchval("SELECT pg_temp.accrue($1, $2, $3)", secrets.token_hex(8), name, points)
        )
        assert balance == account.balance

    # --- what becomes of a redemption -------------------------------------------------------------------------------

    @precondition(lambda self: self.origins)
    @rule(data=st.data(), kind=st.sampled_from(["capture", "void", "refund"]), share=st.sampled_from([None, 1, 2, 3]))
    def resolve(self, data: st.DataObject, kind: str, share: int | None) -> None:
        """Capture, void or refund whatever there is: all, a third, two thirds, or too much."""
        redemption_id = data.draw(st.sampled_from(list(self.origins)))
        points = None if share is None or kind == "void" else (self.origins[redemption_id].points + 2) * share // 3
        self._resolve(redemption_id, kind, points)

    @precondition(lambda self: any(one.unresolved for one in self.origins.values()))
    @rule(data=st.data(), share=st.integers(1, 3))
    def resolve_in_part(self, data: st.DataObject, share: int) -> None:
        """Capture or refund a part of what can be: the rest of a hold, and a refund, find their way to the lots."""
        fitting = [redemption_id for redemption_id, one in self.origins.items() if one.unresolved]
        redemption_id = data.draw(st.sampled_from(fitting))
        origin = self.origins[redemption_id]
        kind = "capture" if origin.status == "reserved" else "refund"
        self._resolve(redemption_id, kind, max(1, origin.unresolved * share // 3))

    def _resolve(self, redemption_id: UUID, kind: str, points: int | None) -> None:
        key, origin = secrets.token_hex(16), self.origins[redemption_id]
        row = self._run(resolve(self.connection, redemption_id, kind, points, key=key))
        account = self.accounts[origin.account]
        if not account.counted or account.ended(self.today):
            account.settle(self.today)
        moved, rejection = self._resolved(origin, account, kind, points, row["redemption_id"])
        expected = (redemption_id, kind, origin.account, moved, rejection, account.balance, account.free)
        assert (row["result"], *_told(row)[1:-2]) == ("decided", *expected)
        self.calls[key] = _Call(None, (redemption_id, kind, points), _told(row))

    def _resolved(
        self, origin: _Origin, account: _Account, kind: str, points: int | None, transaction_id: UUID
    ) -> tuple[int, str | None]:
        if kind == "refund":
            refundable = origin.captured - origin.refunded
            moved = points or refundable or origin.points
            if moved > refundable:
                return moved, "exceeds-redeemed"
            origin.refunded += moved
            account.move(moved)
            origin.give_back(account, moved, transaction_id)
            return moved, None
        moved = (points or origin.points) if kind == "capture" else origin.points
        if origin.status != "reserved" or origin.hold_ends <= self.today:
            return moved, "hold-closed"
        if moved > origin.points:
            return moved, "exceeds-hold"
        account.held -= origin.points
        captured = moved if kind == "capture" else 0
        if captured:
            account.move(-captured)
        origin.give_back(account, origin.points - captured, transaction_id)
        origin.captured = captured
        origin.status = {"capture": "captured", "void": "voided"}[kind]
        return moved, None

    # --- time and upkeep --------------------------------------------------------------------------------------------

    @rule()
    def a_day_passes(self) -> None:
        """Lots and holds come to their ends."""
        self.today += 1
        self._execute_freely(_A_DAY_PASSES)

    @rule(what=st.sampled_from(["expire_holds", "expire_lots", "count_lots", "seal"]))
    def upkeep(self, what: str) -> None:
        """What the worker does from time to time."""
        {
            "expire_holds": self._expire_holds,
            "expire_lots": self._expire_lots,
            "count_lots": self._count_lots,
            "seal": self._seal,
        }[what]()

    def _expire_holds(self) -> None:
        over = [one for one in self.origins.values() if one.status == "reserved" and one.hold_ends <= self.today]
        assert self._run(self.connection.fetchval("SELECT ledger.expire_holds(1000)")) == len(over)
        for origin in over:
            account = self.accounts[origin.account]
            if not account.counted:
                account.settle(self.today)
            account.held -= origin.points
            origin.give_back(account, origin.points, _LAST)
            origin.status = "expired"

    def _expire_lots(self) -> None:
        ending = [account for account in self.accounts.values() if account.ended(self.today)]
        points = sum(account.balance for account in ending)
        for account in ending:
            account.settle(self.today)
        points -= sum(account.balance for account in ending)
        assert self._run(self.connection.fetchval("SELECT points FROM ledger.expire_lots(1000)")) == points

    def _count_lots(self) -> None:
        for account in self.accounts.values():
            if not account.counted:
                account.settle(self.today)
        last = self._run(self.connection.fetchval("SELECT ledger.count_lots('', 1000)"))
        assert last == max(self.accounts)

    def _seal(self) -> None:
        # In two seals at least; at the end the verification computes them again.
        for rows_max in (1, 1000):
            self._run(self.connection.fetchrow("SELECT * FROM ledger.seal($1)", rows_max))

    # --- what holds after each step ---------------------------------------------------------------------------------

    @invariant()
    def they_agree(self) -> None:
        """Every balance, every lot and what became of every redemption is the model's."""
        accounts, lots, redemptions = self._run(self.connection.fetchrow(_EVERYTHING))
        self._see(lots)
        assert {tuple(row) for row in accounts} == {
            (name, one.balance, one.held, max(0, one.free - _remaining(one.ended(self.today))), one.version)
            for name, one in self.accounts.items()
        }
        assert {tuple(row) for row in lots} == {
            (name, lot.lot_id, lot.points, lot.remaining, self._moment(lot.ends))
            for name, account in self.accounts.items()
            for lot in account.lots
        }
        assert {tuple(row) for row in redemptions} == {
            (redemption_id, one.status, one.captured, one.refunded) for redemption_id, one in self.origins.items()
        }

    def _see(self, rows: list[Row]) -> None:
        """Learn the ids of lots that the ledger made by itself."""
        lots = [(name, lot) for name, account in self.accounts.items() for lot in account.lots]
        known = {lot.lot_id for _, lot in lots}
        for name, lot in lots:
            if lot.lot_id is None:
                [lot.lot_id] = [row[1] for row in rows if row[0] == name and row[1] not in known]

    # --- inside -----------------------------------------------------------------------------------------------------

    def _item(self, drawn: tuple[str, int, int | None, int]) -> Item:
        name, points, days, luck = drawn
        return Item(
            account=name,
            points=points,
            hold_seconds=None if days is None else days * 24 * 3600,
            deadline=self.began - _DAY if luck == 0 else self.began + _DAY if luck == 1 else None,
        )

    def _redeem(self, items: list[Item], *, wait: bool = False) -> None:
        rows = self._run(redeem_batch(self.connection, items, wait=wait))
        settled: set[str] = set()
        for item, row in zip(items, rows, strict=True):
            if item.key in self.calls:
                call = self.calls[item.key]
                assert call.item
                self._replayed(row, call, same=item.fingerprint == call.item.fingerprint)
                continue
            if item.account in self.accounts and item.account not in settled:
                account = self.accounts[item.account]
                if not account.counted or account.ended(self.today):
                    account.settle(self.today)
                settled.add(item.account)
            self._decided(item, row)
            self.calls[item.key] = _Call(item, None, _told(row))

    def _decided(self, item: Item, row: Row) -> None:
        account = self.accounts.get(item.account)
        kind = "redeem" if item.hold_seconds is None else "reserve"
        if account is None:
            unknown = (kind, item.account, item.points, "unknown-account", None, None)
            assert (row["result"], *_told(row)[2:-2]) == ("decided", *unknown)
            return
        rejection = None
        origin = _Origin(item.account, item.points, "rejected")
        if item.deadline is not None and item.deadline < self.began:
            rejection = "deadline-passed"
        elif account.free < item.points:
            rejection = "insufficient-points"
        else:
            origin.taken = account.take(item.points)
            if item.hold_seconds is None:
                account.move(-item.points)
                origin.status, origin.captured = "redeemed", item.points
            else:
                account.held += item.points
                origin.status, origin.hold_ends = "reserved", self.today + item.hold_seconds // (24 * 3600)
        self.origins[row["redemption_id"]] = origin
        expected = (kind, item.account, item.points, rejection, account.balance, account.free)
        assert (row["result"], *_told(row)[2:-2]) == ("decided", *expected)

    def _replayed(self, row: Row, call: _Call, *, same: bool) -> None:
        if not same:
            assert (row["result"], set(_told(row))) == ("key-reused", {None})
            return
        # The days that passed since lie between its moments and those that the ledger has now.
        assert row["result"] == "replayed"
        assert _told(row)[:-2] == call.answer[:-2]

    def _accrue(self, reference: str, name: str, points: int, ends: int | None) -> Row:
        return self._run(
            self.connection.fetchrow(
                "SELECT * FROM ledger.accrue_batch($1, $2, $3, $4)",
                *([reference], [name], [points], [self._moment(ends)]),
            )
        )

    def _moment(self, day: int | None) -> datetime | None:
        return None if day is None else self.began + (day - self.today) * _DAY

    def _execute_freely(self, sql: str) -> None:
        """Without the triggers that keep what was written."""
        self._run(
            self.connection.execute(
                f"SET session_replication_role = replica; {sql}\n; SET session_replication_role = DEFAULT"
            )
        )

    def _run(self, call: Coroutine[Any, Any, _Answer]) -> _Answer:
        return self.loop.run_until_complete(call)


@pytest.fixture
def alone(database: Database) -> Iterator[None]:
    """A database of the machine's own, and an event loop that it runs by itself."""
    loop = asyncio.new_event_loop()
    name = f"model_{secrets.token_hex(4)}"

    async def begin() -> Connection:
        async with database.connection() as owner:
            await owner.execute(f"CREATE DATABASE {name}")
        url = database.owner.removesuffix("postgres") + name
        await administration.migrate(url)
        connection = await asyncpg.connect(url)
        await remember_0001(connection)
        return connection

    async def end() -> None:
        await LedgerMachine.connection.close()
        async with database.connection() as owner:
            await owner.execute(f"DROP DATABASE {name}")

    LedgerMachine.loop, LedgerMachine.connection = loop, loop.run_until_complete(begin())
    yield
    loop.run_until_complete(end())
    loop.close()


@pytest.mark.usefixtures("alone")
def test_the_ledger_is_what_its_model_is() -> None:
    """After any steps every balance, lot and redemption is the model's, and the verification finds nothing."""
    run_state_machine_as_test(
        LedgerMachine,
        settings=settings(
            max_examples=15,
            stateful_step_count=40,
            # the machine may be busy
            database=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
        ),
    )
