"""Who calls: OAuth 2.0 access tokens as RFC 9068 profiles them, held to the rules of RFC 8725.

Keys come from the configured source alone: what a token says of where its key is (`jku`, `x5u`, `jwk`) is never
read. Nothing here waits while a request does: a token that was verified before is found by its hash, another is
verified in place, and a key that is not known yet is fetched in the background while the caller is told to retry.

A token stays good until it expires (`exp`), or until the key that signed it is no longer published and the next
refresh sees that. There is no list of withdrawn tokens, so issuers should keep lifetimes short.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import math
import random
import re
import ssl
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext, suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

import httpx
import jwt
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from jwt.algorithms import AllowedPublicKeys

from service.domain import ACCOUNT_ID_PATTERN

CLIENT_ID_PATTERN = r"^[A-Za-z0-9_-]{1,64}$"
ALGORITHMS_DEFAULT: Final = ("RS256", "ES256", "EdDSA")
LEEWAY_SECONDS_MAX = 60.0  # RFC 7519, 4.1.4: "usually no more than a few minutes"; clocks here are kept by NTP
TOKEN_BYTES_MAX = 8192  # servers commonly refuse longer header lines anyway
CACHED_TOKENS_MAX = 1_000_000

# What an algorithm needs of a key: `kty`, and `crv` where there is a choice (RFC 7518, 3.1; RFC 8037, 3.1). Whatever
# is not listed cannot be configured: no shared secret, no `none`.
_KEY_TYPES: Final = {
    **dict.fromkeys(("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"), ("RSA", None)),
    "ES256": ("EC", "P-256"),
    "ES384": ("EC", "P-384"),
    "ES512": ("EC", "P-521"),
    "EdDSA": ("OKP", "Ed25519"),
}
_RSA_BITS_MIN = 2048  # RFC 7518, 3.3
_SOURCE_BYTES_MAX = 256 * 1024
_SOURCE_KEYS_MAX = 100  # issuers publish two or three
_SOURCE_SECONDS_MAX = 10.0  # for all of it; nobody waits, but at the start
_REFRESH_JITTER = 0.1  # so that the service's processes do not ask all at once

_TYPES: Final = ("at+jwt", "application/at+jwt")  # RFC 9068, 4
_SCHEME: Final = b"bearer "
_AUTHORIZATION_BYTES_MAX = len(_SCHEME) + TOKEN_BYTES_MAX
_TIME_MAX = 2**53  # the largest whole number that every JSON reader keeps
_COMPACT = re.compile(rb"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*")
_CLIENT_ID = re.compile(CLIENT_ID_PATTERN.strip("^$"))
_ACCOUNT_ID = re.compile(ACCOUNT_ID_PATTERN.strip("^$"))


class SecurityError(ValueError):
    """The configuration is wrong, or the source has no keys to give; the message names which and tells no secret."""


class Scope(StrEnum):
    """What a token may allow."""

    REDEMPTIONS_WRITE = "redemptions:write"
    REDEMPTIONS_READ = "redemptions:read"
    ACCOUNTS_READ = "accounts:read"
    ACCRUALS_WRITE = "accruals:write"


class Reason(StrEnum):
    """Why a caller is not known; stable words."""

    MISSING = "missing"
    MALFORMED = "malformed"
    WRONG_TYPE = "wrong-type"
    WRONG_ALGORITHM = "wrong-algorithm"
    UNKNOWN_KEY = "unknown-key"
    WRONG_SIGNATURE = "wrong-signature"
    WRONG_ISSUER = "wrong-issuer"
    WRONG_AUDIENCE = "wrong-audience"
    NOT_YET_VALID = "not-yet-valid"
    EXPIRED = "expired"
    WRONG_CLAIMS = "wrong-claims"


_DESCRIPTIONS: Final = {
    Reason.MISSING: "a bearer token is needed",
    Reason.MALFORMED: "the token is not a signed JWT in compact form, or too long",
    Reason.WRONG_TYPE: "the token is not an access token: its typ must be at+jwt",
    Reason.WRONG_ALGORITHM: "the token is not signed by an algorithm that is accepted here with its key",
    Reason.UNKNOWN_KEY: "the token's key is not known yet; retry, and if that goes on ask for a new token",
    Reason.WRONG_SIGNATURE: "the signature does not verify",
    Reason.WRONG_ISSUER: "the token is from another issuer",
    Reason.WRONG_AUDIENCE: "the token is for another audience",
    Reason.NOT_YET_VALID: "the token is not valid yet",
    Reason.EXPIRED: "the token has expired",
    Reason.WRONG_CLAIMS: "a claim is missing or not well formed: exp, iat, nbf, client_id, scope or account_id",
}


class AuthenticationError(Exception):
    """The caller is not known. Nothing of what was sent is repeated.

    Attributes:
        reason: Why.
    """

    def __init__(self, reason: Reason) -> None:
        super().__init__(_DESCRIPTIONS[reason])
        self.reason = reason

    @property
    def retryable(self) -> bool:
        """The same token may work in a moment."""
        return self.reason is Reason.UNKNOWN_KEY

    @property
    def challenge(self) -> str:
        """The value of `WWW-Authenticate` (RFC 6750, 3): no error code for a caller who sent no token."""
        if self.reason is Reason.MISSING:
            return "Bearer"
        return f'Bearer error="invalid_token", error_description="{self}"'


def insufficient_scope_challenge(scope: Scope) -> str:
    """The value of `WWW-Authenticate` for a known caller whose token does not have this scope (RFC 6750, 3.1)."""
    return f'Bearer error="insufficient_scope", scope="{scope}"'


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls.

    Attributes:
        client_id: The client that the token was given to.
        scopes: Which of `Scope` the token allows.
        account_id: The one account that a member's token is good for; None for a client that may touch all.
    """

    client_id: str
    scopes: frozenset[str]
    account_id: str | None

    def may(self, scope: Scope) -> bool:
        """Whether the token allows this."""
        return scope in self.scopes

    def may_touch(self, account_id: str) -> bool:
        """Whether the token is good for this account."""
        return self.account_id is None or self.account_id == account_id


class Authentication(Protocol):
    """What a route asks who calls."""

    def opened(self) -> AbstractAsyncContextManager[None]:
        """Between these two points callers can be authenticated."""

    def authenticate(self, authorization: bytes | str | None) -> Caller:
        """The caller, from the value of the header `Authorization`, None without one."""


class Anonymous:
    """Knows nobody and lets everybody do all, for trying out."""

    _CALLER: Final = Caller("public", frozenset(Scope), None)

    def opened(self) -> AbstractAsyncContextManager[None]:
        """Nothing to open."""
        return nullcontext()

    def authenticate(self, authorization: bytes | str | None) -> Caller:  # noqa: ARG002 - the same face as the other
        """The public."""
        return self._CALLER


class KeySource(Protocol):
    """Where an issuer's keys are published."""

    @property
    def name(self) -> str:
        """What an error calls it."""

    async def read(self) -> bytes:
        """The JSON Web Key Set (RFC 7517, 5), at most 256 KiB.

        Raises:
            Exception: It cannot be read.
        """


class FileKeySource:
    """A file, one that a secret store mounts say. It is read anew at each refresh.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.name = f"the key file {path}"

    async def read(self) -> bytes:
        """The file's content."""
        return await asyncio.to_thread(self._read)

    def _read(self) -> bytes:
        with self._path.open("rb") as file:
            content = file.read(_SOURCE_BYTES_MAX + 1)
        _check_length(content)
        return content


class UrlKeySource:
    """The issuer's `jwks_uri`, over HTTPS with its certificate verified; redirects and proxies are not followed.

    Args:
        url: `https://...`, without user and password.
        ca_file: Whose certificates are trusted; those of the system if not given.

    Raises:
        SecurityError: The URL is another kind, or the file holds no certificates.
    """

    def __init__(self, url: str, *, ca_file: Path | None = None) -> None:
        try:
            parts = urlsplit(url)
            wrong = parts.scheme != "https" or not parts.hostname or "@" in parts.netloc or parts.port == 0
        except ValueError:
            wrong = True
        if wrong:
            raise SecurityError("the key source's URL must be like https://issuer.example.com/jwks.json")
        self._url = url
        self.name = f"the key source {parts.scheme}://{parts.netloc}{parts.path}"
        try:
            self._tls = ssl.create_default_context(cafile=ca_file)
        except OSError as error:
            raise SecurityError(f"the file {ca_file} holds no certificates to trust") from error

    async def read(self) -> bytes:
        """The answer's body."""
        body = bytearray()
        # Unencoded, so that a small body cannot become a large one.
        headers = {"Accept": "application/jwk-set+json, application/json", "Accept-Encoding": "identity"}
        try:
            async with (
                httpx.AsyncClient(verify=self._tls, trust_env=False, timeout=_SOURCE_SECONDS_MAX) as client,
                client.stream("GET", self._url, headers=headers, follow_redirects=False) as response,
            ):
                if response.status_code != httpx.codes.OK:
                    raise SecurityError(f"answered {response.status_code}")
                async for part in response.aiter_raw():
                    body += part
                    _check_length(body)
        except httpx.HTTPError as error:
            raise SecurityError(f"{type(error).__name__} {error}") from error
        return bytes(body)


@dataclass(slots=True, eq=False)
class _Key:
    """A published key.

    Attributes:
        algorithms: Those that it may be used with here.
        public: The key itself.
        withdrawn: It is no longer published; what it signed is no longer good.
    """

    algorithms: tuple[str, ...]
    public: AllowedPublicKeys
    withdrawn: bool = False

    def is_like(self, other: _Key | None) -> bool:
        return other is not None and (self.algorithms, self.public) == (other.algorithms, other.public)


class KeyRing:
    """An issuer's keys by their id (`kid`), kept fresh in the background.

    They are read each `refresh_seconds`, and as soon as somebody asks for one that is unknown, but never more often
    than each `refresh_seconds_min`. While the source is away, or has no usable key, those of before stay good.

    Args:
        source: Where they are published.
        algorithms: The only ones accepted; asymmetric ones.
        refresh_seconds: How often they are read, give or take a tenth.
        refresh_seconds_min: The shortest time between two reads: tokens with made-up key ids cause no more.
        on_refresh_failed: Told what was wrong; its cause is what went wrong over there.

    Raises:
        SecurityError: There is no algorithm, or one that is not accepted anywhere here.
    """

    def __init__(
        self,
        source: KeySource,
        *,
        algorithms: Iterable[str] = ALGORITHMS_DEFAULT,
        refresh_seconds: float = 600.0,
        refresh_seconds_min: float = 30.0,
        on_refresh_failed: Callable[[SecurityError], None] = lambda _: None,
    ) -> None:
        self.algorithms = tuple(algorithms)
        if not self.algorithms or not set(self.algorithms) <= set(_KEY_TYPES):
            raise SecurityError(f"the algorithms of tokens must be some of {', '.join(_KEY_TYPES)}")
        if not 0 < refresh_seconds_min <= refresh_seconds < math.inf:
            raise SecurityError("keys must be refreshed after a time above 0, and no sooner than the shortest time")
        self._source = source
        self._refresh_seconds = refresh_seconds
        self._refresh_seconds_min = refresh_seconds_min
        self._on_refresh_failed = on_refresh_failed
        self._keys: dict[str, _Key] = {}
        self._read_at = -math.inf
        self._wanted = asyncio.Event()

    @property
    def age_seconds(self) -> float:
        """Time since the keys were last read with success; infinite before that."""
        return time.monotonic() - self._read_at

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """Between these two points there are keys.

        Raises:
            SecurityError: The source has none to give at the start.
        """
        await self._load()
        refreshing = asyncio.create_task(self._keep_fresh())
        try:
            yield
        finally:
            refreshing.cancel()
            await asyncio.wait({refreshing})

    def find(self, key_id: str) -> _Key | None:
        """A key; if there is none, the source is soon asked for it."""
        key = self._keys.get(key_id)
        if key is None:
            self._wanted.set()
        return key

    async def _keep_fresh(self) -> None:
        while True:
            pause = self._refresh_seconds * random.uniform(1 - _REFRESH_JITTER, 1 + _REFRESH_JITTER)  # noqa: S311
            await asyncio.sleep(self._refresh_seconds_min)
            with suppress(TimeoutError):
                async with asyncio.timeout(pause - self._refresh_seconds_min):
                    await self._wanted.wait()
            try:
                await self._load()
            except SecurityError as error:
                self._on_refresh_failed(error)
            self._wanted.clear()  # now: who asked while the keys were on their way is served too

    async def _load(self) -> None:
        try:
            async with asyncio.timeout(_SOURCE_SECONDS_MAX):
                keys = _usable_keys(await self._source.read(), self.algorithms)
        except Exception as error:  # whatever is wrong over there must not end the refreshing
            raise SecurityError(f"{self._source.name} gives no keys: {str(error) or type(error).__name__}") from error
        for key_id, old in self._keys.items():
            if old.is_like(keys.get(key_id)):
                keys[key_id] = old
            else:
                old.withdrawn = True
        self._keys = keys
        self._read_at = time.monotonic()


class Authenticator:
    """Knows a caller by an access token. To be used from one event loop.

    A hit costs a hash and a look-up; a miss verifies a signature. The tokens that were verified are kept until they
    expire, the oldest going first when there are too many.

    Args:
        keys: The issuer's keys.
        issuer: What `iss` must be.
        audience: What `aud` must be or hold.
        leeway_seconds: By how much clocks may differ, 0 to 60.
        cached_tokens_max: Verified tokens that are remembered, 1 to 1,000,000; each takes about 0.9 kB.
        now: Unix time in seconds.

    Raises:
        SecurityError: A value is not one of these.
    """

    def __init__(  # noqa: PLR0913 - each is one thing that a token is held to
        self,
        keys: KeyRing,
        *,
        issuer: str,
        audience: str,
        leeway_seconds: float = 30.0,
        cached_tokens_max: int = 20_000,
        now: Callable[[], float] = time.time,
    ) -> None:
        if not issuer or not audience:
            raise SecurityError("tokens need an issuer and an audience")
        if not 0 <= leeway_seconds <= LEEWAY_SECONDS_MAX:
            raise SecurityError(f"the leeway of tokens must be from 0 to {LEEWAY_SECONDS_MAX:g} seconds")
        if not 1 <= cached_tokens_max <= CACHED_TOKENS_MAX:
            raise SecurityError(f"the tokens remembered must be from 1 to {CACHED_TOKENS_MAX}")
        self._keys = keys
        self._signatures = jwt.PyJWS(keys.algorithms)  # knows no other algorithm
        self._issuer = issuer
        self._audience = audience
        self._leeway_seconds = leeway_seconds
        self._cached_tokens_max = cached_tokens_max
        self._now = now
        self._verified: OrderedDict[bytes, tuple[float, _Key, Caller]] = OrderedDict()

    @property
    def keys_age_seconds(self) -> float:
        """Time since the issuer's keys were last read with success."""
        return self._keys.age_seconds

    def opened(self) -> AbstractAsyncContextManager[None]:
        """Between these two points callers can be authenticated.

        Raises:
            SecurityError: The source of keys has none to give at the start.
        """
        return self._keys.opened()

    def authenticate(self, authorization: bytes | str | None) -> Caller:
        """The caller, from the value of the header `Authorization`, None without one.

        Raises:
            AuthenticationError: The token is missing, or not good.
        """
        token = _bearer_token(authorization)
        digest = hashlib.sha256(token).digest()  # not the token: memory dumps should hold none
        known = self._verified.get(digest)
        if known is not None:
            expires_at, key, caller = known
            if self._now() < expires_at and not key.withdrawn:
                return caller
        return self._verify(token, digest)

    def _verify(self, token: bytes, digest: bytes) -> Caller:
        key = self._key(_unverified_header(token))
        try:
            payload = self._signatures.decode(token, key.public, algorithms=key.algorithms)
        except jwt.InvalidSignatureError:
            raise AuthenticationError(Reason.WRONG_SIGNATURE) from None
        except jwt.PyJWTError:
            raise AuthenticationError(Reason.MALFORMED) from None
        claims = _json_object(payload)
        expires_at = self._check_times(claims)
        self._check_parties(claims)
        caller = _caller(claims)
        if self._now() < expires_at:  # else it lives on the leeway, and is verified each time
            self._remember(digest, (expires_at, key, caller))
        return caller

    def _key(self, header: dict[str, Any]) -> _Key:
        """The key that the header names by its id, and by nothing else."""
        if str(header.get("typ")).lower() not in _TYPES:
            raise AuthenticationError(Reason.WRONG_TYPE)
        if header.get("alg") not in self._keys.algorithms:
            raise AuthenticationError(Reason.WRONG_ALGORITHM)
        key_id = header.get("kid")
        if not isinstance(key_id, str) or "crit" in header:  # we understand no extension (RFC 7515, 4.1.11)
            raise AuthenticationError(Reason.MALFORMED)
        key = self._keys.find(key_id)
        if key is None:
            raise AuthenticationError(Reason.UNKNOWN_KEY)
        if header["alg"] not in key.algorithms:
            raise AuthenticationError(Reason.WRONG_ALGORITHM)
        return key

    def _check_times(self, claims: dict[str, Any]) -> float:
        now = self._now()
        expires_at = _time(claims, "exp")
        if expires_at <= now - self._leeway_seconds:
            raise AuthenticationError(Reason.EXPIRED)
        begins_at = max(_time(claims, "iat"), _time(claims, "nbf") if "nbf" in claims else -math.inf)
        if begins_at > now + self._leeway_seconds:
            raise AuthenticationError(Reason.NOT_YET_VALID)
        return expires_at

    def _check_parties(self, claims: dict[str, Any]) -> None:
        if claims.get("iss") != self._issuer:
            raise AuthenticationError(Reason.WRONG_ISSUER)
        audience = claims.get("aud")
        if self._audience not in (audience if isinstance(audience, list) else [audience]):
            raise AuthenticationError(Reason.WRONG_AUDIENCE)

    def _remember(self, digest: bytes, verified: tuple[float, _Key, Caller]) -> None:
        while len(self._verified) >= self._cached_tokens_max:
            self._verified.popitem(last=False)
        self._verified[digest] = verified


def _bearer_token(authorization: bytes | str | None) -> bytes:
    if isinstance(authorization, str):
        authorization = authorization.encode("ascii", "replace")  # by `?`, which is no part of a token
    if not authorization or authorization[: len(_SCHEME)].lower() != _SCHEME:
        raise AuthenticationError(Reason.MISSING)
    if len(authorization) > _AUTHORIZATION_BYTES_MAX:
        raise AuthenticationError(Reason.MALFORMED)
    return authorization[len(_SCHEME) :]


def _unverified_header(token: bytes) -> dict[str, Any]:
    if not _COMPACT.fullmatch(token):
        raise AuthenticationError(Reason.MALFORMED)
    segment = token.partition(b".")[0]
    try:
        header = base64.urlsafe_b64decode(segment + b"=" * (-len(segment) % 4))
    except ValueError:
        raise AuthenticationError(Reason.MALFORMED) from None
    return _json_object(header)


def _json_object(text: bytes) -> dict[str, Any]:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise AuthenticationError(Reason.MALFORMED)
    return document


def _time(claims: dict[str, Any], name: str) -> float:
    value = claims.get(name)
    # True is an int too, and no time; NaN and Infinity, which Python's JSON reads, are out of range.
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _TIME_MAX:
        raise AuthenticationError(Reason.WRONG_CLAIMS)
    return value


def _caller(claims: dict[str, Any]) -> Caller:
    scope = claims.get("scope", "")
    if not isinstance(scope, str):
        raise AuthenticationError(Reason.WRONG_CLAIMS)
    return Caller(
        client_id=_id(claims, "client_id", _CLIENT_ID),
        scopes=frozenset(Scope).intersection(scope.split(" ")),
        # A member's token whose account is garbled, null say, must not become one for all accounts.
        account_id=_id(claims, "account_id", _ACCOUNT_ID) if "account_id" in claims else None,
    )


def _id(claims: dict[str, Any], name: str, pattern: re.Pattern[str]) -> str:
    value = claims.get(name)
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise AuthenticationError(Reason.WRONG_CLAIMS)
    return value


def _check_length(content: bytes | bytearray) -> None:
    if len(content) > _SOURCE_BYTES_MAX:
        raise SecurityError(f"longer than {_SOURCE_BYTES_MAX} bytes")


def _usable_keys(content: bytes, algorithms: Iterable[str]) -> dict[str, _Key]:
    """The keys of a set that a token may be signed with; others are passed over (RFC 7517, 5)."""
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        document = None
    published = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(published, list) or len(published) > _SOURCE_KEYS_MAX:
        raise SecurityError(f"not a JSON Web Key Set of at most {_SOURCE_KEYS_MAX} keys")
    keys: dict[str, _Key] = {}
    for jwk in published:
        key = _usable_key(jwk, algorithms) if isinstance(jwk, dict) else None
        if key is None:
            continue
        if jwk["kid"] in keys:
            raise SecurityError("two keys have the same kid")
        keys[jwk["kid"]] = key
    if not keys:
        raise SecurityError("none is a public signature key with a kid for an accepted algorithm")
    return keys


def _usable_key(jwk: dict[str, Any], algorithms: Iterable[str]) -> _Key | None:
    kind, operations = (jwk.get("kty"), jwk.get("crv")), jwk.get("key_ops", ["verify"])
    fitting = tuple(each for each in algorithms if _KEY_TYPES[each] == kind and jwk.get("alg", each) == each)
    if (
        not fitting
        or not isinstance(jwk.get("kid"), str)
        or jwk.get("use", "sig") != "sig"
        or not isinstance(operations, list)
        or "verify" not in operations
        or "d" in jwk  # a private key that is published is nobody's any more
    ):
        return None
    try:
        public = jwt.PyJWK(jwk, fitting[0]).key
    except jwt.PyJWTError:
        return None
    if isinstance(public, RSAPublicKey) and public.key_size < _RSA_BITS_MIN:
        return None
    return _Key(fitting, public)
