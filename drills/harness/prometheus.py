"""A real Prometheus."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from drills.harness.http import answers, checked, client, wait_until
from drills.harness.process import HarnessError, Process, running, tool
from slo.conventions import duration

_SECOND = timedelta(seconds=1)
_RETENTION = timedelta(days=400)  # all of it: a period of a year fits, and the folder is temporary

_CONFIG = "prometheus.yml"
_DISCOVERY_SECONDS_MAX = 20.0

_TAKE_POST = frozenset({"query", "query_range", "query_exemplars", "series", "labels", "format_query"})


@dataclass(frozen=True, slots=True)
class Sample:
    """A value at a time.

    Attributes:
        labels: Its labels, `__name__` among them.
        value: The value.
        at: Unix time in seconds.
    """

    labels: Mapping[str, str]
    value: float
    at: float


@dataclass(frozen=True, slots=True)
class Series:
    """The values of a series over a time.

    Attributes:
        labels: Its labels, `__name__` among them.
        points: Unix time in seconds, and value.
    """

    labels: Mapping[str, str]
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class ActiveAlert:
    """An alert that Prometheus holds for true.

    Attributes:
        labels: Its labels, `alertname` among them.
        annotations: Its texts.
        state: `pending` or `firing`.
    """

    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    state: str

    @property
    def name(self) -> str:
        """The alert's name."""
        return self.labels["alertname"]


@dataclass(frozen=True, slots=True)
class Prometheus:
    """A Prometheus that runs. Its methods raise `HarnessError` with its own words when it refuses.

    Attributes:
        url: Its base URL.
        process: Its process.
    """

    url: str
    process: Process
    _http: httpx.Client = field(repr=False)

    def api(self, path: str, **parameters: Any) -> Any:  # noqa: ANN401 - JSON is what the path makes it
        """The `data` of any path below `/api/v1/`; parameters go in the body, so that a query may be long."""
        if path in _TAKE_POST:
            response = self._http.post(f"/api/v1/{path}", data=parameters)
        else:
            response = self._http.get(f"/api/v1/{path}", params=parameters)
        return checked(response).json()["data"]

    def query(self, expr: str, at: float | datetime | None = None) -> list[Sample]:
        """The instant vector of an expression, now or at a time; a scalar is one sample without labels."""
        time = {} if at is None else {"time": _unix(at)}
        data = self.api("query", query=expr, **time)
        match data["resultType"]:
            case "vector":
                return [_sample(one["metric"], one["value"]) for one in data["result"]]
            case "scalar":
                return [_sample({}, data["result"])]
            case other:
                raise HarnessError(f"query {expr}: the result is a {other}; ask for a vector or a scalar")

    def value(self, expr: str, at: float | datetime | None = None) -> float | None:
        """The one value of an expression, None when it has none.

        Raises:
            HarnessError: It has several.
        """
        samples = self.query(expr, at)
        if len(samples) > 1:
            raise HarnessError(f"query {expr}: {len(samples)} values where one was asked for")
        return samples[0].value if samples else None

    def query_range(self, expr: str, start: float | datetime, end: float | datetime, step: timedelta) -> list[Series]:
        """The values of an expression from a time to another, one a step."""
        data = self.api("query_range", query=expr, start=_unix(start), end=_unix(end), step=step.total_seconds())
        return [
            Series(one["metric"], tuple((float(at), float(value)) for at, value in one["values"]))
            for one in data["result"]
        ]

    def alerts(self) -> list[ActiveAlert]:
        """Every alert that is pending or firing."""
        found = self.api("alerts")["alerts"] or ()  # null from Thanos when there is none
        return [ActiveAlert(one["labels"], one["annotations"], one["state"]) for one in found]

    def rules(self) -> list[dict[str, Any]]:
        """Every rule with its health and last error, groups flattened."""
        return [rule for group in self.api("rules")["groups"] for rule in group["rules"]]

    def reload(self) -> None:
        """Read configuration and rules again, as they are on the disk now."""
        response = self._http.post("/-/reload")
        if not response.is_success:  # the answer only says that it failed; the log says why
            raise HarnessError(f"Prometheus refused to reload: {response.text}{self.process.tail()}")


@contextmanager
def prometheus(  # noqa: PLR0913 - each has a default
    *,
    rules: Sequence[Path] = (),
    targets: Mapping[str, Sequence[str]] | None = None,
    alertmanager_url: str | None = None,
    scrape_interval: timedelta = _SECOND,
    evaluation_interval: timedelta = _SECOND,
    data: Path | None = None,
    retention: timedelta = _RETENTION,
    config: Mapping[str, Any] | None = None,
    flags: Sequence[str] = (),
) -> Iterator[Prometheus]:
    """Run a Prometheus while the block runs.

    Its rules start once every target has been scraped and Alertmanager is known, which takes a Prometheus some five
    seconds: before, rules with short windows would alert on an absence, and alerts would get lost for a minute.

    Args:
        rules: Rule files, read where they are; `reload` reads them again.
        targets: Job -> addresses to scrape, `127.0.0.1:8080` say, each at `/metrics`.
        alertmanager_url: Who gets the alerts.
        scrape_interval: Time from one scrape to the next.
        evaluation_interval: The same of rule groups that name none of their own.
        data: A folder with data to begin with, which the run changes; by default an empty, temporary one.
        retention: How long samples are kept.
        config: Further top-level entries of the configuration; they win.
        flags: Further command-line flags.

    Raises:
        HarnessError: It is not built, a rule file is missing, it does not start, or refuses the rules.
        TimeoutError: It does not scrape the targets, or find Alertmanager.
    """
    missing = [str(file) for file in rules if not file.is_file()]
    if missing:
        raise HarnessError(f"rule files that do not exist: {', '.join(missing)}")  # Prometheus would not mind
    program = tool("prometheus")
    always = {
        "global": {
            "scrape_interval": duration(scrape_interval),
            "scrape_timeout": duration(scrape_interval),
            "evaluation_interval": duration(evaluation_interval),
        },
        "scrape_configs": [_scrape(job, addresses) for job, addresses in (targets or {}).items()],
        "alerting": {"alertmanagers": [_alertmanager(alertmanager_url)] if alertmanager_url else []},
        **(config or {}),
    }
    whole = {"rule_files": [str(file.resolve()) for file in rules], **always}

    def command(ports: Sequence[int], folder: Path) -> list[str | Path]:
        _configure(folder, always)
        return [
            program,
            f"--config.file={folder / _CONFIG}",
            f"--storage.tsdb.path={(data or folder / 'data').resolve()}",
            f"--storage.tsdb.retention.time={duration(retention)}",
            f"--web.listen-address=127.0.0.1:{ports[0]}",
            "--web.enable-lifecycle",
            *flags,
        ]

    with running("prometheus", command, _ready) as process, client(_url(process.ports)) as http:
        server = Prometheus(_url(process.ports), process, http)
        wanted = {(job, address) for job, addresses in (targets or {}).items() for address in addresses}
        wait_until(f"Prometheus scrapes {targets}", lambda: _scraped(server) >= wanted, _DISCOVERY_SECONDS_MAX)
        if alertmanager_url:
            wait_until("Prometheus finds Alertmanager", lambda: _knows_alertmanager(server), _DISCOVERY_SECONDS_MAX)
        if rules:
            _configure(process.folder, whole)
            server.reload()
        yield server


def _configure(folder: Path, config: Mapping[str, Any]) -> None:
    (folder / _CONFIG).write_text(json.dumps(config))  # JSON is YAML


def _scraped(server: Prometheus) -> set[tuple[str, str]]:
    return {(sample.labels["job"], sample.labels["instance"]) for sample in server.query("up")}


def _knows_alertmanager(server: Prometheus) -> bool:
    return bool(server.api("alertmanagers")["activeAlertmanagers"])


def _url(ports: Sequence[int]) -> str:
    return f"http://127.0.0.1:{ports[0]}"


def _ready(ports: Sequence[int]) -> bool:
    with client(_url(ports)) as http:
        return answers(http, "/-/ready")


def _scrape(job: str, addresses: Sequence[str]) -> dict[str, Any]:
    return {"job_name": job, "static_configs": [{"targets": list(addresses)}]}


def _alertmanager(url: str) -> dict[str, Any]:
    return {"static_configs": [{"targets": [urlsplit(url).netloc]}]}


def _unix(at: float | datetime) -> float:
    return at.timestamp() if isinstance(at, datetime) else at


def _sample(labels: Mapping[str, str], value: Sequence[Any]) -> Sample:
    return Sample(labels, float(value[1]), float(value[0]))
