"""The board of a flash sale: what is asked of us, what we take, what we leave out, and how much room there is."""

from __future__ import annotations

from collections.abc import Mapping

from grafanalib.core import Dashboard

from dashboards import alerts, board, panels
from dashboards.charts import Chart, Drawing, Look
from dashboards.marks import deployments
from slo import conventions as names
from slo import promql
from slo.matrix import Definitions
from slo.metrics import (
    BAD_OUTCOMES,
    REDEMPTION_ADMISSION_LIMIT,
    REDEMPTION_DATABASE_CONNECTIONS,
    REDEMPTION_DEFERRED,
    REDEMPTION_DEFERRED_OLDEST_ACCEPTED,
    REDEMPTION_REQUEST_DURATION,
    REDEMPTION_REQUESTS,
    REDEMPTION_REQUESTS_IN_FLIGHT,
    REDEMPTION_SETTLED,
    REDEMPTION_SHED,
    Metric,
    Selection,
)
from slo.metrics.edge import ALB_REQUESTS, WAF_REQUESTS
from slo.metrics.eks import (
    EKS_IDLE_HEADROOM,
    KUBE_DEPLOYMENT_AVAILABLE,
    KUBE_DEPLOYMENT_REPLICAS,
    KUBE_HPA_CURRENT,
    KUBE_HPA_MAX,
    KUBE_HPA_MIN,
)
from slo.metrics.rds import RDS_CONNECTIONS_USED, RDS_LOAD_RELATIVE
from slo.metrics.redemption import REDEEM_ROUTE
from slo.settings import Links

_SERVICES = ("redemption", "edge", "rds", "eks")


def _rate(shown: Metric | Selection) -> str:
    selection = shown.where() if isinstance(shown, Metric) else shown
    return promql.rate(promql.series(selection), panels.RATE_INTERVAL)


_OFFERED = _rate(REDEMPTION_REQUESTS)
_LIMITED = _rate(REDEMPTION_REQUESTS.where(outcome="limited"))
_SHED = _rate(REDEMPTION_SHED)
_DEFERRED = _rate(REDEMPTION_DEFERRED)
_FAILED = _rate(REDEMPTION_REQUESTS.where(outcome=tuple(one for one in BAD_OUTCOMES if one != "shed")))
_ADMITTED = f"{_OFFERED} - {_LIMITED} - {_SHED}"
_IN_WORK, _LIMIT = f"sum({REDEMPTION_REQUESTS_IN_FLIGHT.name})", f"sum({REDEMPTION_ADMISSION_LIMIT.name})"
_FREE = f"1 - {_IN_WORK} / {_LIMIT}"

_CHARTS: Mapping[str, tuple[Chart, ...]] = {
    "What is left out": (
        Chart(
            "Turned away, by priority",
            REDEMPTION_SHED,
            more="The least important first: bulk, then reads, then redemptions.",
        ),
        Chart("Deferred, by reason", REDEMPTION_DEFERRED, more="Guests have our word; the points move later."),
        Chart("Settled", REDEMPTION_SETTLED),
        Chart("Oldest deferred redemption", REDEMPTION_DEFERRED_OLDEST_ACCEPTED, Look.AGE, fold="max"),
    ),
    "Headroom": (
        Chart("Idle headroom of the cluster", EKS_IDLE_HEADROOM, more="It is there to be used by a sale."),
        Chart(
            "Pods, and how many there may be", {"now": KUBE_HPA_CURRENT, "least": KUBE_HPA_MIN, "limit": KUBE_HPA_MAX}
        ),
        Chart(
            "Pods wanted and available",
            {"wanted": KUBE_DEPLOYMENT_REPLICAS, "available": KUBE_DEPLOYMENT_AVAILABLE},
            more="The difference waits for nodes, or starts.",
        ),
        Chart("Load of the database per processor", RDS_LOAD_RELATIVE),
        Chart("Connections of the database in use", RDS_CONNECTIONS_USED),
        Chart("Connections of pods", REDEMPTION_DATABASE_CONNECTIONS, fold="sum"),
    ),
    "What guests feel": (
        Chart(
            "Redemptions",
            REDEMPTION_REQUEST_DURATION.where(route=REDEEM_ROUTE, outcome=("ok", "deferred", "refused")),
        ),
        Chart("Requests at the edge", ALB_REQUESTS, by=("outcome",)),
        Chart("Web ACL", WAF_REQUESTS, by=("action",), more="Before a sale, see that it blocks no guests."),
    ),
}


def board_of(defined: Definitions, links: Links) -> Dashboard:
    """The board; each chart whose metrics come from somewhere."""
    drawing = Drawing(defined=defined, links=links)
    known = {metric for source in defined.sources for metric in source.metrics}
    rows: list[board.Row] = []
    for title, charts in _CHARTS.items():
        told = [chart for chart in charts if all(one.metric in known for one in chart.selections.values())]
        if told:
            rows += [board.heading(title), *board.rows(8, [drawing.panel(chart) for chart in told])]
    return board.board(
        names.FLASH_SALE_UID,
        "Flash sale",
        "A sale, minute by minute: is there room before it, whom do we leave out in it, and is all settled after it? "
        "For the evening of a campaign.",
        board.Row(4, _figures()),
        board.Row(10, [_offered(), _limiter()]),
        *rows,
        board.Row(8, [alerts.table(alerts.of_services(_SERVICES), links)]),
        shown="now-1h",
        annotations=[*alerts.marks(_SERVICES), *deployments(defined)],
    )


def _figures() -> list[panels.Panel]:
    return [
        panels.stat("Offered", "Requests that come, each second.", _OFFERED, unit=panels.PER_SECOND),
        panels.stat("Admitted", "Of them those that we work on.", _ADMITTED, unit=panels.PER_SECOND),
        panels.stat(
            "Turned away",
            "The share that is shed to protect the rest; each is a bad event of the availability.",
            f"{_SHED} / {_OFFERED}",
            unit=panels.SHARE,
            decimals=1,
        ),
        panels.stat(
            "Deferred",
            "The share that is accepted into the queue, to be settled later.",
            f"{_DEFERRED} / {_OFFERED}",
            unit=panels.SHARE,
            decimals=1,
        ),
        panels.stat(
            "Room in the limiter",
            "The share of the admission limit that is free, over all pods.",
            _FREE,
            unit=panels.SHARE,
            decimals=0,
        ),
        panels.stat(
            "Idle headroom",
            "What no pod has requested of the cluster, of the scarcer resource.",
            f"min({EKS_IDLE_HEADROOM.name})",
            unit=panels.SHARE,
            decimals=0,
        ),
    ]


def _offered() -> panels.Panel:
    return panels.timeseries(
        "Offered, and what became of it",
        "Requests each second: all that come, those that we work on, and those that we do not. Limited are clients "
        "beyond the rate that they agreed to; failed is what we took and did not do.",
        panels.Query(_OFFERED, "offered"),
        panels.Query(_ADMITTED, "admitted"),
        panels.Query(_SHED, "turned away"),
        panels.Query(_DEFERRED, "deferred"),
        panels.Query(_LIMITED, "limited"),
        panels.Query(_FAILED, "failed"),
        unit=panels.PER_SECOND,
        styles=[
            panels.Style("^offered$", "blue"),
            panels.Style("^admitted$", panels.GOOD),
            panels.Style("^turned away$", panels.WARN),
            panels.Style("^failed$", panels.BAD),
        ],
    )


def _limiter() -> panels.Panel:
    return panels.timeseries(
        "The limiter",
        "How many requests pods work on at once, and how many the adaptive limit lets them, all pods together. A limit "
        "that falls while requests wait is a ledger that answers slower.",
        panels.Query(_IN_WORK, "in work"),
        panels.Query(_LIMIT, "limit"),
        unit=panels.COUNT,
        styles=[panels.Style("^limit$", panels.WARN, dashed=True)],
    )
