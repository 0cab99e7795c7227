"""Retention and erasure in PostgreSQL, in slices so short that the rows of others get in between."""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeVar

from asyncpg.pgproto.pgproto import UUID
from msgspec import Struct

from app import ids
from app.resilience.breaker import Breaker
from app.store.base import Row, StoreUnavailable
from app.store.keeping import (
    Dropped,
    Erased,
    Erasure,
    Relationship,
    Retention,
    business_sha256,
    checked_days,
    erased_act,
    first_id,
    gone_acts,
    kept_from,
)
from app.store.postgres import partitions
from app.store.postgres.link import Link, LockBusy, Session, Slow
from app.store.postgres.partitions import Month
from app.store.postgres.past_months import FIND, LOCAL, Limit, drop_month, month_of
from app.store.postgres.rows import row_of
from app.store.postgres.spans import DAY_MS, DAY_SPANS, span_of_day
from app.store.postgres.statements import COLUMNS
from app.store.segments import Segments
from app.store.trail import Act

log = logging.getLogger(__name__)

Answer = TypeVar("Answer")

ROWS_A_LOOK = 1000
FIRST_ROWS_A_DROP = 64
ROWS_A_DROP = (16, 512)
"""The least and the most: between them a slice gets as many as it deletes in about SLICE_S seconds."""
SLICE_S = 0.03
ROWS_AN_ERASURE = 512
"""A business of so many assessments is erased in one transaction, unless the database is too slow for it."""
LEAST_ROWS_AN_ERASURE = 8
REST_S = 0.01
LOCK_PATIENCE_S = 30.0
LOCK_PAUSE_S = 0.1

_SET_RETENTION = """\
INSERT INTO retention (tenant_id, days) VALUES ($1, $2) ON CONFLICT (tenant_id) DO UPDATE SET days = EXCLUDED.days"""
_UNSET_RETENTION = "DELETE FROM retention WHERE tenant_id = $1"
_RETENTIONS = "SELECT tenant_id, days FROM retention ORDER BY tenant_id"
_SET_RELATIONSHIP = """\
INSERT INTO relationships (tenant_id, business_id, ended_on) VALUES ($1, $2, $3)
ON CONFLICT (tenant_id, business_id) DO UPDATE SET ended_on = EXCLUDED.ended_on"""
_RELATIONSHIPS = "SELECT business_id, ended_on FROM relationships WHERE tenant_id = $1 ORDER BY business_id"
_ERASURES = """\
SELECT business_sha256, erased_ms, assessments, reason FROM erasures
WHERE tenant_id = $1 ORDER BY erased_ms, business_sha256"""

# What was found is looked at again: settings may have changed since. The range of ids leads to the partition.
_DROP = """\
DELETE FROM assessments a WHERE a.tenant_id = $1 AND a.id = ANY ($2::uuid[]) AND a.id >= $3 AND a.id <= $4
AND EXISTS (SELECT 1 FROM retention WHERE tenant_id = $1 AND days = $5)
AND NOT EXISTS (
    SELECT 1 FROM relationships r WHERE r.tenant_id = $1 AND r.business_id = a.business_id
    AND (r.ended_on IS NULL OR r.ended_on >= $6))
RETURNING a.id"""
_DROP_OVERRIDES = "DELETE FROM overrides WHERE tenant_id = $1 AND assessment_id = ANY ($2::uuid[])"

_NEXT_ID = "SELECT id FROM assessments WHERE tenant_id = $1 AND id >= $2 ORDER BY id LIMIT 1"

_FIND_BUSINESS = """\
WITH RECURSIVE s (span) AS (
    (SELECT span FROM assessments WHERE tenant_id = $1 AND id >= $3 AND id < $4 AND business_id IS NOT NULL
     AND span BETWEEN $5 AND $6 ORDER BY span LIMIT 1)
    UNION ALL
    SELECT (SELECT a.span FROM assessments a WHERE a.tenant_id = $1 AND a.id >= $3 AND a.id < $4
            AND a.business_id IS NOT NULL AND a.span > s.span AND a.span <= $6 ORDER BY a.span LIMIT 1)
    FROM s WHERE s.span IS NOT NULL
)
SELECT f.id, f.record FROM s CROSS JOIN LATERAL (
    SELECT a.id, a.record FROM assessments a
    WHERE a.tenant_id = $1 AND a.span = s.span AND a.business_id = $2 AND a.id >= $3 AND a.id < $4
    ORDER BY a.id LIMIT $7
) f WHERE s.span IS NOT NULL LIMIT $7"""

# The leaf is `app.store.chain.leaf`, made where the inputs are; none counts beside an input. What was erased before has
# an act of its own, and none may vouch for a row that somebody made look erased: those are told apart.
_BLANK = f"""\
WITH erased AS (
    SELECT id FROM assessments
    WHERE tenant_id = $1 AND id = ANY ($3::uuid[]) AND id >= $5 AND id <= $6 AND input IS NULL
)
UPDATE assessments a SET business_id = NULL, input = NULL, input_sha256 = coalesce(sha256(a.input), a.input_sha256),
    record = r.record,
    leaf = CASE WHEN a.input IS NULL THEN a.leaf ELSE sha256(
        '\\x00'::bytea || uuid_send(a.id) || a.model_sha256
        || substr(int2send(coalesce(a.original_level, a.level)), 2)
        || substr(int2send(coalesce(a.original_decision, a.decision)), 2)
        || int4send(a.score) || int4send(length(a.input)) || int4send(length(a.record))
        || a.input || a.record) END
FROM unnest($3::uuid[], $4::bytea[]) AS r (id, record)
WHERE a.tenant_id = $1 AND a.id = ANY ($3::uuid[]) AND a.id >= $5 AND a.id <= $6 AND a.id = r.id AND a.business_id = $2
RETURNING a.id IN (SELECT id FROM erased), {", ".join(f"a.{name}" for name in COLUMNS.split(", "))}"""
_BLANK_REASONS = "UPDATE overrides SET reason = NULL WHERE tenant_id = $1 AND assessment_id = ANY ($2::uuid[])"

_BLANK_DISPOSITIONS = """\
UPDATE dispositions SET business_id = NULL, reason = NULL, matched_name = '', ended_ms = coalesce(ended_ms, $3)
WHERE tenant_id = $1 AND business_id = $2 RETURNING 1"""
_END_RELATIONSHIP = "DELETE FROM relationships WHERE tenant_id = $1 AND business_id = $2 RETURNING 1"
_LATEST_NOTE = """\
SELECT max(erased_ms) FROM erasures WHERE tenant_id = $1 AND business_sha256 = $2 AND erased_ms >= $3"""
_NOTED = "SELECT assessments FROM erasures WHERE tenant_id = $1 AND business_sha256 = $2 AND erased_ms = $3"
_NOTE = """\
INSERT INTO erasures (tenant_id, business_sha256, erased_ms, assessments, reason) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT DO NOTHING RETURNING 1"""
_ADD_TO_NOTE = """\
UPDATE erasures SET assessments = assessments + $4 WHERE tenant_id = $1 AND business_sha256 = $2 AND erased_ms = $3"""

_LAST_ID = b"\xff" * 16


class _Order(Struct, frozen=True):
    """Whom to erase, and the note of it. erased_ms: like which the business has no other note."""

    tenant_id: str
    business_id: str
    erased_ms: int
    reason: str
    actor: str

    @property
    def note(self) -> tuple[str, bytes, int]:
        return self.tenant_id, business_sha256(self.tenant_id, self.business_id), self.erased_ms


class _Found(NamedTuple):
    """An assessment to erase."""

    id: UUID
    record: bytes


class _Erased(NamedTuple):
    """What a slice erased, as it is now. told: of these, what an act has to tell of.  noted: the note's count."""

    rows: list[Row]
    told: list[Row]
    noted: int | None


class PostgresKeeping(ABC):
    """The `Keeping` of the store in PostgreSQL, to be mixed into it."""

    _writing: Link
    _reading: Link
    write_breaker: Breaker
    read_breaker: Breaker

    @abstractmethod
    async def _guarded(self, breaker: Breaker, call: Callable[[], Awaitable[Answer]], weight: int = 1) -> Answer:
        """The call, behind the breaker; repeated within the budget where the connection broke."""

    @abstractmethod
    async def _act(
        self, work: Callable[[Session], Awaitable[Answer]], acts: Sequence[Act] | Callable[[Answer], Sequence[Act]]
    ) -> Answer:
        """Do the work and append its acts to the trail, in one transaction that takes effect once."""

    @abstractmethod
    def _adopt(self, chain: Segments) -> None:
        """Have the heads of another chain, whose entries are on record, among those that moved."""

    @abstractmethod
    async def _fetch(self, sql: str, *values: object, link: Link | None = None) -> list[Any]:
        """The rows of one statement."""

    async def set_retention(self, tenant_id: str, days: int | None) -> None:
        """Keep the tenant's assessments for so many days, or for ever. Raises ValueError."""
        if days is None:
            await self._change(_UNSET_RETENTION, tenant_id)
        else:
            await self._change(_SET_RETENTION, tenant_id, checked_days(days))

    async def retentions(self) -> list[Retention]:
        """The settings of all tenants that have one, by tenant."""
        return [Retention(*record) for record in await self._fetch(_RETENTIONS)]

    async def set_relationship(self, tenant_id: str, business_id: str, ended_on: dt.date | None) -> None:
        """The relationship with the business ended on that day, or is ongoing."""
        await self._change(_SET_RELATIONSHIP, tenant_id, business_id, ended_on)

    async def relationships(self, tenant_id: str) -> list[Relationship]:
        """The tenant's relationships, by business."""
        return [Relationship(*record) for record in await self._fetch(_RELATIONSHIPS, tenant_id)]

    async def erasures(self, tenant_id: str) -> list[Erasure]:
        """The tenant's erasures, oldest first."""
        return [Erasure(*record) for record in await self._fetch(_ERASURES, tenant_id)]

    async def drop_past(self, today: dt.date, *, dry_run: bool = False, actor: str = "cli") -> list[Dropped]:
        """Delete what is past its tenant's retention, as `Keeping.drop_past` says."""
        limits = {retention.tenant_id: _limit(retention, today) for retention in await self.retentions()}
        counts: Counter[str] = Counter()
        if not dry_run:
            for month in await self._months_over(limits):
                counts.update(await self._drop_month(month, limits, actor))
        for limit in limits.values():
            counts[limit.tenant_id] += await self._drop_rows(limit, dry_run, actor)
        return [Dropped(tenant_id, counts[tenant_id]) for tenant_id in limits if counts[tenant_id]]

    async def erase(
        self,
        tenant_id: str,
        business_id: str,
        *,
        reason: str,
        redact: Callable[[bytes], bytes],
        now_ms: int,
        actor: str = "cli",
    ) -> Erased:
        """Take from the business's assessments what names it, in slices, as `Keeping.erase` says."""
        digest = business_sha256(tenant_id, business_id)
        [(latest_ms,)] = await self._fetch(_LATEST_NOTE, tenant_id, digest, now_ms, link=self._writing)
        order = _Order(tenant_id, business_id, now_ms if latest_ms is None else latest_ms + 1, reason, actor)
        erased: list[bytes] = []
        place: bytes | None = bytes(16)
        limit = ROWS_AN_ERASURE
        noted: int | None = None
        while place is not None:
            try:
                found, next_place = await self._find_business(order, place, limit)
                redacted = await asyncio.to_thread(_redacted, found, redact)
                some, noted = await self._patiently(partial(self._erase_slice, order, redacted, noted))
            except Slow:
                if limit <= LEAST_ROWS_AN_ERASURE:
                    raise
                limit //= 4
                continue
            place = next_place
            erased += some
            if place is not None:
                await asyncio.sleep(SLICE_S)
        return Erased(len(erased), sorted(erased))

    async def _change(self, sql: str, *values: object) -> None:
        async def change() -> None:
            async with self._writing.session() as session:
                await session.execute(sql, *values)

        await self._guarded(self.write_breaker, change)

    async def _look(self, link: Link, sql: str, *values: object) -> list[Any]:
        """The rows of a query of assessments in the order of their ids."""

        async def look() -> list[Any]:
            async with link.session(transaction=True) as session:
                return list(await session.fetch(sql, *values))

        return await self._guarded(self.read_breaker if link is self._reading else self.write_breaker, look)

    async def _patiently(self, call: Callable[[], Awaitable[Answer]]) -> Answer:
        """The call's answer; made again for a time while another transaction stands in its way."""
        end = time.monotonic() + LOCK_PATIENCE_S
        while True:
            try:
                return await call()
            except LockBusy:
                if time.monotonic() >= end:
                    raise
            await asyncio.sleep(LOCK_PAUSE_S)

    # What is past

    async def _months_over(self, limits: dict[str, Limit]) -> list[Month]:
        """The months with a partition that are over, and past somebody's retention."""

        async def find() -> set[str]:
            async with self._reading.session() as session:
                return await partitions.present(session)

        if not limits:
            return []
        ended_ms = ids.now_ms() - DAY_MS
        end = max(limit.end.bytes for limit in limits.values())
        there = map(month_of, await self._guarded(self.read_breaker, find))
        return sorted(month for month in there if month and month.next().start_ms <= ended_ms and month.high <= end)

    async def _drop_month(self, month: Month, limits: dict[str, Limit], actor: str) -> Counter[str]:
        """Drop the month's partition if nothing in it is kept: what was dropped."""
        # Counting takes its time, so it is not done over the connection that the rows are written by, and how long it
        # took says nothing of the database's health.
        chain = Segments()
        try:
            async with self._reading.session(transaction=True, local=LOCAL) as session:
                counts = await drop_month(session, month, limits, chain, actor)
        except LockBusy as error:
            log.info("the partition %s is in use, so its rows are deleted one by one: %s", month.table, error)
            counts = None
        if counts is not None:
            self._adopt(chain)
            log.info("dropped the partition %s", month.table)
        return counts or Counter()

    async def _drop_rows(self, limit: Limit, dry_run: bool, actor: str) -> int:
        """How many of the tenant's assessments were dropped, or would be."""
        count = 0
        rows = FIRST_ROWS_A_DROP
        after: UUID | None = UUID(bytes(16))
        while after is not None:
            values = (limit.tenant_id, after, limit.end, ROWS_A_LOOK, limit.kept_from)
            found = await self._look(self._reading, FIND, *values)
            after = found[-1][0] if len(found) == ROWS_A_LOOK else None
            past = [id for id, held in found if not held]
            if dry_run:
                count += len(past)
                continue
            while past:
                start_s = time.monotonic()
                try:
                    count += await self._patiently(partial(self._drop_slice, limit, past[:rows], actor))
                except Slow:
                    if rows <= ROWS_A_DROP[0]:
                        raise
                    rows = max(rows // 4, ROWS_A_DROP[0])
                    continue
                past = past[rows:]
                took_s = time.monotonic() - start_s
                rows = rows * 2 if took_s < SLICE_S / 2 else rows // 2 if took_s > SLICE_S else rows
                rows = min(max(rows, ROWS_A_DROP[0]), ROWS_A_DROP[1])
                await asyncio.sleep(max(REST_S, took_s))
        return count

    async def _drop_slice(self, limit: Limit, past: list[UUID], actor: str) -> int:
        """Delete those of the assessments that are still past; how many there were."""

        async def drop(session: Session) -> list[bytes]:
            values = (limit.tenant_id, past, past[0], past[-1], limit.days, limit.kept_from)
            dropped = [id for (id,) in await session.fetch(_DROP, *values)]
            # A statement of its own, which sees also what came while the one before waited for its locks.
            await session.execute(_DROP_OVERRIDES, limit.tenant_id, dropped)
            return [id.bytes for id in dropped]

        return len(await self._act(drop, partial(gone_acts, limit.tenant_id, actor)))

    # What is erased

    async def _find_business(self, order: _Order, place: bytes | None, limit: int) -> tuple[list[_Found], bytes | None]:
        """Some of the business's assessments, and where to look on, None at the end.

        Asked of the server that takes the writes: no other is sure to have them all.
        """
        found: list[_Found] = []
        while place is not None and len(found) < limit:
            first = await self._look(self._writing, _NEXT_ID, order.tenant_id, UUID(place))
            if not first:
                return found, None
            month = Month.of(ids.time_ms(first[0]["id"].bytes))
            spans = (span_of_day(month.low), span_of_day(month.high) + DAY_SPANS - 1)
            values = (order.tenant_id, order.business_id, UUID(month.low), UUID(month.high), *spans)
            wanted = limit - len(found)
            some = await self._look(self._writing, _FIND_BUSINESS, *values, wanted)
            found += [_Found(*one) for one in some]
            if len(some) < wanted:
                place = month.high if month.high < _LAST_ID else None
        return found, place

    async def _erase_slice(
        self, order: _Order, redacted: Sequence[_Found], noted: int | None
    ) -> tuple[list[bytes], int | None]:
        """Erase the assessments and note it: their ids, and the note's count, None while there is no note.

        noted: the note's count before.
        """
        told: _Erased | None = None

        async def erase(session: Session) -> _Erased:
            nonlocal told
            # An attempt without an act may have been committed without our learning of it.
            if told is not None and await session.fetchval(_NOTED, *order.note) == told.noted:
                return told
            blanked: list[Any] = []
            if redacted:
                found, records = map(list, zip(*redacted, strict=True))
                values = (order.tenant_id, order.business_id, found, records, min(found), max(found))
                blanked = await session.fetch(_BLANK, *values)
                await session.execute(_BLANK_REASONS, order.tenant_id, [record["id"] for record in blanked])
            left = [(row_of(row), was_erased) for was_erased, *row in blanked]
            count = await self._noted(session, order, noted, len(left))
            told = _Erased([row for row, _ in left], [row for row, was_erased in left if not was_erased], count)
            return told

        def acts(done: _Erased) -> list[Act]:
            return [erased_act(order.tenant_id, order.actor, done.told)] if done.told else []

        done = await self._act(erase, acts)
        return [row.id for row in done.rows], done.noted

    async def _noted(self, session: Any, order: _Order, noted: int | None, erased: int) -> int | None:
        """Note a slice: a note of its own for the first that changes anything, to which the later ones add."""
        if noted is not None:
            await session.execute(_ADD_TO_NOTE, *order.note, erased)
            return noted + erased
        ended = await session.fetchval(_END_RELATIONSHIP, order.tenant_id, order.business_id)
        blanked = await session.fetch(_BLANK_DISPOSITIONS, order.tenant_id, order.business_id, order.erased_ms)
        if not ended and not blanked and not erased:
            return None
        if not await session.fetchval(_NOTE, *order.note, erased, order.reason):
            raise StoreUnavailable("the business is being erased by another call at this moment")
        return erased


def _redacted(found: list[_Found], redact: Callable[[bytes], bytes]) -> list[_Found]:
    return [_Found(id, redact(record)) for id, record in found]


def _limit(retention: Retention, today: dt.date) -> Limit:
    day = kept_from(today, retention.days)
    end = UUID(first_id(day) + bytes(10))
    return Limit(retention.tenant_id, retention.days, dt.date.fromordinal(max(day, 1)), end)
