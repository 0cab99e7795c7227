"""Acts that are on record before whoever did them is answered."""

from __future__ import annotations

from app.resilience.batcher import Batcher, Closed
from app.resilience.deadline import Deadline
from app.store.base import StoreUnavailable
from app.store.trail import Act, Trail


class Acts:
    """Enters acts that are waited for; those of the same moment share a transaction.

    timeout_s: how long one is waited for.  `batches` is the batcher, for its counters.
    """

    def __init__(self, trail: Trail, timeout_s: float) -> None:
        self._trail = trail
        self._deadline = Deadline(timeout_s)
        self.batches: Batcher[Act, None] = Batcher(self._send)

    async def enter(self, act: Act) -> None:
        """Return once the act is committed. Raises StoreUnavailable, Overloaded, and DeadlineExceeded where what came
        of it is not known."""
        try:
            entered = self.batches.put(act)
        except Closed:
            raise StoreUnavailable("the store is closed") from None
        await self._deadline.run(entered)

    async def close(self) -> None:
        """Enter what waits, and take nothing more."""
        await self.batches.close()

    async def _send(self, acts: list[Act]) -> list[None]:
        await self._trail.note(acts)
        return [None] * len(acts)
