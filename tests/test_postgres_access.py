"""Keys, overrides, watchlists and dispositions in PostgreSQL when the answer to a commit is lost on the way, and when
many are at work."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import asyncpg
import pytest
from databases import Postgres, migrated, postgres_store, query
from msgspec.structs import replace
from records import disposition, list_version, override, play, row, stored_key

from app.resilience.retry import Retry, RetryBudget
from app.store.base import Unconfirmed
from app.store.postgres.link import Lost
from app.store.postgres.store import PostgresStore
from app.store.trail import act

NOW_MS = 1_800_000_000_000
OLD, SUCCESSOR = stored_key(), stored_key()
ROW = row()
PENDING = override(ROW, state="pending", level=0, decision=0)
APPROVED = replace(PENDING, state="approved", approver="key-of-another", approved_ms=NOW_MS)
APPLIED, ASKED = override(ROW), override(ROW, state="pending")
DONE = act("acme", "done", "cli")
LISTED, NEWER = list_version("sdn", 1, b"one"), list_version("sdn", 2, b"two")
SET_ASIDE, NAMESAKE = disposition(ROW), disposition(ROW, list="un")

CHANGES: dict[str, Callable[[PostgresStore], Awaitable[object]]] = {
    "add_key": lambda store: store.add_key(SUCCESSOR, DONE),
    "end_key": lambda store: store.end_key("acme", OLD.id, revoked_ms=NOW_MS, act=DONE),
    "replace_key": lambda store: store.replace_key("acme", OLD.id, SUCCESSOR, expires_ms=NOW_MS, acts=[DONE]),
    "an override in force": lambda store: store.add_override(APPLIED, DONE, over=None),
    "a pending override": lambda store: store.add_override(ASKED, DONE, over=None),
    "approve_override": lambda store: store.approve_override(APPROVED, DONE, over=None),
    "put_list": lambda store: store.put_list(NEWER, b"two", DONE),
    "drop_list": lambda store: store.drop_list("sdn", DONE),
    "add_disposition": lambda store: store.add_disposition(NAMESAKE, DONE),
    "end_disposition": lambda store: store.end_disposition(
        "acme", SET_ASIDE.id, ended_ms=NOW_MS, ended_by="k", act=DONE
    ),
}

CHANGED = (
    *("assessments", "api_keys", "overrides", "audit_entries", "watchlists", "watchlist_versions", "watchlist_parts"),
    "dispositions",
)
"""The tables that hold something then."""

Session = AbstractAsyncContextManager[Any]


@pytest.fixture
def ready(database: str) -> str:
    return migrated(database)


@asynccontextmanager
async def cut_before_commit(session: Session, _: str) -> AsyncIterator[Any]:
    async with session as opened:
        yield opened
        raise Lost("the connection broke")


@asynccontextmanager
async def cut_after_commit(session: Session, _: str) -> AsyncIterator[Any]:
    async with session as opened:
        yield opened
    raise Lost("the connection broke")


@asynccontextmanager
async def cut_with_a_commit_under_way(_: Session, url: str) -> AsyncIterator[Any]:
    """The server ends the transaction only when the next attempt stands before its locks."""
    connection = await asyncpg.connect(url)
    await connection.execute("BEGIN")
    yield connection

    async def end() -> None:
        while not await connection.fetchval("SELECT count(*) > 0 FROM pg_locks WHERE NOT granted"):
            pass
        await connection.execute("COMMIT")
        await connection.close()

    ENDING.append(asyncio.create_task(end()))
    raise Lost("the connection broke")


ENDING: list[asyncio.Task[None]] = []


def cut_first(store: PostgresStore, cut: Callable[[Session, str], Session], url: str) -> None:
    """Let the store's next transaction end so, and those after it as they are."""
    sessions = store._writing.session
    cuts = 0

    def session(**options: Any) -> Session:
        nonlocal cuts
        cuts += bool(options.get("transaction"))
        opened = sessions(**options)
        return cut(opened, url) if cuts == 1 and options.get("transaction") else opened

    store._writing.session = session


async def prepare(store: PostgresStore) -> None:
    await store.add([ROW])
    await store.add_key(OLD, act("acme", "prepared", "cli"))
    await store.add_override(PENDING, act("acme", "prepared", "cli"), over=None)
    await store.put_list(LISTED, b"one", act("acme", "prepared", "cli"))
    await store.add_disposition(SET_ASIDE, act("acme", "prepared", "cli"))


async def made(store: PostgresStore, url: str) -> list[object]:
    """All that the changes can change, and what the trail tells of them."""
    return [
        await store.get("acme", ROW.id),
        await store.overrides("acme", ROW.id),
        sorted(await store.keys(None), key=lambda key: key.id),
        await store.lists(),
        [await store.snapshot_part(version.snapshot, 0) for version in (LISTED, NEWER)],
        await store.disposition_page("acme", limit=9),
        await acts(url),
    ]


async def acts(url: str) -> list[str]:
    rows = await asyncio.to_thread(query, url, "SELECT act FROM audit_entries")
    return sorted(name for (name,) in rows)


@pytest.fixture(params=CHANGES)
def change(request: pytest.FixtureRequest) -> str:
    return request.param


def empty(url: str) -> None:
    """Take away all that a change can leave, which in the trail only the owner of its tables can."""
    guarded = [table for table in CHANGED if table in ("audit_entries", "audit_checkpoints")]
    for word in ("DISABLE", "ENABLE"):
        for table in guarded:
            query(url, f"ALTER TABLE {table} {word} TRIGGER only_added_to")
        if word == "DISABLE":
            query(url, f"TRUNCATE {', '.join(CHANGED)}")


@pytest.fixture(scope="module")
def undisturbed(postgres: Postgres) -> dict[str, list[object]]:
    """By change, its answer and all that it leaves where nothing is lost."""
    left: dict[str, list[object]] = {}
    url = migrated(postgres.create_database())
    for change, make in CHANGES.items():

        async def scenario(store: PostgresStore, change: str = change, make: Any = make) -> None:
            await prepare(store)
            left[change] = [await make(store), *await made(store, url)]

        play(postgres_store(url), scenario)
        empty(url)
    return left


@pytest.mark.parametrize("cut", [cut_before_commit, cut_after_commit, cut_with_a_commit_under_way])
def test_a_change_whose_answer_is_lost_is_made_and_told_of_once(
    ready: str, undisturbed: dict[str, list[object]], change: str, cut: Callable[[Session, str], Session]
) -> None:
    async def scenario(store: PostgresStore) -> None:
        await prepare(store)
        store.retry = Retry(RetryBudget(), retry_on=(Lost,), base_s=0)
        cut_first(store, cut, ready)
        answer = await CHANGES[change](store)
        while ENDING:
            await ENDING.pop()
        left = await made(store, ready)
        assert [answer, *left] == undisturbed[change]
        # The trail goes on.
        await store.note([DONE])
        assert (await made(store, ready))[:-1] == left[:-1]
        assert (await acts(ready)).count("done") == 2

    play(postgres_store(ready), scenario)


def test_a_change_of_which_nobody_knows_whether_it_was_made_says_so(ready: str, change: str) -> None:
    async def scenario(store: PostgresStore) -> None:
        await prepare(store)
        store.retry = Retry(RetryBudget(), retry_on=(Lost,), attempts=1)
        cut_first(store, cut_after_commit, ready)
        with pytest.raises(Unconfirmed):
            await CHANGES[change](store)
        await store.note([DONE])
        assert (await acts(ready)).count("done") == 2

    play(postgres_store(ready), scenario)


def test_two_who_note_the_use_of_keys_do_not_wait_for_each_other_in_a_circle(ready: str) -> None:
    keys = [stored_key() for _ in range(60)]

    async def scenario(store: PostgresStore) -> None:
        for each in keys:
            await store.add_key(each, DONE)
        other = postgres_store(ready)
        await other.open()
        try:
            for number in range(40):
                noted = {each.id: NOW_MS + number for each in keys}
                turned = {each.id: NOW_MS + number + 1 for each in reversed(keys)}
                # The server would end one of them.
                await asyncio.gather(store.touch_keys(noted), other.touch_keys(turned))
        finally:
            await other.close()
        assert {each.last_used_ms for each in await store.keys("acme")} == {NOW_MS + 40}

    play(postgres_store(ready), scenario)
