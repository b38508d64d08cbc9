"""Synthetic definitions: as varied as those of many teams, and the same at every run."""

from __future__ import annotations

from decimal import Decimal

from slo import Alert, Counter, Events, Histogram, Latency, Severity, Sli, Slo
from slo.settings import Links

LINKS = Links(
    grafana="https://grafana.example.com",
    runbooks="https://runbooks.example.com/runbooks",
    traces="https://traces.example.com",
    logs="https://logs.example.com",
)

_SLOS_A_SERVICE = 10
_ROUTES = ("GET /items", "GET /items/{id}", "POST /items", "DELETE /items/{id}")
_GOOD, _BAD = ("ok", "refused", "invalid"), ("shed", "timeout", "error")
_EDGES_SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
_OBJECTIVES = ("99", "99.5", "99.9", "99.95", "99.99")
_TEAMS = ("checkout", "loyalty", "search", "stays")


def definitions(count: int) -> tuple[Slo, ...]:
    """So many SLOs over 30 days, ten a service, each service with a counter and a histogram of its own."""
    return tuple(_definition(number) for number in range(count))


def _definition(number: int) -> Slo:
    service = f"service-{number // _SLOS_A_SERVICE:03d}"
    team = _TEAMS[number % len(_TEAMS)]
    return Slo(
        service=service,
        name=f"promise-{number:04d}",
        description=f"Promise {number} of {service}: whoever asks for items gets them.",
        objective=Decimal(_OBJECTIVES[number % len(_OBJECTIVES)]),
        sli=_sli(service.replace("-", "_"), number),
        owner=f"{team}-sre",
        labels={"tier": str(number % 3)} if number % 2 else {},
        alerts=(Alert(Severity.TICKET),) if number % 7 == 0 else (Alert(Severity.PAGE), Alert(Severity.TICKET)),
    )


def _sli(prefix: str, number: int) -> Sli:
    labels = {"route": _ROUTES, "outcome": _GOOD + _BAD}
    requests = Counter(f"{prefix}_requests_total", "Requests answered.", labels=labels)
    duration = Histogram(f"{prefix}_request_duration_seconds", "Time to answer.", labels=labels, buckets=_EDGES_SECONDS)
    route = _ROUTES[number % len(_ROUTES)]
    threshold_seconds = _EDGES_SECONDS[number % len(_EDGES_SECONDS)]
    match number % 4:
        case 0:
            return Events(bad=requests.where(outcome=_BAD), all=requests.where())
        case 1:
            return Events(bad=requests.where(route=route, outcome="timeout"), all=requests.where(route=route))
        case 2:
            return Latency(duration.where(outcome=_GOOD), threshold_seconds)
        case _:
            return Latency(duration.where(route=route, outcome=_GOOD), threshold_seconds)
