"""Breaking something on purpose at a set time, and mending it: what a generator can do honestly.

It cannot reach into a database or a provider. It kills a worker that the service itself names, stops a process whose id
it is given, or runs the commands it is given; when those were done is what the report counts from.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress

from msgspec import Struct

from app.loadtest.judging import CALM_S, RECOVERY_S
from app.loadtest.service import Address, NotUsable
from app.ports import listens
from app.settings.kinds import Malformed, parse_duration

FAULTS = ("redis-down", "db-restart", "worker-kill", "provider-slow")
LASTS_S = 10.0
COMMAND_S = 120.0
"""How long a command may take."""

_SHAPE = re.compile(rf"({'|'.join(FAULTS)})(?:@([0-9a-z.]+))?(?:\+([0-9a-z.]+))?")


class FaultOrder(Struct, frozen=True):
    """What to break, when, and how.

    at_s: from the start of the scenario, None for a third of it.  lasts_s: until it is mended.
    command, restore: to run.  pid: of a process to be stopped (SIGSTOP) and to go on (SIGCONT) instead.
    """

    name: str
    at_s: float | None
    lasts_s: float
    command: str | None = None
    restore: str | None = None
    pid: int | None = None


def ordered(text: str, command: str | None, restore: str | None, pid: int | None) -> FaultOrder:
    """The fault of `NAME@TIME+DURATION`, such as redis-down@30s+10s. Raises NotUsable."""
    match = _SHAPE.fullmatch(text)
    try:
        at_s = parse_duration(match[2]) if match and match[2] else None
        lasts_s = parse_duration(match[3]) if match and match[3] else LASTS_S
    except Malformed:
        match = None
    if match is None:
        raise NotUsable(f"{text!r} is no fault; give {', '.join(FAULTS)}, with a time such as redis-down@30s+10s")
    name = match[1]
    if name == "worker-kill":
        if command is None and pid is None:
            lasts_s = 0.0
    elif command is None and pid is None:
        raise NotUsable(
            f"{name}: how? The generator cannot reach it by itself. Give --fault-command and --restore-command, such "
            "as 'systemctl stop redis', or --fault-pid, a process of this machine that is to stand still meanwhile"
        )
    if command is not None and restore is None and name != "worker-kill" and not match[3]:
        # Such as a restart: done when the command is.
        lasts_s = 0.0
    if pid is not None and not _exists(pid):
        raise NotUsable(f"there is no process {pid} that may be stopped")
    for given in (command, restore):
        try:
            shlex.split(given or "")
        except ValueError as error:
            raise NotUsable(f"the command {given!r} cannot be read: {error}") from None
    return FaultOrder(name, at_s, lasts_s, command, restore, pid)


class Breaking:
    """One fault of one scenario. `set_s` and `removed_s` are when it was done, from the start, None before.

    seconds: of the scenario.  Raises NotUsable where there is no time left to recover in.
    """

    def __init__(self, order: FaultOrder, address: Address, seconds: int) -> None:
        self.order = order
        self.set_s: float | None = None
        self.removed_s: float | None = None
        self.failed: str | None = None
        self._address = address
        self._at_s = seconds / 3 if order.at_s is None else order.at_s
        least = self._at_s + order.lasts_s + RECOVERY_S + CALM_S
        if seconds < least:
            raise NotUsable(
                f"{order.name}: the scenario takes {seconds} s, and {least:.0f} are needed to see whether the service "
                "recovers; give a longer --duration, or an earlier time for the fault"
            )
        if order.name == "worker-kill" and order.command is None and order.pid is None and not address.is_here:
            raise NotUsable("worker-kill needs the service on this machine, or a --fault-command")
        self._running: subprocess.Popen[bytes] | None = None
        self._until = 0.0
        self._then: Callable[[float], None] = self._was_set

    def turn(self, at_s: float) -> None:
        """Do what is due. at_s: from the start."""
        if self._running is not None:
            code = self._running.poll()
            if code is None and at_s < self._until:
                return
            if code is None:
                self._running.kill()
            if code != 0:
                self.failed = f"{shlex.join(map(str, self._running.args))} ended with {code}"  # type: ignore[arg-type]
            self._running = None
            self._then(at_s)
        elif self.set_s is None:
            if at_s >= self._at_s:
                self._set(at_s)
        elif self.removed_s is None and at_s >= self.set_s + self.order.lasts_s:
            self._remove(at_s)

    def end(self, at_s: float) -> None:
        """Mend what is still broken, whatever ended the scenario."""
        patience = time.monotonic() + COMMAND_S
        while self.set_s is not None or self._running is not None:
            if self.removed_s is not None or time.monotonic() > patience:
                return
            if self._running is None:
                self._remove(at_s)
            else:
                self.turn(at_s)
                time.sleep(0.05)

    def _set(self, at_s: float) -> None:
        if self.order.command is not None:
            self._run(self.order.command, at_s, self._was_set)
        elif self.order.pid is not None:
            self._signal(self.order.pid, signal.SIGSTOP)
            self._was_set(at_s)
        else:
            pid = worker(self._address)
            if pid is None:
                self.failed = "/health/detailed named no worker of this machine"
            else:
                self._signal(pid, signal.SIGKILL)
            self._was_set(at_s)

    def _remove(self, at_s: float) -> None:
        if self.order.restore is not None:
            self._run(self.order.restore, at_s, self._was_removed)
            return
        if self.order.pid is not None and self.order.command is None:
            self._signal(self.order.pid, signal.SIGCONT)
        self._was_removed(at_s)

    def _was_set(self, at_s: float) -> None:
        # A command is part of the fault from its beginning on.
        self.set_s = min(at_s, max(self._at_s, 0.0)) if self.order.command is not None else at_s

    def _was_removed(self, at_s: float) -> None:
        self.removed_s = at_s

    def _run(self, command: str, at_s: float, then: Callable[[float], None]) -> None:
        self._until, self._then = at_s + COMMAND_S, then
        try:
            self._running = subprocess.Popen(
                shlex.split(command), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
        except OSError as error:
            self.failed = f"{command}: {error.strerror or error}"
            then(at_s)

    def _signal(self, pid: int, number: signal.Signals) -> None:
        try:
            os.kill(pid, number)
        except OSError as error:
            self.failed = f"process {pid}: {error.strerror or error}"


def worker(address: Address) -> int | None:
    """The process id of the worker that answers, where it is a process of this machine."""
    with suppress(OSError, ValueError, KeyError):
        connection = address.connection(5.0)
        try:
            connection.request("GET", "/health/detailed", headers=address.headers)
            pid = int(json.loads(connection.getresponse().read())["process_id"])
        finally:
            connection.close()
        # Nothing else is ever killed.
        return pid if listens(pid, address.port) else None
    return None


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    return pid > 1
