"""Retention and erasure in the SQLite file, in slices short enough that the service's own writes get in between."""

from __future__ import annotations

import asyncio
import datetime as dt
import sqlite3
from collections.abc import Callable, Sequence
from functools import partial
from hashlib import sha256
from time import perf_counter
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from app.store.base import Row
from app.store.chain import leaf
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
from app.store.lane import Answer, Job, Lane
from app.store.segments import Segments
from app.store.sqlite_log import copy_back, cut_log
from app.store.sqlite_trail import append, commit
from app.store.sqlite_write import COLUMNS
from app.store.trail import Act

# How long a slice works before it commits, and how many rows it deletes between two looks at the clock.
SLICE_S = 0.015
ROWS_A_STEP = 16
# Rows looked at by one reading, or found at once to be erased.
ROWS_A_LOOK = 1_000

_SET_RETENTION = """\
INSERT INTO retentions (tenant_id, days) VALUES (?, ?) ON CONFLICT (tenant_id) DO UPDATE SET days = excluded.days"""
_SET_RELATIONSHIP = """\
INSERT INTO relationships (tenant_id, business_id, ended_on) VALUES (?, ?, ?)
ON CONFLICT (tenant_id, business_id) DO UPDATE SET ended_on = excluded.ended_on"""

_HELD = """\
SELECT 1 FROM relationships r
WHERE r.tenant_id = a.tenant_id AND r.business_id = a.business_id
AND (r.ended_on IS NULL OR r.ended_on >= :kept_from)"""
_FIND_PAST = f"""\
SELECT a.id, EXISTS ({_HELD}) FROM assessments a INDEXED BY assessments_by_id
WHERE a.tenant_id = :tenant AND a.id > :after AND a.id < :end ORDER BY a.id LIMIT :limit"""
# What was found is looked at again, now that nobody else can change it.
_DROP = f"""\
DELETE FROM assessments AS a WHERE a.tenant_id = :tenant AND a.id = :id AND NOT EXISTS ({_HELD})
AND EXISTS (SELECT 1 FROM retentions WHERE tenant_id = :tenant AND days = :days) RETURNING id"""
_DROP_OVERRIDES = """\
DELETE FROM overrides WHERE tenant_id = :tenant AND assessment_id = :id
AND NOT EXISTS (SELECT 1 FROM assessments WHERE tenant_id = :tenant AND id = :id)"""

_FIND_BUSINESS = """\
SELECT a.rowid, a.span, a.id FROM spans s CROSS JOIN assessments a INDEXED BY assessments_by_business
    ON a.tenant_id = :tenant AND a.span = +s.span AND a.business_id = :business
WHERE s.span >= :span ORDER BY s.span, a.id LIMIT :limit"""
_FIND_ROW = f"SELECT {COLUMNS} FROM assessments a WHERE a.rowid = ?"
_BLANK = """\
UPDATE assessments SET business_id = NULL, input = NULL, input_sha256 = ?, record = ?, leaf = ? WHERE rowid = ?"""
_BLANK_REASONS = "UPDATE overrides SET reason = NULL WHERE tenant_id = ? AND assessment_id = ?"
_BLANK_DISPOSITIONS = """\
UPDATE dispositions INDEXED BY dispositions_by_business_id
SET business_id = NULL, reason = NULL, matched_name = '', ended_ms = coalesce(ended_ms, ?)
WHERE tenant_id = ? AND business_id = ?"""
_END_RELATIONSHIP = "DELETE FROM relationships WHERE tenant_id = ? AND business_id = ?"
_NOTE = "INSERT INTO erasures (tenant_id, business_sha256, erased_ms, assessments, reason) VALUES (?, ?, ?, ?, ?)"
_ADD_TO_NOTE = "UPDATE erasures SET assessments = assessments + ? WHERE erasure = ?"
_RELATIONSHIPS = "SELECT business_id, ended_on FROM relationships WHERE tenant_id = ? ORDER BY 1"
_ERASURES = """\
SELECT business_sha256, erased_ms, assessments, reason FROM erasures
WHERE tenant_id = ? ORDER BY erased_ms, erasure"""


class SqliteKeeping:
    """The `Keeping` of the SQLite file. writer: deletes and erases.  copier: keeps the log short.  pager: looks."""

    _chain: Segments

    def __init__(self, writer: Lane, copier: Lane, pager: Lane) -> None:
        self._writer = writer
        self._copier = copier
        self._pager = pager

    async def set_retention(self, tenant_id: str, days: int | None) -> None:
        """Keep the tenant's assessments for so many days, or for ever. Raises ValueError."""
        if days is None:
            await self._change("DELETE FROM retentions WHERE tenant_id = ?", tenant_id)
        else:
            await self._change(_SET_RETENTION, tenant_id, checked_days(days))

    async def retentions(self) -> list[Retention]:
        """The settings of all tenants that have one, by tenant."""
        return [Retention(*row) for row in await self._look("SELECT tenant_id, days FROM retentions ORDER BY 1")]

    async def set_relationship(self, tenant_id: str, business_id: str, ended_on: dt.date | None) -> None:
        """The relationship with the business ended on that day, or is ongoing."""
        await self._change(_SET_RELATIONSHIP, tenant_id, business_id, ended_on and ended_on.toordinal())

    async def relationships(self, tenant_id: str) -> list[Relationship]:
        """The tenant's relationships, by business."""
        return [
            Relationship(business_id, ended_on and dt.date.fromordinal(ended_on))
            for business_id, ended_on in await self._look(_RELATIONSHIPS, tenant_id)
        ]

    async def drop_past(self, today: dt.date, *, dry_run: bool = False, actor: str = "cli") -> list[Dropped]:
        """Delete what is past its tenant's retention, as `Keeping.drop_past` says."""
        dropped = []
        for retention in await self.retentions():
            if count := await self._drop_past(retention, kept_from(today, retention.days), dry_run, actor):
                dropped.append(Dropped(retention.tenant_id, count))
        if dropped and not dry_run:
            await self._writer.run(cut_log)
        return dropped

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
        order = _Order(tenant_id, business_id, reason, redact, now_ms, actor)
        ids: list[bytes] = []
        place = _Place(span=0, note=None)
        while place.span is not None:
            erased, place = await self._in_turn(partial(_erase_slice, self._chain, order, place))
            ids += erased
        if place.note is not None:
            await self._writer.run(cut_log)
        return Erased(len(ids), ids)

    async def erasures(self, tenant_id: str) -> list[Erasure]:
        """The tenant's erasures, oldest first."""
        return [Erasure(*row) for row in await self._look(_ERASURES, tenant_id)]

    async def _change(self, sql: str, *values: object) -> None:
        await self._writer.run(lambda connection: connection.execute(sql, values))

    async def _look(self, sql: str, *values: object) -> list[Any]:
        return await self._pager.run(lambda connection: connection.execute(sql, values).fetchall())

    async def _drop_past(self, retention: Retention, oldest: int, dry_run: bool, actor: str) -> int:
        """How many assessments of one tenant were dropped, or would be. oldest: the first day that is kept."""
        count = 0
        after: bytes | None = b""
        while after is not None:
            after, past = await self._pager.run(partial(_find_past, retention.tenant_id, oldest, after))
            if dry_run:
                count += len(past)
                continue
            while past:
                tried, gone = await self._in_turn(partial(_drop_slice, self._chain, retention, oldest, past, actor))
                count += gone
                past = past[tried:]
        return count

    async def _in_turn(self, job: Job[Answer]) -> Answer:
        """Do a slice, then leave the file to others for about as long: a process that waits only looks now and then."""
        start_s = perf_counter()
        answer = await self._writer.run(job)
        await copy_back(self._writer, self._copier)
        await asyncio.sleep(min(perf_counter() - start_s, SLICE_S))
        return answer


def _find_past(
    tenant_id: str, oldest: int, after: bytes, connection: sqlite3.Connection
) -> tuple[bytes | None, list[bytes]]:
    """The next ids that are past the retention, and where to look on, None at the end."""
    values = {
        "tenant": tenant_id,
        "kept_from": oldest,
        "after": after,
        "end": first_id(oldest),
        "limit": ROWS_A_LOOK,
    }
    rows = connection.execute(_FIND_PAST, values).fetchall()
    return rows[-1][0] if len(rows) == ROWS_A_LOOK else None, [id for id, held in rows if not held]


def _drop_slice(
    chain: Segments, retention: Retention, oldest: int, ids: list[bytes], actor: str, connection: sqlite3.Connection
) -> tuple[int, int]:
    """Delete as many of the assessments as a slice has time for: how many were tried, and how many are gone."""
    common = {"tenant": retention.tenant_id, "days": retention.days, "kept_from": oldest}
    connection.execute("BEGIN IMMEDIATE")
    end_s = perf_counter() + SLICE_S
    tried = 0
    gone: list[bytes] = []
    while tried < len(ids) and (not tried or perf_counter() < end_s):
        step = ids[tried : tried + ROWS_A_STEP]
        values = [{**common, "id": id} for id in step]
        gone += [id for one in values for (id,) in connection.execute(_DROP, one).fetchall()]
        connection.executemany(_DROP_OVERRIDES, values)
        tried += len(step)
    _commit(chain, gone_acts(retention.tenant_id, actor, gone), connection)
    return tried, len(gone)


def _commit(chain: Segments, acts: Sequence[Act], connection: sqlite3.Connection) -> None:
    """Commit the transaction that is open, and in it the acts."""
    commit(connection, chain, append(connection, chain, acts) if acts else [])


class _Order(Struct, frozen=True):
    """Whom to erase, and how."""

    tenant_id: str
    business_id: str
    reason: str
    redact: Callable[[bytes], bytes]
    now_ms: int
    actor: str


class _Place(Struct, frozen=True):
    """Where the work stands. span: to go on with, None at the end.  note: the row of the erasure, once there is one."""

    span: int | None
    note: int | None


def _erase_slice(
    chain: Segments, order: _Order, place: _Place, connection: sqlite3.Connection
) -> tuple[list[bytes], _Place]:
    """Erase as many assessments as a slice has time for, and note them: their ids, and where the work stands."""
    connection.execute("BEGIN IMMEDIATE")
    end_s = perf_counter() + SLICE_S
    values = {"tenant": order.tenant_id, "business": order.business_id, "span": place.span, "limit": ROWS_A_LOOK}
    found = connection.execute(_FIND_BUSINESS, values).fetchall()
    span: int | None = found[-1][1] if len(found) == ROWS_A_LOOK else None
    erased: list[Row] = []
    told: list[Row] = []
    for row, span_of_row, _ in found:
        if erased and perf_counter() >= end_s:
            span = span_of_row
            break
        left, had_input = _blank(connection, row, order.redact)
        erased.append(left)
        if had_input:
            told.append(left)
    note = _note(connection, order, place.note, len(erased))
    _commit(chain, [erased_act(order.tenant_id, order.actor, told)] if told else [], connection)
    return [row.id for row in erased], _Place(span, note)


def _blank(connection: sqlite3.Connection, row: int, redact: Callable[[bytes], bytes]) -> tuple[Row, bool]:
    """Erase the row: as it is then, and whether it was not erased before.

    No leaf counts beside an input, and no act may vouch for a row that somebody made look erased: it has its own.
    """
    found = Row(*connection.execute(_FIND_ROW, (row,)).fetchone())
    left = replace(
        found,
        business_id=None,
        input=None,
        input_sha256=found.input_sha256 if found.input is None else sha256(found.input).digest(),
        record=redact(found.record),
        leaf=leaf(found if found.input is None else replace(found, leaf=None)),
    )
    connection.execute(_BLANK, (left.input_sha256, left.record, left.leaf, row))
    connection.execute(_BLANK_REASONS, (found.tenant_id, found.id))
    return left, found.input is not None


def _note(connection: sqlite3.Connection, order: _Order, note: int | None, assessments: int) -> int | None:
    """Note a slice: a row of its own for the first that changes anything, to whose count the later ones add."""
    if note is not None:
        connection.execute(_ADD_TO_NOTE, (assessments, note))
        return note
    ended = connection.execute(_END_RELATIONSHIP, (order.tenant_id, order.business_id)).rowcount
    blanked = connection.execute(_BLANK_DISPOSITIONS, (order.now_ms, order.tenant_id, order.business_id)).rowcount
    if not ended and not blanked and not assessments:
        return None
    digest = business_sha256(order.tenant_id, order.business_id)
    values = (order.tenant_id, digest, order.now_ms, assessments, order.reason)
    return connection.execute(_NOTE, values).lastrowid
