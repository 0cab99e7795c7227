"""A file of an earlier schema is brought up to date, whole or not at all."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from records import FINGERPRINT, disposition, ids, list_version, override, play, receipt, row, stored_key
from sqlite_versions import VERSION_1, VERSION_2, VERSION_3
from trails import whole

from app.ids import now_ms
from app.store.base import Row, StoreRefused
from app.store.chain import leaf
from app.store.keeping import Erasure, Relationship, Retention
from app.store.sqlite import SqliteStore
from app.store.sqlite_file import migrate
from app.store.sqlite_schema import SCHEMA, SCHEMA_VERSION
from app.store.trail import act

VERSIONS = {1: VERSION_1, 2: VERSION_2, 3: VERSION_3}
EARLIER = tuple(VERSIONS)

KILLED = """
import os, signal, sqlite3, sys
from app.store import sqlite_file

statements = 0
connect = sqlite_file.connect

def traced(*values):
    connection = connect(*values)

    def count(statement):
        global statements
        statements += 1
        if statements == int(sys.argv[2]):
            os.kill(os.getpid(), signal.SIGKILL)

    connection.set_trace_callback(count)
    return connection

sqlite_file.connect = traced
sqlite_file.migrate(sys.argv[1], 5.0)
"""

# Each has seen the version before any of them begins.
TOGETHER = """
import sys
from app.store import sqlite_file, sqlite_schema

known_version = sqlite_schema.known_version

def seen(*values):
    sqlite_schema.known_version = known_version
    version = known_version(*values)
    print(version, flush=True)
    sys.stdin.readline()
    return version

sqlite_schema.known_version = seen
print(sqlite_file.migrate(sys.argv[1], 20.0))
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "records.db"


def earlier(path: Path, version: int, rows: list[Row]) -> None:
    """Make a file of that version with these rows, each under a key."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA page_size = 16384")
        connection.execute("PRAGMA journal_mode = WAL")
        for statement in VERSIONS[version]:
            connection.execute(statement)
        add = "INSERT INTO assessments (tenant_id, id, business_id, level, decision, score, model_sha256, input, record"
        values = [[getattr(each, name) for name in Row.__struct_fields__[:9]] for each in rows]
        connection.executemany(f"{add}, span) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, 1)", values)
        for key, each in enumerate(rows):
            if version == 1:
                connection.execute("INSERT INTO idempotency VALUES (?, ?, x'01', ?)", ("acme", f"k{key}", each.id))
            else:
                kept = "INSERT INTO idempotency VALUES (?, ?, ?, 201, ?, 0, 1, x'02', 'r', 739000, ?)"
                connection.execute(kept, ("acme", f"k{key}", FINGERPRINT, each.id, now_ms()))
        connection.execute("INSERT INTO models VALUES (x'01', 'kyb', '1.0.0', x'02')")


def python(program: str, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", program, *arguments]
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1]
    )


def found(path: Path) -> tuple[int, dict[str, str]]:
    """The version of the file, and its schema."""
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        schema = dict(connection.execute("SELECT name, sql FROM sqlite_schema WHERE sql IS NOT NULL"))
        return connection.execute("PRAGMA user_version").fetchone()[0], schema


def refusal(path: Path) -> StoreRefused:
    """What a start says to the file."""

    async def start() -> StoreRefused:
        with pytest.raises(StoreRefused) as refused:
            await SqliteStore(path).open()
        return refused.value

    return asyncio.run(start())


def use(path: Path, version: int, rows: list[Row]) -> None:
    """Read the rows of a file that had this version, and record, decide, erase and drop in it."""

    async def opened() -> None:
        store = SqliteStore(path)
        await store.open()
        assert await store.page("acme", limit=99) == rows[::-1]
        assert await store.page("acme", business_id="cust-1", limit=99) == rows[::-1]
        fresh = row()
        answer = await store.add([fresh], receipt("k0", fresh))
        if version == 1 or not rows:
            # No key of version 1 is left.
            assert answer is None
            assert await store.get("acme", fresh.id) == fresh
        else:
            assert answer is not None
            assert answer.ids == (rows[0].id,)
        for each in rows:
            over = override(each)
            assert await store.add_override(over, act("acme", "override.created", "k"), over=None)
            assert (await store.overrides("acme", each.id)) == [over]
        for each in await store.get_each("acme", [each.id for each in rows]):
            assert each is not None
            assert (each.level, each.original_level) == (3, 1)
        expected = len(rows) + (answer is None)
        erased = await store.erase("acme", "cust-1", reason="asked", redact=bytes, now_ms=1)
        assert erased.assessments == expected
        for each in rows:
            found = await store.get("acme", each.id)
            assert found is not None
            assert found.leaf == leaf(each)
        assert await store.model(b"\1") == b"\2"
        await store.close()

    asyncio.run(opened())


@pytest.mark.parametrize("version", EARLIER)
def test_a_file_of_an_earlier_version_is_refused_until_it_is_migrated(path: Path, version: int) -> None:
    rows = [row(input=b"i" * 50_000), row(), row(input=b"")]
    earlier(path, version, rows)
    before = path.read_bytes()
    refused = refusal(path)
    assert refused.fault.endswith(f"has schema {version}, older than {SCHEMA_VERSION} of this version of the service.")
    assert refused.remedy == "Run `kyb migrate`."
    assert path.read_bytes() == before
    assert migrate(path, 5.0) == (version, SCHEMA_VERSION)
    assert migrate(path, 5.0) == (SCHEMA_VERSION, SCHEMA_VERSION)
    use(path, version, rows)


@pytest.mark.parametrize("version", EARLIER)
def test_a_migrated_file_has_the_schema_of_a_fresh_one(path: Path, version: int) -> None:
    fresh = path.with_name("fresh.db")
    earlier(path, version, [row()])
    migrate(path, 5.0)
    assert migrate(fresh, 5.0) == (0, SCHEMA_VERSION)
    assert found(path) == found(fresh) == (SCHEMA_VERSION, SCHEMA)


def test_what_was_erased_before_the_migration_stays_erased(path: Path) -> None:
    erased = row(business_id=None, input=None, input_sha256=b"s" * 32)
    earlier(path, 2, [])
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        values = (erased.id, erased.model_sha256, erased.record, erased.input_sha256)
        connection.execute("INSERT INTO assessments VALUES ('acme', ?, NULL, 1, 1, 1, 2350, ?, NULL, ?, ?)", values)
        connection.execute("INSERT INTO erasures VALUES (1, 'acme', x'01', 5, 1, 'asked')")
        connection.execute("INSERT INTO retentions VALUES ('acme', 30)")
        connection.execute("INSERT INTO relationships VALUES ('acme', 'b', NULL)")
    migrate(path, 5.0)

    async def opened() -> None:
        store = SqliteStore(path)
        await store.open()
        assert await store.get("acme", erased.id) == erased
        assert await store.erasures("acme") == [Erasure(b"\1", 5, 1, "asked")]
        assert await store.retentions() == [Retention("acme", 30)]
        assert await store.relationships("acme") == [Relationship("b", None)]
        await store.close()

    asyncio.run(opened())


def test_keys_overrides_and_the_trail_of_version_3_stay(path: Path) -> None:
    one = row()
    kept, decided, told = stored_key(), override(one), act("acme", "override.created", "k")
    fresh = path.with_name("fresh.db")

    async def before(store: SqliteStore) -> None:
        await store.add([one], actor="k")
        await store.add_key(kept, told)
        assert await store.add_override(decided, told, over=None)

    play(SqliteStore(fresh), before)
    earlier(path, 3, [])
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("ATTACH ? AS fresh", (str(fresh),))
        for table in ("assessments", "api_keys", "overrides", "audit_entries"):
            held = ", ".join(name for _, name, *_ in connection.execute(f"PRAGMA main.table_info({table})"))
            connection.execute(f"INSERT INTO main.{table} ({held}) SELECT {held} FROM fresh.{table}")
    assert migrate(path, 5.0) == (3, SCHEMA_VERSION)

    async def after(store: SqliteStore) -> None:
        assert [each.override_id for each in await store.page("acme", limit=9)] == [decided.id]
        assert await store.keys(None) == [kept]
        assert await store.overrides("acme", one.id) == [decided]
        assert len(await whole(store)) == 3
        version, namesake = list_version("sdn", 1, b"one"), disposition(one)
        assert await store.put_list(version, b"one", told)
        assert await store.lists() == [version]
        assert await store.add_disposition(namesake, told)
        assert await store.dispositions("acme", namesake.business) == [namesake]

    play(SqliteStore(path), after)


def test_migrating_makes_the_file_that_a_start_would_make(path: Path) -> None:
    started = path.with_name("started.db")

    async def start() -> None:
        store = SqliteStore(started)
        await store.open()
        await store.close()

    asyncio.run(start())
    assert migrate(path, 5.0) == (0, SCHEMA_VERSION)
    assert path.read_bytes() == started.read_bytes()
    path.write_bytes(b"")
    assert migrate(path, 5.0) == (0, SCHEMA_VERSION)
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("version", EARLIER)
def test_a_migration_killed_anywhere_leaves_one_schema_or_the_other(path: Path, version: int) -> None:
    rows = [row(input=b"i" * 50_000), row()]
    earlier(path, version, rows)
    pristine = path.read_bytes()
    versions: list[int] = []
    killed = True
    while killed:
        path.write_bytes(pristine)
        for log in path.parent.glob("records.db-*"):
            log.unlink()
        with python(KILLED, str(path), str(3 * len(versions) + 1)) as child:
            killed = child.wait() != 0
        left, schema = found(path)
        assert (left, schema == SCHEMA) in [(version, False), (SCHEMA_VERSION, True)]
        assert migrate(path, 5.0) == (left, SCHEMA_VERSION)
        versions.append(left)
    assert versions == sorted(versions)
    # Also killed well within the transaction, after tables were dropped and made.
    assert versions.count(version) >= 4, versions
    use(path, version, rows)


@pytest.mark.parametrize("version", EARLIER)
def test_of_several_migrations_at_once_one_does_the_work(path: Path, version: int) -> None:
    rows = [row() for _ in range(20)]
    earlier(path, version, rows)
    with ExitStack() as stack:
        children = [stack.enter_context(python(TOGETHER, str(path))) for _ in range(4)]
        for child in children:
            assert child.stdout is not None
            assert child.stdout.readline() == f"{version}\n"
        for child in children:
            assert child.stdin is not None
            child.stdin.write("go\n")
            child.stdin.flush()
        said = [child.communicate()[0].strip() for child in children]
    assert sorted(said) == [f"({version}, {SCHEMA_VERSION})", *[f"({SCHEMA_VERSION}, {SCHEMA_VERSION})"] * 3]
    use(path, version, rows)


def test_a_store_that_is_open_meanwhile_acknowledges_nothing_that_is_not_there(path: Path) -> None:
    earlier(path, 1, [])
    with closing(sqlite3.connect(path, isolation_level=None)) as old:
        add = "INSERT INTO assessments (tenant_id, id, span, level, decision, score, model_sha256, input, record)"
        values = ("acme", ids.new(), b"m" * 32, b"input", b"record")
        old.execute(f"{add} VALUES (?, ?, 1, 0, 0, 0, ?, ?, ?)", values)
        migrate(path, 5.0)
        values = ("acme", ids.new(), b"m" * 32, b"input", b"record")
        old.execute(f"{add} VALUES (?, ?, 1, 0, 0, 0, ?, ?, ?)", values)
        with pytest.raises(sqlite3.OperationalError, match="no column named assessment_id"):
            old.execute("INSERT INTO idempotency (tenant_id, key, fingerprint, assessment_id) VALUES ('', '', '', '')")
    assert found(path) == (SCHEMA_VERSION, SCHEMA)


@pytest.mark.parametrize(
    ("version", "words"),
    [(99, f"has schema 99, and this version of the service knows {SCHEMA_VERSION}"), (0, "has schema 0, older")],
)
def test_an_unknown_version_is_refused_by_start_and_migration(path: Path, version: int, words: str) -> None:
    migrate(path, 5.0)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version = {version}")
    assert words in refusal(path).fault
    assert "kyb migrate" not in refusal(path).remedy
    with pytest.raises(StoreRefused, match=words):
        migrate(path, 5.0)


@pytest.mark.parametrize("version", EARLIER)
def test_a_changed_file_of_an_earlier_version_is_refused_untouched(path: Path, version: int) -> None:
    for change, names in (
        ("ALTER TABLE assessments ADD COLUMN mine TEXT", "assessments"),
        ("DROP INDEX assessments_by_id", "assessments_by_id"),
        ("ALTER TABLE models ADD COLUMN mine TEXT", "models"),
    ):
        path.unlink(missing_ok=True)
        earlier(path, version, [row()])
        with closing(sqlite3.connect(path)) as connection:
            connection.execute(change)
        before = found(path)
        with pytest.raises(StoreRefused, match=f"missing or were changed: {names}."):
            migrate(path, 5.0)
        assert found(path) == before


def test_a_file_that_cannot_be_migrated_says_why(path: Path) -> None:
    path.write_bytes(b"tenant,score\n" * 1_000)
    with pytest.raises(StoreRefused, match="is not an SQLite database"):
        migrate(path, 5.0)
    with pytest.raises(StoreRefused, match="There is no folder"):
        migrate(path / "below" / "records.db", 5.0)
    path.unlink()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE books (title TEXT)")
    before = path.read_bytes()
    with pytest.raises(StoreRefused, match="belongs to another program"):
        migrate(path, 5.0)
    assert path.read_bytes() == before
    path.unlink()
    earlier(path, 1, [])
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreRefused, match="locked"):
            migrate(path, 0.02)
