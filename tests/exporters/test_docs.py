"""docs/exporters.md says what is so: its file is whole, its permissions are those in use, its prices add up."""

from __future__ import annotations

import json
import re
from dataclasses import fields
from pathlib import Path

import exporters
from exporters.aws import _PAGED
from exporters.runner import KINDS
from exporters.settings import Account, Kubernetes, Prices, Redis, Requests, Settings, load

TEXT = (Path(__file__).parents[2] / "docs" / "exporters.md").read_text()

# IAM's prefix of a service, where it is not the name of its API.
_PREFIXES = {"elbv2": "elasticloadbalancing", "resourcegroupstaggingapi": "tag"}


def block(language: str) -> str:
    """The page's one block in this language."""
    (found,) = re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)
    return str(found)


def test_the_file_has_every_key_with_its_default(tmp_path: Path) -> None:
    """It can be copied; what is left out there is what is said there."""
    (tmp_path / "secret").write_text("made-up")
    text = re.sub(r"/var/run/secrets/kubernetes.io/serviceaccount/[\w.]+", str(tmp_path / "secret"), block("toml"))
    file = tmp_path / "exporters.toml"
    file.write_text(text)

    told = load(file)

    known = Settings()
    for name in (
        "listen",
        "sources",
        "period_seconds",
        "delay_seconds",
        "max_staleness_seconds",
        "discovery_seconds",
        "performance_insights",
    ):
        assert getattr(told, name) == getattr(known, name), name
    assert told.requests == known.requests
    assert told.prices.get_metric_data_usd == known.prices.get_metric_data_usd
    keys = {one.name for kind in (Settings, Account, Requests, Prices, Kubernetes, Redis) for one in fields(kind)}
    assert {key for key in keys if not re.search(rf"^(# |\[+)?{key}\b", text, re.MULTILINE)} == set()


def test_the_policy_allows_what_is_asked_and_nothing_else() -> None:
    """Every API that the code names has its permission, and no other has one."""
    code = "".join(file.read_text() for file in Path(exporters.__path__[0]).rglob("*.py"))
    asked = {*_PAGED, *re.findall(r'"((?:cloudwatch|pi|sqs|wafv2):Get\w+)"', code)}

    (statement,) = json.loads(block("json"))["Statement"]

    allowed = {":".join((_PREFIXES.get(service, service), action)) for service, _, action in map(_parts, asked)}
    assert set(statement["Action"]) == allowed


def _parts(api: str) -> tuple[str, str, str]:
    return api.partition(":")


def test_the_prices_add_up() -> None:
    """Metrics of each kind of resource by its dimensions, at 43,200 minutes a month and $0.01 for 1,000."""
    metrics: dict[tuple[str, ...], set[str]] = {}
    for kind in KINDS.values():
        for metric in kind.metrics:
            for one in metric.cloudwatch:
                metrics.setdefault((one.namespace, *sorted(one.dimensions)), set()).add(one.name)
    rows = {
        "RDS instance": ("AWS/RDS", "DBInstanceIdentifier"),
        "ElastiCache node": ("AWS/ElastiCache", "CacheClusterId"),
        "queue": ("AWS/SQS", "QueueName"),
        "web ACL": ("AWS/WAFV2", "Region", "Rule", "WebACL"),
        "health check": ("AWS/Route53", "HealthCheckId"),
    }

    for name, key in rows.items():
        count = len(metrics.pop(key))
        assert f"| {name} | {count} | {count * 0.432:.2f} |" in TEXT
    balancer = len(metrics.pop(("AWS/ApplicationELB", "LoadBalancer")))
    targets = len(metrics.pop(("AWS/ApplicationELB", "LoadBalancer", "TargetGroup")))
    figures = f"| {balancer}, and {targets} | {balancer * 0.432:.2f}, and {targets * 0.432:.2f} |"
    assert f"| load balancer, and each of its target groups {figures}" in TEXT
    assert not metrics
