"""Signatures that Amazon accepts: AWS's published examples, and what its own library signs."""

from __future__ import annotations

from datetime import UTC, datetime

import httpx
import pytest
from botocore.auth import SigV4Auth  # type: ignore[import-untyped]
from botocore.awsrequest import AWSRequest  # type: ignore[import-untyped]
from botocore.credentials import Credentials  # type: ignore[import-untyped]

from review.sigv4 import AwsKeys, SigV4

KEYS = AwsKeys("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY")
AT = datetime(2015, 8, 30, 12, 36, tzinfo=UTC)


def signed(request: httpx.Request, keys: AwsKeys = KEYS, region: str = "us-east-1", service: str = "service") -> str:
    """The header that proves who asks."""
    flow = SigV4(keys, region, service, now=lambda: AT).sync_auth_flow(request)
    return next(flow).headers["authorization"]


@pytest.mark.parametrize(
    ("request_", "signature"),
    [
        # https://docs.aws.amazon.com/general/latest/gr/signature-v4-test-suite.html
        pytest.param(
            httpx.Request("GET", "https://example.amazonaws.com/"),
            "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31",
            id="get-vanilla",
        ),
        pytest.param(
            httpx.Request("GET", "https://example.amazonaws.com/?Param2=value2&Param1=value1"),
            "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500",
            id="get-vanilla-query-order-key-case",
        ),
        pytest.param(
            httpx.Request(
                "POST",
                "https://example.amazonaws.com/",
                headers={"content-type": "application/x-www-form-urlencoded"},
                content=b"Param1=value1",
            ),
            "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a",
            id="post-x-www-form-urlencoded",
        ),
    ],
)
def test_aws_examples(request_: httpx.Request, signature: str) -> None:
    """The signatures of AWS's own test suite."""
    assert signed(request_).endswith(f"Signature={signature}")


@pytest.mark.parametrize("token", [None, "a/long+token=="])
@pytest.mark.parametrize(
    "url",
    [
        "https://aps-workspaces.eu-central-1.amazonaws.com/workspaces/ws-1/api/v1/query",
        "https://h.example:8443/a%20b/c?x=1&empty=&y=%2F",
    ],
)
def test_as_botocore_signs(monkeypatch: pytest.MonkeyPatch, url: str, token: str | None) -> None:
    """The same header as AWS's library makes of a query in a form, with and without a temporary key's token."""
    request = httpx.Request("POST", url, data={"query": 'sum(rate(x{a="b c"}[5m]))', "time": "1.5"})
    theirs = AWSRequest("POST", url, data=request.content, headers={"content-type": request.headers["content-type"]})
    monkeypatch.setattr("botocore.auth.get_current_datetime", lambda: AT.replace(tzinfo=None))
    SigV4Auth(Credentials(KEYS.access_key, KEYS.secret_key, token), "aps", "eu-central-1").add_auth(theirs)
    keys = AwsKeys(KEYS.access_key, KEYS.secret_key, token)
    assert signed(request, keys, "eu-central-1", "aps") == theirs.headers["Authorization"]


def test_secrets_stay_out_of_texts() -> None:
    """A key in a log or a traceback would be lost."""
    assert "wJalr" not in repr(KEYS)
