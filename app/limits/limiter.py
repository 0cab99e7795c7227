"""Who has asked for too much: buckets kept in Redis for all processes, or in this one while Redis is away."""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import NamedTuple

from app.cache.redis import Shared
from app.limits import gcra
from app.limits.ahead import Ahead
from app.limits.allowance import Allowance, Bucket, Taken, fields
from app.limits.batch import Batch, Take
from app.limits.gcra import Standing
from app.limits.part import MOST_KEPT, Part
from app.limits.script import SCRIPT, answered
from app.resilience.batcher import Batcher, Closed, Overloaded
from app.resilience.lanes import Lanes

__all__ = ["Allowance", "Limiter", "Taken", "fields"]

Takes = Batcher[Take, Taken | None] | Lanes[Take, Taken | None]

REMEMBERED_S = 1.0
"""How long Redis is taken at its word that a bucket is empty, at most: if it loses its data, the bucket is full."""
HASTE = 0.999
"""The share of that time after which it is asked again: its clock and ours may not run alike."""
AWAY_S = 0.01
"""How long Redis is not asked again after a call that it did not answer: whoever waited for the end of that call has
waited enough."""


class _Empty(NamedTuple):
    """A bucket known to have nothing. ask_s: when Redis is asked again.  next_s: when there is one request in it,
    full_s: when it is full. Seconds of the limiter's clock."""

    ask_s: float
    next_s: float
    full_s: float


class Limiter:
    """Takes requests from buckets, exactly over all processes that share a Redis.

    shared: None without a Redis.  processes: how many there are, as far as known; what Redis does not answer, each
    decides by its own part of rate and burst.  clock: seconds, monotonic.
    `asked_here`: takes decided here though there is a Redis.  `recalled`: takes refused without asking it.
    ahead: what was taken before it was asked for.

    # Design: only time makes a bucket fuller. Once Redis said until when one is empty, requests are refused here until
    # then, and that is still exact; so a flood of refusals costs Redis next to nothing.
    """

    __slots__ = (
        "_away_until_s",
        "_clock",
        "_empty",
        "_is_away",
        "_part",
        "_shared",
        "_takes",
        "ahead",
        "asked_here",
        "recalled",
    )

    def __init__(
        self, shared: Shared | None, processes: int, clock: Callable[[], float] = time.monotonic, max_batch: int = 512
    ) -> None:
        self._shared = shared
        self._clock = clock
        self._part = Part(processes)
        self._empty: OrderedDict[bytes, _Empty] = OrderedDict()
        self._is_away = shared is None
        self._away_until_s = -math.inf
        self._takes: Takes = Batcher(self._send, max_batch)
        self.ahead = Ahead(clock)
        self.asked_here = 0
        self.recalled = 0

    @property
    def batcher(self) -> Takes:
        """For who watches."""
        return self._takes

    def divide(self, processes: int) -> None:
        """Have this be one of so many processes."""
        self._part.divide(processes)

    async def close(self) -> None:
        """Have decided what waits for Redis; from the call on, it is not asked any more."""
        await self._takes.close()

    def refusal(self, allowance: Allowance, cost: int = 1) -> float:
        """Seconds for which a request of this cost is known to be refused; 0 where only taking it will tell."""
        if self._is_away:
            return self._part.wait_s(allowance.buckets, cost, self._clock())
        return self._recall(allowance, cost) if self._empty else 0.0

    def refused(self, allowance: Allowance, cost: int = 1) -> Taken | None:
        """What a request of this cost is known to be refused with; None where only taking it will tell."""
        wait_s = self.refusal(allowance, cost)
        return Taken(False, wait_s, self._known(allowance)) if wait_s else None

    async def take(self, allowance: Allowance, cost: int = 1) -> Taken:
        """Take a request of this cost, 1 or more, from every bucket of the allowance, or from none."""
        taken = self.take_at_once(allowance, cost)
        if taken is not None:
            return taken
        try:
            taken = await self._takes.put((allowance, cost))
        except (Overloaded, Closed):
            taken = None
        if taken is None:
            self.asked_here += 1
            return self._take_here(allowance, cost)
        return taken

    def take_at_once(self, allowance: Allowance, cost: int = 1) -> Taken | None:
        """The same where that is decided without Redis; else nothing was taken, and None."""
        if self._shared is None:
            return self._take_here(allowance, cost)
        # PERF: benchmarks/compare.py, recorded in PostgreSQL: no future, no turn of the loop, nothing for Redis to do.
        taken = self.ahead.take(allowance) if cost == 1 else None
        if taken is not None:
            return taken
        if self._empty and not self._is_away:
            wait_s = self._recall(allowance, cost)
            if wait_s:
                self.recalled += 1
                return Taken(False, wait_s, self._recalled(allowance))
        return None

    def _take_here(self, allowance: Allowance, cost: int) -> Taken:
        return self._part.take(allowance.buckets, cost, self._clock())

    async def _send(self, takes: list[Take]) -> Sequence[Taken | None]:
        """One call for all of them. None: Redis did not answer."""
        assert self._shared is not None
        sent_at_s = self._clock()
        if sent_at_s < self._away_until_s:
            return [None] * len(takes)
        ahead = self.ahead.wanted(takes, sent_at_s)
        batch = Batch([*takes, *ahead])
        reply = await self._shared.evaluate(SCRIPT, batch.keys, batch.asked(), len(takes))
        self._is_away = not isinstance(reply, bytes)
        if not isinstance(reply, bytes):
            self._away_until_s = self._clock() + AWAY_S
            return [None] * len(takes)
        outcome = answered(reply)
        self._remember(batch.buckets, outcome.owed, sent_at_s)
        taken = batch.taken(outcome)
        self.ahead.put(ahead, taken[len(takes) :], sent_at_s)
        return taken[: len(takes)]

    def _remember(
        self, buckets: Sequence[Bucket], owed: Sequence[float], sent_at_s: float, longest_s: float = REMEMBERED_S
    ) -> None:
        """Note which buckets are empty, and until when: counted from before Redis was asked, never too long."""
        for (_, key, rate), owing in zip(buckets, owed, strict=True):
            if owing + 1 > rate.burst and (wait_s := gcra.wait_s(owing, rate, 1)):
                ask_s = sent_at_s + min(wait_s, longest_s) * HASTE
                self._empty[key] = _Empty(ask_s, sent_at_s + wait_s, sent_at_s + owing / rate.per_s)
                if len(self._empty) > MOST_KEPT:
                    self._empty.popitem(last=False)

    def _recall(self, allowance: Allowance, cost: int) -> float:
        """Seconds that a request of this cost has to wait as far as is remembered."""
        now_s, wait_s = self._clock(), 0.0
        for _, key, rate in allowance.buckets:
            known = self._empty.get(key)
            if known is not None:
                if now_s < known.ask_s:
                    wait_s = max(wait_s, known.next_s - now_s + (min(cost, rate.burst) - 1) / rate.per_s)
                else:
                    del self._empty[key]
        return wait_s

    def _known(self, allowance: Allowance) -> Sequence[Standing | None]:
        """How each bucket stands as far as is known without asking."""
        return self._part.standings(allowance.buckets, self._clock()) if self._is_away else self._recalled(allowance)

    def _recalled(self, allowance: Allowance) -> list[Standing | None]:
        now_s = self._clock()
        kept = [self._empty.get(bucket.key) for bucket in allowance.buckets]
        return [None if known is None else (0, math.ceil(known.full_s - now_s)) for known in kept]
