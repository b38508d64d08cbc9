"""A `docker compose` of the whole: service, worker, ledger, Prometheus, Alertmanager and Grafana with the boards.

For those with Docker; no script is needed. Secrets are files of a folder that `SECRETS_DIR` names, and nowhere else.
Checked against the schema of the Compose Specification (tests/dashboards/schema); no Docker has run it here.
"""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any

from dashboards import provisioning
from dashboards.provisioning import as_yaml
from slo.artefacts import Artefact

_FOLDER = PurePosixPath("compose")

# The versions that the tests run (tools/*/go.mod), and that the boards' schema is of.
_PROMETHEUS_IMAGE = "prom/prometheus:v3.16.0"
_ALERTMANAGER_IMAGE = "prom/alertmanager:v0.31.0"
_GRAFANA_IMAGE = "grafana/grafana:13.2.3"
_POSTGRES_IMAGE = "postgres:18.1"
_SERVICE_IMAGE = "${REDEMPTION_IMAGE:?an image that has this project's wheel installed}"

_SECRETS = "${SECRETS_DIR:?a folder with the secrets}"
_SECRET_FILES = (
    "database-url",
    "grafana-admin-password",
    "jwks.json",
    "migration-database-url",
    "postgres-password",
    "signing-key",
)
_HEADER = f"""\
# export SECRETS_DIR=...  # {", ".join(_SECRET_FILES)}; and alertmanager/ with what its configuration names
# export REDEMPTION_IMAGE=...  # built from this repository's wheel
# docker compose --file generated/compose/compose.yaml up --detach
"""

_SCRAPE_SECONDS = 15
_SERVICE_PORT, _PROMETHEUS_PORT, _ALERTMANAGER_PORT, _GRAFANA_PORT = 8080, 9090, 9093, 3000


def render() -> list[Artefact]:
    """The compose file, and the configuration of its Prometheus."""
    return [
        as_yaml(_FOLDER / "compose.yaml", _compose(), _HEADER),
        as_yaml(_FOLDER / "prometheus.yaml", _prometheus()),
    ]


def _compose() -> dict[str, Any]:
    return {
        "name": "slo-platform",
        "services": {
            "postgres": {
                "image": _POSTGRES_IMAGE,
                "environment": {"POSTGRES_DB": "ledger", "POSTGRES_PASSWORD_FILE": _secret("postgres-password")},
                "secrets": ["postgres-password"],
                "volumes": ["ledger:/var/lib/postgresql"],
                "healthcheck": {
                    "test": ["CMD", "pg_isready", "--dbname=ledger"],
                    "interval": "5s",
                    "timeout": "3s",
                    "retries": 12,
                },
                "restart": "unless-stopped",
            },
            "migrate": {
                "image": _SERVICE_IMAGE,
                "command": ["redemption-service", "migrate"],
                "environment": {"REDEMPTION_MIGRATION_DATABASE_URL_FILE": _secret("migration-database-url")},
                "secrets": ["migration-database-url"],
                "depends_on": {"postgres": {"condition": "service_healthy"}},
                "restart": "no",
            },
            "redemption": _of_service("run"),
            "worker": _of_service("work"),
            "prometheus": {
                "image": _PROMETHEUS_IMAGE,
                "command": [
                    "--config.file=/etc/prometheus/prometheus.yaml",
                    "--storage.tsdb.path=/prometheus",
                    "--storage.tsdb.retention.time=60d",
                    "--enable-feature=exemplar-storage",
                ],
                "volumes": [
                    "./prometheus.yaml:/etc/prometheus/prometheus.yaml:ro",
                    "../prometheus/rules:/etc/prometheus/rules:ro",
                    "metrics:/prometheus",
                ],
                "ports": [_published(_PROMETHEUS_PORT)],
                "restart": "unless-stopped",
            },
            "alertmanager": {
                "image": _ALERTMANAGER_IMAGE,
                "command": ["--config.file=/etc/alertmanager/alertmanager.yaml", "--storage.path=/alertmanager"],
                "volumes": [
                    "../alertmanager/alertmanager.yaml:/etc/alertmanager/alertmanager.yaml:ro",
                    "../alertmanager/templates:/etc/alertmanager/templates:ro",
                    f"{_SECRETS}/alertmanager:/etc/alertmanager/secrets:ro",
                    "notifications:/alertmanager",
                ],
                "ports": [_published(_ALERTMANAGER_PORT)],
                "restart": "unless-stopped",
            },
            "grafana": {
                "image": _GRAFANA_IMAGE,
                "environment": {
                    "GF_SECURITY_ADMIN_PASSWORD__FILE": _secret("grafana-admin-password"),
                    "GF_ANALYTICS_REPORTING_ENABLED": "false",
                    provisioning.PROMETHEUS_URL: f"http://prometheus:{_PROMETHEUS_PORT}",
                },
                "secrets": ["grafana-admin-password"],
                "volumes": [
                    "../grafana/provisioning:/etc/grafana/provisioning:ro",
                    f"../grafana:{provisioning.BOARDS_FOLDER}:ro",
                    "boards:/var/lib/grafana",
                ],
                "ports": [_published(_GRAFANA_PORT)],
                "depends_on": ["prometheus"],
                "restart": "unless-stopped",
            },
        },
        "secrets": {name: {"file": f"{_SECRETS}/{name}"} for name in _SECRET_FILES},
        "volumes": {name: {} for name in ("boards", "ledger", "metrics", "notifications")},
    }


def _of_service(command: str) -> dict[str, Any]:
    return {
        "image": _SERVICE_IMAGE,
        "command": ["redemption-service", command],
        "environment": {
            "REDEMPTION_HOST": "0.0.0.0",  # noqa: S104 - all of its own container; only Prometheus can reach it
            "REDEMPTION_PORT": str(_SERVICE_PORT),
            "REDEMPTION_DATABASE_URL_FILE": _secret("database-url"),
            "REDEMPTION_SIGNING_KEY_FILE": _secret("signing-key"),
            "REDEMPTION_JWKS_FILE": _secret("jwks.json"),
            "REDEMPTION_JWT_ISSUER": "${REDEMPTION_JWT_ISSUER:-https://issuer.example.com}",
            "REDEMPTION_JWT_AUDIENCE": "${REDEMPTION_JWT_AUDIENCE:-redemption}",
        },
        "secrets": ["database-url", "signing-key", "jwks.json"],
        "depends_on": {"migrate": {"condition": "service_completed_successfully"}},
        "restart": "unless-stopped",
    }


def _secret(name: str) -> str:
    return f"/run/secrets/{name}"


def _published(port: int) -> str:
    """On this machine only: neither Prometheus nor Alertmanager asks who comes."""
    return f"127.0.0.1:{port}:{port}"


def _prometheus() -> dict[str, Any]:
    every = f"{_SCRAPE_SECONDS}s"
    return {
        "global": {"scrape_interval": every, "evaluation_interval": "30s"},
        "rule_files": ["/etc/prometheus/rules/*.yaml"],
        "alerting": {"alertmanagers": [{"static_configs": [{"targets": [f"alertmanager:{_ALERTMANAGER_PORT}"]}]}]},
        "scrape_configs": [
            _scrape("redemption", f"redemption:{_SERVICE_PORT}"),
            _scrape("worker", f"worker:{_SERVICE_PORT}"),
            _scrape("prometheus", f"127.0.0.1:{_PROMETHEUS_PORT}"),
        ],
    }


def _scrape(job: str, address: str) -> dict[str, Any]:
    return {"job_name": job, "static_configs": [{"targets": [address]}]}
