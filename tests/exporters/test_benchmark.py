"""The benchmark's small run: it finishes, and what it counts is the claim. No time is asserted."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

from exporters.cloudwatch import QUERIES_MAX

ROOT = Path(__file__).resolve().parents[2]


def test_twenty_metrics_of_each_resource_in_as_few_calls_as_aws_allows() -> None:
    """Counted, not timed: 20 series a resource are served, and calls are the ceiling of queries by 500."""
    command = [sys.executable, "-m", "benchmarks.exporters", "--quick", "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr

    found = json.loads(done.stdout)
    assert found["series"] == 20 * found["resources"]
    assert found["calls"] == math.ceil(found["queries"] / QUERIES_MAX)
    assert found["scrape_bytes"]["text"] > 100 * found["series"]
    assert found["scrape_bytes"]["OpenMetrics, gzip"] < found["scrape_bytes"]["OpenMetrics"] / 5
