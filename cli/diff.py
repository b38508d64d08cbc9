"""What a change of the definitions changes for people, in words."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from slo.catalogue import PATH
from slo.errors import SloError
from slo.settings import Settings

Facts: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that changes.

    Attributes:
        slo: `service/slo`.
        text: What changes, in words.
    """

    slo: str
    text: str


def read_facts(against: str, settings: Settings) -> list[Facts]:
    """The promises as they were: from a `slos.json`, or from the one committed at a git revision.

    Raises:
        SloError: There is none, or it cannot be read.
    """
    subject = f"diff against {against}"
    if Path(against).is_file():
        text = Path(against).read_bytes()
    elif not against:
        # git would take it for the index, and an unset variable in a pipeline for "nothing changed".
        raise SloError("diff", ["against is empty; give a git revision or a slos.json"])
    else:
        file = (settings.output / PATH).relative_to(settings.root)
        # --end-of-options: what people type is a revision, never an option of git's.
        asked = subprocess.run(  # noqa: S603 - git with fixed arguments and one revision
            ["git", "show", "--end-of-options", f"{against}:./{file.as_posix()}"],  # noqa: S607 - the user's git
            cwd=settings.root,
            capture_output=True,
            check=False,
        )
        if asked.returncode:
            reason = asked.stderr.decode(errors="replace").strip().splitlines()
            raise SloError(subject, [reason[-1] if reason else "git show failed"])
        text = asked.stdout
    try:
        facts = list(json.loads(text)["slos"])
        for one in facts:
            _read_all(one)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise SloError(subject, [f"is no slos.json as `slo generate` writes it ({error})"]) from error
    return facts


def _read_all(facts: Facts) -> None:
    """Read what a comparison may read, so that another format is found before anything is said."""
    for key in ("id", "service", "name", "sli", "burn", "description"):
        _ = facts[key]
    _budget(facts)
    _labels(facts)
    for _ in _texts(None, facts):
        pass


def changes(before: Sequence[Facts], after: Sequence[Facts]) -> list[Change]:
    """Every difference that somebody may feel, by SLO."""
    old, new = ({one["id"]: one for one in facts} for facts in (before, after))
    found: list[Change] = []
    for key in sorted(old.keys() | new.keys()):
        one = new.get(key, old.get(key, {}))
        found += [Change(f"{one['service']}/{one['name']}", text) for text in _texts(old.get(key), new.get(key))]
    return found


def _texts(old: Facts | None, new: Facts | None) -> Iterator[str]:
    if old is None:
        assert new is not None, "an id is in at least one of the two"
        yield f"is new: {new['objective_percent']} % over {new['period']}, owner {new['owner']}"
        yield from _alert_texts({}, _alerts(new))
        return
    if new is None:
        yield "is gone: nobody is told any more when it is broken"
        return
    if (old["objective_percent"], old["period"]) != (new["objective_percent"], new["period"]):
        yield (
            f"promises {new['objective_percent']} % over {new['period']} instead of {old['objective_percent']} % over "
            f"{old['period']}: the budget is {_budget(new)} instead of {_budget(old)}"
        )
    if old["sli"] != new["sli"]:
        yield f"counts differently: {new['sli']} (was: {old['sli']})"
    if old["owner"] != new["owner"]:
        yield f"belongs to {new['owner']} instead of {old['owner']}"
    if old["burn"] != new["burn"]:
        yield f"alerts on the {new['burn']} burn instead of the {old['burn']} burn"
    if old["labels"] != new["labels"]:
        yield f"has the labels {_labels(new)} instead of {_labels(old)}"
    if old["links"] != new["links"]:
        yield f"links to {_pairs(new['links']) or 'nothing'}"
    if old["description"] != new["description"]:
        yield f"says: {new['description']}"
    yield from _alert_texts(_alerts(old), _alerts(new))


def _alert_texts(old: Mapping[str, Facts], new: Mapping[str, Facts]) -> Iterator[str]:
    for name in sorted(old.keys() | new.keys()):
        if name not in new:
            yield f"no longer has the {old[name]['severity']} {name}"
        elif name not in old:
            yield f"gets the {new[name]['severity']} {name}: {_when(new[name])}"
        elif old[name] != new[name]:
            yield f"changes the {new[name]['severity']} {name}: {_when(new[name])} (was: {_when(old[name])})"


def _alerts(facts: Facts) -> dict[str, Facts]:
    return {alert["name"]: alert for alert in facts["alerts"]}


def _when(alert: Facts) -> str:
    return _condition(alert) + "".join(
        f"; {what} {_pairs(alert[what])}" for what in ("labels", "annotations") if alert[what]
    )


def _condition(alert: Facts) -> str:
    if alert["kind"] == "absent":
        return f"{alert['severity']} after {alert['hold_seconds']} s without data"
    ways = [
        f"{way['reason']} burn over {way['factor']} in {way['long']} and {way['short']}, "
        f"{way['bad_events_min']} bad events or more, a full outage after {float(way['full_outage_seconds']):.3g} s"
        for way in alert["ways"]
    ]
    return "; or ".join(ways)


def _budget(facts: Facts) -> str:
    events = facts["budget"]["events"]
    text = f"{float(facts['budget']['minutes']):.4g} min of full outage"
    return text + (f" or {float(events):,.0f} bad events" if events else "")


def _labels(facts: Facts) -> str:
    return _pairs(facts["labels"]) or "none"


def _pairs(texts: Mapping[str, str]) -> str:
    return ", ".join(f"{name}={value}" for name, value in texts.items())
