"""The client, against servers that answer in all the ways in which servers do."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler
from itertools import pairwise
from typing import Any
from urllib.parse import parse_qs

import pytest

from drills.harness.http import serving
from review.connection import Connection
from review.errors import ReviewError
from review.prometheus import Prometheus, Sample


class Answers:
    """What a server answers, one after the other; the last one again and again. It keeps what it was asked."""

    def __init__(self, *answers: tuple[int, Any]) -> None:
        self.answers = list(answers)
        self.asked: list[dict[str, str]] = []
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []

    def next(self) -> tuple[int, Any]:
        """The next answer."""
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


@contextmanager
def asked(answers: Answers, **connection: Any) -> Iterator[Prometheus]:  # noqa: ANN401 - fields of a connection
    """A client of a server with the given answers."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            form = self.rfile.read(int(self.headers["content-length"])).decode()
            answers.asked.append({name: values[0] for name, values in parse_qs(form).items()})
            answers.headers.append({name.lower(): value for name, value in self.headers.items()})
            answers.paths.append(self.path)
            status, body = answers.next()
            self.send_response(status)
            if 300 <= status < 400:
                self.send_header("location", "https://login.example/")
            self.end_headers()
            with suppress(BrokenPipeError, ConnectionResetError):  # whoever gave up does not listen any more
                self.wfile.write(body if isinstance(body, bytes) else json.dumps(body).encode())

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with serving(Handler) as url, Prometheus(Connection(url=f"{url}/prefix", **connection)) as client:
        yield client


def vector(*values: float, **more: Any) -> dict[str, Any]:  # noqa: ANN401 - further keys
    """A good answer."""
    result = [{"metric": {"n": str(number)}, "value": [1, str(value)]} for number, value in enumerate(values)]
    return {"status": "success", "data": {"resultType": "vector", "result": result}, **more}


def matrix(**more: Any) -> dict[str, Any]:  # noqa: ANN401 - further keys
    """A good answer to a question over time."""
    result = [{"metric": {}, "values": [[1, "2"]]}]
    return {"status": "success", "data": {"resultType": "matrix", "result": result}, **more}


def test_a_question_goes_to_the_path_below_the_prefix() -> None:
    """In a form, as queries may be long; with the headers, and a wish for partial answers over none (Thanos)."""
    answers = Answers((200, vector(1.5)))
    with asked(answers, headers={"X-Scope-OrgID": "loyalty"}) as client:
        assert client.instant("up", 7) == [Sample({"n": "0"}, 1.5)]
    assert answers.paths == ["/prefix/api/v1/query"]
    assert answers.asked[0]["query"] == "up"
    assert answers.asked[0]["partial_response"] == "true"
    assert answers.headers[0]["x-scope-orgid"] == "loyalty"


def test_a_server_is_told_how_long_it_may_take() -> None:
    """As a duration of Prometheus, which knows no fractions: half a second is 500 ms."""
    for seconds, text in ((0.5, "500ms"), (60.0, "1m"), (90.0, "1m30s")):
        answers = Answers((200, vector(1)))
        with asked(answers, timeout_seconds=seconds) as client:
            client.instant("up", 7)
        assert answers.asked[0]["timeout"] == text


def test_warnings_make_an_answer_partial() -> None:
    """Each once; remarks on the query are none."""
    answers = Answers((200, vector(1, warnings=["store 2: unavailable", "PromQL warning: x", "store 2: unavailable"])))
    with asked(answers) as client:
        client.instant("up", 7)
        client.instant("up", 7)
        assert client.warnings == ["store 2: unavailable"]


def test_a_long_range_is_asked_in_parts_below_the_limit() -> None:
    """25,000 points are four questions, that follow on each other without a gap."""
    answers = Answers((200, matrix()))
    with asked(answers) as client:
        assert len(list(client.range("up", 0, 24_999 * 30, 30))) == 4
    spans = [(float(one["start"]), float(one["end"])) for one in answers.asked]
    assert spans[0][0] == 0
    assert spans[-1][1] == 24_999 * 30
    assert all(after[0] - before[1] == 30 for before, after in pairwise(spans))
    assert all((end - start) / 30 + 1 <= 11_000 for start, end in spans)


TOO_MANY = {"status": "error", "errorType": "execution", "error": "query processing would load too many samples"}


def test_what_is_too_large_is_asked_in_halves() -> None:
    """A server with a small limit still answers all of it."""
    answers = Answers((422, TOO_MANY), (200, matrix()))
    with asked(answers) as client:
        assert len(list(client.range("up", 0, 999 * 30, 30))) == 2
    assert [(one["start"], one["end"]) for one in answers.asked[1:]] == [
        ("0.000", "14970.000"),
        ("15000.000", "29970.000"),
    ]


def test_what_is_always_too_large_is_an_error() -> None:
    """It ends, with the server's words."""
    answers = Answers((422, TOO_MANY))
    with asked(answers) as client, pytest.raises(ReviewError, match="too many samples"):
        list(client.range("up", 0, 9_999 * 30, 30))
    assert len(answers.asked) < 10


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        ((401, b"who?"), "answered 401: who\\?; it does not know who asks"),
        ((404, b"404 page not found"), "is there a path before /api/v1"),
        ((400, {"status": "error", "errorType": "bad_data", "error": "parse error"}), "bad_data: parse error"),
        ((500, b""), "answered 500: nothing"),
        ((200, b"<html>Welcome"), "is no Prometheus API: query answered <html>Welcome"),
        ((200, [1]), "is no Prometheus API"),
        ((200, {"status": "success"}), "is no Prometheus API"),
        ((200, matrix()), "a matrix instead of a vector"),
        ((302, b""), "sends elsewhere, to https://login.example/"),
    ],
)
def test_what_is_wrong_is_told(answer: tuple[int, Any], fault: str) -> None:
    """With the URL, in one line."""
    with asked(Answers(answer)) as client:
        with pytest.raises(ReviewError, match=fault) as error:
            client.instant("up", 7)
        assert str(error.value).startswith(client.url)
        assert "\n" not in str(error.value)


def test_nobody_listens() -> None:
    """The URL and the reason are named."""
    with (
        Prometheus(Connection(url="http://127.0.0.1:9")) as client,
        pytest.raises(ReviewError, match=r"127.0.0.1:9: cannot be asked"),
    ):
        client.instant("up", 7)


def test_an_answer_without_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would fill the memory."""
    monkeypatch.setattr("review.prometheus.ANSWER_BYTES_MAX", 1_000)
    with asked(Answers((200, b"x" * 5_000))) as client, pytest.raises(ReviewError, match="larger than 1,000 bytes"):
        client.instant("up", 7)


def test_who_does_not_answer_in_time_is_given_up() -> None:
    """The variable that gives it more time is named."""

    class Slow(Answers):
        def next(self) -> tuple[int, Any]:
            time.sleep(0.5)
            return super().next()

    words = "no answer in time; SLO_PROMETHEUS_TIMEOUT_SECONDS"
    with asked(Slow((200, vector())), timeout_seconds=0.1) as client, pytest.raises(ReviewError, match=words):
        client.instant("up", 7)
