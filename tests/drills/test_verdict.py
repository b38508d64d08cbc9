"""The checker finds each kind of wrong, and nothing where all is right; nor at a service that was killed at work."""

from __future__ import annotations

import asyncio
import os
import random
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drills.harness import LedgerDatabase, ledger_database, service
from drills.load import History, Operation, Outcome, Plan, loading, resolve
from drills.verdict import (
    INSUFFICIENT,
    UNKNOWN_ACCOUNT,
    Account,
    Decision,
    Entry,
    Kind,
    LedgerFacts,
    Violation,
    judge,
    read_facts,
)

GRANTED = 100


@dataclass(slots=True)
class Ledger:
    """A right ledger of accounts with 100 points each, as far as the checker sees one; and what its clients saw."""

    balances: dict[str, int] = field(default_factory=dict)
    versions: dict[str, int] = field(default_factory=dict)
    decisions: list[Decision] = field(default_factory=list)
    entries: list[Entry] = field(default_factory=list)
    accruals: set[str] = field(default_factory=set)
    history: list[Operation] = field(default_factory=list)

    def open(self, account: str) -> None:
        """A new account."""
        self.accruals.add(f"grant-{account}")
        self.balances[account], self.versions[account] = 0, 0
        self._post(f"grant-{account}", account, GRANTED)

    def redeem(self, key: str, account: str, points: int) -> Decision:
        """Decide, and post if it is to be done."""
        balance = self.balances.get(account)
        if balance is None:
            decision = Decision(
                redemption_id=f"id-{key}", key=key, account_id=account, points=points, rejection=UNKNOWN_ACCOUNT
            )
        elif balance < points:
            decision = Decision(
                redemption_id=f"id-{key}",
                key=key,
                account_id=account,
                points=points,
                rejection=INSUFFICIENT,
                balance=balance,
            )
        else:
            self._post(f"id-{key}", account, -points)
            decision = Decision(
                redemption_id=f"id-{key}", key=key, account_id=account, points=points, balance=balance - points
            )
        self.decisions.append(decision)
        return decision

    def tell(self, decision: Decision, invoked_at: float, returned_at: float) -> None:
        """Answer its client."""
        self.history.append(
            Operation(
                key=decision.key,
                account_id=decision.account_id,
                points=decision.points,
                invoked_at=invoked_at,
                returned_at=returned_at,
                status=422 if decision.rejection else 201,
                outcome=Outcome.REJECTED if decision.rejection else Outcome.ACKNOWLEDGED,
                redemption_id=decision.redemption_id,
                code=decision.rejection,
            )
        )

    @property
    def facts(self) -> LedgerFacts:
        """All of it."""
        return LedgerFacts(
            decisions=self.decisions,
            entries=self.entries,
            accounts=[
                Account(account_id=account, balance=balance, version=self.versions[account])
                for account, balance in self.balances.items()
            ],
            accruals=frozenset(self.accruals),
        )

    def _post(self, transaction: str, account: str, amount: int) -> None:
        self.balances[account] += amount
        self.versions[account] += 1
        self.entries += [
            Entry(
                transaction_id=transaction,
                account_id=account,
                amount=amount,
                version=self.versions[account],
                balance_after=self.balances[account],
            ),
            Entry(transaction_id=transaction, account_id="system:other", amount=-amount),
        ]


def small() -> Ledger:
    """Two redemptions of one account, one after the other, a rejection in between, and one of nobody's account."""
    ledger = Ledger()
    ledger.open("ann")
    for number, (account, points) in enumerate((("ann", 60), ("ann", 70), ("ann", 10), ("bob", 1))):
        ledger.tell(ledger.redeem(f"k{number}", account, points), 10.0 * number, 10.0 * number + 5)
    return ledger


def kinds(violations: list[Violation]) -> set[Kind]:
    """Only what kinds there are."""
    return {violation.kind for violation in violations}


def operation(ledger: Ledger, number: int, **changes: object) -> None:
    """Change what a client saw."""
    ledger.history[number] = replace(ledger.history[number], **changes)  # type: ignore[arg-type]


def decision(ledger: Ledger, number: int, **changes: object) -> None:
    """Change what the ledger decided."""
    ledger.decisions[number] = replace(ledger.decisions[number], **changes)  # type: ignore[arg-type]


def entry(ledger: Ledger, number: int, **changes: object) -> None:
    """Change an entry; 0 is the grant, 2 the first redemption, 4 the second, and system accounts between."""
    ledger.entries[number] = replace(ledger.entries[number], **changes)  # type: ignore[arg-type]


def test_nothing_is_wrong_with_a_right_history() -> None:
    """Acknowledged, rejected, unknown, deferred and shed ones all fit a ledger that did its work."""
    ledger = small()
    assert judge(ledger.history, ledger.facts, settled=True) == []
    operation(ledger, 0, outcome=Outcome.UNKNOWN, returned_at=None, redemption_id=None)  # it happened
    operation(ledger, 2, outcome=Outcome.DEFERRED, redemption_id=None)
    for number, outcome in enumerate((Outcome.UNKNOWN, Outcome.SHED, Outcome.REFUSED)):  # it did not
        ledger.history.append(
            Operation(key=f"other{number}", account_id="ann", points=1, invoked_at=1, outcome=outcome)
        )
    assert judge(ledger.history, ledger.facts) == []


def test_a_key_that_was_sent_several_times_counts_once() -> None:
    """Its span is from the first time that it was sent to the first answer that tells."""
    ledger = small()
    ledger.history.append(replace(ledger.history[2], invoked_at=26, returned_at=27))  # a replay, after the others
    ledger.history.append(replace(ledger.history[0], invoked_at=-1, returned_at=None, outcome=Outcome.UNKNOWN))
    ledger.history.append(replace(ledger.history[0], invoked_at=40, returned_at=41))
    assert judge(ledger.history, ledger.facts, settled=True) == []
    operation(ledger, 2, invoked_at=3, returned_at=4)  # over at 4, though a replay was answered at 27
    operation(ledger, 0, invoked_at=5, returned_at=8)
    ledger.history = [one for one in ledger.history if one.key != "k1" and one.invoked_at >= 0]
    ledger.decisions.pop(1)
    assert kinds(judge(ledger.history, ledger.facts)) == {Kind.ORDER}


@pytest.mark.parametrize("number", [0, 1])
def test_a_decision_that_was_told_is_there(number: int) -> None:
    """Acknowledged or rejected, and not in the ledger: lost."""
    ledger = small()
    ledger.history.append(replace(ledger.history[number], key="gone"))
    assert judge(ledger.history, ledger.facts) == [
        Violation(
            Kind.LOST, "gone", f"the client was told {ledger.history[number].outcome}; the ledger has no such key"
        )
    ]


@pytest.mark.parametrize(
    "changes",
    [
        {"points": 61},
        {"account_id": "bob"},
        {"redemption_id": "id-other"},
        {"outcome": Outcome.REJECTED, "code": INSUFFICIENT},
        {"outcome": Outcome.UNKNOWN, "points": 61},
    ],
)
def test_what_was_told_is_what_is_there(changes: dict[str, object]) -> None:
    """Account, points, id and kind of the decision are those that the client asked for and was told."""
    ledger = small()
    operation(ledger, 0, **changes)
    assert kinds(judge(ledger.history, ledger.facts)) == {Kind.DIFFERS}


def test_the_reason_that_was_told_is_the_one_on_record() -> None:
    """Another reason than the ledger's differs."""
    ledger = small()
    operation(ledger, 1, code=UNKNOWN_ACCOUNT)
    assert kinds(judge(ledger.history, ledger.facts)) == {Kind.DIFFERS}


def test_a_key_is_decided_once() -> None:
    """Two decisions for one key are twice, even when each is sound in itself."""
    ledger = small()
    ledger.redeem("k0", "ann", 60)
    twin = ledger.decisions.pop()
    ledger.redeem("again", "ann", 10)
    ledger.decisions[-1] = replace(ledger.decisions[-1], key="k2")
    assert twin.rejection == INSUFFICIENT
    assert kinds(judge(ledger.history, ledger.facts)) == {Kind.TWICE, Kind.DIFFERS}


def test_a_decision_moves_points_once() -> None:
    """Two entries of one redemption on guest accounts are twice."""
    ledger = small()
    ledger._post("id-k2", "ann", -10)
    assert kinds(judge(ledger.history, ledger.facts)) == {Kind.TWICE}


def test_a_redemption_moves_what_it_says() -> None:
    """Other points than those, or none, or points of a rejection, are not what was decided."""
    ledger = small()
    ledger.tell(ledger.redeem("k9", "ann", 5), 90, 91)
    decision(ledger, -1, points=6)
    operation(ledger, -1, points=6)
    assert kinds(judge(ledger.history, ledger.facts)) == {Kind.NOT_MOVED}

    ledger = small()
    ledger.tell(replace(ledger.decisions[2], key="k9", redemption_id="id-k9"), 90, 91)
    ledger.decisions.append(replace(ledger.decisions[2], key="k9", redemption_id="id-k9"))
    assert kinds(judge(ledger.history, ledger.facts)) == {Kind.NOT_MOVED}

    ledger = small()
    ledger._post("id-k1", "ann", -1)
    assert kinds(judge(ledger.history, ledger.facts)) == {Kind.NOT_MOVED}


def test_the_balance_on_record_is_the_one_after_it() -> None:
    """The decision's balance, which the client was shown, is that of its entry."""
    ledger = small()
    decision(ledger, 0, balance=41)
    assert kinds(judge(ledger.history, ledger.facts)) == {Kind.NOT_MOVED}


def test_every_redemption_was_asked_for() -> None:
    """A row whose key nobody sent is unasked; what follows a redemption, a capture say, is not judged by that."""
    ledger = small()
    ledger.redeem("surprise", "ann", 1)
    assert kinds(judge(ledger.history, ledger.facts)) == {Kind.UNASKED}
    decision(ledger, -1, kind="capture")
    assert judge(ledger.history, ledger.facts) == []


@pytest.mark.parametrize("outcome", [Outcome.SHED, Outcome.REFUSED])
def test_nothing_happened_to_what_was_turned_away(outcome: Outcome) -> None:
    """Told that nothing happened, and the ledger has it: against the service's word."""
    ledger = small()
    operation(ledger, 0, outcome=outcome)
    assert kinds(judge(ledger.history, ledger.facts)) == {Kind.AGAINST_WORD}


@pytest.mark.parametrize("outcome", [Outcome.UNKNOWN, Outcome.DEFERRED])
def test_after_all_was_asked_again_everything_is_known(outcome: Outcome) -> None:
    """Then, and only then, an open one is wrong."""
    ledger = small()
    operation(ledger, 0, outcome=outcome)
    assert judge(ledger.history, ledger.facts) == []
    assert kinds(judge(ledger.history, ledger.facts, settled=True)) == {Kind.UNSETTLED}


def test_versions_have_no_gap_and_no_double() -> None:
    """An account's entries are numbered 1, 2, 3 ..., whatever its row says."""
    ledger = small()
    entry(ledger, 4, version=4)
    ledger.versions["ann"] = 4
    assert kinds(judge(ledger.history, ledger.facts)) == {Kind.VERSION_GAP}
    entry(ledger, 4, version=2)
    ledger.versions["ann"] = 2
    assert Kind.VERSION_GAP in kinds(judge(ledger.history, ledger.facts))


def test_a_balance_follows_from_the_one_before() -> None:
    """A balance that does not is a broken chain."""
    ledger = small()
    entry(ledger, 4, balance_after=31)
    decision(ledger, 2, balance=31)
    ledger.balances["ann"] = 31
    assert kinds(judge(ledger.history, ledger.facts)) == {Kind.CHAIN}


def test_no_balance_is_below_zero() -> None:
    """Neither the points, nor those that are not held."""
    ledger = small()
    ledger.balances["ann"] = 1000  # lets the double spend through
    ledger.tell(ledger.redeem("k9", "ann", 31), 90, 91)
    entry(ledger, -2, balance_after=-1)
    decision(ledger, -1, balance=-1)
    ledger.balances["ann"] = -1
    found = judge(ledger.history, ledger.facts)
    assert kinds(found) == {Kind.NEGATIVE}
    assert "version 4: -1" in [violation.detail for violation in found]

    ledger = small()
    held = replace(ledger.facts, accounts=[replace(ledger.facts.accounts[0], held=31)])
    assert kinds(judge(ledger.history, held)) == {Kind.NEGATIVE}


def test_an_account_is_what_its_entries_say() -> None:
    """Its row has the balance and version of the last entry, and there is one."""
    facts = small().facts
    (row,) = facts.accounts
    for accounts in ([replace(row, balance=31)], [replace(row, version=4)], []):
        wrong = replace(facts, accounts=accounts)
        assert kinds(judge(small().history, wrong)) == {Kind.ACCOUNT_DIFFERS}


def test_what_was_over_before_another_began_stands_before_it() -> None:
    """Real time: the later one of two that did not overlap has the higher version; of two that did, either may."""
    ledger = small()
    operation(ledger, 0, invoked_at=30, returned_at=35)
    operation(ledger, 1, invoked_at=20, returned_at=36)
    assert kinds(judge(ledger.history, ledger.facts)) == {Kind.ORDER}
    operation(ledger, 0, invoked_at=24, returned_at=35)
    assert judge(ledger.history, ledger.facts) == []
    operation(ledger, 0, invoked_at=25, returned_at=35)  # the other was answered at 25: they may have overlapped
    assert judge(ledger.history, ledger.facts) == []
    operation(ledger, 0, invoked_at=25.001, returned_at=35)
    assert kinds(judge(ledger.history, ledger.facts)) == {Kind.ORDER}


def test_a_rejection_was_right_when_it_was_made() -> None:
    """There was too little at some time between question and answer, and the balance on record was the account's."""
    ledger = small()
    decision(ledger, 1, points=40)
    operation(ledger, 1, points=40)
    assert kinds(judge(ledger.history, ledger.facts)) == {Kind.UNJUSTIFIED}  # 40 were there

    ledger = small()
    decision(ledger, 1, balance=39)
    assert kinds(judge(ledger.history, ledger.facts)) == {Kind.UNJUSTIFIED}  # never its balance

    ledger = small()
    operation(ledger, 1, invoked_at=-20, returned_at=-15)
    assert kinds(judge(ledger.history, ledger.facts)) == {Kind.UNJUSTIFIED}  # 100 were there until the first began

    ledger = small()
    operation(ledger, 1, invoked_at=30, returned_at=35)
    assert kinds(judge(ledger.history, ledger.facts)) == {Kind.UNJUSTIFIED}  # only 30 were there by then

    ledger = small()
    ledger.tell(ledger.redeem("k9", "bob", 1), 90, 91)
    decision(ledger, -1, account_id="ann")
    operation(ledger, -1, account_id="ann")
    assert kinds(judge(ledger.history, ledger.facts)) == {Kind.UNJUSTIFIED}  # it had been used before


def test_points_that_are_held_cannot_be_spent() -> None:
    """Where the ledger says what was available, that is what a rejection is measured by."""
    ledger = small()
    decision(ledger, 1, points=40, available=39)
    operation(ledger, 1, points=40)
    assert judge(ledger.history, ledger.facts) == []


def test_points_are_neither_made_nor_lost() -> None:
    """The amounts of each transaction, and of all, add up to zero."""
    ledger = small()
    entry(ledger, 3, amount=59)
    assert [one.subject for one in judge(ledger.history, ledger.facts)] == ["id-k0", "ledger"]
    assert kinds(judge(ledger.history, ledger.facts)) == {Kind.NOT_ZERO}


def test_every_entry_has_a_reason() -> None:
    """Its transaction is a decision or an accrual."""
    ledger = small()
    ledger.accruals.clear()
    assert kinds(judge(ledger.history, ledger.facts)) == {Kind.UNFOUNDED}


def test_a_violation_says_what_and_where() -> None:
    """In one line."""
    assert str(Violation(Kind.LOST, "k1", "gone")) == "lost: k1: gone"


# --- generated histories ----------------------------------------------------------------------------------------------


@st.composite
def ledgers(draw: st.DrawFn) -> Ledger:
    """A ledger that decided one request after the other, and clients who saw it from some way off."""
    ledger = Ledger()
    for account in ("ann", "bob"):
        ledger.open(account)
    away = st.integers(0, 30)
    for number in range(draw(st.integers(0, 25))):
        account = draw(st.sampled_from(("ann", "bob", "nobody")))
        points = draw(st.integers(1, 60))
        fate = draw(st.sampled_from(("told", "told", "not told", "deferred", "never arrived", "shed", "replayed")))
        at = 10.0 * number
        sent = Operation(key=f"k{number}", account_id=account, points=points, invoked_at=at - draw(away))
        if fate in ("never arrived", "shed"):
            ledger.history.append(replace(sent, outcome=Outcome.SHED if fate == "shed" else Outcome.UNKNOWN))
            continue
        decided = ledger.redeem(sent.key, account, points)
        if fate in ("told", "replayed"):
            ledger.tell(decided, sent.invoked_at, at + draw(away))
        if fate == "replayed":
            ledger.tell(decided, at + draw(away), at + 60)
        if fate in ("not told", "deferred"):
            outcome = Outcome.DEFERRED if fate == "deferred" else Outcome.UNKNOWN
            ledger.history.append(replace(sent, outcome=outcome, returned_at=at + draw(away)))
    return ledger


@given(ledgers())
def test_no_right_history_is_called_wrong(ledger: Ledger) -> None:
    """However clients and decisions overlap."""
    assert judge(ledger.history, ledger.facts) == []


@given(ledgers(), st.data())
def test_no_loss_of_an_answered_redemption_is_missed(ledger: Ledger, data: st.DataObject) -> None:
    """A failover that forgets a decision which was told, with its entries, is found, whichever it is."""
    told = [one for one in ledger.history if one.outcome in (Outcome.ACKNOWLEDGED, Outcome.REJECTED)]
    if not told:
        return
    lost = data.draw(st.sampled_from(told))
    ledger.decisions = [one for one in ledger.decisions if one.key != lost.key]
    ledger.entries = [one for one in ledger.entries if one.transaction_id != lost.redemption_id]
    assert Kind.LOST in kinds(judge(ledger.history, ledger.facts))


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 8)), max_size=8), st.data())
def test_the_order_is_judged_as_by_comparing_all_pairs(spans: list[tuple[int, int]], data: st.DataObject) -> None:
    """For any times and any order of the entries, the sweep and the definition agree on whether it is wrong."""
    ledger = Ledger()
    ledger.open("ann")
    places = data.draw(st.permutations(range(len(spans))))
    for place in places:
        begun, length = spans[place]
        ledger.tell(ledger.redeem(f"k{place}", "ann", 1), begun, begun + length)
    told = ledger.history  # in the order of their versions
    wrong = any(
        late.returned_at is not None and late.returned_at < early.invoked_at
        for version, early in enumerate(told)
        for late in told[version + 1 :]
    )
    assert kinds(judge(told, ledger.facts)) == ({Kind.ORDER} if wrong else set())


@settings(max_examples=50)
@given(ledgers(), st.data())
def test_no_rejection_with_a_balance_of_another_time_is_missed(ledger: Ledger, data: st.DataObject) -> None:
    """A rejection is wrong exactly if the account had its balance at no time that the client's times allow."""
    shown = [one for one in ledger.decisions if one.rejection == INSUFFICIENT]
    if not shown:
        return
    row = data.draw(st.sampled_from(shown))
    balances = [one.balance_after for one in ledger.entries if one.account_id == row.account_id]
    never = data.draw(st.integers(0, row.points - 1).filter(lambda number: number not in (0, *balances)) | st.none())
    if never is None:
        return
    ledger.decisions = [replace(one, balance=never) if one is row else one for one in ledger.decisions]
    assert kinds(judge(ledger.history, ledger.facts)) == {Kind.UNJUSTIFIED}


# --- the real thing ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def database() -> Iterator[LedgerDatabase]:
    """A ledger."""
    with ledger_database() as running:
        yield running


def test_nothing_is_lost_or_doubled_when_the_service_is_killed_at_work(database: LedgerDatabase) -> None:
    """Killed under load and started again, it has kept its word to every client, to those it left alone as well."""
    seed = int(os.environ.get("DRILL_SEED") or secrets.randbits(32))
    print(f"DRILL_SEED={seed}")  # noqa: T201 - pytest shows it when the test fails; set it to see the same again
    chance = random.Random(seed)  # noqa: S311 - repeatable on purpose
    accounts = tuple(f"guest-{seed}-{number}" for number in range(20))
    database.accrue(accounts, 30)  # so few that some are turned down, on a slow machine as well
    with service(database.url) as first:
        plan = Plan(
            accounts=accounts,
            choice="zipf",
            points=(1, 20),
            connections=16,
            seconds=2,
            timeout_seconds=5,
            headers=first.headers,
            record=True,
            seed=seed,
        )
        with loading(first.url, plan) as flow:
            time.sleep(chance.uniform(0.7, 1.3))
            first.process.kill()
            history = flow.report().history
    assert history is not None
    with service(database.url) as second:
        settled = resolve(history, second.url, headers=second.headers)

    violations = judge(settled, asyncio.run(read_facts(database.owner_url)), settled=True)
    assert violations == []
    assert history.of(Outcome.UNKNOWN)  # it was killed at work
    assert settled.of(Outcome.ACKNOWLEDGED)
    assert settled.of(Outcome.REJECTED)
    assert not settled.of(Outcome.UNKNOWN)
    # The judge is awake: without the first acknowledged one's row there would be a violation.
    forgotten = History((replace(settled.of(Outcome.ACKNOWLEDGED)[0], key="never-there"),))
    lost = judge(settled + forgotten, asyncio.run(read_facts(database.owner_url)))
    assert kinds(lost) == {Kind.LOST}
