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
from pathlib import Path
from typing import Any

from app.ids import now_ms
from app.resilience.batcher import Batcher, Closed, Overloaded
from app.store.base import DECISIONS, LEVELS, Receipt, Row, StoredModel, StoreRefused, StoreUnavailable
from app.store.lane import Lane
from app.store.segments import Segments
from app.store.sqlite_access import SqliteAccess
from app.store.sqlite_dispositions import SqliteDispositions
from app.store.sqlite_file import connect, make, prepare, refusal, roll
from app.store.sqlite_holdings import SqliteHoldings
from app.store.sqlite_keeping import SqliteKeeping
from app.store.sqlite_lists import SAVE_SCREENED, SqliteLists
from app.store.sqlite_log import copy_back, empty_log
from app.store.sqlite_schema import SCHEMA_VERSION
from app.store.sqlite_trail import SqliteTrail
from app.store.sqlite_write import COLUMNS, GET, Answer, Entry, drop_receipts, write

# Rows between two looks at the newest span, at expired receipts, and two copies of the log (about 25 MB of it).
TIDY_ROWS = 2048
EXPIRED_A_SLICE = 200
EXPIRED_SLICES = 20

# The most that a transaction of larger entries holds, unless a single one is larger still, and that may wait.
BULK_ROWS = 1024
BULK_ROWS_WAITING = 20_000

IDS_A_QUERY = 256

_SAVE_MODEL = "INSERT INTO models (sha256, model_id, version, definition) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING"


@cache
def _get_each_sql(count: int) -> str:
    return f"SELECT {COLUMNS} FROM assessments a WHERE tenant_id = ? AND id IN ({', '.join('?' * count)})"


@cache
def page_sql(by_business: bool, by_level: bool, by_decision: bool) -> str:
    """The query of a page, newest first. Parameters: tenant, business, level, decision, low <= id < high, limit."""
    if by_business:
        span = "(SELECT span FROM spans WHERE start <= {} ORDER BY start DESC LIMIT 1)"
        return (
            f"SELECT {COLUMNS} FROM spans s CROSS JOIN assessments a INDEXED BY assessments_by_business"
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
            f"SELECT {COLUMNS} FROM ({' UNION ALL '.join(ranges)} ORDER BY id DESC LIMIT :limit) p"
            " CROSS JOIN assessments a ON a.rowid = p.place"
        )
    return (
        f"SELECT {COLUMNS} FROM assessments a INDEXED BY assessments_by_id"
        " WHERE tenant_id = :tenant AND id >= :low AND id < :high ORDER BY id DESC LIMIT :limit"
    )


Values = Sequence[object] | dict[str, object]
Query = tuple[str, Values]


class SqliteStore(SqliteTrail, SqliteKeeping, SqliteAccess, SqliteLists, SqliteDispositions, SqliteHoldings):
    """The `Store` kept in one SQLite file.

    path: the file, made when it does not exist; its folder must.  timeout_s: the longest wait for another process's
    write, and the longest read.  key_ttl_s: how long a receipt is kept.  clock: Unix time in ms.
    `writes`, `bulk_writes` and `reads` are its batchers, for their counters.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        timeout_s: float = 5.0,
        max_batch: int = 512,
        key_ttl_s: float = 86_400.0,
        clock: Callable[[], int] = now_ms,
    ) -> None:
        self.path = os.fspath(Path(path).absolute())
        self._timeout_s = timeout_s
        self._key_ttl_ms = round(key_ttl_s * 1000)
        self._clock = clock
        self._chain = Segments(clock)
        writing = partial(connect, self.path, timeout_s)
        reading = partial(connect, self.path, timeout_s, reading=True)
        super().__init__(
            writer=Lane("store-write", self.path, self._connect),
            # The log is copied back by a thread of its own; by the writer, every few thousand rows a batch would wait.
            copier=Lane("store-copy", self.path, writing),
            pager=Lane("store-page", self.path, reading),
        )
        # Looking up one row must not wait behind a long page.
        self._finder = Lane("store-find", self.path, reading)
        self.writes: Batcher[Entry, Receipt | None] = Batcher(self._send_entries, max_batch)
        # Entries of many rows go in transactions between those of the others, not in front of them.
        self.bulk_writes: Batcher[Entry, Receipt | None] = Batcher(self._send_bulk, max_batch=16)
        self._bulk_rows = 0
        self.reads: Batcher[Query, list[Any]] = Batcher(partial(self._send_queries, self._finder), max_batch)
        self._pages: Batcher[Query, list[Any]] = Batcher(partial(self._send_queries, self._pager), max_batch=8)
        self._rows_since_tidy = 0
        self._tidying: asyncio.Task[None] | None = None
        # What the rows of now refer to, which a file put in place under this process may lack.
        self._screened: tuple[bytes, bytes] | None = None

    @property
    def schema_version(self) -> str:
        """The schema that this service works on; another one is refused when the store opens."""
        return str(SCHEMA_VERSION)

    @property
    def batchers(self) -> dict[str, Batcher[Any, Any]]:
        """By name, for who watches."""
        return {"records": self.writes, "bulk_records": self.bulk_writes, "reads": self.reads, "pages": self._pages}

    def _connect(self) -> sqlite3.Connection:
        """A connection to write by. Perhaps to another file than the one before, which lacks what the trail goes on
        from, or to one whose log holds a commit that failed."""
        self._chain.close()
        connection = connect(self.path, self._timeout_s)
        if self._screened is not None:
            try:
                connection.execute(SAVE_SCREENED, self._screened)
            except sqlite3.Error:
                # A file that cannot take it cannot take rows either, and says so when it is given one.
                connection.close()
                raise
        return connection

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
            raise refusal(self.path, failure.__cause__ or failure) from failure

    async def close(self) -> None:
        """Write what was submitted, copy the log into the file and close it."""
        for batcher in (self.writes, self.bulk_writes, self.reads, self._pages):
            await batcher.close()
        if self._tidying is not None:
            await asyncio.wait((self._tidying,))
        for lane in (self._copier, self._finder, self._pager):
            await lane.stop()
        # What cannot be copied now stays in the log, durable, and is copied after the next start.
        with contextlib.suppress(StoreUnavailable):
            await self._writer.run(empty_log)
        await self._writer.stop()

    async def check(self) -> None:
        """Commit something, and so prove that rows could be."""
        await self._writer.run(_touch)

    async def add(self, rows: Sequence[Row], receipt: Receipt | None = None, *, actor: str = "") -> Receipt | None:
        """Record the rows, all or none, and with them the receipt. Answers and raises as `Store.add` says."""
        return await self._put(Entry(tuple(rows), receipt, actor))

    async def add_each(self, rows: Sequence[Row], *, actor: str = "") -> list[BaseException | None]:
        """As `add` for each row alone, in order; one row's error is its own answer."""
        # Futures, not a task for each: a thousand tasks would hold the event loop for milliseconds.
        adding = [self._put(Entry((row,), None, actor)) for row in rows]
        answers = await asyncio.gather(*adding, return_exceptions=True)
        return [answer if isinstance(answer, BaseException) else None for answer in answers]

    def _put(self, entry: Entry) -> asyncio.Future[Receipt | None]:
        try:
            return self.writes.put(entry) if len(entry.rows) <= 1 else self._put_bulk(entry)
        except (Closed, Overloaded) as error:
            refused: asyncio.Future[Receipt | None] = asyncio.get_running_loop().create_future()
            refused.set_exception(_closed() if isinstance(error, Closed) else error)
            return refused

    def _put_bulk(self, entry: Entry) -> asyncio.Future[Receipt | None]:
        rows = len(entry.rows)
        if self._bulk_rows and self._bulk_rows + rows > BULK_ROWS_WAITING:
            raise Overloaded(self._bulk_rows, BULK_ROWS_WAITING)
        future = self.bulk_writes.put(entry)
        self._bulk_rows += rows

        def leave(_: object) -> None:
            self._bulk_rows -= rows

        future.add_done_callback(leave)
        return future

    async def get(self, tenant_id: str, id: bytes) -> Row | None:
        """The tenant's assessment."""
        rows = await self._ask(self.reads, GET, (tenant_id, id))
        return Row(*rows[0]) if rows else None

    async def get_each(self, tenant_id: str, ids: Sequence[bytes]) -> list[Row | None]:
        """As `get` for each id, in order."""
        found: dict[bytes, Row] = {}
        for start in range(0, len(ids), IDS_A_QUERY):
            some = ids[start : start + IDS_A_QUERY]
            # The last id again up to the next multiple of 16: few statements, which stay prepared.
            values = [tenant_id, *some, *[some[-1]] * (-len(some) % 16)]
            for row in await self._ask(self._pages, _get_each_sql(len(values) - 1), values):
                found[row[1]] = Row(*row)
        return [found.get(id) for id in ids]

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

    async def _rows(self, sql: str, values: Values) -> list[Any]:
        return await self._ask(self._pages, sql, values)

    async def _send_entries(self, entries: list[Entry]) -> list[Answer]:
        answers = await self._writer.run(partial(write, entries, self._key_ttl_ms, self._chain))
        # An entry without rows leaves a receipt.
        self._rows_since_tidy += sum([len(entry.rows) or 1 for entry in entries])
        if self._rows_since_tidy >= TIDY_ROWS and (self._tidying is None or self._tidying.done()):
            self._rows_since_tidy = 0
            self._tidying = asyncio.create_task(self._tidy())
        return answers

    async def _send_bulk(self, entries: list[Entry]) -> list[Answer]:
        """As few transactions as hold the entries without growing too long for those who wait behind them."""
        answers: list[Answer] = []
        try:
            for some in _portions(entries):
                answers += await self._send_entries(some)
        except StoreUnavailable as failure:
            # What was answered is on record; the rest is not.
            answers += [failure] * (len(entries) - len(answers))
        return answers

    async def _send_queries(self, lane: Lane, queries: list[Query]) -> list[list[Any] | BaseException]:
        timer = asyncio.get_running_loop().call_later(self._timeout_s, lane.interrupt)
        try:
            return await lane.run(partial(_read, queries))
        finally:
            timer.cancel()

    async def _tidy(self) -> None:
        """Start a new span when the newest is full, delete expired receipts, and copy the log into the file."""
        expired_ms = self._clock() - self._key_ttl_ms
        with contextlib.suppress(StoreUnavailable):
            await self._writer.run(roll)
            for _ in range(EXPIRED_SLICES):
                if await self._writer.run(partial(drop_receipts, expired_ms, EXPIRED_A_SLICE)) < EXPIRED_A_SLICE:
                    break
            await copy_back(self._writer, self._copier)


def _closed() -> StoreUnavailable:
    return StoreUnavailable("the store is closed")


def _portions(entries: list[Entry]) -> Iterable[list[Entry]]:
    """The entries in order, in portions of at most BULK_ROWS rows, or of a single entry."""
    portion: list[Entry] = []
    rows = 0
    for entry in entries:
        if portion and rows + len(entry.rows) > BULK_ROWS:
            yield portion
            portion, rows = [], 0
        portion.append(entry)
        rows += len(entry.rows)
    yield portion


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
