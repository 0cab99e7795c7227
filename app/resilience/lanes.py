"""Several batchers side by side, so that one place that is slow does not hold up what goes to others."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Sequence
from typing import Generic, TypeVar

from app.resilience.batcher import Batcher, Closed

Item = TypeVar("Item")
Answer = TypeVar("Answer")

MOST_IDLE = 64
"""Lanes kept, those that are busy aside."""


class Lanes(Generic[Item, Answer]):
    """A batcher for each place that items go to, made when it is first wanted, watched as one.

    send, max_batch, max_queue: of each, as those of a Batcher.  place_of: where an item goes.
    """

    __slots__ = ("_closed", "_lanes", "_max_batch", "_max_queue", "_on_sent", "_place_of", "_send")

    def __init__(
        self,
        send: Callable[[list[Item]], Awaitable[Sequence[Answer | BaseException]]],
        place_of: Callable[[Item], Hashable],
        max_batch: int = 512,
        max_queue: int = 20_000,
    ) -> None:
        self._send = send
        self._place_of = place_of
        self._max_batch = max_batch
        self._max_queue = max_queue
        self._lanes: dict[Hashable, Batcher[Item, Answer]] = {}
        self._closed = False
        self._on_sent: Callable[[int, float], None] | None = None

    @property
    def waiting(self) -> int:
        """Items not yet handed to `send`."""
        return sum(lane.waiting for lane in self._lanes.values())

    @property
    def on_sent(self) -> Callable[[int, float], None] | None:
        """Told of each batch how many items it had and how many seconds `send` took."""
        return self._on_sent

    @on_sent.setter
    def on_sent(self, told: Callable[[int, float], None] | None) -> None:
        self._on_sent = told
        for lane in self._lanes.values():
            lane.on_sent = told

    def put(self, item: Item) -> asyncio.Future[Answer]:
        """Queue an item behind those of its place. Raises what Batcher.put raises."""
        if self._closed:
            raise Closed
        place = self._place_of(item)
        lane = self._lanes.get(place)
        if lane is None:
            lane = self._add(place)
        return lane.put(item)

    async def close(self) -> None:
        """Send everything that waits, then return; from the call on, new items are refused with Closed."""
        self._closed = True
        await asyncio.gather(*[lane.close() for lane in self._lanes.values()])

    def _add(self, place: Hashable) -> Batcher[Item, Answer]:
        if len(self._lanes) >= MOST_IDLE:
            self._lanes = {known: lane for known, lane in self._lanes.items() if lane.busy}
        lane = self._lanes[place] = Batcher(self._send, self._max_batch, self._max_queue)
        lane.on_sent = self._on_sent
        return lane
