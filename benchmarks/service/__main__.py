"""`python -m benchmarks.service`: the whole service on durable commits, beside pgbench calling its one-row function."""

from __future__ import annotations

import json
import re
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any, Final

import psutil

from benchmarks.measure import arguments, machine, report, run, say, summary, table, verdict
from drills.harness import HarnessError, LedgerDatabase, Service, jaeger, ledger_database, service, valkey_cluster

README: Final = Path(__file__).with_name("README.md")

ROUNDS, SECONDS, ACCOUNTS = 3, 8, 20_000
ROUNDS_QUICK, SECONDS_QUICK, ACCOUNTS_QUICK = 1, 2, 200

# The claims, as ratios within one run.
PGBENCH_SHARE_MIN: Final = 0.5
P99_SECONDS_MAX: Final = 0.05
GOODPUT_SHARE_MIN: Final = 0.8
OVERLOAD_P99_SECONDS_MAX: Final = 0.15
TELEMETRY_SHARE_MAX: Final = 0.1

_CONNECTIONS: Final = 64
_CONNECTIONS_OVERLOAD: Final = 600  # more than the limit lets in, so that there is somebody to turn away
_PGBENCH_CLIENTS: Final = 8  # of 1, 8 and 32 the fastest on two cores
_OVERLOAD: Final = 3  # times the capacity
_PAIRS: Final = 4  # with and without telemetry: one pair is off by 5 % as often as not
_POINTS: Final = 10**9

_ONE_ROW: Final = """
\\set account random(1, {accounts})
SELECT * FROM ledger.redeem(
    'pgbench', replace(gen_random_uuid()::text, '-', ''), '\\x{fingerprint}'::bytea, 'guest-' || :account, 1
);
"""


@dataclass(frozen=True, slots=True)
class Bench:
    """What runs.

    Attributes:
        database: The ledger's.
        full: The service with everything on.
        bare: The same without telemetry.
        folder: Files of accounts and token.
        seconds: Length of one measurement.
        accounts: How many there are.
    """

    database: LedgerDatabase
    full: Service
    bare: Service
    folder: Path
    seconds: float
    accounts: int

    def load(self, target: Service, *options: str, seconds: float | None = None) -> dict[str, Any]:
        """Load from a process of its own, as the generator shares the cores but no interpreter."""
        token = self.folder / "token"
        token.write_text(target.headers["Authorization"].removeprefix("Bearer "))
        token.chmod(0o600)
        where: list[str | Path] = ["--url", target.url, "--token", token, "--accounts", self.folder / "accounts"]
        command = [
            sys.executable,
            "-m",
            "drills.load",
            "--json",
            *where,
            "--seconds",
            str(seconds or self.seconds),
            *options,
        ]
        told: dict[str, Any] = json.loads(run(command).output)
        return told

    def pgbench(self) -> float:
        """Redemptions a second by the one-row function, without any service."""
        program = shutil.which("pgbench")
        if program is None:
            raise HarnessError("pgbench is missing: apt-get install postgresql-contrib")
        script = self.folder / "one-row.sql"
        script.write_text(_ONE_ROW.format(accounts=self.accounts, fingerprint="0" * 64))
        clients = ("-c", str(_PGBENCH_CLIENTS), "-j", "2")
        said = run(
            [program, "-n", "-M", "prepared", "-f", script, *clients, "-T", f"{self.seconds:g}", self.database.url]
        ).output
        found = re.search(r"tps = ([\d.]+)", said)
        if found is None:
            raise RuntimeError(f"pgbench said no tps:\n{said}")
        return float(found[1])


def main() -> None:
    """Measure, and tell."""
    given = arguments("The redemption service on durable commits, beside pgbench calling its one-row function.")
    rounds, seconds, accounts = (
        (ROUNDS_QUICK, SECONDS_QUICK, ACCOUNTS_QUICK) if given.quick else (ROUNDS, SECONDS, ACCOUNTS)
    )
    with ExitStack() as stack:
        start = stack.enter_context
        folder = Path(start(tempfile.TemporaryDirectory(prefix="benchmark-service-")))
        say("starting Postgres, Valkey, Jaeger and two services")
        database = start(ledger_database(durable=True))
        names = [f"guest-{number}" for number in range(1, accounts + 1)]
        (folder / "accounts").write_text("\n".join(names))
        database.accrue(names, _POINTS)
        environment = {
            "REDEMPTION_VALKEY_URL": start(valkey_cluster()).url,
            "REDEMPTION_CLIENT_REQUESTS_PER_SECOND": "1000000",
            "REDEMPTION_CLIENT_BURST": "1000000",
            "OTEL_EXPORTER_OTLP_ENDPOINT": start(jaeger()).otlp_url,
            "OTEL_TRACES_SAMPLER": "parentbased_traceidratio",
            "OTEL_TRACES_SAMPLER_ARG": "0.01",
        }
        bench = Bench(
            database,
            start(service(database.url, environment)),
            start(service(database.url, environment, program=("-m", "benchmarks.service.bare"))),
            folder,
            seconds,
            accounts,
        )
        measured = [_round(bench, number, rounds) for number in range(1, rounds + 1)]
    figures = {
        "rounds": rounds,
        "seconds": seconds,
        **{name: summary([one[name] for one in measured]) for name in measured[0]},
        "machine": machine() | {"postgres": "Postgres 18, Valkey 9, Jaeger and the load on the same cores"},
    }
    report(given, figures, _tables(figures), README)


def _round(bench: Bench, number: int, rounds: int) -> dict[str, float]:
    def step(what: str) -> None:
        say(f"round {number} of {rounds}: {what}")

    load = partial(bench.load, bench.full)
    connections = ("--connections", str(_CONNECTIONS))
    closed = partial(load, *connections)
    step("pgbench, one redemption a call")
    pgbench = bench.pgbench()
    # Its capacity before and after whatever is compared with it: a shared machine gets a third faster or slower within
    # seconds, and that would decide.
    step(f"the service, as fast as it can, with telemetry and without, {_PAIRS} times in turn")
    turn = partial(bench.load, seconds=bench.seconds / 2)
    full, bare = [turn(bench.full, *connections)], []
    for _ in range(_PAIRS):
        bare.append(turn(bench.bare, *connections))
        full.append(turn(bench.full, *connections))
    shares = [1 - _goodput(*full[place : place + 2]) / _goodput(one) for place, one in enumerate(bare)]
    step("with telemetry")
    before = closed()
    rate = _OVERLOAD * _goodput(before)
    step(f"at {_OVERLOAD} times that, {rate:,.0f}/s")
    flooded = load("--connections", str(_CONNECTIONS_OVERLOAD), "--rate", str(rate))
    step("as fast as it can again")
    after = closed()
    step("one hot account")
    hot = closed("--choice", "hot")
    step(f"at half of pgbench's rate, {pgbench / 2:,.0f}/s")
    paced = closed("--rate", str(pgbench * PGBENCH_SHARE_MIN))
    capacity = _goodput(before, after)
    memory = psutil.Process(bench.full.process.pid)
    return {
        "pgbench_per_second": pgbench,
        "capacity_per_second": capacity,
        "capacity_to_pgbench": capacity / pgbench,
        "capacity_p99_seconds": _p99(before),
        "paced_per_second": _goodput(paced),
        "paced_p99_seconds": _p99(paced),
        "hot_to_spread": _goodput(hot) / _goodput(after),
        "telemetry_share": mean(shares),
        "offered_to_capacity": _offered(flooded) / capacity,
        "goodput_to_capacity": _goodput(flooded) / capacity,
        "overload_p99_seconds": _p99(flooded),
        "memory_mb": sum(one.memory_info().rss for one in (memory, *memory.children(recursive=True))) / 1e6,
        "generator_cpu_microseconds": before["cpu_seconds"] / max(1, before["redemptions"]["sent"]) * 1e6,
    }


def _goodput(*told: Mapping[str, Any]) -> float:
    """The mean, in redemptions a second."""
    return mean(float(each["redemptions"]["goodput_per_second"]) for each in told)


def _p99(told: Mapping[str, Any]) -> float:
    return float(told["redemptions"]["accepted_latency"]["p99_seconds"])


def _offered(told: Mapping[str, Any]) -> float:
    return float(told["redemptions"]["sent"] + told["unsent"]) / float(told["duration_seconds"])


def _tables(figures: Mapping[str, Any]) -> str:
    def middle(name: str) -> float:
        return float(figures[name]["median"])

    def spread(name: str, form: str, factor: float = 1.0) -> str:
        low, high = (format(figures[name][end] * factor, form) for end in ("min", "max"))
        return f"{middle(name) * factor:{form}} ({low} to {high})"

    in_time = middle("overload_p99_seconds") < OVERLOAD_P99_SECONDS_MAX
    rows: list[Sequence[str]] = [
        ("pgbench, one redemption a call", f"{spread('pgbench_per_second', ',.0f')}/s", ""),
        ("the service, as fast as it can", f"{spread('capacity_per_second', ',.0f')}/s", ""),
        (
            "to pgbench",
            spread("capacity_to_pgbench", ".2f"),
            f"at least {PGBENCH_SHARE_MIN}: {verdict(met=middle('capacity_to_pgbench') >= PGBENCH_SHARE_MIN)}",
        ),
        (
            f"p99 at {PGBENCH_SHARE_MIN} of pgbench's rate",
            f"{spread('paced_p99_seconds', '.0f', 1e3)} ms",
            f"under {P99_SECONDS_MAX * 1e3:.0f} ms: {verdict(met=middle('paced_p99_seconds') < P99_SECONDS_MAX)}",
        ),
        (
            "one hot account to spread ones",
            spread("hot_to_spread", ".2f"),
            f"at least 1: {verdict(met=middle('hot_to_spread') >= 1)}",
        ),
        (
            f"goodput at {middle('offered_to_capacity'):.1f} times the capacity",
            spread("goodput_to_capacity", ".2f"),
            f"over {GOODPUT_SHARE_MIN}: {verdict(met=middle('goodput_to_capacity') > GOODPUT_SHARE_MIN)}",
        ),
        (
            "p99 of the accepted there",
            f"{spread('overload_p99_seconds', '.0f', 1e3)} ms",
            f"under {OVERLOAD_P99_SECONDS_MAX * 1e3:.0f} ms: {verdict(met=in_time)}",
        ),
        (
            "what telemetry takes",
            spread("telemetry_share", ".1%"),
            f"under {TELEMETRY_SHARE_MAX:.0%}: {verdict(met=middle('telemetry_share') < TELEMETRY_SHARE_MAX)}",
        ),
        ("memory of the service afterwards", f"{spread('memory_mb', ',.0f')} MB", ""),
        ("the generator itself, a request", f"{spread('generator_cpu_microseconds', '.0f')} µs of CPU", ""),
    ]
    head = f"Medians of {figures['rounds']} rounds of {figures['seconds']} s each, with the least and the most:"
    return f"{head}\n\n{table(('', 'figure', 'claim'), rows)}"


if __name__ == "__main__":
    main()
