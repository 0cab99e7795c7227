"""Lists taken up while requests run: each answer from one whole version, nothing lost, nothing left behind."""

from __future__ import annotations

import asyncio
import json
import os
import time
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from databases import Postgres
from outage import held, prepared
from screened import REQUIRED, Lists, list_file, party, profile
from service import Client, Crowd, Service, example, serving, wait_until
from test_cli_watchlist import run
from test_dispositions import SOON, bring

from app.evidence import publishing
from app.evidence.lists import ListsInForce
from app.evidence.publishing import content_of, publish, publish_demo
from app.settings import SettingsError, load
from app.store.base import StoreUnavailable, opened
from app.store.lists import ListVersion
from app.store.sqlite import SqliteStore
from app.watchlists import demo
from app.watchlists.reading import ReadList

SWAPS = 100


def entries(number: int) -> Any:
    """Version `number`: it alone knows a name with that number, and all know the first."""
    return party("w1", "Veridian Shadow Trading"), party(f"n{number}", f"Quorblax {WORDS[number % 10]} Handel")


WORDS = ("Alpha", "Bravo", "Charlie", "Delta", "Echo", "Foxtrot", "Golf", "Hotel", "India", "Juliett")


def mapped_lists(pid: int | str) -> set[str]:
    """The files of lists that a process has mapped."""
    lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
    return {line.split(maxsplit=5)[-1] for line in lines if ".names" in line}


def test_a_list_swapped_a_hundred_times_under_load_fails_no_request(tmp_path: Path) -> None:
    """In one process, so that the swaps come as fast as they can."""

    async def work(lists: Lists) -> None:
        await lists.put("mine", *entries(0))
        done = asyncio.Event()
        seen: set[str] = set()

        async def ask() -> int:
            count = 0
            while not done.is_set():
                # A name of its own each time, so that nothing is remembered.
                hits = (await lists.screening(profile("Veridian Shadow Trading", aliases=[f"Nobody {count}"]))).hits
                assert [hit.entity_id for hit in hits] == ["w1"]
                seen.add(hits[0].list_version)
                count += 1
                await asyncio.sleep(0)
            return count

        asking = [asyncio.create_task(ask()) for _ in range(4)]
        for number in range(SWAPS):
            await lists.put("mine", *entries(number))
        done.set()
        assert sum(await asyncio.gather(*asking)) > SWAPS
        assert len(seen) > 2
        # What was mapped for earlier versions is let go of.
        assert len([file for file in mapped_lists("self") if file.startswith(str(tmp_path))]) <= 2

    Lists(tmp_path).run(work)


def test_requests_of_a_running_service_go_on_while_its_list_changes(tmp_path: Path) -> None:
    with serving(tmp_path, config=SOON) as service:
        bring(service, *entries(0))

        def ask(client: Client) -> None:
            made = client.recorded({"business": {"name": "Veridian Shadow Trading", "jurisdiction": "DE"}})
            assert made["screening"]["status"] == "potential"

        with Crowd(service, 4, ask) as crowd:
            for number in range(1, 4):
                bring(service, *entries(number))
        assert crowd.lost == 0
        assert "Traceback" not in service.logged()


@pytest.mark.slow
def test_a_service_whose_list_is_swapped_a_hundred_times_under_load_loses_no_request_and_does_not_grow(
    tmp_path: Path,
) -> None:
    """Each version is taken up before the next comes; one that were kept would be seen in the worker's memory."""
    many = [party(f"m{n}", f"{WORDS[n % 10]} {n} Trading Company") for n in range(4000)]

    async def swap(service: Service, numbers: range) -> int:
        """Bring as many versions; how large one is."""
        async with opened(SqliteStore(Path(service.settings["DATA_DIR"]) / "kyb.db")) as store:
            for number in numbers:
                content = number.to_bytes(32, "big")
                made = ReadList("ftm-json", [*entries(number), *many], len(many) + 2)
                version = await publish(store, "mine", made, title="", source="", content_sha256=content, actor="tests")
                await asyncio.to_thread(wait_until, partial(is_mapped, service, version), "it is in force")
        return version.size

    def is_mapped(service: Service, version: ListVersion) -> bool:
        [worker] = service.workers()
        return any(version.snapshot.hex() in file for file in mapped_lists(worker))

    def ask(client: Client) -> None:
        made = client.recorded({"business": {"name": "Veridian Shadow Trading", "jurisdiction": "DE"}})
        assert made["screening"]["status"] == "potential"

    # What is remembered of requests is as large as it gets before the measuring begins.
    with serving(tmp_path, config=SOON + "cache: {local_bytes: 1MiB}\n") as service:
        [worker] = service.workers()
        asyncio.run(swap(service, range(1)))
        with Crowd(service, 4, ask) as crowd:
            asyncio.run(swap(service, range(1, 21)))
            warm = held(worker)
            size = asyncio.run(swap(service, range(21, SWAPS + 1)))
            after = held(worker)
        assert crowd.lost == 0
        assert after.memory_bytes - warm.memory_bytes < 20 * size, (warm, after, size)
        assert after.files <= warm.files + 2
        assert len(mapped_lists(worker)) <= 2
        assert "Traceback" not in service.logged()


@pytest.mark.parametrize("config", [SOON, pytest.param("", marks=pytest.mark.slow)], ids=["soon", "as packaged"])
def test_all_pods_take_up_a_new_version_within_a_minute(postgres: Postgres, tmp_path: Path, config: str) -> None:
    settings = {"DATABASE_URL": prepared(postgres)}

    def pod(name: str) -> AbstractContextManager[Service]:
        """Each with a folder of its own, as pods have."""
        return serving(tmp_path / name, config, WATCHLIST_FOLDER=str(tmp_path / name / "lists"), **settings)

    def is_in_force(service: Service, version: str) -> bool:
        return version in service.client().get("/v1/watchlists").body.decode()

    with pod("one") as one, pod("two") as two:
        for number in (1, 2):
            file = list_file(tmp_path / "mine.jsonl", *entries(number))
            assert run(one.settings, "add", file, "--name", "mine").returncode == 0
            [listed] = json.loads(run(one.settings, "list", "--json").stdout)["lists"]
            brought_s = time.monotonic()
            for service in (one, two):
                left_s = brought_s + 60.0 - time.monotonic()
                wait_until(partial(is_in_force, service, listed["version"]), "the version is in force", left_s)
            asked = {"q": {"schema": "Company", "properties": {"name": [f"Quorblax {WORDS[number]} Handel"]}}}
            found = [service.client().post("/match/mine", {"queries": asked}).json for service in (one, two)]
            assert found[0] == found[1]
            assert [hit["id"] for hit in found[0]["responses"]["q"]["results"]] == [f"n{number}"]


def test_lists_are_looked_after_every_minute_at_least(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("watchlists: {check_every: 61s}\n", encoding="utf-8")
    with pytest.raises(SettingsError, match="check_every"):
        load({"CONFIG_FILE": str(file)})


def test_every_worker_maps_the_same_file(tmp_path: Path) -> None:
    with serving(tmp_path, config=SOON, WORKERS="2") as service:
        bring(service, *entries(0))

        def mapped() -> list[set[str]]:
            return [mapped_lists(pid) for pid in service.workers()]

        wait_until(lambda: len(mapped()) == 2 and all(len(one) == 1 for one in mapped()), "both have the list")
        first, second = mapped()
        assert first == second
        [file] = first
        assert os.stat(Path(file).parent).st_mode & 0o077 == 0


def test_a_snapshot_that_is_damaged_on_disk_is_fetched_again(tmp_path: Path) -> None:
    async def work(lists: Lists) -> None:
        await lists.put("mine", *entries(0))
        [file] = (tmp_path / "watchlists").glob("*.names")
        data = bytearray(file.read_bytes())
        data[len(data) // 2] ^= 1
        file.unlink()
        file.write_bytes(data)
        fresh = ListsInForce(lists.store, tmp_path / "watchlists", REQUIRED, 0.75, every_s=60.0, max_age_s=3600.0)
        await fresh.refresh()
        assert [one.name for one in fresh.loaded.lists] == []
        assert any("mine could not be taken up" in warning for warning in fresh.warnings)
        await fresh.refresh()
        assert [one.name for one in fresh.loaded.lists] == ["mine"]
        assert not any("taken up" in warning for warning in fresh.warnings)

    Lists(tmp_path).run(work)


def test_where_no_file_can_be_kept_a_list_is_in_force_all_the_same(tmp_path: Path) -> None:
    async def work(lists: Lists) -> None:
        await lists.put("mine", *entries(0))
        (tmp_path / "full").write_text("no folder", encoding="utf-8")
        fresh = ListsInForce(lists.store, tmp_path / "full", REQUIRED, 0.75, every_s=60.0, max_age_s=3600.0)
        await fresh.refresh()
        [one] = fresh.loaded.lists
        assert one.index.find("w1") is not None

    Lists(tmp_path / "data").run(work)


class Looked:
    """A store whose first answer is a fault of its own kind."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self.asked = asyncio.Event()
        self.times = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def lists(self) -> Any:
        self.times += 1
        if self.times == 2:
            raise RuntimeError("nobody thought of this")
        if self.times == 3:
            self.asked.set()
        return await self._store.lists()


def test_a_fault_that_nobody_thought_of_does_not_end_the_looking(tmp_path: Path) -> None:
    async def work(lists: Lists) -> None:
        looked = Looked(lists.store)
        fresh = ListsInForce(looked, tmp_path / "x", REQUIRED, 0.75, every_s=0.01, max_age_s=3600.0)  # type: ignore[arg-type]
        await fresh.open()
        async with asyncio.timeout(30):
            await looked.asked.wait()
        await fresh.close()

    Lists(tmp_path / "data").run(work)


class Without:
    """A store that has lost the parts of snapshots, or is away altogether."""

    def __init__(self, store: Any, away: bool = False) -> None:
        self._store = store
        self.away = away

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def snapshot_part(self, snapshot: bytes, part: int) -> bytes | None:
        return None

    async def lists(self) -> Any:
        if self.away:
            raise StoreUnavailable("it is away")
        return await self._store.lists()


def test_what_cannot_be_taken_up_leaves_the_version_before_in_force(tmp_path: Path) -> None:
    async def work(lists: Lists) -> None:
        await lists.put("mine", *entries(0))
        broken = Without(lists.store)
        held = ListsInForce(broken, tmp_path / "other", REQUIRED, 0.75, every_s=60.0, max_age_s=3600.0)  # type: ignore[arg-type]
        held.loaded = lists.assembly.lists.loaded
        before = held.loaded.lists[0].version
        await lists.put("mine", *entries(1))
        await held.refresh()
        assert [one.version for one in held.loaded.lists] == [before]
        assert any("not in the database" in warning for warning in held.warnings)
        broken.away = True
        with pytest.raises(StoreUnavailable):
            await held.refresh()
        assert [one.version for one in held.loaded.lists] == [before]

    Lists(tmp_path).run(work)


def test_files_of_versions_long_gone_are_removed(tmp_path: Path) -> None:
    async def work(lists: Lists) -> None:
        await lists.put("mine", *entries(0))
        folder = tmp_path / "watchlists"
        [old] = folder.glob("*.names")
        await lists.put("mine", *entries(1))
        assert old.exists()
        os.utime(old, (1, 1))
        foreign = folder / "notes.txt"
        foreign.write_text("mine", encoding="utf-8")
        os.utime(foreign, (1, 1))
        await lists.assembly.lists.refresh()
        assert not old.exists()
        assert foreign.exists()
        assert len(list(folder.glob("*.names"))) == 1

    Lists(tmp_path).run(work)


def test_the_demo_list_is_read_once_and_known_again_by_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work(lists: Lists) -> None:
        made = await publish_demo(lists.store, "tests")
        assert made is not None
        assert made.content_sha256 == content_of([Path(demo.__file__).with_name("demo.jsonl")])
        monkeypatch.setattr(publishing, "read_demo", None)
        assert await publish_demo(lists.store, "tests") is None

    Lists(tmp_path).run(work)


def test_the_demo_list_is_there_on_the_embedded_database_and_never_makes_clear(tmp_path: Path) -> None:
    with serving(tmp_path) as service:
        client = service.client()
        [demo] = client.get("/v1/watchlists").json["items"]
        assert (demo["name"], demo["required"], demo["stale"]) == ("demo", False, False)
        made = client.recorded({"business": {"name": "Veridian Shadow Trading Ltd", "jurisdiction": "CY"}})
        assert [hit["list"] for hit in made["screening"]["hits"]] == ["demo"]
        told = {name: client.recorded(example(name)) for name in ("listed-trader", "namesake")}
        assert [(one["screening"]["status"], one["decision"]) for one in told.values()] == [
            ("confirmed", "decline"),
            ("potential", "review"),
        ]
        clean = client.recorded({"business": {"name": "Harmless Bakery", "jurisdiction": "CY"}})
        assert clean["screening"]["status"] == "not_screened"
        warnings = client.get("/health").json["warnings"]
        assert all(any(name in warning for warning in warnings) for name in REQUIRED)
        versions = json.dumps(client.get("/v1/watchlists").json)
        service.restart()
        client = service.client()
        assert json.loads(versions)["items"][0]["version"] == client.get("/v1/watchlists").json["items"][0]["version"]

        def names(**settings: str) -> list[str]:
            service.restart(**settings)
            return [one["name"] for one in service.client().get("/v1/watchlists").json["items"]]

        # What is in force stays so until somebody removes it, and then is not brought again.
        assert names(WATCHLIST_DEMO="false") == ["demo"]
        assert run(service.settings, "remove", "demo").returncode == 0
        assert names(WATCHLIST_DEMO="false") == []
        assert names() == ["demo"]
