"""The audit trail in the SQLite file."""

from __future__ import annotations

import sqlite3
from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from functools import cache, partial
from typing import Any, Generic, NamedTuple, TypeVar

import msgspec

from app import ids
from app.store.base import RowRefused
from app.store.chain import AuditEntry
from app.store.lane import Lane
from app.store.segments import Segments
from app.store.trail import RECORDED, Act, Checkpoint, Head, Position, packed_heads, unpacked_heads
from app.store.trail_search import TrailSearch, Wanted

Answer = TypeVar("Answer")

_ENTRY = "tenant_id, segment, number, at_ms, act, actor, detail, subjects, previous, hash"
_CHECKPOINT = "tenant_id, number, at_ms, entries, heads, previous, hash, mac"
_INSERT = f"INSERT INTO audit_entries ({_ENTRY}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"

_SEGMENT = (
    f"SELECT {_ENTRY} FROM audit_entries WHERE tenant_id = ? AND segment = ? AND number > ? ORDER BY number LIMIT ?"
)
_SEGMENTS = """\
WITH RECURSIVE s (segment) AS (
    SELECT (SELECT segment FROM audit_entries WHERE tenant_id = :tenant ORDER BY segment LIMIT 1)
    UNION ALL
    SELECT (SELECT e.segment FROM audit_entries e WHERE e.tenant_id = :tenant AND e.segment > s.segment
            ORDER BY e.segment LIMIT 1) FROM s WHERE s.segment IS NOT NULL
)
SELECT segment FROM s WHERE segment IS NOT NULL"""
TENANTS = """\
WITH RECURSIVE t (tenant_id) AS (
    SELECT (SELECT tenant_id FROM {0} ORDER BY tenant_id LIMIT 1)
    UNION ALL
    SELECT (SELECT o.tenant_id FROM {0} o WHERE o.tenant_id > t.tenant_id ORDER BY o.tenant_id LIMIT 1)
    FROM t WHERE t.tenant_id IS NOT NULL
)
SELECT tenant_id FROM t WHERE tenant_id IS NOT NULL"""
"""The tenants of a table, in order, from one to the next by an index."""

# From one segment to the next of a tenant, and from its last to the next tenant, where `segment` begins below all that
# are looked for again.
_FOLLOWING = """\
(SELECT e.segment FROM audit_entries e WHERE e.tenant_id = s.tenant_id AND e.segment > s.segment
 ORDER BY e.segment LIMIT 1)"""
_UNCOVERED = f"""\
WITH RECURSIVE s (tenant_id, segment) AS (
    SELECT (SELECT tenant_id FROM audit_entries ORDER BY tenant_id LIMIT 1), :below
    UNION ALL
    SELECT CASE WHEN {_FOLLOWING} IS NOT NULL THEN s.tenant_id ELSE (
               SELECT o.tenant_id FROM audit_entries o WHERE o.tenant_id > s.tenant_id ORDER BY o.tenant_id LIMIT 1)
           END, coalesce({_FOLLOWING}, :below)
    FROM s WHERE s.tenant_id IS NOT NULL
)
SELECT e.tenant_id, e.segment, e.number, e.hash FROM s CROSS JOIN audit_entries e
WHERE e.tenant_id = s.tenant_id AND e.segment = s.segment AND e.number = (
    SELECT l.number FROM audit_entries l WHERE l.tenant_id = s.tenant_id AND l.segment = s.segment
    ORDER BY l.number DESC LIMIT 1)
AND e.number > coalesce((
    SELECT h.number FROM audit_heads h WHERE h.tenant_id = s.tenant_id AND h.segment = s.segment), 0)"""

_CHECKPOINTS = f"SELECT {_CHECKPOINT} FROM audit_checkpoints WHERE tenant_id = ? AND number > ? ORDER BY number LIMIT ?"
_LAST = f"SELECT {_CHECKPOINT} FROM audit_checkpoints WHERE tenant_id = ? ORDER BY number DESC LIMIT 1"
_HEAD_NUMBER = "SELECT number FROM audit_heads WHERE tenant_id = ? AND segment = ?"
_KEEP = f"INSERT INTO audit_checkpoints ({_CHECKPOINT}) VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
_KEPT = f"SELECT {_CHECKPOINT} FROM audit_checkpoints WHERE tenant_id = ? AND number = ?"
_COVER = """\
INSERT INTO audit_heads (tenant_id, segment, number) VALUES (?, ?, ?)
ON CONFLICT (tenant_id, segment) DO UPDATE SET number = max(number, excluded.number)"""


class Done(NamedTuple, Generic[Answer]):
    """What came of a change, and what the trail is told of it."""

    answer: Answer
    acts: Sequence[Act] = ()


Change = Callable[[sqlite3.Connection], Done[Answer]]


def append(connection: sqlite3.Connection, chain: Segments, acts: Iterable[Act]) -> list[AuditEntry]:
    """Enter the acts within the transaction that is open, which then has to end with `commit` of these entries."""
    acts = list(acts)
    entries = chain.propose(acts)
    connection.execute("SAVEPOINT entries")
    try:
        connection.executemany(_INSERT, map(msgspec.structs.astuple, entries))
    except sqlite3.IntegrityError:
        # Some number is taken: a transaction before was committed without the chain's having learnt of it.
        connection.execute("ROLLBACK TO entries")
        chain.doubt(entries)
        entries = chain.propose(acts)
        connection.executemany(_INSERT, map(msgspec.structs.astuple, entries))
    connection.execute("RELEASE entries")
    return entries


def commit(connection: sqlite3.Connection, chain: Segments, entries: Sequence[AuditEntry]) -> None:
    """Commit the transaction that is open, in which these entries were appended."""
    try:
        connection.execute("COMMIT")
    except BaseException:
        # What was written may be found in the log again, or not.
        chain.doubt(entries)
        raise
    chain.confirm(entries)


class SqliteTrail(TrailSearch):
    """The `Trail` of the SQLite file, to be mixed into the store."""

    _writer: Lane
    _chain: Segments

    async def _apply(self, change: Change[Answer]) -> Answer:
        """Make the change and note its acts, in one transaction. Raises RowRefused for what it may not hold."""
        return await self._writer.run(partial(_make, self._chain, change))

    @abstractmethod
    async def _rows(self, sql: str, values: Sequence[object] | dict[str, object]) -> list[Any]:
        """The rows of a query that may take a while."""

    async def note(self, acts: Sequence[Act]) -> None:
        """Append the acts, in one transaction."""
        if acts:
            await self._writer.run(partial(_note, self._chain, acts))

    def moved(self) -> dict[str, tuple[Head, ...]]:
        """By tenant, the heads of this process's segments that moved since they were last asked for."""
        return self._chain.moved()

    async def uncovered(self, since_ms: int) -> dict[str, tuple[Head, ...]]:
        """By tenant, the heads of segments begun since then that no checkpoint holds."""
        # Shorter than an id and its beginning, this is below all of its time and above all before.
        below = ids.floor(max(since_ms, 0))[:6]
        heads: dict[str, list[Head]] = {}
        for tenant_id, *head in await self._rows(_UNCOVERED, {"below": below}):
            heads.setdefault(tenant_id, []).append(Head(*head))
        return {tenant_id: tuple(some) for tenant_id, some in heads.items()}

    async def last_checkpoint(self, tenant_id: str) -> Checkpoint | None:
        """The newest."""
        rows = await self._rows(_LAST, (tenant_id,))
        return _checkpoint(*rows[0]) if rows else None

    async def head_number(self, tenant_id: str, segment: bytes) -> int:
        """The greatest number of the segment in any checkpoint, 0 for none."""
        rows = await self._rows(_HEAD_NUMBER, (tenant_id, segment))
        return rows[0][0] if rows else 0

    async def add_checkpoint(self, checkpoint: Checkpoint) -> bool:
        """Keep a checkpoint; False where its number is taken by another."""
        return await self._writer.run(partial(_add_checkpoint, checkpoint))

    async def trails(self) -> list[str]:
        """The tenants with entries or checkpoints."""
        found = [await self._rows(TENANTS.format(table), ()) for table in ("audit_entries", "audit_checkpoints")]
        return sorted({tenant_id for rows in found for (tenant_id,) in rows})

    async def segments(self, tenant_id: str) -> list[bytes]:
        """The tenant's segments, oldest first."""
        return [segment for (segment,) in await self._rows(_SEGMENTS, {"tenant": tenant_id})]

    async def segment(self, tenant_id: str, segment: bytes, *, after: int, limit: int) -> list[AuditEntry]:
        """The entries of a segment after a number, in order."""
        return [AuditEntry(*row) for row in await self._rows(_SEGMENT, (tenant_id, segment, after, limit))]

    async def checkpoints(self, tenant_id: str, *, after: int, limit: int) -> list[Checkpoint]:
        """The tenant's checkpoints after a number, in order."""
        return [_checkpoint(*row) for row in await self._rows(_CHECKPOINTS, (tenant_id, after, limit))]

    async def _edge(
        self, wanted: Wanted, low: Position, high: Position, count: int, *, newest_first: bool
    ) -> Position | None:
        rows = await self._rows(edge_sql(wanted.acts_only, newest_first), _values(wanted, low, high, count))
        return Position(*rows[0]) if rows else None

    async def _stretch(
        self, wanted: Wanted, low: Position, high: Position, limit: int, *, newest_first: bool
    ) -> list[AuditEntry]:
        filters = (wanted.act is not None, wanted.actor is not None, wanted.assessment is not None)
        sql = stretch_sql(wanted.acts_only, newest_first, *filters)
        return [AuditEntry(*row) for row in await self._rows(sql, _values(wanted, low, high, limit))]


@cache
def edge_sql(acts_only: bool, newest_first: bool) -> str:
    """The query of the position after so many (`limit`) entries of a range."""
    return f"SELECT at_ms, segment, number {_range(acts_only)} ORDER BY {_order(newest_first)} LIMIT 1 OFFSET :limit"


@cache
def stretch_sql(acts_only: bool, newest_first: bool, by_act: bool, by_actor: bool, by_assessment: bool) -> str:
    """The query of the first entries of a range that say what is asked for."""
    return (
        f"SELECT {_ENTRY} {_range(acts_only)}"
        + (" AND act = :act" if by_act else "")
        + (
            f" AND (actor = :actor OR (actor = '' AND act = '{RECORDED}' AND instr(detail, :counted) > 0))"
            if by_actor
            else ""
        )
        + (" AND instr(subjects, :assessment) > 0" if by_assessment else "")
        + f" ORDER BY {_order(newest_first)} LIMIT :limit"
    )


def _range(acts_only: bool) -> str:
    index = "audit_acts_by_time" if acts_only else "audit_entries_by_time"
    return (
        f"FROM audit_entries INDEXED BY {index} WHERE tenant_id = :tenant"
        " AND (at_ms, segment, number) >= (:low_ms, :low_segment, :low_number)"
        " AND (at_ms, segment, number) < (:high_ms, :high_segment, :high_number)"
        + (f" AND act <> '{RECORDED}'" if acts_only else "")
    )


def _order(newest_first: bool) -> str:
    return "at_ms DESC, segment DESC, number DESC" if newest_first else "at_ms, segment, number"


def _values(wanted: Wanted, low: Position, high: Position, limit: int) -> dict[str, object]:
    values: dict[str, object] = {
        "tenant": wanted.tenant_id,
        "act": wanted.act,
        "actor": wanted.actor,
        "counted": wanted.counted,
        "assessment": wanted.assessment,
        "limit": limit,
    }
    for name, place in (("low", low), ("high", high)):
        values |= {f"{name}_ms": place.at_ms, f"{name}_segment": place.segment, f"{name}_number": place.number}
    return values


def _make(chain: Segments, change: Change[Answer], connection: sqlite3.Connection) -> Answer:
    connection.execute("BEGIN IMMEDIATE")
    try:
        done = change(connection)
    except sqlite3.IntegrityError as fault:
        raise RowRefused(str(fault)) from None
    commit(connection, chain, append(connection, chain, done.acts))
    return done.answer


def _note(chain: Segments, acts: Sequence[Act], connection: sqlite3.Connection) -> None:
    connection.execute("BEGIN IMMEDIATE")
    commit(connection, chain, append(connection, chain, acts))


def _add_checkpoint(checkpoint: Checkpoint, connection: sqlite3.Connection) -> bool:
    connection.execute("BEGIN IMMEDIATE")
    kept = connection.execute(_KEEP, _checkpoint_values(checkpoint)).rowcount == 1
    if kept:
        covered = [(checkpoint.tenant_id, head.segment, head.number) for head in checkpoint.heads]
        connection.executemany(_COVER, covered)
    else:
        # Ours, where a commit was lost sight of.
        row = connection.execute(_KEPT, (checkpoint.tenant_id, checkpoint.number)).fetchone()
        kept = _checkpoint(*row) == checkpoint
    connection.execute("COMMIT")
    return kept


def _checkpoint_values(checkpoint: Checkpoint) -> tuple[Any, ...]:
    values = msgspec.structs.astuple(checkpoint)
    return (*values[:4], packed_heads(checkpoint.heads), *values[5:])


def _checkpoint(*columns: Any) -> Checkpoint:
    tenant_id, number, at_ms, entries, heads, *others = columns
    return Checkpoint(tenant_id, number, at_ms, entries, unpacked_heads(heads), *others)
