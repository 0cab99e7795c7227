"""What only the store in PostgreSQL must stand: plans, partitions, busy keys, ageing connections."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from itertools import product
from typing import Any
from uuid import UUID

import asyncpg
import msgspec
import pytest
from databases import PATIENT, Postgres, query
from outage import claim, prepare
from records import FINGERPRINT, OTHER_FINGERPRINT, receipt, row

from app.ids import floor, now_ms
from app.resilience.breaker import Breaker
from app.resilience.retry import Retry, RetryBudget
from app.store.base import KeyBusy, KeyReused, Receipt, Row, StoreRefused, StoreUnavailable
from app.store.postgres import link, partitions, schema, statements
from app.store.postgres.partitions import Month
from app.store.postgres.store import PostgresStore

LIMIT_S = 10.0

MONTHS = 4
MONTH_ROWS = 250_000
KEYS = 100_000

FEW_BLOCKS = 2_000
"""Of 8 kB: a twentieth of what a million rows take."""


def make_store(url: str, **options: Any) -> PostgresStore:
    return PostgresStore(
        url,
        write_breaker=Breaker("writing", failures=PostgresStore.WRITE_FAILURES),
        read_breaker=Breaker("reading", failures=PostgresStore.READ_FAILURES),
        retry=Retry(RetryBudget(), retry_on=PostgresStore.RETRIED),
        **options,
    )


@asynccontextmanager
async def opened(url: str, **options: Any) -> AsyncIterator[PostgresStore]:
    store = make_store(url, **options)
    await store.open()
    try:
        yield store
    finally:
        await store.close()


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(url)
    try:
        yield connection
    finally:
        await connection.close()


@pytest.fixture
def ready(database: str) -> str:
    return prepare(database)


async def until(condition: Callable[[], Awaitable[bool]], what: str) -> None:
    """Come back as soon as the condition holds."""
    deadline = time.monotonic() + LIMIT_S
    while not await condition():
        assert time.monotonic() < deadline, f"not within {LIMIT_S:g} s: {what}"


# Plans


@pytest.fixture(scope="module")
def million(postgres: Postgres) -> str:
    """A database with a million rows in four months, of a large and a small tenant, and a hundred thousand keys."""
    first = Month.of(now_ms()).next(1 - MONTHS)
    url = prepare(postgres.create_database(), since=first)
    insert = f"""\
INSERT INTO assessments (tenant_id, id, business_id, span, level, decision, score, model_sha256, input, record)
SELECT CASE WHEN n % 10 = 0 THEN 'small' ELSE 'large' END,
    (lpad(to_hex(ms), 12, '0') || '7000' || lpad(to_hex(n), 16, '0'))::uuid,
    CASE WHEN n % 7 > 0 THEN 'cust-' || n * 7919::bigint % 50000 END,
    ms / 86400000 * 4096 + n % 4, n % 4, n % 3, n % 10000, 'm', 'i', 'r'
FROM generate_series(0, {MONTH_ROWS} - 1) n, LATERAL (SELECT $1::bigint + n * 10000::bigint AS ms) AS t"""
    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(query, url, insert, first.next(number).start_ms) for number in range(MONTHS)]:
            done.result()
    query(
        url,
        "INSERT INTO idempotency SELECT 'large', 'key-' || n, 'f', 201, 'i', 0, 1, 'a', 'r', 0, n"
        " FROM generate_series(1, $1) n",
        KEYS,
    )
    query(url, "ANALYZE")
    return url


def million_id(month: Month, number: int) -> bytes:
    return (month.start_ms + number * 10_000).to_bytes(6, "big") + b"\x70\x00" + number.to_bytes(8, "big")


def literal(value: object) -> str:
    """A parameter's value as SQL."""
    match value:
        case UUID():
            return f"'{value}'::uuid"
        case bytes():
            return f"'\\x{value.hex()}'::bytea"
        case str():
            return f"'{value}'"
        case list():
            return f"ARRAY[{', '.join(map(literal, value))}]"
    return str(value)


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for below in plan.get("Plans", ()):
        yield from nodes(below)


Call = tuple[str, tuple[Any, ...]]


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> list[Call]:
    """The statements that stores send from now on, with their values."""
    calls: list[Call] = []

    class Heard(link.Aging):
        async def fetch(self, query: str, *args: Any, **options: Any) -> Any:
            calls.append((query, args))
            return await super().fetch(query, *args, **options)

        async def execute(self, query: str, *args: Any, **options: Any) -> Any:
            calls.append((query, args))
            return await super().execute(query, *args, **options)

    monkeypatch.setattr(link, "Aging", Heard)
    return calls


async def ask_everything(store: PostgresStore) -> None:
    """Every read that callers wait for, and the deletion of old keys."""
    month = Month.of(now_ms()).next(-1)
    found = await store.get_each("large", [million_id(month, number) for number in range(1, MONTH_ROWS, 1250)])
    assert len(found) == 200
    assert all(found)
    middle = million_id(month, MONTH_ROWS // 2)
    for business_id, level, decision in product((None, "cust-7919"), (None, 2), (None, 1)):
        filters: dict[str, Any] = {"business_id": business_id, "level": level, "decision": decision}
        ends: dict[str, Any]
        for ends in ({}, {"before_id": middle}, {"since_id": middle}):
            await store.page("large", limit=51, **filters, **ends)
    await store.page("nobody", limit=51)
    one = row("large")
    assert await store.add([one], receipt("key-5000", one, fingerprint=b"f", created_ms=5000)) is not None
    await store.tidy()


@pytest.mark.parametrize("mode", ["force_custom_plan", "force_generic_plan"])
def test_the_hot_queries_read_few_pages_of_a_million_rows(mode: str, million: str, heard: list[Call]) -> None:
    async def scenario() -> None:
        async with opened(million, key_ttl_s=now_ms() / 1000 - 1) as store:
            await ask_everything(store)
        hot = [(sql, values) for sql, values in heard if re.search("FROM (assessments|idempotency)", sql)]
        kinds = {sql for sql, _ in hot}
        assert {statements.GET, statements.EDGES, statements.RECEIPTS, statements.DROP_RECEIPTS} < kinds
        assert {statements.page(*by) for by in product((False, True), repeat=3)} < kinds
        async with connected(million) as connection:
            sql = "SELECT c.relname FROM pg_class c JOIN pg_stat_user_tables t ON relid = c.oid WHERE reltuples > 1000"
            large = {name for (name,) in await connection.fetch(sql)}
            assert len(large) == MONTHS + 2
            await connection.execute(f"SET plan_cache_mode = {mode}")
            for sql, values in hot:
                plan = await explained(connection, sql, values)
                scanned = {node["Relation Name"] for node in nodes(plan) if node["Node Type"] == "Seq Scan"}
                assert not scanned & large, sql
                blocks = plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]
                assert blocks <= FEW_BLOCKS, sql

    asyncio.run(scenario())


async def explained(connection: asyncpg.Connection, sql: str, values: tuple[Any, ...]) -> dict[str, Any]:
    """The plan of a statement and what it took; what it does is undone."""
    await connection.execute(f"BEGIN; PREPARE hot AS {sql}")
    call = f"EXECUTE hot ({', '.join(map(literal, values))})"
    [(told,)] = await connection.fetch(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {call}")
    await connection.execute("ROLLBACK; DEALLOCATE hot")
    plan: dict[str, Any] = json.loads(told)[0]["Plan"]
    return plan


# Partitions


async def count_by_table(url: str) -> dict[str, int]:
    async with connected(url) as connection:
        return dict(await connection.fetch("SELECT tableoid::regclass::text, count(*) FROM assessments GROUP BY 1"))


def test_a_row_of_a_month_without_partition_is_kept_and_moved_when_there_is_one(ready: str) -> None:
    later = Month.of(now_ms()).next(5)
    ids = [later.low, floor(later.next().start_ms - 1), later.next().low]
    rows = [row(id=id, business_id=None) for id in ids]

    async def scenario() -> None:
        async with opened(ready, months_ahead=1) as store:
            await store.add_each(rows)
            assert await count_by_table(ready) == {"assessments_other": 3}
            assert await store.get_each("acme", ids) == rows
            assert await store.page("acme", limit=9) == rows[::-1]
        async with opened(ready, months_ahead=5) as store:
            await store.tidy()
            assert await count_by_table(ready) == {later.table: 2, "assessments_other": 1}
            assert await store.get_each("acme", ids) == rows
            assert await store.page("acme", limit=9) == rows[::-1]

    asyncio.run(scenario())


def test_partitions_are_made_ahead_by_many_at_once(ready: str, caplog: pytest.LogCaptureFixture) -> None:
    async def present() -> set[str]:
        async with connected(ready) as connection:
            return await partitions.present(connection)

    async def scenario() -> None:
        stores = [make_store(ready, months_ahead=9, timeouts=PATIENT) for _ in range(4)]
        try:
            await asyncio.gather(*[store.open() for store in stores])
        finally:
            for store in stores:
                await store.close()
        assert await present() == partitions.tables(now_ms(), 9) | {"assessments_other"}
        assert not [record for record in caplog.records if record.levelno >= logging.WARNING]

    asyncio.run(scenario())


def test_rows_are_recorded_while_partitions_are_made(ready: str) -> None:
    async def scenario() -> None:
        async with opened(ready, months_ahead=1) as writer:
            adding = asyncio.create_task(add_rows(writer, 300))
            async with opened(ready, months_ahead=24):
                rows = await adding
            assert await writer.get_each("acme", [one.id for one in rows]) == rows

    asyncio.run(scenario())


async def add_rows(store: PostgresStore, number: int) -> list[Row]:
    """So many, one after the other."""
    rows = [row() for _ in range(number)]
    for one in rows:
        await store.add([one])
    return rows


# Keys that are busy elsewhere


@asynccontextmanager
async def claimed(url: str, kept: Receipt) -> AsyncIterator[asyncpg.Connection]:
    """A transaction that holds the key and did not end."""
    sql, values = claim(kept)
    async with connected(url) as connection:
        await connection.execute("BEGIN")
        await connection.execute(sql, *values)
        yield connection


async def waits_for_lock(url: str) -> bool:
    async with connected(url) as connection:
        sql = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        return bool(await connection.fetch(sql))


def test_a_busy_key_is_told_and_does_not_hold_up_its_neighbours(ready: str) -> None:
    mine, plain, keyed, theirs = row(), row(), row(), row()

    async def scenario() -> None:
        async with opened(ready) as store, claimed(ready, receipt("k", theirs)) as holder:
            answers = await asyncio.gather(
                store.add([mine], receipt("k", mine)),
                store.add([plain]),
                store.add([keyed], receipt("l", keyed)),
                return_exceptions=True,
            )
            assert isinstance(answers[0], KeyBusy), answers
            assert answers[1:] == [None, None]
            assert await store.get_each("acme", [mine.id, plain.id, keyed.id]) == [None, plain, keyed]
            await holder.execute("ROLLBACK")
            assert await store.add([mine], receipt("k", mine)) is None
            assert await store.get("acme", mine.id) == mine

    asyncio.run(scenario())


@pytest.mark.parametrize("fingerprint", [FINGERPRINT, OTHER_FINGERPRINT])
def test_a_key_that_is_recorded_elsewhere_meanwhile_answers_so(fingerprint: bytes, ready: str) -> None:
    mine, theirs = row(), row()
    kept = receipt("k", theirs)
    wanted = receipt("k", mine, fingerprint=fingerprint)

    async def add(store: PostgresStore) -> Receipt | KeyReused | None:
        try:
            return await store.add([mine], wanted)
        except KeyReused as reused:
            return reused

    async def scenario() -> None:
        # Long enough that it is still waited for when the other has ended.
        async with opened(ready, key_wait_s=LIMIT_S) as store, claimed(ready, kept) as holder:
            adding = asyncio.create_task(add(store))
            await until(lambda: waits_for_lock(ready), "the store waits for the key in the database")
            await until(lambda: polls(store), "the store gave that up and looks for the key")
            assert not adding.done()
            await holder.execute("COMMIT")
            for answer in (await adding, await add(store)):
                if fingerprint == FINGERPRINT:
                    assert answer == kept
                else:
                    assert isinstance(answer, KeyReused)
            assert await store.get("acme", mine.id) is None

    asyncio.run(scenario())


async def polls(store: PostgresStore) -> bool:
    await asyncio.sleep(0)
    return store.polls.batches > 0


def test_many_who_want_a_busy_key_do_not_hold_up_their_neighbours(ready: str) -> None:
    same = [row() for _ in range(200)]
    others = [row() for _ in range(200)]

    async def scenario() -> None:
        async with opened(ready) as store, claimed(ready, receipt("k", row())):
            started = time.monotonic()
            busy = asyncio.gather(*[store.add([one], receipt("k", one)) for one in same], return_exceptions=True)
            free = await asyncio.gather(
                *[store.add([one], receipt(f"l{number}", one)) for number, one in enumerate(others)],
                return_exceptions=True,
            )
            took_s = time.monotonic() - started
            assert free == [None] * len(others)
            assert all(isinstance(answer, KeyBusy) for answer in await busy)
            assert took_s < 0.9, f"the neighbours waited {took_s:.3f} s"

    asyncio.run(scenario())


def test_a_table_that_is_locked_is_told_as_that_and_soon(ready: str) -> None:
    plain, keyed = row(), row()
    month = Month.of(now_ms())

    async def scenario() -> None:
        async with opened(ready, key_wait_s=LIMIT_S) as store, connected(ready) as holder:
            await store.tidy()
            for table in (month.table, "idempotency"):
                await holder.execute(f"BEGIN; LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
                calls = [store.add([keyed], receipt("k", keyed)), store.add([plain])]
                async with asyncio.timeout(1.0):
                    answers = await asyncio.gather(*calls, return_exceptions=True)
                assert isinstance(answers[0], StoreUnavailable), answers
                if table == month.table:
                    assert isinstance(answers[1], StoreUnavailable), answers
                await holder.execute("ROLLBACK")
            assert await store.add([keyed], receipt("k", keyed)) is None
            assert await store.add([plain]) is None

    asyncio.run(scenario())


def test_keys_claimed_in_opposite_order_do_not_wait_for_each_other_in_a_circle(ready: str) -> None:
    rounds, keys = 40, [f"k{number}" for number in range(20)]

    async def claim(store: PostgresStore, round: int, order: list[str]) -> list[Receipt | None]:
        rows = [row() for _ in order]
        calls = [store.add([one], receipt(f"{round}-{key}", one)) for one, key in zip(rows, order, strict=True)]
        return await asyncio.gather(*calls)

    async def scenario() -> None:
        async with opened(ready, timeouts=PATIENT) as one, opened(ready, timeouts=PATIENT) as other:
            for number in range(rounds):
                answers = await asyncio.gather(claim(one, number, keys), claim(other, number, keys[::-1]))
                for mine, theirs in zip(answers[0], answers[1][::-1], strict=True):
                    assert (mine is None) != (theirs is None)
            assert len(await one.page("acme", limit=9_999)) == rounds * len(keys)
        async with connected(ready) as connection:
            sql = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
            assert await connection.fetchval(sql) == 0

    asyncio.run(scenario())


# Connections


def test_connections_are_made_anew_when_their_time_is_over_without_an_error(ready: str) -> None:
    seen: set[int] = set()

    async def look(store: PostgresStore) -> None:
        while len(seen) < 20:
            one = row()
            await store.add([one])
            assert await asyncio.gather(*[store.get("acme", one.id), store.page("acme", limit=1)]) == [one, [one]]

    async def watch() -> None:
        async with connected(ready) as connection:
            while len(seen) < 20:
                found = await connection.fetch(
                    "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'kyb'"
                )
                assert len(found) <= 4
                seen.update(pid for (pid,) in found)

    async def scenario() -> None:
        async with opened(ready, connections=4, idle=4, lifetime_s=0.2) as store, asyncio.timeout(LIMIT_S):
            await asyncio.gather(look(store), watch())

    asyncio.run(scenario())


def test_reads_that_are_given_up_give_their_connection_back(ready: str) -> None:
    one = row()

    async def scenario() -> None:
        async with opened(ready, connections=2, timeouts=PATIENT) as store, connected(ready) as holder:
            await store.add([one])
            for _ in range(3):
                await holder.execute(f"BEGIN; LOCK TABLE {Month.of(now_ms()).table} IN ACCESS EXCLUSIVE MODE")
                reading = asyncio.create_task(store.page("acme", limit=1))
                await until(lambda: waits_for_lock(ready), "the read waits for the lock")
                reading.cancel()
                await asyncio.wait((reading,))
                await holder.execute("ROLLBACK")
                async with asyncio.timeout(1.0):
                    assert await store.page("acme", limit=1) == [one]

    asyncio.run(scenario())


def test_a_read_for_which_no_connection_is_free_is_told_so_soon(ready: str) -> None:
    one = row()
    timeouts = msgspec.structs.replace(PATIENT, acquire_s=0.1)

    async def scenario() -> None:
        async with opened(ready, connections=2, timeouts=timeouts) as store, connected(ready) as holder:
            await store.add([one])
            await holder.execute(f"BEGIN; LOCK TABLE {Month.of(now_ms()).table} IN ACCESS EXCLUSIVE MODE")
            reading = asyncio.create_task(store.page("acme", limit=1))
            await until(lambda: waits_for_lock(ready), "the read waits for the lock")
            async with asyncio.timeout(1.0):
                with pytest.raises(StoreUnavailable, match="all 1 connections to the database are busy"):
                    await store.page("acme", limit=1)
            await holder.execute("ROLLBACK")
            assert await reading == [one]

    asyncio.run(scenario())


# What is refused


@pytest.mark.parametrize(("found", "said"), [(None, "kyb migrate"), ("0001", "kyb migrate"), ("0003", "later one")])
def test_a_schema_of_another_version_is_refused_with_what_to_do(
    found: str | None, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schema, "REVISIONS", ("0001", "0002"))
    with pytest.raises(StoreRefused) as refused:
        schema.check(found, "db:5432/kyb")
    assert said in refused.value.remedy
    assert "db:5432/kyb" in refused.value.fault
    schema.check("0002", "db:5432/kyb")
