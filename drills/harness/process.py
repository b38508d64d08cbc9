"""Server processes: started on free ports, waited for, and stopped with all their children."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Final

TOOLS: Final = Path(__file__).resolve().parents[2] / ".tools" / "bin"

_START_SECONDS_MAX = 30.0
_STOP_SECONDS_MAX = 10.0
_POLL_SECONDS = 0.05
_PORT_ATTEMPTS_MAX = 5
_LOG_LINES = 15
# What Go's net package, Python's asyncio and the rest of the world say when a port was taken meanwhile.
_PORT_TAKEN = ("address already in use", "Address already in use")


class HarnessError(RuntimeError):
    """A server is missing, did not start, or refused what it was asked."""


class TerminatedError(KeyboardInterrupt):
    """SIGTERM arrived; like Ctrl-C it unwinds everything, and test runners stop for it."""


@dataclass(frozen=True, slots=True)
class Process:
    """A server that runs.

    Attributes:
        name: What it is called in messages.
        ports: The loopback ports that it was given.
        folder: Its temporary folder; gone once it has stopped.
        log: The file that takes its output.
    """

    name: str
    ports: tuple[int, ...]
    folder: Path
    log: Path
    _popen: subprocess.Popen[bytes] = field(repr=False)

    @property
    def pid(self) -> int:
        """Its process id, which is its process group's as well."""
        return self._popen.pid

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return self._popen.poll() is None

    def tail(self, lines: int = _LOG_LINES) -> str:
        """The last lines of its log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def kill(self) -> None:
        """End it and its children at once, as a crash would."""
        self._send(signal.SIGKILL)
        self._popen.wait()

    def stop(self) -> None:
        """Ask it to end, wait, and end what is left of it and its children."""
        try:
            self._send(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                self._popen.wait(_STOP_SECONDS_MAX)
        finally:
            self.kill()

    def _send(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)


def tool(name: str) -> Path:
    """The path of a program that the Makefile builds.

    Raises:
        HarnessError: It has not been built.
    """
    return _tool(name, "make tools")


def cluster_tool(name: str) -> Path:
    """The same of a program that only the tests of `make test-cluster` need.

    Raises:
        HarnessError: It has not been built.
    """
    return _tool(name, "make tools-cluster")


def _tool(name: str, how: str) -> Path:
    path = TOOLS / name
    if not os.access(path, os.X_OK):
        raise HarnessError(f"{name} is missing: there is no program {path}; build it with `{how}`")
    return path


@contextmanager
def running(  # noqa: PLR0913 - all but the first three have a default
    name: str,
    command: Callable[[Sequence[int], Path], Sequence[str | Path]],
    ready: Callable[[Sequence[int]], bool],
    *,
    ports: int = 1,
    environment: Mapping[str, str] | None = None,
    start_seconds_max: float = _START_SECONDS_MAX,
) -> Iterator[Process]:
    """Run a server while the block runs.

    Args:
        name: What it is called in messages.
        command: The program and its arguments, from the ports and the temporary folder that it is given.
        ready: Whether it answers.
        ports: How many free ports it needs; when one is taken meanwhile, others are tried.
        environment: Its whole environment; by default ours.
        start_seconds_max: Time to become ready.

    Raises:
        HarnessError: It does not become ready; the message holds the end of its log.
    """
    with (
        unwinding_on_sigterm(),
        tempfile.TemporaryDirectory(prefix=f"drill-{name}-", ignore_cleanup_errors=True) as path,
    ):
        folder = Path(path).resolve()
        for attempt in range(1, _PORT_ATTEMPTS_MAX + 1):
            given = free_ports(ports)
            with _started(name, command(given, folder), given, folder, environment) as process:
                fault = _fault_of_start(process, ready, start_seconds_max)
                if fault is None:
                    yield process
                    return
                tail = process.tail()
                if attempt < _PORT_ATTEMPTS_MAX and any(words in tail for words in _PORT_TAKEN):
                    continue
                raise HarnessError(f"{name} {fault}; the end of its log:\n{tail}")


@contextmanager
def unwinding_on_sigterm() -> Iterator[None]:
    """Let SIGTERM raise `TerminatedError` while the block runs, unless somebody handles it already.

    Python's default is to end at once, without a single `finally`.
    """
    if (
        threading.current_thread() is not threading.main_thread()
        or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
    ):
        yield
        return
    signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _terminate(_number: int, _frame: FrameType | None) -> None:
    raise TerminatedError


def free_ports(count: int) -> tuple[int, ...]:
    """Loopback ports that nobody listens on now; all are held until all are known, so they differ."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return tuple(each.getsockname()[1] for each in sockets)
    finally:
        for each in sockets:
            each.close()


@contextmanager
def _started(
    name: str,
    command: Sequence[str | Path],
    ports: tuple[int, ...],
    folder: Path,
    environment: Mapping[str, str] | None,
) -> Iterator[Process]:
    log = folder / "server.log"
    guardian = _guardian()
    with log.open("wb") as output:
        popen = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            # A group of its own: Ctrl-C is ours alone, so that we stop things in order.
            start_new_session=True,
        )
    process = Process(name, ports, folder, log, popen)
    try:
        _tell(guardian, f"+{popen.pid} {folder}")
        yield process
    finally:
        process.stop()
        _tell(guardian, f"-{popen.pid}")


def _fault_of_start(process: Process, ready: Callable[[Sequence[int]], bool], seconds_max: float) -> str | None:
    """What went wrong, or None when the server is ready."""
    give_up = time.monotonic() + seconds_max
    while time.monotonic() < give_up:
        # Ready first, alive second: an answer on our port may be that of a stranger who took it before us.
        if ready(process.ports) and process.alive:
            return None
        if not process.alive:
            return f"ended while it was starting, with exit code {process._popen.returncode}"  # noqa: SLF001 - our own
        time.sleep(_POLL_SECONDS)
    return f"was not ready after {seconds_max:g} s"


# --- the guardian -----------------------------------------------------------------------------------------------------

_guardian_lock = threading.Lock()
_guardians: dict[int, int] = {}


def _guardian() -> int:
    """The end of the pipe that leads to this process's guardian; a forked child starts one of its own."""
    with _guardian_lock:
        if os.getpid() not in _guardians:
            end, ours = os.pipe()
            guardian = subprocess.Popen(
                [sys.executable, "-I", Path(__file__).with_name("guardian.py")],
                stdin=end,
                stdout=subprocess.DEVNULL,
                start_new_session=True,
            )
            os.close(end)
            guardian.returncode = 0  # it outlives us by design, so nobody waits for it
            _guardians[os.getpid()] = ours
        return _guardians[os.getpid()]


def _tell(guardian: int, line: str) -> None:
    with suppress(BrokenPipeError):
        os.write(guardian, f"{line}\n".encode())
