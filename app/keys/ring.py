"""Recognising keys: at once those seen a moment ago, the others by way of the cache and the store."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from contextvars import Context
from functools import partial
from hmac import compare_digest
from ipaddress import IPv4Network, IPv6Network, ip_network
from itertools import islice
from typing import Any, Literal, TypeVar

import msgspec
from msgspec import Struct

from app import ids
from app.cache.local import MISSING, Local
from app.cache.redis import Shared
from app.cache.tiers import Cache
from app.credentials import digest, recognise
from app.keys.uses import Uses
from app.keys.validity import permissions, works
from app.resilience.deadline import Deadline, DeadlineExceeded
from app.roles import Permission, Role
from app.store.access import Access, StoredKey
from app.store.base import StoreUnavailable

FRESH_S = 1.0
"""How long a key is recognised without a question."""
CACHED_S = 1.5
"""How long each tier of the cache has a key. With FRESH_S a key that was revoked is gone after 4 s at the latest, and
what it takes to load one, also where nobody is told of it."""
KEPT_WAIT_S = 0.1
"""How long a key that this process has known is looked up before it is taken as it was known: the request that waits
goes on to the same database, and all of it has to be told in time when that stands still."""
MOST_SEEN = 10_000
NO_TENANT = ""
"""An id names its key whoever's it is; whose it is, the key says itself."""
NO_DIGEST = bytes(32)
_CACHED = b"cached key\0"
_DIGEST_BYTES = len(NO_DIGEST)

Found = TypeVar("Found")

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(StoredKey).decode


class Principal(Struct, frozen=True):
    """Who sends a request. networks: where from it may come, empty for everywhere.  allowance: how much it may ask for,
    None for as much as it likes."""

    key_id: str
    tenant_id: str
    role: Role
    permissions: frozenset[Permission]
    networks: tuple[IPv4Network | IPv6Network, ...]
    expires_ms: int | None
    allowance: object | None


class Ended(Struct, frozen=True):
    """Whose key was sent that does not open anything: it was revoked, has expired, or came from outside of its
    networks. For those alone who may know; whoever sent it is told what everybody is."""

    key_id: str
    tenant_id: str
    why: Literal["revoked", "expired", "network"]


class _Seen:
    """A key that was found good. refresh_at, end: on the ring's clock."""

    __slots__ = ("end", "principal", "refresh_at", "refreshing", "stored")

    def __init__(self, stored: StoredKey, principal: Principal, refresh_at: float, end: float) -> None:
        self.stored = stored
        self.principal = principal
        self.refresh_at = refresh_at
        self.end = end
        self.refreshing = False


class Keyring:
    """Tells whose a key is.

    secret: what keys are hashed under.  allowance_of: what a principal's requests are taken from.
    shared: None where this process is alone.  kept_s: how long what was known of a key still holds while the store is
    unavailable.  timeout_s: the longest wait for the cache and the store together.
    uses_every_s: how often it is written when keys were last used.
    clock: seconds, monotonic, as that of `local`.  now_ms: Unix time.

    # Design: three memories. `_seen`, by the key's text, is the fast path. The cache, by id, hears of revocations, and
    bounds how late one is noticed that it did not hear of. `_kept` hears of them too, lasts longer, and is asked only
    where the store does not answer. What the cache has forgotten while it was looked up is neither seen nor kept: it
    may have been revoked.
    """

    def __init__(
        self,
        store: Access,
        secret: bytes,
        allowance_of: Callable[[StoredKey], object | None],
        *,
        local: Local,
        shared: Shared | None,
        kept_s: float,
        timeout_s: float,
        uses_every_s: float = 60.0,
        clock: Callable[[], float] = time.monotonic,
        now_ms: Callable[[], int] = ids.now_ms,
    ) -> None:
        self._store = store
        self._secret = secret
        self._allowance_of = allowance_of
        self._clock = clock
        self._now_ms = now_ms
        self._deadline = Deadline(timeout_s)
        self._load_deadline = Deadline(timeout_s)
        self._uses = Uses(store, uses_every_s)
        self._seen: dict[bytes, _Seen] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        # An id that nobody has is not remembered: whoever guesses would fill the cache with guesses.
        cache = partial(
            Cache[StoredKey],
            version="1",
            local=local,
            shared=shared,
            negative_ttl_s=0.0,
            encode=self._signed,
            decode=self._checked,
            size=_size_bytes,
        )
        self._cache = cache("key", ttl_s=CACHED_S)
        # Only its local tier is used, and of Redis the message that has it forget.
        self._kept = cache("key-kept", ttl_s=kept_s)

    def start(self) -> None:
        """Begin to write when keys were last used."""
        self._uses.start()

    async def stop(self) -> None:
        """Write it once more, and leave no task."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        await self._uses.stop()

    def known(self, raw: bytes) -> Principal | None:
        """Whose the key is, if it was found good within the last second; a busy one is looked up anew meanwhile."""
        seen = self._seen.get(raw)
        if seen is None:
            return None
        now = self._clock()
        if now >= seen.refresh_at:
            if now >= seen.end:
                return None
            if not seen.refreshing:
                self._refresh(raw, seen)
        return seen.principal

    def remembers(self, raw: bytes) -> bool:
        """Whether a key of its id was let in here, as long ago as keys are kept."""
        id = recognise(raw)
        return id is not None and self._kept.peek(NO_TENANT, id.encode("ascii")) is not MISSING

    async def find(self, raw: bytes) -> Principal | Ended | None:
        """Whose the key is, or was where it works no more; None for what is no key. Raises StoreUnavailable where that
        cannot be told now."""
        id = recognise(raw)
        if id is None:
            return None
        given = digest(raw, self._secret)
        stored = await self._stored(id)
        # Compared also where there is none, so that the time does not tell which ids there are.
        is_right = compare_digest(given, NO_DIGEST if stored is None else stored.digest)
        now_ms = self._now_ms()
        if stored is None or not is_right or not works(stored, now_ms):
            self._seen.pop(raw, None)
            if stored is None or not is_right:
                return None
            return Ended(id, stored.tenant_id, "expired" if stored.revoked_ms is None else "revoked")
        seen = self._seen.get(raw)
        principal = seen.principal if seen is not None and seen.stored == stored else self._principal(stored)
        if self._kept.peek(NO_TENANT, id.encode("ascii")) is stored:
            self._remember(raw, stored, principal, now_ms)
        self._uses.note(id, now_ms)
        return principal

    async def forget(self, id: str) -> bool:
        """Have all processes look the key up anew, once it has changed; False where Redis could not be told."""
        self._unsee(id)
        keys = (id.encode("ascii"),)
        told = await asyncio.gather(*(cache.invalidate(NO_TENANT, keys) for cache in (self._cache, self._kept)))
        return all(told)

    async def _stored(self, id: str) -> StoredKey | None:
        """The key from the cache or the store, or as it was last known where they do not tell soon."""
        key = id.encode("ascii")
        if self._kept.peek(NO_TENANT, key) is MISSING:
            return await self._look_up(id)
        # By itself, so that what it finds holds from then on also where it comes too late for this request.
        looking = self._spawn(self._look_up(id), "key-look-up")
        await asyncio.wait((looking,), timeout=KEPT_WAIT_S)
        if not looking.done() or isinstance(looking.exception(), StoreUnavailable):
            kept = self._kept.peek(NO_TENANT, key)
            if kept is not MISSING:
                return kept
        return await looking

    async def _look_up(self, id: str) -> StoredKey | None:
        key = id.encode("ascii")
        stored = await _bounded(self._deadline, self._cache.get(NO_TENANT, key, partial(self._load, id)))
        if stored is not None and self._cache.peek(NO_TENANT, key) is stored:
            # Revoked or not: it takes the place of what was known before.
            if self._kept.peek(NO_TENANT, key) not in (MISSING, stored):
                self._unsee(id)
            self._kept.keep(NO_TENANT, key, stored)
        return stored

    async def _load(self, id: str) -> StoredKey | None:
        return await _bounded(self._load_deadline, self._store.key(id))

    def _principal(self, stored: StoredKey) -> Principal:
        return Principal(
            key_id=stored.id,
            tenant_id=stored.tenant_id,
            role=stored.role,
            permissions=permissions(stored),
            networks=tuple(map(ip_network, stored.networks)),
            expires_ms=stored.expires_ms,
            allowance=self._allowance_of(stored),
        )

    def _remember(self, raw: bytes, stored: StoredKey, principal: Principal, now_ms: int) -> None:
        now = self._clock()
        left_s = FRESH_S if stored.expires_ms is None else min(FRESH_S, (stored.expires_ms - now_ms) / 1000)
        seen = self._seen
        seen.pop(raw, None)
        seen[raw] = _Seen(stored, principal, now + left_s / 2, now + left_s)
        for old in list(islice(seen, 2)):
            if seen[old].end <= now or len(seen) > MOST_SEEN:
                del seen[old]

    def _unsee(self, id: str) -> None:
        for raw in [raw for raw, seen in self._seen.items() if seen.stored.id == id]:
            del self._seen[raw]

    def _refresh(self, raw: bytes, seen: _Seen) -> None:
        seen.refreshing = True
        self._spawn(self._renew(raw), "key-renewal")

    def _spawn(self, work: Coroutine[Any, Any, Found], name: str) -> asyncio.Task[Found]:
        # A context of its own: it must not carry the deadline of whichever request came first.
        task = asyncio.get_running_loop().create_task(work, name=name, context=Context())
        self._tasks.add(task)
        task.add_done_callback(self._end)
        return task

    def _end(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        # What it raised is told to those who still wait for it.
        if not task.cancelled():
            task.exception()

    async def _renew(self, raw: bytes) -> None:
        # Whoever uses the key once its time is over asks for it again, and is told.
        with suppress(StoreUnavailable):
            await self.find(raw)

    def _signed(self, stored: StoredKey) -> bytes:
        """A key as it stands in Redis: whoever can only write there can give nobody a role."""
        payload = _encode(stored)
        return digest(_CACHED + payload, self._secret) + payload

    def _checked(self, data: bytes) -> StoredKey:
        """Raises ValueError for what was not written by `_signed`."""
        mac, payload = data[:_DIGEST_BYTES], data[_DIGEST_BYTES:]
        if not compare_digest(mac, digest(_CACHED + payload, self._secret)):
            raise ValueError("the cached key was not written by this service")
        return _decode(payload)


async def _bounded(deadline: Deadline, read: Awaitable[StoredKey | None]) -> StoredKey | None:
    try:
        return await deadline.run(read)
    except DeadlineExceeded as late:
        raise StoreUnavailable(f"the database did not answer within {late.timeout_s:g} s") from None


def _size_bytes(stored: StoredKey) -> int:
    """About what it takes in memory."""
    return 1024 + 64 * len(stored.networks)
