"""Rate limits over processes that share a Redis Cluster: exact for each bucket, wherever it is kept."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from cached import TIMEOUT_S, Pod, play, running
from clusters import Node, ValkeyCluster
from limits import HOURLY, allowance, bucket

from app.cache.slots import slot_of
from app.limits.allowance import Allowance, Bucket, Taken, fields
from app.limits.limiter import AWAY_S, Limiter
from app.limits.spread import HELD_S, SpreadLimiter, limiter_over

numbers = itertools.count()


class Process:
    """What one process holds of a cluster and of its rates. parts: how many processes it believes there are."""

    def __init__(self, cluster: ValkeyCluster, parts: int = 2, timeout_s: float = 5.0) -> None:
        self.pod = Pod(cluster.url(), timeout_s=timeout_s, cluster=True)
        limiter = limiter_over(self.pod.redis, parts)
        assert isinstance(limiter, SpreadLimiter)
        self.limiter = limiter

    async def take(self, whose: Allowance, cost: int = 1) -> Taken:
        return await self.limiter.take(whose, cost)

    async def granted(self, whose: Allowance, times: int, cost: int = 1) -> int:
        """How many of so many requests at once are granted."""
        taken = await asyncio.gather(*(self.limiter.take(whose, cost) for _ in range(times)))
        return sum(one.granted for one in taken)

    async def settle(self, *buckets: Bucket) -> None:
        """Wait until what was given back to them is."""
        for one in buckets:
            assert await self.pod.redis.evaluate(b"return 1", [one.key], b"") == 1


@asynccontextmanager
async def processes(*each: Process) -> AsyncIterator[None]:
    async with running(*(process.pod for process in each), linked=False):
        yield
        for process in each:
            await process.limiter.close()


def made(tenant: str, name: str = "key", burst: int = 1000, per_s: float = HOURLY) -> Bucket:
    """A bucket of a tenant that nobody used."""
    return bucket(f"{{{tenant}}}:{name}:{next(numbers)}", per_s, burst, name=name)


def service_at(node: Node, burst: int, per_s: float = HOURLY) -> Bucket:
    """A bucket that nobody used, of all tenants, which is kept by the node."""
    had = node.spans()
    return next(
        one
        for one in (bucket(f"service:{next(numbers)}", per_s, burst, name="service") for _ in itertools.count())
        if any(first <= slot_of(one.key) <= last for first, last in had)
    )


def test_without_a_cluster_the_limiter_is_that_of_one_server() -> None:
    assert type(limiter_over(None, 1)) is Limiter
    assert type(limiter_over(Pod("redis://127.0.0.1:1").redis, 1)) is Limiter


def test_two_processes_grant_what_a_key_and_its_tenant_have_once_together(cluster: ValkeyCluster) -> None:
    async def scenario() -> None:
        one, two = Process(cluster), Process(cluster)
        async with processes(one, two):
            for node in cluster.nodes:
                tenant = cluster.tenant_of(node)
                whole = made(tenant, "tenant", 70)
                first, second = (allowance(made(tenant, "key", 50), whole) for _ in range(2))
                for whose, expected in ((first, 50), (second, 20)):
                    counts = await asyncio.gather(*((one, two)[n % 2].granted(whose, 7) for n in range(20)))
                    assert sum(counts) == expected
            assert (one.limiter.asked_here, two.limiter.asked_here) == (0, 0)

    play(scenario)


@pytest.mark.parametrize("where", [0, 1, 2])
def test_the_rate_of_all_tenants_is_granted_once_and_what_it_refuses_costs_the_others_nothing(
    cluster: ValkeyCluster, where: int
) -> None:
    async def scenario() -> None:
        one, two = Process(cluster), Process(cluster)
        service = service_at(cluster.nodes[where], 60)
        tenants = [cluster.tenant_of(node) for node in cluster.nodes]
        keys = [made(tenant, burst=40) for tenant in tenants]
        async with processes(one, two):
            whose = [allowance(key, service) for key in keys]
            counts = await asyncio.gather(*((one, two)[n % 2].granted(whose[n % 3], 5) for n in range(30)))
            assert sum(counts) == 60
            await one.settle(*keys)
            await two.settle(*keys)
            # What is left of each key is what it did not get: nothing was taken for what the service refused.
            await asyncio.sleep(HELD_S)
            left = [await one.granted(allowance(key), 50) for key in keys]
            assert sum(left) == 3 * 40 - 60
            by_tenant = [sum(counts[n] for n in range(30) if n % 3 == place) for place in range(3)]
            assert [had + more for had, more in zip(by_tenant, left, strict=True)] == [40, 40, 40]
            refused = await two.take(whose[0])
            assert not refused.granted
            assert refused.wait_s == pytest.approx(3600, rel=0.01)
            assert b'"service";r=0;t=' in fields(whose[0], refused)[1][1]
            assert (one.limiter.asked_here, two.limiter.asked_here) == (0, 0)

    play(scenario)


def test_a_request_is_told_how_all_its_buckets_stand(cluster: ValkeyCluster) -> None:
    async def scenario() -> None:
        one = Process(cluster)
        key = made(cluster.tenant_of(cluster.nodes[0]), burst=10)
        service = service_at(cluster.nodes[1], 5)
        whose = allowance(key, service)
        async with processes(one):
            granted = await one.take(whose, 2)
            assert [known and known[0] for known in granted.standings] == [8, 3]
            # The key got it back, so that of it nothing is known here.
            refused = await one.take(whose, 4)
            assert (refused.granted, refused.standings[0], refused.standings[1]) == (False, None, granted.standings[1])
            await one.settle(key)
            again = await one.take(whose, 3)
            assert [known and known[0] for known in again.standings] == [5, 0]

    play(scenario)


def test_what_two_processes_grant_of_a_rate_follows_the_clock_of_its_node(cluster: ValkeyCluster) -> None:
    async def scenario() -> None:
        one, two = Process(cluster), Process(cluster)
        node = cluster.nodes[2]
        whose = allowance(made(cluster.tenant_of(node), per_s=2000, burst=2000))

        async def node_s() -> float:
            seconds, micros = await asyncio.to_thread(node.command, "TIME")
            return float(seconds) + micros / 1e6

        async with processes(one, two):
            started_s = await node_s()
            count = last = sum(await asyncio.gather(one.granted(whose, 20, 10), two.granted(whose, 20, 10)))
            emptying_s = asked_s = await node_s()
            while asked_s < started_s + 0.5 or last == 40:
                asked_s = await node_s()
                last = sum(await asyncio.gather(one.granted(whose, 20, 10), two.granted(whose, 20, 10)))
                count += last
            ended_s = await node_s()
            left = 2 * 10
            assert (asked_s - emptying_s) * 2000 + 2000 - left < count * 10 <= (ended_s - started_s) * 2000 + 2000
            assert (one.limiter.asked_here, two.limiter.asked_here) == (0, 0)

    play(scenario)


def test_what_is_taken_ahead_is_no_more_than_is_there(cluster: ValkeyCluster) -> None:
    async def scenario() -> None:
        one, two = Process(cluster), Process(cluster)
        key = made(cluster.tenant_of(cluster.nodes[0]), burst=20_000, per_s=100)
        whose = allowance(key, service_at(cluster.nodes[1], 25_000, 100))
        async with processes(one, two):
            loop = asyncio.get_running_loop()
            count, last, started_s = 0, 800, loop.time()
            while last > 400:
                last = sum(await asyncio.gather(one.granted(whose, 400), two.granted(whose, 400)))
                count += last
            assert one.limiter.ahead.used
            assert two.limiter.ahead.used
            gained = 100 * (loop.time() - started_s)
            assert 20_000 - 2 * whose.advance <= count <= 20_000 + gained + 1

    play(scenario)


@pytest.mark.parametrize("fault", ["killed", "paused"])
def test_of_a_node_that_is_away_each_process_grants_its_part_and_of_the_others_all_is_exact(
    cluster: ValkeyCluster, fault: str
) -> None:
    async def scenario() -> None:
        one, two = (Process(cluster, parts=4, timeout_s=TIMEOUT_S) for _ in range(2))
        gone = cluster.nodes[1]
        lost = allowance(made(cluster.tenant_of(gone), burst=8))
        kept = allowance(made(cluster.tenant_of(cluster.nodes[2]), burst=30))
        async with processes(one, two):
            assert [await one.granted(lost, 3), await two.granted(lost, 3)] == [3, 3]
            if fault == "killed":
                gone.kill()
            else:
                gone.pause()
            assert [await one.granted(lost, 6), await two.granted(lost, 6)] == [2, 2]
            for process in (one, two):
                refused = await process.take(lost)
                assert not refused.granted
                assert process.limiter.refusal(lost) == pytest.approx(refused.wait_s, rel=1e-3)
                told = process.limiter.refused(lost)
                assert told is not None
                assert fields(lost, told)[1][1].startswith(b'"key";r=0;t=')
                assert process.limiter.asked_here == 7
            assert sum(await asyncio.gather(one.granted(kept, 20), two.granted(kept, 20))) == 30
            assert (one.limiter.asked_here, two.limiter.asked_here) == (7, 7)
            if fault == "killed":
                gone.start()
            else:
                gone.resume()
            cluster.wait_until_well()
            await asyncio.gather(*(decided_there(process, cluster.tenant_of(gone)) for process in (one, two)))
            again = allowance(made(cluster.tenant_of(gone), burst=8))
            assert sum(await asyncio.gather(one.granted(again, 9), two.granted(again, 9))) == 8

    play(scenario)


async def decided_there(process: Process, tenant: str) -> None:
    """Wait until the node of the tenant decides again, and stays the one that does."""
    async with asyncio.timeout(60):
        before = -1
        while process.limiter.asked_here != before or process.pod.nodes.breaker.state != "closed":
            before = process.limiter.asked_here
            await process.take(allowance(made(tenant)))
            await asyncio.sleep(AWAY_S)


def test_a_node_that_hangs_holds_up_nobody_elses_requests(cluster: ValkeyCluster) -> None:
    async def scenario() -> None:
        one = Process(cluster, timeout_s=1.5)
        gone = cluster.nodes[0]
        lost = allowance(made(cluster.tenant_of(gone)))
        kept = allowance(made(cluster.tenant_of(cluster.nodes[1])))
        async with processes(one):
            assert (await one.take(lost)).granted
            gone.pause()
            waiting = asyncio.create_task(one.take(lost))
            for _ in range(20):
                assert (await one.take(kept)).granted
            assert not waiting.done()
            assert (await waiting).granted
            assert one.limiter.asked_here == 1
            gone.resume()

    play(scenario)


def test_where_the_node_of_the_service_is_away_tenants_are_exact_and_the_service_by_its_parts(
    cluster: ValkeyCluster,
) -> None:
    async def scenario() -> None:
        one, two = (Process(cluster, parts=2, timeout_s=TIMEOUT_S) for _ in range(2))
        gone = cluster.nodes[1]
        service = service_at(gone, 40)
        key, other = (made(cluster.tenant_of(cluster.nodes[0]), burst=25) for _ in range(2))
        async with processes(one, two):
            gone.kill()
            first, second = allowance(key, service), allowance(other, service)
            assert sum(await asyncio.gather(one.granted(first, 15), two.granted(first, 15))) == 25
            counts = await asyncio.gather(one.granted(second, 15), two.granted(second, 15))
            assert sum(counts) == 40 - 25
            await one.settle(other)
            await two.settle(other)
            # What the parts refused was given back to the key.
            await asyncio.sleep(HELD_S)
            assert await one.granted(allowance(other), 30) == 25 - 15

    play(scenario)


def test_what_is_taken_here_is_given_back_here(cluster: ValkeyCluster) -> None:
    async def scenario() -> None:
        one = Process(cluster, parts=1, timeout_s=TIMEOUT_S)
        gone = cluster.nodes[1]
        key, service = made(cluster.tenant_of(gone), burst=10), service_at(cluster.nodes[0], 6)
        async with processes(one):
            gone.kill()
            assert await one.granted(allowance(key, service), 10) == 6
            assert await one.granted(allowance(key), 10) == 4

    play(scenario)


def test_a_bucket_whose_slot_moves_holds_what_it_held(cluster: ValkeyCluster) -> None:
    async def scenario() -> None:
        one, two = Process(cluster), Process(cluster)
        old, new = cluster.nodes[0], cluster.nodes[2]
        tenant = cluster.tenant_of(old)
        key, whole = made(tenant, burst=50), made(tenant, "tenant", 50)
        whose = allowance(key, whole)
        slot = slot_of(key.key)
        async with processes(one, two):
            counts = [await one.granted(whose, 20), await two.granted(whose, 20)]
            old.give([(slot, slot)], new)
            counts += [await one.granted(whose, 7), await two.granted(whose, 7)]
            assert sum(counts) == 50
            assert (one.limiter.asked_here, two.limiter.asked_here) == (0, 0)

    play(scenario)


def test_while_the_keys_of_a_slot_are_apart_each_process_decides_by_its_part(cluster: ValkeyCluster) -> None:
    async def scenario() -> None:
        one = Process(cluster, parts=2)
        old, new = cluster.nodes[0], cluster.nodes[2]
        tenant = cluster.tenant_of(old)
        key, whole = made(tenant, burst=50), made(tenant, "tenant", 40)
        whose = allowance(key, whole)
        slot = slot_of(key.key)
        async with processes(one):
            assert await one.granted(whose, 5) == 5
            cluster.begin_move(slot, old, new)
            cluster.move_keys(old, new, key.key)
            assert await one.granted(whose, 30) == 20
            assert one.limiter.asked_here == 30
            cluster.end_move(slot, old, new)
            await decided_there(one, tenant)
            assert await one.granted(whose, 60) == 35

    play(scenario)
