"""What to ask Prometheus about an SLO: which events are bad, what is left, and where the data went."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal

from alerts.markdown import Query, percent
from slo import conventions as names
from slo import promql
from slo.compile import CompiledAlert, CompiledSlo
from slo.metrics import Selection
from slo.model import (
    WINDOW_PLACEHOLDER,
    Events,
    Freshness,
    Latency,
    Queries,
    RatioQuery,
    Recency,
    Sli,
    TimeSlice,
)
from slo.windows import HOUR

_WORST_SHOWN = 5
_INSTANCE = "instance"  # Prometheus puts it on every series that it scrapes


def first_look(alert: CompiledAlert, compiled: CompiledSlo) -> Iterator[Query]:
    """How bad it is, and how long the budget lasts."""
    base, fastest = compiled.policy.base, alert.pairs[0].long
    burn = names.SLI_ERROR if compiled.slo.burn == "ratio" else names.ERROR_BUDGET_BURN
    yield Query(
        f"The share of bad events in the last {names.duration(base)}; the objective allows "
        f"{names.number(compiled.slo.budget_ratio)}:",
        compiled.named(names.SLI_ERROR, base),
    )
    yield Query(
        f"Bad events in the last {names.duration(fastest)}:",
        compiled.over(names.BAD_EVENTS_INCREASE, fastest),
    )
    remaining = compiled.named(names.ERROR_BUDGET_REMAINING)
    yield Query("What is left of the budget; 1 is all of it, below 0 the promise of this period is broken:", remaining)
    per_factor = f" / {names.number(compiled.slo.budget_ratio)}" if burn == names.SLI_ERROR else ""
    hours = names.number(
        Decimal(compiled.policy.period // timedelta(microseconds=1)) / (HOUR // timedelta(microseconds=1))
    )
    yield Query(
        f"Hours until it is gone, at the pace of the last {names.duration(fastest)}; no answer when it is "
        "gone already or nothing fails any more:",
        f"({remaining} > 0) * {hours} / on (sloth_id) ({compiled.named(burn, fastest)}{per_factor} > 0)",
    )


def queries(compiled: CompiledSlo) -> Iterator[Query]:
    """Which events are bad, by all that tells them apart."""
    sli, policy = compiled.slo.sli, compiled.policy
    base = names.duration(policy.base)
    match sli:
        case Events():
            yield from _bad_by_label(sli, compiled)
            yield _load(compiled)
        case Latency():
            yield from _slow_by_label(sli, compiled)
            yield _load(compiled)
        case TimeSlice():
            yield _worst_gauge(sli)
        case Freshness():
            oldest = f"{promql.series(sli.oldest)} > 0"
            yield Query("Seconds that the oldest has waited; no answer when nothing waits:", f"time() - min({oldest})")
            yield Query("Who reports it:", f"topk({_WORST_SHOWN}, time() - ({oldest}))")
        case Recency():
            last = promql.series(sli.last)
            yield Query("Seconds since it was last done; more than a year stands for never:", f"time() - max({last})")
            yield Query("Who did it, and when, latest first; 0 stands for never:", f"topk({_WORST_SHOWN}, {last})")
        case Queries():
            yield Query(f"Bad events per second, over {base}:", WINDOW_PLACEHOLDER.sub(base, sli.bad.strip()))
            yield Query(f"All events per second, over {base}:", WINDOW_PLACEHOLDER.sub(base, sli.all.strip()))
            yield _load(compiled)
        case RatioQuery():
            yield Query(f"The share of bad events, over {base}:", WINDOW_PLACEHOLDER.sub(base, sli.ratio.strip()))


def _bad_by_label(sli: Events, compiled: CompiledSlo) -> Iterator[Query]:
    bad, every = ((promql.series(selection)) for selection in (sli.bad, sli.all))
    window = compiled.policy.base
    for label in [*_labels(sli.bad), _INSTANCE]:
        yield _worst("Bad events", label, _rate_by(label, bad, window))
    for label in _labels(sli.all):
        if label not in sli.bad.values:
            share = f"{_rate_by(label, bad, window)} / {_rate_by(label, every, window)}"
            yield Query(
                f"The share of bad events, by `{label}`; one high value is one broken part, all high is "
                "what they share:",
                f"topk({_WORST_SHOWN}, {share} > {names.number(compiled.slo.budget_ratio)})",
            )


def _slow_by_label(sli: Latency, compiled: CompiledSlo) -> Iterator[Query]:
    window = compiled.policy.base
    every = promql.series(sli.requests, "_count")
    fast = promql.series(sli.requests, "_bucket", le=names.le(sli.threshold_seconds))
    for label in [*_labels(sli.requests), _INSTANCE]:
        yield _worst("Slow ones", label, f"{_rate_by(label, every, window)} - {_rate_by(label, fast, window)}")
    objective = names.number(compiled.slo.objective_ratio)
    buckets = _rate_by("le", promql.series(sli.requests, "_bucket"), window)
    yield Query(
        f"Seconds within which {percent(compiled.slo.objective_ratio)} are done; must be at most "
        f"{names.number(sli.threshold_seconds)}:",
        f"histogram_quantile({objective}, {buckets})",
    )


def _worst_gauge(sli: TimeSlice) -> Query:
    gauge = promql.series(sli.gauge)
    if sli.bad_above is not None:
        worst = f"topk({_WORST_SHOWN}, {gauge} > {names.number(sli.bad_above)})"
    else:
        assert sli.bad_below is not None  # TimeSlice.problems() has made sure; this tells the type checker
        worst = f"bottomk({_WORST_SHOWN}, {gauge} < {names.number(sli.bad_below)})"
    return Query("The series that violate it now, worst first; no answer when none does:", worst)


def _worst(what: str, label: str, rate: str) -> Query:
    return Query(
        f"{what} per second, by `{label}`, worst first; no answer when there are none:",
        f"topk({_WORST_SHOWN}, {rate} > 0)",
    )


def _rate_by(label: str, selector: str, window: timedelta) -> str:
    return f"sum by ({label}) (rate({selector}[{names.duration(window)}]))"


def _labels(selection: Selection) -> list[str]:
    """The labels in which the selected series differ."""
    metric = selection.metric
    return [label for label, every in metric.labels.items() if len(selection.values.get(label, every)) > 1]


def _load(compiled: CompiledSlo) -> Query:
    now, mean = (compiled.over(names.ALL_EVENTS, window) for window in (compiled.policy.base, compiled.policy.period))
    return Query("Is it the load? Traffic now, in multiples of the period's mean:", f"{now} / {mean}")


def absence(alert: CompiledAlert, compiled: CompiledSlo) -> Iterator[Query]:
    """Who fell silent, when, and how it was before."""
    yield Query(
        "How many targets of each job answer; a job that is missing here is not configured:",
        "sum by (job) (up)",
    )
    source = _source(compiled.slo.sli)
    recorded = compiled.named(names.ALL_EVENTS, compiled.policy.base)
    shown = max(pair.long for pair in compiled.policy.pairs_of(alert.severity))
    if source is not None:
        last = promql.over_time("max", f"timestamp({source})", shown, compiled.policy.evaluation_interval)
        yield Query(
            f"Seconds since the last sample, by `{_INSTANCE}`, within {names.duration(shown)}; all gone at "
            "one moment is a scrape or a release, one after the other is the instances:",
            f"time() - max by ({_INSTANCE}) ({last})",
        )
    yield Query(
        f"Events per second when it last had some, within {names.duration(shown)}:",
        promql.over_time("last", recorded, shown),
    )


def _source(sli: Sli) -> str | None:
    """The raw series of an SLI; None for queries from elsewhere."""
    match sli:
        case Events():
            return promql.series(sli.all)
        case Latency():
            return promql.series(sli.requests, "_count")
        case TimeSlice():
            return promql.series(sli.gauge)
        case Freshness():
            return promql.series(sli.oldest)
        case Recency():
            return promql.series(sli.last)
        case Queries() | RatioQuery():
            return None
