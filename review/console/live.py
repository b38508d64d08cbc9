"""What the console asks: the recorded series of all SLOs, the alerts, and one SLO's series over a while.

The figures are those that the rules record, so the console says what the alerts see and what boards show.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, TypeAlias

import httpx
import orjson

from review.connection import Connection
from review.errors import ReviewError
from review.model import Span
from review.prometheus import Prometheus, Sample
from slo import conventions as names
from slo import promql
from slo.compile import CompiledSlo
from slo.windows import DAY, HOUR, Severity

Points: TypeAlias = tuple[tuple[float, float], ...]
"""Unix time and value, in order; where nothing is recorded, points are missing."""

_ID = "sloth_id"
_FIRING = "firing"
_TIMEOUT_SECONDS_MAX = 15.0  # a person waits
_POINTS = 240
_LATE_EVALUATIONS = 4  # two are late in a restart; more is a rule that does not run
_LATE_SECONDS_MIN = 15.0

_SPANS = (HOUR, 6 * HOUR, DAY, 7 * DAY)
DEFAULT_SPAN = 1  # of them: a day's work shows, and an incident of an hour can still be seen


class State(StrEnum):
    """How an SLO is, the most urgent first."""

    PAGE = "a page fires"
    TICKET = "a ticket fires"
    BURNING = "burns faster than the budget lasts"
    GONE = "the budget is gone"
    UNKNOWN = "no data"
    FINE = "fine"


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """An alert that is pending or firing.

    Attributes:
        name: Its name.
        labels: Its labels.
        annotations: Its texts and links.
        firing: It fires; otherwise it waits whether it goes on.
        since: Unix time from which its expression holds.
        handling: What Alertmanager makes of it: `told`, `silenced`, `inhibited`; None when that is not known.
    """

    name: str
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    firing: bool
    since: float
    handling: str | None = None

    @property
    def severity(self) -> str:
        """`page` or `ticket`, as a rule; empty when it has none."""
        return self.labels.get("severity", "")


@dataclass(frozen=True, slots=True, kw_only=True)
class SloNow:
    """An SLO as it is now.

    Attributes:
        compiled: Its definition.
        left: Share of the period's budget that is left; None when it is not recorded.
        burns: Budget-true burn rate by window, as far as it is recorded.
        late_seconds: How old the newest sample is, when that is too old; None otherwise.
        alerts: Its alerts, those that fire first.
    """

    compiled: CompiledSlo
    left: float | None
    burns: Mapping[timedelta, float]
    late_seconds: float | None
    alerts: tuple[Alert, ...]

    @property
    def worst(self) -> tuple[float, timedelta] | None:
        """The highest burn rate of the alerts' long windows, and which window that is."""
        longs = {pair.long for pair in self.compiled.policy.pairs}
        return max(((burn, window) for window, burn in self.burns.items() if window in longs), default=None)

    @property
    def state(self) -> State:
        """How it is, in one word or a few."""
        firing = {alert.severity for alert in self.alerts if alert.firing}
        if Severity.PAGE in firing:
            return State.PAGE
        if Severity.TICKET in firing:
            return State.TICKET
        if self.left is None or self.worst is None:
            return State.UNKNOWN
        if self.worst[0] > 1:
            return State.BURNING
        return State.GONE if self.left <= 0 else State.FINE

    @property
    def urgency(self) -> tuple[int, float, float, str]:
        """Sorts what burns to the top."""
        worst = self.worst[0] if self.worst else 0.0
        return list(State).index(self.state), -worst, self.left or 0.0, self.compiled.slo.id


@dataclass(frozen=True, slots=True, kw_only=True)
class Now:
    """Everything as it is now.

    Attributes:
        slos: What burns first.
        alerts: Every alert, also those of causes, those that fire first.
        notes: What a reader must know of the answers: what is missing.
    """

    slos: tuple[SloNow, ...]
    alerts: tuple[Alert, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """One SLO over a while.

    Attributes:
        span: The time.
        step_seconds: From a point to the next.
        every: Events per second.
        bad: Bad ones among them.
        left: Share of the budget that was left.
        burns: Highest burn rate of each step, by window.
    """

    span: Span
    step_seconds: float
    every: Points
    bad: Points
    left: Points
    burns: Mapping[timedelta, Points]

    @property
    def good_share(self) -> Points:
        """Share of good events; missing where there were no events."""
        bad = dict(self.bad)
        return tuple((at, 1 - bad.get(at, 0.0) / every) for at, every in self.every if every > 0)


def spans(compiled: CompiledSlo) -> dict[str, timedelta]:
    """The times that may be looked at, by name: shorter than the period, and the period itself."""
    policy = compiled.policy
    some = [span / policy.divisor for span in _SPANS]
    return {names.duration(span): span for span in [*(span for span in some if span < policy.period), policy.period]}


class Source:
    """Asks Prometheus, and Alertmanager where there is one.

    Args:
        prometheus: Where Prometheus is.
        alertmanager_url: Where Alertmanager is; None without.

    Raises:
        ReviewError: The URL of Alertmanager is none.
    """

    def __init__(self, prometheus: Connection, alertmanager_url: str | None = None) -> None:
        timeout = min(prometheus.timeout_seconds, _TIMEOUT_SECONDS_MAX)
        self._prometheus = replace(prometheus, timeout_seconds=timeout)
        self._alertmanager = None
        if alertmanager_url is not None:
            # Nothing of the environment: what proves who asks of Prometheus is none of Alertmanager's business.
            plain = Connection.from_environment(alertmanager_url, {})
            self._alertmanager = replace(plain, timeout_seconds=timeout)

    @property
    def url(self) -> str:
        """Where the figures come from."""
        return self._prometheus.url

    def now(self, compiled: Sequence[CompiledSlo]) -> Now:
        """All SLOs as they are now, in four questions whatever their number.

        Raises:
            ReviewError: There is no usable answer.
        """
        at = time.time()
        with _Api(self._prometheus) as api:
            left = _by_id(api.instant(f"max by ({_ID}) ({_selector(names.ERROR_BUDGET_REMAINING, compiled)})", at))
            newest = _by_id(api.instant(f"max by ({_ID}) (timestamp({_selector(names.OBJECTIVE, compiled)}))", at))
            windows = {window for one in compiled for window in one.policy.alert_windows}
            burns: dict[str, dict[str, float]] = {}
            for sample in api.instant(f"max by ({_ID}, {names.WINDOW_LABEL}) ({_burns(compiled, windows)})", at):
                burns.setdefault(sample.labels[_ID], {})[sample.labels[names.WINDOW_LABEL]] = sample.value
            alerts, notes = self._alerts(api)
            notes += api.warnings
        slos = [
            SloNow(
                compiled=one,
                left=left.get(one.slo.id),
                burns=_by_window(one, burns.get(one.slo.id, {})),
                late_seconds=_late(one, newest.get(one.slo.id), at),
                alerts=tuple(alert for alert in alerts if alert.labels.get(_ID) == one.slo.id),
            )
            for one in compiled
        ]
        return Now(slos=tuple(sorted(slos, key=lambda one: one.urgency)), alerts=alerts, notes=tuple(notes))

    def history(self, compiled: CompiledSlo, length: timedelta) -> History:
        """One SLO over a while up to now.

        Raises:
            ReviewError: There is no usable answer.
        """
        interval = compiled.policy.evaluation_interval.total_seconds()
        step = max(1, math.ceil(length.total_seconds() / _POINTS / interval)) * interval
        end = math.floor(time.time() / interval) * interval
        points = math.ceil(length.total_seconds() / step)
        span = Span(end - points * step, end)
        base = compiled.policy.base
        each = timedelta(seconds=max(step, 2 * interval))  # no sample is missed when a rule runs a little late

        def read(api: Prometheus, expr: str, label: str = _ID) -> dict[str, Points]:
            found: dict[str, list[tuple[float, float]]] = {}
            for part in api.range(f"max by ({label}) ({expr})", span.begin, span.end, step):
                for series in part:
                    values = ((at, float(value)) for at, value in series.points)
                    found.setdefault(series.labels.get(label, ""), []).extend(values)
            return {key: tuple(some) for key, some in found.items()}

        key = compiled.slo.id
        with _Api(self._prometheus) as api:
            every, bad = (
                read(api, promql.over_time("avg", compiled.named(record, base), each)).get(key, ())
                for record in (names.ALL_EVENTS, names.BAD_EVENTS)
            )
            left = read(api, compiled.named(names.ERROR_BUDGET_REMAINING)).get(key, ())
            selector = _burns([compiled], compiled.policy.alert_windows)
            burns = read(api, promql.over_time("max", selector, each), names.WINDOW_LABEL)
        return History(
            span=span,
            step_seconds=step,
            every=every,
            bad=bad,
            left=left,
            burns={window: burns.get(names.duration(window), ()) for window in compiled.policy.alert_windows},
        )

    def _alerts(self, api: _Api) -> tuple[tuple[Alert, ...], list[str]]:
        """Every alert, and what is not known of them."""
        try:
            alerts = [_alert(one) for one in api.get("/api/v1/alerts")["data"]["alerts"] or ()]  # null: Thanos has none
        except (ReviewError, KeyError, TypeError, ValueError, AttributeError) as error:
            return (), [f"Which alerts fire is not known: {error}"]
        notes = []
        if not any(alert.name == names.WATCHDOG and alert.firing for alert in alerts):
            notes.append(f"{names.WATCHDOG} does not fire: the rules of the alerts are not loaded, or have just begun.")
        if self._alertmanager is not None:
            try:
                with _Api(self._alertmanager) as pager:
                    alerts = _with_handling(alerts, pager.get("/api/v2/alerts"))
            except (ReviewError, KeyError, TypeError, AttributeError) as error:
                notes.append(f"Whether alerts are silenced is not known: {error}")
        alerts.sort(key=_alert_order)
        return tuple(alerts), notes


class _Api(Prometheus):
    """The same connection, for answers that are no query's."""

    def get(self, path: str) -> Any:  # noqa: ANN401 - JSON is what the path makes it
        """The JSON of a path.

        Raises:
            ReviewError: There is no usable answer.
        """
        try:
            response = self._http.get(f"{self.url}{path}")
            response.raise_for_status()
            return orjson.loads(response.content)
        except (httpx.HTTPError, orjson.JSONDecodeError) as error:
            raise ReviewError(f"{self.url}{path}: {error or type(error).__name__}") from error


def _selector(record: str, compiled: Iterable[CompiledSlo]) -> str:
    return record + promql.matchers({_ID: sorted(one.slo.id for one in compiled)})


def _burns(compiled: Iterable[CompiledSlo], windows: Iterable[timedelta]) -> str:
    """The burn rates of some windows; each window has a series of its own name."""
    records = sorted(names.ERROR_BUDGET_BURN + names.duration(window) for window in windows)
    return promql.matchers({"__name__": records, _ID: sorted(one.slo.id for one in compiled)})


def _by_id(samples: Iterable[Sample]) -> dict[str, float]:
    return {one.labels.get(_ID, ""): one.value for one in samples if not math.isnan(one.value)}


def _by_window(compiled: CompiledSlo, burns: Mapping[str, float]) -> dict[timedelta, float]:
    """The burn rates of an SLO's own windows, as far as they are recorded."""
    windows = {names.duration(window): window for window in compiled.policy.alert_windows}
    return {window: burns[name] for name, window in windows.items() if name in burns}


def _late(compiled: CompiledSlo, newest: float | None, at: float) -> float | None:
    allowed = max(_LATE_SECONDS_MIN, _LATE_EVALUATIONS * compiled.policy.evaluation_interval.total_seconds())
    return at - newest if newest is not None and at - newest > allowed else None


def _alert(one: Mapping[str, Any]) -> Alert:
    labels = {name: str(value) for name, value in one["labels"].items()}
    return Alert(
        name=labels.get("alertname", "an alert without a name"),
        labels=labels,
        annotations={name: str(value) for name, value in one.get("annotations", {}).items()},
        firing=one["state"] == _FIRING,
        since=datetime.fromisoformat(one["activeAt"]).timestamp(),
    )


def _alert_order(alert: Alert) -> tuple[bool, int, float, str]:
    severities = [*Severity, ""]
    rank = severities.index(alert.severity) if alert.severity in severities else len(severities)
    return not alert.firing, rank, alert.since, alert.name


def _with_handling(alerts: Iterable[Alert], known: Iterable[Mapping[str, Any]]) -> list[Alert]:
    """The alerts with what Alertmanager makes of them; it may know more labels of each than Prometheus."""
    handled: dict[str, list[tuple[Mapping[str, str], str]]] = {}
    for one in known:
        status = one["status"]
        handling = "silenced" if status["silencedBy"] else "inhibited" if status["inhibitedBy"] else "told"
        handled.setdefault(one["labels"].get("alertname", ""), []).append((one["labels"], handling))
    return [
        replace(
            alert,
            handling=next(
                (how for labels, how in handled.get(alert.name, ()) if alert.labels.items() <= labels.items()), None
            ),
        )
        for alert in alerts
    ]
