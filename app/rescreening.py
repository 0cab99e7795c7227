"""Comparing recorded businesses with what changed in a list, and assessing anew those whose screening would differ."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import msgspec
from msgspec.structs import replace

from app import wire
from app.assess import Assessor
from app.errors import ProfileRefused
from app.evidence.dispositions import business_key
from app.evidence.lists import open_version
from app.evidence.screening import query_of, subjects
from app.ids import time_ms
from app.records import screening_of
from app.store.base import Row, Store
from app.store.lists import Lists, ListVersion, Rescreening
from core.entities import Entity, digest_of
from core.names import NameIndex

PAGE_ROWS = 200

_decode_profile = msgspec.json.Decoder(wire.Profile).decode
_decode_screening = msgspec.json.Decoder(wire.Screening).decode


class Change(NamedTuple):
    """What differs between two versions of a list. entries: the index of it all, as it is and as it was."""

    new: int
    changed: int
    removed: int
    entries: NameIndex | None


NO_ENTRIES = Change(0, 0, 0, None)

Concerns = Callable[[Row, wire.Profile], bool]
"""Whether a recorded business may have to be assessed anew."""


class Rescreened(NamedTuple):
    """What came of it. businesses: compared, each by its latest assessment.  left_out: assessments of which nothing
    names the business, erased ones, and those whose input is no valid profile any more.  recorded: new assessments."""

    change: Change
    businesses: int
    left_out: int
    recorded: int


def changed(before: NameIndex | None, now: NameIndex) -> Change:
    """The entries that are not the same in both. Blocks: a few µs an entry."""
    old = {} if before is None else {entity.id: entity for entity in _entities(before)}
    differing: list[Entity] = []
    new = altered = 0
    for entity in _entities(now):
        was = old.pop(entity.id, None)
        if was is not None and digest_of(was) == digest_of(entity):
            continue
        differing.append(entity)
        if was is None:
            new += 1
        else:
            altered += 1
            differing.append(replace(was, id=f"{was.id}\0before"))
    differing += old.values()
    index = NameIndex(NameIndex.build(differing)) if differing else None
    return Change(new, altered, len(old), index)


def _entities(index: NameIndex) -> Iterator[Entity]:
    return (index.entity(place) for place in range(index.n_entities))


class Rescreener:
    """Rescreens the businesses of all tenants against one list; ended on the way, it goes on where it was.

    actor: whose the new assessments are.  tell: told how far it is, 0 to 1, and how many businesses were compared and
    assessed anew.
    """

    def __init__(
        self,
        store: Store,
        lists: Lists,
        assessor: Assessor,
        *,
        threshold: float,
        actor: str,
        tell: Callable[[float, int, int], None],
    ) -> None:
        self._store = store
        self._lists = lists
        self._assessor = assessor
        self._threshold = threshold
        self._actor = actor
        self._tell = tell
        self._businesses = 0
        self._left_out = 0
        self._recorded = 0

    async def run(self, version: ListVersion) -> Rescreened | None:
        """Compare with the version in force; None where that was done before. Raises StoreUnavailable."""
        state = await self._lists.rescreening(version.name)
        if state is None:
            state = Rescreening(version.name, 0, version.number, "", None, 0, 0)
        elif state.base == version.number:
            return None
        elif state.target != version.number:
            # What was compared with the version before is compared with this one again: it may differ from both.
            state = replace(state, target=version.number, tenant_id="", before_id=None, compared=0, recorded=0)
        await self._lists.save_rescreening(state)
        base = await self._lists.list_version(version.name, state.base) if state.base else None
        before = None if base is None else await open_version(self._lists, base)
        change = changed(before, await open_version(self._lists, version))
        if change.entries is not None:
            state = await self._all_tenants(state, partial(self._resembles, change.entries))
        await self._lists.save_rescreening(replace(state, base=version.number, tenant_id="", before_id=None))
        return Rescreened(change, self._businesses, self._left_out, self._recorded)

    async def run_removed(self, name: str) -> Rescreened:
        """Assess anew whose recorded screening names a list that is in force no more. Raises StoreUnavailable."""
        state = await self._lists.rescreening(name)
        if state is None or state.target:
            state = Rescreening(name, 0, 0, "", None, 0, 0)
        state = await self._all_tenants(state, lambda row, _: any(hit.list == name for hit in _hits(row)))
        await self._lists.save_rescreening(replace(state, tenant_id="", before_id=None))
        return Rescreened(NO_ENTRIES, self._businesses, self._left_out, self._recorded)

    async def _all_tenants(self, state: Rescreening, concerns: Concerns) -> Rescreening:
        tenants = await self._lists.tenants()
        for place, tenant_id in enumerate(tenants):
            if tenant_id < state.tenant_id:
                continue
            if tenant_id != state.tenant_id:
                state = replace(state, tenant_id=tenant_id, before_id=None)
            state = await self._tenant(state, concerns, place, len(tenants))
        return state

    async def _tenant(self, state: Rescreening, concerns: Concerns, place: int, tenants: int) -> Rescreening:
        """All assessments of a tenant, newest first; the first of each business is its latest.

        Those up to where an earlier run came are only looked at for whose they are.
        """
        done_until = state.before_id
        seen: set[bytes] = set()
        before: bytes | None = None
        first_ms: int | None = None
        while True:
            rows = await self._store.page(state.tenant_id, before_id=before, limit=PAGE_ROWS)
            for row in rows:
                first_ms = time_ms(row.id) if first_ms is None else first_ms
                profile = _profile(row)
                business = None if profile is None else business_key(profile.business)
                if row.input is None or profile is None or business is None:
                    self._left_out += 1
                    continue
                if business in seen:
                    continue
                seen.add(business)
                if done_until is not None and row.id >= done_until:
                    continue
                self._businesses += 1
                if concerns(row, profile) and await self._differs(row, profile):
                    await self._assess(state.tenant_id, profile, row.input)
            if len(rows) < PAGE_ROWS:
                return state
            before = rows[-1].id
            if done_until is None or before < done_until:
                state = replace(state, before_id=before, compared=self._businesses, recorded=self._recorded)
                await self._lists.save_rescreening(state)
            self._tell((place + _share_done(first_ms, before)) / tenants, self._businesses, self._recorded)

    async def _assess(self, tenant_id: str, profile: wire.Profile, body: bytes) -> None:
        try:
            await self._assessor.assess(
                tenant_id, profile, body, full=False, dry_run=False, keyed=None, actor=self._actor
            )
        except ProfileRefused:
            self._left_out += 1
        else:
            self._recorded += 1

    def _resembles(self, index: NameIndex, row: Row, profile: wire.Profile) -> bool:
        """Whether anybody of the profile resembles an entry that differs."""
        return any(index.search(query_of(subject), self._threshold, 1) for subject in subjects(profile))

    async def _differs(self, row: Row, profile: wire.Profile) -> bool:
        """Whether screening it now finds something else than is on record."""
        gathered = await self._assessor.source.gather(row.tenant_id, profile)
        return _told(screening_of(row)) != _told(gathered.screening)


def _profile(row: Row) -> wire.Profile | None:
    try:
        return None if row.input is None else _decode_profile(row.input)
    except msgspec.MsgspecError:
        return None


def _hits(row: Row) -> list[wire.Hit]:
    return _decode_screening(screening_of(row)).hits


def _told(screening: bytes) -> tuple[str, frozenset[tuple[object, ...]]]:
    """What of a screening matters: not in which version of the list a hit stands, nor its exact score."""
    found = _decode_screening(screening)
    return found.status, frozenset(
        (hit.subject, hit.list, hit.entity_id, hit.entity_digest, hit.confirmed, hit.disposition_id)
        for hit in found.hits
    )


def _share_done(first_ms: int | None, before: bytes) -> float:
    """A guess from the times of the ids: nobody knows yet how far back they go, so each further day counts less."""
    days = ((first_ms or 0) - time_ms(before)) / 86_400_000
    return days / (days + 30)
