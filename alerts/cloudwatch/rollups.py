"""Alarms on alarms: a service that fell silent, a component that is not well, and one zone that fails alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from decimal import Decimal

from alerts.cloudwatch import queries
from alerts.cloudwatch.burn import COMPONENT_TAG, MANAGED_BY, Place, any_of, described, tags_of
from alerts.cloudwatch.model import Alarm, AllOf, AtLeast, CompositeAlarm, MetricAlarm, Not, State
from alerts.cloudwatch.sources import Counted, Series, Source, Term, Total
from alerts.links import AlertLinks, alert_links, watchdog_links
from slo import conventions as names
from slo.compile import CompiledSlo
from slo.settings import Links
from slo.windows import Severity

CHILDREN_MAX = 100  # of one composite
ZONE_DIMENSION = "AvailabilityZone"
_ZONAL_NAMESPACES = frozenset({"AWS/ApplicationELB"})  # AWS has these metrics for each zone as well
_ZONE_PERIOD_SECONDS = 300
_ZONE_PERIODS = 3  # a zone that fails for a quarter of an hour, and alone


def component(name: str, alarms: Sequence[str], place: Place) -> Iterator[CompositeAlarm]:
    """One of a component's promises burns, or one of its causes is there. For boards and other alarms: tells nobody."""
    yield from _any_of(
        f"{place.settings.prefix}component-{name}", f"Something of {name} is not as it should be.", alarms, place
    )


def health(components: Sequence[str], place: Place) -> Iterator[CompositeAlarm]:
    """Any component is not well. Tells nobody."""
    yield from _any_of(f"{place.settings.prefix}health", "A component is not as it should be.", components, place)


def _any_of(name: str, lead: str, alarms: Sequence[str], place: Place) -> Iterator[CompositeAlarm]:
    """One composite, or several under one where there are too many children."""
    if len(alarms) > CHILDREN_MAX:
        parts = [alarms[begin : begin + CHILDREN_MAX] for begin in range(0, len(alarms), CHILDREN_MAX)]
        numbered = {f"{name}-{number}": part for number, part in enumerate(parts, 1)}
        for part_name, part in numbered.items():
            yield from _any_of(part_name, lead, part, place)
        alarms = list(numbered)
    yield CompositeAlarm(
        name=name,
        description=described(lead, overview_links(place.links), "Tells nobody: its parts do."),
        rule=any_of(alarms),
        tags=MANAGED_BY,
        region=place.settings.region,
    )


def silent(absences: Mapping[tuple[str, Severity], Sequence[str]], place: Place) -> Iterator[CompositeAlarm]:
    """A service whose promises have no events any more; one message, as they fall silent together.

    Args:
        absences: Service and severity -> the alarms of its SLOs.
        place: Where.
    """
    for (service, severity), alarms in absences.items():
        yield CompositeAlarm(
            name=f"{place.settings.prefix}{names.camel_case(service)}-absent-{severity}",
            description=described(
                f"{service} publishes no events to CloudWatch, so none of these promises would alert.",
                overview_links(place.links),
                "Either its processes are gone, or they cannot reach CloudWatch.",
            ),
            rule=any_of(alarms),
            actions=(place.topic(severity, place.settings.region),),
            tags={**MANAGED_BY, COMPONENT_TAG: service},
            region=place.settings.region,
        )


def zones(compiled: CompiledSlo, source: Source, place: Place) -> tuple[Alarm, ...]:
    """One zone fails alone, which the mean over all hides; its traffic can be led away. None where AWS has no zones."""
    of_zones = place.settings.dimensions.get(ZONE_DIMENSION, ())
    slo = compiled.slo
    if len(of_zones) <= 1 or not slo.alerts or not isinstance(source, Counted) or not _is_zonal(source):
        return ()
    name, links = (
        f"{place.settings.prefix}{names.alert_stem(slo)}-zone",
        alert_links(compiled.alerts[0], compiled, place.links),
    )
    children = [_zone(f"{name}-{zone}", zone, compiled, source, links) for zone in of_zones]
    listed = tuple(child.name for child in children)
    one = AtLeast(1, State.ALARM, listed)
    several = AtLeast(2, State.ALARM, listed)
    gray = CompositeAlarm(
        name=f"{name}-gray",
        description=described(
            f"{slo.id_path}: one availability zone fails and the others do not.",
            links,
            "Shift the traffic away from it, then look for the cause. "
            "When several zones fail it is no zone's fault, and the promise itself alerts.",
            f"Owner: {slo.owner}.",
        ),
        rule=AllOf((one, Not(several))),
        actions=(place.topic(Severity.TICKET, source.region),),
        tags=tags_of(compiled),
        region=source.region,
    )
    return (*children, gray)


def _zone(name: str, zone: str, compiled: CompiledSlo, source: Counted, links: AlertLinks) -> MetricAlarm:
    slo, pair = compiled.slo, compiled.policy.pairs[0]
    in_zone = replace(source, bad=_in_zone(source.bad, zone), all=_in_zone(source.all, zone))
    weights = queries.Weights(
        budget=slo.budget_ratio, bad_min=slo.budget_bad_events_min, expected=None, people_bad_min=None
    )
    return MetricAlarm(
        name=name,
        description=described(f"{slo.id_path} in the zone {zone}. Tells nobody by itself.", links),
        queries=queries.burn(in_zone, _ZONE_PERIOD_SECONDS, weights),
        threshold=Decimal(pair.factor),
        evaluation_periods=_ZONE_PERIODS,
        datapoints_to_alarm=_ZONE_PERIODS,
        tags=tags_of(compiled),
        region=source.region,
    )


def _is_zonal(source: Counted) -> bool:
    return all(term.series.namespace in _ZONAL_NAMESPACES for term in (*source.bad, *source.all))


def _in_zone(total: Total, zone: str) -> Total:
    return tuple(replace(term, series=_series_in_zone(term, zone)) for term in total)


def _series_in_zone(term: Term, zone: str) -> Series:
    dimensions = (*term.series.dimensions, (ZONE_DIMENSION, zone))
    return replace(term.series, dimensions=dimensions)


def overview_links(links: Links) -> AlertLinks:
    """Where an alarm on many things leads: the list of all runbooks, and the board of all SLOs."""
    return AlertLinks(runbook=f"{links.runbooks}/README.md", dashboard=watchdog_links(links).dashboard)
