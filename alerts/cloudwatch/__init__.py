"""The same promises as CloudWatch alarms: a second way to whoever must know, which needs no Prometheus.

`plan` has every alarm as a value; `render` writes them as CloudFormation. docs/cloudwatch.md says how they were proved.
"""

from __future__ import annotations

from collections.abc import Sequence

from alerts.cloudwatch import amp, cloudformation, dashboard
from alerts.cloudwatch.plan import of, plan, uncovered
from slo.artefacts import Artefact
from slo.causes import Cause
from slo.compile import CompiledSlo
from slo.settings import Settings

__all__ = ["plan", "render", "uncovered"]


def render(compiled: Sequence[CompiledSlo], causes: Sequence[Cause], settings: Settings) -> list[Artefact]:
    """Templates of the topics, the alarms, the dashboard, and of the rules for Amazon's Prometheus.

    Without a `[tool.slo.cloudwatch]` table there are none.

    Raises:
        SloError: AWS would refuse an alarm, or the settings do not say where its metrics are; all faults are named.
    """
    if settings.cloudwatch is None:
        return []
    alarms = plan(compiled, causes, settings)
    where = of(settings)
    return [
        *cloudformation.render(alarms, where),
        *dashboard.render(compiled, alarms, where),
        *amp.render(compiled, causes, settings.links),
    ]
