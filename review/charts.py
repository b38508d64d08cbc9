"""Charts as inline SVG: text from numbers, no script, no assets; pure.

All charts of an SLO share their time axis. Nothing is told by colour alone: incidents are hatched and numbered, a
heat map's marks grow with the burn, and every chart has a title and a description for those who cannot see it. Colours
are CSS variables of the page, so that one drawing suits light, dark and paper.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape

from review import words
from review.model import EventWindows, Incident, Span, recorded_sum

WIDTH = 860
_LEFT, _RIGHT = 56, 12
_PLOT = WIDTH - _LEFT - _RIGHT
_DAY, _HOUR = 86_400.0, 3_600.0
_DAY_LABELS_MAX = 16
_LOWEST_SHOWN = -1.0  # more than twice the budget looks like twice; the figures tell the rest

BURN_LEVELS = (1.0, 3.0, 6.0, 14.4)
"""Burn rates from which an hour's mark grows: the factors of the burn-rate alerts on 30 days (slo/windows.py)."""


@dataclass(frozen=True, slots=True)
class Axis:
    """The time axis.

    Attributes:
        span: From where to where.
    """

    span: Span

    def x(self, at: float) -> float:
        """Where a moment is, kept inside of the plot."""
        share = (at - self.span.begin) / self.span.seconds
        return _LEFT + _PLOT * min(1.0, max(0.0, share))

    def days(self) -> list[float]:
        """Every midnight (UTC) inside of it."""
        first = math.ceil(self.span.begin / _DAY) * _DAY
        return [first + number * _DAY for number in range(max(0, math.floor((self.span.end - first) / _DAY) + 1))]


def _n(value: float) -> str:
    """A coordinate, to a tenth of a pixel."""
    return f"{value:.1f}".removesuffix(".0")


def _svg(key: str, height: float, title: str, description: str, parts: Iterable[str]) -> str:
    return (
        f'<svg class="chart" viewBox="0 0 {WIDTH} {_n(height)}" role="img" '
        f'aria-labelledby="{key}-title" aria-describedby="{key}-desc">'
        f'<title id="{key}-title">{escape(title)}</title><desc id="{key}-desc">{escape(description)}</desc>'
        f"{''.join(parts)}</svg>"
    )


def _text(x: float, y: float, text: str, kind: str = "", anchor: str = "middle") -> str:
    kinds = f"tick {kind}".strip()
    return f'<text x="{_n(x)}" y="{_n(y)}" class="{kinds}" text-anchor="{anchor}">{escape(text)}</text>'


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<path class="{kind}" d="M{_n(x1)} {_n(y1)}L{_n(x2)} {_n(y2)}"/>'


def _band(axis: Axis, span: Span, top: float, bottom: float, kind: str) -> str:
    x = axis.x(span.begin)
    width = max(2.0, axis.x(span.end) - x)  # a short incident must still be seen
    return f'<rect class="{kind}" x="{_n(x)}" y="{_n(top)}" width="{_n(width)}" height="{_n(bottom - top)}"/>'


def _day_ticks(axis: Axis, top: float, bottom: float, *, labels: bool = True) -> Iterator[str]:
    days = axis.days()
    every = max(1, math.ceil(len(days) / _DAY_LABELS_MAX))
    for number, at in enumerate(days):
        x = axis.x(at)
        if number % every == 0:
            yield _line(x, top, x, bottom, "grid")
            if labels:
                day = datetime.fromtimestamp(at, UTC)
                yield _text(x, bottom + 14, f"{day.day} {day:%b}" if number == 0 or day.day <= every else f"{day.day}")


# --- how the budget went --------------------------------------------------------------------------------------------

_BURN_DOWN_HEIGHT = 220.0
_TOP, _BOTTOM = 22.0, 196.0


def burn_down(  # noqa: PLR0913 - what is drawn
    key: str,
    axis: Axis,
    points: Sequence[tuple[float, float]],
    *,
    incidents: Sequence[Incident],
    gaps: Sequence[Span],
    excluded: Sequence[Span],
) -> str:
    """What was left of the budget over the period.

    Args:
        key: Makes the ids of the drawing unique within a page.
        axis: The period.
        points: Time, and share of the budget that was left.
        incidents: Drawn as hatched bands with their numbers.
        gaps: Stretches without data.
        excluded: Stretches that do not count.
    """
    lowest = max(_LOWEST_SHOWN, min(0.0, *(left for _, left in points)))

    def y(left: float) -> float:
        return _TOP + (_BOTTOM - _TOP) * (1 - max(lowest, left)) / (1 - lowest)

    parts = [*_day_ticks(axis, _TOP, _BOTTOM)]
    levels = [level for level in (1.0, 0.5, 0.25, 0.0, -0.5, -1.0) if level >= lowest]
    for level in levels:
        parts += [
            _line(_LEFT, y(level), _LEFT + _PLOT, y(level), "zero" if level == 0 else "grid"),
            _text(_LEFT - 6, y(level) + 4, f"{level:.0%}".replace("-", "\N{MINUS SIGN}"), anchor="end"),
        ]
    parts += [_band(axis, gap, _TOP, _BOTTOM, "gap") for gap in gaps]
    parts += [_band(axis, span, _TOP, _BOTTOM, "excluded") for span in excluded]
    for number, incident in enumerate(incidents, start=1):
        middle = (axis.x(incident.span.begin) + axis.x(incident.span.end)) / 2
        parts += [
            _band(axis, incident.span, _TOP, _BOTTOM, "incident"),
            _text(middle, _TOP - 7, str(number), "number"),
        ]
    path = "L".join(f"{_n(axis.x(at))} {_n(y(left))}" for at, left in _thinned(points))
    first, last = (f"{_n(axis.x(at))} {_n(y(0.0))}" for at in (points[0][0], points[-1][0]))
    parts += [f'<path class="area" d="M{first}L{path}L{last}Z"/>', f'<path class="line" d="M{path}"/>']
    end = points[-1][1]
    description = (
        f"From {words.full_moment(points[0][0])} to {words.full_moment(points[-1][0])}: {words.percent(end)} is left. "
        f"{words.plural(len(incidents), 'incident')}, {words.plural(len(gaps), 'stretch', 'stretches')} without data."
    )
    if min(left for _, left in points) < lowest:
        parts.append(_text(_LEFT + _PLOT, _BOTTOM - 6, f"down to {words.percent(end)}", anchor="end"))
    return _svg(f"{key}-left", _BURN_DOWN_HEIGHT, "Budget left", description, parts)


def _thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Without the points between two that are the same: a flat line needs two."""
    return [
        point
        for number, point in enumerate(points)
        if number in (0, len(points) - 1) or not points[number - 1][1] == point[1] == points[number + 1][1]
    ]


# --- the burn, hour by hour -----------------------------------------------------------------------------------------

_CELL = 8.0
_MARK_WIDTH_MAX = 48.0
_HOUR_KNOWN_MIN = 0.5
_MARKS = (0.3, 0.5, 0.75, 1.0)  # the side of a mark, of that of its cell


def heat_map(key: str, axis: Axis, windows: EventWindows, per_second: float) -> str:
    """The burn of every hour: a column a day, a row an hour (UTC), a mark that grows and darkens with the burn.

    Args:
        key: Makes the ids of the drawing unique within a page.
        axis: The period.
        windows: What counts.
        per_second: Bad events per second that the budget allows.
    """
    top, bottom = 8.0, 8.0 + 24 * _CELL
    marks: list[list[str]] = [[] for _ in BURN_LEVELS]
    missing: list[str] = []
    hours_by_level = [0] * len(BURN_LEVELS)
    for hour in windows.groups(_HOUR):
        begin = windows.window(hour[0]).begin
        day = math.floor(begin / _DAY) * _DAY
        row = math.floor((begin - day) / _HOUR)
        x, right = axis.x(day), axis.x(day + _DAY)
        y = top + row * _CELL
        known = [index for index in hour if windows.recorded(index)]
        if len(known) < _HOUR_KNOWN_MIN * len(hour):
            missing.append(f"M{_n(x)} {_n(y + _CELL / 2)}h{_n(right - x)}")
            continue
        allowed = per_second * len(known) * windows.step_seconds
        burn = recorded_sum(windows.bad_sharp, hour) / allowed if allowed else 0.0
        level = sum(burn >= edge for edge in BURN_LEVELS) - 1
        if level < 0:
            continue
        hours_by_level[level] += 1
        side = _MARKS[level]
        wide, high = min(right - x - 1, _MARK_WIDTH_MAX) * side, (_CELL - 1) * side
        middle_x, middle_y = (x + right) / 2, y + _CELL / 2
        marks[level].append(f"M{_n(middle_x - wide / 2)} {_n(middle_y - high / 2)}h{_n(wide)}v{_n(high)}h{_n(-wide)}z")
    parts = [f'<rect class="ground" x="{_LEFT}" y="{_n(top)}" width="{_n(_PLOT)}" height="{_n(bottom - top)}"/>']
    parts += _day_ticks(axis, top, bottom)
    for row in (0, 6, 12, 18):
        parts.append(_text(_LEFT - 6, top + row * _CELL + 8, f"{row:02d}:00", anchor="end"))
        parts.append(_line(_LEFT, top + row * _CELL, _LEFT + _PLOT, top + row * _CELL, "grid"))
    if missing:
        parts.append(f'<path class="missing" d="{"".join(missing)}"/>')
    parts += [f'<path class="burn{level}" d="{"".join(some)}"/>' for level, some in enumerate(marks, start=1) if some]
    levels = zip(BURN_LEVELS, hours_by_level, strict=True)
    counts = ", ".join(f"{words.plural(hours, 'hour')} of {edge:g} x and more" for edge, hours in levels)
    return _svg(f"{key}-burn", bottom + 22, "Burn by hour", f"{counts}; {len(missing)} hours without data.", parts)


def heat_legend() -> str:
    """What the marks mean."""
    parts = []
    x = 4.0
    for level, edge in enumerate(BURN_LEVELS, start=1):
        side = (_CELL + 4) * _MARKS[level - 1]
        parts.append(
            f'<rect class="burn{level}" x="{_n(x + 6 - side / 2)}" y="{_n(10 - side / 2)}" width="{_n(side)}" '
            f'height="{_n(side)}"/>' + _text(x + 18, 14, f"{edge:g} x and more", anchor="start")
        )
        x += 114
    x += 12
    parts.append(f'<path class="missing" d="M{_n(x)} 10h14"/>' + _text(x + 20, 14, "no data", anchor="start"))
    return f'<svg class="legend" viewBox="0 0 572 20" aria-hidden="true">{"".join(parts)}</svg>'


# --- the events -----------------------------------------------------------------------------------------------------

_EVENTS_TOP, _EVENTS_MIDDLE, _EVENTS_BOTTOM = 16.0, 76.0, 128.0


def events(key: str, axis: Axis, windows: EventWindows) -> str:
    """All events of every hour upwards, the bad ones downwards; logarithmic, so that a sale does not hide the days."""
    every: list[tuple[float, float]] = []
    bad: list[tuple[float, float]] = []
    for hour in windows.groups(_HOUR):
        begin = windows.window(hour[0]).begin
        if any(windows.recorded(index) for index in hour):
            every.append((begin, recorded_sum(windows.all, hour)))
            bad.append((begin, recorded_sum(windows.bad, hour)))
    most, most_bad = (max((value for _, value in some), default=0.0) for some in (every, bad))
    parts = [*_day_ticks(axis, _EVENTS_TOP, _EVENTS_BOTTOM)]
    parts += [
        _bars(axis, every, most, _EVENTS_TOP - _EVENTS_MIDDLE, "all"),
        _bars(axis, bad, most_bad, _EVENTS_BOTTOM - _EVENTS_MIDDLE, "bad"),
        _line(_LEFT, _EVENTS_MIDDLE, _LEFT + _PLOT, _EVENTS_MIDDLE, "zero"),
        _text(_LEFT - 6, _EVENTS_TOP + 8, words.count(most), anchor="end"),
        _text(_LEFT - 6, _EVENTS_MIDDLE - 6, "all", anchor="end"),
        _text(_LEFT - 6, _EVENTS_MIDDLE + 14, "bad", anchor="end"),
        _text(_LEFT - 6, _EVENTS_BOTTOM, words.count(most_bad), anchor="end"),
    ]
    description = f"At most {words.count(most)} events in an hour, and at most {words.count(most_bad)} bad ones."
    return _svg(f"{key}-events", _EVENTS_BOTTOM + 22, "Events by hour, logarithmic", description, parts)


def _bars(axis: Axis, values: Sequence[tuple[float, float]], most: float, height: float, kind: str) -> str:
    width, base = axis.x(axis.span.begin + _HOUR) - _LEFT, _n(_EVENTS_MIDDLE)
    bars = "".join(
        f"M{_n(axis.x(at))} {base}v{_n(height * math.log1p(value) / math.log1p(most))}h{_n(max(0.6, width))}V{base}z"
        for at, value in values
        if most and value
    )
    return f'<path class="{kind}" d="{bars}"/>' if bars else ""


def bar(left: float | None) -> str:
    """What is left of a budget, for a table: a filled part, hatched when it is overdrawn."""
    if left is None:
        inner = '<path class="missing" d="M2 7h96"/>'
    elif left <= 0:
        inner = '<rect class="incident" x="1" y="1" width="98" height="12"/>'
    else:
        inner = f'<rect class="fill" x="1" y="1" width="{_n(98 * min(1.0, left))}" height="12"/>'
    return (
        '<svg class="bar" viewBox="0 0 100 14" aria-hidden="true">'
        f'<rect class="frame" x="0.5" y="0.5" width="99" height="13"/>{inner}</svg>'
    )


PATTERNS = (
    '<svg class="patterns" width="0" height="0" aria-hidden="true"><defs>'
    '<pattern id="hatch" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">'
    '<path class="hatch" d="M0 0V6"/></pattern>'
    '<pattern id="dots" width="6" height="6" patternUnits="userSpaceOnUse"><circle class="dot" cx="2" cy="2" r="1"/>'
    '</pattern><pattern id="cross" width="7" height="7" patternUnits="userSpaceOnUse">'
    '<path class="cross" d="M0 0L7 7M7 0L0 7"/></pattern></defs></svg>'
)
"""Hatched: an incident. Dotted: no data. Crossed: does not count. Once a page."""
