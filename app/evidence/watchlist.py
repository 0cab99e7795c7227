"""Watchlist screening as a source of evidence: the lists in force, and what people decided about their hits."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from time import perf_counter

import msgspec

from app import wire
from app.evidence.base import Findings, Gathered, ScreeningFacts
from app.evidence.dispositions import Dispositions
from app.evidence.lists import ListsInForce
from app.evidence.loaded import Loaded
from app.evidence.screening import Found, facts, hits, search, subjects

SLICE_S = 0.002
"""How long names are searched for before other requests get their turn."""
MANY = 16
"""Subjects that take longer than a look at the clock is worth."""

_encode = msgspec.json.Encoder().encode


class Watchlist:
    """Screens the business, its owners and its directors against all lists in force."""

    def __init__(self, lists: ListsInForce, dispositions: Dispositions) -> None:
        self._lists = lists
        self._dispositions = dispositions

    async def gather(self, tenant_id: str, profile: wire.Profile) -> Gathered:
        """Evidence for one profile. Raises StoreUnavailable where what was set aside cannot be read."""
        return await self._gather(tenant_id, profile, perf_counter() + SLICE_S)

    async def gather_each(self, tenant_id: str, profiles: Sequence[wire.Profile]) -> list[Gathered]:
        """The same for each of many."""
        slice_end = perf_counter() + SLICE_S
        gathered = []
        for profile in profiles:
            gathered.append(await self._gather(tenant_id, profile, slice_end))
            if perf_counter() > slice_end:
                await asyncio.sleep(0)
                slice_end = perf_counter() + SLICE_S
        return gathered

    async def _gather(self, tenant_id: str, profile: wire.Profile, slice_end: float) -> Gathered:
        loaded = self._lists.loaded
        everyone = list(subjects(profile))
        found: list[Found] = []
        for subject in everyone:
            found += search(subject, loaded)
            if len(everyone) > MANY and perf_counter() > slice_end:
                await asyncio.sleep(0)
                slice_end = perf_counter() + SLICE_S
        if not found:
            return _clean(loaded, facts((), everyone, loaded.complete))
        set_aside: dict[tuple[str, str], str] = {}
        if any(not one.confirmed for one in found):
            held = await self._dispositions.of(tenant_id, profile)
            set_aside = _holding(found, held) if held else {}
        counted = [one for one in found if one.confirmed or (one.listed.name, one.entity_id) not in set_aside]
        judged = facts(counted, everyone, loaded.complete)
        screening = _encode(wire.Screening(judged.status, hits(found, set_aside)))
        return Gathered(Findings(judged), screening, b"", False, loaded.digest, loaded.rows)


def _clean(loaded: Loaded, judged: ScreeningFacts) -> Gathered:
    # PERF: nearly every profile ends here; its screening is one of two.
    screening = b'{"status":"%s","hits":[]}' % judged.status.encode()
    return Gathered(Findings(judged), screening, b"", False, loaded.digest, loaded.rows)


def _holding(found: list[Found], held: dict[tuple[str, str, bytes], str]) -> dict[tuple[str, str], str]:
    """Those of the dispositions that hold: the entry says what it said when it was set aside."""
    holding = {}
    for one in found:
        id = held.get((one.listed.name, one.entity_id, one.digest))
        if id is not None:
            holding[one.listed.name, one.entity_id] = id
    return holding
