"""The segments of the audit trail that one writer has open: which entries come next, and how far each has come."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from threading import Lock

from app.ids import Uuid7, now_ms, time_ms
from app.store.base import Row
from app.store.chain import GENESIS, AuditEntry, entry_hash, leaf, merkle_root
from app.store.trail import RECORDED, Act, Head, act

LONGEST_MS = 12 * 3_600_000
"""The age at which a segment is closed and another begun."""


class Segments:
    """The open segment of each tenant that one writer has a trail of. For use from one thread, but for `moved`.

    clock: Unix time in ms.

    # Design: entries are proposed for a transaction, and the segments move on once it is known to be committed. After
    one that was rolled back they stand where they stood. Where its end is not known, its numbers may be taken or not:
    `doubt` closes the segments, and what comes next begins others. Should two proposals ever be made from one place,
    the database takes only one of them, since a segment has each number once.
    """

    __slots__ = ("_clock", "_heads", "_lock", "_moved", "_new")

    def __init__(self, clock: Callable[[], int] = now_ms) -> None:
        self._clock = clock
        self._new = Uuid7(clock).new
        self._heads: dict[str, Head] = {}
        self._moved: dict[str, dict[bytes, Head]] = {}
        self._lock = Lock()

    def propose(self, acts: Iterable[Act]) -> list[AuditEntry]:
        """The entries of the acts, in order. Raises ValueError for text that is no Unicode."""
        at_ms = self._clock()
        heads: dict[str, Head] = {}
        entries: list[AuditEntry] = []
        for one in acts:
            tenant_id = one.tenant_id
            head = heads.get(tenant_id) or self._head(tenant_id, at_ms)
            subjects = b"".join(one.subjects)
            facts = (tenant_id, head.segment, head.number + 1, at_ms, one.name, one.actor, one.detail, subjects)
            digest = entry_hash(*facts, head.hash)
            entries.append(AuditEntry(*facts, head.hash, digest))
            heads[tenant_id] = Head(head.segment, head.number + 1, digest)
        return entries

    def confirm(self, entries: Sequence[AuditEntry]) -> None:
        """What was proposed is on record."""
        with self._lock:
            for entry in entries:
                head = Head(entry.segment, entry.number, entry.hash)
                self._heads[entry.tenant_id] = head
                self._moved.setdefault(entry.tenant_id, {})[entry.segment] = head

    def doubt(self, entries: Sequence[AuditEntry]) -> None:
        """What was proposed may be on record or not."""
        for entry in entries:
            self._heads.pop(entry.tenant_id, None)

    def close(self) -> None:
        """Begin another segment for every tenant: whether the database still holds these is not known."""
        self._heads.clear()

    def moved(self) -> dict[str, tuple[Head, ...]]:
        """By tenant, the heads that moved since this was last asked, by segment. From any thread."""
        with self._lock:
            moved, self._moved = self._moved, {}
        return {tenant_id: tuple(sorted(heads.values())) for tenant_id, heads in moved.items()}

    def _head(self, tenant_id: str, at_ms: int) -> Head:
        head = self._heads.get(tenant_id)
        if head is None or at_ms - time_ms(head.segment) >= LONGEST_MS:
            return Head(self._new(), 0, GENESIS)
        return head


def recorded(parts: Iterable[tuple[str, Sequence[Row]]]) -> list[Act]:
    """What a group commit did: an act for each tenant. parts: actors, each with rows that are recorded for it.

    Raises what `leaf` raises for a row that no store takes.
    """
    tenants: dict[str, dict[str, list[Row]]] = {}
    for actor, rows in parts:
        for row in rows:
            try:
                tenants[row.tenant_id][actor].append(row)
            except KeyError:
                tenants.setdefault(row.tenant_id, {})[actor] = [row]
    return [_recorded(tenant_id, by_actor) for tenant_id, by_actor in tenants.items()]


def _recorded(tenant_id: str, by_actor: dict[str, list[Row]]) -> Act:
    rows = [row for some in by_actor.values() for row in some]
    root = merkle_root([leaf(row) for row in rows]).hex()
    counts = [(actor, len(some)) for actor, some in by_actor.items()]
    actor = counts[0][0] if len(counts) == 1 else ""
    return act(tenant_id, RECORDED, actor, [row.id for row in rows], actors=counts, root=root)
