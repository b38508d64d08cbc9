"""Foreign Sloth specs: what becomes of a good one, and the one line that a wrong one gets."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alerts import sloth
from alerts.sloth_import import SpecError, read, to_python
from slo import Alert, CompiledSlo, Queries, RatioQuery, Severity, Slo, SloError, compile_slo
from slo import conventions as names
from slo.compile import AlertKind, CompiledAlert
from tests.alerts.every_kind import EVERY_KIND, EVERY_OPTION, promise

ROOT = Path(__file__).parents[2]

GOOD = """\
# Our checkout.
version: "prometheus/v1"
service: "checkout"
labels:
  owner: payments
  repo: acme/checkout
  tier: 1
slos:
  # What people see.
  - name: "requests-availability"
    objective: 99.90
    description: "Buyers get an answer."
    labels:
      category: availability
      repo: acme/web
    sli:
      events:
        error_query: sum(rate(http_requests_total{code=~"(5..|429)"}[{{.window}}]))
        total_query: |
          sum(
            rate(http_requests_total[{{ .window }}])
          )
    alerting:
      name: CheckoutErrors
      labels:
        category: availability
      annotations:
        runbook: "https://example.com/#errors"
      page_alert:
        labels:
          routing_key: payments
        annotations:
          call: the bank
      ticket_alert:
        labels:
          routing_key: "#payments"
"""

KUBERNETES = """\
apiVersion: sloth.slok.dev/v1
kind: PrometheusServiceLevel
metadata:
  name: checkout
  namespace: monitoring
  labels: {prometheus: main}
spec:
  service: checkout
  labels: {team: payments}
  slos:
    - name: lag
      objective: 95
      sli:
        raw:
          errorRatioQuery: avg(avg_over_time(lag_ratio[{{.window}}]))
      alerting:
        name: CheckoutLag
        pageAlert:
          disable: true
        ticketAlert:
          labels: {board: PAY}
    - name: errors
      objective: 99.5
      sli:
        events:
          errorQuery: sum(rate(bad_total[{{.window}}]))
          totalQuery: sum(rate(all_total[{{.window}}]))
"""

MINIMAL = """\
version: prometheus/v1
service: shop
slos:
  - name: errors
    objective: 99.9
    sli:
      events:
        error_query: rate(bad_total[{{.window}}])
        total_query: rate(all_total[{{.window}}])
    alerting:
      name: ShopErrors
"""


def only(text: str) -> Slo:
    """The one SLO of a spec."""
    (slo,) = read(text, "spec.yaml").slos
    return slo


# --- good specs -------------------------------------------------------------------------------------------------------


def test_every_part_of_a_spec_is_read() -> None:
    """Labels and annotations merge as in Sloth, the owner is the label, the objective keeps its digits."""
    imported = read(GOOD, "checkout.yaml")
    assert imported.notes == ()
    (slo,) = imported.slos
    assert slo == Slo(
        service="checkout",
        name="requests-availability",
        description="Buyers get an answer.",
        objective=Decimal("99.90"),
        sli=Queries(
            bad='sum(rate(http_requests_total{code=~"(5..|429)"}[{{.window}}]))',
            all="sum(\n  rate(http_requests_total[{{ .window }}])\n)",
        ),
        owner="payments",
        labels={"repo": "acme/web", "tier": "1", "category": "availability"},
        alert_name="CheckoutErrors",
        annotations={"runbook": "https://example.com/#errors"},
        alerts=(
            Alert(
                Severity.PAGE,
                {"category": "availability", "routing_key": "payments"},
                {"call": "the bank"},
            ),
            Alert(Severity.TICKET, {"category": "availability", "routing_key": "#payments"}),
        ),
    )
    assert str(slo.objective) == "99.90"


def test_the_kubernetes_kind_is_read() -> None:
    """Keys in camelCase, a raw ratio with the classic burn, a disabled page, the owner from the label `team`."""
    lag, errors = read(KUBERNETES, "checkout.yaml").slos
    assert lag == Slo(
        service="checkout",
        name="lag",
        description="Lag of checkout.",
        objective=Decimal(95),
        sli=RatioQuery("avg(avg_over_time(lag_ratio[{{.window}}]))"),
        burn="ratio",
        owner="payments",
        labels={"team": "payments"},
        alert_name="CheckoutLag",
        alerts=(Alert(Severity.TICKET, {"board": "PAY"}),),
    )
    assert errors.sli == Queries("sum(rate(bad_total[{{.window}}]))", "sum(rate(all_total[{{.window}}]))")
    assert errors.alerts == (Alert(Severity.PAGE), Alert(Severity.TICKET))


def test_without_a_label_the_service_owns_its_promise() -> None:
    """Neither owner nor team, no description, no alert details: there is still an owner and a sentence."""
    slo = only(MINIMAL)
    assert (slo.owner, slo.description) == ("shop", "Errors of shop.")


ANCHORED = MINIMAL.replace("objective: 99.9", "objective: &target 99.9\n    labels: &labels {a: one, b: two}") + (
    "  - name: more\n    objective: *target\n    labels:\n      <<: *labels\n      b: three\n"
    "    sli: {raw: {error_ratio_query: 'x[{{.window}}]'}}\n"
)


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        (f"{MINIMAL}---\n{KUBERNETES}", ["shop-errors", "checkout-lag", "checkout-errors"]),
        (f"---\n# Nothing.\n---\n{MINIMAL}...\n---\n", ["shop-errors"]),
        (MINIMAL.replace("\n", "\r\n"), ["shop-errors"]),
        (f"\ufeff{MINIMAL}", ["shop-errors"]),
        (ANCHORED, ["shop-errors", "shop-more"]),
    ],
    ids=["two dialects", "empty documents", "CRLF", "byte order mark", "anchors"],
)
def test_files_come_in_many_shapes(text: str, ids: list[str]) -> None:
    """Several documents, empty ones, Windows line ends, a byte order mark and anchors are no hindrance."""
    assert [slo.id for slo in read(text, "spec.yaml").slos] == ids


def test_an_anchor_merges_below_what_stands_there() -> None:
    """A merge key gives labels that the SLO's own override, and an alias gives the number as it was written."""
    slo = read(ANCHORED, "spec.yaml").slos[1]
    assert slo.labels == {"a": "one", "b": "three"}
    assert slo.objective == Decimal("99.9")


def test_three_dashes_within_a_block_are_text() -> None:
    """A line of `---` in a block scalar belongs to the text and ends no document."""
    text = MINIMAL.replace("    sli:", "    description: |\n      Errors.\n      ---\n      # More.\n    sli:")
    assert only(text).description == "Errors.\n---\n# More.\n"


def test_windows_line_ends_do_not_reach_the_query() -> None:
    """A query of several lines has plain line ends, wherever the file was written."""
    assert only(GOOD.replace("\n", "\r\n")) == only(GOOD)


def test_labels_that_say_what_the_rules_say_are_dropped() -> None:
    """A reserved label with the very value that our rules set is no fault, and is not set twice."""
    text = MINIMAL.replace("service: shop", "service: shop\nlabels: {service: shop, sloth_id: shop-errors}")
    text += "      page_alert: {labels: {severity: page, slo: errors}}\n"
    slo = only(text)
    assert slo.labels == {}
    assert slo.alerts == (Alert(Severity.PAGE), Alert(Severity.TICKET))


@pytest.mark.parametrize("function", ["increase", "sum_over_time", "count_over_time", "delta"])
def test_a_count_per_window_gets_a_note(function: str) -> None:
    """A query that counts per window is imported, with a note that says what reads differently, and where."""
    imported = read(MINIMAL.replace("rate(all", f"{function}(all"), "spec.yaml")
    assert len(imported.slos) == 1
    assert imported.notes == (
        (
            f"spec.yaml:9: total_query counts per window ({function}), not per second: ratios and burn rates are "
            "right, but a count over 300 s is read as events per second, so minima of bad events hold back too little; "
            "write it as a rate"
        ),
    )


# --- wrong specs ------------------------------------------------------------------------------------------------------


def changed(old: str, new: str, text: str = MINIMAL) -> str:
    """A spec with one change."""
    assert text.count(old) == 1, old
    return text.replace(old, new)


ALERTING = "      name: ShopErrors\n"
RAW = "        error_ratio_query: x[{{.window}}]\n"
VERSIONS = "read are prometheus/v1, or sloth.slok.dev/v1 with the kind PrometheusServiceLevel"
WRONG = {
    "typo in alerting": (
        changed(ALERTING, f"{ALERTING}      page_alrt: {{disable: true}}\n"),
        "12: unknown key 'page_alrt' in alerting; did you mean 'page_alert'?",
    ),
    "camelCase": (
        changed(ALERTING, f"{ALERTING}      pageAlert: {{disable: true}}\n"),
        "12: unknown key 'pageAlert' in alerting; did you mean 'page_alert'?",
    ),
    "snake_case in Kubernetes": (
        changed("ticketAlert", "ticket_alert", KUBERNETES),
        "20: unknown key 'ticket_alert' in alerting; did you mean 'ticketAlert'?",
    ),
    "unknown key": (
        changed("    alerting:", "    xyz: 1\n    alerting:"),
        "10: unknown key 'xyz' in the SLO; known are name, description, objective, plugins, labels, sli, alerting",
    ),
    "no total_query": (
        changed("        total_query: rate(all_total[{{.window}}])\n", ""),
        "7: events has no total_query",
    ),
    "no window": (
        changed("all_total[{{.window}}]", "all_total[5m]"),
        (
            "9: SLO shop/errors: the all query has no {{.window}}; write it where the range goes, "
            "as in rate(x[{{.window}}])"
        ),
    ),
    "objective 100": (
        changed("99.9", "100"),
        (
            "5: SLO shop/errors: the objective 100 % is not allowed; it must be above 0 and below 100, "
            "since a budget of nothing or of everything cannot be spent"
        ),
    ),
    "objective in words": (changed("99.9", '"99.9"'), "5: objective must be a number, 99.9 say, not '99.9'"),
    "objective with an underscore": (changed("99.9", "9_9"), "5: objective must be a number, 99.9 say, not '9_9'"),
    "no objective": (changed("    objective: 99.9\n", ""), "4: the SLO has no objective"),
    "can never fire": (
        changed("99.9", "92"),
        (
            "5: SLO shop/errors: the page over 1h can never fire: 14.4 x (1 - 92 %) = 1.152, and no error ratio is "
            "above 1; use an objective above 93.055556 %, or leave out the page"
        ),
    ),
    "two SLIs": (
        changed("    alerting:", f"      raw:\n{RAW}    alerting:"),
        "6: sli needs exactly one of events and raw; it has events and raw",
    ),
    "no SLI": (
        changed("    sli:\n", "    sli: {}\n    labels:\n")
        .replace("      events:\n", "")
        .replace("        error_query: rate(bad_total[{{.window}}])\n", "      a: b\n")
        .replace("        total_query: rate(all_total[{{.window}}])\n", ""),
        "6: sli needs exactly one of events and raw; it has none of them",
    ),
    "plugin SLI": (
        changed("      events:", "      plugin: {id: x, options: {}}\n      events:"),
        "7: a plugin SLI is Go code, which is not read; write the queries that it makes as events or raw",
    ),
    "SLO plugins": (
        changed("slos:", "slo_plugins: {chain: []}\nslos:"),
        "3: slo_plugins are Go code that changes the rules, which is not read; take them out",
    ),
    "wrong version": (changed("/v1", "/v2"), f"1: version 'prometheus/v2' is not known; {VERSIONS}"),
    "no version": (changed("version: prometheus/v1\n", ""), f"1: there is no version; {VERSIONS}"),
    "wrong kind": (
        changed("PrometheusServiceLevel", "AlertWindows", KUBERNETES),
        f"2: kind 'AlertWindows' is not known; {VERSIONS}",
    ),
    "OpenSLO": ("apiVersion: openslo/v1\nkind: SLO\n", f"1: apiVersion 'openslo/v1' is not known; {VERSIONS}"),
    "no service": (changed("service: shop\n", ""), "1: the spec has no service"),
    "service is no name": (
        changed("service: shop", "service: a"),
        (
            "4: SLO a/errors: the service 'a' is not allowed; two or more letters, digits, '-', '_' or '.', "
            "with a letter or digit at both ends"
        ),
    ),
    "no slos": ("version: prometheus/v1\nservice: shop\n", "1: the spec has no slos"),
    "empty slos": ("version: prometheus/v1\nservice: shop\nslos: []\n", "1: there is no SLO in it"),
    "empty file": ("# Nothing.\n", "1: there is no SLO in it"),
    "reserved label": (
        changed(ALERTING, f"{ALERTING}      page_alert: {{labels: {{sloth_severity: critical}}}}\n"),
        (
            "12: page_alert labels set 'sloth_severity' to 'critical', but the rules set it themselves to 'page'; "
            "take it out, or choose another name"
        ),
    ),
    "reserved label without a value of ours": (
        changed("slos:", "labels: {alertname: X}\nslos:"),
        "3: labels set 'alertname' to 'X', but the rules set it themselves; take it out, or choose another name",
    ),
    "label name": (
        changed("slos:", "labels: {a-b: X}\nslos:"),
        "5: SLO shop/errors: the labels name 'a-b'; a label is letters, digits and _, not beginning with __",
    ),
    "label is no text": (
        changed("slos:", "labels:\n  team: yes\nslos:"),
        "4: labels: team must be text; put yes in quotes",
    ),
    "label is empty": (changed("slos:", "labels:\n  team:\nslos:"), "4: labels: team is empty"),
    "labels are a list": (changed("slos:", "labels: [a]\nslos:"), "3: labels must be a mapping of keys to values"),
    "slos are a mapping": ("version: prometheus/v1\nservice: shop\nslos:\n  a: b\n", "3: slos must be a list"),
    "alert name": (
        changed("ShopErrors", "Shop Errors"),
        "10: SLO shop/errors: the alert name 'Shop Errors' is not allowed; letters, digits and _",
    ),
    "disable": (
        changed(ALERTING, f"{ALERTING}      page_alert: {{disable: never}}\n"),
        "12: disable must be true or false",
    ),
    "key twice": (
        changed("    sli:", "    objective: 99\n    sli:"),
        "6: the SLO has the key 'objective' twice; the first is in line 5",
    ),
    "SLO twice": (
        f"{MINIMAL}---\n{MINIMAL}",
        "16: SLO shop/errors: has the id shop-errors of SLO shop/errors in line 4; rename one",
    ),
    "id twice": (
        f"{MINIMAL}---\n{MINIMAL}".replace("shop\n", "shop-web\n", 1)
        .replace("name: errors", "name: web-errors")
        .replace("name: web-errors", "name: errors", 1),
        "16: SLO shop/web-errors: has the id shop-web-errors of SLO shop-web/errors in line 4; rename one",
    ),
    "merge cycle": (
        changed("slos:", "labels: &a\n  <<: *a\nslos:"),
        "4: labels merges a mapping that merges another; write its keys out",
    ),
    "merge of no mapping": (
        changed("slos:", "labels:\n  <<: text\nslos:"),
        "4: labels merges what is no mapping",
    ),
    "no YAML": (changed("  - name: errors", "  - name: [errors"), "5: is no YAML: expected ',' or ']', but got ':'"),
    "tab": (changed("    sli:", "\tsli:"), "6: is no YAML: found character '\\t' that cannot start any token"),
    "control character": (changed("errors", "err\x07ors"), "4: is no YAML: the character '\\x07' is not allowed"),
    "unknown anchor": (changed("99.9", "*x"), "5: is no YAML: found undefined alias 'x'"),
    "no mapping": ("just text\n", "1: the document must be a mapping of keys to values"),
    "too deep": ("[" * 5_000, "1: is no Sloth spec: it is nested too deeply"),
}


@pytest.mark.parametrize(("text", "line"), WRONG.values(), ids=WRONG.keys())
def test_a_wrong_spec_gets_one_exact_line(text: str, line: str) -> None:
    """What is wrong, where, and what is allowed."""
    with pytest.raises(SpecError) as raised:
        read(text, "spec.yaml")
    assert str(raised.value) == f"spec.yaml:{line}"


def test_all_faults_are_told_at_once() -> None:
    """Every fault of a file is in one `SloError`, by line."""
    text = changed("all_total[{{.window}}]", "all_total[5m]").replace("99.9", "100").replace("service:", "servce:")
    with pytest.raises(SloError) as raised:
        read(text, "spec.yaml")
    assert [line.split(": ")[0] for line in str(raised.value).split("\n")] == [
        "spec.yaml:1",
        "spec.yaml:2",
        "spec.yaml:5",
        "spec.yaml:9",
    ]
    assert len(raised.value.problems) == 4


@settings(max_examples=60)
@given(st.data())
def test_no_broken_spec_ends_in_another_error(data: st.DataObject) -> None:
    """Whatever is cut out of a spec or put into it, there are SLOs or a `SpecError`, nothing else."""
    start = data.draw(st.integers(0, len(GOOD)))
    end = data.draw(st.integers(start, min(len(GOOD), start + 40)))
    put = data.draw(st.text(alphabet="ab:-[]{}&*!|>'\"#%@`\n ,?<\t0.~", max_size=8))
    try:
        assert read(GOOD[:start] + put + GOOD[end:], "spec.yaml").slos
    except SpecError as error:
        assert error.problems  # noqa: PT017 - either outcome is right


# --- there and back ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("slo", [*EVERY_KIND, *EVERY_OPTION], ids=lambda slo: slo.id)
def test_an_export_comes_back_with_the_same_series_and_alerts(slo: Slo) -> None:
    """Export and import keep ids, series, labels, classic burn-rate expressions and everything that alerts carry."""
    (artefact,) = sloth.render([compile_slo(slo)])
    back = compile_slo(only(artefact.text))
    before = compile_slo(replace(slo, burn="ratio"))
    after = compile_slo(replace(back.slo, burn="ratio"))
    raw_reads = {names.ALL_EVENTS + "5m", names.BAD_EVENTS + "5m"}
    for ours, theirs in zip(before.recordings, after.recordings, strict=True):
        assert (ours.record, ours.labels) == (theirs.record, theirs.labels)
        assert ours.record in raw_reads or ours.expr == theirs.expr
    assert burns(before) == burns(after)
    assert back.slo.description == slo.description


def burns(compiled: CompiledSlo) -> list[CompiledAlert]:
    """The burn-rate alerts; an absence is told from raw series, which a foreign query hides."""
    return [alert for alert in compiled.alerts if alert.kind is AlertKind.BURN]


# --- as Python --------------------------------------------------------------------------------------------------------


def executed(source: str) -> list[Slo]:
    """The SLOs of a module of definitions, in order."""
    scope: dict[str, object] = {}
    exec(source, scope)  # noqa: S102 - that it runs is the point
    return [value for value in scope.values() if isinstance(value, Slo)]


def formatted(source: str) -> str:
    """The source as ruff leaves it."""
    command = [sys.executable, "-m", "ruff", "format", "--stdin-filename", str(ROOT / "slo/definitions/x.py"), "-"]
    done = subprocess.run(command, input=source, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


LONG = 'sum(rate(http_request_duration_seconds_count{code=~"5..", job="checkout"}[{{.window}}]))'
PRINTED = (
    *read(f"{GOOD}---\n{KUBERNETES}", "x").slos,
    *(slo for slo in EVERY_KIND if isinstance(slo.sli, Queries | RatioQuery)),
    *(promise(slo.name, sli=RatioQuery("x[{{.window}}]"), burn="ratio", alerts=slo.alerts) for slo in EVERY_OPTION),
    promise("class", sli=Queries(f"{LONG}\nor\n{LONG}", f"{LONG}\n+ {LONG}\n")),
    promise("2nd", sli=Queries(f"{LONG} + {LONG}", f"it's [{{{{.window}}}}] {LONG}\n")),
    promise("requests-availability", sli=RatioQuery("ü\\[{{.window}}]\t\x07📈'\"" + "\nvery long" * 20), burn="ratio"),
)


def test_printed_definitions_make_equal_slos() -> None:
    """The module runs, and its values are those that were printed."""
    assert executed(to_python(PRINTED)) == list(PRINTED)


def test_printed_definitions_are_formatted() -> None:
    """Ruff's formatter, with this repository's settings, would leave the module as it is."""
    source = to_python(PRINTED)
    assert formatted(source) == source


@settings(max_examples=40)
@given(
    st.lists(st.integers(1, 60).map("x".__mul__), min_size=1, max_size=4), st.sampled_from(["", "'", '"', "\"'", "\\"])
)
def test_any_query_is_printed_as_it_is(words: list[str], quote: str) -> None:
    """Whatever its length, its lines and its quotes, a query is printed so that it runs to the same text."""
    slo = promise("query", sli=RatioQuery("\n".join([*words, quote, "[{{.window}}]"])), burn="ratio")
    assert executed(to_python([slo])) == [slo]


def test_lengths_around_the_limit_are_formatted() -> None:
    """Lines just short of the limit, and just beyond it, are laid out as the formatter would."""
    slos = []
    for length in range(75, 100):
        query = "a\n" + "b" * length + "[{{.window}}]"
        annotations = {"summary": query, "z": query}
        slos.append(promise(f"ratio-{length}", sli=RatioQuery(query), burn="ratio", annotations=annotations))
        slos.append(promise(f"events-{length}", sli=Queries(query, f"{query}+1")))
    source = to_python(slos)
    assert formatted(source) == source
    assert executed(source) == slos


def test_wide_and_narrow_characters_are_formatted() -> None:
    """The formatter counts columns, not characters: marks that take none do not upset the layout."""
    query = "e\u0301" * 50 + "\n" + "\u4e00" * 20 + "[{{.window}}]"
    source = to_python([promise("marks", sli=RatioQuery(query), burn="ratio")])
    assert formatted(source) == source


def test_definitions_are_named_after_their_slos() -> None:
    """A name is that of the SLO, with its service where two share it; never a word that Python keeps to itself."""
    named = [("errors", "shop"), ("errors", "cart"), ("Class", "shop"), ("9lives", "shop"), ("errors", "cart.x")]
    sli = RatioQuery("x[{{.window}}]")
    slos = [promise(name, service=service, sli=sli, burn="ratio") for name, service in named]
    source = to_python([*slos, replace(slos[0], name="timedelta")])
    names_there = [line.split(" = ")[0] for line in source.split("\n") if line.endswith("= Slo(")]
    assert names_there == ["errors", "cart_errors", "slo_class", "slo_9lives", "cart_x_errors", "slo_timedelta"]
    assert executed(source)[:-1] == slos


def test_what_is_python_already_is_not_printed() -> None:
    """An SLO over the catalogue's metrics, and none at all, are refused."""
    with pytest.raises(TypeError, match="SLO shop/events counts a metric of the catalogue"):
        to_python([promise("events")])
    with pytest.raises(ValueError, match="no SLO"):
        to_python([])


def test_a_severity_of_the_specs_own_is_left_out_and_told() -> None:
    """Nearly every spec sets `severity`; the import goes on, and a note says what routes must ask for now."""
    spec = changed(ALERTING, f"{ALERTING}      page_alert: {{labels: {{severity: critical, pager: main}}}}\n")
    imported = read(spec, "shop.yaml")
    assert dict(imported.slos[0].alerts[0].labels) == {"pager": "main"}
    (note,) = imported.notes
    assert note == (
        "shop.yaml:12: page_alert labels set 'severity' to 'critical', but the rules set it themselves to 'page': "
        "left out, so routes that ask for it must ask for ours"
    )
