"""Group commit: many entries in one transaction of SQLite, and each answered for itself.

The entry of the audit trail in the same transaction tells of the rows that it recorded, and of no others.
"""

from __future__ import annotations

import sqlite3
import struct
from collections.abc import Callable, Iterable, Sequence
from functools import cache, partial
from itertools import chain as chained
from operator import attrgetter
from typing import Any, TypeVar

from msgspec import Struct

from app.store.base import KeyReused, Receipt, Row, RowRefused, as_recorded
from app.store.chain import leaf
from app.store.segments import Segments, recorded
from app.store.sqlite_trail import append, commit

Part = TypeVar("Part", Row, Receipt)
Answer = Receipt | BaseException | None

COLUMNS = (
    "a.tenant_id, a.id, a.business_id, a.level, a.decision, a.score, a.model_sha256, a.input, a.record,"
    " a.input_sha256, a.override_id, a.original_level, a.original_decision, a.leaf"
)
GET = f"SELECT {COLUMNS} FROM assessments a WHERE tenant_id = ? AND id = ?"

_RECEIPT_COLUMNS = (
    "tenant_id, key, fingerprint, status, ids, explain, renderer, answer_sha256, request_id, as_of, created_ms"
)
_DROP_RECEIPTS = """\
DELETE FROM idempotency WHERE (tenant_id, key) IN (
    SELECT tenant_id, key FROM idempotency INDEXED BY idempotency_by_created
    WHERE created_ms < ? ORDER BY created_ms LIMIT ?)"""

NO_ID = bytes(16)
"""What stands in a receipt for an item without an assessment."""

# What SQLite, its binding or the leaf of a row says when a value is at fault and not the database.
_FAULTS = (
    sqlite3.IntegrityError,
    sqlite3.DataError,
    sqlite3.ProgrammingError,
    sqlite3.InterfaceError,
    OverflowError,
    TypeError,
    ValueError,
    struct.error,
)


class Entry(Struct, frozen=True, gc=False):
    """What is recorded together or not at all. actor: the id of the key that asked for it."""

    rows: Sequence[Row]
    receipt: Receipt | None = None
    actor: str = ""


def write(entries: list[Entry], key_ttl_ms: int, chain: Segments, connection: sqlite3.Connection) -> list[Answer]:
    """Commit the entries in one transaction; the answers stand in their order.

    None: recorded. A receipt: the one that its key belongs to. KeyReused, RowRefused: not recorded, the others were.
    """
    try:
        return _write_together(connection, chain, entries, key_ttl_ms)
    except _FAULTS:
        if connection.in_transaction:
            connection.rollback()
        return _write_apart(connection, chain, entries, key_ttl_ms)


def drop_receipts(before_ms: int, limit: int, connection: sqlite3.Connection) -> int:
    """Delete at most so many of the receipts made before a time, oldest first; the number deleted."""
    return connection.execute(_DROP_RECEIPTS, (before_ms, limit)).rowcount


def _write_together(
    connection: sqlite3.Connection, chain: Segments, entries: list[Entry], key_ttl_ms: int
) -> list[Answer]:
    connection.execute("BEGIN IMMEDIATE")
    answers: list[Answer] = [None] * len(entries)
    fresh = entries
    if late := _claim(connection, entries, key_ttl_ms):
        for place, kept in late.items():
            receipt = entries[place].receipt
            assert receipt is not None
            answers[place] = kept if kept.fingerprint == receipt.fingerprint else KeyReused(receipt.key)
        fresh = [entry for place, entry in enumerate(entries) if place not in late]
    _insert_rows(connection, list(chained.from_iterable([entry.rows for entry in fresh])))
    _commit(connection, chain, fresh)
    return answers


def _write_apart(
    connection: sqlite3.Connection, chain: Segments, entries: list[Entry], key_ttl_ms: int
) -> list[Answer]:
    """The same for entries of which some were sent before or cannot be stored: each in a savepoint of its own."""
    connection.execute("BEGIN IMMEDIATE")
    answers: list[Answer] = []
    fresh: list[Entry] = []
    for entry in entries:
        connection.execute("SAVEPOINT one")
        try:
            answer, is_fresh = _write_one(connection, entry, key_ttl_ms)
        except _FAULTS as fault:
            connection.execute("ROLLBACK TO one")
            answer, is_fresh = RowRefused(str(fault)), False
        connection.execute("RELEASE one")
        answers.append(answer)
        if is_fresh:
            fresh.append(entry)
    _commit(connection, chain, fresh)
    return answers


def _commit(connection: sqlite3.Connection, chain: Segments, fresh: list[Entry]) -> None:
    """Commit the transaction, and in it the entry of the trail. fresh: the entries that it recorded."""
    acts = recorded([(entry.actor, entry.rows) for entry in fresh])
    commit(connection, chain, append(connection, chain, acts) if acts else [])


def _write_one(connection: sqlite3.Connection, entry: Entry, key_ttl_ms: int) -> tuple[Answer, bool]:
    """The entry's answer, and whether its rows were recorded just now."""
    receipt = entry.receipt
    if receipt is not None and not _insert_receipts(connection, [receipt], key_ttl_ms):
        (kept,) = _receipts(connection, [receipt])
        if kept.fingerprint != receipt.fingerprint:
            return KeyReused(receipt.key), False
        if kept != receipt:
            return kept, False
    connection.execute("SAVEPOINT rows")
    try:
        _insert_rows(connection, entry.rows)
    except sqlite3.IntegrityError:
        # Some may be there by now, of an entry with many.
        connection.execute("ROLLBACK TO rows")
        # Sent again by someone who never learnt that they were committed.
        for row in entry.rows:
            found = connection.execute(GET, (row.tenant_id, row.id)).fetchone()
            if found is None or as_recorded(Row(*found)) != row:
                raise
        connection.execute("RELEASE rows")
        return None, False
    connection.execute("RELEASE rows")
    for row in entry.rows:
        # What has none is refused alone.
        leaf(row)
    return None, True


def _claim(connection: sqlite3.Connection, entries: list[Entry], key_ttl_ms: int) -> dict[int, Receipt]:
    """Keep the receipts of the entries; by place, the kept one of those whose key belongs to another already."""
    keyed = [entry.receipt for entry in entries if entry.receipt is not None]
    if not keyed or _insert_receipts(connection, keyed, key_ttl_ms) == len(keyed):
        return {}
    kept = {(receipt.tenant_id, receipt.key): receipt for receipt in _receipts(connection, keyed)}
    return {
        place: owner
        for place, entry in enumerate(entries)
        if entry.receipt is not None and (owner := kept[entry.receipt.tenant_id, entry.receipt.key]) != entry.receipt
    }


def _insert_rows(connection: sqlite3.Connection, rows: Sequence[Row]) -> None:
    _insert(connection, _rows_sql, _row_fields, rows)


def _insert_receipts(connection: sqlite3.Connection, receipts: Sequence[Receipt], key_ttl_ms: int) -> int:
    """Keep the receipts, in the place of expired ones; the number kept, without those whose key is taken."""
    return _insert(connection, partial(_receipts_sql, key_ttl_ms), _receipt_fields, receipts)


def _insert(
    connection: sqlite3.Connection,
    statement: Callable[[int], str],
    fields: Callable[[Part], Iterable[Any]],
    parts: Sequence[Part],
) -> int:
    """Insert the parts with as few statements as their cached sizes allow; the number inserted."""
    inserted = 0
    while parts:
        # Up to 16 rows, or multiples of 16: a few dozen statements that stay prepared, and at most two a batch.
        count = len(parts) if len(parts) <= 16 else min(len(parts) & ~15, 1024)
        values = list(chained.from_iterable(map(fields, parts[:count])))
        inserted += connection.execute(statement(count), values).rowcount
        parts = parts[count:]
    return inserted


def _receipts(connection: sqlite3.Connection, wanted: Sequence[Receipt]) -> list[Receipt]:
    """The receipts kept under the keys of the given ones."""
    sql = (
        f"SELECT {_RECEIPT_COLUMNS} FROM idempotency"
        f" WHERE (tenant_id, key) IN (VALUES {', '.join(['(?, ?)'] * len(wanted))})"
    )
    values = [value for receipt in wanted for value in (receipt.tenant_id, receipt.key)]
    return [_receipt(*row) for row in connection.execute(sql, values)]


@cache
def _rows_sql(count: int) -> str:
    values = ", ".join(["(?, ?, ?, ?, ?, ?, ?, ?, ?)"] * count)
    return (
        "INSERT INTO assessments"
        " (tenant_id, id, business_id, level, decision, score, model_sha256, input, record, span)"
        " SELECT *, (SELECT span FROM spans WHERE start <= column2 ORDER BY start DESC LIMIT 1)"
        f" FROM (VALUES {values})"
    )


_row_fields = attrgetter(
    "tenant_id", "id", "business_id", "level", "decision", "score", "model_sha256", "input", "record"
)


@cache
def _receipts_sql(key_ttl_ms: int, count: int) -> str:
    values = ", ".join(["(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"] * count)
    renewed = ", ".join(f"{name} = excluded.{name}" for name in _RECEIPT_COLUMNS.split(", ")[2:])
    return (
        f"INSERT INTO idempotency ({_RECEIPT_COLUMNS}) VALUES {values}"
        f" ON CONFLICT (tenant_id, key) DO UPDATE SET {renewed} WHERE created_ms < excluded.created_ms - {key_ttl_ms}"
    )


def _receipt_fields(receipt: Receipt) -> tuple[Any, ...]:
    ids = [NO_ID if id is None else id for id in receipt.ids]
    if any(len(id) != 16 for id in ids):
        raise ValueError("an id in the receipt is not 16 bytes long")
    return (
        receipt.tenant_id,
        receipt.key,
        receipt.fingerprint,
        receipt.status,
        b"".join(ids),
        receipt.explain,
        receipt.renderer,
        receipt.answer_sha256,
        receipt.request_id,
        receipt.as_of,
        receipt.created_ms,
    )


def _receipt(*columns: Any) -> Receipt:
    tenant_id, key, fingerprint, status, packed, *others = columns
    ids = [packed[start : start + 16] for start in range(0, len(packed), 16)]
    return Receipt(tenant_id, key, fingerprint, status, tuple(None if id == NO_ID else id for id in ids), *others)
