"""Charts of one SLO over a while, as inline SVG in the look of `review.charts`; pure.

Nothing is told by colour alone: lines are solid or dashed and named, limits are labelled where they are drawn, and
each chart has a title and a description in words.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape

from review.charts import WIDTH, Axis
from review.console.live import Points

_TOP, _PLOT_HEIGHT, _BELOW = 12.0, 120.0, 22.0
_TICKS_MAX = 9
_GAP_STEPS = 2.5  # one point may be missing since a rule ran late

_MINUTE, _HOUR, _DAY = 60, 3_600, 86_400
_TICK_SECONDS = (
    *(5, 10, 30),
    *(_MINUTE, 2 * _MINUTE, 5 * _MINUTE, 10 * _MINUTE, 30 * _MINUTE),
    *(_HOUR, 2 * _HOUR, 3 * _HOUR, 6 * _HOUR, 12 * _HOUR),
    *(_DAY, 2 * _DAY, 5 * _DAY, 10 * _DAY, 50 * _DAY),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """Values over time.

    Attributes:
        name: What they are.
        points: The values.
        dashed: How they are told from those of another line.
    """

    name: str
    points: Points
    dashed: bool = False


@dataclass(frozen=True, slots=True)
class Limit:
    """A value that matters.

    Attributes:
        name: What it is.
        value: Where it is drawn.
    """

    name: str
    value: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """The vertical axis.

    Attributes:
        low: The value at the bottom.
        high: The value at the top, above `low`. What is beyond either is drawn at the edge.
        text: A value in words.
        middle: Whether the value in the middle is labelled as well.
    """

    low: float
    high: float
    text: Callable[[float], str]
    middle: bool = True

    def y(self, value: float) -> float:
        """Where a value is, kept inside of the plot."""
        share = (value - self.low) / (self.high - self.low)
        return _TOP + _PLOT_HEIGHT * (1 - min(1.0, max(0.0, share)))

    def ticks(self) -> list[float]:
        """The values that are labelled."""
        return [self.low, *([(self.low + self.high) / 2] if self.middle else []), self.high]


def chart(  # noqa: PLR0913 - what is drawn
    key: str,
    title: str,
    axis: Axis,
    scale: Scale,
    lines: Sequence[Line],
    *,
    step_seconds: float,
    limits: Sequence[Limit] = (),
) -> str:
    """Lines over time.

    Args:
        key: Makes the ids of the drawing unique within a page.
        title: What it shows.
        axis: The time.
        scale: The values.
        lines: What is drawn.
        step_seconds: From a point to the next; a line has a gap where points are missing.
        limits: Labelled where they are drawn.
    """
    left, right, bottom = axis.x(axis.span.begin), axis.x(axis.span.end), _TOP + _PLOT_HEIGHT
    parts = [*_times(axis, bottom)]
    for value in scale.ticks():
        y = scale.y(value)
        parts += [_path("grid", f"M{_n(left)} {_n(y)}H{_n(right)}"), _text(left - 6, y + 4, scale.text(value), "end")]
    for limit in limits:
        y = scale.y(limit.value)
        above = y - 4 if y > _TOP + 14 else y + 13
        parts += [_path("limit", f"M{_n(left)} {_n(y)}H{_n(right)}"), _text(left + 6, above, limit.name, "start")]
    for line in lines:
        shape = "".join(_run(axis, scale, run) for run in _runs(line.points, step_seconds))
        if shape:
            parts.append(_path("line dashed" if line.dashed else "line", shape))
    values = [value for line in lines for _, value in line.points]
    beyond = [
        (f"up to {scale.text(max(values))}", _TOP + 13) if values and max(values) > scale.high else None,
        (f"down to {scale.text(min(values))}", bottom - 5) if values and min(values) < scale.low else None,
    ]
    parts += [_text(left + 6, y, text, "start") for text, y in filter(None, beyond)]
    description = " ".join(_described(line, scale) for line in lines)
    limited = " ".join(f"Limit: {limit.name}." for limit in limits)
    return (
        f'<svg class="chart" viewBox="0 0 {WIDTH} {_n(bottom + _BELOW)}" role="img" '
        f'aria-labelledby="{key}-title" aria-describedby="{key}-desc"><title id="{key}-title">{escape(title)}</title>'
        f'<desc id="{key}-desc">{escape(f"{description} {limited}".strip())}</desc>{"".join(parts)}</svg>'
    )


def _described(line: Line, scale: Scale) -> str:
    if not line.points:
        return f"{line.name}: no data."
    values = [value for _, value in line.points]
    return f"{line.name}: {scale.text(values[-1])} now, {scale.text(min(values))} to {scale.text(max(values))}."


def _runs(points: Points, step_seconds: float) -> Iterator[Points]:
    """The points between gaps."""
    begin = 0
    for index in range(1, len(points) + 1):
        if index == len(points) or points[index][0] - points[index - 1][0] > _GAP_STEPS * step_seconds:
            if points[begin:index]:
                yield points[begin:index]
            begin = index


def _run(axis: Axis, scale: Scale, run: Points) -> str:
    places = [f"{_n(axis.x(at))} {_n(scale.y(value))}" for at, value in run]
    # A single point is a line of no length, which its round ends make visible.
    return f"M{places[0]}L{'L'.join(places[1:] or places)}"


def _times(axis: Axis, bottom: float) -> Iterable[str]:
    seconds = next((each for each in _TICK_SECONDS if axis.span.seconds / each <= _TICKS_MAX), _TICK_SECONDS[-1])
    last_day = None
    for number in range(math.ceil(axis.span.begin / seconds), math.floor(axis.span.end / seconds) + 1):
        then = datetime.fromtimestamp(number * seconds, UTC)
        x = axis.x(number * seconds)
        day = f"{then.day} {then:%b}"
        clock = f"{then:%H:%M}" if seconds % _MINUTE == 0 else f"{then:%H:%M:%S}"
        shown = day if seconds >= _DAY or (last_day not in (None, day)) else clock
        last_day = day
        yield _path("grid", f"M{_n(x)} {_n(_TOP)}V{_n(bottom)}")
        yield _text(x, bottom + 15, shown, "middle")


def _n(value: float) -> str:
    """A coordinate, to a tenth of a pixel."""
    return f"{value:.1f}".removesuffix(".0")


def _path(kind: str, shape: str) -> str:
    return f'<path class="{kind}" d="{shape}"/>'


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{_n(x)}" y="{_n(y)}" class="tick" text-anchor="{anchor}">{escape(text)}</text>'
