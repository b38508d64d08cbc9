"""Components by golden signals: what watches each, with what, from which limit on, and why.

A cell is one signal of one component. It has a promise or a cause, or a reason why it needs none.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

from slo.causes import Cause, Component, Signal, Source, Uncovered
from slo.metrics import Metric, Selection
from slo.model import Slo


@dataclass(frozen=True, slots=True, kw_only=True)
class Definitions:
    """Everything that the modules of definitions define.

    Attributes:
        slos: By id.
        causes: By id.
        uncovered: By component and signal.
        sources: In the order of their definition.
    """

    slos: tuple[Slo, ...] = ()
    causes: tuple[Cause, ...] = ()
    uncovered: tuple[Uncovered, ...] = ()
    sources: tuple[Source, ...] = ()

    @property
    def components(self) -> tuple[Component, ...]:
        """Those that somebody speaks of."""
        spoken = {slo.component for slo in self.slos}
        for placed in (self.causes, self.uncovered, self.sources):
            spoken |= {one.component for one in placed}
        return tuple(component for component in Component if component in spoken)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One signal of one component.

    Attributes:
        component: Of what.
        signal: Which of its signals.
        slos: The promises that watch it.
        causes: The causes that watch it.
        uncovered: Why nothing does.
    """

    component: Component
    signal: Signal
    slos: tuple[Slo, ...]
    causes: tuple[Cause, ...]
    uncovered: tuple[Uncovered, ...]

    @property
    def sources(self) -> tuple[Metric, ...]:
        """Every metric that is read for it."""
        of_slos = (metric for slo in self.slos for metric in metrics_of(slo))
        of_causes = (metric for cause in self.causes for metric in cause.condition.metrics)
        return tuple(dict.fromkeys((*of_slos, *of_causes)))

    def problems(self) -> Iterator[str]:
        """What is wrong with it, one sentence each."""
        watched = bool(self.slos or self.causes)
        if not watched and not self.uncovered:
            yield (
                "nothing watches it; give an SLO this component and signal, write a Cause, "
                "or an Uncovered that says why nothing is needed"
            )
        if watched and self.uncovered:
            watcher = (*(slo.id_path for slo in self.slos), *(cause.id_path for cause in self.causes))[0]
            yield f"is said to be uncovered, but {watcher} watches it; remove the Uncovered"
        if len(self.uncovered) > 1:
            yield "is said to be uncovered more than once; leave one"


def cells(defined: Definitions) -> tuple[Cell, ...]:
    """Every signal of every component that the definitions speak of."""
    return tuple(
        Cell(
            component=component,
            signal=signal,
            slos=tuple(slo for slo in defined.slos if slo.component == component and signal in slo.signals),
            causes=tuple(cause for cause in defined.causes if (cause.component, cause.signal) == (component, signal)),
            uncovered=tuple(one for one in defined.uncovered if (one.component, one.signal) == (component, signal)),
        )
        for component, signal in product(defined.components, Signal)
    )


def metrics_of(slo: Slo) -> tuple[Metric, ...]:
    """What an SLO reads; nothing that is known of foreign queries."""
    fields = (getattr(slo.sli, field) for field in slo.sli.__dataclass_fields__)
    return tuple(dict.fromkeys(value.metric for value in fields if isinstance(value, Selection)))


def without_source(defined: Definitions) -> Iterator[tuple[str, Metric]]:
    """What is read by something that has a component, and exposed by nothing that the definitions know."""
    known = {metric.name for source in defined.sources for metric in source.metrics}
    readers: Sequence[tuple[str, tuple[Metric, ...]]] = [
        *((slo.id_path, metrics_of(slo)) for slo in defined.slos if slo.component is not None),
        *((cause.id_path, cause.condition.metrics) for cause in defined.causes),
    ]
    for reader, metrics in readers:
        yield from ((reader, metric) for metric in metrics if metric.name not in known)
