"""Who has asked for too much: buckets kept in Redis for all processes, or in this one while Redis is away."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import msgspec

from app.cache.redis import Shared
from app.limits import gcra
from app.limits.gcra import SECOND_US
from app.settings.rates import Rate
from app.limits.script import SCRIPT
from app.resilience.batcher import Batcher, Closed, Overloaded

MOST_KEPT = 100_000
_pack = msgspec.msgpack.Encoder().encode


class Bucket(NamedTuple):
    """name: as callers are told of it, None where they are not.  key: its place in Redis."""

    name: str | None
    key: bytes
    rate: Rate


class Allowance:
    """The buckets that one caller's requests are taken from: from all of them or from none. Compared by identity.

    policy: what the RateLimit-Policy field says of them (draft-ietf-httpapi-ratelimit-headers-10).
    """

    __slots__ = ("buckets", "policy")

    def __init__(self, buckets: Sequence[Bucket]) -> None:
        self.buckets = tuple(buckets)
        self.policy = ", ".join(
            f'"{bucket.name}";q={bucket.rate.burst};w={math.ceil(bucket.rate.window_us / SECOND_US)}'
            for bucket in self.buckets
            if bucket.name is not None
        ).encode("ascii")


class Taken(NamedTuple):
    """granted: whether the request may go on.  full_in_us: of each bucket, after it.  wait_s: else, until when not."""

    granted: bool
    full_in_us: Sequence[float]
    wait_s: float


Take = tuple[Allowance, int]


class Limiter:
    """Takes requests from buckets, exactly over all processes that share a Redis.

    shared: None without a Redis.  processes: how many there are at most; while Redis is away, each grants its part.
    clock: seconds, monotonic.  `asked_here`: takes decided without Redis, because it was away.

    # Design: a bucket only ever gets later. Once Redis said that it has nothing until some moment, requests are refused
    # here until then, and that is still exact; so a flood of refusals costs Redis nothing.
    """

    def __init__(
        self, shared: Shared | None, processes: int, clock: Callable[[], float] = time.monotonic, max_batch: int = 512
    ) -> None:
        self._shared = shared
        self._processes = processes
        self._clock = clock
        self._empty_until: dict[bytes, float] = {}
        self._full_at_us: dict[bytes, float] = {}
        self._takes: Batcher[Take, Taken | None] = Batcher(self._send, max_batch)
        self.asked_here = 0

    async def close(self) -> None:
        await self._takes.close()

    def refusal(self, allowance: Allowance) -> float:
        """Seconds for which even the cheapest request is known to be refused; 0 where that is not known."""
        if not self._empty_until:
            return 0.0
        now = self._clock()
        return max([self._empty_until.get(bucket.key, now) - now for bucket in allowance.buckets])

    async def take(self, allowance: Allowance, cost: int) -> Taken:
        """Take a request of this cost from every bucket of the allowance, or from none."""
        if self._shared is not None:
            wait_s = self.refusal(allowance)
            if wait_s > 0:
                return Taken(False, [wait_s * SECOND_US + b.rate.window_us for b in allowance.buckets], wait_s)
            try:
                taken = await self._takes.put((allowance, cost))
            except (Overloaded, Closed):
                taken = None
            if taken is not None:
                return taken
            self.asked_here += 1
        return self._take_here(allowance, cost)

    def _take_here(self, allowance: Allowance, cost: int) -> Taken:
        now_us = self._clock() * SECOND_US
        kept = self._full_at_us
        rates = [_part(bucket.rate, self._processes) for bucket in allowance.buckets]
        full = [kept.get(bucket.key, 0.0) for bucket in allowance.buckets]
        wait_us = max([gcra.wait_us(at, now_us, rate, cost) for at, rate in zip(full, rates, strict=True)])
        if not wait_us:
            full = [gcra.charged(at, now_us, rate, cost) for at, rate in zip(full, rates, strict=True)]
            if len(kept) > MOST_KEPT:
                self._full_at_us = kept = {key: at for key, at in kept.items() if at > now_us}
            for bucket, at in zip(allowance.buckets, full, strict=True):
                kept[bucket.key] = at
        # As it stands with the whole rate: what the caller is told does not change with the weather.
        return Taken(not wait_us, [max(0.0, at - now_us) / self._processes for at in full], wait_us / SECOND_US)

    async def _send(self, takes: list[Take]) -> list[Taken | None]:
        """One call for all of them; those that want the same are counted together. None: Redis did not answer."""
        assert self._shared is not None
        places: dict[Bucket, int] = {}
        wanted: dict[Take, int] = {}
        for take in takes:
            wanted[take] = wanted.get(take, 0) + 1
        for allowance, _ in wanted:
            for bucket in allowance.buckets:
                places.setdefault(bucket, len(places) + 1)
        asked = _pack(
            (
                [bucket.rate.interval_us for bucket in places],
                [bucket.rate.burst for bucket in places],
                [(cost, times, [places[b] for b in allowance.buckets]) for (allowance, cost), times in wanted.items()],
            )
        )
        sent_at = self._clock()
        answer = await self._shared.evaluate(SCRIPT, [bucket.key for bucket in places], asked)
        if answer is None:
            return [None] * len(takes)
        granted, full_in = answer
        self._remember(places, full_in, sent_at)
        told = {
            take: _Told(count, [full_in[places[b] - 1] for b in take[0].buckets], _wait_s(take, full_in, places))
            for take, count in zip(wanted, granted, strict=True)
        }
        return [told[take].next() for take in takes]
