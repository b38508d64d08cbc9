"""`slo apply cloudwatch` and `slo drift cloudwatch`: the alarms in CloudWatch, as generated and as they are."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import click

from cli.options import HELP

if TYPE_CHECKING:
    from rich.table import Table

    from alerts.cloudwatch.compare import Finding
    from alerts.cloudwatch.deploy import Api, Outcome
    from alerts.cloudwatch.model import Alarm
    from cli.main import Workspace

EXIT_NO = 1

_SHOWN_LENGTH_MAX = 60  # of a field's value, in a table
_VERBS = {"missing": "create", "changed": "change", "extra": "delete", "foreign": "leave alone"}
_CREDENTIALS = "Credentials are found as the AWS CLI finds them: AWS_PROFILE, AWS_ACCESS_KEY_ID, SSO, a role."


@click.group("apply", context_settings=HELP)
def apply_group() -> None:
    """Make what runs elsewhere as it is generated."""


@click.group("drift", context_settings=HELP)
def drift_group() -> None:
    """Compare what runs elsewhere with what is generated."""


@apply_group.command("cloudwatch", epilog=_CREDENTIALS)
@click.option("--dry-run", is_flag=True, help="Show what would be done, and do nothing.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def apply_cloudwatch(workspace: Workspace, *, dry_run: bool, yes: bool) -> None:
    """Create and change our alarms in CloudWatch, and delete those that are generated no more.

    What has not our tag `managed-by` is left alone. Exits 1 when something could not be done, and tells what.
    """
    from cli.main import reporting_errors

    reporting_errors(_apply)(workspace, dry_run=dry_run, yes=yes)


@drift_group.command("cloudwatch", epilog=_CREDENTIALS)
@click.option("--json", "form", flag_value="json", help="Print JSON, for machines.")
@click.option("--markdown", "form", flag_value="markdown", help="Print Markdown, for a pull request.")
@click.pass_obj
def drift_cloudwatch(workspace: Workspace, *, form: str | None) -> None:
    """Tell what in CloudWatch is not as it is generated, field by field.

    Exits 0 when all is, 1 when something is not, 2 when AWS gives no answer.
    """
    from cli.main import reporting_errors

    reporting_errors(_drift)(workspace, form=form)


def _apply(workspace: Workspace, *, dry_run: bool, yes: bool) -> None:
    from alerts.cloudwatch.deploy import apply
    from cli.main import fail, output

    findings, apis = _found(workspace)
    console = output()
    if not findings:
        console.print("CloudWatch is as it is generated; nothing to do")
        return
    console.print(_table(findings, "to do"))
    if dry_run:
        return
    if not yes:
        if not sys.stdin.isatty():
            fail("nobody is there to ask whether to do this; give --yes")
        if not click.confirm("Do this?"):
            sys.exit(EXIT_NO)
    outcomes = []
    for outcome in apply(findings, apis):
        _tell(outcome)
        outcomes.append(outcome)
    done = sum(not outcome.why for outcome in outcomes)
    console.print(f"{done} of {len(outcomes)} done")
    if done < len(outcomes):
        sys.exit(EXIT_NO)


def _drift(workspace: Workspace, *, form: str | None) -> None:
    from cli.main import output

    findings, _ = _found(workspace)
    if form == "json":
        click.echo(json.dumps({"drift": [_facts(finding) for finding in findings]}, indent=2))
    elif form == "markdown":
        click.echo("\n".join(_markdown(findings)))
    elif findings:
        output().print(_table(findings, "is"))
    else:
        output().print("CloudWatch is as it is generated")
    if findings:
        sys.exit(EXIT_NO)


def _found(workspace: Workspace) -> tuple[tuple[Finding, ...], dict[str, Api]]:
    """What is not as it should be, and CloudWatch in each region that has alarms of ours."""
    from alerts.cloudwatch.compare import compare
    from alerts.cloudwatch.deploy import Api, check_account, deployed
    from alerts.cloudwatch.plan import of
    from cli.main import errors

    wanted, settings = _wanted(workspace), of(workspace.settings)
    apis = {region: Api(region) for region in sorted({settings.region, *(alarm.region for alarm in wanted)})}
    with errors().status("reading the alarms in CloudWatch"):
        check_account(apis[settings.region], settings.account)
        there = [one for api in apis.values() for one in deployed(api, settings.prefix)]
    return compare(wanted, there), apis


def _wanted(workspace: Workspace) -> tuple[Alarm, ...]:
    from alerts.cloudwatch.plan import plan
    from slo.compile import compile_slo
    from slo.settings import everything

    defined = everything(workspace.settings)
    return plan([compile_slo(slo) for slo in defined.slos], defined.causes, workspace.settings)


def _tell(outcome: Outcome) -> None:
    from rich.markup import escape

    from cli.main import output

    finding = outcome.finding
    why = f": {outcome.why}" if outcome.why else ""
    said = f"{_VERBS[finding.kind]} {finding.region} {finding.name}: {outcome.state}{why}"
    output().print(f"[red]{escape(said)}[/]" if why else escape(said))


def _facts(finding: Finding) -> dict[str, Any]:
    return {
        "kind": finding.kind,
        "region": finding.region,
        "alarm": finding.name,
        "differences": [
            {"field": each.field, "generated": each.generated, "deployed": each.deployed}
            for each in finding.differences
        ],
    }


def _rows(findings: Sequence[Finding]) -> Iterator[tuple[str, ...]]:
    """What, where, which alarm, and for each difference the field, as it should be and as it is."""
    for finding in findings:
        head: tuple[str, ...] = (finding.kind, finding.region, finding.name)
        if not finding.differences:
            yield (*head, "", "", "")
        for each in finding.differences:
            yield (*head, each.field, _short(each.generated), _short(each.deployed))
            head = ("", "", "")


def _short(value: str | None) -> str:
    if value is None:
        return "nothing"
    line = " ".join(value.split())
    return line if len(line) <= _SHOWN_LENGTH_MAX else f"{line[: _SHOWN_LENGTH_MAX - 1]}…"


def _table(findings: Sequence[Finding], what: str) -> Table:
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for column in (what, "region", "alarm", "field", "generated", "deployed"):
        table.add_column(column, no_wrap=column == "alarm")
    for kind, *row in _rows(findings):
        first = _VERBS.get(kind, "") if what == "to do" else kind
        table.add_row(first, *map(escape, row))
    return table


def _markdown(findings: Sequence[Finding]) -> Iterator[str]:
    if not findings:
        yield "CloudWatch is as it is generated."
        return
    yield "| is | region | alarm | field | generated | deployed |"
    yield "|---|---|---|---|---|---|"
    for row in _rows(findings):
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |"
