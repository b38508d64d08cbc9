"""Sloth specs as SLOs, and all that is wrong with them at once."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, TypeAlias

import yaml

from alerts.sloth_import import nodes
from alerts.sloth_import.nodes import Entry, Faults
from slo import conventions as names
from slo.errors import SloError
from slo.model import PAGE_AND_TICKET, RESERVED_LABELS, Alert, Queries, RatioQuery, Severity, Slo
from slo.windows import Rolling, policy

_VERSIONS = "prometheus/v1, or sloth.slok.dev/v1 with the kind PrometheusServiceLevel"
_NAMELESS = "unnamed"

# Functions whose value grows with the window: `rate` times the window's seconds, or a number of samples.
_PER_WINDOW = re.compile(r"\b(increase|delta|sum_over_time|count_over_time)\s*\(")


_Part: TypeAlias = tuple[int, dict[str, Any]]
"""A line, and the arguments of `Slo` that stand there."""


@dataclass(frozen=True, slots=True)
class Imported:
    """What a file holds.

    Attributes:
        slos: In the order of the file.
        notes: What an importer should know of what could be read, one line each, with `file:line: `.
    """

    slos: tuple[Slo, ...]
    notes: tuple[str, ...]


def read(text: str, file: str) -> Imported:
    """Read a file of Sloth specs.

    A page or ticket that is not disabled becomes an alert of ours. The owner is the label `owner`, else `team`, else
    the service. Labels that our rules set themselves are refused unless they say the same.

    Args:
        text: The whole file.
        file: Its name, for errors and notes.

    Raises:
        SpecError: The file is wrong; every fault is named with its line.
    """
    reading = _Reading(Faults(file))
    for document in nodes.documents(text, reading.faults):
        reading.document(document)
    if not reading.slos and not reading.faults.found:
        reading.faults.add(1, "there is no SLO in it")
    reading.faults.raise_if_any()
    return Imported(
        tuple(slo for _, slo in reading.slos.values()),
        tuple(f"{file}:{line}: {note}" for line, note in reading.notes),
    )


def _snake(key: str) -> str:
    return key


def _camel(key: str) -> str:
    first, *others = key.split("_")
    return first + "".join(other.capitalize() for other in others)


@dataclass(frozen=True, slots=True)
class _Service:
    """What the SLOs of a document share."""

    name: str
    labels: Entry | None
    spell: Callable[[str], str]


@dataclass
class _Reading:
    """A file while it is read."""

    faults: Faults
    slos: dict[str, tuple[int, Slo]] = field(default_factory=dict)  # sloth_id -> line, SLO
    notes: list[tuple[int, str]] = field(default_factory=list)

    def document(self, node: yaml.Node) -> None:
        """One YAML document, of either dialect."""
        top = nodes.entries(node, "the document", self.faults)
        if "apiVersion" in top or "kind" in top:
            self._kubernetes(node, top)
        elif "version" not in top:
            if isinstance(node, yaml.MappingNode):
                self.faults.add(nodes.line_of(node), f"there is no version; read are {_VERSIONS}")
        elif self._is(top, "version", "prometheus/v1"):
            self._spec(node, _snake, ("version",))

    def _kubernetes(self, node: yaml.Node, top: Mapping[str, Entry]) -> None:
        if not self._is(top, "apiVersion", "sloth.slok.dev/v1") or not self._is(top, "kind", "PrometheusServiceLevel"):
            return
        keys = ("apiVersion", "kind", "metadata", "spec", "status")
        found = nodes.fields(node, "the object", keys, _snake, self.faults)
        if "spec" in found:
            self._spec(found["spec"].node, _camel, ())
        else:
            self.faults.add(nodes.line_of(node), "the object has no spec")

    def _is(self, top: Mapping[str, Entry], key: str, wanted: str) -> bool:
        if key not in top:
            self.faults.add(min(entry.line for entry in top.values()), f"{key} is missing; it must be {wanted}")
            return False
        found = nodes.text(top[key], key, self.faults)
        if found is not None and found != wanted:
            self.faults.add(top[key].line, f"{key} {found!r} is not known; read are {_VERSIONS}")
        return found == wanted

    def _spec(self, node: yaml.Node, spell: Callable[[str], str], more: tuple[str, ...]) -> None:
        known = (*more, "service", "labels", "slo_plugins", "slos")
        found = nodes.fields(node, "the spec", known, spell, self.faults)
        self._refuse_plugins(found.get("slo_plugins"))
        name = self._text(found, "service", spell) if "service" in found else None
        if "service" not in found:
            self.faults.add(nodes.line_of(node), "the spec has no service")
        service = _Service(name or _NAMELESS, found.get("labels"), spell)
        if "slos" not in found:
            self.faults.add(nodes.line_of(node), "the spec has no slos")
            return
        for item in nodes.items(found["slos"], "slos", self.faults):
            self._slo(item, service)

    def _refuse_plugins(self, entry: Entry | None) -> None:
        if entry:
            self.faults.add(
                entry.line,
                f"{entry.key} are Go code that changes the rules, which is not read; take them out",
            )

    def _text(self, found: Mapping[str, Entry], key: str, spell: Callable[[str], str]) -> str | None:
        return nodes.text(found[key], spell(key), self.faults) if key in found else None

    # -- one SLO -----------------------------------------------------------------------------------------------------

    def _slo(self, node: yaml.Node, service: _Service) -> None:
        line = nodes.line_of(node)
        known = ("name", "description", "objective", "plugins", "labels", "sli", "alerting")
        found = nodes.fields(node, "the SLO", known, service.spell, self.faults)
        self._refuse_plugins(found.get("plugins"))
        for key in ("name", "objective", "sli"):
            if key not in found:
                self.faults.add(line, f"the SLO has no {key}")
        name = self._text(found, "name", service.spell) or _NAMELESS
        subject = _identity(service.name, name)
        labels = self._merged_labels(service.labels, found.get("labels"), subject)
        description = self._text(found, "description", service.spell)
        parts: list[_Part] = [
            (
                found["name"].line if "name" in found else line,
                {
                    "service": service.name,
                    "name": name,
                    "description": description or _sentence(service.name, name),
                    # Not a label of its own: our rules set it.
                    "owner": labels.pop("owner", None) or labels.get("team") or service.name,
                },
            ),
            (found["labels"].line if "labels" in found else line, {"labels": labels}),
        ]
        if "alerting" in found:
            parts.append(self._alerting(found["alerting"], service.spell, subject))
        else:
            parts.append((line, {"alerts": PAGE_AND_TICKET}))
        if "sli" in found:
            parts += self._sli(found["sli"], service.spell)
        objective = found.get("objective")
        if objective and (percent := nodes.number(objective, "objective", self.faults)) is not None:
            parts.append((objective.line, {"objective": percent}))
        self._add(line, _built(parts, self.faults))

    def _add(self, line: int, slo: Slo | None) -> None:
        if slo is None:
            return
        if slo.id in self.slos:
            first, other = self.slos[slo.id]
            self.faults.add(
                line, f"SLO {slo.id_path}: has the id {slo.id} of SLO {other.id_path} in line {first}; rename one"
            )
            return
        self.slos[slo.id] = (line, slo)

    def _merged_labels(self, shared: Entry | None, own: Entry | None, ours: Mapping[str, str]) -> dict[str, str]:
        labels: dict[str, str] = {}
        for entry in (shared, own):
            labels |= self._labels(entry, "labels", ours) if entry else {}
        return labels

    def _labels(self, entry: Entry, what: str, ours: Mapping[str, str]) -> dict[str, str]:
        """Labels without those that our rules set.

        A label for people and routes is left out with a note, since nearly every spec sets `severity`; one that the
        rules select by is a fault, since Sloth's own selectors would not have found it either.
        """
        labels = nodes.texts(entry, what, self.faults)
        for name in sorted(RESERVED_LABELS & labels.keys()):
            line, value = labels.pop(name)
            if ours.get(name) == value:
                continue
            sets = f" to {ours[name]!r}" if name in ours else ""
            text = f"{what} set {name!r} to {value!r}, but the rules set it themselves{sets}"
            if name in _ROUTING_LABELS:
                self.notes.append((line, f"{text}: left out, so routes that ask for it must ask for ours"))
            else:
                self.faults.add(line, f"{text}; take it out, or choose another name")
        return nodes.values(labels)

    def _alerting(self, entry: Entry, spell: Callable[[str], str], subject: Mapping[str, str]) -> _Part:
        known = ("name", "labels", "annotations", "page_alert", "ticket_alert")
        found = nodes.fields(entry.node, "alerting", known, spell, self.faults)
        shared = self._labels(found["labels"], "alerting labels", subject) if "labels" in found else {}
        alerts = (
            self._alert(found.get(f"{severity}_alert"), severity, spell, shared, subject) for severity in Severity
        )
        part: dict[str, Any] = {"alerts": tuple(alert for alert in alerts if alert)}
        if name := self._text(found, "name", spell):
            part["alert_name"] = name
        if "annotations" in found:
            part["annotations"] = nodes.values(nodes.texts(found["annotations"], "annotations", self.faults))
        return entry.line, part

    def _alert(
        self,
        entry: Entry | None,
        severity: Severity,
        spell: Callable[[str], str],
        shared: Mapping[str, str],
        subject: Mapping[str, str],
    ) -> Alert | None:
        if entry is None:
            return Alert(severity, shared)
        known = ("disable", "labels", "annotations")
        found = nodes.fields(entry.node, entry.key, known, spell, self.faults)
        ours = {**subject, "severity": str(severity), names.SEVERITY_LABEL: str(severity)}
        labels = self._labels(found["labels"], f"{entry.key} labels", ours) if "labels" in found else {}
        annotations = (
            nodes.values(nodes.texts(found["annotations"], "annotations", self.faults))
            if "annotations" in found
            else {}
        )
        if "disable" in found and nodes.truth(found["disable"], "disable", self.faults):
            return None
        return Alert(severity, {**shared, **labels}, annotations)

    def _sli(self, entry: Entry, spell: Callable[[str], str]) -> Iterator[_Part]:
        found = nodes.fields(entry.node, "sli", ("events", "raw", "plugin"), spell, self.faults)
        if "plugin" in found:
            self.faults.add(
                found["plugin"].line,
                "a plugin SLI is Go code, which is not read; write the queries that it makes as events or raw",
            )
        elif len(found) != 1:
            has = " and ".join(found) or "none of them"
            self.faults.add(entry.line, f"sli needs exactly one of events and raw; it has {has}")
        elif "events" in found:
            yield from self._events(found["events"], spell)
        else:
            yield from self._raw(found["raw"], spell)

    def _events(self, entry: Entry, spell: Callable[[str], str]) -> Iterator[_Part]:
        queries = self._queries(entry, ("error_query", "total_query"), spell)
        if queries is None:
            return
        (bad_line, bad), (all_line, every) = queries
        for key, (line, query) in zip(("error_query", "total_query"), queries, strict=True):
            if counted := _PER_WINDOW.search(query):
                self.notes.append((line, _note(spell(key), counted[1])))
        yield bad_line, {"sli": Queries(bad=bad, all=_SAFE_QUERY), "burn": "budget"}
        yield all_line, {"sli": Queries(bad=bad, all=every), "burn": "budget"}

    def _raw(self, entry: Entry, spell: Callable[[str], str]) -> Iterator[_Part]:
        queries = self._queries(entry, ("error_ratio_query",), spell)
        if queries is not None:
            line, ratio = queries[0]
            yield line, {"sli": RatioQuery(ratio), "burn": "ratio"}

    def _queries(self, entry: Entry, keys: Sequence[str], spell: Callable[[str], str]) -> list[tuple[int, str]] | None:
        found = nodes.fields(entry.node, entry.key, keys, spell, self.faults)
        queries = []
        for key in keys:
            if key not in found:
                self.faults.add(entry.line, f"{entry.key} has no {spell(key)}")
            elif (query := self._text(found, key, spell)) is not None:
                queries.append((found[key].line, query.strip()))
        return queries if len(queries) == len(keys) else None


def _identity(service: str, name: str) -> dict[str, str]:
    """The labels that our rules set on everything of an SLO."""
    return {
        "service": service,
        "slo": name,
        "sloth_id": f"{service}-{name}",
        "sloth_service": service,
        "sloth_slo": name,
    }


def _sentence(service: str, name: str) -> str:
    words = re.sub(r"[-_.]+", " ", name)
    return f"{words[:1].upper()}{words[1:]} of {service}."


def _note(key: str, function: str) -> str:
    seconds = names.number(policy(Rolling(days=30)).base.total_seconds())
    return (
        f"{key} counts per window ({function}), not per second: ratios and burn rates are right, but a count over "
        f"{seconds} s is read as events per second, so minima of bad events hold back too little; write it as a rate"
    )


_ROUTING_LABELS = frozenset({"service", "severity", "slo"})

# --- faults and their lines -----------------------------------------------------------------------------------------

_SAFE_QUERY = "x[{{.window}}]"
_SAFE: dict[str, Any] = {
    "service": _NAMELESS,
    "name": _NAMELESS,
    "description": "Nothing.",
    "objective": Decimal("99.9"),
    "sli": RatioQuery(_SAFE_QUERY),
    "burn": "ratio",
    "owner": "nobody",
    "alerts": (),
}


def _built(parts: Sequence[_Part], faults: Faults) -> Slo | None:
    """An SLO from its parts.

    The parts take the place of safe values one after the other, so that what an SLO says against itself is known to
    come from the part, and the line, that was just put in.
    """
    chosen = dict(_SAFE)
    said: set[str] = set()
    slo = None
    for line, part in parts:
        chosen |= part
        try:
            slo = Slo(**chosen)
        except SloError as error:
            slo = None
            for problem in error.problems:
                if problem not in said:
                    faults.add(line, f"{error.subject}: {problem}")
            said.update(error.problems)
    return slo
