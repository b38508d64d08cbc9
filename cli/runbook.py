"""`slo runbook`: what to do about an alert, where one is."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from cli.options import HELP

if TYPE_CHECKING:
    from cli.main import Workspace


@click.command("runbook", context_settings=HELP)
@click.argument("alert")
@click.pass_obj
def runbook(workspace: Workspace, alert: str) -> None:
    """Print the runbook of an alert: for people on a terminal, as Markdown in a pipe.

    ALERT is the name that a notification shows, RedemptionAvailabilityPage say.
    """
    from cli.links import every_link, unknown
    from cli.main import fail, output, reporting_errors

    known = reporting_errors(every_link)(workspace)
    if alert not in known:
        fail(unknown(alert, known))
    text = reporting_errors(_text)(workspace, alert)
    if not sys.stdout.isatty():
        click.echo(text, nl=False)
        return
    from rich.markdown import Markdown

    output().print(Markdown(text, hyperlinks=True))


def _text(workspace: Workspace, alert: str) -> str:
    from alerts import runbooks
    from alerts.alarms import linked

    settings = linked(workspace.settings, workspace.compiled, workspace.defined.causes)
    pages = runbooks.render(workspace.compiled, settings.links, workspace.defined)
    return next(page.text for page in pages if page.path.stem == alert)
