"""What the tests of a failing PostgreSQL share: databases with tables, callers who keep account, looks at a process."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import asyncpg
import msgspec
from databases import Postgres, query
from service import Answer, Client, Crowd, Json, Service, named, wait_until

from app.ids import now_ms
from app.store.base import Receipt
from app.store.postgres import partitions, schema, statements
from app.store.postgres.partitions import Month

REFUSAL_LIMIT_S = 1.0
"""How long a caller waits at most to be told that the database is away."""

RECOVERY_LIMIT_S = 10.0
"""How long after its end a fault is felt at most."""

PAUSE_S = 0.02
"""How long a caller who was refused keeps still: the load goes on, and refusals do not pile up."""

NOBODY = "01890000-0000-7000-8000-000000000000"
"""The id of no assessment."""

LATER_THREADS = 1
"""Of a worker, besides those that it has from its start: one tells the log of a checkpoint of the audit trail."""


def prepare(url: str, since: Month | None = None) -> str:
    """Make the tables, and the partitions of the months since then, this one and the next; the URL again."""

    async def make() -> None:
        await schema.migrate(url, schema.database_place(url))
        connection = await asyncpg.connect(url, statement_cache_size=0)
        this = Month.of(now_ms())
        first = since or this
        months = (this.year - first.year) * 12 + this.number - first.number
        try:
            async with connection.transaction():
                await partitions.make(connection, first.start_ms, months + 1)
        finally:
            await connection.close()

    asyncio.run(make())
    return url


def prepared(server: Postgres) -> str:
    """The URL of a new database of a server, with tables."""
    return prepare(server.create_database())


@contextmanager
def transaction(url: str) -> Iterator[Callable[..., str]]:
    """A transaction that does not end by itself; a function that executes a statement in it."""
    with asyncio.Runner() as runner:
        connection = runner.run(asyncpg.connect(url))

        def execute(sql: str, *values: Any) -> str:
            status: str = runner.run(connection.execute(sql, *values))
            return status

        try:
            execute("BEGIN")
            yield execute
        finally:
            runner.run(connection.close())


def claim(kept: Receipt) -> tuple[str, tuple[Any, ...]]:
    """The statement that takes a receipt's key, and its values."""
    tenant_id, key, fingerprint, status, ids, *rest = msgspec.structs.astuple(kept)
    names = statements.RECEIPT
    marks = ", ".join(f"${number}" for number in range(1, names.count(",") + 2))
    packed = b"".join(id or bytes(16) for id in ids)
    return f"INSERT INTO idempotency ({names}) VALUES ({marks})", (tenant_id, key, fingerprint, status, packed, *rest)


class Timed(NamedTuple):
    """An answer and how long it took."""

    answer: Answer
    took_s: float


def timed(send: Callable[[], Answer]) -> Timed:
    started = time.monotonic()
    answer = send()
    return Timed(answer, time.monotonic() - started)


def unavailable(answer: Answer) -> Json:
    """The problem that says to come again, and nothing of the inside."""
    assert answer.status == 503, answer
    assert answer.headers["content-type"] == "application/problem+json"
    assert int(answer.headers["retry-after"]) >= 1
    assert answer.json["type"] == "/problems/unavailable"
    assert "sql" not in answer.body.decode().lower(), "the inside of the service shows"
    return answer.json


def refused_in_time(send: Callable[[], Answer]) -> Json:
    """The problem of a request that is told soon to come again."""
    answer, took_s = timed(send)
    assert took_s <= REFUSAL_LIMIT_S, f"told after {took_s:.3f} s: {answer}"
    return unavailable(answer)


class Callers:
    """Businesses that are assessed once each, every second of them under a key, and what their callers were told.

    A key that was refused is repeated until it is acknowledged.  acknowledged: name of the business → id.
    """

    def __init__(self) -> None:
        self.acknowledged: dict[str, str] = {}
        self.refused: list[Timed] = []
        self._unsettled: deque[str] = deque()
        self._numbers = count()

    def among(self, service: Service, size: int = 16) -> Crowd:
        """So many of them, each with a connection of its own."""
        return Crowd(service, size, self.work)

    def work(self, client: Client) -> None:
        """Send one request."""
        name = self._unsettled.popleft() if self._unsettled else self._new_name()
        try:
            told = timed(lambda: self._send(client, name))
        except BaseException:
            self._lay_aside(name)
            raise
        if told.answer.status == 201:
            id = told.answer.json["id"]
            assert self.acknowledged.setdefault(name, id) == id, f"{name} was acknowledged as two assessments"
        else:
            self.refused.append(told)
            self._lay_aside(name)
            time.sleep(PAUSE_S)

    def wait_for_acknowledged(self, number: int, limit_s: float = 30.0) -> None:
        """Wait for so many more."""
        reached = len(self.acknowledged) + number
        wait_until(lambda: len(self.acknowledged) >= reached, f"{number} more are acknowledged", limit_s)

    def wait_for_refused(self, number: int, limit_s: float = 30.0) -> None:
        """Wait for so many more."""
        reached = len(self.refused) + number
        wait_until(lambda: len(self.refused) >= reached, f"{number} more are refused", limit_s)

    def check(self, url: str, service: Service) -> None:
        """Every refusal came in time and says to come again. What was acknowledged is on record, nothing is there
        twice, and a key that was refused can be used."""
        for answer, took_s in self.refused:
            unavailable(answer)
            assert took_s <= REFUSAL_LIMIT_S, f"told after {took_s:.3f} s: {answer}"
        recorded: dict[str, list[str]] = {}
        for id, name in query(url, "SELECT id, business_id FROM assessments WHERE business_id IS NOT NULL"):
            recorded.setdefault(name, []).append(str(id))
        lost = [name for name, id in self.acknowledged.items() if id not in recorded.get(name, [])]
        assert not lost, f"{len(lost)} of {len(self.acknowledged)} acknowledged assessments are gone"
        assert not [name for name, ids in recorded.items() if len(ids) > 1], "something was recorded twice"
        with closing(Client(service.port)) as client:
            for name in (*self._unsettled, *list(self.acknowledged)[-20:]):
                if name.startswith("keyed"):
                    answer = self._send(client, name)
                    assert answer.status == 201, answer
                    assert recorded.get(name, [answer.json["id"]]) == [answer.json["id"]]

    def _new_name(self) -> str:
        number = next(self._numbers)
        return f"{'keyed' if number % 2 else 'plain'}-{number}"

    def _send(self, client: Client, name: str) -> Answer:
        headers = {"Idempotency-Key": name} if name.startswith("keyed") else None
        return client.assess(named("Load Ltd", id=name), headers)

    def _lay_aside(self, name: str) -> None:
        if name.startswith("keyed"):
            self._unsettled.append(name)


class Held(NamedTuple):
    """What a process holds. memory_bytes: resident."""

    files: int
    threads: int
    memory_bytes: int


def held(pid: int) -> Held:
    status = Path(f"/proc/{pid}/status").read_text()
    fields = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    files = sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())
    return Held(files, int(fields["Threads"]), int(fields["VmRSS"].split()[0]) * 1024)


def memory_bytes(service: Service) -> int:
    """Resident, of all its workers."""
    return sum(held(pid).memory_bytes for pid in service.workers())


def backends(server: Postgres, url: str) -> set[int]:
    """The process ids of the service's connections to its database."""
    name = url.rpartition("/")[2]
    found = server.query(
        "postgres", "SELECT pid FROM pg_stat_activity WHERE application_name = 'kyb' AND datname = $1", name
    )
    return {pid for (pid,) in found}
