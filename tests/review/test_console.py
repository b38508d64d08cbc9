"""The console's pages, what it keeps, and how it answers browsers; without a Prometheus."""

from __future__ import annotations

import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import timedelta
from html import unescape
from http import HTTPStatus

import httpx
import pytest

from review.charts import Axis
from review.connection import Connection
from review.console import charts
from review.console.charts import Limit, Line, Scale
from review.console.kept import Kept
from review.console.live import Alert, History, Now, SloNow, Source, State, spans
from review.console.server import HEADERS, ConsoleServer, serving
from review.console.site import Site
from review.errors import ReviewError
from review.model import Span
from slo import CompiledSlo
from slo.windows import HOUR
from tests.review.checks import problems_of_page
from tests.review.making import promise

EVIL = '"><script>alert(1)</script>'
SLOS = tuple(promise(name=name) for name in ("burning", "fine", "gone", "paged", "silent", "ticketed"))


def an_alert(name: str = "Alert", severity: str = "page", *, firing: bool = True, **more: str) -> Alert:
    """An alert of a minute."""
    labels = {"alertname": name, "severity": severity, **more}
    return Alert(name=name, labels=labels, annotations={}, firing=firing, since=time.time() - 60)


def now_of(compiled: CompiledSlo, left: float | None, burn: float | None, *alerts: Alert) -> SloNow:
    """An SLO that burns equally fast over all windows."""
    burns = {} if burn is None else dict.fromkeys(compiled.policy.alert_windows, burn)
    return SloNow(compiled=compiled, left=left, burns=burns, late_seconds=None, alerts=alerts)


def a_now() -> Now:
    """An SLO in each state."""
    burning, fine, gone, paged, silent, ticketed = SLOS
    page = replace(
        an_alert("RedemptionPagedPage", sloth_id=paged.slo.id, sloth_service="redemption", sloth_slo="paged"),
        annotations={
            "summary": EVIL,
            "description": f"two\nlines {EVIL}",
            "runbook_url": f"https://runbooks.example.com/{EVIL}",
            "dashboard_url": "javascript:alert(1)",
        },
    )
    slos = [
        now_of(silent, None, None),
        now_of(fine, 0.9, 0.1),
        now_of(gone, -0.2, 0.5),
        now_of(burning, 0.4, 2.0, an_alert("Waiting", firing=False)),
        now_of(ticketed, 0.3, 4.0, an_alert("RedemptionTicketedTicket", "ticket")),
        now_of(paged, 0.2, 20.0, page),
    ]
    slos.sort(key=lambda one: one.urgency)
    alerts = tuple(alert for one in slos for alert in one.alerts)
    return Now(slos=tuple(slos), alerts=alerts, notes=(f"a note {EVIL}",))


def a_history() -> History:
    """An hour; for ten minutes of it nothing is known."""
    step = 60.0
    moments = [1_750_032_000 + step * number for number in range(61) if not 20 <= number < 30]
    burns = {window: tuple((at, 20.0) for at in moments) for window in SLOS[0].policy.alert_windows}
    return History(
        span=Span(moments[0], moments[-1]),
        step_seconds=step,
        every=tuple((at, 10.0) for at in moments),
        bad=tuple((at, 0.5) for at in moments),
        left=tuple((at, 0.5) for at in moments),
        burns=burns,
    )


@dataclass
class Made(Source):
    """A source that has made-up answers, or none."""

    error: str | None = None
    asked: int = 0
    made: Now = field(default_factory=a_now)
    url: str = "http://prometheus.example"

    def now(self, compiled: object) -> Now:
        """What was made up."""
        del compiled
        self.asked += 1
        if self.error:
            raise ReviewError(self.error)
        return self.made

    def history(self, compiled: object, length: timedelta) -> History:
        """What was made up."""
        del compiled, length
        if self.error:
            raise ReviewError(self.error)
        return a_history()


def page(target: str = "/", source: Source | None = None) -> str:
    """The text of a page."""
    return Site(SLOS, source or Made()).answer(target).body.decode()


# --- the pages ------------------------------------------------------------------------------------------------------


def test_what_burns_is_on_top() -> None:
    """Pages, tickets, what burns, budgets that are gone, what is not known, and at last what is fine; each in words."""
    text = page()
    rows = re.findall(r'<tr><th scope="row"><a [^>]+>redemption/(\w+)</a></th><td>(.*?)</td>', text)
    assert [name for name, _ in rows] == ["paged", "ticketed", "burning", "gone", "silent", "fine"]
    assert [re.sub(r"<[^>]+>", "", cell)[2:] for _, cell in rows] == list(State)
    assert "6 SLOs, 1 page fires, 1 ticket fires, 3 burning, 1 without data" in text
    assert "2 alerts fire, 1 pending" in text


def test_within_a_state_the_faster_burn_is_above() -> None:
    """Two that burn: the one that burns faster comes first."""
    slow, fast = now_of(SLOS[0], 0.1, 2.0), now_of(SLOS[1], 0.9, 3.0)
    assert sorted([slow, fast], key=lambda one: one.urgency) == [fast, slow]


@pytest.mark.parametrize(
    ("wanted", "names"),
    [
        ("FINE", ["fine"]),
        ("page fires", ["paged"]),
        ("redemption no data", ["silent"]),
        ("TicketedTicket", ["ticketed"]),
        ("nothing like it", []),
    ],
)
def test_the_filter_finds_words_anywhere(wanted: str, names: list[str]) -> None:
    """In names, states, owners, alerts; all words must be there."""
    text = page(f"/?q={wanted.replace(' ', '+')}")
    assert re.findall(r'<tr><th scope="row"><a [^>]+>redemption/(\w+)</a>', text) == names
    assert f"{len(names)} of 6 SLOs fit" in text


@pytest.mark.parametrize(
    "target", ["/", "/slo/redemption/paged", f"/?q={EVIL}", f"/{EVIL}", f"/?range={EVIL}&q={EVIL}"]
)
def test_what_others_wrote_stays_text(target: str) -> None:
    """Texts of alerts, addresses and what is typed never become markup; links lead to web addresses only."""
    text = page(target)
    assert "<script>" not in text
    assert "javascript:" not in text
    assert [one for one in problems_of_page(text) if "self-contained" not in one] == []


def test_an_alert_leads_to_its_links_and_its_slo() -> None:
    """What is a web address is linked, with what it is as its text; on the SLO's own page the SLO is not."""
    for text, links in ((page(), ["redemption/paged", "runbook"]), (page("/slo/redemption/paged"), ["runbook"])):
        found = re.search(r"RedemptionPagedPage</strong>.*?</li>", text, re.DOTALL)
        assert found
        assert re.findall(r"<a [^>]+>([^<]+)</a>", found[0]) == links


def test_nothing_is_fetched_from_elsewhere() -> None:
    """All that a page loads is ours, and no script or style is within it."""
    for target in ("/", "/slo/redemption/paged"):
        text = page(target)
        assert set(re.findall(r'src="([^"]+)"|<link [^>]*href="([^"]+)"', text)) == {
            ("", "/console.css"),
            ("", "/icon.svg"),
            ("/console.js", ""),
        }
        assert " style=" not in text
        assert re.search(r"<script(?! type=\"module\" src=\"/console.js\"></script>)|<style|\son\w+=", text) is None


def test_charts_are_told_in_words() -> None:
    """What it is now, how low and high it was, its limit; and that there is no data where there is none."""
    text = page("/slo/redemption/burning?range=1h")
    assert "Good events: 95 % now, 95 % to 95 %. Limit: objective 99.9 %." in text
    assert (
        "over 1h: 20.0 x now, 20.0 x to 20.0 x. over 5m: 20.0 x now, 20.0 x to 20.0 x. Limit: page above 14.4 x" in text
    )
    empty = charts.chart("k", "t", Axis(Span(0, 60)), SCALE, [Line(name="a line", points=())], step_seconds=1)
    assert "a line: no data." in empty


SCALE = Scale(low=0.0, high=10.0, text=lambda value: f"{value:g}")


@pytest.mark.parametrize(("missing", "lines"), [(0, 1), (1, 1), (2, 2)])
def test_a_line_has_a_gap_where_there_is_no_data(missing: int, lines: int) -> None:
    """One point may be late; more is a gap."""
    points = tuple((float(at), 5.0) for at in range(60) if not 30 <= at < 30 + missing)
    drawn = charts.chart("k", "t", Axis(Span(0, 59)), SCALE, [Line(name="x", points=points)], step_seconds=1)
    found = re.search(r'class="line" d="([^"]+)"', drawn)
    assert found
    assert found[1].count("M") == lines


def test_what_is_beyond_the_scale_is_said() -> None:
    """Drawn at the edge, with the figure."""
    points = ((0.0, 250.0), (1.0, -3.0))
    drawn = charts.chart(
        "k", "t", Axis(Span(0, 1)), SCALE, [Line(name="x", points=points)], step_seconds=1, limits=[Limit("l", 2.0)]
    )
    assert "up to 250" in drawn
    assert "down to -3" in drawn
    assert re.search(r'class="line" d="M56 12L848 132"', drawn)


def test_times_are_those_of_the_period() -> None:
    """Of a budget of thirty days; a shorter period offers fewer."""
    assert list(spans(SLOS[0])) == ["1h", "6h", "1d", "1w", "30d"]
    text = page("/slo/redemption/fine?range=1d")
    assert re.findall(r'aria-current="true">([^<]+)<', text) == ["1d"]
    assert re.findall(r'aria-current="true">([^<]+)<', page("/slo/redemption/fine?range=2d")) == ["6h"]


def test_choices_go_along() -> None:
    """Who holds the page still keeps that, and a filter does not stick to the page of an SLO."""
    text = page("/?q=fine&still=1")
    assert "console.js" not in text
    assert "refresh" not in text.partition("<body")[0]
    assert '<a id="to-redemption-fine" href="/slo/redemption/fine?still=1">' in text
    assert 'href="/?q=fine">Renew again' in text
    assert 'name="still" value="1"' in text


# --- when nobody answers --------------------------------------------------------------------------------------------


def test_nothing_known_is_told_as_such() -> None:
    """503, with the reason, and the page tries again."""
    site = Site(SLOS, Made(error=f"http://prometheus.example: cannot be asked {EVIL}"))
    for target in ("/", "/slo/redemption/fine"):
        answer = site.answer(target)
        assert answer.status == HTTPStatus.SERVICE_UNAVAILABLE
        assert "Prometheus does not answer" in answer.body.decode()
        assert f"cannot be asked {EVIL}" in unescape(answer.body.decode())
        assert "/console.js" in answer.body.decode()


def test_old_figures_are_told_as_such() -> None:
    """The last answer stays, with its age and the reason."""
    source = Made()
    site = Site(SLOS, source)
    site.answer("/")
    source.error = "http://prometheus.example: no connection within 10 s"
    site._now._until = 0  # as after some seconds
    answer = site.answer("/")
    text = answer.body.decode()
    assert answer.status == HTTPStatus.OK
    assert "What is shown is old: it was read at" in text
    assert "no connection within 10 s" in text
    assert "redemption/paged" in text


def test_an_slo_without_new_samples_is_told() -> None:
    """Prometheus answers, but its rules have not run."""
    late = replace(now_of(SLOS[1], 0.9, 0.1), late_seconds=240.0)
    assert "no sample for 4 min" in page(source=Made(made=Now(slos=(late,), alerts=(), notes=())))


# --- what is kept ---------------------------------------------------------------------------------------------------


def keeping(read: Callable[[], int], seconds: float) -> Kept[int]:
    """Something kept."""
    return Kept(read, seconds, threading.Semaphore(1))


def test_an_answer_and_a_silence_are_kept() -> None:
    """Neither is asked for again before its time."""
    asked: list[int] = []

    def read() -> int:
        asked.append(1)
        if len(asked) == 2:
            raise ReviewError("no")
        return len(asked)

    for_long = keeping(read, 1_000)
    assert [for_long.get().value for _ in range(3)] == [1, 1, 1]
    again = keeping(read, 1_000)
    assert [(one.value, one.error) for one in (again.get(), again.get())] == [(None, "no"), (None, "no")]
    assert len(asked) == 2


def test_who_comes_while_it_is_read_gets_what_was_known() -> None:
    """A slow server makes one reader wait, not all."""
    going, go = threading.Event(), threading.Event()
    answers = iter([1, 2])

    def read() -> int:
        value = next(answers)
        if value == 2:
            going.set()
            go.wait(10)
        return value

    one = keeping(read, 0)
    assert one.get().value == 1
    slow = threading.Thread(target=one.get)
    slow.start()
    assert going.wait(10)
    assert one.get().value == 1
    go.set()
    slow.join()


# --- HTTP -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """A console."""
    with serving(Site(SLOS, Made())) as url:
        yield url


def ask(url: str, method: str = "GET", **headers: str) -> httpx.Response:
    """Its answer."""
    return httpx.request(method, url, headers=headers, trust_env=False, content=b"x" * (method == "POST"))


@pytest.mark.parametrize(
    "path", ["", "slo/redemption/fine", "console.css", "console.js", "icon.svg", "nothing", "?q=%ff"]
)
def test_every_answer_carries_the_headers(url: str, path: str) -> None:
    """Nothing from elsewhere, no frame, no sniffing, no referrer, nothing stored; HEAD says the same without a body."""
    answer, head = ask(url + path), ask(url + path, "HEAD")
    assert answer.status_code == (404 if path == "nothing" else 200)
    assert answer.content
    assert not head.content
    for one in (answer, head):
        assert {name: one.headers.get(name) for name in HEADERS} == HEADERS
    assert "unsafe" not in HEADERS["Content-Security-Policy"]
    assert HEADERS["Content-Security-Policy"].startswith("default-src 'none'")
    assert int(head.headers["content-length"]) > 0


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "MADEUP"])
def test_it_only_reads(url: str, method: str) -> None:
    """Every method that is no reading is refused, and the answer says which are allowed."""
    answer = ask(url, method)
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD")
    assert {name: answer.headers.get(name) for name in HEADERS} == HEADERS


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("LOCALHOST:9999", 200),
        ("127.0.0.1:1", 200),
        ("[::1]:80", 200),
        ("evil.example", 421),
        ("127.0.0.1.evil.example", 421),
        ("192.0.2.7", 421),
        ("localhost:80:80", 421),
        ("evil@localhost", 421),
        ("", 421),
    ],
)
def test_other_names_are_refused(url: str, host: str, status: int) -> None:
    """A name that somebody points at this machine is none of ours; through a tunnel the port may be another."""
    assert ask(url, Host=host).status_code == status


@pytest.mark.parametrize(
    ("request_text", "status"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", b"421"),
        (b"GET /\r\n\r\n", b"421"),
        (b"GARBAGE\r\n\r\n", b"400"),
        (b"GET / HTTP/9.9\r\n\r\n", b"505"),
    ],
)
def test_nonsense_is_answered_with_the_headers(url: str, request_text: bytes, status: bytes) -> None:
    """No Host, no request at all, a version of the future."""
    with socket.create_connection(("127.0.0.1", httpx.URL(url).port or 0), timeout=10) as connection:
        connection.sendall(request_text)
        answer = b"".join(iter(lambda: connection.recv(65_536), b""))
    assert answer.startswith(b"HTTP/1.0 " + status)
    assert f"Content-Security-Policy: {HEADERS['Content-Security-Policy']}".encode() in answer


def test_bound_to_all_it_may_be_called_by_any_address_and_given_names() -> None:
    """But still by no other name."""
    with ConsoleServer(Site(SLOS, Made()), "0.0.0.0", 0, ("slo.example.com",)) as server:
        assert server.allows("192.0.2.7:8080")
        assert server.allows("SLO.example.com")
        assert not server.allows("evil.example")


def test_the_source_keeps_secrets_to_prometheus() -> None:
    """What proves who asks of Prometheus is not sent to Alertmanager; a wrong address of it is told."""
    prometheus = Connection(url="http://prometheus.example", headers={"Authorization": "Bearer secret"})
    source = Source(prometheus, "http://alertmanager.example")
    assert source._alertmanager is not None
    assert source._alertmanager.headers == {}
    with pytest.raises(ReviewError, match="must be an http or https URL"):
        Source(prometheus, "alertmanager:9093")


def test_an_hour_is_an_hour() -> None:
    """The names of times are lengths."""
    assert spans(SLOS[0])["1h"] == HOUR
