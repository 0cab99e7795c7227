"""The schema's version: what this service works on, and bringing a database there."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg

from app.store.base import StoreRefused

REVISIONS = ("0001", "0002", "0003")
"""Oldest first; the service works on the last, and on a later one that says so."""
WORKS_SINCE = "0003"
"""The oldest revision whose service works on the last as well, and so beside this one.

It grows only with what contracts: a migration that takes something away or narrows it, or a record that the services of
an earlier revision cannot read (docs/rolling.md, tests/test_expansion.py).
"""

MIGRATIONS = Path(__file__).parent / "migrations"
LOCK = 0x6B7962
"""The advisory lock under which tables and partitions are made, so that many pods may try at once."""
LISTS_LOCK = 0x6B796C
"""The one under which versions of watchlists come and go, and parts of snapshots are deleted."""

LOCK_S = 0.5
"""How long a migration waits for a table, and everybody who asks for that after it."""
PATIENCE_S = 60.0
"""For how long it is tried again."""
LOCKED = "55P03"
"""The SQLSTATE of a lock that was not free in time."""

READ_NOTE = "SELECT obj_description(to_regclass('alembic_version'), 'pg_class')"
"""The comment in which a migration leaves word for services that do not know it."""

_REMEDY = "Run `kyb migrate`."
_NOTE = "Services of schema {} and later work on this database."
_NOTED = re.compile(re.escape(_NOTE).replace(r"\{\}", "([0-9]{4})"))


def database_place(url: str) -> str:
    """Host, port and name of a database's URL: what may be shown of it."""
    parts = urlsplit(url)
    return f"{parts.netloc.rpartition('@')[2]}{parts.path}"


async def revision(connection: asyncpg.Connection) -> str | None:
    """The version of the schema, None where there is none."""
    if await connection.fetchval("SELECT to_regclass('alembic_version') IS NULL"):
        return None
    found: str | None = await connection.fetchval("SELECT version_num FROM alembic_version")
    return found


async def works_since(connection: asyncpg.Connection) -> str | None:
    """The oldest revision whose service works on this database, as its migration noted; None where it did not."""
    return noted(await connection.fetchval(READ_NOTE))


def noted(note: str | None) -> str | None:
    """The revision that a note of READ_NOTE names, None where it names none."""
    found = _NOTED.fullmatch(note or "")
    return found[1] if found else None


def check(found: str | None, place: str, since: str | None = None) -> None:
    """Raises StoreRefused for a version that this service does not work on. place: the database, to be named.

    since: what `works_since` found there.
    """
    if found == REVISIONS[-1]:
        return
    if found is None:
        raise StoreRefused(f"The database {place} has no tables of this service.", _REMEDY)
    if found in REVISIONS:
        raise StoreRefused(
            f"The database {place} has schema {found}, older than {REVISIONS[-1]} of this version of the service.",
            _REMEDY,
        )
    if since not in REVISIONS:
        raise StoreRefused(
            f"The database {place} has schema {found}, and this version of the service knows {REVISIONS[-1]} at most"
            f"{f', while services of {since} and later work there' if since else ''}.",
            "Start the version that migrated it, or a later one.",
        )


async def migrate(
    url: str, place: str, *, to: str = REVISIONS[-1], connect_s: float = 10.0, patience_s: float = PATIENCE_S
) -> tuple[str | None, str]:
    """Bring the schema to a version, in one transaction; the version before and after.

    A later one that this service works on is left as it is. Safe from many places at once: one works, the others wait
    and find it done. Safe beside services at work: a table that is in use is waited for LOCK_S at a time.
    url: of a direct connection.  patience_s: for how long it is tried.
    Raises StoreRefused for a version that this service does not work on, and what the connection raises.
    """
    # Only this command needs it, and it takes longer to import than the service to start.
    from sqlalchemy.exc import DBAPIError

    end = time.monotonic() + patience_s
    while True:
        try:
            return await _migrate(url, place, to, connect_s)
        except DBAPIError as error:
            if getattr(error.orig, "sqlstate", None) != LOCKED or time.monotonic() >= end:
                raise
        await asyncio.sleep(LOCK_S)


async def _migrate(url: str, place: str, to: str, connect_s: float) -> tuple[str | None, str]:
    from alembic.config import Config
    from alembic.runtime.environment import EnvironmentContext
    from alembic.script import ScriptDirectory
    from sqlalchemy import Connection, text
    from sqlalchemy.ext.asyncio import create_async_engine
    from sqlalchemy.pool import NullPool

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    scripts = ScriptDirectory.from_config(config)
    seen: list[str | None] = []

    def steps(current: Sequence[str], context: Any) -> Any:
        found = current[0] if current else None
        seen.append(found)
        if found is not None and found not in REVISIONS:
            check(found, place, noted(context.connection.scalar(text(READ_NOTE))))
            return []
        # Alembic's own `upgrade` command asks for the steps the same way.
        return scripts._upgrade_revs(to, tuple(current))  # type: ignore[arg-type]

    def run(connection: Connection) -> None:
        with EnvironmentContext(config, scripts, fn=steps) as environment:
            environment.configure(connection=connection, transactional_ddl=True)
            with environment.begin_transaction():
                connection.execute(text("SET LOCAL statement_timeout = 0"))
                connection.execute(text("SET LOCAL lock_timeout = 0"))
                connection.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))
                connection.execute(text(f"SELECT pg_advisory_xact_lock({LOCK})"))
                connection.execute(text(f"SET LOCAL lock_timeout = {round(LOCK_S * 1000)}"))
                environment.run_migrations()
                if to == REVISIONS[-1] and (seen[0] is None or seen[0] in REVISIONS):
                    connection.execute(text(f"COMMENT ON TABLE alembic_version IS '{_NOTE.format(WORKS_SINCE)}'"))

    async def connect(*_: Any, **__: Any) -> asyncpg.Connection:
        return await asyncpg.connect(url, timeout=connect_s, statement_cache_size=0)

    engine = create_async_engine("postgresql+asyncpg://", async_creator=connect, poolclass=NullPool)
    try:
        async with engine.connect() as connection:
            await connection.run_sync(run)
            await connection.commit()
    finally:
        await engine.dispose()
    await asyncio.sleep(0)
    before = seen[0]
    return before, before if before is not None and before not in REVISIONS else to
