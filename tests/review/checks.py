"""What must hold for a page that is opened from disk: it is whole, and needs nothing else."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html.parser import HTMLParser

_VOID = {"meta", "br", "link", "img", "hr", "input"}
_FETCHED = re.compile(r"https?://|url\((?!#)|@import|<script|<link|<img|<iframe|src=", re.IGNORECASE)
_REFERENCES = ("aria-labelledby", "aria-describedby")


class _Reader(HTMLParser):
    """Collects ids, references and tags that are not closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.references: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.problems: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if given.get("id"):
            self.ids.append(str(given["id"]))
        self.references += [str(given[name]) for name in _REFERENCES if given.get(name)]
        if (given.get("href") or "").startswith("#"):
            self.references.append(str(given["href"])[1:])
        if tag == "svg":
            self.images.append(given)
        if tag not in _VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in _VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open[-1] != tag:
            self.problems.append(f"</{tag}> closes {self.open[-1:] or 'nothing'} in line {self.getpos()[0]}")
        else:
            self.open.pop()


def problems_of_page(text: str) -> list[str]:
    """Everything that is wrong with a page."""
    return list(_problems(text))


def _problems(text: str) -> Iterator[str]:
    reader = _Reader()
    reader.feed(text)
    yield from reader.problems
    if reader.open:
        yield f"not closed: {reader.open}"
    twice = {one for one in reader.ids if reader.ids.count(one) > 1}
    if twice:
        yield f"ids that are there twice: {sorted(twice)}"
    missing = set(reader.references) - set(reader.ids)
    if missing:
        yield f"references to nothing: {sorted(missing)}"
    fetched = _FETCHED.search(text)
    if fetched:
        yield f"is not self-contained: {text[max(0, fetched.start() - 40) : fetched.end() + 40]!r}"
    for given in reader.images:
        if given.get("aria-hidden") != "true" and not (given.get("role") == "img" and given.get("aria-labelledby")):
            yield f"a picture without a name: {given}"
