"""Signed requests for Amazon Managed Service for Prometheus: AWS Signature Version 4 as an `httpx.Auth`.

Signing takes a few lines over hashes, so this room needs no SDK for it (boto3 stays at the AWS edges). Keys come from
the environment; roles get there by `aws configure export-credentials --format env`.
https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from urllib.parse import parse_qsl, quote

import httpx

SERVICE = "aps"
_ALGORITHM = "AWS4-HMAC-SHA256"


@dataclass(frozen=True, slots=True)
class AwsKeys:
    """Who signs.

    Attributes:
        access_key: Its id, `AKIA...`.
        secret_key: Its secret.
        session_token: That of a temporary key, else None.
    """

    access_key: str
    secret_key: str = field(repr=False)
    session_token: str | None = field(default=None, repr=False)


def _now() -> datetime:
    return datetime.now(UTC)


class SigV4(httpx.Auth):
    """Signs every request of a client.

    Args:
        keys: Who signs.
        region: The region of the workspace.
        service: The service's name in signatures.
        now: The clock.
    """

    requires_request_body = True

    def __init__(self, keys: AwsKeys, region: str, service: str = SERVICE, now: Callable[[], datetime] = _now) -> None:
        self._keys = keys
        self._region = region
        self._service = service
        self._now = now

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Add the headers that prove who asks."""
        at = self._now().strftime("%Y%m%dT%H%M%SZ")
        signed = {"host": request.url.netloc.decode(), "x-amz-date": at}
        if "content-type" in request.headers:
            signed["content-type"] = request.headers["content-type"]
        if self._keys.session_token:
            signed["x-amz-security-token"] = self._keys.session_token
        for name in signed.keys() - {"host", "content-type"}:
            request.headers[name] = signed[name]
        request.headers["authorization"] = self._authorization(request, signed, at)
        yield request

    def _authorization(self, request: httpx.Request, signed: Mapping[str, str], at: str) -> str:
        names = sorted(signed)
        canonical = "\n".join(
            [
                request.method,
                # Each part of the path is encoded once more than in the URL, as all services but S3 ask for.
                quote(request.url.raw_path.partition(b"?")[0].decode(), safe="/-_.~"),
                _canonical_query(request.url.query.decode()),
                *(f"{name}:{' '.join(signed[name].split())}" for name in names),
                "",
                ";".join(names),
                hashlib.sha256(request.content).hexdigest(),
            ]
        )
        scope = f"{at[:8]}/{self._region}/{self._service}/aws4_request"
        to_sign = "\n".join([_ALGORITHM, at, scope, hashlib.sha256(canonical.encode()).hexdigest()])
        key = f"AWS4{self._keys.secret_key}".encode()
        for part in (*scope.split("/"), to_sign):
            key = hmac.new(key, part.encode(), hashlib.sha256).digest()
        credential = f"Credential={self._keys.access_key}/{scope}"
        return f"{_ALGORITHM} {credential}, SignedHeaders={';'.join(names)}, Signature={key.hex()}"


def _canonical_query(query: str) -> str:
    pairs = parse_qsl(query, keep_blank_values=True)
    encoded = sorted((quote(name, safe="-_.~"), quote(value, safe="-_.~")) for name, value in pairs)
    return "&".join(f"{name}={value}" for name, value in encoded)
