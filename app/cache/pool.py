"""Connections to Redis: a bounded number, a few of them always open, none of them for too long."""

from __future__ import annotations

import random
import time
from asyncio import StreamWriter, timeout
from collections.abc import Callable
from contextlib import suppress
from typing import Any
from weakref import WeakKeyDictionary

from redis.asyncio.connection import AbstractConnection, BlockingConnectionPool, Connection, parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

AGE_JITTER = 0.1

FAILURES: tuple[type[Exception], ...] = (RedisError, OSError)
"""What a call over a connection raises when Redis is not well. A TimeoutError is an OSError."""


class _Telling:
    """What every kind of connection here does besides: a write to one that was just cut is told as a failure.

    uvloop raises RuntimeError there, asyncio's own loop AttributeError or nothing, as the version of Python has it.
    """

    async def send_packed_command(self, *args: Any, **options: Any) -> None:
        writer: StreamWriter | None = self._writer  # type: ignore[attr-defined]
        if writer is not None and writer.is_closing():
            raise RedisConnectionError("the connection was cut")
        try:
            await super().send_packed_command(*args, **options)  # type: ignore[misc]
        except RuntimeError as error:
            raise RedisConnectionError(f"the connection was cut: {error}") from error


class Pool(BlockingConnectionPool):
    """A pool that never waits long and renews its connections.

    connections: the most there are.  min_idle: how many of them stay open when nobody uses them.
    max_age_s: a connection older than this is closed when it comes back or `renew` finds it, and replaced where fewer
    than min_idle would be left open; up to a tenth earlier, so that many do not go at once.
    timeout_s: for making a connection.  acquire_timeout_s: for waiting that one comes back.
    What the URL says of timeouts, retries or the pool's size is overruled.

    # Design: connections have no timeout of their own, so whoever uses one does it within asyncio.timeout. redis-py
    # would use asyncio.wait_for, and that loses a cancellation now and then before Python 3.12: also a timeout's.
    """

    def __init__(
        self,
        url: str,
        *,
        connections: int,
        min_idle: int,
        max_age_s: float,
        timeout_s: float,
        acquire_timeout_s: float,
        clock: Callable[[], float] = time.monotonic,
        random: Callable[[], float] = random.random,
    ) -> None:
        if not 0 <= min_idle <= connections or connections < 1:
            raise ValueError(
                f"min_idle must be from 0 to connections, and {min_idle!r} is not from 0 to {connections!r}"
            )
        given: dict[str, Any] = {"connection_class": Connection, **parse_url(url)}
        kind = given["connection_class"]
        super().__init__(
            **{
                **given,
                "connection_class": type(kind.__name__, (_Telling, kind), {}),
                "max_connections": connections,
                "timeout": acquire_timeout_s,
                "socket_timeout": None,
                "socket_connect_timeout": timeout_s,
                "retry": Retry(NoBackoff(), 0),
                # Two needs no greeting, and nothing comes unasked on its connections.
                "protocol": 2,
            }
        )
        self.min_idle = min_idle
        self.max_age_s = max_age_s
        self.timeout_s = timeout_s
        self.acquire_timeout_s = acquire_timeout_s
        self._clock = clock
        self._random = random
        self.waits = 0
        self.waited_s = 0.0
        self.exhausted = 0
        self._ends: WeakKeyDictionary[AbstractConnection, float] = WeakKeyDictionary()

    @property
    def idle(self) -> int:
        """Connections that are open and not in use."""
        return sum(connection.is_connected for connection in self._available_connections)

    @property
    def in_use(self) -> int:
        return len(self._in_use_connections)

    def make(self) -> AbstractConnection:
        """A connection like the pool's that is not one of them, and not open yet."""
        connection: AbstractConnection = self.make_connection()  # type: ignore[no-untyped-call]
        return connection

    async def warm(self) -> None:
        """Have min_idle connections open. Raises one of FAILURES."""
        held: list[AbstractConnection] = []
        try:
            for _ in range(self.min_idle):
                held.append(await self.take())
        finally:
            for connection in held:
                await self.release(connection)

    async def renew(self) -> None:
        """Close what grew too old unused, and replace it as far as min_idle says. To be called now and then."""
        resting, in_use = self._available_connections, self._in_use_connections
        for connection in tuple(resting):
            # While another was renewed, this one may have been taken.
            if connection in resting and self._is_old(connection):
                resting.remove(connection)
                in_use.add(connection)
                await self.release(connection)

    async def take(self) -> AbstractConnection:
        """A connection that is open and ready; it has to be given back with `release`. Raises one of FAILURES."""
        begun = 0.0 if self.in_use < self.max_connections else self._clock()
        try:
            connection: AbstractConnection = await self.get_connection()  # type: ignore[no-untyped-call]
        except BaseException:
            self.exhausted += begun > 0
            raise
        finally:
            if begun:
                self.waits += 1
                self.waited_s += self._clock() - begun
        return connection

    async def ensure_connection(self, connection: AbstractConnection) -> None:
        """Have the connection ready for a command, renewed if it grew too old unused. Raises one of FAILURES."""
        if self._is_old(connection):
            await connection.disconnect(nowait=True)
        await self._open(connection)

    async def release(self, connection: AbstractConnection) -> None:
        try:
            if self._is_old(connection):
                await connection.disconnect(nowait=True)
                if self.idle < self.min_idle:
                    # Not well, it stays closed, and whoever takes it next is told.
                    with suppress(*FAILURES):
                        await self._open(connection)
        finally:
            await super().release(connection)

    async def _open(self, connection: AbstractConnection) -> None:
        if not connection.is_connected:
            self._ends[connection] = self._clock() + self.max_age_s * (1 - AGE_JITTER * self._random())
        async with timeout(self.timeout_s):
            await super().ensure_connection(connection)

    def _is_old(self, connection: AbstractConnection) -> bool:
        return connection.is_connected and self._clock() >= self._ends[connection]
