"""How rows come into PostgreSQL: by group commit, each request's receipt in the transaction of its rows."""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeVar

import msgspec
from asyncpg.pgproto.pgproto import UUID

from app.resilience.batcher import Batcher, Closed, Overloaded
from app.resilience.breaker import Breaker
from app.resilience.deadline import remaining_s
from app.store.base import KeyBusy, KeyReused, Receipt, Row, RowRefused, StoreUnavailable, Unconfirmed
from app.store.postgres import statements
from app.store.postgres.link import Link, LockBusy, Lost, Present, RowLocked, Silent
from app.store.postgres.spans import Spans

Answer = TypeVar("Answer")

MAX_STATEMENT_ROWS = 1024
MAX_STATEMENT_BYTES = 16 * 1024 * 1024
NO_ID = bytes(16)
KEY_POLL_S = 0.05
ANSWER_S = 0.2
"""What is left of the caller's deadline for telling them that their key is busy."""
BUSY_KEYS_S = 0.2
"""How long keys that are busy elsewhere may hold up those that are recorded together with them."""
BRIEFLY = "SET LOCAL lock_timeout = 10"


class Entry(NamedTuple):
    """What is recorded together: some rows, and the receipt of the request they answer."""

    rows: tuple[Row, ...]
    receipt: Receipt | None


class PostgresWriting(ABC):
    """The part of the store that records. It belongs to one event loop."""

    write_breaker: Breaker
    _writing: Link

    def __init__(self, *, key_ttl_s: float, key_wait_s: float, max_batch: int) -> None:
        self._key_ttl_ms = round(key_ttl_s * 1000)
        self._key_wait_s = key_wait_s
        self._spans = Spans()
        self.writes: Batcher[Entry, Receipt | None] = Batcher(self._send_entries, max_batch)
        self.polls: Batcher[Receipt, Receipt | None] = Batcher(self._send_polls, max_batch)

    @abstractmethod
    async def _guarded(self, breaker: Breaker, call: Callable[[], Awaitable[Answer]], weight: int = 1) -> Answer: ...

    @abstractmethod
    async def _fetch(self, sql: str, *values: object, link: Link | None = None) -> list[Any]: ...

    @abstractmethod
    async def _read_ids(self, wanted: Sequence[tuple[str, bytes]], link: Link) -> list[Row | None]: ...

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
            refused.set_exception(closed() if isinstance(error, Closed) else error)
            return refused

    async def _wait_for_key(self, receipt: Receipt) -> Receipt | None:
        """Whoever holds the key may be done in a moment. Raises KeyBusy when that moment is over, and in time."""
        left_s = remaining_s()
        patience_s = self._key_wait_s if left_s is None else min(self._key_wait_s, left_s - ANSWER_S)
        end = time.monotonic() + patience_s
        while time.monotonic() < end:
            await asyncio.sleep(KEY_POLL_S)
            try:
                found = await self.polls.put(receipt)
            except Closed:
                raise closed() from None
            if found is not None and found.created_ms >= receipt.created_ms - self._key_ttl_ms:
                return _same(receipt, found)
        raise KeyBusy(receipt.key)

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
                if statement is not statements.ADD:
                    raise
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


def closed() -> StoreUnavailable:
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
