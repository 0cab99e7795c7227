"""How many requests are worked on at once, who waits for a place, and who is told to come back."""

from __future__ import annotations

import asyncio
from asyncio import Future
from collections import OrderedDict
from typing import Final

from app.errors import Saturated

READ: Final = 0
WRITE: Final = 1
BATCH: Final = 2

REFUSED_A_TURN: Final = 500
"""How many are told at once that they waited long enough, so that the first get their answers before the last."""


class Admission:
    """At most `places` requests of a worker are worked on at once; behind them a queue bounded by number and by age.

    A place that comes free goes to the most urgent kind (READ, WRITE, BATCH), within a kind to whoever came first.
    Where the urgent alone are too many the others get no place, and each is told so when it has waited long enough.
    max_queue: how many may wait, of all kinds together; where it is full, the youngest of the least urgent kind makes
    way for one more urgent.  max_wait_s: how long each may wait.
    `in_flight`, `waiting`, `refused`: for who watches.  Belongs to one event loop.

    # Design: a request that finds a place costs an addition and a comparison. All wait equally long, so each kind's
    # queue is ordered by when the waits end, and one timer looks at its heads. A free place and a waiter never stand
    # side by side: places pass from hand to hand.
    """

    __slots__ = ("_max_queue", "_max_wait_s", "_places", "_queues", "_timer", "in_flight", "refused", "waiting")

    def __init__(self, places: int, max_queue: int, max_wait_s: float) -> None:
        self._places = places
        self._max_queue = max_queue
        self._max_wait_s = max_wait_s
        # Each with the loop's time at which its wait ends. A future's answer: whether it was given a place.
        self._queues: tuple[OrderedDict[Future[bool], float], ...] = (OrderedDict(), OrderedDict(), OrderedDict())
        self._timer: asyncio.TimerHandle | None = None
        self.in_flight = 0
        self.waiting = 0
        self.refused = 0

    def enter(self, kind: int) -> Future[bool] | None:
        """Take a place: None where there was one, else what `wait` waits for. Either way `leave` gives it back.

        Raises Saturated where even the queue is full.
        """
        if self.in_flight < self._places:
            self.in_flight += 1
            return None
        if self.waiting >= self._max_queue and not self._make_way(kind):
            self.refused += 1
            raise Saturated("queue_full")
        loop = asyncio.get_running_loop()
        end = loop.time() + self._max_wait_s
        place: Future[bool] = loop.create_future()
        self._queues[kind][place] = end
        self.waiting += 1
        if self._timer is None:
            self._timer = loop.call_at(end, self._look)
        return place

    @property
    def oldest_wait_s(self) -> float:
        """How long the one who waits longest has waited, in seconds; 0 where nobody does."""
        ends = [next(iter(queue.values())) for queue in self._queues if queue]
        return max(0.0, asyncio.get_running_loop().time() - min(ends) + self._max_wait_s) if ends else 0.0

    @property
    def saturation(self) -> float:
        """The share of the places that are taken."""
        return self.in_flight / self._places

    async def wait(self, place: Future[bool]) -> None:
        """Until the place is ours. Raises Saturated when that takes too long.

        Whatever it raises, there is nothing to give back: one that was given its place, and is cancelled before it
        could take it, gives it on.
        """
        try:
            given = await place
        except BaseException:
            for queue in self._queues:
                if queue.pop(place, None) is not None:
                    self.waiting -= 1
            if place.done() and not place.cancelled() and place.result():
                self.leave()
            raise
        if not given:
            raise Saturated("queue_wait")

    def leave(self) -> None:
        """Give the place to the next who waits."""
        if self.waiting:
            for queue in self._queues:
                while queue:
                    place, _ = queue.popitem(last=False)
                    self.waiting -= 1
                    if not place.done():
                        place.set_result(True)
                        return
        self.in_flight -= 1

    def _make_way(self, kind: int) -> bool:
        """Refuse the youngest of the least urgent kind, if it is less urgent than this one."""
        for queue in reversed(self._queues[kind + 1 :]):
            if queue:
                place, _ = queue.popitem()
                self._refuse(place)
                return True
        return False

    def _look(self) -> None:
        """Refuse those who have waited long enough, and come back for the next."""
        loop = asyncio.get_running_loop()
        now, refused_before = loop.time(), self.refused
        ends = []
        for queue in self._queues:
            while queue:
                place, end = next(iter(queue.items()))
                if end > now or self.refused - refused_before == REFUSED_A_TURN:
                    ends.append(end)
                    break
                del queue[place]
                self._refuse(place)
        self._timer = loop.call_at(min(ends), self._look) if ends else None

    def _refuse(self, place: Future[bool]) -> None:
        """Tell one that was taken from its queue."""
        self.waiting -= 1
        # Cancelled a moment ago, it only has not heard of it yet.
        if not place.done():
            self.refused += 1
            place.set_result(False)
