"""The embedded store: one SQLite file in WAL mode, which several processes of one machine may share.

One thread writes, fed by a batcher (group commit); readers have threads and connections of their own. The write-ahead
log is synced by every commit, and a row is answered after its COMMIT returned.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from functools import cache, partial
from itertools import chain
from operator import attrgetter
from pathlib import Path
from typing import Any

from app.resilience.batcher import Batcher, Closed, Overloaded
from app.store.base import (
    DECISIONS,
    LEVELS,
    Added,
    KeyReused,
    Row,
    RowRefused,
    StoredModel,
    StoreRefused,
    StoreUnavailable,
)
from app.store.lane import Lane
from app.store.sqlite_file import connect, make, prepare, refusal, roll

# Rows between two looks at the newest span and two copies of the log (about 25 MB of it).
TIDY_ROWS = 2048
LOG_PAGES_LEFT = 200

_COLUMNS = "a.tenant_id, a.id, a.business_id, a.level, a.decision, a.score, a.model_sha256, a.input, a.record"
_ROW_FIELDS = attrgetter(
    "tenant_id", "id", "business_id", "level", "decision", "score", "model_sha256", "input", "record"
)
_KEY_FIELDS = attrgetter("tenant_id", "idempotency_key", "fingerprint", "id")

_GET = f"SELECT {_COLUMNS} FROM assessments a WHERE tenant_id = ? AND id = ?"
_FIND_KEY = f"""\
SELECT {_COLUMNS}, k.key, k.fingerprint FROM idempotency k
JOIN assessments a ON a.tenant_id = k.tenant_id AND a.id = k.assessment_id
WHERE k.tenant_id = ? AND k.key = ?"""
_SAVE_MODEL = "INSERT INTO models (sha256, model_id, version, definition) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING"

# What SQLite or its binding says when a value is at fault and not the database.
_ROW_FAULTS = (
    sqlite3.IntegrityError,
    sqlite3.DataError,
    sqlite3.ProgrammingError,
    sqlite3.InterfaceError,
    OverflowError,
    TypeError,
    ValueError,
)


@cache
def _insert_rows(count: int) -> str:
    values = ", ".join(["(?, ?, ?, ?, ?, ?, ?, ?, ?)"] * count)
    return (
        "INSERT INTO assessments"
        " (tenant_id, id, business_id, level, decision, score, model_sha256, input, record, span)"
        " SELECT *, (SELECT span FROM spans WHERE start <= column2 ORDER BY start DESC LIMIT 1)"
        f" FROM (VALUES {values})"
    )


@cache
def _insert_keys(count: int) -> str:
    values = ", ".join(["(?, ?, ?, ?)"] * count)
    return (
        f"INSERT INTO idempotency (tenant_id, key, fingerprint, assessment_id) VALUES {values}"
        " ON CONFLICT (tenant_id, key) DO NOTHING"
    )


@cache
def page_sql(by_business: bool, by_level: bool, by_decision: bool) -> str:
    """The query of a page, newest first. Parameters: tenant, business, level, decision, low <= id < high, limit."""
    if by_business:
        span = "(SELECT span FROM spans WHERE start <= {} ORDER BY start DESC LIMIT 1)"
        return (
            f"SELECT {_COLUMNS} FROM spans s CROSS JOIN assessments a INDEXED BY assessments_by_business"
            # The plus keeps the planner from carrying the range of s.span over to a.span, and a scan with it.
            " ON a.tenant_id = :tenant AND a.span = +s.span AND a.business_id = :business"
            f" WHERE s.span BETWEEN {span.format(':low')} AND {span.format(':high')} AND a.id >= :low AND a.id < :high"
            + (" AND a.level = :level" if by_level else "")
            + (" AND a.decision = :decision" if by_decision else "")
            + " ORDER BY s.span DESC, a.id DESC LIMIT :limit"
        )
    if by_level or by_decision:
        levels: Iterable[object] = (":level",) if by_level else LEVELS
        decisions: Iterable[object] = (":decision",) if by_decision else DECISIONS
        ranges = [
            "SELECT id, rowid AS place FROM assessments INDEXED BY assessments_by_outcome WHERE tenant_id = :tenant"
            f" AND level = {level} AND decision = {decision} AND id >= :low AND id < :high"
            for level in levels
            for decision in decisions
        ]
        return (
            f"SELECT {_COLUMNS} FROM ({' UNION ALL '.join(ranges)} ORDER BY id DESC LIMIT :limit) p"
            " CROSS JOIN assessments a ON a.rowid = p.place"
        )
    return (
        f"SELECT {_COLUMNS} FROM assessments a INDEXED BY assessments_by_id"
        " WHERE tenant_id = :tenant AND id >= :low AND id < :high ORDER BY id DESC LIMIT :limit"
    )


Values = Sequence[object] | dict[str, object]
Query = tuple[str, Values]


class SqliteStore:
    """The `Store` kept in one SQLite file.

    path: the file, made when it does not exist; its folder must.  timeout_s: the longest wait for another process's
    write, and the longest read.  `writes` and `reads` are its batchers, for their counters.
    """

    def __init__(self, path: str | os.PathLike[str], *, timeout_s: float = 5.0, max_batch: int = 512) -> None:
        self.path = os.fspath(Path(path).absolute())
        self._timeout_s = timeout_s
        write = partial(connect, self.path, timeout_s)
        read = partial(connect, self.path, timeout_s, reading=True)
        self._writer = Lane("store-write", self.path, write)
        # The log is copied back by a thread of its own; by the writer, every few thousand rows a batch would wait.
        self._copier = Lane("store-copy", self.path, write)
        # Looking up one row must not wait behind a long page.
        self._finder = Lane("store-find", self.path, read)
        self._pager = Lane("store-page", self.path, read)
        self.writes: Batcher[Row, Added] = Batcher(self._send_rows, max_batch)
        self.reads: Batcher[Query, list[Any]] = Batcher(partial(self._send_queries, self._finder), max_batch)
        self._pages: Batcher[Query, list[Any]] = Batcher(partial(self._send_queries, self._pager), max_batch=8)
        self._rows_since_tidy = 0
        self._tidying: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Open or create the file. Raises StoreRefused."""
        await asyncio.to_thread(make, self.path)
        for lane in (self._writer, self._copier, self._finder, self._pager):
            lane.start()
        try:
            await self._writer.run(partial(prepare, path=self.path, timeout_s=self._timeout_s))
        except StoreRefused:
            await self.close()
            raise
        except StoreUnavailable as failure:
            await self.close()
            raise refusal(self.path, failure) from failure

    async def close(self) -> None:
        """Write what was submitted, copy the log into the file and close it."""
        for batcher in (self.writes, self.reads, self._pages):
            await batcher.close()
        if self._tidying is not None:
            await asyncio.wait((self._tidying,))
        for lane in (self._copier, self._finder, self._pager):
            await lane.stop()
        # What cannot be copied now stays in the log, durable, and is copied after the next start.
        with contextlib.suppress(StoreUnavailable):
            await self._writer.run(_empty_log)
        await self._writer.stop()

    async def check(self) -> None:
        """Commit something, and so prove that rows could be."""
        await self._writer.run(_touch)

    async def add(self, row: Row) -> Added:
        """Record the row; returns once it is committed. Raises as `Store.add` says."""
        return await self._put(row)

    async def add_many(self, rows: Sequence[Row]) -> list[Added | BaseException]:
        """As `add` for each row, in order; one row's error is its own answer."""
        # Futures, not a task for each: a thousand tasks would hold the event loop for milliseconds.
        return await asyncio.gather(*map(self._put, rows), return_exceptions=True)

    def _put(self, row: Row) -> asyncio.Future[Added]:
        try:
            return self.writes.put(row)
        except (Closed, Overloaded) as error:
            refused: asyncio.Future[Added] = asyncio.get_running_loop().create_future()
            refused.set_exception(_closed() if isinstance(error, Closed) else error)
            return refused

    async def get(self, tenant_id: str, id: bytes) -> Row | None:
        """The tenant's assessment."""
        rows = await self._ask(self.reads, _GET, (tenant_id, id))
        return Row(*rows[0]) if rows else None

    async def find_key(self, tenant_id: str, key: str) -> tuple[bytes, Row] | None:
        """The fingerprint that came with the tenant's idempotency key, and the assessment it led to."""
        rows = await self._ask(self.reads, _FIND_KEY, (tenant_id, key))
        return (rows[0][-1], Row(*rows[0])) if rows else None

    async def page(
        self,
        tenant_id: str,
        *,
        business_id: str | None = None,
        level: int | None = None,
        decision: int | None = None,
        since_id: bytes | None = None,
        until_id: bytes | None = None,
        before_id: bytes | None = None,
        limit: int,
    ) -> list[Row]:
        """At most `limit` of the tenant's assessments, newest id first: since_id <= id <= until_id, id < before_id."""
        # The byte string right after an id is the id and a zero: until becomes an open end like before.
        ends = [end for end in (before_id, until_id and until_id + b"\0") if end]
        values: dict[str, object] = {
            "tenant": tenant_id,
            "business": business_id,
            "level": level,
            "decision": decision,
            "low": since_id or b"",
            "high": min(ends, default=b"\xff" * 17),
            "limit": limit,
        }
        sql = page_sql(business_id is not None, level is not None, decision is not None)
        return [Row(*row) for row in await self._ask(self._pages, sql, values)]

    async def save_model(self, sha256: bytes, model_id: str, version: str, definition: bytes) -> None:
        """Keep a model's definition under its hash; one already kept stays as it is."""
        values = (sha256, model_id, version, definition)
        await self._writer.run(lambda connection: connection.execute(_SAVE_MODEL, values))

    async def model(self, sha256: bytes) -> bytes | None:
        """The definition with that hash."""
        rows = await self._ask(self.reads, "SELECT definition FROM models WHERE sha256 = ?", (sha256,))
        return rows[0][0] if rows else None

    async def models(self) -> list[StoredModel]:
        """All models ever kept, by id and version."""
        sql = "SELECT sha256, model_id, version FROM models ORDER BY model_id, version, sha256"
        return [StoredModel(*row) for row in await self._ask(self.reads, sql, ())]

    async def _ask(self, batcher: Batcher[Query, list[Any]], sql: str, values: Values) -> list[Any]:
        try:
            answer = batcher.put((sql, values))
        except Closed:
            raise _closed() from None
        return await answer

    async def _send_rows(self, rows: list[Row]) -> list[Added | BaseException]:
        answers = await self._writer.run(partial(_write, rows))
        self._rows_since_tidy += len(rows)
        if self._rows_since_tidy >= TIDY_ROWS and (self._tidying is None or self._tidying.done()):
            self._rows_since_tidy = 0
            self._tidying = asyncio.create_task(self._tidy())
        return answers

    async def _send_queries(self, lane: Lane, queries: list[Query]) -> list[list[Any] | BaseException]:
        timer = asyncio.get_running_loop().call_later(self._timeout_s, lane.interrupt)
        try:
            return await lane.run(partial(_read, queries))
        finally:
            timer.cancel()

    async def _tidy(self) -> None:
        """Start a new span when the newest is full, and copy the log into the file so that it can start again."""
        with contextlib.suppress(StoreUnavailable):
            await self._writer.run(roll)
            for _ in range(3):
                if await self._copier.run(_copy_log) < LOG_PAGES_LEFT:
                    break
            # The log starts again only when all of it was copied, so the last few pages are copied between two batches.
            await self._writer.run(_copy_log)


def _closed() -> StoreUnavailable:
    return StoreUnavailable("the store is closed")


def _write(rows: list[Row], connection: sqlite3.Connection) -> list[Added | BaseException]:
    """Commit the rows in one transaction. The answers stand in the order of the rows."""
    try:
        return _write_together(connection, rows)
    except _ROW_FAULTS:
        if connection.in_transaction:
            connection.rollback()
        return _write_apart(connection, rows)


def _write_together(connection: sqlite3.Connection, rows: list[Row]) -> list[Added | BaseException]:
    connection.execute("BEGIN IMMEDIATE")
    late: list[int] = []
    fresh = rows
    keyed = [row for row in rows if row.idempotency_key is not None]
    if keyed and _insert(connection, _insert_keys, _KEY_FIELDS, keyed) < len(keyed):
        owners = _owners(connection, keyed)
        late = [
            place
            for place, row in enumerate(rows)
            if row.idempotency_key is not None and owners.get((row.tenant_id, row.idempotency_key)) != row.id
        ]
        without = set(late)
        fresh = [row for place, row in enumerate(rows) if place not in without]
    _insert(connection, _insert_rows, _ROW_FIELDS, fresh)
    answers: list[Added | BaseException] = [Added(row.id) for row in rows]
    for place in late:
        answers[place] = _write_one(connection, rows[place])
    connection.execute("COMMIT")
    return answers


def _write_apart(connection: sqlite3.Connection, rows: list[Row]) -> list[Added | BaseException]:
    """The same for rows of which at least one cannot be stored: each in a savepoint of its own."""
    connection.execute("BEGIN IMMEDIATE")
    answers: list[Added | BaseException] = []
    for row in rows:
        connection.execute("SAVEPOINT one")
        try:
            answers.append(_write_one(connection, row))
        except _ROW_FAULTS as fault:
            connection.execute("ROLLBACK TO one")
            answers.append(RowRefused(str(fault)))
        connection.execute("RELEASE one")
    connection.execute("COMMIT")
    return answers


def _write_one(connection: sqlite3.Connection, row: Row) -> Added | KeyReused:
    if row.idempotency_key is not None and not _insert(connection, _insert_keys, _KEY_FIELDS, [row]):
        found = connection.execute(_FIND_KEY, (row.tenant_id, row.idempotency_key)).fetchone()
        if found is None:
            # The assessment behind the key was deleted, or is this very row: either way the key is this row's now.
            connection.execute(
                "UPDATE idempotency SET fingerprint = ?, assessment_id = ? WHERE tenant_id = ? AND key = ?",
                (row.fingerprint, row.id, row.tenant_id, row.idempotency_key),
            )
        elif (existing := Row(*found)).id != row.id:
            if existing.fingerprint != row.fingerprint:
                return KeyReused(row.idempotency_key, existing.id)
            return Added(existing.id, existing)
    try:
        _insert(connection, _insert_rows, _ROW_FIELDS, [row])
    except sqlite3.IntegrityError:
        # Sent again by someone who never learnt that it was committed.
        if connection.execute(_GET, (row.tenant_id, row.id)).fetchone() != _ROW_FIELDS(row):
            raise
    return Added(row.id)


def _insert(
    connection: sqlite3.Connection, statement: Callable[[int], str], fields: Callable[[Row], Any], rows: list[Row]
) -> int:
    """Insert the rows with as few statements as their cached sizes allow; the number inserted."""
    inserted = 0
    while rows:
        # Up to 16 rows, or multiples of 16: a few dozen statements that stay prepared, and at most two a batch.
        count = len(rows) if len(rows) <= 16 else min(len(rows) & ~15, 1024)
        values = list(chain.from_iterable(map(fields, rows[:count])))
        inserted += connection.execute(statement(count), values).rowcount
        rows = rows[count:]
    return inserted


def _owners(connection: sqlite3.Connection, keyed: list[Row]) -> dict[tuple[str, str | None], bytes]:
    """The assessment that each row's key belongs to, by tenant and key."""
    sql = (
        "SELECT tenant_id, key, assessment_id FROM idempotency"
        f" WHERE (tenant_id, key) IN (VALUES {', '.join(['(?, ?)'] * len(keyed))})"
    )
    values = [value for row in keyed for value in (row.tenant_id, row.idempotency_key)]
    return {(tenant_id, key): id for tenant_id, key, id in connection.execute(sql, values)}


def _read(queries: list[Query], connection: sqlite3.Connection) -> list[list[Any] | BaseException]:
    answers: list[list[Any] | BaseException] = []
    for sql, values in queries:
        try:
            answers.append(connection.execute(sql, values).fetchall())
        except UnicodeEncodeError:
            # No stored text has a lone surrogate, so nothing can be equal to one.
            answers.append([])
    return answers


def _touch(connection: sqlite3.Connection) -> None:
    connection.execute("UPDATE spans SET first_row = first_row WHERE span = (SELECT max(span) FROM spans)")


def _copy_log(connection: sqlite3.Connection) -> int:
    """Copy the log into the file as far as that stops nobody; the pages left in it."""
    _, pages, copied = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
    return int(pages) - int(copied)


def _empty_log(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
