"""The YAML writer: what it writes, any reader reads back."""

from __future__ import annotations

from decimal import Decimal
from types import MappingProxyType

import pytest
import yaml as pyyaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from alerts import yaml
from slo.model import Severity

# Texts that some reader takes for something else, and the characters that break a careless writer.
TRICKY = (
    *(
        "",
        " ",
        "~",
        "null",
        "Null",
        "yes",
        "NO",
        "on",
        "y",
        "True",
        "1e3",
        "0x1f",
        "0o7",
        "012",
        "1_000",
        ".5",
        ".inf",
    ),
    *(
        "12:30:45",
        "2024-02-29",
        "2024-02-29 10:00:00",
        "30",
        "30d",
        "3.14",
        "1 - x{a='b'}",
        "-",
        "- a",
        "---",
        "...",
    ),
    *(
        "a: b",
        "a:",
        "a #b",
        "#a",
        "&a",
        "*a",
        "!a",
        "|",
        ">",
        "%a",
        "@a",
        "`a`",
        "[a]",
        "{a}",
        "a, b",
        "=",
        "<<",
        "?",
    ),
    *(
        " a",
        "a ",
        "\ta",
        "a\tb",
        "a\n",
        "a\n\n",
        "\na",
        "\n",
        "\n\n",
        " a\nb",
        "a\n b\n",
        "a\n  ",
        "a\n\n b\n\n\n",
    ),
    *(
        "a\r\nb",
        "a\rb",
        "a\x85b",
        "a\u2028b",
        "\ufeffa",
        "a\x00b",
        "\x7f",
        "\x9f",
        "a\xa0b",
        "ü",
        "é: ü",
        "📈",
        "a📈\n\x07",
    ),
    *(
        "a\\b",
        'say "x"',
        "it's",
        "{{.window}}",
        "{{ $labels.x }}",
        "a\n---\nb",
        "a\n# b\n",
        "\u0663d",
        "\ufffe",
    ),
)
TEXTS = st.one_of(
    st.text(max_size=40),
    st.text(alphabet=" \n\t#:-a1\"'\\{[", max_size=12),
    st.sampled_from(TRICKY),
)
SCALARS = st.one_of(TEXTS, st.integers(), st.booleans())
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=150)
@given(VALUES)
@example({"rules": [{"expr": text, "labels": {text: [text, {text: text}]}} for text in TRICKY]})
@example([[["a\n b", " a\n"], [[]], {}], {"a": {"b": {}}, "c": [{"d": " e\nf\n\n"}, "g"]}])
def test_what_is_written_reads_back(value: yaml.Plain) -> None:
    """Any plain value, tricky texts as keys and as values, is the same after PyYAML has read it."""
    assert pyyaml.safe_load(yaml.dump(value)) == value


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("slo:objective:ratio", "slo:objective:ratio"),
        ('sum(rate(x{a="b"}[5m]))', 'sum(rate(x{a="b"}[5m]))'),
        ('1 - x{a="b"}', '1 - x{a="b"}'),
        ("5m", "5m"),
        ("yes", '"yes"'),
        ("99.9", '"99.9"'),
        ('a: "b"', '"a: \\"b\\""'),
        ("{{.window}}", '"{{.window}}"'),
        ("a\nb", "|-\n  a\n  b"),
        ("a\n\nb\n", "|\n  a\n\n  b"),
        ("a\n\n", "|+\n  a\n"),
        (" a\nb", "|2-\n   a\n  b"),
        ("a\tb\n", '"a\\tb\\n"'),
        ("\U0001f4c8\x07", '"\\U0001f4c8\\u0007"'),
        (Decimal("99.90"), "99.90"),
        (Decimal("1E+2"), "100"),
        (-7, "-7"),
        (True, "true"),
        (Severity.PAGE, "page"),
        ({}, "{}"),
        ((), "[]"),
    ],
)
def test_scalars_look_as_people_write_them(value: yaml.Plain, text: str) -> None:
    """A string is bare where no reader mistakes it, a block where it has lines, quoted where it must be."""
    assert yaml.dump({"key": value}) == f"key: {text}\n"


def test_blocks_keep_the_order_and_indent_lists() -> None:
    """Keys stay in the given order, lists stand below their key, every line of the header is a comment."""
    value = MappingProxyType({"b": [{"k": 1, "x": ["p", ["q"]]}, "z"], "a": {"c": (True,)}})
    assert yaml.dump(value, "Made by us.\n\nDo not edit.") == (
        "# Made by us.\n#\n# Do not edit.\nb:\n  - k: 1\n    x:\n      - p\n      - - q\n  - z\na:\n  c:\n    - true\n"
    )


def test_documents_follow_each_other() -> None:
    """Several values become several documents below one header."""
    text = yaml.dump_all([{"a": 1}, {"b": 2}], "Two.")
    assert text == "# Two.\na: 1\n---\nb: 2\n"
    assert list(pyyaml.safe_load_all(text)) == [{"a": 1}, {"b": 2}]


@pytest.mark.parametrize("value", [0.1, None, b"a", object(), {"a": [0.5]}, {1: "a"}])
def test_anything_else_is_refused(value: yaml.Plain) -> None:
    """A float may print as another number than was meant: refused, as is all that is no plain data."""
    with pytest.raises(TypeError, match="YAML: "):
        yaml.dump(value)


@pytest.mark.parametrize("value", [Decimal("NaN"), Decimal("Infinity"), {"k" * 1_001: 1}])
def test_what_no_reader_takes_is_refused(value: yaml.Plain) -> None:
    """A number that is none, and a key that readers give up on, raise instead of being written."""
    with pytest.raises(ValueError, match="YAML: "):
        yaml.dump(value)
