"""Links of a page lead somewhere: runbooks as text, boards as plain pages."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from drills.harness import Pages, pages, prometheus

BOARD = {
    "uid": "board-1",
    "title": "Board <one>",
    "templating": {"list": [{"name": "slo", "current": {"value": "$__all"}}]},
    "panels": [
        {
            "type": "row",
            "title": "Row",
            "panels": [{"type": "stat", "title": "Deep", "targets": [{"expr": "vector(41) + 1"}]}],
        },
        {
            "type": "timeseries",
            "title": "Of $slo",
            "description": "What <b>happens</b>.",
            "targets": [{"expr": 'up{slo=~"${slo:regex}"} or rate(x[$__rate_interval])'}],
        },
        {"type": "stat", "title": "Wrong", "targets": [{"expr": "sum("}]},
    ],
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder like `generated/`, with something secret beside it."""
    generated = tmp_path / "generated"
    (generated / "runbooks").mkdir(parents=True)
    (generated / "runbooks" / "DoThis.md").write_text("# Dö this\n<script>\n", encoding="utf-8")
    (generated / "grafana" / "folder").mkdir(parents=True)
    (generated / "grafana" / "folder" / "any-name.json").write_text(json.dumps(BOARD))
    (tmp_path / "secret.md").write_text("secret")
    return generated


@pytest.fixture
def served(folder: Path) -> Iterator[Pages]:
    """The folder, served."""
    with pages(folder) as served:
        yield served


def get(served: Pages, path: str) -> httpx.Response:
    """Ask for a path as it is written."""
    with httpx.Client(trust_env=False) as http:
        return http.get(served.url + path)


def test_a_runbook_is_its_text(served: Pages) -> None:
    """The Markdown comes as it is, in UTF-8, and as text that no browser runs."""
    answer = get(served, "/runbooks/DoThis.md")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/markdown; charset=utf-8"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.text == "# Dö this\n<script>\n"


def test_a_board_is_found_by_its_uid(served: Pages) -> None:
    """Whatever its file is called, and whatever follows the uid; every panel shows title, description and query."""
    answer = get(served, "/d/board-1/any-slug?var-slo=availability&from=now-6h")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    for shown in ("<h1>Board &lt;one&gt;</h1>", "<h2>Deep</h2>", "vector(41) + 1", "<h2>Of availability</h2>"):
        assert shown in answer.text
    assert "up{slo=~&quot;availability&quot;} or rate(x[1m])" in answer.text


def test_everything_on_a_board_is_escaped(served: Pages) -> None:
    """No markup of a title, a description or the address reaches the page, and nothing is loaded from elsewhere."""
    text = get(served, "/d/board-1?var-slo=<script>alert(1)</script>").text
    assert "What &lt;b&gt;happens&lt;/b&gt;." in text
    assert "&lt;script&gt;alert(1)" in text
    assert "<script" not in text
    assert "http" not in text


def test_a_variable_that_is_not_chosen_means_all(served: Pages) -> None:
    """As in Grafana, a board opened without variables shows every series."""
    assert "up{slo=~&quot;.*&quot;}" in get(served, "/d/board-1").text


@pytest.mark.parametrize(
    "path",
    [
        "/runbooks/Unknown.md",
        "/runbooks/",
        "/runbooks/../../secret.md",
        "/runbooks/..%2f..%2fsecret.md",
        "/d/unknown/",
        "/d/",
        "/grafana/folder/any-name.json",
        "/logs",
    ],
)
def test_anything_else_is_not_there(served: Pages, path: str) -> None:
    """404, and nothing outside the folder is ever read."""
    answer = get(served, path)
    assert answer.status_code == 404
    assert "secret\n" not in answer.text.replace(path, "")


def test_the_first_page_lists_all_others(served: Pages) -> None:
    """Each of its links opens."""
    text = get(served, "/").text
    hrefs = [part.split('"')[0] for part in text.split('href="')[1:]]
    assert hrefs == ["/d/board-1/", "/runbooks/DoThis.md"]
    assert [get(served, href).status_code for href in hrefs] == [200, 200]


def test_a_file_that_comes_later_is_served(served: Pages, folder: Path) -> None:
    """Files are read at each request, so `generated/` may be written meanwhile."""
    assert get(served, "/runbooks/Later.md").status_code == 404
    (folder / "runbooks" / "Later.md").write_text("later")
    assert get(served, "/runbooks/Later.md").text == "later"


def test_the_settings_of_the_links_lead_here(served: Pages, tmp_path: Path) -> None:
    """Runbooks and boards are where `Links` says, and so are the logs once there is a file."""
    assert get(served, "/d/board-1").url == f"{served.links.grafana}/d/board-1"
    assert served.links.runbooks == f"{served.url}/runbooks"
    log = tmp_path / "service.log"
    log.write_text("".join(f"line {number}\n" for number in range(1000)))
    served.show(log=log)
    answer = httpx.get(served.links.logs, trust_env=False)
    assert answer.text.splitlines()[0] == "line 800"
    assert answer.text.splitlines()[-1] == "line 999"


def test_logs_are_those_that_a_link_asks_for(served: Pages, tmp_path: Path) -> None:
    """Of each field one of its values, and slower than a limit; what is no JSON fits nothing."""
    log = tmp_path / "service.log"
    lines = [
        {"route": "GET /a", "outcome": "error", "duration_seconds": 0.1},
        {"route": "GET /a", "outcome": "ok", "duration_seconds": 2},
        {"route": "GET /b", "outcome": "shed", "duration_seconds": 3.5},
        {"event": "started"},
    ]
    log.write_text("".join(f"{json.dumps(line)}\n" for line in lines) + "Traceback\n[1]\n")
    served.show(log=log)
    asked = {
        "": lines,
        "?outcome=error&outcome=shed": [lines[0], lines[2]],
        "?outcome=error&outcome=shed&route=GET%20%2Fb": [lines[2]],
        "?slower_than=1": [lines[1], lines[2]],
        "?outcome=ok&slower_than=2": [],
    }
    for query, wanted in asked.items():
        found = get(served, f"/logs{query}").text.splitlines()
        assert [json.loads(line) for line in found if line.startswith("{")] == wanted, query


def test_traces_and_silences_are_elsewhere(served: Pages) -> None:
    """A link is sent on to the Jaeger or the Alertmanager that runs, and without one says so."""
    for path in ("/traces/search?service=a%20b", "/alertmanager/?x=1"):
        answer = get(served, path)
        assert answer.status_code == 200
        assert "runs here" in answer.text
    assert "service=a+b" in get(served, "/traces/search?service=a%20b").text
    served.show(jaeger_url="http://127.0.0.1:2", alertmanager_url="http://127.0.0.1:3")
    sent = [get(served, path) for path in ("/traces/search?service=a%20b", "/alertmanager/")]
    assert [answer.status_code for answer in sent] == [302, 302]
    assert [answer.headers["location"] for answer in sent] == [
        "http://127.0.0.1:2/search?service=a%20b",
        "http://127.0.0.1:3/",
    ]
    assert served.links.traces == f"{served.url}/traces"
    assert served.links.alertmanager == f"{served.url}/alertmanager"


def test_all_runbooks_are_one_page(served: Pages, folder: Path) -> None:
    """As it was generated, beside the runbooks; and it is listed first."""
    assert get(served, "/runbooks/index.html").status_code == 404
    (folder / "runbooks" / "index.html").write_text("<!DOCTYPE html><p>all")
    answer = get(served, "/runbooks/index.html")
    assert (answer.headers["content-type"], answer.text) == ("text/html; charset=utf-8", "<!DOCTYPE html><p>all")
    assert '<a href="/runbooks/index.html">All runbooks</a>' in get(served, "/").text


def test_a_prometheus_that_does_not_answer_is_told(served: Pages) -> None:
    """The board still opens, with the fault in the place of the value."""
    served.show(prometheus_url="http://127.0.0.1:9")
    answer = get(served, "/d/board-1")
    assert answer.status_code == 200
    assert "No value: " in answer.text


@pytest.mark.e2e
def test_a_board_shows_live_values(served: Pages) -> None:
    """With a Prometheus each query has its value now, or the fault that Prometheus tells."""
    with prometheus() as metrics:
        served.show(prometheus_url=metrics.url)
        text = get(served, "/d/board-1").text
    assert "<td>value</td><td>42</td>" in text
    assert "No value now." in text
    assert "No value: " in text
    assert "parse error" in text


def test_the_pages_are_gone_afterwards(folder: Path, gone: Callable[..., bool]) -> None:
    """Nobody listens at their port any more."""
    with pages(folder) as served:
        assert not gone(None, served.url)
    assert gone(None, served.url)
