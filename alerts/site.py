"""All runbooks on one page: it opens from a disk, without a server and without a network, as they may be what is down.

Nothing is loaded from elsewhere. Without its script the page is whole, with an index; the script only searches.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from functools import cache, lru_cache
from html import escape
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

from alerts.runbooks import FOLDER, INDEX
from slo.artefacts import Artefact

PATH = FOLDER / "index.html"

_FILES = Path(__file__).parent / "page"
_COMMENT = re.compile(r"\A<!--.*?-->\s*", re.DOTALL)
# Blocks of a runbook are what blank lines part; within a fence of code there are none.
_BLOCKS = re.compile(r"\n{2,}")
_BLOCKS_CACHED = 65_536  # the general advice is the same in most runbooks


def render(runbooks: Sequence[Artefact]) -> list[Artefact]:
    """The page of these runbooks, whose index is among them.

    Each has its alert's name as its anchor: `index.html#RedemptionAvailabilityPage`.
    """
    texts = {runbook.path.name: runbook.text for runbook in runbooks}
    index = _html(texts.pop(INDEX))
    articles = "\n".join(
        f'<article id="{escape(name.removesuffix(".md"))}">\n{_html(text)}</article>' for name, text in texts.items()
    )
    style, script = _file("site.css"), _file("site.js")
    page = _file("site.html")
    for name, value in {
        "policy": f"default-src 'none'; style-src '{_sha256(style)}'; script-src '{_sha256(script)}'",
        "style": style,
        "script": script,
        "index": index,
        "articles": articles,
    }.items():
        page = page.replace(f"<!-- {name} -->", value)
    return [Artefact(PATH, page)]


@cache
def _file(name: str) -> str:
    return (_FILES / name).read_text("utf-8").strip()


def _sha256(text: str) -> str:
    """What a content security policy allows: this very script, and no other."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _html(markdown: str) -> str:
    return "".join(map(_block, _BLOCKS.split(_COMMENT.sub("", markdown).strip())))


@lru_cache(maxsize=_BLOCKS_CACHED)
def _block(markdown: str) -> str:
    parser = _parser()
    tokens = parser.parse(markdown)
    for token in tokens:
        _fit(token)
    html: str = parser.renderer.render(tokens, parser.options, {})
    return html


@cache
def _parser() -> MarkdownIt:
    return MarkdownIt("commonmark", {"html": False}).enable("table")


def _fit(token: Token) -> None:
    """One level deeper, as the page has a title of its own; and links between runbooks stay on the page."""
    if token.type in ("heading_open", "heading_close"):
        token.tag = f"h{int(token.tag[1]) + 1}"
    for child in token.children or ():
        href = child.attrs.get("href")
        if isinstance(href, str) and re.fullmatch(r"[^:/]+\.md", href):
            child.attrs["href"] = "#top" if href == INDEX else f"#{href.removesuffix('.md')}"
