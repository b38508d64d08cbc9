"""Promises of a shop that publishes its events, and of what AWS measures; with the settings that say where."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

from alerts.cloudwatch import plan
from alerts.cloudwatch.model import Alarm
from slo import Alert, Events, Severity, Slo, TimeSlice
from slo.causes import Cause, Component, Signal, Threshold
from slo.cloudwatch import CloudWatchSettings
from slo.compile import compile_slo
from slo.metrics import Counter, Selection
from slo.metrics.edge import ALB_REQUEST_DURATIONS, ALB_REQUESTS, ROUTE53_HEALTH_CHECK_HEALTHY
from slo.metrics.queue import SQS_OLDEST_MESSAGE_AGE
from slo.metrics.rds import RDS_DISK_LATENCY
from slo.settings import Links, Settings

WHERE = CloudWatchSettings(
    region="eu-central-1",
    account="123456789012",
    services=("shop",),
    dimensions={
        "AvailabilityZone": ("eu-central-1a", "eu-central-1b", "eu-central-1c"),
        "DBInstanceIdentifier": ("shop-a", "shop-b"),
        "HealthCheckId": ("0000-1111",),
        "LoadBalancer": ("app/shop/0123",),
        "QueueName.work": ("orders",),
        "QueueName.dead_letter": ("orders-dead",),
    },
)

SETTINGS = Settings(
    root=Path("/nowhere"),
    definitions=("shop",),
    output=Path("/nowhere/generated"),
    links=Links(
        grafana="https://grafana.example.com",
        runbooks="https://runbooks.example.com",
        traces="https://traces.example.com",
        logs="https://logs.example.com",
    ),
    cloudwatch=WHERE,
)

REQUESTS = Counter("shop_requests_total", "Requests.", labels={"outcome": ("ok", "error")})
PAGE = Alert(Severity.PAGE)
TICKET = Alert(Severity.TICKET)


def promise(name: str = "availability", **changes: Any) -> Slo:  # noqa: ANN401 - any field of any type
    """A promise; of the shop, which publishes its own events, if nothing else is said."""
    values: dict[str, Any] = {
        "service": "shop",
        "name": name,
        "description": f"The {name} of the shop.",
        "objective": Decimal("99.9"),
        "sli": Events(bad=REQUESTS.where(outcome="error"), all=REQUESTS.where()),
        "owner": "shop-team",
    }
    return Slo(**{**values, **changes})


def edge_errors(**changes: Any) -> Slo:  # noqa: ANN401 - as above
    """Errors, of a load balancer's counts."""
    sli = Events(bad=ALB_REQUESTS.where(outcome=("target_error", "elb_error")), all=ALB_REQUESTS.where())
    return promise("errors", service="edge", sli=sli, **changes)


def edge_latency() -> Slo:
    """Slow answers, by percent rank."""
    sli = Events(bad=ALB_REQUEST_DURATIONS.where(speed="slow"), all=ALB_REQUEST_DURATIONS.where())
    return promise("latency", service="edge", objective=Decimal(99), sli=sli)


def disk_latency() -> Slo:
    """Two instances with two gauges each."""
    return promise("disk", service="rds", sli=TimeSlice(RDS_DISK_LATENCY.where(), bad_above=Decimal("0.02")))


def reachable() -> Slo:
    """A gauge of one region only, from below."""
    sli = TimeSlice(ROUTE53_HEALTH_CHECK_HEALTHY.where(), bad_below=Decimal(1))
    return promise("reachable", service="dns", sli=sli)


def queue_age() -> Slo:
    """The gauge of one of two queues."""
    sli = TimeSlice(SQS_OLDEST_MESSAGE_AGE.where(role="work"), bad_above=Decimal(300))
    return promise("age", service="queue", sli=sli)


def cause(gauge: Selection, name: str = "too-much", hold_minutes: int = 15, **limit: Decimal) -> Cause:
    """A cause with a threshold."""
    return Cause(
        component=Component.RDS,
        signal=Signal.SATURATION,
        name=name,
        summary="There is too much of it.",
        condition=Threshold(gauge=gauge, **limit),
        hold=timedelta(minutes=hold_minutes),
        reason="Somebody measured it.",
        owner="shop-team",
        diagnosis=("look",),
        mitigation="Wait.",
    )


def planned(slos: Iterable[Slo], causes: Iterable[Cause] = (), **where: Any) -> dict[str, Alarm]:  # noqa: ANN401 - as above
    """The alarms of some promises and causes, by name; `where` changes the settings."""
    settings = replace(SETTINGS, cloudwatch=replace(WHERE, **where))
    alarms = plan([compile_slo(slo) for slo in slos], list(causes), settings)
    return {alarm.name: alarm for alarm in alarms}
