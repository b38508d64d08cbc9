"""The generator sends what its plan says, tells the truth about each answer, and settles what is unknown."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drills.harness import HarnessError, free_ports
from drills.harness.http import serving
from drills.load import History, Operation, Outcome, Plan, PlanError, load, loading, resolve, wire
from drills.load import plan as plans
from drills.load.__main__ import FAILED, OK, WRONG_USE, main
from drills.load.history import facts
from drills.load.report import RESET, TIMEOUT, Count
from drills.load.wire import WireError, is_whole
from service import problems

SLOW_SECONDS = 0.05


@dataclass(slots=True)
class Peer:
    """A server that answers as the account's name says, and what it was asked."""

    url: str = ""
    asked: list[tuple[str, dict[str, str], dict[str, Any]]] = field(default_factory=list)
    tries: Counter[str] = field(default_factory=Counter)
    connections: int = 0
    release: threading.Event = field(default_factory=threading.Event)

    @property
    def keys(self) -> list[str]:
        """The keys of the redemptions, in the order of their arrival."""
        return [headers["idempotency-key"] for path, headers, _ in self.asked if path == "/v1/redemptions"]


def problem(code: str) -> dict[str, Any]:
    """A problem's body."""
    return {"code": code, "title": "No."}


def redeemed(key: str) -> dict[str, Any]:
    """A redemption's body."""
    return {"redemption_id": f"id-{key}", "status": "redeemed", "rejection": None}


ANSWERS: dict[str, Callable[[str], tuple[int, dict[str, Any], dict[str, str]]]] = {
    "good": lambda key: (201, redeemed(key), {}),
    "slow": lambda key: (201, redeemed(key), {}),
    "hangs": lambda key: (201, redeemed(key), {}),
    "closes": lambda key: (201, redeemed(key), {"Connection": "close"}),
    "poor": lambda key: (422, problem("insufficient-points") | {"redemption_id": f"id-{key}"}, {}),
    "wrong": lambda _: (400, problem("malformed-request"), {}),
    "busy": lambda _: (503, problem(problems.OVERLOADED.code), {}),
    "limited": lambda _: (429, {}, {}),
    "away": lambda _: (503, problem(problems.LEDGER_UNAVAILABLE.code), {"Retry-After": "0"}),
    "late": lambda _: (504, problem(problems.LEDGER_TIMEOUT.code), {}),
    "later": lambda key: (202, {}, {"Location": f"/v1/deferred/{key}"}),
}


class _Answers(BaseHTTPRequestHandler):
    """Python's own HTTP server, with keep-alive."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1  # one packet an answer, or Nagle's algorithm makes it slow
    seen: ClassVar[Peer]

    def setup(self) -> None:
        super().setup()
        self.seen.connections += 1

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        key, account = self.headers["Idempotency-Key"], body["account_id"]
        self._note(key, body)
        if account == "cut":
            self.close_connection = True
            return
        if account == "slow":
            time.sleep(SLOW_SECONDS)
        if account == "hangs":
            self.seen.release.wait(20)
        if account.startswith("then-") and self.seen.tries[key] > 2:
            account = "good"
        self._answer(*ANSWERS[account.removeprefix("then-")](key))

    def do_GET(self) -> None:
        self._note(self.path, {})
        if not self.path.startswith("/v1/deferred/"):
            self._answer(200, {"balance": 1}, {})
        elif self.seen.tries[self.path] < 3:
            self._answer(200, {"status": "pending", "redemption": None}, {})
        else:
            decided = redeemed(self.path.rpartition("/")[2]) | {"rejection": None}
            self._answer(200, {"status": "settled", "redemption": decided}, {})

    def _note(self, name: str, body: dict[str, Any]) -> None:
        self.seen.asked.append((self.path, {name.lower(): text for name, text in self.headers.items()}, body))
        self.seen.tries[name] += 1

    def _answer(self, status: int, body: dict[str, Any], headers: dict[str, str]) -> None:
        text = json.dumps(body).encode()
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(text))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def peer() -> Iterator[Peer]:
    """Run one."""
    one = Peer()

    class Handler(_Answers):
        seen = one

    with serving(Handler) as url:
        one.url = url
        try:
            yield one
        finally:
            one.release.set()


def recorded(url: str, account: str, number: int = 1) -> History:
    """The history of a few redemptions."""
    plan = Plan(accounts=(account,), connections=1, requests_max=number, seconds=5, timeout_seconds=1, record=True)
    history = load(url, plan).history
    assert history is not None
    return history


# --- what is sent -----------------------------------------------------------------------------------------------------


def test_redemptions_are_sent_as_the_plan_says() -> None:
    """As many as planned, each with a key of its own, its account and points, and the plan's headers."""
    with peer() as server:
        plan = Plan(
            accounts=("good",),
            points=(3, 5),
            connections=4,
            requests_max=100,
            headers={"Authorization": "Bearer made-up"},
        )
        report = load(server.url, plan)
    assert report.redemptions.sent == len(server.asked) == len(set(server.keys)) == 100
    assert report.redemptions.by_status == {"201": 100}
    assert report.redemptions.unanswered == report.reads.sent == report.unsent == 0
    assert {headers["authorization"] for _, headers, _ in server.asked} == {"Bearer made-up"}
    assert {body["points"] for _, _, body in server.asked} == {3, 4, 5}
    assert server.connections == 4  # kept alive
    assert 0 < report.redemptions.goodput_per_second == 100 / report.duration_seconds
    assert report.cpu_seconds_per_request > 0


def test_the_two_kinds_are_counted_apart() -> None:
    """A share of reads is sent, and has numbers of its own."""
    with peer() as server:
        report = load(server.url, Plan(accounts=("good",), reads_share=0.3, requests_max=200, connections=2, seed=7))
    paths = Counter(path for path, _, _ in server.asked)
    assert paths == {"/v1/redemptions": report.redemptions.sent, "/v1/accounts/good/balance": report.reads.sent}
    assert 30 < report.reads.sent < 90
    assert report.reads.by_status == {"200": report.reads.sent}


def test_accounts_are_drawn_as_the_plan_says() -> None:
    """Uniform, by Zipf's law, or one hot one; the seed decides, but for the keys."""
    accounts = tuple(f"guest-{number}" for number in range(10))

    def drawn(choice: plans.Choice, seed: int = 1) -> list[str]:
        plan = Plan(accounts=accounts, choice=choice, seed=seed)
        return [request.account_id for request in islice(plans.requests(plan, "localhost", 1), 3000)]

    assert set(drawn("hot")) == {"guest-0"}
    assert all(200 < count < 400 for count in Counter(drawn("uniform")).values())
    counts = Counter(drawn("zipf"))
    assert counts["guest-0"] > 1.5 * counts["guest-1"] > 1.5 * 1.5 * counts["guest-4"] > 0
    assert drawn("uniform") == drawn("uniform") != drawn("uniform", seed=2)
    keys = {next(plans.requests(Plan(accounts=accounts), "localhost", 1)).key for _ in range(100)}
    assert len(keys) == 100


@pytest.mark.parametrize(
    "url", ["http://example.com:80", "http://10.0.0.1:80", "https://127.0.0.1:1", "http://localhost"]
)
def test_load_is_for_this_machine_only(url: str) -> None:
    """Any other address is refused, by the generator and by what asks again."""
    with pytest.raises(PlanError, match=r"127\.0\.0\.1"):
        load(url, Plan(accounts=("good",)))
    with pytest.raises(PlanError, match=r"127\.0\.0\.1"):
        resolve(History(), url)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"accounts": ()}, "accounts"),
        ({"accounts": ("a b",)}, "accounts"),
        ({"choice": "random"}, "choice"),
        ({"points": (0, 1)}, "points"),
        ({"points": (2, 1)}, "points"),
        ({"reads_share": 1.1}, "reads_share"),
        ({"per_second": 0}, "per_second"),
        ({"connections": 0}, "connections"),
        ({"seconds": float("inf")}, "seconds"),
        ({"seconds": float("nan")}, "seconds"),
        ({"timeout_seconds": 61}, "timeout_seconds"),
        ({"requests_max": 0}, "requests_max"),
        ({"requests_max": 500_001, "record": True}, "requests_max"),
        ({"headers": {"A": "b\r\nC: d"}}, "headers"),
    ],
)
def test_a_plan_out_of_bounds_is_refused(changes: dict[str, Any], named: str) -> None:
    """With the name of what is wrong."""
    with pytest.raises(PlanError, match=f"^{named}: "):
        Plan(**{"accounts": ("a",), **changes})


# --- when it is sent --------------------------------------------------------------------------------------------------


def test_the_open_loop_keeps_its_rate() -> None:
    """As many as the rate times the time, whatever the answers."""
    with peer() as server:
        report = load(server.url, Plan(accounts=("good", "busy"), per_second=100, seconds=0.5, connections=4))
    assert report.redemptions.sent == len(server.asked) == 50
    assert report.unsent == 0


def test_waiting_before_a_request_is_part_of_its_latency() -> None:
    """No coordinated omission: 20 requests at once due, one connection, so the last waits for all the others."""
    with peer() as server:
        plan = Plan(accounts=("slow",), per_second=1000, seconds=0.02, connections=1, timeout_seconds=30)
        open_loop = load(server.url, plan).redemptions.latency
        closed_loop = load(server.url, Plan(accounts=("slow",), requests_max=20, connections=1)).redemptions.latency
    assert open_loop is not None
    assert closed_loop is not None
    assert open_loop.max_seconds > 19 * SLOW_SECONDS
    assert open_loop.p50_seconds > 8 * SLOW_SECONDS
    assert closed_loop.p50_seconds < 8 * SLOW_SECONDS


def test_who_waits_too_long_goes() -> None:
    """What was never answered is a timeout, what was never sent is counted as such, and the run ends."""
    with peer() as server:
        plan = Plan(accounts=("hangs",), per_second=100, seconds=0.1, connections=2, timeout_seconds=0.3, record=True)
        report = load(server.url, plan)
    assert report.redemptions.by_status == {TIMEOUT: report.redemptions.sent}
    assert report.redemptions.unanswered == report.redemptions.sent >= 2
    assert report.redemptions.sent + report.unsent == 10
    assert report.unsent > 0
    assert report.redemptions.latency is report.redemptions.accepted_latency is None
    assert report.history is not None
    assert len(report.history.of(Outcome.UNKNOWN)) == report.redemptions.sent


def test_the_closed_loop_ends_in_time() -> None:
    """After the planned seconds, or when it is told to stop."""
    with peer() as server:
        started = time.monotonic()
        assert load(server.url, Plan(accounts=("slow",), seconds=0.2, connections=2)).redemptions.sent >= 2
        with loading(server.url, Plan(accounts=("slow",), seconds=600, connections=2)) as flow:
            time.sleep(0.2)
            flow.stop()
            assert flow.report().redemptions.sent >= 2
        with loading(server.url, Plan(accounts=("slow",), seconds=600, per_second=50, connections=2)) as flow:
            time.sleep(0.2)
        assert flow.report().redemptions.sent >= 2
        assert time.monotonic() - started < 30


# --- what is told -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("account", "outcome", "status"),
    [
        ("good", Outcome.ACKNOWLEDGED, 201),
        ("poor", Outcome.REJECTED, 422),
        ("wrong", Outcome.REFUSED, 400),
        ("busy", Outcome.SHED, 503),
        ("limited", Outcome.SHED, 429),
        ("away", Outcome.UNKNOWN, 503),
        ("late", Outcome.UNKNOWN, 504),
        ("later", Outcome.DEFERRED, 202),
        ("cut", Outcome.UNKNOWN, None),
    ],
)
def test_the_history_says_what_a_client_knows(account: str, outcome: Outcome, status: int | None) -> None:
    """Shed only where nothing happened for sure; a ledger that cannot be reached may have done it."""
    before = time.monotonic()
    with peer() as server:
        (operation,) = recorded(server.url, account)
    assert (operation.outcome, operation.status, operation.key) == (outcome, status, server.keys[0])
    assert (operation.account_id, operation.points, operation.attempts) == (account, 1, 1)
    decided = outcome in (Outcome.ACKNOWLEDGED, Outcome.REJECTED)
    assert operation.redemption_id == (f"id-{operation.key}" if decided else None)
    assert before < operation.invoked_at < time.monotonic()
    if status is None:
        assert operation.returned_at is None
    else:
        assert operation.returned_at is not None
        assert operation.returned_at > operation.invoked_at


def test_what_is_not_understood_is_not_known() -> None:
    """A body that is no JSON, or a 503 of somebody in between, promises nothing."""
    assert facts(503, b"Service Unavailable", None)["outcome"] is Outcome.UNKNOWN
    assert facts(503, b"[]", None)["outcome"] is Outcome.UNKNOWN
    assert facts(500, b"", None)["outcome"] is Outcome.UNKNOWN
    assert facts(409, b"{}", None)["outcome"] is Outcome.UNKNOWN


def test_a_connection_that_ends_is_made_anew() -> None:
    """Cut off without an answer: a reset, and the next one goes on; ended by the server's wish: no loss at all."""
    with peer() as server:
        cut = load(server.url, Plan(accounts=("cut", "good"), connections=2, requests_max=60, seed=3))
        assert cut.redemptions.by_status[RESET] + cut.redemptions.by_status["201"] == 60
        assert len(set(server.keys)) == 60  # nothing was sent twice
        closed = load(server.url, Plan(accounts=("closes",), connections=2, requests_max=30))
    assert closed.redemptions.by_status == {"201": 30}


def test_a_server_that_is_not_there_is_told() -> None:
    """At the start; later it is part of the drill."""
    with pytest.raises(HarnessError, match="nobody listens"):
        load(f"http://127.0.0.1:{free_ports(1)[0]}", Plan(accounts=("good",)))


def test_a_history_is_kept_and_read_again(tmp_path: Path) -> None:
    """As it was."""
    with peer() as server:
        history = recorded(server.url, "good", 3) + recorded(server.url, "cut")
    history.write(tmp_path / "history.jsonl")
    assert History.read(tmp_path / "history.jsonl") == history
    assert len(history) == 4


def test_percentiles_are_measured_values() -> None:
    """The smallest one that so many do not exceed; of the accepted ones apart."""
    count = Count()
    for number in range(1, 1001):
        count.answer(201 if number <= 100 else 503, number / 1000)
    count.none(RESET)
    tally = count.tally(10.0)
    assert tally.latency is not None
    assert tally.accepted_latency is not None
    latency = tally.latency
    assert (latency.p50_seconds, latency.p90_seconds, latency.p99_seconds) == (0.5, 0.9, 0.99)
    assert (latency.p999_seconds, latency.max_seconds) == (0.999, 1.0)
    assert tally.accepted_latency.p50_seconds == 0.05
    assert tally.by_status == {"201": 100, "503": 900, RESET: 1}
    assert (tally.sent, tally.unanswered, tally.goodput_per_second) == (1001, 1, 10.0)


# --- the wire ---------------------------------------------------------------------------------------------------------

ANSWER = b"HTTP/1.1 201 Created\r\ndate: today\r\ncontent-length: 13\r\nLocation: /there\r\n\r\n" + b"x" * 13


@given(st.integers(0, len(ANSWER)))
def test_an_answer_in_parts_is_whole_at_its_end(size: int) -> None:
    """And not before, wherever it is cut."""
    assert is_whole(ANSWER[:size]) == (size == len(ANSWER))


@pytest.mark.parametrize(
    "answer",
    [
        ANSWER + b"H",
        b"SSH-2.0-OpenSSH\r\n",
        ANSWER.replace(b"content-length: 13\r\n", b""),
        ANSWER.replace(b"13", b"many"),
        ANSWER.replace(b"13", str(wire.ANSWER_BYTES_MAX).encode()),
        b"HTTP/1.1 200 OK\r\nx: " + b"x" * wire.ANSWER_BYTES_MAX,
    ],
)
def test_an_answer_that_cannot_be_read_is_no_answer(answer: bytes) -> None:
    """More than was asked for, no HTTP, no length, or too long."""
    with pytest.raises(WireError):
        is_whole(answer)


def test_an_answer_is_taken_apart() -> None:
    """Into status, headers and body; and both spellings of the headers that count are known."""
    assert wire.status(ANSWER) == 201
    headers, body = wire.split(ANSWER)
    assert (headers["location"], headers["content-length"], body) == ("/there", "13", b"x" * 13)
    assert is_whole(ANSWER.replace(b"content-length", b"Content-Length"))
    assert not wire.closes(ANSWER)
    for name in (b"connection", b"Connection"):
        assert wire.closes(ANSWER.replace(b"date: today", name + b": close"))


# --- after the fault --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("account", ["then-away", "then-late", "then-busy"])
def test_an_unknown_one_is_sent_again_until_it_is_known(account: str) -> None:
    """With the same key, through whatever does not tell; what was known before is left alone."""
    with peer() as server:
        unknown = Operation(key="k" * 16, account_id=account, points=7, invoked_at=1.0)
        known = recorded(server.url, "poor")
        settled = resolve(History((unknown,)) + known, server.url, headers={"X-Drill": "1"})
    first = settled.operations[0]
    assert (first.outcome, first.redemption_id, first.attempts) == (Outcome.ACKNOWLEDGED, "id-" + "k" * 16, 4)
    assert first.invoked_at == 1.0
    assert first.returned_at is not None
    assert settled.operations[1:] == known.operations
    again = [(headers["x-drill"], body) for _, headers, body in server.asked if "x-drill" in headers]
    assert again == [("1", {"account_id": account, "points": 7})] * 3


def test_a_deferred_one_is_followed_until_it_is_settled() -> None:
    """At its location, and never sent again."""
    with peer() as server:
        history = recorded(server.url, "later")
        (settled,) = resolve(history, server.url)
    assert (settled.outcome, settled.redemption_id) == (Outcome.ACKNOWLEDGED, f"id-{settled.key}")
    assert server.tries == {settled.key: 1, f"/v1/deferred/{settled.key}": 3}


def test_a_redemption_that_is_read_tells_its_rejection() -> None:
    """As an answer to a redemption does."""
    body = json.dumps({"redemption_id": "id", "status": "rejected", "rejection": "insufficient-points"}).encode()
    assert facts(200, body, None)["code"] == "insufficient-points"


def test_asking_again_has_an_end() -> None:
    """What is not known by then stays unknown, whether nobody listens or nobody tells."""
    with peer() as server:
        history = recorded(server.url, "late")
        (still,) = resolve(history, server.url, seconds_max=0.5)
    assert still.outcome is Outcome.UNKNOWN
    assert still.attempts > 1
    (alone,) = resolve(history, server.url, seconds_max=0.3)
    assert alone == history.operations[0]


# --- the front door ---------------------------------------------------------------------------------------------------


def test_the_command_prints_and_keeps_what_became_of_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As JSON or in words; the token comes from a file."""
    (tmp_path / "accounts").write_text("good\npoor\n")
    (tmp_path / "token").write_text("made-up\n")
    kept = tmp_path / "history.jsonl"
    with peer() as server:
        options = ["--url", server.url, "--connections=2", "--requests=40", "--points=1-3"]
        files = [f"--accounts={tmp_path / 'accounts'}", f"--token={tmp_path / 'token'}", f"--history={kept}"]
        assert main([*options, *files, "--header", "X-Drill: yes", "--json"]) == OK
        document = json.loads(capsys.readouterr().out)
        assert document["redemptions"]["sent"] == len(History.read(kept)) == 40
        assert set(document["redemptions"]["by_status"]) == {"201", "422"}
        assert document["redemptions"]["accepted_latency"]["p99_seconds"] > 0
        assert document["reads"]["latency"] is None
        sent = {(headers["authorization"], headers["x-drill"]) for _, headers, _ in server.asked}
        assert sent == {("Bearer made-up", "yes")}
        assert main([*options, "--account=good", "--rate=400", "--seconds=0.1"]) == OK
        assert "redemptions: 40 sent (201 40)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (["--url=http://example.com:80", "--account=a"], WRONG_USE, "127.0.0.1"),
        (["--url=http://127.0.0.1:9"], WRONG_USE, "accounts: one at least"),
        (["--url=http://127.0.0.1:9", "--account=a", "--points=x"], WRONG_USE, "points: a number"),
        (["--url=http://127.0.0.1:9", "--accounts=/no/such/file"], WRONG_USE, "No such file"),
        (["--url=http://127.0.0.1:9", "--account=a"], FAILED, "nobody listens"),
    ],
)
def test_the_command_says_what_is_wrong(
    options: list[str], code: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """In one line, with an exit code that tells wrong use from a server that is not there."""
    assert main(options) == code
    assert words in capsys.readouterr().err


def test_the_module_is_a_command() -> None:
    """`python -m drills.load --help` tells what it can do."""
    done = subprocess.run([sys.executable, "-m", "drills.load", "--help"], capture_output=True, text=True, check=True)
    assert "--rate PER_SECOND" in done.stdout
