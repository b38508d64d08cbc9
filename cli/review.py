"""`slo review` and `slo gate`: what is left of the budgets, why, and whether a change may go out."""

from __future__ import annotations

import contextlib
import json
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime, timedelta
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli.options import HELP

if TYPE_CHECKING:
    from cli.main import Workspace
    from review.model import Adjustment, Review
    from review.reading import Progress, Reader
    from slo.compile import CompiledSlo

EXIT_FROZEN = 1
EXIT_WRONG = 2
EXIT_UNKNOWN = 3

_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_WINDOW_DAYS_MAX = 366


def _length(text: str) -> timedelta:
    """A length of time: 30d, 4w, 12h."""
    found = re.fullmatch(r"([1-9]\d{0,5})([mhdw])", text)
    length = timedelta(**{_UNITS[found[2]]: int(found[1])}) if found else timedelta(0)
    if not timedelta(hours=1) <= length <= timedelta(days=_WINDOW_DAYS_MAX):
        raise click.BadParameter(f"{text!r} is not allowed; from 1h to {_WINDOW_DAYS_MAX}d: 30d or 4w, say")
    return length


def _moment(text: str) -> float:
    """A moment in Unix seconds: a date, RFC 3339 with an offset, or Unix seconds."""
    with contextlib.suppress(ValueError, OverflowError):
        return datetime.fromtimestamp(float(text), UTC).timestamp()
    with contextlib.suppress(ValueError):
        whole = f"{text}T00:00:00Z" if re.fullmatch(r"\d{4}-\d\d-\d\d", text) else text
        moment = datetime.fromisoformat(whole)
        if moment.tzinfo is not None:
            return moment.timestamp()
    raise click.BadParameter(f"{text!r} is no time; use 2025-06-01, 2025-06-01T12:00:00Z or Unix seconds")


def _label(text: str) -> tuple[str, str]:
    """A label and its value: cluster=eu."""
    name, equals, value = text.partition("=")
    if not equals or not re.fullmatch(r"[a-zA-Z_]\w*", name, re.ASCII):
        raise click.BadParameter(f"{text!r} is no label; write cluster=eu, say")
    return name, value


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """What both commands are told.

    Attributes:
        url: Where Prometheus is.
        window: The period; None for each SLO's own.
        as_of: The moment; None for now.
        slos: Names of SLOs or services; empty for all.
        where: Labels that the recorded series must have besides.
        adjustments: The file of agreed exclusions; None for the usual one, which need not be there.
    """

    url: str
    window: timedelta | None
    as_of: float | None
    slos: tuple[str, ...]
    where: tuple[tuple[str, str], ...]
    adjustments: Path | None


_FILE_TO_READ = click.Path(exists=True, dir_okay=False, path_type=Path)
_SHARED = (
    click.option("--prometheus", "url", required=True, metavar="URL", help="Base URL; also of Thanos, Mimir or AMP."),
    click.option(
        "--window", type=_length, metavar="DURATION", help="The period, 30d say; by default that of each SLO."
    ),
    click.option("--as-of", type=_moment, metavar="TIME", help="The moment up to which events count; by default now."),
    click.option("--slo", "slos", multiple=True, metavar="NAME", help="Only this SLO (service/slo), or this service."),
    click.option(
        "--where",
        type=_label,
        multiple=True,
        metavar="NAME=VALUE",
        help="A label that the series must have: cluster=eu, say.",
    ),
    click.option(
        "--adjustments",
        type=_FILE_TO_READ,
        help="Agreed exclusions; by default budget-adjustments.toml beside the settings, if it is there.",
    ),
)


def _shared(command: Callable[..., None]) -> Callable[..., None]:
    """The options that both commands have, as one argument `asked`."""

    @wraps(command)
    def wrapped(*args: Any, **options: Any) -> None:  # noqa: ANN401 - whatever click passes
        asked = _Asked(**{field.name: options.pop(field.name) for field in fields(_Asked)})
        command(*args, asked=asked, **options)

    for option in reversed(_SHARED):
        option(wrapped)
    return wrapped


@click.command(
    context_settings=HELP,
    epilog="Credentials come from the environment: SLO_PROMETHEUS_BEARER_TOKEN and others, see docs.",
)
@_shared
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "markdown", "json", "html"]),
    default="table",
    show_default=True,
    help="How it is told; html is one page that needs nothing else.",
)
@click.option("-o", "--output", "file", type=click.Path(dir_okay=False, path_type=Path), help="Write to a file.")
@click.pass_obj
def review(workspace: Workspace, *, asked: _Asked, form: str, file: Path | None) -> None:
    """Review the error budgets: what is left, what spent it, and what the alerts told.

    Exit codes: 0 done, also when the report is partial and says so; 2 wrong usage; 3 Prometheus gives no answer.
    """
    from cli.main import reporting_errors

    reporting_errors(_review)(workspace, asked, form, file)


def _review(workspace: Workspace, asked: _Asked, form: str, file: Path | None) -> None:
    from review.review import review as make

    compiled, adjustments, at = _input(workspace, asked)
    with _no_answer_is_unknown(), _reader(asked) as reader:
        made = make(compiled, reader, at, window=asked.window, adjustments=adjustments)
    _deliver(made, form, file)


def _deliver(made: Review, form: str, file: Path | None) -> None:
    from cli.main import errors, output
    from review import facts, html, report

    if form == "table":
        if file is None:
            report.print_table(made, output())
        else:
            file.write_text(report.table_text(made))
    else:
        write = {"markdown": report.markdown, "json": facts.json_text, "html": html.page}[form]
        text = write(made)
        if file is None:
            click.echo(text, nl=False)
        else:
            file.write_text(text)
    if file is not None:
        errors().print(f"wrote {file}", markup=False)
    if made.partial:
        errors().print("[bold yellow]partial:[/] parts of the answers may be missing")


@click.command(
    context_settings=HELP,
    epilog="Credentials come from the environment: SLO_PROMETHEUS_BEARER_TOKEN and others, see docs.",
)
@_shared
@click.option(
    "--change",
    type=click.Choice(["feature", "risky", "fix"]),
    default="feature",
    show_default=True,
    help="What wants to go out.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for machines.")
@click.pass_obj
def gate(workspace: Workspace, *, asked: _Asked, change: str, as_json: bool) -> None:
    """Ask the error-budget policy whether a change may go out.

    Exit codes: 0 go; 1 frozen; 2 wrong usage; 3 unknown, as there is no data or no answer, which is not a go.
    """
    from cli.main import reporting_errors

    reporting_errors(_gate)(workspace, asked, change, as_json=as_json)


def _gate(workspace: Workspace, asked: _Asked, change: str, *, as_json: bool) -> None:
    from review.gate import Answer, decide
    from review.review import budgets_of
    from slo.policy import Change

    compiled, adjustments, at = _input(workspace, asked)
    with _no_answer_is_unknown(as_json=as_json), _reader(asked) as reader:
        budgets = budgets_of(compiled, reader, at, window=asked.window, adjustments=adjustments)
        own = {one.slo.id: one.slo.budget_policy for one in compiled if one.slo.budget_policy}
        decision = decide(budgets, compiled, Change(change), at, policies=own, warnings=reader.warnings)
    if as_json:
        facts = {"answer": decision.answer, "change": change, "slos": [asdict(one) for one in decision.verdicts]}
        click.echo(json.dumps(facts, indent=2, ensure_ascii=False))
    else:
        _print_decision(decision.answer, [(one.answer, one.slo, one.reason, one.tells) for one in decision.verdicts])
    codes = {Answer.GO: 0, Answer.FROZEN: EXIT_FROZEN, Answer.UNKNOWN: EXIT_UNKNOWN}
    sys.exit(codes[decision.answer])


def _print_decision(answer: str, verdicts: Sequence[tuple[str, str, str, tuple[str, ...]]]) -> None:
    from cli.main import output

    console = output()
    colours = {"go": "green", "frozen": "red", "unknown": "yellow"}
    for one, slo, reason, tells in verdicts:
        console.print(f"[{colours[one]}]{one:<7}[/] ", end="")
        console.print(f"{slo}: {reason}", markup=False, end="")
        console.print(f" Tell {', '.join(tells)}." if tells else "", markup=False)
    console.print(f"[bold {colours[answer]}]{answer}[/]")


# --- what both need -------------------------------------------------------------------------------------------------


def _input(workspace: Workspace, asked: _Asked) -> tuple[list[CompiledSlo], tuple[Adjustment, ...], float]:
    """The SLOs, the adjustments and the moment."""
    from review import adjustments as agreed
    from review.reading import latest

    compiled = _chosen(workspace, asked.slos)
    file = asked.adjustments or workspace.settings.root / agreed.FILE
    adjustments = agreed.read(file, workspace.compiled) if asked.adjustments or file.is_file() else ()
    newest = latest(compiled, time.time())
    return compiled, adjustments, newest if asked.as_of is None else min(asked.as_of, newest)


def _chosen(workspace: Workspace, names: Sequence[str]) -> list[CompiledSlo]:
    if not names:
        return list(workspace.compiled)
    chosen = []
    for name in names:
        of_service = [one for one in workspace.compiled if one.slo.service == name]
        chosen += of_service or [workspace.one(name)]
    return list({one.slo.id: one for one in chosen}.values())


@contextlib.contextmanager
def _no_answer_is_unknown(*, as_json: bool = False) -> Iterator[None]:
    """End with exit code 3 when Prometheus gives no usable answer."""
    from cli.main import errors
    from review.errors import ReviewError

    try:
        yield
    except ReviewError as error:
        if as_json:
            click.echo(json.dumps({"answer": "unknown", "reason": str(error)}, indent=2, ensure_ascii=False))
        errors().print(f"error: {error}", markup=False)
        sys.exit(EXIT_UNKNOWN)


@contextlib.contextmanager
def _reader(asked: _Asked) -> Iterator[Reader]:
    from review.connection import Connection
    from review.prometheus import Prometheus
    from review.reading import Reader

    with Prometheus(Connection.from_environment(asked.url)) as prometheus, _progress() as progress:
        yield Reader(prometheus, dict(asked.where), progress)


@contextlib.contextmanager
def _progress() -> Iterator[Progress | None]:
    """A bar on standard error while a person waits there."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.progress import Progress as Bars

    from cli.main import errors

    with Bars(console=errors(), transient=True) as bars:
        tasks: dict[str, Any] = {}

        def show(what: str, done: int, of: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(f"reading {what}", total=of)
            bars.update(tasks[what], completed=done, total=of)

        yield show
