"""JSURL, the way in which AWS's consoles keep a page's state in its address.

Objects are `~(key~value...)`, arrays `~(~value~value)`, strings `~'` and the text with everything but letters, digits
and `_.-` escaped: `*hh`, `**hhhh` above 0xff, `!` for `$`. Written by the rules of https://github.com/Sage/jsurl and
checked against addresses that the consoles made.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import TypeAlias

Value: TypeAlias = "str | int | Decimal | bool | Sequence[Value] | Mapping[str, Value] | None"

_ESCAPED = re.compile(r"[^A-Za-z0-9_.-]")
_BYTE_MAX = 0xFF


def encode(value: Value) -> str:
    """A value as JSURL."""
    match value:
        case None:
            return "~null"
        case bool():
            return "~true" if value else "~false"
        case int() | Decimal():
            return f"~{value}"
        case str():
            return f"~'{_escaped(value)}"
        case Mapping():
            return f"~({'~'.join(f'{_escaped(key)}{encode(item)}' for key, item in value.items())})"
        case Sequence():
            return f"~({''.join(encode(item) for item in value) or '~'})"


def _escaped(text: str) -> str:
    return _ESCAPED.sub(lambda found: "".join(_unit(unit) for unit in _units(found[0])), text)


def _unit(unit: int) -> str:
    if unit == ord("$"):
        return "!"
    return f"*{unit:02x}" if unit <= _BYTE_MAX else f"**{unit:04x}"


def _units(character: str) -> list[int]:
    """JavaScript's code units: two of them above U+FFFF."""
    data = character.encode("utf-16-be")
    return [int.from_bytes(data[at : at + 2], "big") for at in range(0, len(data), 2)]
