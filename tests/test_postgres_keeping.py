"""What only PostgreSQL does when it forgets: whole months at once, and slices whose answer is lost on the way."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import asyncpg
import pytest
from databases import PgBouncer, Postgres, database_name, drop_database, migrated, postgres_store, query
from records import override, play, row

from app.audit.verification import verify
from app.ids import Uuid7, now_ms
from app.resilience.retry import Retry, RetryBudget
from app.store.base import Row
from app.store.keeping import GONE, Dropped
from app.store.postgres import keeping, partitions, past_months
from app.store.postgres.link import LockBusy, Lost, Slow, Timeouts
from app.store.postgres.partitions import Month
from app.store.postgres.store import PostgresStore
from app.store.trail import act

DAY_MS = 86_400_000
SIGNING_KEY = b"k" * 32
TODAY = dt.datetime.now(dt.UTC).date()
JANUARY, FEBRUARY, MARCH, APRIL = OLD = [Month(2015, number) for number in range(1, 5)]

Scenario = Callable[[PostgresStore], Awaitable[None]]


def made_in(month: Month, tenant_id: str = "acme", business_id: str | None = None) -> Row:
    return row(tenant_id, id=Uuid7(lambda: month.start_ms + 9 * DAY_MS).new(), business_id=business_id)


def run(url: str, scenario: Scenario, **options: Any) -> None:
    play(postgres_store(url, **options), scenario)


def made_partitions(url: str, *firsts: int) -> str:
    """The URL of a database, once it has the service's tables and partitions of four months from each of these."""

    async def make() -> None:
        connection = await asyncpg.connect(url)
        async with connection.transaction():
            for first_ms in firsts:
                await partitions.make(connection, first_ms, len(OLD) - 1)
        await connection.close()

    migrated(url)
    asyncio.run(make())
    return url


async def months_of(url: str) -> list[Month]:
    """The months that have a partition, without those of today."""
    connection = await asyncpg.connect(url)
    try:
        found = map(past_months.month_of, await partitions.present(connection))
        return sorted(month for month in found if month and month.year < 2020)
    finally:
        await connection.close()


@pytest.fixture
def months(database: str) -> str:
    """A database with partitions for the first months of 2015 only."""
    return made_partitions(database, JANUARY.start_ms)


def test_a_month_is_dropped_whole_when_nobody_keeps_anything_of_it(months: str) -> None:
    async def scenario(store: PostgresStore) -> None:
        kept = [made_in(FEBRUARY, "forever"), made_in(MARCH, "acme", "held"), row("acme")]
        await store.add_each(kept)
        await store.add_each([made_in(month, "acme") for month in (JANUARY, FEBRUARY, MARCH) for _ in range(40)])
        await store.add_each([made_in(JANUARY, "zeta") for _ in range(30)])
        for tenant_id in ("acme", "zeta"):
            await store.set_retention(tenant_id, 1_000)
        await store.set_relationship("acme", "held", None)
        expected = [Dropped("acme", 120), Dropped("zeta", 30)]
        assert await store.drop_past(TODAY, dry_run=True) == expected
        assert await months_of(months) == OLD
        assert await store.drop_past(TODAY) == expected
        # April was empty.
        assert await months_of(months) == [FEBRUARY, MARCH]
        assert await store.drop_past(TODAY) == []
        assert [await store.get(each.tenant_id, each.id) for each in kept] == kept
        report = await verify(store, SIGNING_KEY, store)
        assert report.faults == []
        counts = {trail.tenant_id: trail.assessments for trail in report.trails}
        assert {tenant_id: told and told.missing for tenant_id, told in counts.items()} == {
            "acme": 120,
            "forever": 0,
            "zeta": 30,
        }
        assert [len(heads) for tenant_id, heads in sorted(store.moved().items())] == [3, 1, 2]
        again = made_in(JANUARY)
        await store.add([again])
        assert await store.get("acme", again.id) == again

    run(months, scenario)


def test_a_month_that_is_not_over_is_never_dropped(database: str) -> None:
    async def scenario(store: PostgresStore) -> None:
        await store.add_each([row("acme") for _ in range(10)])
        await store.set_retention("acme", 1)
        assert await store.drop_past(TODAY + dt.timedelta(400)) == [Dropped("acme", 10)]
        assert Month.of(now_ms()).table in await asyncio.to_thread(tables)

    def tables() -> set[str]:
        return {name for (name,) in query(database, "SELECT relname FROM pg_class WHERE relispartition")}

    made_partitions(database, now_ms())
    run(database, scenario)


def test_behind_a_pooler_months_are_dropped_too(postgres: Postgres, pgbouncer: PgBouncer) -> None:
    async def scenario(store: PostgresStore) -> None:
        await store.add_each([made_in(JANUARY) for _ in range(5)])
        await store.set_retention("acme", 1_000)
        assert await store.drop_past(TODAY) == [Dropped("acme", 5)]
        assert await months_of(direct) == []

    direct = made_partitions(postgres.create_database(), JANUARY.start_ms)
    run(pgbouncer.url(direct), scenario, pooled=True)


@pytest.fixture
def guest(postgres: Postgres) -> Iterator[tuple[str, str]]:
    """The URL of a database with old months for one who owns nothing in it, and for its owner."""
    owner = made_partitions(postgres.create_database(), JANUARY.start_ms)
    name = database_name(owner)
    postgres.query("postgres", "CREATE ROLE guest LOGIN PASSWORD 'guest'")
    postgres.query(owner, "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO guest")
    yield postgres.url(name, "guest", "guest"), owner
    drop_database(postgres.admin_url(), name)
    postgres.query("postgres", "DROP ROLE guest")


def test_who_does_not_own_the_tables_deletes_the_rows(guest: tuple[str, str]) -> None:
    async def scenario(store: PostgresStore) -> None:
        await store.add_each([made_in(JANUARY) for _ in range(1_500)])
        await store.set_retention("acme", 1_000)
        assert await store.drop_past(TODAY) == [Dropped("acme", 1_500)]
        assert await months_of(guest[1]) == OLD

    run(guest[0], scenario)


def test_a_month_that_somebody_reads_is_emptied_row_by_row(months: str) -> None:
    async def scenario(store: PostgresStore) -> None:
        await store.add_each([made_in(JANUARY) for _ in range(50)])
        await store.set_retention("acme", 1_000)
        connection = await asyncpg.connect(months)
        async with connection.transaction():
            await connection.execute("SELECT FROM assessments")
            assert await store.drop_past(TODAY) == [Dropped("acme", 50)]
        assert await months_of(months) == OLD
        await connection.close()
        assert await store.drop_past(TODAY) == []
        assert await months_of(months) == []

    run(months, scenario)


@pytest.mark.parametrize("change", ["a relationship", "the retention"])
def test_settings_that_change_while_a_month_is_counted_are_heeded(
    months: str, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    async def scenario(store: PostgresStore) -> None:
        rows = [made_in(JANUARY, "acme", "b") for _ in range(20)]
        await store.add_each(rows)
        await store.set_retention("acme", 1_000)
        count = past_months._tell

        async def slow_count(*values: Any) -> int | None:
            counted = await count(*values)
            if change == "a relationship":
                await store.set_relationship("acme", "b", None)
            else:
                await store.set_retention("acme", None)
            return counted

        monkeypatch.setattr(past_months, "_tell", slow_count)
        assert await store.drop_past(TODAY) == []
        assert await store.get_each("acme", [each.id for each in rows]) == rows
        # Nor does the trail tell that anything was dropped.
        assert (await verify(store, SIGNING_KEY, store)).faults == []
        assert await store.entries("acme", act=GONE, limit=1) == []

    run(months, scenario)


def test_two_at_once_count_every_assessment_once(months: str) -> None:
    async def scenario(store: PostgresStore) -> None:
        await store.add_each([made_in(month) for month in OLD for _ in range(1_000)])
        await store.set_retention("acme", 1_000)
        other = postgres_store(months)
        await other.open()
        dropped = await asyncio.gather(store.drop_past(TODAY), other.drop_past(TODAY))
        await other.close()
        assert sum(one.assessments for each in dropped for one in each) == 4_000
        assert await store.page("acme", limit=1) == []
        assert (await verify(store, SIGNING_KEY, store)).faults == []

    run(months, scenario)


def test_the_overrides_of_a_month_are_dropped_with_it(months: str) -> None:
    async def scenario(store: PostgresStore) -> None:
        rows = [made_in(month, tenant_id) for month in (JANUARY, FEBRUARY) for tenant_id in ("acme", "zeta")]
        kept = made_in(FEBRUARY, "forever")
        await store.add_each([*rows, kept])
        decided = {each: override(each) for each in [*rows, kept]}
        for each, one in decided.items():
            assert await store.add_override(one, act(each.tenant_id, "override.created", "k"), over=None)
        for tenant_id in ("acme", "zeta"):
            await store.set_retention(tenant_id, 1_000)
        assert await store.drop_past(TODAY) == [Dropped("acme", 2), Dropped("zeta", 2)]
        assert JANUARY not in await months_of(months)
        for each in rows:
            assert await store.overrides(each.tenant_id, each.id) == []
        assert await store.overrides("forever", kept.id) == [decided[kept]]

    run(months, scenario)


@pytest.mark.parametrize("state", ["applied", "pending"])
def test_nobody_overrides_an_assessment_of_a_month_that_is_being_dropped(
    months: str, monkeypatch: pytest.MonkeyPatch, state: str
) -> None:
    async def scenario(store: PostgresStore) -> None:
        old = made_in(JANUARY)
        await store.add([old])
        await store.set_retention("acme", 1_000)
        count = past_months._tell

        async def slow_count(*values: Any) -> int | None:
            counted = await count(*values)
            with pytest.raises(LockBusy):
                await store.add_override(override(old, state=state), act("acme", "override.created", "k"), over=None)
            return counted

        monkeypatch.setattr(past_months, "_tell", slow_count)
        assert await store.drop_past(TODAY) == [Dropped("acme", 1)]
        assert await store.overrides("acme", old.id) == []

    run(months, scenario, timeouts=Timeouts())


def test_an_override_that_comes_while_its_assessment_is_deleted_leaves_with_it(
    months: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Deleted row by row.
    monkeypatch.setattr(past_months, "_MAY_DROP", "SELECT $1::text IS NULL")

    async def scenario(store: PostgresStore) -> None:
        old = made_in(JANUARY)
        await store.add([old])
        await store.set_retention("acme", 1_000)
        connection = await asyncpg.connect(months)
        await connection.execute("BEGIN; SELECT FROM assessments FOR UPDATE")
        sql = "INSERT INTO overrides SELECT tenant_id, id, id, 3, 2, 'Maria', 'k', 'pending' FROM assessments"
        await connection.execute(sql)
        dropping = asyncio.create_task(store.drop_past(TODAY))
        while not await connection.fetchval("SELECT count(*) > 0 FROM pg_locks WHERE NOT granted"):
            assert not dropping.done()
        await connection.execute("COMMIT")
        assert await dropping == [Dropped("acme", 1)]
        assert await connection.fetchval("SELECT count(*) FROM overrides") == 0
        await connection.close()

    run(months, scenario, timeouts=Timeouts(lock_s=0.5))


Sessions = Callable[..., AbstractAsyncContextManager[Any]]


def losing(sessions: Sessions) -> Sessions:
    """Every second transaction is committed, and the answer does not arrive."""
    count = 0

    @asynccontextmanager
    async def session(**options: Any) -> AsyncIterator[Any]:
        nonlocal count
        async with sessions(**options) as opened:
            yield opened
        count += 1
        if count % 2:
            raise Lost("the connection broke")

    return session


def test_what_was_committed_without_an_answer_is_counted_once(months: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeping, "ROWS_AN_ERASURE", 64)

    async def scenario(store: PostgresStore) -> None:
        rows = [row("acme", business_id="b") for _ in range(150)]
        await store.add_each([made_in(month) for month in OLD for _ in range(50)] + [made_in(JANUARY, "forever")])
        await store.add_each(rows)
        await store.set_retention("acme", 1_000)
        await store.set_relationship("acme", "b", None)
        monkeypatch.setattr(past_months, "_MAY_DROP", "SELECT $1::text IS NULL")
        monkeypatch.setattr(store._writing, "session", losing(store._writing.session))
        monkeypatch.setattr(store, "retry", Retry(RetryBudget(reserve=1_000), retry_on=(Lost,), base_s=0))
        assert await store.drop_past(TODAY) == [Dropped("acme", 200)]
        erased = await store.erase("acme", "b", reason="asked", redact=bytes, now_ms=1)
        assert erased.ids == sorted(each.id for each in rows)
        assert [note.assessments for note in await store.erasures("acme")] == [150]

    run(months, scenario)


def test_a_database_that_is_too_slow_for_a_slice_gets_smaller_ones(
    months: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits: list[int] = []

    class Sluggish(PostgresStore):
        """Takes no more than 20 assessments at a time."""

        async def _erase_slice(self, order: Any, redacted: Any, noted: Any) -> Any:
            limits.append(len(redacted))
            if len(redacted) > 20:
                raise Slow("canceling statement due to statement timeout")
            return await super()._erase_slice(order, redacted, noted)

        async def _drop_slice(self, limit: Any, past: Any, actor: str) -> int:
            limits.append(len(past))
            if len(past) > 20:
                raise Slow("canceling statement due to statement timeout")
            return await super()._drop_slice(limit, past, actor)

    async def scenario(store: PostgresStore) -> None:
        store.__class__ = Sluggish
        monkeypatch.setattr(past_months, "_MAY_DROP", "SELECT $1::text IS NULL")
        await store.add_each([made_in(JANUARY) for _ in range(100)] + [row("acme", business_id="b") for _ in range(50)])
        await store.set_retention("acme", 1_000)
        assert await store.drop_past(TODAY) == [Dropped("acme", 100)]
        assert limits[0] > 20
        limits.clear()
        erased = await store.erase("acme", "b", reason="asked", redact=bytes, now_ms=1)
        assert (erased.assessments, limits[0]) == (50, 50)
        assert [note.assessments for note in await store.erasures("acme")] == [50]

    run(months, scenario)


def test_an_erasure_waits_for_a_lock_instead_of_failing(months: str) -> None:
    async def scenario(store: PostgresStore) -> None:
        old = made_in(JANUARY, "acme", "b")
        await store.add([old])
        connection = await asyncpg.connect(months)
        await connection.execute(f"BEGIN; LOCK TABLE {JANUARY.table} IN SHARE ROW EXCLUSIVE MODE")
        erasing = asyncio.create_task(store.erase("acme", "b", reason="asked", redact=bytes, now_ms=1))
        # It asks for the lock, and again after it was refused.
        while not await connection.fetchval("SELECT count(*) > 0 FROM pg_locks WHERE NOT granted"):
            assert not erasing.done()
        while await connection.fetchval("SELECT count(*) > 0 FROM pg_locks WHERE NOT granted"):
            assert not erasing.done()
        await connection.execute("COMMIT")
        assert (await erasing).ids == [old.id]
        await connection.close()

    run(months, scenario)


def test_assessments_are_found_in_whatever_partition_they_are(months: str) -> None:
    async def scenario(store: PostgresStore) -> None:
        # Of 2013 and 2014 there are no partitions.
        everywhere = [Month(2013, 5), Month(2014, 1), Month(2014, 12), *OLD, Month.of(now_ms())]
        rows = [made_in(month, "acme", "b") for month in everywhere for _ in range(3)]
        others = [made_in(month, "acme", "c") for month in everywhere]
        await store.add_each(rows + others)
        erased = await store.erase("acme", "b", reason="asked", redact=bytes, now_ms=1)
        assert erased.ids == sorted(each.id for each in rows)
        await store.set_retention("acme", 1_000)
        past = [each for month, each in zip(everywhere, others, strict=True) if month.year < 2020]
        assert await store.drop_past(TODAY) == [Dropped("acme", len(past) * 4)]
        assert await store.get("acme", others[-1].id) == others[-1]

    run(months, scenario)


def test_partitions_are_told_by_their_name() -> None:
    for month in (JANUARY, Month(1970, 12), Month(9999, 1)):
        assert past_months.month_of(month.table) == month
    for table in ("assessments_other", "assessments_2015_13", "assessments_2015_00", "assessments_2015_01_old"):
        assert past_months.month_of(table) is None
