"""Settings, and the definitions that they lead to: a team adds a folder, and every fault is told at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from slo import SloError
from slo.settings import Links, definitions, everything, find, load
from tests.contract.places import ROOT
from tests.slo.project import SETTINGS, SHOP, make_project


def problems_of(folder: Path, settings: str) -> tuple[str, ...]:
    """What is wrong with settings."""
    with pytest.raises(SloError) as raised:
        load(make_project(folder, settings))
    assert raised.value.subject == f"settings {folder / 'pyproject.toml'}"
    return raised.value.problems


# --- the settings file ------------------------------------------------------------------------------------------------


def test_settings_are_read_whole(tmp_path: Path) -> None:
    """Paths are below the settings file wherever one stands, and base URLs lose the slash at their end."""
    settings = load(make_project(tmp_path, SETTINGS.replace('["promises"]', '["promises"]\noutput = "out/generated"')))
    assert settings.root == tmp_path
    assert settings.definitions == ("promises",)
    assert settings.output == tmp_path / "out/generated"
    assert settings.links == Links(
        grafana="https://grafana.shop.example",
        runbooks="https://wiki.shop.example/runbooks",
        traces="https://traces.shop.example",
        logs="https://logs.shop.example",
    )


def test_the_output_folder_has_a_default(tmp_path: Path) -> None:
    """`generated`, beside the settings file."""
    assert load(make_project(tmp_path)).output == tmp_path / "generated"


def test_the_nearest_settings_are_found(tmp_path: Path) -> None:
    """Upwards from where one stands; a pyproject.toml without [tool.slo] is passed over."""
    outer = make_project(tmp_path)
    inner = make_project(tmp_path / "team", files={})
    (tmp_path / "other/deep").mkdir(parents=True)
    (tmp_path / "other/pyproject.toml").write_text("[tool.other]\n")
    assert find(tmp_path / "other/deep") == outer
    assert find(tmp_path / "team") == inner


def test_no_settings_is_an_error(tmp_path: Path) -> None:
    """It says what was looked for, and where."""
    with pytest.raises(SloError, match=r"no pyproject.toml with a \[tool.slo\] table in .* or above it"):
        find(tmp_path)


@pytest.mark.parametrize("text", ["[project]\nname = 'x'\n", "tool = 1\n", "[tool]\nslo = 1\n"])
def test_a_file_without_the_table_is_an_error(tmp_path: Path, text: str) -> None:
    """`--settings` may name any file; what is missing is named."""
    assert problems_of(tmp_path, text) == ("there is no [tool.slo] table",)


def test_a_file_that_is_no_toml_is_an_error(tmp_path: Path) -> None:
    """With the place, as the TOML reader gives it; and so is a file that is not there, or not text."""
    assert "line 1" in problems_of(tmp_path, "[tool.slo\n")[0]
    with pytest.raises(SloError, match="No such file"):
        load(tmp_path / "missing.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(SloError, match=r"binary\.toml: .*codec"):
        load(tmp_path / "binary.toml")


def test_all_faults_of_settings_are_told_at_once(tmp_path: Path) -> None:
    """Unknown keys, a wrong list, a wrong folder, unknown and missing links: one run."""
    text = """
        [tool.slo]
        definitions = []
        definition = "promises"
        output = "../generated"
        [tool.slo.links]
        grafana = "grafana.example.com"
        runbook = "https://wiki.example.com"
        traces = 3
        logs = "ftp://logs.example.com"
    """
    assert problems_of(tmp_path, text) == (
        "unknown key 'definition' in [tool.slo]; known are cloudwatch, definitions, links, output",
        "definitions must be a list of packages or folders, ['slo.definitions'] say",
        "output must be a folder of its own below the settings file, 'generated' say, not '../generated'",
        (
            "unknown key 'runbook' in [tool.slo.links]; known are grafana, runbooks, traces, logs, "
            "alertmanager, region, log_groups"
        ),
        "[tool.slo.links] grafana must be an http, https or file URL, not 'grafana.example.com'",
        "[tool.slo.links] runbooks must be an http, https or file URL, not None",
        "[tool.slo.links] traces must be an http, https or file URL, not 3",
        "[tool.slo.links] logs must be an http, https or file URL, not 'ftp://logs.example.com'",
    )


def test_links_may_lead_to_the_console_of_aws(tmp_path: Path) -> None:
    """With a region and log groups, and with an Alertmanager, where each is there."""
    more = 'alertmanager = "https://am.example.com/"\nregion = "eu-central-1"\nlog_groups = ["/slo/shop", "other"]\n'
    links = load(make_project(tmp_path, f"{SETTINGS.rstrip()}\n{more}")).links
    assert (links.alertmanager, links.region) == ("https://am.example.com", "eu-central-1")
    assert links.log_groups == ("/slo/shop", "other")
    assert not links.alarms


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        (
            'region = "Frankfurt"\nlog_groups = ["a"]',
            "region must be the code of a region, 'eu-central-1' say, not 'Frankfurt'",
        ),
        ("region = 3\nlog_groups = ['a']", "region must be the code of a region, 'eu-central-1' say, not 3"),
        (
            'region = "eu-west-1"',
            "log_groups must be a list of one or more log groups, ['/slo/redemption'] say, not None",
        ),
        (
            'region = "eu-west-1"\nlog_groups = ["a b"]',
            "log_groups must be a list of one or more log groups, ['/slo/redemption'] say, not ['a b']",
        ),
        ('log_groups = ["a"]', "log_groups are of Logs Insights, which needs a region as well, 'eu-central-1' say"),
        ('alertmanager = "here"', "alertmanager must be an http, https or file URL, not 'here'"),
    ],
)
def test_a_console_that_cannot_be_is_told(tmp_path: Path, lines: str, problem: str) -> None:
    """A region without log groups, or the other way round, would write links that open nothing."""
    assert problems_of(tmp_path, f"{SETTINGS.rstrip()}\n{lines}\n") == (f"[tool.slo.links] {problem}",)


@pytest.mark.parametrize(
    "output",
    [".", "..", "/", "", "/srv/x", "../x", "a/..", "a/../..", "./x", "a//b", "~", ".git", "a b", "C:\\x", "a/"],
)
def test_an_output_folder_that_may_hold_other_things_is_refused(tmp_path: Path, output: str) -> None:
    """`slo generate` removes what it did not write, so the folder is one of its own, below the settings file."""
    (problem,) = problems_of(tmp_path, SETTINGS.replace("[tool.slo]\n", f"[tool.slo]\noutput = '{output}'\n"))
    assert problem == f"output must be a folder of its own below the settings file, 'generated' say, not {output!r}"


@pytest.mark.parametrize(
    "url", ["", "grafana", "http:", "https://", "https:///path", "javascript:alert(1)", "https://[::1", "//host/path"]
)
def test_a_link_that_leads_nowhere_is_refused(tmp_path: Path, url: str) -> None:
    """A page whose links do not open helps nobody at three in the morning."""
    (problem,) = problems_of(tmp_path, SETTINGS.replace("https://grafana.shop.example/", url))
    assert problem == f"[tool.slo.links] grafana must be an http, https or file URL, not {url!r}"


def test_links_may_be_files(tmp_path: Path) -> None:
    """In a demonstration the runbooks are files."""
    settings = SETTINGS.replace("https://wiki.shop.example/runbooks", "file:///srv/runbooks")
    assert load(make_project(tmp_path, settings)).links.runbooks == "file:///srv/runbooks"


def test_links_are_required(tmp_path: Path) -> None:
    """All four, as every alert and runbook uses them."""
    assert problems_of(tmp_path, "[tool.slo]\ndefinitions = ['promises']\n") == (
        "there is no [tool.slo.links] table; alerts without links help nobody",
    )


# --- definitions ------------------------------------------------------------------------------------------------------


def found(folder: Path, sources: str, **files: str) -> list[str]:
    """The ids that definitions in these files give."""
    paths = {path.replace("__", "/") + ".py": text for path, text in files.items()}
    settings = load(make_project(folder, SETTINGS.replace('["promises"]', sources), paths))
    return [slo.id_path for slo in definitions(settings)]


def told(folder: Path, sources: str, **files: str) -> list[str]:
    """What is wrong with definitions in these files, without the folder."""
    with pytest.raises(SloError) as raised:
        found(folder, sources, **files)
    return str(raised.value).replace(f"{folder}/", "").splitlines()


def test_a_folder_of_definitions_is_all_that_a_team_adds(tmp_path: Path) -> None:
    """No package, no registration: Python files in a folder, with metrics of their own."""
    other = SHOP.replace('service="shop"', 'service="till"')
    assert found(tmp_path, '["promises"]', promises__shop=SHOP, promises__till=other) == [
        "shop/availability",
        "till/availability",
    ]


def test_packages_and_folders_may_be_mixed(tmp_path: Path) -> None:
    """Ours and a team's: all of them, sorted by id, whatever the order of the settings."""
    everything = found(tmp_path, '["promises", "slo.definitions"]', promises__shop=SHOP)
    assert everything == sorted(everything)
    assert {"shop/availability", "redemption/availability", "redemption/settlement"} <= set(everything)


def test_our_own_settings_lead_to_our_definitions() -> None:
    """What this repository's pyproject.toml says is what `slo generate` reads."""
    ours = [slo.id_path for slo in definitions(load(ROOT / "pyproject.toml"))]
    assert {one.partition("/")[0] for one in ours} == {"edge", "eks", "queue", "rds", "redemption", "redis"}
    assert [one for one in ours if one.startswith("redemption/")] == [
        "redemption/availability",
        "redemption/capture-and-refund",
        "redemption/integrity",
        "redemption/latency-fast",
        "redemption/latency-slow",
        "redemption/sealing",
        "redemption/settlement",
        "redemption/verification",
    ]


def test_causes_sources_and_what_is_uncovered_are_found_as_well(tmp_path: Path) -> None:
    """Alone or in a collection; a module with a cause and no promise is no empty one."""
    text = """
from datetime import timedelta
from decimal import Decimal
from slo import Gauge
from slo.causes import Cause, Component, Signal, Source, Threshold, Uncovered

FREE = Gauge("disk_free_ratio", "Free part of the disk.")
sources = [Source(component=Component.RDS, process="exporter", metrics=(FREE,))]
nothing = Uncovered(component=Component.RDS, signal=Signal.TRAFFIC, reason="The shop counts it.")
causes = (
    Cause(
        component=Component.RDS,
        signal=Signal.SATURATION,
        name="disk",
        summary="The disk is full.",
        condition=Threshold(gauge=FREE.where(), below=Decimal("0.1")),
        hold=timedelta(minutes=5),
        reason="AWS says so.",
        owner="data",
        diagnosis=("df -h",),
        mitigation="Grow it.",
    ),
)
"""
    defined = everything(load(make_project(tmp_path, files={"promises/disk.py": text})))
    assert (defined.slos, [cause.id_path for cause in defined.causes]) == ((), ["rds/disk"])
    assert [one.reason for one in defined.uncovered] == ["The shop counts it."]
    assert [source.process for source in defined.sources] == ["exporter"]


def test_an_slo_with_two_names_is_one_slo(tmp_path: Path) -> None:
    """A module may keep its SLOs in a tuple, a list or a dict as well, and a source may be named twice."""
    more = "\nsame = availability\nALL = (availability,)\nLISTED = [availability]\nNAMED = {'a': availability}\n"
    assert found(tmp_path, '["promises", "promises"]', promises__shop=SHOP + more) == ["shop/availability"]


@pytest.mark.parametrize("collection", ["(one,)", "[one]", "{'a': one}"])
def test_slos_in_a_collection_are_found(tmp_path: Path, collection: str) -> None:
    """A promise that was written and not found would be broken in silence."""
    text = SHOP.replace("availability = Slo(", "one = Slo(") + f"\nALL = {collection}\ndel one\n"
    assert found(tmp_path, '["promises"]', promises__shop=text) == ["shop/availability"]


def test_faults_of_several_modules_are_told_in_one_run(tmp_path: Path) -> None:
    """Each with its file: two wrong definitions, a module that breaks, one that is no Python, and a package too few."""
    lines = told(
        tmp_path,
        '["promises", "no.such.package", "../else where"]',
        promises__a_wrong=SHOP.replace('"99.9"', '"100"').replace("shop-team", " "),
        promises__b_breaks="raise RuntimeError('out of paint')\n",
        promises__c_fine=SHOP,
        promises__d_typo="def (:\n",
        promises__e_unknown=SHOP.replace('code="error"', 'code="errors"'),
    )
    beginnings = (
        "definitions: promises/a_wrong.py: SLO shop/availability: the owner is empty; say who answers for it",
        "SLO shop/availability: the objective 100 % is not allowed; it must be above 0 and below 100",
        "definitions: promises/b_breaks.py: cannot be imported: RuntimeError: out of paint",
        "definitions: promises/d_typo.py: cannot be imported: SyntaxError: invalid syntax (d_typo.py, line 1)",
        "definitions: promises/e_unknown.py: selection from shop_requests_total: label 'code' never has",
        "definitions: no.such.package: cannot be imported: ModuleNotFoundError: No module named 'no'",
        f"definitions: '../else where': is neither a folder below {tmp_path} nor the name of a package",
    )
    assert len(lines) == len(beginnings)
    for line, beginning in zip(lines, beginnings, strict=True):
        assert line.startswith(beginning)


def test_a_source_without_definitions_is_an_error(tmp_path: Path) -> None:
    """A misspelled or emptied folder must not read as "no promises", which would remove every alert."""
    (tmp_path / "empty").mkdir()
    assert told(tmp_path, '["promises", "empty", "slo.errors"]', promises__shop=SHOP) == [
        "definitions: 'empty': defines no SLO",
        "definitions: 'slo.errors': defines no SLO",
    ]


def test_a_package_breaks_with_its_own_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every module of a package is read, and the one that breaks is named."""
    settings = load(make_project(tmp_path, SETTINGS.replace("promises", "their_promises"), {}))
    package = {"__init__.py": "", "good.py": SHOP, "bad.py": "import nothing_like_it\n"}
    make_project(tmp_path / "lib", files={f"their_promises/{name}": text for name, text in package.items()})
    monkeypatch.syspath_prepend(tmp_path / "lib")
    with pytest.raises(SloError) as raised:
        definitions(settings)
    assert str(raised.value) == (
        "definitions: their_promises.bad: cannot be imported: ModuleNotFoundError: No module named 'nothing_like_it'"
    )
