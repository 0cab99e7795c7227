"""The service as its users meet it: a real process on a loopback port, and clients that speak HTTP to it."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from app.credentials import digest, mint, recognise
from app.ids import now_ms
from app.keys.issue import created
from app.neighbours import make_store
from app.roles import Role
from app.secrets import secrets_of
from app.settings import Settings, load
from app.store.access import StoredKey
from app.store.base import opened

ROOT = Path(__file__).resolve().parent.parent
COMMAND = (sys.executable, "-m", "app.cli", "serve")
HOST = "127.0.0.1"

START_LIMIT_S = 30.0
STOP_LIMIT_S = 40.0
ANSWER_LIMIT_S = 30.0

Json = Any
Headers = Mapping[str, str]

SECRETS = {
    "KEY_HASH_SECRET": "a secret of the tests, 32 characters",
    "AUDIT_SIGNING_KEY": "a signing key of the tests, 32 characters",
}
MINTED = mint("test")
KEY = MINTED.text
"""The key that every service of the tests knows: of TENANT, which may do everything, without a limit."""
TENANT = "default"


def example(name: str) -> Json:
    """A fresh copy of one of the profiles in examples/."""
    return json.loads((ROOT / "examples" / f"{name}.json").read_text(encoding="utf-8"))


def named(name: str, **business: Json) -> Json:
    """The least profile, with further members of `business`."""
    return {"business": {"name": name, "jurisdiction": "DE", **business}}


def unique(name: str) -> str:
    """A text that no other test uses."""
    return f"{name}-{uuid.uuid4().hex[:12]}"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


async def keep_key(
    settings: Settings, text: str = KEY, role: Role = "admin", tenant_id: str = "default", **more: Any
) -> None:
    """Have the service of these settings know a key, unless it does."""
    id = recognise(text.encode())
    assert id is not None
    hashed = digest(text.encode(), secrets_of(settings).key_hash)
    if not settings.database.is_postgres:
        settings.database.sqlite_file.parent.mkdir(parents=True, exist_ok=True)
    known = {"networks": (), "tier": "unlimited", "rate": None, "scopes": None, "created_ms": now_ms(), **more}
    async with opened(make_store(settings)) as store:
        if await store.key(id) is None:
            key = StoredKey(id, tenant_id, "tests", role, digest=hashed, created_by="tests", **known)
            await store.add_key(key, created(key, "tests"))


class Answer:
    """A whole answer. headers: names in lower case; one that stands twice is an error."""

    def __init__(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        self.status = status
        self.headers = {name.lower(): value for name, value in headers}
        assert len(self.headers) == len(headers), f"a header stands twice: {headers}"
        self.body = body

    @property
    def json(self) -> Json:
        return json.loads(self.body)

    def __repr__(self) -> str:
        return f"<{self.status} {self.body[:600]!r}>"


class Client:
    """A caller with one kept-alive connection, for one thread. What goes wrong on the wire is raised.

    key: sent with each request that does not name another; None sends none.
    """

    def __init__(self, port: int, key: str | None = KEY) -> None:
        self.key = key
        self.connection = http.client.HTTPConnection(HOST, port, timeout=ANSWER_LIMIT_S)

    def send(self, method: str, path: str, body: bytes | None = None, headers: Headers | None = None) -> Answer:
        own = {} if self.key is None else {"X-API-Key": self.key}
        self.connection.request(method, path, body=body, headers={**own, **(headers or {})})
        response = self.connection.getresponse()
        return Answer(response.status, response.getheaders(), response.read())

    def get(self, path: str, headers: Headers | None = None, **query: Json) -> Answer:
        return self.send("GET", _with(path, query), None, headers)

    def post(self, path: str, document: Json, headers: Headers | None = None, **query: Json) -> Answer:
        """document: sent as it is where it is bytes, as JSON where it is anything else."""
        body = document if isinstance(document, bytes) else json.dumps(document).encode()
        return self.send("POST", _with(path, query), body, {"Content-Type": "application/json", **(headers or {})})

    def assess(self, profile: Json, headers: Headers | None = None, **query: Json) -> Answer:
        return self.post("/v1/assessments", profile, headers, **query)

    def recorded(self, profile: Json, **query: Json) -> Json:
        """Assess and record a profile that is right; the assessment."""
        answer = self.assess(profile, **query)
        assert answer.status == 201, answer
        return answer.json

    def walk(self, **query: Json) -> Iterator[Json]:
        """Every assessment that a list holds, page by page."""
        cursor: str | None = None
        while True:
            page = self.get("/v1/assessments", None, **query, **({"cursor": cursor} if cursor else {}))
            assert page.status == 200, page
            yield from page.json["items"]
            cursor = page.json["next_cursor"]
            if cursor is None:
                return

    def close(self) -> None:
        self.connection.close()


def _with(path: str, query: Mapping[str, Json]) -> str:
    told = {name.rstrip("_"): str(value).lower() if isinstance(value, bool) else value for name, value in query.items()}
    return f"{path}?{urlencode(told)}" if told else path


class Wire:
    """A caller that writes bytes and reads answers itself, for requests that no client library would send."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection((HOST, port), timeout=ANSWER_LIMIT_S)
        self._file = self.socket.makefile("rb")

    def write(self, data: bytes) -> None:
        self.socket.sendall(data)

    def interim(self) -> bytes:
        """The head of an answer such as 100 Continue."""
        lines = []
        while (line := self._file.readline()) not in (b"\r\n", b""):
            lines.append(line)
        return b"".join(lines)

    def answer(self, method: str = "GET") -> Answer:
        """The next answer, read as its Content-Length says. Raises ConnectionError where there is none."""
        head = self._file.readline()
        if not head:
            raise ConnectionError("closed without an answer")
        status = int(head.split()[1])
        headers = []
        while (line := self._file.readline()) not in (b"\r\n", b""):
            name, _, value = line.decode("latin-1").partition(":")
            headers.append((name.strip(), value.strip()))
        length = int({name.lower(): value for name, value in headers}.get("content-length", "0"))
        body = b"" if method == "HEAD" or status == 304 else self._file.read(length)
        return Answer(status, headers, body)

    def close(self) -> None:
        self._file.close()
        self.socket.close()

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def exchange(port: int, request: bytes) -> Answer:
    """Write a request as it stands and read one answer."""
    with Wire(port) as wire:
        wire.write(request)
        return wire.answer()


def environment(settings: Mapping[str, str]) -> dict[str, str]:
    """An environment of these settings alone: what the tests' own environment says must not leak in."""
    kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
    return {**kept, "PYTHONUNBUFFERED": "1", **settings}


class Service:
    """One service with a data folder of its own, which outlives its processes.

    folder: where `data`, the log and `config.yaml` are kept. Each start takes a free port.
    """

    def __init__(self, folder: Path, config: str = "", **settings: str) -> None:
        self.folder = folder
        self.log = folder / "service.log"
        told = {"DATA_DIR": str(folder / "data"), "LOG_LEVEL": "warning", "DRAIN_TIME": "0s"}
        self.settings = {**told, **SECRETS, **settings}
        self.port = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._clients: list[Client] = []
        if config:
            file = folder / "config.yaml"
            file.write_text(config, encoding="utf-8")
            self.settings["CONFIG_FILE"] = str(file)

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, "the service was not started"
        return self._process

    def start(self, **settings: str) -> Service:
        """Start a process that knows KEY and wait until it answers. settings: for this start, over the service's."""
        asyncio.run(keep_key(load(environment({**self.settings, **settings})).settings))
        return self.launch(**settings)

    def launch(self, **settings: str) -> Service:
        """The same, with the keys that there are."""
        self.spawn(**settings)
        try:
            self.wait_for_health()
        except BaseException:
            self.kill()
            raise
        return self

    def spawn(self, **settings: str) -> None:
        """The same, without waiting until it answers."""
        given = {**self.settings, **settings}
        self.port = int(given.get("PORT") or free_port())
        self.run(COMMAND, environment({**given, "PORT": str(self.port)}))

    def run(self, command: Sequence[str], told: Mapping[str, str]) -> None:
        """Start its process. told: all of its environment."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                env=told,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def wait_for_health(self) -> None:
        deadline = time.monotonic() + START_LIMIT_S
        while True:
            assert self.process.poll() is None, f"the service ended: {self.logged()}"
            assert time.monotonic() < deadline, f"the service does not answer: {self.logged()}"
            client = Client(self.port)
            with closing(client), suppress(OSError, http.client.HTTPException):
                if client.get("/health").status == 200:
                    return
            time.sleep(0.01)

    def client(self, key: str | None = KEY) -> Client:
        """A new connection, closed when the service is."""
        self._clients.append(Client(self.port, key))
        return self._clients[-1]

    def new_key(self, role: Role = "admin", tenant_id: str = "default", **more: Any) -> str:
        """A key that nobody had before. more: members of StoredKey."""
        text = mint("test").text
        told = environment({**self.settings, "PORT": str(self.port)})
        asyncio.run(keep_key(load(told).settings, text, role, tenant_id, **more))
        return text

    def workers(self) -> list[int]:
        """The process ids of the workers."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return [int(pid) for pid in children.split()]

    def terminate(self) -> int:
        """Ask the service to stop and wait until it has; its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.wait()

    def wait(self) -> int:
        code = self.process.wait(STOP_LIMIT_S)
        self._forget()
        return code

    def kill(self) -> None:
        """End every process of the service at once, as a machine that loses its power."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(STOP_LIMIT_S)
        self._forget()

    def stop(self) -> None:
        """Whatever state it is in, leave nothing behind."""
        if self._process is not None:
            self.kill()

    def restart(self, **settings: str) -> Service:
        assert self.terminate() == 0, self.logged()
        return self.start(**settings)

    def logged(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace") if self.log.exists() else ""

    def _forget(self) -> None:
        for client in self._clients:
            client.close()
        self._clients.clear()


@contextmanager
def serving(folder: Path, config: str = "", **settings: str) -> Iterator[Service]:
    """A service that runs for as long as the block does."""
    folder.mkdir(parents=True, exist_ok=True)
    service = Service(folder, config, **settings)
    try:
        yield service.start()
    finally:
        service.stop()


def failed_start(folder: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    """Start a service that must refuse to: its exit code and what it said."""
    told = {"DATA_DIR": str(folder / "data"), "PORT": str(free_port()), **SECRETS, **settings}
    return subprocess.run(
        COMMAND, env=environment(told), cwd=folder, capture_output=True, text=True, timeout=START_LIMIT_S, check=False
    )


class Crowd:
    """Threads that each call `work` with a connection of their own until told to stop.

    work: takes a client; raises OSError or HTTPException when the service is gone, which is counted and not an error.
    """

    def __init__(self, service: Service, size: int, work: Any) -> None:
        self.lost = 0
        self.errors: list[BaseException] = []
        self._service = service
        self._work = work
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(size)]

    def __enter__(self) -> Crowd:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(ANSWER_LIMIT_S)
        assert not any(thread.is_alive() for thread in self._threads)
        if self.errors:
            raise self.errors[0]

    def _run(self) -> None:
        client = Client(self._service.port)
        while not self._over.is_set():
            try:
                self._work(client)
            except (OSError, http.client.HTTPException):
                self.lost += 1
                client.close()
                client = Client(self._service.port)
                self._over.wait(0.01)
            except BaseException as error:
                self.errors.append(error)
                self._over.set()
        client.close()


def wait_until(condition: Any, what: str, limit_s: float = ANSWER_LIMIT_S) -> None:
    """Come back as soon as the condition holds."""
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {limit_s:g} s: {what}"
        time.sleep(0.005)
