"""`python -m drills.load`: the generator as a process of its own."""

from __future__ import annotations

import argparse
import gc
import sys
from collections.abc import Sequence
from pathlib import Path

import orjson

from drills.harness.process import HarnessError
from drills.load.generator import load
from drills.load.plan import Plan, PlanError
from drills.load.report import Latency, Report, Tally

OK, FAILED, WRONG_USE = 0, 1, 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Send load and print what became of it; returns the exit code."""
    options = _parser().parse_args(arguments)
    gc.disable()  # a run makes no cycles worth looking for, but many records to look through
    try:
        report = load(options.url, _plan(options))
    except (PlanError, OSError) as error:
        return _say(str(error), WRONG_USE)
    except HarnessError as error:
        return _say(str(error), FAILED)
    if options.history and report.history is not None:
        report.history.write(options.history)
    print(orjson.dumps(report.document()).decode() if options.json else _text(report))
    return OK


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m drills.load",
        description="Sends redemptions to a service on this machine and tells what became of them.",
        epilog="exit codes: 0 done, whatever the answers were; 1 nobody listens; 2 wrong use",
    )
    add = parser.add_argument
    add("--url", required=True, help="base URL of the service, http://127.0.0.1:PORT")
    add("--account", action="append", default=[], metavar="ID", help="whose points are spent; may be repeated")
    add("--accounts", type=Path, metavar="FILE", help="more of them, one a line")
    add("--choice", default="uniform", help="how one is drawn: uniform, zipf (the n-th weighs 1/n), hot (the first)")
    add("--points", default="1", metavar="N[-M]", help="what a redemption spends, 1-100 say [1]")
    add("--reads-share", type=float, default=0.0, metavar="PART", help="part that reads a balance instead [0]")
    add("--rate", type=float, metavar="PER_SECOND", help="send at this rate; without it as fast as there are answers")
    add("--connections", type=int, default=32, metavar="N", help="connections, and requests at once [32]")
    add("--seconds", type=float, default=10.0, help="how long [10]")
    add("--requests", type=int, metavar="N", help="no more than so many")
    add("--timeout", type=float, default=10.0, metavar="SECONDS", help="how long an answer may take [10]")
    add("--header", action="append", default=[], metavar="'NAME: VALUE'", help="sent along; may be repeated")
    add("--token", type=Path, metavar="FILE", help="a bearer token, in a file so that no list of processes shows it")
    add("--seed", type=int, default=0, help="decides which accounts and points are drawn [0]")
    add("--history", type=Path, metavar="FILE", help="keep what became of each redemption, as JSON lines")
    add("--json", action="store_true", help="print JSON")
    return parser


def _plan(options: argparse.Namespace) -> Plan:
    listed = options.accounts.read_text("utf-8").split() if options.accounts else []
    headers = dict(_header(text) for text in options.header)
    if options.token:
        headers["Authorization"] = f"Bearer {options.token.read_text('ascii').strip()}"
    given = {} if options.requests is None else {"requests_max": options.requests}
    return Plan(
        accounts=(*options.account, *listed),
        choice=options.choice,
        points=_points(options.points),
        reads_share=options.reads_share,
        per_second=options.rate,
        connections=options.connections,
        seconds=options.seconds,
        timeout_seconds=options.timeout,
        headers=headers,
        record=options.history is not None,
        seed=options.seed,
        **given,
    )


def _header(text: str) -> tuple[str, str]:
    name, _, value = text.partition(":")
    return name.strip(), value.strip()


def _points(text: str) -> tuple[int, int]:
    low, _, high = text.partition("-")
    try:
        return int(low), int(high or low)
    except ValueError:
        raise PlanError("points: a number, or two with a - between") from None


def _text(report: Report) -> str:
    lines = [f"{report.duration_seconds:.1f} s, {report.unsent} never sent for want of a free connection"]
    lines += [_line(name, tally) for name, tally in (("redemptions", report.redemptions), ("reads", report.reads))]
    lines.append(f"the generator itself: {report.cpu_seconds_per_request * 1e6:.1f} µs of one core a request")
    return "\n".join(lines)


def _line(name: str, tally: Tally) -> str:
    statuses = ", ".join(f"{status} {count}" for status, count in tally.by_status.items()) or "none"
    return (
        f"{name}: {tally.sent} sent ({statuses}), {tally.goodput_per_second:.1f} accepted a second; "
        f"latency {_latency(tally.latency)}; of the accepted {_latency(tally.accepted_latency)}"
    )


def _latency(latency: Latency | None) -> str:
    if latency is None:
        return "unknown"
    parts = (("p50", latency.p50_seconds), ("p99", latency.p99_seconds), ("p99.9", latency.p999_seconds))
    return ", ".join(f"{name} {seconds * 1000:.1f} ms" for name, seconds in parts)


def _say(message: str, code: int) -> int:
    sys.stderr.write(f"python -m drills.load: {message}\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
