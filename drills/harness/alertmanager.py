"""A real Alertmanager."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from drills.harness.http import answers, checked, client
from drills.harness.process import Process, running, tool


@dataclass(frozen=True, slots=True)
class Alertmanager:
    """An Alertmanager that runs.

    Attributes:
        url: Its base URL.
        process: Its process.
    """

    url: str
    process: Process
    _http: httpx.Client = field(repr=False)

    def alerts(self) -> list[dict[str, Any]]:
        """Every alert that it holds, as its API v2 has it: `labels`, `status.state`, `status.inhibitedBy`."""
        alerts: list[dict[str, Any]] = checked(self._http.get("/api/v2/alerts")).json()
        return alerts

    def send(self, *alerts: dict[str, Any]) -> None:
        """Give it alerts as Prometheus would: `labels`, `annotations`, `startsAt`, `endsAt`."""
        checked(self._http.post("/api/v2/alerts", json=list(alerts)))


@contextmanager
def alertmanager(config_text: str) -> Iterator[Alertmanager]:
    """Run an Alertmanager while the block runs.

    Args:
        config_text: Its whole configuration, in YAML.

    Raises:
        HarnessError: It is not built, or does not start, as it does with a wrong configuration.
    """
    program = tool("alertmanager")

    def command(ports: Sequence[int], folder: Path) -> list[str | Path]:
        file = folder / "alertmanager.yml"
        file.write_text(config_text)
        return [
            program,
            f"--config.file={file}",
            f"--storage.path={folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{ports[0]}",
            "--cluster.listen-address=",  # alone: no gossip
        ]

    with running("alertmanager", command, _ready) as process, client(_url(process.ports)) as http:
        yield Alertmanager(_url(process.ports), process, http)


def _url(ports: Sequence[int]) -> str:
    return f"http://127.0.0.1:{ports[0]}"


def _ready(ports: Sequence[int]) -> bool:
    with client(_url(ports)) as http:
        return answers(http, "/-/ready")
