"""SLOs as a module of definitions, laid out as ruff's formatter would."""

from __future__ import annotations

import keyword
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields, is_dataclass
from datetime import timedelta
from decimal import Decimal
from enum import Enum
from typing import TYPE_CHECKING

from slo.model import Queries, RatioQuery, Slo

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

_LINE_LENGTH_MAX = 120  # of our pyproject.toml
_STEP = "    "


def to_python(slos: Sequence[Slo]) -> str:
    """A module of definitions that creates equal SLOs.

    Raises:
        ValueError: There is no SLO.
        TypeError: An SLO counts a metric of the catalogue, so it is written in Python already.
    """
    if not slos:
        raise ValueError("there is no SLO to print")
    for slo in slos:
        if not isinstance(slo.sli, Queries | RatioQuery):
            raise TypeError(f"SLO {slo.id_path} counts a metric of the catalogue; only queries can be printed")
    printer = _Printer()
    body = "".join(f"\n{name} = {printer.call(slo, '')}\n" for name, slo in zip(_variables(slos), slos, strict=True))
    services = ", ".join(sorted({slo.service for slo in slos}))
    imports = "".join(
        f"from {module} import {', '.join(sorted(used))}\n" for module, used in sorted(printer.standard.items())
    )
    return (
        f'"""The promises of {services}, read from Sloth."""\n\n{imports}\n'
        f"from slo import {', '.join(sorted(printer.ours))}\n{body}"
    )


def _variables(slos: Sequence[Slo]) -> Iterator[str]:
    """A name for each SLO, told apart by its service, then by a number."""
    taken: set[str] = set()
    for slo in slos:
        name = _identifier(slo.name)
        if name in taken:
            name = _identifier(slo.id)
        stem, number = name, 1
        while name in taken:
            number += 1
            name = f"{stem}_{number}"
        taken.add(name)
        yield name


def _identifier(text: str) -> str:
    name = re.sub(r"\W", "_", text.lower(), flags=re.ASCII)
    # `slo` and `timedelta` would hide what the module imports.
    return f"slo_{name}" if name[0].isdigit() or keyword.iskeyword(name) or name == "timedelta" else name


@dataclass(frozen=True, slots=True)
class _Printer:
    """Python text of values, and the names that it needs.

    Attributes:
        ours: Names to import from `slo`.
        standard: Module -> names to import from it.
    """

    ours: set[str] = field(default_factory=set)
    standard: dict[str, set[str]] = field(default_factory=dict)

    def call(self, value: DataclassInstance, indent: str) -> str:
        """A dataclass as a call with what differs from its defaults, one argument a line."""
        self.ours.add(type(value).__name__)
        arguments = [
            (each.name, getattr(value, each.name))
            for each in fields(value)
            if getattr(value, each.name) != _default(each)
        ]
        if not arguments:
            return f"{type(value).__name__}()"
        deeper = indent + _STEP
        lines = (f"{deeper}{name}={self._value(item, deeper, f'{name}=')},\n" for name, item in arguments)
        return f"{type(value).__name__}(\n{''.join(lines)}{indent})"

    def _value(self, value: object, indent: str, lead: str) -> str:  # noqa: PLR0911 - one return a kind of value
        """A value; `lead` stands before it on its line."""
        match value:
            case Enum():
                self.ours.add(type(value).__name__)
                return f"{type(value).__name__}.{value.name}"
            case str():
                return _text(value, indent, lead)
            case Decimal():
                self.standard.setdefault("decimal", set()).add("Decimal")
                digits = f"{value:f}"
                return f"Decimal({digits})" if "." not in digits else f'Decimal("{digits}")'
            case timedelta():
                self.standard.setdefault("datetime", set()).add("timedelta")
                return f"timedelta(seconds={value.total_seconds()!r})".replace(".0)", ")")
            case Mapping():
                return self._items("{", "}", [(f"{_literal(key)}: ", item) for key, item in value.items()], indent)
            case tuple():
                # A list, as the formatter folds a tuple of one; `Slo` makes it a tuple again.
                return self._items("[", "]", [("", item) for item in value], indent)
            case _ if is_dataclass(value) and not isinstance(value, type):
                return self.call(value, indent)
            case _:
                return repr(value)

    def _items(self, left: str, right: str, pairs: Sequence[tuple[str, object]], indent: str) -> str:
        if not pairs:
            return left + right
        deeper = indent + _STEP
        lines = (f"{deeper}{lead}{self._value(item, deeper, lead)},\n" for lead, item in pairs)
        return f"{left}\n{''.join(lines)}{indent}{right}"


def _default(of: Field[object]) -> object:
    return of.default if of.default_factory is MISSING else of.default_factory()


def _text(text: str, indent: str, lead: str) -> str:
    """A string on one line where it fits, else a line of source for each of its lines."""
    whole, deeper = _literal(text), indent + _STEP
    lines = text.splitlines(keepends=True)
    # The formatter joins the lines again when they fit on one of their own.
    length = min(len(f"{indent}{lead}{whole},"), len(f"{deeper}{whole}"))
    # Only ASCII is split: the formatter measures other characters by their width.
    if length <= _LINE_LENGTH_MAX or len(lines) == 1 or not text.isascii():
        return whole
    return "(\n" + "".join(f"{deeper}{_literal(line)}\n" for line in lines) + f"{indent})"


def _literal(text: str) -> str:
    """A string in the quotes that need fewer escapes, double ones if that is equal."""
    # The leading '"' makes repr take single quotes, whatever the text holds.
    body = repr('"' + text)[2:-1]
    if text.count('"') > text.count("'"):
        return f"'{body}'"
    return '"' + body.replace("\\'", "'").replace('"', '\\"') + '"'
