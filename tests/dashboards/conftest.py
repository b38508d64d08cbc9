"""What the tests of the boards share: sets of definitions, and the boards that are generated for each."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

import pytest

from dashboards.render import render
from slo import Alert, CalendarMonth, CompiledSlo, Rolling, Severity, compile_slo
from slo.artefacts import Artefact
from slo.definitions import redemption
from slo.matrix import Definitions
from slo.settings import Links, everything, load
from tests.contract.places import ROOT

LINKS = Links(
    grafana="https://grafana.example.com",
    runbooks="https://docs.example.com/runbooks",
    traces="https://traces.example.com",
    logs="https://logs.example.com",
)

OURS = everything(load(ROOT / "pyproject.toml"))
ALL_OURS = tuple(compile_slo(slo) for slo in OURS.slos)

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


NOTHING_MORE = Definitions()


@dataclass(frozen=True)
class Generated:
    """Boards, and what they were generated from."""

    compiled: Sequence[CompiledSlo]
    artefacts: Sequence[Artefact]
    defined: Definitions = NOTHING_MORE

    @property
    def boards(self) -> dict[str, Any]:
        """Boards by uid, parsed anew, so that a test may change it."""
        boards = [json.loads(artefact.text) for artefact in self.artefacts if artefact.path.suffix == ".json"]
        return {board["uid"]: board for board in boards}

    @property
    def panels(self) -> list[dict[str, Any]]:
        """Every panel of every board; a heading is none."""
        return [panel for board in self.boards.values() for panel in panels_of(board)]


def panels_of(board: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The panels of a board, without its headings."""
    return [panel for panel in board["panels"] if panel["type"] != "row"]


def generate(compiled: Sequence[CompiledSlo], defined: Definitions = NOTHING_MORE) -> Generated:
    """The boards of these definitions."""
    return Generated(compiled, render(compiled, LINKS, defined), defined)


@pytest.fixture(params=["ours", "mixed"], scope="session")
def generated(request: pytest.FixtureRequest) -> Generated:
    """The boards of all that we define, and those of SLOs with every kind of period and nothing else."""
    return generate(ALL_OURS, OURS) if request.param == "ours" else generate(MIXED)
