"""What stands outside of the process and is asked by it, as the settings say: database, Redis, evidence providers."""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import Any, TypeVar

from app.cache.cluster import Cluster
from app.cache.invalidation import Listener
from app.cache.link import Link
from app.cache.local import Local
from app.cache.pool import FAILURES as REDIS_FAILURES
from app.cache.pool import Pool
from app.cache.redis import Shared
from app.cache.tiers import Cache
from app.evidence import dispositions
from app.evidence.providers import guarded
from app.evidence.providers.base import Provided
from app.evidence.providers.client import Client
from app.evidence.providers.collection import Providers
from app.evidence.providers.guarded import Guarded
from app.evidence.providers.http_json import HttpJsonProvider
from app.evidence.providers.yente import YenteProvider
from app.records import Recorded
from app.resilience.breaker import Breaker, State, Watched
from app.resilience.retry import Retry, RetryBudget
from app.settings import Settings
from app.settings.budget import database_share, redis_share
from app.settings.providers import AnyProvider, HttpJson
from app.settings.urls import place_of, redis_hosts, redis_url_at
from app.store.lists import Disposition
from app.store.postgres.link import Timeouts
from app.store.postgres.store import PostgresStore
from app.store.sqlite import SqliteStore
from app.telemetry.log import event

log = logging.getLogger(__name__)

KEYS = 20_000
KEYS_BYTES = 32 * 2**20

Store = SqliteStore | PostgresStore
V = TypeVar("V")


def breakers_of(store: Store, tiers: Tiers) -> list[Watched]:
    """What tells how the service finds its neighbours."""
    found: list[Watched] = [store.write_breaker, store.read_breaker] if isinstance(store, PostgresStore) else []
    return found + ([tiers.shared.way.breaker] if tiers.shared is not None else [])


def make_store(settings: Settings) -> Store:
    """The store that the settings name, not open yet. Raises BudgetTooSmall."""
    database, idempotency = settings.database, settings.idempotency
    if database.url is None or not database.is_postgres:
        return SqliteStore(database.sqlite_file, timeout_s=database.busy_timeout, key_ttl_s=idempotency.ttl)
    share = database_share(settings)
    budget = RetryBudget(max(settings.retry.budget_percent, 1) / 100)
    attempts = settings.retry.attempts if settings.retry.budget_percent else 1
    return PostgresStore(
        database.url,
        connections=share.connections,
        idle=share.idle,
        lifetime_s=database.connection_max_lifetime,
        pooled=database.pooler == "pgbouncer",
        timeouts=Timeouts(
            acquire_s=database.acquire_timeout,
            connect_s=database.connect_timeout,
            command_s=database.command_timeout,
            statement_s=database.statement_timeout,
            lock_s=database.lock_timeout,
            idle_transaction_s=database.idle_transaction_timeout,
        ),
        key_ttl_s=idempotency.ttl,
        key_wait_s=idempotency.wait,
        months_ahead=database.partitions_ahead,
        write_breaker=_breaker("database_writes", settings, PostgresStore.WRITE_FAILURES),
        read_breaker=_breaker("database_reads", settings, PostgresStore.READ_FAILURES),
        retry=Retry(budget, retry_on=PostgresStore.RETRIED, attempts=attempts),
    )


class Tiers:
    """The two cache tiers: in this process, and Redis where there is one.

    `keys`: the first tier of keys, apart from the others so that no number of assessments pushes one out that still
    has to be known when the database is away.  `caches`: all that use the tiers.
    """

    def __init__(self, settings: Settings) -> None:
        cache, redis = settings.cache, settings.redis
        self._cache = cache
        jitter = cache.ttl_jitter_percent / 100
        self.local = Local(cache.local_entries, cache.local_bytes, jitter=jitter)
        self.keys = Local(KEYS, KEYS_BYTES, jitter=jitter)
        self.caches: list[Cache[Any]] = []
        self.shared: Shared | None = None
        self.listener: Listener | None = None
        if redis.url is not None:
            way = _way(redis.url, settings)
            self.shared = Shared(way)
            self.listener = Listener(way.make, self.local, self.keys, holds=way.holds, timeout_s=redis.timeout)

    def of_assessments(self) -> Cache[Recorded]:
        """The cache of recorded assessments."""
        return self._kept(
            Cache(
                "assessment",
                "2",
                local=self.local,
                shared=self.shared,
                ttl_s=self._cache.ttl,
                negative_ttl_s=self._cache.negative_ttl,
                encode=Recorded.encoded,
                decode=Recorded.decoded,
                size=Recorded.size_bytes,
            )
        )

    def of_dispositions(self) -> Cache[list[Disposition]]:
        """The cache of what was set aside, by business."""
        return self._kept(
            Cache(
                "dispositions",
                "1",
                local=self.local,
                shared=self.shared,
                ttl_s=self._cache.ttl,
                negative_ttl_s=self._cache.negative_ttl,
                encode=dispositions.encoded,
                decode=dispositions.decoded,
                size=dispositions.size_bytes,
            )
        )

    def of_provider(self, one: AnyProvider) -> Cache[Provided]:
        """The cache of what one provider tells."""
        return self._kept(
            Cache(
                f"provider.{one.name}",
                "1",
                local=self.local,
                shared=self.shared,
                ttl_s=one.ttl,
                negative_ttl_s=self._cache.negative_ttl,
                encode=guarded.encode,
                decode=guarded.decode,
                size=guarded.size_bytes,
                claim_ttl_s=one.timeout + 1,
                wait_s=one.timeout,
            )
        )

    def _kept(self, cache: Cache[V]) -> Cache[V]:
        self.caches.append(cache)
        return cache

    async def open(self) -> None:
        """Connect. Redis may be away: it is tried again for as long as this runs."""
        if self.shared is not None and self.listener is not None:
            await self.shared.open()
            self.listener.start()

    async def close(self) -> None:
        """Leave no connection and no task."""
        if self.shared is not None and self.listener is not None:
            await self.listener.stop()
            await self.shared.close()


def _way(url: str, settings: Settings) -> Link | Cluster:
    """The way to the Redis of the URL, or to the cluster of its hosts. Raises BudgetTooSmall."""
    redis, share = settings.redis, redis_share(settings)

    def pool(url: str) -> Pool:
        return Pool(
            url,
            connections=share.connections - 1,
            min_idle=share.idle,
            max_age_s=redis.max_conn_age,
            timeout_s=redis.timeout,
            acquire_timeout_s=redis.acquire_timeout,
        )

    if not redis.cluster:
        return Link(pool(url), _breaker("redis", settings, REDIS_FAILURES))
    return Cluster(
        redis_hosts(url),
        lambda address: pool(redis_url_at(url, address)),
        lambda address: _breaker(f"redis {place_of(address)}", settings, REDIS_FAILURES),
    )


def make_providers(settings: Settings, tiers: Tiers) -> Providers:
    """The external providers that the settings describe, not open yet."""
    slots = asyncio.Semaphore(settings.concurrency.worker_pool_size)
    client = Client(settings.concurrency.worker_pool_size)
    each = [_guarded(one, settings, tiers, client, slots) for one in settings.providers]
    return Providers(each, client, reserve_s=min(settings.database.timeout, settings.server.request_deadline / 2))


def _guarded(one: AnyProvider, settings: Settings, tiers: Tiers, client: Client, slots: asyncio.Semaphore) -> Guarded:
    retry = settings.retry
    return Guarded(
        HttpJsonProvider(one, client) if isinstance(one, HttpJson) else YenteProvider(one, client),
        tiers.of_provider(one),
        _breaker(f"provider_{one.name}", settings, guarded.BREAKING, guarded.SLOW_S),
        Retry(
            RetryBudget(max(retry.budget_percent, 1) / 100),
            retry_on=guarded.RETRIED,
            attempts=retry.attempts if retry.budget_percent else 1,
        ),
        tiers.local,
        slots,
        concurrency=one.concurrency,
        timeout_s=one.timeout,
        failed_s=settings.cache.negative_ttl,
    )


def _breaker(
    name: str, settings: Settings, failures: tuple[type[Exception], ...], slow_s: float | None = None
) -> Breaker:
    """slow_s: None for that of the settings."""
    chosen = settings.breaker
    return Breaker(
        name,
        failures=failures,
        failure_rate=chosen.failure_percent / 100,
        slow_rate=chosen.slow_percent / 100,
        slow_s=chosen.slow_call if slow_s is None else slow_s,
        window_s=chosen.window,
        min_calls=chosen.min_calls,
        open_s=chosen.open_for,
        probes=chosen.probes,
        on_change=partial(_log_change, name),
    )


def _log_change(name: str, old: State, new: State) -> None:
    """A line when a neighbour is given up and one when it is back; none for the probes between."""
    if (old, new) == ("closed", "open") or new == "closed":
        told = event("breaker_changed", breaker=name, was=old, now=new)
        log.warning("the breaker %s was %s and is %s", name, old, new, extra=told)
