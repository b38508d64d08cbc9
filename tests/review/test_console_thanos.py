"""The console says through Thanos what it says through Prometheus."""

from __future__ import annotations

from pathlib import Path

import pytest

from drills.harness import thanos_query, thanos_sidecar, wait_until
from review.connection import Connection
from review.console.live import Now, Source, spans
from tests.review.console_live import BURNING, PAGE, watched

pytestmark = pytest.mark.cluster


def told(now: Now) -> tuple[list[tuple[str, str]], set[tuple[str, str]]]:
    """States in their order, and where the alerts that fire lead."""
    links = {(alert.name, alert.annotations["runbook_url"]) for alert in now.alerts if alert.firing}
    return [(one.compiled.slo.id, one.state) for one in now.slos], links


def test_thanos_query_is_as_good_as_prometheus(tmp_path: Path) -> None:
    """The same states in the same order, the same alerts with their links; figures and history but for the moment."""
    with watched(tmp_path) as live, thanos_sidecar(live.server) as sidecar, thanos_query(sidecar) as querier:
        through = Source(Connection(url=querier.metrics.url))
        wait_until("Thanos knows the alerts", lambda: bool(through.now(live.slos).alerts), 30)
        direct, told_by_thanos = live.source.now(live.slos), through.now(live.slos)
        assert told(told_by_thanos) == told(direct)
        assert PAGE in {name for name, _ in told(direct)[1]}
        assert told_by_thanos.notes == ()
        for one, other in zip(direct.slos, told_by_thanos.slos, strict=True):
            assert other.left == (one.left if one.left is None else pytest.approx(one.left, rel=0.1))
            assert set(other.burns) == set(one.burns)
            assert other.late_seconds is None
        length = spans(BURNING)["1m"]
        ours, theirs = live.source.history(BURNING, length), through.history(BURNING, length)
        assert theirs.good_share[-1][1] == pytest.approx(ours.good_share[-1][1], rel=0.05)
        assert set(theirs.burns) == set(ours.burns)
        assert all(theirs.burns.values())
