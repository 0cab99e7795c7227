"""How rows come into PostgreSQL: by group commit, each request's receipt and what the trail tells of them in the
transaction of its rows."""

from __future__ import annotations

import asyncio
import struct
import time
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import msgspec
from asyncpg.pgproto.pgproto import UUID

from app.resilience.batcher import Batcher, Closed, Overloaded
from app.resilience.deadline import remaining_s
from app.store.base import KeyBusy, KeyReused, Receipt, Row, RowRefused, StoreUnavailable, as_recorded
from app.store.postgres import statements
from app.store.postgres.link import KeysTaken, Link, LockBusy, Present, RowLocked
from app.store.postgres.spans import Spans
from app.store.postgres.trail import PostgresTrail, entry_values
from app.store.segments import recorded

Answer = Receipt | BaseException | None

MAX_STATEMENT_ROWS = 1024
MAX_STATEMENT_BYTES = 16 * 1024 * 1024
NO_ID = bytes(16)
KEY_POLL_S = 0.05
ANSWER_S = 0.2
"""What is left of the caller's deadline for telling them that their key is busy."""
BUSY_KEYS_S = 0.2
"""How long keys that are busy elsewhere may hold up those that are recorded together with them."""
BRIEFLY = "SET LOCAL lock_timeout = 10"
ROUNDS = 8
"""How often the rest of a commit is tried where others record the same at the same time."""


class Entry(NamedTuple):
    """What is recorded together: some rows, and the receipt of the request they answer. actor: the id of its key."""

    rows: tuple[Row, ...]
    receipt: Receipt | None = None
    actor: str = ""


class PostgresWriting(PostgresTrail):
    """The part of the store that records. It belongs to one event loop."""

    def __init__(self, *, key_ttl_s: float, key_wait_s: float, max_batch: int) -> None:
        super().__init__()
        self._key_ttl_ms = round(key_ttl_s * 1000)
        self._key_wait_s = key_wait_s
        self._spans = Spans()
        self.writes: Batcher[Entry, Receipt | None] = Batcher(self._send_entries, max_batch)
        self.polls: Batcher[Receipt, Receipt | None] = Batcher(self._send_polls, max_batch)

    @abstractmethod
    async def _read_ids(self, wanted: Sequence[tuple[str, bytes]], link: Link) -> list[Row | None]: ...

    async def add(self, rows: Sequence[Row], receipt: Receipt | None = None, *, actor: str = "") -> Receipt | None:
        """Record the rows, all or none. Raises as `Store.add` says."""
        try:
            return await self._put(Entry(tuple(rows), receipt, actor))
        except KeyBusy:
            assert receipt is not None
            return await self._wait_for_key(receipt)

    async def add_each(self, rows: Sequence[Row], *, actor: str = "") -> list[BaseException | None]:
        """As `add` for each row alone, in order; one row's error is its own answer."""
        # Futures, not a task for each: a thousand tasks would hold the event loop for milliseconds.
        answers = await asyncio.gather(*(self._put(Entry((row,), None, actor)) for row in rows), return_exceptions=True)
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
            if (holder := self._holder(receipt, found)) is not None:
                return _same(receipt, holder)
        raise KeyBusy(receipt.key)

    async def _send_entries(self, entries: list[Entry]) -> list[Answer]:
        answers: list[Answer] = []
        for part in _parts(entries):
            try:
                answers += await self._commit(part)
            except StoreUnavailable as error:
                answers += [error] * len(part)
        return answers

    async def _commit(self, entries: list[Entry]) -> list[Answer]:
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

    async def _commit_around_busy_keys(self, entries: list[Entry]) -> list[Answer]:
        """Some key is held by a transaction elsewhere that does not end: what has none goes first."""
        answers: list[Answer] = [None] * len(entries)
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

    async def _commit_free_keys(self, end: float, entries: list[Entry]) -> list[Answer]:
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

    async def _commit_together(self, entries: list[Entry], local: str = "") -> list[Answer]:
        """Record the entries in one statement; what keeps it from being recorded is answered, and the rest sent again.

        Of entries with the same key, or a row of the same id, the later ones wait for what becomes of the first.
        """
        answers: list[Answer] = [None] * len(entries)
        left = dict(enumerate(entries))
        apart = False
        for _ in range(ROUNDS):
            sent = _firsts(left, apart)
            try:
                await self._insert([left[place] for place in sent], local)
            except (Present, KeysTaken) as error:
                apart = apart or isinstance(error, Present)
            else:
                for place in sent:
                    del left[place]
            if not left:
                return answers
            await self._settle(left, answers, apart)
            if not left:
                return answers
        for place, entry in left.items():
            busy = LockBusy("the same is being recorded elsewhere at this moment")
            answers[place] = busy if entry.receipt is None else KeyBusy(entry.receipt.key)
        return answers

    async def _insert(self, entries: list[Entry], local: str) -> None:
        """Record the entries, and what the trail tells of their rows. Raises Present or KeysTaken where something of
        them is on record already, and then nothing was recorded."""
        rows = [row for entry in entries for row in entry.rows]
        receipts = [entry.receipt for entry in entries if entry.receipt is not None]
        try:
            columns = [*map(list, zip(*map(self._values, rows), strict=True))] if rows else [[] for _ in range(10)]
            kept = [*map(list, zip(*map(_receipt_values, receipts), strict=True))]
            told = self._commits.propose(recorded([(entry.actor, entry.rows) for entry in entries]))
        except (TypeError, ValueError, struct.error) as error:
            raise RowRefused(str(error)) from None
        values: list[object] = [*columns, *entry_values(told)]
        if receipts:
            values += [*kept, self._key_ttl_ms]
        sql = statements.add(bool(receipts), len(told) == 1)
        await self._enter(self._commits, told, sql, values, local=local, weight=len(entries))

    async def _settle(self, left: dict[int, Entry], answers: list[Answer], by_row: bool) -> None:
        """Answer those of the entries whose key belongs to another or, where it is asked for, whose rows are on record;
        only what is to be recorded is left."""
        keyed = [entry.receipt for entry in left.values() if entry.receipt is not None]
        kept = await self._receipts(keyed) if keyed else {}
        for place, entry in list(left.items()):
            if entry.receipt is not None and (found := self._holder(entry.receipt, kept.get(_key(entry)))) is not None:
                answers[place] = _late(entry.receipt, found)
                del left[place]
        if not by_row:
            return
        rows = [row for entry in left.values() for row in entry.rows]
        on_record = {}
        if rows:
            wanted = [(row.tenant_id, row.id) for row in rows]
            on_record = dict(zip(wanted, await self._read_ids(wanted, self._writing), strict=True))
        for place, entry in list(left.items()):
            try:
                missing = _missing(entry.rows, on_record)
            except RowRefused as error:
                answers[place] = error
                del left[place]
                continue
            if missing or entry.receipt is not None:
                left[place] = entry._replace(rows=missing)
            else:
                # Sent again, by us or by someone who never learnt that they were committed.
                del left[place]

    def _holder(self, wanted: Receipt, found: Receipt | None) -> Receipt | None:
        """The receipt found under the key of the wanted one, unless it has expired."""
        return found if found is not None and found.created_ms >= wanted.created_ms - self._key_ttl_ms else None

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


def _firsts(left: dict[int, Entry], by_row: bool) -> list[int]:
    """The places of those that can be recorded together: of a key, and where it is asked for of an id, the first."""
    if not by_row and not any([entry.receipt is not None for entry in left.values()]):
        return list(left)
    taken: set[tuple[str, str | bytes]] = set()
    firsts = []
    for place, entry in left.items():
        own: set[tuple[str, str | bytes]] = {(row.tenant_id, row.id) for row in entry.rows} if by_row else set()
        if entry.receipt is not None:
            own.add((entry.receipt.tenant_id, entry.receipt.key))
        if taken.isdisjoint(own):
            firsts.append(place)
        taken |= own
    return firsts


def _missing(rows: Sequence[Row], on_record: dict[tuple[str, bytes], Row | None]) -> tuple[Row, ...]:
    """Those of the rows that are not on record, each once. Raises RowRefused where another has the id of one."""
    missing: dict[tuple[str, bytes], Row] = {}
    for row in rows:
        place = (row.tenant_id, row.id)
        found = on_record[place] or missing.setdefault(place, row)
        if as_recorded(found) != row:
            raise RowRefused("another row has its id")
    return tuple(missing.values())


def _late(wanted: Receipt, found: Receipt) -> Answer:
    """What an entry is answered whose key is held."""
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
