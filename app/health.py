"""How the service and all it depends on are: asked without ever waiting long, whatever is broken."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextvars import Context
from typing import Literal, Protocol

from app import ids, wire
from app.audit.checkpoints import Checkpoints
from app.cache.cluster import Cluster
from app.cache.redis import Shared
from app.cache.tiers import Cache
from app.edge.admission import Admission
from app.evidence.lists import ListsInForce
from app.evidence.providers.collection import Providers
from app.resilience.batcher import Batcher
from app.resilience.breaker import Watched
from app.store.base import Row

PROBE_S = 0.06
"""How long an answer waits for a probe that is under way; the probe itself goes on, and the next answer tells of it."""
FRESH_S = 0.5
"""For how long what a probe found is told without another."""
WATCH_S = 5.0
"""How often everything is probed where nobody asks, so that those who do not wait are told the truth."""
NOWHERE = bytes(16)
"""The id of no assessment."""

QUEUES: Mapping[str, Sequence[str]] = {
    "database_writes": ("records", "bulk_records", "idempotency"),
    "database_reads": ("reads", "pages", "dispositions"),
}
"""The store's batchers, by what they need of the database."""

Phase = Literal["starting", "ready", "draining"]


class Link(Protocol):
    """Connections of the store, for who watches."""

    @property
    def size(self) -> int: ...
    @property
    def connections(self) -> tuple[int, int]: ...


class WatchedStore(Protocol):
    """What health asks of a store."""

    @property
    def schema_version(self) -> str: ...
    @property
    def batchers(self) -> Mapping[str, Batcher[object, object]]: ...
    async def check(self) -> None: ...
    async def get(self, tenant_id: str, id: bytes) -> Row | None: ...


class Probe:
    """Asks something how it is, one question at a time.

    ask: raises what is wrong. It bounds its own time.
    `status` and `problem`: as the last question was answered; of one that was answered well before, and now is not for
    a while, that it is late.  `latency_ms`: of the last answer, or for how long there has been none.
    """

    def __init__(self, ask: Callable[[], Awaitable[object]]) -> None:
        self._ask = ask
        self._task: asyncio.Task[None] | None = None
        self._begun = 0.0
        self._ended = -FRESH_S
        self._failure: str | None = None
        self._took_s: float | None = None

    @property
    def _late_s(self) -> float:
        """For how long a question has been without an answer, 0 where it need not have one yet."""
        waited_s = time.monotonic() - self._begun if self._task is not None else 0.0
        return waited_s if waited_s >= PROBE_S else 0.0

    @property
    def status(self) -> wire.ComponentStatus:
        if self._failure is not None:
            return "down"
        return "degraded" if self._late_s else "ok"

    @property
    def problem(self) -> str | None:
        if self._failure is None and self._late_s:
            return f"no answer for {self._late_s * 1000:.0f} ms"
        return self._failure

    @property
    def latency_ms(self) -> float | None:
        took_s = self._late_s or self._took_s
        return None if took_s is None else round(took_s * 1000, 3)

    async def look(self) -> None:
        """Know how it is, as far as that can be found out in PROBE_S."""
        now = time.monotonic()
        if self._task is None and now - self._ended >= FRESH_S:
            self._begun = now
            loop = asyncio.get_running_loop()
            self._task = loop.create_task(self._find_out(), name="health-probe", context=Context())
        if self._task is not None:
            await asyncio.wait((self._task,), timeout=PROBE_S)

    async def stop(self) -> None:
        """Ask no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait((self._task,))

    async def _find_out(self) -> None:
        failure = None
        try:
            await self._ask()
        except Exception as error:
            failure = str(error) or type(error).__name__
        self._ended = time.monotonic()
        self._failure, self._took_s = failure, self._ended - self._begun
        self._task = None


class ServiceHealth:
    """The health of one process. phase: to be set as it starts and ends.

    breakers: of database and Redis.  model: that scores.  workers: processes that share the port.
    """

    def __init__(
        self,
        version: str,
        model: wire.ModelSummary,
        workers: int,
        store: WatchedStore,
        links: Mapping[str, Link],
        shared: Shared | None,
        caches: Sequence[Cache[object]],
        breakers: Sequence[Watched],
        lists: ListsInForce,
        providers: Providers,
        admission: Admission,
        checkpoints: Checkpoints,
    ) -> None:
        self.phase: Phase = "starting"
        self.model = model
        self._version = version
        self._workers = workers
        self._store = store
        self._links = links
        self._shared = shared
        self._caches = caches
        self._breakers = {breaker.name: breaker for breaker in breakers}
        self._lists = lists
        self._providers = providers
        self._admission = admission
        self._checkpoints = checkpoints
        self._started = time.monotonic()
        self._started_at = ids.instant(ids.now_ms())
        self._writes = Probe(store.check)
        self._reads = Probe(lambda: store.get("", NOWHERE))
        self._probes = [self._writes, self._reads]
        self._redis = None if shared is None else Probe(shared.check)
        if self._redis is not None:
            self._probes.append(self._redis)
        self._watch: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Take requests, and probe now and then until `stop`."""
        self.phase = "ready"
        self._watch = asyncio.get_running_loop().create_task(self._probe(), name="health", context=Context())

    def drain(self) -> None:
        """Tell that requests should go elsewhere: this process ends."""
        self.phase = "draining"

    async def stop(self) -> None:
        """Probe nothing any more."""
        self.drain()
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.wait((self._watch,))
        await asyncio.gather(*(probe.stop() for probe in self._probes))

    def brief(self) -> wire.Health:
        """One word, from what is known without asking anybody."""
        return wire.Health(self._status(self.components()), self._version)

    def readiness(self) -> wire.Readiness:
        """Whether this process takes requests. An outage of what all pods share is no reason not to: taking every pod
        out of rotation would make a part that fails the failure of everything."""
        reasons = []
        if self.phase == "starting":
            reasons.append("The service is starting: models, schema and watchlists are not all loaded yet.")
        if self.phase == "draining":
            reasons.append("The service is draining: it answers for a while, closes connections, and then stops.")
        return wire.Readiness("not_ready" if reasons else "ready", reasons)

    async def detailed(self) -> wire.DetailedHealth:
        """Every component. Takes little more than PROBE_S, whatever does not answer."""
        await self._look()
        components = self.components()
        return wire.DetailedHealth(
            status=self._status(components),
            version=self._version,
            model=self.model,
            schema=self._store.schema_version,
            started_at=self._started_at,
            uptime_s=round(time.monotonic() - self._started, 3),
            process_id=os.getpid(),
            workers=self._workers,
            components=components,
            warnings=[
                *[f"{one.name}: {one.problem}" for one in components if one.problem and one.name != "watchlists"],
                *self._lists.warnings,
            ],
        )

    def components(self) -> list[wire.Component]:
        """Every component as the last probes found it, and as it is now where that need not be asked for."""
        return [
            self._database("database_writes", self._writes),
            self._database("database_reads", self._reads),
            *self._redis_component(),
            *self._provider_components(),
            self._watchlists(),
            self._admission_component(),
            self._audit_component(),
            *self._cache_components(),
        ]

    def _status(self, components: Sequence[wire.Component]) -> wire.HealthStatus:
        if self.phase != "ready":
            return self.phase
        return "degraded" if any(one.status != "ok" for one in components) else "ok"

    async def _probe(self) -> None:
        while True:
            await self._look()
            await asyncio.sleep(WATCH_S)

    async def _look(self) -> None:
        await asyncio.gather(*(probe.look() for probe in self._probes))

    def _database(self, name: str, probe: Probe) -> wire.Component:
        figures: dict[str, float] = {}
        link = self._links.get(name)
        if link is not None:
            opened, in_use = link.connections
            figures = {"connections_open": opened, "connections_in_use": in_use, "connections_limit": link.size}
        batchers = self._store.batchers
        figures |= {f"{queue}_waiting": batchers[queue].waiting for queue in QUEUES[name] if queue in batchers}
        return self._component(name, probe, figures, self._breakers.get(name))

    def _redis_component(self) -> list[wire.Component]:
        if self._shared is None:
            return []
        way = self._shared.way
        opened, in_use = way.connections
        figures: dict[str, float] = {
            "connections_open": opened,
            "connections_in_use": in_use,
            "connections_limit": way.size,
            "waiting": way.waiting,
            "invalidations_owed": self._shared.owed,
        }
        if isinstance(way, Cluster):
            figures |= {"nodes": len(way.listed), "slots_uncovered": way.uncovered}
        return [self._component("redis", self._redis, figures, way.breaker)]

    def _provider_components(self) -> list[wire.Component]:
        found = []
        for one in self._providers.each:
            figures: dict[str, float] = {"calls_in_flight": one.flying, "asked": one.asked}
            figures |= {f"ended_{status}": count for status, count in one.ended.items()}
            found.append(self._component(f"provider.{one.name}", None, figures, one.breaker))
        return found

    def _watchlists(self) -> wire.Component:
        now = ids.now_ms()
        loaded = self._lists.loaded
        warnings = self._lists.warnings
        ages = {f"{one.name}_age_s": max(0.0, (now - one.known.checked_ms) / 1000) for one in loaded.lists}
        return wire.Component("watchlists", "degraded" if warnings else "ok", "; ".join(warnings) or None, figures=ages)

    def _admission_component(self) -> wire.Component:
        admission = self._admission
        waiting = admission.waiting
        figures = {
            "in_flight": admission.in_flight,
            "waiting": waiting,
            "oldest_wait_s": round(admission.oldest_wait_s, 3),
            "saturation": round(admission.saturation, 3),
            "refused": admission.refused,
        }
        problem = f"{waiting} requests wait for a place to be worked on" if waiting else None
        return wire.Component("admission", "degraded" if waiting else "ok", problem, figures=figures)

    def _audit_component(self) -> wire.Component:
        broken = self._checkpoints.broken
        problem = f"the trail of {broken} tenants does not continue what its last checkpoint covers" if broken else None
        figures: dict[str, float] = {"checkpoints_made": self._checkpoints.made, "tenants_broken": broken}
        return wire.Component("audit_trail", "down" if broken else "ok", problem, figures=figures)

    def _cache_components(self) -> list[wire.Component]:
        found = []
        for cache in self._caches:
            asked = cache.hits_local + cache.hits_shared + cache.loads
            figures: dict[str, float] = {
                "hit_rate": round((asked - cache.loads) / asked, 4) if asked else 0.0,
                "hits_local": cache.hits_local,
                "hits_shared": cache.hits_shared,
                "misses": cache.loads,
            }
            found.append(wire.Component(f"cache.{cache.name}", "ok", figures=figures))
        return found

    def _component(
        self, name: str, probe: Probe | None, figures: dict[str, float], breaker: Watched | None
    ) -> wire.Component:
        status: wire.ComponentStatus = "ok" if probe is None else probe.status
        problem = None if probe is None else probe.problem
        since = None
        if breaker is not None:
            since = ids.instant(ids.now_ms() - round(breaker.state_age_s * 1000))
            if breaker.state == "open" and status != "down":
                problem, status = "it failed or was slow too often, and is left alone for a while", "down"
            elif breaker.state == "half_open" and status == "ok":
                problem, status = "it failed or was slow too often, and is tried again with the next calls", "degraded"
        return wire.Component(
            name,
            status,
            problem,
            None if probe is None else probe.latency_ms,
            None if breaker is None else breaker.state,
            since,
            figures,
        )
