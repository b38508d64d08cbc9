"""All renderers, in one list."""

from __future__ import annotations

from collections.abc import Sequence

from alerts import alertmanager, openslo, prometheus, runbooks, sloth
from dashboards import render as dashboards
from slo import catalogue
from slo.artefacts import Artefact
from slo.compile import CompiledSlo
from slo.settings import Settings


def artefacts(compiled: Sequence[CompiledSlo], settings: Settings) -> list[Artefact]:
    """Everything that `slo generate` writes."""
    return [
        *catalogue.render(compiled),
        *prometheus.render(compiled, settings.links),
        *alertmanager.render(compiled),
        *runbooks.render(compiled, settings.links),
        *dashboards.render(compiled, settings.links),
        *sloth.render(compiled),
        *openslo.render(compiled),
    ]
