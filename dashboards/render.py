"""Boards as files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import PurePosixPath

from dashboards import overview, slo_detail
from dashboards.modern import modern
from slo.artefacts import Artefact
from slo.compile import CompiledSlo
from slo.settings import Links


def render(compiled: Sequence[CompiledSlo], links: Links) -> list[Artefact]:
    """The overview of all SLOs and the board of one; none without SLOs, as there is nothing to look at.

    Args:
        compiled: The SLOs.
        links: Where runbooks are.
    """
    if not compiled:
        return []
    boards = (overview.board(compiled), slo_detail.board(compiled, links))
    return [_artefact(board.uid, modern(board)) for board in boards]


def _artefact(uid: str, board: dict[str, object]) -> Artefact:
    text = json.dumps(board, sort_keys=True, indent=2, ensure_ascii=False) + "\n"
    return Artefact(PurePosixPath("grafana") / f"{uid}.json", text)
