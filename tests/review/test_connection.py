"""Where Prometheus is and who asks, from the environment."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from review.connection import Connection
from review.errors import ReviewError
from review.sigv4 import SigV4

URL = "https://mimir.example/prometheus/"
AMAZON = "https://aps-workspaces.eu-central-1.amazonaws.com/workspaces/ws-1"
KEYS = {"AWS_ACCESS_KEY_ID": "AKID", "AWS_SECRET_ACCESS_KEY": "secret"}


def test_without_variables_nobody_is_named() -> None:
    """The path before /api/v1 is kept, a slash at its end is not."""
    made = Connection.from_environment(URL, {})
    assert (made.url, made.headers, made.auth) == ("https://mimir.example/prometheus", {}, None)


def test_a_token_comes_from_a_variable_or_a_file(tmp_path: Path) -> None:
    """A file may end in a newline, as files do."""
    file = tmp_path / "token"
    file.write_text("abc\n")
    for variables in ({"SLO_PROMETHEUS_BEARER_TOKEN": "abc"}, {"SLO_PROMETHEUS_BEARER_TOKEN_FILE": str(file)}):
        assert Connection.from_environment(URL, variables).headers == {"Authorization": "Bearer abc"}


def test_a_user_has_a_password() -> None:
    """Basic authentication."""
    variables = {"SLO_PROMETHEUS_USER": "me", "SLO_PROMETHEUS_PASSWORD": "pw"}
    assert isinstance(Connection.from_environment(URL, variables).auth, httpx.BasicAuth)


def test_headers_are_lines() -> None:
    """A tenant of Mimir, and another."""
    made = Connection.from_environment(URL, {"SLO_PROMETHEUS_HEADERS": "X-Scope-OrgID: loyalty\n X-Other:1 "})
    assert made.headers == {"X-Scope-OrgID": "loyalty", "X-Other": "1"}


def test_amazon_is_asked_with_signatures() -> None:
    """By its address, or because a region is given for a name of one's own."""
    assert isinstance(Connection.from_environment(AMAZON, KEYS).auth, SigV4)
    named = {**KEYS, "SLO_PROMETHEUS_AWS_REGION": "eu-central-1"}
    assert isinstance(Connection.from_environment(URL, named).auth, SigV4)


@pytest.mark.parametrize(
    ("url", "variables", "fault"),
    [
        ("localhost:9090", {}, "must be an http or https URL"),
        ("ftp://h", {}, "must be an http or https URL"),
        ("http://", {}, "must be an http or https URL"),
        ("https://me:secret@h", {}, "https://h: holds a password"),
        ("https://h/?a=1", {}, "ends in a query"),
        (AMAZON, {}, "AWS_SECRET_ACCESS_KEY are not set"),
        (URL, {"SLO_PROMETHEUS_HEADERS": "nonsense"}, "one header a line"),
        (URL, {"SLO_PROMETHEUS_TIMEOUT_SECONDS": "soon"}, "must be|use a number"),
        (URL, {"SLO_PROMETHEUS_TIMEOUT_SECONDS": "0"}, "use a number"),
        (URL, {"SLO_PROMETHEUS_BEARER_TOKEN_FILE": "/no/such"}, "SLO_PROMETHEUS_BEARER_TOKEN_FILE: /no/such"),
        (URL, {"SLO_PROMETHEUS_BEARER_TOKEN": "a", "SLO_PROMETHEUS_USER": "b"}, "one way to prove"),
    ],
)
def test_what_is_wrong_is_named(url: str, variables: dict[str, str], fault: str) -> None:
    """Never with the secret in it."""
    with pytest.raises(ReviewError, match=fault) as error:
        Connection.from_environment(url, variables)
    assert "secret" not in str(error.value)


def test_secrets_stay_out_of_texts() -> None:
    """A connection in a log names the URL alone."""
    made = Connection.from_environment(URL, {"SLO_PROMETHEUS_BEARER_TOKEN": "abc"})
    assert "abc" not in repr(made)
