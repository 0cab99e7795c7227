"""`kyb drain`: the service of this machine or container sends its callers elsewhere before it is stopped."""

from __future__ import annotations

import http.client
import os
import time
from collections.abc import Mapping
from contextlib import closing, suppress

import msgspec

from app import ports, wire
from app.cli import setup
from app.cli.exits import FAILED, Stopped, reason
from app.cli.output import Output
from app.edge.stopping import DRAIN
from app.settings.kinds import Malformed
from app.settings.tree import DRAIN_TIME, Server

ANSWER_S = 5.0
"""How long one answer is waited for, and the beginning of the drain."""
TURN_S = 0.05
ASKED_AT = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104
"""Where one that listens on all addresses is asked."""


def drain(config: str | None, overrides: Mapping[str, str | None], wait: str | None) -> None:
    """Tell every worker to drain, and wait until no connection is left or the time is over."""
    server = setup.settings(config, overrides).settings.server
    try:
        wait_s = server.drain_time if wait is None else DRAIN_TIME.parse(wait)
    except Malformed as error:
        raise Stopped(f"--wait: {error}; give {DRAIN_TIME.right}") from None
    begun = time.monotonic()
    _status(server)
    _tell(server)
    while _status(server) != "draining":
        if time.monotonic() > begun + ANSWER_S:
            raise Stopped(f"the service on port {server.port} was told to drain, and does not", FAILED)
        time.sleep(TURN_S)
    while (left := ports.connected(server.port)) and time.monotonic() < begun + wait_s:
        time.sleep(TURN_S)
    count = {0: "no connection is", 1: "one connection is"}.get(left, f"{left} connections are")
    with Output() as out:
        out.write(f"{server.url} drains; {count} left after {time.monotonic() - begun:.1f} s\n")


def _status(server: Server) -> str:
    """What the service says of itself."""
    host = ASKED_AT.get(server.host, server.host)
    try:
        with closing(http.client.HTTPConnection(host, server.port, timeout=ANSWER_S)) as connection:
            connection.request("GET", "/health", headers={"Connection": "close"})
            return msgspec.json.decode(connection.getresponse().read(), type=wire.Health).status
    except OSError as error:
        raise Stopped(f"nobody answers on {host}:{server.port}: {reason(error)}", FAILED) from None
    except (http.client.HTTPException, msgspec.MsgspecError, UnicodeDecodeError):
        raise Stopped(f"what answers on {host}:{server.port} is not this service", FAILED) from None


def _tell(server: Server) -> None:
    """Send the signal to all that listen where the service does. It would end a process that does not wait for it."""
    workers = [pid for pid in ports.listeners(server.host, server.port) if _catches(pid, DRAIN)]
    if not workers:
        raise Stopped(
            f"no process that listens on port {server.port} can be told to drain: "
            "do it as the user of the service, in its container",
            FAILED,
        )
    for pid in workers:
        try:
            os.kill(pid, DRAIN)
        except OSError as error:
            raise Stopped(f"process {pid} cannot be told to drain: {reason(error)}", FAILED) from None


def _catches(pid: int, number: int) -> bool:
    """Whether a process has a handler for a signal. Source: proc(5), /proc/PID/status."""
    with suppress(OSError), open(f"/proc/{pid}/status", encoding="utf-8") as lines:
        for line in lines:
            name, _, value = line.partition(":")
            if name == "SigCgt":
                return bool(int(value, 16) >> (number - 1) & 1)
    return False
