"""`slo console`: a local web page of all SLOs as they are now."""

from __future__ import annotations

import contextlib
import ipaddress
import re
import webbrowser
from typing import TYPE_CHECKING

import click

from cli.options import HELP

if TYPE_CHECKING:
    from cli.main import Workspace

_PORT_MAX = 65_535


def _listen(text: str) -> tuple[str, int]:
    """Where to listen: 8080, 127.0.0.1:8080, [::1]:8080, localhost:8080; port 0 is any that is free."""
    found = re.fullmatch(r"(?:(?:\[([0-9A-Fa-f:.]+)\]|([^:\s]+)):)?(\d{1,5})", text)
    address = (found[1] or found[2] or "127.0.0.1") if found else ""
    with contextlib.suppress(ValueError):
        if address != "localhost":
            ipaddress.ip_address(address)
        if found and int(found[3]) <= _PORT_MAX:
            return address, int(found[3])
    raise click.BadParameter(f"{text!r} is no place to listen; 8080, 127.0.0.1:8080 or [::1]:8080, say")


@click.command(
    context_settings=HELP,
    epilog="Credentials come from the environment: SLO_PROMETHEUS_BEARER_TOKEN and others, see docs.",
)
@click.option("--prometheus", "url", required=True, metavar="URL", help="Base URL; also of Thanos, Mimir or AMP.")
@click.option("--alertmanager", "alertmanager_url", metavar="URL", help="Says which alerts are silenced.")
@click.option(
    "--listen",
    type=_listen,
    default="127.0.0.1:0",
    show_default=True,
    metavar="[ADDRESS:]PORT",
    help="Where; port 0 is any that is free.",
)
@click.option(
    "--allow-others", is_flag=True, help="Listen where other machines reach it; they need not say who they are."
)
@click.option(
    "--host",
    "host_names",
    multiple=True,
    metavar="NAME",
    help="A name by which browsers may call it, besides localhost and addresses.",
)
@click.option("--open", "opening", is_flag=True, help="Open a browser.")
@click.pass_obj
def console(  # noqa: PLR0913 - what is asked for
    workspace: Workspace,
    *,
    url: str,
    alertmanager_url: str | None,
    listen: tuple[str, int],
    allow_others: bool,
    host_names: tuple[str, ...],
    opening: bool,
) -> None:
    """Serve a page of all SLOs: budgets, burn rates, charts, and the alerts that fire with their links.

    It only reads. Until Ctrl-C; exit codes: 0 ended so; 2 wrong usage, or the address is taken.
    """
    from cli.main import errors, fail, reporting_errors
    from review.connection import Connection
    from review.console.live import Source
    from review.console.server import ConsoleServer, is_loopback
    from review.console.site import Site
    from review.errors import ReviewError

    address, port = listen
    if not is_loopback(address) and not allow_others:
        raise click.UsageError(f"{address} can be reached from other machines; say --allow-others if that is meant")
    try:
        source = Source(Connection.from_environment(url), alertmanager_url)
    except ReviewError as error:
        fail(str(error))
    compiled = reporting_errors(lambda: workspace.compiled)()
    if not is_loopback(address):
        errors().print(
            f"[bold yellow]warning:[/] whoever reaches {address} may read all of this; nobody is asked who they are"
        )
    try:
        server = ConsoleServer(Site(compiled, source), address, port, host_names)
    except OSError as error:
        fail(f"{address}:{port}: {error.strerror or error}")
    with server, contextlib.suppress(KeyboardInterrupt):
        click.echo(f"{len(compiled)} SLOs at {server.url}, Ctrl-C ends it")
        if opening:
            webbrowser.open(server.url)
        server.serve_forever()
