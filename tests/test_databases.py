"""The servers and the proxy of the tests do what tests rely on: they last, pause, die, refuse and disturb."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import asyncpg
import pytest
import redis
from databases import (
    PASSWORD,
    PgBouncer,
    Postgres,
    Valkey,
    children,
    command,
    database_name,
    ended,
    make_folder,
    query,
    unprivileged,
)
from proxy import HOST, Proxy
from service import wait_until

SILENCE_S = 0.1
"""How long nothing must come for silence to be believed."""

LIMIT_S = 10.0

STARTER = """
import json, sys
from databases import PgBouncer, Postgres, Valkey, children
paused, valkey = Postgres().start(), Valkey().start()
servers = [paused, valkey]
if PgBouncer.available():
    servers.append(PgBouncer(paused.port).start())
paused.pause()
print(json.dumps([pid for server in servers for pid in (server.pid, *children(server.pid))]), flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="module")
def private() -> Iterator[Postgres]:
    """A server that the tests of this module restart and pause in turn."""
    with Postgres(max_connections=17, settings={"lock_timeout": "1234ms"}) as server:
        yield server


def test_after_a_kill_no_process_is_left_and_committed_rows_are_there_and_no_others(own_postgres: Postgres) -> None:
    url, port = own_postgres.create_database(), own_postgres.port
    query(url, "CREATE TABLE kept (number int)")
    query(url, "INSERT INTO kept VALUES (1)")
    family = []

    async def insert_and_kill() -> None:
        connection = await asyncpg.connect(url)
        await connection.execute("BEGIN")
        await connection.execute("INSERT INTO kept VALUES (2)")
        family.extend([own_postgres.pid, *children(own_postgres.pid)])
        await asyncio.to_thread(own_postgres.kill)
        with pytest.raises((asyncpg.ConnectionDoesNotExistError, asyncpg.InterfaceError)):
            await connection.execute("COMMIT")

    asyncio.run(insert_and_kill())
    assert len(family) > 3
    assert all(map(ended, family))
    assert not own_postgres.running
    with pytest.raises(ConnectionRefusedError):
        query(url, "SELECT 1")
    own_postgres.start()
    assert own_postgres.port == port
    assert [row["number"] for row in query(url, "SELECT number FROM kept")] == [1]


def test_a_paused_server_answers_once_it_is_resumed(private: Postgres) -> None:
    url = private.url()

    async def ask() -> None:
        connection = await asyncpg.connect(url)
        try:
            await asyncio.to_thread(private.pause)
            answer = asyncio.create_task(connection.fetchval("SELECT 42"))
            newcomer = asyncio.create_task(asyncpg.connect(url))
            answered, _ = await asyncio.wait({answer, newcomer}, timeout=SILENCE_S)
            assert not answered
            await asyncio.to_thread(private.resume)
            assert await asyncio.wait_for(answer, LIMIT_S) == 42
            await (await asyncio.wait_for(newcomer, LIMIT_S)).close()
        finally:
            private.resume()
            await connection.close()

    asyncio.run(ask())


def test_a_paused_server_can_be_killed_and_started(private: Postgres) -> None:
    private.pause()
    private.kill()
    private.start()
    assert query(private.url(), "SELECT 1 AS one")[0]["one"] == 1


def test_a_restart_ends_in_good_order_and_keeps_the_port(private: Postgres) -> None:
    before, port = private.pid, private.port
    private.restart()
    assert (private.pid != before, private.port) == (True, port)
    assert "database system is shut down" in private.log()
    assert query(private.url(), "SELECT 1 AS one")[0]["one"] == 1


def test_a_wrong_password_is_refused(postgres: Postgres) -> None:
    with pytest.raises(asyncpg.InvalidPasswordError):
        query(postgres.url(password=f"not {PASSWORD}"), "SELECT 1")


def test_durability_is_on_and_settings_are_heeded(private: Postgres) -> None:
    rows = private.query("postgres", "SELECT name, setting FROM pg_settings")
    settings = {row["name"]: row["setting"] for row in rows}
    assert (settings["fsync"], settings["synchronous_commit"], settings["full_page_writes"]) == ("on", "on", "on")
    assert (settings["max_connections"], settings["lock_timeout"]) == ("17", "1234")


def test_the_services_account_owns_its_database_and_is_no_superuser(database: str) -> None:
    query(database, "CREATE TABLE own (number int)")
    sql = "SELECT pg_get_userbyid(datdba) = current_user AS owner FROM pg_database WHERE datname = current_database()"
    assert query(database, sql)[0]["owner"]
    if "TEST_DATABASE_URL" not in os.environ:
        assert query(database, "SHOW is_superuser")[0]["is_superuser"] == "off"


def test_a_server_that_is_named_by_the_environment_is_used(
    private: Postgres, own_valkey: Valkey, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    monkeypatch.setenv("TEST_DATABASE_URL", private.admin_url())
    monkeypatch.setenv("TEST_REDIS_URL", own_valkey.url(3))
    command(own_valkey.url(3), "SET", "left", "over")
    name = database_name(request.getfixturevalue("database"))
    assert private.query("postgres", "SELECT 1 FROM pg_database WHERE datname = $1", name)
    assert request.getfixturevalue("redis_url") == own_valkey.url(3)
    assert command(own_valkey.url(3), "DBSIZE") == 0


def test_a_server_survives_the_thread_that_started_it() -> None:
    with ThreadPoolExecutor(1) as pool:
        server = pool.submit(Valkey().start).result()
    try:
        assert server.command("PING")
        assert server.running
    finally:
        server.remove()


def test_killed_tests_leave_neither_processes_nor_files() -> None:
    folder = make_folder("killed", unprivileged())
    environment = {**os.environ, "TMPDIR": str(folder), "PYTHONPATH": str(Path(__file__).parent)}
    with subprocess.Popen(
        [sys.executable, "-c", STARTER], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as starter:
        assert starter.stdout is not None
        family = json.loads(starter.stdout.readline())
        assert not any(map(ended, family))
        assert list(folder.glob("*/postgres-*/data/postmaster.pid"))
        starter.send_signal(signal.SIGKILL)
    wait_until(lambda: all(map(ended, family)), "all servers end", LIMIT_S)
    wait_until(lambda: not list(folder.iterdir()), "what they kept is deleted", LIMIT_S)
    folder.rmdir()


def test_a_full_valkey_refuses_writes_and_still_reads(own_valkey: Valkey) -> None:
    own_valkey.command("SET", "kept", "1")
    own_valkey.config("maxmemory", "1")
    with pytest.raises(redis.OutOfMemoryError):
        own_valkey.command("SET", "more", "2")
    assert own_valkey.command("GET", "kept") == b"1"


def test_a_killed_valkey_comes_back_empty_on_the_same_port(own_valkey: Valkey) -> None:
    own_valkey.command("SET", "lost", "1")
    own_valkey.kill()
    with pytest.raises(redis.ConnectionError):
        own_valkey.command("PING")
    own_valkey.start()
    assert own_valkey.command("GET", "lost") is None


def test_a_paused_valkey_answers_once_it_is_resumed(own_valkey: Valkey) -> None:
    with socket.create_connection((HOST, own_valkey.port), LIMIT_S) as wire:
        own_valkey.pause()
        wire.sendall(b"PING\r\n")
        assert silent(wire)
        own_valkey.resume()
        assert wire.recv(100) == b"+PONG\r\n"


def test_a_redis_database_is_handed_out_empty(redis_url: str) -> None:
    assert command(redis_url, "DBSIZE") == 0


def test_pgbouncer_lends_one_connection_to_two_clients_in_turn(postgres: Postgres) -> None:
    if not PgBouncer.available():
        pytest.skip("pgbouncer is not installed (Debian: apt-get install pgbouncer)")

    async def take_turns(url: str) -> None:
        first = await asyncpg.connect(url, statement_cache_size=0)
        second = await asyncpg.connect(url, statement_cache_size=0)
        try:
            async with first.transaction():
                backend = await first.fetchval("SELECT pg_backend_pid()")
                waiting = asyncio.create_task(second.fetchval("SELECT pg_backend_pid()"))
                done, _ = await asyncio.wait({waiting}, timeout=SILENCE_S)
                assert not done
            assert await asyncio.wait_for(waiting, LIMIT_S) == backend
        finally:
            await first.close()
            await second.close()

    with PgBouncer(postgres.port, pool_size=1) as pooler:
        asyncio.run(take_turns(pooler.url(postgres.create_database())))


def test_pgbouncer_checks_passwords_and_refuses_settings_at_the_start(pgbouncer: PgBouncer) -> None:
    url = pgbouncer.url("postgres")

    async def connect_with_a_setting() -> None:
        await asyncpg.connect(url, server_settings={"statement_timeout": "1000"})

    with pytest.raises(asyncpg.PostgresError, match="unsupported startup parameter"):
        asyncio.run(connect_with_a_setting())
    with pytest.raises(asyncpg.PostgresError, match="auth"):
        query(url.replace(PASSWORD, "wrong"), "SELECT 1")


@pytest.fixture
def proxy(valkey: Valkey) -> Iterator[Proxy]:
    with Proxy(valkey.port) as between:
        yield between


def connect(port: int) -> socket.socket:
    return socket.create_connection((HOST, port), LIMIT_S)


def silent(wire: socket.socket) -> bool:
    """Whether nothing comes, not even an end."""
    wire.settimeout(SILENCE_S)
    try:
        wire.recv(1)
    except TimeoutError:
        return True
    finally:
        wire.settimeout(LIMIT_S)
    return False


def ping(wire: socket.socket) -> None:
    wire.sendall(b"PING\r\n")
    assert wire.recv(100) == b"+PONG\r\n"


def test_a_proxy_passes_on_and_counts(proxy: Proxy) -> None:
    with connect(proxy.port) as first, connect(proxy.port) as second:
        ping(first)
        ping(second)
        first.sendall(b"PI")
        wait_until(lambda: proxy.bytes_up == 14, "half a command arrives")
        first.sendall(b"NG\r\n")
        assert first.recv(100) == b"+PONG\r\n"
        assert (proxy.connections, proxy.accepted) == (2, 2)
        assert (proxy.bytes_up, proxy.bytes_down, proxy.count(b"PING")) == (18, 21, 3)
    wait_until(lambda: proxy.connections == 0, "both connections are closed")
    assert proxy.accepted == 2


def test_a_proxy_passes_on_megabytes_in_order(proxy: Proxy) -> None:
    with redis.Redis(host=HOST, port=proxy.port) as client:
        value = os.urandom(8 << 20)
        client.set("large", value)
        assert client.get("large") == value
        client.delete("large")


def test_a_proxy_delays_each_direction(proxy: Proxy) -> None:
    with connect(proxy.port) as wire:
        ping(wire)
        proxy.latency_s = 0.05
        began_s = time.monotonic()
        ping(wire)
        assert time.monotonic() - began_s >= 0.1


def test_a_black_hole_keeps_connections_open_and_lets_all_through_once_healed(proxy: Proxy) -> None:
    with connect(proxy.port) as old:
        ping(old)
        proxy.black_hole()
        with connect(proxy.port) as new:
            for wire in (old, new):
                wire.sendall(b"PING\r\n")
            assert silent(old)
            assert silent(new)
            assert (proxy.connections, proxy.accepted, proxy.count(b"PING")) == (2, 2, 3)
            assert proxy.bytes_down == 7
            connect(proxy.port).close()
            wait_until(lambda: (proxy.connections, proxy.accepted) == (2, 3), "a third one came and went")
            proxy.heal()
            assert old.recv(100) == new.recv(100) == b"+PONG\r\n"


def test_a_reset_aborts_connections_old_and_new_until_healed(proxy: Proxy) -> None:
    with connect(proxy.port) as wire:
        ping(wire)
        proxy.reset()
        with pytest.raises(ConnectionResetError):
            wire.recv(1)
    assert proxy.connections == 0
    with pytest.raises(ConnectionResetError), connect(proxy.port) as wire:
        wire.recv(1)
    proxy.heal()
    with connect(proxy.port) as wire:
        ping(wire)


def test_a_refusing_proxy_keeps_what_is_open_and_its_port(proxy: Proxy) -> None:
    with connect(proxy.port) as wire:
        ping(wire)
        proxy.refuse()
        with pytest.raises(ConnectionRefusedError):
            connect(proxy.port)
        ping(wire)
        proxy.heal()
        with connect(proxy.port) as new:
            ping(new)


def test_a_proxy_passes_on_that_its_target_ended_or_is_not_there(own_valkey: Valkey) -> None:
    with Proxy(own_valkey.port) as proxy:
        with connect(proxy.port) as wire:
            ping(wire)
            own_valkey.kill()
            with suppress(ConnectionResetError):
                assert wire.recv(1) == b""
        with pytest.raises(ConnectionResetError), connect(proxy.port) as wire:
            wire.recv(1)
        own_valkey.start()
        with connect(proxy.port) as wire:
            ping(wire)
