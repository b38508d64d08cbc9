"""The promises as plain data: what machines read, and what `slo diff` compares."""

from __future__ import annotations

import json
from dataclasses import replace
from decimal import Decimal

from hypothesis import HealthCheck, given, settings

from slo import Alert, CalendarMonth, CompiledSlo, Queries, RatioQuery, Rolling, Severity, Slo, compile_slo
from slo.catalogue import budget_events, budget_minutes, facts_of, full_outage_seconds, render, sli_text
from slo.compile import Reason
from slo.definitions import redemption
from tests.alerts.every_kind import EVERY_KIND, promise
from tests.slo.strategies import slos


def availability(**changes: object) -> CompiledSlo:
    """99.99 % over 30 days at 27 events/s, or a variation."""
    return compile_slo(replace(redemption.availability, **changes))  # type: ignore[arg-type]


def test_the_facts_of_an_slo_are_these() -> None:
    """All that a definition promises, whole, so that a change of the format is seen; numbers are texts."""
    slo = promise(
        "checkout",
        objective=Decimal("99.90"),
        expected_events_per_second=Decimal(2),
        labels={"tier": "1", "cluster": "eu"},
        links={"Wiki": "https://wiki.example.com"},
        alerts=(Alert(Severity.TICKET, labels={"queue": "web"}, annotations={"chat": "#shop"}),),
    )
    ticket, absent = facts_of(compile_slo(slo)).pop("alerts")
    assert ticket == {
        "name": "ShopCheckoutTicket",
        "kind": "burn",
        "severity": "ticket",
        "hold_seconds": "0",
        "ways": [
            {
                "reason": "budget",
                "long": long,
                "short": short,
                "factor": factor,
                "full_outage_seconds": seconds,
                "bad_events_min": 3,
            }
            for long, short, factor, seconds in (("1d", "2h", "3", "259.2"), ("3d", "6h", "1", "259.2"))
        ],
        "labels": {"queue": "web"},
        "annotations": {"chat": "#shop"},
    }
    assert absent == {
        "name": "ShopCheckoutAbsent",
        "kind": "absent",
        "severity": "ticket",
        "hold_seconds": "300",
        "ways": [],
        "labels": {"queue": "web"},
        "annotations": {"chat": "#shop"},
    }
    facts = facts_of(compile_slo(slo))
    del facts["alerts"]
    assert facts == {
        "id": "shop-checkout",
        "service": "shop",
        "name": "checkout",
        "description": "The checkout of the shop: it holds.",
        "owner": "shop-team",
        "objective_percent": "99.9",
        "period": "30 days",
        "sli": r'bad: shop_requests_total{code=~"4\\.x|error"}; all: shop_requests_total',
        "burn": "budget",
        "budget": {"ratio": "0.001", "minutes": "43.2", "events": "5184"},
        "labels": {"cluster": "eu", "tier": "1"},
        "links": {"Wiki": "https://wiki.example.com"},
        "component": None,
        "signals": [],
    }


def test_the_budget_in_minutes_and_events() -> None:
    """99.99 % of 30 days are 4.32 min; at 27 events/s 6,998.4 events. A week holds less, a month counts as 30 days."""
    assert budget_minutes(availability()) == Decimal("4.32")
    assert budget_events(availability()) == Decimal("6998.4")
    assert budget_minutes(availability(window=Rolling(7))) == Decimal("1.008")
    assert budget_minutes(availability(window=CalendarMonth())) == Decimal("4.32")
    assert budget_events(availability(expected_events_per_second=None)) is None
    assert facts_of(availability(expected_events_per_second=None))["budget"]["events"] is None


def test_how_long_a_full_outage_takes_to_alert() -> None:
    """14.4 x 0.0001 of an hour are 5.184 s; at 99.9 % ten times as long."""
    page = availability().alerts[0]
    assert [full_outage_seconds(way, availability()) for way in page.ways] == [
        Decimal("5.184"),
        Decimal("5.184"),
        Decimal("12.96"),
        Decimal("12.96"),
    ]
    less = availability(objective=Decimal("99.9"))
    assert full_outage_seconds(less.alerts[0].ways[0], less) == Decimal("51.84")


def test_the_minimum_of_bad_events_is_that_of_the_way() -> None:
    """The budget's, the people's, and none for the classic rule."""
    facts = facts_of(compile_slo(promise("any", budget_bad_events_min=7, people_bad_events_min=70)))
    assert {way["reason"]: way["bad_events_min"] for alert in facts["alerts"] for way in alert["ways"]} == {
        str(Reason.BUDGET): 7,
        str(Reason.PEOPLE): 70,
    }
    classic = facts_of(compile_slo(promise("any", burn="ratio")))
    assert {way["bad_events_min"] for alert in classic["alerts"] for way in alert["ways"]} == {0}


def test_what_counts_as_bad_reads_in_one_line() -> None:
    """Words and selectors; foreign queries lose their line ends."""
    texts = {slo.name: sli_text(slo.sli) for slo in EVERY_KIND}
    assert texts == {
        "events": r'bad: shop_requests_total{code=~"4\\.x|error"}; all: shop_requests_total',
        "latency": 'bad: slower than 1 s; all: shop_duration_seconds{code="ok"}',
        "slice-above": "bad: slices of 60 s in which shop_pool_busy_ratio is above 0.9",
        "slice-below": 'bad: slices of 30 s in which shop_pool_busy_ratio{pool="read"} is below 0.2',
        "freshness": (
            "bad: slices of 60 s in which something has waited for more than 300 s; "
            "oldest: shop_oldest_timestamp_seconds"
        ),
        "recency": (
            "bad: slices of 60 s in which it was last done more than 600 s ago, or never; "
            "last: shop_done_timestamp_seconds"
        ),
        "queries": (
            'bad: sum by (pod) (rate(shop_requests_total{code=~"error|4.x"}[{{.window}}])); '
            "all: sum by (pod) (rate(shop_requests_total[{{ .window }}]))"
        ),
        "ratio": "bad share: avg(avg_over_time(shop_pool_busy_ratio[{{.window}}]))",
    }
    assert sli_text(RatioQuery("a\n  /\nb")) == "bad share: a / b"
    assert sli_text(Queries(bad="x\ny", all=" z ")) == "bad: x y; all: z"


@given(slos())
@settings(max_examples=30, suppress_health_check=[HealthCheck.too_slow])
def test_every_slo_is_json_that_reads_back(slo: Slo) -> None:
    """Numbers are plain texts that keep every digit; the file ends with a line end and is the same each time."""
    (artefact,) = render([compile_slo(slo)])
    assert str(artefact.path) == "slos.json"
    assert artefact.text.endswith("}\n")
    assert render([compile_slo(slo)]) == [artefact]
    (facts,) = json.loads(artefact.text)["slos"]
    assert facts == facts_of(compile_slo(slo))
    assert Decimal(facts["objective_percent"]) == slo.objective
    assert Decimal(facts["budget"]["ratio"]) == slo.budget_ratio
    assert "E" not in facts["budget"]["minutes"]


def test_no_promise_is_a_file_all_the_same() -> None:
    """An empty list, not a missing file."""
    assert json.loads(render([])[0].text) == {"slos": [], "causes": []}
