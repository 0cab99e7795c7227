"""All evidence of an assessment: the lists in force, what people decided about their hits, and external providers."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from time import perf_counter

import msgspec

from app import wire
from app.evidence.base import Findings, Gathered, members
from app.evidence.dispositions import Dispositions
from app.evidence.lists import ListsInForce
from app.evidence.providers.collection import NOTHING, External, Providers
from app.evidence.screening import (
    Party,
    best,
    external_hit,
    facts,
    has_name,
    hit,
    parties,
    search,
    subject_of,
    subjects,
)
from app.telemetry import catalogue
from app.telemetry.meters import Meters

SLICE_S = 0.002
"""How long names are searched for before other requests get their turn."""
MANY = 16
"""Subjects that take longer than a look at the clock is worth."""

_encode = msgspec.json.Encoder().encode


class Gatherer:
    """Screens the business, its owners and its directors against all lists in force, and asks the providers.

    `remembered` counts profiles in which nobody was found before.
    """

    def __init__(self, lists: ListsInForce, dispositions: Dispositions, providers: Providers, meters: Meters) -> None:
        self._meters = meters
        self._screened_in = meters.histogram(catalogue.SCREENING_DURATION)
        self.remembered = 0
        self._lists = lists
        self._dispositions = dispositions
        self._providers = providers

    async def gather(self, tenant_id: str, profile: wire.Profile) -> Gathered:
        """Evidence for one profile. Raises StoreUnavailable where what was set aside cannot be read."""
        external = self._providers.known(tenant_id, profile)
        if external is None:
            external = await self._providers.gather(tenant_id, profile)
        everyone = parties(profile)
        if external is NOTHING:
            clean = self._remembered_clean(profile, everyone)
            if clean is not None:
                self.remembered += 1
                return clean
        return await self._screened(tenant_id, profile, everyone, external, perf_counter() + SLICE_S)

    async def gather_each(self, tenant_id: str, profiles: Sequence[wire.Profile]) -> list[Gathered]:
        """The same for each of many: the providers are asked about all of them at once."""
        known = [self._providers.known(tenant_id, profile) for profile in profiles]
        asked = [place for place, external in enumerate(known) if external is None]
        told = await asyncio.gather(*[self._providers.gather(tenant_id, profiles[place]) for place in asked])
        for place, external in zip(asked, told, strict=True):
            known[place] = external
        slice_end = perf_counter() + SLICE_S
        gathered = []
        for profile, one in zip(profiles, known, strict=True):
            gathered.append(await self._screened(tenant_id, profile, parties(profile), one or NOTHING, slice_end))
            if perf_counter() > slice_end:
                await asyncio.sleep(0)
                slice_end = perf_counter() + SLICE_S
        return gathered

    def _remembered_clean(self, profile: wire.Profile, everyone: Sequence[Party]) -> Gathered | None:
        """What is known of a profile of whose parties nobody was found before; None for any other."""
        loaded = self._lists.loaded
        recall = loaded.recall
        for asked, _, _ in everyone:
            if recall(asked) != ():
                return None
        return loaded.clean[_has_owners(profile)]

    async def _screened(
        self, tenant_id: str, profile: wire.Profile, everyone: Sequence[Party], external: External, slice_end: float
    ) -> Gathered:
        loaded = self._lists.loaded
        hits: list[wire.Hit] = []
        complete = True
        begun = perf_counter()
        for party in everyone:
            matches = search(party, loaded)
            if matches:
                subject = subject_of(party)
                for listed, _ in matches:
                    self._meters.counter(catalogue.SCREENING_HITS, listed.name).add()
                hits += [hit(subject, listed, match) for listed, match in matches]
            complete = complete and has_name(party)
            if len(everyone) > MANY and perf_counter() > slice_end:
                await asyncio.sleep(0)
                slice_end = perf_counter() + SLICE_S
        self._screened_in.observe(perf_counter() - begun)
        own_rows = b""
        if external is not NOTHING:
            own_rows = members(external.evidence)
            versions = {row.source: row.version for row in external.evidence}
            hits += [external_hit(match, versions.get(match.provider)) for match in external.matches]
        clean = loaded.clean[_has_owners(profile)]
        if not hits and complete and external is NOTHING:
            return clean
        if not hits and complete:
            judged, screening = clean.findings.screening, clean.screening
        else:
            # Whoever has no name was not screened, whatever lists there are.
            complete = complete and loaded.complete
            if not all(one.confirmed for one in hits):
                hits = await self._dispositions.applied(tenant_id, profile, hits)
            counted = [one for one in hits if one.disposition_id is None]
            judged = facts(counted, subjects(profile), complete)
            screening = _encode(wire.Screening(judged.status, best(hits)))
        findings = Findings(judged, external.facts)
        return Gathered(findings, screening, own_rows, external.degraded, loaded.digest, loaded.rows)


def _has_owners(profile: wire.Profile) -> bool:
    return profile.ownership is not None and bool(profile.ownership.owners)
