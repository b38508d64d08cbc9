"""Small made-up readings for the tests of the pure parts."""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Any

from review import budget as budgets
from review import incidents as spending
from review.incidents import RawFiring
from review.model import (
    Adjustment,
    AppliedAdjustment,
    Budget,
    Cause,
    Companion,
    EventWindows,
    LastPeriod,
    Review,
    SloReview,
    Span,
)
from slo import CompiledSlo, Rolling, Window, compile_slo
from slo.definitions import redemption

STEP = 300.0
BEGIN = 1_750_032_000.0  # 16 June 2025, 00:00 UTC
A_DAY = 288  # windows

THIRTY = Rolling(30)


def promise(objective: str = "99.9", window: Window = THIRTY, name: str = "availability") -> CompiledSlo:
    """A promise with a budget that is easy to count in the head."""
    return compile_slo(replace(redemption.availability, name=name, objective=Decimal(objective), window=window))


def windows(every: Sequence[float], bad: Sequence[float], begin: float = BEGIN) -> EventWindows:
    """Windows whose bad events are known exactly; NaN among all events: no data."""
    return EventWindows(
        begin, STEP, array("d", every), array("d", bad), array("d", [0 if math.isnan(b) else b for b in bad])
    )


def even(days: float, *, rate: float = 300.0, bad: float = 0.0) -> EventWindows:
    """The same number of events in every window."""
    count = round(days * A_DAY)
    return windows([rate] * count, [bad] * count)


def period(of: EventWindows) -> budgets.Period:
    """A rolling period as long as the windows."""
    span = of.span
    return budgets.Period(span, span.seconds, rolling=True, before=Span(span.begin - span.seconds, span.begin))


def budget(compiled: CompiledSlo, of: EventWindows) -> Budget:
    """The budget of the windows."""
    measured = budgets.measure(compiled, of, (), period(of))
    assert measured is not None
    return measured


def made_review(**changes: object) -> Review:
    """A review in which everything happened that can happen, with names that are no friends of HTML and Markdown."""
    gone, fine, silent = (promise(name=name) for name in ("gone", "fine", "silent"))
    bad = [0.05] * (30 * A_DAY)
    bad[4_000:4_012] = [300.0] * 12
    every = [300.0] * len(bad)
    every[6_000:6_024] = [math.nan] * 24
    of = windows(every, [math.nan if math.isnan(e) else b for e, b in zip(every, bad, strict=True)])
    agreed = Adjustment(slo="*", span=of.window(2_000), reason="<b>Drill</b> | `x`", approver="Dana & <Co>")
    incident = replace(
        spending.find(gone, of, budget(gone, of))[0],
        component="rds",
        companions=(Companion(name="rds/<calls>", component="rds", began_before_seconds=60, overlap=0.9),),
        causes=(Cause(labels={"route": "GET /{id}", "outcome": "error"}, bad_events=3_000, share=0.83),),
    )
    firing = RawFiring(
        "RedemptionGonePage", "page", Span(incident.span.begin + 600, incident.span.end), still_firing=False
    )
    stray = RawFiring("RedemptionGonePage", "page", Span(BEGIN + 90_000, BEGIN + 90_300), still_firing=False)
    told = SloReview(
        compiled=gone,
        windows=of,
        budget=budget(gone, of),
        last_period=LastPeriod(spent=0.4, recorded=1.0),
        forecast=None,
        incidents=(incident,),
        firings=tuple(spending.judge(one, gone, of, budget(gone, of), [incident]) for one in (firing, stray)),
        gaps=budgets.gaps(of),
        adjustments=(AppliedAdjustment(adjustment=agreed, all_events=300, bad_events=12),),
    )
    quiet = even(30, bad=0.05)
    calm = SloReview(
        compiled=fine,
        windows=quiet,
        budget=budget(fine, quiet),
        last_period=None,
        forecast=budgets.forecast(fine, quiet, budget(fine, quiet), period(quiet)),
        incidents=(),
        firings=(),
        gaps=(),
        adjustments=(),
    )
    nothing = windows([math.nan] * A_DAY, [math.nan] * A_DAY)
    unknown = replace(calm, compiled=silent, windows=nothing, budget=None, forecast=None, gaps=budgets.gaps(nothing))
    values: dict[str, Any] = {
        "at": of.span.end,
        "source": "https://prometheus.example/path",
        "window": "30 days",
        "slos": (unknown, told, calm),
        "warnings": ("store <2> does not answer",),
        "notes": ("a note",),
        "queries": 15,
        **changes,
    }
    return Review(**values)
