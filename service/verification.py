"""The verification of the ledger: whether everything in it fits, read from outside of the functions that wrote it.

Every fact is one query that looks for what contradicts it, over whole tables at once. The hash chain is recomputed
here, seal by seal. All of it happens in one transaction that sees one moment and writes nothing, so it may run while
the service writes. As long as it runs the database keeps old row versions for it: run it on a reader, or seldom.

What it cannot tell:

* Whether the lot that ends first was also spent first. Only what has an entry has a place in the order of its account;
  a reserve, the end of a hold and a count of lots have none, and of two decisions in one batch the tables do not say
  which was the first. What follows without that order is checked: nothing was spent from a lot that had ended, and
  nothing expired from one that had not.
* Whether a rejection that depends on the moment was right: an account that was unknown, a hold that was closed.
* Whether rows that no seal covers were changed into others that fit as well. Seals cover the entries and decisions, up
  to the last seal; lots, holds, accruals and expirations only have to fit to those.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, NamedTuple

import asyncpg

from service.database import tls

SECONDS_MAX: Final = 3600.0
"""How long a verification may take, unless told otherwise."""

_EXAMPLES_MAX: Final = 20
_CONNECT_SECONDS_MAX: Final = 10.0
_END_SECONDS_MAX: Final = 5.0  # an answer to a good-bye; without one the connection is dropped
_PREFETCH_ROWS: Final = 1_000  # lines of the chain in memory at once, about 300 bytes each
_WORK_MEMORY: Final = "64MB"  # for one sort or hash; what is larger goes to the server's temporary files
_HASH_BYTES: Final = 32
_INT8_BYTES: Final = 8


@dataclass(frozen=True, slots=True)
class Fact:
    """Something that always holds.

    Attributes:
        sentence: What holds.
        contradictions: A query of one text column `what`, a row for each thing that contradicts it; ids, never a key.
    """

    sentence: str
    contradictions: str


@dataclass(frozen=True, slots=True)
class Check:
    """Facts about one side of the ledger.

    Attributes:
        sentence: What holds, in short.
        facts: What is looked at by a query. The chain's hashes are not among them.
    """

    sentence: str
    facts: tuple[Fact, ...]


class Head(NamedTuple):
    """The end of the hash chain. Noted elsewhere, it proves later that the chain was not cut off or written anew.

    Attributes:
        number: Of the last seal.
        sha256: Its hash, 32 bytes.
    """

    number: int
    sha256: bytes

    def __str__(self) -> str:
        return f"{self.number}:{self.sha256.hex()}"

    @classmethod
    def parse(cls, text: str) -> Head:
        """A head as it was noted, `17:9f86d0...`.

        Raises:
            ValueError: It is none.
        """
        number, _, sha256 = text.partition(":")
        head = cls(int(number), bytes.fromhex(sha256))
        if head.number < 1 or len(head.sha256) != _HASH_BYTES:
            raise ValueError("a head is a seal's number from 1, a colon and 64 hexadecimal digits")
        return head


@dataclass(frozen=True, slots=True)
class Finding:
    """A fact that does not hold.

    Attributes:
        fact: The sentence that is contradicted.
        mismatches: How often.
        examples: Some of what contradicts it.
    """

    fact: str
    mismatches: int
    examples: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Result:
    """What a check found.

    Attributes:
        check: Its name.
        findings: The facts that do not hold.
        seconds: How long it took.
    """

    check: str
    findings: tuple[Finding, ...]
    seconds: float

    @property
    def mismatches(self) -> int:
        """Over all its facts."""
        return sum(finding.mismatches for finding in self.findings)


@dataclass(frozen=True, slots=True)
class Report:
    """What a verification found.

    Attributes:
        began_at: When; what was committed until then was looked at.
        seconds: How long it took.
        results: Of the checks, in their order; the first mismatch may have been the last.
        head: The end of the hash chain; None: there is none, or it was not looked at.
    """

    began_at: datetime
    seconds: float
    results: tuple[Result, ...]
    head: Head | None

    @property
    def complete(self) -> bool:
        """Whether every check was made to its end."""
        return len(self.results) == len(CHECKS)

    @property
    def ok(self) -> bool:
        """Whether everything was looked at and all of it fits."""
        return self.complete and not any(result.findings for result in self.results)


# --- the facts --------------------------------------------------------------------------------------------------------

# Everything that moves points, with the entry that it must have.
_MOVES: Final = """
    SELECT
        r.redemption_id AS transaction_id, r.account_id, r.balance, 'system:burn' AS other_side,
        CASE r.kind WHEN 'refund' THEN r.points ELSE -r.points END AS amount
    FROM ledger.redemptions AS r WHERE r.rejection IS NULL AND r.kind IN ('redeem', 'capture', 'refund')
    UNION ALL
    SELECT a.accrual_id, a.account_id, NULL, 'system:issuance', a.points FROM ledger.accruals AS a
    UNION ALL
    SELECT x.expiration_id, x.account_id, NULL, 'system:expiry', -x.points FROM ledger.expirations AS x
"""

# Everything that is on record, with the points that it must have given to lots. Migration 0001 knew no lots: it wrote
# redemptions without `available`, and accruals without a lot.
_DUES: Final = """
    SELECT
        r.redemption_id AS transaction_id, r.account_id,
        CASE
            WHEN r.rejection IS NOT NULL THEN 0
            WHEN r.kind = 'redeem' AND r.available IS NULL THEN 0
            WHEN r.kind IN ('redeem', 'reserve') THEN -r.points
            WHEN r.kind = 'capture' THEN o.points - r.points
            ELSE r.points
        END AS amount
    FROM ledger.redemptions AS r LEFT JOIN ledger.redemptions AS o ON o.redemption_id = r.origin_id
    UNION ALL
    SELECT a.accrual_id, a.account_id, CASE WHEN l.lot_id IS NULL THEN 0 ELSE a.points END
    FROM ledger.accruals AS a LEFT JOIN ledger.lots AS l ON l.lot_id = a.accrual_id
    UNION ALL
    SELECT x.expiration_id, x.account_id, -x.points FROM ledger.expirations AS x
"""

_VERSIONS: Final = Check(
    "Each account's entries are numbered without a gap.",
    (
        Fact(
            "The entries of an account are numbered 1, 2, 3 and so on.",
            """
            SELECT format('account %s: entry %s follows entry %s', e.account_id, e.account_version, e.before) AS what
            FROM (
                SELECT e.account_id, e.account_version, lag(e.account_version, 1, 0::bigint) OVER (
                    PARTITION BY e.account_id ORDER BY e.account_version
                ) AS before
                FROM ledger.entries AS e WHERE e.account_version IS NOT NULL
            ) AS e
            WHERE e.account_version <> e.before + 1
            """,
        ),
        Fact(
            "An account's version is the number of its entries.",
            """
            SELECT format('account %s: version %s, entries %s', account_id, a.version, e.entries) AS what
            FROM ledger.accounts AS a
            FULL JOIN (
                SELECT e.account_id, count(*) AS entries
                FROM ledger.entries AS e WHERE e.account_version IS NOT NULL GROUP BY e.account_id
            ) AS e USING (account_id)
            WHERE a.version IS DISTINCT FROM coalesce(e.entries, 0)
            """,
        ),
    ),
)

_BALANCES: Final = Check(
    "Each account's balance is what its entries add up to.",
    (
        Fact(
            "The balance after an entry is the balance before it and its amount.",
            """
            SELECT format(
                'account %s: entry %s of %s makes %s of %s',
                e.account_id, e.account_version, e.amount, e.balance_after, e.before
            ) AS what
            FROM (
                SELECT
                    e.account_id, e.account_version, e.amount, e.balance_after,
                    lag(e.balance_after, 1, 0::bigint) OVER (
                        PARTITION BY e.account_id ORDER BY e.account_version
                    ) AS before
                FROM ledger.entries AS e WHERE e.account_version IS NOT NULL
            ) AS e
            WHERE e.balance_after <> e.before + e.amount
            """,
        ),
        Fact(
            "An account's balance is the balance after its last entry.",
            """
            SELECT format('account %s: balance %s, last %s', a.account_id, a.balance, e.balance_after) AS what
            FROM ledger.accounts AS a
            LEFT JOIN ledger.entries AS e ON e.account_id = a.account_id AND e.account_version = a.version
            WHERE a.balance <> coalesce(e.balance_after, 0)
            """,
        ),
        Fact(
            "An account's balance is the sum of its entries.",
            """
            SELECT format('account %s: balance %s, entries %s', account_id, a.balance, e.amount) AS what
            FROM ledger.accounts AS a
            FULL JOIN (
                SELECT e.account_id, sum(e.amount) AS amount
                FROM ledger.entries AS e WHERE e.account_version IS NOT NULL GROUP BY e.account_id
            ) AS e USING (account_id)
            WHERE a.balance IS DISTINCT FROM coalesce(e.amount, 0)
            """,
        ),
    ),
)

_SUMS: Final = Check(
    "Every transaction adds up to zero, and so does the ledger.",
    (
        Fact(
            "A transaction has two entries, one of a guest and one of the system, that add up to zero.",
            """
            SELECT format('transaction %s: %s entries, sum %s', e.transaction_id, count(*), sum(e.amount)) AS what
            FROM ledger.entries AS e
            GROUP BY e.transaction_id
            HAVING count(*) <> 2 OR count(e.account_version) <> 1 OR sum(e.amount) <> 0
            """,
        ),
        Fact(
            "All entries add up to zero.",
            """
            SELECT format('sum %s', sum(e.amount)) AS what FROM ledger.entries AS e HAVING sum(e.amount) <> 0
            """,
        ),
        Fact(
            "The other side of an entry is the system account that its transaction is for.",
            f"""
            SELECT format('transaction %s: %s to %s', e.transaction_id, e.amount, e.account_id) AS what
            FROM ledger.entries AS e JOIN ({_MOVES}) AS m USING (transaction_id)
            WHERE e.account_version IS NULL AND (e.account_id, e.amount) <> (m.other_side, -m.amount)
            """,  # noqa: S608 - of constants
        ),
    ),
)

_REDEMPTIONS: Final = Check(
    "Every decision has its entry, every entry its reason, and no points leave twice.",
    (
        Fact(
            "A client's key is decided once.",
            # Not by the columns alone: the index that should make sure of it must not answer for itself.
            """
            SELECT format('redemptions %s', string_agg(r.redemption_id::text, ', ')) AS what
            FROM ledger.redemptions AS r
            GROUP BY r.client_id || ':' || r.idempotency_key HAVING count(*) > 1
            """,
        ),
        Fact(
            "An accrual's reference is granted once.",
            """
            SELECT format('accruals %s', string_agg(a.accrual_id::text, ', ')) AS what
            FROM ledger.accruals AS a GROUP BY a.reference || '' HAVING count(*) > 1
            """,
        ),
        Fact(
            "What moves points has its entry: its account, its amount, and the balance that it told.",
            f"""
            SELECT format(
                'transaction %s: %s of account %s, balance %s; its entry %s, balance %s',
                m.transaction_id, m.amount, m.account_id, m.balance, e.amount, e.balance_after
            ) AS what
            FROM ({_MOVES}) AS m
            LEFT JOIN ledger.entries AS e ON e.transaction_id = m.transaction_id AND e.account_id = m.account_id
            WHERE e.amount IS DISTINCT FROM m.amount OR e.balance_after <> m.balance
            """,  # noqa: S608 - of constants
        ),
        Fact(
            "Nothing else has one: no rejection, no reserve, no end of a hold without a capture.",
            f"""
            SELECT format('transaction %s: %s of account %s', e.transaction_id, e.amount, e.account_id) AS what
            FROM ledger.entries AS e
            LEFT JOIN ({_MOVES}) AS m ON m.transaction_id = e.transaction_id AND m.account_id = e.account_id
            WHERE e.account_version IS NOT NULL AND m.transaction_id IS NULL
            """,  # noqa: S608 - of constants
        ),
        Fact(
            "Available points are part of the balance, and whoever was refused for want of points lacked them.",
            """
            SELECT format(
                'redemption %s: %s, %s points, balance %s, available %s',
                r.redemption_id, coalesce(r.rejection, 'done'), r.points, r.balance, r.available
            ) AS what
            FROM ledger.redemptions AS r
            WHERE r.available NOT BETWEEN 0 AND r.balance
                OR (r.rejection = 'insufficient-points' AND coalesce(r.available, r.balance) >= r.points)
            """,
        ),
        Fact(
            "A follow-up is about a redemption of the same account and client that was done; the system ends holds.",
            """
            SELECT format('%s %s of %s', r.kind, r.redemption_id, r.origin_id) AS what
            FROM ledger.redemptions AS r LEFT JOIN ledger.redemptions AS o ON o.redemption_id = r.origin_id
            WHERE r.kind NOT IN ('redeem', 'reserve') AND (
                o.redemption_id IS NULL OR o.kind NOT IN ('redeem', 'reserve') OR o.account_id <> r.account_id
                OR r.client_id <> CASE r.kind WHEN 'expire' THEN 'system:upkeep' ELSE o.client_id END
                OR (r.rejection IS NULL AND (o.rejection IS NOT NULL OR (r.kind <> 'refund' AND o.kind <> 'reserve')))
            )
            """,
        ),
        Fact(
            "A hold ends once: by a capture of at most its points, or by a void or its expiry with all of them.",
            """
            SELECT format(
                'hold %s of %s: ended %s times, %s points', o.redemption_id, o.points, count(*), sum(r.points)
            ) AS what
            FROM ledger.redemptions AS r JOIN ledger.redemptions AS o ON o.redemption_id = r.origin_id
            WHERE r.rejection IS NULL AND r.kind IN ('capture', 'void', 'expire')
            GROUP BY o.redemption_id, o.points
            HAVING count(*) > 1 OR bool_or(r.points > o.points OR (r.kind <> 'capture' AND r.points < o.points))
            """,
        ),
        Fact(
            "No more is given back than was redeemed.",
            """
            SELECT format('redemption %s: redeemed %s, refunded %s', o.redemption_id, f.redeemed, f.refunded) AS what
            FROM ledger.redemptions AS o
            JOIN (
                SELECT
                    coalesce(r.origin_id, r.redemption_id) AS redemption_id,
                    coalesce(sum(r.points) FILTER (WHERE r.kind IN ('redeem', 'capture')), 0) AS redeemed,
                    sum(r.points) FILTER (WHERE r.kind = 'refund') AS refunded
                FROM ledger.redemptions AS r WHERE r.rejection IS NULL
                GROUP BY 1
            ) AS f USING (redemption_id)
            WHERE f.refunded > f.redeemed
            """,
        ),
    ),
)

_LOTS: Final = Check(
    "Every point that may be spent lies in a lot, and every lot says where its points came from and went.",
    (
        Fact(
            "What remains of a lot is the sum of its postings, none to all of its points; it is open while any do.",
            """
            SELECT format('lot %s of %s: remaining %s, postings %s', l.lot_id, l.points, l.remaining, p.amount) AS what
            FROM ledger.lots AS l
            LEFT JOIN (SELECT p.lot_id, sum(p.amount) AS amount FROM ledger.lot_postings AS p GROUP BY p.lot_id) AS p
                USING (lot_id)
            WHERE l.remaining IS DISTINCT FROM p.amount OR l.remaining NOT BETWEEN 0 AND l.points
                OR l.open <> (l.remaining > 0)
            """,
        ),
        Fact(
            "A lot begins with all its points, as an accrual grants them; else as a count, or a refund of what was"
            " spent before there were lots, and then it has no end.",
            """
            SELECT format('lot %s of account %s: %s points', l.lot_id, l.account_id, l.points) AS what
            FROM ledger.lots AS l
            LEFT JOIN ledger.lot_postings AS p ON p.lot_id = l.lot_id AND p.transaction_id = l.lot_id
            LEFT JOIN ledger.accruals AS a ON a.accrual_id = l.lot_id
            LEFT JOIN ledger.redemptions AS r ON r.redemption_id = l.lot_id
            LEFT JOIN ledger.redemptions AS o ON o.redemption_id = r.origin_id
            WHERE p.amount IS DISTINCT FROM l.points
                OR CASE
                    WHEN a.accrual_id IS NOT NULL
                    THEN (l.account_id, l.points, l.expires_at)
                        IS DISTINCT FROM (a.account_id, a.points, a.expires_at)
                    WHEN r.redemption_id IS NOT NULL
                    THEN (r.kind = 'refund' AND r.rejection IS NULL AND o.available IS NULL AND l.expires_at IS NULL
                        AND (l.account_id, l.points) = (r.account_id, r.points)) IS NOT TRUE
                    ELSE l.expires_at IS NOT NULL
                END
            """,
        ),
        Fact(
            "A posting is to a lot that there is, of its transaction's account.",
            """
            SELECT format('transaction %s: %s to lot %s', p.transaction_id, p.amount, p.lot_id) AS what
            FROM ledger.lot_postings AS p
            LEFT JOIN ledger.lots AS l USING (lot_id)
            LEFT JOIN ledger.redemptions AS r ON r.redemption_id = p.transaction_id
            LEFT JOIN ledger.accruals AS a ON a.accrual_id = p.transaction_id
            LEFT JOIN ledger.expirations AS x ON x.expiration_id = p.transaction_id
            WHERE l.lot_id IS NULL OR coalesce(r.account_id, a.account_id, x.account_id, l.account_id) <> l.account_id
            """,
        ),
        Fact(
            "Lots are counted only where points moved without them.",
            """
            SELECT format('count %s of account %s', c.transaction_id, c.account_id) AS what
            FROM (
                SELECT DISTINCT p.transaction_id, l.account_id
                FROM ledger.lot_postings AS p JOIN ledger.lots AS l USING (lot_id)
                WHERE NOT EXISTS (SELECT FROM ledger.redemptions AS r WHERE r.redemption_id = p.transaction_id)
                    AND NOT EXISTS (SELECT FROM ledger.accruals AS a WHERE a.accrual_id = p.transaction_id)
                    AND NOT EXISTS (SELECT FROM ledger.expirations AS x WHERE x.expiration_id = p.transaction_id)
            ) AS c
            LEFT JOIN (
                SELECT r.account_id FROM ledger.redemptions AS r
                WHERE r.kind = 'redeem' AND r.rejection IS NULL AND r.available IS NULL
                UNION
                SELECT a.account_id FROM ledger.accruals AS a
                WHERE NOT EXISTS (SELECT FROM ledger.lots AS l WHERE l.lot_id = a.accrual_id)
            ) AS m USING (account_id)
            WHERE m.account_id IS NULL
            """,
        ),
        Fact(
            "A decision takes its points from lots or gives them back, to the last one; so do grants and expirations.",
            f"""
            SELECT format('transaction %s: %s due, %s posted', transaction_id, d.amount, p.amount) AS what
            FROM ({_DUES}) AS d
            LEFT JOIN (
                SELECT p.transaction_id, sum(p.amount) AS amount FROM ledger.lot_postings AS p GROUP BY p.transaction_id
            ) AS p USING (transaction_id)
            WHERE d.amount <> coalesce(p.amount, 0)
            """,  # noqa: S608 - of constants
        ),
        Fact(
            "Points go back to the lots that they came from, and no more of them.",
            """
            SELECT format('redemption %s: %s too many to lot %s', f.redemption_id, f.amount, f.lot_id) AS what
            FROM (
                SELECT coalesce(r.origin_id, r.redemption_id) AS redemption_id, p.lot_id, sum(p.amount) AS amount
                FROM ledger.lot_postings AS p JOIN ledger.redemptions AS r ON r.redemption_id = p.transaction_id
                WHERE p.lot_id <> p.transaction_id -- the lot of a refund begins with it
                GROUP BY 1, 2
            ) AS f
            WHERE f.amount > 0
            """,
        ),
        Fact(
            "Nothing is spent from a lot that has ended, and nothing expires from one that has not.",
            """
            SELECT format('transaction %s: %s from lot %s', p.transaction_id, p.amount, p.lot_id) AS what
            FROM ledger.lot_postings AS p
            JOIN ledger.lots AS l USING (lot_id)
            LEFT JOIN ledger.redemptions AS r ON r.redemption_id = p.transaction_id
            LEFT JOIN ledger.expirations AS x ON x.expiration_id = p.transaction_id
            WHERE p.amount < 0 AND (
                l.expires_at <= r.created_at
                OR (x.expiration_id IS NOT NULL AND coalesce(l.expires_at, 'infinity') > x.created_at)
            )
            """,
        ),
        Fact(
            "The open lots of an account hold what may be spent, once they are counted.",
            """
            SELECT format(
                'account %s: balance %s, held %s, in lots %s, as of version %s of %s',
                account_id, a.balance, a.held, l.remaining, a.lots_version, a.version
            ) AS what
            FROM ledger.accounts AS a
            LEFT JOIN (
                SELECT l.account_id, sum(l.remaining) AS remaining
                FROM ledger.lots AS l WHERE l.open GROUP BY l.account_id
            ) AS l USING (account_id)
            WHERE a.lots_version > a.version
                OR (a.lots_version = a.version AND a.balance - a.held <> coalesce(l.remaining, 0))
            """,
        ),
        Fact(
            "An account is looked at before its first lot ends.",
            """
            SELECT format('account %s: next %s, a lot ends %s', account_id, a.next_expiry, l.first_end) AS what
            FROM ledger.accounts AS a
            JOIN (
                SELECT l.account_id, min(l.expires_at) AS first_end
                FROM ledger.lots AS l WHERE l.open GROUP BY l.account_id
            ) AS l USING (account_id)
            WHERE l.first_end < coalesce(a.next_expiry, 'infinity')
            """,
        ),
    ),
)

_HOLDS: Final = Check(
    "What is set aside is what open holds hold, and a hold is open until it is ended.",
    (
        Fact(
            "What an account has set aside is the sum of its open holds.",
            """
            SELECT format('account %s: held %s, holds %s', account_id, a.held, h.points) AS what
            FROM ledger.accounts AS a
            FULL JOIN (SELECT h.account_id, sum(h.points) AS points FROM ledger.holds AS h GROUP BY h.account_id) AS h
                USING (account_id)
            WHERE a.held IS DISTINCT FROM coalesce(h.points, 0)
            """,
        ),
        Fact(
            "An open hold is as its reserve decided, and nothing has ended it.",
            """
            SELECT format('hold %s of %s points', h.redemption_id, h.points) AS what
            FROM ledger.holds AS h LEFT JOIN ledger.redemptions AS r USING (redemption_id)
            WHERE (r.kind, r.account_id, r.points, r.hold_expires_at)
                    IS DISTINCT FROM ('reserve', h.account_id, h.points, h.expires_at)
                OR r.rejection IS NOT NULL
                OR EXISTS (
                    SELECT FROM ledger.redemptions AS f
                    WHERE f.origin_id = h.redemption_id
                        AND f.rejection IS NULL AND f.kind IN ('capture', 'void', 'expire')
                )
            """,
        ),
        Fact(
            "A reserve that nothing has ended has its hold.",
            """
            SELECT format('reserve %s of %s points', r.redemption_id, r.points) AS what
            FROM ledger.redemptions AS r
            WHERE r.kind = 'reserve' AND r.rejection IS NULL
                AND NOT EXISTS (SELECT FROM ledger.holds AS h WHERE h.redemption_id = r.redemption_id)
                AND NOT EXISTS (
                    SELECT FROM ledger.redemptions AS f
                    WHERE f.origin_id = r.redemption_id
                        AND f.rejection IS NULL AND f.kind IN ('capture', 'void', 'expire')
                )
            """,
        ),
    ),
)

_CHAIN: Final = Check(
    "The hash chain covers the entries and decisions as they were written.",
    (
        Fact(
            "Seals are numbered 1, 2, 3 and so on, and each reaches further than the one before.",
            """
            SELECT format('seal %s through %s after %s through %s', s.number, s.through, s.before, s.reached) AS what
            FROM (
                SELECT s.number, s.through, lag(s.number, 1, 0::bigint) OVER w AS before,
                    lag(s.through, 1, -1::bigint) OVER w AS reached
                FROM ledger.seals AS s WINDOW w AS (ORDER BY s.number)
            ) AS s
            WHERE s.number <> s.before + 1 OR s.through <= s.reached
            """,
        ),
        Fact(
            "Every row up to the last seal is covered by a seal.",
            """
            SELECT format('%s rows, %s of them covered', c.present, s.covered) AS what
            FROM (SELECT sum(s.rows) AS covered, max(s.through) AS through FROM ledger.seals AS s) AS s
            CROSS JOIN LATERAL (
                SELECT count(*) AS present
                FROM (
                    SELECT e.transaction_number FROM ledger.entries AS e
                    UNION ALL
                    SELECT r.transaction_number FROM ledger.redemptions AS r
                ) AS n
                WHERE coalesce(n.transaction_number, 0) <= s.through
            ) AS c
            WHERE c.present <> s.covered
            """,
        ),
        Fact(
            "No row is ahead of the database's transactions, where no seal would cover it for long.",
            """
            SELECT format('transaction %s: number %s', n.transaction_id, n.transaction_number) AS what
            FROM (
                SELECT e.transaction_id, e.transaction_number FROM ledger.entries AS e
                UNION ALL
                SELECT r.redemption_id, r.transaction_number FROM ledger.redemptions AS r
            ) AS n
            WHERE n.transaction_number > pg_snapshot_xmax(pg_current_snapshot())::text::bigint
            """,
        ),
    ),
)

CHECKS: Final[Mapping[str, Check]] = MappingProxyType(
    {
        "versions": _VERSIONS,
        "balances": _BALANCES,
        "sums": _SUMS,
        "redemptions": _REDEMPTIONS,
        "lots": _LOTS,
        "holds": _HOLDS,
        "chain": _CHAIN,
    }
)
"""What is checked, by the name that the metric gives it, in the order of the checks."""

SEALED: Final = "A seal's hash is that of its rows as they are now, and of the seal before."
HEAD_PRESENT: Final = "The head that was noted earlier is in the chain."


# --- the verification -------------------------------------------------------------------------------------------------

Progress = Callable[[str, str], None]
"""Told a check's name and a fact's sentence when it is their turn."""


async def verify(  # noqa: PLR0913 - each may be left out
    connect: Any,  # noqa: ANN401 - asyncpg ships no types
    *,
    expect_head: tuple[int, bytes] | None = None,
    first_only: bool = False,
    progress: Progress | None = None,
    ca_file: Path | None = None,
    seconds_max: float = SECONDS_MAX,
) -> Report:
    """Look at the whole ledger, as it is at one moment.

    Args:
        connect: URL of a login that is a member of redemption_auditor, or a connection of one that nobody else uses.
        expect_head: A head that was noted earlier, number and hash.
        first_only: Stop at the first fact that does not hold.
        progress: Told how far it is.
        ca_file: Whom to trust; with it the server of a URL must prove its name by TLS (verify-full).
        seconds_max: How long all of it may take; a server that falls silent is left after this time.

    Raises:
        OSError: The database cannot be reached; or it took too long (TimeoutError).
        asyncpg.PostgresError: It cannot answer: the login may not read the ledger, say.
    """
    began_at, began = datetime.now(UTC), time.monotonic()
    results: list[Result] = []
    bound = asyncio.timeout(seconds_max)
    try:
        async with bound, _moment(connect, ca_file) as connection:
            await connection.execute(f"SET LOCAL work_mem = '{_WORK_MEMORY}'")
            chain = _Chain(connection, expect_head)
            for name, check in CHECKS.items():
                result = await _checked(name, check, chain, first_only=first_only, progress=progress or _quiet)
                results.append(result)
                if first_only and result.findings:
                    break
    except TimeoutError as error:
        if bound.expired():
            raise TimeoutError(f"the verification took longer than {seconds_max:g} s and was given up") from error
        raise
    return Report(began_at, time.monotonic() - began, tuple(results), chain.head)


@asynccontextmanager
async def _moment(connect: Any, ca_file: Path | None) -> AsyncIterator[Any]:  # noqa: ANN401 - as above
    """A connection in a transaction that sees one moment and writes nothing."""
    given = not isinstance(connect, str)
    connection = connect
    if not given:
        connection = await asyncpg.connect(
            connect,
            timeout=_CONNECT_SECONDS_MAX,
            server_settings={"application_name": "redemption-verification"},
            ssl=tls(ca_file),
        )
    transaction = connection.transaction(isolation="repeatable_read", readonly=True)
    try:
        await transaction.start()
        yield connection
    finally:
        # Both first ask the server to end what is under way, and asyncpg waits for its answer without a bound. There
        # is nothing to lose any more: neither what was found, nor what interrupted it, gives way to a fault here.
        with suppress(Exception):
            async with asyncio.timeout(_END_SECONDS_MAX):
                await (transaction.rollback() if given else connection.close())


def _quiet(_check: str, _fact: str) -> None:
    """Nobody wants to know."""


async def _checked(name: str, check: Check, chain: _Chain, *, first_only: bool, progress: Progress) -> Result:
    began = time.monotonic()
    findings: list[Finding] = []
    for fact in check.facts:
        progress(name, fact.sentence)
        findings += await _contradicted(chain.connection, fact)
        if first_only and findings:
            break
    else:
        if check is _CHAIN:
            progress(name, SEALED)
            findings += await chain.findings(first_only=first_only)
    return Result(name, tuple(findings), time.monotonic() - began)


async def _contradicted(connection: Any, fact: Fact) -> list[Finding]:  # noqa: ANN401 - as above
    rows = await connection.fetch(
        f"SELECT c.what, count(*) OVER () AS mismatches FROM ({fact.contradictions}) AS c LIMIT {_EXAMPLES_MAX}"  # noqa: S608 - of constants
    )
    if not rows:
        return []
    return [Finding(fact.sentence, rows[0]["mismatches"], tuple(row["what"] for row in rows))]


class _Chain:
    """The hash chain, recomputed from the rows that it covers.

    Args:
        connection: In the verification's transaction.
        expected: A head that must be in the chain.
    """

    def __init__(self, connection: Any, expected: tuple[int, bytes] | None) -> None:  # noqa: ANN401 - as above
        self.connection = connection
        self.head: Head | None = None
        self._expected = expected

    async def findings(self, *, first_only: bool) -> list[Finding]:
        """What does not fit. After a seal that does not, the next is recomputed from it as it is: one fault is one."""
        mismatches = 0
        examples: list[str] = []
        last: Head | None = None
        above, present = -1, self._expected is None
        seals = "SELECT number, through, rows, sha256 FROM ledger.seals ORDER BY number"
        async for seal in self.connection.cursor(seals, prefetch=_PREFETCH_ROWS):
            rows, sha256 = await self._recomputed(last.sha256 if last else b"", above, seal["through"])
            if (rows, sha256) != (seal["rows"], seal["sha256"]):
                mismatches += 1
                if len(examples) < _EXAMPLES_MAX:
                    examples.append(f"seal {seal['number']} through {seal['through']}: {seal['rows']} rows, now {rows}")
                if first_only:
                    return [Finding(SEALED, mismatches, tuple(examples))]
            last, above = Head(seal["number"], seal["sha256"]), seal["through"]
            present = present or last == self._expected
        self.head = last
        findings = [Finding(SEALED, mismatches, tuple(examples))] if mismatches else []
        if not present:
            findings.append(Finding(HEAD_PRESENT, 1, (f"the chain ends with {last}",)))
        return findings

    async def _recomputed(self, previous: bytes, above: int, through: int) -> tuple[int, bytes]:
        """How many rows a seal covers, and its hash, as they are now."""
        rows, lines = 0, hashlib.sha256()
        query = "SELECT line FROM ledger.chain_rows($1, $2)"  # in the chain's own order
        async for row in self.connection.cursor(query, above, through, prefetch=_PREFETCH_ROWS):
            rows += 1
            lines.update(hashlib.sha256(row["line"].encode()).digest())
        numbers = b"".join(number.to_bytes(_INT8_BYTES, "big", signed=True) for number in (through, rows))
        return rows, hashlib.sha256(previous + numbers + lines.digest()).digest()


# --- the report -------------------------------------------------------------------------------------------------------


def describe(report: Report) -> str:
    """A report for a person: a line for each check, and below it what does not fit."""
    return "\n".join(_lines(report))


def _lines(report: Report) -> Iterator[str]:
    for result in report.results:
        word = "MISMATCH" if result.findings else "ok"
        yield f"{word:<8}  {result.check:<11}  {result.seconds:7.1f} s  {CHECKS[result.check].sentence}"
        for finding in result.findings:
            yield f"          {finding.mismatches} against: {finding.fact}"
            yield from (f"            {example}" for example in finding.examples)
            if finding.mismatches > len(finding.examples):
                yield f"            and {finding.mismatches - len(finding.examples)} more"
    if not report.complete:
        yield "Stopped at the first mismatch; the rest was not looked at."
    yield f"Head of the chain: {report.head or 'none'}"


def as_json(report: Report) -> dict[str, Any]:
    """A report for a program, of values that JSON knows."""
    return {
        "ok": report.ok,
        "complete": report.complete,
        "began_at": report.began_at.isoformat(),
        "seconds": report.seconds,
        "checks": {
            result.check: {
                "mismatches": result.mismatches,
                "seconds": result.seconds,
                "findings": [asdict(finding) for finding in result.findings],
            }
            for result in report.results
        },
        "head": None if report.head is None else {"number": report.head.number, "sha256": report.head.sha256.hex()},
    }
