"""Runbooks of causes, one Markdown file an alert."""

from __future__ import annotations

from collections.abc import Iterator

from alerts.markdown import Query, command, commands
from slo import conventions as names
from slo import promql
from slo.causes import Cause
from slo.matrix import Definitions, cells
from slo.windows import HOUR

_SILENCE = 4 * HOUR  # within working hours; what still holds then is told again


def page(cause: Cause, defined: Definitions, leads: str) -> Iterator[str]:
    """The paragraphs of a cause's runbook, without its heading.

    Args:
        cause: Of what.
        defined: The promises that it may hurt.
        leads: Its links.
    """
    yield "## Meaning"
    yield f"{cause.summary} It is a ticket: somebody looks at it in working hours."
    yield (
        f"It is so when this has a result for {names.duration(cause.hold)}, one for each thing that is wrong:\n\n"
        f"```promql\n{cause.condition.promql}\n```"
    )
    yield f"Why so: {cause.reason}"
    yield "## Impact"
    yield (
        "It may hurt the users soon, or explains why they are hurt. It is muted while an alert of "
        f"`{cause.labels['service']}` pages, and comes back after it if it still holds."
    )
    yield from _promises(cause, defined)
    yield "## First look"
    yield leads
    yield "Who is hurt already? No answer means that nobody is paged:"
    yield "```promql\nALERTS" + promql.matchers({"alertstate": "firing", "severity": "page"}) + "\n```"
    yield "## Diagnosis"
    for metric in cause.condition.metrics:
        yield f"`{metric.name}`: {metric.help}"
    yield commands(cause.diagnosis)
    yield "## Mitigation"
    yield cause.mitigation
    yield "Silence it only while somebody works on it; it ends by itself:"
    yield command(
        f'amtool silence add --alertmanager.url="$ALERTMANAGER_URL" --duration={names.duration(_SILENCE)} '
        f'--comment="who works on it, and where" alertname={cause.alert_name}'
    )
    yield "## Escalation"
    yield f"**{cause.owner}** answers for it. A page of any promise comes first: do this beside it, or after it."
    yield "## The end"
    yield "It ends by itself when the query above has no result any more."


def _promises(cause: Cause, defined: Definitions) -> Iterator[str]:
    """Those on the same signal, and what is left of their budgets."""
    promises = [slo for cell in cells(defined) if cause in cell.causes for slo in cell.slos]
    if not promises:
        return
    yield f"Promises on the same signal of {cause.component}: {', '.join(f'`{slo.id_path}`' for slo in promises)}."
    ids = [slo.id for slo in promises]
    remaining = names.ERROR_BUDGET_REMAINING + promql.matchers({"sloth_id": ids[0] if len(ids) == 1 else ids})
    yield str(Query("What is left of their budgets; 1 is all, below 0 the promise is broken:", remaining))
