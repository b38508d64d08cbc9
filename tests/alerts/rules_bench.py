"""A bench for rules: traffic goes in, the real promtool runs the generated rules, and any expression comes out.

promtool only compares. Asked to expect nothing, it prints what it got instead, and that is what is read here.
It also runs every group at one interval, so the coarse group gets a guard: it yields a value every five minutes only.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from functools import cache
from itertools import accumulate
from pathlib import Path
from typing import Any

from alerts.prometheus import rule_groups
from slo import Counter, Events, Slo, compile_slo
from slo import conventions as names
from slo.compile import CompiledSlo
from slo.settings import Links
from slo.windows import Policy

PROMTOOL = Path(__file__).resolve().parents[2] / ".tools/bin/promtool"
LINKS = Links(
    grafana="https://grafana.test",
    runbooks="https://runbooks.test",
    traces="https://traces.test",
    logs="https://logs.test",
)

SECOND, MINUTE, HOUR, DAY = (timedelta(seconds=s) for s in (1, 60, 3600, 86400))
SCRAPE = 30 * SECOND

REQUESTS = Counter("shop_requests_total", "Requests.", labels={"code": ("ok", "error")})
OK, ERROR = 'shop_requests_total{code="ok"}', 'shop_requests_total{code="error"}'
FIRING = 'ALERTS{alertstate="firing"}'
PAGE, TICKET, ABSENT = "ShopAvailabilityPage", "ShopAvailabilityTicket", "ShopAvailabilityAbsent"


def shop(**changes: Any) -> Slo:  # noqa: ANN401 - whatever Slo takes
    """An SLO on one counter, 99.9 % over 30 days."""
    given: dict[str, Any] = {
        "service": "shop",
        "name": "availability",
        "description": "Shoppers get an answer.",
        "objective": Decimal("99.9"),
        "sli": Events(bad=REQUESTS.where(code="error"), all=REQUESTS.where()),
        "owner": "shop-team",
    }
    return Slo(**{**given, **changes})


# --- traffic --------------------------------------------------------------------------------------------------------

Value = float | None | str
"""A sample; None for a scrape that failed to happen, "stale" for a target that is known to be gone."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """A stretch of even traffic.

    Attributes:
        length: How long it lasts.
        rate: Events per second.
        bad: Share of bad events, 0 to 1.
    """

    length: timedelta
    rate: float
    bad: float = 0.0

    @property
    def events(self) -> float:
        """How many there are."""
        return self.length.total_seconds() * self.rate


def truth(*stretches: Stretch) -> float:
    """The error ratio, counted from the events."""
    return sum(s.events * s.bad for s in stretches) / sum(s.events for s in stretches)


def counters(*stretches: Stretch, scrape: timedelta = SCRAPE) -> tuple[list[Value], list[Value]]:
    """The counters of good and of bad events, sampled at each scrape; both begin at 0."""
    seconds = scrape.total_seconds()
    each = [s for s in stretches for _ in range(s.length // scrape)]
    good = [s.rate * (1 - s.bad) * seconds for s in each]
    bad = [s.rate * s.bad * seconds for s in each]
    return [0.0, *accumulate(good)], [0.0, *accumulate(bad)]


def traffic(*stretches: Stretch, scrape: timedelta = SCRAPE) -> dict[str, list[Value]]:
    """One process's two series."""
    good, bad = counters(*stretches, scrape=scrape)
    return {OK: good, ERROR: bad}


# --- the run --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Firing:
    """An alert as promtool sees it, with its rendered texts."""

    labels: Mapping[str, str]
    annotations: Mapping[str, str]


@dataclass(frozen=True)
class Answers:
    """What the rules said."""

    _values: Mapping[tuple[str, timedelta], list[tuple[dict[str, str], float]]]
    _alerts: Mapping[tuple[str, timedelta], list[Firing]] = field(default_factory=dict)

    def series(self, expr: str, at: timedelta) -> list[tuple[dict[str, str], float]]:
        """Every value of an expression with its labels."""
        return self._values[expr, at]

    def value(self, expr: str, at: timedelta) -> float | None:
        """The one value of an expression; None when it has none."""
        found = self._values[expr, at]
        assert len(found) <= 1, f"{expr} at {at} has {len(found)} values"
        return found[0][1] if found else None

    def number(self, expr: str, at: timedelta) -> float:
        """The one value of an expression, which it must have."""
        value = self.value(expr, at)
        assert value is not None, f"{expr} has no value at {at}"
        return value

    def firing(self, at: timedelta) -> list[str]:
        """The names of the alerts that fire."""
        return sorted(labels["alertname"] for labels, _ in self._values[FIRING, at])

    def texts(self, alert: str, at: timedelta) -> list[Firing]:
        """The alert's instances with their texts."""
        return self._alerts[alert, at]


def play(  # noqa: PLR0913 - each has a default
    folder: Path,
    slo: Slo | CompiledSlo,
    series: Mapping[str, Sequence[Value]],
    ask: Iterable[tuple[str, timedelta]],
    *,
    texts: Iterable[tuple[str, timedelta]] = (),
    scrape: timedelta = SCRAPE,
    every: timedelta = SCRAPE,
    coarse_after: timedelta = timedelta(0),
    change: Callable[[dict[str, Any]], None] | None = None,
    more_rules: Sequence[Mapping[str, Any]] = (),
) -> Answers:
    """Run an SLO's rules over series and ask for values.

    Args:
        folder: For files.
        slo: Whose rules.
        series: Series -> one value a scrape, from time 0.
        ask: Expressions, and when; times are multiples of `every`.
        texts: Names of alerts, and when: their rendered annotations.
        scrape: Time from one sample to the next.
        every: How often the rules run.
        coarse_after: When in its interval the coarse group runs; Prometheus spreads groups over their intervals.
        change: Changes the parsed rule file.
        more_rules: Further rule groups, after ours.
    """
    compiled = slo if isinstance(slo, CompiledSlo) else compile_slo(slo)
    ours = guarded(rule_groups(compiled, LINKS), compiled.policy, every, coarse_after)
    rules: dict[str, Any] = {"groups": [*ours, *more_rules]}
    if change:
        change(rules)
    asked, told = list(dict.fromkeys(ask)), list(dict.fromkeys(texts))
    rules["groups"] = needed(rules["groups"], [expr for expr, _ in asked], texts=bool(told))
    test = {
        "rule_files": ["rules.json"],
        "evaluation_interval": names.duration(every),
        "group_eval_order": [group["name"] for group in rules["groups"]],
        "tests": [
            {
                "interval": names.duration(scrape),
                "input_series": [{"series": s, "values": _notation(v)} for s, v in series.items()],
                "promql_expr_test": [{"expr": expr, "eval_time": _moment(at), "exp_samples": []} for expr, at in asked],
                "alert_rule_test": [
                    {"alertname": name, "eval_time": _moment(at), "exp_alerts": []} for name, at in told
                ],
            }
        ],
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "rules.json").write_text(json.dumps(rules))  # JSON is YAML
    (folder / "test.json").write_text(json.dumps(test))
    done = promtool("test", "rules", folder / "test.json")
    values: dict[tuple[str, timedelta], list[tuple[dict[str, str], float]]] = {key: [] for key in asked}
    alerts: dict[tuple[str, timedelta], list[Firing]] = {key: [] for key in told}
    for line, following in _failures(done.stdout + done.stderr):
        _read(line, following, values, alerts)
    return Answers(values, alerts)


def promtool(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run promtool; its verdict is its exit code."""
    return subprocess.run([PROMTOOL, *arguments], capture_output=True, text=True, check=False)


def guarded(
    groups: Sequence[Mapping[str, Any]], policy: Policy, every: timedelta, after: timedelta
) -> list[dict[str, Any]]:
    """The groups, with values of the coarse one at its own interval only."""
    fine, coarse = groups
    seconds, turn = (names.number(length.total_seconds()) for length in (policy.coarse_interval, after))
    if every % policy.coarse_interval == timedelta(0):
        return [dict(fine), dict(coarse)]
    now = f"vector(time()) % {seconds} == {turn}"
    rules = [{**rule, "expr": f"(\n{rule['expr']}\n)\nand on () ({now})"} for rule in coarse["rules"]]
    return [dict(fine), {**coarse, "rules": rules}]


def needed(groups: Sequence[Mapping[str, Any]], exprs: Iterable[str], *, texts: bool = False) -> list[dict[str, Any]]:
    """The rules that expressions read, directly or not; a test that runs fewer rules is a quick one.

    A question about all series needs all rules, one about alerts all alerts; only `texts` need annotations.
    """
    rules = [rule for group in groups for rule in group["rules"]]
    reads: dict[str, set[str]] = {}
    for rule in rules:
        if "record" in rule:  # two rule sets may record one name
            reads.setdefault(rule["record"], set()).update(_words(rule["expr"]))
    asked = {word for expr in exprs for word in _words(expr)}
    alerts = texts or "ALERTS" in asked
    if alerts:
        told = [rule for rule in rules if "alert" in rule]
        asked |= {word for rule in told for word in _words(rule["expr"])}
        asked |= {word for rule in told if texts for word in _words(json.dumps(rule["annotations"]))}
    wanted = set(reads) if "__name__" in asked else set[str]()
    while grown := asked - wanted:
        wanted |= grown
        asked = {word for name in grown for word in reads.get(name, ())}
    kept = [
        {**group, "rules": [r for r in group["rules"] if r.get("record", alerts) in {*wanted, True}]}
        for group in groups
    ]
    for group in kept:
        group["rules"] = [{k: v for k, v in r.items() if k != "annotations" or texts} for r in group["rules"]]
    return [group for group in kept if group["rules"]]


def _words(expr: str) -> set[str]:
    return set(re.findall(r"[a-zA-Z_:][\w:]*", expr))


def times(begin: timedelta, end: timedelta, step: timedelta) -> Iterator[timedelta]:
    """From begin to end, both included."""
    while begin <= end:
        yield begin
        begin += step


def asks(exprs: str | Iterable[str], at: timedelta | Iterable[timedelta]) -> list[tuple[str, timedelta]]:
    """Every expression at every moment."""
    return [
        (expr, moment)
        for moment in ([at] if isinstance(at, timedelta) else at)
        for expr in ([exprs] if isinstance(exprs, str) else exprs)
    ]


# --- promtool's notation --------------------------------------------------------------------------------------------


def _notation(values: Sequence[Value]) -> str:
    return " ".join("_" if v is None else v if isinstance(v, str) else repr(v) for v in values)


@cache
def _moment(at: timedelta) -> str:
    return names.duration(at) if at else "0s"


_LABEL = re.compile(r'(\w+)=("(?:[^"\\]|\\.)*")')
_SAMPLE = re.compile(r'\{((?:"(?:[^"\\]|\\.)*"|[^}"])*)\} (\S+?)(?:, (?=\{)|$)')
_EXPR = re.compile(r'    expr: ("(?:[^"\\]|\\.)*"), time: (\w+),')
_ALERT = re.compile(r"    alertname: (\w+), time: (\w+),")


def _failures(output: str) -> Iterator[tuple[str, list[str]]]:
    """Each difference that promtool reports: its first line, and those below it."""
    first: str | None = None
    below: list[str] = []
    for line in output.splitlines():
        if line.startswith("    ") and not line.startswith("     "):
            if first is not None:
                yield first, below
            first, below = line, []
        elif first is not None:
            below.append(line)
    if first is not None:
        yield first, below


def _read(
    line: str,
    below: list[str],
    values: dict[tuple[str, timedelta], list[tuple[dict[str, str], float]]],
    alerts: dict[tuple[str, timedelta], list[Firing]],
) -> None:
    text = "\n".join(below)
    if match := _EXPR.match(line):
        got = text.partition("got: ")[2].strip()
        assert got, f"promtool refused: {line}\n{text}"
        samples = [(_labels(labels), float(value)) for labels, value in _SAMPLE.findall(got)]
        values[json.loads(match[1]), _length(match[2])] += samples
    elif match := _ALERT.match(line):
        pairs = zip(re.findall(r"Labels:(.*)", text), re.findall(r"Annotations:(.*)", text), strict=True)
        alerts[match[1], _length(match[2])] += [Firing(_labels(labels), _labels(notes)) for labels, notes in pairs]
    else:
        message = f"promtool says: {line}\n{text}"
        raise AssertionError(message)


def _labels(text: str) -> dict[str, str]:
    return {name: json.loads(value) for name, value in _LABEL.findall(text)}


_UNIT = {"y": 365 * DAY, "w": 7 * DAY, "d": DAY, "h": HOUR, "m": MINUTE, "s": SECOND, "ms": SECOND / 1000}


def _length(text: str) -> timedelta:
    return sum((int(n) * _UNIT[unit] for n, unit in re.findall(r"(\d+)(ms|[ywdhms])", text)), timedelta(0))
