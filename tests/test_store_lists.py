"""Every store keeps watchlists: versions that come into force whole, once and in order, and what screenings rest on."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import closing, suppress
from functools import partial
from random import Random

import pytest
from databases import query
from msgspec.structs import replace
from records import BACKENDS, Backend, Records, ids, list_version, row

from app.store.base import RowRefused, StoreUnavailable
from app.store.lists import ORPHAN_MS, PART_BYTES, ListVersion, Rescreening, parts_of
from app.store.sqlite import SqliteStore
from app.store.trail import Act, act

ADDED = act("", "list.added", "cli")
DROPPED = act("", "list.dropped", "cli")
STATE = Rescreening("sdn", 1, 2, "acme", None, 0, 0)


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> Backend:
    return BACKENDS[request.param](request)


def content(size: int, seed: int = 1) -> bytes:
    return Random(seed).randbytes(size)


async def with_versions(store: Records, name: str, *snapshots: bytes) -> list[ListVersion]:
    """Add a version of the list for each snapshot."""
    first = await store.list_number(name) + 1
    made = [list_version(name, number, snapshot) for number, snapshot in enumerate(snapshots, first)]
    for version, snapshot in zip(made, snapshots, strict=True):
        assert await store.put_list(version, snapshot, ADDED)
    return made


async def kept(store: Records, version: ListVersion) -> bytes | None:
    """The whole snapshot, None where no part of it is kept."""
    parts = [await store.snapshot_part(version.snapshot, part) for part in range(parts_of(version.size))]
    if parts and all(part is None for part in parts):
        return None
    return b"".join([part for part in parts if part is not None])


async def told(store: Records) -> list[str]:
    """What was done, oldest first."""
    return [entry.act for entry in reversed(await store.entries("", limit=99))]


async def change(backend: Backend, sql: str) -> list[tuple[int, ...]]:
    """What a statement gives that the store has no method for."""

    def ask() -> list[tuple[int, ...]]:
        if backend.place.startswith("postgresql"):
            return [tuple(record) for record in query(backend.place, sql)]
        with closing(sqlite3.connect(backend.place, isolation_level=None)) as connection:
            return connection.execute(sql).fetchall()

    return await asyncio.to_thread(ask)


async def count_parts(backend: Backend) -> int:
    [(count,)] = await change(backend, "SELECT count(*) FROM watchlist_parts")
    return count


async def insistently(call: Callable[[], Awaitable[object]]) -> object:
    """The call's answer, made again where another held what it needs for longer than it may wait."""
    while True:
        with suppress(StoreUnavailable):
            return await call()


# Versions


@pytest.mark.parametrize("size", [1, PART_BYTES // 2, PART_BYTES, PART_BYTES + 1, 16 * PART_BYTES // 5])
def test_a_list_in_force_has_its_snapshot_byte_for_byte(backend: Backend, size: int) -> None:
    snapshot = content(size)
    version = list_version("ofac-sdn", 1, snapshot)

    async def add(store: Records) -> None:
        assert await store.lists() == []
        assert await store.put_list(version, memoryview(snapshot), ADDED)

    async def read(store: Records) -> None:
        assert await store.lists() == [version]
        assert await store.list_version("ofac-sdn", 1) == version
        parts = [await store.snapshot_part(version.snapshot, part) for part in range(parts_of(size))]
        assert b"".join([part or b"" for part in parts]) == snapshot
        assert [len(part or b"") for part in parts[:-1]] == [PART_BYTES] * (len(parts) - 1)
        assert await store.snapshot_part(version.snapshot, len(parts)) is None
        assert await store.snapshot_part(b"?" * 32, 0) is None
        assert await told(store) == ["list.added"]

    backend.run(add)
    backend.run(read)


def test_all_that_a_version_says_is_read_back(backend: Backend) -> None:
    bare = list_version("a", 1, b"a", published=None, validators=b"", title="", entities=0, names=0)
    full = list_version("b", 1, b"b", title='Ünïcode, "quotes"', entities=2**40, added_ms=2**50, validators=b"\0\xff")

    async def scenario(store: Records) -> None:
        assert await store.put_list(full, b"b", ADDED)
        assert await store.put_list(bare, b"a", ADDED)
        assert await store.lists() == [bare, full]

    backend.run(scenario)


def test_of_each_list_the_version_in_force_and_the_one_before_are_kept(backend: Backend) -> None:
    async def scenario(store: Records) -> None:
        versions = await with_versions(store, "sdn", b"one", b"two", b"three", b"four")
        [other] = await with_versions(store, "other", b"other")
        assert await store.lists() == [other, versions[-1]]
        assert await store.list_number("sdn") == 4
        assert await store.list_number("unknown") == 0
        assert [await store.list_version("sdn", number) for number in range(6)] == [
            None,
            None,
            None,
            *versions[2:],
            None,
        ]
        assert [await kept(store, version) for version in versions] == [None, None, b"three", b"four"]
        assert await kept(store, other) == b"other"
        assert await told(store) == ["list.added"] * 5

    backend.run(scenario)


@pytest.mark.parametrize("number", [0, 1, 2, 4, 99])
def test_a_number_that_is_not_the_next_changes_nothing(backend: Backend, number: int) -> None:
    async def scenario(store: Records) -> None:
        versions = await with_versions(store, "sdn", b"one", b"two")
        assert not await store.put_list(list_version("sdn", number, b"late"), b"late", ADDED)
        assert await store.lists() == versions[-1:]
        assert await store.list_version("sdn", 1) == versions[0]
        assert await told(store) == ["list.added"] * 2

    backend.run(scenario)


def test_a_snapshot_that_is_not_the_versions_is_refused(backend: Backend) -> None:
    version = list_version("sdn", 1, b"right")

    async def scenario(store: Records) -> None:
        for other in (b"wrong", b"", b"right one"):
            with pytest.raises(ValueError, match="another one than the version names"):
                await store.put_list(version, other, ADDED)
        assert await store.lists() == []
        assert await store.list_number("sdn") == 0
        assert await told(store) == []

    backend.run(scenario)


def test_of_two_who_add_the_same_number_at_once_one_does(backend: Backend) -> None:
    async def scenario(store: Records) -> None:
        other = backend.make()
        await other.open()
        try:
            for number in range(1, 7):
                # Every other time both have found the same.
                snapshots = [content(PART_BYTES + 9, seed=number * (1 + by * (number % 2))) for by in (0, 1)]
                versions = [list_version("sdn", number, snapshot, added_ms=by) for by, snapshot in enumerate(snapshots)]
                calls = [
                    partial(rival.put_list, version, snapshot, ADDED)
                    for rival, version, snapshot in zip((store, other), versions, snapshots, strict=True)
                ]
                done = await asyncio.gather(*map(insistently, calls))
                assert sorted(done) == [False, True]
                winner = done.index(True)
                assert await other.lists() == [versions[winner]]
                assert await kept(store, versions[winner]) == snapshots[winner]
        finally:
            await other.close()
        assert await told(store) == ["list.added"] * 6

    backend.run(scenario)


def test_a_version_is_noted_as_the_newest_only_while_it_is(backend: Backend) -> None:
    async def scenario(store: Records) -> None:
        first, second = await with_versions(store, "sdn", b"one", b"two")
        [other] = await with_versions(store, "other", b"other")
        assert not await store.check_list("unknown", 1, 5, b"{}")
        assert not await store.check_list("sdn", 1, 5, b"{}")
        assert not await store.check_list("sdn", 3, 5, b"{}")
        assert await store.check_list("sdn", 2, 5, b'{"etag": "2"}')
        assert await store.lists() == [other, replace(second, checked_ms=5, validators=b'{"etag": "2"}')]
        assert await store.list_version("sdn", 1) == first
        assert await store.drop_list("sdn", DROPPED)
        assert not await store.check_list("sdn", 2, 6, b"{}")

    backend.run(scenario)


def test_a_list_that_is_added_again_after_a_drop_goes_on_counting(backend: Backend) -> None:
    async def scenario(store: Records) -> None:
        assert not await store.drop_list("sdn", DROPPED)
        versions = await with_versions(store, "sdn", b"one", b"two")
        [other] = await with_versions(store, "other", b"other")
        await store.save_rescreening(STATE)
        assert await store.drop_list("sdn", DROPPED)
        assert not await store.drop_list("sdn", DROPPED)
        assert await store.lists() == [other]
        assert [await store.list_version("sdn", number) for number in (1, 2)] == [None, None]
        assert [await kept(store, version) for version in versions] == [None, None]
        assert await store.rescreening("sdn") is None
        assert await store.list_number("sdn") == 2
        assert not await store.put_list(list_version("sdn", 1, b"one"), b"one", ADDED)
        [again] = await with_versions(store, "sdn", b"one")
        assert again.number == 3
        assert await store.lists() == [other, again]
        assert await kept(store, again) == b"one"
        assert await told(store) == [*["list.added"] * 3, "list.dropped", "list.added"]

    backend.run(scenario)


# Snapshots


def test_a_snapshot_that_another_version_has_stays(backend: Backend) -> None:
    async def scenario(store: Records) -> None:
        [mine] = await with_versions(store, "mine", b"same")
        _, _, _, theirs = await with_versions(store, "theirs", b"same", b"two", b"three", b"same")
        assert await store.list_version("theirs", 1) is None
        assert await store.drop_list("mine", DROPPED)
        assert await kept(store, mine) == b"same"
        assert await store.drop_list("theirs", DROPPED)
        assert await kept(store, theirs) is None

    backend.run(scenario)


def test_what_a_rescreening_compares_with_is_kept(backend: Backend) -> None:
    async def scenario(store: Records) -> None:
        versions = await with_versions(store, "sdn", b"one", b"two")
        await store.save_rescreening(replace(STATE, base=1, target=2))
        versions += await with_versions(store, "sdn", b"three", b"four", b"five")
        assert [await kept(store, version) for version in versions] == [b"one", b"two", None, b"four", b"five"]
        assert await store.list_version("sdn", 1) == versions[0]
        await store.save_rescreening(replace(STATE, base=5, target=5))
        versions += await with_versions(store, "sdn", b"six")
        assert [await kept(store, version) for version in versions] == [None, None, None, None, b"five", b"six"]

    backend.run(scenario)


KILLED = """
import os, signal
from app.store import sqlite_lists
from app.store.lists import ListVersion, part_of
from app.store.postgres import lists
from app.store.trail import act
from records import list_version

def killed(content, part):
    if part == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return part_of(content, part)

sqlite_lists.part_of = lists.part_of = killed

async def main(store, arguments):
    snapshot = bytes(5 << 20)
    await store.put_list(list_version("sdn", 1, snapshot), snapshot, act("", "list.added", "cli"))
"""


def test_parts_that_a_killed_process_leaves_are_deleted_when_nobody_can_want_them(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(__file__).rpartition("/")[0])

    async def scenario(store: Records) -> None:
        with backend.child(KILLED) as child:
            child.communicate()
        assert child.returncode == -9
        assert await count_parts(backend) == 2
        assert await store.lists() == []
        assert await store.list_number("sdn") == 0
        # Whoever writes them may be at work yet.
        [other] = await with_versions(store, "other", b"other")
        assert await count_parts(backend) == 3
        await change(backend, f"UPDATE watchlist_parts SET created_ms = created_ms - {ORPHAN_MS + 1}")
        [newest] = await with_versions(store, "sdn", b"sdn")
        assert await count_parts(backend) == 2
        assert await store.lists() == [other, newest]
        assert [await kept(store, version) for version in (other, newest)] == [b"other", b"sdn"]

    backend.run(scenario)


def test_what_a_killed_process_wrote_of_a_snapshot_is_gone_on_with(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(__file__).rpartition("/")[0])
    snapshot = bytes(5 << 20)

    async def scenario(store: Records) -> None:
        with backend.child(KILLED) as child:
            child.communicate()
        await change(backend, f"UPDATE watchlist_parts SET created_ms = created_ms - {ORPHAN_MS + 1}")
        [version] = await with_versions(store, "sdn", snapshot)
        assert await kept(store, version) == snapshot

    backend.run(scenario)


def test_parts_that_somebody_deletes_meanwhile_are_written_again(backend: Backend) -> None:
    snapshot = content(2 * PART_BYTES + 5)
    version = list_version("sdn", 1, snapshot)

    async def scenario(store: Records) -> None:
        write = store._put_parts
        deletions = [0, 1]

        async def disturbed(*values: object) -> None:
            await write(*values)
            if deletions:
                await change(backend, f"DELETE FROM watchlist_parts WHERE part = {deletions.pop()}")

        store._put_parts = disturbed
        assert await store.put_list(version, snapshot, ADDED)
        assert await kept(store, version) == snapshot
        assert await told(store) == ["list.added"]
        deletions = [0] * 99
        with pytest.raises(StoreUnavailable, match="parts of the snapshot were deleted"):
            await store.put_list(list_version("sdn", 2, b"another"), b"another", ADDED)
        assert await store.lists() == [version]

    backend.run(scenario)


def test_others_record_while_a_snapshot_is_written_and_deleted(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = 6
    # A part a slice, however fast the machine is.
    monkeypatch.setattr("app.store.sqlite_lists.SLICE_S", 0.0)
    monkeypatch.setattr("app.store.postgres.lists.PARTS_A_DROP", 1)

    async def scenario(store: Records) -> None:
        other = backend.make()
        await other.open()
        name = "_in_turn" if isinstance(store, SqliteStore) else "_patiently"
        turn = getattr(store, name)
        seen: list[int] = []

        async def between(call: object) -> object:
            answer = await turn(call)
            # Nothing that it did is still to be committed, or this would be refused.
            await other.add([row()])
            seen.append(await count_parts(backend))
            return answer

        setattr(store, name, between)
        try:
            await with_versions(store, "sdn", content(parts * PART_BYTES))
            assert set(seen) >= set(range(1, parts + 1))
            seen.clear()
            assert await store.drop_list("sdn", DROPPED)
            assert set(seen) >= set(range(parts))
        finally:
            await other.close()

    backend.run(scenario)


# Screenings


def test_how_far_a_rescreening_has_come_is_read_back(backend: Backend) -> None:
    async def scenario(store: Records) -> None:
        assert await store.rescreening("sdn") is None
        for state in (STATE, replace(STATE, tenant_id="zeta", before_id=ids.new(), compared=2**40, recorded=7), STATE):
            await store.save_rescreening(state)
            await store.save_rescreening(replace(state, name="other", base=9))
            assert await store.rescreening("sdn") == state
            assert await store.rescreening("other") == replace(state, name="other", base=9)

    backend.run(scenario)


def test_what_was_screened_against_stays_as_it_was_first_kept(backend: Backend) -> None:
    async def scenario(store: Records) -> None:
        assert await store.screened_against(b"d" * 16) is None
        await store.save_screened_against(b"d" * 16, b'[["sdn", 1]]')
        await store.save_screened_against(b"d" * 16, b"[]")
        await store.save_screened_against(b"e" * 16, b"[1]")
        assert await store.screened_against(b"d" * 16) == b'[["sdn", 1]]'
        assert await store.screened_against(b"e" * 16) == b"[1]"

    backend.run(scenario)


def test_every_tenant_with_an_assessment_is_told_in_order(backend: Backend) -> None:
    names = [f"t{number}" for number in range(250)] + ["Ünïcode", "\U0001f600", "\uffee", "A", "a b"]

    async def scenario(store: Records) -> None:
        assert await store.tenants() == []
        await store.add_each([row(name) for name in names for _ in range(3)])
        await store.note([act("only acts", "key.created", "cli")])
        assert await store.tenants() == sorted(names)

    backend.run(scenario)


@pytest.mark.parametrize("count", [1, 99, 100, 101, 200])
def test_tenants_are_told_once_each_wherever_a_look_ends(backend: Backend, count: int) -> None:
    names = [f"t{number:04}" for number in range(count)]

    async def scenario(store: Records) -> None:
        await store.add_each([row(name) for name in names])
        assert await store.tenants() == names

    backend.run(scenario)


# With the trail


@pytest.mark.parametrize("made", ["put_list", "drop_list"])
def test_a_change_that_cannot_be_told_of_is_not_made(backend: Backend, made: str) -> None:
    # No text of any database holds a lone surrogate.
    untold = act("", "untold", "\ud800")

    async def scenario(store: Records) -> None:
        [version] = await with_versions(store, "sdn", b"one")
        calls: dict[str, Callable[[Act], Awaitable[object]]] = {
            "put_list": lambda told: store.put_list(list_version("sdn", 2, b"two"), b"two", told),
            "drop_list": lambda told: store.drop_list("sdn", told),
        }
        with pytest.raises((ValueError, RowRefused)):
            await calls[made](untold)
        assert await store.lists() == [version]
        assert await kept(store, version) == b"one"
        assert await told(store) == ["list.added"]
        assert await calls[made](act("", "told", "cli"))
        assert await told(store) == ["list.added", "told"]

    backend.run(scenario)


def test_a_closed_store_says_so_of_lists(backend: Backend) -> None:
    async def scenario() -> None:
        store = backend.make()
        await store.open()
        await store.close()
        late: list[Awaitable[object]] = [
            store.lists(),
            store.list_version("sdn", 1),
            store.list_number("sdn"),
            store.put_list(list_version("sdn", 1, b"one"), b"one", ADDED),
            store.check_list("sdn", 1, 1, b"{}"),
            store.drop_list("sdn", DROPPED),
            store.snapshot_part(b"s" * 32, 0),
            store.rescreening("sdn"),
            store.save_rescreening(STATE),
            store.save_screened_against(b"d" * 16, b"[]"),
            store.screened_against(b"d" * 16),
            store.tenants(),
        ]
        for call in late:
            with pytest.raises(StoreUnavailable):
                await call

    asyncio.run(scenario())
