"""The console against a real Prometheus with our rules, by HTTP and in a real browser."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Iterator
from html import unescape
from typing import Any

import httpx
import pytest

from review.console.live import State, spans
from tests.review.checks import problems_of_page
from tests.review.console_live import BURNING, CALM, LINKS, PAGE, TICKET, UNKNOWN, Watched, watched

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """One Prometheus for all."""
    with watched(tmp_path_factory.mktemp("rules")) as live:
        yield live


def get(live: Watched, path: str = "", **query: str) -> str:
    """The text of a page that is there."""
    answer = httpx.get(live.url + path, params=query, trust_env=False)
    assert answer.status_code == 200
    return answer.text


def test_the_figures_are_those_of_the_rules(live: Watched) -> None:
    """What is left, and how fast it goes: a fifth of bad events at 99.9 % burns 200 times too fast."""
    burning, unknown, calm = live.source.now(live.slos).slos
    assert [one.state for one in (burning, unknown, calm)] == [State.PAGE, State.UNKNOWN, State.FINE]
    assert burning.compiled == BURNING
    assert burning.worst is not None
    assert burning.worst[0] == pytest.approx(200, rel=0.15)
    recorded = live.server.value(BURNING.named("slo:period_error_budget_remaining:ratio"))
    assert burning.left == pytest.approx(recorded, rel=0.1)
    assert (calm.left, calm.worst and calm.worst[0]) == (1, 0)
    assert (unknown.left, unknown.worst) == (None, None)
    assert (burning.late_seconds, calm.late_seconds) == (None, None)


def test_history_shows_what_happened(live: Watched) -> None:
    """Events per second, the share of good ones and every window's burn, up to now."""
    history = live.source.history(BURNING, spans(BURNING)["1m"])
    assert history.every[-1][1] > 0
    assert history.good_share[-1][1] == pytest.approx(0.8, rel=0.05)
    assert history.left[-1][1] < 0
    assert {window for window, points in history.burns.items() if points} == set(BURNING.policy.alert_windows)
    assert history.span.seconds == 60
    assert history.every[0][0] >= history.span.begin
    assert history.every[-1][0] > history.span.end - 15  # a busy machine runs rules late
    nothing = live.source.history(UNKNOWN, spans(UNKNOWN)["1m"])
    assert (nothing.every, nothing.good_share, nothing.left) == ((), (), ())


def test_the_list_is_sorted_by_what_burns(live: Watched) -> None:
    """In words; and the alerts have their links."""
    page = get(live)
    rows = re.findall(r'<tr><th scope="row"><a [^>]+>([^<]+)</a>.*?</tr>', page)
    assert rows == [one.slo.id_path for one in (BURNING, UNKNOWN, CALM)]
    assert page.index(State.PAGE) < page.index(State.UNKNOWN) < page.index(f" {State.FINE}<")
    assert "1 page fires, 1 ticket fires" in page
    for alert, handling in ((PAGE, "told"), (TICKET, "silenced")):
        assert re.search(rf"<strong>{alert}</strong></span> \w+, fires for [^<]+, {handling}</p>", page)
    assert f'href="{LINKS.runbooks}/{PAGE}.md"' in page
    assert f'href="{LINKS.grafana}/d/slo-detail/' in unescape(page)


@pytest.mark.parametrize("path", ["", "slo/redemption/availability", "slo/ledger/calls"])
def test_pages_are_sound(live: Watched, path: str) -> None:
    """Tags closed, ids unique, pictures named."""
    problems = [one for one in problems_of_page(get(live, path)) if "self-contained" not in one]
    assert problems == []


def test_each_time_is_shown(live: Watched) -> None:
    """The charts have data, and the chosen time is marked as such."""
    for name in spans(BURNING):
        page = get(live, "slo/redemption/availability", range=name)
        assert re.findall(r'aria-current="true">([^<]+)<', page) == [name]
    for title in ("Good events", "Budget left", "Burn over 1m and 5s", "Burn over 6m and 30s", "Events per second"):
        assert f">{title}</title>" in page
    assert re.findall(r"<desc[^>]*>[^<]*no data", page) == []


def test_many_tabs_ask_no_more_than_one(live: Watched) -> None:
    """Within the seconds for which an answer is kept, Prometheus is asked once."""

    def asked() -> float:
        url = f"{live.server.url}/metrics"
        found = re.search(
            r'prometheus_http_requests_total\{code="200",handler="/api/v1/alerts"\} (\S+)',
            httpx.get(url, trust_env=False).text,
        )
        assert found
        return float(found[1])

    get(live)
    before, began = asked(), time.monotonic()
    for _ in range(20):
        get(live)
        get(live, "slo/ledger/calls")
    assert asked() - before <= 2 + (time.monotonic() - began) / 4


# --- in a browser ---------------------------------------------------------------------------------------------------

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
in_a_browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on the PATH: apt-get install chromium")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A Chromium without a window."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: make setup")
    with playwright.sync_playwright() as starting:
        running = starting.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield running
        running.close()


@pytest.fixture
def page(browser: Any, live: Watched) -> Iterator[Any]:  # noqa: ANN401 - playwright's
    """A page that asks nobody but the console, and of which nothing complains."""
    page = browser.new_page()
    said: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    yield page
    page.close()
    assert said == []
    assert asked
    assert [url for url in asked if not url.startswith(live.url)] == []


def focused(page: Any) -> str:  # noqa: ANN401 - playwright's
    """The text of what has the focus, and whether that can be seen."""
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline != "none" or page.evaluate("document.activeElement.id") == "main"
    text: str = page.evaluate("document.activeElement.innerText.trim() || document.activeElement.id")
    return text


@in_a_browser
def test_by_keyboard_from_the_list_to_an_slo_and_back(page: Any, live: Watched) -> None:  # noqa: ANN401 - playwright's
    """Tab and Enter are enough; the skip link comes first, the order is that of the page, and focus is seen."""
    page.goto(live.url)
    page.keyboard.press("Tab")
    assert focused(page) == "Skip to the content"
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    assert focused(page) == "q"
    page.keyboard.type("avail fires")
    page.keyboard.press("Enter")
    page.wait_for_url("**/?q=avail+fires")
    assert page.locator("table.summary tbody tr").count() == 1
    seen: list[str] = []
    while (
        not seen or seen[-1] != "redemption/availability" or page.evaluate("!document.activeElement.closest('table')")
    ):
        page.keyboard.press("Tab")
        seen.append(focused(page))
        assert len(seen) < 40, seen
    assert {"Hold still", "q", "Show", "Show all", "runbook", "dashboard"} <= set(seen)
    page.keyboard.press("Enter")
    page.wait_for_url("**/slo/redemption/availability")
    assert page.title().startswith("redemption/availability: a page fires")
    for _ in range(4):
        page.keyboard.press("Tab")
        if focused(page) == "All SLOs":
            break
    page.keyboard.press("Enter")
    page.wait_for_url(live.url)
    assert page.get_by_role("rowheader").count() == 3


@in_a_browser
def test_it_is_told_to_those_who_cannot_see_it(page: Any, live: Watched) -> None:  # noqa: ANN401 - playwright's
    """Headings, landmarks, tables with headers, and charts that say in words what they show."""
    page.goto(f"{live.url}slo/redemption/availability")
    assert page.get_by_role("heading", level=1, name="redemption/availability: a page fires").count() == 1
    assert page.get_by_role("navigation", name="Time shown").get_by_role("link").count() == len(spans(BURNING))
    burn = page.get_by_role("img", name="Burn over 1m and 5s")
    assert "over 1m: " in burn.locator("desc").text_content()
    assert "Limit: page above 14.4 x in both." in burn.locator("desc").text_content()
    assert page.get_by_role("columnheader", name="Above").count() == 1
    assert page.get_by_role("main").count() == 1


@in_a_browser
@pytest.mark.parametrize("path", ["", "slo/redemption/availability"])
def test_light_and_dark_and_narrow(browser: Any, live: Watched, path: str) -> None:  # noqa: ANN401 - playwright's
    """Both show something, and not the same; where the screen is narrow, tables scroll and the page does not."""
    pictures = []
    for scheme in ("light", "dark"):
        page = browser.new_page(color_scheme=scheme, viewport={"width": 360, "height": 900})
        page.goto(f"{live.url}{path}?still=1")
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        ink, paper = page.evaluate(
            "['color', 'backgroundColor'].map(name => getComputedStyle(document.body)[name])",
        )
        assert ink != paper
        pictures.append(page.screenshot())
        page.close()
    light, dark = pictures
    assert light != dark
    assert min(map(len, pictures)) > 10_000  # an empty page of this size is a tenth of it


@in_a_browser
def test_it_renews_itself_and_focus_stays(page: Any, live: Watched) -> None:  # noqa: ANN401 - playwright's
    """What is new takes the place of what is old; a reader at a link or with a half typed filter is not disturbed."""
    page.clock.install()
    page.goto(live.url)
    page.locator("#q").fill("half typ")
    page.locator("#to-ledger-calls").focus()
    page.evaluate("document.querySelector('#live').firstElementChild.remove()")
    with page.expect_response(live.url):
        page.clock.fast_forward(11_000)
    page.wait_for_function("document.querySelector('#live .alerts') !== null")
    assert page.evaluate("document.activeElement.id") == "to-ledger-calls"
    assert page.locator("#q").input_value() == "half typ"


@in_a_browser
def test_it_works_without_scripts(browser: Any, live: Watched) -> None:  # noqa: ANN401 - playwright's
    """The page, its filter and its links; it is loaded anew by the browser itself unless a reader stops that."""
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(live.url)
    assert page.locator("meta[http-equiv=refresh]").count() == 1
    page.get_by_role("link", name="Hold still").click()
    assert page.locator("meta[http-equiv=refresh]").count() == 0
    page.get_by_role("link", name=CALM.slo.id_path).click()
    assert page.get_by_role("heading", level=1, name="ledger/calls: fine").count() == 1
    context.close()
