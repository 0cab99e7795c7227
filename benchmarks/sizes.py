"""What a service costs and takes at one size of what it has to hold, each time one that was started for it."""

from __future__ import annotations

import asyncio
import math
import os
import random
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import growth
import msgspec
import uvloop
from growing import Point, doubling
from growth import Grown
from parties import many

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from databases import Postgres, create_database
from service import HOST, KEY, Service, environment

from app.credentials import digest, mint, recognise
from app.evidence.publishing import publish
from app.ids import now_ms
from app.keys.issue import created
from app.loadtest import process, running
from app.loadtest.mix import ServiceMix
from app.loadtest.process import Orders
from app.loadtest.results import Scenario
from app.loadtest.running import Setup
from app.loadtest.scenarios import Phase, Plan
from app.loadtest.service import found
from app.loadtest.users import Ask
from app.neighbours import make_store
from app.secrets import secrets_of
from app.settings import Settings
from app.settings import load as load_settings
from app.store.access import StoredKey
from app.store.base import opened
from app.watchlists.reading import ReadList

WARM_S = 4
USERS = 200
"""Where they are not what grows."""
SETTINGS = {"PERFORMANCE_MONITORING_INTERVAL": "1s", "WATCHLIST_DEMO": "false", "LOG_LEVEL": "error"}
ASSESSMENTS = {"assess": 1.0}
ASSESSMENTS_AND_READS = {"assess": 0.75, "read": 0.25}

Prepare = Callable[[Settings], Awaitable[None]]


class Bench:
    """What all sizes of a curve have in common.

    rate: requests a second.  seconds: measured.  largest: of the sizes.  server: of PostgreSQL, where it is needed.
    tables: that were filled there, by their rows.
    """

    def __init__(self, rate: float, seconds: int, largest: int, server: Postgres | None = None) -> None:
        self.rate = rate
        self.seconds = seconds
        self.largest = largest
        self.server = server
        self.tables: dict[int, Grown] = {}


@contextmanager
def served(prepare: Prepare | None = None, **settings: str) -> Iterator[Service]:
    """A service with nothing in it but what `prepare` puts there."""
    with tempfile.TemporaryDirectory(prefix="curves-") as folder:
        service = Service(Path(folder), **SETTINGS, **settings)
        if prepare is not None:
            chosen = load_settings(environment(service.settings)).settings
            chosen.database.sqlite_file.parent.mkdir(parents=True, exist_ok=True)
            asyncio.run(prepare(chosen))  # type: ignore[arg-type]
        try:
            yield service.start()
        finally:
            service.stop()


def asked(
    service: Service,
    bench: Bench,
    users: int = USERS,
    shares: dict[str, float] = ASSESSMENTS,
    warm_s: int = WARM_S,
    flat_out: bool = False,
) -> Scenario:
    """What the generator saw; of its seconds those once it was warm. Its latency is that of all requests."""
    plan = Plan("curve", "", (Phase(warm_s + bench.seconds, users, users),), flat_out=flat_out)
    setup = Setup(found(f"http://{HOST}:{service.port}", KEY), shares, "curve", period_s=users / bench.rate)
    scenario = running.run(plan, setup, None, lambda glance: None)
    if scenario.stopped_by is not None:
        raise SystemExit(f"{users:,} users: {scenario.stopped_by}")
    return msgspec.structs.replace(scenario, seconds=scenario.seconds[warm_s:])


def point(size: int, scenario: Scenario, **more: Any) -> Point:
    """The figures of a size."""
    known = [second for second in scenario.seconds if second.service_cpu is not None and second.answered]
    cpu_s = sum(second.service_cpu or 0.0 for second in known)
    memories = [second.service_memory for second in scenario.seconds if second.service_memory is not None]
    return Point(
        size,
        round(sum(second.answered for second in scenario.seconds) / max(1, len(scenario.seconds)), 1),
        round(1e6 * cpu_s / sum(second.answered for second in known), 1) if known else None,
        scenario.latency.p50,
        scenario.latency.p99,
        memories[-1] if memories else None,
        scenario.errors,
        scenario.invalid,
        **more,
    )


def connections(size: int, bench: Bench) -> Point:
    # What is remembered of requests takes memory too: all sizes see as many of them, and each user sends one at least.
    warm_s = max(WARM_S, math.ceil(bench.largest / bench.rate))
    with served() as service:
        return point(size, asked(service, bench, users=size, warm_s=warm_s))


def rows(size: int, bench: Bench) -> Point:
    assert bench.server is not None
    if size not in bench.tables:
        bench.tables[size] = Grown(create_database(bench.server.admin_url()), size)
        uvloop.run(growth.fill([bench.tables[size]]))
    with served(DATABASE_URL=bench.tables[size].url) as service:
        before_s = database_cpu_s(bench.server)
        scenario = asked(service, bench, shares=ASSESSMENTS_AND_READS)
        spent_s = database_cpu_s(bench.server) - before_s
    return point(size, scenario, database_us=round(1e6 * spent_s / max(1, scenario.answered), 1))


def names(size: int, bench: Bench) -> Point:
    async def bring(chosen: Settings) -> None:
        entities = list(many(size))
        async with opened(make_store(chosen)) as store:
            read = ReadList("generated", entities, size)
            await publish(store, "generated", read, title="", source="", content_sha256=bytes(32), actor="cli")

    with served(bring) as service:
        return point(size, asked(service, bench))


def tenants(size: int, bench: Bench) -> Point:
    keys = [mint("test").text for _ in range(size)]

    async def keep(chosen: Settings) -> None:
        async with opened(make_store(chosen)) as store:
            for place, text in enumerate(keys):
                key = stored(text, f"tenant-{place}", chosen)
                await store.add_key(key, created(key, "curves"))

    whole = running.generate  # type: ignore[attr-defined]
    running.generate = partial(generate_for, keys)  # type: ignore[attr-defined]
    try:
        with served(keep) as service:
            return point(size, asked(service, bench))
    finally:
        running.generate = whole  # type: ignore[attr-defined]


def workers(size: int, bench: Bench) -> Point:
    with served(WORKERS=str(size)) as service:
        return point(size, asked(service, bench, flat_out=True))


def stored(text: str, tenant_id: str, chosen: Settings) -> StoredKey:
    """A key as the service keeps it."""
    id = recognise(text.encode())
    assert id is not None
    return StoredKey(
        id,
        tenant_id,
        "curves",
        "assessor",
        digest=digest(text.encode(), secrets_of(chosen).key_hash),
        created_by="curves",
        networks=(),
        tier="unlimited",
        rate=None,
        scopes=None,
        created_ms=now_ms(),
    )


class Tenants(ServiceMix):
    """The same requests, each with one of many keys, all of one length."""

    def __init__(self, keys: Sequence[str], host: str, key: str, *more: Any) -> None:
        super().__init__(host, key, *more)
        self._key = key.encode()
        self._keys = [one.encode() for one in keys]
        self._turn = random.Random(len(keys))

    def ask(self) -> Ask:
        """The next request, of any tenant."""
        kind, data = super().ask()
        return Ask(kind, data.replace(self._key, self._turn.choice(self._keys), 1))


def generate_for(keys: Sequence[str], orders: Orders, pipe: Connection) -> None:
    """In the place of the generator's own process."""
    process.ServiceMix = partial(Tenants, keys)  # type: ignore[attr-defined,assignment]
    process.generate(orders, pipe)


def database_cpu_s(server: Postgres) -> float:
    """CPU time of a server and all of its processes, ended ones too."""
    ticks = os.sysconf("SC_CLK_TCK")
    spent = 0
    for file in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = file.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == server.pid:
            spent += sum(map(int, fields[11:13]))
        elif file.parent.name == str(server.pid):
            spent += sum(map(int, fields[11:15]))
    return spent / ticks


MEASURES: dict[str, Callable[[int, Bench], Point]] = {
    "connections": connections,
    "rows": rows,
    "names": names,
    "tenants": tenants,
    "workers": workers,
}
SIZES: dict[str, tuple[int, ...]] = {
    "connections": (100, 1000, 2500, 5000, 10_000, 15_000),
    "rows": (10_000, 100_000, 1_000_000),
    "names": (1000, 10_000, 100_000, 1_000_000),
    "tenants": (1, 10, 100, 1000),
    "workers": doubling(len(os.sched_getaffinity(0))),
}
"""Of a whole run."""
