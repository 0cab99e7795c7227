"""The cache as the tests drive it: pods, each what one process holds of it, and the source of their values."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any

from app.cache.cluster import Cluster
from app.cache.invalidation import Listener
from app.cache.link import Link
from app.cache.local import Local
from app.cache.pool import FAILURES, Pool
from app.cache.redis import Shared
from app.cache.tiers import Cache
from app.resilience.breaker import Breaker
from app.settings.urls import redis_hosts, redis_url_at

TENANT = "tenant"
KEY = b"key"
PLACE = f"kyb:assessment:{{{TENANT}}}:{KEY.hex()}"

LONG_S = 5.0
"""A timeout that no test may come near."""
TIMEOUT_S = 0.2
"""The timeout where a test is about what happens after it."""
PATIENCE_S = 0.9
"""What a get may take with Redis at its worst, on a machine that is busy with other things too."""


class Source:
    """Where values come from: counts how often it is asked, and answers when it is open."""

    def __init__(self, value: bytes | None = b"value", is_open: bool = True) -> None:
        self.value = value
        self.error: Exception | None = None
        self.asked = 0
        self.open = asyncio.Event()
        if is_open:
            self.open.set()

    async def __call__(self) -> bytes | None:
        self.asked += 1
        value, error = self.value, self.error
        await self.open.wait()
        if error is not None:
            raise error
        return value


class Pod:
    """url: of a Redis, or of some nodes of a cluster; None for none.
    claim_ttl_s: also how long it waits for others; long, so that a test that had to wait for it would not pass."""

    def __init__(
        self,
        url: str | None,
        claim_ttl_s: float = 30.0,
        timeout_s: float = LONG_S,
        min_calls: int = 10,
        cluster: bool = False,
    ) -> None:
        # A busy machine is not what these pods are about, except where one is given less patience.
        acquire_s = LONG_S if timeout_s == LONG_S else 0.05

        def pool(url: str) -> Pool:
            return Pool(url, connections=4, min_idle=1, max_age_s=600, timeout_s=timeout_s, acquire_timeout_s=acquire_s)

        def breaker(name: str = "redis") -> Breaker:
            return Breaker(name, failures=FAILURES, min_calls=min_calls, open_s=0.3, probes=1)

        self.local = Local(10_000, 10_000_000)
        self.breaker = breaker()
        self.shared: Shared | None = None
        self.listener: Listener | None = None
        if url is not None:
            way = (
                Cluster(
                    redis_hosts(url), lambda at: pool(redis_url_at(url, at)), lambda at: breaker(str(at)), every_s=0.1
                )
                if cluster
                else Link(pool(url), self.breaker)
            )
            self.shared = Shared(way)
            self.listener = Listener(way.make, self.local, holds=way.holds, timeout_s=timeout_s)
        self.cache: Cache[bytes] = Cache(
            "assessment",
            "1",
            local=self.local,
            shared=self.shared,
            ttl_s=60,
            negative_ttl_s=60,
            encode=lambda value: value,
            decode=decode,
            size=len,
            claim_ttl_s=claim_ttl_s,
            wait_s=claim_ttl_s,
        )

    @property
    def redis(self) -> Shared:
        assert self.shared is not None
        return self.shared

    @property
    def nodes(self) -> Cluster:
        assert isinstance(self.redis.way, Cluster)
        return self.redis.way

    @property
    def pool(self) -> Pool:
        assert isinstance(self.redis.way, Link)
        return self.redis.way.pool

    @property
    def link(self) -> Listener:
        assert self.listener is not None
        return self.listener

    async def get(
        self, load: Callable[[], Awaitable[bytes | None]], key: bytes = KEY, tenant_id: str = TENANT
    ) -> object:
        return await self.cache.get(tenant_id, key, load)

    async def timed_get(self, load: Source, key: bytes, tenant_id: str = TENANT) -> float:
        """Seconds that a get of a key nobody asked for before took; it must give what the source gives."""
        loop = asyncio.get_running_loop()
        started = loop.time()
        assert await self.get(load, key, tenant_id) == load.value
        return loop.time() - started

    async def settle(self) -> None:
        """Wait until what was sent and not waited for is done."""
        await self.redis.get(b"settle")


def decode(payload: bytes) -> bytes:
    if payload.startswith(b"unreadable"):
        raise ValueError(payload)
    return payload


@asynccontextmanager
async def running(*pods: Pod, linked: bool = True) -> AsyncIterator[None]:
    """The pods opened and, unless told otherwise, listening; nothing of them may be left over after."""
    sockets, tasks = open_sockets(), asyncio.all_tasks()
    async with AsyncExitStack() as stack:
        for pod in pods:
            await pod.redis.open()
            stack.push_async_callback(pod.redis.close)
            if linked:
                pod.link.start()
                stack.push_async_callback(pod.link.stop)
                await until(lambda pod=pod: pod.link.linked)
        yield
        # Before the link is given up, which would hide them.
        assert [pod.local.flying for pod in pods] == [0] * len(pods)
    assert [pod.redis.way.connections[1] for pod in pods] == [0] * len(pods)
    await until(lambda: asyncio.all_tasks() == tasks, "all tasks have ended")
    await until(lambda: open_sockets() <= sockets, "all sockets are closed")


def open_sockets() -> int:
    found = 0
    for number in os.listdir("/proc/self/fd"):
        # The listing itself is a file that is closed by now, and another may be closed at this moment.
        with suppress(FileNotFoundError):
            found += os.readlink(f"/proc/self/fd/{number}").startswith("socket:")
    return found


async def until(condition: Callable[[], object], what: str = "", limit_s: float = 10.0) -> float:
    """Seconds until the condition held."""
    loop = asyncio.get_running_loop()
    started = loop.time()
    while not condition():
        assert loop.time() - started < limit_s, f"not within {limit_s} s: {what or condition}"
        await asyncio.sleep(0.002)
    return loop.time() - started


def play(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(scenario())
