"""The settings: every section, every key, its kind, and the environment variable that sets it.

Values and their explanation stand in `defaults.yaml` beside this package, so that no default is written twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, get_type_hints

from msgspec import Struct

from app.settings.addresses import ADDRESSES
from app.settings.kinds import (
    ENVIRONMENT,
    FLAG,
    HOST,
    MODEL_ID,
    NAME,
    NETWORKS,
    ORIGINS,
    PATH,
    SECRET,
    Kind,
    choice,
    duration,
    share,
    size,
    whole,
)
from app.settings.providers import AnyProvider
from app.settings.rates import RATE, TIERS, Rate
from app.settings.urls import COLLECTOR_URL, DATABASE_URL, POSTGRES_URL, REDIS_URL, is_postgres

Seconds = float
Bytes = int
Share = float
Pooler = Literal["none", "pgbouncer"]
LogFormat = Literal["auto", "json", "text"]
LogLevel = Literal["debug", "info", "warning", "error", "critical"]

_COUNT = whole(1, 1_000_000)
_AGE = duration("1s", "720h")
_WAIT = duration("1ms", "60s")
_PERCENT = whole(1, 100)
DRAIN_TIME = duration("0s", "10m")


class Key(Struct, frozen=True):
    """What is known of one setting besides its name."""

    kind: Kind
    env: str | None = None
    alias: str | None = None
    optional: bool = False

    @property
    def option(self) -> str | None:
        """The command-line option: the environment variable in lower case with dashes."""
        return f"--{self.env.lower().replace('_', '-')}" if self.env else None


class Section(Struct, frozen=True, kw_only=True):
    """Base of the sections. Some hold secrets; what may be shown of them is `app.settings.effective`."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}(...)"


class Server(Section, frozen=True, kw_only=True):
    """The socket, and the limits of one request."""

    host: Annotated[str, Key(HOST, "HOST")]
    port: Annotated[int, Key(whole(1, 65535), "PORT")]
    workers: Annotated[int, Key(whole(1, 256), "WORKERS")]
    backlog: Annotated[int, Key(whole(128, 65535))]
    backpressure: Annotated[int, Key(_COUNT)]
    header_timeout: Annotated[Seconds, Key(duration("1ms", "60s"))]
    body_timeout: Annotated[Seconds, Key(duration("1ms", "10m"))]
    request_deadline: Annotated[Seconds, Key(duration("1ms", "10m"))]
    drain_time: Annotated[Seconds, Key(DRAIN_TIME, "DRAIN_TIME")]
    shutdown_grace: Annotated[Seconds, Key(duration("1s", "30m"))]
    body_limit: Annotated[Bytes, Key(size("1KiB", "64MiB"))]
    batch_body_limit: Annotated[Bytes, Key(size("1KiB", "256MiB"))]
    trusted_proxies: Annotated[tuple[str, ...] | None, Key(NETWORKS, "TRUSTED_PROXIES", optional=True)]
    cors_origins: Annotated[tuple[str, ...] | None, Key(ORIGINS, "CORS_ORIGINS", optional=True)]
    behind_tls: Annotated[bool, Key(FLAG, "BEHIND_TLS")]

    @property
    def url(self) -> str:
        """Where the service is, such as http://127.0.0.1:8080 or http://[::1]:8080."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"


class Concurrency(Section, frozen=True, kw_only=True):
    """How much is done at once by one worker."""

    max_concurrent_requests: Annotated[int, Key(_COUNT, "MAX_CONCURRENT_REQUESTS")]
    max_queue: Annotated[int, Key(_COUNT, "MAX_QUEUE")]
    queue_wait: Annotated[Seconds, Key(_WAIT)]
    worker_pool_size: Annotated[int, Key(whole(1, 10_000), "WORKER_POOL_SIZE")]
    goroutine_limit: Annotated[int, Key(_COUNT, alias="task_limit")]


class Auth(Section, frozen=True, kw_only=True):
    """Who may call. `key_hash_secret` None is made in the data folder of the embedded database."""

    enabled: Annotated[bool, Key(FLAG, "AUTH_ENABLED")]
    key_hash_secret: Annotated[str | None, Key(SECRET, "KEY_HASH_SECRET", optional=True)]
    environment: Annotated[str, Key(ENVIRONMENT, "KEY_ENVIRONMENT")]
    failures: Annotated[Rate | None, Key(RATE)]


class Limits(Section, frozen=True, kw_only=True):
    """How many requests a second: of a key by its tier, of a tenant, of all together. None is unlimited."""

    tiers: Annotated[Mapping[str, Rate | None], Key(TIERS, "RATE_TIERS")]
    default_tier: Annotated[str, Key(NAME, "RATE_DEFAULT_TIER")]
    tenant: Annotated[Rate | None, Key(RATE, "RATE_TENANT")]
    service: Annotated[Rate | None, Key(RATE, "RATE_SERVICE")]


class Audit(Section, frozen=True, kw_only=True):
    """The audit trail. `signing_key` None is made in the data folder of the embedded database, and `anchor_file` None
    stands there."""

    signing_key: Annotated[str | None, Key(SECRET, "AUDIT_SIGNING_KEY", optional=True)]
    checkpoint_every: Annotated[Seconds, Key(duration("100ms", "1h"))]
    anchor_file: Annotated[Path | None, Key(PATH, "AUDIT_ANCHOR_FILE", optional=True)]


class Database(Section, frozen=True, kw_only=True):
    """Where records are kept. `url` None is the embedded database in `data_dir`; connections are of the whole fleet."""

    url: Annotated[str | None, Key(DATABASE_URL, "DATABASE_URL", optional=True)]
    direct_url: Annotated[str | None, Key(POSTGRES_URL, "DATABASE_DIRECT_URL", optional=True)]
    pooler: Annotated[Pooler, Key(choice("none", "pgbouncer"), "DB_POOLER")]
    data_dir: Annotated[Path, Key(PATH, "DATA_DIR")]
    max_connections: Annotated[int, Key(whole(1, 100_000), "DB_MAX_CONNECTIONS")]
    min_connections: Annotated[int, Key(whole(0, 100_000), "DB_IDLE_CONNECTIONS")]
    connection_max_lifetime: Annotated[Seconds, Key(_AGE)]
    timeout: Annotated[Seconds, Key(_WAIT)]
    acquire_timeout: Annotated[Seconds, Key(_WAIT)]
    connect_timeout: Annotated[Seconds, Key(_WAIT)]
    command_timeout: Annotated[Seconds, Key(_WAIT)]
    statement_timeout: Annotated[Seconds, Key(_WAIT)]
    lock_timeout: Annotated[Seconds, Key(_WAIT)]
    idle_transaction_timeout: Annotated[Seconds, Key(duration("1ms", "10m"))]
    busy_timeout: Annotated[Seconds, Key(_WAIT)]
    partitions_ahead: Annotated[int, Key(whole(1, 24))]

    @property
    def is_postgres(self) -> bool:
        """Whether records are kept in PostgreSQL; else in `sqlite_file`."""
        return is_postgres(self.url)

    @property
    def sqlite_file(self) -> Path:
        """The file of the embedded database. Raises ValueError where there is none."""
        if self.is_postgres:
            raise ValueError("records are kept in PostgreSQL, not in a file")
        return Path(self.url.removeprefix("sqlite:///")) if self.url else self.data_dir / "kyb.db"


class Redis(Section, frozen=True, kw_only=True):
    """The shared cache. `url` None is none; connections are of one pod, to each node of a cluster."""

    url: Annotated[str | None, Key(REDIS_URL, "REDIS_URL", optional=True)]
    cluster: Annotated[bool, Key(FLAG, "REDIS_CLUSTER")]
    pool_size: Annotated[int, Key(whole(1, 100_000), "REDIS_POOL_SIZE")]
    min_idle_conns: Annotated[int, Key(whole(0, 100_000))]
    max_conn_age: Annotated[Seconds, Key(_AGE)]
    timeout: Annotated[Seconds, Key(_WAIT)]
    acquire_timeout: Annotated[Seconds, Key(_WAIT)]


class Cache(Section, frozen=True, kw_only=True):
    """What is kept of earlier answers; the local tier is of one worker."""

    ttl: Annotated[Seconds, Key(_AGE, "CACHE_TTL")]
    negative_ttl: Annotated[Seconds, Key(duration("1ms", "1h"))]
    ttl_jitter_percent: Annotated[int, Key(whole(0, 50))]
    local_entries: Annotated[int, Key(whole(100, 10_000_000))]
    local_bytes: Annotated[Bytes, Key(size("1MiB", "64GiB"))]


class Breaker(Section, frozen=True, kw_only=True):
    """When calls to something that fails are stopped, and when they are tried again."""

    failure_percent: Annotated[int, Key(_PERCENT)]
    slow_percent: Annotated[int, Key(_PERCENT)]
    slow_call: Annotated[Seconds, Key(_WAIT)]
    window: Annotated[Seconds, Key(duration("1s", "10m"))]
    min_calls: Annotated[int, Key(_COUNT)]
    open_for: Annotated[Seconds, Key(duration("1ms", "10s"))]
    probes: Annotated[int, Key(whole(1, 1000))]


class Retry(Section, frozen=True, kw_only=True):
    """How often a failed call is made again. `attempts` counts the first; 1 is no retry."""

    budget_percent: Annotated[int, Key(whole(0, 10))]
    attempts: Annotated[int, Key(whole(1, 5))]


class Idempotency(Section, frozen=True, kw_only=True):
    """What an Idempotency-Key promises."""

    ttl: Annotated[Seconds, Key(duration("1m", "720h"))]
    wait: Annotated[Seconds, Key(_WAIT)]


class Model(Section, frozen=True, kw_only=True):
    """The model that scores: one of the packaged by `id`, or the file at `path`."""

    id: Annotated[str, Key(MODEL_ID, "MODEL")]
    path: Annotated[Path | None, Key(PATH, "MODEL_PATH", optional=True)]


class Watchlists(Section, frozen=True, kw_only=True):
    """The lists that names are screened against. `folder` None is one in `database.data_dir` of the embedded database,
    else one in the system's folder for temporary files."""

    max_age: Annotated[Seconds, Key(duration("1h", "8760h"), "WATCHLIST_MAX_AGE")]
    check_every: Annotated[Seconds, Key(duration("100ms", "1m"))]
    folder: Annotated[Path | None, Key(PATH, "WATCHLIST_FOLDER", optional=True)]
    demo: Annotated[bool, Key(FLAG, "WATCHLIST_DEMO")]
    addresses: Annotated[Mapping[str, tuple[str, ...]] | None, Key(ADDRESSES, "WATCHLIST_ADDRESSES", optional=True)]


class Monitoring(Section, frozen=True, kw_only=True):
    """The service's watch on itself."""

    enabled: Annotated[bool, Key(FLAG, "ENABLE_PERFORMANCE_MONITORING")]
    interval: Annotated[Seconds, Key(duration("100ms", "1h"), "PERFORMANCE_MONITORING_INTERVAL")]
    networks: Annotated[tuple[str, ...] | None, Key(NETWORKS, "MONITORING_NETWORKS", optional=True)]
    trace_allocations: Annotated[bool, Key(FLAG, "TRACE_ALLOCATIONS")]


class Scaling(Section, frozen=True, kw_only=True):
    """What the deployment renders its autoscaler from. `max_replicas` None is not scaled."""

    min_replicas: Annotated[int, Key(whole(1, 10_000), "MIN_REPLICAS")]
    max_replicas: Annotated[int | None, Key(whole(1, 10_000), "MAX_REPLICAS", optional=True)]
    target_cpu_percent: Annotated[int, Key(_PERCENT, "TARGET_CPU_PERCENT")]
    target_memory_percent: Annotated[int, Key(_PERCENT, "TARGET_MEMORY_PERCENT")]


class Logging(Section, frozen=True, kw_only=True):
    """What is logged, and in which form. `access_sample`: the share of requests, neither failed nor slow, that are."""

    level: Annotated[LogLevel, Key(choice("debug", "info", "warning", "error", "critical"), "LOG_LEVEL")]
    format: Annotated[LogFormat, Key(choice("auto", "json", "text"), "LOG_FORMAT")]
    access_sample: Annotated[Share, Key(share(), "LOG_ACCESS_SAMPLE")]
    slow_request: Annotated[Seconds, Key(duration("1ms", "10m"), "LOG_SLOW_REQUEST")]


class Tracing(Section, frozen=True, kw_only=True):
    """Where recorded traces are sent. `endpoint` None records none. `sample`: the share of those that begin here."""

    endpoint: Annotated[str | None, Key(COLLECTOR_URL, "TRACING_ENDPOINT", optional=True)]
    sample: Annotated[Share, Key(share(), "TRACING_SAMPLE")]


class Settings(Struct, frozen=True, kw_only=True):
    """Everything configurable; made by `load`."""

    server: Server
    concurrency: Concurrency
    auth: Auth
    limits: Limits
    audit: Audit
    database: Database
    redis: Redis
    cache: Cache
    breaker: Breaker
    retry: Retry
    idempotency: Idempotency
    model: Model
    watchlists: Watchlists
    monitoring: Monitoring
    scaling: Scaling
    logging: Logging
    tracing: Tracing
    providers: tuple[AnyProvider, ...] = ()


def _key(hint: object) -> Key:
    return next(item for item in hint.__metadata__ if isinstance(item, Key))  # type: ignore[attr-defined]


SECTIONS: dict[str, type[Section]] = {
    name: of for name, of in get_type_hints(Settings).items() if isinstance(of, type) and issubclass(of, Section)
}
"""Section name → its structure."""

KEYS: dict[str, Key] = {
    f"{section}.{name}": _key(hint)
    for section, structure in SECTIONS.items()
    for name, hint in get_type_hints(structure, include_extras=True).items()
}
"""Dotted name → what is known of the setting, in the order of this file."""
