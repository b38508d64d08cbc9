"""After the fault: ask again, with the same keys, until everything is known."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Mapping
from dataclasses import replace

import httpx

from drills.load.history import History, Operation, Outcome, facts
from drills.load.plan import address

_AT_ONCE = 16
_ANSWER_SECONDS_MAX = 10.0
_PAUSE_SECONDS = 0.1
_PAUSE_SECONDS_MAX = 2.0  # of a longer Retry-After no more than this: a drill wants to end
_OPEN = (Outcome.UNKNOWN, Outcome.DEFERRED)


def resolve(
    history: History, url: str, *, headers: Mapping[str, str] | None = None, seconds_max: float = 60.0
) -> History:
    """Settle what is not known: send every unknown redemption again, and follow every deferred one, until decided.

    What is shed on the way is sent again. What is not settled in time stays as it is, so look for it.

    Args:
        history: What the load saw.
        url: The service's base URL now; on this machine.
        headers: Headers of every request.
        seconds_max: Time for all of them.

    Returns:
        The same operations; those that were settled have their last answer, and the time of it.

    Raises:
        PlanError: The URL leads to another machine.
    """
    address(url)
    return asyncio.run(_Resolution(url, dict(headers or {}), time.monotonic() + seconds_max).run(history))


class _Resolution:
    def __init__(self, url: str, headers: dict[str, str], deadline: float) -> None:
        self._http = httpx.AsyncClient(base_url=url, headers=headers, trust_env=False, timeout=_ANSWER_SECONDS_MAX)
        self._deadline = deadline
        self._room = asyncio.Semaphore(_AT_ONCE)

    async def run(self, history: History) -> History:
        async with self._http:
            settled = await asyncio.gather(*(self._settled(one) for one in history.of(*_OPEN)))
        known = {one.key: one for one in settled}
        return History(tuple(known.get(one.key, one) for one in history))

    async def _settled(self, operation: Operation) -> Operation:
        async with self._room:
            while time.monotonic() < self._deadline:
                try:
                    answer = await self._ask(operation)
                except httpx.HTTPError:
                    pause = _PAUSE_SECONDS
                else:
                    operation = _after(operation, answer)
                    if operation.outcome not in _OPEN:
                        return operation
                    pause = _pause(answer)
                await asyncio.sleep(random.uniform(pause / 2, pause))  # noqa: S311 - jitter
            return operation

    async def _ask(self, operation: Operation) -> httpx.Response:
        if operation.outcome is Outcome.DEFERRED and operation.location:
            return await self._http.get(operation.location)
        body = {"account_id": operation.account_id, "points": operation.points}
        return await self._http.post("/v1/redemptions", json=body, headers={"Idempotency-Key": operation.key})


def _after(operation: Operation, answer: httpx.Response) -> Operation:
    """What is known after one more answer."""
    now = time.monotonic()
    found = facts(answer.status_code, answer.content, answer.headers.get("location"))
    if answer.request.method == "POST":
        if found["outcome"] is Outcome.SHED:  # this time; the first time may have done it
            found["outcome"] = Outcome.UNKNOWN
        return replace(operation, **found, returned_at=now, attempts=operation.attempts + 1)
    redemption = answer.json()["redemption"] if answer.status_code == httpx.codes.OK else None
    if redemption is None:
        return operation
    return replace(
        operation,
        outcome=Outcome.REJECTED if redemption["rejection"] else Outcome.ACKNOWLEDGED,
        status=answer.status_code,
        redemption_id=redemption["redemption_id"],
        code=redemption["rejection"],
        returned_at=now,
    )


def _pause(answer: httpx.Response) -> float:
    told = answer.headers.get("retry-after", "")
    return min(float(told), _PAUSE_SECONDS_MAX) if told.isdecimal() else _PAUSE_SECONDS
