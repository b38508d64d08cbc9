"""Hypothesis strategies: every kind of SLO that can be built."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any, Literal

from hypothesis import reject
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from slo import (
    Alert,
    CalendarMonth,
    Events,
    Freshness,
    Gauge,
    Histogram,
    Latency,
    Metric,
    Queries,
    RatioQuery,
    Recency,
    Rolling,
    Selection,
    Severity,
    Sli,
    Slo,
    SloError,
    TimeSlice,
)
from slo.metrics import REDEMPTION_METRICS, REDEMPTION_REQUESTS

# A metric whose label values hold every character that a selector must quote.
ODD = Gauge(
    "odd_things",
    "Things whose labels are odd.",
    labels={"kind": ('quote"', "back\\slash", "new\nline", "a.b|c*", "{{.window}}", "ümlaut")},
)
ODD_TIME = Gauge("odd_oldest_timestamp_seconds", "The oldest odd thing.", labels=ODD.labels)

_HISTOGRAMS = tuple(metric for metric in REDEMPTION_METRICS if isinstance(metric, Histogram))
_IDS = st.from_regex(r"[A-Za-z0-9][-A-Za-z0-9_.]{0,12}[A-Za-z0-9]", fullmatch=True)
_LABEL_NAMES = st.from_regex(r"(?!__)[a-z_][a-z0-9_]{0,8}", fullmatch=True)
_TEXTS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=40).filter(str.strip)
_LABELS = st.dictionaries(_LABEL_NAMES, st.text(max_size=10), max_size=2)

objectives: SearchStrategy[Decimal] = st.one_of(
    st.sampled_from([Decimal(text) for text in ("50", "95", "99", "99.5", "99.9", "99.95", "99.99", "99.9999999")]),
    st.decimals(99, Decimal("99.9999999999999"), places=13),
    st.decimals(Decimal("0.0001"), Decimal("99.9999"), places=4),
)
windows = st.one_of(st.builds(CalendarMonth), st.builds(Rolling, st.sampled_from([7, 28, 30]) | st.integers(1, 366)))


@st.composite
def selections(draw: DrawFn, metric: Metric) -> Selection:
    """Some series of a metric."""
    chosen = {
        label: draw(st.lists(st.sampled_from(values), min_size=1, unique=True))
        for label, values in metric.labels.items()
        if draw(st.booleans())
    }
    return metric.where(**chosen)


@st.composite
def events(draw: DrawFn) -> Events:
    """Bad events that are a true part of all."""
    every = draw(selections(REDEMPTION_REQUESTS))
    label = draw(st.sampled_from(sorted(REDEMPTION_REQUESTS.labels)))
    allowed = every.values.get(label, REDEMPTION_REQUESTS.labels[label])
    bad = draw(st.lists(st.sampled_from(allowed), min_size=1, unique=True))
    return Events(bad=REDEMPTION_REQUESTS.where(**{**every.values, label: bad}), all=every)


@st.composite
def latencies(draw: DrawFn) -> Latency:
    """A histogram and one of its edges."""
    metric = draw(st.sampled_from(_HISTOGRAMS))
    return Latency(draw(selections(metric)), draw(st.sampled_from(metric.buckets)))


@st.composite
def time_slices(draw: DrawFn) -> TimeSlice:
    """A gauge and one limit."""
    limit = {draw(st.sampled_from(["bad_above", "bad_below"])): draw(st.decimals(-1000, 1000, places=5))}
    return TimeSlice(draw(selections(ODD)), slice_seconds=draw(_slice_lengths), **limit)


_slice_lengths = st.sampled_from([1, 15, 30, 60, 300])
_freshness = st.builds(Freshness, selections(ODD_TIME), st.integers(1, 10**7), _slice_lengths)
_recency = st.builds(Recency, selections(ODD_TIME), st.integers(1, 10**7), _slice_lengths)
_queries = st.just(
    Queries(
        bad='sum by (pod) (rate(http_total{code=~"5.."}[{{.window}}])) # all pods',
        all="sum by (pod) (rate(http_total[{{ .window }}]))",
    )
)
_ratio_query = st.just(RatioQuery("1 - avg(avg_over_time(up[{{.window}}]))"))
slis: SearchStrategy[Sli] = st.one_of(
    events(), latencies(), time_slices(), _freshness, _recency, _queries, _ratio_query
)


@st.composite
def slos(draw: DrawFn) -> Slo:
    """An SLO that can be built, with any of its options."""
    sli = draw(slis)
    burn: Literal["budget", "ratio"] = (
        "ratio" if isinstance(sli, RatioQuery) else draw(st.sampled_from(["budget", "ratio"]))
    )
    severities = draw(st.lists(st.sampled_from(Severity), unique=True))
    options: dict[str, Any] = {
        "expected_events_per_second": draw(st.none() | st.decimals(Decimal("0.001"), 10**6, places=3)),
        "budget_bad_events_min": draw(st.integers(1, 100)),
        "people_bad_events_min": draw(st.integers(1, 10**6)),
        "absent_after": draw(st.sampled_from([timedelta(minutes=1), timedelta(minutes=90)])),
        "alert_name": draw(st.none() | _LABEL_NAMES),
        "labels": draw(_LABELS),
        "annotations": draw(_LABELS),
        "links": draw(st.dictionaries(_TEXTS, st.just("https://example.com/?a=b"), max_size=1)),
    }
    try:
        return Slo(
            service=draw(_IDS),
            name=draw(_IDS),
            description=draw(_TEXTS),
            owner=draw(_TEXTS),
            objective=draw(objectives),
            sli=sli,
            window=draw(windows),
            burn=burn,
            alerts=[Alert(severity, draw(_LABELS), draw(_LABELS)) for severity in severities],
            **options,
        )
    except SloError:
        reject()
