"""When keys were last used: collected here, and told to the store now and then."""

from __future__ import annotations

import asyncio
import logging
from contextvars import Context

from app.store.access import Access
from app.store.base import StoreUnavailable

log = logging.getLogger(__name__)


class Uses:
    """The last use of each key since it was last written. every_s: how often that is done."""

    __slots__ = ("_every_s", "_store", "_task", "_used")

    def __init__(self, store: Access, every_s: float = 60.0) -> None:
        self._store = store
        self._every_s = every_s
        self._used: dict[str, int] = {}
        self._task: asyncio.Task[None] | None = None

    def note(self, id: str, at_ms: int) -> None:
        """The key was used at that time."""
        self._used[id] = at_ms

    def start(self) -> None:
        """Begin to write, and go on until `stop`."""
        self._task = asyncio.get_running_loop().create_task(self._run(), name="key-uses", context=Context())

    async def stop(self) -> None:
        """Write what is left. Raises what ended the writing before, if anything did."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait((self._task,))
            if not self._task.cancelled():
                self._task.result()
        lost = await self._write()
        if lost is not None:
            log.warning("when %d keys were last used is not on record: %s", len(self._used), lost)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._every_s)
            await self._write()

    async def _write(self) -> StoreUnavailable | None:
        """Tell the store; what it did not take is kept for the next time."""
        used, self._used = self._used, {}
        if not used:
            return None
        try:
            await self._store.touch_keys(used)
        except StoreUnavailable as away:
            self._used = {**used, **self._used}
            return away
        except asyncio.CancelledError:
            # Told twice does no harm.
            self._used = {**used, **self._used}
            raise
        return None
