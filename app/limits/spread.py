"""Rates on a cluster, where no script touches buckets of two slots: a tenant's first, then what all tenants share."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Hashable, Sequence
from functools import lru_cache

from app.cache.cluster import Cluster
from app.cache.redis import Shared
from app.cache.slots import slot_of
from app.limits.allowance import Allowance, Bucket, Taken
from app.limits.allowances import MOST_KEPT
from app.limits.batch import Batch, Take
from app.limits.gcra import Standing
from app.limits.limiter import AWAY_S, REMEMBERED_S, Limiter
from app.limits.script import GIVE_BACK, SCRIPT, answered, returned
from app.resilience.lanes import Lanes

HELD_S = 0.05
"""How long a bucket counts as empty at most that may get back what makes it so."""


class SpreadLimiter(Limiter):
    """A Limiter over a cluster: exact for each bucket, and none grants more than it holds.

    A request is taken from the buckets of one slot after the other, and given back to the first where a later one
    refuses. For that moment, and HELD_S, others may be refused what they would have had; where no rate of the whole
    service is set, there is one slot, and that does not happen.
    What a node does not answer is decided here, by this process's part, and everything else where it is kept.

    # Design: a lane for each node, so that takes from buckets of one that hangs hold up nobody else's.
    """

    __slots__ = ("_away", "_cluster", "_parts")

    def __init__(
        self,
        shared: Shared,
        cluster: Cluster,
        processes: int,
        clock: Callable[[], float] = time.monotonic,
        max_batch: int = 512,
    ) -> None:
        super().__init__(shared, processes, clock, max_batch)
        self._cluster = cluster
        self._takes = Lanes(self._send, self._lane_of, max_batch)
        # Slots that were not answered for last, and until when they are not asked for again.
        self._away: dict[int, float] = {}
        together = lru_cache(MOST_KEPT)(Allowance)

        def parts(allowance: Allowance) -> tuple[Allowance, ...]:
            by_slot: dict[int, list[Bucket]] = {}
            for bucket in allowance.buckets:
                by_slot.setdefault(slot_of(bucket.key), []).append(bucket)
            return tuple([together(tuple(buckets)) for buckets in by_slot.values()])

        self._parts = lru_cache(MOST_KEPT)(parts)

    def refusal(self, allowance: Allowance, cost: int = 1) -> float:
        wait_s = super().refusal(allowance, cost)
        here = self._decided_here(allowance)
        return max(wait_s, self._part.wait_s(here, cost, self._clock())) if here else wait_s

    def _known(self, allowance: Allowance) -> Sequence[Standing | None]:
        here = self._decided_here(allowance)
        by_key = dict(zip([bucket.key for bucket in here], self._part.standings(here, self._clock()), strict=True))
        recalled = zip(allowance.buckets, super()._known(allowance), strict=True)
        return [by_key.get(bucket.key) or standing for bucket, standing in recalled]

    def _decided_here(self, allowance: Allowance) -> list[Bucket]:
        if not self._away:
            return []
        return [bucket for bucket in allowance.buckets if slot_of(bucket.key) in self._away]

    def _lane_of(self, take: Take) -> Hashable:
        node = self._cluster.node_of(take[0].buckets[0].key)
        return None if node is None else node.address

    async def _send(self, takes: list[Take]) -> Sequence[Taken | None]:
        sent_at_s = self._clock()
        ahead = self.ahead.wanted(takes, sent_at_s)
        taken = await self._take_each([*takes, *ahead])
        self.ahead.put(ahead, taken[len(takes) :], sent_at_s)
        return taken[: len(takes)]

    async def _take_each(self, takes: Sequence[Take]) -> list[Taken]:
        going = [_Going(self._parts(allowance), cost) for allowance, cost in takes]
        stage = 0
        while left := [one for one in going if one.granted and stage < len(one.parts)]:
            by_slot: dict[int, list[_Going]] = {}
            for one in left:
                by_slot.setdefault(slot_of(one.parts[stage].buckets[0].key), []).append(one)
            await asyncio.gather(*[self._take_from(slot, together, stage) for slot, together in by_slot.items()])
            stage += 1
        self._give_back([one for one in going if not one.granted])
        return [one.taken(allowance) for one, (allowance, _) in zip(going, takes, strict=True)]

    async def _take_from(self, slot: int, going: Sequence[_Going], stage: int) -> None:
        """Take from the buckets of one slot, by one call, or here where that is not answered."""
        takes = [(one.parts[stage], one.cost) for one in going]
        sent_at_s = self._clock()
        if sent_at_s >= self._away.get(slot, sent_at_s):
            batch = Batch(takes)
            assert self._shared is not None
            reply = await self._shared.evaluate(SCRIPT, batch.keys, batch.asked(), len(takes))
            if isinstance(reply, bytes):
                self._away.pop(slot, None)
                outcome = answered(reply)
                self._remember(batch.buckets, outcome.owed, sent_at_s, self._longest_s(going, stage))
                for one, taken in zip(going, batch.taken(outcome), strict=True):
                    one.told.append((taken, False))
                return
            self._away[slot] = self._clock() + AWAY_S
        self.asked_here += len(going)
        for one, (allowance, cost) in zip(going, takes, strict=True):
            one.told.append((self._take_here(allowance, cost), True))

    def _longest_s(self, going: Sequence[_Going], stage: int) -> float:
        """How long what is found empty now is taken to be: not long where it may be given back."""
        return REMEMBERED_S if all(stage + 1 == len(one.parts) for one in going) else HELD_S

    def _give_back(self, refused: Sequence[_Going]) -> None:
        """What was taken for requests that a later part refused."""
        counts: dict[int, dict[Bucket, int]] = {}
        for one in refused:
            for part, (_, here) in zip(one.parts, one.told[:-1], strict=False):
                if here:
                    self._part.give_back(part.buckets, one.cost, self._clock())
                    continue
                of_slot = counts.setdefault(slot_of(part.buckets[0].key), {})
                for bucket in part.buckets:
                    self._empty.pop(bucket.key, None)
                    of_slot[bucket] = of_slot.get(bucket, 0) + one.cost
        for of_slot in counts.values():
            assert self._shared is not None
            asked = returned([bucket.rate for bucket in of_slot], list(of_slot.values()))
            self._shared.send(GIVE_BACK, [bucket.key for bucket in of_slot], asked)


class _Going:
    """A take on its way. parts: of its allowance, by slot.  told: what those asked so far said, and whether here."""

    __slots__ = ("cost", "parts", "told")

    def __init__(self, parts: Sequence[Allowance], cost: int) -> None:
        self.parts = parts
        self.cost = cost
        self.told: list[tuple[Taken, bool]] = []

    @property
    def granted(self) -> bool:
        return not self.told or self.told[-1][0].granted

    def taken(self, allowance: Allowance) -> Taken:
        """What the request is answered. Of buckets that got it back nothing is known."""
        last = len(self.told) - 1
        standings: dict[bytes, Standing | None] = {}
        for number, (part, (taken, _)) in enumerate(zip(self.parts, self.told, strict=False)):
            if self.granted or number == last:
                standings |= zip([bucket.key for bucket in part.buckets], taken.standings, strict=True)
        wait_s = self.told[last][0].wait_s
        return Taken(self.granted, wait_s, [standings.get(bucket.key) for bucket in allowance.buckets])


def limiter_over(shared: Shared | None, processes: int) -> Limiter:
    """Over whatever the processes share; None is nothing."""
    if shared is not None and isinstance(shared.way, Cluster):
        return SpreadLimiter(shared, shared.way, processes)
    return Limiter(shared, processes)
