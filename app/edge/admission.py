"""How many requests are worked on at once, who waits for a place, and who is told to come back."""

from __future__ import annotations

import asyncio
from asyncio import Future
from collections import deque
from typing import Final

from app.errors import Saturated

READ: Final = 0
WRITE: Final = 1
BATCH: Final = 2


class Admission:
    """At most `places` requests of a worker are worked on at once; behind them a queue bounded by number and by age.

    A place that comes free goes to the most urgent kind (READ, WRITE, BATCH), within a kind to whoever came first.
    max_queue: how many may wait, of all kinds together; where it is full, the youngest of the least urgent kind makes
    way for one more urgent.  max_wait_s: how long each may wait.
    `in_flight`, `waiting`, `refused`: for who watches.  Belongs to one event loop.

    # Design: a request that finds a place costs an addition and a comparison. All wait equally long, so each kind's
    # queue is ordered by when the waits end, and one timer looks at its heads.
    """

    __slots__ = ("_max_queue", "_max_wait_s", "_places", "_queues", "_timer", "in_flight", "refused", "waiting")

    def __init__(self, places: int, max_queue: int, max_wait_s: float) -> None:
        self._places = places
        self._max_queue = max_queue
        self._max_wait_s = max_wait_s
        self._queues: tuple[deque[tuple[float, Future[None]]], ...] = (deque(), deque(), deque())
        self._timer: asyncio.TimerHandle | None = None
        self.in_flight = 0
        self.waiting = 0
        self.refused = 0

    def enter(self, kind: int) -> Future[None] | None:
        """Take a place: None where there was one, else what `wait` waits for. Either way `leave` gives it back.

        Raises Saturated where even the queue is full.
        """
        if self.in_flight < self._places:
            self.in_flight += 1
            return None
        if self.waiting >= self._max_queue and not self._make_way(kind):
            self.refused += 1
            raise Saturated
        loop = asyncio.get_running_loop()
        future: Future[None] = loop.create_future()
        self._queues[kind].append((loop.time() + self._max_wait_s, future))
        self.waiting += 1
        if self._timer is None:
            self._timer = loop.call_later(self._max_wait_s, self._look)
        return future

    async def wait(self, place: Future[None]) -> None:
        """Until the place is ours. Raises Saturated when that takes too long; then there is nothing to give back."""
        try:
            await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled() and place.exception() is None:
                self.leave()
            raise

    def leave(self) -> None:
        """Give the place to the next who waits."""
        for queue in self._queues:
            while queue:
                _, future = queue.popleft()
                self.waiting -= 1
                if not future.done():
                    future.set_result(None)
                    return
        self.in_flight -= 1

    def _make_way(self, kind: int) -> bool:
        for queue in reversed(self._queues[kind + 1 :]):
            while queue:
                _, future = queue.pop()
                self.waiting -= 1
                if not future.done():
                    self._refuse(future)
                return True
        return False

    def _look(self) -> None:
        """Refuse those who waited too long, and come back for the next."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        ends = []
        for queue in self._queues:
            while queue and (queue[0][0] <= now or queue[0][1].done()):
                _, future = queue.popleft()
                self.waiting -= 1
                if not future.done():
                    self._refuse(future)
            if queue:
                ends.append(queue[0][0])
        self._timer = loop.call_at(min(ends), self._look) if ends else None

    def _refuse(self, future: Future[None]) -> None:
        self.refused += 1
        future.set_exception(Saturated())
