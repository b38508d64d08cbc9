"""`slo import sloth`: a foreign spec becomes rules or definitions of ours, or one clear line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from slo import Queries, Slo
from tests.cli.running import slo, tree

SPEC = """\
version: prometheus/v1
service: checkout
labels:
  team: till
slos:
  - name: requests
    objective: 99.9
    description: Shoppers can pay.
    sli:
      events:
        error_query: sum(rate(http_total{code=~"5.."}[{{.window}}]))
        total_query: sum(rate(http_total[{{.window}}]))
    alerting:
      name: CheckoutBurns
      page_alert:
        labels:
          routing_key: till
      ticket_alert:
        disable: true
"""


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    """A spec of somebody else's."""
    file = tmp_path / "checkout.yaml"
    file.write_text(SPEC)
    return file


def test_a_spec_becomes_rules(project: Path, spec: Path, tmp_path: Path) -> None:
    """Rules, routes and a runbook for each alert, with the links of the settings; each file is told."""
    out = tmp_path / "rules"
    result = slo("import", "sloth", str(spec), "-o", str(out), settings=project)
    assert (result.exit_code, result.stderr) == (0, "")
    files = tree(out)
    assert sorted(result.stdout.splitlines()) == sorted(str(out / path) for path in files)
    assert {"runbooks/CheckoutBurnsPage.md", "alertmanager/alertmanager.yaml"} <= files.keys()
    groups = yaml.safe_load(files["prometheus/rules/checkout-requests.yaml"])["groups"]
    alerts = {rule["alert"]: rule for group in groups for rule in group["rules"] if "alert" in rule}
    assert alerts.keys() == {"CheckoutBurnsPage", "CheckoutBurnsAbsent"}
    assert alerts["CheckoutBurnsPage"]["labels"]["routing_key"] == "till"
    assert alerts["CheckoutBurnsPage"]["annotations"]["runbook_url"].startswith("https://wiki.shop.example/")


def test_importing_again_changes_nothing_and_strangers_stay(project: Path, spec: Path, tmp_path: Path) -> None:
    """The folder may hold other files; a second run has nothing to tell."""
    out = tmp_path / "rules"
    out.mkdir()
    (out / "theirs.yaml").write_text("groups: []\n")
    slo("import", "sloth", str(spec), "--output", str(out), settings=project)
    before = tree(out)
    assert before["theirs.yaml"] == b"groups: []\n"
    result = slo("import", "sloth", str(spec), "--output", str(out), settings=project)
    assert (result.exit_code, result.stdout) == (0, "")
    assert tree(out) == before


def test_a_spec_becomes_definitions(spec: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python that runs and gives the same promise; it needs no settings, so a team can look before it moves in."""
    monkeypatch.chdir(tmp_path)
    result = slo("import", "sloth", str(spec), "--python")
    assert (result.exit_code, result.stderr) == (0, "")
    module: dict[str, Any] = {}
    exec(compile(result.stdout, "imported.py", "exec"), module)  # noqa: S102 - what was printed is meant to be run
    (imported,) = (value for value in module.values() if isinstance(value, Slo))
    assert (imported.id_path, imported.owner, str(imported.objective)) == ("checkout/requests", "till", "99.9")
    assert isinstance(imported.sli, Queries)
    assert [str(alert.severity) for alert in imported.alerts] == ["page"]


def test_notes_do_not_mix_with_the_definitions(tmp_path: Path) -> None:
    """What an importer should know goes to standard error, so that standard output can be a file."""
    file = tmp_path / "counts.yaml"
    file.write_text(SPEC.replace("rate(", "increase("))
    result = slo("import", "sloth", str(file), "--python")
    assert result.exit_code == 0
    assert result.stderr.startswith(f"note: {file}:")
    assert "note:" not in result.stdout
    compile(result.stdout, "imported.py", "exec")


def test_a_wrong_spec_is_told_by_its_lines(project: Path, tmp_path: Path) -> None:
    """Every fault with file and line, exit code 2, nothing on standard output and nothing written."""
    file = tmp_path / "wrong.yaml"
    file.write_text(SPEC.replace("objective: 99.9", "objective: 100").replace("total_query", "totl_query"))
    for how in (["--python"], ["-o", str(tmp_path / "rules")]):
        result = slo("import", "sloth", str(file), *how, settings=project)
        assert (result.exit_code, result.stdout) == (2, "")
        lines = result.stderr.splitlines()
        assert len(lines) >= 2
        assert all(line.startswith(f"error: {file}:") for line in lines)
        assert any("totl_query" in line for line in lines)
    assert not (tmp_path / "rules").exists()


def test_slos_in_each_others_way_are_told(project: Path, tmp_path: Path) -> None:
    """Two SLOs of one alert name: no rules are written that would fight."""
    again = SPEC.partition("slos:\n")[2].replace("name: requests", "name: more-requests")
    file = tmp_path / "twice.yaml"
    file.write_text(SPEC + again)
    result = slo("import", "sloth", str(file), "-o", str(tmp_path / "rules"), settings=project)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "has the alert 'CheckoutBurnsPage', as checkout/more-requests has" in result.stderr
    assert not (tmp_path / "rules").exists()


@pytest.mark.parametrize("content", [b"\xff\xfe", b"", b"- 1\n", b"{", b"version: other/v1\n"])
def test_a_file_of_another_kind_is_an_error(tmp_path: Path, content: bytes) -> None:
    """No traceback, whatever the file holds."""
    file = tmp_path / "other.yaml"
    file.write_bytes(content)
    result = slo("import", "sloth", str(file), "--python")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("error: ")


@pytest.mark.parametrize("how", [[], ["--python", "-o", "rules"]])
def test_exactly_one_of_rules_and_definitions(project: Path, spec: Path, how: list[str]) -> None:
    """Neither or both is wrong usage: it says what to give, with exit code 2."""
    result = slo("import", "sloth", str(spec), *how, settings=project)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "give -o DIR for rules, or --python for definitions" in result.stderr


def test_a_missing_file_is_wrong_usage(project: Path) -> None:
    """By its name, with exit code 2."""
    result = slo("import", "sloth", "missing.yaml", "--python", settings=project)
    assert result.exit_code == 2
    assert "'missing.yaml' does not exist" in result.stderr
