"""The places that an alert's links lead to, served from generated files: runbooks, boards as plain pages, log lines.

Traces and silences are in a Jaeger and an Alertmanager, which run elsewhere: these links are sent on.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from html import escape
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

import httpx

from drills.harness.http import client, serving
from slo.settings import Links

_MARKDOWN = "text/markdown; charset=utf-8"
_HTML = "text/html; charset=utf-8"
_TEXT = "text/plain; charset=utf-8"

_VARIABLE = re.compile(r"\$\{(\w+)(?::\w+)?\}|\$(\w+)")
# What Grafana itself fills in; any sound value shows a figure.
_GRAFANA_VARIABLES = {"__rate_interval": "1m", "__interval": "15s", "__range": "6h"}
_SERIES_SHOWN_MAX = 20
_LOG_LINES = 200


@dataclass(slots=True)
class _Sources:
    """What the pages read besides the files; known later than the pages' own address."""

    prometheus_url: str | None = None
    log: Path | None = None
    elsewhere: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Pages:
    """Pages that are served.

    Attributes:
        url: Their base URL; the page there lists all others.
    """

    url: str
    _sources: _Sources = field(repr=False)

    @property
    def links(self) -> Links:
        """The settings whose links lead here."""
        return Links(
            grafana=self.url,
            runbooks=f"{self.url}/runbooks",
            traces=f"{self.url}/traces",
            logs=f"{self.url}/logs",
            alertmanager=f"{self.url}/alertmanager",
        )

    def show(
        self,
        *,
        prometheus_url: str | None = None,
        log: Path | None = None,
        jaeger_url: str | None = None,
        alertmanager_url: str | None = None,
    ) -> None:
        """From now on, boards show live values from this Prometheus, and `/logs` the end of this file.

        `/traces/...` leads to this Jaeger, and `/alertmanager/...` to this Alertmanager.
        """
        self._sources.prometheus_url = prometheus_url
        self._sources.log = log
        places = {"traces": jaeger_url, "alertmanager": alertmanager_url}
        self._sources.elsewhere = {name: url for name, url in places.items() if url}


@contextmanager
def pages(folder: Path) -> Iterator[Pages]:
    """Serve the runbooks and boards of a folder like `generated/` while the block runs.

    `/runbooks/NAME.md` is `runbooks/NAME.md`, and `/runbooks/index.html` has all of them. `/d/UID/...` is the
    board with that uid, wherever below `grafana/` it lies: each panel's title, description and query, and its value
    now when there is a Prometheus. `/logs?outcome=error&route=...&slower_than=1` has the lines that fit. Files are
    read at each request.
    """
    sources = _Sources()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            url = urlsplit(self.path)
            place, _, rest = url.path.strip("/").partition("/")
            if place in sources.elsewhere:
                query = f"?{url.query}" if url.query else ""
                self.send_response(HTTPStatus.FOUND)
                self.send_header("Location", f"{sources.elsewhere[place]}/{rest}{query}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            answer = _page(folder, sources, unquote(url.path), parse_qsl(url.query))
            status, kind, text = answer or (HTTPStatus.NOT_FOUND, _TEXT, f"{url.path}: there is no such page\n")
            body = text.encode()
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("X-Content-Type-Options", "nosniff")
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_HEAD = do_GET  # noqa: N815 - http.server's name

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with serving(Handler) as url:
        yield Pages(url, sources)


_Answer = tuple[HTTPStatus, str, str]


def _page(folder: Path, sources: _Sources, path: str, query: Sequence[tuple[str, str]]) -> _Answer | None:
    # Names are looked up among what is there, never joined to a path: nothing outside can be reached.
    answer: _Answer | None = None
    match path.strip("/").split("/"):
        case [""]:
            answer = HTTPStatus.OK, _HTML, _index(folder)
        case ["runbooks", name] if name in (runbooks := _runbooks(folder)):
            answer = HTTPStatus.OK, _MARKDOWN, runbooks[name].read_text("utf-8")
        case ["runbooks", "index.html"] if (site := folder / "runbooks/index.html").is_file():
            answer = HTTPStatus.OK, _HTML, site.read_text("utf-8")
        case ["d", uid, *_] if uid in (boards := _boards(folder)):
            answer = HTTPStatus.OK, _HTML, _board(boards[uid], sources.prometheus_url, dict(query))
        case ["logs"] if sources.log is not None and sources.log.is_file():
            lines = sources.log.read_text("utf-8", "replace").splitlines()
            answer = HTTPStatus.OK, _TEXT, "\n".join(_that_fit(lines, query)) + "\n"
        case [("traces" | "alertmanager") as place, *_]:
            text = f"<p>No {_KEEPERS[place]} runs here. What was asked: <code>{escape(urlencode(query))}</code></p>\n"
            answer = HTTPStatus.OK, _HTML, _html(place.capitalize(), text)
    return answer


_KEEPERS = {"traces": "Jaeger", "alertmanager": "Alertmanager"}


def _that_fit(lines: Sequence[str], query: Sequence[tuple[str, str]]) -> list[str]:
    """The last lines whose fields have one of the wanted values each; all of them when nothing is asked."""
    wanted: dict[str, set[str]] = {}
    for name, value in query:
        wanted.setdefault(name, set()).add(value)
    slower = [float(value) for value in wanted.pop("slower_than", ())]
    if not wanted and not slower:
        return list(lines[-_LOG_LINES:])
    found = [line for line in lines if _fits(_fields(line), wanted, slower)]
    return found[-_LOG_LINES:]


def _fields(line: str) -> Mapping[str, Any]:
    try:
        fields = json.loads(line)
    except ValueError:
        return {}
    return fields if isinstance(fields, dict) else {}


def _fits(fields: Mapping[str, Any], wanted: Mapping[str, set[str]], slower: Sequence[float]) -> bool:
    seconds = fields.get("duration_seconds") or 0.0
    return all(fields.get(name) in values for name, values in wanted.items()) and all(seconds > one for one in slower)


def _runbooks(folder: Path) -> dict[str, Path]:
    return {file.name: file for file in sorted(folder.glob("runbooks/*.md"))}


def _boards(folder: Path) -> dict[str, dict[str, Any]]:
    boards = (json.loads(file.read_text("utf-8")) for file in sorted(folder.glob("grafana/**/*.json")))
    return {board["uid"]: board for board in boards if isinstance(board, dict) and board.get("uid")}


def _index(folder: Path) -> str:
    runbooks = [(f"/runbooks/{quote(name)}", name) for name in _runbooks(folder)]
    boards = [(f"/d/{quote(uid)}/", str(board.get("title", uid))) for uid, board in _boards(folder).items()]
    site = [("/runbooks/index.html", "All runbooks")] if (folder / "runbooks/index.html").is_file() else []
    return _html("Boards and runbooks", _list(boards) + _list(site + runbooks))


def _list(links: list[tuple[str, str]]) -> str:
    items = "".join(f'<li><a href="{escape(href)}">{escape(text)}</a></li>\n' for href, text in links)
    return f"<ul>\n{items}</ul>\n"


# --- a board ----------------------------------------------------------------------------------------------------------


def _board(board: Mapping[str, Any], prometheus_url: str | None, query: Mapping[str, str]) -> str:
    variables = {**_GRAFANA_VARIABLES, **_defaults(board), **_chosen(query)}
    chosen = ", ".join(f"{name} = {value}" for name, value in _chosen(query).items())
    head = f"<p>{escape(chosen)}</p>\n" if chosen else ""
    if prometheus_url is None:
        return _html(str(board["title"]), head + "".join(_panel(one, variables, None) for one in _panels(board)))
    with client(prometheus_url) as http:
        return _html(str(board["title"]), head + "".join(_panel(one, variables, http) for one in _panels(board)))


def _chosen(query: Mapping[str, str]) -> dict[str, str]:
    return {name.removeprefix("var-"): value for name, value in query.items() if name.startswith("var-")}


def _defaults(board: Mapping[str, Any]) -> dict[str, str]:
    """A board's variables: what it was saved with, or all."""
    defaults = {}
    for variable in board.get("templating", {}).get("list", []):
        value = (variable.get("current") or {}).get("value")
        defaults[variable["name"]] = value if isinstance(value, str) and value not in ("", "$__all") else ".*"
    return defaults


def _panels(board: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for panel in board.get("panels", []):
        if panel.get("type") == "row":
            yield from _panels(panel)
        else:
            yield panel


def _panel(panel: Mapping[str, Any], variables: Mapping[str, str], http: httpx.Client | None) -> str:
    parts = [f"<h2>{escape(_filled(str(panel.get('title', '')), variables))}</h2>\n"]
    if panel.get("description"):
        parts.append(f"<p>{escape(_filled(panel['description'], variables))}</p>\n")
    for target in panel.get("targets") or []:
        expr = target.get("expr")
        if expr:
            expr = _filled(expr, variables)
            parts.append(f"<pre>{escape(expr)}</pre>\n")
            if http is not None:
                parts.append(_values(http, expr))
    return "".join(parts)


def _filled(text: str, variables: Mapping[str, str]) -> str:
    return _VARIABLE.sub(lambda found: variables.get(found[1] or found[2], found[0]), text)


def _values(http: httpx.Client, expr: str) -> str:
    try:
        answer = http.post("/api/v1/query", data={"query": expr}).json()
    except (httpx.HTTPError, ValueError) as error:
        return f"<p>No value: {escape(str(error))}</p>\n"
    if answer.get("status") != "success":
        return f"<p>No value: {escape(str(answer.get('error')))}</p>\n"
    data = answer["data"]
    rows = data["result"] if data["resultType"] == "vector" else [{"metric": {}, "value": data["result"]}]
    if not rows:
        return "<p>No value now.</p>\n"
    cells = "".join(
        f"<tr><td>{escape(_labels(row['metric']))}</td><td>{escape(row['value'][1])}</td></tr>\n"
        for row in rows[:_SERIES_SHOWN_MAX]
    )
    more = len(rows) - _SERIES_SHOWN_MAX
    return f"<table>\n{cells}</table>\n" + (f"<p>and {more} more</p>\n" if more > 0 else "")


def _labels(labels: Mapping[str, str]) -> str:
    return ", ".join(f"{name}={value}" for name, value in sorted(labels.items()) if name != "__name__") or "value"


def _html(title: str, body: str) -> str:
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f"<title>{escape(title)}</title>\n"
        "<style>body{font-family:sans-serif;max-width:60em;margin:2em auto;padding:0 1em}"
        "pre{white-space:pre-wrap;background:#f3f3f3;color:#111;padding:.5em}"
        "td{padding:.1em 1em .1em 0}</style>\n</head>\n"
        f"<body>\n<h1>{escape(title)}</h1>\n{body}</body>\n</html>\n"
    )
