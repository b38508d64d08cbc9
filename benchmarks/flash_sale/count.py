"""Counting the truth: bad and all events of each SLO, over the period and in each incident."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path

from benchmarks.flash_sale.events import SLICE, Interval, Plan
from benchmarks.flash_sale.truth import Cost, IncidentTruth, SloTruth, Truth
from slo import Freshness, Recency, Slo
from slo.definitions import redemption
from slo.windows import MINUTE

SLOS: tuple[Slo, ...] = (
    redemption.availability,
    redemption.capture_and_refund,
    redemption.latency_fast,
    redemption.latency_slow,
    redemption.settlement,
    redemption.integrity,
    redemption.verification,
    redemption.sealing,
)
"""Every SLO that the data set has events for."""

_Counted = Callable[[Interval], tuple[int, int]]


def _slice(is_bad: Callable[[Interval], bool]) -> _Counted:
    """One event a slice, which is judged at its end."""
    return lambda one: (0, 0) if one.end % SLICE else (1, int(is_bad(one)))


def _waits_too_long(one: Interval) -> bool:
    sli, oldest = redemption.settlement.sli, one.worker.oldest_accepted
    assert isinstance(sli, Freshness), "settlement is about what waits"
    return oldest is not None and one.end - oldest > timedelta(seconds=sli.age_max_seconds)


def _too_long_ago(slo: Slo, one: Interval, last: timedelta) -> bool:
    assert isinstance(slo.sli, Recency), "the caller names one that is about the last time"
    return one.end - last > timedelta(seconds=slo.sli.age_max_seconds)


# All and bad events of an interval. What the definitions select is written out once more here, from the events' side:
# a truth that came from the selectors could not find a wrong one.
_COUNTED: Mapping[str, _Counted] = {
    redemption.availability.id: lambda one: (one.requests.all, one.requests.bad),
    redemption.capture_and_refund.id: lambda one: (
        one.requests.capture_ok + one.requests.capture_timeout,
        one.requests.capture_timeout,
    ),
    redemption.latency_fast.id: lambda one: (one.requests.redeem_ok, one.requests.slow_quarter),
    redemption.latency_slow.id: lambda one: (one.requests.redeem_ok, one.requests.slow_second),
    redemption.settlement.id: _slice(_waits_too_long),
    redemption.integrity.id: _slice(lambda _: False),
    redemption.verification.id: _slice(
        lambda one: _too_long_ago(redemption.verification, one, one.worker.verified),
    ),
    redemption.sealing.id: _slice(lambda one: _too_long_ago(redemption.sealing, one, one.worker.sealed)),
}


_INTEGER_BYTES = array("q").itemsize


class Count:
    """Counts as intervals come by."""

    def __init__(self, plan: Plan, begin: int) -> None:
        self._plan, self._begin = plan, begin
        self._period_begin = plan.length - min(redemption.MONTH.days, plan.days) * timedelta(days=1)
        self._requests = 0
        self._period: Counter[tuple[str, bool]] = Counter()
        self._incidents: dict[str, Counter[tuple[str, bool]]] = {one.name: Counter() for one in plan.incidents}
        minutes = bytes(_INTEGER_BYTES * (plan.length // MINUTE))
        self._minutes = {slo.id: (array("q", minutes), array("q", minutes)) for slo in SLOS}

    def add(self, interval: Interval) -> None:
        """Count one interval."""
        self._requests += interval.requests.all
        within = [self._incidents[one.name] for one in self._plan.incidents if one.covers(interval.end)]
        if interval.end > self._period_begin:
            within.append(self._period)
        minute = (interval.end - self._plan.scrape_interval) // MINUTE
        for slo, counted in _COUNTED.items():
            every, bad = counted(interval)
            of_all, of_bad = self._minutes[slo]
            of_all[minute] += every
            of_bad[minute] += bad
            for count in within:
                count[slo, False] += every
                count[slo, True] += bad

    def write_traffic(self, folder: Path) -> None:
        """Write each SLO's events, minute by minute, as `slo simulate --traffic` reads them."""
        folder.mkdir()
        for slo, (of_all, of_bad) in self._minutes.items():
            rows = (
                f"{self._begin + minute * int(MINUTE.total_seconds())},{every},{bad}\n"
                for minute, (every, bad) in enumerate(zip(of_all, of_bad, strict=True))
            )
            with (folder / f"{slo}.csv").open("w") as file:
                file.writelines(("time,all,bad\n", *rows))

    def truth(self) -> Truth:
        """What was counted."""
        plan = self._plan
        return Truth(
            seed=plan.seed,
            begin=self._begin,
            period_begin=self._at(self._period_begin),
            end=self._at(plan.length),
            scrape_interval_seconds=int(plan.scrape_interval.total_seconds()),
            pods=plan.pods,
            requests=self._requests,
            slos={slo.id: self._slo(slo) for slo in SLOS},
            incidents=tuple(
                IncidentTruth(
                    name=one.name,
                    kind=str(one.kind),
                    begin=self._at(one.begin),
                    end=self._at(one.end),
                    costs={slo.id: self._cost(slo, self._incidents[one.name]) for slo in SLOS},
                )
                for one in sorted(plan.incidents, key=lambda one: one.begin)
            ),
        )

    def _at(self, moment: timedelta) -> int:
        return self._begin + int(moment.total_seconds())

    def _budget_events(self, slo: Slo) -> float:
        return float(slo.budget_ratio) * self._period[slo.id, False]

    def _slo(self, slo: Slo) -> SloTruth:
        every, bad = (self._period[slo.id, which] for which in (False, True))
        budget = self._budget_events(slo)
        return SloTruth(
            objective_ratio=float(slo.objective_ratio),
            all=every,
            bad=bad,
            budget_events=budget,
            budget_spent=bad / budget if budget else 0.0,
        )

    def _cost(self, slo: Slo, count: Counter[tuple[str, bool]]) -> Cost:
        budget, bad = self._budget_events(slo), count[slo.id, True]
        return Cost(all=count[slo.id, False], bad=bad, budget_spent=bad / budget if budget else 0.0)
