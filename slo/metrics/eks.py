"""EKS: what we add (`eks_`), and what we read from kube-state-metrics (`kube_`) and Karpenter (`karpenter_`).

Ours is only what those two cannot know: how pods and nodes are spread over zones, and how much of the cluster is idle.
Names of theirs: kube-state-metrics v2.15 (docs/metrics), Karpenter v1.4 (its metrics.go files). Both are scraped with
`honor_labels`, as their labels `namespace` and `pod` are those of what they describe.
"""

from slo.metrics.kinds import Counter, Gauge

# --- ours -----------------------------------------------------------------------------------------------------------

EKS_LABELS = ("eks_cluster",)
_WORKLOAD_LABELS = (*EKS_LABELS, "namespace", "workload")

EKS_WORKLOAD_ZONE_PODS = Gauge(
    "eks_workload_zone_pods",
    "Ready pods of a workload in a zone; 0 in each zone that has ready nodes and no such pod.",
    open_labels=(*_WORKLOAD_LABELS, "availability_zone"),
)

EKS_WORKLOAD_ZONE_SKEW = Gauge(
    "eks_workload_zone_skew_pods",
    "Ready pods in the workload's fullest zone, less those in its emptiest, among zones that have ready nodes.",
    open_labels=_WORKLOAD_LABELS,
)

EKS_WORKLOAD_ZONE_SKEW_LIMIT = Gauge(
    "eks_workload_zone_skew_limit_pods",
    "The skew over zones that the workload allows itself (maxSkew); without such a constraint there is no series.",
    open_labels=_WORKLOAD_LABELS,
)

EKS_ZONE_READY_NODES = Gauge(
    "eks_zone_ready_nodes",
    "Nodes that are ready, in a zone; 0 in one that had some since the exporter started.",
    open_labels=(*EKS_LABELS, "availability_zone"),
)

EKS_IDLE_HEADROOM = Gauge(
    "eks_idle_headroom_ratio",
    "What no pod has requested of all that ready nodes have to give, 0 to 1.",
    labels={"resource": ("cpu", "memory")},
    open_labels=EKS_LABELS,
)

EKS_METRICS = (
    EKS_WORKLOAD_ZONE_PODS,
    EKS_WORKLOAD_ZONE_SKEW,
    EKS_WORKLOAD_ZONE_SKEW_LIMIT,
    EKS_ZONE_READY_NODES,
    EKS_IDLE_HEADROOM,
)

# --- kube-state-metrics ---------------------------------------------------------------------------------------------

_POD_LABELS = ("namespace", "pod", "uid")

KUBE_POD_STATUS_UNSCHEDULABLE = Gauge(
    "kube_pod_status_unschedulable",
    "1 for a pod that fits on no node; others have no series.",
    open_labels=_POD_LABELS,
)
# Kubernetes may give a container more reasons than are listed; these are the ones that a rule may ask for.
KUBE_CONTAINER_WAITING = Gauge(
    "kube_pod_container_status_waiting_reason",
    "1 for the reason for which a container waits.",
    labels={
        "reason": (
            "ContainerCreating",
            "CrashLoopBackOff",
            "CreateContainerConfigError",
            "CreateContainerError",
            "ErrImagePull",
            "ImagePullBackOff",
            "InvalidImageName",
        )
    },
    open_labels=(*_POD_LABELS, "container"),
)
KUBE_CONTAINER_TERMINATED = Gauge(
    "kube_pod_container_status_last_terminated_reason",
    "1 for the reason for which a container ended the last time.",
    labels={"reason": ("Completed", "ContainerCannotRun", "DeadlineExceeded", "Error", "Evicted", "OOMKilled")},
    open_labels=(*_POD_LABELS, "container"),
)
KUBE_CONTAINER_RESTARTS = Counter(
    "kube_pod_container_status_restarts_total",
    "Restarts of a container.",
    open_labels=(*_POD_LABELS, "container"),
)
KUBE_NODE_CONDITION = Gauge(
    "kube_node_status_condition",
    "1 for the status that a condition of a node has, 0 for the others.",
    labels={
        "condition": ("Ready", "MemoryPressure", "DiskPressure", "PIDPressure", "NetworkUnavailable"),
        "status": ("true", "false", "unknown"),
    },
    open_labels=("node",),
)
KUBE_DEPLOYMENT_REPLICAS = Gauge(
    "kube_deployment_spec_replicas",
    "Pods that a deployment wants.",
    open_labels=("namespace", "deployment"),
)
KUBE_DEPLOYMENT_AVAILABLE = Gauge(
    "kube_deployment_status_replicas_available",
    "Pods that a deployment has and that have been ready for long enough.",
    open_labels=("namespace", "deployment"),
)
_HPA_LABELS = ("namespace", "horizontalpodautoscaler")
KUBE_HPA_MAX = Gauge(
    "kube_horizontalpodautoscaler_spec_max_replicas",
    "Pods that the autoscaler makes at most.",
    open_labels=_HPA_LABELS,
)
KUBE_HPA_MIN = Gauge(
    "kube_horizontalpodautoscaler_spec_min_replicas",
    "Pods that the autoscaler leaves at least.",
    open_labels=_HPA_LABELS,
)
KUBE_HPA_CURRENT = Gauge(
    "kube_horizontalpodautoscaler_status_current_replicas",
    "Pods that there are now.",
    open_labels=_HPA_LABELS,
)
_PDB_LABELS = ("namespace", "poddisruptionbudget")
KUBE_PDB_HEALTHY = Gauge(
    "kube_poddisruptionbudget_status_current_healthy",
    "Healthy pods of a disruption budget.",
    open_labels=_PDB_LABELS,
)
KUBE_PDB_DESIRED = Gauge(
    "kube_poddisruptionbudget_status_desired_healthy",
    "Healthy pods that a disruption budget asks for at least.",
    open_labels=_PDB_LABELS,
)
KUBE_PDB_ALLOWED = Gauge(
    "kube_poddisruptionbudget_status_pod_disruptions_allowed",
    "Pods that may be evicted now.",
    open_labels=_PDB_LABELS,
)

KUBE_METRICS = (
    KUBE_POD_STATUS_UNSCHEDULABLE,
    KUBE_CONTAINER_WAITING,
    KUBE_CONTAINER_TERMINATED,
    KUBE_CONTAINER_RESTARTS,
    KUBE_NODE_CONDITION,
    KUBE_DEPLOYMENT_REPLICAS,
    KUBE_DEPLOYMENT_AVAILABLE,
    KUBE_HPA_MAX,
    KUBE_HPA_MIN,
    KUBE_HPA_CURRENT,
    KUBE_PDB_HEALTHY,
    KUBE_PDB_DESIRED,
    KUBE_PDB_ALLOWED,
)

# --- Karpenter ------------------------------------------------------------------------------------------------------

_NODE_POOL_LABELS = ("nodepool", "capacity_type")

KARPENTER_TERMINATED = Counter(
    "karpenter_nodeclaims_terminated_total",
    "Nodes of Karpenter's that are gone, for whatever reason.",
    open_labels=_NODE_POOL_LABELS,
)
KARPENTER_CLOUD_ERRORS = Counter(
    "karpenter_cloudprovider_errors_total",
    "Answers of EC2 that were errors.",
    open_labels=("controller", "method", "provider", "error"),
)
KARPENTER_POOL_USAGE = Gauge(
    "karpenter_nodepools_usage",
    "What a pool of nodes has of a resource.",
    open_labels=("nodepool", "resource_type"),
)
KARPENTER_POOL_LIMIT = Gauge(
    "karpenter_nodepools_limit",
    "What a pool of nodes may have of a resource.",
    open_labels=("nodepool", "resource_type"),
)
KARPENTER_POD_UNSTARTED = Gauge(
    "karpenter_pods_unstarted_time_seconds",
    "How long a pod that does not run yet has waited since it was made.",
    open_labels=("name", "namespace"),
)
KARPENTER_SYNCED = Gauge(
    "karpenter_cluster_state_synced",
    "1 while Karpenter sees the cluster as it is; 0 means that it makes no decision.",
)

KARPENTER_METRICS = (
    KARPENTER_TERMINATED,
    KARPENTER_CLOUD_ERRORS,
    KARPENTER_POOL_USAGE,
    KARPENTER_POOL_LIMIT,
    KARPENTER_POD_UNSTARTED,
    KARPENTER_SYNCED,
)
