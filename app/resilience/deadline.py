"""Waiting no longer than is useful."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any, TypeVar

Answer = TypeVar("Answer")


class DeadlineExceeded(Exception):
    """The answer did not come in time. timeout_s: how long it was waited for, in seconds."""

    def __init__(self, timeout_s: float) -> None:
        super().__init__(f"no answer within {timeout_s:g} s")
        self.timeout_s = timeout_s


class Deadline:
    """One deadline for many waits of the same kind, each in a task of its own.

    # Design: all waits have the same timeout, so they stand in a line ordered by when they end, and one timer looks at
    the head of the line only. A wait costs a dict entry, not a timer.
    """

    __slots__ = ("_late", "_timer", "_waiting", "timeout_s")

    def __init__(self, timeout_s: float) -> None:
        self.timeout_s = timeout_s
        self._waiting: dict[asyncio.Task[Any], float] = {}
        self._late: set[asyncio.Task[Any]] = set()
        self._timer: asyncio.TimerHandle | None = None

    async def run(self, awaitable: Awaitable[Answer]) -> Answer:
        """The awaitable's result, if it comes within timeout_s seconds; otherwise it is cancelled.

        Raises DeadlineExceeded; errors, and a cancellation from elsewhere, pass unchanged.
        """
        loop = asyncio.get_running_loop()
        task = asyncio.current_task(loop)
        assert task is not None
        assert task not in self._waiting
        self._waiting[task] = loop.time() + self.timeout_s
        if self._timer is None:
            self._timer = loop.call_later(self.timeout_s, self._look)
        try:
            return await awaitable
        except asyncio.CancelledError:
            if task in self._late and task.uncancel() == 0:
                raise DeadlineExceeded(self.timeout_s) from None
            raise
        finally:
            del self._waiting[task]
            self._late.discard(task)

    def _look(self) -> None:
        """Interrupt every wait that is late, and come back when the next one could be."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        self._timer = None
        for task, end in self._waiting.items():
            if end > now:
                self._timer = loop.call_at(end, self._look)
                return
            if task not in self._late:
                self._late.add(task)
                task.cancel()
