"""All alarms of all definitions, in the order in which they can be made."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

from alerts.cloudwatch import burn, rollups
from alerts.cloudwatch.burn import Place
from alerts.cloudwatch.causes import cause_alarms
from alerts.cloudwatch.model import Alarm, CompositeAlarm
from alerts.cloudwatch.sources import source_of
from alerts.cloudwatch.validate import problems
from slo.causes import Cause
from slo.cloudwatch import CloudWatchSettings
from slo.compile import AlertKind, CompiledSlo
from slo.errors import SloError, raise_if_any
from slo.settings import Settings
from slo.windows import Severity


def plan(compiled: Sequence[CompiledSlo], causes: Sequence[Cause], settings: Settings) -> tuple[Alarm, ...]:
    """Every alarm, of every region; what an alarm reads comes before it.

    Raises:
        SloError: There is no [tool.slo.cloudwatch], or AWS would refuse an alarm; all faults are named.
    """
    place = Place(settings=of(settings), links=settings.links)
    alarms = tuple(_alarms(compiled, causes, place))
    raise_if_any("CloudWatch", problems(alarms))
    return alarms


def of(settings: Settings) -> CloudWatchSettings:
    """`[tool.slo.cloudwatch]`.

    Raises:
        SloError: There is none.
    """
    if settings.cloudwatch is None:
        raise SloError("settings", ["there is no [tool.slo.cloudwatch] table, so no alarms for CloudWatch"])
    return settings.cloudwatch


def uncovered(compiled: Sequence[CompiledSlo], settings: Settings) -> tuple[CompiledSlo, ...]:
    """The SLOs whose events CloudWatch does not have: only Prometheus alerts on them."""
    return tuple(one for one in compiled if one.slo.alerts and source_of(one.slo, of(settings)) is None)


def _alarms(compiled: Sequence[CompiledSlo], causes: Sequence[Cause], place: Place) -> Iterator[Alarm]:
    of_component: defaultdict[str, list[Alarm]] = defaultdict(list)
    absences: defaultdict[tuple[str, Severity], list[str]] = defaultdict(list)
    for one in compiled:
        source = source_of(one.slo, place.settings)
        if source is None:
            continue
        of_slo = burn.slo_alarms(one, source, place)
        yield from of_slo
        yield from rollups.zones(one, source, place)
        of_component[one.slo.service] += [alarm for alarm in of_slo if isinstance(alarm, CompositeAlarm)]
        absent = burn.absent_name(one, place.settings.prefix)
        if any(alarm.name == absent for alarm in of_slo):
            severity = next(alert.severity for alert in one.alerts if alert.kind is AlertKind.ABSENT)
            absences[one.slo.service, severity].append(absent)
    for cause in causes:
        of_cause = cause_alarms(cause, place)
        yield from of_cause
        of_component[cause.component] += of_cause
    yield from rollups.silent(absences, place)
    components: list[str] = []
    for name, alarms in sorted(of_component.items()):
        # An alarm reads alarms of its own region only.
        near = [alarm.name for alarm in alarms if alarm.region == place.settings.region]
        if near:
            *_, last = made = tuple(rollups.component(name, near, place))
            yield from made
            components.append(last.name)
    if components:
        yield from rollups.health(components, place)
