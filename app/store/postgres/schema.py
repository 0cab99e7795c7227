"""The schema's version: what this service works on, and bringing a database there."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg

from app.store.base import StoreRefused

REVISIONS = ("0001", "0002", "0003")
"""Oldest first; the service works on the last alone."""

MIGRATIONS = Path(__file__).parent / "migrations"
LOCK = 0x6B7962
"""The advisory lock under which tables and partitions are made, so that many pods may try at once."""
LISTS_LOCK = 0x6B796C
"""The one under which versions of watchlists come and go, and parts of snapshots are deleted."""

_REMEDY = "Run `kyb migrate`."


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


def check(found: str | None, place: str) -> None:
    """Raises StoreRefused for every version but the one this service works on. place: the database, to be named."""
    if found == REVISIONS[-1]:
        return
    if found is None:
        raise StoreRefused(f"The database {place} has no tables of this service.", _REMEDY)
    if found in REVISIONS:
        raise StoreRefused(
            f"The database {place} has schema {found}, older than {REVISIONS[-1]} of this version of the service.",
            _REMEDY,
        )
    raise StoreRefused(
        f"The database {place} has schema {found}, and this version of the service knows {REVISIONS[-1]} at most.",
        "Start the version that migrated it, or a later one.",
    )


async def migrate(url: str, place: str, *, connect_s: float = 10.0) -> tuple[str | None, str]:
    """Bring the schema to the newest version, in one transaction; the version before and after.

    Safe from many places at once: one works, the others wait and find it done. url: of a direct connection.
    Raises StoreRefused for a version that is newer than all known here, and what the connection raises.
    """
    # Only this command needs them, and they take longer to import than the service to start.
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

    def steps(current: Sequence[str], _: Any) -> Any:
        seen.append(current[0] if current else None)
        if seen[-1] is not None and seen[-1] not in REVISIONS:
            check(seen[-1], place)
        # Alembic's own `upgrade` command asks for the steps the same way.
        return scripts._upgrade_revs("head", tuple(current))  # type: ignore[arg-type]

    def run(connection: Connection) -> None:
        with EnvironmentContext(config, scripts, fn=steps) as environment:
            environment.configure(connection=connection, transactional_ddl=True)
            with environment.begin_transaction():
                connection.execute(text("SET LOCAL statement_timeout = 0"))
                connection.execute(text("SET LOCAL lock_timeout = 0"))
                connection.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))
                connection.execute(text(f"SELECT pg_advisory_xact_lock({LOCK})"))
                environment.run_migrations()

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
    return seen[0], REVISIONS[-1]
