"""What tells of the components must itself be there: one cause for each source of the exporters.

A component whose source is silent looks well, as nothing that is missing is above a limit.
"""

from datetime import timedelta
from decimal import Decimal

from slo.causes import Cause, Component, Signal, Source, Threshold
from slo.metrics.exporters import EXPORTERS_METRICS, EXPORTERS_UP

OWNER = "loyalty-sre"

_COMPONENTS = {
    "rds": Component.RDS,
    "elasticache": Component.REDIS,
    "redis": Component.REDIS,
    "eks": Component.EKS,
    "alb": Component.EDGE,
    "route53": Component.EDGE,
    "waf": Component.EDGE,
    "sqs": Component.QUEUE,
}

sources = (Source(component=Component.SERVICE, process="exporters", metrics=EXPORTERS_METRICS),)

causes = tuple(
    Cause(
        component=component,
        signal=Signal.ERRORS,
        name=f"source-{source}-fails",
        summary=f"The exporters get no whole answer from {source}.",
        condition=Threshold(gauge=EXPORTERS_UP.where(source=source), below=Decimal(1)),
        hold=timedelta(minutes=15),
        reason=(
            "A throttled or slow answer is asked for again in the next cycle. After 15 minutes the series have "
            "vanished, and every cause that reads them is blind."
        ),
        owner=OWNER,
        diagnosis=(
            "kubectl logs -l app.kubernetes.io/name=exporters --since 30m  # which call failed, and why",
            "aws sts get-caller-identity  # are the credentials those that you expect?",
        ),
        mitigation=f"Mend the credentials, the network or the quota; meanwhile look at {component} in its own console.",
    )
    for source, component in _COMPONENTS.items()
)
