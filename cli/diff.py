"""What a change of the definitions changes for people, in words."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, TypeAlias

from cli.simulate import percent, read_traffic, simulation_facts
from slo.catalogue import PATH
from slo.errors import SloError
from slo.settings import Settings
from slo.simulation.alerting import Alerting
from slo.simulation.evaluator import Firing, Simulation, simulate
from slo.windows import Severity

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


# --- what it would have meant for past traffic ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """The same traffic under the old definition and under the new one.

    Attributes:
        slo: `service/slo`.
        file: Where the traffic is from.
        before: What the old definition's alerts would have done; None when there is none.
        after: The same of the new one's.
    """

    slo: str
    file: str
    before: Simulation | None
    after: Simulation | None


def replays(before: Sequence[Facts], after: Sequence[Facts], traffics: Sequence[str]) -> list[Replay]:
    """Simulate old and new alerts over traffic.

    Args:
        before: The promises as they were.
        after: The promises as they are.
        traffics: Files of traffic (`slo.simulation.traffic.parse`), each as `service/slo=FILE`; without a name it is
            that of the one SLO whose alerts change.

    Raises:
        SloError: A name is unknown, a file is no traffic, or nobody knows whose traffic it is.
    """
    old, new = ({f"{one['service']}/{one['name']}": one for one in facts} for facts in (before, after))
    found = []
    for given in traffics:
        slo, file = _whose(given, old, new)
        if slo is None:
            continue
        traffic = read_traffic(file)
        was, now = (simulate(Alerting.of(facts[slo]), traffic) if slo in facts else None for facts in (old, new))
        found.append(Replay(slo=slo, file=file, before=was, after=now))
    return found


def _whose(given: str, old: Mapping[str, Facts], new: Mapping[str, Facts]) -> tuple[str | None, str]:
    """The SLO and the file of a `--traffic`; no SLO when the alerts of none change."""
    name, equals, file = given.partition("=")
    if equals and not Path(given).is_file():
        if name not in old.keys() | new.keys():
            raise SloError(f"traffic {given}", [f"there is no SLO {name}; there are: {', '.join(sorted(new))}"])
        return name, file
    changed = [name for name in sorted(old.keys() | new.keys()) if _tells(old.get(name)) != _tells(new.get(name))]
    if len(changed) > 1:
        fault = f"whose is it? The alerts of {', '.join(changed)} change; write {changed[0]}={given}"
        raise SloError(f"traffic {given}", [fault])
    return (changed[0] if changed else None), given


def _tells(facts: Facts | None) -> object:
    """All that decides who is told when."""
    if facts is None:
        return None
    alerts = [(one["severity"], one["hold_seconds"], one["ways"]) for one in facts["alerts"] if one["kind"] == "burn"]
    return facts["budget"]["ratio"], facts["period"], alerts


def replay_changes(replay: Replay) -> list[Change]:
    """What the change would have meant for people, in words."""
    return [Change(replay.slo, text) for text in _replay_texts(replay)]


def _replay_texts(replay: Replay) -> Iterator[str]:
    for severity, verb, thing in ((Severity.PAGE, "paged", "page"), (Severity.TICKET, "sent tickets", "ticket")):
        old, new = (one.told(severity) if one else () for one in (replay.before, replay.after))
        yield f"would have {verb} {_fewer(len(old), len(new))} over {_span(replay)}{_cost(thing, old, new)}"
        yield from (f"no longer: {_firing(one)}" for one in _alone(old, new))
        yield from (f"new: {_firing(one)}" for one in _alone(new, old))
    if replay.before and replay.after and replay.before.budget_events != replay.after.budget_events:
        shares = [percent(one.budget_spent) for one in (replay.after, replay.before)]
        yield f"would have spent {shares[0]} of its budget instead of {shares[1]} over {_span(replay)}"


def _fewer(old: int, new: int) -> str:
    if new == old:
        return f"{_times(new)}, as before,"
    return f"{_times(new)} instead of {old}, {abs(old - new)} {'fewer' if new < old else 'more'},"


def _times(number: int) -> str:
    return f"{number} time{'' if number == 1 else 's'}"


def _span(replay: Replay) -> str:
    simulation = replay.after or replay.before
    assert simulation is not None, "a name is that of an old or a new SLO"
    return f"{simulation.begin:%Y-%m-%d} to {simulation.end:%Y-%m-%d}"


def _cost(thing: str, old: Sequence[Firing], new: Sequence[Firing]) -> str:
    """How much of the budget a typical one comes at."""
    typical = [percent(median(one.budget_spent for one in some)) if some else None for some in (new, old)]
    if typical[0] is None:
        return ""
    instead = f" instead of {typical[1]}" if typical[1] not in (None, typical[0]) else ""
    return f"; a typical {thing} comes when {typical[0]} of the budget is gone{instead}"


def _alone(some: Sequence[Firing], others: Sequence[Firing]) -> Iterator[Firing]:
    """Those that fire while none of the others does."""
    for one in some:
        if not any(_overlap(one, other) for other in others):
            yield one


def _overlap(one: Firing, other: Firing) -> bool:
    return (one.end is None or other.begin < one.end) and (other.end is None or one.begin < other.end)


def _firing(one: Firing) -> str:
    return f"the {one.severity} of {one.begin:%Y-%m-%d %H:%M} at {percent(one.budget_spent)} of the budget"


def replay_facts(replay: Replay) -> dict[str, Any]:
    """A replay as plain data."""
    was, now = (one and simulation_facts(one) for one in (replay.before, replay.after))
    return {"slo": replay.slo, "traffic": replay.file, "before": was, "after": now}


def markdown(found: Sequence[Change], replayed: Sequence[Replay]) -> str:
    """Changes and replays for a pull request: a list by SLO, and a table of what would have been."""
    lines = []
    for slo in dict.fromkeys(change.slo for change in found):
        lines += [f"**{slo}**", "", *(f"- {change.text}" for change in found if change.slo == slo), ""]
    if not found:
        lines += ["No change in promises, budgets or alerts.", ""]
    for replay in replayed:
        lines += [
            f"**{replay.slo}** over {_span(replay)}, as it was and as it would be:",
            "",
            "| | before | after |",
            "| --- | ---: | ---: |",
            *(f"| {what} | {' | '.join(cells)} |" for what, cells in _cells(replay)),
            "",
            *(f"- {change.text}" for change in replay_changes(replay)),
            "",
        ]
    return "\n".join(lines).rstrip() + "\n"


def _cells(replay: Replay) -> Iterator[tuple[str, list[str]]]:
    both = (replay.before, replay.after)
    for severity in Severity:
        firings = [one.told(severity) if one else () for one in both]
        yield f"{severity}s", [str(len(some)) for some in firings]
        spent = [percent(median(one.budget_spent for one in some)) if some else "" for some in firings]
        yield f"budget gone at a typical {severity}", spent
    yield "budget spent in all", [percent(one.budget_spent) if one else "" for one in both]
