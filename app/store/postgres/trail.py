"""The audit trail in PostgreSQL: entries in the transactions of what they tell of, each once, and checkpoints."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from functools import cache
from typing import Any, Generic, NamedTuple, TypeVar

import msgspec
from asyncpg.pgproto.pgproto import UUID

from app import ids
from app.resilience.breaker import Breaker
from app.store.base import RowRefused, StoreUnavailable, Unconfirmed
from app.store.chain import AuditEntry
from app.store.postgres.link import KeysTaken, Link, LockBusy, Lost, Present, Session, Silent, Slow, Unfit
from app.store.postgres.statements import ENTRY, enter
from app.store.segments import Segments
from app.store.trail import RECORDED, Act, Checkpoint, Head, Position, packed_heads, unpacked_heads
from app.store.trail_search import TrailSearch, Wanted

Answer = TypeVar("Answer")
Told = TypeVar("Told")

UNDONE = (RowRefused, KeysTaken, LockBusy, Slow)
"""What says for certain that the statement had no effect. An attempt before it may have had one."""

_ON_RECORD = "SELECT 1 FROM audit_entries WHERE tenant_id = $1 AND segment = $2 AND number = $3 AND hash = $4"
_SEGMENT = f"""\
SELECT {ENTRY} FROM audit_entries WHERE tenant_id = $1 AND segment = $2 AND number > $3 ORDER BY number LIMIT $4"""
_FOLLOWING = """\
WITH RECURSIVE s (segment) AS (
    (SELECT e.segment FROM audit_entries e WHERE e.tenant_id = {0} AND e.segment >= {1} ORDER BY e.segment LIMIT 1)
    UNION ALL
    SELECT (SELECT e.segment FROM audit_entries e WHERE e.tenant_id = {0} AND e.segment > s.segment
            ORDER BY e.segment LIMIT 1) FROM s WHERE s.segment IS NOT NULL
)
SELECT s.segment FROM s WHERE s.segment IS NOT NULL"""
"""A tenant's segments from the given one on, from one to the next by the index, however long each is."""
_SEGMENTS = _FOLLOWING.format("$1", "$2")
TENANTS = """\
WITH RECURSIVE t (tenant_id) AS (
    (SELECT o.tenant_id FROM {0} o ORDER BY o.tenant_id LIMIT 1)
    UNION ALL
    SELECT (SELECT o.tenant_id FROM {0} o WHERE o.tenant_id > t.tenant_id ORDER BY o.tenant_id LIMIT 1)
    FROM t WHERE t.tenant_id IS NOT NULL
)
SELECT t.tenant_id FROM t WHERE t.tenant_id IS NOT NULL"""
"""The tenants of a table, in order, from one to the next by an index."""
_UNCOVERED = f"""\
SELECT t.tenant_id, s.segment, l.number, l.hash FROM ({TENANTS.format("audit_entries")}) t
CROSS JOIN LATERAL ({_FOLLOWING.format("t.tenant_id", "$1")}) s
CROSS JOIN LATERAL (
    SELECT e.number, e.hash FROM audit_entries e WHERE e.tenant_id = t.tenant_id AND e.segment = s.segment
    ORDER BY e.number DESC LIMIT 1
) l
WHERE l.number > coalesce((
    SELECT h.number FROM audit_heads h WHERE h.tenant_id = t.tenant_id AND h.segment = s.segment), 0)"""

_CHECKPOINT = "tenant_id, number, at_ms, entries, heads, previous, hash, mac"
_CHECKPOINTS = f"""\
SELECT {_CHECKPOINT} FROM audit_checkpoints WHERE tenant_id = $1 AND number > $2 ORDER BY number LIMIT $3"""
_LAST = f"SELECT {_CHECKPOINT} FROM audit_checkpoints WHERE tenant_id = $1 ORDER BY number DESC LIMIT 1"
_HEAD_NUMBER = "SELECT number FROM audit_heads WHERE tenant_id = $1 AND segment = $2"
_KEEP = f"""\
WITH kept AS (
    INSERT INTO audit_checkpoints ({_CHECKPOINT}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
    ON CONFLICT (tenant_id, number) DO NOTHING RETURNING tenant_id
), covered AS (
    INSERT INTO audit_heads AS h (tenant_id, segment, number)
    SELECT k.tenant_id, u.segment, u.number FROM kept k, unnest($9::uuid[], $10::bigint[]) AS u (segment, number)
    ORDER BY 2
    ON CONFLICT (tenant_id, segment) DO UPDATE SET number = greatest(h.number, EXCLUDED.number)
)
SELECT count(*) FROM kept"""
_KEPT = f"SELECT {_CHECKPOINT} FROM audit_checkpoints WHERE tenant_id = $1 AND number = $2"


class PostgresTrail(TrailSearch):
    """The `Trail` of the store in PostgreSQL, to be mixed into it.

    Group commits and acts have segments of their own: an act never waits for a group commit to tell what came of it.
    """

    write_breaker: Breaker
    _writing: Link

    def __init__(self) -> None:
        self._commits = Segments()
        self._acts = Segments()
        self._acting = asyncio.Lock()
        self._adopted: list[Segments] = []

    @abstractmethod
    async def _guarded(self, breaker: Breaker, call: Callable[[], Awaitable[Answer]], weight: int = 1) -> Answer:
        """The call, behind the breaker; repeated within the budget where the connection broke."""

    @abstractmethod
    async def _fetch(self, sql: str, *values: object, link: Link | None = None) -> list[Any]:
        """The rows of one statement."""

    # What is entered

    async def note(self, acts: Sequence[Act]) -> None:
        """Append the acts, in one transaction."""
        if not acts:
            return
        async with self._acting:
            entries = self._acts.propose(acts)
            await self._enter(self._acts, entries, enter(len(entries) == 1), entry_values(entries))

    async def _act(
        self, work: Callable[[Session], Awaitable[Told]], acts: Sequence[Act] | Callable[[Told], Sequence[Act]]
    ) -> Told:
        """Do the work and append its acts to the trail, in one transaction that takes effect once.

        work: called again, in another transaction, where a connection broke and the attempt is not on record.
        acts: or what they are by what the work told; where there are none, the trail is left alone.
        """
        sent: list[_Sent[Told]] = []

        async def send() -> _Sent[Told]:
            async with self._writing.session(transaction=True) as session:
                told = await work(session)
                entries = self._acts.propose(acts(told) if callable(acts) else acts)
                sent.append(_Sent(entries, told))
                if entries:
                    await session.execute(enter(len(entries) == 1), *entry_values(entries))
                return sent[-1]

        async with self._acting:
            return await self._settled(self._acts, sent, send)

    async def _fits(self, work: Callable[[Session], Awaitable[None]], acts: Sequence[Act]) -> bool:
        """Do the work and note its acts; False, and nothing is changed, where what is there does not allow it."""
        try:
            await self._act(work, acts)
        except Unfit:
            return False
        return True

    async def _enter(
        self,
        chain: Segments,
        entries: list[AuditEntry],
        sql: str,
        values: Sequence[object],
        *,
        local: str = "",
        weight: int = 1,
    ) -> None:
        """Do a statement that holds the entries; it takes effect once. local: SET LOCAL statements before it."""
        sent: list[_Sent[None]] = [_Sent(entries, None)]

        async def send() -> _Sent[None]:
            async with self._writing.session(transaction=bool(local), local=local) as session:
                await session.execute(sql, *values)
            return sent[0]

        await self._settled(chain, sent, send, weight)

    async def _settled(
        self,
        chain: Segments,
        sent: list[_Sent[Told]],
        send: Callable[[], Awaitable[_Sent[Told]]],
        weight: int = 1,
    ) -> Told:
        """Send, and again where the connection broke; then the chain goes on from what is on record.

        sent: the attempts that may be on record. Raises Unconfirmed where that is not known in the end.
        """
        lost = False

        async def attempt() -> _Sent[Told]:
            nonlocal lost
            try:
                if lost and (done := await self._recognised(sent)):
                    return done
                try:
                    return await send()
                except UNDONE:
                    # The attempt before may have come to its end only now, and have been in the way.
                    if lost and (done := await self._recognised(sent)):
                        return done
                    raise
            except Lost:
                lost = True
                raise

        try:
            done = await self._guarded(self.write_breaker, attempt, weight)
        except BaseException as error:
            if lost or not isinstance(error, UNDONE) or _is_number_taken(error):
                _doubt(chain, sent)
            if _is_number_taken(error):
                raise StoreUnavailable("the audit trail was continued by somebody else") from error
            if isinstance(error, (Lost, Silent)):
                raise Unconfirmed(str(error)) from error
            raise
        if lost:
            _doubt(chain, sent)
        chain.confirm(done.entries)
        return done.told

    async def _recognised(self, sent: list[_Sent[Told]]) -> _Sent[Told] | None:
        """The attempt that is on record, if any is: an entry is there with all that came with it."""
        async with self._writing.session() as session:
            for one in sent:
                if one.entries:
                    first = one.entries[0]
                    place = (first.tenant_id, UUID(first.segment), first.number, first.hash)
                    if await session.fetchval(_ON_RECORD, *place):
                        return one
        return None

    # What is read

    def moved(self) -> dict[str, tuple[Head, ...]]:
        """By tenant, the heads of this process's segments that moved since they were last asked for."""
        heads = self._commits.moved()
        adopted, self._adopted = self._adopted, []
        for chain in (self._acts, *adopted):
            for tenant_id, others in chain.moved().items():
                heads[tenant_id] = tuple(sorted((*heads.get(tenant_id, ()), *others)))
        return heads

    def _adopt(self, chain: Segments) -> None:
        """Have the heads of another chain, whose entries are on record, among those that moved."""
        self._adopted.append(chain)

    async def uncovered(self, since_ms: int) -> dict[str, tuple[Head, ...]]:
        """By tenant, the heads of segments begun since then that no checkpoint holds."""
        heads: dict[str, list[Head]] = {}
        for tenant_id, segment, number, hash in await self._fetch(_UNCOVERED, UUID(ids.floor(max(since_ms, 0)))):
            heads.setdefault(tenant_id, []).append(Head(segment.bytes, number, hash))
        return {tenant_id: tuple(some) for tenant_id, some in heads.items()}

    async def last_checkpoint(self, tenant_id: str) -> Checkpoint | None:
        """The newest, from the server that takes the writes."""
        found = await self._fetch(_LAST, tenant_id, link=self._writing)
        return _checkpoint(*found[0]) if found else None

    async def head_number(self, tenant_id: str, segment: bytes) -> int:
        """The greatest number of the segment in any checkpoint, 0 for none; from the server that takes the writes."""
        found = await self._fetch(_HEAD_NUMBER, tenant_id, UUID(segment), link=self._writing)
        return found[0]["number"] if found else 0

    async def add_checkpoint(self, checkpoint: Checkpoint) -> bool:
        """Keep a checkpoint; False where its number is taken by another."""
        values: list[Any] = list(msgspec.structs.astuple(checkpoint))
        values[4] = packed_heads(checkpoint.heads)
        covered = [UUID(head.segment) for head in checkpoint.heads], [head.number for head in checkpoint.heads]

        async def keep() -> bool:
            async with self._writing.session() as session:
                if await session.fetchval(_KEEP, *values, *covered):
                    return True
            # Ours, where an attempt was committed without our learning of it.
            found = await self._fetch(_KEPT, checkpoint.tenant_id, checkpoint.number, link=self._writing)
            return [_checkpoint(*record) for record in found] == [checkpoint]

        return await self._guarded(self.write_breaker, keep)

    async def trails(self) -> list[str]:
        """The tenants with entries or checkpoints."""
        found = [await self._fetch(TENANTS.format(table)) for table in ("audit_entries", "audit_checkpoints")]
        return sorted({tenant_id for records in found for (tenant_id,) in records})

    async def segments(self, tenant_id: str) -> list[bytes]:
        """The tenant's segments, oldest first."""
        found = await self._fetch(_SEGMENTS, tenant_id, UUID(bytes(16)))
        return [segment.bytes for (segment,) in found]

    async def segment(self, tenant_id: str, segment: bytes, *, after: int, limit: int) -> list[AuditEntry]:
        """The entries of a segment after a number, in order."""
        return [_entry(*record) for record in await self._fetch(_SEGMENT, tenant_id, UUID(segment), after, limit)]

    async def checkpoints(self, tenant_id: str, *, after: int, limit: int) -> list[Checkpoint]:
        """The tenant's checkpoints after a number, in order."""
        return [_checkpoint(*record) for record in await self._fetch(_CHECKPOINTS, tenant_id, after, limit)]

    async def _edge(
        self, wanted: Wanted, low: Position, high: Position, count: int, *, newest_first: bool
    ) -> Position | None:
        found = await self._fetch(edge_sql(wanted.acts_only, newest_first), *_values(wanted, low, high, count))
        return Position(found[0][0], found[0][1].bytes, found[0][2]) if found else None

    async def _stretch(
        self, wanted: Wanted, low: Position, high: Position, limit: int, *, newest_first: bool
    ) -> list[AuditEntry]:
        filters: list[object] = []
        if wanted.act is not None:
            filters.append(wanted.act)
        if wanted.actor is not None:
            filters += [wanted.actor, wanted.counted]
        if wanted.assessment is not None:
            filters.append(wanted.assessment)
        by = (wanted.act is not None, wanted.actor is not None, wanted.assessment is not None)
        sql = stretch_sql(wanted.acts_only, newest_first, *by)
        return [_entry(*record) for record in await self._fetch(sql, *_values(wanted, low, high, limit), *filters)]


class _Sent(NamedTuple, Generic[Told]):
    """What one attempt enters in the trail, and what its work told."""

    entries: list[AuditEntry]
    told: Told


@cache
def edge_sql(acts_only: bool, newest_first: bool) -> str:
    """The query of the position after so many entries of a range. Parameters: tenant, low, high, how many."""
    return f"SELECT at_ms, segment, number {_range(acts_only)} ORDER BY {_order(newest_first)} LIMIT 1 OFFSET $8"


@cache
def stretch_sql(acts_only: bool, newest_first: bool, by_act: bool, by_actor: bool, by_assessment: bool) -> str:
    """The query of the first entries of a range that say what is asked for.

    Parameters: tenant, low, high, limit; then act, actor and how a detail tells of it, assessment, where it is by them.
    """
    after = iter(range(9, 13))
    filters = f" AND act = ${next(after)}" if by_act else ""
    if by_actor:
        actor, counted = next(after), next(after)
        among = f"actor = '' AND act = '{RECORDED}' AND position(${counted} in detail) > 0"
        filters += f" AND (actor = ${actor} OR ({among}))"
    if by_assessment:
        filters += f" AND position(${next(after)} in subjects) > 0"
    return f"SELECT {ENTRY} {_range(acts_only)}{filters} ORDER BY {_order(newest_first)} LIMIT $8"


def _range(acts_only: bool) -> str:
    return (
        "FROM audit_entries WHERE tenant_id = $1 AND (at_ms, segment, number) >= ($2, $3, $4)"
        " AND (at_ms, segment, number) < ($5, $6, $7)" + (f" AND act <> '{RECORDED}'" if acts_only else "")
    )


def _order(newest_first: bool) -> str:
    return "at_ms DESC, segment DESC, number DESC" if newest_first else "at_ms, segment, number"


def _values(wanted: Wanted, low: Position, high: Position, limit: int) -> tuple[Any, ...]:
    places = (low.at_ms, UUID(low.segment), low.number, high.at_ms, UUID(high.segment), high.number)
    return wanted.tenant_id, *places, limit


def entry_values(entries: Sequence[AuditEntry]) -> list[Any]:
    """The entries as `statements.enter` takes them: the values of one, or else the columns of all."""
    values = [
        (tenant_id, UUID(segment), *others) for tenant_id, segment, *others in map(msgspec.structs.astuple, entries)
    ]
    if len(values) == 1:
        return [*values[0]]
    return [*map(list, zip(*values, strict=True))] if values else [[] for _ in range(ENTRY.count(",") + 1)]


def _entry(tenant_id: str, segment: UUID, *others: Any) -> AuditEntry:
    return AuditEntry(tenant_id, segment.bytes, *others)


def _checkpoint(*columns: Any) -> Checkpoint:
    tenant_id, number, at_ms, entries, heads, *others = columns
    return Checkpoint(tenant_id, number, at_ms, entries, unpacked_heads(heads), *others)


def _doubt(chain: Segments, sent: Sequence[_Sent[Any]]) -> None:
    for one in sent:
        chain.doubt(one.entries)


def _is_number_taken(error: BaseException) -> bool:
    """Whether what is present already is the number of an entry, and no row that was to be recorded."""
    return isinstance(error, Present) and getattr(error.__cause__, "table_name", None) == "audit_entries"
