"""promtool unit tests for the generated rules: for every alert a case that fires and a near miss.

Each case drives the raw series, so that a test proves the whole way from a counter to the alert. The burn of a case is
given in multiples of the budget; near misses stay a tenth below what fires. A case asks the series `ALERTS`, which
carries the labels but not the texts. One more test looks at the figures that people read.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

from slo import conventions as names
from slo import promql
from slo.compile import AlertKind, CompiledAlert, CompiledSlo, Reason
from slo.metrics import Selection
from slo.model import Events, Freshness, Latency, Recency, Severity, Slices, TimeSlice
from slo.windows import DAY, HOUR, MINUTE, BurnWindows, Policy

# So many that no minimum of bad events is in the way: the cases for the minima have their own traffic.
_BUSY_EVENTS_PER_MINUTE = 600_000
_FIRES, _NEAR_MISS = Decimal("1.1"), Decimal("0.9")
_BEGIN = 0.5  # of the long window: too little to fire, but enough to tell a window of half its length by
_STEP = MINUTE


@dataclass(frozen=True, slots=True)
class Phase:
    """A stretch of even traffic; `bad` is the share of bad events, or for slices 1 (bad) and 0 (good).

    In a phase that is `gone` the series do not exist.
    """

    length: timedelta
    events_per_minute: Decimal
    bad: Decimal
    gone: bool = False


@dataclass(frozen=True, slots=True)
class Case:
    """Traffic, and when the alert must fire or be silent, as times since the begin.

    `counts_events` says that a minimum of bad events decides the case.
    """

    name: str
    alert: CompiledAlert
    phases: tuple[Phase, ...]
    firing: tuple[timedelta, ...] = ()
    silent: tuple[timedelta, ...] = ()
    counts_events: bool = False


def test_files(compiled: CompiledSlo) -> Iterator[tuple[str, dict[str, Any]]]:
    """Test files for an SLO's rules, with their names; none for foreign queries, whose series we don't know.

    promtool runs all rules of a file at one interval, so there is a file for each interval.
    """
    cases = list(_cases(compiled))
    figures = list(_figures_tests(compiled)) if cases and not compiled.policy.calendar_month else []
    intervals = {_interval(case, compiled.policy) for case in cases} | {compiled.policy.base for _ in figures}
    for interval in sorted(intervals):
        every = names.duration(interval)
        yield (
            f"{compiled.slo.id}-every-{every}",
            {
                "rule_files": [f"../rules/{compiled.slo.id}.yaml"],
                "evaluation_interval": every,
                # promtool runs groups in any order; the coarse one reads what the other has just written.
                "group_eval_order": [names.group_name(compiled.slo), names.coarse_group_name(compiled.slo)],
                "tests": [
                    *(figures if interval == compiled.policy.base else []),
                    *(_test(case, compiled) for case in cases if _interval(case, compiled.policy) == interval),
                ],
            },
        )


def _interval(case: Case, policy: Policy) -> timedelta:
    """How often the rules run: as seldom as the case allows, since that is what a test's time goes into.

    A mean does not change when it has a tenth of the samples; only counts of events need the exact interval. Tickets
    look back for days; theirs run at twice the coarse interval, which the bridge over a missed evaluation allows.
    """
    coarse = case.alert.severity is Severity.TICKET and bool(case.alert.ways)
    if case.counts_events:
        return policy.coarse_interval if coarse else policy.evaluation_interval
    return 2 * policy.coarse_interval if coarse else policy.base


def _cases(compiled: CompiledSlo) -> Iterator[Case]:
    sli = compiled.slo.sli
    if not isinstance(sli, Events | Latency | Slices):
        return
    for alert in compiled.alerts:
        reasons = {way.reason for way in alert.ways}
        if alert.kind is AlertKind.ABSENT:
            yield from _absent_cases(alert)
        elif isinstance(sli, Slices):
            yield from _slice_cases(compiled, alert)
        else:
            for pair in alert.pairs:
                yield from _burn_cases(compiled, alert, pair)
            if Reason.PEOPLE in reasons:
                yield from _people_cases(compiled, alert)
                yield from _rekindled_cases(compiled, alert)
            if Reason.BUDGET in reasons:
                yield from _sale_cases(compiled, alert)
                yield from _stray_error_cases(compiled, alert)


def _absent_cases(alert: CompiledAlert) -> Iterator[Case]:
    quiet = Phase(10 * MINUTE, Decimal(0), Decimal(0))
    after = 2 * MINUTE
    yield Case("fires: the series never came", alert, (), firing=(alert.hold + after,), counts_events=True)
    gone = replace(quiet, length=alert.hold + after, gone=True)
    yield Case(
        "fires: the series are gone; not while there simply is no event",
        alert,
        (quiet, gone),
        firing=(quiet.length + gone.length,),
        silent=(quiet.length,),
        counts_events=True,
    )
    brief = replace(gone, length=alert.hold - MINUTE)
    if brief.length > timedelta(0):
        yield Case(
            "near miss: the series are gone for a little less than that, and come back",
            alert,
            (quiet, brief, quiet),
            silent=(quiet.length + brief.length, quiet.length + brief.length + after),
            counts_events=True,
        )


def _burn_cases(compiled: CompiledSlo, alert: CompiledAlert, pair: BurnWindows) -> Iterator[Case]:
    """Even traffic that burns far too fast: for not quite long enough, for long enough, and then no more.

    First only the long window is in the way, at the end only the short one.
    """
    limit = pair.factor * compiled.slo.budget_ratio
    hot = min(2 * _NEAR_MISS, 1 / limit)
    enough = min(Decimal("1.35"), (1 + hot) / 2)
    clean = max((_clean(pair, other) for other in alert.pairs if other.long > pair.long), default=pair.long / 2)
    until_near, until_enough = (_whole(pair.long * float(share / hot)) for share in (_NEAR_MISS, enough))
    near = _busy(until_near, hot * limit)
    fires = replace(near, length=until_enough - until_near)
    cooler = _busy(pair.short + _settle(pair), _NEAR_MISS * limit)
    name = f"{names.number(pair.factor)} times over {names.duration(pair.long)}"
    near_miss, fired, mended = list(_ends((_busy(clean, Decimal(0)), near, fires, cooler)))[1:]
    if _shadowed(alert, pair):
        yield Case(f"near miss: just below {name}", alert, (_busy(clean, Decimal(0)), near), silent=(near_miss,))
        return
    yield Case(
        f"fires: above {name}; not just below it, over the long or the short window",
        alert,
        (_busy(clean, Decimal(0)), near, fires, cooler),
        firing=(fired,),
        silent=(near_miss, mended),
    )
    if Reason.PEOPLE in {way.reason for way in alert.ways if way.windows == pair}:
        yield from _budget_only_cases(compiled, alert, pair)
        yield from _people_only_cases(compiled, alert, pair)


def _settle(pair: BurnWindows) -> timedelta:
    """Time for the base window, and for a ticket's coarse recording, to see the last of what went before."""
    return 10 * MINUTE if pair.severity is Severity.PAGE else HOUR


def _whole(length: timedelta) -> timedelta:
    """The length in steps of ten minutes, at which all rules run."""
    return length - length % (10 * MINUTE) if length > HOUR else length - length % _STEP


def _above(alert: CompiledAlert, pair: BurnWindows, how: str, clean: Phase, above: Phase) -> Iterator[Case]:
    """Fires at the end of a stretch just above; not at its begin."""
    yield Case(
        f"fires: just above {names.number(pair.factor)} times over {names.duration(pair.long)} {how}; not at its begin",
        alert,
        (clean, above),
        firing=(clean.length + above.length,),
        silent=(clean.length + pair.long * _BEGIN,),
    )


def _budget_only_cases(compiled: CompiledSlo, alert: CompiledAlert, pair: BurnWindows) -> Iterator[Case]:
    """Traffic rises so far that a ratio under every limit spends the budget too fast."""
    ratio = (1 + alert.pairs[-1].factor) / 2  # of the budget: above the objective, below the classic limits
    longs = 10 if pair == alert.pairs[0] else 4
    burn = _FIRES * pair.factor
    times = burn * longs / (ratio * (longs + 1) - burn)
    quiet = Phase(longs * pair.long, Decimal(_BUSY_EVENTS_PER_MINUTE), Decimal(0))
    sale = Phase(pair.long, (quiet.events_per_minute * times).to_integral_value(), ratio * compiled.slo.budget_ratio)
    yield from _above(alert, pair, "as far as the budget goes, by the traffic", quiet, sale)


def _people_only_cases(compiled: CompiledSlo, alert: CompiledAlert, pair: BurnWindows) -> Iterator[Case]:
    """Traffic falls so far that even a ratio over the limit costs next to nothing."""
    ratio = _FIRES * pair.factor * compiled.slo.budget_ratio
    # Far more bad events than the minimum, as the rules run too seldom here to count all of them.
    enough = 20 * compiled.slo.people_bad_events_min / ratio / (pair.long // MINUTE)
    # A little longer than the window, so that the busy time before has left it.
    night = Phase(
        pair.long + 10 * MINUTE,
        max(Decimal(_BUSY_EVENTS_PER_MINUTE // 100), enough.to_integral_value()),
        min(ratio, Decimal(1)),
    )
    yield from _above(alert, pair, "by the ratio, as many people fail", _busy(pair.long / 2, Decimal(0)), night)


def _shadowed(alert: CompiledAlert, pair: BurnWindows) -> bool:
    """Whether a slower pair, at the same cost, fires whenever this one does in even traffic."""
    cost = pair.factor * (pair.long // MINUTE)
    return any(pair.long < other.long and cost >= other.factor * (other.long // MINUTE) for other in alert.pairs)


def _clean(pair: BurnWindows, slower: BurnWindows) -> timedelta:
    """A clean stretch so long that a slower pair does not reach its factor while this one does; if there is one."""
    cost = Decimal("1.5") * pair.factor if slower.long / pair.long > pair.factor / slower.factor else pair.factor
    wanted = pair.long * max(float(cost / slower.factor) - 0.5, 0.5)
    return min(wanted - wanted % HOUR + HOUR, slower.long)


def _busy(length: timedelta, bad: Decimal) -> Phase:
    return Phase(length, Decimal(_BUSY_EVENTS_PER_MINUTE), bad)


def _people_cases(compiled: CompiledSlo, alert: CompiledAlert) -> Iterator[Case]:
    """At night, when hardly anything of the budget is at stake: half of a few requests fail."""
    minimum = compiled.slo.people_bad_events_min
    pair = alert.pairs[0]
    bad_share = max(Decimal("0.5"), min(Decimal(1), 2 * pair.factor * compiled.slo.budget_ratio))
    settle = 10 * MINUTE
    clean, end = _busy(pair.long / 2, Decimal(0)), pair.long / 2 + pair.long + settle - _STEP
    # A little longer than the window, so that the busy time before has left it.
    night = Phase(pair.long + settle, (minimum + 5) / bad_share / (pair.long // MINUTE), bad_share)
    yield Case(
        "fires: many people fail, though the budget hardly moves",
        alert,
        (clean, night),
        firing=(end,),
        counts_events=True,
    )
    # All within one base window, in which the rules count exactly however seldom they run: rates make 4 events 5.
    quiet = Phase(alert.pairs[-1].long + settle + MINUTE, Decimal("0.2"), Decimal(0))
    few = minimum * 3 // 5
    burst = Phase(2 * MINUTE, few / bad_share / 2, bad_share)
    moment = clean.length + quiet.length + 4 * MINUTE
    yield Case(
        f"near miss: {few} fail at once, too few to wake somebody",
        alert,
        (clean, quiet, burst, replace(quiet, length=settle)),
        silent=(moment, moment + 5 * MINUTE),
    )


def _rekindled_cases(compiled: CompiledSlo, alert: CompiledAlert) -> Iterator[Case]:
    """Many people failed by day, and the long windows still know; a stray error in a quiet night wakes nobody."""
    fast, slow = alert.pairs[0], alert.pairs[-1]
    if compiled.slo.people_bad_events_min < 2 * (slow.long // slow.short):
        return  # where so few are many, one in a short window is
    outage = _busy(fast.long, Decimal(1))
    clean = replace(outage, length=2 * fast.long, bad=Decimal(0))
    # So long that the slow pair's short window forgets, and so short that the fast pair's long one does not.
    night = Phase(slow.short + 12 * MINUTE, Decimal(1), Decimal(0))
    stray = Phase(MINUTE, Decimal(1), Decimal(1))
    struck = clean.length + outage.length
    moment = struck + night.length + 3 * MINUTE
    yield Case(
        "near miss: a stray error in a quiet night, soon after many people failed",
        alert,
        (clean, outage, night, stray, night),
        firing=(struck,),
        silent=(moment, moment + 10 * MINUTE),
    )


def _sale_cases(compiled: CompiledSlo, alert: CompiledAlert) -> Iterator[Case]:
    """A sale burns the budget whatever its ratio; who meets the objective, or meets it again, wakes nobody."""
    fast, slow = alert.pairs[0], alert.pairs[-1]
    budget = compiled.slo.budget_ratio
    settle = slow.short / 6
    # So little traffic for so long that the sale's traffic alone burns above every factor.
    hours = slow.long // HOUR * slow.factor * Decimal("1.5")
    before = Phase(math.ceil(hours) * HOUR, Decimal(_BUSY_EVENTS_PER_MINUTE // 1000), Decimal(0))
    good = _busy(fast.long - slow.short - settle, budget * Decimal("0.7"))
    wavering = _busy(slow.short + settle, budget * _FIRES)
    outage = _busy(fast.long / 4, min(5 * fast.factor * budget, Decimal(1)))
    mended = _busy(slow.short + 2 * settle, budget * _NEAR_MISS)
    over_objective = min(Decimal(2), (1 + slow.factor) / 2) if slow.factor > 1 else Decimal(2)
    after = replace(before, length=slow.short + 2 * settle, bad=over_objective * budget)
    # Where the objective is not just the slow pair's limit: a little above it for all of the fast pair's long window.
    violated = (replace(wavering, length=good.length + settle),) if slow.factor > 1 else ()
    phases = (before, good, wavering, *violated, outage, mended, outage, after)
    short_only, *fires, long_only, again, cheap = list(_ends(phases))[2:]
    yield Case(
        "fires: an outage in a sale; not while it meets its objective over a long or a short window, nor for little",
        alert,
        phases,
        firing=(*fires, again),
        silent=(short_only, long_only, cheap),
    )


def _ends(phases: tuple[Phase, ...]) -> Iterator[timedelta]:
    end = timedelta(0)
    for phase in phases:
        end += phase.length
        yield end


def _stray_error_cases(compiled: CompiledSlo, alert: CompiledAlert) -> Iterator[Case]:
    """A service with hardly any traffic: a stray error is a large share of the budget, and wakes nobody."""
    minimum = compiled.slo.budget_bad_events_min
    pair = alert.pairs[0]
    # Not at a multiple of the interval, where the increase would fall between two base windows.
    clean = min(pair.long / 2, 2 * HOUR) + 2 * MINUTE
    # A ticket waits for the coarse recording.
    moment = clean + (15 if alert.severity is Severity.TICKET else 3) * MINUTE

    def phases(bad_events: int) -> tuple[Phase, ...]:
        # All within one minute, so that both windows burn as fast as they can.
        quiet = Phase(clean, Decimal(1), Decimal(0))
        return quiet, Phase(MINUTE, Decimal(bad_events), Decimal(1)), replace(quiet, length=30 * MINUTE)

    few = f"{minimum - 1} stray errors in a quiet night"
    yield Case(
        f"near miss: {few}",
        alert,
        phases(minimum - 1),
        silent=(moment, moment + MINUTE * 3 / 2, moment + 3 * MINUTE, moment + 10 * MINUTE),
        counts_events=True,
    )
    if minimum * 60 > _quiet_limit(compiled, alert):
        yield Case(f"fires: one more than {few}", alert, phases(minimum + 1), firing=(moment,), counts_events=True)


def _quiet_limit(compiled: CompiledSlo, alert: CompiledAlert) -> Decimal:
    """Bad events in the long window of the fastest pair that burn at its factor, at one event a minute, sixtyfold."""
    pair = alert.pairs[0]
    return 60 * pair.factor * compiled.slo.budget_ratio * (pair.long // MINUTE)


def _slice_cases(compiled: CompiledSlo, alert: CompiledAlert) -> Iterator[Case]:
    """Slices are bad or good as a whole: one more and one less than the quickest pair needs."""
    sli = compiled.slo.sli
    assert isinstance(sli, Slices), "the caller has looked"
    slice_length = timedelta(seconds=sli.slice_seconds)
    needed = min(
        max(
            int(pair.factor * compiled.slo.budget_ratio * (pair.long // slice_length)) + 1,
            compiled.slo.budget_bad_events_min,
        )
        for pair in alert.pairs
    )
    # A burst that is as old as the base window weighs up to a seventh of that window too much for a moment. Samples
    # come once a step, so only whole steps of slices can be bad.
    margin = -(-compiled.policy.base // (7 * slice_length))
    step = _step(compiled)
    whole = math.lcm(sli.slice_seconds, int(step.total_seconds())) // sli.slice_seconds
    fires, near = -(-(needed + 1) // whole) * whole, (needed - 1 - margin) // whole * whole
    # As long as the longest window: while data is young, a few bad slices are a larger part of what there is. Where the
    # minimum decides, less will do.
    longs = [pair.long for pair in alert.pairs]
    clean = min(longs) if near < compiled.slo.budget_bad_events_min else max(longs)
    if isinstance(sli, Recency):
        # promtool's time begins at 0, so what was never done is late only from here on.
        clean = max(clean, timedelta(seconds=sli.age_max_seconds) + step)
    # A ticket waits for the coarse recording.
    settle = 2 * compiled.policy.coarse_interval if alert.severity is Severity.TICKET else timedelta(0)

    def phases(bad_slices: int) -> tuple[Phase, ...]:
        # A slice holds the sample at its end, not the one at its begin.
        bad = Phase(bad_slices * slice_length, Decimal(1), Decimal(1))
        after = Phase(20 * MINUTE, Decimal(1), Decimal(0))
        return (Phase(clean + step, Decimal(1), Decimal(0)), *([bad] if bad_slices else []), after)

    yield Case(
        f"fires: {fires} bad slices",
        alert,
        phases(fires),
        firing=(clean + fires * slice_length + settle,),
        counts_events=True,
    )
    # Where a few bad slices are too many already, the near miss is none, with the condition at its very limit.
    near = max(near, 0)
    yield Case(
        f"near miss: {near or 'no'} bad slices",
        alert,
        phases(near),
        silent=(clean + near * slice_length + settle,),
        counts_events=True,
    )


# --- as promtool reads it -------------------------------------------------------------------------------------------


def _test(case: Case, compiled: CompiledSlo) -> dict[str, Any]:
    checks = [(moment, True) for moment in case.firing] + [(moment, False) for moment in case.silent]
    return {
        "name": f"{case.alert.name} {case.name}",
        "interval": names.duration(_step(compiled)),
        "input_series": _input_series(case.phases, compiled),
        "promql_expr_test": [_check(case.alert, moment, firing=firing) for moment, firing in sorted(checks)],
    }


def _figures_tests(compiled: CompiledSlo) -> Iterator[dict[str, Any]]:
    """Everything that people read, after half an hour at half the budget; of slices, which are whole, at none of it.

    Every value of every label that is selected has a part in it, and beside them series run that are not selected.
    """
    slices = isinstance(compiled.slo.sli, Slices)
    ratio = Decimal(0) if slices else compiled.slo.budget_ratio / 2
    phase = Phase(HOUR / 2, Decimal(_BUSY_EVENTS_PER_MINUTE), ratio)
    burn = ratio / compiled.slo.budget_ratio
    values = {
        names.SLI_ERROR: ratio,
        names.ERROR_BUDGET_BURN: burn,
        names.OBJECTIVE: compiled.slo.objective_ratio,
        names.ERROR_BUDGET: compiled.slo.budget_ratio,
        names.TIME_PERIOD: Decimal(compiled.policy.period // DAY),
        names.CURRENT_BURN_RATE: burn,
        names.PERIOD_BURN_RATE: burn,
        names.ERROR_BUDGET_REMAINING: 1 - burn,
        names.INFO: Decimal(1),
    }
    checks = []
    for recording in compiled.recordings:
        window = recording.labels.get(names.WINDOW_LABEL, "")
        value = values.get(recording.record.removesuffix(window))
        if value is not None:
            expr = f"abs({compiled.named(recording.record)} - {names.number(value)}) < bool 1e-9"
            checks.append(
                {
                    "expr": expr,
                    "eval_time": names.duration(phase.length),
                    "exp_samples": [{"labels": promql.matchers(recording.labels), "value": 1}],
                }
            )
    figures = {
        "name": f"{compiled.slo.id} figures that people read",
        "interval": names.duration(_step(compiled)),
        "input_series": [{"series": series, "values": v} for series, v in _every_input(phase, compiled).items()],
        "promql_expr_test": checks,
    }
    yield figures
    if isinstance(compiled.slo.sli, Events):
        good, *_ = _input_series((phase,), compiled)
        whole = {
            "expr": compiled.named(names.ERROR_BUDGET_REMAINING),
            "eval_time": names.duration(phase.length),
            "exp_samples": [
                {"labels": names.ERROR_BUDGET_REMAINING + promql.matchers(compiled.series_labels), "value": 1}
            ],
        }
        name = f"{compiled.slo.id} budget is whole while there is no error series"
        yield {**figures, "name": name, "input_series": [good], "promql_expr_test": [whole]}


def _check(alert: CompiledAlert, moment: timedelta, *, firing: bool) -> dict[str, Any]:
    selector = "ALERTS" + promql.matchers({"alertname": alert.name, "alertstate": "firing"})
    labels = promql.matchers({**alert.labels, "alertname": alert.name, "alertstate": "firing"})
    return {
        "expr": selector,
        "eval_time": names.duration(moment),
        "exp_samples": [{"labels": f"ALERTS{labels}", "value": 1}] if firing else [],
    }


def _step(compiled: CompiledSlo) -> timedelta:
    """Time between samples; a slice needs one of its own."""
    sli = compiled.slo.sli
    return min(_STEP, timedelta(seconds=sli.slice_seconds)) if isinstance(sli, Slices) else _STEP


def _input_series(phases: tuple[Phase, ...], compiled: CompiledSlo) -> list[dict[str, str]]:
    return [{"series": series, "values": values} for series, values in _input(phases, compiled).items()]


def _input(  # noqa: PLR0911 - one for each kind
    phases: tuple[Phase, ...], compiled: CompiledSlo
) -> dict[str, str]:
    """Series in promtool's notation, `0+600x60` say: a begin, a step, a number of steps."""
    if not phases:
        return {}
    sli = compiled.slo.sli
    match sli:
        case Events():
            name = sli.all.metric.name
            bad = Selection(sli.bad.metric, {**sli.all.values, **sli.bad.values})
            good_series, bad_series = (name + promql.matchers(next(v)) for v in (_good_variants(sli), _variants(bad)))
            return {
                good_series: _counter(phases, lambda p: p.events_per_minute * (1 - p.bad)),
                bad_series: _counter(phases, lambda p: p.events_per_minute * p.bad),
            }
        case Latency():
            labels = _some_labels(sli.requests)
            name = sli.requests.metric.name
            bucket = promql.matchers({**labels, "le": names.le(sli.threshold_seconds)})
            return {
                f"{name}_count" + promql.matchers(labels): _counter(phases, lambda p: p.events_per_minute),
                f"{name}_bucket{bucket}": _counter(phases, lambda p: p.events_per_minute * (1 - p.bad)),
            }
        case TimeSlice():
            limit = sli.bad_above if sli.bad_above is not None else sli.bad_below
            assert limit is not None, "TimeSlice.problems() allows no slice without a limit"
            below = limit / 2 if limit > 0 else limit - 1  # promtool's notation knows no -1 in the middle
            beyond = limit + 1 if sli.bad_above is not None else below
            return {promql.series(_one(sli.gauge)): _gauge(phases, _step(compiled), good=limit, bad=beyond)}
        case Freshness():
            # promtool's time begins at 0: what waits since second 1 is late for as long as the phase is bad.
            return {promql.series(_one(sli.oldest)): _gauge(phases, _step(compiled), good=Decimal(0), bad=Decimal(1))}
        case Recency():
            return {promql.series(_one(sli.last)): _times(phases, _step(compiled))}
        case _:
            return {}


def _every_input(phase: Phase, compiled: CompiledSlo) -> dict[str, str]:
    """As `_input`, with a series for every label value that is selected, and one for each label that is not."""
    sli = compiled.slo.sli
    events, share = phase.events_per_minute, phase.bad
    match sli:
        case Events():
            name = sli.all.metric.name
            bad = list(_variants(Selection(sli.bad.metric, {**sli.all.values, **sli.bad.values})))
            good = list(_good_variants(sli))
            parts = [(name, labels, events * share / len(bad)) for labels in bad]
            parts += [(name, labels, events * (1 - share) / len(good)) for labels in good]
            parts += [(name, labels, events) for labels in _others(sli.all)]
        case Latency():
            count, bucket = f"{sli.requests.metric.name}_count", f"{sli.requests.metric.name}_bucket"
            edge = {"le": names.le(sli.threshold_seconds)}
            requests = list(_variants(sli.requests))
            parts = [(count, labels, events / len(requests)) for labels in requests]
            parts += [(bucket, labels | edge, events * (1 - share) / len(requests)) for labels in requests]
            parts += [(count, labels, events) for labels in _others(sli.requests)]
        case _:
            return _input((phase,), compiled)
    steps = phase.length // _STEP
    return {name + promql.matchers(labels): f"0+{names.number(each)}x{steps}" for name, labels, each in parts}


def _variants(selection: Selection) -> Iterator[dict[str, str]]:
    """The labels of one series for each selected value."""
    some = _some_labels(selection)
    yield some
    for label, values in selection.values.items():
        for value in values[1:]:
            yield some | {label: value}


def _good_variants(sli: Events) -> Iterator[dict[str, str]]:
    """The labels of one series for each value that counts, but not as bad."""
    for label, bad in sli.bad.values.items():
        for value in sli.all.values.get(label, sli.all.metric.labels[label]):
            if value not in bad:
                yield _some_labels(sli.all) | {label: value}


def _others(selection: Selection) -> Iterator[dict[str, str]]:
    """The labels of a series outside the selection, one for each label that it selects by."""
    for label, values in selection.values.items():
        outside = [value for value in selection.metric.labels[label] if value not in values]
        if outside:
            yield _some_labels(selection) | {label: outside[0]}


def _some_labels(selection: Selection) -> dict[str, str]:
    """The labels of one series of a selection."""
    declared = {label: values[0] for label, values in selection.metric.labels.items()}
    return declared | {label: values[0] for label, values in selection.values.items()}


def _one(selection: Selection) -> Selection:
    return Selection(selection.metric, {label: (value,) for label, value in _some_labels(selection).items()})


def _counter(phases: tuple[Phase, ...], increase_per_step: Callable[[Phase], Decimal]) -> str:
    total = Decimal(0)
    parts = []
    for phase in phases:
        steps = phase.length // _STEP
        step = increase_per_step(phase)
        parts.append(_gone(steps) if phase.gone else f"{names.number(total)}+{names.number(step)}x{steps - 1}")
        total += step * steps
    parts.append(_gone(1) if phases[-1].gone else names.number(total))
    return " ".join(parts)


def _gauge(phases: tuple[Phase, ...], step: timedelta, *, good: Decimal, bad: Decimal) -> str:
    steps = [(phase, phase.length // step) for phase in phases]
    return " ".join(
        _gone(count) if phase.gone else f"{names.number(bad if phase.bad else good)}+0x{count - 1}"
        for phase, count in steps
    )


def _times(phases: tuple[Phase, ...], step: timedelta) -> str:
    """When it was last done: just now, or in a bad phase never."""
    seconds, passed = int(step.total_seconds()), 0
    parts = []
    for phase in phases:
        steps = phase.length // step
        done = "0+0" if phase.bad else f"{passed * seconds}+{seconds}"
        parts.append(_gone(steps) if phase.gone else f"{done}x{steps - 1}")
        passed += steps
    return " ".join(parts)


def _gone(steps: int) -> str:
    """A target that Prometheus knows to be gone, not one that it failed to reach once."""
    return f"stale _x{steps}"
