"""What runs while an incident is rehearsed: the whole redemption, its monitoring, and whoever is told.

The promises are those of production with every time divided by `TIMES_FASTER`, their ages and the causes' holds
too, so that a second stands for a minute. What is not ours keeps its pace: a scrape each second stands for one a
minute, and a request that hangs does so for the service's own deadline.
"""

from __future__ import annotations

import json
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import httpx

import alerts.alertmanager
import alerts.prometheus
import alerts.runbooks
import dashboards.render
from alerts.alertmanager import Receivers, Timings, Webhook
from drills import history
from drills.harness import (
    HarnessError,
    LedgerDatabase,
    Load,
    Pages,
    Process,
    Prometheus,
    Service,
    SqsQueue,
    Toxiproxy,
    Traffic,
    ValkeyCluster,
    WebhookReceiver,
    alertmanager,
    free_ports,
    jaeger,
    ledger_database,
    pages,
    prometheus,
    running,
    service,
    sqs_queue,
    toxiproxy,
    traffic,
    unwinding_on_sigterm,
    valkey_cluster,
    wait_until,
    webhook_receiver,
    worker,
)
from drills.harness.http import answers, client
from drills.harness.sqs import REGION
from slo import Freshness, Recency, Slo, artefacts
from slo import conventions as names
from slo.causes import Cause, Query
from slo.compile import CompiledSlo, compile_slo
from slo.definitions import exporters as exporters_definitions
from slo.definitions import queue as queue_definitions
from slo.definitions import redemption
from slo.definitions import redis as redis_definitions
from slo.matrix import Definitions
from slo.model import Events, Latency
from slo.settings import Links
from slo.windows import policy

TIMES_FASTER: Final = 60
SCRAPE: Final = timedelta(seconds=1)
CAUSE_EVALUATION: Final = timedelta(seconds=1)
TIMINGS: Final = Timings().scaled(TIMES_FASTER)

GUESTS: Final = tuple(f"guest-{number}" for number in range(1, 6))
ANOTHER_GUEST: Final = "guest-away"  # of whom the traffic knows nothing
REQUESTS_PER_SECOND: Final = 20.0

EXPORTERS: Final = "exporters"
SECOND_SERVICE: Final = "second service"

_POINTS: Final = 1_000_000
_WARM_UP_REQUESTS: Final = 200
_WARM_UP_AT_ONCE: Final = 40
_RULES_SECONDS_MAX: Final = 60.0
_TRAFFIC_SECONDS_MAX: Final = 600
_ACCOUNT: Final = "123456789012"  # moto's
_REDIS: Final = "redemption"
_QUEUE_AGE_POINTS: Final = 10

_SOURCES: Final = (
    *redemption.sources,
    *redis_definitions.sources,
    *queue_definitions.sources,
    *exporters_definitions.sources,
)

_RANGE = re.compile(r"\[(\d+)m\]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """Everything that runs.

    Attributes:
        database: The ledger's.
        path: From the service to it.
        worker_path: From the worker to it.
        scrape_path: From Prometheus to the service.
        valkey: The cluster.
        queue: SQS.
        shop: The service.
        settler: The worker.
        exporter: The exporters; None where they are not needed.
        guests: The traffic.
        metrics: Prometheus with the rules.
        people: Who gets notifications, at `/page`, `/ticket` and `/watchdog`.
        links: Where the links of an alert lead.
        serve: Starts a service with more settings, at a port if one is given; it runs to the end.
        second_port: Where Prometheus looks for a second service; None where none is planned.
    """

    database: LedgerDatabase
    path: Toxiproxy
    worker_path: Toxiproxy
    scrape_path: Toxiproxy
    valkey: ValkeyCluster
    queue: SqsQueue
    shop: Service
    settler: Service
    exporter: Process | None
    guests: Traffic
    metrics: Prometheus
    people: WebhookReceiver
    links: Pages
    serve: Callable[[Mapping[str, str], int | None], Service]
    second_port: int | None


@contextmanager
def stage(needs: frozenset[str], settings: Mapping[str, str], path_latency_milliseconds: int) -> Iterator[Stage]:
    """Start everything, and wait until the rules know the budgets; stop it all at the end.

    Args:
        needs: What runs besides: `EXPORTERS`, `SECOND_SERVICE`.
        settings: Of the service, on top of the usual.
        path_latency_milliseconds: How far away the database always is.

    Raises:
        HarnessError, EmbeddedPostgresError: A part is missing or does not start.
        TimeoutError: A part does not do what it is told in time.
    """
    with unwinding_on_sigterm(), ExitStack() as stack:
        start = stack.enter_context
        folder = Path(start(tempfile.TemporaryDirectory(prefix="drill-incident-", ignore_cleanup_errors=True)))
        database = start(ledger_database())
        database.accrue((*GUESTS, ANOTHER_GUEST), _POINTS)
        path, worker_path = start(toxiproxy(database.address)), start(toxiproxy(database.address))
        if path_latency_milliseconds:
            path.add_toxic("latency", latency=path_latency_milliseconds)
        valkey, queue, traces = start(valkey_cluster(replicas=0)), start(sqs_queue()), start(jaeger())
        environment = {
            "REDEMPTION_VALKEY_URL": valkey.url,
            "OTEL_EXPORTER_OTLP_ENDPOINT": traces.otlp_url,
            "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
            "OTEL_TRACES_SAMPLER": "always_on",  # few requests, and each may be the one that failed
            **queue.environment(),
        }
        url = path.through(database.url)
        shop = start(service(url, {**environment, **settings}))
        scrape_path = start(toxiproxy(shop.address))
        # As the promise's 30 minutes are 30 seconds here, the ledger is verified each ten seconds, not minutes.
        settler = start(
            worker(worker_path.through(database.worker_url), environment | {"REDEMPTION_VERIFY_SECONDS": "10"})
        )
        exporter = start(_exporters(queue, valkey)) if EXPORTERS in needs else None
        guests = start(
            traffic(
                shop.url,
                GUESTS,
                Load(per_second=REQUESTS_PER_SECOND, seconds_max=_TRAFFIC_SECONDS_MAX),
                shop.headers,
            )
        )
        people, links = start(webhook_receiver()), start(pages(folder / "generated"))
        _warm_up(shop)
        compiled = promises(needs)
        pager = start(alertmanager(_routes(compiled, people)))
        places = replace(links.links, traces=traces.url, alertmanager=pager.url)
        rules = _write(folder / "generated", compiled, causes(needs), places)
        second_port = free_ports(1)[0] if SECOND_SERVICE in needs else None
        targets = {
            "redemption": [scrape_path.listen, *([f"127.0.0.1:{second_port}"] if second_port else [])],
            "redemption-worker": [settler.address],
            **({"exporters": [f"127.0.0.1:{exporter.ports[0]}"]} if exporter else {}),
        }
        metrics = start(
            prometheus(
                rules=rules,
                targets=targets,
                alertmanager_url=pager.url,
                scrape_interval=SCRAPE,
                data=history.write(folder / "past", {one: _events_per_second(one) for one in compiled}),
            )
        )
        links.show(prometheus_url=metrics.url, log=shop.process.log)
        remaining = [one.named(names.ERROR_BUDGET_REMAINING) for one in compiled]
        wait_until(
            "the rules know the budgets",
            lambda: all(metrics.query(one) for one in remaining),
            _RULES_SECONDS_MAX,
        )
        yield Stage(
            database=database,
            path=path,
            worker_path=worker_path,
            scrape_path=scrape_path,
            valkey=valkey,
            queue=queue,
            shop=shop,
            settler=settler,
            exporter=exporter,
            guests=guests,
            metrics=metrics,
            people=people,
            links=links,
            serve=lambda more, port: start(service(url, {**environment, **more}, issuer=shop.issuer, port=port)),
            second_port=second_port,
        )


def _warm_up(shop: Service) -> None:
    """Let it open all its connections, as it has where it is busy: first requests are slow, and no guest's fault."""
    balances = [f"/v1/accounts/{GUESTS[number % len(GUESTS)]}/balance" for number in range(_WARM_UP_REQUESTS)]
    with (
        httpx.Client(base_url=shop.url, headers=shop.headers, trust_env=False, timeout=30) as http,
        ThreadPoolExecutor(_WARM_UP_AT_ONCE) as pool,
    ):
        list(pool.map(http.get, balances))


# --- what is promised, and faster -------------------------------------------------------------------------------------


def promises(needs: frozenset[str] = frozenset()) -> list[CompiledSlo]:
    """The redemption's promises, and those whose figures the exporters bring, faster."""
    more = (redis_definitions.availability, queue_definitions.waiting) if EXPORTERS in needs else ()
    of_redemption = [value for value in vars(redemption).values() if isinstance(value, Slo)]
    return [faster(slo) for slo in (*of_redemption, *more)]


def faster(slo: Slo) -> CompiledSlo:
    """A promise with every time divided, how old something may be among them."""
    match slo.sli:
        case Freshness() | Recency() as sli:
            slo = replace(slo, sli=replace(sli, age_max_seconds=sli.age_max_seconds // TIMES_FASTER))
    return compile_slo(slo, policy(slo.window).scaled(TIMES_FASTER))


def causes(needs: frozenset[str] = frozenset()) -> tuple[Cause, ...]:
    """The causes whose figures are there, with hold and ranges divided alike."""
    [valkey_calls] = [cause for cause in redis_definitions.causes if cause.name == "calls-fail"]
    of_exporters = exporters_definitions.causes if EXPORTERS in needs else ()
    return tuple(_faster_cause(cause) for cause in (*redemption.causes, valkey_calls, *of_exporters))


def _faster_cause(cause: Cause) -> Cause:
    condition = cause.condition
    if isinstance(condition, Query):
        ranges = _RANGE.sub(lambda found: f"[{int(found[1]) * 60 // TIMES_FASTER}s]", condition.promql)
        condition = replace(condition, promql=ranges)
    return replace(cause, condition=condition, hold=cause.hold / TIMES_FASTER)


def _events_per_second(compiled: CompiledSlo) -> float:
    """Events of a promise under our traffic; nobody captures or refunds anything here."""
    if compiled.slo.name == redemption.capture_and_refund.name:
        return 0.0
    match compiled.slo.sli:
        case Events():
            return REQUESTS_PER_SECOND
        case Latency():
            return REQUESTS_PER_SECOND / 2  # every other request is a redemption
    return 1.0  # a slice of a minute is one of a second


def _routes(compiled: Sequence[CompiledSlo], people: WebhookReceiver) -> str:
    """Alertmanager's configuration, with receivers that are here."""
    receivers = Receivers(
        page=Webhook(url=f"{people.url}/page"),
        ticket=Webhook(url=f"{people.url}/ticket"),
        watchdog=Webhook(url=f"{people.url}/watchdog"),
    )
    rendered = alerts.alertmanager.render(compiled, receivers)
    return next(one.text for one in rendered if one.path == alerts.alertmanager.PATH)


def _write(folder: Path, compiled: Sequence[CompiledSlo], of: Sequence[Cause], links: Links) -> list[Path]:
    """Generate what production gets, with links that lead here; returns the rule files."""
    defined = Definitions(slos=tuple(one.slo for one in compiled), causes=tuple(of), sources=_SOURCES)
    generated = [
        *alerts.prometheus.render_platform(links),
        *alerts.runbooks.render(compiled, links, defined),
        *dashboards.render.render(compiled, links, defined),
    ]
    artefacts.write(folder, generated)
    groups = [group for one in compiled for group in alerts.prometheus.rule_groups(one, links)]
    interval = names.duration(CAUSE_EVALUATION)
    groups.append(
        {"name": "causes", "interval": interval, "rules": [alerts.prometheus.cause_rule(one, links) for one in of]}
    )
    rules = folder / "prometheus/rules/incidents.json"
    rules.write_text(json.dumps({"groups": groups}))  # JSON is YAML
    return sorted(rules.parent.iterdir())


# --- the exporters ----------------------------------------------------------------------------------------------------


@contextmanager
def _exporters(queue: SqsQueue, valkey: ValkeyCluster) -> Iterator[Process]:
    """The exporters, of the real cluster and of what moto's CloudWatch knows of the queue."""
    _tell_cloudwatch(queue)
    config = {
        "regions": [REGION],
        "sources": ["redis", "sqs"],
        "delay_seconds": 60,
        "accounts": [{"id": _ACCOUNT}],
        "requests": {"endpoint_url": queue.endpoint_url, "timeout_seconds": 30},
        "redis": {"cluster": _REDIS, "seeds": [f"127.0.0.1:{valkey.nodes[0].ports[0]}"], "tls": False},
    }

    def command(ports: Sequence[int], folder: Path) -> list[str | Path]:
        file = folder / "exporters.toml"
        file.write_text("".join(_toml({"listen": f"127.0.0.1:{ports[0]}", **config})))
        return [sys.executable, "-m", "exporters", "run", "--config", file]

    def ready(ports: Sequence[int]) -> bool:
        with client(f"http://127.0.0.1:{ports[0]}") as http:
            return answers(http, "/readyz")

    environment = os.environ | queue.environment() | {"PYTHONPATH": str(Path(__file__).parents[2])}
    with running("exporters", command, ready, environment=environment, start_seconds_max=60) as process:
        yield process


def _toml(table: Mapping[str, Any]) -> Iterator[str]:
    """JSON of a value is TOML of it, but for tables."""
    for key, value in table.items():
        yield f"{key} = {_inline(value)}\n"


def _inline(value: object) -> str:
    match value:
        case dict():
            return "{ " + ", ".join(f"{key} = {_inline(one)}" for key, one in value.items()) + " }"
        case list():
            return f"[{', '.join(map(_inline, value))}]"
    return json.dumps(value)


def _tell_cloudwatch(queue: SqsQueue) -> None:
    """Put some minutes of an empty queue into CloudWatch, which moto does not do by itself."""
    now = datetime.now(UTC)
    fields: dict[str, str] = {"Action": "PutMetricData", "Version": "2010-08-01", "Namespace": "AWS/SQS"}
    for number in range(1, _QUEUE_AGE_POINTS + 1):
        one = f"MetricData.member.{number}"
        fields |= {
            f"{one}.MetricName": "ApproximateAgeOfOldestMessage",
            f"{one}.Dimensions.member.1.Name": "QueueName",
            f"{one}.Dimensions.member.1.Value": queue.queue_url.rpartition("/")[2],
            f"{one}.Timestamp": (now - number * timedelta(minutes=1)).isoformat(),
            f"{one}.Value": "0",
        }
    signed_for = f"AWS4-HMAC-SHA256 Credential=AKIDMADEUP/20260101/{REGION}/monitoring/aws4_request"
    headers = {"Authorization": f"{signed_for}, SignedHeaders=host, Signature=none"}
    answer = httpx.post(queue.endpoint_url, data=fields, headers=headers, trust_env=False)
    if not answer.is_success:
        raise HarnessError(f"moto's CloudWatch took no figures: {answer.status_code} {answer.text[:500]}")
