"""What the tests of the boards share: two sets of SLOs, and the boards that are generated for each."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

import pytest

from dashboards.render import render
from slo import Alert, CalendarMonth, CompiledSlo, Rolling, Severity, compile_slo
from slo.artefacts import Artefact
from slo.definitions import redemption
from slo.settings import Links

LINKS = Links(
    grafana="https://grafana.example.com",
    runbooks="https://docs.example.com/runbooks",
    traces="https://traces.example.com",
    logs="https://logs.example.com",
)

SHIPPED = tuple(
    compile_slo(slo)
    for slo in (redemption.availability, redemption.latency_fast, redemption.latency_slow, redemption.settlement)
)

# Every kind of period at once: 28 days have other factors, a month has other series, a day has fewer windows.
MIXED = (
    *SHIPPED,
    compile_slo(replace(redemption.availability, name="four-weeks", window=Rolling(days=28))),
    compile_slo(replace(redemption.availability, name="month", window=CalendarMonth())),
    compile_slo(replace(redemption.availability, name="day", window=Rolling(days=1), alerts=(Alert(Severity.PAGE),))),
    compile_slo(replace(redemption.availability, name="exact", objective=Decimal("99.999"))),
)


@dataclass(frozen=True)
class Generated:
    """Boards, and what they were generated from."""

    compiled: Sequence[CompiledSlo]
    artefacts: Sequence[Artefact]

    @property
    def boards(self) -> dict[str, Any]:
        """Boards by uid, parsed anew, so that a test may change it."""
        boards = [json.loads(artefact.text) for artefact in self.artefacts]
        return {board["uid"]: board for board in boards}

    @property
    def panels(self) -> list[dict[str, Any]]:
        """Every panel of every board."""
        return [panel for board in self.boards.values() for panel in board["panels"]]


@pytest.fixture(params=[SHIPPED, MIXED], ids=["shipped", "mixed"])
def generated(request: pytest.FixtureRequest) -> Generated:
    """The boards of the shipped SLOs, and those of SLOs with every kind of period."""
    return Generated(request.param, render(request.param, LINKS))
