"""Rules across SLOs: every problem of every SLO in one run, with the arithmetic."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from slo import Alert, Rolling, Severity, Slo, compile_slo
from slo.check import Finding, Level, check
from slo.settings import definitions, load
from tests.alerts.every_kind import EVERY_KIND, EVERY_OPTION, OTHER_PERIODS, promise
from tests.contract.places import ROOT

DIFFER = "ids must differ by more than case, - and _"


def findings(*slos: Slo) -> tuple[Finding, ...]:
    """What is said about these."""
    return check([compile_slo(slo) for slo in slos])


def told(*slos: Slo) -> list[tuple[str, str, str]]:
    """The same, as plain texts."""
    return [(str(finding.level), finding.subject, finding.text) for finding in findings(*slos)]


def traffic(per_second: str, **changes: Any) -> Slo:  # noqa: ANN401 - any field of any type
    """A promise of 99.99 % with so many events to expect."""
    values = {"objective": Decimal("99.99"), "expected_events_per_second": Decimal(per_second)}
    return promise("any", **{**values, **changes})


def test_our_own_definitions_are_sound() -> None:
    """Nothing to find, not even a warning, in what this repository promises, and in the SLOs of other tests."""
    assert findings(*definitions(load(ROOT / "pyproject.toml"))) == ()
    assert findings(*EVERY_KIND, *EVERY_OPTION, *OTHER_PERIODS.values()) == ()
    assert findings() == ()


def test_two_ids_that_are_spelled_alike_are_found() -> None:
    """`a-b` + `c` and `a` + `b-c` are both `a-b-c`: their series would be one. Both SLOs are told of the other."""
    one = replace(promise("c-d"), service="aa-bb", alerts=())
    other = replace(promise("bb-c-d"), service="aa", alerts=())
    assert told(one, other) == [
        ("problem", "aa-bb/c-d", f"has the id 'aa-bb-c-d', as aa/bb-c-d has; {DIFFER}"),
        ("problem", "aa/bb-c-d", f"has the id 'aa-bb-c-d', as aa-bb/c-d has; {DIFFER}"),
    ]


def test_ids_that_differ_by_case_alone_are_found() -> None:
    """Their files would be one file on a disk that does not tell case."""
    assert [(subject, text) for _, subject, text in told(promise("Any", alerts=()), promise("any", alerts=()))] == [
        ("shop/Any", f"has the id 'shop-Any', as shop/any has; {DIFFER}"),
        ("shop/any", f"has the id 'shop-any', as shop/Any has; {DIFFER}"),
    ]


def test_ids_that_differ_by_a_separator_alone_are_found() -> None:
    """Kubernetes names know no `_`: of two PrometheusRule objects with one name, the second would replace the first."""
    assert told(promise("x-y"), promise("x_y", alert_name="Other")) == [
        ("problem", "shop/x-y", f"has the id 'shop-x-y', as shop/x_y has; {DIFFER}"),
        ("problem", "shop/x_y", f"has the id 'shop-x_y', as shop/x-y has; {DIFFER}"),
    ]


def test_alert_names_that_differ_by_case_alone_are_found() -> None:
    """An alert's name is its runbook's file; all three alerts of both SLOs are told, and what helps."""
    named, shouting = promise("one", alert_name="ShopBurns"), promise("two", alert_name="SHOPBURNS")
    problems = told(named, shouting)
    assert len(problems) == 6
    assert problems[0] == (
        "problem",
        "shop/one",
        "has the alert 'ShopBurnsAbsent', as shop/two has; set alert_name on one of them",
    )
    assert problems[-1][1:] == (
        "shop/two",
        "has the alert 'SHOPBURNSTicket', as shop/one has; set alert_name on one of them",
    )


def test_separators_vanish_from_alert_names() -> None:
    """`x-y` and `x.y` are different ids with the same alerts."""
    assert {text.split("'")[1] for _, _, text in told(promise("x-y"), promise("x.y"))} == {
        "ShopXYPage",
        "ShopXYTicket",
        "ShopXYAbsent",
    }


def test_three_that_share_are_told_of_each_other() -> None:
    """Everybody who must change something is named."""
    three = [promise("a.a", alerts=()), promise("a.A", alerts=()), promise("A.A", alerts=())]
    assert [text for _, _, text in told(*three)] == [
        f"has the id 'shop-A.A', as shop/a.a, shop/a.A has; {DIFFER}",
        f"has the id 'shop-a.A', as shop/a.a, shop/A.A has; {DIFFER}",
        f"has the id 'shop-a.a', as shop/a.A, shop/A.A has; {DIFFER}",
    ]


def test_an_objective_finer_than_its_traffic_is_told_with_the_arithmetic() -> None:
    """At 0.1 events/s, 99.99 % of 30 days are 25.9 bad events; a page at 2 % of them cannot wait for 3."""
    assert told(traffic("0.1")) == [
        (
            "warning",
            "shop/any",
            (
                "the objective is finer than the traffic can show: 0.1 events/s x 2592000 s x (1 - 99.99 %) = 25.9 bad "
                "events a period, of which a page's 2 % are 0.518, fewer than the 3 that it waits for; take a lower "
                "objective, a longer period, or at least 0.58 events/s (synthetic ones count)"
            ),
        )
    ]


@pytest.mark.parametrize(("per_second", "count"), [("0.57", 1), ("0.5787037", 1), ("0.57870371", 0), ("0.58", 0)])
def test_the_boundary_is_where_a_page_is_three_events(per_second: str, count: int) -> None:
    """3 = 2 % x traffic x 2,592,000 s x 0.0001, so 0.5787037037... events/s; what the warning asks for is enough."""
    assert len(findings(traffic(per_second))) == count


def test_the_boundary_moves_with_the_minimum_and_the_period() -> None:
    """Ten events need more traffic than three, and a week holds fewer than a month."""
    assert "at least 1.93 events/s" in findings(traffic("1", budget_bad_events_min=10))[0].text
    assert findings(traffic("1.93", budget_bad_events_min=10)) == ()
    week = findings(traffic("0.5", window=Rolling(7)))
    assert "x 604800 s x (1 - 99.99 %) = 30.2 bad events a period, of which a page's 8.57 % are 2.59" in week[0].text


def test_without_a_page_by_budget_there_is_nothing_to_warn_of() -> None:
    """Unknown traffic, or the classic burn, which does not count events: no warning."""
    assert findings(traffic("0.1", expected_events_per_second=None)) == ()
    assert findings(traffic("0.1", burn="ratio")) == ()


def test_problems_come_before_warnings_and_all_in_one_run() -> None:
    """Two unrelated faults and a warning: one run, problems first, each by SLO."""
    found = findings(
        traffic("0.1"),
        promise("dup", alerts=()),
        promise("DUP", alerts=()),
        promise("b-b", alerts=(Alert(Severity.PAGE),)),
        promise("b.b", alerts=(Alert(Severity.PAGE),)),
    )
    assert [(finding.level, finding.subject) for finding in found] == [
        (Level.PROBLEM, "shop/DUP"),
        (Level.PROBLEM, "shop/b-b"),
        (Level.PROBLEM, "shop/b-b"),
        (Level.PROBLEM, "shop/b.b"),
        (Level.PROBLEM, "shop/b.b"),
        (Level.PROBLEM, "shop/dup"),
        (Level.WARNING, "shop/any"),
    ]
