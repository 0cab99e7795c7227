"""`kyb health`: whether the service of this container takes requests, for what watches it without an HTTP client."""

from __future__ import annotations

import click

from app.cli.exits import FAILED, FAULTS_FOUND, Stopped

_CODES = """\b
Exit codes:
  0    it takes requests; with --live, it runs
  2    wrong usage
  3    settings refused
  4    nobody answers, or not within 5 s
  5    it takes no requests: it starts, or was told to stop
  70   a fault of kyb itself
  130  interrupted (Ctrl-C)"""

WITHIN_S = 5.0


@click.command(epilog=_CODES)
@click.option("--live", is_flag=True, help="Ask only whether it runs: it does while it starts and while it stops, too.")
@click.option("--config", metavar="FILE", help="Settings file (else CONFIG_FILE, else the defaults).")
def health(live: bool, config: str | None) -> None:
    """Ask the service that runs here with these settings, at its HOST and PORT, whether requests should come to it."""
    from http.client import HTTPConnection, HTTPException

    from app.cli import setup

    server = setup.settings(config, {}).settings.server
    path = "/health/live" if live else "/health/ready"
    # To the address that stands for all of them, one connects to this machine.
    connection = HTTPConnection(server.host, server.port, timeout=WITHIN_S)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        told = answer.read().decode("utf-8", "replace")
    except (OSError, HTTPException) as error:
        raise Stopped(f"{server.url}{path}: {error or type(error).__name__}", FAILED) from None
    finally:
        connection.close()
    if answer.status != 200:
        raise Stopped(f"{server.url}{path}: {answer.status} {told}", FAULTS_FOUND)
    click.echo(told)
