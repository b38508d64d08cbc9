"""Faults under load, each followed by a judgement: `python -m drills.faults [NAME ...]`.

A drill starts the real parts, sends load, strikes at a time that its seed decides, heals, asks again about everything
that is not known, and then has two judges look: the history against the ledger (`drills.verdict`), and the ledger
against itself (`service.verification`). No fault may lose an acknowledged redemption, or make one happen twice.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import secrets
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from drills.harness import (
    HarnessError,
    Issuer,
    LedgerDatabase,
    PostgresPair,
    Service,
    SqsQueue,
    Toxiproxy,
    ValkeyCluster,
    ledger_database,
    postgres_pair,
    service,
    sqs_queue,
    toxiproxy,
    unwinding_on_sigterm,
    valkey_cluster,
    worker,
)
from drills.load import History, Outcome, Plan, loading, resolve
from drills.verdict import judge, read_facts
from service import verification
from service.embedded_postgres import EmbeddedPostgresError

SEED_VARIABLE: Final = "DRILL_SEED"
OK, FAILED, WRONG_USE = 0, 1, 2

_ACCOUNTS: Final = 20
_POINTS: Final = 400  # so few that some redemptions are refused, and refusals are promises too
_STRIKE_SECONDS: Final = (0.6, 1.2)
_FAULT_SECONDS: Final = 1.5
_AFTER_SECONDS: Final = 1.0
_DEADLINE_SECONDS: Final = "1"


@dataclass(frozen=True, slots=True)
class Stage:
    """What runs in a drill; what its fault does not need is None.

    Attributes:
        database: The ledger's.
        path: From the service to the database.
        pair: The database as primary and standby.
        valkey: The cluster.
        queue: SQS.
        services: The service, or two of them.
        more: Starts one more service, at this port if one is given.
    """

    database: LedgerDatabase
    path: Toxiproxy | None
    pair: PostgresPair | None
    valkey: ValkeyCluster | None
    queue: SqsQueue | None
    services: list[Service]
    more: Callable[[int | None], Service]


Act = Callable[[Stage], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """A fault.

    Attributes:
        name: Its name.
        meaning: What happens, in a sentence.
        strike: Makes it happen, and where it takes time waits it out.
        heal: Ends it.
        needs: Which parts run besides a plain database and a service: `path`, `pair`, `valkey`, `queue`, `two`.
        loses: How requests may end besides decisions: nothing else is allowed.
    """

    name: str
    meaning: str
    strike: Act
    heal: Act = field(default=lambda _stage: None)
    needs: frozenset[str] = frozenset()
    loses: frozenset[Outcome] = frozenset({Outcome.UNKNOWN, Outcome.SHED})


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a drill ended.

    Attributes:
        fault: Which.
        seed: What decides time and load.
        history: What became of every redemption, at last.
        first: How each had ended at first.
        violations: What is wrong; nothing may be.
    """

    fault: Fault
    seed: int
    history: History
    first: Counter[Outcome]
    violations: tuple[str, ...]


def drill(fault: Fault, seed: int) -> Verdict:
    """Run one.

    Raises:
        HarnessError, EmbeddedPostgresError: A part is missing or does not start.
        TimeoutError: A part does not do what it is told in time.
    """
    chance = random.Random(seed)  # noqa: S311 - repeatable on purpose
    with _stage(fault) as stage:
        accounts = tuple(f"guest-{seed}-{number}" for number in range(_ACCOUNTS))
        stage.database.accrue(accounts, _POINTS)
        plan = Plan(
            accounts=accounts,
            choice="zipf",
            points=(1, 20),
            connections=16,
            seconds=30,
            timeout_seconds=5,
            headers=stage.services[0].headers,
            record=True,
            seed=seed,
            requests_max=20_000,
        )
        with loading([one.url for one in stage.services], plan) as flow:
            time.sleep(chance.uniform(*_STRIKE_SECONDS))
            fault.strike(stage)
            fault.heal(stage)
            time.sleep(_AFTER_SECONDS)
            flow.stop()
            history = flow.report().history or History()
        last = stage.services[-1]
        settled = resolve(history, last.url, headers=last.headers)
        facts = asyncio.run(read_facts(stage.database.owner_url))
        violations = [str(one) for one in judge(settled, facts, settled=True)]
        violations += [f"still {one.outcome}: {one.key}" for one in settled.of(Outcome.UNKNOWN, Outcome.DEFERRED)]
        violations += _verified(stage.database)
        first = Counter(one.outcome for one in history)
        decided = {Outcome.ACKNOWLEDGED, Outcome.REJECTED}
        violations += [f"{first[one]} ended as {one}" for one in sorted(first.keys() - decided - fault.loses)]
        return Verdict(fault, seed, settled, first, tuple(violations))


def _verified(database: LedgerDatabase) -> Iterator[str]:
    report = asyncio.run(verification.verify(database.owner_url))
    for result in report.results:
        yield from (f"{result.check}: {finding.fact} {finding.examples}" for finding in result.findings)


@contextmanager
def _stage(fault: Fault) -> Iterator[Stage]:
    with unwinding_on_sigterm(), ExitStack() as stack:
        start = stack.enter_context
        pair = start(postgres_pair()) if "pair" in fault.needs else None
        database = pair.database if pair else start(ledger_database())
        path = start(toxiproxy(database.address)) if "path" in fault.needs else None
        valkey = start(valkey_cluster()) if "valkey" in fault.needs else None
        queue = start(sqs_queue()) if "queue" in fault.needs else None
        issuer = Issuer(Path(start(TemporaryDirectory(prefix="drill-issuer-"))))
        environment = {
            "REDEMPTION_DEADLINE_SECONDS": _DEADLINE_SECONDS,
            "REDEMPTION_ABANDON_SECONDS": "2",
            "REDEMPTION_DRAIN_SECONDS": "1",
            "REDEMPTION_CLIENT_REQUESTS_PER_SECOND": "100000",
            "REDEMPTION_CLIENT_BURST": "100000",
            **({"REDEMPTION_VALKEY_URL": valkey.url} if valkey else {}),
            **(queue.environment() if queue else {}),
        }
        url = path.through(database.url) if path else database.url

        def more(port: int | None) -> Service:
            return start(service(url, environment, issuer=issuer, port=port))

        services = [more(None) for _ in range(2 if "two" in fault.needs else 1)]
        start(worker(path.through(database.worker_url) if path else database.worker_url, environment))
        yield Stage(database, path, pair, valkey, queue, services, more)


# --- the faults -------------------------------------------------------------------------------------------------------


def _wait(_: Stage) -> None:
    time.sleep(_FAULT_SECONDS)


def _then_wait(act: Act) -> Act:
    def both(stage: Stage) -> None:
        act(stage)
        _wait(stage)

    return both


def _on_path(act: Callable[[Toxiproxy], None]) -> Act:
    def on(stage: Stage) -> None:
        assert stage.path is not None, "the fault needs a path"
        act(stage.path)

    return on


def _on_pair(act: Callable[[PostgresPair], object]) -> Act:
    def on(stage: Stage) -> None:
        assert stage.pair is not None, "the fault needs a pair"
        act(stage.pair)

    return on


def _on_valkey(act: Callable[[ValkeyCluster], object]) -> Act:
    def on(stage: Stage) -> None:
        assert stage.valkey is not None, "the fault needs Valkey"
        act(stage.valkey)

    return on


def _kill_service(stage: Stage) -> None:
    """The answers of the database are swallowed, so what it commits now is told to nobody; then the service dies."""
    _on_path(lambda path: path.add_toxic("timeout", stream="downstream", timeout=0))(stage)
    time.sleep(0.2)
    stage.services[-1].process.kill()
    _on_path(Toxiproxy.remove_all)(stage)
    stage.services.append(stage.more(None))


def _roll(stage: Stage) -> None:
    """One after the other is told to stop, ends when it has answered all, and is replaced at its address."""
    for place, old in enumerate(tuple(stage.services)):
        os.kill(old.process.pid, signal.SIGTERM)
        while old.process.alive:
            time.sleep(0.05)
        stage.services[place] = stage.more(old.port)


def _regain_standby_and_lose_primary(stage: Stage) -> None:
    _on_pair(PostgresPair.restart_standby)(stage)
    _on_pair(PostgresPair.fail_over)(stage)


def _lose_queue_and_database(stage: Stage) -> None:
    assert stage.queue is not None, "the fault needs a queue"
    stage.queue.stop()
    _on_path(Toxiproxy.disable)(stage)
    _wait(stage)


def _regain_queue_and_database(stage: Stage) -> None:
    assert stage.queue is not None, "the fault needs a queue"
    stage.queue.start()
    _on_path(Toxiproxy.enable)(stage)


_UNDECIDED: Final = frozenset({Outcome.UNKNOWN, Outcome.SHED, Outcome.DEFERRED})
_NOTHING: Final[frozenset[Outcome]] = frozenset()

FAULTS: Final = {
    fault.name: fault
    for fault in (
        Fault(
            name="service-killed",
            meaning="The service is killed between the database's commits and its own answers.",
            strike=_kill_service,
            needs=frozenset({"path"}),
        ),
        Fault(
            name="primary-killed",
            meaning="The database's primary is killed, and its synchronous standby promoted.",
            strike=_on_pair(PostgresPair.fail_over),
            needs=frozenset({"pair"}),
        ),
        Fault(
            name="standby-lost",
            meaning="The synchronous standby is gone for a while: no commit returns.",
            strike=_then_wait(_on_pair(PostgresPair.kill_standby)),
            heal=_on_pair(PostgresPair.restart_standby),
            needs=frozenset({"pair"}),
        ),
        Fault(
            name="standby-lost-then-primary",
            meaning="Commits wait for a standby that is gone and comes back; then the primary is killed.",
            strike=_then_wait(_on_pair(PostgresPair.kill_standby)),
            heal=_regain_standby_and_lose_primary,
            needs=frozenset({"pair"}),
        ),
        Fault(
            name="valkey-master-killed",
            meaning="A master of the Valkey cluster is killed, and its replica takes over.",
            strike=_then_wait(_on_valkey(lambda cluster: cluster.kill_master(0))),
            needs=frozenset({"valkey"}),
            loses=_NOTHING,
        ),
        Fault(
            name="valkey-gone",
            meaning="All of the Valkey cluster is killed.",
            strike=_then_wait(_on_valkey(ValkeyCluster.kill_all)),
            needs=frozenset({"valkey"}),
            loses=_NOTHING,
        ),
        Fault(
            name="database-cut",
            meaning="The database cannot be reached; redemptions go to the queue and are settled when it is back.",
            strike=_then_wait(_on_path(Toxiproxy.disable)),
            heal=_on_path(Toxiproxy.enable),
            needs=frozenset({"path", "queue"}),
            loses=_UNDECIDED,
        ),
        Fault(
            name="queue-gone",
            meaning="Neither the database nor SQS can be reached: 503, and nothing is half done.",
            strike=_lose_queue_and_database,
            heal=_regain_queue_and_database,
            needs=frozenset({"path", "queue"}),
            loses=_UNDECIDED,  # deferred: once the queue is back, and the database is not yet
        ),
        Fault(
            name="database-slow",
            meaning="Every answer of the database is late by up to 300 ms.",
            strike=_then_wait(_on_path(lambda path: path.add_toxic("latency", latency=200, jitter=100))),
            heal=_on_path(Toxiproxy.remove_all),
            needs=frozenset({"path"}),
        ),
        Fault(
            name="database-silent",
            meaning="Nothing comes back from the database; what is sent to it arrives.",
            strike=_then_wait(_on_path(lambda path: path.add_toxic("timeout", stream="downstream", timeout=0))),
            heal=_on_path(Toxiproxy.remove_all),
            needs=frozenset({"path"}),
        ),
        Fault(
            name="database-half-open",
            meaning="Nothing arrives at the database any more, and its connections stay open.",
            strike=_then_wait(_on_path(lambda path: path.add_toxic("timeout", stream="upstream", timeout=0))),
            heal=_on_path(Toxiproxy.remove_all),
            needs=frozenset({"path"}),
        ),
        Fault(
            name="database-reset",
            meaning="Connections to the database are reset, again and again.",
            strike=_then_wait(_on_path(lambda path: path.add_toxic("reset_peer", timeout=50))),
            heal=_on_path(Toxiproxy.remove_all),
            needs=frozenset({"path"}),
        ),
        Fault(
            name="rolling-restart",
            meaning="Two services are replaced one after the other: no request is lost.",
            strike=_roll,
            needs=frozenset({"two"}),
            loses=_NOTHING,
        ),
    )
}
"""Every fault, by its name."""


def seed_of_environment() -> int:
    """The seed that `DRILL_SEED` gives, or a random one."""
    given = os.environ.get(SEED_VARIABLE)
    return int(given) if given else secrets.randbits(32)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the drills that are named, or all; returns the exit code: 0 all is well, 1 it is not, 2 wrong use."""
    parser = argparse.ArgumentParser(
        prog="python -m drills.faults",
        description="Hurt a running service under load, and judge what became of every redemption.",
        epilog="faults:\n" + "\n".join(f"  {name:26} {fault.meaning}" for name, fault in FAULTS.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", choices=[[], *FAULTS], help="which; all if none is named")
    parser.add_argument("--seed", type=int, default=None, help=f"repeats a drill; else {SEED_VARIABLE}, or by chance")
    options = parser.parse_args(arguments)
    seed = seed_of_environment() if options.seed is None else options.seed
    code = OK
    for name in options.names or FAULTS:
        try:
            verdict = drill(FAULTS[name], seed)
        except (HarnessError, EmbeddedPostgresError, TimeoutError) as error:
            print(f"{name}: the drill could not be run: {error}", file=sys.stderr)
            return FAILED
        counts = ", ".join(f"{count} {outcome}" for outcome, count in sorted(verdict.first.items()))
        print(f"{'FAILED' if verdict.violations else 'ok':7} {name:26} seed {seed}: {counts}", flush=True)
        for violation in verdict.violations[:20]:
            print(f"        {violation}", flush=True)
            code = FAILED
    return code


if __name__ == "__main__":
    sys.exit(main())
