"""What the benchmarks share: processes with their times, the machine in words, and where figures go."""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import resource
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

from drills.harness import tool

_Result = TypeVar("_Result")

# Figures stand between these lines of a README, so that the command can write them.
_BEGIN, _END = "<!-- figures: written by the command with --update -->", "<!-- end of figures -->"
_FIGURES = re.compile(f"{re.escape(_BEGIN)}.*?{re.escape(_END)}", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Run:
    """A process that has run to its end.

    Attributes:
        wall_seconds: From its start to its end.
        cpu_seconds: What it used on all cores, in user and system mode.
        output: What it printed.
    """

    wall_seconds: float
    cpu_seconds: float
    output: str


def run(command: Sequence[str | Path]) -> Run:
    """Run a process that must succeed.

    Raises:
        RuntimeError: It did not; the message holds what it said.
    """
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.perf_counter()
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    wall = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, command))} failed:\n{done.stdout}{done.stderr}")
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Run(wall, cpu, done.stdout)


def alternating(contestants: Mapping[str, Callable[[], _Result]], rounds: int) -> dict[str, list[_Result]]:
    """Every contestant once a round, in turned order every other round: what slows the machine slows them all."""
    results: dict[str, list[_Result]] = {name: [] for name in contestants}
    for number in range(rounds):
        for name in list(contestants)[:: -1 if number % 2 else 1]:
            say(f"round {number + 1} of {rounds}: {name}")
            results[name].append(contestants[name]())
    return results


def summary(values: Sequence[float]) -> dict[str, float]:
    """The median of some runs, and how far they spread."""
    return {"median": median(values), "min": min(values), "max": max(values)}


def say(text: str) -> None:
    """Tell on standard error what is being done, so that standard output holds figures only."""
    print(f"  {text} ...", file=sys.stderr, flush=True)


# --- the command ----------------------------------------------------------------------------------------------------


def arguments(description: str) -> argparse.Namespace:
    """The options that every benchmark has."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="a small run of some seconds, to see that it works")
    parser.add_argument("--json", action="store_true", help="print every figure as JSON instead of the tables")
    parser.add_argument("--update", action="store_true", help="also write the tables into this folder's README.md")
    given = parser.parse_args()
    if given.quick and given.update:
        parser.error("a quick run is too small for the README; leave out --quick or --update")
    return given


def report(given: argparse.Namespace, figures: Mapping[str, Any], tables: str, readme: Path) -> None:
    """Print the figures, and write them where they belong.

    Raises:
        ValueError: The README has no place for figures.
    """
    text = f"{tables}\n\n{', '.join(figures['machine'].values())}."
    print(json.dumps(figures, indent=2) if given.json else text)
    if given.update:
        before = readme.read_text()
        if not _FIGURES.search(before):
            raise ValueError(f"{readme} has no lines {_BEGIN!r} and {_END!r} to write the figures between")
        readme.write_text(_FIGURES.sub(lambda _: f"{_BEGIN}\n\n{text}\n\n{_END}", before))


def verdict(*, met: bool) -> str:
    """Whether a claim holds, beside its figure: a reader need not compute it, and nobody can overlook it."""
    return "claim met" if met else "**claim not met**"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; all columns but the first are numbers."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


# --- the machine ----------------------------------------------------------------------------------------------------


def machine(*tools: str) -> dict[str, str]:
    """Where the figures come from, in words, with the versions of the Go programs that took part."""
    return {
        "machine": f"{os.cpu_count()} cores, {_memory_gib()} GiB, {_system()}",
        "python": _python(),
        **({"go": _go(tools[0])} if tools else {}),
        **{name: _version(name) for name in tools},
    }


def _python() -> str:
    """A Python that was built without optimizations is slower by a sixth or so, which a reader must know."""
    optimized = "--enable-optimizations" in (sysconfig.get_config_var("CONFIG_ARGS") or "")
    version = ".".join(platform.python_version_tuple()[:2])
    return f"Python {version}" + ("" if optimized else " (built without optimizations)")


def _memory_gib() -> int:
    return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30)


def _system() -> str:
    try:
        release = platform.freedesktop_os_release()
    except OSError:
        return platform.system()
    return f"{release['NAME'].removesuffix(' GNU/Linux')} {release.get('VERSION_ID', '')}".strip()


def _version(name: str) -> str:
    said = run([tool(name), "version" if name == "sloth" else "--version"]).output
    found = re.search(r"\d+\.\d+\.\d+", said)
    return f"{name.capitalize()} {found[0] if found else said.strip()}"


# Go writes its own version into every program, behind these words.
_GO_VERSION = re.compile(rb"\xff Go buildinf:.{16,24}?go(\d+\.\d+)", re.DOTALL)


def _go(name: str) -> str:
    found = _GO_VERSION.search(tool(name).read_bytes())
    return f"Go {found[1].decode()}" if found else "Go"
