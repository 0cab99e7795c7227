"""The file of the embedded store: how it is opened, made and brought up to date."""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
import time
from urllib.parse import quote

from app.store import sqlite_schema as schema
from app.store.base import StoreRefused
from app.store.lane import result_code

# PERF: benchmarks/test_service.py::test_bytes_per_record. A row of 2.3 kB takes 4.2 kB of a file with pages of 4 kB,
# 2.9 with 8 and 2.7 with 16, at the same rows a second for 8 and 16.
PAGE_BYTES = 16_384
SPAN_ROWS = 4096


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
        # What was erased or dropped is overwritten where it stood, and not only marked as free.
        connection.execute("PRAGMA secure_delete = ON")
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
    if schema.is_empty(connection):
        connection.execute(f"PRAGMA page_size = {PAGE_BYTES}")
        _enter_wal(connection, path, timeout_s)
        connection.execute("BEGIN IMMEDIATE")
        # Another process may have been faster.
        if schema.is_empty(connection):
            schema.create(connection)
        connection.execute("COMMIT")
    schema.check(connection, path)
    _enter_wal(connection, path, timeout_s)
    roll(connection)


def migrate(path: str | os.PathLike[str], timeout_s: float = 5.0) -> tuple[int, int]:
    """Bring the file to the schema of this version; the version before and after, 0 where there was no schema.

    One transaction: a process killed on the way leaves the file as it was, and of several at once one does the work.
    Idempotency keys of version 1 are dropped, for too little was kept under them to render an answer again: a request
    repeated across the migration is a new one.  timeout_s: the longest wait for another process's write.
    Raises StoreRefused.
    """
    path = os.path.abspath(path)
    make(path)
    try:
        with contextlib.closing(connect(path, timeout_s)) as connection:
            if schema.is_empty(connection):
                prepare(connection, path, timeout_s)
                return 0, schema.SCHEMA_VERSION
            # Read before the lock is asked for: a file of another program is left untouched.
            schema.known_version(connection, path)
            connection.execute("BEGIN IMMEDIATE")
            before = schema.upgrade(connection, path)
            connection.execute("COMMIT")
        with contextlib.closing(connect(path, timeout_s)) as connection:
            prepare(connection, path, timeout_s)
    except sqlite3.Error as fault:
        raise refusal(path, fault) from fault
    return before, schema.SCHEMA_VERSION


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


def refusal(path: str, fault: BaseException) -> StoreRefused:
    """What the failure of opening a file means to whoever started the service."""
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
    return StoreRefused(f"The database {path} cannot be used: {fault}.", "Check the disk it is on.")


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
    elif (last_row or 0) + 1 < first_row:
        # The newest rows were dropped, and their numbers are given again.
        connection.execute("UPDATE spans SET first_row = ? WHERE start = ?", ((last_row or 0) + 1, start))
    connection.execute("COMMIT")
