"""What can be typed as `kyb drain`."""

from __future__ import annotations

import click

_CODES = """\b
Exit codes:
  0    it drains, whether or not all connections are gone
  2    wrong usage
  3    settings refused
  4    no service of this user answers on the port, or it cannot be told
  70   a fault of kyb itself
  130  interrupted (Ctrl-C)
  141  the reader of the output went away"""


@click.command(epilog=_CODES)
@click.option("--config", metavar="FILE", help="Settings file (else CONFIG_FILE, else the defaults).")
@click.option("--host", metavar="ADDRESS", help="Address that the service listens on.")
@click.option("--port", metavar="NUMBER", help="Port that it listens on.")
@click.option("--wait", metavar="TIME", help="For the connections to go, such as 10s; DRAIN_TIME without it.")
def drain(config: str | None, host: str | None, port: str | None, wait: str | None) -> None:
    """Have the service of this machine or container send its callers elsewhere, before it is stopped.

    From then on /health/ready answers 503 and every answer ends its connection; everything is answered as before. It
    stays so until the service is stopped: SIGTERM then waits only for what is left of DRAIN_TIME.
    """
    from app.cli import draining

    draining.drain(config, {"server.host": host, "server.port": port}, wait)
