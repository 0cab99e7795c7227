"""Keys as the tests of them drive it: clocks that stand still, a store that can be away, pods with a ring each."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from cached import Pod
from records import Records

from app.cache.local import Local
from app.cache.redis import Shared
from app.credentials import recognise
from app.ids import now_ms
from app.keys import Keyring, Keys, Principal
from app.keys.within import OPERATOR
from app.roles import Role
from app.settings.rates import Rate
from app.settings.tree import Limits
from app.store.access import StoredKey
from app.store.base import StoreUnavailable

SECRET = b"what keys are hashed under in the tests"
LIMITS = Limits(
    tiers={"standard": Rate(200, 400), "unlimited": None}, default_tier="standard", tenant=None, service=None
)
KEPT_S = 300.0
ALL = OPERATOR


class Clock:
    """Seconds that pass when they are told to; the same as Unix time."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.started_ms = now_ms()

    def __call__(self) -> float:
        return self.now

    def now_ms(self) -> int:
        return self.started_ms + round((self.now - 1000.0) * 1000)


class Door:
    """A store that can be shut, and counts what it is asked for. opens: it answers nobody while that is not set."""

    def __init__(self, store: Records) -> None:
        self._store = store
        self.is_shut = False
        self.opens = asyncio.Event()
        self.opens.set()
        self.asked: list[str] = []

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        async def ask(*arguments: Any, **options: Any) -> Any:
            self.asked.append(name)
            await self.opens.wait()
            if self.is_shut:
                raise StoreUnavailable("it is shut")
            return await getattr(self._store, name)(*arguments, **options)

        return ask


class House:
    """One process: a ring and the keys of a store. clock: None for the real one."""

    def __init__(
        self,
        store: Any,
        clock: Clock | None = None,
        pod: Pod | None = None,
        secret: bytes = SECRET,
        timeout_s: float = 5.0,
        uses_every_s: float = 3600.0,
    ) -> None:
        self.store = store
        clocks: Mapping[str, Any] = {} if clock is None else {"clock": clock}
        time_of_day: Mapping[str, Any] = {} if clock is None else {"now_ms": clock.now_ms}
        local = pod.local if pod is not None else Local(10_000, 10_000_000, **clocks)
        shared: Shared | None = None if pod is None else pod.shared
        self.ring = Keyring(
            store,
            secret,
            lambda key: ("allowance", key.tier, key.rate),
            local=local,
            shared=shared,
            kept_s=KEPT_S,
            timeout_s=timeout_s,
            uses_every_s=uses_every_s,
            **clocks,
            **time_of_day,
        )
        self.keys = Keys(store, secret, "test", LIMITS, self.ring.forget, **time_of_day)

    async def made(self, role: Role = "assessor", tenant_id: str = "acme", **more: Any) -> bytes:
        """The text of a new key."""
        text, _ = await self.keys.create(tenant_id, "made", role, actor="tests", limit=ALL, **more)
        return text.encode()

    async def caller(self, raw: bytes) -> Principal | None:
        """Who sends the key, as a request asks for it."""
        found = self.ring.known(raw) or await self.ring.find(raw)
        return found if isinstance(found, Principal) else None


def id_of(raw: bytes) -> str:
    id = recognise(raw)
    assert id is not None
    return id


async def key_of(store: Any, raw: bytes) -> StoredKey:
    key: StoredKey | None = await store.key(id_of(raw))
    assert key is not None
    return key
