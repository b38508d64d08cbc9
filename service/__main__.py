"""`redemption-service run|work|migrate|verify|redrive`: the service's front door."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from types import FrameType
from typing import Any

import asyncpg
import orjson
import uvicorn
from fastapi import FastAPI
from opentelemetry.trace import NoOpTracer

from service import administration, parts, verification
from service.app import create_app
from service.embedded_postgres import EmbeddedPostgresError, embedded_postgres
from service.logs import LibraryHandler, create_log
from service.protocol import Server, gated
from service.queue import REDRIVE_MESSAGES_MAX, QueueError
from service.security import SecurityError
from service.settings import Settings, described, from_environment, refusals_to_serve
from service.worker import create_worker
from slo.errors import SloError, raise_if_any

OK, FAILED, WRONG_USE = 0, 1, 2

_FAILURES = (
    OSError,
    EmbeddedPostgresError,
    administration.MigrationError,
    asyncpg.InterfaceError,
    asyncpg.PostgresError,
    QueueError,
)
_EXIT_CODES = """\
exit codes: 0 done, 1 failed or a mismatch, 2 wrong settings or use, 130 or 143 interrupted by Ctrl-C or SIGTERM before
it was done; `run` and `work`, which serve until then, end with 0"""

_DEMO_ACCOUNT, _DEMO_POINTS = "demo", 1_000_000
_CLOSE_SECONDS = 5.0
_VERIFY_SECONDS_MAX = 7 * 24 * 3600


class _TerminatedError(KeyboardInterrupt):
    """SIGTERM: asyncio and contexts unwind as at Ctrl-C."""


def main(arguments: Sequence[str] | None = None, environment: Mapping[str, str] | None = None) -> int:
    """Run one command; returns the exit code: 0 done, 1 failed or a mismatch, 2 wrong settings or use.

    What was interrupted before it was done ends as shells say: 128 and the signal's number.
    """
    options = _parser().parse_args(arguments)
    try:
        settings = from_environment(os.environ if environment is None else environment)
        command: Callable[[Settings, argparse.Namespace], int] = options.command
        return command(settings, options)
    except (SloError, SecurityError) as error:
        return _say(str(error), WRONG_USE)
    except KeyboardInterrupt as error:
        number = signal.SIGTERM if isinstance(error, _TerminatedError) else signal.SIGINT
        return _say(f"interrupted by {number.name} before it was done", 128 + number)
    except _FAILURES as error:
        return _say(str(error) or type(error).__name__, FAILED)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="redemption-service",
        description="Deducts loyalty points exactly once.",
        epilog=f"environment:\n{described()}\n\n{_EXIT_CODES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="run|work|migrate|verify|redrive")

    run = commands.add_parser("run", help="serve until told to stop (SIGTERM, Ctrl-C)")
    run.set_defaults(command=_run)
    work = commands.add_parser(
        "work", help="settle what was deferred, keep the ledger in order, verify it; until told to stop"
    )
    work.set_defaults(command=_work)
    migrate = commands.add_parser("migrate", help="bring the database to the newest schema while it serves, then end")
    migrate.set_defaults(command=_migrate)

    verify = commands.add_parser("verify", help="verify the ledger; exit code 1 at the first mismatch")
    verify.add_argument("--all", action="store_true", help="go on after a mismatch, and tell all of them")
    verify.add_argument("--json", action="store_true", help="tell it for machines")
    verify.add_argument(
        "--expect-head",
        type=_head,
        metavar="NUMBER:SHA256",
        help="a head of the hash chain that was noted earlier: it must be in the chain still",
    )
    verify.add_argument(
        "--seconds-max",
        type=_whole(_VERIFY_SECONDS_MAX),
        default=round(verification.SECONDS_MAX),
        metavar="N",
        help=f"how long it may take [{verification.SECONDS_MAX:g}]",
    )
    verify.set_defaults(command=_verify)

    redrive = commands.add_parser("redrive", help="put dead letters back into the queue; settling twice settles once")
    redrive.add_argument(
        "--max",
        type=_whole(REDRIVE_MESSAGES_MAX),
        default=REDRIVE_MESSAGES_MAX,
        metavar="N",
        help=f"messages at most [{REDRIVE_MESSAGES_MAX}]",
    )
    redrive.set_defaults(command=_redrive)
    return parser


def _head(text: str) -> verification.Head:
    try:
        return verification.Head.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _whole(high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= high:
            raise argparse.ArgumentTypeError(f"must be a whole number from 1 to {high}")
        return int(text)

    return parse


def _begin(faults: Sequence[str]) -> None:
    """Before a command does anything: see that its settings are there, and listen to signals and libraries."""
    raise_if_any("settings", faults)
    signal.signal(signal.SIGTERM, _interrupt)
    logging.basicConfig(handlers=[LibraryHandler(create_log(sys.stdout.buffer))], force=True)


def _run(settings: Settings, _: argparse.Namespace) -> int:
    _begin(refusals_to_serve(settings))
    with ExitStack() as stack:
        listener = stack.enter_context(_listen(settings))
        database = "the database of REDEMPTION_DATABASE_URL"
        if settings.database_url is None:
            owner = stack.enter_context(embedded_postgres())
            settings = replace(settings, database_url=asyncio.run(_prepare(owner)))
            database = f"an embedded Postgres; the account {_DEMO_ACCOUNT!r} has {_DEMO_POINTS:,} points"
        app = create_app(settings)
        gate = app.state.gate
        config = _config(settings, app, loop="uvloop", http=gated(gate))
        server = _ServiceServer(config, gate, leaving_seconds=settings.drain_seconds)
        return _serve(server, listener, f"listening on {_url(listener)}, with {database}")


def _work(settings: Settings, _: argparse.Namespace) -> int:
    _begin(_missing(settings.database_url, "DATABASE_URL", "work"))
    with _listen(settings) as listener:
        server = _WorkerServer(_config(settings, create_worker(settings), loop="uvloop", http="httptools"))
        return _serve(server, listener, f"working; metrics at {_url(listener)}/metrics")


def _migrate(settings: Settings, _: argparse.Namespace) -> int:
    url = settings.migration_database_url
    _begin(_missing(url, "MIGRATION_DATABASE_URL", "migrate"))
    names = asyncio.run(administration.migrate(url or "", ca_file=settings.database_ca_file))
    return _say(f"applied {', '.join(names)}" if names else "the schema is up to date", OK)


def _verify(settings: Settings, options: argparse.Namespace) -> int:
    url = settings.database_url
    _begin(_missing(url, "DATABASE_URL", "verify"))
    report = asyncio.run(
        verification.verify(
            url or "",
            expect_head=options.expect_head,
            first_only=not options.all,
            progress=_progress,
            ca_file=settings.database_ca_file,
            seconds_max=options.seconds_max,
        )
    )
    told = orjson.dumps(verification.as_json(report)).decode() if options.json else verification.describe(report)
    sys.stdout.write(f"{told}\n")
    return OK if report.ok else FAILED


def _progress(check: str, fact: str) -> None:
    if sys.stderr.isatty():
        _say(f"{check}: {fact}", OK)


def _redrive(settings: Settings, options: argparse.Namespace) -> int:
    _begin(_missing(settings.dead_letter_queue_url, "DEAD_LETTER_QUEUE_URL", "redrive"))

    async def redrive() -> int:
        queue = parts.queue(settings, NoOpTracer())
        assert queue is not None, "a dead letter queue goes with a queue"
        async with queue.opened(close_seconds=_CLOSE_SECONDS):
            return await queue.redrive(options.max)

    return _say(f"put {asyncio.run(redrive())} messages back into the queue", OK)


def _missing(value: str | None, name: str, command: str) -> list[str]:
    return [] if value else [f"REDEMPTION_{name}: missing; `{command}` needs it"]


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


def _config(settings: Settings, app: FastAPI, **how: Any) -> uvicorn.Config:  # noqa: ANN401 - uvicorn's own
    return uvicorn.Config(
        app,
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        ws="none",
        # Longer than a load balancer keeps an idle connection (ALB: 60 s), or it sends requests into closed ones.
        timeout_keep_alive=75,
        timeout_graceful_shutdown=round(settings.shutdown_seconds),
        **how,
    )


def _serve(server: _ServiceServer | _WorkerServer, listener: socket.socket, message: str) -> int:
    server.message = message
    try:
        server.run(sockets=[listener])
    except KeyboardInterrupt:  # which uvicorn raises anew once it has ended: to be told to stop is no interruption
        if not server.started:
            raise
    return OK if server.started else FAILED


class _Says(uvicorn.Server):
    """Says where it listens once it really serves."""

    message = ""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            _say(self.message, OK)


class _ServiceServer(_Says, Server):
    """The service's."""


class _WorkerServer(_Says):
    """The worker's: nobody is turned away, and nobody needs to leave."""


def _interrupt(_: int, __: FrameType | None) -> None:
    raise _TerminatedError


def _say(message: str, code: int) -> int:
    for line in message.splitlines():
        sys.stderr.write(f"redemption-service: {line}\n")
    sys.stderr.flush()
    return code


if __name__ == "__main__":
    sys.exit(main())
