"""The front door: `redemption-service run` and `migrate`, as processes of their own."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import asyncpg
import httpx
import psutil
import pytest

from drills.harness import Issuer, ledger_database, worker
from service import administration
from service.__main__ import main
from tests.service.conftest import TOOLS, Database, free_ports, process, tool, wait_for

BODY = {"account_id": "demo", "points": 5}


def _redeem(url: str, key: str, **headers: str) -> httpx.Response:
    return httpx.post(f"{url}/v1/redemptions", json=BODY, headers={"Idempotency-Key": key, **headers})


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_it_runs_without_any_setting_and_stops_when_asked(tmp_path: Path, stop: signal.Signals) -> None:
    """With no configuration it serves from a Postgres of its own, and takes that with it when it is told to end."""
    log = tmp_path / "log"
    with process({}, log=log) as (running, url):
        assert httpx.get(f"{url}/readyz").status_code == 200
        assert _redeem(url, "0123456789abcdef").json()["balance"] == 999_995
        family = psutil.Process(running.pid).children(recursive=True)
        assert family
        running.send_signal(stop)
        assert running.wait(20) == 0
        wait_for(lambda: not any(each.is_running() for each in family))
    spoken, *lines = log.read_text().splitlines()
    assert spoken.startswith(f"redemption-service: listening on {url}, ")
    told = [json.loads(line) for line in lines]
    assert [line["route"] for line in told if "_aws" not in line] == ["POST /v1/redemptions"]
    assert sum(line["AllEvents"] for line in told if line.get("Slo") == "availability") == 1


@pytest.fixture
def issuer(tmp_path: Path) -> Issuer:
    """Makes the tokens that a service with a database asks for."""
    return Issuer(tmp_path)


def _bearer(issuer: Issuer) -> dict[str, str]:
    return {"Authorization": f"Bearer {issuer.token('partner')}"}


def test_a_request_in_flight_is_answered_before_the_end(database: Database, tmp_path: Path, issuer: Issuer) -> None:
    """SIGTERM lets a redemption that waits for the database finish, within the bound."""

    async def scene() -> None:
        account = await database.account(10)
        environment = {"REDEMPTION_DATABASE_URL": database.app, "REDEMPTION_DEADLINE_SECONDS": "20"}
        with process(environment, log=tmp_path / "log", issuer=issuer) as (running, url):
            async with httpx.AsyncClient(base_url=url, timeout=20) as client, database.connection() as owner:
                async with owner.transaction():
                    await owner.execute("SELECT 1 FROM ledger.accounts WHERE account_id = $1 FOR UPDATE", account)
                    request = asyncio.create_task(
                        client.post(
                            "/v1/redemptions",
                            json={"account_id": account, "points": 3},
                            headers={"Idempotency-Key": "a" * 32, **_bearer(issuer)},
                        )
                    )
                    await asyncio.sleep(0.5)
                    running.terminate()
                    await asyncio.sleep(0.5)
                    assert running.poll() is None
                answer = await request
            assert (answer.status_code, answer.json()["balance"]) == (201, 7)
            assert await asyncio.to_thread(running.wait, 20) == 0

    asyncio.run(scene())


def test_the_end_does_not_wait_for_ever(database: Database, tmp_path: Path, issuer: Issuer) -> None:
    """A call that the database never answers holds the end up no longer than the settings allow."""

    async def scene() -> None:
        account = await database.account(10)
        environment = {
            "REDEMPTION_DATABASE_URL": database.app,
            "REDEMPTION_DEADLINE_SECONDS": "0.2",
            "REDEMPTION_SHUTDOWN_SECONDS": "1",
        }
        with process(environment, log=tmp_path / "log", issuer=issuer) as (running, url):
            async with database.connection() as owner, owner.transaction():
                await owner.execute("SELECT 1 FROM ledger.accounts WHERE account_id = $1 FOR UPDATE", account)
                async with httpx.AsyncClient(base_url=url) as client:
                    answer = await client.post(
                        "/v1/redemptions",
                        json={"account_id": account, "points": 3},
                        headers={"Idempotency-Key": "b" * 32, **_bearer(issuer)},
                    )
                assert answer.status_code == 504
                began = time.monotonic()
                running.terminate()
                assert await asyncio.to_thread(running.wait, 20) == 0
                assert time.monotonic() - began < 5

    asyncio.run(scene())


def test_a_service_with_a_database_asks_who_calls(database: Database, capsys: pytest.CaptureFixture[str]) -> None:
    """Without the callers' keys nothing is started; nor is the demo where others could reach it."""
    assert main(["run"], {"REDEMPTION_DATABASE_URL": database.app}) == 2
    assert "REDEMPTION_JWKS_URL or REDEMPTION_JWKS_FILE: missing" in capsys.readouterr().err
    assert main(["run"], {"REDEMPTION_HOST": "0.0.0.0"}) == 2
    assert "REDEMPTION_HOST: must be this machine's own" in capsys.readouterr().err


def test_keys_that_cannot_be_read_end_with_2(database: Database, tmp_path: Path, issuer: Issuer) -> None:
    """A file without keys is told in one line, with its name."""
    issuer.jwks_file.write_text("{}")
    done = _in_process(
        ["run"], {"REDEMPTION_DATABASE_URL": database.app, "REDEMPTION_PORT": "0", **issuer.environment()}
    )
    assert done.returncode != 0
    assert str(tmp_path) in done.stderr + done.stdout


def test_verify_tells_whether_the_ledger_fits() -> None:
    """0 and a line for each check when it does; 1 when it does not; the head of the chain is told, for machines too."""
    with ledger_database() as ledger:
        ledger.accrue(["guest"], 5)
        environment = {"REDEMPTION_DATABASE_URL": ledger.worker_url}
        good = _in_process(["verify"], environment)
        assert (good.returncode, good.stdout.count("\nok "), good.stderr) == (0, 6, "")
        told = json.loads(_in_process(["verify", "--json"], environment).stdout)
        assert told["ok"] is True
        assert _in_process(["verify", "--expect-head", "1:" + "0" * 64], environment).returncode == 1
        assert _in_process(["verify", "--expect-head", "soon"], environment).returncode == 2
        assert main(["verify"], {}) == 2


def test_the_worker_keeps_the_ledger_in_order_and_stops_when_asked() -> None:
    """It seals and verifies, shows so, and ends with 0."""
    with ledger_database() as ledger:
        ledger.accrue(["guest"], 5)
        with worker(ledger.worker_url) as running:

            def shown() -> bool:
                lines = dict(
                    line.rsplit(" ", 1)
                    for line in httpx.get(f"{running.url}/metrics").text.splitlines()
                    if not line.startswith("#")
                )
                verified = float(lines["redemption_ledger_verified_timestamp_seconds"])
                sealed = float(lines["redemption_chain_sealed_timestamp_seconds"])
                return verified > 0 and sealed > 0

            wait_for(shown)
            os.kill(running.process.pid, signal.SIGTERM)
            wait_for(lambda: not running.process.alive)
            assert "Traceback" not in running.process.tail(100)


_SIGNALS = pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])


@_SIGNALS
def test_an_interrupted_verification_is_none(database: Database, number: signal.Signals, code: int) -> None:
    """It ends with the signal's code, and says so in one line: nobody takes it for a ledger in order."""
    waiting = "application_name = 'redemption-verification' AND wait_event_type = 'Lock'"
    with (
        _locked(database, "LOCK TABLE ledger.accounts", waiting) as is_waiting,
        _started(["verify"], {"REDEMPTION_DATABASE_URL": database.owner}) as running,
    ):
        wait_for(is_waiting, running)
        _assert_interrupted(running, number, code)


@_SIGNALS
def test_an_interrupted_migration_is_none(database: Database, number: signal.Signals, code: int) -> None:
    """As above, while it waits for another one."""
    lock = f"SELECT pg_advisory_lock({administration._LOCK})"
    with (
        _locked(database, lock, "query LIKE '%pg_try_advisory_lock%'") as is_waiting,
        _started(["migrate"], {"REDEMPTION_MIGRATION_DATABASE_URL": database.owner}) as running,
    ):
        wait_for(is_waiting, running)
        _assert_interrupted(running, number, code)


@_SIGNALS
def test_an_interrupted_redrive_is_none(number: signal.Signals, code: int) -> None:
    """As above, while SQS does not answer."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(30)
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        environment = {
            "AWS_ACCESS_KEY_ID": "AKIDMADEUP",
            "AWS_SECRET_ACCESS_KEY": "made-up",
            "AWS_DEFAULT_REGION": "eu-central-1",
            "REDEMPTION_QUEUE_ENDPOINT_URL": url,
            "REDEMPTION_QUEUE_URL": f"{url}/1/queue",
            "REDEMPTION_DEAD_LETTER_QUEUE_URL": f"{url}/1/dead",
        }
        with _started(["redrive"], environment) as running:
            with silent.accept()[0]:
                running.send_signal(number)
                assert running.stderr is not None
                assert running.stderr.readline().decode() == _interrupted(number)
                silent.close()
            # A call that hangs keeps its thread, and the process from ending, until it fails.
            assert (running.wait(60), running.stderr.read()) == (code, b"")


@_SIGNALS
def test_a_service_that_never_served_was_interrupted(number: signal.Signals, code: int) -> None:
    """Told to stop while its own Postgres starts, it ends with the signal's code; only who served ends with 0."""
    with _started(["run"], {"REDEMPTION_PORT": "0"}) as running:
        wait_for(lambda: psutil.Process(running.pid).children(), running)
        _assert_interrupted(running, number, code)


@contextmanager
def _started(arguments: list[str], environment: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(
        [sys.executable, "-m", "service", *arguments],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as running:
        try:
            yield running
        finally:
            running.kill()


def _assert_interrupted(running: subprocess.Popen[bytes], number: signal.Signals, code: int) -> None:
    running.send_signal(number)
    spoken, complaint = running.communicate(timeout=60)
    assert (running.returncode, spoken, complaint.decode()) == (code, b"", _interrupted(number))


def _interrupted(number: signal.Signals) -> str:
    return f"redemption-service: interrupted by {number.name} before it was done\n"


@contextmanager
def _locked(database: Database, lock: str, waiting: str) -> Iterator[Callable[[], bool]]:
    """A lock is held while the block runs; yields whether somebody waits for it."""
    with asyncio.Runner() as runner:
        owner = runner.run(asyncpg.connect(database.owner))
        transaction = owner.transaction()
        runner.run(transaction.start())
        runner.run(owner.execute(lock))

        def is_waiting() -> bool:
            runner.run(owner.execute("SELECT pg_stat_clear_snapshot()"))  # else a transaction sees the same each time
            found: bool = runner.run(
                owner.fetchval(
                    f"SELECT EXISTS (SELECT FROM pg_stat_activity WHERE {waiting} AND pid <> pg_backend_pid())"  # noqa: S608 - of constants
                )
            )
            return found

        try:
            yield is_waiting
        finally:
            runner.run(transaction.rollback())
            runner.run(owner.close())


def test_wrong_settings_end_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    """Every fault is told on standard error, and nothing is started."""
    assert main(["run"], {"REDEMPTION_PORT": "x", "REDEMPTION_DATABASE_URL": "pa55word"}) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert "REDEMPTION_PORT: must be a whole number" in told.err
    assert "REDEMPTION_DATABASE_URL: must be a URL" in told.err
    assert "pa55word" not in told.err
    assert main(["migrate"], {}) == 2
    assert "REDEMPTION_MIGRATION_DATABASE_URL: missing" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["dance"],
        ["run", "--fast"],
        *(["redrive", f"--max={number}"] for number in ("many", "0", "-1", "10001", "²")),
        ["verify", "--seconds-max=0"],
    ],
)
def test_wrong_use_ends_with_2(arguments: list[str]) -> None:
    """An unknown command or option, or none, is wrong use, and so is a number out of bounds."""
    with pytest.raises(SystemExit) as caught:
        main(arguments, {})
    assert caught.value.code == 2


def test_a_port_that_is_taken_ends_with_1(capsys: pytest.CaptureFixture[str]) -> None:
    """A failure of the surroundings is one line and exit code 1, before a database is started."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        code = _in_process(["run"], {"REDEMPTION_PORT": port})
    assert code.returncode == 1
    assert "Address already in use" in code.stderr
    assert code.stderr.count("\n") == 1
    assert capsys.readouterr().out == ""


def test_migrate_says_what_it_did(database: Database) -> None:
    """On a database that has the schema there is nothing to do; where nobody listens it fails with 1."""
    done = _in_process(["migrate"], {"REDEMPTION_MIGRATION_DATABASE_URL": database.owner})
    assert (done.returncode, done.stderr) == (0, "redemption-service: the schema is up to date\n")
    url = f"postgresql://nobody@127.0.0.1:{free_ports(1)[0]}/none"
    assert _in_process(["migrate"], {"REDEMPTION_MIGRATION_DATABASE_URL": url}).returncode == 1


def _in_process(arguments: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "service", *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.mark.e2e
def test_a_real_jaeger_receives_the_trace(database: Database, tmp_path: Path, issuer: Issuer) -> None:
    """The trace that a caller began is found in Jaeger with both spans, sent by OTLP before the service ended."""
    if not (TOOLS / "jaeger").exists():
        pytest.fail("this test needs .tools/bin/jaeger: make tools")
    ports = free_ports(12)
    query, otlp = ports[0], ports[1]
    trace = os.urandom(16).hex()
    arguments = [
        f"--query.http-server.host-port=127.0.0.1:{query}",
        f"--collector.otlp.http.host-port=127.0.0.1:{otlp}",
        f"--query.grpc-server.host-port=127.0.0.1:{ports[2]}",
        f"--collector.otlp.grpc.host-port=127.0.0.1:{ports[3]}",
        f"--collector.grpc-server.host-port=127.0.0.1:{ports[4]}",
        f"--collector.http-server.host-port=127.0.0.1:{ports[5]}",
        f"--admin.http.host-port=127.0.0.1:{ports[6]}",
        f"--http-server.host-port=127.0.0.1:{ports[7]}",
        f"--processor.jaeger-binary.server-host-port=127.0.0.1:{ports[8]}",
        f"--processor.jaeger-compact.server-host-port=127.0.0.1:{ports[9]}",
        f"--processor.zipkin-compact.server-host-port=127.0.0.1:{ports[10]}",
    ]
    environment = {
        "REDEMPTION_DATABASE_URL": database.app,
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{otlp}",
        "OTEL_BSP_SCHEDULE_DELAY": "60000",  # ms: so that only the flush at the end can have sent it
    }
    with tool("jaeger", *arguments, environment={"SPAN_STORAGE_TYPE": "memory"}):
        wait_for(lambda: _answers(f"http://127.0.0.1:{query}/api/services"))
        with process(environment, log=tmp_path / "log", issuer=issuer) as (running, url):
            answer = _redeem(
                url, os.urandom(16).hex(), traceparent=f"00-{trace}-b7ad6b7169203331-01", **_bearer(issuer)
            )
            assert answer.json()["trace_id"] == trace
            running.terminate()
            assert running.wait(20) == 0
        found = wait_for(lambda: _answers(f"http://127.0.0.1:{query}/api/traces/{trace}")).json()["data"][0]
    assert {span["operationName"] for span in found["spans"]} == {"POST /v1/redemptions", "SELECT ledger.redeem_batch"}
    assert {each["serviceName"] for each in found["processes"].values()} == {"redemption"}


def _answers(url: str) -> httpx.Response | None:
    try:
        answer = httpx.get(url)
    except httpx.TransportError:
        return None
    return answer if answer.is_success else None
