"""OpenSLO objects: what they say, and that they keep to the letter of the specification.

The validator below is written from the rules of the specification's README (https://github.com/OpenSLO/OpenSLO, v1)
and of its Go SDK, and is strict: a key that the specification does not name is a fault.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import replace
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import yaml as pyyaml

from alerts import openslo
from slo import Slo, compile_slo
from slo.definitions import redemption
from slo.windows import policy
from tests.alerts.every_kind import EVERY_KIND, EVERY_OPTION, OTHER_PERIODS, promise

ALL = [
    *(redemption.availability, redemption.latency_fast, redemption.latency_slow, redemption.settlement),
    *(*EVERY_KIND, *EVERY_OPTION, *OTHER_PERIODS.values()),
    promise("x" * 80, description="d" * 2_000),
]


def objects(slos: list[Slo]) -> list[dict[str, Any]]:
    """Every object of every file."""
    artefacts = openslo.render([compile_slo(slo) for slo in slos])
    return [each for artefact in artefacts for each in pyyaml.safe_load_all(artefact.text)]


def slo_of(slo: Slo) -> dict[str, Any]:
    """The spec of the SLO object."""
    (found,) = (each for each in objects([slo]) if each["kind"] == "SLO")
    spec: dict[str, Any] = found["spec"]
    return spec


# --- the rules of the specification -----------------------------------------------------------------------------------

DNS_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
KEY = re.compile(r"([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[a-zA-Z0-9]([-._a-zA-Z0-9]{0,61}[a-zA-Z0-9])?")
SHORTHAND = re.compile(r"[1-9][0-9]*[mhdwMQY]")
OPERATORS = {"lte", "gte", "lt", "gt"}
SPECS = {
    "SLO": "service indicator timeWindow budgetingMethod objectives description? alertPolicies?",
    "Service": "description?",
    "AlertPolicy": (
        "description? alertWhenNoData? alertWhenResolved? alertWhenBreaching? conditions notificationTargets"
    ),
    "AlertCondition": "description? severity condition",
    "AlertNotificationTarget": "target description?",
}


def keys(value: Mapping[str, Any], allowed: str, where: str) -> Iterator[str]:
    """Faults of a mapping's keys; `allowed` names them, with `?` behind what may be missing."""
    required = {key for key in allowed.split() if not key.endswith("?")}
    known = {key.removesuffix("?") for key in allowed.split()}
    yield from (f"{where}: {key} is missing" for key in sorted(required - value.keys()))
    yield from (f"{where}: {key} is unknown" for key in sorted(value.keys() - known))


def metadata_faults(metadata: Mapping[str, Any], where: str) -> Iterator[str]:
    """Section "General Schema"."""
    yield from keys(metadata, "name displayName? labels? annotations?", where)
    if not DNS_LABEL.fullmatch(metadata["name"]):
        yield f"{where}: name {metadata['name']!r}"
    if len(metadata.get("displayName", "")) > 63:
        yield f"{where}: displayName"
    for what in ("labels", "annotations"):
        for key, value in metadata.get(what, {}).items():
            if not KEY.fullmatch(key) or not isinstance(value, str) or (what == "labels" and "/" in key):
                yield f"{where}: {what} {key!r}: {value!r}"


def object_faults(each: Mapping[str, Any], *, inline: bool = False) -> Iterator[str]:
    """An object of any kind; one within another has no apiVersion."""
    kind = each.get("kind", "?")
    yield from keys(each, "kind metadata spec" if inline else "apiVersion kind metadata spec", kind)
    if not inline and each["apiVersion"] != "openslo/v1":
        yield f"apiVersion {each['apiVersion']!r}"
    if kind not in SPECS:
        yield f"kind {kind!r}"
        return
    yield from metadata_faults(each["metadata"], kind)
    yield from keys(each["spec"], SPECS[kind], f"{kind}.spec")
    if len(each["spec"].get("description", "")) > 1_050:
        yield f"{kind}: description"
    match kind:
        case "SLO":
            yield from slo_faults(each["spec"])
        case "AlertPolicy":
            yield from policy_faults(each["spec"])
        case "AlertCondition":
            yield from condition_faults(each["spec"])


def slo_faults(spec: Mapping[str, Any]) -> Iterator[str]:
    """Sections "SLO", "Objectives" and "SLI"."""
    yield from keys(spec["indicator"], "metadata spec", "indicator")
    yield from metadata_faults(spec["indicator"]["metadata"], "indicator")
    yield from sli_faults(spec["indicator"]["spec"])
    if len(spec["timeWindow"]) != 1:
        yield "timeWindow: not exactly one"
    yield from time_window_faults(spec["timeWindow"][0])
    method = spec["budgetingMethod"]
    if method not in {"Occurrences", "Timeslices", "RatioTimeslices"}:
        yield f"budgetingMethod {method!r}"
    threshold = "thresholdMetric" in spec["indicator"]["spec"]
    if not spec["objectives"] or (threshold and len(spec["objectives"]) > 1):
        yield "objectives: none, or several on a threshold"
    needed = "op value " if threshold else ""
    needed += {"Timeslices": "timeSliceTarget timeSliceWindow", "RatioTimeslices": "timeSliceWindow"}.get(method, "")
    for objective in spec["objectives"]:
        yield from keys(objective, f"target displayName? {needed}", "objective")
        if not 0 <= objective["target"] < 1:
            yield f"target {objective['target']!r}"
        if not 0 < objective.get("timeSliceTarget", 1) <= 1:
            yield "timeSliceTarget"
        if objective.get("op", "lt") not in OPERATORS or isinstance(objective.get("value", 0), str):
            yield f"op {objective.get('op')!r}, value {objective.get('value')!r}"
        window = objective.get("timeSliceWindow", 1)  # a number is minutes
        if isinstance(window, str) and not SHORTHAND.fullmatch(window):
            yield f"timeSliceWindow {window!r}"
    for reference in spec.get("alertPolicies", []):
        yield from keys(reference, "alertPolicyRef", "alertPolicies")


def time_window_faults(window: Mapping[str, Any]) -> Iterator[str]:
    """Rolling, or aligned to the calendar."""
    if not SHORTHAND.fullmatch(window["duration"]):
        yield f"duration {window['duration']!r}"
    if window["isRolling"] is True:
        yield from keys(window, "duration isRolling", "timeWindow")
        return
    yield from keys(window, "duration isRolling calendar", "timeWindow")
    yield from keys(window["calendar"], "startTime timeZone", "calendar")
    datetime.strptime(window["calendar"]["startTime"], "%Y-%m-%d %H:%M:%S").replace(
        tzinfo=ZoneInfo(window["calendar"]["timeZone"])
    )


def sli_faults(spec: Mapping[str, Any]) -> Iterator[str]:
    """One of the two kinds of metric, and its sources."""
    yield from keys(spec, "thresholdMetric? ratioMetric?", "indicator.spec")
    if len(spec) != 1:
        yield "indicator.spec: not exactly one metric"
        return
    if "thresholdMetric" in spec:
        sources = {"thresholdMetric": spec["thresholdMetric"]}
    else:
        ratio = dict(spec["ratioMetric"])
        sources = {key: ratio[key] for key in ("good", "bad", "total", "raw") if key in ratio}
        shape = "counter raw rawType" if "raw" in ratio else f"counter {'good' if 'good' in ratio else 'bad'} total"
        yield from keys(ratio, shape, "ratioMetric")
        if not isinstance(ratio.get("counter"), bool) or ratio.get("rawType", "failure") not in {"success", "failure"}:
            yield "ratioMetric: counter or rawType"
    for name, source in sources.items():
        yield from keys(source, "metricSource", name)
        yield from keys(source["metricSource"], "type spec", f"{name}.metricSource")
        if not source["metricSource"]["spec"].get("query"):
            yield f"{name}: no query"


def policy_faults(spec: Mapping[str, Any]) -> Iterator[str]:
    """Section "AlertPolicy": one condition, at least one target."""
    if len(spec["conditions"]) != 1 or not spec["notificationTargets"]:
        yield "AlertPolicy: not exactly one condition, or no target"
    for condition in spec["conditions"]:
        yield from object_faults(condition, inline=True)
        if condition["kind"] != "AlertCondition":
            yield "AlertPolicy: its condition is none"
    for target in spec["notificationTargets"]:
        yield from keys(target, "targetRef", "notificationTargets")


def condition_faults(spec: Mapping[str, Any]) -> Iterator[str]:
    """Section "AlertCondition"."""
    condition = spec["condition"]
    yield from keys(condition, "kind op threshold lookbackWindow alertAfter?", "condition")
    if condition["kind"] != "burnrate" or condition["op"] not in OPERATORS:
        yield "condition: kind or op"
    if isinstance(condition["threshold"], str) or not SHORTHAND.fullmatch(condition["lookbackWindow"]):
        yield "condition: threshold or lookbackWindow"


def faults(found: list[dict[str, Any]]) -> list[str]:
    """Everything that is wrong with a set of objects, references and repeats included."""
    wrong = [fault for each in found for fault in object_faults(each)]
    known = [(each["kind"], each["metadata"]["name"]) for each in found]
    wrong += [f"twice: {each}" for each in set(known) if known.count(each) > 1]
    wanted = [("Service", each["spec"]["service"]) for each in found if each["kind"] == "SLO"]
    for each in found:
        spec = each["spec"]
        wanted += [("AlertPolicy", policy["alertPolicyRef"]) for policy in spec.get("alertPolicies", [])]
        wanted += [("AlertNotificationTarget", to["targetRef"]) for to in spec.get("notificationTargets", [])]
    return wrong + [f"refers to nothing: {each}" for each in wanted if each not in known]


# --- what is rendered -------------------------------------------------------------------------------------------------


def test_every_object_keeps_to_the_specification() -> None:
    """SLOs of every kind, with every option and period, give valid objects whose references all lead somewhere."""
    found = objects(ALL)
    assert faults(found) == []
    assert {each["kind"] for each in found} == {"SLO", "Service", "AlertPolicy", "AlertNotificationTarget"}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("metadata", "name"), "Not_Allowed"),
        (("metadata", "labels"), {"_key": "x"}),
        (("metadata", "more"), "x"),
        (("spec", "service"), "nowhere"),
        (("spec", "budgetingMethod"), "Sometimes"),
        (("spec", "timeWindow", 0, "duration"), "30 days"),
        (("spec", "timeWindow", 0, "calendar"), {}),
        (("spec", "objectives", 0, "target"), 99.9),
        (("spec", "objectives", 0, "op"), "lt"),
        (("spec", "objectives", 0, "timeSliceWindow"), "1m"),
        (("spec", "indicator", "spec", "ratioMetric", "good"), {"metricSource": {"type": "x", "spec": {"query": "x"}}}),
        (("spec", "indicator", "spec", "ratioMetric", "counter"), "yes"),
        (("spec", "alertPolicies", 0, "alertPolicyRef"), "nowhere"),
        (("spec", "description"), "x" * 1_051),
    ],
)
def test_the_validator_sees_faults(path: tuple[str | int, ...], value: object) -> None:
    """A validator that finds nothing proves nothing: each of these is seen."""
    found = deepcopy(objects([promise("events")]))
    *way, last = path
    at: Any = next(each for each in found if each["kind"] == "SLO")
    for step in way:
        at = at[step]
    at[last] = value
    assert faults(found) != []


def test_files_have_one_home_each() -> None:
    """One file an SLO, and one each for what SLOs share; a service of several SLOs is there once."""
    artefacts = openslo.render([compile_slo(slo) for slo in (redemption.availability, redemption.settlement)])
    assert [str(artefact.path) for artefact in artefacts] == [
        "openslo/redemption-availability.yaml",
        "openslo/redemption-settlement.yaml",
        "openslo/services.yaml",
        "openslo/targets.yaml",
    ]
    assert artefacts[2].text.count("kind: Service") == 1
    assert "Owned by loyalty-sre." in artefacts[2].text


def test_events_are_counters_that_others_put_a_rate_around() -> None:
    """Bad and all events are bare selectors of a counter, weighed by occurrence."""
    spec = slo_of(EVERY_KIND[0])
    ratio = spec["indicator"]["spec"]["ratioMetric"]
    assert ratio["counter"] is True
    assert ratio["bad"]["metricSource"]["spec"]["query"] == 'shop_requests_total{code=~"4\\\\.x|error"}'
    assert ratio["total"]["metricSource"]["spec"]["query"] == "shop_requests_total"
    assert spec["budgetingMethod"] == "Occurrences"
    assert spec["objectives"] == [{"displayName": "events", "target": 0.999}]


def test_fast_requests_are_the_good_ones() -> None:
    """A latency counts the bucket of its threshold as good, among the histogram's count."""
    ratio = slo_of(EVERY_KIND[1])["indicator"]["spec"]["ratioMetric"]
    assert ratio["good"]["metricSource"]["spec"]["query"] == 'shop_duration_seconds_bucket{code="ok", le="1.0"}'
    assert ratio["total"]["metricSource"]["spec"]["query"] == 'shop_duration_seconds_count{code="ok"}'


@pytest.mark.parametrize(
    ("number", "query", "judged"),
    [
        (2, "max(shop_pool_busy_ratio)", {"op": "lte", "value": 0.9, "timeSliceWindow": "1m"}),
        (3, 'min(shop_pool_busy_ratio{pool="read"})', {"op": "gte", "value": 0.2, "timeSliceWindow": 0.5}),
        (
            4,
            "time() - min(shop_oldest_timestamp_seconds > 0)\nor\n0 * min(shop_oldest_timestamp_seconds)",
            {"op": "lte", "value": 300, "timeSliceWindow": "1m"},
        ),
        (5, "time() - max(shop_done_timestamp_seconds)", {"op": "lte", "value": 600, "timeSliceWindow": "1m"}),
    ],
)
def test_slices_say_when_they_are_good(number: int, query: str, judged: dict[str, object]) -> None:
    """A gauge's condition is turned round, as OpenSLO says what is good; a slice must be good all through."""
    spec = slo_of(EVERY_KIND[number])
    assert spec["budgetingMethod"] == "Timeslices"
    assert spec["indicator"]["spec"]["thresholdMetric"]["metricSource"]["spec"]["query"] == query
    assert spec["objectives"][0].items() >= {**judged, "timeSliceTarget": 1}.items()


def test_queries_from_elsewhere_read_the_shortest_window() -> None:
    """OpenSLO has no placeholder for a window, so rates and ratios are those of five minutes, and are no counters."""
    queries, ratio = (slo_of(slo) for slo in EVERY_KIND[6:])
    events = queries["indicator"]["spec"]["ratioMetric"]
    assert events["counter"] is False
    assert events["total"]["metricSource"]["spec"]["query"] == "sum by (pod) (rate(shop_requests_total[5m]))"
    raw = ratio["indicator"]["spec"]["ratioMetric"]
    assert raw["rawType"] == "failure"
    assert ratio["budgetingMethod"] == "RatioTimeslices"
    assert ratio["objectives"][0]["timeSliceWindow"] == "5m"


def test_a_month_follows_the_calendar() -> None:
    """A calendar month begins on a first, at midnight UTC."""
    assert slo_of(OTHER_PERIODS["month"])["timeWindow"] == [
        {
            "duration": "1M",
            "calendar": {"startTime": "2026-01-01 00:00:00", "timeZone": "UTC"},
            "isRolling": False,
        }
    ]


def test_each_burn_rate_pair_is_a_policy_on_its_long_window() -> None:
    """The classic factors and windows; only the first policy, the gravest, tells that there is no data."""
    policies = [each for each in objects([promise("events")]) if each["kind"] == "AlertPolicy"]
    said = []
    for each in policies:
        (condition,) = each["spec"]["conditions"]
        burn = condition["spec"]["condition"]
        short = condition["metadata"]["annotations"]["shortWindow"]
        said.append((condition["spec"]["severity"], burn["threshold"], burn["lookbackWindow"], short))
    assert said == [
        ("page", 14.4, "1h", "5m"),
        ("page", 6, "6h", "30m"),
        ("ticket", 3, "1d", "2h"),
        ("ticket", 1, "3d", "6h"),
    ]
    assert [each["spec"]["alertWhenNoData"] for each in policies] == [True, False, False, False]


def test_alerts_that_an_slo_lacks_are_not_there() -> None:
    """Without alerts there is no policy and nobody to tell; with a ticket alone there are its two pairs."""
    silent, ticket_only, _ = EVERY_OPTION
    assert {each["kind"] for each in objects([silent])} == {"SLO", "Service"}
    told = [each["metadata"]["name"] for each in objects([ticket_only]) if each["kind"] == "AlertNotificationTarget"]
    assert told == ["ticket"]
    assert len(slo_of(ticket_only)["alertPolicies"]) == 2


def test_names_that_openslo_does_not_allow_stay_apart() -> None:
    """A name that must change carries a digest, so that two such names never become one; short ones stay."""
    assert openslo.object_name("shop-events") == "shop-events"
    changed = [
        openslo.object_name(name)
        for name in ("Shop.a", "shop-A", "shop_a", "x" * 64, "x" * 65, "__", "a" * 54 + "." * 9)
    ]
    assert len(set(changed)) == len(changed)
    assert all(DNS_LABEL.fullmatch(name) for name in changed)


def test_what_openslo_has_no_key_for_is_named() -> None:
    """A label whose name OpenSLO refuses is left out, and the file says so."""
    (artefact, *_) = openslo.render([compile_slo(EVERY_OPTION[2])])
    assert artefact.text.split("\n")[1] == "# Left out, as OpenSLO allows no such keys: _private"


def test_the_definition_leaves_with_its_own_period() -> None:
    """Scaled windows are a demonstration's; the export is that of the month."""
    slo = replace(EVERY_KIND[4])
    assert openslo.render([compile_slo(slo, policy(slo.window).scaled(60))]) == openslo.render([compile_slo(slo)])
