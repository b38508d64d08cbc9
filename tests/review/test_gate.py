"""May this change go out? No data and no answer are not a go."""

from __future__ import annotations

import math
from collections.abc import Sequence
from decimal import Decimal

import pytest

from review.budget import measure
from review.gate import Answer, decide
from review.model import Budget, Span
from slo.policy import BudgetPolicy, Change, Step
from tests.review.making import BEGIN, STEP, budget, period, promise, windows

END = BEGIN + 4 * STEP


def left(share: float) -> Budget:
    """A budget of four bad events of which a share is left."""
    bad = 4 * (1 - share)
    return budget(promise(), windows([1_000.0] * 4, [bad, 0.0, 0.0, 0.0]))


def answer(
    share: float | None, change: Change = Change.FEATURE, at: float = END, warnings: Sequence[str] = ()
) -> Answer:
    """The answer when a share of the budget is left; None: no data."""
    budgets = {promise().slo.id: None if share is None else left(share)}
    return decide(budgets, [promise()], change, at, warnings=warnings).answer


@pytest.mark.parametrize(
    ("share", "change", "expected"),
    [
        (0.6, Change.RISKY, Answer.GO),
        (0.4, Change.RISKY, Answer.GO),
        (0.2, Change.RISKY, Answer.FROZEN),
        (0.2, Change.FEATURE, Answer.GO),
        (0.0, Change.FEATURE, Answer.FROZEN),
        (-3.0, Change.FEATURE, Answer.FROZEN),
        (-3.0, Change.FIX, Answer.GO),
    ],
)
def test_the_policy_decides(share: float, change: Change, expected: Answer) -> None:
    """By what is left, and by what wants to go out."""
    assert answer(share, change) is expected


def test_no_data_is_no_go() -> None:
    """Nor is data that ended, nor an answer that may be partial; a fix goes out all the same."""
    assert answer(None) is Answer.UNKNOWN
    assert answer(0.9, at=END + 1_801) is Answer.UNKNOWN
    assert answer(0.9, at=END + 1_799) is Answer.GO
    assert answer(0.9, warnings=["store 2 does not answer"]) is Answer.UNKNOWN
    assert answer(None, Change.FIX) is Answer.GO
    assert decide({}, [], Change.FEATURE, END).answer is Answer.UNKNOWN


def test_one_frozen_promise_freezes_the_change() -> None:
    """Those that stand in the way come first, and each says why and who is told."""
    good, gone, silent = promise(name="good"), promise(name="gone"), promise(name="silent")
    budgets = {good.slo.id: left(0.9), gone.slo.id: left(-0.5), silent.slo.id: None}
    decision = decide(budgets, [good, gone, silent], Change.FEATURE, END)
    assert decision.answer is Answer.FROZEN
    assert [one.answer for one in decision.verdicts] == [Answer.FROZEN, Answer.UNKNOWN, Answer.GO]
    first = decision.verdicts[0]
    assert "-50.0 % of the budget is left" in first.reason
    assert first.tells == ("loyalty-sre", "product management", "engineering management")


def test_a_definition_may_bring_its_own_policy() -> None:
    """It stands in place of the default."""
    strict = BudgetPolicy([Step(left=Decimal("0.9"), tells=["owner"], freezes=[Change.FEATURE], text="Stop.")])
    budgets = {promise().slo.id: left(0.85)}
    decision = decide(budgets, [promise()], Change.FEATURE, END, policies={promise().slo.id: strict})
    assert decision.answer is Answer.FROZEN


def test_an_adjustment_shows_in_the_reason() -> None:
    """A go that hangs on an agreement says so."""
    of = windows([1_000.0] * 4, [9.0, 1.8, 0.0, 0.0])
    measured = measure(promise(), of, [Span(BEGIN, BEGIN + STEP)], period(of))
    decision = decide({promise().slo.id: measured}, [promise()], Change.FEATURE, END)
    assert decision.answer is Answer.GO
    assert "(without adjustments -170.0 %)" in decision.verdicts[0].reason


@pytest.mark.parametrize(
    ("known", "said"), [(2, "100.0 % of the budget is left (known of 50.0 % of the period)."), (4, "is left.")]
)
def test_a_go_says_of_how_much_of_the_period_it_knows(known: int, said: str) -> None:
    """A promise may be new, or a store forgotten; all of the period is not worth a word."""
    missing = [math.nan] * (4 - known)
    measured = budget(promise(), windows([*missing, *[1_000.0] * known], [*missing, *[0.0] * known]))
    decision = decide({promise().slo.id: measured}, [promise()], Change.FEATURE, END)
    assert decision.answer is Answer.GO
    assert decision.verdicts[0].reason.endswith(said)
