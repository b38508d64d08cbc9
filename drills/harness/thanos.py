"""A real Thanos: one place to ask for what several Prometheuses hold, and to run rules over all of it.

A sidecar stands beside each Prometheus, a querier asks the sidecars, and a ruler asks the querier::

    with thanos_sidecar(first) as one, thanos_sidecar(second) as other, thanos_query(one, other) as querier:
        querier.metrics.query("up")
        with thanos_rule(querier, rules=[Path("rules.yaml")]):
            querier.metrics.query("recorded:by:a:rule")
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit

from drills.harness.http import answers, client, wait_until
from drills.harness.process import HarnessError, Process, cluster_tool, running
from drills.harness.prometheus import Prometheus
from slo.conventions import duration

REPLICA_LABEL = "replica"
"""Prometheuses whose external labels differ in this alone hold the same: the querier answers once, without it."""

_SECOND = timedelta(seconds=1)
_DISCOVERY_SECONDS_MAX = 30.0
_ENDPOINTS = "endpoints.yaml"


@dataclass(frozen=True, slots=True)
class ThanosStore:
    """A Thanos that holds series, or can get them.

    Attributes:
        address: Where a querier asks it by gRPC, `127.0.0.1:10901` say.
        process: Its process.
    """

    address: str
    process: Process


@dataclass(frozen=True, slots=True)
class ThanosQuery:
    """A querier that runs.

    Attributes:
        metrics: Its API, which is Prometheus' own; it has no configuration to reload.
    """

    metrics: Prometheus
    _addresses: list[str] = field(repr=False)

    def add(self, store: ThanosStore) -> None:
        """Ask one more.

        Raises:
            TimeoutError: The querier does not get to it.
        """
        self._addresses.append(store.address)
        _write(self.metrics.process.folder, self._addresses)
        wait_until(f"the querier asks {store.process.name}", self._asks_all, _DISCOVERY_SECONDS_MAX)

    def _asks_all(self) -> bool:
        by_kind = self.metrics.api("stores")
        asked = {store["name"] for stores in by_kind.values() for store in stores if not store["lastError"]}
        return asked == set(self._addresses)


@contextmanager
def thanos_sidecar(server: Prometheus) -> Iterator[ThanosStore]:
    """Run a sidecar beside a Prometheus while the block runs.

    Args:
        server: The Prometheus; it needs external labels that no other has, or Thanos refuses it.

    Raises:
        HarnessError: Thanos is not built, or the sidecar does not start.
    """
    flags = [f"--prometheus.url={server.url}", "--prometheus.get_config_interval=1s"]
    with _thanos("sidecar", lambda _: flags) as process:
        yield ThanosStore(_grpc(process), process)


@contextmanager
def thanos_query(*stores: ThanosStore) -> Iterator[ThanosQuery]:
    """Run a querier while the block runs; it asks every one of these, and knows `REPLICA_LABEL`.

    Raises:
        HarnessError: Thanos is not built, or the querier does not start.
        TimeoutError: It does not get to one of them.
    """
    addresses = [store.address for store in stores]

    def flags(folder: Path) -> list[str]:
        _write(folder, addresses)
        return [
            f"--endpoint.sd-config-file={folder / _ENDPOINTS}",
            "--endpoint.sd-config-reload-interval=500ms",
            "--endpoint.info-timeout=500ms",  # which is how often it asks them who they are, too
            f"--query.replica-label={REPLICA_LABEL}",
        ]

    with _thanos("query", flags) as process, client(_http(process)) as http:
        querier = ThanosQuery(Prometheus(_http(process), process, http), addresses)
        wait_until("the querier asks all", querier._asks_all, _DISCOVERY_SECONDS_MAX)  # noqa: SLF001 - our own
        yield querier


@contextmanager
def thanos_rule(
    querier: ThanosQuery,
    *,
    rules: Sequence[Path],
    alertmanager_url: str | None = None,
    evaluation_interval: timedelta = _SECOND,
) -> Iterator[ThanosStore]:
    """Run a ruler while the block runs; the querier has what its rules record, its `rules` and its `alerts`.

    Args:
        querier: Where its rules read.
        rules: Rule files, read where they are.
        alertmanager_url: Who gets the alerts.
        evaluation_interval: Time from one evaluation to the next, of groups that name none of their own.

    Raises:
        HarnessError: Thanos is not built, a rule file is missing, or the ruler does not start or refuses the rules.
        TimeoutError: The querier does not get to it.
    """
    missing = [str(file) for file in rules if not file.is_file()]
    if missing:
        raise HarnessError(f"rule files that do not exist: {', '.join(missing)}")  # Thanos would not mind

    def flags(folder: Path) -> list[str]:
        return [
            f"--data-dir={folder / 'data'}",
            f"--query={urlsplit(querier.metrics.url).netloc}",
            f"--eval-interval={duration(evaluation_interval)}",
            '--label=ruler="drill"',
            *(f"--rule-file={file.resolve()}" for file in rules),
            *([f"--alertmanagers.url={alertmanager_url}"] if alertmanager_url else ()),
        ]

    with _thanos("rule", flags) as process:
        store = ThanosStore(_grpc(process), process)
        querier.add(store)
        yield store


@contextmanager
def _thanos(kind: str, flags: Callable[[Path], Sequence[str]]) -> Iterator[Process]:
    program = cluster_tool("thanos")

    def command(ports: Sequence[int], folder: Path) -> list[str | Path]:
        http, grpc = (f"127.0.0.1:{port}" for port in ports)
        own = flags(folder)
        return [program, kind, f"--http-address={http}", f"--grpc-address={grpc}", "--grpc-grace-period=1s", *own]

    def ready(ports: Sequence[int]) -> bool:
        with client(f"http://127.0.0.1:{ports[0]}") as http:
            return answers(http, "/-/ready")

    with running(f"thanos-{kind}", command, ready, ports=2) as process:
        yield process


def _write(folder: Path, addresses: Sequence[str]) -> None:
    content = json.dumps({"endpoints": [{"address": address} for address in addresses]})  # JSON is YAML
    part = folder / f"{_ENDPOINTS}.part"
    part.write_text(content)
    part.replace(folder / _ENDPOINTS)  # at once: it is read meanwhile


def _http(process: Process) -> str:
    return f"http://127.0.0.1:{process.ports[0]}"


def _grpc(process: Process) -> str:
    return f"127.0.0.1:{process.ports[1]}"
