"""AWS as moto plays it over HTTP: its interfaces are real; its speed, its durability and its limits are not."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from drills.harness.http import answers, checked, client
from drills.harness.process import Process, running

REGION: Final = "eu-central-1"
ACCESS_KEY_ID: Final = "AKIDMADEUP"
"""Moto looks at no signature, only at the region that was signed for."""

_START_SECONDS_MAX: Final = 60.0  # it imports a good part of AWS


@dataclass(frozen=True, slots=True)
class MotoServer:
    """A moto that runs.

    Attributes:
        url: The endpoint of every service of AWS.
        process: Its process.
    """

    url: str
    process: Process

    def environment(self) -> dict[str, str]:
        """Variables for who asks it; their own AWS configuration is hidden from them."""
        return {
            "AWS_ACCESS_KEY_ID": ACCESS_KEY_ID,
            "AWS_SECRET_ACCESS_KEY": "made-up",
            "AWS_DEFAULT_REGION": REGION,
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def reset(self) -> None:
        """Begin anew with an AWS that has nothing."""
        with client(self.url) as http:
            checked(http.post("/moto-api/reset"))


@contextmanager
def moto_server(*, port: int | None = None, name: str = "moto") -> Iterator[MotoServer]:
    """Run an AWS while the block runs.

    Args:
        port: Where; by default on a free port.
        name: What it is called in messages.

    Raises:
        HarnessError: It does not start.
    """

    def url(ports: Sequence[int]) -> str:
        return f"http://127.0.0.1:{port or ports[0]}"

    def command(ports: Sequence[int], _: Path) -> list[str | Path]:
        return [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port or ports[0])]

    def ready(ports: Sequence[int]) -> bool:
        with client(url(ports)) as http:
            return answers(http, "/moto-api/")

    # Nobody's own settings, of AWS or of moto, play a part.
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "MOTO_"))}
    with running(
        name,
        command,
        ready,
        ports=1 if port is None else 0,
        environment=inherited,
        start_seconds_max=_START_SECONDS_MAX,
    ) as process:
        yield MotoServer(url(process.ports), process)
