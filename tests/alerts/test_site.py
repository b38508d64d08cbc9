"""The one page of all runbooks: whole without a script, searched with it, in a real browser and from the disk."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

import pytest

from alerts import runbooks, site
from slo import compile_slo
from slo.artefacts import Artefact
from slo.settings import everything, load
from tests.contract.places import ROOT

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: make setup")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

SETTINGS = load(ROOT / "pyproject.toml")
OURS = everything(SETTINGS)
RUNBOOKS = runbooks.render([compile_slo(slo) for slo in OURS.slos], SETTINGS.links, OURS)


def _page_of(**texts: str) -> str:
    """The page of these runbooks."""
    made = [Artefact(PurePosixPath("runbooks") / f"{name}.md", text) for name, text in texts.items()]
    (page,) = site.render(made)
    return page.text


# --- the text ---------------------------------------------------------------------------------------------------------


def test_it_is_one_file_and_the_same_each_time() -> None:
    """Generated files are committed: the same input gives the same bytes."""
    (page,) = site.render(RUNBOOKS)
    assert page.path == PurePosixPath("runbooks/index.html")
    assert site.render(RUNBOOKS) == [page]


def test_nothing_is_loaded_from_elsewhere() -> None:
    """No source, import or form leads away; a policy allows this style and this script alone."""
    (page,) = site.render(RUNBOOKS)
    assert not re.findall(r"<(?:img|link|iframe|object)\b|\bsrc=|@import|url\(|\saction=|\bstyle=", page.text)
    policy = re.findall(r'Content-Security-Policy" content="([^"]*)"', page.text)
    assert re.fullmatch(r"default-src 'none'; style-src 'sha256-\S{44}'; script-src 'sha256-\S{44}'", policy[0])


def test_a_runbook_has_its_anchor_and_no_generator_s_note() -> None:
    """Headings go a level down, links between runbooks stay on the page, and what looks like markup is text."""
    text = (
        "<!-- Generated. -->\n\n# One\n\n## Impact\n\n[two](Two.md), [all](README.md), [far](https://a/b.md) <b>x</b>\n"
    )
    page = _page_of(README="# Runbooks\n\n| Alert |\n| --- |\n| [One](One.md) |\n", One=text, Two="# Two\n")
    assert '<article id="One">\n<h2>One</h2>\n<h3>Impact</h3>\n' in page
    assert '<a href="#Two">two</a>, <a href="#top">all</a>, <a href="https://a/b.md">far</a>' in page
    assert "&lt;b&gt;x&lt;/b&gt;" in page
    assert "Generated. -->" not in page


def test_queries_and_commands_are_kept_as_they_are() -> None:
    """What is pasted from the page is what the runbook has."""
    page = _page_of(
        README="# Runbooks\n", One='# One\n\n```promql\na{b="c"} > 1\nand\nd < 2\n```\n\n| `x\\|y` |\n| --- |\n'
    )
    assert '<pre><code class="language-promql">a{b=&quot;c&quot;} &gt; 1\nand\nd &lt; 2\n</code></pre>' in page
    assert "<code>x|y</code>" in page


# --- a browser --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A Chromium without a window."""
    if CHROMIUM is None:
        pytest.skip("no Chromium on the PATH: apt-get install chromium")
    with playwright.sync_playwright() as starting:
        running = starting.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield running
        running.close()


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page on the disk."""
    file = tmp_path_factory.mktemp("site") / "index.html"
    (page,) = site.render(RUNBOOKS)
    file.write_text(page.text)
    return file.as_uri()


@pytest.fixture
def page(browser: Any, url: str) -> Iterator[Any]:  # noqa: ANN401 - playwright's
    """The page, opened; nothing is fetched beside it, and nothing complains."""
    opened = browser.new_page()
    asked: list[str] = []
    said: list[str] = []
    opened.on("request", lambda request: asked.append(request.url))
    opened.on("console", lambda message: said.append(message.text))
    opened.on("pageerror", lambda error: said.append(str(error)))
    opened.goto(url)
    yield opened
    assert {one.partition("#")[0] for one in asked} == {url}
    assert said == []
    opened.close()


def _shown(page: Any) -> list[str]:  # noqa: ANN401 - playwright's
    shown: list[str] = page.eval_on_selector_all("article", "all => all.filter(a => a.offsetParent).map(a => a.id)")
    return shown


@pytest.mark.e2e
def test_words_find_runbooks(page: Any) -> None:  # noqa: ANN401 - playwright's
    """`/` goes to the search, every word must be there, and Enter opens the first; Escape shows all again."""
    count = len(_shown(page))
    assert count == len(RUNBOOKS) - 1
    page.keyboard.press("/")
    page.keyboard.type("storage RDS disk")
    found = _shown(page)
    assert "RdsStorageLow" in found
    assert len(found) < count / 4
    assert page.inner_text("#found") == f"{len(found)} of {count}"
    rows = page.eval_on_selector_all("nav tbody tr", "all => all.filter(a => a.offsetParent).length")
    assert rows == len(found)
    page.keyboard.press("Enter")
    assert page.url.endswith(f"#{found[0]}")
    page.keyboard.press("Escape")
    assert len(_shown(page)) == count


@pytest.mark.e2e
def test_a_link_to_what_the_search_has_hidden_opens_it(page: Any) -> None:  # noqa: ANN401 - playwright's
    """From a runbook to the other alert of its promise."""
    page.fill("#words", "RedemptionAvailabilityPage")
    page.click("article#RedemptionAvailabilityPage a[href='#RedemptionAvailabilityAbsent']")
    page.wait_for_function("() => !document.getElementById('RedemptionAvailabilityAbsent').hidden")
    assert page.evaluate("document.querySelector('article:target').id") == "RedemptionAvailabilityAbsent"


@pytest.mark.e2e
def test_without_its_script_the_page_is_whole(browser: Any, url: str) -> None:  # noqa: ANN401 - playwright's
    """There is no search then, and every runbook and the index."""
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{url}#RdsStorageLow")
    assert not page.is_visible("form")
    assert page.locator("article").count() == len(RUNBOOKS) - 1
    assert page.is_visible("nav >> text=RdsStorageLow")
    context.close()


@pytest.mark.e2e
@pytest.mark.parametrize(("scheme", "is_dark"), [("light", False), ("dark", True)])
def test_it_is_light_or_dark_as_people_have_it(browser: Any, url: str, scheme: str, is_dark: bool) -> None:  # noqa: ANN401, FBT001 - playwright's; a parameter
    """And the paper is white in print, without the search."""
    page = browser.new_page(color_scheme=scheme)
    page.goto(url)
    assert (_paper(page) < 128) == is_dark
    page.emulate_media(media="print")
    assert _paper(page) == 255
    assert not page.is_visible("header")
    page.close()


def _paper(page: Any) -> int:  # noqa: ANN401 - playwright's
    colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
    return int(re.findall(r"\d+", colour)[0])
