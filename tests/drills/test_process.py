"""Server processes start, are waited for, and leave nothing behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from drills.harness import HarnessError, Process, TerminatedError, process, running, tool, wait_until
from drills.harness.http import answers, client
from tests.drills.processes import alive, descendants

SERVE = "import http.server, sys; http.server.HTTPServer(('127.0.0.1', int(sys.argv[1])), \
http.server.BaseHTTPRequestHandler).serve_forever()"


def ready(ports: Sequence[int]) -> bool:
    """Whether anybody listens there."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", ports[0])) == 0


def python(code: str) -> Callable[[Sequence[int], Path], list[str | Path]]:
    """A server in Python; its argument is the port."""
    return lambda ports, _: [sys.executable, "-c", code, str(ports[0])]


def test_a_server_runs_in_a_folder_of_its_own_and_is_gone_afterwards(gone: Callable[..., bool]) -> None:
    """Inside the block the server answers; afterwards process, port and folder are gone."""
    with running("toy", python(SERVE), ready) as toy:
        assert toy.alive
        assert ready(toy.ports)
        assert toy.folder.is_dir()
        assert not gone(toy)
    assert gone(toy)


def test_an_exception_stops_the_servers_in_reverse_order() -> None:
    """The server that was started last is gone before the first one is stopped."""
    order: list[str] = []

    @contextmanager
    def noting(name: str) -> Iterator[Process]:
        with running(name, python(SERVE), ready) as toy:
            try:
                yield toy
            finally:
                order.append(name)

    with pytest.raises(ZeroDivisionError), noting("first") as first, noting("second") as second:
        _ = 1 / 0
    assert order == ["second", "first"]
    assert not first.alive
    assert not second.alive


def test_children_of_a_server_end_with_it() -> None:
    """A process that the server started, and that ignores SIGTERM, does not outlive it."""
    code = (
        "import signal, subprocess, sys; "
        "child = subprocess.Popen([sys.executable, '-c', "
        "'import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)']); "
        f"print(child.pid, flush=True); {SERVE}"
    )
    with running("parent", python(code), ready) as parent:
        child = int(parent.tail())
        assert alive(child)
    wait_until("the child is gone", lambda: not alive(child), 5)


def test_a_crash_on_purpose_ends_the_server_at_once() -> None:
    """`kill` ends the process within the block, and leaving the block then works as ever."""
    with running("toy", python(SERVE), ready) as toy:
        toy.kill()
        assert not toy.alive
        assert not ready(toy.ports)


def test_a_taken_port_is_given_up_for_another() -> None:
    """A server whose port was taken since we chose it starts on another one."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ports_tried: list[int] = []

        def command(ports: Sequence[int], _: Path) -> list[str | Path]:
            port = ports[0] if ports_tried else taken.getsockname()[1]
            ports_tried.append(port)
            return [sys.executable, "-c", SERVE, str(port)]

        with running("toy", command, ready) as toy:
            assert len(ports_tried) == 2
            assert toy.ports == (ports_tried[1],)


def test_a_server_that_ends_while_starting_says_why() -> None:
    """The error holds the exit code and the last lines of the log, and is raised once, not for each port."""
    code = "import sys; print('first line'); print('the disk is on fire'); sys.exit(3)"
    told = r"(?s)toy ended .* exit code 3; .*the disk is on fire"
    with pytest.raises(HarnessError, match=told), running("toy", python(code), ready):
        pytest.fail("it never became ready")


def test_a_server_that_does_not_get_ready_in_time_is_stopped() -> None:
    """The error says how long it waited, and the process is gone."""
    code = "import os, time; print('PID', os.getpid(), flush=True); time.sleep(60)"
    toy = running("toy", python(code), ready, start_seconds_max=0.5)
    with pytest.raises(HarnessError, match=r"(?s)toy was not ready after 0.5 s; .*PID") as error, toy:
        pytest.fail("it never became ready")
    assert not alive(int(str(error.value).split()[-1]))


def test_a_missing_tool_names_the_way_to_build_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the program, where it was looked for, and `make tools`."""
    monkeypatch.setattr(process, "TOOLS", tmp_path)
    with pytest.raises(HarnessError, match=rf"prometheus is missing: .*{tmp_path}/prometheus; .*`make tools`"):
        tool("prometheus")


def test_sigterm_unwinds_and_only_while_servers_run() -> None:
    """SIGTERM raises within the block, so that everything is stopped; afterwards Python's default holds again."""
    with pytest.raises(TerminatedError), running("toy", python(SERVE), ready) as toy:  # noqa: PT012 - one or the other
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)
    assert not toy.alive
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_servers_can_be_started_from_any_thread() -> None:
    """A server outlives the thread that started it: neither signals nor the guardian depend on threads."""
    started: list[Process] = []
    entered = running("toy", python(SERVE), ready)
    thread = threading.Thread(target=lambda: started.append(entered.__enter__()))
    thread.start()
    thread.join()
    try:
        time.sleep(0.2)
        assert started[0].alive
    finally:
        entered.__exit__(None, None, None)
    assert not started[0].alive


SCRIPT = f"""
import sys, time
from drills.harness import running
import socket

def ready(ports):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", ports[0])) == 0

def command(ports, folder):
    return [sys.executable, "-c", {SERVE!r}, str(ports[0])]

with running("one", command, ready) as one, running("two", command, ready) as two:
    print(one.pid, two.pid, one.folder, two.folder, flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda number: number.name)
def test_no_signal_to_the_starter_leaves_a_process_behind(number: signal.Signals) -> None:
    """Ctrl-C, SIGTERM and even SIGKILL of the process that started servers end servers, folders and guardian."""
    with subprocess.Popen(
        [sys.executable, "-c", SCRIPT], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as starter:
        assert starter.stdout is not None
        try:
            one, two, *folders = starter.stdout.readline().split()
            servers = {int(one), int(two)}
            assert all(Path(folder).is_dir() for folder in folders)
            everything = descendants(starter.pid)
            assert servers < everything
            assert len(everything) == 3  # the two and the guardian
            starter.send_signal(number)
            starter.wait(20)
        finally:
            starter.kill()
    wait_until("all are gone", lambda: not any(map(alive, everything)), 5)
    assert not any(Path(folder).exists() for folder in folders)


def test_an_answer_that_is_no_success_is_not_ready() -> None:
    """Only 200 counts as an answer: a server that says 501 is up and not ready."""
    with running("toy", python(SERVE), ready) as toy, client(f"http://127.0.0.1:{toy.ports[0]}") as http:
        assert http.get("/").status_code == httpx.codes.NOT_IMPLEMENTED
        assert not answers(http, "/")
    with client(f"http://127.0.0.1:{toy.ports[0]}") as http:
        assert not answers(http, "/")
