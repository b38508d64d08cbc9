"""What we expect of the cluster that runs the service (EKS with Karpenter), and what may soon hurt it.

Nobody is woken: a pod or a node less is what the spread over zones is for. Who is hurt pages by other promises. Limits
with the word mixin are those of kubernetes-mixin 1.5 (alerts/).
"""

from datetime import timedelta
from decimal import Decimal

from slo import Alert, Rolling, Severity, Slo, TimeSlice
from slo.causes import Cause, Component, Query, Signal, Source, Threshold
from slo.metrics.eks import (
    EKS_IDLE_HEADROOM,
    EKS_METRICS,
    EKS_WORKLOAD_ZONE_SKEW,
    EKS_WORKLOAD_ZONE_SKEW_LIMIT,
    EKS_ZONE_READY_NODES,
    KARPENTER_CLOUD_ERRORS,
    KARPENTER_METRICS,
    KARPENTER_POD_UNSTARTED,
    KARPENTER_POOL_LIMIT,
    KARPENTER_POOL_USAGE,
    KARPENTER_SYNCED,
    KARPENTER_TERMINATED,
    KUBE_CONTAINER_RESTARTS,
    KUBE_CONTAINER_TERMINATED,
    KUBE_CONTAINER_WAITING,
    KUBE_DEPLOYMENT_AVAILABLE,
    KUBE_DEPLOYMENT_REPLICAS,
    KUBE_HPA_CURRENT,
    KUBE_HPA_MAX,
    KUBE_HPA_MIN,
    KUBE_METRICS,
    KUBE_NODE_CONDITION,
    KUBE_PDB_ALLOWED,
    KUBE_PDB_DESIRED,
    KUBE_PDB_HEALTHY,
    KUBE_POD_STATUS_UNSCHEDULABLE,
)
from slo.runbook import Runbook, Step

OWNER = "loyalty-sre"
MONTH = Rolling(days=30)
MINUTE = timedelta(minutes=1)

sources = (
    Source(component=Component.EKS, process="exporters", metrics=EKS_METRICS),
    Source(component=Component.EKS, process="kube-state-metrics", metrics=KUBE_METRICS),
    Source(component=Component.EKS, process="Karpenter", metrics=KARPENTER_METRICS),
)

_NODES = "kubectl get nodes -L topology.kubernetes.io/zone -L karpenter.sh/nodepool  # which zones have nodes"
_NODE_CLAIMS = "kubectl get nodeclaims -o wide  # what Karpenter has asked for, and how far it is"
_PENDING = "kubectl get pods --all-namespaces --field-selector status.phase=Pending  # who has no place"

# --- promises -------------------------------------------------------------------------------------------------------

zones = Slo(
    service="eks",
    name="zones",
    component=Component.EKS,
    signals=(Signal.ERRORS,),
    description="Every zone has a node that is ready.",
    objective=Decimal("99.9"),
    window=MONTH,
    sli=TimeSlice(EKS_ZONE_READY_NODES.where(), bad_below=Decimal(1)),
    reason=(
        "A zone that is lost takes a third of the pods; while it is away, the loss of another would be an outage. "
        "Karpenter brings a node within minutes, so 43 minutes a month are several of its replacements."
    ),
    owner=OWNER,
    alerts=(Alert(Severity.TICKET),),
    absent_after=15 * MINUTE,
    runbook=Runbook(
        impact=(
            "Guests notice nothing as long as the other zones carry the load. The loss of another one now would be an "
            "outage."
        ),
        diagnosis=(
            _NODES,
            _NODE_CLAIMS,
            (
                "kubectl logs --namespace kube-system -l app.kubernetes.io/name=karpenter --since 30m  # why it "
                "brings none"
            ),
            "aws health describe-events --filter eventStatusCodes=open  # is a zone of AWS in trouble?",
        ),
        mitigation=(
            Step(
                "Allow more instance types in the NodePool",
                "Karpenter says that there is no capacity",
                "other types may be slower or dearer",
            ),
            Step(
                "Free addresses in the zone's subnet, or add a subnet",
                "it says that there are no free addresses",
                "none for what runs",
            ),
            Step(
                "Do nothing but watch the headroom",
                "AWS has lost the zone",
                "with one zone less, three tenths of headroom are about what is missing",
            ),
        ),
        escalation=(
            "Two zones without nodes: call the platform's on-call now. One: working hours, if the headroom holds."
        ),
    ),
)

headroom = Slo(
    service="eks",
    name="headroom",
    component=Component.EKS,
    signals=(Signal.SATURATION,),
    description="Three tenths of the cluster are idle, ready for the first minutes of a sale or the loss of a zone.",
    objective=Decimal(95),
    window=MONTH,
    sli=TimeSlice(EKS_IDLE_HEADROOM.where(), bad_below=Decimal("0.3")),
    reason=(
        "30 % is the baseline of the platform: about what the loss of one of three zones takes. It is "
        "there to be used, "
        "so 5 % of a month, 36 hours of sales and failures, may eat into it."
    ),
    owner=OWNER,
    alerts=(Alert(Severity.TICKET),),
    absent_after=15 * MINUTE,
    runbook=Runbook(
        impact=(
            "Guests notice nothing yet. A sale that begins now, or a zone that is lost, would find no room for a few "
            "minutes: requests would be shed."
        ),
        diagnosis=(_NODES, _PENDING, _NODE_CLAIMS, "kubectl top nodes  # what is used, against what is asked for"),
        mitigation=(
            Step(
                "Wait for Karpenter",
                "nodes are on their way; three minutes are usual",
                "none",
            ),
            Step(
                "Raise the NodePool's limit",
                "it is reached",
                "costs; look first at what asks for so much",
            ),
            Step(
                "Scale down what can wait: batch jobs, previews",
                "there is no capacity to be had",
                "their work comes later",
            ),
        ),
        escalation="Before an announced sale call the platform's on-call when it is not back an hour ahead of it.",
    ),
)

# --- causes ---------------------------------------------------------------------------------------------------------

_POD = 'kubectl describe pod --namespace "$NAMESPACE" "$POD"  # its events tell why'
_PENDING = "kubectl get pods --all-namespaces --field-selector status.phase=Pending -o wide  # what waits"
_CLAIMS = "kubectl get nodeclaims -o wide  # what Karpenter has asked for, and what became of it"
_KARPENTER = (
    "kubectl logs --namespace kube-system -l app.kubernetes.io/name=karpenter --since 30m  # why, in its own words"
)
_NODES = "kubectl get nodes -L topology.kubernetes.io/zone,karpenter.sh/nodepool  # which are ready, and where"
_SPREAD = 'kubectl get pods --namespace "$NAMESPACE" -o wide  # which pod is on which node'

causes = (
    Cause(
        component=Component.EKS,
        signal=Signal.LATENCY,
        name="pods-slow-to-start",
        summary="A pod has waited for more than five minutes to run.",
        condition=Threshold(gauge=KARPENTER_POD_UNSTARTED.where(), above=Decimal(300)),
        hold=5 * MINUTE,
        reason=(
            "A node of Karpenter's is ready within one or two minutes and an image is there within another; "
            "a sale that begins is over its peak before a pod that takes five."
        ),
        owner=OWNER,
        diagnosis=(_PENDING, _POD),
        mitigation=(
            "See whether it waits for a node, a volume or an image, and mend that; a restart begins the wait anew."
        ),
    ),
    Cause(
        component=Component.EKS,
        signal=Signal.TRAFFIC,
        name="nodes-churn",
        summary="More than half of the nodes went within an hour.",
        condition=Query(
            promql=(
                "sum(increase(karpenter_nodeclaims_terminated_total[1h]))\n"
                '> 0.5 * sum(kube_node_status_condition{condition="Ready", status="true"})'
            ),
            metrics=(KARPENTER_TERMINATED, KUBE_NODE_CONDITION),
            fires={
                'karpenter_nodeclaims_terminated_total{nodepool="default"}': "0+0.1",
                'kube_node_status_condition{condition="Ready", node="a", status="true"}': "1",
                'kube_node_status_condition{condition="Ready", node="b", status="true"}': "1",
                'kube_node_status_condition{condition="Ready", node="c", status="true"}': "1",
            },
            near_miss={
                'karpenter_nodeclaims_terminated_total{nodepool="default"}': "0+0.02",
                'kube_node_status_condition{condition="Ready", node="a", status="true"}': "1",
                'kube_node_status_condition{condition="Ready", node="b", status="true"}': "1",
                'kube_node_status_condition{condition="Ready", node="c", status="true"}': "1",
            },
        ),
        hold=15 * MINUTE,
        reason=(
            "What is asked of a cluster is pods and nodes. Each node that goes moves its pods; half of "
            "the fleet within an "
            "hour is a consolidation that does not settle, or a spot market that takes its nodes back."
        ),
        owner=OWNER,
        diagnosis=(_CLAIMS, _KARPENTER),
        mitigation="Lengthen the pool's consolidateAfter, or take on-demand nodes for the while; both cost money.",
    ),
    Cause(
        component=Component.EKS,
        signal=Signal.ERRORS,
        name="node-not-ready",
        summary="A node is not ready.",
        condition=Threshold(gauge=KUBE_NODE_CONDITION.where(condition="Ready", status="true"), below=Decimal(1)),
        hold=15 * MINUTE,
        reason=(
            "The mixin's KubeNodeNotReady: 15 minutes, by when Kubernetes has moved its pods and Karpenter replaced it."
        ),
        owner=OWNER,
        diagnosis=(_NODES, 'kubectl describe node "$NODE"  # its conditions and events'),
        mitigation="Delete its node claim; Karpenter makes another node.",
    ),
    Cause(
        component=Component.EKS,
        signal=Signal.ERRORS,
        name="containers-crash",
        summary="A container crashes again and again.",
        condition=Query(
            promql='max_over_time(kube_pod_container_status_waiting_reason{reason="CrashLoopBackOff"}[5m]) >= 1',
            metrics=(KUBE_CONTAINER_WAITING,),
            fires={'kube_pod_container_status_waiting_reason{pod="redemption-1", reason="CrashLoopBackOff"}': "1"},
            near_miss={'kube_pod_container_status_waiting_reason{pod="redemption-1", reason="ImagePullBackOff"}': "1"},
        ),
        hold=15 * MINUTE,
        reason="The mixin's KubePodCrashLooping: 15 minutes of it, looked at over 5, as it runs in between.",
        owner=OWNER,
        diagnosis=('kubectl logs --namespace "$NAMESPACE" "$POD" --previous  # its last words', _POD),
        mitigation="Undo the last release or configuration.",
    ),
    Cause(
        component=Component.EKS,
        signal=Signal.ERRORS,
        name="out-of-memory",
        summary="A container was ended for its use of memory.",
        condition=Query(
            promql=(
                "increase(kube_pod_container_status_restarts_total[10m]) > 0\n"
                "and on (namespace, pod, container)\n"
                'kube_pod_container_status_last_terminated_reason{reason="OOMKilled"} == 1'
            ),
            metrics=(KUBE_CONTAINER_RESTARTS, KUBE_CONTAINER_TERMINATED),
            fires={
                'kube_pod_container_status_restarts_total{container="api", namespace="n", pod="p"}': "0+1",
                (
                    "kube_pod_container_status_last_terminated_reason"
                    '{container="api", namespace="n", pod="p", reason="OOMKilled"}'
                ): "1",
            },
            near_miss={
                'kube_pod_container_status_restarts_total{container="api", namespace="n", pod="p"}': "0+1",
                (
                    "kube_pod_container_status_last_terminated_reason"
                    '{container="api", namespace="n", pod="p", reason="Error"}'
                ): "1",
            },
        ),
        hold=MINUTE,
        reason="Every one broke off the requests of its moment, and the next comes: memory that is short stays short.",
        owner=OWNER,
        diagnosis=(_POD, 'kubectl top pod --namespace "$NAMESPACE" --containers  # how much the others use'),
        mitigation="Raise its limit for now; look for what grew with the last release.",
    ),
    Cause(
        component=Component.EKS,
        signal=Signal.ERRORS,
        name="replicas-missing",
        summary="A deployment has fewer pods available than it wants.",
        condition=Query(
            promql="kube_deployment_spec_replicas > kube_deployment_status_replicas_available",
            metrics=(KUBE_DEPLOYMENT_REPLICAS, KUBE_DEPLOYMENT_AVAILABLE),
            fires={
                'kube_deployment_spec_replicas{deployment="redemption", namespace="n"}': "6",
                'kube_deployment_status_replicas_available{deployment="redemption", namespace="n"}': "5",
            },
            near_miss={
                'kube_deployment_spec_replicas{deployment="redemption", namespace="n"}': "6",
                'kube_deployment_status_replicas_available{deployment="redemption", namespace="n"}': "6",
            },
        ),
        hold=15 * MINUTE,
        reason="The mixin's KubeDeploymentReplicasMismatch: 15 minutes, which a rollout that goes well does not take.",
        owner=OWNER,
        diagnosis=(_PENDING, _SPREAD),
        mitigation="If a rollout is stuck, undo it; if nodes are missing, look at Karpenter.",
    ),
    Cause(
        component=Component.EKS,
        signal=Signal.ERRORS,
        name="budget-broken",
        summary="A workload has fewer healthy pods than its disruption budget asks for.",
        condition=Query(
            promql=(
                "kube_poddisruptionbudget_status_desired_healthy - kube_poddisruptionbudget_status_current_healthy > 0"
            ),
            metrics=(KUBE_PDB_DESIRED, KUBE_PDB_HEALTHY),
            fires={
                'kube_poddisruptionbudget_status_desired_healthy{poddisruptionbudget="redemption"}': "4",
                'kube_poddisruptionbudget_status_current_healthy{poddisruptionbudget="redemption"}': "3",
            },
            near_miss={
                'kube_poddisruptionbudget_status_desired_healthy{poddisruptionbudget="redemption"}': "4",
                'kube_poddisruptionbudget_status_current_healthy{poddisruptionbudget="redemption"}': "4",
            },
        ),
        hold=15 * MINUTE,
        reason="The mixin's KubePdbNotEnoughHealthyPods: what the workload itself calls too few, for 15 minutes.",
        owner=OWNER,
        diagnosis=(
            'kubectl describe poddisruptionbudget --namespace "$NAMESPACE"  # who counts, who is healthy',
            _PENDING,
        ),
        mitigation="Bring its pods back; nodes are not drained meanwhile, updates of the cluster wait.",
    ),
    Cause(
        component=Component.EKS,
        signal=Signal.ERRORS,
        name="zones-skewed",
        summary="The pods of a workload are spread over the zones more unevenly than it allows.",
        condition=Query(
            promql="eks_workload_zone_skew_pods > eks_workload_zone_skew_limit_pods",
            metrics=(EKS_WORKLOAD_ZONE_SKEW, EKS_WORKLOAD_ZONE_SKEW_LIMIT),
            fires={
                'eks_workload_zone_skew_pods{namespace="n", workload="redemption"}': "2",
                'eks_workload_zone_skew_limit_pods{namespace="n", workload="redemption"}': "1",
            },
            near_miss={
                'eks_workload_zone_skew_pods{namespace="n", workload="redemption"}': "1",
                'eks_workload_zone_skew_limit_pods{namespace="n", workload="redemption"}': "1",
            },
        ),
        hold=15 * MINUTE,
        reason=(
            "The constraint binds only when a pod is placed; after the loss of a node or a scale-down "
            "nothing restores it, "
            "and the loss of the fullest zone then takes more than its share. A rollout is over in a "
            "quarter of an hour."
        ),
        owner=OWNER,
        diagnosis=(_SPREAD, _NODES),
        mitigation="Restart the rollout of the workload: every pod is placed anew.",
    ),
    Cause(
        component=Component.EKS,
        signal=Signal.ERRORS,
        name="nodes-refused",
        summary="EC2 does not give Karpenter what it asks for.",
        condition=Query(
            promql=(
                "sum by (error) (\n"
                '  increase(karpenter_cloudprovider_errors_total{error!="NodeClaimNotFoundError"}[15m])\n'
                ") > 0"
            ),
            metrics=(KARPENTER_CLOUD_ERRORS,),
            fires={'karpenter_cloudprovider_errors_total{error="InsufficientCapacityError", method="Create"}': "0+1"},
            near_miss={'karpenter_cloudprovider_errors_total{error="NodeClaimNotFoundError", method="Get"}': "0+1"},
        ),
        hold=15 * MINUTE,
        reason=(
            "Karpenter tries other types and zones by itself, so single ones do not matter; a quarter of "
            "an hour of them "
            "means that it has none left. A claim that is not found is how it learns that a node is gone."
        ),
        owner=OWNER,
        diagnosis=(_KARPENTER, _CLAIMS),
        mitigation="Allow more instance types, or on-demand nodes, in the pool; look at the account's quotas.",
    ),
    Cause(
        component=Component.EKS,
        signal=Signal.ERRORS,
        name="karpenter-blind",
        summary="Karpenter does not see the cluster as it is, and makes no decision.",
        condition=Threshold(gauge=KARPENTER_SYNCED.where(), below=Decimal(1)),
        hold=10 * MINUTE,
        reason="It is out of step for seconds after a start; in ten minutes a sale needs nodes that it does not bring.",
        owner=OWNER,
        diagnosis=(_KARPENTER, _CLAIMS),
        mitigation="Restart Karpenter; nodes that run are not touched.",
    ),
    Cause(
        component=Component.EKS,
        signal=Signal.SATURATION,
        name="pods-unschedulable",
        summary="A pod fits on no node.",
        condition=Threshold(gauge=KUBE_POD_STATUS_UNSCHEDULABLE.where(), above=Decimal(0)),
        hold=10 * MINUTE,
        reason=(
            "Karpenter answers within a minute or two with a node; ten minutes mean that none can be had, or none fits."
        ),
        owner=OWNER,
        diagnosis=(_PENDING, _KARPENTER),
        mitigation="Look whether the pool is at its limit, EC2 has none left, or the pod asks for what no node has.",
    ),
    Cause(
        component=Component.EKS,
        signal=Signal.SATURATION,
        name="autoscaler-at-maximum",
        summary="A workload has as many pods as its autoscaler may give it.",
        condition=Query(
            promql=(
                "kube_horizontalpodautoscaler_status_current_replicas >= "
                "kube_horizontalpodautoscaler_spec_max_replicas\n"
                "and\n"
                "kube_horizontalpodautoscaler_spec_max_replicas > kube_horizontalpodautoscaler_spec_min_replicas"
            ),
            metrics=(KUBE_HPA_CURRENT, KUBE_HPA_MAX, KUBE_HPA_MIN),
            fires={
                'kube_horizontalpodautoscaler_status_current_replicas{horizontalpodautoscaler="redemption"}': "60",
                'kube_horizontalpodautoscaler_spec_max_replicas{horizontalpodautoscaler="redemption"}': "60",
                'kube_horizontalpodautoscaler_spec_min_replicas{horizontalpodautoscaler="redemption"}': "6",
            },
            near_miss={
                'kube_horizontalpodautoscaler_status_current_replicas{horizontalpodautoscaler="redemption"}': "59",
                'kube_horizontalpodautoscaler_spec_max_replicas{horizontalpodautoscaler="redemption"}': "60",
                'kube_horizontalpodautoscaler_spec_min_replicas{horizontalpodautoscaler="redemption"}': "6",
            },
        ),
        hold=15 * MINUTE,
        reason="The mixin's KubeHpaMaxedOut: 15 minutes at a maximum that differs from the minimum.",
        owner=OWNER,
        diagnosis=('kubectl describe hpa --namespace "$NAMESPACE"  # what it measures, what it wants', _SPREAD),
        mitigation="Raise the maximum, if the database has connections for so many pods: look there first.",
    ),
    Cause(
        component=Component.EKS,
        signal=Signal.SATURATION,
        name="budget-spent",
        summary="A disruption budget allows no pod to be moved.",
        condition=Threshold(gauge=KUBE_PDB_ALLOWED.where(), below=Decimal(1)),
        hold=15 * MINUTE,
        reason=(
            "A rollout spends it for minutes. For a quarter of an hour it blocks Karpenter and every update of nodes, "
            "and the next failure breaks it."
        ),
        owner=OWNER,
        diagnosis=(
            'kubectl describe poddisruptionbudget --namespace "$NAMESPACE"  # who counts, who is healthy',
            _PENDING,
        ),
        mitigation="Give the workload a pod more than the budget asks for, or bring its missing pods back.",
    ),
    Cause(
        component=Component.EKS,
        signal=Signal.SATURATION,
        name="pool-nearly-full",
        summary="A pool of nodes has most of what it may have.",
        condition=Query(
            promql="karpenter_nodepools_usage / karpenter_nodepools_limit > 0.8",
            metrics=(KARPENTER_POOL_USAGE, KARPENTER_POOL_LIMIT),
            fires={
                'karpenter_nodepools_usage{nodepool="default", resource_type="cpu"}': "81",
                'karpenter_nodepools_limit{nodepool="default", resource_type="cpu"}': "100",
            },
            near_miss={
                'karpenter_nodepools_usage{nodepool="default", resource_type="cpu"}': "79",
                'karpenter_nodepools_limit{nodepool="default", resource_type="cpu"}': "100",
            },
        ),
        hold=15 * MINUTE,
        reason=(
            "Above 80 % a zone's loss or a sale finds the limit before it finds nodes; Karpenter stops there "
            "in silence."
        ),
        owner=OWNER,
        diagnosis=("kubectl get nodepools -o wide  # how much, of how much", _CLAIMS),
        mitigation="Raise the pool's limit; it guards against a bill, so say it to whoever pays.",
    ),
)
