"""Whatever becomes of a commit, the trail stays whole and tells what is on record."""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from databases import Postgres, migrated, postgres_store, query
from proxy import Proxy
from records import play, receipt, row
from trails import actors, whole

from app.store import sqlite_file
from app.store.base import KeyBusy, RowRefused, StoreUnavailable, Unconfirmed, opened
from app.store.postgres import link
from app.store.postgres import trail as postgres_trail
from app.store.postgres.link import Session
from app.store.postgres.store import PostgresStore
from app.store.sqlite import SqliteStore
from app.store.trail import RECORDED, Act, Head, act


@pytest.fixture
def ready(database: str) -> str:
    return migrated(database)


class Faulty:
    """A connection to SQLite one of whose commits fails, before or after it took effect."""

    def __init__(self, connection: sqlite3.Connection, faults: list[str], code: int) -> None:
        self._connection = connection
        self._faults = faults
        self._code = code

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def execute(self, sql: str, *values: Any) -> Any:
        if sql == "COMMIT" and self._faults:
            if self._faults.pop() == "after":
                self._connection.execute(sql)
            error = sqlite3.OperationalError("as a test")
            error.sqlite_errorcode = self._code
            raise error
        return self._connection.execute(sql, *values)


# After the one the connection is made anew, after the other it is not.
@pytest.mark.parametrize("code", [sqlite3.SQLITE_IOERR, sqlite3.SQLITE_FULL])
@pytest.mark.parametrize("fault", ["before", "after"])
@pytest.mark.parametrize("is_keyed", [False, True])
def test_a_commit_of_the_file_that_fails_leaves_a_whole_trail(
    code: int, fault: str, is_keyed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    faults: list[str] = []
    connect = sqlite_file.connect
    monkeypatch.setattr(
        "app.store.sqlite.connect", lambda *given, **named: Faulty(connect(*given, **named), faults, code)
    )
    first, lost, after = row(), row(), row()
    kept = receipt("k", lost) if is_keyed else None

    async def scenario(store: SqliteStore) -> None:
        await store.add([first], actor="k1")
        faults.append(fault)
        with pytest.raises(StoreUnavailable):
            await store.add([lost], kept, actor="k1")
        assert (await store.get("acme", lost.id) is not None) == (fault == "after")
        await store.add([after], actor="k1")
        assert len(await store.segments("acme")) == 2
        assert await store.add([lost], kept, actor="k1") is None
        assert await actors(store) == {one.id: "k1" for one in (first, lost, after)}
        faults.append(fault)
        with pytest.raises(StoreUnavailable):
            await store.note([act("acme", "a", "k")])
        await store.note([act("acme", "b", "k")])
        assert [one.act for one in await whole(store) if one.act != RECORDED] == ["a", "b"][fault == "before" :]

    play(SqliteStore(tmp_path / "records.db"), scenario)


def test_a_file_put_in_the_place_of_another_begins_segments_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "records.db"
    kept, lost, after = row(), row(), row()

    async def keep(store: SqliteStore) -> None:
        await store.add([kept], actor="k1")

    async def scenario(store: SqliteStore) -> None:
        await store.add([lost], actor="k1")
        await store.check()
        for left in ("-wal", "-shm"):
            os.unlink(f"{path}{left}")
        os.rename(backup, path)
        await store.add([after], actor="k1")
        assert await actors(store) == {kept.id: "k1", after.id: "k1"}

    play(SqliteStore(path), keep)
    backup = tmp_path / "backup"
    backup.write_bytes(path.read_bytes())
    play(SqliteStore(path), scenario)


class Breaking(link.Aging):
    """A connection to PostgreSQL that breaks when something was entered in the trail, once for each of `faults`.

    before: nothing of the statement arrived.  after: its answer did not.  silent: nor did anything else, in time.
    late: it is held up, and takes effect after it was looked for.  pending: after the caller of the test commits.
    """

    url: str
    ends: str
    faults: list[str]
    held: list[asyncpg.Connection]
    late: bool
    looks: list[object]

    async def execute(self, query: str, *args: Any, **options: Any) -> Any:
        if not self.faults or self.ends not in query:
            return await super().execute(query, *args, **options)
        fault = self.faults.pop(0)
        if fault in ("late", "pending"):
            other = await asyncpg.connect(self.url)
            await other.execute("BEGIN")
            await other.execute(query, *args)
            self.held.append(other)
        elif fault != "before":
            await super().execute(query, *args, **options)
        raise TimeoutError if fault == "silent" else ConnectionResetError(fault)

    async def fetchval(self, query: str, *args: Any, **options: Any) -> Any:
        found = await super().fetchval(query, *args, **options)
        if query == postgres_trail._ON_RECORD:
            self.looks.append(found)
            if self.late:
                await self.release()
        return found

    @classmethod
    async def release(cls) -> None:
        while cls.held:
            connection = cls.held.pop()
            await connection.execute("COMMIT")
            await connection.close()


@pytest.fixture
def breaking(ready: str, monkeypatch: pytest.MonkeyPatch) -> type[Breaking]:
    """The connections that stores make from now on."""

    class Own(Breaking):
        faults: list[str] = []  # noqa: RUF012
        held: list[asyncpg.Connection] = []  # noqa: RUF012
        looks: list[object] = []  # noqa: RUF012
        url = ready
        ends = "INTO audit_entries"
        late = False

    monkeypatch.setattr(link, "Aging", Own)
    return Own


@pytest.mark.parametrize("is_keyed", [False, True])
@pytest.mark.parametrize("fault", ["before", "after", "late"])
def test_a_commit_that_was_lost_sight_of_is_recognised(
    fault: str, is_keyed: bool, ready: str, breaking: type[Breaking]
) -> None:
    first, after = row(), row()
    lost = [row(), row("other"), row()]

    async def scenario(store: PostgresStore) -> None:
        await store.add([first], actor="k1")
        breaking.faults.append(fault)
        breaking.late = fault == "late"
        adding = [store.add([one], receipt(one.id.hex(), one) if is_keyed else None, actor="k2") for one in lost]
        assert await asyncio.gather(*adding) == [None] * 3
        assert [bool(look) for look in breaking.looks] == {"before": [False], "after": [True], "late": [False, True]}[
            fault
        ]
        await store.add([after], actor="k1")
        assert await actors(store) == {first.id: "k1", lost[0].id: "k2", lost[2].id: "k2", after.id: "k1"}
        assert await actors(store, "other") == {lost[1].id: "k2"}
        entries = await whole(store)
        assert [one.number for one in entries] == [1, 2, 3]
        assert store.moved()["acme"] == (Head(entries[-1].segment, 3, entries[-1].hash),)

    play(postgres_store(ready), scenario)


@pytest.mark.parametrize("is_keyed", [False, True])
@pytest.mark.parametrize(
    "faults", [["silent"], ["before", "before"], ["pending"], ["before", "after"], ["before", "silent"]]
)
def test_a_commit_whose_end_is_not_known_closes_its_segment(
    faults: list[str], is_keyed: bool, ready: str, breaking: type[Breaking]
) -> None:
    first, lost, after = row(), row(), row()
    kept = receipt("k", lost) if is_keyed else None

    async def scenario(store: PostgresStore) -> None:
        await store.add([first], actor="k1")
        breaking.faults += faults
        with pytest.raises((StoreUnavailable, KeyBusy) if faults == ["pending"] else Unconfirmed):
            await store.add([lost], kept, actor="k2")
        await store.add([after], actor="k1")
        await breaking.release()
        assert await store.add([lost], kept, actor="k2") is None
        assert await actors(store) == {first.id: "k1", lost.id: "k2", after.id: "k1"}
        assert len(await store.segments("acme")) == 2

    # A key that is busy is waited for in vain.
    play(postgres_store(ready, key_wait_s=0.1), scenario)


@pytest.mark.parametrize("faults", [["before"], ["after"], ["silent"], ["before", "before"], ["before", "after"]])
@pytest.mark.parametrize("ends", ["INTO audit_entries", "COMMIT"])
def test_work_and_its_acts_take_effect_once(faults: list[str], ends: str, ready: str, breaking: type[Breaking]) -> None:
    breaking.ends = ends
    done: list[int] = []

    async def work(session: Session) -> int:
        done.append(len(done))
        await session.execute("INSERT INTO pulse (place, at) VALUES ($1, now())", done[-1])
        return done[-1]

    def acts(place: int) -> list[Act]:
        return [act("acme", "key.created", "cli", place=place)]

    async def scenario(store: PostgresStore) -> None:
        assert await store._act(work, acts) == 0
        breaking.faults += faults
        told = None
        try:
            told = await store._act(work, acts)
        except Unconfirmed:
            assert faults[-1] == "silent" or len(faults) == 2
        last = await store._act(work, acts)
        on_record = [json.loads(one.detail)["place"] for one in await whole(store)]
        pulses = [place for (place,) in await asyncio.to_thread(query, ready, "SELECT place FROM pulse ORDER BY place")]
        assert sorted(on_record) == pulses
        took_effect = faults[-1] in ("after", "silent") and ends == "COMMIT"
        assert len(pulses) == (3 if took_effect or told is not None else 2)
        assert {told, last} <= {None, *pulses}

    play(postgres_store(ready), scenario)


def test_work_found_done_by_an_attempt_before_does_not_take_its_number_again(
    ready: str, breaking: type[Breaking]
) -> None:
    done: list[bool] = []

    async def work(session: Session) -> bool:
        done.append(bool(done))
        return done[-1]

    async def scenario(store: PostgresStore) -> None:
        await store.note([act("acme", "a", "k")])
        breaking.faults.append("late")
        breaking.late = True
        assert await store._act(work, lambda again: [] if again else [act("acme", "b", "k")])
        await store.note([act("acme", "c", "k")])
        assert [one.act for one in await whole(store)] == ["a", "b", "c"]

    play(postgres_store(ready), scenario)


def test_work_that_fails_or_has_no_acts_leaves_the_trail_as_it_is(ready: str) -> None:
    async def nothing(session: Session) -> str:
        return "nothing"

    async def fail(session: Session) -> str:
        await session.execute("INSERT INTO pulse (place, at) VALUES (1, now())")
        raise RowRefused("as a test")

    async def scenario(store: PostgresStore) -> None:
        assert await store._act(nothing, [act("acme", "a", "k")]) == "nothing"
        assert await store._act(nothing, lambda told: []) == "nothing"
        with pytest.raises(RowRefused):
            await store._act(fail, [act("acme", "b", "k")])
        assert await store._act(nothing, [act("acme", "c", "k")]) == "nothing"
        entries = await whole(store)
        assert [(one.act, one.number) for one in entries] == [("a", 1), ("c", 2)]
        assert len({one.segment for one in entries}) == 1
        assert await asyncio.to_thread(query, ready, "SELECT 1 FROM pulse") == []

    play(postgres_store(ready), scenario)


def test_acts_and_group_commits_do_not_wait_for_each_other(ready: str) -> None:
    async def work(session: Session) -> None:
        await session.execute("SELECT 1")

    async def scenario(store: PostgresStore) -> None:
        rows = [row() for _ in range(200)]
        noting = [store.note([act("acme", "a", "k")]) for _ in range(20)]
        acting = [store._act(work, [act("acme", "b", "k")]) for _ in range(20)]
        await asyncio.gather(*noting, store.add_each(rows, actor="k1"), *acting)
        assert len(await actors(store)) == 200
        # One of the group commits, one of all acts.
        entries = await whole(store)
        assert len({one.segment for one in entries}) == 2
        assert sum(one.act in ("a", "b") for one in entries) == 40

    play(postgres_store(ready), scenario)


def test_an_act_that_is_given_up_leaves_a_whole_trail(ready: str) -> None:
    async def scenario(store: PostgresStore) -> None:
        reached = asyncio.Event()

        async def wait(session: Session) -> None:
            reached.set()
            await asyncio.Event().wait()

        await store.note([act("acme", "a", "k")])
        acting = asyncio.create_task(store._act(wait, [act("acme", "b", "k")]))
        await reached.wait()
        acting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await acting
        await store.note([act("acme", "c", "k")])
        assert sorted(one.act for one in await whole(store)) == ["a", "c"]

    play(postgres_store(ready), scenario)


def test_whatever_becomes_of_connections_the_trail_tells_what_is_on_record(postgres: Postgres, ready: str) -> None:
    async def scenario() -> None:
        with Proxy(postgres.port) as proxy:
            url = ready.replace(f":{postgres.port}/", f":{proxy.port}/")
            acknowledged: dict[bytes, str] = {}
            stopped = asyncio.Event()

            async def until_acknowledged(send: Callable[[], Awaitable[object]]) -> None:
                while True:
                    try:
                        assert await send() is None
                    except StoreUnavailable:
                        await asyncio.sleep(0.002)
                    else:
                        return

            async def write(store: PostgresStore, number: int) -> None:
                while not stopped.is_set():
                    rows = [row() for _ in range(number % 3 + 1)]
                    kept = receipt(rows[0].id.hex(), *rows) if number % 2 else None
                    await until_acknowledged(lambda: store.add(rows, kept, actor=f"k{number}"))  # noqa: B023
                    acknowledged.update({one.id: f"k{number}" for one in rows})

            async with opened(postgres_store(url)) as one, opened(postgres_store(url)) as other:
                writing = [asyncio.create_task(write(store, number)) for store in (one, other) for number in range(12)]
                for _ in range(12):
                    before = len(acknowledged)
                    while len(acknowledged) < before + 60:  # noqa: ASYNC110
                        await asyncio.sleep(0.001)
                    await asyncio.to_thread(proxy.reset)
                    await asyncio.to_thread(proxy.heal)
                stopped.set()
                await asyncio.gather(*writing)
        async with opened(postgres_store(ready)) as store:
            assert await actors(store) == acknowledged

    asyncio.run(scenario())
