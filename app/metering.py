"""What each part counts of itself, told as metrics. The only place that knows both."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from app import wire
from app.audit.acts import Acts
from app.audit.checkpoints import Checkpoints
from app.audit.notes import Notes
from app.cache.local import Local
from app.cache.tiers import Cache
from app.edge.admission import Admission
from app.evidence.gathering import Gatherer
from app.evidence.lists import ListsInForce
from app.evidence.providers.collection import Providers
from app.evidence.providers.guarded import Guarded
from app.health import ServiceHealth
from app.ids import now_ms
from app.limits.limiter import Limiter
from app.neighbours import Store, Tiers, breakers_of
from app.resilience.breaker import State, Watched
from app.resilience.retry import Retry
from app.store.postgres.store import PostgresStore
from app.telemetry import catalogue
from app.telemetry.lines import LineWriter
from app.telemetry.meters import Meters, Metric

STATUSES: Mapping[wire.ComponentStatus, int] = {"ok": 0, "degraded": 1, "down": 2}
STATES: Mapping[State, int] = {"closed": 0, "half_open": 1, "open": 2}


class Batching(Protocol):
    """What batches: one lane, or several as one. on_sent: told of each how many items it had and how long it took."""

    on_sent: Callable[[int, float], None] | None

    @property
    def waiting(self) -> int: ...


class Linked(Protocol):
    """What has connections: how many at most, how many are open and in use, and the waits for one."""

    @property
    def size(self) -> int: ...
    @property
    def connections(self) -> tuple[int, int]: ...
    @property
    def waits(self) -> int: ...
    @property
    def waited_s(self) -> float: ...
    @property
    def exhausted(self) -> int: ...


class Metering:
    """Ties parts to the metrics that tell of them."""

    def __init__(self, meters: Meters) -> None:
        self._meters = meters
        self._lists_told: set[str] = set()
        self._take(catalogue.SERIES_DROPPED, (), lambda: meters.cells.dropped)

    def store(self, store: Store, tiers: Tiers) -> None:
        """Database and Redis: batches, pools, breakers, retries, caches."""
        for name, batcher in store.batchers.items():
            self._batcher(name, batcher)
        if isinstance(store, PostgresStore):
            for name, link in store.links.items():
                self._link(name, link)
            self._retry("database", store.retry)
        shared = tiers.shared
        if shared is not None:
            self._batcher("redis", shared.way)
            self._link("redis", shared.way)
            self._meters.poll(self._of_each(catalogue.REDIS_ERRORS, shared.errors))
        for cache in tiers.caches:
            self._cache(cache)
        for name, local in (("values", tiers.local), ("keys", tiers.keys)):
            self._local(name, local)
        for breaker in breakers_of(store, tiers):
            self._breaker(breaker)

    def evidence(self, gatherer: Gatherer, lists: ListsInForce, providers: Providers) -> None:
        """Lists, what is remembered of screenings, and external providers."""
        self._take(catalogue.SCREENING_REMEMBERED, (), lambda: gatherer.remembered)
        self._take(catalogue.LISTS_STALE, (), lambda: len(lists.loaded.stale))
        self._take(catalogue.LISTS_MISSING, (), lambda: len(lists.loaded.missing))
        self._meters.poll(lambda: self._tell_lists(lists))
        for one in providers.each:
            self._breaker(one.breaker)
            self._retry(f"provider.{one.name}", one.retry)
            self._provider(one)

    def edge(self, admission: Admission, limiter: Limiter) -> None:
        """Who is let in, and when."""
        self._take(catalogue.ADMITTED, (), lambda: admission.in_flight)
        self._take(catalogue.QUEUE_LENGTH, (), lambda: admission.waiting)
        self._take(catalogue.QUEUE_AGE, (), lambda: admission.oldest_wait_s)
        self._take(catalogue.SATURATION, (), lambda: admission.saturation)
        self._batcher("limits", limiter.batcher)

    def audit(self, acts: Acts, notes: Notes, checkpoints: Checkpoints) -> None:
        """The trail."""
        self._batcher("audit", acts.batches)
        self._take(catalogue.AUDIT_ENTRIES, ("awaited",), lambda: acts.batches.items)
        self._take(catalogue.AUDIT_ENTRIES, ("noted",), lambda: notes.entered)
        self._take(catalogue.AUDIT_DROPPED, (), lambda: notes.dropped)
        self._take(catalogue.AUDIT_CHECKPOINTS, (), lambda: checkpoints.made)
        self._take(catalogue.AUDIT_BROKEN, (), lambda: checkpoints.broken)

    def health(self, status: ServiceHealth, version: str, store: Store) -> None:
        """Whether requests are taken, and what runs here."""
        self._take(catalogue.READY, (), lambda: status.phase == "ready")
        self._meters.poll(lambda: self._tell_components(status))
        kind = "postgresql" if isinstance(store, PostgresStore) else "sqlite"
        model = f"{status.model.id}@{status.model.version}"
        self._meters.counter(catalogue.INFO, version, model, store.schema_version, kind).set(1)

    def log(self, lines: LineWriter) -> None:
        """What is logged."""
        self._take(catalogue.LOG_DROPPED, (), lambda: lines.dropped)

    def _take(self, metric: Metric, labels: tuple[str, ...], read: Callable[[], float]) -> None:
        told = self._meters.counter(metric, *labels)
        self._meters.poll(lambda: told.set(read()))

    def _of_each(self, metric: Metric, counted: Mapping[str, int], *labels: str) -> Callable[[], None]:
        def take() -> None:
            for reason, count in counted.items():
                self._meters.counter(metric, *labels, reason).set(count)

        return take

    def _batcher(self, name: str, batcher: Batching) -> None:
        sizes = self._meters.histogram(catalogue.BATCH_SIZE, name)
        times = self._meters.histogram(catalogue.BATCH_FLUSH, name)

        def sent(items: int, took_s: float) -> None:
            sizes.observe(items)
            times.observe(took_s)

        batcher.on_sent = sent
        self._take(catalogue.BATCH_QUEUE, (name,), lambda: batcher.waiting)

    def _link(self, name: str, link: Linked) -> None:
        self._take(catalogue.POOL_LIMIT, (name,), lambda: link.size)
        self._take(catalogue.POOL_OPEN, (name,), lambda: link.connections[0])
        self._take(catalogue.POOL_IN_USE, (name,), lambda: link.connections[1])
        self._take(catalogue.POOL_WAITED, (name,), lambda: link.waits)
        self._take(catalogue.POOL_WAIT, (name,), lambda: link.waited_s)
        self._take(catalogue.POOL_EXHAUSTED, (name,), lambda: link.exhausted)

    def _provider(self, one: Guarded) -> None:
        self._take(catalogue.PROVIDER_FLYING, (one.name,), lambda: one.flying)
        self._meters.poll(self._of_each(catalogue.PROVIDER_CALLS, one.ended, one.name))

    def _cache(self, cache: Cache[Any]) -> None:
        self._take(catalogue.CACHE_HITS, (cache.name, "local"), lambda: cache.hits_local)
        self._take(catalogue.CACHE_HITS, (cache.name, "shared"), lambda: cache.hits_shared)
        self._take(catalogue.CACHE_MISSES, (cache.name,), lambda: cache.loads)

    def _local(self, name: str, local: Local) -> None:
        self._take(catalogue.CACHE_ENTRIES, (name,), lambda: local.entries)
        self._take(catalogue.CACHE_BYTES, (name,), lambda: local.size_bytes)
        self._take(catalogue.CACHE_EVICTIONS, (name,), lambda: local.evictions)

    def _breaker(self, breaker: Watched) -> None:
        self._take(catalogue.BREAKER_STATE, (breaker.name,), lambda: STATES[breaker.state])
        self._take(catalogue.BREAKER_OPENED, (breaker.name,), lambda: breaker.opened)
        self._take(catalogue.BREAKER_REJECTED, (breaker.name,), lambda: breaker.rejected)

    def _retry(self, name: str, retry: Retry) -> None:
        self._take(catalogue.RETRIES, (name,), lambda: retry.retries)
        self._take(catalogue.RETRY_BUDGET, (name,), lambda: retry.budget.tokens)

    def _tell_components(self, status: ServiceHealth) -> None:
        for one in status.components():
            self._meters.counter(catalogue.COMPONENT, one.name).set(STATUSES[one.status])

    def _tell_lists(self, lists: ListsInForce) -> None:
        now = now_ms()
        in_force = lists.loaded.lists
        for name in self._lists_told.difference([listed.name for listed in in_force]):
            self._tell_list(name, math.nan, math.nan)
        for listed in in_force:
            self._tell_list(listed.name, max(0.0, (now - listed.known.checked_ms) / 1000), listed.known.entities)
        self._lists_told = {listed.name for listed in in_force}

    def _tell_list(self, name: str, age_s: float, entries: float) -> None:
        self._meters.counter(catalogue.LIST_AGE, name).set(age_s)
        self._meters.counter(catalogue.LIST_ENTRIES, name).set(entries)
