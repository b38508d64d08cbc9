"""The command as a whole: help, settings, colours, pipes and the installed script."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from cli.main import main
from tests.cli.running import SCRIPT, script, slo
from tests.contract.places import ROOT
from tests.slo.project import SHOP, make_project


def commands(command: click.Command, name: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every command with the words that lead to it."""
    yield name, command
    if isinstance(command, click.Group):
        for word, one in command.commands.items():
            yield from commands(one, (*name, word))


EVERY_COMMAND = tuple(commands(main))


def test_these_are_the_commands() -> None:
    """A command that comes or goes is seen here, and in the README."""
    assert {" ".join(name) for name, command in EVERY_COMMAND if not isinstance(command, click.Group)} >= {
        "generate",
        "check",
        "list",
        "explain",
        "diff",
        "import sloth",
    }


@pytest.mark.parametrize("name", [name for name, _ in EVERY_COMMAND], ids=" ".join)
def test_every_command_explains_itself(name: tuple[str, ...]) -> None:
    """`-h` and `--help` work everywhere, without settings, and every option says what it does."""
    for option in ("-h", "--help"):
        result = CliRunner().invoke(main, [*name, option])
        assert (result.exit_code, result.stderr) == (0, "")
        assert result.stdout.startswith("Usage: ")
    command = dict(EVERY_COMMAND)[name]
    assert command.help
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, parameter.name


def test_the_exit_codes_are_in_the_help() -> None:
    """Scripts depend on them, so they are said where people look."""
    text = " ".join(slo("--help").stdout.split())
    assert "Exit codes: 0 done or yes; 1 no (stale, problems, changes); 2 wrong usage, settings or definitions." in text


def test_an_unknown_command_is_wrong_usage() -> None:
    """Exit code 2, on standard error."""
    result = slo("genrate")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "genrate" in result.stderr


def test_settings_are_found_above_the_working_folder(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One stands somewhere in the project, and it works."""
    (project.parent / "deep/er").mkdir(parents=True)
    monkeypatch.chdir(project.parent / "deep/er")
    assert "shop/availability" in slo("list").stdout


def test_without_settings_it_says_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line and exit code 2; a file that is not there is wrong usage."""
    monkeypatch.chdir(tmp_path)
    result = slo("check")
    assert (result.exit_code, result.stdout) == (2, "")
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: settings: no pyproject.toml with a [tool.slo] table in ")
    missing = slo("--settings", "missing.toml", "check")
    assert missing.exit_code == 2
    assert "missing.toml" in missing.stderr


def test_wrong_settings_are_told_line_by_line(tmp_path: Path) -> None:
    """All faults, brackets as they are."""
    result = slo("check", settings=make_project(tmp_path, "[tool.slo]\noutput = '.'\ndefinitions = 3\n"))
    assert (result.exit_code, result.stdout) == (2, "")
    lines = result.stderr.splitlines()
    assert len(lines) == 3
    assert lines[-1] == (
        f"error: settings {tmp_path / 'pyproject.toml'}: there is no [tool.slo.links] table; "
        "alerts without links help nobody"
    )


# --- the installed script ---------------------------------------------------------------------------------------------


def test_the_installed_script_runs() -> None:
    """`slo` is on the path of whoever installs the package, and says its version."""
    ran = script("--version", folder=ROOT)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert re.fullmatch(r"slo, version \d+\.\d+\.\d+.*\n", ran.stdout)


def on_a_terminal(*arguments: str, folder: Path, **environment: str) -> str:
    """What the script writes on a terminal of 100 columns."""
    leader, follower = os.openpty()
    ran = subprocess.Popen(
        [SCRIPT, *arguments],
        cwd=folder,
        env={"PATH": os.environ["PATH"], "TERM": "xterm-256color", "COLUMNS": "100", "LANG": "C.UTF-8", **environment},
        stdin=follower,
        stdout=follower,
        stderr=follower,
    )
    os.close(follower)
    written = b""
    while True:
        try:
            part = os.read(leader, 65_536)
        except OSError:  # Linux says so when the last writer is gone
            break
        if not part:
            break
        written += part
    os.close(leader)
    ran.wait(timeout=30)
    return written.decode()


COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def test_colours_are_for_terminals(project: Path) -> None:
    """On a terminal there are colours, in a pipe there is plain text, and the words are the same."""
    make_project(project.parent, files={"promises/copy.py": SHOP})
    piped = script("check", folder=project.parent)
    assert piped.returncode == 1
    assert "\x1b" not in piped.stdout + piped.stderr
    shown = on_a_terminal("check", folder=project.parent)
    assert "\x1b[31mproblem\x1b[0m" in shown
    assert COLOUR.sub("", shown).split() == piped.stdout.split()


def test_people_may_refuse_colours(project: Path) -> None:
    """NO_COLOR, as no-color.org asks."""
    shown = on_a_terminal("explain", "shop/availability", folder=project.parent, NO_COLOR="1")
    assert "shop/availability" in shown
    assert not re.search(r"\x1b\[[0-9;]*3[0-7]", shown)


def test_errors_are_coloured_on_a_terminal_and_whole_in_a_pipe(project: Path) -> None:
    """A long line is not broken where a script reads it."""
    make_project(project.parent, files={"promises/shop.py": SHOP.replace('"99.9"', '"100"')})
    piped = script("list", folder=project.parent)
    assert piped.returncode == 2
    assert piped.stdout == ""
    (line,) = piped.stderr.splitlines()
    assert len(line) > 100
    assert "\x1b[1;31merror:\x1b[0m" in on_a_terminal("list", folder=project.parent)


def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    """`slo list --json | head -1`: no traceback and no message when the pipe closes."""
    reading, writing = os.pipe()
    os.close(reading)
    ran = subprocess.run(
        [SCRIPT, "list", "--json"], cwd=ROOT, stdout=writing, stderr=subprocess.PIPE, check=False, text=True, timeout=60
    )
    os.close(writing)
    assert ran.stderr == ""
    assert ran.returncode == 1
