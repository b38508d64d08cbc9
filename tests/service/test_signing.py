"""What was sealed here opens here, for its purpose, and nothing else does."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.signing import PAYLOAD_BYTES_MAX, InvalidSealError, Signer

KEY = b"k" * 32
SIGNER = Signer(KEY, "cursor")
BASE64URL = string.ascii_letters + string.digits + "-_"


@given(st.binary(max_size=PAYLOAD_BYTES_MAX))
def test_what_was_sealed_opens(payload: bytes) -> None:
    """Any payload comes back, and its text needs no escape in a URL."""
    text = SIGNER.seal(payload)
    assert SIGNER.open(text) == payload
    assert set(text) <= set(BASE64URL)


@given(st.binary(max_size=40), st.data())
def test_no_change_of_a_single_character_opens(payload: bytes, data: st.DataObject) -> None:
    """Every other character in every place is found out, also one that only differs in bits that say nothing."""
    text = SIGNER.seal(payload)
    place = data.draw(st.integers(0, len(text) - 1))
    other = data.draw(st.sampled_from(BASE64URL).filter(lambda character: character != text[place]))
    with pytest.raises(InvalidSealError):
        SIGNER.open(text[:place] + other + text[place + 1 :])


@given(st.text(max_size=1000))
def test_no_other_text_opens(text: str) -> None:
    """Whatever it is, it is refused in one way, and the refusal does not repeat it."""
    with pytest.raises(InvalidSealError) as refused:
        SIGNER.open(text)
    assert str(refused.value) == "not a text that was signed here"


@pytest.mark.parametrize(
    "change", [lambda text: text + "=", lambda text: text + "\n", lambda text: text[:-1], str.swapcase]
)
def test_another_spelling_does_not_open(change: object) -> None:
    """Padding, a line end, a lost character or another case make it another text."""
    assert callable(change)
    with pytest.raises(InvalidSealError):
        SIGNER.open(change(SIGNER.seal(b"payload")))


def test_a_seal_holds_for_its_key_and_its_purpose_alone() -> None:
    """Another key opens nothing, and neither does the same key for another purpose."""
    text = SIGNER.seal(b"payload")
    for other in (Signer(b"K" * 32, "cursor"), Signer(KEY, "cursor2"), Signer(KEY, "")):
        with pytest.raises(InvalidSealError):
            other.open(text)


def test_a_short_key_and_a_long_payload_are_refused() -> None:
    """A key of less than 32 bytes signs nothing, and nothing is signed that would not open."""
    with pytest.raises(ValueError, match="at least 32 bytes"):
        Signer(b"k" * 31, "cursor")
    with pytest.raises(ValueError, match="at most 512 bytes"):
        SIGNER.seal(bytes(PAYLOAD_BYTES_MAX + 1))
