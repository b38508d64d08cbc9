"""Real servers on free loopback ports, in temporary folders, for tests, demo and drills alike.

Each is a context manager that yields a small value with the server's URL once it answers::

    with webhook_receiver() as people, alertmanager(config(people.url)) as alerts:
        with prometheus(rules=[Path("rules.yaml")], alertmanager_url=alerts.url) as metrics:
            metrics.query("up")

Leaving the block stops the server, in reverse order of the start, also on an exception, Ctrl-C or SIGTERM; a guardian
process stops what a SIGKILL leaves behind. What is missing or does not start raises `HarnessError`.
"""

from drills.harness.alertmanager import Alertmanager, alertmanager
from drills.harness.http import wait_until
from drills.harness.jaeger import Jaeger, jaeger
from drills.harness.karpenter import Karpenter, karpenter
from drills.harness.kube_state_metrics import KubeStateMetrics, kube_state_metrics
from drills.harness.kubernetes import Cluster, kubernetes
from drills.harness.moto import MotoServer, moto_server
from drills.harness.pages import Pages, pages
from drills.harness.postgres import PostgresPair, PostgresTls, postgres_pair, postgres_tls
from drills.harness.process import (
    HarnessError,
    Process,
    TerminatedError,
    free_ports,
    running,
    tool,
    unwinding_on_sigterm,
)
from drills.harness.prometheus import ActiveAlert, Prometheus, Sample, Series, prometheus
from drills.harness.redemption import LedgerDatabase, Service, ledger_database, service, worker
from drills.harness.sqs import SqsQueue, sqs_queue
from drills.harness.thanos import ThanosQuery, ThanosStore, thanos_query, thanos_rule, thanos_sidecar
from drills.harness.tokens import Issuer
from drills.harness.toxiproxy import Toxiproxy, toxiproxy
from drills.harness.traffic import Load, Traffic, traffic
from drills.harness.valkey import ValkeyCluster, valkey_cluster
from drills.harness.webhook import Notification, WebhookReceiver, webhook_receiver

__all__ = [
    "ActiveAlert",
    "Alertmanager",
    "Cluster",
    "HarnessError",
    "Issuer",
    "Jaeger",
    "Karpenter",
    "KubeStateMetrics",
    "LedgerDatabase",
    "Load",
    "MotoServer",
    "Notification",
    "Pages",
    "PostgresPair",
    "PostgresTls",
    "Process",
    "Prometheus",
    "Sample",
    "Series",
    "Service",
    "SqsQueue",
    "TerminatedError",
    "ThanosQuery",
    "ThanosStore",
    "Toxiproxy",
    "Traffic",
    "ValkeyCluster",
    "WebhookReceiver",
    "alertmanager",
    "free_ports",
    "jaeger",
    "karpenter",
    "kube_state_metrics",
    "kubernetes",
    "ledger_database",
    "moto_server",
    "pages",
    "postgres_pair",
    "postgres_tls",
    "prometheus",
    "running",
    "service",
    "sqs_queue",
    "thanos_query",
    "thanos_rule",
    "thanos_sidecar",
    "tool",
    "toxiproxy",
    "traffic",
    "unwinding_on_sigterm",
    "valkey_cluster",
    "wait_until",
    "webhook_receiver",
    "worker",
]
