"""From which value on something is wrong: read from the causes and promises themselves, and so never another one."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal, InvalidOperation

from dashboards import panels
from slo import conventions as names
from slo.causes import Cause, Query, Threshold
from slo.matrix import Definitions
from slo.metrics import Selection
from slo.model import Freshness, Latency, Recency, Slo, TimeSlice


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """A value beyond which a figure is wrong.

    Attributes:
        value: In the metric's own unit.
        above: Wrong above it; otherwise below.
        of: The cause that tells somebody, or the promise whose time is then bad.
    """

    value: Decimal
    above: bool
    of: Cause | Slo

    @property
    def colour(self) -> str:
        """A promise is broken in red; a cause only warns."""
        return panels.BAD if isinstance(self.of, Slo) else panels.WARN

    @property
    def words(self) -> str:
        """What happens beyond it, as a sentence."""
        beyond = f"{'above' if self.above else 'below'} {names.number(self.value)}"
        match self.of:
            case Cause() as cause:
                return f"{cause.alert_name} fires {beyond} for {names.duration(cause.hold)}."
            case Slo() as slo:
                return f"Bad for the promise {slo.id_path} {beyond}."


def limits_of(shown: Selection, defined: Definitions) -> list[Limit]:
    """The limits that hold for every series shown."""
    of_causes = (limit for cause in defined.causes for limit in _of_cause(cause, shown))
    of_slos = (limit for slo in defined.slos for limit in _of_slo(slo, shown))
    return [*of_causes, *of_slos]


def steps_of_states(limits: Sequence[Limit]) -> panels.Steps:
    """As `steps`, for series that are 0 or 1: Grafana colours the value of a step itself, and above 0 means 1."""
    return steps([replace(one, value=one.value + 1) if one.above else one for one in limits])


def steps(limits: Sequence[Limit]) -> panels.Steps:
    """The colours between the limits, each that of the worst limit that is passed; none without limits."""
    if not limits:
        return panels.NO_STEPS
    values = sorted({limit.value for limit in limits})
    found: list[tuple[str, Decimal | None]] = []
    for begin, end in zip([None, *values], [*values, None], strict=True):
        passed = {
            limit.colour
            for limit in limits
            if (limit.above and begin is not None and begin >= limit.value)
            or (not limit.above and end is not None and end <= limit.value)
        }
        colour = next((colour for colour in (panels.BAD, panels.WARN) if colour in passed), panels.GOOD)
        if not found or found[-1][0] != colour:
            found.append((colour, begin))
    return found


def _of_cause(cause: Cause, shown: Selection) -> Iterator[Limit]:
    match cause.condition:
        case Threshold(gauge=gauge, above=above, below=below) if _within(shown, gauge):
            value = above if above is not None else below
            assert value is not None, "Threshold.problems() allows none without a limit"
            yield Limit(value=value, above=above is not None, of=cause)


def _of_slo(slo: Slo, shown: Selection) -> Iterator[Limit]:
    match slo.sli:
        case TimeSlice(gauge=gauge, bad_above=above, bad_below=below) if _within(shown, gauge):
            value = above if above is not None else below
            assert value is not None, "TimeSlice allows none without a limit"
            yield Limit(value=value, above=above is not None, of=slo)
        case Latency(requests=requests, threshold_seconds=seconds) if _within(shown, requests):
            yield Limit(value=Decimal(str(seconds)), above=True, of=slo)
        case Freshness(oldest=series, age_max_seconds=seconds) | Recency(last=series, age_max_seconds=seconds) if (
            _within(shown, series)
        ):
            yield Limit(value=Decimal(seconds), above=True, of=slo)


def _within(shown: Selection, judged: Selection) -> bool:
    """Whether every series of the first is one of the second."""
    if shown.metric != judged.metric:
        return False
    return all(
        set(shown.values.get(label, shown.metric.labels[label])) <= set(values)
        for label, values in judged.values.items()
    )


# --- a cause's own query --------------------------------------------------------------------------------------------

_TOKEN = re.compile(r'"(?:\\.|[^"\\])*"|[()\[\]{}]|>=|<=|==|!=|>|<|\b(?:and|or|unless)\b')
_MATCHING = re.compile(r"\s*(on|ignoring)\s*\([^)]*\)\s*((group_left|group_right)(\s*\([^)]*\))?)?")


@dataclass(frozen=True, slots=True)
class Judged:
    """What the first comparison of a query compares.

    Attributes:
        figure: Left of it.
        limit: Right of it: a number, or a query of its own.
        above: Whether the figure is wrong above the limit; otherwise below.
        more: What else must hold; empty for nothing.
    """

    figure: str
    limit: Decimal | str
    above: bool
    more: str


def judged(query: Query) -> Judged:
    """What a cause's query compares.

    Raises:
        ValueError: It does not compare anything.
    """
    outside = list(_outside_brackets(query.promql))
    comparison = next((one for one in outside if one[0][0] in "<>=!"), None)
    if comparison is None:
        raise ValueError(f"the query compares nothing: {query.promql}")
    end = next((one.start() for one in outside if one.start() > comparison.start()), len(query.promql))
    right = _MATCHING.sub("", query.promql[comparison.end() : end], count=1).strip()
    return Judged(
        figure=query.promql[: comparison.start()].strip(),
        limit=_number_or_text(right),
        above=comparison[0] in (">", ">="),
        more=" ".join(query.promql[end:].split()),
    )


def _outside_brackets(text: str) -> Iterator[re.Match[str]]:
    depth = 0
    for found in _TOKEN.finditer(text):
        if found[0] in "([{":
            depth += 1
        elif found[0] in ")]}":
            depth -= 1
        elif depth == 0 and not found[0].startswith('"'):
            yield found


def _number_or_text(text: str) -> Decimal | str:
    try:
        return Decimal(text)
    except InvalidOperation:
        return text
