"""What our rules would have recorded: a real Prometheus runs each rule's expression over the whole data set.

Rules read what other rules record, so they run in rounds, each over the data of the rounds before. Two things differ
from rules that ran all along: a rule reads a coarse recording of the same moment already, not five minutes later; and
an alert that ended has no mark of its end, so an instant query finds it for five minutes more.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from benchmarks.flash_sale.data import import_text
from drills.harness import Prometheus, prometheus
from slo import promql
from slo.compile import CompiledSlo

_POINTS_A_QUERY = 10_000  # Prometheus answers with 11,000 at most
_LINES_A_FILE = 4_000_000
_NEVER = timedelta(days=1)  # of evaluating and scraping: this Prometheus only answers
_FLAGS = ("--query.max-samples=200000000",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """A rule, recording or alerting.

    Attributes:
        name: The series that it records.
        expr: PromQL.
        labels: The labels that it adds.
        interval: Time from one evaluation to the next.
        hold: How long an alert's expression must hold before it fires.
    """

    name: str
    expr: str
    labels: Mapping[str, str] = field(hash=False)
    interval: timedelta
    hold: timedelta = timedelta(0)


def rounds(compiled: Sequence[CompiledSlo]) -> list[list[Rule]]:
    """All rules, in rounds: each reads only what rounds before it record."""
    rules = [rule for one in compiled for rule in _rules(one)]
    recorded: dict[str, list[Rule]] = {}
    for rule in rules:
        recorded.setdefault(rule.name, []).append(rule)
    depths: dict[str, int] = {}

    def depth(name: str) -> int:
        if name not in depths:
            reads = {word for rule in recorded[name] for word in _WORD.findall(rule.expr)} & recorded.keys() - {name}
            depths[name] = max((depth(word) for word in reads), default=-1) + 1
        return depths[name]

    found: list[list[Rule]] = [[] for _ in range(max(map(depth, recorded), default=-1) + 1)]
    for rule in rules:
        found[depth(rule.name)].append(rule)
    return found


_WORD = re.compile(r"[a-zA-Z_:][\w:]*")


def _rules(compiled: CompiledSlo) -> Iterator[Rule]:
    policy = compiled.policy
    groups = (
        (compiled.recordings, policy.evaluation_interval),
        (compiled.coarse_recordings, policy.coarse_interval),
    )
    for recordings, interval in groups:
        for one in recordings:
            yield Rule(name=one.record, expr=one.expr, labels=one.labels, interval=interval)
    for alert in compiled.alerts:
        labels = {"alertname": alert.name, "alertstate": "firing", **alert.labels}
        yield Rule(name="ALERTS", expr=alert.expr, labels=labels, interval=policy.evaluation_interval, hold=alert.hold)


def record(
    folder: Path,
    compiled: Sequence[CompiledSlo],
    span: tuple[int, int],
    tell: Callable[[str], None],
    until: int | None = None,
) -> int:
    """Run the rules over a data folder, and write what they record into it; the number of samples.

    Args:
        folder: The data folder.
        compiled: Whose rules.
        span: The first and the last evaluation, Unix time in seconds.
        tell: Is told how far it is.
        until: How many rounds to run; all by default.
    """
    samples = 0
    all_rounds = rounds(compiled)[:until]
    for number, rules in enumerate(all_rounds, 1):
        with serving(folder) as server:
            file = _Part(folder)
            for rule in rules:
                for line in _lines(server, rule, *span):
                    file.add(line)
            samples += file.done()
        tell(f"round {number} of {len(all_rounds)}: {len(rules)} rules, {samples:,} samples")
    return samples


def serving(folder: Path) -> AbstractContextManager[Prometheus]:
    """A Prometheus that answers from a data folder."""
    return prometheus(data=folder, scrape_interval=_NEVER, evaluation_interval=_NEVER, flags=_FLAGS)


class _Part:
    """Lines that are imported when there are many, and at the end."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._text = folder, folder.with_suffix(".recorded")
        self._file = self._text.open("w")
        self._lines = self._all = 0

    def add(self, line: str) -> None:
        self._file.write(line)
        self._lines += 1
        if self._lines >= _LINES_A_FILE:
            self._import()
            self._file = self._text.open("w")

    def done(self) -> int:
        """Import what is left; the number of all lines."""
        if self._lines:
            self._import()
        self._file.close()
        self._text.unlink()
        return self._all

    def _import(self) -> None:
        self._file.close()
        import_text(self._text, self._folder)
        self._all += self._lines
        self._lines = 0


def _lines(server: Prometheus, rule: Rule, begin: int, end: int) -> Iterator[str]:
    """The OpenMetrics lines of what a rule records."""
    seconds = int(rule.interval.total_seconds())
    for start in range(begin, end + 1, seconds * _POINTS_A_QUERY):
        stop = min(start + seconds * (_POINTS_A_QUERY - 1), end)
        answer = server.api("query_range", query=rule.expr, start=start, end=stop, step=seconds)
        for series, values in _recorded(rule, answer["result"]).items():
            held = _held(values, rule, seconds) if rule.name == "ALERTS" else values
            for at, value in held:
                yield f"{series} {value} {at:.0f}\n"


def _recorded(rule: Rule, results: Sequence[Mapping[str, Any]]) -> dict[str, Sequence[Sequence[Any]]]:
    """The series that results become when the rule names and labels them; a comparison keeps the name of its left side.

    So results of different names, one for each way of an alert, are one series: never two at the same moment.
    """
    found: dict[str, list[Sequence[Any]]] = {}
    for one in results:
        labels = {name: text for name, text in one["metric"].items() if name != "__name__"} | dict(rule.labels)
        series = f"{rule.name}{{{','.join(f'{name}={promql.quoted(text)}' for name, text in labels.items())}}}"
        found.setdefault(series, []).extend(one["values"])
    if len(found) < len(results):
        return {series: sorted(values, key=_moment) for series, values in found.items()}
    return {**found}


def _moment(value: Sequence[Any]) -> float:
    return float(value[0])


def _held(values: Sequence[Sequence[float]], rule: Rule, seconds: int) -> Iterator[tuple[float, str]]:
    """The moments at which an alert fires, of those at which its expression holds."""
    since = before = None
    for at, _ in values:
        if before is None or at - before > seconds:
            since = at
        before = at
        assert since is not None, "set at the first value"
        if at - since >= rule.hold.total_seconds():
            yield at, "1"
