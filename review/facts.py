"""A review as plain data, for machines."""

from __future__ import annotations

import json
from typing import Any

from review import words
from review.budget import FORECAST_METHOD
from review.model import Firing, Incident, Review, SloReview
from slo import conventions as names


def json_text(review: Review) -> str:
    """The review for machines."""
    return json.dumps(facts(review), indent=2, ensure_ascii=False) + "\n"


def facts(review: Review) -> dict[str, Any]:
    """The review as plain data. Times are RFC 3339 in UTC, shares 0 to 1; what is not known is null."""
    return {
        "as_of": words.iso(review.at),
        "source": review.source,
        "window": review.window,
        "partial": review.partial,
        "warnings": list(review.warnings),
        "notes": list(review.notes),
        "queries": review.queries,
        "forecast_method": FORECAST_METHOD,
        "slos": [_facts_of(one) for one in review.slos],
    }


def _facts_of(one: SloReview) -> dict[str, Any]:
    slo, budget = one.compiled.slo, one.budget
    return {
        "id": slo.id,
        "service": slo.service,
        "name": slo.name,
        "owner": slo.owner,
        "objective_percent": names.number(slo.objective),
        "budget": budget
        and {
            "from": words.iso(budget.period.begin),
            "to": words.iso(budget.period.end),
            "all_events": budget.all_events,
            "bad_events": budget.bad_events,
            "budget_events": budget.budget_events,
            "budget_minutes": budget.budget_minutes,
            "spent_minutes": budget.spent_minutes,
            "spent": budget.spent,
            "left": budget.left,
            "spent_unadjusted": budget.spent_unadjusted,
            "exhausted_at": _optional_time(budget.exhausted_at),
            "recorded": budget.recorded,
        },
        "last_period": one.last_period and {"spent": one.last_period.spent, "recorded": one.last_period.recorded},
        "forecast": one.forecast
        and {
            "days": one.forecast.days,
            "horizon_days": one.forecast.horizon_days,
            "probability": one.forecast.probability,
            "earliest": _optional_time(one.forecast.earliest),
            "median": _optional_time(one.forecast.median),
            "latest": _optional_time(one.forecast.latest),
        },
        "incidents": [_incident_facts(incident) for incident in one.incidents],
        "alerts": [_firing_facts(firing) for firing in one.firings],
        "gaps": [{"from": words.iso(gap.begin), "to": words.iso(gap.end)} for gap in one.gaps],
        "adjustments": [
            {
                "from": words.iso(applied.adjustment.span.begin),
                "to": words.iso(applied.adjustment.span.end),
                "reason": applied.adjustment.reason,
                "approver": applied.adjustment.approver,
                "all_events": applied.all_events,
                "bad_events": applied.bad_events,
            }
            for applied in one.adjustments
        ],
    }


def _incident_facts(incident: Incident) -> dict[str, Any]:
    return {
        "from": words.iso(incident.span.begin),
        "to": words.iso(incident.span.end),
        "bad_events": incident.bad_events,
        "budget_share": incident.budget_share,
        "peak_burn": incident.peak_burn,
        "peak_at": words.iso(incident.peak_at),
        "component": incident.component,
        "companions": [
            {
                "name": one.name,
                "component": one.component,
                "began_before_seconds": one.began_before_seconds,
                "overlap": one.overlap,
            }
            for one in incident.companions
        ],
        "causes": [
            {"labels": dict(cause.labels), "bad_events": cause.bad_events, "share": cause.share}
            for cause in incident.causes
        ],
    }


def _firing_facts(firing: Firing) -> dict[str, Any]:
    return {
        "alert": firing.alert,
        "severity": firing.severity,
        "absence": firing.absence,
        "from": words.iso(firing.span.begin),
        "to": words.iso(firing.span.end),
        "still_firing": firing.still_firing,
        "incident": firing.incident,
        "gone_before": firing.gone_before,
        "bad_events": firing.bad_events,
        "budget_share": firing.budget_share,
        "for_nothing": firing.for_nothing,
    }


def _optional_time(at: float | None) -> str | None:
    return None if at is None else words.iso(at)
