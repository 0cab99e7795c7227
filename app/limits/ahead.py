"""Requests taken ahead of being asked for, so that those who come within a moment need not wait for Redis."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence

from app.limits.allowance import Allowance, Taken
from app.limits.batch import Take
from app.limits.part import MOST_KEPT

TRAFFIC_S = 0.02
"""As much is taken ahead as came in this time of late."""
HELD_S = 0.1
"""How long it is held for those who come."""


class _Held:
    """left: requests that nobody came for yet.  end_s: until when they are held.  taken: what each is told.
    came: requests since since_s. Seconds of the limiter's clock."""

    __slots__ = ("came", "end_s", "left", "since_s", "taken")

    def __init__(self, now_s: float) -> None:
        self.left = 0
        self.end_s = now_s
        self.taken: Taken | None = None
        self.came = 0
        self.since_s = now_s


class Ahead:
    """What this process holds ahead of its callers. `used`: requests granted from it.

    # Design: never more than the buckets hold, never more than `Allowance.advance`, and only in proportion to what just
    # came, so that nobody's first requests take any. What nobody came for is lost to all, once whenever traffic ends.
    # Requests that cost more than one always ask: what is held might never be enough for them.
    """

    __slots__ = ("_clock", "_held", "used")

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._held: OrderedDict[Allowance, _Held] = OrderedDict()
        self.used = 0

    def take(self, allowance: Allowance) -> Taken | None:
        """A request of cost 1 from what is held; None where nothing is."""
        held = self._held.get(allowance)
        if held is None or not held.left:
            return None
        if self._clock() >= held.end_s:
            held.left = 0
            return None
        held.left -= 1
        held.came += 1
        self.used += 1
        return held.taken

    def wanted(self, takes: Sequence[Take], now_s: float) -> list[Take]:
        """What to take besides these, which are asked for now: for each allowance of which nothing is left."""
        asked: dict[Allowance, int] = {}
        for allowance, cost in takes:
            if cost == 1 and allowance.advance:
                asked[allowance] = asked.get(allowance, 0) + 1
        wanted = []
        for allowance, count in asked.items():
            held = self._held.get(allowance)
            if held is None:
                self._hold(allowance, now_s)
                continue
            held.came += count
            if held.left and now_s < held.end_s:
                # They were queued before the batch that brought it was answered.
                continue
            came = int(held.came * TRAFFIC_S / max(TRAFFIC_S, now_s - held.since_s))
            held.came, held.since_s = 0, now_s
            if came:
                wanted.append((allowance, min(came, allowance.advance)))
        return wanted

    def put(self, wanted: Sequence[Take], taken: Sequence[Taken], sent_at_s: float) -> None:
        """Hold what of that was granted."""
        for (allowance, count), told in zip(wanted, taken, strict=True):
            held = self._held.get(allowance)
            if told.granted and held is not None:
                held.left, held.end_s, held.taken = count, sent_at_s + HELD_S, told

    def _hold(self, allowance: Allowance, now_s: float) -> None:
        self._held[allowance] = _Held(now_s)
        if len(self._held) > MOST_KEPT:
            self._held.popitem(last=False)
