"""The version of today and the next one on one database: while it is migrated, side by side, and on the way back."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import pytest
from databases import Postgres, Valkey, migrated, postgres_store, query
from outage import prepared, transaction
from records import play
from service import ROOT, Client, Crowd, Service, environment, failed_start, named, unique, wait_until

from app.store.base import StoreRefused
from app.store.postgres import schema
from app.store.postgres.store import PostgresStore

OWN = schema.REVISIONS[-1]
NEXT = "9999"
CALL_LIMIT_S = 60.0
CALLERS = 4

PATIENT = """\
server: {request_deadline: 30s, shutdown_grace: 60s}
database: {timeout: 25s, command_timeout: 20s, statement_timeout: 20s, lock_timeout: 15s, acquire_timeout: 15s}
breaker: {slow_call: 30s}
"""

MIGRATION = f'''\
from alembic import op

revision = "{NEXT}"
down_revision = "{OWN}"


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)
'''
EXPANDS = (
    "ALTER TABLE assessments ADD COLUMN note text",
    "ALTER TABLE api_keys ADD COLUMN owner text NOT NULL DEFAULT ''",
    "ALTER TABLE idempotency ADD COLUMN place integer DEFAULT 0",
    "CREATE TABLE notes (id integer PRIMARY KEY, note text NOT NULL)",
    "CREATE INDEX assessments_by_note ON assessments (tenant_id, note) WHERE note IS NOT NULL",
)
CONTRACTS = ("ALTER TABLE models RENAME COLUMN definition TO content",)


def next_version(folder: Path, statements: tuple[str, ...], works_since: str) -> str:
    """A copy of the service with a further migration; where it is imported from."""
    shutil.copytree(ROOT / "app", folder / "app", ignore=shutil.ignore_patterns("__pycache__"))
    known = folder / "app" / "store" / "postgres" / "schema.py"
    text = known.read_text(encoding="utf-8")
    for given, instead in (
        (f'"{OWN}")\n', f'"{OWN}", "{NEXT}")\n'),
        (f'\nWORKS_SINCE = "{schema.WORKS_SINCE}"\n', f'\nWORKS_SINCE = "{works_since}"\n'),
    ):
        assert text.count(given) == 1, given
        text = text.replace(given, instead)
    known.write_text(text, encoding="utf-8")
    file = known.parent / "migrations" / "versions" / f"v{NEXT}_next.py"
    file.write_text(MIGRATION.replace("STATEMENTS", repr(statements)), encoding="utf-8")
    return str(folder)


class Versions(NamedTuple):
    """Services of both on one database; the later one is not started, and its schema not there."""

    old: Service
    new: Service
    url: str


@pytest.fixture
def versions(own_postgres: Postgres, valkey: Valkey, tmp_path: Path) -> Iterator[Versions]:
    url = prepared(own_postgres)
    settings = {"DATABASE_URL": url, "REDIS_URL": valkey.url(3)}
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
    with ExitStack() as stack:
        old = Service(tmp_path / "old", PATIENT, **settings)
        path = next_version(tmp_path / "next", EXPANDS, OWN)
        new = Service(tmp_path / "new", PATIENT, PYTHONPATH=path, **settings)
        for service in (old, new):
            stack.callback(service.stop)
        yield Versions(old.start(), new, url)


def kyb(service: Service, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A command of the version that a service is of."""
    return subprocess.run(
        [sys.executable, "-m", "app.cli", *arguments],
        env=environment(service.settings), cwd=service.folder, capture_output=True, text=True, timeout=CALL_LIMIT_S,
        check=False,
    )  # fmt: skip


def revision(url: str) -> str:
    [(found,)] = query(url, "SELECT version_num FROM alembic_version")
    return str(found)


class Ledger:
    """What callers were told, and whatever was no 201."""

    def __init__(self) -> None:
        self.ids: list[str] = []
        self.others: list[object] = []

    def work(self, client: Client) -> None:
        answer = client.assess(named("Ledger Ltd"), {"Idempotency-Key": unique("key")})
        if answer.status == 201:
            self.ids.append(answer.json["id"])
        else:
            self.others.append(answer)

    def goes_on(self) -> None:
        """Wait until everybody was answered a few times more."""
        wanted = len(self.ids) + 10 * CALLERS
        wait_until(lambda: len(self.ids) >= wanted, "callers are answered", CALL_LIMIT_S)


def test_old_and_new_work_side_by_side_and_the_old_one_starts_again(versions: Versions) -> None:
    old, new, url = versions
    ledger = Ledger()
    with Crowd(old, CALLERS, ledger.work) as before:
        ledger.goes_on()
        done = kyb(new, "migrate")
        assert (done.returncode, done.stderr) == (0, "")
        assert f"schema {OWN} → {NEXT}" in done.stdout
        assert revision(url) == NEXT
        ledger.goes_on()
        new.start()
        with Crowd(new, CALLERS, ledger.work) as beside:
            ledger.goes_on()
    assert (before.lost, beside.lost, ledger.others) == (0, 0, [])
    # Each knows what the other recorded, and takes part in what the other began.
    one, two = old.client(), new.client()
    for mine, other in ((one, two), (two, one)):
        key = {"Idempotency-Key": unique("key")}
        made = mine.assess(named("Shared Ltd"), key)
        assert made.status == 201
        assert other.assess(named("Shared Ltd"), key).body == made.body
        assert other.get(f"/v1/assessments/{made.json['id']}").status == 200
        assert other.post(f"/v1/assessments/{made.json['id']}/replay", {}).json == {"identical": True}
        ledger.ids.append(made.json["id"])
    assert {each["id"] for each in one.walk(limit=200)} == {each["id"] for each in two.walk(limit=200)} == {*ledger.ids}
    # As after a crash, in a fleet that grows, or when a rollout is taken back.
    old.restart(LOG_LEVEL="info")
    assert f"has schema {NEXT}, which works with this version of the service; its own is {OWN}" in old.logged()
    assert old.client().recorded(named("Again Ltd"))
    done = kyb(old, "migrate")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"up to date (schema {NEXT}, later than {OWN} of this version)" in done.stdout
    assert revision(url) == NEXT
    assert (
        f"{NEXT}, later than {OWN} of this version of the service, and works with it" in kyb(old, "doctor", "db").stdout
    )
    verified = kyb(old, "audit", "verify")
    # Nothing was compared with a checkpoint kept outside.
    assert verified.returncode == 6, verified.stdout


def test_a_migration_that_has_to_wait_for_a_table_lets_requests_through(versions: Versions) -> None:
    old, new, url = versions
    ledger = Ledger()
    said: list[subprocess.CompletedProcess[str]] = []
    waiting = "SELECT 1 FROM pg_locks WHERE relation = 'assessments'::regclass AND mode = 'AccessExclusiveLock'"
    with Crowd(old, CALLERS, ledger.work) as crowd:
        with transaction(url) as execute:
            # Whoever reads for long, such as an export.
            execute("LOCK TABLE assessments IN ACCESS SHARE MODE")
            migrating = threading.Thread(target=lambda: said.append(kyb(new, "migrate")))
            migrating.start()
            for _ in range(2):
                wait_until(lambda: query(url, waiting), "the migration waits for the table", CALL_LIMIT_S)
                ledger.goes_on()
            assert revision(url) == OWN
        migrating.join(CALL_LIMIT_S)
        assert [done.returncode for done in said] == [0], said
        ledger.goes_on()
    assert (crowd.lost, ledger.others) == (0, [])
    assert revision(url) == NEXT


def test_a_version_that_a_contracted_schema_does_not_serve_refuses_to_start(database: str, tmp_path: Path) -> None:
    settings = {"DATABASE_URL": database}
    new = Service(tmp_path, PYTHONPATH=next_version(tmp_path / "next", CONTRACTS, NEXT), **settings)
    assert kyb(new, "migrate").returncode == 0
    refused = failed_start(tmp_path, **settings)
    again = kyb(Service(tmp_path, **settings), "migrate")
    for code, said in ((refused.returncode, refused.stderr), (again.returncode, again.stderr)):
        assert code == 4
        assert f"has schema {NEXT}, and this version of the service knows {OWN} at most" in said
        assert f"while services of {NEXT} and later work there" in said
    assert revision(database) == NEXT


def test_a_later_schema_is_taken_only_at_its_word(database: str) -> None:
    async def nothing(store: PostgresStore) -> None:
        assert store.schema_version == OWN

    query(migrated(database), f"UPDATE alembic_version SET version_num = '{NEXT}'")
    play(postgres_store(database), nothing)
    for word in ("NULL", "'Services of schema 9999 and later work on this database.'", "'anything'"):
        query(database, f"COMMENT ON TABLE alembic_version IS {word}")
        with pytest.raises(StoreRefused, match=f"knows {OWN} at most"):
            play(postgres_store(database), nothing)
    query(database, "COMMENT ON TABLE alembic_version IS 'Services of schema 0001 and later work on this database.'")
    play(postgres_store(database), nothing)
