"""Review and gate through a real Thanos: the same words as from Prometheus, and no silence about what is missing."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import httpx
import pytest
from click.testing import CliRunner, Result

from cli.main import Workspace
from cli.review import EXIT_FROZEN, EXIT_UNKNOWN, gate, review
from drills.harness import Prometheus, ThanosQuery, prometheus, thanos_query, thanos_sidecar, wait_until
from drills.harness.process import Process
from drills.harness.thanos import REPLICA_LABEL, ThanosStore
from slo import CompiledSlo
from tests.review import history as past
from tests.review.test_live import ALL, AT

pytestmark = pytest.mark.cluster

_CLUSTER = "cluster"
_SECONDS_MAX = 30.0


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four days as the rules recorded them (`tests.review.history`), an outage and an hour without data in them."""
    folder = tmp_path_factory.mktemp("thanos-review")
    with past.watched(folder):
        return folder / "data"


@dataclass(frozen=True)
class _Store:
    """A Prometheus with the sidecar beside it."""

    server: Prometheus
    sidecar: ThanosStore


@contextmanager
def _store(data: Path, folder: Path, **external_labels: str) -> Iterator[_Store]:
    own = folder / "-".join(external_labels.values())
    shutil.copytree(data, own)
    config = {"global": {"external_labels": external_labels}}
    flags = ["--web.enable-admin-api"]
    with prometheus(data=own, config=config, flags=flags) as server, thanos_sidecar(server) as sidecar:
        yield _Store(server, sidecar)


@pytest.fixture(scope="module")
def replicas(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[_Store, _Store]]:
    """Two Prometheuses that hold the same."""
    folder = tmp_path_factory.mktemp("replicas")
    with ExitStack() as stack:
        first, second = (
            stack.enter_context(_store(data, folder, **{_CLUSTER: "eu", REPLICA_LABEL: name})) for name in ("a", "b")
        )
        yield first, second


def _run(command: click.Command, url: str, *arguments: str, compiled: tuple[CompiledSlo, ...] = ALL) -> Result:
    workspace = Workspace(None)
    workspace.__dict__["compiled"] = compiled
    given = ["--prometheus", url, "--as-of", str(AT), *arguments]
    return CliRunner().invoke(command, given, obj=workspace)


def _facts(url: str) -> dict[str, Any]:
    """The whole review as facts, but for where they come from."""
    told = _run(review, url, "--format", "json")
    assert told.exit_code == 0, told.output
    facts: dict[str, Any] = json.loads(told.stdout)
    assert facts.pop("source") == url
    return facts


@contextmanager
def _strict_query(*stores: ThanosStore) -> Iterator[ThanosQuery]:
    """A querier of stores that must answer: it says so when one does not, where others would be forgotten."""
    with thanos_query() as querier:
        endpoints = [{"address": store.address, "strict": True} for store in stores]
        part = querier.metrics.process.folder / "endpoints.part"
        part.write_text(json.dumps({"endpoints": endpoints}))
        part.replace(part.with_name("endpoints.yaml"))

        def known() -> int:
            return sum(map(len, querier.metrics.api("stores").values()))

        wait_until("the querier knows all", lambda: known() == len(stores), _SECONDS_MAX)
        yield querier


def test_one_prometheus_says_the_same_through_thanos(replicas: tuple[_Store, _Store]) -> None:
    """Every fact of the review, to the last digit, and nothing is partial; the gate's words likewise."""
    first, _ = replicas
    with thanos_query(first.sidecar) as querier:
        direct, through = _facts(first.server.url), _facts(querier.metrics.url)
        assert through == direct
        assert direct["partial"] is False
        for change in ("feature", "fix"):
            answers = [_run(gate, url, "--change", change) for url in (first.server.url, querier.metrics.url)]
            assert answers[0].stdout == answers[1].stdout
            assert answers[0].exit_code == answers[1].exit_code == (EXIT_FROZEN if change == "feature" else 0)


def test_two_replicas_are_one(replicas: tuple[_Store, _Store]) -> None:
    """Both hold the same, and Thanos tells it once: the same facts, and no word of several series."""
    first, second = replicas
    with thanos_query(first.sidecar, second.sidecar) as querier:
        assert _facts(querier.metrics.url) == _facts(first.server.url)


def test_a_replica_with_a_hole_is_filled_by_the_other(
    replicas: tuple[_Store, _Store], data: Path, tmp_path: Path
) -> None:
    """A Prometheus that was away for the whole outage alone knows little of it; both together know all."""
    first, _ = replicas
    away = {"start": past.OUTAGE.begin - 3_600, "end": past.OUTAGE.end + 3_600}
    with _store(data, tmp_path, **{_CLUSTER: "eu", REPLICA_LABEL: "c"}) as third:
        erased = httpx.post(
            f"{third.server.url}/api/v1/admin/tsdb/delete_series", params={"match[]": '{__name__=~".+"}', **away}
        )
        assert erased.is_success
        assert len(_gaps(_facts(third.server.url))) == len(_gaps(_facts(first.server.url))) + 1
        with thanos_query(first.sidecar, third.sidecar) as querier:
            through, whole = _facts(querier.metrics.url), _facts(first.server.url)
        assert _gaps(through) == _gaps(whole)
        for one, other in zip(through["slos"], whole["slos"], strict=True):
            if other["budget"]:
                assert one["budget"]["spent"] == pytest.approx(other["budget"]["spent"], abs=0.001)
            assert len(one["incidents"]) == len(other["incidents"])


def _gaps(facts: dict[str, Any]) -> list[Any]:
    gaps: list[Any] = next(one["gaps"] for one in facts["slos"] if one["id"] == past.AVAILABILITY.id)
    return gaps


def test_a_store_that_must_answer_and_does_not_makes_a_partial_report(replicas: tuple[_Store, _Store]) -> None:
    """Thanos warns; the report is made of what is there and says that it is partial, and the gate is not a go."""
    first, second = replicas
    with thanos_sidecar(second.server) as lost, _strict_query(first.sidecar, lost) as querier:
        assert _facts(querier.metrics.url)["partial"] is False
        lost.process.kill()
        told = _run(review, querier.metrics.url)
        assert told.exit_code == 0
        assert told.stderr.startswith("partial: ")
        assert lost.address in told.stdout
        facts = json.loads(_run(review, querier.metrics.url, "--format", "json").stdout)
        assert facts["partial"] is True
        assert [one["incidents"] for one in facts["slos"]] == [
            one["incidents"] for one in _facts(first.server.url)["slos"]
        ]
        answer = _run(gate, querier.metrics.url)
        assert (answer.exit_code, answer.stdout.splitlines()[-1]) == (EXIT_UNKNOWN, "unknown")
        assert "The answers may be partial: " in answer.stdout
        assert _run(gate, querier.metrics.url, "--change", "fix").exit_code == 0


def test_a_store_that_is_forgotten_is_no_go_either(replicas: tuple[_Store, _Store]) -> None:
    """Thanos has no word about it: there are no data, which the report says first, and which is no go."""
    _, second = replicas
    with thanos_sidecar(second.server) as lost, thanos_query(lost) as querier:
        lost.process.kill()
        wait_until("Thanos forgets it", lambda: not _run(review, querier.metrics.url).stderr, _SECONDS_MAX)
        facts = _facts(querier.metrics.url)
        assert [one["budget"] for one in facts["slos"]] == [None] * len(ALL)
        told = _run(gate, querier.metrics.url)
        assert told.exit_code == EXIT_UNKNOWN
        assert told.stdout.count("There is no data in the whole period.") == len(ALL)


def test_what_hangs_is_a_clear_message(replicas: tuple[_Store, _Store], monkeypatch: pytest.MonkeyPatch) -> None:
    """A store behind Thanos, or Thanos itself: nobody waits for ever, and exit code 3 says what gives it more time."""
    _, second = replicas
    monkeypatch.setenv("SLO_PROMETHEUS_TIMEOUT_SECONDS", "0.5")
    with thanos_sidecar(second.server) as sidecar, _strict_query(sidecar) as querier:
        for process, command in ((sidecar.process, review), (querier.metrics.process, gate)):
            with _stopped(process):
                told = _run(command, querier.metrics.url)
            assert told.exit_code == EXIT_UNKNOWN
            assert "no answer in time; SLO_PROMETHEUS_TIMEOUT_SECONDS gives it more" in told.stderr


@contextmanager
def _stopped(process: Process) -> Iterator[None]:
    """A process that hangs meanwhile."""
    os.kill(process.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(process.pid, signal.SIGCONT)


def test_a_querier_that_is_gone_is_a_clear_message(replicas: tuple[_Store, _Store]) -> None:
    """Exit code 3 and whom nobody could ask."""
    with thanos_query(replicas[0].sidecar) as querier:
        querier.metrics.process.kill()
        for command in (review, gate):
            told = _run(command, querier.metrics.url)
            assert told.exit_code == EXIT_UNKNOWN
            assert f"{querier.metrics.url}: cannot be asked" in told.stderr
