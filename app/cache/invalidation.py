"""Telling all processes what no longer holds, and hearing it."""

from __future__ import annotations

import asyncio
import logging
import math
import random
from collections.abc import Callable, Sequence
from contextvars import Context

import msgspec
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ConnectionError as RedisConnectionError

from app.cache.envelope import tenant_bytes
from app.cache.local import Key, Local
from app.cache.pool import FAILURES
from app.telemetry.log import event

log = logging.getLogger(__name__)

CHANNEL = b"kyb:invalidate"

FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 2.0

_decoder = msgspec.msgpack.Decoder(list[tuple[str, bytes, bytes]])


def pack(keys: Sequence[Key]) -> bytes:
    """The message that names these keys: a msgpack array of [cache name, tenant, key]."""
    return msgspec.msgpack.encode([(name, tenant_bytes(tenant_id), key) for name, tenant_id, key in keys])


def unpack(message: bytes) -> list[Key]:
    """The keys that a message names. Raises ValueError for anything that is no such message."""
    return [(name, tenant.decode("utf-8", "surrogatepass"), key) for name, tenant, key in _decoder.decode(message)]


class Listener:
    """Hears what other processes made invalid, over a connection of its own, and has the local tiers forget it.

    connect: makes a connection that is not open yet, such as `Pool.make`.  holds: whether one that was made still leads
    to where messages are heard.
    timeout_s: for making the connection and for each answer.  ping_every_s: how long it may be silent before it is
    asked whether it is still there; a link that says nothing is lost after the sum of both.
    deaf_ttl_s: how long the local tiers keep a value put while there is no link.
    `linked`; `messages`, `malformed` (all that the local tiers hold is forgotten for each), `losses` of the link.

    # Design: what is said while nobody hears is said once. So the local tiers are forgotten when the link is lost, and
    again when it is back, and in between keep values for a short time only.
    """

    __slots__ = (
        "_connect",
        "_deaf_ttl_s",
        "_holds",
        "_locals",
        "_ping_every_s",
        "_random",
        "_task",
        "_timeout_s",
        "linked",
        "losses",
        "malformed",
        "messages",
    )

    def __init__(
        self,
        connect: Callable[[], AbstractConnection],
        *locals: Local,
        holds: Callable[[AbstractConnection], bool] = lambda _: True,
        timeout_s: float = 0.2,
        ping_every_s: float = 0.25,
        deaf_ttl_s: float = 1.0,
        random: Callable[[], float] = random.random,
    ) -> None:
        self._connect = connect
        self._holds = holds
        self._locals = locals
        self._timeout_s = timeout_s
        self._ping_every_s = ping_every_s
        self._deaf_ttl_s = deaf_ttl_s
        self._random = random
        self._task: asyncio.Task[None] | None = None
        self.linked = False
        self.messages = 0
        self.malformed = 0
        self.losses = 0

    def start(self) -> None:
        """Begin to listen, and go on until `stop`, whatever becomes of the link."""
        self._limit(self._deaf_ttl_s)
        self._task = asyncio.get_running_loop().create_task(self._listen(), name="cache-listener", context=Context())

    async def stop(self) -> None:
        """Stop and close the connection. Raises what ended the listening before, if anything did."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait((self._task,))
            if not self._task.cancelled():
                self._task.result()

    async def _listen(self) -> None:
        failures = 0
        while True:
            connection = self._connect()
            try:
                await self._subscribe(connection)
                if failures:
                    log.info("Redis is there again", extra=event("redis_back"))
                failures = 0
                await self._hear(connection)
            except FAILURES as error:
                self.losses += self.linked
                failures += 1
                if failures == 1:
                    # Said once, not at every attempt.
                    said = "Redis is away, so values are kept here alone, and only briefly: %s"
                    log.warning(said, _told(error), extra=event("redis_away"))
            finally:
                self._go_deaf()
                await connection.disconnect(nowait=True)
            await asyncio.sleep(self._pause_s(failures))

    async def _subscribe(self, connection: AbstractConnection) -> None:
        async with asyncio.timeout(self._timeout_s):
            await connection.connect()  # type: ignore[no-untyped-call]
            await connection.send_command(b"SUBSCRIBE", CHANNEL)
            await connection.read_response()
        self._clear()
        self._limit(math.inf)
        self.linked = True

    async def _hear(self, connection: AbstractConnection) -> None:
        """Take messages until the link fails; raises one of FAILURES."""
        asked = False
        while True:
            if not self._holds(connection):
                raise RedisConnectionError("what is said is not heard there any more")
            reply = await connection.read_response(timeout=self._timeout_s if asked else self._ping_every_s)
            if reply is not None:
                asked = False
                if reply[0] == b"message":
                    self._take(reply[2])
            elif asked:
                raise RedisConnectionError(f"no answer to a ping within {self._timeout_s:g} s")
            else:
                async with asyncio.timeout(self._timeout_s):
                    await connection.send_command(b"PING")
                asked = True

    def _take(self, message: bytes) -> None:
        self.messages += 1
        try:
            keys = unpack(message)
        except ValueError:
            # It may have been meant for anything.
            self.malformed += 1
            self._clear()
            return
        for local in self._locals:
            for key in keys:
                local.drop(key)

    def _go_deaf(self) -> None:
        if self.linked:
            self.linked = False
            self._clear()
            self._limit(self._deaf_ttl_s)

    def _clear(self) -> None:
        for local in self._locals:
            local.clear()

    def _limit(self, ttl_s: float) -> None:
        for local in self._locals:
            local.ttl_limit_s = ttl_s

    def _pause_s(self, failures: int) -> float:
        """Longer after each failure in a row; half of it by chance, so that all processes do not come back at once."""
        longest_s = min(math.ldexp(FIRST_PAUSE_S, min(failures - 1, 10)), LONGEST_PAUSE_S)
        return longest_s * (1 - self._random() / 2)


def _told(error: Exception) -> str:
    return str(error) or "no answer in time"
