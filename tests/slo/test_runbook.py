"""What only people know of a promise: whole, or refused; and asked for where it is ours."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from slo import SloError, compile_slo
from slo.check import Level, check
from slo.runbook import Runbook, Step
from slo.settings import definitions, load
from tests.contract.places import ROOT

OURS = definitions(load(ROOT / "pyproject.toml"))
STEP = Step("Undo the release", "one was made", "its fixes go too")


def _runbook(**changes: Any) -> Runbook:  # noqa: ANN401 - any field of any type
    whole: dict[str, Any] = {
        "impact": "Guests wait.",
        "diagnosis": ("uptime  # is it loaded?",),
        "mitigation": (STEP,),
        "escalation": "Call the owner.",
    }
    return Runbook(**{**whole, **changes})


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"impact": "Guests wait"}, "the impact must be one or more sentences that end with a full stop"),
        ({"escalation": ""}, "the escalation must be one or more sentences that end with a full stop"),
        ({"diagnosis": ()}, "there is no diagnosis; give at least one command"),
        ({"mitigation": ()}, "there is no mitigation; give at least one step"),
        ({"diagnosis": ("uptime",)}, "the command 'uptime' needs what it tells, as in `uptime  # is it loaded?`"),
    ],
)
def test_a_runbook_that_leaves_something_out_is_refused(changes: dict[str, Any], problem: str) -> None:
    """Where it is written, with what is missing."""
    with pytest.raises(SloError) as raised:
        _runbook(**changes)
    assert raised.value.problems == (problem,)


def test_a_step_says_when_and_at_what_risk() -> None:
    """A step without its risk is refused."""
    with pytest.raises(SloError, match="step 'Restart': the risk is empty; a responder needs what to do, when"):
        Step("Restart", "always", " ")


def test_a_promise_of_ours_without_a_runbook_is_a_problem() -> None:
    """One that has a component and tells somebody; one from elsewhere has none and may go without."""
    ours = next(slo for slo in OURS if slo.id == "redemption-latency-fast")
    bare = replace(ours, runbook=None)
    (finding,) = check([compile_slo(bare)])
    assert (finding.level, finding.subject) == (Level.PROBLEM, "redemption/latency-fast")
    assert finding.text == "it alerts, and says nothing for a responder; give it runbook=Runbook(impact=..., ...)"
    assert check([compile_slo(replace(bare, runbook=_runbook()))]) == ()
    assert check([compile_slo(replace(bare, alerts=()))]) == ()
    assert check([compile_slo(replace(bare, component=None, signals=()))]) == ()


def test_every_promise_of_ours_has_one_of_its_own() -> None:
    """No two say the same to users: what is copied was not thought of."""
    impacts = [slo.runbook.impact for slo in OURS if slo.runbook is not None]
    assert len(impacts) == len(OURS) == len(set(impacts))
