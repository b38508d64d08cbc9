"""`python -m benchmarks.generate`: how long we generate, beside Sloth, on the same SLOs in the same run."""

from __future__ import annotations

import json
import sys
import tempfile
import tomllib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

from alerts import sloth
from benchmarks.generate.ours import CATALOGUE, EVERYTHING, RULES
from benchmarks.generate.slos import definitions
from benchmarks.measure import Run, alternating, arguments, machine, report, run, say, summary, table, verdict
from drills.harness import tool
from slo import compile_slo
from slo.artefacts import write

README = Path(__file__).with_name("README.md")
ROOT = Path(__file__).resolve().parents[2]

SLOTH = "sloth"
SLOS, ROUNDS = 1_000, 7
SLOS_QUICK, ROUNDS_QUICK = 50, 1

_CONTESTANTS = {
    SLOTH: "Sloth: rules",
    RULES: "ours: rules",
    EVERYTHING: "ours: rules, operator objects and promtool tests",
}


def main() -> None:
    """Measure, and tell."""
    given = arguments("Seconds to generate: our catalogue, and many SLOs beside Sloth.")
    slos, rounds = (SLOS_QUICK, ROUNDS_QUICK) if given.quick else (SLOS, ROUNDS)
    with tempfile.TemporaryDirectory(prefix="benchmark-generate-") as folder:
        figures = {
            "catalogue": _catalogue(Path(folder), rounds),
            "many": _many(Path(folder), slos, rounds),
            "machine": machine("sloth"),
        }
    report(given, figures, _tables(figures), README)


def _ours(*given: str | Path) -> Run:
    return run([sys.executable, "-m", "benchmarks.generate.ours", *map(str, given)])


# --- this repository's catalogue ------------------------------------------------------------------------------------


def _catalogue(folder: Path, rounds: int) -> dict[str, Any]:
    """The command itself, each time in a new process and into an empty folder."""
    numbers = count()

    def once() -> tuple[Run, int]:
        fresh = folder / f"catalogue-{next(numbers)}"
        fresh.mkdir()
        (fresh / "pyproject.toml").write_text(_settings())
        return _ours(CATALOGUE, fresh), _files(fresh / "generated")

    runs = alternating({"slo generate": once}, rounds)["slo generate"]
    return {
        "files": runs[0][1],
        "after_import_seconds": summary([json.loads(each.output)["slo generate"] for each, _ in runs]),
        "process_seconds": summary([each.wall_seconds for each, _ in runs]),
    }


def _settings() -> str:
    """This repository's settings, with the artefacts in a folder beside them."""
    table_of = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["slo"]
    links = "\n".join(f"{name} = {json.dumps(url)}" for name, url in table_of["links"].items())
    packages = json.dumps(table_of["definitions"])
    return f'[tool.slo]\ndefinitions = {packages}\noutput = "generated"\n[tool.slo.links]\n{links}\n'


def _files(folder: Path) -> int:
    return sum(path.is_file() for path in folder.rglob("*"))


# --- many SLOs, beside Sloth ----------------------------------------------------------------------------------------


def _many(folder: Path, slos: int, rounds: int) -> dict[str, Any]:
    """Whole processes for both sides, from nothing to files on the disk, each time into an empty folder."""
    say(f"{slos} SLOs, exported as Sloth specs")
    write(folder, sloth.render([compile_slo(slo) for slo in definitions(slos)]))
    specs, numbers = folder / "sloth", count()

    def fresh(name: str) -> Path:
        path = folder / f"{name}-{next(numbers)}"
        path.mkdir()
        return path

    def sloths() -> tuple[Run, Path]:
        out = fresh(SLOTH)
        # Without its log, which would cost it a little.
        return run([tool("sloth"), "generate", "--no-log", "--input", specs, "--out", out]), out

    def ours(what: str) -> tuple[Run, Path]:
        out = fresh(what)
        return _ours(what, out, str(slos)), out

    contestants: dict[str, Callable[[], tuple[Run, Path]]] = {
        SLOTH: sloths,
        RULES: partial(ours, RULES),
        EVERYTHING: partial(ours, EVERYTHING),
    }
    runs = alternating(contestants, rounds)
    last = {name: each[-1][1] for name, each in runs.items()}
    _same_work(last, slos)
    pairs = zip(runs[RULES], runs[SLOTH], strict=True)
    figures = {name: _contestant([each for each, _ in some], last[name]) for name, some in runs.items()}
    return {
        "slos": slos,
        "rounds": rounds,
        "contestants": figures,
        "ratio": figures[RULES]["wall_seconds"]["median"] / figures[SLOTH]["wall_seconds"]["median"],
        "ratio_single_rounds": summary([mine.wall_seconds / theirs.wall_seconds for (mine, _), (theirs, _) in pairs]),
    }


def _same_work(folders: Mapping[str, Path], slos: int) -> None:
    """See that nobody was fast by leaving something out."""
    theirs, mine = folders[SLOTH], folders[RULES] / "prometheus/rules"
    for folder in (theirs, mine):
        written = [path.name for path in folder.glob("*.yaml") if path.stat().st_size]
        assert len(written) == slos, f"{folder} has {len(written)} files for {slos} SLOs"
    whole = folders[EVERYTHING] / "prometheus/rules"
    for path in mine.glob("*.yaml"):
        assert path.read_bytes() == (whole / path.name).read_bytes(), f"{path.name} is not what slo generate writes"


def _contestant(runs: Sequence[Run], folder: Path) -> dict[str, Any]:
    files = [path for path in folder.rglob("*.yaml") if path.is_file()]
    texts = [path.read_text() for path in files if path.parent.name not in ("operator", "tests")]
    steps = [json.loads(each.output) for each in runs if each.output.startswith("{")]
    return {
        "wall_seconds": summary([each.wall_seconds for each in runs]),
        "cpu_seconds": summary([each.cpu_seconds for each in runs]),
        "step_seconds": {step: summary([each[step] for each in steps])["median"] for step in (steps or [{}])[0]},
        "files": len(files),
        "bytes": sum(path.stat().st_size for path in files),
        "rules": sum(text.count("- record: ") + text.count("- alert: ") for text in texts),
    }


# --- in words -------------------------------------------------------------------------------------------------------


def _tables(figures: Mapping[str, Any]) -> str:
    catalogue, many = figures["catalogue"], figures["many"]
    contestants = many["contestants"]
    single = many["ratio_single_rounds"]
    steps = contestants[RULES]["step_seconds"]
    inside = ", ".join(f"{step} {_seconds(value)}" for step, value in steps.items())
    after_import, process = catalogue["after_import_seconds"], catalogue["process_seconds"]
    return (
        f"`slo generate`, this repository's catalogue ({catalogue['files']} files): "
        f"**{_seconds(after_import['median'])}** after import ({_spread(after_import)} s), "
        f"{_seconds(process['median'])} with the start of Python and all imports: "
        f"{verdict(met=after_import['median'] < 1)}.\n\n"
        f"{many['slos']:,} SLOs, whole processes, medians of {many['rounds']}:\n\n"
        + table(
            ["", "seconds", "fastest to slowest", "CPU seconds", "rules", "files", "MB"],
            [_row(words, contestants[name]) for name, words in _CONTESTANTS.items()],
        )
        + f"\n\nOur rules in **{many['ratio']:.2f} times Sloth's time** (in single rounds {_spread(single)}): "
        f"{verdict(met=many['ratio'] <= 1)}. "
        f"Inside our process, rules alone: {inside}; the rest is the start of Python and imports."
    )


def _row(words: str, of: Mapping[str, Any]) -> list[str]:
    wall = of["wall_seconds"]
    return [
        words,
        f"{wall['median']:.2f}",
        _spread(wall),
        f"{of['cpu_seconds']['median']:.2f}",
        f"{of['rules']:,}",
        f"{of['files']:,}",
        f"{of['bytes'] / 1e6:.1f}",
    ]


def _seconds(value: float) -> str:
    return f"{value:.2f} s"


def _spread(of: Mapping[str, float]) -> str:
    return f"{of['min']:.2f} to {of['max']:.2f}"


if __name__ == "__main__":
    main()
