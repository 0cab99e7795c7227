"""One lane that sends what many requests want as few calls."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context
from time import perf_counter
from typing import Generic, TypeVar

Item = TypeVar("Item")
Answer = TypeVar("Answer")


class Overloaded(Exception):
    """The queue is full; try again later. waiting: items queued, limit: the most that may wait."""

    def __init__(self, waiting: int, limit: int) -> None:
        super().__init__(f"{waiting} items are waiting and the queue takes {limit}: try again later")
        self.waiting = waiting
        self.limit = limit


class Closed(Exception):
    """The batcher was closed and takes nothing more."""

    def __init__(self) -> None:
        super().__init__("the batcher is closed and takes no more items")


class Batcher(Generic[Item, Answer]):
    """Collects the items of one turn of the event loop, and of the time the lane is busy, into one call of `send`.

    send: takes 1 to `max_batch` items in order of arrival, answers one value or exception for each, in the same order.
    An exception raised by `send` goes to every item of its batch; one standing in the answers to its item alone.
    Belongs to one event loop. `batches` and `items` count what was handed to `send`.
    `on_sent`, where it is set, is told of each batch how many items it had and how many seconds `send` took.
    """

    __slots__ = (
        "_closed", "_items", "_lane", "_loop", "_max_batch", "_max_queue", "_send", "_waiters",
        "batches", "items", "on_sent",
    )  # fmt: skip

    def __init__(
        self,
        send: Callable[[list[Item]], Awaitable[Sequence[Answer | BaseException]]],
        max_batch: int = 512,
        max_queue: int = 20_000,
    ) -> None:
        self._send = send
        self._max_batch = max_batch
        self._max_queue = max_queue
        self._items: list[Item] = []
        self._waiters: list[asyncio.Future[Answer]] = []
        self._lane: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False
        self.batches = 0
        self.items = 0
        self.on_sent: Callable[[int, float], None] | None = None

    @property
    def waiting(self) -> int:
        """Items not yet handed to `send`."""
        return len(self._items)

    @property
    def busy(self) -> bool:
        """Whether anything waits or is being sent."""
        return self._lane is not None

    def put(self, item: Item) -> asyncio.Future[Answer]:
        """Queue an item; the future is its own. Cancelled before its batch leaves, the item is not sent.

        Raises Overloaded when the queue is full, Closed after `close`.
        """
        if self._closed:
            raise Closed
        if len(self._items) >= self._max_queue:
            raise Overloaded(len(self._items), self._max_queue)
        # PERF: as in Deadline.run.
        loop = self._loop
        if loop is None:
            loop = self._loop = asyncio.get_running_loop()
        future: asyncio.Future[Answer] = loop.create_future()
        self._items.append(item)
        self._waiters.append(future)
        if self._lane is None:
            # A context of its own: the batch must not carry the trace of whichever request came first.
            self._lane = loop.create_task(self._run(), context=Context())
        return future

    async def submit(self, item: Item) -> Answer:
        """Queue an item and wait for its answer; raises what `put` raises and what the item was answered with."""
        return await self.put(item)

    async def close(self) -> None:
        """Send everything that waits, then return; from the call on, new items are refused with Closed."""
        self._closed = True
        if self._lane is not None:
            await asyncio.wait((self._lane,))

    async def _run(self) -> None:
        waiters: list[asyncio.Future[Answer]] = []
        try:
            while self._items:
                items, waiters = self._take()
                if items:
                    await self._exchange(items, waiters)
        finally:
            self._lane = None
            # Only reached with something left when this task itself was cancelled, at the end of its loop.
            for waiter in (*waiters, *self._waiters):
                waiter.cancel()
            self._items.clear()
            self._waiters.clear()

    def _take(self) -> tuple[list[Item], list[asyncio.Future[Answer]]]:
        if len(self._items) <= self._max_batch:
            items, waiters = self._items, self._waiters
            self._items, self._waiters = [], []
        else:
            items, waiters = self._items[: self._max_batch], self._waiters[: self._max_batch]
            del self._items[: self._max_batch], self._waiters[: self._max_batch]
        # Work nobody waits for any more is what makes an overload last.
        if any([waiter.cancelled() for waiter in waiters]):
            alive = [pair for pair in zip(items, waiters, strict=True) if not pair[1].cancelled()]
            items, waiters = [item for item, _ in alive], [waiter for _, waiter in alive]
        return items, waiters

    async def _exchange(self, items: list[Item], waiters: list[asyncio.Future[Answer]]) -> None:
        self.batches += 1
        self.items += len(items)
        begun = perf_counter()
        try:
            answers = await self._send(items)
            if len(answers) != len(waiters):
                raise RuntimeError(f"the send answered {len(answers)} of {len(waiters)} items")
        except Exception as error:
            answers = [error] * len(waiters)
        if self.on_sent is not None:
            self.on_sent(len(items), perf_counter() - begun)
        for waiter, answer in zip(waiters, answers, strict=True):
            if waiter.done():
                continue
            if isinstance(answer, BaseException):
                waiter.set_exception(answer)
            else:
                waiter.set_result(answer)
