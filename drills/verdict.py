"""The verdict: what clients were told, against what the ledger has.

The ledger numbers the entries of each account 1, 2, 3 ..., so it states the order in which things happened; to check
that order against what every client saw takes a sort, not a search. The checker knows nothing of the service's code.
"""

from __future__ import annotations

import bisect
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from itertools import accumulate
from typing import Any

import asyncpg

from drills.load import Operation, Outcome

REDEEM = "redeem"
INSUFFICIENT, UNKNOWN_ACCOUNT = "insufficient-points", "unknown-account"

_CONNECT_SECONDS_MAX = 10
_OF_SYSTEM = "system:"


class Kind(StrEnum):
    """What can be wrong."""

    LOST = "lost"
    """A client was told of a decision that the ledger does not have."""
    DIFFERS = "differs"
    """The ledger's decision is not the one that the client asked for, or was told of."""
    TWICE = "twice"
    """One key has several decisions, or one decision moved the points of an account more than once."""
    NOT_MOVED = "not-moved"
    """A redemption moved other points than it says, or none; or a rejection moved some."""
    UNASKED = "unasked"
    """A redemption that no client sent."""
    AGAINST_WORD = "against-word"
    """The client was told that nothing happened, and something did."""
    UNSETTLED = "unsettled"
    """After everything was asked again, the client still does not know."""
    VERSION_GAP = "version-gap"
    """The entries of an account are not numbered 1, 2, 3 ..."""
    CHAIN = "chain"
    """A balance is not the one before plus the amount."""
    NEGATIVE = "negative"
    """A balance is below zero."""
    ACCOUNT_DIFFERS = "account-differs"
    """The account's balance or version is not that of its last entry."""
    ORDER = "order"
    """A redemption that was over before another one began stands after it."""
    UNJUSTIFIED = "unjustified"
    """A rejection for want of points or of an account, though they were there, or a balance that was not."""
    NOT_ZERO = "not-zero"
    """The amounts of a transaction, or of all, do not add up to zero: points were made or lost."""
    UNFOUNDED = "unfounded"
    """Entries of a transaction that is neither a decision nor an accrual."""


@dataclass(frozen=True, slots=True)
class Violation:
    """One thing that is wrong.

    Attributes:
        kind: What.
        subject: The key, account or transaction that it is about.
        detail: What was found, and what should be there.
    """

    kind: Kind
    subject: str
    detail: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.subject}: {self.detail}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """A row of `ledger.redemptions`.

    Attributes:
        redemption_id: Its id; that of its transaction as well.
        key: The client's key.
        account_id: Whose points.
        points: How many.
        rejection: Why not; None when it was done.
        balance: The account's points right after it; None when there is no such account.
        available: Those of them that nothing was reserved of; None where the ledger does not say: all.
        kind: `redeem`, `reserve`, `capture`, `void`, `expire` or `refund`.
        origin_id: The decision that this one follows.
    """

    redemption_id: str
    key: str
    account_id: str
    points: int
    rejection: str | None = None
    balance: int | None = None
    available: int | None = None
    kind: str = REDEEM
    origin_id: str | None = None

    @property
    def spendable(self) -> int | None:
        """What could be spent right after it."""
        return self.balance if self.available is None else self.available


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A row of `ledger.entries`; version and balance are None on a system account."""

    transaction_id: str
    account_id: str
    amount: int
    version: int | None = None
    balance_after: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """A row of `ledger.accounts`."""

    account_id: str
    balance: int
    version: int
    held: int = 0


@dataclass(frozen=True, kw_only=True)
class LedgerFacts:
    """All that the ledger has, read at one moment.

    Attributes:
        decisions: Every decision.
        entries: Every entry.
        accounts: Every guest account.
        accruals: The transactions that granted points.
    """

    decisions: Sequence[Decision] = ()
    entries: Sequence[Entry] = ()
    accounts: Sequence[Account] = ()
    accruals: frozenset[str] = field(default=frozenset())

    @cached_property
    def by_key(self) -> Mapping[str, Sequence[Decision]]:
        """The redemptions of each key; what follows one, a capture say, has a key of its own kind."""
        found = defaultdict(list)
        for decision in self.decisions:
            if decision.kind == REDEEM:
                found[decision.key].append(decision)
        return found

    @cached_property
    def by_transaction(self) -> Mapping[str, Sequence[Entry]]:
        """The entries of each transaction."""
        found = defaultdict(list)
        for entry in self.entries:
            found[entry.transaction_id].append(entry)
        return found

    @cached_property
    def by_account(self) -> Mapping[str, Sequence[Entry]]:
        """The entries of each guest account, in their order."""
        found = defaultdict(list)
        for entry in self.entries:
            if not entry.account_id.startswith(_OF_SYSTEM):
                found[entry.account_id].append(entry)
        return {account: sorted(entries, key=lambda entry: entry.version or 0) for account, entries in found.items()}


async def read_facts(url: str) -> LedgerFacts:
    """Read the ledger, all of it at one moment, as its owner.

    Columns that a ledger does not have yet take the defaults of the values above.
    """
    connection = await asyncpg.connect(url, timeout=_CONNECT_SECONDS_MAX)
    try:
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            decisions = await connection.fetch("SELECT * FROM ledger.redemptions")
            entries = await connection.fetch("SELECT * FROM ledger.entries")
            accounts = await connection.fetch("SELECT * FROM ledger.accounts")
            accruals = await connection.fetch("SELECT accrual_id FROM ledger.accruals")
    finally:
        await connection.close()
    return LedgerFacts(
        decisions=[_decision(row) for row in decisions],
        entries=[_entry(row) for row in entries],
        accounts=[_account(row) for row in accounts],
        accruals=frozenset(str(row["accrual_id"]) for row in accruals),
    )


def _decision(row: Any) -> Decision:  # noqa: ANN401 - asyncpg ships no types
    origin = row.get("origin_id")
    return Decision(
        redemption_id=str(row["redemption_id"]),
        key=row["idempotency_key"],
        account_id=row["account_id"],
        points=row["points"],
        rejection=row["rejection"],
        balance=row["balance"],
        available=row.get("available"),
        kind=row.get("kind", REDEEM),
        origin_id=None if origin is None else str(origin),
    )


def _entry(row: Any) -> Entry:  # noqa: ANN401 - as above
    return Entry(
        transaction_id=str(row["transaction_id"]),
        account_id=row["account_id"],
        amount=row["amount"],
        version=row["account_version"],
        balance_after=row["balance_after"],
    )


def _account(row: Any) -> Account:  # noqa: ANN401 - as above
    return Account(
        account_id=row["account_id"], balance=row["balance"], version=row["version"], held=row.get("held", 0)
    )


def judge(history: Iterable[Operation], facts: LedgerFacts, *, settled: bool = False) -> list[Violation]:
    """Everything that is wrong; empty when clients and ledger agree.

    Args:
        history: Every redemption that was sent to this ledger; a key that was sent several times may stand there as
            often. Its times are of one clock.
        facts: What the ledger has, read after the last answer.
        settled: Whether everything was asked again until answered, so that nothing may be unknown any more.
    """
    sent: dict[str, list[Operation]] = defaultdict(list)
    for operation in history:
        sent[operation.key].append(operation)
    return [
        *_promises(sent, facts, settled=settled),
        *_decisions(sent, facts),
        *_transactions(facts),
        *_chains(facts),
        *_order(sent, facts),
    ]


# --- what clients were told -------------------------------------------------------------------------------------------


def _promises(sent: Mapping[str, Sequence[Operation]], facts: LedgerFacts, *, settled: bool) -> Iterator[Violation]:
    for key, operations in sent.items():
        rows = facts.by_key.get(key, ())
        answered = {operation.outcome for operation in operations}
        decided = answered & {Outcome.ACKNOWLEDGED, Outcome.REJECTED}
        if decided and not rows:
            yield Violation(Kind.LOST, key, f"the client was told {_words(decided)}; the ledger has no such key")
        if rows and answered <= {Outcome.SHED, Outcome.REFUSED}:
            yield Violation(Kind.AGAINST_WORD, key, f"the client was told {_words(answered)}; the ledger has {rows[0]}")
        if settled and not decided and answered & {Outcome.UNKNOWN, Outcome.DEFERRED}:
            yield Violation(Kind.UNSETTLED, key, f"all that the client was told is {_words(answered)}")
        for row in rows:
            for operation in operations:
                fault = _difference(operation, row)
                if fault:
                    yield Violation(Kind.DIFFERS, key, fault)


def _words(outcomes: Iterable[Outcome]) -> str:
    return " and ".join(sorted(outcomes))


def _difference(operation: Operation, row: Decision) -> str | None:
    if (operation.account_id, operation.points) != (row.account_id, row.points):
        asked = f"{operation.points} points of {operation.account_id}"
        return f"the client asked for {asked}, the ledger has {row.points} of {row.account_id}"
    if operation.outcome not in (Outcome.ACKNOWLEDGED, Outcome.REJECTED):
        return None
    if (operation.outcome is Outcome.REJECTED) != (row.rejection is not None):
        return f"the client was told {operation.outcome}, the ledger has the rejection {row.rejection}"
    if operation.outcome is Outcome.REJECTED and operation.code != row.rejection:
        return f"the client was told {operation.code}, the ledger has {row.rejection}"
    if operation.redemption_id != row.redemption_id:
        return f"the client was told of {operation.redemption_id}, the ledger has {row.redemption_id}"
    return None


# --- what the ledger did ----------------------------------------------------------------------------------------------


def _decisions(sent: Mapping[str, Sequence[Operation]], facts: LedgerFacts) -> Iterator[Violation]:
    for key, rows in facts.by_key.items():
        if key not in sent:
            yield Violation(Kind.UNASKED, key, f"nobody sent it; the ledger has {rows[0]}")
        if len(rows) > 1:
            yield Violation(Kind.TWICE, key, f"{len(rows)} decisions")
        for row in rows:
            yield from _moved(row, facts)


def _moved(row: Decision, facts: LedgerFacts) -> Iterator[Violation]:
    entries = [
        entry
        for entry in facts.by_transaction.get(row.redemption_id, ())
        if not entry.account_id.startswith(_OF_SYSTEM)
    ]
    if len(entries) > 1:
        yield Violation(Kind.TWICE, row.key, f"{len(entries)} entries on guest accounts")
    expected = [] if row.rejection else [(row.account_id, -row.points, row.balance)]
    found = [(entry.account_id, entry.amount, entry.balance_after) for entry in entries]
    if len(entries) <= 1 and found != expected:
        yield Violation(
            Kind.NOT_MOVED, row.key, f"(account, amount, balance after) should be {expected or 'none'}, is {found}"
        )


def _transactions(facts: LedgerFacts) -> Iterator[Violation]:
    known = facts.accruals | {decision.redemption_id for decision in facts.decisions}
    for transaction, entries in facts.by_transaction.items():
        total = sum(entry.amount for entry in entries)
        if total:
            yield Violation(Kind.NOT_ZERO, transaction, f"its amounts add up to {total}")
        if transaction not in known:
            yield Violation(Kind.UNFOUNDED, transaction, f"{len(entries)} entries of no decision and no accrual")
    total = sum(entry.amount for entry in facts.entries)
    if total:
        yield Violation(Kind.NOT_ZERO, "ledger", f"all amounts add up to {total}")


def _chains(facts: LedgerFacts) -> Iterator[Violation]:
    for account, entries in facts.by_account.items():
        versions = [entry.version for entry in entries]
        if versions != list(range(1, len(entries) + 1)):
            yield Violation(Kind.VERSION_GAP, account, _gap(versions))
        before = 0
        for entry in entries:
            after = entry.balance_after
            if after is None or before + entry.amount != after:
                yield Violation(
                    Kind.CHAIN, account, f"version {entry.version}: {before} and {entry.amount} make {after}"
                )
            before = before + entry.amount if after is None else after
            if before < 0:
                yield Violation(Kind.NEGATIVE, account, f"version {entry.version}: {before}")
    rows = {account.account_id: account for account in facts.accounts}
    for account_id in sorted(rows.keys() | facts.by_account.keys()):
        last = facts.by_account[account_id][-1] if account_id in facts.by_account else None
        expected = (last.balance_after, last.version) if last else (0, 0)
        row = rows.get(account_id)
        found = (row.balance, row.version) if row else None
        if found != expected:
            yield Violation(Kind.ACCOUNT_DIFFERS, account_id, f"(balance, version) should be {expected}, is {found}")
        if row and not 0 <= row.held <= row.balance:
            yield Violation(Kind.NEGATIVE, account_id, f"{row.held} of {row.balance} points are held")


def _gap(versions: Sequence[int | None]) -> str:
    doubled = [version for version, count in Counter(versions).items() if count > 1]
    missing = set(range(1, len(versions) + 1)) - set(versions)
    return f"of {len(versions)} entries the versions {sorted(missing)} are missing, {doubled} are there twice"


# --- who was first ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Span:
    """When something happened to an account: after it was first sent, and before the first answer that tells of it."""

    key: str
    invoked_at: float
    acknowledged_at: float
    version: int


def _order(sent: Mapping[str, Sequence[Operation]], facts: LedgerFacts) -> Iterator[Violation]:
    versions = {entry.transaction_id: entry.version for entries in facts.by_account.values() for entry in entries}
    spans: dict[str, list[_Span]] = defaultdict(list)
    rejections: dict[str, list[Decision]] = defaultdict(list)
    for key, operations in sent.items():
        for row in facts.by_key.get(key, ()):
            version = versions.get(row.redemption_id)
            if row.rejection is not None:
                rejections[row.account_id].append(row)
            elif version is not None:
                spans[row.account_id].append(_Span(key, *_times(operations), version))
    for of_account in spans.values():
        yield from _out_of_order(of_account)
    for account, rows in rejections.items():
        timeline = _Timeline(spans.get(account, ()), facts.by_account.get(account, ()))
        for row in rows:
            yield from timeline.unjustified(row, *_times(sent[row.key]))


def _times(operations: Sequence[Operation]) -> tuple[float, float]:
    """The first time it was sent, and the first time that somebody was told what was decided."""
    told = [
        operation.returned_at
        for operation in operations
        if operation.returned_at is not None and operation.outcome in (Outcome.ACKNOWLEDGED, Outcome.REJECTED)
    ]
    return min(operation.invoked_at for operation in operations), min(told, default=math.inf)


def _out_of_order(spans: Iterable[_Span]) -> Iterator[Violation]:
    """From the last version back: whoever stands later must not have been over before this one began."""
    earliest: _Span | None = None
    for span in sorted(spans, key=lambda span: span.version, reverse=True):
        if earliest is not None and earliest.acknowledged_at < span.invoked_at:
            yield Violation(
                Kind.ORDER,
                span.key,
                f"sent {span.invoked_at - earliest.acknowledged_at:.6f} s after {earliest.key} was answered, "
                f"and has version {span.version}, the other {earliest.version}",
            )
        if earliest is None or span.acknowledged_at < earliest.acknowledged_at:
            earliest = span


class _Timeline:
    """Which versions an account may have had at a time, by what its clients saw."""

    def __init__(self, spans: Iterable[_Span], entries: Sequence[Entry]) -> None:
        self._balances = [0, *(entry.balance_after for entry in entries)]
        over = sorted(spans, key=lambda span: span.acknowledged_at)
        self._over_at = [span.acknowledged_at for span in over]
        self._reached = list(accumulate((span.version for span in over), max))
        begun = sorted(over, key=lambda span: span.invoked_at, reverse=True)
        self._begun_at = [-span.invoked_at for span in begun]
        self._not_yet = list(accumulate((span.version for span in begun), min))

    def unjustified(self, row: Decision, invoked_at: float, told_at: float) -> Iterator[Violation]:
        """What is wrong with a rejection between these times."""
        over = bisect.bisect_left(self._over_at, invoked_at)
        first = self._reached[over - 1] if over else 0
        begun = bisect.bisect_left(self._begun_at, -told_at)
        last = self._not_yet[begun - 1] - 1 if begun else len(self._balances) - 1
        if row.rejection == UNKNOWN_ACCOUNT:
            if first > 0:
                yield Violation(Kind.UNJUSTIFIED, row.key, f"{row.account_id} had {first} entries by then")
            return
        if row.spendable is None or row.spendable >= row.points:
            yield Violation(Kind.UNJUSTIFIED, row.key, f"{row.spendable} points were there for {row.points}")
        possible = self._balances[first : last + 1]
        if row.balance not in possible:
            yield Violation(
                Kind.UNJUSTIFIED,
                row.key,
                f"a balance of {row.balance} that {row.account_id} did not have from version {first} to {last}",
            )
