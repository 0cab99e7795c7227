"""What so many users take, reckoned from what was measured: the table of docs/scaling.md.

    python benchmarks/capacity.py                       the table
    python benchmarks/capacity.py 3000 30000 --period 1     for so many users, each of whom sends once a second

Arithmetic only. Every constant below stands in benchmarks/README.md, with its date and how it was measured, or in the
manifests of deploy/kubernetes; tests/test_scaling.py holds both to it.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from math import ceil
from typing import NamedTuple

USERS = (1_000, 10_000, 25_000, 50_000, 100_000, 200_000)
PERIOD_S = 5.0
"""Between two requests of one user, each an assessment that is recorded."""

POD_US = 800
"""CPU of the service a recorded request, in a pod that gets 400/s; one with 1,000/s takes 367."""
POOLER_US = 114
"""Of PgBouncer, likewise; 29 with 1,000/s."""
DATABASE_US = 180
"""Of PostgreSQL, with few rows before; 146 with a million."""
POD_MB = 139
"""Memory of a pod with 100 connections."""
CONNECTION_KB = 12.3
"""Of each connection."""
ROW_BYTES = 2342
"""Of an assessment in its tables and indexes."""
ENTRY_BYTES = 263
"""Of its part of the audit trail."""
LOG_BYTES = 3274
"""Of the write-ahead log, for an assessment."""

MARK = 0.70
"""The share of its one core at which a pod gets help from the autoscaler."""
LEAST_PODS = 5
REDIS_CLIENTS = 50
"""Of a pod, at most."""
DAY_S = 86_400


class Need(NamedTuple):
    """What `users` take. cores: of all pods.  memory_mb: of each.  pooler_cores, database_cores: of all instances.
    log_mb_s: of the write-ahead log.  day_gb: of tables and trail, where it goes on for 24 hours."""

    users: int
    per_second: float
    pods: int
    cores: float
    connections: int
    memory_mb: float
    pooler_cores: float
    database_cores: float
    log_mb_s: float
    day_gb: float
    redis_clients: int


def need(users: int, period_s: float = PERIOD_S) -> Need:
    per_second = users / period_s
    pods = max(LEAST_PODS, ceil(per_second * POD_US / 1e6 / MARK))
    connections = ceil(users / pods)
    return Need(
        users,
        per_second,
        pods,
        per_second * POD_US / 1e6,
        connections,
        POD_MB + connections * CONNECTION_KB / 1000,
        per_second * POOLER_US / 1e6,
        per_second * DATABASE_US / 1e6,
        per_second * LOG_BYTES / 1e6,
        per_second * (ROW_BYTES + ENTRY_BYTES) * DAY_S / 1e9,
        pods * REDIS_CLIENTS,
    )


HEAD = (
    "users",
    "requests/s = rows/s",
    "pods",
    "their cores at work",
    "connections a pod",
    "memory a pod, MB",
    "PgBouncer, cores",
    "PostgreSQL, cores",
    "its log, MB/s",
    "storage in 24 h, GB",
    "Redis clients",
)


def table(users: Sequence[int] = USERS, period_s: float = PERIOD_S) -> str:
    """The table in Markdown."""
    lines = [HEAD, ["---"] * len(HEAD), *[_told(need(each, period_s)) for each in users]]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _told(one: Need) -> list[str]:
    return [
        f"{one.users:,}",
        f"{one.per_second:,.0f}",
        f"{one.pods:,}",
        f"{one.cores:.1f}",
        f"{one.connections:,}",
        f"{one.memory_mb:,.0f}",
        f"{one.pooler_cores:.2f}",
        f"{one.database_cores:.2f}",
        f"{one.log_mb_s:.1f}",
        f"{one.day_gb:,.0f}",
        f"{one.redis_clients:,}",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("users", type=int, nargs="*", default=USERS)
    parser.add_argument("--period", type=float, default=PERIOD_S, help="seconds between two requests of one user")
    options = parser.parse_args()
    print(table(options.users, options.period))


if __name__ == "__main__":
    main()
