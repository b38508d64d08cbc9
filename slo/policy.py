"""The error-budget policy as data: how much is left, who is told, and what may no longer be shipped.

After the example policy of the SRE Workbook (sre.google/workbook/error-budget-policy): while budget is left, teams
ship; once it is gone, only what makes the service better goes out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum

from slo.errors import SloError, raise_if_any


class Change(StrEnum):
    """What kind of change wants to go out."""

    RISKY = "risky"  # migrations, experiments, load tests, changes of infrastructure
    FEATURE = "feature"  # everything else that is new
    FIX = "fix"  # makes the service better, or safe; never frozen, as nothing else earns the budget back


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What holds from a level of the budget downwards.

    Attributes:
        left: Share of the budget, at least 0 and below 1; the step is in force when so much or less is left.
        tells: Who is told, in words or as names of teams; `owner` stands for the SLO's owner.
        freezes: The kinds of change that may not go out.
        text: What is to be done, as a sentence.

    Raises:
        SloError: A value is not allowed.
    """

    left: Decimal
    tells: Sequence[str]
    freezes: Sequence[Change] = ()
    text: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "tells", tuple(self.tells))
        object.__setattr__(self, "freezes", tuple(self.freezes))
        raise_if_any(f"step of an error-budget policy at {self.left}", self._problems())

    def _problems(self) -> Iterator[str]:
        if not isinstance(self.left, Decimal) or not self.left.is_finite():
            yield f"left={self.left!r} must be a Decimal, Decimal('0.25') say"
        elif not 0 <= self.left < 1:
            yield f"left={self.left} is not allowed; it is a share of the budget, at least 0 and below 1"
        if not self.tells or not all(isinstance(who, str) and who.strip() for who in self.tells):
            yield "tells nobody; name at least one, 'owner' say"
        for change in self.freezes:
            if not isinstance(change, Change):
                yield f"freezes {change!r}; use Change.RISKY or Change.FEATURE"
            elif change is Change.FIX:
                yield "freezes fixes, and nothing else could earn the budget back; leave Change.FIX out"
        if not self.text.strip():
            yield "the text is empty; say what is to be done"


@dataclass(frozen=True, slots=True)
class BudgetPolicy:
    """Steps, from the highest level of the budget to the lowest.

    Attributes:
        steps: At least one. Each is stricter than the one before, or as strict.

    Raises:
        SloError: A value is not allowed; the message names every fault.
    """

    steps: Sequence[Step]

    def __post_init__(self) -> None:
        object.__setattr__(self, "steps", tuple(self.steps))
        if not all(isinstance(step, Step) for step in self.steps):
            raise SloError("error-budget policy", ["the steps must be values of Step"])
        raise_if_any("error-budget policy", self._problems())

    def _problems(self) -> Iterator[str]:
        if not self.steps:
            yield "there is no step; a policy that never acts is none"
        for before, after in zip(self.steps, self.steps[1:], strict=False):
            if after.left >= before.left:
                yield f"the step at {after.left} follows that at {before.left}; order them from the highest down"
            for change in sorted(set(before.freezes) - set(after.freezes)):
                yield f"the step at {after.left} allows {change} changes that the one at {before.left} freezes"

    def in_force(self, left: float | Decimal) -> Step | None:
        """The strictest step that holds when this share of the budget is left; None above all of them."""
        holding = [step for step in self.steps if left <= step.left]
        return holding[-1] if holding else None


DEFAULT_POLICY = BudgetPolicy(
    [
        Step(
            left=Decimal("0.5"),
            tells=["owner"],
            text="Look at what spent it in the weekly review.",
        ),
        Step(
            left=Decimal("0.25"),
            tells=["owner", "product management"],
            freezes=[Change.RISKY],
            text="Nothing risky goes out, and the causes of the largest incidents come first in the next sprint.",
        ),
        Step(
            left=Decimal(0),
            tells=["owner", "product management", "engineering management"],
            freezes=[Change.RISKY, Change.FEATURE],
            text="Only what makes the service better goes out, until the budget is back.",
        ),
    ]
)
"""What holds where a definition brings no policy of its own."""
