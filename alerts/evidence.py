"""What the bad events of an alert look like in traces and logs, and where to find them.

Traces are X-Ray's or a Jaeger's. Logs are Logs Insights' or, without a region in the settings, a page of ours that
takes the fields as `?route=...&outcome=...`. What is asked for holds only values of the catalogue of metrics, which
the service writes into its log lines under the same names.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from urllib.parse import quote, urlencode

from alerts import consoles
from slo import conventions as names
from slo.causes import Cause, Component
from slo.metrics import Selection
from slo.model import Events, Latency, Slo
from slo.settings import Links
from slo.windows import HOUR

# Traces are samples and a search in logs is paid by the gigabyte, so not over days; what still fails shows at once.
SHOWN = 6 * HOUR

TRACED_SERVICE = "redemption"
"""Whose requests are hurt when a component of the platform is: components themselves write no traces."""

_LOG_FIELDS = ("@timestamp", "level", "event", "route", "outcome", "status", "duration_seconds", "trace_id")
_LOG_LINES_MAX = 200
_LOUD_LEVELS = ("warning", "error", "critical")
_CACHED = 4096  # the alerts of an SLO, and those of many, look for the same


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """The requests that an alert is about.

    Attributes:
        service: As it calls itself in its traces.
        routes: `POST /v1/redemptions` say; none for all.
        outcomes: What became of them; none when the SLI has no requests.
        slower_seconds: They took longer than this; None when they failed.
    """

    service: str
    routes: tuple[str, ...] = ()
    outcomes: tuple[str, ...] = ()
    slower_seconds: float | None = None


def of_slo(slo: Slo) -> Evidence:
    """The bad events of an SLO; failures of its service where the SLI counts no requests."""
    if slo.component not in (None, Component.SERVICE):
        return Evidence(service=TRACED_SERVICE)  # its labels are those of AWS's metrics, not of our lines
    service = slo.service
    match slo.sli:
        case Events(bad=bad):
            return Evidence(service=service, routes=_given(bad, "route"), outcomes=_given(bad, "outcome"))
        case Latency(requests=requests, threshold_seconds=seconds):
            return Evidence(
                service=service,
                routes=_given(requests, "route"),
                outcomes=_given(requests, "outcome"),
                slower_seconds=seconds,
            )
    return Evidence(service=service)


def of_cause(_: Cause) -> Evidence:
    """Whoever is hurt by a cause is a guest of the service."""
    return Evidence(service=TRACED_SERVICE)


def _given(selection: Selection, label: str) -> tuple[str, ...]:
    """The values that are asked for; none where all are."""
    return tuple(selection.values.get(label, ()))


# --- traces -----------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=_CACHED)
def traces_url(evidence: Evidence, links: Links) -> str:
    """The search for its traces, up to now."""
    if links.region:
        return consoles.xray_traces(links.traces, links.region, xray_filter(evidence), SHOWN)
    return f"{links.traces}/search?{urlencode(_jaeger(evidence), quote_via=quote)}"


def xray_filter(evidence: Evidence) -> str:
    """X-Ray's filter expression (https://docs.aws.amazon.com/xray/latest/devguide/xray-console-filters.html)."""
    slow = evidence.slower_seconds
    what = "fault = true" if slow is None else f"responsetime > {names.number(slow)}"
    parts = [f'service("{evidence.service}")', what]
    # The service writes the template of a route, not the path itself, which may hold an account.
    paths = [
        f'(http.method = "{method}" AND http.url ENDSWITH "{path}")'
        for method, _, path in (route.partition(" ") for route in evidence.routes)
    ]
    if paths:
        parts.append(paths[0] if len(paths) == 1 else f"({' OR '.join(paths)})")
    return " AND ".join(parts)


def _jaeger(evidence: Evidence) -> dict[str, str]:
    """The parameters of Jaeger's search page, which its API takes as well."""
    query = {"service": evidence.service, "lookback": _lookback(SHOWN), "limit": "20"}
    if len(evidence.routes) == 1:
        query["operation"] = evidence.routes[0]
    if evidence.slower_seconds is None:
        return {**query, "tags": '{"error":"true"}'}
    return {**query, "minDuration": f"{names.number(evidence.slower_seconds * 1000)}ms"}


def _lookback(shown: timedelta) -> str:
    return f"{shown // HOUR}h"


# --- logs -------------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=_CACHED)
def logs_url(evidence: Evidence, links: Links) -> str:
    """Its log lines, latest first, up to now."""
    if links.region:
        return consoles.logs_insights(links.logs, links.region, insights_query(evidence), links.log_groups, SHOWN)
    return f"{links.logs}?{urlencode(list(_fields(evidence)), quote_via=quote)}"


def insights_query(evidence: Evidence) -> str:
    """In the language of Logs Insights."""
    wanted = [f"{name} in {_listed(values)}" for name, values in _filters(evidence)]
    if evidence.slower_seconds is not None:
        wanted.append(f"duration_seconds > {names.number(evidence.slower_seconds)}")
    return "\n".join(
        (
            f"fields {', '.join(_LOG_FIELDS)}",
            f"| filter {' and '.join(wanted)}",
            "| sort @timestamp desc",
            f"| limit {_LOG_LINES_MAX}",
        )
    )


def _filters(evidence: Evidence) -> Iterator[tuple[str, Sequence[str]]]:
    if evidence.routes:
        yield "route", evidence.routes
    if evidence.outcomes:
        yield "outcome", evidence.outcomes
    if not evidence.outcomes and evidence.slower_seconds is None:
        yield "level", _LOUD_LEVELS


def _listed(values: Sequence[str]) -> str:
    quoted = (f'"{value}"' for value in values)
    return f"[{', '.join(quoted)}]"


def _fields(evidence: Evidence) -> Iterator[tuple[str, str]]:
    for name, values in _filters(evidence):
        yield from ((name, value) for value in values)
    if evidence.slower_seconds is not None:
        yield "slower_than", names.number(evidence.slower_seconds)
