"""What the exporters are told: one TOML file, checked as a whole before anything starts.

::

    listen = "127.0.0.1:9750"
    regions = ["eu-central-1"]
    sources = ["rds", "elasticache", "redis", "eks", "sqs", "alb", "route53", "waf"]

    [[accounts]]
    id = "123456789012"
    role_arn = "arn:aws:iam::123456789012:role/exporters"   # without it: the process's own credentials
    external_id = "loyalty"

    [tags]                            # only what carries these
    team = ["loyalty"]

    [redis]
    cluster = "redemption"
    seeds = ["redis.example.com:6379"]
"""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

from slo.errors import SloError, raise_if_any

SOURCES: Final = ("rds", "elasticache", "redis", "eks", "sqs", "alb", "route53", "waf")
"""Every source, in the order in which they are told."""

AWS_SOURCES: Final = ("rds", "elasticache", "sqs", "alb", "route53", "waf")
"""Those that ask AWS; each has metrics in CloudWatch."""

SERVICE_ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Where Kubernetes mounts a pod's token and its own certificate."""

_REGION = re.compile(r"[a-z]{2}(-[a-z]+)+-\d")
_ACCOUNT = re.compile(r"\d{12}")
_ROLE = re.compile(r"arn:aws[a-z-]*:iam::(\d{12}):role/[\w+=,.@/-]+")
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):(\d{1,5})")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_PORT_MAX: Final = 65535
_TAG_FILTERS_MAX, _TAG_VALUES_MAX = 50, 20  # of GetResources, resourcegroupstaggingapi

_T = TypeVar("_T")
_Parse = Callable[[Any], Any]


class _FaultError(ValueError):
    """What is allowed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """An AWS account.

    Attributes:
        id: Its number.
        role_arn: The role to assume; None are the process's own credentials.
        external_id: What its trust policy asks for.
    """

    id: str
    role_arn: str | None = None
    external_id: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Requests:
    """How AWS is asked.

    Attributes:
        attempts_max: Attempts of one call, the first among them.
        retries_max: Retries of all calls of a source in one cycle: its budget.
        timeout_seconds: Time for one answer.
        endpoint_url: Another address of every API, for tests.
    """

    attempts_max: int = 4
    retries_max: int = 20
    timeout_seconds: float = 10.0
    endpoint_url: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Prices:
    """What AWS asks, in US dollars, and where that was read; your contract may say otherwise.

    Attributes:
        get_metric_data_usd: For 1,000 metrics requested.
        source: Where it was read.
        read_on: When.
    """

    get_metric_data_usd: Decimal = Decimal("0.01")
    source: str = "https://aws.amazon.com/cloudwatch/pricing/ (us-east-1), by way of third parties"
    read_on: date = date(2026, 11, 22)


@dataclass(frozen=True, slots=True, kw_only=True)
class Kubernetes:
    """The API server of the cluster, by default that of the pod in which this runs.

    Attributes:
        url: Its base URL, https.
        token_file: The bearer token; read anew for every cycle, because Kubernetes renews it.
        ca_file: Whom to trust.
        cluster: The cluster's name.
    """

    cluster: str
    url: str = "https://kubernetes.default.svc"
    token_file: Path = SERVICE_ACCOUNT / "token"
    ca_file: Path = SERVICE_ACCOUNT / "ca.crt"


@dataclass(frozen=True, slots=True, kw_only=True)
class Redis:
    """A Redis or Valkey Cluster.

    Attributes:
        cluster: Its name, for ElastiCache the id of the replication group.
        seeds: Nodes that tell of all others, host and port.
        tls: Whether they speak TLS; certificates are always checked.
        ca_file: Whom to trust; by default the system's.
        user: Name of the user.
        password_file: Its password; read anew for every cycle.
        timeout_seconds: Time for one answer.
    """

    cluster: str
    seeds: tuple[tuple[str, int], ...]
    tls: bool = True
    ca_file: Path | None = None
    user: str | None = None
    password_file: Path | None = None
    timeout_seconds: float = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The whole file.

    Attributes:
        listen: Host and port of the HTTP server.
        regions: AWS's.
        sources: Those that run.
        period_seconds: Time from one cycle to the next.
        delay_seconds: How old a minute is before CloudWatch is asked for it: until then its values still grow.
        max_staleness_seconds: Age at which a series vanishes.
        discovery_seconds: Time from one look for resources to the next.
        performance_insights: Whether it is asked about RDS instances that have it on.
        accounts: AWS's.
        tags: Tag -> its allowed values (none: any); resources without them are passed over.
        requests: How AWS is asked.
        prices: What it asks for that.
        kubernetes: The cluster of the source `eks`.
        redis: The cluster of the source `redis`.
    """

    listen: tuple[str, int] = ("127.0.0.1", 9750)
    regions: tuple[str, ...] = ()
    sources: tuple[str, ...] = SOURCES
    period_seconds: int = 60
    delay_seconds: int = 120
    max_staleness_seconds: int = 600
    discovery_seconds: int = 60
    performance_insights: bool = True
    accounts: tuple[Account, ...] = ()
    tags: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    requests: Requests = field(default_factory=Requests)
    prices: Prices = field(default_factory=Prices)
    kubernetes: Kubernetes | None = None
    redis: Redis | None = None


def load(file: Path) -> Settings:
    """Read and check a file.

    Raises:
        SloError: It cannot be read, a key is unknown, missing or has a wrong value; all of them are named.
    """
    subject = f"config {file}"
    try:
        table = tomllib.loads(file.read_text())
    except OSError as error:
        raise SloError(subject, [f"cannot be read: {error.strerror or error}"]) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SloError(subject, [f"is not TOML: {error}"]) from error
    problems: list[str] = []
    values = _values(Settings, table, "", problems)
    if not problems:
        problems.extend(_contradictions(Settings(**values)))
    raise_if_any(subject, problems)
    return Settings(**values)


def _contradictions(settings: Settings) -> Iterator[str]:
    """Values that are right alone, and wrong together."""
    of_aws = [name for name in settings.sources if name in AWS_SOURCES]
    if of_aws and not settings.regions:
        yield f"regions: missing; {', '.join(of_aws)} need at least one, ['eu-central-1'] say"
    if of_aws and not settings.accounts:
        yield f"[[accounts]]: missing; {', '.join(of_aws)} need at least one, with its id"
    yield from _contradictions_of_accounts(settings.accounts)
    for source, table in (("redis", settings.redis), ("eks", settings.kubernetes)):
        name = "kubernetes" if source == "eks" else source
        if source in settings.sources and table is None:
            yield f"[{name}]: missing; the source {source!r} needs it; or leave it out of sources"
    least = max(settings.delay_seconds + settings.period_seconds, settings.discovery_seconds) + settings.period_seconds
    if settings.max_staleness_seconds < least:
        yield (
            f"max_staleness_seconds: must be at least {least} (delay_seconds and two periods; discovery_seconds and a "
            f"period), or series would vanish between two cycles; it is {settings.max_staleness_seconds}"
        )
    if settings.kubernetes and "eks" in settings.sources:
        for key in ("token_file", "ca_file"):
            if not getattr(settings.kubernetes, key).is_file():
                yield f"kubernetes.{key}: there is no file {getattr(settings.kubernetes, key)}"


def _contradictions_of_accounts(accounts: Sequence[Account]) -> Iterator[str]:
    ids = [account.id for account in accounts]
    for number, account in enumerate(accounts, 1):
        role = _ROLE.fullmatch(account.role_arn or "")
        if role and role[1] != account.id:
            yield f"accounts[{number}].role_arn: is a role of account {role[1]}, not of {account.id}"
        if ids.index(account.id) != number - 1:
            yield f"accounts[{number}].id: {account.id} is there already"


# --- how values are read ----------------------------------------------------------------------------------------------


def _values(kind: type, table: Mapping[str, Any], path: str, problems: list[str]) -> dict[str, Any]:
    """The arguments of a dataclass from a table; every fault is noted."""
    readers = _READERS[kind]
    unknown = sorted(set(table) - set(readers))
    problems.extend(f"{path}{key}: unknown; allowed are {', '.join(readers)}" for key in unknown)
    values = {}
    for key, read in readers.items():
        if key in table:
            try:
                values[key] = read(table[key], f"{path}{key}", problems) if key in _NESTED else read(table[key])
            except _FaultError as fault:
                problems.append(f"{path}{key}: {fault}, not {_shown(table[key])}")
        elif key in _REQUIRED[kind]:
            problems.append(f"{path}{key}: missing")
    return values


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."  # noqa: PLR2004 - a line on a screen


def _text(value: object) -> str:
    if not isinstance(value, str) or not value.strip():
        raise _FaultError("must be a text that is not empty")
    return value


def _matching(pattern: re.Pattern[str], words: str) -> _Parse:
    def parse(value: object) -> str:
        if not isinstance(value, str) or not pattern.fullmatch(value):
            raise _FaultError(f"must be {words}")
        return value

    return parse


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise _FaultError("must be true or false")
    return value


def _whole(low: int, high: int, *, of: int = 1) -> _Parse:
    def parse(value: object) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high or value % of:
            raise _FaultError(f"must be a {f'multiple of {of}' if of > 1 else 'whole number'} from {low} to {high}")
        return value

    return parse


def _number(low: float, high: float) -> _Parse:
    def parse(value: object) -> float:
        if not isinstance(value, int | float) or isinstance(value, bool) or not low <= value <= high:
            raise _FaultError(f"must be a number from {low:g} to {high:g}")
        return float(value)

    return parse


def _price(value: object) -> Decimal:
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value) or value < 0:
        raise _FaultError("must be US dollars, 0 or more")
    return Decimal(str(value))


def _day(value: object) -> date:
    if type(value) is not date:
        raise _FaultError("must be a date, 2026-11-22 say, without quotation marks")
    return value


def _path(value: object) -> Path:
    return Path(_text(value))


def _file(value: object) -> Path:
    path = _path(value)
    if not path.is_file():
        raise _FaultError("must be the path of a file that is there")
    return path


def _url(value: object) -> str:
    try:
        parts = urlsplit(value if isinstance(value, str) else "")
        _ = parts.port
    except ValueError:
        parts = urlsplit("")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise _FaultError("must be a URL that begins with http:// or https://")
    return str(value)


def _https(value: object) -> str:
    if not _url(value).startswith("https://"):
        raise _FaultError("must be a URL that begins with https://")
    return str(value)


def _address(value: object) -> tuple[str, int]:
    found = _HOST.fullmatch(value) if isinstance(value, str) else None
    if not found or int(found[2]) > _PORT_MAX:
        raise _FaultError("must be a host and a port, 'redis.example.com:6379' say")
    return found[1].strip("[]"), int(found[2])


def _list(parse: _Parse, words: str) -> _Parse:
    def parse_all(value: object) -> tuple[Any, ...]:
        if not isinstance(value, list) or not value:
            raise _FaultError(f"must be a list of {words}")
        found = tuple(parse(one) for one in value)
        if len(set(found)) != len(found):
            raise _FaultError("must name each only once")
        return found

    return parse_all


def _source(value: object) -> str:
    if value not in SOURCES:
        raise _FaultError(f"must be a list of some of {', '.join(SOURCES)}")
    return str(value)


def _tags(value: object) -> dict[str, tuple[str, ...]]:
    words = f"at most {_TAG_FILTERS_MAX} tags, each with a list of at most {_TAG_VALUES_MAX} values, team = ['loyalty']"
    if not isinstance(value, dict) or len(value) > _TAG_FILTERS_MAX:
        raise _FaultError(f"must be {words}")
    for values in value.values():
        of_text = isinstance(values, list) and all(isinstance(one, str) for one in values)
        if not of_text or len(values) > _TAG_VALUES_MAX:
            raise _FaultError(f"must be {words}")
    return {tag: tuple(values) for tag, values in value.items()}


def _nested(kind: type[_T]) -> Callable[[Any, str, list[str]], _T | None]:
    def parse(value: object, path: str, problems: list[str]) -> _T | None:
        if not isinstance(value, dict):
            raise _FaultError(f"must be a table, [{path}]")
        faults = len(problems)
        values = _values(kind, value, f"{path}.", problems)
        return kind(**values) if len(problems) == faults else None

    return parse


def _accounts(value: object, path: str, problems: list[str]) -> tuple[Account | None, ...]:
    if not isinstance(value, list) or not value or not all(isinstance(one, dict) for one in value):
        raise _FaultError("must be tables, [[accounts]]")
    return tuple(_nested(Account)(one, f"{path}[{number}]", problems) for number, one in enumerate(value, 1))


_READERS: Final[Mapping[type, Mapping[str, Callable[..., Any]]]] = {
    Account: {
        "id": _matching(_ACCOUNT, "an account's number of 12 digits, '123456789012' say"),
        "role_arn": _matching(_ROLE, "a role's ARN, 'arn:aws:iam::123456789012:role/exporters' say"),
        "external_id": _text,
    },
    Requests: {
        "attempts_max": _whole(1, 10),
        "retries_max": _whole(0, 1000),
        "timeout_seconds": _number(0.1, 60),
        "endpoint_url": _url,
    },
    Prices: {"get_metric_data_usd": _price, "source": _text, "read_on": _day},
    Kubernetes: {
        "cluster": _matching(_NAME, "a name of letters, digits, '.', '_' and '-'"),
        "url": _https,
        "token_file": _path,
        "ca_file": _path,
    },
    Redis: {
        "cluster": _matching(_NAME, "a name of letters, digits, '.', '_' and '-'"),
        "seeds": _list(_address, "hosts with ports, ['redis.example.com:6379']"),
        "tls": _flag,
        "ca_file": _file,
        "user": _text,
        "password_file": _file,
        "timeout_seconds": _number(0.1, 60),
    },
    Settings: {
        "listen": _address,
        "regions": _list(_matching(_REGION, "regions like 'eu-central-1'"), "regions, ['eu-central-1']"),
        "sources": _list(_source, f"some of {', '.join(SOURCES)}"),
        "period_seconds": _whole(60, 3600, of=60),
        "delay_seconds": _whole(0, 3600),
        "max_staleness_seconds": _whole(60, 86_400),
        "discovery_seconds": _whole(60, 86_400, of=60),
        "performance_insights": _flag,
        "accounts": _accounts,
        "tags": _tags,
        "requests": _nested(Requests),
        "prices": _nested(Prices),
        "kubernetes": _nested(Kubernetes),
        "redis": _nested(Redis),
    },
}

_NESTED: Final = frozenset({"accounts", "requests", "prices", "kubernetes", "redis"})

_REQUIRED: Final[Mapping[type, frozenset[str]]] = {
    Account: frozenset({"id"}),
    Requests: frozenset(),
    Prices: frozenset(),
    Kubernetes: frozenset({"cluster"}),
    Redis: frozenset({"cluster", "seeds"}),
    Settings: frozenset(),
}

assert all(set(readers) == {one.name for one in fields(kind)} for kind, readers in _READERS.items())
