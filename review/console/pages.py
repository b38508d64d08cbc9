"""The console's pages, as HTML. All text from elsewhere is escaped here."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape
from urllib.parse import quote, urlencode, urlsplit
from zlib import crc32

from review import words
from review.charts import PATTERNS, Axis, bar
from review.console import charts
from review.console.charts import Limit, Line, Scale
from review.console.kept import Known
from review.console.live import Alert, History, Now, SloNow, State, spans
from review.model import Span
from slo import conventions as names
from slo.compile import CompiledSlo
from slo.model import period_text
from slo.windows import BurnWindows, Severity

REFRESH_SECONDS = 10

_NOTHING = "-"
_LINK_SUFFIX = "_url"
_BURN_SHOWN_FACTORS = 8.0  # more than so many times the limit looks like so many; the description tells the rest
_LEFT_SHOWN_MIN = -1.0
_EXACT_SHARES = 1e-12
_ALERTS_IN_SIGHT = 3

# A mark for each state, and a class for its colour: read without either.
_MARKS: Mapping[State, tuple[str, str]] = {
    State.PAGE: ("■", "gone"),
    State.TICKET: ("▲", "low"),
    State.BURNING: ("◆", "half"),
    State.GONE: ("○", "gone"),
    State.UNKNOWN: ("?", "unknown"),
    State.FINE: ("●", "fine"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """What every page is told.

    Attributes:
        source: Where the figures come from.
        at: The moment of the page.
        path: Its own path.
        query: Its own query, without what is empty.
    """

    source: str
    at: float
    path: str
    query: Mapping[str, str]

    @property
    def refreshing(self) -> bool:
        """Whether the page renews itself; a reader may stop it."""
        return "still" not in self.query

    def href(self, path: str | None = None, **change: str | None) -> str:
        """Another page, with the same query but for what is changed; None takes a name away."""
        query = {name: text for name, text in {**self.query, **change}.items() if text}
        return quote(path or self.path) + (f"?{urlencode(query)}" if query else "")


def slo_path(compiled: CompiledSlo) -> str:
    """Where the page of an SLO is."""
    return f"/slo/{compiled.slo.id_path}"


# --- the list -------------------------------------------------------------------------------------------------------


def list_page(frame: Frame, known: Known[Now]) -> str:
    """Every SLO, what burns first."""
    wanted = frame.query.get("q", "")
    if known.value is None:
        return _silent_page(frame, _filter(frame, wanted), known.error)
    now = known.value
    shown = [one for one in now.slos if _fits(one, wanted)]
    live = [
        *_remarks(frame, known, now.notes),
        *_alerts([alert for alert in now.alerts if alert.name != names.WATCHDOG], frame),
        *_slos(frame, shown, wanted, len(now.slos)),
    ]
    return _page(frame, _headline(now), _filter(frame, wanted), live)


def _fits(one: SloNow, wanted: str) -> bool:
    """Whether each word that is wanted is somewhere in what is said of it."""
    slo = one.compiled.slo
    said = " ".join([slo.id_path, slo.owner, slo.description, one.state, *(alert.name for alert in one.alerts)]).lower()
    return all(word in said for word in wanted.lower().split())


def _headline(now: Now) -> str:
    count = {state: sum(one.state is state for one in now.slos) for state in State}
    pages = sum(alert.firing and alert.severity == Severity.PAGE for alert in now.alerts)
    tickets = sum(alert.firing and alert.severity == Severity.TICKET for alert in now.alerts)
    burning = sum((one.worst or (0.0,))[0] > 1 for one in now.slos)
    parts = [words.plural(len(now.slos), "SLO")]
    parts += [f"{words.plural(pages, 'page fires', 'pages fire')}"] if pages else []
    parts += [f"{words.plural(tickets, 'ticket fires', 'tickets fire')}"] if tickets else []
    parts.append(f"{burning} burning" if burning else "none burns faster than its budget lasts")
    parts += [f"{count[State.UNKNOWN]} without data"] if count[State.UNKNOWN] else []
    return ", ".join(parts)


def _filter(frame: Frame, wanted: str) -> Iterator[str]:
    yield '<form class="filter" method="get" action="/" role="search"><label for="q">Filter</label>'
    yield f'<input id="q" name="q" type="search" maxlength="100" value="{escape(wanted)}" autocomplete="off"/>'
    if not frame.refreshing:
        yield '<input type="hidden" name="still" value="1"/>'
    yield '<button type="submit">Show</button>'
    if wanted:
        yield f'<a href="{escape(frame.href(q=None))}">Show all</a>'
    yield '<span class="hint">Name, owner, description or state: checkout, fine, a page fires</span></form>'


def _slos(frame: Frame, shown: Sequence[SloNow], wanted: str, of: int) -> Iterator[str]:
    counted = f"{len(shown)} of {of} SLOs fit {wanted!r}" if wanted else "All SLOs"
    yield f'<section aria-labelledby="slos"><h2 id="slos">{escape(counted)}, what burns first</h2>'
    if shown:
        yield from _wide("SLOs", "summary")
        yield _heads(("SLO", "State", "Budget left", "Worst burn", "Objective", "Alerts", "Owner")) + "<tbody>"
        yield from (_row(frame, one) for one in shown)
        yield "</tbody></table></div>"
    yield "</section>"


def _row(frame: Frame, one: SloNow) -> str:
    slo = one.compiled.slo
    href = escape(frame.href(slo_path(one.compiled), q=None))
    alerts = ", ".join(f"{alert.name}{'' if alert.firing else ' (pending)'}" for alert in one.alerts)
    cells = (
        _state(one),
        f"{bar(one.left)}{_left(one)}",
        _worst(one),
        f"{names.number(slo.objective)} %",
        escape(alerts) or _NOTHING,
        escape(slo.owner),
    )
    link = f'<a id="to-{escape(slo.id)}" href="{href}">{escape(slo.id_path)}</a>'
    return f'<tr><th scope="row">{link}</th>{"".join(f"<td>{cell}</td>" for cell in cells)}</tr>'


def _state(one: SloNow) -> str:
    mark, kind = _MARKS[one.state]
    late = "" if one.late_seconds is None else f"<br/><small>no sample for {words.length(one.late_seconds)}</small>"
    return f'<span class="{kind}"><span aria-hidden="true">{mark}</span> {one.state}</span>{late}'


def _left(one: SloNow) -> str:
    return "not known" if one.left is None else words.percent(one.left)


def _worst(one: SloNow) -> str:
    if one.worst is None:
        return _NOTHING
    burn, window = one.worst
    return f"{words.burn(burn)} over {names.duration(window)}"


# --- one SLO --------------------------------------------------------------------------------------------------------


def slo_page(frame: Frame, compiled: CompiledSlo, shown: str, known: Known[Now], history: Known[History]) -> str:
    """One SLO: how it is, its alerts, and its charts."""
    back = f'<p class="back"><a id="back" href="{escape(frame.href("/", range=None))}">All SLOs</a></p>'
    if known.value is None:
        return _silent_page(frame, [back], known.error)
    one = next(one for one in known.value.slos if one.compiled.slo.id == compiled.slo.id)
    slo = compiled.slo
    promise = f"<strong>{names.number(slo.objective)} %</strong> over {escape(period_text(slo.window))}"
    live = [
        *_remarks(frame, known, known.value.notes),
        *_remarks(frame, history, ()),
        f"<p>{escape(slo.description)} {promise}; owner {escape(slo.owner)}.</p>",
        _figures(one),
        *_alerts(one.alerts, frame, compiled),
        *_ranges(frame, compiled, shown),
    ]
    if history.value is not None:
        live += _charts(one, history.value)
    live += _burn_table(one)
    return _page(frame, f"{slo.id_path}: {one.state}", [back], live)


def _figures(one: SloNow) -> str:
    figures = {"state": _state(one), "budget left": _left(one), "worst burn": escape(_worst(one))}
    return f'<dl class="figures">{"".join(f"<div><dt>{k}</dt><dd>{v}</dd></div>" for k, v in figures.items())}</dl>'


def _ranges(frame: Frame, compiled: CompiledSlo, shown: str) -> Iterator[str]:
    yield '<nav class="ranges" aria-label="Time shown"><span>Time shown</span><ul>'
    for name in spans(compiled):
        current = ' aria-current="true"' if name == shown else ""
        yield f'<li><a id="range-{name}" href="{escape(frame.href(range=name))}"{current}>{name}</a></li>'
    yield "</ul></nav>"


def _charts(one: SloNow, history: History) -> Iterator[str]:
    axis, step = Axis(history.span), history.step_seconds
    yield f'<section aria-labelledby="charts"><h2 id="charts" class="quiet">{_span(history.span)}</h2>'
    objective = float(one.compiled.slo.objective_ratio)
    good = Line(name="Good events", points=history.good_share)
    promised = Limit(f"objective {names.number(one.compiled.slo.objective)} %", objective)
    yield _figure(
        "Good events (SLI)",
        charts.chart(
            "sli", "Good events", axis, _share_scale(good, objective), [good], step_seconds=step, limits=[promised]
        ),
    )
    left = Line(name="Budget left", points=history.left)
    lowest = max(_LEFT_SHOWN_MIN, min([0.0, *(value for _, value in left.points)]))
    scale = Scale(low=lowest, high=1.0, text=words.percent)
    gone = Limit("gone", 0.0)
    yield _figure(
        "Budget left (burn-down)",
        charts.chart("left", "Budget left", axis, scale, [left], step_seconds=step, limits=[gone]),
    )
    for pair in one.compiled.policy.pairs:
        yield _burn_chart(axis, history, pair)
    for key, name, points in (
        ("every", "Events per second", history.every),
        ("bad", "Bad events per second", history.bad),
    ):
        line = Line(name=name, points=points)
        most = max((value for _, value in points), default=0.0) or 1.0
        scale = Scale(low=0.0, high=most, text=_rate)
        yield _figure(name, charts.chart(key, name, axis, scale, [line], step_seconds=step))
    yield "</section>"


def _figure(caption: str, drawing: str) -> str:
    return f"<figure><figcaption>{escape(caption)}</figcaption>{drawing}</figure>"


def _share_scale(line: Line, objective: float) -> Scale:
    """From a little below the lowest share, or the objective, up to 1."""
    lowest = min([objective, *(value for _, value in line.points)])
    low = max(0.0, 1 - 1.25 * max(1 - lowest, _EXACT_SHARES))
    decimals = next((digits for digits in range(6) if (1 - low) * 100 >= 2 * 10**-digits), 6)
    return Scale(low=low, high=1.0, text=lambda value: f"{100 * value:.{decimals}f} %")


def _burn_chart(axis: Axis, history: History, pair: BurnWindows) -> str:
    factor = float(pair.factor)
    lines = [
        Line(name=f"over {names.duration(pair.long)}", points=history.burns.get(pair.long, ())),
        Line(name=f"over {names.duration(pair.short)}", points=history.burns.get(pair.short, ()), dashed=True),
    ]
    highest = max([0.0, *(value for line in lines for _, value in line.points)])
    scale = Scale(
        low=0.0, high=min(max(1.5 * factor, highest), _BURN_SHOWN_FACTORS * factor), text=words.burn, middle=False
    )
    windows = f"{names.duration(pair.long)} and {names.duration(pair.short)}"
    limit = Limit(f"{pair.severity} above {names.number(pair.factor)} x in both", factor)
    key = f"burn-{names.duration(pair.long)}"
    drawing = charts.chart(
        key, f"Burn over {windows}", axis, scale, lines, step_seconds=history.step_seconds, limits=[limit]
    )
    caption = (
        f"<figcaption>Burn, {pair.severity}"
        f'<span class="key"><i class="solid"></i>{escape(lines[0].name)}<i class="dashed"></i>{escape(lines[1].name)}'
        "</span></figcaption>"
    )
    return f"<figure>{caption}{drawing}</figure>"


def _burn_table(one: SloNow) -> Iterator[str]:
    yield from _wide("Burn now", "", "Burn now; an alert needs both of its windows above its limit")
    yield _heads(("Windows", "Long", "Short", "Limit", "Above")) + "<tbody>"
    for pair in one.compiled.policy.pairs:
        burns = [one.burns.get(window) for window in (pair.long, pair.short)]
        above = [burn is not None and burn > pair.factor for burn in burns]
        said = "both" if all(above) else "long" if above[0] else "short" if above[1] else "neither"
        shown = "".join(f"<td>{_NOTHING if burn is None else words.burn(burn)}</td>" for burn in burns)
        yield (
            f'<tr><th scope="row">{names.duration(pair.long)} and {names.duration(pair.short)}</th>{shown}'
            f"<td>{pair.severity} above {names.number(pair.factor)} x</td><td>{said}</td></tr>"
        )
    yield "</tbody></table></div>"


def _rate(value: float) -> str:
    return f"{value:.3g}/s" if value < 1_000 else f"{value:,.0f}/s"  # noqa: PLR2004 - no exponent


# --- alerts ---------------------------------------------------------------------------------------------------------


def _alerts(alerts: Sequence[Alert], frame: Frame, compiled: CompiledSlo | None = None) -> Iterator[str]:
    """The alerts with what they say and where they lead."""
    firing = sum(alert.firing for alert in alerts)
    head = f"{words.plural(firing, 'alert fires', 'alerts fire')}" if firing else "No alert fires"
    pending = len(alerts) - firing
    head += f", {pending} pending" if pending else ""
    yield f'<section class="alerts" aria-labelledby="alerts"><h2 id="alerts">{head}</h2>'
    if compiled is None and len(alerts) > _ALERTS_IN_SIGHT:
        yield '<p><a id="past" href="#slos">Skip to the SLOs</a></p>'
    if alerts:
        yield "<ul>"
        yield from (_alert(alert, frame, compiled) for alert in alerts)
        yield "</ul>"
    yield "</section>"


def _alert(alert: Alert, frame: Frame, compiled: CompiledSlo | None) -> str:
    mark, kind = _MARKS[State.PAGE if alert.severity == Severity.PAGE else State.TICKET]
    state = "fires" if alert.firing else "pending"
    for_how_long = f"for {words.length(max(0.0, frame.at - alert.since))}"
    handling = f", {alert.handling}" if alert.handling else ""
    # The same alert has the same id when the page is renewed, wherever it is by then.
    key = f"alert-{crc32(repr(sorted(alert.labels.items())).encode('utf-8', 'replace')):08x}"
    links = [
        f'<a id="{key}-{escape(label)}" href="{escape(url)}" rel="noreferrer noopener">{escape(label)}</a>'
        for label, url in _links(alert)
    ]
    slo = "/".join(alert.labels.get(label, "") for label in ("sloth_service", "sloth_slo"))
    if compiled is None and alert.labels.get("sloth_id"):
        href = escape(frame.href(f"/slo/{slo}", q=None))
        links.insert(0, f'<a id="{key}-slo" href="{href}">{escape(slo)}</a>')
    told = f"{escape(alert.severity or 'no severity')}, {state} {for_how_long}{handling}"
    parts = [
        f'<p><span class="{kind}"><span aria-hidden="true">{mark}</span> <strong>{escape(alert.name)}</strong></span> ',
        f"{told}</p>",
        *(
            f'<p class="{name}">{escape(alert.annotations[name])}</p>'
            for name in ("summary", "description")
            if alert.annotations.get(name)
        ),
        f'<p class="links">{" ".join(links)}</p>' if links else "",
    ]
    return f"<li>{''.join(parts)}</li>"


def _links(alert: Alert) -> Iterator[tuple[str, str]]:
    """The links of an alert's annotations; what is no web address is none."""
    first = ("runbook_url", "dashboard_url")
    for name in (*first, *sorted(set(alert.annotations) - set(first))):
        url = alert.annotations.get(name, "")
        if name.endswith(_LINK_SUFFIX) and urlsplit(url).scheme in ("http", "https"):
            yield name.removesuffix(_LINK_SUFFIX).replace("_", " "), url


# --- what cannot be told --------------------------------------------------------------------------------------------


def _remarks(frame: Frame, known: Known[Now] | Known[History], notes: Iterable[str]) -> Iterator[str]:
    said = []
    if known.error is not None:
        since = (
            "Nothing of it was read so far."
            if known.read_at is None
            else f"What is shown is old: it was read at {_clock(known.read_at)}, "
            f"{words.length(frame.at - known.read_at)} ago."
        )
        said.append(f"<strong>Prometheus does not answer. {since}</strong> {escape(known.error)}")
    said += [escape(note) for note in notes]
    if said:
        yield f'<aside class="partial" role="alert"><ul>{"".join(f"<li>{one}</li>" for one in said)}</ul></aside>'


def _silent_page(frame: Frame, above: Iterable[str], error: str | None) -> str:
    said = f"<p><strong>Nothing is known of any SLO.</strong> {escape(error or '')}</p>"
    hint = "<p>Is Prometheus up, and is its address right? This page tries again.</p>"
    live = [f'<aside class="partial" role="alert">{said}{hint}</aside>']
    return _page(frame, "Prometheus does not answer", above, live)


def missing_page(frame: Frame, what: str) -> str:
    """There is no such page."""
    return _page(
        frame,
        "There is no such page",
        ['<p class="back"><a id="back" href="/">All SLOs</a></p>'],
        [f"<p>{escape(what)}</p>"],
        refreshing=False,
    )


# --- what all pages share -------------------------------------------------------------------------------------------


def _page(frame: Frame, headline: str, above: Iterable[str], live: Iterable[str], *, refreshing: bool = True) -> str:
    """A whole page: what is above stays, what is live is put anew."""
    renewed = refreshing and frame.refreshing
    parts = [
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"/>',
        '<meta name="viewport" content="width=device-width, initial-scale=1"/>',
        '<meta name="color-scheme" content="light dark"/>',
        f'<title>{escape(headline)} - SLO console</title><link rel="stylesheet" href="/console.css"/>',
        '<link rel="icon" href="/icon.svg" type="image/svg+xml"/>',
    ]
    if renewed:
        parts.append(f'<noscript><meta http-equiv="refresh" content="{REFRESH_SECONDS}"/></noscript>')
        parts.append('<script type="module" src="/console.js"></script>')
    parts += [
        f'</head><body data-refresh-seconds="{REFRESH_SECONDS}"><a class="skip" href="#main">Skip to the content</a>',
        PATTERNS,
        f'<header><p class="over">SLO console</p><h1 id="headline" aria-live="polite">{escape(headline)}</h1>',
        _how_new(frame, renewed=renewed, refreshing=refreshing),
        '<p id="lost" role="alert" hidden>The console does not answer any more; what is shown is old.</p></header>',
        '<main id="main" tabindex="-1">',
        *above,
        '<div id="live">',
        *live,
        "</div></main></body></html>\n",
    ]
    return "\n".join(parts)


def _how_new(frame: Frame, *, renewed: bool, refreshing: bool) -> str:
    said = f'<span id="clock">{_clock(frame.at)}</span>; source {escape(frame.source)}.'
    if not refreshing:
        return f"<p>{said}</p>"
    text = f"Renewed every {REFRESH_SECONDS} s." if renewed else "Not renewed."
    change, action = ("1", "Hold still") if renewed else (None, "Renew again")
    return f'<p>{said} {text} <a id="still" href="{escape(frame.href(still=change))}">{action}</a></p>'


def _clock(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _span(of: Span) -> str:
    return f"{_clock(of.begin)} to {_clock(of.end)}"


def _heads(heads: Sequence[str]) -> str:
    cells = "".join(f'<th scope="col">{head}</th>' for head in heads)
    return f"<thead><tr>{cells}</tr></thead>"


def _wide(name: str, kind: str, caption: str = "") -> Iterator[str]:
    """A table that scrolls by itself where the screen is narrow; it is closed by whoever fills it."""
    key = name.lower().replace(" ", "-")
    yield f'<div class="wide" id="table-{key}" tabindex="0" role="region" aria-label="{name}"><table class="{kind}">'
    if caption:
        yield f"<caption>{caption}</caption>"
