"""The HTTP API of Prometheus, as Prometheus, Thanos, Mimir and Amazon's managed service answer it."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from ssl import SSLContext, create_default_context
from types import TracebackType
from typing import Any, Self

import httpx
import orjson

from review.connection import Connection
from review.errors import ReviewError
from slo import conventions as names

POINTS_MAX = 11_000  # what Prometheus allows for each series of a range query
ANSWER_BYTES_MAX = 256 * 1024 * 1024

_CONNECT_SECONDS_MAX = 10.0
_ERROR_CHARACTERS = 300
# Remarks on the query itself. Everything else that Prometheus, Thanos or Mimir warn of is about missing data.
_ABOUT_THE_QUERY = ("PromQL info", "PromQL warning")


@dataclass(frozen=True, slots=True)
class Sample:
    """A value with its labels."""

    labels: Mapping[str, str]
    value: float


@dataclass(frozen=True, slots=True)
class Series:
    """Values over time.

    Attributes:
        labels: Its labels.
        points: Unix time and value, the value as Prometheus writes it.
    """

    labels: Mapping[str, str]
    points: Sequence[tuple[float, str]]


class Prometheus:
    """A client, open while a `with` block runs.

    Attributes:
        url: Its base URL.
        warnings: What the server said about its own answers, each once. Not empty: answers may be partial.
        queries: How many questions were asked.
    """

    def __init__(self, connection: Connection) -> None:
        self.url = connection.url
        self.warnings: list[str] = []
        self.queries = 0
        self._timeout_seconds = connection.timeout_seconds
        self._http = httpx.Client(
            headers={"Accept": "application/json", **connection.headers},
            auth=connection.auth,
            verify=_trust(connection.ca_file),
            timeout=httpx.Timeout(connection.timeout_seconds, connect=_CONNECT_SECONDS_MAX),
            # A proxy of the environment does not lead to this machine itself.
            trust_env=not _is_loopback(httpx.URL(connection.url).host),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._http.close()

    def instant(self, expr: str, at: float) -> list[Sample]:
        """The instant vector of an expression at a time.

        Raises:
            ReviewError: There is no usable answer.
        """
        result = self._ask("query", {"query": expr, "time": f"{at:.3f}"}, "vector")
        return [Sample(one["metric"], float(one["value"][1])) for one in result]

    def range(self, expr: str, start: float, end: float, step_seconds: float) -> Iterator[list[Series]]:
        """The values of an expression from a time to another, one a step, in chunks that the server allows.

        What the server finds too large or too slow is asked again in halves.

        Raises:
            ReviewError: There is no usable answer.
        """
        points = round((end - start) / step_seconds) + 1
        if points > POINTS_MAX:
            yield from self._halves(expr, start, points, step_seconds)
            return
        question = {"query": expr, "start": f"{start:.3f}", "end": f"{end:.3f}", "step": f"{step_seconds:g}"}
        try:
            result = self._ask("query_range", question, "matrix")
        except _TooMuchError:
            if points < _POINTS_SPLIT_MIN:
                raise
            yield from self._halves(expr, start, points, step_seconds)
            return
        yield [Series(one["metric"], one["values"]) for one in result]

    def _halves(self, expr: str, start: float, points: int, step_seconds: float) -> Iterator[list[Series]]:
        middle = start + (points // 2) * step_seconds
        yield from self.range(expr, start, middle - step_seconds, step_seconds)
        yield from self.range(expr, middle, start + (points - 1) * step_seconds, step_seconds)

    def _ask(self, path: str, parameters: Mapping[str, str], kind: str) -> list[Any]:
        self.queries += 1
        # Thanos alone knows `partial_response`: what it cannot reach becomes a warning instead of no answer at all.
        timeout = names.duration(timedelta(seconds=self._timeout_seconds))
        form = {**parameters, "timeout": timeout, "partial_response": "true"}
        status, body = self._post(f"{self.url}/api/v1/{path}", form)
        try:
            answer = orjson.loads(body)
            if answer["status"] == "success":
                self._note(answer.get("warnings") or ())
                data = answer["data"]
                if data["resultType"] != kind:
                    raise ReviewError(f"{self.url}: answered with a {data['resultType']} instead of a {kind}")
                return list(data["result"])
            said = f"{answer.get('errorType', 'error')}: {answer.get('error', 'no reason given')}"
        except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError):
            said = " ".join(body[: 2 * _ERROR_CHARACTERS].decode(errors="replace").split()) or "nothing"
            if status == httpx.codes.OK:
                raise ReviewError(
                    f"{self.url}: is no Prometheus API: {path} answered {said[:_ERROR_CHARACTERS]}"
                ) from None
        raise self._error(status, said[:_ERROR_CHARACTERS])

    def _post(self, url: str, form: Mapping[str, str]) -> tuple[int, bytes]:
        body = bytearray()
        try:
            with self._http.stream("POST", url, data=form) as response:
                if response.is_redirect:
                    to = response.headers.get("location", "nowhere")
                    raise ReviewError(f"{self.url}: sends elsewhere, to {to}; a login page, or http for https?")
                for part in response.iter_bytes():
                    body += part
                    if len(body) > ANSWER_BYTES_MAX:
                        raise _TooMuchError(f"{self.url}: an answer is larger than {ANSWER_BYTES_MAX:,} bytes")
                return response.status_code, bytes(body)
        except httpx.ConnectTimeout as error:
            raise ReviewError(f"{self.url}: no connection within {_CONNECT_SECONDS_MAX:g} s") from error
        except httpx.TimeoutException as error:
            raise _TooMuchError(
                f"{self.url}: no answer in time; SLO_PROMETHEUS_TIMEOUT_SECONDS gives it more"
            ) from error
        except httpx.HTTPError as error:
            raise ReviewError(f"{self.url}: cannot be asked: {error or type(error).__name__}") from error

    def _error(self, status: int, said: str) -> ReviewError:
        kind = _TooMuchError if status in _TOO_MUCH else ReviewError
        return kind(f"{self.url}: answered {status}: {said}{_HINTS.get(status, '')}")

    def _note(self, warnings: Sequence[str]) -> None:
        for warning in warnings:
            if not warning.startswith(_ABOUT_THE_QUERY) and warning not in self.warnings:
                self.warnings.append(warning)


class _TooMuchError(ReviewError):
    """The question was too large or took too long; a smaller one may do."""


# Prometheus: too many samples (422), evaluation time-out (503). Thanos, Mimir: limits (413, 422, 429), gateways.
_TOO_MUCH = frozenset({413, 422, 429, 502, 503, 504})
_POINTS_SPLIT_MIN = 200
_HINTS: Mapping[int, str] = {
    401: "; it does not know who asks, see SLO_PROMETHEUS_BEARER_TOKEN and its kind",
    403: "; it knows who asks, and refuses",
    404: "; is there a path before /api/v1, /prometheus say?",
}


def _trust(ca_file: Path | None) -> SSLContext | bool:
    if ca_file is None:
        return True
    try:
        return create_default_context(cafile=ca_file)
    except OSError as error:  # ssl.SSLError is one
        raise ReviewError(f"SLO_PROMETHEUS_CA_FILE: {ca_file}: {error}") from error


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
