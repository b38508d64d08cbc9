"""The definition of a service level objective: frozen values that cannot be wrong.

Vocabulary (Google SRE Workbook): an SLI counts bad events among all events; the objective is the share of good events
that we promise over a window; the error budget is what the objective leaves.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from types import MappingProxyType
from typing import Literal, TypeAlias

from slo import conventions as names
from slo.causes import Component, Signal
from slo.errors import SloError, raise_if_any
from slo.metrics import Counter, Gauge, Histogram, Metric, Selection
from slo.policy import BudgetPolicy
from slo.runbook import Runbook
from slo.windows import CalendarMonth, Policy, Rolling, Severity, Window, policy

__all__ = [
    "Alert",
    "Events",
    "Freshness",
    "Latency",
    "Queries",
    "RatioQuery",
    "Recency",
    "Severity",
    "Sli",
    "Slo",
    "SloError",
    "TimeSlice",
]


# --- what is counted ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Events:
    """Bad events among all events, both counted by one counter.

    Attributes:
        bad: The series that count bad events, a part of `all`.
        all: The series that count every event that the objective speaks of.
    """

    bad: Selection
    all: Selection

    def problems(self, _policy: Policy) -> Iterator[str]:
        """What is wrong with this SLI, one sentence each."""
        yield from _wrong_kind(self.all.metric, Counter)
        if self.bad.metric != self.all.metric:
            yield (
                f"bad counts {self.bad.metric.name} and all counts {self.all.metric.name}; "
                "one counter must count both, or a bad event may be missing from all"
            )
            return
        if _selected(self.bad) == _selected(self.all):
            yield "bad and all select the same series, so every event is bad; narrow bad with .where(...)"
        for label, values in self.all.values.items():
            outside = set(self.bad.values.get(label, self.bad.metric.labels[label])) - set(values)
            if outside:
                yield f"bad selects {label} {sorted(outside)} that all leaves out; bad must be a part of all"


@dataclass(frozen=True, slots=True)
class Latency:
    """Requests slower than a threshold among all requests of a histogram.

    Attributes:
        requests: The histogram's series.
        threshold_seconds: Slower than this is bad. Must be a bucket edge: between edges a histogram knows nothing.
    """

    requests: Selection
    threshold_seconds: float

    def problems(self, _policy: Policy) -> Iterator[str]:
        """What is wrong with this SLI, one sentence each."""
        metric = self.requests.metric
        if not isinstance(metric, Histogram):
            yield from _wrong_kind(metric, Histogram)
        elif self.threshold_seconds not in metric.buckets:
            edges = ", ".join(str(edge) for edge in metric.buckets)
            yield (
                f"the threshold {self.threshold_seconds} s is no bucket edge of {metric.name}; "
                f"use one of {edges}, or add the edge to the metric"
            )


@dataclass(frozen=True, slots=True)
class TimeSlice:
    """A condition on a gauge, judged once a slice: a slice is bad when any series violates it at any time in it.

    Attributes:
        gauge: The series that are judged.
        bad_above: A slice is bad when a value is above this. Give this or `bad_below`.
        bad_below: A slice is bad when a value is below this.
        slice_seconds: Length of a slice.
    """

    gauge: Selection
    bad_above: Decimal | None = None
    bad_below: Decimal | None = None
    slice_seconds: int = 60

    def problems(self, policy: Policy) -> Iterator[str]:
        """What is wrong with this SLI, one sentence each."""
        yield from _wrong_kind(self.gauge.metric, Gauge)
        yield from _wrong_slice(self.slice_seconds, policy)
        if (self.bad_above is None) == (self.bad_below is None):
            yield "a time slice needs exactly one of bad_above and bad_below"
        for limit in (self.bad_above, self.bad_below):
            if limit is not None and not math.isfinite(limit):
                yield f"the limit {limit} is no finite number, so no value could ever be beyond it"


@dataclass(frozen=True, slots=True)
class Freshness:
    """The age of the oldest thing that waits, judged once a slice.

    Attributes:
        oldest: A gauge with the Unix time of the oldest thing that waits, 0 when nothing waits.
        age_max_seconds: A slice in which something waited for longer is bad.
        slice_seconds: Length of a slice.
    """

    oldest: Selection
    age_max_seconds: int
    slice_seconds: int = 60

    def problems(self, policy: Policy) -> Iterator[str]:
        """What is wrong with this SLI, one sentence each."""
        yield from _wrong_kind(self.oldest.metric, Gauge)
        yield from _wrong_slice(self.slice_seconds, policy)
        yield from _wrong_age(self.oldest.metric, self.age_max_seconds, "freshness")


@dataclass(frozen=True, slots=True)
class Recency:
    """The time since something was last done, judged once a slice.

    Where `Freshness` takes 0 for good, as nothing waits, here it is bad: what was never done is late.

    Attributes:
        last: A gauge with the Unix time at which it was last done, 0 when never. Of several series the latest counts:
            it does not matter which process did it.
        age_max_seconds: A slice in which that was longer ago is bad.
        slice_seconds: Length of a slice.
    """

    last: Selection
    age_max_seconds: int
    slice_seconds: int = 60

    def problems(self, policy: Policy) -> Iterator[str]:
        """What is wrong with this SLI, one sentence each."""
        yield from _wrong_kind(self.last.metric, Gauge)
        yield from _wrong_slice(self.slice_seconds, policy)
        yield from _wrong_age(self.last.metric, self.age_max_seconds, "recency")


WINDOW_PLACEHOLDER = re.compile(r"\{\{\s*\.window\s*\}\}")
"""How foreign queries name their window, as in Sloth: `{{.window}}`."""
_WINDOW = "{{.window}}"


@dataclass(frozen=True, slots=True)
class Queries:
    """Two PromQL queries from elsewhere, as rates per second over `{{.window}}`; `Events` suits our own metrics."""

    bad: str
    all: str

    def problems(self, _policy: Policy) -> Iterator[str]:
        """What is wrong with this SLI, one sentence each."""
        yield from _no_window(bad=self.bad, all=self.all)
        if self.bad == self.all:
            yield "the bad and the all query are the same, so every event is bad"


@dataclass(frozen=True, slots=True)
class RatioQuery:
    """One PromQL query from elsewhere that gives an error ratio over `{{.window}}`.

    A ratio does not say how many events it stands for. Every second weighs the same, so a flash sale hides in it: use
    it only where the events themselves are not to be had.
    """

    ratio: str

    def problems(self, _policy: Policy) -> Iterator[str]:
        """What is wrong with this SLI, one sentence each."""
        yield from _no_window(ratio=self.ratio)


Slices: TypeAlias = TimeSlice | Freshness | Recency
"""What is judged once a slice of time, not event by event."""

Sli: TypeAlias = Events | Latency | Slices | Queries | RatioQuery


def _wrong_kind(metric: Metric, kind: type[Metric]) -> Iterator[str]:
    if not isinstance(metric, kind):
        yield f"{metric.name} is a {type(metric).__name__.lower()}; this SLI needs a {kind.__name__.lower()}"


def _selected(selection: Selection) -> dict[str, set[str]]:
    """Every label's values, also those that are selected by leaving the label out."""
    return {name: set(selection.values.get(name, values)) for name, values in selection.metric.labels.items()}


def _wrong_slice(slice_seconds: int, policy: Policy) -> Iterator[str]:
    base_seconds = int((policy.base).total_seconds())
    if slice_seconds < 1 or base_seconds % slice_seconds:
        yield f"a slice of {slice_seconds} s does not divide the shortest window of {base_seconds} s; use 30, 60 or 300"


def _wrong_age(metric: Metric, age_max_seconds: int, reader: str) -> Iterator[str]:
    if not metric.name.endswith("_timestamp_seconds"):
        yield f"{metric.name} is no Unix time; {reader} reads a gauge named *_timestamp_seconds"
    if age_max_seconds < 1:
        yield f"the maximum age is {age_max_seconds} s; it must be at least 1 s"


def _no_window(**queries: str) -> Iterator[str]:
    for name, query in queries.items():
        if not WINDOW_PLACEHOLDER.search(query):
            yield f"the {name} query has no {_WINDOW}; write it where the range goes, as in rate(x[{_WINDOW}])"


# --- who is told ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Alert:
    """One of an SLO's alerts, with what its owner adds to the labels and annotations that we write."""

    severity: Severity
    labels: Mapping[str, str] = field(default_factory=dict, hash=False)
    annotations: Mapping[str, str] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        if not isinstance(self.severity, Severity):
            raise SloError(f"alert {self.severity!r}", ["the severity must be Severity.PAGE or Severity.TICKET"])
        object.__setattr__(self, "labels", MappingProxyType(dict(self.labels)))
        object.__setattr__(self, "annotations", MappingProxyType(dict(self.annotations)))


PAGE_AND_TICKET = (Alert(Severity.PAGE), Alert(Severity.TICKET))

# Sloth's own rule for ids, so that every definition can leave as a Sloth spec.
_NAME = re.compile(r"[A-Za-z0-9][-A-Za-z0-9_.]*[A-Za-z0-9]")
_LABEL_NAME = re.compile(r"(?!__)[a-zA-Z_][a-zA-Z0-9_]*")

# Labels that the rules set; a definition that set them too would break their selectors in silence.
RESERVED_LABELS = frozenset(
    {
        "alertname",
        "service",
        "severity",
        "slo",
        "sloth_id",
        "sloth_month",
        "sloth_service",
        "sloth_severity",
    }
    | {
        "sloth_slo",
        "sloth_window",
        "sloth_version",
        "sloth_mode",
        "sloth_spec",
        "sloth_objective",
    }
)

_THIRTY_DAYS = Rolling(days=30)
_ANY_PERCENT = Decimal(100)
_WINDOW_DAYS_MAX = 366
_OBJECTIVE_DECIMALS_MAX = 13  # in percent; as a ratio two more, which are the 15 digits that PromQL's numbers keep


@dataclass(frozen=True, slots=True, kw_only=True)
class Slo:
    """A promise about a service, with all that its alerts, boards and runbooks need.

    Attributes:
        service: The service that makes the promise.
        name: Name of the promise within the service.
        description: What is promised, in the words of the people it is promised to.
        objective: Percent of events that are good, above 0 and below 100, as a `Decimal` so that a rule reads 0.9999.
        sli: What is counted.
        owner: The team that answers for it; a label on every alert.
        window: The budget's period.
        alerts: Who is told; an empty tuple alerts nobody.
        burn: How fast the budget burns. `"budget"` weighs bad events against the budget of the whole period, so that
            a night's stray error wakes nobody and a flash sale's errors do at once; `"ratio"` is the classic rule,
            which assumes even traffic.
        budget_bad_events_min: An alert that the budget goes needs this many bad events in the long window.
        people_bad_events_min: A page that many people fail needs this many bad events in the long window.
        absent_after: The SLI may be without data for this long, a deployment say, before somebody is told.
        expected_events_per_second: Mean traffic to expect; lets `slo check` see an objective finer than its traffic.
        alert_name: Begin of the alerts' names; by default the service's and the SLO's name in CamelCase.
        labels: More labels for the SLO's series and alerts.
        annotations: More annotations for its alerts.
        links: Title -> URL of what else a responder may want.
        budget_policy: What follows when the budget goes; `slo.policy.DEFAULT_POLICY` if not given.
        component: Of what it is a promise; places it in the matrix of components and golden signals.
        signals: The golden signals that it watches.
        reason: Why this objective and these limits, with the source; needed for the matrix.
        runbook: What only people know of it. `slo check` asks for it where a promise has a component and alerts; one
            from elsewhere, of a Sloth spec say, may go without, and its runbooks then hold the general advice alone.

    Raises:
        SloError: A value is not allowed. The message names the SLO and every fault.
    """

    service: str
    name: str
    description: str
    objective: Decimal
    sli: Sli
    owner: str
    window: Window = _THIRTY_DAYS
    alerts: Sequence[Alert] = PAGE_AND_TICKET
    burn: Literal["budget", "ratio"] = "budget"
    # Both minima: seeded simulation of 20 kinds of incident and quiet stretch, docs/decisions/0003.
    budget_bad_events_min: int = 3
    people_bad_events_min: int = 50
    absent_after: timedelta = timedelta(minutes=5)
    expected_events_per_second: Decimal | None = None
    alert_name: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict, hash=False)
    annotations: Mapping[str, str] = field(default_factory=dict, hash=False)
    links: Mapping[str, str] = field(default_factory=dict, hash=False)
    budget_policy: BudgetPolicy | None = None
    component: Component | None = None
    signals: tuple[Signal, ...] = ()
    reason: str = ""
    runbook: Runbook | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "alerts", tuple(self.alerts))
        for mapping in ("labels", "annotations", "links"):
            object.__setattr__(self, mapping, MappingProxyType(dict(getattr(self, mapping))))
        raise_if_any(f"SLO {self.id_path}", self._problems())

    @property
    def id(self) -> str:
        """`service-name`, the value of `sloth_id`."""
        return f"{self.service}-{self.name}"

    @property
    def id_path(self) -> str:
        """`service/name`, which people type and read."""
        return f"{self.service}/{self.name}"

    @property
    def objective_ratio(self) -> Decimal:
        """The objective as a share, 0 to 1."""
        return self.objective / 100

    @property
    def budget_ratio(self) -> Decimal:
        """The share of events that may be bad, 0 to 1."""
        return 1 - self.objective_ratio

    def _problems(self) -> Iterator[str]:
        for what, value in (("service", self.service), ("name", self.name)):
            if not _NAME.fullmatch(value):
                yield (
                    f"the {what} {value!r} is not allowed; two or more letters, digits, '-', '_' or '.', "
                    "with a letter or digit at both ends"
                )
        for what, value in (("description", self.description), ("owner", self.owner)):
            if not value.strip():
                yield f"the {what} is empty; say {'who answers for it' if what == 'owner' else 'what is promised'}"
        if self.component is not None and not self.signals:
            yield f"it is a promise of {self.component} and watches no signal; give at least one"
        if self.component is not None and not self.reason.endswith("."):
            yield "the reason must be one or more sentences that end with a full stop"
        if self.component is None and self.signals:
            yield "it watches signals of no component; give the component too"
        yield from self._problems_of_labels()
        yield from self._problems_of_alerts()
        of_objective, of_window = tuple(self._problems_of_objective()), tuple(self._problems_of_window())
        yield from of_objective
        yield from of_window
        # What an SLI asks of its policy, the shortest window, is the same for every period.
        windows = policy(_THIRTY_DAYS if of_window else self.window)
        yield from self.sli.problems(windows)
        if not of_objective and not of_window:
            yield from self._problems_of_thresholds(windows)

    def _problems_of_objective(self) -> Iterator[str]:
        if not isinstance(self.objective, Decimal) or not self.objective.is_finite():
            yield f"the objective {self.objective!r} must be a Decimal, Decimal('99.9') say, so that no digit is lost"
        elif not 0 < self.objective < _ANY_PERCENT:
            yield (
                f"the objective {self.objective} % is not allowed; it must be above 0 and below 100, "
                "since a budget of nothing or of everything cannot be spent"
            )
        elif round(self.objective, _OBJECTIVE_DECIMALS_MAX) != self.objective:
            yield (
                f"the objective {self.objective} % is not allowed; use at most {_OBJECTIVE_DECIMALS_MAX} decimals, "
                "as PromQL cannot hold more"
            )

    def _problems_of_window(self) -> Iterator[str]:
        if isinstance(self.window, Rolling):
            days = self.window.days
            if not isinstance(days, int) or not 1 <= days <= _WINDOW_DAYS_MAX:
                yield f"a window of {days} days is not allowed; use 1 to {_WINDOW_DAYS_MAX} whole days"
        elif not isinstance(self.window, CalendarMonth):
            yield f"the window {self.window!r} is not allowed; use Rolling(days=30) or CalendarMonth()"

    def _problems_of_labels(self) -> Iterator[str]:
        if "owner" in self.labels:
            yield "the labels set 'owner', which is a field of its own; use owner=..."
        own = [("labels", self.labels)] + [(f"{alert.severity} alert's labels", alert.labels) for alert in self.alerts]
        for where, labels in own:
            for label, value in labels.items():
                if not isinstance(value, str):
                    yield f"the {where} give {label!r} the value {value!r}; a label's value is text"
                if label in RESERVED_LABELS:
                    yield f"the {where} set {label!r}, which the rules set themselves; choose another name"
                elif not _LABEL_NAME.fullmatch(label):
                    yield f"the {where} name {label!r}; a label is letters, digits and _, not beginning with __"

    def _problems_of_alerts(self) -> Iterator[str]:
        severities = [alert.severity for alert in self.alerts]
        if len(set(severities)) != len(severities):
            yield "two alerts have the same severity; give at most one page and one ticket"
        if self.alert_name is not None and not _LABEL_NAME.fullmatch(self.alert_name):
            yield f"the alert name {self.alert_name!r} is not allowed; letters, digits and _"
        if self.budget_bad_events_min < 1 or self.people_bad_events_min < 1:
            yield "a minimum of bad events is below 1; an alert needs at least one"
        if self.absent_after < timedelta(minutes=1):
            yield f"absent_after is {self.absent_after}; under a minute a single missed scrape would alert"
        traffic = self.expected_events_per_second
        if traffic is not None and not (isinstance(traffic, Decimal) and traffic.is_finite() and traffic > 0):
            yield (
                f"expected_events_per_second={traffic!r} must be a Decimal above 0, Decimal(27) say; "
                "leave it out when it is not known"
            )
        if isinstance(self.sli, RatioQuery) and self.burn != "ratio":
            yield "a ratio query does not say how many events it stands for; it needs burn='ratio'"
        if self.burn not in ("budget", "ratio"):
            yield f"burn={self.burn!r} is not allowed; use 'budget' or 'ratio'"

    def _problems_of_thresholds(self, of_window: Policy) -> Iterator[str]:
        for alert in self.alerts:
            pairs = of_window.pairs_of(alert.severity)
            if not pairs:
                yield (
                    f"a {alert.severity} has no burn-rate windows in a period of {period_text(self.window)}; "
                    "leave that alert out, or use a longer period"
                )
            for pair in pairs:
                threshold = pair.factor * self.budget_ratio
                if threshold >= 1:
                    yield (
                        f"the {alert.severity} over {names.duration(pair.long)} can never fire: "
                        f"{_short(pair.factor)} x (1 - {self.objective} %) = {_short(threshold)}, "
                        "and no error ratio is above 1; "
                        f"use an objective above {_short(100 * (1 - 1 / pair.factor))} %, or leave out the "
                        f"{alert.severity}"
                    )


def _short(number: Decimal) -> str:
    return f"{number:.6f}".rstrip("0").rstrip(".")


def period_text(window: Window) -> str:
    """The period in plain words."""
    if isinstance(window, CalendarMonth):
        return "calendar month (UTC)"
    return f"{window.days} days" if window.days > 1 else "1 day"
