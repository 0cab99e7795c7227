"""`kyb doctor db` against PostgreSQL with something wrong in it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest
from databases import PASSWORD, USER, PgBouncer, Postgres, database_name, migrated, query
from doctored import Found, about, examined, run, within
from proxy import HOST
from service import free_port

from app.doctor import postgres as examination
from app.doctor.findings import Finding
from app.settings import load
from app.store.postgres import schema

NAME = "Maria Musterfrau"
"""Of a person; it must never be shown."""

FAST_S = 15.0
"""The command with the start of its process, on a busy machine."""


@pytest.fixture
def settings(database: str) -> dict[str, str]:
    """Of a database that has everything the service needs."""
    run_migrate(database)
    return {"DATABASE_URL": database}


def run_migrate(url: str) -> None:
    migrated(url)

    async def make() -> None:
        from app import ids
        from app.store.postgres import partitions

        connection = await asyncpg.connect(url)
        async with connection.transaction():
            await partitions.make(connection, ids.now_ms(), 3)
        await connection.close()

    asyncio.run(make())


@asynccontextmanager
async def connected(url: str, name: str = "nightly", **more: Any) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(url, server_settings={"application_name": name}, **more)
    try:
        yield connection
    finally:
        connection.terminate()


async def found(settings: dict[str, str]) -> list[Finding]:
    return await examination.examined(load(settings).settings)


def one(findings: list[Finding], name: str) -> Finding:
    (only,) = [finding for finding in findings if finding.about == name]
    return only


async def until(ask: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(20):
        while not await ask():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def waits(url: str) -> bool:
    rows = await asyncio.to_thread(query, url, "SELECT 1 FROM pg_locks WHERE NOT granted")
    return bool(rows)


def test_a_database_that_is_well_has_nothing_wrong(settings: dict[str, str]) -> None:
    findings = examined(settings, "db")
    assert [finding for finding in findings if finding["verdict"] == "wrong"] == []
    for name in ("connection", "latency", "schema", "partitions", "activity", "transactions", "locks", "connections"):
        assert about(findings, name)["verdict"] == "ok", name
    for name in ("budget", "size", "durability", "transaction ids", "replication"):
        assert about(findings, name)["verdict"] == "ok", name
    assert about(findings, "table audit_entries")["figures"]["bytes"] > 0


def test_no_password_is_shown(settings: dict[str, str]) -> None:
    for options in ((), ("--json",)):
        assert PASSWORD not in run(settings, "db", *options).stdout


def test_who_waits_for_a_lock_is_shown_with_who_holds_it_and_without_what_they_ask_about(
    settings: dict[str, str],
) -> None:
    url = settings["DATABASE_URL"]

    async def scenario() -> tuple[list[Finding], int, int]:
        async with connected(url) as holder, connected(url, "report") as waiter:
            await holder.execute("BEGIN; LOCK TABLE assessments IN ACCESS EXCLUSIVE MODE")
            question = f"SELECT count(*) FROM assessments WHERE business_id = '{NAME}'"
            waiting = asyncio.create_task(waiter.execute(question))
            await until(lambda: waits(url))
            await asyncio.sleep(1.1)
            findings = await found(settings)
            await holder.execute("ROLLBACK")
            await waiting
            return findings, holder.get_server_pid(), waiter.get_server_pid()

    findings, holder, waiter = asyncio.run(scenario())
    lock = one(findings, "lock")
    assert lock.verdict == "wrong"
    assert lock.seen.startswith(f"pid {waiter} (report at {HOST}) waits for ")
    assert f"assessments (AccessShareLock), held by pid {holder} (nightly at {HOST}), idle in transaction" in lock.seen
    assert lock.seen.endswith("it wants to: SELECT count(*) FROM assessments WHERE business_id = ?")
    assert f"pg_terminate_backend({holder})" in lock.action
    assert lock.figures["blockers"] == [holder]
    assert NAME not in str(findings)
    # What lies behind the lock is not waited for.
    assert one(findings, "tables").verdict == "look"
    assert one(findings, "replication").verdict == "ok"


def test_of_a_queue_for_a_lock_the_head_is_to_be_ended(settings: dict[str, str]) -> None:
    url = settings["DATABASE_URL"]

    async def scenario() -> tuple[list[Finding], int]:
        async with connected(url) as holder, connected(url) as second, connected(url) as third:
            await holder.execute("BEGIN; LOCK TABLE models IN ACCESS SHARE MODE")
            tasks = [asyncio.create_task(second.execute("BEGIN; LOCK TABLE models IN ACCESS EXCLUSIVE MODE"))]
            await until(lambda: waits(url))
            tasks.append(asyncio.create_task(third.execute("SELECT count(*) FROM models")))

            async def both() -> bool:
                asked = "SELECT 1 FROM pg_locks WHERE NOT granted"
                return len(await asyncio.to_thread(query, url, asked)) == 2

            await until(both)
            findings = await found(settings)
            await holder.execute("ROLLBACK")
            await tasks[0]
            await second.execute("ROLLBACK")
            await tasks[1]
            return findings, holder.get_server_pid()

    findings, holder = asyncio.run(scenario())
    first, behind = [finding for finding in findings if finding.about == "lock"]
    assert f"pg_terminate_backend({holder})" in first.action
    assert "which itself waits" in behind.seen
    assert "pg_terminate_backend" not in behind.action


def test_a_transaction_in_which_nothing_is_done_is_shown(settings: dict[str, str]) -> None:
    async def scenario() -> tuple[list[Finding], int]:
        async with connected(settings["DATABASE_URL"]) as idle:
            await idle.execute(f"BEGIN; SELECT '{NAME}'")
            await asyncio.sleep(5.2)
            return await found(settings), idle.get_server_pid()

    findings, pid = asyncio.run(scenario())
    shown = one(findings, "transaction")
    assert shown.verdict == "look"
    assert shown.seen.startswith(f"pid {pid} (nightly at {HOST}) is open for 5.")
    assert shown.seen.endswith("last: BEGIN; SELECT ?")
    assert one(findings, "activity").figures["idle_in_transaction"] == 1


def test_sessions_of_others_are_counted_and_the_right_to_see_them_is_named(
    postgres: Postgres, settings: dict[str, str]
) -> None:
    name = database_name(settings["DATABASE_URL"])

    async def scenario() -> list[Finding]:
        async with connected(postgres.admin_url(name)):
            return await found(settings)

    hidden = one(asyncio.run(scenario()), "activity of others")
    assert (hidden.verdict, hidden.figures["hidden"]) == ("look", 1)
    assert "GRANT pg_monitor" in hidden.action


def test_an_older_schema_and_none_at_all_are_wrong(settings: dict[str, str]) -> None:
    url = settings["DATABASE_URL"]
    query(url, "UPDATE alembic_version SET version_num = $1", schema.REVISIONS[0])
    older = about(examined(settings, "db"), "schema")
    assert (older["verdict"], older["action"]) == ("wrong", "Run `kyb migrate`.")
    query(url, "DROP TABLE alembic_version")
    assert "no tables of this service" in about(examined(settings, "db"), "schema")["seen"]


def test_a_partition_that_lacks_is_named(settings: dict[str, str]) -> None:
    url = settings["DATABASE_URL"]
    (last,) = query(
        url, "SELECT max(inhrelid::regclass::text) AS name FROM pg_inherits WHERE inhrelid::regclass::text ~ '_[0-9]+$'"
    )
    query(url, f"DROP TABLE {last['name']}")
    shown = about(examined(settings, "db"), "partitions")
    assert (shown["verdict"], shown["figures"]["lacking"]) == ("look", [last["name"]])


def test_dead_rows_are_counted_for_each_table(settings: dict[str, str]) -> None:
    url = settings["DATABASE_URL"]

    async def scenario() -> Finding:
        async with connected(url) as connection:
            await connection.execute("ALTER TABLE retention SET (autovacuum_enabled = off)")
            await connection.execute(
                "INSERT INTO retention SELECT 'tenant ' || n, 1 FROM generate_series(1, 20000) n; DELETE FROM retention"
            )

            async def counted() -> bool:
                await connection.execute("SELECT pg_stat_force_next_flush()")
                asked = "SELECT n_dead_tup FROM pg_stat_user_tables WHERE relname = 'retention'"
                return bool(await connection.fetchval(asked) >= 20_000)

            await until(counted)
            return one(await found(settings), "table retention")

    shown = asyncio.run(scenario())
    assert (shown.verdict, shown.figures["dead"]) == ("look", 20_000)
    assert "VACUUM (ANALYZE) retention" in shown.action


def test_more_workers_than_the_server_has_connections_for_is_wrong(settings: dict[str, str]) -> None:
    shown = about(examined({**settings, "DB_MAX_CONNECTIONS": "400"}, "db"), "budget")
    assert shown["verdict"] == "wrong"
    assert shown["figures"]["fleet"] == 390
    assert "Lower DB_MAX_CONNECTIONS to 107" in shown["action"]
    small = about(examined({**settings, "MAX_REPLICAS": "90"}, "db"), "budget")
    assert (small["verdict"], "PgBouncer" in small["seen"]) == ("wrong", True)


# Servers of their own


@pytest.fixture(scope="module")
def watched() -> Iterator[Postgres]:
    """A small server that keeps statistics of statements."""
    with Postgres(20, {"shared_preload_libraries": "pg_stat_statements"}) as server:
        yield server


def test_connections_near_the_limit_are_shown_and_none_left_too(watched: Postgres) -> None:
    url = watched.create_database()
    settings = {"DATABASE_URL": url, "DB_MAX_CONNECTIONS": "20"}

    async def scenario() -> tuple[Finding, list[Finding]]:
        held = [await asyncpg.connect(url) for _ in range(16)]
        try:
            near = one(await found(settings), "connections")
            held.append(await asyncpg.connect(url))
            return near, await found(settings)
        finally:
            for connection in held:
                connection.terminate()

    near, full = asyncio.run(scenario())
    assert (near.verdict, near.figures) == ("look", {"used": 16, "most": 20, "reserved": 3})
    assert full[-1].about == "connection"
    assert (full[-1].verdict, "no connection left" in full[-1].seen) == ("wrong", True)


def test_how_to_have_statistics_of_statements_is_said_until_they_are_there(
    watched: Postgres, settings: dict[str, str]
) -> None:
    unloaded = about(examined(settings, "db"), "slow statements")
    assert unloaded["verdict"] == "look"
    assert "shared_preload_libraries and restart it, then run CREATE EXTENSION" in unloaded["action"]
    url = migrated(watched.create_database())
    loaded = about(examined({"DATABASE_URL": url}, "db"), "slow statements")
    assert loaded["action"].startswith("Run CREATE EXTENSION pg_stat_statements")


def test_the_slowest_statements_are_shown_by_their_mean_and_without_literals(watched: Postgres) -> None:
    url = migrated(watched.create_database())
    watched.query(database_name(url), "CREATE SCHEMA stats")
    watched.query(database_name(url), "CREATE EXTENSION pg_stat_statements SCHEMA stats")
    watched.query(database_name(url), "GRANT USAGE ON SCHEMA stats TO kyb")

    async def scenario() -> list[Finding]:
        async with connected(url) as connection:
            for _ in range(5):
                await connection.execute(f"SELECT pg_sleep(0.06), '{NAME}' /* {NAME} */")
            await connection.execute(f"DO $$ BEGIN PERFORM '{NAME}'; END $$")
            return await found({"DATABASE_URL": url})

    findings = asyncio.run(scenario())
    slowest = next(finding for finding in findings if finding.about == "slow statement")
    assert slowest.seen.split(": ", 1)[1].startswith("SELECT pg_sleep(")
    assert slowest.figures["calls"] == 5
    assert 0.06 <= slowest.figures["mean_s"] < 1
    assert NAME not in str(findings)
    assert "kyb doctor" not in str([finding for finding in findings if finding.about == "slow statement"])


# A server that is not there


def assert_away(findings: list[Found], words: str) -> None:
    assert findings[-1]["about"] == "connection"
    assert (findings[-1]["verdict"], words in findings[-1]["seen"]) == ("wrong", True), findings
    assert PASSWORD not in str(findings)


def test_a_server_that_does_not_run_or_answer_or_let_us_in_is_one_finding(own_postgres: Postgres) -> None:
    settings = {"DATABASE_URL": own_postgres.create_database()}
    own_postgres.pause()
    with within(FAST_S):
        assert_away(examined(settings, "db"), "does not answer")
    own_postgres.resume()
    assert_away(
        examined({"DATABASE_URL": own_postgres.url("postgres", password="wrong-one")}, "db"), "let this user in"
    )
    assert_away(examined({"DATABASE_URL": own_postgres.url("nowhere")}, "db"), "there is no database")
    own_postgres.stop()
    with within(FAST_S):
        assert_away(examined(settings, "db"), "cannot be reached: Connection refused")


def test_a_server_that_falls_silent_while_it_is_asked_ends_the_examination(own_postgres: Postgres) -> None:
    url = migrated(own_postgres.create_database())
    waiting = "SELECT 1 FROM pg_stat_activity WHERE application_name = 'kyb doctor' AND wait_event_type = 'Lock'"

    async def scenario() -> list[Finding]:
        async with connected(own_postgres.admin_url(database_name(url))) as holder, connected(url) as watcher:
            # Of each of them it waits for the lock until the server gives up.
            await holder.execute(
                "BEGIN; LOCK TABLE alembic_version, assessments, audit_entries IN ACCESS EXCLUSIVE MODE"
            )
            asking = asyncio.create_task(found({"DATABASE_URL": url}))
            await until(lambda: watcher.fetchval(waiting))
            await asyncio.to_thread(own_postgres.pause)
            async with asyncio.timeout(FAST_S):
                return await asking

    findings = asyncio.run(scenario())
    own_postgres.resume()
    assert findings[-1].verdict == "wrong", findings
    assert "did not answer in time" in findings[-1].seen


def test_a_host_without_an_address_is_named() -> None:
    url = f"postgresql://{USER}:{PASSWORD}@nowhere.invalid:5432/kyb"
    with within(FAST_S):
        (shown,) = examined({"DATABASE_URL": url}, "db")
    assert (shown["verdict"], "the name nowhere.invalid cannot be looked up" in shown["seen"]) == ("wrong", True)
    assert PASSWORD not in str(shown)


def test_of_several_hosts_those_that_are_known_are_asked(settings: dict[str, str]) -> None:
    url = settings["DATABASE_URL"].replace("@", "@nowhere.invalid:5432,", 1)
    findings = examined({"DATABASE_URL": url}, "db")
    assert about(findings, "address")["verdict"] == "wrong"
    assert about(findings, "schema")["verdict"] == "ok"


# PgBouncer


def test_the_pools_of_pgbouncer_are_read_from_its_console(pgbouncer: PgBouncer, settings: dict[str, str]) -> None:
    url = settings["DATABASE_URL"]
    pooled = {"DATABASE_URL": pgbouncer.url(url), "DB_POOLER": "pgbouncer"}

    async def scenario() -> list[Finding]:
        async with connected(pgbouncer.url(url), statement_cache_size=0) as busy:
            await busy.execute("BEGIN")
            findings = await found({**pooled, "DATABASE_DIRECT_URL": url})
            await busy.execute("ROLLBACK")
            return findings

    findings = asyncio.run(scenario())
    assert one(findings, "pool").figures["active"] == 1
    assert one(findings, "pooler clients").figures["most"] == 1000
    assert one(findings, "pool size").figures["size"] == 10
    assert one(findings, "pooled latency").verdict == "ok"
    assert one(findings, "schema").verdict == "ok"
    assert [finding for finding in findings if finding.verdict == "wrong"] == []
    many = about(examined({**pooled, "MAX_REPLICAS": "300"}, "db"), "pooler clients")
    assert (many["verdict"], many["action"]) == ("wrong", "Raise max_client_conn to 1,200 or more.")


def test_clients_that_wait_for_a_pool_are_shown(postgres: Postgres, settings: dict[str, str]) -> None:
    if not PgBouncer.available():
        pytest.skip("pgbouncer is not installed (Debian: apt-get install pgbouncer)")
    url = settings["DATABASE_URL"]

    async def scenario(bouncer: PgBouncer) -> list[Finding]:
        async with connected(bouncer.url(url), statement_cache_size=0) as busy:
            await busy.execute("BEGIN")
            waiting = asyncio.create_task(asyncpg.connect(bouncer.url(url), statement_cache_size=0, timeout=30))
            second = await waiting
            question = asyncio.create_task(second.execute("SELECT 1"))
            await asyncio.sleep(1.5)
            findings = await found(
                {"DATABASE_URL": bouncer.url(url), "DATABASE_DIRECT_URL": url, "DB_POOLER": "pgbouncer"}
            )
            await busy.execute("ROLLBACK")
            await question
            second.terminate()
            return findings

    with PgBouncer(postgres.port, pool_size=1) as bouncer:
        findings = asyncio.run(scenario(bouncer))
    shown = one(findings, "pool")
    assert (shown.verdict, shown.figures["waiting"]) == ("wrong", 1)
    assert one(findings, "schema").verdict == "ok"


def test_a_pooler_that_does_not_run_is_told_from_a_database_that_does_not(settings: dict[str, str]) -> None:
    direct = settings["DATABASE_URL"]
    url = f"postgresql://{USER}:{PASSWORD}@{HOST}:{free_port()}/{database_name(direct)}"
    findings = examined({"DATABASE_URL": url, "DATABASE_DIRECT_URL": direct, "DB_POOLER": "pgbouncer"}, "db")
    assert about(findings, "pooler")["verdict"] == "wrong"
    assert about(findings, "schema")["verdict"] == "ok"
