"""The only writer of PromQL text: small functions from text to text, correct quoting, no state."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import timedelta

from slo import conventions as names
from slo.metrics import Selection

# The characters that RE2 treats specially (https://github.com/google/re2/wiki/Syntax).
_REGEX_SPECIAL = re.compile(r"([\\.+*?()|\[\]{}^$])")


def quoted(text: str) -> str:
    """A PromQL string."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def matchers(labels: Mapping[str, str | Sequence[str]]) -> str:
    """`{a="x", b=~"y|z"}`, sorted by label; empty for no labels."""
    if not labels:
        return ""
    return "{" + ", ".join(_matcher(name, labels[name]) for name in sorted(labels)) + "}"


def _matcher(name: str, values: str | Sequence[str]) -> str:
    if isinstance(values, str):
        return f"{name}={quoted(values)}"
    if len(values) == 1:
        return f"{name}={quoted(values[0])}"
    alternatives = "|".join(_REGEX_SPECIAL.sub(r"\\\1", value) for value in values)
    return f"{name}=~{quoted(alternatives)}"


def series(selection: Selection, suffix: str = "", **more: str) -> str:
    """An instant selector of the selected series; `suffix` for a histogram's `_bucket` and `_count`."""
    return selection.metric.name + suffix + matchers({**selection.values, **more})


def rate(selector: str, window: timedelta | str) -> str:
    """Events per second, from raw counters, summed over all series so that no label can appear or collide."""
    return f"sum(rate({selector}[{_range(window)}]))"


def over_time(function: str, selector: str, window: timedelta | str, step: timedelta | None = None) -> str:
    """`avg_over_time(x[1h])` and its kind; with a step, a subquery."""
    resolution = f":{names.duration(step)}" if step else ""
    return f"{function}_over_time({selector}[{_range(window)}{resolution}])"


def _range(window: timedelta | str) -> str:
    """A window as text; one that is text already is another generator's placeholder."""
    return window if isinstance(window, str) else names.duration(window)


def any_of(alternatives: Sequence[str]) -> str:
    """Alternatives joined by `or`, each in brackets of its own."""
    if len(alternatives) == 1:
        return alternatives[0]
    return "\nor\n".join(f"(\n{indented(alternative)}\n)" for alternative in alternatives)


def all_of(conditions: Sequence[str]) -> str:
    """Conditions joined by `and`, one a line."""
    return "\nand ".join(conditions)


def indented(text: str) -> str:
    """The text, two spaces further in."""
    return "\n".join(f"  {line}" for line in text.split("\n"))
