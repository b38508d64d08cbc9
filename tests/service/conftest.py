"""A real Postgres for every test of the service, and the service itself, in the same process or as one of its own."""

from __future__ import annotations

import asyncio
import io
import itertools
import os
import re
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import orjson
import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from drills.harness import Issuer
from service import administration
from service.app import create_app
from service.embedded_postgres import embedded_postgres
from service.settings import Settings

TOOLS = Path(__file__).parents[2] / ".tools" / "bin"
OPEN_METRICS = "application/openmetrics-text; version=1.0.0"


@dataclass(frozen=True, slots=True)
class Database:
    """A migrated ledger.

    Attributes:
        owner: URL of the superuser.
        app: URL of the service's login.
    """

    owner: str
    app: str

    @asynccontextmanager
    async def connection(self, url: str | None = None) -> AsyncIterator[Any]:
        """A connection, the owner's unless another URL is given."""
        connection = await asyncpg.connect(url or self.owner)
        try:
            yield connection
        finally:
            await connection.close()

    async def account(self, points: int) -> str:
        """A new account with this many points; its id."""
        account_id = f"guest-{secrets.token_hex(8)}"
        await administration.accrue(self.owner, account_id, points)
        return account_id


@dataclass(slots=True)
class Service:
    """The running service, seen from outside and from its telemetry."""

    client: httpx.AsyncClient
    spans: InMemorySpanExporter
    log: io.BytesIO

    async def redeem(self, account_id: str, points: int, key: str | None = None, **headers: str) -> httpx.Response:
        """Spend points, with a fresh key unless one is given."""
        headers = {"Idempotency-Key": key or secrets.token_hex(16), **headers}
        return await self.client.post(
            "/v1/redemptions", json={"account_id": account_id, "points": points}, headers=headers
        )

    async def balance(self, account_id: str) -> int:
        """An account's points."""
        answer = await self.client.get(f"/v1/accounts/{account_id}/balance")
        assert answer.status_code == 200, answer.text
        points: int = answer.json()["posted"]
        return points

    async def metrics(self, accept: str = "") -> str:
        """The exposition."""
        return (await self.client.get("/metrics", headers={"Accept": accept})).text

    async def sample(self, name: str, **labels: str) -> float:
        """One sample's value."""
        for line in (await self.metrics()).splitlines():
            found = re.fullmatch(r"(\w+)(?:\{(.*)\})? (\S+)", line)
            if found and found[1] == name and dict(re.findall(r'(\w+)="([^"]*)"', found[2] or "")) == labels:
                return float(found[3])
        raise AssertionError(f"no sample {name} {labels}")

    def lines(self) -> list[dict[str, Any]]:
        """The log so far."""
        return [orjson.loads(line) for line in self.log.getvalue().splitlines()]

    def finished(self) -> tuple[ReadableSpan, ...]:
        """The spans so far."""
        return self.spans.get_finished_spans()


Serve = Callable[..., AbstractAsyncContextManager[Service]]


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Asynchronous tests run on asyncio."""
    return "asyncio"


@pytest.fixture(scope="session")
def database() -> Iterator[Database]:
    """One server for all tests of a run; each test uses accounts of its own."""
    with embedded_postgres(durable=False) as owner:
        yield Database(owner, asyncio.run(administration.provision(owner)))


@pytest.fixture
def settings(database: Database) -> Settings:
    """Settings that reach the test database; no minute that ends during a test adds lines to its log."""
    return Settings(database_url=database.app, deadline_seconds=10, embedded_metrics=False)


@pytest.fixture
def serve(settings: Settings) -> Serve:
    """Run the service in this process, with the given settings changed."""

    @asynccontextmanager
    async def run(**changes: Any) -> AsyncIterator[Service]:  # noqa: ANN401 - whatever the settings hold
        spans, log = InMemorySpanExporter(), io.BytesIO()
        app = create_app(replace(settings, **changes), log_stream=log, span_processors=[SimpleSpanProcessor(spans)])
        transport = httpx.ASGITransport(app)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://service") as client,
        ):
            yield Service(client, spans, log)

    return run


@pytest.fixture
async def service(serve: Serve) -> AsyncIterator[Service]:
    """The service, in this process."""
    async with serve() as running:
        yield running


@contextmanager
def process(
    environment: dict[str, str], *, log: Path, issuer: Issuer | None = None
) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """The service as a process of its own; yields it and its URL. With a database it asks for tokens of an issuer."""
    environment = {**(issuer.environment() if issuer else {}), **environment}
    with log.open("wb") as output:
        running = subprocess.Popen(
            [sys.executable, "-m", "service", "run"],
            env={**os.environ, "REDEMPTION_PORT": "0", **environment},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        yield running, wait_for(lambda: re.search(r"listening on (\S+),", log.read_text()), running)[1]
    finally:
        running.terminate()
        running.wait(30)


def wait_for(what: Callable[[], Any], running: subprocess.Popen[bytes] | None = None) -> Any:  # noqa: ANN401
    """Ask until the answer is true, for at most 30 s."""
    for _ in range(600):
        if found := what():
            return found
        assert running is None or running.poll() is None, f"ended with {running.returncode}"
        time.sleep(0.05)
    raise AssertionError("waited in vain")


@contextmanager
def tool(name: str, *arguments: str, environment: dict[str, str] | None = None) -> Iterator[None]:
    """A tool that the Makefile built, while the block runs."""
    running = subprocess.Popen(
        [TOOLS / name, *arguments],
        env={**os.environ, **(environment or {})},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield
    finally:
        running.kill()  # they keep nothing, and Jaeger takes its time to say goodbye
        running.wait()


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    try:
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


_numbers = itertools.count()


def unused(prefix: str) -> str:
    """A name that no other test of this run uses."""
    return f"{prefix}-{next(_numbers)}-{secrets.token_hex(4)}"
