"""The promises as plain data, for machines: `slos.json`, `slo list --json`, and what `slo diff` compares.

Numbers are texts in plain digits, so that `99.99` stays what its author wrote.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from decimal import Decimal
from pathlib import PurePosixPath
from typing import Any

from slo import conventions as names
from slo.artefacts import Artefact
from slo.causes import Cause
from slo.compile import CompiledAlert, CompiledSlo, Reason, Way
from slo.model import (
    RESERVED_LABELS,
    Events,
    Freshness,
    Latency,
    Queries,
    RatioQuery,
    Recency,
    Sli,
    TimeSlice,
    period_text,
)
from slo.promql import series

PATH = PurePosixPath("slos.json")


def render(compiled: Sequence[CompiledSlo], causes: Sequence[Cause] = ()) -> list[Artefact]:
    """All promises and causes in one file."""
    facts = {"slos": [facts_of(one) for one in compiled], "causes": [facts_of_cause(cause) for cause in causes]}
    return [Artefact(PATH, json.dumps(facts, indent=2, ensure_ascii=False) + "\n")]


def facts_of(compiled: CompiledSlo) -> dict[str, Any]:
    """What a definition promises and who is told when, without any query of a rule."""
    slo = compiled.slo
    return {
        "id": slo.id,
        "service": slo.service,
        "name": slo.name,
        "description": slo.description,
        "owner": slo.owner,
        "objective_percent": names.number(slo.objective),
        "period": period_text(slo.window),
        "sli": sli_text(slo.sli),
        "burn": slo.burn,
        "budget": {
            "ratio": names.number(slo.budget_ratio),
            "minutes": names.number(budget_minutes(compiled)),
            "events": _optional(budget_events(compiled)),
        },
        "alerts": [_alert_facts(alert, compiled) for alert in compiled.alerts],
        "labels": dict(sorted(slo.labels.items())),
        "links": dict(slo.links),
        "component": None if slo.component is None else str(slo.component),
        "signals": [str(signal) for signal in slo.signals],
    }


def facts_of_cause(cause: Cause) -> dict[str, Any]:
    """What may hurt a promise, and who is told when."""
    return {
        "id": cause.id,
        "component": str(cause.component),
        "signal": str(cause.signal),
        "name": cause.name,
        "summary": cause.summary,
        "condition": _line(cause.condition.promql),
        "hold_seconds": names.number(cause.hold.total_seconds()),
        "reason": cause.reason,
        "owner": cause.owner,
        "alert": cause.alert_name,
        "severity": cause.labels["severity"],
    }


def budget_minutes(compiled: CompiledSlo) -> Decimal:
    """How many minutes of full outage at even traffic the budget holds."""
    return compiled.slo.budget_ratio * Decimal(int(compiled.policy.period.total_seconds())) / 60


def budget_events(compiled: CompiledSlo) -> Decimal | None:
    """How many bad events the budget holds at the expected traffic; None when that is not known."""
    traffic = compiled.slo.expected_events_per_second
    if traffic is None:
        return None
    return compiled.slo.budget_ratio * traffic * Decimal(int(compiled.policy.period.total_seconds()))


def full_outage_seconds(way: Way, compiled: CompiledSlo) -> Decimal:
    """How long everything must fail, at even traffic and after a clean period, until a way's windows burn enough."""
    return way.windows.factor * compiled.slo.budget_ratio * Decimal(int(way.windows.long.total_seconds()))


def sli_text(sli: Sli) -> str:  # noqa: PLR0911 - one for each kind
    """What counts as bad, in words and selectors."""
    match sli:
        case Events():
            return f"bad: {series(sli.bad)}; all: {series(sli.all)}"
        case Latency():
            return f"bad: slower than {names.number(sli.threshold_seconds)} s; all: {series(sli.requests)}"
        case TimeSlice():
            limit = f"above {sli.bad_above}" if sli.bad_above is not None else f"below {sli.bad_below}"
            return f"bad: slices of {sli.slice_seconds} s in which {series(sli.gauge)} is {limit}"
        case Freshness():
            return (
                f"bad: slices of {sli.slice_seconds} s in which something has waited for more than "
                f"{sli.age_max_seconds} s; oldest: {series(sli.oldest)}"
            )
        case Recency():
            return (
                f"bad: slices of {sli.slice_seconds} s in which it was last done more than "
                f"{sli.age_max_seconds} s ago, or never; last: {series(sli.last)}"
            )
        case Queries():
            return f"bad: {_line(sli.bad)}; all: {_line(sli.all)}"
        case RatioQuery():
            return f"bad share: {_line(sli.ratio)}"


def _alert_facts(alert: CompiledAlert, compiled: CompiledSlo) -> dict[str, Any]:
    return {
        "name": alert.name,
        "kind": str(alert.kind),
        "severity": str(alert.severity),
        "hold_seconds": names.number(alert.hold.total_seconds()),
        "ways": [
            {
                "reason": str(way.reason),
                "long": names.duration(way.windows.long),
                "short": names.duration(way.windows.short),
                "factor": names.number(way.windows.factor),
                "full_outage_seconds": names.number(full_outage_seconds(way, compiled)),
                "bad_events_min": _bad_events_min(way, compiled),
            }
            for way in alert.ways
        ],
        # What the definition adds for this alert alone: a route may hang on it.
        "labels": _own(alert.labels, RESERVED_LABELS | compiled.series_labels.keys()),
        "annotations": _own(alert.annotations, frozenset()),
    }


def _own(texts: Mapping[str, str], others: AbstractSet[str]) -> dict[str, str]:
    return {name: texts[name] for name in sorted(texts) if name not in others}


def _bad_events_min(way: Way, compiled: CompiledSlo) -> int:
    match way.reason:
        case Reason.BUDGET:
            return compiled.slo.budget_bad_events_min
        case Reason.PEOPLE:
            return compiled.slo.people_bad_events_min
        case Reason.RATIO:
            return 0


def _optional(value: Decimal | None) -> str | None:
    return None if value is None else names.number(value)


def _line(query: str) -> str:
    return " ".join(query.split())
