"""Draw every board into docs/boards/, so that people see what they get before they deploy: `make pictures`.

A real Prometheus gets some hours of example values with a sale in them (drills/examples.py), a period of events for
each promise, and what our rules record of them; then each panel's own queries are asked and drawn.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from dashboards import panels
from dashboards.render import render
from drills.drawing import Source, picture
from drills.examples import Examples
from drills.harness import HarnessError, prometheus, tool
from slo import conventions as names
from slo.compile import CompiledSlo, compile_slo
from slo.matrix import Definitions
from slo.metrics.prometheus import PROMETHEUS_METRICS
from slo.settings import everything, load

_ROOT = Path(__file__).parents[1]
_SHOWN = timedelta(hours=6)
_STEP = timedelta(minutes=1)
_RULES_STEP = timedelta(minutes=2)
# A made-up day, so that a picture changes only when a board does.
_END = datetime(2026, 6, 15, 14, 0, tzinfo=UTC).timestamp()
_SALE = _END - 2.2 * 3600

# Service and promise -> what share of its events is bad at the height of the sale, in budgets.
_BURNS: Mapping[str, float] = {"redemption-availability": 22, "edge-availability": 9, "redemption-latency-fast": 4}
_BURN_OF_OTHERS = 0.6

_VARIABLES = {
    panels.RATE_INTERVAL: "4m",
    panels.TIME_SHOWN: names.duration(_SHOWN),
    '"$service"': '"redemption"',
    '"$slo"': '"availability"',
}
_LABEL_VARIABLE = re.compile(r'=~"\$\w+"')


def filled(expr: str) -> str:
    """A query with a value for each variable: one promise, and all of everything else."""
    for variable, value in _VARIABLES.items():
        expr = expr.replace(variable, value)
    return _LABEL_VARIABLE.sub('=~".*"', expr)


def main(arguments: Sequence[str] | None = None) -> int:
    """Draw; 0 when all boards are written, 2 when something that is needed is missing."""
    parser = argparse.ArgumentParser(prog="python -m drills.pictures", description="Draw every board as PNG.")
    parser.add_argument("--to", type=Path, default=_ROOT / "docs" / "boards", help="the folder; docs/boards by default")
    parser.add_argument("--only", metavar="UID", help="draw one board only")
    options = parser.parse_args(arguments)
    try:
        for file in draw(options.to, options.only):
            print(f"{file}: {file.stat().st_size // 1024} KiB")
    except HarnessError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def draw(folder: Path, only: str | None = None) -> Iterator[Path]:
    """Write the picture of each board, or of one.

    Raises:
        HarnessError: Prometheus or promtool is not built, or there is no such board.
    """
    settings = load(_ROOT / "pyproject.toml")
    defined = everything(settings)
    compiled = [compile_slo(slo) for slo in defined.slos]
    artefacts = render(compiled, settings.links, defined)
    boards = [json.loads(one.text) for one in artefacts if one.path.suffix == ".json"]
    wanted = [board for board in boards if only in (None, board["uid"])]
    if not wanted:
        raise HarnessError(f"board {only!r}: there is none; there are {', '.join(board['uid'] for board in boards)}")
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="pictures-") as temporary:
        data = Path(temporary) / "data"
        data.mkdir()
        _import(_lines(compiled, defined), data)
        _record(compiled, defined, data)
        with prometheus(data=data) as server:
            source = Source(server, _END - _SHOWN.total_seconds(), _END, _RULES_STEP, filled)
            for board in wanted:
                file = folder / f"{board['uid']}.png"
                file.write_bytes(picture(board, source))
                yield file


# --- the past ---------------------------------------------------------------------------------------------------------


def _import(lines: Iterator[str], data: Path) -> None:
    text = data.with_suffix(".openmetrics")
    with text.open("w") as file:
        file.writelines(lines)
        file.write("# EOF\n")
    _promtool("openmetrics", str(text), str(data))
    text.unlink()


def _promtool(*arguments: str) -> None:
    # Large blocks: for each of them promtool reads all of the file again.
    command = [str(tool("promtool")), "tsdb", "create-blocks-from", "--max-block-duration=2000h", *arguments]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise HarnessError(f"promtool: {done.stdout}{done.stderr}".strip()[-2000:])


def _lines(compiled: Sequence[CompiledSlo], defined: Definitions) -> Iterator[str]:
    """Example values of the catalogue for the time shown, and each promise's events for its whole period."""
    metrics = dict.fromkeys((*(one for source in defined.sources for one in source.metrics), *PROMETHEUS_METRICS))
    examples = Examples(metrics, sale=_SALE)
    families: dict[str, list[str]] = {metric.name: [] for metric in metrics}
    begin = _END - _SHOWN.total_seconds() - 3_600
    for number in range(int((_END - begin) / _STEP.total_seconds()) + 1):
        now = begin + number * _STEP.total_seconds()
        for metric, series, value in examples.samples(now):
            families[metric].append(f"{series} {value!r} {now:.0f}\n")
    for one in compiled:
        for record, is_bad in ((names.ALL_EVENTS, False), (names.BAD_EVENTS, True)):
            for series, length, step in _events_of(one, record):
                families.setdefault(series, []).extend(_events(one, series, is_bad, length, step))
    for family, lines in families.items():
        yield f"# TYPE {family} unknown\n"
        yield from lines


def _events_of(compiled: CompiledSlo, record: str) -> Iterator[tuple[str, timedelta, timedelta]]:
    """What the rules read of their own past: each series, how far back, and its resolution."""
    policy = compiled.policy
    fine = max(window for window in compiled.windows if not compiled.is_coarse(window))
    yield record + names.duration(policy.base), fine + _SHOWN, _STEP
    coarse = names.coarse(record, policy.coarse_interval, policy.base)
    yield coarse, policy.period + _SHOWN, policy.coarse_interval


def _events(compiled: CompiledSlo, series: str, is_bad: bool, length: timedelta, step: timedelta) -> Iterator[str]:  # noqa: FBT001
    labels = ",".join(f'{name}="{text}"' for name, text in compiled.identity.items())
    usual = float(compiled.slo.expected_events_per_second or 1)
    budget = float(compiled.slo.budget_ratio)
    for number in range(length // step, -1, -1):
        now = _END - number * step.total_seconds()
        height = max(0.0, 1 - abs(now - _SALE) / 1500)
        value = usual * (1 + 3 * height)
        if is_bad:
            value *= budget * (0.5 + height * (_BURNS.get(compiled.slo.id, _BURN_OF_OTHERS) - 0.5))
        yield f"{series}{{{labels}}} {value!r} {now:.0f}\n"


# --- what the rules would have recorded -------------------------------------------------------------------------------


def _record(compiled: Sequence[CompiledSlo], defined: Definitions, data: Path) -> None:
    """Run the rules over the time shown, those that read others after them; alerts fire without their patience."""
    known = {
        series for one in compiled for record in (names.ALL_EVENTS, names.BAD_EVENTS) for series in _known(one, record)
    }
    rules = [
        {"record": one.record, "expr": one.expr, "labels": dict(one.labels)}
        for slo in compiled
        for one in (*slo.recordings, *slo.coarse_recordings)
        if one.record not in known
    ]
    alerts = [(one.name, one.expr, one.labels) for slo in compiled for one in slo.alerts if "absent" not in one.expr]
    alerts += [(cause.alert_name, cause.condition.promql, cause.labels) for cause in defined.causes]
    rules += [
        {
            "record": "ALERTS",
            "expr": f"0 * ({expr}) + 1",
            "labels": {**labels, "alertname": name, "alertstate": "firing"},
        }
        for name, expr, labels in alerts
    ]
    for level in _levels(rules):
        with prometheus(data=data) as server, tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "rules.json"
            file.write_text(json.dumps({"groups": [{"name": "past", "rules": level}]}))
            begin = _END - _SHOWN.total_seconds()
            times = (f"--start={begin:.0f}", f"--end={_END:.0f}", f"--eval-interval={names.duration(_RULES_STEP)}")
            _promtool("rules", *times, f"--url={server.url}", f"--output-dir={data}", str(file))


def _known(compiled: CompiledSlo, record: str) -> set[str]:
    return {series for series, _, _ in _events_of(compiled, record)}


def _levels(rules: Sequence[Mapping[str, object]]) -> Iterator[list[Mapping[str, object]]]:
    """The rules, those first that read nothing that another one records."""
    left = list(rules)
    while left:
        waiting = {str(rule["record"]) for rule in left}
        ready = [rule for rule in left if not _read(str(rule["expr"])) & waiting]
        if not ready:
            raise HarnessError(f"rules that read each other: {', '.join(sorted(waiting))}")
        yield ready
        left = [rule for rule in left if rule not in ready]


def _read(expr: str) -> set[str]:
    return set(re.findall(r"slo:[a-z0-9_]+:[a-z0-9_]+|sloth_slo_info", expr))


if __name__ == "__main__":
    sys.exit(main())
