"""The places that an alert's links lead to, served from generated files: runbooks as text, boards as plain pages."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from html import escape
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlsplit

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
        )

    def show(self, *, prometheus_url: str | None = None, log: Path | None = None) -> None:
        """From now on, boards show live values from this Prometheus, and `/logs` the end of this file."""
        self._sources.prometheus_url = prometheus_url
        self._sources.log = log


@contextmanager
def pages(folder: Path) -> Iterator[Pages]:
    """Serve the runbooks and boards of a folder like `generated/` while the block runs.

    `/runbooks/NAME.md` is `runbooks/NAME.md`. `/d/UID/...` is the board with that uid, wherever below `grafana/` it
    lies: each panel's title, description and query, and its value now when there is a Prometheus. Files are read at
    each request.
    """
    sources = _Sources()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            url = urlsplit(self.path)
            answer = _page(folder, sources, unquote(url.path), dict(parse_qsl(url.query)))
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


def _page(folder: Path, sources: _Sources, path: str, query: Mapping[str, str]) -> _Answer | None:
    # Names are looked up among what is there, never joined to a path: nothing outside can be reached.
    match path.strip("/").split("/"):
        case [""]:
            return HTTPStatus.OK, _HTML, _index(folder)
        case ["runbooks", name] if name in (runbooks := _runbooks(folder)):
            return HTTPStatus.OK, _MARKDOWN, runbooks[name].read_text("utf-8")
        case ["d", uid, *_] if uid in (boards := _boards(folder)):
            return HTTPStatus.OK, _HTML, _board(boards[uid], sources.prometheus_url, query)
        case ["logs"] if sources.log is not None and sources.log.is_file():
            lines = sources.log.read_text("utf-8", "replace").splitlines()[-_LOG_LINES:]
            return HTTPStatus.OK, _TEXT, "\n".join(lines) + "\n"
    return None


def _runbooks(folder: Path) -> dict[str, Path]:
    return {file.name: file for file in sorted(folder.glob("runbooks/*.md"))}


def _boards(folder: Path) -> dict[str, dict[str, Any]]:
    boards = (json.loads(file.read_text("utf-8")) for file in sorted(folder.glob("grafana/**/*.json")))
    return {board["uid"]: board for board in boards if isinstance(board, dict) and board.get("uid")}


def _index(folder: Path) -> str:
    runbooks = [(f"/runbooks/{quote(name)}", name) for name in _runbooks(folder)]
    boards = [(f"/d/{quote(uid)}/", str(board.get("title", uid))) for uid, board in _boards(folder).items()]
    return _html("Boards and runbooks", _list(boards) + _list(runbooks))


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
