"""`slo links`: where an alert leads."""

from __future__ import annotations

import json
from difflib import get_close_matches
from typing import TYPE_CHECKING

import click

from cli.options import HELP

if TYPE_CHECKING:
    from alerts.links import AlertLinks
    from cli.main import Workspace

_CLOSEST = 3


def every_link(workspace: Workspace) -> dict[str, AlertLinks]:
    """The links of all alerts, by name.

    Raises:
        SloError: The settings or definitions are wrong.
    """
    from alerts.alarms import linked
    from alerts.links import every

    causes = workspace.defined.causes
    return every(workspace.compiled, causes, linked(workspace.settings, workspace.compiled, causes).links)


def unknown(alert: str, known: dict[str, AlertLinks]) -> str:
    """What to say of an alert that is not known: those whose names are closest."""
    by_small = {name.casefold(): name for name in known}
    closest = get_close_matches(alert.casefold(), by_small, _CLOSEST, cutoff=0.4)
    advice = (
        f"did you mean {', '.join(by_small[name] for name in closest)}?" if closest else "`slo list` names the SLOs"
    )
    return f"there is no alert {alert!r}; {advice}"


@click.command("links", context_settings=HELP)
@click.argument("alert")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for machines.")
@click.pass_obj
def links(workspace: Workspace, alert: str, *, as_json: bool) -> None:
    """Say where an alert leads: runbook, boards, traces, logs, its alarm in CloudWatch, silence.

    ALERT is the name that a notification shows, RedemptionAvailabilityPage say.
    """
    from cli.main import fail, output, reporting_errors

    known = reporting_errors(every_link)(workspace)
    if alert not in known:
        fail(unknown(alert, known))
    found = list(known[alert].titled())
    if as_json:
        shown = [{"title": title, "url": url} for title, url in found]
        click.echo(json.dumps({"alert": alert, "links": shown}, indent=2, ensure_ascii=False))
        return
    width = max(len(title) for title, _ in found)
    for title, url in found:
        output().print(f"{title:<{width}}  {url}", markup=False, soft_wrap=True)
