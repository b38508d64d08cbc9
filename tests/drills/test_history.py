"""A past that was written is one that rules can read."""

from __future__ import annotations

from pathlib import Path

import pytest

from drills import history
from drills.harness import HarnessError, process, prometheus
from slo import conventions as names
from slo.compile import CompiledSlo, compile_slo
from slo.definitions.redemption import availability, latency_fast
from slo.windows import policy


def compiled(divisor: int = 60) -> CompiledSlo:
    """The availability, scaled: 30 days become 12 hours."""
    return compile_slo(availability, policy(availability.window).scaled(divisor))


@pytest.mark.e2e
def test_a_past_is_read_by_the_rules_own_expressions(tmp_path: Path) -> None:
    """Events per second over the period are those that were written, without a gap, and none of them was bad."""
    one = compiled()
    two = compile_slo(latency_fast, policy(latency_fast.window).scaled(60))
    data = history.write(tmp_path / "data", {one: 20.0, two: 10.0})
    coarse = {
        record: names.coarse(record, one.policy.coarse_interval, one.policy.base)
        for record in (names.ALL_EVENTS, names.BAD_EVENTS)
    }
    with prometheus(data=data) as metrics:
        for slo, rate in ((one, 20.0), (two, 10.0)):
            for record, value in ((names.ALL_EVENTS, rate), (names.BAD_EVENTS, 0.0)):
                series = slo.named(coarse[record])
                assert metrics.value(f"avg_over_time({series}[12h])") == value
                # 12 hours of a sample each 5 seconds; those written while the test started may have left the window.
                count = metrics.value(f"count_over_time({series}[12h])")
                assert count is not None
                assert 8620 <= count <= 8640
                assert metrics.value(f"avg_over_time({slo.named(record, slo.policy.base)}[6m])") == value


@pytest.mark.e2e
def test_promtools_refusal_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What promtool says about a file that it does not take is in the error."""
    monkeypatch.setattr(history, "_lines", lambda *_: ["nonsense\n"])
    with pytest.raises(HarnessError, match=r"promtool wrote no past: .*"):
        history.write(tmp_path / "data", {})


def test_a_missing_promtool_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is written."""
    monkeypatch.setattr(process, "TOOLS", tmp_path)
    with pytest.raises(HarnessError, match="promtool is missing"):
        history.write(tmp_path / "data", {compiled(): 1.0})
    assert not (tmp_path / "data").exists()
