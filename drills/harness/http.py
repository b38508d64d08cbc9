"""HTTP on loopback: a client, a server within this process, and waiting."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx

from drills.harness.process import HarnessError

_TIMEOUT_SECONDS = 30.0
_POLL_SECONDS = 0.05


@contextmanager
def client(url: str) -> Iterator[httpx.Client]:
    """A client for one server; proxies of the environment do not lead to loopback."""
    with httpx.Client(base_url=url, trust_env=False, timeout=_TIMEOUT_SECONDS) as http:
        yield http


def answers(http: httpx.Client, path: str) -> bool:
    """Whether a path answers 200 now."""
    try:
        return http.get(path, timeout=1).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False


def checked(response: httpx.Response) -> httpx.Response:
    """The response.

    Raises:
        HarnessError: It is not a success; the message holds what the server said.
    """
    if not response.is_success:
        request = response.request
        raise HarnessError(f"{request.method} {request.url} answered {response.status_code}: {response.text[:500]}")
    return response


def wait_until(what: str, condition: Callable[[], bool], timeout_seconds: float) -> float:
    """Wait until something holds; returns the seconds that it took.

    Raises:
        TimeoutError: It does not hold in time.
    """
    started = time.monotonic()
    while not condition():
        if time.monotonic() - started > timeout_seconds:
            raise TimeoutError(f"{what}: not within {timeout_seconds:g} s")
        time.sleep(_POLL_SECONDS)
    return time.monotonic() - started


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """Run an HTTP server in a thread of this process while the block runs, and yield its URL."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(_POLL_SECONDS,), daemon=True)
    try:
        thread.start()  # within: whoever is interrupted here must not close the socket under a thread that runs
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        if thread.ident is not None:
            server.shutdown()
        server.server_close()
        thread.join()
