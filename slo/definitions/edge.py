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
from slo.runbook import Runbook, Step

OWNER = "loyalty-sre"
MONTH = Rolling(days=30)
MINUTE = timedelta(minutes=1)
# No data pages as well, as the promises do. The alarms in CloudWatch watch the same without the exporters, so their
# outage is no emergency before an hour.
UNSEEN = timedelta(hours=1)
_REQUESTS_PER_SECOND = Decimal(27)  # all of the redemption's, as its own promises expect

sources = (Source(component=Component.EDGE, process="exporters", metrics=EDGE_METRICS),)

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
    runbook=Runbook(
        impact=(
            "Guests and partners get an error page of the load balancer or of the service. Those with "
            '`outcome="elb_error"` never reached the service, so its own alerts stay silent about them.'
        ),
        diagnosis=(
            _TARGETS,
            _PODS,
            _BALANCER,
            "kubectl rollout history deployment/redemption  # a release just before?",
        ),
        mitigation=(
            Step(
                "Follow `RedemptionAvailabilityPage`",
                '`outcome="target_error"` leads, or that alert fires as well',
                "as it says there",
            ),
            Step(
                "`kubectl rollout undo deployment/redemption`",
                "targets became unhealthy with a release",
                "its fixes go too",
            ),
            Step(
                "Undo the last change of the load balancer, its rules, certificates or security groups",
                '`outcome="elb_error"` leads, and pods are healthy',
                "what it was made for is gone again",
            ),
        ),
        escalation=(
            "Healthy pods and errors of the load balancer for more than ten minutes: open a case with AWS as "
            "production system down, and call the network's on-call."
        ),
    ),
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
    runbook=Runbook(
        impact="Everything feels slow, for partners as for guests: pages, balances, redemptions. Some give up.",
        diagnosis=(_TARGETS, _PODS, "kubectl top pods -l app.kubernetes.io/name=redemption  # is one far busier?"),
        mitigation=(
            Step(
                "Follow `RedemptionLatencyFastPage`",
                "that alert fires as well: then the service itself is slow",
                "as it says there",
            ),
            Step(
                "Delete the slow pod: `kubectl delete pod NAME`",
                "one target is slow and the others are not",
                "its requests end within their drain; the rest get its load",
            ),
            Step(
                "Add pods: `kubectl scale deployment/redemption --replicas N`",
                "requests wait in front of all pods, and the database is not busy",
                "more connections to the database",
            ),
        ),
        escalation="The service measures itself fast and this does not: call the network's on-call.",
    ),
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
    runbook=Runbook(
        impact=(
            "From some places of the world, or from all, the service cannot be reached: the app says that there is no "
            "connection. No request arrives, so nothing else tells of it."
        ),
        diagnosis=(
            'dig +short "$DOMAIN" @1.1.1.1  # does the name still lead to us?',
            'curl --fail --silent --show-error --output /dev/null "https://$DOMAIN/livez"  # from outside our network',
            'openssl s_client -connect "$DOMAIN:443" -servername "$DOMAIN" </dev/null  # the certificate, and its end',
            (
                'aws route53 get-health-check-status --health-check-id "$HEALTH_CHECK_ID"  # from which places it '
                "fails, why"
            ),
            _BALANCER,
        ),
        mitigation=(
            Step(
                "Undo the last change of DNS, certificate, WAF or load balancer",
                "one was made in the last day; names are cached for as long as their TTL",
                "what it was made for is gone again",
            ),
            Step(
                "Renew or replace the certificate",
                "it has ended, or does not hold the name",
                "none",
            ),
            Step(
                "Set the WAF rule that blocks the health checkers to count",
                "the health check gets 403",
                "what the rule keeps out comes in",
            ),
        ),
        escalation=(
            "Not ours within ten minutes of looking: call the network's on-call, open a case with AWS, and look at "
            "health.aws.amazon.com. Tell the hotels' service desk."
        ),
    ),
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
