"""`[tool.slo.cloudwatch]`: what it may hold, and that this repository's own names every resource that is needed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from alerts.cloudwatch.sources import _resources
from slo import cloudwatch, metrics, settings
from slo.metrics import Metric, edge, queue, rds, redis

ROOT = Path(__file__).parents[3]
GOOD: dict[str, Any] = {"region": "eu-central-1", "account": "123456789012"}


def test_a_table_is_read() -> None:
    """What is left out has a default; the values of a label are a key of their own."""
    read = cloudwatch.parsed({**GOOD, "dimensions": {"QueueName": {"work": ["orders"]}, "WebACL": ["shop"]}})

    assert read is not None
    assert (read.prefix, read.page_topic, read.ticket_topic, read.services) == ("slo-", "slo-page", "slo-ticket", ())
    assert read.dimensions == {"QueueName.work": ("orders",), "WebACL": ("shop",)}
    assert cloudwatch.parsed(None) is None


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"regoin": "x"}, "unknown key 'regoin' in [tool.slo.cloudwatch]; known are account, dimensions, page_topic"),
        ({"region": "Frankfurt"}, "region must be the code of a region, 'eu-central-1' say, not 'Frankfurt'"),
        ({"account": 123456789012}, "account must be an account's 12 digits, as text, not 123456789012"),
        ({"prefix": "a b"}, "prefix must be at most 40 letters"),
        ({"page_topic": "arn:aws:sns"}, "page_topic must be the name of an SNS topic"),
        ({"services": "redemption"}, "services must be a list of services' names"),
        ({"dimensions": ["a"]}, "[tool.slo.cloudwatch.dimensions] must be a table"),
        ({"dimensions": {"WebACL": "shop"}}, "WebACL must be a list of one or more values"),
        ({"dimensions": {"WebACL": []}}, "WebACL must be a list of one or more values"),
        ({"dimensions": {"QueueName": {"work": [1]}}}, "QueueName.work must be a list of one or more values"),
        ({"dimensions": {"WebACL": ["a", "a"]}}, "WebACL has a value twice"),
    ],
)
def test_a_fault_is_named(change: dict[str, Any], fault: str) -> None:
    """With what is allowed."""
    assert [text for text in cloudwatch.problems({**GOOD, **change}) if fault in text]


def test_what_is_missing_is_named() -> None:
    """A region and an account; and a table that is none."""
    assert len(list(cloudwatch.problems({}))) == 2
    assert list(cloudwatch.problems("eu-central-1")) == ["[tool.slo.cloudwatch] must be a table, not 'eu-central-1'"]


def test_our_own_settings_name_a_resource_for_every_address() -> None:
    """So no promise or cause on any metric of the catalogue stops the generator."""
    read = settings.load(ROOT / "pyproject.toml").cloudwatch
    assert read is not None
    declared: tuple[Metric, ...] = (
        *edge.EDGE_METRICS,
        *queue.QUEUE_METRICS,
        *rds.RDS_METRICS,
        *redis.REDIS_METRICS,
        *metrics.REDEMPTION_METRICS,
    )

    for metric in declared:
        for address in metric.cloudwatch:
            assert list(_resources(address, read)), metric.name
