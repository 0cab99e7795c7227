"""What people found to be namesakes: looked up only where a potential hit asks for it."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256

import msgspec
from msgspec.structs import replace

from app import wire
from app.cache.tiers import Cache
from app.evidence.screening import country
from app.ids import text
from app.resilience.deadline import Deadline, DeadlineExceeded
from app.store.base import StoreUnavailable
from app.store.lists import Disposition, Lists


class Dispositions:
    """The dispositions that hold, by business. timeout_s: how long the database is waited for."""

    def __init__(self, store: Lists, cache: Cache[list[Disposition]], timeout_s: float) -> None:
        self._store = store
        self._cache = cache
        self._deadline = Deadline(timeout_s)

    async def applied(self, tenant_id: str, profile: wire.Profile, hits: Sequence[wire.Hit]) -> list[wire.Hit]:
        """The hits, potential ones with the disposition by which they were set aside for this business: of the same
        entry, which still says what it said then. Raises StoreUnavailable."""
        business = business_key(profile.business)
        held = [] if business is None else await self._of(tenant_id, business)
        by_entry = {(one.list, one.entity_id, one.entity_digest.hex()): text(one.id) for one in held}
        return [
            one
            if one.confirmed or (id := by_entry.get((one.list, one.entity_id, one.entity_digest))) is None
            else replace(one, disposition_id=id)
            for one in hits
        ]

    async def forget(self, tenant_id: str, business: bytes) -> None:
        """Have every process look them up anew."""
        await self._cache.invalidate(tenant_id, (business,))

    async def _of(self, tenant_id: str, business: bytes) -> Sequence[Disposition]:
        async def load() -> list[Disposition] | None:
            try:
                return await self._deadline.run(self._store.dispositions(tenant_id, business)) or None
            except DeadlineExceeded as late:
                raise StoreUnavailable(f"the database did not answer within {late.timeout_s:g} s") from None

        return await self._cache.get(tenant_id, business, load) or ()


def business_key(business: wire.Business) -> bytes | None:
    """What names a business within its tenant: its id, or else its registration. None where it has neither."""
    if business.id is not None:
        return sha256(b"id\0" + business.id.encode()).digest()
    if business.registration_number is None:
        return None
    number = "".join(filter(str.isalnum, business.registration_number)).upper()
    return sha256(f"registration\0{country(business.jurisdiction)}\0{number}".encode()).digest()


encoded = msgspec.msgpack.Encoder().encode
decoded = msgspec.msgpack.Decoder(list[Disposition]).decode


def size_bytes(found: list[Disposition]) -> int:
    """About what they take in memory."""
    return 512 * len(found)
