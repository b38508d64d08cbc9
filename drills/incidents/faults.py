"""The faults: each strikes when it is entered, and heals when it is left."""

from __future__ import annotations

import asyncio
import hashlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import uuid4

import asyncpg

from drills.harness import HarnessError, Load, service, traffic
from drills.harness.http import checked, client
from drills.incidents.incident import Fault
from drills.incidents.stage import ANOTHER_GUEST, GUESTS, REQUESTS_PER_SECOND, Stage
from service.deferral import Deferred

OVERLOAD_PER_SECOND: Final = 250.0

_LOCK_SECONDS_MAX: Final = 30.0
_EXPORTERS_SECONDS: Final = 60.0


@contextmanager
def _repeated(act: Callable[[threading.Event], None]) -> Iterator[None]:
    """Do something again and again in a thread while the block runs; what it raises is raised at the end."""
    stop = threading.Event()

    def loop() -> None:
        while not stop.is_set():
            act(stop)

    with ThreadPoolExecutor(1) as pool:
        ended = pool.submit(loop)
        try:
            yield
        finally:
            stop.set()
            ended.result()


def slow_path(milliseconds: int) -> Fault:
    """Everything that the database says to the service is late."""

    @contextmanager
    def fault(on: Stage) -> Iterator[None]:
        on.path.add_toxic("latency", latency=milliseconds)
        yield
        on.path.remove_all()

    return fault


@contextmanager
def cut_paths(on: Stage) -> Iterator[None]:
    """Nobody reaches the database."""
    for path in (on.path, on.worker_path):
        path.disable()
    yield
    for path in (on.path, on.worker_path):
        path.enable()


@contextmanager
def kill_valkey(on: Stage) -> Iterator[None]:
    """Right before the exporters ask, as they do once a real minute, whatever the policy."""
    time.sleep(max(0.0, _EXPORTERS_SECONDS - 2 - time.time() % _EXPORTERS_SECONDS))
    on.valkey.kill_all()
    yield


@contextmanager
def stop_worker(on: Stage) -> Iterator[None]:
    """End the worker, as a crash would."""
    on.settler.process.kill()
    yield


@contextmanager
def stop_exporter(on: Stage) -> Iterator[None]:
    """End the exporters, as a crash would."""
    assert on.exporter is not None, "the fault needs the exporters"
    on.exporter.kill()
    yield


@contextmanager
def cut_scrapes(on: Stage) -> Iterator[None]:
    """Prometheus does not reach the service; guests do."""
    on.scrape_path.disable()
    yield
    on.scrape_path.enable()


@contextmanager
def leave_backlog(on: Stage) -> Iterator[None]:
    """Put redemptions into the queue as the service does, of a guest whose account somebody holds locked."""
    with _locked(on, [ANOTHER_GUEST], held_seconds=600, free_seconds=0):
        for number in range(20):
            now = datetime.now(UTC)
            message = Deferred(
                client_id="drill",
                key=uuid4().hex,
                fingerprint=hashlib.sha256(str(number).encode()).digest(),
                account_id=ANOTHER_GUEST,
                points=1,
                mode="immediate",
                hold_seconds=None,
                accepted_at=now,
                deadline=now + timedelta(hours=1),
                traceparent=None,
            )
            on.queue.send_text(message.encode().decode())
        yield


@contextmanager
def lock_guests(on: Stage) -> Iterator[None]:
    """Lock all guests' accounts, nearly all the time."""
    with _locked(on, GUESTS, held_seconds=1.8, free_seconds=0.1):
        yield


@contextmanager
def _locked(on: Stage, accounts: Sequence[str], *, held_seconds: float, free_seconds: float) -> Iterator[None]:
    """Lock accounts in the ledger, as a transaction does that somebody forgot, again and again."""

    async def hold(stop: threading.Event) -> None:
        connection = await asyncpg.connect(on.database.owner_url)
        try:
            async with connection.transaction():
                await connection.execute(
                    "SELECT 1 FROM ledger.accounts WHERE account_id = ANY($1) FOR UPDATE", accounts
                )
                locked.set()
                await asyncio.to_thread(stop.wait, held_seconds)
        finally:
            await connection.close()
        await asyncio.to_thread(stop.wait, free_seconds)

    locked = threading.Event()
    with _repeated(lambda stop: asyncio.run(hold(stop))):
        locked.wait(_LOCK_SECONDS_MAX)
        yield


@contextmanager
def reset_some(on: Stage) -> Iterator[None]:
    """Reset each connection to the database with some probability, twice a second anew."""
    toxics = "/proxies/path/toxics"
    reset = {
        "name": "reset",
        "type": "reset_peer",
        "stream": "downstream",
        "toxicity": 0.5,
        "attributes": {"timeout": 0},
    }

    with client(f"http://127.0.0.1:{on.path.process.ports[0]}") as http:

        def strike(stop: threading.Event) -> None:
            checked(http.post(toxics, json=reset))
            stop.wait(0.25)
            checked(http.delete(f"{toxics}/reset"))
            stop.wait(0.25)

        with _repeated(strike):
            yield


@contextmanager
def overload(on: Stage) -> Iterator[None]:
    """More guests than the service can serve."""
    with traffic(on.shop.url, GUESTS, Load(per_second=OVERLOAD_PER_SECOND), on.shop.headers):
        yield


@contextmanager
def crash_again(on: Stage) -> Iterator[None]:
    """Kill the service; each that takes its place ends while it starts, of a setting that it refuses."""
    on.shop.process.kill()

    def crash(stop: threading.Event) -> None:
        wrong = {"REDEMPTION_POOL_MAX": "many"}
        with suppress(HarnessError), service(on.database.url, wrong, issuer=on.shop.issuer, port=on.shop.port):
            raise AssertionError("a service that must not start has started")
        stop.wait(0.5)

    with _repeated(crash):
        yield
    on.serve({}, on.shop.port)


@contextmanager
def deploy_badly(on: Stage) -> Iterator[None]:
    """A new process takes as many requests as the old one, with milliseconds where seconds are meant."""
    new = on.serve({"REDEMPTION_DEADLINE_SECONDS": "0.01"}, on.second_port)
    with traffic(new.url, GUESTS, Load(per_second=REQUESTS_PER_SECOND), new.headers):
        yield
