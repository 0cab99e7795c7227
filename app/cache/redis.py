"""The tier that all processes share: Redis, asked in batches, and never the reason why anything fails or waits long."""

from __future__ import annotations

import asyncio
import logging
from asyncio import Future
from collections import Counter
from collections.abc import Sequence
from contextvars import Context
from typing import Final, NamedTuple, TypeVar

from app.cache.cluster import Cluster
from app.cache.link import Link, ended
from app.cache.owed import Invalidation, Owed
from app.cache.pipeline import Answer, Call, Command
from app.resilience.deadline import Deadline, DeadlineExceeded

log = logging.getLogger(__name__)

Reply = TypeVar("Reply")

MOST_OWED = 100_000
"""Keys whose invalidation Redis did not take that are kept to be told again."""
OWED_EVERY_S = 0.25
"""How often that is tried while Redis is away."""
OWED_AT_ONCE = 64
OWED_KEYS_AT_ONCE = 4096

FILL = b"""
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('DEL', KEYS[1])
redis.call('SET', KEYS[2], ARGV[2], 'PX', ARGV[3])
return 1
"""
"""Put a value in its place if the claim is still ours: whoever made it invalid in the meantime took the claim away."""

RELEASE = b"""
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])
"""


class Found(NamedTuple):
    """answered: whether Redis did.  value: what it holds in the key's place, None for nothing."""

    answered: bool
    value: bytes | None


class Claim(NamedTuple):
    """won: whether the key is ours to load, None where Redis did not say.  value: what is in its place already."""

    won: bool | None
    value: bytes | None


AWAY: Final = Found(False, None)
UNKNOWN: Final = Claim(None, None)


class Shared:
    """What is asked of Redis. Nothing of Redis is ever raised to a caller; what went wrong is counted in `errors`.

    way: to one server, or to all of a cluster. A caller waits no longer than its patience, and not at all while it is
    left alone.
    `errors`: commands not done, by reason: breaker_open, timeout, connection, refused (by Redis, each for itself),
    late, overloaded, closed, uncovered (no node of a cluster is known for the key).
    An invalidation that failed is made good as soon as Redis is back; `owed` counts those that are to come, and
    `owed_dropped` the keys of those given up because there were more than MOST_OWED.

    # Design: one batch is under way at a time to each server, as one pipeline: first the calls in the order they came,
    then one MGET of all keys. So what a process asks for is done in that order, and a read never sees less than the
    writes before it. On a cluster that holds for the keys of one slot, and a tenant's keys are of one slot.
    """

    __slots__ = ("_closing", "_deadline", "_owed", "_post", "_settlement", "errors", "way")

    def __init__(self, way: Link | Cluster, *, most_owed: int = MOST_OWED) -> None:
        self.way = way
        self.errors: Counter[str] = way.errors
        self._post = way.post
        self._deadline = Deadline(way.patience_s)
        self._closing = False
        self._owed = Owed(most_owed)
        self._settlement: asyncio.Task[None] | None = None

    @property
    def round_trips(self) -> int:
        """Batches so far, those that failed included."""
        return self.way.batches

    @property
    def owed(self) -> int:
        return len(self._owed)

    @property
    def owed_dropped(self) -> int:
        return self._owed.dropped

    async def open(self) -> None:
        """Open the connections that are kept open. Where Redis is away, that is counted, and tried again when used."""
        await self.way.open()

    async def close(self) -> None:
        """Send what waits and is owed, then close all connections; at the end, everything is as if Redis was away.

        Raises what ended the renewal of connections or the settlement of what is owed before, if anything did.
        """
        self._closing = True
        await ended(self._settlement)
        await self._settle()
        await self.way.close()
        if self._owed:
            log.warning(
                "Redis was away at the end, so it holds values that are out of date for as long as they live: of %d "
                "invalidations it was not told",
                self.owed,
            )

    async def check(self) -> None:
        """Raises ConnectionError, which says what is wrong, where Redis does not do its part."""
        problem = await self.way.problem()
        if problem is not None:
            raise ConnectionError(problem)

    async def get(self, key: bytes) -> Found:
        answer = await self._wait(self._post(Command(None, (key,))))
        return AWAY if answer is None else Found(True, answer.values[0])

    async def claim(self, claim: bytes, token: bytes, ttl_ms: int, key: bytes) -> Claim:
        """Take the claim for a time, unless another has it, and read the key's value after that."""
        take = (b"SET", claim, token, b"NX", b"PX", ttl_ms)
        answer = await self._wait(self._post(Command(take, (key,))))
        return UNKNOWN if answer is None else Claim(answer.reply is not None, answer.values[0])

    def fill(self, claim: bytes, token: bytes, ttl_ms: int, key: bytes, value: bytes) -> None:
        """Put the value in its place and end the claim, if that is still ours. Sent, and not waited for."""
        self._post(Command((b"EVAL", FILL, 2, claim, key, token, value, ttl_ms), at=claim))

    def release(self, claim: bytes, token: bytes) -> None:
        """End the claim, if it is still ours. Sent, and not waited for."""
        self._post(Command((b"EVAL", RELEASE, 1, claim, token), at=claim))

    def bound(self, claim: bytes, ttl_ms: int) -> None:
        """Have a claim end that would last for ever. Sent, and not waited for; needs Redis 7."""
        self._post(Command((b"PEXPIRE", claim, ttl_ms, b"NX"), at=claim))

    async def forget(self, keys: Sequence[bytes], channel: bytes, message: bytes) -> bool:
        """Delete the keys, then tell the channel; whether both were done. If not, they will be once Redis is back."""
        invalidation = Invalidation(tuple(keys), channel, message)
        done = False
        try:
            done = await self._forget(invalidation)
        finally:
            # Also where the caller is cancelled: then nobody knows.
            if not done:
                self._owe(invalidation)
        return done

    async def evaluate(self, script: bytes, keys: Sequence[bytes], arg: bytes, weight: int = 1) -> object | None:
        """What the script gives for these keys and this argument; None where Redis did not answer or refused it.

        keys: at least one; on a cluster all of one slot.  weight: how many requests wait for it.
        """
        # PERF: EVALSHA would save 3 µs of the server's 50 for a script of 1 kB, and ask twice after each restart.
        call: Call = (b"EVAL", script, len(keys), *keys, arg)
        answer = await self._wait(self._post(Command(call, weight=weight, at=keys[0])))
        return None if answer is None else answer.reply

    def send(self, script: bytes, keys: Sequence[bytes], arg: bytes) -> None:
        """Have the script run for these keys and this argument. Not waited for."""
        self._post(Command((b"EVAL", script, len(keys), *keys, arg), at=keys[0]))

    async def evaluate_each(self, script: bytes, arg: bytes) -> list[object]:
        """What the script, of no keys, gives on each server that answers."""
        posted = self.way.post_each(Command((b"EVAL", script, 0, arg)))
        return [answer.reply for answer in await self._wait_each(posted) if answer is not None]

    async def _forget(self, told: Invalidation) -> bool:
        way = self.way
        deleted = [way.post(command) for command in way.deletions(told.keys)]
        if not way.keeps_order and None in await self._wait_each(deleted):
            return False
        # Where order is kept, both go in one round trip.
        published = way.post_each(Command((b"PUBLISH", told.channel, told.message)))
        answers = await self._wait_each([*deleted, *published])
        return None not in answers[: len(deleted)] and any(answers[len(deleted) :])

    def _owe(self, invalidation: Invalidation) -> None:
        self._owed.add(invalidation)
        if not self._closing and (self._settlement is None or self._settlement.done()):
            loop = asyncio.get_running_loop()
            self._settlement = loop.create_task(self._settle_later(), name="redis-owed", context=Context())

    async def _settle_later(self) -> None:
        while self._owed:
            await asyncio.sleep(OWED_EVERY_S)
            await self._settle()

    async def _settle(self) -> None:
        """Do what is owed, as far as Redis lets it be done."""
        left = len(self._owed)
        while left > 0 and self._owed and not self.way.is_away:
            oldest = self._owed.oldest(OWED_AT_ONCE, OWED_KEYS_AT_ONCE)
            left -= len(oldest)
            done = await asyncio.gather(*map(self._forget, oldest))
            self._owed.settle({told: oldest[told] for told, is_done in zip(oldest, done, strict=True) if is_done})
            # Those of a node that is away let the others of the cluster go first.
            self._owed.postpone(oldest)
            if not any(done):
                return

    async def _wait(self, future: Future[Reply]) -> Reply | None:
        if future.done():
            return future.result()
        try:
            return await self._deadline.run(future)
        except DeadlineExceeded:
            self.errors["late"] += 1
            return None

    async def _wait_each(self, futures: Sequence[Future[Answer | None]]) -> list[Answer | None]:
        """What each gives, None for those that come too late: one server that hangs does not hide another's answer."""
        if futures:
            _, late = await asyncio.wait(futures, timeout=self.way.patience_s)
            self.errors["late"] += len(late)
            for future in late:
                future.cancel()
        return [future.result() if future.done() and not future.cancelled() else None for future in futures]
