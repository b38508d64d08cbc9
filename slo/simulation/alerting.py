"""Whom an SLO tells when, as plain data; read from the facts that `slos.json` holds, so that a past one can be too."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import Any

from slo.compile import AlertKind, Reason
from slo.errors import SloError
from slo.windows import CalendarMonth, Policy, Rolling, Severity, policy


@dataclass(frozen=True, slots=True, kw_only=True)
class BurnWay:
    """One way for an alert to be right.

    Attributes:
        reason: Why.
        long: The long window.
        short: The short window.
        factor: Both windows must burn faster than this.
        bad_events_min: So many bad events must be in the long window; 0 for any number.
    """

    reason: Reason
    long: timedelta
    short: timedelta
    factor: float
    bad_events_min: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BurnAlert:
    """An alert that the budget burns.

    Attributes:
        name: Its name.
        severity: Who acts.
        hold: How long it must be right before it fires.
        ways: The ways for it to be right, fastest first.
    """

    name: str
    severity: Severity
    hold: timedelta
    ways: tuple[BurnWay, ...]

    @property
    def lasts(self) -> timedelta:
        """How long after the last bad event it may still begin or go on: its longest short window."""
        return max((way.short for way in self.ways), default=timedelta(0))


@dataclass(frozen=True, slots=True, kw_only=True)
class Alerting:
    """All that decides who is told when.

    Attributes:
        slo: `service/slo`.
        budget_ratio: Share of events that may be bad, 0 to 1.
        policy: Intervals at which the rules run, and the period.
        alerts: The alerts that watch the budget.
        slice: Length of a slice where time is judged, slice by slice; None where events are counted.
    """

    slo: str
    budget_ratio: float
    policy: Policy
    alerts: tuple[BurnAlert, ...]
    slice: timedelta | None

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> Alerting:
        """The alerting of an SLO, from its facts (`slo.catalogue.facts_of`, or a part of a `slos.json`).

        Raises:
            SloError: Its events cannot be counted, or the facts have another format.
        """
        subject = f"simulation of {facts.get('service')}/{facts.get('name')}"
        try:
            if facts["sli"].startswith("bad share: "):
                raise SloError(subject, ["its ratio query does not say how many events it stands for"])
            return cls(
                slo=f"{facts['service']}/{facts['name']}",
                budget_ratio=float(facts["budget"]["ratio"]),
                policy=_policy(facts["period"]),
                alerts=tuple(_alert(one) for one in facts["alerts"] if one["kind"] == AlertKind.BURN),
                slice=_slice(facts["sli"]),
            )
        except (KeyError, TypeError, ArithmeticError, AttributeError) as error:
            raise SloError(subject, [f"the facts have another format ({error!r})"]) from error
        except ValueError as error:
            if isinstance(error, SloError):
                raise
            raise SloError(subject, [f"the facts have another format ({error})"]) from error


def _alert(facts: Mapping[str, Any]) -> BurnAlert:
    return BurnAlert(
        name=facts["name"],
        severity=Severity(facts["severity"]),
        hold=timedelta(seconds=float(facts["hold_seconds"])),
        ways=tuple(_way(one) for one in facts["ways"]),
    )


def _way(facts: Mapping[str, Any]) -> BurnWay:
    return BurnWay(
        reason=Reason(facts["reason"]),
        long=length_of(facts["long"]),
        short=length_of(facts["short"]),
        factor=float(Decimal(facts["factor"])),
        bad_events_min=int(facts["bad_events_min"]),
    )


_DAYS = re.compile(r"(\d+) days?")


def _policy(period: str) -> Policy:
    """The policy of a period as `slo.model.period_text` writes it."""
    days = _DAYS.fullmatch(period)
    return policy(Rolling(int(days[1])) if days else CalendarMonth())


_SLICE = re.compile(r"bad: slices of (\d+) s ")


def _slice(sli: str) -> timedelta | None:
    """The length of a slice, from what `slo.catalogue.sli_text` says of an SLI; None where events are counted."""
    found = _SLICE.match(sli)
    return timedelta(seconds=int(found[1])) if found else None


_UNITS = {"y": 31_536_000_000, "w": 604_800_000, "d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1000, "ms": 1}
_PART = re.compile(r"(\d+)(ms|[ywdhms])")
_DURATION = re.compile(r"(?:\d+(?:ms|[ywdhms]))+")


def length_of(text: str) -> timedelta:
    """A duration as Prometheus writes it, `1d12h` say.

    Raises:
        ValueError: It is none.
    """
    if not _DURATION.fullmatch(text):
        raise ValueError(f"{text!r} is no duration; write 30m or 1d12h say")
    return timedelta(milliseconds=sum(int(count) * _UNITS[unit] for count, unit in _PART.findall(text)))
