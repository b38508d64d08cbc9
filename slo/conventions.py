"""Every name that is derived from a definition, in one place.

Recorded series follow Sloth where Sloth has a name (https://sloth.dev), so that boards and habits built on it keep
working. Names of ours follow `level:metric:operations` (https://prometheus.io/docs/practices/rules/).
"""

from __future__ import annotations

import re
from datetime import timedelta
from decimal import Decimal
from functools import lru_cache
from typing import TYPE_CHECKING

from slo.windows import Severity

if TYPE_CHECKING:
    from slo.model import Slo

# --- numbers and durations ------------------------------------------------------------------------------------------

_UNITS_MS = (
    ("y", 31_536_000_000),
    ("w", 604_800_000),
    ("d", 86_400_000),
    ("h", 3_600_000),
)
_SMALL_UNITS_MS = (("m", 60_000), ("s", 1_000), ("ms", 1))
_ONLY_WHOLE = frozenset({"y", "w"})


@lru_cache(maxsize=1024)  # a rule set says the same dozen again and again
def duration(length: timedelta) -> str:
    """A duration as Prometheus prints it: 28 days are `4w`, 30 days `30d`, 36 hours `1d12h`."""
    rest = length // timedelta(milliseconds=1)
    if rest <= 0:
        message = f"a PromQL duration must be positive, not {length}"
        raise ValueError(message)
    text = ""
    for unit, milliseconds in _UNITS_MS + _SMALL_UNITS_MS:
        if unit in _ONLY_WHOLE and rest % milliseconds:
            continue
        count, rest = divmod(rest, milliseconds)
        text += f"{count}{unit}" if count else ""
    return text


@lru_cache(maxsize=1024, typed=True)
def number(value: Decimal | float) -> str:
    """A number for PromQL: plain digits, no exponent, at most 15 significant digits."""
    exact = Decimal(str(value))
    text = f"{exact:f}"
    digits = len(text.replace(".", "").replace("-", "").lstrip("0"))
    if digits > _SIGNIFICANT_DIGITS:
        text = f"{Decimal(f'{exact:.{_SIGNIFICANT_DIGITS}g}'):f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


_SIGNIFICANT_DIGITS = 15  # what a float64, PromQL's only number, keeps without change


def le(edge: float) -> str:
    """A bucket edge as Python's client exposes it: `1.0`, not `1`, which would match nothing."""
    return repr(float(edge))


# --- recorded series ------------------------------------------------------------------------------------------------

SLI_ERROR = "slo:sli_error:ratio_rate"  # + window, or + MONTH
OBJECTIVE = "slo:objective:ratio"
ERROR_BUDGET = "slo:error_budget:ratio"
TIME_PERIOD = "slo:time_period:days"
CURRENT_BURN_RATE = "slo:current_burn_rate:ratio"
PERIOD_BURN_RATE = "slo:period_burn_rate:ratio"
ERROR_BUDGET_REMAINING = "slo:period_error_budget_remaining:ratio"
INFO = "sloth_slo_info"

ALL_EVENTS = "slo:all_events:rate"  # + window; events per second
BAD_EVENTS = "slo:bad_events:rate"
BAD_EVENTS_INCREASE = "slo:bad_events:increase"  # + window; events
ERROR_BUDGET_RATE = "slo:error_budget:rate"  # bad events per second that the objective allows at the period's traffic
ERROR_BUDGET_BURN = "slo:error_budget_burn:ratio_rate"  # + window; the budget-true burn rate

MONTH = "_month"  # in the place of a window: since the first of the month


def coarse(series: str, interval: timedelta, base: timedelta) -> str:
    """The coarse recording of an event rate, `slo:bad_events:avg5m_rate5m` say."""
    return f"{series.removesuffix('rate')}avg{duration(interval)}_rate{duration(base)}"


def identity_labels(slo: Slo) -> dict[str, str]:
    """The labels that name an SLO; a series with these alone never collides when other labels change."""
    return {"sloth_id": slo.id, "sloth_service": slo.service, "sloth_slo": slo.name}


def info_labels(slo: Slo) -> dict[str, str]:
    """The labels that Sloth puts on its info series, so that boards built on it keep working."""
    return {
        "sloth_mode": "cli-gen-prom",
        "sloth_objective": number(slo.objective),
        "sloth_spec": "prometheus/v1",
        "sloth_version": "slo-platform",
    }


WINDOW_LABEL = "sloth_window"
MONTH_LABEL = "sloth_month"
SEVERITY_LABEL = "sloth_severity"

# --- groups, alerts, boards, files ----------------------------------------------------------------------------------


def group_name(slo: Slo) -> str:
    """The rule group that runs every evaluation."""
    return f"slo-{slo.id}"


def coarse_group_name(slo: Slo) -> str:
    """The rule group that runs every few minutes and feeds the long windows."""
    return f"slo-{slo.id}-coarse"


def camel_case(text: str) -> str:
    """`redemption-availability` becomes `RedemptionAvailability`."""
    return "".join(part[:1].upper() + part[1:] for part in re.split(r"[-_.\s]+", text))


def alert_name(slo: Slo, severity: Severity) -> str:
    """The name of a burn-rate alert; unlike Sloth's, a page and a ticket have names of their own."""
    return f"{alert_stem(slo)}{camel_case(severity)}"


def absent_alert_name(slo: Slo) -> str:
    """The name of the alert that says that the SLI has no data."""
    return f"{alert_stem(slo)}Absent"


def alert_stem(slo: Slo) -> str:
    """What the names of an SLO's alerts begin with."""
    return slo.alert_name or camel_case(slo.service) + camel_case(slo.name)


WATCHDOG = "Watchdog"
WATCHDOG_SEVERITY = "watchdog"

OVERVIEW_UID = "slo-overview"
DETAIL_UID = "slo-detail"  # one board for all SLOs, chosen by the variables `service` and `slo`
DETAIL_PANELS = {"page": 9, "ticket": 10, "events": 12}
"""Panels of that board that links open alone: the burn in the windows of a severity, and events per second."""
FLASH_SALE_UID = "flash-sale"
PLATFORM_UID = "slo-platform"  # whether what tells of all others is to be believed


def component_uid(component: str) -> str:
    """The board of a component, by its golden signals."""
    return f"component-{component}"


# --- CloudWatch -----------------------------------------------------------------------------------------------------

# What a process publishes of its own SLOs, for each minute: the sums of its events, also while they are 0.
EVENTS_NAMESPACE = "SLO"
BAD_EVENTS_METRIC = "BadEvents"
ALL_EVENTS_METRIC = "AllEvents"
SERVICE_DIMENSION = "Service"
SLO_DIMENSION = "Slo"

BURN_SPEEDS = ("fast", "mid", "slow", "trickle")  # of a policy's pairs of windows, in their order


def event_dimensions(slo: Slo) -> dict[str, str]:
    """The dimensions under which a process publishes the events of an SLO."""
    return {SERVICE_DIMENSION: slo.service, SLO_DIMENSION: slo.name}


# --- runbooks -------------------------------------------------------------------------------------------------------


def runbook_file(alert: str) -> str:
    """The runbook of an alert, below `runbooks/`."""
    return f"{alert}.md"
