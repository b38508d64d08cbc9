"""What was measured, as the table of docs/incidents.md, and as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from drills.incidents.incident import Incident, Rehearsal
from drills.incidents.stage import TIMES_FASTER
from slo.errors import SloError

DOCUMENT: Final = Path(__file__).parents[2] / "docs/incidents.md"

_BEGIN, _END = "<!-- measured: begin -->", "<!-- measured: end -->"
_HEAD: Final = ("failure", "alert", "told", "promised", "measured", "in production", "what the responder sees")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One alert of one incident.

    Attributes:
        alert: Its name.
        route: Who is told.
        promised_seconds: From the fault to the notification, at most; a second stands for a minute. None for an alert
            that may come, and need not.
        measured_seconds: What it was; None when it did not come.
        because: How the promise follows.
    """

    alert: str
    route: str
    promised_seconds: float | None
    measured_seconds: float | None
    because: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What is left of a rehearsal.

    Attributes:
        incident: Which.
        rows: Its alerts.
        violations: What was wrong.
        bad: Requests that got no good answer.
    """

    incident: Incident
    rows: tuple[Row, ...]
    violations: tuple[str, ...]
    bad: int

    def as_json(self) -> dict[str, Any]:
        """For machines."""
        return {
            "incident": self.incident.name,
            "meaning": self.incident.meaning,
            "alerts": [asdict(row) for row in self.rows],
            "violations": list(self.violations),
            "failed_requests": self.bad,
            "times_faster": TIMES_FASTER,
        }


def result(shown: Rehearsal) -> Result:
    """What is kept of a rehearsal."""
    rows = tuple(
        Row(
            alert=one.alert,
            route=one.route,
            promised_seconds=one.within_seconds,
            measured_seconds=shown.seconds.get(one.alert),
            because=one.because,
        )
        for one in shown.incident.expects
    )
    rows += tuple(
        Row(alert=alert, route=route, promised_seconds=None, measured_seconds=shown.seconds.get(alert), because="")
        for alert, route in shown.incident.may_come
    )
    return Result(
        incident=shown.incident,
        rows=rows,
        violations=shown.violations,
        bad=shown.bad,
    )


def table(results: Iterable[Result]) -> str:
    """Markdown, a row an alert."""
    lines = [_line(_HEAD), _line(["---"] * len(_HEAD))]
    lines += [_line(cells) for one in results for cells in _cells(one)]
    return "\n".join(lines) + "\n"


def _cells(one: Result) -> Iterator[Sequence[str]]:
    for number, row in enumerate(one.rows):
        first = number == 0
        measured = row.measured_seconds
        yield (
            f"**{one.incident.name}.** {one.incident.meaning}" if first else "",
            f"`{row.alert}`",
            row.route,
            "may come" if row.promised_seconds is None else f"{row.promised_seconds:.1f} s",
            "did not come" if measured is None else f"{measured:.1f} s",
            "" if measured is None else f"{measured * TIMES_FASTER / 60:.0f} min",
            one.incident.sees if first else "",
        )


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def reasons(results: Iterable[Result]) -> str:
    """Markdown: how each promised time follows, a line for each sum."""
    sums: dict[str, list[str]] = {}
    for one in results:
        for row in (row for row in one.rows if row.promised_seconds is not None):
            sums.setdefault(f"{row.promised_seconds:.1f} s = {row.because}", []).append(
                f"`{row.alert}` ({one.incident.name})"
            )
    return "".join(f"- {told}: {', '.join(of)}\n" for told, of in sums.items())


def update(results: Sequence[Result], document: Path = DOCUMENT) -> None:
    """Write the figures into the document, between its marks.

    Raises:
        SloError: The document has no marks.
    """
    text = document.read_text("utf-8")
    if text.count(_BEGIN) != 1 or text.count(_END) != 1:
        raise SloError(str(document), [f"there must be one line {_BEGIN} and one line {_END}"])
    head, _, rest = text.partition(_BEGIN)
    tail = rest.partition(_END)[2]
    figures = f"{table(results)}\nHow the promised times follow, in seconds:\n\n{reasons(results)}"
    document.write_text(f"{head}{_BEGIN}\n\n{figures}\n{_END}{tail}", "utf-8")
