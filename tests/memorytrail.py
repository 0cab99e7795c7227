"""A trail in memory, as plain as can be: what the stores' trails promise, without a database."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from app.ids import Uuid7, now_ms, time_ms
from app.store.base import StoreUnavailable
from app.store.chain import GENESIS, AuditEntry, entry_hash
from app.store.trail import Act, Checkpoint, Head, Position

new_id = Uuid7().new


class Shelf:
    """What several trails share, as processes share a database."""

    def __init__(self) -> None:
        self.entries: list[AuditEntry] = []
        self.checkpoints: list[Checkpoint] = []


class MemoryTrail:
    """The `Trail` of one process. is_away: everything raises StoreUnavailable.  refused: names of acts that it refuses.
    `calls` counts the transactions tried."""

    def __init__(self, shelf: Shelf | None = None) -> None:
        self.shelf = shelf or Shelf()
        self.is_away = False
        self.refused: set[str] = set()
        self.calls = 0
        self._heads: dict[str, Head] = {}
        self._moved: dict[str, Head] = {}

    async def note(self, acts: Sequence[Act]) -> None:
        self.calls += 1
        self._answer()
        if self.refused.intersection(act.name for act in acts):
            raise ValueError("the database does not take this")
        for act in acts:
            head = self._heads.get(act.tenant_id) or Head(new_id(), 0, GENESIS)
            facts = (act.tenant_id, head.segment, head.number + 1, now_ms(), act.name, act.actor, act.detail)
            entry = AuditEntry(
                *facts,
                b"".join(act.subjects),
                head.hash,
                entry_hash(*facts, b"".join(act.subjects), head.hash),
            )
            self.shelf.entries.append(entry)
            self._heads[act.tenant_id] = self._moved[act.tenant_id] = Head(head.segment, entry.number, entry.hash)

    def moved(self) -> dict[str, tuple[Head, ...]]:
        moved, self._moved = self._moved, {}
        return {tenant_id: (head,) for tenant_id, head in moved.items()}

    async def uncovered(self, since_ms: int) -> dict[str, tuple[Head, ...]]:
        self._answer()
        last = {(entry.tenant_id, entry.segment): entry for entry in self.shelf.entries}
        found: dict[str, list[Head]] = {}
        for (tenant_id, segment), entry in last.items():
            if time_ms(segment) >= since_ms and entry.number > await self.head_number(tenant_id, segment):
                found.setdefault(tenant_id, []).append(Head(segment, entry.number, entry.hash))
        return {tenant_id: tuple(heads) for tenant_id, heads in found.items()}

    async def last_checkpoint(self, tenant_id: str) -> Checkpoint | None:
        self._answer()
        mine = self._checkpoints(tenant_id)
        return mine[-1] if mine else None

    async def head_number(self, tenant_id: str, segment: bytes) -> int:
        self._answer()
        heads = [head for one in self._checkpoints(tenant_id) for head in one.heads]
        return max([head.number for head in heads if head.segment == segment], default=0)

    async def add_checkpoint(self, checkpoint: Checkpoint) -> bool:
        self._answer()
        if any(one.number == checkpoint.number for one in self._checkpoints(checkpoint.tenant_id)):
            return False
        self.shelf.checkpoints.append(checkpoint)
        return True

    async def trails(self) -> list[str]:
        self._answer()
        return sorted({one.tenant_id for one in (*self.shelf.entries, *self.shelf.checkpoints)})

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
        self._answer()
        found = [
            entry
            for entry in self.shelf.entries
            if entry.tenant_id == tenant_id
            and act in (None, entry.act)
            and actor in (None, entry.actor)
            and (assessment is None or assessment in _split(entry.subjects))
            and (since_ms is None or entry.at_ms >= since_ms)
            and (before_ms is None or entry.at_ms < before_ms)
            and (before is None or _position(entry) < before)
        ]
        return sorted(found, key=_position, reverse=True)[:limit]

    async def segments(self, tenant_id: str) -> list[bytes]:
        self._answer()
        return sorted({entry.segment for entry in self.shelf.entries if entry.tenant_id == tenant_id})

    async def segment(self, tenant_id: str, segment: bytes, *, after: int, limit: int) -> list[AuditEntry]:
        self._answer()
        found = [entry for entry in self.shelf.entries if (entry.tenant_id, entry.segment) == (tenant_id, segment)]
        return sorted((one for one in found if one.number > after), key=lambda one: one.number)[:limit]

    async def checkpoints(self, tenant_id: str, *, after: int, limit: int) -> list[Checkpoint]:
        self._answer()
        return [one for one in self._checkpoints(tenant_id) if one.number > after][:limit]

    def told(self) -> list[tuple[str, str, dict[str, object]]]:
        """Of every entry, in the order they were entered: tenant, act, detail."""
        return [(entry.tenant_id, entry.act, msgspec.json.decode(entry.detail)) for entry in self.shelf.entries]

    def _checkpoints(self, tenant_id: str) -> list[Checkpoint]:
        mine = [one for one in self.shelf.checkpoints if one.tenant_id == tenant_id]
        return sorted(mine, key=lambda one: one.number)

    def _answer(self) -> None:
        if self.is_away:
            raise StoreUnavailable("the trail is away")


def _position(entry: AuditEntry) -> Position:
    return Position(entry.at_ms, entry.segment, entry.number)


def _split(subjects: bytes) -> list[bytes]:
    return [subjects[start : start + 16] for start in range(0, len(subjects), 16)]
