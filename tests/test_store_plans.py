"""Watchlists, dispositions and tenants are found by indexes alone, in the file and in PostgreSQL."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from itertools import product
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from databases import migrated, postgres_store, query
from records import disposition, list_version, play, row

from app.store import sqlite_dispositions, sqlite_keeping, sqlite_lists, sqlite_trail
from app.store.postgres import link
from app.store.postgres.store import PostgresStore
from app.store.sqlite import SqliteStore
from app.store.trail import act

DONE = act("acme", "done", "cli")
TABLES = ("watchlist", "dispositions", "assessments", "rescreenings", "screened_against")


def test_the_file_is_looked_through_by_its_indexes_alone(tmp_path: Path) -> None:
    async def nothing(store: SqliteStore) -> None:
        """Only open and close."""

    play(SqliteStore(tmp_path / "records.db"), nothing)
    pages = [sqlite_dispositions.page_sql(*by) for by in product((False, True), repeat=2)]
    with closing(sqlite3.connect(tmp_path / "records.db")) as connection:
        for sql in (
            sqlite_dispositions.BY_BUSINESS,
            sqlite_dispositions._IS_SET_ASIDE,
            sqlite_dispositions._FIND,
            sqlite_dispositions._END,
            *pages,
            sqlite_keeping._BLANK_DISPOSITIONS,
            sqlite_lists._FIND_VERSION,
            sqlite_lists._PART,
            sqlite_lists._PARTS,
            sqlite_lists._TOUCH_PARTS,
            sqlite_lists._SCREENED,
            sqlite_trail.TENANTS.format("assessments"),
        ):
            plan = [step[3] for step in connection.execute(f"EXPLAIN QUERY PLAN {sql}", ["0"] * sql.count("?"))]
            read = [step for step in plan if step.startswith("SCAN") and "COVERING INDEX" not in step]
            assert set(read) <= {"SCAN t", "SCAN CONSTANT ROW"}, (sql, plan)
            assert not [step for step in plan if "TEMP B-TREE" in step], (sql, plan)
        # The whole of what is asked for narrows the index.
        for sql, narrowed in (
            (sqlite_dispositions.BY_BUSINESS, "(tenant_id=? AND business=?)"),
            (sqlite_dispositions._IS_SET_ASIDE, "business=? AND list=? AND entity_id=? AND entity_digest=?)"),
            (sqlite_dispositions._FIND, "(tenant_id=? AND id=?)"),
            (sqlite_dispositions._END, "(tenant_id=? AND id=?)"),
            (pages[1], "(tenant_id=? AND id<?)"),
            (pages[3], "(tenant_id=? AND business_id=? AND id<?)"),
            (sqlite_keeping._BLANK_DISPOSITIONS, "(tenant_id=? AND business_id=?)"),
            (sqlite_lists._PART, "(snapshot=? AND part=?)"),
            (sqlite_lists._FIND_VERSION, "(name=? AND number=?)"),
        ):
            [step] = [step[3] for step in connection.execute(f"EXPLAIN QUERY PLAN {sql}", ["0"] * sql.count("?"))]
            assert narrowed in step, (sql, step)


BUSINESSES = 200
FEW_BLOCKS = 120
"""Of 8 kB: a fraction of what these rows take."""

_FILL_DISPOSITIONS = """\
INSERT INTO dispositions
SELECT 't' || t, gen_random_uuid(), sha256(b::text::bytea), 'cust-' || b, gen_random_uuid(), 'sdn', e::text, '\\x01',
    repeat('n', 50), '/business/name', repeat('r', 200), 'k', CASE WHEN e > 3 THEN 1 END, CASE WHEN e > 3 THEN 'k' END
FROM generate_series(1, 10) t, generate_series(1, $1) b, generate_series(1, 6) e"""
_FILL_ASSESSMENTS = """\
INSERT INTO assessments (tenant_id, id, business_id, span, level, decision, score, model_sha256, input, record)
SELECT 't' || t, (substr($1::text, 1, 14) || '7' || substr(gen_random_uuid()::text, 16))::uuid, 'cust', 1, 1, 1, 1,
    '\\x01', '\\x02', repeat('r', 500)::bytea
FROM generate_series(1, 4) t, generate_series(1, 1500)"""


@pytest.mark.parametrize("mode", ["force_custom_plan", "force_generic_plan"])
def test_postgres_is_looked_through_by_its_indexes_alone(
    mode: str, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = migrated(database)
    heard: dict[str, tuple[Any, ...]] = {}

    class Heard(link.Aging):
        async def fetch(self, query: str, *args: Any, **options: Any) -> Any:
            heard[query] = args
            return await super().fetch(query, *args, **options)

    monkeypatch.setattr(link, "Aging", Heard)

    async def scenario(store: PostgresStore) -> None:
        one = row("t3")
        await store.add([one])
        await asyncio.to_thread(query, url, _FILL_DISPOSITIONS, BUSINESSES)
        await asyncio.to_thread(query, url, _FILL_ASSESSMENTS, one.id.hex()[:8] + "-" + one.id.hex()[8:12] + "-")
        version = list_version("sdn", 1, b"one")
        assert await store.put_list(version, b"one", DONE)
        assert await store.snapshot_part(version.snapshot, 0) == b"one"
        assert await store.list_version("sdn", 1) == version
        assert await store.list_number("sdn") == 1
        assert await store.rescreening("sdn") is None
        assert await store.screened_against(b"d" * 16) is None
        assert await store.tenants() == ["t1", "t2", "t3", "t4"]
        page = await store.disposition_page("t3", limit=9)
        assert len(await store.disposition_page("t3", before_id=page[3].id, limit=9)) == 9
        few = await store.disposition_page("t3", business_id=page[0].business_id, limit=9)
        assert len(await store.disposition_page("t3", business_id="cust-1", before_id=few[0].id, limit=9)) <= 6
        answers = await asyncio.gather(*[store.dispositions("t3", each.business) for each in page])
        assert {len(found) for found in answers} == {3}
        assert await store.add_disposition(disposition(one), DONE)
        ended = await store.end_disposition("t3", answers[0][0].id, ended_ms=1, ended_by="k", act=DONE)
        assert ended is not None
        assert await store.disposition("t3", ended.id) == ended
        await store.erase("t3", "cust-5", reason="asked", redact=bytes, now_ms=1)
        assert await store.disposition_page("t3", business_id="cust-5", limit=9) == []
        assert "UPDATE dispositions SET business_id" in " ".join(heard)
        assert len(heard) > 15
        connection = await asyncpg.connect(url)
        try:
            for name, value in (*link._PLANNING.items(), ("plan_cache_mode", mode)):
                await connection.execute(f"SET {name} = {value}")
            for sql, values in heard.items():
                if not any(table in sql for table in TABLES):
                    continue
                # What looks through the few versions of all lists has no need of an index.
                if " watchlist_versions v" in sql:
                    continue
                async with connection.transaction():
                    [(told,)] = await connection.fetch(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {sql}", *values)
                plan = json.loads(told)[0]["Plan"]
                for node in nodes(plan):
                    assert node["Node Type"] not in ("Seq Scan", "Sort", "Incremental Sort"), (sql, node)
                assert plan["Shared Hit Blocks"] + plan["Shared Read Blocks"] <= FEW_BLOCKS, (sql, plan)
        finally:
            await connection.close()

    play(postgres_store(url), scenario)


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for below in plan.get("Plans", ()):
        yield from nodes(below)
