"""Who may import whom, read from the source and tried without any package installed."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.places import ROOT

SIDE_BY_SIDE = ("alerts", "dashboards", "review", "exporters", "service", "infra")
ROOMS = {"slo", *SIDE_BY_SIDE, "drills", "cli"}


def imported(file: Path) -> Iterator[tuple[str, int]]:
    """The top-level package of every import in a file, also of those inside functions, with its line."""
    for node in ast.walk(ast.parse(file.read_text(), file)):
        if isinstance(node, ast.Import):
            yield from ((alias.name.split(".")[0], node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            package = file.relative_to(ROOT).parts[0] if node.level else (node.module or "").split(".")[0]
            yield package, node.lineno


def strangers(room: str, allowed: set[str]) -> list[str]:
    """Imports of a room that are not allowed, as `file:line package`."""
    files = sorted((ROOT / room).rglob("*.py"))
    assert files, f"{room} is no room"
    return [
        f"{file.relative_to(ROOT)}:{line} {package}"
        for file in files
        for package, line in imported(file)
        if package not in allowed
    ]


def test_slo_imports_the_standard_library_only() -> None:
    """What we promise depends on nothing that could break, be replaced or grow a hole."""
    assert strangers("slo", {"slo", *sys.stdlib_module_names}) == []


@pytest.mark.parametrize("room", SIDE_BY_SIDE)
def test_rooms_side_by_side_import_slo_and_never_each_other(room: str) -> None:
    """Each can be read, changed and thrown away alone."""
    foreign = {stranger.split()[1] for stranger in strangers(room, {room, "slo"})}
    assert foreign.isdisjoint(ROOMS)


def test_slo_works_where_nothing_is_installed() -> None:
    """Without site-packages: our definitions are imported, checked and compiled by a bare Python."""
    program = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
from pathlib import Path
from slo import artefacts, catalogue, catalogue_page, check, compile_slo, settings
defined = settings.everything(settings.load(Path({str(ROOT / "pyproject.toml")!r})))
compiled = [compile_slo(slo) for slo in defined.slos]
assert not check.check(compiled, defined)
assert len(catalogue_page.render(compiled, defined)) == 1
assert len(catalogue.render(compiled)) == 1
assert all(one.recordings and one.coarse_recordings and one.alerts for one in compiled)
print(len(compiled))
"""
    ran = subprocess.run([sys.executable, "-I", "-S", "-c", program], capture_output=True, text=True, check=False)
    assert ran.stderr == ""
    assert int(ran.stdout) >= 4


def test_every_folder_of_tests_is_a_package() -> None:
    """Otherwise `import alerts` would find tests/alerts, as rooms and their tests have the same names."""
    folders = {file.parent for file in (ROOT / "tests").rglob("*.py")}
    assert [folder for folder in sorted(folders) if not (folder / "__init__.py").is_file()] == []
