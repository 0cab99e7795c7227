"""Lists that another version of the service compiled: in force all the same, with this one's scores, at no request's
cost and without a word to the database."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import msgspec
import pytest
from screened import REQUIRED, Lists, list_file, party, profile
from service import SECRETS, serving, wait_until
from snapshots import kept_fields, of_another_engine, of_another_layout, with_entities
from test_cli_watchlist import published, run
from test_dispositions import SOON, bring
from test_lists_in_force import mapped_lists
from test_rescreening import rescreen

from app import evidence
from app.evidence.lists import KEPT_S, OWN, ListsInForce, snapshot_of
from app.evidence.loaded import DEMO, version_text
from app.evidence.publishing import check, publish_demo
from app.evidence.recompiling import recompile
from app.store.base import opened
from app.store.lists import Lists as ListStore
from app.store.lists import ListVersion
from app.store.sqlite import SqliteStore
from app.store.trail import SYSTEM_TENANT, act
from core.snapshot import ENGINE, SnapshotOutdated

WIDGETS = party("w1", "Veridian Shadow Trading", countries=("CY",))
OTHERS = [party(f"n{n}", f"Quorblax {n} Handelsgesellschaft") for n in range(200)]
FOREIGN = 4711
AGAIN = "compiled by another version of this service, and again here"

Alter = Callable[[bytes], bytes]


async def in_force(store: ListStore, name: str = "mine") -> ListVersion:
    [known] = [one for one in await store.lists() if one.name == name]
    return known


async def as_of_another(store: ListStore, alter: Alter = of_another_engine, name: str = "mine") -> ListVersion:
    """Have the list in force as another engine compiled it, under its next number."""
    known = await in_force(store, name)
    snapshot = alter(await snapshot_of(store, known))
    version = msgspec.structs.replace(
        known, number=known.number + 1, snapshot=sha256(snapshot).digest(), size=len(snapshot), engine=FOREIGN
    )
    told = act(SYSTEM_TENANT, "watchlist.updated", "tests", list=name, number=version.number)
    assert await store.put_list(version, snapshot, told)
    return version


def worker(lists: Lists, folder: Path) -> ListsInForce:
    """Another one, or one started anew."""
    return ListsInForce(lists.store, folder, REQUIRED, 0.75, every_s=60.0, max_age_s=3600.0)


def told_again(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if AGAIN in record.getMessage()]


def forbid(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    async def never(*_: object) -> None:
        pytest.fail(f"{name} was called")

    monkeypatch.setattr(evidence.lists, name, never)


@pytest.mark.parametrize("alter", [of_another_engine, of_another_layout])
def test_a_list_that_another_engine_compiled_is_in_force_as_its_version_with_this_ones_scores(
    tmp_path: Path, alter: Alter, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO)
    # Not in this process, where requests are answered.
    forbid(monkeypatch, "compiled_again")

    async def work(lists: Lists) -> None:
        await lists.put("mine", WIDGETS, *OTHERS)
        asked = profile("Veridian Shadow Trading Ltd", aliases=["Quorblax 7 Handel"])
        before = await lists.gather(asked)
        own = await snapshot_of(lists.store, await in_force(lists.store))
        foreign = await as_of_another(lists.store, alter)
        fresh = worker(lists, tmp_path / "new")
        await fresh.refresh()
        assert not any("mine" in warning for warning in fresh.warnings)
        lists.assembly.lists.loaded = fresh.loaded
        after = await lists.gather(asked)
        assert after.screening == before.screening
        assert b"w1" in after.screening
        [one] = fresh.loaded.lists
        assert one.version == version_text(foreign)
        assert (tmp_path / "new" / OWN / f"{foreign.snapshot.hex()}.names").read_bytes() == own
        # Whoever is of the other engine still finds its own.
        assert await in_force(lists.store) == foreign
        [line] = told_again(caplog)
        assert f"the watchlist mine, version {one.version}, was" in line

    Lists(tmp_path).run(work)


def test_workers_of_a_pod_compile_it_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    async def work(lists: Lists) -> None:
        await lists.put("mine", WIDGETS)
        await as_of_another(lists.store)
        workers = [worker(lists, tmp_path / "pod") for _ in range(3)]
        await asyncio.gather(*[one.refresh() for one in workers])
        await worker(lists, tmp_path / "pod").refresh()
        assert all(one.loaded.named("mine") for one in workers)
        assert len(told_again(caplog)) == 1
        assert len([file for file in mapped_lists("self") if file.startswith(str(tmp_path / "pod" / OWN))]) == 1

    Lists(tmp_path).run(work)


@pytest.mark.parametrize("damage", ["bit", "empty"])
def test_a_file_that_was_damaged_is_compiled_again(tmp_path: Path, damage: str) -> None:
    async def work(lists: Lists) -> None:
        await lists.put("mine", WIDGETS)
        await as_of_another(lists.store)
        await worker(lists, tmp_path / "pod").refresh()
        [file] = (tmp_path / "pod" / OWN).glob("*.names")
        right = bytearray(file.read_bytes())
        right[len(right) // 2] ^= 1
        file.unlink()
        file.write_bytes(right if damage == "bit" else b"")
        fresh = worker(lists, tmp_path / "pod")
        await fresh.refresh()
        assert fresh.loaded.lists == ()
        await fresh.refresh()
        assert [one.name for one in fresh.loaded.lists] == ["mine"]

    Lists(tmp_path).run(work)


def flipped(snapshot: bytes) -> bytes:
    """Damaged before it came to the database."""
    other = bytearray(of_another_engine(snapshot))
    other[-20] ^= 1
    return bytes(other)


def strange(snapshot: bytes) -> bytes:
    """With an entry that only a later engine can read."""
    fields = kept_fields(WIDGETS)
    fields[1] = "Spaceship"
    return with_entities(of_another_engine(snapshot), [fields])


@pytest.mark.parametrize(("alter", "why"), [(flipped, "checksum"), (strange, "entity 0 cannot be read")])
def test_what_is_damaged_or_cannot_be_read_is_refused_and_the_list_before_stays(
    tmp_path: Path, alter: Alter, why: str
) -> None:
    async def work(lists: Lists) -> None:
        await lists.put("mine", WIDGETS)
        held = lists.assembly.lists
        before = held.loaded.lists
        await as_of_another(lists.store, alter)
        await held.refresh()
        assert [one.index for one in held.loaded.lists] == [one.index for one in before]
        [warning] = [one for one in held.warnings if "could not be taken up" in one]
        assert why in warning

    Lists(tmp_path).run(work)


@pytest.mark.parametrize("where", ["file", "others"])
def test_without_a_folder_of_its_own_a_worker_compiles_it_in_memory(
    tmp_path: Path, where: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    async def work(lists: Lists) -> None:
        await lists.put("mine", WIDGETS)
        await as_of_another(lists.store)
        folder = tmp_path / "pod"
        if where == "file":
            folder.write_text("no folder", encoding="utf-8")
        else:
            # Anybody could have put a list without somebody's name there.
            (folder / OWN).mkdir(parents=True)
            (folder / OWN).chmod(0o777)
        fresh = worker(lists, folder)
        await fresh.refresh()
        [one] = fresh.loaded.lists
        assert one.index.find("w1") is not None
        assert len(told_again(caplog)) == 1

    Lists(tmp_path / "data").run(work)


def test_what_cannot_be_compiled_says_why(tmp_path: Path) -> None:
    async def work() -> None:
        with (tmp_path / "lock").open("wb") as lock:
            with pytest.raises(SnapshotOutdated, match="FileNotFoundError"):
                await recompile(tmp_path / "nowhere", tmp_path / "to", lock.fileno())
            compiling = asyncio.create_task(recompile(tmp_path / "fifo", tmp_path / "to", lock.fileno()))
            os.mkfifo(tmp_path / "fifo")
            await asyncio.sleep(0)
            compiling.cancel()
            with pytest.raises(asyncio.CancelledError):
                await compiling

    asyncio.run(work())


def test_what_was_compiled_for_versions_and_engines_long_gone_is_removed(tmp_path: Path) -> None:
    async def work(lists: Lists) -> None:
        await lists.put("mine", WIDGETS)
        foreign = await as_of_another(lists.store)
        held = lists.assembly.lists
        await held.refresh()
        folder = tmp_path / "watchlists"
        mine = folder / OWN / f"{foreign.snapshot.hex()}.names"
        (folder / "engine-00000000").mkdir()
        theirs = folder / "engine-00000000" / mine.name
        theirs.write_bytes(b"of another engine")
        left = folder / OWN / f"{'0' * 64}.names"
        left.write_bytes(b"of another version")
        for file in (mine, theirs, left):
            os.utime(file, (1, 1))
        await held.refresh()
        assert (mine.exists(), theirs.exists(), left.exists()) == (True, False, False)
        assert KEPT_S > 60

    Lists(tmp_path).run(work)


def test_a_check_keeps_the_list_as_this_engine_compiles_it_and_the_others_snapshot_besides(tmp_path: Path) -> None:
    async def work(lists: Lists) -> None:
        await lists.put("mine", WIDGETS)
        own = await in_force(lists.store)
        assert not await check(lists.store, own, b"{}", "tests")
        foreign = await as_of_another(lists.store)
        assert await check(lists.store, foreign, b'{"etag":"2"}', "tests")
        now = await in_force(lists.store)
        assert (now.engine, now.number, now.snapshot) == (ENGINE, foreign.number + 1, own.snapshot)
        assert (now.validators, version_text(now)) == (b'{"etag":"2"}', version_text(foreign))
        assert now.checked_ms >= foreign.checked_ms
        assert await lists.store.snapshot_part(foreign.snapshot, 0) is not None
        # Somebody else brought a newer version in the meantime: that one stays.
        assert not await check(lists.store, foreign, b"{}", "tests")
        assert await in_force(lists.store) == now

    Lists(tmp_path).run(work)


def test_the_packaged_list_is_brought_as_this_engine_compiles_it(tmp_path: Path) -> None:
    async def work(lists: Lists) -> None:
        assert await publish_demo(lists.store, "tests") is not None
        assert await publish_demo(lists.store, "tests") is None
        await as_of_another(lists.store, name=DEMO)
        assert await publish_demo(lists.store, "tests") is not None
        assert (await in_force(lists.store, DEMO)).engine == ENGINE

    Lists(tmp_path).run(work)


def test_an_unchanged_answer_has_the_list_compiled_for_all_pods(tmp_path: Path) -> None:
    settings = {"DATA_DIR": str(tmp_path), "WATCHLIST_DEMO": "false", **SECRETS}
    file = list_file(tmp_path / "mine.jsonl", WIDGETS)

    async def altered(alter: Alter | None) -> int:
        store = SqliteStore(tmp_path / "kyb.db")
        async with opened(store):
            return 0 if alter is None else (await as_of_another(store, alter)).number

    asyncio.run(altered(None))
    with published(file.read_bytes()) as url:
        told = {**settings, "WATCHLIST_ADDRESSES": f"mine {url}"}
        assert run(told, "update", "mine").returncode == 0
        assert asyncio.run(altered(of_another_engine)) == 2
        assert "unchanged" in (said := run(told, "update", "mine").stdout)
        assert "compiled again for this version of the service" in said
        assert "compiled again" not in run(told, "update", "mine").stdout
        assert asyncio.run(altered(strange)) == 4
        done = run(told, "update", "mine")
        assert (done.returncode, "entity 0 cannot be read" in done.stderr, "--force" in done.stderr) == (4, True, True)
        assert run(told, "update", "mine", "--force").returncode == 0
        assert "w1" in run(told, "search", "Veridian Shadow Trading").stdout


def test_what_is_on_record_is_compared_with_lists_of_other_engines(tmp_path: Path) -> None:
    async def work(lists: Lists) -> None:
        await lists.put("mine", WIDGETS)
        await as_of_another(lists.store)
        assert await rescreen(lists) is not None
        await lists.put("mine", WIDGETS, *OTHERS[:1])
        await as_of_another(lists.store, of_another_layout)
        done = await rescreen(lists)
        assert done is not None
        assert (done.change.new, done.change.changed, done.change.removed) == (1, 0, 0)

    Lists(tmp_path).run(work)


def test_a_running_service_takes_up_what_another_engine_compiled_in_one_file_for_all_workers(tmp_path: Path) -> None:
    with serving(tmp_path, config=SOON, WORKERS="2", LOG_LEVEL="info") as service:
        bring(service, WIDGETS)

        async def replaced() -> ListVersion:
            store = SqliteStore(Path(service.settings["DATA_DIR"]) / "kyb.db")
            async with opened(store):
                return await as_of_another(store)

        foreign = asyncio.run(replaced())

        file = service.folder / "data" / "watchlists" / OWN / f"{foreign.snapshot.hex()}.names"

        def mapped() -> list[set[str]]:
            return [mapped_lists(pid) for pid in service.workers()]

        wait_until(lambda: mapped() == [{str(file)}] * 2, "both have it, and nothing else any more")
        made = service.client().recorded({"business": {"name": "Veridian Shadow Trading", "jurisdiction": "CY"}})
        assert [hit["list_version"] for hit in made["screening"]["hits"]] == [version_text(foreign)]
        assert service.logged().count(AGAIN) == 1
        found = run(service.settings, "search", "Veridian Shadow Trading")
        assert (found.returncode, "w1" in found.stdout) == (0, True)
