"""Where Prometheus is and who asks: from a URL and the environment.

Credentials come from the environment or from files that it names, never from the command line, where other users of
the machine can read them.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from review.errors import ReviewError
from review.sigv4 import AwsKeys, SigV4

_AMAZON_HOST = re.compile(r"aps-workspaces\.([a-z0-9-]+)\.amazonaws\.com(\.cn)?")
_HEADER = re.compile(r"([A-Za-z0-9-]+)\s*:\s*(.+)")
_TIMEOUT_SECONDS = 60.0
_TIMEOUT_SECONDS_MIN, _TIMEOUT_SECONDS_MAX = 0.001, 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """Where Prometheus is, and who asks.

    Attributes:
        url: Base URL, with a path before `/api/v1` where there is one.
        headers: Sent with each request: `X-Scope-OrgID` for Mimir, say.
        auth: Basic authentication or a signature; None without.
        ca_file: Who may sign the server's certificate; by default whoever the system trusts.
        timeout_seconds: How long one question may take.
    """

    url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    auth: httpx.Auth | None = field(default=None, repr=False)
    ca_file: Path | None = None
    timeout_seconds: float = _TIMEOUT_SECONDS

    @classmethod
    def from_environment(cls, url: str, environment: Mapping[str, str] = os.environ) -> Connection:
        """The connection that these variables describe, all optional.

        `SLO_PROMETHEUS_BEARER_TOKEN` or `..._BEARER_TOKEN_FILE`; `SLO_PROMETHEUS_USER` with `..._PASSWORD` or
        `..._PASSWORD_FILE`; `SLO_PROMETHEUS_HEADERS`, one `Name: value` a line; `SLO_PROMETHEUS_CA_FILE`;
        `SLO_PROMETHEUS_TIMEOUT_SECONDS`. `SLO_PROMETHEUS_AWS_REGION`, or the address of an Amazon workspace, asks for
        signatures by `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY` and `AWS_SESSION_TOKEN`.

        Raises:
            ReviewError: The URL or a variable is wrong, or a file cannot be read.
        """
        host = _host(url)
        given = _Variables(environment)
        headers = given.headers()
        amazon = _AMAZON_HOST.fullmatch(host)
        region = given.text("AWS_REGION") or (amazon[1] if amazon else None)
        token, user = given.secret("BEARER_TOKEN"), given.text("USER")
        ways = {"a bearer token": token, "a user": user, "AWS signatures": region}
        chosen = [name for name, value in ways.items() if value]
        if len(chosen) > 1:
            raise ReviewError(f"{url}: the environment asks for {' and '.join(chosen)}; one way to prove who asks")
        auth: httpx.Auth | None = None
        if token:
            headers["Authorization"] = f"Bearer {token}"
        elif user:
            auth = httpx.BasicAuth(user, given.secret("PASSWORD") or "")
        elif region:
            auth = SigV4(_aws_keys(url, environment), region)
        ca_file = given.text("CA_FILE")
        return cls(
            url=url.rstrip("/"),
            headers=headers,
            auth=auth,
            ca_file=Path(ca_file) if ca_file else None,
            timeout_seconds=given.seconds("TIMEOUT_SECONDS", _TIMEOUT_SECONDS),
        )


@dataclass(frozen=True, slots=True)
class _Variables:
    """The variables `SLO_PROMETHEUS_*`."""

    environment: Mapping[str, str]

    def text(self, name: str) -> str | None:
        return self.environment.get(f"SLO_PROMETHEUS_{name}", "").strip() or None

    def secret(self, name: str) -> str | None:
        file = self.text(f"{name}_FILE")
        if not file:
            return self.text(name)
        try:
            return Path(file).read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ReviewError(f"SLO_PROMETHEUS_{name}_FILE: {file}: {error}") from error

    def seconds(self, name: str, default: float) -> float:
        text = self.text(name)
        with contextlib.suppress(ValueError):
            value = float(text) if text else default
            if _TIMEOUT_SECONDS_MIN <= value <= _TIMEOUT_SECONDS_MAX:
                return value
        raise ReviewError(f"SLO_PROMETHEUS_{name} is {text!r}; use a number of seconds up to {_TIMEOUT_SECONDS_MAX:g}")

    def headers(self) -> dict[str, str]:
        headers = {}
        for line in (self.text("HEADERS") or "").splitlines():
            found = _HEADER.fullmatch(line.strip())
            if not found:
                raise ReviewError("SLO_PROMETHEUS_HEADERS: one header a line is allowed, 'X-Scope-OrgID: loyalty' say")
            headers[found[1]] = found[2].strip()
        return headers


def _host(url: str) -> str:
    try:
        parsed = httpx.URL(url)
    except (httpx.InvalidURL, ValueError) as error:
        raise ReviewError(f"{url}: is no URL ({error})") from error
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise ReviewError(f"{url}: must be an http or https URL, http://localhost:9090 say")
    if parsed.userinfo:
        # It would be in every report and in the shell's history.
        bare = f"{parsed.scheme}://{parsed.host}"
        raise ReviewError(f"{bare}: holds a password; use SLO_PROMETHEUS_USER and SLO_PROMETHEUS_PASSWORD")
    if parsed.query or parsed.fragment:
        raise ReviewError(f"{url}: ends in a query or fragment; give the base URL, to which /api/v1 is added")
    return parsed.host


def _aws_keys(url: str, environment: Mapping[str, str]) -> AwsKeys:
    access, secret = environment.get("AWS_ACCESS_KEY_ID"), environment.get("AWS_SECRET_ACCESS_KEY")
    if not access or not secret:
        raise ReviewError(
            f"{url}: requests must be signed, but AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are not set; "
            'a role\'s are set by: eval "$(aws configure export-credentials --format env)"'
        )
    return AwsKeys(access, secret, environment.get("AWS_SESSION_TOKEN") or None)
