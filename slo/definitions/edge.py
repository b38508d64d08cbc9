"""What guests meet first: Route 53, WAF and the load balancer. Their failures are the guests' own, so these page.

Limits are those of AWS's recommended alarms (Amazon CloudWatch User Guide, "Recommended alarms") unless another source
is named.
"""

from datetime import timedelta
from decimal import Decimal

from slo import Events, Rolling, Slo, TimeSlice
from slo.causes import Cause, Component, Query, Signal, Source, Threshold
from slo.metrics.edge import (
    ALB_FAIL_OPEN_REQUESTS,
    ALB_HEALTHY_HOSTS,
    ALB_REJECTED_CONNECTIONS,
    ALB_REQUEST_DURATIONS,
    ALB_REQUESTS,
    ALB_TARGET_CONNECTION_ERRORS,
    ALB_TLS_ERRORS,
    ALB_UNHEALTHY_HOSTS,
    EDGE_METRICS,
    ROUTE53_HEALTH_CHECK_HEALTHY,
    WAF_REQUESTS,
)

OWNER = "loyalty-sre"
MONTH = Rolling(days=30)
MINUTE = timedelta(minutes=1)
# No data pages as well, as the promises do. The alarms in CloudWatch watch the same without the exporters, so their
# outage is no emergency before an hour.
UNSEEN = timedelta(hours=1)
_REQUESTS_PER_SECOND = Decimal(27)  # all of the redemption's, as its own promises expect

sources = (Source(component=Component.EDGE, process="exporters", metrics=EDGE_METRICS),)

availability = Slo(
    service="edge",
    name="availability",
    component=Component.EDGE,
    signals=(Signal.ERRORS,),
    description="A request that reaches the load balancer gets an answer that is no server error.",
    objective=Decimal("99.95"),
    window=MONTH,
    sli=Events(bad=ALB_REQUESTS.where(outcome=("target_error", "elb_error")), all=ALB_REQUESTS.where()),
    reason=(
        "The redemption promises 99.99 % and AWS 99.99 % for the load balancer "
        "(aws.amazon.com/elasticloadbalancing/sla); "
        "together 99.98 %. 99.95 % leaves something for what only happens between the two."
    ),
    owner=OWNER,
    expected_events_per_second=_REQUESTS_PER_SECOND,
    absent_after=UNSEEN,
)

latency = Slo(
    service="edge",
    name="latency",
    component=Component.EDGE,
    signals=(Signal.LATENCY,),
    description="99 in 100 requests are answered within 0.3 s of leaving the load balancer.",
    objective=Decimal(99),
    window=MONTH,
    sli=Events(bad=ALB_REQUEST_DURATIONS.where(speed="slow"), all=ALB_REQUEST_DURATIONS.where()),
    reason=(
        "The redemption promises 99 in 100 within 0.25 s, as it measures itself; 50 ms more are for the "
        "way through the "
        "cluster's network and for waiting in front of a busy pod, which it cannot see."
    ),
    owner=OWNER,
    expected_events_per_second=_REQUESTS_PER_SECOND,
    absent_after=UNSEEN,
)

reachability = Slo(
    service="edge",
    name="reachability",
    component=Component.EDGE,
    signals=(Signal.ERRORS,),
    description="The service can be reached from the world outside.",
    objective=Decimal("99.95"),
    window=MONTH,
    sli=TimeSlice(ROUTE53_HEALTH_CHECK_HEALTHY.where(), bad_below=Decimal(1)),
    reason=(
        "As the availability, of which this is the part that no request tells: what never arrives counts nowhere. "
        "Route 53 asks from several places of the world, so one bad line does not make a minute bad."
    ),
    owner=OWNER,
    absent_after=UNSEEN,
)

_TARGETS = 'aws elbv2 describe-target-health --target-group-arn "$TARGET_GROUP_ARN"  # which are unhealthy, and why'
_PODS = "kubectl get pods -l app.kubernetes.io/name=redemption -o wide  # the pods behind the targets"
_BALANCER = (
    'aws elbv2 describe-load-balancers --load-balancer-arns "$LOAD_BALANCER_ARN" '
    "--query 'LoadBalancers[0].[State,AvailabilityZones]'  # as AWS sees it"
)
_WAF = (
    'aws wafv2 get-sampled-requests --web-acl-arn "$WEB_ACL_ARN" --rule-metric-name "$RULE" --scope REGIONAL '
    '--time-window StartTime="$START",EndTime="$END" --max-items 100  # who is blocked, by which rule'
)

causes = (
    Cause(
        component=Component.EDGE,
        signal=Signal.TRAFFIC,
        name="traffic-fell",
        summary="The requests have fallen to less than a quarter within minutes.",
        condition=Query(
            promql=(
                "sum by (load_balancer) (rate(alb_requests_total[5m]))\n"
                "< 0.25 * sum by (load_balancer) (rate(alb_requests_total[1h]))\n"
                "and\n"
                "sum by (load_balancer) (rate(alb_requests_total[1h])) > 1"
            ),
            metrics=(ALB_REQUESTS,),
            fires={'alb_requests_total{load_balancer="app/redemption", outcome="ok"}': "0+1600x50 80000x30"},
            near_miss={'alb_requests_total{load_balancer="app/redemption", outcome="ok"}': "0+1600x50 80000+640x30"},
        ),
        hold=10 * MINUTE,
        reason=(
            "The daily curve changes by a few percent in five minutes; a fall to a quarter of the hour's "
            "mean is somebody "
            "in front of us who no longer sends, or DNS. Under one request a second a mean says nothing."
        ),
        owner=OWNER,
        diagnosis=(_BALANCER, 'dig +short "$DOMAIN" @1.1.1.1  # does the name still lead here?'),
        mitigation="Ask who calls us: partners, the app, the CDN. A sale that has ended falls in the same way.",
    ),
    Cause(
        component=Component.EDGE,
        signal=Signal.TRAFFIC,
        name="many-blocked",
        summary="WAF blocks more than a fifth of the requests.",
        condition=Query(
            promql=(
                'sum by (web_acl) (rate(waf_requests_total{action="blocked", rule="ALL"}[15m]))\n'
                '/ sum by (web_acl) (rate(waf_requests_total{action=~"allowed|blocked", rule="ALL"}[15m])) > 0.2'
            ),
            metrics=(WAF_REQUESTS,),
            fires={
                'waf_requests_total{action="blocked", rule="ALL", web_acl="redemption"}': "0+300",
                'waf_requests_total{action="allowed", rule="ALL", web_acl="redemption"}': "0+1000",
            },
            near_miss={
                'waf_requests_total{action="blocked", rule="ALL", web_acl="redemption"}': "0+200",
                'waf_requests_total{action="allowed", rule="ALL", web_acl="redemption"}': "0+1000",
            },
        ),
        hold=15 * MINUTE,
        reason=(
            "Scanners are a few percent of any public address. A fifth for a quarter of an hour is an "
            "attack, or a rule "
            "that turns guests away; both want a look, and neither is one of the availability's bad events."
        ),
        owner=OWNER,
        diagnosis=(_WAF,),
        mitigation=(
            "If guests are blocked, set that rule to count only; if it is an attack, leave it and watch the load."
        ),
    ),
    Cause(
        component=Component.EDGE,
        signal=Signal.ERRORS,
        name="targets-unhealthy",
        summary="The load balancer leaves out a pod that does not answer its health check.",
        condition=Threshold(gauge=ALB_UNHEALTHY_HOSTS.where(), above=Decimal(0)),
        hold=5 * MINUTE,
        reason="AWS recommends any for 5 minutes; a rollout is over sooner.",
        owner=OWNER,
        diagnosis=(_TARGETS, _PODS),
        mitigation="Delete the pod; its deployment makes another.",
    ),
    Cause(
        component=Component.EDGE,
        signal=Signal.ERRORS,
        name="fail-open",
        summary="No target is healthy, so the load balancer sends requests to all.",
        condition=Query(
            promql="increase(alb_fail_open_requests_total[5m]) > 0",
            metrics=(ALB_FAIL_OPEN_REQUESTS,),
            fires={'alb_fail_open_requests_total{target_group="redemption"}': "0+1"},
            near_miss={'alb_fail_open_requests_total{target_group="redemption"}': "9"},
        ),
        hold=MINUTE,
        reason=(
            "It fails open only when no target is healthy (Elastic Load Balancing, target group health); the errors "
            "themselves page by the availability, this says why."
        ),
        owner=OWNER,
        diagnosis=(_TARGETS, _PODS),
        mitigation="Undo the last change of the health check or the release; requests still reach pods meanwhile.",
    ),
    Cause(
        component=Component.EDGE,
        signal=Signal.ERRORS,
        name="target-connections-fail",
        summary="The load balancer cannot connect to pods.",
        condition=Query(
            promql="increase(alb_target_connection_errors_total[5m]) > 0",
            metrics=(ALB_TARGET_CONNECTION_ERRORS,),
            fires={'alb_target_connection_errors_total{target_group="redemption"}': "0+1"},
            near_miss={'alb_target_connection_errors_total{target_group="redemption"}': "9"},
        ),
        hold=5 * MINUTE,
        reason=(
            "AWS recommends any in 3 of 5 minutes; a pod that is stopped takes its leave first, so a rollout has none."
        ),
        owner=OWNER,
        diagnosis=(_TARGETS, _PODS),
        mitigation="Look for pods that end without draining, and for security groups that were changed.",
    ),
    Cause(
        component=Component.EDGE,
        signal=Signal.ERRORS,
        name="tls-errors",
        summary="Many clients fail to agree on TLS.",
        condition=Query(
            promql=(
                "sum by (load_balancer) (rate(alb_tls_negotiation_errors_total[15m]))\n"
                "> 0.05 * sum by (load_balancer) (rate(alb_requests_total[15m]))"
            ),
            metrics=(ALB_TLS_ERRORS, ALB_REQUESTS),
            fires={
                'alb_tls_negotiation_errors_total{load_balancer="app/redemption"}': "0+60",
                'alb_requests_total{load_balancer="app/redemption", outcome="ok"}': "0+1000",
            },
            near_miss={
                'alb_tls_negotiation_errors_total{load_balancer="app/redemption"}': "0+40",
                'alb_requests_total{load_balancer="app/redemption", outcome="ok"}': "0+1000",
            },
        ),
        hold=15 * MINUTE,
        reason=(
            "Scanners with old protocols are always there; one for each twenty requests is more than they are, "
            "and most often a certificate or a policy that was just changed."
        ),
        owner=OWNER,
        diagnosis=(
            'openssl s_client -connect "$DOMAIN:443" -servername "$DOMAIN" </dev/null  # the certificate, and its end',
            _BALANCER,
        ),
        mitigation="Undo the last change of the certificate or the security policy.",
    ),
    Cause(
        component=Component.EDGE,
        signal=Signal.SATURATION,
        name="targets-few",
        summary="A target group has fewer than two healthy targets.",
        condition=Threshold(gauge=ALB_HEALTHY_HOSTS.where(), below=Decimal(2)),
        hold=5 * MINUTE,
        reason="With one target its end is an outage; the service runs at least one pod in each of three zones.",
        owner=OWNER,
        diagnosis=(_TARGETS, _PODS),
        mitigation="Scale the deployment up; look at the nodes of the zones that are missing.",
    ),
    Cause(
        component=Component.EDGE,
        signal=Signal.SATURATION,
        name="connections-rejected",
        summary="The load balancer refuses connections.",
        condition=Query(
            promql="increase(alb_rejected_connections_total[5m]) > 0",
            metrics=(ALB_REJECTED_CONNECTIONS,),
            fires={'alb_rejected_connections_total{load_balancer="app/redemption"}': "0+1"},
            near_miss={'alb_rejected_connections_total{load_balancer="app/redemption"}': "9"},
        ),
        hold=5 * MINUTE,
        reason=(
            "AWS recommends any in 3 of 5 minutes; it refuses only at its maximum, and such a guest counts "
            "nowhere else."
        ),
        owner=OWNER,
        diagnosis=(_BALANCER,),
        mitigation="Reserve capacity units for the load balancer; before a sale, ahead of it.",
    ),
)
