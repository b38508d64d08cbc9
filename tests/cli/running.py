"""Running the command, in this process or as people do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from cli.main import main

SCRIPT = Path(sys.executable).with_name("slo")


def slo(*arguments: str, settings: Path | None = None) -> Result:
    """Run the command in this process, its output in a pipe."""
    chosen = ["--settings", str(settings)] if settings else []
    result = CliRunner().invoke(main, [*chosen, *arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def json_of(*arguments: str, settings: Path) -> Any:  # noqa: ANN401 - JSON is anything
    """What the command says to machines."""
    return json.loads(slo(*arguments, "--json", settings=settings).stdout)


def script(
    *arguments: str, folder: Path, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the installed console script, as people do."""
    return subprocess.run(
        [SCRIPT, *arguments],
        cwd=folder,
        env={**os.environ, **(environment or {})},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, with its bytes."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
