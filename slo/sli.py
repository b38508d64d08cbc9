"""How each kind of SLI becomes PromQL over raw series.

`event_rates` is what our rules record, over the shortest window only. `window_queries` is the same for
generators that put windows of their own in.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from slo import conventions as names
from slo import promql
from slo.model import (
    WINDOW_PLACEHOLDER,
    Events,
    Freshness,
    Latency,
    Queries,
    RatioQuery,
    Recency,
    Sli,
    Slices,
    TimeSlice,
)
from slo.windows import Policy


@dataclass(frozen=True, slots=True)
class EventRates:
    """PromQL for one SLI; each expression gives one series without labels.

    Attributes:
        all: Events per second.
        bad: Bad events per second; has a value whenever `all` has one, also before the first bad event.
        presence: Has a value while the raw series exist; None where only `all` can tell.
    """

    all: str
    bad: str
    presence: str | None


def event_rates(sli: Sli, policy: Policy, recorded_all: str) -> EventRates:
    """The event rates of an SLI over the policy's shortest window.

    Args:
        sli: What is counted.
        policy: Gives the shortest window.
        recorded_all: Selector of the recorded rate of all events, which is evaluated before `bad`.
    """
    match sli:
        case Events():
            return _events(sli, policy, recorded_all)
        case Latency():
            return _latency(sli, policy)
        case TimeSlice() | Freshness() | Recency():
            return _slices(policy, *_judged(sli, policy))
        case Queries():
            # The comparison drops the NaN of a query that divides: it would stay in every mean for the whole period.
            bad, every = (promql.indented(f"({over_window(q, policy.base)}\n) >= 0") for q in (sli.bad, sli.all))
            return EventRates(
                all=f"sum(\n{every}\n)",
                bad=f"sum(\n{bad}\n)\nor\n0 * sum({recorded_all})",
                presence=None,
            )
        case RatioQuery():
            # The comparison drops the NaN of a moment without traffic: such a second weighs nothing.
            kept = promql.indented(f"({over_window(sli.ratio, policy.base)}\n) >= 0")
            ratio = f"avg(\n{kept}\n)"
            return EventRates(all=f"0 * {ratio} + 1", bad=ratio, presence=None)


def _numbers(query: str, policy: Policy) -> str:
    """A query from elsewhere, without the NaN of a moment without traffic: it would stay in every mean for the period.

    The query has lines of its own, as it may end in a comment.
    """
    return promql.indented(f"(\n{promql.indented(over_window(query, policy.base))}\n) >= 0")


WINDOW = "{{.window}}"
"""Where another generator puts the window."""


def window_queries(sli: Sli, policy: Policy) -> Queries | RatioQuery:
    """The SLI as queries over `{{.window}}`; `bad` has a value whenever `all` has one.

    Slices are counted per window, not per second, which is the same in a ratio.

    Args:
        sli: What is counted.
        policy: Gives the length of slices.
    """
    match sli:
        case Events():
            every = promql.rate(promql.series(sli.all), WINDOW)
            bad = promql.rate(promql.series(sli.bad), WINDOW)
            return Queries(bad=f"{bad}\nor\n0 * {every}", all=every)
        case Latency():
            every, slow = _slow(sli, WINDOW)
            return Queries(bad=slow, all=every)
        case TimeSlice() | Freshness() | Recency():
            return _slices_in(WINDOW, *_judged(sli, policy))
        case Queries():
            bad, every = (f"sum(\n{promql.indented(query.strip())}\n)" for query in (sli.bad, sli.all))
            return Queries(bad=f"{bad}\nor\n0 * {every}", all=every)
        case RatioQuery():
            return sli


def _events(sli: Events, policy: Policy, recorded_all: str) -> EventRates:
    every = promql.series(sli.all)
    return EventRates(
        all=promql.rate(every, policy.base),
        bad=f"{promql.rate(promql.series(sli.bad), policy.base)}\nor\n0 * sum({recorded_all})",
        presence=f"sum({every})",
    )


def _latency(sli: Latency, policy: Policy) -> EventRates:
    every, slow = _slow(sli, policy.base)
    return EventRates(all=every, bad=slow, presence=f"sum({promql.series(sli.requests, '_count')})")


def _slow(sli: Latency, window: timedelta | str) -> tuple[str, str]:
    """All requests, and the slow ones."""
    every = promql.rate(promql.series(sli.requests, "_count"), window)
    fast = promql.series(sli.requests, "_bucket", le=names.le(sli.threshold_seconds))
    # Count and bucket may come from different scrapes for a moment; a negative rate of slow requests is none.
    return every, f"clamp_min(\n  {every}\n  - {promql.rate(fast, window)},\n  0\n)"


def _judged(sli: Slices, policy: Policy) -> tuple[str, str, timedelta]:
    """Whether the slice that ends now is bad, the series that it reads, and its length."""
    length = _slice(sli.slice_seconds, policy)
    match sli:
        case TimeSlice():
            return _out_of_limit(sli, length), promql.series(sli.gauge), length
        case Freshness():
            return _waits_too_long(sli), promql.series(sli.oldest), length
        case Recency():
            # 0 stands for never, which as a Unix time is so long ago that it is late by itself.
            return f"{worst_value(sli)} > bool {sli.age_max_seconds}", promql.series(sli.last), length


def _out_of_limit(sli: TimeSlice, length: timedelta) -> str:
    worst, comparison, limit = ("max", ">", sli.bad_above) if sli.bad_above is not None else ("min", "<", sli.bad_below)
    assert limit is not None, "TimeSlice.problems() allows no slice without a limit"
    value = f"{worst}({promql.over_time(worst, promql.series(sli.gauge), length)})"
    return f"{value} {comparison} bool {names.number(limit)}"


def _waits_too_long(sli: Freshness) -> str:
    gauge = promql.series(sli.oldest)
    # 0 stands for nothing waits, and what does not wait is fresh.
    return f"(time() - min({gauge} > 0) > bool {sli.age_max_seconds}) or 0 * min({gauge})"


def worst_value(sli: Slices) -> str:
    """What a slice is judged by, at one moment: the worst value, or an age in seconds."""
    match sli:
        case TimeSlice():
            return f"{'max' if sli.bad_above is not None else 'min'}({promql.series(sli.gauge)})"
        case Freshness():
            gauge = promql.series(sli.oldest)
            return f"time() - min({gauge} > 0)\nor\n0 * min({gauge})"
        case Recency():
            return f"time() - max({promql.series(sli.last)})"


def _slices(policy: Policy, late: str, gauge: str, length: timedelta) -> EventRates:
    base_seconds = names.number(policy.base.total_seconds())
    counts = _slices_in(policy.base, late, gauge, length)
    return EventRates(
        all=f"{counts.all} / {base_seconds}",
        bad=f"{counts.bad} / {base_seconds}",
        presence=f"sum({gauge})",
    )


def _slices_in(window: timedelta | str, late: str, gauge: str, length: timedelta) -> Queries:
    """The slices of a window, counted."""
    return Queries(
        all=promql.over_time("count", f"max({gauge})", window, length),
        bad=promql.over_time("sum", f"({late})", window, length),
    )


def _slice(slice_seconds: int, policy: Policy) -> timedelta:
    return timedelta(seconds=slice_seconds) / policy.divisor


def over_window(query: str, window: timedelta) -> str:
    """A query from elsewhere with its `{{.window}}` filled in."""
    return WINDOW_PLACEHOLDER.sub(names.duration(window), query.strip())
