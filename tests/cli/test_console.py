"""`slo console`: what it is told, and what it says."""

from __future__ import annotations

import socket

import pytest
from click.testing import CliRunner, Result

from cli.console import console
from cli.main import Workspace
from review.console.server import ConsoleServer
from slo import compile_slo
from slo.definitions import redemption

PROMETHEUS = ("--prometheus", "http://127.0.0.1:9")


def run(*arguments: str) -> Result:
    """Run the command on one SLO."""
    workspace = Workspace(None)
    workspace.__dict__["compiled"] = (compile_slo(redemption.availability),)
    return CliRunner().invoke(console, arguments, obj=workspace)


@pytest.fixture
def ended_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C as soon as it serves."""

    def interrupted(_: ConsoleServer) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(ConsoleServer, "serve_forever", interrupted)


@pytest.mark.usefixtures("ended_at_once")
@pytest.mark.parametrize(
    ("listen", "url"), [("127.0.0.1:0", "http://127.0.0.1:"), ("0", "http://127.0.0.1:"), ("localhost:0", "http://loc")]
)
def test_it_says_where_it_is(listen: str, url: str) -> None:
    """On loopback, without a warning; Ctrl-C is the way to end it."""
    told = run(*PROMETHEUS, "--listen", listen)
    assert told.exit_code == 0, told.output
    assert f"1 SLOs at {url}" in told.stdout
    assert told.stderr == ""


@pytest.mark.usefixtures("ended_at_once")
def test_others_reach_it_only_when_that_is_said() -> None:
    """Exit code 2 without the flag, and a warning with it."""
    refused = run(*PROMETHEUS, "--listen", "0.0.0.0:0")
    assert refused.exit_code == 2
    assert "say --allow-others" in refused.stderr
    told = run(*PROMETHEUS, "--listen", "0.0.0.0:0", "--allow-others")
    assert told.exit_code == 0
    assert "warning: whoever reaches 0.0.0.0" in told.stderr


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        ((), "Missing option '--prometheus'"),
        (("--prometheus", "prometheus:9090"), "must be an http or https URL"),
        ((*PROMETHEUS, "--alertmanager", "nowhere"), "must be an http or https URL"),
        ((*PROMETHEUS, "--listen", "here"), "is no place to listen"),
        ((*PROMETHEUS, "--listen", "example.com:80"), "is no place to listen"),
        ((*PROMETHEUS, "--listen", "65536"), "is no place to listen"),
    ],
)
def test_wrong_usage_is_told(arguments: tuple[str, ...], fault: str) -> None:
    """Exit code 2, one clear line."""
    told = run(*arguments)
    assert told.exit_code == 2
    assert fault in told.stderr


def test_an_address_that_is_taken_is_told() -> None:
    """Exit code 2, with the address."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        told = run(*PROMETHEUS, "--listen", str(port))
    assert told.exit_code == 2
    assert f"127.0.0.1:{port}: " in told.stderr
    assert "in use" in told.stderr
