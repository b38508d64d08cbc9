"""The console's addresses: what is answered to which path."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

from review import html
from review.console import pages
from review.console.kept import Kept
from review.console.live import DEFAULT_SPAN, History, Now, Source, spans
from review.console.pages import Frame
from slo.compile import CompiledSlo

_NOW_SECONDS = 4.0
_HISTORY_SECONDS = 8.0
_HISTORIES_MAX = 64
_READERS_MAX = 2
_FIELDS_MAX = 10
_TEXT_MAX = 100

_HERE = Path(__file__).parent
# The look of a review, and what only the console has.
_FILES: Mapping[str, tuple[str, tuple[Path, ...]]] = {
    "/console.css": ("text/css; charset=utf-8", (Path(html.__file__).with_name("page.css"), _HERE / "console.css")),
    "/console.js": ("text/javascript; charset=utf-8", (_HERE / "console.js",)),
    "/icon.svg": ("image/svg+xml", (_HERE / "icon.svg",)),
}
_HTML = "text/html; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Answer:
    """What is sent back.

    Attributes:
        status: The status.
        kind: The media type.
        body: The content.
    """

    status: HTTPStatus
    kind: str
    body: bytes


class Site:
    """The pages of some SLOs; safe to be asked by many threads.

    Args:
        compiled: The SLOs.
        source: Asks Prometheus.
    """

    def __init__(self, compiled: Sequence[CompiledSlo], source: Source) -> None:
        self._slos = {pages.slo_path(one): one for one in compiled}
        self._source = source
        self._readers = threading.Semaphore(_READERS_MAX)
        self._now: Kept[Now] = Kept(partial(source.now, tuple(compiled)), _NOW_SECONDS, self._readers)
        self._histories: OrderedDict[tuple[str, str], Kept[History]] = OrderedDict()
        self._changing = threading.Lock()
        self._files = {
            path: Answer(HTTPStatus.OK, kind, b"".join(file.read_bytes() for file in files))
            for path, (kind, files) in _FILES.items()
        }

    def answer(self, target: str) -> Answer:
        """The answer to a request target, `/slo/redemption/availability?range=6h` say."""
        try:
            url = urlsplit(target)
            given = parse_qsl(url.query, max_num_fields=_FIELDS_MAX)
        except ValueError:
            return Answer(HTTPStatus.BAD_REQUEST, "text/plain; charset=utf-8", b"The address cannot be read.\n")
        path = unquote(url.path)
        if path in self._files:
            return self._files[path]
        query = {name: text.strip()[:_TEXT_MAX] for name, text in given if name in ("q", "range", "still")}
        frame = Frame(source=self._source.url, at=time.time(), path=path, query={k: v for k, v in query.items() if v})
        if path == "/":
            known = self._now.get()
            return _page(pages.list_page(frame, known), found=known.value is not None)
        if path in self._slos:
            return self._slo(frame, self._slos[path])
        body = pages.missing_page(frame, f"{path[:_TEXT_MAX]}: no SLO is defined there.")
        return Answer(HTTPStatus.NOT_FOUND, _HTML, body.encode())

    def _slo(self, frame: Frame, compiled: CompiledSlo) -> Answer:
        offered = list(spans(compiled))
        asked = frame.query.get("range", "")
        shown = asked if asked in offered else offered[min(DEFAULT_SPAN, len(offered) - 1)]
        known, history = self._now.get(), self._history(compiled, shown).get()
        return _page(pages.slo_page(frame, compiled, shown, known, history), found=known.value is not None)

    def _history(self, compiled: CompiledSlo, shown: str) -> Kept[History]:
        key = compiled.slo.id, shown
        with self._changing:
            if key not in self._histories:
                read = partial(self._source.history, compiled, spans(compiled)[shown])
                self._histories[key] = Kept(read, _HISTORY_SECONDS, self._readers)
            self._histories.move_to_end(key)
            while len(self._histories) > _HISTORIES_MAX:
                self._histories.popitem(last=False)
            return self._histories[key]


def _page(text: str, *, found: bool) -> Answer:
    status = HTTPStatus.OK if found else HTTPStatus.SERVICE_UNAVAILABLE
    # Labels and texts of alerts are other people's; half a surrogate pair among them must not end the page.
    return Answer(status, _HTML, text.encode("utf-8", "replace"))
