"""All renderers, in one list."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from alerts import alertmanager, openslo, prometheus, runbooks, sloth
from cli.spread import spread
from dashboards import render as dashboards
from slo import catalogue
from slo.artefacts import Artefact
from slo.compile import CompiledSlo
from slo.settings import Settings


def artefacts(compiled: Sequence[CompiledSlo], settings: Settings) -> list[Artefact]:
    """Everything that `slo generate` writes."""
    # Rules are by far the most text.
    rules = spread(partial(prometheus.render_slo, links=settings.links), compiled)
    return [
        *catalogue.render(compiled),
        *(artefact for of_slo in rules for artefact in of_slo),
        *prometheus.render_platform(settings.links),
        *alertmanager.render(compiled),
        *runbooks.render(compiled, settings.links),
        *dashboards.render(compiled, settings.links),
        *sloth.render(compiled),
        *openslo.render(compiled),
    ]
