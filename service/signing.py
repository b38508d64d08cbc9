"""Texts that we hand out, take back, and recognise as ours: references and cursors.

They are signed, not encrypted: whoever holds one can read it, nobody else can make one.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from typing import Final

KEY_BYTES_MIN: Final = 32  # RFC 2104: no shorter than the hash's output
PAYLOAD_BYTES_MAX: Final = 512  # a few ids and a time; far below what a URL may hold

SIGNATURE_BYTES: Final = 16  # RFC 2104, section 5: at least half of the hash's output
_TEXT_CHARACTERS_MAX: Final = -(-(PAYLOAD_BYTES_MAX + SIGNATURE_BYTES) * 4 // 3)
_BASE64URL: Final = re.compile(r"[A-Za-z0-9_-]+")


class InvalidSealError(ValueError):
    """The text is not one of ours, or not for this purpose."""


class Signer:
    """Seals payloads for one purpose.

    Args:
        key: The secret, at least 32 bytes; one key may serve many purposes.
        purpose: What the texts are for: one that was sealed for another purpose does not open.

    Raises:
        ValueError: The key is too short.
    """

    def __init__(self, key: bytes, purpose: str) -> None:
        if len(key) < KEY_BYTES_MIN:
            raise ValueError(f"a signing key must have at least {KEY_BYTES_MIN} bytes")
        # A key of its own for each purpose: no payload of one can pass for a payload of another.
        self._key = hmac.digest(key, f"purpose:{purpose}".encode(), hashlib.sha256)

    def seal(self, payload: bytes) -> str:
        """The payload and its signature (HMAC-SHA256, first 16 bytes), in base64url without padding.

        Raises:
            ValueError: The payload has more than 512 bytes.
        """
        if len(payload) > PAYLOAD_BYTES_MAX:
            raise ValueError(f"a sealed payload has at most {PAYLOAD_BYTES_MAX} bytes")
        return _encoded(payload + self.sign(payload))

    def open(self, text: str) -> bytes:
        """The payload of a text that `seal` made.

        Raises:
            InvalidSealError: It did not; what is wrong with the text is not told.
        """
        raw = _decoded(text)
        payload, signature = raw[:-SIGNATURE_BYTES], raw[-SIGNATURE_BYTES:]
        if not self.verifies(payload, signature):
            raise InvalidSealError("not a text that was signed here")
        return payload

    def sign(self, payload: bytes) -> bytes:
        """The signature alone, of a payload of any length: 16 bytes."""
        return hmac.digest(self._key, payload, hashlib.sha256)[:SIGNATURE_BYTES]

    def verifies(self, payload: bytes, signature: bytes) -> bool:
        """Whether `sign` made it, for this payload."""
        return hmac.compare_digest(signature, self.sign(payload))


def _encoded(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _decoded(text: str) -> bytes:
    if len(text) <= _TEXT_CHARACTERS_MAX and _BASE64URL.fullmatch(text):
        try:
            raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        except binascii.Error:
            raw = b""
        # The last character has spare bits. Only one spelling counts, or two texts would mean the same.
        if _encoded(raw) == text:
            return raw
    raise InvalidSealError("not a text that was signed here")
