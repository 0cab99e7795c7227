"""What an operator does to the records with `kyb`: migrate them, drop what is past, forget a business."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import os
import pty
import select
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from databases import PASSWORD, USER, PgBouncer, Postgres, database_name, drop_database, migrated, query
from proxy import HOST
from records import row
from service import Client, environment, free_port, named, serving, wait_until

from app.cli.database import days_of
from app.cli.exits import Stopped
from app.ids import Uuid7
from app.neighbours import make_store
from app.settings import load
from app.store.base import Row
from app.store.keeping import MAX_DAYS

TENANT = "default"
"""Whose assessments those of the running service are."""

COMMAND = (sys.executable, "-m", "app.cli")
LIMIT_S = 60.0
TODAY = dt.datetime.now(dt.UTC).date()
MARIA = {"owners": [{"name": "Maria Musterfrau", "share_pct": 100}]}

Done = subprocess.CompletedProcess[str]
Json = Any


def run(settings: Mapping[str, str], *arguments: object) -> Done:
    """The real command in a process of its own, with these settings of the environment only, and nobody to ask."""
    return subprocess.run(
        [*COMMAND, *map(str, arguments)],
        env=environment(settings),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )


def said(settings: Mapping[str, str], *arguments: object) -> str:
    """What a command wrote that did what it should."""
    done = run(settings, *arguments)
    assert (done.returncode, done.stderr) == (0, ""), done
    return done.stdout


def told(settings: Mapping[str, str], *arguments: object) -> Json:
    return json.loads(said(settings, *arguments, "--json"))


def refused(settings: Mapping[str, str], *arguments: object, code: int = 4) -> str:
    """What a command said that must refuse: one message, and no traceback."""
    done = run(settings, *arguments)
    assert (done.returncode, done.stdout) == (code, ""), done
    assert "Traceback" not in done.stderr
    return done.stderr


def made_days_ago(days: int, tenant_id: str, business_id: str | None = None) -> Row:
    day_ms = int(dt.datetime.combine(TODAY - dt.timedelta(days), dt.time(12), dt.UTC).timestamp() * 1000)
    return row(tenant_id, id=Uuid7(lambda: day_ms).new(), business_id=business_id)


def record(settings: Mapping[str, str], rows: Sequence[Row]) -> None:
    async def add() -> None:
        store = make_store(load(settings).settings)
        await store.open()
        try:
            assert await store.add_each(rows) == [None] * len(rows)
        finally:
            await store.close()

    asyncio.run(add())


@pytest.fixture(params=["sqlite", "postgres"])
def unmade(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, str]:
    """The settings of a database that nothing is in yet."""
    if request.param == "sqlite":
        return {"DATA_DIR": str(tmp_path / "data")}
    return {"DATABASE_URL": request.getfixturevalue("database")}


@pytest.fixture
def settings(unmade: dict[str, str]) -> dict[str, str]:
    """The settings of a database that can be used."""
    if "DATABASE_URL" in unmade:
        migrated(unmade["DATABASE_URL"])
    else:
        run(unmade, "migrate")
    return unmade


# Migration


def test_migrating_says_what_it_did_and_then_that_nothing_is_left_to_do(unmade: dict[str, str]) -> None:
    first = said(unmade, "migrate")
    assert "schema none → " in first
    if "DATABASE_URL" in unmade:
        assert f"made the partitions assessments_{TODAY:%Y_%m}, " in first
        assert first.count("assessments_") == 4
    assert "up to date (schema " in said(unmade, "migrate")
    assert PASSWORD not in first
    assert said(unmade, "retention").startswith("nothing is past")


def test_many_pods_migrate_an_empty_database_at_once(unmade: dict[str, str]) -> None:
    with ThreadPoolExecutor(5) as pool:
        done = list(pool.map(lambda _: run(unmade, "migrate"), range(5)))
    assert [(each.returncode, each.stderr) for each in done] == [(0, "")] * 5
    assert any("schema none → " in each.stdout for each in done)


def test_the_partitions_of_the_coming_months_are_made_by_a_later_migration_too(database: str) -> None:
    migrated(database)
    # The tables are of today, and the months have none yet.
    assert f": made the partitions assessments_{TODAY:%Y_%m}, " in said({"DATABASE_URL": database}, "migrate")


def test_a_migration_waits_for_whoever_holds_the_tables(database: str) -> None:
    async def scenario() -> None:
        connection = await asyncpg.connect(database)
        await connection.execute("BEGIN; LOCK TABLE assessments IN ACCESS EXCLUSIVE MODE")
        migrating = asyncio.create_task(asyncio.to_thread(said, {"DATABASE_URL": database}, "migrate"))
        try:
            # It gives up soon, so that nobody waits behind it, and comes again.
            for waiting in (True, False, True):
                while waiting != await connection.fetchval("SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted)"):
                    assert not migrating.done(), migrating.result()
        finally:
            await connection.execute("COMMIT")
            await connection.close()
        assert "made the partitions" in await migrating

    migrated(database)
    asyncio.run(scenario())


def test_the_folder_of_the_embedded_database_is_made(tmp_path: Path) -> None:
    settings = {"DATA_DIR": str(tmp_path / "far" / "away")}
    assert "there is no database" in refused(settings, "retention", "list")
    assert not (tmp_path / "far").exists()
    said(settings, "migrate")
    assert (tmp_path / "far" / "away" / "kyb.db").exists()


def test_behind_a_pooler_the_direct_address_is_asked_for_and_used(postgres: Postgres, pgbouncer: PgBouncer) -> None:
    direct = postgres.create_database()
    settings = {"DATABASE_URL": pgbouncer.url(direct), "DB_POOLER": "pgbouncer"}
    assert "DATABASE_DIRECT_URL" in refused(settings, "migrate", code=3)
    assert "schema none" in said({**settings, "DATABASE_DIRECT_URL": direct}, "migrate")
    said(settings, "retention", "set", "acme", "30")
    assert told(settings, "retention", "list") == {"retentions": [{"tenant_id": "acme", "days": 30}]}
    record(settings, [made_days_ago(40, "acme"), made_days_ago(20, "acme")])
    assert told(settings, "retention")["dropped"] == [{"tenant_id": "acme", "assessments": 1}]


@pytest.mark.parametrize("command", [("migrate",), ("retention",), ("erase", "a", "b", "--reason", "asked", "--yes")])
def test_a_database_that_cannot_be_used_is_one_plain_sentence(postgres: Postgres, command: tuple[str, ...]) -> None:
    url = postgres.create_database()
    name = database_name(url)
    cases = {
        f"postgresql://{USER}:{PASSWORD}@{HOST}:{free_port()}/{name}": "cannot be reached",
        postgres.url(name, password="wrong-secret"): "does not let this user in",
        postgres.url("no_such_database"): "There is no database",
    }
    for address, why in cases.items():
        message = refused({"DATABASE_URL": address}, *command)
        assert why in message
        assert "DATABASE_URL" in message
        assert len(message.splitlines()) == 1
        assert "secret" not in message
        assert PASSWORD not in message


def test_a_wrong_direct_address_is_called_by_its_own_name(database: str) -> None:
    direct = f"postgresql://{HOST}:{free_port()}/{database_name(database)}"
    assert "Check DATABASE_DIRECT_URL" in refused({"DATABASE_URL": database, "DATABASE_DIRECT_URL": direct}, "migrate")


def test_a_user_who_may_not_make_tables_is_told_so(postgres: Postgres) -> None:
    name = database_name(postgres.create_database())
    postgres.query(name, "CREATE ROLE guest LOGIN PASSWORD 'guest'")
    try:
        message = refused({"DATABASE_URL": postgres.url(name, "guest", "guest")}, "migrate")
        assert "does not let this user do it: permission denied for schema public" in message
    finally:
        postgres.query(name, "DROP ROLE guest")


def test_a_service_that_owns_no_table_records_all_the_same(postgres: Postgres, tmp_path: Path) -> None:
    url = migrated(postgres.create_database())
    postgres.query("postgres", "CREATE ROLE guest LOGIN PASSWORD 'guest'")
    try:
        postgres.query(url, "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO guest")
        settings = {"DATABASE_URL": postgres.url(database_name(url), "guest", "guest")}
        with serving(tmp_path / "service", **settings) as service:
            made = service.client().recorded(named("Acme", id="cust-7"))
            assert "permission denied for schema public" in service.logged()
        assert run(settings, "erase", TENANT, "cust-7", "--reason", "asked", "--yes").returncode == 0
        assert [text for (text,) in postgres.query(url, "SELECT id::text FROM assessments_other")] == [made["id"]]
        assert "made the partitions" in said({"DATABASE_URL": url}, "migrate")
        assert postgres.query(url, "SELECT FROM assessments_other") == []
    finally:
        drop_database(postgres.admin_url(), database_name(url))
        postgres.query("postgres", "DROP ROLE guest")


def test_a_database_of_another_version_is_left_alone(database: str) -> None:
    settings = {"DATABASE_URL": database}
    assert "Run `kyb migrate`" in refused(settings, "retention")
    migrated(database)
    # One that does not say which services work on it.
    query(database, "UPDATE alembic_version SET version_num = '9999'")
    query(database, "COMMENT ON TABLE alembic_version IS NULL")
    for command in ("migrate", "retention"):
        assert "has schema 9999" in refused(settings, command)


# How long


def test_a_retention_is_set_listed_counted_and_kept(settings: dict[str, str]) -> None:
    assert said(settings, "retention", "list").startswith("no tenant has a retention")
    record(settings, [made_days_ago(days, tenant) for tenant in ("acme", "zeta", "free") for days in (400, 40, 4)])
    assert "are kept for 30 days" in said(settings, "retention", "set", "acme", "30d")
    assert "are kept for 366 days" in said(settings, "retention", "set", "zeta", "1y")
    assert said(settings, "retention", "list") == "acme  30 d\nzeta  366 d\n"
    counted = [{"tenant_id": "acme", "assessments": 2}, {"tenant_id": "zeta", "assessments": 1}]
    assert told(settings, "retention", "--dry-run") == {"dry_run": True, "dropped": counted}
    assert "acme  2 assessments would be deleted\nzeta  1 assessment would be" in said(
        settings, "retention", "--dry-run"
    )
    assert told(settings, "retention") == {"dry_run": False, "dropped": counted}
    assert said(settings, "retention").startswith("nothing is past")
    assert "are kept for ever" in said(settings, "retention", "set", "acme", "forever")
    assert said(settings, "retention", "list") == "zeta  366 d\n"


def test_a_relationship_keeps_the_assessments_of_its_business(settings: dict[str, str]) -> None:
    record(settings, [made_days_ago(4_000, "acme", business) for business in ("a", "b", "c")])
    said(settings, "retention", "set", "acme", "5y")
    assert "is ongoing" in said(settings, "relationship", "set", "acme", "a", "ongoing")
    assert "ended on 2020-02-29" in said(settings, "relationship", "set", "acme", "b", "2020-02-29")
    listed = [{"business_id": "a", "ended_on": None}, {"business_id": "b", "ended_on": "2020-02-29"}]
    assert told(settings, "relationship", "list", "acme") == {"relationships": listed}
    assert said(settings, "relationship", "list", "acme") == "a  ongoing\nb  ended on 2020-02-29\n"
    assert told(settings, "relationship", "list", "nobody") == {"relationships": []}
    assert told(settings, "retention")["dropped"] == [{"tenant_id": "acme", "assessments": 2}]


@pytest.mark.parametrize(
    ("text", "days"),
    [
        ("1", 1),
        ("1826", 1826),
        ("1826d", 1826),
        ("1y", 366),
        ("4y", 1461),
        ("5y", 1827),
        ("100y", 36525),
        ("forever", None),
    ],
)
def test_days_are_read(text: str, days: int | None) -> None:
    assert days_of(text) == days


def test_no_years_in_a_row_are_longer_than_they_are_counted() -> None:
    for first in range(1896, 2400):
        for years in range(1, 9):
            longest = (dt.date(first + years, 2, 28) - dt.date(first, 2, 28)).days
            assert longest <= (days_of(f"{years}y") or 0) <= longest + 2


@pytest.mark.parametrize(
    "text", ["0", "-1", "abc", "", "5 y", "1.5", "0y", "101y", "5w", "y", "d", "²", "1e3", str(MAX_DAYS + 1), "9" * 30]
)
def test_what_is_no_number_of_days_is_refused(text: str) -> None:
    with pytest.raises(Stopped, match=f"1 to {MAX_DAYS}"):
        days_of(text)


def test_wrong_usage_ends_with_2_and_changes_nothing(tmp_path: Path) -> None:
    settings = {"DATA_DIR": str(tmp_path)}
    said(settings, "migrate")
    wrong: list[tuple[str, ...]] = [
        ("retention", "set", "acme", "0"),
        ("retention", "set", "acme", "-1"),
        ("retention", "set", "acme", "abc"),
        ("retention", "set", " ", "5"),
        ("retention", "set", "acme"),
        ("retention", "--dry-run", "list"),
        ("relationship", "set", "acme", "b", "2026-02-30"),
        ("relationship", "set", "acme", "b", "20260201"),
        ("relationship", "set", "acme", "b", "2026-W01-1"),
        ("relationship", "set", "acme", "b", "never"),
        ("relationship", "set", "acme", "", "ongoing"),
        ("erase", "acme", "b"),
        ("erase", "acme", "b", "--yes"),
        ("erase", "acme", "b", "--reason", " ", "--yes"),
        ("erase", "acme", "b", "--reason", "asked"),
        ("erase", "acme", "\udcff", "--reason", "asked", "--yes"),
    ]
    with ThreadPoolExecutor(2) as pool:
        messages = list(pool.map(lambda arguments: refused(settings, *arguments, code=2), wrong))
    assert "--yes" in messages[-2]
    assert told(settings, "retention", "list") == {"retentions": []}
    assert told(settings, "relationship", "list", "acme") == {"relationships": []}
    assert told(settings, "erasures", "acme") == {"erasures": []}


# Whom to forget


def business_of(client: Client, id: str) -> Json:
    answer = client.get(f"/v1/assessments/{id}")
    assert answer.status == 200, answer
    return answer.json["business_id"]


def replay_status(client: Client, id: str) -> int:
    return client.post(f"/v1/assessments/{id}/replay", b"").status


def test_an_erasure_reaches_every_running_service_within_a_second(
    settings: dict[str, str], redis_url: str, tmp_path: Path
) -> None:
    shared = {**settings, "REDIS_URL": redis_url}
    profile = {**named("Acme", id="cust-7"), "ownership": MARIA}
    with serving(tmp_path / "one", **shared) as one, serving(tmp_path / "two", **shared) as two:
        clients = [one.client(), two.client()]
        before = [clients[place % 2].recorded(profile) for place in range(4)]
        other = clients[0].recorded(named("Other", id="cust-8"))
        keyed = {"Idempotency-Key": "order-1"}
        before.append(clients[0].assess(profile, keyed).json)
        for client in clients:
            # In the caches of both now.
            assert [business_of(client, each["id"]) for each in before] == ["cust-7"] * 5
            assert [replay_status(client, each["id"]) for each in before] == [200] * 5
        assert said(shared, "erase", TENANT, "cust-7", "--reason", "asked", "--yes") == (
            "erased cust-7 from 5 assessments of default\n"
        )
        for client in clients:
            wait_until(
                lambda: all(business_of(client, each["id"]) is None for each in before),  # noqa: B023
                "the services forget the business",
                1.0,
            )
            assert [replay_status(client, each["id"]) for each in before] == [409] * 5
            assert client.assess(profile, keyed).status == 409
            assert [each["id"] for each in client.walk(business_id="cust-7")] == []
            for each in before:
                after = client.get(f"/v1/assessments/{each['id']}").json
                assert after == {**each, "business_id": None}
            assert business_of(client, other["id"]) == "cust-8"
        assert said(shared, "erase", TENANT, "cust-7", "--reason", "again", "--yes") == (
            "erased cust-7 from 0 assessments of default\n"
        )
    [note] = told(settings, "erasures", TENANT)["erasures"]
    assert note["business_sha256"] == sha256(f"{TENANT}\0cust-7".encode()).hexdigest()
    assert (note["assessments"], note["reason"]) == (5, "asked")
    assert note["business_sha256"] in said(settings, "erasures", TENANT)
    assert told(settings, "erasures", "nobody") == {"erasures": []}
    if "DATA_DIR" in settings:
        assert_nowhere(Path(settings["DATA_DIR"]), b"Maria", b"cust-7")


def assert_nowhere(folder: Path, *words: bytes) -> None:
    for file in folder.rglob("*"):
        # The packaged list has names of its own.
        if file.is_file() and file.parent.name != "watchlists":
            content = file.read_bytes()
            assert not [word for word in words if word in content], file


def test_without_redis_it_is_said_how_long_services_remember(settings: dict[str, str], tmp_path: Path) -> None:
    with serving(tmp_path / "service", **settings) as service:
        client = service.client()
        made = client.recorded(named("Acme", id="cust-7"))
        done = run({**settings, "CACHE_TTL": "100s"}, "erase", TENANT, "cust-7", "--reason", "asked", "--yes")
        assert done.returncode == 0
        assert "for up to 110 s; a restart ends it at once" in done.stderr
        service.restart()
        assert business_of(service.client(), made["id"]) is None


def test_a_redis_that_is_away_is_said_and_the_records_are_erased_all_the_same(tmp_path: Path) -> None:
    settings = {"DATA_DIR": str(tmp_path / "data")}
    with serving(tmp_path / "service", **settings) as service:
        service.client().recorded(named("Acme", id="cust-7"))
    away = {**settings, "CACHE_TTL": "100s", "REDIS_URL": f"redis://{HOST}:{free_port()}/0"}
    done = run(away, "erase", TENANT, "cust-7", "--reason", "asked", "--yes")
    assert done.returncode == 4
    assert done.stdout == "erased cust-7 from 1 assessment of default\n"
    assert "Redis could not be told: running services may answer with what they remember for up to 220 s" in done.stderr
    assert [note["assessments"] for note in told(settings, "erasures", TENANT)["erasures"]] == [1]


def test_a_record_of_a_later_version_stops_the_erasure_with_a_sentence(tmp_path: Path) -> None:
    settings = {"DATA_DIR": str(tmp_path)}
    said(settings, "migrate")
    record(settings, [row(business_id="cust-7", record=b"of a later version")])
    message = refused(settings, "erase", "acme", "cust-7", "--reason", "asked", "--yes")
    assert "the record cannot be read by this version of the service" in message
    assert told(settings, "erasures", "acme") == {"erasures": []}


def state(pid: int) -> str:
    """Of a process, as the kernel tells it: S is one that waits."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]


@pytest.mark.parametrize(
    ("answer", "code", "notes"), [("n\n", 130, 0), ("\n", 130, 0), ("\x03", 130, 0), ("y\n", 0, 1)]
)
def test_at_a_terminal_it_is_asked_before_anything_is_erased(
    tmp_path: Path, answer: str, code: int, notes: int
) -> None:
    settings = {"DATA_DIR": str(tmp_path)}
    said(settings, "migrate")
    said(settings, "relationship", "set", "acme", "cust-7", "ongoing")
    us, them = pty.openpty()
    asking = subprocess.Popen(
        [*COMMAND, "erase", "acme", "cust-7", "--reason", "asked"],
        env=environment(settings),
        stdin=them,
        stdout=subprocess.DEVNULL,
        stderr=them,
        start_new_session=True,
        # The terminal is the one that Ctrl-C is pressed at.
        preexec_fn=lambda: os.close(os.open(os.ttyname(0), os.O_RDWR)),
    )
    os.close(them)
    try:
        question = b""
        while b"cannot be undone. [y/N]" not in question:
            assert select.select([us], [], [], LIMIT_S)[0], question
            question += os.read(us, 1000)
        assert b"Erase cust-7 from 0 assessments of acme?" in question
        # Python heeds a signal before a read and within it, not at the moment between.
        wait_until(lambda: state(asking.pid) == "S", "it waits for the answer")
        os.write(us, answer.encode())
        assert asking.wait(LIMIT_S) == code
    finally:
        if asking.poll() is None:
            asking.send_signal(signal.SIGKILL)
            asking.wait(LIMIT_S)
        os.close(us)
    assert len(told(settings, "erasures", "acme")["erasures"]) == notes
