"""The way of a redemption: hints are believed only when they were signed here, and an outage is not seen too easily."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime
from uuid import UUID

import pytest

from service.domain import Redemption, RedemptionRequest
from service.ledger import Wanted
from service.redeeming import HintSeal, Outage

pytestmark = pytest.mark.anyio

REQUEST = RedemptionRequest(account_id="guest", points=5)
WANTED = Wanted("client", "0123456789abcdef", REQUEST, REQUEST.fingerprint(), 0.0)
DECIDED = Redemption(
    redemption_id=UUID(int=7),
    account_id="guest",
    mode="immediate",
    points=5,
    status="redeemed",
    rejection=None,
    captured_points=5,
    refunded_points=0,
    balance=95,
    available=95,
    hold_expires_at=None,
    created_at=datetime(2026, 11, 26, 3, 0, 0, 123, tzinfo=UTC),
)


async def test_a_hint_comes_back_as_it_was() -> None:
    """The decision that was remembered, field by field, also one with a hold."""
    seal = HintSeal(b"k" * 32)
    held = replace(DECIDED, mode="reserve", status="reserved", hold_expires_at=datetime(2026, 12, 1, tzinfo=UTC))
    for decided in (DECIDED, held):
        assert seal.open(WANTED, seal.close(WANTED, decided)) == decided


async def test_a_hint_of_somebody_else_is_none() -> None:
    """Another key, another client, another request, a changed byte, or any bytes: nothing is known then."""
    seal = HintSeal(b"k" * 32)
    sealed = seal.close(WANTED, DECIDED)
    other = RedemptionRequest(account_id="guest", points=6)
    assert HintSeal(b"K" * 32).open(WANTED, sealed) is None
    assert seal.open(replace(WANTED, client_id="other"), sealed) is None
    assert seal.open(replace(WANTED, key="0123456789abcdeg"), sealed) is None
    assert seal.open(replace(WANTED, request=other, fingerprint=other.fingerprint()), sealed) is None
    assert seal.open(WANTED, sealed[:-3] + b'"}}') is None
    assert seal.open(WANTED, b"") is None


class _Ledger:
    """Answers the probe once it is told to."""

    def __init__(self) -> None:
        self.answers = False
        self.asked = 0

    async def probe(self) -> None:
        self.asked += 1
        if not self.answers:
            raise OSError


async def test_an_outage_begins_after_some_failures_and_ends_with_an_answer() -> None:
    """Two failed connections are no outage, three in a row are; a probe that gets through ends it."""
    ledger = _Ledger()
    outage = Outage(ledger.probe)
    for _ in range(2):
        outage.unreachable()
    outage.answered()
    for _ in range(2):
        outage.unreachable()
    assert not outage.lasts
    outage.unreachable()
    assert outage.lasts
    ledger.answers = True
    async with asyncio.timeout(5):
        while outage.lasts:
            await asyncio.sleep(0.05)
    assert ledger.asked
    await outage.close()


async def test_one_locked_account_is_no_outage() -> None:
    """Time-outs of one account alone never are; with those of another they are."""
    outage = Outage(_Ledger().probe)
    for _ in range(10):
        outage.silent("locked")
    assert not outage.lasts
    for _ in range(3):
        outage.silent("another")
    assert outage.lasts
    await outage.close()
