"""The monthly partitions of the assessments: their bounds, and making them ahead of time."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator

import asyncpg
from asyncpg.pgproto.pgproto import UUID
from msgspec import Struct

from app import ids
from app.store.postgres.schema import LOCK

_TIME_END_MS = 1 << 48

PRESENT = """\
SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
WHERE i.inhparent = 'assessments'::regclass"""


class Month(Struct, frozen=True, order=True):
    """A month of the calendar (UTC)."""

    year: int
    number: int

    @classmethod
    def of(cls, time_ms: int) -> Month:
        """The month of a Unix time in milliseconds; what lies beyond the calendar is its last month."""
        try:
            day = dt.datetime.fromtimestamp(time_ms / 1000, dt.UTC)
        except (ValueError, OverflowError):
            return cls(9999, 12)
        return cls(day.year, day.month)

    def next(self, count: int = 1) -> Month:
        """The month `count` months later."""
        number = self.year * 12 + self.number - 1 + count
        return Month(number // 12, number % 12 + 1)

    @property
    def start_ms(self) -> int:
        """Unix time of its first millisecond."""
        if self.year > 9999:
            return _TIME_END_MS
        return int(dt.datetime(self.year, self.number, 1, tzinfo=dt.UTC).timestamp()) * 1000

    @property
    def table(self) -> str:
        """The name of its partition."""
        return f"assessments_{self.year:04}_{self.number:02}"

    @property
    def low(self) -> bytes:
        """The least 16 bytes of its ids."""
        return self.start_ms.to_bytes(6, "big") + bytes(10)

    @property
    def high(self) -> bytes:
        """The least 16 bytes above its ids."""
        return self.next().low if self.next().start_ms < _TIME_END_MS else b"\xff" * 16


def backwards(low: bytes, high: bytes) -> Iterator[tuple[Month, bytes, bytes]]:
    """The months of the ids low <= id < high, newest first, each with the range of its ids to be looked through."""
    first, month = Month.of(ids.time_ms(low)), Month.of(ids.time_ms(high))
    while month >= first:
        yield month, max(low, month.low), min(high, month.high)
        month = month.next(-1)


async def make(connection: asyncpg.Connection, now_ms: int, ahead: int) -> list[str]:
    """Make the partitions of this month and `ahead` more where they lack, in the transaction of the caller; their
    names. Rows that came before their partition are moved into it."""
    await connection.execute(f"SELECT pg_advisory_xact_lock({LOCK})")
    there = await present(connection)
    made = []
    for month in (Month.of(now_ms).next(count) for count in range(ahead + 1)):
        if month.table not in there:
            await _make(connection, month)
            made.append(month.table)
    return made


async def _make(connection: asyncpg.Connection, month: Month) -> None:
    table, bounds = month.table, (UUID(month.low), UUID(month.high))
    await connection.execute(
        f"CREATE TABLE {table} (LIKE assessments INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING STORAGE)"
    )
    # PERF: an input and its record have 2.2 kB together. Moved out of line, as they would be from 2 kB, a row costs a
    # fifth more. What is too large for a page still is moved.
    await connection.execute(f"ALTER TABLE {table} SET (toast_tuple_target = 8160)")
    occupied = "SELECT EXISTS (SELECT 1 FROM assessments_other WHERE id >= $1 AND id < $2)"
    if await connection.fetchval(occupied, *bounds):
        # Whoever reads must see the rows in one place or the other: a query that learnt of the partitions before, and
        # then waited for the lock, would look in the old place alone.
        await connection.execute("LOCK TABLE ONLY assessments IN ACCESS EXCLUSIVE MODE")
        await connection.execute(
            "WITH moved AS (DELETE FROM assessments_other WHERE id >= $1 AND id < $2 RETURNING *)"
            f" INSERT INTO {table} SELECT * FROM moved",
            *bounds,
        )
    # Refused where a row of this month came to the other partition since: the next attempt moves it.
    low, high = bounds
    await connection.execute(
        f"ALTER TABLE assessments ATTACH PARTITION {table} FOR VALUES FROM ('{low}') TO ('{high}')"
    )


async def present(connection: asyncpg.Connection) -> set[str]:
    """The names of the partitions there are."""
    return {name for (name,) in await connection.fetch(PRESENT)}


def tables(now_ms: int, ahead: int) -> set[str]:
    """The names of the partitions that there should be: of this month and `ahead` more."""
    return {Month.of(now_ms).next(count).table for count in range(ahead + 1)}
