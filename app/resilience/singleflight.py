"""Loading a thing once, however many want it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from contextvars import Context
from functools import partial
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class _Flight(Generic[Value]):
    """A load under way. task: held here, because the loop does not hold it.  waiters: in order of arrival."""

    __slots__ = ("task", "waiters")

    def __init__(self, task: asyncio.Task[Value]) -> None:
        self.task = task
        self.waiters: dict[asyncio.Future[Value], None] = {}


class SingleFlight(Generic[Key, Value]):
    """One load per key at a time; who asks meanwhile gets the answer of the load that is under way.

    A load belongs to nobody: it runs in a task and an empty context of its own and goes on when all who waited have
    left. So no deadline or cancellation of a caller reaches it, and it must bound itself, for example with a Deadline
    inside; a load without end would keep its key taken. It must not ask for its own key.
    Nothing is kept: the call after a load, or after its error, loads anew. Belongs to one event loop.
    """

    __slots__ = ("_flights",)

    def __init__(self) -> None:
        self._flights: dict[Key, _Flight[Value]] = {}

    @property
    def flying(self) -> int:
        """Loads under way."""
        return len(self._flights)

    async def run(self, key: Key, load: Callable[[], Awaitable[Value]]) -> Value:
        """The value of the load under way for the key, or else of this one.

        Raises what the load raised, the same object to all who wait; if the load was cancelled, so are they.
        """
        loop = asyncio.get_running_loop()
        flight = self._flights.get(key)
        if flight is None:
            # Contexts of their own: a load must not carry the trace or the deadline of whoever came first.
            flight = self._flights[key] = _Flight(loop.create_task(_loaded(load), context=Context()))
            flight.task.add_done_callback(partial(self._land, key), context=Context())
        # PERF: a future is all that a waiter costs; a task or a shield each would be several times that.
        waiter: asyncio.Future[Value] = loop.create_future()
        flight.waiters[waiter] = None
        try:
            return await waiter
        except asyncio.CancelledError:
            # A load that is slow to end must not collect everyone who gave it up.
            flight.waiters.pop(waiter, None)
            raise
        finally:
            # An error leads here by its traceback, and from here to itself: a circle that keeps all that it passed.
            del flight, waiter

    def _land(self, key: Key, task: asyncio.Task[Value]) -> None:
        """Hand the outcome of a load to all who still wait."""
        waiting = [waiter for waiter in self._flights.pop(key).waiters if not waiter.done()]
        if task.cancelled():
            for waiter in waiting:
                waiter.cancel()
        elif (error := task.exception()) is not None:
            for waiter in waiting:
                waiter.set_exception(error)
        else:
            value = task.result()
            for waiter in waiting:
                waiter.set_result(value)


async def _loaded(load: Callable[[], Awaitable[Value]]) -> Value:
    """Called inside the task, so that an error before the first await is an error of the load as well."""
    return await load()
