"""PostgreSQL is killed, stopped, filled and cut off under a running service: callers learn soon, nothing is lost."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from databases import Postgres, query, run_as
from outage import (
    LATER_THREADS,
    NOBODY,
    RECOVERY_LIMIT_S,
    Callers,
    backends,
    held,
    prepare,
    prepared,
    refused_in_time,
    transaction,
    unavailable,
)
from proxy import Proxy
from service import Client, Crowd, Json, named, serving, wait_until

from app.ids import now_ms
from app.store.postgres.partitions import Month

CALLERS = 16

CYCLES = 50
QUICK_CYCLES = 4

STANDSTILL_S = 30.0
QUICK_STANDSTILL_S = 3.0

ENTRIES = 100
REST_S = 3.0
"""Longer than a key is recognised without being looked up, and in the cache."""

RECONNECTING = 4
"""Connections that may be under way to the database besides those of before: attempts, and requests to cancel."""

GROWTH_BYTES = 16 * 2**20

SEGMENT_BYTES = 16 * 2**20
"""Of the database's log; another is made when it is full."""
SPARE_BYTES = 2**20


@pytest.fixture(scope="module")
def private() -> Iterator[Postgres]:
    """A server that the tests of this module break in turn."""
    with Postgres() as server:
        yield server


@pytest.fixture
def breakable(private: Postgres) -> Iterator[Postgres]:
    """It, for one test after the other."""
    yield private
    private.resume()
    if not private.running:
        private.start()


@pytest.mark.parametrize("cycles", [QUICK_CYCLES, pytest.param(CYCLES, marks=pytest.mark.slow)])
def test_a_database_killed_under_load_loses_nothing_and_the_service_finds_it_again(
    cycles: int, breakable: Postgres, tmp_path: Path
) -> None:
    url = prepared(breakable)
    callers = Callers()
    with serving(tmp_path / "service", DATABASE_URL=url) as service:
        workers = service.workers()
        with callers.among(service, CALLERS) as crowd:
            for _ in range(cycles):
                callers.wait_for_acknowledged(200)
                breakable.kill()
                callers.wait_for_refused(2 * CALLERS)
                breakable.start()
                callers.wait_for_acknowledged(1, RECOVERY_LIMIT_S)
        assert service.workers() == workers
        assert crowd.lost == 0
        callers.check(url, service)


@pytest.mark.parametrize("standstill_s", [QUICK_STANDSTILL_S, pytest.param(STANDSTILL_S, marks=pytest.mark.slow)])
def test_while_the_database_stands_still_callers_learn_of_it_and_nothing_piles_up(
    standstill_s: float, breakable: Postgres, tmp_path: Path
) -> None:
    url = prepared(breakable)
    callers = Callers()
    with serving(tmp_path / "service", DATABASE_URL=url) as service:
        read = service.client().recorded(named("Read Ltd"))
        service.restart()
        client = service.client()
        assert client.get(f"/v1/assessments/{read['id']}").json == read
        made = client.recorded(named("Made Ltd"))
        [worker] = service.workers()
        with callers.among(service, CALLERS) as crowd:
            callers.wait_for_acknowledged(500)
            before = held(worker)
            breakable.pause()
            end = time.monotonic() + standstill_s
            while time.monotonic() < end:
                for kept in (read, made):
                    assert client.get(f"/v1/assessments/{kept['id']}").json == kept
                refused_in_time(lambda: client.get(f"/v1/assessments/{NOBODY}"))
                refused_in_time(lambda: client.get("/v1/assessments"))
                callers.wait_for_refused(CALLERS)
                now = held(worker)
                assert now.files <= before.files + RECONNECTING
                assert now.threads <= before.threads + LATER_THREADS
                assert now.memory_bytes <= before.memory_bytes + GROWTH_BYTES
            breakable.resume()
            callers.wait_for_acknowledged(1, RECOVERY_LIMIT_S)
            wait_until(lambda: held(worker).files <= before.files, "nothing is left open", RECOVERY_LIMIT_S)
        wait_until(lambda: client.get("/v1/assessments").status == 200, "lists are answered again", RECOVERY_LIMIT_S)
        assert crowd.lost == 0
        callers.check(url, service)


def test_who_comes_after_a_rest_is_known_while_the_database_stands_still_and_learns_of_it_as_soon(
    breakable: Postgres, tmp_path: Path
) -> None:
    """The key is looked up again then, so the database is waited for more than once."""
    with serving(
        tmp_path / "service", f"cache: {{local_entries: {ENTRIES}}}\n", DATABASE_URL=prepared(breakable)
    ) as service:
        rested, busy = service.client(), service.client(service.new_key())
        rested.recorded(named("Before Ltd"))
        for _ in range(ENTRIES):
            busy.recorded(named("Busy Ltd"))
        breakable.pause()
        time.sleep(REST_S)
        refused_in_time(lambda: rested.assess(named("Late Ltd")))
        assert rested.assess(named("Dry Ltd"), dry_run=True).status == 200


def test_connections_that_the_server_ends_are_made_anew_without_a_caller_noticing(
    postgres: Postgres, tmp_path: Path
) -> None:
    url = prepared(postgres)
    callers = Callers()
    with serving(tmp_path / "service", DATABASE_URL=url) as service:
        with callers.among(service, CALLERS):
            for _ in range(5):
                callers.wait_for_acknowledged(200)
                ended = backends(postgres, url)
                postgres.query("postgres", "SELECT pg_terminate_backend(pid) FROM unnest($1::int[]) pid", [*ended])
                wait_until(lambda: not backends(postgres, url) & ended, "they are gone")  # noqa: B023
        assert service.client().get("/v1/assessments").status == 200
        assert not callers.refused
        callers.check(url, service)


def test_connections_that_fall_silent_are_given_up_for_new_ones(breakable: Postgres, tmp_path: Path) -> None:
    url = prepared(breakable)
    callers = Callers()
    settings = {"DATABASE_URL": url, "DB_MAX_CONNECTIONS": "14", "DB_IDLE_CONNECTIONS": "4"}
    with serving(tmp_path / "service", **settings) as service:
        client = service.client()
        client.recorded(named("Before Ltd"))
        silent = backends(breakable, url)
        # Among them is what records come over. While they work they may hold what others need as well.
        assert len(silent) == 4
        wait_until(lambda: all_idle(breakable, silent), "nothing is under way")
        for pid in silent:
            os.kill(pid, signal.SIGSTOP)
        try:
            with callers.among(service, CALLERS):
                callers.wait_for_acknowledged(100, RECOVERY_LIMIT_S)
                wait_until(lambda: client.get("/v1/assessments").status == 200, "lists are there", RECOVERY_LIMIT_S)
        finally:
            for pid in silent:
                os.kill(pid, signal.SIGCONT)
        callers.check(url, service)


def all_idle(server: Postgres, pids: set[int]) -> bool:
    sql = "SELECT bool_and(state = 'idle') FROM pg_stat_activity WHERE pid = ANY ($1)"
    [(idle,)] = server.query("postgres", sql, list(pids))
    return bool(idle)


def test_slow_reads_that_hold_every_reading_connection_do_not_hold_up_writes(
    postgres: Postgres, tmp_path: Path
) -> None:
    old = Month.of(now_ms()).next(-1)
    url = prepare(postgres.create_database(), since=old)
    # A share of two connections: one writes, one reads.
    settings = {"DATABASE_URL": url, "DB_MAX_CONNECTIONS": "12", "DB_IDLE_CONNECTIONS": "2"}
    with serving(tmp_path / "service", "database: {lock_timeout: 600ms}\n", **settings) as service:
        client = service.client()
        made = client.recorded(named("Old Ltd"))
        put_back(url, made["id"], old)
        reads: list[Json] = []
        callers = Callers()

        def read(reader: Client) -> None:
            reads.append(refused_in_time(lambda: reader.get("/v1/assessments")))

        with transaction(url) as execute:
            execute(f"LOCK TABLE {old.table} IN ACCESS EXCLUSIVE MODE")
            with Crowd(service, 8, read), callers.among(service, 4):
                wait_until(lambda: len(reads) >= 40, "readers are refused")
                assert client.get(f"/v1/assessments/{made['id']}").json == made
            assert len(callers.acknowledged) > len(reads)
            assert not callers.refused
        wait_until(lambda: client.get("/v1/assessments").status == 200, "lists are there again", RECOVERY_LIMIT_S)
        assert sum(1 for _ in client.walk(limit=200)) == len(callers.acknowledged) + 2
        callers.check(url, service)


def put_back(url: str, id: str, month: Month) -> None:
    """Record an assessment again as if it had been made at the beginning of a month."""
    query(
        url,
        "INSERT INTO assessments SELECT tenant_id, $1, business_id, 0, level, decision, score, model_sha256, input,"
        " record FROM assessments WHERE id = $2",
        uuid.UUID(bytes=month.low),
        uuid.UUID(id),
    )


class SmallDisk(Postgres):
    """A PostgreSQL one of whose folders lies on a disk of its own.  place: the folder within its data."""

    def __init__(self, place: str, size_mib: int) -> None:
        super().__init__(settings={"shared_buffers": "8MB", "min_wal_size": "32MB", "max_wal_size": "64MB"})
        self.disk = self.data / place
        self.mounted = False
        kept = self.disk.rename(self.folder / "kept")
        self.disk.mkdir()
        owner = kept.stat()
        options = f"size={size_mib}m,mode=700,uid={owner.st_uid},gid={owner.st_gid}"
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", self.disk], capture_output=True, text=True, check=False
        )
        if done.returncode:
            self.remove()
            pytest.skip(f"only root may mount a small disk: {done.stderr.strip()}")
        self.mounted = True
        run_as(self.account, "cp", "-a", f"{kept}/.", self.disk)
        shutil.rmtree(kept)

    def fill(self) -> None:
        """Leave no room, also in what of its log is there already, but for a little."""
        left = f"{SEGMENT_BYTES} - pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0') % {SEGMENT_BYTES}"
        sql = f"SELECT pg_logical_emit_message(false, '', repeat('.', greatest(0, {left} - {SPARE_BYTES})::int))"
        self.query("postgres", sql)
        with (self.disk / "filler").open("wb", buffering=0) as file:
            for size_bytes in (65_536, 512):
                try:
                    while True:
                        file.write(bytes(size_bytes))
                except OSError:
                    pass

    def free(self) -> None:
        (self.disk / "filler").unlink()

    def remove(self) -> None:
        self.kill()
        if self.mounted:
            subprocess.run(["umount", self.disk], check=True)
        super().remove()


@pytest.mark.parametrize(("place", "size_mib"), [(".", 192), ("pg_wal", 32)], ids=["data", "log"])
def test_a_full_disk_of_the_database_loses_nothing_and_is_over_when_there_is_room(
    place: str, size_mib: int, tmp_path: Path
) -> None:
    with SmallDisk(place, size_mib) as server:
        url = prepared(server)
        callers = Callers()
        with serving(tmp_path / "service", DATABASE_URL=url) as service:
            client = service.client()
            before = client.recorded(named("Before Ltd"))
            with callers.among(service, CALLERS) as crowd:
                callers.wait_for_acknowledged(200)
                server.fill()
                callers.wait_for_refused(10 * CALLERS)
                assert client.get(f"/v1/assessments/{before['id']}").json == before
                assert client.assess(named("Dry Ltd"), dry_run=True).status == 200
                server.free()
                reached = len(callers.acknowledged)

                def well() -> bool:
                    # Out of room for its log, the server itself may give up, and so late that there is room again.
                    if not server.running:
                        server.start()
                    return len(callers.acknowledged) > reached

                wait_until(well, "one more is acknowledged", RECOVERY_LIMIT_S)
            assert "No space left on device" in server.log()
            assert crowd.lost == 0
            callers.check(url, service)


def test_a_server_that_becomes_read_only_is_left_and_found_again(breakable: Postgres, tmp_path: Path) -> None:
    url = prepared(breakable)
    callers = Callers()
    with serving(tmp_path / "service", DATABASE_URL=url) as service:
        client = service.client()
        before = client.recorded(named("Before Ltd"))
        old: set[int] = set()

        def seen() -> bool:
            client.recorded(named("Seen Ltd"))
            old.update(writers(breakable))
            return bool(old)

        wait_until(seen, "a connection is seen that has just recorded, and was asked nothing since")
        with callers.among(service, CALLERS):
            callers.wait_for_acknowledged(200)
            set_read_only(breakable, "on")
            callers.wait_for_refused(2 * CALLERS)
            batch = client.post("/v1/assessments/batch", {"items": [named("Batch Ltd")] * 3})
            assert [item["status"] for item in batch.json["items"]] == [503] * 3
            # A list would have to be entered in the trail.
            assert client.get("/v1/assessments").status == 503
            assert client.get(f"/v1/assessments/{before['id']}").json == before
            wait_until(lambda: not backends(breakable, url) & old, "the connections for writing are let go")
            set_read_only(breakable, "off")
            callers.wait_for_acknowledged(1, RECOVERY_LIMIT_S)
        assert not writers(breakable) & old
        callers.check(url, service)


def set_read_only(server: Postgres, value: str) -> None:
    server.query("postgres", f"ALTER SYSTEM SET default_transaction_read_only = {value}")
    server.query("postgres", "SELECT pg_reload_conf()")


def writers(server: Postgres) -> set[int]:
    """The process ids of the connections that records came over last."""
    sql = "SELECT pid FROM pg_stat_activity WHERE application_name = 'kyb' AND query LIKE '%INSERT INTO assessments%'"
    return {pid for (pid,) in server.query("postgres", sql)}


def delay(proxy: Proxy) -> None:
    proxy.latency_s = 1.0


FAULTS: dict[str, Callable[[Proxy], None]] = {
    "delayed": delay,
    "silent": Proxy.black_hole,
    "reset": Proxy.reset,
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_broken_network_is_told_soon_and_leaves_nothing_behind(
    fault: str, postgres: Postgres, tmp_path: Path
) -> None:
    url = prepared(postgres)
    callers = Callers()
    with Proxy(postgres.port) as proxy:
        # A share of five connections, all of them kept open.
        settings = {"DB_MAX_CONNECTIONS": "15", "DB_IDLE_CONNECTIONS": "5"}
        settings["DATABASE_URL"] = url.replace(f":{postgres.port}/", f":{proxy.port}/")
        with serving(tmp_path / "service", **settings) as service:
            clients = [service.client() for _ in range(8)]
            made, *_ = [client.recorded(named("Made Ltd")) for client in clients]
            [worker] = service.workers()
            with callers.among(service, CALLERS) as crowd:
                callers.wait_for_acknowledged(100)
                before, connections = held(worker), proxy.connections
                assert connections == 5
                FAULTS[fault](proxy)
                callers.wait_for_refused(CALLERS)
                with ThreadPoolExecutor(len(clients)) as pool:
                    for path in ("/v1/assessments", f"/v1/assessments/{NOBODY}", "/v1/models"):
                        for answer in pool.map(lambda client, path=path: client.get(path), clients):
                            unavailable(answer)
                assert clients[0].get(f"/v1/assessments/{made['id']}").json == made
                proxy.latency_s = 0.0
                proxy.heal()
                callers.wait_for_acknowledged(100, RECOVERY_LIMIT_S)
                wait_until(lambda: clients[0].get("/v1/models").status == 200, "reads are answered", RECOVERY_LIMIT_S)
                wait_until(lambda: held(worker).files <= before.files, "nothing is left open", RECOVERY_LIMIT_S)
                assert proxy.connections <= connections
                assert held(worker).threads <= before.threads + LATER_THREADS
            assert crowd.lost == 0
            callers.check(url, service)
