"""`kyb migrate`: the database as this version of the service needs it."""

from __future__ import annotations

import asyncio

import asyncpg

from app import ids
from app.cli import setup
from app.cli.exits import CONFIG_REFUSED, FAILED, Stopped
from app.cli.output import Output
from app.settings.tree import Database
from app.store.base import StoreRefused
from app.store.postgres import partitions, schema
from app.store.postgres.link import CONNECTING_FAILS
from app.store.postgres.refusals import refusal
from app.store.sqlite_file import migrate as migrate_file

CONNECT_S = 10.0
PARTITIONS_PATIENCE_S = 60.0


def migrate(config: str | None) -> None:
    """Bring the database to the schema of this version, and make the partitions of the coming months."""
    database = setup.settings(config, {}).settings.database
    try:
        done = asyncio.run(_migrate_server(database)) if database.is_postgres else _migrate_file(database)
    except StoreRefused as refused:
        raise Stopped(str(refused), FAILED) from None
    with Output() as out:
        out.write(f"{done}\n")


async def _migrate_server(database: Database) -> str:
    url = database.direct_url or database.url
    assert url is not None
    if database.pooler != "none" and database.direct_url is None:
        raise Stopped(
            "migrations need a direct connection to PostgreSQL, and DATABASE_URL leads to PgBouncer: "
            "give the address of the server itself in DATABASE_DIRECT_URL",
            CONFIG_REFUSED,
        )
    from sqlalchemy.exc import SQLAlchemyError

    place = schema.database_place(url)
    try:
        before, after = await schema.migrate(url, place, connect_s=CONNECT_S)
        made = await _make_partitions(url, database.partitions_ahead)
    except (SQLAlchemyError, *CONNECTING_FAILS) as error:
        setting = "DATABASE_DIRECT_URL" if database.direct_url else "DATABASE_URL"
        raise refusal(_database_fault(error), place, setting=setting) from None
    steps = [] if before == after else [f"schema {before or 'none'} → {after}"]
    if made:
        steps.append(f"made the partitions {', '.join(made)}")
    later = "" if after == schema.REVISIONS[-1] else f", later than {schema.REVISIONS[-1]} of this version"
    return f"{place}: {', '.join(steps) or f'up to date (schema {after}{later})'}"


async def _make_partitions(url: str, ahead: int) -> list[str]:
    """Make what lacks of the partitions; their names. What is in the way is waited for, in short waits."""
    connection = await asyncpg.connect(url, timeout=CONNECT_S, statement_cache_size=0)
    try:
        loop = asyncio.get_running_loop()
        end = loop.time() + PARTITIONS_PATIENCE_S
        while True:
            try:
                async with connection.transaction():
                    # Whoever asks for the assessments after this one waits as long as it does.
                    await connection.execute("SET LOCAL lock_timeout = 500; SET LOCAL statement_timeout = 0")
                    return await partitions.make(connection, ids.now_ms(), ahead)
            except (asyncpg.LockNotAvailableError, asyncpg.CheckViolationError):
                # Held by somebody, or a row that belongs into a new partition came at the same moment.
                if loop.time() >= end:
                    raise
            await asyncio.sleep(0.5)
    finally:
        await connection.close(timeout=CONNECT_S)


def _database_fault(error: BaseException) -> BaseException:
    """What the database itself said, without the layers around it."""
    while not isinstance(error, asyncpg.PostgresError) and error.__cause__ is not None:
        error = error.__cause__
    return error


def _migrate_file(database: Database) -> str:
    path = database.sqlite_file
    path.parent.mkdir(parents=True, exist_ok=True)
    before, after = migrate_file(path, database.busy_timeout)
    if before == after:
        return f"{path}: up to date (schema {after})"
    forgotten = "; the Idempotency-Keys used so far are forgotten" if before == 1 else ""
    return f"{path}: schema {before or 'none'} → {after}{forgotten}"
