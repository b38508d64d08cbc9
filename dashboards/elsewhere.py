"""Addresses beyond Grafana, at the time that a board shows: traces and logs.

With a region they are X-Ray's and Logs Insights' own, as `alerts.consoles` has them for alerts; here Grafana fills in
the time. Without one, traces are a Jaeger's.
"""

from __future__ import annotations

import re
from urllib.parse import quote

from dashboards import panels
from slo.settings import Links

_SPAN = f"end~'{panels.TIME_TO}~start~'{panels.TIME_FROM}"
_ESCAPED = re.compile(r"[^\w.-]", re.ASCII)


def of_service(service: str, links: Links) -> tuple[panels.Link, ...]:
    """Where a service's traces and logs of the time shown are."""
    return (
        panels.Link("Traces of this time", _traces(service, links)),
        panels.Link("Logs of this time", _logs(links)),
    )


def trace(links: Links, trace_id: str) -> str:
    """One trace; `trace_id` may be a variable of Grafana."""
    if links.region:
        return f"{_console(links.traces, links)}#xray:traces/{trace_id}"
    return f"{links.traces}/trace/{trace_id}"


def _traces(service: str, links: Links) -> str:
    if links.region:
        expression = _jsurl(f'service("{service}")')
        query = f"~(query~(expression~'{expression})~context~(timeRange~({_SPAN})))"
        return f"{_console(links.traces, links)}#xray:traces/query?{query}"
    return f"{links.traces}/search?service={quote(service)}&start=${{__from}}000&end=${{__to}}000"  # microseconds


def _logs(links: Links) -> str:
    if links.region:
        groups = "".join(f"~'{_jsurl(group)}" for group in links.log_groups)
        query = f"~({_SPAN}~timeType~'ABSOLUTE~tz~'UTC~source~({groups}))"
        return f"{_console(links.logs, links)}#logsV2:logs-insights$3FqueryDetail$3D{query}"
    return links.logs


def _console(base: str, links: Links) -> str:
    return f"{base}?region={quote(links.region)}"


def _jsurl(text: str) -> str:
    """A string within the console's own notation."""
    return _ESCAPED.sub(lambda found: f"*{ord(found[0]):02x}", text)
