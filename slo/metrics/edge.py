"""The edge: Application Load Balancer (`alb_`), Route 53 (`route53_`), WAF (`waf_`).

CloudWatch has a load balancer's metrics only while requests come, and those of errors only when there are some.
"""

from slo.metrics.aws import AWS_LABELS, TAKEN_AWAY
from slo.metrics.kinds import CloudWatch, Counter, Gauge

ALB_LABELS = (*AWS_LABELS, "load_balancer")
ALB_TARGET_LABELS = (*ALB_LABELS, "target_group")
_BALANCER = {"LoadBalancer": "load_balancer"}
_TARGETS = {"LoadBalancer": "load_balancer", "TargetGroup": "target_group"}

ALB_OUTCOMES = ("ok", "target_error", "elb_error")

# `RequestCount` leaves out what the load balancer answered without choosing a target, 503 say. A 502 or 504 of its own
# after that choice is in both, so a total failure of that kind reads as half of all requests, never as fewer.
ALB_REQUESTS = Counter(
    "alb_requests_total",
    "Requests: answered by a target, failed by a target (5xx), or failed by the load balancer itself (5xx).",
    labels={"outcome": ALB_OUTCOMES},
    open_labels=ALB_LABELS,
    cloudwatch=(
        CloudWatch(
            namespace="AWS/ApplicationELB",
            name="RequestCount",
            statistic="Sum",
            dimensions=_BALANCER,
            labels={"outcome": "ok"},
        ),
        CloudWatch(
            namespace="AWS/ApplicationELB",
            name="HTTPCode_Target_5XX_Count",
            statistic="Sum",
            dimensions=_BALANCER,
            factor=TAKEN_AWAY,
            labels={"outcome": "ok"},
        ),
        CloudWatch(
            namespace="AWS/ApplicationELB",
            name="HTTPCode_Target_5XX_Count",
            statistic="Sum",
            dimensions=_BALANCER,
            labels={"outcome": "target_error"},
        ),
        CloudWatch(
            namespace="AWS/ApplicationELB",
            name="HTTPCode_ELB_5XX_Count",
            statistic="Sum",
            dimensions=_BALANCER,
            labels={"outcome": "elb_error"},
        ),
    ),
)

ALB_FAST_SECONDS = 0.3
_WITHIN = f"PR(:{ALB_FAST_SECONDS})"

ALB_REQUEST_DURATIONS = Counter(
    "alb_request_durations_total",
    f"Requests that a target answered, fast: within {ALB_FAST_SECONDS} s of leaving the load balancer; or slow.",
    labels={"speed": ("fast", "slow")},
    open_labels=ALB_LABELS,
    cloudwatch=(
        CloudWatch(
            namespace="AWS/ApplicationELB",
            name="TargetResponseTime",
            statistic="SampleCount",
            percent_rank=_WITHIN,
            dimensions=_BALANCER,
            labels={"speed": "fast"},
        ),
        CloudWatch(
            namespace="AWS/ApplicationELB",
            name="TargetResponseTime",
            statistic="SampleCount",
            dimensions=_BALANCER,
            labels={"speed": "slow"},
        ),
        CloudWatch(
            namespace="AWS/ApplicationELB",
            name="TargetResponseTime",
            statistic="SampleCount",
            percent_rank=_WITHIN,
            dimensions=_BALANCER,
            factor=TAKEN_AWAY,
            labels={"speed": "slow"},
        ),
    ),
)

ALB_HEALTHY_HOSTS = Gauge(
    "alb_healthy_hosts",
    "Targets that pass the health check, at least.",
    open_labels=ALB_TARGET_LABELS,
    cloudwatch=(
        CloudWatch(namespace="AWS/ApplicationELB", name="HealthyHostCount", statistic="Minimum", dimensions=_TARGETS),
    ),
)

ALB_UNHEALTHY_HOSTS = Gauge(
    "alb_unhealthy_hosts",
    "Targets that fail the health check, at most.",
    open_labels=ALB_TARGET_LABELS,
    cloudwatch=(
        CloudWatch(namespace="AWS/ApplicationELB", name="UnHealthyHostCount", statistic="Maximum", dimensions=_TARGETS),
    ),
)

ALB_FAIL_OPEN_REQUESTS = Counter(
    "alb_fail_open_requests_total",
    "Requests that were sent to unhealthy targets as there were no others.",
    open_labels=ALB_TARGET_LABELS,
    cloudwatch=(
        CloudWatch(
            namespace="AWS/ApplicationELB",
            name="UnhealthyRoutingRequestCount",
            statistic="Sum",
            dimensions=_TARGETS,
        ),
    ),
)

ALB_TARGET_CONNECTION_ERRORS = Counter(
    "alb_target_connection_errors_total",
    "Connections to a target that could not be made.",
    open_labels=ALB_TARGET_LABELS,
    cloudwatch=(
        CloudWatch(
            namespace="AWS/ApplicationELB",
            name="TargetConnectionErrorCount",
            statistic="Sum",
            dimensions=_TARGETS,
        ),
    ),
)

ALB_REJECTED_CONNECTIONS = Counter(
    "alb_rejected_connections_total",
    "Connections that were refused as the load balancer had its maximum.",
    open_labels=ALB_LABELS,
    cloudwatch=(
        CloudWatch(
            namespace="AWS/ApplicationELB",
            name="RejectedConnectionCount",
            statistic="Sum",
            dimensions=_BALANCER,
        ),
    ),
)

ALB_TLS_ERRORS = Counter(
    "alb_tls_negotiation_errors_total",
    "Connections of clients that ended before TLS was agreed on.",
    open_labels=ALB_LABELS,
    cloudwatch=(
        CloudWatch(
            namespace="AWS/ApplicationELB",
            name="ClientTLSNegotiationErrorCount",
            statistic="Sum",
            dimensions=_BALANCER,
        ),
    ),
)

ROUTE53_HEALTH_CHECK_HEALTHY = Gauge(
    "route53_health_check_healthy",
    "1 while Route 53's checkers reach the endpoint from the world outside, 0 when not.",
    open_labels=(*AWS_LABELS, "health_check"),
    cloudwatch=(
        CloudWatch(
            namespace="AWS/Route53",
            name="HealthCheckStatus",
            statistic="Minimum",
            dimensions={"HealthCheckId": "health_check"},
            region="us-east-1",  # of a global service; no other region has it
        ),
    ),
)

_WAF_ACTIONS = {"allowed": "AllowedRequests", "blocked": "BlockedRequests", "counted": "CountedRequests"}

WAF_REQUESTS = Counter(
    "waf_requests_total",
    "Requests that a web ACL let through, blocked, or only counted; the rule `ALL` stands for all its rules.",
    labels={"action": tuple(_WAF_ACTIONS)},
    open_labels=(*AWS_LABELS, "web_acl", "rule"),
    cloudwatch=tuple(
        CloudWatch(
            namespace="AWS/WAFV2",
            name=name,
            statistic="Sum",
            dimensions={"WebACL": "web_acl", "Rule": "rule", "Region": "aws_region"},
            labels={"action": action},
        )
        for action, name in _WAF_ACTIONS.items()
    ),
)

EDGE_METRICS = (
    ALB_REQUESTS,
    ALB_REQUEST_DURATIONS,
    ALB_HEALTHY_HOSTS,
    ALB_UNHEALTHY_HOSTS,
    ALB_FAIL_OPEN_REQUESTS,
    ALB_TARGET_CONNECTION_ERRORS,
    ALB_REJECTED_CONNECTIONS,
    ALB_TLS_ERRORS,
    ROUTE53_HEALTH_CHECK_HEALTHY,
    WAF_REQUESTS,
)
