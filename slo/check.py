"""Rules across SLOs. One run tells every problem of every SLO."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal
from enum import StrEnum

from slo import conventions as names
from slo.compile import CompiledSlo
from slo.matrix import Definitions, cells, without_source
from slo.model import Severity, Slo

_NOTHING_MORE = Definitions()


class Level(StrEnum):
    """How bad a finding is."""

    PROBLEM = "problem"  # what would be generated is wrong
    WARNING = "warning"  # it is right, but will not do what its author may think


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that `slo check` says about an SLO.

    Attributes:
        level: How bad it is.
        subject: The SLO, the cause, or the cell of the matrix, as people write it.
        text: What is wrong, with the arithmetic, and what helps.
    """

    level: Level
    subject: str
    text: str


def check(compiled: Sequence[CompiledSlo], defined: Definitions = _NOTHING_MORE) -> tuple[Finding, ...]:
    """Everything that is wrong or doubtful, problems first, by SLO.

    Args:
        compiled: The SLOs.
        defined: What the same modules define besides; without it only the SLOs are looked at.
    """
    findings = [
        *_shared(
            compiled,
            lambda one: [one.slo.id],
            "has the id {key!r}, as {others} has; ids must differ by more than case, - and _",
        ),
        *_shared(
            compiled,
            lambda one: [alert.name for alert in one.alerts],
            "has the alert {key!r}, as {others} has; set alert_name on one of them",
        ),
        *(finding for one in compiled for finding in _finer_than_traffic(one)),
        *(finding for one in compiled for finding in _without_runbook(one)),
        *_of_matrix(defined),
        *_of_causes(compiled, defined),
    ]
    return tuple(sorted(findings, key=lambda finding: (finding.level, finding.subject, finding.text)))


def _shared(
    compiled: Sequence[CompiledSlo], keys: Callable[[CompiledSlo], Sequence[Hashable]], text: str
) -> Iterator[Finding]:
    """What must be unique over all SLOs, and is not.

    Files that differ by case alone would be one on some disks, and an object in Kubernetes has a dash for every `_`.
    """
    owners: defaultdict[str, list[tuple[Hashable, Slo]]] = defaultdict(list)
    for one in compiled:
        for key in keys(one):
            owners[str(key).casefold().replace("_", "-")].append((key, one.slo))
    for sharing in owners.values():
        for index, (key, slo) in enumerate(sharing):
            others = [other.id_path for _, other in sharing[:index] + sharing[index + 1 :]]
            if others:
                yield Finding(Level.PROBLEM, slo.id_path, text.format(key=key, others=", ".join(others)))


def _of_matrix(defined: Definitions) -> Iterator[Finding]:
    """Cells that nothing watches, and metrics that come from nowhere."""
    for cell in cells(defined):
        for problem in cell.problems():
            yield Finding(Level.PROBLEM, f"{cell.component}/{cell.signal}", problem)
    for reader, metric in without_source(defined):
        yield Finding(Level.PROBLEM, reader, f"reads {metric.name}, which no Source has; add it to one")


def _of_causes(compiled: Sequence[CompiledSlo], defined: Definitions) -> Iterator[Finding]:
    """Alerts that have the name of another: they would share a runbook."""
    taken = {alert.name.casefold(): one.slo.id_path for one in compiled for alert in one.alerts}
    for cause in defined.causes:
        name = cause.alert_name.casefold()
        if name in taken:
            text = f"has the alert {cause.alert_name!r}, as {taken[name]} has; give it another name"
            yield Finding(Level.PROBLEM, cause.id_path, text)
        taken[name] = cause.id_path


def _without_runbook(one: CompiledSlo) -> Iterator[Finding]:
    """A promise of ours that wakes somebody and does not say what only people know.

    Ours are those with a component. What comes from elsewhere, a Sloth spec say, has none, and its runbooks hold the
    general advice alone.
    """
    slo = one.slo
    if slo.alerts and slo.component is not None and slo.runbook is None:
        text = "it alerts, and says nothing for a responder; give it runbook=Runbook(impact=..., ...)"
        yield Finding(Level.PROBLEM, slo.id_path, text)


def _finer_than_traffic(one: CompiledSlo) -> Iterator[Finding]:
    """An objective so fine that the few events which may alert are already much of the budget."""
    slo, traffic = one.slo, one.slo.expected_events_per_second
    pages = one.policy.pairs_of(Severity.PAGE)
    if traffic is None or slo.burn == "ratio" or not pages:
        return
    seconds = Decimal(int(one.policy.period.total_seconds()))
    budget = slo.budget_ratio * traffic * seconds
    share = pages[0].budget_share(one.policy.period)
    if slo.budget_bad_events_min <= share * budget:
        return
    enough = slo.budget_bad_events_min / (share * slo.budget_ratio * seconds)
    arithmetic = (
        f"{names.number(traffic)} events/s x {names.number(seconds)} s x (1 - {names.number(slo.objective)} %) = "
        f"{_rounded(budget)} bad events a period"
    )
    yield Finding(
        Level.WARNING,
        slo.id_path,
        f"the objective is finer than the traffic can show: {arithmetic}, of which a page's {_rounded(100 * share)} % "
        f"are {_rounded(share * budget)}, fewer than the {slo.budget_bad_events_min} that it waits for; take a lower "
        f"objective, a longer period, or at least {names.number(enough.quantize(Decimal('0.01'), ROUND_CEILING))} "
        "events/s (synthetic ones count)",
    )


def _rounded(value: Decimal) -> str:
    return names.number(Decimal(f"{value:.3g}"))
