"""The trail is looked through by its indexes alone, in the file and in PostgreSQL."""

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
from records import play
from trails import FIRST_MS

from app.store import sqlite_trail
from app.store.postgres import link
from app.store.postgres.store import PostgresStore
from app.store.sqlite import SqliteStore
from app.store.trail import RECORDED, Position
from app.store.trail_search import Wanted


@pytest.fixture
def ready(database: str) -> str:
    return migrated(database)


def test_the_file_is_looked_through_by_its_indexes_alone(tmp_path: Path) -> None:
    async def nothing(store: SqliteStore) -> None:
        """Only open and close."""

    play(SqliteStore(tmp_path / "records.db"), nothing)
    values: dict[str, object] = {"tenant": "acme", "below": b"", "limit": 9}
    values |= sqlite_trail._values(Wanted("acme", False, "a", "k", b"i" * 16), *ends(), 9)
    with closing(sqlite3.connect(tmp_path / "records.db")) as connection:
        for sql in (
            *(sqlite_trail.edge_sql(*by) for by in product((False, True), repeat=2)),
            *(sqlite_trail.stretch_sql(*by) for by in product((False, True), repeat=5)),
        ):
            [step] = [step[3] for step in connection.execute(f"EXPLAIN QUERY PLAN {sql}", values)]
            assert "INDEX audit_" in step, sql
            assert "(tenant_id=? AND (at_ms,segment,number)>(?,?,?) AND (at_ms,segment,number)<(?,?,?))" in step, step
        for sql, given in (
            (sqlite_trail._SEGMENT, ("acme", b"", 0, 9)),
            (sqlite_trail._SEGMENTS, values),
            (sqlite_trail.TENANTS.format("audit_entries"), ()),
            (sqlite_trail.TENANTS.format("audit_checkpoints"), ()),
            (sqlite_trail._UNCOVERED, values),
            (sqlite_trail._CHECKPOINTS, ("acme", 0, 9)),
            (sqlite_trail._LAST, ("acme",)),
            (sqlite_trail._HEAD_NUMBER, ("acme", b"")),
        ):
            plan = [step[3] for step in connection.execute(f"EXPLAIN QUERY PLAN {sql}", given)]
            # The first of all tenants stands at the beginning of an index.
            read = [step for step in plan if step.startswith("SCAN") and "COVERING INDEX" not in step]
            assert set(read) <= {"SCAN s", "SCAN t", "SCAN audit_checkpoints", "SCAN CONSTANT ROW"}, plan
            assert not [step for step in plan if "TEMP B-TREE" in step], plan


def ends() -> tuple[Position, Position]:
    """All of time."""
    return Position(0, bytes(16), 0), Position(2**62, bytes(16), 0)


SEGMENTS = 40
SEGMENT_ENTRIES = 1_000
FEW_BLOCKS = 600
"""Of 8 kB: a fourth of what these entries take."""


@pytest.mark.parametrize("mode", ["force_custom_plan", "force_generic_plan"])
def test_the_trail_in_postgres_is_looked_through_by_its_indexes_alone(
    mode: str, ready: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: dict[str, tuple[Any, ...]] = {}

    class Heard(link.Aging):
        async def fetch(self, query: str, *args: Any, **options: Any) -> Any:
            heard[query] = args
            return await super().fetch(query, *args, **options)

    monkeypatch.setattr(link, "Aging", Heard)
    fill = f"""\
INSERT INTO audit_entries SELECT 'acme', (lpad(to_hex($1::bigint + s * 3600000::bigint), 12, '0') || '70008' ||
        lpad(to_hex(s), 15, '0'))::uuid, n, $1::bigint + s * 3600000::bigint + n * 3000,
    CASE WHEN n % 100 = 0 THEN 'key.created' ELSE '{RECORDED}' END, 'k' || n % 3, '{{}}', sha256(n::text::bytea),
    sha256(n::text::bytea), sha256(n::text::bytea)
FROM generate_series(1, $2) s, generate_series(1, $3) n"""

    async def scenario(store: PostgresStore) -> None:
        await asyncio.to_thread(query, ready, fill, FIRST_MS, SEGMENTS, SEGMENT_ENTRIES)
        [segment, *_] = await store.segments("acme")
        assert len((await store.uncovered(FIRST_MS))["acme"]) == SEGMENTS
        await store.segment("acme", segment, after=500, limit=9)
        await store.trails()
        await store.checkpoints("acme", after=0, limit=9)
        await store.last_checkpoint("acme")
        await store.head_number("acme", segment)
        for name, actor, assessment in product((None, RECORDED, "key.created"), (None, "k1"), (None, segment)):
            await store.entries("acme", act=name, actor=actor, assessment=assessment, limit=9)
        assert len(heard) > 15
        connection = await asyncpg.connect(ready)
        try:
            for name, value in (*link._PLANNING.items(), ("plan_cache_mode", mode)):
                await connection.execute(f"SET {name} = {value}")
            for sql, values in heard.items():
                if "audit_" not in sql:
                    continue
                [(told,)] = await connection.fetch(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {sql}", *values)
                plan = json.loads(told)[0]["Plan"]
                for node in nodes(plan):
                    assert node["Node Type"] not in ("Seq Scan", "Sort", "Incremental Sort"), (sql, node)
                assert plan["Shared Hit Blocks"] + plan["Shared Read Blocks"] <= FEW_BLOCKS, (sql, plan)
        finally:
            await connection.close()

    play(postgres_store(ready), scenario)


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for below in plan.get("Plans", ()):
        yield from nodes(below)
