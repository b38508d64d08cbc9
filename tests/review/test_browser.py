"""The page in a real browser, opened from disk."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from review import html
from tests.review.making import made_review

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: make setup")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on the PATH: apt-get install chromium"),
]

# The ratio by which each text stands out from what is behind it (WCAG 2.2, 1.4.3), the lowest first.
_CONTRASTS = """() => {
  const parse = text => (text.match(/[\\d.]+/g) || []).map(Number);
  const channel = v => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
  const behind = element => {
    for (let e = element; e; e = e.parentElement) {
      const colour = parse(getComputedStyle(e).backgroundColor);
      if (colour.length === 3 || colour[3] > 0) return colour;
    }
    return [255, 255, 255];
  };
  const found = [];
  for (const e of document.querySelectorAll('body *')) {
    if (![...e.childNodes].some(n => n.nodeType === 3 && n.data.trim())) continue;
    if (e.closest('title, desc, .hidden, [hidden]')) continue;
    const style = getComputedStyle(e);
    const text = light(parse(e.closest('svg') ? style.fill : style.color)), back = light(behind(e));
    const ratio = (Math.max(text, back) + 0.05) / (Math.min(text, back) + 0.05);
    found.push([ratio, e.textContent.trim().slice(0, 40)]);
  }
  return found.sort((a, b) => a[0] - b[0]);
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A Chromium without a window."""
    with playwright.sync_playwright() as starting:
        running = starting.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield running
        running.close()


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page on the disk."""
    path = tmp_path_factory.mktemp("page") / "review.html"
    path.write_text(html.page(made_review()))
    return path


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_opens_from_disk_and_can_be_read(browser: Any, file: Path, scheme: str) -> None:  # noqa: ANN401 - playwright's
    """Nothing is fetched, nothing complains, and all text stands out by 4.5 to 1 or more, light and dark."""
    page = browser.new_page(color_scheme=scheme)
    asked: list[str] = []
    said: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto(file.as_uri())
    assert asked == [file.as_uri()]
    assert said == []
    assert page.title().startswith("Error budgets up to")
    contrasts = page.evaluate(_CONTRASTS)
    assert len(contrasts) > 50
    assert contrasts[0][0] >= 4.5, contrasts[:5]
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (dark == "rgb(20, 24, 27)") == (scheme == "dark")
    page.close()


def test_it_is_told_to_those_who_cannot_see_it(browser: Any, file: Path) -> None:  # noqa: ANN401 - playwright's
    """Charts are named pictures, tables have headers, a budget's state is in words, a partial report is an alert."""
    page = browser.new_page()
    page.goto(file.as_uri())
    for name in ("Budget left", "Burn by hour", "Events by hour"):
        assert page.get_by_role("img", name=name).count() == 2
    assert page.get_by_role("rowheader", name="redemption/gone").count() == 1
    assert page.get_by_role("columnheader", name="Forecast").count() == 1
    assert page.get_by_text("the budget is gone").count() == 2
    assert "does not answer" in page.get_by_role("alert").inner_text()
    page.close()


def test_it_is_used_by_keyboard(browser: Any, file: Path) -> None:  # noqa: ANN401 - playwright's
    """From the table to an SLO, and the figures by day unfold."""
    page = browser.new_page()
    page.goto(file.as_uri())
    page.get_by_role("link", name="redemption/gone").focus()
    page.keyboard.press("Enter")
    assert page.url.endswith("#slo2")
    figures = page.locator("#slo2 details")
    figures.locator("summary").focus()
    page.keyboard.press("Enter")
    assert figures.get_by_role("rowheader").count() >= 30
    page.close()


@pytest.mark.parametrize("width", [360, 800, 1_400])
def test_it_fits_every_screen(browser: Any, file: Path, width: int) -> None:  # noqa: ANN401 - playwright's
    """Wide tables scroll by themselves; the page does not."""
    page = browser.new_page(viewport={"width": width, "height": 800})
    page.goto(file.as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.close()


def test_it_prints(browser: Any, file: Path) -> None:  # noqa: ANN401 - playwright's
    """On white paper, also where the screen is dark, and no table is cut off at the right."""
    page = browser.new_page(color_scheme="dark", viewport={"width": 690, "height": 900})  # A4 within its margins
    page.goto(file.as_uri())
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.evaluate("document.documentElement.scrollWidth") <= 690
    assert page.pdf().startswith(b"%PDF")
    page.close()
