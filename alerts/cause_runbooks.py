"""Runbooks of causes, one Markdown file an alert."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from slo import conventions as names
from slo.causes import Cause
from slo.matrix import Definitions, cells


def page(cause: Cause, defined: Definitions) -> Iterator[str]:
    """The paragraphs of a cause's runbook, without its heading."""
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
    promises = _promises(cause, defined)
    if promises:
        yield f"Promises on the same signal of {cause.component}: {', '.join(f'`{name}`' for name in promises)}."
    yield "## Diagnosis"
    for metric in cause.condition.metrics:
        yield f"`{metric.name}`: {metric.help}"
    yield "```sh\n" + "\n".join(_command(command) for command in cause.diagnosis) + "\n```"
    yield "## Mitigation"
    yield cause.mitigation
    yield "## Escalation"
    yield f"**{cause.owner}** answers for it."
    yield "## The end"
    yield "It ends by itself when the query above has no result any more."


def _promises(cause: Cause, defined: Definitions) -> Sequence[str]:
    return [slo.id_path for cell in cells(defined) if cause in cell.causes for slo in cell.slos]


def _command(command: str) -> str:
    """A command below what it tells."""
    text, _, comment = command.partition("  # ")
    return f"# {comment}\n{text}" if comment else text
