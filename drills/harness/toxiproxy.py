"""A real Toxiproxy: a TCP path that can be made slow, broken or dead on purpose."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit, urlunsplit

import httpx

from drills.harness.http import answers, checked, client
from drills.harness.process import Process, running, tool

_PROXY = "/proxies/path"


@dataclass(frozen=True, slots=True)
class Toxiproxy:
    """A path that runs, whole at first.

    Attributes:
        listen: Where it takes connections, `127.0.0.1:5433` say.
        process: Its process.
    """

    listen: str
    process: Process
    _http: httpx.Client = field(repr=False)

    def add_toxic(
        self, kind: str, *, stream: Literal["upstream", "downstream"] = "downstream", **attributes: float | str
    ) -> None:
        """Spoil the path.

        Args:
            kind: One of https://github.com/Shopify/toxiproxy#toxics. `timeout` with `timeout=0` swallows all that is
                sent and keeps connections open; `latency` with `latency` and `jitter` delays, in milliseconds.
            stream: What goes to the server (`upstream`), or what comes from it.
            attributes: The kind's own.

        Raises:
            HarnessError: There is no such kind, or it is on the path already.
        """
        toxic = {"type": kind, "stream": stream, "attributes": attributes}
        checked(self._http.post(f"{_PROXY}/toxics", json=toxic))

    def remove_all(self) -> None:
        """Take every toxic off the path."""
        for toxic in checked(self._http.get(f"{_PROXY}/toxics")).json():
            checked(self._http.delete(f"{_PROXY}/toxics/{toxic['name']}"))

    def disable(self) -> None:
        """End every connection and refuse new ones."""
        checked(self._http.post(_PROXY, json={"enabled": False}))

    def enable(self) -> None:
        """Take connections again, at the same address."""
        checked(self._http.post(_PROXY, json={"enabled": True}))

    def through(self, url: str) -> str:
        """A URL of the upstream, `postgresql://user:password@host/name` say, that leads along this path."""
        parts = urlsplit(url)
        credentials, at, _ = parts.netloc.rpartition("@")
        return urlunsplit(parts._replace(netloc=f"{credentials}{at}{self.listen}"))


@contextmanager
def toxiproxy(upstream: str) -> Iterator[Toxiproxy]:
    """Run a path to a server while the block runs.

    Args:
        upstream: Where it leads, `host:port`.

    Raises:
        HarnessError: Toxiproxy is not built, or does not start.
    """
    program = tool("toxiproxy-server")

    def command(ports: Sequence[int], _: Path) -> list[str | Path]:
        return [program, "-host", "127.0.0.1", "-port", str(ports[0])]

    with running("toxiproxy", command, _ready) as process, client(_url(process.ports)) as http:
        proxy = {"name": "path", "listen": "127.0.0.1:0", "upstream": upstream, "enabled": True}
        listen = checked(http.post("/proxies", json=proxy)).json()["listen"]
        yield Toxiproxy(listen, process, http)


def _url(ports: Sequence[int]) -> str:
    return f"http://127.0.0.1:{ports[0]}"


def _ready(ports: Sequence[int]) -> bool:
    with client(_url(ports)) as http:
        return answers(http, "/version")
