"""Settings are checked once, at the start, and all faults are told together without telling a secret."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from opentelemetry.trace import NoOpTracer

from service import parts
from service.ledger import Told
from service.settings import Settings, described, from_environment, refusals_to_serve
from slo import SloError


def test_an_empty_environment_gives_the_defaults() -> None:
    """Nothing has to be set; variables of other programs and empty ones are not ours."""
    assert from_environment({"PATH": "/bin", "REDEMPTION_PORT": ""}) == Settings()


@pytest.mark.parametrize(
    ("url", "address", "port"),
    [
        ("postgresql://app:secret@db.example.com:6432/x", "db.example.com", 6432),
        ("postgresql://app:secret@db.example.com/x", "db.example.com", None),
        ("postgresql://app:secret@[::1]/x", "::1", None),
        ("postgresql://app:secret@[::1]:6432/x", "::1", 6432),
        ("postgresql://app:secret@[::1],[::2]:6432/x", "::1", None),
        ("postgresql://app:secret@/x?host=a,b&port=1,2", None, None),
    ],
)
def test_a_database_url_that_is_taken_can_be_used(url: str, address: str | None, port: int | None) -> None:
    """The database is made from every kind of URL that the settings take, and its spans name the server."""
    settings = from_environment({"REDEMPTION_DATABASE_URL": url})
    attributes = parts.ledger(settings, NoOpTracer(), Told()).database._span_attributes
    named = {"server.address": address, "server.port": port}
    assert {name: value for name, value in attributes.items() if name in named} == {
        name: value for name, value in named.items() if value is not None
    }


@pytest.fixture
def present(tmp_path: Path) -> Path:
    """A file that is there."""
    path = tmp_path / "file"
    path.write_text("x" * 32)
    return path


def test_every_setting_is_read(present: Path) -> None:
    """Each variable reaches its attribute, as a value of the right type."""
    told: dict[str, tuple[str, object]] = {
        "database_url": ("postgresql://app:secret@/redemption?host=a,b&port=1,2", ...),
        "migration_database_url": ("postgres:///redemption?host=/run/postgresql", ...),
        "database_ca_file": (str(present), present),
        "host": ("0.0.0.0", ...),
        "port": ("0", 0),
        "in_flight_max": ("1", 1),
        "pool_max": ("3", 3),
        "batch_max": ("7", 7),
        "deadline_seconds": ("0.5", 0.5),
        "abandon_seconds": ("30", 30.0),
        "drain_seconds": ("5", 5.0),
        "shutdown_seconds": ("7", 7.0),
        "jwks_url": ("https://issuer.example.com/jwks.json", ...),
        "jwks_ca_file": (str(present), present),
        "jwt_issuer": ("https://issuer.example.com", ...),
        "jwt_audience": ("redemption", ...),
        "jwt_algorithms": ("ES256, RS256", ("ES256", "RS256")),
        "signing_key": ("s" * 32, b"s" * 32),
        "client_requests_per_second": ("12.5", 12.5),
        "client_burst": ("20", 20),
        "valkey_url": ("rediss://user:secret@one:6379,two:6379", ...),
        "valkey_ca_file": (str(present), present),
        "queue_url": ("https://sqs.eu-central-1.amazonaws.com/1/queue", ...),
        "dead_letter_queue_url": ("https://sqs.eu-central-1.amazonaws.com/1/dead", ...),
        "queue_endpoint_url": ("http://127.0.0.1:5000", ...),
        "deferred_seconds": ("60", 60.0),
        "verify_seconds": ("120", 120.0),
        "embedded_metrics": ("off", False),
        "log_hash_key": ("k" * 32, b"k" * 32),
    }
    settings = from_environment({f"REDEMPTION_{name.upper()}": text for name, (text, _) in told.items()})
    assert told.keys() == {field.name for field in dataclasses.fields(Settings)} - {"jwks_file"}  # which goes alone
    for name, (text, value) in told.items():
        assert getattr(settings, name) == (text if value is ... else value), name
    file = {"JWKS_FILE": str(present), "JWT_ISSUER": "i", "JWT_AUDIENCE": "a"}
    assert from_environment({f"REDEMPTION_{name}": text for name, text in file.items()}).jwks_file == present


def test_all_faults_are_told_at_once_and_no_value() -> None:
    """One run names every wrong and unknown variable, and repeats none of their values."""
    environment = {
        "REDEMPTION_DATABASE_URL": "mysql://app:pa55word@host/x",
        "REDEMPTION_MIGRATION_DATABASE_URL": "postgresql://host:pa55word/x",
        "REDEMPTION_DATABASE_CA_FILE": "/nowhere/pa55word",
        "REDEMPTION_HOST": "  ",
        "REDEMPTION_PORT": "65536",
        "REDEMPTION_IN_FLIGHT_MAX": "0",
        "REDEMPTION_POOL_MAX": "²",
        "REDEMPTION_DEADLINE_SECONDS": "nan",
        "REDEMPTION_ABANDON_SECONDS": "inf",
        "REDEMPTION_SHUTDOWN_SECONDS": "soon",
        "REDEMPTION_JWKS_URL": "http://issuer.example.com/pa55word",
        "REDEMPTION_JWT_ALGORITHMS": "ES256,HS256",
        "REDEMPTION_SIGNING_KEY_FILE": "/nowhere/pa55word",
        "REDEMPTION_VALKEY_URL": "memcached://pa55word@host",
        "REDEMPTION_QUEUE_URL": "queue-pa55word",
        "REDEMPTION_CLIENT_REQUESTS_PER_SECOND": "0",
        "REDEMPTION_EMBEDDED_METRICS": "pa55word",
        "REDEMPTION_LOG_HASH_KEY": "pa55word",
        "REDEMPTION_DEDLINE_SECONDS": "pa55word",
    }
    with pytest.raises(SloError) as caught:
        from_environment(environment)
    assert len(caught.value.problems) == len(environment)
    for name in environment:
        assert f"{name}: " in str(caught.value)
    assert "pa55word" not in str(caught.value)


@pytest.mark.parametrize(
    ("environment", "word"),
    [
        ({"JWKS_URL": "https://a.example/k", "JWKS_FILE": __file__, "JWT_ISSUER": "i", "JWT_AUDIENCE": "a"}, "one of"),
        ({"JWKS_URL": "https://a.example/k", "JWT_ISSUER": "i"}, "JWT_AUDIENCE: missing"),
        ({"VALKEY_URL": "redis://host:1", "VALKEY_CA_FILE": __file__}, "rediss://"),
        ({"DEAD_LETTER_QUEUE_URL": "https://sqs.example.com/1/dead"}, "goes with REDEMPTION_QUEUE_URL"),
    ],
)
def test_settings_that_contradict_each_other_are_faults(environment: dict[str, str], word: str) -> None:
    """What makes no sense together is told like a wrong value."""
    with pytest.raises(SloError, match=word):
        from_environment({f"REDEMPTION_{name}": text for name, text in environment.items()})


def test_a_secret_may_stand_in_a_file(tmp_path: Path) -> None:
    """As Kubernetes mounts it, with a line's end; a setting that is no secret takes no file."""
    path = tmp_path / "key"
    path.write_text("s" * 32 + "\n")
    assert from_environment({"REDEMPTION_SIGNING_KEY_FILE": str(path)}).signing_key == b"s" * 32
    with pytest.raises(SloError, match="REDEMPTION_PORT_FILE: unknown"):
        from_environment({"REDEMPTION_PORT_FILE": str(path)})


def test_nobody_is_served_unasked_but_in_the_demo(present: Path) -> None:
    """Without the callers' keys only a service with a database of its own runs, and on loopback only."""
    known = Settings(database_url="postgresql://a@b/c", jwks_file=present, jwt_issuer="i", jwt_audience="a")
    assert refusals_to_serve(known) == []
    assert refusals_to_serve(Settings()) == []
    assert refusals_to_serve(Settings(host="::1")) == []
    for wrong, name in (
        (Settings(database_url="postgresql://a@b/c"), "REDEMPTION_JWKS_URL"),
        (Settings(host="0.0.0.0"), "REDEMPTION_HOST"),
        (Settings(host="shop.example.com"), "REDEMPTION_HOST"),
    ):
        [refusal] = refusals_to_serve(wrong)
        assert name in refusal


def test_secrets_are_not_shown() -> None:
    """The settings' representation, which ends up in tracebacks, holds no URL and no key."""
    settings = Settings(
        database_url="postgresql://a:pa55word@b/c",
        migration_database_url="postgresql://a:pa55word@b/c",
        valkey_url="redis://:pa55word@b",
        signing_key=b"pa55word",
        log_hash_key=b"pa55word",
    )
    assert "pa55word" not in repr(settings)
    assert "port=8080" in repr(settings)


def test_the_help_names_every_variable() -> None:
    """`--help` tells each variable and its default."""
    for field in dataclasses.fields(Settings):
        assert f"REDEMPTION_{field.name.upper()}" in described()
    assert "[8080]" in described()
    assert "once a minute: on or off [on]" in described()
