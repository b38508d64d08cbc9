"""An issuer of access tokens, whose keys are published in a file."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm

from service.security import Scope
from service.settings import PREFIX

_ALGORITHM = "ES256"


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A key pair.

    Attributes:
        key_id: Its `kid`.
        private: The half that signs; it never leaves this process.
    """

    key_id: str = field(default_factory=lambda: secrets.token_hex(8))
    private: ec.EllipticCurvePrivateKey = field(
        default_factory=lambda: ec.generate_private_key(ec.SECP256R1()), repr=False
    )

    @property
    def jwk(self) -> dict[str, Any]:
        """The public half, as it is published (RFC 7517)."""
        public = ECAlgorithm.to_jwk(self.private.public_key(), as_dict=True)
        return public | {"kid": self.key_id, "use": "sig", "alg": _ALGORITHM}


class Issuer:
    """Mints access tokens (RFC 9068) and publishes its keys.

    Args:
        folder: Where the file of keys is written; it holds public halves only.
        url: What the tokens call the issuer, `iss`; nothing has to answer there.
        audience: Whom the tokens are for, `aud`.
    """

    def __init__(
        self,
        folder: Path,
        *,
        url: str = "https://issuer.example.com",
        audience: str = "https://redemption.example.com",
    ) -> None:
        self.url = url
        self.audience = audience
        self.jwks_file = folder / "jwks.json"
        self._keys = [SigningKey()]
        self._publish()

    @property
    def key(self) -> SigningKey:
        """The one that signs."""
        return self._keys[-1]

    def environment(self) -> dict[str, str]:
        """The variables by which the service takes this issuer's tokens."""
        return {
            f"{PREFIX}JWKS_FILE": str(self.jwks_file),
            f"{PREFIX}JWT_ISSUER": self.url,
            f"{PREFIX}JWT_AUDIENCE": self.audience,
        }

    def token(
        self,
        client_id: str,
        scopes: Collection[Scope] = tuple(Scope),
        account_id: str | None = None,
        lifetime_seconds: float = 3600,
    ) -> str:
        """A token.

        Args:
            client_id: For whom.
            scopes: What it allows; everything if not given.
            account_id: The one account that it is good for; all if not given.
            lifetime_seconds: From now on; a negative one makes a token that has expired.
        """
        return self.sign(self.claims(client_id, scopes, account_id, lifetime_seconds))

    def claims(
        self,
        client_id: str,
        scopes: Collection[Scope] = tuple(Scope),
        account_id: str | None = None,
        lifetime_seconds: float = 3600,
    ) -> dict[str, Any]:
        """What `token` signs, for a test to spoil."""
        now = int(time.time())
        member = {} if account_id is None else {"account_id": account_id}
        return {
            "iss": self.url,
            "aud": self.audience,
            "sub": account_id or client_id,
            "client_id": client_id,
            "iat": now,
            "exp": now + lifetime_seconds,
            "jti": secrets.token_hex(16),
            "scope": " ".join(scopes),
            **member,
        }

    def sign(self, claims: Mapping[str, Any], **header: Any) -> str:  # noqa: ANN401 - a test may spoil it
        """A token of these claims, with these parameters of the header on top of the right ones."""
        parameters = {"typ": "at+jwt", "kid": self.key.key_id, **header}
        return jwt.encode(dict(claims), self.key.private, _ALGORITHM, headers=parameters)

    def rotate(self, *, keep: bool = True) -> None:
        """Sign by a new key from now on.

        Args:
            keep: The one before stays published, so that its tokens stay good; else it is withdrawn.
        """
        self._keys = [*([self.key] if keep else []), SigningKey()]
        self._publish()

    def _publish(self) -> None:
        fresh = self.jwks_file.with_suffix(".new")
        fresh.write_text(json.dumps({"keys": [key.jwk for key in self._keys]}), "utf-8")
        fresh.replace(self.jwks_file)  # whoever reads it sees all of the old one or all of the new one
