"""A review on a terminal, and as Markdown."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from review import sentences, words
from review.budget import FORECAST_METHOD
from review.model import Review, SloReview
from slo import conventions as names

_FILE_COLUMNS = 160


# --- terminal -------------------------------------------------------------------------------------------------------

_COLUMNS = ("SLO", "objective", "left", "", "bad events", "minutes", "trend", "forecast")
_BAR = 10


def print_table(review: Review, console: Console) -> None:
    """The review on a terminal."""
    console.print(f"[bold]Error budgets[/] up to {words.full_moment(review.at)}, {escape(review.window)}")
    console.print(sentences.headline(review))
    for warning in review.warnings:
        console.print(f"[bold yellow]{sentences.PARTIAL}[/] {escape(warning)}")
    for note in review.notes:
        console.print(f"[yellow]note:[/] {escape(note)}")
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in _COLUMNS:
        # On a narrow terminal the last columns go on in a second line; figures never do.
        table.add_column(column, no_wrap=column not in {"trend", "forecast"})
    for one in review.slos:
        colour = _colour(one)
        table.add_row(
            escape(one.compiled.slo.id_path),
            f"{names.number(one.compiled.slo.objective)} %",
            f"[{colour}]{sentences.left_text(one)}[/]",
            f"[{colour}]{bar(one)}[/]",
            sentences.events_text(one),
            sentences.minutes_text(one),
            sentences.trend_text(one),
            sentences.forecast_text(one),
        )
    console.print(table)
    for one in filter(sentences.has_story, review.slos):
        console.print(f"\n[bold]{escape(one.compiled.slo.id_path)}[/]")
        for line in sentences.lines(one):
            console.print(f"  {line}", markup=False)


def _colour(one: SloReview) -> str:
    if one.budget is None:
        return "magenta"
    return "red" if one.budget.left <= 0 else "yellow" if one.budget.left <= 0.25 else "green"  # noqa: PLR2004


def bar(one: SloReview) -> str:
    """What is left, as a bar of ten blocks."""
    if one.budget is None:
        return "?" * _BAR
    full = round(_BAR * min(1.0, max(0.0, one.budget.left)))
    return "█" * full + "░" * (_BAR - full)


def table_text(review: Review) -> str:
    """The same without a terminal, for a file."""
    text = io.StringIO()
    print_table(review, Console(file=text, width=_FILE_COLUMNS, soft_wrap=True, highlight=False, emoji=False))
    return text.getvalue()


# --- Markdown -------------------------------------------------------------------------------------------------------


def markdown(review: Review) -> str:
    """The review for a wiki, an issue or a chat."""
    return "\n".join(_markdown(review)) + "\n"


def _markdown(review: Review) -> Iterator[str]:
    yield f"# Error budgets up to {words.full_moment(review.at)}"
    yield ""
    yield f"{sentences.headline(review)}. Period: {review.window}. Source: {review.source}"
    yield ""
    if review.partial:
        yield f"> **{sentences.PARTIAL}**"
        yield from (f"> - {_cell(warning)}" for warning in review.warnings)
        yield ""
    yield from (f"> {_cell(note)}\n" for note in review.notes)
    yield _row([column or "bar" for column in _COLUMNS])
    yield _row(["---"] * len(_COLUMNS))
    for one in review.slos:
        yield _row(
            [
                one.compiled.slo.id_path,
                f"{names.number(one.compiled.slo.objective)} %",
                sentences.left_text(one),
                bar(one),
                sentences.events_text(one),
                sentences.minutes_text(one),
                sentences.trend_text(one),
                sentences.forecast_text(one),
            ]
        )
    for one in filter(sentences.has_story, review.slos):
        yield ""
        yield f"## {one.compiled.slo.id_path}"
        yield ""
        for line in sentences.lines(one):
            yield f"{'  ' if line.startswith('  ') else ''}- {_cell(line.strip())}"
    yield ""
    yield f"_{FORECAST_METHOD}_"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(map(_cell, cells))} |"


def _cell(text: str) -> str:
    """Text that Markdown takes as it is."""
    for special in ("\\", "|", "*", "_", "`", "<", "[", "]"):
        text = text.replace(special, f"\\{special}")
    return " ".join(text.split())
