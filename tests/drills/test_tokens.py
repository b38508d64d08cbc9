"""The drills' issuer mints tokens that its published keys verify."""

from __future__ import annotations

import json
import time
from pathlib import Path

import jwt
import pytest

from drills.harness.tokens import Issuer
from service.security import Authenticator, Caller, FileKeySource, KeyRing, Scope


@pytest.fixture
def anyio_backend() -> str:
    """Asynchronous tests run on asyncio."""
    return "asyncio"


def published(issuer: Issuer) -> dict[str, jwt.PyJWK]:
    """The keys in the issuer's file, by their id, in order."""
    return {str(key.key_id): key for key in jwt.PyJWKSet.from_json(issuer.jwks_file.read_text()).keys}


def test_a_token_is_what_was_asked_for(tmp_path: Path) -> None:
    """A token says for whom and for how long it is, in the form of RFC 9068 with all claims that it requires."""
    issuer = Issuer(tmp_path, url="https://i.example.com", audience="https://a.example.com")
    token = issuer.token("app", [Scope.ACCOUNTS_READ], "guest-1", lifetime_seconds=60)
    key = published(issuer)[issuer.key.key_id]
    decoded = jwt.decode_complete(token, key, ["ES256"], audience="https://a.example.com")
    claims = decoded["payload"]
    assert decoded["header"] == {"alg": "ES256", "kid": issuer.key.key_id, "typ": "at+jwt"}
    assert {"iss", "exp", "aud", "sub", "client_id", "iat", "jti"} <= set(claims)
    assert (claims["iss"], claims["client_id"], claims["account_id"]) == ("https://i.example.com", "app", "guest-1")
    assert claims["scope"] == "accounts:read"
    assert claims["exp"] - claims["iat"] == 60
    assert abs(claims["iat"] - time.time()) < 30
    assert issuer.claims("app")["scope"].split(" ") == list(Scope)
    assert "account_id" not in issuer.claims("app")
    with pytest.raises(jwt.ExpiredSignatureError):
        jwt.decode(issuer.token("app", lifetime_seconds=-1), key, ["ES256"], audience="https://a.example.com")


def test_the_file_holds_public_halves_only(tmp_path: Path) -> None:
    """Nobody who reads the issuer's folder can sign, and nothing shows the half that can."""
    issuer = Issuer(tmp_path)
    assert list(tmp_path.iterdir()) == [issuer.jwks_file]
    for key in json.loads(issuer.jwks_file.read_text())["keys"]:
        assert set(key) == {"kty", "crv", "x", "y", "kid", "use", "alg"}
    assert "private" not in repr(issuer.key)


def test_rotation_keeps_the_key_before_or_withdraws_it(tmp_path: Path) -> None:
    """After a rotation a new key signs; the one before stays published, unless it is withdrawn, and no older one."""
    issuer = Issuer(tmp_path)
    ids = [issuer.key.key_id]
    for _ in range(2):
        issuer.rotate()
        ids.append(issuer.key.key_id)
        assert list(published(issuer)) == ids[-2:]
        assert jwt.get_unverified_header(issuer.token("app"))["kid"] == ids[-1]
    issuer.rotate(keep=False)
    assert list(published(issuer)) == [issuer.key.key_id]
    assert issuer.key.key_id not in ids


@pytest.mark.anyio
async def test_the_environment_is_what_the_service_needs(tmp_path: Path) -> None:
    """A service that is told these variables takes the issuer's tokens."""
    issuer = Issuer(tmp_path)
    told = issuer.environment()
    keys = KeyRing(FileKeySource(Path(told["REDEMPTION_JWKS_FILE"])))
    door = Authenticator(keys, issuer=told["REDEMPTION_JWT_ISSUER"], audience=told["REDEMPTION_JWT_AUDIENCE"])
    async with door.opened():
        caller = door.authenticate(f"Bearer {issuer.token('partner')}")
    assert caller == Caller("partner", frozenset(Scope), None)
