"""The board of a component: its promises, its alerts, then everything that is known of it by golden signal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain

from grafanalib.core import Dashboard

from dashboards import alerts, board, elsewhere, overview
from dashboards.charts import Drawing
from dashboards.component_charts import CHARTS, CHOICES
from dashboards.marks import deployments
from dashboards.queries import SERVICE, SLO, Queries
from slo import conventions as names
from slo.causes import Component, Query, Signal
from slo.compile import CompiledSlo
from slo.matrix import Definitions
from slo.settings import Links

_HEADS = {
    Component.SERVICE: ("Redemption service", "The service and its worker, from the first byte to the last point."),
    Component.RDS: ("RDS", "The database that keeps the ledger."),
    Component.REDIS: ("Redis", "The cluster that answers replays and counts quotas; no redemption waits for it."),
    Component.EKS: ("EKS", "Pods, nodes and zones: is there room, and is it spread?"),
    Component.EDGE: ("Edge", "What guests meet first: Route 53, WAF and the load balancer."),
    Component.QUEUE: ("Queue", "What keeps redemptions while the database cannot take them."),
}

_TABLE_HEAD = 4  # grid units: title, headings, and room for one alert more


def components_of(defined: Definitions) -> tuple[Component, ...]:
    """The components that have a board: those whose metrics come from somewhere."""
    return tuple(dict.fromkeys(source.component for source in defined.sources if source.component in CHARTS))


def board_of(component: Component, compiled: Sequence[CompiledSlo], defined: Definitions, links: Links) -> Dashboard:
    """The board of a component."""
    choice = CHOICES[component]
    title, description = _HEADS[component]
    own = [one for one in compiled if one.slo.component is component]
    services = _services(component, own, defined)
    # Only the service writes traces and logs.
    further = elsewhere.of_service("redemption", links) if component is Component.SERVICE else ()
    drawing = Drawing(defined=defined, links=links, choice=choice, further=further)
    return board.board(
        names.component_uid(component),
        title,
        f"{description} For whoever was led here by an alert, and asks why.",
        *_head(own, services, links),
        *chain.from_iterable(_signal(component, signal, drawing) for signal in Signal),
        shown="now-6h",
        variables=[choice.variable],
        annotations=[*alerts.marks(services), *deployments(defined)],
    )


def _services(component: Component, own: Sequence[CompiledSlo], defined: Definitions) -> tuple[str, ...]:
    """The services whose alerts tell of the component."""
    of_slos = (one.slo.service for one in own)
    of_causes = (cause.labels["service"] for cause in defined.causes if cause.component is component)
    return tuple(dict.fromkeys((*of_slos, *of_causes)))


def _head(own: Sequence[CompiledSlo], services: tuple[str, ...], links: Links) -> Iterator[board.Row]:
    tables = [alerts.table(alerts.of_services(services), links)]
    if own:
        chosen = {SERVICE: services, SLO: tuple(one.slo.name for one in own)}
        tables.insert(0, overview.table("Promises", own, Queries.of(own, which=chosen)))
    yield board.Row(_TABLE_HEAD + len(own), tables)


def _signal(component: Component, signal: Signal, drawing: Drawing) -> Iterator[board.Row]:
    charts = [drawing.panel(chart) for chart in CHARTS[component].get(signal, ())]
    judged = [
        drawing.cause(cause, cause.condition)
        for cause in drawing.defined.causes
        if (cause.component, cause.signal) == (component, signal) and isinstance(cause.condition, Query)
    ]
    if charts or judged:
        yield board.heading(signal.capitalize())
        yield from board.rows(8, [*charts, *judged])
