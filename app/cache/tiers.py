"""One kind of value: looked for in this process, then in Redis, then where it comes from, once for all who ask."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from functools import partial
from secrets import token_bytes
from typing import Generic, Literal, TypeVar

from app.cache.envelope import ABSENT, seal, tenant_bytes, unseal
from app.cache.invalidation import CHANNEL, pack
from app.cache.local import MISSING, Flight, Local, Missing
from app.cache.redis import Shared
from app.cache.slots import tag
from app.resilience.singleflight import SingleFlight

V = TypeVar("V")
Load = Callable[[], Awaitable[V | None]]

TOKEN_BYTES = 12
FIRST_PAUSE_S = 0.005
LONGEST_PAUSE_S = 0.025
PAUSE_GROWTH = 1.5


class Cache(Generic[V]):
    """Values of one name and version; a key is a tenant's, and None stands for knowing that there is no value.

    shared: None where this process is alone.  ttl_s: in each tier, so a value may be twice as old if nobody invalidates
    it.  negative_ttl_s: the same for an absence. Zero keeps nothing.
    encode, decode: to and from what stands in Redis; what decode refuses is as if it was not there.
    version: to be changed with what encode writes.  size: bytes in memory, about.
    claim_ttl_s: how long a load may take to be put into Redis.  wait_s: how long a process waits for another's load
    before it makes its own, which is not put there.
    `hits_local`, `hits_shared`, `loads`, `negative` (loads that found no value), `discarded` (found in Redis and not
    believed), `waited` (for another process to load).

    # Design: across processes a key is loaded by whoever holds its claim, and only with the claim a value gets into
    Redis. To invalidate deletes both, so a load that began before leaves nothing behind.
    """

    __slots__ = (
        "_claim_ttl_s",
        "_decode",
        "_encode",
        "_flights",
        "_local",
        "_negative_ttl_s",
        "_shared",
        "_size",
        "_ttl_s",
        "_wait_s",
        "discarded",
        "hits_local",
        "hits_shared",
        "loads",
        "name",
        "negative",
        "version",
        "waited",
    )

    def __init__(
        self,
        name: str,
        version: str,
        *,
        local: Local,
        shared: Shared | None,
        ttl_s: float,
        negative_ttl_s: float,
        encode: Callable[[V], bytes],
        decode: Callable[[bytes], V],
        size: Callable[[V], int],
        claim_ttl_s: float = 1.0,
        wait_s: float = 0.65,
    ) -> None:
        if not name or ":" in name:
            raise ValueError(f"the name of a cache is part of keys and must be without a colon, not {name!r}")
        self.name = name
        self.version = version
        self._local = local
        self._shared = shared
        self._ttl_s = ttl_s
        self._negative_ttl_s = negative_ttl_s
        self._encode = encode
        self._decode = decode
        self._size = size
        self._claim_ttl_s = claim_ttl_s
        self._wait_s = wait_s
        self._flights: SingleFlight[Flight, V | None] = SingleFlight()
        self.hits_local = 0
        self.hits_shared = 0
        self.loads = 0
        self.negative = 0
        self.discarded = 0
        self.waited = 0

    def peek(self, tenant_id: str, key: bytes) -> V | Literal[Missing.MISSING] | None:
        """What this process knows: the value, None for no value, MISSING for nothing."""
        value: V | Literal[Missing.MISSING] | None = self._local.get((self.name, tenant_id, key))
        if value is not MISSING:
            self.hits_local += 1
        return value

    async def get(self, tenant_id: str, key: bytes, load: Load[V]) -> V | None:
        """The value, from the first place that has it. Raises what `load` raises, to all who wait for it.

        load: called where nobody has it; goes on when the caller is cancelled, and so must bound its own time.
        """
        value = self.peek(tenant_id, key)
        if value is not MISSING:
            return value
        flight = self._local.flight((self.name, tenant_id, key))
        return await self._flights.run(flight, partial(self._fly, flight, load))

    def keep(self, tenant_id: str, key: bytes, value: V) -> None:
        """Put a value that was just made into this process's tier."""
        self._local.put((self.name, tenant_id, key), value, self._size(value), self._ttl_s)

    async def invalidate(self, tenant_id: str, keys: Iterable[bytes]) -> bool:
        """Forget the keys everywhere, once what they stand for has changed; whether Redis took it.

        If not, it may still hold the old values for as long as they live, and the other processes were not told.
        """
        names = [(self.name, tenant_id, key) for key in keys]
        if not names:
            return True
        for name in names:
            self._local.drop(name)
        if self._shared is None:
            return True
        # Claims first: a cluster may have to delete them one by one, and then nobody may fill what was just deleted.
        places = [place for _, _, key in names for place in reversed(self._places(tenant_id, key))]
        # Queued in the same step as the drops: what is asked for from here on is read after the keys are deleted.
        return await self._shared.forget(places, CHANNEL, pack(names))

    async def _fly(self, flight: Flight, load: Load[V]) -> V | None:
        try:
            value = await (self._load(load) if self._shared is None else self._share(self._shared, flight, load))
            if value is None:
                self._local.land(flight, None, 0, self._negative_ttl_s)
            else:
                self._local.land(flight, value, self._size(value), self._ttl_s)
        except BaseException:
            self._local.abandon(flight)
            raise
        return value

    async def _share(self, shared: Shared, flight: Flight, load: Load[V]) -> V | None:
        """The value from Redis, or from the one process that loads it."""
        _, tenant_id, key = flight.key
        place, claim = self._places(tenant_id, key)
        found = await shared.get(place)
        if not found.answered:
            return await self._load(load)
        value = self._unseal(found.value, tenant_id, key)
        loop = asyncio.get_running_loop()
        end = loop.time() + self._wait_s
        pause_s = FIRST_PAUSE_S
        while value is MISSING:
            token = token_bytes(TOKEN_BYTES)
            claimed = await shared.claim(claim, token, int(self._claim_ttl_s * 1000), place)
            value = self._unseal(claimed.value, tenant_id, key)
            if value is not MISSING:
                if claimed.won:
                    # Whoever loaded it was done between our two questions.
                    shared.release(claim, token)
            elif claimed.won is not False:
                return await self._lead(shared, flight, load, token)
            elif loop.time() >= end:
                # If it is no claim of ours, it might never end.
                shared.bound(claim, int(self._claim_ttl_s * 1000))
                return await self._load(load)
            else:
                if pause_s == FIRST_PAUSE_S:
                    self.waited += 1
                await asyncio.sleep(pause_s)
                pause_s = min(pause_s * PAUSE_GROWTH, LONGEST_PAUSE_S)
        self.hits_shared += 1
        return value

    async def _lead(self, shared: Shared, flight: Flight, load: Load[V], token: bytes) -> V | None:
        """Load with the claim, and end it. Where Redis did not say whose it is, it knows when it is told to fill."""
        _, tenant_id, key = flight.key
        place, claim = self._places(tenant_id, key)
        try:
            value = await self._load(load)
            payload = None if value is None else self._encode(value)
            sealed = seal(self.name, self.version, tenant_id, key, payload)
        except Exception:
            shared.release(claim, token)
            raise
        ttl_ms = int((self._negative_ttl_s if value is None else self._ttl_s) * 1000)
        if ttl_ms > 0 and self._local.is_current(flight):
            shared.fill(claim, token, ttl_ms, place, sealed)
        else:
            shared.release(claim, token)
        return value

    async def _load(self, load: Load[V]) -> V | None:
        self.loads += 1
        value = await load()
        if value is None:
            self.negative += 1
        return value

    def _unseal(self, data: bytes | None, tenant_id: str, key: bytes) -> V | Literal[Missing.MISSING] | None:
        """What stands in Redis, MISSING where that is nothing or nothing to believe."""
        if data is None:
            return MISSING
        payload = unseal(data, self.name, self.version, tenant_id, key)
        if payload is ABSENT:
            return None
        if payload is not None:
            # Whatever a decoder raises, the payload is not what this version writes.
            with suppress(Exception):
                return self._decode(payload)
        self.discarded += 1
        return MISSING

    def _places(self, tenant_id: str, key: bytes) -> tuple[bytes, bytes]:
        """The names in Redis of the value and of the claim. On a cluster those of one tenant, or else of one key, are
        in one slot: what stands in braces decides. It may hold colons: the other parts cannot."""
        name, hexed = self.name.encode(), key.hex().encode()
        place = (
            b"kyb:%b:{%b}:%b" % (name, tag(tenant_bytes(tenant_id)), hexed)
            if tenant_id
            else b"kyb:%b:{%b}" % (name, hexed)
        )
        return place, place + b":claim"
