"""The writer of PromQL: what it writes means what it was given, whatever is in the labels."""

from __future__ import annotations

import re
from datetime import timedelta

import promql_parser
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slo import Counter, Histogram, promql
from slo.windows import HOUR, MINUTE

REQUESTS = Counter("http_total", "Requests.", labels={"code": ("200", "500", "5.x", "a|b"), "pod": ("a",)})
SECONDS = Histogram("http_seconds", "Duration.", labels={"code": ("200", "500")}, buckets=(0.5, 1.0))

# What UTF-8 can hold; a scrape could not carry the rest either.
texts = st.text(st.characters(codec="utf-8"), max_size=30)


@given(texts)
def test_a_string_reads_back_as_it_was(text: str) -> None:
    """Quotes, backslashes and line ends are escaped: a PromQL parser gives the same text back."""
    parsed = promql_parser.parse(promql.quoted(text))
    assert isinstance(parsed, promql_parser.StringLiteral)
    assert parsed.val == text


@given(st.lists(texts.filter(bool), min_size=2, max_size=4, unique=True))
def test_several_values_match_these_and_nothing_else(values: list[str]) -> None:
    """A dot or a bar in a value is itself, not a pattern: the regular expression matches just the given values."""
    parsed = promql_parser.parse(f"x{promql.matchers({'code': values})}")
    assert isinstance(parsed, promql_parser.VectorSelector)
    (matcher,) = parsed.matchers.matchers
    assert matcher.name == "code"
    assert matcher.op == promql_parser.MatchOp.Re
    pattern = re.compile(matcher.value)
    assert all(pattern.fullmatch(value) for value in values)
    for value in values:
        assert not pattern.fullmatch(value + "x") or value + "x" in values


def test_a_dot_in_one_of_several_values_matches_a_dot_only() -> None:
    """`5.x` among alternatives must not count the code 50x."""
    assert promql.matchers({"code": ["5.x", "a|b"]}) == r'{code=~"5\\.x|a\\|b"}'


def test_matchers_are_sorted_and_one_value_is_compared_plainly() -> None:
    """The same selection is always the same text, and one value needs no regular expression."""
    assert promql.matchers({"b": ["y"], "a": "x"}) == '{a="x", b="y"}'
    assert promql.matchers({}) == ""


def test_a_series_is_its_name_with_its_matchers() -> None:
    """Suffix and further labels are for a histogram's parts."""
    assert promql.series(REQUESTS.where()) == "http_total"
    assert promql.series(REQUESTS.where(code="500")) == 'http_total{code="500"}'
    assert promql.series(SECONDS.where(code="200"), "_bucket", le="1.0") == 'http_seconds_bucket{code="200", le="1.0"}'


def test_a_rate_is_summed_over_all_series() -> None:
    """No label is left, so none can appear later and collide."""
    assert promql.rate("http_total", 5 * MINUTE) == "sum(rate(http_total[5m]))"
    assert promql.rate("http_total", "{{.window}}") == "sum(rate(http_total[{{.window}}]))"


def test_a_step_makes_a_subquery() -> None:
    """With a step the range is evaluated, without it the samples are read."""
    assert promql.over_time("avg", "x", HOUR) == "avg_over_time(x[1h])"
    assert promql.over_time("max", "x", HOUR, timedelta(seconds=30)) == "max_over_time(x[1h:30s])"


@pytest.mark.parametrize(
    ("joined", "text"),
    [
        (promql.any_of(["a"]), "a"),
        (promql.any_of(["a\nand b", "c"]), "(\n  a\n  and b\n)\nor\n(\n  c\n)"),
        (promql.all_of(["a > 1", "b > 2"]), "a > 1\nand b > 2"),
        (promql.indented("a\nb"), "  a\n  b"),
    ],
)
def test_conditions_are_joined_one_a_line(joined: str, text: str) -> None:
    """Alternatives stand in brackets of their own, as `and` binds tighter than `or` in the eyes of a parser only."""
    assert joined == text
