"""`slo simulate`: what an SLO's alerts would have done over given traffic, before anybody merges them."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli.options import HELP
from slo import conventions as names
from slo.catalogue import facts_of
from slo.compile import CompiledSlo
from slo.errors import SloError
from slo.model import Slices
from slo.simulation.alerting import Alerting, length_of
from slo.simulation.evaluator import Firing, Outcome, Simulation, Told, simulate
from slo.simulation.traffic import Incident, Traffic, moment_of, parse
from slo.windows import DAY, MINUTE, Severity

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from cli.main import Workspace


@click.command("simulate", context_settings=HELP)
@click.option("--slo", "name", required=True, help="The SLO, service/slo.")
@click.option(
    "--traffic",
    "source",
    metavar="FILE|RATE",
    help=(
        "A CSV file with the columns time,all,bad, or JSON lines with these keys, one row an interval; or made up: "
        "27/s all day, daily:27/s with quiet nights. By default daily, as much as the definition expects."
    ),
)
@click.option(
    "--incident",
    "given",
    multiple=True,
    metavar="BEGIN,LENGTH,SHARE[,RATE]",
    help=(
        "A share of the events is bad for a while, 2026-11-03T02:00,30m,5% say (UTC); with a rate, so many events/s "
        "come on top: 2026-11-03T18:00,1h,0.4%,6000/s is a flash sale. As often as you like."
    ),
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for machines.")
@click.pass_obj
def command(workspace: Workspace, name: str, source: str | None, given: tuple[str, ...], *, as_json: bool) -> None:
    """Say what would have paged, when, and what it would have cost of the budget.

    An alert that fires again within Alertmanager's five minutes is one page; --json has each firing.

    The rules are evaluated exactly as Prometheus would, from counted events. Made-up traffic begins one period before
    the first incident, so that the budget knows the usual traffic, and ends a day after the last.
    """
    from cli.main import output, reporting_errors

    @reporting_errors
    def run() -> None:
        compiled = workspace.one(name)
        incidents = [incident_of(text) for text in given]
        simulation = simulate(Alerting.of(facts_of(compiled)), traffic_of(compiled, source, incidents), incidents)
        if as_json:
            click.echo(json.dumps(simulation_facts(simulation), indent=2, ensure_ascii=False))
        else:
            show(simulation, output())

    run()


# --- what is asked for ----------------------------------------------------------------------------------------------

_RATE = re.compile(r"(daily:)?(\d+(?:\.\d+)?)(?:/s)?")
_RATE_MAX = 1e9


def traffic_of(compiled: CompiledSlo, source: str | None, incidents: Sequence[Incident]) -> Traffic:
    """The traffic that the option `--traffic` asks for.

    Raises:
        SloError: It is neither a file nor a rate, or the file is wrong.
    """
    if source is not None and Path(source).is_file():
        return read_traffic(source)
    subject = f"traffic {source}" if source else f"simulation of {compiled.slo.id_path}"
    sliced = isinstance(compiled.slo.sli, Slices)
    expected = compiled.slo.expected_events_per_second
    if source is None and expected is None and not sliced:
        raise SloError(subject, ["the definition expects no traffic; give --traffic, a file or 27/s say"])
    rate = _RATE.fullmatch(source if source is not None else f"daily:{expected or 1}")
    if rate is None:
        raise SloError(subject, ["is neither a file nor a rate; write 27/s, or daily:27/s for quiet nights"])
    if source is not None and sliced:
        raise SloError(subject, ["this SLO judges slices of time, which need no rate; leave --traffic out"])
    per_second = float(rate[2])
    if not 0 < per_second <= _RATE_MAX:
        raise SloError(subject, [f"must be above 0 and at most {_RATE_MAX:,.0f} events/s"])
    if not incidents:
        raise SloError(subject, ["made-up traffic has no bad event; give at least one --incident"])
    begin, length = _span(compiled, incidents)
    interval = compiled.policy.evaluation_interval
    if isinstance(compiled.slo.sli, Slices):
        return Traffic.slices(begin, length, interval, timedelta(seconds=compiled.slo.sli.slice_seconds))
    made = Traffic.daily if rate[1] else Traffic.constant
    return made(begin, length, interval, per_second)


def read_traffic(file: str) -> Traffic:
    """The traffic of a file.

    Raises:
        SloError: It is no traffic.
        OSError: It cannot be read.
    """
    return parse(Path(file).read_text(encoding="utf-8-sig"), f"traffic {file}")


_INCIDENTS_SPAN_MAX = 100 * DAY


def _span(compiled: CompiledSlo, incidents: Sequence[Incident]) -> tuple[datetime, timedelta]:
    """From one period before the first incident to a day after the last."""
    first, last = min(one.begin for one in incidents), max(one.end for one in incidents)
    if last - first > _INCIDENTS_SPAN_MAX:
        raise SloError("incidents", [f"span {(last - first).days} days; at most {_INCIDENTS_SPAN_MAX.days} are played"])
    whole = int(5 * MINUTE.total_seconds())
    begin = datetime.fromtimestamp((first - compiled.policy.period).timestamp() // whole * whole, UTC)
    return begin, last + DAY - begin


def incident_of(text: str) -> Incident:
    """The incident that an option `--incident` gives.

    Raises:
        SloError: It is none.
    """
    subject = f"incident {text}"
    parts = [part.strip() for part in text.split(",")]
    if len(parts) not in (3, 4):
        raise SloError(subject, ["must be begin, length and share, 2026-11-03T02:00,30m,5% say, and a rate if any"])
    try:
        incident = Incident(
            begin=moment_of(parts[0]),
            length=_length_of(parts[1]),
            bad_share=_share_of(parts[2]),
            more_per_second=_more_of(parts[3]) if len(parts) > 3 else 0.0,  # noqa: PLR2004 - the fourth part
        )
    except OverflowError as error:
        raise SloError(subject, [f"the length {parts[1]} is too long"]) from error
    except ValueError as error:
        raise SloError(subject, [str(error)]) from error
    return incident


def _length_of(text: str) -> timedelta:
    length = length_of(text)
    if not timedelta(0) < length <= _INCIDENTS_SPAN_MAX:
        raise ValueError(f"the length {text!r} must be above 0 and at most {_INCIDENTS_SPAN_MAX.days} days")
    return length


_SHARE = re.compile(r"(\d+(?:\.\d+)?)(%?)")


def _share_of(text: str) -> float:
    found = _SHARE.fullmatch(text)
    share = float(found[1]) / (100 if found[2] else 1) if found else math.nan
    if not 0 <= share <= 1:
        raise ValueError(f"the share {text!r} must be from 0% to 100%, or from 0 to 1")
    return share


def _more_of(text: str) -> float:
    found = _RATE.fullmatch(text)
    if found is None or found[1] or float(found[2]) > _RATE_MAX:
        raise ValueError(f"the rate {text!r} must be a number of events/s, 6000/s say")
    return float(found[2])


# --- as JSON --------------------------------------------------------------------------------------------------------


def simulation_facts(simulation: Simulation) -> dict[str, Any]:
    """A simulation as plain data: times in ISO 8601, lengths in seconds, shares from 0 to 1."""
    return {
        "slo": simulation.slo,
        "begin": simulation.begin.isoformat(),
        "end": simulation.end.isoformat(),
        "all": simulation.all,
        "bad": simulation.bad,
        "budget_events": simulation.budget_events,
        "budget_spent": simulation.budget_spent,
        "pages": len(simulation.told(Severity.PAGE)),
        "tickets": len(simulation.told(Severity.TICKET)),
        "incidents": [_outcome_facts(one) for one in simulation.outcomes],
        "firings": [_firing_facts(one) for one in simulation.firings],
    }


def _outcome_facts(outcome: Outcome) -> dict[str, Any]:
    return {
        "begin": outcome.incident.begin.isoformat(),
        "end": outcome.incident.end.isoformat(),
        "bad_share": outcome.incident.bad_share,
        "more_per_second": outcome.incident.more_per_second,
        "bad": outcome.bad_events,
        "budget_spent": outcome.budget_spent,
        "page": _told_facts(outcome.page),
        "ticket": _told_facts(outcome.ticket),
    }


def _told_facts(told: Told | None) -> dict[str, float] | None:
    if told is None:
        return None
    return {"after_seconds": told.after.total_seconds(), "budget_spent": told.budget_spent}


def _firing_facts(firing: Firing) -> dict[str, Any]:
    return {
        "alert": firing.alert,
        "severity": str(firing.severity),
        "begin": firing.begin.isoformat(),
        "end": firing.end.isoformat() if firing.end else None,
        "reason": str(firing.reason),
        "long": names.duration(firing.long),
        "short": names.duration(firing.short),
        "bad": firing.bad_events,
        "budget_spent": firing.budget_spent,
    }


# --- for people -----------------------------------------------------------------------------------------------------

_FIRINGS_SHOWN = 40


def show(simulation: Simulation, console: Console) -> None:
    """Print a simulation; with a timeline on a terminal."""
    from rich.markup import escape

    pages, tickets = (len(simulation.told(severity)) for severity in (Severity.PAGE, Severity.TICKET))
    console.print(
        f"[bold]{escape(simulation.slo)}[/]  {_count(pages, 'page')} and {_count(tickets, 'ticket')} from "
        f"{_time(simulation.begin)} to {_time(simulation.end)} UTC; {simulation.bad:,.0f} of {simulation.all:,.0f} "
        f"events bad, {percent(simulation.budget_spent)} of a period's budget"
    )
    if simulation.outcomes:
        console.print()
        console.print(_outcomes(simulation.outcomes))
    told = sorted((one for severity in Severity for one in simulation.told(severity)), key=lambda one: one.begin)
    if told:
        console.print()
        console.print(_told_table(told[:_FIRINGS_SHOWN], simulation.end))
        left = len(told) - _FIRINGS_SHOWN
        if left > 0:
            console.print(f"and {left} more; --json tells all")
    if console.is_terminal and (simulation.firings or simulation.outcomes):
        console.print()
        for line in timeline(simulation, min(console.width, _TIMELINE_COLUMNS_MAX)):
            console.print(line, markup=False)


def _outcomes(outcomes: Sequence[Outcome]) -> Table:
    table = _table("incident (UTC)", "for", "share", "bad", "budget", "page after", "ticket after")
    for one in outcomes:
        more = f" +{one.incident.more_per_second:g}/s" if one.incident.more_per_second else ""
        table.add_row(
            _time(one.incident.begin),
            names.duration(one.incident.length),
            f"{percent(one.incident.bad_share)}{more}",
            f"{one.bad_events:,.0f}",
            percent(one.budget_spent),
            _told(one.page),
            _told(one.ticket),
        )
    return table


def _told(told: Told | None) -> str:
    if told is None:
        return "never"
    after = names.duration(told.after) if told.after else "0s"
    return f"{after}, {percent(told.budget_spent)}"


def _told_table(told: Sequence[Firing], traffic_end: datetime) -> Table:
    table = _table("fires (UTC)", "for", "", "why", "bad", "budget gone")
    for one in told:
        lasts = (one.end or traffic_end) - one.begin
        table.add_row(
            _time(one.begin),
            (names.duration(lasts) if lasts else "0s") + ("" if one.end else " and on"),
            str(one.severity),
            f"{one.reason}, {names.duration(one.long)}/{names.duration(one.short)}",
            f"{one.bad_events:,.0f}",
            percent(one.budget_spent),
        )
    return table


def _table(*columns: str) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, no_wrap=True)
    return table


_TIMELINE_COLUMNS_MAX, _NAME_COLUMNS = 100, 10
_SECOND = timedelta(seconds=1)


def timeline(simulation: Simulation, columns: int) -> Iterator[str]:
    """When there was an incident, and who was told, one line each; `#` where it was, `.` where not."""
    incidents = [(one.incident.begin, one.incident.end) for one in simulation.outcomes]
    told = {
        str(severity): [(one.begin, one.end or simulation.end) for one in simulation.told(severity)]
        for severity in Severity
    }
    spans = [span for some in (incidents, *told.values()) for span in some]
    begin, end = min(span[0] for span in spans), max(span[1] for span in spans)
    cells = columns - _NAME_COLUMNS
    cell = max(-(-(end - begin) // (cells * _SECOND)), 30) * _SECOND
    rows = {"incident": incidents, **told} if incidents else told
    for name, some in rows.items():
        marks = ("#" if any(_shares(span, begin + n * cell, cell) for span in some) else "." for n in range(cells))
        yield f"{name:<{_NAME_COLUMNS}}{''.join(marks)}"
    yield f"{'':<{_NAME_COLUMNS}}{_time(begin)}{_time(begin + cells * cell):>{max(cells - len(_time(begin)), 0)}}"


def _shares(span: tuple[datetime, datetime], begin: datetime, length: timedelta) -> bool:
    return span[0] < begin + length and span[1] > begin


def _time(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S}" if moment.second else f"{moment:%Y-%m-%d %H:%M}"


def _count(number: int, what: str) -> str:
    return f"{number or 'no'} {what}{'' if number == 1 else 's'}"


def percent(share: float) -> str:
    """A share in percent, with three digits that matter."""
    hundred = 100 * share
    return f"{hundred:,.0f} %" if hundred >= 1000 else f"{hundred:.3g} %"  # noqa: PLR2004 - more digits than three
