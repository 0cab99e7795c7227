"""What one pod invalidates the others forget, and a pod that may not have heard forgets everything."""

from __future__ import annotations

import asyncio
from math import inf

import pytest
from cached import KEY, PLACE, TENANT, TIMEOUT_S, Pod, Source, play, running, until
from databases import Valkey, command
from proxy import Proxy

from app.cache.invalidation import CHANNEL, Listener, pack
from app.cache.local import MISSING, Local


def test_an_invalidation_in_one_pod_reaches_the_other_within_a_second(redis_url: str) -> None:
    async def scenario() -> None:
        one, two = Pod(redis_url), Pod(redis_url)
        async with running(one, two):
            source = Source()
            for pod in (one, two):
                await pod.get(source)
                await pod.get(source, b"other")
            source.value = b"changed"
            assert await one.cache.invalidate(TENANT, [KEY])
            assert await until(lambda: two.cache.peek(TENANT, KEY) is MISSING) < 1
            assert [await pod.get(source) for pod in (one, two)] == [b"changed"] * 2
            assert [await pod.get(source, b"other") for pod in (one, two)] == [b"value"] * 2

    play(scenario)


@pytest.mark.parametrize("here", [True, False], ids=["in the same pod", "in another pod"])
def test_an_invalidation_during_a_load_wins(redis_url: str, here: bool) -> None:
    async def scenario() -> None:
        one, two = Pod(redis_url), Pod(redis_url)
        async with running(one, two):
            old, new = Source(b"old", is_open=False), Source(b"new")
            early = asyncio.create_task(one.get(old))
            await until(lambda: old.asked)
            heard = one.link.messages
            await (one if here else two).cache.invalidate(TENANT, [KEY])
            await until(lambda: one.link.messages > heard)
            # Who asks from now on must not be given what was read before.
            assert await one.get(new) == b"new"
            old.open.set()
            assert await early == b"old"
            await one.settle()
            assert await two.get(Source(b"newer")) == b"new"
            assert await one.get(Source(b"newer")) == b"new"

    play(scenario)


def test_a_load_that_did_not_hear_of_the_invalidation_leaves_nothing_in_redis(redis_url: str) -> None:
    async def scenario() -> None:
        deaf, other = Pod(redis_url), Pod(redis_url)
        async with running(deaf, other, linked=False):
            old = Source(b"old", is_open=False)
            early = asyncio.create_task(deaf.get(old))
            await until(lambda: old.asked)
            await other.cache.invalidate(TENANT, [KEY])
            old.open.set()
            await early
            await deaf.settle()
            assert command(redis_url, "EXISTS", PLACE, f"{PLACE}:claim") == 0

    play(scenario)


def test_a_link_that_is_cut_empties_the_local_tier_within_a_second(own_valkey: Valkey) -> None:
    async def scenario() -> None:
        pod = Pod(own_valkey.url())
        async with running(pod):
            await pod.get(Source())
            own_valkey.command("CLIENT", "KILL", "TYPE", "pubsub")
            assert await until(lambda: pod.cache.peek(TENANT, KEY) is MISSING) < 1
            assert pod.link.losses == 1
            # What is put while nothing is heard may be out of date, and goes when the link is back.
            pod.cache.keep(TENANT, b"meanwhile", b"value")
            await until(lambda: pod.link.linked)
            assert pod.cache.peek(TENANT, b"meanwhile") is MISSING

    play(scenario)


def test_a_link_that_goes_silent_empties_the_local_tier_within_a_second(own_valkey: Valkey) -> None:
    async def scenario() -> None:
        with Proxy(own_valkey.port) as proxy:
            pod = Pod(f"redis://127.0.0.1:{proxy.port}", timeout_s=TIMEOUT_S)
            async with running(pod):
                await pod.get(Source())
                proxy.black_hole()
                assert await until(lambda: pod.cache.peek(TENANT, KEY) is MISSING) < 1
                assert not pod.link.linked
                assert pod.local.ttl_limit_s == 1
                proxy.heal()
                await until(lambda: pod.link.linked)
                assert pod.local.ttl_limit_s == inf

    play(scenario)


def test_a_link_that_is_only_quiet_is_kept(redis_url: str) -> None:
    async def scenario() -> None:
        pod = Pod(None)
        pool = Pod(redis_url).pool
        listener = Listener(pool.make, pod.local, timeout_s=5, ping_every_s=0.01)
        listener.start()
        await until(lambda: listener.linked)
        pings = command(redis_url, "INFO", "commandstats")["cmdstat_ping"]["calls"]
        await until(lambda: command(redis_url, "INFO", "commandstats")["cmdstat_ping"]["calls"] > pings + 5)
        assert listener.linked
        assert listener.losses == 0
        await listener.stop()
        assert not listener.linked

    play(scenario)


def test_a_listener_ends_when_it_is_told_to_whatever_it_is_at(redis_url: str) -> None:
    async def scenario() -> None:
        local, pool = Local(10, 10_000), Pod(redis_url).pool
        for turn in range(100):
            listener = Listener(pool.make, local, timeout_s=5, ping_every_s=0.001)
            listener.start()
            await until(lambda listener=listener: listener.linked)
            await asyncio.sleep(turn % 7 / 2000)
            await asyncio.wait_for(listener.stop(), 5)

    play(scenario)


def test_every_tier_of_a_process_hears(own_valkey: Valkey) -> None:
    async def scenario() -> None:
        pod, other, key = Pod(own_valkey.url()), Local(10, 10_000), ("other", TENANT, KEY)
        listener = Listener(pod.pool.make, pod.local, other, timeout_s=TIMEOUT_S)
        listener.start()
        assert other.ttl_limit_s == 1
        await until(lambda: listener.linked)
        for said, is_kept in (
            (pack([("another", TENANT, KEY)]), True),
            (pack([key]), False),
            (b"\xc1", False),
        ):
            other.put(key, b"value", 5, 60)
            heard = listener.messages
            command(own_valkey.url(), "PUBLISH", CHANNEL, said)
            await until(lambda heard=heard: listener.messages > heard)
            assert (other.get(key) is not MISSING) is is_kept
        other.put(key, b"value", 5, 60)
        own_valkey.command("CLIENT", "KILL", "TYPE", "pubsub")
        await until(lambda: other.get(key) is MISSING)
        await listener.stop()

    play(scenario)


def test_a_message_that_makes_no_sense_empties_the_local_tier(redis_url: str) -> None:
    async def scenario() -> None:
        pod = Pod(redis_url)
        async with running(pod):
            await pod.get(Source())
            command(redis_url, "PUBLISH", CHANNEL, b"\xc1")
            await until(lambda: pod.cache.peek(TENANT, KEY) is MISSING)
            assert (pod.link.malformed, pod.link.linked) == (1, True)

    play(scenario)
