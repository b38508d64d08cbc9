"""`truth.json`: what really happened, counted from the events, for whoever wants to compare figures with it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

FILE = "truth.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class SloTruth:
    """An SLO over the period, the last 30 days or what there is of them.

    Attributes:
        objective_ratio: The promised share of good events, 0 to 1.
        all: Events, or slices of time.
        bad: Bad ones.
        budget_events: Bad ones that the objective allows among so many.
        budget_spent: Share of the budget that is spent, 1 for all of it.
    """

    objective_ratio: float
    all: int
    bad: int
    budget_events: float
    budget_spent: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What an incident did to an SLO between its begin and its end, with what is always bad.

    Attributes:
        all: Events meanwhile.
        bad: Bad ones.
        budget_spent: The bad ones as a share of the period's budget.
    """

    all: int
    bad: int
    budget_spent: float


@dataclass(frozen=True, slots=True, kw_only=True)
class IncidentTruth:
    """One incident.

    Attributes:
        name: What people call it.
        kind: What happened.
        begin: Unix time in seconds.
        end: Unix time in seconds.
        costs: By id of the SLO.
    """

    name: str
    kind: str
    begin: int
    end: int
    costs: Mapping[str, Cost] = field(hash=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Truth:
    """The whole data set.

    Attributes:
        seed: What it was made from.
        begin: The first scrape, Unix time in seconds.
        period_begin: What the SLOs' figures count is later than this, Unix time in seconds.
        end: The last scrape, Unix time in seconds.
        scrape_interval_seconds: Time from one scrape to the next.
        pods: How many pods there are.
        requests: Requests over the whole time.
        slos: By id.
        incidents: In the order of their begins.
    """

    seed: int
    begin: int
    period_begin: int
    end: int
    scrape_interval_seconds: int
    pods: int
    requests: int
    slos: Mapping[str, SloTruth] = field(hash=False)
    incidents: tuple[IncidentTruth, ...]

    def write(self, folder: Path) -> None:
        """Write `truth.json` into a folder."""
        (folder / FILE).write_text(json.dumps(asdict(self), indent=2) + "\n")

    def incident(self, name: str) -> IncidentTruth:
        """The incident of a name.

        Raises:
            KeyError: There is none.
        """
        for one in self.incidents:
            if one.name == name:
                return one
        raise KeyError(name)


def load(folder: Path) -> Truth:
    """Read the `truth.json` of a folder."""
    given = json.loads((folder / FILE).read_text())
    incidents = tuple(
        IncidentTruth(**{**one, "costs": {slo: Cost(**cost) for slo, cost in one["costs"].items()}})
        for one in given.pop("incidents")
    )
    slos = {key: SloTruth(**one) for key, one in given.pop("slos").items()}
    return Truth(**given, slos=slos, incidents=incidents)
