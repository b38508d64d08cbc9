"""Agreed exclusions from budgets: `budget-adjustments.toml`, reviewed and committed beside the definitions.

::

    [[adjustment]]
    slo = "redemption/availability"     # or "*" for all
    from = 2025-06-01T02:00:00Z
    to = 2025-06-01T03:00:00Z
    reason = "Move of the ledger to a larger machine, announced on 20 May."
    approver = "head of loyalty"
"""

from __future__ import annotations

import tomllib
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from review.model import Adjustment, AppliedAdjustment, EventWindows, Span
from slo.compile import CompiledSlo
from slo.errors import SloError, raise_if_any

FILE = "budget-adjustments.toml"
ALL_SLOS = "*"

_TEXTS = ("slo", "reason", "approver")
_TIMES = ("from", "to")


def read(file: Path, known: Sequence[CompiledSlo]) -> tuple[Adjustment, ...]:
    """The adjustments of a file, in order of time.

    Raises:
        SloError: The file cannot be read or says something wrong; every fault is named.
    """
    subject = f"adjustments {file}"
    try:
        table = tomllib.loads(file.read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SloError(subject, [str(error)]) from error
    raise_if_any(subject, _problems(table, {one.slo.id_path for one in known}))
    found = [
        Adjustment(
            slo=one["slo"],
            span=Span(one["from"].timestamp(), one["to"].timestamp()),
            reason=one["reason"].strip(),
            approver=one["approver"].strip(),
        )
        for one in table.get("adjustment", [])
    ]
    return tuple(sorted(found, key=lambda adjustment: (adjustment.span, adjustment.slo)))


def _problems(table: Mapping[str, Any], known: Collection[str]) -> Iterator[str]:
    for key in sorted(set(table) - {"adjustment"}):
        yield f"unknown key {key!r}; the file is a list of [[adjustment]]"
    entries = table.get("adjustment", [])
    if not isinstance(entries, list) or not all(isinstance(one, dict) for one in entries):
        yield "adjustment must be a list: write [[adjustment]], in double brackets"
        return
    for number, entry in enumerate(entries, start=1):
        yield from (f"adjustment {number}: {problem}" for problem in _problems_of(entry, known))


def _problems_of(entry: Mapping[str, Any], known: Collection[str]) -> Iterator[str]:
    for key in sorted(set(entry) - {*_TEXTS, *_TIMES}):
        yield f"unknown key {key!r}; known are {', '.join((*_TEXTS, *_TIMES))}"
    for key in _TEXTS:
        if not isinstance(entry.get(key), str) or not entry[key].strip():
            yield f"{key} is missing or empty; it is a text"
        elif key == "slo" and entry[key] not in {ALL_SLOS, *known}:
            yield f"slo {entry[key]!r} is not defined; there are {ALL_SLOS} for all, {', '.join(sorted(known))}"
    right = True
    for key in _TIMES:
        value = entry.get(key)
        if not isinstance(value, datetime) or value.tzinfo is None:
            right = False
            yield f"{key} must be a time with an offset from UTC, 2025-06-01T02:00:00Z say, not {_shown(value)}"
    if right and entry["to"] <= entry["from"]:
        yield f"to ({_shown(entry['to'])}) is not after from ({_shown(entry['from'])})"


def _shown(value: object) -> str:
    if isinstance(value, datetime):
        return (value.astimezone(UTC) if value.tzinfo else value).isoformat()
    return "missing" if value is None else repr(value)


def of_slo(adjustments: Sequence[Adjustment], compiled: CompiledSlo, period: Span) -> tuple[Adjustment, ...]:
    """Those that take something away from an SLO's period."""
    return tuple(
        one
        for one in adjustments
        if one.slo in (ALL_SLOS, compiled.slo.id_path) and one.span.overlap_seconds(period) > 0
    )


def applied(
    adjustments: Sequence[Adjustment], windows: EventWindows, counted: EventWindows
) -> tuple[AppliedAdjustment, ...]:
    """What each adjustment took out of a budget.

    Where two cover the same moment, the earlier one is told as having taken it.

    Args:
        adjustments: What was agreed, in order of time.
        windows: All events.
        counted: Those that count.
    """
    told: list[AppliedAdjustment] = []
    seen: set[int] = set()
    for one in adjustments:
        mine = [index for index in windows.indices(one.span) if index not in seen and windows.recorded(index)]
        seen.update(mine)
        told.append(
            AppliedAdjustment(
                adjustment=one,
                all_events=sum(windows.all[index] - counted.all[index] for index in mine),
                bad_events=sum(windows.bad_sharp[index] - counted.bad_sharp[index] for index in mine),
            )
        )
    return tuple(told)
