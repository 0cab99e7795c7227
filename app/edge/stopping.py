"""How a worker ends: it is drained while it goes on answering, and then the server is stopped.

| signal | does |
|---|---|
| SIGUSR1 | drains, and goes on so until it is told to stop |
| SIGTERM | drains for the time that is set, counted from the drain's beginning, and stops |
| SIGINT | stops at once |
"""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import FrameType

from app.telemetry.log import event

log = logging.getLogger(__name__)

DRAIN = signal.SIGUSR1
MARK = "draining"
"""A file in the folder that the workers of a pod share, where one drains: so does another that is just starting."""


def mark(folder: Path) -> None:
    """Have workers drain that start from now on. Where the folder takes no file, they do not."""
    with suppress(OSError):
        (folder / MARK).touch()


class Stopping:
    """Hears the signals in the place of the server, which takes no connection any more once it hears SIGTERM itself.

    drain_s: for how long requests are still taken once SIGTERM has come: those who send them have to notice first.
    drain: called once, when that begins.  stop: called once, when the server is told to stop; `drain` was before.
    folder: that the workers of the pod share, None where there is one.
    """

    def __init__(
        self, drain_s: float, drain: Callable[[], None], stop: Callable[[], None], folder: Path | None = None
    ) -> None:
        self._drain_s = drain_s
        self._folder = folder
        self._on_drain = drain
        self._on_stop = stop
        self._drained_at: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._stopped = False

    def hear(self) -> None:
        """Begin to hear on this event loop; nothing where no server does yet, since nobody would stop the process.

        # Design: an event loop is told of signals through its wake-up descriptor (`signal.set_wakeup_fd`) while it
        # runs, and not between a server's start and its serving. A Python handler hears at any time, and the loop's own
        # may stand beside it: SIGINT stays the server's, which `_stop` has told again.
        """
        if threading.current_thread() is not threading.main_thread():
            return
        before = signal.getsignal(signal.SIGINT)
        if not callable(before) or before is signal.default_int_handler:
            return
        loop = asyncio.get_running_loop()
        for number, call in ((signal.SIGINT, self._stop), (signal.SIGTERM, self._terminate), (DRAIN, self._drain_all)):
            if number != signal.SIGINT:
                loop.add_signal_handler(number, _nothing)

            def heard(number: int, frame: FrameType | None, call: Callable[[], None] = call) -> None:
                loop.call_soon_threadsafe(call)

            signal.signal(number, heard)
            signal.siginterrupt(number, False)
        if self._folder is not None and (self._folder / MARK).exists():
            self._drain()

    def _drain_all(self) -> None:
        if self._folder is not None:
            mark(self._folder)
        self._drain()

    def _drain(self) -> None:
        if self._drained_at is None:
            self._drained_at = asyncio.get_running_loop().time()
            log.info("drains: answers, and closes connections", extra=event("draining"))
            self._on_drain()

    def _terminate(self) -> None:
        """A service manager may tell every process, and the parent tells each worker again: only the first counts."""
        self._drain()
        if self._timer is None:
            assert self._drained_at is not None
            self._timer = asyncio.get_running_loop().call_at(self._drained_at + self._drain_s, self._stop)

    def _stop(self) -> None:
        if not self._stopped:
            self._stopped = True
            self._drain()
            self._on_stop()
            signal.raise_signal(signal.SIGINT)


def _nothing() -> None:
    """What the event loop itself does at a signal that another handler hears."""
