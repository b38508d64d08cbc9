"""YAML nodes with their lines: what a strict reader needs and a plain loader forgets."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from difflib import get_close_matches

import yaml

from slo.errors import SloError

_TAG = "tag:yaml.org,2002:"
_MERGE, _TEXT, _INTEGER, _TRUTH, _NOTHING = (_TAG + t for t in ("merge", "str", "int", "bool", "null"))
_WHOLE = re.compile(r"-?(0|[1-9][0-9]*)")
_NUMBER = re.compile(r"[0-9]+(\.[0-9]*)?|\.[0-9]+")


class SpecError(SloError):
    """A spec is wrong; one line a fault, each beginning with `file:line: `."""

    def __init__(self, file: str, faults: Sequence[tuple[int, str]]) -> None:
        super().__init__(file, [text for _, text in faults])
        self.args = ("\n".join(f"{file}:{line}: {text}" for line, text in faults),)


@dataclass
class Faults:
    """Everything that is wrong with a file, found in one run."""

    file: str
    found: dict[tuple[int, str], None] = field(default_factory=dict)

    def add(self, line: int, text: str) -> None:
        """Note a fault; the same one twice counts once."""
        self.found[line, text] = None

    def raise_if_any(self) -> None:
        """Raise `SpecError` with all faults, by line."""
        if self.found:
            raise SpecError(self.file, sorted(self.found))


@dataclass(frozen=True, slots=True)
class Entry:
    """A value of a mapping, and the line of its key."""

    key: str
    line: int
    node: yaml.Node


def documents(text: str, faults: Faults) -> list[yaml.Node]:
    """The documents of a file that are not empty; none when it is no YAML."""
    try:
        nodes = list(yaml.compose_all(text, Loader=yaml.SafeLoader))
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        faults.add(line, f"is no YAML: the character {chr(error.character)!r} is not allowed")
        return []
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        faults.add(mark.line + 1 if mark else 1, f"is no YAML: {error.problem or error.context}")
        return []
    except RecursionError:
        faults.add(1, "is no Sloth spec: it is nested too deeply")
        return []
    return [node for node in nodes if not _is_nothing(node)]


def line_of(node: yaml.Node) -> int:
    """The line on which a node begins, from 1."""
    line: int = node.start_mark.line
    return line + 1


def entries(node: yaml.Node, what: str, faults: Faults) -> dict[str, Entry]:
    """The entries of a mapping, merge keys (`<<`) included; no entries when it is none."""
    if _is_nothing(node):
        return {}
    if not isinstance(node, yaml.MappingNode):
        faults.add(line_of(node), f"{what} must be a mapping of keys to values")
        return {}
    own: dict[str, Entry] = {}
    for key_node, value in node.value:
        if key_node.tag == _MERGE:
            continue
        if not isinstance(key_node, yaml.ScalarNode):
            faults.add(line_of(key_node), f"{what} has a key that is no text")
            continue
        entry = Entry(key_node.value, line_of(key_node), value)
        if entry.key in own:
            faults.add(
                entry.line, f"{what} has the key {entry.key!r} twice; the first is in line {own[entry.key].line}"
            )
            continue
        own[entry.key] = entry
    for line, merged in _merged(node):
        if not isinstance(merged, yaml.MappingNode):
            faults.add(line, f"{what} merges what is no mapping")
        elif any(key.tag == _MERGE for key, _ in merged.value):  # perhaps itself
            faults.add(line, f"{what} merges a mapping that merges another; write its keys out")
        else:
            own = {**entries(merged, what, faults), **own}
    return own


def _merged(node: yaml.MappingNode) -> Iterator[tuple[int, yaml.Node]]:
    """What `<<` names, with its line; the first wins, as each yields to those before it."""
    for key_node, value in node.value:
        if key_node.tag == _MERGE:
            values = value.value if isinstance(value, yaml.SequenceNode) else [value]
            yield from ((line_of(key_node), each) for each in values)


def fields(
    node: yaml.Node, what: str, known: Sequence[str], spell: Callable[[str], str], faults: Faults
) -> dict[str, Entry]:
    """The entries of a mapping with known keys, by those; `spell` gives a key as the file's dialect writes it."""
    spelt = {spell(key): key for key in known}
    found: dict[str, Entry] = {}
    for key, entry in entries(node, what, faults).items():
        if key in spelt:
            found[spelt[key]] = entry
        else:
            near = get_close_matches(key, spelt, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(spelt)}"
            faults.add(entry.line, f"unknown key {key!r} in {what}; {hint}")
    return found


def items(entry: Entry, what: str, faults: Faults) -> list[yaml.Node]:
    """The items of a list."""
    if isinstance(entry.node, yaml.SequenceNode):
        return list(entry.node.value)
    if not _is_nothing(entry.node):
        faults.add(entry.line, f"{what} must be a list")
    return []


def text(entry: Entry, what: str, faults: Faults) -> str | None:
    """A text, or None, with the fault noted; a whole number is taken as the text that stands there."""
    node = entry.node
    if isinstance(node, yaml.ScalarNode):
        if node.tag == _TEXT or (node.tag == _INTEGER and _WHOLE.fullmatch(node.value)):
            value: str = node.value
            return value
        if node.tag == _NOTHING:
            faults.add(entry.line, f"{what} is empty")
            return None
        faults.add(entry.line, f"{what} must be text; put {node.value} in quotes")
        return None
    faults.add(entry.line, f"{what} must be text")
    return None


def texts(entry: Entry, what: str, faults: Faults) -> dict[str, tuple[int, str]]:
    """A mapping of texts: key -> line and text."""
    found = {}
    for key, inner in entries(entry.node, what, faults).items():
        value = text(inner, f"{what}: {key}", faults)
        if value is not None:
            found[key] = (inner.line, value)
    return found


def number(entry: Entry, what: str, faults: Faults) -> Decimal | None:
    """A number, digit for digit as it stands there, or None with the fault noted."""
    node = entry.node
    if isinstance(node, yaml.ScalarNode) and node.style is None and _NUMBER.fullmatch(node.value):
        return Decimal(node.value)
    shown = node.value if isinstance(node, yaml.ScalarNode) else "a list or mapping"
    faults.add(entry.line, f"{what} must be a number, 99.9 say, not {shown!r}")
    return None


def truth(entry: Entry, what: str, faults: Faults) -> bool:
    """True or false."""
    node = entry.node
    if isinstance(node, yaml.ScalarNode) and node.tag == _TRUTH:
        return node.value.lower() in {"true", "yes", "on"}
    faults.add(entry.line, f"{what} must be true or false")
    return False


def values(found: Mapping[str, tuple[int, str]]) -> dict[str, str]:
    """The texts without their lines."""
    return {key: value for key, (_, value) in found.items()}


def _is_nothing(node: yaml.Node) -> bool:
    return bool(node.tag == _NOTHING)
