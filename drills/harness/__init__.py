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
from drills.harness.pages import Pages, pages
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
from drills.harness.redemption import LedgerDatabase, Service, ledger_database, service
from drills.harness.toxiproxy import Toxiproxy, toxiproxy
from drills.harness.traffic import Load, Traffic, traffic
from drills.harness.webhook import Notification, WebhookReceiver, webhook_receiver

__all__ = [
    "ActiveAlert",
    "Alertmanager",
    "HarnessError",
    "Jaeger",
    "LedgerDatabase",
    "Load",
    "Notification",
    "Pages",
    "Process",
    "Prometheus",
    "Sample",
    "Series",
    "Service",
    "TerminatedError",
    "Toxiproxy",
    "Traffic",
    "WebhookReceiver",
    "alertmanager",
    "free_ports",
    "jaeger",
    "ledger_database",
    "pages",
    "prometheus",
    "running",
    "service",
    "tool",
    "toxiproxy",
    "traffic",
    "unwinding_on_sigterm",
    "wait_until",
    "webhook_receiver",
]
