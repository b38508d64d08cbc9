"""The catalogue for people: tables that GitHub shows, with every address, limit and reason in them."""

from __future__ import annotations

import re
from dataclasses import replace

from slo import compile_slo
from slo.catalogue_page import render
from slo.causes import Component, Signal, Source, Uncovered
from slo.matrix import Definitions
from slo.metrics.edge import EDGE_METRICS, ROUTE53_HEALTH_CHECK_HEALTHY
from slo.metrics.redis import REDIS_CLUSTER_STATE_OK, REDIS_EXPORTER_NAMES
from tests.alerts.every_kind import EVERY_KIND
from tests.slo.test_matrix import CAUSE, OURS, PROMISE, SOUND, UNCOVERED


def page(defined: Definitions) -> str:
    """The page of these definitions."""
    (artefact,) = render([compile_slo(slo) for slo in defined.slos], defined)
    assert str(artefact.path) == "catalogue.md"
    return artefact.text


def test_every_row_of_a_table_has_all_its_cells() -> None:
    """A bar within a query would be one cell more, and the rest of the row would be hidden."""
    for defined in (OURS, SOUND, Definitions(slos=EVERY_KIND)):
        for table in re.findall(r"(?:^\|.*\n)+", page(defined), re.MULTILINE):
            widths = {len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}
            assert len(widths) == 1, table


def test_a_project_without_components_has_its_promises_only() -> None:
    """No matrix that is empty, and no metrics of anybody else."""
    text = page(Definitions(slos=(replace(PROMISE, component=None, signals=(), reason=""),)))
    assert "| `shop/availability`<br>Shoppers get an answer. | 99.9 % | 30 days | page, ticket | shop-team |" in text
    assert "golden signals" not in text
    assert "## Metrics" not in text


def test_the_matrix_says_what_watches_each_signal_and_why() -> None:
    """A promise, a cause, or the reason why there is none; with its limit, what it reads, and its runbook."""
    text = page(SOUND)
    assert "| [rds](#rds) | **availability** | none: see below | **availability** | disk |" in text
    assert (
        "| saturation | rds/disk<br>The disk is full. | `disk_free_ratio < 0.1` for 5m | AWS says so. | "
        "`disk_free_ratio` | [RdsDisk](runbooks/RdsDisk.md) |"
    ) in text
    assert "| traffic | nothing |  | The shop counts its own. |  |  |" in text
    assert "[ShopAvailabilityPage](runbooks/ShopAvailabilityPage.md)<br>" in text


def test_a_metric_stands_with_its_kind_unit_labels_and_addresses() -> None:
    """What to look for in CloudWatch, in which region, and what another exporter calls it."""
    sources = (
        Source(component=Component.EDGE, process="exporters", metrics=EDGE_METRICS),
        Source(
            component=Component.REDIS,
            process="exporters",
            metrics=(REDIS_CLUSTER_STATE_OK,),
            other_names=REDIS_EXPORTER_NAMES,
            other="redis_exporter",
        ),
    )
    uncovered = tuple(
        Uncovered(component=component, signal=signal, reason="Not here.")
        for component in (Component.EDGE, Component.REDIS)
        for signal in Signal
    )
    text = page(Definitions(uncovered=uncovered, sources=sources))
    assert f"| `{ROUTE53_HEALTH_CHECK_HEALTHY.name}`<br>" in text
    assert "AWS/Route53 HealthCheckStatus, Minimum, only in us-east-1 |" in text
    assert "| counter, a number | `outcome`: ok, target_error, elb_error<br>`aws_account_id`, `aws_region`," in text
    assert "AWS/ApplicationELB HTTPCode_Target_5XX_Count, Sum x -1 (outcome=ok)" in text
    assert "AWS/ApplicationELB TargetResponseTime, SampleCount x PR(:0.3) (speed=fast)" in text
    assert "| In redis_exporter |\n" in text
    assert "| `name` | `redis_cluster_state` |" in text


def test_costs_are_a_column_when_somebody_knows_them() -> None:
    """The one who renders the alarms does; this room knows no prices."""
    defined = Definitions(slos=(PROMISE,), causes=(CAUSE,), uncovered=(UNCOVERED,), sources=SOUND.sources)
    (artefact,) = render([compile_slo(PROMISE)], defined, cost=lambda one: f"$3.60 for {one.slo.name}")
    assert "| Promise | Objective | Period | Who is told | Owner | CloudWatch |" in artefact.text
    assert "| shop-team | $3.60 for availability |" in artefact.text
