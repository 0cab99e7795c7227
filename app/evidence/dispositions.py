"""What people found to be namesakes: looked up only where a potential hit asks for it."""

from __future__ import annotations

from hashlib import sha256

import msgspec

from app import wire
from app.cache.tiers import Cache
from app.evidence.screening import country
from app.ids import text
from app.resilience.deadline import Deadline, DeadlineExceeded
from app.store.base import StoreUnavailable
from app.store.lists import Disposition, Lists

SetAside = dict[tuple[str, str, bytes], str]
"""By list, entry and what the entry said: the id of the disposition."""


class Dispositions:
    """The dispositions that hold, by business. timeout_s: how long the database is waited for."""

    def __init__(self, store: Lists, cache: Cache[list[Disposition]], timeout_s: float) -> None:
        self._store = store
        self._cache = cache
        self._deadline = Deadline(timeout_s)

    async def of(self, tenant_id: str, profile: wire.Profile) -> SetAside:
        """What was set aside for the business of a profile. Raises StoreUnavailable."""
        business = business_key(profile.business)
        if business is None:
            return {}

        async def load() -> list[Disposition] | None:
            try:
                return await self._deadline.run(self._store.dispositions(tenant_id, business)) or None
            except DeadlineExceeded as late:
                raise StoreUnavailable(f"the database did not answer within {late.timeout_s:g} s") from None

        found = await self._cache.get(tenant_id, business, load)
        return {(one.list, one.entity_id, one.entity_digest): text(one.id) for one in found or ()}

    async def forget(self, tenant_id: str, business: bytes) -> None:
        """Have every process look them up anew."""
        await self._cache.invalidate(tenant_id, (business,))


def business_key(business: wire.Business) -> bytes | None:
    """What names a business within its tenant: its id, or else its registration. None where it has neither."""
    if business.id is not None:
        return sha256(b"id\0" + business.id.encode()).digest()
    if business.registration_number is None:
        return None
    number = "".join(filter(str.isalnum, business.registration_number)).upper()
    return sha256(f"registration\0{country(business.jurisdiction)}\0{number}".encode()).digest()


encode = msgspec.msgpack.Encoder().encode
decode = msgspec.msgpack.Decoder(list[Disposition]).decode


def size_bytes(found: list[Disposition]) -> int:
    """About what they take in memory."""
    return 512 * len(found)
