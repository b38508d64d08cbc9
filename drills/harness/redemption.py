"""The redemption service as a process of its own, and its ledger database."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from drills.harness.http import answers, client
from drills.harness.process import Process, running, unwinding_on_sigterm
from service import administration
from service.embedded_postgres import embedded_postgres
from service.settings import PREFIX


@dataclass(frozen=True, slots=True)
class LedgerDatabase:
    """A Postgres that runs, with the ledger's schema.

    Attributes:
        url: As the service logs in.
        owner_url: As its owner logs in.
    """

    url: str = field(repr=False)
    owner_url: str = field(repr=False)

    @property
    def address(self) -> str:
        """`host:port`."""
        return urlsplit(self.url).netloc.rpartition("@")[2]

    def accrue(self, accounts: Iterable[str], points: int) -> None:
        """Grant points to each of the accounts, which it opens if need be."""

        async def grant() -> None:
            for account in accounts:
                await administration.accrue(self.owner_url, account, points)

        asyncio.run(grant())


@contextmanager
def ledger_database(*, durable: bool = False) -> Iterator[LedgerDatabase]:
    """Run a ledger database while the block runs.

    Args:
        durable: Whether a commit survives a power cut; without it all is faster.

    Raises:
        EmbeddedPostgresError: It cannot be started.
    """
    with unwinding_on_sigterm(), embedded_postgres(durable=durable) as owner_url:
        yield LedgerDatabase(asyncio.run(administration.provision(owner_url)), owner_url)


@dataclass(frozen=True, slots=True)
class Service:
    """A redemption service that runs.

    Attributes:
        url: Its base URL.
        process: Its process; its log is JSON lines.
    """

    url: str
    process: Process

    @property
    def address(self) -> str:
        """`host:port`, for Prometheus to scrape."""
        return urlsplit(self.url).netloc


@contextmanager
def service(database_url: str | None = None, environment: Mapping[str, str] | None = None) -> Iterator[Service]:
    """Run `redemption-service run` while the block runs.

    Args:
        database_url: Its ledger database; without it the service starts one of its own.
        environment: Variables on top of ours, `{"REDEMPTION_POOL_MAX": "4"}` say; our `REDEMPTION_*` are left
            out, so that a run depends on nothing but its arguments.

    Raises:
        HarnessError: It does not start.
    """
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    given = {} if database_url is None else {f"{PREFIX}DATABASE_URL": database_url}
    base = {**inherited, **given, **(environment or {})}

    def command(ports: Sequence[int], _: Path) -> list[str | Path]:
        # The port is told by a variable, which is known only now: `env` is a program that sets one.
        variables = (f"{PREFIX}HOST=127.0.0.1", f"{PREFIX}PORT={ports[0]}")
        return ["env", *variables, sys.executable, "-m", "service", "run"]

    with running("service", command, _ready, environment=base, start_seconds_max=60) as process:
        yield Service(_url(process.ports), process)


def _url(ports: Sequence[int]) -> str:
    return f"http://127.0.0.1:{ports[0]}"


def _ready(ports: Sequence[int]) -> bool:
    with client(_url(ports)) as http:
        return answers(http, "/readyz")
