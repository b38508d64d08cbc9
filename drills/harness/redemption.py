"""The redemption service as a process of its own, and its ledger database."""

from __future__ import annotations

import asyncio
import os
import secrets
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from drills.harness.http import answers, client
from drills.harness.process import Process, running, unwinding_on_sigterm
from drills.harness.tokens import Issuer
from service import administration
from service.embedded_postgres import embedded_postgres
from service.settings import PREFIX

CLIENT_ID: Final = "drill"

_PROGRAM: Final = ("-m", "service")

# One for all services of a run: a reference that one gave out leads to an answer at another.
_SIGNING_KEY: Final = secrets.token_hex(32)


@dataclass(frozen=True, slots=True)
class LedgerDatabase:
    """A Postgres that runs, with the ledger's schema.

    Attributes:
        url: As the service logs in.
        owner_url: As its owner logs in.
        worker_url: As the worker logs in.
    """

    url: str = field(repr=False)
    owner_url: str = field(repr=False)
    worker_url: str = field(repr=False, default="")

    @property
    def address(self) -> str:
        """`host:port`."""
        return urlsplit(self.url).netloc.rpartition("@")[2]

    def accrue(self, accounts: Iterable[str], points: int) -> None:
        """Grant points to each of the accounts, which it opens if need be."""
        asyncio.run(administration.accrue_many(self.owner_url, dict.fromkeys(accounts, points)))


@contextmanager
def ledger_database(*, durable: bool = False) -> Iterator[LedgerDatabase]:
    """Run a ledger database while the block runs.

    Args:
        durable: Whether a commit survives a power cut; without it all is faster.

    Raises:
        EmbeddedPostgresError: It cannot be started.
    """
    with unwinding_on_sigterm(), embedded_postgres(durable=durable) as owner_url:
        yield provisioned(owner_url)


def provisioned(owner_url: str) -> LedgerDatabase:
    """Migrate a database, and make the logins of service and worker."""

    async def provision() -> LedgerDatabase:
        return LedgerDatabase(
            await administration.provision(owner_url), owner_url, await administration.provision_worker(owner_url)
        )

    return asyncio.run(provision())


@dataclass(frozen=True, slots=True)
class Service:
    """A redemption service that runs.

    Attributes:
        url: Its base URL.
        process: Its process; its log is JSON lines.
        issuer: Makes the tokens that it takes; None when it asks nobody who they are.
    """

    url: str
    process: Process
    issuer: Issuer | None = None

    @property
    def address(self) -> str:
        """`host:port`, for Prometheus to scrape."""
        return urlsplit(self.url).netloc

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.url.rpartition(":")[2])

    @property
    def headers(self) -> dict[str, str]:
        """What a caller who may do everything sends along."""
        return {} if self.issuer is None else {"Authorization": f"Bearer {self.issuer.token(CLIENT_ID)}"}


@contextmanager
def service(
    database_url: str | None = None,
    environment: Mapping[str, str] | None = None,
    *,
    issuer: Issuer | None = None,
    port: int | None = None,
    program: Sequence[str] = _PROGRAM,
) -> Iterator[Service]:
    """Run `redemption-service run` while the block runs.

    Args:
        database_url: Its ledger database; without it the service starts one of its own, and asks nobody who they are.
        environment: Variables on top of ours, `{"REDEMPTION_POOL_MAX": "4"}` say; our `REDEMPTION_*` are left
            out, so that a run depends on nothing but its arguments.
        issuer: Whose tokens it takes, so that several services take the same; one of its own if not given.
        port: Where it listens; a free port if not given.
        program: What Python runs, if not the service itself.

    Raises:
        HarnessError: It does not start.
    """
    with ExitStack() as stack:
        if database_url is not None and issuer is None:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="drill-issuer-"))
            issuer = Issuer(Path(folder))
        known = {} if issuer is None else {**issuer.environment(), f"{PREFIX}SIGNING_KEY": _SIGNING_KEY}
        process = stack.enter_context(_process((*program, "run"), database_url, {**known, **(environment or {})}, port))
        yield Service(_url(port or process.ports[0]), process, issuer)


@contextmanager
def worker(database_url: str, environment: Mapping[str, str] | None = None) -> Iterator[Service]:
    """Run `redemption-service work` while the block runs; its metrics are at `url`.

    Args:
        database_url: The ledger database, as the worker logs in.
        environment: As that of `service`.

    Raises:
        HarnessError: It does not start.
    """
    with _process((*_PROGRAM, "work"), database_url, environment or {}, None) as process:
        yield Service(_url(process.ports[0]), process)


def _process(
    command: Sequence[str], database_url: str | None, environment: Mapping[str, str], port: int | None
) -> AbstractContextManager[Process]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    given = {} if database_url is None else {f"{PREFIX}DATABASE_URL": database_url}

    def arguments(ports: Sequence[int], _: Path) -> list[str | Path]:
        # The port is told by a variable, which is known only now: `env` is a program that sets one.
        variables = (f"{PREFIX}HOST=127.0.0.1", f"{PREFIX}PORT={port or ports[0]}")
        return ["env", *variables, sys.executable, *command]

    def ready(ports: Sequence[int]) -> bool:
        with client(_url(port or ports[0])) as http:
            return answers(http, "/readyz")

    name = "service" if command[-1] == "run" else "worker"
    return running(name, arguments, ready, environment={**inherited, **given, **environment}, start_seconds_max=60)


def _url(port: int) -> str:
    return f"http://127.0.0.1:{port}"
