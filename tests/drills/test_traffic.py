"""Traffic flows at a constant rate, counts what became of it, and stops by itself."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler

from drills.harness import Load, free_ports, traffic, wait_until
from drills.harness.http import serving


@contextmanager
def shop(*statuses: int, seconds: float = 0) -> Iterator[tuple[str, list[tuple[str, str | None, bytes]]]]:
    """A service that gives these answers in turn, each after a time; and the requests that it got."""
    requests: list[tuple[str, str | None, bytes]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            requests.append((f"{self.command} {self.path}", self.headers["Idempotency-Key"], content))
            status = statuses[len(requests) % len(statuses)]
            time.sleep(seconds)
            self.send_response(status)
            self.end_headers()

        do_POST = do_GET  # noqa: N815 - http.server's name

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with serving(Handler) as url:
        yield url, requests


def test_requests_are_redemptions_and_balances_over_all_accounts() -> None:
    """Every other request spends points, each with a key of its own; the accounts take turns."""
    with shop(200) as (url, requests), traffic(url, ["a", "b"], Load(per_second=100, requests_max=40)) as flowing:
        wait_until("it has ended by itself", lambda: not flowing.flows, 10)
        spent = [(key, json.loads(content)) for what, key, content in requests if what == "POST /v1/redemptions"]
        read = Counter(what for what, _, _ in requests if what.startswith("GET "))
    assert len(requests) == 40
    assert read == {"GET /v1/accounts/a/balance": 10, "GET /v1/accounts/b/balance": 10}
    assert Counter(body["account_id"] for _, body in spent) == {"a": 10, "b": 10}
    assert {body["points"] for _, body in spent} == {1}
    assert len({key for key, _ in spent}) == 20


def test_outcomes_are_counted_by_status() -> None:
    """A refusal is good, a fault of the service is bad, and both are counted by their status."""
    with shop(201, 422, 503) as (url, _), traffic(url, ["a"], Load(per_second=200, requests_max=30)) as flowing:
        wait_until("it has ended by itself", lambda: not flowing.flows, 10)
        assert flowing.counts == {"201": 10, "422": 10, "503": 10}
        assert (flowing.good, flowing.bad) == (20, 10)


def test_a_service_that_is_not_there_is_counted_as_bad() -> None:
    """No HTTP answer at all is bad, whatever the reason."""
    url = f"http://127.0.0.1:{free_ports(1)[0]}"
    with traffic(url, ["a"], Load(per_second=100, requests_max=10)) as flowing:
        wait_until("it has ended by itself", lambda: not flowing.flows, 10)
        assert flowing.counts == {"unreachable": 10}
        assert flowing.bad == 10


def test_a_slow_service_does_not_slow_the_guests() -> None:
    """Answers that take a second do not keep the rate down: 40 a second stay 40 a second."""
    with shop(200, seconds=1) as (url, requests), traffic(url, ["a"], Load(per_second=40, seconds_max=1)) as flowing:
        wait_until("the requests are sent", lambda: len(requests) >= 40, 2.5)
        wait_until("it has ended by itself", lambda: not flowing.flows, 10)
        assert flowing.counts == {"200": 41}  # from 0 to 1 second, both counted


def test_no_more_wait_than_is_allowed() -> None:
    """Beyond its limit of waiting requests, traffic sends none and says how many it left out."""
    load = Load(per_second=100, requests_max=30, in_flight_max=5)
    with shop(200, seconds=2) as (url, requests), traffic(url, ["a"], load) as flowing:
        wait_until("it has ended by itself", lambda: not flowing.flows, 10)
        assert flowing.counts == {"unsent": 25, "200": 5}
        assert len(requests) == 5
        assert (flowing.good, flowing.bad) == (5, 0)


def test_leaving_the_block_stops_it() -> None:
    """Nothing more is sent, and no thread is left."""
    before = threading.active_count()
    with traffic(f"http://127.0.0.1:{free_ports(1)[0]}", ["a"], Load(per_second=1)) as flowing:
        assert flowing.flows
    assert not flowing.flows
    assert threading.active_count() == before


def test_what_hangs_is_given_up_after_a_little_patience() -> None:
    """A request that gets no answer does not hold up the end; it is counted, neither as good nor as bad."""
    with shop(200, seconds=8) as (url, requests):
        with traffic(url, ["a"], Load(per_second=1)) as flowing:
            wait_until("a request is under way", lambda: bool(requests), 10)
            started = time.monotonic()
        assert time.monotonic() - started < 6
        assert flowing.counts["unanswered"] >= 1
        assert (flowing.good, flowing.bad) == (0, 0)
