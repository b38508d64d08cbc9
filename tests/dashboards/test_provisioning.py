"""Grafana, its operator and Docker find the boards: files that they accept, and that agree with each other."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
import yaml
from jsonschema import Draft7Validator

from cli.generate import artefacts
from dashboards import provisioning
from dashboards.render import render
from drills.harness import tool
from service.settings import from_environment
from slo.settings import Links, load
from tests.contract.places import ROOT
from tests.dashboards.conftest import ALL_OURS, LINKS, OURS

_SCHEMAS = Path(__file__).parent / "schema"
_FILES = {artefact.path: artefact.text for artefact in render(ALL_OURS, LINKS, OURS)}
_UIDS = [path.stem for path in _FILES if path.suffix == ".json"]


def _read(path: str) -> Any:  # noqa: ANN401 - YAML is what its writer makes it
    return yaml.safe_load(_FILES[PurePosixPath(path)])


_COMPOSE = _read("compose/compose.yaml")
_OBJECTS = [yaml.safe_load(text) for path, text in _FILES.items() if path.parent == PurePosixPath("grafana/operator")]


# --- Grafana's own files ----------------------------------------------------------------------------------------------


def test_grafana_gets_its_data_source_from_its_environment() -> None:
    """The address is a variable; its default data source is the Prometheus that boards choose at first."""
    (source,) = _read("grafana/provisioning/datasources/prometheus.yaml")["datasources"]
    assert source["url"] == "$PROMETHEUS_URL"
    assert (source["type"], source["isDefault"], source["editable"]) == ("prometheus", True, False)


@pytest.mark.parametrize(
    ("region", "url"),
    [
        ("", "https://traces.example.com/trace/$${__value.raw}"),
        ("eu-central-1", "https://traces.example.com?region=eu-central-1#xray:traces/$${__value.raw}"),
    ],
    ids=["jaeger", "xray"],
)
def test_an_exemplar_leads_to_its_trace(region: str, url: str) -> None:
    """In Grafana's own files a dollar that is to stay is written twice."""
    links = Links(grafana=LINKS.grafana, runbooks=LINKS.runbooks, traces=LINKS.traces, logs=LINKS.logs, region=region)
    (text,) = (one.text for one in provisioning.render([], links) if one.path.name == "prometheus.yaml")
    (source,) = yaml.safe_load(text)["datasources"]
    (destination,) = source["jsonData"]["exemplarTraceIdDestinations"]
    assert (destination["name"], destination["url"]) == ("trace_id", url)


def test_grafana_reads_the_boards_from_where_compose_puts_them() -> None:
    """The provider's folder is the one that is mounted, and the provisioning folder is where Grafana looks."""
    (provider,) = _read("grafana/provisioning/dashboards/slo.yaml")["providers"]
    mounts = _COMPOSE["services"]["grafana"]["volumes"]
    assert f"../grafana:{provider['options']['path']}:ro" in mounts
    assert "../grafana/provisioning:/etc/grafana/provisioning:ro" in mounts
    assert "PROMETHEUS_URL" in _COMPOSE["services"]["grafana"]["environment"]


# --- the operator -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("thing", _OBJECTS, ids=lambda thing: f"{thing['kind']}-{thing['metadata']['name']}")
def test_the_operator_accepts_every_object(thing: dict[str, Any]) -> None:
    """Objects have the fields of the operator's own types, and none that it would drop."""
    schema = json.loads((_SCHEMAS / "grafana-operator.schema.json").read_text())
    assert thing["apiVersion"] == "grafana.integreatly.org/v1beta1"
    kind = {"$ref": f"#/definitions/{thing['kind']}", "definitions": schema["definitions"]}
    assert [error.message for error in Draft7Validator(kind).iter_errors(thing["spec"])] == []
    assert re.fullmatch(r"[a-z0-9-]{1,63}", thing["metadata"]["name"])


def test_the_operator_knows_every_board_once() -> None:
    """Each board is an object that names a config map which is made of the board's own file."""
    made = {one["name"]: one["files"] for one in _read("grafana/kustomization.yaml")["configMapGenerator"]}
    boards = [thing["spec"]["configMapRef"] for thing in _OBJECTS if thing["kind"] == "GrafanaDashboard"]
    assert sorted(one["key"] for one in boards) == sorted(f"{uid}.json" for uid in _UIDS)
    assert all(made[one["name"]] == [one["key"]] for one in boards)
    resources = set(_read("grafana/kustomization.yaml")["resources"])
    assert resources == {f"operator/{path.name}" for path in _FILES if path.parent.name == "operator"}


def test_a_board_fits_into_a_config_map() -> None:
    """Kubernetes takes at most 1 MiB; half of it leaves room."""
    assert max(len(text.encode()) for path, text in _FILES.items() if path.suffix == ".json") < 512 * 1024


@pytest.mark.cluster
def test_kustomize_builds_what_is_there(tmp_path: Path) -> None:
    """`kubectl kustomize` makes all objects, and a config map for each board."""
    for path, text in _FILES.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    built = subprocess.run(
        [tool("kubectl"), "kustomize", tmp_path / "grafana"], capture_output=True, text=True, check=True
    )
    kinds = [thing["kind"] for thing in yaml.safe_load_all(built.stdout)]
    assert kinds.count("ConfigMap") == kinds.count("GrafanaDashboard") == len(_UIDS)


# --- Docker -----------------------------------------------------------------------------------------------------------


def test_the_compose_file_keeps_to_the_specification() -> None:
    """Every key and type is one of the Compose Specification's own schema."""
    schema = json.loads((_SCHEMAS / "compose-spec.schema.json").read_text())
    assert [f"{one.json_path}: {one.message}" for one in Draft7Validator(schema).iter_errors(_COMPOSE)] == []


def test_every_image_has_a_version() -> None:
    """An image is pinned, or its name is the reader's own; none is `latest`."""
    for service in _COMPOSE["services"].values():
        assert re.search(r":v?\d+(\.\d+)+$", service["image"]) or service["image"].startswith("${REDEMPTION_IMAGE:?")


def test_versions_are_those_that_the_tests_run() -> None:
    """Prometheus and Alertmanager are of the versions that are built from tools/; a new one changes both."""
    for name, module in (("prometheus", "prometheus/prometheus"), ("alertmanager", "prometheus/alertmanager")):
        text = (Path(__file__).parents[2] / "tools" / name / "go.mod").read_text()
        version = re.search(rf"^require github.com/{module} v(\S+)$", text, re.MULTILINE)
        assert version
        # Prometheus 3.5.0 is the module v0.305.0.
        major, minor, patch = version[1].split(".")
        number = f"{minor[0]}.{int(minor[1:])}.{patch}" if (name, major) == ("prometheus", "0") else version[1]
        assert _COMPOSE["services"][name]["image"].endswith(f":v{number}")


def test_no_secret_is_in_the_compose_file() -> None:
    """Secrets are files of a folder that the reader names; each that a service asks for is declared."""
    declared = {name: one["file"] for name, one in _COMPOSE["secrets"].items()}
    assert all(file.startswith("${SECRETS_DIR:?") and file.endswith(f"/{name}") for name, file in declared.items())
    for service in _COMPOSE["services"].values():
        assert set(service.get("secrets", [])) <= set(declared)
        for name, value in service.get("environment", {}).items():
            if re.search("PASSWORD|KEY|DATABASE_URL|JWKS", name):
                assert value.startswith("/run/secrets/"), name
                assert value.removeprefix("/run/secrets/") in service["secrets"]


def test_every_file_that_is_mounted_is_generated() -> None:
    """A relative mount is a file or a folder of what `slo generate` writes, whoever writes it."""
    settings = load(ROOT / "pyproject.toml")
    written = {artefact.path for artefact in artefacts(ALL_OURS, settings, OURS)}
    for service in _COMPOSE["services"].values():
        for mount in service.get("volumes", []):
            source = mount.split(":")[0]
            if source.startswith("."):
                inside = PurePosixPath(*_resolved(PurePosixPath("compose", source).parts))
                assert any(inside in (file, *file.parents) for file in written), mount


def _resolved(parts: tuple[str, ...]) -> list[str]:
    found: list[str] = []
    for part in parts:
        if part == "..":
            found.pop()
        else:
            found.append(part)
    return found


def test_ports_are_open_to_this_machine_only() -> None:
    """Neither Prometheus nor Alertmanager asks who comes."""
    for service in _COMPOSE["services"].values():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))


@pytest.mark.parametrize("name", ["redemption", "worker"])
def test_the_service_understands_its_settings(name: str, tmp_path: Path) -> None:
    """The variables of service and worker are read by the service itself, with secrets from files."""
    secrets = {
        "database-url": "postgresql://app@postgres/ledger",
        "signing-key": "ab" * 32,
        "jwks.json": "{}",
    }
    for file, text in secrets.items():
        (tmp_path / file).write_text(text)
    given = {
        variable: re.sub(r"\$\{\w+:-(.*)\}", r"\1", value).replace("/run/secrets", str(tmp_path))
        for variable, value in _COMPOSE["services"][name]["environment"].items()
    }
    settings = from_environment(given)
    assert settings.database_url == secrets["database-url"]
    assert (settings.host, settings.port) == ("0.0.0.0", 8080)


@pytest.mark.e2e
def test_prometheus_accepts_its_configuration(tmp_path: Path) -> None:
    """Nothing is wrong for promtool, and each target is a service of the compose file, or Prometheus itself."""
    file = tmp_path / "prometheus.yaml"
    file.write_text(_FILES[PurePosixPath("compose/prometheus.yaml")])
    checked = subprocess.run(
        [tool("promtool"), "check", "config", "--syntax-only", file], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
    config = yaml.safe_load(file.read_text())
    targets = [target for job in config["scrape_configs"] for one in job["static_configs"] for target in one["targets"]]
    hosts = {target.split(":")[0] for target in targets}
    assert hosts <= {*_COMPOSE["services"], "127.0.0.1"}
