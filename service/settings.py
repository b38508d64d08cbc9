"""The service's settings: environment variables with the prefix `REDEMPTION_`, checked once at the start.

A secret may stand in a file instead, which `REDEMPTION_..._FILE` names, as Kubernetes mounts them.
"""

# ruff: noqa: RUF009 - `_setting` is `field`, which ruff does not see

from __future__ import annotations

import ipaddress
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from service.security import ALGORITHMS_DEFAULT, FileKeySource, KeySource, UrlKeySource
from service.valkey import parse_url
from slo.errors import raise_if_any

PREFIX = "REDEMPTION_"

_FILE = "_FILE"
_SECRET_BYTES_MAX = 64 * 1024


class _FaultError(ValueError):
    """What is allowed, without the value: it may be a secret."""


def _url(text: str) -> str:
    try:
        parts = urlsplit(text)
        for host in parts.netloc.rpartition("@")[2].split(","):  # each has a port of its own
            _ = urlsplit(f"//{host}").port
    except ValueError:
        raise _FaultError("must be a URL like postgresql://user:password@host:5432/database") from None
    if parts.scheme not in ("postgresql", "postgres") or not (
        parts.netloc.rpartition("@")[2] or "host=" in parts.query
    ):
        raise _FaultError("must be a URL like postgresql://user:password@host:5432/database")
    return text


def _link(*schemes: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        try:
            parts = urlsplit(text)
        except ValueError:
            parts = urlsplit("")
        if parts.scheme not in schemes or not parts.netloc:
            raise _FaultError(f"must be a URL that begins with {' or '.join(f'{scheme}://' for scheme in schemes)}")
        return text

    return parse


def _cluster(text: str) -> str:
    try:
        parse_url(text)
    except ValueError as error:
        raise _FaultError(str(error)) from None
    return text


def _file(text: str) -> Path:
    path = Path(text)
    if not path.is_file():
        raise _FaultError("must be the path of a file that is there")
    return path


def _switch(text: str) -> bool:
    if text not in ("on", "off"):
        raise _FaultError("must be on or off")
    return text == "on"


def _algorithms(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(","))
    if not set(names) <= set(ALGORITHMS_DEFAULT):
        raise _FaultError(f"must be some of {', '.join(ALGORITHMS_DEFAULT)}, with commas between")
    return names


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


def _seconds(low: float, high: float, *, unit: str = "seconds") -> Callable[[str], float]:
    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not low <= value <= high:
            raise _FaultError(f"must be {unit} from {low:.12g} to {high:.12g}")
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
    database_ca_file: Path | None = _setting(
        _file, "whom to trust; with it the database must prove its name by TLS (verify-full)", default=None
    )
    in_flight_max: int = _setting(
        _whole(1, 100_000),
        "requests worked on at once, at most; how many it is now adapts, and more are turned away with 503",
        default=512,
    )
    pool_max: int = _setting(
        _whole(1, 1000), "connections to the database; a few for each of its cores is most", default=8
    )
    batch_max: int = _setting(_whole(1, 1000), "redemptions decided by one call of the database", default=100)
    deadline_seconds: float = _setting(
        _seconds(0.01, 60), "time for an answer; after it the caller is told 504", default=2.0
    )
    abandon_seconds: float = _setting(
        _seconds(0.1, 600), "time after which a silent database connection is given up", default=15.0
    )
    drain_seconds: float = _setting(
        _seconds(0, 600),
        "time to go on serving, not ready any more, when told to stop: until load balancers have noticed",
        default=0.0,
    )
    shutdown_seconds: float = _setting(_seconds(1, 600), "time for requests in flight to end after that", default=10.0)
    jwks_url: str | None = _setting(
        _link("https"), "where the keys of the callers' tokens are read (JWKS); this or the next", default=None
    )
    jwks_file: Path | None = _setting(_file, "a file with these keys", default=None)
    jwks_ca_file: Path | None = _setting(_file, "whom to trust at the first; without it the system's", default=None)
    jwt_issuer: str | None = _setting(_text, "who makes the tokens (`iss`)", default=None)
    jwt_audience: str | None = _setting(_text, "for whom (`aud`)", default=None)
    jwt_algorithms: tuple[str, ...] = _setting(
        _algorithms, "how they may be signed, with commas between", default=ALGORITHMS_DEFAULT
    )
    signing_key: bytes | None = _setting(
        _key,
        "signs page cursors and status references; the same in all processes, without it a random one",
        default=None,
        secret=True,
    )
    client_requests_per_second: float = _setting(
        _seconds(0.1, 1_000_000, unit="a number"),
        "what each client may send in the long run; more is turned away with 429",
        default=500.0,
    )
    client_burst: int = _setting(_whole(1, 1_000_000), "what each client may send at once", default=1000)
    valkey_url: str | None = _setting(
        _cluster,
        "Valkey or Redis Cluster, rediss:// with TLS; hints, shared quotas and the burst buffer are lost without it",
        default=None,
        secret=True,
    )
    valkey_ca_file: Path | None = _setting(_file, "whom to trust there", default=None)
    queue_url: str | None = _setting(
        _link("https", "http"), "SQS queue that takes redemptions while the database does not answer", default=None
    )
    dead_letter_queue_url: str | None = _setting(
        _link("https", "http"), "where that queue puts what cannot be settled", default=None
    )
    queue_endpoint_url: str | None = _setting(_link("https", "http"), "SQS itself, if it is not AWS's", default=None)
    deferred_seconds: float = _setting(
        _seconds(1, 14 * 24 * 3600), "time in which a deferred redemption is settled, or else rejected", default=3600.0
    )
    verify_seconds: float = _setting(
        _seconds(1, 24 * 3600), "time between two verifications by the worker", default=600.0
    )
    embedded_metrics: bool = _setting(
        _switch,
        "whether the log tells CloudWatch what became of each promise, once a minute: on or off",
        default=True,
    )
    log_hash_key: bytes | None = _setting(
        _key,
        "key of the hash that stands for account ids in logs; without it a random one",
        default=None,
        secret=True,
    )

    def key_source(self) -> KeySource | None:
        """Where the keys of the callers' tokens come from; None: nobody is asked who they are."""
        if self.jwks_url:
            return UrlKeySource(self.jwks_url, ca_file=self.jwks_ca_file)
        return FileKeySource(self.jwks_file) if self.jwks_file else None


def from_environment(environment: Mapping[str, str]) -> Settings:
    """Read the settings; an empty variable is one that is not set.

    Raises:
        SloError: Variables are wrong or unknown; all of them are named, none of their values is told.
    """
    known = {PREFIX + each.name.upper(): each for each in fields(Settings)}
    files = {name + _FILE: name for name, each in known.items() if not each.repr}
    given = {name: text for name, text in environment.items() if name.startswith(PREFIX) and text}
    problems = [
        f"{name}: unknown; known are {', '.join(known)}" for name in sorted(given.keys() - known - files.keys())
    ]
    for name in given.keys() & files.keys():
        try:
            given[files[name]] = _secret_in(Path(given[name]))
        except _FaultError as fault:
            problems.append(f"{name}: {fault}")
    values: dict[str, Any] = {}
    for name, each in known.items():
        if name not in given:
            continue
        try:
            values[each.name] = each.metadata["parse"](given[name])
        except _FaultError as fault:
            problems.append(f"{name}: {fault}")
    settings = Settings(**values)
    problems += _contradictions(settings)
    raise_if_any("settings", problems)
    return settings


def refusals_to_serve(settings: Settings) -> list[str]:
    """Why this must not be served: whoever is not asked who they are must be on this machine, and only try it out."""
    if settings.key_source() is not None:
        return []
    if settings.database_url is not None:
        return ["REDEMPTION_JWKS_URL or REDEMPTION_JWKS_FILE: missing; only the demo, without a database, needs none"]
    if not _is_loopback(settings.host):
        return ["REDEMPTION_HOST: must be this machine's own, 127.0.0.1 say, while callers are not asked who they are"]
    return []


def _contradictions(settings: Settings) -> Iterator[str]:
    if settings.jwks_url and settings.jwks_file:
        yield "REDEMPTION_JWKS_URL and REDEMPTION_JWKS_FILE: give one of them"
    if (settings.jwks_url or settings.jwks_file) and not (settings.jwt_issuer and settings.jwt_audience):
        yield "REDEMPTION_JWT_ISSUER and REDEMPTION_JWT_AUDIENCE: missing; a token is held to both"
    if settings.valkey_ca_file and not (settings.valkey_url or "").startswith("rediss://"):
        yield "REDEMPTION_VALKEY_CA_FILE: goes with a REDEMPTION_VALKEY_URL that begins with rediss://"
    if settings.queue_url and settings.deferred_seconds <= settings.abandon_seconds:
        yield "REDEMPTION_DEFERRED_SECONDS: must be more than REDEMPTION_ABANDON_SECONDS"
    if settings.dead_letter_queue_url and not settings.queue_url:
        yield "REDEMPTION_DEAD_LETTER_QUEUE_URL: goes with REDEMPTION_QUEUE_URL"


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def _secret_in(path: Path) -> str:
    try:
        with path.open("rb") as file:
            text = file.read(_SECRET_BYTES_MAX + 1)
        if len(text) > _SECRET_BYTES_MAX:
            raise _FaultError(f"must be a file of at most {_SECRET_BYTES_MAX} bytes")
        return text.decode().strip()
    except (OSError, UnicodeDecodeError):
        raise _FaultError("must be the path of a file that can be read, with text in it") from None


def described() -> str:
    """Every variable with its meaning and default, for `--help`."""
    lines = []
    for each in fields(Settings):
        shown = ",".join(each.default) if isinstance(each.default, tuple) else each.default
        shown = ("off", "on")[shown] if isinstance(shown, bool) else shown
        default = "" if each.default in (None, MISSING) else f" [{shown}]"
        lines.append(
            f"  {PREFIX}{each.name.upper()}{'' if each.repr else ' (or ..._FILE)'}\n"
            f"      {each.metadata['help']}{default}"
        )
    return "\n".join(lines)
