"""Copying the write-ahead log back into the file, so that it can start again instead of growing."""

from __future__ import annotations

import sqlite3

from app.store.lane import Lane

LOG_PAGES_LEFT = 200


async def copy_back(writer: Lane, copier: Lane) -> None:
    """Copy the log while others write, and its end between two of the writer's batches."""
    for _ in range(3):
        if await copier.run(copy_log) < LOG_PAGES_LEFT:
            break
    # The log starts again only when all of it was copied, so the last few pages are copied between two batches.
    await writer.run(copy_log)


def copy_log(connection: sqlite3.Connection) -> int:
    """Copy the log into the file as far as that stops nobody; the pages left in it."""
    _, pages, copied = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
    return int(pages) - int(copied)


def empty_log(connection: sqlite3.Connection) -> None:
    """Copy all of the log and cut it to nothing."""
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()


def cut_log(connection: sqlite3.Connection) -> None:
    """Empty the log if nobody reads it now. Otherwise it keeps what it holds until it starts again."""
    timeout_ms = connection.execute("PRAGMA busy_timeout").fetchone()[0]
    connection.execute("PRAGMA busy_timeout = 0")
    try:
        empty_log(connection)
    finally:
        connection.execute(f"PRAGMA busy_timeout = {timeout_ms}")
