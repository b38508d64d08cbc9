"""Settings are checked once, at the start, and all faults are told together without telling a secret."""

from __future__ import annotations

import dataclasses

import pytest

from service.settings import Settings, described, from_environment
from slo import SloError


def test_an_empty_environment_gives_the_defaults() -> None:
    """Nothing has to be set; variables of other programs and empty ones are not ours."""
    assert from_environment({"PATH": "/bin", "REDEMPTION_PORT": ""}) == Settings()


def test_every_setting_is_read() -> None:
    """Each variable reaches its attribute, as a value of the right type."""
    environment = {
        "REDEMPTION_DATABASE_URL": "postgresql://app:secret@db.example.com/redemption",
        "REDEMPTION_MIGRATION_DATABASE_URL": "postgres:///redemption?host=/run/postgresql",
        "REDEMPTION_HOST": "0.0.0.0",
        "REDEMPTION_PORT": "0",
        "REDEMPTION_IN_FLIGHT_MAX": "1",
        "REDEMPTION_POOL_MAX": "3",
        "REDEMPTION_DEADLINE_SECONDS": "0.5",
        "REDEMPTION_ABANDON_SECONDS": "30",
        "REDEMPTION_SHUTDOWN_SECONDS": "7",
        "REDEMPTION_LOG_HASH_KEY": "k" * 32,
    }
    settings = from_environment(environment)
    assert len(environment) == len(dataclasses.fields(Settings))
    assert dataclasses.astuple(settings) == (
        *list(environment.values())[:3],
        *(0, 1, 3, 0.5, 30.0, 7.0, b"k" * 32),
    )


def test_all_faults_are_told_at_once_and_no_value() -> None:
    """One run names every wrong and unknown variable, and repeats none of their values."""
    environment = {
        "REDEMPTION_DATABASE_URL": "mysql://app:pa55word@host/x",
        "REDEMPTION_MIGRATION_DATABASE_URL": "postgresql://host:pa55word/x",
        "REDEMPTION_HOST": "  ",
        "REDEMPTION_PORT": "65536",
        "REDEMPTION_IN_FLIGHT_MAX": "0",
        "REDEMPTION_POOL_MAX": "²",
        "REDEMPTION_DEADLINE_SECONDS": "nan",
        "REDEMPTION_ABANDON_SECONDS": "inf",
        "REDEMPTION_SHUTDOWN_SECONDS": "soon",
        "REDEMPTION_LOG_HASH_KEY": "pa55word",
        "REDEMPTION_DEDLINE_SECONDS": "pa55word",
    }
    with pytest.raises(SloError) as caught:
        from_environment(environment)
    assert len(caught.value.problems) == len(environment)
    for name in environment:
        assert f"{name}: " in str(caught.value)
    assert "pa55word" not in str(caught.value)


def test_secrets_are_not_shown() -> None:
    """The settings' representation, which ends up in tracebacks, holds no URL and no key."""
    settings = Settings(
        database_url="postgresql://a:pa55word@b/c",
        migration_database_url="postgresql://a:pa55word@b/c",
        log_hash_key=b"pa55word",
    )
    assert "pa55word" not in repr(settings)
    assert "port=8080" in repr(settings)


def test_the_help_names_every_variable() -> None:
    """`--help` tells each variable and its default."""
    for field in dataclasses.fields(Settings):
        assert f"REDEMPTION_{field.name.upper()}\n" in described()
    assert "[8080]" in described()
