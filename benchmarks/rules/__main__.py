"""`python -m benchmarks.rules`: what our rules and Sloth's cost a real Prometheus, for the same SLO."""

from __future__ import annotations

import math
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import yaml as pyyaml

from alerts import sloth, yaml
from alerts.prometheus import rule_groups
from benchmarks.measure import alternating, arguments, machine, report, run, say, table, verdict
from benchmarks.rules import history
from benchmarks.rules.history import END, STEP, Recorded, Traffic
from drills.harness import Prometheus, prometheus, tool
from slo import CompiledSlo, Events, compile_slo, promql
from slo import conventions as names
from slo.definitions.redemption import availability
from slo.settings import Links

README = Path(__file__).with_name("README.md")

PODS, ROUNDS = 10, 7
PODS_QUICK, ROUNDS_QUICK = 1, 1

OURS, SLOTH, EXPORTED = "ours", "sloth", "sloth, exported spec"
_LINKS = Links(grafana="https://g.test", runbooks="https://r.test", traces="https://t.test", logs="https://l.test")


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule as Prometheus runs it.

    Attributes:
        name: The recorded series, or the alert.
        expr: PromQL.
        labels: The labels of the recorded series.
        interval: Time from one evaluation to the next.
        is_alert: Whether it alerts.
    """

    name: str
    expr: str
    labels: Mapping[str, str]
    interval: timedelta
    is_alert: bool

    @property
    def cycles_share(self) -> float:
        """In which share of all evaluation cycles it runs."""
        return STEP / self.interval


@dataclass(frozen=True, slots=True)
class Cost:
    """What one evaluation of a rule costs.

    Attributes:
        samples: Samples touched: each sample of each range, for each time that the expression reads it.
        peak_samples: The most that were in memory at a time.
        seconds: Time of the evaluation.
        value: Its result, None when it has none.
    """

    samples: int
    peak_samples: int
    seconds: float
    value: float | None


def main() -> None:
    """Measure, and tell."""
    given = arguments("Samples that rules touch in each evaluation cycle: ours, beside Sloth's.")
    pods, rounds = (PODS_QUICK, ROUNDS_QUICK) if given.quick else (PODS, ROUNDS)
    compiled = compile_slo(availability)
    with tempfile.TemporaryDirectory(prefix="benchmark-rules-") as path:
        folder = Path(path)
        rules = {
            SLOTH: _sloths(folder / "plain.yaml", _plain(compiled)),
            EXPORTED: _sloths(folder / "exported.yaml", sloth.spec(compiled)),
            OURS: _rules(rule_groups(compiled, _LINKS)),
        }
        traffic = Traffic(pods)
        say("writing a month of history")
        samples = history.write(folder / "data", traffic, _recorded(compiled, traffic, rules))
        say(f"{samples:,} samples are in; starting Prometheus")
        with prometheus(data=folder / "data", evaluation_interval=timedelta(days=1)) as server:
            _check(server, compiled, traffic)
            costs = alternating({name: partial(_costs, server, some) for name, some in rules.items()}, rounds)
            figures = {
                "series": pods * 5,
                "samples_stored": samples,
                "rounds": rounds,
                **_figures(rules, costs),
                "error_ratio": _error_ratios(compiled, traffic, rules, costs),
                "machine": machine("prometheus", "sloth"),
            }
    report(given, figures, _tables(figures), README)


# --- the rules ------------------------------------------------------------------------------------------------------


def _plain(compiled: CompiledSlo) -> dict[str, Any]:
    """The spec that people write: bad and all. Our export adds a fallback to `bad`, which reads `all` once more."""
    sli = compiled.slo.sli
    assert isinstance(sli, Events), "the redemption service's availability counts events"
    bad, every = (promql.rate(promql.series(some), "{{.window}}") for some in (sli.bad, sli.all))
    spec = sloth.spec(compiled)
    spec["slos"][0]["sli"] = {"events": {"error_query": bad, "total_query": every}}
    return spec


def _sloths(file: Path, spec: Mapping[str, Any]) -> list[Rule]:
    """The rules that the real Sloth makes of a spec."""
    file.write_text(yaml.dump(spec))
    made = run([tool("sloth"), "generate", "--no-log", "--input", file]).output
    return _rules(pyyaml.safe_load(made)["groups"])


def _rules(groups: Sequence[Mapping[str, Any]]) -> list[Rule]:
    """Every rule of the groups; one without an interval runs in every cycle."""
    return [
        Rule(
            name=rule.get("record") or rule["alert"],
            expr=rule["expr"],
            labels=rule["labels"],
            interval=_interval(group.get("interval")),
            is_alert="alert" in rule,
        )
        for group in groups
        for rule in group["rules"]
    ]


def _interval(text: str | None) -> timedelta:
    known = {names.duration(interval): interval for interval in (STEP, history.BASE)}
    return STEP if text is None else known[text]


def _recorded(compiled: CompiledSlo, traffic: Traffic, rules: Mapping[str, Sequence[Rule]]) -> Iterator[Recorded]:
    """Every series that some rule records: in full where windows are read from it, else its last minutes."""
    rates = {
        names.ALL_EVENTS: history.base_rate(traffic.all_events),
        names.BAD_EVENTS: history.base_rate(traffic.bad_events),
    }
    base, coarse = compiled.policy.base, compiled.policy.coarse_interval
    pairs = zip(rates[names.BAD_EVENTS], rates[names.ALL_EVENTS], strict=True)
    whole = {names.SLI_ERROR + names.duration(base): ([bad / every if every else 0.0 for bad, every in pairs], STEP)}
    for record, values in rates.items():
        whole[record + names.duration(base)] = (values, STEP)
        whole[names.coarse(record, coarse, base)] = (history.coarse_mean(values), coarse)
    seen = set()
    for rule in (rule for some in rules.values() for rule in some if not rule.is_alert):
        identity = rule.name, tuple(sorted((k, v) for k, v in rule.labels.items() if k != "sloth_version"))
        if identity in seen:  # some of Sloth's series are ours too
            continue
        seen.add(identity)
        if rule.name in whole:
            yield Recorded(rule.name, rule.labels, *whole[rule.name])
        else:
            yield Recorded.present(rule.name, rule.labels, rule.interval)


def _check(server: Prometheus, compiled: CompiledSlo, traffic: Traffic) -> None:
    """See that the history is what the rules record: their own answers at the end are its last values.

    Raises:
        RuntimeError: It is not, so the figures would mean nothing.
    """
    every, bad = compiled.recordings[:2]
    coarse = compiled.coarse_recordings[0]
    expected = {
        every: history.base_rate(traffic.all_events)[-1],
        bad: history.base_rate(traffic.bad_events)[-1],
        coarse: history.coarse_mean(history.base_rate(traffic.all_events))[-1],
    }
    for recording, value in expected.items():
        answer = server.value(recording.expr, END)
        if answer is None or not math.isclose(answer, value, rel_tol=1e-6):
            raise RuntimeError(f"{recording.record}: the history says {value}, the rule itself {answer}")


# --- what they cost -------------------------------------------------------------------------------------------------


def _costs(server: Prometheus, rules: Sequence[Rule]) -> list[Cost]:
    return [_cost(server.api("query", query=rule.expr, time=END, stats="all")) for rule in rules]


def _cost(answer: Mapping[str, Any]) -> Cost:
    stats = answer["stats"]
    return Cost(
        samples=stats["samples"]["totalQueryableSamples"],
        peak_samples=stats["samples"]["peakSamples"],
        seconds=stats["timings"]["evalTotalTime"],
        value=float(answer["result"][0]["value"][1]) if answer["result"] else None,
    )


def _figures(rules: Mapping[str, Sequence[Rule]], costs: Mapping[str, Sequence[Sequence[Cost]]]) -> dict[str, Any]:
    sets = {name: _set(rules[name], costs[name]) for name in rules}
    return {
        "rule_sets": sets,
        "ratio_samples": sets[SLOTH]["samples"] / sets[OURS]["samples"],
        "ratio_seconds": sets[SLOTH]["seconds"] / sets[OURS]["seconds"],
        "windows": {name: _by_window(rules[name], costs[name][0]) for name in rules},
    }


def _set(rules: Sequence[Rule], rounds: Sequence[Sequence[Cost]]) -> dict[str, Any]:
    """A whole rule set, per evaluation cycle."""
    seconds = [sum(r.cycles_share * c.seconds for r, c in zip(rules, costs, strict=True)) for costs in rounds]
    return {
        "rules": len(rules),
        "samples": sum(r.cycles_share * c.samples for r, c in zip(rules, rounds[0], strict=True)),
        "samples_largest_cycle": sum(cost.samples for cost in rounds[0]),
        "peak_samples": max(cost.peak_samples for cost in rounds[0]),
        "seconds": median(seconds),
        "seconds_min": min(seconds),
        "seconds_max": max(seconds),
    }


def _by_window(rules: Sequence[Rule], costs: Sequence[Cost]) -> dict[str, float]:
    """Samples per cycle, by the window of the recorded series."""
    windows: dict[str, float] = {}
    for rule, cost in zip(rules, costs, strict=True):
        window = "alerts" if rule.is_alert else _window(rule.name)
        windows[window] = windows.get(window, 0) + rule.cycles_share * cost.samples
    return windows


_WINDOW = re.compile(r":(?:ratio_rate|rate|increase)(\d+[smhdw])$")
_OTHERS = "no window"


def _window(record: str) -> str:
    if re.search(r":avg\d+\w_rate\d+\w$", record):
        return "coarse"
    found = _WINDOW.search(record)
    return found[1] if found else _OTHERS


def _error_ratios(
    compiled: CompiledSlo,
    traffic: Traffic,
    rules: Mapping[str, Sequence[Rule]],
    costs: Mapping[str, Sequence[Sequence[Cost]]],
) -> dict[str, float]:
    """The period's error ratio: by each rule set's own rules, and counted from the events."""
    answers = {
        name: {rule.name: cost.value for rule, cost in zip(rules[name], costs[name][0], strict=True)} for name in rules
    }
    period = names.duration(compiled.policy.period)
    bad, every = (answers[OURS][record + period] for record in (names.BAD_EVENTS, names.ALL_EVENTS))
    theirs = answers[SLOTH][names.SLI_ERROR + period]
    assert bad is not None, "the history covers the period"
    assert every, "the history covers the period"
    assert theirs is not None, "the history covers the period"
    return {"truth": traffic.error_ratio, OURS: bad / every, SLOTH: theirs}


# --- in words -------------------------------------------------------------------------------------------------------

_CLAIM = 10  # times fewer samples than Sloth
_ROWS = ("5m", "30m", "1h", "2h", "6h", "1d", "3d", "30d", "coarse", _OTHERS, "alerts")


def _tables(figures: Mapping[str, Any]) -> str:
    sets, windows = figures["rule_sets"], figures["windows"]
    missing = {window for some in windows.values() for window in some} - set(_ROWS)
    assert not missing, f"the table has no row for {missing}"
    order = (SLOTH, EXPORTED, OURS)
    rows = [[window, *(f"{windows[name].get(window, 0):,.0f}" for name in order)] for window in _ROWS]
    rows += [
        ["**samples a cycle**", *(f"**{sets[name]['samples']:,.0f}**" for name in order)],
        ["in the largest cycle", *(f"{sets[name]['samples_largest_cycle']:,.0f}" for name in order)],
        ["most in memory, one rule", *(f"{sets[name]['peak_samples']:,}" for name in order)],
        ["evaluation, ms a cycle", *(f"{sets[name]['seconds'] * 1000:.2f}" for name in order)],
        ["rules", *(str(sets[name]["rules"]) for name in order)],
    ]
    return (
        f"{figures['series']} input series, samples touched per evaluation cycle of 30 s:\n\n"
        f"{table(['window', 'Sloth', 'Sloth, our exported spec', 'ours'], rows)}\n\n"
        f"Ours touch **1/{figures['ratio_samples']:.0f}** of Sloth's samples and take 1/{figures['ratio_seconds']:.0f} "
        f"of its evaluation time (medians of {figures['rounds']}): "
        f"{verdict(met=figures['ratio_samples'] >= _CLAIM)}.\n\n{_budget(figures['error_ratio'])}"
    )


def _budget(ratios: Mapping[str, float]) -> str:
    allowed = float(availability.budget_ratio)
    rows = [
        [words, f"{ratios[name]:.8f}", f"{100 * ratios[name] / allowed:.1f} %"]
        for name, words in (("truth", "truth, counted from the events"), (OURS, "ours"), (SLOTH, "Sloth"))
    ]
    return (
        "The same month has one flash sale of an hour, ten days before its end. What each says of the 30 days:\n\n"
        + table(["", "error ratio", f"of the budget at {names.number(availability.objective)} % spent"], rows)
    )


if __name__ == "__main__":
    main()
