"""The composition root: the only place where parts are built and wired."""

from __future__ import annotations

import asyncio
import gc
import logging
from functools import partial

import msgspec

from app import __version__, errors, wire
from app.api import docs, openapi
from app.api.assessments import Assessments
from app.api.models import Models
from app.api.pages import fixed, health, problem
from app.api.routes import Methods, Table
from app.assess import Assessor, Reply
from app.cache.invalidation import Listener
from app.cache.local import Local
from app.cache.pool import FAILURES as REDIS_FAILURES
from app.cache.pool import Pool
from app.cache.redis import Shared
from app.cache.tiers import Cache
from app.edge.gate import JSON_TYPE, Answer, Endpoint, Gate
from app.edge.request import Bodies, Request
from app.errors import KINDS, ProblemKind, ProblemTable
from app.evidence.watchlist import Watchlist
from app.ids import Uuid7
from app.profiles import read_profile
from app.records import Recorded, Records
from app.registry import Registry, select
from app.resilience.batcher import Overloaded
from app.resilience.breaker import Breaker, State
from app.resilience.deadline import Deadline, DeadlineExceeded
from app.resilience.retry import Retry, RetryBudget
from app.settings import Settings
from app.settings.budget import database_share, redis_share
from app.store.base import KeyBusy, KeyReused, StoreUnavailable, Unconfirmed
from app.store.postgres.link import Timeouts
from app.store.postgres.store import PostgresStore
from app.store.sqlite import SqliteStore

log = logging.getLogger(__name__)

GC_THRESHOLD = 50_000
"""Allocations between two collections. At 10,000 connections the collector decides the throughput."""

_UNAVAILABLE = KINDS[errors.Unavailable]


def _busy(detail: str) -> ProblemKind:
    return _UNAVAILABLE._replace(detail=detail, retry_after_s=1)


UNCONFIRMED = (
    "The answer was not ready in time, and what the request would have recorded may be on record or not. "
    "Repeat it with the same Idempotency-Key to learn what became of it."
)
PROBLEMS = ProblemTable().extended(
    {
        StoreUnavailable: _busy("The records cannot be read or written now, so nothing was recorded. Try again later."),
        Unconfirmed: _busy(UNCONFIRMED),
        Overloaded: _busy("Too many assessments wait to be recorded. Nothing was recorded. Try again later."),
        DeadlineExceeded: _busy(UNCONFIRMED),
        KeyReused: KINDS[errors.KeyReused]._replace(detail=errors.KeyReused().detail),
        KeyBusy: KINDS[errors.KeyBusy]._replace(detail=errors.KeyBusy().detail, retry_after_s=1),
    }
)
"""Every exception that a request can end with, and how the caller is told."""


def make_store(settings: Settings) -> SqliteStore | PostgresStore:
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
    """The two cache tiers: in this process, and Redis where there is one."""

    def __init__(self, settings: Settings) -> None:
        cache, redis = settings.cache, settings.redis
        self._cache = cache
        self.local = Local(cache.local_entries, cache.local_bytes, jitter=cache.ttl_jitter_percent / 100)
        self.shared: Shared | None = None
        self.listener: Listener | None = None
        if redis.url is not None:
            share = redis_share(settings)
            pool = Pool(
                redis.url,
                connections=share.connections - 1,
                min_idle=share.idle,
                max_age_s=redis.max_conn_age,
                timeout_s=redis.timeout,
                acquire_timeout_s=redis.acquire_timeout,
            )
            self.shared = Shared(pool, _breaker("redis", settings, REDIS_FAILURES))
            self.listener = Listener(pool.make, self.local, timeout_s=redis.timeout)

    def of_assessments(self) -> Cache[Recorded]:
        """The cache of recorded assessments."""
        return Cache(
            "assessment",
            "1",
            local=self.local,
            shared=self.shared,
            ttl_s=self._cache.ttl,
            negative_ttl_s=self._cache.negative_ttl,
            encode=Recorded.encoded,
            decode=Recorded.decoded,
            size=Recorded.size_bytes,
        )

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


def _breaker(name: str, settings: Settings, failures: tuple[type[Exception], ...]) -> Breaker:
    chosen = settings.breaker
    return Breaker(
        name,
        failures=failures,
        failure_rate=chosen.failure_percent / 100,
        slow_rate=chosen.slow_percent / 100,
        slow_s=chosen.slow_call,
        window_s=chosen.window,
        min_calls=chosen.min_calls,
        open_s=chosen.open_for,
        probes=chosen.probes,
        on_change=partial(_log_change, name),
    )


def _log_change(name: str, old: State, new: State) -> None:
    """A line when a neighbour is given up and one when it is back; none for the probes between."""
    if (old, new) == ("closed", "open") or new == "closed":
        log.warning("the breaker %s was %s and is %s", name, old, new)


def create_app(settings: Settings) -> Gate:
    """The application of one worker.

    Raises BudgetTooSmall, and what `registry.select` raises for a model that cannot be used.
    """
    registry = Registry(select(settings.model))
    store = make_store(settings)
    tiers = Tiers(settings)
    breakers = [store.write_breaker, store.read_breaker] if isinstance(store, PostgresStore) else []
    breakers += [tiers.shared.breaker] if tiers.shared is not None else []
    server, timeout_s = settings.server, settings.database.timeout
    records = Records(registry, store, tiers.of_assessments(), timeout_s)
    assessor = Assessor(
        registry,
        Watchlist(),
        store,
        records,
        Uuid7(),
        commit_timeout_s=timeout_s,
        batch_timeout_s=server.request_deadline,
        item_limit_bytes=server.body_limit,
    )
    deadline = Deadline(server.request_deadline)
    bodies = Bodies(server.body_timeout)
    assessments = Assessments(assessor, records, bodies, PROBLEMS, deadline, server.body_limit, server.batch_body_limit)
    models = Models(registry, store)
    paths: dict[str, Methods] = {
        "/v1/assessments": {"POST": assessments.create, "GET": bounded(deadline, assessments.list)},
        "/v1/assessments/batch": {"POST": assessments.batch},
        "/v1/assessments/{id}": {"GET": bounded(deadline, assessments.read)},
        "/v1/assessments/{id}/replay": {"POST": bounded(deadline, assessments.replay)},
        "/v1/models": {"GET": bounded(deadline, models.list)},
        "/v1/models/{id}/{version}": {"GET": bounded(deadline, models.read)},
        "/problems/{slug}": {"GET": problem},
        "/health": {"GET": health(__version__, breakers)},
    }

    async def start() -> None:
        await store.open()
        await tiers.open()
        await registry.keep(store)
        paths.update(await _description(assessor, f"http://{server.host}:{server.port}"))
        gate.routes = Table(paths)
        # Everything made so far lives as long as the process: the collector need not walk it again.
        gc.collect()
        gc.freeze()
        gc.set_threshold(GC_THRESHOLD)

    async def stop() -> None:
        await asyncio.gather(tiers.close(), store.close())

    gate = Gate(Table(paths), PROBLEMS, start, stop)
    return gate


def bounded(deadline: Deadline, endpoint: Endpoint) -> Endpoint:
    """The endpoint, with everything that it waits for ended by the deadline."""

    async def answer(request: Request) -> Answer:
        return await deadline.run(endpoint(request))

    return answer


async def _description(assessor: Assessor, base_url: str) -> dict[str, Methods]:
    """The API's description, with a real answer as its example, and its page."""
    body = msgspec.json.encode(openapi.PROFILE_EXAMPLE)
    made: Reply = await assessor.assess("", read_profile(body), body, full=False, dry_run=True, keyed=None)
    example = msgspec.json.decode(made.body, type=wire.Assessment)
    described = openapi.document(__version__, example)
    page = docs.page(described, base_url)
    headers = tuple(header for header in page.headers if header[0] != b"content-length")
    return {
        "/openapi.json": {"GET": fixed(Answer(200, openapi.encoded(described), (JSON_TYPE,)))},
        "/docs": {"GET": fixed(Answer(200, page.html, headers))},
    }
