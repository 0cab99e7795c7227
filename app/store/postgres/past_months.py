"""Months that are past every tenant's retention: their partitions are dropped as they stand."""

from __future__ import annotations

import asyncio
import datetime as dt
import re
from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

import asyncpg
from asyncpg.pgproto.pgproto import UUID

from app.store.keeping import gone_acts
from app.store.postgres.link import Session
from app.store.postgres.partitions import Month
from app.store.postgres.statements import enter
from app.store.postgres.trail import entry_values
from app.store.segments import Segments

ROWS_A_LOOK = 10_000
CALL_S = 12.0
COMMIT_S = 120.0
ATTEMPTS = 5
PAUSE_S = 0.1

LOCAL = "SET LOCAL statement_timeout = 10000; SET LOCAL lock_timeout = 5000"
"""Of the transaction that a month is dropped in: most of it only reads what nobody writes any more."""

FIND = """\
SELECT a.id, (
    SELECT true FROM relationships r WHERE r.tenant_id = $1 AND r.business_id = a.business_id
    AND (r.ended_on IS NULL OR r.ended_on >= $5) LIMIT 1
) FROM (
    SELECT id, business_id FROM assessments WHERE tenant_id = $1 AND id > $2 AND id < $3 ORDER BY id LIMIT $4
) a ORDER BY a.id"""
"""The tenant's next ids, and whether the relationship with their business keeps them."""

_MAY_DROP = """\
SELECT NOT pg_is_in_recovery() AND count(*) = 2 AND bool_and(pg_has_role(current_user, relowner, 'USAGE'))
FROM pg_class WHERE oid IN ('assessments'::regclass, to_regclass($1))"""

# From one tenant to the next by the index, however many rows each has.
_TENANTS = """\
WITH RECURSIVE t (tenant_id) AS (
    (SELECT tenant_id FROM assessments WHERE id >= $1 AND id < $2 ORDER BY tenant_id LIMIT 1)
    UNION ALL
    SELECT (SELECT a.tenant_id FROM assessments a WHERE a.tenant_id > t.tenant_id AND a.id >= $1 AND a.id < $2
            ORDER BY a.tenant_id LIMIT 1) FROM t WHERE t.tenant_id IS NOT NULL
)
SELECT tenant_id FROM t WHERE tenant_id IS NOT NULL"""

_DAYS = "SELECT tenant_id, days FROM retention WHERE tenant_id = ANY ($1)"

_HELD = """\
SELECT count(*), sum(hashtextextended(r.tenant_id || ' ' || r.business_id, 0))
FROM unnest($1::text[], $2::date[]) AS t (tenant_id, kept_from) JOIN relationships r ON r.tenant_id = t.tenant_id
WHERE r.ended_on IS NULL OR r.ended_on >= t.kept_from"""

_DROP_OVERRIDES = """\
DELETE FROM overrides WHERE tenant_id = ANY ($1) AND assessment_id >= $2 AND assessment_id < $3"""

_TABLE = re.compile(r"assessments_([0-9]{4})_([0-9]{2})")


class Limit(NamedTuple):
    """What is past a tenant's retention: ids below `end`, unless the relationship ended on kept_from or later."""

    tenant_id: str
    days: int
    kept_from: dt.date
    end: UUID


def month_of(table: str) -> Month | None:
    """The month of a partition, None for a table of another name."""
    match = _TABLE.fullmatch(table)
    return Month(int(match[1]), int(match[2])) if match and 1 <= int(match[2]) <= 12 else None


async def drop_month(
    session: Session, month: Month, limits: Mapping[str, Limit], chain: Segments, actor: str
) -> Counter[str] | None:
    """Drop a month's partition if all its rows are past; how many of each tenant, None where it stays.

    The month must be over, so that nobody adds to it. session: in a transaction with LOCAL, which is
    committed here when the partition was dropped. chain: of this transaction alone; what it entered is on record where
    the partition was dropped. actor: as the acts name it. Raises what asyncpg raises.

    # Design: while the rows are counted, only writes to this month wait. Everybody's access to the assessments is
    # stopped at the very end, for as long as it takes to take a table out of the catalogue; and the settings that
    # kept nothing at the start are compared then, when nobody can change them any more.
    """
    if not await session.fetchval(_MAY_DROP, month.table):
        return None
    if await _tenants(session, month, limits) is None:
        return None
    try:
        # Nobody may write, nor hold a row in order to override it.
        await session.execute(f"LOCK TABLE {month.table} IN EXCLUSIVE MODE", timeout=CALL_S)
    except asyncpg.UndefinedTableError:
        # Somebody else was faster.
        return None
    tenants = await _tenants(session, month, limits)
    if tenants is None:
        return None
    own = [limits[tenant_id] for tenant_id in tenants]
    held = await _held(session, own)
    counts: Counter[str] = Counter()
    await session.execute("SAVEPOINT untold")
    for limit in own:
        count = await _tell(session, month, limit, chain, actor)
        if count is None:
            await session.execute("ROLLBACK TO SAVEPOINT untold")
            return None
        counts[limit.tenant_id] = count
    if not await _drop(session, month, held, own):
        await session.execute("ROLLBACK TO SAVEPOINT untold")
        return None
    # Deleting the file of a large table takes longer than a commit may elsewhere.
    await session.execute("COMMIT", timeout=COMMIT_S)
    return counts


async def _tenants(session: Session, month: Month, limits: Mapping[str, Limit]) -> list[str] | None:
    """The tenants who have rows in the month, None where the month is not past the retention of one of them."""
    tenants = [name for (name,) in await session.fetch(_TENANTS, UUID(month.low), UUID(month.high), timeout=CALL_S)]
    past = all(name in limits and limits[name].end.bytes >= month.high for name in tenants)
    return tenants if past else None


async def _held(session: Session, limits: list[Limit]) -> tuple[object, ...]:
    """A mark of all businesses whose relationship keeps their assessments: another one for other businesses."""
    tenants, days = [limit.tenant_id for limit in limits], [limit.kept_from for limit in limits]
    [mark] = await session.fetch(_HELD, tenants, days, timeout=CALL_S)
    return tuple(mark)


async def _tell(session: Session, month: Month, limit: Limit, chain: Segments, actor: str) -> int | None:
    """Enter the tenant's rows of the month into the trail: how many, None as soon as one is found that is kept."""
    count = 0
    # No id is its month's least: that one says no version.
    after, end = UUID(month.low), UUID(month.high)
    while True:
        rows = await session.fetch(FIND, limit.tenant_id, after, end, ROWS_A_LOOK, limit.kept_from, timeout=CALL_S)
        if any(held for _, held in rows):
            return None
        if rows:
            entries = chain.propose(gone_acts(limit.tenant_id, actor, [id.bytes for id, _ in rows]))
            await session.execute(enter(len(entries) == 1), *entry_values(entries), timeout=CALL_S)
            chain.confirm(entries)
        count += len(rows)
        if len(rows) < ROWS_A_LOOK:
            return count
        after = rows[-1][0]


async def _drop(session: Session, month: Month, held: tuple[object, ...], limits: list[Limit]) -> bool:
    """Take the partition out if the settings are what they were; whether it was."""
    days = {limit.tenant_id: limit.days for limit in limits}
    # Whoever comes after this one in a queue for the assessments waits as long as it does.
    await session.execute("SET LOCAL lock_timeout = 50")
    for _ in range(ATTEMPTS):
        await session.execute("SAVEPOINT whole")
        try:
            await session.execute("LOCK TABLE retention, relationships IN SHARE MODE")
            now = {tenant_id: kept for tenant_id, kept in await session.fetch(_DAYS, list(days))}
            if now != days or held != await _held(session, limits):
                return False
            overridden = (list(days), UUID(month.low), UUID(month.high))
            await session.execute(_DROP_OVERRIDES, *overridden, timeout=CALL_S)
            await session.execute(
                f"ALTER TABLE assessments DETACH PARTITION {month.table}; DROP TABLE {month.table}", timeout=CALL_S
            )
            return True
        except asyncpg.LockNotAvailableError:
            await session.execute("ROLLBACK TO SAVEPOINT whole")
        await asyncio.sleep(PAUSE_S)
    return False
