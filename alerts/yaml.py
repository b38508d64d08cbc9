"""A small YAML writer for plain data, fast and with one look.

Rule files of 1,000 SLOs hold some 50,000 rules, and somebody waits while they are written. PyYAML's own
writer takes some 50 times as long (8 times with libyaml), and folds queries where nobody would.

What it writes reads back the same with any YAML 1.1 or 1.2 reader: a string stays bare only where no reader
could take it for something else.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from functools import lru_cache
from typing import Any, TypeAlias, TypeGuard

Plain: TypeAlias = Mapping[str, Any] | Sequence[Any] | str | int | Decimal
"""Mappings with string keys, sequences, strings, integers, booleans and decimals, nested as you like."""

_STEP = "  "
_DISTINCT_STRINGS_CACHED = 65_536
_KEY_LENGTH_MAX = 1_000  # a reader looks 1,024 characters ahead for the colon of a key


def dump(value: Plain, header: str = "") -> str:
    """One YAML document.

    Args:
        value: Keys stay in the given order.
        header: Comment lines at the top.

    Raises:
        TypeError: The value holds something that is no plain data; a float is none, as its text may differ
            from what was meant.
        ValueError: A decimal is not finite, or a key is longer than readers accept.
    """
    out = _Lines()
    out.append(_comment(header))
    if _is_mapping(value) and value:
        _mapping(value, "", "", out)
    elif _is_sequence(value) and value:
        _sequence(value, "", "", out)
    else:
        out.append(_scalar(value, _STEP) + "\n")
    return "".join(out)


class _Lines(list[str]):
    """The text so far, and the texts of mappings that came before: all rules of an SLO share their labels."""

    def __init__(self) -> None:
        super().__init__()
        self.shared: dict[tuple[int, str], str] = {}


def dump_all(values: Iterable[Plain], header: str = "") -> str:
    """Several YAML documents of one file."""
    return _comment(header) + "---\n".join(dump(value) for value in values)


def _comment(text: str) -> str:
    return "".join(f"# {line}".rstrip() + "\n" for line in text.splitlines())


# `type(x) is dict` first: the abstract classes answer slowly, and nearly every collection is a plain one.


def _is_mapping(value: object) -> TypeGuard[Mapping[str, Any]]:
    return type(value) is dict or isinstance(value, Mapping)


def _is_sequence(value: object) -> TypeGuard[Sequence[Any]]:
    return type(value) is list or (isinstance(value, Sequence) and not isinstance(value, str | bytes))


def _mapping(value: Mapping[str, Any], indent: str, lead: str, out: _Lines) -> None:
    """Write a mapping that is not empty; `lead` begins its first line, `indent` the others."""
    deeper = indent + _STEP
    for key, item in value.items():
        if type(item) is str:
            text = _lines(item, deeper) if "\n" in item else _text(item)
            out.append(f"{lead}{_key(key)}: {text}\n")
        elif _is_mapping(item) and item:
            out.append(f"{lead}{_key(key)}:\n")
            _nested(item, deeper, out)
        elif _is_sequence(item) and item:
            out.append(f"{lead}{_key(key)}:\n")
            _sequence(item, deeper, deeper, out)
        else:
            out.append(f"{lead}{_key(key)}: {_scalar(item, deeper)}\n")
        lead = indent


def _nested(value: Mapping[str, Any], indent: str, out: _Lines) -> None:
    """Write a mapping below its key; the very same object again is the same text again."""
    known = out.shared.get((id(value), indent))
    if known is not None:
        out.append(known)
        return
    begin = len(out)
    _mapping(value, indent, indent, out)
    if all(type(item) is str for item in value.values()):
        out.shared[id(value), indent] = "".join(out[begin:])


def _sequence(value: Sequence[Any], indent: str, lead: str, out: _Lines) -> None:
    deeper = indent + _STEP
    for item in value:
        if _is_mapping(item) and item:
            _mapping(item, deeper, f"{lead}- ", out)
        elif _is_sequence(item) and item:
            _sequence(item, deeper, f"{lead}- ", out)
        else:
            out.append(f"{lead}- {_scalar(item, deeper)}\n")
        lead = indent


def _scalar(value: object, indent: str) -> str:
    """The text of anything but a filled collection; `indent` begins the lines of a literal block."""
    if isinstance(value, str):
        return _lines(value, indent) if "\n" in value else _text(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(int(value))
    if isinstance(value, Decimal):
        if not value.is_finite():
            raise ValueError(f"YAML: the number {value} is not finite; write it as text")
        return f"{value:f}"
    if _is_mapping(value):
        return "{}"
    if _is_sequence(value):
        return "[]"
    raise TypeError(f"YAML: {value!r} is no plain data; use str, int, bool, Decimal, mappings and sequences")


@lru_cache(maxsize=_DISTINCT_STRINGS_CACHED)
def _key(key: str) -> str:
    if not isinstance(key, str):
        raise TypeError(f"YAML: the key {key!r} is no string")
    text = _text(key)
    if len(text) > _KEY_LENGTH_MAX:
        raise ValueError(f"YAML: the key {key[:20]!r}... is longer than {_KEY_LENGTH_MAX} characters")
    return text


# A letter first, or what only PromQL, a path or a template begins with; or a duration; or a calculation.
_BARE = re.compile(r"[^\W\d_]|[_/($]|\d+(?:ms|[smhdw])\Z|\d[^({*<>=]*[({*<>=]")
# Words that some reader takes for a truth value or for nothing (YAML 1.1, https://yaml.org/type/).
_WORDS = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null"})
_WORD_LENGTH_MAX = 5


@lru_cache(maxsize=_DISTINCT_STRINGS_CACHED)
def _text(text: str) -> str:
    """A string on one line: bare where that is safe, else in double quotes."""
    if (
        _BARE.match(text)
        and text.isprintable()
        and ": " not in text
        and " #" not in text
        and text[-1] not in ": "
        and (len(text) > _WORD_LENGTH_MAX or text.lower() not in _WORDS)
    ):
        return text
    quoted = json.dumps(text, ensure_ascii=False)
    return quoted if text.isprintable() else _NOT_ASCII.sub(_escaped, quoted)


_NOT_ASCII = re.compile(r"[^\x20-\x7e]")


def _escaped(found: re.Match[str]) -> str:
    # Not JSON's \u: it writes some characters as a pair, which YAML reads as two characters.
    return f"\\U{ord(found[0]):08x}"


def _lines(text: str, indent: str) -> str:
    """A string of several lines: a literal block, or in double quotes where a block cannot hold it."""
    body = text.rstrip("\n")
    if not body or not text.replace("\n", "").isprintable():
        return _text(text)
    ends = len(text) - len(body)
    chomping = ("-", "", "+")[min(ends, 2)]
    # Readers take the indentation from the first line; if that begins with a space, they must be told.
    indicator = len(_STEP) if text[0] in " \n" else ""
    if "\n\n" in body or body[0] == "\n":  # an empty line stays empty
        lines = "\n".join([indent + line if line else "" for line in body.split("\n")])
    else:
        lines = indent + body.replace("\n", f"\n{indent}")
    return f"|{indicator}{chomping}\n{lines}" + "\n" * (ends - 1)
