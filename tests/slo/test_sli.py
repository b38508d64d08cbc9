"""How each kind of SLI reads its series: right for our own recording, and for generators with windows of their own."""

from __future__ import annotations

from datetime import timedelta

import promql_parser
import pytest
from hypothesis import HealthCheck, given, settings

from slo import CompiledSlo, Counter, Events, Freshness, Queries, RatioQuery, Recency, Slo, TimeSlice, compile_slo
from slo.sli import event_rates, over_window, window_queries, worst_value
from slo.windows import MINUTE
from tests.alerts.every_kind import BUSY, DONE, EVERY_KIND, OLDEST, promise
from tests.slo.strategies import slos

KINDS = {slo.name: slo for slo in EVERY_KIND}


def compiled(name: str) -> CompiledSlo:
    """One promise of each kind."""
    return compile_slo(KINDS[name])


def test_bad_events_exist_before_the_first_one() -> None:
    """A month without errors must read 0, not nothing: bad falls back to 0 times what all has."""
    all_events, bad_events, *_ = compiled("events").recordings
    assert all_events.expr == "sum(rate(shop_requests_total[5m]))"
    assert bad_events.expr == (
        r'sum(rate(shop_requests_total{code=~"4\\.x|error"}[5m]))'
        '\nor\n0 * sum(slo:all_events:rate5m{sloth_id="shop-events"})'
    )


def test_latency_reads_the_edge_as_python_exposes_it() -> None:
    """`le="1.0"`: slow is all minus what was fast enough, and never below nothing."""
    _, slow, *_ = compiled("latency").recordings
    assert slow.expr == (
        "clamp_min(\n"
        '  sum(rate(shop_duration_seconds_count{code="ok"}[5m]))\n'
        '  - sum(rate(shop_duration_seconds_bucket{code="ok", le="1.0"}[5m])),\n'
        "  0\n)"
    )


def test_slices_are_counted_per_second_of_the_shortest_window() -> None:
    """A slice is an event: so many a second, bad when the worst value of any series is beyond the limit."""
    all_slices, bad_slices, *_ = compiled("slice-above").recordings
    assert all_slices.expr == "count_over_time(max(shop_pool_busy_ratio)[5m:1m]) / 300"
    assert bad_slices.expr == ("sum_over_time((max(max_over_time(shop_pool_busy_ratio[1m])) > bool 0.9)[5m:1m]) / 300")
    _, below, *_ = compiled("slice-below").recordings
    assert below.expr == (
        'sum_over_time((min(min_over_time(shop_pool_busy_ratio{pool="read"}[30s])) < bool 0.2)[5m:30s]) / 300'
    )


def test_freshness_takes_0_for_nothing_waits() -> None:
    """The Unix time 0 must not read as something that waits since 1970."""
    _, late, *_ = compiled("freshness").recordings
    assert late.expr == (
        "sum_over_time(((time() - min(shop_oldest_timestamp_seconds > 0) > bool 300)"
        " or 0 * min(shop_oldest_timestamp_seconds))[5m:1m]) / 300"
    )


def test_recency_takes_0_for_never() -> None:
    """What was never done is late by itself, as 1970 is long ago; of several processes the latest counts."""
    all_slices, late, *_ = compiled("recency").recordings
    assert all_slices.expr == "count_over_time(max(shop_done_timestamp_seconds)[5m:1m]) / 300"
    assert late.expr == "sum_over_time((time() - max(shop_done_timestamp_seconds) > bool 600)[5m:1m]) / 300"


def test_foreign_queries_keep_their_text_and_get_their_window() -> None:
    """Both spellings of the placeholder are filled in; the query is summed, so its labels cannot collide."""
    all_events, bad_events, *_ = compiled("queries").recordings
    assert "sum by (pod) (rate(shop_requests_total[5m]))" in all_events.expr
    assert 'sum by (pod) (rate(shop_requests_total{code=~"error|4.x"}[5m]))' in bad_events.expr
    assert all(expr.startswith("sum(") for expr in (all_events.expr, bad_events.expr))
    assert over_window("x[{{.window}}] / y[{{ .window }}]", 90 * MINUTE) == "x[1h30m] / y[1h30m]"


@pytest.mark.parametrize("comment", ["# a remark", "# ) or vector(1)"])
def test_a_comment_at_the_end_of_a_foreign_query_is_no_harm(comment: str) -> None:
    """A query may end in a remark, which reaches to the end of its line and must not swallow what we add."""
    query, other = (f"rate({name}[{{{{.window}}}}]) {comment}" for name in ("x", "y"))
    ratio, both = promise("any", sli=RatioQuery(query), burn="ratio"), promise("any", sli=Queries(query, other))
    for slo in (ratio, both):
        for rule in compile_slo(slo).recordings[:2]:
            promql_parser.parse(rule.expr)


def test_presence_is_read_from_the_raw_series_where_it_can() -> None:
    """No errors is not no data; foreign queries cannot tell which of their series must exist, so all stands in."""
    presence = {
        name: event_rates(slo.sli, compile_slo(slo).policy, "recorded_all").presence for name, slo in KINDS.items()
    }
    assert presence == {
        "events": "sum(shop_requests_total)",
        "latency": 'sum(shop_duration_seconds_count{code="ok"})',
        "slice-above": "sum(shop_pool_busy_ratio)",
        "slice-below": 'sum(shop_pool_busy_ratio{pool="read"})',
        "freshness": "sum(shop_oldest_timestamp_seconds)",
        "recency": "sum(shop_done_timestamp_seconds)",
        "queries": None,
        "ratio": None,
    }
    *_, absent = compiled("queries").alerts
    assert absent.expr == 'absent(slo:all_events:rate5m{sloth_id="shop-queries"})'


def test_what_a_slice_is_judged_by_can_be_shown() -> None:
    """Boards and runbooks show the value itself: the worst one, or an age in seconds."""
    assert worst_value(TimeSlice(BUSY.where(), bad_above=None)) == "min(shop_pool_busy_ratio)"
    assert worst_value(KINDS["slice-above"].sli) == "max(shop_pool_busy_ratio)"  # type: ignore[arg-type]
    assert worst_value(Freshness(OLDEST.where(queue="a"), 300)) == (
        'time() - min(shop_oldest_timestamp_seconds{queue="a"} > 0)\n'
        'or\n0 * min(shop_oldest_timestamp_seconds{queue="a"})'
    )
    assert worst_value(Recency(DONE.where(batch="a"), 300)) == 'time() - max(shop_done_timestamp_seconds{batch="a"})'


@given(slos())
@settings(max_examples=30, suppress_health_check=[HealthCheck.too_slow])
def test_other_generators_get_promql_with_room_for_their_window(slo: Slo) -> None:
    """Whatever the SLI, what Sloth and OpenSLO carry holds `{{.window}}` and is PromQL once it is filled in."""
    queries = window_queries(slo.sli, compile_slo(slo).policy)
    texts = (queries.ratio,) if isinstance(queries, RatioQuery) else (queries.bad, queries.all)
    for text in texts:
        filled = over_window(text, timedelta(hours=6))
        assert filled != text.strip()
        promql_parser.parse(filled)


def test_a_label_value_that_looks_like_the_placeholder_stays() -> None:
    """Only foreign queries are filled in: a value of ours that reads `{{.window}}` is a value."""
    odd = Counter("odd_total", "Odd.", labels={"kind": ("{{.window}}", "b")})
    _, bad, *_ = compile_slo(promise("any", sli=Events(odd.where(kind="{{.window}}"), odd.where()))).recordings
    assert 'kind="{{.window}}"' in bad.expr


@pytest.mark.parametrize("name", sorted(KINDS))
def test_queries_of_other_generators_exist_whenever_all_does(name: str) -> None:
    """Sloth divides bad by all: a bad that is born late would leave no ratio, so it falls back to 0 as well."""
    slo = KINDS[name]
    queries = window_queries(slo.sli, compile_slo(slo).policy)
    if isinstance(slo.sli, Events | Queries):
        assert isinstance(queries, Queries)
        assert queries.bad.endswith(f"\nor\n0 * {queries.all}")
