"""A promise's events as CloudWatch reads them from a log: its embedded metric format.

https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html
"""

from __future__ import annotations

from typing import Any

from slo import conventions as names
from slo.model import Slo


def document(slo: Slo, bad: float, every: float, timestamp_seconds: int) -> dict[str, Any]:
    """One log line, as data: the bad and all events since the line before; CloudWatch sorts them by the time in it."""
    events = {names.BAD_EVENTS_METRIC: bad, names.ALL_EVENTS_METRIC: every}
    dimensions = names.event_dimensions(slo)
    directive = {
        "Namespace": names.EVENTS_NAMESPACE,
        "Dimensions": [list(dimensions)],
        "Metrics": [{"Name": name, "Unit": "Count"} for name in events],
    }
    metadata = {"Timestamp": timestamp_seconds * 1000, "CloudWatchMetrics": [directive]}
    return {"_aws": metadata, **dimensions, **events}
