"""A database of an earlier schema is brought up to date, with all that it holds."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import asyncpg
import msgspec
import pytest
from asyncpg.pgproto.pgproto import UUID
from databases import migrated, postgres_store, query
from msgspec.structs import replace
from outage import transaction
from records import disposition, list_version, override, play, row, stored_key
from sqlalchemy.exc import DBAPIError

from app.ids import Uuid7, now_ms
from app.store.base import Row, StoreRefused
from app.store.chain import leaf
from app.store.postgres import partitions, schema
from app.store.postgres.migrations.versions import v0001_initial, v0002_edge
from app.store.postgres.partitions import Month
from app.store.postgres.spans import span_of_day
from app.store.postgres.store import PostgresStore
from app.store.trail import act

DAY_MS = 86_400_000
MARCH, MAY = Month(2015, 3), Month(2015, 5)
DECIDED = act("acme", "override.created", "k")


ADD_0001 = """\
INSERT INTO assessments (tenant_id, id, business_id, span, level, decision, score, model_sha256, input, record)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)"""


def made_in(month: Month, **fields: object) -> Row:
    return row(id=Uuid7(lambda: month.start_ms + 9 * DAY_MS).new(), **fields)


def make_0001(url: str, rows: list[Row]) -> None:
    """Make the first schema as it was migrated to, with a partition of March 2015 and of this month, and the rows."""

    async def make() -> None:
        connection = await asyncpg.connect(url)
        async with connection.transaction():
            await connection.execute(v0001_initial._TABLES)
            await connection.execute(
                "CREATE TABLE alembic_version (version_num varchar(32) CONSTRAINT alembic_version_pkc PRIMARY KEY)"
            )
            await connection.execute("INSERT INTO alembic_version VALUES ('0001')")
            await partitions.make(connection, MARCH.start_ms, 0)
            await partitions.make(connection, now_ms(), 0)
            await connection.executemany(ADD_0001, [values(each) for each in rows])
        await connection.close()

    asyncio.run(make())


def make_0002(url: str, rows: list[Row]) -> None:
    """Make the second schema as the first was migrated to it, with the rows."""
    make_0001(url, rows)

    async def make() -> None:
        connection = await asyncpg.connect(url)
        async with connection.transaction():
            await connection.execute(v0002_edge._TABLES)
            await connection.execute("UPDATE alembic_version SET version_num = '0002'")
        await connection.close()

    asyncio.run(make())


def values(row: Row) -> list[Any]:
    return [
        *(row.tenant_id, UUID(row.id), row.business_id, span_of_day(row.id), row.level, row.decision, row.score),
        *(row.model_sha256, row.input, row.record),
    ]


def columns(url: str) -> dict[str, list[str]]:
    """By table, the columns of the assessments and of each partition, in order."""
    sql = """\
SELECT c.relname, array_agg(a.attname || ' ' || format_type(a.atttypid, a.atttypmod) ORDER BY a.attnum)
FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE c.relname LIKE 'assessments%' AND c.relkind IN ('r', 'p') GROUP BY c.relname"""
    return dict(query(url, sql))


def test_a_database_of_the_first_version_keeps_what_it_holds(database: str) -> None:
    everywhere = [made_in(MARCH), made_in(MAY, business_id=None), row()]
    make_0001(database, everywhere)
    place = schema.database_place(database)
    assert asyncio.run(schema.migrate(database, place)) == ("0001", schema.REVISIONS[-1])
    assert asyncio.run(schema.migrate(database, place)) == (schema.REVISIONS[-1], schema.REVISIONS[-1])

    async def scenario(store: PostgresStore) -> None:
        assert await store.page("acme", limit=9) == everywhere[::-1]
        for each in everywhere:
            decided = override(each)
            assert await store.add_override(decided, DECIDED, over=None)
            now = replace(each, level=3, decision=2, override_id=decided.id, original_level=1, original_decision=1)
            assert await store.get("acme", each.id) == now
            assert now in await store.page("acme", level=3, limit=9)
        await store.erase("acme", "cust-1", reason="asked", redact=bytes, now_ms=1)
        for each in (everywhere[0], everywhere[2]):
            erased = await store.get("acme", each.id)
            assert erased is not None
            assert (erased.input, erased.leaf) == (None, leaf(each))

    play(postgres_store(database), scenario)


def test_a_database_of_the_second_version_keeps_what_it_holds(
    database: str, postgres: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = row()
    make_0002(database, [one])
    kept, decided = stored_key(), override(one)
    # A key of that version replaces none.
    *held, _ = msgspec.structs.astuple(kept)
    places = ", ".join(f"${place}" for place in range(1, len(held) + 1))
    query(database, f"INSERT INTO api_keys VALUES ({places})", *held)

    async def before(store: PostgresStore) -> None:
        assert await store.add_override(decided, DECIDED, over=None)

    with monkeypatch.context() as earlier:
        earlier.setattr(schema, "REVISIONS", ("0001", "0002"))
        play(postgres_store(database), before)
    with pytest.raises(StoreRefused, match="has schema 0002, older than 0003"):
        play(postgres_store(database), before)
    place = schema.database_place(database)
    assert asyncio.run(schema.migrate(database, place)) == ("0002", schema.REVISIONS[-1])

    async def after(store: PostgresStore) -> None:
        assert await store.keys(None) == [kept]
        assert await store.overrides("acme", one.id) == [decided]
        assert [entry.act for entry in await store.entries("acme", limit=9)] == [DECIDED.name]
        version, namesake = list_version("sdn", 1, b"one"), disposition(one)
        assert await store.put_list(version, b"one", DECIDED)
        assert await store.lists() == [version]
        assert await store.add_disposition(namesake, DECIDED)
        assert (await store.erase("acme", "cust-1", reason="asked", redact=bytes, now_ms=1)).ids == [one.id]
        assert await store.dispositions("acme", namesake.business) == []

    play(postgres_store(database), after)


def test_a_migration_that_finds_a_table_held_changes_nothing(database: str) -> None:
    make_0002(database, [])
    place = schema.database_place(database)
    with transaction(database) as execute:
        execute("LOCK TABLE api_keys IN ACCESS SHARE MODE")
        with pytest.raises(DBAPIError) as refused:
            asyncio.run(schema.migrate(database, place, patience_s=0.0))
        assert isinstance(refused.value.orig, Exception)
        assert getattr(refused.value.orig, "sqlstate", None) == schema.LOCKED
        assert query(database, "SELECT version_num FROM alembic_version")[0]["version_num"] == "0002"
        assert query(database, "SELECT to_regclass('watchlists') IS NULL AS is_not_there")[0]["is_not_there"]
    assert asyncio.run(schema.migrate(database, place)) == ("0002", schema.REVISIONS[-1])


@pytest.mark.parametrize("make", [make_0001, make_0002])
def test_a_migrated_database_is_as_a_fresh_one(
    database: str, postgres: Any, make: Callable[[str, list[Row]], None]
) -> None:
    make(database, [])
    migrated(database)
    fresh = migrated(postgres.create_database())
    sql = """\
SELECT table_name, column_name, data_type, is_nullable FROM information_schema.columns
WHERE table_schema = 'public' AND table_name !~ '_[0-9]{4}_' ORDER BY 1, ordinal_position"""
    assert query(database, sql) == query(fresh, sql)
    sql = "SELECT indexdef FROM pg_indexes WHERE schemaname = 'public' AND tablename !~ '_[0-9]{4}_' ORDER BY 1"
    assert query(database, sql) == query(fresh, sql)


def test_partitions_from_before_and_after_have_the_same_columns(database: str) -> None:
    make_0001(database, [])
    migrated(database)

    async def make() -> None:
        connection = await asyncpg.connect(database)
        async with connection.transaction():
            await partitions.make(connection, MAY.start_ms, 2)
        await connection.close()

    asyncio.run(make())
    found = columns(database)
    assert {MARCH.table, MAY.table, "assessments_other", Month.of(now_ms()).table} < set(found)
    assert {name: each for name, each in found.items() if each != found["assessments"]} == {}
    assert found["assessments"][-4:] == [
        "override_id uuid",
        "original_level smallint",
        "original_decision smallint",
        "leaf bytea",
    ]


def test_what_was_decided_and_erased_is_moved_into_a_new_partition_with_its_row(database: str) -> None:
    early = [made_in(MAY), made_in(MAY, business_id="gone")]
    make_0001(database, early)
    migrated(database)

    async def scenario(store: PostgresStore) -> None:
        for each in early:
            assert await store.add_override(override(each), DECIDED, over=None)
        await store.erase("acme", "gone", reason="asked", redact=bytes, now_ms=1)
        before = await store.get_each("acme", [each.id for each in early])
        assert [each and each.leaf for each in before] == [None, leaf(early[1])]
        connection = await asyncpg.connect(database)
        async with connection.transaction():
            assert await partitions.make(connection, MAY.start_ms, 0) == [MAY.table]
        assert await connection.fetchval("SELECT count(*) FROM assessments_other") == 0
        await connection.close()
        assert await store.get_each("acme", [each.id for each in early]) == before
        for each in early:
            [decided] = await store.overrides("acme", each.id)
            assert await store.add_override(override(each, level=0), DECIDED, over=decided.id)
        assert [each.level for each in await store.page("acme", limit=9)] == [0, 0]

    play(postgres_store(database), scenario)
