"""All providers together: asked at once, and their answers as one."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from msgspec import Struct

from app import wire
from app.evidence.providers.base import Match, Provided
from app.evidence.providers.client import Client
from app.evidence.providers.guarded import Guarded
from app.evidence.providers.merging import merged
from app.facts import ExternalFacts
from app.resilience.breaker import Breaker
from app.resilience.deadline import remaining_s

NOT_FAILED = ("ok", "not_screened")


class External(Struct, frozen=True):
    """What external providers told of one business.

    evidence: a line for each provider, in the order of the settings.  degraded: one that was asked failed.
    """

    facts: ExternalFacts | None = None
    matches: tuple[Match, ...] = ()
    evidence: tuple[wire.Evidence, ...] = ()
    degraded: bool = False


NOTHING = External()
"""Where there are no providers."""


class Providers:
    """The providers of the settings. Belongs to one event loop.

    reserve_s: of a request's time what is left for all that comes after them: scoring and recording.
    """

    __slots__ = ("_client", "_guarded", "_reserve_s")

    def __init__(self, guarded: Sequence[Guarded], client: Client, *, reserve_s: float) -> None:
        self._guarded = tuple(guarded)
        self._client = client
        self._reserve_s = reserve_s

    @property
    def each(self) -> tuple[Guarded, ...]:
        """In the order of the settings."""
        return self._guarded

    @property
    def breakers(self) -> list[Breaker]:
        """One for each provider."""
        return [one.breaker for one in self._guarded]

    async def open(self) -> None:
        """Make ready; nobody is asked yet."""
        if self._guarded:
            await self._client.open()

    async def close(self) -> None:
        """End all connections. What is still asked ends as a failure."""
        self._client.stop()
        await asyncio.gather(*(one.stop() for one in self._guarded))
        await self._client.close()

    def known(self, tenant_id: str, profile: wire.Profile) -> External | None:
        """The answer where nobody need be asked: no providers, or all is in this process's cache. Else None."""
        if not self._guarded:
            return NOTHING
        found = [one.known(tenant_id, profile) for one in self._guarded]
        told = [one for one in found if isinstance(one, Provided)]
        return self._together(told) if len(told) == len(found) else None

    async def gather(self, tenant_id: str, profile: wire.Profile) -> External:
        """What all providers tell, within the deadline around the caller. Never raises for a failure of theirs."""
        if not self._guarded:
            return NOTHING
        left_s = remaining_s()
        most_s = None if left_s is None else max(left_s - self._reserve_s, 0.0)
        found = [one.known(tenant_id, profile) for one in self._guarded]
        waiting = [
            one.ask(tenant_id, profile, key, one.timeout_s if most_s is None else min(one.timeout_s, most_s))
            for one, key in zip(self._guarded, found, strict=True)
            if isinstance(key, bytes)
        ]
        told = iter(await asyncio.gather(*waiting) if len(waiting) > 1 else [await one for one in waiting])
        return self._together([next(told) if isinstance(one, bytes) else one for one in found])

    def _together(self, told: list[Provided]) -> External:
        return External(
            merged([one.facts for one in told]),
            tuple([match for one in told for match in one.matches]),
            tuple(
                [
                    wire.Evidence(guarded.name, one.status, one.version, one.fetched_at)
                    for guarded, one in zip(self._guarded, told, strict=True)
                ]
            ),
            any(one.status not in NOT_FAILED for one in told),
        )
