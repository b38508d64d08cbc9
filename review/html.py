"""A review as one HTML page that needs nothing else: opened from disk, mailed, printed, archived."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from html import escape
from pathlib import Path

from review import charts, sentences, words
from review.budget import FORECAST_METHOD
from review.model import Budget, Review, SloReview, recorded_sum
from slo import conventions as names
from slo.model import period_text

_STYLE = Path(__file__).with_name("page.css")
_LOW, _HALF = 0.25, 0.5


def page(review: Review) -> str:
    """The whole page."""
    return "".join(f"{part}\n" for part in _page(review))


def _page(review: Review) -> Iterator[str]:
    title = f"Error budgets up to {words.full_moment(review.at)}"
    yield "<!DOCTYPE html>"
    yield '<html lang="en"><head><meta charset="utf-8"/>'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1"/>'
    yield '<meta name="color-scheme" content="light dark"/>'
    yield f"<title>{escape(title)}</title><style>{_STYLE.read_text()}</style></head><body>"
    yield charts.PATTERNS
    yield f'<header><p class="over">Error budget review</p><h1>{escape(_sentence(sentences.headline(review)))}</h1>'
    yield (
        f"<p>Up to <strong>{words.full_moment(review.at)}</strong>, over {escape(review.window)}. "
        f"Source: {escape(_shown_source(review.source))}</p></header>"
    )
    yield from _remarks(review)
    yield "<main>"
    yield from _summary(review.slos)
    for number, one in enumerate(review.slos, start=1):
        yield from _slo(f"slo{number}", one)
    yield "</main>"
    yield from _footer()
    yield "</body></html>"


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + "."


def _shown_source(source: str) -> str:
    """The host: a page that nothing can be fetched from holds no address either."""
    return source.partition("://")[2] or source


def _remarks(review: Review) -> Iterator[str]:
    if review.partial:
        said = f"<strong>{escape(sentences.PARTIAL)}</strong>{_list(review.warnings)}"
        yield f'<aside class="partial" role="alert">{said}</aside>'
    if review.notes:
        yield f'<aside class="notes">{_list(review.notes)}</aside>'


def _list(items: Iterable[str]) -> str:
    return f"<ul>{''.join(f'<li>{escape(item)}</li>' for item in items)}</ul>"


# --- all SLOs -------------------------------------------------------------------------------------------------------


def _summary(slos: Sequence[SloReview]) -> Iterator[str]:
    yield '<section><h2 class="quiet">All SLOs, the least budget left first</h2>'
    yield '<div class="wide" tabindex="0"><table class="summary">'
    heads = ("SLO", "Objective", "Left", "Bad events", "Trend", "Forecast", "Incidents", "Pages")
    yield f"{_heads(heads)}<tbody>"
    for number, one in enumerate(slos, start=1):
        slo = one.compiled.slo
        left = one.budget.left if one.budget else None
        pages = [firing for firing in one.firings if firing.severity == "page" and not firing.absence]
        needless = sum(firing.for_nothing for firing in pages)
        yield (
            f'<tr><th scope="row"><a href="#slo{number}">{escape(slo.id_path)}</a></th>'
            f"<td>{names.number(slo.objective)} %</td>"
            f'<td class="left">{charts.bar(left)}{_left(one)}</td>'
            f"<td>{escape(sentences.events_text(one))}{_small(sentences.minutes_text(one))}</td>"
            f"<td>{escape(sentences.trend_text(one))}</td><td>{escape(sentences.forecast_text(one))}</td>"
            f"<td>{len(one.incidents) or '-'}</td>"
            f"<td>{len(pages) or '-'}{f' ({needless} for nothing)' if needless else ''}</td></tr>"
        )
    yield "</tbody></table></div></section>"


def _small(text: str) -> str:
    return "" if text == sentences.NOTHING else f"<br/><small>{escape(text)}</small>"


def _left(one: SloReview) -> str:
    kind, meaning = _state(one)
    shown = f"{_glyph(one)} {sentences.left_text(one)}"
    return f'<span class="{kind}">{shown}<span class="hidden">, {meaning}</span></span>'


def _state(one: SloReview) -> tuple[str, str]:
    """The CSS class and the words of a budget's state."""
    if one.budget is None:
        return "unknown", "no data"
    left = one.budget.left
    if left <= 0:
        return "gone", "the budget is gone"
    if left <= _LOW:
        return "low", "a quarter or less is left"
    return ("half", "half or less is left") if left <= _HALF else ("fine", "more than half is left")


def _glyph(one: SloReview) -> str:
    """A mark that empties with the budget: read without colour."""
    return {"fine": "●", "half": "◐", "low": "◔", "gone": "○", "unknown": "?"}[_state(one)[0]]


# --- one SLO --------------------------------------------------------------------------------------------------------


def _slo(key: str, one: SloReview) -> Iterator[str]:
    slo = one.compiled.slo
    yield f'<article id="{key}"><header><h2>{escape(slo.id_path)}</h2>'
    yield (
        f"<p>{escape(slo.description)} <strong>{names.number(slo.objective)} %</strong> over "
        f"{escape(period_text(slo.window))}; owner {escape(slo.owner)}.</p></header>"
    )
    if one.budget is None:
        yield '<p class="unknown">There is no data in the whole period, so nothing is known of this promise.</p>'
    else:
        yield _figures(one)
        yield from _charts(key, one, one.budget)
    remarks = [text for text in (sentences.gaps_text(one), sentences.rest_text(one)) if text]
    if remarks:
        yield f'<ul class="remarks">{"".join(f"<li>{escape(_sentence(text))}</li>" for text in remarks)}</ul>'
    yield from _incidents(one)
    yield from _firings(one)
    yield from _adjustments(one)
    if one.budget:
        yield from _by_day(one, one.budget)
    yield "</article>"


def _figures(one: SloReview) -> str:
    figures = {
        "left": _left(one),
        "bad events": escape(sentences.events_text(one)),
        "minutes of full outage": escape(sentences.minutes_text(one)),
        "trend": escape(sentences.trend_text(one)),
        "forecast": escape(sentences.forecast_text(one)),
    }
    return f'<dl class="figures">{"".join(f"<div><dt>{k}</dt><dd>{v}</dd></div>" for k, v in figures.items())}</dl>'


def _charts(key: str, one: SloReview, budget: Budget) -> Iterator[str]:
    axis = charts.Axis(budget.period)
    excluded = [applied.adjustment.span for applied in one.adjustments]
    recorded_seconds = budget.recorded * one.windows.span.seconds
    per_second = float(budget.ratio) * budget.all_events / recorded_seconds
    yield "<figure><figcaption>Budget left"
    yield '<span class="key"><i class="incident"></i>incident<i class="gap"></i>no data<i class="excluded"></i>'
    yield "does not count</span></figcaption>"
    yield charts.burn_down(key, axis, budget.burn_down, incidents=one.incidents, gaps=one.gaps, excluded=excluded)
    yield "</figure>"
    yield f"<figure><figcaption>Burn by hour (UTC){charts.heat_legend()}</figcaption>"
    yield charts.heat_map(key, axis, one.windows, per_second) + "</figure>"
    yield "<figure><figcaption>Events by hour, logarithmic</figcaption>"
    yield charts.events(key, axis, one.windows) + "</figure>"


def _heads(heads: Sequence[str]) -> str:
    cells = "".join(f'<th scope="col">{head}</th>' for head in heads)
    return f"<thead><tr>{cells}</tr></thead>"


def _table(caption: str, heads: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """A table of safe HTML; the first cell of a row names it."""
    yield f'<div class="wide" tabindex="0"><table><caption>{caption}</caption>{_heads(heads)}<tbody>'
    for first, *cells in rows:
        yield f'<tr><th scope="row">{first}</th>{"".join(f"<td>{cell}</td>" for cell in cells)}</tr>'
    yield "</tbody></table></div>"


def _incidents(one: SloReview) -> Iterator[str]:
    if not one.incidents:
        return
    rows = [
        (
            str(number),
            f"{words.span(incident.span)}<br/><small>{words.length(incident.span.seconds)}</small>",
            words.percent(incident.budget_share),
            words.count(incident.bad_events),
            words.burn(incident.peak_burn),
            "<br/>".join(map(escape, sentences.why_texts(incident))) or "not known",
        )
        for number, incident in enumerate(one.incidents, start=1)
    ]
    heads = ("No.", "When (UTC)", "Of the budget", "Bad events", "Peak burn", "What is known")
    yield from _table("Incidents", heads, rows)


def _firings(one: SloReview) -> Iterator[str]:
    if not one.firings:
        return
    rows = [
        (
            escape(firing.alert),
            firing.severity,
            words.moment(firing.span.begin),
            sentences.firing_length(firing),
            f'<span class="{"low" if firing.for_nothing else ""}">{escape(sentences.firing_verdict(firing))}</span>',
        )
        for firing in one.firings
    ]
    yield from _table("Alerts that fired", ("Alert", "Severity", "From (UTC)", "For", "What it told"), rows)


def _adjustments(one: SloReview) -> Iterator[str]:
    if not one.adjustments:
        return
    rows = [
        (
            words.span(applied.adjustment.span),
            f"{words.count(applied.bad_events)} of {words.count(applied.all_events)}",
            escape(applied.adjustment.reason),
            escape(applied.adjustment.approver),
        )
        for applied in one.adjustments
    ]
    caption = f"Adjustments ({escape(sentences.adjusted_text(one) or '')})"
    yield from _table(caption, ("When (UTC)", "Bad events that do not count", "Reason", "Approved by"), rows)


def _by_day(one: SloReview, budget: Budget) -> Iterator[str]:
    windows = one.windows
    left = 1.0
    rows = []
    for day in windows.groups(24 * 3600):
        bad = recorded_sum(windows.bad, day)
        left -= bad / budget.budget_events if budget.budget_events else 0.0
        known = sum(windows.recorded(index) for index in day) / len(day)
        begin = datetime.fromtimestamp(windows.window(day[0]).begin, UTC)
        rows.append(
            (
                f"{begin:%a} {begin.day} {begin:%b}",
                words.count(recorded_sum(windows.all, day)),
                words.count(bad),
                words.percent(left),
                "all" if math.isclose(known, 1.0) else f"{known:.0%}",
            )
        )
    yield "<details><summary>Figures by day</summary>"
    yield from _table("By day (UTC)", ("Day", "Events", "Bad events", "Left at its end", "Data"), rows)
    yield "</details>"


def _footer() -> Iterator[str]:
    yield "<footer><h2>How to read this</h2>"
    yield _list(
        [
            "Every figure is counted in events: a bad event of a busy hour weighs as much as one of a quiet night.",
            "Minutes are minutes of full outage at even traffic that cost the same.",
            "A burn of 1 x spends exactly the budget over the period.",
            "An incident is a stretch in which the promise is broken and half a percent of the budget or more goes.",
            "Begin and end of an incident are known to five minutes.",
            "An alert was for nothing when hardly any budget went (under 0.5 %) and fewer than 50 events were bad.",
            FORECAST_METHOD,
            "All times are UTC.",
        ]
    )
    yield "</footer>"
