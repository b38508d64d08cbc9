"""The review: questions asked, figures counted, everything put together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

from review import adjustments as agreed
from review import budget as budgets
from review import incidents as spending
from review.model import Adjustment, Budget, EventWindows, Firing, Incident, Review, SloReview, Span
from review.reading import Reader, Reading
from slo import conventions as names
from slo.compile import CompiledSlo
from slo.model import period_text

DETAILS_MAX = 20
"""For so many incidents and alerts, the costliest first, more is asked: each is a question of its own."""


@dataclass(frozen=True, slots=True)
class _Counted:
    """What was read of an SLO, and what of it counts."""

    reading: Reading
    windows: EventWindows
    budget: Budget | None
    adjustments: tuple[Adjustment, ...]


def review(
    compiled: Sequence[CompiledSlo],
    reader: Reader,
    at: float,
    *,
    window: timedelta | None = None,
    adjustments: Sequence[Adjustment] = (),
) -> Review:
    """Review SLOs at a moment.

    Args:
        compiled: The SLOs, at least one.
        reader: Asks Prometheus.
        at: The moment up to which events count.
        window: The period; by default each SLO's own.
        adjustments: What was agreed not to count.

    Raises:
        ReviewError: There is no usable answer.
    """
    counted = {one.reading.compiled.slo.id: one for one in _count(reader.read(compiled, at, window), adjustments)}
    found = {key: _incidents(one) for key, one in counted.items()}
    causes: Sequence[spending.CauseFiring] = ()
    with reader.optional("which causes fired"):
        causes = reader.causes_fired(compiled, _whole(counted))
    found = spending.with_companions(found, {key: one.reading.compiled for key, one in counted.items()}, causes)
    with reader.optional("the kinds of bad events"):
        found = _with_causes(found, counted, reader)
    firings = {key: tuple(_judged(one, found[key])) for key, one in counted.items()}
    with reader.optional("to the scrape, what was gone before an alert"):
        firings = _with_exact_costs(firings, found, counted, reader)
    copies: Sequence[str] = ()
    with reader.optional("whether there are several series of an SLO"):
        copies = reader.copies(compiled, at)
    reviews = [_review(one, found[key], firings[key]) for key, one in counted.items()]
    return Review(
        at=_whole(counted).end,
        source=reader.source,
        window=names.duration(window) if window else _periods(compiled),
        slos=tuple(sorted(reviews, key=_urgency)),
        warnings=tuple(reader.warnings),
        notes=tuple(_notes_on_copies(copies)),
        queries=reader.queries,
    )


def budgets_of(
    compiled: Sequence[CompiledSlo],
    reader: Reader,
    at: float,
    *,
    window: timedelta | None = None,
    adjustments: Sequence[Adjustment] = (),
) -> dict[str, Budget | None]:
    """The budgets alone, by SLO id, for whoever needs no more.

    Raises:
        ReviewError: There is no usable answer.
    """
    readings = reader.read(compiled, at, window, whole=False)
    return {one.reading.compiled.slo.id: one.budget for one in _count(readings, adjustments)}


def _whole(counted: Mapping[str, _Counted]) -> Span:
    """From the first begin of a period to the last end."""
    periods = [one.reading.period.past for one in counted.values()]
    return Span(min(period.begin for period in periods), max(period.end for period in periods))


def _periods(compiled: Sequence[CompiledSlo]) -> str:
    return ", ".join(dict.fromkeys(period_text(one.slo.window) for one in compiled))


def _count(readings: Sequence[Reading], adjustments: Sequence[Adjustment]) -> Iterator[_Counted]:
    for reading in readings:
        mine = agreed.of_slo(adjustments, reading.compiled, reading.period.past)
        excluded = [one.span for one in mine]
        windows = budgets.without(reading.windows, excluded) if excluded else reading.windows
        budget = budgets.measure(reading.compiled, reading.windows, excluded, reading.period)
        yield _Counted(reading, windows, budget, mine)


def _incidents(one: _Counted) -> tuple[Incident, ...]:
    return spending.find(one.reading.compiled, one.windows, one.budget) if one.budget else ()


def _judged(one: _Counted, incidents: Sequence[Incident]) -> Iterator[Firing]:
    compiled = one.reading.compiled
    for raw in sorted(one.reading.firings, key=lambda firing: (firing.span, firing.alert)):
        yield spending.judge(raw, compiled, one.windows, one.budget, incidents)


def _review(one: _Counted, incidents: tuple[Incident, ...], firings: tuple[Firing, ...]) -> SloReview:
    compiled, period, before = one.reading.compiled, one.reading.period, one.reading.before
    return SloReview(
        compiled=compiled,
        windows=one.windows,
        budget=one.budget,
        last_period=budgets.last_period(compiled, before.all_events, before.bad_events, before.recorded),
        forecast=budgets.forecast(compiled, one.windows, one.budget, period) if one.budget else None,
        incidents=incidents,
        firings=firings,
        gaps=budgets.gaps(one.reading.windows),
        adjustments=agreed.applied(one.adjustments, one.reading.windows, one.windows),
    )


def _urgency(one: SloReview) -> tuple[float, str]:
    """No data at all comes first: nobody knows what goes on there."""
    return (one.budget.left if one.budget else float("-inf"), one.compiled.slo.id)


# --- what is asked for single incidents -----------------------------------------------------------------------------


def _with_causes(
    found: Mapping[str, tuple[Incident, ...]], counted: Mapping[str, _Counted], reader: Reader
) -> dict[str, tuple[Incident, ...]]:
    costly = sorted((-one.budget_share, key, number) for key, some in found.items() for number, one in enumerate(some))
    known = {
        (key, number): reader.causes(counted[key].reading.compiled, found[key][number])
        for _, key, number in costly[:DETAILS_MAX]
    }
    return {
        key: tuple(replace(one, causes=known.get((key, number), ())) for number, one in enumerate(some))
        for key, some in found.items()
    }


def _with_exact_costs(
    firings: Mapping[str, tuple[Firing, ...]],
    found: Mapping[str, tuple[Incident, ...]],
    counted: Mapping[str, _Counted],
    reader: Reader,
) -> dict[str, tuple[Firing, ...]]:
    told = [
        (key, number) for key, some in firings.items() for number, one in enumerate(some) if one.incident is not None
    ]
    told.sort(key=lambda at: (-(firings[at[0]][at[1]].gone_before or 0.0), at))
    exact: dict[tuple[str, int], float] = {}
    for key, number in told[:DETAILS_MAX]:
        firing, budget = firings[key][number], counted[key].budget
        assert firing.incident is not None, "looked at above"
        events = reader.gone_before(counted[key].reading.compiled, firing, found[key][firing.incident])
        if events is not None and budget and budget.budget_events:
            exact[key, number] = events / budget.budget_events
    return {
        key: tuple(replace(one, gone_before=exact.get((key, n), one.gone_before)) for n, one in enumerate(some))
        for key, some in firings.items()
    }


def _notes_on_copies(copies: Sequence[str]) -> list[str]:
    if not copies:
        return []
    which = ", ".join(copies)
    advice = "the larger counts, which is right for replicas and wrong for clusters that share a store; see --where"
    return [f"several series at once of {which}: {advice}"]
