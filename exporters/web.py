"""The HTTP server: metrics, whether it lives and is ready, and a page that says what is where."""

from __future__ import annotations

import html
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from socketserver import ThreadingMixIn
from typing import Any, Final
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server
from wsgiref.types import StartResponse, WSGIEnvironment

import prometheus_client

from exporters.runner import Runner
from exporters.unit import Unit

_READ_SECONDS_MAX: Final = 10.0  # for a request's head; who sends none keeps no thread
_TEXT: Final = ("Content-Type", "text/plain; charset=utf-8")

Application = Callable[[WSGIEnvironment, StartResponse], Iterable[bytes]]


def application(metrics: prometheus_client.CollectorRegistry, runner: Runner, units: Iterable[Unit]) -> Application:
    """The whole as a WSGI application."""
    serve_metrics: Application = prometheus_client.make_wsgi_app(metrics)
    page = _page(units)

    def serve(environment: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        if environment["REQUEST_METHOD"] not in ("GET", "HEAD"):
            return _say(start, "405 Method Not Allowed", "only GET\n", ("Allow", "GET, HEAD"))
        match environment["PATH_INFO"]:
            case "/metrics":
                return serve_metrics(environment, start)
            case "/livez":
                return _judge(start, good=runner.alive, bad="a source's thread has ended")
            case "/readyz":
                return _judge(start, good=runner.ready, bad="a source has not been asked yet")
            case "/":
                start("200 OK", [("Content-Type", "text/html; charset=utf-8")])
                return [page]
        return _say(start, "404 Not Found", "there are /, /metrics, /livez and /readyz\n")

    return serve


def _judge(start: StartResponse, *, good: bool, bad: str) -> list[bytes]:
    return _say(start, "200 OK", "ok\n") if good else _say(start, "503 Service Unavailable", f"{bad}\n")


def _say(start: StartResponse, status: str, text: str, *headers: tuple[str, str]) -> list[bytes]:
    start(status, [_TEXT, *headers])
    return [text.encode()]


def _page(units: Iterable[Unit]) -> bytes:
    rows = "".join(
        f"<li>{html.escape(' '.join(value for value in unit.name.values() if value))}</li>" for unit in units
    )
    return (
        "<!doctype html><html lang=en><title>Exporters</title><h1>Exporters</h1>"
        "<p>RDS, Redis, EKS, SQS and the edge for Prometheus, as they were in the last cycle.</p>"
        "<p><a href=/metrics>/metrics</a> <a href=/livez>/livez</a> <a href=/readyz>/readyz</a></p>"
        f"<ul>{rows}</ul></html>\n"
    ).encode()


class _Server(ThreadingMixIn, WSGIServer):
    """A thread a request."""

    daemon_threads = True


class _Server6(_Server):
    """The same for IPv6."""

    address_family = socket.AF_INET6


class _Handler(WSGIRequestHandler):
    """Logs nothing: a scrape every few seconds is no news."""

    timeout = _READ_SECONDS_MAX

    def log_message(self, *_: Any) -> None:  # noqa: ANN401 - as the base
        """Log nothing."""


@contextmanager
def serving(address: tuple[str, int], serve: Application) -> Iterator[str]:
    """Serve while the block runs, and yield the URL; port 0 takes a free one.

    Raises:
        OSError: The address cannot be listened on.
    """
    kind = _Server6 if ":" in address[0] else _Server
    server = make_server(*address, serve, kind, _Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.1,), daemon=True)
    thread.start()
    host = f"[{address[0]}]" if ":" in address[0] else address[0]
    try:
        yield f"http://{host}:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
