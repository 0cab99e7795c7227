"""What only the SQLite file must stand."""

from __future__ import annotations

import asyncio
import datetime as dt
import os
import sqlite3
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from records import Backend, play, receipt, row

from app.ids import Uuid7, now_ms
from app.resilience.batcher import Overloaded
from app.store import sqlite_file, sqlite_keeping, sqlite_schema, sqlite_write
from app.store.base import RowRefused, StoreRefused, StoreUnavailable
from app.store.sqlite import SqliteStore, page_sql
from app.store.sqlite_write import Answer, Entry


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "records.db"


def run_sqlite(path: Path, scenario: Callable[[SqliteStore], Awaitable[None]], timeout_s: float = 5.0) -> None:
    play(SqliteStore(path, timeout_s=timeout_s), scenario)


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
        await store.add([row()])

        def settings(connection: sqlite3.Connection) -> list[object]:
            names = ("journal_mode", "synchronous", "page_size", "application_id", "user_version", "busy_timeout")
            return [connection.execute(f"PRAGMA {name}").fetchone()[0] for name in names]

        expected = ["wal", 2, 16384, sqlite_schema.APPLICATION_ID, sqlite_schema.SCHEMA_VERSION, 5_000]
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
            await store.add_each([row() for _ in range(10)])

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
            await store.add_each(rows[start : start + 50])
            await store.check()
        found = await store.page("acme", business_id="cust-1", limit=1_000)
        assert [each.id for each in found] == sorted((each.id for each in rows), reverse=True)

    run_sqlite(path, scenario)
    connection = sqlite3.connect(path)
    spans = connection.execute("SELECT first_row FROM spans ORDER BY span").fetchall()
    connection.close()
    assert len(spans) == 2
    assert spans[-1][0] > 400


def test_spans_go_on_after_the_newest_rows_were_dropped(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.store.sqlite.TIDY_ROWS", 50)
    monkeypatch.setattr(sqlite_file, "SPAN_ROWS", 100)

    async def fill(store: SqliteStore, tenant_id: str) -> None:
        for _ in range(60):
            await store.add_each([row(tenant_id) for _ in range(10)])

    async def scenario(store: SqliteStore) -> None:
        await fill(store, "gone")
        await store.set_retention("gone", 1)
        await store.drop_past(dt.date.today() + dt.timedelta(9))
        await fill(store, "acme")
        assert len(await store.page("acme", business_id="cust-1", limit=1_000)) == 600

    run_sqlite(path, scenario)
    connection = sqlite3.connect(path)
    held = connection.execute("SELECT count(*) FROM assessments GROUP BY span").fetchall()
    connection.close()
    assert len(held) >= 4


def test_a_row_without_its_input_is_refused(path: Path) -> None:
    async def scenario(store: SqliteStore) -> None:
        for erased in (row(input=None), row(input=None, input_sha256=b"h" * 32)):
            with pytest.raises(RowRefused):
                await store.add([erased])

    run_sqlite(path, scenario)


def test_many_rows_are_not_in_front_of_single_ones(path: Path) -> None:
    async def scenario(store: SqliteStore) -> None:
        settled: list[str] = []

        async def add(name: str, count: int) -> None:
            await store.add([row() for _ in range(count)])
            settled.append(name)

        await asyncio.gather(*(add("many", 1_000) for _ in range(8)), add("single", 1))
        assert settled == ["single", *["many"] * 8]

    run_sqlite(path, scenario)


def test_many_rows_go_in_transactions_of_bounded_size(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.store.sqlite.BULK_ROWS", 100)
    sizes: list[list[int]] = []
    write = sqlite_write.write

    def recorded(entries: list[Entry], *others: Any) -> list[Answer]:
        sizes.append([len(entry.rows) for entry in entries])
        if len(sizes) == 3:
            raise sqlite3.OperationalError("disk I/O error")
        return write(entries, *others)

    monkeypatch.setattr("app.store.sqlite.write", recorded)

    async def scenario(store: SqliteStore) -> None:
        adding = [store.add([row() for _ in range(count)]) for count in (40, 60, 2, 300, 99, 2, 70)]
        answers = await asyncio.gather(*adding, return_exceptions=True)
        assert sizes == [[40, 60], [2], [300]]
        # What was committed before the failure is told so; what waited behind it is not on record.
        assert [type(answer) for answer in answers] == [type(None)] * 3 + [StoreUnavailable] * 4
        assert len(await store.page("acme", limit=1_000)) == 102

    run_sqlite(path, scenario)


def test_too_many_rows_that_wait_are_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.store.sqlite.BULK_ROWS_WAITING", 100)

    async def scenario(store: SqliteStore) -> None:
        for _ in range(2):
            adding = [store.add([row() for _ in range(40)]) for _ in range(3)]
            answers = await asyncio.gather(*adding, return_exceptions=True)
            assert [type(answer) for answer in answers] == [type(None), type(None), Overloaded]
        # Alone even more may come.
        assert await store.add([row() for _ in range(200)]) is None

    run_sqlite(path, scenario)


def test_expired_receipts_are_deleted_a_few_at_a_time(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.store.sqlite.TIDY_ROWS", 1)
    deleted: list[int] = []
    drop = sqlite_write.drop_receipts

    def recorded(before_ms: int, limit: int, connection: sqlite3.Connection) -> int:
        deleted.append(drop(before_ms, limit, connection))
        return deleted[-1]

    monkeypatch.setattr("app.store.sqlite.drop_receipts", recorded)
    start_ms = now_ms()
    clock_ms = start_ms

    async def scenario() -> None:
        nonlocal clock_ms
        store = SqliteStore(path, key_ttl_s=60.0, clock=lambda: clock_ms)
        await store.open()
        await asyncio.gather(*(store.add([], receipt(f"old{n}", None, created_ms=start_ms)) for n in range(450)))
        newer = receipt("newer", None, created_ms=start_ms + 1)
        await store.add([], newer)
        assert store._tidying is not None
        await store._tidying
        assert set(deleted) == {0}
        deleted.clear()
        clock_ms = start_ms + 60_001
        await store.add([row()])
        await store._tidying
        assert deleted == [200, 200, 50]
        assert await store.add([], receipt("newer", None, created_ms=start_ms + 2)) == newer
        await store.close()

    asyncio.run(scenario())


def test_expired_receipts_are_found_by_their_time(path: Path) -> None:
    run_sqlite(path, nothing)
    connection = sqlite3.connect(path)
    plan = [step[3] for step in connection.execute(f"EXPLAIN QUERY PLAN {sqlite_write._DROP_RECEIPTS}", (1, 1))]
    connection.close()
    assert any("idempotency_by_created (created_ms<?)" in step for step in plan)
    assert any("USING PRIMARY KEY (tenant_id=? AND key=?)" in step for step in plan)
    assert not [step for step in plan if step.startswith("SCAN")], plan


def test_what_was_erased_or_dropped_is_nowhere_in_the_files(path: Path) -> None:
    # Short rows within a page, long ones over pages of their own.
    names = [b"Maria Musterfrau", b"Max Mustermann", b"Moritz Mustersohn"]
    rows = [
        row("acme", business_id="erased", input=names[0] * 2, record=names[0]),
        row("acme", business_id="erased", input=names[0] * 3_000, record=names[0] * 2_000),
        row("acme", business_id="kept", input=names[1], record=b""),
        row("gone", input=names[2] * 3_000, record=names[2]),
        row("gone", input=names[2], record=names[2] * 2_000),
    ]

    def held() -> list[bool]:
        content = b"".join(file.read_bytes() for file in path.parent.iterdir())
        return [name in content for name in names]

    async def scenario(store: SqliteStore) -> None:
        for each in rows:
            await store.add([each])
        await store.check()
        assert held() == [True, True, True]
        await store.erase("acme", "erased", reason="asked", redact=lambda record: b"", now_ms=1)
        assert held() == [False, True, True]
        await store.set_retention("gone", 1)
        await store.drop_past(dt.date.today() + dt.timedelta(9))
        assert held() == [False, True, False]

    run_sqlite(path, scenario)
    assert held() == [False, True, False]


def test_others_write_while_many_assessments_are_dropped_and_erased(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # No time at all: every slice ends at the first look at the clock.
    monkeypatch.setattr("app.store.sqlite_keeping.SLICE_S", 0.0)

    async def scenario(store: SqliteStore) -> None:
        await store.add_each([row("gone") for _ in range(160)])
        await store.add_each([row("acme", business_id="erased") for _ in range(40)])
        await store.set_retention("gone", 1)

        async def writes_during(work: Coroutine[Any, Any, object]) -> int:
            working = asyncio.create_task(work)
            count = 0
            while not working.done():
                await store.add([row("busy")])
                count += 1
            await working
            return count

        assert await writes_during(store.drop_past(dt.date.today() + dt.timedelta(9))) >= 5
        erasing = store.erase("acme", "erased", reason="asked", redact=lambda record: b"", now_ms=1)
        assert await writes_during(erasing) >= 20
        assert await store.page("gone", limit=1) == []
        assert await store.page("acme", business_id="erased", limit=1) == []
        assert [noted.assessments for noted in await store.erasures("acme")] == [40]

    run_sqlite(path, scenario)


@pytest.mark.parametrize("change", ["relationship", "retention"])
def test_what_is_held_after_it_was_found_is_not_dropped(
    path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    find = sqlite_keeping._find_past

    def found_and_changed(*values: Any) -> object:
        answer = find(*values)
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            if change == "relationship":
                other.execute("INSERT INTO relationships VALUES ('acme', 'cust-1', NULL)")
            else:
                other.execute("UPDATE retentions SET days = 1826")
        return answer

    monkeypatch.setattr(sqlite_keeping, "_find_past", found_and_changed)
    mine = row()

    async def scenario(store: SqliteStore) -> None:
        await store.add([mine])
        await store.set_retention("acme", 1)
        assert await store.drop_past(dt.date.today() + dt.timedelta(9)) == []
        assert await store.get("acme", mine.id) == mine

    run_sqlite(path, scenario)


def test_an_erasure_that_ends_early_is_noted_for_what_it_did(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.store.sqlite_keeping.SLICE_S", 0.0)
    rows = [row(record=b"%d" % number) for number in range(10)]

    def fails_at_the_seventh(record: bytes) -> bytes:
        if record == b"6":
            raise ValueError("not a record")
        return b""

    async def scenario(store: SqliteStore) -> None:
        await store.add_each(rows)
        with pytest.raises(ValueError, match="not a record"):
            await store.erase("acme", "cust-1", reason="first", redact=fails_at_the_seventh, now_ms=1)
        assert [(noted.reason, noted.assessments) for noted in await store.erasures("acme")] == [("first", 6)]
        assert len(await store.page("acme", business_id="cust-1", limit=99)) == 4
        erased = await store.erase("acme", "cust-1", reason="second", redact=lambda record: b"", now_ms=2)
        assert erased.ids == [each.id for each in rows[6:]]
        notes = [(noted.reason, noted.assessments) for noted in await store.erasures("acme")]
        assert notes == [("first", 6), ("second", 4)]

    run_sqlite(path, scenario)


def test_a_business_of_more_assessments_than_one_look_finds_is_erased(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.store.sqlite_keeping.ROWS_A_LOOK", 7)
    monkeypatch.setattr("app.store.sqlite.TIDY_ROWS", 10)
    monkeypatch.setattr(sqlite_file, "SPAN_ROWS", 20)
    rows = [row() for _ in range(63)]

    async def scenario(store: SqliteStore) -> None:
        for start in range(0, 63, 9):
            await store.add_each(rows[start : start + 9])
            await store.check()
        erased = await store.erase("acme", "cust-1", reason="asked", redact=lambda record: b"", now_ms=1)
        assert erased.ids == [each.id for each in rows]

    run_sqlite(path, scenario)


def test_a_full_disk_fails_what_waits_and_nothing_after(path: Path) -> None:
    async def scenario(store: SqliteStore) -> None:
        await store.add([row()])

        def limit(pages: int) -> Callable[[sqlite3.Connection], object]:
            return lambda connection: connection.execute(f"PRAGMA max_page_count = {pages}").fetchone()

        await store._writer.run(limit(1))
        refused = [row(input=b"i" * 20_000) for _ in range(5)]
        answers = await store.add_each(refused)
        assert [type(answer) for answer in answers] == [StoreUnavailable] * 5
        assert "full" in str(answers[0])
        assert await store.get("acme", refused[0].id) is None
        await store._writer.run(limit(10**6))
        assert await store.add_each(refused) == [None] * 5

    run_sqlite(path, scenario)


def test_a_failing_write_fails_what_waits_and_nothing_after(path: Path) -> None:
    body = f"""
import resource
from app.store.base import StoreUnavailable
from app.store.sqlite import SqliteStore
def open_store(): return SqliteStore({str(path)!r})

async def main(store, arguments):
    first = row("acme")
    await store.add([first])
    resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, resource.RLIM_INFINITY))
    answers = await store.add_each([row("acme") for _ in range(200)])
    assert [type(answer) for answer in answers] == [StoreUnavailable] * 200, answers
    try:
        await store.check()
        for _ in range(20):
            await store.add([row("acme")])
    except StoreUnavailable:
        pass
    else:
        raise AssertionError("the limit was not felt")
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    await store.check()
    rows = [row("acme") for _ in range(200)]
    assert await store.add_each(rows) == [None] * 200
    assert await store.get("acme", first.id) == first
    assert await store.get_each("acme", [each.id for each in rows]) == rows
    say("done")
    """
    output, _ = Backend(partial(SqliteStore, path), "").child(body).communicate()
    assert output == '["done"]\n'


def test_a_lock_held_too_long_fails_what_waits_and_nothing_after(path: Path) -> None:
    async def scenario(store: SqliteStore) -> None:
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        for attempt in (store.add([row()]), store.check()):
            with pytest.raises(StoreUnavailable, match="locked"):
                await attempt
        other.execute("ROLLBACK")
        other.close()
        after = row()
        await store.add([after])
        assert await store.get("acme", after.id) == after

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
        await store.add([kept])
        hidden = path.with_name("elsewhere")
        await asyncio.to_thread(path.rename, hidden)
        for attempt in (store.add([row()]), store.check(), store.get("acme", kept.id)):
            with pytest.raises(StoreUnavailable, match="gone"):
                await attempt
        await asyncio.to_thread(hidden.rename, path)
        await store.add([row()])
        assert await store.get("acme", kept.id) == kept

    run_sqlite(path, scenario)


def test_a_file_that_is_no_database_is_refused(path: Path) -> None:
    path.write_bytes(b"tenant,score\n" * 1_000)
    assert "is not an SQLite database" in refusal(path)
    assert path.read_bytes() == b"tenant,score\n" * 1_000


def test_a_damaged_database_is_refused(path: Path) -> None:
    async def fill(store: SqliteStore) -> None:
        await store.add_each([row(input=os.urandom(3_000)) for _ in range(50)])

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
            await store.add_each([row(input=b"i" * 1_500) for _ in range(1_000)])

    run_sqlite(path, fill)

    async def open_ms() -> float:
        store = SqliteStore(path)
        started = time.perf_counter()
        await store.open()
        took = time.perf_counter() - started
        await store.close()
        return took * 1e3

    assert min(asyncio.run(open_ms()) for _ in range(5)) <= 50
