"""The alarms of an SLO: for each pair of windows a composite that both its children must be in ALARM for.

A child that counts events has one data point, whose Period is the window, and its value is the burn rate itself, so a
threshold reads 14.4. M of N shorter data points would not do: of a full outage of half an hour, 12 of 12 five-minute
points never become bad.

A gauge of AWS is judged minute by minute, M of N, which is what a slice is: any series may break it, and a value may
be negative. More than a day of minutes is not allowed (a Period below an hour looks back for 86,400 s at most), so
there the value is the burn of the share of bad samples, by percent rank over the window.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from decimal import ROUND_CEILING, Decimal

from alerts.cloudwatch import queries
from alerts.cloudwatch.model import (
    Alarm,
    AllOf,
    AnyOf,
    Comparison,
    CompositeAlarm,
    Is,
    MetricAlarm,
    Missing,
    Rule,
    State,
    Suppressor,
    Topic,
)
from alerts.cloudwatch.sources import Counted, Judged, Source
from alerts.links import AlertLinks, alert_links
from slo import conventions as names
from slo.cloudwatch import CloudWatchSettings
from slo.compile import AlertKind, CompiledAlert, CompiledSlo
from slo.errors import SloError
from slo.settings import Links
from slo.windows import DAY, BurnWindows, Severity

DESCRIPTION_LENGTH_MAX = 1024
_SUPPRESSOR_WAIT_SECONDS = 120  # two evaluations: the faster pair may become true with the next data point
_MINUTE_SECONDS = 60

MANAGED_BY = {"managed-by": "slo-platform"}
"""The tag of everything that is ours; nothing without it is ever changed or deleted."""

COMPONENT_TAG = "component"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """What all alarms have in common.

    Attributes:
        settings: Where they are and who is told.
        links: Base URLs.
    """

    settings: CloudWatchSettings
    links: Links

    def topic(self, severity: Severity, region: str) -> Topic:
        """Who is told."""
        name = self.settings.page_topic if severity is Severity.PAGE else self.settings.ticket_topic
        return Topic(name=name, region=region, account=self.settings.account)


def slo_alarms(compiled: CompiledSlo, source: Source, place: Place) -> tuple[Alarm, ...]:
    """Every alarm of an SLO, children first.

    Raises:
        SloError: A window cannot be watched.
    """
    return tuple(_Alarms(compiled, source, place).all())


def burn_names(compiled: CompiledSlo, prefix: str) -> dict[BurnWindows, str]:
    """The composites of an SLO that it alerts with, fastest first."""
    severities = {alert.severity for alert in compiled.slo.alerts}
    return {
        pair: f"{prefix}{names.alert_stem(compiled.slo)}-{speed}"
        for speed, pair in zip(names.BURN_SPEEDS, compiled.policy.pairs, strict=False)
        if pair.severity in severities
    }


def absent_name(compiled: CompiledSlo, prefix: str) -> str:
    """The alarm that says that nothing is published."""
    return f"{prefix}{names.absent_alert_name(compiled.slo)}"


def described(lead: str, links: AlertLinks, *more: str) -> str:
    """A description in Markdown: what is wrong, where to look, then as much of the rest as there is room for."""
    head = f"{lead}\n\n[Runbook]({links.runbook}) | [Board]({links.dashboard})"
    text = "\n\n".join((head, *more))
    return text if len(text) <= DESCRIPTION_LENGTH_MAX else f"{text[: DESCRIPTION_LENGTH_MAX - 1]}…"


def tags_of(compiled: CompiledSlo) -> dict[str, str]:
    """The tags of an SLO's alarms."""
    slo = compiled.slo
    return {**MANAGED_BY, COMPONENT_TAG: slo.service, "slo": slo.id, "owner": slo.owner}


@dataclass(frozen=True, slots=True)
class _Alarms:
    compiled: CompiledSlo
    source: Source
    place: Place

    def all(self) -> Iterator[Alarm]:
        alerts = {alert.severity: alert for alert in self.compiled.alerts if alert.kind is AlertKind.BURN}
        faster: str | None = None
        for pair, name in burn_names(self.compiled, self.place.settings.prefix).items():
            alert = alerts[pair.severity]
            children = {window: list(self._children(name, pair, window, alert)) for window in (pair.long, pair.short)}
            for of_window in children.values():
                yield from of_window
            yield self._composite(name, pair, alert, children, faster)
            faster = name
        if isinstance(self.source, Counted) and self.source.published:
            yield from (self._absent(alert) for alert in self.compiled.alerts if alert.kind is AlertKind.ABSENT)

    def _composite(
        self,
        name: str,
        pair: BurnWindows,
        alert: CompiledAlert,
        children: Mapping[timedelta, list[MetricAlarm]],
        faster: str | None,
    ) -> CompositeAlarm:
        slo = self.compiled.slo
        long, short, factor = names.duration(pair.long), names.duration(pair.short), names.number(pair.factor)
        share = names.number(100 * pair.budget_share(self.compiled.policy.period))
        return CompositeAlarm(
            name=name,
            description=described(
                f"{slo.id_path}: the error budget burns more than {factor} times too fast, over {long} and {short}.",
                self._links(alert),
                f"Of the budget, {share} % go in {long} at this burn.",
                slo.description,
                f"Owner: {slo.owner}.",
            ),
            rule=AllOf(tuple(any_of(child.name for child in of_window) for of_window in children.values())),
            suppressor=Suppressor(
                alarm=faster,
                wait_seconds=_SUPPRESSOR_WAIT_SECONDS,
                extension_seconds=_seconds(pair.short),
            )
            if faster
            else None,
            actions=(self.place.topic(pair.severity, self.source.region),),
            tags=tags_of(self.compiled),
            region=self.source.region,
        )

    def _children(self, name: str, pair: BurnWindows, window: timedelta, alert: CompiledAlert) -> Iterator[MetricAlarm]:
        """The alarms of one window: more than one only where an alarm cannot hold all series."""
        description = described(f"A part of {name}, and tells nobody by itself.", self._links(alert))
        tags, region = tags_of(self.compiled), self.source.region
        if isinstance(self.source, Counted):
            yield MetricAlarm(
                name=f"{name}-{names.duration(window)}",
                description=description,
                queries=queries.burn(self.source, _seconds(window), self._weights(pair, window)),
                threshold=pair.factor,
                tags=tags,
                region=region,
            )
            return
        parts = list(queries.chunks(self.source.gauges))
        for number, gauges in enumerate(parts, 1):
            part = f"-{number}" if len(parts) > 1 else ""
            child = f"{name}-{names.duration(window)}{part}"
            if window > DAY:
                try:
                    share = queries.bad_share_burn(gauges, self.source, _seconds(window), self._budget)
                except ValueError as error:
                    raise SloError(f"SLO {self.compiled.slo.id_path}", [f"{child}: {error}"]) from error
                yield MetricAlarm(
                    name=child, description=description, queries=share, threshold=pair.factor, tags=tags, region=region
                )
                continue
            worst, threshold, comparison = queries.worst(gauges, self.source)
            slices, bad = self._slices(self.source, pair, window)
            yield MetricAlarm(
                name=child,
                description=description,
                queries=worst,
                threshold=threshold,
                comparison=comparison,
                evaluation_periods=slices,
                datapoints_to_alarm=bad,
                tags=tags,
                region=region,
            )

    @property
    def _budget(self) -> Decimal:
        return self.compiled.slo.budget_ratio

    def _weights(self, pair: BurnWindows, window: timedelta) -> queries.Weights:
        slo = self.compiled.slo
        assert isinstance(self.source, Counted), "slices are not weighed"
        of_period = slo.burn == "budget" and self.source.of_people and slo.expected_events_per_second is not None
        traffic = slo.expected_events_per_second
        # The short window must be on its way to the same number, as in the rules of Prometheus.
        pace = (Decimal(slo.people_bad_events_min) * _seconds(window) / _seconds(pair.long)).to_integral(ROUND_CEILING)
        return queries.Weights(
            budget=self._budget,
            bad_min=slo.budget_bad_events_min,
            expected=traffic * _seconds(window) if of_period and traffic is not None else None,
            people_bad_min=pace if pair.severity is Severity.PAGE else None,
        )

    def _slices(self, source: Judged, pair: BurnWindows, window: timedelta) -> tuple[int, int]:
        """How many slices a window has, and how many of them must be bad."""
        slices, rest = divmod(_seconds(window), source.period_seconds)
        if rest or not slices:
            text = f"{names.duration(window)} is no multiple of the {source.period_seconds} s between its values"
            raise SloError(f"SLO {self.compiled.slo.id_path}", [text])
        burning = int(pair.factor * self._budget * slices) + 1
        return slices, max(burning, min(self.compiled.slo.budget_bad_events_min, slices))

    def _absent(self, alert: CompiledAlert) -> MetricAlarm:
        """Nothing is published any more. Told by a roll-up of the service, as all its SLOs fall silent together."""
        slo = self.compiled.slo
        assert isinstance(self.source, Counted), "only events are published"
        read = queries.published(self.source, _MINUTE_SECONDS)
        minutes = max(1, _seconds(alert.hold) // _MINUTE_SECONDS)
        return MetricAlarm(
            name=absent_name(self.compiled, self.place.settings.prefix),
            description=described(
                f"{slo.id_path}: its processes have published nothing for {minutes} minutes, so nobody would be paged.",
                self._links(alert),
            ),
            queries=(read,),
            threshold=Decimal(1),
            comparison=Comparison.BELOW,
            evaluation_periods=minutes,
            datapoints_to_alarm=minutes,
            treat_missing_data=Missing.BREACHING,
            tags=tags_of(self.compiled),
            region=self.source.region,
        )

    def _links(self, alert: CompiledAlert) -> AlertLinks:
        return alert_links(alert, self.compiled, self.place.links)


def any_of(alarms: Iterable[str]) -> Rule:
    """One of the alarms is in ALARM."""
    parts = tuple(Is(State.ALARM, alarm) for alarm in alarms)
    return parts[0] if len(parts) == 1 else AnyOf(parts)


def _seconds(length: timedelta) -> int:
    return int(length.total_seconds())
