"""The embedded database: the file, its log, its schema, whether it is sound, and who keeps it locked."""

from __future__ import annotations

import os
import shutil
import sqlite3
import time
from contextlib import closing
from pathlib import Path

from app.doctor.findings import Finding, bytes_text, judged, ok, refused, share_text, time_text, wrong
from app.doctor.process import holders
from app.settings import Settings
from app.store import sqlite_schema as schema
from app.store.base import StoreRefused
from app.store.sqlite_file import connect, refusal

CHECK_S = 5.0
CHECK_STEPS = 20_000
"""Steps of SQLite's machine between two looks at the clock."""
WAL_BYTES = (256 << 20, 2 << 30)
"""The service copies its log into the file long before; what is larger than this is held back by a reader."""
FREE_BYTES = 64 << 20
FREE_SHARE = 0.5
DISK_BYTES = (1 << 30, 128 << 20)

WAL_WRITE_BYTE = 120
"""The byte of the -shm file that a writer locks. Source: SQLite, walformat.html, section 2.3.2."""


def examined(settings: Settings) -> list[Finding]:
    """All findings."""
    path = settings.database.sqlite_file
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "is not there"
        return [wrong("file", f"{path} {what}", "Name its folder in DATA_DIR, or make it with `kyb migrate`.")]
    findings = [_file(path), _disk(path)]
    try:
        with closing(connect(str(path), settings.database.busy_timeout, reading=True)) as connection:
            for ask in (_journal, _schema, _pages, _check):
                findings += ask(connection, path)
        findings.append(_lock(path, settings.database.busy_timeout))
    except sqlite3.Error as fault:
        findings.append(refused("file", refusal(str(path), fault)))
    except StoreRefused as refusal_:
        findings.append(refused("schema", refusal_))
    return findings


def _file(path: Path) -> Finding:
    size = path.stat().st_size
    return ok("file", f"{path}, {bytes_text(size)}", bytes=size)


def _disk(path: Path) -> Finding:
    free = shutil.disk_usage(path.parent).free
    look_at, wrong_at = DISK_BYTES
    return judged(
        "disk",
        "wrong" if free < wrong_at else "look" if free < look_at else "ok",
        f"{bytes_text(free)} free where it stands",
        "Free some: a full disk refuses every record.",
        free_bytes=free,
    )


def _journal(connection: sqlite3.Connection, path: Path) -> list[Finding]:
    mode = connection.execute("PRAGMA journal_mode").fetchone()[0]
    if mode != "wal":
        return [wrong("journal", f"{mode}, where the service needs a write-ahead log", "Run `kyb migrate`.", mode=mode)]
    log = path.with_name(f"{path.name}-wal")
    size = log.stat().st_size if log.exists() else 0
    look_at, wrong_at = WAL_BYTES
    return [
        judged(
            "journal",
            "wrong" if size >= wrong_at else "look" if size >= look_at else "ok",
            f"write-ahead log, {bytes_text(size)}",
            "Look for a program that reads for long: while it does, the log only grows.",
            mode=mode,
            wal_bytes=size,
        )
    ]


def _schema(connection: sqlite3.Connection, path: Path) -> list[Finding]:
    if schema.is_empty(connection):
        return [wrong("schema", "there are no tables", "Run `kyb migrate`.")]
    schema.check(connection, str(path))
    return [
        ok("schema", f"{schema.SCHEMA_VERSION}, as this version of the service needs it", found=schema.SCHEMA_VERSION)
    ]


def _pages(connection: sqlite3.Connection, path: Path) -> list[Finding]:
    size, count, free = (
        connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_size", "page_count", "freelist_count")
    )
    return [
        judged(
            "pages",
            "look" if free * size >= FREE_BYTES and free >= FREE_SHARE * count else "ok",
            f"{count:,} of {bytes_text(size)}, {free:,} of them free ({share_text(free, count)})",
            "New records fill them again; to give the space back, stop the service and VACUUM the file.",
            page_bytes=size,
            pages=count,
            free=free,
        )
    ]


def _check(connection: sqlite3.Connection, path: Path) -> list[Finding]:
    end = time.monotonic() + CHECK_S
    connection.set_progress_handler(lambda: time.monotonic() > end, CHECK_STEPS)
    try:
        faults = [row[0] for row in connection.execute("PRAGMA quick_check(3)")]
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode != sqlite3.SQLITE_INTERRUPT:
            raise
        seen = f"no fault in {time_text(CHECK_S)}, in which not all of it could be looked at"
        return [ok("check", seen, complete=False)]
    finally:
        connection.set_progress_handler(None, 0)
    if faults == ["ok"]:
        return [ok("check", "its pages are sound", complete=True)]
    # Its words name pages and cells, never what stands in them.
    return [
        wrong(
            "check",
            f"the file is damaged: {'; '.join(' '.join(fault.split()) for fault in faults)}",
            "Stop the service and restore the file from a backup, or save what is left with sqlite3 .recover.",
        )
    ]


def _lock(path: Path, timeout_s: float) -> Finding:
    began = time.monotonic()
    try:
        with closing(connect(str(path), timeout_s)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("ROLLBACK")
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
            raise
        held_by = _holders(path)
        return wrong(
            "lock",
            f"another process keeps it locked for longer than {time_text(timeout_s)}"
            + (f": {', '.join(held_by)}" if held_by else ""),
            "Look what that process does, and end it where it hangs.",
            holders=held_by,
        )
    waited_s = time.monotonic() - began
    return judged(
        "lock",
        "look" if waited_s >= timeout_s / 2 else "ok",
        f"a writer waits {time_text(waited_s)} for it",
        "Look for other programs that write it.",
        waited_s=waited_s,
    )


def _holders(path: Path) -> list[str]:
    """The processes that may write now, as far as the kernel says."""
    shared = path.with_name(f"{path.name}-shm")
    try:
        return holders(os.stat(shared).st_ino, WAL_WRITE_BYTE)
    except OSError:
        return []
