"""Both tiers and the way between processes, with a real server. A pod here is what one process holds of the cache."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from math import inf
from typing import Any

import pytest
from databases import Valkey, command
from hypothesis import given, settings
from hypothesis import strategies as st
from proxy import Proxy

from app.cache.envelope import seal
from app.cache.invalidation import CHANNEL, Listener
from app.cache.local import MISSING, Local
from app.cache.pool import FAILURES, Pool
from app.cache.redis import Shared
from app.cache.tiers import Cache
from app.resilience.breaker import Breaker

TENANT = "tenant"
KEY = b"key"
PLACE = f"kyb:assessment:{TENANT}:{KEY.hex()}"

LONG_S = 5.0
"""A timeout that no test may come near."""
TIMEOUT_S = 0.2
"""The timeout where a test is about what happens after it."""
PATIENCE_S = 0.9
"""What a get may take with Redis at its worst, on a machine that is busy with other things too."""


class Source:
    """Where values come from: counts how often it is asked, and answers when it is open."""

    def __init__(self, value: bytes | None = b"value", is_open: bool = True) -> None:
        self.value = value
        self.error: Exception | None = None
        self.asked = 0
        self.open = asyncio.Event()
        if is_open:
            self.open.set()

    async def __call__(self) -> bytes | None:
        self.asked += 1
        value, error = self.value, self.error
        await self.open.wait()
        if error is not None:
            raise error
        return value


class Pod:
    """claim_ttl_s: also how long it waits for others; long, so that a test that had to wait for it would not pass."""

    def __init__(
        self, url: str | None, claim_ttl_s: float = 30.0, timeout_s: float = LONG_S, min_calls: int = 10
    ) -> None:
        self.local = Local(10_000, 10_000_000)
        self.breaker = Breaker("redis", failures=FAILURES, min_calls=min_calls, open_s=0.3, probes=1)
        self.shared: Shared | None = None
        self.listener: Listener | None = None
        if url is not None:
            self.shared = Shared(
                url,
                connections=4,
                min_idle=1,
                max_age_s=600,
                timeout_s=timeout_s,
                acquire_timeout_s=0.05,
                breaker=self.breaker,
            )
            self.listener = Listener(self.shared.pool.make, self.local, timeout_s=timeout_s)
        self.cache: Cache[bytes] = Cache(
            "assessment",
            "1",
            local=self.local,
            shared=self.shared,
            ttl_s=60,
            negative_ttl_s=60,
            encode=lambda value: value,
            decode=decode,
            size=len,
            claim_ttl_s=claim_ttl_s,
            wait_s=claim_ttl_s,
        )

    @property
    def redis(self) -> Shared:
        assert self.shared is not None
        return self.shared

    @property
    def link(self) -> Listener:
        assert self.listener is not None
        return self.listener

    async def get(
        self, load: Callable[[], Awaitable[bytes | None]], key: bytes = KEY, tenant_id: str = TENANT
    ) -> object:
        return await self.cache.get(tenant_id, key, load)

    async def timed_get(self, load: Source, key: bytes) -> float:
        """Seconds that a get of a key nobody asked for before took; it must give what the source gives."""
        loop = asyncio.get_running_loop()
        started = loop.time()
        assert await self.get(load, key) == load.value
        return loop.time() - started

    async def settle(self) -> None:
        """Wait until what was sent and not waited for is done."""
        await self.redis.get(b"settle")


def decode(payload: bytes) -> bytes:
    if payload.startswith(b"unreadable"):
        raise ValueError(payload)
    return payload


@asynccontextmanager
async def running(*pods: Pod, linked: bool = True) -> AsyncIterator[None]:
    """The pods opened and, unless told otherwise, listening; nothing of them may be left over after."""
    sockets, tasks = open_sockets(), asyncio.all_tasks()
    async with AsyncExitStack() as stack:
        for pod in pods:
            await pod.redis.open()
            stack.push_async_callback(pod.redis.close)
            if linked:
                pod.link.start()
                stack.push_async_callback(pod.link.stop)
                await until(lambda pod=pod: pod.link.linked)
        yield
        # Before the link is given up, which would hide them.
        assert [pod.local.flying for pod in pods] == [0] * len(pods)
    assert [pod.redis.pool.in_use for pod in pods] == [0] * len(pods)
    await until(lambda: asyncio.all_tasks() == tasks, "all tasks have ended")
    await until(lambda: open_sockets() <= sockets, "all sockets are closed")


def open_sockets() -> int:
    files = (f"/proc/self/fd/{number}" for number in os.listdir("/proc/self/fd"))
    # The listing itself is a file that is closed by now.
    return sum(os.readlink(file).startswith("socket:") for file in files if os.path.lexists(file))


async def until(condition: Callable[[], object], what: str = "", limit_s: float = 10.0) -> float:
    """Seconds until the condition held."""
    loop = asyncio.get_running_loop()
    started = loop.time()
    while not condition():
        assert loop.time() - started < limit_s, f"not within {limit_s} s: {what or condition}"
        await asyncio.sleep(0.002)
    return loop.time() - started


def play(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(scenario())


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
        pool = Pod(redis_url).redis.pool
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
        local, pool = Local(10, 10_000), Pod(redis_url).redis.pool
        for turn in range(100):
            listener = Listener(pool.make, local, timeout_s=5, ping_every_s=0.001)
            listener.start()
            await until(lambda listener=listener: listener.linked)
            await asyncio.sleep(turn % 7 / 2000)
            await asyncio.wait_for(listener.stop(), 5)

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


@settings(max_examples=10)
@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 3)), min_size=1, max_size=60))
def test_who_gives_up_leaves_no_answer_to_others(valkey: Valkey, asks: list[tuple[int, int]]) -> None:
    async def scenario() -> None:
        valkey.flush()
        with Proxy(valkey.port, latency_s=0.002) as proxy:
            pod = Pod(f"redis://127.0.0.1:{proxy.port}", min_calls=10_000)
            async with running(pod, linked=False):
                for number in range(31):
                    valkey.command("SET", b"%d" % number, b"%d" % number)
                waiting = []
                for number, patience_ms in asks:
                    ask = asyncio.create_task(pod.redis.get(b"%d" % number))
                    waiting.append((number, ask))
                    await asyncio.sleep(patience_ms / 1000)
                    if patience_ms:
                        ask.cancel()
                for number, ask in waiting:
                    if not (await asyncio.wait((ask,)))[0].pop().cancelled():
                        assert ask.result() == (True, b"%d" % number)

    play(scenario)


def test_a_connection_that_grew_old_is_replaced_and_the_spare_ones_stay_open(redis_url: str) -> None:
    async def scenario() -> None:
        now_s = 0.0
        pool = Pool(
            redis_url,
            connections=3,
            min_idle=2,
            max_age_s=100,
            timeout_s=5,
            acquire_timeout_s=0.05,
            clock=lambda: now_s,
            random=lambda: 0.5,
        )
        sockets = open_sockets()
        await pool.warm()
        assert (pool.idle, open_sockets()) == (2, sockets + 2)
        first = await pool.take()
        before = socket_of(first)
        now_s = 94
        await pool.release(first)
        assert (await pool.take(), socket_of(first)) == (first, before)
        now_s = 95
        await pool.release(first)
        assert pool.idle == 2
        assert socket_of(first) != before
        # The other grew old while nobody used it.
        held = [await pool.take(), await pool.take()]
        other = next(connection for connection in held if connection is not first)
        assert pool._is_old(other) is False
        third = await pool.take()
        with pytest.raises(FAILURES, match="No connection available"):
            await pool.take()
        now_s = 200
        for connection in (*held, third):
            await pool.release(connection)
        assert (pool.idle, pool.in_use) == (2, 0)
        sockets_before = {socket_of(connection) for connection in (*held, third) if connection.is_connected}
        now_s = 310
        await pool.renew()
        sockets_after = {socket_of(connection) for connection in (*held, third) if connection.is_connected}
        assert len(sockets_after) == 2
        assert not sockets_before & sockets_after
        assert (pool.idle, pool.in_use) == (2, 0)
        await pool.disconnect()
        await until(lambda: open_sockets() <= sockets)

    play(scenario)


def socket_of(connection: Any) -> object:
    return connection._writer.get_extra_info("sockname")


def test_the_bounds_given_count_whatever_the_url_says() -> None:
    pool = Pool(
        "redis://user:secret@host:1/2?socket_timeout=60&max_connections=900&protocol=3&retry_on_timeout=true",
        connections=3,
        min_idle=0,
        max_age_s=100,
        timeout_s=0.2,
        acquire_timeout_s=0.05,
    )
    connection = pool.make()
    assert (connection.socket_timeout, connection.socket_connect_timeout, pool.max_connections) == (None, 0.2, 3)
    assert (connection.retry.get_retries(), connection.protocol) == (0, 2)
    assert (connection.username, connection.password, connection.db) == ("user", "secret", 2)


def test_a_pool_that_makes_no_sense_is_refused() -> None:
    with pytest.raises(ValueError, match="min_idle"):
        Pool("redis://h", connections=1, min_idle=2, max_age_s=1, timeout_s=1, acquire_timeout_s=1)


@pytest.mark.parametrize("name", ["", "a:b"])
def test_a_cache_s_name_must_not_run_into_the_tenant_s(name: str) -> None:
    with pytest.raises(ValueError, match="colon"):
        Cache(
            name, "1", local=Local(1, 1), shared=None, ttl_s=1, negative_ttl_s=1, encode=bytes, decode=bytes, size=len
        )
