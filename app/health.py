"""How the service and all it depends on are: asked without ever waiting long, whatever is broken."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextvars import Context
from typing import Literal, Protocol

from app import ids, wire
from app.cache.redis import Shared
from app.cache.tiers import Cache
from app.edge.admission import Admission
from app.evidence.lists import ListsInForce
from app.evidence.providers.collection import Providers
from app.resilience.batcher import Batcher
from app.resilience.breaker import Breaker
from app.store.base import Row

PROBE_S = 0.06
"""How long an answer waits for a probe that is under way; the probe itself goes on, and the next answer tells of it."""
FRESH_S = 0.5
"""For how long what a probe found is told without another."""
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
    """

    def __init__(self, ask: Callable[[], Awaitable[object]]) -> None:
        self._ask = ask
        self._task: asyncio.Task[None] | None = None
        self._begun = 0.0
        self._found_at = -FRESH_S
        self.problem: str | None = None
        self.latency_ms: float | None = None

    async def look(self) -> None:
        """Know how it is, as far as that can be found out in PROBE_S."""
        now = time.monotonic()
        if self._task is None and now - self._found_at >= FRESH_S:
            self._begun = now
            loop = asyncio.get_running_loop()
            self._task = loop.create_task(self._find_out(), name="health-probe", context=Context())
        if self._task is not None:
            await asyncio.wait((self._task,), timeout=PROBE_S)
        if self._task is not None:
            took_ms = (time.monotonic() - self._begun) * 1000
            self.problem, self.latency_ms = f"no answer for {took_ms:.0f} ms", round(took_ms, 3)

    async def _find_out(self) -> None:
        problem = None
        try:
            await self._ask()
        except Exception as error:
            problem = str(error) or type(error).__name__
        self._found_at = time.monotonic()
        self.problem, self.latency_ms = problem, round((self._found_at - self._begun) * 1000, 3)
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
        breakers: Sequence[Breaker],
        lists: ListsInForce,
        providers: Providers,
        admission: Admission,
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
        self._started = time.monotonic()
        self._started_at = ids.instant(ids.now_ms())
        self._writes = Probe(store.check)
        self._reads = Probe(lambda: store.get("", NOWHERE))
        self._redis = Probe(self._ask_redis)

    def brief(self) -> wire.Health:
        """One word, from what is known without asking anybody."""
        return wire.Health(self._status(self._is_degraded()), self._version)

    def readiness(self) -> wire.Readiness:
        """Whether this process takes requests. An outage of what all pods share is no reason not to: taking every pod
        out of rotation would make a part that fails the failure of everything."""
        reasons = []
        if self.phase == "starting":
            reasons.append("The service is starting: models, schema and watchlists are not all loaded yet.")
        if self.phase == "draining":
            reasons.append("The service is stopping, and finishes what it has begun.")
        return wire.Readiness("not_ready" if reasons else "ready", reasons)

    async def detailed(self) -> wire.DetailedHealth:
        """Every component. Takes little more than PROBE_S, whatever does not answer."""
        probes = [self._writes, self._reads] + ([self._redis] if self._shared is not None else [])
        await asyncio.gather(*(probe.look() for probe in probes))
        components = [
            self._database("database_writes", self._writes),
            self._database("database_reads", self._reads),
            *self._redis_component(),
            *self._provider_components(),
            self._watchlists(),
            self._admission_component(),
            *self._cache_components(),
        ]
        is_degraded = any(one.status != "ok" for one in components)
        return wire.DetailedHealth(
            status=self._status(is_degraded),
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

    def _status(self, is_degraded: bool) -> wire.HealthStatus:
        if self.phase != "ready":
            return self.phase
        return "degraded" if is_degraded else "ok"

    def _is_degraded(self) -> bool:
        breakers = [*self._breakers.values(), *self._providers.breakers]
        return any(breaker.state != "closed" for breaker in breakers) or self._admission.waiting > 0

    async def _ask_redis(self) -> None:
        assert self._shared is not None
        found = await self._shared.get(b"kyb:health")
        if not found.answered:
            raise ConnectionError("Redis does not answer")

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
        pool = self._shared.pool
        figures: dict[str, float] = {
            "connections_open": pool.idle + pool.in_use,
            "connections_in_use": pool.in_use,
            "connections_limit": pool.max_connections,
            "waiting": self._shared.batcher.waiting,
            "invalidations_owed": self._shared.owed,
        }
        return [self._component("redis", self._redis, figures, self._shared.breaker)]

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
        self, name: str, probe: Probe | None, figures: dict[str, float], breaker: Breaker | None
    ) -> wire.Component:
        problem = None if probe is None else probe.problem
        status: wire.ComponentStatus = "down" if problem else "ok"
        since = None
        if breaker is not None:
            since = ids.instant(ids.now_ms() - round(breaker.state_age_s * 1000))
            if breaker.state != "closed" and not problem:
                problem, status = "it failed or was slow too often, and is left alone for a while", "degraded"
        return wire.Component(
            name,
            status,
            problem,
            None if probe is None else probe.latency_ms,
            None if breaker is None else breaker.state,
            since,
            figures,
        )
