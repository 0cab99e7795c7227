"""The way to one Redis: what many want, in batches, one at a time, behind a breaker."""

from __future__ import annotations

import asyncio
from asyncio import Future
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context

from redis.asyncio.connection import AbstractConnection
from redis.exceptions import TimeoutError as RedisTimeoutError

from app.cache.pipeline import Answer, Command, exchange
from app.cache.pool import AGE_JITTER, FAILURES, Pool
from app.resilience.batcher import Batcher, Closed, Overloaded
from app.resilience.breaker import Breaker, BreakerOpen

Exchange = Callable[[Pool, Sequence[Command], float], Awaitable[list[Answer | None]]]
"""An answer to each command of a batch, None where it was refused. Raises one of FAILURES after so many seconds at the
latest."""


class Link:
    """Nothing of Redis is ever raised to a caller; what went wrong is counted in `errors`.

    breaker: to be built with `failures=FAILURES` of app.cache.pool.  errors: of several links together, if given.
    `patience_s`: the longest that a batch may take.

    # Design: one batch is under way at a time, as one pipeline. So what a process asks for is done in that order.
    """

    keeps_order = True
    """Whether whatever is posted is done in the order it was posted in."""

    __slots__ = ("_batcher", "_busy", "_exchange", "_renewal", "breaker", "errors", "patience_s", "pool")

    def __init__(
        self,
        pool: Pool,
        breaker: Breaker,
        *,
        exchange: Exchange = exchange,
        errors: Counter[str] | None = None,
        max_batch: int = 512,
        max_queue: int = 10_000,
    ) -> None:
        self.pool = pool
        self.breaker = breaker
        self.errors: Counter[str] = Counter() if errors is None else errors
        self.patience_s = pool.timeout_s + pool.acquire_timeout_s
        self._exchange = exchange
        self._batcher: Batcher[Command, Answer | None] = Batcher(self._send, max_batch, max_queue)
        self._busy = False
        self._renewal: asyncio.Task[None] | None = None

    @property
    def batches(self) -> int:
        """So far, those that failed included."""
        return self._batcher.batches

    @property
    def waiting(self) -> int:
        """Commands not yet sent."""
        return self._batcher.waiting

    @property
    def on_sent(self) -> Callable[[int, float], None] | None:
        """Told of each batch how many commands it had and how many seconds it took."""
        return self._batcher.on_sent

    @on_sent.setter
    def on_sent(self, told: Callable[[int, float], None] | None) -> None:
        self._batcher.on_sent = told

    @property
    def connections(self) -> tuple[int, int]:
        """Open ones, and how many of them are in use."""
        return self.pool.idle + self.pool.in_use, self.pool.in_use

    @property
    def size(self) -> int:
        """The most connections."""
        return self.pool.max_connections

    @property
    def waits(self) -> int:
        return self.pool.waits

    @property
    def waited_s(self) -> float:
        return self.pool.waited_s

    @property
    def exhausted(self) -> int:
        return self.pool.exhausted

    @property
    def is_away(self) -> bool:
        """Whether nothing is sent now."""
        return self.breaker.state == "open"

    def make(self) -> AbstractConnection:
        """A connection of its own, not open yet."""
        return self.pool.make()

    def holds(self, connection: AbstractConnection) -> bool:
        """Whether what was made still leads to where messages are heard."""
        return True

    async def open(self) -> None:
        """Open the connections that are kept open. Where Redis is away, that is counted, and tried again when used."""
        self._renewal = asyncio.get_running_loop().create_task(self._renew(), name="redis-renewal", context=Context())
        try:
            await self.pool.warm()
        except FAILURES as error:
            self.errors[reason_of(error)] += 1

    async def close(self) -> None:
        """Send what waits, then close all connections. Raises what ended their renewal before, if anything did."""
        await self._batcher.close()
        await ended(self._renewal)
        try:
            await self.pool.disconnect()
        except FAILURES as error:
            self.errors[reason_of(error)] += 1

    def post(self, command: Command) -> Future[Answer | None]:
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
        return refused()

    def post_each(self, command: Command) -> list[Future[Answer | None]]:
        """Have a command done by every server there is: by this one."""
        return [self.post(command)]

    def deletions(self, keys: Sequence[bytes]) -> list[Command]:
        """What deletes these keys, in their order."""
        return [Command((b"DEL", *keys))]

    async def problem(self) -> str | None:
        """What is wrong with Redis, as far as a question tells; None for nothing."""
        asked = self.post(Command(None, (b"kyb:health",)))
        await asyncio.wait((asked,), timeout=self.patience_s)
        return None if asked.done() and asked.result() is not None else "Redis does not answer"

    async def _renew(self) -> None:
        """Renew old connections also while nobody asks for one."""
        while True:
            await asyncio.sleep(self.pool.max_age_s * AGE_JITTER)
            await self.pool.renew()

    async def _send(self, commands: list[Command]) -> list[Answer | None]:
        """The answers to one batch, None for each command that was not done."""
        self._busy = True
        try:
            answers = await self.breaker.call(
                lambda: self._exchange(self.pool, commands, self.patience_s),
                sum([command.weight for command in commands]),
            )
        except BreakerOpen:
            self.errors["breaker_open"] += len(commands)
        except FAILURES as error:
            self.errors[reason_of(error)] += len(commands)
        else:
            if None in answers:
                self.errors["refused"] += answers.count(None)
            return answers
        finally:
            self._busy = False
        return [None] * len(commands)


def refused() -> Future[Answer | None]:
    """The answer to a command that is not sent."""
    future: Future[Answer | None] = asyncio.get_running_loop().create_future()
    future.set_result(None)
    return future


async def ended(task: asyncio.Task[None] | None) -> None:
    """Cancel a task and wait for its end. Raises what had ended it before, if anything did."""
    if task is not None:
        task.cancel()
        await asyncio.wait((task,))
        if not task.cancelled():
            task.result()


def reason_of(error: Exception) -> str:
    return "timeout" if isinstance(error, TimeoutError | RedisTimeoutError) else "connection"
