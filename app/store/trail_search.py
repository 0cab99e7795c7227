"""Finding entries of the audit trail by what they say, newest first, without a single query that takes long."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod

import msgspec
from msgspec import Struct

from app import ids
from app.store.base import StoreUnavailable
from app.store.chain import AuditEntry
from app.store.trail import RECORDED, Position

SLICE = 2_000
"""Entries that one query looks at, at most."""
SEARCH_S = 1.0
"""How long a search goes on from one slice to the next."""
RECORDED_WITHIN_MS = 600_000
"""How far the entry of an assessment lies from the time in its id, at most: longer than any commit is waited for, and
than the clocks of one process go back."""

ID_BYTES = 16
_FIRST = Position(0, bytes(ID_BYTES), 0)
_END_MS = 2**63 - 1


class Wanted(Struct, frozen=True):
    """What an entry must say. acts_only: it stands for no group commit.

    An actor is also that of a group commit which holds assessments of several, their own among them.
    """

    tenant_id: str
    acts_only: bool = False
    act: str | None = None
    actor: str | None = None
    assessment: bytes | None = None

    @property
    def counted(self) -> bytes | None:
        """How the detail of a group commit begins to tell of the actor."""
        return None if self.actor is None else b"[" + msgspec.json.encode(self.actor) + b","


class TrailSearch(ABC):
    """The search in a trail whose entries can be looked at in stretches of the order of time."""

    @abstractmethod
    async def _edge(
        self, wanted: Wanted, low: Position, high: Position, count: int, *, newest_first: bool
    ) -> Position | None:
        """The position of the entry after so many of low <= position < high, None where there is none. Of what is
        wanted, only tenant_id and acts_only matter."""

    @abstractmethod
    async def _stretch(
        self, wanted: Wanted, low: Position, high: Position, limit: int, *, newest_first: bool
    ) -> list[AuditEntry]:
        """The first `limit` entries of low <= position < high that are wanted, in order."""

    async def entries(
        self,
        tenant_id: str,
        *,
        act: str | None = None,
        actor: str | None = None,
        assessment: bytes | None = None,
        since_ms: int | None = None,
        before_ms: int | None = None,
        before: Position | None = None,
        limit: int,
    ) -> list[AuditEntry]:
        """Newest first, as `Trail.entries` says. Raises StoreUnavailable where nothing is found within SEARCH_S."""
        low = Position(max(since_ms or 0, 0), *_FIRST[1:])
        high = Position(_END_MS if before_ms is None else max(before_ms, 0), *_FIRST[1:])
        if before is not None:
            high = min(high, before)
        acts_only = assessment is not None or (act is not None and act != RECORDED)
        wanted = Wanted(tenant_id, acts_only, act, actor, assessment)
        end_s = time.monotonic() + SEARCH_S
        if assessment is not None:
            return await self._of_assessment(wanted, assessment, low, high, limit, end_s)
        found, reached = await self._walk(wanted, low, high, limit, end_s)
        return _answered(found, reached)

    async def _of_assessment(
        self, wanted: Wanted, assessment: bytes, low: Position, high: Position, limit: int, end_s: float
    ) -> list[AuditEntry]:
        """The one group commit that holds it lies near its time, what was done to it later among the acts."""
        at_ms = ids.time_ms(assessment)
        early, at, late = (
            Position(max(ms, 0), *_FIRST[1:]) for ms in (at_ms - RECORDED_WITHIN_MS, at_ms, at_ms + RECORDED_WITHIN_MS)
        )
        commits: list[AuditEntry] = []
        acts: list[AuditEntry] = []
        reached = None
        if wanted.act in (None, RECORDED):
            commit = msgspec.structs.replace(wanted, acts_only=False, act=RECORDED)
            # It follows its assessments at once, as a rule: it is among the first from there.
            commits, reached = await self._walk(commit, max(low, at), min(high, late), 1, end_s, newest_first=False)
            if not commits and reached is None:
                commits, reached = await self._walk(commit, max(low, early), min(high, at), 1, end_s)
            _answered(commits, reached)
        if wanted.act != RECORDED:
            acts, reached = await self._walk(wanted, max(low, early), high, limit, end_s)
        found = [*acts, *[entry for entry in commits if reached is None or position(entry) > reached]]
        return _answered(sorted(found, key=position, reverse=True)[:limit], reached)

    async def _walk(
        self, wanted: Wanted, low: Position, high: Position, limit: int, end_s: float, *, newest_first: bool = True
    ) -> tuple[list[AuditEntry], Position | None]:
        """At most `limit` entries, and how far they were looked for where the time was over before the range."""
        found: list[AuditEntry] = []
        selective = wanted.act or wanted.actor is not None or wanted.assessment
        while low < high:
            edge = None
            if selective:
                edge = await self._edge(wanted, low, high, SLICE, newest_first=newest_first)
            first, last = (low, high) if edge is None else (_next(edge), high) if newest_first else (low, edge)
            some = await self._stretch(wanted, first, last, limit - len(found), newest_first=newest_first)
            # Two ids side by side hold other sixteen bytes in their middle.
            found += [entry for entry in some if wanted.assessment is None or wanted.assessment in _split(entry)]
            if edge is None or len(found) >= limit:
                break
            if newest_first:
                high = first
            else:
                low = last
            if time.monotonic() >= end_s:
                return found, edge
        return found, None


def position(entry: AuditEntry) -> Position:
    """Where the entry stands in the order of time."""
    return Position(entry.at_ms, entry.segment, entry.number)


def _next(place: Position) -> Position:
    return place._replace(number=place.number + 1)


def _split(entry: AuditEntry) -> list[bytes]:
    return [entry.subjects[at : at + ID_BYTES] for at in range(0, len(entry.subjects), ID_BYTES)]


def _answered(found: list[AuditEntry], reached: Position | None) -> list[AuditEntry]:
    if reached is not None and not found:
        raise StoreUnavailable("the audit trail is too long to be searched in time: give a narrower range of time")
    return found
