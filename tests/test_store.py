"""Every store keeps its promises; then what only the SQLite file must stand."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest

from app.ids import Uuid7, ceiling, floor, text, time_ms
from app.store import sqlite_file
from app.store.base import Added, KeyReused, Row, RowRefused, Store, StoredModel, StoreRefused, StoreUnavailable
from app.store.sqlite import SqliteStore, page_sql

ids = Uuid7()


def row(tenant_id: str = "acme", *, key: str | None = None, fingerprint: bytes = b"f" * 32, **fields: object) -> Row:
    made = Row(
        tenant_id=tenant_id,
        id=ids.new(),
        business_id="cust-1",
        level=1,
        decision=1,
        score=2350,
        model_sha256=b"m" * 32,
        input=b'{"business": {"name": "\xc3\x84"}}',
        record=b"\x00\x01\xff",
        idempotency_key=key,
        fingerprint=fingerprint if key is not None else None,
    )
    return msgspec.structs.replace(made, **fields)


def unkeyed(row: Row) -> Row:
    return msgspec.structs.replace(row, idempotency_key=None, fingerprint=None)


@dataclass
class Backend:
    """Opens stores on one database. `program` begins a child's program with a function `open_store`."""

    make: Callable[[], Store]
    program: str

    def run(self, scenario: Callable[[Store], Awaitable[None]]) -> None:
        async def opened() -> None:
            store = self.make()
            await store.open()
            try:
                await scenario(store)
            finally:
                await store.close()

        asyncio.run(opened())

    def child(self, body: str, *arguments: str) -> subprocess.Popen[str]:
        """A process that runs `async def main(store, arguments)`."""
        program = f"{self.program}\n{CHILD}\n{body}\n{CHILD_RUN}"
        command = [sys.executable, "-c", program, *arguments]
        root = Path(__file__).parents[1]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True, cwd=root)


CHILD = """
import asyncio, json, sys
from app.ids import Uuid7, text
from app.store.base import Row
new = Uuid7().new

def row(tenant_id, key=None):
    fingerprint = b"f" if key else None
    return Row(tenant_id, new(), "cust", 1, 1, 100, b"m" * 32, b"i" * 1500, b"r" * 1000, key, fingerprint)

def say(*values):
    print(json.dumps(values), flush=True)
"""
CHILD_RUN = """
async def opened():
    store = open_store()
    await store.open()
    try:
        await main(store, sys.argv[1:])
    finally:
        await store.close()

asyncio.run(opened())
"""


@pytest.fixture(params=["sqlite"])
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Backend:
    path = str(tmp_path / "records.db")
    return Backend(
        make=lambda: SqliteStore(path),
        program=f"from app.store.sqlite import SqliteStore\ndef open_store(): return SqliteStore({path!r})",
    )


# The promises of every store


def test_a_row_is_read_back_as_it_was_added(backend: Backend) -> None:
    full, bare = row(), row(business_id=None, input=b"", record=b"")

    async def add(store: Store) -> None:
        assert await store.add(full) == Added(full.id)
        assert await store.add(bare) == Added(bare.id)
        assert await store.get("acme", full.id) == full

    async def read(store: Store) -> None:
        assert await store.get("acme", full.id) == full
        assert await store.get("acme", bare.id) == bare
        assert await store.get("acme", ids.new()) is None

    backend.run(add)
    backend.run(read)


def test_nothing_crosses_tenants(backend: Backend) -> None:
    mine = row("acme", key="k")

    async def scenario(store: Store) -> None:
        await store.add(mine)
        assert await store.get("other", mine.id) is None
        assert await store.find_key("other", "k") is None
        for filters in ({}, {"business_id": "cust-1"}, {"level": 1}, {"decision": 1}, {"level": 1, "decision": 1}):
            assert await store.page("other", limit=9, **filters) == []
            assert await store.page("acme", limit=9, **filters) == [unkeyed(mine)]
        theirs = row("other", key="k", fingerprint=b"another")
        assert await store.add(theirs) == Added(theirs.id)
        # Even the same id may stand once in each tenant.
        assert await store.add(row("other", id=mine.id)) == Added(mine.id)

    backend.run(scenario)


def test_a_key_used_again_answers_the_first_row(backend: Backend) -> None:
    first, again, other = row(key="k"), row(key="k"), row(key="k", fingerprint=b"other")

    async def scenario(store: Store) -> None:
        assert await store.find_key("acme", "k") is None
        assert await store.add(first) == Added(first.id)
        assert await store.find_key("acme", "k") == (first.fingerprint, first)
        assert await store.add(again) == Added(first.id, first)
        with pytest.raises(KeyReused) as reused:
            await store.add(other)
        assert (reused.value.key, reused.value.id) == ("k", first.id)
        assert await store.page("acme", limit=9) == [unkeyed(first)]

    backend.run(scenario)


def test_a_key_is_used_once_within_a_batch(backend: Backend) -> None:
    first, same, other, neighbour = row(key="k"), row(key="k"), row(key="k", fingerprint=b"x"), row(key="l")
    plain = row()

    async def scenario(store: Store) -> None:
        answers = await store.add_many([first, same, other, neighbour, plain])
        assert answers[:2] == [Added(first.id), Added(first.id, first)]
        assert isinstance(answers[2], KeyReused)
        assert answers[3:] == [Added(neighbour.id), Added(plain.id)]
        assert {found.id for found in await store.page("acme", limit=9)} == {first.id, neighbour.id, plain.id}

    backend.run(scenario)


def test_a_row_sent_again_is_recorded_once(backend: Backend) -> None:
    plain, keyed = row(), row(key="k")

    async def scenario(store: Store) -> None:
        for _ in range(2):
            assert await store.add_many([plain, keyed]) == [Added(plain.id), Added(keyed.id)]
        assert await store.add_many([plain, plain]) == [Added(plain.id)] * 2
        with pytest.raises(RowRefused):
            await store.add(msgspec.structs.replace(plain, score=1))
        assert await store.page("acme", limit=9) == [unkeyed(keyed), plain]

    backend.run(scenario)


def test_a_bad_row_fails_alone(backend: Backend) -> None:
    bad = [
        row(id=b"short"),
        row(level=9),
        row(score=2**70),
        row(business_id="\ud800"),
        row(record=None),
        row(key="k", record=None),
    ]
    good = [row(), row(key="k"), row()]

    async def scenario(store: Store) -> None:
        answers = await store.add_many([good[0], *bad, *good[1:]])
        assert [type(answer) for answer in answers] == [Added, *[RowRefused] * len(bad), Added, Added]
        assert [found.id for found in await store.page("acme", limit=20)] == [each.id for each in reversed(good)]

    backend.run(scenario)


def test_many_rows_added_at_once_are_all_there(backend: Backend) -> None:
    rows = [row(f"tenant-{number % 3}", key=f"k{number}" if number % 2 else None) for number in range(1_500)]

    async def scenario(store: Store) -> None:
        assert await store.add_many(rows) == [Added(each.id) for each in rows]
        found = await asyncio.gather(*(store.get(each.tenant_id, each.id) for each in rows))
        assert found == [unkeyed(each) for each in rows]

    backend.run(scenario)


def test_pages_hold_what_the_filters_say_newest_first(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    # Small spans, so that a search by business crosses several.
    monkeypatch.setattr("app.store.sqlite.TIDY_ROWS", 20)
    monkeypatch.setattr("app.store.sqlite_file.SPAN_ROWS", 30)
    draw = random.Random(7)
    clock = iter(range(1_000, 2_000))
    new = Uuid7(lambda: next(clock)).new
    rows = [
        row(
            draw.choice(("acme", "other")),
            id=new(),
            business_id=draw.choice((None, "a", "b", "c")),
            level=draw.randrange(4),
            decision=draw.randrange(3),
        )
        for _ in range(400)
    ]
    # Not quite in the order of their ids, as several processes would add them.
    order = sorted(rows, key=lambda each: time_ms(each.id) + draw.randrange(40))

    async def scenario(store: Store) -> None:
        for start in range(0, len(order), 10):
            await store.add_many(order[start : start + 10])
            await store.check()
        times = sorted(draw.sample(range(990, 1_420), 2))
        for _ in range(300):
            filters = {
                "business_id": draw.choice((None, None, "a", "b", "nobody")),
                "level": draw.choice((None, 0, 1, 2, 3)),
                "decision": draw.choice((None, 0, 1, 2)),
            }
            bounds = {
                "since_id": draw.choice((None, floor(times[0]), draw.choice(rows).id)),
                "until_id": draw.choice((None, ceiling(times[1]), draw.choice(rows).id)),
                "before_id": draw.choice((None, None, draw.choice(rows).id)),
            }
            expected = [
                each
                for each in reversed(rows)
                if each.tenant_id == "acme"
                and all(value is None or getattr(each, name) == value for name, value in filters.items())
                and (bounds["since_id"] is None or each.id >= bounds["since_id"])
                and (bounds["until_id"] is None or each.id <= bounds["until_id"])
                and (bounds["before_id"] is None or each.id < bounds["before_id"])
            ]
            limit = draw.choice((1, 5, 200))
            assert await store.page("acme", limit=limit, **filters, **bounds) == expected[:limit]

    backend.run(scenario)


def test_a_list_is_walked_by_its_last_id(backend: Backend) -> None:
    rows = [row() for _ in range(25)]

    async def scenario(store: Store) -> None:
        await store.add_many(rows)
        seen: list[Row] = []
        while page := await store.page("acme", business_id="cust-1", before_id=seen[-1].id if seen else None, limit=10):
            seen += page
        assert seen == rows[::-1]

    backend.run(scenario)


def test_a_model_is_kept_once_under_its_hash(backend: Backend) -> None:
    async def scenario(store: Store) -> None:
        assert await store.model(b"1" * 32) is None
        await store.save_model(b"1" * 32, "kyb", "1.0.0", b"definition")
        await store.save_model(b"1" * 32, "kyb", "1.0.0", b"another")
        await store.save_model(b"2" * 32, "kyb", "0.9.0", b"older")
        assert await store.model(b"1" * 32) == b"definition"
        assert await store.models() == [StoredModel(b"2" * 32, "kyb", "0.9.0"), StoredModel(b"1" * 32, "kyb", "1.0.0")]

    backend.run(scenario)


def test_closing_records_what_was_submitted_and_then_refuses(backend: Backend) -> None:
    rows = [row() for _ in range(700)]

    async def submit() -> None:
        store = backend.make()
        await store.open()
        adding = [asyncio.create_task(store.add(each)) for each in rows]
        await asyncio.sleep(0)
        await store.close()
        assert await asyncio.gather(*adding) == [Added(each.id) for each in rows]
        for late in (store.add(row()), store.get("acme", rows[0].id), store.check(), store.page("acme", limit=1)):
            with pytest.raises(StoreUnavailable):
                await late
        await store.close()

    async def count(store: Store) -> None:
        assert len(await store.page("acme", limit=1_000)) == len(rows)

    asyncio.run(submit())
    backend.run(count)


def test_processes_share_the_database_and_its_keys(backend: Backend) -> None:
    body = """
async def main(store, arguments):
    say("ready")
    sys.stdin.readline()
    for start in range(0, 300, 10):
        answers = await store.add_many([row("acme", f"k{n}") for n in range(start, start + 10)])
        say(*[text(answer.row_id) for answer in answers])
    """
    children = [backend.child(body) for _ in range(3)]
    said: list[list[str]] = []
    for child in children:
        assert child.stdout is not None
        assert json.loads(child.stdout.readline()) == ["ready"]
    for child in children:
        assert child.stdin is not None
        child.stdin.write("go\n")
        child.stdin.flush()
    for child in children:
        output, _ = child.communicate()
        assert child.returncode == 0
        said.append([id for line in output.splitlines() for id in json.loads(line)])
    # Whoever came first, all three were answered the same assessment for the same key.
    assert said[0] == said[1] == said[2]
    assert len(set(said[0])) == 300

    async def scenario(store: Store) -> None:
        assert {text(found.id) for found in await store.page("acme", limit=1_000)} == set(said[0])

    backend.run(scenario)


def test_a_killed_process_loses_nothing_it_acknowledged(backend: Backend) -> None:
    body = """
async def main(store, arguments):
    async def user(number):
        for turn in range(10**9):
            added = await store.add(row("acme", f"{number}-{turn}" if number % 2 else None))
            say(text(added.row_id))
    await asyncio.gather(*map(user, range(20)))
    """
    with backend.child(body) as child:
        assert child.stdout is not None
        lines = [child.stdout.readline() for _ in range(3_000)]
        child.send_signal(signal.SIGKILL)
        lines += [line for line in child.stdout if line.endswith("]\n")]
    acknowledged = {json.loads(line)[0] for line in lines}

    async def scenario(store: Store) -> None:
        assert acknowledged <= {text(found.id) for found in await store.page("acme", limit=10**6)}
        await store.add(row())

    backend.run(scenario)


# The SQLite file


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "records.db"


def run_sqlite(path: Path, scenario: Callable[[SqliteStore], Awaitable[None]], timeout_s: float = 5.0) -> None:
    async def opened() -> None:
        store = SqliteStore(path, timeout_s=timeout_s)
        await store.open()
        try:
            await scenario(store)
        finally:
            await store.close()

    asyncio.run(opened())


async def nothing(store: SqliteStore) -> None:
    """Only open and close."""


def refusal(path: Path, timeout_s: float = 5.0) -> str:
    threads = threading.active_count()
    with pytest.raises(StoreRefused) as refused:
        run_sqlite(path, nothing, timeout_s)
    assert threading.active_count() == threads
    assert refused.value.fault.endswith(".")
    assert refused.value.remedy.endswith(".")
    return str(refused.value)


def change(path: Path, *statements: str) -> None:
    connection = sqlite3.connect(path, isolation_level=None)
    for statement in statements:
        connection.execute(statement).fetchall()
    connection.close()


def test_the_file_is_set_up_for_durable_commits(path: Path) -> None:
    async def scenario(store: SqliteStore) -> None:
        await store.add(row())

        def settings(connection: sqlite3.Connection) -> list[object]:
            names = ("journal_mode", "synchronous", "page_size", "application_id", "user_version", "busy_timeout")
            return [connection.execute(f"PRAGMA {name}").fetchone()[0] for name in names]

        expected = ["wal", 2, 16384, sqlite_file.APPLICATION_ID, sqlite_file.SCHEMA_VERSION, 5_000]
        assert await store._writer.run(settings) == expected

    run_sqlite(path, scenario)
    # Closing leaves one file, readable by its owner alone.
    assert os.listdir(path.parent) == ["records.db"]
    assert path.stat().st_mode & 0o777 == 0o600


def test_no_filter_scans_the_table(path: Path) -> None:
    run_sqlite(path, nothing)
    connection = sqlite3.connect(path)
    values = {"tenant": "t", "business": "b", "level": 1, "decision": 1, "low": b"", "high": b"\xff", "limit": 10}
    for by_business in (False, True):
        for by_level in (False, True):
            for by_decision in (False, True):
                sql = page_sql(by_business, by_level, by_decision)
                plan = [step[3] for step in connection.execute(f"EXPLAIN QUERY PLAN {sql}", values)]
                assert any(
                    "USING INDEX assessments_by_" in step or "COVERING INDEX assessments_by_" in step for step in plan
                )
                assert not [step for step in plan if step.startswith("SCAN") and step != "SCAN p"], plan
                assert not [step for step in plan if "TEMP B-TREE" in step], plan
                # Every filter narrows the index, none is left to be checked row by row.
                if by_business:
                    assert any("tenant_id=? AND span=? AND business_id=? AND id>? AND id<?" in step for step in plan)
                elif by_level or by_decision:
                    assert any("tenant_id=? AND level=? AND decision=? AND id>? AND id<?" in step for step in plan)
    connection.close()


def test_rows_move_on_to_new_spans(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.store.sqlite.TIDY_ROWS", 50)
    monkeypatch.setattr(sqlite_file, "SPAN_ROWS", 100)

    async def scenario(store: SqliteStore) -> None:
        for _ in range(60):
            await store.add_many([row() for _ in range(10)])

    run_sqlite(path, scenario)
    connection = sqlite3.connect(path)
    spans = connection.execute("SELECT span, start, first_row FROM spans ORDER BY span").fetchall()
    held = connection.execute("SELECT span, min(id), max(id), count(*) FROM assessments GROUP BY span").fetchall()
    connection.close()
    assert len(spans) >= 4
    for (span, lowest, highest, _), (_, start, _), following in zip(held, spans, [*spans[1:], None], strict=False):
        assert lowest >= start, span
        assert following is None or highest < following[1], span


def test_a_clock_far_ahead_costs_no_order(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.store.sqlite.TIDY_ROWS", 50)
    monkeypatch.setattr(sqlite_file, "SPAN_ROWS", 100)
    ahead = Uuid7(lambda: 2**47)

    async def scenario(store: SqliteStore) -> None:
        rows = [row(id=ahead.new()) if number == 99 else row() for number in range(600)]
        for start in range(0, 600, 50):
            await store.add_many(rows[start : start + 50])
            await store.check()
        found = await store.page("acme", business_id="cust-1", limit=1_000)
        assert [each.id for each in found] == sorted((each.id for each in rows), reverse=True)

    run_sqlite(path, scenario)
    connection = sqlite3.connect(path)
    spans = connection.execute("SELECT first_row FROM spans ORDER BY span").fetchall()
    connection.close()
    assert len(spans) == 2
    assert spans[-1][0] > 400


def test_a_full_disk_fails_what_waits_and_nothing_after(path: Path) -> None:
    async def scenario(store: SqliteStore) -> None:
        await store.add(row())

        def limit(pages: int) -> Callable[[sqlite3.Connection], object]:
            return lambda connection: connection.execute(f"PRAGMA max_page_count = {pages}").fetchone()

        await store._writer.run(limit(1))
        refused = [row(input=b"i" * 20_000) for _ in range(5)]
        answers = await store.add_many(refused)
        assert [type(answer) for answer in answers] == [StoreUnavailable] * 5
        assert "full" in str(answers[0])
        assert await store.get("acme", refused[0].id) is None
        await store._writer.run(limit(10**6))
        assert await store.add_many(refused) == [Added(each.id) for each in refused]

    run_sqlite(path, scenario)


def test_a_failing_write_fails_what_waits_and_nothing_after(path: Path) -> None:
    body = f"""
import resource
from app.store.base import StoreUnavailable
from app.store.sqlite import SqliteStore
def open_store(): return SqliteStore({str(path)!r})

async def main(store, arguments):
    first = row("acme")
    await store.add(first)
    resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, resource.RLIM_INFINITY))
    answers = await store.add_many([row("acme") for _ in range(200)])
    assert [type(answer) for answer in answers] == [StoreUnavailable] * 200, answers
    try:
        await store.check()
        for _ in range(20):
            await store.add(row("acme"))
    except StoreUnavailable:
        pass
    else:
        raise AssertionError("the limit was not felt")
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    await store.check()
    answers = await store.add_many([row("acme") for _ in range(200)])
    assert await store.get("acme", first.id) == first
    for answer in answers:
        assert await store.get("acme", answer.row_id) is not None
    say("done")
    """
    output, _ = Backend(lambda: SqliteStore(path), "").child(body).communicate()
    assert output == '["done"]\n'


def test_a_lock_held_too_long_fails_what_waits_and_nothing_after(path: Path) -> None:
    async def scenario(store: SqliteStore) -> None:
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        for attempt in (store.add(row()), store.check()):
            with pytest.raises(StoreUnavailable, match="locked"):
                await attempt
        other.execute("ROLLBACK")
        other.close()
        added = await store.add(row())
        assert await store.get("acme", added.row_id) is not None

    run_sqlite(path, scenario, timeout_s=0.02)


def test_a_read_that_takes_too_long_is_ended(path: Path) -> None:
    endless = "WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n) SELECT count(*) FROM n"

    async def scenario(store: SqliteStore) -> None:
        with pytest.raises(StoreUnavailable, match="interrupted"):
            await store._ask(store.reads, endless, ())
        assert await store.page("acme", limit=1) == []
        assert await store.get("acme", b"0" * 16) is None

    run_sqlite(path, scenario, timeout_s=0.05)


def test_rows_are_not_written_to_a_deleted_file(path: Path) -> None:
    async def scenario(store: SqliteStore) -> None:
        kept = row()
        await store.add(kept)
        hidden = path.with_name("elsewhere")
        await asyncio.to_thread(path.rename, hidden)
        for attempt in (store.add(row()), store.check(), store.get("acme", kept.id)):
            with pytest.raises(StoreUnavailable, match="gone"):
                await attempt
        await asyncio.to_thread(hidden.rename, path)
        await store.add(row())
        assert await store.get("acme", kept.id) == kept

    run_sqlite(path, scenario)


def test_a_file_that_is_no_database_is_refused(path: Path) -> None:
    path.write_bytes(b"tenant,score\n" * 1_000)
    assert "is not an SQLite database" in refusal(path)
    assert path.read_bytes() == b"tenant,score\n" * 1_000


def test_a_damaged_database_is_refused(path: Path) -> None:
    async def fill(store: SqliteStore) -> None:
        await store.add_many([row(input=os.urandom(3_000)) for _ in range(50)])

    run_sqlite(path, fill)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert "is damaged" in refusal(path)
    path.write_bytes(whole[:100] + b"\xa5" * 8_000 + whole[8_100:])
    assert "is damaged" in refusal(path)


def test_a_database_of_another_program_is_refused_untouched(path: Path) -> None:
    change(path, "CREATE TABLE books (title TEXT)")
    before = path.read_bytes()
    assert "belongs to another program" in refusal(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize(("version", "words"), [(99, "has schema 99"), (0, "older than")])
def test_a_schema_of_another_version_is_refused(path: Path, version: int, words: str) -> None:
    run_sqlite(path, nothing)
    change(path, f"PRAGMA user_version = {version}")
    assert words in refusal(path)


def test_a_changed_schema_is_refused(path: Path) -> None:
    run_sqlite(path, nothing)
    change(path, "DROP INDEX assessments_by_outcome")
    assert "missing or were changed: assessments_by_outcome" in refusal(path)


def test_a_folder_that_cannot_hold_the_file_is_refused(path: Path) -> None:
    assert "There is no folder" in refusal(path / "below" / "records.db")
    path.write_bytes(b"")
    assert "There is no folder" in refusal(path / "records.db")
    assert "is a folder" in refusal(path.parent)
    assert "cannot be created" in refusal(Path("/proc/records.db"))


def test_a_full_disk_at_the_start_is_refused(path: Path) -> None:
    assert "is full" in refusal(Path("/dev/full"))


def test_a_lock_held_at_the_start_is_refused(path: Path) -> None:
    run_sqlite(path, nothing)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    assert "locked" in refusal(path, timeout_s=0.02)
    other.close()


def test_a_large_file_opens_at_once(path: Path) -> None:
    async def fill(store: SqliteStore) -> None:
        for _ in range(8):
            await store.add_many([row(input=b"i" * 1_500) for _ in range(1_000)])

    run_sqlite(path, fill)

    async def open_ms() -> float:
        store = SqliteStore(path)
        started = time.perf_counter()
        await store.open()
        took = time.perf_counter() - started
        await store.close()
        return took * 1e3

    assert min(asyncio.run(open_ms()) for _ in range(5)) <= 50
