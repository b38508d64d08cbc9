"""Boards as files, and the files by which Grafana finds them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath

from grafanalib.core import Dashboard

from dashboards import components, compose, flash_sale, overview, platform, provisioning, slo_detail
from dashboards.modern import modern
from slo.artefacts import Artefact
from slo.causes import Component
from slo.compile import CompiledSlo
from slo.matrix import Definitions
from slo.settings import Links

_NOTHING_MORE = Definitions()


def render(compiled: Sequence[CompiledSlo], links: Links, defined: Definitions = _NOTHING_MORE) -> list[Artefact]:
    """All boards and what provisions them; none without SLOs, as there is nothing to look at.

    Args:
        compiled: The SLOs.
        links: Where runbooks, traces and logs are.
        defined: Causes and sources of the same definitions; a component that has sources has a board.
    """
    if not compiled:
        return []
    boards = list(_boards(compiled, links, defined))
    uids = [str(board.uid) for board in boards]
    artefacts = [*(_artefact(board) for board in boards), *provisioning.render(uids, links)]
    return [*artefacts, *compose.render()] if Component.SERVICE in components.components_of(defined) else artefacts


def _boards(compiled: Sequence[CompiledSlo], links: Links, defined: Definitions) -> Iterator[Dashboard]:
    yield overview.board_of(compiled, defined, links)
    yield slo_detail.board_of(compiled, defined, links)
    of = components.components_of(defined)
    for component in of:
        yield components.board_of(component, compiled, defined, links)
    if Component.SERVICE in of:
        yield flash_sale.board_of(defined, links)
    yield platform.board_of(defined, links)


def _artefact(board: Dashboard) -> Artefact:
    text = json.dumps(modern(board), sort_keys=True, indent=2, ensure_ascii=False) + "\n"
    return Artefact(PurePosixPath("grafana") / f"{board.uid}.json", text)
