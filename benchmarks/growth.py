"""How the cost of recording and reading in PostgreSQL grows with the table.

    python benchmarks/growth.py                      10^4 against 10^7 rows; about 5 minutes and 6 GB of disk
    python benchmarks/growth.py --rows 10000 1000000

The rows are generated in the database, over the last three months, with short inputs. Then both tables are measured in
turns, round by round: rows of the usual size are recorded in group commits of 50, assessments are read by their ids,
one and 50 at a time, from anywhere in the table, and lists of 50 are read, all and those of one business. A ratio is
the median of the rounds' own.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median

import asyncpg
import uvloop
from machine import machine
from rich.console import Console
from rich.table import Table
from samples import EXAMPLE

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from databases import Postgres, create_database, database_name, drop_database

from app.ids import Uuid7, now_ms
from app.resilience.breaker import Breaker
from app.resilience.retry import Retry, RetryBudget
from app.store.base import Row
from app.store.postgres import partitions
from app.store.postgres.schema import database_place, migrate
from app.store.postgres.spans import DAY_MS, SPAN_ROWS
from app.store.postgres.store import PostgresStore

BURST = 50
DAYS = 90
BUSINESSES = 10
"""Rows of each business, in the mean."""

# An id is made of its time, the version, and the row's number.
FILL = f"""\
INSERT INTO assessments (tenant_id, id, business_id, span, level, decision, score, model_sha256, input, record)
SELECT 'default', id, 'cust-' || (random() * $2 / {BUSINESSES})::bigint,
       time_ms / {DAY_MS} * 4096 + least((n - 1) % ($2 / {DAYS} + 1) / {SPAN_ROWS}, 4095),
       (random() * 3)::smallint, (random() * 2)::smallint, 2350, '\\x00', '\\x00', '\\x00'
FROM (
    SELECT n, time_ms,
           (lpad(to_hex(time_ms), 12, '0') || '7' || lpad(to_hex(n % 4096), 3, '0')
            || '8' || lpad(to_hex(n), 15, '0'))::uuid
    FROM (SELECT n, $1 - {DAYS}::bigint * {DAY_MS} + n * ({DAYS}::bigint * {DAY_MS} / $2) FROM generate_series(1, $2) n)
        AS t (n, time_ms)
) AS r (n, time_ms, id)"""

new_id = Uuid7().new


class Grown:
    """A database with so many rows, and the store on it."""

    def __init__(self, url: str, rows: int) -> None:
        self.url = url
        self.rows = rows
        self.ids: list[bytes] = []
        self.store = PostgresStore(
            url,
            write_breaker=Breaker("write", failures=PostgresStore.WRITE_FAILURES),
            read_breaker=Breaker("read", failures=PostgresStore.READ_FAILURES),
            retry=Retry(RetryBudget(), retry_on=PostgresStore.RETRIED),
        )

    async def fill(self) -> None:
        await migrate(self.url, database_place(self.url))
        connection = await asyncpg.connect(self.url)
        now = now_ms()
        async with connection.transaction():
            await partitions.make(connection, now - DAYS * DAY_MS, 4)
        await connection.execute(FILL, now, self.rows, timeout=3600)
        await connection.execute("VACUUM ANALYZE assessments", timeout=3600)
        await connection.execute("CHECKPOINT")
        found = await connection.fetch(
            "SELECT id FROM assessments TABLESAMPLE BERNOULLI ($1)", min(100.0, 2e6 / self.rows)
        )
        self.ids = [id.bytes for (id,) in found]
        await connection.close()

    async def record(self) -> None:
        """One group commit."""
        rows = [
            Row("default", new_id(), f"cust-{random.randrange(self.rows)}", 1, 1, 2350, b"m" * 32, EXAMPLE, b"r" * 570)
            for _ in range(BURST)
        ]
        assert await self.store.add_each(rows) == [None] * BURST

    async def read(self) -> None:
        """One look-up of many ids."""
        found = await self.store.get_each("default", random.sample(self.ids, BURST))
        assert all(found)

    async def read_one(self) -> None:
        assert await self.store.get("default", random.choice(self.ids))

    async def list_newest(self) -> None:
        assert len(await self.store.page("default", limit=BURST)) == BURST

    async def list_business(self) -> None:
        await self.store.page("default", business_id=f"cust-{random.randrange(self.rows // BUSINESSES)}", limit=BURST)


ACTS: dict[str, Callable[[Grown], Awaitable[None]]] = {
    "record 50": Grown.record,
    "read one by id": Grown.read_one,
    "read 50 by id": Grown.read,
    "list newest 50": Grown.list_newest,
    "list of a business": Grown.list_business,
}


async def fill(grown: Sequence[Grown]) -> None:
    for one in grown:
        await one.fill()
        Console(stderr=True).print(f"{one.rows:,} rows are there")


async def measure(grown: Sequence[Grown], rounds: int, turns: int) -> dict[str, list[list[float]]]:
    """Milliseconds of each act, by round and table: the median of its turns, which alternate between the tables."""
    for one in grown:
        await one.store.open()
    found: dict[str, list[list[float]]] = {name: [] for name in ACTS}
    for _ in range(rounds + 1):
        for name, act in ACTS.items():
            took: list[list[float]] = [[] for _ in grown]
            for _ in range(turns):
                for place, one in enumerate(grown):
                    started = time.perf_counter()
                    await act(one)
                    took[place].append((time.perf_counter() - started) * 1e3)
            found[name].append([median(times) for times in took])
    for one in grown:
        await one.store.close()
    # The first round only warms up.
    return {name: rounds[1:] for name, rounds in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure how the cost grows with the table.")
    parser.add_argument("--rows", type=int, nargs=2, default=[10_000, 10_000_000], metavar=("FEW", "MANY"))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--turns", type=int, default=60, help="of each act in a round")
    options = parser.parse_args()
    with ExitStack() as servers:
        server_url = os.environ.get("TEST_DATABASE_URL")
        if not server_url:
            server_url = servers.enter_context(Postgres()).admin_url()
        urls = [create_database(server_url) for _ in options.rows]
        for url in urls:
            servers.callback(drop_database, server_url, database_name(url))
        grown = [Grown(url, rows) for url, rows in zip(urls, options.rows, strict=True)]
        uvloop.run(fill(grown))
        found = uvloop.run(measure(grown, options.rounds, options.turns))
    about = machine(("asyncpg", "uvloop"), []).line()
    shown = Table(title="Milliseconds, medians", caption=about, title_justify="left", caption_justify="left")
    shown.add_column("act")
    for heading in (*(f"{rows:,} rows" for rows in options.rows), "ratio", "of rounds"):
        shown.add_column(heading, justify="right")
    for name, rounds in found.items():
        ratios = [many / few for few, many in rounds]
        medians = [f"{median(times):.2f}" for times in zip(*rounds, strict=True)]
        shown.add_row(name, *medians, f"{median(ratios):.2f}", f"{min(ratios):.2f}-{max(ratios):.2f}")
    Console(width=None if sys.stdout.isatty() else 130).print(shown)


if __name__ == "__main__":
    main()
