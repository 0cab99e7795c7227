"""What a command that works on the records needs: the store opened, with as little of its budget as will do."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeVar

import msgspec

from app.audit.anchors import anchor_of
from app.audit.checkpoints import Checkpoints
from app.cli.exits import FAILED, UNREADABLE, Stopped
from app.neighbours import make_store
from app.secrets import SecretsMissing, secrets_of
from app.settings import Settings
from app.settings.budget import DATABASE_LEAST, KEPT_BACK, REDIS_LEAST
from app.store.base import StoreRefused, StoreUnavailable, opened
from app.store.postgres.store import PostgresStore
from app.store.sqlite import SqliteStore
from app.store.trail import Checkpoint

Answer = TypeVar("Answer")
Kept = SqliteStore | PostgresStore


def with_store(settings: Settings, work: Callable[[Kept], Awaitable[Answer]]) -> Answer:
    """What `work` makes of the opened store. Raises Stopped where the database does not do its part."""
    database = settings.database
    if not database.is_postgres and not database.sqlite_file.exists():
        raise Stopped(
            f"there is no database {database.sqlite_file}; name its folder in DATA_DIR, or make it with `kyb migrate`",
            FAILED,
        )

    async def run() -> Answer:
        async with opened(make_store(frugal(settings))) as store:
            return await work(store)

    try:
        return asyncio.run(run())
    except StoreRefused as refused:
        raise Stopped(str(refused), FAILED) from None
    except StoreUnavailable as unavailable:
        raise Stopped(f"{unavailable}; repeat the command, it goes on where this one ended", FAILED) from None


async def cover(settings: Settings, store: Kept, signing_key: bytes) -> None:
    """Have what a command did under a signed checkpoint before it ends."""
    beside = anchor_of(settings)
    if beside is not None:
        beside.make_folder()
    await Checkpoints(store, signing_key, 0, _elsewhere if beside is None else beside).cover()


async def cover_if_keyed(settings: Settings, store: Kept) -> None:
    """The same for a command that does without the signing key: where it is not told the key, a running service covers
    what the command entered, within five minutes."""
    with suppress(SecretsMissing):
        await cover(settings, store, secrets_of(settings).audit_signing)


def _elsewhere(_: Checkpoint) -> None:
    """With PostgreSQL, where no file is named, the running services keep anchors, in their logs."""


def frugal(settings: Settings) -> Settings:
    """The settings, with as many connections as one command needs: of those that no worker gets."""
    replace = msgspec.structs.replace
    return replace(
        settings,
        server=replace(settings.server, workers=1),
        scaling=replace(settings.scaling, min_replicas=1, max_replicas=None),
        database=replace(settings.database, max_connections=KEPT_BACK + DATABASE_LEAST, min_connections=0),
        redis=replace(settings.redis, pool_size=REDIS_LEAST, min_idle_conns=0),
    )


def database_text(name: str, value: str) -> str:
    """A text that a database can hold. Raises Stopped."""
    if not value.strip():
        raise Stopped(f"{name} is empty", UNREADABLE)
    try:
        value.encode()
    except UnicodeEncodeError:
        raise Stopped(f"{name} is not text in UTF-8", UNREADABLE) from None
    return value
