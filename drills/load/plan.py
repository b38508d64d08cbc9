"""What is asked for: how many requests, for whom, and how fast."""

from __future__ import annotations

import random
import re
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from itertools import accumulate
from typing import Final, Literal, NamedTuple
from urllib.parse import urlsplit

from service.domain import ACCOUNT_ID_PATTERN, POINTS_MAX

Choice = Literal["uniform", "zipf", "hot"]

HOSTS: Final = ("127.0.0.1", "localhost")
RECORDED_MAX: Final = 500_000  # operations of a history, each about a kilobyte while it is kept

_CONNECTIONS_MAX = 5000
_SECONDS_MAX = 3600.0
_RATE_MAX = 100_000.0
_TAILS_MAX = 100_000  # ends of requests that are kept: one for each account and number of points, some 100 bytes each
_BLOCK = 256  # accounts drawn at once: one call for many is cheaper
_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+: [\x20-\x7e]+")


class PlanError(ValueError):
    """The plan, or the address that it is for, is not allowed; the message says what is."""


class Request(NamedTuple):
    """A request that is ready to be sent.

    Attributes:
        key: Its idempotency key; empty for a read.
        account_id: Whose points.
        points: How many; 0 for a read.
        payload: Its bytes.
    """

    key: str
    account_id: str
    points: int
    payload: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How much load, and of what kind.

    Attributes:
        accounts: Whose points are spent.
        choice: How an account is drawn: `uniform`; `zipf`, the n-th with a weight of 1/n; `hot`, always the first.
        points: The fewest and the most that a redemption spends; each number between is as likely.
        reads_share: The part of all requests that read a balance instead, 0 to 1.
        per_second: Requests each second whether answered or not (open loop); None: each connection sends its next one
            as soon as it has an answer (closed loop).
        connections: How many are kept open; at most so many requests wait for an answer at once.
        seconds: How long requests are sent.
        requests_max: No more requests than this.
        timeout_seconds: How long an answer may take, and a request may wait to be sent.
        headers: Headers of every request, `{"Authorization": "Bearer ..."}` say.
        record: Whether the history is kept.
        seed: Decides which accounts and points are drawn; keys differ in every run all the same.

    Raises:
        PlanError: Something is out of bounds; all of it is named.
    """

    accounts: tuple[str, ...]
    choice: Choice = "uniform"
    points: tuple[int, int] = (1, 1)
    reads_share: float = 0.0
    per_second: float | None = None
    connections: int = 32
    seconds: float = 10.0
    requests_max: int = RECORDED_MAX
    timeout_seconds: float = 10.0
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    record: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        low, high = self.points
        rules = {
            "accounts: one at least, each of letters, digits, _ and -": bool(self.accounts)
            and all(re.fullmatch(ACCOUNT_ID_PATTERN.strip("^$"), account) for account in self.accounts),
            "choice: uniform, zipf or hot": self.choice in ("uniform", "zipf", "hot"),
            f"points: two numbers from 1 to {POINTS_MAX}, the lower first": 1 <= low <= high <= POINTS_MAX,
            "reads_share: from 0 to 1": 0 <= self.reads_share <= 1,
            f"per_second: more than 0, up to {_RATE_MAX:g}": self.per_second is None
            or 0 < self.per_second <= _RATE_MAX,
            f"connections: from 1 to {_CONNECTIONS_MAX}": 1 <= self.connections <= _CONNECTIONS_MAX,
            f"seconds: more than 0, up to {_SECONDS_MAX:g}": 0 < self.seconds <= _SECONDS_MAX,
            "timeout_seconds: more than 0, up to 60": 0 < self.timeout_seconds <= 60,  # noqa: PLR2004 - the text has it
            "requests_max: 1 at least": self.requests_max >= 1,
            f"requests_max: up to {RECORDED_MAX} with a history": not self.record or self.requests_max <= RECORDED_MAX,
            "headers: names and values of HTTP": all(
                _HEADER.fullmatch(f"{name}: {value}") for name, value in self.headers.items()
            ),
        }
        broken = [rule for rule, kept in rules.items() if not kept]
        if broken:
            raise PlanError("; ".join(broken))


def address(url: str) -> tuple[str, int]:
    """Host and port of a base URL.

    Raises:
        PlanError: It leads anywhere but to this machine: load is for nobody else's servers.
    """
    parts = urlsplit(url)
    if parts.scheme != "http" or parts.hostname not in HOSTS or parts.port is None:
        raise PlanError(f"load is sent to http://{{{'|'.join(HOSTS)}}}:PORT only")
    return parts.hostname, parts.port


def requests(plan: Plan, host: str, port: int) -> Iterator[Request]:
    """The plan's requests, without end."""
    chance = random.Random(plan.seed)  # noqa: S311 - repeatable on purpose
    run = secrets.token_hex(8)  # so that no two runs share a key
    low, high = plan.points
    headers = "".join(f"{name}: {value}\r\n" for name, value in plan.headers.items())
    common = f"Host: {host}:{port}\r\n{headers}"
    head = f"POST /v1/redemptions HTTP/1.1\r\n{common}Content-Type: application/json\r\nIdempotency-Key: ".encode()
    tail = cache(_tail) if len(plan.accounts) * (high - low + 1) <= _TAILS_MAX else _tail
    reads = {
        account: Request("", account, 0, f"GET /v1/accounts/{account}/balance HTTP/1.1\r\n{common}\r\n".encode())
        for account in plan.accounts
    }
    number = 0
    while True:
        for account in _draw(plan, chance):
            if plan.reads_share and chance.random() < plan.reads_share:
                yield reads[account]
                continue
            number += 1
            points = low if low == high else chance.randint(low, high)
            key = f"{run}-{number}"
            yield Request(key, account, points, head + key.encode() + tail(account, points))


def _tail(account: str, points: int) -> bytes:
    """What follows the key."""
    body = f'{{"account_id":"{account}","points":{points}}}'
    return f"\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()


def _draw(plan: Plan, chance: random.Random) -> list[str]:
    if plan.choice == "hot":
        return [plan.accounts[0]] * _BLOCK
    if plan.choice == "uniform":
        return chance.choices(plan.accounts, k=_BLOCK)
    weights = tuple(accumulate(1 / rank for rank in range(1, len(plan.accounts) + 1)))
    return chance.choices(plan.accounts, cum_weights=weights, k=_BLOCK)
