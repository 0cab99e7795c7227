"""One at a time: two measurements of a process would measure each other."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Busy(Exception):
    """Another measurement is running. free_in_s: when it is expected to be over, in seconds."""

    def __init__(self, free_in_s: float) -> None:
        super().__init__(f"another measurement runs for {free_in_s:.1f} s more")
        self.free_in_s = free_in_s


class Turn:
    """Whose turn it is to measure this process."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._end: float | None = None

    @contextmanager
    def take(self, seconds: float) -> Iterator[None]:
        """Measure for about so long. Raises Busy."""
        if self._end is not None:
            raise Busy(max(self._end - self._clock(), 0.0))
        self._end = self._clock() + seconds
        try:
            yield
        finally:
            self._end = None


def whose() -> str:
    """The process that is measured: of several workers, and of several pods, it is the one that answers."""
    return f"process {os.getpid()} on {socket.gethostname()}"
