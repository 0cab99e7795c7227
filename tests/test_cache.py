"""Both tiers with a real server: a value is loaded once for all pods and found by the next."""

from __future__ import annotations

import asyncio

import pytest
from cached import KEY, PATIENCE_S, PLACE, TENANT, Pod, Source, play, running, until
from databases import command

from app.cache.local import MISSING, Local
from app.cache.tiers import Cache


def test_a_cold_key_is_loaded_once_however_many_want_it_in_two_pods(redis_url: str) -> None:
    async def scenario() -> None:
        pods = Pod(redis_url), Pod(redis_url)
        async with running(*pods):
            source = Source(is_open=False)
            gets = [asyncio.create_task(pod.get(source)) for _ in range(2500) for pod in pods]
            await until(lambda: source.asked)
            await until(lambda: pods[0].cache.waited + pods[1].cache.waited)
            source.open.set()
            assert set(await asyncio.gather(*gets)) == {b"value"}
            assert source.asked == 1
            assert sorted(pod.cache.loads for pod in pods) == [0, 1]
            assert sorted(pod.cache.hits_shared for pod in pods) == [0, 1]
            assert [pod.cache.peek(TENANT, KEY) for pod in pods] == [b"value"] * 2

    play(scenario)


def test_what_one_pod_loaded_the_next_one_finds(redis_url: str) -> None:
    async def scenario() -> None:
        one, two = Pod(redis_url), Pod(redis_url)
        async with running(one, two):
            source = Source()
            await one.get(source)
            await one.settle()
            assert await two.get(source) == b"value"
            assert await two.get(source) == b"value"
            assert (source.asked, two.cache.hits_shared, two.cache.hits_local) == (1, 1, 1)
            assert 0 < command(redis_url, "PTTL", PLACE) <= 60_000
            assert command(redis_url, "EXISTS", f"{PLACE}:claim") == 0

    play(scenario)


def test_that_there_is_no_value_is_known_as_well(redis_url: str) -> None:
    async def scenario() -> None:
        one, two = Pod(redis_url), Pod(redis_url)
        async with running(one, two):
            source = Source(None)
            assert await one.get(source) is None
            await one.settle()
            assert await two.get(source) is None
            assert [pod.cache.peek(TENANT, KEY) for pod in (one, two)] == [None, None]
            assert (source.asked, one.cache.negative, two.cache.hits_shared) == (1, 1, 1)

    play(scenario)


def test_a_cancelled_leader_does_not_fail_its_followers(redis_url: str) -> None:
    async def scenario() -> None:
        one, two = Pod(redis_url), Pod(redis_url)
        async with running(one, two):
            source = Source(is_open=False)
            leader = asyncio.create_task(one.get(source))
            await until(lambda: source.asked)
            followers = [asyncio.create_task(pod.get(source)) for pod in (one, two) for _ in range(10)]
            await until(lambda: two.cache.waited)
            leader.cancel()
            source.open.set()
            assert await asyncio.gather(*followers) == [b"value"] * 20
            assert source.asked == 1
            with pytest.raises(asyncio.CancelledError):
                await leader

    play(scenario)


def test_an_error_of_the_load_reaches_all_who_wait_and_nothing_is_kept(redis_url: str) -> None:
    async def scenario() -> None:
        one, two = Pod(redis_url), Pod(redis_url)
        async with running(one, two):
            failing, healthy = Source(is_open=False), Source(is_open=False)
            failing.error = LookupError("no database")
            failed = [asyncio.create_task(one.get(failing)) for _ in range(3)]
            await until(lambda: failing.asked)
            waiting = asyncio.create_task(two.get(healthy))
            await until(lambda: two.cache.waited)
            failing.open.set()
            assert await asyncio.gather(*failed, return_exceptions=True) == [failing.error] * 3
            # The claim was given back, so the other pod goes on long before it would have run out.
            assert await until(lambda: healthy.asked) < 1
            healthy.open.set()
            assert await waiting == b"value"
            assert one.cache.peek(TENANT, KEY) is MISSING

    play(scenario)


def test_a_claim_that_does_not_end_holds_nobody_up_for_long_and_then_ends(redis_url: str) -> None:
    async def scenario() -> None:
        pod = Pod(redis_url, claim_ttl_s=0.2)
        async with running(pod):
            command(redis_url, "SET", f"{PLACE}:claim", "of a dead process")
            assert await pod.timed_get(Source(), KEY) < 0.2 + PATIENCE_S
            assert pod.cache.waited == 1
            await pod.settle()
            # It was loaded without the claim, so it is nobody else's yet.
            assert command(redis_url, "EXISTS", PLACE) == 0
            assert command(redis_url, "PTTL", f"{PLACE}:claim") != -1

    play(scenario)


def test_what_a_pod_keeps_itself_is_newer_than_what_it_was_loading(redis_url: str) -> None:
    async def scenario() -> None:
        pod = Pod(redis_url)
        async with running(pod):
            source = Source(None, is_open=False)
            early = asyncio.create_task(pod.get(source))
            await until(lambda: source.asked)
            pod.cache.keep(TENANT, KEY, b"recorded")
            source.open.set()
            assert await early is None
            assert pod.cache.peek(TENANT, KEY) == b"recorded"
            await pod.settle()
            assert command(redis_url, "EXISTS", PLACE, f"{PLACE}:claim") == 0

    play(scenario)


def test_many_keys_leave_in_few_round_trips(redis_url: str) -> None:
    async def scenario() -> None:
        one, two = Pod(redis_url), Pod(redis_url)
        async with running(one, two):
            keys = [b"%d" % number for number in range(1000)]
            for pod, trips in ((one, 12), (two, 4)):
                before = pod.redis.round_trips
                got = await asyncio.gather(*(pod.get(Source(key), key) for key in keys))
                assert got == keys
                await pod.settle()
                assert pod.redis.round_trips - before <= trips
            assert (one.cache.loads, two.cache.hits_shared) == (1000, 1000)

    play(scenario)


@pytest.mark.parametrize("tenant_id", ["", "a:b", "*", "\0", "\r\nFLUSHALL\r\n", "Škoda", "\ud800", "{x}", "x" * 5000])
def test_a_tenant_may_be_called_anything(redis_url: str, tenant_id: str) -> None:
    async def scenario() -> None:
        one, two = Pod(redis_url), Pod(redis_url)
        async with running(one, two):
            await one.get(Source(b"other's"), tenant_id=f"{tenant_id}:")
            await one.get(Source(b"theirs"), tenant_id=tenant_id)
            await one.settle()
            assert await two.get(Source(b"loaded"), tenant_id=tenant_id) == b"theirs"
            await one.cache.invalidate(tenant_id, [KEY])
            await until(lambda: two.cache.peek(tenant_id, KEY) is MISSING)

    play(scenario)


def test_a_closed_pod_still_answers_from_the_source(redis_url: str) -> None:
    async def scenario() -> None:
        pod = Pod(redis_url)
        async with running(pod):
            await pod.get(Source())
        assert await pod.get(Source(), b"later") == b"value"
        assert not await pod.cache.invalidate(TENANT, [KEY])
        assert pod.redis.errors["closed"] == 3

    play(scenario)


def test_what_was_sent_and_not_waited_for_is_done_before_closing(redis_url: str) -> None:
    async def scenario() -> None:
        pod = Pod(redis_url)
        async with running(pod):
            await pod.get(Source())
        assert command(redis_url, "EXISTS", PLACE) == 1

    play(scenario)


def test_a_process_that_is_alone_needs_no_redis() -> None:
    async def scenario() -> None:
        pod = Pod(None)
        source = Source()
        assert await asyncio.gather(*(pod.get(source) for _ in range(100))) == [b"value"] * 100
        assert source.asked == 1
        assert await pod.cache.invalidate(TENANT, [KEY])
        source.value = None
        assert await pod.get(source) is None
        assert pod.cache.peek(TENANT, KEY) is None

    play(scenario)


@pytest.mark.parametrize("name", ["", "a:b"])
def test_a_cache_s_name_must_not_run_into_the_tenant_s(name: str) -> None:
    with pytest.raises(ValueError, match="colon"):
        Cache(
            name, "1", local=Local(1, 1), shared=None, ttl_s=1, negative_ttl_s=1, encode=bytes, decode=bytes, size=len
        )
