"""May this change go out? The error-budget policy's answer, for a pipeline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from review.model import Budget
from slo.compile import CompiledSlo
from slo.policy import DEFAULT_POLICY, BudgetPolicy, Change, Step

DATA_AGE_MAX = timedelta(minutes=30)
"""Older figures are no answer: an outage that takes the metrics away would read as the budget before it."""

_RECORDED_SHARE_MIN = 0.95  # of the period; the rest is a restart here and there


class Answer(StrEnum):
    """May it go out?"""

    GO = "go"
    FROZEN = "frozen"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What one SLO says.

    Attributes:
        slo: `service/slo`.
        answer: Its answer.
        left: Share of its budget that is left; None when that is not known.
        reason: Why, as a sentence.
        tells: Who is told at this level of the budget.
    """

    slo: str
    answer: Answer
    left: float | None
    reason: str
    tells: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Decision:
    """What all SLOs say together.

    Attributes:
        change: The kind of change that was asked for.
        verdicts: One for each SLO, those that stand in the way first.
    """

    change: Change
    verdicts: tuple[Verdict, ...]

    @property
    def answer(self) -> Answer:
        """Frozen when one SLO says so; unknown when one is not known, or there is none; else go."""
        answers = {verdict.answer for verdict in self.verdicts}
        if Answer.FROZEN in answers:
            return Answer.FROZEN
        return Answer.UNKNOWN if Answer.UNKNOWN in answers or not answers else Answer.GO


def decide(  # noqa: PLR0913 - the last two have a default
    budgets: Mapping[str, Budget | None],
    compiled: Sequence[CompiledSlo],
    change: Change,
    at: float,
    *,
    policies: Mapping[str, BudgetPolicy] | None = None,
    warnings: Sequence[str] = (),
) -> Decision:
    """What the policies say to a change.

    Args:
        budgets: The budgets by SLO id.
        compiled: The SLOs that the change touches.
        change: Its kind.
        at: The moment of the question.
        policies: Policies by SLO id; the default one where there is none.
        warnings: What the source said about its own answers; with any, they are not trusted to be whole.
    """
    known = policies or {}
    verdicts = [
        _verdict(one, budgets.get(one.slo.id), known.get(one.slo.id, DEFAULT_POLICY), change, at, warnings)
        for one in compiled
    ]
    order = [Answer.FROZEN, Answer.UNKNOWN, Answer.GO]
    verdicts.sort(key=lambda verdict: (order.index(verdict.answer), verdict.slo))
    return Decision(change, tuple(verdicts))


def _verdict(  # noqa: PLR0913, PLR0917 - what the answer hangs on
    compiled: CompiledSlo,
    budget: Budget | None,
    policy: BudgetPolicy,
    change: Change,
    at: float,
    warnings: Sequence[str],
) -> Verdict:
    name = compiled.slo.id_path
    left = budget.left if budget else None
    if change is Change.FIX:
        return Verdict(slo=name, answer=Answer.GO, left=left, reason="Fixes are never frozen.")
    unknown = _why_unknown(budget, at, warnings)
    if budget is None or unknown:
        return Verdict(slo=name, answer=Answer.UNKNOWN, left=left, reason=unknown or "")
    step = policy.in_force(budget.left)
    if step is None:
        return Verdict(slo=name, answer=Answer.GO, left=left, reason=f"{_left(budget)}.")
    frozen = change in step.freezes
    return Verdict(
        slo=name,
        answer=Answer.FROZEN if frozen else Answer.GO,
        left=left,
        reason=_reason(budget, step, change, frozen=frozen),
        tells=tuple(compiled.slo.owner if who == "owner" else who for who in step.tells),
    )


def _why_unknown(budget: Budget | None, at: float, warnings: Sequence[str]) -> str | None:
    if warnings:
        return f"The answers may be partial: {warnings[0]}"
    if budget is None:
        return "There is no data in the whole period."
    if at - budget.last_recorded_at > DATA_AGE_MAX.total_seconds():
        newest = datetime.fromtimestamp(budget.last_recorded_at, UTC).strftime("%d %b %H:%M UTC")
        return f"There is no data since {newest}."
    return None


def _reason(budget: Budget, step: Step, change: Change, *, frozen: bool) -> str:
    level = "the whole budget is gone" if step.left == 0 else f"{_percent(float(step.left))} or less is left"
    what = f"{change} changes are frozen" if frozen else f"{change} changes may go out"
    return f"{_left(budget)}: as {level}, {what}. {step.text}"


def _left(budget: Budget) -> str:
    """What is left, and what else a reader must know of it."""
    remarks = []
    if budget.spent != budget.spent_unadjusted:
        remarks.append(f"without adjustments {_percent(1 - budget.spent_unadjusted)}")
    if budget.recorded < _RECORDED_SHARE_MIN:
        remarks.append(f"known of {_percent(budget.recorded)} of the period")
    return f"{_percent(budget.left)} of the budget is left" + (f" ({', '.join(remarks)})" if remarks else "")


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
