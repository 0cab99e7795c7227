"""The tier that all processes share: Redis, asked in batches, and never the reason why anything fails or waits long."""

from __future__ import annotations

import asyncio
import logging
from asyncio import Future
from collections import Counter
from collections.abc import Iterable, Sequence
from contextvars import Context
from functools import partial
from typing import Final, NamedTuple, TypeVar

from redis.exceptions import TimeoutError as RedisTimeoutError

from app.cache.owed import Invalidation, Owed
from app.cache.pipeline import Answer, Command, exchange
from app.cache.pool import AGE_JITTER, FAILURES, Pool
from app.resilience.batcher import Batcher, Closed, Overloaded
from app.resilience.breaker import Breaker, BreakerOpen
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
    """The link to Redis. Nothing of Redis is ever raised to a caller; what went wrong is counted in `errors`.

    A caller waits no longer than the pool's timeouts together, and not at all while the breaker is open.
    breaker: to be built with `failures=FAILURES` of app.cache.pool.
    `errors`: commands not done, by reason: breaker_open, timeout, connection, refused (by Redis, each for itself),
    late, overloaded, closed.
    An invalidation that failed is made good as soon as Redis is back; `owed` counts those that are to come, and
    `owed_dropped` the keys of those given up because there were more than MOST_OWED.

    # Design: one batch is under way at a time, as one pipeline: first the calls in the order they came, then one MGET
    of all keys. So what a process asks for is done in that order, and a read never sees less than the writes before it.
    """

    __slots__ = (
        "_batcher",
        "_busy",
        "_closing",
        "_deadline",
        "_owed",
        "_patience_s",
        "_renewal",
        "_settlement",
        "breaker",
        "errors",
        "pool",
    )

    def __init__(
        self,
        pool: Pool,
        breaker: Breaker,
        *,
        max_batch: int = 512,
        max_queue: int = 10_000,
        most_owed: int = MOST_OWED,
    ) -> None:
        self.pool = pool
        self.breaker = breaker
        self._renewal: asyncio.Task[None] | None = None
        self._patience_s = pool.timeout_s + pool.acquire_timeout_s
        self._deadline = Deadline(self._patience_s)
        self._batcher: Batcher[Command, Answer | None] = Batcher(self._send, max_batch, max_queue)
        self._busy = False
        self._closing = False
        self._owed = Owed(most_owed)
        self._settlement: asyncio.Task[None] | None = None
        self.errors: Counter[str] = Counter()

    @property
    def batcher(self) -> Batcher[Command, Answer | None]:
        """For who watches."""
        return self._batcher

    @property
    def round_trips(self) -> int:
        """Batches so far, those that failed included."""
        return self._batcher.batches

    @property
    def owed(self) -> int:
        return len(self._owed)

    @property
    def owed_dropped(self) -> int:
        return self._owed.dropped

    async def open(self) -> None:
        """Open the connections that are kept open. Where Redis is away, that is counted, and tried again when used."""
        self._renewal = asyncio.get_running_loop().create_task(self._renew(), name="redis-renewal", context=Context())
        try:
            await self.pool.warm()
        except FAILURES as error:
            self.errors[_reason(error)] += 1

    async def close(self) -> None:
        """Send what waits and is owed, then close all connections; at the end, everything is as if Redis was away.

        Raises what ended the renewal of connections or the settlement of what is owed before, if anything did.
        """
        self._closing = True
        await _end(self._settlement)
        await self._settle()
        await self._batcher.close()
        if self._owed:
            log.warning(
                "Redis was away at the end, so it holds values that are out of date for as long as they live: of %d "
                "invalidations it was not told",
                self.owed,
            )
        await _end(self._renewal)
        try:
            await self.pool.disconnect()
        except FAILURES as error:
            self.errors[_reason(error)] += 1

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
        self._post(Command((b"EVAL", FILL, 2, claim, key, token, value, ttl_ms)))

    def release(self, claim: bytes, token: bytes) -> None:
        """End the claim, if it is still ours. Sent, and not waited for."""
        self._post(Command((b"EVAL", RELEASE, 1, claim, token)))

    def bound(self, claim: bytes, ttl_ms: int) -> None:
        """Have a claim end that would last for ever. Sent, and not waited for; needs Redis 7."""
        self._post(Command((b"PEXPIRE", claim, ttl_ms, b"NX")))

    async def forget(self, keys: Sequence[bytes], channel: bytes, message: bytes) -> bool:
        """Delete the keys, then tell the channel; whether both were done. If not, they will be once Redis is back."""
        invalidation = Invalidation(tuple(keys), channel, message)
        done = False
        try:
            done = await self._forget((invalidation,))
        finally:
            # Also where the caller is cancelled: then nobody knows.
            if not done:
                self._owe(invalidation)
        return done

    async def evaluate(self, script: bytes, keys: Sequence[bytes], arg: bytes, weight: int = 1) -> object | None:
        """What the script gives for these keys and this argument; None where Redis did not answer or refused it.

        weight: how many requests wait for it.
        """
        # PERF: EVALSHA would save 3 µs of the server's 50 for a script of 1 kB, and ask twice after each restart.
        answer = await self._wait(self._post(Command((b"EVAL", script, len(keys), *keys, arg), weight=weight)))
        return None if answer is None else answer.reply

    async def _forget(self, invalidations: Iterable[Invalidation]) -> bool:
        keys = [key for invalidation in invalidations for key in invalidation.keys]
        posted = [self._post(Command((b"DEL", *keys)))]
        posted += [self._post(Command((b"PUBLISH", told.channel, told.message))) for told in invalidations]
        return None not in (await self._wait(asyncio.gather(*posted)) or (None,))

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
        while self._owed and self.breaker.state != "open":
            oldest = self._owed.oldest(OWED_AT_ONCE, OWED_KEYS_AT_ONCE)
            if not await self._forget(oldest):
                return
            self._owed.settle(oldest)

    async def _renew(self) -> None:
        """Renew old connections also while nobody asks for one."""
        while True:
            await asyncio.sleep(self.pool.max_age_s * AGE_JITTER)
            await self.pool.renew()

    def _post(self, command: Command) -> Future[Answer | None]:
        """Have a command done with the next batch. The future gives None where it was not."""
        if self._busy and self.breaker.state == "half_open":
            # Behind a probe, which may hang.
            reason = "breaker_open"
        else:
            try:
                return self._batcher.put(command)
            except Overloaded:
                reason = "overloaded"
            except Closed:
                reason = "closed"
        self.errors[reason] += 1
        refused: Future[Answer | None] = asyncio.get_running_loop().create_future()
        refused.set_result(None)
        return refused

    async def _wait(self, future: Future[Reply]) -> Reply | None:
        if future.done():
            return future.result()
        try:
            return await self._deadline.run(future)
        except DeadlineExceeded:
            self.errors["late"] += 1
            return None

    async def _send(self, commands: list[Command]) -> list[Answer | None]:
        """The answers to one batch, None for each command that was not done."""
        self._busy = True
        try:
            call = partial(exchange, self.pool, commands, self._patience_s)
            answers = await self.breaker.call(call, sum([command.weight for command in commands]))
        except BreakerOpen:
            self.errors["breaker_open"] += len(commands)
        except FAILURES as error:
            self.errors[_reason(error)] += len(commands)
        else:
            if None in answers:
                self.errors["refused"] += answers.count(None)
            return answers
        finally:
            self._busy = False
        return [None] * len(commands)


async def _end(task: asyncio.Task[None] | None) -> None:
    """Cancel a task and wait for its end. Raises what had ended it before, if anything did."""
    if task is not None:
        task.cancel()
        await asyncio.wait((task,))
        if not task.cancelled():
            task.result()


def _reason(error: Exception) -> str:
    return "timeout" if isinstance(error, TimeoutError | RedisTimeoutError) else "connection"
