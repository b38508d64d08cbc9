"""What may stop the harm, whatever the service: the general steps of a runbook, behind those of its definition."""

from __future__ import annotations

from slo.model import Events, Freshness, Latency, Queries, RatioQuery, Recency, Sli, TimeSlice
from slo.runbook import Step

_UNDO = Step(
    "Undo the last change: release, configuration, flag, migration",
    "one was made shortly before the first bad event",
    "its fixes go too; a changed schema may not fit the old release",
)
_ONE_INSTANCE = Step(
    "Take the instance out of service",
    "one `instance` has most of the bad events",
    "the others get its load: look at the load first",
)
_ADD = Step(
    "Add instances, or refuse part of the load",
    "the load is far above its mean",
    "more instances mean more connections to the database; what is refused counts as bad if the definition says so",
)
_DEPENDENCY = Step(
    "Follow the dependency: its own alerts and board; fail over if its runbook says so",
    "all instances and parts fail alike, and nothing was changed",
    "a failover itself costs some bad events",
)
_WORKERS = Step(
    "Restart the workers, one at a time",
    "the condition does not move at all",
    "work in progress is done twice unless it is idempotent",
)
_MORE_WORKERS = Step(
    "Add workers, or slow down what feeds them",
    "the condition moves, but too slowly",
    "what is behind them, the database say, gets more load",
)

_EVENT_STEPS = (_UNDO, _ONE_INSTANCE, _ADD, _DEPENDENCY)
_SLICE_STEPS = (_UNDO, _WORKERS, _MORE_WORKERS, _DEPENDENCY)
BURN: dict[type[Sli], tuple[Step, ...]] = {
    Events: _EVENT_STEPS,
    Latency: _EVENT_STEPS,
    Queries: _EVENT_STEPS,
    RatioQuery: _EVENT_STEPS,
    TimeSlice: _SLICE_STEPS,
    Freshness: _SLICE_STEPS,
    Recency: _SLICE_STEPS,
}
NEVER = (
    Step(
        "Keep the evidence: a copy of the data and the logs, before anything is repaired or restarted",
        "always, and first",
        "none; a restart may clear the series, and with it this alert, while what is wrong stays wrong",
    ),
    _UNDO,
    Step(
        "Take out of service what makes it worse",
        "there is more of it at every look",
        "its users get no answer, which pages as an outage of its own",
    ),
)
ABSENT = (
    Step(
        "Bring the service back",
        "it is down or restarts again and again",
        "none: there is no traffic to lose",
    ),
    Step(
        "Repair the scrape: the target's address, port, network policy, credentials",
        "the service answers, but `up` is 0 or missing",
        "none for the service",
    ),
    Step(
        "Undo the release that renamed or dropped the metric",
        "`up` is 1 and the other metrics of the service are there",
        "its fixes go too",
    ),
)
