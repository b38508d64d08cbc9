"""The command `slo`: reads its arguments, says what happened, sets the exit code. The work is done elsewhere.

Exit codes, the same for every command:

- 0: done, or the answer is yes
- 1: the answer is no: files are stale, a check found problems, `diff --exit-code` found changes
- 2: wrong usage, settings or definitions; one line an error on standard error, and nothing was written
- 3: unknown: Prometheus gives no answer, or has no data
"""

from __future__ import annotations

import gc
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, wraps
from importlib.metadata import version
from pathlib import Path
from typing import Any, NoReturn

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from cli.cloudwatch import apply_group, drift_group
from cli.console import console as console_command
from cli.links import links as links_command
from cli.options import HELP
from cli.review import gate, review
from cli.runbook import runbook
from cli.simulate import command as simulate_command
from slo import catalogue
from slo import conventions as names
from slo import settings as slo_settings
from slo.artefacts import Artefact, stale, write
from slo.causes import Cause
from slo.check import Level, check
from slo.compile import CompiledSlo, compile_slo
from slo.errors import SloError
from slo.matrix import Definitions

EXIT_NO = 1
EXIT_WRONG = 2

_PIPE_COLUMNS = 10_000  # a table asks how wide it may be, and a pipe has no end


@dataclass
class Workspace:
    """The settings and what they lead to, read when a command first needs them."""

    settings_file: Path | None

    @cached_property
    def settings(self) -> slo_settings.Settings:
        """`[tool.slo]` of the given or the nearest pyproject.toml."""
        return slo_settings.load(self.settings_file or slo_settings.find(Path.cwd()))

    @cached_property
    def defined(self) -> Definitions:
        """Every definition."""
        return slo_settings.everything(self.settings)

    @cached_property
    def compiled(self) -> tuple[CompiledSlo, ...]:
        """Every SLO, compiled."""
        return tuple(compile_slo(slo) for slo in self.defined.slos)

    def one(self, name: str) -> CompiledSlo:
        """The SLO of a name, as `service/slo` or as its id.

        Raises:
            SloError: There is none of that name; the message lists those there are.
        """
        for compiled in self.compiled:
            if name in (compiled.slo.id, compiled.slo.id_path):
                return compiled
        known = ", ".join(one.slo.id_path for one in self.compiled)
        raise SloError(f"SLO {name}", [f"is not defined; there are: {known}"])

    def cause(self, name: str) -> Cause | None:
        """The cause of a name, as `component/cause`, as its id, or as its alert; None when there is none."""
        return next((one for one in self.defined.causes if name in (one.id, one.id_path, one.alert_name)), None)


def output() -> Console:
    """Standard output; colours and width only on a terminal, whole lines in a pipe."""
    if sys.stdout.isatty():
        return Console(highlight=False, emoji=False)
    return Console(highlight=False, emoji=False, soft_wrap=True, width=_PIPE_COLUMNS)


def errors() -> Console:
    """Standard error."""
    return Console(stderr=True, highlight=False, emoji=False, soft_wrap=True)


def fail(text: str) -> NoReturn:
    """End with exit code 2 and one line an error."""
    for line in text.splitlines():
        errors().print(f"[bold red]error:[/] {escape(line)}")
    sys.exit(EXIT_WRONG)


def reporting_errors(command: Callable[..., Any]) -> Callable[..., Any]:
    """Show what is wrong with input as lines for people instead of a traceback."""

    @wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - whatever click passes
        try:
            return command(*args, **kwargs)
        except SloError as error:
            fail(str(error))
        except BrokenPipeError:
            raise  # whoever reads has seen enough, `slo list | head` say; click ends in silence
        except UnicodeDecodeError as error:
            fail(f"a file is not UTF-8 text: {error}")
        except OSError as error:
            fail(f"{error.filename or 'file'}: {error.strerror or error}")

    return wrapped


@click.group(
    context_settings=HELP,
    epilog="Exit codes: 0 done or yes; 1 no (stale, problems, changes); 2 wrong usage, settings or definitions.",
)
@click.option(
    "--settings",
    "settings_file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The pyproject.toml with [tool.slo]; by default the nearest one above this folder.",
)
@click.version_option(version("slo-platform"), prog_name="slo")
@click.pass_context
def main(context: click.Context, settings_file: Path | None) -> None:
    """Service level objectives as Python values, and all that follows from them."""
    context.obj = Workspace(settings_file)


as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON, for machines.")


@main.command()
@click.option("--check", "only_check", is_flag=True, help="Write nothing; exit 1 when a file is not up to date.")
@as_json
@click.pass_obj
@reporting_errors
def generate(workspace: Workspace, *, only_check: bool, as_json: bool) -> None:
    """Write every rule, route, board, runbook and spec.

    Files that nothing generates any more are removed. Nothing is written when a definition is wrong.
    """
    from cli.generate import artefacts  # the renderers take longest to import

    # All that is made here is text that lives until the end: the collector would only read it over and over.
    gc.disable()
    started = time.perf_counter()
    problems = [finding for finding in check(workspace.compiled, workspace.defined) if finding.level is Level.PROBLEM]
    if problems:
        fail("\n".join(f"SLO {finding.subject}: {finding.text}" for finding in problems))
    rendered = artefacts(workspace.compiled, workspace.settings, workspace.defined)
    folder = workspace.settings.output
    if not only_check:
        refuse_strangers(folder, rendered)
    changes = stale(folder, rendered) if only_check else write(folder, rendered)
    seconds = time.perf_counter() - started
    console = output()
    if as_json:
        click.echo(json.dumps({"changes": [{"path": str(c.path), "why": c.why} for c in changes]}, indent=2))
    else:
        shown = folder.relative_to(workspace.settings.root)
        for change in changes:
            console.print(f"{_verb(change.why, only_check=only_check)} {escape(str(shown / change.path))}")
        console.print(
            f"{len(workspace.compiled)} SLOs, {len(rendered)} files, {len(changes)} "
            f"{'stale' if only_check else 'changed'}, {seconds:.1f} s"
        )
        if only_check and changes:
            console.print("[bold]run `make generate` and commit the result[/]")
    if only_check and changes:
        sys.exit(EXIT_NO)


def refuse_strangers(folder: Path, rendered: Sequence[Artefact]) -> None:
    """Leave a folder alone that `slo generate` never wrote, as all that is not generated would be removed from it.

    Raises:
        SloError: It holds files, and no catalogue of ours.
    """
    if (folder / catalogue.PATH).is_file():
        return
    strangers = [change.path for change in stale(folder, rendered) if change.why == "orphan"]
    if strangers:
        fault = f"holds {strangers[0]}, which `slo generate` did not write; name a folder of its own, or empty this one"
        raise SloError(f"output folder {folder}", [fault])


def _verb(why: str, *, only_check: bool) -> str:
    if only_check:
        return {"missing": "missing", "differs": "stale  ", "orphan": "orphan "}[why]
    return {"missing": "new    ", "differs": "changed", "orphan": "removed"}[why]


@main.command("check")
@as_json
@click.pass_obj
@reporting_errors
def check_command(workspace: Workspace, *, as_json: bool) -> None:
    """Tell every problem of all definitions in one run; exit 1 when there is one. Warnings do not fail."""
    findings = check(workspace.compiled, workspace.defined)
    problems = [finding for finding in findings if finding.level is Level.PROBLEM]
    if as_json:
        click.echo(json.dumps({"findings": [asdict(finding) for finding in findings]}, indent=2))
    else:
        console = output()
        for finding in findings:
            colour = "red" if finding.level is Level.PROBLEM else "yellow"
            console.print(f"[{colour}]{finding.level}[/] {escape(f'{finding.subject}: {finding.text}')}")
        console.print(
            f"{len(workspace.compiled)} SLOs, {len(problems)} problems, {len(findings) - len(problems)} warnings"
        )
    if problems:
        sys.exit(EXIT_NO)


@main.command("list")
@as_json
@click.pass_obj
@reporting_errors
def list_command(workspace: Workspace, *, as_json: bool) -> None:
    """List all SLOs with their objectives, budgets and owners, and all causes with when they tell somebody."""
    facts = [catalogue.facts_of(one) for one in workspace.compiled]
    causes = [catalogue.facts_of_cause(cause) for cause in workspace.defined.causes]
    if as_json:
        click.echo(json.dumps({"slos": facts, "causes": causes}, indent=2, ensure_ascii=False))
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("SLO", "objective", "period", "budget", "alerts", "owner"):
        table.add_column(column, no_wrap=True)
    for one in facts:
        severities = ", ".join(dict.fromkeys(alert["severity"] for alert in one["alerts"])) or "nobody"
        budget = f"{float(one['budget']['minutes']):.4g} min"
        table.add_row(
            f"{one['service']}/{one['name']}",
            f"{one['objective_percent']} %",
            one["period"],
            budget,
            severities,
            escape(one["owner"]),
        )
    output().print(table)
    if not causes:
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("cause", "signal", "when", "for", "owner"):
        table.add_column(column, no_wrap=True)
    for cause in workspace.defined.causes:
        when = " ".join(cause.condition.promql.split())
        table.add_row(cause.id_path, str(cause.signal), escape(when), names.duration(cause.hold), escape(cause.owner))
    output().print()
    output().print(table)


@main.command()
@click.argument("name")
@as_json
@click.pass_obj
@reporting_errors
def explain(workspace: Workspace, name: str, *, as_json: bool) -> None:
    """Explain one SLO in plain words: its budget in minutes and requests, and who is paged when; or one cause.

    NAME is service/slo, redemption/availability say, or component/cause, rds/storage-low say.
    """
    from cli.explain import explanation, explanation_of_cause

    cause = workspace.cause(name)
    if cause is not None:
        if as_json:
            click.echo(json.dumps(catalogue.facts_of_cause(cause), indent=2, ensure_ascii=False))
        else:
            output().print(explanation_of_cause(cause))
        return
    compiled = workspace.one(name)
    if as_json:
        click.echo(json.dumps(catalogue.facts_of(compiled), indent=2, ensure_ascii=False))
    else:
        output().print(explanation(compiled))


@main.command()
@click.option("--against", default="HEAD", show_default=True, help="A git revision, or a slos.json file.")
@click.option(
    "--traffic",
    "traffics",
    multiple=True,
    metavar="[SLO=]FILE",
    help="Traffic to play both definitions on (as in `slo simulate`): who would have been told, before and after.",
)
@click.option("--markdown", "as_markdown", is_flag=True, help="Print Markdown, for a pull request.")
@click.option("--exit-code", is_flag=True, help="Exit 1 when something changes.")
@as_json
@click.pass_obj
@reporting_errors
def diff(  # noqa: PLR0913 - one an option
    workspace: Workspace, *, against: str, traffics: tuple[str, ...], as_markdown: bool, exit_code: bool, as_json: bool
) -> None:
    """Say in words what the definitions as they are now change in budgets and alerts."""
    from cli.diff import changes, markdown, read_facts, replay_changes, replay_facts, replays

    before, after = read_facts(against, workspace.settings), [catalogue.facts_of(one) for one in workspace.compiled]
    found, replayed = changes(before, after), replays(before, after, traffics)
    if as_json:
        facts = {"changes": [asdict(change) for change in found]}
        if traffics:
            facts["replays"] = [replay_facts(one) for one in replayed]
        click.echo(json.dumps(facts, indent=2, ensure_ascii=False))
    elif as_markdown:
        click.echo(markdown(found, replayed), nl=False)
    else:
        console = output()
        for change in (*found, *(one for replay in replayed for one in replay_changes(replay))):
            console.print(f"[bold]{escape(change.slo)}[/] {escape(change.text)}")
        if not found:
            console.print("no change in promises, budgets or alerts")
    if exit_code and found:
        sys.exit(EXIT_NO)


@main.group("import")
def import_group() -> None:
    """Turn definitions from elsewhere into ours."""


@import_group.command("sloth")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("-o", "--output", "folder", type=click.Path(file_okay=False, path_type=Path), help="Write rules here.")
@click.option("--python", "as_python", is_flag=True, help="Print definitions in Python instead.")
@click.pass_obj
@reporting_errors
def import_sloth(workspace: Workspace, file: Path, folder: Path | None, *, as_python: bool) -> None:
    """Read a Sloth spec, `prometheus/v1` or the Kubernetes kind, and write our rules for it.

    Existing files in the output folder that have other names stay as they are.
    """
    from cli.import_sloth import definitions_text, rules

    if as_python == (folder is not None):
        message = "give -o DIR for rules, or --python for definitions"
        raise click.UsageError(message)
    if as_python:
        text, notes = definitions_text(file)
        click.echo(text, nl=False)
    else:
        assert folder is not None, "looked at above"
        rendered, notes = rules(file, workspace.settings)
        for change in write(folder, rendered, remove_orphans=False):
            click.echo(str(folder / change.path))
    for note in notes:
        errors().print(f"[yellow]note:[/] {escape(note)}")


main.add_command(runbook)
main.add_command(links_command)
main.add_command(review)
main.add_command(gate)
main.add_command(console_command)
main.add_command(simulate_command)
main.add_command(apply_group)
main.add_command(drift_group)
