"""Redemptions while the ledger does not answer: accepted into a real queue, settled later, and never twice."""

from __future__ import annotations

import asyncio
import io
import os
import secrets
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import httpx
import pytest

from drills.harness import SqsQueue, Toxiproxy, sqs_queue, toxiproxy, valkey_cluster
from service import administration
from service.settings import Settings
from service.worker import create_worker
from slo.metrics import REDEEM_ROUTE
from tests.service.conftest import Database, Serve, Service

pytestmark = [pytest.mark.anyio, pytest.mark.e2e]


@pytest.fixture(scope="module")
def sqs() -> Iterator[SqsQueue]:
    """SQS, and an environment that leads there and nowhere else."""
    with sqs_queue(visibility_seconds=2) as queue:
        before = dict(os.environ)
        os.environ.update({name: text for name, text in queue.environment().items() if name.startswith("AWS_")})
        yield queue
        os.environ.clear()
        os.environ.update(before)


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine may need longer for the queue's answer than a guest should have to wait."""
    monkeypatch.setattr("service.redeeming._SEND_SECONDS_MAX", 2.0)
    monkeypatch.setattr("service.worker._DEPTH_SECONDS", 0.5)


@pytest.fixture
def queue(sqs: SqsQueue) -> SqsQueue:
    """The queue, empty."""
    sqs.purge()
    return sqs


@pytest.fixture(scope="module")
def path(database: Database) -> Iterator[Toxiproxy]:
    """The way from the service to the database."""
    with toxiproxy(urlsplit(database.app).netloc.rpartition("@")[2]) as way:
        yield way


@pytest.fixture(scope="module")
def worker_url(database: Database) -> str:
    """The worker's login; it goes to the database directly."""
    return asyncio.run(administration.provision_worker(database.owner))


def _settings(queue: SqsQueue) -> dict[str, Any]:
    return {
        "queue_url": queue.queue_url,
        "queue_endpoint_url": queue.endpoint_url,
        "dead_letter_queue_url": queue.dead_letter_url,
        "signing_key": b"k" * 32,
    }


@pytest.fixture
async def service(serve: Serve, database: Database, queue: SqsQueue, path: Toxiproxy) -> AsyncIterator[Service]:
    """The service, with a queue."""
    parts = urlsplit(database.app)
    login = parts.netloc.rpartition("@")[0]
    url = urlunsplit(parts._replace(netloc=f"{login}@{path.listen}"))
    async with serve(database_url=url, deadline_seconds=4, **_settings(queue)) as running:
        yield running
    path.enable()
    path.remove_all()


Work = Callable[..., AbstractAsyncContextManager[httpx.AsyncClient]]


@pytest.fixture
def work(settings: Settings, worker_url: str, queue: SqsQueue) -> Work:
    """Run a worker in this process, with the given settings changed."""

    @asynccontextmanager
    async def run(**changes: Any) -> AsyncIterator[httpx.AsyncClient]:  # noqa: ANN401 - whatever the settings hold
        wanted = replace(settings, **{"database_url": worker_url, **_settings(queue), **changes})
        app = create_worker(wanted, log_stream=io.BytesIO())
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://worker") as client,
        ):
            yield client

    return run


async def _until_settled(service: Service, location: str) -> Any:  # noqa: ANN401 - any JSON
    async with asyncio.timeout(20):
        while (found := (await service.client.get(location)).json())["status"] != "settled":
            await asyncio.sleep(0.1)
        return found["redemption"]


async def _until_decided_at_once(service: Service) -> None:
    """The service's own probe, which the worker does not wait for, has found the ledger again."""
    async with asyncio.timeout(20):
        while await service.sample("redemption_fallback_active"):
            await asyncio.sleep(0.05)


async def test_an_outage_defers_and_the_worker_settles(
    service: Service, database: Database, work: Work, path: Toxiproxy
) -> None:
    """While the ledger is away: 202 and a place to ask; afterwards the points are gone once, whoever retries."""
    account, key = await database.account(100), secrets.token_hex(16)
    path.disable()
    answers = [await service.redeem(account, 30, key)] + [await service.redeem(account, 1) for _ in range(4)]
    assert {answer.status_code for answer in answers} == {202}
    first = answers[0]
    assert (first.json()["status"], first.json()["redemption"]) == ("pending", None)
    assert int(first.headers["Retry-After"]) >= 1
    assert await service.sample("redemption_fallback_active") == 1
    assert await service.sample("redemption_deferred_total", reason="unreachable") == 5
    assert await service.sample("redemption_requests_total", route=REDEEM_ROUTE, outcome="deferred") == 5
    assert (await service.client.get("/readyz")).status_code == 200
    path.enable()
    location = first.headers["Location"]
    assert (await service.client.get(location)).json()["status"] == "pending"
    async with work() as worker:
        settled = await _until_settled(service, location)
        assert (settled["status"], settled["points"]) == ("redeemed", 30)
        for answer in answers[1:]:
            await _until_settled(service, answer.headers["Location"])
        text = (await worker.get("/metrics")).text
        assert 'redemption_settled_total{outcome="decided",source="queue"} 5.0' in text
    await _until_decided_at_once(service)
    retry = await service.redeem(account, 30, key)
    assert (retry.status_code, retry.headers["Idempotent-Replayed"]) == (201, "true")
    assert await service.balance(account) == 66


async def test_a_retry_that_finds_the_ledger_again_is_settled_once(
    service: Service, database: Database, work: Work, path: Toxiproxy
) -> None:
    """The same key decided by the ledger before the queue gets there: the queue's copy finds it decided."""
    account, key = await database.account(100), secrets.token_hex(16)
    path.disable()
    deferred = await service.redeem(account, 30, key)
    assert deferred.status_code == 202
    path.enable()
    async with asyncio.timeout(10):
        while (direct := await service.redeem(account, 30, key)).status_code != 201:
            await asyncio.sleep(0.1)
    async with work() as worker:
        async with asyncio.timeout(20):
            while 'outcome="replayed",source="queue"} 0.0' in (await worker.get("/metrics")).text:
                await asyncio.sleep(0.1)
    found = await _until_settled(service, deferred.headers["Location"])
    assert found["redemption_id"] == direct.json()["redemption_id"]
    assert await service.balance(account) == 70


async def test_too_late_is_a_refusal_on_record(serve: Serve, database: Database, work: Work, queue: SqsQueue) -> None:
    """What was not settled in its time is refused, and never deducted: neither by the worker nor by a retry."""
    account, key = await database.account(100), secrets.token_hex(16)
    nowhere = "postgresql://nobody@127.0.0.1:1/none"
    async with serve(database_url=nowhere, deferred_seconds=0.5, **_settings(queue)) as away:
        deferred = await away.redeem(account, 30, key)
        assert deferred.status_code == 202
    await asyncio.sleep(0.6)
    async with serve(**_settings(queue)) as service, work():
        settled = await _until_settled(service, deferred.headers["Location"])
        assert (settled["status"], settled["rejection"]) == ("rejected", "deadline-passed")
        retry = await service.redeem(account, 30, key)
        assert (retry.status_code, retry.json()["code"]) == (422, "deadline-passed")
        assert await service.balance(account) == 100


async def test_without_ledger_and_queue_nothing_is_promised(serve: Serve, queue: SqsQueue, database: Database) -> None:
    """Neither answers: 503, retryable, and the redemption is on no record."""
    account, key = await database.account(100), secrets.token_hex(16)
    gone = _settings(queue) | {"queue_endpoint_url": "http://127.0.0.1:1"}
    async with serve(database_url="postgresql://nobody@127.0.0.1:1/none", deadline_seconds=2, **gone) as away:
        answer = await away.redeem(account, 30, key)
        assert (answer.status_code, answer.json()["code"]) == (503, "ledger-unavailable")
        assert answer.json()["retryable"] is True
    async with serve() as service:
        assert (await service.redeem(account, 30, key)).headers.get("Idempotent-Replayed") is None


async def test_a_reference_is_good_for_its_client_and_untouched_alone(
    service: Service, database: Database, path: Toxiproxy
) -> None:
    """A reference that was changed leads nowhere."""
    account = await database.account(100)
    path.disable()
    location = (await service.redeem(account, 1)).headers["Location"]
    path.enable()
    head, _, _ = location.rpartition("/")
    changed = f"{head[:-1]}{'A' if head[-1] != 'A' else 'B'}/status"
    answer = await service.client.get(changed)
    assert (answer.status_code, answer.json()["code"]) == (404, "redemption-not-found")


async def test_a_slow_ledger_defers_before_the_deadline(
    service: Service, database: Database, work: Work, path: Toxiproxy
) -> None:
    """The ledger has begun and says nothing: the caller gets 202 in time, and whichever comes first is the only one."""
    account, key = await database.account(100), secrets.token_hex(16)
    await service.redeem(account, 1)  # the connection is there
    path.add_toxic("timeout", stream="downstream", timeout=0)
    answer = await service.redeem(account, 30, key)
    assert answer.status_code == 202
    assert await service.sample("redemption_deferred_total", reason="slow") == 1
    path.remove_all()
    async with work():
        settled = await _until_settled(service, answer.headers["Location"])
    assert settled["status"] == "redeemed"
    assert await service.balance(account) == 69


async def test_what_was_begun_before_it_was_deferred_keeps_its_deadline(
    serve: Serve, database: Database, queue: SqsQueue
) -> None:
    """A call that waits for a lock until the time of its deferral is over deducts nothing any more."""
    account, key = await database.account(100), secrets.token_hex(16)
    async with serve(deadline_seconds=4, deferred_seconds=4, **_settings(queue)) as service:
        async with database.connection() as owner, owner.transaction():
            await owner.execute("SELECT 1 FROM ledger.accounts WHERE account_id = $1 FOR UPDATE", account)
            deferred = await service.redeem(account, 30, key)
            assert deferred.status_code == 202
            await asyncio.sleep(4)  # nobody settles it meanwhile: no worker runs
        settled = await _until_settled(service, deferred.headers["Location"])
        assert (settled["status"], settled["rejection"]) == ("rejected", "deadline-passed")
        assert await service.balance(account) == 100


async def test_beyond_the_limit_a_redemption_may_wait(
    serve: Serve, database: Database, work: Work, queue: SqsQueue
) -> None:
    """With `Prefer: respond-async` a redemption beyond the limit goes to the queue, and by Valkey's stream at once."""
    account, stuck = await database.account(100), await database.account(100)
    with valkey_cluster() as cluster:
        shared = {**_settings(queue), "valkey_url": cluster.url}
        async with serve(in_flight_max=1, deadline_seconds=10, **shared) as service:
            async with asyncio.timeout(20):
                while not await service.sample("redemption_valkey_calls_total", outcome="ok"):
                    await service.redeem("nobody", 1)
            async with database.connection() as owner, owner.transaction():
                await owner.execute("SELECT 1 FROM ledger.accounts WHERE account_id = $1 FOR UPDATE", stuck)
                held = asyncio.create_task(service.redeem(stuck, 1))
                async with asyncio.timeout(10):
                    while await service.sample("redemption_requests_in_flight") != 1:
                        await asyncio.sleep(0.02)
                shed = await service.redeem(account, 30)
                assert (shed.status_code, shed.json()["code"]) == (503, "overloaded")
                deferred = await service.redeem(account, 30, Prefer="wait=5, respond-async")
                assert deferred.status_code == 202
                assert await service.sample("redemption_deferred_total", reason="overloaded") == 1
                async with work(valkey_url=cluster.url) as worker:
                    async with asyncio.timeout(20):  # the queue's own copy comes after 30 s only
                        while 'outcome="decided",source="stream"} 1.0' not in (await worker.get("/metrics")).text:
                            await asyncio.sleep(0.1)
            assert (await held).status_code == 201
            settled = await _until_settled(service, deferred.headers["Location"])
            assert settled["status"] == "redeemed"
            assert await service.balance(account) == 70


async def test_what_cannot_be_read_becomes_a_dead_letter(work: Work, queue: SqsQueue) -> None:
    """A message that nobody can read stops nothing; after some deliveries it is put aside, and the metrics show it."""
    queue.send_text("no redemption")
    async with work() as worker:
        async with asyncio.timeout(60):
            while 'outcome="unreadable",source="queue"} 0.0' in (await worker.get("/metrics")).text:
                await asyncio.sleep(0.1)


async def test_what_waits_is_seen_while_the_ledger_is_away(
    service: Service, database: Database, work: Work, worker_url: str, path: Toxiproxy
) -> None:
    """Nothing is received then, so the gauge of the oldest tells since when messages have lain there; never 0."""
    account = await database.account(100)
    path.disable()
    deferred = await service.redeem(account, 30)
    assert deferred.status_code == 202
    parts = urlsplit(worker_url)
    away = urlunsplit(parts._replace(netloc=f"{parts.netloc.rpartition('@')[0]}@{path.listen}"))
    gauge = "redemption_deferred_oldest_accepted_timestamp_seconds "
    async with work(database_url=away) as worker:
        async with asyncio.timeout(30):
            while f"{gauge}0.0" in (await worker.get("/metrics")).text:
                await asyncio.sleep(0.1)
        path.enable()
        assert (await _until_settled(service, deferred.headers["Location"]))["status"] == "redeemed"
        async with asyncio.timeout(30):
            while f"{gauge}0.0" not in (await worker.get("/metrics")).text:
                await asyncio.sleep(0.1)
