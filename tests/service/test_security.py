"""A caller is known by a good access token and by nothing else, and keys change without anybody waiting."""

from __future__ import annotations

import asyncio
import base64
import gzip
import hashlib
import hmac
import io
import json
import re
import ssl
import threading
import time
import traceback
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from drills.harness.tokens import Issuer, SigningKey
from service import parts, security
from service.logs import create_log
from service.security import (
    Anonymous,
    Authentication,
    AuthenticationError,
    Authenticator,
    Caller,
    FileKeySource,
    KeyRing,
    Reason,
    Scope,
    SecurityError,
    UrlKeySource,
    insufficient_scope_challenge,
)
from service.settings import Settings

pytestmark = pytest.mark.anyio

_MARK = "Marked4Leaks"  # in every token that is refused below, and in no error
_CHALLENGE = re.compile(r'Bearer error="invalid_token", error_description="[\x20-\x21\x23-\x5B\x5D-\x7E]+"')  # RFC 6750


@pytest.fixture
def issuer(tmp_path: Path) -> Issuer:
    """An issuer with a key of its own."""
    return Issuer(tmp_path)


def authenticator(issuer: Issuer, source: Any = None, **changes: Any) -> Authenticator:  # noqa: ANN401
    """The service's side for an issuer; its keys may be read again at once."""
    ring = {name: changes.pop(name) for name in list(changes) if name.startswith(("refresh", "on_", "algorithms"))}
    keys = KeyRing(source or FileKeySource(issuer.jwks_file), **{"refresh_seconds_min": 0.05, **ring})
    return Authenticator(keys, issuer=issuer.url, audience=issuer.audience, **changes)


@pytest.fixture
async def door(issuer: Issuer) -> AsyncIterator[Authenticator]:
    """An authenticator that has the issuer's keys and never asks for more."""
    running = authenticator(issuer, refresh_seconds_min=600)
    async with running.opened():
        yield running


def refusal(door: Authenticator, token: str | bytes) -> AuthenticationError:
    """How a token is refused."""
    authorization = f"Bearer {token}" if isinstance(token, str) else b"Bearer " + token
    with pytest.raises(AuthenticationError) as caught:
        door.authenticate(authorization)
    return caught.value


async def eventually(what: Callable[[], object]) -> None:
    """Let the background work until something holds, for at most 30 s."""
    async with asyncio.timeout(30):
        while not what():
            await asyncio.sleep(0.01)


def accepted(door: Authenticator, token: str) -> bool:
    """Whether a token is good now."""
    try:
        door.authenticate(f"Bearer {token}")
    except AuthenticationError as error:
        if error.reason is not Reason.UNKNOWN_KEY:
            raise
        return False
    return True


def segment(value: object) -> bytes:
    """One part of a token."""
    text = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(text).rstrip(b"=")


def publish(issuer: Issuer, *jwks: object) -> None:
    """Replace what the issuer publishes."""
    issuer.jwks_file.write_text(json.dumps({"keys": jwks}))


async def test_a_good_token_names_its_caller(issuer: Issuer, door: Authenticator) -> None:
    """Client, scopes and account are the token's; the header may come as bytes, the scheme in any case."""
    partner = issuer.token("partner-1")
    member = issuer.token("app", [Scope.REDEMPTIONS_WRITE, Scope.ACCOUNTS_READ], "guest_7")
    face: Authentication = door
    for authorization in (f"Bearer {partner}", f"bearer {partner}", f"BEARER {partner}".encode()):
        assert face.authenticate(authorization) == Caller("partner-1", frozenset(Scope), None)
    caller = face.authenticate(f"Bearer {member}")
    assert caller == Caller("app", frozenset({"redemptions:write", "accounts:read"}), "guest_7")


def test_a_caller_may_what_the_token_says() -> None:
    """A scope that is not granted is refused; a member's token is good for one account, a partner's for all."""
    member = Caller("app", frozenset({"redemptions:read"}), "guest-1")
    assert member.may(Scope.REDEMPTIONS_READ)
    assert not member.may(Scope.REDEMPTIONS_WRITE)
    assert member.may_touch("guest-1")
    assert not member.may_touch("guest-10")
    assert Caller("partner", frozenset(), None).may_touch("guest-10")


async def test_only_our_scopes_are_kept(issuer: Issuer, door: Authenticator) -> None:
    """Words of other services mean nothing here, and a token without any scope allows nothing."""
    claims = issuer.claims("partner")
    mixed = door.authenticate(f"Bearer {issuer.sign(claims | {'scope': 'openid accounts:read redemptions'})}")
    del claims["scope"]
    assert mixed.scopes == {Scope.ACCOUNTS_READ}
    assert door.authenticate(f"Bearer {issuer.sign(claims)}").scopes == frozenset()


async def test_anonymous_lets_everybody_do_all() -> None:
    """The demo's authentication has the same face and asks for nothing."""
    nobody: Authentication = Anonymous()
    async with nobody.opened():
        for authorization in (None, b"", "Bearer x"):
            assert nobody.authenticate(authorization) == Caller("public", frozenset(Scope), None)


_NOW = int(time.time())
_REFUSED = {
    "expired": ({"exp": _NOW - 3600}, {}, Reason.EXPIRED),
    "not begun": ({"nbf": _NOW + 3600}, {}, Reason.NOT_YET_VALID),
    "issued tomorrow": ({"iat": _NOW + 86400}, {}, Reason.NOT_YET_VALID),
    "another issuer": ({"iss": f"https://{_MARK}.example.com"}, {}, Reason.WRONG_ISSUER),
    "another audience": ({"aud": _MARK}, {}, Reason.WRONG_AUDIENCE),
    "other audiences": ({"aud": [_MARK, "b"]}, {}, Reason.WRONG_AUDIENCE),
    "an audience that is no text": ({"aud": {"https://redemption.example.com": 1}}, {}, Reason.WRONG_AUDIENCE),
    "an audience within ours": ({"aud": "redemption.example.com"}, {}, Reason.WRONG_AUDIENCE),
    "an ID token": ({}, {"typ": "JWT"}, Reason.WRONG_TYPE),
    "no type": ({}, {"typ": None}, Reason.WRONG_TYPE),
    "no key id": ({}, {"kid": None}, Reason.MALFORMED),
    "a key id that nobody has": ({}, {"kid": _MARK}, Reason.UNKNOWN_KEY),
    "an extension": ({}, {"crit": ["exp"], "exp": 1}, Reason.MALFORMED),
    "an extension that the library knows": ({}, {"crit": ["b64"], "b64": True}, Reason.MALFORMED),
    "no exp": ({"exp": None}, {}, Reason.WRONG_CLAIMS),
    "no iat": ({"iat": None}, {}, Reason.WRONG_CLAIMS),
    "an exp in words": ({"exp": "4102444800"}, {}, Reason.WRONG_CLAIMS),
    "an exp that is true": ({"exp": True}, {}, Reason.WRONG_CLAIMS),
    "an exp that never comes": ({"exp": float("inf")}, {}, Reason.WRONG_CLAIMS),
    "an nbf that is no number": ({"nbf": float("nan")}, {}, Reason.WRONG_CLAIMS),
    "an exp too large for a float": ({"exp": 10**400}, {}, Reason.WRONG_CLAIMS),
    "no client": ({"client_id": None}, {}, Reason.WRONG_CLAIMS),
    "an empty client": ({"client_id": ""}, {}, Reason.WRONG_CLAIMS),
    "a client with a line end": ({"client_id": f"{_MARK}\n"}, {}, Reason.WRONG_CLAIMS),
    "a client too long": ({"client_id": "c" * 65}, {}, Reason.WRONG_CLAIMS),
    "a list of scopes": ({"scope": ["redemptions:write"]}, {}, Reason.WRONG_CLAIMS),
    "an empty account": ({"account_id": ""}, {}, Reason.WRONG_CLAIMS),
    "no account where one is named": ({"account_id": None}, {}, Reason.WRONG_CLAIMS),
    "an account that is no id": ({"account_id": f"{_MARK}:*"}, {}, Reason.WRONG_CLAIMS),
}
_NULL = "account_id"  # the one claim whose null is sent; another that is None above is left out


@pytest.mark.parametrize(("claims", "header", "reason"), _REFUSED.values(), ids=_REFUSED)
async def test_a_token_is_refused_for_its_own_reason(
    issuer: Issuer, door: Authenticator, claims: dict[str, Any], header: dict[str, Any], reason: Reason
) -> None:
    """Each fault has its stable reason and a valid challenge, and no error repeats anything of the token."""
    spoilt = {**issuer.claims("partner"), "sub": _MARK, **claims}
    spoilt = {name: value for name, value in spoilt.items() if value is not None or name == _NULL}
    parameters = {"typ": "at+jwt", "kid": issuer.key.key_id, "alg": "ES256", **header}
    parameters = {name: value for name, value in parameters.items() if value is not None}
    signed = segment(parameters) + b"." + segment(spoilt)
    token = signed + b"." + segment(ECAlgorithm(ECAlgorithm.SHA256).sign(signed, issuer.key.private))

    error = refusal(door, token)

    assert error.reason is reason
    assert error.retryable == (reason is Reason.UNKNOWN_KEY)
    assert _CHALLENGE.fullmatch(error.challenge)
    told = "".join([error.challenge, repr(error), *traceback.format_exception(error)])
    for secret in (_MARK, *token.decode().split(".")):
        assert secret not in told
    assert not door._verified


async def test_every_reason_can_be_told(issuer: Issuer, door: Authenticator) -> None:
    """Each reason has a description that fits a header; a caller without a token gets no error code (RFC 6750, 3)."""
    for reason in set(Reason) - {Reason.MISSING}:
        assert _CHALLENGE.fullmatch(AuthenticationError(reason).challenge)
    for authorization in (None, "", b"", "Basic dXNlcjpwYXNz", issuer.token("partner"), "Bearer"):
        with pytest.raises(AuthenticationError) as caught:
            door.authenticate(authorization)
        assert (caught.value.reason, caught.value.challenge) == (Reason.MISSING, "Bearer")
    challenge = insufficient_scope_challenge(Scope.ACCRUALS_WRITE)
    assert challenge == 'Bearer error="insufficient_scope", scope="accruals:write"'


async def test_the_long_type_is_taken_too(issuer: Issuer, door: Authenticator) -> None:
    """`application/at+jwt` is the same type, in any case; an audience may be one of several."""
    claims = issuer.claims("partner") | {"aud": ["https://other.example.com", issuer.audience]}
    for name in ("application/at+jwt", "AT+JWT"):
        assert door.authenticate(f"Bearer {issuer.sign(claims, typ=name)}").client_id == "partner"


async def test_an_unsigned_token_is_refused(issuer: Issuer, door: Authenticator) -> None:
    """`none` is no algorithm, in whatever case, with a signature or without."""
    good = issuer.token("partner").encode()
    for name in ("none", "None", "NONE", "", None, ["ES256"]):
        header = segment({"typ": "at+jwt", "kid": issuer.key.key_id, "alg": name})
        for signature in (b"", good.rpartition(b".")[2]):
            token = b".".join([header, good.split(b".")[1], signature])
            assert refusal(door, token).reason is Reason.WRONG_ALGORITHM


async def test_a_public_key_is_no_shared_secret(issuer: Issuer, door: Authenticator) -> None:
    """Whoever signs by HMAC with the published key, in any of its spellings, is refused."""
    public = issuer.key.private.public_key()
    formats = serialization.PublicFormat.SubjectPublicKeyInfo
    spellings = [
        public.public_bytes(each, formats) for each in (serialization.Encoding.PEM, serialization.Encoding.DER)
    ]
    spellings.append(json.dumps(issuer.key.jwk).encode())
    header = segment({"typ": "at+jwt", "kid": issuer.key.key_id, "alg": "HS256"})
    signed = header + b"." + segment(issuer.claims("partner"))
    for secret in spellings:
        token = signed + b"." + segment(hmac.digest(secret, signed, "sha256"))
        assert refusal(door, token).reason is Reason.WRONG_ALGORITHM


async def test_a_wrong_signature_is_refused(issuer: Issuer, door: Authenticator) -> None:
    """Another key under our key's id, a changed claim, a cut or an empty signature: none of them verifies."""
    good = issuer.token("partner")
    header, payload, signature = good.split(".")
    other = jwt.encode(
        issuer.claims("partner"), SigningKey().private, "ES256", {"typ": "at+jwt", "kid": issuer.key.key_id}
    )
    changed = segment(issuer.claims("another")).decode()
    for token in (
        other,
        f"{header}.{changed}.{signature}",
        f"{header}.{payload}.{signature[:-2]}",
        good[: -len(signature)],
    ):
        assert refusal(door, token).reason is Reason.WRONG_SIGNATURE
    assert door.authenticate(f"Bearer {good}").client_id == "partner"


async def test_a_seen_token_does_not_vouch_for_another(issuer: Issuer, door: Authenticator) -> None:
    """What is remembered is the whole token: the same claims with another signature are verified anew."""
    good = issuer.token("partner")
    assert door.authenticate(f"Bearer {good}")
    assert refusal(door, good.rpartition(".")[0] + "." + "A" * 86).reason is Reason.WRONG_SIGNATURE


async def test_a_token_has_a_bounded_length(issuer: Issuer, door: Authenticator) -> None:
    """8 kB are taken and no byte more, however good the token is."""
    claims = issuer.claims("partner")
    fixed = len(issuer.sign(claims | {"pad": ""}))
    long = issuer.sign(claims | {"pad": "p" * ((8192 - fixed) * 3 // 4 - 1)})
    assert 8180 < len(long) <= 8192
    assert door.authenticate(f"Bearer {long}").client_id == "partner"
    too_long = issuer.sign(claims | {"pad": "p" * ((8192 - fixed) * 3 // 4 + 8)})
    assert 8192 < len(too_long) < 8210
    assert refusal(door, too_long).reason is Reason.MALFORMED


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=5,
)
_examples = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


@_examples
@given(
    st.text(max_size=200) | st.binary(max_size=200), st.sampled_from(["", "Bearer ", "Bearer e30.", "Bearer e30.e30."])
)
async def test_garbage_is_refused(door: Authenticator, garbage: str | bytes, start: str) -> None:
    """Whatever a header holds, the answer is a refusal and never a fault of ours."""
    with pytest.raises(AuthenticationError):
        door.authenticate(start + garbage if isinstance(garbage, str) else start.encode() + garbage)


@_examples
@given(
    st.dictionaries(st.sampled_from(["alg", "kid", "typ", "crit", "b64", "jwk"]), _JSON), _JSON, st.binary(max_size=80)
)
async def test_a_made_up_token_is_refused(
    issuer: Issuer,
    door: Authenticator,
    header: dict[str, Any],
    payload: Any,  # noqa: ANN401 - any JSON
    signature: bytes,
) -> None:
    """As above for tokens that are well formed, from any JSON, up to the point where the signature fails."""
    right = {"alg": "ES256", "typ": "at+jwt", "kid": issuer.key.key_id}
    for parameters in (header, right | header):
        refusal(door, b".".join(map(segment, (parameters, payload, signature))))


@_examples
@given(st.dictionaries(st.sampled_from(["iss", "aud", "exp", "iat", "nbf", "client_id", "scope", "account_id"]), _JSON))
async def test_claims_of_any_kind_are_judged(issuer: Issuer, door: Authenticator, odd: dict[str, Any]) -> None:
    """A signed token with odd claims is refused, or names a caller whose ids are well formed."""
    signed = f"{segment({'alg': 'ES256', 'typ': 'at+jwt', 'kid': issuer.key.key_id}).decode()}."
    signed += segment(issuer.claims("partner") | odd).decode()
    signature = ECAlgorithm(ECAlgorithm.SHA256).sign(signed.encode(), issuer.key.private)
    try:
        caller = door.authenticate(f"Bearer {signed}.{segment(signature).decode()}")
    except AuthenticationError:
        return
    assert re.fullmatch(r"[A-Za-z0-9_-]{1,64}", caller.client_id)
    assert (caller.account_id is None) == ("account_id" not in odd)
    assert {"iss", "aud"}.isdisjoint(odd)


async def test_deep_nesting_is_refused(issuer: Issuer, door: Authenticator) -> None:
    """JSON as deep as a token can hold overflows nothing."""
    for deep in (b"[" * 6000, b'{"a":' * 1200):
        assert refusal(door, segment(deep) + b".e30.e30").reason is Reason.MALFORMED
        signed = issuer.token("partner").encode().split(b".")[0] + b"." + segment(deep[:5700])
        signature = ECAlgorithm(ECAlgorithm.SHA256).sign(signed, issuer.key.private)
        assert refusal(door, signed + b"." + segment(signature)).reason is Reason.MALFORMED


async def test_a_verified_token_is_remembered_until_it_expires(issuer: Issuer) -> None:
    """Until `exp` a token is not verified again; then it is, each time, while the leeway lasts, and refused after."""
    now = float(_NOW)
    door = authenticator(issuer, refresh_seconds_min=600, now=lambda: now)
    claims = issuer.claims("partner") | {"iat": _NOW, "exp": _NOW + 100}
    authorization = f"Bearer {issuer.sign(claims)}"
    verified = 0
    decode = door._signatures.decode

    def counted(*arguments: Any, **options: Any) -> Any:  # noqa: ANN401 - passes them on
        nonlocal verified
        verified += 1
        return decode(*arguments, **options)

    door._signatures.decode = counted  # type: ignore[method-assign] # counts, and changes nothing
    async with door.opened():
        first = door.authenticate(authorization)
        now = _NOW + 99.9
        assert door.authenticate(authorization) is first
        assert verified == 1
        now = _NOW + 100.0
        assert door.authenticate(authorization) == first
        assert verified == 2
        now = _NOW + 129.0
        assert door.authenticate(authorization) == first
        assert verified == 3
        now = _NOW + 130.0
        assert refusal(door, authorization.removeprefix("Bearer ")).reason is Reason.EXPIRED


async def test_clocks_may_differ_by_the_leeway(issuer: Issuer) -> None:
    """A token from a clock ahead is taken within the leeway and not beyond."""
    now = _NOW - 30.0
    door = authenticator(issuer, refresh_seconds_min=600, now=lambda: now)
    tokens = [issuer.sign(issuer.claims("partner") | {"iat": _NOW - 3600, name: _NOW}) for name in ("iat", "nbf")]
    async with door.opened():
        for token in tokens:
            now = _NOW - 30.1
            assert refusal(door, token).reason is Reason.NOT_YET_VALID
            now = _NOW - 30.0
            assert door.authenticate(f"Bearer {token}")


async def test_the_memory_for_tokens_is_bounded(issuer: Issuer) -> None:
    """When it is full the oldest goes, and what went is verified again; what lives on the leeway takes no place."""
    door = authenticator(issuer, refresh_seconds_min=600, cached_tokens_max=3)
    tokens = [issuer.token(f"partner-{number}") for number in range(5)]
    async with door.opened():
        for token in tokens:
            door.authenticate(f"Bearer {token}")
        assert list(door._verified) == [hashlib.sha256(token.encode()).digest() for token in tokens[2:]]
        assert door.authenticate(f"Bearer {tokens[0]}").client_id == "partner-0"
        kept = list(door._verified)
        assert door.authenticate(f"Bearer {issuer.token('late', lifetime_seconds=-1)}").client_id == "late"
        assert list(door._verified) == kept
        assert len(kept) == 3


# Keys and where they come from


_RSA = rsa.generate_private_key(65537, 2048)
_ED25519 = ed25519.Ed25519PrivateKey.generate()
_P384 = ec.generate_private_key(ec.SECP384R1())


def _rsa_jwk(private: rsa.RSAPrivateKey, **more: object) -> dict[str, Any]:
    return RSAAlgorithm.to_jwk(private.public_key(), as_dict=True) | {"kid": "other"} | more


_ALGORITHMS: dict[str, tuple[Any, dict[str, Any]]] = {
    "RS256": (_RSA, _rsa_jwk(_RSA)),
    "PS256": (_RSA, _rsa_jwk(_RSA, alg="PS256", use="sig")),
    "EdDSA": (_ED25519, OKPAlgorithm.to_jwk(_ED25519.public_key(), as_dict=True) | {"kid": "other"}),
    "ES384": (_P384, ECAlgorithm.to_jwk(_P384.public_key(), as_dict=True) | {"kid": "other"}),
}


def by_another_key(issuer: Issuer, private: Any, algorithm: str) -> str:  # noqa: ANN401 - a key of any kind
    """A token signed by the key `other`."""
    return jwt.encode(issuer.claims("partner"), private, algorithm, {"typ": "at+jwt", "kid": "other"})


@pytest.mark.parametrize("algorithm", _ALGORITHMS)
async def test_every_listed_algorithm_verifies(issuer: Issuer, algorithm: str) -> None:
    """A token of each kind is taken where its algorithm is configured, and refused where it is not."""
    private, jwk = _ALGORITHMS[algorithm]
    publish(issuer, jwk, issuer.key.jwk)
    token = by_another_key(issuer, private, algorithm)
    strict = authenticator(issuer, algorithms=["ES256"], refresh_seconds_min=600)
    lax = authenticator(issuer, algorithms=["ES256", algorithm], refresh_seconds_min=600)
    async with strict.opened(), lax.opened():
        assert refusal(strict, token).reason is Reason.WRONG_ALGORITHM
        assert lax.authenticate(f"Bearer {token}").client_id == "partner"


async def test_a_key_is_used_for_its_own_algorithm_only(issuer: Issuer) -> None:
    """A key that is published for one algorithm verifies no other, and a key of another type none at all."""
    publish(issuer, _rsa_jwk(_RSA, alg="PS256"), issuer.key.jwk)
    door = authenticator(issuer, algorithms=["RS256", "PS256", "ES256"], refresh_seconds_min=600)
    async with door.opened():
        assert refusal(door, by_another_key(issuer, _RSA, "RS256")).reason is Reason.WRONG_ALGORITHM
        assert door.authenticate(f"Bearer {by_another_key(issuer, _RSA, 'PS256')}")
        assert refusal(door, issuer.sign(issuer.claims("partner"), kid="other")).reason is Reason.WRONG_ALGORITHM


_SMALL = rsa.generate_private_key(65537, 1024)  # noqa: S505 - to see it refused
_UNUSABLE: dict[str, object] = {
    "too small": _rsa_jwk(_SMALL),
    "private": RSAAlgorithm.to_jwk(_RSA, as_dict=True) | {"kid": "other", "key_ops": ["verify"]},
    "for encryption": _rsa_jwk(_RSA, use="enc"),
    "for other operations": _rsa_jwk(_RSA, key_ops=["encrypt"]),
    "with operations that are no list": _rsa_jwk(_RSA, key_ops="verify"),
    "for another algorithm": _rsa_jwk(_RSA, alg="RS512"),
    "without an id": {**_rsa_jwk(_RSA), "kid": None},
    "with an id that is no text": _rsa_jwk(_RSA, kid=["other"]),
    "a shared secret": {"kty": "oct", "k": "c2VjcmV0" * 8, "kid": "other", "alg": "HS256"},
    "on another curve": _ALGORITHMS["ES384"][1],
    "off the curve": {"kty": "EC", "crv": "P-256", "x": "A" * 43, "y": "A" * 43, "kid": "other"},
    "incomplete": {"kty": "RSA", "e": "AQAB", "kid": "other"},
    "of wrong types": {"kty": "RSA", "e": 1, "n": [], "kid": "other"},
    "no object": "key",
}


@pytest.mark.parametrize("jwk", _UNUSABLE.values(), ids=_UNUSABLE)
async def test_an_unusable_key_is_passed_over(issuer: Issuer, jwk: object) -> None:
    """It does not harm the others in its set; a set that has no other is no set of keys."""
    publish(issuer, jwk, issuer.key.jwk)
    door = authenticator(issuer, refresh_seconds_min=600)
    async with door.opened():
        assert list(door._keys._keys) == [issuer.key.key_id]
        assert door.authenticate(f"Bearer {issuer.token('partner')}")
    publish(issuer, jwk)
    with pytest.raises(SecurityError, match="none is a public signature key"):
        async with authenticator(issuer).opened():
            pass


@_examples
@given(
    st.dictionaries(st.sampled_from(["kty", "crv", "x", "y", "n", "e", "kid", "alg", "use", "key_ops", "x5u"]), _JSON)
    | _JSON,
    st.sampled_from([*(jwk for _, jwk in _ALGORITHMS.values()), SigningKey().jwk, {}]),
)
def test_published_keys_of_any_kind_are_judged(odd: Any, right: dict[str, Any]) -> None:  # noqa: ANN401
    """Whatever a source publishes, a key is usable or passed over, or the set is refused."""
    for keys in (odd, [odd], [right | odd] if isinstance(odd, dict) else None):
        try:
            usable = security._usable_keys(json.dumps({"keys": keys}).encode(), list(security._KEY_TYPES))
        except SecurityError:
            continue
        assert all(isinstance(key_id, str) for key_id in usable)


async def test_a_start_without_keys_names_the_source(issuer: Issuer) -> None:
    """A missing, broken or ambiguous key file ends the start with an error that says which file it is."""
    twice = [SigningKey().jwk | {"kid": "same"} for _ in range(2)]
    contents = {
        None: "No such file",
        b"\xff": "not a JSON Web Key Set",
        b"[" * 100_000: "not a JSON Web Key Set",
        b'{"keys": {}}': "not a JSON Web Key Set",
        b'{"keys": []}': "none is a public signature key",
        json.dumps({"keys": [{}] * 101}).encode(): "at most 100 keys",
        json.dumps({"keys": twice}).encode(): "two keys have the same kid",
        b" " * (256 * 1024 + 1): "longer than 262144 bytes",
    }
    for content, problem in contents.items():
        issuer.jwks_file.unlink(missing_ok=True)
        if content is not None:
            issuer.jwks_file.write_bytes(content)
        with pytest.raises(SecurityError, match=f"{re.escape(str(issuer.jwks_file))} gives no keys.*{problem}"):
            async with authenticator(issuer).opened():
                pass


async def test_a_new_key_is_found_in_the_background(issuer: Issuer) -> None:
    """A token of a key published later is refused as retryable, and taken soon after; the old key's stay good."""
    door = authenticator(issuer)
    before = issuer.token("partner")
    async with door.opened():
        first = door.authenticate(f"Bearer {before}")
        issuer.rotate()
        after = issuer.token("partner")
        error = refusal(door, after)
        assert (error.reason, error.retryable) == (Reason.UNKNOWN_KEY, True)
        await eventually(lambda: accepted(door, after))
        assert door.authenticate(f"Bearer {before}") is first
        assert accepted(door, issuer.token("another"))


async def test_what_a_withdrawn_key_signed_is_refused(issuer: Issuer) -> None:
    """Once a refresh sees that a key is gone, neither new tokens of it nor remembered ones are good."""
    door = authenticator(issuer)
    seen, unseen, stale = issuer.token("partner"), issuer.token("another"), SigningKey()
    async with door.opened():
        assert accepted(door, seen)
        issuer.rotate(keep=False)
        fresh = issuer.token("partner")
        await eventually(lambda: accepted(door, fresh))
        for token in (seen, unseen):
            assert refusal(door, token).reason is Reason.UNKNOWN_KEY
        # The same id for another key is another key.
        publish(issuer, stale.jwk | {"kid": issuer.key.key_id})
        await eventually(lambda: refusal_or_none(door, fresh) is Reason.WRONG_SIGNATURE)


def refusal_or_none(door: Authenticator, token: str) -> Reason | None:
    """Why a token is refused now; asks for fresh keys too."""
    door._keys.find("nobody's")
    try:
        door.authenticate(f"Bearer {token}")
    except AuthenticationError as error:
        return error.reason
    return None


@dataclass(slots=True)
class Publisher:
    """An issuer's server.

    Attributes:
        url: Where it answers.
        ca_file: Who vouches for it.
        answer: Status, headers and body of every answer to come.
        pause: An answer is sent only while this is set.
        paths: What was asked for so far.
    """

    url: str
    ca_file: Path
    answer: tuple[int, dict[str, str], bytes] = (404, {}, b"")
    pause: threading.Event = field(default_factory=threading.Event)
    paths: list[str] = field(default_factory=list)

    def publish(self, issuer: Issuer) -> None:
        """Answer with the issuer's keys."""
        self.answer = (200, {}, issuer.jwks_file.read_bytes())

    def source(self) -> UrlKeySource:
        """The service's way to it."""
        return UrlKeySource(f"{self.url}/jwks.json", ca_file=self.ca_file)


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a throw-away authority, `ca.pem`, and what a server on loopback shows, `server.pem`."""
    folder = tmp_path_factory.mktemp("certificates")
    authority, server = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    ca_name, server_name = (
        x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)]) for name in ("test authority", "test server")
    )

    def certificate(subject: x509.Name, key: ec.EllipticCurvePrivateKey, *, ca: bool) -> bytes:
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(ca_name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(datetime.now(UTC) - timedelta(hours=1))
            .not_valid_after(datetime.now(UTC) + timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.public_key()), critical=False)
            .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        )
        return builder.sign(authority, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    (folder / "ca.pem").write_bytes(certificate(ca_name, authority, ca=True))
    private = server.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "server.pem").write_bytes(private + certificate(server_name, server, ca=False))
    return folder


@pytest.fixture
def publisher(certificates: Path) -> Iterator[Publisher]:
    """A server with TLS on loopback."""
    with publishing(certificates) as running:
        yield running


@contextmanager
def publishing(certificates: Path) -> Iterator[Publisher]:
    """Run a server with TLS on loopback while the block runs."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            running.paths.append(self.path)
            running.pause.wait(30)
            status, headers, body = running.answer
            self.send_response(status)
            for name, value in ({"Content-Length": str(len(body))} | headers).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    class Server(ThreadingHTTPServer):
        def handle_error(self, *_: object) -> None:
            """A client that went away is no error."""

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates / "server.pem")
    with Server(("127.0.0.1", 0), Handler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        running = Publisher(f"https://127.0.0.1:{server.server_port}", certificates / "ca.pem")
        running.pause.set()
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield running
        finally:
            running.pause.set()
            server.shutdown()
            thread.join()


async def test_keys_come_over_https(issuer: Issuer, publisher: Publisher) -> None:
    """An issuer's URL gives the keys, and the new ones after a rotation."""
    publisher.publish(issuer)
    door = authenticator(issuer, publisher.source())
    async with door.opened():
        assert accepted(door, issuer.token("partner"))
        issuer.rotate()
        publisher.publish(issuer)
        after = issuer.token("partner")
        assert not accepted(door, after)
        await eventually(lambda: accepted(door, after))
    assert set(publisher.paths) == {"/jwks.json"}


async def test_what_a_token_says_of_its_key_is_never_read(
    issuer: Issuer, publisher: Publisher, certificates: Path, tmp_path: Path
) -> None:
    """`jku`, `x5u` and `jwk` lead nowhere: their server is never asked, whether the key id is known or not."""
    publisher.publish(issuer)
    (tmp_path / "thief").mkdir()
    thief = Issuer(tmp_path / "thief")
    door = authenticator(issuer, publisher.source())
    with publishing(certificates) as trap:
        trap.publish(thief)
        own = {"jku": f"{trap.url}/jwks.json", "x5u": f"{trap.url}/x5u", "jwk": thief.key.jwk}
        async with door.opened():
            for key_id, reason in ((issuer.key.key_id, Reason.WRONG_SIGNATURE), ("thief", Reason.UNKNOWN_KEY)):
                token = thief.sign(thief.claims("partner"), **own, kid=key_id)
                assert refusal(door, token).reason is reason
            await eventually(lambda: len(publisher.paths) > 1)
            assert refusal(door, token).reason is Reason.UNKNOWN_KEY
            assert accepted(door, issuer.sign(issuer.claims("partner"), **own))
        assert trap.paths == []


async def test_many_unknown_keys_cause_one_refresh(issuer: Issuer, publisher: Publisher) -> None:
    """Whoever asks before and during a refresh is served by that one, and none of them waits for it."""
    publisher.publish(issuer)
    door = authenticator(issuer, publisher.source())
    async with door.opened():
        publisher.pause.clear()
        issuer.rotate()
        publisher.publish(issuer)
        after = issuer.token("partner")

        def ask() -> None:
            for number in range(50):
                token = issuer.sign(issuer.claims("partner"), kid=f"made-up-{number}")
                assert refusal(door, token).reason is Reason.UNKNOWN_KEY

        ask()
        await eventually(lambda: len(publisher.paths) == 2)
        ask()
        assert not accepted(door, after)
        publisher.pause.set()
        await eventually(lambda: door._keys._keys.get(issuer.key.key_id))
        assert accepted(door, after)
        await asyncio.sleep(0.3)
    assert len(publisher.paths) == 2


async def test_unknown_keys_are_asked_for_at_a_bounded_rate(issuer: Issuer, publisher: Publisher) -> None:
    """However many made-up key ids arrive, the source is asked no more often than the shortest time allows."""
    publisher.publish(issuer)
    door = authenticator(issuer, publisher.source(), refresh_seconds_min=0.2)
    started = time.monotonic()
    async with door.opened():
        while len(publisher.paths) < 4:
            refusal(door, issuer.sign(issuer.claims("partner"), kid="made-up"))
            await asyncio.sleep(0.01)
    assert time.monotonic() - started >= 3 * 0.2


async def test_keys_are_refreshed_without_being_asked_for(issuer: Issuer, publisher: Publisher) -> None:
    """A withdrawn key is noticed although every token that arrives is known."""
    publisher.publish(issuer)
    door = authenticator(issuer, publisher.source(), refresh_seconds=0.2)
    token = issuer.token("partner")
    async with door.opened():
        assert accepted(door, token)
        issuer.rotate(keep=False)
        publisher.publish(issuer)
        await eventually(lambda: not accepted(door, token))


async def test_old_keys_stay_good_while_the_source_is_away(issuer: Issuer, publisher: Publisher) -> None:
    """A failed refresh is told, takes no key away, and the next one is tried all the same."""
    publisher.publish(issuer)
    told: list[SecurityError] = []
    door = authenticator(issuer, publisher.source(), refresh_seconds=0.1, on_refresh_failed=told.append)
    assert door.keys_age_seconds == float("inf")
    async with door.opened():
        before = issuer.token("partner")
        assert accepted(door, before)
        assert door.keys_age_seconds < 30
        for status, body in ((503, b""), (200, b'{"keys": []}'), (200, b"<html>")):
            publisher.answer = (status, {}, body)
            told.clear()
            await eventually(lambda: len(told) > 1)
            assert str(told[-1]).startswith(f"the key source {publisher.url}/jwks.json gives no keys")
            assert accepted(door, before)
            assert accepted(door, issuer.token("another"))
        young = door.keys_age_seconds
        told.clear()
        await eventually(lambda: told)
        aged = door.keys_age_seconds
        assert aged > young
        issuer.rotate()
        publisher.publish(issuer)
        after = issuer.token("partner")
        await eventually(lambda: accepted(door, after))
        assert door.keys_age_seconds < aged


async def test_a_failed_refresh_is_in_the_log(issuer: Issuer) -> None:
    """The service warns of it, with the class of what went wrong and nothing of where the keys are."""
    written = io.BytesIO()
    door = parts.authentication(
        Settings(jwks_file=issuer.jwks_file, jwt_issuer="https://issuer.example.com", jwt_audience="redemption"),
        create_log(written),
    )
    assert isinstance(door, Authenticator)
    door._keys._refresh_seconds = door._keys._refresh_seconds_min = 0.05
    async with door.opened():
        issuer.jwks_file.write_text("{}")
        await eventually(lambda: b"SecurityError" in written.getvalue())
        issuer.jwks_file.unlink()
        await eventually(lambda: b"FileNotFoundError" in written.getvalue())
    lines = [json.loads(line) for line in written.getvalue().splitlines()]
    for line in lines:
        assert line.keys() == {"timestamp", "level", "event", "error"}
        assert (line["level"], line["event"]) == ("warning", "keys not refreshed")


_GOOD = json.dumps({"keys": [SigningKey().jwk]}).encode()


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        ((500, {}, _GOOD), "answered 500"),
        ((302, {"Location": "/moved.json"}, _GOOD), "answered 302"),
        ((200, {}, _GOOD + b" " * 300_000), "longer than 262144 bytes"),
        ((200, {"Content-Encoding": "gzip"}, gzip.compress(_GOOD + b" " * 300_000)), "not a JSON Web Key Set"),
        ((200, {"Content-Length": "1000"}, _GOOD), "RemoteProtocolError"),
    ],
    ids=["error", "redirect", "too long", "packed", "cut off"],
)
async def test_an_odd_answer_gives_no_keys(
    issuer: Issuer, publisher: Publisher, answer: tuple[int, dict[str, str], bytes], problem: str
) -> None:
    """Only a plain 200 of bounded size counts: nothing is followed, unpacked or read without end."""
    publisher.answer = answer
    with pytest.raises(SecurityError, match=problem):
        async with authenticator(issuer, publisher.source()).opened():
            pass
    assert publisher.paths == ["/jwks.json"]


async def test_a_silent_source_is_given_up(
    issuer: Issuer, publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that never answers ends the start with an error."""
    monkeypatch.setattr(security, "_SOURCE_SECONDS_MAX", 0.2)
    publisher.pause.clear()
    with pytest.raises(SecurityError, match=r"gives no keys: \w*Timeout"):
        async with authenticator(issuer, publisher.source()).opened():
            pass


async def test_a_server_that_nobody_vouches_for_is_refused(issuer: Issuer, publisher: Publisher) -> None:
    """Without the authority the certificate does not verify, and no keys are taken."""
    publisher.publish(issuer)
    with pytest.raises(SecurityError, match="CERTIFICATE_VERIFY_FAILED"):
        async with authenticator(issuer, UrlKeySource(f"{publisher.url}/jwks.json")).opened():
            pass
    assert publisher.paths == []


def test_a_wrong_configuration_is_refused(issuer: Issuer, tmp_path: Path) -> None:
    """What would weaken authentication cannot be configured, and no error repeats a secret."""
    for algorithms in ([], ["HS256"], ["ES256", "HS512"], ["none"], ["RS256", "None"]):
        with pytest.raises(SecurityError, match="algorithms of tokens must be some of RS256"):
            authenticator(issuer, algorithms=algorithms)
    changes: tuple[dict[str, Any], ...] = (
        *({"leeway_seconds": value} for value in (-1, 60.1, float("nan"))),
        *({"cached_tokens_max": value} for value in (0, 1_000_001)),
        *({"refresh_seconds": value} for value in (0, 0.01, float("inf"), float("nan"))),
        {"refresh_seconds_min": 0},
    )
    for change in changes:
        with pytest.raises(SecurityError, match="must be"):
            authenticator(issuer, **change)
    for issuer_url, audience in (("", "a"), ("i", "")):
        with pytest.raises(SecurityError, match="need an issuer and an audience"):
            Authenticator(KeyRing(FileKeySource(issuer.jwks_file)), issuer=issuer_url, audience=audience)
    for url in (
        "http://issuer.example.com/",
        "file:///etc/passwd",
        "https://",
        "https://u:pa55@h/",
        "https://h:x/",
        "",
    ):
        with pytest.raises(SecurityError, match="must be like https://") as caught:
            UrlKeySource(url)
        assert "pa55" not in str(caught.value)
    (tmp_path / "empty.pem").write_text("")
    for name in ("empty.pem", "missing.pem"):
        with pytest.raises(SecurityError, match=f"{name} holds no certificates"):
            UrlKeySource("https://issuer.example.com/", ca_file=tmp_path / name)
