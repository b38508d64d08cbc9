"""Application Load Balancers and their target groups."""

from __future__ import annotations

from exporters.sources.resources import Found, Kind, Place
from slo.metrics.edge import EDGE_METRICS

_BEFORE_NAME = ":loadbalancer/"  # in an ARN; what follows is the dimension, `app/edge/50dc6c495c0c9188` say


class Alb(Kind):
    """Load balancers."""

    metrics = tuple(metric for metric in EDGE_METRICS if metric.name.startswith("alb_"))

    def find(self, place: Place) -> Found:
        """Every load balancer, and each target group as a resource of each of its load balancers."""
        tagged = place.tagged("elasticloadbalancing")
        balancers = {
            one["LoadBalancerArn"]: place.labels
            | {"load_balancer": one["LoadBalancerArn"].partition("loadbalancer/")[2]}
            for one in place.all("elbv2:DescribeLoadBalancers")
            if one["Type"] == "application" and one["LoadBalancerArn"] in tagged
        }
        targets = [
            balancers[arn] | {"target_group": group["TargetGroupArn"].rpartition(":")[2]}
            for group in (place.all("elbv2:DescribeTargetGroups") if balancers else ())
            for arn in group["LoadBalancerArns"]
            if arn in balancers
        ]
        return Found([*balancers.values(), *targets])
