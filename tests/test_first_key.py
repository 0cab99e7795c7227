"""The first key: in a file of its owner's alone, and one that works, however the start that made it ended."""

from __future__ import annotations

import asyncio
import os
import stat
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from keyed import ALL, House
from records import stored_key

from app.credentials import digest, mint, recognise
from app.ids import now_ms
from app.keys import first, first_key
from app.neighbours import make_store
from app.secrets import secrets_of
from app.settings import Settings, load
from app.settings.rates import Rate
from app.store.base import StoreUnavailable, opened
from app.store.trail import act

Work = Callable[[Any], Awaitable[None]]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "data").mkdir()
    return load({"DATA_DIR": str(tmp_path / "data")}).settings


def with_store(settings: Settings, work: Work) -> None:
    async def run() -> None:
        async with opened(make_store(settings)) as store:
            await work(store)

    asyncio.run(run())


def file_of(settings: Settings) -> Path:
    return settings.database.data_dir / "admin.key"


async def make(settings: Settings, store: Any) -> Path | None:
    return await first_key(settings, store, secrets_of(settings))


async def works(settings: Settings, store: Any) -> bool:
    """Whether the key in the file gets in as an administrator of the first tenant."""
    raw = file_of(settings).read_bytes().strip()
    caller = await House(store, secret=secrets_of(settings).key_hash).caller(raw)
    return caller is not None and (caller.tenant_id, caller.permissions) == ("default", ALL.permissions)


def test_the_first_key_is_in_a_file_that_its_owner_alone_can_read(settings: Settings) -> None:
    async def work(store: Any) -> None:
        path = await make(settings, store)
        assert path == file_of(settings)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert await works(settings, store)
        (key,) = await store.keys(None)
        assert (key.role, key.tier, key.rate, key.expires_ms) == ("admin", "unlimited", None, None)
        (entry,) = await store.entries("default", limit=9)
        assert (entry.act, entry.actor) == ("key.created", "service")
        assert path.read_bytes()[21:40] not in entry.detail
        assert sorted(os.listdir(path.parent)) == sorted(
            ["admin.key", "audit_signing_key", "key_hash_secret", *(p.name for p in path.parent.glob("kyb.db*"))]
        )

    with_store(settings, work)


def test_without_an_unlimited_tier_it_has_a_rate_of_its_own(settings: Settings) -> None:
    limits = msgspec.structs.replace(settings.limits, tiers={"standard": Rate(1, 1)})
    settings = msgspec.structs.replace(settings, limits=limits)

    async def work(store: Any) -> None:
        await make(settings, store)
        (key,) = await store.keys(None)
        assert (key.tier, key.rate) == (None, "unlimited")

    with_store(settings, work)


def test_once_there_is_one_no_other_is_made(settings: Settings) -> None:
    async def work(store: Any) -> None:
        first = await make(settings, store)
        text = file_of(settings).read_text()
        assert await make(settings, store) == first
        assert file_of(settings).read_text() == text
        assert len(await store.keys(None)) == 1

    with_store(settings, work)


def test_where_another_key_works_none_is_made(settings: Settings) -> None:
    async def work(store: Any) -> None:
        await store.add_key(stored_key(), act("acme", "key.created", "tests"))
        assert await make(settings, store) is None
        assert not file_of(settings).exists()
        assert len(await store.keys(None)) == 1

    with_store(settings, work)


def test_a_file_whose_key_does_not_work_is_left_alone_while_others_do(settings: Settings) -> None:
    async def work(store: Any) -> None:
        await store.add_key(stored_key(), act("acme", "key.created", "tests"))
        file_of(settings).write_text("notes of the operator\n")
        assert await make(settings, store) is None
        assert file_of(settings).read_text() == "notes of the operator\n"

    with_store(settings, work)


class Killed(Exception):
    """Stands for the end of the process."""


@pytest.mark.parametrize("how", ["before the file", "before the store", "after the store"])
def test_a_start_that_was_cut_off_leaves_a_key_that_works_after_the_next(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    async def work(store: Any) -> None:
        def kill(*arguments: object, **options: object) -> None:
            raise Killed

        async def add_key(*arguments: Any) -> None:
            if how == "after the store":
                await type(store).add_key(store, *arguments)
            raise Killed

        with monkeypatch.context() as cut:
            if how == "before the file":
                cut.setattr(os, "replace", kill)
            else:
                cut.setattr(store, "add_key", add_key, raising=False)
            with pytest.raises(Killed):
                await make(settings, store)
        left = file_of(settings).read_text() if file_of(settings).exists() else None
        assert (left is None) == (how == "before the file")
        assert len(await store.keys(None)) == (how == "after the store")
        assert await make(settings, store) == file_of(settings)
        assert left in (None, file_of(settings).read_text())
        assert await works(settings, store)
        assert len(await store.keys(None)) == 1

    with_store(settings, work)


@pytest.mark.parametrize("how", ["revoked", "expired"])
def test_a_file_whose_key_ended_is_replaced_where_no_other_works(settings: Settings, how: str) -> None:
    async def work(store: Any) -> None:
        text, id = mint("live")
        ended = {"revoked": {"revoked_ms": now_ms()}, "expired": {"expires_ms": now_ms()}}[how]
        hashed = digest(text.encode(), secrets_of(settings).key_hash)
        key = stored_key("default", id=id, role="admin", digest=hashed, **ended)
        await store.add_key(key, act("default", "key.created", "tests"))
        file_of(settings).write_text(text + "\n")
        file_of(settings).chmod(0o600)
        assert not await works(settings, store)
        assert await make(settings, store) == file_of(settings)
        assert await works(settings, store)
        assert file_of(settings).read_text().strip() != text
        assert len(await store.keys(None)) == 2

    with_store(settings, work)


@pytest.mark.parametrize("what", ["readable by others", "a link", "no key", "no text", "empty"])
def test_a_file_that_others_may_have_made_is_not_taken_up(settings: Settings, tmp_path: Path, what: str) -> None:
    planted = mint("live").text
    file = file_of(settings)
    content = {"no key": b"a key", "no text": b"\xff\xfe" * 200, "empty": b""}.get(what, planted.encode() + b"\n")
    target = tmp_path / "planted" if what == "a link" else file
    target.write_bytes(content)
    target.chmod(0o644 if what == "readable by others" else 0o600)
    if what == "a link":
        file.symlink_to(target)

    async def work(store: Any) -> None:
        assert await make(settings, store) == file
        assert await works(settings, store)
        assert not file.is_symlink()
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert file.read_text().strip() != planted
        assert recognise(planted.encode()) not in [key.id for key in await store.keys(None)]
        assert what != "a link" or target.read_bytes() == content

    with_store(settings, work)


def test_a_key_of_a_database_that_was_lost_works_in_the_new_one(settings: Settings) -> None:
    async def work(store: Any) -> None:
        await make(settings, store)
        assert await works(settings, store)

    with_store(settings, work)
    text = file_of(settings).read_text()
    for file in settings.database.data_dir.glob("kyb.db*"):
        file.unlink()
    with_store(settings, work)
    assert file_of(settings).read_text() == text


PROGRAM = """
import asyncio, sys
from app.keys import first_key
from app.neighbours import make_store
from app.secrets import secrets_of
from app.settings import load
from app.store.base import opened

async def run():
    settings = load({"DATA_DIR": sys.argv[1]}).settings
    secrets = secrets_of(settings)
    async with opened(make_store(settings)) as store:
        print("ready", flush=True)
        sys.stdin.readline()
        print(await first_key(settings, store, secrets), flush=True)

asyncio.run(run())
"""


@pytest.mark.parametrize("before", ["nothing", "a key that was revoked"])
def test_many_processes_at_once_end_with_one_file_that_works(settings: Settings, before: str) -> None:
    async def revoke(store: Any) -> None:
        await make(settings, store)
        (key,) = await store.keys(None)
        await store.end_key("default", key.id, revoked_ms=now_ms(), act=act("default", "key.revoked", "tests"))

    async def check(store: Any) -> None:
        assert await works(settings, store)
        assert len(await store.keys(None)) == (1 if before == "nothing" else 2)

    if before != "nothing":
        with_store(settings, revoke)
    children = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(settings.database.data_dir)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[1],
        )
        for _ in range(5)
    ]
    for child in children:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
    said = [child.communicate("go\n", timeout=60)[0] for child in children]
    assert said == [f"{file_of(settings)}\n"] * 5
    with_store(settings, check)


def test_a_folder_that_another_process_does_not_let_go_of_is_told(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(first, "LOCK_WAIT_S", 0.05)

    async def work(store: Any) -> None:
        async with first._locked(settings.database.data_dir):
            with pytest.raises(StoreUnavailable, match="another process"):
                await make(settings, store)
        assert await make(settings, store) == file_of(settings)

    with_store(settings, work)


def test_a_folder_that_takes_no_file_is_told(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work(store: Any) -> None:
        secrets_of(settings)
        kept = os.open

        def refused(path: Any, flags: int, *more: Any, **options: Any) -> int:
            if "draft" in str(path):
                raise PermissionError(13, "Permission denied", str(path))
            return kept(path, flags, *more, **options)

        with monkeypatch.context() as shut:
            shut.setattr(os, "open", refused)
            with pytest.raises(PermissionError):
                await make(settings, store)
        assert await store.keys(None) == []

    with_store(settings, work)
