"""One SLO, or one cause, in plain words."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal

from rich.markup import escape

from slo import conventions as names
from slo.catalogue import budget_events, budget_minutes, full_outage_seconds, sli_text
from slo.causes import Cause
from slo.compile import AlertKind, CompiledAlert, CompiledSlo, Reason, Way
from slo.model import period_text


def explanation(compiled: CompiledSlo) -> str:
    """Text with rich's markup: the promise, its budget, and who is told when."""
    return "\n".join(_lines(compiled))


def explanation_of_cause(cause: Cause) -> str:
    """Text with rich's markup: what is wrong, when somebody is told, and why so."""
    query = "\n".join(f"          {line}" for line in cause.condition.promql.split("\n"))
    severity, service = cause.labels["severity"], cause.labels["service"]
    lines = [
        f"[bold]{escape(cause.id_path)}[/]  {escape(cause.summary)}",
        "",
        f"[bold]When[/]      for {names.duration(cause.hold)} this has a result, one for each thing that is wrong",
        escape(query),
        f"[bold]Why so[/]    {escape(cause.reason)}",
        f"[bold]Signal[/]    {cause.signal} of {cause.component}; owner {escape(cause.owner)}",
        "",
        f"[bold]{cause.alert_name}[/]  {severity}: waits for working hours; muted while {escape(service)} pages",
    ]
    return "\n".join(lines)


def _lines(compiled: CompiledSlo) -> Iterator[str]:
    slo = compiled.slo
    period = period_text(slo.window)
    yield f"[bold]{escape(slo.id_path)}[/]  {escape(slo.description)}"
    yield ""
    objective = names.number(slo.objective)
    yield f"[bold]Promise[/]   {objective} % of events are good over {period}; owner {escape(slo.owner)}"
    yield f"          {escape(sli_text(slo.sli))}"
    if slo.reason:
        yield f"[bold]Why so[/]    {escape(slo.reason)}"
    yield f"[bold]Budget[/]    {_minutes(budget_minutes(compiled))} of full outage at even traffic"
    events = budget_events(compiled)
    if events is not None:
        traffic = slo.expected_events_per_second
        yield f"          {_count(events)} bad events at the expected {names.number(traffic or 0)} events/s"
    if not slo.alerts:
        yield "[bold]Alerts[/]    nobody is told"
    for alert in compiled.alerts:
        yield ""
        yield from _alert(alert, compiled)


def _alert(alert: CompiledAlert, compiled: CompiledSlo) -> Iterator[str]:
    who = "wakes somebody up" if alert.severity.value == "page" else "waits for working hours"
    yield f"[bold]{escape(alert.name)}[/]  {alert.severity}: {who}"
    if alert.kind is AlertKind.ABSENT:
        yield f"  when the SLI has had no data for {names.duration(alert.hold)}"
    for way in alert.ways:
        yield f"  {_way(way, compiled)}"


def _way(way: Way, compiled: CompiledSlo) -> str:
    slo, pair = compiled.slo, way.windows
    windows = f"over {names.duration(pair.long)} and still over {names.duration(pair.short)}"
    factor = names.number(pair.factor)
    share = names.number(100 * pair.budget_share(compiled.policy.period))
    ratio = names.number(100 * pair.factor * slo.budget_ratio)
    outage = _seconds(full_outage_seconds(way, compiled))
    match way.reason:
        case Reason.BUDGET:
            return (
                f"when the budget goes: {factor} times too fast {windows}, so {share} % of it is gone, the objective "
                f"is violated, and {slo.budget_bad_events_min} events or more were bad; a full outage: after {outage}"
            )
        case Reason.PEOPLE:
            return (
                f"when many people fail: more than {ratio} % {windows}, and {slo.people_bad_events_min} events or more "
                "were bad"
            )
        case Reason.RATIO:
            return (
                f"when more than {ratio} % are bad {windows} ({share} % of the budget); a full outage: after {outage}"
            )


def _minutes(minutes: Decimal) -> str:
    return _seconds(minutes * 60)


def _seconds(seconds: Decimal) -> str:
    """A length of time in its two largest units."""
    whole = int(seconds)
    if whole < 1:
        return f"{float(seconds):.2g} s"
    parts = []
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1)):
        count, whole = divmod(whole, length)
        if count:
            parts.append(f"{count} {unit}")
    return " ".join(parts[:2])


def _count(events: Decimal) -> str:
    return f"{events:,.0f}"
