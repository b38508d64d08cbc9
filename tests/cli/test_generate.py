"""`slo generate`: everything from the definitions, the same bytes each time, and nothing half done."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import yaml

from tests.cli.running import json_of, script, slo, tree
from tests.slo.project import SETTINGS, SHOP, make_project


def test_a_second_service_gets_everything_from_its_folder(project: Path) -> None:
    """Rules, alerts with links of its own, routes, runbooks, boards and specs; all from one folder and its settings."""
    result = slo("generate", settings=project)
    assert (result.exit_code, result.stderr) == (0, "")
    files = tree(project.parent / "generated")
    assert {
        "slos.json",
        "prometheus/rules/shop-availability.yaml",
        "prometheus/operator/shop-availability.yaml",
        "prometheus/rules/platform.yaml",
        "alertmanager/alertmanager.yaml",
        "runbooks/ShopAvailabilityPage.md",
        "runbooks/ShopAvailabilityTicket.md",
        "runbooks/ShopAvailabilityAbsent.md",
        "grafana/slo-overview.json",
        "grafana/slo-detail.json",
        "sloth/shop-availability.yaml",
        "openslo/shop-availability.yaml",
    } <= files.keys()
    assert any(path.startswith("prometheus/tests/") for path in files)
    rules = [
        rule
        for group in yaml.safe_load(files["prometheus/rules/shop-availability.yaml"])["groups"]
        for rule in group["rules"]
    ]
    alerts = {rule["alert"]: rule for rule in rules if "alert" in rule}
    assert alerts.keys() == {"ShopAvailabilityPage", "ShopAvailabilityTicket", "ShopAvailabilityAbsent"}
    for name, rule in alerts.items():
        assert rule["annotations"]["runbook_url"] == f"https://wiki.shop.example/runbooks/{name}.md"
        assert f"runbooks/{name}.md" in files
        assert rule["annotations"]["dashboard_url"].startswith("https://grafana.shop.example/d/slo-detail/")
        assert rule["labels"]["owner"] == "shop-team"
    assert not any(b"redemption" in text for path, text in files.items() if "redemption" not in path.lower())


def test_what_was_written_is_told(project: Path) -> None:
    """One line a file, from the project's folder, and a summary; a machine gets the same as JSON."""
    result = slo("generate", settings=project)
    *lines, summary = result.stdout.splitlines()
    count = len(tree(project.parent / "generated"))
    assert lines[0] == "new     generated/alertmanager/alertmanager.yaml"
    assert len(lines) == count
    assert all(line.startswith("new     generated/") for line in lines)
    assert re.fullmatch(rf"1 SLOs, {count} files, {count} changed, \d+\.\d s", summary)
    (project.parent / "generated/slos.json").write_text("edited")
    assert json_of("generate", settings=project) == {"changes": [{"path": "slos.json", "why": "differs"}]}


def test_files_are_named_as_the_shell_finds_them(tmp_path: Path) -> None:
    """An output folder in a folder is told with both, so that the path can be copied."""
    project = make_project(tmp_path, SETTINGS.replace("[tool.slo]\n", '[tool.slo]\noutput = "out/slo"\n'))
    assert "new     out/slo/slos.json" in slo("generate", settings=project).stdout.splitlines()
    (tmp_path / "out/slo/slos.json").unlink()
    assert "missing out/slo/slos.json" in slo("generate", "--check", settings=project).stdout.splitlines()


def test_generating_again_changes_nothing(project: Path) -> None:
    """Not a byte, and not a file's time."""
    slo("generate", settings=project)
    folder = project.parent / "generated"
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    contents = tree(folder)
    result = slo("generate", settings=project)
    assert result.exit_code == 0
    (summary,) = result.stdout.splitlines()
    assert " 0 changed, " in summary
    assert tree(folder) == contents
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_hash_seeds_and_working_folders_change_no_byte(project: Path, tmp_path: Path) -> None:
    """Two processes with other hash seeds, from other folders, write the same bytes: sets and paths leave no trace."""
    folder = project.parent / "generated"
    written = []
    for seed, where, arguments in (
        ("1", project.parent, ()),
        ("4242", tmp_path, ("--settings", "shop/pyproject.toml")),
    ):
        ran = script(*arguments, "generate", folder=where, environment={"PYTHONHASHSEED": seed})
        assert (ran.returncode, ran.stderr) == (0, "")
        written.append(tree(folder))
        shutil.rmtree(folder)
    assert written[0] == written[1]
    assert len(written[0]) > 10


def test_check_of_fresh_files_says_yes(project: Path) -> None:
    """Exit code 0, and nothing to do."""
    slo("generate", settings=project)
    result = slo("generate", "--check", settings=project)
    assert result.exit_code == 0
    assert " 0 stale, " in result.stdout
    assert "make generate" not in result.stdout
    assert json_of("generate", "--check", settings=project) == {"changes": []}


def test_check_names_every_stale_file_and_the_fix(project: Path) -> None:
    """Stale, missing and orphaned files by name, exit code 1, the command that repairs; and nothing is touched."""
    slo("generate", settings=project)
    folder = project.parent / "generated"
    (folder / "slos.json").write_text("edited")
    (folder / "sloth/shop-availability.yaml").unlink()
    (folder / "old").mkdir()
    (folder / "old/rules.yaml").write_text("groups: []\n")
    before = tree(folder)
    result = slo("generate", "--check", settings=project)
    assert result.exit_code == 1
    *lines, summary, fix = result.stdout.splitlines()
    assert lines == [
        "orphan  generated/old/rules.yaml",
        "stale   generated/slos.json",
        "missing generated/sloth/shop-availability.yaml",
    ]
    assert " 3 stale, " in summary
    assert fix == "run `make generate` and commit the result"
    as_json = slo("generate", "--check", "--json", settings=project)
    assert as_json.exit_code == 1
    assert json.loads(as_json.stdout)["changes"][0] == {"path": "old/rules.yaml", "why": "orphan"}
    assert tree(folder) == before
    assert slo("generate", settings=project).stdout.splitlines()[:3] == [
        "removed generated/old/rules.yaml",
        "changed generated/slos.json",
        "new     generated/sloth/shop-availability.yaml",
    ]
    assert slo("generate", "--check", settings=project).exit_code == 0
    assert not (folder / "old").exists()


def test_wrong_definitions_write_nothing(project: Path) -> None:
    """Exit code 2, one line an error on standard error, nothing on standard output, and every file as it was."""
    slo("generate", settings=project)
    before = tree(project.parent / "generated")
    wrong = SHOP.replace('"99.9"', '"100"').replace("shop-team", "")
    make_project(project.parent, files={"promises/shop.py": wrong, "promises/other.py": "import nothing_like_it\n"})
    diff = ("diff", "--against", str(project.parent / "generated/slos.json"))
    for command in (("generate",), ("generate", "--check"), ("check",), ("list",), ("explain", "x"), diff):
        result = slo(*command, settings=project)
        assert (result.exit_code, result.stdout) == (2, ""), command
        lines = result.stderr.splitlines()
        assert len(lines) == 3
        assert all(line.startswith("error: ") for line in lines)
        assert lines[0].endswith("No module named 'nothing_like_it'")
        assert "the owner is empty; say who answers for it" in lines[1]
        assert lines[2].startswith("error: SLO shop/availability: the objective 100 % is not allowed")
    assert tree(project.parent / "generated") == before


def test_slos_in_each_others_way_write_nothing(project: Path) -> None:
    """What only the whole can show is found before anything is written, also on the way to `--check`."""
    make_project(project.parent, files={"promises/copy.py": SHOP})
    result = slo("generate", settings=project)
    assert (result.exit_code, result.stdout) == (2, "")
    assert len(result.stderr.splitlines()) == 8  # an id and three alerts, on both sides
    assert "error: SLO shop/availability: has the id 'shop-availability'" in result.stderr
    assert not (project.parent / "generated").exists()


def test_a_folder_that_holds_other_things_is_left_alone(project: Path) -> None:
    """An output folder that names somebody's work by mistake must not be emptied; what it holds is named."""
    (project.parent / "generated/src").mkdir(parents=True)
    (project.parent / "generated/src/work.py").write_text("months of it")
    result = slo("generate", settings=project)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == (
        f"error: output folder {project.parent / 'generated'}: holds src/work.py, which `slo generate` did not write; "
        "name a folder of its own, or empty this one\n"
    )
    assert tree(project.parent / "generated") == {"src/work.py": b"months of it"}


def test_an_interrupted_first_run_is_repaired(project: Path) -> None:
    """A folder with some of our files and no other needs no help."""
    slo("generate", settings=project)
    (project.parent / "generated/slos.json").unlink()
    assert slo("generate", settings=project).exit_code == 0


def test_an_output_folder_that_cannot_be_written_is_one_line(project: Path) -> None:
    """A file in its place, say: its name and what the system says, exit code 2, no traceback."""
    (project.parent / "generated").write_text("a file")
    result = slo("generate", settings=project)
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert re.fullmatch(r"error: .*generated.*: (File exists|Not a directory)", line)
    assert (project.parent / "generated").read_text() == "a file"


@pytest.mark.parametrize("arguments", [["generate", "--chekc"], ["generate", "extra"]])
def test_wrong_usage_is_exit_code_2(project: Path, arguments: list[str]) -> None:
    """A misspelled option must not generate."""
    result = slo(*arguments, settings=project)
    assert result.exit_code == 2
    assert not (project.parent / "generated").exists()
