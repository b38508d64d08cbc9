"""The pipeline's examples in docs/examples: what they run is run here, and what they name is there."""

from __future__ import annotations

import os
import re
import subprocess
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import yaml

from alerts import canary
from slo import compile_slo
from slo.definitions import redemption
from tests.cli.running import SCRIPT, slo
from tests.contract.places import ROOT
from tests.slo.project import SHOP, make_project

EXAMPLES = ROOT / "docs" / "examples"
WORKFLOW = yaml.load((EXAMPLES / "github-actions.yaml").read_text(), Loader=yaml.BaseLoader)  # noqa: S506 - plain strings
JOBS: dict[str, Any] = WORKFLOW["jobs"]


def steps(job: str) -> list[dict[str, Any]]:
    """The steps of a job."""
    found: list[dict[str, Any]] = JOBS[job]["steps"]
    return found


def script(job: str, name: str) -> str:
    """What a step runs, for the shop instead of ours."""
    (found,) = (step["run"] for step in steps(job) if step.get("name") == name)
    return str(found).replace("redemption", "shop")


def run(text: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a step as GitHub runs one with `shell: bash`."""
    known = {**os.environ, "GITHUB_STEP_SUMMARY": str(folder / "summary.md"), **environment}
    command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", text]
    return subprocess.run(command, cwd=folder, env=known, capture_output=True, text=True, check=False, timeout=60)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A shop with a stricter promise than the one that is committed, and an hour of its traffic."""
    folder = tmp_path / "shop"
    settings = make_project(folder)
    assert slo("generate", settings=settings).exit_code == 0
    for command in (["init"], ["add", "."], ["commit", "--message", "as it was"]):
        whole = ["git", "-c", "user.name=a", "-c", "user.email=a@shop.test", *command]
        subprocess.run(whole, cwd=folder, check=True, capture_output=True)
    make_project(folder, files={"promises/shop.py": SHOP.replace('Decimal("99.9")', 'Decimal("99.99")')})
    rows = (f"{1_769_904_000 + 60 * minute},600,{300 if 30 <= minute < 32 else 0}" for minute in range(60))
    (folder / "traffic.csv").write_text("\n".join(["time,all,bad", *rows]))
    (folder / ".venv/bin").mkdir(parents=True)
    (folder / ".venv/bin/slo").symlink_to(SCRIPT)
    return folder


def test_each_job_may_do_what_it_needs_and_no_more() -> None:
    """Nothing by default; only the job that comments may write, and only to pull requests."""
    assert WORKFLOW["permissions"] == {}
    assert {name: job["permissions"] for name, job in JOBS.items()} == {
        "diff": {"contents": "read", "pull-requests": "write"},
        "gate": {"contents": "read"},
    }
    assert all("timeout-minutes" in job for job in JOBS.values())
    checkouts = [step for job in JOBS for step in steps(job) if step.get("uses", "").startswith("actions/checkout@")]
    assert [step["with"]["persist-credentials"] for step in checkouts] == ["false", "false"]


def test_no_text_of_others_becomes_a_command() -> None:
    """What a pull request brings comes as a variable of the environment, never into a script."""
    for job in JOBS:
        assert all("${{" not in step.get("run", "") for step in steps(job))


def test_every_action_asks_to_be_pinned() -> None:
    """By its commit, which nobody can look up without a network; until then its line says so."""
    text = (EXAMPLES / "github-actions.yaml").read_text()
    uses = re.findall(r"uses: (\S+) # (.+)", text)
    assert len(uses) == sum("uses" in step for job in JOBS for step in steps(job))
    for action, comment in uses:
        assert re.fullmatch(r"actions/[a-z-]+@v\d+", action)
        assert comment == "pin its commit"


def test_a_piped_step_fails_with_its_first_command() -> None:
    """Only with pipefail does the exit code of the gate reach GitHub."""
    piped = [step for job in JOBS for step in steps(job) if re.search(r"[^|]\|[^|]", step.get("run", ""))]
    assert piped
    assert all(step.get("shell") == "bash" for step in piped)


def test_the_diff_step_writes_the_comment(checkout: Path) -> None:
    """The change in words, and before and after on the traffic, in the file that is posted and in the summary."""
    done = run(script("diff", "Say what changes"), checkout, BASE="HEAD")
    assert done.returncode == 0, done.stderr
    text = (checkout / "changes.md").read_text()
    assert text.startswith("**shop/availability**\n")
    assert "- promises 99.99 % over 30 days instead of 99.9 %" in text
    assert "| pages | " in text
    assert (checkout / "summary.md").read_text() == text


def test_the_gate_step_fails_when_nothing_is_known(checkout: Path) -> None:
    """Exit code 3 through the pipe, for want of a Prometheus; a wrong kind of change is 2."""
    gate = script("gate", "May it go out?")
    nobody = {"PROMETHEUS": "http://127.0.0.1:9", "SLO_PROMETHEUS_BEARER_TOKEN": "secret"}
    assert run(gate, checkout, CHANGE="feature", **nobody).returncode == 3
    assert run(gate, checkout, CHANGE="party", **nobody).returncode == 2


def test_make_has_the_words_that_the_workflow_uses() -> None:
    """`make setup check` is how the environment gets there."""
    words = re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE)
    runs = [step["run"].split() for job in JOBS for step in steps(job) if "run" in step]
    made = {word for first, *rest in runs if first == "make" for word in rest}
    assert made == {"setup", "check"}
    assert made <= set(words)


def test_the_rollout_uses_the_template_that_is_generated() -> None:
    """Its name, and every argument that has no default; and the label by which releases are told apart is scraped."""
    rollout, monitor = yaml.safe_load_all((EXAMPLES / "rollout.yaml").read_text())
    (artefact,) = canary.render([compile_slo(redemption.availability)])
    template = yaml.safe_load(artefact.text)
    strategy = rollout["spec"]["strategy"]["canary"]
    assert [one["templateName"] for one in strategy["analysis"]["templates"]] == [template["metadata"]["name"]]
    given = {one["name"] for one in strategy["analysis"]["args"]}
    known = {one["name"]: one.get("value") for one in template["spec"]["args"]}
    assert {name for name, default in known.items() if default is None} <= given <= set(known)
    # Prometheus writes a label of Kubernetes with underscores.
    labels = [label.replace("-", "_") for label in monitor["spec"]["podTargetLabels"]]
    assert labels == [canary.RELEASE_LABEL]
    assert Decimal(str(strategy["steps"][-1]["setWeight"])) == 100
