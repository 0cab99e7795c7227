"""With Redis poisoned, full, slow or away, every get is still answered from the source, and in time."""

from __future__ import annotations

import asyncio

import pytest
from cached import KEY, PATIENCE_S, PLACE, TENANT, TIMEOUT_S, Pod, Source, open_sockets, play, running, until
from databases import Valkey, command
from proxy import Proxy

from app.cache.envelope import seal
from app.cache.local import MISSING


@pytest.mark.parametrize(
    "poison",
    [
        pytest.param(seal("assessment", "1", "another tenant", KEY, b"poison"), id="another tenant's"),
        pytest.param(seal("assessment", "1", TENANT, b"another key", b"poison"), id="another key's"),
        pytest.param(seal("assessment", "0", TENANT, KEY, b"poison"), id="of an old version"),
        pytest.param(seal("screening", "1", TENANT, KEY, b"poison"), id="of another cache"),
        pytest.param(seal("assessment", "1", TENANT, KEY, b"poison")[:-1], id="truncated"),
        pytest.param(seal("assessment", "1", TENANT, KEY, b"poison").replace(b"poison", b"prison"), id="altered"),
        pytest.param(seal("assessment", "1", TENANT, KEY, b"unreadable"), id="unreadable"),
        pytest.param(b"\xff\x00garbage", id="garbage"),
        pytest.param(b"", id="empty"),
    ],
)
def test_a_value_that_is_not_what_was_asked_for_is_discarded_and_replaced(redis_url: str, poison: bytes) -> None:
    async def scenario() -> None:
        one, two = Pod(redis_url), Pod(redis_url)
        async with running(one, two):
            command(redis_url, "SET", PLACE, poison)
            assert await one.get(Source()) == b"value"
            assert one.cache.discarded
            await one.settle()
            assert await two.get(Source(b"loaded again")) == b"value"

    play(scenario)


def test_a_key_of_another_type_is_a_miss_and_replaced(redis_url: str) -> None:
    async def scenario() -> None:
        one, two = Pod(redis_url), Pod(redis_url)
        async with running(one, two):
            command(redis_url, "RPUSH", PLACE, "poison")
            assert await one.get(Source()) == b"value"
            await one.settle()
            assert await two.get(Source(b"loaded again")) == b"value"

    play(scenario)


def test_a_command_that_is_refused_fails_alone(own_valkey: Valkey) -> None:
    async def scenario() -> None:
        pod = Pod(own_valkey.url())
        async with running(pod):
            command(own_valkey.url(), "SET", "there", "value")
            own_valkey.config("maxmemory", "1")
            claim, found = await asyncio.gather(pod.redis.claim(b"c", b"token", 1000, b"k"), pod.redis.get(b"there"))
            assert claim.won is None
            assert found == (True, b"value")
            assert pod.redis.errors == {"refused": 1}
            assert pod.redis.round_trips == 1
            assert pod.breaker.state == "closed"

    play(scenario)


def test_a_full_redis_costs_nothing_but_the_values(own_valkey: Valkey) -> None:
    async def scenario() -> None:
        pod = Pod(own_valkey.url())
        async with running(pod):
            own_valkey.config("maxmemory", "1")
            source = Source()
            for number in range(20):
                assert await pod.timed_get(source, b"%d" % number) < PATIENCE_S
            assert source.asked == 20
            own_valkey.config("maxmemory", "0")
            await pod.get(source)
            await pod.settle()
            assert command(own_valkey.url(), "EXISTS", PLACE) == 1

    play(scenario)


@pytest.mark.parametrize("fault", ["killed", "paused", "black-holed", "reset", "refused"])
def test_with_redis_away_everything_is_answered_in_time_and_all_is_well_when_it_is_back(
    own_valkey: Valkey, fault: str
) -> None:
    async def scenario() -> None:
        with Proxy(own_valkey.port) as proxy:
            url = f"redis://127.0.0.1:{proxy.port}"
            hurt = {
                "killed": own_valkey.kill,
                "paused": own_valkey.pause,
                "black-holed": proxy.black_hole,
                "reset": proxy.reset,
                "refused": lambda: (proxy.reset(), proxy.refuse()),
            }[fault]
            heal = {"killed": own_valkey.start, "paused": own_valkey.resume}.get(fault, proxy.heal)
            pod = Pod(url, timeout_s=TIMEOUT_S)
            async with running(pod):
                source = Source()
                await pod.get(source, b"before")
                hurt()
                took = await asyncio.gather(*(pod.timed_get(source, b"all %d" % number) for number in range(50)))
                assert max(took) < PATIENCE_S
                await until(lambda: not pod.link.linked, limit_s=1)
                assert pod.cache.peek(TENANT, b"before") is MISSING
                number = 0
                while pod.breaker.state != "open":
                    number += 1
                    assert await pod.timed_get(source, b"one %d" % number) < PATIENCE_S
                assert await pod.timed_get(source, b"at once") < TIMEOUT_S / 2
                assert not await pod.cache.invalidate(TENANT, [b"before"])
                assert source.asked == 52 + number
                heal()
                await until(lambda: pod.link.linked)
                while pod.breaker.state != "closed":
                    await pod.get(source, b"after")
                    pod.local.clear()
                    await asyncio.sleep(0.01)
                await pod.get(source)
                await pod.settle()
                assert own_valkey.command("EXISTS", PLACE) == 1

    play(scenario)


def test_nobody_waits_for_the_end_of_a_batch_and_then_as_long_again(own_valkey: Valkey) -> None:
    async def scenario() -> None:
        with Proxy(own_valkey.port) as proxy:
            pod = Pod(f"redis://127.0.0.1:{proxy.port}", timeout_s=0.5)
            async with running(pod, linked=False):
                proxy.black_hole()
                before = pod.redis.round_trips
                first = asyncio.create_task(pod.get(Source(), b"first"))
                await until(lambda: pod.redis.round_trips > before)
                assert await pod.timed_get(Source(), b"second") < PATIENCE_S
                await first
                proxy.heal()

    play(scenario)


def test_nobody_waits_behind_a_probe_that_hangs(own_valkey: Valkey) -> None:
    async def scenario() -> None:
        with Proxy(own_valkey.port) as proxy:
            pod = Pod(f"redis://127.0.0.1:{proxy.port}", timeout_s=TIMEOUT_S, min_calls=1)
            async with running(pod, linked=False):
                source = Source()
                proxy.black_hole()
                await pod.get(source, b"first")
                await until(lambda: pod.breaker.state == "half_open")
                before = pod.redis.round_trips
                probe = asyncio.create_task(pod.get(source, b"probe"))
                await until(lambda: pod.redis.round_trips > before)
                assert await pod.timed_get(source, b"behind") < TIMEOUT_S / 2
                assert not probe.done()
                proxy.heal()
                await probe

    play(scenario)


def test_a_pod_starts_without_redis_and_finds_it_later(own_valkey: Valkey) -> None:
    async def scenario() -> None:
        own_valkey.stop()
        pod = Pod(own_valkey.url())
        sockets = open_sockets()
        await pod.redis.open()
        pod.link.start()
        assert pod.redis.errors == {"connection": 1}
        assert await pod.get(Source()) == b"value"
        assert not pod.link.linked
        assert pod.local.ttl_limit_s == 1
        own_valkey.start()
        await until(lambda: pod.link.linked)
        await pod.get(Source(), b"later")
        await pod.settle()
        assert own_valkey.command("DBSIZE") == 1
        await pod.link.stop()
        await pod.redis.close()
        assert open_sockets() <= sockets

    play(scenario)
