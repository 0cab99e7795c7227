"""An invalidation that Redis did not take is made good as soon as it is back."""

from __future__ import annotations

import asyncio

import pytest
from cached import KEY, PLACE, TENANT, TIMEOUT_S, Pod, Source, play, running, until
from databases import Valkey
from proxy import Proxy

from app.cache.link import Link
from app.cache.local import MISSING
from app.cache.owed import Invalidation, Owed
from app.cache.redis import OWED_AT_ONCE, Shared


def owing(key: str, keys: int = 1) -> Invalidation:
    return Invalidation(tuple(b"%s:%d" % (key.encode(), number) for number in range(keys)), b"channel", key.encode())


def test_what_is_owed_is_settled_oldest_first() -> None:
    owed = Owed(100)
    for key in ("one", "two", "one", "three"):
        owed.add(owing(key))
    assert len(owed) == owed.keys == 3
    first = owed.oldest(2, 100)
    assert list(first) == [owing("two"), owing("one")]
    owed.settle(first)
    assert list(owed.oldest(2, 100)) == [owing("three")]


def test_what_comes_in_again_while_it_is_settled_stays_owed() -> None:
    owed = Owed(100)
    owed.add(owing("one"))
    begun = owed.oldest(1, 100)
    owed.add(owing("one"))
    owed.settle(begun)
    assert list(owed.oldest(1, 100)) == [owing("one")]


def test_beyond_the_limit_the_oldest_are_given_up_and_counted() -> None:
    owed = Owed(5)
    for key in ("one", "two", "three"):
        owed.add(owing(key, keys=2))
    assert (len(owed), owed.keys, owed.dropped) == (2, 4, 2)
    assert list(owed.oldest(9, 99)) == [owing("two", keys=2), owing("three", keys=2)]
    owed.add(owing("large", keys=6))
    assert (len(owed), owed.keys, owed.dropped) == (0, 0, 12)


def test_one_call_deletes_a_bounded_number_of_keys() -> None:
    owed = Owed(100)
    for key, keys in (("large", 10), ("one", 3), ("two", 3), ("three", 3)):
        owed.add(owing(key, keys))
    large = owed.oldest(9, 8)
    assert list(large) == [owing("large", 10)]
    owed.settle(large)
    assert list(owed.oldest(9, 8)) == [owing("one", 3), owing("two", 3)]


@pytest.mark.parametrize("fault", ["paused", "cut"])
def test_a_value_changed_while_redis_was_away_is_forgotten_by_all_once_it_is_back(
    own_valkey: Valkey, fault: str
) -> None:
    async def scenario() -> None:
        with Proxy(own_valkey.port) as proxy:
            one, two = Pod(f"redis://127.0.0.1:{proxy.port}", timeout_s=TIMEOUT_S), Pod(own_valkey.url())
            async with running(one, linked=False), running(two):
                source = Source(b"old")
                await one.get(source)
                await one.settle()
                await two.get(source)
                if fault == "paused":
                    proxy.black_hole()
                else:
                    proxy.reset()
                    proxy.refuse()
                source.value = b"new"
                while one.breaker.state != "open":
                    assert not await one.cache.invalidate(TENANT, [KEY])
                assert one.redis.owed == 1
                # The other pod still sees Redis, and in it the old value.
                assert two.cache.peek(TENANT, KEY) == b"old"
                assert own_valkey.command("EXISTS", PLACE) == 1
                proxy.heal()
                await until(lambda: not one.redis.owed)
                assert own_valkey.command("EXISTS", PLACE) == 0
                await until(lambda: two.cache.peek(TENANT, KEY) is MISSING)
                assert await two.get(source) == b"new"

    play(scenario)


def test_a_redis_that_was_stopped_and_started_is_told_all_that_was_missed(own_valkey: Valkey) -> None:
    async def scenario() -> None:
        pod, other = Pod(own_valkey.url()), Pod(own_valkey.url())
        async with running(pod, other):
            own_valkey.stop()
            count = 3 * OWED_AT_ONCE
            for number in range(count):
                assert not await pod.cache.invalidate(TENANT, [b"%d" % number])
            assert pod.redis.owed == count
            await until(lambda: not other.link.linked)
            own_valkey.start()
            # Values of an older state, as a Redis that keeps its data would still hold.
            places = [f"kyb:assessment:{{{TENANT}}}:{(b'%d' % number).hex()}" for number in range(count)]
            own_valkey.command("MSET", *(word for place in places for word in (place, "old")))
            await until(lambda: not pod.redis.owed)
            assert own_valkey.command("EXISTS", *places) == 0
            assert pod.breaker.state != "open"

    play(scenario)


def test_a_caller_that_gives_up_leaves_the_invalidation_owed(own_valkey: Valkey) -> None:
    async def scenario() -> None:
        with Proxy(own_valkey.port) as proxy:
            pod = Pod(f"redis://127.0.0.1:{proxy.port}", timeout_s=TIMEOUT_S)
            async with running(pod, linked=False):
                await pod.get(Source())
                await pod.settle()
                proxy.black_hole()
                asked = asyncio.create_task(pod.cache.invalidate(TENANT, [KEY]))
                await asyncio.sleep(0)
                asked.cancel()
                await asyncio.wait((asked,))
                assert asked.cancelled()
                proxy.heal()
                await until(lambda: not pod.redis.owed)
                assert own_valkey.command("EXISTS", PLACE) == 0

    play(scenario)


def test_what_redis_took_is_not_owed(redis_url: str) -> None:
    async def scenario() -> None:
        pod = Pod(redis_url)
        async with running(pod, linked=False):
            assert await pod.cache.invalidate(TENANT, [KEY])
            assert pod.redis.owed == 0

    play(scenario)


def test_no_more_is_owed_than_the_limit(own_valkey: Valkey) -> None:
    async def scenario() -> None:
        pod = Pod(own_valkey.url())
        shared = Shared(Link(pod.pool, pod.breaker), most_owed=10)
        await shared.open()
        own_valkey.stop()
        for number in range(8):
            assert not await shared.forget([b"%d" % number, b"%d:claim" % number], b"channel", b"%d" % number)
        assert (shared.owed, shared.owed_dropped) == (5, 6)
        await shared.close()

    play(scenario)


def test_what_is_owed_is_tried_once_more_at_the_end_and_told_of_if_in_vain(
    own_valkey: Valkey, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        for is_back in (True, False):
            pod = Pod(own_valkey.url())
            async with running(pod, linked=False):
                own_valkey.stop()
                assert not await pod.cache.invalidate(TENANT, [KEY])
                if is_back:
                    own_valkey.start()
            assert pod.redis.owed == (not is_back)
            assert ("invalidations" in caplog.text) is not is_back

    play(scenario)
