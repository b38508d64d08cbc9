"""`redemption-service run|migrate`: the service's front door."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from types import FrameType

import asyncpg
import uvicorn

from service import administration
from service.app import create_app
from service.embedded_postgres import EmbeddedPostgresError, embedded_postgres
from service.logs import LibraryHandler, create_log
from service.settings import Settings, described, from_environment
from slo.errors import SloError

OK, FAILED, WRONG_USE = 0, 1, 2

_DEMO_ACCOUNT, _DEMO_POINTS = "demo", 1_000_000


def main(arguments: Sequence[str] | None = None, environment: Mapping[str, str] | None = None) -> int:
    """Run one command; returns the exit code: 0 done, 1 failed, 2 wrong settings or use."""
    command = _parser().parse_args(arguments).command
    try:
        settings = from_environment(os.environ if environment is None else environment)
    except SloError as error:
        return _say(str(error), WRONG_USE)
    signal.signal(signal.SIGTERM, _interrupt)
    logging.basicConfig(handlers=[LibraryHandler(create_log(sys.stdout.buffer))], force=True)
    try:
        return _run(settings) if command == "run" else _migrate(settings)
    except KeyboardInterrupt:  # asked to stop, and stopped
        return OK
    except (OSError, EmbeddedPostgresError, administration.MigrationError, asyncpg.PostgresError) as error:
        return _say(str(error) or type(error).__name__, FAILED)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="redemption-service",
        description="Deducts loyalty points exactly once.",
        epilog=f"environment:\n{described()}\n\nexit codes: 0 done, 1 failed, 2 wrong settings or use",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="run|migrate")
    commands.add_parser("run", help="serve until told to stop (SIGTERM, Ctrl-C)")
    commands.add_parser("migrate", help="bring the database to the newest schema, then end")
    return parser


def _run(settings: Settings) -> int:
    with ExitStack() as stack:
        listener = stack.enter_context(_listen(settings))
        database = "the database of REDEMPTION_DATABASE_URL"
        if settings.database_url is None:
            owner = stack.enter_context(embedded_postgres())
            settings = replace(settings, database_url=asyncio.run(_prepare(owner)))
            database = f"an embedded Postgres; the account {_DEMO_ACCOUNT!r} has {_DEMO_POINTS:,} points"
        server = _Server(settings, f"listening on {_url(listener)}, with {database}")
        server.run(sockets=[listener])
        return OK if server.started else FAILED


def _migrate(settings: Settings) -> int:
    if settings.migration_database_url is None:
        return _say("settings: REDEMPTION_MIGRATION_DATABASE_URL: missing; `migrate` needs it", WRONG_USE)
    names = asyncio.run(administration.migrate(settings.migration_database_url))
    return _say(f"applied {', '.join(names)}" if names else "the schema is up to date", OK)


async def _prepare(owner: str) -> str:
    url = await administration.provision(owner)
    await administration.accrue(owner, _DEMO_ACCOUNT, _DEMO_POINTS, reference="demo")
    return url


def _listen(settings: Settings) -> socket.socket:
    return socket.create_server((settings.host, settings.port), family=_family(settings.host), backlog=1024)


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class _Server(uvicorn.Server):
    """Says where it listens once it really serves."""

    def __init__(self, settings: Settings, message: str) -> None:
        super().__init__(
            uvicorn.Config(
                create_app(settings),
                lifespan="on",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_graceful_shutdown=round(settings.shutdown_seconds),
            )
        )
        self._message = message

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            _say(self._message, OK)


def _interrupt(_: int, __: FrameType | None) -> None:
    raise KeyboardInterrupt


def _say(message: str, code: int) -> int:
    for line in message.splitlines():
        sys.stderr.write(f"redemption-service: {line}\n")
    sys.stderr.flush()
    return code


if __name__ == "__main__":
    sys.exit(main())
