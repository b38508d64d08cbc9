"""All renderers, in one list."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from alerts import alertmanager, canary, cloudwatch, notifications, openslo, prometheus, runbooks, site, sloth
from alerts.alarms import linked
from alerts.cloudwatch import cost
from cli.spread import spread
from dashboards import render as dashboards
from slo import catalogue, catalogue_page
from slo.artefacts import Artefact
from slo.compile import CompiledSlo
from slo.matrix import Definitions
from slo.settings import Settings

_NOTHING_MORE = Definitions()


def artefacts(
    compiled: Sequence[CompiledSlo], settings: Settings, defined: Definitions = _NOTHING_MORE
) -> list[Artefact]:
    """Everything that `slo generate` writes.

    Args:
        compiled: The SLOs.
        settings: Where links lead.
        defined: The causes of the same definitions, and what the catalogue says of them.
    """
    settings = linked(settings, compiled, defined.causes)
    pages = runbooks.render(compiled, settings.links, defined)
    # Rules are by far the most text.
    rules = spread(partial(prometheus.render_slo, links=settings.links), compiled)
    return [
        *catalogue.render(compiled, defined.causes),
        *catalogue_page.render(compiled, defined, _cost(compiled, settings, defined)),
        *(artefact for of_slo in rules for artefact in of_slo),
        *prometheus.render_causes(defined.causes, settings.links),
        *prometheus.render_platform(settings.links),
        *alertmanager.render(compiled),
        *notifications.render(compiled, settings.links),
        *cloudwatch.render(compiled, defined.causes, settings),
        *pages,
        *site.render(pages),
        *dashboards.render(compiled, settings.links, defined),
        *canary.render(compiled),
        *sloth.render(compiled),
        *openslo.render(compiled),
    ]


def _cost(compiled: Sequence[CompiledSlo], settings: Settings, defined: Definitions) -> catalogue_page.Cost | None:
    """What an SLO's alarms in CloudWatch cost; None where there are none at all."""
    if settings.cloudwatch is None:
        return None
    alarms = cloudwatch.plan(compiled, defined.causes, settings)
    unseen = {one.slo.id for one in cloudwatch.uncovered(compiled, settings)}
    return lambda one: (
        "none: CloudWatch does not know it" if one.slo.id in unseen else cost.of_slo(one.slo.id, alarms).text
    )
