"""What the tests of the harness share."""

from __future__ import annotations

import socket
from collections.abc import Callable
from urllib.parse import urlsplit

import pytest

from drills.harness import Process


def _nobody_listens(address: str) -> bool:
    host, _, port = (urlsplit(address).netloc or address).rpartition(":")
    with socket.socket() as probe:
        return probe.connect_ex((host, int(port))) != 0


@pytest.fixture
def gone() -> Callable[..., bool]:
    """Whether nothing is left of a server: no process, no folder, and nobody at its ports or the other addresses."""

    def check(process: Process | None = None, *addresses: str) -> bool:
        if process is not None:
            addresses += tuple(f"127.0.0.1:{port}" for port in process.ports)
            if process.alive or process.folder.exists():
                return False
        return all(_nobody_listens(address) for address in addresses)

    return check
