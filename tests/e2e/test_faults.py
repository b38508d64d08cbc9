"""Every fault, under load, with every part real: no acknowledged redemption is lost, and none happens twice."""

from __future__ import annotations

import pytest

from drills.faults import FAULTS, SEED_VARIABLE, drill, seed_of_environment

pytestmark = [pytest.mark.e2e, pytest.mark.drill]


@pytest.mark.parametrize("name", FAULTS)
def test_no_promise_is_broken(name: str) -> None:
    """After the fault, and after every open request was asked again, each promise is kept once, and the ledger fits."""
    seed = seed_of_environment()
    print(f"{SEED_VARIABLE}={seed}")  # noqa: T201 - pytest shows it when the test fails; set it to see the same again
    verdict = drill(FAULTS[name], seed)
    assert list(verdict.violations) == []
    assert len(verdict.history) > 50
    assert verdict.first.total() == len(verdict.history)
