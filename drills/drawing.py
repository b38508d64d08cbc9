"""A board as a picture: each panel at its place, drawn from what Prometheus answers to the panel's own queries.

It is no Grafana: it shows what a board has, where, and with which lines, for people who have not deployed it yet.
"""

from __future__ import annotations

import io
import math
import re
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import cycle
from typing import TYPE_CHECKING, Any

from drills.harness import Prometheus, Series

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Json = Mapping[str, Any]

_COLUMN_INCHES, _ROW_INCHES = 0.56, 0.27
_DOTS_PER_INCH = 80
_COLOURS_OF_FILE = 200  # more would make the file larger, and nothing clearer

_INK, _PALE, _PAPER = "#24292e", "#8a949e", "#ffffff"
_NAMED = {
    "green": "#56a64b",
    "orange": "#ff780a",
    "red": "#e02f44",
    "text": "#5794f2",
    "blue": "#3274d9",
    "transparent": "none",
}
_LINES = ("#5794f2", "#73bf69", "#ff9830", "#b877d9", "#f2495c", "#37872d", "#8ab8ff", "#fade2a", "#a352cc", "#c4162a")
_LEGEND_MAX = 5
_ROWS_MAX = 24


@dataclass(frozen=True, slots=True)
class Source:
    """Where figures come from.

    Attributes:
        prometheus: Who is asked.
        begin: The first moment shown, Unix time.
        end: The last.
        step: Time between two points.
        filled: Gives a query its variables' values.
    """

    prometheus: Prometheus
    begin: float
    end: float
    step: timedelta
    filled: Callable[[str], str]

    def lines(self, target: Json) -> list[tuple[str, Series]]:
        """The series of a query over time, by name."""
        found = self.prometheus.query_range(self.filled(target["expr"]), self.begin, self.end, self.step)
        return [(_name(target["legendFormat"], one.labels), one) for one in found]

    def rows(self, target: Json) -> list[tuple[Mapping[str, str], float]]:
        """The values of a query at the end, with their labels."""
        return [(one.labels, one.value) for one in self.prometheus.query(self.filled(target["expr"]), self.end)]


def picture(board: Json, source: Source) -> bytes:
    """The board as PNG."""
    from matplotlib import rc_context  # noqa: PLC0415 - only who draws needs it
    from matplotlib.figure import Figure  # noqa: PLC0415 - as above

    with rc_context({"font.size": 7, "axes.edgecolor": _PALE, "text.color": _INK, "font.family": "DejaVu Sans"}):
        height = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in board["panels"]) + 2
        figure = Figure(figsize=(24 * _COLUMN_INCHES, height * _ROW_INCHES), dpi=_DOTS_PER_INCH, facecolor="#f4f5f5")
        figure.text(0.008, 1 - 0.9 / height, board["title"], size=12, weight="bold", va="center")
        chosen = "   ".join(one["label"] for one in board["templating"]["list"])
        figure.text(0.992, 1 - 0.9 / height, chosen, size=7, color=_PALE, va="center", ha="right")
        for panel in board["panels"]:
            _panel(figure, panel, height, source)
        raw = io.BytesIO()
        figure.savefig(raw, format="png")
    return _small(raw)


def _small(raw: io.BytesIO) -> bytes:
    from PIL import Image  # noqa: PLC0415 - comes with matplotlib

    small = io.BytesIO()
    with Image.open(raw) as image:
        image.convert("RGB").quantize(_COLOURS_OF_FILE).save(small, format="png", optimize=True)
    return small.getvalue()


def _panel(figure: Figure, panel: Json, height: int, source: Source) -> None:
    place = panel["gridPos"]
    left, width = place["x"] / 24, place["w"] / 24
    top, tall = 1 - (place["y"] + 2) / height, place["h"] / height
    if panel["type"] == "row":
        figure.text(left + 0.008, top - tall / 2, panel["title"], size=9, weight="bold", va="center")
        return
    gap_x, gap_y = 0.0025, 0.1 / height
    from matplotlib.patches import Rectangle  # noqa: PLC0415 - as above

    box = Rectangle(
        (left + gap_x, top - tall + gap_y),
        width - 2 * gap_x,
        tall - 2 * gap_y,
        transform=figure.transFigure,
        facecolor=_PAPER,
        edgecolor="#dcdfe2",
        linewidth=0.6,
        zorder=-1,  # behind what is drawn in it
    )
    figure.add_artist(box)
    figure.text(left + 0.007, top - 0.65 / height, panel["title"], size=7.5, weight="bold", va="center")
    inner = (left + gap_x, top - tall + gap_y, width - 2 * gap_x, tall - 1.2 / height)
    _DRAW[panel["type"]](figure, panel, inner, source)


_Box = tuple[float, float, float, float]


def _axes(figure: Figure, box: _Box, *, left: float, bottom: float) -> Axes:
    x, y, width, height = box
    wide, tall = figure.get_size_inches()
    axes = figure.add_axes(
        (
            x + left / wide,
            y + bottom / tall,
            width - (left + 0.1) / wide,
            height - (bottom + 0.06) / tall,
        )
    )
    axes.tick_params(labelsize=6, colors=_PALE, length=2, width=0.5)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return axes


def _hours(axes: Axes, source: Source) -> None:
    axes.set_xlim(source.begin, source.end)
    ticks = [source.begin + part * (source.end - source.begin) / 4 for part in range(5)]
    axes.set_xticks(ticks, [f"{datetime.fromtimestamp(tick, UTC):%H:%M}" for tick in ticks])
    labels = axes.get_xticklabels()
    labels[0].set_horizontalalignment("left")
    labels[-1].set_horizontalalignment("right")


# --- kinds of panels --------------------------------------------------------------------------------------------------


def _timeseries(figure: Figure, panel: Json, box: _Box, source: Source) -> None:
    defaults = panel["fieldConfig"]["defaults"]
    found = [line for target in panel["targets"] for line in source.lines(target)]
    entries = min(_LEGEND_MAX, len(found))
    axes = _axes(figure, box, left=0.5, bottom=0.28 + 0.13 * entries)
    styles = [
        (one["matcher"]["options"], {each["id"]: each["value"] for each in one["properties"]})
        for one in panel["fieldConfig"]["overrides"]
    ]
    stacked = defaults["custom"]["stacking"].get("mode") == "normal"
    below: dict[float, float] = {}
    highest, lowest = 0.0, 0.0
    for (name, series), colour in zip(found, cycle(_LINES)):
        times = [at for at, _ in series.points]
        values = [value if math.isfinite(value) else math.nan for _, value in series.points]
        style = next((style for pattern, style in styles if re.search(pattern, name)), {})
        colour_of = style.get("color", {}).get("fixedColor")
        drawn = _NAMED.get(colour_of, colour)
        dashed = "custom.lineStyle" in style
        if stacked:
            base = [below.get(at, 0.0) for at in times]
            tops = [low + value for low, value in zip(base, values, strict=True)]
            axes.fill_between(times, base, tops, color=drawn, alpha=0.35, linewidth=0)
            below.update(zip(times, tops, strict=True))
            values = tops
        axes.plot(times, values, color=drawn, linewidth=0.9, linestyle=(0, (4, 3)) if dashed else "-", label=name)
        real = [value for value in values if not math.isnan(value)]
        highest, lowest = max([highest, *real]), min([lowest, *real])
    _scale(axes, defaults, highest, lowest)
    _hours(axes, source)
    axes.yaxis.set_major_formatter(lambda value, _: text_of(value, defaults["unit"]))
    axes.grid(visible=True, axis="y", color="#eceff1", linewidth=0.5)
    if found:
        handles, labels = axes.get_legend_handles_labels()
        more = [f"and {len(labels) - _LEGEND_MAX} more"] if len(labels) > _LEGEND_MAX else []
        texts = [_short(label, 46) for label in labels[:_LEGEND_MAX]]
        if more:
            texts[-1] = f"{texts[-1]}, {more[0]}"
        axes.legend(
            handles[:_LEGEND_MAX],
            texts,
            loc="upper left",
            bbox_to_anchor=(-0.03, -0.26 / (axes.get_position().height * figure.get_size_inches()[1])),
            fontsize=5.8,
            frameon=False,
            handlelength=1.2,
            labelspacing=0.15,
            borderpad=0,
        )
    else:
        _nothing(axes)


def _scale(axes: Axes, defaults: Json, highest: float, lowest: float) -> None:
    """The axis, and the thresholds that are near enough to be seen on it."""
    steps = [step for step in defaults["thresholds"]["steps"] if step["value"] is not None]
    shown = [step for step in steps if abs(step["value"]) <= 3 * max(highest, -lowest) or highest == lowest]
    judged = defaults["custom"]["thresholdsStyle"]["mode"] != "off"
    if judged:
        highest = max([highest, *(step["value"] for step in shown)])
        lowest = min([lowest, *(step["value"] for step in shown)])
    span = (highest - lowest) or 1.0
    low, high = (lowest - 0.05 * span if lowest < 0 else 0.0), highest + 0.12 * span
    if judged:
        begin, colour = low, defaults["thresholds"]["steps"][0]["color"]
        for step in shown:
            axes.axhspan(begin, step["value"], color=_NAMED[colour], alpha=0.09, linewidth=0)
            axes.axhline(step["value"], color=_NAMED[step["color"]], linewidth=0.9, linestyle=(0, (6, 3)))
            begin, colour = max(low, step["value"]), step["color"]
        axes.axhspan(begin, high, color=_NAMED[colour], alpha=0.09, linewidth=0)
    axes.set_ylim(low, high)
    axes.locator_params(axis="y", nbins=4)


def _stat(figure: Figure, panel: Json, box: _Box, source: Source) -> None:
    defaults = panel["fieldConfig"]["defaults"]
    rows = source.rows(panel["targets"][0])
    text, colour = defaults["noValue"], _PALE
    if rows:
        value = rows[0][1]
        text, colour = text_of(value, defaults["unit"], defaults.get("decimals")), _coloured(value, defaults)
    figure.text(box[0] + box[2] / 2, box[1] + box[3] / 2, text, size=17, color=colour, ha="center", va="center")


def _table(figure: Figure, panel: Json, box: _Box, source: Source) -> None:
    names = panel["transformations"][1]["options"]["renameByName"]
    styles = {
        one["matcher"]["options"]: {each["id"]: each["value"] for each in one["properties"]}
        for one in panel["fieldConfig"]["overrides"]
    }
    labels = {label: title for label, title in names.items() if not label.startswith("Value")}
    figures = [target["legendFormat"] for target in panel["targets"]]
    rows: dict[tuple[str, ...], dict[str, float]] = {}
    for target in panel["targets"]:
        for found, value in source.rows(target):
            rows.setdefault(tuple(found.get(label, "") for label in labels), {})[target["legendFormat"]] = value
    sort_by = panel["options"]["sortBy"][0]["displayName"]
    ordered = sorted(rows.items(), key=lambda row: (-row[1].get(sort_by, -math.inf), row[0]))
    columns = [*labels.values(), *figures]
    line = 0.165 / figure.get_size_inches()[1]
    top = box[1] + box[3] - line * 0.7
    fits = min(_ROWS_MAX, int(box[3] / line) - 1)
    lefts = [box[0] + 0.006 + box[2] * number / len(columns) for number in range(len(columns))]
    for left, title in zip(lefts, columns, strict=True):
        figure.text(left, top, title, size=6.2, color=_PALE, va="center")
    for number, (words, values) in enumerate(ordered[:fits], start=1):
        y = top - number * line
        for left, word in zip(lefts, words, strict=False):
            figure.text(left, y, _short(word, 34), size=6.2, color="#1f60c4", va="center")
        for left, title in zip(lefts[len(words) :], figures, strict=True):
            text, colour = _cell(values.get(title), styles[title])
            figure.text(left, y, text, size=6.2, color=colour, va="center")
    if not ordered:
        figure.text(box[0] + box[2] / 2, box[1] + box[3] / 2, "none", size=7, color=_PALE, ha="center", va="center")


def _cell(value: float | None, style: Json) -> tuple[str, str]:
    if value is None:
        return str(style["noValue"]), _PALE
    for mapping in style.get("mappings", []):
        named = mapping["options"].get(str(int(value)))
        if named:
            return str(named["text"]), _NAMED.get(named["color"], _INK)
    return text_of(value, style["unit"], style.get("decimals")), _coloured(value, style)


def _states(figure: Figure, panel: Json, box: _Box, source: Source) -> None:
    defaults = panel["fieldConfig"]["defaults"]
    found = [line for target in panel["targets"] for line in source.lines(target)]
    axes = _axes(figure, box, left=1.15, bottom=0.24)
    step = source.step.total_seconds()
    for number, (_, series) in enumerate(found):
        for value, begin, end in _stretches(series.points, step):
            axes.barh(number, end - begin, left=begin, height=0.8, color=_coloured(value, defaults), alpha=0.75)
    axes.set_yticks(range(len(found)), [_short(name, 22) for name, _ in found])
    axes.set_ylim(len(found) - 0.4, -0.6)
    _hours(axes, source)
    if not found:
        _nothing(axes)


def _stretches(points: Sequence[tuple[float, float]], step: float) -> Iterator[tuple[float, float, float]]:
    """Value, begin and end of each stretch in which a series does not change."""
    begin = 0
    for number in range(1, len(points) + 1):
        if number == len(points) or points[number][1] != points[begin][1]:
            yield points[begin][1], points[begin][0], points[number - 1][0] + step
            begin = number


def _heatmap(figure: Figure, panel: Json, box: _Box, source: Source) -> None:
    buckets = [
        (math.inf if series.labels["le"] == "+Inf" else float(series.labels["le"]), series)
        for _, series in source.lines(panel["targets"][0])
    ]
    buckets.sort(key=lambda bucket: bucket[0])
    axes = _axes(figure, box, left=0.5, bottom=0.24)
    if not buckets:
        _nothing(axes)
        return
    times = [at for at, _ in buckets[0][1].points]
    cells: list[list[float]] = []
    previous = [0.0] * len(times)
    for _, series in buckets:
        values = [value for _, value in series.points]
        cells.append([max(0.0, value - low) ** 0.5 for value, low in zip(values, previous, strict=True)])
        previous = values
    axes.imshow(
        cells, aspect="auto", origin="lower", cmap="Oranges", extent=(times[0], times[-1], -0.5, len(buckets) - 0.5)
    )
    unit = panel["options"]["yAxis"]["unit"]
    shown = range(0, len(buckets), 3)
    axes.set_yticks(list(shown), [text_of(buckets[number][0], unit) for number in shown])
    _hours(axes, source)


def _text(figure: Figure, panel: Json, box: _Box, _: Source) -> None:
    wide = int(box[2] * figure.get_size_inches()[0] * 15)
    plain = panel["options"]["content"].replace("**", "").replace("*", "")
    paragraphs = [" ".join(part.split()) for part in re.split(r"\n\n|\n(?=- )", plain)]
    lines = [line for part in paragraphs for line in (*textwrap.wrap(part, wide), "")]
    line = 0.15 / figure.get_size_inches()[1]
    fits = int(box[3] / line)
    for number, one in enumerate(lines[:fits]):
        figure.text(box[0] + 0.006, box[1] + box[3] - line * (number + 0.8), one, size=6.3, va="center")


def _nothing(axes: Axes) -> None:
    axes.text(0.5, 0.5, "no data", transform=axes.transAxes, ha="center", va="center", color=_PALE)


_DRAW: Mapping[str, Callable[[Any, Json, _Box, Source], None]] = {
    "timeseries": _timeseries,
    "stat": _stat,
    "table": _table,
    "state-timeline": _states,
    "heatmap": _heatmap,
    "text": _text,
}


# --- figures as people read them --------------------------------------------------------------------------------------


def _coloured(value: float, style: Json) -> str:
    colour = "text"
    for step in style["thresholds"]["steps"]:
        if step["value"] is None or value >= step["value"]:
            colour = step["color"]
    return _INK if colour == "text" and "custom" not in style else _NAMED[colour]


def text_of(value: float, unit: str, decimals: int | None = None) -> str:
    """A value with Grafana's unit, about as Grafana writes it."""
    match unit:
        case "percentunit":
            return f"{value * 100:.{1 if decimals is None else decimals}f}%"
        case "s":
            return _seconds(value)
        case "bytes":
            return _scaled(value, 1024, ("B", "KiB", "MiB", "GiB", "TiB"))
        case "cps":
            return f"{_scaled(value, 1000, ('', 'K', 'M'))} c/s"
        case "suffix:x":
            return f"{value:.{1 if decimals is None else decimals}f}x"
    return _scaled(value, 1000, ("", "K", "Mil", "Bil"))


def _seconds(value: float) -> str:
    for length, name in ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"), (0.001, "ms")):
        if abs(value) >= length:
            return f"{value / length:.3g} {name}"
    return "0 s" if value == 0 else f"{value * 1e6:.3g} µs"


def _scaled(value: float, base: int, units: Sequence[str]) -> str:
    power = 0
    while abs(value) >= base and power < len(units) - 1:
        value, power = value / base, power + 1
    return f"{value:.3g} {units[power]}".strip()


def _short(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 3]}..."


def _name(legend: str, labels: Mapping[str, str]) -> str:
    if legend == "__auto":
        kept = [f"{name}={value}" for name, value in labels.items() if name not in _NOT_TOLD]
        return ", ".join(kept) or "value"
    return re.sub(r"\{\{(\w+)\}\}", lambda found: labels.get(found[1], ""), legend).strip()


_NOT_TOLD = frozenset({"__name__", "aws_account_id", "aws_region", "job", "instance"})
