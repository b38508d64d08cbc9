"""The twin of each alert in CloudWatch, for links: which alarm watches the same, and where its page is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from alerts import consoles
from alerts.cloudwatch.burn import Place, absent_name, burn_names
from alerts.cloudwatch.causes import cause_alarms
from alerts.cloudwatch.sources import Counted, source_of
from slo.causes import Cause
from slo.cloudwatch import CloudWatchSettings
from slo.compile import AlertKind, CompiledSlo
from slo.settings import Links, Settings


def linked(settings: Settings, compiled: Sequence[CompiledSlo], causes: Sequence[Cause]) -> Settings:
    """The settings with the pages of all alarms among their links.

    Without `[tool.slo.cloudwatch]` there are no alarms, and without a region among the links no console of AWS.
    """
    links, where = settings.links, settings.cloudwatch
    if where is None or not links.region:
        return settings
    pages = dict(_of_slos(compiled, links, where)) | dict(_of_causes(causes, links, where))
    return replace(settings, links=replace(links, alarms=pages))


def _of_slos(compiled: Sequence[CompiledSlo], links: Links, where: CloudWatchSettings) -> Iterator[tuple[str, str]]:
    """The alarm on the fastest windows of each alert: the slower ones stand beside it in the console's list."""
    for one in compiled:
        source = source_of(one.slo, where)
        if source is None:
            continue
        burning = burn_names(one, where.prefix)
        for alert in one.alerts:
            if alert.kind is AlertKind.BURN:
                yield alert.name, consoles.cloudwatch_alarm(links.logs, source.region, burning[alert.pairs[0]])
            elif isinstance(source, Counted) and source.published:
                yield alert.name, consoles.cloudwatch_alarm(links.logs, source.region, absent_name(one, where.prefix))


def _of_causes(causes: Sequence[Cause], links: Links, where: CloudWatchSettings) -> Iterator[tuple[str, str]]:
    """The alarm, or a list of them where each resource has one of its own."""
    for cause in causes:
        alarms = cause_alarms(cause, Place(settings=where, links=links))
        if len(alarms) == 1:
            yield cause.alert_name, consoles.cloudwatch_alarm(links.logs, alarms[0].region, alarms[0].name)
        elif alarms:
            search = f"{where.prefix}{cause.alert_name}-"
            yield cause.alert_name, consoles.cloudwatch_alarms(links.logs, alarms[0].region, search)
