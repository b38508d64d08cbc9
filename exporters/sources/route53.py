"""The health checks of Route 53, a global service whose metrics only us-east-1 has."""

from __future__ import annotations

from exporters.sources.resources import Found, Kind, Place
from slo.metrics.edge import ROUTE53_HEALTH_CHECK_HEALTHY


class Route53(Kind):
    """Health checks."""

    metrics = (ROUTE53_HEALTH_CHECK_HEALTHY,)
    region = "us-east-1"

    def find(self, place: Place) -> Found:
        """Every health check."""
        tagged = place.tagged("route53")
        return Found(
            [
                place.labels | {"health_check": one["Id"]}
                for one in place.all("route53:ListHealthChecks")
                if f"arn:aws:route53:::healthcheck/{one['Id']}" in tagged
            ]
        )
