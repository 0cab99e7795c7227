"""The service on PostgreSQL: what stops its start, PgBouncer in between, busy keys, its share of connections."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import asyncpg
import pytest
from databases import PASSWORD, PgBouncer, Postgres, database_name, query
from outage import Callers, backends, claim, prepared, refused_in_time, timed, transaction
from proxy import HOST, Proxy, reserve_port
from records import receipt, row
from service import (
    KEY,
    TENANT,
    Client,
    Crowd,
    Service,
    Wire,
    environment,
    example,
    failed_start,
    keep_key,
    named,
    serving,
    wait_until,
)

from app.ids import now_ms
from app.settings import load
from app.store.postgres.link import Timeouts
from app.store.postgres.partitions import Month

FAILED = 4

SAMPLES = 200


def refusal(folder: Path, url: str, **settings: str) -> str:
    """What a service says that does not start."""
    done = failed_start(folder, DATABASE_URL=url, **settings)
    assert (done.returncode, done.stdout) == (FAILED, ""), done
    assert "Traceback" not in done.stderr
    assert PASSWORD not in done.stderr
    [line] = done.stderr.splitlines()
    return line


@pytest.fixture
def url(postgres: Postgres) -> str:
    return prepared(postgres)


def test_a_server_that_is_not_there_stops_the_start(tmp_path: Path) -> None:
    with reserve_port() as held:
        place = f"{HOST}:{held.getsockname()[1]}/kyb"
        said = refusal(tmp_path, f"postgresql://kyb:{PASSWORD}@{place}")
    assert place in said
    assert "cannot be reached" in said
    assert "Check DATABASE_URL" in said


def test_a_server_that_does_not_answer_stops_the_start(url: str, postgres: Postgres, tmp_path: Path) -> None:
    with Proxy(postgres.port) as proxy:
        proxy.black_hole()
        said = refusal(tmp_path, url.replace(f":{postgres.port}/", f":{proxy.port}/"))
    assert "does not answer" in said


def test_a_start_asks_a_server_again_that_does_not_answer_at_once(url: str, postgres: Postgres, tmp_path: Path) -> None:
    with Proxy(postgres.port) as proxy, ThreadPoolExecutor(1) as starter:
        proxy.black_hole()
        service = Service(tmp_path, DATABASE_URL=url.replace(f":{postgres.port}/", f":{proxy.port}/"))
        asyncio.run(keep_key(load(environment({**service.settings, "DATABASE_URL": url})).settings))
        try:
            starting = starter.submit(service.launch)
            wait_until(lambda: proxy.accepted >= 2, "it asks again")
            proxy.heal()
            starting.result().client().recorded(named("Patient Ltd"))
        finally:
            service.stop()


@pytest.mark.parametrize("account", ["kyb:wrong", f"nobody:{PASSWORD}"])
def test_an_account_that_is_not_let_in_stops_the_start(account: str, url: str, tmp_path: Path) -> None:
    said = refusal(tmp_path, url.replace(f"kyb:{PASSWORD}", account))
    assert "does not let this user in" in said
    assert "wrong" not in said


def test_a_database_that_is_not_there_stops_the_start(postgres: Postgres, tmp_path: Path) -> None:
    said = refusal(tmp_path, postgres.url("nothing"))
    assert f"There is no database {HOST}:{postgres.port}/nothing." in said


def test_a_database_without_tables_stops_the_start(database: str, tmp_path: Path) -> None:
    said = refusal(tmp_path, database)
    assert f"{database_name(database)} has no tables" in said
    assert "Run `kyb migrate`." in said
    assert not query(database, "SELECT 1 FROM pg_class WHERE relname = 'alembic_version'")


def test_a_database_of_a_later_version_stops_the_start(url: str, tmp_path: Path) -> None:
    query(url, "UPDATE alembic_version SET version_num = '9999'")
    # As a later migration leaves it that services of today's schema do not work with.
    query(url, "COMMENT ON TABLE alembic_version IS 'Services of schema 9999 and later work on this database.'")
    said = refusal(tmp_path, url)
    assert "has schema 9999" in said
    assert "or a later one" in said


def test_a_database_that_is_read_only_stops_the_start(url: str, tmp_path: Path) -> None:
    query(url, f"ALTER DATABASE {database_name(url)} SET default_transaction_read_only = on")
    assert "takes no writes" in refusal(tmp_path, url)


def test_a_standby_stops_the_start(tmp_path: Path) -> None:
    with Postgres() as server:
        url = prepared(server)
        server.stop()
        (server.data / "standby.signal").touch()
        server.start()
        assert "takes no writes" in refusal(tmp_path, url)


def test_a_server_without_a_free_connection_stops_the_start(url: str, postgres: Postgres, tmp_path: Path) -> None:
    postgres.query("postgres", f"ALTER DATABASE {database_name(url)} CONNECTION LIMIT 1")
    assert "has no connection left" in refusal(tmp_path, url)


FLEET = {"DB_MAX_CONNECTIONS": "100", "MAX_REPLICAS": "50"}


def test_a_share_that_is_too_small_stops_the_start_with_the_arithmetic(url: str, tmp_path: Path) -> None:
    said = refusal(tmp_path, url, **FLEET)
    assert "(DB_MAX_CONNECTIONS 100 - 10 kept back) // (MAX_REPLICAS 50 * WORKERS 1) leaves 1" in said
    assert "DB_MAX_CONNECTIONS of at least 110" in said
    assert "DB_POOLER=pgbouncer" in said


# Through PgBouncer


@pytest.fixture
def narrow(postgres: Postgres) -> Iterator[PgBouncer]:
    """A PgBouncer with two connections to each database."""
    if not PgBouncer.available():
        pytest.skip("pgbouncer is not installed (Debian: apt-get install pgbouncer)")
    with PgBouncer(postgres.port, pool_size=2) as server:
        yield server


def test_through_pgbouncer_a_share_is_never_too_small_and_everything_works(
    url: str, narrow: PgBouncer, tmp_path: Path
) -> None:
    settings = {"DATABASE_URL": narrow.url(url), "DB_POOLER": "pgbouncer", **FLEET}
    with serving(tmp_path / "service", **settings) as service:
        client = service.client()
        made = client.recorded(example("healthy-manufacturer"))
        keyed = [client.assess(named("Keyed Ltd"), {"Idempotency-Key": "k"}) for _ in range(2)]
        assert keyed[0].body == keyed[1].body
        assert client.assess(named("Other Ltd"), {"Idempotency-Key": "k"}).status == 422
        batches = [
            client.post("/v1/assessments/batch", {"items": [named("Batch Ltd")] * 700}, headers)
            for headers in ({}, {"Idempotency-Key": "b"}, {"Idempotency-Key": "b"})
        ]
        assert [item["status"] for batch in batches for item in batch.json["items"]] == [201] * 2100
        assert batches[1].body == batches[2].body
        service.restart()
        client = service.client()
        assert client.get(f"/v1/assessments/{made['id']}").json == made
        assert client.post(f"/v1/assessments/{made['id']}/replay", b"").json == {"identical": True}
        assert sum(1 for _ in client.walk(limit=200)) == 1 + 1 + 2 * 700
        of_business = {"business_id": made["business_id"], "level": made["level"], "decision": made["decision"]}
        assert list(client.walk(**of_business)) == [made]
        assert len(client.get("/v1/models").json["items"]) == 2


def test_many_workers_share_two_connections_of_pgbouncer(
    url: str, postgres: Postgres, narrow: PgBouncer, tmp_path: Path
) -> None:
    callers = Callers()
    settings = {"DATABASE_URL": narrow.url(url), "DB_POOLER": "pgbouncer", "WORKERS": "4"}
    with serving(tmp_path / "service", **settings) as service:
        with callers.among(service, 24), Crowd(service, 4, lambda client: client.get("/v1/assessments", limit=20)):
            callers.wait_for_acknowledged(2_000)
            sql = "SELECT count(*) FROM pg_stat_activity WHERE datname = $1"
            [(number,)] = postgres.query("postgres", sql, database_name(url))
            assert number <= 2
        assert not callers.refused
        callers.check(url, service)
        asyncio.run(check_sessions(narrow.url(url), 2))


async def check_sessions(url: str, number: int) -> None:
    """The sessions that PgBouncer keeps are as a new one is."""
    found = set()
    barrier = asyncio.Barrier(number)

    async def look() -> None:
        connection = await asyncpg.connect(url, statement_cache_size=0)
        try:
            async with connection.transaction():
                # All are in use at once, so that each is another.
                await barrier.wait()
                found.add(await connection.fetchval("SELECT pg_backend_pid()"))
                assert await connection.fetchval("SELECT count(*) FROM pg_prepared_statements") == 0
                for name in Timeouts().settings():
                    assert await connection.fetchval(f"SHOW {name}") == "0", name
        finally:
            await connection.close()

    await asyncio.gather(*[look() for _ in range(number)])
    assert len(found) == number


def test_through_pgbouncer_waits_are_bounded_too(url: str, narrow: PgBouncer, tmp_path: Path) -> None:
    settings = {"DATABASE_URL": narrow.url(url), "DB_POOLER": "pgbouncer"}
    with serving(tmp_path / "service", **settings) as service:
        client = service.client()
        client.recorded(named("Before Ltd"))
        with transaction(url) as execute:
            execute(f"LOCK TABLE {Month.of(now_ms()).table} IN ACCESS EXCLUSIVE MODE")
            refused_in_time(lambda: client.assess(named("Locked Ltd")))
            refused_in_time(lambda: client.get("/v1/assessments"))
        assert client.get("/v1/assessments").status == 200
        check_busy_key(url, client)


# A key that is busy


def check_busy_key(url: str, client: Client) -> None:
    """It is told as such, soon, and can be used when it is free."""
    key = {"Idempotency-Key": "busy"}
    sql, values = claim(receipt("busy", row(TENANT)))
    with transaction(url) as execute:
        execute(sql, *values)
        answer, took_s = timed(lambda: client.assess(named("Busy Ltd"), key))
        assert (answer.status, answer.json["type"]) == (409, "/problems/idempotency-key-busy"), answer
        assert answer.headers["retry-after"] == "1"
        assert took_s <= 1.0
        assert client.assess(named("Free Ltd"), {"Idempotency-Key": "free"}).status == 201
        execute("ROLLBACK")
        assert client.assess(named("Busy Ltd"), key).status == 201


def test_a_key_that_another_transaction_holds_is_busy(url: str, tmp_path: Path) -> None:
    with serving(tmp_path / "service", DATABASE_URL=url) as service:
        check_busy_key(url, service.client())


def test_a_key_sent_five_hundred_times_to_two_services_is_one_assessment(url: str, tmp_path: Path) -> None:
    body = json.dumps(named("Once Ltd", id="once")).encode()
    request = (
        b"POST /v1/assessments HTTP/1.1\r\nHost: kyb\r\nX-API-Key: " + KEY.encode() + b"\r\n"
        b"Content-Type: application/json\r\nIdempotency-Key: once\r\n"
        b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
    )
    with ExitStack() as stack:
        services = [stack.enter_context(serving(tmp_path / name, DATABASE_URL=url)) for name in ("one", "other")]
        wires = [stack.enter_context(Wire(service.port)) for _ in range(250) for service in services]
        for wire in wires:
            wire.write(request)
        answers = [wire.answer() for wire in wires]
        assert {answer.status for answer in answers} == {201}
        assert len({answer.body for answer in answers}) == 1
        assert sum("idempotent-replayed" not in answer.headers for answer in answers) == 1
        assert len(query(url, "SELECT 1 FROM assessments")) == 1


# The share of the connections


def test_workers_hold_their_share_of_connections_and_no_more(url: str, postgres: Postgres, tmp_path: Path) -> None:
    callers = Callers()
    # Ten are kept back: ten for each worker, four of them kept open.
    settings = {"DATABASE_URL": url, "WORKERS": "2", "DB_MAX_CONNECTIONS": "30", "DB_IDLE_CONNECTIONS": "8"}
    with serving(tmp_path / "service", **settings) as service:
        wait_until(lambda: len(backends(postgres, url)) == 8, "both workers have what they keep open")

        def read(client: Client) -> None:
            assert client.get("/v1/assessments", limit=50).status in (200, 503)

        with Crowd(service, 16, read), callers.among(service, 8):
            counts = [len(backends(postgres, url)) for _ in range(SAMPLES)]
        assert 8 < max(counts) <= 20
        callers.check(url, service)
