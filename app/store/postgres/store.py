"""The store in PostgreSQL: rows by group commit over one connection, reads over others."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeVar

import msgspec
from asyncpg.pgproto.pgproto import UUID

from app import ids
from app.resilience.batcher import Batcher, Closed, Overloaded
from app.resilience.breaker import Breaker, BreakerOpen
from app.resilience.retry import Retry
from app.store.base import (
    KeyBusy,
    KeyReused,
    Receipt,
    Row,
    RowRefused,
    StoredModel,
    StoreRefused,
    StoreUnavailable,
    Unconfirmed,
)
from app.store.postgres import partitions, schema, statements
from app.store.postgres.keeping import PostgresKeeping
from app.store.postgres.link import (
    CONNECTING_FAILS,
    Down,
    Link,
    LockBusy,
    Lost,
    Present,
    RowLocked,
    Session,
    Silent,
    Slow,
    Timeouts,
)
from app.store.postgres.refusals import refusal
from app.store.postgres.spans import DAY_SPANS, Spans, span_of_day

log = logging.getLogger(__name__)

Answer = TypeVar("Answer")

MAX_STATEMENT_ROWS = 1024
MAX_STATEMENT_BYTES = 16 * 1024 * 1024
NO_ID = bytes(16)
TIDY_S = 60.0
TIDY_KEYS = 500
KEY_POLL_S = 0.05
BUSY_KEYS_S = 0.2
"""How long keys that are busy elsewhere may hold up those that are recorded together with them."""
BRIEFLY = "SET LOCAL lock_timeout = 10"


class Entry(NamedTuple):
    """What is recorded together: some rows, and the receipt of the request they answer."""

    rows: tuple[Row, ...]
    receipt: Receipt | None


class PostgresStore(PostgresKeeping):
    """The `Store` kept in PostgreSQL, shared by any number of processes.

    connections: this process's share, at least 2: one writes.  idle: how many are kept open.
    lifetime_s: the age at which a connection is made anew.  pooled: PgBouncer in transaction mode stands between.
    key_ttl_s: how long an idempotency key is kept.  key_wait_s: how long one that is busy elsewhere is waited for.
    months_ahead: partitions made ahead of time.
    write_breaker, read_breaker: made with `WRITE_FAILURES` and `READ_FAILURES`.  retry: made with `RETRIED`.
    """

    WRITE_FAILURES = (Down, Slow)
    # A list that takes too long says nothing of the others' look-ups.
    READ_FAILURES = (Down,)
    RETRIED = (Lost,)

    def __init__(
        self,
        url: str,
        *,
        connections: int = 4,
        idle: int = 1,
        lifetime_s: float = 3600.0,
        pooled: bool = False,
        timeouts: Timeouts | None = None,
        key_ttl_s: float = 86_400.0,
        key_wait_s: float = 0.5,
        months_ahead: int = 3,
        write_breaker: Breaker,
        read_breaker: Breaker,
        retry: Retry,
        max_batch: int = 512,
    ) -> None:
        timeouts = timeouts or Timeouts()
        self.place = schema.database_place(url)
        self._pooled = pooled
        self._writing = Link(
            url, size=1, idle=1, lifetime_s=lifetime_s, timeouts=timeouts, writable=True, pooled=pooled
        )
        self._reading = Link(
            url, size=connections - 1, idle=idle - 1, lifetime_s=lifetime_s, timeouts=timeouts, pooled=pooled
        )
        self.write_breaker = write_breaker
        self.read_breaker = read_breaker
        self._retry = retry
        self._key_ttl_ms = round(key_ttl_s * 1000)
        self._key_wait_s = key_wait_s
        self._months_ahead = months_ahead
        self.writes: Batcher[Entry, Receipt | None] = Batcher(self._send_entries, max_batch)
        self.reads: Batcher[tuple[str, bytes], Row | None] = Batcher(self._send_ids, max_batch)
        self.polls: Batcher[Receipt, Receipt | None] = Batcher(self._send_polls, max_batch)
        self._spans = Spans()
        self._tidying: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Connect and check the schema. Raises StoreRefused."""
        try:
            await self._writing.open()
            await self._reading.open()
            async with self._writing.session(transaction=self._pooled) as session:
                schema.check(await schema.revision(session), self.place)
                await self._warn(session)
        except (StoreUnavailable, *CONNECTING_FAILS) as error:
            await self.close()
            raise refusal(error, self.place) from error
        except StoreRefused:
            await self.close()
            raise
        try:
            # Before the first row: those that come without a partition have to be moved into it.
            await self._make_partitions()
        except StoreUnavailable as error:
            log.warning("the partition of this month could not be looked after: %s", error)
        self._tidying = asyncio.create_task(self._tidy_for_ever())

    async def _warn(self, session: Session) -> None:
        for name in ("synchronous_commit", "fsync"):
            if await session.fetchval(f"SHOW {name}") == "off":
                log.warning("the database %s has %s = off: a crash may lose what was acknowledged", self.place, name)

    async def close(self) -> None:
        """Record what was submitted, then close every connection."""
        if self._tidying is not None:
            self._tidying.cancel()
            await asyncio.wait((self._tidying,))
        await self.writes.close()
        await self.reads.close()
        await self.polls.close()
        await self._writing.close()
        await self._reading.close()

    async def check(self) -> None:
        """Commit something, and so prove that rows could be."""

        async def beat() -> None:
            async with self._writing.session() as session:
                await session.execute(statements.PULSE, os.getpid() % 1024)

        await self._guarded(self.write_breaker, beat)

    async def add(self, rows: Sequence[Row], receipt: Receipt | None = None) -> Receipt | None:
        """Record the rows, all or none. Raises as `Store.add` says."""
        try:
            return await self._put(Entry(tuple(rows), receipt))
        except KeyBusy:
            assert receipt is not None
            return await self._wait_for_key(receipt)

    async def add_each(self, rows: Sequence[Row]) -> list[BaseException | None]:
        """As `add` for each row alone, in order; one row's error is its own answer."""
        # Futures, not a task for each: a thousand tasks would hold the event loop for milliseconds.
        answers = await asyncio.gather(*(self._put(Entry((row,), None)) for row in rows), return_exceptions=True)
        return [answer if isinstance(answer, BaseException) else None for answer in answers]

    def _put(self, entry: Entry) -> asyncio.Future[Receipt | None]:
        try:
            return self.writes.put(entry)
        except (Closed, Overloaded) as error:
            refused: asyncio.Future[Receipt | None] = asyncio.get_running_loop().create_future()
            refused.set_exception(_closed() if isinstance(error, Closed) else error)
            return refused

    async def _wait_for_key(self, receipt: Receipt) -> Receipt | None:
        """Whoever holds the key may be done in a moment. Raises KeyBusy when that moment is over."""
        end = time.monotonic() + self._key_wait_s
        while time.monotonic() < end:
            await asyncio.sleep(KEY_POLL_S)
            try:
                found = await self.polls.put(receipt)
            except Closed:
                raise _closed() from None
            if found is not None and found.created_ms >= receipt.created_ms - self._key_ttl_ms:
                return _same(receipt, found)
        raise KeyBusy(receipt.key)

    async def get(self, tenant_id: str, id: bytes) -> Row | None:
        """The tenant's assessment."""
        try:
            return await self.reads.put((tenant_id, id))
        except Closed:
            raise _closed() from None

    async def get_each(self, tenant_id: str, ids: Sequence[bytes]) -> list[Row | None]:
        """As `get` for each id, in order."""
        try:
            return await asyncio.gather(*[self.reads.put((tenant_id, id)) for id in ids])
        except Closed:
            raise _closed() from None

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
        sql = statements.page(business_id is not None, level is not None, decision is not None)
        filters = [value for value in (level, decision) if value is not None]

        async def read() -> list[Row]:
            async with self._reading.session(transaction=self._pooled) as session:
                [(first, last)] = await session.fetch(statements.EDGES, tenant_id)
                if first is None:
                    return []
                low = max(since_id or NO_ID, first.bytes)
                ends = [end for end in (before_id, until_id and _after(until_id), _after(last.bytes)) if end]
                rows: list[Row] = []
                for month, begin, end in partitions.backwards(low, min(ends)):
                    if begin >= end:
                        continue
                    values: list[Any] = [tenant_id, UUID(begin), UUID(end), limit - len(rows)]
                    if business_id is not None:
                        spans = (span_of_day(begin), span_of_day(end) + DAY_SPANS - 1)
                        values += [business_id, *spans, UUID(month.low), UUID(month.high)]
                    rows += [_row(record) for record in await session.fetch(sql, *values, *filters)]
                    if len(rows) >= limit:
                        break
                return rows

        return await self._guarded(self.read_breaker, read)

    async def save_model(self, sha256: bytes, model_id: str, version: str, definition: bytes) -> None:
        """Keep a model's definition under its hash; one already kept stays as it is."""

        async def save() -> None:
            async with self._writing.session() as session:
                await session.execute(statements.SAVE_MODEL, sha256, model_id, version, definition)

        await self._guarded(self.write_breaker, save)

    async def model(self, sha256: bytes) -> bytes | None:
        """The definition with that hash."""
        found = await self._fetch(statements.MODEL, sha256)
        return found[0]["definition"] if found else None

    async def models(self) -> list[StoredModel]:
        """All models ever kept, by id and version."""
        return [StoredModel(*record) for record in await self._fetch(statements.MODELS)]

    async def _fetch(self, sql: str, *values: object, link: Link | None = None) -> list[Any]:
        chosen = link or self._reading

        async def read() -> list[Any]:
            async with chosen.session() as session:
                return list(await session.fetch(sql, *values))

        return await self._guarded(self.read_breaker if chosen is self._reading else self.write_breaker, read)

    async def _guarded(self, breaker: Breaker, call: Callable[[], Awaitable[Answer]], weight: int = 1) -> Answer:
        """The call, behind the breaker; repeated within the budget where the connection broke."""
        try:
            return await self._retry.run(lambda: breaker.call(call, weight))
        except BreakerOpen as error:
            raise StoreUnavailable(str(error)) from None

    # Rows

    async def _send_entries(self, entries: list[Entry]) -> list[Receipt | BaseException | None]:
        answers: list[Receipt | BaseException | None] = []
        for part in _parts(entries):
            try:
                answers += await self._commit(part)
            except StoreUnavailable as error:
                answers += [error] * len(part)
        return answers

    async def _commit(self, entries: list[Entry]) -> list[Receipt | BaseException | None]:
        """Commit the entries together, and apart those that cannot be."""
        try:
            return await self._commit_together(entries)
        except RowRefused as error:
            if len(entries) == 1:
                return [error]
            # Halves, so that one row among many is found in a few statements.
            half = len(entries) // 2
            return [*await self._send_entries(entries[:half]), *await self._send_entries(entries[half:])]
        except RowLocked:
            if all([entry.receipt is None for entry in entries]):
                raise
            return await self._commit_around_busy_keys(entries)

    async def _commit_around_busy_keys(self, entries: list[Entry]) -> list[Receipt | BaseException | None]:
        """Some key is held by a transaction elsewhere that does not end: what has none goes first."""
        answers: list[Receipt | BaseException | None] = [None] * len(entries)
        free = [place for place, entry in enumerate(entries) if entry.receipt is None]
        # Entries of the same key stay together.
        keyed = sorted(set(range(len(entries))).difference(free), key=lambda place: _key(entries[place]))
        end = time.monotonic() + BUSY_KEYS_S
        for places, commit in ((free, self._commit), (keyed, partial(self._commit_free_keys, end))):
            if places:
                try:
                    told = await commit([entries[place] for place in places])
                except StoreUnavailable as error:
                    told = [error] * len(places)
                for place, answer in zip(places, told, strict=True):
                    answers[place] = answer
        return answers

    async def _commit_free_keys(self, end: float, entries: list[Entry]) -> list[Receipt | BaseException | None]:
        """Commit the entries but those whose key is busy, which are found by halving until the time is over."""
        if time.monotonic() >= end:
            return [LockBusy("too many keys are busy elsewhere") for _ in entries]
        try:
            return await self._commit_together(entries, BRIEFLY)
        except RowRefused as error:
            if len(entries) == 1:
                return [error]
        except RowLocked:
            if _key(entries[0]) == _key(entries[-1]):
                return [KeyBusy(key) for _, key in map(_key, entries)]
        except StoreUnavailable as error:
            return [error] * len(entries)
        half = len(entries) // 2
        return [
            *await self._commit_free_keys(end, entries[:half]),
            *await self._commit_free_keys(end, entries[half:]),
        ]

    async def _commit_together(self, entries: list[Entry], local: str = "") -> list[Receipt | BaseException | None]:
        """One statement, one transaction. The keys of later entries that an earlier one has are theirs already."""
        firsts: dict[tuple[str, str], int] = {}
        for place, entry in enumerate(entries):
            if entry.receipt is not None:
                firsts.setdefault((entry.receipt.tenant_id, entry.receipt.key), place)
        sent = [
            place
            for place, entry in enumerate(entries)
            if entry.receipt is None or firsts[entry.receipt.tenant_id, entry.receipt.key] == place
        ]

        statement, values = self._insertion([entries[place] for place in sent])

        async def insert() -> tuple[int, set[tuple[str, str]]]:
            async with self._writing.session(transaction=bool(local), local=local) as session:
                if statement is not statements.ADD_KEYED:
                    status = await session.execute(statement, *values)
                    return int(status.rpartition(" ")[2]), set()
                found = await session.fetch(statement, *values)
                return found[0]["count"], {(tenant_id, key) for _, tenant_id, key in found if key is not None}

        try:
            try:
                added, held = await self._guarded(self.write_breaker, insert, len(entries))
            except Present:
                # Sent again, by us or by someone who never learnt that they were committed.
                statement = statements.ADD_AGAIN
                added, held = await self._guarded(self.write_breaker, insert, len(entries))
        except (Lost, Silent) as error:
            raise Unconfirmed(str(error)) from error
        recorded = [place for place in sent if (r := entries[place].receipt) is None or (r.tenant_id, r.key) in held]
        answers: list[Receipt | BaseException | None] = [None] * len(entries)
        if added < sum(len(entries[place].rows) for place in recorded):
            await self._compare(entries, recorded, answers)
        late = sorted(set(range(len(entries))) - set(recorded))
        if late:
            receipts = await self._receipts([r for place in late if (r := entries[place].receipt) is not None])
            for place in late:
                answers[place] = _late(entries[place].receipt, receipts)
        return answers

    def _insertion(self, entries: list[Entry]) -> tuple[str, list[Any]]:
        """The statement that records the entries, and its values. Raises RowRefused for what is no value at all."""
        rows = [row for entry in entries for row in entry.rows]
        receipts = [entry.receipt for entry in entries if entry.receipt is not None]
        try:
            columns = [*map(list, zip(*map(self._values, rows), strict=True))] if rows else [[] for _ in range(10)]
            kept = [*map(list, zip(*map(_receipt_values, receipts), strict=True))]
        except (TypeError, ValueError) as error:
            raise RowRefused(str(error)) from None
        if not receipts:
            return statements.ADD, columns
        keys = [entry.receipt and entry.receipt.key for entry in entries for _ in entry.rows]
        return statements.ADD_KEYED, [*columns, keys, *kept, self._key_ttl_ms]

    def _values(self, row: Row) -> tuple[Any, ...]:
        return (
            row.tenant_id,
            UUID(row.id),
            row.business_id,
            self._spans.of(row.id),
            row.level,
            row.decision,
            row.score,
            row.model_sha256,
            row.input,
            row.record,
        )

    async def _compare(
        self, entries: list[Entry], places: list[int], answers: list[Receipt | BaseException | None]
    ) -> None:
        """Rows that were on record already were sent again by someone who never learnt of it, or their ids clash."""
        for place in places:
            rows = entries[place].rows
            found = await self._read_ids([(row.tenant_id, row.id) for row in rows], self._writing)
            if any(row != other for row, other in zip(rows, found, strict=True)):
                answers[place] = RowRefused("another row has its id")

    async def _receipts(self, wanted: Sequence[Receipt]) -> dict[tuple[str, str], Receipt]:
        tenants, keys = [receipt.tenant_id for receipt in wanted], [receipt.key for receipt in wanted]
        # From the server that wrote them: a standby may not have them yet.
        found = map(_receipt, await self._fetch(statements.RECEIPTS, tenants, keys, link=self._writing))
        return {(receipt.tenant_id, receipt.key): receipt for receipt in found}

    async def _send_polls(self, wanted: list[Receipt]) -> list[Receipt | None]:
        found = await self._receipts(wanted)
        return [found.get((receipt.tenant_id, receipt.key)) for receipt in wanted]

    # Reads

    async def _send_ids(self, wanted: list[tuple[str, bytes]]) -> list[Row | None]:
        return await self._read_ids(wanted, self._reading)

    async def _read_ids(self, wanted: Sequence[tuple[str, bytes]], link: Link) -> list[Row | None]:
        tenants, keys = [tenant_id for tenant_id, _ in wanted], [UUID(id) for _, id in wanted]
        records = await self._fetch(statements.GET, tenants, keys, min(keys), max(keys), link=link)
        found = {(row.tenant_id, row.id): row for row in map(_row, records)}
        return [found.get(one) for one in wanted]

    # What is done besides

    async def _tidy_for_ever(self) -> None:
        while True:
            try:
                await self.tidy()
            except StoreUnavailable as error:
                log.warning("expired keys and coming partitions wait: %s", error)
            await asyncio.sleep(TIDY_S * random.uniform(0.8, 1.2))

    async def tidy(self) -> None:
        """Delete receipts that are past their time, and make the partitions of the coming months."""
        limit_ms = ids.now_ms() - self._key_ttl_ms
        deleted = TIDY_KEYS
        while deleted == TIDY_KEYS:
            deleted = await self._drop_receipts(limit_ms)
        await self._make_partitions()

    async def _drop_receipts(self, limit_ms: int) -> int:
        async def drop() -> int:
            async with self._writing.session() as session:
                status = await session.execute(statements.DROP_RECEIPTS, limit_ms, TIDY_KEYS)
                return int(status.rpartition(" ")[2])

        return await self._guarded(self.write_breaker, drop)

    async def _make_partitions(self) -> None:
        async def make() -> list[str]:
            async with self._writing.session(transaction=True) as session:
                there = await partitions.present(session)
                wanted = partitions.tables(ids.now_ms(), self._months_ahead)
                return await partitions.make(session, ids.now_ms(), self._months_ahead) if wanted - there else []

        made = await self._guarded(self.write_breaker, make)
        if made:
            log.info("made the partitions %s", ", ".join(made))


def _closed() -> StoreUnavailable:
    return StoreUnavailable("the store is closed")


def _parts(entries: list[Entry]) -> Iterator[list[Entry]]:
    """The entries in stretches that one statement carries well."""
    part: list[Entry] = []
    rows = size_bytes = 0
    for entry in entries:
        entry_bytes = sum([len(row.input or b"") + len(row.record or b"") for row in entry.rows])
        if part and (rows + len(entry.rows) > MAX_STATEMENT_ROWS or size_bytes + entry_bytes > MAX_STATEMENT_BYTES):
            yield part
            part, rows, size_bytes = [], 0, 0
        part.append(entry)
        rows += len(entry.rows)
        size_bytes += entry_bytes
    yield part


def _key(entry: Entry) -> tuple[str, str]:
    """Tenant and key of an entry with a receipt."""
    assert entry.receipt is not None
    return entry.receipt.tenant_id, entry.receipt.key


def _late(wanted: Receipt | None, receipts: dict[tuple[str, str], Receipt]) -> Receipt | BaseException | None:
    """What an entry is answered whose key was not free."""
    assert wanted is not None
    found = receipts.get((wanted.tenant_id, wanted.key))
    if found is None:
        # It was there a moment ago and expired since: the caller may try again.
        return KeyBusy(wanted.key)
    try:
        return _same(wanted, found)
    except KeyReused as error:
        return error


def _same(wanted: Receipt, found: Receipt) -> Receipt | None:
    """What a request is answered whose key is held. Raises KeyReused."""
    if found.fingerprint != wanted.fingerprint:
        raise KeyReused(wanted.key)
    return None if found == wanted else found


def _row(record: Any) -> Row:
    tenant_id, id, *rest = record
    return Row(tenant_id, id.bytes, *rest)


def _receipt_values(receipt: Receipt) -> tuple[Any, ...]:
    if any(id is not None and len(id) != 16 for id in receipt.ids):
        raise ValueError("an id has 16 bytes")
    values = msgspec.structs.astuple(receipt)
    return (*values[:4], b"".join([id or NO_ID for id in receipt.ids]), *values[5:])


def _receipt(record: Any) -> Receipt:
    values = list(record)
    packed = values[4]
    found = [packed[at : at + 16] for at in range(0, len(packed), 16)]
    values[4] = tuple([None if id == NO_ID else id for id in found])
    return Receipt(*values)


def _after(id: bytes) -> bytes:
    """The next 16 bytes after an id."""
    return min(int.from_bytes(id, "big") + 1, 2**128 - 1).to_bytes(16, "big")
