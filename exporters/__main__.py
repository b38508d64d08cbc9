"""The command `exporters`: RDS, Redis, EKS, SQS and the edge for Prometheus.

Exit codes: 0 done, or stopped as it was told; 1 something did not answer; 2 wrong usage or configuration.
"""

from __future__ import annotations

import json
import logging
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from decimal import Decimal
from functools import wraps
from pathlib import Path
from typing import Any, NoReturn

import click

from exporters import settings as exporters_settings
from exporters.calls import CallError, SystemClock
from exporters.collector import Snapshots, registry
from exporters.cost import NOTHING, Cost
from exporters.promises import Promises
from exporters.runner import Runner, costs, units
from exporters.settings import Settings
from exporters.sources.resources import Resources
from exporters.unit import Unit, create_log
from exporters.web import application, serving
from slo import Slo
from slo.definitions import eks, rds, redis
from slo.errors import SloError

EXIT_NO = 1
EXIT_WRONG = 2

PROMISES = tuple(value for module in (eks, rds, redis) for value in vars(module).values() if isinstance(value, Slo))
"""What is promised of the dependencies; of those that CloudWatch cannot see itself the log tells it."""

_STOP_SECONDS_MAX = 5.0


def _fail(text: str, code: int = EXIT_WRONG) -> NoReturn:
    for line in text.splitlines():
        click.echo(f"error: {line}", err=True)
    sys.exit(code)


def _reporting_errors(command: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - whatever click passes
        try:
            return command(*args, **kwargs)
        except SloError as error:
            _fail(str(error))

    return wrapped


_config = click.option(
    "--config",
    "file",
    required=True,
    type=click.Path(path_type=Path),
    help="The TOML file; docs/exporters.md has every key.",
)


@click.group(
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 done, or stopped as told; 1 something did not answer; 2 wrong usage or configuration.",
)
def main() -> None:
    """RDS, Redis, EKS, SQS and the edge, for Prometheus."""


@main.command()
@_config
@_reporting_errors
def run(file: Path) -> None:
    """Serve metrics until told to stop (SIGTERM, Ctrl-C)."""
    settings = exporters_settings.load(file)
    log = create_log(sys.stdout)
    stopped = threading.Event()
    clock = SystemClock(stopped)
    all_units = units(settings, clock, log)
    runner = Runner(all_units, settings, log)
    snapshots = Snapshots(all_units, clock, max_staleness_seconds=settings.max_staleness_seconds)
    promises = Promises(PROMISES, snapshots, sys.stdout, clock)
    try:
        with serving(settings.listen, application(registry(snapshots), runner, all_units)) as url:
            logging.basicConfig(level=logging.CRITICAL)  # libraries' words may hold what they were given
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, lambda *_: stopped.set())
            click.echo(f"exporters: listening on {url}", err=True)
            runner.start()
            threading.Thread(target=promises.run, name="promises", daemon=True).start()
            stopped.wait()
    except OSError as error:
        _fail(f"listen {':'.join(map(str, settings.listen))}: {error.strerror or error}", EXIT_NO)
    runner.join(_STOP_SECONDS_MAX)


@main.command()
@_config
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for machines.")
@_reporting_errors
def cost(file: Path, *, as_json: bool) -> None:
    """Look for resources, and estimate what asking CloudWatch for them costs in a month."""
    settings = exporters_settings.load(file)
    looked = _units(settings)
    faults = [fault for unit in looked for fault in _discover(unit)]
    found = list(costs(looked, settings))
    total = sum((one for _, one in found), NOTHING)
    prices = settings.prices
    if as_json:
        rows = [{**unit.name, **_figures(one)} for unit, one in found]
        price = {"get_metric_data_usd": str(prices.get_metric_data_usd), "source": prices.source}
        price["read_on"] = prices.read_on.isoformat()
        click.echo(json.dumps({"units": rows, "total": _figures(total), "prices": price}, indent=2))
    else:
        for unit, one in found:
            click.echo(f"{_named(unit)}: {one.metrics} metrics, {one.calls} calls a cycle, ${_usd(one.usd_a_month)}")
        click.echo(f"all: {total.metrics} metrics a cycle, ${_usd(total.usd_a_month)} a month of 30 days")
        click.echo(
            f"${prices.get_metric_data_usd} for 1,000 metrics: {prices.source}, {prices.read_on}; "
            "EKS and Redis cost nothing"
        )
    if faults:
        _fail("\n".join(faults), EXIT_NO)


@main.command()
@_config
@_reporting_errors
def check(file: Path) -> None:
    """Ask every source once, and tell what it found or why it did not; exit 1 when one did not answer."""
    looked = _units(exporters_settings.load(file))
    faults = []
    for unit in looked:
        unit.cycle()
        series = sum(map(len, unit.status.readings.values()))
        click.echo(f"{_named(unit)}: {f'{series} series' if unit.status.up else 'failed'}")
        if not unit.status.up:
            told = [f"{call}: {reason}" for (call, reason), count in unit.calls.tally.errors.items() if count]
            faults.append(f"{_named(unit)}: {', '.join(told)}")
    faults.extend(_strangers(looked))
    if faults:
        _fail("\n".join(faults), EXIT_NO)


def _units(settings: Settings) -> Sequence[Unit]:
    return units(settings, SystemClock(threading.Event()), create_log(sys.stderr))


def _discover(unit: Unit) -> list[str]:
    if not isinstance(unit.source, Resources):
        return []
    try:
        unit.source.discover()
    except CallError as error:
        return [f"{_named(unit)}: {error.call}: {error.reason}: {error.text}"]
    return []


def _strangers(looked: Sequence[Unit]) -> list[str]:
    """Accounts whose credentials are another's: all that is found would carry the wrong number."""
    places = {unit.source.place.aws: unit.source.place for unit in looked if isinstance(unit.source, Resources)}
    faults = []
    for aws, place in places.items():
        try:
            found = place.ask("sts:GetCallerIdentity")["Account"]
        except CallError as error:
            faults.append(f"account {aws.account.id}: {error.call}: {error.reason}: {error.text}")
            continue
        if found != aws.account.id:
            faults.append(f"account {aws.account.id}: the credentials are of account {found}")
    return faults


def _named(unit: Unit) -> str:
    return " ".join(value for value in unit.name.values() if value)


def _figures(one: Cost) -> dict[str, Any]:
    return {
        "series": one.series,
        "queries": one.queries,
        "calls": one.calls,
        "metrics": one.metrics,
        "metrics_a_month": one.metrics_a_month,
        "usd_a_month": _usd(one.usd_a_month),
    }


def _usd(amount: Decimal) -> str:
    return str(amount.quantize(Decimal("0.01")))


if __name__ == "__main__":
    main()
