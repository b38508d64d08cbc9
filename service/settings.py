"""The service's settings: environment variables with the prefix `REDEMPTION_`, checked once at the start."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import Any
from urllib.parse import urlsplit

from slo.errors import raise_if_any

PREFIX = "REDEMPTION_"


class _FaultError(ValueError):
    """What is allowed, without the value: it may be a secret."""


def _url(text: str) -> str:
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError:
        raise _FaultError("must be a URL like postgresql://user:password@host:5432/database") from None
    if parts.scheme not in ("postgresql", "postgres") or not (parts.hostname or "host=" in parts.query):
        raise _FaultError("must be a URL like postgresql://user:password@host:5432/database")
    return text


def _text(text: str) -> str:
    if not text.strip():
        raise _FaultError("must not be empty")
    return text


def _whole(low: int, high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not text.isascii() or not text.isdigit() or not low <= int(text) <= high:
            raise _FaultError(f"must be a whole number from {low} to {high}")
        return int(text)

    return parse


def _seconds(low: float, high: float) -> Callable[[str], float]:
    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not low <= value <= high:
            raise _FaultError(f"must be seconds from {low:g} to {high:g}")
        return value

    return parse


def _key(text: str) -> bytes:
    if len(text.encode()) < _KEY_BYTES_MIN:
        raise _FaultError(f"must have at least {_KEY_BYTES_MIN} bytes")
    return text.encode()


_KEY_BYTES_MIN = 32  # RFC 2104: no shorter than the hash's output


def _setting(parse: Callable[[str], Any], help_text: str, *, default: Any, secret: bool = False) -> Any:  # noqa: ANN401 - as `field`
    return field(default=default, repr=not secret, metadata={"parse": parse, "help": help_text})


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the service is told; the attribute `port` is the variable `REDEMPTION_PORT`, and so on."""

    database_url: str | None = _setting(
        _url,
        "ledger database, as a login of the role redemption_app; without it an embedded Postgres is started",
        default=None,
        secret=True,
    )
    migration_database_url: str | None = _setting(
        _url,
        "the same database, as a login that may create roles and a schema; only `migrate` reads it",
        default=None,
        secret=True,
    )
    host: str = _setting(_text, "address to listen on", default="127.0.0.1")
    port: int = _setting(_whole(0, 65535), "port to listen on; 0 takes a free one", default=8080)
    in_flight_max: int = _setting(
        _whole(1, 100_000), "requests worked on at once; more are turned away with 503", default=128
    )
    pool_max: int = _setting(
        _whole(1, 1000), "connections to the database; a few for each of its cores is most", default=8
    )
    deadline_seconds: float = _setting(
        _seconds(0.01, 60), "time for an answer; after it the caller is told 504", default=2.0
    )
    abandon_seconds: float = _setting(
        _seconds(0.1, 600), "time after which a silent database connection is given up", default=15.0
    )
    shutdown_seconds: float = _setting(
        _seconds(1, 600), "time for requests in flight to end when the service is told to stop", default=10.0
    )
    log_hash_key: bytes | None = _setting(
        _key,
        "key of the hash that stands for account ids in logs; without it a random one",
        default=None,
        secret=True,
    )


def from_environment(environment: Mapping[str, str]) -> Settings:
    """Read the settings; an empty variable is one that is not set.

    Raises:
        SloError: Variables are wrong or unknown; all of them are named, none of their values is told.
    """
    known = {PREFIX + each.name.upper(): each for each in fields(Settings)}
    given = {name: text for name, text in environment.items() if name.startswith(PREFIX) and text}
    values: dict[str, Any] = {}
    problems = [f"{name}: unknown; known are {', '.join(known)}" for name in sorted(given) if name not in known]
    for name, each in known.items():
        if name not in given:
            continue
        try:
            values[each.name] = each.metadata["parse"](given[name])
        except _FaultError as fault:
            problems.append(f"{name}: {fault}")
    raise_if_any("settings", problems)
    return Settings(**values)


def described() -> str:
    """Every variable with its meaning and default, for `--help`."""
    lines = []
    for each in fields(Settings):
        default = "" if each.default in (None, MISSING) else f" [{each.default}]"
        lines.append(f"  {PREFIX}{each.name.upper()}\n      {each.metadata['help']}{default}")
    return "\n".join(lines)
