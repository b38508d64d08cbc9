"""A review in all its forms: the same facts, and nothing that its names could break."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from review import charts, facts, html, report, sentences, words
from review.model import Span
from tests.review.checks import problems_of_page
from tests.review.making import BEGIN, made_review


def test_the_page_is_whole_and_needs_nothing_else() -> None:
    """Well-formed, every id once, every picture with a name, and not a single address in it."""
    assert problems_of_page(html.page(made_review())) == []


@pytest.mark.parametrize(
    ("broken", "fault"),
    [
        (("</main>", ""), "closes"),
        (("</style>", "</style><script></script>"), "self-contained"),
        (("<footer>", '<footer><a href="https://example.com">x</a>'), "self-contained"),
        (('id="slo1"', 'id="slo2"'), "twice"),
        (('role="img"', ""), "a picture without a name"),
    ],
)
def test_a_broken_page_is_seen(broken: tuple[str, str], fault: str) -> None:
    """The check above can fail."""
    page = html.page(made_review()).replace(*broken)
    assert any(fault in problem for problem in problems_of_page(page))


def test_what_people_wrote_is_text() -> None:
    """A reason, an approver, a warning or a name with HTML in it stays what it is."""
    page = html.page(made_review())
    for hostile in ("<b>Drill</b>", "<Co>", "store <2>", "rds/<calls>"):
        assert hostile not in page
        assert hostile.replace("<", "&lt;").replace(">", "&gt;") in page
    assert "\\<b>Drill\\</b> \\| \\`x\\`" in report.markdown(made_review())


@pytest.mark.parametrize("write", [report.table_text, report.markdown, facts.json_text, html.page])
def test_every_form_tells_everything(write: object) -> None:
    """The budget, the incident, its component, the needless page, the adjustment, the gap, and that it is partial."""
    assert callable(write)
    text = " ".join(write(made_review()).split()).lower()
    for word in ("redemption", "rds", "drill", "dana", "partial", "does not answer", "a note"):
        assert word in text, word
    needless = '"for_nothing": true' if write is facts.json_text else "for nothing"
    assert needless in text


def test_a_whole_report_is_not_called_partial() -> None:
    """Without a warning, the word is in none of them."""
    whole = made_review(warnings=())
    assert "artial:" not in report.table_text(whole) + report.markdown(whole) + html.page(whole)
    assert json.loads(facts.json_text(whole))["partial"] is False


def test_json_is_plain() -> None:
    """No NaN, times in UTC, and what is not known is null."""
    told = json.loads(facts.json_text(made_review()), parse_constant=pytest.fail)
    unknown, gone, fine = told["slos"]
    assert unknown["budget"] is None
    assert gone["incidents"][0]["from"].endswith("Z")
    assert gone["budget"]["left"] == pytest.approx(1 - gone["budget"]["spent"])
    assert fine["forecast"]["probability"] == 0


def test_the_headline_counts() -> None:
    """What one would say first."""
    assert sentences.headline(made_review()) == "3 SLOs, 1 without budget left, 1 without data, 1 incident"


def test_burn_down_draws_every_incident_and_gap() -> None:
    """An outage of an hour in 30 days still has a width; no-data is dotted, exclusions are crossed."""
    _, told, _ = made_review().slos
    assert told.budget is not None
    drawn = charts.burn_down(
        "k",
        charts.Axis(told.budget.period),
        told.budget.burn_down,
        incidents=told.incidents,
        gaps=told.gaps,
        excluded=[Span(BEGIN, BEGIN + 60)],
    )
    assert [drawn.count(f'class="{kind}"') for kind in ("incident", "gap", "excluded")] == [1, 1, 1]
    assert 'width="2"' in drawn
    assert "NaN" not in drawn
    assert "nan" not in drawn


def test_the_heat_map_counts_its_hours() -> None:
    """The outage burned two hours of the map at most; what is not known is no quiet hour."""
    _, told, _ = made_review().slos
    assert told.budget is not None
    drawn = charts.heat_map("k", charts.Axis(told.budget.period), told.windows, 0.001)
    assert "2 hours of 14.4 x and more" in drawn
    assert "2 hours without data" in drawn


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (words.length(45), "45 s"),
        (words.length(3_000), "50 min"),
        (words.length(12_000), "3 h 20 min"),
        (words.length(86_399 * 2), "2 d"),
        (words.length(187_200), "2 d 4 h"),
        (words.percent(-0.0001), "0.0 %"),
        (words.percent(1.0751), "107.5 %"),
        (words.count(0.2), "0.2"),
        (words.count(9.99), "10"),
        (words.count(1_234.4), "1,234"),
        (words.count(12_345_678), "12.3 M"),
        (words.minutes(4.321), "4.32 min"),
        (words.minutes(432.1), "432 min"),
        (words.burn(14.44), "14.4 x"),
        (words.span(Span(BEGIN, BEGIN + 600)), "Mon 16 Jun 00:00 to 00:10"),
        (words.span(Span(BEGIN, BEGIN + 86_400)), "Mon 16 Jun 00:00 to Tue 17 Jun 00:00"),
        (words.iso(BEGIN), datetime.fromtimestamp(BEGIN, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")),
    ],
)
def test_words(said: str, expected: str) -> None:
    """Numbers and times as people write them."""
    assert said == expected
