"""The file of the embedded store: its schema, and what must hold before it is used."""

from __future__ import annotations

import errno
import os
import sqlite3
import time
from urllib.parse import quote

from app.store.base import StoreRefused, StoreUnavailable
from app.store.lane import result_code

APPLICATION_ID = 0x4B594253
SCHEMA_VERSION = 1
# PERF: benchmarks/test_service.py::test_bytes_per_record. A row of 2.3 kB takes 4.2 kB of a file with pages of 4 kB,
# 2.9 with 8 and 2.7 with 16, at the same rows a second for 8 and 16.
PAGE_BYTES = 16_384
SPAN_ROWS = 4096

# A span is a stretch of ids: it holds those from its start to the start of the next. Business ids come in any order;
# an index over all of them touches a page of its own for every row, one within spans only the few pages of the newest.
# PERF: with 200,000 rows on file the plain index took 49 us and 34 kB of writes a row, this one 20 us and 12 kB. In
# return a search by business looks into every span, 2,500 of them in ten million rows.
SCHEMA = {
    "spans": """\
CREATE TABLE spans (
    span INTEGER PRIMARY KEY,
    start BLOB NOT NULL UNIQUE,
    first_row INTEGER NOT NULL
) STRICT""",
    "assessments": """\
CREATE TABLE assessments (
    tenant_id TEXT NOT NULL,
    id BLOB NOT NULL CHECK (length(id) = 16),
    business_id TEXT,
    span INTEGER NOT NULL,
    level INTEGER NOT NULL CHECK (level BETWEEN 0 AND 3),
    decision INTEGER NOT NULL CHECK (decision BETWEEN 0 AND 2),
    score INTEGER NOT NULL,
    model_sha256 BLOB NOT NULL,
    input BLOB NOT NULL,
    record BLOB NOT NULL
) STRICT""",
    "assessments_by_id": "CREATE UNIQUE INDEX assessments_by_id ON assessments (tenant_id, id)",
    # One index for level, decision and both: a level is three ranges of it, a decision four, merged by id.
    "assessments_by_outcome": "CREATE INDEX assessments_by_outcome ON assessments (tenant_id, level, decision, id)",
    "assessments_by_business": """\
CREATE INDEX assessments_by_business ON assessments (tenant_id, span, business_id, id, level, decision)
    WHERE business_id IS NOT NULL""",
    "idempotency": """\
CREATE TABLE idempotency (
    tenant_id TEXT NOT NULL,
    key TEXT NOT NULL,
    fingerprint BLOB NOT NULL,
    assessment_id BLOB NOT NULL,
    PRIMARY KEY (tenant_id, key)
) STRICT, WITHOUT ROWID""",
    "models": """\
CREATE TABLE models (
    sha256 BLOB PRIMARY KEY NOT NULL,
    model_id TEXT NOT NULL,
    version TEXT NOT NULL,
    definition BLOB NOT NULL
) STRICT""",
}


def connect(path: str, timeout_s: float, *, reading: bool = False) -> sqlite3.Connection:
    connection = sqlite3.connect(
        f"file:{quote(path)}?mode=rw",
        uri=True,
        timeout=timeout_s,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=256,
    )
    try:
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA cache_size = -16384")
        connection.execute("PRAGMA journal_size_limit = 134217728")
        # Only a net under the copier, for rows far larger than usual.
        connection.execute("PRAGMA wal_autocheckpoint = 16384")
        if reading:
            connection.execute("PRAGMA query_only = ON")
    except BaseException:
        connection.close()
        raise
    return connection


def make(path: str) -> None:
    """Make the file when there is none. Raises StoreRefused."""
    # An existing file is not opened here: closing it again would drop the locks of every connection of this process.
    if sqlite3.sqlite_version_info < (3, 37):
        raise StoreRefused(
            f"SQLite {sqlite3.sqlite_version} lacks what the store is built on.",
            "Use a Python with SQLite 3.37 or later.",
        )
    folder = os.path.dirname(path)
    if os.path.isdir(path):
        raise StoreRefused(f"{path} is a folder.", "Give the path of a file in it.")
    if not os.path.isdir(folder):
        raise StoreRefused(f"There is no folder {folder}.", "Create it, or mount a volume there.")
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        return
    except OSError as fault:
        if fault.errno in (errno.ENOSPC, errno.EDQUOT):
            raise _full(path) from fault
        raise StoreRefused(
            f"The file {path} cannot be created: {fault.strerror}.", f"Let the service's user write in {folder}."
        ) from fault


def prepare(connection: sqlite3.Connection, path: str, timeout_s: float) -> None:
    """Create the schema in an empty file, or check that it is the one this version knows. Raises StoreRefused."""
    if not connection.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchone():
        connection.execute(f"PRAGMA page_size = {PAGE_BYTES}")
        _enter_wal(connection, path, timeout_s)
        connection.execute("BEGIN IMMEDIATE")
        # Another process may have been faster.
        if not connection.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchone():
            for statement in SCHEMA.values():
                connection.execute(statement)
            connection.execute("INSERT INTO spans (start, first_row) VALUES (x'', 1)")
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        connection.execute("COMMIT")
    _check_schema(connection, path)
    _enter_wal(connection, path, timeout_s)
    roll(connection)


def _enter_wal(connection: sqlite3.Connection, path: str, timeout_s: float) -> None:
    deadline_s = time.monotonic() + timeout_s
    while True:
        try:
            mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
        except sqlite3.OperationalError as fault:
            # While another process makes the same change SQLite answers busy at once, whatever its timeout.
            if result_code(fault) != sqlite3.SQLITE_BUSY or time.monotonic() > deadline_s:
                raise
            time.sleep(0.005)
            continue
        if mode != "wal":
            raise StoreRefused(
                f"The file system of {path} does not carry a write-ahead log.", "Put the file on a local disk."
            )
        return


def _check_schema(connection: sqlite3.Connection, path: str) -> None:
    application_id = connection.execute("PRAGMA application_id").fetchone()[0]
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if application_id != APPLICATION_ID:
        raise StoreRefused(f"The database {path} belongs to another program.", "Give the path of another file.")
    if version > SCHEMA_VERSION:
        raise StoreRefused(
            f"The database {path} has schema {version}, and this version of the service knows {SCHEMA_VERSION}.",
            "Start the version that wrote it or a later one, or restore a backup from before.",
        )
    if version < SCHEMA_VERSION:
        raise StoreRefused(
            f"The database {path} has schema {version}, older than {SCHEMA_VERSION} of this version of the service.",
            "Start the version that wrote it, or restore a backup with the present schema.",
        )
    found = dict(connection.execute("SELECT name, sql FROM sqlite_schema WHERE sql IS NOT NULL"))
    changed = [name for name, sql in SCHEMA.items() if found.get(name) != sql]
    if changed:
        raise StoreRefused(
            f"In the database {path} these tables or indexes are missing or were changed: {', '.join(changed)}.",
            "Restore it from a backup.",
        )


def refusal(path: str, failure: StoreUnavailable) -> StoreRefused:
    fault = failure.__cause__
    code = result_code(fault) if isinstance(fault, sqlite3.Error) else 0
    if code == sqlite3.SQLITE_NOTADB:
        return StoreRefused(f"The file {path} is not an SQLite database.", "Give the path of another file.")
    if code == sqlite3.SQLITE_CORRUPT:
        return _damaged(path, str(fault))
    if code == sqlite3.SQLITE_FULL:
        return _full(path)
    if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM):
        return StoreRefused(
            f"The database {path} cannot be opened for writing: {fault}.",
            f"Let the service's user write it and in {os.path.dirname(path)}, where its log stands.",
        )
    if code == sqlite3.SQLITE_BUSY:
        return StoreRefused(f"Another process keeps the database {path} locked.", "End it, then start again.")
    return StoreRefused(f"The database {path} cannot be used: {fault or failure}.", "Check the disk it is on.")


def _damaged(path: str, what: str) -> StoreRefused:
    return StoreRefused(
        f"The database {path} is damaged: {what}.",
        "Restore it from a backup, or save what is left with sqlite3 .recover.",
    )


def _full(path: str) -> StoreRefused:
    return StoreRefused(f"The disk that holds {path} is full.", "Free space on it, then start again.")


def roll(connection: sqlite3.Connection) -> None:
    """Start a new span, above every id on record, when the newest holds enough rows."""
    connection.execute("BEGIN IMMEDIATE")
    start, first_row, last_row = connection.execute(
        "SELECT start, first_row, (SELECT max(rowid) FROM assessments) FROM spans ORDER BY span DESC LIMIT 1"
    ).fetchone()
    if last_row is not None and last_row - first_row >= SPAN_ROWS:
        top = connection.execute(
            "SELECT max(id) FROM assessments NOT INDEXED WHERE rowid >= ?", (first_row,)
        ).fetchone()[0]
        if top >= start:
            connection.execute("INSERT INTO spans (start, first_row) VALUES (?, ?)", (top + b"\0", last_row + 1))
        else:
            # With a clock far ahead somewhere, all of these fell into earlier spans: count again from here.
            connection.execute("UPDATE spans SET first_row = ? WHERE start = ?", (last_row + 1, start))
    connection.execute("COMMIT")
