"""A real Jaeger: takes traces by OTLP over HTTP and shows them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from drills.harness.http import answers, checked, client
from drills.harness.process import Process, running, tool

# It listens in many more places; none of them is ours, so each takes whatever port is free.
_UNUSED = (
    "collector.grpc-server.host-port",
    "collector.http-server.host-port",
    "collector.otlp.grpc.host-port",
    "http-server.host-port",
    "processor.jaeger-binary.server-host-port",
    "processor.jaeger-compact.server-host-port",
    "processor.zipkin-compact.server-host-port",
    "query.grpc-server.host-port",
)


@dataclass(frozen=True, slots=True)
class Jaeger:
    """A Jaeger that runs.

    Attributes:
        otlp_url: What `OTEL_EXPORTER_OTLP_ENDPOINT` is set to, with the protocol `http/protobuf`.
        url: Its pages and its query API.
        process: Its process.
    """

    otlp_url: str
    url: str
    process: Process
    _http: httpx.Client = field(repr=False)

    def services(self) -> list[str]:
        """The services that sent a trace."""
        return sorted(checked(self._http.get("/api/services")).json()["data"] or [])

    def traces(self, service: str, limit: int = 20) -> list[dict[str, Any]]:
        """The latest traces of a service, as Jaeger's query API has them: `traceID`, `spans`, `processes`."""
        parameters: dict[str, str | int] = {"service": service, "limit": limit}
        traces: list[dict[str, Any]] = checked(self._http.get("/api/traces", params=parameters)).json()["data"]
        return traces

    def trace(self, trace_id: str) -> dict[str, Any] | None:
        """One trace, None when it has not arrived."""
        response = self._http.get(f"/api/traces/{trace_id}")
        if response.status_code == httpx.codes.NOT_FOUND:
            return None
        trace: dict[str, Any] = checked(response).json()["data"][0]
        return trace


@contextmanager
def jaeger() -> Iterator[Jaeger]:
    """Run a Jaeger, all in memory, while the block runs.

    Raises:
        HarnessError: It is not built, or does not start.
    """
    program = tool("jaeger")

    def command(ports: Sequence[int], _: Path) -> list[str | Path]:
        otlp, query, admin = ports
        return [
            program,
            f"--collector.otlp.http.host-port=127.0.0.1:{otlp}",
            f"--query.http-server.host-port=127.0.0.1:{query}",
            f"--admin.http.host-port=127.0.0.1:{admin}",
            *(f"--{flag}=127.0.0.1:0" for flag in _UNUSED),
        ]

    # It would send traces of its own to wherever the default is, and wait for that at the end.
    environment = os.environ | {"OTEL_TRACES_SAMPLER": "always_off"}
    with running("jaeger", command, _ready, ports=3, environment=environment) as process:
        otlp, query, _ = (f"http://127.0.0.1:{port}" for port in process.ports)
        with client(query) as http:
            yield Jaeger(otlp, query, process, http)


def _ready(ports: Sequence[int]) -> bool:
    _, query, admin = (f"http://127.0.0.1:{port}" for port in ports)
    with client(admin) as health, client(query) as pages:
        return answers(health, "/") and answers(pages, "/api/services")
