"""All units of a configuration, each in a thread of its own."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Final

from exporters.aws import Aws
from exporters.calls import Calls, Clock
from exporters.cost import NOTHING, Cost, estimate
from exporters.settings import Settings
from exporters.sources import Source
from exporters.sources.alb import Alb
from exporters.sources.eks import Eks
from exporters.sources.elasticache import ElastiCache
from exporters.sources.rds import Rds
from exporters.sources.redis_info import RedisCluster
from exporters.sources.resources import Kind, Place, Resources
from exporters.sources.route53 import Route53
from exporters.sources.sqs import Sqs
from exporters.sources.waf import Waf
from exporters.unit import Log, Unit, offsets

KINDS: Final[Mapping[str, type[Kind]]] = {
    "rds": Rds,
    "elasticache": ElastiCache,
    "sqs": Sqs,
    "alb": Alb,
    "route53": Route53,
    "waf": Waf,
}
"""What each source of AWS looks for."""


def units(settings: Settings, clock: Clock, log: Log) -> tuple[Unit, ...]:
    """Every unit of the settings; nothing is asked yet."""
    accounts = {account.id: Aws(account, settings.requests, settings.tags) for account in settings.accounts}
    return tuple(_units(settings, accounts, clock, log))


def _units(settings: Settings, accounts: Mapping[str, Aws], clock: Clock, log: Log) -> Iterator[Unit]:
    def unit(name: Mapping[str, str], source: Source, calls: Calls) -> Unit:
        whole = {"source": "", "aws_account_id": "", "aws_region": "", "name": ""}
        return Unit({**whole, **name}, source, calls, log, period_seconds=settings.period_seconds)

    for name in settings.sources:
        calls = _calls(settings, clock)
        if name == "redis" and settings.redis:
            cluster = settings.redis.cluster
            yield unit({"source": name, "name": cluster}, RedisCluster(settings.redis, calls), calls)
        elif name == "eks" and settings.kubernetes:
            eks = Eks(settings.kubernetes, calls, timeout_seconds=settings.requests.timeout_seconds)
            yield unit({"source": name, "name": settings.kubernetes.cluster}, eks, calls)
        elif name in KINDS:
            kind = KINDS[name]
            for aws in accounts.values():
                for region in (kind.region,) if kind.region else settings.regions:
                    place = Place(aws, _calls(settings, clock), region)
                    source = Resources(
                        kind.create(settings),
                        place,
                        delay_seconds=settings.delay_seconds,
                        discovery_seconds=settings.discovery_seconds,
                    )
                    yield unit({"source": name} | place.labels, source, place.calls)


def _calls(settings: Settings, clock: Clock) -> Calls:
    requests = settings.requests
    return Calls(clock, attempts_max=requests.attempts_max, retries_max=requests.retries_max)


class Runner:
    """Runs units until it is time to stop.

    Args:
        units: Which.
        settings: How often.
        log: Told what the whole will cost, once that is known.
    """

    def __init__(self, units: Sequence[Unit], settings: Settings, log: Log) -> None:
        self._units = units
        self._settings = settings
        self._log = log
        delays = offsets(len(units), settings.period_seconds)
        self._threads = [
            # A daemon: a call that hangs must not keep the process from ending.
            threading.Thread(target=self._run, args=(unit, delay), name=unit.name["source"], daemon=True)
            for unit, delay in zip(units, delays, strict=True)
        ]
        self._lock = threading.Lock()
        self._is_told = False

    @property
    def alive(self) -> bool:
        """Whether every unit still runs."""
        return all(thread.is_alive() for thread in self._threads)

    @property
    def ready(self) -> bool:
        """Whether every unit has run at least once, well or not."""
        return all(unit.status.cycles for unit in self._units)

    def start(self) -> None:
        """Start every unit."""
        for thread in self._threads:
            thread.start()

    def join(self, timeout_seconds: float) -> None:
        """Wait for units that were told to stop."""
        for thread in self._threads:
            thread.join(timeout_seconds / len(self._threads))

    def _run(self, unit: Unit, offset_seconds: float) -> None:
        unit.cycle()
        self._tell_cost()
        unit.run(offset_seconds)

    def _tell_cost(self) -> None:
        """Once all have looked for their resources: what asking for them costs."""
        with self._lock:
            if self._is_told or not self.ready:
                return
            self._is_told = True
        cost = sum((one for _, one in costs(self._units, self._settings)), NOTHING)
        prices = self._settings.prices
        self._log.info(
            "estimated cost",
            cloudwatch_metrics=cost.metrics,
            usd_a_month=str(cost.usd_a_month.quantize(Decimal("0.01"))),
            price_source=prices.source,
            price_read_on=prices.read_on.isoformat(),
        )


def costs(units: Sequence[Unit], settings: Settings) -> Iterator[tuple[Unit, Cost]]:
    """What each unit of AWS asks for, as it is planned now."""
    for unit in units:
        if isinstance(unit.source, Resources):
            yield unit, estimate(unit.source.series, settings.prices, period_seconds=settings.period_seconds)
