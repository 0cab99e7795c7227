"""Finished log lines on their way to a file or pipe that may be slow, full or read by nobody."""

from __future__ import annotations

import fcntl
import os
import select
import stat
import termios
import time
from array import array
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue
from threading import Thread

MAX_LINES = 10_000
"""How many may wait: a few MB."""
FILE_CHUNK_BYTES = 65_536
PIPE_CHUNK_BYTES = 16_384
"""How much is written at once: into a pipe what fits, and where that is not sure, what the kernel keeps apart from the
lines of other processes."""
REST_S = 0.1
"""How long nothing is written after what could not be."""
END_S = 2.0
"""How long the end of a process waits for what is still to be written."""


class LineWriter:
    """Writes lines from a thread of its own, so that whoever logs never waits for the log.

    told: the line that says how many were dropped, given their number.
    `dropped` counts lines that found no room, or that could not be written.

    # Design: nobody takes a lock, as lines come from every thread, from signal handlers and just after a fork; so two
    threads may both take the last place, and two drops at the same moment may count as one.
    """

    def __init__(self, descriptor: int, told: Callable[[int], bytes], max_lines: int = MAX_LINES) -> None:
        self.dropped = 0
        self._descriptor = descriptor
        self._told = told
        self._said = 0
        self._is_torn = False
        self._max_lines = max_lines
        self._is_pipe = stat.S_ISFIFO(os.fstat(descriptor).st_mode)
        self._lines: SimpleQueue[bytes | None] = SimpleQueue()
        self._held: bytes | None = None
        self._is_open = True
        self._thread = Thread(target=self._run, name="log-writer", daemon=True)
        self._thread.start()

    def has_room(self) -> bool:
        """Whether a line would be taken; where not, it is counted as dropped, and need not be made."""
        if self._is_open and self._lines.qsize() < self._max_lines:
            return True
        self.dropped += 1
        return False

    def put(self, line: bytes) -> None:
        """Have a line written, its end included, if there is room."""
        if self.has_room():
            self._lines.put(line)

    def close(self, timeout_s: float = END_S) -> None:
        """Write what waits, as far as that goes in time."""
        if self._is_open:
            self._is_open = False
            self._lines.put(None)
            self._thread.join(timeout_s)

    def _run(self) -> None:
        more = True
        while more:
            lines, more = self._next()
            if lines and not self._write(b"".join(lines)):
                self.dropped += len(lines)
                if self._is_open:
                    time.sleep(REST_S)
            elif self.dropped != self._said:
                dropped = self.dropped
                if self._write(self._told(dropped - self._said)):
                    self._said = dropped

    def _next(self) -> tuple[list[bytes], bool]:
        """The lines that wait, as many as are written at once, and whether more may follow."""
        lines: list[bytes] = []
        size = 0
        line = self._held or self._lines.get()
        self._held = None
        most = self._chunk_bytes()
        while line is not None:
            size += len(line)
            if lines and size > most:
                self._held = line
                return lines, True
            lines.append(line)
            try:
                line = self._lines.get_nowait()
            except Empty:
                return lines, True
        return lines, False

    def _chunk_bytes(self) -> int:
        if not self._is_pipe:
            return FILE_CHUNK_BYTES
        waiting = array("i", [1])
        with suppress(OSError):
            fcntl.ioctl(self._descriptor, termios.FIONREAD, waiting)
        return select.PIPE_BUF if waiting[0] else PIPE_CHUNK_BYTES

    def _write(self, data: bytes) -> bool:
        """Whether all of it could be written."""
        # What follows a line that broke off must not be taken for its rest.
        rest = memoryview(b"\n" + data if self._is_torn else data)
        try:
            while rest:
                try:
                    written = os.write(self._descriptor, rest)
                except BlockingIOError:
                    waiting = select.poll()
                    waiting.register(self._descriptor, select.POLLOUT)
                    waiting.poll()
                    continue
                rest = rest[written:]
                self._is_torn = bool(rest)
        except (OSError, ValueError):
            return False
        return True
