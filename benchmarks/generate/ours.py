"""Our side of the comparison, as a process of its own: `python -m benchmarks.generate.ours WHAT FOLDER [COUNT]`.

It makes the definitions, compiles and renders them, writes the files below the folder, and prints the seconds of each
step as JSON.
"""

from __future__ import annotations

import gc
import io
import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from functools import partial
from pathlib import Path, PurePosixPath

from alerts import prometheus, yaml
from benchmarks.generate.slos import LINKS, definitions
from cli.spread import spread
from slo import Artefact, CompiledSlo, compile_slo
from slo.artefacts import write

RULES, EVERYTHING, CATALOGUE = "rules", "everything", "catalogue"


@contextmanager
def timed(seconds: dict[str, float], step: str) -> Iterator[None]:
    """Note how long the block took."""
    started = time.perf_counter()
    yield
    seconds[step] = time.perf_counter() - started


def rules(compiled: Sequence[CompiledSlo]) -> list[Artefact]:
    """The plain rule files alone, as `alerts.prometheus.render` makes them among other files."""
    return spread(_rule_file, compiled)


def _rule_file(one: CompiledSlo) -> Artefact:
    return Artefact(
        PurePosixPath(f"prometheus/rules/{one.slo.id}.yaml"),
        yaml.dump({"groups": prometheus.rule_groups(one, LINKS)}, prometheus.HEADER.format(subject=one.slo.id_path)),
    )


def everything(compiled: Sequence[CompiledSlo]) -> list[Artefact]:
    """Every Prometheus artefact, spread over the cores as `slo generate` does."""
    of_slos = spread(partial(prometheus.render_slo, links=LINKS), compiled)
    return [*(artefact for of_slo in of_slos for artefact in of_slo), *prometheus.render_platform(LINKS)]


def synthetic(what: str, folder: Path, count: int) -> dict[str, float]:
    """Write the rules, or every Prometheus artefact, of so many synthetic SLOs; the seconds of each step."""
    seconds: dict[str, float] = {}
    gc.disable()  # as `slo generate` does
    with timed(seconds, "define"):
        slos = definitions(count)
    with timed(seconds, "compile and render"):
        compiled = [compile_slo(slo) for slo in slos]
        artefacts = rules(compiled) if what == RULES else everything(compiled)
    with timed(seconds, "write"):
        write(folder, artefacts)
    return seconds


def catalogue(folder: Path) -> dict[str, float]:
    """Run the command `slo generate` as it is, for this repository's definitions, after its imports."""
    import cli.generate  # noqa: F401, PLC0415 - the command would import it when it runs
    from cli.main import main  # noqa: PLC0415 - the other measurements do not need it

    seconds: dict[str, float] = {}
    with timed(seconds, "slo generate"), redirect_stdout(io.StringIO()):
        main(["--settings", str(folder / "pyproject.toml"), "generate"], standalone_mode=False)
    return seconds


if __name__ == "__main__":
    chosen, where = sys.argv[1], Path(sys.argv[2])
    print(json.dumps(catalogue(where) if chosen == CATALOGUE else synthetic(chosen, where, int(sys.argv[3]))))
