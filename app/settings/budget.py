"""How the connections that a fleet, or a pod, may hold are shared among its workers. Arithmetic only."""

from __future__ import annotations

from msgspec import Struct

from app.settings.tree import Settings

KEPT_BACK = 10
"""Connections of the database that no worker gets: for migrations, monitoring and the people who look after it."""

DATABASE_LEAST = 2
"""One is kept for writes, so that slow reads cannot block them."""

REDIS_LEAST = 2
"""One is the subscription's."""

BEHIND_POOLER = 4
"""Connections of a worker to PgBouncer, which costs little for each and holds the budget itself."""


class Share(Struct, frozen=True):
    """What one worker may hold: at most `connections`, and at least `idle` of them open."""

    connections: int
    idle: int


class BudgetTooSmall(Exception):
    """The connections do not suffice for the workers; the text holds the arithmetic and every way out."""


def database_share(settings: Settings) -> Share:
    """A worker's share of the fleet's connections to PostgreSQL. Raises BudgetTooSmall."""
    database = settings.database
    workers = settings.server.workers
    replicas = settings.scaling.max_replicas or 1
    idle = max(1, database.min_connections // (replicas * workers))
    if database.pooler == "pgbouncer":
        return Share(BEHIND_POOLER, min(idle, BEHIND_POOLER))
    free = max(0, database.max_connections - KEPT_BACK)
    share = free // (replicas * workers)
    if share >= DATABASE_LEAST:
        return Share(share, min(idle, share))
    ways = [f"DB_MAX_CONNECTIONS of at least {DATABASE_LEAST * replicas * workers + KEPT_BACK}"]
    most_replicas = free // (DATABASE_LEAST * workers)
    if most_replicas:
        both = "MIN_REPLICAS and " if settings.scaling.min_replicas > most_replicas else ""
        ways.append(f"{both}MAX_REPLICAS of at most {most_replicas}")
    most_workers = free // (DATABASE_LEAST * replicas)
    if most_workers:
        ways.append(f"WORKERS of at most {most_workers}")
    ways.append("PgBouncer in between with DB_POOLER=pgbouncer")
    raise BudgetTooSmall(
        f"the database's connections do not suffice: (DB_MAX_CONNECTIONS {database.max_connections} - {KEPT_BACK} "
        f"kept back) // (MAX_REPLICAS {replicas} * WORKERS {workers}) leaves {share} for each worker, which needs "
        f"{DATABASE_LEAST} so that slow reads cannot block writes; give {_alternatives(ways)}"
    )


def redis_share(settings: Settings) -> Share:
    """A worker's share of a pod's connections to Redis, the one of its subscription included. Raises BudgetTooSmall."""
    redis, workers = settings.redis, settings.server.workers
    share = redis.pool_size // workers
    if share >= REDIS_LEAST:
        return Share(share, min(redis.min_idle_conns // workers, share - 1))
    ways = [f"REDIS_POOL_SIZE of at least {REDIS_LEAST * workers}"]
    most_workers = redis.pool_size // REDIS_LEAST
    if most_workers:
        ways.append(f"WORKERS of at most {most_workers}")
    raise BudgetTooSmall(
        f"the connections to Redis do not suffice: REDIS_POOL_SIZE {redis.pool_size} // WORKERS {workers} leaves "
        f"{share} for each worker, which needs {REDIS_LEAST}, one of them for its subscription; "
        f"give {_alternatives(ways)}"
    )


def _alternatives(ways: list[str]) -> str:
    *others, last = ways
    return f"{', '.join(others)} or {last}" if others else last
