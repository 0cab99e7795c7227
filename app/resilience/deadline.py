"""Waiting no longer than is useful."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from contextvars import ContextVar
from typing import Any, TypeVar

Answer = TypeVar("Answer")

_nearest_end: ContextVar[float | None] = ContextVar("nearest_end", default=None)
"""The loop time at which the first of the waits around the caller ends."""

TURNS = 5
"""Of the event loop: an answer is read in the first, and then handed on from one task to the next."""


class DeadlineExceeded(Exception):
    """The answer did not come in time. timeout_s: how long it was waited for, in seconds."""

    def __init__(self, timeout_s: float) -> None:
        super().__init__(f"no answer within {timeout_s:g} s")
        self.timeout_s = timeout_s


def remaining_s() -> float | None:
    """Seconds left to the nearest deadline around the caller, never negative; None outside any.

    It travels with the context: tasks started within a wait see its end too, even after the wait is over.
    """
    end = _nearest_end.get()
    if end is None:
        return None
    return max(0.0, end - asyncio.get_running_loop().time())


class Deadline:
    """One deadline for many waits of the same kind, at most one in each task. Waits of different kinds may nest.
    Belongs to one event loop.

    told: whether what is waited for may ask by `remaining_s` when it ends; without that a wait costs less.

    # Design: all waits have the same timeout, so they stand in a line ordered by when they end, and one timer looks at
    the head of the line only. A wait costs a dict entry, not a timer. Where the loop itself is late, the answer may lie
    unread in a socket, since a loop looks at its timers first: so a wait ends a few turns after its time.
    """

    __slots__ = ("_late", "_loop", "_timer", "_told", "_waiting", "timeout_s")

    def __init__(self, timeout_s: float, *, told: bool = True) -> None:
        self.timeout_s = timeout_s
        self._told = told
        self._waiting: dict[asyncio.Task[Any], float] = {}
        self._late: set[asyncio.Task[Any]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.Handle | None = None

    async def run(self, awaitable: Awaitable[Answer]) -> Answer:
        """The awaitable's result, if it comes within timeout_s seconds; otherwise it is cancelled.

        Raises DeadlineExceeded; errors, and a cancellation from elsewhere or by a deadline further out, pass unchanged.
        """
        # PERF: before Python 3.12 asking for the running loop is a system call, a fifth of a wait.
        loop = self._loop
        if loop is None:
            loop = self._loop = asyncio.get_running_loop()
        task = asyncio.current_task(loop)
        assert task is not None
        if task in self._waiting:
            # Within itself a deadline adds nothing: the wait further out ends first.
            return await awaitable
        end = self._waiting[task] = loop.time() + self.timeout_s
        if self._timer is None:
            self._timer = loop.call_later(self.timeout_s, self._look)
        token = None
        if self._told:
            outer_end = _nearest_end.get()
            if outer_end is None or end < outer_end:
                token = _nearest_end.set(end)
        cancelled_before = task.cancelling()
        try:
            return await awaitable
        except asyncio.CancelledError:
            # Cancelled by more than this deadline, the task has to stop further out.
            if task in self._late and task.cancelling() <= cancelled_before + 1:
                raise DeadlineExceeded(self.timeout_s) from None
            raise
        finally:
            del self._waiting[task]
            if self._late and task in self._late:
                self._late.remove(task)
                task.uncancel()
            if token is not None:
                # Written out, since contextlib.suppress would cost more than the context variable itself.
                try:  # noqa: SIM105
                    _nearest_end.reset(token)
                except ValueError:
                    # Thrown away unfinished, from another context: the one the end stands in is gone too.
                    pass

    def _look(self) -> None:
        """Some wait may be late: first let what has come meanwhile be read, and get to whoever waits for it."""
        self._turn(TURNS)

    def _turn(self, left: int) -> None:
        if left:
            self._timer = asyncio.get_running_loop().call_soon(self._turn, left - 1)
        else:
            self._interrupt()

    def _interrupt(self) -> None:
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
