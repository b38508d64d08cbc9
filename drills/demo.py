"""Break a running redemption service, and show the page that follows: `python -m drills.demo`, or `make demo`.

Everything is real: Postgres, the service, Prometheus with our rules, Alertmanager with our configuration. Only time is
shorter: the definitions of production are compiled with windows divided by 60, so that a second stands for a minute
and the budget of 30 days is one of 12 hours.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from rich.console import Console
from rich.text import Text

import alerts.alertmanager
import alerts.prometheus
import alerts.runbooks
import dashboards.render
from alerts.alertmanager import Receivers, Webhook
from drills import history
from drills.harness import (
    HarnessError,
    Load,
    Notification,
    Pages,
    Prometheus,
    Service,
    TerminatedError,
    Toxiproxy,
    Traffic,
    WebhookReceiver,
    alertmanager,
    jaeger,
    ledger_database,
    pages,
    prometheus,
    service,
    toxiproxy,
    traffic,
    unwinding_on_sigterm,
    wait_until,
    webhook_receiver,
    worker,
)
from review.connection import Connection
from review.console.live import Source
from review.console.server import serving as console
from review.console.site import Site
from service.embedded_postgres import EmbeddedPostgresError
from slo import artefacts
from slo import conventions as names
from slo.compile import CompiledSlo, compile_slo
from slo.definitions import redemption
from slo.matrix import Definitions
from slo.model import Events, Latency, Severity
from slo.settings import Links
from slo.windows import policy

TIMES_FASTER = 60
BROKEN = redemption.availability
PROMISES = (redemption.availability, redemption.latency_fast, redemption.latency_slow, redemption.settlement)

OK, FAILED, INTERRUPTED, TERMINATED = 0, 1, 130, 143

_SCRAPE_INTERVAL = timedelta(seconds=1)
_LOAD = Load(per_second=20, seconds_max=600)
_ACCOUNTS = tuple(f"guest-{number}" for number in range(1, 6))
_POINTS = 1_000_000
_WARM_UP_SECONDS = 3.0
_RULES_SECONDS_MAX = 30.0
_HEALTHY_SECONDS = 5.0
_PAGE_SECONDS_MAX = 60.0
_HEAL_SECONDS_MAX = 30.0

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """The error budget of the broken promise at one moment.

    Attributes:
        remaining: What is left of the period's budget, 1 when nothing is spent, below 0 when more than all of it is.
        bad_events: Requests that the service answered badly or not at all since the traffic began.
    """

    remaining: float
    bad_events: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Demonstration:
    """What happened; everything still runs, and the path to the database is whole again.

    Attributes:
        page: The notification that Alertmanager sent to whoever is on call.
        seconds_to_page: From the fault to its arrival.
        before: The budget right before the fault,
        after: and once everything that failed is counted in.
        period: The budget's period, scaled.
        people: Who got notifications, at `/page`, `/ticket` and `/watchdog`.
        pages: Where the links lead.
        addresses: Where the servers listen, by name.
    """

    page: Notification
    seconds_to_page: float
    before: Budget
    after: Budget
    period: timedelta
    people: WebhookReceiver = field(repr=False)
    pages: Pages = field(repr=False)
    addresses: dict[str, str] = field(repr=False)


@contextmanager
def demonstration(tell: Tell, show: Callable[[Notification], None]) -> Iterator[Demonstration]:
    """Start everything, break the database path, wait for the page, heal the path; stop everything at the end.

    Args:
        tell: Hears one line for each step.
        show: Sees the page when it arrives.

    Raises:
        HarnessError, EmbeddedPostgresError: A server is missing or does not start.
        TimeoutError: The page does not come; the message says what did.
    """
    with ExitStack() as stack:
        start = stack.enter_context
        start(unwinding_on_sigterm())
        folder = Path(start(tempfile.TemporaryDirectory(prefix="drill-demo-", ignore_cleanup_errors=True)))
        database = start(ledger_database())
        database.accrue(_ACCOUNTS, _POINTS)
        tell("Postgres runs, with the ledger's schema and some guests' points.")
        path = start(toxiproxy(database.address))
        traces = start(jaeger())
        shop = start(service(path.through(database.url), {"OTEL_EXPORTER_OTLP_ENDPOINT": traces.otlp_url}))
        settler = start(worker(database.worker_url))
        guests = start(traffic(shop.url, _ACCOUNTS, _LOAD, shop.headers))
        tell(f"The redemption service runs at {shop.url}; guests send {_LOAD.per_second:g} requests a second.")
        people, links = start(webhook_receiver()), start(pages(folder / "generated"))
        time.sleep(_WARM_UP_SECONDS)  # first requests are slow, and no guest's fault

        compiled = [compile_slo(slo, policy(slo.window).scaled(TIMES_FASTER)) for slo in PROMISES]
        rules, config = _write(folder / "generated", compiled, people, links.links)
        pager = start(alertmanager(config))
        tell(f"Alertmanager runs at {pager.url}; runbooks and boards are at {links.url}.")
        past = history.write(folder / "past", _traffic_of(compiled))
        metrics = start(
            prometheus(
                rules=rules,
                targets={"redemption": [shop.address], "redemption-worker": [settler.address]},
                alertmanager_url=pager.url,
                scrape_interval=_SCRAPE_INTERVAL,
                data=past,
            )
        )
        links.show(prometheus_url=metrics.url, log=shop.process.log, jaeger_url=traces.url, alertmanager_url=pager.url)
        period = compiled[0].policy.period
        tell(f"Prometheus runs at {metrics.url}, with {names.duration(period)} of good traffic behind it.")
        watched = start(console(Site(compiled, Source(Connection(url=metrics.url), pager.url))))
        tell(f"The console is at {watched}: budgets, burn rates and alerts as they are now.")

        remaining = compiled[0].named(names.ERROR_BUDGET_REMAINING)
        wait_until("the rules know the budget", lambda: bool(metrics.query(remaining)), _RULES_SECONDS_MAX)
        time.sleep(_HEALTHY_SECONDS)
        before = _budget(metrics, compiled[0], guests)
        page, seconds = _break(path, people, tell)
        tell(
            f"The page is here, {seconds:.1f} s after the fault; {guests.bad - before.bad_events} requests have failed."
        )
        show(page)
        _heal(path, shop, guests, tell)
        tell("Waiting until the budget has taken in all that failed ...")
        # An event is in the budget once the base window and then a coarse recording have taken it in.
        time.sleep((compiled[0].policy.base + 2 * compiled[0].policy.coarse_interval).total_seconds())
        after = _budget(metrics, compiled[0], guests)
        yield Demonstration(
            page=page,
            seconds_to_page=seconds,
            before=before,
            after=after,
            period=period,
            people=people,
            pages=links,
            addresses={
                "postgres": database.address,
                "path": path.listen,
                "service": shop.address,
                "worker": settler.address,
                "alertmanager": pager.url,
                "jaeger": traces.url,
                "prometheus": metrics.url,
                "people": people.url,
                "pages": links.url,
                "console": watched,
            },
        )
        tell("Stopping everything ...")
    tell("All is stopped.")


def _write(
    folder: Path, compiled: Sequence[CompiledSlo], people: WebhookReceiver, links: Links
) -> tuple[list[Path], str]:
    """Generate what production gets, with links that lead here; returns the rule files and Alertmanager's text."""
    receivers = Receivers(
        page=Webhook(url=f"{people.url}/page"),
        ticket=Webhook(url=f"{people.url}/ticket"),
        watchdog=Webhook(url=f"{people.url}/watchdog"),
    )
    generated = [
        *alerts.prometheus.render(compiled, links),
        *alerts.alertmanager.render(compiled, receivers),
        *alerts.runbooks.render(compiled, links),
        *dashboards.render.render(compiled, links, Definitions(slos=PROMISES, sources=redemption.sources)),
    ]
    artefacts.write(folder, generated)
    rules = sorted((folder / "prometheus/rules").glob("*.yaml"))
    return rules, (folder / alerts.alertmanager.PATH).read_text("utf-8")


def _traffic_of(compiled: Sequence[CompiledSlo]) -> dict[CompiledSlo, float]:
    """Events per second of each promise under our traffic; those that count time, not requests, are left out."""
    share = {Events: 1.0, Latency: 0.5}  # latency is promised for redemptions, which every other request is
    return {one: share[type(one.slo.sli)] * _LOAD.per_second for one in compiled if type(one.slo.sli) in share}


def _budget(metrics: Prometheus, compiled: CompiledSlo, guests: Traffic) -> Budget:
    remaining = metrics.value(compiled.named(names.ERROR_BUDGET_REMAINING))
    if remaining is None:
        raise HarnessError("Prometheus knows no error budget; its rules do not run")
    return Budget(remaining=remaining, bad_events=guests.bad)


def _break(path: Toxiproxy, people: WebhookReceiver, tell: Tell) -> tuple[Notification, float]:
    alert = names.alert_name(BROKEN, Severity.PAGE)
    # Cut, not silent: when a silence ends, those who hung get slow answers, and the latency promise pages as it should.
    path.disable()
    broken_at = time.time()
    tell("The path to the database is cut. Waiting for the page ...")
    page = people.wait_for(lambda one: one.path == "/page" and one.firing(alert), _PAGE_SECONDS_MAX)
    return page, page.at - broken_at


def _heal(path: Toxiproxy, shop: Service, guests: Traffic, tell: Tell) -> None:
    path.enable()
    good = guests.good
    seconds = wait_until("guests get answers again", lambda: guests.good > good + 5, _HEAL_SECONDS_MAX)
    tell(f"The path is healed; guests got answers from {shop.url} again after {seconds:.1f} s.")


# --- what people see ------------------------------------------------------------------------------------------------


def page_text(page: Notification) -> str:
    """The page, as whoever is on call reads it: title, what is wrong, and where to look."""
    [alert] = page.firing(names.alert_name(BROKEN, Severity.PAGE))
    annotations = alert["annotations"]
    links = "\n".join(
        f"{name.removesuffix('_url').capitalize() + ':':11}{annotations[name]}"
        for name in sorted(annotations, reverse=True)
        if name.endswith("_url")
    )
    return f"{alert['labels']['alertname']}\n{annotations['summary']}\n\n{annotations['description']}\n\n{links}"


def cost_text(shown: Demonstration) -> str:
    """What the fault has cost."""
    return (
        f"It cost {shown.after.bad_events - shown.before.bad_events} failed requests, which is "
        f"{shown.before.remaining - shown.after.remaining:.1%} of the error budget of {names.duration(shown.period)}: "
        f"{shown.before.remaining:.1%} was left before, {shown.after.remaining:.1%} is left now."
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demonstration; returns the exit code.

    0 done, 1 it could not be shown, 2 wrong use, 130 ended by Ctrl-C, 143 ended by SIGTERM.
    """
    parser = argparse.ArgumentParser(
        prog="python -m drills.demo", description="Break a running service, and see the page that follows."
    )
    parser.add_argument(
        "--keep", action="store_true", help="leave everything running at the end, until Ctrl-C, to look around"
    )
    keep = parser.parse_args(arguments).keep
    console = Console(highlight=False, soft_wrap=True)
    started = time.monotonic()

    def tell(line: str) -> None:
        console.print(Text.assemble((f"{time.monotonic() - started:5.1f} s  ", "dim"), line))

    def show(page: Notification) -> None:
        _rule(console)
        console.print(Text(page_text(page)))
        _rule(console)

    kept = False
    try:
        with demonstration(tell, show) as shown:
            tell(cost_text(shown))
            if keep:
                kept = True
                places = f"the console is at {shown.addresses['console']}, boards and runbooks at {shown.pages.url}"
                tell(f"Everything keeps running; {places}. Ctrl-C stops it.")
                while True:
                    time.sleep(1)
    except TerminatedError:
        tell("Told to end; all is stopped.")
        return TERMINATED
    except KeyboardInterrupt:
        tell("Ctrl-C; all is stopped.")
        return OK if kept else INTERRUPTED
    except (HarnessError, EmbeddedPostgresError, TimeoutError) as error:
        Console(stderr=True, highlight=False, soft_wrap=True).print(Text(f"The demonstration failed: {error}"))
        return FAILED
    return OK


def _rule(console: Console) -> None:
    """A line around the page; no box, which would break its links."""
    if console.is_terminal:
        console.rule(style="red")
    else:
        console.print()


if __name__ == "__main__":
    sys.exit(main())
