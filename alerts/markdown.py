"""The pieces of a page in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal

from slo import conventions as names
from slo.windows import MINUTE


@dataclass(frozen=True, slots=True)
class Query:
    """A query to paste.

    Attributes:
        asks: What it answers, and what the answer means.
        expr: PromQL.
    """

    asks: str
    expr: str

    def __str__(self) -> str:
        return f"{self.asks}\n\n```promql\n{self.expr}\n```"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; a bar within a cell breaks none."""
    lines = [head, ["---"] * len(head), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def bullets(items: Iterable[str]) -> str:
    """A list."""
    return "\n".join(f"- {item}" for item in items)


def command(text: str) -> str:
    """What a shell runs."""
    return f"```sh\n{text}\n```"


def percent(share: Decimal) -> str:
    """A share in percent."""
    return f"{names.number(share * 100)} %"


def whole_seconds(length: timedelta) -> str:
    """A duration for people; under a minute to the millisecond."""
    return names.duration(timedelta(seconds=length // timedelta(seconds=1)) if length >= MINUTE else length)


def link(title: str, url: str) -> str:
    """A link; in angle brackets where the URL has parentheses of its own."""
    return f"[{title}](<{url}>)" if "(" in url else f"[{title}]({url})"


def commands(lines: Iterable[str]) -> str:
    """Commands of a definition, each below what it tells."""
    return command("\n".join(map(_commented, lines)))


def _commented(line: str) -> str:
    text, _, comment = line.partition("  # ")
    return f"# {comment}\n{text}" if comment else text
