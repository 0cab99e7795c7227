"""The trail of a tenant as the tests of it read it: whole, in its order, and checked against the rows on record."""

from __future__ import annotations

import json

import msgspec
from records import Records

from app.store.chain import GENESIS, AuditEntry, entry_hash, leaf, merkle_root
from app.store.trail import RECORDED

FIRST_MS = 1_790_000_000_000
"""Some time of these days."""


def split(entry: AuditEntry) -> list[bytes]:
    return [entry.subjects[at : at + 16] for at in range(0, len(entry.subjects), 16)]


async def whole(store: Records, tenant_id: str = "acme") -> list[AuditEntry]:
    """All entries of the tenant, segment by segment, once each was found to follow from the one before."""
    entries: list[AuditEntry] = []
    for segment in await store.segments(tenant_id):
        number, previous = 0, GENESIS
        while some := await store.segment(tenant_id, segment, after=number, limit=7):
            for entry in some:
                assert (entry.number, entry.previous) == (number + 1, previous)
                *facts, digest = msgspec.structs.astuple(entry)
                assert digest == entry_hash(*facts)
                number, previous = entry.number, entry.hash
            entries += some
    return entries


async def actors(store: Records, tenant_id: str = "acme") -> dict[bytes, str]:
    """Who recorded each row that the trail tells of, once it was found to tell of just the rows on record."""
    found: dict[bytes, str] = {}
    for entry in await whole(store, tenant_id):
        if entry.act != RECORDED:
            continue
        told = json.loads(entry.detail)
        assert list(told) == ["actors", "root"]
        rows = await store.get_each(tenant_id, split(entry))
        assert told["root"] == merkle_root([leaf(one) for one in rows if one is not None]).hex()
        of_each = [actor for actor, count in told["actors"] for _ in range(count)]
        assert entry.actor == (told["actors"][0][0] if len(told["actors"]) == 1 else "")
        for one, actor in zip(rows, of_each, strict=True):
            assert one is not None
            assert one.id not in found
            found[one.id] = actor
    on_record = await store.page(tenant_id, limit=10**6)
    assert sorted(found) == sorted(one.id for one in on_record)
    return found
