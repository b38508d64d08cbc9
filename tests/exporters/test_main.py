"""The command, and the whole process: moto on one side, a real Prometheus on the other."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import boto3  # type: ignore[import-untyped]
import httpx
import pytest
from click.testing import CliRunner, Result

from drills.harness import Process, free_ports, prometheus, running, wait_until
from drills.harness.http import answers, client
from exporters.__main__ import main
from tests.exporters.fakes import ACCOUNT, REGION

CONFIG = f"""
listen = "127.0.0.1:{{port}}"
regions = ["{REGION}"]
sources = ["sqs"]
delay_seconds = 60
accounts = [{{{{ id = "{{account}}" }}}}]
requests = {{{{ endpoint_url = "{{url}}", timeout_seconds = 30, attempts_max = 1 }}}}
"""


@pytest.fixture
def queue(moto: str) -> str:
    """A queue with 17 messages in every minute of the last ten; the URL of its AWS."""
    httpx.post(f"{moto}/moto-api/reset", trust_env=False)
    boto3.client("sqs", region_name=REGION, endpoint_url=moto).create_queue(QueueName="deferred")
    boto3.client("cloudwatch", region_name=REGION, endpoint_url=moto).put_metric_data(
        Namespace="AWS/SQS",
        MetricData=[
            {
                "MetricName": "ApproximateNumberOfMessagesVisible",
                "Dimensions": [{"Name": "QueueName", "Value": "deferred"}],
                "Timestamp": datetime.fromtimestamp(time.time() - 60 * minute, UTC),
                "Value": 17,
            }
            for minute in range(10)
        ],
    )
    return moto


def config(folder: Path, url: str, *, port: int = 0, account: str = ACCOUNT) -> Path:
    """A file for one source."""
    file = folder / "exporters.toml"
    file.write_text(CONFIG.format(port=port, url=url, account=account))
    return file


def called(*arguments: str | Path) -> Result:
    """The command's output and exit code."""
    return CliRunner().invoke(main, [str(one) for one in arguments])


@pytest.mark.parametrize("command", ["run", "cost", "check"])
def test_a_wrong_file_is_told_in_lines_and_nothing_runs(tmp_path: Path, command: str) -> None:
    """Exit code 2 and one line a fault, for every command."""
    file = tmp_path / "exporters.toml"
    file.write_text('regions = ["Frankfurt"]\ncolour = "red"\n')

    result = called(command, "--config", file)

    assert result.exit_code == 2
    first, second = result.stderr.splitlines()
    assert first.startswith(f"error: config {file}: colour: unknown; allowed are listen, ")
    assert second == f"error: config {file}: regions: must be regions like 'eu-central-1', not ['Frankfurt']"


def test_the_cost_is_told_for_people_and_for_machines(tmp_path: Path, queue: str) -> None:
    """What is found, the calls that it takes, the price, and where that was read."""
    file = config(tmp_path, queue)

    text = called("cost", "--config", file)
    told = json.loads(called("cost", "--config", file, "--json").stdout)

    assert text.exit_code == 0
    assert text.stdout.splitlines()[:2] == [
        f"sqs {ACCOUNT} {REGION}: 5 metrics, 1 calls a cycle, $2.16",
        "all: 5 metrics a cycle, $2.16 a month of 30 days",
    ]
    assert "$0.01 for 1,000 metrics: https://aws.amazon.com/cloudwatch/pricing/" in text.stdout
    assert told["total"] == {
        "series": 5,
        "queries": 5,
        "calls": 1,
        "metrics": 5,
        "metrics_a_month": 5 * 43_200,
        "usd_a_month": "2.16",
    }
    assert told["units"][0]["source"] == "sqs"


def test_a_check_says_what_answers(tmp_path: Path, queue: str) -> None:
    """Every source once; credentials of another account are told, as all that they find would carry a wrong number."""
    well = called("check", "--config", config(tmp_path, queue))
    assert (well.exit_code, well.stdout) == (0, f"sqs {ACCOUNT} {REGION}: 3 series\n")

    strange = called("check", "--config", config(tmp_path, queue, account="210987654321"))
    assert strange.exit_code == 1
    assert f"error: account 210987654321: the credentials are of account {ACCOUNT}\n" in strange.stderr

    gone = called("check", "--config", config(tmp_path, "http://127.0.0.1:9"))
    assert gone.exit_code == 1
    assert gone.stdout == f"sqs {ACCOUNT} {REGION}: failed\n"
    assert f"error: sqs {ACCOUNT} {REGION}: sqs:ListQueues: other\n" in gone.stderr
    assert called("cost", "--config", config(tmp_path, "http://127.0.0.1:9")).exit_code == 1


@contextmanager
def exporting(folder: Path, url: str, ready: str = "/readyz") -> Iterator[Process]:
    """The process, once it answers at a path."""

    def command(ports: Sequence[int], _: Path) -> list[str | Path]:
        file = config(folder, url, port=ports[0])
        return [sys.executable, "-m", "exporters", "run", "--config", file]

    def is_ready(ports: Sequence[int]) -> bool:
        with client(f"http://127.0.0.1:{ports[0]}") as http:
            return answers(http, ready)

    root = Path(__file__).parents[2]
    with running("exporters", command, is_ready, environment=os.environ | {"PYTHONPATH": str(root)}) as process:
        yield process


@pytest.fixture
def pages() -> Callable[[Process, str], httpx.Response]:
    """Reads a page of the process."""

    def read(process: Process, path: str) -> httpx.Response:
        with client(f"http://127.0.0.1:{process.ports[0]}") as http:
            return http.get(path)

    return read


@pytest.mark.e2e
def test_prometheus_scrapes_what_aws_knows(
    tmp_path: Path, queue: str, pages: Callable[[Process, str], httpx.Response]
) -> None:
    """From moto's CloudWatch through the process into the real Prometheus; the pages beside; and it ends as told."""
    with exporting(tmp_path, queue) as process:
        assert pages(process, "/livez").text == "ok\n"
        assert f"<li>sqs {ACCOUNT} {REGION}</li>" in pages(process, "/").text
        assert pages(process, "/elsewhere").status_code == 404
        with client(f"http://127.0.0.1:{process.ports[0]}") as http:
            assert http.post("/metrics").status_code == 405
            opened = http.get("/metrics", headers={"accept": "application/openmetrics-text; version=1.0.0"})
        assert opened.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
        assert opened.text.endswith("# EOF\n")

        with prometheus(targets={"exporters": [f"127.0.0.1:{process.ports[0]}"]}) as metrics:
            visible = 'sqs_messages_visible{queue="deferred", role="work"}'
            wait_until("it is scraped", lambda: metrics.value(visible) == 17, 30)
            assert metrics.value('exporters_up{source="sqs"}') == 1
            billed = metrics.value('exporters_cloudwatch_metrics_requested_total{source="sqs"}')
            assert billed in (5, 10, 15), "five for each cycle that there was time for"
            age = metrics.value('exporters_data_age_seconds{source="sqs"}')
            assert age is not None
            assert 60 <= age <= 300

        os.kill(process.pid, signal.SIGTERM)
        wait_until("it ends", lambda: not process.alive, 20)
        assert process._popen.returncode == 0
        lines = process.log.read_text().splitlines()
        assert lines[0] == f"exporters: listening on http://127.0.0.1:{process.ports[0]}"
        assert [json.loads(line)["event"] for line in lines[1:]] == ["estimated cost"]


@pytest.mark.e2e
def test_without_aws_it_serves_and_says_so(tmp_path: Path, pages: Callable[[Process, str], httpx.Response]) -> None:
    """Nobody answers: the process lives, `exporters_up` is 0, one line an error, and no series is made up."""
    (port,) = free_ports(1)

    with exporting(tmp_path, f"http://127.0.0.1:{port}") as process:
        text = pages(process, "/metrics").text

        assert f'exporters_up{{aws_account_id="{ACCOUNT}",aws_region="{REGION}",name="",source="sqs"}} 0.0' in text
        assert "sqs_messages_visible" not in text
        told = [json.loads(line) for line in process.log.read_text().splitlines() if line.startswith("{")]
        assert (told[0]["event"], told[0]["reason"]) == ("call failed", "other")
        assert "made-up-secret" not in process.log.read_text()


def test_a_taken_port_is_told(tmp_path: Path) -> None:
    """One line, exit code 1."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        result = called("run", "--config", config(tmp_path, "http://127.0.0.1:9", port=taken.getsockname()[1]))

    assert result.exit_code == 1
    assert result.stderr.startswith("error: listen 127.0.0.1:")
    assert "Address already in use" in result.stderr
