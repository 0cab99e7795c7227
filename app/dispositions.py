"""Setting aside a potential hit as a namesake's, and taking that back."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256

import msgspec

from app import ids, wire
from app.errors import BodyRefused, Conflict, NotFound, clipped
from app.evidence.dispositions import Dispositions, business_key
from app.ids import Uuid7
from app.profiles import read_profile
from app.records import Records, screening_of
from app.store.base import Row
from app.store.lists import Disposition, Lists
from app.store.trail import act

_decode_screening = msgspec.json.Decoder(wire.Screening).decode


class Namesakes:
    """What people decide about hits. held: those that later assessments look up."""

    def __init__(self, records: Records, store: Lists, held: Dispositions, new_ids: Uuid7) -> None:
        self._records = records
        self._store = store
        self._held = held
        self._ids = new_ids

    async def set_aside(self, tenant_id: str, asked: wire.DispositionRequest, actor: str) -> Disposition:
        """Keep that a hit of a recorded assessment is a namesake's.

        Raises NotFound for an assessment that is not there, BodyRefused for a hit that it does not have, and Conflict:
        for a confirmed hit, one set aside before, and a business that nothing names.
        """
        row = await self._row(tenant_id, asked.assessment_id)
        if row.input is None:
            raise Conflict("The input of this assessment was erased, so nobody can tell whose the hit was.")
        business = read_profile(row.input).business
        key = business_key(business)
        if key is None:
            raise Conflict(
                "The business has neither an id nor a registration number, so it cannot be recognised when it is "
                "assessed again. Assess it with a `business.id`, and set aside that assessment's hit."
            )
        hit = _hit(screening_of(row), asked)
        if hit.confirmed:
            raise Conflict(
                "The hit is confirmed by an identifier, or by an equal name with the same full birth date: it is no "
                "namesake's. Where the list is wrong, have its publisher correct it."
            )
        disposition = Disposition(
            tenant_id=tenant_id,
            id=self._ids.new(),
            business=key,
            business_id=business.id,
            assessment_id=row.id,
            list=hit.list,
            entity_id=hit.entity_id,
            entity_digest=bytes.fromhex(hit.entity_digest),
            matched_name=hit.matched_name,
            subject=hit.subject,
            reason=asked.reason,
            actor=actor,
        )
        told = act(
            tenant_id,
            "disposition.made",
            actor,
            (row.id,),
            disposition=ids.text(disposition.id),
            list=hit.list,
            entity_id=hit.entity_id,
            # Only the hash: it may name people, and can be erased where the trail cannot.
            reason_sha256=sha256(asked.reason.encode()).hexdigest(),
        )
        try:
            made = await self._store.add_disposition(disposition, told)
        finally:
            await self._held.forget(tenant_id, key)
        if not made:
            raise Conflict("This entry was set aside for this business before. GET /v1/dispositions lists it.")
        return disposition

    async def end(self, tenant_id: str, text: str, actor: str) -> Disposition:
        """Take a disposition back; one ended before stays as it was. Raises NotFound."""
        known = await self.find(tenant_id, text)
        told = act(
            tenant_id,
            "disposition.ended",
            actor,
            (known.assessment_id,),
            disposition=ids.text(known.id),
            list=known.list,
            entity_id=known.entity_id,
        )
        try:
            ended = await self._store.end_disposition(
                tenant_id, known.id, ended_ms=ids.now_ms(), ended_by=actor, act=told
            )
        finally:
            await self._held.forget(tenant_id, known.business)
        if ended is None:
            raise _unknown(text)
        return ended

    async def find(self, tenant_id: str, text: str) -> Disposition:
        """One of the tenant's. Raises NotFound."""
        try:
            found = await self._store.disposition(tenant_id, ids.parse(text))
        except ValueError:
            found = None
        if found is None:
            raise _unknown(text)
        return found

    async def page(
        self, tenant_id: str, *, business_id: str | None, before_id: bytes | None, limit: int
    ) -> Sequence[Disposition]:
        """The tenant's, newest first."""
        return await self._store.disposition_page(tenant_id, business_id=business_id, before_id=before_id, limit=limit)

    async def _row(self, tenant_id: str, text: str) -> Row:
        try:
            found = await self._records.find(tenant_id, ids.parse(text))
        except ValueError:
            found = None
        if found is None:
            raise NotFound(f"assessment {clipped(text)}")
        return found.row


def _hit(screening: bytes, asked: wire.DispositionRequest) -> wire.Hit:
    """The hit that is meant, confirmed where any of the same entry is."""
    hits = [
        hit for hit in _decode_screening(screening).hits if (hit.list, hit.entity_id) == (asked.list, asked.entity_id)
    ]
    if not hits:
        raise BodyRefused(
            [wire.Fault("/entity_id", f'the assessment has no hit "{clipped(asked.entity_id, 80)}" on this list')]
        )
    return max(hits, key=lambda hit: hit.confirmed)


def _unknown(text: str) -> NotFound:
    return NotFound(f"disposition {clipped(text)}")
