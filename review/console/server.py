"""HTTP for the console: reading only, for browsers on this machine unless somebody says otherwise."""

from __future__ import annotations

import contextlib
import ipaddress
import re
import socket
import sys
import threading
from collections.abc import Iterator
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import Any

from review.console.site import Answer, Site

_THREADS_MAX = 32
_SILENT_SECONDS_MAX = 20.0
_BODY_BYTES_MAX = 65_536
_POLL_SECONDS = 0.1

# No script but our own file, nothing from elsewhere, nobody's frame, and no address of ours for the links' targets.
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cache-Control": "no-store",
}

_HOST = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9.-]+))(?::\d{1,5})?")


def is_loopback(address: str) -> bool:
    """Whether an address is one that other machines cannot reach."""
    return address == "localhost" or ipaddress.ip_address(address).is_loopback


class ConsoleServer(ThreadingHTTPServer):
    """Serves a site.

    A request must say `localhost` or an address as its host: a page of elsewhere that points a name of its own at this
    machine (DNS rebinding) says that name. Bound to loopback, the address must be loopback too. The port may be any,
    as it is another one behind `ssh -L`.

    Args:
        site: What is served.
        address: An IP address, or `localhost`.
        port: 0 for any that is free.
        host_names: Further names by which it may be called.

    Raises:
        OSError: The address cannot be listened on.
    """

    daemon_threads = True
    block_on_close = False

    def __init__(self, site: Site, address: str, port: int, host_names: tuple[str, ...] = ()) -> None:
        self.site = site
        self.only_loopback = is_loopback(address)
        self.host_names = frozenset(name.lower() for name in host_names)
        self.address_family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self._address = address
        self._free_threads = threading.BoundedSemaphore(_THREADS_MAX)
        super().__init__((address, port), _Handler)

    @property
    def url(self) -> str:
        """Where it is."""
        host = f"[{self._address}]" if ":" in self._address else self._address
        return f"http://{host}:{self.server_port}/"

    def server_bind(self) -> None:
        """Bind without asking who this machine is: the name's server may be slow, and the name is not used."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = self._address, self.socket.getsockname()[1]

    def allows(self, host: str | None) -> bool:
        """Whether a request may call this server so."""
        found = _HOST.fullmatch(host or "")
        if not found:
            return False
        name = (found[1] or found[2]).lower()
        if name == "localhost" or name in self.host_names:
            return True
        try:
            return ipaddress.ip_address(name).is_loopback or not self.only_loopback
        except ValueError:
            return False

    def process_request(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 - socketserver's
        """Answer in a thread of its own, once one is free."""
        self._free_threads.acquire()
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 - socketserver's
        """The thread's work."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free_threads.release()

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 - socketserver's
        """A browser that went away is no error."""
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    server: ConsoleServer
    server_version, sys_version = "slo-console", ""
    default_request_version = "HTTP/1.0"  # of what says none: it gets our headers too
    timeout = _SILENT_SECONDS_MAX

    def do_GET(self) -> None:
        if not self.server.allows(self.headers.get("Host")):
            self._tell(HTTPStatus.MISDIRECTED_REQUEST, "Ask for localhost or an address; other names are refused.")
            return
        self._send(self.server.site.answer(self.path))

    do_HEAD = do_GET  # noqa: N815 - http.server's name

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - methods, of which only those are missing
        if name.startswith("do_"):
            return self._refuse
        raise AttributeError(name)

    def _refuse(self) -> None:
        """Every method that could mean a change."""
        # What was sent is read, or the connection would break before the answer is.
        with contextlib.suppress(ValueError):
            self.rfile.read(min(int(self.headers.get("Content-Length", 0)), _BODY_BYTES_MAX))
        self._tell(HTTPStatus.METHOD_NOT_ALLOWED, "The console only reads; GET and HEAD are allowed.")

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """What http.server finds wrong with a request, with our headers."""
        del explain
        self._tell(HTTPStatus(code), message or HTTPStatus(code).phrase)

    def _tell(self, status: HTTPStatus, text: str) -> None:
        self._send(Answer(status, "text/plain; charset=utf-8", f"{text}\n".encode()))

    def _send(self, answer: Answer) -> None:
        self.send_response(answer.status)
        for name, value in HEADERS.items():
            self.send_header(name, value)
        if answer.status == HTTPStatus.METHOD_NOT_ALLOWED:
            self.send_header("Allow", "GET, HEAD")
        self.send_header("Content-Type", answer.kind)
        self.send_header("Content-Length", str(len(answer.body)))
        self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextlib.contextmanager
def serving(site: Site, address: str = "127.0.0.1", port: int = 0, host_names: tuple[str, ...] = ()) -> Iterator[str]:
    """Serve a site in a thread while the block runs, and yield its URL."""
    with ConsoleServer(site, address, port, host_names) as server:
        thread = threading.Thread(target=server.serve_forever, args=(_POLL_SECONDS,), daemon=True)
        try:
            thread.start()  # within: whoever is interrupted here must not close the socket under a thread that runs
            yield server.url
        finally:
            if thread.ident is not None:
                server.shutdown()
                thread.join()
