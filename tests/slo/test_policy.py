"""The error-budget policy as data."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from slo.errors import SloError
from slo.policy import DEFAULT_POLICY, BudgetPolicy, Change, Step


def step(**values: Any) -> Step:  # noqa: ANN401 - any field
    """A sound step, but for the given values."""
    return Step(**{"left": Decimal("0.5"), "tells": ["owner"], "text": "Look.", **values})


def test_nothing_freezes_while_half_is_left() -> None:
    """Above all steps there is none in force; at one it is."""
    assert DEFAULT_POLICY.in_force(0.51) is None
    at_half = DEFAULT_POLICY.in_force(0.5)
    assert at_half is not None
    assert at_half.freezes == ()


@pytest.mark.parametrize(
    ("left", "frozen"),
    [
        (0.26, set()),
        (0.25, {Change.RISKY}),
        (0.01, {Change.RISKY}),
        (0, {Change.RISKY, Change.FEATURE}),
        (-2, {Change.RISKY, Change.FEATURE}),
    ],
)
def test_the_default_freezes_more_as_less_is_left(left: float, frozen: set[Change]) -> None:
    """Risky changes from a quarter on, all that is new when the budget is gone, and never a fix."""
    in_force = DEFAULT_POLICY.in_force(left)
    assert in_force is not None
    assert set(in_force.freezes) == frozen


@pytest.mark.parametrize(
    ("values", "fault"),
    [
        ({"left": Decimal(1)}, "at least 0 and below 1"),
        ({"left": Decimal("-0.1")}, "at least 0 and below 1"),
        ({"left": Decimal("NaN")}, "must be a Decimal"),
        ({"left": 0.5}, "must be a Decimal"),
        ({"tells": []}, "tells nobody"),
        ({"tells": [" "]}, "tells nobody"),
        ({"text": " "}, "the text is empty"),
        ({"freezes": [Change.FIX]}, "freezes fixes"),
        ({"freezes": ["feature"]}, "use Change.RISKY or Change.FEATURE"),
    ],
)
def test_a_wrong_step_is_refused(values: dict[str, Any], fault: str) -> None:
    """Where it is written, with what is allowed."""
    with pytest.raises(SloError, match=fault):
        step(**values)


@pytest.mark.parametrize(
    ("steps", "fault"),
    [
        ([], "never acts"),
        (["owner"], "must be values of Step"),
        ([step(), step()], "order them from the highest down"),
        ([step(left=Decimal(0)), step()], "order them from the highest down"),
        ([step(freezes=[Change.RISKY]), step(left=Decimal(0))], "allows risky changes that the one at 0.5 freezes"),
    ],
)
def test_a_wrong_policy_is_refused(steps: list[Any], fault: str) -> None:
    """Steps descend, and none allows what one before it froze."""
    with pytest.raises(SloError, match=fault):
        BudgetPolicy(steps)


def test_a_policy_is_a_value() -> None:
    """Lists that it was made of may change; it does not, and equals its like."""
    tells = ["owner"]
    one = step(tells=tells)
    tells.append("all")
    assert one.tells == ("owner",)
    assert one == step()
    assert hash(BudgetPolicy([one])) == hash(BudgetPolicy([step()]))
