"""Foreign Sloth specs into rules or definitions of ours."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from alerts import alertmanager, notifications, prometheus, runbooks
from alerts.sloth_import import read, to_python
from slo.artefacts import Artefact
from slo.check import Level, check
from slo.compile import CompiledSlo, compile_slo
from slo.errors import raise_if_any
from slo.settings import Settings


def definitions_text(file: Path) -> tuple[str, Sequence[str]]:
    """The spec as a Python module of definitions, and what its owner should know."""
    imported = read(file.read_text(), str(file))
    return to_python(imported.slos), imported.notes


def rules(file: Path, settings: Settings) -> tuple[list[Artefact], Sequence[str]]:
    """The spec's rules with their runbooks, and what its owner should know.

    Raises:
        SloError: The spec is wrong, or two of its SLOs get in each other's way.
    """
    imported = read(file.read_text(), str(file))
    compiled: list[CompiledSlo] = [compile_slo(slo) for slo in imported.slos]
    problems = [f"SLO {f.subject} {f.text}" for f in check(compiled) if f.level is Level.PROBLEM]
    raise_if_any(str(file), problems)
    return [
        *prometheus.render(compiled, settings.links),
        *alertmanager.render(compiled),
        *notifications.render(compiled, settings.links),
        *runbooks.render(compiled, settings.links),
    ], imported.notes
