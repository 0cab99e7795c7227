"""How many processes share a Redis, as it tells itself: each listens there once to what caches have to forget."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextvars import Context

from app.cache.invalidation import CHANNEL
from app.cache.redis import Shared

SCRIPT = b"return redis.call('PUBSUB', 'NUMSUB', ARGV[1])[2]"
EVERY_S = 2.0
REMEMBERED_S = 300.0
"""How long a greater number goes on to count, and at most twice that."""


class Census:
    """Counts the processes, for as long as Redis answers; what it told last holds while it does not.

    least: how many there are whatever Redis tells.  tell: told how many, whenever that changed.
    clock: seconds, monotonic.
    """

    __slots__ = ("_ask", "_clock", "_earlier", "_every_s", "_least", "_since_s", "_task", "_tell", "_told", "_within")

    def __init__(
        self,
        shared: Shared,
        least: int,
        tell: Callable[[int], None],
        *,
        every_s: float = EVERY_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._least = self._told = least
        self._tell = tell
        self._every_s = every_s
        self._clock = clock
        self._since_s = clock()
        self._within = self._earlier = 0
        self._task: asyncio.Task[None] | None = None
        self._ask = shared.evaluate_each

    def start(self) -> None:
        """Begin to count, and go on until `stop`."""
        self._task = asyncio.get_running_loop().create_task(self._count(), name="rates-census", context=Context())

    async def stop(self) -> None:
        """Leave no task. Raises what ended the counting before, if anything did."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait((self._task,))
            if not self._task.cancelled():
                self._task.result()

    def counted(self, processes: int) -> None:
        """Take note of so many that were there just now."""
        now_s = self._clock()
        if now_s >= self._since_s + REMEMBERED_S:
            self._earlier, self._within, self._since_s = self._within, 0, now_s
        self._within = max(self._within, processes)
        most = max(self._least, self._within, self._earlier)
        if most != self._told:
            self._told = most
            self._tell(most)

    async def _count(self) -> None:
        while True:
            told = [count for count in await self._ask(SCRIPT, CHANNEL) if isinstance(count, int)]
            if told:
                # On a cluster each listens to one of the nodes.
                self.counted(sum(told))
            await asyncio.sleep(self._every_s)
