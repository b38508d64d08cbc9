"""The metric math of alarms.

Arithmetic takes what is missing for 0, and a division by 0 leaves no data point
(https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/using-metric-math.html). Load balancers count errors
only when there are some, so every count is filled with 0.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal

from alerts.cloudwatch.model import Comparison, Expression, MetricStat, Query
from alerts.cloudwatch.sources import Counted, Judged, Series, Term, Total
from slo import conventions as names

METRICS_MAX = 10  # of one alarm
_HALF = Decimal("0.5")  # a count by percent rank is no whole number, so 3 events are above 2.5
_BESIDE = Decimal("0.000001")  # a percent rank includes its limit, and a value at the limit is good


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """What a window's events weigh.

    Attributes:
        budget: The share of events that may be bad.
        bad_min: So many bad events at least.
        expected: Events to expect in the window at the period's traffic; None where nobody knows, and then the window's
            own traffic stands for it.
        people_bad_min: With as many, it is also right to alert when the budget of the window's own traffic burns; None
            for never. Of no use where `expected` is None.
    """

    budget: Decimal
    bad_min: int
    expected: Decimal | None
    people_bad_min: Decimal | None


def burn(source: Counted, period_seconds: int, weights: Weights) -> tuple[Query, ...]:
    """The burn rate of one period; 0 while there are too few bad events for anything to be said.

    With the traffic that is to be expected, bad events weigh what they cost of the period's budget, so that those of a
    flash sale count and a stray one at night does not; docs/decisions/0003 says why, with figures.
    """
    ids, metrics = _metrics((*source.bad, *source.all), period_seconds)
    budget = names.number(weights.budget)
    queries: list[Query] = [
        *metrics,
        Expression(id="bad", expression=_count(source.bad, ids), label="Bad events"),
        Expression(id="every", expression=_count(source.all, ids), label="All events"),
    ]
    of_window = f"bad / every / {budget}"
    enough = f"bad > {weights.bad_min - _HALF}"
    if weights.expected is None:
        last = f"IF({enough} AND every > 0, {of_window}, 0)"
    else:
        allowed = names.number(weights.budget * weights.expected)
        last = f"IF({enough} AND bad > {budget} * every, bad / {allowed}, 0)"
        if weights.people_bad_min is not None:
            queries.append(Expression(id="budget", expression=last, label="Burn of the period's budget"))
            many = f"IF(bad > {names.number(weights.people_bad_min - _HALF)} AND every > 0, {of_window}, 0)"
            queries.append(Expression(id="people", expression=many, label="Burn at the window's traffic"))
            last = "MAX([budget, people])"
    return (*queries, Expression(id="burn", expression=last, label="Burn rate", returned=True))


def worst(gauges: Sequence[Total], source: Judged) -> tuple[tuple[Query, ...], Decimal, Comparison]:
    """The worst value of some gauges each period, the threshold for it, and when it is beyond."""
    ids, metrics = _metrics([term for gauge in gauges for term in gauge], source.period_seconds)
    comparison = Comparison.ABOVE if source.above else Comparison.BELOW
    scale = _scale(gauges)
    if scale is None:
        values = [_sum(gauge, ids, filled=False) for gauge in gauges]
        threshold = source.limit
    else:
        values = [ids[gauge[0].series, gauge[0].percent_rank] for gauge in gauges]
        threshold = _divided(source.limit, scale)
        if len(gauges) == 1:
            return (replace(metrics[0], returned=True),), threshold, comparison
    # A gauge without a value is not beyond its limit.
    filled = [
        Expression(id=f"g{number}", expression=f"FILL({value}, {names.number(threshold)})")
        for number, value in enumerate(values, 1)
    ]
    return (*metrics, *_extreme(filled, "MAX" if source.above else "MIN")), threshold, comparison


def bad_share_burn(gauges: Sequence[Total], source: Judged, period_seconds: int, budget: Decimal) -> tuple[Query, ...]:
    """How fast the share of bad samples burns, by the gauge that is worst; as several seldom fail at different times.

    Raises:
        ValueError: A gauge is made of several metrics, so no percent rank of it is known.
    """
    scale = _scale(gauges)
    if scale is None:
        message = "no percent rank is known of a gauge that is made of several metrics"
        raise ValueError(message)
    limit = _divided(source.limit, scale)
    rank = f"PR(:{names.number(limit if source.above else limit - _BESIDE)})"
    ranked = [Term(Decimal(1), Series(s.namespace, s.name, s.dimensions, rank)) for s in (g[0].series for g in gauges)]
    ids, metrics = _metrics(ranked, period_seconds)
    listed = ", ".join(ids.values())
    if source.above:
        share = f"(100 - MIN([{listed}]))" if len(ids) > 1 else f"(100 - {listed})"
    else:
        share = f"MAX([{listed}])" if len(ids) > 1 else listed
    expression = f"{share} / 100 / {names.number(budget)}"
    return (*metrics, Expression(id="burn", expression=expression, label="Burn rate", returned=True))


def published(source: Counted, period_seconds: int) -> Query:
    """How often the events were published in each period."""
    series = source.all[0].series
    return MetricStat(
        id="published",
        namespace=series.namespace,
        name=series.name,
        dimensions=dict(series.dimensions),
        period_seconds=period_seconds,
        statistic="SampleCount",
        returned=True,
    )


def chunks(gauges: Sequence[Total]) -> Iterator[tuple[Total, ...]]:
    """The gauges in parts that one alarm each can hold."""
    part: list[Total] = []
    for gauge in gauges:
        if part and sum(map(len, (*part, gauge))) >= METRICS_MAX:
            yield tuple(part)
            part = []
        part.append(gauge)
    yield tuple(part)


_Ids = Mapping[tuple[Series, str | None], str]


def _metrics(terms: Iterable[Term], period_seconds: int) -> tuple[_Ids, tuple[MetricStat, ...]]:
    """Every series once, and what it is called; the percent rank of one is a query of its own."""
    ids: dict[tuple[Series, str | None], str] = {}
    for term in terms:
        for key in ((term.series, None), (term.series, term.percent_rank)):
            ids.setdefault(key, f"m{len(ids) + 1}")
    queries = tuple(
        MetricStat(
            id=name,
            namespace=series.namespace,
            name=series.name,
            dimensions=dict(series.dimensions),
            period_seconds=period_seconds,
            statistic=rank or series.statistic,
        )
        for (series, rank), name in ids.items()
    )
    return ids, queries


def _count(total: Total, ids: _Ids) -> str:
    return _sum(total, ids, filled=True)


def _sum(total: Total, ids: _Ids, *, filled: bool) -> str:
    """`2 * m1 - m2`, or the same with what is missing filled with 0."""
    signed = [("-" if term.coefficient < 0 else "+", _product(term, ids, filled=filled)) for term in total]
    text = " ".join(f"{sign} {product}" for sign, product in signed)
    return text.removeprefix("+ ")


def _product(term: Term, ids: _Ids, *, filled: bool) -> str:
    def read(rank: str | None) -> str:
        return f"FILL({ids[term.series, rank]}, 0)" if filled else ids[term.series, rank]

    factors = [] if abs(term.coefficient) == 1 else [names.number(abs(term.coefficient))]
    factors.append(read(None))
    if term.percent_rank is not None:
        factors.append(f"{read(term.percent_rank)} / 100")
    return " * ".join(factors)


def _scale(gauges: Sequence[Total]) -> Decimal | None:
    """What all gauges multiply one metric with, so that the threshold can be divided by it instead."""
    if any(len(gauge) > 1 or gauge[0].percent_rank is not None for gauge in gauges):
        return None
    scales = {gauge[0].coefficient for gauge in gauges}
    scale = scales.pop()
    return scale if not scales and scale > 0 else None


def _divided(limit: Decimal, scale: Decimal) -> Decimal:
    return Decimal(names.number(limit / scale))


def _extreme(values: Sequence[Expression], function: str) -> Iterator[Expression]:
    yield from values
    listed = ", ".join(value.id for value in values)
    yield Expression(id="worst", expression=f"{function}([{listed}])", label="Worst value", returned=True)
