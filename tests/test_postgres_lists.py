"""Watchlists and dispositions in PostgreSQL behind a pooler, with a standby that lags behind, and when it does not do
its part."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import asyncpg
import pytest
from databases import PgBouncer, Postgres, migrated, postgres_store, query
from records import disposition, list_version, play, row

from app.store.lists import PART_BYTES, parts_of
from app.store.postgres.link import LockBusy, Timeouts
from app.store.postgres.schema import LISTS_LOCK
from app.store.postgres.store import PostgresStore
from app.store.trail import act

DONE = act("acme", "done", "cli")


def test_behind_a_pooler_lists_and_dispositions_are_kept(postgres: Postgres, pgbouncer: PgBouncer) -> None:
    url = migrated(postgres.create_database())
    snapshot = bytes(2 * PART_BYTES + 5)

    async def scenario(store: PostgresStore) -> None:
        for number in (1, 2, 3):
            version = list_version("sdn", number, snapshot[number:])
            assert await store.put_list(version, snapshot[number:], DONE)
        parts = [await store.snapshot_part(version.snapshot, part) or b"" for part in range(parts_of(version.size))]
        assert b"".join(parts) == snapshot[3:]
        assert await store.check_list("sdn", 3, 1, b"{}")
        namesake = disposition(row())
        assert await store.add_disposition(namesake, DONE)
        assert not await store.add_disposition(namesake, DONE)
        assert await store.dispositions("acme", namesake.business) == [namesake]
        assert await store.end_disposition("acme", namesake.id, ended_ms=1, ended_by="k", act=DONE)
        assert await store.drop_list("sdn", DONE)
        assert await store.tenants() == []

    play(postgres_store(pgbouncer.url(url), pooled=True), scenario)
    assert query(url, "SELECT count(*) FROM watchlist_parts") == [(0,)]


def test_what_a_standby_lacks_is_asked_of_the_server_that_takes_the_writes(database: str, postgres: Postgres) -> None:
    behind = postgres_store(migrated(postgres.create_database()))
    version, namesake = list_version("sdn", 1, b"one"), disposition(row())

    async def scenario(store: PostgresStore) -> None:
        await behind.open()
        store._reading, own = behind._reading, store._reading
        try:
            assert await store.put_list(version, b"one", DONE)
            await store.save_screened_against(b"d" * 16, b"[]")
            assert await store.add_disposition(namesake, DONE)
            assert await store.lists() == [version]
            assert await store.list_version("sdn", 1) == version
            assert await store.list_number("sdn") == 1
            assert await store.snapshot_part(version.snapshot, 0) == b"one"
            assert await store.screened_against(b"d" * 16) == b"[]"
            assert await store.dispositions("acme", namesake.business) == [namesake]
            assert await store.disposition("acme", namesake.id) == namesake
        finally:
            store._reading = own
            await behind.close()

    play(postgres_store(migrated(database)), scenario)


def test_a_version_waits_for_another_that_comes_into_force(database: str) -> None:
    url = migrated(database)
    version = list_version("sdn", 1, b"one")

    async def scenario(store: PostgresStore) -> None:
        holder = await asyncpg.connect(url)
        await holder.execute(f"BEGIN; SELECT pg_advisory_xact_lock({LISTS_LOCK})")
        waits = 0
        call = store._act

        async def counted(*values: Any) -> Any:
            nonlocal waits
            try:
                return await call(*values)
            except LockBusy:
                waits += 1
                if waits == 2:
                    await holder.execute("ROLLBACK")
                raise

        store._act = counted
        assert await store.put_list(version, b"one", DONE)
        assert waits == 2
        await holder.close()

    play(postgres_store(url, timeouts=Timeouts(lock_s=0.02)), scenario)


def test_a_version_is_in_force_though_what_it_replaces_cannot_be_deleted(
    database: str, caplog: pytest.LogCaptureFixture
) -> None:
    url = migrated(database)
    versions = [list_version("sdn", number, b"%d" % number) for number in (1, 2, 3, 4)]

    async def count() -> int:
        [(count,)] = await asyncio.to_thread(query, url, "SELECT count(*) FROM watchlist_parts")
        return int(count)

    async def scenario(store: PostgresStore) -> None:
        for version in versions[:2]:
            assert await store.put_list(version, b"%d" % version.number, DONE)
        refuse = "CREATE RULE stay AS ON DELETE TO watchlist_parts DO INSTEAD SELECT 1 / 0"
        await asyncio.to_thread(query, url, refuse)
        with caplog.at_level(logging.WARNING):
            assert await store.put_list(versions[2], b"3", DONE)
        assert "parts of snapshots that are not needed any more stay for now" in caplog.text
        assert await store.lists() == [versions[2]]
        assert await count() == 3
        await asyncio.to_thread(query, url, "DROP RULE stay ON watchlist_parts")
        await asyncio.to_thread(query, url, "UPDATE watchlist_parts SET created_ms = 0")
        assert await store.put_list(versions[3], b"4", DONE)
        assert await count() == 2

    play(postgres_store(url), scenario)
